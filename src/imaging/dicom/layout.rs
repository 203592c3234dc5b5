//! Where the parts of a sound data set lie, and the bytes of each frame.

use std::borrow::Cow;
use std::ops::Range;

use super::elements::{Header, Tag, number};
use super::syntax::{Coding, Syntax};
use super::{invalid, jpeg2000, unsupported};
use crate::domain::{FRAMES_MAX, FrameNumber, FrameOf};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::limits::Limits;
use crate::imaging::{jpeg, jpeg_ls};

const EXTENDED_OFFSETS: Tag = (0x7fe0, 0x0001);

/// Size of the pixel data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Columns of a frame.
    pub columns: u16,
    /// Rows of a frame.
    pub rows: u16,
    /// 1 or 3.
    pub samples: u16,
    /// 8 or 16; 1 for samples that are bits, eight in a byte.
    pub bits_allocated: u16,
    /// 1..=[`FRAMES_MAX`].
    pub frames: u32,
}

impl Shape {
    /// Pixels of a frame.
    pub fn pixels(&self) -> usize {
        usize::from(self.columns) * usize::from(self.rows)
    }
}

/// Where the pixel data lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pixels {
    /// In one piece.
    Native {
        /// All frames.
        range: Range<usize>,
        /// Written as words (VR OW).
        words: bool,
    },
    /// In fragments (PS3.5, A.4).
    Encapsulated {
        /// The basic offset table.
        offsets: Range<usize>,
        /// What follows it.
        fragments: Vec<Range<usize>>,
    },
}

/// A data set whose structure is sound, its parts named by their place.
#[derive(Debug)]
pub struct Layout<'a> {
    /// The data set.
    pub bytes: &'a [u8],
    /// How it is written.
    pub syntax: Syntax,
    /// Elements of the outermost level before the pixel data, sequences left out.
    pub elements: Vec<Header>,
    /// Those of the item of the Modality LUT Sequence.
    pub modality_lut: Vec<Header>,
    /// How stored values become those of the modality is said of each frame, or of all by a functional group, neither of which is read.
    pub values_by_frame: bool,
    /// Size of the pixel data.
    pub shape: Shape,
    /// Pixel data has chroma at half width (YBR_FULL_422), uncompressed.
    pub halved_chroma: bool,
    /// Where the pixel data lies.
    pub pixels: Pixels,
}

impl<'a> Layout<'a> {
    /// Puts the parts together and checks the size of what they promise.
    ///
    /// # Errors
    /// `InvalidImage`, `UnsupportedMedia`, `TooManyPixels`.
    pub fn new(
        bytes: &'a [u8],
        syntax: Syntax,
        elements: Vec<Header>,
        modality_lut: Vec<Header>,
        values_by_frame: bool,
        pixels: Pixels,
        limits: &Limits,
    ) -> Result<Self> {
        let value = |tag| {
            elements
                .iter()
                .rfind(|header| header.tag == tag)
                .map(|header| &bytes[header.range()])
        };
        let short = |tag, name: &str| {
            let found = value(tag).and_then(|value| number::<2>(value, 0, syntax.big_endian));
            found
                .map(|number| number as u16)
                .ok_or_else(|| invalid(format!("`{name}` is missing")))
        };
        let text = |tag| value(tag).map(|value| String::from_utf8_lossy(value).trim_matches([' ', '\0']).to_owned());
        let shape = Shape {
            columns: short((0x0028, 0x0011), "Columns")?,
            rows: short((0x0028, 0x0010), "Rows")?,
            samples: short((0x0028, 0x0002), "SamplesPerPixel")?,
            bits_allocated: short((0x0028, 0x0100), "BitsAllocated")?,
            frames: match text((0x0028, 0x0008)).as_deref() {
                None | Some("") => 1,
                Some(digits) => {
                    let frames = digits.parse::<u32>();
                    frames.map_err(|_| invalid("`NumberOfFrames` is not a number"))?.max(1)
                }
            },
        };
        limits.check_size(shape.columns.into(), shape.rows.into())?;
        let is_read = match shape.bits_allocated {
            1 => shape.samples == 1 && syntax.coding == Coding::Native,
            8 | 16 => matches!(shape.samples, 1 | 3),
            _ => false,
        };
        if !is_read {
            let (samples, bits) = (shape.samples, shape.bits_allocated);
            return Err(unsupported(format!(
                "DICOM pixels of `{samples}` samples of `{bits}` bits are not read"
            )));
        }
        if shape.frames > FRAMES_MAX {
            let message = format!("`{}` frames are over the limit of `{FRAMES_MAX}`", shape.frames);
            return Err(Error::new(ErrorKind::TooManyPixels, message));
        }
        let halved_chroma = syntax.coding == Coding::Native
            && shape.samples == 3
            && shape.bits_allocated == 8
            && text((0x0028, 0x0004)).as_deref() == Some("YBR_FULL_422");
        let present = match &pixels {
            Pixels::Native { range, .. } => {
                let bits = frame_bits(&shape, halved_chroma) * u64::from(shape.frames);
                range.len() as u64 >= bits.div_ceil(8)
            }
            Pixels::Encapsulated { fragments, .. } => fragments.len() as u64 >= u64::from(shape.frames),
        };
        if !present {
            return Err(invalid(format!(
                "its pixel data is too short for `{}` frames of its size",
                shape.frames
            )));
        }
        Ok(Self {
            bytes,
            syntax,
            elements,
            modality_lut,
            values_by_frame,
            shape,
            halved_chroma,
            pixels,
        })
    }

