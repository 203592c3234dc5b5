//! A decoded picture in its native depth, the right way up, before any window.

use std::fmt;

use crate::error::{Error, Result};

/// The samples, row-major, channels interleaved.
#[derive(Clone, PartialEq, Eq)]
pub enum Samples {
    /// One byte a pixel.
    Gray8(Vec<u8>),
    /// Two bytes a pixel; the bits of an `i16` when [`Levels::signed`].
    Gray16(Vec<u16>),
    /// Three bytes a pixel.
    Rgb8(Vec<u8>),
    /// Three 16-bit samples a pixel.
    Rgb16(Vec<u16>),
}

impl Samples {
    /// 1 or 3.
    pub fn channels(&self) -> u8 {
        match self {
            Self::Gray8(_) | Self::Gray16(_) => 1,
            Self::Rgb8(_) | Self::Rgb16(_) => 3,
        }
    }

    /// Bits of one stored sample: 8 or 16.
    pub fn bits(&self) -> u8 {
        match self {
            Self::Gray8(_) | Self::Rgb8(_) => 8,
            Self::Gray16(_) | Self::Rgb16(_) => 16,
        }
    }

    /// Whether all samples have one value.
    pub fn are_equal(&self) -> bool {
        fn equal<T: PartialEq>(samples: &[T]) -> bool {
            samples.windows(2).all(|two| two[0] == two[1])
        }
        match self {
            Self::Gray8(samples) | Self::Rgb8(samples) => equal(samples),
            Self::Gray16(samples) | Self::Rgb16(samples) => equal(samples),
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Gray8(samples) | Self::Rgb8(samples) => samples.len(),
            Self::Gray16(samples) | Self::Rgb16(samples) => samples.len(),
        }
    }
}

/// Kind and number, never the pixels.
impl fmt::Debug for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} samples of {} bits, {} channels",
            self.count(),
            self.bits(),
            self.channels()
        )
    }
}

/// What grey values mean. The default is an ordinary picture: 0 is black, the largest value white.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Levels {
    /// Samples are two's complement.
    pub signed: bool,
    /// The grey values need a window to become 8 bit: more than 8 bits are stored, or a rescale applies.
    pub windowed: bool,
    /// Smaller values are brighter (DICOM MONOCHROME1, or a negative rescale slope).
    pub inverted: bool,
    /// Stored values that fill what was never imaged, left out of the window's count.
    pub padding: Option<Padding>,
}

/// Stored values that stand for nothing: PixelPaddingValue, or all up to PixelPaddingRangeLimit (PS3.3, C.7.5.1.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Padding {
    /// The smallest.
    pub first: i32,
    /// The largest.
    pub last: i32,
}

impl Padding {
    /// One value.
    pub fn of(value: i32) -> Self {
        Self {
            first: value,
            last: value,
        }
    }

    /// All between two, whichever is the larger, both of them included.
    pub fn between(value: i32, limit: i32) -> Self {
        Self {
            first: value.min(limit),
            last: value.max(limit),
        }
    }
}

/// A decoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raster {
    width: u32,
    height: u32,
    samples: Samples,
    levels: Levels,
}

impl Raster {
    /// Puts samples and size together.
    ///
    /// # Errors
    /// `Internal` when the number of samples is not width times height times channels, or there is none.
    pub fn new(width: u32, height: u32, samples: Samples, levels: Levels) -> Result<Self> {
        let expected = u64::from(width) * u64::from(height) * u64::from(samples.channels());
        if expected == 0 || samples.count() as u64 != expected {
            let message = format!("`{}` samples for a raster of `{width}x{height}`", samples.count());
            return Err(Error::internal(message));
        }
        Ok(Self {
            width,
            height,
            samples,
            levels,
        })
    }

    /// Columns.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The samples.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// What grey values mean.
    pub fn levels(&self) -> Levels {
        self.levels
    }

    /// Added to a stored value to make it unsigned.
    pub fn offset_levels(&self) -> i32 {
        match (self.levels.signed, self.samples.bits()) {
            (false, _) => 0,
            (true, 8) => 1 << 7,
            (true, _) => 1 << 15,
        }
    }

