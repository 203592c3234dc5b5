//! Pictures for tests, written by hand where no encoder makes them.

use png::{BitDepth, ColorType};

pub use super::dicom::testing::Dicom;

/// A PNG of the given raw lines.
pub fn png_of(
    width: u32,
    height: u32,
    color: ColorType,
    depth: BitDepth,
    data: &[u8],
    palette: Option<&[u8]>,
    transparency: Option<&[u8]>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if let Some(palette) = palette {
        encoder.set_palette(palette.to_vec());
    }
    if let Some(transparency) = transparency {
        encoder.set_trns(transparency.to_vec());
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    bytes
}

/// An interlaced PNG (which the encoder can't write) of samples of whole bytes, in stored blocks.
pub fn adam7_png(
    width: u32,
    height: u32,
    color: ColorType,
    depth: BitDepth,
    pixel_bits: usize,
    data: &[u8],
) -> Vec<u8> {
    const PASSES: [(u32, u32, u32, u32); 7] = [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ];
    let pixel_bytes = pixel_bits / 8;
    let mut lines = Vec::new();
    for (x0, y0, dx, dy) in PASSES {
        if x0 >= width {
            continue;
        }
        for y in (y0..height).step_by(dy as usize) {
            lines.push(0);
            for x in (x0..width).step_by(dx as usize) {
                let at = (y * width + x) as usize * pixel_bytes;
                lines.extend_from_slice(&data[at..at + pixel_bytes]);
            }
        }
    }
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend_from_slice(&[depth as u8, color as u8, 0, 0, 1]);
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, &lines).unwrap();
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, body) in [
        (b"IHDR", header),
        (b"IDAT", encoder.finish().unwrap()),
        (b"IEND", Vec::new()),
    ] {
        png.extend_from_slice(&(body.len() as u32).to_be_bytes());
        let chunk = [kind.as_slice(), &body].concat();
        png.extend_from_slice(&chunk);
        png.extend_from_slice(&crc32(&chunk).to_be_bytes());
    }
    png
}

/// The checksum of PNG chunks.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

/// A black-to-white ramp, 16 x 8, grey.
pub const GRAY_JPEG: &[u8] = include_bytes!("fixtures/gray.jpg");

/// [`GRAY_JPEG`] with one more segment after its start marker.
pub fn jpeg_with_segment(marker: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16 + 2).to_be_bytes();
    [&GRAY_JPEG[..2], &[0xff, marker], &length, body, &GRAY_JPEG[2..]].concat()
}
