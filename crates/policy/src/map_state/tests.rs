use super::*;

const PEER: Identity = Identity::new(300);
const OTHER: Identity = Identity::new(301);

fn entry(precedence: u32, verdict: EntryVerdict, rule: u32) -> Entry {
    Entry { precedence, verdict, rule: RuleId(rule) }
}

fn table(rows: &[(Option<Identity>, L4Match, Entry)]) -> MapState {
    let entries = rows
        .iter()
        .map(|(peer, l4, entry)| (Key { direction: Direction::Ingress, peer: *peer, l4: *l4 }, *entry))
        .collect();
    MapState { entries, ..MapState::default() }
}

fn ask(peer: Identity, protocol: Protocol, port: impl Into<Option<u16>>) -> Query {
    Query { direction: Direction::Ingress, peer, protocol, port: port.into() }
}

const TCP_80: L4Match = L4Match::port(Protocol::Tcp, 80);

#[test]
fn nothing_matches_is_a_default_denial() {
    let decision = MapState::default().decide(&ask(PEER, Protocol::Tcp, 80));
    assert_eq!(decision.verdict, Verdict::Deny(DropReason::PolicyDenied));
    assert_eq!((decision.rule, decision.match_type), (RuleId::NONE, MatchType::None));
}

#[test]
fn precedence_decides_over_every_width() {
    let allow = entry(1, EntryVerdict::Allow, 1);
    let deny = entry(2, EntryVerdict::Deny, 2);
    let widths = [
        L4Match::Any,
        L4Match::Protocol(Protocol::Tcp),
        L4Match::Port { protocol: Protocol::Tcp, port: 64, prefix: 10 },
        TCP_80,
    ];
    for allowed in widths {
        for denied in widths {
            for (allow_peer, deny_peer) in [(Some(PEER), None), (None, Some(PEER))] {
                let state = table(&[(allow_peer, allowed, allow), (deny_peer, denied, deny)]);
                let decision = state.decide(&ask(PEER, Protocol::Tcp, 80));
                assert_eq!(decision.verdict, Verdict::Deny(DropReason::PolicyDeny), "{allowed:?} {denied:?}");
                assert_eq!(decision.rule, RuleId(2));
            }
        }
    }
}

#[test]
fn match_types() {
    let allow = entry(1, EntryVerdict::Allow, 1);
    let cases = [
        (Some(PEER), L4Match::Any, MatchType::L3Only),
        (Some(PEER), L4Match::Protocol(Protocol::Tcp), MatchType::L3Proto),
        (Some(PEER), TCP_80, MatchType::L3L4),
        (None, L4Match::Any, MatchType::All),
        (None, L4Match::Protocol(Protocol::Tcp), MatchType::ProtoOnly),
        (None, TCP_80, MatchType::L4Only),
    ];
    for (peer, l4, want) in cases {
        let decision = table(&[(peer, l4, allow)]).decide(&ask(PEER, Protocol::Tcp, 80));
        assert_eq!((decision.verdict, decision.match_type), (Verdict::Allow, want));
    }
    let state = table(&[(Some(PEER), TCP_80, allow)]);
    for query in [ask(OTHER, Protocol::Tcp, 80), ask(PEER, Protocol::Udp, 80), ask(PEER, Protocol::Tcp, 81)] {
        assert_eq!(state.decide(&query).match_type, MatchType::None);
    }
}

#[test]
fn fragments_pass_only_where_nothing_looks_at_ports() {
    let allow = entry(1, EntryVerdict::Allow, 1);
    let blind = table(&[(Some(PEER), L4Match::Protocol(Protocol::Udp), allow)]);
    assert_eq!(blind.decide(&ask(PEER, Protocol::Udp, None)).verdict, Verdict::Allow);
    assert_eq!(
        blind.decide(&ask(PEER, Protocol::Tcp, None)).verdict,
        Verdict::Deny(DropReason::PolicyDenied)
    );
    let looking = table(&[(Some(PEER), L4Match::Any, allow), (Some(OTHER), TCP_80, allow)]);
    assert_eq!(
        looking.decide(&ask(PEER, Protocol::Udp, None)).verdict,
        Verdict::Deny(DropReason::FirstFragmentNotFound)
    );
}

