//! Who has asked how often, while a server runs.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::bucket::{Bucket, Taken};
use super::recent::Recent;
use super::{Left, Rate};

/// Callers that are told apart, twice so many at most: more than there are keys.
const CALLERS: usize = 4096;
/// Addresses that are told apart, twice so many at most.
const ADDRESSES: usize = 16_384;
/// Files that name somebody whom the archive does not have may be searched so many times as often as others may be asked for: they are what a search is
/// for, and each costs a run of the model.
const FILES_TO_ONE: NonZeroU32 = NonZeroU32::new(10).expect("ten is not zero");

/// What an operator decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct RateSettings {
    /// Requests of one caller; none: as many as it likes.
    pub requests: Option<Rate>,
    /// Those that put images in or change them, counted apart from the others: a PACS sends what it has, and people shall search meanwhile.
    pub ingest: Option<Rate>,
    /// Wrong keys from one address.
    pub wrong_keys: Option<Rate>,
    /// Requests of one caller that name a patient or a UID which the archive does not have.
    pub identity_misses: Option<Rate>,
}

/// How a request names whom it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NamedBy {
    /// In its own words: a field, a query, a path.
    Request,
    /// By what is written in a DICOM file.
    File,
}

/// Which bucket a request is from, as its headers call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spent {
    /// Any.
    Requests,
    /// One that puts images in or changes them.
    Ingest,
}

impl Spent {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Ingest => "ingest",
        }
    }
}

/// Misses that were taken, until it is known how many there are.
#[derive(Debug, PartialEq, Eq)]
pub struct Misses {
    caller: Box<str>,
    by: NamedBy,
    taken: Taken,
}

/// The buckets of everybody.
#[derive(Debug)]
pub struct Limits {
    settings: RateSettings,
    began: Instant,
    callers: Mutex<Recent<(Box<str>, Spent), Bucket>>,
    addresses: Mutex<Recent<IpAddr, Bucket>>,
    misses: Mutex<Recent<(Box<str>, NamedBy), Bucket>>,
}

impl Limits {
    /// Nobody has asked yet.
    pub fn new(settings: RateSettings) -> Self {
        Self {
            settings,
            began: Instant::now(),
            callers: Mutex::new(Recent::new(CALLERS)),
            addresses: Mutex::new(Recent::new(ADDRESSES)),
            misses: Mutex::new(Recent::new(CALLERS)),
        }
    }

    /// Takes one request of a caller. None where there is no bound.
    ///
    /// # Errors
    /// What is left, which is nothing, and how long to wait.
    pub fn take(&self, caller: &str, spent: Spent, now: Instant) -> Result<Option<Left>, (Left, Duration)> {
        let rate = match spent {
            Spent::Requests => self.settings.requests,
            Spent::Ingest => self.settings.ingest,
        };
        let Some(rate) = rate else {
            return Ok(None);
        };
        let now = self.since_began(now);
        let mut callers = lock(&self.callers);
        let bucket = callers.get((caller.into(), spent));
        let taken = rate.take(bucket, now);
        taken.map(Some).map_err(|wait| (rate.nothing_left(*bucket, now), wait))
    }

    /// Takes so many of the misses of a caller, as many as a request has names, before it is known which are: while none is left, what is there is not told from
    /// what is not. None where there is no bound.
    ///
    /// # Errors
    /// How long to wait.
    pub fn take_misses(&self, caller: &str, by: NamedBy, names: u32, now: Instant) -> Result<Option<Misses>, Duration> {
        let Some(rate) = self.misses_rate(by) else {
            return Ok(None);
        };
        let now = self.since_began(now);
        let taken = rate.take_many(lock(&self.misses).get((caller.into(), by)), names, now)?;
        let caller = caller.into();
        Ok(Some(Misses { caller, by, taken }))
    }

    /// So many are: the caller may miss the others once more.
    pub fn missed(&self, Misses { caller, by, taken }: Misses, count: u32) {
        if let Some(rate) = self.misses_rate(by) {
            rate.give_back(lock(&self.misses).get((caller, by)), taken, count);
        }
    }

    fn misses_rate(&self, by: NamedBy) -> Option<Rate> {
        let rate = self.settings.identity_misses?;
        Some(match by {
            NamedBy::Request => rate,
            NamedBy::File => rate.times(FILES_TO_ONE),
        })
    }

    /// How long a key that may be guessed has to wait, since too many wrong ones came from this address.
    pub fn held_up(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let rate = self.settings.wrong_keys?;
        let now = self.since_began(now);
        rate.wait(*lock(&self.addresses).get(network(address)), now)
    }

