//! Why a token is not taken.

use crate::metrics::RefusalReason;

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// No signed token in compact form (RFC 7515), too long, or one that wants what is not done here.
    Malformed,
    /// Signed in a way that is not taken (none, with a shared secret), or not in the way of its key.
    Algorithm,
    /// A token for something else: not for asking, or bound to a key that does not come with the request.
    Type,
    /// Signed with a key that the issuer does not publish.
    UnknownKey,
    /// The signature is not that of its key.
    Signature,
    /// Of another issuer.
    Issuer,
    /// For somebody else.
    Audience,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    Early,
    /// Good, and of somebody who has no role here.
    NoRole,
}

impl TokenFault {
    /// In words, for whoever brings it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Malformed => "this is no token that is read here",
            Self::Algorithm => "the token is signed in a way that is not taken here",
            Self::Type => "the token is for something else",
            Self::UnknownKey => "the token is signed with a key that its issuer does not publish",
            Self::Signature => "the token's signature is wrong",
            Self::Issuer => "the token is of another issuer",
            Self::Audience => "the token is for another audience",
            Self::Expired => "the token has expired",
            Self::Early => "the token is not valid yet",
            Self::NoRole => "the token is good, but none of its roles permits anything here",
        }
    }

    /// As it is counted.
    pub const fn reason(self) -> RefusalReason {
        match self {
            Self::Malformed => RefusalReason::TokenMalformed,
            Self::Algorithm => RefusalReason::TokenAlgorithm,
            Self::Type => RefusalReason::TokenType,
            Self::UnknownKey => RefusalReason::TokenKey,
            Self::Signature => RefusalReason::TokenSignature,
            Self::Issuer => RefusalReason::TokenIssuer,
            Self::Audience => RefusalReason::TokenAudience,
            Self::Expired => RefusalReason::TokenExpired,
            Self::Early => RefusalReason::TokenEarly,
            Self::NoRole => RefusalReason::NoRole,
        }
    }
}
