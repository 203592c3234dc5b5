//! JPEG-LS (ITU-T T.87 | ISO/IEC 14495-1), lossless and near-lossless, as DICOM carries it.
//!
//! Read in this order: `header` walks the segments up to a scan; `scan` says which components it holds and puts their
//! lines in place; `coder` decodes a line, with `context` for what it learns, `parameters` for what it is told and
//! `bits` for what it reads. Nothing is coded twice, so time and memory are those of the size that the header announces.

mod bits;
mod coder;
mod context;
mod header;
mod parameters;
mod scan;
#[cfg(test)]
mod tests;

pub use self::header::Header;
use self::header::Walk;
use crate::error::{Error, ErrorKind, Result};

/// Samples in the order of pixels, components interleaved, whatever their precision. Callers read the [`Header`] before and
/// hold it against their limits. What follows the last component is not looked at, not even for an end marker.
///
/// # Errors
/// `InvalidImage` when it is broken or cut off, `UnsupportedMedia` as [`Header::read`] has it.
pub fn decode(bytes: &[u8]) -> Result<(Header, Vec<u16>)> {
    let mut walk = Walk::new(bytes)?;
    let mut scan = walk.next_scan()?;
    let header = walk.header()?;
    let mut samples = vec![0; header.width as usize * header.height as usize * header.ids.len()];
    let mut missing: Vec<usize> = (0..header.ids.len()).collect();
    loop {
        let before = missing.len();
        missing.retain(|place| !scan.components.contains(place));
        if before - missing.len() < scan.components.len() {
            return Err(invalid("a component is coded twice"));
        }
        let coded = scan.decode(walk.rest(), &header, &mut samples)?;
        if missing.is_empty() {
            return Ok((header, samples));
        }
        walk.skip(coded);
        scan = walk.next_scan()?;
    }
}

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidImage, format!("broken JPEG-LS: {what}"))
}

fn unsupported(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::UnsupportedMedia, what)
}
