//! `GET /v1/archive`, `/v1/classes`, `/v1/model`: what is served here.

use actix_web::web::{Data, Json};

use super::wire::{ArchiveInfo, Classes, ModelInfo};
use super::{State, problem};
use crate::error::Result;

/// What the archive holds and what requests may hold.
#[utoipa::path(
    get,
    path = "/v1/archive",
    tag = "archive",
    operation_id = "getArchive",
    responses((status = 200, description = "The archive", body = ArchiveInfo), problem::Reading)
)]
pub async fn show(state: Data<State>) -> Json<ArchiveInfo> {
    Json(ArchiveInfo::new(
        state.engine.overview(),
        &state.settings,
        state.ingest.is_some(),
    ))
}

/// The classes and how many images each has.
#[utoipa::path(
    get,
    path = "/v1/classes",
    tag = "archive",
    operation_id = "getClasses",
    responses((status = 200, description = "The classes", body = Classes), problem::Reading)
)]
pub async fn classes(state: Data<State>) -> Json<Classes> {
    Json(Classes::new(&state.engine.overview().classes))
}

/// The model that makes the vectors, and how good the answers were found to be.
#[utoipa::path(
    get,
    path = "/v1/model",
    tag = "archive",
    operation_id = "getModel",
    responses((status = 200, description = "The model card", body = ModelInfo), problem::ReadingPapers)
)]
pub async fn model(state: Data<State>) -> Result<Json<ModelInfo>> {
    let papers = state.papers().await?;
    let embedder = &state.engine.model()?.embedder;
    Ok(Json(ModelInfo::new(
        serde_json::to_value(embedder.card()).unwrap_or_default(),
        embedder.provenance().device.clone(),
        papers.evaluation.clone(),
    )?))
}
