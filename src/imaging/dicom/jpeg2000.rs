//! JPEG 2000 (ITU-T T.800): a codestream a frame (PS3.5, A.4.4), its components alike and at full size.
//!
//! Its structure is walked here first, for the decoder behind fills in what a cut-off stream lacks and makes room for
//! whatever the main header calls for.

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};

use super::elements::number;
use super::{invalid, unsupported};
use crate::error::{Error, Result};

/// Longest side of the reference grid: rows and columns of DICOM have 16 bits.
const GRID_MAX: u32 = u16::MAX as u32;
/// Most tiles: as many as make the largest picture in squares of 128.
const TILES_MAX: u32 = 4096;
/// Most quality layers; the decoder takes no more.
const LAYERS_MAX: u32 = 32;
/// Most decomposition levels (table A.15).
const LEVELS_MAX: u8 = 32;
/// Most notes of some 24 bytes that the decoder takes: on every code block one for each layer, ...
const NOTES_MAX: u64 = 16 << 20;
/// ... and as much as so many on itself.
const BLOCK_NOTES: u64 = 15;

/// Start of the codestream and of its size segment, which comes first (table A.2).
const SOC_SIZ: &[u8] = b"\xff\x4f\xff\x51";
const COD: u32 = 0xff52;
const COC: u32 = 0xff53;
const QCD: u32 = 0xff5c;
const QCC: u32 = 0xff5d;
const RGN: u32 = 0xff5e;
const POC: u32 = 0xff5f;
const SOT: u32 = 0xff90;
const SOD: &[u8] = b"\xff\x93";
const EOC: &[u8] = b"\xff\xd9";

/// What the main header announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// 1 or 3.
    pub components: u16,
    /// Bits of a sample, 1..=16.
    pub precision: u8,
    /// Samples are two's complement, by what the codestream says.
    pub signed: bool,
    /// The components are transformed (annex G): what is decoded is RGB, whatever PhotometricInterpretation says.
    pub transformed: bool,
}

impl Header {
    /// Reads the main header (A.3).
    ///
    /// # Errors
    /// `InvalidImage`, `UnsupportedMedia`.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        Codestream::open(bytes).map(|codestream| codestream.header)
    }
}

/// Samples in pixel order, components interleaved, RGB when they were transformed.
///
/// `signed` is PixelRepresentation, which counts where the codestream says otherwise: by it the bits above the precision
/// repeat the sign or are 0.
///
/// # Errors
/// `InvalidImage` also when a tile-part is cut off or a tile is missing, `UnsupportedMedia`. The caller has checked the
/// header's size.
pub fn decode(bytes: &[u8], signed: bool) -> Result<(Header, Vec<u16>)> {
    let codestream = Codestream::open(bytes)?;
    codestream.check_tile_parts()?;
    let header = codestream.header;
    let image = Image::new(codestream.bytes, &DecodeSettings::default()).map_err(undecodable)?;
    let mut context = DecoderContext::default();
    let image = image.decode(&mut context).map_err(undecodable)?;
    let components = usize::from(header.components);
    let pixels = header.width as usize * header.height as usize;
    let planes = image.components();
    if planes.len() != components || planes.iter().any(|plane| plane.samples().len() != pixels) {
        return Err(invalid("the JPEG 2000 inside has another size than its header says"));
    }
    let top = ((1_u32 << header.precision) - 1) as f32;
    // The decoder lifts signed samples by half the range too (G.1).
    let lift = u16::from(header.signed) << (header.precision - 1);
    let unused = 16 - header.precision;
    let word = |level: f32| {
        let value = (level.round_ties_even().clamp(0.0, top) as u16).wrapping_sub(lift) << unused;
        if signed {
            (value as i16 >> unused) as u16
        } else {
            value >> unused
        }
    };
    let mut samples = vec![0; pixels * components];
    for (component, plane) in planes.iter().enumerate() {
        let places = samples.iter_mut().skip(component).step_by(components);
        places
            .zip(plane.samples())
            .for_each(|(sample, &level)| *sample = word(level));
    }
    Ok((header, samples))
}

