//! How a request is turned away, and what it is told.

use actix_web::http::header::HeaderValue;

use super::{KeyHolder, Scope};
use crate::error::{Error, ErrorKind};
use crate::metrics::RefusalReason;

/// Why a request may not be answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It brings no key.
    NoKey,
    /// It brings one that nobody has, or no longer.
    UnknownKey,
    /// It brings one whose time is over.
    ExpiredKey,
    /// Its key does not permit this.
    InsufficientScope {
        /// Whose key it is.
        holder: KeyHolder,
        /// What the key lacks.
        needed: Scope,
    },
    /// It comes from a page of another origin, or names a Host that is not ours: why, in words.
    ForbiddenOrigin(&'static str),
}

impl Refusal {
    /// What the client is told.
    pub fn error(&self) -> Error {
        let unauthorized = |message: &str| Error::new(ErrorKind::Unauthorized, message);
        match self {
            Self::NoKey => unauthorized("send `Authorization: Bearer KEY` or `X-API-Key: KEY`"),
            Self::UnknownKey => unauthorized("this key is not known here, or was revoked"),
            Self::ExpiredKey => unauthorized("this key has expired"),
            Self::InsufficientScope { needed, .. } => Error::new(
                ErrorKind::InsufficientScope,
                format!("this needs a key with the scope `{needed}`"),
            ),
            Self::ForbiddenOrigin(why) => Error::new(ErrorKind::ForbiddenOrigin, *why),
        }
    }

    /// The same as RFC 6750, section 3, has it: the header `WWW-Authenticate`. To whoever brings no key it says no more than how to bring one.
    pub fn challenge(&self) -> Option<HeaderValue> {
        match self {
            Self::NoKey => Some(HeaderValue::from_static("Bearer")),
            Self::UnknownKey | Self::ExpiredKey => Some(HeaderValue::from_static(r#"Bearer error="invalid_token""#)),
            Self::InsufficientScope { needed, .. } => {
                let text = format!(r#"Bearer error="insufficient_scope", scope="{needed}""#);
                Some(HeaderValue::from_str(&text).expect("a scope's name is letters"))
            }
            Self::ForbiddenOrigin(_) => None,
        }
    }

    /// As it is counted.
    pub fn reason(&self) -> RefusalReason {
        match self {
            Self::NoKey => RefusalReason::NoKey,
            Self::UnknownKey => RefusalReason::UnknownKey,
            Self::ExpiredKey => RefusalReason::ExpiredKey,
            Self::InsufficientScope { .. } => RefusalReason::InsufficientScope,
            Self::ForbiddenOrigin(_) => RefusalReason::ForbiddenOrigin,
        }
    }

    /// Whose key it brought, if it is one.
    pub fn holder(&self) -> Option<&KeyHolder> {
        match self {
            Self::InsufficientScope { holder, .. } => Some(holder),
            Self::NoKey | Self::UnknownKey | Self::ExpiredKey | Self::ForbiddenOrigin(_) => None,
        }
    }
}
