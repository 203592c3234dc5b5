//! One version of the archive, ready to be searched. Immutable; the next version shares what did not change.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use rayon::prelude::*;

use super::hnsw::Graph;
use super::top::TopGroups;
use super::{
    Bitmap, GraphParameters, IndexSettings, Joined, Leg, Pictures, Scope, Segment, SegmentInput, Sieve, Step, exact,
    wrong_dimension,
};
use crate::domain::{
    Ask, ClassLabel, Copies, Embedding, Group, Hit, ImageId, Key, Metric, OnePer, PathTaken, PatientKeys, Query,
    Ranking, Record,
};
use crate::error::{Error, ErrorKind, Result};

/// What a snapshot is built from.
#[derive(Debug)]
pub struct SnapshotInput {
    /// Version of the archive.
    pub version: u64,
    /// Components of a vector.
    pub dimension: usize,
    /// What vectors are compared by; none: their cosine.
    pub metric: Option<Arc<Metric>>,
    /// Classes the archive knows, also those without an image at the moment.
    pub classes: Vec<ClassLabel>,
    /// Rows objects with their deleted rows. One that the previous snapshot has may come without its records, and without vectors if it was searched.
    pub segments: Vec<(Arc<SegmentInput>, Vec<u32>)>,
    /// Their graphs.
    pub graphs: Vec<GraphInput>,
}

/// The graph of one class of one segment.
#[derive(Debug)]
pub struct GraphInput {
    /// Name of the graph object: equal names mean equal content.
    pub name: String,
    /// Name of the rows object whose rows it holds.
    pub segment: String,
    /// Their class.
    pub class: ClassLabel,
    /// How it was built and is walked.
    pub parameters: GraphParameters,
    /// What there is of it; `None`: the previous snapshot has it loaded (see [`Snapshot::has_graph`]), or it can't be read.
    pub given: Option<GivenGraph>,
}

/// A graph as it was stored, or ready to be walked.
#[derive(Debug, Clone)]
pub enum GivenGraph {
    /// Its bytes, checksum verified.
    Stored(Bytes),
    /// Loaded: whoever did need not keep the bytes of all until the last is there.
    Loaded(Arc<Graph>),
}

/// One version of the archive.
#[derive(Debug)]
pub struct Snapshot {
    version: u64,
    dimension: usize,
    metric: Option<Arc<Metric>>,
    settings: IndexSettings,
    known_classes: BTreeSet<ClassLabel>,
    segments: Vec<LiveSegment>,
    graphs: HashMap<String, Arc<Graph>>,
    /// Graphs that could not be read or loaded.
    lost_graphs: BTreeSet<String>,
    images: usize,
    classes: BTreeMap<ClassLabel, usize>,
    voting: BTreeMap<ClassLabel, usize>,
    sources: BTreeMap<String, usize>,
    /// Pixels that several images have.
    shared: HashSet<Key>,
    pictures: Pictures,
    conflicting: usize,
}

/// A segment with what is deleted in this version.
#[derive(Debug)]
struct LiveSegment {
    segment: Segment,
    live: Bitmap,
    /// Live rows of each list.
    live_rows: Vec<usize>,
    /// Graph of each list.
    graphs: Vec<Option<Arc<Graph>>>,
}

