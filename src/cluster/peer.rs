//! What is known of one other replica: how it said that it is, and how quickly it answers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::wire::Status;

/// A replica that has said nothing for so long is not asked. A status is asked for twice a second; on a busy machine some are late, and one that does not
/// answer is noticed by its calls first.
pub const ROUTED_FOR: Duration = Duration::from_secs(5);
/// One that has said nothing for so long is gone: its shards go to others. Longer than a restart.
pub const PLACED_FOR: Duration = Duration::from_secs(10);
/// How fast a slow answer is forgotten: after this time a third of it counts.
const LATENCY_DECAYS: Duration = Duration::from_secs(10);
/// Latest answers that a percentile is made of.
const SAMPLES: usize = 64;
/// Before there are so many, nobody knows what is usual.
const SAMPLES_MIN: usize = 8;
/// Failures one after the other that eject.
const FAILURES_MAX: u32 = 3;
/// The first ejection lasts so long, each further one twice as long.
const EJECTED_FOR: Duration = Duration::from_secs(2);
/// The longest ejection.
const EJECTED_FOR_MAX: Duration = Duration::from_secs(30);
/// One that takes so long to say how it is, twice in a row, is overloaded, or far: a status is next to no work.
const STATUS_SLOW: Duration = Duration::from_millis(250);
/// So many times as much it costs to ask such a one: it is avoided while others are not busy far beyond that, and no replica gets everything at once.
const SLOW_COSTS: f64 = 4.0;

/// Another replica.
#[derive(Debug)]
pub struct Peer {
    /// Where its inner endpoints are, `http://HOST:PORT`.
    pub address: String,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    status: Option<Arc<Status>>,
    heard: Option<Instant>,
    /// Since when it is being asked how it is.
    asked: Option<Instant>,
    /// The time that it took to say so the last time, and the time before.
    statuses_took: [Duration; 2],
    /// Peak-sensitive moving average of answer times, in seconds, and when it was true.
    average: Option<(f64, Instant)>,
    /// The latest answer times, a ring.
    samples: Vec<Duration>,
    next_sample: usize,
    in_flight: BTreeMap<u64, Instant>,
    next_call: u64,
    failures: u32,
    ejections: u32,
    ejected_until: Option<Instant>,
}

impl Peer {
    /// One of which nothing is known yet.
    pub fn new(address: String) -> Self {
        Self {
            address,
            known: Mutex::default(),
        }
    }

    /// It is asked how it is, unless it is asked already. Ends with [`Peer::was_asked`].
    pub fn ask(&self, now: Instant) -> bool {
        let mut known = self.known();
        let is_free = known.asked.is_none();
        if is_free {
            known.asked = Some(now);
        }
        is_free
    }

    /// It said how it is, or did not: to be refused at once is not to be quick.
    pub fn was_asked(&self, has_said: bool, now: Instant) {
        let mut known = self.known();
        if let Some(began) = known.asked.take() {
            let (took, before) = (now.saturating_duration_since(began), known.statuses_took[0]);
            known.statuses_took = [if has_said { took } else { took.max(before) }, before];
        }
    }

    /// It said how it is.
    pub fn heard(&self, status: Status, now: Instant) {
        let mut known = self.known();
        known.status = Some(Arc::new(status));
        known.heard = Some(now);
    }

    /// What it said last, if that was not too long ago.
    pub fn status(&self, within: Duration, now: Instant) -> Option<Arc<Status>> {
        let known = self.known();
        known
            .heard
            .filter(|&heard| now.saturating_duration_since(heard) <= within)?;
        known.status.clone()
    }

    /// What it said last, if it can be asked: it said so lately, and both speak a wire that the other understands.
    pub fn routed(&self, now: Instant) -> Option<Arc<Status>> {
        self.status(ROUTED_FOR, now).filter(|status| status.is_understood())
    }

    /// It failed again and again: asked only where nobody else can be.
    pub fn is_ejected(&self, now: Instant) -> bool {
        self.known().is_ejected(now)
    }

    /// It is ejected, or so slow that its status tells.
    pub fn is_slow(&self, now: Instant) -> bool {
        let known = self.known();
        known.is_ejected(now) || known.status_takes(now) >= STATUS_SLOW
    }

    /// What it is expected to cost to ask it now: answer time, times the calls that wait already. A call that has waited longer than usual counts by that, and so
    /// does a status: one that is slow to say how it is is slow to answer too, and no search has to find that out.
    pub fn cost(&self, now: Instant) -> f64 {
        let known = self.known();
        let oldest = since(known.in_flight.values().next(), now);
        let status = known.status_takes(now);
        let slow = if status < STATUS_SLOW { 1.0 } else { SLOW_COSTS };
        known.average(now).max(oldest.max(status).as_secs_f64()) * slow * (known.in_flight.len() + 1) as f64
    }

