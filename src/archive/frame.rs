//! How objects with a small head begin: eight bytes that say what it is, u32 LE length of the header, the header as JSON, filled up with spaces to a
//! multiple of 64 from the start. The content follows.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

const ALIGN: usize = 64;
const HEADER_BYTES_MAX: usize = 1 << 20;

/// The beginning of an object, with room for `content` bytes after it.
///
/// # Errors
/// `Internal` when the header can't be written as JSON.
pub(super) fn begin(magic: &[u8; 8], header: &impl Serialize, content: usize) -> Result<Vec<u8>> {
    let text = serde_json::to_vec(header).map_err(|error| {
        Error::with_source(
            ErrorKind::Internal,
            "an object's header can't be written as JSON",
            error,
        )
    })?;
    let start = (magic.len() + 4 + text.len()).next_multiple_of(ALIGN);
    let mut bytes = Vec::with_capacity(start + content);
    bytes.extend(magic);
    bytes.extend(((start - magic.len() - 4) as u32).to_le_bytes());
    bytes.extend(text);
    bytes.resize(start, b' ');
    Ok(bytes)
}

/// The header of the object `name`, and where its content begins.
///
/// # Errors
/// `Damaged` when it is not such an object; `Unavailable` when its header says a later `format` than this one.
pub(super) fn read<H: DeserializeOwned>(name: &str, magic: &[u8; 8], format: u32, bytes: &[u8]) -> Result<(H, usize)> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let damaged = || Error::new(ErrorKind::Damaged, format!("`{name}` is not what it should be"));
    let rest = bytes.strip_prefix(magic).ok_or_else(damaged)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
    let length = u32::from_le_bytes(*length) as usize;
    let header = rest
        .get(..length)
        .filter(|_| length <= HEADER_BYTES_MAX)
        .ok_or_else(damaged)?;
    let found: Format = serde_json::from_slice(header).map_err(|_| damaged())?;
    if found.format == 0 {
        return Err(damaged());
    }
    if found.format > format {
        let message = format!(
            "`{name}` has format {}, this program reads format {format}: use a newer medsearch",
            found.format
        );
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    let header = serde_json::from_slice(header).map_err(|_| damaged())?;
    Ok((header, magic.len() + 4 + length))
}