impl Snapshot {
    /// Builds a version. Segments and graphs that `previous` has under the same names are shared with it, if it is by the same metric. A graph that is not what it should be
    /// is left out.
    ///
    /// # Errors
    /// `Damaged` when a rows object is not what it should be or a deleted row doesn't exist; `WrongDimension`.
    pub fn build(input: &SnapshotInput, previous: Option<&Self>, settings: &IndexSettings) -> Result<Self> {
        let previous = previous.filter(|previous| previous.is_by(input.metric.as_ref()));
        let metric = input.metric.as_deref();
        let dimension = metric.map_or(input.dimension, Metric::components);
        let mut segments = Vec::with_capacity(input.segments.len());
        for (rows, tombstones) in &input.segments {
            let held = previous.and_then(|snapshot| snapshot.segment(&rows.name));
            let segment = match held {
                Some(held) => held.segment.again(rows, metric)?,
                None => Segment::new(rows, metric)?,
            };
            if let Some(matrix) = segment.matrix().filter(|matrix| matrix.dimension() != dimension) {
                return Err(wrong_dimension(matrix.dimension(), dimension));
            }
            segments.push(LiveSegment::new(segment, tombstones)?);
        }
        let (mut graphs, mut lost_graphs) = (HashMap::with_capacity(input.graphs.len()), BTreeSet::new());
        for graph in &input.graphs {
            let held = previous.and_then(|snapshot| snapshot.graphs.get(&graph.name));
            let loaded = match (held, &graph.given) {
                (Some(held), _) => Ok(held.clone()),
                (None, Some(GivenGraph::Loaded(loaded))) if loaded.dimension() == dimension => Ok(loaded.clone()),
                (None, Some(GivenGraph::Loaded(loaded))) => Err(wrong_dimension(loaded.dimension(), dimension)),
                (None, Some(GivenGraph::Stored(bytes))) => {
                    load_graph(&graph.name, bytes, dimension, &graph.parameters, settings).map(Arc::new)
                }
                (None, None) => {
                    lost_graphs.insert(graph.name.clone());
                    continue;
                }
            };
            match loaded.and_then(|loaded| attach(&mut segments, graph, &loaded).map(|()| loaded)) {
                Ok(loaded) => {
                    graphs.insert(graph.name.clone(), loaded);
                }
                // A graph is a cache: without it the class is scanned, and the answer is as good.
                Err(error) => {
                    tracing::error!(error = %error, "a graph is left out, its class is scanned until the archive is compacted");
                    lost_graphs.insert(graph.name.clone());
                }
            }
        }
        let shared = shared_pixels(&segments, previous);
        let pictures = Pictures::of(linked_or_shared(&segments, &shared).values().copied());
        let mut snapshot = Self {
            version: input.version,
            dimension,
            metric: input.metric.clone(),
            settings: settings.clone(),
            known_classes: input.classes.iter().cloned().collect(),
            segments,
            graphs,
            lost_graphs,
            images: 0,
            classes: BTreeMap::new(),
            voting: BTreeMap::new(),
            sources: BTreeMap::new(),
            shared,
            pictures,
            conflicting: 0,
        };
        snapshot.count();
        Ok(snapshot)
    }

    /// Version of the archive.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Components of a vector as it is compared.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Whether it compares by this metric.
    pub fn is_by(&self, metric: Option<&Arc<Metric>>) -> bool {
        match (&self.metric, metric) {
            (None, None) => true,
            (Some(own), Some(other)) => Arc::ptr_eq(own, other) || own == other,
            _ => false,
        }
    }

    /// What it compares by besides the model; absent: nothing.
    pub fn metric(&self) -> Option<&Metric> {
        self.metric.as_deref()
    }

    /// A query's vector as this version compares it.
    ///
    /// # Errors
    /// `WrongDimension`; `InvalidRequest` for a vector of which the metric leaves nothing.
    pub fn compared(&self, query: Embedding) -> Result<Embedding> {
        match &self.metric {
            Some(metric) => metric.of_query(&query),
            None => Ok(query),
        }
    }

    /// The settings it was built with.
    pub fn settings(&self) -> &IndexSettings {
        &self.settings
    }

    /// Images, labelled or not.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Images per class; only classes that have one.
    pub fn classes(&self) -> &BTreeMap<ClassLabel, usize> {
        &self.classes
    }

    /// Images per class whose label votes; only classes that have one.
    pub fn voting(&self) -> &BTreeMap<ClassLabel, usize> {
        &self.voting
    }

    /// Images per source.
    pub fn sources(&self) -> &BTreeMap<String, usize> {
        &self.sources
    }

    /// Labelled images whose label doesn't vote because it is in dispute.
    pub fn conflicts(&self) -> usize {
        self.conflicting
    }

    /// Whether the label of this record takes part in votes: it has one and no dispute, neither its own nor with another copy of its
    /// picture.
    pub fn votes(&self, record: &Record) -> bool {
        record.votes() && self.copies(record.id).is_none_or(|copies| !copies.label_conflict)
    }

