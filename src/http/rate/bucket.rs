//! A bucket of so many requests that fills up again within a minute, or an hour: the generic cell rate algorithm (ITU-T I.371), whose only state is a time.

use std::num::NonZeroU32;
use std::time::Duration;

/// The time in which an empty bucket of so many a minute is full again.
pub const WINDOW: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// Longest wait for one after many were taken that were not there.
const OVERDRAWN_NS_MAX: u64 = 24 * HOUR.as_nanos() as u64;

/// So many a minute, or an hour, all of them at once too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    window_ns: u64,
}

/// A bucket, full at first: when it will be full again, on a clock that begins with the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at_ns: u64,
}

/// What was taken out of a bucket at once: the time in which it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    ns: u64,
}

/// What is left of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Requests of a full one.
    pub limit: u32,
    /// Requests that could follow at once.
    pub remaining: u32,
    /// Until it is full.
    pub full_in: Duration,
}

impl Rate {
    /// None for zero: without a bound.
    pub fn per_minute(count: u32) -> Option<Self> {
        Self::new(count, WINDOW)
    }

    /// The same for an hour.
    pub fn per_hour(count: u32) -> Option<Self> {
        Self::new(count, HOUR)
    }

    fn new(count: u32, window: Duration) -> Option<Self> {
        let window_ns = nanoseconds(window);
        NonZeroU32::new(count).map(|count| Self { count, window_ns })
    }

    /// So many times as many, in the same time.
    pub fn times(self, times: NonZeroU32) -> Self {
        Self {
            count: self.count.saturating_mul(times),
            ..self
        }
    }

    /// Takes one out.
    ///
    /// # Errors
    /// How long until there is one, where there is none.
    pub fn take(self, bucket: &mut Bucket, now: Duration) -> Result<Left, Duration> {
        let now_ns = nanoseconds(now);
        let full_at_ns = bucket.full_at_ns.max(now_ns).saturating_add(self.each_ns());
        let empty_for_ns = full_at_ns - now_ns;
        if empty_for_ns > self.window_ns {
            return Err(Duration::from_nanos(empty_for_ns - self.window_ns));
        }
        bucket.full_at_ns = full_at_ns;
        let remaining = (self.window_ns - empty_for_ns) / self.each_ns();
        Ok(Left {
            limit: self.count.get(),
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            full_in: Duration::from_nanos(empty_for_ns),
        })
    }

    /// Takes so many out where there is one, also those that are not there: it will take the longer until there is one again, an hour for each full bucket of so
    /// many an hour. At most a day's worth.
    ///
    /// # Errors
    /// How long until there is one, where there is none.
    pub fn take_many(self, bucket: &mut Bucket, count: u32, now: Duration) -> Result<Taken, Duration> {
        let before_ns = bucket.full_at_ns.max(nanoseconds(now));
        self.take(bucket, now)?;
        let more_ns = self.each_ns().saturating_mul(count.saturating_sub(1).into());
        bucket.full_at_ns = bucket.full_at_ns.saturating_add(more_ns.min(OVERDRAWN_NS_MAX));
        Ok(Taken {
            ns: bucket.full_at_ns - before_ns,
        })
    }

    /// Puts back what was taken out, but for so many.
    pub fn give_back(self, bucket: &mut Bucket, taken: Taken, but: u32) {
        let kept_ns = self.each_ns().saturating_mul(but.into());
        bucket.full_at_ns = bucket.full_at_ns.saturating_sub(taken.ns.saturating_sub(kept_ns));
    }

    /// How long until one could be taken out; none where one could be now.
    pub fn wait(self, bucket: Bucket, now: Duration) -> Option<Duration> {
        let mut copy = bucket;
        self.take(&mut copy, now).err()
    }

    /// What is left where one was refused.
    pub fn nothing_left(self, bucket: Bucket, now: Duration) -> Left {
        Left {
            limit: self.count.get(),
            remaining: 0,
            full_in: Duration::from_nanos(bucket.full_at_ns.saturating_sub(nanoseconds(now))),
        }
    }