    /// The value of an element, the last one if it is there twice.
    pub fn value(&self, tag: Tag) -> Option<&'a [u8]> {
        let header = self.elements.iter().rfind(|header| header.tag == tag)?;
        self.bytes.get(header.range())
    }

    /// The value of an element that is written as 16-bit words.
    pub fn words(&self, tag: Tag) -> Option<Vec<u16>> {
        self.words_in(&self.elements, tag)
    }

    /// The same among other elements.
    pub fn words_in(&self, elements: &[Header], tag: Tag) -> Option<Vec<u16>> {
        let header = elements.iter().rfind(|header| header.tag == tag)?;
        let value = self.bytes.get(header.range())?;
        let big_endian = self.syntax.big_endian;
        let word = |&pair: &[u8; 2]| {
            if big_endian {
                u16::from_be_bytes(pair)
            } else {
                u16::from_le_bytes(pair)
            }
        };
        Some(value.as_chunks::<2>().0.iter().map(word).collect())
    }

    /// The bytes of a frame, still coded; uncompressed ones begin with its first sample, those of 8 bits or one in the order of the
    /// samples, also where they were written as big endian words (PS3.5, 8.1.1). A codestream is what the data set says it is.
    ///
    /// # Errors
    /// `InvalidRequest` for a frame that is not there; `InvalidImage`, `UnsupportedMedia`, `TooManyPixels` when its fragments can't be
    /// told from those of others, or its codestream is of another size or kind.
    pub fn frame(&self, number: FrameNumber, limits: &Limits) -> Result<Cow<'a, [u8]>> {
        FrameOf::new(number, self.shape.frames)?;
        let coded = match &self.pixels {
            Pixels::Native { range, words } => return Ok(self.native(range.clone(), *words, number)),
            Pixels::Encapsulated { offsets, fragments } => self.joined(self.fragments_of(number, offsets, fragments)?),
        };
        check_codestream(self, &coded, limits)?;
        Ok(coded)
    }

    /// Frames lie one after the other without a gap, those of bits too (PS3.5, 8.1.1): one may begin inside a byte.
    fn native(&self, range: Range<usize>, words: bool, number: FrameNumber) -> Cow<'a, [u8]> {
        let whole = &self.bytes[range];
        let bits = frame_bits(&self.shape, self.halved_chroma);
        let first = bits * number.index() as u64;
        let (start, end) = ((first / 8) as usize, (first + bits).div_ceil(8) as usize);
        let swapped = self.syntax.big_endian && words && self.shape.bits_allocated <= 8;
        let bytes: Cow<'a, [u8]> = if swapped {
            let in_order = |at: usize| *whole.get(at ^ 1).unwrap_or(&whole[at]);
            (start..end).map(in_order).collect()
        } else {
            Cow::Borrowed(&whole[start..end])
        };
        match first % 8 {
            0 => bytes,
            shift => {
                let next = |at: usize| bytes.get(at + 1).map_or(0, |next| next << (8 - shift));
                let count = bits.div_ceil(8) as usize;
                (0..count).map(|at| bytes[at] >> shift | next(at)).collect()
            }
        }
    }

    /// A frame has fragments of its own (PS3.5, A.4), told from the others' by their number where that says it, else by the table of
    /// offsets, else by the end marker of each frame.
    fn fragments_of<'b>(
        &self,
        number: FrameNumber,
        offsets: &Range<usize>,
        fragments: &'b [Range<usize>],
    ) -> Result<&'b [Range<usize>]> {
        let frames = self.shape.frames as usize;
        let index = number.index();
        let found = if frames == 1 {
            Some(0..fragments.len())
        } else if frames == fragments.len() {
            Some(index..index + 1)
        } else {
            let extended = self
                .value(EXTENDED_OFFSETS)
                .map(|entries| OffsetTable { entries, width: 8 });
            let basic = OffsetTable {
                entries: &self.bytes[offsets.clone()],
                width: 4,
            };
            match extended
                .into_iter()
                .chain([basic])
                .find(|table| table.is_filled(frames))
            {
                Some(table) => table.fragments(index, frames, fragments),
                None => between_end_markers(index, fragments, self.bytes),
            }
        };
        let found = found.and_then(|found| fragments.get(found));
        found.ok_or_else(|| invalid("its frames can't be told apart"))
    }

    fn joined(&self, fragments: &[Range<usize>]) -> Cow<'a, [u8]> {
        let bytes = self.bytes;
        match fragments {
            [one] => Cow::Borrowed(&bytes[one.clone()]),
            several => several
                .iter()
                .flat_map(|range| &bytes[range.clone()])
                .copied()
                .collect(),
        }
    }
}

