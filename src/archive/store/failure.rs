//! What a storage's failures mean for the caller, told without what a server may have put into its answer.

use std::error::Error as StdError;

use crate::error::{Error, ErrorKind};

/// Codes of servers for a bucket that is not there, which is another thing than an object that is not there.
const NO_BUCKET: [&str; 2] = ["NoSuchBucket", "ContainerNotFound"];
/// Codes of servers that have no room, beside the status 507: Ceph, MinIO.
const FULL: [&str; 2] = ["QuotaExceeded", "XMinioStorageFull"];
/// Longest code that is believed to be one.
const CODE_CHARACTERS_MAX: usize = 64;

/// What an operation on `name` that failed means. Of a write: it may or may not have been made.
pub(super) fn failed(name: &str, error: object_store::Error) -> Error {
    let told = Told::of(&error);
    let is_code = |codes: &[&str]| told.code.as_deref().is_some_and(|code| codes.contains(&code));
    let is_status = |codes: &[&str]| codes.iter().any(|code| told.status.starts_with(code));
    let (kind, message) = match &error {
        _ if is_full(&error) || is_code(&FULL) || is_status(&["507"]) => {
            (ErrorKind::StorageFull, "the archive's storage is full".to_owned())
        }
        _ if is_code(&NO_BUCKET) => (ErrorKind::Unavailable, "the archive's bucket is missing".to_owned()),
        object_store::Error::NotFound { .. } => (ErrorKind::NotFound, format!("`{name}` is missing from the archive")),
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => refused(name),
        _ if is_status(&["401", "403"]) => refused(name),
        _ => (
            ErrorKind::Unavailable,
            format!("the archive's storage failed at `{name}`"),
        ),
    };
    Error::with_source(kind, message, told.text)
}

fn refused(name: &str) -> (ErrorKind, String) {
    let message = format!("the archive's storage refuses access to `{name}`: see its credentials and what they permit");
    (ErrorKind::Unavailable, message)
}

/// As [`failed`] where nothing could be missing but the place itself: a listing, a write.
pub(super) fn failed_there(name: &str, error: object_store::Error) -> Error {
    missing_is_unavailable(failed(name, error))
}

pub(super) fn missing_is_unavailable(error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound {
        let message = error.message().to_owned();
        return Error::with_source(ErrorKind::Unavailable, message, error);
    }
    error
}

pub(super) fn failed_io(what: &str, error: std::io::Error) -> Error {
    let kind = if is_full(&error) {
        ErrorKind::StorageFull
    } else {
        ErrorKind::Unavailable
    };
    Error::with_source(kind, what, error)
}

/// A failure in words for the log. What a server answers stays out but for its status and code: about a signature or a token it may repeat what it was sent.
struct Told {
    text: String,
    status: String,
    code: Option<String>,
}

impl Told {
    fn of(error: &object_store::Error) -> Self {
        let mut text = error.to_string();
        let ends = ["status code: ", "error response: "].map(|mark| text.find(mark).map(|at| at + mark.len()));
        let Some(end) = ends.into_iter().flatten().min() else {
            // Nobody answered, and why is told by the causes alone: "connection refused".
            let mut next = StdError::source(error);
            while let Some(cause) = next {
                let because = cause.to_string();
                if !text.contains(&because) {
                    text = format!("{text}: {because}");
                }
                next = cause.source();
            }
            return Self {
                text,
                status: String::new(),
                code: None,
            };
        };
        let (what, answer) = text.split_at(end);
        let status = answer.split([':', '<', '{', '\n']).next().unwrap_or_default().trim();
        let code = code(answer);
        Self {
            text: format!("{what}{status} {}", code.unwrap_or_default())
                .trim_end()
                .to_owned(),
            status: status.to_owned(),
            code: code.map(str::to_owned),
        }
    }
}

fn code(answer: &str) -> Option<&str> {
    let (_, rest) = answer.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let is_code = code.len() <= CODE_CHARACTERS_MAX && code.bytes().all(|b| b.is_ascii_alphanumeric());
    is_code.then_some(code)
}

fn is_full(error: &(dyn StdError + 'static)) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let mut next = Some(error);
    while let Some(error) = next {
        if error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| matches!(io.kind(), StorageFull | QuotaExceeded))
        {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Into<Box<dyn StdError + Send + Sync>>) -> object_store::Error {
        object_store::Error::Generic {
            store: "test",
            source: source.into(),
        }
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let check = |error, expected| assert_eq!(failed("x", error).kind(), expected);
        check(
            generic(std::io::Error::from(std::io::ErrorKind::StorageFull)),
            ErrorKind::StorageFull,
        );
        check(
            generic(std::io::Error::from_raw_os_error(libc::ENOSPC)),
            ErrorKind::StorageFull,
        );
        check(
            generic("Server returned non-2xx status code: 507 Insufficient Storage: "),
            ErrorKind::StorageFull,
        );
        check(
            generic("Server returned non-2xx status code: 403 Forbidden: <Error><Code>QuotaExceeded</Code></Error>"),
            ErrorKind::StorageFull,
        );
        check(generic("broken"), ErrorKind::Unavailable);
    }

    #[test]
    fn a_missing_bucket_is_no_missing_object() {
        let missing = |source: &str| object_store::Error::NotFound {
            path: "x".into(),
            source: source.into(),
        };
        let answer = "Server returned non-2xx status code: 404 Not Found: <Error><Code>NoSuch";
        assert_eq!(
            failed("x", missing(&format!("{answer}Key</Code></Error>"))).kind(),
            ErrorKind::NotFound
        );
        let error = failed("x", missing(&format!("{answer}Bucket</Code></Error>")));
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("bucket"), "{error}");
    }

    #[test]
    fn why_nobody_answered_is_told() {
        let refused = std::io::Error::from_raw_os_error(libc::ECONNREFUSED);
        let sending = Error::with_source(ErrorKind::Internal, "error sending request", refused);
        let error = failed("x", generic(sending));
        let cause = StdError::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(
            cause.contains("error sending request") && cause.contains("refused"),
            "{cause}"
        );
    }

    #[test]
    fn what_a_server_repeats_stays_out_of_the_log() {
        for answer in [
            "Error performing PUT http://s3/b/x in 1ms - Server returned non-2xx status code: 400 Bad Request: <?xml version=\"1.0\"?>\n<Error><Code>ExpiredToken</Code><Token-0>hidden</Token-0></Error>",
            "Server returned non-2xx status code: 400 Bad Request: {\"hidden\": 1}",
            "Server returned error response: <Error><Code>InternalError</Code><Token-0>hidden</Token-0></Error>",
            "Server returned error response: <Error><Code>hidden token</Code></Error>",
        ] {
            let error = failed("x", generic(answer));
            let shown = format!("{error:?} {:?}", StdError::source(&error));
            assert!(!shown.contains("hidden"), "{shown}");
        }
        let error = failed(
            "x",
            generic("Server returned non-2xx status code: 503 Service Unavailable: <Code>SlowDown</Code>"),
        );
        let cause = StdError::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(
            cause.ends_with("status code: 503 Service Unavailable SlowDown"),
            "{cause}"
        );
    }
}