    /// The copies of an image's picture, itself among them, if there is another.
    pub fn copies(&self, id: ImageId) -> Option<&Arc<Copies>> {
        self.pictures.copies(id)
    }

    /// Who an image stands for.
    pub fn group(&self, record: &Record, one_per: OnePer) -> Group {
        self.pictures.group(record, one_per)
    }

    /// An image that was found, with what this version knows of it.
    pub fn hit(&self, record: Arc<Record>, similarity: f32, one_per: OnePer) -> Hit {
        Hit {
            similarity,
            votes: self.votes(&record),
            group: self.group(&record, one_per),
            copies: self.copies(record.id).cloned(),
            record,
        }
    }

    /// The pictures that are there more than once.
    pub fn pictures(&self) -> &Pictures {
        &self.pictures
    }

    /// Whether the rows of this object are known: the next snapshot doesn't look at the input's records then.
    pub fn has_segment(&self, name: &str) -> bool {
        self.segment(name).is_some()
    }

    /// Whether they are searched too: it doesn't look at the input's vectors either.
    pub fn searches(&self, name: &str) -> bool {
        self.segment(name).is_some_and(|live| live.segment.matrix().is_some())
    }

    /// Whether a graph of this name is loaded, so that the next snapshot needs no bytes for it.
    pub fn has_graph(&self, name: &str) -> bool {
        self.graphs.contains_key(name)
    }

    /// Graphs that the version names and that can't be used.
    pub fn lost_graphs(&self) -> &BTreeSet<String> {
        &self.lost_graphs
    }

    /// The graphs in use, with the class that each holds.
    pub fn graphs(&self) -> impl Iterator<Item = (&ClassLabel, &Graph)> {
        self.segments.iter().flat_map(|live| {
            let with_class = live.segment.lists().iter().zip(&live.graphs);
            with_class.filter_map(|(list, graph)| Some((list.class.as_ref()?, graph.as_deref()?)))
        })
    }

    /// Whether this can be asked here.
    ///
    /// # Errors
    /// `WrongDimension`; `UnknownClass` when a filter names a class that the archive doesn't have.
    pub fn check(&self, query: &Query, ask: &Ask) -> Result<()> {
        if query.embedding.dimension() != self.dimension {
            return Err(wrong_dimension(query.embedding.dimension(), self.dimension));
        }
        let unknown = |class: &&ClassLabel| !self.known_classes.contains(class) && !self.classes.contains_key(class);
        match ask.classes.iter().flatten().find(unknown) {
            Some(class) => Err(Error::new(ErrorKind::UnknownClass, format!("unknown class `{class}`"))),
            None => Ok(()),
        }
    }

    /// Who of those that are searched here may be returned to this query.
    ///
    /// # Errors
    /// As [`Snapshot::check`].
    pub fn scope(&self, query: &Query, ask: &Ask) -> Result<Scope> {
        self.check(query, ask)?;
        let (mut legs, mut all_allowed) = (Vec::new(), Vec::with_capacity(self.segments.len()));
        let joined = self.joined(query, ask);
        for (at, live) in self.segments.iter().enumerate() {
            if live.segment.matrix().is_none() {
                all_allowed.push(Bitmap::full(0));
                continue;
            }
            let (allowed, selected) = live.allowed(query, ask, &joined);
            for (list, rows) in live.segment.lists().iter().enumerate() {
                let wanted = match (&ask.classes, &rows.class) {
                    (None, _) => true,
                    (Some(classes), Some(class)) => classes.contains(class),
                    (Some(_), None) => false,
                };
                if wanted && live.live_rows[list] > 0 {
                    let graph_rows = live.graphs[list].as_ref().map_or(0, |graph| graph.rows());
                    let class = rows.class.clone();
                    legs.push(Leg {
                        class,
                        shard: live.segment.shard(),
                        graph_rows,
                        selected: selected[list],
                        segment: at,
                        list,
                    });
                }
            }
            all_allowed.push(allowed);
        }
        Ok(Scope {
            legs,
            allowed: all_allowed.into(),
        })
    }

