//! Which picture of a file: DICOM may keep several in one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// Most frames of a file.
pub const FRAMES_MAX: u32 = 10_000;

/// Which frame of a file, counted from 1 as DICOM does (PS3.3, C.7.6.6): 1..=[`FRAMES_MAX`]. Every file has the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct FrameNumber(u32);

impl FrameNumber {
    /// The first frame, of most files the only one.
    pub const FIRST: Self = Self(1);

    /// Counted from 1.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Counted from 0.
    pub fn index(self) -> usize {
        self.0 as usize - 1
    }

    /// Whether it is the first, which goes without saying.
    pub fn is_first(&self) -> bool {
        *self == Self::FIRST
    }

    /// How people read which picture it is: `a.dcm`, or `a.dcm, frame 2`.
    pub fn named(self, file: &str) -> String {
        if self.is_first() {
            file.to_owned()
        } else {
            format!("{file}, frame {self}")
        }
    }

    /// What stands for this frame where a file is known by its SHA-256: for the first that digest itself, for any other the SHA-256 of
    /// digest and number (u32 LE). `frame_digest` in `scripts/medsearch_py/raster.py` computes the same.
    pub fn digest(self, file: &[u8; 32]) -> [u8; 32] {
        if self.is_first() {
            return *file;
        }
        let both = Sha256::new().chain_update(file).chain_update(self.0.to_le_bytes());
        both.finalize().into()
    }
}

impl Default for FrameNumber {
    fn default() -> Self {
        Self::FIRST
    }
}

impl TryFrom<u32> for FrameNumber {
    type Error = Error;

    fn try_from(number: u32) -> Result<Self> {
        if (1..=FRAMES_MAX).contains(&number) {
            Ok(Self(number))
        } else {
            let message = format!("a frame is a whole number from 1 to {FRAMES_MAX}");
            Err(Error::new(ErrorKind::InvalidRequest, message))
        }
    }
}

impl From<FrameNumber> for u32 {
    fn from(number: FrameNumber) -> Self {
        number.0
    }
}

impl FromStr for FrameNumber {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // 0 is refused as whatever else is no such number.
        Self::try_from(text.parse().unwrap_or(0_u32))
    }
}

impl fmt::Display for FrameNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A frame that a file has, among all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameOf {
    number: FrameNumber,
    frames: u32,
}

impl FrameOf {
    /// The frame of a file that has so many.
    ///
    /// # Errors
    /// `InvalidRequest` where it is not one of them.
    pub fn new(number: FrameNumber, frames: u32) -> Result<Self> {
        if number.get() <= frames {
            Ok(Self { number, frames })
        } else {
            let message = format!("there is no frame `{number}`: the number of frames is `{frames}`");
            Err(Error::new(ErrorKind::InvalidRequest, message))
        }
    }

    /// Which one.
    pub fn number(self) -> FrameNumber {
        self.number
    }

    /// How many there are.
    pub fn frames(self) -> u32 {
        self.frames
    }
}

/// Which frames of each file become images. On the command line `first`, `middle`, `all` or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Frames {
    /// The first.
    #[default]
    First,
    /// The one in the middle, of an even number the earlier of the two.
    Middle,
    /// Every one.
    All,
    /// The one of this number, of a file with fewer its last.
    Number(FrameNumber),
}

impl Frames {
    /// Those of a file that has so many, at least one, in their order.
    pub fn of(self, frames: u32) -> impl Iterator<Item = FrameNumber> {
        let frames = frames.clamp(1, FRAMES_MAX);
        let middle = frames.div_ceil(2);
        let wanted = match self {
            Self::First => 1..=1,
            Self::Middle => middle..=middle,
            Self::All => 1..=frames,
            Self::Number(number) => {
                let number = number.get().min(frames);
                number..=number
            }
        };
        wanted.map(FrameNumber)
    }

    /// Whether it is the first of every file: who wants that need not know how many there are.
    pub fn is_first(self) -> bool {
        matches!(self, Self::First | Self::Number(FrameNumber::FIRST))
    }
}