fn undecodable(_: impl std::error::Error) -> Error {
    invalid("the JPEG 2000 inside can't be decoded")
}

/// The decoder would list all packets for every change of their order.
fn reordered() -> Error {
    unsupported("JPEG 2000 that changes the order of its packets is not read")
}

/// A codestream whose main header is sound.
struct Codestream<'a> {
    header: Header,
    coding: Coding<'a>,
    tiles: u32,
    bytes: &'a [u8],
    /// Where its first tile-part begins.
    parts: usize,
}

impl<'a> Codestream<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self> {
        let bytes = unboxed(bytes)?;
        let broken = || invalid("the main header of the JPEG 2000 inside is broken");
        let (_, body, mut at) = segment(bytes, 2).ok_or_else(broken)?;
        let size = Size::read(body).ok_or_else(broken)?;
        let header = size.header()?;
        let mut coding = None;
        let mut blocks = Vec::new();
        loop {
            let (marker, body, next) = segment(bytes, at).ok_or_else(broken)?;
            match marker {
                COD => coding = Some(Coding::read(body).ok_or_else(broken)?),
                COC if blocks.len() == size.components.len() => return Err(broken()),
                COC => blocks.push(Blocks::of_component(body).ok_or_else(broken)?),
                POC => return Err(reordered()),
                SOT => break,
                _ => {}
            }
            at = next;
        }
        let coding = coding.ok_or_else(broken)?;
        blocks.push(coding.blocks);
        if blocks.iter().any(|blocks| blocks.high_throughput) {
            return Err(unsupported("JPEG 2000 of high throughput is not read"));
        }
        let tiles = size.tiles();
        let most = blocks.iter().map(|blocks| blocks.count(size.tile_sides())).max();
        let most = most.unwrap_or(0) * u64::from(header.components) * u64::from(tiles);
        if tiles > TILES_MAX
            || !(1..=LAYERS_MAX).contains(&coding.layers)
            || most * (BLOCK_NOTES + u64::from(coding.layers)) > NOTES_MAX
        {
            return Err(unsupported(
                "JPEG 2000 of so many tiles, layers or code blocks is not read",
            ));
        }
        Ok(Self {
            header: Header {
                transformed: coding.transformed && header.components == 3,
                ..header
            },
            coding,
            tiles,
            bytes,
            parts: at,
        })
    }

    /// Whether every tile is there and no tile-part is cut off (A.4.2). The end marker may be missing.
    fn check_tile_parts(&self) -> Result<()> {
        let cut_off = || invalid("the JPEG 2000 inside is cut off");
        let mut missing = vec![true; self.tiles as usize];
        let mut at = self.parts;
        while let Some((SOT, body, mut inside)) = segment(self.bytes, at) {
            let tile = number::<2>(body, 0, true).ok_or_else(cut_off)?;
            let end = match number::<4>(body, 2, true).ok_or_else(cut_off)? {
                // The last one, up to the end marker.
                0 => self
                    .bytes
                    .windows(2)
                    .rposition(|pair| pair == EOC)
                    .ok_or_else(cut_off)?,
                length => at + length as usize,
            };
            let part = self.bytes.get(..end).ok_or_else(cut_off)?;
            while inside < end && !part[inside..].starts_with(SOD) {
                let (marker, body, next) = segment(part, inside).ok_or_else(cut_off)?;
                let alike = match marker {
                    COD => Coding::read(body) == Some(self.coding),
                    COC => Blocks::of_component(body) == Some(self.coding.blocks),
                    POC => return Err(reordered()),
                    _ => true,
                };
                // The decoder wouldn't transform them differently.
                if !alike {
                    return Err(unsupported("JPEG 2000 whose tiles are coded differently is not read"));
                }
                inside = next;
            }
            *missing.get_mut(tile as usize).ok_or_else(cut_off)? = false;
            at = end;
        }
        if missing.contains(&true) {
            return Err(cut_off());
        }
        Ok(())
    }
}

