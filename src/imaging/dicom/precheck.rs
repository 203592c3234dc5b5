//! Bounds on a DICOM file, checked on its bytes before any parser or decoder sees them.

use std::borrow::Cow;
use std::io::{self, Read};
use std::ops::Range;

use dicom_core::VR;
use dicom_core::dictionary::{DataDictionary, DataDictionaryEntry};
use dicom_dictionary_std::StandardDataDictionary;

use super::elements::{Header, ITEM, ITEM_END, SEQUENCE_END, Tag, number};
use super::syntax::{Coding, Syntax};
use super::{invalid, jpeg2000, unsupported};
use crate::domain::{FRAMES_MAX, FrameNumber, FrameOf};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::limits::Limits;
use crate::imaging::{jpeg, jpeg_ls};

/// Deepest nesting of sequences; structured reports stay below ten.
pub const NESTING_MAX: usize = 32;
/// Most elements, items and fragments of a file.
pub const ELEMENTS_MAX: u32 = 1_000_000;
/// A deflated data set may grow to this many times the limit of a file.
const INFLATED_FILES_MAX: usize = 2;

const META_AT: usize = 132;
const MODALITY_LUT: Tag = (0x0028, 0x3000);
const EXTENDED_OFFSETS: Tag = (0x7fe0, 0x0001);
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
    /// Size of the pixel data.
    pub shape: Shape,
    /// Pixel data has chroma at half width (YBR_FULL_422), uncompressed.
    pub halved_chroma: bool,
    /// Where the pixel data lies.
    pub pixels: Pixels,
}

impl<'a> Layout<'a> {
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

/// A sequence or an item that is open.
struct Level {
    item: bool,
    /// The Modality LUT Sequence of the outermost level, or an item of it.
    modality_lut: bool,
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
    layout(bytes, syntax, survey.elements, survey.modality_lut, pixels, limits)
}

/// What stands before the pixel data.
pub struct Survey {
    /// Elements of the outermost level, sequences left out.
    pub elements: Vec<Header>,
    /// Those of the item of the Modality LUT Sequence.
    pub modality_lut: Vec<Header>,
    /// Where the element of the pixel data begins; none: there is none.
    pub pixels_at: Option<usize>,
}

/// Walks all elements up to the pixel data, of whole numbers or floating point, or to the end.
///
/// # Errors
/// `InvalidImage`.
pub fn survey(bytes: &[u8], syntax: Syntax) -> Result<Survey> {
    let (mut elements, mut modality_lut) = (Vec::new(), Vec::new());
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
                    open.push(Level {
                        item: false,
                        modality_lut: open.is_empty() && tag == MODALITY_LUT,
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

/// Puts the parts together and checks the size of what they promise.
fn layout<'a>(
    bytes: &'a [u8],
    syntax: Syntax,
    elements: Vec<Header>,
    modality_lut: Vec<Header>,
    pixels: Pixels,
    limits: &Limits,
) -> Result<Layout<'a>> {
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
    Ok(Layout {
        bytes,
        syntax,
        elements,
        modality_lut,
        shape,
        halved_chroma,
        pixels,
    })
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

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..300), implicit in any::<bool>()) {
            let syntax = if implicit { Syntax::IMPLICIT } else { Syntax::EXPLICIT };
            let _ = walk(&noise, syntax, &Limits::default());
        }
    }
}
