//! One query over all shards: those that are held here, beside those that other replicas hold.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use super::engine::{Engine, turn};
use super::plan::plan;
use super::served::Version;
use super::{local, merge};
use crate::archive::Manifest;
use crate::cluster::wire::{Found, ShardAnswer, ShardQuery, ShardRanking, Status};
use crate::cluster::{Cluster, Held, Other, Shards, pin};
use crate::domain::{Ask, Coverage, Hit, Query, Ranking};
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::{SPANS, run_blocking, run_here};

/// Images that are searched where the request is: at most half a millisecond of work.
const INLINE_IMAGES_MAX: usize = 1000;
/// Time for the other replicas, of what is left for the request: the vote and the answer need some too.
const REMOTE_PART: f64 = 0.9;
/// Longest time that another replica is worked for.
const ASKED_FOR_MAX: Duration = Duration::from_secs(60);
/// How much more than 1 rounding may make of a similarity.
const SIMILARITY_MAX: f32 = 1.001;
/// Longest wait for somebody who holds a shard: replicas say so twice a second, and one that has just started has not been heard.
const HOLDER_WAIT_MAX: Duration = Duration::from_millis(1500);
/// Longest wait for a version that is not served yet by replicas that hold all of it together: each has every version within two seconds.
const VERSION_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long the versions may be here that are passed over for one that is held whole, as long as [`pin`] does for who is slow: a write is soon in every answer.
const PASSED_OVER_MAX: Duration = Duration::from_secs(5);

impl Engine {
    /// The version that answers: in a cluster the newest of which all shards are held by somebody, at least `min_version`.
    ///
    /// # Errors
    /// `VersionAhead` when there is none in time.
    pub(super) async fn pinned(
        &self,
        min_version: Option<u64>,
        allow_partial: bool,
        deadline: Instant,
    ) -> Result<Arc<Version>> {
        let served = &self.parts().served;
        let Some(cluster) = &self.parts().cluster else {
            if let Some(min_version) = min_version {
                let deadline = deadline.min(Instant::now() + VERSION_WAIT_MAX);
                served.at_least(min_version, deadline.into()).await?;
            }
            return Ok(served.current());
        };
        let wait = match (min_version, allow_partial) {
            (Some(_), _) => VERSION_WAIT_MAX,
            (None, false) => HOLDER_WAIT_MAX,
            (None, true) => Duration::ZERO,
        };
        let until = deadline.min(Instant::now() + wait);
        let (mut rounds, mut versions) = (cluster.rounds(), served.follow_versions());
        loop {
            let mut known = served.versions();
            known.retain(|version| min_version.is_none_or(|least| version.number() >= least));
            match whole(cluster, &known) {
                Some((at, missing)) if missing.is_empty() || Instant::now() >= until => {
                    return Ok(known.swap_remove(at));
                }
                // A version that is not there yet, or a shard of which nobody has said yet that it is held: waited for.
                _ => {}
            }
            let news = async {
                tokio::select! {
                    _ = rounds.changed() => {}
                    _ = versions.changed() => {}
                }
            };
            if tokio::time::timeout_at(until.into(), news).await.is_err() && known.is_empty() {
                let newest = served.current().number();
                let message = format!(
                    "version {} is not served here yet, the newest is {newest}",
                    min_version.unwrap_or_default()
                );
                return Err(Error::new(ErrorKind::VersionAhead, message));
            }
        }
    }

    /// The version that would answer now.
    ///
    /// # Errors
    /// As a search.
    pub(crate) async fn answering(&self, deadline: Instant) -> Result<Arc<Version>> {
        self.pinned(None, true, deadline).await
    }

