//! The audit of a running server, and its heads in the archive.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::AuditPlace;
use crate::archive::Archive;
use crate::audit::{Audit, AuditSettings};
use crate::error::Result;
use crate::http::Auditor;
use crate::metrics::Metrics;

/// Time between two heads, while something is written: lines younger than that can be cut off unnoticed by somebody who can write to the folder.
const HEAD_EVERY: Duration = Duration::from_secs(10);
/// Heads that the archive keeps of one process: the last, and the one before, so that there always is one.
const HEADS_KEPT: usize = 2;

/// The audit of one server.
pub(super) struct Auditing {
    auditor: Arc<Auditor>,
    heads: Arc<Heads>,
    keeper: JoinHandle<()>,
    follower: Mutex<Option<JoinHandle<()>>>,
}

impl Auditing {
    /// Begins it, on the tasks of the runtime that this is called on.
    ///
    /// # Errors
    /// As [`Audit::open`].
    pub async fn begin(place: AuditPlace, replica: String, archive: Archive, metrics: &Arc<Metrics>) -> Result<Self> {
        let known = match archive.audit_heads().await {
            Ok(found) => found.heads,
            Err(error) => {
                tracing::warn!(error = %error, "the heads of earlier audits can't be read");
                Vec::new()
            }
        };
        // Other replicas write their own.
        let known = known.into_iter().filter(|head| head.replica == replica).collect();
        let settings = AuditSettings {
            folder: place.folder,
            bytes_max: place.bytes_max,
            replica,
            digest_key: archive.identity().audit_key(),
        };
        let audit = Audit::open(settings, known, Arc::clone(metrics))?;
        let auditor = Arc::new(Auditor::new(audit.clone()));
        let heads = Arc::new(Heads {
            archive,
            audit,
            metrics: Arc::clone(metrics),
            kept: Mutex::default(),
        });
        let keeper = tokio::spawn(keep(Arc::clone(&auditor), Arc::clone(&heads)));
        Ok(Self {
            auditor,
            heads,
            keeper,
            follower: Mutex::default(),
        })
    }

    /// What the service writes into.
    pub fn auditor(&self) -> Arc<Auditor> {
        Arc::clone(&self.auditor)
    }

    /// Notes changes of the keys file.
    pub fn follow_keys(&self, changes: watch::Receiver<usize>) {
        let auditor = self.auditor();
        let follower = tokio::spawn(async move { auditor.follow_keys(changes).await });
        *self.follower.lock().unwrap_or_else(PoisonError::into_inner) = Some(follower);
    }

    /// Ends it: everything that happened has its line, and the archive the last head.
    pub async fn end(self) {
        self.keeper.abort();
        if let Some(follower) = self.follower.lock().unwrap_or_else(PoisonError::into_inner).take() {
            follower.abort();
        }
        self.auditor.end();
        self.auditor.audit().finish().await;
        self.heads.keep().await;
    }
}

async fn keep(auditor: Arc<Auditor>, heads: Arc<Heads>) {
    loop {
        heads.keep().await;
        tokio::time::sleep(HEAD_EVERY).await;
        auditor.tick();
    }
}

/// Heads of one audit in the archive.
struct Heads {
    archive: Archive,
    audit: Audit,
    metrics: Arc<Metrics>,
    /// Numbers of the lines whose heads are there.
    kept: Mutex<VecDeque<u64>>,
}

impl Heads {
    /// Puts the head into the archive, if there is a new one.
    async fn keep(&self) {
        let head = self.audit.head();
        if head.seq == 0 || self.kept().back() == Some(&head.seq) {
            return;
        }
        let kept = self.archive.keep_audit_head(&head).await;
        self.metrics.audit_head(kept.is_ok());
        if let Err(error) = kept {
            tracing::warn!(error = %error, "the head of the audit can't be put into the archive");
            return;
        }
        let old = {
            let mut kept = self.kept();
            kept.push_back(head.seq);
            if kept.len() > HEADS_KEPT {
                kept.pop_front()
            } else {
                None
            }
        };
        if let Some(old) = old
            && let Err(error) = self.archive.drop_audit_head(head.process, old).await
        {
            // It stays, and does no harm.
            tracing::debug!(error = %error, "an old head of the audit can't be deleted");
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, VecDeque<u64>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
