//! The one file of a `multipart/related` answer (PS3.18, 8.6.1.2; RFC 2387).

use bytes::Bytes;

use crate::domain::MediaType;
use crate::error::{Error, ErrorKind, Result};

/// Bytes that an answer with one file may have besides it: boundaries and headers.
pub const OVERHEAD_BYTES_MAX: usize = 64 << 10;
/// Most blanks behind a boundary.
const BLANKS_MAX: usize = 200;
/// Longest headers of a part.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// What a DICOM file calls itself.
const DICOM: &str = "application/dicom";

/// The DICOM file in an answer: all of it for `application/dicom`, the first part of it for `multipart/related`. Its bytes are those of `body`, not copied.
///
/// # Errors
/// `PacsFailed` for another media type, a body that is not as its type says, and a part that is no DICOM file or ends too early.
pub fn dicom_file(content_type: &str, body: &Bytes) -> Result<Bytes> {
    let media = MediaType::parse(content_type);
    if media.is(DICOM) {
        return Ok(body.clone());
    }
    if !media.is("multipart/related") {
        return Err(failed(
            "answers with another media type than `multipart/related` and `application/dicom`",
        ));
    }
    let boundary = media
        .boundary()
        .ok_or_else(|| failed("answers `multipart/related` without a boundary"))?;
    first_part(boundary, body)
}

fn first_part(boundary: &str, body: &Bytes) -> Result<Bytes> {
    let dashed = format!("--{boundary}");
    let at_start = body.starts_with(dashed.as_bytes());
    let between = format!("\r\n{dashed}");
    // What comes before the first boundary is a preamble.
    let after = match at_start {
        true => dashed.len(),
        false => find(body, between.as_bytes(), 0)
            .filter(|at| *at <= OVERHEAD_BYTES_MAX)
            .map(|at| at + between.len())
            .ok_or_else(|| failed("answers `multipart/related` in which its boundary is not"))?,
    };
    if body[after..].starts_with(b"--") {
        return Err(failed("answers without a file"));
    }
    let line_end = find(body, b"\r\n", after).filter(|end| end - after <= BLANKS_MAX);
    let line_end = line_end.filter(|end| body[after..*end].iter().all(|byte| matches!(byte, b' ' | b'\t')));
    let head = line_end.ok_or_else(|| failed("answers with a part that does not begin"))?;
    // Without a header two line breaks follow each other.
    let head_end = find(&body[..body.len().min(head + HEAD_BYTES_MAX)], b"\r\n\r\n", head);
    let head_end = head_end.ok_or_else(|| failed("answers with a part whose headers do not end"))?;
    if content_type(&body[head..head_end]).is_some_and(|media| !media.is(DICOM)) {
        return Err(failed("answers with a part that is no `application/dicom`"));
    }
    let start = head_end + 4;
    let end = find(body, between.as_bytes(), start).ok_or_else(|| failed("answers with a file that ends too early"))?;
    Ok(body.slice(start..end))
}

/// The media type that the headers of a part say.
fn content_type(head: &[u8]) -> Option<MediaType<'_>> {
    let head = std::str::from_utf8(head).ok()?;
    head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_type = name.trim().eq_ignore_ascii_case("content-type");
        is_type.then(|| MediaType::parse(value))
    })
}

/// The first place of `wanted` from `from` on.
fn find(bytes: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    memchr::memmem::find(rest, wanted).map(|at| from + at)
}

