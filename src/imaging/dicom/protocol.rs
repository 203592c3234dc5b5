//! What parent and worker say to each other: messages of a length and bytes, bounded on both sides.
//!
//! The parent sends [`Settings`] once and then, for each picture that it wants, the number of a frame and the file; the
//! worker answers [`READY`] once and then a [`Reply`], followed by the samples when it has decoded something. Neither
//! trusts the other's lengths.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::decode::DecodedFrame;
use crate::domain::{FRAMES_MAX, FrameNumber, FrameOf};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::decoder::Provenance;
use crate::imaging::limits::Limits;
use crate::imaging::raster::{Levels, Padding, Raster, Samples};
use crate::imaging::voi::GreyScale;

/// First message of a worker that is ready.
pub const READY: &[u8] = b"medsearch decode worker 3";
/// Longest message of words, as opposed to files and samples.
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

/// Writes a message and flushes.
///
/// # Errors
/// Those of the pipe.
pub fn write_message(pipe: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    pipe.write_all(&length.to_le_bytes())?;
    pipe.write_all(bytes)?;
    pipe.flush()
}

/// Reads a message; `None` when the pipe ends before one begins.
///
/// # Errors
/// Those of the pipe; `InvalidData` when the message is longer than `bytes_max`.
pub fn read_message(pipe: &mut impl Read, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match pipe.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
    }
    let mut bytes = vec![0; length];
    pipe.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

/// Asks for a frame of a file.
///
/// # Errors
/// Those of the pipe.
pub fn write_wanted(pipe: &mut impl Write, frame: FrameNumber, file: &[u8]) -> io::Result<()> {
    write_message(pipe, &serde_json::to_vec(&frame)?)?;
    write_message(pipe, file)
}

/// Reads which frame of which file is wanted; `None` when the pipe ends before another one is.
///
/// # Errors
/// Those of the pipe; `InvalidData` for what is no number of a frame, or a file of more than `bytes_max`.
pub fn read_wanted(pipe: &mut impl Read, bytes_max: usize) -> io::Result<Option<(FrameNumber, Vec<u8>)>> {
    let Some(frame) = read_message(pipe, WORDS_BYTES_MAX)? else {
        return Ok(None);
    };
    let frame = serde_json::from_slice(&frame)?;
    let file = read_message(pipe, bytes_max)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(Some((frame, file)))
}

