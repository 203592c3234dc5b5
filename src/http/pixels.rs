//! `GET /v1/images/{id}/thumbnail`, `/rendered`: pictures to look at.

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::{Data, Path, Query};
use bytes::Bytes;

use super::wire::{ImageFile, RenderQuery};
use super::{State, audited, problem};
use crate::error::Result;

/// A small picture of an image.
#[utoipa::path(
    get,
    path = "/v1/images/{id}/thumbnail",
    tag = "archive",
    operation_id = "getThumbnail",
    params(("id" = String, Path, description = "The image, 36 hex digits", pattern = "^[0-9a-f]{36}$")),
    responses((status = 200, description = "PNG, longest side at most 256", body = ImageFile, content_type = "image/png"), problem::Showing)
)]
pub async fn thumbnail(state: Data<State>, id: Path<String>) -> Result<HttpResponse> {
    let id = id.parse()?;
    audited::images([id]);
    picture(&state, state.engine.thumbnail(id).await?)
}

/// A picture of an image, large enough to read, with another window if asked for.
#[utoipa::path(
    get,
    path = "/v1/images/{id}/rendered",
    tag = "archive",
    operation_id = "getRendered",
    params(("id" = String, Path, description = "The image, 36 hex digits", pattern = "^[0-9a-f]{36}$"), RenderQuery),
    responses((status = 200, description = "PNG of 8 bit", body = ImageFile, content_type = "image/png"), problem::Showing)
)]
pub async fn rendered(state: Data<State>, id: Path<String>, query: Query<RenderQuery>) -> Result<HttpResponse> {
    let id = id.parse()?;
    audited::images([id]);
    let png = state.engine.rendered(id, query.window()?, query.size()?).await?;
    picture(&state, png)
}

/// Patients' pixels stay in no cache.
fn picture(state: &State, png: Bytes) -> Result<HttpResponse> {
    let mut answer = HttpResponse::Ok();
    answer
        .insert_header((header::CONTENT_TYPE, "image/png"))
        .insert_header((header::CACHE_CONTROL, "private, no-store"));
    state.whole(answer, png)
}