    /// The best of all shards, and which of these answered, in this version, or, where who alone had a shard of it is gone, in another that others hold whole.
    ///
    /// # Errors
    /// `ShardsMissing` when a shard did not answer and the ask does not allow that; `Deadline`; those of [`local::search`].
    pub(crate) async fn rank(
        &self,
        mut version: Arc<Version>,
        query: &Query,
        ask: &Ask,
        deadline: Instant,
    ) -> Result<(Arc<Version>, Ranking, Coverage)> {
        let began = Instant::now();
        let (mut ranking, mut coverage) = self.rank_in(&version, query.clone(), ask, deadline).await?;
        let (took, left) = (began.elapsed(), deadline.saturating_duration_since(Instant::now()));
        // A second time takes as long as the first.
        if !coverage.missing.is_empty()
            && took <= left
            && let Some(other) = self.instead_of(&version, &coverage.missing, query, ask, began)
        {
            let until = Instant::now() + left.mul_f64(REMOTE_PART);
            let again = self.rank_in(&other, query.clone(), ask, until);
            // Where that fails too, what there is already stands.
            if let Ok(Ok((again, covered))) = tokio::time::timeout_at(until.into(), again).await
                && covered.missing.is_empty()
            {
                tracing::warn!(
                    shards = ?coverage.missing,
                    version = version.number(),
                    instead = other.number(),
                    "no replica answered for a shard; answered in another version"
                );
                (version, ranking, coverage) = (other, again, covered);
            }
        }
        if let Some(cluster) = self.parts().cluster.as_ref().filter(|_| !coverage.missing.is_empty()) {
            cluster.metrics().coverage_missing();
            if !ask.allow_partial {
                return Err(shards_missing(&coverage.missing, coverage.shards));
            }
        }
        Ok((version, ranking, coverage))
    }

    /// Another version that is held whole by who did not fail, and that means the same by this query. A replica that takes over the newest version once a
    /// second may never have had the one between, so that a single one has a shard of it. Of the versions that are passed over none was here for long when the
    /// search `began`.
    fn instead_of(
        &self,
        version: &Version,
        missing: &[u32],
        query: &Query,
        ask: &Ask,
        began: Instant,
    ) -> Option<Arc<Version>> {
        let cluster = self.parts().cluster.as_ref()?;
        let mut known = self.parts().served.versions();
        let here: Vec<(u64, Instant)> = (known.iter())
            .map(|version| (version.number(), version.loaded.into_std()))
            .collect();
        let is_recent = |other: u64| {
            let mut newer = here.iter().filter(|(number, _)| *number > other);
            newer.all(|(_, loaded)| began.saturating_duration_since(*loaded) <= PASSED_OVER_MAX)
        };
        known.retain(|other| {
            let is_known = |source: &String| other.overview.sources.contains(source);
            is_recent(other.number())
                && ask.min_version.is_none_or(|least| other.number() >= least)
                && ask.sources.iter().flatten().all(is_known)
                && other.judges_alike(version)
                && other.snapshot.check(query, ask).is_ok()
        });
        let has_failed = |status: &Status| {
            let mut of_version = status.held.iter();
            let of_version = of_version.find(|held| held.is(version.number(), &version.state.manifest.commit));
            of_version.is_some_and(|held| missing.iter().any(|shard| held.shards.contains(shard)))
        };
        let (at, lacks) = whole_but(cluster, &known, has_failed)?;
        lacks.is_empty().then(|| known.swap_remove(at))
    }

    async fn rank_in(
        &self,
        version: &Arc<Version>,
        query: Query,
        ask: &Ask,
        deadline: Instant,
    ) -> Result<(Ranking, Coverage)> {
        let shards: BTreeSet<u32> = version.state.manifest.shards.iter().map(|shard| shard.id).collect();
        let elsewhere: BTreeSet<u32> = shards.difference(&version.held).copied().collect();
        let Some(cluster) = self.parts().cluster.as_ref().filter(|_| !elsewhere.is_empty()) else {
            let ranking = self.rank_here(version, query, ask, deadline).await?;
            let ranking = self.without_deleted(version, merged(vec![ranking], ask.k));
            return Ok((ranking, coverage(&shards, &elsewhere)));
        };
        // What can't be asked is refused before others are.
        version.snapshot.check(&query, ask)?;
        let manifest = &version.state.manifest;
        let question = ShardQuery::new(cluster.archive(), manifest.version, &manifest.commit, &query, ask);
        let left = deadline.saturating_duration_since(Instant::now());
        let remote = cluster.fan_out(&question, &elsewhere, Instant::now() + left.mul_f64(REMOTE_PART));
        let (here, there) = tokio::join!(self.rank_here(version, query, ask, deadline), remote);
        let (mut rankings, mut missing) = (vec![here?], there.missing);
        for answer in there.rankings {
            let shard = answer.shard;
            match version.ranking(answer, ask) {
                Some(ranking) => rankings.push(ranking),
                None => {
                    tracing::error!(
                        shard,
                        "a replica answered with what that shard can't have; it is left out"
                    );
                    missing.insert(shard);
                }
            }
        }
        let ranking = self.without_deleted(version, merged(rankings, ask.k));
        Ok((ranking, coverage(&shards, &missing)))
    }

