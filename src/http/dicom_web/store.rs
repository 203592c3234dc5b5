//! `POST /dicom-web/studies` and `/dicom-web/studies/{study}`: STOW-RS (PS3.18, 10.5). An object that is answered as referenced is durable, and embedded behind
//! the answer.

use actix_web::http::{StatusCode, header};
use actix_web::web::{Data, Path, Payload};
use actix_web::{HttpRequest, HttpResponse};

use super::form::Form;
use super::related::{Part, Related};
use super::stored::{Stored, Summary};
use crate::error::Result;
use crate::http::wire::ImageFile;
use crate::http::{State, audited, problem};
use crate::ingest::{Received, Refusal, Verdict};
use crate::metrics::ReceivedOutcome;

/// Store DICOM objects.
///
/// `multipart/related` of `application/dicom`, as PACS send it. An object that is referenced in the answer is durable, and searchable a moment later. One that is
/// known, has no pixels or is not what the archive is for is referenced too, with a Warning Reason, and not kept. Images come without labels: they are found, and never
/// vote until somebody says what they show.
#[utoipa::path(
    post,
    path = "/dicom-web/studies",
    tag = "dicomweb",
    operation_id = "storeInstances",
    request_body(content = ImageFile, content_type = "multipart/related", description = "DICOM files, one a part"),
    responses(
        (status = 200, description = "All are stored", body = Object, content_type = "application/dicom+json"),
        (status = 202, description = "Some are stored, or with a warning: what became of each", body = Object, content_type = "application/dicom+json"),
        (status = 409, description = "None is stored: why not", body = Object, content_type = "application/dicom+json"),
        problem::Storing
    )
)]
pub async fn studies(state: Data<State>, request: HttpRequest, body: Payload) -> Result<HttpResponse> {
    store(&state, &request, body, None).await
}

/// Store DICOM objects of one study.
///
/// As without the study; an object of another one is not stored.
#[utoipa::path(
    post,
    path = "/dicom-web/studies/{study}",
    tag = "dicomweb",
    operation_id = "storeInstancesOfStudy",
    params(("study" = String, Path, description = "Study Instance UID")),
    request_body(content = ImageFile, content_type = "multipart/related", description = "DICOM files, one a part"),
    responses(
        (status = 200, description = "All are stored", body = Object, content_type = "application/dicom+json"),
        (status = 202, description = "Some are stored, or with a warning: what became of each", body = Object, content_type = "application/dicom+json"),
        (status = 409, description = "None is stored: why not", body = Object, content_type = "application/dicom+json"),
        problem::Storing
    )
)]
pub async fn study(
    state: Data<State>,
    request: HttpRequest,
    study: Path<String>,
    body: Payload,
) -> Result<HttpResponse> {
    store(&state, &request, body, Some(&study)).await
}

async fn store(state: &State, request: &HttpRequest, body: Payload, study: Option<&str>) -> Result<HttpResponse> {
    let reception = state.reception()?;
    let form = Form::read(request.headers())?;
    let part_bytes_max = state.settings.upload_bytes_max;
    // One part is in memory at a time.
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let _receiving = state
        .receive(length.unwrap_or(part_bytes_max).min(part_bytes_max))
        .await?;
    let sender = audited::who(state, request);
    let mut parts = Related::new(request.headers(), body, part_bytes_max)?;
    let mut stored = Stored::default();
    while let Some(part) = parts.next().await? {
        stored.add(match part {
            Part::Whole(file) => reception.receive(file, study, &sender, state.deadline()).await,
            Part::TooLarge => {
                state.metrics.received(ReceivedOutcome::RefusedTooLarge);
                too_large(part_bytes_max)
            }
        });
    }
    audited::count(stored.len());
    match stored.refusals() {
        Some(refused) => tracing::warn!(
            objects = stored.len(),
            refused,
            "objects received, some of which were refused"
        ),
        None => tracing::debug!(objects = stored.len(), "objects received"),
    }
    let status = match stored.summary()? {
        Summary::All => StatusCode::OK,
        Summary::Some => StatusCode::ACCEPTED,
        Summary::None => StatusCode::CONFLICT,
    };
    let set = stored.data_set(state.settings.dicom_web_url.as_ref());
    Ok(HttpResponse::build(status)
        .insert_header((header::CONTENT_TYPE, form.media_type()))
        .body(form.write(&set)?))
}

/// A part that was not kept, so that nobody knows what it was.
fn too_large(bytes_max: usize) -> Received {
    let message = format!("the object has more than `{bytes_max}` bytes");
    Received {
        sop_class: None,
        sop_uid: None,
        study_uid: None,
        series_uid: None,
        verdict: Verdict::Refused(Refusal::TooLarge, message),
    }
}
