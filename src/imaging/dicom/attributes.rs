//! What the header says, read by dicom-rs from a flat copy of the few elements that matter.

use std::fmt;

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use dicom_transfer_syntax_registry::{TransferSyntaxIndex, TransferSyntaxRegistry};

use super::burned_in::Signs;
use super::elements::Header;
use super::layout::Layout;
use super::syntax::{Coding, Syntax};
use super::{invalid, unsupported};
use crate::error::Result;
use crate::imaging::decoder::Provenance;
use crate::imaging::raster::Padding;
use crate::imaging::voi::{Function, Voi};

/// Longest value that is looked at, in bytes; the standard's own bound for text of one line is 64 characters.
const VALUE_BYTES_MAX: usize = 1024;

/// Retired, and still in archives.
const BIG_ENDIAN_UID: &str = "1.2.840.10008.1.2.2";

/// Everything that is read of an image, and kept in one form or another; the rest of the file never reaches a parser, and so no archive. This is the allow-list of de-identification: of what PS3.15,
/// annex E, lists, only the patient's id, its issuer and the UIDs are among them, which become keyed digests, and sex and age, which stand as codes
/// and whole years. `docs/deidentification.md` says of each what becomes of it.
const WANTED: [Tag; 27] = [
    tags::IMAGE_TYPE,
    tags::SOP_CLASS_UID,
    tags::CONVERSION_TYPE,
    tags::BURNED_IN_ANNOTATION,
    tags::SPECIFIC_CHARACTER_SET,
    tags::SOP_INSTANCE_UID,
    tags::MODALITY,
    tags::PATIENT_ID,
    tags::ISSUER_OF_PATIENT_ID,
    tags::PATIENT_SEX,
    tags::PATIENT_AGE,
    tags::BODY_PART_EXAMINED,
    tags::VIEW_POSITION,
    tags::STUDY_INSTANCE_UID,
    tags::SERIES_INSTANCE_UID,
    tags::PHOTOMETRIC_INTERPRETATION,
    tags::PLANAR_CONFIGURATION,
    tags::BITS_STORED,
    tags::HIGH_BIT,
    tags::PIXEL_REPRESENTATION,
    tags::PIXEL_PADDING_VALUE,
    tags::PIXEL_PADDING_RANGE_LIMIT,
    tags::RESCALE_INTERCEPT,
    tags::RESCALE_SLOPE,
    tags::WINDOW_CENTER,
    tags::WINDOW_WIDTH,
    tags::VOILUT_FUNCTION,
];

/// What is read beside it where an archive has rules that look at it: held against these, and let go.
const TEXTS: [Tag; 5] = [
    tags::SPECIFIC_CHARACTER_SET,
    tags::STUDY_DESCRIPTION,
    tags::SERIES_DESCRIPTION,
    tags::PROTOCOL_NAME,
    tags::IMAGE_COMMENTS,
];

/// Free text of a header, which may name somebody: to be looked at, and not to be kept. `Debug` shows none.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct DicomTexts {
    /// StudyDescription.
    pub study_description: Option<String>,
    /// SeriesDescription.
    pub series_description: Option<String>,
    /// ProtocolName.
    pub protocol_name: Option<String>,
    /// ImageComments.
    pub image_comments: Option<String>,
}

impl fmt::Debug for DicomTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DicomTexts").finish_non_exhaustive()
    }
}

/// PhotometricInterpretation (PS3.3, C.7.6.3.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Photometric {
    /// MONOCHROME1: 0 is white.
    Monochrome1,
    /// MONOCHROME2: 0 is black.
    Monochrome2,
    /// PALETTE COLOR.
    Palette,
    /// RGB.
    Rgb,
    /// YBR_FULL, or YBR_FULL_422, which differs only in how it is stored.
    YbrFull,
}

/// The image pixel module and the modality rescale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attributes {
    /// What samples mean.
    pub photometric: Photometric,
    /// Samples of one kind are stored together.
    pub planes: bool,
    /// Bits of a sample that count, 1..=BitsAllocated.
    pub bits_stored: u16,
    /// The highest of them.
    pub high_bit: u16,
    /// Samples are two's complement.
    pub signed: bool,
    /// PixelPaddingValue, up to PixelPaddingRangeLimit where there is one.
    pub padding: Option<Padding>,
    /// RescaleSlope; 0 and nothing count as 1.
    pub slope: f64,
    /// RescaleIntercept.
    pub intercept: f64,
    /// The window that the file proposes: the first of several, if it is one.
    pub voi: Option<Voi>,
}

