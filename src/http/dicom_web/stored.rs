//! What became of the objects of one request (PS3.18, 10.5.3 and Annex I): pure.

use std::collections::BTreeMap;

use super::json::{DataSet, Tag, Value, Vr};
use super::tags;
use crate::domain::Uid;
use crate::error::{Error, ErrorKind, Result};
use crate::ingest::{Received, Refusal, Verdict};
use crate::pacs::{BaseUrl, Reference};

/// Warning Reason `Elements discarded` (B006): the sender may forget the object, and nothing of what it sent was kept. It is known already, has no pixels, or
/// is not what the archive is for.
const NOT_KEPT: u16 = 0xb006;
/// Failure Reason `Out of resources`.
const NO_ROOM: u16 = 0xa700;
/// Failure Reason `Data Set does not match`: of another study than the one in the path.
const OTHER_STUDY: u16 = 0xa900;
/// Failure Reason `Cannot understand`.
const BROKEN: u16 = 0xc000;
/// Failure Reason `Referenced Transfer Syntax not supported`.
const SYNTAX: u16 = 0xc122;
/// Failure Reason `Processing failure`.
const FAILED: u16 = 0x0110;
/// Failure Reason `Duplicate SOP Instance` (PS3.7, C.5.7): the instance is known, with other pixels.
const OTHER_PIXELS: u16 = 0x0111;

/// What the status of an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Summary {
    /// Everything is stored: 200.
    All,
    /// Some of it is, or not as it came: 202.
    Some,
    /// Nothing is: 409.
    None,
}

/// The objects of one request, in the order in which they came.
#[derive(Debug, Default)]
pub struct Stored {
    received: Vec<Received>,
}

impl Stored {
    /// One more.
    pub fn add(&mut self, received: Received) {
        self.received.push(received);
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.received.len()
    }

    /// How many were refused, by reason, in words; none: no one was.
    pub fn refusals(&self) -> Option<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for received in &self.received {
            if let Verdict::Refused(why, _) = received.verdict {
                *counts.entry(why.slug()).or_default() += 1;
            }
        }
        let counts: Vec<String> = counts.iter().map(|(why, count)| format!("{why}: {count}")).collect();
        (!counts.is_empty()).then(|| counts.join(", "))
    }

    /// What the status says.
    ///
    /// # Errors
    /// `InvalidRequest` without objects; `StorageFull` when there was no room for any, `Unavailable` when none could be taken for reasons that pass.
    pub fn summary(&self) -> Result<Summary> {
        if self.received.is_empty() {
            return Err(Error::new(ErrorKind::InvalidRequest, "the body has no object"));
        }
        let verdicts = || self.received.iter().map(|received| &received.verdict);
        let passing = |verdict: &Verdict| matches!(verdict, Verdict::Refused(why, _) if why.is_passing());
        if verdicts().all(passing) {
            let message = verdicts().find_map(|verdict| match verdict {
                Verdict::Refused(_, message) => Some(message.clone()),
                _ => None,
            });
            let full = |verdict: &Verdict| matches!(verdict, Verdict::Refused(Refusal::Full, _));
            let kind = match verdicts().all(full) {
                true => ErrorKind::StorageFull,
                false => ErrorKind::Unavailable,
            };
            return Err(Error::new(kind, message.unwrap_or_default()));
        }
        Ok(if verdicts().all(|verdict| *verdict == Verdict::Accepted) {
            Summary::All
        } else if verdicts().any(Verdict::is_success) {
            Summary::Some
        } else {
            Summary::None
        })
    }

    /// The Store Instances Response Module (table 10.5.3-1). `base` is where clients see `/dicom-web`; without it nothing says where an object can be
    /// retrieved, since what a client calls this server may be anything.
    pub fn data_set(&self, base: Option<&BaseUrl>) -> DataSet {
        let (mut referenced, mut failed, mut nameless) = (vec![], vec![], vec![]);
        for received in &self.received {
            let named = names(received);
            let list = match (&received.verdict, &named) {
                (Verdict::Refused(..), Some(_)) => &mut failed,
                (Verdict::Refused(..), None) => &mut nameless,
                _ => &mut referenced,
            };
            let mut item = named.unwrap_or_default();
            if let Verdict::Refused(why, _) = &received.verdict {
                item.number(tags::FAILURE_REASON, Vr::Us, reason(*why).into());
            } else {
                let url = base.filter(|_| is_kept(received)).and_then(|base| {
                    let reference = reference(received).filter(|reference| reference.instance.is_some());
                    base.retrieve_url(&reference?)
                });
                item.maybe(tags::RETRIEVE_URL, Vr::Ur, url);
                if received.verdict != Verdict::Accepted {
                    item.number(tags::WARNING_REASON, Vr::Us, NOT_KEPT.into());
                }
            }
            list.push(Value::Item(item));
        }
        let mut set = DataSet::default();
        set.maybe(tags::RETRIEVE_URL, Vr::Ur, base.and_then(|base| self.study_url(base)));
        let lists: [(Tag, Vec<Value>); 3] = [
            (tags::FAILED_SOP_SEQUENCE, failed),
            (tags::REFERENCED_SOP_SEQUENCE, referenced),
            (tags::OTHER_FAILURES_SEQUENCE, nameless),
        ];
        for (tag, items) in lists {
            if !items.is_empty() {
                set.put(tag, Vr::Sq, items);
            }
        }
        set
    }

    /// Where the study is, when all objects that are kept are of one.
    fn study_url(&self, base: &BaseUrl) -> Option<String> {
        let kept = self.received.iter().filter(|received| is_kept(received));
        let mut studies = kept.map(|received| Some(reference(received)?.study));
        let study = studies.next()??;
        let of_one = studies.all(|other| other.as_ref() == Some(&study));
        let study = Reference {
            study,
            series: None,
            instance: None,
        };
        base.retrieve_url(&study).filter(|_| of_one)
    }
}