    /// BLAKE3 that names the pixels: the same picture in another file has the same digest.
    ///
    /// Over `medsearch/raster/1\n`, width and height (u32 LE), channels and bits (u8), what the grey values mean unless that is the default
    /// (signed, windowed, inverted as one byte each, then the padding value, i32 LE, if there is one, and the last of several), and the samples, little endian. A query pays
    /// for it before its model runs, and SHA-256 costs three times as much even where the processor has instructions for it.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"medsearch/raster/1\n");
        hasher.update(&self.width.to_le_bytes());
        hasher.update(&self.height.to_le_bytes());
        hasher.update(&[self.samples.channels(), self.samples.bits()]);
        // The same numbers read the other way round are the negative, another picture.
        if self.levels != Levels::default() {
            let Levels {
                signed,
                windowed,
                inverted,
                padding,
            } = self.levels;
            hasher.update(&[signed, windowed, inverted].map(u8::from));
            if let Some(Padding { first, last }) = padding {
                hasher.update(&first.to_le_bytes());
                if last != first {
                    hasher.update(&last.to_le_bytes());
                }
            }
        }
        match &self.samples {
            Samples::Gray8(samples) | Samples::Rgb8(samples) => {
                hasher.update(samples);
            }
            Samples::Gray16(samples) | Samples::Rgb16(samples) => {
                let mut bytes = Vec::with_capacity(2 * HASH_CHUNK);
                for chunk in samples.chunks(HASH_CHUNK) {
                    bytes.clear();
                    bytes.extend(chunk.iter().flat_map(|sample| sample.to_le_bytes()));
                    hasher.update(&bytes);
                }
            }
        }
        hasher.finalize().into()
    }
}

/// 16-bit samples turned into bytes at a time.
const HASH_CHUNK: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_the_documented_one() {
        let raster = Raster::new(
            2,
            1,
            Samples::Gray16(vec![1, 0xff00]),
            Levels {
                signed: true,
                ..Levels::default()
            },
        )
        .unwrap();
        let mut bytes = b"medsearch/raster/1\n".to_vec();
        bytes.extend_from_slice(&[2, 0, 0, 0, 1, 0, 0, 0, 1, 16, 1, 0, 0, 1, 0, 0, 0xff]);
        assert_eq!(raster.digest(), <[u8; 32]>::from(blake3::hash(&bytes)));
    }

    #[test]
    fn a_picture_and_its_negative_differ_and_a_plain_one_has_no_levels() {
        let digest = |levels| Raster::new(1, 1, Samples::Gray8(vec![7]), levels).unwrap().digest();
        let inverted = Levels {
            inverted: true,
            ..Levels::default()
        };
        assert_ne!(digest(Levels::default()), digest(inverted));
        let plain = blake3::hash(b"medsearch/raster/1\n\x01\0\0\0\x01\0\0\0\x01\x08\x07");
        assert_eq!(digest(Levels::default()), <[u8; 32]>::from(plain));
    }

    #[test]
    fn one_padding_value_is_named_once() {
        let digest = |padding| {
            let levels = Levels {
                padding: Some(padding),
                ..Levels::default()
            };
            Raster::new(1, 1, Samples::Gray8(vec![7]), levels).unwrap().digest()
        };
        let one = blake3::hash(b"medsearch/raster/1\n\x01\0\0\0\x01\0\0\0\x01\x08\0\0\0\x05\0\0\0\x07");
        assert_eq!(digest(Padding::of(5)), <[u8; 32]>::from(one));
        assert_eq!(Padding::between(6, 5), Padding::between(5, 6));
        assert_ne!(digest(Padding::between(5, 6)), digest(Padding::of(5)));
    }

    #[test]
    fn sizes_must_agree() {
        assert!(Raster::new(2, 2, Samples::Rgb8(vec![0; 12]), Levels::default()).is_ok());
        assert!(Raster::new(2, 2, Samples::Rgb8(vec![0; 4]), Levels::default()).is_err());
        assert!(Raster::new(0, 2, Samples::Gray8(vec![]), Levels::default()).is_err());
    }
}
