//! What an answer says of a study, a series, an instance: what the archive keeps and nothing else, so that what is required and not kept is empty.

use super::json::{DataSet, Value, Vr};
use super::shown::Names;
use super::tags;
use crate::domain::{Record, Window};
use crate::imaging::PixelLayout;
use crate::pacs::BaseUrl;
use crate::search::Level;

/// Answers are UTF-8.
const CHARACTER_SET: &str = "ISO_IR 192";
/// What a retrieved instance is: a picture that was made from another one (PS3.4, B.5).
const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
/// The same of many frames: grey of a byte, grey of a word, colour.
const OF_FRAMES: [&str; 3] = [
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7.3",
    "1.2.840.10008.5.1.4.1.1.7.4",
];
/// Modality of what does not say.
const OTHER: &str = "OT";
/// How identities were taken out (PS3.15, table E.1-1; PS3.16, CID 7050).
const METHOD: &str = "allow-list of attributes, UIDs and patient as keyed digests";
const METHODS: [(&str, &str); 2] = [
    ("113100", "Basic Application Confidentiality Profile"),
    ("113108", "Retain Patient Characteristics Option"),
];

/// Things of a study or series, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Series of its study.
    pub study_series: u32,
    /// Instances of its study.
    pub study_instances: u32,
    /// Instances of its series.
    pub series_instances: u32,
    /// Frames of the instance.
    pub frames: u32,
}

/// The modality, also of what does not say.
pub fn modality(record: &Record) -> String {
    let tag = record.tags.get("modality");
    tag.and_then(|text| code(text)).unwrap_or_else(|| OTHER.to_owned())
}

/// BodyPartExamined.
pub fn body_part(record: &Record) -> Option<String> {
    code(record.tags.get("body_part")?)
}

/// ViewPosition.
pub fn view(record: &Record) -> Option<String> {
    code(record.view.as_ref()?)
}

/// A code string (PS3.5, 6.2, VR CS) of what a data set calls something, if it is one but for the letters' case.
fn code(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_uppercase();
    let allowed = |byte: u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'_');
    ((1..=16).contains(&text.len()) && text.bytes().all(allowed)).then_some(text)
}

/// PatientSex: M, F, O, or nothing.
pub fn sex(record: &Record) -> Option<&'static str> {
    match record.sex.as_deref()?.trim().as_bytes().first()?.to_ascii_uppercase() {
        b'M' => Some("M"),
        b'F' | b'W' => Some("F"),
        b'O' | b'D' => Some("O"),
        _ => None,
    }
}

/// PatientAge in years (PS3.5, 6.2, VR AS). Above 89 all are one group, which begins at 90.
fn age(record: &Record) -> Option<String> {
    let years: f64 = record.age.as_deref()?.trim().trim_end_matches('+').parse().ok()?;
    (0.0..1000.0).contains(&years).then(|| format!("{:03}Y", years as u32))
}

/// What a search says of a match, with what is above it (PS3.18, 10.6.3.3). `base` is where clients see `/dicom-web`: without it nothing is said of where the
/// match can be retrieved; what is not kept, so that it can't be, has an empty RetrieveURL.
pub fn found(
    level: Level,
    names: &Names,
    record: &Record,
    modalities: Vec<String>,
    counts: Counts,
    base: Option<&BaseUrl>,
) -> DataSet {
    let mut set = DataSet::default();
    let availability = if record.pixels.is_some() {
        "ONLINE"
    } else {
        "UNAVAILABLE"
    };
    study(&mut set, names, record);
    set.text(tags::INSTANCE_AVAILABILITY, Vr::Cs, availability)
        .put(
            tags::MODALITIES_IN_STUDY,
            Vr::Cs,
            modalities.into_iter().map(Value::Text).collect(),
        )
        .number(tags::STUDY_RELATED_SERIES, Vr::Is, counts.study_series)
        .number(tags::STUDY_RELATED_INSTANCES, Vr::Is, counts.study_instances);
    if let Some(base) = base {
        let reference = names.reference(level).filter(|_| record.pixels.is_some());
        let url = reference.and_then(|reference| base.retrieve_url(&reference));
        set.maybe(tags::RETRIEVE_URL, Vr::Ur, url);
    }
    if level >= Level::Series {
        series(&mut set, names, record);
        set.number(tags::SERIES_RELATED_INSTANCES, Vr::Is, counts.series_instances);
    }
    if level == Level::Instance {
        instance(&mut set, names, record);
        set.text(tags::SOP_CLASS_UID, Vr::Ui, SECONDARY_CAPTURE);
        if let Some(pixels) = &record.pixels {
            set.number(tags::ROWS, Vr::Us, pixels.height)
                .number(tags::COLUMNS, Vr::Us, pixels.width);
            if counts.frames > 1 {
                set.number(tags::NUMBER_OF_FRAMES, Vr::Is, counts.frames);
            }
        }
    }
    set
}

