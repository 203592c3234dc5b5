//! `POST /v1/embeddings`: images to vectors.

use actix_web::web::{Data, Json};

use super::upload::Form;
use super::wire::{EmbedForm, EmbedFormFields, Embeddings};
use super::{State, audited, problem};
use crate::error::Result;

/// Turn images into vectors.
///
/// The vectors are what the model gives, not normalised, in the order of the files. Of files with several frames it is the same frame of each.
/// A key needs the scope `vectors`: one that searches does not get them.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "search",
    operation_id = "embed",
    request_body(content = EmbedFormFields, content_type = "multipart/form-data"),
    responses((status = 200, description = "One vector per image", body = Embeddings), problem::Embedding)
)]
pub async fn embed(state: Data<State>, form: Form<EmbedForm>) -> Result<Json<Embeddings>> {
    let EmbedForm { images, frame } = form.value;
    audited::query_by_images(&images);
    let (card, space, images) = state.engine.embed_images(images, frame, state.deadline()).await?;
    Ok(Json(Embeddings {
        space: space.to_string(),
        model: card.name,
        dimension: card.dimension,
        embeddings: images.into_iter().map(Into::into).collect(),
    }))
}
