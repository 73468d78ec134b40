//! Kafka requests (semantics of upstream's former `proxylib/kafka`; kinds of today's protocol).
//!
//! A rule without topic covers every topic. Of a request with several topics each must be covered, not all by the
//! same rule. Kinds of requests without topics pass as soon as a rule covers kind, version and client.

use std::{collections::BTreeSet, fmt};

use super::Mismatch;

/// A request as a proxy has read it.
#[derive(Clone, Copy, Debug)]
pub struct KafkaRequest<'a> {
    /// The kind.
    pub api_key: i16,
    /// The version of the kind.
    pub api_version: i16,
    /// What the client calls itself.
    pub client_id: Option<&'a str>,
    /// The topics it is about.
    pub topics: &'a [&'a str],
    /// How many more topics it is about whose names are not known. Only a rule without topic covers them.
    pub unknown_topics: usize,
}

/// One element of `kafka`: all its parts must hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KafkaRule {
    /// Where it stands, `kafka[0]`.
    pub part: String,
    /// The kinds, and what they are called together; `None` is every kind.
    pub kinds: Option<Kinds>,
    /// The version.
    pub api_version: Option<i16>,
    /// What the client calls itself.
    pub client_id: Option<String>,
    /// The topic.
    pub topic: Option<String>,
}

/// In one line: `role produce topic orders`.
impl fmt::Display for KafkaRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kinds.as_ref().map_or("any request", |kinds| &kinds.name))?;
        if let Some(version) = self.api_version {
            write!(f, " version {version}")?;
        }
        if let Some(client) = &self.client_id {
            write!(f, " client {client}")?;
        }
        self.topic.iter().try_for_each(|topic| write!(f, " topic {topic}"))
    }
}

/// Kinds of requests under one name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kinds {
    /// `role produce`, `fetch`.
    pub name: String,
    keys: BTreeSet<i16>,
}

impl Kinds {
    /// What a role needs, with what today's clients send for it.
    #[must_use]
    pub fn role(name: &str) -> Option<Self> {
        let keys = match name {
            "produce" => PRODUCE,
            "consume" => CONSUME,
            _ => return None,
        };
        let keys = keys.iter().chain(EVERYBODY).copied().collect();
        Some(Self { name: format!("role {name}"), keys })
    }

    /// The kind of this name, in either case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let key = api_key(name)?;
        Some(Self { name: name.to_ascii_lowercase(), keys: BTreeSet::from([key]) })
    }
}

/// What the rules say about one request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Finding {
    /// It passes by these rules, by place in the list.
    Named(Vec<usize>),
    /// It does not. For each rule what is different.
    Unnamed(Vec<(usize, Mismatch)>),
}

/// Looks at one request with all rules for it.
#[must_use]
pub fn check(rules: &[&KafkaRule], request: &KafkaRequest<'_>) -> Finding {
    let (mut fitting, mut mismatches) = (Vec::new(), Vec::new());
    for (nth, rule) in rules.iter().enumerate() {
        match rule.fits(request) {
            Ok(()) => fitting.push((nth, *rule)),
            Err(mismatch) => mismatches.push((nth, mismatch)),
        }
    }
    let mut used = BTreeSet::new();
    let unknown = (request.unknown_topics > 0).then_some(None);
    let wanted: Vec<Option<&str>> = request.topics.iter().map(|topic| Some(*topic)).chain(unknown).collect();
    if wanted.is_empty() {
        used.extend(fitting.first().map(|(nth, _)| *nth));
    }
    for topic in wanted {
        match fitting.iter().find(|(_, rule)| rule.covers(topic)) {
            Some((nth, _)) => {
                used.insert(*nth);
            }
            None => {
                let differs = |rule: &KafkaRule| {
                    let own = rule.topic.as_deref().unwrap_or_default();
                    Mismatch::new("topic", own, Some(topic.unwrap_or("(unknown)")))
                };
                mismatches.extend(fitting.iter().map(|(nth, rule)| (*nth, differs(rule))));
                return Finding::Unnamed(mismatches);
            }
        }
    }
    if used.is_empty() { Finding::Unnamed(mismatches) } else { Finding::Named(used.into_iter().collect()) }
}