/// Whether it is in the archive, or will be.
fn is_kept(received: &Received) -> bool {
    matches!(received.verdict, Verdict::Accepted | Verdict::Known)
}

const fn reason(refusal: Refusal) -> u16 {
    match refusal {
        Refusal::Broken | Refusal::BurnedIn => BROKEN,
        Refusal::Syntax => SYNTAX,
        Refusal::OtherStudy => OTHER_STUDY,
        Refusal::Conflict => OTHER_PIXELS,
        Refusal::TooLarge | Refusal::Busy | Refusal::Full | Refusal::Late => NO_ROOM,
        Refusal::Unavailable => FAILED,
    }
}

/// The class and the instance of an object; none when it does not say both.
fn names(received: &Received) -> Option<DataSet> {
    let mut names = DataSet::default();
    names
        .text(tags::REFERENCED_SOP_CLASS_UID, Vr::Ui, received.sop_class.as_deref()?)
        .text(tags::REFERENCED_SOP_INSTANCE_UID, Vr::Ui, received.sop_uid.as_deref()?);
    Some(names)
}

/// Where an object is, as far as it says; none without a study.
fn reference(received: &Received) -> Option<Reference> {
    let uid = |text: &Option<String>| text.as_deref()?.parse::<Uid>().ok();
    let series = uid(&received.series_uid);
    Some(Reference {
        study: uid(&received.study_uid)?,
        instance: uid(&received.sop_uid).filter(|_| series.is_some()),
        series,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::archive::Outside;

    fn received(number: u32, verdict: Verdict) -> Received {
        Received {
            sop_class: Some("1.2.840.10008.5.1.4.1.1.7".into()),
            sop_uid: Some(format!("1.2.{number}")),
            study_uid: Some("1.3".into()),
            series_uid: Some("1.4".into()),
            verdict,
        }
    }

    fn refused(why: Refusal) -> Verdict {
        Verdict::Refused(why, "no".into())
    }

    fn stored(verdicts: Vec<Verdict>) -> Stored {
        let received = (0..).zip(verdicts).map(|(number, verdict)| received(number, verdict));
        Stored {
            received: received.collect(),
        }
    }

    fn as_json(stored: &Stored, base: Option<&str>) -> serde_json::Value {
        let base = base.map(|base| BaseUrl::parse(base).unwrap());
        serde_json::to_value(stored.data_set(base.as_ref())).unwrap()
    }

    #[test]
    fn one_that_is_stored_reads_as_in_the_standard() {
        let stored = stored(vec![Verdict::Accepted]);
        assert_eq!(stored.summary().unwrap(), Summary::All);
        assert_eq!(
            as_json(&stored, Some("https://x.example/dicom-web")),
            json!({
                "00081190": {"vr": "UR", "Value": ["https://x.example/dicom-web/studies/1.3"]},
                "00081199": {"vr": "SQ", "Value": [{
                    "00081150": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.7"]},
                    "00081155": {"vr": "UI", "Value": ["1.2.0"]},
                    "00081190": {"vr": "UR", "Value": ["https://x.example/dicom-web/studies/1.3/series/1.4/instances/1.2.0"]},
                }]},
            })
        );
        assert_eq!(as_json(&stored, None)["00081190"], json!({"vr": "UR"}));
    }

    #[test]
    fn the_study_of_all_is_named_and_of_one_that_is_none_nothing() {
        let of = |studies: [&str; 2]| {
            let mut stored = Stored::default();
            for study in studies {
                let received = received(1, Verdict::Accepted);
                stored.add(Received {
                    study_uid: Some(study.into()),
                    ..received
                });
            }
            as_json(&stored, Some("https://x.example/dicom-web"))
        };
        assert_eq!(
            of(["1.3", "1.3"])["00081190"]["Value"][0],
            "https://x.example/dicom-web/studies/1.3"
        );
        assert_eq!(of(["1.3", "1.4"])["00081190"], json!({"vr": "UR"}));
        // What is no UID leads nowhere.
        let odd = of(["../x", "../x"]);
        assert_eq!(odd["00081190"], json!({"vr": "UR"}));
        assert_eq!(odd["00081199"]["Value"][0]["00081190"], json!({"vr": "UR"}));
    }

    #[test]
    fn each_has_its_reason() {
        for (verdict, code, success) in [
            (Verdict::Known, 0xb006, true),
            (Verdict::NotImage, 0xb006, true),
            (Verdict::Outside(Outside::Modality), 0xb006, true),
            (refused(Refusal::Broken), 0xc000, false),
            (refused(Refusal::Syntax), 0xc122, false),
            (refused(Refusal::OtherStudy), 0xa900, false),
            (refused(Refusal::Conflict), 0x0111, false),
            (refused(Refusal::TooLarge), 0xa700, false),
            (refused(Refusal::Busy), 0xa700, false),
            (refused(Refusal::Full), 0xa700, false),
            (refused(Refusal::Unavailable), 0x0110, false),
        ] {
            let stored = stored(vec![Verdict::Accepted, verdict.clone()]);
            assert_eq!(stored.summary().unwrap(), Summary::Some, "{verdict:?}");
            let set = as_json(&stored, None);
            let item = match success {
                true => &set["00081199"]["Value"][1]["00081196"],
                false => &set["00081198"]["Value"][0]["00081197"],
            };
            assert_eq!(*item, json!({"vr": "US", "Value": [code]}), "{verdict:?}");
        }
    }

    #[test]
    fn what_was_refused_is_counted_by_its_reason() {
        let taken = stored(vec![Verdict::Accepted, Verdict::NotImage]);
        assert_eq!(taken.refusals(), None);
        let some = stored(vec![
            refused(Refusal::Conflict),
            Verdict::Accepted,
            refused(Refusal::Broken),
            refused(Refusal::Conflict),
        ]);
        assert_eq!(some.refusals().unwrap(), "broken: 1, conflict: 2");
    }

    #[test]
    fn nothing_stored_is_a_conflict_or_worth_another_try() {
        let summary = |verdicts| stored(verdicts).summary();
        assert_eq!(summary(vec![refused(Refusal::Broken)]).unwrap(), Summary::None);
        assert_eq!(
            summary(vec![refused(Refusal::Broken), refused(Refusal::Full)]).unwrap(),
            Summary::None
        );
        let busy = summary(vec![refused(Refusal::Unavailable), refused(Refusal::Busy)]);
        assert_eq!(busy.unwrap_err().kind(), ErrorKind::Unavailable);
        let full = summary(vec![refused(Refusal::Full), refused(Refusal::Full)]);
        assert_eq!(full.unwrap_err().kind(), ErrorKind::StorageFull);
        let both = summary(vec![refused(Refusal::Full), refused(Refusal::Unavailable)]);
        assert_eq!(both.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(summary(vec![]).unwrap_err().kind(), ErrorKind::InvalidRequest);
    }

    #[test]
    fn what_says_no_name_is_another_failure() {
        let mut stored = Stored::default();
        stored.add(Received {
            sop_class: None,
            ..received(1, refused(Refusal::Broken))
        });
        let set = as_json(&stored, None);
        assert_eq!(set["0008119A"]["Value"][0]["00081197"]["Value"], json!([0xc000]));
        assert!(set["00081198"].is_null());
    }

    fn any_verdict() -> impl Strategy<Value = Verdict> {
        prop_oneof![
            Just(Verdict::Accepted),
            Just(Verdict::Known),
            Just(Verdict::NotImage),
            Just(Verdict::Outside(Outside::View)),
            Just(refused(Refusal::Broken)),
            Just(refused(Refusal::Conflict)),
            Just(refused(Refusal::Full)),
        ]
    }

    proptest! {
        /// Every object is in exactly one list, whatever became of the others, and the status fits.
        #[test]
        fn nothing_is_lost_in_the_answer(verdicts in prop::collection::vec(any_verdict(), 1..20)) {
            let good = verdicts.iter().filter(|verdict| verdict.is_success()).count();
            let stored = stored(verdicts.clone());
            let set = as_json(&stored, None);
            let count = |tag: &str| set[tag]["Value"].as_array().map_or(0, Vec::len);
            prop_assert_eq!((count("00081199"), count("00081198")), (good, verdicts.len() - good));
            if let Ok(summary) = stored.summary() {
                prop_assert_eq!(summary == Summary::None, good == 0);
            } else {
                prop_assert_eq!(good, 0);
            }
        }
    }
}
