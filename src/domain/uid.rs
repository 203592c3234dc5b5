//! Unique identifiers of DICOM (PS3.5, 9), and those that stand for others: what is shown of a study, a series or an instance whose own UID stays with its hospital.

use std::fmt;
use std::str::FromStr;

use super::Key;
use crate::error::{Error, ErrorKind, Result};

/// Longest UID (PS3.5, 9.1).
const CHARACTERS_MAX: usize = 64;

/// A UID: digits with single dots between, so that it may stand in a path. `Debug` does not show it: UIDs are never logged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(String);

impl Uid {
    /// As it stands in a path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text is one. Leading zeros, which the standard forbids and old devices write, are taken: they do no harm in a path.
    pub fn is(text: &str) -> bool {
        let is_part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        text.len() <= CHARACTERS_MAX && text.split('.').all(is_part)
    }
}

impl FromStr for Uid {
    type Err = Error;

    /// # Errors
    /// `InvalidRequest` for anything but digits and dots, an empty part, or more than 64 characters. The value is not repeated.
    fn from_str(text: &str) -> Result<Self> {
        if Self::is(text) {
            return Ok(Self(text.to_owned()));
        }
        let message = format!("a UID is digits with single dots between, at most {CHARACTERS_MAX} characters");
        Err(Error::new(ErrorKind::InvalidRequest, message))
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Uid(…)")
    }
}

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
    fn uids_are_digits_and_dots() {
        let longest = "1".repeat(64);
        for good in ["1", "0", "1.2.840.10008.1.2", "1.02.3", longest.as_str()] {
            assert_eq!(good.parse::<Uid>().unwrap().as_str(), good);
        }
        let long = "1".repeat(65);
        for bad in [
            "",
            ".",
            "..",
            "1.",
            ".1",
            "1..2",
            "1/2",
            "1.2?",
            "1.2#",
            "1.2%2e",
            "1 ",
            "1\n",
            "１",
            "a",
            "-1",
            "1\\2",
            "@",
            long.as_str(),
        ] {
            let error = bad.parse::<Uid>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            assert!(bad.len() < 3 || !error.message().contains(bad), "{bad}");
        }
        assert!(!format!("{:?}", "1.2.3".parse::<Uid>().unwrap()).contains('1'));
    }

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
