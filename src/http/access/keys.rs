//! The keys of a server, as a keys file lists them.
//!
//! JSON, `format` 1:
//!
//! ```json
//! {"format": 1, "keys": [{"name": "pacs", "sha256": "64 hex digits", "scopes": ["ingest"], "created": "2026-08-01T12:00:00Z", "expires": null}]}
//! ```
//!
//! `sha256` is the digest of the key's text, and all that is kept of it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ApiKey, Scope, Scopes};
use crate::error::{Error, ErrorKind, Result};
use crate::http::problem::without_value;

/// Most keys of a file: each request is compared with all of them.
const KEYS_MAX: usize = 256;
/// Most bytes of a file: so many keys with the longest names, each on lines of its own.
pub const BYTES_MAX: usize = 256 << 10;
/// Most characters of a name.
const NAME_CHARACTERS_MAX: usize = 64;
/// The only format so far.
const FORMAT: u32 = 1;
/// Whoever brings the key of `--api-key-file`; no key of a file has this name.
const API_KEY: &str = "api-key";
/// What the names of people begin with whom an issuer vouches for; no key of a file has a name with a colon.
const SUBJECT: &str = "oidc:";

/// What a key is called in logs and traces: never the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName(Arc<str>);

impl KeyName {
    /// That of the one key that `--api-key-file` holds.
    pub fn of_api_key() -> Self {
        Self(API_KEY.into())
    }

    /// That of somebody whom an issuer vouches for: a pseudonym, 16 hex digits.
    pub fn of_subject(pseudonym: &[u8]) -> Self {
        Self(format!("{SUBJECT}{}", hex::encode(pseudonym)).into())
    }

