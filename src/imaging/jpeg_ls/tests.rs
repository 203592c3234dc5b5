//! Codestreams of CharLS, those with restarts of an encoder written from the standard alone, which CharLS reads.

use proptest::prelude::*;

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("../fixtures/jpeg_ls/", $name, ".jls"))
    };
}

const GRAY8: &[u8] = fixture!("gray8");
const RESTARTS: &[u8] = fixture!("restarts");
const RGB_BY_SAMPLE: &[u8] = fixture!("rgb_by_sample");
const RGB_BY_PLANE: &[u8] = fixture!("rgb_by_plane");

/// The picture in every fixture: diagonal bands of flat fields, slopes, noise, and slopes with a little noise.
fn picture(header: &Header) -> Vec<u16> {
    let highest = (1 << header.precision) - 1;
    let sample = |x: u32, y: u32, component: u32| {
        let noise = (x + 97 * y + 1009 * component + 1).wrapping_mul(2_654_435_761) >> 16;
        let sample = match (x / 8 + y / 8) % 4 {
            0 => highest / 3,
            1 => (5 * x + 3 * y + 11 * component) * highest / 512,
            2 => noise & highest,
            _ => (5 * x + 3 * y) * highest / 512 + noise % 2,
        };
        sample as u16
    };
    let mut samples = Vec::new();
    for y in 0..header.height {
        for x in 0..header.width {
            samples.extend((0..u32::from(header.components)).map(|component| sample(x, y, component)));
        }
    }
    samples
}

fn decoded(bytes: &[u8]) -> Vec<u16> {
    decode(bytes).unwrap().1
}

fn kind(bytes: &[u8]) -> ErrorKind {
    decode(bytes).unwrap_err().kind()
}

/// With other bytes in place of those that follow a marker's code.
fn patched(bytes: &[u8], marker: u8, at: usize, value: u8) -> Vec<u8> {
    let start = bytes.windows(2).position(|pair| pair == [0xff, marker]).unwrap();
    let mut patched = bytes.to_vec();
    patched[start + 2 + at] = value;
    patched
}

/// With a segment in front of all others.
fn with_segment(bytes: &[u8], marker: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16 + 2).to_be_bytes();
    [&bytes[..2], &[0xff, marker], &length, body, &bytes[2..]].concat()
}

#[test]
fn without_loss_every_sample_comes_back() {
    for (name, bytes, shape) in [
        ("2 bits", fixture!("gray2").as_slice(), (1, 2)),
        ("8 bits", GRAY8, (1, 8)),
        ("12 bits", fixture!("gray12"), (1, 12)),
        ("16 bits", fixture!("gray16"), (1, 16)),
        ("presets", fixture!("presets"), (1, 8)),
        ("restarts", RESTARTS, (1, 8)),
        ("RGB by plane", RGB_BY_PLANE, (3, 8)),
        ("RGB by line", fixture!("rgb_by_line"), (3, 8)),
        ("RGB by sample", RGB_BY_SAMPLE, (3, 8)),
        ("RGB with restarts", fixture!("rgb_restarts"), (3, 8)),
    ] {
        let (header, samples) = decode(bytes).unwrap();
        assert_eq!((header.components, header.precision), shape, "{name}");
        assert_eq!(header, Header::read(bytes).unwrap(), "{name}");
        assert!(samples == picture(&header), "{name}");
    }
}

#[test]
fn with_loss_every_sample_is_near_and_as_charls_has_it() {
    for (bytes, near, digest) in [
        (fixture!("gray8_near2").as_slice(), 2, 0x04ea_4afe_3af7_3953),
        (fixture!("gray12_near3"), 3, 0xd8f5_498a_d039_1326),
        (fixture!("rgb_by_sample_near2"), 2, 0xad26_8b54_f7e5_c89d),
    ] {
        let (header, samples) = decode(bytes).unwrap();
        let original = picture(&header);
        assert!(samples.iter().zip(&original).all(|(a, b)| a.abs_diff(*b) <= near));
        // FNV-1a, a sample at a time.
        let fold = |digest: u64, sample: &u16| (digest ^ u64::from(*sample)).wrapping_mul(0x0100_0000_01b3);
        assert_eq!(samples.iter().fold(0xcbf2_9ce4_8422_2325, fold), digest);
    }
}

