//! What a running server goes by: a key that may do everything, those of a file that is looked at again and again, an issuer of tokens, or several of these.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::watch;

use super::{ApiKey, KeyName, Keys, KeysFile, Oidc, Refusal, Scopes, Session};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::telemetry::run_blocking;

/// Time between two looks at the keys file, in which a revoked key is still taken. All of it is read, which takes less than a millisecond: a time of
/// change may be the same after two changes, and in Kubernetes is that of a link.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Fewest characters of an operator's own key that is taken for one that a program made (`openssl rand -hex 16`): shorter ones may be thought up.
const CHARACTERS_RANDOM: usize = 32;

/// Who asks: whoever holds a key, or whom an issuer vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHolder {
    /// What the key is called; of a person the pseudonym.
    pub name: KeyName,
    /// What it, or that person, may do.
    pub scopes: Scopes,
}

/// What a request's key, token or session is held against.
#[derive(Debug)]
pub struct Credentials {
    api_key: Option<ApiKey>,
    /// That key is so short that it may be guessed.
    guessable: bool,
    keys: ArcSwap<Keys>,
    file: Option<KeysFile>,
    oidc: Option<Arc<Oidc>>,
    /// Says how many keys the file has when that file has changed.
    changes: watch::Sender<usize>,
}

impl Credentials {
    /// Those of a key that may do everything and of a keys file; none where there is neither.
    ///
    /// # Errors
    /// `InvalidRequest` for a key that is none; those of [`KeysFile::read`].
    pub fn open(api_key: Option<&str>, keys_file: Option<&Path>) -> Result<Option<Arc<Self>>> {
        Self::open_with(api_key, keys_file, None)
    }

    /// The same with an issuer of tokens.
    ///
    /// # Errors
    /// As [`Credentials::open`].
    pub fn open_with(
        api_key: Option<&str>,
        keys_file: Option<&Path>,
        oidc: Option<Arc<Oidc>>,
    ) -> Result<Option<Arc<Self>>> {
        if api_key.is_none() && keys_file.is_none() && oidc.is_none() {
            return Ok(None);
        }
        let file = keys_file.map(KeysFile::at);
        let keys = file.as_ref().map(KeysFile::read).transpose()?.unwrap_or_default();
        if api_key.is_none() && oidc.is_none() && keys.iter().len() == 0 {
            tracing::warn!("the keys file has no key: until it has one, nobody gets in");
        }
        Ok(Some(Arc::new(Self {
            api_key: api_key.map(ApiKey::new).transpose()?,
            guessable: api_key.is_some_and(|key| key.len() < CHARACTERS_RANDOM),
            changes: watch::Sender::new(keys.iter().len()),
            keys: ArcSwap::from_pointee(keys),
            file,
            oidc,
        })))
    }

    /// The issuer whose tokens are taken, if there is one.
    pub fn oidc(&self) -> Option<&Arc<Oidc>> {
        self.oidc.as_ref()
    }

    /// Who has signed in on the page, by the value of the session's cookie.
    ///
    /// # Errors
    /// As [`Oidc::session`]; [`Refusal::NoKey`] without an issuer.
    pub fn session(&self, cookie: &str, now: Timestamp) -> Result<Session, Refusal> {
        self.oidc.as_ref().ok_or(Refusal::NoKey)?.session(cookie, now)
    }

    /// Who brings this key or token at this time.
    ///
    /// # Errors
    /// [`Refusal::UnknownKey`], [`Refusal::ExpiredKey`]; those of [`Oidc::holder`] for what looks like a token.
    pub fn holder(&self, offered: &[u8], now: Timestamp) -> Result<KeyHolder, Refusal> {
        match (self.key_holder(ApiKey::of(offered), now), &self.oidc) {
            (Err(Refusal::UnknownKey), Some(oidc)) if looks_like_a_token(offered) => oidc.holder(offered, now),
            (holder, _) => holder,
        }
    }

    /// Whether somebody may have thought this caller's key up, so that it can be found by trying.
    pub fn may_be_guessed(&self, holder: &KeyHolder) -> bool {
        self.guessable && holder.name == KeyName::of_api_key()
    }

    fn key_holder(&self, offered: ApiKey, now: Timestamp) -> Result<KeyHolder, Refusal> {
        let keys = self.keys.load();
        let listed = keys.find(offered);
        if self.api_key == Some(offered) {
            return Ok(KeyHolder {
                name: KeyName::of_api_key(),
                scopes: Scopes::ADMIN,
            });
        }
        match listed {
            None => Err(Refusal::UnknownKey),
            Some(key) if key.is_expired(now) => Err(Refusal::ExpiredKey),
            Some(key) => Ok(KeyHolder {
                name: key.name().clone(),
                scopes: key.scopes(),
            }),
        }
    }

