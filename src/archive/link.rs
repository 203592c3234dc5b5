//! Whose image it is, and what it is called where it came from: read from the sealed record, in an archive of mode `linked`.

use std::fmt;

use serde_json::Value;

use super::Identity;
use crate::domain::Key;
use crate::error::Result;

/// The originals behind an image's pseudonyms; absent where the file did not say. `Debug` tells only which are there.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// The patient's id.
    pub patient_id: Option<String>,
    /// Who issued it.
    pub issuer: Option<String>,
    /// Study Instance UID.
    pub study_uid: Option<String>,
    /// Series Instance UID.
    pub series_uid: Option<String>,
    /// SOP Instance UID.
    pub sop_uid: Option<String>,
}

impl Link {
    /// Opens what was sealed with a file; nothing was in mode `anonymous`.
    ///
    /// # Errors
    /// `Damaged` as for [`Identity::open`].
    pub fn open(identity: &Identity, sealed: Option<&str>, file_key: Key) -> Result<Option<Self>> {
        let Some(sealed) = sealed else { return Ok(None) };
        let record = identity.open(sealed, file_key)?;
        let text = |name: &str| match &record[name] {
            Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            // Data sets have ids that are numbers.
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        Ok(Some(Self {
            patient_id: text("patient_id"),
            issuer: text("issuer"),
            study_uid: text("study_uid"),
            series_uid: text("series_uid"),
            sop_uid: text("sop_uid"),
        }))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = [
            ("patient_id", &self.patient_id),
            ("issuer", &self.issuer),
            ("study_uid", &self.study_uid),
            ("series_uid", &self.series_uid),
            ("sop_uid", &self.sop_uid),
        ];
        let there = values.iter().filter(|(_, value)| value.is_some());
        f.debug_set().entries(there.map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::archive::{IdentityMode, Secret};
    use crate::error::ErrorKind;

    #[test]
    fn what_was_sealed_is_read_and_not_printed() {
        let identity = |mode| Identity::new(Secret::from_bytes([7; 32]), mode);
        let linked = identity(IdentityMode::Linked);
        let (key, other) = (Key([1; 16]), Key([2; 16]));
        let record = json!({"patient_id": 4711, "issuer": " HOSP ", "study_uid": "1.2.3", "sop_uid": "", "class": "x"});
        let sealed = linked.seal(&record, key).unwrap();
        let link = Link::open(&linked, sealed.as_deref(), key).unwrap().unwrap();
        assert_eq!(link.patient_id.as_deref(), Some("4711"));
        assert_eq!(
            (link.issuer.as_deref(), link.study_uid.as_deref()),
            (Some("HOSP"), Some("1.2.3"))
        );
        assert_eq!((&link.series_uid, &link.sop_uid), (&None, &None));
        assert_eq!(format!("{link:?}"), r#"{"patient_id", "issuer", "study_uid"}"#);
        let error = Link::open(&linked, sealed.as_deref(), other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        let anonymous = identity(IdentityMode::Anonymous);
        let sealed = anonymous.seal(&record, key).unwrap();
        assert_eq!(Link::open(&anonymous, sealed.as_deref(), key).unwrap(), None);
    }
}
