//! Walks through a graph (HNSW): the only file that knows usearch.
//!
//! What usearch lets go wrong, and what is done here about it:
//! - inserts from several threads lose rows silently: one thread builds a graph, and every row is looked for afterwards; those that the
//!   walk doesn't find (stragglers) are written beside the graph and returned with every answer;
//! - NaN, zero vectors, wrong dimensions and double keys break a graph or its answers: refused before the call;
//! - more calls at a time than reserved contexts fail: a counting semaphore makes them wait;
//! - `expansion_search` is not in the file and can't be changed while others search: set once, after loading;
//! - a changed byte in a file can crash the process: the caller checks the object's checksum before [`Graph::load`];
//! - a panic in a filter aborts the process: the only filter is a bit test that can't panic;
//! - removing and adding again ruins recall for good: a loaded graph is never changed.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Condvar, Mutex, PoisonError};

use numkong::Dot;
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

use super::Bitmap;
use crate::domain::Embedding;
use crate::error::{Error, ErrorKind, Result};

/// How a graph is built and walked. Rows are stored as half floats and compared by inner product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphParameters {
    /// Neighbors a row has on the upper levels; twice as many on the base. Default 16.
    pub connectivity: usize,
    /// Candidates held while a row is inserted. Default 128.
    pub expansion_add: usize,
    /// Candidates held while searching (`ef`). Default 128.
    pub expansion_search: usize,
}

impl Default for GraphParameters {
    fn default() -> Self {
        Self {
            connectivity: 16,
            expansion_add: 128,
            expansion_search: 128,
        }
    }
}

impl GraphParameters {
    /// How rows are stored in the graph.
    pub const SCALAR: &'static str = "f16";
}

/// Builds the graph of `vectors` (unit length) under `keys` on this thread and returns its bytes: u32 LE dimension, rows, number of stragglers
/// and the stragglers, then what usearch writes. The archive's header around them says whose graph it is.
///
/// # Errors
/// `InvalidRequest` when there is no row, not one key a row or a key comes twice; `WrongDimension`; `Damaged` for a row that is not
/// finite or not of unit length; `Internal` when the library refuses.
pub fn build_graph(vectors: &[&[f32]], keys: &[u32], parameters: &GraphParameters) -> Result<Vec<u8>> {
    let dimension = check_rows(vectors, keys)?;
    let index = new_index(dimension, parameters)?;
    // One context: nothing here may run beside something else.
    index
        .reserve_capacity_and_threads(vectors.len(), 1)
        .map_err(refused("reserve"))?;
    for (vector, &key) in vectors.iter().zip(keys) {
        index.add(u64::from(key), vector).map_err(refused("add"))?;
    }
    let mut stragglers = Vec::new();
    for (vector, &key) in vectors.iter().zip(keys) {
        let found = |count: usize| -> Result<bool> {
            Ok(index
                .search(vector, count)
                .map_err(refused("search"))?
                .keys
                .contains(&u64::from(key)))
        };
        // The nearest row is usually the row itself; equal rows crowd it out of the first place but not out of the list.
        if !found(1)? && !found(parameters.expansion_search)? {
            stragglers.push(key);
        }
    }
    let mut bytes = Vec::new();
    for number in [dimension, vectors.len(), stragglers.len()] {
        let number = u32::try_from(number).map_err(|_| Error::internal("a graph has fewer than 2^32 rows"))?;
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    stragglers
        .iter()
        .for_each(|key| bytes.extend_from_slice(&key.to_le_bytes()));
    let start = bytes.len();
    bytes.resize(start + index.serialized_length(), 0);
    index.save_to_buffer(&mut bytes[start..]).map_err(refused("save"))?;
    Ok(bytes)
}

/// What a walk found.
#[derive(Debug, Default)]
pub struct Walk {
    /// Rows, nearest first by the graph's half floats; stragglers at the end. To be scored again.
    pub rows: Vec<u32>,
    /// Whether the graph has no further (allowed) row to give.
    pub exhausted: bool,
    /// Rows that the walk compared with the query, each counted when it happened.
    pub evaluations: u64,
}

/// A graph that is ready to be walked by many threads, and never changed.
pub struct Graph {
    index: Index,
    dimension: usize,
    rows: usize,
    stragglers: Vec<u32>,
    instructions: String,
    permits: Permits,
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("rows", &self.rows)
            .field("stragglers", &self.stragglers.len())
            .finish_non_exhaustive()
    }
}

thread_local! {
    /// Comparisons made by this thread: a search runs on its caller's thread from beginning to end.
    static EVALUATIONS: Cell<u64> = const { Cell::new(0) };
}

