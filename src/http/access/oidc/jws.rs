//! A signed token in compact form (RFC 7515, RFC 7519), taken apart. Nothing in it is to be believed before its signature is checked.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::TokenFault;

/// Most bytes of a token; issuers that put every group of a person into it come close to half of this.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;

/// How a token is signed (RFC 7518, RFC 8037): by keys of which only the issuer has the private half. `none` and the HMACs, which whoever checks
/// could sign with too, are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// The same with SHA-384.
    Rs384,
    /// The same with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// The same with SHA-384.
    Ps384,
    /// The same with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// The algorithm of this name, if it is taken.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            // RFC 9864 names the curve.
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// What a token's head says. Keys that it brings along (`jwk`, `jku`, `x5c`, `x5u`) are not looked at.
#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
    enc: Option<IgnoredAny>,
}

/// A token taken apart.
#[derive(Debug)]
pub struct Jws<'a> {
    /// What is signed.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: Vec<u8>,
    /// How it is signed, as it says.
    pub algorithm: Algorithm,
    /// The key's name, if it says one.
    pub key_id: Option<String>,
    /// Its media type without `application/`, in lower case; none: it says none.
    pub kind: Option<String>,
    /// What it says: JSON, as yet not read.
    pub payload: Vec<u8>,
}

impl<'a> Jws<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`TokenFault::Malformed`], [`TokenFault::Algorithm`].
    pub fn parse(token: &'a [u8]) -> Result<Self, TokenFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenFault::Malformed);
        }
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(head), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenFault::Malformed);
        };
        let decode = |part: &[u8]| BASE64.decode(part).map_err(|_| TokenFault::Malformed);
        let signed = &token[..head.len() + 1 + payload.len()];
        let head: Head = serde_json::from_slice(&decode(head)?).map_err(|_| TokenFault::Malformed)?;
        // What must be understood, and is not (RFC 7515, 4.1.11), or is encrypted.
        if head.crit.is_some() || head.enc.is_some() {
            return Err(TokenFault::Malformed);
        }
        let kind = head.typ.map(|kind| kind.to_ascii_lowercase());
        Ok(Self {
            signed,
            signature: decode(signature)?,
            algorithm: Algorithm::named(&head.alg).ok_or(TokenFault::Algorithm)?,
            key_id: head.kid,
            kind: kind.map(|kind| kind.strip_prefix("application/").map(str::to_owned).unwrap_or(kind)),
            payload: decode(payload)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(head: &str) -> String {
        format!("{}.{}.{}", BASE64.encode(head), BASE64.encode("{}"), BASE64.encode("s"))
    }

    #[test]
    fn only_what_the_issuer_alone_can_sign_is_taken() {
        for name in ["none", "None", "HS256", "HS512", "RS1", "ES256K", "", "rs256", "dir"] {
            let token = token(&format!(r#"{{"alg":"{name}"}}"#));
            assert_eq!(
                Jws::parse(token.as_bytes()).unwrap_err(),
                TokenFault::Algorithm,
                "{name}"
            );
        }
        let token = token(r#"{"alg":"ES256","kid":"1","typ":"application/AT+JWT","jwk":{"kty":"EC"}}"#);
        let jws = Jws::parse(token.as_bytes()).unwrap();
        assert_eq!(
            (jws.algorithm, jws.key_id.as_deref(), jws.kind.as_deref()),
            (Algorithm::Es256, Some("1"), Some("at+jwt"))
        );
        assert_eq!(
            (jws.payload.as_slice(), jws.signature.as_slice()),
            (&b"{}"[..], &b"s"[..])
        );
        assert_eq!(jws.signed, token.rsplit_once('.').unwrap().0.as_bytes());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for head in [
            "",
            "[]",
            r#"{"typ":"JWT"}"#,
            r#"{"alg":"RS256","alg":"none"}"#,
            r#"{"alg":"RS256","crit":["b64"],"b64":false}"#,
            r#"{"alg":"RS256","enc":"A256GCM"}"#,
            r#"{"alg":7}"#,
        ] {
            let token = token(head);
            assert_eq!(
                Jws::parse(token.as_bytes()).unwrap_err(),
                TokenFault::Malformed,
                "{head}"
            );
        }
        let good = token(r#"{"alg":"RS256"}"#);
        let long = format!("{good}{}", "A".repeat(TOKEN_BYTES_MAX));
        for text in ["", "..", "a.b", &format!("{good}.x"), &good.replace('.', ".="), &long] {
            assert_eq!(
                Jws::parse(text.as_bytes()).unwrap_err(),
                TokenFault::Malformed,
                "{text:.40}"
            );
        }
    }

    proptest! {
        #[test]
        fn anything_is_a_token_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), head in ".{0,40}") {
            let _ = Jws::parse(&bytes);
            let _ = Jws::parse(token(&head).as_bytes());
        }
    }
}
