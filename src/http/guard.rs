//! Who may ask. Without keys only pages that this server sent, from this machine; with keys whoever has one that permits it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, Uri};
use actix_web::middleware::Next;
use actix_web::web;
use actix_web::{HttpMessage, HttpResponse};
use jiff::Timestamp;

use super::access::{
    CALLBACK, Credentials, KeyHolder, Login, Refusal, Scope, TokenFault, methods, needed, session_cookie,
};
use super::rate::Spent;
use super::{State, audited};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::RefusalReason;

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

/// Signing in and out; each looks at the session by itself.
const LOGIN: [&str; 4] = ["/login", CALLBACK, "/logout", "/session"];

/// What the guard has to know about the server.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The keys of which requests must bring one.
    pub credentials: Option<Arc<Credentials>>,
    /// The server listens on the loopback interface only.
    pub loopback: bool,
    /// The port it listens on.
    pub port: u16,
    /// How the origin of its own pages begins.
    pub scheme: &'static str,
}

/// What the guard looks at.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its target.
    pub uri: &'a Uri,
    /// Pattern of the route that takes it; none: no route does, or its path is spelled in an odd way.
    pub pattern: Option<&'a str>,
    /// Its headers.
    pub headers: &'a HeaderMap,
}

/// The middleware: answers a refused request before its body is read. Whose key it brought is kept with the request.
pub async fn guard(
    state: web::Data<State>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let pattern = request.match_pattern();
    let asked = Asked {
        method: request.method(),
        uri: request.uri(),
        pattern: pattern.as_deref(),
        headers: request.headers(),
    };
    let (address, now) = (request.peer_addr().map(|address| address.ip()), Instant::now());
    let policy = state.policy();
    let mut checked = policy.check(asked, Timestamp::now());
    // A token with a key that is newer than the ones that are known, or before any are: the issuer is asked, so seldom that it does not notice.
    if let Err(Refusal::Token(TokenFault::UnknownKey) | Refusal::IssuerUnavailable) = checked
        && let Some(oidc) = policy.credentials.as_deref().and_then(Credentials::oidc)
    {
        oidc.look_for_key().await;
        checked = policy.check(asked, Timestamp::now());
    }
    // A key of 256 random bits is looked at whatever else came from its address, since it can't be guessed: nobody locks out whoever shares a proxy.
    if let (Ok(Some(holder)), Some(address)) = (&checked, address)
        && policy.may_be_guessed(holder)
        && let Some(wait) = state.limits.held_up(address, now)
    {
        return Ok(too_often(&state, &request, RefusalReason::WrongKeys, wait));
    }
    let holder = match &checked {
        Ok(holder) => holder.as_ref(),
        Err(refusal) => refusal.holder(),
    };
    if let Some(holder) = holder {
        let spent = match needed(asked.method.as_str(), asked.pattern) {
            Scope::Ingest => Spent::Ingest,
            _ => Spent::Requests,
        };
        let taken = state.limits.take(holder.name.as_str(), spent, now);
        request.extensions_mut().insert(holder.clone());
        match taken {
            Ok(None) => {}
            Ok(Some(left)) => drop(request.extensions_mut().insert((spent, left))),
            Err((left, wait)) => {
                request.extensions_mut().insert((spent, left));
                return Ok(too_often(&state, &request, RefusalReason::RateLimited, wait));
            }
        }
    }
    if let (Err(refusal), Some(address)) = (&checked, address)
        && refusal.is_wrong_key()
        && let Some(wait) = state.limits.wrong_key(address, now)
    {
        return Ok(too_often(&state, &request, RefusalReason::WrongKeys, wait));
    }
    let Err(refusal) = checked else {
        if let Err(error) = check_encoding(request.headers()) {
            state.metrics.refused(RefusalReason::ContentEncoding);
            audited::refused(&state, &request, RefusalReason::ContentEncoding, error.kind());
            return Ok(request.error_response(error));
        }
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    };
    state.metrics.refused(refusal.reason());
    audited::refused(&state, &request, refusal.reason(), refusal.error().kind());
    if let (Refusal::InsufficientScope { .. }, Some((error, allow))) = (&refusal, not_served(&asked)) {
        let mut response = request.error_response(error);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
        return Ok(response);
    }
    let mut response = request.error_response(refusal.error());
    if let Some(challenge) = refusal.challenge(policy.has_login()) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    Ok(response)
}

