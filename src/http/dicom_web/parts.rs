//! `multipart/related` answers: one part after the other, each made when it is its turn.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use crate::error::Result;
use crate::http::State;
use crate::http::sending::Held;

/// Patients' pixels stay in no cache.
pub const UNCACHED: (header::HeaderName, HeaderValue) =
    (header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));

/// What parts of stored values are, behind their media type.
pub const STORED: &str = "; transfer-syntax=1.2.840.10008.1.2.1";

/// A body of parts of one media type, `parameters` of which are said of each part. What fails in the middle breaks the connection off, so that nobody takes the rest for the whole.
pub fn related(
    state: &State,
    status: StatusCode,
    media: &'static str,
    parameters: &'static str,
    parts: impl Stream<Item = Result<Held>> + 'static,
) -> HttpResponse {
    let boundary = uuid::Uuid::new_v4().simple().to_string();
    let content_type = format!("multipart/related; type=\"{media}\"; boundary={boundary}");
    let head = format!("--{boundary}\r\nContent-Type: {media}{parameters}\r\n\r\n");
    let end = Bytes::from(format!("--{boundary}--\r\n"));
    let head = Bytes::from(head);
    let parts = parts.flat_map(move |part| {
        let around = match part {
            Ok(part) => vec![
                Ok(Held::small(head.clone())),
                Ok(part),
                Ok(Held::small(Bytes::from_static(b"\r\n"))),
            ],
            Err(error) => vec![Err(error)],
        };
        stream::iter(around)
    });
    let body = parts.chain(stream::once(std::future::ready(Ok(Held::small(end)))));
    HttpResponse::build(status)
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header(UNCACHED)
        .streaming(state.pieces(body))
}

/// A single part as the whole body.
pub fn single(state: &State, media: &'static str, part: Held) -> HttpResponse {
    let content_type = format!("{media}{STORED}");
    let mut answer = HttpResponse::Ok();
    answer
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header(UNCACHED);
    state.one(answer, part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::dicom_web::part10::EXPLICIT_LITTLE_ENDIAN;

    #[test]
    fn stored_values_are_explicit_little_endian() {
        assert_eq!(STORED, format!("; transfer-syntax={EXPLICIT_LITTLE_ENDIAN}"));
    }
}
