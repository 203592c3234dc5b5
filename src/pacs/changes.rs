//! What an Orthanc says has happened: an answer of `GET /changes`.
//!
//! Measured with 1.10.1: numbers grow and are not used twice, whatever is deleted takes its changes along, and no deletion is among them.

use serde::Deserialize;

use crate::archive::{Cursor, NAME_BYTES};
use crate::error::{Error, ErrorKind, Result};

/// Digits of an Orthanc id: five groups of eight.
const GROUPS: usize = 5;
const GROUP_DIGITS: usize = 8;

/// An Orthanc's name for an instance, a digest of its UIDs. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct OrthancId(String);

impl OrthancId {
    /// Five groups of eight hex digits; none: anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_group = |group: &str| {
            group.len() == GROUP_DIGITS && group.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let groups = text.split('-');
        (groups.clone().count() == GROUPS && groups.clone().all(is_group)).then(|| Self(text.to_owned()))
    }

    /// As it stands in a path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digest that it is.
    pub(super) fn name(&self) -> [u8; NAME_BYTES] {
        let digits = self.0.replace('-', "");
        let mut name = [0; NAME_BYTES];
        hex::decode_to_slice(digits, &mut name).expect("an id is forty hex digits");
        name
    }

    /// The one of this digest.
    pub(super) fn of(name: &[u8; NAME_BYTES]) -> Self {
        let groups: Vec<String> = name.chunks(GROUP_DIGITS / 2).map(hex::encode).collect();
        Self(groups.join("-"))
    }
}

impl std::fmt::Debug for OrthancId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OrthancId(…)")
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub seq: u64,
    /// When, by Orthanc's clock, as `20260131T235959`.
    pub date: String,
    /// The instance that has come; none: something else happened.
    pub instance: Option<OrthancId>,
}

/// Some changes, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Each.
    pub list: Vec<Change>,
    /// There are none after these.
    pub done: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    changes: Vec<Said>,
    done: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Said {
    change_type: String,
    #[serde(rename = "ID")]
    id: String,
    seq: u64,
    #[serde(default)]
    date: String,
}

impl Changes {
    /// Reads an answer.
    ///
    /// # Errors
    /// `PacsFailed` for what is none: another shape, numbers that don't grow, an instance without an id that can be one.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let odd = || Error::new(ErrorKind::PacsFailed, "Orthanc's changes are not as they should be");
        // Without the cause, which may repeat a value.
        let answer: Answer = serde_json::from_slice(json).map_err(|_| odd())?;
        let mut list: Vec<Change> = Vec::with_capacity(answer.changes.len());
        for said in answer.changes {
            if list.last().is_some_and(|last| last.seq >= said.seq) {
                return Err(odd());
            }
            let instance = match said.change_type.as_str() {
                "NewInstance" => Some(OrthancId::parse(&said.id).ok_or_else(odd)?),
                _ => None,
            };
            list.push(Change {
                seq: said.seq,
                date: said.date,
                instance,
            });
        }
        Ok(Self {
            list,
            done: answer.done,
        })
    }
}

/// The place after a change.
pub fn after(cursor: &Cursor, change: &Change) -> Cursor {
    Cursor {
        seq: cursor.seq.max(change.seq),
        date: cursor.date.clone().max(change.date.clone()),
    }
}

/// Whether the oldest change of a database shows that it is another one than that which was followed to `cursor`: it has a number from before there, and is younger
/// than anything was there.
pub fn is_another_database(oldest: Option<&Change>, cursor: &Cursor) -> bool {
    oldest.is_some_and(|oldest| oldest.seq <= cursor.seq && oldest.date > cursor.date)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const ID: &str = "f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af";

    fn said(kind: &str, id: &str, seq: u64) -> serde_json::Value {
        json!({"ChangeType": kind, "Date": format!("20261130T{seq:06}"), "ID": id, "Path": "/x", "ResourceType": "Instance", "Seq": seq})
    }

    fn parse(changes: serde_json::Value) -> Result<Changes> {
        Changes::parse(
            json!({"Changes": changes, "Done": true, "Last": 8})
                .to_string()
                .as_bytes(),
        )
    }

    #[test]
    fn new_instances_are_told_from_the_rest() {
        let changes = parse(json!([
            said("NewInstance", ID, 1),
            said("NewSeries", ID, 2),
            said("StableStudy", "x", 9)
        ]))
        .unwrap();
        let seqs: Vec<_> = changes
            .list
            .iter()
            .map(|change| (change.seq, change.instance.is_some()))
            .collect();
        assert_eq!((seqs, changes.done), (vec![(1, true), (2, false), (9, false)], true));
        assert!(!format!("{changes:?}").contains("f689"));
    }

    #[test]
    fn an_id_is_a_digest_in_groups() {
        let id = OrthancId::parse(ID).unwrap();
        assert_eq!((id.name()[0], id.name()[19]), (0xf6, 0xaf));
        assert_eq!(OrthancId::of(&id.name()), id);
    }

    #[test]
    fn an_odd_answer_is_refused() {
        for id in [
            "",
            "..",
            "../../system",
            "F689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af",
            "f689ddd2-662f8fe1-8b18180d-ec2a2cee",
            &format!("{ID}-{ID}"),
            &ID.replace('-', "/"),
        ] {
            assert_eq!(
                parse(json!([said("NewInstance", id, 1)])).unwrap_err().kind(),
                ErrorKind::PacsFailed,
                "{id}"
            );
        }
        assert!(parse(json!([said("NewInstance", ID, 2), said("NewInstance", ID, 2)])).is_err());
        assert!(parse(json!([{"Seq": 1}])).is_err() && parse(json!({})).is_err());
        for json in ["", "[]", "{\"Changes\": []}", "<html>"] {
            assert!(Changes::parse(json.as_bytes()).is_err());
        }
    }

    #[test]
    fn a_database_that_was_set_up_anew_is_noticed() {
        let changes = parse(json!([said("NewInstance", ID, 3), said("NewInstance", ID, 5)]))
            .unwrap()
            .list;
        let reached = changes
            .iter()
            .fold(Cursor::default(), |cursor, change| after(&cursor, change));
        assert_eq!((reached.seq, reached.date.as_str()), (5, "20261130T000005"));
        // What was deleted meanwhile, the newest among it, is no other database.
        assert!(!is_another_database(changes.first(), &reached) && !is_another_database(None, &reached));
        let young = |seq| Change {
            date: "20261201T000000".into(),
            ..Change {
                seq,
                ..changes[0].clone()
            }
        };
        assert!(is_another_database(Some(&young(1)), &reached));
        assert!(!is_another_database(Some(&young(6)), &reached));
        assert!(!is_another_database(changes.first(), &Cursor::default()));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(json in ".{0,200}") {
            let _ = Changes::parse(json.as_bytes());
        }
    }
}
