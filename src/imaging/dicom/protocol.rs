//! What parent and worker say to each other: frames of a length and bytes, bounded on both sides.
//!
//! The parent sends [`Settings`] once and then one file a frame; the worker answers [`READY`] once and then a [`Reply`],
//! followed by a frame of samples when it has decoded something. Neither trusts the other's lengths.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::imaging::decoder::Provenance;
use crate::imaging::limits::Limits;
use crate::imaging::raster::{Levels, Raster, Samples};

/// First frame of a worker that is ready.
pub const READY: &[u8] = b"medsearch decode worker 1";
/// Longest frame of words, as opposed to files and samples.
pub const WORDS_BYTES_MAX: usize = 64 << 10;
/// Longest message and longest attribute that is passed on, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// Bounds that a worker sets itself before it reads a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Bounds on a file.
    pub limits: Limits,
    /// Address space on top of what the program takes before it works.
    pub memory_bytes_max: u64,
    /// CPU seconds a file.
    pub seconds_max: u64,
}

/// Writes a frame and flushes.
///
/// # Errors
/// Those of the pipe.
pub fn write_frame(pipe: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    pipe.write_all(&length.to_le_bytes())?;
    pipe.write_all(bytes)?;
    pipe.flush()
}

/// Reads a frame; `None` when the pipe ends before one begins.
///
/// # Errors
/// Those of the pipe; `InvalidData` when the frame is longer than `bytes_max`.
pub fn read_frame(pipe: &mut impl Read, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match pipe.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
    }
    let mut bytes = vec![0; length];
    pipe.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

/// A worker's answer to a file.
#[derive(Serialize, Deserialize)]
enum Reply {
    Decoded {
        width: u32,
        height: u32,
        channels: u8,
        bits: u8,
        signed: bool,
        windowed: bool,
        inverted: bool,
        padding: Option<i32>,
        provenance: Box<Provenance>,
    },
    Refused {
        kind: String,
        message: String,
    },
}

/// Sends what became of a file.
///
/// # Errors
/// Those of the pipe.
pub fn write_outcome(pipe: &mut impl Write, outcome: Result<(Raster, Provenance)>) -> io::Result<()> {
    match outcome {
        Ok((raster, mut provenance)) => {
            provenance.drop_longer_than(TEXT_BYTES_MAX);
            let Levels {
                signed,
                windowed,
                inverted,
                padding,
            } = raster.levels();
            let reply = Reply::Decoded {
                width: raster.width(),
                height: raster.height(),
                channels: raster.samples().channels(),
                bits: raster.samples().bits(),
                signed,
                windowed,
                inverted,
                padding,
                provenance: Box::new(provenance),
            };
            write_frame(pipe, &serde_json::to_vec(&reply)?)?;
            match raster.samples() {
                Samples::Gray8(samples) | Samples::Rgb8(samples) => write_frame(pipe, samples),
                Samples::Gray16(samples) | Samples::Rgb16(samples) => write_words(pipe, samples),
            }
        }
        Err(error) => {
            let mut message = error.message().to_owned();
            message.truncate(message.floor_char_boundary(TEXT_BYTES_MAX));
            let reply = Reply::Refused {
                kind: error.kind().slug().to_owned(),
                message,
            };
            write_frame(pipe, &serde_json::to_vec(&reply)?)
        }
    }
}

/// A frame of words, without a second copy of a large picture.
fn write_words(pipe: &mut impl Write, words: &[u16]) -> io::Result<()> {
    let length = u32::try_from(2 * words.len()).map_err(io::Error::other)?;
    pipe.write_all(&length.to_le_bytes())?;
    let mut bytes = Vec::with_capacity(1 << 16);
    for chunk in words.chunks(1 << 15) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|word| word.to_le_bytes()));
        pipe.write_all(&bytes)?;
    }
    pipe.flush()
}

