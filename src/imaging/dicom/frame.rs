//! Stored values of a frame, whatever they are coded in.

use super::attributes::{Attributes, Photometric};
use super::layout::Layout;
use super::syntax::Coding;
use super::{invalid, jpeg2000, rle};
use crate::error::Result;
use crate::imaging::{jpeg, jpeg_ls};

/// Samples as stored, channels interleaved, bits that don't count cleared, signs extended.
pub enum Stored {
    /// BitsAllocated 8, or 1: then each is 0 or 1.
    Bytes(Vec<u8>),
    /// BitsAllocated 16.
    Words(Vec<u16>),
}

/// Decodes what [`Layout::frame`] found. Says also whether three samples are luminance and colour differences.
///
/// # Errors
/// `InvalidImage` and what the JPEG decoders refuse.
pub fn stored_values(frame: &[u8], layout: &Layout<'_>, attributes: &Attributes) -> Result<(Stored, bool)> {
    let shape = &layout.shape;
    let samples = usize::from(shape.samples);
    let wide = shape.bits_allocated == 16;
    let mut ybr = attributes.photometric == Photometric::YbrFull;
    let stored = match layout.syntax.coding {
        Coding::Native if layout.halved_chroma => {
            if shape.pixels() % 2 == 1 {
                return Err(invalid("pixels that share their chroma in pairs are odd in number"));
            }
            Stored::Bytes(expand_422(frame))
        }
        Coding::Native => {
            let stored = native(frame, layout, wide);
            if attributes.planes && samples == 3 {
                interleave(stored)
            } else {
                stored
            }
        }
        Coding::Rle => {
            let planes = rle::decode(frame, shape.pixels(), samples * if wide { 2 } else { 1 })?;
            let stored = if wide {
                Stored::Words(join_halves(&planes, shape.pixels()))
            } else {
                Stored::Bytes(planes)
            };
            if samples == 3 { interleave(stored) } else { stored }
        }
        Coding::JpegBaseline | Coding::JpegExtended => {
            let header = jpeg::Header::read(frame)?;
            if header.precision == 12 {
                let levels = jpeg::decode_twelve_bit(frame, &header)?;
                let stored = narrowed(within_stored_bits(levels, attributes), wide);
                return Ok((keep_stored_bits(stored, attributes), ybr));
            }
            // What is YCbCr in the codestream is RGB from here on, by the same arithmetic as in any other JPEG.
            let to_rgb = samples == 3 && jpeg_is_ybr(&header, ybr);
            ybr = false;
            fitting(jpeg::decode_components(frame, &header, to_rgb)?, wide)
        }
        Coding::JpegLossless => lossless(frame, shape.pixels() * samples, wide)?,
        Coding::JpegLs => narrowed(jpeg_ls::decode(frame)?.1, wide),
        Coding::Jpeg2000 => {
            // Values, not bits: lossy ones may go beyond BitsStored, and their sign is extended already.
            let (header, samples) = jpeg2000::decode(frame, attributes.signed)?;
            let mut stored = narrowed(samples, wide);
            // Unless whole cells were coded as if they were numbers without a sign.
            if attributes.signed && !header.signed && u16::from(header.precision) > attributes.bits_stored {
                stored = keep_stored_bits(stored, attributes);
            }
            return Ok((stored, ybr && !header.transformed));
        }
    };
    Ok((keep_stored_bits(stored, attributes), ybr))
}

/// The codestream knows better than PhotometricInterpretation, when it says anything.
fn jpeg_is_ybr(header: &jpeg::Header, said: bool) -> bool {
    match header.adobe {
        _ if header.names_rgb() => false,
        Some(transform) => transform != 0,
        None => header.jfif || said,
    }
}

fn native(frame: &[u8], layout: &Layout<'_>, wide: bool) -> Stored {
    let big_endian = layout.syntax.big_endian;
    if wide {
        let word = |&pair: &[u8; 2]| {
            if big_endian {
                u16::from_be_bytes(pair)
            } else {
                u16::from_le_bytes(pair)
            }
        };
        return Stored::Words(frame.as_chunks::<2>().0.iter().map(word).collect());
    }
    Stored::Bytes(if layout.shape.bits_allocated == 1 {
        let bits = frame.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1));
        bits.take(layout.shape.pixels()).collect()
    } else {
        frame.to_vec()
    })
}

