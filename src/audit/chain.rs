//! How the lines of one process hang together: each ends with the hash of itself and of the line before.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Most bytes of a line. The largest names [`super::event::IMAGES_MAX`] images.
pub const LINE_BYTES_MAX: usize = 256 << 10;
/// Sets hashes of lines apart from all other uses of BLAKE3.
const CONTEXT: &str = "medsearch audit line 1";
/// What stands before the hash at the end of a line, and behind it.
const HASH_FIELD: &str = ",\"hash\":\"";
const END: &str = "\"}";
/// Hex digits of a hash.
const HASH_DIGITS: usize = 64;

macro_rules! as_text {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}

/// BLAKE3 of a line and of the hash of the line before.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash([u8; 32]);

impl Hash {
    /// What the first line of a process follows.
    pub const NONE: Self = Self([0; 32]);
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
as_text!(Hash);

impl FromStr for Hash {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0; 32];
        let odd = || Error::new(ErrorKind::InvalidRequest, "a hash is 64 hex digits");
        hex::decode_to_slice(text, &mut bytes).map_err(|_| odd())?;
        let hash = Self(bytes);
        // One spelling only.
        if hash.to_string() == text { Ok(hash) } else { Err(odd()) }
    }
}

/// One start of a server: random, 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProcessId([u8; 16]);

impl ProcessId {
    /// One that nobody has.
    pub fn random() -> Self {
        Self(*uuid::Uuid::new_v4().as_bytes())
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
as_text!(ProcessId);

impl FromStr for ProcessId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0; 16];
        let odd = || Error::new(ErrorKind::InvalidRequest, "a process is named by 32 hex digits");
        hex::decode_to_slice(text, &mut bytes).map_err(|_| odd())?;
        let id = Self(bytes);
        // One spelling only, since it is the name of a file.
        if id.to_string() == text { Ok(id) } else { Err(odd()) }
    }
}

/// Where the chain of a process stands: what follows has to follow this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The process.
    pub process: ProcessId,
    /// The server's name among its replicas.
    pub replica: String,
    /// Number of its last line, from 1.
    pub seq: u64,
    /// Hash of that line, and by it of all before.
    pub hash: Hash,
    /// When it was written.
    pub time: Timestamp,
}

/// The last line so far: its number and its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its number; 0: there is none.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Link {
    /// Before the first line.
    pub const START: Self = Self {
        seq: 0,
        hash: Hash::NONE,
    };
}

/// Ends a line, which is a JSON object with its own number and with `after` in the field `prev`: adds its hash and a line feed.
pub fn seal(mut object: String, after: Link) -> (String, Link) {
    object.truncate(object.len().saturating_sub(1));
    let hash = hash_of(object.as_bytes(), after.hash);
    object.push_str(HASH_FIELD);
    object.push_str(&hash.to_string());
    object.push_str(END);
    object.push('\n');
    let link = Link {
        seq: after.seq + 1,
        hash,
    };
    (object, link)
}

/// The hash that a line, without its line feed, ends with, and whether that is the hash of what stands before it and of `prev`.
pub fn read_hash(line: &[u8], prev: Hash) -> Option<(Hash, bool)> {
    let tail = HASH_FIELD.len() + HASH_DIGITS + END.len();
    let (text, tail) = line.split_at_checked(line.len().checked_sub(tail)?)?;
    let tail = std::str::from_utf8(tail).ok()?;
    let stated: Hash = tail.strip_prefix(HASH_FIELD)?.strip_suffix(END)?.parse().ok()?;
    Some((stated, stated == hash_of(text, prev)))
}

fn hash_of(text: &[u8], prev: Hash) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&prev.0).update(text);
    Hash(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back_with_the_hash_that_it_was_given() {
        let (line, link) = seal(r#"{"seq":1,"what":"start"}"#.to_owned(), Link::START);
        assert!(line.starts_with(r#"{"seq":1,"what":"start","hash":""#) && line.ends_with("\"}\n"));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["hash"], link.hash.to_string());
        let line = line.trim_end().as_bytes();
        assert_eq!(read_hash(line, Hash::NONE), Some((link.hash, true)));
        assert_eq!(
            read_hash(line, link.hash),
            Some((link.hash, false)),
            "after another line"
        );
        for at in 0..line.len() {
            let mut changed = line.to_vec();
            changed[at] ^= 1;
            assert!(!matches!(read_hash(&changed, Hash::NONE), Some((_, true))), "byte {at}");
        }
        assert_eq!(read_hash(b"", Hash::NONE), None);
    }

    #[test]
    fn names_have_one_spelling() {
        let id = ProcessId::random();
        assert_eq!(id.to_string().parse::<ProcessId>().unwrap(), id);
        assert!("AB".repeat(16).parse::<ProcessId>().is_err());
        assert!("AB".repeat(32).parse::<Hash>().is_err());
    }
}
