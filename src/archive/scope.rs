//! What belongs into an archive: which DICOM objects are taken, by what their headers say.

use std::fmt;
use std::sync::Arc;

use super::commit::{Propose, Proposed, base, commit};
use super::{Archive, Manifest, Scope, State};
use crate::domain::Uid;
use crate::error::{Error, ErrorKind, Result};

/// Stands in a list for objects that say nothing of it.
pub const UNSTATED: &str = "UNSTATED";
/// Most values of one list.
const VALUES_MAX: usize = 200;
/// Longest value, in bytes: that of a UID.
const VALUE_BYTES_MAX: usize = 64;

/// What of an object is held against a scope; none: its header does not say.
#[derive(Clone, Copy, Default)]
pub struct ScopeFacts<'a> {
    /// SOP Class UID.
    pub sop_class: Option<&'a str>,
    /// Modality.
    pub modality: Option<&'a str>,
    /// Body Part Examined.
    pub body_part: Option<&'a str>,
    /// View Position.
    pub view: Option<&'a str>,
}

/// Why an object does not belong into an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// Its SOP class is not listed.
    SopClass,
    /// Its modality is not listed.
    Modality,
    /// Its body part is not listed.
    BodyPart,
    /// Its projection is not listed.
    View,
}

impl Outside {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::SopClass, Self::Modality, Self::BodyPart, Self::View];

    /// As metrics have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SopClass => "sop_class",
            Self::Modality => "modality",
            Self::BodyPart => "body_part",
            Self::View => "view",
        }
    }
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SopClass => "SOP class",
            Self::Modality => "modality",
            Self::BodyPart => "body part",
            Self::View => "view",
        })
    }
}

impl Scope {
    /// A scope of lists; an empty one allows everything.
    ///
    /// # Errors
    /// `InvalidRequest` for values that no header has.
    pub fn new(
        sop_classes: Vec<String>,
        modality: Vec<String>,
        body_part: Vec<String>,
        view: Vec<String>,
    ) -> Result<Self> {
        Ok(Self {
            sop_classes: uids(checked(sop_classes)?)?,
            modality: checked(modality)?,
            body_part: checked(body_part)?,
            view: checked(view)?,
            ..Self::default()
        })
    }

    /// Whether an object belongs into the archive. What a list names is compared without regard to letter case and outer space; an object that says nothing
    /// of what a list restricts is outside unless the list has [`UNSTATED`].
    ///
    /// # Errors
    /// What it is outside of, the SOP class first.
    pub fn admits(&self, facts: ScopeFacts<'_>) -> Result<(), Outside> {
        let rows = [
            (&self.sop_classes, facts.sop_class, Outside::SopClass),
            (&self.modality, facts.modality, Outside::Modality),
            (&self.body_part, facts.body_part, Outside::BodyPart),
            (&self.view, facts.view, Outside::View),
        ];
        let outside = rows.into_iter().find(|(list, value, _)| !admits(list, *value));
        outside.map_or(Ok(()), |(_, _, why)| Err(why))
    }
}

/// Whether a list, if it has values, has this one; one that is not said is [`UNSTATED`].
pub(super) fn admits(list: &[String], value: Option<&str>) -> bool {
    let value = value.map_or("", str::trim);
    let value = if value.is_empty() { UNSTATED } else { value };
    list.is_empty() || list.iter().any(|listed| listed.trim().eq_ignore_ascii_case(value))
}

/// SOP classes are told apart by UID (PS3.5, 9.1); a name or a modality would admit nothing.
pub(super) fn uids(values: Vec<String>) -> Result<Vec<String>> {
    let is_uid = |value: &str| value.contains('.') && Uid::is(value);
    if let Some(odd) = values.iter().find(|value| value.as_str() != UNSTATED && !is_uid(value)) {
        let message = format!("`{odd}` is no SOP class: that is a UID, such as 1.2.840.10008.5.1.4.1.1.1.1");
        return Err(Error::new(ErrorKind::InvalidRequest, message));
    }
    Ok(values)
}