impl Graph {
    /// Reads what [`build_graph`] wrote. `permits` walks run at a time, more wait.
    ///
    /// The bytes must be known to be intact (checksum of the object): a damaged graph can crash the process.
    ///
    /// # Errors
    /// `Damaged` when it is not such a graph, or one of another dimension.
    pub fn load(bytes: &[u8], dimension: usize, parameters: &GraphParameters, permits: usize) -> Result<Self> {
        let damaged = |why: &str| Error::new(ErrorKind::Damaged, format!("graph: {why}"));
        let mut words = bytes
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let mut word = || words.next().ok_or_else(|| damaged("cut off"));
        let (stored_dimension, rows, straggler_count) = (word()? as usize, word()? as usize, word()? as usize);
        if stored_dimension != dimension {
            return Err(damaged(&format!(
                "dimension `{stored_dimension}` instead of `{dimension}`"
            )));
        }
        let payload = straggler_count
            .checked_mul(4)
            .and_then(|length| bytes.get(12usize.checked_add(length)?..));
        let payload = payload.ok_or_else(|| damaged("cut off"))?;
        let stragglers = words.take(straggler_count).collect();

        let header = Index::metadata_from_buffer(payload).map_err(|error| damaged(error.what()))?;
        if header.dimensions != dimension as u64
            || header.metric != MetricKind::IP
            || header.quantization != ScalarKind::F16
            || header.count_present != rows as u64
            || header.count_deleted != 0
            || header.multi
        {
            return Err(damaged("its header says otherwise than ours"));
        }
        let mut index = new_index(dimension, parameters)?;
        index.load_from_buffer(payload).map_err(|error| damaged(error.what()))?;
        if index.size() != rows {
            return Err(damaged(&format!("`{}` rows instead of `{rows}`", index.size())));
        }
        let permits = permits.max(1);
        index
            .reserve_capacity_and_threads(rows, permits)
            .map_err(refused("reserve"))?;
        index.change_expansion_search(parameters.expansion_search);
        let instructions = index.hardware_acceleration();
        count_evaluations(&mut index, dimension);
        Ok(Self {
            index,
            dimension,
            rows,
            stragglers,
            instructions,
            permits: Permits::new(permits),
        })
    }

    /// The `count` nearest rows to the query, all of them or those in `allowed`.
    ///
    /// # Errors
    /// `WrongDimension`; `Unavailable` when memory runs out.
    pub fn search(&self, query: &Embedding, count: usize, allowed: Option<&Bitmap>) -> Result<Walk> {
        if query.dimension() != self.dimension {
            return Err(wrong_dimension(query.dimension(), self.dimension));
        }
        let count = count.min(self.rows);
        let _permit = self.permits.take();
        EVALUATIONS.set(0);
        let matches = match allowed {
            None => self.index.search(query.as_slice(), count),
            Some(rows) => {
                // Abort-safe: a comparison and a bit test.
                let allowed = |key: u64| u32::try_from(key).is_ok_and(|row| rows.contains(row));
                self.index.filtered_search(query.as_slice(), count, allowed)
            }
        };
        let evaluations = EVALUATIONS.get();
        let keys = matches
            .map_err(|error| Error::with_source(ErrorKind::Unavailable, "graph: search failed", error))?
            .keys;
        let exhausted = keys.len() < count || count == self.rows;
        let stragglers = self
            .stragglers
            .iter()
            .copied()
            .filter(|&row| allowed.is_none_or(|rows| rows.contains(row)));
        let mut rows: Vec<u32> = keys.into_iter().filter_map(|key| u32::try_from(key).ok()).collect();
        // A walk may happen on a straggler after all.
        let missed: Vec<u32> = stragglers.filter(|row| !rows.contains(row)).collect();
        rows.extend(missed);
        Ok(Walk {
            rows,
            exhausted,
            evaluations,
        })
    }

    /// Components of its vectors.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Rows in the graph.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that the walk alone would not find.
    pub fn stragglers(&self) -> usize {
        self.stragglers.len()
    }

    /// The instruction set of usearch's kernels (`serial` means that something is wrong with the build).
    pub fn hardware_acceleration(&self) -> &str {
        &self.instructions
    }

    /// Memory it takes, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.index.memory_usage()
    }
}

fn new_index(dimension: usize, parameters: &GraphParameters) -> Result<Index> {
    let options = IndexOptions {
        dimensions: dimension,
        metric: MetricKind::IP,
        quantization: ScalarKind::F16,
        connectivity: parameters.connectivity,
        expansion_add: parameters.expansion_add,
        expansion_search: parameters.expansion_search,
        multi: false,
    };
    Index::new(&options).map_err(refused("create"))
}

