//! Data sets as DICOM JSON (PS3.18, Annex F): elements by tag, in the order of tags.

use std::collections::BTreeMap;
use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};

/// Group and element number of an attribute, as one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(pub u32);

impl Tag {
    /// The upper half.
    pub const fn group(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The lower half.
    pub const fn element(self) -> u16 {
        self.0 as u16
    }
}

/// As the model spells it: eight hex digits, letters in upper case.
impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}", self.0)
    }
}

/// Value representations that answers have (PS3.5, 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vr {
    /// Age String.
    As,
    /// Code String.
    Cs,
    /// Date.
    Da,
    /// Decimal String.
    Ds,
    /// Integer String.
    Is,
    /// Long String.
    Lo,
    /// Person Name.
    Pn,
    /// Short String.
    Sh,
    /// Sequence of Items.
    Sq,
    /// Time.
    Tm,
    /// Unique Identifier.
    Ui,
    /// Universal Resource Identifier or Locator.
    Ur,
    /// Unsigned Short.
    Us,
}

impl Vr {
    /// Its two letters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::As => "AS",
            Self::Cs => "CS",
            Self::Da => "DA",
            Self::Ds => "DS",
            Self::Is => "IS",
            Self::Lo => "LO",
            Self::Pn => "PN",
            Self::Sh => "SH",
            Self::Sq => "SQ",
            Self::Tm => "TM",
            Self::Ui => "UI",
            Self::Ur => "UR",
            Self::Us => "US",
        }
    }
}

/// One value of an element.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Of any VR but the next ones.
    Text(String),
    /// Of IS and US.
    Whole(u32),
    /// Of DS: an integer or a half.
    Decimal(f64),
    /// Of SQ.
    Item(DataSet),
}

/// An element of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// What its values are.
    pub vr: Vr,
    /// None: it is there, and empty.
    pub values: Vec<Value>,
}

/// Elements, each tag once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DataSet(BTreeMap<Tag, Element>);

impl DataSet {
    /// Puts in an element, in place of one of the same tag.
    pub fn put(&mut self, tag: Tag, vr: Vr, values: Vec<Value>) -> &mut Self {
        self.0.insert(tag, Element { vr, values });
        self
    }

    /// One value of text.
    pub fn text(&mut self, tag: Tag, vr: Vr, value: impl Into<String>) -> &mut Self {
        self.put(tag, vr, vec![Value::Text(value.into())])
    }

    /// One value of text, or none.
    pub fn maybe(&mut self, tag: Tag, vr: Vr, value: Option<impl Into<String>>) -> &mut Self {
        let value = value.map(|text| Value::Text(text.into()));
        self.put(tag, vr, value.into_iter().collect())
    }

    /// One whole number.
    pub fn number(&mut self, tag: Tag, vr: Vr, value: u32) -> &mut Self {
        self.put(tag, vr, vec![Value::Whole(value)])
    }

    /// The element of a tag.
    pub fn get(&self, tag: Tag) -> Option<&Element> {
        self.0.get(&tag)
    }

    /// Every element, in the order of tags.
    pub fn iter(&self) -> impl Iterator<Item = (Tag, &Element)> {
        self.0.iter().map(|(tag, element)| (*tag, element))
    }
}

impl Serialize for DataSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(tag, element)| (tag.to_string(), element)))
    }
}

/// An empty element has no `Value` (F.2.5).
impl Serialize for Element {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("vr", self.vr.as_str())?;
        if !self.values.is_empty() {
            let values: Vec<Shown<'_>> = self.values.iter().map(|value| Shown(self.vr, value)).collect();
            map.serialize_entry("Value", &values)?;
        }
        map.end()
    }
}

/// A value as its VR has it (F.2.3).
struct Shown<'a>(Vr, &'a Value);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.1 {
            Value::Text(name) if self.0 == Vr::Pn => serializer.collect_map([("Alphabetic", name)]),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Whole(number) => serializer.serialize_u32(*number),
            Value::Decimal(number) => serializer.serialize_f64(*number),
            Value::Item(item) => item.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn elements_are_as_annex_f_has_them() {
        let mut item = DataSet::default();
        item.text(Tag(0x0008_0100), Vr::Sh, "113100");
        let mut set = DataSet::default();
        set.text(Tag(0x0010_0020), Vr::Lo, "p_1")
            .text(Tag(0x0010_0010), Vr::Pn, "A^B")
            .maybe(Tag(0x0008_0020), Vr::Da, None::<String>)
            .number(Tag(0x0020_0013), Vr::Is, 1)
            .put(Tag(0x0028_1050), Vr::Ds, vec![Value::Decimal(40.5)])
            .put(Tag(0x0012_0064), Vr::Sq, vec![Value::Item(item)])
            .text(Tag(0x0010_0020), Vr::Lo, "p_2");
        assert_eq!(
            serde_json::to_string(&set).unwrap(),
            concat!(
                r#"{"00080020":{"vr":"DA"},"00100010":{"vr":"PN","Value":[{"Alphabetic":"A^B"}]},"00100020":{"vr":"LO","Value":["p_2"]},"#,
                r#""00120064":{"vr":"SQ","Value":[{"00080100":{"vr":"SH","Value":["113100"]}}]},"#,
                r#""00200013":{"vr":"IS","Value":[1]},"00281050":{"vr":"DS","Value":[40.5]}}"#
            )
        );
        assert_eq!((Tag(0x7fe0_0010).group(), Tag(0x7fe0_0010).element()), (0x7fe0, 0x0010));
    }

    proptest! {
        #[test]
        fn tags_are_in_order_and_eight_digits(tags in prop::collection::vec(any::<u32>(), 0..20)) {
            let mut set = DataSet::default();
            for &tag in &tags {
                set.maybe(Tag(tag), Vr::Lo, None::<String>);
            }
            let text = serde_json::to_string(&set).unwrap();
            let mut expected: Vec<u32> = tags;
            expected.sort_unstable();
            expected.dedup();
            let shown: Vec<String> = expected.iter().map(|tag| format!("\"{tag:08X}\":{{\"vr\":\"LO\"}}")).collect();
            prop_assert_eq!(text, format!("{{{}}}", shown.join(",")));
        }

        #[test]
        fn any_text_is_json(text in ".{0,40}") {
            let mut set = DataSet::default();
            set.text(Tag(0x0010_0020), Vr::Lo, text.clone());
            let read: serde_json::Value = serde_json::from_str(&serde_json::to_string(&set).unwrap()).unwrap();
            prop_assert_eq!(&read["00100020"], &json!({"vr": "LO", "Value": [text]}));
        }
    }
}
