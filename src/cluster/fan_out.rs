//! One query to those who hold what is missing here: whom to ask, when to ask a second one, what to do when one fails.
//!
//! The replica that is expected to answer soonest is asked (peak-EWMA, as in Finagle). One that takes longer than 95 of 100 answers of the fastest gets
//! company: a second replica is asked the same (Dean and Barroso, The Tail at Scale, 2013), for at most one call in twenty. What fails, or is far overdue, is
//! asked of another once, and never after the deadline. Nobody who is asked asks others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use reqwest::StatusCode;
use tracing::Span;
use tracing::field::Empty;

use super::Cluster;
use super::members::bounded;
use super::peer::{Call, Peer};
use super::wire::{ANSWER_BYTES_MAX, SEARCH_PATH, ShardAnswer, ShardQuery, ShardRanking, Status};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{HedgeOutcome, ShardOutcome};
use crate::telemetry::{SPANS, traces};

/// A call that takes longer has failed: one that is cut off must not take the time of a second one. Where there is much time, as for an exact search of very
/// many rows, half of it.
const CALL_MAX: Duration = Duration::from_secs(2);
/// No hedge before this, however fast the fastest is.
const HEDGE_AFTER_MIN: Duration = Duration::from_millis(5);
/// A hedge after this where nothing is known of anyone.
const HEDGE_AFTER_UNKNOWN: Duration = Duration::from_millis(50);
/// A call that takes so many times the usual is overdue: another replica is asked as if it had failed, whatever hedges are left.
const OVERDUE_TIMES: u32 = 20;
/// No call is overdue before this.
const OVERDUE_MIN: Duration = Duration::from_millis(500);
/// Longest wait for another replica to say that it holds a shard, when one failed and nobody else was known to: replicas say so twice a second.
const HOLDER_WAIT_MAX: Duration = Duration::from_millis(1500);
/// A call earns so much of a hedge, in thousandths: one in twenty.
const HEDGE_EARNED: i64 = 50;
/// What a hedge costs.
const HEDGE_COSTS: i64 = 1000;
/// Before any is earned.
pub(super) const HEDGES_FIRST: i64 = 5 * HEDGE_COSTS;
/// Hedges that can be saved up: a burst of slow answers when a replica begins to be slow.
const HEDGE_SAVED_MAX: i64 = 20_000;

/// What the other replicas said.
#[derive(Debug, Default)]
pub struct FannedOut {
    /// A ranking of each shard that was answered.
    pub rankings: Vec<ShardRanking>,
    /// The others.
    pub missing: BTreeSet<u32>,
}

/// What says which trace a call belongs to.
type Headers = Vec<(&'static str, String)>;

/// A call and the shards that it is for.
struct Asked {
    peer: Arc<Peer>,
    shards: BTreeSet<u32>,
    why: Why,
}

/// Why a replica is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It is expected to answer soonest.
    First,
    /// The one before it takes long.
    Hedge,
    /// The one before it failed, or is far overdue.
    Retry,
}

impl Why {
    fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Hedge => "hedge",
            Self::Retry => "retry",
        }
    }
}

/// Why a call brought nothing.
enum Failure {
    /// It can't answer this question; another may.
    Declined,
    /// It did not answer.
    Failed,
    /// Time is up.
    Late,
}

