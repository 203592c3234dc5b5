//! Which instance stands for a study or a series: the middle one of its first series with images.
//!
//! The order is of the instances, not of the answer: a PACS lists them as it likes, and the same study shall give the same query each time.

use serde_json::Value;

use crate::domain::Uid;
use crate::error::{Error, ErrorKind, Result};

/// Series Instance UID.
pub const SERIES_UID: &str = "0020000E";
/// SOP Instance UID.
pub const SOP_UID: &str = "00080018";
/// SOP Class UID.
pub const SOP_CLASS: &str = "00080016";
/// Modality.
pub const MODALITY: &str = "00080060";
/// Series Number.
pub const SERIES_NUMBER: &str = "00200011";
/// Instance Number.
pub const INSTANCE_NUMBER: &str = "00200013";

/// Modalities of series without pictures of a patient (PS3.3, C.7.3.1.1.1): reports, plans, segmentations, waveforms, states.
const NO_IMAGES: [&str; 22] = [
    "SR",
    "PR",
    "KO",
    "SEG",
    "REG",
    "RTPLAN",
    "RTSTRUCT",
    "RTDOSE",
    "RTRECORD",
    "ECG",
    "EPS",
    "HD",
    "AU",
    "DOC",
    "PLAN",
    "FID",
    "RWV",
    "SMR",
    "STAIN",
    "ASMT",
    "TEXTUREMAP",
    "M3D",
];
/// Storage SOP classes without pictures of a patient (PS3.4, B.5), those with a dot at the end with all that begin so: waveforms, presentation states, raw data
/// and what was derived as geometry, reports, documents, radiotherapy but its images, templates and protocols.
const NO_IMAGE_CLASSES: [&str; 20] = [
    "1.2.840.10008.5.1.4.1.1.9.",
    "1.2.840.10008.5.1.4.1.1.11.",
    "1.2.840.10008.5.1.4.1.1.66",
    "1.2.840.10008.5.1.4.1.1.66.",
    "1.2.840.10008.5.1.4.1.1.67",
    "1.2.840.10008.5.1.4.1.1.68.",
    "1.2.840.10008.5.1.4.1.1.78.",
    "1.2.840.10008.5.1.4.1.1.79.",
    "1.2.840.10008.5.1.4.1.1.88.",
    "1.2.840.10008.5.1.4.1.1.90.",
    "1.2.840.10008.5.1.4.1.1.104.",
    "1.2.840.10008.5.1.4.1.1.481.2",
    "1.2.840.10008.5.1.4.1.1.481.3",
    "1.2.840.10008.5.1.4.1.1.481.4",
    "1.2.840.10008.5.1.4.1.1.481.5",
    "1.2.840.10008.5.1.4.1.1.481.6",
    "1.2.840.10008.5.1.4.1.1.481.7",
    "1.2.840.10008.5.1.4.1.1.481.8",
    "1.2.840.10008.5.1.4.38.",
    "1.2.840.10008.5.1.4.43.",
];

/// A series as a PACS lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// Series Number; those without one come last.
    pub number: Option<i64>,
    /// Series Instance UID.
    pub uid: Uid,
}

/// An instance as a PACS lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Instance Number; those without one come last.
    pub number: Option<i64>,
    /// SOP Instance UID.
    pub uid: Uid,
    /// The series that it is of, where the PACS says so.
    pub series: Option<Uid>,
}

/// The series that may have images, in the order in which they are tried: by number, then by UID.
///
/// # Errors
/// `PacsFailed` for what is no list of data sets (PS3.18, F.2).
pub fn series_with_images(json: &[u8]) -> Result<Vec<Series>> {
    let sets = data_sets(json)?;
    let with_images = |set: &&Value| text(set, MODALITY).is_none_or(|modality| !NO_IMAGES.contains(&modality));
    let series = sets.iter().filter(with_images).filter_map(|set| {
        Some(Series {
            number: number(set, SERIES_NUMBER),
            uid: text(set, SERIES_UID)?.parse().ok()?,
        })
    });
    let mut series: Vec<Series> = series.collect();
    series.sort_by(|a, b| order(a.number, &a.uid).cmp(&order(b.number, &b.uid)));
    series.dedup();
    Ok(series)
}

/// The instances that may be images, by number, then by UID.
///
/// # Errors
/// As [`series_with_images`].
pub fn image_instances(json: &[u8]) -> Result<Vec<Instance>> {
    let sets = data_sets(json)?;
    let is_image = |set: &&Value| {
        let class = text(set, SOP_CLASS).unwrap_or_default();
        !NO_IMAGE_CLASSES
            .iter()
            .any(|known| class == *known || known.ends_with('.') && class.starts_with(known))
    };
    let instances = sets.iter().filter(is_image).filter_map(|set| {
        Some(Instance {
            number: number(set, INSTANCE_NUMBER),
            uid: text(set, SOP_UID)?.parse().ok()?,
            series: text(set, SERIES_UID).and_then(|uid| uid.parse().ok()),
        })
    });
    let mut instances: Vec<Instance> = instances.collect();
    instances.sort_by(|a, b| order(a.number, &a.uid).cmp(&order(b.number, &b.uid)));
    instances.dedup();
    Ok(instances)
}

