//! One endpoint: what it is, what state its policy is in, and what happened to it.
//!
//! Pure values; `state` moves them on. An endpoint's policy is *wanted* at the repository's revision and *realized*
//! at the one that the kernel has.

pub(crate) mod ids;
mod view;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use sluice_client::model::{EndpointLogEntry, EndpointOptions, EndpointRequest, EndpointState};
use sluice_ebpf_common::{EndpointFlags, EndpointInfo};
use sluice_netlink::MacAddr;
use sluice_policy::EndpointPolicy;
use sluice_proxy_rules::EndpointRules;
use sluice_types::{EndpointId, Identity, Labels};

use crate::effect::EndpointRecord;
use crate::event::{Now, Refusal, RefusalCode};
use crate::ipam::{Addresses, Owner};

/// How many lines of history an endpoint keeps.
const LOG_MAX: usize = 128;
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What the plugin said about the attachment, checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attachment {
    /// As it was said.
    pub request: EndpointRequest,
    mac: MacAddr,
    host_mac: MacAddr,
}

impl Attachment {
    /// Checks what can be checked without knowing the rest of the node.
    ///
    /// # Errors
    /// A field is missing or makes no sense.
    pub(crate) fn parse(request: EndpointRequest) -> Result<Self, Refusal> {
        let invalid = |what: String| Refusal::new(RefusalCode::Invalid, what);
        let mac = |text: &str, field: &str| {
            text.parse::<MacAddr>()
                .ok()
                .filter(|mac| mac.0 != [0; 6] && mac.0[0] & 1 == 0)
                .ok_or_else(|| invalid(format!("{field} {text:?} is not the MAC address of an interface")))
        };
        let parsed =
            Self { mac: mac(&request.mac, "mac")?, host_mac: mac(&request.host_mac, "host_mac")?, request };
        let request = &parsed.request;
        if request.container_id.is_empty() || request.ifname.is_empty() {
            return Err(invalid("container_id and ifname must be given".to_owned()));
        }
        if request.host_ifindex == 0 || request.host_ifname.is_empty() {
            return Err(invalid("host_ifname and host_ifindex must be given".to_owned()));
        }
        if parsed.addresses().next().is_none() {
            return Err(invalid("the endpoint has no address".to_owned()));
        }
        for address in parsed.addresses() {
            if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
                return Err(invalid(format!("{address} cannot be a pod's address")));
            }
        }
        Ok(parsed)
    }

    /// Its addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        Addresses { ipv4: self.request.ipv4, ipv6: self.request.ipv6 }.iter()
    }

    /// Its addresses as host prefixes.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = IpNet> + use<> {
        self.addresses().map(IpNet::from)
    }

    /// Who leased them.
    #[must_use]
    pub(crate) fn owner(&self) -> Owner {
        Owner { container_id: self.request.container_id.clone(), ifname: self.request.ifname.clone() }
    }

    /// The pod's namespace and name, if it is one.
    #[must_use]
    pub(crate) fn pod(&self) -> Option<(String, String)> {
        Some((self.request.pod_namespace.clone()?, self.request.pod_name.clone()?))
    }
}

/// What the kernel is known to have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Realized {
    /// The policy; unknown after a restart until the first installation.
    pub policy: Option<Arc<EndpointPolicy>>,
    /// The entry. All zero if there is none.
    pub info: EndpointInfo,
}

/// One endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Its number.
    pub id: EndpointId,
    /// Its life: another one each time an id or an address is used again.
    pub generation: u32,
    /// What it stands on.
    pub attachment: Attachment,
    /// Its identity; none while there is no number for its labels.
    pub identity: Option<Identity>,
    /// Its labels.
    pub labels: Labels,
    /// Its options.
    pub options: EndpointOptions,
    /// Its state.
    pub state: EndpointState,
    /// Why it is not ready.
    pub problem: Option<String>,
    /// What the kernel has.
    pub realized: Realized,
    /// What the proxies were told.
    pub told: Option<EndpointRules>,
    /// Whether its policy must be resolved.
    pub is_dirty: bool,
    /// Whether what is on disk is this.
    pub is_stored: bool,
    /// Whether its policy has been in the kernel at least once.
    pub was_ready: bool,
    /// The repository's revision that its policy in the kernel is up to date with.
    pub realized_revision: u64,
    /// When to try again what failed.
    pub retry_at: Option<Instant>,
    /// Since when its interface has not been seen.
    pub missing_since: Option<Instant>,
    attempts: u32,
    log: VecDeque<EndpointLogEntry>,
}

impl Endpoint {
    /// A new one, closed and without identity.
    #[must_use]
    pub(crate) fn new(id: EndpointId, generation: u32, attachment: Attachment) -> Self {
        Self {
            id,
            generation,
            attachment,
            identity: None,
            labels: Labels::new(),
            options: EndpointOptions::default(),
            state: EndpointState::WaitingForIdentity,
            problem: None,
            realized: Realized::default(),
            told: None,
            is_dirty: true,
            is_stored: false,
            was_ready: false,
            realized_revision: 0,
            retry_at: None,
            missing_since: None,
            attempts: 0,
            log: VecDeque::new(),
        }
    }

