//! Which format a file has, by its bytes, never by its name.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// A format that is read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Portable Network Graphics.
    Png,
    /// JFIF, Exif or bare JPEG.
    Jpeg,
    /// DICOM Part 10 file.
    Dicom,
}

impl Format {
    /// `png`, `jpeg` or `dicom`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::Dicom => "dicom",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `DICM` after the 128 bytes of the preamble (PS3.10, 7.1).
const DICOM_PREFIX_AT: usize = 128;

/// First bytes of formats that people try, so that the refusal can name them.
const KNOWN_UNREAD: [(&[u8], &str); 9] = [
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"RIFF", "WebP"),
    (b"%PDF", "PDF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"<svg", "SVG"),
    (b"PK\x03\x04", "ZIP"),
];

/// Tells the format.
///
/// DICOM is looked for first: scanners write files whose preamble is a TIFF header (PS3.10, 7.1).
///
/// # Errors
/// `UnsupportedMedia` for anything else.
pub fn sniff(bytes: &[u8]) -> Result<Format> {
    let unsupported = |what: String| Err(Error::new(ErrorKind::UnsupportedMedia, what));
    if bytes.get(DICOM_PREFIX_AT..DICOM_PREFIX_AT + 4) == Some(b"DICM") {
        return Ok(Format::Dicom);
    }
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Ok(Format::Png);
    }
    if bytes.starts_with(b"\xff\xd8\xff") {
        return Ok(Format::Jpeg);
    }
    if bytes.is_empty() {
        return unsupported("the file is empty".into());
    }
    match KNOWN_UNREAD.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, name)) => unsupported(format!("`{name}` is not read: PNG, JPEG or DICOM")),
        None => unsupported("the file is neither PNG, JPEG nor DICOM".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_decides() {
        let mut dual = b"II*\0".to_vec();
        dual.resize(DICOM_PREFIX_AT, 0);
        dual.extend_from_slice(b"DICM\x02\0");
        let check = |bytes: &[u8], expected: Option<Format>| assert_eq!(sniff(bytes).ok(), expected);
        check(&dual, Some(Format::Dicom));
        check(b"\x89PNG\r\n\x1a\nrest", Some(Format::Png));
        check(b"\xff\xd8\xff\xe0", Some(Format::Jpeg));
        check(b"\x89PNG", None);
        check(b"\xff\xd8", None);
    }

    #[test]
    fn refusals_name_the_format() {
        let check = |bytes: &[u8], word: &str| {
            let error = sniff(bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnsupportedMedia);
            assert!(error.message().contains(word), "{error}");
        };
        check(b"", "empty");
        check(b"GIF89a", "GIF");
        check(b"<svg xmlns=", "SVG");
        check(b"hello", "neither");
        check(b"II*\0", "TIFF");
    }
}