    /// The time within which 95 of 100 of its answers come, once there are a few.
    pub fn p95(&self) -> Option<Duration> {
        let known = self.known();
        let mut samples = known.samples.clone();
        if samples.len() < SAMPLES_MIN {
            return None;
        }
        samples.sort_unstable();
        samples.get((samples.len() * 95).div_ceil(100) - 1).copied()
    }

    /// A call begins; it ends with [`Call::answered`] or [`Call::failed`], or is given up by dropping it.
    pub fn call(self: &Arc<Self>, now: Instant) -> Call {
        let mut known = self.known();
        let number = known.next_call;
        known.next_call += 1;
        known.in_flight.insert(number, now);
        Call {
            peer: Arc::clone(self),
            number,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    fn average(&self, now: Instant) -> f64 {
        self.average
            .map_or(0.0, |(average, at)| average * decay(now.saturating_duration_since(at)))
    }

    /// The time that two statuses in a row took at least, the one that is waited for among them: a single one may be late for any reason.
    fn status_takes(&self, now: Instant) -> Duration {
        let [latest, before] = self.statuses_took;
        latest.min(before.max(since(self.asked.as_ref(), now)))
    }

    fn took(&mut self, took: Duration, now: Instant) {
        let seconds = took.as_secs_f64();
        let before = self
            .average
            .map(|(average, at)| (average, decay(now.saturating_duration_since(at))));
        let average = match before {
            // A peak counts at once, and is forgotten slowly: better to leave a slow one alone too long than to find out again and again.
            Some((average, kept)) if average > seconds => average * kept + seconds * (1.0 - kept),
            _ => seconds,
        };
        self.average = Some((average, now));
        if self.samples.len() < SAMPLES {
            self.samples.push(took);
        } else {
            let at = self.next_sample % SAMPLES;
            self.samples[at] = took;
        }
        self.next_sample = self.next_sample.wrapping_add(1);
    }
}

fn since(began: Option<&Instant>, now: Instant) -> Duration {
    began.map_or(Duration::ZERO, |&began| now.saturating_duration_since(began))
}

fn decay(since: Duration) -> f64 {
    (-since.as_secs_f64() / LATENCY_DECAYS.as_secs_f64()).exp()
}

/// A call that is going on.
#[derive(Debug)]
pub struct Call {
    peer: Arc<Peer>,
    number: u64,
}

impl Call {
    /// Whom is called.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// The answer is here.
    pub fn answered(self, now: Instant) {
        let mut known = self.peer.known();
        if let Some(began) = known.in_flight.remove(&self.number) {
            known.took(now.saturating_duration_since(began), now);
        }
        known.failures = 0;
        known.ejections = 0;
    }

    /// It said that it can't answer this question, as one whose version is behind: no fault of its own.
    pub fn declined(self) {
        self.peer.known().in_flight.remove(&self.number);
    }

    /// It failed. True: once too often.
    pub fn failed(self, now: Instant) -> bool {
        let mut known = self.peer.known();
        known.in_flight.remove(&self.number);
        // It began before that: the same trouble, not one more.
        if known.is_ejected(now) {
            return false;
        }
        known.failures += 1;
        if known.failures < FAILURES_MAX {
            return false;
        }
        known.failures = 0;
        let longer = EJECTED_FOR.saturating_mul(1 << known.ejections.min(8));
        known.ejections += 1;
        known.ejected_until = Some(now + longer.min(EJECTED_FOR_MAX));
        true
    }
}

impl Call {
    fn give_up(&mut self, now: Instant) {
        let mut known = self.peer.known();
        if let Some(began) = known.in_flight.remove(&self.number) {
            let waited = now.saturating_duration_since(began);
            if waited.as_secs_f64() > known.average(now) {
                known.took(waited, now);
            }
        }
    }
}

impl Drop for Call {
    /// Given up, since there was too little time, or the program ends: it takes at least so long.
    fn drop(&mut self) {
        self.give_up(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::WIRE;
    use super::*;

    const QUICK: Duration = Duration::from_millis(5);
    const SLOW: Duration = Duration::from_millis(500);

    /// A peer and a clock that only we turn.
    struct Watched {
        peer: Arc<Peer>,
        now: Instant,
    }

    impl Watched {
        fn new() -> Self {
            Self {
                peer: Arc::new(Peer::new(String::new())),
                now: Instant::now(),
            }
        }

        fn answers_in(&mut self, took: Duration) {
            let call = self.peer.call(self.now);
            self.now += took;
            call.answered(self.now);
        }

        fn cost(&self) -> f64 {
            self.peer.cost(self.now)
        }

        /// Whether it was once too often.
        fn fails(&self) -> bool {
            self.peer.call(self.now).failed(self.now)
        }
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgotten_slowly() {
        let mut watched = Watched::new();
        (0..20).for_each(|_| watched.answers_in(QUICK));
        assert!((0.004..0.006).contains(&watched.cost()), "{}", watched.cost());
        watched.answers_in(SLOW);
        assert!(watched.cost() > 0.4);
        (0..20).for_each(|_| watched.answers_in(QUICK));
        assert!(watched.cost() > 0.3, "twenty quick ones don't make up for it");
        watched.now += 6 * LATENCY_DECAYS;
        assert!(watched.cost() < 0.005, "after a minute it is tried again");
    }

    #[test]
    fn who_waits_already_and_how_long_counts() {
        let mut watched = Watched::new();
        watched.answers_in(QUICK);
        let alone = watched.cost();
        let mut first = watched.peer.call(watched.now);
        assert!(watched.cost() > 1.9 * alone);
        watched.now += SLOW;
        assert!(
            watched.cost() >= 1.0,
            "no answer for half a second, and one more would wait"
        );
        first.give_up(watched.now);
        assert!(watched.cost() >= 0.4, "what was given up took at least so long");
    }

    #[test]
    fn a_slow_status_counts_like_a_slow_answer_for_as_long_as_it_is_slow() {
        let mut watched = Watched::new();
        watched.answers_in(QUICK);
        let status_in = |watched: &mut Watched, took| {
            assert!(watched.peer.ask(watched.now) && !watched.peer.ask(watched.now));
            watched.now += took;
            watched.peer.was_asked(true, watched.now);
        };
        status_in(&mut watched, SLOW);
        assert!(watched.cost() < 0.006, "one late status says nothing");
        assert!(watched.peer.ask(watched.now));
        watched.now += SLOW;
        assert!(
            watched.cost() >= 2.0 && watched.peer.is_slow(watched.now),
            "before the second has come"
        );
        watched.peer.was_asked(true, watched.now);
        watched.now += 6 * LATENCY_DECAYS;
        assert!(
            watched.cost() >= 2.0 && watched.peer.is_slow(watched.now),
            "nothing better is known of it"
        );
        assert!(watched.peer.ask(watched.now));
        watched.peer.was_asked(false, watched.now);
        assert!(
            watched.peer.is_slow(watched.now),
            "one that refuses at once is not quick"
        );
        status_in(&mut watched, QUICK);
        assert!(watched.cost() < 0.006 && !watched.peer.is_slow(watched.now));
    }

    #[test]
    fn three_failures_eject_for_a_while() {
        let mut watched = Watched::new();
        assert_eq!(
            [watched.fails(), watched.fails(), watched.fails()],
            [false, false, true]
        );
        assert!(watched.peer.is_ejected(watched.now));
        watched.now += EJECTED_FOR;
        assert!(!watched.peer.is_ejected(watched.now));
        assert_eq!(
            [watched.fails(), watched.fails(), watched.fails()],
            [false, false, true]
        );
        watched.now += EJECTED_FOR;
        assert!(watched.peer.is_ejected(watched.now), "the second time longer");
        watched.now += EJECTED_FOR;
        watched.answers_in(QUICK);
        assert_eq!([watched.fails(), watched.fails()], [false, false]);
        watched.answers_in(QUICK);
        assert!(!watched.fails(), "an answer in between counts");
    }

    #[test]
    fn what_was_under_way_when_it_was_ejected_is_no_further_trouble() {
        let watched = Watched::new();
        let calls: Vec<Call> = (0..9).map(|_| watched.peer.call(watched.now)).collect();
        let ejections = calls.into_iter().map(|call| call.failed(watched.now));
        assert_eq!(ejections.filter(|&ejected| ejected).count(), 1);
        assert!(!watched.peer.is_ejected(watched.now + EJECTED_FOR));
    }

    #[test]
    fn the_percentile_is_of_the_latest_answers() {
        let mut watched = Watched::new();
        for _ in 0..SAMPLES_MIN {
            assert_eq!(watched.peer.p95(), None);
            watched.answers_in(SLOW);
        }
        assert_eq!(watched.peer.p95(), Some(SLOW));
        (0..SAMPLES).for_each(|_| watched.answers_in(QUICK));
        assert_eq!(watched.peer.p95(), Some(QUICK));
    }

    #[test]
    fn silence_ends_routing_first_and_placement_later() {
        let Watched { peer, now } = Watched::new();
        assert!(peer.routed(now).is_none());
        let status = Status::example();
        peer.heard(status.clone(), now);
        assert!(peer.routed(now).is_some());
        let later = now + ROUTED_FOR + QUICK;
        assert!(peer.routed(later).is_none() && peer.status(PLACED_FOR, later).is_some());
        assert!(peer.status(PLACED_FOR, now + PLACED_FOR + QUICK).is_none());
        let wire_oldest = WIRE + 1;
        peer.heard(Status { wire_oldest, ..status }, now);
        assert!(peer.routed(now).is_none(), "it would not understand");
    }
}
