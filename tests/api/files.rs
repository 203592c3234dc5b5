//! Image files, good and bad, made byte by byte.

use std::io::{Read, Write};

use libjpeg_turbo_rs::{PixelFormat, Subsampling, compress};

/// A grey PNG with a gradient: something to compare.
pub fn png(width: u32, height: u32) -> Vec<u8> {
    grey_png(width, height, |x, y| ((x * 3 + y * 5 + x * y / 7) % 251) as u8)
}

/// A grey PNG of one value.
pub fn flat_png(width: u32, height: u32) -> Vec<u8> {
    grey_png(width, height, |_, _| 17)
}

fn grey_png(width: u32, height: u32, pixel: impl Fn(u32, u32) -> u8) -> Vec<u8> {
    let pixels: Vec<u8> = (0..height)
        .flat_map(|y| (0..width).map(move |x| (x, y)))
        .map(|(x, y)| pixel(x, y))
        .collect();
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    file
}

/// 20,000 x 20,000 pixels of one bit in some 50 KB.
pub fn png_bomb() -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 20_000, 20_000);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![0x55; 20_000 / 8 * 20_000]).unwrap();
    drop(writer);
    file
}

/// A PNG whose compressed pixels are noise.
pub fn damaged_png() -> Vec<u8> {
    let mut file = png(64, 64);
    let data = file.windows(4).position(|name| name == b"IDAT").unwrap() + 8;
    file[data..data + 40].fill(0xa5);
    file
}

/// A JPEG as far as its frame header, of any size.
pub fn jpeg_head(width: u16, height: u16) -> Vec<u8> {
    let mut file = vec![0xff, 0xd8, 0xff, 0xdb, 0, 67, 0];
    file.extend_from_slice(&[16; 64]);
    file.extend_from_slice(&[0xff, 0xc0, 0, 11, 8]);
    file.extend_from_slice(&height.to_be_bytes());
    file.extend_from_slice(&width.to_be_bytes());
    file.extend_from_slice(&[1, 1, 0x11, 0]);
    file
}

/// A JPEG that ends within its scan.
pub fn truncated_jpeg() -> Vec<u8> {
    let pixels: Vec<u8> = (0..128u32 * 128).map(|i| (i * 37 % 256) as u8).collect();
    let mut file = compress(&pixels, 128, 128, PixelFormat::Grayscale, 85, Subsampling::S444).unwrap();
    file.truncate(file.len() / 2);
    file
}

/// Explicit VR Little Endian (PS3.5, A.2).
pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";
/// Deflated Explicit VR Little Endian (PS3.5, A.5).
pub const DEFLATED: &str = "1.2.840.10008.1.2.1.99";

/// A DICOM file: preamble, file meta information (PS3.10, 7.1), data set.
pub fn dicom(transfer_syntax: &str, data_set: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    meta.extend(element(0x0002, 0x0001, b"OB", &[0, 1]));
    meta.extend(element(0x0002, 0x0002, b"UI", b"1.2.840.10008.5.1.4.1.1.1\0"));
    meta.extend(element(0x0002, 0x0003, b"UI", b"1.2.3.4\0"));
    meta.extend(element(0x0002, 0x0010, b"UI", &even(transfer_syntax)));
    meta.extend(element(0x0002, 0x0012, b"UI", b"1.2.3.4.5\0"));
    let mut file = vec![0; 128];
    file.extend_from_slice(b"DICM");
    file.extend(element(0x0002, 0x0000, b"UL", &(meta.len() as u32).to_le_bytes()));
    file.extend(meta);
    file.extend_from_slice(data_set);
    file
}

/// A DICOM file of a patient and a study with a pattern in it; its SOP Instance UID is 1.2.3.4.
pub fn picture_dicom(patient: &str, study: &str, seed: u16) -> Vec<u8> {
    let (rows, columns) = (64u16, 48u16);
    let image = image_attributes(rows, columns, "1");
    let class_bytes = 8 + 26;
    let mut data = image[..class_bytes].to_vec();
    data.extend(element(0x0010, 0x0020, b"LO", &even(patient)));
    data.extend(element(0x0020, 0x000d, b"UI", &even(study)));
    data.extend(&image[class_bytes..]);
    let pixel = |at: u32| (at * u32::from(seed) / 7 % 251) as u8;
    let pixels: Vec<u8> = (0..u32::from(rows) * u32::from(columns)).map(pixel).collect();
    data.extend(element(0x7fe0, 0x0010, b"OB", &pixels));
    dicom(EXPLICIT, &data)
}

/// The attributes of a grey image, without its pixels.
pub fn image_attributes(rows: u16, columns: u16, frames: &str) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend(element(0x0008, 0x0016, b"UI", b"1.2.840.10008.5.1.4.1.1.1\0"));
    data.extend(element(0x0028, 0x0002, b"US", &1u16.to_le_bytes()));
    data.extend(element(0x0028, 0x0004, b"CS", b"MONOCHROME2 "));
    data.extend(element(0x0028, 0x0008, b"IS", &even(frames)));
    data.extend(element(0x0028, 0x0010, b"US", &rows.to_le_bytes()));
    data.extend(element(0x0028, 0x0011, b"US", &columns.to_le_bytes()));
    for (tag, value) in [(0x0100, 8u16), (0x0101, 8), (0x0102, 7), (0x0103, 0)] {
        data.extend(element(0x0028, tag, b"US", &value.to_le_bytes()));
    }
    data
}

