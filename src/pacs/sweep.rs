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
use crate::archive::{Elsewhere, NAME_BYTES, Origin, OriginBook, Origins, RefusedSweep, by_name};
use crate::audit::{Action, Audit, Event, EventId, IMAGES_MAX};
use crate::domain::{InstanceKeys, Key};
use crate::error::{Error, ErrorKind, Result};
use crate::ingest::{Holdings, Reception};
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

/// How much may go in a day that nobody has confirmed. Files that are no image yet count as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepBounds {
    /// Most images.
    pub images_max: usize,
    /// Most of a hundred.
    pub percent_max: usize,
}

impl SweepBounds {
    /// Whether so many images may go, after as many `lately`, `of` those that are here, where `listed` instances are left.
    fn let_go(self, images: usize, lately: usize, of: usize, listed: usize) -> bool {
        let all = images.saturating_add(lately);
        let share = all.saturating_mul(100) <= of.saturating_add(lately).saturating_mul(self.percent_max);
        images == 0 || (listed > 0 && all <= self.images_max && share)
    }
}

/// What is not there any more.
#[derive(Debug, Default, PartialEq, Eq)]
struct Vanished {
    /// By name, with what of it goes; nothing where another name there, or another system, has it, or nothing of it is here.
    names: Vec<(Name, HashSet<InstanceKeys>)>,
}

impl Vanished {
    /// SOP instances of names that are `known` and not `listed`.
    fn instances(known: &Origins, listed: &HashSet<Name>) -> HashSet<Key> {
        let missing = known.iter().filter(|origin| !listed.contains(&origin.name));
        missing.map(|origin| origin.keys.sop).collect()
    }

