//! What an Orthanc has deleted: `/changes` of 1.10.1 does not say, so that now and then its instances are listed and held against those that it was seen to have
//! ([`crate::archive::Origins`]). What is missing is asked for once more by its name, and goes only where the answer is 404.
//!
//! A listing that does not fit the count of before and after deletes nothing, nor does any fault. Where too many would go at once, nothing goes either until somebody has
//! looked: a disk that was not mounted is an Orthanc that has nothing.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::changes::OrthancId;
use super::client::Pacs;
use crate::archive::{NAME_BYTES, Origin, OriginBook, Origins, RefusedSweep, by_name};
use crate::audit::{Action, Audit, Event, EventId};
use crate::domain::{InstanceKeys, Key};
use crate::error::{Error, ErrorKind, Result};
use crate::ingest::Reception;
use crate::metrics::SweepOutcome;

/// Instances asked for at a time.
const PAGE: usize = 1000;
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Most instances of an Orthanc that are listed.
const LISTED_MAX: usize = 5_000_000;
/// Instances that are looked at in one sweep because nobody took them over; the next sweep goes on.
const LEARNED_MAX: usize = 5_000;
/// Of these so many are written down together.
const LEARNED_AT_ONCE: usize = 500;
/// Requests at a time.
const ASKED_MAX: usize = 4;
/// Time for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Time to take images away.
const WITHDRAW_MAX: Duration = Duration::from_secs(120);
/// For so long it counts that somebody confirmed.
const CONFIRMED_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// An instance's name as bytes.
type Name = [u8; NAME_BYTES];

/// How deletions are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepSettings {
    /// Time between two sweeps.
    pub every: Duration,
    /// Bounds of one.
    pub bounds: SweepBounds,
}

/// How much may go in one sweep that nobody has confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepBounds {
    /// Most instances.
    pub instances_max: usize,
    /// Most of a hundred that have an image.
    pub percent_max: usize,
}

impl SweepBounds {
    /// Whether so many may go, `of` those with an image, where `listed` are left.
    fn let_go(self, instances: usize, of: usize, listed: usize) -> bool {
        let share = instances.saturating_mul(100) <= of.saturating_mul(self.percent_max);
        instances == 0 || (listed > 0 && instances <= self.instances_max && share)
    }
}

/// What is not there any more.
#[derive(Debug, Default, PartialEq, Eq)]
struct Vanished {
    /// By name, with what of it goes; nothing where another name there, or another system, has it.
    names: Vec<(Name, HashSet<InstanceKeys>)>,
}

impl Vanished {
    /// `known` and not `listed`; `elsewhere` are instances that other systems had.
    fn of(known: &Origins, listed: &HashSet<Name>, elsewhere: &HashSet<Key>) -> Self {
        let there = || {
            known
                .iter()
                .filter(|origin| listed.contains(&origin.name))
                .map(|origin| origin.keys)
        };
        // One instance may have two names, where its patient was corrected: then only the file goes that the old one had.
        let sops: HashSet<Key> = there().map(|keys| keys.sop).collect();
        let files: HashSet<Key> = there().filter_map(|keys| keys.file).collect();
        let goes = |keys: &InstanceKeys| match keys.file {
            _ if elsewhere.contains(&keys.sop) => None,
            _ if !sops.contains(&keys.sop) => Some(InstanceKeys { file: None, ..*keys }),
            Some(file) if !files.contains(&file) => Some(*keys),
            _ => None,
        };
        let missing = by_name(known.iter().filter(|origin| !listed.contains(&origin.name)));
        let names = missing
            .into_iter()
            .map(|(name, keys)| (name, keys.iter().filter_map(goes).collect()));
        Self { names: names.collect() }
    }

    /// Instances of which something goes, by pseudonym.
    fn instances(&self) -> Vec<Key> {
        let keys: HashSet<Key> = self
            .names
            .iter()
            .flat_map(|(_, keys)| keys)
            .map(|keys| keys.sop)
            .collect();
        keys.into_iter().collect()
    }
}

/// What a sweep did.
pub(super) enum Swept {
    /// So many images went.
    Done {
        /// Images.
        images: usize,
    },
    /// The listing does not fit the counts.
    Incomplete,
    /// Too many would have gone.
    Refused(RefusedSweep),
}

impl Swept {
    pub fn outcome(&self) -> SweepOutcome {
        match self {
            Self::Done { .. } => SweepOutcome::Done,
            Self::Incomplete => SweepOutcome::Incomplete,
            Self::Refused(_) => SweepOutcome::Refused,
        }
    }
}

/// One look at everything that an Orthanc has.
pub(super) struct Sweep<'a> {
    pub orthanc: &'a Pacs,
    pub book: &'a OriginBook,
    pub reception: &'a Reception,
    pub audit: Option<&'a Audit>,
    pub bounds: SweepBounds,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Statistics {
    count_instances: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    main_dicom_tags: MainDicomTags,
}

