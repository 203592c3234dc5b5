//! What a search asks for: matching keys, the part of the matches that is wanted, and what of it is not understood (PS3.18, 8.3.4).

use std::collections::BTreeSet;

use super::json::Tag;
use super::tags;
use crate::error::{Error, ErrorKind, Result};
use crate::http::audited::level_name;
use crate::search::Level;

/// Most results of one answer, also where none says how many.
pub const RESULTS_MAX: usize = 1000;
/// Most UIDs of a list.
const UIDS_MAX: usize = 1000;
/// Largest limit and offset: a number of 32 bits with a sign, as the description says.
const NUMBER_MAX: usize = i32::MAX as usize;
/// Most codes of a list: each image is held against all of them.
const CODES_MAX: usize = 100;
/// Most parameters of one request, and most of their names that a warning repeats.
const PARAMETERS_MAX: usize = 100;
const NAMES_MAX: usize = 10;
/// Longest name that is repeated, in bytes: keywords are shorter.
const NAME_BYTES_MAX: usize = 64;

/// Attributes that can be matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// By its keyed digest: as a whole or not at all.
    PatientId,
    /// Only together with the id.
    IssuerOfPatientId,
    StudyInstanceUid,
    SeriesInstanceUid,
    SopInstanceUid,
    Modality,
    ModalitiesInStudy,
    BodyPartExamined,
    PatientSex,
    ViewPosition,
}

const ATTRIBUTES: [(Tag, Attribute); 10] = [
    (tags::PATIENT_ID, Attribute::PatientId),
    (tags::ISSUER_OF_PATIENT_ID, Attribute::IssuerOfPatientId),
    (tags::STUDY_INSTANCE_UID, Attribute::StudyInstanceUid),
    (tags::SERIES_INSTANCE_UID, Attribute::SeriesInstanceUid),
    (tags::SOP_INSTANCE_UID, Attribute::SopInstanceUid),
    (tags::MODALITY, Attribute::Modality),
    (tags::MODALITIES_IN_STUDY, Attribute::ModalitiesInStudy),
    (tags::BODY_PART_EXAMINED, Attribute::BodyPartExamined),
    (tags::PATIENT_SEX, Attribute::PatientSex),
    (tags::VIEW_POSITION, Attribute::ViewPosition),
];

/// Codes of which one has to match; `*` and `?` stand for any characters, and any one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Codes(Vec<String>);

impl Codes {
    fn read(value: &str) -> Result<Self> {
        let codes: Vec<String> = list(value).map(str::to_ascii_uppercase).collect();
        if codes.len() > CODES_MAX {
            let message = format!("a list has no more than {CODES_MAX} codes");
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        Ok(Self(codes))
    }

    /// Whether one of them is this.
    pub fn match_any(&self, code: Option<&str>) -> bool {
        let Some(code) = code else { return false };
        let code = code.to_ascii_uppercase();
        self.0.iter().any(|wanted| matches(wanted.as_bytes(), code.as_bytes()))
    }
}

/// A search. `Debug` does not print what names a patient.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// The patient's id, or its pseudonym.
    pub patient_id: Option<String>,
    /// Who issued the id.
    pub issuer: Option<String>,
    /// Studies, series and instances of which it has to be one; none: any.
    pub studies: Option<Vec<String>>,
    pub series: Option<Vec<String>>,
    pub instances: Option<Vec<String>>,
    /// What its own codes have to be.
    pub codes: Vec<(Attribute, Codes)>,
    /// What is somewhere in its study.
    pub modalities_in_study: Option<Codes>,
    /// Results that are left out at the beginning, and most that are wanted.
    pub offset: usize,
    pub limit: usize,
    /// What the answer says that it did not do.
    pub warnings: Vec<String>,
}

impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Query")
            .field("codes", &self.codes)
            .field("offset", &self.offset)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Query {
    /// Reads the parameters of a request. What is not understood is left out, and said in `warnings`.
    ///
    /// # Errors
    /// `InvalidRequest` for a limit or an offset that is no number, and for too many parameters or UIDs.
    pub fn read(parameters: &[(String, String)]) -> Result<Self> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidRequest, message);
        if parameters.len() > PARAMETERS_MAX {
            return Err(invalid(format!(
                "a search has no more than {PARAMETERS_MAX} parameters"
            )));
        }
        let mut query = Self {
            limit: RESULTS_MAX,
            ..Self::default()
        };
        let mut ignored = BTreeSet::new();
        for (name, value) in parameters {
            let value = value.trim();
            match name.as_str() {
                "limit" | "offset" => {
                    let number = value.parse::<usize>().ok().filter(|number| *number <= NUMBER_MAX);
                    let number =
                        number.ok_or_else(|| invalid(format!("`{name}` is a whole number, at most {NUMBER_MAX}")))?;
                    match name.as_str() {
                        "limit" => query.limit = number.min(RESULTS_MAX),
                        _ => query.offset = number,
                    }
                }
                // Every answer has all there is.
                "includefield" => {}
                "fuzzymatching" => {
                    if value.eq_ignore_ascii_case("true") {
                        query.warnings.push(
                            "The fuzzymatching parameter is not supported. Only literal matching has been performed."
                                .to_owned(),
                        );
                    } else if !value.eq_ignore_ascii_case("false") {
                        return Err(invalid("`fuzzymatching` is `true` or `false`".to_owned()));
                    }
                }
                // Universal matching: whatever it is, and be it nothing (PS3.4, C.2.2.2.3).
                _ if value.is_empty() || value == "*" => {}
                _ => match attribute(name) {
                    Some(attribute) => query.take(attribute, value)?,
                    None => {
                        ignored.insert(name.as_str());
                    }
                },
            }
        }
        if query.issuer.is_some() && query.patient_id.is_none() {
            query.issuer = None;
            ignored.insert("IssuerOfPatientID");
        }
        if query.patient_id.as_deref().is_some_and(|id| id.contains(['*', '?'])) {
            let message =
                "PatientID is matched as a whole: characters that stand for others have been taken literally.";
            query.warnings.push(message.to_owned());
        }
        query.warnings.extend(warning(&ignored));
        Ok(query)
    }

    /// What of it names a patient, or images by what they are called: in an order of its own, so that the same names are the same query however they came.
    pub fn names(&self) -> Vec<(&'static str, &str)> {
        let patient = [("patient", &self.patient_id), ("issuer", &self.issuer)];
        let patient = patient
            .into_iter()
            .filter_map(|(what, name)| Some((what, name.as_deref()?)));
        let uids = self.uids();
        let uids = uids
            .into_iter()
            .flat_map(|(level, uids)| uids.iter().map(move |uid| (level_name(level), uid.as_str())));
        let mut names: Vec<_> = patient.chain(uids).collect();
        names.sort_unstable();
        names
    }

    /// The UIDs that it names on each level.
    pub fn uids(&self) -> [(Level, &[String]); 3] {
        [
            (Level::Study, self.studies.as_deref().unwrap_or_default()),
            (Level::Series, self.series.as_deref().unwrap_or_default()),
            (Level::Instance, self.instances.as_deref().unwrap_or_default()),
        ]
    }

    fn take(&mut self, attribute: Attribute, value: &str) -> Result<()> {
        match attribute {
            Attribute::PatientId => self.patient_id = Some(value.to_owned()),
            Attribute::IssuerOfPatientId => self.issuer = Some(value.to_owned()),
            Attribute::StudyInstanceUid => self.studies = Some(uids(value)?),
            Attribute::SeriesInstanceUid => self.series = Some(uids(value)?),
            Attribute::SopInstanceUid => self.instances = Some(uids(value)?),
            Attribute::ModalitiesInStudy => self.modalities_in_study = Some(Codes::read(value)?),
            Attribute::Modality | Attribute::BodyPartExamined | Attribute::PatientSex | Attribute::ViewPosition => {
                self.codes.push((attribute, Codes::read(value)?));
            }
        }
        Ok(())
    }
}

/// By its keyword or the eight hex digits of its tag.
fn attribute(name: &str) -> Option<Attribute> {
    let named =
        |(tag, _): &&(Tag, Attribute)| tags::keyword(*tag) == Some(name) || name.eq_ignore_ascii_case(&tag.to_string());
    ATTRIBUTES.iter().find(named).map(|(_, attribute)| *attribute)
}

/// Values of a list: of UIDs with commas between them (PS3.18, 8.3.4.1), or as DICOM itself separates them.
fn list(value: &str) -> impl Iterator<Item = &str> {
    let parts = value.split([',', '\\']).map(str::trim);
    parts.filter(|part| !part.is_empty())
}

fn uids(value: &str) -> Result<Vec<String>> {
    let uids: Vec<String> = list(value).map(str::to_owned).collect();
    if uids.len() > UIDS_MAX {
        let message = format!("a list has no more than {UIDS_MAX} UIDs");
        return Err(Error::new(ErrorKind::InvalidRequest, message));
    }
    Ok(uids)
}

/// Says which parameters were ignored. Whoever sends a name in place of a keyword does not get it back.
fn warning(ignored: &BTreeSet<&str>) -> Option<String> {
    if ignored.is_empty() {
        return None;
    }
    let is_keyword = |name: &&&str| {
        name.len() <= NAME_BYTES_MAX && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')
    };
    let names: Vec<&str> = ignored.iter().filter(is_keyword).take(NAMES_MAX).copied().collect();
    let and_others = if names.len() < ignored.len() { " and others" } else { "" };
    Some(format!(
        "These parameters are not supported and have been ignored: {}{and_others}.",
        names.join(", ")
    ))
}

