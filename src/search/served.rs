//! The archive version that is being served, and how the next one takes its place.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::answer::Overview;
use super::calibrate::Known;
use super::hierarchy::Hierarchy;
use super::holding::Holding;
use super::mapping::{parameters_of, snapshot_input};
use super::model::{LoadModel, Model};
use crate::archive::{Archive, GraphEntry, State};
use crate::cluster::members::STATUS_MAX;
use crate::cluster::peer::ROUTED_FOR;
use crate::domain::{Calibration, ClassLabel, Embedding, ImageId, Key, Metric, Record, VoteMethod};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{Graph, IndexSettings, Snapshot, load_graph};
use crate::telemetry::run_blocking;

/// How often the archive is asked for versions that another process wrote.
const POLL: Duration = Duration::from_millis(1000);
/// Longest pause after versions that could not be loaded.
const POLL_MAX: Duration = Duration::from_secs(30);
/// How long a version is kept after the next one has taken its place: another replica may ask for it.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// How long the version in which searches are answered is kept, while no newer one is held whole by all replicas together: other shards, another metric or another model take long to load.
const ANSWERING_KEPT_FOR: Duration = Duration::from_secs(3600);
/// How long a version is kept once the same version with other shards has taken its place: others ask for what they heard of it for as long as they believe
/// that, and hear it late.
const REPLACED_KEPT_FOR: Duration = ROUTED_FOR
    .saturating_add(STATUS_MAX)
    .saturating_add(Duration::from_secs(1));
/// Most versions that are kept, whatever their age, and most that were replaced.
const KEPT_MAX: usize = 64;

/// Graphs that are read and loaded at a time: meanwhile each is in memory twice.
const GRAPHS_AT_ONCE: usize = 2;

/// Rows whose vectors are read at a time.
const READ_TOGETHER: usize = 4096;

/// One version, loaded: what the archive says and the index over it.
pub struct Version {
    /// Records, tombstones, manifest.
    pub state: Arc<State>,
    /// The searchable form.
    pub snapshot: Snapshot,
    /// What people are told about it.
    pub overview: Overview,
    /// Its shards that are searched here.
    pub held: BTreeSet<u32>,
    /// When it was loaded.
    pub loaded: Instant,
    /// What makes vectors of its space, for whoever asks with images.
    model: Option<Arc<Model>>,
    /// What its votes are worth, or why that is not known.
    calibration: Calibrated,
    /// Made when somebody asks for it first.
    hierarchy: OnceLock<Hierarchy>,
}

/// A calibration with its short name, or why there is none.
type Calibrated = std::result::Result<(String, Arc<Calibration>), &'static str>;

impl Version {
    /// Whether an image has a class that does not vote, since the same pixels stand under another one.
    pub fn label_conflict(&self, record: &Record) -> bool {
        record.class.is_some() && !self.snapshot.votes(record)
    }

    /// Pseudonyms of the files and pixels of an image and of the other copies of its picture: what leaves out these is without the picture.
    pub fn keys_of_copies(&self, record: &Record) -> Vec<Key> {
        let copies = self.snapshot.copies(record.id);
        let others = copies.iter().flat_map(|copies| &copies.images);
        let others = others
            .filter_map(|&id| self.state.record(id))
            .flat_map(|record| record.own_keys());
        record.own_keys().chain(others).collect()
    }

    /// Its studies, series and instances. Blocks while they are put in order, the first time.
    pub fn hierarchy(&self) -> &Hierarchy {
        self.hierarchy.get_or_init(|| Hierarchy::of(&self.state))
    }

    /// What makes vectors of its space.
    ///
    /// # Errors
    /// `Internal` when it was loaded without.
    pub fn model(&self) -> Result<&Arc<Model>> {
        let model = self.model.as_ref();
        model.ok_or_else(|| Error::internal("this version was loaded without its model"))
    }

