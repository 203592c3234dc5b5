//! DICOM files for tests, written by hand: an encoder wouldn't write the broken ones.

use std::collections::BTreeMap;
use std::io::Write;

use super::elements::Tag;

pub const IMPLICIT: &str = "1.2.840.10008.1.2";
pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
pub const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
pub const RLE: &str = "1.2.840.10008.1.2.5";
pub const JPEG_BASELINE: &str = "1.2.840.10008.1.2.4.50";
pub const JPEG_EXTENDED: &str = "1.2.840.10008.1.2.4.51";
pub const JPEG_LOSSLESS: &str = "1.2.840.10008.1.2.4.70";
pub const JPEG_LS: &str = "1.2.840.10008.1.2.4.80";
pub const JPEG_2000: &str = "1.2.840.10008.1.2.4.90";

/// 30 columns, 20 rows, red, green and blue of 8 bits.
pub const RCT_JPEG_2000: &[u8] = include_bytes!("../fixtures/jpeg2000/rct.j2k");

/// A file in the making; values are little endian.
#[derive(Clone)]
pub struct Dicom {
    pub syntax: &'static str,
    elements: BTreeMap<Tag, ([u8; 2], Vec<u8>)>,
    fragments: Option<Vec<Vec<u8>>>,
    offsets: Vec<u32>,
    extra: Vec<u8>,
}