/// usearch counts comparisons but its binding doesn't hand the number out. So the walk gets a metric of ours that counts and then
/// calls the very kernel that usearch would have called.
fn count_evaluations(index: &mut Index, dimension: usize) {
    let metric = move |a: *const usearch::f16, b: *const usearch::f16| {
        EVALUATIONS.set(EVALUATIONS.get().wrapping_add(1));
        // SAFETY: usearch calls a metric with two rows (or the query) of the index, each `dimension` half floats; both types are 16 bits
        // of the same meaning.
        let (a, b) = unsafe {
            (
                std::slice::from_raw_parts(a.cast::<numkong::f16>(), dimension),
                std::slice::from_raw_parts(b.cast::<numkong::f16>(), dimension),
            )
        };
        // None only for unequal lengths.
        1.0 - numkong::f16::dot(a, b).unwrap_or(0.0)
    };
    index.change_metric::<usearch::f16>(Box::new(metric));
}

fn check_rows(vectors: &[&[f32]], keys: &[u32]) -> Result<usize> {
    let invalid = |why: String| Err(Error::new(ErrorKind::InvalidRequest, why));
    let Some(dimension) = vectors.first().map(|vector| vector.len()) else {
        return invalid("a graph needs a row".into());
    };
    if keys.len() != vectors.len() {
        return invalid(format!("`{}` rows with `{}` keys", vectors.len(), keys.len()));
    }
    let mut seen = HashSet::with_capacity(keys.len());
    if let Some(key) = keys.iter().find(|key| !seen.insert(**key)) {
        return invalid(format!("key `{key}` comes twice"));
    }
    for (vector, key) in vectors.iter().zip(keys) {
        if vector.len() != dimension || dimension == 0 {
            return Err(wrong_dimension(vector.len(), dimension));
        }
        let squared: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        // False for NaN too.
        let unit = (squared - 1.0).abs() < 1e-3;
        if !unit {
            return Err(Error::new(
                ErrorKind::Damaged,
                format!("row `{key}` is not a finite unit vector"),
            ));
        }
    }
    Ok(dimension)
}

fn wrong_dimension(is: usize, wanted: usize) -> Error {
    Error::new(
        ErrorKind::WrongDimension,
        format!("the vector has {is} components, this space has {wanted}"),
    )
}

fn refused<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::with_source(ErrorKind::Internal, format!("graph: can't {what}"), error)
}

/// A counting semaphore. usearch has one context for each permit and fails calls that find none.
struct Permits {
    free: Mutex<usize>,
    returned: Condvar,
}

impl Permits {
    fn new(free: usize) -> Self {
        Self {
            free: Mutex::new(free),
            returned: Condvar::new(),
        }
    }

    /// Waits for a permit.
    fn take(&self) -> Permit<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self
            .returned
            .wait_while(free, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Permit(self)
    }
}

