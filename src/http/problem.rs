//! From errors to answers: problem documents (RFC 9457). The only place that knows status codes.

use std::collections::BTreeMap;

use actix_multipart::MultipartError;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::ServiceResponse;
use actix_web::error::{JsonPayloadError, PathError, PayloadError, QueryPayloadError};
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde::{Deserialize, Serialize};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use crate::error::{Error, ErrorKind};

/// Media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Seconds after which a refused request may be sent again.
const RETRY_AFTER_SECONDS: u32 = 1;

/// What went wrong, for a program (`type`) and a person (`title`, `detail`).
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `/problems/` and a stable name.
    #[serde(rename = "type")]
    #[schema(example = "/problems/invalid-image")]
    pub kind: String,
    /// The type in words.
    #[schema(example = "The file can't be read as an image")]
    pub title: String,
    /// The HTTP status.
    #[schema(example = 422)]
    pub status: u16,
    /// What is wrong with this request.
    #[schema(example = "the JPEG ends in the middle")]
    pub detail: String,
    /// The request in the server's log, also in the header `X-Request-Id`.
    pub request_id: String,
}

/// The status of a kind.
pub const fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidRequest
        | ErrorKind::MissingImage
        | ErrorKind::SeveralImages
        | ErrorKind::UnknownClass
        | ErrorKind::UnknownSource
        | ErrorKind::WrongDimension => StatusCode::BAD_REQUEST,
        ErrorKind::InvalidImage | ErrorKind::ConstantImage | ErrorKind::OutOfScope | ErrorKind::BurnedInAnnotation => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        ErrorKind::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorKind::TooLarge | ErrorKind::TooManyPixels => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::NotFound | ErrorKind::UnknownPacs => StatusCode::NOT_FOUND,
        ErrorKind::PixelsNotKept | ErrorKind::SpaceMismatch | ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorKind::InsufficientScope | ErrorKind::ForbiddenOrigin => StatusCode::FORBIDDEN,
        ErrorKind::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        ErrorKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::Overloaded | ErrorKind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::Unavailable | ErrorKind::ShardsMissing | ErrorKind::VersionAhead => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::PacsFailed => StatusCode::BAD_GATEWAY,
        ErrorKind::Deadline => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Damaged | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The kind in words for a person.
const fn title(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidRequest => "The request is not valid",
        ErrorKind::InvalidImage => "The file can't be read as an image",
        ErrorKind::UnsupportedMedia => "This media type is not supported",
        ErrorKind::ConstantImage => "The image is blank",
        ErrorKind::BurnedInAnnotation => "The image is not free of text that may name somebody",
        ErrorKind::TooLarge => "The upload is too large",
        ErrorKind::TooManyPixels => "The image has too many pixels",
        ErrorKind::MissingImage => "No image in the request",
        ErrorKind::SeveralImages => "Too many images in the request",
        ErrorKind::OutOfScope => "The image is not what the archive is for",
        ErrorKind::UnknownClass => "The archive does not have this class",
        ErrorKind::UnknownSource => "The archive does not have this source",
        ErrorKind::UnknownPacs => "This server asks no such PACS",
        ErrorKind::NotFound => "Not found",
        ErrorKind::PixelsNotKept => "The archive does not keep these pixels",
        ErrorKind::SpaceMismatch => "The vector is of another space",
        ErrorKind::WrongDimension => "The vector has another length",
        ErrorKind::Conflict => "It does not go with what the archive has",
        ErrorKind::Unauthorized => "A valid API key is needed",
        ErrorKind::InsufficientScope => "The API key does not permit this",
        ErrorKind::ForbiddenOrigin => "Requests from this origin are refused",
        ErrorKind::NotAcceptable => "This is not given in a form that the client takes",
        ErrorKind::MethodNotAllowed => "This method is not allowed here",
        ErrorKind::Overloaded => "The server is busy",
        ErrorKind::RateLimited => "Too many requests",
        ErrorKind::StorageFull => "The storage is full",
        ErrorKind::Unavailable => "Not available at the moment",
        ErrorKind::PacsFailed => "The PACS does not answer as it should",
        ErrorKind::ShardsMissing => "A part of the archive can't be searched",
        ErrorKind::Deadline => "The time for the request is used up",
        ErrorKind::VersionAhead => "This version is not served yet",
        ErrorKind::Damaged | ErrorKind::Internal => "Something went wrong on the server",
    }
}

