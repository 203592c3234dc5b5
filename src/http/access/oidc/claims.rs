//! What a token says, once its signature is known to be good (RFC 7519, OpenID Connect Core 3.1.3.7).

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::TokenFault;
use super::jws::Jws;

/// What clocks may differ by.
const LEEWAY_SECONDS: f64 = 30.0;
/// Most bytes of a subject (OpenID Connect Core 2: 255 ASCII characters).
const SUBJECT_BYTES_MAX: usize = 255;
/// Most characters of the name that the page shows.
const NAME_CHARACTERS_MAX: usize = 80;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use<'a> {
    /// To ask with.
    Access,
    /// To say who has signed in; with the nonce of whoever went to do so.
    Id {
        /// That nonce.
        nonce: &'a str,
    },
}

/// What a token must say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Whose it must be.
    pub issuer: &'a str,
    /// For whom it must be.
    pub audience: &'a str,
    /// What it must be for.
    pub usage: Use<'a>,
}

/// What a token says.
#[derive(Debug)]
pub struct Claims {
    /// Whom the issuer means; never shown, logged or kept.
    pub subject: String,
    /// What the person is called, if the token says so; only for that person's own eyes.
    pub name: Option<String>,
    all: Value,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct Registered {
    iss: String,
    sub: String,
    aud: Audience,
    exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
    azp: Option<String>,
    nonce: Option<String>,
    /// Keycloak's word for what it is.
    typ: Option<String>,
    /// Cognito's.
    token_use: Option<Value>,
    /// What binds an ID token to what it came with (OpenID Connect Core 3.3.2.11).
    at_hash: Option<Value>,
    c_hash: Option<Value>,
    s_hash: Option<Value>,
    /// What issuers that say neither write into tokens to ask with, and into no others: what is permitted, for which client, and how that said who it is.
    scope: Option<Value>,
    scp: Option<Value>,
    permissions: Option<Value>,
    client_id: Option<Value>,
    cid: Option<Value>,
    appid: Option<Value>,
    azpacr: Option<Value>,
    gty: Option<Value>,
    /// Bound to a key that must come with it (RFC 7800), and does not.
    cnf: Option<Value>,
    preferred_username: Option<Value>,
    name: Option<Value>,
}

impl Claims {
    /// Reads a token whose signature is good.
    ///
    /// # Errors
    /// What does not fit, in the order issuer, kind, audience, time.
    pub fn read(jws: &Jws<'_>, expected: &Expected<'_>, now: Timestamp) -> Result<Self, TokenFault> {
        let said: Registered = serde_json::from_slice(&jws.payload).map_err(|_| TokenFault::Malformed)?;
        if said.iss != expected.issuer {
            return Err(TokenFault::Issuer);
        }
        if said.cnf.is_some() || !said.is_for(expected.usage, jws.kind.as_deref()) {
            return Err(TokenFault::Type);
        }
        said.check_audience(expected)?;
        said.check_time(now)?;
        if !(1..=SUBJECT_BYTES_MAX).contains(&said.sub.len()) {
            return Err(TokenFault::Malformed);
        }
        let name = [said.name, said.preferred_username].into_iter().flatten();
        let name = name.filter_map(|name| name.as_str().and_then(shown)).next();
        Ok(Self {
            subject: said.sub,
            name,
            all: serde_json::from_slice(&jws.payload).map_err(|_| TokenFault::Malformed)?,
        })
    }

    /// Everything that it says.
    pub fn all(&self) -> &Value {
        &self.all
    }
}

impl Registered {
    /// By the media type of RFC 9068, section 2.1, or by Keycloak's claim. Where an issuer says neither, by what its tokens to ask with have and ID tokens don't:
    /// where both are for the same audience, who has signed in somewhere shall not be able to ask with what they got there.
    fn is_for(&self, usage: Use<'_>, kind: Option<&str>) -> bool {
        let claimed = self.typ.as_deref();
        match usage {
            Use::Access => {
                let said = kind == Some("at+jwt") || claimed == Some("Bearer");
                matches!(kind, None | Some("jwt" | "at+jwt"))
                    && matches!(claimed, None | Some("Bearer"))
                    && !self.is_of_a_sign_in()
                    // Keycloak before 25 has it in all its tokens.
                    && (said || (self.nonce.is_none() && self.looks_like_one_to_ask_with()))
            }
            Use::Id { nonce } => {
                matches!(kind, None | Some("jwt"))
                    && matches!(claimed, None | Some("ID"))
                    && self.iat.is_some()
                    && self.nonce.as_deref() == Some(nonce)
            }
        }
    }

    /// It has what only ID tokens have.
    fn is_of_a_sign_in(&self) -> bool {
        let of_id = self
            .token_use
            .as_ref()
            .is_some_and(|usage| usage.as_str() != Some("access"));
        of_id
            || [&self.at_hash, &self.c_hash, &self.s_hash]
                .into_iter()
                .any(Option::is_some)
    }

