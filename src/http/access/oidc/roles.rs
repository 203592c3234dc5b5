//! What the words of an issuer permit here.

use std::str::FromStr;

use serde_json::Value;

use super::super::Scopes;
use crate::error::{Error, ErrorKind, Result};

/// A value of the claim, and the scopes that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    value: String,
    scopes: Scopes,
}

impl FromStr for Role {
    type Err = Error;

    /// `radiologist=search`, several scopes with `+` between them. The last `=` counts: a group may be called `CN=readers`.
    ///
    /// # Errors
    /// `InvalidRequest` for anything else.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            Error::new(
                ErrorKind::InvalidRequest,
                "a role is `VALUE=SCOPE`, or `VALUE=SCOPE+SCOPE`",
            )
        };
        let (value, scopes) = text.rsplit_once('=').ok_or_else(refuse)?;
        if value.is_empty() {
            return Err(refuse());
        }
        Ok(Self {
            value: value.to_owned(),
            scopes: scopes.replace('+', ",").parse()?,
        })
    }
}

/// Where in a token a person's roles stand, and what each permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    claim: String,
    known: Vec<Role>,
}

impl Roles {
    /// The values of `claim`: its name, or, with dots, the way to it (`realm_access.roles`).
    ///
    /// # Errors
    /// `InvalidRequest` without a role: nobody could do anything.
    pub fn new(claim: String, known: Vec<Role>) -> Result<Self> {
        if claim.is_empty() || known.is_empty() {
            let message = "name at least one role of the issuer and what it permits (--oidc-role VALUE=SCOPE)";
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        Ok(Self { claim, known })
    }

    /// Where they stand, and each with what it permits, in an order of their own: the same text for the same rules, however they are given.
    pub fn text(&self) -> String {
        let mut known: Vec<String> = self
            .known
            .iter()
            .map(|role| format!("{}={}", role.value, role.scopes))
            .collect();
        known.sort_unstable();
        known.dedup();
        format!("{}\n{}", self.claim, known.join("\n"))
    }

    /// What these claims permit; none: nothing.
    pub fn scopes(&self, claims: &Value) -> Option<Scopes> {
        let values = words(self.claim_of(claims)?);
        let granted = self.known.iter().filter(|role| values.contains(&role.value.as_str()));
        granted.map(|role| role.scopes).reduce(Scopes::and)
    }

    /// Some issuers have names with dots, such as addresses.
    fn claim_of<'a>(&self, claims: &'a Value) -> Option<&'a Value> {
        claims
            .get(&self.claim)
            .or_else(|| self.claim.split('.').try_fold(claims, |at, name| at.get(name)))
    }
}

/// Words with spaces between them, as `scope` has them (RFC 6749, 3.3), or a list.
fn words(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => text.split(' ').collect(),
        Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scopes(claim: &str, claims: &Value) -> Option<String> {
        let known = ["reader=search", "r d=search+vectors", "CN=all,DC=x=admin"].map(|role| role.parse().unwrap());
        let roles = Roles::new(claim.to_owned(), known.to_vec()).unwrap();
        roles.scopes(claims).map(|scopes| scopes.to_string())
    }

    #[test]
    fn roles_are_found_where_they_stand_and_nothing_else_counts() {
        let found = |claims: Value| scopes("realm_access.roles", &claims);
        assert_eq!(
            found(json!({"realm_access": {"roles": ["other", "reader"]}})).as_deref(),
            Some("search")
        );
        assert_eq!(
            found(json!({"realm_access": {"roles": ["reader", "r d"]}})).as_deref(),
            Some("search,vectors")
        );
        assert_eq!(
            found(json!({"realm_access.roles": "CN=all,DC=x"})).as_deref(),
            Some("admin")
        );
        assert_eq!(
            scopes("scope", &json!({"scope": "openid reader"})).as_deref(),
            Some("search")
        );
        for none in [
            json!({}),
            json!({"realm_access": "reader"}),
            json!({"realm_access": {"roles": ["Reader", "admin", "search", "reader "]}}),
            json!({"realm_access": {"roles": {"reader": true}}}),
            json!({"realm_access": {"roles": [["reader"]]}}),
            json!({"realm_access": {"roles": true}}),
        ] {
            assert_eq!(found(none.clone()), None, "{none}");
        }
    }

    #[test]
    fn the_text_is_of_the_rules_and_not_of_their_order() {
        let text = |claim: &str, known: &[&str]| {
            let known = known.iter().map(|role| role.parse().unwrap()).collect();
            Roles::new(claim.to_owned(), known).unwrap().text()
        };
        let rules = text("scope", &["a=search", "b=ingest+search"]);
        assert_eq!(text("scope", &["b=search+ingest", "a=search", "a=search"]), rules);
        for other in [
            text("roles", &["a=search", "b=ingest+search"]),
            text("scope", &["a=search", "b=search"]),
            text("scope", &["a=search"]),
            text("scope", &["a=search", "b=ingest+search", "c=admin"]),
        ] {
            assert_ne!(other, rules);
        }
    }

    #[test]
    fn what_is_no_role_is_refused() {
        for text in [
            "",
            "reader",
            "=search",
            "reader=",
            "reader=all",
            "reader=search+",
            "reader=search ingest",
        ] {
            assert_eq!(
                text.parse::<Role>().unwrap_err().kind(),
                ErrorKind::InvalidRequest,
                "{text}"
            );
        }
        assert!(Roles::new("scope".to_owned(), Vec::new()).is_err());
    }
}