#[test]
fn audit_reports_and_passes() {
    let deny = entry(2, EntryVerdict::Deny, 2);
    let mut state = table(&[(Some(PEER), L4Match::Any, deny)]);
    state.audit_ingress = true;
    assert_eq!(state.decide(&ask(PEER, Protocol::Tcp, 1)).verdict, Verdict::Audit(DropReason::PolicyDeny));
    assert_eq!(state.decide(&ask(OTHER, Protocol::Tcp, 1)).verdict, Verdict::Audit(DropReason::PolicyDenied));
    let egress = Query { direction: Direction::Egress, ..ask(OTHER, Protocol::Tcp, 1) };
    assert_eq!(state.decide(&egress).verdict, Verdict::Deny(DropReason::PolicyDenied));
}

#[test]
fn the_staged_plane_is_asked_about_what_passes() {
    let allow = table(&[(None, L4Match::Any, entry(1, EntryVerdict::Allow, 1))]);
    let staged = table(&[
        (None, L4Match::Protocol(Protocol::Udp), entry(2, EntryVerdict::Allow, 2)),
        (Some(PEER), TCP_80, entry(3, EntryVerdict::Deny, 3)),
    ]);
    let state = MapState { staged: staged.entries, staged_ingress: true, ..allow };
    let told = |state: &MapState, peer, protocol, port: Option<u16>| {
        let decision = state.decide(&ask(peer, protocol, port));
        (decision.verdict, decision.rule.0)
    };
    let audited = (Verdict::Audit(DropReason::PolicyDeny), 3);
    assert_eq!(told(&state, PEER, Protocol::Tcp, Some(80)), audited);
    assert_eq!(told(&state, OTHER, Protocol::Tcp, Some(80)), (Verdict::Audit(DropReason::PolicyDenied), 0));
    assert_eq!(told(&state, OTHER, Protocol::Udp, Some(80)), (Verdict::Allow, 1));
    // Nothing is known about a fragment without its port, so nothing is told.
    assert_eq!(told(&state, PEER, Protocol::Tcp, None), (Verdict::Allow, 1));
    // What is denied stays denied, and what an administrator allows is not asked about.
    let closed = MapState { entries: [].into(), ..state.clone() };
    assert_eq!(told(&closed, OTHER, Protocol::Udp, Some(80)).0, Verdict::Deny(DropReason::PolicyDenied));
    let admin = table(&[(Some(PEER), TCP_80, entry(9, EntryVerdict::Allow, 9))]).entries;
    assert_eq!(told(&MapState { admin, ..state }, PEER, Protocol::Tcp, Some(80)), (Verdict::Allow, 9));
}

#[test]
fn the_admin_plane_comes_first_and_may_pass() {
    let key = |peer, l4| Key { direction: Direction::Ingress, peer, l4 };
    let plane = |rows: &[(Key, Entry)]| rows.iter().copied().collect();
    let pass = entry(9, EntryVerdict::Pass, 1);
    let deny = entry(8, EntryVerdict::Deny, 2);
    let state = MapState {
        admin: plane(&[
            (key(Some(PEER), TCP_80), pass),
            (key(None, L4Match::Protocol(Protocol::Tcp)), deny),
            (key(Some(OTHER), L4Match::Any), entry(7, EntryVerdict::Allow, 3)),
        ]),
        entries: plane(&[
            (key(Some(PEER), TCP_80), entry(1, EntryVerdict::Allow, 4)),
            (key(Some(OTHER), L4Match::Any), entry(2, EntryVerdict::Deny, 5)),
        ]),
        ..MapState::default()
    };
    let cases = [
        ("a pass hides what comes after it in its plane", PEER, Protocol::Tcp, 80, Verdict::Allow, 4),
        ("no pass for this port", PEER, Protocol::Tcp, 81, Verdict::Deny(DropReason::PolicyDeny), 2),
        ("nothing in either plane", PEER, Protocol::Udp, 80, Verdict::Deny(DropReason::PolicyDenied), 0),
        ("admins allow what others deny", OTHER, Protocol::Udp, 53, Verdict::Allow, 3),
        ("of admins the strongest", OTHER, Protocol::Tcp, 53, Verdict::Deny(DropReason::PolicyDeny), 2),
    ];
    for (name, peer, protocol, port, verdict, rule) in cases {
        let decision = state.decide(&ask(peer, protocol, port));
        assert_eq!((decision.verdict, decision.rule), (verdict, RuleId(rule)), "{name}");
    }
}