/// Code strings and UIDs in upper case, each once.
pub(super) fn checked(values: Vec<String>) -> Result<Vec<String>> {
    let odd = |message: String| Error::new(ErrorKind::InvalidRequest, message);
    if values.len() > VALUES_MAX {
        return Err(odd(format!("a list has at most `{VALUES_MAX}` values")));
    }
    let mut kept: Vec<String> = Vec::new();
    for value in values {
        let value = value.trim().to_ascii_uppercase();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'_' | b'.');
        if value.is_empty() || value.len() > VALUE_BYTES_MAX || !value.bytes().all(plain) {
            return Err(odd(format!(
                "`{value}` is no modality, body part, view or SOP class: they have letters, digits, `_`, `.` and spaces"
            )));
        }
        if !kept.contains(&value) {
            kept.push(value);
        }
    }
    Ok(kept)
}

impl Archive {
    /// Gives the archive another scope, from the next version on; what is in it stays. `Ok` means that it is durable.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`, `Damaged`.
    pub async fn set_scope(&self, scope: Scope) -> Result<Arc<Manifest>> {
        let base = base(self).await?;
        let state = commit(self, &base, &mut Narrowed(scope)).await?;
        Ok(Arc::clone(&state.manifest))
    }
}

struct Narrowed(Scope);

impl Propose for Narrowed {
    async fn propose(&mut self, _: &Archive, base: &Arc<State>, _: &str) -> Result<Option<Proposed>> {
        let mut manifest = base.manifest.as_ref().clone();
        let other = manifest.archive.scope.other.clone();
        let scope = Scope {
            other,
            ..self.0.clone()
        };
        if manifest.archive.scope == scope {
            return Ok(None);
        }
        manifest.archive.scope = scope;
        Ok(Some(Proposed { manifest, rows: vec![] }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    fn chest() -> Scope {
        Scope::new(vec![], list(&["CR", "dx"]), list(&["CHEST", "UNSTATED"]), list(&["PA"])).unwrap()
    }

    #[test]
    fn what_is_listed_is_admitted() {
        let check = |modality, body_part, view, expected| {
            let facts = ScopeFacts {
                modality,
                body_part,
                view,
                ..ScopeFacts::default()
            };
            assert_eq!(chest().admits(facts), expected, "{modality:?} {body_part:?} {view:?}");
        };
        check(Some("CR"), Some("CHEST"), Some("PA"), Ok(()));
        check(Some(" Dx "), Some("Chest"), Some("pa"), Ok(()));
        check(Some("CR"), None, Some("PA"), Ok(()));
        check(Some("CR"), Some(" "), Some("PA"), Ok(()));
        check(Some("CT"), Some("CHEST"), Some("PA"), Err(Outside::Modality));
        check(None, Some("CHEST"), Some("PA"), Err(Outside::Modality));
        check(Some("CR"), Some("HAND"), Some("PA"), Err(Outside::BodyPart));
        check(Some("CR"), Some("CHEST"), None, Err(Outside::View));
    }

    #[test]
    fn odd_values_are_refused() {
        for odd in ["", " ", "CR\\DX", "Ä", &"1".repeat(65)] {
            assert!(Scope::new(vec![], list(&[odd]), vec![], vec![]).is_err(), "{odd}");
        }
        for (sop_class, taken) in [("CT", false), ("1.2.840.10008.5.1.4.1.1.2", true), ("unstated", true)] {
            let scope = Scope::new(list(&[sop_class]), vec![], vec![], vec![]);
            assert_eq!(scope.is_ok(), taken, "{sop_class}");
        }
        assert_eq!(
            Scope::new(vec![], list(&["cr", "CR"]), vec![], vec![])
                .unwrap()
                .modality,
            ["CR"]
        );
        assert!(Scope::new(vec![], vec!["CR".into(); VALUES_MAX + 1], vec![], vec![]).is_err());
    }

    proptest! {
        /// No list restricts nothing; a list that names the value never refuses for it.
        #[test]
        fn everything_is_admitted_by_default(modality in "[A-Z]{0,4}", view in "[A-Z]{0,4}") {
            let facts = ScopeFacts { modality: Some(&modality), view: Some(&view), ..ScopeFacts::default() };
            prop_assert_eq!(Scope::default().admits(facts), Ok(()));
            let named = if modality.is_empty() { UNSTATED.to_owned() } else { modality.clone() };
            let scope = Scope::new(vec![], vec![named], vec![], vec![]).unwrap();
            prop_assert_eq!(scope.admits(facts), Ok(()));
        }
    }
}
