//! Headers of data elements and items, read from bytes (PS3.5, 7.1 and 7.5).

use std::ops::Range;

use super::invalid;
use super::syntax::Syntax;
use crate::error::Result;

/// Group and element number.
pub type Tag = (u16, u16);

/// Start of an item.
pub const ITEM: Tag = (0xfffe, 0xe000);
/// End of an item of undefined length.
pub const ITEM_END: Tag = (0xfffe, 0xe00d);
/// End of a sequence of undefined length.
pub const SEQUENCE_END: Tag = (0xfffe, 0xe0dd);

const UNDEFINED: u32 = u32::MAX;

/// A header and where its value lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Which attribute.
    pub tag: Tag,
    /// Value representation; `None` in implicit syntax and for items.
    pub vr: Option<[u8; 2]>,
    /// First byte of the header.
    pub start: usize,
    /// First byte of the value.
    pub value: usize,
    /// Bytes of the value; `None`: up to a delimiter.
    pub length: Option<usize>,
}

impl Header {
    /// Reads the header at `at`; the value may go up to `end`.
    ///
    /// # Errors
    /// `InvalidImage` when the header or the value goes beyond `end`.
    pub fn read(bytes: &[u8], at: usize, end: usize, syntax: Syntax) -> Result<Self> {
        let short = || invalid("it ends inside an element header");
        let bytes = bytes.get(..end).ok_or_else(short)?;
        let rest = bytes.get(at..).ok_or_else(short)?;
        let u16_at = |offset: usize| {
            number::<2>(rest, offset, syntax.big_endian)
                .map(|n| n as u16)
                .ok_or_else(short)
        };
        let u32_at = |offset: usize| number::<4>(rest, offset, syntax.big_endian).ok_or_else(short);
        let tag = (u16_at(0)?, u16_at(2)?);
        let (vr, header_bytes, length) = if syntax.implicit || tag.0 == ITEM.0 {
            (None, 8, u32_at(4)?)
        } else {
            let vr = *rest
                .get(4..)
                .and_then(|rest| rest.first_chunk::<2>())
                .ok_or_else(short)?;
            if has_short_length(vr) {
                (Some(vr), 8, u32::from(u16_at(6)?))
            } else {
                (Some(vr), 12, u32_at(8)?)
            }
        };
        let value = at + header_bytes;
        if length == UNDEFINED {
            return Ok(Self {
                tag,
                vr,
                start: at,
                value,
                length: None,
            });
        }
        let length = length as usize;
        if end.checked_sub(value).is_none_or(|left| left < length) {
            let what = format!(
                "element ({:04x},{:04x}) says `{length}` bytes, fewer are left",
                tag.0, tag.1
            );
            return Err(invalid(what));
        }
        Ok(Self {
            tag,
            vr,
            start: at,
            value,
            length: Some(length),
        })
    }

    /// Where the value lies; empty when its length is undefined.
    pub fn range(&self) -> Range<usize> {
        self.value..self.value + self.length.unwrap_or(0)
    }
}

/// An unsigned number of 2 or 4 bytes.
pub fn number<const BYTES: usize>(bytes: &[u8], at: usize, big_endian: bool) -> Option<u32> {
    let digits = bytes.get(at..)?.first_chunk::<BYTES>()?;
    let join = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
    Some(if big_endian {
        digits.iter().fold(0, join)
    } else {
        digits.iter().rev().fold(0, join)
    })
}

/// Value representations whose length field has 16 bits (PS3.5, table 7.1-2); unknown ones have 32.
fn has_short_length(vr: [u8; 2]) -> bool {
    const SHORT: [&[u8; 2]; 21] = [
        b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
        b"ST", b"TM", b"UI", b"UL", b"US",
    ];
    SHORT.contains(&&vr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_all_kinds() {
        let check = |bytes: &[u8], syntax, expected: Option<(Tag, usize, Option<usize>)>| {
            let header = Header::read(bytes, 0, bytes.len(), syntax).ok();
            assert_eq!(header.map(|header| (header.tag, header.value, header.length)), expected);
        };
        let big = Syntax {
            big_endian: true,
            ..Syntax::EXPLICIT
        };
        let rows = (0x28, 0x10);
        check(
            b"\x28\0\x10\0US\x02\0\x05\0",
            Syntax::EXPLICIT,
            Some((rows, 8, Some(2))),
        );
        check(b"\0\x28\0\x10US\0\x02\0\x05", big, Some((rows, 8, Some(2))));
        check(
            b"\x28\0\x10\0\x02\0\0\0\x05\0",
            Syntax::IMPLICIT,
            Some((rows, 8, Some(2))),
        );
        check(
            b"\x28\0\x10\0OW\0\0\xff\xff\xff\xff",
            Syntax::EXPLICIT,
            Some((rows, 12, None)),
        );
        check(b"\xfe\xff\0\xe0\0\0\0\0", Syntax::EXPLICIT, Some((ITEM, 8, Some(0))));
        check(b"\x28\0\x10\0US\x03\0\x05\0", Syntax::EXPLICIT, None);
        check(b"\x28\0\x10\0OW\0\0\xf0\xff\xff\xff", Syntax::EXPLICIT, None);
        check(b"\x28\0\x10\0U", Syntax::EXPLICIT, None);
        check(b"", Syntax::EXPLICIT, None);
    }
}