    /// What its votes are worth, or why that is not known.
    pub fn calibration(&self) -> Known<'_> {
        let known = self.calibration.as_ref();
        known
            .map(|(id, calibration)| (id.as_str(), &**calibration))
            .map_err(|why| *why)
    }

    /// How many neighbors vote, and how, in what it is calibrated for.
    pub fn calibrated_for(&self) -> Option<(usize, VoteMethod)> {
        let (_, calibration) = self.calibration().ok()?;
        Some((calibration.k, calibration.vote))
    }

    /// What a model gave, as this version compares it.
    ///
    /// # Errors
    /// As [`Embedding::from_raw`] and [`Snapshot::compared`].
    pub fn compared(&self, raw: &[f32]) -> Result<Embedding> {
        self.snapshot.compared(self.unit(raw)?)
    }

    /// The unit vector of a row, whatever it is compared by.
    ///
    /// # Errors
    /// As [`Embedding::from_raw`] and [`RowsObject::vector`](crate::archive::RowsObject::vector).
    pub fn unit_at(&self, (object, row): (usize, u32)) -> Result<Embedding> {
        self.unit(&self.state.rows[object].vector(row)?)
    }

    /// Hands out the unit vectors of rows in turn, read together. Blocks while it reads.
    ///
    /// # Errors
    /// As [`Version::unit_at`].
    pub fn each_unit(&self, spots: &[(usize, u32)], mut take: impl FnMut(Embedding)) -> Result<()> {
        let dimension = self.state.manifest.space.dimension;
        for spots in spots.chunks(READ_TOGETHER) {
            for raw in self.state.vectors(spots)?.chunks_exact(dimension) {
                take(self.unit(raw)?);
            }
        }
        Ok(())
    }

    /// What a model gave, at unit length.
    ///
    /// # Errors
    /// As [`Embedding::from_raw`].
    pub fn unit(&self, raw: &[f32]) -> Result<Embedding> {
        Embedding::from_raw(raw, self.state.manifest.space.dimension)
    }
}

/// What was current until lately.
struct Kept {
    version: Arc<Version>,
    /// When it ceased to be.
    ceased: Instant,
    /// By the same version with other shards: it answers those who ask for what it has, and is not spoken of.
    is_replaced: bool,
}

/// The current [`Version`], replaced whole: a search sees one version from beginning to end.
pub struct Served {
    archive: Archive,
    settings: IndexSettings,
    /// None: nobody asks with images.
    load_model: Option<LoadModel>,
    current: ArcSwap<Version>,
    version: watch::Sender<u64>,
    /// What was current until lately, the oldest first.
    kept: Mutex<VecDeque<Kept>>,
    /// The number of the version in which searches are answered.
    answering: AtomicU64,
    /// What is held. Locked while a newer version is loaded, so that one load does not undo another's.
    holding: tokio::sync::Mutex<Holding>,
    /// When the archive last said which version is the newest.
    asked: Mutex<Instant>,
}

impl Served {
    /// Loads what is held of the newest version, and its model.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`; whatever keeps the model from loading.
    pub async fn open(
        archive: Archive,
        settings: IndexSettings,
        holding: Holding,
        load_model: Option<LoadModel>,
    ) -> Result<Arc<Self>> {
        let asked = Mutex::new(Instant::now());
        let state = Arc::new(State::load(&archive).await?);
        let model = match &load_model {
            Some(load) => Some(load(Arc::clone(&state.manifest)).await?),
            None => None,
        };
        let version = Arc::new(index(&archive, state, None, model, &holding, &settings).await?);
        let number = version.number();
        let (sender, _) = watch::channel(number);
        Ok(Arc::new(Self {
            archive,
            settings,
            load_model,
            current: ArcSwap::new(version),
            answering: AtomicU64::new(number),
            version: sender,
            kept: Mutex::default(),
            holding: tokio::sync::Mutex::new(holding),
            asked,
        }))
    }

    /// What answers at this moment.
    pub fn current(&self) -> Arc<Version> {
        self.current.load_full()
    }

    /// The current version and those before it that are kept, the newest first.
    pub fn versions(&self) -> Vec<Arc<Version>> {
        let kept = self.kept();
        let earlier = kept.iter().rev().filter(|kept| !kept.is_replaced);
        let earlier = earlier.map(|kept| Arc::clone(&kept.version));
        std::iter::once(self.current()).chain(earlier).collect()
    }

    /// A version with the most of these shards, of those that it held until lately too; none where there is no such version, or none of the shards.
    pub fn that_holds(&self, version: u64, commit: &str, shards: &BTreeSet<u32>) -> Option<Arc<Version>> {
        let mut known: Vec<Arc<Version>> = {
            let kept = self.kept();
            let kept = kept.iter().rev().map(|kept| Arc::clone(&kept.version));
            std::iter::once(self.current()).chain(kept).collect()
        };
        known.retain(|known| known.number() == version && known.state.manifest.commit == commit);
        let held = |version: &Arc<Version>| version.held.intersection(shards).count();
        // Of equals the first: what is current.
        let best = known.into_iter().rev().max_by_key(held)?;
        (held(&best) > 0).then_some(best)
    }