/// Who and what an instance is.
pub struct Instance<'a> {
    pub sop_class: &'a str,
    pub sop_uid: &'a str,
    pub study_uid: &'a str,
    pub patient_id: &'a str,
    pub modality: &'a str,
    pub body_part: &'a str,
    pub view: &'a str,
    /// Study Description; empty: without one.
    pub description: &'a str,
}

/// Instead of a seed: a frame that shows nothing.
pub const BLANK: u32 = u32::MAX;

/// Stored values of a frame of an [`Instance`].
pub fn instance_pixels(seed: u32) -> Vec<u8> {
    let pixel = |i: u32| {
        let mixed = (i / 8 + seed * 7919).wrapping_mul(2_654_435_761);
        (mixed >> 24) as u8
    };
    let place = 0..96 * 96u32;
    place.map(|i| if seed == BLANK { 17 } else { pixel(i) }).collect()
}

impl Default for Instance<'_> {
    fn default() -> Self {
        Self {
            sop_class: "1.2.840.10008.5.1.4.1.1.1",
            sop_uid: "1.2.3.4",
            study_uid: "1.2.3",
            patient_id: "P-1",
            modality: "CR",
            body_part: "CHEST",
            view: "PA",
            description: "",
        }
    }
}

impl Instance<'_> {
    /// Its header, without a size.
    pub fn header(&self) -> Vec<u8> {
        let mut data = Vec::new();
        for (group, number, vr, value) in [
            (0x0008, 0x0016, b"UI", self.sop_class),
            (0x0008, 0x0018, b"UI", self.sop_uid),
            (0x0008, 0x0060, b"CS", self.modality),
            (0x0008, 0x1030, b"LO", self.description),
            (0x0010, 0x0020, b"LO", self.patient_id),
            (0x0018, 0x0015, b"CS", self.body_part),
            (0x0018, 0x5101, b"CS", self.view),
            (0x0020, 0x000d, b"UI", self.study_uid),
            (0x0020, 0x000e, b"UI", "1.2.3.5"),
        ] {
            if number == 0x1030 && value.is_empty() {
                continue;
            }
            let mut value = value.as_bytes().to_vec();
            if value.len() % 2 == 1 {
                value.push(if vr == b"UI" { 0 } else { b' ' });
            }
            data.extend(element(group, number, vr, &value));
        }
        data
    }

    /// A picture of 96 by 96 that is another one for every seed.
    pub fn file(&self, seed: u32) -> Vec<u8> {
        self.frames(&[seed])
    }

    /// The same with a frame for each seed.
    pub fn frames(&self, seeds: &[u32]) -> Vec<u8> {
        let sized: Vec<u8> = image_attributes(96, 96, &seeds.len().to_string()).split_off(8 + 26);
        let pixels: Vec<u8> = seeds.iter().flat_map(|&seed| instance_pixels(seed)).collect();
        let mut data = self.header();
        data.extend(sized);
        data.extend(element(0x7fe0, 0x0010, b"OB", &pixels));
        dicom(EXPLICIT, &data)
    }

    /// The same in RLE (PS3.5, Annex G); without a seed a frame whose segments lie outside of it.
    pub fn rle_frames(&self, seeds: &[Option<u32>]) -> Vec<u8> {
        let mut data = self.header();
        data.extend(image_attributes(96, 96, &seeds.len().to_string()).split_off(8 + 26));
        data.extend([0xe0, 0x7f, 0x10, 0x00, b'O', b'B', 0, 0, 0xff, 0xff, 0xff, 0xff]);
        let item = |kind: u8, value: &[u8]| {
            [
                &[0xfe, 0xff, kind, 0xe0],
                &(value.len() as u32).to_le_bytes()[..],
                value,
            ]
            .concat()
        };
        data.extend(item(0x00, &[]));
        for seed in seeds {
            let (segments, offset) = if seed.is_some() { (1, 64) } else { (15, u32::MAX) };
            let mut frame: Vec<u8> = [segments, offset].map(u32::to_le_bytes).concat();
            frame.resize(64, 0xff);
            for literal in instance_pixels(seed.unwrap_or(1)).chunks(128) {
                frame.push(literal.len() as u8 - 1);
                frame.extend(literal);
            }
            frame.resize(frame.len().next_multiple_of(2), 0);
            data.extend(item(0x00, &frame));
        }
        data.extend(item(0xdd, &[]));
        dicom("1.2.840.10008.1.2.5", &data)
    }

    /// An object without a size and without pixels.
    pub fn report(&self) -> Vec<u8> {
        dicom(EXPLICIT, &self.header())
    }
}

