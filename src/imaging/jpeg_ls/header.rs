//! What a JPEG-LS codestream says about itself (ITU-T T.87, annex C): a walk over its segments, from scan to scan.

use super::parameters::Presets;
use super::scan::Scan;
use super::{invalid, unsupported};
use crate::error::Result;

const COMPONENTS_MAX: u8 = 4;

/// What the header announces, read without decoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// 1 to 4.
    pub components: u8,
    /// Bits of a sample, 2 to 16.
    pub precision: u8,
    /// How scans call the components.
    pub(super) ids: Vec<u8>,
}

impl Header {
    /// Reads up to the first scan.
    ///
    /// # Errors
    /// `InvalidImage`, and `UnsupportedMedia` for other codings, subsampled components, mapping tables, colour
    /// transforms, and sizes that the frame header leaves open.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let mut walk = Walk::new(bytes)?;
        walk.next_scan()?;
        walk.header()
    }

    /// SOF55 (C.2.2).
    fn from_frame(body: &[u8]) -> Result<Self> {
        let malformed = || invalid("its frame header has a wrong length");
        let (&[precision, h1, h0, w1, w0, components], rest) = body.split_first_chunk::<6>().ok_or_else(malformed)?;
        let (specifications, []) = rest.as_chunks::<3>() else {
            return Err(malformed());
        };
        if specifications.len() != usize::from(components) {
            return Err(malformed());
        }
        if !(1..=COMPONENTS_MAX).contains(&components) {
            return Err(unsupported(format!("JPEG-LS of `{components}` components is not read")));
        }
        if !(2..=16).contains(&precision) {
            return Err(invalid(format!("samples of `{precision}` bits")));
        }
        let mut ids = Vec::new();
        for &[id, sampling, _] in specifications {
            if ids.contains(&id) {
                return Err(invalid(format!("two components are called `{id}`")));
            }
            if sampling != 0x11 {
                return Err(unsupported("JPEG-LS with subsampled components is not read"));
            }
            ids.push(id);
        }
        let width = u32::from(u16::from_be_bytes([w1, w0]));
        let height = u32::from(u16::from_be_bytes([h1, h0]));
        if width == 0 || height == 0 {
            return Err(unsupported(
                "JPEG-LS with its size outside the frame header is not read",
            ));
        }
        Ok(Self {
            width,
            height,
            components,
            precision,
            ids,
        })
    }
}

/// Goes from segment to segment and keeps what they set.
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    header: Option<Header>,
    presets: Presets,
    restart_lines: Option<usize>,
}

impl<'a> Walk<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        if !bytes.starts_with(&[0xff, 0xd8]) {
            return Err(invalid("it has no start marker"));
        }
        Ok(Self {
            bytes,
            at: 2,
            header: None,
            presets: Presets::default(),
            restart_lines: None,
        })
    }

    /// The frame header, when it has come.
    pub fn header(&self) -> Result<Header> {
        self.header
            .clone()
            .ok_or_else(|| invalid("a scan comes before the frame header"))
    }

    /// What lies behind the last segment.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Passes over coded data.
    pub fn skip(&mut self, length: usize) {
        self.at += length;
    }

    /// Goes on until the next scan header.
    pub fn next_scan(&mut self) -> Result<Scan> {
        loop {
            let marker = self.marker()?;
            match marker {
                0xd9 => return Err(invalid("it ends before its last component")),
                0xd8 | 0x01 | 0xd0..=0xd7 => return Err(out_of_place(marker)),
                _ => {}
            }
            let body = self.segment()?;
            match marker {
                0xf7 if self.header.is_some() => return Err(invalid("it has two frame headers")),
                0xf7 => self.header = Some(Header::from_frame(body)?),
                0xda => return Scan::read(body, &self.header()?, &self.presets, self.restart_lines),
                0xf8 => self.presets = presets(body)?,
                0xdd => self.restart_lines = restart_lines(body)?,
                0xe8 if matches!(body, [b'm', b'r', b'f', b'x', 1..=255]) => {
                    return Err(unsupported("JPEG-LS with a colour transform is not read"));
                }
                0xc0..=0xcf | 0xf9 => return Err(unsupported("a JPEG of another coding stands where JPEG-LS should")),
                0xe0..=0xef | 0xfe => {}
                _ => return Err(out_of_place(marker)),
            }
        }
    }

    /// The next marker, with fill bytes before it (ITU-T T.81, B.1.1.2).
    fn marker(&mut self) -> Result<u8> {
        let fill = self.rest().iter().take_while(|&&byte| byte == 0xff).count();
        let marker = self.rest().get(fill).filter(|_| fill > 0);
        let marker = *marker.ok_or_else(|| invalid("it breaks off where a marker should stand"))?;
        self.at += fill + 1;
        Ok(marker)
    }

    /// The body of a segment, behind its length.
    fn segment(&mut self) -> Result<&'a [u8]> {
        let cut_off = || invalid("a segment is cut off");
        let (&length, _) = self.rest().split_first_chunk().ok_or_else(cut_off)?;
        let length = usize::from(u16::from_be_bytes(length));
        let body = self.rest().get(2..length).ok_or_else(cut_off)?;
        self.at += length;
        Ok(body)
    }
}

fn out_of_place(marker: u8) -> crate::error::Error {
    invalid(format!("a marker `{marker:02x}` is out of place"))
}

/// LSE (C.2.4).
fn presets(body: &[u8]) -> Result<Presets> {
    match body {
        [1, presets @ ..] => Presets::read(presets),
        [2 | 3, ..] => Err(unsupported("JPEG-LS with mapping tables is not read")),
        [4, ..] => Err(unsupported(
            "JPEG-LS with its size outside the frame header is not read",
        )),
        [5..=255, ..] => Err(unsupported("JPEG-LS with extensions of its part 2 is not read")),
        _ => Err(invalid("its presets make no sense")),
    }
}

/// DRI (C.2.5): a number of two to four bytes, zero for no restarts.
fn restart_lines(body: &[u8]) -> Result<Option<usize>> {
    if !(2..=4).contains(&body.len()) {
        return Err(invalid("its restart interval has a wrong length"));
    }
    let lines = body.iter().fold(0_u32, |number, &byte| number << 8 | u32::from(byte));
    Ok((lines > 0).then_some(lines as usize))
}
