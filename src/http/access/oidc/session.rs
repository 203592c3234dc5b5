//! Who has signed in on the page. The cookie holds all there is: a pseudonym, scopes, an end, and the name to show; no token. It opens while the issuer, the client and
//! what roles permit are those by which it was made.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::{KeyHolder, KeyName, Refusal};
use super::login::Login;
use super::{Oidc, Roles};
use crate::error::Result;

/// What a session is sealed as.
const KIND: &str = "session";

/// What sessions are sealed as under these settings: after another mapping of roles, say, those that were made before are none.
pub(super) fn kind_under(issuer: &str, client: &str, roles: &Roles) -> String {
    let mut digest = blake3::Hasher::new();
    for part in [issuer, client, &roles.text()] {
        digest
            .update(&(part.len() as u64).to_le_bytes())
            .update(part.as_bytes());
    }
    format!("{KIND} {}", digest.finalize().to_hex())
}

/// Someone who has signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Who, and what they may do.
    pub holder: KeyHolder,
    /// Until when.
    pub expires: Timestamp,
    /// What the person is called, for the page alone.
    pub shown: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    name: String,
    scopes: String,
    expires: i64,
    shown: Option<String>,
}

impl Session {
    /// As the cookie has it.
    ///
    /// # Errors
    /// `Internal` when the system has no randomness.
    pub fn seal(&self, login: &Login) -> Result<String> {
        let kept = Kept {
            name: self.holder.name.to_string(),
            scopes: self.holder.scopes.to_string(),
            expires: self.expires.as_second(),
            shown: self.shown.clone(),
        };
        let plain = serde_json::to_vec(&kept).expect("strings and a number are JSON");
        login.cookie_key().seal(login.session_kind(), &plain)
    }

    fn open(login: &Login, text: &str) -> Option<Self> {
        let kept: Kept = serde_json::from_slice(&login.cookie_key().open(login.session_kind(), text)?).ok()?;
        Some(Self {
            holder: KeyHolder {
                name: KeyName::of_sealed(&kept.name)?,
                scopes: kept.scopes.parse().ok()?,
            },
            expires: Timestamp::from_second(kept.expires).ok()?,
            shown: kept.shown,
        })
    }
}

impl Oidc {
    /// Who has signed in, by the value of the session's cookie.
    ///
    /// # Errors
    /// [`Refusal::NoKey`] where nobody can sign in; [`Refusal::UnknownSession`], [`Refusal::ExpiredSession`].
    pub fn session(&self, cookie: &str, now: Timestamp) -> Result<Session, Refusal> {
        let login = self.login().ok_or(Refusal::NoKey)?;
        let session = Session::open(login, cookie).ok_or(Refusal::UnknownSession)?;
        if login.has_ended(cookie) {
            Err(Refusal::UnknownSession)
        } else if session.expires <= now {
            Err(Refusal::ExpiredSession)
        } else {
            Ok(session)
        }
    }
}

/// The value of the cookie `name` among a request's `Cookie` headers; none where it comes twice: which is meant can't be told.
pub fn session_cookie<'a>(headers: impl Iterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    let pairs = headers
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(found, _)| *found == name).map(|(_, value)| value);
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name_and_once() {
        let find = |headers: &[&'static str]| session_cookie(headers.iter().copied(), "__Host-medsearch");
        assert_eq!(find(&["a=1; __Host-medsearch=x=y; b=2"]), Some("x=y"));
        assert_eq!(find(&["a=1", "__Host-medsearch=x"]), Some("x"));
        for none in [
            &["__host-medsearch=x"][..],
            &["x__Host-medsearch=x"],
            &["__Host-medsearch"],
            &["__Host-medsearch=x;__Host-medsearch=y"],
            &[],
        ] {
            assert_eq!(find(none), None, "{none:?}");
        }
    }
}
