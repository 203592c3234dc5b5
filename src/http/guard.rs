//! Who may ask. Without a key only pages that this server sent, from this machine; with a key whoever has it.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap};
use actix_web::http::{Method, Uri};
use actix_web::middleware::Next;
use actix_web::web;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::State;
use crate::error::{Error, ErrorKind, Result};

/// Fewest characters of a key: what can be guessed is no key.
const KEY_CHARACTERS_MIN: usize = 16;
/// Most characters of a key.
const KEY_CHARACTERS_MAX: usize = 512;
/// Answered to everyone, whatever Host they name: orchestrators probe by address.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/startupz"];
/// What proxies add (RFC 7239, RFC 9110 section 7.6.3, and what they added before).
const FORWARDED: [&str; 7] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
];
/// Where a link on another site may lead: pages that show nothing of the archive by themselves.
const PAGES: [&str; 3] = ["/", "/docs", "/docs/"];

/// The one admin key, kept as its digest.
#[derive(Clone)]
pub struct ApiKey([u8; 32]);

impl ApiKey {
    /// Takes a key of visible ASCII characters.
    ///
    /// # Errors
    /// `InvalidRequest` for a key that is too short, too long or can't be sent in a header.
    pub fn new(text: &str) -> Result<Self> {
        let range = KEY_CHARACTERS_MIN..=KEY_CHARACTERS_MAX;
        if !range.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message =
                format!("an API key is {KEY_CHARACTERS_MIN} to {KEY_CHARACTERS_MAX} visible ASCII characters");
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        Ok(Self(Sha256::digest(text).into()))
    }

    /// Compares in a time that tells nothing about the key.
    pub(super) fn matches(&self, offered: &[u8]) -> bool {
        let offered: [u8; 32] = Sha256::digest(offered).into();
        self.0.ct_eq(&offered).into()
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

/// What the guard has to know about the server.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The key that requests must carry.
    pub key: Option<ApiKey>,
    /// The server listens on the loopback interface only.
    pub loopback: bool,
    /// The port it listens on.
    pub port: u16,
}

/// The middleware: answers a refused request before its body is read.
pub async fn guard(
    state: web::Data<State>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    match state.policy().check(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.call(request).await.map(ServiceResponse::map_into_boxed_body),
        Err(error) => Ok(request.error_response(error)),
    }
}

impl Policy {
    /// Whether this request may be answered.
    ///
    /// # Errors
    /// `ForbiddenOrigin` for a page of another origin or a Host that is not ours, `Unauthorized` without the key, `UnsupportedMedia` for a
    /// compressed body: what it unpacks to is only known when it is in memory.
    pub fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<()> {
        let path = uri.path();
        if headers.contains_key(header::CONTENT_ENCODING) {
            let message = "send the body as it is, without `Content-Encoding`";
            return Err(Error::new(ErrorKind::UnsupportedMedia, message));
        }
        if PROBES.contains(&path) {
            return Ok(());
        }
        match &self.key {
            Some(key) => self.with_key(key, method, path, headers),
            None => self.without_key(method, uri, headers),
        }
    }

    /// A foreign page does not have the key; only what the browser adds by itself needs no check.
    fn with_key(&self, key: &ApiKey, method: &Method, path: &str, headers: &HeaderMap) -> Result<()> {
        if !method.is_safe()
            && let Some(origin) = text(headers, header::ORIGIN)
        {
            let host = text(headers, header::HOST).unwrap_or_default();
            let authority = origin
                .strip_prefix("https://")
                .or_else(|| origin.strip_prefix("http://"));
            if !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host)) {
                return Err(forbidden("the request comes from a page of another origin"));
            }
        }
        if self.open(path, headers) || offered(headers).is_some_and(|offered| key.matches(offered)) {
            Ok(())
        } else {
            Err(Error::new(
                ErrorKind::Unauthorized,
                "send `Authorization: Bearer KEY` or `X-API-Key: KEY`",
            ))
        }
    }

    /// What needs no key. A list of what is open, not of what is closed: a path that is spelled in an odd way needs the key.
    fn open(&self, path: &str, headers: &HeaderMap) -> bool {
        PAGES.contains(&path)
            || path.starts_with("/assets/")
            || path.starts_with("/docs/")
            || path == "/openapi.json"
            || (path == "/metrics"
                && self.loopback
                && !forwarded(headers)
                && text(headers, header::HOST).is_some_and(|host| self.is_us(host)))
    }

    /// Anyone on this machine may ask, but no page that another server sent, also not one whose name was rebound to this address.
    fn without_key(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<()> {
        if forwarded(headers) {
            return Err(forbidden(
                "behind a proxy, which lets others in, this server needs an API key",
            ));
        }
        let host = text(headers, header::HOST).ok_or_else(|| forbidden("the request needs one `Host`"))?;
        if !self.is_us(host) || uri.authority().is_some_and(|authority| !self.is_us(authority.as_str())) {
            return Err(forbidden("this `Host` is not served here without an API key"));
        }
        if headers.contains_key(header::ORIGIN) {
            let origin = text(headers, header::ORIGIN).and_then(|origin| origin.strip_prefix("http://"));
            if !origin.is_some_and(|authority| authority.eq_ignore_ascii_case(host)) {
                return Err(forbidden("the request comes from a page of another origin"));
            }
        }
        let site = text(headers, header::HeaderName::from_static("sec-fetch-site"));
        if site.is_none_or(|site| site == "same-origin" || site == "none") || is_navigation(method, uri.path(), headers)
        {
            Ok(())
        } else {
            Err(forbidden("the request comes from a page of another site"))
        }
    }

    /// A name of this machine, with our port or none.
    fn is_us(&self, authority: &str) -> bool {
        ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| {
            let rest = authority
                .get(..name.len())
                .filter(|start| start.eq_ignore_ascii_case(name))
                .map(|_| &authority[name.len()..]);
            rest.is_some_and(|rest| {
                rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port == self.port.to_string())
            })
        })
    }
}

