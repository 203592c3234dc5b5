//! `POST /v1/images`, `GET`, `PATCH`, `DELETE /v1/images/{id}`: the images of the archive. A write answers when it is durable.

use actix_web::web::{Data, Json, Path};
use actix_web::{HttpRequest, HttpResponse, http::header};

use super::access::sees_links;
use super::upload::Form;
use super::wire::{Deleted, ImageDetails, Names, NewImage, NewImageFields, NewLabel, Written};
use super::{State, audited, problem};
use crate::archive::Outcome;
use crate::domain::ImageId;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::IngestOutcome;

/// Add an image.
///
/// The same image again changes nothing and is answered with 200. `outcome` says what was done.
#[utoipa::path(
    post,
    path = "/v1/images",
    tag = "archive",
    operation_id = "addImage",
    request_body(content = NewImageFields, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "It is in the archive, durably", body = Written,
            headers(("Location" = String, description = "The image"))),
        (status = 200, description = "It was in the archive before: unchanged, with its first class now, or with one more class that is in conflict with its own", body = Written),
        problem::Adding
    )
)]
pub async fn add(state: Data<State>, form: Form<NewImage>) -> Result<HttpResponse> {
    let deadline = state.deadline();
    let NewImage { upload, labels } = form.value;
    audited::query_by_image(&upload.bytes);
    let receipt = state.writer()?.add(upload, labels, deadline).await;
    state.metrics.ingest(match &receipt {
        Ok(receipt) => match receipt.outcome {
            Outcome::Inserted => IngestOutcome::Inserted,
            Outcome::Conflict => IngestOutcome::Conflict,
            Outcome::Relabelled => IngestOutcome::Relabelled,
            Outcome::Duplicate | Outcome::Deleted { .. } => IngestOutcome::Duplicate,
        },
        Err(_) => IngestOutcome::Failed,
    });
    let receipt = receipt?;
    audited::images([receipt.id].into_iter().chain(receipt.near_identical_to));
    audited::version(receipt.version);
    state.metrics.near_identical(receipt.near_identical_to.is_some());
    let mut response = match receipt.outcome {
        Outcome::Inserted => HttpResponse::Created(),
        _ => HttpResponse::Ok(),
    };
    let written = Written::from(receipt);
    Ok(response
        .insert_header((header::LOCATION, format!("/v1/images/{}", written.id)))
        .json(written))
}

/// What is known about an image.
///
/// With the scope `link`, in an archive of identity mode `linked`, also whose it is.
#[utoipa::path(
    get,
    path = "/v1/images/{id}",
    tag = "archive",
    operation_id = "getImage",
    params(("id" = String, Path, description = "The image, 36 hex digits", pattern = "^[0-9a-f]{36}$")),
    responses((status = 200, description = "All that is known", body = ImageDetails), problem::ReadingImage)
)]
pub async fn show(state: Data<State>, request: HttpRequest, id: Path<String>) -> Result<Json<ImageDetails>> {
    let id: ImageId = id.parse()?;
    audited::images([id]);
    let record = state.engine.record(id);
    let record = record.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no image `{id}` in this archive")))?;
    let names = Names {
        pseudonym: &|key| state.engine.pseudonym(key),
        label_conflict: &|id| state.engine.label_conflict(id),
    };
    let link = match sees_links(&request) {
        true => state.engine.link(&record)?,
        false => None,
    };
    let copies = state.engine.other_copies(id);
    audited::images(copies.iter().copied().chain(record.near_identical_to));
    Ok(Json(ImageDetails::new(&record, &copies, &names, link)))
}

/// Give an image another label, or take its label away.
#[utoipa::path(
    patch,
    path = "/v1/images/{id}",
    tag = "archive",
    operation_id = "relabelImage",
    params(("id" = String, Path, description = "The image, 36 hex digits", pattern = "^[0-9a-f]{36}$")),
    request_body = NewLabel,
    responses((status = 200, description = "The label is changed, durably", body = Written), problem::Changing)
)]
pub async fn relabel(state: Data<State>, id: Path<String>, label: Json<NewLabel>) -> Result<Json<Written>> {
    let id = id.parse()?;
    audited::images([id]);
    let (class, label_source) = label.into_inner().parts()?;
    let writer = state.writer()?;
    let receipt = writer.relabel(id, class, label_source, state.deadline()).await?;
    audited::version(receipt.version);
    Ok(Json(receipt.into()))
}

/// Delete an image.
#[utoipa::path(
    delete,
    path = "/v1/images/{id}",
    tag = "archive",
    operation_id = "deleteImage",
    params(("id" = String, Path, description = "The image, 36 hex digits", pattern = "^[0-9a-f]{36}$")),
    responses((status = 200, description = "It is found no more", body = Deleted), problem::Deleting)
)]
pub async fn delete(state: Data<State>, id: Path<String>) -> Result<Json<Deleted>> {
    let id: ImageId = id.parse()?;
    audited::images([id]);
    let version = state.writer()?.delete(id, state.deadline()).await?;
    audited::version(version);
    Ok(Json(Deleted {
        id: id.to_string(),
        version,
    }))
}