/// The codestream alone: some writers leave it in the boxes of a JP2 file (I.4), which say nothing that counts here.
fn unboxed(mut bytes: &[u8]) -> Result<&[u8]> {
    let none = || invalid("its pixel data is no JPEG 2000");
    while !bytes.starts_with(SOC_SIZ) {
        let (header, length) = match number::<4>(bytes, 0, true).ok_or_else(none)? {
            // A length of 64 bits follows the kind.
            1 => (16, number::<4>(bytes, 12, true).ok_or_else(none)?),
            length => (8, length),
        };
        let step = match bytes.get(4..8) {
            Some(b"jp2c") => header,
            _ => header.max(length as usize),
        };
        bytes = bytes.get(step..).ok_or_else(none)?;
    }
    Ok(bytes)
}

/// A marker segment (A.1.3): its marker, its parameters, and where the next one begins.
///
/// The decoder goes by what these hold and not by their lengths, so nothing may hide at the end of one.
fn segment(bytes: &[u8], at: usize) -> Option<(u32, &[u8], usize)> {
    let marker = number::<2>(bytes, at, true)?;
    let end = at + 2 + number::<2>(bytes, at + 2, true)? as usize;
    let body = bytes.get(at + 4..end)?;
    let derived = |style: u8| style & 0x1f == 1;
    let whole = match marker {
        QCD => body.len() == 3 || !derived(*body.first()?),
        QCC => body.len() == 4 || !derived(*body.get(1)?),
        RGN => body.len() == 3,
        // Those have no length.
        _ => !(0xff30..=0xff3f).contains(&marker),
    };
    whole.then_some((marker, body, end))
}

/// The size segment (A.5.1), every pair one of x and y.
struct Size<'a> {
    /// Where the picture ends on the reference grid.
    end: [u32; 2],
    /// Where it begins.
    start: [u32; 2],
    /// Sides of a tile.
    tile: [u32; 2],
    /// Where the first tile begins.
    first_tile: [u32; 2],
    /// Depth with sign, and the distance of samples in both directions.
    components: &'a [[u8; 3]],
}

impl<'a> Size<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        let pair = |at| Some([number::<4>(body, at, true)?, number::<4>(body, at + 4, true)?]);
        let (components, []) = body.get(36..)?.as_chunks() else {
            return None;
        };
        let size = Self {
            end: pair(2)?,
            start: pair(10)?,
            tile: pair(18)?,
            first_tile: pair(26)?,
            components,
        };
        let sound = |axis: usize| {
            let (end, start, first_tile) = (size.end[axis], size.start[axis], size.first_tile[axis]);
            // The first tile has a part of the picture (B.3).
            end <= GRID_MAX && start < end && first_tile <= start && start - first_tile < size.tile[axis]
        };
        let complete = number::<2>(body, 34, true)? as usize == components.len();
        (complete && sound(0) && sound(1)).then_some(size)
    }

    fn header(&self) -> Result<Header> {
        let depth = self.components.first().map_or(0, |component| component[0]);
        let header = Header {
            width: self.end[0] - self.start[0],
            height: self.end[1] - self.start[1],
            components: self.components.len() as u16,
            precision: (depth & 0x7f) + 1,
            signed: depth & 0x80 != 0,
            transformed: false,
        };
        let alike = self.components.iter().all(|&component| component == [depth, 1, 1]);
        if !alike || header.precision > 16 || !matches!(header.components, 1 | 3) {
            return Err(unsupported(
                "JPEG 2000 is read with 1 or 3 components of up to 16 bits, all of one depth and none subsampled",
            ));
        }
        Ok(header)
    }

    fn tiles(&self) -> u32 {
        let [across, down] = [0, 1].map(|axis| (self.end[axis] - self.first_tile[axis]).div_ceil(self.tile[axis]));
        across.saturating_mul(down)
    }

    fn tile_sides(&self) -> [u32; 2] {
        [0, 1].map(|axis| self.tile[axis].min(self.end[axis] - self.start[axis]))
    }
}

/// How components are coded (A.6.1).
#[derive(Clone, Copy, PartialEq)]
struct Coding<'a> {
    layers: u32,
    transformed: bool,
    blocks: Blocks<'a>,
}