    /// Hears of each change of the keys file that was taken over, with how many keys it has.
    pub fn changes(&self) -> watch::Receiver<usize> {
        self.changes.subscribe()
    }

    /// Takes over what the keys file holds, for as long as the server runs. While it can't be read the keys that it held before stay: a mistake locks
    /// nobody out, and the log and `medsearch_keys_file_broken` say so. The same for what the issuer of tokens publishes.
    pub async fn follow(self: Arc<Self>, metrics: Arc<Metrics>) {
        let issuer = async {
            if let Some(oidc) = &self.oidc {
                oidc.follow(&metrics).await;
            }
        };
        tokio::join!(issuer, self.follow_file(&metrics));
    }

    async fn follow_file(&self, metrics: &Metrics) {
        let Some(file) = self.file.clone() else {
            return;
        };
        let mut said = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let file = file.clone();
            let read = run_blocking(move || file.read()).await;
            metrics.keys_file_broken(read.is_err());
            said = match read {
                Ok(keys) => {
                    self.take_over(keys);
                    None
                }
                Err(error) => Some(say(&error, said)),
            };
        }
    }

    fn take_over(&self, keys: Keys) {
        if **self.keys.load() != keys {
            let count = keys.iter().len();
            self.keys.store(Arc::new(keys));
            tracing::info!(keys = count, "the keys file has changed");
            self.changes.send_replace(count);
        }
    }
}

/// Three parts with dots between them, as no key that is made here has.
fn looks_like_a_token(offered: &[u8]) -> bool {
    offered.iter().filter(|byte| **byte == b'.').count() == 2
}

/// Says what is wrong with the file, unless that was said last.
fn say(error: &Error, said: Option<String>) -> String {
    let message = error.to_string();
    if said.as_ref() != Some(&message) {
        tracing::warn!(
            error = message,
            "the keys file can't be taken over: the keys that it held before stay"
        );
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::http::access::{Key, Scope};

    const API_KEY: &str = "0123456789abcdef-key";

    fn listed(name: &str, scope: Scope, expires: Option<&str>) -> (String, Key) {
        let (text, key) = ApiKey::random().unwrap();
        let made = "2026-01-01T00:00:00Z".parse().unwrap();
        let expires = expires.map(|expires| expires.parse().unwrap());
        let scopes = Scopes::new([scope]).unwrap();
        (
            text,
            Key::new(name.parse().unwrap(), key, scopes, made, expires).unwrap(),
        )
    }

    #[test]
    fn without_a_key_and_a_file_there_are_no_credentials() {
        assert!(Credentials::open(None, None).unwrap().is_none());
        let missing = Credentials::open(None, Some(Path::new("no-such-folder/keys.json")));
        assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(Credentials::open(Some("short"), None).is_err());
    }

    #[test]
    fn callers_are_told_apart_until_their_time_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let (pacs, pacs_key) = listed("pacs", Scope::Ingest, None);
        let (guest, guest_key) = listed("guest", Scope::Search, Some("2026-06-01T00:00:00Z"));
        let file = KeysFile::at(&path);
        file.change(|keys| keys.add(pacs_key).and_then(|()| keys.add(guest_key)))
            .unwrap();
        let credentials = Credentials::open(Some(API_KEY), Some(&path)).unwrap().unwrap();
        let ask = |key: &str, now: &str| -> Result<String, Refusal> {
            let holder = credentials.holder(key.as_bytes(), now.parse().unwrap())?;
            Ok(format!("{} {}", holder.name, holder.scopes))
        };
        let (before, after) = ("2026-05-31T23:59:59Z", "2026-06-01T00:00:00Z");
        for now in [before, after] {
            assert_eq!(ask(API_KEY, now), Ok("api-key admin".to_owned()));
            assert_eq!(ask(&pacs, now), Ok("pacs ingest".to_owned()));
            assert_eq!(ask("", now), Err(Refusal::UnknownKey));
            assert_eq!(ask(&pacs[1..], now), Err(Refusal::UnknownKey));
        }
        assert_eq!(ask(&guest, before), Ok("guest search".to_owned()));
        assert_eq!(ask(&guest, after), Err(Refusal::ExpiredKey));

        file.change(|keys| keys.revoke(&"pacs".parse().unwrap())).unwrap();
        credentials.take_over(file.read().unwrap());
        assert_eq!(ask(&pacs, before), Err(Refusal::UnknownKey));
        assert!(!format!("{credentials:?}").contains(&pacs));
    }
}
