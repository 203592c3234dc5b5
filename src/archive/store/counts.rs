//! What was asked of a storage and how that ended, and what was found damaged: counted since it was opened.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a storage is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    Get,
    Head,
    Put,
    Delete,
    List,
}

impl Operation {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Get, "get"),
        (Self::Head, "head"),
        (Self::Put, "put"),
        (Self::Delete, "delete"),
        (Self::List, "list"),
    ];
}

/// How that ends.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Done,
    /// There is no such object, which is the usual answer to whether there is a newer version.
    Missing,
    /// The name is taken, which is how a writer learns that another came first.
    Taken,
    Failed,
}

impl Outcome {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Done, "ok"),
        (Self::Missing, "missing"),
        (Self::Taken, "taken"),
        (Self::Failed, "failed"),
    ];

    fn of<T>(answer: &object_store::Result<T>) -> Self {
        match answer {
            Ok(_) => Self::Done,
            Err(object_store::Error::NotFound { .. }) => Self::Missing,
            Err(object_store::Error::AlreadyExists { .. }) => Self::Taken,
            Err(_) => Self::Failed,
        }
    }
}

/// Where bytes were found that are not what they should be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holder {
    /// The archive itself.
    Storage,
    /// The cache, which heals itself.
    Cache,
}

impl Holder {
    const ALL: [(Self, &'static str); 2] = [(Self::Storage, "storage"), (Self::Cache, "cache")];
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Counts {
    requests: [[AtomicU64; Outcome::ALL.len()]; Operation::ALL.len()],
    damage: [AtomicU64; Holder::ALL.len()],
}

impl Counts {
    /// Counts one request, tries again of `object_store` not apart.
    pub fn request<T>(&self, operation: Operation, answer: &object_store::Result<T>) {
        let outcome = Outcome::of(answer);
        self.requests[operation as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes that are not what they should be.
    pub fn damage(&self, holder: Holder) {
        self.damage[holder as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The numbers at this moment.
    pub fn figures(&self, cache_bytes: u64) -> StorageFigures {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let requests = Operation::ALL.into_iter().flat_map(|(operation, asked)| {
            Outcome::ALL.map(|(outcome, ended)| {
                (
                    asked,
                    ended,
                    count(&self.requests[operation as usize][outcome as usize]),
                )
            })
        });
        StorageFigures {
            requests: requests.collect(),
            damage: Holder::ALL.map(|(holder, place)| (place, count(&self.damage[holder as usize]))),
            cache_bytes,
        }
    }
}

/// What was asked of an archive's storage since it was opened, as plain numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageFigures {
    /// Operation (`get`, `head`, `put`, `delete`, `list`), outcome (`ok`, `missing`, `taken`, `failed`), how often.
    pub requests: Vec<(&'static str, &'static str, u64)>,
    /// Where bytes were not what they should be (`storage`, `cache`), how often.
    pub damage: [(&'static str, u64); 2],
    /// Bytes in the cache; 0 without one.
    pub cache_bytes: u64,
}
