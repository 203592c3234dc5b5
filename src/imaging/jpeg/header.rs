//! What a JPEG says about itself, read before a decoder sees it: size, coding, colour, and whether it is whole.

use std::ops::Range;

use super::invalid;
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::limits::Limits;

/// Most scans of a progressive picture; encoders write about ten.
const SCANS_MAX: u32 = 100;
/// Every scan walks the whole picture: scans times pixels stay under this many times the pixel limit.
const SCAN_WORK_MAX: u64 = 16;

/// How the components are to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Color {
    /// One component.
    Gray,
    /// Luminance and two colour differences.
    YCbCr,
    /// Red, green, blue.
    Rgb,
    /// Four inks, 255 is no ink.
    Cmyk,
    /// The first three inks as YCbCr.
    Ycck,
}

/// One component of the frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Component {
    /// Its identifier; some encoders spell `R`, `G`, `B`.
    pub id: u8,
    /// Horizontal sampling factor, 1..=4.
    pub horizontal: u8,
    /// Vertical sampling factor, 1..=4.
    pub vertical: u8,
}

/// The frame header and what matters of the segments around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bits of a sample.
    pub precision: u8,
    /// The n of SOFn (ITU-T T.81, table B.1): 0 to 2 are baseline, extended and progressive DCT, 3 is lossless.
    pub process: u8,
    /// 1 to 4 components.
    pub components: Vec<Component>,
    /// A JFIF segment is there.
    pub jfif: bool,
    /// Colour transform of Adobe's segment.
    pub adobe: Option<u8>,
    /// Where the TIFF structure of the Exif segment lies.
    pub exif: Option<Range<usize>>,
    /// All components are coded in one scan.
    pub one_scan: bool,
    scans: u32,
    coded_bytes: u64,
    /// Application segments and comments.
    asides: Vec<Range<usize>>,
}

impl Header {
    /// Walks all segments up to the end marker.
    ///
    /// # Errors
    /// `InvalidImage` when there is no frame header, no scan, or the file ends before its end marker.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let mut walk = Walk { bytes, at: 2 };
        if !bytes.starts_with(&[0xff, 0xd8]) {
            return Err(invalid("it has no start marker"));
        }
        let mut frame: Option<Self> = None;
        let (mut jfif, mut adobe, mut exif) = (false, None, None);
        let mut asides = Vec::new();
        loop {
            let marker = walk.marker()?;
            match marker {
                0x01 | 0xd0..=0xd7 => continue,
                0xd8 => return Err(invalid("it has a second start marker")),
                0xd9 => break,
                _ => {}
            }
            let start = walk.at - 2;
            let range = walk.segment()?;
            let body = &bytes[range.clone()];
            match marker {
                0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                    if frame.is_some() {
                        return Err(invalid("it has two frame headers"));
                    }
                    frame = Some(frame_header(marker - 0xc0, body)?);
                }
                0xda => {
                    let frame = frame
                        .as_mut()
                        .ok_or_else(|| invalid("a scan comes before the frame header"))?;
                    frame.scans += 1;
                    let components = body.first().map(|&count| usize::from(count));
                    frame.one_scan = frame.scans == 1 && components == Some(frame.components.len());
                    frame.coded_bytes += walk.skip_coded() as u64;
                }
                0xe0..=0xef | 0xfe => {
                    asides.push(start..range.end);
                    jfif |= marker == 0xe0 && body.starts_with(b"JFIF\0");
                    if marker == 0xe1 && exif.is_none() && body.starts_with(b"Exif\0\0") {
                        exif = Some(range.start + 6..range.end);
                    }
                    if marker == 0xee && body.starts_with(b"Adobe") {
                        adobe = body.get(11).copied().or(adobe);
                    }
                }
                _ => {}
            }
        }
        let frame = frame
            .filter(|frame| frame.scans > 0)
            .ok_or_else(|| invalid("it has no picture"))?;
        Ok(Self {
            jfif,
            adobe,
            exif,
            asides,
            ..frame
        })
    }

    /// Refuses sizes outside the limits and sizes that the coded data can't fill.
    ///
    /// # Errors
    /// `InvalidImage`, `TooManyPixels`.
    pub fn check(&self, limits: &Limits) -> Result<()> {
        limits.check_size(self.width, self.height)?;
        if self.coded_bytes * 8 < self.coded_bits_min() {
            return Err(invalid("its data is too short for its size"));
        }
        let pixels = u64::from(self.width) * u64::from(self.height);
        if self.scans > SCANS_MAX || u64::from(self.scans) * pixels > SCAN_WORK_MAX * limits.pixels_max {
            return Err(invalid(&format!("`{}` scans are too many", self.scans)));
        }
        Ok(())
    }

    /// Refuses what the 8-bit DCT decoder doesn't read.
    ///
    /// # Errors
    /// `UnsupportedMedia`.
    pub fn check_process(&self) -> Result<()> {
        let unsupported = |what: String| Err(Error::new(ErrorKind::UnsupportedMedia, what));
        match (self.process, self.precision) {
            (0..=2, 8) => Ok(()),
            (0..=2, bits) => unsupported(format!("a JPEG of `{bits}` bits is not read, only of 8")),
            (3, _) => unsupported("lossless JPEG is read in DICOM only".into()),
            (process, _) => unsupported(format!("the JPEG coding process SOF`{process}` is not read")),
        }
    }

    /// The rule of libjpeg: JFIF, then Adobe's segment, then the components' names.
    ///
    /// # Errors
    /// `UnsupportedMedia` for two components.
    pub fn color(&self) -> Result<Color> {
        match (self.components.len(), self.adobe) {
            (1, _) => Ok(Color::Gray),
            (3, _) if self.jfif => Ok(Color::YCbCr),
            (3, Some(0)) => Ok(Color::Rgb),
            (3, None) if self.names_rgb() => Ok(Color::Rgb),
            (3, _) => Ok(Color::YCbCr),
            (4, None | Some(0)) => Ok(Color::Cmyk),
            (4, Some(_)) => Ok(Color::Ycck),
            (count, _) => Err(Error::new(
                ErrorKind::UnsupportedMedia,
                format!("a JPEG of `{count}` components is not read"),
            )),
        }
    }

    /// The components are called `R`, `G`, `B`.
    pub fn names_rgb(&self) -> bool {
        self.components.iter().map(|component| component.id).eq(*b"RGB")
    }

    /// The file without application segments and comments: what they say has been read, and a decoder that stumbles over
    /// them, or believes them, is no help.
    pub fn without_asides(&self, bytes: &[u8]) -> Vec<u8> {
        let mut rest = Vec::with_capacity(bytes.len());
        let mut at = 0;
        for aside in &self.asides {
            rest.extend_from_slice(&bytes[at..aside.start]);
            at = aside.end;
        }
        rest.extend_from_slice(&bytes[at..]);
        rest
    }

    /// A coded block, or a sample of lossless coding, takes a bit at least.
    fn coded_bits_min(&self) -> u64 {
        let (width, height) = (u64::from(self.width), u64::from(self.height));
        if self.process & 3 == 3 {
            return width * height * self.components.len() as u64;
        }
        let largest = |factor: fn(&Component) -> u8| u64::from(self.components.iter().map(factor).max().unwrap_or(1));
        let (horizontal, vertical) = (largest(|c| c.horizontal), largest(|c| c.vertical));
        let blocks = |component: &Component| {
            (width * u64::from(component.horizontal))
                .div_ceil(horizontal)
                .div_ceil(8)
                * (height * u64::from(component.vertical)).div_ceil(vertical).div_ceil(8)
        };
        self.components.iter().map(blocks).sum()
    }
}