    /// The same as it was written; none for anything else.
    pub fn of_sealed(text: &str) -> Option<Self> {
        let pseudonym = hex::decode(text.strip_prefix(SUBJECT)?).ok()?;
        (pseudonym.len() == 8).then(|| Self::of_subject(&pseudonym))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for KeyName {
    type Err = Error;

    /// # Errors
    /// `InvalidRequest` for what is too long, is not harmless in a log, or is the name of the key of `--api-key-file`.
    fn from_str(text: &str) -> Result<Self> {
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !(1..=NAME_CHARACTERS_MAX).contains(&text.len()) || !text.bytes().all(harmless) {
            let message =
                format!("the name of a key is 1 to {NAME_CHARACTERS_MAX} letters, digits, `-`, `_` and `.` (ASCII)");
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        if text == API_KEY {
            let message = format!("`{API_KEY}` is what the key of `--api-key-file` is called");
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        Ok(Self(text.into()))
    }
}

/// A key of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    name: KeyName,
    key: ApiKey,
    scopes: Scopes,
    created: Timestamp,
    expires: Option<Timestamp>,
}

impl Key {
    /// A key made at `created`, not taken any more from `expires` on; none: until it is revoked.
    ///
    /// # Errors
    /// `InvalidRequest` for one that is over before it begins.
    pub fn new(
        name: KeyName,
        key: ApiKey,
        scopes: Scopes,
        created: Timestamp,
        expires: Option<Timestamp>,
    ) -> Result<Self> {
        if let Some(expires) = expires.filter(|expires| *expires <= created) {
            let message = format!("the key `{name}` would expire at `{expires}`, and not after it was made");
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        Ok(Self {
            name,
            key,
            scopes,
            created,
            expires,
        })
    }

    /// What it is called.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// What it may do.
    pub fn scopes(&self) -> Scopes {
        self.scopes
    }

    /// When it was made.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// From when on it is not taken any more.
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// It is not taken any more.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// Keys, no two of which have one name or one digest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

/// The file as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    keys: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: String,
    scopes: Vec<String>,
    created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

impl Keys {
    /// Reads the text of a keys file.
    ///
    /// # Errors
    /// `InvalidRequest` for a text that is not all as it should be: a list that was half understood would let in whom it should not.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |message: String| Error::new(ErrorKind::InvalidRequest, message);
        if text.len() > BYTES_MAX {
            return Err(refuse(format!("it has more than `{BYTES_MAX}` bytes")));
        }
        // Somebody may have put a key where its digest belongs.
        let document: Document =
            serde_json::from_str(text).map_err(|error| refuse(without_value(&error.to_string())))?;
        if document.format != FORMAT {
            return Err(refuse(format!(
                "its format is `{}`, and not `{FORMAT}`",
                document.format
            )));
        }
        let mut keys = Self::default();
        for (at, entry) in document.keys.into_iter().enumerate() {
            let added = entry.key().and_then(|key| keys.add(key));
            added.map_err(|error| error.context(format!("key {}", at + 1)))?;
        }
        Ok(keys)
    }

    /// The text of a keys file, a line for each member.
    pub fn to_json(&self) -> String {
        let document = Document {
            format: FORMAT,
            keys: self.0.iter().map(Entry::from).collect(),
        };
        let text = serde_json::to_string_pretty(&document);
        text.expect("strings and a number are JSON") + "\n"
    }

    /// Adds a key at the end.
    ///
    /// # Errors
    /// `InvalidRequest` where there is one of this name or digest, or no room.
    pub fn add(&mut self, key: Key) -> Result<()> {
        let refuse = |message: String| Err(Error::new(ErrorKind::InvalidRequest, message));
        if self.0.iter().any(|other| other.name == key.name) {
            return refuse(format!("there is a key `{}` already", key.name));
        }
        if let Some(other) = self.0.iter().find(|other| other.key == key.key) {
            return refuse(format!("`{}` and `{}` are one key", other.name, key.name));
        }
        if self.0.len() == KEYS_MAX {
            return refuse(format!("there are `{KEYS_MAX}` keys, and no room for more"));
        }
        self.0.push(key);
        Ok(())
    }

    /// Takes a key off the list.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn revoke(&mut self, name: &KeyName) -> Result<()> {
        let at = self.0.iter().position(|key| key.name == *name);
        let at = at.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no key `{name}`")))?;
        self.0.remove(at);
        Ok(())
    }

    /// The key that a request brings. It is compared with every one, whichever it is, so that the time tells nothing.
    pub fn find(&self, offered: ApiKey) -> Option<&Key> {
        let mut found = None;
        for key in &self.0 {
            if key.key == offered {
                found = Some(key);
            }
        }
        found
    }

    /// Each, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Key> {
        self.0.iter()
    }
}

impl Entry {
    fn key(self) -> Result<Key> {
        let scopes: Result<Vec<Scope>> = self.scopes.iter().map(|scope| scope.parse()).collect();
        let expires = self.expires.map(|expires| time("expires", &expires)).transpose()?;
        Key::new(
            self.name.parse()?,
            ApiKey::from_digest(&self.sha256)?,
            Scopes::new(scopes?)?,
            time("created", &self.created)?,
            expires,
        )
    }
}

impl From<&Key> for Entry {
    fn from(key: &Key) -> Self {
        Self {
            name: key.name.to_string(),
            sha256: key.key.digest(),
            scopes: key.scopes.iter().map(|scope| scope.to_string()).collect(),
            created: key.created.to_string(),
            expires: key.expires.map(|expires| expires.to_string()),
        }
    }
}

/// A time of the file; what else stands there is not repeated.
fn time(member: &str, text: &str) -> Result<Timestamp> {
    let wrong = |_| Error::new(ErrorKind::InvalidRequest, format!("`{member}` is an RFC 3339 time"));
    text.parse().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn entry() -> Value {
        json!({"name": "pacs", "sha256": DIGEST, "scopes": ["ingest", "search"], "created": "2026-08-01T12:00:00Z"})
    }

    /// A file of the one entry, with members set or, by null, taken away.
    fn with(members: &[(&str, Value)]) -> String {
        let mut entry = entry();
        for (name, value) in members {
            match value {
                Value::Null => drop(entry.as_object_mut().unwrap().remove(*name)),
                value => entry[*name] = value.clone(),
            }
        }
        json!({"format": 1, "keys": [entry]}).to_string()
    }

    #[test]
    fn a_file_is_read_and_written_as_it_was() {
        let keys = Keys::parse(&with(&[("expires", json!("2027-01-01T00:00:00Z"))])).unwrap();
        let key = keys.find(ApiKey::of(b"abc")).unwrap();
        assert_eq!(
            (key.name().as_str(), key.scopes().to_string().as_str()),
            ("pacs", "search,ingest")
        );
        let end: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(key.expires(), Some(end));
        assert!(!key.is_expired(end - jiff::SignedDuration::from_secs(1)) && key.is_expired(end));
        assert_eq!(keys.find(ApiKey::of(b"abd")), None);
        assert_eq!(Keys::parse(&keys.to_json()).unwrap(), keys);
        assert_eq!(Keys::parse(r#"{"format": 1, "keys": []}"#).unwrap(), Keys::default());
    }

    #[test]
    fn what_is_not_as_it_should_be_is_refused_and_named() {
        let other = |members: &[(&str, Value)]| {
            let mut file: Value = serde_json::from_str(&with(&[])).unwrap();
            let one: Value = serde_json::from_str(&with(members)).unwrap();
            file["keys"].as_array_mut().unwrap().push(one["keys"][0].clone());
            file.to_string()
        };
        let full: Vec<Value> = (0..=KEYS_MAX)
            .map(|at| json!({"name": format!("k{at}"), "sha256": format!("{at:064x}"), "scopes": ["search"], "created": "2026-08-01T12:00:00Z"}))
            .collect();
        for (file, says) in [
            (String::new(), "EOF"),
            ("[]".to_owned(), "expected"),
            (r#"{"keys": []}"#.to_owned(), "missing field `format`"),
            (r#"{"format": 2, "keys": []}"#.to_owned(), "its format is `2`"),
            (
                r#"{"format": 1, "keys": [], "salt": ""}"#.to_owned(),
                "unknown field `salt`",
            ),
            (with(&[("key", json!("0123456789abcdef"))]), "unknown field `key`"),
            (with(&[("scopes", Value::Null)]), "missing field `scopes`"),
            (with(&[("created", Value::Null)]), "missing field `created`"),
            (with(&[("name", json!(""))]), "key 1: the name of a key is"),
            (with(&[("name", json!("a b"))]), "key 1: the name of a key is"),
            (with(&[("name", json!("x".repeat(65)))]), "key 1: the name of a key is"),
            (with(&[("name", json!("api-key"))]), "`--api-key-file`"),
            (with(&[("sha256", json!("abc"))]), "key 1: `sha256` is 64 hex digits"),
            (with(&[("scopes", json!([]))]), "key 1: a key needs one scope"),
            (with(&[("scopes", json!(["write"]))]), "key 1: a scope is one of"),
            (
                with(&[("created", json!("yesterday"))]),
                "key 1: `created` is an RFC 3339 time",
            ),
            (
                with(&[("expires", json!("2026-08-01"))]),
                "key 1: `expires` is an RFC 3339 time",
            ),
            (
                with(&[("expires", json!("2026-08-01T12:00:00Z"))]),
                "key 1: the key `pacs` would expire",
            ),
            (
                other(&[("sha256", json!("0".repeat(64)))]),
                "key 2: there is a key `pacs` already",
            ),
            (other(&[("name", json!("b"))]), "key 2: `pacs` and `b` are one key"),
            (json!({"format": 1, "keys": full}).to_string(), "no room"),
            (with(&[]) + &" ".repeat(BYTES_MAX), "more than `262144` bytes"),
        ] {
            let refused = Keys::parse(&file).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidRequest, "{says}");
            assert!(refused.message().contains(says), "`{refused}` does not say `{says}`");
        }
        // A key in the wrong place is in no message.
        for member in ["name", "sha256", "created", "expires", "scopes"] {
            let misplaced = with(&[(member, json!("medsearch_in the wrong place"))]);
            assert!(
                !Keys::parse(&misplaced).unwrap_err().to_string().contains("wrong place"),
                "{member}"
            );
        }
    }

    #[test]
    fn a_revoked_key_is_gone_and_its_name_free() {
        let mut keys = Keys::parse(&with(&[])).unwrap();
        let name: KeyName = "pacs".parse().unwrap();
        let key = keys.iter().next().unwrap().clone();
        assert!(keys.add(key.clone()).is_err());
        keys.revoke(&name).unwrap();
        assert_eq!(keys.find(ApiKey::of(b"abc")), None);
        assert_eq!(keys.revoke(&name).unwrap_err().kind(), ErrorKind::NotFound);
        keys.add(key).unwrap();
    }

    fn any_keys() -> impl Strategy<Value = Keys> {
        let scopes = prop::collection::vec(prop::sample::select(Scope::ALL.to_vec()), 1..4);
        let one = (
            any::<[u8; 32]>(),
            scopes,
            0..4_000_000_000i64,
            prop::option::of(1..4_000_000_000i64),
        );
        prop::collection::btree_map("[a-z0-9][a-zA-Z0-9._-]{0,20}", one, 0..8).prop_map(|all: BTreeMap<_, _>| {
            let mut keys = Keys::default();
            for (name, (digest, scopes, created, lasts)) in all {
                let time = |second| Timestamp::from_second(second).unwrap();
                let key = ApiKey::from_digest(&hex::encode(digest)).unwrap();
                let scopes = Scopes::new(scopes).unwrap();
                let expires = lasts.map(|lasts| time(created + lasts));
                // `api-key` and equal digests are left out.
                if let Ok(name) = name.parse::<KeyName>() {
                    let _ = keys.add(Key::new(name, key, scopes, time(created), expires).unwrap());
                }
            }
            keys
        })
    }

    proptest! {
        #[test]
        fn keys_are_read_as_they_are_written(keys in any_keys()) {
            prop_assert_eq!(Keys::parse(&keys.to_json()).unwrap(), keys);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let _ = Keys::parse(&text);
        }
    }
}
