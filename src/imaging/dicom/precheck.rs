//! Bounds on a DICOM file, checked on its bytes before any parser or decoder sees them.

use std::borrow::Cow;
use std::io::{self, Read};
use std::ops::Range;

use dicom_core::VR;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;

use super::elements::{Header, ITEM, ITEM_END, SEQUENCE_END, Tag, number};
use super::layout::{Layout, Pixels};
use super::syntax::{Coding, Syntax};
use super::{invalid, unsupported};
use crate::domain::FrameNumber;
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::limits::Limits;

/// Deepest nesting of sequences; structured reports stay below ten.
pub const NESTING_MAX: usize = 32;
/// Most elements, items and fragments of a file.
pub const ELEMENTS_MAX: u32 = 1_000_000;
/// A deflated data set may grow to this many times the limit of a file.
const INFLATED_FILES_MAX: usize = 2;

const META_AT: usize = 132;
const MODALITY_LUT: Tag = (0x0028, 0x3000);
/// Shared and Per-Frame Functional Groups Sequence.
const FUNCTIONAL_GROUPS: [Tag; 2] = [(0x5200, 0x9229), (0x5200, 0x9230)];
const PIXEL_VALUE_TRANSFORMATION: Tag = (0x0028, 0x9145);
const PIXEL_DATA: Tag = (0x7fe0, 0x0010);
const FLOAT_PIXEL_DATA: [Tag; 2] = [(0x7fe0, 0x0008), (0x7fe0, 0x0009)];

/// Checks what can be checked of a frame without inflating anything: what the parent does before it wakes a worker.
///
/// # Errors
/// `InvalidImage`, `UnsupportedMedia`, `TooLarge`, `TooManyPixels`; `InvalidRequest` for a frame that is not there.
pub fn check(bytes: &[u8], frame: FrameNumber, limits: &Limits) -> Result<()> {
    limits.check_file(bytes.len())?;
    let file = File::open(bytes)?;
    if file.syntax.deflated {
        Ok(())
    } else {
        walk(file.data_set, file.syntax, limits)?.frame(frame, limits).map(drop)
    }
}

/// How many frames a file has; none of a deflated data set, which is not inflated for that.
///
/// # Errors
/// `InvalidImage`, `UnsupportedMedia`, `TooLarge`, `TooManyPixels`.
pub fn frames(bytes: &[u8], limits: &Limits) -> Result<Option<u32>> {
    limits.check_file(bytes.len())?;
    let file = File::open(bytes)?;
    if file.syntax.deflated {
        return Ok(None);
    }
    Ok(Some(walk(file.data_set, file.syntax, limits)?.shape.frames))
}

/// Width and height by the header; for a deflated data set the most that may be.
pub fn announced_size(bytes: &[u8], limits: &Limits) -> Option<(u32, u32)> {
    let file = File::open(bytes).ok()?;
    if file.syntax.deflated {
        return Some((u32::try_from(limits.pixels_max).unwrap_or(u32::MAX), 1));
    }
    let shape = walk(file.data_set, file.syntax, limits).ok()?.shape;
    Some((u32::try_from(shape.pixels()).unwrap_or(u32::MAX), 1))
}

/// The meta group of a file, and what follows it.
pub struct Meta<'a> {
    /// Transfer Syntax UID.
    pub syntax: Option<&'a str>,
    /// Media Storage SOP Class UID.
    pub sop_class: Option<&'a str>,
    /// Media Storage SOP Instance UID.
    pub sop_uid: Option<&'a str>,
    /// The data set, possibly deflated.
    pub data_set: &'a [u8],
}

impl<'a> Meta<'a> {
    /// Reads it (PS3.10, 7.1); its group length is not needed, and often wrong.
    ///
    /// # Errors
    /// `InvalidImage`.
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        if bytes.get(META_AT - 4..META_AT) != Some(b"DICM") {
            return Err(invalid("it has no `DICM` prefix"));
        }
        let mut at = META_AT;
        let (mut syntax, mut sop_class, mut sop_uid) = (None, None, None);
        while bytes.get(at..at + 2) == Some(&[0x02, 0x00]) {
            let header = Header::read(bytes, at, bytes.len(), Syntax::EXPLICIT)?;
            if header.length.is_none() {
                return Err(invalid("an element of the meta group has no length"));
            }
            let uid = match header.tag.1 {
                0x0002 => &mut sop_class,
                0x0003 => &mut sop_uid,
                0x0010 => &mut syntax,
                _ => &mut None,
            };
            let text = std::str::from_utf8(&bytes[header.range()]).ok();
            *uid = text.map(|text| text.trim_end_matches(['\0', ' ']));
            at = header.range().end;
        }
        Ok(Self {
            syntax,
            sop_class,
            sop_uid,
            data_set: &bytes[at..],
        })
    }
}