/// Receives what became of a file: the outer result is about the worker, the inner one about the file.
///
/// # Errors
/// Those of the pipe; `InvalidData` when the answer makes no sense or is beyond the limits.
pub fn read_outcome(pipe: &mut impl Read, limits: &Limits) -> io::Result<Result<(Raster, Provenance)>> {
    let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "an answer makes no sense");
    let reply = read_frame(pipe, WORDS_BYTES_MAX)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    match serde_json::from_slice(&reply).map_err(|_| nonsense())? {
        Reply::Refused { kind, message } => Ok(Err(Error::new(kind_of(&kind), message))),
        Reply::Decoded {
            width,
            height,
            channels,
            bits,
            signed,
            windowed,
            inverted,
            padding,
            provenance,
        } => {
            limits.check_size(width, height).map_err(|_| nonsense())?;
            let expected =
                width as usize * height as usize * usize::from(channels.min(3)) * usize::from(bits.min(16) / 8);
            let bytes = read_frame(pipe, expected)?
                .filter(|bytes| bytes.len() == expected)
                .ok_or_else(nonsense)?;
            let words = || {
                bytes
                    .as_chunks::<2>()
                    .0
                    .iter()
                    .map(|&pair| u16::from_le_bytes(pair))
                    .collect()
            };
            let samples = match (channels, bits) {
                (1, 8) => Samples::Gray8(bytes),
                (3, 8) => Samples::Rgb8(bytes),
                (1, 16) => Samples::Gray16(words()),
                (3, 16) => Samples::Rgb16(words()),
                _ => return Err(nonsense()),
            };
            let levels = Levels {
                signed,
                windowed,
                inverted,
                padding,
            };
            Ok(Raster::new(width, height, samples, levels).map(|raster| (raster, *provenance)))
        }
    }
}

/// The kinds that decoding has; anything else from a worker is a fault.
fn kind_of(slug: &str) -> ErrorKind {
    use ErrorKind::{InvalidImage, TooLarge, TooManyPixels, UnsupportedMedia};
    let kinds = [InvalidImage, UnsupportedMedia, TooLarge, TooManyPixels];
    kinds
        .into_iter()
        .find(|kind| kind.slug() == slug)
        .unwrap_or(ErrorKind::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(outcome: Result<(Raster, Provenance)>) -> Result<(Raster, Provenance)> {
        let mut pipe = Vec::new();
        write_outcome(&mut pipe, outcome).unwrap();
        read_outcome(&mut pipe.as_slice(), &Limits::default()).unwrap()
    }

    #[test]
    fn rasters_come_through_whole() {
        let levels = Levels {
            signed: true,
            windowed: true,
            inverted: true,
            padding: Some(-2000),
        };
        let many = (0..40_000).map(|i| i as u16).collect();
        for (width, samples) in [
            (2, Samples::Gray8(vec![1, 2])),
            (2, Samples::Rgb8(vec![1, 2, 3, 4, 5, 6])),
            (40_000 / 2, Samples::Gray16(many)),
            (1, Samples::Rgb16(vec![1, 2, 40_000])),
        ] {
            let height = if width == 20_000 { 2 } else { 1 };
            let raster = Raster::new(width, height, samples, levels).unwrap();
            let provenance = Provenance {
                sex: Some("F".into()),
                view: Some("x".repeat(600)),
                ..Provenance::default()
            };
            let (back, provenance) = round_trip(Ok((raster.clone(), provenance))).ok().unwrap();
            assert!(back == raster);
            assert_eq!((provenance.sex.as_deref(), provenance.view), (Some("F"), None));
        }
    }

    #[test]
    fn refusals_keep_kind_and_message() {
        let refused = round_trip(Err(Error::new(ErrorKind::UnsupportedMedia, "no `x`")))
            .err()
            .unwrap();
        assert_eq!(
            (refused.kind(), refused.message()),
            (ErrorKind::UnsupportedMedia, "no `x`")
        );
        let long = round_trip(Err(Error::new(ErrorKind::NotFound, "é".repeat(600))))
            .err()
            .unwrap();
        assert_eq!((long.kind(), long.message().len()), (ErrorKind::Internal, 512));
    }

    #[test]
    fn lies_are_noticed() {
        let mut pipe = Vec::new();
        write_frame(&mut pipe, &[0; 100]).unwrap();
        assert!(read_frame(&mut pipe.as_slice(), 99).is_err());
        assert_eq!(read_frame(&mut [].as_slice(), 9).unwrap(), None);
        assert!(read_frame(&mut &pipe[..50], 100).is_err());
        assert!(read_outcome(&mut pipe.as_slice(), &Limits::default()).is_err());
        let raster = Raster::new(2, 2, Samples::Gray8(vec![0; 4]), Levels::default()).unwrap();
        let mut pipe = Vec::new();
        write_outcome(&mut pipe, Ok((raster, Provenance::default()))).unwrap();
        let tight = Limits {
            pixels_max: 3,
            ..Limits::default()
        };
        assert!(read_outcome(&mut pipe.as_slice(), &tight).is_err());
    }
}
