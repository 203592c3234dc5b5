//! Forms with images, read as a stream into bounded memory.

use std::cell::Cell;
use std::rc::Rc;

use actix_multipart::{Field, Multipart};
use actix_web::dev::Payload;
use actix_web::error::PayloadError;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{FromRequest, HttpRequest, web};
use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;
use futures_util::{Stream, StreamExt};
use tokio::sync::OwnedSemaphorePermit;

use super::{State, problem};
use crate::error::{Error, ErrorKind, Result};

/// The field that carries a file.
pub const IMAGE: &str = "image";
/// Most bytes of a form besides its files: text fields, headers, boundaries.
pub const FORM_BYTES_MAX: usize = 1 << 20;
/// Most bytes of a text field.
const TEXT_BYTES_MAX: usize = 4096;
/// Most text fields of a form; a list of classes comes as one field each.
const TEXTS_MAX: usize = 128;
/// Longest part of a client's word that is repeated in a message.
const ECHO_CHARACTERS_MAX: usize = 40;

/// What an endpoint reads from a form.
pub trait FromParts: Sized {
    /// The text fields it knows.
    const FIELDS: &'static [&'static str];
    /// Most files in `image`.
    const IMAGES_MAX: usize = 1;

    /// Checks the fields.
    ///
    /// # Errors
    /// `InvalidRequest` and its relatives, naming the field.
    fn from_parts(parts: Parts) -> Result<Self>;
}

/// The files and texts of a form, each within its limit.
#[derive(Debug, Default)]
pub struct Parts {
    images: Vec<Bytes>,
    texts: Vec<(&'static str, String)>,
}

impl Parts {
    /// All files, at least one.
    pub fn images(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.images)
    }

    /// The bytes of each file.
    pub fn image_sizes(&self) -> Vec<usize> {
        self.images.iter().map(Bytes::len).collect()
    }

    /// The only file.
    ///
    /// # Errors
    /// `MissingImage` when there is none.
    pub fn image(&mut self) -> Result<Bytes> {
        self.images.pop().ok_or_else(missing_image)
    }

    /// A field that comes at most once; an empty one counts as absent, as browsers send empty inputs.
    ///
    /// # Errors
    /// `InvalidRequest` when it comes more often.
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>> {
        let mut values = self.texts(name).into_iter();
        let value = values.next();
        if values.next().is_some() {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("the field `{name}` comes more than once"),
            ));
        }
        Ok(value)
    }

    /// A field that may be repeated, without its empty values.
    pub fn texts(&mut self, name: &'static str) -> Vec<String> {
        let (found, rest) = std::mem::take(&mut self.texts)
            .into_iter()
            .partition(|(field, _)| *field == name);
        self.texts = rest;
        let found: Vec<(&str, String)> = found;
        found
            .into_iter()
            .map(|(_, text)| text)
            .filter(|text| !text.is_empty())
            .collect()
    }
}

/// The extractor: a form, checked. Holds its share of the upload memory until it is dropped.
pub struct Form<T> {
    /// What the endpoint asked for.
    pub value: T,
    _memory: OwnedSemaphorePermit,
}

impl<T: FromParts + 'static> FromRequest for Form<T> {
    type Error = Error;
    type Future = LocalBoxFuture<'static, Result<Self>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = payload.take();
        let admitted = admit(request);
        let headers = request.headers().clone();
        Box::pin(async move {
            let (memory, file_bytes_max) = admitted?;
            let parts = read(&headers, body, T::FIELDS, T::IMAGES_MAX, file_bytes_max).await?;
            Ok(Self {
                value: T::from_parts(parts)?,
                _memory: memory,
            })
        })
    }
}

