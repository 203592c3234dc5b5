//! What a requester is shown of whose images these are: pseudonyms, what the request itself named, and with the scope `link` the originals.

use std::collections::HashMap;

use super::query::Query;
use crate::archive::{Identity, Link};
use crate::domain::{Key, PatientKeys, PatientPseudonym, PseudonymousUid, Record};
use crate::error::Result;
use crate::pacs::Reference;
use crate::search::{Instance, Level};

/// How an image is called in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The patient's id; none: nobody is known.
    pub patient_id: Option<String>,
    /// Who issued it, for those who may know.
    pub issuer: Option<String>,
    /// Study Instance UID.
    pub study: String,
    /// Series Instance UID.
    pub series: String,
    /// SOP Instance UID.
    pub sop: String,
    /// These are the names that the image came with.
    pub original: bool,
}

impl Names {
    /// What a RetrieveURL names on a level; none where something is no UID: images need not have come by DICOM.
    pub fn reference(&self, level: Level) -> Option<Reference> {
        let below = |at: Level, text: &str| match level >= at {
            true => text.parse().map(Some),
            false => Ok(None),
        };
        Some(Reference {
            study: self.study.parse().ok()?,
            series: below(Level::Series, &self.series).ok()?,
            instance: below(Level::Instance, &self.sop).ok()?,
        })
    }
}

/// The patient that a request names.
#[derive(Clone)]
enum Patient {
    /// By its id.
    Id {
        keys: PatientKeys,
        id: String,
        issuer: Option<String>,
    },
    /// By its pseudonym.
    Pseudonym(PatientPseudonym),
    /// By an id that stands for nobody.
    Nobody,
}

/// Between the names in requests and answers and what the archive has in their place.
#[derive(Clone)]
pub struct Shown {
    identity: Identity,
    links: bool,
    /// Originals that the request named: whoever sent them knows them.
    named: HashMap<(Level, PseudonymousUid), String>,
    patient: Option<Patient>,
}

impl Shown {
    /// For one request.
    pub fn new(identity: &Identity, links: bool) -> Self {
        Self {
            identity: identity.clone(),
            links,
            named: HashMap::new(),
            patient: None,
        }
    }

    /// What a UID of the request may be in the archive: the pseudonym of an original, or a pseudonym itself. The original is repeated in answers.
    pub fn uids(&mut self, level: Level, text: &str) -> Vec<PseudonymousUid> {
        let text = text.trim();
        let key: Option<Key> = match level {
            Level::Study => self.identity.study_key(text),
            Level::Series => self.identity.series_key(text),
            Level::Instance => self.identity.sop_key(text),
        };
        let hashed = key.map(PseudonymousUid::from);
        if let Some(uid) = hashed {
            self.named.insert((level, uid), text.to_owned());
        }
        hashed.into_iter().chain(text.parse()).collect()
    }

    /// Whether a UID of the request is one that images came with, and no pseudonym: those are random, and everybody who is shown an image knows its own.
    pub fn is_original(&self, level: Level, text: &str) -> bool {
        let text = text.trim();
        let key = match level {
            Level::Study => self.identity.study_key(text),
            Level::Series => self.identity.series_key(text),
            Level::Instance => self.identity.sop_key(text),
        };
        key.is_some() && text.parse::<PseudonymousUid>().is_err()
    }

    /// Whether a query names a patient by the id, or anything by the UID that it came with. The patient was taken before.
    pub fn names_anybody(&self, query: &Query) -> bool {
        let mut uids = query.uids().into_iter();
        self.patient_keys().is_some()
            || uids.any(|(level, texts)| texts.iter().any(|text| self.is_original(level, text)))
    }

    /// Takes the patient that a query names, if it names one.
    pub fn ask_for(&mut self, query: &Query) {
        self.patient = query.patient_id.as_ref().map(|id| {
            if let Ok(pseudonym) = id.parse() {
                return Patient::Pseudonym(pseudonym);
            }
            let issuer = query.issuer.clone();
            match self.identity.patient_keys(issuer.as_deref(), id) {
                Some(keys) => Patient::Id {
                    keys,
                    id: id.clone(),
                    issuer,
                },
                None => Patient::Nobody,
            }
        });
    }

    /// The keys of the patient that is asked for, if that is asked by its id.
    pub fn patient_keys(&self) -> Option<PatientKeys> {
        match &self.patient {
            Some(Patient::Id { keys, .. }) => Some(*keys),
            _ => None,
        }
    }

    /// Whether an image may be of the patient that is asked for.
    pub fn is_of_patient(&self, record: &Record) -> bool {
        match &self.patient {
            None => true,
            Some(Patient::Nobody) => false,
            Some(Patient::Pseudonym(pseudonym)) => record.patient.is_some_and(|key| pseudonym.is_of(key)),
            Some(Patient::Id { keys, .. }) => PatientKeys::of(record).is_some_and(|own| own.may_be(*keys)),
        }
    }