/// Everything of an instance but its pixels; `pixels` is what these are, and which frames of its file, where they are kept.
pub fn metadata(names: &Names, record: &Record, pixels: Option<(PixelLayout, &[u32])>) -> DataSet {
    let mut set = DataSet::default();
    study(&mut set, names, record);
    series(&mut set, names, record);
    instance(&mut set, names, record);
    deidentified(&mut set, names);
    let class = match pixels {
        Some((layout, frames)) if frames.len() > 1 => match (layout.samples, layout.bits) {
            (1, 8) => OF_FRAMES[0],
            (1, _) => OF_FRAMES[1],
            _ => OF_FRAMES[2],
        },
        _ => SECONDARY_CAPTURE,
    };
    set.text(tags::SOP_CLASS_UID, Vr::Ui, class)
        .text(tags::CONVERSION_TYPE, Vr::Cs, "WSD")
        .put(
            tags::IMAGE_TYPE,
            Vr::Cs,
            ["DERIVED", "SECONDARY"].map(|word| Value::Text(word.to_owned())).into(),
        );
    if let Some((layout, frames)) = pixels {
        image(&mut set, layout, frames.len() as u32, record.window());
        source(&mut set, names, class, frames);
    }
    set
}

/// Says which frames of the file are here, where some are not: they are counted from 1 in what is retrieved (PS3.3, C.7.6.1.1.4).
fn source(set: &mut DataSet, names: &Names, class: &str, frames: &[u32]) {
    if frames.iter().copied().eq(1..=frames.len() as u32) {
        return;
    }
    let mut file = DataSet::default();
    file.text(tags::REFERENCED_SOP_CLASS_UID, Vr::Ui, class)
        .text(tags::REFERENCED_SOP_INSTANCE_UID, Vr::Ui, &*names.sop)
        .put(
            tags::REFERENCED_FRAME_NUMBER,
            Vr::Is,
            frames.iter().map(|number| Value::Whole(*number)).collect(),
        );
    set.put(tags::SOURCE_IMAGE_SEQUENCE, Vr::Sq, vec![Value::Item(file)]);
}

fn study(set: &mut DataSet, names: &Names, record: &Record) {
    set.text(tags::SPECIFIC_CHARACTER_SET, Vr::Cs, CHARACTER_SET)
        .text(tags::STUDY_INSTANCE_UID, Vr::Ui, &*names.study)
        .maybe(tags::PATIENT_ID, Vr::Lo, names.patient_id.as_deref())
        .maybe(tags::PATIENT_SEX, Vr::Cs, sex(record));
    for (tag, vr) in [
        (tags::PATIENT_NAME, Vr::Pn),
        (tags::PATIENT_BIRTH_DATE, Vr::Da),
        (tags::STUDY_DATE, Vr::Da),
        (tags::STUDY_TIME, Vr::Tm),
        (tags::ACCESSION_NUMBER, Vr::Sh),
        (tags::REFERRING_PHYSICIAN_NAME, Vr::Pn),
        (tags::STUDY_ID, Vr::Sh),
    ] {
        set.maybe(tag, vr, None::<String>);
    }
    if let Some(issuer) = &names.issuer {
        set.text(tags::ISSUER_OF_PATIENT_ID, Vr::Lo, issuer);
    }
    if let Some(age) = age(record) {
        set.text(tags::PATIENT_AGE, Vr::As, age);
    }
}

fn series(set: &mut DataSet, names: &Names, record: &Record) {
    set.text(tags::SERIES_INSTANCE_UID, Vr::Ui, &*names.series)
        .text(tags::MODALITY, Vr::Cs, modality(record))
        .maybe(tags::SERIES_NUMBER, Vr::Is, None::<String>);
    if let Some(part) = body_part(record) {
        set.text(tags::BODY_PART_EXAMINED, Vr::Cs, part);
    }
}

fn instance(set: &mut DataSet, names: &Names, record: &Record) {
    set.text(tags::SOP_INSTANCE_UID, Vr::Ui, &*names.sop)
        .maybe(tags::INSTANCE_NUMBER, Vr::Is, None::<String>);
    if let Some(view) = view(record) {
        set.text(tags::VIEW_POSITION, Vr::Cs, view);
    }
    if record.tags.get("burned_in").is_some_and(|said| said == "declared") {
        set.text(tags::BURNED_IN_ANNOTATION, Vr::Cs, "YES");
    }
}