impl Cluster {
    /// Asks the other replicas for `shards` of the version that `question` names, until `deadline`.
    pub async fn fan_out(&self, question: &ShardQuery, shards: &BTreeSet<u32>, deadline: Instant) -> FannedOut {
        let mut fan = Fan {
            cluster: self,
            question,
            open: shards.clone(),
            tried: BTreeMap::new(),
            retried: BTreeSet::new(),
            unasked: BTreeSet::new(),
            rankings: Vec::new(),
        };
        let mut rounds = self.rounds();
        let mut calls = FuturesUnordered::new();
        let first = fan.choose(&fan.open.clone());
        let hedge_after = hedge_after(self);
        for asked in fan.begin(first, Why::First) {
            self.earn_hedge();
            calls.push(self.call(question, asked, deadline));
        }
        let hedge_at = tokio::time::sleep(hedge_after);
        let overdue_at = tokio::time::sleep((hedge_after * OVERDUE_TIMES).max(OVERDUE_MIN));
        let holder_until = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(hedge_at, overdue_at, holder_until);
        let (mut may_hedge, mut hedges, mut may_be_overdue, mut waits) = (true, 0, true, false);
        while !fan.open.is_empty() && (!calls.is_empty() || waits) {
            let lacked = fan.unasked.len();
            tokio::select! {
                Some((asked, answer)) = calls.next() => {
                    let before = fan.open.len();
                    let late = matches!(answer, Err(Failure::Late));
                    if let Ok(answer) = answer {
                        fan.take(&asked, answer);
                    }
                    if asked.why == Why::Hedge {
                        hedges -= 1;
                        let won = fan.open.len() < before;
                        self.metrics().hedge(if won { HedgeOutcome::Won } else { HedgeOutcome::Lost });
                    }
                    // What was asked and did not come is asked of another, once each.
                    let again: BTreeSet<u32> = match late {
                        true => BTreeSet::new(),
                        false => asked.shards.intersection(&fan.open).copied().collect(),
                    };
                    for asked in fan.retry(again) {
                        calls.push(self.call(question, asked, deadline));
                    }
                },
                () = &mut overdue_at, if may_be_overdue => {
                    may_be_overdue = false;
                    for asked in fan.retry(fan.open.clone()) {
                        calls.push(self.call(question, asked, deadline));
                    }
                }
                // Another holder may be known by now: one that has the version a moment later.
                Ok(()) = rounds.changed(), if !fan.unasked.is_empty() => {
                    for asked in fan.retry(fan.unasked.clone()) {
                        calls.push(self.call(question, asked, deadline));
                    }
                }
                () = &mut holder_until, if waits => waits = false,
                () = &mut hedge_at, if may_hedge => {
                    may_hedge = false;
                    let late = fan.open.clone();
                    for (peer, shards) in fan.choose(&late) {
                        if !self.spend_hedge() {
                            break;
                        }
                        let asked = fan.begin(vec![(peer, shards)], Why::Hedge);
                        hedges += asked.len();
                        calls.extend(asked.into_iter().map(|asked| self.call(question, asked, deadline)));
                    }
                }
            }
            // Without any call under way it is waited for, but not long.
            if fan.unasked.len() > lacked {
                waits = true;
                holder_until
                    .as_mut()
                    .reset(deadline.min(Instant::now() + HOLDER_WAIT_MAX).into());
            }
        }
        // The first was quicker.
        (0..hedges).for_each(|_| self.metrics().hedge(HedgeOutcome::Lost));
        FannedOut {
            rankings: fan.rankings,
            missing: fan.open,
        }
    }

    /// A call that nobody waits for any more goes on until it is answered or its time is over, so that it is known how long it takes: a replica that a hedge
    /// overtakes again and again would look as quick as the hedge. Its span ends when it is given up.
    fn call(
        &self,
        question: &ShardQuery,
        asked: Asked,
        deadline: Instant,
    ) -> impl Future<Output = (Asked, Result<ShardAnswer, Failure>)> + use<> {
        let left = deadline.saturating_duration_since(Instant::now());
        let time = left.min(CALL_MAX.max(left / 2));
        let question = question.about(asked.shards.clone(), time);
        let mut span = CallSpan::new(&asked);
        let headers = traces::onward(&span.span);
        let (cluster, call) = (self.clone(), asked.peer.call(Instant::now()));
        let called = tokio::spawn(async move { cluster.called(&question, headers, call, time, deadline).await });
        async move {
            // It ends early when the program does.
            let (status, answer) = called.await.unwrap_or((None, Err(Failure::Failed)));
            span.ends(status, &answer);
            (asked, answer)
        }
    }