impl Dicom {
    /// MONOCHROME2 of 16 bits.
    pub fn gray16(columns: u16, rows: u16, values: &[u16]) -> Self {
        Self::new(columns, rows, 1, 16, "MONOCHROME2").native(values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// MONOCHROME2 of 8 bits.
    pub fn gray8(columns: u16, rows: u16, values: &[u8]) -> Self {
        Self::new(columns, rows, 1, 8, "MONOCHROME2").native(values.to_vec())
    }

    /// Without pixel data.
    pub fn new(columns: u16, rows: u16, samples: u16, bits: u16, photometric: &str) -> Self {
        let empty = Self {
            syntax: EXPLICIT,
            elements: BTreeMap::new(),
            fragments: None,
            offsets: Vec::new(),
            extra: Vec::new(),
        };
        empty
            .number((0x28, 0x02), samples)
            .text((0x28, 0x04), b"CS", photometric)
            .number((0x28, 0x10), rows)
            .number((0x28, 0x11), columns)
            .number((0x28, 0x100), bits)
            .number((0x28, 0x101), bits)
            .number((0x28, 0x102), bits - 1)
            .number((0x28, 0x103), 0)
    }

    pub fn syntax(mut self, uid: &'static str) -> Self {
        self.syntax = uid;
        self
    }

    pub fn number(self, tag: Tag, value: u16) -> Self {
        self.raw(tag, b"US", value.to_le_bytes().to_vec())
    }

    pub fn text(self, tag: Tag, vr: &[u8; 2], text: &str) -> Self {
        let mut value = text.as_bytes().to_vec();
        if value.len() % 2 == 1 {
            value.push(b' ');
        }
        self.raw(tag, vr, value)
    }

    pub fn raw(mut self, tag: Tag, vr: &[u8; 2], value: Vec<u8>) -> Self {
        self.elements.insert(tag, (*vr, value));
        self
    }

    pub fn without(mut self, tag: Tag) -> Self {
        self.elements.remove(&tag);
        self
    }

    /// Bytes between the other elements and the pixel data, as they are.
    pub fn extra(mut self, bytes: Vec<u8>) -> Self {
        self.extra = bytes;
        self
    }

    pub fn native(self, mut bytes: Vec<u8>) -> Self {
        if bytes.len() % 2 == 1 {
            bytes.push(0);
        }
        self.raw((0x7fe0, 0x10), b"OW", bytes)
    }

    /// Encapsulated pixel data with an empty offset table, unless there are offsets.
    pub fn fragments(mut self, fragments: &[&[u8]]) -> Self {
        self.fragments = Some(fragments.iter().map(|fragment| fragment.to_vec()).collect());
        self
    }

    /// The basic offset table.
    pub fn offsets(mut self, offsets: &[u32]) -> Self {
        self.offsets = offsets.to_vec();
        self
    }

    /// The extended offset table.
    pub fn extended_offsets(self, offsets: &[u64]) -> Self {
        let entries = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        self.raw((0x7fe0, 0x01), b"OV", entries)
    }

    pub fn file(&self) -> Vec<u8> {
        let mut data_set = Vec::new();
        for (&tag, (vr, value)) in &self.elements {
            if tag == (0x7fe0, 0x10) {
                data_set.extend_from_slice(&self.extra);
            }
            data_set.extend(self.element(tag, vr, value));
        }
        if let Some(fragments) = &self.fragments {
            data_set.extend_from_slice(&self.extra);
            data_set.extend(b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff\xfe\xff\0\xe0");
            data_set.extend((4 * self.offsets.len() as u32).to_le_bytes());
            data_set.extend(self.offsets.iter().flat_map(|offset| offset.to_le_bytes()));
            for fragment in fragments {
                data_set.extend(b"\xfe\xff\0\xe0");
                data_set.extend((fragment.len() as u32).to_le_bytes());
                data_set.extend(fragment);
            }
            data_set.extend(b"\xfe\xff\xdd\xe0\0\0\0\0");
        }
        if self.syntax == DEFLATED {
            data_set = deflate(&data_set);
        }
        let mut file = vec![0; 128];
        file.extend(b"DICM\x02\0\x10\0UI");
        let mut uid = self.syntax.as_bytes().to_vec();
        uid.resize(uid.len().next_multiple_of(2), 0);
        file.extend((uid.len() as u16).to_le_bytes());
        file.extend(uid);
        file.extend(data_set);
        file
    }

    fn element(&self, tag: Tag, vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
        let long = matches!(vr, b"OB" | b"OV" | b"OW" | b"SQ" | b"UN");
        let big = self.syntax == BIG_ENDIAN;
        let u16_bytes = |number: u16| {
            if big {
                number.to_be_bytes()
            } else {
                number.to_le_bytes()
            }
        };
        let u32_bytes = |number: u32| {
            if big {
                number.to_be_bytes()
            } else {
                number.to_le_bytes()
            }
        };
        let mut bytes = [u16_bytes(tag.0), u16_bytes(tag.1)].concat();
        if self.syntax == IMPLICIT {
            bytes.extend(u32_bytes(value.len() as u32));
        } else if long {
            bytes.extend(vr);
            bytes.extend([0, 0]);
            bytes.extend(u32_bytes(value.len() as u32));
        } else {
            bytes.extend(vr);
            bytes.extend(u16_bytes(value.len() as u16));
        }
        let start = bytes.len();
        bytes.extend(value);
        if big && matches!(vr, b"US" | b"SS" | b"OW") {
            bytes[start..].chunks_exact_mut(2).for_each(|pair| pair.reverse());
        }
        bytes
    }
}

pub fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Planes of bytes, not one of them compressed.
pub fn rle_frame(planes: &[Vec<u8>]) -> Vec<u8> {
    let segments: Vec<Vec<u8>> = planes
        .iter()
        .map(|plane| {
            let mut segment = Vec::new();
            for part in plane.chunks(128) {
                segment.push(part.len() as u8 - 1);
                segment.extend(part);
            }
            segment
        })
        .collect();
    let mut header = vec![segments.len() as u32];
    let mut offset = 64;
    for segment in &segments {
        header.push(offset);
        offset += segment.len() as u32;
    }
    header.resize(16, 0);
    let mut frame: Vec<u8> = header.into_iter().flat_map(u32::to_le_bytes).collect();
    frame.extend(segments.concat());
    frame
}

/// Sequences within sequences, each of undefined length.
pub fn nested(depth: usize) -> Vec<u8> {
    let open = b"\x40\0\x00\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff";
    let close = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0";
    [open.repeat(depth), close.repeat(depth)].concat()
}