/// Says how identities were taken out; where they are shown they were not.
fn deidentified(set: &mut DataSet, names: &Names) {
    if names.original {
        set.text(tags::PATIENT_IDENTITY_REMOVED, Vr::Cs, "NO");
        return;
    }
    let code = |(value, meaning): (&str, &str)| {
        let mut code = DataSet::default();
        code.text(tags::CODE_VALUE, Vr::Sh, value)
            .text(tags::CODING_SCHEME, Vr::Sh, "DCM")
            .text(tags::CODE_MEANING, Vr::Lo, meaning);
        Value::Item(code)
    };
    set.text(tags::PATIENT_IDENTITY_REMOVED, Vr::Cs, "YES")
        .text(tags::DEIDENTIFICATION_METHOD, Vr::Lo, METHOD)
        .put(tags::DEIDENTIFICATION_CODES, Vr::Sq, METHODS.map(code).into());
}

/// The image pixel module (PS3.3, C.7.6.3), and the window that the embedding saw.
fn image(set: &mut DataSet, layout: PixelLayout, frames: u32, window: Option<Window>) {
    let photometric = match (layout.samples, layout.inverted) {
        (3, _) => "RGB",
        (_, true) => "MONOCHROME1",
        (_, false) => "MONOCHROME2",
    };
    set.number(tags::SAMPLES_PER_PIXEL, Vr::Us, layout.samples.into())
        .text(tags::PHOTOMETRIC_INTERPRETATION, Vr::Cs, photometric)
        .number(tags::ROWS, Vr::Us, layout.rows)
        .number(tags::COLUMNS, Vr::Us, layout.columns)
        .number(tags::BITS_ALLOCATED, Vr::Us, layout.bits.into())
        .number(tags::BITS_STORED, Vr::Us, layout.bits.into())
        .number(tags::HIGH_BIT, Vr::Us, u32::from(layout.bits) - 1)
        .number(tags::PIXEL_REPRESENTATION, Vr::Us, layout.signed.into());
    if layout.samples == 3 {
        set.number(tags::PLANAR_CONFIGURATION, Vr::Us, 0);
    }
    if frames > 1 {
        set.number(tags::NUMBER_OF_FRAMES, Vr::Is, frames);
    }
    let (low, high, sigmoid) = match window.filter(|_| layout.samples == 1) {
        None | Some(Window::Identity) => return,
        Some(Window::Percentile { low, high }) => (f64::from(low), f64::from(high), false),
        Some(Window::Fixed { low, high }) => (low, high, false),
        Some(Window::File { low, high, sigmoid }) => (low, high, sigmoid),
    };
    // PS3.3, C.11.2.1.2.1: black up to center - 0.5 - (width - 1) / 2, white from as much above. Of a sigmoid, C.11.2.1.3.1.
    let more = if sigmoid { 0.0 } else { 1.0 };
    set.put(
        tags::WINDOW_CENTER,
        Vr::Ds,
        vec![Value::Decimal(short((low + high + more) / 2.0))],
    )
    .put(
        tags::WINDOW_WIDTH,
        Vr::Ds,
        vec![Value::Decimal(short(high - low + more))],
    );
    if sigmoid {
        set.text(tags::VOI_LUT_FUNCTION, Vr::Cs, "SIGMOID");
    }
}