    /// A wrong key came from this address. Gives how long to wait, where that is one too many.
    pub fn wrong_key(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let rate = self.settings.wrong_keys?;
        let now = self.since_began(now);
        let mut addresses = lock(&self.addresses);
        rate.take(addresses.get(network(address)), now).err()
    }

    fn since_began(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

/// Whoever has one address of IPv6 has 2^64 of them (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A bucket is a number: whoever panicked left it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(requests: u32, ingest: u32, wrong_keys: u32) -> Limits {
        Limits::new(RateSettings {
            requests: Rate::per_minute(requests),
            ingest: Rate::per_minute(ingest),
            wrong_keys: Rate::per_minute(wrong_keys),
            identity_misses: None,
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn callers_have_buckets_of_their_own_and_one_for_ingest() {
        let limits = limits(2, 1, 0);
        let now = Instant::now();
        let take = |caller, spent| {
            limits
                .take(caller, spent, now)
                .map(|left| left.map(|left| left.remaining))
        };
        assert_eq!(take("a", Spent::Requests), Ok(Some(1)));
        assert_eq!(take("a", Spent::Requests), Ok(Some(0)));
        let (left, wait) = take("a", Spent::Requests).unwrap_err();
        assert_eq!((left.limit, left.remaining), (2, 0));
        assert!(wait > 29 * SECOND && wait <= 30 * SECOND, "{wait:?}");
        assert_eq!(take("a", Spent::Ingest), Ok(Some(0)));
        assert!(take("a", Spent::Ingest).is_err());
        assert_eq!(take("b", Spent::Requests), Ok(Some(1)));
        assert!(limits.take("a", Spent::Requests, now + 31 * SECOND).is_ok());
    }

    #[test]
    fn without_a_bound_nothing_is_counted() {
        let limits = limits(0, 0, 0);
        let (now, from) = (Instant::now(), address("192.0.2.1"));
        for _ in 0..10_000 {
            assert_eq!(limits.take("a", Spent::Requests, now), Ok(None));
            assert_eq!(limits.wrong_key(from, now), None);
        }
        assert_eq!(limits.held_up(from, now), None);
    }

    #[test]
    fn who_guesses_waits_also_with_other_addresses_of_one_network() {
        let limits = limits(0, 0, 3);
        let now = Instant::now();
        for (guessing, same, other) in [
            ("2001:db8::1", "2001:db8::ffff:0:0:2", "2001:db8:0:1::1"),
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
        ] {
            let (guessing, same, other) = (address(guessing), address(same), address(other));
            for _ in 0..3 {
                assert_eq!(limits.held_up(guessing, now), None);
                assert_eq!(limits.wrong_key(guessing, now), None);
            }
            assert!(limits.held_up(same, now).is_some_and(|wait| wait <= 20 * SECOND));
            assert!(limits.wrong_key(same, now).is_some());
            assert_eq!(limits.held_up(other, now), None);
            assert_eq!(limits.held_up(guessing, now + 21 * SECOND), None);
        }
    }

    #[test]
    fn whoever_names_nobody_that_is_there_has_so_many_tries_an_hour_and_files_more() {
        let limits = Limits::new(RateSettings {
            identity_misses: Rate::per_hour(2),
            ..RateSettings::default()
        });
        let now = Instant::now();
        let miss = |caller, by| limits.take_misses(caller, by, 1, now);
        for _ in 0..50 {
            let hit = miss("a", NamedBy::Request).unwrap().unwrap();
            limits.missed(hit, 0);
        }
        assert!(miss("a", NamedBy::Request).is_ok() && miss("a", NamedBy::Request).is_ok());
        let wait = miss("a", NamedBy::Request).unwrap_err();
        assert!(wait > 1799 * SECOND && wait <= 1800 * SECOND, "{wait:?}");
        assert!(miss("b", NamedBy::Request).is_ok());
        // A list of many costs as many, whatever else it names; until that is known, all of it.
        let list = limits.take_misses("c", NamedBy::Request, 9, now).unwrap().unwrap();
        let wait = miss("c", NamedBy::Request).unwrap_err();
        assert!(wait > 8 * 1799 * SECOND && wait <= 8 * 1800 * SECOND, "{wait:?}");
        limits.missed(list, 5);
        let wait = miss("c", NamedBy::Request).unwrap_err();
        assert!(wait > 4 * 1799 * SECOND && wait <= 4 * 1800 * SECOND, "{wait:?}");
        let files = (0..50).filter(|_| miss("a", NamedBy::File).is_ok()).count();
        assert_eq!(files, 20);
        let unlimited = Limits::new(RateSettings::default());
        assert_eq!(unlimited.take_misses("a", NamedBy::Request, 1, now), Ok(None));
    }
}