/// What to say where no route takes a path, or not with this method, to one whose scope is too little for whatever might be there: with the methods that it takes.
fn not_served(asked: &Asked<'_>) -> Option<(Error, Option<HeaderValue>)> {
    let Some(pattern) = asked.pattern else {
        return Some((Error::new(ErrorKind::NotFound, "there is nothing at this path"), None));
    };
    let methods = methods(pattern);
    if methods.is_empty() || methods.contains(&asked.method.as_str()) {
        return None;
    }
    let error = Error::new(ErrorKind::MethodNotAllowed, "this path is not served with this method");
    Some((error, HeaderValue::try_from(methods.join(", ")).ok()))
}

/// The answer to one who has to wait: 429 with `Retry-After`.
fn too_often(
    state: &State,
    request: &ServiceRequest,
    reason: RefusalReason,
    wait: Duration,
) -> ServiceResponse<BoxBody> {
    state.metrics.refused(reason);
    audited::refused(state, request, reason, ErrorKind::RateLimited);
    let message = match reason {
        RefusalReason::WrongKeys => "too many wrong keys came from this address",
        _ => "this caller has asked too often",
    };
    let error = Error::new(ErrorKind::RateLimited, message).retry_after(wait);
    let response = HttpResponse::from_error(error);
    ServiceResponse::new(request.request().clone(), response)
}

/// Refuses a compressed body: what it unpacks to is only known when it is in memory.
fn check_encoding(headers: &HeaderMap) -> Result<()> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        let message = "send the body as it is, without `Content-Encoding`";
        return Err(Error::new(ErrorKind::UnsupportedMedia, message));
    }
    Ok(())
}

impl Policy {
    /// Whether this request may be answered at this time, and who asks, if it needs a key.
    ///
    /// # Errors
    /// `ForbiddenOrigin` for a page of another origin or a Host that is not ours; the others where the key is missing, is none, or does not permit it.
    pub fn check(&self, asked: Asked<'_>, now: Timestamp) -> Result<Option<KeyHolder>, Refusal> {
        if PROBES.contains(&asked.uri.path()) {
            return Ok(None);
        }
        match &self.credentials {
            Some(credentials) => self.with_keys(credentials, asked, now),
            None => self.without_keys(asked).map(|()| None),
        }
    }

    /// Whether this caller's key is one that somebody may have thought up.
    fn may_be_guessed(&self, holder: &KeyHolder) -> bool {
        let credentials = self.credentials.as_deref();
        credentials.is_some_and(|credentials| credentials.may_be_guessed(holder))
    }

    /// Whether people can sign in on the page.
    fn has_login(&self) -> bool {
        self.login().is_some()
    }

    fn login(&self) -> Option<&Login> {
        self.credentials.as_deref().and_then(Credentials::oidc)?.login()
    }

    /// Who asks by a session of the page: a cookie, which a browser adds to requests of any page. So the browser must say that the page is ours; all that know
    /// the cookie's attributes do. What somebody typed into the address bar is `none`.
    fn with_session(&self, credentials: &Credentials, asked: Asked<'_>, now: Timestamp) -> Result<KeyHolder, Refusal> {
        let login = self.login().ok_or(Refusal::NoKey)?;
        let cookie = session_cookie(cookies(asked.headers), login.cookie_name(false)).ok_or(Refusal::NoKey)?;
        if !from_our_page(login, asked.method, asked.headers) {
            return Err(Refusal::ForbiddenOrigin(
                "the request does not come from this server's page",
            ));
        }
        credentials.session(cookie, now).map(|session| session.holder)
    }