    /// How an image is called.
    ///
    /// # Errors
    /// `Damaged` when the sealed record can't be opened.
    pub fn names(&self, one: &Instance, record: &Record) -> Result<Names> {
        let alias = one.alias(record);
        let (sealed, file_key) = match alias {
            Some(alias) => (alias.sealed.as_deref(), alias.file_key),
            None => (record.sealed.as_deref(), record.file_key),
        };
        let link = match self.links {
            true => Link::open(&self.identity, sealed, file_key)?,
            false => None,
        };
        let original = link.is_some();
        let link = link.unwrap_or_default();
        let uid = |level: Level, original: Option<String>| {
            let uid = one.uid(level);
            let named = || self.named.get(&(level, uid)).cloned();
            original.or_else(named).unwrap_or_else(|| uid.to_string())
        };
        let (named_id, named_issuer) = self.named_patient(record);
        let levels = [Level::Study, Level::Series, Level::Instance];
        let repeats = named_id.is_some()
            || levels
                .iter()
                .any(|level| self.named.contains_key(&(*level, one.uid(*level))));
        let pseudonym = || record.patient.map(|key| self.identity.pseudonym(key));
        Ok(Names {
            patient_id: link.patient_id.or(named_id).or_else(pseudonym),
            issuer: link.issuer.or(named_issuer),
            study: uid(Level::Study, link.study_uid),
            series: uid(Level::Series, link.series_uid),
            sop: uid(Level::Instance, link.sop_uid),
            original: original || repeats,
        })
    }

    /// Id and issuer as the request named them, for the image of just that patient.
    fn named_patient(&self, record: &Record) -> (Option<String>, Option<String>) {
        let (Some(Patient::Id { keys, id, issuer }), Some(own)) = (&self.patient, PatientKeys::of(record)) else {
            return (None, None);
        };
        let same = |same: bool, text: Option<String>| text.filter(|_| same);
        (
            same(own.id == keys.id, Some(id.clone())),
            same(own.patient == keys.patient, issuer.clone()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{IdentityMode, Secret};
    use crate::domain::{ImageId, Slot};

    fn identity() -> Identity {
        Identity::new(Secret::from_bytes([7; 32]), IdentityMode::Anonymous)
    }

    fn query(patient_id: &str, issuer: Option<&str>) -> Query {
        Query {
            patient_id: Some(patient_id.into()),
            issuer: issuer.map(str::to_owned),
            ..Query::default()
        }
    }

    fn record_of(issuer: Option<&str>, id: &str) -> Record {
        let keys = identity().patient_keys(issuer, id).unwrap();
        Record {
            patient: Some(keys.patient),
            patient_id_key: Some(keys.id).filter(|_| keys.has_issuer()),
            ..Record::bare(ImageId::new(Slot(0), Key([1; 16])), Key([2; 16]), "t")
        }
    }

    #[test]
    fn a_uid_is_found_by_itself_and_by_its_pseudonym() {
        let mut shown = Shown::new(&identity(), false);
        let own = PseudonymousUid::from(identity().study_key("1.2.3").unwrap());
        assert_eq!(shown.uids(Level::Study, " 1.2.3 "), [own]);
        assert!(shown.uids(Level::Study, &own.to_string()).contains(&own));
        // Of another level it is another one.
        assert_ne!(shown.uids(Level::Series, "1.2.3"), [own]);
        assert!(shown.uids(Level::Study, "").is_empty());
    }

    #[test]
    fn a_patient_is_asked_for_by_id_and_issuer_or_pseudonym() {
        let of = |query: &Query, record: &Record| {
            let mut shown = Shown::new(&identity(), false);
            shown.ask_for(query);
            (shown.is_of_patient(record), shown.named_patient(record))
        };
        let (own, other) = (record_of(Some("A"), "4711"), record_of(Some("B"), "4711"));
        let named = |id: &str, issuer: Option<&str>| (Some(id.to_owned()), issuer.map(str::to_owned));
        assert_eq!(of(&query("4711", Some("A")), &own), (true, named("4711", Some("A"))));
        assert!(!of(&query("4711", Some("A")), &other).0);
        // Without an issuer both may be meant, and whose it is is not told.
        assert_eq!(of(&query("4711", None), &other), (true, named("4711", None)));
        let pseudonym = identity().pseudonym(own.patient.unwrap());
        assert!(of(&query(&pseudonym, None), &own).0 && !of(&query(&pseudonym, None), &other).0);
        assert!(!of(&query("ANONYMOUS", None), &own).0);
        assert!(of(&Query::default(), &own).0);
    }
}
