//! What people see in place of a patient.

use std::fmt;
use std::str::FromStr;

use super::Key;
use crate::error::{Error, ErrorKind, Result};

/// What it begins with.
const PREFIX: &str = "p_";
/// Bytes of the patient's key that it says, as hex digits.
const BYTES: usize = 6;

/// `p_` and 12 hex digits: the same for a patient for as long as the archive has its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatientPseudonym([u8; BYTES]);

impl PatientPseudonym {
    /// Whether it stands for the patient of this key.
    pub fn is_of(self, key: Key) -> bool {
        Self::from(key) == self
    }
}

impl From<Key> for PatientPseudonym {
    fn from(key: Key) -> Self {
        let mut bytes = [0; BYTES];
        bytes.copy_from_slice(&key.0[..BYTES]);
        Self(bytes)
    }
}

impl fmt::Display for PatientPseudonym {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex::encode(self.0))
    }
}

impl FromStr for PatientPseudonym {
    type Err = Error;

    /// # Errors
    /// `InvalidRequest` for anything else than what [`fmt::Display`] writes, but for the letters' case.
    fn from_str(text: &str) -> Result<Self> {
        let refused = || Error::new(ErrorKind::InvalidRequest, "this is no pseudonym of a patient");
        let digits = text.strip_prefix(PREFIX).ok_or_else(refused)?;
        let mut bytes = [0; BYTES];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| refused())?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn others_are_refused() {
        for text in [
            "",
            "p_",
            "p_00",
            "4711",
            "p_0123456789ag",
            "p_0123456789abcd",
            "P_0123456789ab",
        ] {
            assert!(text.parse::<PatientPseudonym>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: [u8; 16]) {
            let pseudonym = PatientPseudonym::from(Key(bytes));
            prop_assert_eq!(pseudonym.to_string().len(), 14);
            prop_assert_eq!(pseudonym.to_string().parse::<PatientPseudonym>().unwrap(), pseudonym);
            prop_assert!(pseudonym.is_of(Key(bytes)));
        }
    }
}
