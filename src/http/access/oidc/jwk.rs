//! The keys that an issuer publishes (RFC 7517), and whether one of them signed a token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde::Deserialize;
use serde_json::Value;

use super::TokenFault;
use super::jws::{Algorithm, Jws};
use crate::error::{Error, ErrorKind, Result};

/// Most keys of an issuer: a token that names none is compared with all of them.
const KEYS_MAX: usize = 64;
/// Bytes of an RSA modulus: 2048 to 8192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// What an issuer signs with, the public half.
#[derive(Debug, PartialEq, Eq)]
pub struct IssuerKeys(Vec<IssuerKey>);

#[derive(Debug, PartialEq, Eq)]
struct IssuerKey {
    id: Option<String>,
    /// The only way in which it signs, if it says so.
    algorithm: Option<Algorithm>,
    public: PublicKey,
}

#[derive(Debug, PartialEq, Eq)]
enum PublicKey {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The point, uncompressed (SEC 1, 2.3.3).
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl IssuerKeys {
    /// Reads a key set. Keys that sign in ways that are not taken here, and those for encrypting, are left out.
    ///
    /// # Errors
    /// `Unavailable` for what is no key set, has too many keys, or none that can be used.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let refuse = |why: &str| Error::new(ErrorKind::Unavailable, format!("the issuer's key set {why}"));
        let set: Jwks = serde_json::from_slice(json).map_err(|_| refuse("can't be read"))?;
        if set.keys.len() > KEYS_MAX {
            return Err(refuse(&format!("has more than {KEYS_MAX} keys")));
        }
        let keys: Vec<IssuerKey> = set.keys.into_iter().filter_map(usable).collect();
        if keys.is_empty() {
            return Err(refuse("has no key that can be used"));
        }
        Ok(Self(keys))
    }

    /// Whether one of them signed this.
    ///
    /// # Errors
    /// [`TokenFault::UnknownKey`], [`TokenFault::Algorithm`], [`TokenFault::Signature`].
    pub fn verify(&self, jws: &Jws<'_>) -> Result<(), TokenFault> {
        let mut named = self
            .0
            .iter()
            .filter(|key| jws.key_id.is_none() || key.id == jws.key_id)
            .peekable();
        if named.peek().is_none() {
            return Err(TokenFault::UnknownKey);
        }
        let mut fault = TokenFault::Algorithm;
        for key in named {
            match key.verify(jws) {
                None => {}
                Some(true) => return Ok(()),
                Some(false) => fault = TokenFault::Signature,
            }
        }
        // Without a name it may be of a key that is newer than these.
        Err(if jws.key_id.is_none() && fault == TokenFault::Signature {
            TokenFault::UnknownKey
        } else {
            fault
        })
    }
}

impl IssuerKey {
    /// Whether it signed this; none: it does not sign in this way.
    fn verify(&self, jws: &Jws<'_>) -> Option<bool> {
        if self.algorithm.is_some_and(|algorithm| algorithm != jws.algorithm) {
            return None;
        }
        let fits = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            UnparsedPublicKey::new(algorithm, key)
                .verify(jws.signed, &jws.signature)
                .is_ok()
        };
        Some(match (jws.algorithm, &self.public) {
            (Algorithm::Es256, PublicKey::P256(point)) => fits(&signature::ECDSA_P256_SHA256_FIXED, point),
            (Algorithm::Es384, PublicKey::P384(point)) => fits(&signature::ECDSA_P384_SHA384_FIXED, point),
            (Algorithm::EdDsa, PublicKey::Ed25519(key)) => fits(&signature::ED25519, key),
            (algorithm, PublicKey::Rsa { n, e }) => RsaPublicKeyComponents { n, e }
                .verify(rsa(algorithm)?, jws.signed, &jws.signature)
                .is_ok(),
            _ => return None,
        })
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => return None,
    })
}