impl<'a> Coding<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        Some(Self {
            layers: number::<2>(body, 2, true)?,
            transformed: *body.get(4)? == 1,
            blocks: Blocks::read(body, 0, 5)?,
        })
    }
}

/// How a component is taken apart (table A.15).
#[derive(Clone, Copy, PartialEq)]
struct Blocks<'a> {
    levels: u8,
    /// Sides of a code block as powers of 2.
    sides: [u8; 2],
    high_throughput: bool,
    wavelet: u8,
    /// Sides of precincts as powers of 2, 4 bits each, for every resolution; empty: the largest.
    precincts: &'a [u8],
}

impl<'a> Blocks<'a> {
    /// One component may be taken apart in another way (A.6.2).
    fn of_component(body: &'a [u8]) -> Option<Self> {
        Self::read(body, 1, 2)
    }

    /// Reads what is at `at`; the lowest bit at `flags` says whether precincts follow.
    fn read(body: &'a [u8], flags: usize, at: usize) -> Option<Self> {
        let &[levels, width, height, style, wavelet] = body.get(at..)?.first_chunk()?;
        let precincts = body.get(at + 5..)?;
        let resolutions = usize::from(levels) + 1;
        let complete = precincts.len() == usize::from(body[flags] & 1) * resolutions;
        // 4096 samples a block, 1024 a side (table A.18).
        let sound = levels <= LEVELS_MAX && width <= 8 && height <= 8 && width + height <= 8;
        (complete && sound).then(|| Self {
            levels,
            sides: [width + 2, height + 2],
            high_throughput: style & 0x40 != 0,
            wavelet,
            precincts,
        })
    }