/// A file behind its preamble and meta group.
pub struct File<'a> {
    /// How the data set is written.
    pub syntax: Syntax,
    /// The data set, possibly deflated.
    pub data_set: &'a [u8],
}

impl<'a> File<'a> {
    /// Reads the meta group.
    ///
    /// # Errors
    /// `InvalidImage`, `UnsupportedMedia` for the transfer syntax.
    pub fn open(bytes: &'a [u8]) -> Result<Self> {
        let meta = Meta::read(bytes)?;
        let uid = meta.syntax.ok_or_else(|| invalid("it names no transfer syntax"))?;
        Ok(Self::of(Syntax::from_uid(uid)?, meta.data_set))
    }

    /// A data set that is written in this way, or as it shows in its first element.
    pub fn of(syntax: Syntax, data_set: &'a [u8]) -> Self {
        Self {
            syntax: as_written(syntax, data_set),
            data_set,
        }
    }

    /// The data set, inflated when it is deflated, never beyond its bound.
    ///
    /// # Errors
    /// `TooLarge`, `InvalidImage`.
    pub fn inflated(&self, limits: &Limits) -> Result<Cow<'a, [u8]>> {
        if !self.syntax.deflated {
            return Ok(Cow::Borrowed(self.data_set));
        }
        let bytes_max = limits.file_bytes_max.saturating_mul(INFLATED_FILES_MAX);
        let mut inflated = Vec::new();
        flate2::read::DeflateDecoder::new(self.data_set)
            .take(bytes_max as u64 + 1)
            .read_to_end(&mut inflated)
            .map_err(|error| match error.kind() {
                io::ErrorKind::OutOfMemory => invalid("it needs more memory than a file may have"),
                _ => invalid("its deflate stream is damaged or cut off"),
            })?;
        if inflated.len() > bytes_max {
            let message = format!("the deflated data set is larger than `{bytes_max}` bytes");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        Ok(Cow::Owned(inflated))
    }
}

/// Writers get this wrong: whether value representations are there shows in the first element, which no file makes so
/// long that its length would look like letters.
fn as_written(syntax: Syntax, data_set: &[u8]) -> Syntax {
    match data_set.get(4..6) {
        Some(letters) if !syntax.big_endian && !syntax.deflated => Syntax {
            implicit: !letters.iter().all(u8::is_ascii_uppercase),
            ..syntax
        },
        _ => syntax,
    }
}

/// A sequence or an item that is open.
struct Level {
    item: bool,
    /// The Modality LUT Sequence of the outermost level, or an item of it.
    modality_lut: bool,
    /// The functional groups of the outermost level, or an item of them.
    functional_groups: bool,
    /// Where it ends by its length; `None`: at a delimiter.
    end: Option<usize>,
    /// No byte of it lies at or beyond this.
    bound: usize,
    syntax: Syntax,
}

/// Walks all elements up to the pixel data of the outermost level, which ends the walk: what may follow is never read.
///
/// # Errors
/// `InvalidImage`, `UnsupportedMedia`, `TooManyPixels`.
pub fn walk<'a>(bytes: &'a [u8], syntax: Syntax, limits: &Limits) -> Result<Layout<'a>> {
    let survey = survey(bytes, syntax)?;
    let at = survey.pixels_at.ok_or_else(|| invalid("it has no pixel data"))?;
    let header = Header::read(bytes, at, bytes.len(), syntax)?;
    if header.tag != PIXEL_DATA {
        return Err(unsupported("DICOM pixels of floating point are not read"));
    }
    let pixels = find_pixels(bytes, &header, syntax)?;
    let Survey {
        elements,
        modality_lut,
        values_by_frame,
        ..
    } = survey;
    Layout::new(bytes, syntax, elements, modality_lut, values_by_frame, pixels, limits)
}

