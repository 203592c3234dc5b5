//! Which waiting requests form the next batch. Pure: the clock and what counts as dead come in from outside.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Requests that wait, oldest first.
pub(super) struct Batcher<T> {
    batch_max: usize,
    wait_max: Duration,
    waiting: VecDeque<(Instant, T)>,
}

/// What to do now.
#[derive(Debug, PartialEq)]
pub(super) enum Next<T> {
    /// Nothing waits.
    Idle,
    /// A fuller batch may come until then.
    WaitUntil(Instant),
    /// Run these, oldest first; never empty.
    Batch(Vec<T>),
}

impl<T> Batcher<T> {
    /// Batches of 1..=`batch_max`; the oldest request waits for company at most `wait_max`, and only for company that is on its way.
    pub fn new(batch_max: usize, wait_max: Duration) -> Self {
        Self {
            batch_max: batch_max.max(1),
            wait_max,
            waiting: VecDeque::new(),
        }
    }

    /// Adds a request that came at `now`.
    pub fn push(&mut self, item: T, now: Instant) {
        self.waiting.push_back((now, item));
    }

    /// Requests that wait, the dead included.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Drops those that nobody waits for any more and says how many these were.
    pub fn purge(&mut self, is_dead: impl Fn(&T) -> bool) -> usize {
        let before = self.waiting.len();
        self.waiting.retain(|(_, item)| !is_dead(item));
        before - self.waiting.len()
    }

    /// The next batch of the living, or how long to wait for it. `coming`: more requests are about to be added.
    pub fn next(&mut self, now: Instant, coming: bool, is_dead: impl Fn(&T) -> bool) -> (Next<T>, usize) {
        let dropped = self.purge(is_dead);
        let Some((oldest, _)) = self.waiting.front() else {
            return (Next::Idle, dropped);
        };
        let ready_at = *oldest + self.wait_max;
        if coming && self.waiting.len() < self.batch_max && now < ready_at {
            return (Next::WaitUntil(ready_at), dropped);
        }
        let size = self.waiting.len().min(self.batch_max);
        (
            Next::Batch(self.waiting.drain(..size).map(|(_, item)| item).collect()),
            dropped,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push { lives_ms: u64 },
        Next { later_ms: u64, coming: bool },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0u64..20).prop_map(|lives_ms| Step::Push { lives_ms }),
            1 => (0u64..6, any::<bool>()).prop_map(|(later_ms, coming)| Step::Next { later_ms, coming }),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn nothing_is_lost_reordered_or_run_for_nobody(steps in steps(), batch_max in 1usize..9, wait_ms in 0u64..5) {
            let start = Instant::now();
            let mut now = start;
            let mut batcher = Batcher::new(batch_max, Duration::from_millis(wait_ms));
            let (mut pushed, mut dropped, mut run) = (0usize, 0usize, Vec::new());
            let drain = [Step::Next { later_ms: 5, coming: true }].into_iter().cycle().take(steps.len() + 2);
            for step in steps.iter().cloned().chain(drain) {
                match step {
                    Step::Push { lives_ms } => {
                        batcher.push((pushed, now + Duration::from_millis(lives_ms)), now);
                        pushed += 1;
                    }
                    Step::Next { later_ms, coming } => {
                        now += Duration::from_millis(later_ms);
                        let waiting = batcher.len();
                        let (next, gone) = batcher.next(now, coming, |&(_, expires)| expires <= now);
                        dropped += gone;
                        match next {
                            Next::Idle => prop_assert_eq!(batcher.len(), 0),
                            Next::WaitUntil(at) => {
                                prop_assert!(coming && at > now && batcher.len() < batch_max && batcher.len() == waiting - gone);
                            }
                            Next::Batch(batch) => {
                                prop_assert!(!batch.is_empty() && batch.len() <= batch_max);
                                prop_assert!(batch.iter().all(|&(_, expires)| expires > now));
                                prop_assert_eq!(batcher.len(), waiting - gone - batch.len());
                                run.extend(batch.into_iter().map(|(id, _)| id));
                            }
                        }
                    }
                }
            }
            prop_assert_eq!(batcher.len(), 0);
            prop_assert_eq!(run.len() + dropped, pushed);
            prop_assert!(run.is_sorted());
        }
    }

    #[test]
    fn neither_a_full_batch_nor_a_lone_request_waits() {
        let now = Instant::now();
        let mut batcher = Batcher::new(2, Duration::from_secs(1));
        batcher.push('a', now);
        assert_eq!(
            batcher.next(now, true, |_| false).0,
            Next::WaitUntil(now + Duration::from_secs(1))
        );
        batcher.push('b', now);
        batcher.push('c', now);
        assert_eq!(batcher.next(now, true, |_| false).0, Next::Batch(vec!['a', 'b']));
        assert_eq!(batcher.next(now, false, |_| false).0, Next::Batch(vec!['c']));
    }
}