struct Permit<'a>(&'a Permits);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::similarity;

    /// Unit vectors that any machine makes again.
    fn rows(count: usize, dimension: usize, seed: u64) -> Vec<Embedding> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count)
            .map(|_| Embedding::from_raw(&(0..dimension).map(|_| next()).collect::<Vec<_>>(), dimension).unwrap())
            .collect()
    }

    fn built(rows: &[Embedding], parameters: &GraphParameters) -> Vec<u8> {
        let vectors: Vec<&[f32]> = rows.iter().map(Embedding::as_slice).collect();
        let keys: Vec<u32> = (0..rows.len() as u32).collect();
        build_graph(&vectors, &keys, parameters).unwrap()
    }

    fn nearest(rows: &[Embedding], query: &Embedding, count: usize, allowed: impl Fn(u32) -> bool) -> Vec<u32> {
        let score = |row: &u32| similarity(query.as_slice(), rows[*row as usize].as_slice());
        let mut order: Vec<u32> = (0..rows.len() as u32).filter(|&row| allowed(row)).collect();
        order.sort_by(|a, b| score(b).total_cmp(&score(a)));
        order.truncate(count);
        order
    }

    #[test]
    fn finds_the_nearest_rows_after_a_round_trip() {
        let rows = rows(1500, 48, 1);
        let parameters = GraphParameters::default();
        let graph = Graph::load(&built(&rows, &parameters), 48, &parameters, 2).unwrap();
        assert_eq!((graph.rows(), graph.stragglers()), (1500, 0));
        assert_ne!(graph.hardware_acceleration(), "uninitialized");
        let mut found = 0;
        for (at, query) in rows.iter().enumerate().step_by(15) {
            let walk = graph.search(query, 10, None).unwrap();
            assert_eq!(walk.rows[0] as usize, at);
            assert!((128..1500).contains(&walk.evaluations), "{}", walk.evaluations);
            assert!(!walk.exhausted);
            let wanted = nearest(&rows, query, 10, |_| true);
            found += wanted.iter().filter(|row| walk.rows.contains(row)).count();
        }
        assert!(found >= 980, "{found} of 1000");
    }

    #[test]
    fn a_filter_lets_through_only_its_rows_and_all_of_them() {
        let rows = rows(800, 24, 2);
        let parameters = GraphParameters::default();
        let graph = Graph::load(&built(&rows, &parameters), 24, &parameters, 1).unwrap();
        let mut allowed = Bitmap::full(800);
        (0..800).filter(|row| row % 40 != 3).for_each(|row| {
            allowed.remove(row);
        });
        let walk = graph.search(&rows[5], 100, Some(&allowed)).unwrap();
        let mut found = walk.rows.clone();
        found.sort_unstable();
        assert!(found.iter().copied().eq(allowed.iter()));
        assert!(walk.exhausted);
        assert!(
            graph
                .search(&rows[5], 5, Some(&Bitmap::full(0)))
                .unwrap()
                .rows
                .is_empty()
        );
    }

    #[test]
    fn counts_what_it_compares() {
        // With more candidates than rows the walk compares with every row once, and on its way down with some again.
        let rows = rows(100, 16, 3);
        let parameters = GraphParameters::default();
        let graph = Graph::load(&built(&rows, &parameters), 16, &parameters, 1).unwrap();
        let walk = graph.search(&rows[0], 100, None).unwrap();
        assert!((100..300).contains(&walk.evaluations), "{}", walk.evaluations);
        assert!(walk.exhausted);
    }

    #[test]
    fn sixty_four_searches_at_a_time_never_fail() {
        let rows = rows(400, 32, 4);
        let parameters = GraphParameters::default();
        for permits in [1, 3] {
            let graph = Graph::load(&built(&rows, &parameters), 32, &parameters, permits).unwrap();
            let wanted: Vec<Vec<u32>> = rows
                .iter()
                .map(|query| graph.search(query, 10, None).unwrap().rows)
                .collect();
            std::thread::scope(|scope| {
                for thread in 0..64 {
                    let (graph, rows, wanted) = (&graph, &rows, &wanted);
                    scope.spawn(move || {
                        for at in 0..50 {
                            let at = (at * 7 + thread) % rows.len();
                            assert_eq!(graph.search(&rows[at], 10, None).unwrap().rows, wanted[at]);
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn the_same_rows_give_the_same_bytes() {
        let rows = rows(300, 20, 5);
        assert_eq!(
            built(&rows, &GraphParameters::default()),
            built(&rows, &GraphParameters::default())
        );
    }

    #[test]
    fn equal_rows_are_all_returned() {
        // Three hundred times the same row: more than a walk holds.
        let mut rows = rows(200, 16, 6);
        rows.extend(vec![rows[0].clone(); 300]);
        let parameters = GraphParameters::default();
        let graph = Graph::load(&built(&rows, &parameters), 16, &parameters, 1).unwrap();
        let walk = graph.search(&rows[0], 301, None).unwrap();
        let same = walk
            .rows
            .iter()
            .filter(|&&row| similarity(rows[0].as_slice(), rows[row as usize].as_slice()) > 0.9999);
        assert_eq!(same.count(), 301);
    }

    #[test]
    fn refuses_what_would_break_a_graph() {
        let good = [0.6f32, 0.8];
        let check = |vectors: &[&[f32]], keys: &[u32], wanted: ErrorKind| {
            let error = build_graph(vectors, keys, &GraphParameters::default()).unwrap_err();
            assert_eq!(error.kind(), wanted, "{error}");
        };
        check(&[], &[], ErrorKind::InvalidRequest);
        check(&[&good], &[], ErrorKind::InvalidRequest);
        check(&[&good, &good], &[1, 1], ErrorKind::InvalidRequest);
        check(&[&good, &[1.0]], &[1, 2], ErrorKind::WrongDimension);
        check(&[&[]], &[1], ErrorKind::WrongDimension);
        for bad in [[f32::NAN, 0.0], [0.0, 0.0], [f32::INFINITY, 0.0], [2.0, 0.0]] {
            check(&[&bad], &[1], ErrorKind::Damaged);
        }
    }

    #[test]
    fn refuses_other_bytes() {
        let parameters = GraphParameters::default();
        let bytes = built(&rows(20, 8, 7), &parameters);
        let check = |bytes: &[u8], dimension: usize| {
            assert_eq!(
                Graph::load(bytes, dimension, &parameters, 1).unwrap_err().kind(),
                ErrorKind::Damaged
            );
        };
        check(&bytes, 9);
        check(b"", 8);
        check(&bytes[8..], 8);
        for length in [8, 12, 19, 20, 30, bytes.len() / 2] {
            check(&bytes[..length], 8);
        }
        let mut other = bytes.clone();
        other[12] ^= 1; // one row more or less than usearch has
        check(&other, 8);
        let query = &rows(1, 9, 8)[0];
        let graph = Graph::load(&bytes, 8, &parameters, 1).unwrap();
        assert_eq!(
            graph.search(query, 1, None).unwrap_err().kind(),
            ErrorKind::WrongDimension
        );
    }
}
