//! Who has asked how often, while a server runs.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::recent::Recent;
use super::{Left, Rate};

/// Callers that are told apart, twice so many at most: more than there are keys.
const CALLERS: usize = 4096;
/// Addresses that are told apart, twice so many at most.
const ADDRESSES: usize = 16_384;
/// An address from which a key came that is known is not held up for so long, whatever else comes from there: it may be a proxy, or a hospital's.
const TRUSTED_FOR: Duration = Duration::from_secs(3600);

/// What an operator decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct RateSettings {
    /// Requests of one caller; none: as many as it likes.
    pub requests: Option<Rate>,
    /// Those that put images in or change them, counted apart from the others: a PACS sends what it has, and people shall search meanwhile.
    pub ingest: Option<Rate>,
    /// Wrong keys from one address.
    pub wrong_keys: Option<Rate>,
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

/// The buckets of everybody.
#[derive(Debug)]
pub struct Limits {
    settings: RateSettings,
    began: Instant,
    callers: Mutex<Recent<(Box<str>, Spent), Bucket>>,
    addresses: Mutex<Recent<IpAddr, Address>>,
}

/// What is known of an address.
#[derive(Debug, Default)]
struct Address {
    wrong_keys: Bucket,
    /// When a known key last came from it.
    known_at: Option<Duration>,
}

impl Limits {
    /// Nobody has asked yet.
    pub fn new(settings: RateSettings) -> Self {
        Self {
            settings,
            began: Instant::now(),
            callers: Mutex::new(Recent::new(CALLERS)),
            addresses: Mutex::new(Recent::new(ADDRESSES)),
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

    /// How long a key from this address is not looked at: too many wrong ones came from it, and no known one.
    pub fn held_up(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let rate = self.settings.wrong_keys?;
        let now = self.since_began(now);
        let mut addresses = lock(&self.addresses);
        let known = addresses.get(network(address));
        if known.known_at.is_some_and(|at| now.saturating_sub(at) < TRUSTED_FOR) {
            return None;
        }
        rate.wait(known.wrong_keys, now)
    }

    /// A known key came from this address.
    pub fn known_key(&self, address: IpAddr, now: Instant) {
        if self.settings.wrong_keys.is_some() {
            let now = self.since_began(now);
            lock(&self.addresses).get(network(address)).known_at = Some(now);
        }
    }

    /// A wrong key came from this address. Gives how long to wait, where that is one too many.
    pub fn wrong_key(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let rate = self.settings.wrong_keys?;
        let now = self.since_began(now);
        let mut addresses = lock(&self.addresses);
        rate.take(&mut addresses.get(network(address)).wrong_keys, now).err()
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
    fn an_address_of_a_known_key_is_not_held_up_for_an_hour() {
        let limits = limits(0, 0, 1);
        let (now, proxy) = (Instant::now(), address("192.0.2.1"));
        limits.known_key(proxy, now);
        assert_eq!(limits.wrong_key(proxy, now), None);
        assert!(limits.wrong_key(proxy, now).is_some(), "the wrong key itself is told");
        assert_eq!(limits.held_up(proxy, now), None);
        let later = now + TRUSTED_FOR - SECOND;
        assert_eq!(limits.held_up(proxy, later), None);
        let later = now + TRUSTED_FOR + SECOND;
        limits.wrong_key(proxy, later);
        assert!(limits.held_up(proxy, later).is_some());
    }
}
