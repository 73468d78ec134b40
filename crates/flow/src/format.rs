//! One line per flow, for people.

use core::fmt;

use crate::{Flow, FlowEnd, FlowVerdict, HttpRecord, PolicyOrigin};

impl fmt::Display for FlowVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forwarded => "FORWARDED",
            Self::Dropped => "DROPPED",
            Self::Audit => "AUDIT",
            Self::Redirected => "REDIRECTED",
            Self::Error => "ERROR",
        })
    }
}

impl fmt::Display for PolicyOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.policy)?;
        if self.rule.is_empty() { Ok(()) } else { write!(f, " {}", self.rule) }
    }
}

impl FlowEnd {
    /// `NAMESPACE/POD`, else the reserved name of its identity, else its address.
    #[must_use]
    pub fn name(&self) -> String {
        if !self.pod.is_empty() {
            return format!("{}/{}", self.namespace, self.pod);
        }
        match self.identity.reserved_name() {
            Some(name) if !self.ip.is_empty() => format!("{name} ({})", self.ip),
            Some(name) => name.to_owned(),
            None => self.ip.clone(),
        }
    }

    fn name_and_port(&self) -> String {
        if self.port == 0 { self.name() } else { format!("{}:{}", self.name(), self.port) }
    }
}

/// `GET web:80/a?b 200 in 1.2 ms`.
impl fmt::Display for HttpRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.method, self.authority, self.path)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        let micros = self.latency_ns / 1_000;
        write!(f, " in {}.{} ms", micros / 1_000, micros % 1_000 / 100)
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination) = (self.source.name_and_port(), self.destination.name_and_port());
        write!(f, "{} {source} -> {destination} ", self.verdict)?;
        match &self.http {
            Some(http) => write!(f, "{http}")?,
            None => f.write_str(&self.l4.protocol)?,
        }
        if !self.l4.tcp_flags.is_empty() && self.http.is_none() {
            write!(f, " {}", self.l4.tcp_flags)?;
        }
        if let Some(icmp_type) = self.l4.icmp_type {
            write!(f, " type {icmp_type}")?;
        }
        write!(f, " ({}", self.direction)?;
        if let Some(reason) = self.drop_reason {
            write!(f, ", {}: {}", reason.as_str(), reason.description())?;
        }
        for (nth, origin) in self.policies.iter().enumerate() {
            write!(f, "{}{origin}", if nth == 0 { ", by " } else { " and " })?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::L4;
    use sluice_types::{Direction, DropReason, Identity, Labels};

    #[test]
    fn a_drop_reads_as_a_sentence() {
        let pod = |namespace: &str, pod: &str, port| FlowEnd {
            ip: "10.0.0.1".into(),
            port,
            identity: Identity::new(300),
            labels: Labels::new(),
            namespace: namespace.into(),
            pod: pod.into(),
        };
        let flow = Flow {
            time_unix_ns: 0,
            verdict: FlowVerdict::Dropped,
            drop_reason: Some(DropReason::PolicyDenied),
            direction: Direction::Ingress,
            endpoint: 7,
            source: pod("shop", "other", 40_000),
            destination: pod("shop", "backend", 8080),
            l4: L4 { protocol: "TCP".into(), tcp_flags: "SYN".into(), icmp_type: None },
            is_reply: false,
            policies: vec![PolicyOrigin { policy: "cnp/shop/allow".into(), rule: String::new() }],
            revision: 3,
            length: 74,
            lost: 0,
            ifindex: 5,
            http: None,
        };
        let http = HttpRecord {
            flow: "1-1".into(),
            method: "DELETE".into(),
            path: "/a?b".into(),
            authority: "web".into(),
            status: Some(403),
            latency_ns: 1_234_567,
        };
        let request = Flow { http: Some(http), ..flow.clone() };
        assert_eq!(
            request.to_string(),
            "DROPPED shop/other:40000 -> shop/backend:8080 DELETE web/a?b 403 in 1.2 ms (ingress, POLICY_DENIED: no rule \
             allows it (default deny), by cnp/shop/allow)"
        );
        assert_eq!(
            flow.to_string(),
            "DROPPED shop/other:40000 -> shop/backend:8080 TCP SYN (ingress, POLICY_DENIED: no rule allows it \
             (default deny), by cnp/shop/allow)"
        );
    }
}
