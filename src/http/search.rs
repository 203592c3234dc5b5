//! `POST /v1/search`, `/v1/search/by-id`, `/v1/search/by-vector`: the most similar cases.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::web::{Data, Json};

use super::rate::NamedBy;
use super::upload::Form;
use super::wire::{ById, ByVector, Names, SearchForm, SearchFormFields, SearchResponse};
use super::{State, audited, problem};
use crate::error::{Error, ErrorKind, Result};
use crate::imaging::Format;
use crate::imaging::sniff::sniff;
use crate::metrics::Stage;
use crate::search::{Answer, Engine, Upload};

/// Find the cases most similar to an uploaded image.
///
/// The answer holds the neighbors first and what their labels suggest second. The image is searched and not kept.
#[utoipa::path(
    post,
    path = "/v1/search",
    tag = "search",
    operation_id = "searchByImage",
    request_body(content = SearchFormFields, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The most similar cases", body = SearchResponse),
        problem::SearchingByImage
    )
)]
pub async fn by_image(
    state: Data<State>,
    request: HttpRequest,
    form: Form<SearchForm>,
) -> Result<Json<SearchResponse>> {
    let deadline = state.deadline();
    let SearchForm {
        upload,
        region,
        mut options,
    } = form.value;
    audited::query_by_image(&upload.bytes);
    let archive = state.engine.overview();
    options.split_lists(&archive.classes, &archive.sources);
    let naming = named_by(&upload).map(|by| state.naming(&request, by, 1)).transpose()?;
    let answer = state
        .engine
        .search_image(upload, options.wanted()?, region, deadline)
        .await?;
    if let Some(naming) = naming {
        naming.missed(answer.query.names_unknown.into());
    }
    Ok(show(&state, &answer))
}

/// How an upload says whose image it is, if it may say so.
fn named_by(upload: &Upload) -> Option<NamedBy> {
    if upload.patient_id.is_some() || upload.study_uid.is_some() {
        Some(NamedBy::Request)
    } else {
        matches!(sniff(&upload.bytes), Ok(Format::Dicom)).then_some(NamedBy::File)
    }
}

/// Find the cases most similar to images of the archive.
///
/// Several ids are averaged. The images themselves and others of their patients are left out unless `exclude` says otherwise.
#[utoipa::path(
    post,
    path = "/v1/search/by-id",
    tag = "search",
    operation_id = "searchById",
    request_body = ById,
    responses((status = 200, description = "The most similar cases", body = SearchResponse), problem::SearchingById)
)]
pub async fn by_id(state: Data<State>, request: Json<ById>) -> Result<Json<SearchResponse>> {
    let deadline = state.deadline();
    let ids = request.ids()?;
    audited::asked_about(ids.iter().copied());
    let wanted = request.into_inner().options.wanted()?;
    let answer = state.engine.search_ids(ids, wanted, deadline).await?;
    Ok(show(&state, &answer))
}

/// Find the cases most similar to a vector.
#[utoipa::path(
    post,
    path = "/v1/search/by-vector",
    tag = "search",
    operation_id = "searchByVector",
    request_body = ByVector,
    responses((status = 200, description = "The most similar cases", body = SearchResponse), problem::SearchingByVector)
)]
pub async fn by_vector(state: Data<State>, request: Json<ByVector>) -> Result<Json<SearchResponse>> {
    let deadline = state.deadline();
    let space = request.space()?;
    let ByVector { vector, options, .. } = request.into_inner();
    audited::query_by_vector(&vector);
    let answer = state
        .engine
        .search_vector(vector, space, options.wanted()?, deadline)
        .await?;
    Ok(show(&state, &answer))
}

pub(super) fn show(state: &State, answer: &Answer) -> Json<SearchResponse> {
    count(state, answer);
    audited::asked_about(answer.ask.liked.iter().chain(&answer.ask.disliked).copied());
    let hits = answer.ranking.hits.iter().chain(&answer.ranking.nearest_per_class);
    audited::images(hits.map(|hit| hit.record.id));
    audited::version(answer.version);
    let names = Names {
        pseudonym: &|key| state.engine.pseudonym(key),
        label_conflict: &|id| state.engine.label_conflict(id),
    };
    Json(SearchResponse::new(answer, &names))
}

fn count(state: &State, answer: &Answer) {
    let timings = &answer.timings;
    let mut stages = vec![(Stage::Search, timings.search_ms)];
    if answer.query.image.is_some() {
        stages.extend([
            (Stage::Decode, timings.decode_ms),
            (Stage::Preprocess, timings.preprocess_ms),
            (Stage::Queue, timings.queue_ms),
            (Stage::Model, timings.model_ms),
        ]);
    }
    for (stage, ms) in stages {
        state
            .metrics
            .stage(stage, Duration::try_from_secs_f64(ms / 1000.0).unwrap_or_default());
    }
    for (class, path) in &answer.ranking.path {
        state.metrics.search_path(class, *path);
    }
    state.metrics.suggestion(answer.verdict.status);
    state.metrics.calibration(answer.verdict.calibration.valid);
}

/// An answer as `POST /v1/search` gives it, for the command line.
///
/// # Errors
/// `Internal` when it can't be written as JSON.
pub fn answer_json(engine: &Engine, answer: &Answer) -> Result<String> {
    let names = Names {
        pseudonym: &|key| engine.pseudonym(key),
        label_conflict: &|id| engine.label_conflict(id),
    };
    serde_json::to_string_pretty(&SearchResponse::new(answer, &names))
        .map_err(|error| Error::with_source(ErrorKind::Internal, "the answer can't be written as JSON", error))
}