#[test]
fn example_of_the_standard() {
    // T.87, H.3.
    let example = [
        0xff, 0xd8, 0xff, 0xf7, 0x00, 0x0b, 0x08, 0x00, 0x04, 0x00, 0x04, 0x01, 0x01, 0x11, 0x00, 0xff, 0xda, 0x00,
        0x08, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0xc0, 0x00, 0x00, 0x6c, 0x80, 0x20, 0x8e, 0x01, 0xc0, 0x00, 0x00,
        0x57, 0x40, 0x00, 0x00, 0x6e, 0xe6, 0x00, 0x00, 0x01, 0xbc, 0x18, 0x00, 0x00, 0x05, 0xd8, 0x00, 0x00, 0x91,
        0x60, 0xff, 0xd9,
    ];
    let expected = [0, 0, 90, 74, 68, 50, 43, 205, 64, 145, 145, 145, 100, 145, 145, 145];
    assert_eq!(decoded(&example), expected);
}

#[test]
fn only_the_end_marker_may_be_missing() {
    for bytes in [GRAY8, RGB_BY_PLANE, RGB_BY_SAMPLE, RESTARTS] {
        let whole = decoded(bytes);
        for length in 0..bytes.len() - 2 {
            assert_eq!(
                kind(&bytes[..length]),
                ErrorKind::InvalidImage,
                "{length} of {}",
                bytes.len()
            );
        }
        let data = &bytes[..bytes.len() - 2];
        assert!(decoded(data) == whole);
        for behind in [
            [0x00, 0xff, 0xd9].as_slice(),
            &[0xff],
            &[0x00],
            &[0xff, 0xff, 0xd9],
            &[0xff, 0xd9, 0x00],
        ] {
            assert!(decoded(&[data, behind].concat()) == whole, "{behind:x?}");
        }
        assert_eq!(kind(&[data, &[0x01, 0xff, 0xd9]].concat()), ErrorKind::InvalidImage);
    }
}

#[test]
fn segments_that_say_nothing_are_passed_over() {
    let mut bytes = with_segment(GRAY8, 0xe8, b"mrfx\0");
    for (marker, body) in [
        (0xfe, b"\xff\xda".as_slice()),
        (0xe0, b"JFIF\0"),
        (0xef, b""),
        (0xdd, &[0, 0]),
    ] {
        bytes = with_segment(&bytes, marker, body);
    }
    assert_eq!(decode(&bytes).unwrap(), decode(GRAY8).unwrap());
    let filled = [&GRAY8[..2], &[0xff, 0xff], &GRAY8[2..]].concat();
    assert!(decoded(&filled) == decoded(GRAY8));
}

#[test]
fn restart_intervals_of_every_length() {
    let at = RESTARTS.windows(2).position(|pair| pair == [0xff, 0xdd]).unwrap();
    let (before, rest) = RESTARTS.split_at(at);
    assert_eq!(rest[2..6], [0, 4, 0, 2]);
    let segment = |body: &[u8]| [before, &[0xff, 0xdd, 0, body.len() as u8 + 2], body, &rest[6..]].concat();
    for body in [[0, 2].as_slice(), &[0, 0, 2], &[0, 0, 0, 2]] {
        assert!(decoded(&segment(body)) == decoded(RESTARTS));
    }
    for body in [[2].as_slice(), &[0, 0, 0, 0, 2], &[0, 3], &[0, 1], &[0, 0], &[0xff; 4]] {
        assert_eq!(kind(&segment(body)), ErrorKind::InvalidImage, "{body:x?}");
    }
    for number in 0xd0..=0xd7 {
        assert_eq!(kind(&patched(RESTARTS, number, 0, 0xff)), ErrorKind::InvalidImage);
        let start = RESTARTS.windows(2).position(|pair| pair == [0xff, number]).unwrap();
        let mut swapped = RESTARTS.to_vec();
        swapped[start + 1] ^= 1;
        assert_eq!(kind(&swapped), ErrorKind::InvalidImage);
    }
}