fn usable(key: Value) -> Option<IssuerKey> {
    let key: Jwk = serde_json::from_value(key).ok()?;
    if key.usage.as_deref().is_some_and(|usage| usage != "sig")
        || key
            .key_ops
            .as_ref()
            .is_some_and(|ops| !ops.iter().any(|op| op == "verify"))
    {
        return None;
    }
    let algorithm = match &key.alg {
        Some(name) => Some(Algorithm::named(name)?),
        None => None,
    };
    let number = |text: &Option<String>, bytes: usize| {
        let number = BASE64.decode(text.as_deref()?).ok()?;
        (number.len() == bytes).then_some(number)
    };
    let point = |bytes: usize| Some([vec![4], number(&key.x, bytes)?, number(&key.y, bytes)?].concat());
    let public = match (key.kty.as_str(), key.crv.as_deref()) {
        ("RSA", None) => {
            // RFC 7518, 6.3.1.1: no zeros before it; some have one all the same.
            let n = BASE64.decode(key.n.as_deref()?).ok()?;
            let n = n.strip_prefix(&[0]).map(<[u8]>::to_vec).unwrap_or(n);
            let e = BASE64.decode(key.e.as_deref()?).ok()?;
            if !RSA_BYTES.contains(&n.len()) || e.len() > 8 {
                return None;
            }
            PublicKey::Rsa { n, e }
        }
        ("EC", Some("P-256")) => PublicKey::P256(point(32)?),
        ("EC", Some("P-384")) => PublicKey::P384(point(48)?),
        ("OKP", Some("Ed25519")) => PublicKey::Ed25519(number(&key.x, 32)?),
        _ => return None,
    };
    Some(IssuerKey {
        id: key.kid,
        algorithm,
        public,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn okp(more: &Value) -> Value {
        let mut key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": BASE64.encode([7; 32])});
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key
    }

    fn parse(keys: &[Value]) -> Result<IssuerKeys> {
        IssuerKeys::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn keys_of_no_use_are_left_out() {
        let good = okp(&json!({}));
        assert_eq!(parse(std::slice::from_ref(&good)).unwrap().0.len(), 1);
        for (what, bad) in [
            ("a shared secret", json!({"kty": "oct", "kid": "a", "k": "c2VjcmV0"})),
            ("for encrypting", okp(&json!({"use": "enc"}))),
            ("for signing only", okp(&json!({"key_ops": ["sign"]}))),
            ("another way", okp(&json!({"alg": "HS256"}))),
            ("another curve", okp(&json!({"crv": "X25519"}))),
            ("short", okp(&json!({"x": BASE64.encode([7; 31])}))),
            (
                "weak",
                json!({"kty": "RSA", "n": BASE64.encode([255; 128]), "e": "AQAB"}),
            ),
            (
                "half a point",
                json!({"kty": "EC", "crv": "P-256", "x": BASE64.encode([1; 32])}),
            ),
            ("nothing", json!(null)),
        ] {
            assert!(parse(std::slice::from_ref(&bad)).is_err(), "{what}");
            assert_eq!(parse(&[bad, good.clone()]).unwrap().0.len(), 1, "{what}");
        }
        assert!(parse(&vec![good; KEYS_MAX + 1]).is_err());
        for text in ["", "[]", "{}", r#"{"keys":7}"#] {
            assert_eq!(
                IssuerKeys::parse(text.as_bytes()).unwrap_err().kind(),
                ErrorKind::Unavailable,
                "{text}"
            );
        }
    }

    #[test]
    fn a_key_answers_to_its_name_and_its_algorithm() {
        let keys = parse(&[okp(&json!({}))]).unwrap();
        let verify = |head: Value| {
            let token = format!("{}.e30.{}", BASE64.encode(head.to_string()), BASE64.encode([0; 64]));
            keys.verify(&Jws::parse(token.as_bytes()).unwrap())
        };
        assert_eq!(verify(json!({"alg": "EdDSA", "kid": "b"})), Err(TokenFault::UnknownKey));
        assert_eq!(verify(json!({"alg": "RS256", "kid": "a"})), Err(TokenFault::Algorithm));
        assert_eq!(verify(json!({"alg": "EdDSA", "kid": "a"})), Err(TokenFault::Signature));
        assert_eq!(verify(json!({"alg": "EdDSA"})), Err(TokenFault::UnknownKey));
    }
}