/// Where the first fragment of each frame begins, counted from that of the first one, their item headers included: the basic
/// (PS3.5, A.4) or the extended table (PS3.3, C.7.6.3.1.8).
struct OffsetTable<'a> {
    entries: &'a [u8],
    /// Bytes of an entry.
    width: usize,
}

impl OffsetTable<'_> {
    fn entry(&self, index: usize) -> Option<u64> {
        let digits = self.entries.chunks_exact(self.width).nth(index)?;
        Some(
            digits
                .iter()
                .rev()
                .fold(0, |entry, &digit| entry << 8 | u64::from(digit)),
        )
    }

    /// Whether it says anything of several frames: it may be empty, and some writers leave zeros in it.
    fn is_filled(&self, frames: usize) -> bool {
        self.entries.len() / self.width >= frames && self.entry(1) != Some(0)
    }

    /// From the offset of a frame to that of the next one, each of which has to be where a fragment begins.
    fn fragments(&self, index: usize, frames: usize, fragments: &[Range<usize>]) -> Option<Range<usize>> {
        let origin = fragments.first()?.start;
        let begin_at = |offset: u64| {
            let found = fragments.binary_search_by_key(&offset, |fragment| (fragment.start - origin) as u64);
            found.ok()
        };
        let begin = begin_at(self.entry(index)?)?;
        let end = if index + 1 == frames {
            fragments.len()
        } else {
            begin_at(self.entry(index + 1)?)?
        };
        (begin < end).then_some(begin..end)
    }
}