/// What stands before the pixel data.
pub struct Survey {
    /// Elements of the outermost level, sequences left out.
    pub elements: Vec<Header>,
    /// Those of the item of the Modality LUT Sequence.
    pub modality_lut: Vec<Header>,
    /// A functional group says what stored values stand for (PS3.3, C.7.6.16.2.9).
    pub values_by_frame: bool,
    /// Where the element of the pixel data begins; none: there is none.
    pub pixels_at: Option<usize>,
}

/// Walks all elements up to the pixel data, of whole numbers or floating point, or to the end.
///
/// # Errors
/// `InvalidImage`.
pub fn survey(bytes: &[u8], syntax: Syntax) -> Result<Survey> {
    let (mut elements, mut modality_lut, mut values_by_frame) = (Vec::new(), Vec::new(), false);
    let mut open: Vec<Level> = Vec::new();
    let mut at = 0;
    let mut count = 0_u32;
    loop {
        count += 1;
        if count > ELEMENTS_MAX {
            return Err(invalid(format!("it has more than `{ELEMENTS_MAX}` elements")));
        }
        if open.last().is_some_and(|level| level.end == Some(at)) {
            open.pop();
            continue;
        }
        let (in_item, bound, level_syntax) = open.last().map_or((true, bytes.len(), syntax), |level| {
            (level.item, level.bound, level.syntax)
        });
        if open.is_empty() && (at == bytes.len() || begins_pixels(bytes, at, syntax)) {
            return Ok(Survey {
                elements,
                modality_lut,
                values_by_frame,
                pixels_at: (at < bytes.len()).then_some(at),
            });
        }
        let header = Header::read(bytes, at, bound, level_syntax)?;
        let by_delimiter = open.last().is_some_and(|level| level.end.is_none());
        at = header.value;
        match header.tag {
            ITEM if !in_item => {
                let (end, bound) = extent(&header, bound);
                open.push(Level {
                    item: true,
                    modality_lut: open.last().is_some_and(|level| level.modality_lut),
                    functional_groups: open.last().is_some_and(|level| level.functional_groups),
                    end,
                    bound,
                    syntax: level_syntax,
                });
            }
            ITEM_END if in_item && by_delimiter => drop(open.pop()),
            SEQUENCE_END if !in_item && by_delimiter => drop(open.pop()),
            ITEM | ITEM_END | SEQUENCE_END => return Err(invalid("an item or its end is where none can be")),
            _ if !in_item => return Err(invalid("an element is where an item should be")),
            tag => match kind_of(&header, level_syntax, tag) {
                Kind::Sequence(inner) => {
                    if open.iter().filter(|level| !level.item).count() == NESTING_MAX {
                        return Err(invalid(format!("its sequences are nested deeper than `{NESTING_MAX}`")));
                    }
                    let (end, bound) = extent(&header, bound);
                    let in_group = open.last().is_some_and(|level| level.functional_groups);
                    values_by_frame |= in_group && tag == PIXEL_VALUE_TRANSFORMATION;
                    open.push(Level {
                        item: false,
                        modality_lut: open.is_empty() && tag == MODALITY_LUT,
                        functional_groups: open.is_empty() && FUNCTIONAL_GROUPS.contains(&tag),
                        end,
                        bound,
                        syntax: inner,
                    });
                }
                Kind::Fragments => {
                    let (_, end) = fragments(bytes, header.value, bound, level_syntax, &mut count)?;
                    at = end;
                }
                Kind::Value => {
                    at = header.range().end;
                    match open.last() {
                        None => elements.push(header),
                        Some(level) if level.modality_lut => modality_lut.push(header),
                        Some(_) => {}
                    }
                }
            },
        }
    }
}

fn begins_pixels(bytes: &[u8], at: usize, syntax: Syntax) -> bool {
    let half = |at| number::<2>(bytes, at, syntax.big_endian).map(|half| half as u16);
    let tag = half(at).zip(half(at + 2));
    tag.is_some_and(|tag| tag == PIXEL_DATA || FLOAT_PIXEL_DATA.contains(&tag))
}

/// Where a sequence or an item ends, and what its contents can't go beyond.
fn extent(header: &Header, bound: usize) -> (Option<usize>, usize) {
    let end = header.length.map(|_| header.range().end);
    (end, end.unwrap_or(bound))
}

enum Kind {
    Sequence(Syntax),
    Fragments,
    Value,
}