/// Wildcard matching (PS3.4, C.2.2.2.4), in the time of pattern times text.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star, from)) = back else { return false };
                back = Some((star, from + 1));
                p = star + 1;
                t = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(parameters: &[(&str, &str)]) -> Result<Query> {
        let owned: Vec<(String, String)> = parameters.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        Query::read(&owned)
    }

    #[test]
    fn keywords_and_tags_mean_the_same() {
        let by_keyword = read(&[
            ("PatientID", "4711"),
            ("IssuerOfPatientID", "H"),
            ("StudyInstanceUID", "1.2,1.3"),
            ("Modality", "CR\\DX"),
        ]);
        let by_tag = read(&[
            ("00100020", "4711"),
            ("00100021", " H "),
            ("0020000d", "1.2\\1.3"),
            ("00080060", "cr,DX"),
        ]);
        let query = by_keyword.unwrap();
        assert_eq!(query, by_tag.unwrap());
        assert_eq!(
            query.studies.as_deref(),
            Some(&["1.2".to_owned(), "1.3".to_owned()][..])
        );
        assert!(query.warnings.is_empty());
        assert!(!format!("{query:?}").contains("4711"));
    }

    #[test]
    fn what_is_not_understood_is_said_without_what_was_sent() {
        let query = read(&[
            ("StudyDate", "20200101-20201231"),
            ("00400275.00080050", "7"),
            ("Müller Hans", "x"),
            ("PatientName", "*"),
            ("includefield", "all"),
            ("fuzzymatching", "true"),
            ("IssuerOfPatientID", "H"),
        ])
        .unwrap();
        assert_eq!(
            query.warnings,
            [
                "The fuzzymatching parameter is not supported. Only literal matching has been performed.",
                "These parameters are not supported and have been ignored: 00400275.00080050, IssuerOfPatientID, StudyDate and others."
            ]
        );
        assert!(query.issuer.is_none());
        assert_eq!(read(&[("PatientID", "47*")]).unwrap().warnings.len(), 1);
        assert_eq!(
            read(&[("fuzzymatching", "false"), ("PatientID", "*")])
                .unwrap()
                .warnings
                .len(),
            0
        );
    }

    #[test]
    fn limits_are_numbers_and_bounded() {
        assert_eq!(read(&[]).unwrap().limit, RESULTS_MAX);
        let query = read(&[("limit", "99999999"), ("offset", "5")]).unwrap();
        assert_eq!((query.limit, query.offset), (RESULTS_MAX, 5));
        for (name, value) in [
            ("limit", "-1"),
            ("limit", "ten"),
            ("offset", ""),
            ("offset", "99999999999"),
        ] {
            assert_eq!(
                read(&[(name, value)]).unwrap_err().kind(),
                ErrorKind::InvalidRequest,
                "{name}={value}"
            );
        }
        let many = vec!["1.2"; UIDS_MAX + 1].join(",");
        assert!(read(&[("SOPInstanceUID", &many)]).is_err());
        assert!(read(&vec![("Modality", "CR"); PARAMETERS_MAX + 1]).is_err());
    }

    #[test]
    fn codes_match_with_wildcards() {
        let match_any = |wanted: &str, code: &str| Codes::read(wanted).unwrap().match_any(Some(code));
        for (wanted, code) in [
            ("CR", "cr"),
            ("C?", "CT"),
            ("*", "X"),
            ("CH*T", "CHEST"),
            ("DX,CR", "CR"),
            ("*S*", "CHEST"),
        ] {
            assert!(match_any(wanted, code), "{wanted} {code}");
        }
        for (wanted, code) in [("CR", "CRX"), ("C?", "C"), ("CH*X", "CHEST"), ("", "CR")] {
            assert!(!match_any(wanted, code), "{wanted} {code}");
        }
        assert!(!Codes::read("*").unwrap().match_any(None));
        assert!(Codes::read(&vec!["CT"; CODES_MAX + 1].join(",")).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_sent_is_read_or_refused(parameters in prop::collection::vec((".{0,12}", ".{0,30}"), 0..20)) {
            if let Ok(query) = Query::read(&parameters) {
                prop_assert!(query.limit <= RESULTS_MAX);
                // They become a header.
                prop_assert!(query.warnings.iter().all(|text| text.is_ascii() && !text.contains(['"', '\\', '\r', '\n'])));
            }
        }

        #[test]
        fn a_text_matches_itself_with_parts_left_out(text in "[A-Z]{1,12}", from in 0..12_usize, to in 0..12_usize) {
            let (from, to) = (from.min(text.len()), to.min(text.len()));
            prop_assume!(from <= to);
            let pattern = format!("{}*{}", &text[..from], &text[to..]);
            prop_assert!(matches(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