    async fn called(
        &self,
        question: &ShardQuery,
        headers: Headers,
        call: Call,
        time: Duration,
        deadline: Instant,
    ) -> (Option<StatusCode>, Result<ShardAnswer, Failure>) {
        let (began, mut status) = (Instant::now(), None);
        let address = call.peer().address.clone();
        let posted = self.post(&address, question, headers, &mut status);
        let answer = tokio::time::timeout(time, posted).await;
        let now = Instant::now();
        let outcome = match answer {
            Ok(Ok(Some(answer))) => {
                call.answered(now);
                self.metrics().remote_search(now - began);
                self.metrics().shard_request(ShardOutcome::Answered);
                Ok(answer)
            }
            Ok(Ok(None)) => {
                call.declined();
                Err(Failure::Declined)
            }
            failed => {
                if let Ok(Err(error)) = &failed {
                    tracing::debug!(error = %error, cause = ?std::error::Error::source(&error), "a replica failed to answer");
                }
                // Too little time was left for anyone: no fault of its own.
                let is_to_blame = failed.is_ok() || time >= CALL_MAX;
                if is_to_blame && call.failed(now) {
                    self.metrics().ejection();
                    tracing::warn!(replica = %address, "a replica failed repeatedly and is left alone for a while");
                }
                let (outcome, failure) = if now >= deadline {
                    (ShardOutcome::Late, Failure::Late)
                } else {
                    (ShardOutcome::Failed, Failure::Failed)
                };
                self.metrics().shard_request(outcome);
                Err(failure)
            }
        };
        (status, outcome)
    }

    /// The answer; none when it says that it can't answer this question. `status`: what HTTP calls it, once it is here.
    async fn post(
        &self,
        address: &str,
        question: &ShardQuery,
        headers: Headers,
        status: &mut Option<StatusCode>,
    ) -> Result<Option<ShardAnswer>> {
        let failed = |error: reqwest::Error| {
            Error::with_source(ErrorKind::Unavailable, "a replica does not answer", error.without_url())
        };
        let body = serde_json::to_vec(question)
            .map_err(|error| Error::with_source(ErrorKind::Internal, "a question that can't be written", error))?;
        let mut request = self.client().post(format!("{address}{SEARCH_PATH}")).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.map_err(failed)?;
        let said = *status.insert(answer.status());
        // Another version or other shards than it said a moment ago.
        // Or a question that nobody can answer: that is no fault of who is asked.
        if said.is_client_error() && said != StatusCode::UNAUTHORIZED {
            return Ok(None);
        }
        let answer = answer.error_for_status().map_err(failed)?;
        let answer = serde_json::from_slice(&bounded(answer, ANSWER_BYTES_MAX).await?);
        answer
            .map(Some)
            .map_err(|error| Error::with_source(ErrorKind::Unavailable, "an answer that can't be read", error))
    }

    fn earn_hedge(&self) {
        let earn = |saved: i64| Some((saved + HEDGE_EARNED).min(HEDGE_SAVED_MAX));
        // What the closure gives is always something.
        let _ = self.hedges().fetch_update(Ordering::Relaxed, Ordering::Relaxed, earn);
    }

    fn spend_hedge(&self) -> bool {
        let spend = |saved: i64| (saved >= HEDGE_COSTS).then(|| saved - HEDGE_COSTS);
        self.hedges()
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
            .is_ok()
    }
}

/// The span of a call, which says how the call ended whatever ends it.
struct CallSpan {
    span: Span,
    outcome: &'static str,
}

impl CallSpan {
    fn new(asked: &Asked) -> Self {
        let address = asked.peer.address.as_str();
        let host = address.split_once("://").map_or(address, |(_, host)| host);
        let span = tracing::debug_span!(
            target: SPANS,
            "call",
            otel.name = format!("POST {SEARCH_PATH}"),
            otel.kind = "client",
            otel.status_code = Empty,
            http.request.method = "POST",
            http.response.status_code = Empty,
            url.full = format!("{address}{SEARCH_PATH}"),
            server.address = host.rsplit_once(':').map_or(host, |(host, _)| host),
            server.port = host.rsplit_once(':').and_then(|(_, port)| port.parse::<i64>().ok()),
            medsearch.shards = %Shards(&asked.shards),
            medsearch.why = asked.why.as_str(),
            medsearch.outcome = Empty,
        );
        let outcome = "given up";
        Self { span, outcome }
    }

    fn ends(&mut self, status: Option<StatusCode>, answer: &Result<ShardAnswer, Failure>) {
        if let Some(status) = status {
            self.span
                .record("http.response.status_code", i64::from(status.as_u16()));
        }
        self.outcome = match answer {
            Ok(_) => "answered",
            Err(Failure::Declined) => "declined",
            Err(Failure::Failed) => "failed",
            Err(Failure::Late) => "late",
        };
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        self.span.record("medsearch.outcome", self.outcome);
        if matches!(self.outcome, "failed" | "late") {
            self.span.record("otel.status_code", "error");
        }
    }
}

/// Shards as a span shows them: `0,1,5`.
pub struct Shards<'a>(pub &'a BTreeSet<u32>);

