//! Signing in on the page: to the issuer and back (OpenID Connect Core 3.1, with PKCE, RFC 7636). What has to be remembered on the way is sealed in a
//! cookie of the browser that went, so that any replica can take it up, and no other browser.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

use super::claims::{Claims, Expected, Use};
use super::provider::{Published, with_query};
use super::sealed::{CookieKey, random_text};
use super::{ClientSettings, Oidc, Roles, Session, TokenFault, session};
use crate::archive::Secret;
use crate::error::{Error, ErrorKind, Result};
use crate::http::access::Refusal;

/// What is sealed on the way.
const KIND: &str = "login";
/// What cookies are sealed with.
const COOKIES: &str = "medsearch 2026-11-30 cookies of the page";
/// Longest time on the way there and back.
pub const WAY_MAX: Duration = Duration::from_secs(600);
/// Most bytes of what the issuer sends people back with.
const QUERY_BYTES_MAX: usize = 8 << 10;
/// Ways back that are remembered, so that none is taken twice here. Another replica would take it; the issuer takes a code once.
const TAKEN_MAX: usize = 4096;
/// Sessions that were signed out of and are remembered, so that a copy of one is none here. Another replica would take it until its time is over.
const ENDED_MAX: usize = 4096;
/// Codes exchanged at the issuer at a time.
const EXCHANGES_MAX: usize = 4;
/// Where the issuer sends people back to.
pub const CALLBACK: &str = "/login/callback";

/// How people sign in.
#[derive(Debug)]
pub struct Login {
    client: ClientSettings,
    key: CookieKey,
    session_kind: String,
    taken: Mutex<VecDeque<[u8; 32]>>,
    ended: Mutex<VecDeque<[u8; 32]>>,
    exchanges: Semaphore,
}

/// Someone is on the way.
#[derive(Debug)]
pub struct Begun {
    /// Where to go.
    pub address: String,
    /// What to remember.
    pub cookie: String,
}

/// What comes back with somebody.
#[derive(Debug, Clone, Copy)]
pub struct Returned<'a> {
    /// The query of the address.
    pub query: &'a str,
    /// What the browser remembered.
    pub cookie: Option<&'a str>,
}

/// Why somebody who comes back is not let in.
#[derive(Debug, PartialEq, Eq)]
pub enum LoginFault {
    /// The query is not what an issuer sends.
    Query,
    /// The browser that comes back never went, or too long ago.
    NotOnTheWay,
    /// It went for something else.
    State,
    /// It was here with this before.
    Taken,
    /// Another issuer sent it back (RFC 9207).
    Issuer,
    /// The issuer did not let the person in.
    Denied,
    /// The issuer did not exchange the code.
    Exchange,
    /// What it gave in exchange does not hold.
    Token(TokenFault),
    /// The issuer can't be asked.
    Unavailable,
}

impl LoginFault {
    /// For the log.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::NotOnTheWay => "not_on_the_way",
            Self::State => "state",
            Self::Taken => "taken",
            Self::Issuer => "issuer",
            Self::Denied => "denied",
            Self::Exchange => "exchange",
            Self::Token(fault) => fault.words(),
            Self::Unavailable => "unavailable",
        }
    }
}

