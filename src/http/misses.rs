//! Requests that name a patient, a study, a series or an instance as it was called before it came here. Whoever may search may ask so, for exact matches are how a
//! viewer finds its images; whoever asks for one after the other that is not there is trying names, and has to wait. With the scope `link`, and where nobody
//! needs a key, there is nothing to be found out.

use std::sync::Arc;
use std::time::Instant;

use actix_web::{HttpMessage, HttpRequest};

use super::State;
use super::access::{KeyHolder, Scope};
use super::rate::{Limits, Misses, NamedBy};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::RefusalReason;

/// A request that names somebody, until it is known whether the archive has them. One that ends without an answer has found out nothing.
pub struct Naming {
    limits: Arc<Limits>,
    misses: Option<Misses>,
}

impl State {
    /// Takes a request with so many names, which all count as misses until they were looked up: lists sent at the same time try no more than one after the other.
    ///
    /// # Errors
    /// `RateLimited` for a caller who has named too many that are not there, whoever is named now: what is there shall not be told from what is not.
    pub fn naming(&self, request: &HttpRequest, by: NamedBy, names: usize) -> Result<Naming> {
        let limits = Arc::clone(&self.limits);
        let extensions = request.extensions();
        let names = u32::try_from(names).unwrap_or(u32::MAX);
        let misses = match extensions.get::<KeyHolder>() {
            Some(holder) if !holder.scopes.allow(Scope::Link) => {
                let taken = limits.take_misses(holder.name.as_str(), by, names, Instant::now());
                taken.map_err(|wait| {
                    self.metrics.refused(RefusalReason::IdentityMisses);
                    let message = "this caller has named too many patients or UIDs that the archive does not have";
                    Error::new(ErrorKind::RateLimited, message).retry_after(wait)
                })?
            }
            _ => None,
        };
        Ok(Naming { limits, misses })
    }
}

impl Naming {
    /// So many of those that it names are not there.
    pub fn missed(mut self, count: usize) {
        self.settle(u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn settle(&mut self, count: u32) {
        if let Some(misses) = self.misses.take() {
            self.limits.missed(misses, count);
        }
    }
}

impl Drop for Naming {
    fn drop(&mut self) {
        self.settle(0);
    }
}