/// As many digits as fit the sixteen characters of a decimal string, of ends of windows.
fn short(value: f64) -> f64 {
    let parts = if value.abs() < 1e7 { 1e6 } else { 1e3 };
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ImageId, Key, PackRef, PixelsRef, Slot};

    fn record() -> Record {
        Record::bare(ImageId::new(Slot(0), Key([1; 16])), Key([2; 16]), "t")
    }

    fn names(original: bool) -> Names {
        Names {
            patient_id: Some("p_0".into()),
            issuer: None,
            study: "2.25.1".into(),
            series: "2.25.2".into(),
            sop: "2.25.3".into(),
            original,
        }
    }

    #[test]
    fn ages_and_sexes_are_as_dicom_has_them() {
        let age_of = |text: &str| {
            age(&Record {
                age: Some(text.into()),
                ..record()
            })
        };
        assert_eq!(
            ["45", "90+", "7", "0"].map(age_of),
            ["045Y", "090Y", "007Y", "000Y"].map(|age| Some(age.into()))
        );
        assert_eq!(["old", "", "-1", "1000"].map(age_of), [const { None }; 4]);
        let sex_of = |text: &str| {
            sex(&Record {
                sex: Some(text.into()),
                ..record()
            })
        };
        assert_eq!(
            ["M", "female", "O", "?", ""].map(sex_of),
            [Some("M"), Some("F"), Some("O"), None, None]
        );
    }

    #[test]
    fn metadata_says_what_the_pixels_are() {
        let layout = PixelLayout {
            columns: 4,
            rows: 3,
            samples: 1,
            bits: 16,
            signed: true,
            inverted: true,
        };
        let windowed = Record {
            window: Some(Window::Percentile { low: -100, high: 99 }.into()),
            ..record()
        };
        let set = metadata(&names(false), &windowed, Some((layout, &[1, 2, 3, 4, 5][..])));
        let shown = serde_json::to_value(&set).unwrap();
        for (tag, value) in [
            ("00080016", OF_FRAMES[1].into()),
            ("00280004", "MONOCHROME1".into()),
            ("00280008", 5.into()),
            ("00280010", 3.into()),
            ("00280102", 15.into()),
            ("00280103", 1.into()),
            ("00281050", serde_json::json!(0.0)),
            ("00281051", serde_json::json!(200.0)),
            ("00120062", "YES".into()),
            ("00080060", "OT".into()),
        ] {
            assert_eq!(shown[tag]["Value"][0], value, "{tag}");
        }
        let window = |window: Window| {
            let windowed = Record {
                window: Some(window.into()),
                ..record()
            };
            let shown = serde_json::to_value(metadata(&names(false), &windowed, Some((layout, &[1][..])))).unwrap();
            ["00281050", "00281051", "00281056"].map(|tag| shown[tag]["Value"][0].clone())
        };
        let (low, high) = (-326.0, 1000.0 / 3.0);
        let expected = [
            serde_json::json!(4.166667),
            serde_json::json!(660.333333),
            serde_json::Value::Null,
        ];
        assert_eq!(window(Window::Fixed { low, high }), expected);
        let sigmoid = window(Window::File {
            low,
            high,
            sigmoid: true,
        });
        assert_eq!(
            sigmoid,
            [
                serde_json::json!(3.666667),
                serde_json::json!(659.333333),
                "SIGMOID".into()
            ]
        );
        let bare = serde_json::to_value(metadata(&names(true), &record(), None)).unwrap();
        assert_eq!(bare["00120062"]["Value"][0], "NO");
        assert!(bare.get("00280010").is_none() && bare.get("00120064").is_none());
    }

    #[test]
    fn a_match_says_where_it_can_be_retrieved() {
        let base = BaseUrl::parse("https://x.example/dicom-web").unwrap();
        let pack = PackRef {
            object: "pixels/0".into(),
            offset: 0,
            length: 1,
            blake3: "0".repeat(32),
        };
        let kept = Record {
            pixels: Some(PixelsRef {
                pack,
                width: 1,
                height: 1,
                inverted: false,
                offset_levels: 0,
                other: Default::default(),
            }),
            ..record()
        };
        let url = |level, names: &Names, record: &Record, base: Option<&BaseUrl>| {
            let set = found(level, names, record, vec![], Counts::default(), base);
            let shown = serde_json::to_value(&set).unwrap();
            shown.get("00081190").cloned()
        };
        let study = "https://x.example/dicom-web/studies/2.25.1";
        for (level, expected) in [
            (Level::Study, study.to_owned()),
            (Level::Series, format!("{study}/series/2.25.2")),
            (Level::Instance, format!("{study}/series/2.25.2/instances/2.25.3")),
        ] {
            let said = url(level, &names(false), &kept, Some(&base)).unwrap();
            assert_eq!(said, serde_json::json!({"vr": "UR", "Value": [expected]}));
            assert_eq!(url(level, &names(false), &kept, None), None);
            let empty = Some(serde_json::json!({"vr": "UR"}));
            assert_eq!(url(level, &names(false), &record(), Some(&base)), empty, "not kept");
            let odd = Names {
                study: "ward 7/../x".into(),
                ..names(true)
            };
            assert_eq!(url(level, &odd, &kept, Some(&base)), empty, "no UID");
        }
    }

    #[test]
    fn each_level_says_what_is_above_it_and_nothing_below() {
        let has = |level, tag| {
            found(level, &names(false), &record(), vec![], Counts::default(), None)
                .get(tag)
                .is_some()
        };
        let expected = [
            (Level::Study, [true, false, false]),
            (Level::Series, [true, true, false]),
            (Level::Instance, [true, true, true]),
        ];
        for (level, there) in expected {
            let uids = [
                tags::STUDY_INSTANCE_UID,
                tags::SERIES_INSTANCE_UID,
                tags::SOP_INSTANCE_UID,
            ];
            assert_eq!(uids.map(|tag| has(level, tag)), there, "{level:?}");
        }
    }
}