    /// Who stands together, because of copies, with an image that is left out for its patient or study: one film under two names is one patient's.
    fn joined(&self, query: &Query, ask: &Ask) -> Vec<&Joined> {
        let mut joined = BTreeMap::new();
        for live in &self.segments {
            for row in live.of_patient(query, ask).filter(|&row| live.live.contains(row)) {
                joined.extend(self.pictures.joined(live.segment.record(row)));
            }
        }
        joined.into_values().collect()
    }

    /// Goes through the legs of a scope, each as its step says: the best `k` groups of all of them, as `one_per` says what these are, and the best hit
    /// of each class.
    ///
    /// # Errors
    /// `Internal` when there is not one step a leg; `Unavailable` when memory runs out.
    pub fn search(&self, query: &Query, k: usize, one_per: OnePer, scope: &Scope, steps: &[Step]) -> Result<Ranking> {
        if steps.len() != scope.legs.len() || scope.allowed.len() != self.segments.len() {
            return Err(Error::internal(format!(
                "`{}` steps for `{}` legs",
                steps.len(),
                scope.legs.len()
            )));
        }
        let walk = Passage {
            snapshot: self,
            query: &query.embedding,
            k,
            one_per,
            scope,
        };
        let mut ranking = Ranking {
            eligible: scope.eligible(),
            ..Ranking::default()
        };
        let mut top = TopGroups::new(k);
        let mut nearest: BTreeMap<&ClassLabel, TopGroups> = BTreeMap::new();
        for (leg, step) in scope.legs.iter().zip(steps) {
            let found = walk.leg(leg, *step)?;
            ranking.distance_evaluations += found.evaluations;
            if let Some(class) = &leg.class {
                let path = ranking.path.entry(class.clone()).or_insert(found.path);
                if found.path == PathTaken::Hnsw {
                    *path = PathTaken::Hnsw;
                }
                let best = nearest.entry(class).or_insert_with(|| TopGroups::new(1));
                found.best.into_hits().into_iter().for_each(|hit| best.offer(hit));
            }
            found.top.into_hits().into_iter().for_each(|hit| top.offer(hit));
        }
        ranking.hits = top.into_hits();
        ranking.nearest_per_class = nearest.into_values().flat_map(TopGroups::into_hits).collect();
        ranking.nearest_per_class.sort_by(Hit::order);
        Ok(ranking)
    }

    fn segment(&self, name: &str) -> Option<&LiveSegment> {
        self.segments.iter().find(|live| live.segment.name() == name)
    }

    fn count(&mut self) {
        let mut disputed_of: BTreeMap<ClassLabel, usize> = BTreeMap::new();
        for live in &self.segments {
            let segment = &live.segment;
            for (list, &rows) in segment.lists().iter().zip(&live.live_rows) {
                self.images += rows;
                if let Some(class) = list.class.as_ref().filter(|_| rows > 0) {
                    *self.classes.entry(class.clone()).or_default() += rows;
                }
            }
            let mut per_source = vec![0; segment.sources().len()];
            live.live.iter().for_each(|row| per_source[segment.source_of(row)] += 1);
            for (source, rows) in segment.sources().iter().zip(per_source) {
                if let Some(source) = source.as_ref().filter(|_| rows > 0) {
                    *self.sources.entry(source.clone()).or_default() += rows;
                }
            }
            let disputed = segment.disputed().iter().copied();
            let by_copies = self.pictures.disputed().iter();
            let by_copies = by_copies.flat_map(|&id| segment.images().rows(id));
            let conflicting: BTreeSet<u32> = disputed
                .chain(by_copies)
                .filter(|&row| live.live.contains(row))
                .collect();
            for row in conflicting {
                let Some(class) = &segment.record(row).class else {
                    continue;
                };
                self.conflicting += 1;
                *disputed_of.entry(class.clone()).or_default() += 1;
            }
        }
        self.voting = self.classes.clone();
        for (class, disputed) in disputed_of {
            if let Some(voting) = self.voting.get_mut(&class) {
                *voting -= disputed.min(*voting);
            }
        }
        self.voting.retain(|_, voting| *voting > 0);
    }
}

