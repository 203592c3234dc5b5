//! A checked DICOM file to a raster: stored values, colours applied, no window.

use super::attributes::{self, Attributes, Photometric};
use super::frame::{self, Stored};
use super::modality_lut::ModalityLut;
use super::palette::Palette;
use super::precheck::{self, File};
use super::unsupported;
use crate::domain::{FrameNumber, FrameOf};
use crate::error::Result;
use crate::imaging::decoder::Provenance;
use crate::imaging::limits::Limits;
use crate::imaging::raster::{Levels, Padding, Raster, Samples};
use crate::imaging::voi::{GreyScale, Rescale};

/// A frame of a file.
#[derive(Debug)]
pub struct DecodedFrame {
    /// Its picture.
    pub raster: Raster,
    /// What its grey values stand for.
    pub grey_scale: GreyScale,
    /// What the file says about itself.
    pub provenance: Provenance,
    /// Which one of how many.
    pub frame: FrameOf,
}

/// Decodes one frame.
///
/// Grey keeps its stored values, which [`Levels`] explain, unless a modality LUT says what stands for them; palettes and
/// YBR become RGB. VOI windows are told, not applied; overlays and what is said of single frames (PS3.3, C.7.6.16) are neither.
///
/// # Errors
/// `InvalidImage`, `UnsupportedMedia`, `TooLarge`, `TooManyPixels`; `InvalidRequest` for a frame that is not there.
pub fn decode(bytes: &[u8], frame: FrameNumber, limits: &Limits) -> Result<DecodedFrame> {
    limits.check_file(bytes.len())?;
    let file = File::open(bytes)?;
    let data_set = file.inflated(limits)?;
    let layout = precheck::walk(&data_set, file.syntax, limits)?;
    let coded = layout.frame(frame, limits)?;
    let (attributes, provenance) = attributes::read(&layout)?;
    let samples = layout.shape.samples;
    let fits = match attributes.photometric {
        Photometric::Rgb => samples == 3,
        Photometric::YbrFull => samples == 3 && layout.shape.bits_allocated == 8,
        Photometric::Monochrome1 | Photometric::Monochrome2 | Photometric::Palette => samples == 1,
    };
    if !fits {
        return Err(unsupported(
            "this photometric interpretation is not read with this number of samples or bits",
        ));
    }
    let (stored, ybr) = frame::stored_values(&coded, &layout, &attributes)?;
    let rescale = (!layout.values_by_frame).then_some(Rescale {
        slope: attributes.slope,
        intercept: attributes.intercept,
    });
    let mut grey_scale = GreyScale {
        rescale,
        voi: attributes.voi,
    };
    let (samples, levels) = match attributes.photometric {
        Photometric::Monochrome1 | Photometric::Monochrome2 => match ModalityLut::read(&layout, attributes.signed)? {
            Some(lut) => {
                // What comes out of the table is of the modality.
                grey_scale.rescale = Some(Rescale::IDENTITY);
                by_table(&lut, &stored, &attributes)
            }
            None => gray(stored, &attributes),
        },
        Photometric::Palette => {
            let palette = Palette::read(&layout, attributes.signed)?;
            (apply_palette(&palette, &stored, attributes.signed), Levels::default())
        }
        Photometric::Rgb | Photometric::YbrFull => match stored {
            Stored::Bytes(mut bytes) => {
                if ybr {
                    bytes
                        .as_chunks_mut::<3>()
                        .0
                        .iter_mut()
                        .for_each(|pixel| *pixel = ybr_full_to_rgb(*pixel));
                }
                (Samples::Rgb8(bytes), Levels::default())
            }
            Stored::Words(words) => (whole_range(words, attributes.bits_stored), Levels::default()),
        },
    };
    let raster = Raster::new(layout.shape.columns.into(), layout.shape.rows.into(), samples, levels)?;
    Ok(DecodedFrame {
        raster,
        grey_scale,
        provenance,
        frame: FrameOf::new(frame, layout.shape.frames)?,
    })
}

fn gray(stored: Stored, attributes: &Attributes) -> (Samples, Levels) {
    let levels = Levels {
        signed: attributes.signed,
        // Bits are black and white, and signed 8-bit values don't fit 0..=255 as they are.
        windowed: !(2..=8).contains(&attributes.bits_stored)
            || (attributes.slope, attributes.intercept) != (1.0, 0.0)
            || attributes.signed,
        // A window by percentile doesn't change under a rescale but for its direction.
        inverted: (attributes.photometric == Photometric::Monochrome1) != (attributes.slope < 0.0),
        padding: attributes.padding,
    };
    let samples = match stored {
        Stored::Bytes(bytes) => Samples::Gray8(bytes),
        Stored::Words(words) => Samples::Gray16(words),
    };
    (samples, levels)
}

/// Colours of so many bits as ones of 8 or of 16.
fn whole_range(words: Vec<u16>, bits_stored: u16) -> Samples {
    let top = (1_u32 << bits_stored) - 1;
    let within = words.into_iter().map(|word| u32::from(word).min(top));
    if bits_stored <= 8 {
        Samples::Rgb8(within.map(|level| level as u8).collect())
    } else {
        Samples::Rgb16(within.map(|level| ((level * 65_535 + top / 2) / top) as u16).collect())
    }
}

