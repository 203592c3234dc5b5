//! `POST /v1/embeddings`: images to vectors.

use actix_web::web::{Data, Json};
use futures_util::future::try_join_all;

use super::upload::Form;
use super::wire::{EmbedForm, Embeddings};
use super::{State, problem};
use crate::error::Result;

/// Turn images into vectors.
///
/// The vectors are what the model gives, not normalised, in the order of the files.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "search",
    operation_id = "embed",
    request_body(content = EmbedForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "One vector per image", body = Embeddings), problem::Embedding)
)]
pub async fn embed(state: Data<State>, form: Form<EmbedForm>) -> Result<Json<Embeddings>> {
    let deadline = state.deadline();
    // All at once, so that they share batches.
    let images = try_join_all(
        form.value
            .image
            .into_iter()
            .map(|image| state.engine.embed_image(image, deadline)),
    )
    .await?;
    let space = state.engine.overview().space;
    let card = state.engine.model_card();
    Ok(Json(Embeddings {
        space: space.id().to_string(),
        model: card
            .get("name")
            .and_then(|name| name.as_str())
            .unwrap_or_default()
            .to_owned(),
        dimension: space.dimension,
        embeddings: images.into_iter().map(Into::into).collect(),
    }))
}
