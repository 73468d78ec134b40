//! The head of a request: what is read of it, judged, and sent to the server.

use h2::ext::Protocol;
use http::header::{CONTENT_TYPE, COOKIE, EXPECT, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, request};
use sluice_policy::l7::{HeaderAction, HeaderEffect, HttpRequest};

use crate::http1::{EffectError, HeadError, Limits, check_effect, is_authority, is_never_asked_for, is_same};
use crate::path;

/// What the content type of a gRPC call begins with.
const GRPC: &[u8] = b"application/grpc";
/// Headers of HTTP/1's connections, with which no server would take the request, beside those that no effect changes.
const NEVER_SENT: [&str; 2] = ["keep-alive", "proxy-connection"];

/// The head of a request, in the form that is judged and forwarded.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    /// The normal form with the query; empty for a tunnel to an authority.
    pub(super) path: String,
    pub(super) authority: String,
    uri: Uri,
    /// What is spoken in the tunnel that an extended CONNECT asks for.
    protocol: Option<Protocol>,
    /// Without `Host`, which the authority stands for. Gone when they were forwarded, but for tunnels.
    headers: HeaderMap,
    is_grpc: bool,
}

impl Head {
    /// The head that came.
    ///
    /// # Errors
    /// It is none that everybody reads alike.
    pub(super) fn read(mut parts: request::Parts) -> Result<Self, HeadError> {
        if parts.headers.len() > Limits::HEADERS {
            return Err(HeadError::TooLarge);
        }
        let uri = parts.uri.into_parts();
        let authority = authority(uri.authority.as_ref(), &parts.headers)?;
        let protocol = parts.extensions.remove::<Protocol>();
        if protocol.as_ref().is_some_and(|own| is_never_asked_for(own.as_ref())) {
            return Err(HeadError::BadTarget);
        }
        let written = uri.path_and_query.as_ref().map_or("", PathAndQuery::as_str);
        let path = if parts.method == Method::CONNECT && protocol.is_none() {
            if !authority.contains(':') {
                return Err(HeadError::BadTarget);
            }
            String::new()
        } else if written == "*" && parts.method == Method::OPTIONS {
            written.to_owned()
        } else {
            path::normal(written)?.into_owned()
        };
        // Without an authority the scheme is not kept.
        let scheme = uri.scheme.unwrap_or(Scheme::HTTP);
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(HeadError::BadTarget);
        }
        parts.headers.remove(HOST);
        join_cookies(&mut parts.headers)?;
        let uri = whole(scheme, &authority, &path).ok_or(HeadError::BadTarget)?;
        let is_grpc = is_grpc(&parts.headers);
        Ok(Self { method: parts.method, path, authority, uri, protocol, headers: parts.headers, is_grpc })
    }

    /// Has it judged.
    pub(super) fn judged<J>(&self, judge: impl FnOnce(&HttpRequest<'_>) -> J) -> J {
        let headers: Vec<(&str, &[u8])> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        judge(&HttpRequest {
            method: self.method.as_str(),
            path: &self.path,
            authority: &self.authority,
            headers: &headers,
        })
    }

    /// Whether what follows is not read by anybody here, and is judged again when the rules change.
    pub(super) fn is_tunnel(&self) -> bool {
        self.method == Method::CONNECT
    }

    /// Whether the client sends the rest only when it is told to.
    pub(super) fn waits(&self) -> bool {
        self.headers.contains_key(EXPECT)
    }

    /// Whether a refusal has to be one of gRPC.
    pub(super) const fn is_grpc(&self) -> bool {
        self.is_grpc
    }

    /// What the server gets: what was judged, with the effects carried out.
    ///
    /// # Errors
    /// An effect cannot be carried out.
    pub(super) fn forwarded(&mut self, effects: &[HeaderEffect]) -> Result<Request<()>, EffectError> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uri.clone();
        if let Some(protocol) = &self.protocol {
            request.extensions_mut().insert(protocol.clone());
        }
        *request.headers_mut() = self.changed(effects)?;
        Ok(request)
    }

    fn changed(&mut self, effects: &[HeaderEffect]) -> Result<HeaderMap, EffectError> {
        // A tunnel is judged again.
        let mut headers =
            if self.is_tunnel() { self.headers.clone() } else { std::mem::take(&mut self.headers) };
        let mut added = Vec::new();
        for effect in effects {
            check_effect(effect)?;
            let bad_name = || EffectError::Name(effect.name.clone());
            let name = HeaderName::from_bytes(effect.name.as_bytes()).ok().ok_or_else(bad_name)?;
            if NEVER_SENT.contains(&name.as_str()) {
                return Err(bad_name());
            }
            if matches!(effect.action, HeaderAction::Delete | HeaderAction::Replace) {
                headers.remove(&name);
            }
            if matches!(effect.action, HeaderAction::Add | HeaderAction::Replace) {
                let value = HeaderValue::from_bytes(&effect.value).ok();
                let mut value = value.ok_or_else(|| EffectError::Value(effect.name.clone()))?;
                // It may be a secret's: it is in no table of headers that the connection shares.
                value.set_sensitive(true);
                added.push((name, value));
            }
        }
        for (name, value) in added {
            headers.append(name, value);
        }
        Ok(headers)
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

/// Whose the request is: `:authority` and `Host` must not differ, and one of them must be there (RFC 9113, section
/// 8.3.1).
fn authority(written: Option<&Authority>, headers: &HeaderMap) -> Result<String, HeadError> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(HeadError::SeveralHosts),
        (host, _) => host.map(|host| host.to_str().map_or(Err(HeadError::BadHost), Ok)).transpose()?,
    };
    let authority = written.map(Authority::as_str).or(host).ok_or(HeadError::NoHost)?;
    // One that is empty cannot be sent on as an authority.
    let is_good = !authority.is_empty() && is_authority(authority) && is_same(authority, host);
    if is_good { Ok(authority.to_owned()) } else { Err(HeadError::BadHost) }
}