/// A table stands in place of slope and intercept (PS3.3, C.11.1), and what comes out of it is unsigned.
fn by_table(lut: &ModalityLut, stored: &Stored, attributes: &Attributes) -> (Samples, Levels) {
    let levels = Levels {
        signed: false,
        windowed: true,
        inverted: attributes.photometric == Photometric::Monochrome1,
        padding: attributes.padding.and_then(|padding| padded_entries(lut, padding)),
    };
    (Samples::Gray16(lut.apply(stored, attributes.signed)), levels)
}

/// What a table has for padding. What lies beyond it looks like its ends, which are seen. A table of a modality rises or falls, so that a range stays one.
fn padded_entries(lut: &ModalityLut, Padding { first, last }: Padding) -> Option<Padding> {
    let (first, last) = lut.held(first, last)?;
    Some(Padding::between(lut.value(first).into(), lut.value(last).into()))
}

fn apply_palette(palette: &Palette, stored: &Stored, signed: bool) -> Samples {
    Samples::Rgb8(match stored {
        Stored::Bytes(bytes) => {
            let value = |byte: u8| if signed { i32::from(byte as i8) } else { i32::from(byte) };
            bytes.iter().flat_map(|&byte| palette.color(value(byte))).collect()
        }
        Stored::Words(words) => {
            let value = |word: u16| {
                if signed {
                    i32::from(word as i16)
                } else {
                    i32::from(word)
                }
            };
            words.iter().flat_map(|&word| palette.color(value(word))).collect()
        }
    })
}