    /// Without what was deleted since the version that all have: the others may still know it.
    fn without_deleted(&self, version: &Version, mut ranking: Ranking) -> Ranking {
        let current = self.parts().served.current();
        if current.number() > version.number() {
            let is_there = |hit: &Hit| current.state.record(hit.id()).is_some();
            ranking.hits.retain(is_there);
            ranking.nearest_per_class.retain(is_there);
        }
        ranking
    }

    async fn rank_here(&self, version: &Arc<Version>, query: Query, ask: &Ask, deadline: Instant) -> Result<Ranking> {
        let span = tracing::debug_span!(target: SPANS, "search", medsearch.shards = %Shards(&version.held));
        self.rank_in_turn(version, query, ask, deadline).instrument(span).await
    }

    pub(super) async fn rank_in_turn(
        &self,
        version: &Arc<Version>,
        query: Query,
        ask: &Ask,
        deadline: Instant,
    ) -> Result<Ranking> {
        let permit = self.search_turn(deadline).await?;
        let metrics = self.parts().cluster.clone();
        let work = {
            let (version, ask) = (Arc::clone(version), ask.clone());
            move || {
                let _permit = permit;
                let began = Instant::now();
                let ranking = local::search(&version.snapshot, &query, &ask);
                if let Some(cluster) = metrics {
                    cluster.metrics().local_search(began.elapsed());
                }
                ranking
            }
        };
        // To hand a few rows over to another thread takes longer than to look at them.
        if version.snapshot.images() <= INLINE_IMAGES_MAX {
            return run_here(work);
        }
        run_blocking(work).await
    }

    /// Answers another replica: what its shards have, one ranking each. Asks nobody.
    ///
    /// # Errors
    /// `VersionAhead` when the version is not held here, or none of the shards; `InvalidRequest`; `Deadline`.
    pub async fn search_shards(&self, question: ShardQuery) -> Result<ShardAnswer> {
        let (query, ask) = question.read()?;
        let other = |what| Error::new(ErrorKind::VersionAhead, what);
        let cluster = self.parts().cluster.as_ref();
        let cluster = cluster.ok_or_else(|| Error::internal("no cluster"))?;
        if question.archive != cluster.archive() {
            return Err(Error::new(ErrorKind::InvalidRequest, "another archive is served here"));
        }
        let served = &self.parts().served;
        let version = served.that_holds(question.version, &question.commit, &question.shards);
        let version = version.ok_or_else(|| other("this version, or each of these shards of it, is not held here"))?;
        // What it has given up since it said that it holds it is left out: for that alone another is asked.
        let shards: BTreeSet<u32> = question.shards.intersection(&version.held).copied().collect();
        let deadline = Instant::now() + Duration::from_millis(question.deadline_ms).min(ASKED_FOR_MAX);
        let span = tracing::debug_span!(target: SPANS, "search", medsearch.shards = %Shards(&shards));
        self.rank_asked(version, shards, query, ask, deadline)
            .instrument(span)
            .await
    }

    async fn rank_asked(
        &self,
        version: Arc<Version>,
        shards: BTreeSet<u32>,
        query: Query,
        ask: Ask,
        deadline: Instant,
    ) -> Result<ShardAnswer> {
        // Permits of its own: replicas that wait for each other must not fill each other's places.
        let permit: OwnedSemaphorePermit = turn(
            self.inner_permits(),
            deadline,
            "no thread came free in time for another replica",
        )
        .await?;
        run_blocking(move || {
            let _permit = permit;
            let snapshot = &version.snapshot;
            let scope = snapshot.scope(&query, &ask)?;
            let mut rankings = Vec::with_capacity(shards.len());
            for shard in shards {
                let scope = scope.of_shard(shard);
                let steps = plan(scope.legs(), ask.k, ask.exact, snapshot.settings());
                let ranking = snapshot.search(&query, ask.k, ask.one_per, &scope, &steps)?;
                rankings.push(ShardRanking::new(shard, &ranking));
            }
            Ok(ShardAnswer { rankings })
        })
        .await
    }

    /// How this replica is, for the others; none outside of a cluster. The version in which searches are answered is kept from then on, until it is another.
    pub fn status(&self) -> Option<Status> {
        let cluster = self.parts().cluster.as_ref()?;
        let versions = self.parts().served.versions();
        if let Some((at, _)) = whole(cluster, &versions) {
            self.parts().served.keep(versions[at].number());
        }
        Some(cluster.status(versions.iter().map(|version| version.as_held()).collect()))
    }