/// Refuses what can be refused by the headers alone, and reserves memory for the rest.
fn admit(request: &HttpRequest) -> Result<(OwnedSemaphorePermit, usize)> {
    let state = request
        .app_data::<web::Data<State>>()
        .ok_or_else(|| Error::internal("no state in the application"))?;
    let file_bytes_max = state.settings.upload_bytes_max;
    let body_bytes_max = file_bytes_max.saturating_add(FORM_BYTES_MAX);
    let length = content_length(request.headers());
    if length.is_some_and(|length| length > body_bytes_max as u64) {
        return Err(too_large(file_bytes_max));
    }
    let saturation = state.engine.saturation();
    if saturation.queue_depth >= saturation.queue_max {
        return Err(Error::new(ErrorKind::Overloaded, "too many images wait for the model"));
    }
    let bytes = length
        .and_then(|length| usize::try_from(length).ok())
        .unwrap_or(body_bytes_max);
    Ok((state.reserve(bytes)?, file_bytes_max))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a whole form.
///
/// # Errors
/// `UnsupportedMedia` for another media type, `TooLarge`, `MissingImage`, `SeveralImages`, `InvalidImage` for an empty file,
/// `InvalidRequest` for everything else that is wrong with it.
pub(super) async fn read<S>(
    headers: &HeaderMap,
    body: S,
    fields: &'static [&'static str],
    images_max: usize,
    file_bytes_max: usize,
) -> Result<Parts>
where
    S: Stream<Item = Result<Bytes, PayloadError>> + 'static,
{
    only_form_data(headers)?;
    let body_bytes_max = file_bytes_max.saturating_add(FORM_BYTES_MAX);
    let over = Rc::new(Cell::new(false));
    let mut form = Multipart::new(headers, counted(body, body_bytes_max, Rc::clone(&over)));
    let parts = read_parts(&mut form, fields, images_max, file_bytes_max, content_length(headers)).await;
    if over.get() {
        Err(too_large(file_bytes_max))
    } else {
        parts
    }
}

/// The parser takes any `multipart/…`, and would then miss the field names.
fn only_form_data(headers: &HeaderMap) -> Result<()> {
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("multipart/form-data") {
        Ok(())
    } else {
        Err(problem::of_multipart(
            actix_multipart::MultipartError::ContentTypeIncompatible,
        ))
    }
}

/// Ends the stream with an error after `bytes_max`, whatever the headers promised.
fn counted<S>(body: S, bytes_max: usize, over: Rc<Cell<bool>>) -> impl Stream<Item = Result<Bytes, PayloadError>>
where
    S: Stream<Item = Result<Bytes, PayloadError>>,
{
    let mut received = 0usize;
    body.map(move |chunk| {
        let chunk = chunk?;
        received = received.saturating_add(chunk.len());
        if received > bytes_max {
            over.set(true);
            return Err(PayloadError::Overflow);
        }
        Ok(chunk)
    })
}

async fn read_parts(
    form: &mut Multipart,
    fields: &'static [&'static str],
    images_max: usize,
    file_bytes_max: usize,
    length: Option<u64>,
) -> Result<Parts> {
    let mut parts = Parts::default();
    while let Some(field) = form.next().await {
        let mut field = field.map_err(problem::of_multipart)?;
        let name = field.name().unwrap_or_default();
        if name == IMAGE {
            if parts.images.len() == images_max {
                let message = format!("the form has more than `{images_max}` files in the field `{IMAGE}`");
                return Err(Error::new(ErrorKind::SeveralImages, message));
            }
            // One file is nearly the whole body: with its length known it is read without copying it around.
            let expected = length
                .filter(|_| images_max == 1)
                .and_then(|length| usize::try_from(length).ok());
            let file = collect(&mut field, file_bytes_max, expected.unwrap_or(0)).await?;
            let file = file.ok_or_else(|| too_large(file_bytes_max))?;
            if file.is_empty() {
                return Err(Error::new(
                    ErrorKind::InvalidImage,
                    format!("the file in the field `{IMAGE}` is empty"),
                ));
            }
            parts.images.push(file);
        } else {
            let name = fields
                .iter()
                .copied()
                .find(|known| *known == name)
                .ok_or_else(|| unknown_field(name, fields))?;
            if parts.texts.len() == TEXTS_MAX {
                let message = format!("the form has more than `{TEXTS_MAX}` text fields");
                return Err(Error::new(ErrorKind::InvalidRequest, message));
            }
            let text = collect(&mut field, TEXT_BYTES_MAX, 0).await?.ok_or_else(|| {
                Error::new(
                    ErrorKind::TooLarge,
                    format!("the field `{name}` has more than `{TEXT_BYTES_MAX}` bytes"),
                )
            })?;
            let text = String::from_utf8(text.into())
                .ok()
                .filter(|text| !text.chars().any(char::is_control));
            let text = text.ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidRequest,
                    format!("the field `{name}` is not text in UTF-8 on one line"),
                )
            })?;
            parts.texts.push((name, text));
        }
    }
    if parts.images.is_empty() {
        Err(missing_image())
    } else {
        Ok(parts)
    }
}

