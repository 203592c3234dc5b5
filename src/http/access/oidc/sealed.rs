//! What a browser keeps for this server without being able to read or change it: AES-256-GCM, in a cookie.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{Aead, KeyInit as _, Payload};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

use crate::error::{Error, ErrorKind, Result};

const NONCE_BYTES: usize = 12;
/// Most characters of a sealed value; browsers keep 4096 bytes of a cookie.
const CHARACTERS_MAX: usize = 3800;

/// The key of all cookies of a server, the same on every replica.
pub struct CookieKey(Aes256Gcm);

impl CookieKey {
    /// The key of these bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(Aes256Gcm::new(bytes.into()))
    }

    /// Seals `plain` so that it opens as this `kind` of value and no other.
    ///
    /// # Errors
    /// `Internal` when the system has no randomness.
    pub fn seal(&self, kind: &str, plain: &[u8]) -> Result<String> {
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce)?;
        let payload = Payload {
            msg: plain,
            aad: kind.as_bytes(),
        };
        let sealed = self.0.encrypt(&nonce.into(), payload);
        let sealed = sealed.map_err(|_| Error::internal("a cookie can't be sealed"))?;
        Ok(BASE64.encode([&nonce[..], &sealed].concat()))
    }

    /// What was sealed; none for what another key, another kind or nobody sealed.
    pub fn open(&self, kind: &str, text: &str) -> Option<Vec<u8>> {
        if text.len() > CHARACTERS_MAX {
            return None;
        }
        let bytes = BASE64.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let payload = Payload {
            msg: sealed,
            aad: kind.as_bytes(),
        };
        self.0.decrypt(&(*nonce).into(), payload).ok()
    }
}

/// Never the key.
impl std::fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieKey(..)")
    }
}

/// 256 random bits as text that fits into an address.
///
/// # Errors
/// `Internal` when the system has no randomness.
pub fn random_text() -> Result<String> {
    let mut bytes = [0; 32];
    random(&mut bytes)?;
    Ok(BASE64.encode(bytes))
}

fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes)
        .map_err(|error| Error::with_source(ErrorKind::Internal, "the system gives no random bytes", error))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn only_what_was_sealed_opens(plain in prop::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let key = CookieKey::new(&[1; 32]);
            let sealed = key.seal("session", &plain).unwrap();
            prop_assert_eq!(key.open("session", &sealed), Some(plain));
            prop_assert_eq!(key.open("login", &sealed), None);
            prop_assert_eq!(CookieKey::new(&[2; 32]).open("session", &sealed), None);
            let mut bytes = BASE64.decode(&sealed).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_eq!(key.open("session", &BASE64.encode(&bytes)), None);
            prop_assert_eq!(key.open("session", &sealed[..at]), None);
        }

        #[test]
        fn anything_else_is_nothing(text in ".{0,80}") {
            prop_assert_eq!(CookieKey::new(&[1; 32]).open("session", &text), None);
        }
    }
}
