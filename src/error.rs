//! One error type. Its kind says what the caller can do next; only `http/problem.rs` knows status codes.

use std::fmt;

/// Shorthand used everywhere in the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an error. Each kind has one stable slug, the last part of a problem's `type` (RFC 9457).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A parameter is wrong: correct it and ask again.
    InvalidRequest,
    /// The file is recognised but broken.
    InvalidImage,
    /// Not a format, transfer syntax or pixel layout that is read here.
    UnsupportedMedia,
    /// Every pixel has the same value: nothing to compare.
    ConstantImage,
    /// Text that may name somebody is burned into the pixels.
    BurnedInAnnotation,
    /// The body or a file is over its byte limit.
    TooLarge,
    /// The picture has more pixels (or frames) than the limit.
    TooManyPixels,
    /// The request carries no image.
    MissingImage,
    /// The request carries more images than the endpoint takes.
    SeveralImages,
    /// The image is not what the archive is for: another modality, body part, view or SOP class.
    OutOfScope,
    /// A class that the archive does not have.
    UnknownClass,
    /// No image of the archive has such a source.
    UnknownSource,
    /// No PACS of this name, or none to which this URL belongs, is configured.
    UnknownPacs,
    /// No such image, route or object.
    NotFound,
    /// The archive did not keep these pixels.
    PixelsNotKept,
    /// Vectors of another space: re-embed instead of comparing.
    SpaceMismatch,
    /// A vector with another number of components than the space has.
    WrongDimension,
    /// A stored object is not what it should be, or a concurrent change won.
    Conflict,
    /// No credential, or a wrong one.
    Unauthorized,
    /// A credential that is good, but not for this.
    InsufficientScope,
    /// A page of another origin, or a Host that is not ours.
    ForbiddenOrigin,
    /// None of the forms that the client takes is one in which this is given.
    NotAcceptable,
    /// The route exists, the method does not.
    MethodNotAllowed,
    /// The queue is full: come back after the stated seconds.
    Overloaded,
    /// This caller has asked too often: come back after the stated seconds.
    RateLimited,
    /// The storage is full.
    StorageFull,
    /// Something that the answer needs is not there at the moment.
    Unavailable,
    /// A PACS can't be reached, or does not answer as it should.
    PacsFailed,
    /// A part of the archive can't be searched at the moment: come back, or take an answer without it.
    ShardsMissing,
    /// The time for this request is used up.
    Deadline,
    /// `min_version` is newer than what this replica serves.
    VersionAhead,
    /// A damaged object: checksum or structure does not match.
    Damaged,
    /// A fault of ours: opaque outside, the cause goes to the log.
    Internal,
}

impl ErrorKind {
    /// The stable slug of the problem type.
    pub const fn slug(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid-request",
            Self::InvalidImage => "invalid-image",
            Self::UnsupportedMedia => "unsupported-media",
            Self::ConstantImage => "constant-image",
            Self::BurnedInAnnotation => "burned-in-annotation",
            Self::TooLarge => "too-large",
            Self::TooManyPixels => "too-many-pixels",
            Self::MissingImage => "missing-image",
            Self::SeveralImages => "several-images",
            Self::OutOfScope => "out-of-scope",
            Self::UnknownClass => "unknown-class",
            Self::UnknownSource => "unknown-source",
            Self::UnknownPacs => "unknown-pacs",
            Self::NotFound => "not-found",
            Self::PixelsNotKept => "pixels-not-kept",
            Self::SpaceMismatch => "space-mismatch",
            Self::WrongDimension => "wrong-dimension",
            Self::Conflict => "conflict",
            Self::Unauthorized => "unauthorized",
            Self::InsufficientScope => "insufficient-scope",
            Self::ForbiddenOrigin => "forbidden-origin",
            Self::NotAcceptable => "not-acceptable",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate-limited",
            Self::StorageFull => "storage-full",
            Self::Unavailable => "unavailable",
            Self::PacsFailed => "pacs-failed",
            Self::ShardsMissing => "shards-missing",
            Self::Deadline => "deadline",
            Self::VersionAhead => "version-ahead",
            Self::Damaged => "damaged",
            Self::Internal => "internal",
        }
    }
}

/// An error with a kind for the program, a message for a person and a cause for the log.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    retry_after_s: Option<u32>,
}

impl Error {
    /// An error whose message says what is wrong and with which value (lowercase, value in backticks, no full stop).
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
            retry_after_s: None,
        }
    }

    /// The same with the cause, which is logged and never shown outside.
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            message: message.into(),
            source: Some(source.into()),
            retry_after_s: None,
        }
    }

    /// When it is worth while to come back, where the kind alone does not say: rounded up to whole seconds.
    pub fn retry_after(mut self, wait: std::time::Duration) -> Self {
        let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_after_s = Some(u32::try_from(whole).unwrap_or(u32::MAX));
        self
    }

    /// Seconds after which it is worth while to come back.
    pub fn retry_after_s(&self) -> Option<u32> {
        self.retry_after_s
    }

    /// A fault of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// What the caller can do next.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message for a person, without the cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Puts `context: ` before the message and keeps the kind.
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| s.as_ref() as _)
    }
}