/// PS3.3, C.7.6.3.1.2, inverted: rounded half up in single precision, as pydicom does, so that both give the same bytes.
fn ybr_full_to_rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    const GREEN_CB: f32 = -0.114 * 1.772 / 0.587;
    const GREEN_CR: f32 = -0.299 * 1.402 / 0.587;
    let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    let levels = [y + 1.402 * cr, y + GREEN_CB * cb + GREEN_CR * cr, y + 1.772 * cb];
    levels.map(|level| (level + 0.5).floor().clamp(0.0, 255.0) as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::Window;
    use crate::error::ErrorKind;
    use crate::imaging::dicom::testing::{
        BIG_ENDIAN, DEFLATED, Dicom, EXPLICIT, IMPLICIT, JPEG_2000, JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS,
        JPEG_LS, RCT_JPEG_2000, RLE, rle_frame,
    };
    use crate::imaging::testing::GRAY_JPEG;
    use crate::imaging::voi::{Function, Voi};
    use crate::imaging::{jpeg_ls, to_eight_bit};

    fn decoded(dicom: &Dicom) -> Raster {
        frame(dicom, 1).unwrap().raster
    }

    fn frame(dicom: &Dicom, number: u32) -> Result<DecodedFrame> {
        decode(&dicom.file(), FrameNumber::try_from(number)?, &Limits::default())
    }

    fn rgb(dicom: &Dicom) -> Vec<u8> {
        match decoded(dicom).samples() {
            Samples::Rgb8(samples) => samples.clone(),
            _ => panic!("not RGB"),
        }
    }

    fn kind(dicom: &Dicom) -> ErrorKind {
        frame(dicom, 1).err().unwrap().kind()
    }

    #[test]
    fn stored_values_are_the_same_in_every_syntax() {
        let values = [0, 1, 256, 4095, 40_000, 65_535];
        for syntax in [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED] {
            let raster = decoded(&Dicom::gray16(3, 2, &values).syntax(syntax));
            assert_eq!((raster.width(), raster.height()), (3, 2));
            assert_eq!(*raster.samples(), Samples::Gray16(values.to_vec()), "{syntax}");
            assert!(raster.levels().windowed);
            let raster = decoded(&Dicom::gray8(3, 1, &[1, 2, 3]).syntax(syntax));
            assert_eq!(*raster.samples(), Samples::Gray8(vec![1, 2, 3]), "{syntax}");
            assert!(!raster.levels().windowed);
        }
        let planes = values.map(|v: u16| v.to_be_bytes());
        let frame = rle_frame(&[
            planes.iter().map(|p| p[0]).collect(),
            planes.iter().map(|p| p[1]).collect(),
        ]);
        let raster = decoded(&Dicom::new(3, 2, 1, 16, "MONOCHROME2").syntax(RLE).fragments(&[&frame]));
        assert_eq!(*raster.samples(), Samples::Gray16(values.to_vec()));
    }

    #[test]
    fn lossless_jpeg_is_lossless() {
        let frame = include_bytes!("../fixtures/lossless12.jpg");
        let dicom = Dicom::new(12, 5, 1, 16, "MONOCHROME2")
            .number((0x28, 0x101), 12)
            .number((0x28, 0x102), 11);
        let raster = decoded(&dicom.syntax(JPEG_LOSSLESS).fragments(&[frame]));
        let expected = (0..60).map(|i| (i % 12 * 257 + i / 12 * 1000) % 4096).collect();
        assert_eq!(*raster.samples(), Samples::Gray16(expected));
    }

    #[test]
    fn jpeg_ls_is_lossless_in_every_depth() {
        let file = |bytes: &[u8], bits| {
            let header = jpeg_ls::Header::read(bytes).unwrap();
            let photometric = if header.components == 3 { "RGB" } else { "MONOCHROME2" };
            let (columns, rows) = (header.width as u16, header.height as u16);
            let dicom = Dicom::new(columns, rows, header.components.into(), bits, photometric);
            dicom.syntax(JPEG_LS).fragments(&[bytes])
        };
        let gray12: &[u8] = include_bytes!("../fixtures/jpeg_ls/gray12.jls");
        let expected = jpeg_ls::decode(gray12).unwrap().1;
        assert!(expected.iter().any(|&sample| sample > 255));
        assert_eq!(*decoded(&file(gray12, 16)).samples(), Samples::Gray16(expected));
        assert_eq!(kind(&file(gray12, 8)), ErrorKind::InvalidImage);
        let color: &[u8] = include_bytes!("../fixtures/jpeg_ls/rgb_by_sample.jls");
        let expected: Vec<u8> = jpeg_ls::decode(color)
            .unwrap()
            .1
            .iter()
            .map(|&sample| sample as u8)
            .collect();
        assert_eq!(rgb(&file(color, 8)), expected);
        assert_eq!(kind(&file(color, 8).number((0x28, 0x11), 5)), ErrorKind::InvalidImage);
    }

    #[test]
    fn jpeg_extended_has_8_or_12_bits() {
        let gray12: &[u8] = include_bytes!("../fixtures/extended12.jpg");
        let levels = include_bytes!("../fixtures/extended12.bin").as_chunks::<2>().0;
        let levels: Vec<u16> = levels.iter().map(|&pair| u16::from_le_bytes(pair)).collect();
        let dicom = Dicom::new(37, 21, 1, 16, "MONOCHROME2").syntax(JPEG_EXTENDED);
        let dicom = dicom.number((0x28, 0x101), 12).number((0x28, 0x102), 11);
        assert_eq!(
            *decoded(&dicom.clone().fragments(&[gray12])).samples(),
            Samples::Gray16(levels.clone())
        );
        assert_eq!(
            kind(&dicom.clone().syntax(JPEG_BASELINE).fragments(&[gray12])),
            ErrorKind::UnsupportedMedia
        );
        // A level that the coding made larger than the largest is white, not black.
        let short = dicom.number((0x28, 0x101), 10).number((0x28, 0x102), 9);
        let Samples::Gray16(clamped) = decoded(&short.fragments(&[gray12])).samples().clone() else {
            panic!("not grey")
        };
        assert!(levels.iter().any(|&level| level > 1023));
        let expected: Vec<u16> = levels.iter().map(|&level| level.min(1023)).collect();
        assert_eq!(clamped, expected);
        // Two components more in the frame header.
        let at = gray12.windows(2).position(|pair| pair == [0xff, 0xc1]).unwrap();
        let mut color = gray12.to_vec();
        (color[at + 3], color[at + 9]) = (17, 3);
        color.splice(at + 13..at + 13, [2, 0x11, 0, 3, 0x11, 0]);
        let color = Dicom::new(37, 21, 3, 16, "RGB").fragments(&[&color]);
        assert_eq!(kind(&color.syntax(JPEG_EXTENDED)), ErrorKind::UnsupportedMedia);
        let gray8 = Dicom::new(16, 8, 1, 8, "MONOCHROME2").fragments(&[GRAY_JPEG]);
        let [extended, baseline] = [JPEG_EXTENDED, JPEG_BASELINE].map(|syntax| decoded(&gray8.clone().syntax(syntax)));
        assert_eq!(extended.samples(), baseline.samples());
    }

    #[test]
    fn jpeg_2000_is_rgb_where_it_was_transformed() {
        let jpeg_2000 = |bits, photometric: &str| {
            let dicom = Dicom::new(30, 20, 3, bits, photometric).syntax(JPEG_2000);
            decoded(&dicom.fragments(&[RCT_JPEG_2000]))
        };
        let Samples::Rgb8(expected) = jpeg_2000(8, "RGB").samples().clone() else {
            panic!("not RGB")
        };
        // The lowest bits of the fixture's formula.
        assert_eq!(expected[..6], [0, 104, 208, 63, 167, 15]);
        for photometric in ["YBR_RCT", "YBR_ICT", "YBR_FULL"] {
            assert_eq!(*jpeg_2000(8, photometric).samples(), Samples::Rgb8(expected.clone()));
        }
        let wide = expected.into_iter().map(u16::from).collect();
        assert_eq!(*jpeg_2000(16, "YBR_RCT").samples(), Samples::Rgb16(wide));
        // Components that were left alone are what the header says.
        let plain: &[u8] = include_bytes!("../fixtures/jpeg2000/plain.j2k");
        let plain = Dicom::new(30, 20, 3, 8, "YBR_FULL")
            .syntax(JPEG_2000)
            .fragments(&[plain]);
        assert_eq!(rgb(&plain)[..3], ybr_full_to_rgb([0, 104, 208]));
    }

    #[test]
    fn jpeg_2000_keeps_values_beyond_its_stored_bits() {
        let gray12: &[u8] = include_bytes!("../fixtures/jpeg2000/gray12.j2k");
        let dicom = Dicom::new(36, 33, 1, 16, "MONOCHROME2")
            .syntax(JPEG_2000)
            .fragments(&[gray12]);
        let whole = decoded(&dicom);
        let short = dicom.number((0x28, 0x101), 10).number((0x28, 0x102), 9);
        assert_eq!(decoded(&short).samples(), whole.samples());
        let Samples::Gray16(signed) = decoded(&short.number((0x28, 0x103), 1)).samples().clone() else {
            panic!("not grey")
        };
        assert!(signed.iter().all(|&word| (-2048..2048).contains(&(word as i16))));
    }

    #[test]
    fn only_stored_bits_count() {
        let dicom = Dicom::gray16(2, 1, &[0xf123, 0x0fff])
            .number((0x28, 0x101), 12)
            .number((0x28, 0x102), 11);
        assert_eq!(*decoded(&dicom).samples(), Samples::Gray16(vec![0x123, 0xfff]));
        let signed = decoded(&dicom.clone().number((0x28, 0x103), 1));
        assert_eq!(*signed.samples(), Samples::Gray16(vec![0x123, 0xffff]));
        assert!(signed.levels().signed);
        let high = Dicom::gray16(2, 1, &[0x1230, 0xfff5])
            .number((0x28, 0x101), 12)
            .number((0x28, 0x102), 15);
        assert_eq!(*decoded(&high).samples(), Samples::Gray16(vec![0x123, 0xfff]));
        assert_eq!(kind(&dicom.number((0x28, 0x101), 17)), ErrorKind::InvalidImage);
    }

    #[test]
    fn monochrome1_is_inverted_once() {
        let picture = |photometric: &str, slope: &str| {
            let dicom = Dicom::gray16(3, 1, &[10, 20, 30]).text((0x28, 0x04), b"CS", photometric);
            let raster = decoded(&dicom.text((0x28, 0x1053), b"DS", slope));
            let (eight, window) = to_eight_bit(&raster).unwrap();
            assert_eq!(window, Window::Percentile { low: 10, high: 30 });
            eight.data
        };
        assert_eq!(picture("MONOCHROME2", "1"), [0, 128, 255]);
        assert_eq!(picture("MONOCHROME1", "1"), [255, 127, 0]);
        assert_eq!(picture("MONOCHROME2", "-2.5"), [255, 127, 0]);
        assert_eq!(picture("MONOCHROME1", "-1"), [0, 128, 255]);
        assert_eq!(picture("MONOCHROME1", "0"), [255, 127, 0]);
        let eight = Dicom::gray8(2, 1, &[0, 9]).text((0x28, 0x04), b"CS", "MONOCHROME1");
        assert_eq!(to_eight_bit(&decoded(&eight)).unwrap().0.data, [255, 246]);
    }

    #[test]
    fn bits_are_black_and_white() {
        let dicom = Dicom::new(3, 3, 1, 1, "MONOCHROME2").native(vec![0b1010_0110, 0b0000_0001]);
        for syntax in [EXPLICIT, IMPLICIT, DEFLATED] {
            let raster = decoded(&dicom.clone().syntax(syntax));
            assert_eq!(
                *raster.samples(),
                Samples::Gray8(vec![0, 1, 1, 0, 0, 1, 0, 1, 1]),
                "{syntax}"
            );
            let black_and_white = [0, 255, 255, 0, 0, 255, 0, 255, 255];
            assert_eq!(to_eight_bit(&raster).unwrap().0.data, black_and_white);
        }
        // The second of three frames begins in the middle of a byte: 27 bits are four bytes.
        let several = dicom.text((0x28, 0x08), b"IS", "3");
        assert_eq!(kind(&several.clone().native(vec![0; 2])), ErrorKind::InvalidImage);
        // The first of each frame, which are 0, 9 and 18, and 10 and 26.
        let several = several.native(vec![0b0000_0001, 0b0000_0110, 0b0000_0100, 0b0000_0100]);
        let first_pixels = |number| match frame(&several, number).unwrap().raster.samples() {
            Samples::Gray8(samples) => [samples[0], samples[1], samples[8]],
            _ => panic!("not grey"),
        };
        assert_eq!([1, 2, 3].map(first_pixels), [[1, 0, 0], [1, 1, 0], [1, 0, 1]]);
        assert_eq!(
            kind(&Dicom::new(1, 1, 3, 1, "RGB").native(vec![0; 2])),
            ErrorKind::UnsupportedMedia
        );
        let coded = Dicom::new(8, 1, 1, 1, "MONOCHROME2").syntax(RLE);
        assert_eq!(
            kind(&coded.fragments(&[&rle_frame(&[vec![1]])])),
            ErrorKind::UnsupportedMedia
        );
    }

    #[test]
    fn every_frame_is_decoded_as_it_is_coded() {
        let several = |dicom: Dicom| dicom.text((0x28, 0x08), b"IS", "3");
        let [first, second, third] = [[1, 2, 3], [40, 50, 60], [7, 8, 9]];
        let native = several(Dicom::gray8(3, 1, &[first, second, third].concat()));
        let coded = [first, second, third].map(|values: [u8; 3]| rle_frame(&[values.to_vec()]));
        let rle = several(Dicom::new(3, 1, 1, 8, "MONOCHROME2").syntax(RLE));
        let whole = rle.clone().fragments(&[&coded[0], &coded[1], &coded[2]]);
        let (begin, end) = coded[1].split_at(64);
        let offsets = [
            0,
            coded[0].len() as u32 + 8,
            (coded[0].len() + coded[1].len()) as u32 + 24,
        ];
        let split = rle.fragments(&[&coded[0], begin, end, &coded[2]]).offsets(&offsets);
        let deflated = native.clone().syntax(DEFLATED);
        let big = native.clone().syntax(BIG_ENDIAN);
        for dicom in [native, big, deflated, whole, split] {
            for (number, values) in (1..).zip([first, second, third]) {
                let found = frame(&dicom, number).unwrap();
                assert_eq!(*found.raster.samples(), Samples::Gray8(values.to_vec()), "{number}");
                assert_eq!((found.frame.number().get(), found.frame.frames()), (number, 3));
            }
            assert_eq!(frame(&dicom, 4).err().unwrap().kind(), ErrorKind::InvalidRequest);
        }
    }

    #[test]
    fn every_jpeg_of_a_file_is_decoded() {
        let other = include_bytes!("../fixtures/jpeg2000/plain.j2k");
        let dicom = Dicom::new(30, 20, 3, 8, "RGB")
            .syntax(JPEG_2000)
            .text((0x28, 0x08), b"IS", "2");
        let (begin, end) = RCT_JPEG_2000.split_at(RCT_JPEG_2000.len() / 2);
        let marked = dicom.fragments(&[begin, end, other]);
        for (number, alone) in [(1, RCT_JPEG_2000), (2, &other[..])] {
            let alone = decoded(&Dicom::new(30, 20, 3, 8, "RGB").syntax(JPEG_2000).fragments(&[alone]));
            assert_eq!(frame(&marked, number).unwrap().raster.samples(), alone.samples());
        }
    }

    #[test]
    fn rescaled_8_bit_gets_a_window() {
        let dicom = Dicom::gray8(2, 1, &[10, 20]);
        assert!(!decoded(&dicom).levels().windowed);
        assert!(
            decoded(&dicom.clone().text((0x28, 0x1052), b"DS", "-1024"))
                .levels()
                .windowed
        );
        assert!(decoded(&dicom.clone().number((0x28, 0x103), 1)).levels().windowed);
        assert_eq!(kind(&dicom.text((0x28, 0x1053), b"DS", "x")), ErrorKind::InvalidImage);
    }

    #[test]
    fn what_grey_values_stand_for_is_told() {
        let told = |dicom: &Dicom| frame(dicom, 1).unwrap().grey_scale;
        let plain = Dicom::gray16(2, 1, &[1, 2]);
        assert_eq!(told(&plain), GreyScale::default());
        let scaled = plain
            .clone()
            .text((0x28, 0x1052), b"DS", "-1024")
            .text((0x28, 0x1053), b"DS", " 2.5");
        let rescale = Rescale {
            slope: 2.5,
            intercept: -1024.0,
        };
        assert_eq!(told(&scaled).rescale, Some(rescale));
        let windowed = |center: &str, width: &str| {
            let dicom = scaled.clone().text((0x28, 0x1050), b"DS", center);
            dicom.text((0x28, 0x1051), b"DS", width)
        };
        let two = windowed("40\\ 300", "+4e2 \\1500");
        for syntax in [EXPLICIT, IMPLICIT, DEFLATED, BIG_ENDIAN] {
            assert_eq!(
                told(&two.clone().syntax(syntax)).voi,
                Voi::new(40.0, 400.0, Function::Linear),
                "{syntax}"
            );
        }
        for (function, expected) in [
            ("LINEAR", Some(Function::Linear)),
            ("LINEAR_EXACT", Some(Function::LinearExact)),
            ("SIGMOID", Some(Function::Sigmoid)),
            ("CUBIC", None),
        ] {
            let voi = told(&two.clone().text((0x28, 0x1056), b"CS", function)).voi;
            assert_eq!(voi.map(|voi| voi.function), expected, "{function}");
        }
        for (center, width) in [
            ("40", "0"),
            ("x", "400"),
            ("40", ""),
            ("inf", "400"),
            ("\\40", "400"),
            ("40", "1e999"),
        ] {
            assert_eq!(told(&windowed(center, width)).voi, None, "{center} {width}");
        }
        assert_eq!(
            told(&windowed("40", "0").text((0x28, 0x1056), b"CS", "LINEAR_EXACT")).voi,
            None
        );
    }

    #[test]
    fn values_of_functional_groups_are_not_known() {
        let header = |group: u16, element: u16| {
            let tag = [group.to_le_bytes(), element.to_le_bytes()].concat();
            [&tag, &b"SQ\0\0\xff\xff\xff\xff"[..]].concat()
        };
        let item = |inside: &[u8]| {
            let begin: &[u8] = b"\xfe\xff\0\xe0\xff\xff\xff\xff";
            [begin, inside, b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"].concat()
        };
        let sequence = |group, element, inside: &[u8]| [header(group, element), item(inside)].concat();
        let transformation = sequence(0x28, 0x9145, &[]);
        let rescale = |extra: Vec<u8>| {
            frame(&Dicom::gray16(2, 1, &[1, 2]).extra(extra), 1)
                .unwrap()
                .grey_scale
                .rescale
        };
        for groups in [0x9229, 0x9230] {
            assert_eq!(rescale(sequence(0x5200, groups, &transformation)), None);
            assert_eq!(rescale(sequence(0x5200, groups, &[])), Some(Rescale::IDENTITY));
        }
        let elsewhere = sequence(0x5200, 0x9229, &sequence(0x28, 0x9110, &transformation));
        assert_eq!(rescale(elsewhere), Some(Rescale::IDENTITY));
    }

    #[test]
    fn padding_may_be_a_range() {
        let padding = |dicom: &Dicom| decoded(dicom).levels().padding;
        let dicom = Dicom::gray16(5, 1, &[0, 10, 11, 12, 65_535]);
        let limited = dicom.clone().number((0x28, 0x121), 11);
        assert_eq!(padding(&limited), None);
        assert_eq!(
            padding(&limited.clone().number((0x28, 0x120), 3)),
            Some(Padding { first: 3, last: 11 })
        );
        assert_eq!(
            padding(&limited.number((0x28, 0x120), 90)),
            Some(Padding { first: 11, last: 90 })
        );
        let signed = dicom
            .number((0x28, 0x103), 1)
            .number((0x28, 0x120), 63_536)
            .number((0x28, 0x121), 0);
        assert_eq!(padding(&signed), Some(Padding { first: -2000, last: 0 }));
    }

    #[test]
    fn a_modality_lut_stands_for_stored_values() {
        let sequence = |tag: [u8; 4], descriptor: [u8; 6], data: &[u8]| {
            let element = |element: u8, value: &[u8]| {
                let header = [0x28, 0, element, 0x30, b'O', b'W', 0, 0, value.len() as u8, 0, 0, 0];
                [&header, value].concat()
            };
            let item = [element(0x02, &descriptor), element(0x06, data)].concat();
            let undefined = [0xff; 4];
            let mut bytes = [&tag[..], b"SQ\0\0", &undefined, b"\xfe\xff\0\xe0", &undefined].concat();
            bytes.extend(item);
            bytes.extend(b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0");
            bytes
        };
        const MODALITY: [u8; 4] = [0x28, 0, 0, 0x30];
        const VOI: [u8; 4] = [0x28, 0, 0x10, 0x30];
        // Three entries from the stored value 10 on.
        let wide = sequence(MODALITY, [3, 0, 10, 0, 16, 0], &[7, 1, 5, 0, 9, 0]);
        let dicom = Dicom::gray16(5, 1, &[0, 10, 11, 12, 65_535]).number((0x28, 0x120), 11);
        let raster = decoded(&dicom.clone().extra(wide.clone()));
        assert_eq!(*raster.samples(), Samples::Gray16(vec![263, 263, 5, 9, 9]));
        let levels = raster.levels();
        assert_eq!(
            (levels.signed, levels.windowed, levels.inverted, levels.padding),
            (false, true, false, Some(Padding::of(5)))
        );
        let range = dicom.clone().number((0x28, 0x120), 0).number((0x28, 0x121), 11);
        let range = frame(&range.text((0x28, 0x1052), b"DS", "5").extra(wide.clone()), 1).unwrap();
        assert_eq!(range.raster.levels().padding, Some(Padding { first: 5, last: 263 }));
        assert_eq!(
            range.grey_scale.rescale,
            Some(Rescale::IDENTITY),
            "the table stands in its place"
        );
        let beyond = decoded(&dicom.clone().number((0x28, 0x120), 0).extra(wide));
        assert_eq!(beyond.levels().padding, None);
        let mut signed = Dicom::gray16(2, 1, &[0xfff6, 0xfff7]).number((0x28, 0x103), 1);
        signed = signed.extra(sequence(MODALITY, [2, 0, 0xf6, 0xff, 16, 0], &[1, 0, 2, 0]));
        assert_eq!(*decoded(&signed).samples(), Samples::Gray16(vec![1, 2]));
        // 8 bits, two in a word; a VOI LUT is none.
        let narrow = sequence(MODALITY, [4, 0, 0, 0, 8, 0], &[4, 3, 2, 1]);
        let bytes = Dicom::gray8(4, 1, &[0, 1, 2, 3]);
        assert_eq!(
            *decoded(&bytes.clone().extra(narrow)).samples(),
            Samples::Gray16(vec![4, 3, 2, 1])
        );
        let voi = sequence(VOI, [4, 0, 0, 0, 8, 0], &[4, 3, 2, 1]);
        assert_eq!(
            *decoded(&bytes.clone().extra(voi)).samples(),
            Samples::Gray8(vec![0, 1, 2, 3])
        );
        let short = sequence(MODALITY, [4, 0, 0, 0, 16, 0], &[4, 3, 2, 1]);
        assert_eq!(kind(&bytes.extra(short)), ErrorKind::InvalidImage);
    }

    #[test]
    fn padding_may_be_negative() {
        let dicom = Dicom::gray16(2, 1, &[0xf830, 5]).number((0x28, 0x103), 1);
        for syntax in [EXPLICIT, IMPLICIT, BIG_ENDIAN] {
            let padded = dicom.clone().syntax(syntax).raw((0x28, 0x120), b"SS", vec![0x30, 0xf8]);
            assert_eq!(decoded(&padded).levels().padding, Some(Padding::of(-2000)), "{syntax}");
        }
        assert_eq!(
            decoded(&dicom.number((0x28, 0x120), 0xf830)).levels().padding,
            Some(Padding::of(-2000))
        );
    }

    #[test]
    fn planes_are_woven() {
        let planes = Dicom::new(2, 1, 3, 8, "RGB")
            .number((0x28, 0x06), 1)
            .native(vec![1, 2, 3, 4, 5, 6]);
        assert_eq!(rgb(&planes), [1, 3, 5, 2, 4, 6]);
        assert_eq!(rgb(&planes.number((0x28, 0x06), 0)), [1, 2, 3, 4, 5, 6]);
        let frame = rle_frame(&[vec![1, 2], vec![3, 4], vec![5, 6]]);
        assert_eq!(
            rgb(&Dicom::new(2, 1, 3, 8, "RGB").syntax(RLE).fragments(&[&frame])),
            [1, 3, 5, 2, 4, 6]
        );
        let wide = Dicom::new(1, 1, 3, 16, "RGB").native(vec![1, 0, 2, 0, 3, 1]);
        assert_eq!(*decoded(&wide).samples(), Samples::Rgb16(vec![1, 2, 259]));
        let stored = |bits: u16| wide.clone().number((0x28, 0x101), bits).number((0x28, 0x102), bits - 1);
        assert_eq!(*decoded(&stored(12)).samples(), Samples::Rgb16(vec![16, 32, 4145]));
        let white = stored(10).native(vec![255, 3, 0, 0, 0, 2]);
        assert_eq!(*decoded(&white).samples(), Samples::Rgb16(vec![65_535, 0, 32_800]));
        assert_eq!(rgb(&stored(8)), [1, 2, 3]);
    }

    #[test]
    fn ybr_becomes_rgb() {
        let full = Dicom::new(2, 1, 3, 8, "YBR_FULL").native(vec![76, 85, 255, 100, 128, 128]);
        assert_eq!(rgb(&full), [254, 0, 0, 100, 100, 100]);
        let halved = Dicom::new(2, 1, 3, 8, "YBR_FULL_422").native(vec![76, 100, 85, 255]);
        assert_eq!(rgb(&halved), [254, 0, 0, 255, 24, 24]);
        assert_eq!(
            kind(&Dicom::new(1, 1, 3, 16, "YBR_FULL").native(vec![0; 6])),
            ErrorKind::UnsupportedMedia
        );
        assert_eq!(
            kind(&Dicom::new(1, 1, 3, 8, "YBR_RCT").native(vec![0; 4])),
            ErrorKind::UnsupportedMedia
        );
        assert_eq!(
            kind(&Dicom::gray8(1, 1, &[0]).text((0x28, 4), b"CS", "RGB")),
            ErrorKind::UnsupportedMedia
        );
    }

    #[test]
    fn jpeg_colours_follow_the_stream_then_the_header() {
        let jpeg = |frame: &[u8], photometric: &str| {
            let dicom = Dicom::new(32, 16, 3, 8, photometric)
                .syntax(JPEG_BASELINE)
                .fragments(&[frame]);
            let samples = rgb(&dicom);
            [samples[0], samples[1], samples[2]]
        };
        let close = |a: [u8; 3], b: [u8; 3]| a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= 2);
        let (jfif, adobe) = (
            include_bytes!("../fixtures/color.jpg"),
            include_bytes!("../fixtures/rgb.jpg"),
        );
        assert!(close(jpeg(jfif, "YBR_FULL_422"), [220, 30, 10]));
        assert!(close(jpeg(jfif, "RGB"), [220, 30, 10]));
        assert!(close(jpeg(adobe, "RGB"), [220, 30, 10]));
        assert!(close(jpeg(adobe, "YBR_FULL_422"), [220, 30, 10]));
        // Without any segment that tells (SC_jpeg_no_color_transform), the header is believed.
        let mut bare = adobe[18..].to_vec();
        bare.splice(0..0, [0xff, 0xd8]);
        let sof = bare.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        let sos = bare.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
        for component in 0..3 {
            bare[sof + 10 + 3 * component] = component as u8 + 1;
            bare[sos + 5 + 2 * component] = component as u8 + 1;
        }
        assert!(close(jpeg(&bare, "RGB"), [220, 30, 10]));
        assert!(!close(jpeg(&bare, "YBR_FULL"), [220, 30, 10]));
        let gray = Dicom::new(16, 8, 1, 8, "MONOCHROME1")
            .syntax(JPEG_BASELINE)
            .fragments(&[GRAY_JPEG]);
        assert!(decoded(&gray).levels().inverted);
    }

    #[test]
    fn palettes_are_applied() {
        let tables = |dicom: Dicom, vr: &[u8; 2], entries: [&[u8]; 3]| {
            dicom
                .raw((0x28, 0x1201), vr, entries[0].to_vec())
                .raw((0x28, 0x1202), vr, entries[1].to_vec())
                .raw((0x28, 0x1203), vr, entries[2].to_vec())
        };
        let descriptor = |bits: u8| vec![3, 0, 1, 0, bits, 0];
        let dicom = Dicom::gray8(4, 1, &[0, 1, 2, 9]).text((0x28, 4), b"CS", "PALETTE COLOR");
        let expected = [1, 4, 7, 1, 4, 7, 2, 5, 8, 3, 6, 9];
        for syntax in [EXPLICIT, IMPLICIT, BIG_ENDIAN] {
            let wide = dicom.clone().syntax(syntax).raw((0x28, 0x1101), b"US", descriptor(16));
            let wide = tables(
                wide,
                b"OW",
                [&[9, 1, 9, 2, 9, 3], &[9, 4, 9, 5, 9, 6], &[9, 7, 9, 8, 9, 9]],
            );
            assert_eq!(rgb(&wide), expected, "{syntax}");
            let narrow = dicom.clone().syntax(syntax).raw((0x28, 0x1101), b"US", descriptor(8));
            let narrow = tables(narrow, b"OW", [&[1, 2, 3, 0], &[4, 5, 6, 0], &[7, 8, 9, 0]]);
            assert_eq!(rgb(&narrow), expected, "{syntax}");
        }
        assert_eq!(kind(&dicom), ErrorKind::InvalidImage);
    }

    #[test]
    fn provenance_is_read_and_trimmed() {
        let dicom = Dicom::gray8(2, 1, &[0, 1])
            .text((0x08, 0x05), b"CS", "ISO_IR 100")
            .text((0x08, 0x18), b"UI", "1.2.3\0")
            .text((0x08, 0x60), b"CS", "DX")
            .raw((0x10, 0x20), b"LO", b"M\xfcller 7 ".to_vec())
            .text((0x10, 0x40), b"CS", "")
            .text((0x10, 0x1010), b"AS", "045Y")
            .text((0x18, 0x5101), b"CS", "PA");
        for syntax in [EXPLICIT, IMPLICIT, BIG_ENDIAN] {
            let provenance = frame(&dicom.clone().syntax(syntax), 1).unwrap().provenance;
            assert_eq!(provenance.patient_id.as_deref(), Some("Müller 7"));
            assert_eq!(provenance.sop_uid.as_deref(), Some("1.2.3"));
            assert_eq!(provenance.age.as_deref(), Some("45"));
            assert_eq!(provenance.view.as_deref(), Some("PA"));
            assert_eq!(provenance.modality.as_deref(), Some("DX"));
            assert_eq!((provenance.sex, provenance.issuer), (None, None));
        }
    }

    proptest! {
        #[test]
        fn damage_never_panics(
            changes in prop::collection::vec((132_usize..2000, any::<u8>()), 1..8),
            cut in 0_usize..200,
            which in 0..9,
            number in 1_u32..4,
        ) {
            let rle = rle_frame(&[vec![1; 12], vec![2; 12], vec![3; 12]]);
            let lossless = include_bytes!("../fixtures/lossless12.jpg");
            let twelve_bit = include_bytes!("../fixtures/extended12.jpg");
            let jls = include_bytes!("../fixtures/jpeg_ls/gray12.jls");
            let ls = jpeg_ls::Header::read(jls).unwrap();
            let dicom = match which {
                0 => Dicom::gray16(3, 1, &[0, 1, 256, 4095, 40_000, 65_535]).text((0x28, 0x08), b"IS", "2"),
                1 => Dicom::gray16(3, 2, &[0; 6]).syntax(DEFLATED),
                2 => Dicom::new(4, 3, 3, 8, "RGB").syntax(RLE).fragments(&[&rle, &rle[..40], &rle[40..]])
                    .offsets(&[0, rle.len() as u32 + 8]).text((0x28, 0x08), b"IS", "2"),
                3 => Dicom::new(12, 5, 1, 16, "MONOCHROME2").syntax(JPEG_LOSSLESS).fragments(&[lossless]),
                4 => Dicom::new(30, 20, 3, 8, "YBR_RCT").syntax(JPEG_2000).fragments(&[RCT_JPEG_2000]),
                5 => Dicom::new(37, 21, 1, 16, "MONOCHROME2").syntax(JPEG_EXTENDED).fragments(&[twelve_bit]),
                6 => Dicom::new(ls.width as u16, ls.height as u16, 1, 16, "MONOCHROME2").syntax(JPEG_LS).fragments(&[jls]),
                7 => Dicom::new(3, 3, 1, 1, "MONOCHROME2").native(vec![0b1010_0110, 1]),
                _ => Dicom::new(16, 8, 1, 8, "MONOCHROME2").syntax(JPEG_BASELINE).fragments(&[GRAY_JPEG]),
            };
            let mut file = dicom.file();
            for (at, value) in changes {
                let at = at % file.len();
                file[at] = value;
            }
            file.truncate(file.len() - cut % 60);
            let small = Limits { pixels_max: 1 << 16, file_bytes_max: 1 << 20 };
            let _ = decode(&file, FrameNumber::try_from(number).unwrap(), &small);
        }
    }
}
