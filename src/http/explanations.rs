//! `POST /v1/explanations`: where two images look alike.

use actix_web::web::{Data, Json};

use super::upload::Form;
use super::wire::{ExplanationForm, ExplanationFormFields, ExplanationResponse};
use super::{State, audited, problem};
use crate::error::Result;

/// Say where an image and a neighbor of it look alike.
///
/// Two heat maps, one of each image. For a network with global average pooling (`method` is `cells`) the similarity splits exactly: the cells of the query add
/// up to it. For any other model (`occlusion`) a cell says by how much the similarity falls when it is covered. A map shows what the network compared, which
/// need not be what is wrong with a patient.
#[utoipa::path(
    post,
    path = "/v1/explanations",
    tag = "search",
    operation_id = "explain",
    request_body(content = ExplanationFormFields, content_type = "multipart/form-data"),
    responses((status = 200, description = "Where they look alike", body = ExplanationResponse), problem::Explaining)
)]
pub async fn explain(state: Data<State>, form: Form<ExplanationForm>) -> Result<Json<ExplanationResponse>> {
    let deadline = state.deadline();
    let ExplanationForm {
        image,
        neighbor,
        excerpt,
        space,
    } = form.value;
    audited::query_by_image(&image);
    audited::images([neighbor]);
    let explanation = state.engine.explain(image, neighbor, excerpt, space, deadline).await?;
    state.metrics.explanation(explanation.method.as_str());
    Ok(Json(explanation.into()))
}
