//! What a line of the audit says: who, what, which images, and how it ended. There is no field for pixels, for names, for ids of patients, studies or files.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::chain::{Hash, Head, ProcessId};
use crate::domain::ImageId;

/// Most images that one line names; the others are counted. An answer has at most 100 neighbors, and one more of each class.
pub const IMAGES_MAX: usize = 2000;

/// A keyed digest of a query: equal ones mean equal queries, and nothing more without the archive's secret. 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 16]);

/// The events of DICOM's audit trail (PS3.15, A.5.3) that these correspond to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventId {
    /// 110100: a server starts or stops, or something that no other says.
    ApplicationActivity,
    /// 110103: images are looked at, changed or deleted.
    InstancesAccessed,
    /// 110106: data leaves.
    Export,
    /// 110107: data comes in.
    Import,
    /// 110110: a patient's data as a whole.
    PatientRecord,
    /// 110112: a search.
    Query,
    /// 110113: somebody tries what is not for them.
    SecurityAlert,
    /// 110114: who asks is not known, or no longer.
    UserAuthentication,
}

impl EventId {
    /// The code of the scheme DCM.
    pub const fn code(self) -> &'static str {
        match self {
            Self::ApplicationActivity => "110100",
            Self::InstancesAccessed => "110103",
            Self::Export => "110106",
            Self::Import => "110107",
            Self::PatientRecord => "110110",
            Self::Query => "110112",
            Self::SecurityAlert => "110113",
            Self::UserAuthentication => "110114",
        }
    }
}

/// What is done to what an event is about (PS3.15, A.5.2: EventActionCode).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Create,
    /// It is looked at.
    Read,
    /// It is changed.
    Update,
    /// It goes.
    Delete,
    /// Something is done with it.
    Execute,
}

impl Action {
    /// The letter.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Create => "C",
            Self::Read => "R",
            Self::Update => "U",
            Self::Delete => "D",
            Self::Execute => "E",
        }
    }
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Whoever has the key, or the identity, of this name.
    Named(Arc<str>),
    /// Somebody on this machine: the server takes no keys.
    Loopback,
    /// Nobody that is known.
    Unknown,
    /// The server itself.
    Server,
}

impl Who {
    fn as_str(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Loopback => Some("loopback"),
            Self::Unknown => None,
            Self::Server => Some("server"),
        }
    }
}

/// What has to be on record before it is done has two lines: one before, one with how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Done and said in one line.
    Whole,
    /// It is about to be done.
    Begun,
    /// It was done or refused; the line that began it has this number.
    Ended(u64),
}

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answered {
    /// HTTP status; none: the caller went away, or the server broke off.
    pub status: Option<u16>,
    /// The kind of problem, if it was one.
    pub problem: Option<&'static str>,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// The operation, as the description of the API calls it, or `refused`, `signIn`, `signOut`, `start`, `stop`, `gap`, `keysFile`, `embedInstance`, `followDeletions`.
    pub what: &'static str,
    /// What DICOM calls it.
    pub dicom: EventId,
    /// What is done.
    pub action: Action,
    /// Who asked.
    pub who: Who,
    /// Before, after, or both in one.
    pub stage: Stage,
    /// How it was answered.
    pub answered: Option<Answered>,
    /// Why it was turned away, and for which operation it asked.
    pub refused: Option<(&'static str, Option<&'static str>)>,
    /// Images that the request names.
    pub asked: Vec<ImageId>,
    /// Images that were looked at, changed, or given out.
    pub images: Vec<ImageId>,
    /// How many of something, where the images themselves are not named.
    pub count: Option<u64>,
    /// The query.
    pub query: Option<Digest>,
    /// The PACS that it was fetched from, as the operator calls it.
    pub pacs: Option<String>,
    /// What was fetched there.
    pub reference: Option<Digest>,
    /// What became of an image, where that is no answer to anybody.
    pub outcome: Option<&'static str>,
    /// Pseudonym of the patient that it was about.
    pub patient: Option<String>,
    /// The request in the log.
    pub request: Option<String>,
    /// The archive's version.
    pub version: Option<u64>,
    /// Events before this one that have no line.
    pub lost: Option<u64>,
    /// Of a start: the heads of other processes that are known.
    pub heads: Vec<Head>,
}

