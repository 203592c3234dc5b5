//! `multipart/related` answers: one part after the other, each made when it is its turn.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};

use super::part10::EXPLICIT_LITTLE_ENDIAN;
use crate::error::{Error, Result};

/// Patients' pixels stay in no cache.
pub const UNCACHED: (header::HeaderName, HeaderValue) =
    (header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));

/// A body of parts of one media type. What fails in the middle breaks the connection off, so that nobody takes the rest for the whole.
pub fn related(
    status: StatusCode,
    media: &'static str,
    parts: impl Stream<Item = Result<Bytes>> + 'static,
) -> HttpResponse {
    let boundary = uuid::Uuid::new_v4().simple().to_string();
    let content_type = format!("multipart/related; type=\"{media}\"; boundary={boundary}");
    let head = format!("--{boundary}\r\nContent-Type: {media}; transfer-syntax={EXPLICIT_LITTLE_ENDIAN}\r\n\r\n");
    let end = Bytes::from(format!("--{boundary}--\r\n"));
    let head = Bytes::from(head);
    let parts = parts.flat_map(move |part| {
        let pieces: Vec<Result<Bytes>> = match part {
            Ok(part) => vec![Ok(head.clone()), Ok(part), Ok(Bytes::from_static(b"\r\n"))],
            Err(error) => vec![Err(error)],
        };
        stream::iter(pieces)
    });
    let body = parts.chain(stream::once(std::future::ready(Ok::<_, Error>(end))));
    HttpResponse::build(status)
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header(UNCACHED)
        .streaming(body)
}

/// A single part as the whole body.
pub fn single(media: &'static str, part: Bytes) -> HttpResponse {
    let content_type = format!("{media}; transfer-syntax={EXPLICIT_LITTLE_ENDIAN}");
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header(UNCACHED)
        .body(part)
}