impl LiveSegment {
    fn new(segment: Segment, tombstones: &[u32]) -> Result<Self> {
        let mut live = Bitmap::full(segment.rows());
        let mut live_rows: Vec<usize> = segment.lists().iter().map(|list| list.rows.len()).collect();
        for &row in tombstones {
            if row as usize >= segment.rows() {
                let name = segment.name();
                return Err(Error::new(
                    ErrorKind::Damaged,
                    format!("rows object `{name}`: no row `{row}` to delete"),
                ));
            }
            if live.remove(row) {
                live_rows[segment.list_of(row)] -= 1;
            }
        }
        let graphs = vec![None; live_rows.len()];
        Ok(Self {
            segment,
            live,
            live_rows,
            graphs,
        })
    }

    /// Rows of the patient and of the study that are left out.
    fn of_patient<'a>(&'a self, query: &'a Query, ask: &'a Ask) -> impl Iterator<Item = u32> + 'a {
        let segment = &self.segment;
        let patients = query.patients.iter().filter(|_| ask.exclude.patient);
        let patients = patients.flat_map(move |&patient| {
            let same = move |row: &u32| PatientKeys::of(segment.record(*row)).is_some_and(|own| own.may_be(patient));
            segment.patients().rows(patient.id).filter(same)
        });
        let studies = query.studies.iter().filter(|_| ask.exclude.study);
        patients.chain(studies.flat_map(move |&study| segment.studies().rows(study)))
    }

    /// The rows that may be returned, and how many they are in each list.
    fn allowed(&self, query: &Query, ask: &Ask, joined: &[&Joined]) -> (Bitmap, Vec<usize>) {
        let segment = &self.segment;
        let (mut allowed, mut selected) = (self.live.clone(), self.live_rows.clone());
        let mut exclude = |row: u32| {
            if allowed.remove(row) {
                selected[segment.list_of(row)] -= 1;
            }
        };
        self.of_patient(query, ask).for_each(&mut exclude);
        for joined in joined {
            let images = joined.images.iter().flat_map(|&id| segment.images().rows(id));
            let patients = joined.patients.iter().flat_map(|keys| {
                let own = |row: &u32| segment.record(*row).patient == Some(keys.patient);
                segment.patients().rows(keys.id).filter(own)
            });
            images.chain(patients).for_each(&mut exclude);
        }
        for &key in query.same_pixels.iter().filter(|_| ask.exclude.pixels) {
            segment
                .files()
                .rows(key)
                .chain(segment.pixels().rows(key))
                .for_each(&mut exclude);
        }
        let wanted = |source: &Option<String>| match source {
            None => ask.sources.is_none(),
            Some(source) => {
                ask.sources.as_ref().is_none_or(|only| only.contains(source)) && !ask.exclude_sources.contains(source)
            }
        };
        let keep: Vec<bool> = segment.sources().iter().map(wanted).collect();
        if keep.contains(&false) {
            (0..segment.rows() as u32)
                .filter(|&row| !keep[segment.source_of(row)])
                .for_each(&mut exclude);
        }
        (allowed, selected)
    }
}

/// One query on its way through the legs.
struct Passage<'a> {
    snapshot: &'a Snapshot,
    query: &'a Embedding,
    k: usize,
    one_per: OnePer,
    scope: &'a Scope,
}

/// What one leg gave.
struct Found {
    top: TopGroups,
    best: TopGroups,
    path: PathTaken,
    evaluations: u64,
}

/// A thread that helps gets at least so many rows: fewer are scanned faster than handed over.
const SHARED_ROWS_MIN: usize = 4096;

