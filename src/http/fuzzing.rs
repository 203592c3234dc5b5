//! The readers of requests, for fuzz targets: what is private otherwise, with what must hold whatever comes.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, Uri, header};
use bytes::Bytes;
use futures_util::stream;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::access::Credentials;
use super::dicom_web::{Part, Related};
use super::guard::{Asked, Policy};
use super::upload::{self, FromParts};
use super::wire::{
    ById, ByReference, ByVector, EmbedForm, NewFeedback, NewImage, NewLabel, PatientToDelete, SearchForm,
};
use crate::error::Result;

/// Most bytes of a file in a form.
const FILE_BYTES_MAX: usize = 64 << 10;
/// Most bytes of a part of STOW-RS: small, so that larger ones are met.
const PART_BYTES_MAX: usize = 4 << 10;
/// The key that lets in.
pub const KEY: &str = "a-key-that-nobody-guesses";

/// Reads a body as the forms with images do, cut into pieces of `step` bytes, at least one.
///
/// # Panics
/// Where a file is taken that is empty, or larger than the limit.
pub fn form(content_type: &[u8], body: &[u8], step: usize) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(content_type) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime without I/O needs nothing of the machine");
    runtime.block_on(async {
        read::<SearchForm>(&headers, body, step).await;
        read::<NewImage>(&headers, body, step).await;
        read::<EmbedForm>(&headers, body, step).await;
    });
}

/// Reads a body as STOW-RS does, cut into pieces of `step` bytes, at least one.
///
/// # Panics
/// Where a part that is taken is larger than the limit, or is nowhere in the body.
pub fn related(content_type: &[u8], body: &[u8], step: usize) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(content_type) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    let pieces = body.chunks(step.max(1));
    let pieces: Vec<_> = pieces.map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let Ok(mut parts) = Related::new(&headers, stream::iter(pieces), PART_BYTES_MAX) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime without I/O needs nothing of the machine");
    runtime.block_on(async {
        let mut bytes = 0;
        while let Ok(Some(part)) = parts.next().await {
            if let Part::Whole(part) = part {
                assert!(part.len() <= PART_BYTES_MAX);
                assert!(part.is_empty() || memchr::memmem::find(body, &part).is_some());
                bytes += part.len();
            }
        }
        assert!(bytes <= body.len(), "no byte is in two parts");
    });
}

async fn read<T: FromParts>(headers: &HeaderMap, body: &[u8], step: usize) {
    let pieces = body.chunks(step.max(1));
    let pieces: Vec<_> = pieces.map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let parts = upload::read(headers, stream::iter(pieces), T::FIELDS, T::IMAGES_MAX, FILE_BYTES_MAX).await;
    if let Ok(parts) = parts {
        let sizes = parts.image_sizes();
        assert!((1..=T::IMAGES_MAX).contains(&sizes.len()));
        assert!(sizes.iter().all(|size| (1..=FILE_BYTES_MAX).contains(size)));
        let _ = T::from_parts(parts);
    }
}

/// Asks a server with a key for something that is not open. Each line is a header, `name: value`.
///
/// # Panics
/// Where it is let in, and none of the lines has the key.
pub fn headers(lines: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').take(100) {
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = (&line[..at], line[at..].strip_prefix(b":").unwrap_or_default());
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_bytes(value.trim_ascii()),
        ) {
            headers.append(name, value);
        }
    }
    let credentials = Credentials::open(Some(KEY), None).expect("the key is one");
    for loopback in [false, true] {
        let policy = Policy {
            credentials: credentials.clone(),
            loopback,
            port: 8000,
            scheme: "http://",
        };
        let uri = Uri::from_static("/v1/archive");
        for method in [Method::GET, Method::POST] {
            let asked = Asked {
                method: &method,
                uri: &uri,
                pattern: Some("/v1/archive"),
                headers: &headers,
            };
            if let Ok(holder) = policy.check(asked, Timestamp::UNIX_EPOCH) {
                assert!(holder.is_some(), "let in by nobody's key");
                let has_key = lines.windows(KEY.len()).any(|part| part == KEY.as_bytes());
                assert!(has_key, "let in without the key");
            }
        }
    }
}

/// Reads a body as each of the endpoints that take JSON does.
pub fn asks(body: &[u8]) {
    check::<ById>(body, |ask| ask.ids().and(ask.options.wanted().map(drop)));
    check::<ByVector>(body, |ask| ask.space().and(ask.options.wanted().map(drop)));
    check::<ByReference>(body, |ask| ask.referenced().and(ask.region()).map(drop));
    check::<NewLabel>(body, |label| label.parts().map(drop));
    check::<NewFeedback>(body, |report| report.parts().map(drop));
    check::<PatientToDelete>(body, |_| Ok(()));
}

fn check<T: DeserializeOwned>(body: &[u8], read: impl Fn(T) -> Result<()>) {
    if let Ok(ask) = serde_json::from_slice(body) {
        let _ = read(ask);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_good_passes() {
        form(
            b"multipart/form-data; boundary=X",
            b"--X\r\ncontent-disposition: form-data; name=\"image\"\r\n\r\nx\r\n--X--\r\n",
            3,
        );
        headers(format!("x-api-key: {KEY}\nauthorization: Bearer x").as_bytes());
        headers(b"authorization: Bearer x\nhost: 127.0.0.1:8000\n:\n\n\xff: \xff");
        related(
            b"multipart/related; boundary=\"a;b\"",
            b"--a;b\r\ncontent-type: application/dicom\r\n\r\nx\r\n--a;b--",
            3,
        );
        asks(br#"{"ids": ["0"]}"#);
    }
}
