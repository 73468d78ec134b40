//! What the proxy itself answers with: refusals, and that something went wrong.

use bytes::BufMut;

/// The header that names the flow of a refusal, as it is found in the records.
pub const FLOW_HEADER: &str = "X-Sluice-Flow";
/// What is said to whom a policy denies something (`policy-semantics`, as the field's proxies say it).
const DENIED: &str = "Access denied";

/// An answer that does not come from the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answer<'a> {
    /// The status, 400 to 599.
    pub status: u16,
    /// The flow's id, if the request got that far.
    pub flow: Option<&'a str>,
    /// Who denied it, if the client may know: then the body is JSON.
    pub denied_by: Option<DeniedBy<'a>>,
}

/// Which policy denied a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DeniedBy<'a> {
    /// `cnp/shop/web`; none where no policy allows it.
    pub policy: Option<&'a str>,
    /// The place of the rule in it, `ingress[0].toPorts[0].http[1]`.
    pub rule: Option<&'a str>,
}

/// How the answer goes onto the wire of HTTP/1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Manner {
    /// The method was HEAD: the headers are the same, the body stays here.
    pub is_head: bool,
    /// The client speaks HTTP/1.0, and expects to be told that a connection stays.
    pub is_old: bool,
    /// The connection goes on.
    pub persists: bool,
}

impl Answer<'_> {
    /// Writes the whole answer behind what is in `out`.
    pub fn write(&self, manner: Manner, out: &mut impl BufMut) {
        let (kind, body) = self.body();
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n",
            self.status,
            self.reason(),
            body.len()
        );
        if let Some(flow) = self.flow {
            head += &format!("{FLOW_HEADER}: {flow}\r\n");
        }
        match (manner.persists, manner.is_old) {
            (true, true) => head += "Connection: keep-alive\r\n",
            (true, false) => {}
            (false, _) => head += "Connection: close\r\n",
        }
        head += "\r\n";
        out.put_slice(head.as_bytes());
        if !manner.is_head {
            out.put_slice(body.as_bytes());
        }
    }

    /// What the body is, and the body.
    pub(crate) fn body(&self) -> (&'static str, String) {
        match self.denied_by {
            Some(by) => {
                let body = serde_json::json!({
                    "error": DENIED, "policy": by.policy, "rule": by.rule, "flow": self.flow,
                });
                ("application/json", format!("{body}\r\n"))
            }
            None if self.status == 403 => ("text/plain", format!("{DENIED}\r\n")),
            None => ("text/plain", format!("{}\r\n", self.reason())),
        }
    }

    /// The phrase of the status (RFC 9110, section 15).
    pub(crate) const fn reason(&self) -> &'static str {
        match self.status {
            400 => "Bad Request",
            403 => "Forbidden",
            408 => "Request Timeout",
            431 => "Request Header Fields Too Large",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            504 => "Gateway Timeout",
            505 => "HTTP Version Not Supported",
            _ => "Internal Server Error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{Asked, BodyLength, Follows, Limits, parse_response};

    const KEPT: Manner = Manner { is_head: false, is_old: false, persists: true };

    fn written(answer: &Answer<'_>, manner: Manner) -> String {
        let mut out = Vec::new();
        answer.write(manner, &mut out);
        let head = parse_response(&out, Asked::default(), Limits::default()).unwrap().unwrap();
        let Follows::Body(BodyLength::Exactly(length)) = head.follows else { panic!("{head:?}") };
        let body = if manner.is_head { 0 } else { usize::try_from(length).unwrap() };
        assert_eq!(out.len(), head.length + body);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_refusal_is_what_the_field_says() {
        let denied = Answer { status: 403, flow: Some("7-1"), denied_by: None };
        let head = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 15\r\nX-Sluice-Flow: 7-1\r\n";
        assert_eq!(written(&denied, KEPT), format!("{head}\r\nAccess denied\r\n"));
        assert_eq!(written(&denied, Manner { is_head: true, ..KEPT }), format!("{head}\r\n"));
        let last = Manner { persists: false, ..KEPT };
        assert_eq!(written(&denied, last), format!("{head}Connection: close\r\n\r\nAccess denied\r\n"));
        let old = Manner { is_old: true, ..KEPT };
        assert_eq!(written(&denied, old), format!("{head}Connection: keep-alive\r\n\r\nAccess denied\r\n"));
    }

    #[test]
    fn a_refusal_may_name_who_denied() {
        let by = DeniedBy { policy: Some("cnp/shop/\"web\""), rule: Some("ingress[0].toPorts[0].http[1]") };
        let denied = Answer { status: 403, flow: Some("7-1"), denied_by: Some(by) };
        let text = written(&denied, KEPT);
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let wanted = serde_json::json!({
            "error": "Access denied", "policy": "cnp/shop/\"web\"", "rule": "ingress[0].toPorts[0].http[1]", "flow": "7-1",
        });
        assert_eq!(body, wanted);
    }

    #[test]
    fn what_goes_wrong_has_its_phrase() {
        for status in [400, 408, 431, 500, 502, 503, 504, 505] {
            let text = written(&Answer { status, flow: None, denied_by: None }, KEPT);
            assert!(!text.contains("Access denied") && !text.contains("X-Sluice"), "{text}");
            assert!((status == 500) == text.contains("Internal Server Error"), "{text}");
        }
    }
}
