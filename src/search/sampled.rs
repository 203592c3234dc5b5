//! How good the answers are that are being given: a share of searches is asked again by exact search, and what is asked about is compared with the archive.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::engine::Engine;
use super::served::Version;
use super::vote;
use crate::domain::{Ask, Embedding, PathTaken, Query, Ranking, similarity};
use crate::error::Result;
use crate::metrics::Metrics;
use crate::telemetry::run_blocking;

/// Neighbors that are compared.
const COMPARED: usize = 10;
/// Longest time for the second answer; nobody waits for it.
const AGAIN_MAX: Duration = Duration::from_secs(10);
/// So many queries weigh in what is asked about lately.
const RECENT: f32 = 200.0;
/// Before there are so many nothing is said of drift.
const QUERIES_MIN: u64 = 50;
/// Images that stand for where the archive lies.
const DRAWN_MAX: usize = 2048;

/// Samples searches.
pub struct Sampler {
    /// Every so many-th search is asked again; 0: none.
    every: u64,
    searches: AtomicU64,
    /// One second answer at a time: it must not take searches' places.
    permit: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    recent: Mutex<Recent>,
    center: tokio::sync::Mutex<Option<Center>>,
}

/// Where the archive lies.
struct Center {
    /// Its images then; once there are twice as many it is looked at again.
    images: usize,
    /// Their mean direction; empty where it can't be known.
    direction: Vec<f32>,
}

/// What is asked about lately.
#[derive(Default)]
struct Recent {
    mean: Vec<f32>,
    queries: u64,
}

impl Recent {
    fn add(&mut self, unit: &[f32]) {
        if self.mean.len() != unit.len() {
            *self = Self {
                mean: vec![0.0; unit.len()],
                queries: 0,
            };
        }
        self.queries += 1;
        let weight = 1.0 / RECENT.min(self.queries as f32);
        for (mean, x) in self.mean.iter_mut().zip(unit) {
            *mean += weight * (x - *mean);
        }
    }

    /// How far from `center`: 0 the same direction, 1 at right angles.
    fn drift(&self, center: &[f32]) -> Option<f64> {
        if self.queries < QUERIES_MIN || self.mean.len() != center.len() {
            return None;
        }
        let mean = Embedding::from_raw(&self.mean, center.len()).ok()?;
        Some(1.0 - f64::from(similarity(mean.as_slice(), center)))
    }
}

impl Sampler {
    /// Asks `share` of the searches again, 0 to 1.
    pub fn new(share: f64, metrics: Arc<Metrics>) -> Self {
        let every = if share > 0.0 {
            (1.0 / share).round().max(1.0) as u64
        } else {
            0
        };
        Self {
            every,
            searches: AtomicU64::new(0),
            permit: Arc::new(Semaphore::new(1)),
            metrics,
            recent: Mutex::default(),
            center: tokio::sync::Mutex::default(),
        }
    }

    /// Whether this search is one that is asked again.
    fn draws(&self) -> bool {
        self.every > 0 && self.searches.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.every)
    }

    /// Takes in what was asked about.
    async fn note(&self, version: &Arc<Version>, unit: &Embedding) {
        // One looks at the archive; the others' queries count all the same.
        if let Ok(mut center) = self.center.try_lock() {
            let images = version.snapshot.images();
            if center.as_ref().is_none_or(|known| images >= 2 * known.images.max(1)) {
                let direction = mean_direction(Arc::clone(version)).await;
                let direction = direction.inspect_err(|error| tracing::warn!(error = %error, "drift is not known"));
                *center = Some(Center {
                    images,
                    direction: direction.unwrap_or_default(),
                });
            }
        }
        let drift = {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.add(unit.as_slice());
            let center = self.center.try_lock().ok();
            center.and_then(|center| recent.drift(&center.as_ref()?.direction))
        };
        if let Some(drift) = drift {
            self.metrics.drift(drift);
        }
    }
}

/// Mean direction of images drawn evenly.
async fn mean_direction(version: Arc<Version>) -> Result<Vec<f32>> {
    run_blocking(move || {
        let spots: Vec<_> = version.state.live().collect();
        let step = spots.len().div_ceil(DRAWN_MAX).max(1);
        let units: Result<Vec<Embedding>> = spots.iter().step_by(step).map(|&spot| version.unit_at(spot)).collect();
        Ok(Embedding::mean(&units?)?.as_slice().to_vec())
    })
    .await
}

