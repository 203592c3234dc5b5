//! Data sets as files: Part 10 with explicit VR, little endian (PS3.10, 7.1; PS3.5, 7.1).

use super::json::{DataSet, Element, Tag, Value, Vr};
use super::tags;
use crate::imaging::PixelLayout;

/// Explicit VR Little Endian.
pub const EXPLICIT_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";
/// Names this program as the writer of a file: a UUID of its own (PS3.5, B.2).
const IMPLEMENTATION_CLASS: &str = "2.25.117727557313818761294406535942882291958";
/// The same for people.
const IMPLEMENTATION_VERSION: &str = concat!("MEDSEARCH_", env!("CARGO_PKG_VERSION"));
const PREAMBLE_BYTES: usize = 128;

/// A file of a data set and its pixels, frame after frame. What the data set has no class or UID for stays empty.
pub fn file(set: &DataSet, layout: &PixelLayout, frames: &[Vec<u8>]) -> Vec<u8> {
    let pixel_bytes: usize = frames.iter().map(Vec::len).sum();
    let mut meta = Vec::new();
    write(&mut meta, Tag(0x0002_0001), "OB", vec![0, 1]);
    for (tag, of) in [
        (0x0002_0002, tags::SOP_CLASS_UID),
        (0x0002_0003, tags::SOP_INSTANCE_UID),
    ] {
        write(&mut meta, Tag(tag), "UI", set.get(of).map(value).unwrap_or_default());
    }
    write(&mut meta, Tag(0x0002_0010), "UI", padded(EXPLICIT_LITTLE_ENDIAN, 0));
    write(&mut meta, Tag(0x0002_0012), "UI", padded(IMPLEMENTATION_CLASS, 0));
    write(&mut meta, Tag(0x0002_0013), "SH", padded(IMPLEMENTATION_VERSION, b' '));

    let mut file = Vec::with_capacity(PREAMBLE_BYTES + 4096 + pixel_bytes);
    file.resize(PREAMBLE_BYTES, 0);
    file.extend(b"DICM");
    write(
        &mut file,
        Tag(0x0002_0000),
        "UL",
        (meta.len() as u32).to_le_bytes().to_vec(),
    );
    file.extend(meta);
    for (tag, element) in set.iter() {
        write(&mut file, tag, element.vr.as_str(), value(element));
    }
    let vr = if layout.bits > 8 { "OW" } else { "OB" };
    head(&mut file, tags::PIXEL_DATA, vr, pixel_bytes.next_multiple_of(2));
    frames.iter().for_each(|frame| file.extend_from_slice(frame));
    file.resize(file.len() + pixel_bytes % 2, 0);
    file
}

fn write(file: &mut Vec<u8>, tag: Tag, vr: &str, value: Vec<u8>) {
    head(file, tag, vr, value.len());
    file.extend(value);
}

/// Tag, VR and length: of two bytes, or of four behind two that are reserved (PS3.5, 7.1.2).
fn head(file: &mut Vec<u8>, tag: Tag, vr: &str, length: usize) {
    file.extend(tag.group().to_le_bytes());
    file.extend(tag.element().to_le_bytes());
    file.extend(vr.as_bytes());
    if matches!(vr, "OB" | "OW" | "SQ") {
        file.extend([0, 0]);
        file.extend((length as u32).to_le_bytes());
    } else {
        file.extend((length as u16).to_le_bytes());
    }
}

/// What an element holds, of even length.
fn value(element: &Element) -> Vec<u8> {
    match element.vr {
        Vr::Us => {
            let whole = |value: &Value| match value {
                Value::Whole(number) => (*number as u16).to_le_bytes(),
                _ => [0; 2],
            };
            element.values.iter().flat_map(whole).collect()
        }
        Vr::Sq => element.values.iter().flat_map(item).collect(),
        _ => {
            let text = |value: &Value| match value {
                Value::Text(text) => text.clone(),
                Value::Whole(number) => number.to_string(),
                Value::Decimal(number) => number.to_string(),
                Value::Item(_) => String::new(),
            };
            let texts: Vec<String> = element.values.iter().map(text).collect();
            padded(&texts.join("\\"), if element.vr == Vr::Ui { 0 } else { b' ' })
        }
    }
}

/// An item of a sequence, of defined length (PS3.5, 7.5).
fn item(value: &Value) -> Vec<u8> {
    let mut elements = Vec::new();
    if let Value::Item(set) = value {
        set.iter()
            .for_each(|(tag, element)| write(&mut elements, tag, element.vr.as_str(), self::value(element)));
    }
    let mut item = vec![0xfe, 0xff, 0x00, 0xe0];
    item.extend((elements.len() as u32).to_le_bytes());
    item.extend(elements);
    item
}

/// Of even length, and of one that two bytes can say.
fn padded(text: &str, with: u8) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.truncate(usize::from(u16::MAX) - 1);
    bytes.resize(bytes.len().next_multiple_of(2), with);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_part_10_says() {
        let mut code = DataSet::default();
        code.text(Tag(0x0008_0100), Vr::Sh, "113100");
        let mut set = DataSet::default();
        set.text(tags::SOP_CLASS_UID, Vr::Ui, "1.2.3")
            .text(tags::SOP_INSTANCE_UID, Vr::Ui, "2.25.7")
            .maybe(Tag(0x0010_0010), Vr::Pn, None::<String>)
            .put(Tag(0x0012_0064), Vr::Sq, vec![Value::Item(code)])
            .number(Tag(0x0028_0010), Vr::Us, 258)
            .put(Tag(0x0028_1050), Vr::Ds, vec![Value::Decimal(40.5)]);
        let layout = PixelLayout {
            columns: 3,
            rows: 1,
            samples: 1,
            bits: 8,
            signed: false,
            inverted: false,
        };
        let file = file(&set, &layout, &[vec![1, 2, 3]]);
        assert!(file[..128].iter().all(|byte| *byte == 0) && &file[128..132] == b"DICM");
        // Group length counts from behind itself to the first element of the data set.
        let length = u32::from_le_bytes(file[140..144].try_into().unwrap()) as usize;
        assert_eq!(&file[144 + length..][..4], &[0x08, 0, 0x16, 0]);
        let has = |bytes: &[u8]| file.windows(bytes.len()).any(|part| part == bytes);
        assert!(has(b"\x08\0\x16\0UI\x06\x001.2.3\0"), "padded with a zero");
        assert!(has(b"\x10\0\x10\0PN\0\0"));
        assert!(has(
            b"\x12\0\x64\0SQ\0\0\x16\0\0\0\xfe\xff\0\xe0\x0e\0\0\0\x08\0\0\x01SH\x06\x00113100"
        ));
        assert!(has(b"\x28\0\x10\0US\x02\0\x02\x01"));
        assert!(has(b"\x28\0\x50\x10DS\x04\x0040.5"));
        assert!(file.ends_with(b"\xe0\x7f\x10\0OB\0\0\x04\0\0\0\x01\x02\x03\0"));
    }
}