/// The bytes of a part, or none when there are more than `bytes_max`.
///
/// # Errors
/// `InvalidRequest` for a part that is broken or cut off.
pub async fn collect(field: &mut Field, bytes_max: usize, expected: usize) -> Result<Option<Bytes>> {
    let mut bytes = BytesMut::with_capacity(expected.min(bytes_max));
    while let Some(chunk) = field.next().await {
        let chunk = chunk.map_err(problem::of_multipart)?;
        if bytes.len() + chunk.len() > bytes_max {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes.freeze()))
}

fn missing_image() -> Error {
    Error::new(
        ErrorKind::MissingImage,
        format!("the form has no file in the field `{IMAGE}`"),
    )
}

fn too_large(file_bytes_max: usize) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!("the upload has more than `{file_bytes_max}` bytes"),
    )
}

fn unknown_field(name: &str, fields: &[&str]) -> Error {
    let known = [&[IMAGE], fields].concat().join("`, `");
    Error::new(
        ErrorKind::InvalidRequest,
        format!("unknown field `{}`, expected `{known}`", echo(name)),
    )
}

/// A client's own word, short and harmless, to be repeated to it.
pub fn echo(text: &str) -> String {
    let safe = |character: char| {
        if character.is_control() || character == '`' {
            '?'
        } else {
            character
        }
    };
    let mut shown: String = text.chars().take(ECHO_CHARACTERS_MAX).map(safe).collect();
    if text.chars().nth(ECHO_CHARACTERS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use futures_util::stream;
    use proptest::prelude::*;

    use super::*;

    const FIELDS: &[&str] = &["k", "classes"];

    /// Names and contents of fields.
    type Form<'a> = &'a [(&'a str, &'a [u8])];

    /// A form of (name, content), cut into pieces of `step` bytes, read with small limits.
    async fn read_form(parts: &[(&str, &[u8])], images_max: usize, step: usize) -> Result<Parts> {
        let mut body = Vec::new();
        for (name, content) in parts {
            body.extend_from_slice(
                format!("--X\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n").as_bytes(),
            );
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--X--\r\n");
        read_body("multipart/form-data; boundary=X", body, images_max, step).await
    }

    async fn read_body(content_type: &str, body: Vec<u8>, images_max: usize, step: usize) -> Result<Parts> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
        let chunks: Vec<_> = body
            .chunks(step)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        read(&headers, stream::iter(chunks), FIELDS, images_max, 10_000).await
    }

    #[actix_web::test]
    async fn a_form_is_read_however_it_is_cut() {
        let file: Vec<u8> = (0..5000u32).map(|i| (i * 7 % 251) as u8).collect();
        for step in [1, 2, 3, 7, 1000, 100_000] {
            let form: [(&str, &[u8]); 4] = [("k", b"5"), ("image", &file), ("classes", b"A"), ("classes", b"B")];
            let mut parts = read_form(&form, 1, step).await.unwrap();
            assert_eq!(parts.image().unwrap(), file, "{step}");
            assert_eq!(parts.text("k").unwrap().as_deref(), Some("5"));
            assert_eq!(parts.texts("classes"), ["A", "B"]);
        }
    }

    #[actix_web::test]
    async fn what_is_wrong_with_a_form_is_named() {
        let file: &[u8] = b"file";
        let long = vec![b'x'; TEXT_BYTES_MAX + 1];
        let large = vec![0; 10_001];
        let many: Vec<(&str, &[u8])> = std::iter::repeat_n(("k", &b"1"[..]), TEXTS_MAX + 1).collect();
        let rows: &[(Form<'_>, ErrorKind, &str)] = &[
            (
                &[("file", file)],
                ErrorKind::InvalidRequest,
                "unknown field `file`, expected `image`, `k`, `classes`",
            ),
            (&[("k", b"1")], ErrorKind::MissingImage, "`image`"),
            (&[], ErrorKind::MissingImage, "`image`"),
            (
                &[("image", file), ("image", file)],
                ErrorKind::SeveralImages,
                "more than `1` files",
            ),
            (&[("image", b"")], ErrorKind::InvalidImage, "is empty"),
            (&[("image", &large)], ErrorKind::TooLarge, "more than `10000` bytes"),
            (&[("k", &long)], ErrorKind::TooLarge, "`k`"),
            (&[("k", b"\xff\xfe")], ErrorKind::InvalidRequest, "`k` is not text"),
            (&[("k", b"1\n2")], ErrorKind::InvalidRequest, "`k` is not text"),
            (&many, ErrorKind::InvalidRequest, "text fields"),
        ];
        for (form, kind, says) in rows {
            let error = read_form(form, 1, 64).await.unwrap_err();
            assert_eq!(error.kind(), *kind, "{error}");
            assert!(error.message().contains(says), "{error}");
        }
        let mut twice = read_form(&[("k", b"1"), ("k", b"2"), ("image", file)], 1, 64)
            .await
            .unwrap();
        assert_eq!(twice.text("k").unwrap_err().kind(), ErrorKind::InvalidRequest);
    }

    #[actix_web::test]
    async fn broken_bodies_are_refused() {
        let part = "--X\r\ncontent-disposition: form-data; name=\"image\"\r\n\r\nfile";
        let rows: &[(&str, String, ErrorKind)] = &[
            ("multipart/form-data", String::new(), ErrorKind::InvalidRequest),
            (
                "multipart/form-data; boundary=\"\"",
                String::new(),
                ErrorKind::InvalidRequest,
            ),
            (
                "multipart/mixed; boundary=X",
                format!("{part}\r\n--X--\r\n"),
                ErrorKind::UnsupportedMedia,
            ),
            ("image/png", "png".into(), ErrorKind::UnsupportedMedia),
            ("nonsense", "png".into(), ErrorKind::UnsupportedMedia),
            (
                "multipart/form-data; boundary=X",
                String::new(),
                ErrorKind::InvalidRequest,
            ),
            (
                "multipart/form-data; boundary=X",
                part.into(),
                ErrorKind::InvalidRequest,
            ),
            (
                "multipart/form-data; boundary=Y",
                format!("{part}\r\n--X--\r\n"),
                ErrorKind::InvalidRequest,
            ),
            (
                "multipart/form-data; boundary=X",
                "x".repeat(200_000),
                ErrorKind::InvalidRequest,
            ),
            (
                "multipart/form-data; boundary=X",
                "x".repeat(FORM_BYTES_MAX + 20_000),
                ErrorKind::InvalidRequest,
            ),
            (
                "multipart/form-data; boundary=X",
                "x\r\n".repeat(FORM_BYTES_MAX / 2),
                ErrorKind::TooLarge,
            ),
            (
                "multipart/form-data; boundary=X",
                "--X\r\nno-name: 1\r\n\r\nfile\r\n--X--\r\n".into(),
                ErrorKind::InvalidRequest,
            ),
            (
                "multipart/form-data; boundary=X",
                "--X\r\n: :\r\n\r\nfile\r\n--X--\r\n".into(),
                ErrorKind::InvalidRequest,
            ),
        ];
        for (content_type, body, kind) in rows {
            let error = read_body(content_type, body.clone().into_bytes(), 1, 1000)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), *kind, "{content_type} {error}");
        }
    }

    #[test]
    fn a_word_is_repeated_short_and_harmless() {
        assert_eq!(echo("a`b\nc"), "a?b?c");
        assert_eq!(echo(&"é".repeat(60)).chars().count(), ECHO_CHARACTERS_MAX + 1);
    }

    proptest! {
        /// No body makes the reader panic, hang or return a file that was not sent in full.
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(prop_oneof![
            Just(b"--X".to_vec()), Just(b"\r\n".to_vec()), Just(b"--".to_vec()), Just(b"\r\n\r\n".to_vec()),
            Just(b"content-disposition: form-data; name=\"image\"".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..20),
        ], 0..20), step in 1usize..40) {
            let runtime = actix_web::rt::Runtime::new().unwrap();
            let result = runtime.block_on(read_body("multipart/form-data; boundary=X", body.concat(), 1, step));
            if let Ok(mut parts) = result {
                prop_assert!(!parts.image().unwrap().is_empty());
            }
        }
    }
}