impl Passage<'_> {
    fn leg(&self, leg: &Leg, step: Step) -> Result<Found> {
        let graph = self.snapshot.segments[leg.segment].graphs[leg.list].as_deref();
        match (step, graph) {
            (Step::Exact, _) | (_, None) => Ok(self.scan(leg)),
            (Step::Graph { ask }, Some(graph)) => self.walk(leg, graph, ask, None),
            (Step::GraphFiltered { ask }, Some(graph)) => {
                self.walk(leg, graph, ask, Some(&self.scope.allowed[leg.segment]))
            }
        }
    }

    /// Asks the graph for more and more rows until they are of `k` groups; near the end a scan is cheaper.
    fn walk(&self, leg: &Leg, graph: &Graph, mut ask: usize, allowed: Option<&Bitmap>) -> Result<Found> {
        let mut evaluations = 0;
        loop {
            let walk = graph.search(self.query, ask, allowed)?;
            let mut found = self.offer_all(leg, &walk.rows);
            evaluations += walk.evaluations + found.evaluations;
            found.path = PathTaken::Hnsw;
            found.evaluations = evaluations;
            let all = allowed.map_or(graph.rows(), |_| leg.selected);
            if found.top.len() >= self.k.min(leg.selected) || walk.rows.len() >= all {
                return Ok(found);
            }
            ask = ask.saturating_mul(2);
            // A walk compares the query with roughly ten rows for each that it returns, at several times the price of a scanned row. And one that
            // ends early has met rows that no edge leads to.
            if walk.exhausted || ask.saturating_mul(32) >= leg.selected {
                let mut found = self.scan(leg);
                found.path = PathTaken::Hnsw;
                found.evaluations += evaluations;
                return Ok(found);
            }
        }
    }

    fn scan(&self, leg: &Leg) -> Found {
        let rows = &self.snapshot.segments[leg.segment].segment.lists()[leg.list].rows;
        let threads = self
            .snapshot
            .settings
            .scan_threads
            .clamp(1, (leg.selected / SHARED_ROWS_MIN).max(1));
        if leg.selected == 0 {
            return Found::none(self.k);
        }
        if threads == 1 {
            return self.offer_all(leg, rows);
        }
        let pieces = rows.par_chunks(rows.len().div_ceil(threads));
        pieces
            .map(|piece| self.offer_all(leg, piece))
            .reduce(|| Found::none(self.k), Found::join)
    }

    fn offer_all(&self, leg: &Leg, rows: &[u32]) -> Found {
        let segment = &self.snapshot.segments[leg.segment].segment;
        let Some(matrix) = segment.matrix() else {
            return Found::none(self.k);
        };
        let allowed = &self.scope.allowed[leg.segment];
        let rows = rows.iter().copied().filter(|&row| allowed.contains(row));
        let slots = rows.map(|row| segment.slot_of(row));
        let mut finder = Finder {
            snapshot: self.snapshot,
            one_per: self.one_per,
            segment,
            found: Found::none(self.k),
        };
        let evaluations = exact::scan(self.query.as_slice(), matrix, slots, &mut finder);
        Found {
            evaluations,
            ..finder.found
        }
    }
}

/// Makes hits of the rows of a segment that a scan comes across.
struct Finder<'a> {
    snapshot: &'a Snapshot,
    one_per: OnePer,
    segment: &'a Segment,
    found: Found,
}

impl Sieve for Finder<'_> {
    fn welcomes(&self, similarity: f32) -> bool {
        self.found.top.welcomes(similarity) || self.found.best.welcomes(similarity)
    }

    fn offer(&mut self, slot: u32, similarity: f32) {
        if !self.welcomes(similarity) {
            return;
        }
        let record = self.segment.record(self.segment.row_at(slot)).clone();
        let hit = self.snapshot.hit(record, similarity, self.one_per);
        self.found.best.offer(hit.clone());
        self.found.top.offer(hit);
    }
}

impl Found {
    fn none(k: usize) -> Self {
        Self {
            top: TopGroups::new(k),
            best: TopGroups::new(1),
            path: PathTaken::Exact,
            evaluations: 0,
        }
    }

    fn join(mut self, other: Self) -> Self {
        other.top.into_hits().into_iter().for_each(|hit| self.top.offer(hit));
        other.best.into_hits().into_iter().for_each(|hit| self.best.offer(hit));
        self.evaluations += other.evaluations;
        self
    }
}