impl From<Refusal> for LoginFault {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Token(fault) => Self::Token(fault),
            _ => Self::Unavailable,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct OnTheWay {
    state: String,
    nonce: String,
    verifier: String,
    until: i64,
}

/// The parameters of RFC 6749, 4.1.2, and RFC 9207, each once.
#[derive(Default)]
struct Query {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

impl Query {
    fn parse(query: &str) -> Option<Self> {
        if query.len() > QUERY_BYTES_MAX {
            return None;
        }
        let mut url = Url::parse("http://localhost/").expect("this is an address");
        url.set_query(Some(query));
        let mut parsed = Self::default();
        for (name, value) in url.query_pairs() {
            let field = match &*name {
                "code" => &mut parsed.code,
                "state" => &mut parsed.state,
                "iss" => &mut parsed.iss,
                "error" => &mut parsed.error,
                _ => continue,
            };
            if field.replace(value.into_owned()).is_some() {
                return None;
            }
        }
        Some(parsed)
    }
}

#[derive(Deserialize)]
struct Tokens {
    id_token: String,
    access_token: Option<String>,
}

impl Login {
    /// # Errors
    /// `InvalidRequest` for a client that asks for something else than who somebody is.
    pub fn new(client: ClientSettings, secret: &Secret, issuer: &str, roles: &Roles) -> Result<Self> {
        if client.id.is_empty() || !client.scope.split(' ').any(|scope| scope == "openid") {
            let message = "the client of the issuer has an id, and what it asks for includes `openid`";
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        let key = client.session_secret.as_ref().unwrap_or(secret).derived(COOKIES);
        Ok(Self {
            key: CookieKey::new(&key),
            session_kind: session::kind_under(issuer, &client.id, roles),
            client,
            taken: Mutex::default(),
            ended: Mutex::default(),
            exchanges: Semaphore::new(EXCHANGES_MAX),
        })
    }

    pub(super) fn cookie_key(&self) -> &CookieKey {
        &self.key
    }

    pub(super) fn session_kind(&self) -> &str {
        &self.session_kind
    }

    /// Somebody has signed out of this session, given as the cookie has it: copies of it are none from now on.
    pub fn end(&self, cookie: &str) {
        remember(&self.ended, ENDED_MAX, cookie);
    }

    pub(super) fn has_ended(&self, cookie: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(cookie).into();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.contains(&digest)
    }

    /// Where browsers find this server.
    pub fn origin(&self) -> &str {
        self.client.public_url.origin()
    }

    /// The name of a cookie: with `__Host-` browsers keep it for this host alone, and send it over TLS alone (RFC 6265bis, 4.1.3.2). On http, which is for
    /// trying things out on one machine, not all of them take such a cookie.
    pub fn cookie_name(&self, on_the_way: bool) -> &'static str {
        match (self.client.public_url.is_secure(), on_the_way) {
            (true, false) => "__Host-medsearch",
            (true, true) => "__Host-medsearch-login",
            (false, false) => "medsearch",
            (false, true) => "medsearch-login",
        }
    }

    /// `Set-Cookie` with the session, or, with an empty value, without it. No other site's request carries it, a link to the page included: the page asks
    /// again by itself.
    pub fn session_header(&self, value: &str) -> String {
        let seconds = if value.is_empty() {
            0
        } else {
            self.client.session.as_secs()
        };
        self.header(self.cookie_name(false), value, "Strict", seconds)
    }

    /// The same for the way there and back, which ends with a link from the issuer.
    pub fn way_header(&self, value: &str) -> String {
        let seconds = if value.is_empty() { 0 } else { WAY_MAX.as_secs() };
        self.header(self.cookie_name(true), value, "Lax", seconds)
    }

    fn header(&self, name: &str, value: &str, same_site: &str, seconds: u64) -> String {
        let secure = if self.client.public_url.is_secure() {
            "; Secure"
        } else {
            ""
        };
        format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite={same_site}{secure}")
    }

    fn callback(&self) -> String {
        format!("{}{CALLBACK}", self.origin())
    }

    /// Whether this way back is taken for the first time.
    fn take(&self, state: &str) -> bool {
        remember(&self.taken, TAKEN_MAX, state)
    }

    /// Whoever went, and comes back with what belongs to it.
    fn came_back(&self, cookie: Option<&str>, state: Option<&str>, now: Timestamp) -> Result<OnTheWay, LoginFault> {
        let plain = cookie.and_then(|cookie| self.key.open(KIND, cookie));
        let way: OnTheWay = plain
            .and_then(|plain| serde_json::from_slice(&plain).ok())
            .ok_or(LoginFault::NotOnTheWay)?;
        if way.until <= now.as_second() {
            return Err(LoginFault::NotOnTheWay);
        }
        if !bool::from(way.state.as_bytes().ct_eq(state.unwrap_or_default().as_bytes())) {
            return Err(LoginFault::State);
        }
        if self.take(&way.state) {
            Ok(way)
        } else {
            Err(LoginFault::Taken)
        }
    }
}

/// Remembers a text by its digest, and forgets the oldest of too many. Says whether it is new.
fn remember(seen: &Mutex<VecDeque<[u8; 32]>>, max: usize, text: &str) -> bool {
    let digest: [u8; 32] = Sha256::digest(text).into();
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.contains(&digest) {
        return false;
    }
    if seen.len() == max {
        seen.pop_front();
    }
    seen.push_back(digest);
    true
}

impl Oidc {
    /// Sends somebody to the issuer.
    ///
    /// # Errors
    /// `Unavailable` while the issuer can't be asked where that is; `Internal` when the system has no randomness.
    pub async fn begin(&self, login: &Login, now: Timestamp) -> Result<Begun> {
        let published = self.asked().await;
        let published = published.ok_or_else(|| Error::new(ErrorKind::Unavailable, "the issuer can't be reached"))?;
        let way = OnTheWay {
            state: random_text()?,
            nonce: random_text()?,
            verifier: random_text()?,
            until: now.as_second().saturating_add_unsigned(WAY_MAX.as_secs()),
        };
        let challenge = BASE64.encode(Sha256::digest(&way.verifier));
        let address = with_query(
            &published.metadata.authorization_endpoint,
            &[
                ("response_type", "code"),
                ("client_id", &login.client.id),
                ("redirect_uri", &login.callback()),
                ("scope", &login.client.scope),
                ("state", &way.state),
                ("nonce", &way.nonce),
                ("code_challenge", &challenge),
                ("code_challenge_method", "S256"),
            ],
        )?;
        let plain = serde_json::to_vec(&way).expect("strings and a number are JSON");
        Ok(Begun {
            address,
            cookie: login.key.seal(KIND, &plain)?,
        })
    }