    /// A foreign page does not have the key; what the browser adds by itself is checked in [`Policy::with_session`].
    fn with_keys(
        &self,
        credentials: &Credentials,
        asked: Asked<'_>,
        now: Timestamp,
    ) -> Result<Option<KeyHolder>, Refusal> {
        let headers = asked.headers;
        if !asked.method.is_safe()
            && let Some(origin) = text(headers, header::ORIGIN)
        {
            let host = text(headers, header::HOST).unwrap_or_default();
            let authority = origin
                .strip_prefix("https://")
                .or_else(|| origin.strip_prefix("http://"));
            let public = self.login().is_some_and(|login| login.origin() == origin);
            if !public && !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host)) {
                return Err(Refusal::ForbiddenOrigin(
                    "the request comes from a page of another origin",
                ));
            }
        }
        if self.open(asked.uri.path(), headers) {
            return Ok(None);
        }
        let holder = match offered(headers) {
            Some(offered) => credentials.holder(offered, now)?,
            None => self.with_session(credentials, asked, now)?,
        };
        let needed = needed(asked.method.as_str(), asked.pattern);
        if holder.scopes.allow(needed) {
            Ok(Some(holder))
        } else {
            Err(Refusal::InsufficientScope { holder, needed })
        }
    }

    /// What needs no key. A list of what is open, not of what is closed: a path that is spelled in an odd way needs the key.
    fn open(&self, path: &str, headers: &HeaderMap) -> bool {
        PAGES.contains(&path)
            || path.starts_with("/assets/")
            || path.starts_with("/docs/")
            || path == "/openapi.json"
            || LOGIN.contains(&path)
            || (path == "/metrics"
                && self.loopback
                && !forwarded(headers)
                && text(headers, header::HOST).is_some_and(|host| self.is_us(host)))
    }

    /// Anyone on this machine may ask, but no page that another server sent, also not one whose name was rebound to this address.
    fn without_keys(&self, asked: Asked<'_>) -> Result<(), Refusal> {
        let Asked {
            method, uri, headers, ..
        } = asked;
        let forbidden = |why: &'static str| Err(Refusal::ForbiddenOrigin(why));
        if forwarded(headers) {
            return forbidden("behind a proxy, which lets others in, this server needs an API key");
        }
        let Some(host) = text(headers, header::HOST) else {
            return forbidden("the request needs one `Host`");
        };
        if !self.is_us(host) || uri.authority().is_some_and(|authority| !self.is_us(authority.as_str())) {
            return forbidden("this `Host` is not served here without an API key");
        }
        if headers.contains_key(header::ORIGIN) {
            let origin = text(headers, header::ORIGIN).and_then(|origin| origin.strip_prefix(self.scheme));
            if !origin.is_some_and(|authority| authority.eq_ignore_ascii_case(host)) {
                return forbidden("the request comes from a page of another origin");
            }
        }
        let site = text(headers, header::HeaderName::from_static("sec-fetch-site"));
        if site.is_none_or(|site| site == "same-origin" || site == "none") || is_navigation(method, uri.path(), headers)
        {
            Ok(())
        } else {
            forbidden("the request comes from a page of another site")
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

/// The `Cookie` headers; several come where HTTP/2 was spoken on the way.
pub(super) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all(header::COOKIE).filter_map(|value| value.to_str().ok())
}

/// Whether a page of ours sent this, or, for what changes nothing, somebody typed its address.
pub(super) fn from_our_page(login: &Login, method: &Method, headers: &HeaderMap) -> bool {
    let origin = headers
        .contains_key(header::ORIGIN)
        .then(|| text(headers, header::ORIGIN));
    if origin.is_some_and(|origin| origin != Some(login.origin())) {
        return false;
    }
    match text(headers, header::HeaderName::from_static("sec-fetch-site")) {
        Some("same-origin") => true,
        Some("none") => method.is_safe(),
        // Old browsers say it of what changes something alone.
        None => origin.is_some() && !method.is_safe() && !headers.contains_key("sec-fetch-site"),
        Some(_) => false,
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

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;
    use crate::http::access::{ApiKey, Key, KeysFile, Scopes};

    const KEY: &str = "0123456789abcdef-key";

    fn open() -> Policy {
        Policy {
            credentials: None,
            loopback: true,
            port: 8000,
            scheme: "http://",
        }
    }

    fn closed(loopback: bool) -> Policy {
        let credentials = Credentials::open(Some(KEY), None).unwrap();
        Policy {
            credentials,
            loopback,
            port: 8000,
            scheme: "http://",
        }
    }

    fn check(policy: &Policy, method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<(), ErrorKind> {
        let holder = ask(policy, method, uri, None, headers);
        holder.map(|_| ()).map_err(|refusal| refusal.error().kind())
    }

    fn ask(
        policy: &Policy,
        method: &str,
        uri: &str,
        pattern: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Result<Option<KeyHolder>, Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let asked = Asked {
            method: &Method::from_bytes(method.as_bytes()).unwrap(),
            uri: &uri.parse().unwrap(),
            pattern,
            headers: &map,
        };
        policy.check(asked, "2026-06-01T00:00:00Z".parse().unwrap())
    }

    /// Method, path, headers and what comes of it.
    type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Result<(), ErrorKind>);

    #[test]
    #[rustfmt::skip] // a table
    fn on_loopback_without_a_key_only_our_own_pages_and_programs_get_in() {
        let open = open();
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
        let closed = closed(false);
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
        let policy = closed(true);
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
    fn a_key_opens_what_its_scopes_do_and_says_whose_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let mut texts = Vec::new();
        KeysFile::at(&path)
            .change(|keys| {
                for (name, expires) in [("guest", None), ("gone", Some("2026-05-01T00:00:00Z"))] {
                    let (text, key) = ApiKey::random()?;
                    texts.push(text);
                    let made = "2026-01-01T00:00:00Z".parse().unwrap();
                    let expires = expires.map(|expires| expires.parse().unwrap());
                    keys.add(Key::new(
                        name.parse()?,
                        key,
                        Scopes::new([Scope::Search])?,
                        made,
                        expires,
                    )?)?;
                }
                Ok(())
            })
            .unwrap();
        let policy = Policy {
            credentials: Credentials::open(Some(KEY), Some(&path)).unwrap(),
            loopback: true,
            port: 8000,
            scheme: "http://",
        };
        let asks = |key: &str, method: &str, pattern: Option<&str>| {
            let outcome = ask(&policy, method, "/somewhere", pattern, &[("x-api-key", key)]);
            outcome.map(|holder| holder.unwrap().name.to_string())
        };
        let archive = Some("/v1/archive");
        assert_eq!(asks(&texts[0], "GET", archive), Ok("guest".to_owned()));
        assert_eq!(asks(KEY, "GET", archive), Ok("api-key".to_owned()));
        assert_eq!(asks(KEY, "DELETE", Some("/v1/feedback/{id}")), Ok("api-key".to_owned()));
        assert_eq!(asks(&texts[1], "GET", archive), Err(Refusal::ExpiredKey));
        assert_eq!(asks("0123456789abcdef", "GET", archive), Err(Refusal::UnknownKey));
        for (method, pattern, lacks) in [
            ("POST", Some("/v1/embeddings"), Scope::Vectors),
            ("POST", Some("/v1/images"), Scope::Ingest),
            ("GET", Some("/v1/feedback"), Scope::Admin),
            ("GET", None, Scope::Admin),
        ] {
            let refusal = asks(&texts[0], method, pattern).unwrap_err();
            assert_eq!(refusal.holder().unwrap().name.as_str(), "guest");
            let challenge = refusal.challenge(false).unwrap();
            let expected = format!(r#"Bearer error="insufficient_scope", scope="{lacks}""#);
            assert_eq!(challenge.to_str().unwrap(), expected, "{method} {pattern:?}");
            assert!(
                refusal.error().message().contains(&format!("`{lacks}`")),
                "{method} {pattern:?}"
            );
        }
    }

    #[test]
    fn a_refused_key_says_as_rfc_6750_has_it_what_is_wrong() {
        let policy = closed(false);
        let challenge = |headers: &[(&str, &str)]| {
            let refusal = ask(&policy, "GET", "/v1/archive", None, headers).unwrap_err();
            refusal.challenge(false).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(challenge(&[]).as_deref(), Some("Bearer"));
        let wrong = challenge(&[("authorization", "Bearer 0123456789abcdef-kez")]);
        assert_eq!(wrong.as_deref(), Some(r#"Bearer error="invalid_token""#));
        let foreign = ask(&policy, "POST", "/v1/search", None, &[("origin", "null")]).unwrap_err();
        assert_eq!(foreign.challenge(true), None);
    }

    #[test]
    fn compressed_bodies_are_refused() {
        let mut headers = HeaderMap::new();
        assert!(check_encoding(&headers).is_ok());
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(
            check_encoding(&headers).unwrap_err().kind(),
            ErrorKind::UnsupportedMedia
        );
    }
}