/// The place of the one in the middle among `count`; of two middles the earlier.
pub const fn middle(count: usize) -> Option<usize> {
    if count == 0 { None } else { Some((count - 1) / 2) }
}

fn order(number: Option<i64>, uid: &Uid) -> (bool, Option<i64>, &Uid) {
    (number.is_none(), number, uid)
}

fn data_sets(json: &[u8]) -> Result<Vec<Value>> {
    // Without the cause, which may repeat a value.
    let no_list = |_| Error::new(ErrorKind::PacsFailed, "the PACS answers a query with what is no list");
    serde_json::from_slice(json).map_err(no_list)
}

/// The first value of an attribute, if it is text.
fn text<'a>(set: &'a Value, tag: &str) -> Option<&'a str> {
    first(set, tag)?.as_str().map(|text| text.trim_matches([' ', '\0']))
}

/// The first value of an attribute: some write numbers as text.
fn number(set: &Value, tag: &str) -> Option<i64> {
    match first(set, tag)? {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_i64(),
    }
}

fn first<'a>(set: &'a Value, tag: &str) -> Option<&'a Value> {
    set.get(tag)?.get("Value")?.get(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn instance(uid: &str, number: Value, class: &str) -> Value {
        json!({
            SOP_UID: {"vr": "UI", "Value": [uid]},
            INSTANCE_NUMBER: {"vr": "IS", "Value": [number]},
            SOP_CLASS: {"vr": "UI", "Value": [class]},
        })
    }

    fn series(uid: &str, number: Value, modality: &str) -> Value {
        json!({
            SERIES_UID: {"vr": "UI", "Value": [uid]},
            SERIES_NUMBER: {"vr": "IS", "Value": [number]},
            MODALITY: {"vr": "CS", "Value": [modality]},
        })
    }

    const CT: &str = "1.2.840.10008.5.1.4.1.1.2";

    fn uids(sets: &Value) -> Vec<String> {
        let found = image_instances(sets.to_string().as_bytes()).unwrap();
        found.iter().map(|instance| instance.uid.as_str().to_owned()).collect()
    }

    #[test]
    fn instances_are_in_order_and_images() {
        let sets = json!([
            instance("1.10", json!("10 "), CT),
            instance("1.9", json!(9), CT),
            instance("1.3", Value::Null, CT),
            instance("1.2", json!(9), CT),
            instance("1.1", json!(-1), CT),
            instance("1.8", json!(1), "1.2.840.10008.5.1.4.1.1.88.33"),
            instance("../evil", json!(1), CT),
            instance("1.7", json!(1), "1.2.840.10008.5.1.4.1.1.481.2"),
            instance("1.11", json!(11), "1.2.840.10008.5.1.4.1.1.481.23"),
            {"00080018": {"vr": "UI"}},
            [],
            7,
        ]);
        assert_eq!(uids(&sets), ["1.1", "1.2", "1.9", "1.10", "1.11", "1.3"]);
        assert_eq!(uids(&json!([{SOP_UID: {"vr": "UI", "Value": ["1.2"]}}])), ["1.2"]);
    }

    #[test]
    fn series_without_images_are_passed_over() {
        let sets = json!([
            series("1.1", json!(1), "SR"),
            series("1.3", json!(3), "CT"),
            series("1.2", json!(2), "PR"),
            series("1.4", Value::Null, "CR"),
        ]);
        let found = series_with_images(sets.to_string().as_bytes()).unwrap();
        let found: Vec<&str> = found.iter().map(|series| series.uid.as_str()).collect();
        assert_eq!(found, ["1.3", "1.4"]);
    }

    #[test]
    fn what_is_no_list_is_refused_without_being_repeated() {
        for json in ["", "{}", "null", "[", "<html>1.2.3</html>", "\"4711\""] {
            let error = series_with_images(json.as_bytes()).unwrap_err();
            let said = format!(
                "{error} {:?}",
                std::error::Error::source(&error).map(ToString::to_string)
            );
            assert_eq!(error.kind(), ErrorKind::PacsFailed);
            assert!(!said.contains("4711") && !said.contains("1.2.3"), "{said}");
        }
    }

    #[test]
    fn the_middle_of_two_is_the_earlier() {
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(middle),
            [None, Some(0), Some(0), Some(1), Some(1), Some(2)]
        );
    }

    proptest! {
        #[test]
        fn the_order_of_the_answer_does_not_matter(numbers in proptest::collection::vec((0i64..5, 1u32..99), 1..20), seed in any::<u64>()) {
            let mut sets: Vec<Value> = numbers.iter().map(|(number, uid)| instance(&format!("1.{uid}"), json!(number), CT)).collect();
            let before = uids(&json!(sets));
            let mut state = seed;
            for at in (1..sets.len()).rev() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                sets.swap(at, (state >> 33) as usize % (at + 1));
            }
            prop_assert_eq!(uids(&json!(sets)), before);
        }

        #[test]
        fn nothing_makes_it_panic(json in ".{0,200}") {
            let _ = image_instances(json.as_bytes());
        }
    }
}
