//! People and programs that an OpenID Connect issuer vouches for: tokens with requests, and signing in on the page.
//!
//! `settings` says which issuer, `provider` holds what it publishes (its addresses and keys), `jwk` its keys, `jws` a token and its signature, `claims`
//! what a token says, `roles` what that permits here, `fault` why a token is not taken. `login` is the way there and back for the page, `session` who has
//! come back, `sealed` how both are kept in cookies.
//!
//! Signatures are checked by ring, which TLS has brought anyway. Of the crates for tokens, `jsonwebtoken` wants aws-lc, a crate `rsa` with an open advisory,
//! or a set of functions for the whole process, longer than what stands here; `openidconnect` brings that `rsa` too.

mod claims;
mod fault;
mod jwk;
mod jws;
mod login;
mod provider;
mod roles;
mod sealed;
mod session;
mod settings;

use std::sync::Arc;

use jiff::Timestamp;

pub use fault::TokenFault;
pub use login::{CALLBACK, Login, LoginFault, Returned};
pub use roles::{Role, Roles};
pub use session::{Session, session_cookie};
pub use settings::{ClientSettings, OidcSettings, PublicUrl};

use self::claims::{Claims, Expected, Use};
use self::jws::Jws;
use self::provider::Provider;
use super::{KeyHolder, KeyName, Refusal};
use crate::archive::Secret;
use crate::error::Result;
use crate::metrics::Metrics;

/// What the pseudonyms of people are made with, for as long as the archive's secret is the same.
const SUBJECTS: &str = "medsearch 2026-11-30 subjects of tokens";

/// An issuer whose tokens are taken.
#[derive(Debug)]
pub struct Oidc {
    provider: Provider,
    audience: String,
    roles: Roles,
    subjects: [u8; 32],
    login: Option<Login>,
}

impl Oidc {
    /// Takes the tokens of an issuer, once it can be asked for its keys. `secret` is the archive's.
    ///
    /// # Errors
    /// `InvalidRequest` for settings that don't fit together, or a CA file that is none.
    pub fn new(settings: OidcSettings, secret: &Secret) -> Result<Arc<Self>> {
        let login = match settings.client {
            Some(client) => Some(Login::new(client, secret, &settings.issuer, &settings.roles)?),
            None => None,
        };
        Ok(Arc::new(Self {
            provider: Provider::new(&settings.issuer, settings.ca.as_deref())?,
            audience: settings.audience,
            roles: settings.roles,
            subjects: secret.derived(SUBJECTS),
            login,
        }))
    }

    /// The way in for the page, if there is one.
    pub fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// Who brings this token at this time, by the keys that are known by now.
    ///
    /// # Errors
    /// [`Refusal::Token`], [`Refusal::IssuerUnavailable`].
    pub fn holder(&self, token: &[u8], now: Timestamp) -> Result<KeyHolder, Refusal> {
        self.holder_of(&self.verified(token, &self.access(), now)?)
    }

    /// Asks the issuer for its keys because a token names one that is not known; so seldom that nobody can make this server a nuisance to the issuer.
    pub async fn look_for_key(&self) {
        self.provider.look_for_key().await;
    }

    /// Keeps what the issuer publishes up to date for as long as the server runs.
    pub async fn follow(&self, metrics: &Metrics) {
        self.provider.follow(metrics).await;
    }

    fn access(&self) -> Expected<'_> {
        Expected {
            issuer: self.provider.issuer(),
            audience: &self.audience,
            usage: Use::Access,
        }
    }

    fn verified(&self, token: &[u8], expected: &Expected<'_>, now: Timestamp) -> Result<Claims, Refusal> {
        let jws = Jws::parse(token)?;
        let published = self.provider.published().ok_or(Refusal::IssuerUnavailable)?;
        published.keys.verify(&jws)?;
        Ok(Claims::read(&jws, expected, now)?)
    }

    fn holder_of(&self, claims: &Claims) -> Result<KeyHolder, Refusal> {
        let scopes = self.roles.scopes(claims.all()).ok_or(TokenFault::NoRole)?;
        Ok(KeyHolder {
            name: self.pseudonym(&claims.subject),
            scopes,
        })
    }

    /// What a person is called in logs: the same for the same person on every replica, and nothing that tells who it is without the archive's secret.
    fn pseudonym(&self, subject: &str) -> KeyName {
        let issuer = self.provider.issuer();
        let mut digest = blake3::Hasher::new_keyed(&self.subjects);
        digest.update(&(issuer.len() as u64).to_le_bytes());
        digest.update(issuer.as_bytes());
        digest.update(subject.as_bytes());
        KeyName::of_subject(&digest.finalize().as_bytes()[..8])
    }
}
