//! `POST /instances` and `GET /system`: what an Orthanc needs to take this server for a peer of its own kind, and store there.

use actix_web::http::header;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use bytes::BytesMut;
use futures_util::StreamExt;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{Error, ErrorKind, Result};
use crate::http::wire::ImageFile;
use crate::http::{State, audited, problem};
use crate::ingest::{Refusal, Verdict};

/// The version of Orthanc's REST API that this is a piece of: that of Orthanc 1.10.
const ORTHANC_API: u32 = 16;

/// What a peer is told of a file.
#[derive(Serialize, ToSchema)]
pub struct PeerStored {
    /// `Success`, `AlreadyStored`, or `FilteredOut`: it has no pixels, or is not what the archive is for.
    #[serde(rename = "Status")]
    status: &'static str,
}

/// What a peer is told of this server.
#[derive(Serialize, ToSchema)]
pub struct PeerSystem {
    /// The archive's name.
    #[serde(rename = "Name")]
    name: String,
    /// This program's version.
    #[serde(rename = "Version")]
    version: &'static str,
    /// The version of Orthanc's API.
    #[serde(rename = "ApiVersion")]
    api_version: u32,
}

/// Store a DICOM file, as an Orthanc peer does.
///
/// The body is the file, whatever its media type. Durable when it is answered; embedded behind the answer.
#[utoipa::path(
    post,
    path = "/instances",
    tag = "dicomweb",
    operation_id = "storePeerInstance",
    request_body(content = ImageFile, content_type = "application/dicom", description = "A DICOM file"),
    responses((status = 200, description = "It is stored, or was, or is not wanted here", body = PeerStored), problem::StoringOne)
)]
pub async fn store(state: Data<State>, request: HttpRequest, body: Payload) -> Result<HttpResponse> {
    let reception = state.reception()?;
    let bytes_max = state.settings.upload_bytes_max;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let _receiving = state.receive(length.unwrap_or(bytes_max)).await?;
    let file = read(body, bytes_max, length.unwrap_or(0)).await?;
    audited::count(1);
    let received = reception
        .receive(file.freeze(), None, &audited::who(&state, &request), state.deadline())
        .await;
    let status = match received.verdict {
        Verdict::Accepted => "Success",
        Verdict::Known => "AlreadyStored",
        Verdict::NotImage | Verdict::Outside(_) => "FilteredOut",
        Verdict::Refused(why, message) => return Err(Error::new(kind(why), message)),
    };
    Ok(HttpResponse::Ok().json(PeerStored { status }))
}

/// Say what this server is, as an Orthanc peer does.
#[utoipa::path(
    get,
    path = "/system",
    tag = "dicomweb",
    operation_id = "getPeerSystem",
    responses((status = 200, description = "Its name and version", body = PeerSystem), problem::Reading)
)]
pub async fn system(state: Data<State>) -> HttpResponse {
    HttpResponse::Ok().json(PeerSystem {
        name: state.engine.overview().name,
        version: env!("CARGO_PKG_VERSION"),
        api_version: ORTHANC_API,
    })
}

async fn read(mut body: Payload, bytes_max: usize, expected: usize) -> Result<BytesMut> {
    let mut file = BytesMut::with_capacity(expected.min(bytes_max));
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(problem::of_body)?;
        if file.len() + chunk.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        file.extend_from_slice(&chunk);
    }
    Ok(file)
}

fn too_large(bytes_max: usize) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!("the object has more than `{bytes_max}` bytes"),
    )
}

const fn kind(refusal: Refusal) -> ErrorKind {
    match refusal {
        Refusal::Broken | Refusal::BurnedIn => ErrorKind::InvalidImage,
        Refusal::Syntax => ErrorKind::UnsupportedMedia,
        Refusal::OtherStudy => ErrorKind::InvalidRequest,
        Refusal::Conflict => ErrorKind::Conflict,
        Refusal::TooLarge => ErrorKind::TooLarge,
        Refusal::Full => ErrorKind::StorageFull,
        Refusal::Busy | Refusal::Late | Refusal::Unavailable => ErrorKind::Unavailable,
    }
}
