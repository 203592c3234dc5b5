//! `GET /livez`, `/readyz`, `/startupz`, `/metrics`: for whoever runs the server.

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Data;

use super::State;
use crate::error::{Error, ErrorKind, Result};
use crate::ingest::Ingest;
use crate::metrics::ArchiveFigures;

/// The event loop turns.
pub async fn livez() -> &'static str {
    "alive\n"
}

/// Requests may be sent here: the threads that answer and write are alive, and it is not about to stop. Says nothing of other replicas: were one to lose
/// its place because another fails, all would.
pub async fn readyz(state: Data<State>) -> Result<&'static str> {
    if state.is_draining() {
        return Err(Error::new(ErrorKind::Unavailable, "about to stop"));
    }
    if state.engine.is_alive() && state.ingest.as_ref().is_none_or(Ingest::is_alive) {
        Ok("ready\n")
    } else {
        Err(Error::new(ErrorKind::Unavailable, "not ready"))
    }
}

/// The first load is over: the server listens only then.
pub async fn startupz() -> &'static str {
    "started\n"
}

/// Every time series, in the text format of Prometheus.
pub async fn metrics(state: Data<State>) -> Result<HttpResponse> {
    let saturation = state.engine.saturation();
    state
        .metrics
        .load(state.requests_in_flight(), saturation.queue_depth, saturation.queue_max);
    state.metrics.manifest_age(state.engine.manifest_age());
    let archive = state.engine.overview();
    state.metrics.archive(&ArchiveFigures {
        version: archive.version,
        images: archive.images,
        classes: &archive.classes,
        conflicts: archive.conflicts,
        lost_graphs: archive.lost_graphs,
    });
    let storage = state.engine.storage();
    state
        .metrics
        .storage(&storage.requests, &storage.damage, storage.cache_bytes);
    let text = state.metrics.text()?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
        .body(text))
}