/// Pixel Data that says it is nearly 4 GiB.
pub fn huge_pixel_data() -> Vec<u8> {
    let mut data = image_attributes(64, 64, "1");
    data.extend_from_slice(&[0xe0, 0x7f, 0x10, 0x00, b'O', b'B', 0, 0]);
    data.extend_from_slice(&0xffff_fff0u32.to_le_bytes());
    data.extend_from_slice(&[1, 2, 3, 4]);
    data
}

/// Sequences within sequences, 5,000 deep, each of undefined length.
pub fn nested_sequences() -> Vec<u8> {
    let mut data = Vec::new();
    for _ in 0..5000 {
        data.extend_from_slice(&[0x08, 0x00, 0x40, 0x11, b'S', b'Q', 0, 0, 0xff, 0xff, 0xff, 0xff]);
        data.extend_from_slice(&[0xfe, 0xff, 0x00, 0xe0, 0xff, 0xff, 0xff, 0xff]);
    }
    data
}

/// 300 MB of zeros in a deflated data set of some 300 KB.
pub fn deflate_bomb() -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive
        .start_file("zeros", zip::write::SimpleFileOptions::default())
        .unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..300 {
        archive.write_all(&zeros).unwrap();
    }
    let mut archive = zip::ZipArchive::new(archive.finish().unwrap()).unwrap();
    let mut deflated = Vec::new();
    archive.by_index_raw(0).unwrap().read_to_end(&mut deflated).unwrap();
    deflated
}

/// A data element with a short length (PS3.5, 7.1.2), or the long form for OB.
pub fn element(group: u16, number: u16, vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
    let mut bytes = [group.to_le_bytes(), number.to_le_bytes()].concat();
    bytes.extend_from_slice(vr);
    if vr == b"OB" {
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
    } else {
        bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
    }
    bytes.extend_from_slice(value);
    bytes
}

/// Text padded to an even length.
pub fn even(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    if bytes.len() % 2 == 1 {
        bytes.push(if text.contains('.') { 0 } else { b' ' });
    }
    bytes
}

/// Side of a pattern.
const PATTERN_PX: u32 = 96;

/// Stripes whose direction is the class, with blocks that are the number: pictures of a class are similar, and none is a copy of another.
pub fn pattern_png(class: u32, number: u32) -> Vec<u8> {
    grey_png(PATTERN_PX, PATTERN_PX, |x, y| pattern(class, number, x, y))
}

fn pattern(class: u32, number: u32, x: u32, y: u32) -> u8 {
    let noise = |x: u32, y: u32| {
        let mixed = (x * 31 + y * 1017 + number * 10_007 + 1).wrapping_mul(2_654_435_761);
        (mixed ^ mixed >> 15).wrapping_mul(2_246_822_519) >> 24
    };
    let along = match class {
        0 => x,
        1 => y,
        _ => x + y,
    };
    let stripe = (along * 4 + number % 8 * 3) % 140;
    (stripe + noise(x / 6, y / 6) * 7 / 16) as u8
}

/// DICOM with a frame for each pattern (class, number).
pub fn pattern_dicom(transfer_syntax: &str, patterns: &[(u32, u32)]) -> Vec<u8> {
    let pixels: Vec<u8> = patterns
        .iter()
        .flat_map(|&(class, number)| {
            let places = (0..PATTERN_PX).flat_map(|y| (0..PATTERN_PX).map(move |x| (x, y)));
            places.map(move |(x, y)| pattern(class, number, x, y))
        })
        .collect();
    let side = PATTERN_PX as u16;
    let mut data_set = image_attributes(side, side, &patterns.len().to_string());
    data_set.extend(element(0x7fe0, 0x0010, b"OB", &pixels));
    if transfer_syntax == DEFLATED {
        data_set = deflated(&data_set);
    }
    dicom(transfer_syntax, &data_set)
}

/// A raw deflate stream: what a ZIP has in it.
fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive
        .start_file("data", zip::write::SimpleFileOptions::default())
        .unwrap();
    archive.write_all(bytes).unwrap();
    let mut archive = zip::ZipArchive::new(archive.finish().unwrap()).unwrap();
    let mut deflated = Vec::new();
    archive.by_index_raw(0).unwrap().read_to_end(&mut deflated).unwrap();
    deflated
}

/// A picture with structure of all sizes, the same in any size for one `seed`; `change` makes it another one that resembles it.
pub fn scene_png(seed: u32, width: u32, height: u32, change: f64) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1 << 24)
    };
    let waves: Vec<[f64; 4]> = (1..40)
        .map(|wave| {
            let size = 1.0 + f64::from(wave) / 4.0;
            let (along, down) = (size * (next() - 0.5) * 18.0, size * (next() - 0.5) * 18.0);
            [along, down, next() * 6.3 + change * f64::from(wave), size]
        })
        .collect();
    grey_png(width, height, |x, y| {
        let (u, v) = (
            (f64::from(x) + 0.5) / f64::from(width),
            (f64::from(y) + 0.5) / f64::from(height),
        );
        let wave = |[along, down, start, size]: &[f64; 4]| (along * u + down * v + start).sin() / size.sqrt();
        (128.0 + 25.0 * waves.iter().map(wave).sum::<f64>()).clamp(0.0, 255.0) as u8
    })
}