#[derive(Deserialize)]
struct MainDicomTags {
    #[serde(rename = "SOPInstanceUID")]
    sop_instance_uid: Option<String>,
}

impl Sweep<'_> {
    /// Takes away what Orthanc has no more. Begun again, after whatever interrupted it, it does the same.
    pub async fn run(&self) -> Result<Swept> {
        let before = self.count().await?;
        let listed = self.listed().await?;
        let after = self.count().await?;
        // Instances come and go meanwhile.
        if listed.len() < before.min(after) || listed.len() > before.max(after) {
            return Ok(Swept::Incomplete);
        }
        let known = self.book.read().await?;
        let vanished = Vanished::of(&known, &listed, &self.book.elsewhere().await?);
        if let Some(refused) = self.refused(&known, &vanished, listed.len()).await? {
            self.book.refuse(Some(&refused)).await?;
            // It was for less, or is too old.
            self.book.confirm(None).await?;
            return Ok(Swept::Refused(refused));
        }
        let gone = self.gone(&vanished).await?;
        let instances: HashSet<InstanceKeys> = (vanished.names.iter())
            .filter(|(name, _)| gone.contains(name))
            .flat_map(|(_, keys)| keys.iter().copied())
            .collect();
        let mut images = 0;
        if !instances.is_empty() {
            self.record(&instances).await?;
            images = self
                .reception
                .withdraw(&instances, Instant::now() + WITHDRAW_MAX)
                .await?;
        }
        // Afterwards: whoever is interrupted before this finds them missing once more.
        self.book.let_go(&known, &gone).await?;
        if self.book.refused().await?.is_some() {
            self.book.refuse(None).await?;
        }
        if self.book.confirmed().await?.is_some() {
            self.book.confirm(None).await?;
        }
        self.learn(&known, &listed).await?;
        Ok(Swept::Done { images })
    }

    /// Whether too many would go, and nobody has confirmed so many.
    async fn refused(&self, known: &Origins, vanished: &Vanished, listed: usize) -> Result<Option<RefusedSweep>> {
        let all: HashSet<Key> = known.iter().map(|origin| origin.keys.sop).collect();
        let of = self.reception.held(all.into_iter().collect()).await?;
        let instances = self.reception.held(vanished.instances()).await?;
        if self.bounds.let_go(instances, of, listed) {
            return Ok(None);
        }
        let now = Timestamp::now();
        if let Some(confirmed) = self.book.confirmed().await? {
            let age = Duration::try_from(now.duration_since(confirmed.since)).unwrap_or_default();
            if age < CONFIRMED_AGE_MAX && instances <= confirmed.instances {
                return Ok(None);
            }
        }
        let since = self.book.refused().await?.map_or(now, |before| before.since);
        Ok(Some(RefusedSweep { instances, of, since }))
    }

    /// Puts on record which images are about to go, or to lose a file: without that nothing is deleted.
    async fn record(&self, instances: &HashSet<InstanceKeys>) -> Result<()> {
        let Some(audit) = self.audit else { return Ok(()) };
        let images = self.reception.images(instances);
        if images.is_empty() {
            return Ok(());
        }
        let event = Event {
            action: Action::Delete,
            dicom: EventId::InstancesAccessed,
            images,
            count: u64::try_from(instances.len()).ok(),
            ..Event::of_server("followDeletions")
        };
        audit.append(event).await.map(drop)
    }

    /// Those that Orthanc does not know by name either.
    async fn gone(&self, vanished: &Vanished) -> Result<HashSet<Name>> {
        let asked = vanished.names.iter().map(|(name, _)| async {
            match self.instance(name).await {
                Ok(_) => Ok(None),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(*name)),
                Err(error) => Err(error),
            }
        });
        let asked: Vec<_> = asked.collect();
        let answers = stream::iter(asked).buffer_unordered(ASKED_MAX);
        answers.try_filter_map(async |name| Ok(name)).try_collect().await
    }

    /// Writes down what nobody took over: what was there before deletions were followed, or was pushed.
    async fn learn(&self, known: &Origins, listed: &HashSet<Name>) -> Result<()> {
        let known: HashSet<Name> = known.iter().map(|origin| origin.name).collect();
        let unknown: Vec<&Name> = listed.difference(&known).take(LEARNED_MAX).collect();
        for some in unknown.chunks(LEARNED_AT_ONCE) {
            let asked: Vec<_> = some.iter().map(|name| self.origin(name)).collect();
            let answers = stream::iter(asked).buffer_unordered(ASKED_MAX);
            let found: Vec<Origin> = answers.try_filter_map(async |origin| Ok(origin)).try_collect().await?;
            if !found.is_empty() {
                self.book.note(&found).await?;
            }
        }
        Ok(())
    }

    async fn origin(&self, name: &Name) -> Result<Option<Origin>> {
        let instance = match self.instance(name).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            instance => instance?,
        };
        let sop = instance.main_dicom_tags.sop_instance_uid;
        let sop = sop.and_then(|uid| self.reception.sop_key(&uid));
        Ok(sop.map(|sop| Origin {
            name: *name,
            keys: InstanceKeys { sop, file: None },
        }))
    }

    async fn instance(&self, name: &Name) -> Result<Instance> {
        self.ask(&["instances", OrthancId::of(name).as_str()], &[]).await
    }

    async fn count(&self) -> Result<usize> {
        let statistics: Statistics = self.ask(&["statistics"], &[]).await?;
        Ok(statistics.count_instances)
    }

    async fn listed(&self) -> Result<HashSet<Name>> {
        let limit = PAGE.to_string();
        let mut listed = HashSet::new();
        for since in (0..LISTED_MAX).step_by(PAGE) {
            let since = since.to_string();
            let page: Vec<String> = self
                .ask(&["instances"], &[("since", &since), ("limit", &limit)])
                .await?;
            let last = page.len() < PAGE;
            for id in page {
                listed.insert(OrthancId::parse(&id).ok_or_else(odd)?.name());
            }
            if last {
                return Ok(listed);
            }
        }
        Err(odd())
    }

    async fn ask<T: DeserializeOwned>(&self, parts: &[&str], query: &[(&str, &str)]) -> Result<T> {
        let deadline = Instant::now() + ANSWER_MAX;
        let json = "application/json";
        let answer = self.orthanc.get(parts, query, json, ANSWER_BYTES_MAX, deadline).await?;
        // Without the cause, which may repeat a value.
        serde_json::from_slice(&answer.body).map_err(|_| odd())
    }
}

