//! RLE compression (PS3.5, annex G): every byte of every sample in a segment of its own.

use super::invalid;
use crate::error::Result;

const HEADER_BYTES: usize = 64;
/// Two bytes make at most this many times their number.
const RATIO_MAX: usize = 64;

/// The bytes of a frame: one plane a sample, the highest byte of a sample first, planes one after the other.
///
/// # Errors
/// `InvalidImage`.
pub fn decode(frame: &[u8], pixels: usize, planes: usize) -> Result<Vec<u8>> {
    let header = frame
        .first_chunk::<HEADER_BYTES>()
        .ok_or_else(|| invalid("its RLE header is cut off"))?;
    let mut numbers = header
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&digits| u32::from_le_bytes(digits) as usize);
    if numbers.next() != Some(planes) {
        return Err(invalid(format!(
            "its RLE frame has not the `{planes}` segments of its size"
        )));
    }
    let mut bounds: Vec<usize> = numbers.take(planes).collect();
    bounds.push(frame.len());
    let segments: Option<Vec<&[u8]>> = bounds.windows(2).map(|pair| frame.get(pair[0]..pair[1])).collect();
    let segments = segments.ok_or_else(|| invalid("its RLE segments are not where its header says"))?;
    // Before anything is allocated for it.
    if segments.iter().any(|segment| segment.len() * RATIO_MAX < pixels) {
        return Err(invalid("an RLE segment is too short for its size"));
    }
    let mut bytes = Vec::with_capacity(pixels * planes);
    for segment in segments {
        unpack(segment, &mut bytes, pixels)?;
    }
    Ok(bytes)
}

/// Appends `length` bytes of a segment; what it holds beyond them is padding.
fn unpack(segment: &[u8], bytes: &mut Vec<u8>, length: usize) -> Result<()> {
    let end = bytes.len() + length;
    let mut rest = segment;
    while bytes.len() < end {
        let short = || invalid("an RLE segment ends too early");
        let (&control, behind) = rest.split_first().ok_or_else(short)?;
        let left = end - bytes.len();
        rest = match control {
            0..=127 => {
                let count = usize::from(control) + 1;
                let (literal, behind) = behind.split_at_checked(count).ok_or_else(short)?;
                bytes.extend_from_slice(&literal[..count.min(left)]);
                behind
            }
            128 => behind,
            129..=255 => {
                let (&value, behind) = behind.split_first().ok_or_else(short)?;
                let count = 257 - usize::from(control);
                bytes.resize(bytes.len() + count.min(left), value);
                behind
            }
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::imaging::dicom::testing::rle_frame;

    #[test]
    fn example_of_packbits() {
        let packed = [
            0xfe, 0xaa, 0x02, 0x80, 0x00, 0x2a, 0xfd, 0xaa, 0x03, 0x80, 0x00, 0x2a, 0x22, 0x80, 0xf7, 0xaa,
        ];
        let mut bytes = Vec::new();
        unpack(&packed, &mut bytes, 24).unwrap();
        let expected = [
            0xaa, 0xaa, 0xaa, 0x80, 0x00, 0x2a, 0xaa, 0xaa, 0xaa, 0xaa, 0x80, 0x00, 0x2a, 0x22, 0xaa, 0xaa, 0xaa, 0xaa,
            0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa,
        ];
        assert_eq!(bytes, expected);
        assert!(unpack(&packed, &mut Vec::new(), 25).is_err());
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(planes in prop::collection::vec(prop::collection::vec(any::<u8>(), 7), 1..7)) {
            let frame = rle_frame(&planes);
            prop_assert_eq!(decode(&frame, 7, planes.len()).unwrap(), planes.concat());
        }

        #[test]
        fn noise_never_panics(frame in prop::collection::vec(any::<u8>(), 0..200), planes in 1_usize..7) {
            let _ = decode(&frame, 50, planes);
        }
    }
}