    fn looks_like_one_to_ask_with(&self) -> bool {
        let permitted = [&self.scope, &self.scp, &self.permissions, &self.token_use];
        let client = [&self.client_id, &self.cid, &self.appid, &self.azpacr, &self.gty];
        permitted.into_iter().chain(client).any(Option::is_some)
    }

    fn check_audience(&self, expected: &Expected<'_>) -> Result<(), TokenFault> {
        let several = match &self.aud {
            Audience::One(one) => std::slice::from_ref(one),
            Audience::Several(several) => several,
        };
        let ours = several.iter().any(|audience| audience == expected.audience);
        // One that several may use must have been made for us.
        let stray = matches!(expected.usage, Use::Id { .. })
            && (several.len() > 1 || self.azp.is_some())
            && self.azp.as_deref() != Some(expected.audience);
        if ours && !stray {
            Ok(())
        } else {
            Err(TokenFault::Audience)
        }
    }

    fn check_time(&self, now: Timestamp) -> Result<(), TokenFault> {
        let now = now.as_millisecond() as f64 / 1000.0;
        let begins = self.nbf.unwrap_or(f64::MIN).max(self.iat.unwrap_or(f64::MIN));
        if now >= self.exp + LEEWAY_SECONDS {
            Err(TokenFault::Expired)
        } else if now < begins - LEEWAY_SECONDS {
            Err(TokenFault::Early)
        } else {
            Ok(())
        }
    }
}

/// A name that can be shown: without what would move the text around it.
fn shown(name: &str) -> Option<String> {
    let name: String = name
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(NAME_CHARACTERS_MAX)
        .collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn read(kind: Option<&str>, change: &Value, usage: Use<'_>) -> Result<Claims, TokenFault> {
        let mut payload =
            json!({"iss": "https://issuer.example", "sub": "s", "aud": "us", "exp": NOW + 60, "iat": NOW});
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => payload.as_object_mut().unwrap().remove(name),
                value => payload.as_object_mut().unwrap().insert(name.clone(), value.clone()),
            };
        }
        let head = match kind {
            Some(kind) => json!({"alg": "RS256", "typ": kind}),
            None => json!({"alg": "RS256"}),
        };
        let token = format!(
            "{}.{}.",
            BASE64.encode(head.to_string()),
            BASE64.encode(payload.to_string())
        );
        let expected = Expected {
            issuer: "https://issuer.example",
            audience: "us",
            usage,
        };
        Claims::read(
            &Jws::parse(token.as_bytes()).unwrap(),
            &expected,
            Timestamp::from_second(NOW).unwrap(),
        )
    }

    #[test]
    #[rustfmt::skip] // a table
    fn a_token_to_ask_with() {
        let with_scope = |change: &Value| {
            let mut claims = json!({"scope": "openid reader"});
            claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            claims
        };
        let fault = |change: Value| read(Some("JWT"), &with_scope(&change), Use::Access).err();
        assert_eq!(fault(json!({})), None);
        for good in [
            json!({"aud": ["others", "us"]}), json!({"exp": NOW - 29}), json!({"exp": f64::from(60) + NOW as f64}), json!({"nbf": NOW + 29}),
            json!({"iat": null}), json!({"typ": "Bearer"}), json!({"azp": "a-program"}), json!({"nonce": null}),
        ] {
            assert_eq!(fault(good.clone()), None, "{good}");
        }
        for (change, expected) in [
            (json!({"iss": "https://issuer.example/"}), TokenFault::Issuer),
            (json!({"iss": ["https://issuer.example"]}), TokenFault::Malformed),
            (json!({"iss": null}), TokenFault::Malformed),
            (json!({"aud": "them"}), TokenFault::Audience),
            (json!({"aud": []}), TokenFault::Audience),
            (json!({"aud": null}), TokenFault::Malformed),
            (json!({"exp": NOW - 30}), TokenFault::Expired),
            (json!({"exp": null}), TokenFault::Malformed),
            (json!({"exp": "soon"}), TokenFault::Malformed),
            (json!({"nbf": NOW + 31}), TokenFault::Early),
            (json!({"iat": NOW + 31}), TokenFault::Early),
            (json!({"typ": "ID"}), TokenFault::Type),
            (json!({"typ": "Refresh"}), TokenFault::Type),
            (json!({"cnf": {"jkt": "x"}}), TokenFault::Type),
            (json!({"sub": ""}), TokenFault::Malformed),
            (json!({"sub": "s".repeat(256)}), TokenFault::Malformed),
        ] {
            assert_eq!(fault(change.clone()), Some(expected), "{change}");
        }
        assert_eq!(read(Some("at+jwt"), &json!({}), Use::Access).err(), None);
        for kind in ["logout+jwt", "dpop+jwt", "secevent+jwt", ""] {
            assert_eq!(read(Some(kind), &json!({}), Use::Access).err(), Some(TokenFault::Type), "{kind}");
        }
    }

    /// As issuers write them, with what does not matter left out. All are signed by the right key and for the right audience.
    #[test]
    #[rustfmt::skip] // a table
    fn a_token_that_says_who_has_signed_in_is_none_to_ask_with() {
        for (what, kind, claims, taken) in [
            ("RFC 9068, oidc-provider", Some("at+jwt"), json!({"client_id": "page", "scope": "openid", "jti": "x"}), true),
            ("RFC 9068 without a scope", Some("application/at+jwt"), json!({"client_id": "page"}), true),
            ("Keycloak", Some("JWT"), json!({"typ": "Bearer", "azp": "page", "scope": "openid", "session_state": "x"}), true),
            ("Keycloak before 25", Some("JWT"), json!({"typ": "Bearer", "azp": "page", "nonce": "n"}), true),
            ("Keycloak, lightweight", Some("JWT"), json!({"typ": "Bearer", "azp": "page"}), true),
            ("Entra 2.0 of a person", Some("JWT"), json!({"ver": "2.0", "azp": "page", "azpacr": "1", "scp": "read", "roles": ["r"]}), true),
            ("Entra 2.0 of a program", Some("JWT"), json!({"ver": "2.0", "azp": "page", "azpacr": "2", "roles": ["r"]}), true),
            ("Entra 1.0 of a program", Some("JWT"), json!({"ver": "1.0", "appid": "page", "appidacr": "1", "roles": ["r"]}), true),
            ("Okta", None, json!({"ver": 1, "cid": "page", "uid": "x", "scp": ["openid"]}), true),
            ("Auth0", Some("JWT"), json!({"azp": "page", "scope": "read", "permissions": []}), true),
            ("Auth0 of a program", Some("JWT"), json!({"azp": "page", "gty": "client-credentials"}), true),
            ("Cognito", None, json!({"token_use": "access", "client_id": "page", "scope": "openid"}), true),
            ("an ID token of the simplest kind", Some("JWT"), json!({}), false),
            ("the same without a type", None, json!({"azp": "us", "email": "a@b"}), false),
            ("of a code flow with a nonce", Some("JWT"), json!({"nonce": "n", "scope": "openid"}), false),
            ("with the hash of what it came with", Some("JWT"), json!({"at_hash": "x", "scope": "openid"}), false),
            ("of a hybrid flow", Some("JWT"), json!({"c_hash": "x", "client_id": "page"}), false),
            ("of FAPI", Some("at+jwt"), json!({"s_hash": "x"}), false),
            ("Keycloak's ID token", Some("JWT"), json!({"typ": "ID", "azp": "us", "at_hash": "x"}), false),
            ("Keycloak's, said to be one to ask with", Some("JWT"), json!({"typ": "Bearer", "at_hash": "x"}), false),
            ("Entra's ID token", Some("JWT"), json!({"ver": "2.0", "rh": "x", "uti": "x", "roles": ["r"], "preferred_username": "a"}), false),
            ("Okta's ID token", None, json!({"ver": 1, "amr": ["pwd"], "idp": "x", "auth_time": NOW}), false),
            ("Cognito's ID token", None, json!({"token_use": "id", "cognito:groups": ["r"], "client_id": "page"}), false),
        ] {
            let expected = (!taken).then_some(TokenFault::Type);
            assert_eq!(read(kind, &claims, Use::Access).err(), expected, "{what}");
        }
    }

    #[test]
    #[rustfmt::skip] // a table
    fn a_token_that_says_who_has_signed_in() {
        let usage = Use::Id { nonce: "n" };
        for (kind, change, expected) in [
            (None, json!({}), None),
            (None, json!({"typ": "ID", "aud": ["us", "others"], "azp": "us"}), None),
            (None, json!({"nonce": null}), Some(TokenFault::Type)),
            (None, json!({"nonce": "another"}), Some(TokenFault::Type)),
            (None, json!({"typ": "Bearer"}), Some(TokenFault::Type)),
            (None, json!({"iat": null}), Some(TokenFault::Type)),
            (Some("at+jwt"), json!({}), Some(TokenFault::Type)),
            (None, json!({"aud": ["us", "others"]}), Some(TokenFault::Audience)),
            (None, json!({"azp": "others"}), Some(TokenFault::Audience)),
        ] {
            let mut claims = json!({"nonce": "n"});
            claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            assert_eq!(read(kind, &claims, usage).err(), expected, "{kind:?} {change}");
        }
    }

    #[test]
    fn names_are_short_and_harmless() {
        let name = |change: Value| read(Some("at+jwt"), &change, Use::Access).unwrap().name;
        assert_eq!(
            name(json!({"name": "Dr. Ada\n<b>", "preferred_username": "ada"})).as_deref(),
            Some("Dr. Ada<b>")
        );
        assert_eq!(
            name(json!({"name": 7, "preferred_username": "ada"})).as_deref(),
            Some("ada")
        );
        assert_eq!(
            name(json!({"name": "é".repeat(200)})).unwrap().chars().count(),
            NAME_CHARACTERS_MAX
        );
        assert_eq!(name(json!({"name": " \t"})), None);
    }
}