#[test]
fn what_is_not_read_is_named() {
    use ErrorKind::{InvalidImage, UnsupportedMedia};
    let segment = |marker, body: &[u8]| with_segment(GRAY8, marker, body);
    for (bytes, expected) in [
        // Sampling factors, number of components, no rows, no columns, bits of a sample.
        (patched(RGB_BY_SAMPLE, 0xf7, 9, 0x21), UnsupportedMedia),
        (patched(GRAY8, 0xf7, 7, 2), InvalidImage),
        (patched(&patched(GRAY8, 0xf7, 4, 0), 0xf7, 3, 0), UnsupportedMedia),
        (patched(&patched(GRAY8, 0xf7, 6, 0), 0xf7, 5, 0), UnsupportedMedia),
        (patched(GRAY8, 0xf7, 2, 1), InvalidImage),
        (patched(GRAY8, 0xf7, 2, 17), InvalidImage),
        // Names of components, mapping table, loss, interleave mode, point transform.
        (patched(RGB_BY_SAMPLE, 0xf7, 11, 1), InvalidImage),
        (patched(GRAY8, 0xda, 3, 2), InvalidImage),
        (patched(RGB_BY_SAMPLE, 0xda, 5, 1), InvalidImage),
        (patched(GRAY8, 0xda, 4, 1), UnsupportedMedia),
        (patched(GRAY8, 0xda, 5, 128), InvalidImage),
        (patched(GRAY8, 0xda, 6, 1), InvalidImage),
        (patched(RGB_BY_SAMPLE, 0xda, 10, 0), InvalidImage),
        (patched(RGB_BY_SAMPLE, 0xda, 10, 3), InvalidImage),
        (patched(GRAY8, 0xda, 7, 1), UnsupportedMedia),
        (segment(0xf8, &[2, 1, 1, 0]), UnsupportedMedia),
        (segment(0xf8, &[3, 1, 1, 0]), UnsupportedMedia),
        (segment(0xf8, &[4, 2, 0, 1, 0, 1]), UnsupportedMedia),
        (segment(0xf8, &[5]), UnsupportedMedia),
        (segment(0xf8, &[]), InvalidImage),
        (segment(0xf8, &[1, 0, 0]), InvalidImage),
        (segment(0xe8, b"mrfx\x01"), UnsupportedMedia),
        (segment(0xc0, &[]), UnsupportedMedia),
        (segment(0xd8, &[]), InvalidImage),
        (segment(0xd9, &[]), InvalidImage),
        (segment(0x02, &[]), InvalidImage),
        (segment(0xda, &[1, 1, 0, 0, 0, 0]), InvalidImage),
        (segment(0xf7, &GRAY8[6..15]), InvalidImage),
        (
            segment(
                0xf7,
                &[8, 0, 1, 0, 1, 5, 1, 17, 0, 2, 17, 0, 3, 17, 0, 4, 17, 0, 5, 17, 0],
            ),
            UnsupportedMedia,
        ),
        (GRAY8[2..].to_vec(), InvalidImage),
    ] {
        let error = decode(&bytes).unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
    }
    let third_scan = RGB_BY_PLANE
        .windows(4)
        .rposition(|four| four == [0xff, 0xda, 0, 8])
        .unwrap();
    let mut twice = RGB_BY_PLANE.to_vec();
    twice[third_scan + 5] = 1;
    assert_eq!(kind(&twice), ErrorKind::InvalidImage);
}

proptest! {
    #[test]
    fn changed_bytes_never_panic(
        which in 0_usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0), Just(0xff)]), 1..6),
    ) {
        let mut bytes = [GRAY8, RESTARTS, RGB_BY_SAMPLE, RGB_BY_PLANE][which].to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if Header::read(&bytes).is_ok_and(|header| header.width * header.height < 1 << 20)
            && let Ok((header, samples)) = decode(&bytes)
        {
            prop_assert_eq!(samples.len() as u32, header.width * header.height * u32::from(header.components));
        }
    }

    #[test]
    fn noise_never_panics(
        noise in prop::collection::vec(any::<u8>(), 0..400),
        precision in 2_u8..=16,
        near in 0_u8..4,
        mode in 0_u8..3,
        reset in any::<u16>(),
    ) {
        let count = if mode == 0 { 1 } else { 3 };
        let mut bytes = vec![0xff, 0xd8, 0xff, 0xf7, 0, 8 + 3 * count, precision, 0, 9, 0, 40, count];
        bytes.extend((0..count).flat_map(|id| [id, 0x11, 0]));
        let [high, low] = reset.to_be_bytes();
        bytes.extend([0xff, 0xf8, 0, 13, 1, 0, 0, 0, 0, 0, 0, 0, 0, high, low, 0xff, 0xda, 0, 6 + 2 * count, count]);
        bytes.extend((0..count).flat_map(|id| [id, 0]));
        bytes.extend([near, mode, 0]);
        bytes.extend(noise);
        let _ = decode(&bytes);
    }
}