impl KafkaRule {
    /// Whether everything but the topic holds.
    fn fits(&self, request: &KafkaRequest<'_>) -> Result<(), Mismatch> {
        if let Some(kinds) = self.kinds.as_ref().filter(|kinds| !kinds.keys.contains(&request.api_key)) {
            let got = api_name(request.api_key).map_or_else(|| request.api_key.to_string(), str::to_owned);
            return Err(Mismatch::new("API key", &*kinds.name, Some(&got)));
        }
        // Nobody can say what topics a kind is about that is not known.
        if self.topic.is_some() && api_name(request.api_key).is_none() {
            return Err(Mismatch::new("API key", "a known one", Some(&request.api_key.to_string())));
        }
        if let Some(version) = self.api_version.filter(|version| *version != request.api_version) {
            return Err(Mismatch::new(
                "API version",
                version.to_string(),
                Some(&request.api_version.to_string()),
            ));
        }
        match &self.client_id {
            Some(id) if request.client_id != Some(id) => {
                Err(Mismatch::new("client id", &**id, request.client_id))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn covers(&self, topic: Option<&str>) -> bool {
        self.topic.is_none() || topic.is_some() && self.topic.as_deref() == topic
    }
}

/// The number of a kind of request by its name, in either case.
#[must_use]
pub fn api_key(name: &str) -> Option<i16> {
    let name = name.to_ascii_lowercase();
    let listed = API_KEYS.iter().chain(ALIASES).find(|(_, own)| *own == name);
    listed.map(|(key, _)| *key)
}

/// The name of a kind of request.
#[must_use]
pub fn api_name(key: i16) -> Option<&'static str> {
    API_KEYS.iter().find(|(own, _)| *own == key).map(|(_, name)| *name)
}

/// What every client sends: Metadata, ApiVersions, SASL, what clients tell about themselves, DescribeCluster.
const EVERYBODY: &[i16] = &[3, 17, 18, 36, 60, 71, 72];
/// Produce, and what idempotent and transactional producers send.
const PRODUCE: &[i16] = &[0, 10, 22, 24, 25, 26, 28];
/// Fetch and offsets, the old and the new protocol of groups, epochs of leaders, share groups.
const CONSUME: &[i16] = &[1, 2, 8, 9, 10, 11, 12, 13, 14, 23, 68, 69, 76, 77, 78, 79];

/// Names that older clients and rules use.
const ALIASES: &[(i16, &str)] =
    &[(2, "listoffsets"), (10, "groupcoordinator"), (74, "listclientmetricsresources")];

/// The kinds of requests with their numbers: `apiKey` and `name` of the message definitions that Kafka's clients
/// carry (`common/message/*Request.json`), in lower case; 2 has the name of the old rules.
const API_KEYS: &[(i16, &str)] = &[
    (0, "produce"),
    (1, "fetch"),
    (2, "offsets"),
    (3, "metadata"),
    (4, "leaderandisr"),
    (5, "stopreplica"),
    (6, "updatemetadata"),
    (7, "controlledshutdown"),
    (8, "offsetcommit"),
    (9, "offsetfetch"),
    (10, "findcoordinator"),
    (11, "joingroup"),
    (12, "heartbeat"),
    (13, "leavegroup"),
    (14, "syncgroup"),
    (15, "describegroups"),
    (16, "listgroups"),
    (17, "saslhandshake"),
    (18, "apiversions"),
    (19, "createtopics"),
    (20, "deletetopics"),
    (21, "deleterecords"),
    (22, "initproducerid"),
    (23, "offsetforleaderepoch"),
    (24, "addpartitionstotxn"),
    (25, "addoffsetstotxn"),
    (26, "endtxn"),
    (27, "writetxnmarkers"),
    (28, "txnoffsetcommit"),
    (29, "describeacls"),
    (30, "createacls"),
    (31, "deleteacls"),
    (32, "describeconfigs"),
    (33, "alterconfigs"),
    (34, "alterreplicalogdirs"),
    (35, "describelogdirs"),
    (36, "saslauthenticate"),
    (37, "createpartitions"),
    (38, "createdelegationtoken"),
    (39, "renewdelegationtoken"),
    (40, "expiredelegationtoken"),
    (41, "describedelegationtoken"),
    (42, "deletegroups"),
    (43, "electleaders"),
    (44, "incrementalalterconfigs"),
    (45, "alterpartitionreassignments"),
    (46, "listpartitionreassignments"),
    (47, "offsetdelete"),
    (48, "describeclientquotas"),
    (49, "alterclientquotas"),
    (50, "describeuserscramcredentials"),
    (51, "alteruserscramcredentials"),
    (52, "vote"),
    (53, "beginquorumepoch"),
    (54, "endquorumepoch"),
    (55, "describequorum"),
    (56, "alterpartition"),
    (57, "updatefeatures"),
    (58, "envelope"),
    (59, "fetchsnapshot"),
    (60, "describecluster"),
    (61, "describeproducers"),
    (62, "brokerregistration"),
    (63, "brokerheartbeat"),
    (64, "unregisterbroker"),
    (65, "describetransactions"),
    (66, "listtransactions"),
    (67, "allocateproducerids"),
    (68, "consumergroupheartbeat"),
    (69, "consumergroupdescribe"),
    (70, "controllerregistration"),
    (71, "gettelemetrysubscriptions"),
    (72, "pushtelemetry"),
    (73, "assignreplicastodirs"),
    (74, "listconfigresources"),
    (75, "describetopicpartitions"),
    (76, "sharegroupheartbeat"),
    (77, "sharegroupdescribe"),
    (78, "sharefetch"),
    (79, "shareacknowledge"),
    (80, "addraftvoter"),
    (81, "removeraftvoter"),
    (82, "updateraftvoter"),
    (83, "initializesharegroupstate"),
    (84, "readsharegroupstate"),
    (85, "writesharegroupstate"),
    (86, "deletesharegroupstate"),
    (87, "readsharegroupstatesummary"),
    (88, "streamsgroupheartbeat"),
    (89, "streamsgroupdescribe"),
    (90, "describesharegroupoffsets"),
    (91, "altersharegroupoffsets"),
    (92, "deletesharegroupoffsets"),
];

#[cfg(test)]
mod tests;