    /// About how many code blocks a tile has; precincts, which cut them too (B.7), are no more.
    fn count(&self, tile_sides: [u32; 2]) -> u64 {
        let at_resolution = |resolution: u8| {
            let (bands, halved) = if resolution == 0 { (1, 0) } else { (3, 1) };
            let precinct = self.precincts.get(usize::from(resolution)).copied().unwrap_or(0xff);
            let precinct = [precinct & 0xf, precinct >> 4];
            let [across, down] = [0, 1].map(|axis| {
                let block = self.sides[axis].min(precinct[axis].saturating_sub(halved));
                (u64::from(tile_sides[axis]) >> (self.levels - resolution + halved + block)) + 1
            });
            bands * across * down
        };
        (0..=self.levels).map(at_resolution).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    /// What OpenJPEG wrote and, for lossy ones, what it reads there.
    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!("../fixtures/jpeg2000/", $name)).as_slice()
        };
    }

    const GRAY8: &[u8] = fixture!("gray8.j2k");
    const GRAY12: &[u8] = fixture!("gray12.j2k");
    const SIGNED16: &[u8] = fixture!("signed16.j2k");
    const RCT: &[u8] = fixture!("rct.j2k");
    const TILES: &[u8] = fixture!("tiles.j2k");
    const LOSSY: &[u8] = fixture!("lossy.j2k");

    /// What the lossless ones show.
    fn picture(header: &Header) -> Vec<u16> {
        let (width, height, components) = (header.width, header.height, u32::from(header.components));
        let lift = if header.signed { 1 << (header.precision - 1) } else { 0 };
        let value = |x: u32, y: u32, component: u32| {
            let value = (x * x * 7 + y * y * 3 + x * y * 5 + component * 40) * 9;
            (value % (1 << header.precision)).wrapping_sub(lift) as u16
        };
        let rows = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        rows.flat_map(|(x, y)| (0..components).map(move |component| value(x, y, component)))
            .collect()
    }

    fn samples(bytes: &[u8]) -> Vec<u16> {
        decode(bytes, false).unwrap().1
    }

    fn kind(bytes: &[u8]) -> ErrorKind {
        decode(bytes, false).unwrap_err().kind()
    }

    /// The last place of a marker in the headers, which precede the first data.
    fn place(bytes: &[u8], marker: &[u8]) -> usize {
        let data = bytes.windows(2).position(|pair| pair == SOD).unwrap();
        bytes[..data + 2].windows(2).rposition(|pair| pair == marker).unwrap()
    }

    fn patched(bytes: &[u8], at: usize, with: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    }

    /// The same with a segment more in the header of its only tile-part.
    fn with_tile_segment(bytes: &[u8], segment: &[u8]) -> Vec<u8> {
        let part = place(bytes, b"\xff\x90");
        let length = number::<4>(bytes, part + 6, true).unwrap() + segment.len() as u32;
        let mut bytes = patched(bytes, part + 6, &length.to_be_bytes());
        bytes.splice(part + 12..part + 12, segment.iter().copied());
        bytes
    }

    #[test]
    fn lossless_is_lossless() {
        let check = |bytes: &[u8], expected: Header| {
            let (header, samples) = decode(bytes, expected.signed).unwrap();
            assert_eq!(header, expected);
            assert_eq!(Header::read(bytes).unwrap(), expected);
            assert_eq!(samples, picture(&header), "{header:?}");
        };
        let gray8 = Header {
            width: 30,
            height: 20,
            components: 1,
            precision: 8,
            signed: false,
            transformed: false,
        };
        let gray16 = Header { precision: 16, ..gray8 };
        let rgb = Header { components: 3, ..gray8 };
        check(GRAY8, gray8);
        check(fixture!("gray16.j2k"), gray16);
        check(TILES, gray16);
        check(fixture!("plain.j2k"), rgb);
        check(
            RCT,
            Header {
                transformed: true,
                ..rgb
            },
        );
        let gray12 = Header {
            width: 36,
            height: 33,
            precision: 12,
            ..gray8
        };
        check(GRAY12, gray12);
        let signed16 = Header {
            precision: 16,
            signed: true,
            ..gray12
        };
        check(SIGNED16, signed16);
    }

    #[test]
    fn lossy_is_close() {
        let check = |bytes: &[u8], expected: &[u8]| {
            let samples = samples(bytes);
            assert_eq!(samples.len(), expected.len());
            assert!(samples.iter().zip(expected).all(|(a, &b)| a.abs_diff(b.into()) <= 1));
        };
        check(LOSSY, fixture!("lossy.bin"));
        check(fixture!("ict.j2k"), fixture!("ict.bin"));
    }

    #[test]
    fn pixel_representation_says_what_is_signed() {
        let plain = samples(GRAY12);
        let signed = decode(GRAY12, true).unwrap().1;
        assert!(plain.iter().any(|&value| value >= 0x800));
        for (value, signed) in plain.into_iter().zip(signed) {
            assert_eq!(signed as i16, (value << 4) as i16 >> 4);
        }
        assert_eq!(samples(SIGNED16), decode(SIGNED16, true).unwrap().1);
        // Twelve bits that are signed only in the codestream.
        let renamed = patched(GRAY12, 42, &[0x8b]);
        assert!(Header::read(&renamed).unwrap().signed);
        let lifted = samples(GRAY12).into_iter().map(|value| value ^ 0x800);
        assert!(lifted.eq(samples(&renamed)));
    }

    #[test]
    fn ends_and_boxes_may_be_odd() {
        let expected = samples(GRAY8);
        let check = |bytes: &[u8]| assert_eq!(samples(bytes), expected);
        let unended = &GRAY8[..GRAY8.len() - 2];
        check(unended);
        check(&[GRAY8, b"\0"].concat());
        check(&[unended, b"\0"].concat());
        let endless = patched(GRAY8, place(GRAY8, b"\xff\x90") + 6, &[0; 4]);
        check(&endless);
        check(&[&endless, b"\0".as_slice()].concat());
        assert_eq!(kind(&endless[..endless.len() - 2]), ErrorKind::InvalidImage);
        let signature = b"\0\0\0\x0cjP  \x0d\x0a\x87\x0a".as_slice();
        check(&[signature, b"\0\0\0\0jp2c", GRAY8].concat());
        check(&[signature, b"\0\0\0\x0afree..\0\0\0\x01jp2c\0\0\0\0\0\0\0\0", GRAY8].concat());
        for other in [signature, b"", b"\xff\xd8\xff\xe0\0\x10JFIF\0", b"\0\0\0\x08jp2c"] {
            assert_eq!(kind(other), ErrorKind::InvalidImage);
        }
    }

    #[test]
    fn cut_off_is_refused() {
        for bytes in [GRAY8, SIGNED16, RCT, TILES, LOSSY] {
            for length in 0..bytes.len() - 2 {
                assert_eq!(kind(&bytes[..length]), ErrorKind::InvalidImage, "{length}");
            }
        }
    }

    #[test]
    fn what_is_not_read_is_named() {
        let check = |bytes: &[u8], word: &str| {
            let error = decode(bytes, false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnsupportedMedia);
            assert!(error.message().contains(word), "{error}");
        };
        // Depth, subsampling, number of components.
        check(&patched(GRAY8, 42, &[16]), "16 bits");
        check(&patched(RCT, 45, &[11]), "one depth");
        check(&patched(RCT, 46, &[2]), "subsampled");
        let mut two = patched(RCT, 4, &[0, 44]);
        two[41] = 2;
        two.drain(48..51);
        check(&two, "1 or 3 components");
        // Sides of tiles, layers, sides of code blocks.
        check(
            &patched(GRAY8, 8, &[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]),
            "so many tiles",
        );
        let cod = place(GRAY8, b"\xff\x52");
        check(&patched(GRAY8, cod + 6, &[0, 33]), "layers");
        let large = patched(GRAY8, 8, &[0, 0, 0x1f, 0xff, 0, 0, 0x1f, 0xff]);
        let large = patched(&large, 24, &[0, 0, 0x1f, 0xff, 0, 0, 0x1f, 0xff]);
        assert!(Header::read(&large).is_ok());
        check(&patched(&large, cod + 10, &[0, 0]), "code blocks");
        check(&patched(GRAY8, cod + 12, &[0x40]), "high throughput");
        check(
            &with_tile_segment(GRAY8, b"\xff\x5f\0\x09\0\0\0\x01\x01\x01\0"),
            "order",
        );
    }

    #[test]
    fn tiles_may_repeat_how_they_are_coded() {
        let cod = place(RCT, b"\xff\x52");
        let repeated = &RCT[cod..cod + 14];
        assert_eq!(samples(&with_tile_segment(RCT, repeated)), samples(RCT));
        let component = [b"\xff\x53\0\x09\x01\0", &RCT[cod + 9..cod + 14]].concat();
        assert_eq!(samples(&with_tile_segment(RCT, &component)), samples(RCT));
        let untransformed = patched(repeated, 8, &[0]);
        assert_eq!(
            kind(&with_tile_segment(RCT, &untransformed)),
            ErrorKind::UnsupportedMedia
        );
    }

    #[test]
    fn nothing_hides_at_the_end_of_a_segment() {
        let hidden = |segment: &[u8]| Header::read(&[&GRAY8[..45], segment, &GRAY8[45..]].concat());
        assert!(hidden(b"\xff\x64\0\x06\0\0ab").is_ok());
        for segment in [
            b"\xff\x5c\0\x06\x21\0\0\0".as_slice(),
            b"\xff\x5d\0\x07\0\x21\0\0\0",
            b"\xff\x5e\0\x06\0\0\0\0",
            b"\xff\x30\0\x02",
        ] {
            assert_eq!(hidden(segment).unwrap_err().kind(), ErrorKind::InvalidImage);
        }
    }

    proptest! {
        #[test]
        fn damage_never_panics(
            changes in prop::collection::vec((0_usize..3000, any::<u8>()), 1..8),
            headers_only in any::<bool>(),
            bytes in prop::sample::select(vec![GRAY8, GRAY12, SIGNED16, RCT, TILES, LOSSY]),
        ) {
            let mut damaged = bytes.to_vec();
            let end = if headers_only { place(bytes, SOD) } else { bytes.len() };
            for (at, value) in changes {
                damaged[at % end] = value;
            }
            // Whoever calls has checked the size.
            if Header::read(&damaged).is_ok_and(|header| header.width * header.height <= 1 << 16) {
                let _ = decode(&damaged, false);
            }
        }
    }
}