/// A proxy sent this: it comes from who knows where.
fn forwarded(headers: &HeaderMap) -> bool {
    FORWARDED.iter().any(|name| headers.contains_key(*name))
}

/// Someone followed a link to one of our pages in a tab (W3C Fetch Metadata).
fn is_navigation(method: &Method, path: &str, headers: &HeaderMap) -> bool {
    let is = |name, value| text(headers, header::HeaderName::from_static(name)) == Some(value);
    method == Method::GET
        && PAGES.contains(&path)
        && is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document")
}

/// The value of a header that comes once and is text.
fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name);
    let value = values.next()?;
    if values.next().is_some() {
        None
    } else {
        value.to_str().ok()
    }
}

/// The key that a request carries.
pub(super) fn offered(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get("x-api-key") {
        return Some(key.as_bytes());
    }
    let (scheme, key) = text(headers, header::AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim().as_bytes())
}

fn forbidden(message: &str) -> Error {
    Error::new(ErrorKind::ForbiddenOrigin, message)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    const KEY: &str = "0123456789abcdef-key";

    fn check(policy: &Policy, method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<(), ErrorKind> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        policy
            .check(&method, &uri.parse().unwrap(), &map)
            .map_err(|error| error.kind())
    }

    /// Method, path, headers and what comes of it.
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Result<(), ErrorKind>);

    #[test]
    #[rustfmt::skip] // a table
    fn on_loopback_without_a_key_only_our_own_pages_and_programs_get_in() {
        let open = Policy { key: None, loopback: true, port: 8000 };
        let forbidden = Err(ErrorKind::ForbiddenOrigin);
        let own = ("host", "127.0.0.1:8000");
        let foreign = ("sec-fetch-site", "cross-site");
        let (navigate, document) = (("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"));
        let rows: &[Row<'_>] = &[
            ("POST", "/v1/search", &[own], Ok(())),
            ("GET", "/v1/archive", &[("host", "localhost:8000")], Ok(())),
            ("GET", "/v1/archive", &[("host", "LOCALHOST")], Ok(())),
            ("GET", "/v1/archive", &[("host", "[::1]:8000")], Ok(())),
            ("POST", "/v1/search", &[own, ("origin", "http://127.0.0.1:8000"), ("sec-fetch-site", "same-origin")], Ok(())),
            ("GET", "/", &[own, ("sec-fetch-site", "none")], Ok(())),
            ("GET", "/livez", &[("host", "10.1.2.3:8000")], Ok(())),
            // a name that was rebound to this address
            ("GET", "/v1/archive", &[("host", "evil.example:8000")], forbidden),
            ("GET", "/v1/archive", &[("host", "127.0.0.1.evil.example:8000")], forbidden),
            ("GET", "/v1/archive", &[("host", "localhost:8000.evil.example")], forbidden),
            ("GET", "/v1/archive", &[("host", "127.0.0.1:9000")], forbidden),
            ("GET", "/v1/archive", &[("host", "é")], forbidden),
            ("GET", "/v1/archive", &[], forbidden),
            ("GET", "/v1/archive", &[own, own], forbidden),
            ("GET", "http://evil.example/v1/archive", &[own], forbidden),
            // through a proxy on this machine
            ("GET", "/v1/archive", &[own, ("x-forwarded-for", "192.0.2.1")], forbidden),
            ("GET", "/", &[own, ("via", "1.1 proxy")], forbidden),
            ("POST", "/v1/search", &[own, ("content-encoding", "gzip")], Err(ErrorKind::UnsupportedMedia)),
            // another page in the same browser
            ("POST", "/v1/search", &[own, ("origin", "http://evil.example")], forbidden),
            ("POST", "/v1/search", &[own, ("origin", "null")], forbidden),
            ("POST", "/v1/search", &[own, ("origin", "https://127.0.0.1:8000")], forbidden),
            ("POST", "/v1/search", &[own, ("origin", "http://localhost:8000")], forbidden),
            ("GET", "/v1/images/0/thumbnail", &[own, foreign], forbidden),
            ("GET", "/v1/images/0/thumbnail", &[own, ("sec-fetch-site", "same-site")], forbidden),
            ("GET", "/", &[own, foreign], forbidden),
            // a link to a page of ours, and one that would be put into a frame or lead elsewhere
            ("GET", "/", &[own, foreign, navigate, document], Ok(())),
            ("GET", "/docs", &[own, foreign, navigate, document], Ok(())),
            ("POST", "/", &[own, foreign, navigate, document], forbidden),
            ("GET", "/", &[own, foreign, navigate, ("sec-fetch-dest", "iframe")], forbidden),
            ("GET", "/v1/archive", &[own, foreign, navigate, document], forbidden),
        ];
        for (method, uri, headers, expected) in rows {
            assert_eq!(&check(&open, method, uri, headers), expected, "{method} {uri} {headers:?}");
        }
    }

    #[test]
    #[rustfmt::skip] // a table
    fn with_a_key_pages_are_open_and_everything_else_needs_it() {
        let closed = Policy { key: Some(ApiKey::new(KEY).unwrap()), loopback: false, port: 8000 };
        let bearer = format!("Bearer {KEY}");
        let (host, key) = (("host", "search.example"), ("x-api-key", KEY));
        let (unauthorized, forbidden) = (Err(ErrorKind::Unauthorized), Err(ErrorKind::ForbiddenOrigin));
        let rows: &[Row<'_>] = &[
            ("GET", "/", &[host], Ok(())),
            ("GET", "/assets/app.js", &[host], Ok(())),
            ("GET", "/docs/", &[host], Ok(())),
            ("GET", "/openapi.json", &[host], Ok(())),
            ("GET", "/readyz", &[host], Ok(())),
            ("GET", "/v1/archive", &[host, ("authorization", &bearer)], Ok(())),
            ("GET", "/v1/archive", &[host, ("authorization", &bearer.replace("Bearer", "bearer"))], Ok(())),
            ("GET", "/v1/archive", &[host, key], Ok(())),
            ("GET", "/metrics", &[host, key], Ok(())),
            ("POST", "/v1/search", &[host, key, ("origin", "https://search.example")], Ok(())),
            ("GET", "/v1/archive", &[host], unauthorized),
            ("GET", "/v1/archive", &[host, ("x-api-key", "0123456789abcdef-kez")], unauthorized),
            ("GET", "/v1/archive", &[host, ("x-api-key", "")], unauthorized),
            ("GET", "/v1/archive", &[host, ("authorization", KEY)], unauthorized),
            ("GET", "/v1/archive", &[host, ("authorization", "Basic eDp5")], unauthorized),
            ("GET", "/metrics", &[host], unauthorized),
            // spelled so that only the router would see `/v1`
            ("GET", "/%76%31/archive", &[host], unauthorized),
            ("GET", "//v1/archive", &[host], unauthorized),
            ("POST", "/v1/search", &[host, key, ("origin", "https://evil.example")], forbidden),
            ("DELETE", "/v1/images/0", &[host, key, ("origin", "null")], forbidden),
        ];
        for (method, uri, headers, expected) in rows {
            assert_eq!(&check(&closed, method, uri, headers), expected, "{method} {uri} {headers:?}");
        }
    }

    #[test]
    fn metrics_are_open_to_this_machine_alone() {
        let policy = Policy {
            key: Some(ApiKey::new(KEY).unwrap()),
            loopback: true,
            port: 8000,
        };
        let own = ("host", "127.0.0.1:8000");
        assert_eq!(check(&policy, "GET", "/metrics", &[own]), Ok(()));
        for headers in [
            [own, ("x-real-ip", "192.0.2.1")].as_slice(),
            &[("host", "evil.example")],
        ] {
            assert_eq!(check(&policy, "GET", "/metrics", headers), Err(ErrorKind::Unauthorized));
        }
    }

    #[test]
    fn keys_that_can_be_guessed_or_not_be_sent_are_refused() {
        for text in [
            "",
            "short",
            "with a space in it....",
            "contrôle-contrôle",
            &"x".repeat(513),
        ] {
            assert!(ApiKey::new(text).is_err(), "{text}");
        }
        assert!(!format!("{:?}", ApiKey::new(KEY).unwrap()).contains(KEY));
    }
}