/// SOFn (ITU-T T.81, B.2.2).
fn frame_header(process: u8, body: &[u8]) -> Result<Header> {
    let short = || invalid("its frame header is cut off");
    let (&[precision, h1, h0, w1, w0, count], rest) = body.split_first_chunk::<6>().ok_or_else(short)?;
    let components: Vec<Component> = rest
        .as_chunks::<3>()
        .0
        .iter()
        .take(usize::from(count))
        .map(|&[id, sampling, _]| Component {
            id,
            horizontal: sampling >> 4,
            vertical: sampling & 15,
        })
        .collect();
    if components.len() != usize::from(count) {
        return Err(short());
    }
    if !(1..=4).contains(&count)
        || components
            .iter()
            .any(|c| !(1..=4).contains(&c.horizontal) || !(1..=4).contains(&c.vertical))
    {
        return Err(invalid("its components make no sense"));
    }
    Ok(Header {
        width: u32::from(u16::from_be_bytes([w1, w0])),
        height: u32::from(u16::from_be_bytes([h1, h0])),
        precision,
        process,
        components,
        jfif: false,
        adobe: None,
        exif: None,
        one_scan: false,
        scans: 0,
        coded_bytes: 0,
        asides: Vec::new(),
    })
}

/// Goes from marker to marker.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Walk<'_> {
    /// The next marker; bytes that belong to none are passed over, as other decoders do.
    fn marker(&mut self) -> Result<u8> {
        loop {
            match self.bytes.get(self.at..) {
                Some(&[0xff, marker @ 0x01..=0xfe, ..]) => {
                    self.at += 2;
                    return Ok(marker);
                }
                Some(&[_, _, ..]) => self.at += 1,
                _ => return Err(invalid("it ends before its end marker")),
            }
        }
    }

    /// Passes over a segment and says where its body lies.
    fn segment(&mut self) -> Result<Range<usize>> {
        let length = self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.first_chunk())
            .map(|&pair| u16::from_be_bytes(pair));
        let range = self.at + 2..self.at + usize::from(length.unwrap_or(0));
        if range.end < range.start || range.end > self.bytes.len() {
            return Err(invalid("a segment is cut off"));
        }
        self.at = range.end;
        Ok(range)
    }

    /// Passes over entropy-coded data, in which `FF` is followed by zero or a restart marker; says how long it is.
    fn skip_coded(&mut self) -> usize {
        let start = self.at;
        while let Some(next) = self.bytes[self.at..].iter().position(|&byte| byte == 0xff) {
            self.at += next;
            match self.bytes.get(self.at + 1) {
                Some(0x00 | 0xd0..=0xd7) => self.at += 2,
                Some(0xff) => self.at += 1,
                _ => return self.at - start,
            }
        }
        self.at = self.bytes.len();
        self.at - start
    }
}