    /// The time in which one comes back. Rounded down: a minute's worth always fits into a minute.
    fn each_ns(self) -> u64 {
        self.window_ns / u64::from(self.count.get())
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn times() -> impl Strategy<Value = (u32, Vec<Duration>)> {
        let steps = prop::collection::vec(0_u64..20_000, 1..400);
        (1_u32..200, steps).prop_map(|(count, steps)| {
            let mut at = 0;
            let times = steps.into_iter().map(|step| {
                at += step;
                Duration::from_millis(at)
            });
            (count, times.collect())
        })
    }

    proptest! {
        #[test]
        fn no_span_of_time_has_more_than_a_full_bucket_and_what_comes_back_in_it((count, times) in times()) {
            let (rate, mut bucket) = (Rate::per_minute(count).unwrap(), Bucket::default());
            let taken: Vec<Duration> = times.into_iter().filter(|now| rate.take(&mut bucket, *now).is_ok()).collect();
            for (first, from) in taken.iter().enumerate() {
                for (last, to) in taken.iter().enumerate().skip(first) {
                    let back = (*to - *from).as_nanos() / u128::from(rate.each_ns());
                    prop_assert!((last - first + 1) as u128 <= u128::from(count) + back);
                }
            }
        }

        #[test]
        fn what_is_said_is_what_comes((count, times) in times()) {
            let (rate, mut bucket) = (Rate::per_minute(count).unwrap(), Bucket::default());
            for now in times {
                let before = bucket;
                let mut other = before;
                prop_assert_eq!(rate.wait(before, now), rate.take(&mut other, now).err());
                match rate.take(&mut bucket, now) {
                    Ok(left) => {
                        let mut more = bucket;
                        for _ in 0..left.remaining {
                            prop_assert!(rate.take(&mut more, now).is_ok());
                        }
                        prop_assert!(rate.take(&mut more, now).is_err());
                        prop_assert_eq!(rate.wait(bucket, now + left.full_in), None);
                        let mut later = bucket;
                        let full = rate.take(&mut later, now + left.full_in).unwrap();
                        prop_assert_eq!(full.remaining, count - 1);
                    }
                    Err(wait) => {
                        prop_assert_eq!(before, bucket, "a refused one costs nothing");
                        prop_assert!(wait <= WINDOW);
                        prop_assert!(rate.wait(bucket, now + wait).is_none());
                        let a_moment_before = now + wait - Duration::from_nanos(1);
                        prop_assert!(rate.wait(bucket, a_moment_before).is_some());
                    }
                }
            }
        }
    }

    #[test]
    fn a_bucket_is_full_at_first_and_after_a_minute() {
        let rate = Rate::per_minute(3).unwrap();
        let mut bucket = Bucket::default();
        let at = Duration::from_secs;
        let remaining = |bucket: &mut Bucket, now| rate.take(bucket, now).map(|left| left.remaining);
        assert_eq!(remaining(&mut bucket, at(5)), Ok(2));
        assert_eq!(remaining(&mut bucket, at(5)), Ok(1));
        assert_eq!(remaining(&mut bucket, at(5)), Ok(0));
        assert_eq!(remaining(&mut bucket, at(10)), Err(at(15)));
        assert_eq!(remaining(&mut bucket, at(25)), Ok(0));
        assert_eq!(remaining(&mut bucket, at(85)), Ok(2));
        assert_eq!(Rate::per_minute(0), None);
    }

    #[test]
    fn what_is_put_back_can_be_taken_again_and_no_more_than_that() {
        let rate = Rate::per_hour(2).unwrap();
        let (mut bucket, at) = (Bucket::default(), Duration::from_secs);
        for _ in 0..100 {
            let taken = rate.take_many(&mut bucket, 1, at(5)).unwrap();
            rate.give_back(&mut bucket, taken, 0);
        }
        assert!(rate.take(&mut bucket, at(5)).is_ok());
        let second = rate.take_many(&mut bucket, 1, at(5)).unwrap();
        assert_eq!(rate.take(&mut bucket, at(5)), Err(at(1800)));
        rate.give_back(&mut bucket, second, 0);
        // Many at once, of which three are kept, are waited for.
        let many = rate.take_many(&mut bucket, 9, at(5)).unwrap();
        assert_eq!(rate.wait(bucket, at(5)), Some(at(9 * 1800)));
        rate.give_back(&mut bucket, many, 3);
        assert_eq!(rate.wait(bucket, at(5)), Some(at(3 * 1800)));
        let more = Rate::per_hour(2).unwrap().times(NonZeroU32::new(10).unwrap());
        assert_eq!(more.take(&mut Bucket::default(), at(5)).unwrap().limit, 20);
    }

    #[test]
    fn a_day_is_the_longest_wait_and_what_was_not_taken_is_not_put_back() {
        let rate = Rate::per_hour(2).unwrap();
        let (mut bucket, at) = (Bucket::default(), Duration::from_secs);
        assert!(rate.take(&mut bucket, at(5)).is_ok());
        let before = bucket;
        let taken = rate.take_many(&mut bucket, u32::MAX, at(5)).unwrap();
        assert_eq!(rate.wait(bucket, at(5)), Some(at(24 * 3600 + 1800)));
        let mut all_there = bucket;
        rate.give_back(&mut all_there, taken, 0);
        assert_eq!(all_there, before);
        rate.give_back(&mut bucket, taken, u32::MAX);
        assert_eq!(rate.wait(bucket, at(5)), Some(at(24 * 3600 + 1800)));
    }
}