impl FromStr for Frames {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "first" => Self::First,
            "middle" => Self::Middle,
            "all" => Self::All,
            number => Self::Number(number.parse().map_err(|_| {
                let message = format!("frames are `first`, `middle`, `all` or a number from 1 to {FRAMES_MAX}");
                Error::new(ErrorKind::InvalidRequest, message)
            })?),
        })
    }
}

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("first"),
            Self::Middle => f.write_str("middle"),
            Self::All => f.write_str("all"),
            Self::Number(number) => fmt::Display::fmt(number, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_at_one_and_have_a_bound() {
        let number = |text: &str| text.parse::<FrameNumber>().ok().map(FrameNumber::get);
        assert_eq!(["1", "30", "10000"].map(number), [Some(1), Some(30), Some(10_000)]);
        for text in ["", "0", "-1", "10001", "1.5", "two", "4294967297"] {
            assert_eq!(number(text), None, "{text}");
        }
        let json = |text: &str| serde_json::from_str::<FrameNumber>(text).ok();
        assert_eq!(json("2").map(FrameNumber::index), Some(1));
        for text in ["0", "10001", "2.0", "\"2\"", "null"] {
            assert_eq!(json(text), None, "{text}");
        }
    }

    #[test]
    fn frames_are_told_apart_and_the_first_is_its_file() {
        let file = [7; 32];
        let digest = |number| FrameNumber(number).digest(&file);
        assert_eq!(digest(1), file);
        assert_eq!(
            [1, 2].map(|number| FrameNumber(number).named("a.dcm")),
            ["a.dcm", "a.dcm, frame 2"]
        );
        assert_ne!(digest(2), digest(3));
        // The same stands in tests/python/test_pixels.py: archives know their images by it.
        assert_eq!(hex::encode(digest(2)), SECOND);
        assert_eq!(hex::encode(digest(10_000)), LAST);
    }

    #[test]
    fn a_frame_beyond_the_last_is_refused_with_their_number() {
        let last = FrameOf::new(FrameNumber(3), 3).unwrap();
        assert_eq!((last.number().get(), last.frames()), (3, 3));
        let error = FrameOf::new(FrameNumber(4), 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert_eq!(error.message(), "there is no frame `4`: the number of frames is `3`");
    }

    #[test]
    fn the_middle_is_one_of_them() {
        let numbers = |frames: Frames, count| frames.of(count).map(FrameNumber::get).collect::<Vec<_>>();
        assert_eq!(numbers(Frames::First, 30), [1]);
        assert_eq!(
            [1, 2, 3, 30].map(|count| numbers(Frames::Middle, count)),
            [[1], [1], [2], [15]]
        );
        assert_eq!(numbers(Frames::All, 3), [1, 2, 3]);
        assert_eq!(numbers(Frames::All, 1), [1]);
        let second = Frames::Number(FrameNumber(2));
        assert_eq!([1, 2, 30].map(|count| numbers(second, count)), [[1], [2], [2]]);
    }

    #[test]
    fn which_frames_is_a_word_or_a_number() {
        for (text, frames) in [
            ("first", Frames::First),
            ("middle", Frames::Middle),
            ("all", Frames::All),
            ("12", Frames::Number(FrameNumber(12))),
        ] {
            assert_eq!(text.parse::<Frames>().unwrap(), frames);
            assert_eq!(frames.to_string(), text);
        }
        for odd in ["", "0", "10001", "last", "All", "1,2"] {
            assert!(odd.parse::<Frames>().is_err(), "{odd}");
        }
        assert!(Frames::First.is_first() && Frames::Number(FrameNumber(1)).is_first());
        assert!(!Frames::Middle.is_first() && !Frames::All.is_first() && !Frames::Number(FrameNumber(2)).is_first());
    }

    const SECOND: &str = "07aac82864ec5bd4935dcb6d62b0afabfba102ea1240e8cb8063abf5eb6ba922";
    const LAST: &str = "f3e2fe4599539b40ef3d04487bd971d7515f4ea0c403837637c19295bf7ba1b2";
}