fn odd() -> Error {
    Error::new(
        ErrorKind::PacsFailed,
        "Orthanc's list of instances is not as it should be",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Key {
        Key([number; 16])
    }

    fn origin(name: u8, sop: u8, file: Option<u8>) -> Origin {
        let keys = InstanceKeys {
            sop: key(sop),
            file: file.map(key),
        };
        Origin {
            name: [name; NAME_BYTES],
            keys,
        }
    }

    fn vanished(known: &[Origin], listed: &[u8], elsewhere: &[u8]) -> Vec<(u8, Vec<InstanceKeys>)> {
        let listed = listed.iter().map(|name| [*name; NAME_BYTES]).collect();
        let elsewhere = elsewhere.iter().copied().map(key).collect();
        let vanished = Vanished::of(&Origins::from_iter(known.iter().copied()), &listed, &elsewhere);
        let mut names: Vec<_> = vanished
            .names
            .into_iter()
            .map(|(name, keys)| {
                let mut keys: Vec<InstanceKeys> = keys.into_iter().collect();
                keys.sort();
                (name[0], keys)
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_known_and_not_listed_goes() {
        let known = [origin(1, 1, Some(1)), origin(2, 2, Some(2)), origin(3, 3, None)];
        assert_eq!(vanished(&known, &[1, 2, 3, 9], &[]), []);
        let all = |sop| InstanceKeys {
            sop: key(sop),
            file: None,
        };
        assert_eq!(
            vanished(&known, &[1], &[]),
            [(2, vec![all(2)]), (3, vec![all(3)])],
            "every file of an instance that is gone"
        );
        // Another system has it: it stays, and is no longer this one's.
        assert_eq!(vanished(&known, &[1, 3], &[2]), [(2, vec![])]);
    }

    #[test]
    fn an_instance_under_another_name_keeps_the_file_of_that() {
        let known = [origin(1, 7, Some(1)), origin(2, 7, Some(2)), origin(3, 7, None)];
        assert_eq!(vanished(&known, &[2], &[]), [(1, vec![known[0].keys]), (3, vec![])]);
        assert_eq!(vanished(&known, &[1, 3], &[]), [(2, vec![known[1].keys])]);
        // The same file under both: nothing goes.
        let same = [origin(1, 7, Some(1)), origin(2, 7, Some(1))];
        assert_eq!(vanished(&same, &[2], &[]), [(1, vec![])]);
    }

    #[test]
    fn too_much_at_once_does_not_go() {
        let bounds = SweepBounds {
            instances_max: 100,
            percent_max: 10,
        };
        assert!(bounds.let_go(10, 100, 90) && bounds.let_go(100, 5000, 1) && bounds.let_go(0, 0, 0));
        assert!(!bounds.let_go(11, 100, 89), "more than a tenth");
        assert!(!bounds.let_go(101, 5000, 4899), "more than a hundred");
        assert!(!bounds.let_go(1, 100, 0), "nothing is left");
        let all = SweepBounds {
            instances_max: 100,
            percent_max: 100,
        };
        assert!(all.let_go(100, 100, 1) && !all.let_go(100, 100, 0));
    }
}