/// A fault of ours: nothing of it is told outside.
const fn opaque(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Damaged | ErrorKind::Internal)
}

impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        status(self.kind())
    }

    /// The status alone: [`finish`] writes the body, it knows the request's id.
    fn error_response(&self) -> HttpResponse<BoxBody> {
        HttpResponse::new(self.status_code())
    }
}

/// The answer for an error.
pub fn answer(kind: ErrorKind, detail: &str, request_id: &str) -> HttpResponse<BoxBody> {
    let shown = if opaque(kind) { ErrorKind::Internal } else { kind };
    let detail = if opaque(kind) {
        "the server's log has the cause under this request id"
    } else {
        detail
    };
    let problem = Problem {
        kind: format!("/problems/{}", shown.slug()),
        title: title(shown).to_owned(),
        status: status(shown).as_u16(),
        detail: detail.to_owned(),
        request_id: request_id.to_owned(),
    };
    let mut response = HttpResponse::build(status(shown));
    response
        .insert_header((header::CONTENT_TYPE, PROBLEM_JSON))
        .insert_header((header::CACHE_CONTROL, "no-store"));
    if retry(kind) {
        response.insert_header((header::RETRY_AFTER, RETRY_AFTER_SECONDS));
    }
    if kind == ErrorKind::Unauthorized {
        response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
    }
    response.body(serde_json::to_vec(&problem).expect("strings and a number are JSON"))
}

const fn retry(kind: ErrorKind) -> bool {
    matches!(
        status(kind),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// Gives every failed response its problem document, also those that the framework made, and logs faults.
/// Returns the slug with the response, for the log.
pub fn finish<B: MessageBody + 'static>(
    response: ServiceResponse<B>,
    request_id: &str,
    trace_id: &str,
) -> (ServiceResponse<BoxBody>, Option<&'static str>) {
    if !response.status().is_client_error() && !response.status().is_server_error() {
        return (response.map_into_boxed_body(), None);
    }
    // What became of each of several objects is said in their own terms (PS3.18, 10.5.3).
    if response.response().error().is_none() && is_data_set(response.headers()) {
        return (response.map_into_boxed_body(), None);
    }
    let (kind, detail) = match response.response().error() {
        Some(error) => of_error(error),
        None => of_status(response.status()),
    };
    if let Some(error) = response.response().error() {
        log_fault(error, kind, request_id, trace_id);
    }
    let mut problem = answer(kind, &detail, request_id);
    let ours = response.response().error().and_then(|error| error.as_error::<Error>());
    // A full storage is full until somebody makes room: when that may be is only said where it is known.
    let may_retry = retry(kind) || kind == ErrorKind::StorageFull;
    if let Some(seconds) = ours.and_then(Error::retry_after_s).filter(|_| may_retry) {
        problem.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    // The guard knows what a key lacks (RFC 6750, 3).
    if let Some(challenge) = response.headers().get(header::WWW_AUTHENTICATE) {
        problem
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge.clone());
    }
    // The framework knows which methods a route has (RFC 9110, 15.5.6).
    if let Some(allow) = response.headers().get(header::ALLOW) {
        problem.headers_mut().insert(header::ALLOW, allow.clone());
    } else if kind == ErrorKind::MethodNotAllowed {
        problem
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static(""));
    }
    (response.into_response(problem), Some(kind.slug()))
}

fn is_data_set(headers: &header::HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE);
    media_type.is_some_and(|media_type| media_type.as_bytes().starts_with(b"application/dicom+"))
}

/// Everything about a fault of ours goes to the log; what a client did wrong does not.
fn log_fault(error: &actix_web::Error, kind: ErrorKind, request_id: &str, trace_id: &str) {
    if !status(kind).is_server_error() {
        return;
    }
    let Some(error) = error.as_error::<Error>() else {
        tracing::error!(request_id, trace_id, problem = kind.slug(), error = %error, "request failed");
        return;
    };
    let mut causes = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        causes.push_str(if causes.is_empty() { "" } else { ": " });
        causes.push_str(&source.to_string());
        cause = source.source();
    }
    if opaque(kind) {
        tracing::error!(request_id, trace_id, problem = kind.slug(), error = %error, causes, "request failed");
    } else {
        tracing::warn!(request_id, trace_id, problem = kind.slug(), error = %error, causes, "request refused");
    }
}