impl fmt::Display for Shards<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for shard in self.0 {
            write!(f, "{comma}{shard}")?;
            comma = ",";
        }
        Ok(())
    }
}

/// After how long those who were asked get company.
fn hedge_after(cluster: &Cluster) -> Duration {
    let fastest = cluster.peers().iter().filter_map(|(peer, _)| peer.p95()).min();
    fastest.map_or(HEDGE_AFTER_UNKNOWN, |p95| p95.max(HEDGE_AFTER_MIN))
}

/// One query on its way.
struct Fan<'a> {
    cluster: &'a Cluster,
    question: &'a ShardQuery,
    /// Not answered yet.
    open: BTreeSet<u32>,
    /// Who was asked for each.
    tried: BTreeMap<u32, BTreeSet<String>>,
    /// Asked for again.
    retried: BTreeSet<u32>,
    /// To be asked for again, of whom nobody knows yet.
    unasked: BTreeSet<u32>,
    rankings: Vec<ShardRanking>,
}

impl Fan<'_> {
    /// For each of these shards the best replica that was not asked for it yet, together where it is the same one.
    fn choose(&self, shards: &BTreeSet<u32>) -> Vec<(Arc<Peer>, BTreeSet<u32>)> {
        let now = Instant::now();
        let holders: Vec<(Arc<Peer>, Arc<Status>, Rank)> = (self.cluster.peers().into_iter())
            .map(|(peer, status)| {
                let rank = Rank {
                    ejected: peer.is_ejected(now),
                    draining: status.draining,
                    cost: peer.cost(now),
                };
                (peer, status, rank)
            })
            .collect();
        let mut chosen: BTreeMap<String, (Arc<Peer>, BTreeSet<u32>)> = BTreeMap::new();
        for &shard in shards {
            let holds = |(peer, status, _): &&(Arc<Peer>, Arc<Status>, Rank)| {
                let mut held = status
                    .held
                    .iter()
                    .filter(|held| held.is(self.question.version, &self.question.commit));
                let tried = self
                    .tried
                    .get(&shard)
                    .is_some_and(|tried| tried.contains(&peer.address));
                !tried && held.any(|held| held.shards.contains(&shard))
            };
            let best = holders.iter().filter(holds).min_by(|(.., a), (.., b)| a.order(b));
            if let Some((peer, ..)) = best {
                let of = chosen.entry(peer.address.clone());
                of.or_insert_with(|| (Arc::clone(peer), BTreeSet::new()))
                    .1
                    .insert(shard);
            }
        }
        chosen.into_values().collect()
    }

    fn begin(&mut self, chosen: Vec<(Arc<Peer>, BTreeSet<u32>)>, why: Why) -> Vec<Asked> {
        for (peer, shards) in &chosen {
            for &shard in shards {
                self.tried.entry(shard).or_default().insert(peer.address.clone());
            }
        }
        let asked = |(peer, shards)| Asked { peer, shards, why };
        chosen.into_iter().map(asked).collect()
    }

    /// Those of these shards that were not asked for again yet, of another replica, as far as one is known.
    fn retry(&mut self, mut shards: BTreeSet<u32>) -> Vec<Asked> {
        shards.retain(|shard| self.open.contains(shard) && !self.retried.contains(shard));
        let chosen = self.choose(&shards);
        for shard in shards {
            if chosen.iter().any(|(_, shards)| shards.contains(&shard)) {
                self.retried.insert(shard);
                self.unasked.remove(&shard);
            } else {
                self.unasked.insert(shard);
            }
        }
        let asked = self.begin(chosen, Why::Retry);
        asked.iter().for_each(|_| self.cluster.metrics().retry());
        asked
    }

    /// Of each shard the first answer counts.
    fn take(&mut self, asked: &Asked, answer: ShardAnswer) {
        for ranking in answer.rankings {
            if asked.shards.contains(&ranking.shard) && self.open.remove(&ranking.shard) {
                self.rankings.push(ranking);
            }
        }
    }
}

/// Who is asked first.
struct Rank {
    ejected: bool,
    draining: bool,
    cost: f64,
}

impl Rank {
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let flags = |rank: &Self| (rank.ejected, rank.draining);
        flags(self).cmp(&flags(other)).then(self.cost.total_cmp(&other.cost))
    }
}
