//! What a DICOM header says, read without the pixels and without a worker: whose the object is, and whether it is an image at all.

use std::fmt;
use std::io::Read;
use std::panic::catch_unwind;

use super::attributes::{self, DicomTexts};
use super::elements::Tag;
use super::invalid;
use super::precheck::{File, Meta, check, survey};
use super::syntax::Syntax;
use crate::domain::{FRAMES_MAX, FrameNumber, Uid};
use crate::error::Result;
use crate::imaging::decoder::Provenance;
use crate::imaging::limits::Limits;

/// Of a deflated data set no more than this is inflated to find the pixel data, in bytes.
const INFLATED_BYTES_MAX: usize = 4 << 20;
/// Longest value that is kept of a header.
const VALUE_BYTES_MAX: usize = 1024;

const SOP_CLASS: Tag = (0x0008, 0x0016);
const SOP_UID: Tag = (0x0008, 0x0018);
const NUMBER_OF_FRAMES: Tag = (0x0028, 0x0008);
/// An image says how large it is: Rows, Columns, BitsAllocated.
const SIZE: [Tag; 3] = [(0x0028, 0x0010), (0x0028, 0x0011), (0x0028, 0x0100)];

/// The names of an object: what a meta group says before anything else is read. `Debug` shows none.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Named {
    /// SOP Class UID.
    pub sop_class: Option<String>,
    /// SOP Instance UID.
    pub sop_uid: Option<String>,
}

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named").finish_non_exhaustive()
    }
}

/// Identifiers and kind of a DICOM object. `Debug` shows no value.
#[derive(Clone, PartialEq, Eq)]
pub struct DicomFacts {
    /// SOP Class UID.
    pub sop_class: Option<String>,
    /// What else is said of it.
    pub provenance: Provenance,
    /// It has pixel data, or says how large that should be.
    pub image: bool,
    /// How many frames it says it has, 1 where it says nothing that makes sense: 1..=[`FRAMES_MAX`].
    pub frames: u32,
}

impl fmt::Debug for DicomFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DicomFacts")
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

impl DicomFacts {
    /// Reads them from a Part 10 file, of any transfer syntax.
    ///
    /// # Errors
    /// `TooLarge`; `InvalidImage` for what is no DICOM, or broken before its pixel data.
    pub fn read(bytes: &[u8], limits: &Limits) -> Result<Self> {
        Ok(Self::read_texts(bytes, limits, false)?.0)
    }

    /// Reads them, and the free text beside them if it is `wanted`.
    ///
    /// # Errors
    /// As [`DicomFacts::read`].
    pub fn read_texts(bytes: &[u8], limits: &Limits, wanted: bool) -> Result<(Self, DicomTexts)> {
        limits.check_file(bytes.len())?;
        // The elements are few and short by now, but what reads their text is not ours.
        catch_unwind(|| read(bytes, wanted)).unwrap_or_else(|_| Err(invalid("its header breaks its reader")))
    }

    /// Which object it says it is, even where nothing else can be read.
    pub fn named(bytes: &[u8]) -> Named {
        let meta = Meta::read(bytes).ok();
        let uid = |uid: Option<&str>| uid.filter(|uid| Uid::is(uid)).map(str::to_owned);
        Named {
            sop_class: uid(meta.as_ref().and_then(|meta| meta.sop_class)),
            sop_uid: uid(meta.as_ref().and_then(|meta| meta.sop_uid)),
        }
    }

    /// Whether the structure and the sizes of an image are such that a worker may try to decode it.
    ///
    /// # Errors
    /// `TooLarge`, `TooManyPixels`, `InvalidImage`, `UnsupportedMedia`.
    pub fn check(bytes: &[u8], limits: &Limits) -> Result<()> {
        check(bytes, FrameNumber::FIRST, limits)
    }

    /// Whether the transfer syntax is one that is read here.
    pub fn is_syntax_read(bytes: &[u8]) -> bool {
        let syntax = Meta::read(bytes).ok().and_then(|meta| meta.syntax);
        syntax.is_some_and(|uid| Syntax::from_uid(uid).is_ok())
    }
}

