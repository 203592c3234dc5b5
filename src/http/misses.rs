//! Requests that name a patient, a study, a series or an instance as it was called before it came here. Whoever may search may ask so, for exact matches are how a
//! viewer finds its images; whoever asks for one after the other that is not there is trying names, and has to wait. With the scope `link`, and where nobody
//! needs a key, there is nothing to be found out.

use std::sync::Arc;
use std::time::Instant;

use actix_web::{HttpMessage, HttpRequest};

use super::State;
use super::access::{KeyHolder, Scope};
use super::rate::{Limits, Miss, NamedBy};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::RefusalReason;

/// A request that names somebody, until it is known whether the archive has them. One that ends without an answer has found out nothing.
pub struct Naming {
    limits: Arc<Limits>,
    miss: Option<Miss>,
}

impl State {
    /// Takes a request that names somebody.
    ///
    /// # Errors
    /// `RateLimited` for a caller who has named too many that are not there, whoever is named now: what is there shall not be told from what is not.
    pub fn naming(&self, request: &HttpRequest, by: NamedBy) -> Result<Naming> {
        let limits = Arc::clone(&self.limits);
        let extensions = request.extensions();
        let miss = match extensions.get::<KeyHolder>() {
            Some(holder) if !holder.scopes.allow(Scope::Link) => {
                let taken = limits.take_miss(holder.name.as_str(), by, Instant::now());
                taken.map_err(|wait| {
                    self.metrics.refused(RefusalReason::IdentityMisses);
                    let message = "this caller has named too many patients or UIDs that the archive does not have";
                    Error::new(ErrorKind::RateLimited, message).retry_after(wait)
                })?
            }
            _ => None,
        };
        Ok(Naming { limits, miss })
    }
}

impl Naming {
    /// So many of those that it names are not there.
    pub fn missed(mut self, count: usize) {
        if count > 0
            && let Some(miss) = self.miss.take()
        {
            self.limits
                .missed(miss, u32::try_from(count).unwrap_or(u32::MAX), Instant::now());
        }
    }
}

impl Drop for Naming {
    fn drop(&mut self) {
        if let Some(miss) = self.miss.take() {
            self.limits.no_miss(miss);
        }
    }
}