    /// Lets somebody in who comes back from the issuer.
    ///
    /// # Errors
    /// Whatever does not fit.
    pub async fn finish(&self, login: &Login, returned: Returned<'_>, now: Timestamp) -> Result<Session, LoginFault> {
        let query = Query::parse(returned.query).ok_or(LoginFault::Query)?;
        let way = login.came_back(returned.cookie, query.state.as_deref(), now)?;
        let published = self.asked().await.ok_or(LoginFault::Unavailable)?;
        match &query.iss {
            Some(issuer) if issuer == self.provider.issuer() => {}
            None if !published.metadata.authorization_response_iss_parameter_supported => {}
            _ => return Err(LoginFault::Issuer),
        }
        if query.error.is_some() {
            return Err(LoginFault::Denied);
        }
        let code = query.code.ok_or(LoginFault::Query)?;
        // Nobody is known yet who asks for this: the issuer is not asked by more than a few at a time.
        let _turn = login.exchanges.try_acquire().map_err(|_| LoginFault::Unavailable)?;
        let tokens = self.exchange(login, &published, &code, &way.verifier).await?;
        let expected = Expected {
            issuer: self.provider.issuer(),
            audience: &login.client.id,
            usage: Use::Id { nonce: &way.nonce },
        };
        let id = self.verified_anew(tokens.id_token.as_bytes(), &expected, now).await?;
        // Some issuers put roles into the token for asking only.
        let holder = match (self.holder_of(&id), &tokens.access_token) {
            (Err(Refusal::Token(TokenFault::NoRole)), Some(access)) => self.holder_by_access(access, &id, now)?,
            (holder, _) => holder?,
        };
        let seconds = i64::try_from(login.client.session.as_secs()).unwrap_or(i64::MAX);
        Ok(Session {
            holder,
            expires: Timestamp::from_second(now.as_second().saturating_add(seconds)).unwrap_or(Timestamp::MAX),
            shown: id.name,
        })
    }

    /// Where to sign out at the issuer too, if it has a place for that. It asks the person, since it gets nothing that says who that is.
    pub fn sign_out_address(&self, login: &Login) -> Option<String> {
        let published = self.provider.published()?;
        let address = published.metadata.end_session_endpoint.as_deref()?;
        with_query(address, &[("client_id", &login.client.id)]).ok()
    }

    /// What the issuer publishes; asked for now if it never was.
    async fn asked(&self) -> Option<std::sync::Arc<Published>> {
        if self.provider.published().is_none() {
            self.provider.look_for_key().await;
        }
        self.provider.published()
    }

    async fn verified_anew(&self, token: &[u8], expected: &Expected<'_>, now: Timestamp) -> Result<Claims, Refusal> {
        match self.verified(token, expected, now) {
            Err(Refusal::Token(TokenFault::UnknownKey)) => {
                self.look_for_key().await;
                self.verified(token, expected, now)
            }
            verified => verified,
        }
    }

    /// What a token for asking permits that came with `id`, and is of the same person.
    fn holder_by_access(&self, access: &str, id: &Claims, now: Timestamp) -> Result<super::KeyHolder, LoginFault> {
        let none = LoginFault::Token(TokenFault::NoRole);
        match self.verified(access.as_bytes(), &self.access(), now) {
            Ok(claims) if claims.subject == id.subject => Ok(self.holder_of(&claims)?),
            // It may be no token of this form at all.
            _ => Err(none),
        }
    }

