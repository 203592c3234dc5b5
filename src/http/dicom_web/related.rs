//! `multipart/related`, as senders of DICOM write it: read as a stream, one part in memory at a time.

use actix_multipart::Multipart;
use actix_web::error::PayloadError;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use crate::domain::MediaType;
use crate::error::{Error, ErrorKind, Result};
use crate::http::problem;
use crate::http::upload::collect;

/// Most parts of a body: a study of thousands of slices comes in one.
pub const PARTS_MAX: usize = 20_000;

/// The parts of a body.
pub struct Related {
    parts: Multipart,
    part_bytes_max: usize,
    count: usize,
}

/// A part.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole(Bytes),
    /// It is larger than a file may be, and was not kept.
    TooLarge,
}

impl Related {
    /// Reads a body of DICOM files, each of at most so many bytes.
    ///
    /// # Errors
    /// `UnsupportedMedia` for another media type, of the body or by `type` of its parts; `InvalidRequest` without a boundary.
    pub fn new<S>(headers: &HeaderMap, body: S, part_bytes_max: usize) -> Result<Self>
    where
        S: Stream<Item = Result<Bytes, PayloadError>> + 'static,
    {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = boundary(content_type.unwrap_or_default())?;
        // The parser refuses a `type` that is not in quotes: it gets what it needs and nothing else.
        let clean = HeaderValue::from_str(&format!("multipart/related; boundary=\"{boundary}\""));
        let mut of_parser = HeaderMap::new();
        of_parser.insert(header::CONTENT_TYPE, clean.map_err(|_| no_boundary())?);
        Ok(Self {
            parts: Multipart::new(&of_parser, body),
            part_bytes_max,
            count: 0,
        })
    }

    /// The next part; none at the end.
    ///
    /// # Errors
    /// `InvalidRequest` for a body that is broken or cut off, or has more than [`PARTS_MAX`] parts.
    pub async fn next(&mut self) -> Result<Option<Part>> {
        let Some(field) = self.parts.next().await else {
            return Ok(None);
        };
        let mut field = field.map_err(problem::of_multipart)?;
        self.count += 1;
        if self.count > PARTS_MAX {
            let message = format!("the body has more than `{PARTS_MAX}` parts");
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        let expected = field.headers().get(header::CONTENT_LENGTH);
        let expected = expected.and_then(|length| length.to_str().ok()?.parse().ok());
        match collect(&mut field, self.part_bytes_max, expected.unwrap_or(0)).await? {
            Some(bytes) => Ok(Some(Part::Whole(bytes))),
            None => {
                // Read to its end, so that the next one begins where it does.
                while let Some(chunk) = field.next().await {
                    chunk.map_err(problem::of_multipart)?;
                }
                Ok(Some(Part::TooLarge))
            }
        }
    }
}

/// The boundary of a `Content-Type` of DICOM files.
fn boundary(content_type: &str) -> Result<&str> {
    let media = MediaType::parse(content_type);
    if !media.is("multipart/related") {
        return Err(other_type("send `multipart/related; type=\"application/dicom\"`"));
    }
    // Metadata and pixels apart (PS3.18, 8.7.3) are not put together here.
    let is_other = |parts: &str| !parts.eq_ignore_ascii_case("application/dicom");
    if media.parameter("type").is_some_and(is_other) {
        return Err(other_type("the parts have to be `application/dicom`"));
    }
    media.boundary().ok_or_else(no_boundary)
}

fn other_type(message: &str) -> Error {
    Error::new(ErrorKind::UnsupportedMedia, message)
}

fn no_boundary() -> Error {
    Error::new(
        ErrorKind::InvalidRequest,
        "the `Content-Type` names no usable `boundary`",
    )
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use proptest::prelude::*;

    use super::*;

    const QUOTED: &str = r#"multipart/related; type="application/dicom"; boundary="X""#;

    #[test]
    fn only_bodies_of_dicom_files_have_a_boundary() {
        for (content_type, found) in [
            (QUOTED, Ok("X")),
            ("multipart/related; boundary=X", Ok("X")),
            ("multipart/related; type=Application/DICOM; boundary=\"a;b\"", Ok("a;b")),
            (
                "multipart/related; type=\"application/dicom\"",
                Err(ErrorKind::InvalidRequest),
            ),
            ("multipart/form-data; boundary=X", Err(ErrorKind::UnsupportedMedia)),
            (
                "multipart/related; type=\"application/dicom+json\"; boundary=X",
                Err(ErrorKind::UnsupportedMedia),
            ),
            ("application/dicom", Err(ErrorKind::UnsupportedMedia)),
            ("", Err(ErrorKind::UnsupportedMedia)),
        ] {
            assert_eq!(
                boundary(content_type).map_err(|error| error.kind()),
                found,
                "{content_type}"
            );
        }
    }

    async fn read(content_type: &str, body: &[u8], step: usize) -> Result<Vec<Part>> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
        let chunks: Vec<_> = body
            .chunks(step)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        let mut related = Related::new(&headers, stream::iter(chunks), 100)?;
        let mut parts = Vec::new();
        while let Some(part) = related.next().await? {
            parts.push(part);
        }
        Ok(parts)
    }

    fn body(contents: &[&[u8]]) -> Vec<u8> {
        let mut body = Vec::new();
        for content in contents {
            body.extend_from_slice(b"--X\r\nContent-Type: application/dicom\r\n\r\n");
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--X--");
        body
    }

    fn whole(content: &[u8]) -> Part {
        Part::Whole(Bytes::copy_from_slice(content))
    }

    #[actix_web::test]
    async fn parts_are_read_and_one_that_is_too_large_costs_only_itself() {
        let large = [7; 101];
        for step in [1, 7, 1000] {
            let parts = read(QUOTED, &body(&[b"one", &large, b"", b"--X"]), step).await.unwrap();
            assert_eq!(
                parts,
                [whole(b"one"), Part::TooLarge, whole(b""), whole(b"--X")],
                "{step}"
            );
        }
        // As the Python client begins, with a preamble and an epilogue.
        let around = [b"\r\n".as_slice(), &body(&[b"one"]), b"\r\nbye"].concat();
        assert_eq!(read(QUOTED, &around, 5).await.unwrap(), [whole(b"one")]);
    }

    #[actix_web::test]
    async fn broken_bodies_are_refused() {
        let good = body(&[b"one", b"two"]);
        for cut in [good.len() - 3, good.len() - 10, 30, 10] {
            let refused = read(QUOTED, &good[..cut], 8).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidRequest, "cut at {cut}");
        }
        for bad in [
            &b"--X\nContent-Type: application/dicom\n\none\n--X--"[..],
            b"no boundary at all",
            b"",
        ] {
            assert!(read(QUOTED, bad, 8).await.is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_content_type_is_read(text in "[ -~]{0,120}") {
            let _ = boundary(&text);
        }

        /// Whatever is in the parts and however the body arrives, the parts come out as they went in.
        #[test]
        fn parts_come_out_as_they_went_in(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..5),
            step in 1_usize..50,
        ) {
            let delimiter = |content: &Vec<u8>| content.windows(4).any(|window| window == b"\r\n--");
            prop_assume!(!contents.iter().any(delimiter));
            let slices: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
            let parts = actix_web::rt::System::new().block_on(read(QUOTED, &body(&slices), step)).unwrap();
            let expected: Vec<Part> = slices.iter().map(|content| whole(content)).collect();
            prop_assert_eq!(parts, expected);
        }
    }
}
