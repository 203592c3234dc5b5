//! One key, kept as its digest.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::{Error, ErrorKind, Result};

/// Fewest characters of a key: what can be guessed is no key.
const CHARACTERS_MIN: usize = 16;
/// Most characters of a key.
const CHARACTERS_MAX: usize = 512;
/// Random bytes of a key that is made here.
const RANDOM_BYTES: usize = 32;
/// What it begins with, so that whoever finds one in a file, or a scanner for secrets, knows what it is.
const PREFIX: &str = "medsearch_";

/// A key, kept as its SHA-256 digest.
///
/// Neither a slow hash nor a salt is needed: these make it dear to try what people think up, one password after the other. A key of a keys file is 256
/// random bits, and there is nothing to try: whoever finds it by its digest could as well find it without. A key that an operator thought up
/// (`--api-key-file`) is never stored as a digest.
#[derive(Clone, Copy, Eq)]
pub struct ApiKey([u8; 32]);

impl ApiKey {
    /// Takes a key of visible ASCII characters.
    ///
    /// # Errors
    /// `InvalidRequest` for a key that is too short, too long or can't be sent in a header.
    pub fn new(text: &str) -> Result<Self> {
        let range = CHARACTERS_MIN..=CHARACTERS_MAX;
        if !range.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message = format!("an API key is {CHARACTERS_MIN} to {CHARACTERS_MAX} visible ASCII characters");
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        Ok(Self::of(text.as_bytes()))
    }

    /// A new one, and its text: whoever makes it hands that on, nobody gets it from the digest.
    ///
    /// # Errors
    /// `Internal` when the system has no randomness.
    pub fn random() -> Result<(String, Self)> {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::with_source(ErrorKind::Internal, "the system gives no random bytes", error))?;
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let key = Self::of(text.as_bytes());
        Ok((text, key))
    }

    /// What a request brings, whatever it is.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The key of a digest.
    ///
    /// # Errors
    /// `InvalidRequest` for anything but 64 hex digits.
    pub fn from_digest(hex_digits: &str) -> Result<Self> {
        let mut digest = [0; 32];
        hex::decode_to_slice(hex_digits, &mut digest)
            .map_err(|_| Error::new(ErrorKind::InvalidRequest, "`sha256` is 64 hex digits"))?;
        Ok(Self(digest))
    }

    /// The digest, 64 hex digits.
    pub fn digest(self) -> String {
        hex::encode(self.0)
    }

    /// Whether a request brings this key.
    pub fn matches(self, offered: &[u8]) -> bool {
        self == Self::of(offered)
    }
}

/// In a time that tells nothing about the key.
impl PartialEq for ApiKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef-key";

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
    }

    #[test]
    fn a_key_is_known_by_its_text_and_shows_nothing_of_it() {
        let key = ApiKey::new(KEY).unwrap();
        assert!(key.matches(KEY.as_bytes()) && !key.matches(b"0123456789abcdef-kez") && !key.matches(b""));
        assert_eq!(format!("{key:?}"), "ApiKey(..)");
        assert_eq!(ApiKey::from_digest(&key.digest()).unwrap(), key);
        // As `printf %s KEY | sha256sum` has it, so that a file can be written by other means.
        assert_eq!(
            ApiKey::of(b"abc").digest(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        for digits in ["", "00", &"0".repeat(63), &"g".repeat(64), &"0".repeat(66)] {
            assert!(ApiKey::from_digest(digits).is_err(), "{digits}");
        }
    }

    #[test]
    fn new_keys_differ_and_can_be_sent() {
        let (text, key) = ApiKey::random().unwrap();
        assert!(text.starts_with(PREFIX) && text.len() == PREFIX.len() + 43, "{text}");
        assert_eq!(ApiKey::new(&text).unwrap(), key);
        assert_ne!(ApiKey::random().unwrap().0, text);
    }
}
