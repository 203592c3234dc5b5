//! Unique identifiers of DICOM, as they may stand in a path.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// Longest UID (PS3.5, 9.1).
const CHARACTERS_MAX: usize = 64;

/// A UID: digits with single dots between. `Debug` does not show it: UIDs are never logged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(String);

impl Uid {
    /// As it stands in a path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Uid {
    type Err = Error;

    /// Leading zeros, which the standard forbids and old devices write, are taken: they do no harm in a path.
    ///
    /// # Errors
    /// `InvalidRequest` for anything but digits and dots, an empty part, or more than 64 characters. The value is not repeated.
    fn from_str(text: &str) -> Result<Self> {
        let is_part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if text.len() <= CHARACTERS_MAX && text.split('.').all(is_part) {
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

/// What is asked for at a PACS: a study, a series of it, or an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Study Instance UID.
    pub study: Uid,
    /// Series Instance UID.
    pub series: Option<Uid>,
    /// SOP Instance UID.
    pub instance: Option<Uid>,
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

    proptest! {
        #[test]
        fn what_is_taken_changes_no_path(text in "[0-9./?#%a@: \\\\-]{0,70}") {
            if let Ok(uid) = text.parse::<Uid>() {
                let url = reqwest::Url::parse(&format!("https://pacs.example/base/studies/{}", uid.as_str())).unwrap();
                prop_assert_eq!(url.path(), format!("/base/studies/{text}"));
                prop_assert_eq!(url.host_str(), Some("pacs.example"));
                prop_assert!(url.query().is_none() && url.fragment().is_none());
            }
        }
    }
}