fn kind_of(header: &Header, syntax: Syntax, tag: Tag) -> Kind {
    let in_dictionary = || {
        let entry = StandardDataDictionary.by_tag(dicom_core::Tag(tag.0, tag.1));
        entry.is_some_and(|entry| entry.vr().relaxed() == VR::SQ)
    };
    match (header.vr.as_ref(), header.length) {
        (Some(b"SQ"), _) => Kind::Sequence(syntax),
        // An icon may be compressed.
        (Some(b"OB" | b"OW"), None) => Kind::Fragments,
        // PS3.5, 6.2.2: unknown with undefined length is implicit little endian inside.
        (Some(_), None) => Kind::Sequence(Syntax::IMPLICIT),
        (Some(_), Some(_)) => Kind::Value,
        (None, None) => Kind::Sequence(syntax),
        (None, Some(_)) if in_dictionary() => Kind::Sequence(syntax),
        (None, Some(_)) => Kind::Value,
    }
}

/// The items after an element of fragments, offset table included, and where they end.
fn fragments(
    bytes: &[u8],
    mut at: usize,
    bound: usize,
    syntax: Syntax,
    count: &mut u32,
) -> Result<(Vec<Range<usize>>, usize)> {
    let mut found = Vec::new();
    // A delimiter that is missing at the very end of the file does no harm.
    while at < bound {
        *count += 1;
        if *count > ELEMENTS_MAX {
            return Err(invalid(format!("it has more than `{ELEMENTS_MAX}` elements")));
        }
        let header = Header::read(bytes, at, bound, syntax)?;
        match (header.tag, header.length) {
            (ITEM, Some(_)) => {
                at = header.range().end;
                found.push(header.range());
            }
            (SEQUENCE_END, _) => return Ok((found, header.value)),
            _ => return Err(invalid("its pixel fragments make no sense")),
        }
    }
    Ok((found, at))
}