    async fn exchange(
        &self,
        login: &Login,
        published: &Published,
        code: &str,
        verifier: &str,
    ) -> Result<Tokens, LoginFault> {
        let client = &login.client;
        let callback = login.callback();
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &callback),
            ("code_verifier", verifier),
        ];
        let methods = published.metadata.token_endpoint_auth_methods_supported.as_deref();
        let takes_basic = methods.is_none_or(|methods| methods.iter().any(|method| method == "client_secret_basic"));
        let basic = match &client.secret {
            // RFC 6749, 2.3.1: both are encoded as in a form first.
            Some(secret) if takes_basic => Some((encoded(&client.id), encoded(secret))),
            Some(secret) => {
                form.push(("client_secret", secret));
                None
            }
            None => None,
        };
        if basic.is_none() {
            form.push(("client_id", &client.id));
        }
        let endpoint = &published.metadata.token_endpoint;
        let answer = self.provider.exchange(endpoint, form_text(&form), basic).await;
        let answer = answer.map_err(|_| LoginFault::Exchange)?;
        serde_json::from_slice(&answer).map_err(|_| LoginFault::Exchange)
    }
}

/// Parameters as a form has them.
fn form_text(parameters: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://localhost/").expect("this is an address");
    url.query_pairs_mut().extend_pairs(parameters);
    url.query().unwrap_or_default().to_owned()
}

fn encoded(text: &str) -> String {
    form_text(&[("", text)]).trim_start_matches('=').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(url: &str) -> Login {
        let client = ClientSettings {
            id: "us".to_owned(),
            secret: None,
            scope: "openid".to_owned(),
            public_url: url.parse().unwrap(),
            session: Duration::from_secs(3600),
            session_secret: None,
        };
        let roles = Roles::new("scope".to_owned(), vec!["reader=search".parse().unwrap()]).unwrap();
        Login::new(client, &Secret::from_bytes([1; 32]), "https://issuer.example", &roles).unwrap()
    }

    #[test]
    fn cookies_are_for_this_host_alone_and_no_script_reads_them() {
        let login = login("https://search.example");
        assert_eq!(
            login.session_header("x"),
            "__Host-medsearch=x; Path=/; Max-Age=3600; HttpOnly; SameSite=Strict; Secure"
        );
        assert_eq!(
            login.way_header("x"),
            "__Host-medsearch-login=x; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure"
        );
        assert_eq!(
            login.session_header(""),
            "__Host-medsearch=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict; Secure"
        );
        let local = self::login("http://localhost:8000");
        assert_eq!(
            local.session_header("x"),
            "medsearch=x; Path=/; Max-Age=3600; HttpOnly; SameSite=Strict"
        );
    }

    #[test]
    fn whoever_comes_back_went_from_here_not_long_ago_and_once() {
        let login = login("https://search.example");
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let way = |state: &str| {
            let way = OnTheWay {
                state: state.to_owned(),
                nonce: "n".to_owned(),
                verifier: "v".to_owned(),
                until: 600,
            };
            login.key.seal(KIND, &serde_json::to_vec(&way).unwrap()).unwrap()
        };
        let came = |cookie: Option<&str>, state: Option<&str>, now| {
            login.came_back(cookie, state, at(now)).map(|way| way.nonce)
        };
        let cookie = way("s");
        assert_eq!(came(None, Some("s"), 0), Err(LoginFault::NotOnTheWay));
        assert_eq!(came(Some("forged"), Some("s"), 0), Err(LoginFault::NotOnTheWay));
        assert_eq!(came(Some(&cookie), Some("s"), 600), Err(LoginFault::NotOnTheWay));
        assert_eq!(came(Some(&cookie), Some("t"), 0), Err(LoginFault::State));
        assert_eq!(came(Some(&cookie), None, 0), Err(LoginFault::State));
        assert_eq!(came(Some(&cookie), Some("s"), 599), Ok("n".to_owned()));
        assert_eq!(came(Some(&cookie), Some("s"), 599), Err(LoginFault::Taken));
        for n in 0..=TAKEN_MAX {
            assert!(login.take(&n.to_string()), "{n}");
        }
        assert_eq!(login.taken.lock().unwrap().len(), TAKEN_MAX);
    }

    #[test]
    fn parameters_come_once() {
        let query = Query::parse("code=a+b%26&state=s&iss=https%3A%2F%2Fi&session_state=x").unwrap();
        assert_eq!(
            (query.code.as_deref(), query.state.as_deref(), query.iss.as_deref()),
            (Some("a b&"), Some("s"), Some("https://i"))
        );
        assert!(Query::parse("state=a&state=b").is_none());
        assert!(Query::parse(&"x".repeat(QUERY_BYTES_MAX + 1)).is_none());
        assert!(Query::parse("").unwrap().code.is_none());
    }

    #[test]
    fn secrets_are_encoded_as_in_a_form() {
        assert_eq!(encoded("=a:b c"), "%3Da%3Ab+c");
    }
}
