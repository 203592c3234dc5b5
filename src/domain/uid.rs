//! UIDs that stand for others: what DICOM shows of a study, a series or an instance whose own UID stays with its hospital.

use std::fmt;
use std::str::FromStr;

use super::Key;
use crate::error::{Error, ErrorKind, Result};

/// The root of UIDs that are made from a UUID (PS3.5, B.2).
const ROOT: &str = "2.25.";
/// Bits 48..52 and 64..66 of a UUID say that it is one of the maker's own design: version 8 and its variant (RFC 9562, 5.8).
const MARK: u128 = (0x8 << 76) | (0b10 << 62);
/// Where they are.
const MARKED: u128 = (0xf << 76) | (0b11 << 62);

/// A pseudonymous UID: `2.25.` and a UUID as a number, made from 122 bits of a keyed digest. The same thing has the same one for as long as the
/// archive has its secret; from another secret comes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PseudonymousUid(u128);

impl From<Key> for PseudonymousUid {
    fn from(key: Key) -> Self {
        Self(u128::from_be_bytes(key.0) & !MARKED | MARK)
    }
}

impl fmt::Display for PseudonymousUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}{}", self.0)
    }
}

/// Only what [`PseudonymousUid`] writes.
impl FromStr for PseudonymousUid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || Error::new(ErrorKind::InvalidRequest, "this is no UID of this archive");
        let number = text.strip_prefix(ROOT).and_then(|digits| digits.parse().ok());
        let uid = number.filter(|number| number & MARKED == MARK).map(Self);
        uid.filter(|uid| uid.to_string() == text).ok_or_else(refused)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_the_number_of_a_uuid() {
        let uid = PseudonymousUid::from(Key([0xab; 16]));
        let uuid = uuid::Uuid::from_u128(uid.0);
        assert_eq!(uuid.get_version_num(), 8);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(uuid.to_string(), "abababab-abab-8bab-abab-abababababab");
        assert_eq!(uid.to_string(), format!("2.25.{}", uuid.as_u128()));
    }

    #[test]
    fn others_are_refused() {
        for text in [
            "",
            "2.25.",
            "2.25.1",
            "1.2.840.10008.1.2",
            "2.25.0228200313046211823029183107155593",
            "2.25.+228200313046211823029183107155593",
            "2.25.999999999999999999999999999999999999999999",
        ] {
            assert!(text.parse::<PseudonymousUid>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: [u8; 16]) {
            let uid = PseudonymousUid::from(Key(bytes));
            let text = uid.to_string();
            prop_assert!(text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'));
            prop_assert_eq!(text.parse::<PseudonymousUid>().unwrap(), uid);
        }
    }
}