    /// `known` and not `listed`; what other systems have is `elsewhere`, and what was taken of these instances is `here`.
    fn of(known: &Origins, listed: &HashSet<Name>, elsewhere: &Elsewhere, here: &Holdings) -> Self {
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
            _ if elsewhere.has(keys.sop) => None,
            // It was refused here: what is here of its instance is another's.
            Some(_) if !here.has(*keys) => None,
            _ if !sops.contains(&keys.sop) => Some(InstanceKeys { file: None, ..*keys }),
            Some(file) if !files.contains(&file) => Some(*keys),
            _ => None,
        };
        let missing = by_name(known.iter().filter(|origin| !listed.contains(&origin.name)));
        let names = missing
            .into_iter()
            // One of those that had it keeps it in mind: else nobody would delete what went from all of them at the same time.
            .filter(|(_, keys)| !keys.iter().any(|keys| elsewhere.waits_for_earlier(keys.sop)))
            .map(|(name, keys)| (name, keys.iter().filter_map(goes).collect()));
        Self { names: names.collect() }
    }

    /// What of these names goes.
    fn of_names(&self, goes: impl Fn(&Name) -> bool) -> HashSet<InstanceKeys> {
        let names = self.names.iter().filter(|(name, _)| goes(name));
        names.flat_map(|(_, keys)| keys.iter().copied()).collect()
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

/// Whether what is gone from an Orthanc may go here.
#[derive(Debug, PartialEq, Eq)]
enum MayGo {
    /// It is not much.
    WithinBounds,
    /// Somebody has looked.
    Confirmed,
    /// It is too much, and nobody has confirmed so many.
    Refused(RefusedSweep),
}

/// One look at everything that an Orthanc has.
pub(super) struct Sweep<'a> {
    pub orthanc: &'a Pacs,
    pub book: &'a OriginBook,
    /// The names of the others that are followed.
    pub others: &'a [String],
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
        let here = self.reception.holdings(Vanished::instances(&known, &listed)).await?;
        let elsewhere = self.book.elsewhere(self.others).await?;
        let vanished = Vanished::of(&known, &listed, &elsewhere, &here);
        let may_go = self.may_go(&known, &vanished, &here, listed.len()).await?;
        if let MayGo::Refused(refused) = may_go {
            self.book.refuse(Some(&refused)).await?;
            // It was for less, or is too old.
            self.book.confirm(None).await?;
            return Ok(Swept::Refused(refused));
        }
        let gone = self.gone(&vanished).await?;
        let instances = vanished.of_names(|name| gone.contains(name));
        let mut images = 0;
        if !instances.is_empty() {
            let went = self.record(&instances).await?;
            if went > 0 && may_go == MayGo::WithinBounds {
                self.book.let_images_go(went, Timestamp::now()).await?;
            }
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

    /// Whether it may all go.
    async fn may_go(&self, known: &Origins, vanished: &Vanished, here: &Holdings, listed: usize) -> Result<MayGo> {
        let all: HashSet<Key> = known.iter().map(|origin| origin.keys.sop).collect();
        let of = self.reception.held(all).await?;
        let goes = vanished.of_names(|_| true);
        let images = here.images(&goes).len() + here.waiting(&goes);
        let now = Timestamp::now();
        let lately = self.book.gone_lately(now).await?;
        if self.bounds.let_go(images, lately, of, listed) {
            return Ok(MayGo::WithinBounds);
        }
        if let Some(confirmed) = self.book.confirmed().await? {
            let age = Duration::try_from(now.duration_since(confirmed.since)).unwrap_or_default();
            if age < CONFIRMED_AGE_MAX && images <= confirmed.images {
                return Ok(MayGo::Confirmed);
            }
        }
        let since = self.book.refused().await?.map_or(now, |before| before.since);
        Ok(MayGo::Refused(RefusedSweep { images, of, since }))
    }

    /// Puts on record which images are about to go, or to lose a file, and how many files that are no image yet: without that nothing is deleted. Gives how many
    /// both are.
    async fn record(&self, instances: &HashSet<InstanceKeys>) -> Result<usize> {
        let here = self
            .reception
            .holdings(instances.iter().map(|keys| keys.sop).collect())
            .await?;
        let (images, waiting) = (here.images(instances), here.waiting(instances));
        let Some(audit) = self.audit else {
            return Ok(images.len() + waiting);
        };
        let event = || Event {
            action: Action::Delete,
            dicom: EventId::InstancesAccessed,
            ..Event::of_server("followDeletions")
        };
        for some in images.chunks(IMAGES_MAX) {
            let images = some.to_vec();
            audit.append(Event { images, ..event() }).await?;
        }
        if waiting > 0 {
            let count = u64::try_from(waiting).ok();
            audit.append(Event { count, ..event() }).await?;
        }
        Ok(images.len() + waiting)
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
    use crate::domain::{ImageId, Slot};

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

    fn names(of: impl IntoIterator<Item = u8>) -> HashSet<Name> {
        of.into_iter().map(|name| [name; NAME_BYTES]).collect()
    }

    /// Everything that is known was taken, as an image of its own.
    fn all_taken(known: &[Origin]) -> Holdings {
        let images = known.iter().map(|origin| origin.keys).zip(0..);
        Holdings::of_images(images.map(|(keys, number)| (keys, ImageId::new(Slot(number), key(0)))))
    }

    fn vanished_of(
        known: &[Origin],
        listed: &[u8],
        elsewhere: &Elsewhere,
        here: &Holdings,
    ) -> Vec<(u8, Vec<InstanceKeys>)> {
        let known = Origins::from_iter(known.iter().copied());
        let vanished = Vanished::of(&known, &names(listed.iter().copied()), elsewhere, here);
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

    fn vanished(known: &[Origin], listed: &[u8]) -> Vec<(u8, Vec<InstanceKeys>)> {
        vanished_of(known, listed, &Elsewhere::default(), &all_taken(known))
    }

    fn all(sop: u8) -> InstanceKeys {
        InstanceKeys {
            sop: key(sop),
            file: None,
        }
    }

    /// What books of others have, each with whether it comes later.
    fn elsewhere(books: &[(&[u8], bool)]) -> Elsewhere {
        let mut elsewhere = Elsewhere::default();
        for (sops, later) in books {
            let origins = Origins::from_iter(sops.iter().map(|sop| origin(100 + sop, *sop, None)));
            elsewhere.add(&origins, *later);
        }
        elsewhere
    }

    #[test]
    fn what_is_known_and_not_listed_goes() {
        let known = [origin(1, 1, Some(1)), origin(2, 2, Some(2)), origin(3, 3, None)];
        assert_eq!(vanished(&known, &[1, 2, 3, 9]), []);
        assert_eq!(
            vanished(&known, &[1]),
            [(2, vec![all(2)]), (3, vec![all(3)])],
            "every file of an instance that is gone"
        );
    }

    #[test]
    fn an_instance_under_another_name_keeps_the_file_of_that() {
        let known = [origin(1, 7, Some(1)), origin(2, 7, Some(2)), origin(3, 7, None)];
        assert_eq!(vanished(&known, &[2]), [(1, vec![known[0].keys]), (3, vec![])]);
        assert_eq!(vanished(&known, &[1, 3]), [(2, vec![known[1].keys])]);
        // The same file under both: nothing goes.
        let same = [origin(1, 7, Some(1)), origin(2, 7, Some(1))];
        assert_eq!(vanished(&same, &[2]), [(1, vec![])]);
        // Several frames, whose patient was corrected: those of the old file go.
        let frames = [
            origin(1, 7, Some(1)),
            origin(1, 7, Some(2)),
            origin(2, 7, Some(3)),
            origin(2, 7, Some(4)),
        ];
        assert_eq!(vanished(&frames, &[2]), [(1, vec![frames[0].keys, frames[1].keys])]);
    }

    #[test]
    fn what_another_system_has_stays_and_the_last_that_had_it_keeps_it_in_mind() {
        let known = [origin(1, 1, Some(1)), origin(2, 2, Some(2))];
        let here = all_taken(&known);
        // A later one has it: it stays, and is no longer this one's.
        let later = elsewhere(&[(&[2], true), (&[2], false)]);
        assert_eq!(vanished_of(&known, &[1], &later, &here), [(2, vec![])]);
        // Only earlier ones have it: it stays, and stays this one's until they let it go.
        let earlier = elsewhere(&[(&[2], false)]);
        assert_eq!(vanished_of(&known, &[1], &earlier, &here), []);
    }

    #[test]
    fn what_goes_from_two_systems_at_the_same_time_goes_here_whoever_looks_first() {
        let (known, here) = ([origin(1, 1, Some(1))], all_taken(&[origin(1, 1, Some(1))]));
        let both = |has: bool, later: bool| match has {
            true => elsewhere(&[(&[1], later)]),
            false => Elsewhere::default(),
        };
        let goes = vec![(1, vec![all(1)])];
        // At the same time: each sees what the other had. The earlier one lets go, the later one does not, and its next look finds it.
        assert_eq!(vanished_of(&known, &[], &both(true, true), &here), [(1, vec![])]);
        assert_eq!(vanished_of(&known, &[], &both(true, false), &here), []);
        assert_eq!(vanished_of(&known, &[], &both(false, false), &here), goes);
    }

    #[test]
    fn a_file_that_was_refused_takes_nothing_along() {
        let known = [origin(1, 1, Some(1)), origin(2, 2, Some(2)), origin(3, 3, None)];
        // Of the first instance another file is here, of the second its own, that waits.
        let here = Holdings::of_images([(origin(0, 1, Some(9)).keys, ImageId::new(Slot(0), key(0)))]);
        assert_eq!(
            vanished_of(&known, &[], &Elsewhere::default(), &here),
            [(1, vec![]), (2, vec![]), (3, vec![all(3)])],
            "one that was not fetched is taken at its instance's word"
        );
        let here = Holdings::of_waiting([known[1].keys]);
        let found = vanished_of(&known[..2], &[], &Elsewhere::default(), &here);
        assert_eq!(found, [(1, vec![]), (2, vec![all(2)])]);
    }

    #[test]
    fn too_much_at_once_or_in_a_day_does_not_go() {
        let bounds = SweepBounds {
            images_max: 100,
            percent_max: 10,
        };
        assert!(bounds.let_go(10, 0, 100, 90) && bounds.let_go(100, 0, 5000, 1) && bounds.let_go(0, 500, 0, 0));
        assert!(!bounds.let_go(11, 0, 100, 89), "more than a tenth");
        assert!(!bounds.let_go(101, 0, 5000, 4899), "more than a hundred");
        assert!(!bounds.let_go(1, 0, 100, 0), "nothing is left");
        // Nine of a hundred went: of those one more may, not two.
        assert!(bounds.let_go(1, 9, 91, 90) && !bounds.let_go(2, 9, 91, 89));
        assert!(bounds.let_go(40, 60, 5000, 1) && !bounds.let_go(41, 60, 5000, 1));
        let all = SweepBounds {
            images_max: 100,
            percent_max: 100,
        };
        assert!(all.let_go(100, 0, 100, 1) && !all.let_go(100, 0, 100, 0));
    }
}