/// What kind of failure a response is, if it is one.
pub fn kind_of(response: &HttpResponse<impl MessageBody>) -> Option<ErrorKind> {
    let status = response.status();
    let failed = status.is_client_error() || status.is_server_error();
    let told = response.error().is_none() && is_data_set(response.headers());
    let kind = || response.error().map_or_else(|| of_status(status), of_error).0;
    (failed && !told).then(kind)
}

/// What kind of failure an error of the framework is, and how to say it.
fn of_error(error: &actix_web::Error) -> (ErrorKind, String) {
    if let Some(error) = error.as_error::<Error>() {
        return (error.kind(), error.message().to_owned());
    }
    if let Some(error) = error.as_error::<JsonPayloadError>() {
        return of_json(error);
    }
    if let Some(QueryPayloadError::Deserialize(error)) = error.as_error::<QueryPayloadError>() {
        return (
            ErrorKind::InvalidRequest,
            format!("the query string: {}", without_value(&error.to_string())),
        );
    }
    if let Some(PathError::Deserialize(error)) = error.as_error::<PathError>() {
        return (
            ErrorKind::InvalidRequest,
            format!("the path: {}", without_value(&error.to_string())),
        );
    }
    of_status(error.as_response_error().status_code())
}

fn of_json(error: &JsonPayloadError) -> (ErrorKind, String) {
    match error {
        JsonPayloadError::OverflowKnownLength { limit, .. } | JsonPayloadError::Overflow { limit } => (
            ErrorKind::TooLarge,
            format!("the JSON body has more than `{limit}` bytes"),
        ),
        JsonPayloadError::ContentType => (
            ErrorKind::UnsupportedMedia,
            "send JSON with `Content-Type: application/json`".to_owned(),
        ),
        JsonPayloadError::Deserialize(error) => (
            ErrorKind::InvalidRequest,
            format!("the JSON body: {}", without_value(&error.to_string())),
        ),
        JsonPayloadError::Payload(error) => of_payload(error),
        _ => (ErrorKind::Internal, String::new()),
    }
}

/// What is wrong with a body that is read as it comes.
pub fn of_body(error: PayloadError) -> Error {
    let (kind, message) = of_payload(&error);
    Error::new(kind, message)
}

/// A body that could not be received.
fn of_payload(error: &PayloadError) -> (ErrorKind, String) {
    match error {
        PayloadError::Overflow => (ErrorKind::TooLarge, "the body is too large".to_owned()),
        PayloadError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            (ErrorKind::InvalidRequest, error.to_string())
        }
        PayloadError::EncodingCorrupted => (ErrorKind::InvalidRequest, "the body's encoding is broken".to_owned()),
        _ => (ErrorKind::InvalidRequest, "the body ends too early".to_owned()),
    }
}

/// What a broken form says.
pub fn of_multipart(error: MultipartError) -> Error {
    let invalid = |message: &str| Error::new(ErrorKind::InvalidRequest, message);
    match error {
        MultipartError::ContentTypeMissing | MultipartError::ContentTypeIncompatible => Error::new(
            ErrorKind::UnsupportedMedia,
            "send `multipart/form-data` with the file in the field `image`",
        ),
        MultipartError::ContentTypeParse => invalid("the `Content-Type` of the form can't be read"),
        MultipartError::BoundaryMissing => invalid("the form has no `boundary`, or a part does not begin with it"),
        MultipartError::ContentDispositionMissing | MultipartError::ContentDispositionNameMissing => {
            invalid("a part of the form has no `Content-Disposition: form-data` with a `name`")
        }
        MultipartError::Nested => invalid("a part of the form is itself `multipart`"),
        MultipartError::Incomplete => invalid("the form ends in the middle of a part"),
        MultipartError::Parse(_) => invalid("the headers of a part can't be read"),
        // The parser keeps little: what overflows is a line that should have been a boundary or a header.
        MultipartError::Payload(PayloadError::Overflow) => invalid("the form has no boundary where one should be"),
        MultipartError::Payload(error) => {
            let (kind, detail) = of_payload(&error);
            Error::new(kind, detail)
        }
        _ => invalid("the form can't be read"),
    }
}