/// Makes a stored graph, of vectors as they are compared, ready to be walked.
///
/// # Errors
/// As [`Graph::load`].
pub fn load_graph(
    name: &str,
    bytes: &[u8],
    dimension: usize,
    parameters: &GraphParameters,
    settings: &IndexSettings,
) -> Result<Graph> {
    let graph = Graph::load(bytes, dimension, parameters, settings.search_threads)
        .map_err(|error| error.context(format!("graph object `{name}`")))?;
    tracing::debug!(
        rows = graph.rows(),
        stragglers = graph.stragglers(),
        instructions = graph.hardware_acceleration(),
        "graph loaded"
    );
    Ok(graph)
}

fn attach(segments: &mut [LiveSegment], input: &GraphInput, graph: &Arc<Graph>) -> Result<()> {
    let damaged = |why: String| Error::new(ErrorKind::Damaged, format!("graph object `{}`: {why}", input.name));
    let live = segments.iter_mut().find(|live| live.segment.name() == input.segment);
    let live = live.ok_or_else(|| damaged(format!("no rows object `{}`", input.segment)))?;
    let list = live
        .segment
        .lists()
        .iter()
        .position(|list| list.class.as_ref() == Some(&input.class));
    let list = list.ok_or_else(|| damaged(format!("no class `{}` in `{}`", input.class, input.segment)))?;
    let rows = live.segment.lists()[list].rows.len();
    if graph.rows() != rows {
        return Err(damaged(format!("`{}` rows instead of `{rows}`", graph.rows())));
    }
    live.graphs[list] = Some(graph.clone());
    Ok(())
}

/// The living images that are linked, linked to, or of pixels that several have.
fn linked_or_shared<'a>(segments: &'a [LiveSegment], shared: &HashSet<Key>) -> BTreeMap<ImageId, &'a Arc<Record>> {
    let mut found = BTreeMap::new();
    let mut targets = BTreeSet::new();
    let mut take = |live: &'a LiveSegment, row: u32| {
        let record = live.segment.record(row);
        if live.live.contains(row) {
            found.insert(record.id, record);
            targets.extend(record.near_identical_to);
        }
    };
    for live in segments {
        live.segment.linked().iter().for_each(|&row| take(live, row));
        let rows = shared.iter().flat_map(|&key| live.segment.pixels().rows(key));
        rows.for_each(|row| take(live, row));
    }
    let known: BTreeSet<ImageId> = found.keys().copied().collect();
    for (&id, live) in targets
        .difference(&known)
        .flat_map(|id| segments.iter().map(move |live| (id, live)))
    {
        let rows = live.segment.images().rows(id).filter(|&row| live.live.contains(row));
        found.extend(rows.map(|row| (id, live.segment.record(row))));
    }
    found
}

/// Pixels that more than one image has. Only pixels of rows that came or went since `previous` are looked at.
fn shared_pixels(segments: &[LiveSegment], previous: Option<&Snapshot>) -> HashSet<Key> {
    let mut changed = HashSet::new();
    let before = |name: &str| previous.and_then(|snapshot| snapshot.segment(name));
    let pixels = |live: &LiveSegment, row: u32| live.segment.record(row).pixel_key;
    for live in segments {
        match before(live.segment.name()) {
            Some(held) => changed.extend(live.live.difference(&held.live).filter_map(|row| pixels(live, row))),
            None => changed.extend(live.live.iter().filter_map(|row| pixels(live, row))),
        }
    }
    let names: HashSet<&str> = segments.iter().map(|live| live.segment.name()).collect();
    for held in previous.iter().flat_map(|snapshot| &snapshot.segments) {
        if !names.contains(held.segment.name()) {
            changed.extend(held.live.iter().filter_map(|row| pixels(held, row)));
        }
    }
    let mut shared = previous.map(|snapshot| snapshot.shared.clone()).unwrap_or_default();
    for key in changed {
        let rows = |live: &LiveSegment| {
            let rows = live.segment.pixels().rows(key);
            rows.filter(|&row| live.live.contains(row)).take(2).count()
        };
        if segments.iter().map(rows).sum::<usize>() > 1 {
            shared.insert(key);
        } else {
            shared.remove(&key);
        }
    }
    shared
}