fn find_pixels(bytes: &[u8], header: &Header, syntax: Syntax) -> Result<Pixels> {
    match (header.length, syntax.coding) {
        (Some(_), Coding::Native) => {
            let words = header.vr.is_none_or(|vr| vr == *b"OW");
            Ok(Pixels::Native {
                range: header.range(),
                words,
            })
        }
        (None, coding) if coding != Coding::Native => {
            let (mut items, _) = fragments(bytes, header.value, bytes.len(), syntax, &mut 0)?;
            if items.len() < 2 {
                return Err(invalid("its pixel data is empty"));
            }
            let offsets = items.remove(0);
            Ok(Pixels::Encapsulated {
                offsets,
                fragments: items,
            })
        }
        _ => Err(invalid("its pixel data is not coded as its transfer syntax says")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::imaging::dicom::testing::{
        BIG_ENDIAN, DEFLATED, Dicom, EXPLICIT, IMPLICIT, JPEG_2000, JPEG_BASELINE, RCT_JPEG_2000, RLE, deflate, nested,
        rle_frame,
    };
    use crate::imaging::testing::GRAY_JPEG;

    fn kind(file: &[u8]) -> Option<ErrorKind> {
        let checked = check(file, FrameNumber::FIRST, &Limits::default());
        checked.err().map(|error| error.kind())
    }

    fn plain() -> Dicom {
        Dicom::gray16(2, 2, &[1, 2, 3, 4])
    }

    #[test]
    fn every_syntax_passes() {
        for syntax in [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED] {
            assert_eq!(kind(&plain().syntax(syntax).file()), None, "{syntax}");
        }
        let rle = Dicom::new(2, 1, 1, 8, "MONOCHROME2")
            .syntax(RLE)
            .fragments(&[&rle_frame(&[vec![1, 2]])]);
        assert_eq!(kind(&rle.file()), None);
        let jpeg = Dicom::new(16, 8, 1, 8, "MONOCHROME2")
            .syntax(JPEG_BASELINE)
            .fragments(&[GRAY_JPEG]);
        assert_eq!(kind(&jpeg.file()), None);
    }

    #[test]
    fn nesting_is_bounded_without_recursion() {
        let deep = |depth| plain().extra(nested(depth)).file();
        assert_eq!(kind(&deep(NESTING_MAX)), None);
        assert_eq!(kind(&deep(NESTING_MAX + 1)), Some(ErrorKind::InvalidImage));
        assert_eq!(kind(&deep(5_000)), Some(ErrorKind::InvalidImage));
        // The same with lengths, inside out.
        let mut sequences = Vec::new();
        for _ in 0..5_000 {
            let item = [
                b"\xfe\xff\0\xe0".as_slice(),
                &(sequences.len() as u32).to_le_bytes(),
                &sequences,
            ]
            .concat();
            let header = b"\x40\0\x00\xa7SQ\0\0".as_slice();
            sequences = [header, &(item.len() as u32).to_le_bytes(), &item].concat();
        }
        assert_eq!(kind(&plain().extra(sequences).file()), Some(ErrorKind::InvalidImage));
    }

    #[test]
    fn sound_sequences_pass() {
        let sequences: [&[u8]; 5] = [
            b"\x40\0\x00\xa7SQ\0\0\0\0\0\0",
            b"\x40\0\x00\xa7SQ\0\0\x08\0\0\0\xfe\xff\0\xe0\0\0\0\0",
            b"\x40\0\x00\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\xdd\xe0\0\0\0\0",
            // Unknown with undefined length: implicit inside.
            b"\x09\0\x01\x10UN\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\x0a\0\0\0\x09\0\x02\x10\x02\0\0\0ab\xfe\xff\xdd\xe0\0\0\0\0",
            // An icon in fragments.
            b"\x88\0\x00\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff\
              \xfe\xff\0\xe0\0\0\0\0\xfe\xff\0\xe0\x02\0\0\0ab\xfe\xff\xdd\xe0\0\0\0\0\xfe\xff\x0d\xe0\0\0\0\0\
              \xfe\xff\xdd\xe0\0\0\0\0",
        ];
        for (place, sequence) in sequences.into_iter().enumerate() {
            assert_eq!(kind(&plain().extra(sequence.to_vec()).file()), None, "{place}");
        }
    }

    #[test]
    fn broken_structures_are_refused() {
        let structures: [&[u8]; 6] = [
            b"\xfe\xff\x0d\xe0\0\0\0\0",
            b"\xfe\xff\0\xe0\0\0\0\0",
            b"\x40\0\x00\xa7SQ\0\0\x08\0\0\0\xfe\xff\x0d\xe0\0\0\0\0",
            b"\x40\0\x00\xa7SQ\0\0\x08\0\0\0\xfe\xff\0\xe0\x10\0\0\0",
            b"\x40\0\x00\xa7SQ\0\0\x0a\0\0\0\x28\0\x10\0US\x02\0\0\0",
            b"\x40\0\x00\xa7SQ\0\0\xff\xff\xff\xff",
        ];
        for (place, structure) in structures.into_iter().enumerate() {
            let file = plain().extra(structure.to_vec()).file();
            assert_eq!(kind(&file), Some(ErrorKind::InvalidImage), "{place}");
        }
    }

    #[test]
    fn lying_lengths_and_counts_are_refused() {
        let mut lying = plain().file();
        let at = lying.len() - 8 - 4;
        lying[at..at + 4].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
        assert_eq!(kind(&lying), Some(ErrorKind::InvalidImage));
        let frames = |count: &str| plain().text((0x28, 0x08), b"IS", count).file();
        assert_eq!(kind(&frames("2")), Some(ErrorKind::InvalidImage));
        assert_eq!(kind(&frames("100000")), Some(ErrorKind::TooManyPixels));
        assert_eq!(kind(&frames("many")), Some(ErrorKind::InvalidImage));
        assert_eq!(kind(&frames("0")), None);
        let jpeg = Dicom::new(16, 8, 1, 8, "MONOCHROME2")
            .syntax(JPEG_BASELINE)
            .fragments(&[GRAY_JPEG]);
        let many = jpeg.clone().text((0x28, 0x08), b"IS", "100000");
        assert_eq!(kind(&many.file()), Some(ErrorKind::TooManyPixels));
        let some = jpeg.text((0x28, 0x08), b"IS", "9000");
        assert_eq!(kind(&some.file()), Some(ErrorKind::InvalidImage));
        let large = Dicom::gray16(65_535, 65_535, &[1]);
        assert_eq!(kind(&large.file()), Some(ErrorKind::TooManyPixels));
        let empty = Dicom::gray16(0, 5, &[]);
        assert_eq!(kind(&empty.file()), Some(ErrorKind::InvalidImage));
    }

    #[test]
    fn jpegs_inside_must_be_what_they_are_said_to_be() {
        let jpeg = |columns, rows, samples, bits, uid| {
            kind(
                &Dicom::new(columns, rows, samples, bits, "MONOCHROME2")
                    .syntax(uid)
                    .fragments(&[GRAY_JPEG])
                    .file(),
            )
        };
        assert_eq!(jpeg(16, 8, 1, 8, JPEG_BASELINE), None);
        assert_eq!(jpeg(16, 9, 1, 8, JPEG_BASELINE), Some(ErrorKind::InvalidImage));
        assert_eq!(jpeg(16, 8, 3, 8, JPEG_BASELINE), Some(ErrorKind::InvalidImage));
        assert_eq!(
            jpeg(16, 8, 1, 8, "1.2.840.10008.1.2.4.70"),
            Some(ErrorKind::InvalidImage)
        );
        assert_eq!(jpeg(16, 8, 1, 8, EXPLICIT), Some(ErrorKind::InvalidImage));
        let jpeg_2000 = |columns, samples, bits| {
            let dicom = Dicom::new(columns, 20, samples, bits, "YBR_RCT").syntax(JPEG_2000);
            kind(&dicom.fragments(&[RCT_JPEG_2000]).file())
        };
        assert_eq!(jpeg_2000(30, 3, 8), None);
        assert_eq!(jpeg_2000(31, 3, 8), Some(ErrorKind::InvalidImage));
        assert_eq!(jpeg_2000(30, 1, 8), Some(ErrorKind::InvalidImage));
        assert_eq!(jpeg_2000(30, 3, 16), None);
        let native = plain().syntax(JPEG_BASELINE).file();
        assert_eq!(kind(&native), Some(ErrorKind::InvalidImage));
    }

    #[test]
    fn what_is_not_read_is_named() {
        let check = |file: Vec<u8>, expected: ErrorKind, word: &str| {
            let error = super::check(&file, FrameNumber::FIRST, &Limits::default()).unwrap_err();
            assert_eq!(error.kind(), expected);
            assert!(error.message().contains(word), "{error}");
        };
        let unsupported = ErrorKind::UnsupportedMedia;
        check(
            plain().syntax("1.2.840.10008.1.2.4.201").file(),
            unsupported,
            "High-Throughput JPEG 2000",
        );
        check(plain().number((0x28, 0x100), 32).file(), unsupported, "32");
        check(plain().number((0x28, 0x02), 4).file(), unsupported, "`4` samples");
        check(
            plain().raw((0x7fe0, 0x08), b"OF", vec![0; 16]).file(),
            unsupported,
            "floating point",
        );
        check(
            plain().without((0x7fe0, 0x10)).file(),
            ErrorKind::InvalidImage,
            "no pixel data",
        );
        check(plain().without((0x28, 0x10)).file(), ErrorKind::InvalidImage, "`Rows`");
    }

    #[test]
    fn bombs_stop_at_their_bound() {
        let limits = Limits {
            file_bytes_max: 1 << 20,
            ..Limits::default()
        };
        let zeros = deflate(&vec![0; 64 << 20]);
        let mut file = plain().syntax(DEFLATED).file();
        let data_set_at = 132 + 8 + 22;
        file.truncate(data_set_at);
        file.extend(&zeros);
        assert!(file.len() < 1 << 20);
        let opened = File::open(&file).unwrap();
        assert_eq!(opened.inflated(&limits).unwrap_err().kind(), ErrorKind::TooLarge);
        file.truncate(data_set_at + 100);
        let cut = File::open(&file).unwrap();
        assert_eq!(cut.inflated(&limits).unwrap_err().kind(), ErrorKind::InvalidImage);
    }

    proptest! {
        #[test]
        fn damage_never_panics(
            changes in prop::collection::vec((0_usize..1000, any::<u8>()), 0..6),
            keep in 0_usize..1000,
            syntax in prop::sample::select(vec![EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED]),
        ) {
            let mut file = plain().extra(nested(3)).syntax(syntax).file();
            for (at, value) in changes {
                let at = at % file.len();
                file[at] = value;
            }
            file.truncate(file.len() - keep % 40);
            let _ = check(&file, FrameNumber::FIRST, &Limits::default());
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..300), implicit in any::<bool>()) {
            let syntax = if implicit { Syntax::IMPLICIT } else { Syntax::EXPLICIT };
            let _ = walk(&noise, syntax, &Limits::default());
        }
    }
}