/// Responses that the framework made without an error.
fn of_status(status: StatusCode) -> (ErrorKind, String) {
    let (kind, detail) = match status {
        StatusCode::NOT_FOUND => (ErrorKind::NotFound, "there is nothing at this path"),
        StatusCode::METHOD_NOT_ALLOWED => (
            ErrorKind::MethodNotAllowed,
            "the header `Allow` lists what this path takes",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => (ErrorKind::TooLarge, "the body is too large"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => (
            ErrorKind::UnsupportedMedia,
            "the media type of the body is not read here",
        ),
        status if status.is_client_error() => (ErrorKind::InvalidRequest, "the request can't be read"),
        _ => (ErrorKind::Internal, ""),
    };
    (kind, detail.to_owned())
}

/// A message of serde without the value that was sent: it may be a patient's number.
pub fn without_value(message: &str) -> String {
    const WITH_VALUES: [&str; 3] = ["invalid type: ", "invalid value: ", "invalid length "];
    if !WITH_VALUES.iter().any(|start| message.starts_with(start)) {
        return message.to_owned();
    }
    // The value comes first and may itself hold the word.
    message.rsplit_once("expected ").map_or_else(
        || "a value of the wrong type".to_owned(),
        |(_, rest)| format!("expected {rest}"),
    )
}

/// Problems of every route below `/v1`.
const ALWAYS: &[ErrorKind] = &[
    ErrorKind::InvalidRequest,
    ErrorKind::Unauthorized,
    ErrorKind::InsufficientScope,
    ErrorKind::ForbiddenOrigin,
    ErrorKind::Overloaded,
    ErrorKind::RateLimited,
    ErrorKind::Internal,
];
/// Of those that take JSON.
const JSON: &[ErrorKind] = &[ErrorKind::TooLarge, ErrorKind::UnsupportedMedia];
/// Of those that take images and embed them.
const IMAGE: &[ErrorKind] = &[
    ErrorKind::MissingImage,
    ErrorKind::SeveralImages,
    ErrorKind::TooLarge,
    ErrorKind::TooManyPixels,
    ErrorKind::UnsupportedMedia,
    ErrorKind::InvalidImage,
    ErrorKind::ConstantImage,
    ErrorKind::Unavailable,
    ErrorKind::Deadline,
];
/// Of those that compare.
const SEARCH: &[ErrorKind] = &[
    ErrorKind::UnknownClass,
    ErrorKind::UnknownSource,
    ErrorKind::Unavailable,
    ErrorKind::ShardsMissing,
    ErrorKind::VersionAhead,
    ErrorKind::Deadline,
];
/// Of those that take images into the archive.
const ADMITTED: &[ErrorKind] = &[ErrorKind::OutOfScope, ErrorKind::BurnedInAnnotation];
/// Of those that name a class.
const CLASS: &[ErrorKind] = &[ErrorKind::UnknownClass];
/// Of those that take a vector.
const VECTOR: &[ErrorKind] = &[ErrorKind::WrongDimension, ErrorKind::SpaceMismatch];
/// Of those that take the space an answer was of.
const SPACE: &[ErrorKind] = &[ErrorKind::SpaceMismatch];
/// Of those that name an image or a patient.
const ID: &[ErrorKind] = &[ErrorKind::NotFound];
/// Of those that ask a PACS.
const PACS: &[ErrorKind] = &[ErrorKind::UnknownPacs, ErrorKind::NotFound, ErrorKind::PacsFailed];
/// Of those that show pixels.
const PIXELS: &[ErrorKind] = &[ErrorKind::PixelsNotKept, ErrorKind::Unavailable];
/// Of those that take DICOM objects over, each with its own outcome.
const STORE: &[ErrorKind] = &[
    ErrorKind::NotAcceptable,
    ErrorKind::MethodNotAllowed,
    ErrorKind::TooLarge,
    ErrorKind::UnsupportedMedia,
    ErrorKind::Unavailable,
    ErrorKind::StorageFull,
];
/// Of those that take one.
const STORE_ONE: &[ErrorKind] = &[
    ErrorKind::MethodNotAllowed,
    ErrorKind::TooLarge,
    ErrorKind::UnsupportedMedia,
    ErrorKind::InvalidImage,
    ErrorKind::Conflict,
    ErrorKind::Unavailable,
    ErrorKind::StorageFull,
];
/// Of those that have several forms.
const FORMS: &[ErrorKind] = &[ErrorKind::NotAcceptable];
/// Of those that may ask for too much at a time.
const SIZE: &[ErrorKind] = &[ErrorKind::TooLarge];
/// Of those that change the archive.
const WRITE: &[ErrorKind] = &[
    ErrorKind::MethodNotAllowed,
    ErrorKind::Conflict,
    ErrorKind::Unavailable,
    ErrorKind::StorageFull,
];

/// Of those that wait for the storage.
const STORAGE: &[ErrorKind] = &[ErrorKind::Unavailable, ErrorKind::Deadline];

/// Names sets of problems for the description of the API.
macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident: $($set:ident)*;)+) => {$(
        $(#[$doc])*
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                documented(&[ALWAYS, $($set),*].concat())
            }
        }
    )+};
}
problems! {
    /// What a read of no particular image can answer.
    Reading: ;
    /// What an archive's papers can answer.
    ReadingPapers: STORAGE;
    /// What a read of an image can answer.
    ReadingImage: ID;
    /// What a picture can answer.
    Showing: ID PIXELS;
    /// What a search of DICOMweb can answer.
    Listing: FORMS;
    /// What the metadata of DICOMweb can answer.
    Describing: FORMS ID STORAGE SIZE;
    /// What a picture or an instance of DICOMweb can answer.
    Retrieving: FORMS ID PIXELS STORAGE SIZE;
    /// What embedding can answer.
    Embedding: IMAGE;
    /// What an explanation can answer.
    Explaining: IMAGE ID SPACE;
    /// What a search by an image can answer.
    SearchingByImage: IMAGE SEARCH;
    /// What a search by reference can answer.
    SearchingByReference: IMAGE JSON SEARCH PACS;
    /// What a search by ids can answer.
    SearchingById: JSON SEARCH ID;
    /// What a search by a vector can answer.
    SearchingByVector: JSON SEARCH VECTOR;
    /// What adding can answer.
    Adding: IMAGE ADMITTED WRITE;
    /// What STOW-RS can answer beside what became of each object.
    Storing: STORE;
    /// What one object sent by a peer can answer.
    StoringOne: STORE_ONE;
    /// What relabelling can answer.
    Changing: JSON ID WRITE;
    /// What a report about a label can answer.
    Reporting: JSON ID CLASS WRITE STORAGE;
    /// What a list of reports can answer.
    ListingReports: WRITE STORAGE;
    /// What deleting an image can answer.
    Deleting: ID WRITE;
    /// What deleting a patient can answer.
    DeletingPatient: JSON ID WRITE;
}