    /// Time since the archive last said which version is the newest.
    pub fn manifest_age(&self) -> Duration {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Changes when another version is served.
    pub fn follow_versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Waits until at least `min_version` is served.
    ///
    /// # Errors
    /// `VersionAhead` when `deadline` comes first.
    pub async fn at_least(&self, min_version: u64, deadline: Instant) -> Result<()> {
        let mut versions = self.version.subscribe();
        match timeout_at(deadline, versions.wait_for(|&served| served >= min_version)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::new(
                ErrorKind::VersionAhead,
                format!(
                    "version {min_version} is not served here yet, the newest is {}",
                    *self.version.borrow()
                ),
            )),
        }
    }

    /// Follows the archive until `written` closes: at once after a commit of our own, within a second after another's.
    /// A version that can't be loaded is logged and the last good one stays.
    pub async fn follow(self: Arc<Self>, mut written: watch::Receiver<u64>) {
        let mut pause = POLL;
        loop {
            tokio::select! {
                changed = written.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
            let refreshed = self.refresh().await;
            // What fails may have read much first, a model or a shard.
            pause = match &refreshed {
                Ok(()) => POLL,
                Err(_) => (pause * 2).min(POLL_MAX),
            };
            if let Err(error) = refreshed {
                tracing::error!(error = %error, cause = ?std::error::Error::source(&error), "a newer archive version could not be loaded; still serving the last good one");
            }
        }
    }

    /// Says in which version searches are answered, which is not forgotten while that is so.
    pub fn keep(&self, answering: u64) {
        self.answering.store(answering, Ordering::Relaxed);
    }

    /// Loads what is new, if anything is.
    pub async fn refresh(&self) -> Result<()> {
        let mut holding = self.holding.lock().await;
        self.forget_old();
        let current = self.current();
        let asked = Instant::now();
        let newer = self.archive.after(current.state.manifest.version).await?;
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        let Some(manifest) = newer else {
            return Ok(());
        };
        let next_holding = holding.after(&current.state.manifest.shards, &manifest.shards);
        let model = match &self.load_model {
            Some(load) if manifest.space != current.state.manifest.space => Some(load(Arc::clone(&manifest)).await?),
            _ => current.model.clone(),
        };
        let state = Arc::new(current.state.advance(&self.archive, manifest).await?);
        let next = index(
            &self.archive,
            state,
            Some(current),
            model,
            &next_holding,
            &self.settings,
        )
        .await?;
        *holding = next_holding;
        self.replace(Arc::new(next));
        Ok(())
    }

    /// Holds other shards from now on: what is new is loaded, then what is not held any more is let go.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`: what was held stays.
    pub async fn hold(&self, wanted: Holding) -> Result<()> {
        if *self.holding.lock().await == wanted {
            return Ok(());
        }
        let load = async |version: &Version, previous| {
            let (state, model) = (Arc::clone(&version.state), version.model.clone());
            index(&self.archive, state, Some(previous), model, &wanted, &self.settings)
                .await
                .map(Arc::new)
        };
        // A large shard takes long, and newer versions are taken over meanwhile.
        let before = self.current();
        let built = load(&before, Arc::clone(&before)).await?;
        let mut holding = self.holding.lock().await;
        let now = self.current();
        if before.state.manifest.shards != now.state.manifest.shards {
            let message = "the archive was cut into other shards meanwhile";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let next = match Arc::ptr_eq(&now, &before) {
            true => built,
            // Overtaken: what the newer version has beside that is little.
            false => load(&now, built).await?,
        };
        *holding = wanted;
        self.replace(next);
        Ok(())
    }

    fn replace(&self, next: Arc<Version>) {
        let version = next.state.manifest.version;
        {
            // Whoever looks sees it either here or there.
            let mut kept = self.kept();
            let before = self.current.swap(next);
            kept.push_back(Kept {
                is_replaced: before.state.manifest.version == version,
                ceased: Instant::now(),
                version: before,
            });
        }
        self.forget_old();
        self.version.send_replace(version);
    }

    /// Shards that are not held any more, and are in memory for those who may not have heard of that.
    pub fn given_up(&self) -> BTreeSet<u32> {
        self.forget_old();
        let (kept, current) = (self.kept(), self.current());
        let cut = &current.state.manifest.shards;
        let replaced = kept.iter().filter(|kept| kept.is_replaced).map(|kept| &kept.version);
        let replaced = replaced.filter(|version| version.state.manifest.shards == *cut);
        let shards = replaced.flat_map(|version| version.held.difference(&current.held));
        shards.copied().collect()
    }

    /// Lets go what is kept no longer.
    pub fn forget_old(&self) {
        let answering = self.answering.load(Ordering::Relaxed);
        let forgotten = {
            let mut kept = self.kept();
            let mut surplus = [false, true].map(|is_replaced| {
                let of_kind = kept.iter().filter(|kept| kept.is_replaced == is_replaced);
                of_kind.count().saturating_sub(KEPT_MAX)
            });
            let stays = |old: &Kept| {
                let surplus = &mut surplus[usize::from(old.is_replaced)];
                let kept_for = match old.is_replaced {
                    false if old.version.number() == answering => ANSWERING_KEPT_FOR,
                    _ if *surplus > 0 => Duration::ZERO,
                    true => REPLACED_KEPT_FOR,
                    false => KEPT_FOR,
                };
                let stays = old.ceased.elapsed() <= kept_for;
                *surplus -= usize::from(!stays && *surplus > 0);
                stays
            };
            let (stay, forgotten): (VecDeque<Kept>, VecDeque<Kept>) = kept.drain(..).partition(stays);
            *kept = stay;
            forgotten
        };
        // To give gigabytes back takes long: outside of the lock, which every search takes.
        drop(forgotten);
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Version {
    /// The newest version of an archive with the vectors as the model gives them: for whoever measures or learns, not for searches. It needs neither
    /// the metric nor graphs, which may be damaged.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    pub async fn as_embedded(archive: &Archive) -> Result<Self> {
        let state = Arc::new(State::load(archive).await?);
        let calibration = Err("nothing learned is in use");
        build(
            state,
            None,
            calibration,
            vec![],
            None,
            Holding::All,
            IndexSettings::default(),
        )
        .await
    }
}

/// Builds the searchable form of what is held, reusing every segment and graph that the previous version has already.
async fn index(
    archive: &Archive,
    state: Arc<State>,
    previous: Option<Arc<Version>>,
    model: Option<Arc<Model>>,
    holding: &Holding,
    settings: &IndexSettings,
) -> Result<Version> {
    let metric = match &state.manifest.metric {
        Some(entry) => Some(archive.read_metric(entry).await.map_err(|error| {
            let way_out = "`medsearch fit` makes another, `medsearch fit --remove` goes on without";
            error.context(format!("the learned metric can't be read ({way_out})"))
        })?),
        None => None,
    };
    let calibration = calibration(archive, &state, previous.as_deref()).await?;
    let dimension = match &metric {
        Some(metric) => metric.components(),
        None => state.manifest.space.dimension,
    };
    let held = state.manifest.graphs.iter().filter(|entry| holding.has(entry.shard));
    let graphs: Vec<_> = held
        .map(|entry| async {
            let tried = previous.as_ref().is_some_and(|version| {
                version.snapshot.has_graph(&entry.object) || version.snapshot.lost_graphs().contains(&entry.object)
            });
            let graph = match tried {
                true => None,
                false => graph(archive, entry, dimension, settings).await,
            };
            (entry.clone(), graph)
        })
        .collect();
    let graphs: Vec<_> = stream::iter(graphs).buffered(GRAPHS_AT_ONCE).collect().await;
    let (holding, settings) = (holding.clone(), settings.clone());
    let version = build(state, metric, calibration, graphs, previous, holding, settings).await?;
    Ok(Version { model, ..version })
}

/// A calibration adds to an answer: a damaged one costs that, not the answer. One that can't be read now is waited for, like a metric: nothing would
/// ask for it again before the next write.
async fn calibration(archive: &Archive, state: &State, previous: Option<&Version>) -> Result<Calibrated> {
    let Some(entry) = &state.manifest.calibration else {
        return Ok(Err("this archive has no calibration"));
    };
    // What could not be read is tried again.
    if let Some(previous) = previous
        && previous.state.manifest.calibration.as_ref() == Some(entry)
        && previous.calibration.is_ok()
    {
        return Ok(previous.calibration.clone());
    }
    match archive.read_calibration(entry).await {
        Ok(calibration) => Ok(Ok((entry.id().to_owned(), Arc::new(calibration)))),
        Err(error) if error.kind() == ErrorKind::Unavailable => Err(error),
        Err(error) => {
            tracing::error!(error = %error, "the calibration can't be read, answers are without confidence; `medsearch fit` makes another");
            Ok(Err("the archive's calibration can't be read"))
        }
    }
}

async fn build(
    state: Arc<State>,
    metric: Option<Arc<Metric>>,
    calibration: Calibrated,
    graphs: Vec<(GraphEntry, Option<Arc<Graph>>)>,
    previous: Option<Arc<Version>>,
    holding: Holding,
    settings: IndexSettings,
) -> Result<Version> {
    run_blocking(move || {
        let previous = previous.as_ref().map(|version| &version.snapshot);
        let input = snapshot_input(&state, &holding, metric, graphs, previous);
        let snapshot = Snapshot::build(&input, previous, &settings)?;
        let overview = overview(&state, &snapshot, &calibration);
        Ok(Version {
            held: holding.of(&state.manifest),
            loaded: Instant::now(),
            model: None,
            state,
            snapshot,
            overview,
            calibration,
            hierarchy: OnceLock::new(),
        })
    })
    .await
}

/// A graph is a cache: one that can't be read or loaded costs time, not the answer.
async fn graph(
    archive: &Archive,
    entry: &GraphEntry,
    dimension: usize,
    settings: &IndexSettings,
) -> Option<Arc<Graph>> {
    let read = archive.read_graph(entry).await;
    let bytes = read
        .inspect_err(|error| {
            tracing::error!(error = %error, "a graph can't be read, its class is scanned until the archive is compacted");
        })
        .ok()?;
    let (name, parameters, settings) = (entry.object.clone(), parameters_of(entry), settings.clone());
    let loaded = run_blocking(move || load_graph(&name, &bytes, dimension, &parameters, &settings)).await;
    let loaded = loaded.inspect_err(|error| {
        tracing::error!(error = %error, "a graph is left out, its class is scanned until the archive is compacted");
    });
    loaded.ok().map(Arc::new)
}

/// Sample queries that a demo archive offers.
const SAMPLES: usize = 6;

fn overview(state: &State, snapshot: &Snapshot, calibration: &Calibrated) -> Overview {
    let manifest = &state.manifest;
    let calibration = calibration
        .as_ref()
        .ok()
        .map(|(_, calibration)| Arc::clone(calibration));
    let classes: Vec<(ClassLabel, usize)> = snapshot
        .classes()
        .iter()
        .map(|(class, images)| (class.clone(), *images))
        .collect();
    Overview {
        name: manifest.archive.name.clone(),
        version: manifest.version,
        images: snapshot.images(),
        labelled: classes.iter().map(|(_, images)| images).sum(),
        conflicts: snapshot.conflicts(),
        near_identical: snapshot.pictures().images(),
        lost_graphs: snapshot.lost_graphs().len(),
        sources: snapshot.sources().keys().cloned().collect(),
        space: manifest.space.clone(),
        metric: manifest.metric.clone(),
        calibration: manifest.calibration.clone().map(|entry| (entry, calibration)),
        demo: manifest.archive.demo,
        synthetic: manifest.archive.synthetic,
        licence: manifest.archive.licence.clone(),
        scope: serde_json::to_value(&manifest.archive.scope).unwrap_or_default(),
        retention: manifest.archive.retention.to_string(),
        identity: manifest.archive.identity.to_string(),
        created_at: manifest.archive.created_at.clone(),
        samples: if manifest.archive.demo {
            samples(state, &classes)
        } else {
            vec![]
        },
        classes,
    }
}

/// The first images of each class in turn: always the same ones for one version.
fn samples(state: &State, classes: &[(ClassLabel, usize)]) -> Vec<(ImageId, ClassLabel)> {
    let mut of_class: BTreeMap<&ClassLabel, Vec<ImageId>> = classes.iter().map(|(class, _)| (class, vec![])).collect();
    for record in state.live().map(|spot| state.at(spot)) {
        if let Some(ids) = record.class.as_ref().and_then(|class| of_class.get_mut(class))
            && ids.len() < SAMPLES
        {
            ids.push(record.id);
        }
    }
    let turns = (0..SAMPLES).flat_map(|turn| of_class.iter().map(move |(class, ids)| (*class, ids.get(turn))));
    turns
        .filter_map(|(class, id)| Some((*id?, class.clone())))
        .take(SAMPLES)
        .collect()
}