impl Event {
    /// An event of the server itself, now.
    pub fn of_server(what: &'static str) -> Self {
        Self::new(what, EventId::ApplicationActivity, Action::Execute, Who::Server)
    }

    /// An event, now.
    pub fn new(what: &'static str, dicom: EventId, action: Action, who: Who) -> Self {
        Self {
            time: Timestamp::now(),
            what,
            dicom,
            action,
            who,
            stage: Stage::Whole,
            answered: None,
            refused: None,
            asked: Vec::new(),
            images: Vec::new(),
            count: None,
            query: None,
            pacs: None,
            reference: None,
            outcome: None,
            patient: None,
            request: None,
            version: None,
            lost: None,
            heads: Vec::new(),
        }
    }

    /// The line without its hash: a JSON object.
    pub(super) fn object(&self, seq: u64, process: ProcessId, replica: &str, prev: Hash) -> serde_json::Result<String> {
        let (begun, of) = match self.stage {
            Stage::Whole => (None, None),
            Stage::Begun => (Some(true), None),
            Stage::Ended(of) => (None, Some(of)),
        };
        let left_out = self.images.len().saturating_sub(IMAGES_MAX);
        serde_json::to_string(&Line {
            seq,
            time: self.time,
            process,
            replica,
            what: self.what,
            dicom: self.dicom.code(),
            action: self.action.code(),
            who: self.who.as_str(),
            begun,
            of,
            refused: self.refused.map(|(reason, _)| reason),
            operation: self.refused.and_then(|(_, operation)| operation),
            asked: self.asked.iter().take(IMAGES_MAX).map(ToString::to_string).collect(),
            images: self.images.iter().take(IMAGES_MAX).map(ToString::to_string).collect(),
            images_left_out: (left_out > 0).then_some(left_out),
            count: self.count,
            query: self.query.map(|digest| hex::encode(digest.0)),
            pacs: self.pacs.as_deref(),
            reference: self.reference.map(|digest| hex::encode(digest.0)),
            outcome: self.outcome,
            patient: self.patient.as_deref(),
            unanswered: self.answered.filter(|answered| answered.status.is_none()).map(|_| true),
            status: self.answered.and_then(|answered| answered.status),
            problem: self.answered.and_then(|answered| answered.problem),
            request: self.request.as_deref(),
            version: self.version,
            lost: self.lost,
            heads: &self.heads,
            prev,
        })
    }
}

/// A line as it is written, but for its hash. What does not apply is left out.
#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    time: Timestamp,
    process: ProcessId,
    replica: &'a str,
    what: &'static str,
    dicom: &'static str,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    begun: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    asked: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    images_left_out: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pacs: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patient: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unanswered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    heads: &'a [Head],
    prev: Hash,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::chain::LINE_BYTES_MAX;
    use crate::domain::{Key, Slot};

    #[test]
    fn a_line_names_so_many_images_and_counts_the_others() {
        let mut event = Event::new("searchById", EventId::Query, Action::Execute, Who::Loopback);
        event.images = vec![ImageId::new(Slot(1), Key([2; 16])); IMAGES_MAX + 5];
        let line = event
            .object(u64::MAX, ProcessId::random(), "replica", Hash::NONE)
            .unwrap();
        assert!(line.len() < LINE_BYTES_MAX / 2, "{}", line.len());
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["images"].as_array().unwrap().len(), IMAGES_MAX);
        assert_eq!(value["images_left_out"], 5);
    }

    #[test]
    fn what_does_not_apply_is_left_out() {
        let event = Event::of_server("start");
        let line = event.object(1, ProcessId::random(), "r", Hash::NONE).unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let fields: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = [
            "action", "dicom", "prev", "process", "replica", "seq", "time", "what", "who",
        ]
        .to_vec();
        expected.sort_unstable();
        assert_eq!(fields, expected);
    }
}