/// Y1 Y2 Cb Cr to Y1 Cb Cr Y2 Cb Cr (PS3.3, C.7.6.3.1.2).
fn expand_422(frame: &[u8]) -> Vec<u8> {
    let pairs = frame.as_chunks::<4>().0;
    pairs
        .iter()
        .flat_map(|&[y1, y2, cb, cr]| [y1, cb, cr, y2, cb, cr])
        .collect()
}

fn interleave(stored: Stored) -> Stored {
    fn weave<T: Copy>(planes: &[T]) -> Vec<T> {
        let pixels = planes.len() / 3;
        let (first, rest) = planes.split_at(pixels);
        let (second, third) = rest.split_at(pixels);
        first
            .iter()
            .zip(second)
            .zip(third)
            .flat_map(|((&a, &b), &c)| [a, b, c])
            .collect()
    }
    match stored {
        Stored::Bytes(planes) => Stored::Bytes(weave(&planes)),
        Stored::Words(planes) => Stored::Words(weave(&planes)),
    }
}

/// A plane of high bytes and one of low bytes for each kind of sample.
fn join_halves(planes: &[u8], pixels: usize) -> Vec<u16> {
    let join = |pair: &[u8]| {
        let (high, low) = pair.split_at(pixels);
        high.iter()
            .zip(low)
            .map(|(&high, &low)| u16::from_be_bytes([high, low]))
            .collect::<Vec<_>>()
    };
    planes.chunks_exact(2 * pixels).flat_map(join).collect()
}

fn fitting(bytes: Vec<u8>, wide: bool) -> Stored {
    if wide {
        Stored::Words(bytes.into_iter().map(u16::from).collect())
    } else {
        Stored::Bytes(bytes)
    }
}

fn lossless(frame: &[u8], count: usize, wide: bool) -> Result<Stored> {
    let mut decoder = jpeg_decoder::Decoder::new(frame);
    decoder.set_color_transform(jpeg_decoder::ColorTransform::None);
    let bytes = decoder
        .decode()
        .map_err(|_| invalid("the JPEG inside can't be decoded"))?;
    // One byte a sample for 8 bits of precision, two in native order for any other number of bits.
    if bytes.len() == count {
        return Ok(fitting(bytes, wide));
    }
    if bytes.len() != 2 * count {
        return Err(invalid("the JPEG inside has another size than the data set says"));
    }
    let words = bytes.as_chunks::<2>().0.iter().map(|&pair| u16::from_ne_bytes(pair));
    Ok(narrowed(words.collect(), wide))
}

fn narrowed(words: Vec<u16>, wide: bool) -> Stored {
    if wide {
        Stored::Words(words)
    } else {
        Stored::Bytes(words.into_iter().map(|word| word as u8).collect())
    }
}

/// What a lossy coding made larger than BitsStored can say is the largest value: its lower bits would be black.
fn within_stored_bits(mut words: Vec<u16>, attributes: &Attributes) -> Vec<u16> {
    if !attributes.signed && attributes.bits_stored < 16 {
        let top = (1 << attributes.bits_stored) - 1;
        words.iter_mut().for_each(|word| *word = (*word).min(top));
    }
    words
}

/// Clears what isn't part of the value: overlays used to sit in the other bits.
fn keep_stored_bits(stored: Stored, attributes: &Attributes) -> Stored {
    let Attributes {
        bits_stored,
        high_bit,
        signed,
        ..
    } = *attributes;
    let shift = high_bit + 1 - bits_stored;
    match stored {
        Stored::Bytes(mut bytes) if bits_stored < 8 => {
            let unused = 8 - bits_stored;
            for byte in &mut bytes {
                let value = *byte >> shift << unused;
                *byte = if signed {
                    (value as i8 >> unused) as u8
                } else {
                    value >> unused
                };
            }
            Stored::Bytes(bytes)
        }
        Stored::Words(mut words) if bits_stored < 16 => {
            let unused = 16 - bits_stored;
            for word in &mut words {
                let value = *word >> shift << unused;
                *word = if signed {
                    (value as i16 >> unused) as u16
                } else {
                    value >> unused
                };
            }
            Stored::Words(words)
        }
        whole => whole,
    }
}