/// The target as it goes on: the authority alone where there is no path.
fn whole(scheme: Scheme, authority: &str, path: &str) -> Option<Uri> {
    let mut parts = http::uri::Parts::default();
    parts.authority = Some(Authority::try_from(authority).ok()?);
    if !path.is_empty() {
        parts.scheme = Some(scheme);
        parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    }
    Uri::from_parts(parts).ok()
}

/// The crumbs of a cookie are one header, as servers put them together (RFC 9113, section 8.2.3): rules see the whole.
fn join_cookies(headers: &mut HeaderMap) -> Result<(), HeadError> {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1 {
        let whole = HeaderValue::from_bytes(&crumbs.join(b"; ".as_slice())).ok();
        headers.insert(COOKIE, whole.ok_or(HeadError::Malformed)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(request: request::Builder) -> Result<Head, HeadError> {
        Head::read(request.body(()).unwrap().into_parts().0)
    }

    fn get(uri: &str) -> request::Builder {
        Request::get(uri)
    }

    fn effect(action: HeaderAction, name: &str, value: &str) -> HeaderEffect {
        HeaderEffect { action, name: name.to_owned(), value: value.as_bytes().to_vec() }
    }

    #[test]
    fn what_is_judged_is_what_goes_on() {
        let cases = [
            ("http://web/a/../b?c", "/b?c", "web"),
            ("https://web:8443//a/%2e%2e/%62", "/b", "web:8443"),
            ("http://[::1]:80/", "/", "[::1]:80"),
            ("http://web", "/", "web"),
        ];
        for (uri, path, authority) in cases {
            let mut head = read(get(uri)).unwrap();
            head.judged(|request| assert_eq!((request.path, request.authority), (path, authority), "{uri}"));
            let forwarded = head.forwarded(&[]).unwrap();
            let sent = forwarded.uri();
            assert_eq!(sent.path_and_query().unwrap(), path, "{uri}");
            assert_eq!(sent.authority().unwrap(), authority, "{uri}");
            assert_eq!(sent.scheme_str(), uri.split(':').next(), "{uri}");
        }
        let mut head = read(get("/a").header("host", "web")).unwrap();
        assert_eq!(head.forwarded(&[]).unwrap().uri(), "http://web/a");
        let mut tunnel = read(Request::builder().method("CONNECT").uri("web:443")).unwrap();
        assert_eq!((tunnel.path.as_str(), tunnel.is_tunnel()), ("", true));
        assert_eq!(tunnel.forwarded(&[]).unwrap().uri(), "web:443");
        let mut server = read(Request::options("*").header("host", "web")).unwrap();
        assert_eq!(server.path, "*");
        assert_eq!(server.forwarded(&[]).unwrap().uri().path(), "*");
    }

    #[test]
    fn whose_a_request_is_must_be_clear() {
        let twice = get("http://web/").header("host", "web").header("host", "web");
        let cases = [
            (get("http://web/").header("host", "WEB"), None),
            (get("http://web/").header("host", "other"), Some(HeadError::BadHost)),
            (get("http://web/").header("host", ""), Some(HeadError::BadHost)),
            (get("http://user@web/"), Some(HeadError::BadHost)),
            (get("/").header("host", "user@web"), Some(HeadError::BadHost)),
            (get("/").header("host", ""), Some(HeadError::BadHost)),
            (get("/").header("host", "web/x"), Some(HeadError::BadHost)),
            (get("/"), Some(HeadError::NoHost)),
            (twice, Some(HeadError::SeveralHosts)),
            (get("ftp://web/"), Some(HeadError::BadTarget)),
            (get("http://web/%00"), Some(HeadError::Path(path::PathError::Nul))),
            (get("http://web/..;x/"), Some(HeadError::Path(path::PathError::DotsWithParameter))),
            (get("*").header("host", "web"), Some(HeadError::Path(path::PathError::NoSlash))),
            (Request::builder().method("CONNECT").uri("web"), Some(HeadError::BadTarget)),
        ];
        for (request, wanted) in cases {
            let named = format!("{request:?}");
            assert_eq!(read(request).err(), wanted, "{named}");
        }
    }

    #[test]
    fn no_tunnel_is_for_unjudged_http() {
        for (protocol, is_read) in [("websocket", true), ("h2c", false), ("HTTP/1.1", false)] {
            let request =
                Request::builder().method("CONNECT").uri("http://web/ws").extension(Protocol::from(protocol));
            assert_eq!(read(request).is_ok(), is_read, "{protocol}");
        }
    }

    #[test]
    fn rules_see_whole_cookies() {
        let request = get("http://web/").header("cookie", "a=1").header("x", "y").header("cookie", "b=2");
        let mut head = read(request).unwrap();
        head.judged(|request| {
            let cookies: Vec<_> = request.headers.iter().filter(|(name, _)| *name == "cookie").collect();
            assert_eq!(cookies, [&("cookie", b"a=1; b=2".as_slice())]);
        });
        assert_eq!(head.forwarded(&[]).unwrap().headers()["cookie"], "a=1; b=2");
    }

    #[test]
    fn effects_are_carried_out_or_none_is() {
        let mut head = read(get("http://web/").header("x-token", "bad").header("x-gone", "1")).unwrap();
        let effects = [
            effect(HeaderAction::Add, "X-Added", "1"),
            effect(HeaderAction::Delete, "X-Gone", ""),
            effect(HeaderAction::Replace, "X-Token", "good"),
            effect(HeaderAction::Log, "X-Logged", "2"),
        ];
        let headers = head.forwarded(&effects).unwrap().headers().clone();
        assert_eq!(headers.len(), 2);
        assert_eq!(
            (&headers["x-added"], &headers["x-token"]),
            (&"1".parse().unwrap(), &"good".parse().unwrap())
        );
        assert!(headers["x-token"].is_sensitive());
        for name in ["host", "Content-Length", ":path", "te", "connection", "Keep-Alive", "proxy-connection"]
        {
            for action in [HeaderAction::Add, HeaderAction::Delete, HeaderAction::Replace] {
                let refused = head.forwarded(&[effect(action, name, "x")]);
                assert_eq!(refused.unwrap_err(), EffectError::Name(name.to_owned()), "{name}");
            }
        }
        assert!(head.forwarded(&[effect(HeaderAction::Add, "X", "a\r\nb")]).is_err());
    }
}
