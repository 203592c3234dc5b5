//! How a request is turned away, and what it is told.

use actix_web::http::header::HeaderValue;

use super::{KeyHolder, Scope, TokenFault};
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
    /// It brings a token that does not hold.
    Token(TokenFault),
    /// It brings a token, and the issuer's keys are not known, or not any more.
    IssuerUnavailable,
    /// It brings a session of the page that this server did not make, or can't read any more.
    UnknownSession,
    /// It brings one whose time is over.
    ExpiredSession,
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
            Self::Token(TokenFault::NoRole) => Error::new(ErrorKind::InsufficientScope, TokenFault::NoRole.words()),
            Self::Token(fault) => unauthorized(fault.words()),
            Self::IssuerUnavailable => Error::new(
                ErrorKind::Unavailable,
                "the issuer of tokens can't be asked for its keys at the moment",
            ),
            Self::UnknownSession => unauthorized("sign in again: this session is not known here"),
            Self::ExpiredSession => unauthorized("sign in again: this session has expired"),
            Self::InsufficientScope { needed, .. } => Error::new(
                ErrorKind::InsufficientScope,
                format!("this needs a key with the scope `{needed}`"),
            ),
            Self::ForbiddenOrigin(why) => Error::new(ErrorKind::ForbiddenOrigin, *why),
        }
    }

    /// The same as RFC 6750, section 3, has it: the header `WWW-Authenticate`. To whoever brings no key it says no more than how to bring one; where people
    /// can sign in, `login` says where.
    pub fn challenge(&self, login: bool) -> Option<HeaderValue> {
        let mut text = match self {
            Self::NoKey => "Bearer".to_owned(),
            Self::UnknownKey | Self::ExpiredKey | Self::UnknownSession | Self::ExpiredSession => {
                r#"Bearer error="invalid_token""#.to_owned()
            }
            Self::Token(TokenFault::NoRole) => r#"Bearer error="insufficient_scope""#.to_owned(),
            Self::Token(_) => r#"Bearer error="invalid_token""#.to_owned(),
            Self::InsufficientScope { needed, .. } => format!(r#"Bearer error="insufficient_scope", scope="{needed}""#),
            Self::ForbiddenOrigin(_) | Self::IssuerUnavailable => return None,
        };
        if login {
            text.push_str(if text == "Bearer" { " " } else { ", " });
            text.push_str(r#"login="/login""#);
        }
        Some(HeaderValue::from_str(&text).expect("a scope's name is letters"))
    }

    /// As it is counted.
    pub fn reason(&self) -> RefusalReason {
        match self {
            Self::NoKey => RefusalReason::NoKey,
            Self::UnknownKey => RefusalReason::UnknownKey,
            Self::ExpiredKey => RefusalReason::ExpiredKey,
            Self::Token(fault) => fault.reason(),
            Self::IssuerUnavailable => RefusalReason::IssuerUnavailable,
            Self::UnknownSession => RefusalReason::UnknownSession,
            Self::ExpiredSession => RefusalReason::ExpiredSession,
            Self::InsufficientScope { .. } => RefusalReason::InsufficientScope,
            Self::ForbiddenOrigin(_) => RefusalReason::ForbiddenOrigin,
        }
    }

    /// Whether somebody may be trying keys, or making the server work for nothing with tokens that nobody signed. A missing key is a first visit, an expired
    /// one was good, a key of the issuer that is not known may be its next one, and a session may be of another day's settings.
    pub fn is_wrong_key(&self) -> bool {
        match self {
            Self::UnknownKey | Self::Token(TokenFault::Malformed | TokenFault::Algorithm | TokenFault::Signature) => {
                true
            }
            Self::NoKey
            | Self::ExpiredKey
            | Self::Token(_)
            | Self::IssuerUnavailable
            | Self::UnknownSession
            | Self::ExpiredSession
            | Self::InsufficientScope { .. }
            | Self::ForbiddenOrigin(_) => false,
        }
    }

    /// Whose key it brought, if it is one.
    pub fn holder(&self) -> Option<&KeyHolder> {
        match self {
            Self::InsufficientScope { holder, .. } => Some(holder),
            Self::NoKey
            | Self::UnknownKey
            | Self::ExpiredKey
            | Self::Token(_)
            | Self::IssuerUnavailable
            | Self::UnknownSession
            | Self::ExpiredSession
            | Self::ForbiddenOrigin(_) => None,
        }
    }
}

impl From<TokenFault> for Refusal {
    fn from(fault: TokenFault) -> Self {
        Self::Token(fault)
    }
}