fn read(bytes: &[u8], with_texts: bool) -> Result<(DicomFacts, DicomTexts)> {
    let meta = Meta::read(bytes)?;
    let uid = meta.syntax.ok_or_else(|| invalid("it names no transfer syntax"))?;
    // Compressed pixels of whatever kind lie in explicit little endian (PS3.5, A.4).
    let syntax = Syntax::from_uid(uid).unwrap_or(Syntax::EXPLICIT);
    let file = File::of(syntax, meta.data_set);
    let mut inflated = Vec::new();
    let data_set = if file.syntax.deflated {
        // What is broken further on is found when it is decoded.
        let stream = flate2::read::DeflateDecoder::new(file.data_set);
        let _ = stream.take(INFLATED_BYTES_MAX as u64).read_to_end(&mut inflated);
        inflated.as_slice()
    } else {
        file.data_set
    };
    let survey = survey(data_set, file.syntax)?;
    let plain = |tag: Tag| {
        let header = survey.elements.iter().rfind(|header| header.tag == tag)?;
        let text = std::str::from_utf8(&data_set[header.range()]).ok()?;
        Some(text.trim_matches(['\0', ' ']))
    };
    let value = |tag: Tag| plain(tag).filter(|text| Uid::is(text)).map(str::to_owned);
    let named = DicomFacts::named(bytes);
    let mut provenance = attributes::provenance(data_set, file.syntax, &survey.elements)?;
    provenance.drop_longer_than(VALUE_BYTES_MAX);
    provenance.sop_uid = value(SOP_UID).or(named.sop_uid);
    let texts = match with_texts {
        true => attributes::texts(data_set, file.syntax, &survey.elements),
        false => DicomTexts::default(),
    };
    let frames = plain(NUMBER_OF_FRAMES).and_then(|digits| digits.parse::<u32>().ok());
    let sized = || survey.elements.iter().any(|header| SIZE.contains(&header.tag));
    let facts = DicomFacts {
        sop_class: value(SOP_CLASS).or(named.sop_class),
        provenance,
        image: survey.pixels_at.is_some() || sized(),
        frames: frames.unwrap_or(1).clamp(1, FRAMES_MAX),
    };
    Ok((facts, texts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::dicom::testing::{BIG_ENDIAN, DEFLATED, Dicom, EXPLICIT, IMPLICIT, nested};

    fn element(tag: Tag, vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
        let mut bytes = [tag.0.to_le_bytes(), tag.1.to_le_bytes()].concat();
        bytes.extend_from_slice(vr);
        bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
        bytes.extend_from_slice(value);
        bytes
    }

    fn facts(bytes: &[u8]) -> Result<DicomFacts> {
        DicomFacts::read(bytes, &Limits::default())
    }

    /// A file with these elements and nothing else.
    fn file(elements: &[Vec<u8>]) -> Vec<u8> {
        let meta = element((2, 0x10), b"UI", b"1.2.840.10008.1.2.1\0");
        [&[0; 128][..], b"DICM", &meta, &elements.concat()].concat()
    }

    #[test]
    fn images_are_told_from_reports_in_every_syntax() {
        for syntax in [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED] {
            let image = Dicom::gray16(2, 2, &[1, 2, 3, 4]).syntax(syntax).file();
            assert!(facts(&image).unwrap().image, "{syntax}");
        }
        let report = file(&[
            element(SOP_CLASS, b"UI", b"1.2.840.10008.5.1.4.1.1.88.11\0"),
            element(SOP_UID, b"UI", b"1.2.3.4\0"),
            element((8, 0x60), b"CS", b"SR"),
            nested(3),
        ]);
        let report = facts(&report).unwrap();
        assert!(!report.image);
        assert_eq!(report.sop_class.as_deref(), Some("1.2.840.10008.5.1.4.1.1.88.11"));
        assert_eq!(report.provenance.sop_uid.as_deref(), Some("1.2.3.4"));
        assert_eq!(report.provenance.modality.as_deref(), Some("SR"));
        assert!(!format!("{report:?}").contains("1.2.3.4"));
    }

    #[test]
    fn frames_are_counted_and_texts_read_when_they_are_wanted() {
        for syntax in [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED] {
            let image = Dicom::gray16(1, 1, &[1, 2, 3])
                .syntax(syntax)
                .text((0x28, 0x08), b"IS", "3")
                .text((0x08, 0x1030), b"LO", "Thorax, no finding")
                .text((0x18, 0x1030), b"LO", "p");
            let file = image.file();
            let read = |wanted| DicomFacts::read_texts(&file, &Limits::default(), wanted).unwrap();
            let (facts, texts) = read(true);
            assert_eq!(facts.frames, 3, "{syntax}");
            assert_eq!(
                texts.study_description.as_deref(),
                Some("Thorax, no finding"),
                "{syntax}"
            );
            assert_eq!(
                (texts.protocol_name.as_deref(), &texts.series_description),
                (Some("p"), &None)
            );
            assert!(!format!("{texts:?}").contains("Thorax"));
            assert_eq!(read(false), (facts, DicomTexts::default()));
        }
        let latin = Dicom::gray8(1, 1, &[1]).text((0x08, 0x05), b"CS", "ISO_IR 100").raw(
            (0x20, 0x4000),
            b"LT",
            b"gr\xf6\xdfer ".to_vec(),
        );
        let (facts, texts) = DicomFacts::read_texts(&latin.file(), &Limits::default(), true).unwrap();
        assert_eq!((facts.frames, texts.image_comments.as_deref()), (1, Some("größer")));
        for odd in ["0", "-3", "many", "4294967296"] {
            let file = Dicom::gray8(1, 1, &[1]).text((0x28, 0x08), b"IS", odd).file();
            assert_eq!(facts_of(&file).frames, 1, "{odd}");
        }
        let file = Dicom::gray8(1, 1, &[1]).text((0x28, 0x08), b"IS", "99999").file();
        assert_eq!(facts_of(&file).frames, FRAMES_MAX);
    }

    fn facts_of(file: &[u8]) -> DicomFacts {
        facts(file).unwrap()
    }

    #[test]
    fn an_image_without_its_pixels_is_broken_and_no_report() {
        let cut = file(&[element((0x28, 0x10), b"US", &[2, 0])]);
        assert!(facts(&cut).unwrap().image);
        assert!(DicomFacts::check(&cut, &Limits::default()).is_err());
    }

    #[test]
    fn nothing_of_a_broken_file_breaks_the_reader() {
        let whole = Dicom::gray16(2, 2, &[1, 2, 3, 4]).extra(nested(2)).file();
        for cut in 0..whole.len() {
            let _ = facts(&whole[..cut]);
            let mut flipped = whole.clone();
            flipped[cut] ^= 0xff;
            let _ = facts(&flipped);
        }
        assert!(facts(b"GIF89a").is_err() && facts(b"").is_err());
        assert_eq!(DicomFacts::named(b""), Named::default());
    }
}