fn failed(what: &str) -> Error {
    Error::new(ErrorKind::PacsFailed, format!("the PACS {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/related; type=\"application/dicom\"; boundary=B";

    fn read(content_type: &str, body: &[u8]) -> Result<Bytes> {
        dicom_file(content_type, &Bytes::copy_from_slice(body))
    }

    #[test]
    fn a_file_comes_in_any_spelling_of_its_type() {
        let body = b"--B\r\nContent-Type: application/dicom\r\nContent-Length: 4\r\n\r\nDICM\r\n--B--";
        for content_type in [
            TYPE,
            "Multipart/Related; BOUNDARY=\"B\"; type=application/dicom",
            "multipart/related;boundary=B",
            "multipart/related; type=\"application/dicom; transfer-syntax=*\"; start=\"<a>\"; boundary=B",
        ] {
            assert_eq!(read(content_type, body).unwrap(), "DICM", "{content_type}");
        }
        assert_eq!(read("application/dicom; transfer-syntax=1.2", b"DICM").unwrap(), "DICM");
        for body in [
            b"\r\n--B\r\ncontent-type: application/dicom; x=1\r\n\r\nDICM\r\n--B--\r\nepilogue".as_slice(),
            b"preamble\r\n--B \r\n\r\nDICM\r\n--B\r\n\r\nsecond\r\n--B--",
            b"--B\r\nX: y\r\n\r\nDICM\r\n--B--",
        ] {
            assert_eq!(read(TYPE, body).unwrap(), "DICM", "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_semicolon_in_quotes_is_part_of_a_boundary() {
        let body = b"--a;b\r\nContent-Type: application/dicom\r\n\r\nDICM\r\n--a;b--";
        let content_type = "multipart/related; start=\"<x;boundary=y>\"; boundary=\"a;b\"";
        assert_eq!(read(content_type, body).unwrap(), "DICM");
    }

    #[test]
    fn anything_else_is_refused() {
        let long = "x".repeat(201);
        for (content_type, body) in [
            ("", b"--B\r\n\r\nDICM\r\n--B--".as_slice()),
            ("text/html", b"<html>"),
            ("multipart/form-data; boundary=B", b"--B\r\n\r\nDICM\r\n--B--"),
            ("multipart/related", b"--B\r\n\r\nDICM\r\n--B--"),
            ("multipart/related; boundary=", b"--\r\n\r\nDICM\r\n----"),
            (&format!("multipart/related; boundary={long}"), b"x"),
            (TYPE, b""),
            (TYPE, b"--B"),
            (TYPE, b"--B--"),
            (TYPE, b"--B\r\n"),
            (TYPE, b"--B\r\n\r\nDICM"),
            (TYPE, b"--BC\r\n\r\nDICM\r\n--B--"),
            (TYPE, b"--B\r\n\r\nDICM\r\n--C--"),
            (TYPE, b"--C\r\n\r\nDICM\r\n--C--"),
            (TYPE, b"--B\r\nContent-Type: text/html\r\n\r\n<html>\r\n--B--"),
            (TYPE, b"--B\nContent-Type: application/dicom\n\nDICM\n--B--"),
        ] {
            let error = read(content_type, body).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PacsFailed, "{content_type}");
        }
        let mut endless = b"--B\r\n".to_vec();
        endless.extend(std::iter::repeat_n(b'h', HEAD_BYTES_MAX + 10));
        endless.extend(b"\r\n\r\nDICM\r\n--B--");
        assert!(read(TYPE, &endless).is_err());
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out(content in proptest::collection::vec(any::<u8>(), 0..300), boundary in "[a-zA-Z0-9'()+_,./:=?-]{1,80}") {
            let marked = format!("\r\n--{boundary}");
            prop_assume!(find(&content, marked.as_bytes(), 0).is_none());
            let mut body = format!("--{boundary}\r\nContent-Type: application/dicom\r\n\r\n").into_bytes();
            body.extend(&content);
            body.extend(format!("\r\n--{boundary}--").bytes());
            let found = read(&format!("multipart/related; type=\"application/dicom\"; boundary=\"{boundary}\""), &body);
            prop_assert_eq!(found.unwrap(), content);
        }

        #[test]
        fn nothing_makes_it_panic(content_type in ".{0,80}", body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&content_type, &body);
            let _ = read(TYPE, &[b"--B\r\n", body.as_slice()].concat());
        }
    }
}