/// The fragments behind the end of the frame before, up to the one with the end marker of a JPEG.
fn between_end_markers(index: usize, fragments: &[Range<usize>], bytes: &[u8]) -> Option<Range<usize>> {
    let ends = |fragment: &Range<usize>| {
        let tail = &bytes[fragment.clone()];
        tail[tail.len().saturating_sub(4)..]
            .windows(2)
            .any(|pair| pair == [0xff, 0xd9])
    };
    let mut behind = (1..)
        .zip(fragments)
        .filter(|(_, fragment)| ends(fragment))
        .map(|(behind, _)| behind);
    let begin = match index.checked_sub(1) {
        None => 0,
        Some(before) => behind.nth(before)?,
    };
    Some(begin..behind.next()?)
}

fn frame_bits(shape: &Shape, halved_chroma: bool) -> u64 {
    let samples = if halved_chroma { 2 } else { u64::from(shape.samples) };
    shape.pixels() as u64 * samples * u64::from(shape.bits_allocated)
}

/// A codestream inside must be what the data set says it is.
fn check_codestream(layout: &Layout<'_>, coded: &[u8], limits: &Limits) -> Result<()> {
    let coding = layout.syntax.coding;
    let (size, components, precision) = match coding {
        Coding::Native | Coding::Rle => return Ok(()),
        Coding::JpegBaseline | Coding::JpegExtended | Coding::JpegLossless => {
            let header = jpeg::Header::read(coded)?;
            header.check(limits)?;
            match (coding, header.process, header.precision) {
                (Coding::JpegExtended, 1, 12) if header.components.len() > 1 => {
                    return Err(unsupported("JPEG of 12 bits in colour is not read"));
                }
                (Coding::JpegLossless, 3, _) | (Coding::JpegExtended, 1, 12) => {}
                (Coding::JpegLossless, ..) => return Err(invalid("the JPEG inside is not lossless")),
                _ => header.check_process()?,
            }
            ((header.width, header.height), header.components.len(), header.precision)
        }
        Coding::JpegLs => {
            let header = jpeg_ls::Header::read(coded)?;
            (
                (header.width, header.height),
                header.components.into(),
                header.precision,
            )
        }
        Coding::Jpeg2000 => {
            let header = jpeg2000::Header::read(coded)?;
            (
                (header.width, header.height),
                header.components.into(),
                header.precision,
            )
        }
    };
    let shape = &layout.shape;
    let same = size == (shape.columns.into(), shape.rows.into())
        && components == usize::from(shape.samples)
        && u16::from(precision) <= shape.bits_allocated;
    if !same {
        return Err(invalid(
            "the picture inside has another size or depth than the data set says",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::precheck::{File, check, frames, walk};
    use super::*;
    use crate::imaging::dicom::testing::{BIG_ENDIAN, DEFLATED, Dicom, EXPLICIT, IMPLICIT, JPEG_BASELINE, RLE};
    use crate::imaging::testing::GRAY_JPEG;

    fn plain() -> Dicom {
        Dicom::gray16(2, 2, &[1, 2, 3, 4])
    }

    /// The bytes of a frame, or what is said of it.
    fn frame(dicom: &Dicom, number: u32) -> Result<Vec<u8>> {
        let file = dicom.file();
        let opened = File::open(&file)?;
        let layout = walk(opened.data_set, opened.syntax, &Limits::default())?;
        let number = FrameNumber::try_from(number)?;
        layout.frame(number, &Limits::default()).map(Cow::into_owned)
    }

    fn frames_of(dicom: Dicom, frames: &str) -> Dicom {
        dicom.text((0x28, 0x08), b"IS", frames)
    }

    #[test]
    fn native_frames_lie_one_after_the_other() {
        let words = frames_of(plain().native((0..24).collect()), "3");
        for (number, first) in [(1, 0), (2, 8), (3, 16)] {
            assert_eq!(frame(&words, number).unwrap(), (first..first + 8).collect::<Vec<u8>>());
        }
        // Three bytes a frame: the second begins inside a word, whichever byte of that comes first.
        let bytes = frames_of(Dicom::gray8(3, 1, &[1, 2, 3, 4, 5, 6, 7, 8, 9]), "3");
        for syntax in [EXPLICIT, IMPLICIT, BIG_ENDIAN] {
            let bytes = bytes.clone().syntax(syntax);
            for (number, expected) in [(1, [1, 2, 3]), (2, [4, 5, 6]), (3, [7, 8, 9])] {
                assert_eq!(frame(&bytes, number).unwrap(), expected, "{syntax}");
            }
        }
        // 16 bits stay as they are written.
        let words = frames_of(Dicom::gray16(1, 1, &[0x0102, 0x0304]), "2");
        assert_eq!(frame(&words, 2).unwrap(), [4, 3]);
        assert_eq!(frame(&words.syntax(BIG_ENDIAN), 2).unwrap(), [3, 4]);
    }

    #[test]
    fn frames_of_bits_begin_inside_a_byte() {
        // Five bits a frame, from the lowest bit of each byte on: 10110, 01001, 11100.
        let bits = frames_of(
            Dicom::new(5, 1, 1, 1, "MONOCHROME2").native(vec![0b0100_1101, 0b0001_1110]),
            "3",
        );
        for syntax in [EXPLICIT, BIG_ENDIAN] {
            let of = |number| frame(&bits.clone().syntax(syntax), number).unwrap()[0] & 0b1_1111;
            assert_eq!([1, 2, 3].map(of), [0b0_1101, 0b1_0010, 0b0_0111], "{syntax}");
        }
    }

    #[test]
    fn a_frame_that_is_not_there_is_named() {
        let three = frames_of(plain().native(vec![0; 24]), "3");
        let error = frame(&three, 4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert!(
            error.message().contains("`4`") && error.message().contains("`3`"),
            "{error}"
        );
        assert_eq!(frame(&plain(), 2).unwrap_err().kind(), ErrorKind::InvalidRequest);
        let count = |dicom: &Dicom| frames(&dicom.file(), &Limits::default()).unwrap();
        assert_eq!((count(&three), count(&plain())), (Some(3), Some(1)));
        assert_eq!(count(&frames_of(plain(), "0")), Some(1));
        assert_eq!(count(&three.syntax(DEFLATED)), None);
    }

    /// Five fragments of RLE, whose contents nothing looks at here, that are so many frames.
    fn fragments(frames: &str) -> Dicom {
        let fragments: [&[u8]; 5] = [b"ab", b"cd\xff\xd9", b"ef\xff\xd9\0\0", b"", b"gh\xff\xd9"];
        frames_of(Dicom::new(2, 1, 1, 8, "MONOCHROME2").syntax(RLE), frames).fragments(&fragments)
    }

    #[test]
    fn encapsulated_frames_are_found_by_number_table_or_end_marker() {
        let of = |dicom: &Dicom, frames: u32| -> Vec<Option<Vec<u8>>> {
            (1..=frames).map(|number| frame(dicom, number).ok()).collect()
        };
        let parts = |parts: &[&[u8]]| parts.iter().map(|part| Some(part.to_vec())).collect::<Vec<_>>();
        assert_eq!(
            of(&fragments("1"), 1),
            parts(&[b"abcd\xff\xd9ef\xff\xd9\0\0gh\xff\xd9"])
        );
        let each = [&b"ab"[..], b"cd\xff\xd9", b"ef\xff\xd9\0\0", b"", b"gh\xff\xd9"];
        assert_eq!(of(&fragments("5"), 5), parts(&each));
        let marked = parts(&[b"abcd\xff\xd9", b"ef\xff\xd9\0\0", b"gh\xff\xd9"]);
        assert_eq!(of(&fragments("3"), 3), marked);
        // The fragments begin at 0, 10, 22, 36 and 44.
        let two = parts(&[b"abcd\xff\xd9ef\xff\xd9\0\0", b"gh\xff\xd9"]);
        assert_eq!(of(&fragments("2").offsets(&[0, 36]), 2), two);
        assert_eq!(of(&fragments("2").extended_offsets(&[0, 36]), 2), two);
        // The extended one says where a frame is when both do, and an unfilled one says nothing.
        assert_eq!(of(&fragments("2").offsets(&[0, 10]).extended_offsets(&[0, 36]), 2), two);
        assert_eq!(of(&fragments("2").offsets(&[0, 36]).extended_offsets(&[0, 0]), 2), two);
        let unfilled: [&[u32]; 4] = [&[], &[0], &[0, 0], &[0, 0, 0]];
        for unfilled in unfilled {
            assert_eq!(of(&fragments("3").offsets(unfilled), 3), marked, "{unfilled:?}");
        }
        // Without the last marker there is no last frame; with one too many the frames before are those that are marked.
        assert_eq!(of(&fragments("4"), 4)[..3], marked);
        assert_eq!(of(&fragments("4"), 4)[3], None);
    }

    #[test]
    fn tables_of_offsets_that_lie_are_refused() {
        for offsets in [[0, 9], [0, 11], [22, 10], [36, 36], [44, 10], [0, u32::MAX]] {
            let wide = offsets.map(u64::from);
            for dicom in [fragments("2").offsets(&offsets), fragments("2").extended_offsets(&wide)] {
                let found = [1, 2].map(|number| frame(&dicom, number).err().map(|error| error.kind()));
                assert!(found.contains(&Some(ErrorKind::InvalidImage)), "{offsets:?}: {found:?}");
            }
        }
        let beyond = fragments("2").extended_offsets(&[0, 36 | 1 << 32]);
        assert_eq!(frame(&beyond, 2).unwrap_err().kind(), ErrorKind::InvalidImage);
    }

    #[test]
    fn the_chosen_frame_has_to_be_what_the_data_set_says() {
        let jpegs = Dicom::new(16, 8, 1, 8, "MONOCHROME2").syntax(JPEG_BASELINE);
        let jpegs = frames_of(jpegs, "2").fragments(&[GRAY_JPEG, b"\xff\xd8\xff\xd9"]);
        assert_eq!(frame(&jpegs, 1).unwrap(), GRAY_JPEG);
        assert_eq!(frame(&jpegs, 2).unwrap_err().kind(), ErrorKind::InvalidImage);
        let second = FrameNumber::try_from(2).unwrap();
        assert!(check(&jpegs.file(), second, &Limits::default()).is_err());
    }

    proptest! {
        /// Whatever is said of frames and where they are, what is found lies among the fragments.
        #[test]
        fn any_table_names_only_what_is_there(
            frames in 1_u32..9,
            cuts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 1..9),
            basic in prop::collection::vec(0_u32..60, 0..9),
            extended in prop::option::of(prop::collection::vec(0_u64..60, 0..9)),
        ) {
            let cuts: Vec<&[u8]> = cuts.iter().map(Vec::as_slice).collect();
            let dicom = Dicom::new(2, 1, 1, 8, "MONOCHROME2").syntax(RLE).fragments(&cuts).offsets(&basic);
            let dicom = frames_of(dicom, &frames.to_string());
            let dicom = extended.iter().fold(dicom, |dicom, table| dicom.extended_offsets(table));
            let whole = cuts.concat();
            for found in (1..=frames).filter_map(|number| frame(&dicom, number).ok()) {
                prop_assert!(found.is_empty() || whole.windows(found.len()).any(|part| part == found));
            }
        }

        /// Bits are where they are counted to be, whatever the size of a frame.
        #[test]
        fn bits_are_found_by_counting(
            columns in 1_u16..20,
            bytes in prop::collection::vec(any::<u8>(), 40),
            number in 1_u32..17,
        ) {
            let width = usize::from(columns);
            let dicom = frames_of(Dicom::new(columns, 1, 1, 1, "MONOCHROME2").native(bytes.clone()), "16");
            let found = frame(&dicom, number).unwrap();
            for column in 0..width {
                let at = width * (number as usize - 1) + column;
                prop_assert_eq!(found[column / 8] >> (column % 8) & 1, bytes[at / 8] >> (at % 8) & 1);
            }
        }
    }
}