    /// Moves to `state` and writes down why.
    pub(crate) fn note(&mut self, state: EndpointState, message: impl Into<String>, now: Now) {
        self.state = state;
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        self.log.push_back(EndpointLogEntry { time_unix_ns: now.unix_ns, state, message: message.into() });
    }

    /// Its history, oldest first.
    #[must_use]
    pub(crate) fn log(&self) -> Vec<EndpointLogEntry> {
        self.log.iter().cloned().collect()
    }

    /// Something could not be written: try again later, ever more slowly.
    pub(crate) fn failed(&mut self, reason: &str, now: Now) {
        let delay = RETRY_FIRST.saturating_mul(1 << self.attempts.min(16)).min(RETRY_MAX);
        self.attempts = self.attempts.saturating_add(1);
        self.retry_at = Some(now.instant + delay);
        self.problem = Some(reason.to_owned());
        self.note(EndpointState::WaitingToRegenerate, reason, now);
    }

    /// Everything is written.
    pub(crate) fn succeeded(&mut self) {
        self.attempts = 0;
        self.retry_at = None;
        self.problem = None;
    }

    /// The entry it should have in the kernel, ready and under `revision`; none without identity.
    #[must_use]
    pub(crate) fn info(&self, revision: u32) -> Option<EndpointInfo> {
        let ready = EndpointFlags::READY;
        let flags = if self.attachment.request.chained { ready.with(EndpointFlags::CHAINED) } else { ready };
        let request = &self.attachment.request;
        Some(EndpointInfo {
            id: self.id.as_u16(),
            flags,
            ifindex: request.host_ifindex,
            identity: self.identity?.as_u32(),
            revision,
            generation: self.generation,
            mac: self.attachment.mac.0,
            host_mac: self.attachment.host_mac.0,
            ipv4_be: request.ipv4.map(|address| address.octets()).unwrap_or_default(),
            ipv6_be: request.ipv6.map(|address| address.octets()).unwrap_or_default(),
            ..EndpointInfo::default()
        })
    }

    /// What is to be stored; none without identity.
    #[must_use]
    pub(crate) fn record(&self) -> Option<EndpointRecord> {
        Some(EndpointRecord {
            id: self.id,
            generation: self.generation,
            identity: self.identity?,
            labels: self.labels.clone(),
            attachment: self.attachment.request.clone(),
            options: self.options.clone(),
        })
    }

    /// Whether the kernel enforces some policy for it.
    #[must_use]
    pub(crate) fn is_enforced(&self) -> bool {
        self.realized.info.flags.contains(EndpointFlags::READY)
    }

    /// Its name for people.
    #[must_use]
    pub(crate) fn name(&self) -> String {
        match self.attachment.pod() {
            Some((namespace, name)) => format!("{namespace}/{name}"),
            None => self.attachment.owner().to_string(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A request that is in order.
    pub(crate) fn request() -> EndpointRequest {
        EndpointRequest {
            container_id: "c".into(),
            ifname: "eth0".into(),
            netns: String::new(),
            pod_namespace: None,
            pod_name: None,
            pod_uid: None,
            host_ifname: "slu1".into(),
            host_ifindex: 1,
            mac: "02:00:00:00:00:01".into(),
            host_mac: "02:00:00:00:00:02".into(),
            ipv4: Some("10.0.0.2".parse().unwrap()),
            ipv6: None,
            chained: false,
            own_ipam: false,
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(Attachment::parse(request()).is_ok());
        let cases = [
            EndpointRequest { mac: "nonsense".into(), ..request() },
            EndpointRequest { mac: "00:00:00:00:00:00".into(), ..request() },
            EndpointRequest { host_mac: "01:00:5e:00:00:01".into(), ..request() },
            EndpointRequest { container_id: String::new(), ..request() },
            EndpointRequest { host_ifindex: 0, ..request() },
            EndpointRequest { host_ifname: String::new(), ..request() },
            EndpointRequest { ipv4: None, ..request() },
            EndpointRequest { ipv4: Some("127.0.0.1".parse().unwrap()), ..request() },
            EndpointRequest { ipv6: Some("ff02::1".parse().unwrap()), ..request() },
            EndpointRequest { ipv6: Some("::".parse().unwrap()), ..request() },
        ];
        for case in cases {
            let refusal = Attachment::parse(case.clone()).unwrap_err();
            assert_eq!(refusal.code, RefusalCode::Invalid, "{case:?}");
        }
    }

    #[test]
    fn retries_come_ever_more_slowly_and_the_log_is_bounded() {
        let mut endpoint =
            Endpoint::new(EndpointId::new(1).unwrap(), 1, Attachment::parse(request()).unwrap());
        let now = crate::clock::now();
        let mut delays = Vec::new();
        for _ in 0..300 {
            endpoint.failed("no room", now);
            delays.push(endpoint.retry_at.unwrap().duration_since(now.instant));
        }
        assert!(delays.is_sorted());
        assert_eq!((delays.first(), delays.last()), (Some(&RETRY_FIRST), Some(&RETRY_MAX)));
        assert_eq!(endpoint.log().len(), LOG_MAX);
        endpoint.succeeded();
        assert_eq!((endpoint.retry_at, endpoint.problem), (None, None));
    }
}