/// A worker's answer to a file.
#[derive(Serialize, Deserialize)]
enum Reply {
    Decoded {
        frames: u32,
        width: u32,
        height: u32,
        channels: u8,
        bits: u8,
        signed: bool,
        windowed: bool,
        inverted: bool,
        padding: Option<Padding>,
        grey_scale: GreyScale,
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
pub fn write_outcome(pipe: &mut impl Write, outcome: Result<DecodedFrame>) -> io::Result<()> {
    match outcome {
        Ok(DecodedFrame {
            raster,
            grey_scale,
            mut provenance,
            frame,
        }) => {
            provenance.drop_longer_than(TEXT_BYTES_MAX);
            let Levels {
                signed,
                windowed,
                inverted,
                padding,
            } = raster.levels();
            let reply = Reply::Decoded {
                frames: frame.frames(),
                width: raster.width(),
                height: raster.height(),
                channels: raster.samples().channels(),
                bits: raster.samples().bits(),
                signed,
                windowed,
                inverted,
                padding,
                grey_scale,
                provenance: Box::new(provenance),
            };
            write_message(pipe, &serde_json::to_vec(&reply)?)?;
            match raster.samples() {
                Samples::Gray8(samples) | Samples::Rgb8(samples) => write_message(pipe, samples),
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
            write_message(pipe, &serde_json::to_vec(&reply)?)
        }
    }
}

/// A message of words, without a second copy of a large picture.
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

/// Receives what became of a file of which `frame` was wanted: the outer result is about the worker, the inner one about the file.
///
/// # Errors
/// Those of the pipe; `InvalidData` when the answer makes no sense or is beyond the limits.
pub fn read_outcome(pipe: &mut impl Read, frame: FrameNumber, limits: &Limits) -> io::Result<Result<DecodedFrame>> {
    let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "an answer makes no sense");
    let reply = read_message(pipe, WORDS_BYTES_MAX)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    match serde_json::from_slice(&reply).map_err(|_| nonsense())? {
        Reply::Refused { kind, message } => Ok(Err(Error::new(kind_of(&kind), message))),
        Reply::Decoded {
            frames,
            width,
            height,
            channels,
            bits,
            signed,
            windowed,
            inverted,
            padding,
            grey_scale,
            provenance,
        } => {
            let frame = FrameOf::new(frame, frames)
                .ok()
                .filter(|frame| frame.frames() <= FRAMES_MAX);
            let frame = frame.ok_or_else(nonsense)?;
            limits.check_size(width, height).map_err(|_| nonsense())?;
            let expected =
                width as usize * height as usize * usize::from(channels.min(3)) * usize::from(bits.min(16) / 8);
            let bytes = read_message(pipe, expected)?
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
            Ok(Raster::new(width, height, samples, levels).map(|raster| DecodedFrame {
                raster,
                grey_scale,
                provenance: *provenance,
                frame,
            }))
        }
    }
}

/// The kinds that decoding has; anything else from a worker is a fault.
fn kind_of(slug: &str) -> ErrorKind {
    use ErrorKind::{InvalidImage, InvalidRequest, TooLarge, TooManyPixels, UnsupportedMedia};
    let kinds = [InvalidRequest, InvalidImage, UnsupportedMedia, TooLarge, TooManyPixels];
    kinds
        .into_iter()
        .find(|kind| kind.slug() == slug)
        .unwrap_or(ErrorKind::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::voi::{Function, Rescale, Voi};

    fn second_of(frames: u32, raster: Raster, provenance: Provenance) -> DecodedFrame {
        DecodedFrame {
            raster,
            grey_scale: grey_scale(),
            provenance,
            frame: FrameOf::new(second(), frames).unwrap(),
        }
    }

    fn grey_scale() -> GreyScale {
        GreyScale {
            rescale: Some(Rescale {
                slope: 0.1 + 0.2,
                intercept: -1024.0,
            }),
            voi: Voi::new(1.0 / 3.0, 400.0, Function::Sigmoid),
        }
    }

    fn second() -> FrameNumber {
        FrameNumber::try_from(2).unwrap()
    }

    fn round_trip(outcome: Result<DecodedFrame>) -> Result<DecodedFrame> {
        let mut pipe = Vec::new();
        write_outcome(&mut pipe, outcome).unwrap();
        read_outcome(&mut pipe.as_slice(), second(), &Limits::default()).unwrap()
    }

    #[test]
    fn a_frame_of_a_file_is_asked_for() {
        let mut pipe = Vec::new();
        write_wanted(&mut pipe, second(), b"a file").unwrap();
        let read = |pipe: &[u8], bytes_max| read_wanted(&mut &*pipe, bytes_max);
        assert_eq!(read(&pipe, 6).unwrap(), Some((second(), b"a file".to_vec())));
        assert_eq!(read(b"", 6).unwrap(), None);
        assert!(read(&pipe, 5).is_err() && read(&pipe[..5], 6).is_err());
        for frame in ["0", "10001", "[2]", "second"] {
            let mut pipe = Vec::new();
            write_message(&mut pipe, frame.as_bytes()).unwrap();
            write_message(&mut pipe, b"a file").unwrap();
            assert!(read(&pipe, 6).is_err(), "{frame}");
        }
    }

    #[test]
    fn rasters_come_through_whole() {
        let levels = Levels {
            signed: true,
            windowed: true,
            inverted: true,
            padding: Some(Padding::between(-2000, -1024)),
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
            let back = round_trip(Ok(second_of(30, raster.clone(), provenance))).unwrap();
            assert!(back.raster == raster);
            assert_eq!(back.grey_scale, grey_scale());
            assert_eq!(
                (back.provenance.sex.as_deref(), back.provenance.view),
                (Some("F"), None)
            );
            assert_eq!((back.frame.number(), back.frame.frames()), (second(), 30));
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
        let absent = round_trip(Err(Error::new(ErrorKind::InvalidRequest, "no frame")))
            .err()
            .unwrap();
        assert_eq!(absent.kind(), ErrorKind::InvalidRequest);
    }

    #[test]
    fn lies_are_noticed() {
        let mut pipe = Vec::new();
        write_message(&mut pipe, &[0; 100]).unwrap();
        assert!(read_message(&mut pipe.as_slice(), 99).is_err());
        assert_eq!(read_message(&mut [].as_slice(), 9).unwrap(), None);
        assert!(read_message(&mut &pipe[..50], 100).is_err());
        assert!(read_outcome(&mut pipe.as_slice(), second(), &Limits::default()).is_err());
        let raster = Raster::new(2, 2, Samples::Gray8(vec![0; 4]), Levels::default()).unwrap();
        let mut pipe = Vec::new();
        write_outcome(&mut pipe, Ok(second_of(2, raster, Provenance::default()))).unwrap();
        let third = FrameNumber::try_from(3).unwrap();
        assert!(read_outcome(&mut pipe.as_slice(), third, &Limits::default()).is_err());
        assert!(read_outcome(&mut pipe.as_slice(), second(), &Limits::default()).is_ok());
        let tight = Limits {
            pixels_max: 3,
            ..Limits::default()
        };
        assert!(read_outcome(&mut pipe.as_slice(), second(), &tight).is_err());
    }
}