    /// Shards that a search would lack now.
    pub fn shards_missing(&self) -> BTreeSet<u32> {
        let versions = self.parts().served.versions();
        let cluster = self.parts().cluster.as_ref();
        let found = cluster.and_then(|cluster| whole(cluster, &versions));
        found.map(|(_, missing)| missing).unwrap_or_default()
    }
}

/// The version to answer in, which is held whole, or the best there is, with what it lacks.
fn whole(cluster: &Cluster, versions: &[Arc<Version>]) -> Option<(usize, BTreeSet<u32>)> {
    whole_but(cluster, versions, |_| false)
}

/// The same without those replicas that are `unwanted`.
fn whole_but(
    cluster: &Cluster,
    versions: &[Arc<Version>],
    unwanted: impl Fn(&Status) -> bool,
) -> Option<(usize, BTreeSet<u32>)> {
    let own: Vec<Held> = versions.iter().map(|version| version.as_held()).collect();
    let peers = cluster.peers();
    let all = |at: usize| {
        versions[at]
            .state
            .manifest
            .shards
            .iter()
            .map(|shard| shard.id)
            .collect()
    };
    let now = Instant::now();
    let others: Vec<Other<'_>> = (peers.iter())
        .filter(|(_, status)| !unwanted(status))
        .map(|(peer, status)| Other {
            held: &status.held,
            is_slow: peer.is_slow(now),
        })
        .collect();
    pin(&own, all, &others, |at| versions[at].loaded.elapsed())
}

fn merged(rankings: Vec<Ranking>, k: usize) -> Ranking {
    let span = tracing::debug_span!(target: SPANS, "merge", medsearch.rankings = rankings.len() as i64);
    span.in_scope(|| merge::merge(rankings, k))
}

fn coverage(shards: &BTreeSet<u32>, missing: &BTreeSet<u32>) -> Coverage {
    Coverage {
        shards: shards.len(),
        answered: shards.len() - missing.len(),
        missing: missing.iter().copied().collect(),
    }
}

fn shards_missing(missing: &[u32], shards: usize) -> Error {
    let names: Vec<String> = missing.iter().map(u32::to_string).collect();
    let message = format!(
        "no replica answered for {} of {shards} shards: {}; `allow_partial=true` gives an answer without them",
        missing.len(),
        names.join(", ")
    );
    Error::new(ErrorKind::ShardsMissing, message)
}

impl Version {
    /// Its number.
    pub fn number(&self) -> u64 {
        self.state.manifest.version
    }

    /// Whether vectors and votes mean the same in both: a query of one can be asked in the other.
    fn judges_alike(&self, other: &Self) -> bool {
        let (one, other) = (&self.state.manifest, &other.state.manifest);
        let metric = |manifest: &Manifest| manifest.metric.as_ref().map(|metric| metric.id().to_owned());
        one.space == other.space && metric(one) == metric(other) && one.calibration == other.calibration
    }

    /// What of it is held here, as other replicas are told.
    fn as_held(&self) -> Held {
        Held {
            version: self.number(),
            commit: self.state.manifest.commit.clone(),
            shards: self.held.clone(),
        }
    }

    /// The ranking of another replica, with the records, which are known here too: both answer in the same version. None when it is not one of that shard
    /// to this ask, as of a program or a memory at fault.
    fn ranking(&self, answer: ShardRanking, ask: &Ask) -> Option<Ranking> {
        let manifest = &self.state.manifest;
        let hit = |found: Found| {
            let fits = found.similarity().abs() <= SIMILARITY_MAX && manifest.shard(found.id.slot()) == answer.shard;
            let record = Arc::clone(self.state.record(found.id).filter(|_| fits)?);
            Some(self.snapshot.hit(record, found.similarity(), ask.one_per))
        };
        let hits = |found: Vec<Found>| found.into_iter().map(hit).collect::<Option<Vec<Hit>>>();
        if answer.hits.len() > ask.k {
            return None;
        }
        Some(Ranking {
            hits: hits(answer.hits)?,
            nearest_per_class: hits(answer.nearest_per_class)?,
            path: answer.path,
            eligible: answer.eligible,
            distance_evaluations: answer.distance_evaluations,
        })
    }
}