/// Reads both.
///
/// # Errors
/// `InvalidImage`, `UnsupportedMedia` for a photometric interpretation.
pub fn read(layout: &Layout<'_>) -> Result<(Attributes, Provenance)> {
    let object = parse(layout.bytes, layout.syntax, &layout.elements, &WANTED)?;
    let text = |tag| text(&object, tag);
    let number = |tag, default: u16| {
        let number = object.get(tag).and_then(|element| element.to_int::<u16>().ok());
        number.unwrap_or(default)
    };
    let photometric = match text(tags::PHOTOMETRIC_INTERPRETATION).as_deref() {
        Some("MONOCHROME1") => Photometric::Monochrome1,
        Some("MONOCHROME2") => Photometric::Monochrome2,
        Some("PALETTE COLOR") => Photometric::Palette,
        Some("RGB") => Photometric::Rgb,
        Some("YBR_FULL" | "YBR_FULL_422") => Photometric::YbrFull,
        // What its decoder makes of the transformed components (PS3.5, 8.2.4).
        Some("YBR_ICT" | "YBR_RCT") if layout.syntax.coding == Coding::Jpeg2000 => Photometric::Rgb,
        Some(
            known @ ("YBR_PARTIAL_422" | "YBR_PARTIAL_420" | "YBR_ICT" | "YBR_RCT" | "XYB" | "HSV" | "ARGB" | "CMYK"),
        ) => {
            return Err(unsupported(format!(
                "the photometric interpretation `{known}` is not read"
            )));
        }
        Some(_) => return Err(unsupported("the photometric interpretation is unknown")),
        None => return Err(invalid("`PhotometricInterpretation` is missing")),
    };
    let bits_stored = number(tags::BITS_STORED, layout.shape.bits_allocated);
    let high_bit = number(tags::HIGH_BIT, bits_stored.saturating_sub(1));
    if bits_stored == 0 || high_bit >= layout.shape.bits_allocated || high_bit + 1 < bits_stored {
        return Err(invalid(format!(
            "`{bits_stored}` stored bits up to bit `{high_bit}` make no sense"
        )));
    }
    let signed = number(tags::PIXEL_REPRESENTATION, 0) == 1;
    // Without a VR, or written as US for signed pixels, a negative value arrives as 2^16 more.
    let in_range = |value: i32| {
        if signed && value > 32_767 {
            value - 65_536
        } else {
            value
        }
    };
    let stored_value = |tag| Some(in_range(object.get(tag)?.to_int::<i32>().ok()?));
    let limit = stored_value(tags::PIXEL_PADDING_RANGE_LIMIT);
    let padding = stored_value(tags::PIXEL_PADDING_VALUE);
    let slope = decimal(&object, tags::RESCALE_SLOPE)?
        .filter(|&slope| slope != 0.0)
        .unwrap_or(1.0);
    let attributes = Attributes {
        photometric,
        planes: number(tags::PLANAR_CONFIGURATION, 0) == 1,
        bits_stored,
        high_bit,
        signed,
        padding: padding.map(|value| Padding::between(value, limit.unwrap_or(value))),
        slope,
        intercept: decimal(&object, tags::RESCALE_INTERCEPT)?.unwrap_or(0.0),
        voi: voi(&object),
    };
    let provenance = said(&object);
    Ok((attributes, provenance))
}

/// What elements say of the image, without its pixels.
///
/// # Errors
/// `InvalidImage`.
pub fn provenance(bytes: &[u8], syntax: Syntax, elements: &[Header]) -> Result<Provenance> {
    Ok(said(&parse(bytes, syntax, elements, &WANTED)?))
}

/// The free text among elements; what is longer than a value may be, or can't be read, is not there.
pub fn texts(bytes: &[u8], syntax: Syntax, elements: &[Header]) -> DicomTexts {
    let Ok(object) = parse(bytes, syntax, elements, &TEXTS) else {
        return DicomTexts::default();
    };
    let text = |tag| text(&object, tag);
    DicomTexts {
        study_description: text(tags::STUDY_DESCRIPTION),
        series_description: text(tags::SERIES_DESCRIPTION),
        protocol_name: text(tags::PROTOCOL_NAME),
        image_comments: text(tags::IMAGE_COMMENTS),
    }
}

fn said(object: &InMemDicomObject) -> Provenance {
    let text = |tag| text(object, tag);
    let signs = [
        tags::BURNED_IN_ANNOTATION,
        tags::SOP_CLASS_UID,
        tags::MODALITY,
        tags::IMAGE_TYPE,
        tags::CONVERSION_TYPE,
    ]
    .map(text);
    let [annotation, sop_class, modality, image_type, conversion] = signs.each_ref().map(Option::as_deref);
    let signs = Signs {
        annotation,
        sop_class,
        modality,
        image_type,
        conversion,
    };
    Provenance {
        burned_in: signs.burned_in(),
        patient_id: text(tags::PATIENT_ID),
        issuer: text(tags::ISSUER_OF_PATIENT_ID),
        study_uid: text(tags::STUDY_INSTANCE_UID),
        series_uid: text(tags::SERIES_INSTANCE_UID),
        sop_uid: text(tags::SOP_INSTANCE_UID),
        view: text(tags::VIEW_POSITION).filter(|text| is_code(text)),
        age: text(tags::PATIENT_AGE).and_then(|age| years(&age)),
        sex: text(tags::PATIENT_SEX).filter(|text| is_code(text)),
        modality: text(tags::MODALITY).filter(|text| is_code(text)),
        body_part: text(tags::BODY_PART_EXAMINED).filter(|text| is_code(text)),
    }
}