/// One response per status, which lists the types that it may have.
fn documented(kinds: &[ErrorKind]) -> BTreeMap<String, RefOr<Response>> {
    let mut slugs: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for kind in kinds {
        let of_status = slugs.entry(status(*kind).as_u16()).or_default();
        if !of_status.contains(&kind.slug()) {
            of_status.push(kind.slug());
        }
    }
    let content = || Content::new(Some(Ref::from_schema_name("Problem")));
    slugs
        .into_iter()
        .map(|(status, slugs)| {
            let response = ResponseBuilder::new()
                .description(format!("Problem of type `{}`", slugs.join("`, `")))
                .content(PROBLEM_JSON, content());
            (status.to_string(), response.build().into())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serde_messages_lose_the_value_and_keep_the_names() {
        let cases = [
            (
                "unknown field `colour`, expected one of `k`, `vote`",
                "unknown field `colour`, expected one of `k`, `vote`",
            ),
            (
                "missing field `ids` at line 1 column 2",
                "missing field `ids` at line 1 column 2",
            ),
            (
                "invalid type: integer `12345678`, expected a string at line 1 column 3",
                "expected a string at line 1 column 3",
            ),
            ("invalid type: string \"expected Smith\", expected u64", "expected u64"),
        ];
        for (message, shown) in cases {
            assert_eq!(without_value(message), shown);
        }
    }

    #[actix_web::test]
    async fn a_fault_of_ours_says_nothing() {
        for kind in [ErrorKind::Internal, ErrorKind::Damaged] {
            let response = answer(kind, "rows/ab12 at /srv/secret", "r1");
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let body = actix_web::body::to_bytes(response.into_body()).await.unwrap();
            let problem: Problem = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (problem.kind.as_str(), problem.request_id.as_str()),
                ("/problems/internal", "r1")
            );
            assert!(!problem.detail.contains("secret"));
        }
    }

    #[test]
    fn busy_answers_say_when_to_come_back_and_refused_keys_how_to_send_one() {
        for kind in [ErrorKind::Overloaded, ErrorKind::Unavailable, ErrorKind::VersionAhead] {
            assert!(
                answer(kind, "", "r").headers().contains_key(header::RETRY_AFTER),
                "{kind:?}"
            );
        }
        assert!(
            answer(ErrorKind::Unauthorized, "", "r")
                .headers()
                .contains_key(header::WWW_AUTHENTICATE)
        );
    }
}