/// The share of the exact neighbors that were found.
fn recall(found: &Ranking, exact: &Ranking) -> f64 {
    let wanted = || exact.hits.iter().take(COMPARED).map(|hit| hit.id());
    let found: Vec<_> = found.hits.iter().take(COMPARED).map(|hit| hit.id()).collect();
    match wanted().count() {
        0 => 1.0,
        count => wanted().filter(|id| found.contains(id)).count() as f64 / count as f64,
    }
}

impl Engine {
    /// Looks at a search that was answered, if it is drawn; the client does not wait. `unit` is where the query lies, for an image that is new.
    pub(super) fn sample(
        &self,
        version: &Arc<Version>,
        query: &Query,
        ask: &Ask,
        found: &Ranking,
        unit: Option<&Embedding>,
    ) {
        let sampler = Arc::clone(&self.parts().sampler);
        if let Some(unit) = unit.cloned().filter(|_| sampler.every > 0) {
            let (sampler, version) = (Arc::clone(&sampler), Arc::clone(version));
            tokio::spawn(async move { sampler.note(&version, &unit).await });
        }
        if ask.exact || !sampler.draws() {
            return;
        }
        // What was scanned row by row is exact already.
        if found.path.values().all(|path| *path == PathTaken::Exact) {
            sampler.metrics.sampled(1.0, true);
            return;
        }
        let Ok(permit) = Arc::clone(&sampler.permit).try_acquire_owned() else {
            return;
        };
        let (engine, version, query, ask) = (self.clone(), Arc::clone(version), query.clone(), ask.clone());
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(error) = engine.ask_again(&version, query, ask).await {
                tracing::debug!(error = %error, "a search could not be asked again");
            }
        });
    }

    /// Both ways in the shards that are held here: other replicas sample their own. No part of the search's trace,
    /// which may be over.
    async fn ask_again(&self, version: &Arc<Version>, query: Query, ask: Ask) -> Result<()> {
        let deadline = Instant::now() + AGAIN_MAX;
        let found = self.rank_in_turn(version, query.clone(), &ask, deadline).await?;
        let ask = Ask { exact: true, ..ask };
        let exact = self.rank_in_turn(version, query, &ask, deadline).await?;
        let class = |ranking: &Ranking| vote::vote(ranking, ask.vote, ask.k).class;
        let same_class = class(&found) == class(&exact);
        self.parts().sampler.metrics.sampled(recall(&found, &exact), same_class);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Hit;
    use crate::index::segment::tests::record;

    fn ranking(numbers: &[u32]) -> Ranking {
        let hits = numbers
            .iter()
            .map(|&number| Hit::alone(0.5, record(number, None, None), false));
        Ranking {
            hits: hits.collect(),
            ..Ranking::default()
        }
    }

    #[test]
    fn recall_is_of_the_first_ten() {
        let exact = ranking(&(0..20).collect::<Vec<_>>());
        assert_eq!(recall(&exact, &exact), 1.0);
        assert_eq!(recall(&ranking(&[0, 1, 2, 3, 4, 15, 16, 17, 18, 19]), &exact), 0.5);
        assert_eq!(recall(&ranking(&[]), &ranking(&[])), 1.0);
    }

    #[test]
    fn drift_is_the_angle_between_what_is_asked_about_and_what_is_there() {
        let mut recent = Recent::default();
        let center = [1.0, 0.0];
        for _ in 0..QUERIES_MIN - 1 {
            recent.add(&[1.0, 0.0]);
        }
        assert_eq!(recent.drift(&center), None);
        recent.add(&[1.0, 0.0]);
        assert!(recent.drift(&center).unwrap().abs() < 1e-6);
        (0..2000).for_each(|_| recent.add(&[0.0, 1.0]));
        assert!(
            (recent.drift(&center).unwrap() - 1.0).abs() < 1e-3,
            "what was asked long ago is forgotten"
        );
        assert_eq!(recent.drift(&[1.0, 0.0, 0.0]), None);
    }

    #[test]
    fn draws_the_share_that_it_was_told() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let drawn = |share| {
            let sampler = Sampler::new(share, Arc::clone(&metrics));
            (0..1000).filter(|_| sampler.draws()).count()
        };
        assert_eq!([drawn(0.0), drawn(0.01), drawn(0.5), drawn(1.0)], [0, 10, 500, 1000]);
    }
}