/// A code string (PS3.5 6.2, VR CS). Anything else in its place is free text, which may name somebody.
fn is_code(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'_');
    text.len() <= 16 && text.bytes().all(allowed)
}

/// Whole years of an age string (PS3.5 6.2, VR AS: `045Y`, `006M`, `012W`, `010D`); none for anything else.
fn years(age: &str) -> Option<String> {
    let (digits, unit) = age.split_at_checked(age.len().checked_sub(1)?)?;
    let in_a_year = match unit {
        "Y" => 1,
        "M" => 12,
        "W" => 52,
        "D" => 365,
        _ => return None,
    };
    let plain = (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: u32 = digits.parse().ok().filter(|_| plain)?;
    Some((count / in_a_year).to_string())
}

/// The wanted elements as a data set of their own.
///
/// Little endian ones are rewritten without a VR, so that the dictionary decides and not what a file calls `UN`.
fn parse(bytes: &[u8], syntax: Syntax, elements: &[Header], wanted: &[Tag]) -> Result<InMemDicomObject> {
    let big_endian = syntax.big_endian;
    let mut flat = Vec::new();
    for header in elements {
        let range = header.range();
        if range.len() > VALUE_BYTES_MAX || !wanted.contains(&Tag(header.tag.0, header.tag.1)) {
            continue;
        }
        if big_endian {
            flat.extend_from_slice(&bytes[header.start..range.end]);
        } else {
            flat.extend_from_slice(&header.tag.0.to_le_bytes());
            flat.extend_from_slice(&header.tag.1.to_le_bytes());
            flat.extend_from_slice(&(range.len() as u32).to_le_bytes());
            flat.extend_from_slice(&bytes[range]);
        }
    }
    let uid = if big_endian {
        BIG_ENDIAN_UID
    } else {
        uids::IMPLICIT_VR_LITTLE_ENDIAN
    };
    let syntax = TransferSyntaxRegistry
        .get(uid)
        .expect("the registry has the uncompressed syntaxes");
    // The cause is dropped: its text may hold what the file says about a person.
    InMemDicomObject::read_dataset_with_ts(flat.as_slice(), syntax).map_err(|_| invalid("an attribute can't be read"))
}

fn text(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    let text = object.get(tag)?.to_str().ok()?;
    let trimmed = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

fn decimal(object: &InMemDicomObject, tag: Tag) -> Result<Option<f64>> {
    let Some(text) = text(object, tag) else { return Ok(None) };
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(Some(number)),
        _ => Err(invalid("the rescale is not a number")),
    }
}

/// The first window of the file; none that makes no sense: a window is a proposal.
fn voi(object: &InMemDicomObject) -> Option<Voi> {
    let function = match text(object, tags::VOILUT_FUNCTION).as_deref() {
        None | Some("LINEAR") => Function::Linear,
        Some("LINEAR_EXACT") => Function::LinearExact,
        Some("SIGMOID") => Function::Sigmoid,
        Some(_) => return None,
    };
    let center = first_decimal(object, tags::WINDOW_CENTER)?;
    Voi::new(center, first_decimal(object, tags::WINDOW_WIDTH)?, function)
}

/// The first of several decimal strings (PS3.5 6.2, VR DS).
fn first_decimal(object: &InMemDicomObject, tag: Tag) -> Option<f64> {
    let text = text(object, tag)?;
    let first = text.split('\\').next()?.trim();
    let is_decimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let number: f64 = first.parse().ok().filter(|_| first.bytes().all(is_decimal))?;
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_whole_years() {
        let cases = [
            ("045Y", "45"),
            ("100Y", "100"),
            ("006M", "0"),
            ("030M", "2"),
            ("012W", "0"),
            ("060W", "1"),
            ("010D", "0"),
            ("730D", "2"),
        ];
        for (age, expected) in cases {
            assert_eq!(years(age).as_deref(), Some(expected), "{age}");
        }
        for age in ["", "Y", "45", "0045Y", "4 Y", "+45Y", "45y", "Mueller 4Y", "ÄY", "4Ä"] {
            assert_eq!(years(age), None, "{age}");
        }
    }

    #[test]
    fn free_text_is_no_code() {
        for (text, code) in [
            ("PA", true),
            ("LEFT LATERAL_2", true),
            ("Mueller Hans PA", false),
            ("MUELLER HANS PATIENT", false),
        ] {
            assert_eq!(is_code(text), code, "{text}");
        }
    }
}
