//! `POST /v1/images`, `GET`, `PATCH`, `DELETE /v1/images/{id}`: the images of the archive. A write answers when it is durable.

use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, http::header};

use super::upload::Form;
use super::wire::{Deleted, ImageDetails, Names, NewImage, NewImageFields, NewLabel, Written};
use super::{State, problem};
use crate::domain::ImageId;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::IngestOutcome;

/// Add an image.
///
/// The same image again changes nothing and is answered with 200.
#[utoipa::path(
    post,
    path = "/v1/images",
    tag = "archive",
    operation_id = "addImage",
    request_body(content = NewImageFields, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "It is in the archive, durably", body = Written,
            headers(("Location" = String, description = "The image"))),
        (status = 200, description = "It was in the archive before", body = Written),
        problem::Adding
    )
)]
pub async fn add(state: Data<State>, form: Form<NewImage>) -> Result<HttpResponse> {
    let deadline = state.deadline();
    let NewImage { upload, labels } = form.value;
    let receipt = state.writer()?.add(upload, labels, deadline).await;
    state.metrics.ingest(match &receipt {
        Ok(receipt) if receipt.duplicate => IngestOutcome::Duplicate,
        Ok(_) => IngestOutcome::Inserted,
        Err(_) => IngestOutcome::Failed,
    });
    let written = Written::from(receipt?);
    let mut response = if written.duplicate {
        HttpResponse::Ok()
    } else {
        HttpResponse::Created()
    };
    Ok(response
        .insert_header((header::LOCATION, format!("/v1/images/{}", written.id)))
        .json(written))
}

/// What is known about an image.
#[utoipa::path(
    get,
    path = "/v1/images/{id}",
    tag = "archive",
    operation_id = "getImage",
    params(("id" = String, Path, description = "The image, 36 hex digits")),
    responses((status = 200, description = "All that is known", body = ImageDetails), problem::ReadingImage)
)]
pub async fn show(state: Data<State>, id: Path<String>) -> Result<Json<ImageDetails>> {
    let id: ImageId = id.parse()?;
    let record = state.engine.record(id);
    let record = record.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no image `{id}` in this archive")))?;
    let names = Names {
        pseudonym: &|key| state.engine.pseudonym(key),
        label_conflict: &|id| state.engine.label_conflict(id),
    };
    Ok(Json(ImageDetails::new(&record, &names)))
}

/// Give an image another label, or take its label away.
#[utoipa::path(
    patch,
    path = "/v1/images/{id}",
    tag = "archive",
    operation_id = "relabelImage",
    params(("id" = String, Path, description = "The image, 36 hex digits")),
    request_body = NewLabel,
    responses((status = 200, description = "The label is changed, durably", body = Written), problem::Changing)
)]
pub async fn relabel(state: Data<State>, id: Path<String>, label: Json<NewLabel>) -> Result<Json<Written>> {
    let (class, label_source) = label.into_inner().parts()?;
    Ok(Json(
        state.writer()?.relabel(id.parse()?, class, label_source).await?.into(),
    ))
}

/// Delete an image.
#[utoipa::path(
    delete,
    path = "/v1/images/{id}",
    tag = "archive",
    operation_id = "deleteImage",
    params(("id" = String, Path, description = "The image, 36 hex digits")),
    responses((status = 200, description = "It is found no more", body = Deleted), problem::Deleting)
)]
pub async fn delete(state: Data<State>, id: Path<String>) -> Result<Json<Deleted>> {
    let id: ImageId = id.parse()?;
    let version = state.writer()?.delete(id).await?;
    Ok(Json(Deleted {
        id: id.to_string(),
        version,
    }))
}
