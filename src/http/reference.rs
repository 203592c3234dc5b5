//! `POST /v1/search/by-reference`: the most similar cases to an image that lies at a PACS.

use std::time::Instant;

use actix_web::HttpRequest;
use actix_web::web::{Data, Json};

use super::rate::NamedBy;
use super::search::show;
use super::wire::{ByReference, QueryReference, Referenced, SearchResponse};
use super::{State, audited, problem};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::PullOutcome;
use crate::pacs::{Pacs, PacsList, Pulled, Reference};
use crate::search::{Level, Upload};

/// Find the cases most similar to an image of a PACS.
///
/// The server fetches the image by WADO-RS from one of the PACS that its operator configured, never from anywhere else, and goes on as if it had been uploaded: whose it
/// is comes from the file, and the image is searched and not kept. Of a study or a series it takes the middle image of the first series with images, and says which.
#[utoipa::path(
    post,
    path = "/v1/search/by-reference",
    tag = "search",
    operation_id = "searchByReference",
    request_body = ByReference,
    responses(
        (status = 200, description = "The most similar cases", body = SearchResponse),
        problem::SearchingByReference
    )
)]
pub async fn by_reference(
    state: Data<State>,
    request: HttpRequest,
    body: Json<ByReference>,
) -> Result<Json<SearchResponse>> {
    let deadline = state.deadline();
    let naming = state.naming(&request, NamedBy::File, 1)?;
    let request = body.into_inner();
    let (frame, region, preview) = (request.frame(), request.region()?, request.preview());
    let (pacs, reference) = find(&state.settings.pacs, request.referenced()?)?;
    audited::reference(pacs.name().as_str(), &named(&reference));
    let wanted = request.options.wanted()?;
    let _place = state.reserve_pull()?;
    let Pulled { bytes, chosen, took } = pull(&state, pacs, &reference, deadline).await?;
    audited::query_by_image(&bytes);
    let upload = Upload {
        bytes,
        frame,
        patient_id: None,
        issuer: None,
        study_uid: None,
        preview,
    };
    let answer = state.engine.search_image(upload, wanted, region, deadline).await?;
    naming.missed(answer.query.names_unknown.into());
    let mut shown = show(&state, &answer);
    shown.query.reference = Some(QueryReference::new(pacs.name(), took, chosen));
    Ok(shown)
}

/// The UIDs of a reference, from the study down.
fn named(reference: &Reference) -> Vec<(Level, &str)> {
    let lower = [
        (Level::Series, reference.series.as_ref()),
        (Level::Instance, reference.instance.as_ref()),
    ];
    let lower = lower
        .into_iter()
        .filter_map(|(level, uid)| Some((level, uid?.as_str())));
    std::iter::once((Level::Study, reference.study.as_str()))
        .chain(lower)
        .collect()
}

/// The PACS and what is asked of it. What a URL says and what stands beside it must be the same.
fn find(list: &PacsList, referenced: Referenced) -> Result<(&Pacs, Reference)> {
    let (url, name, uids) = match referenced {
        Referenced::Named(name, reference) => return Ok((list.named(&name)?, reference)),
        Referenced::Url { url, pacs, uids } => (url, pacs, uids),
    };
    let (pacs, reference) = list.of_retrieve_url(&url)?;
    let of_url = [
        Some(&reference.study),
        reference.series.as_ref(),
        reference.instance.as_ref(),
    ];
    let other_uid = |(given, of_url): (&Option<_>, Option<_>)| given.is_some() && given.as_ref() != of_url;
    if name.is_some_and(|name| name != pacs.name().as_str()) || uids.iter().zip(of_url).any(other_uid) {
        let message = "`retrieve_url` says something else than the fields beside it";
        return Err(Error::new(ErrorKind::InvalidRequest, message));
    }
    Ok((pacs, reference))
}

async fn pull(state: &State, pacs: &Pacs, reference: &Reference, deadline: Instant) -> Result<Pulled> {
    let pulled = pacs.pull(reference, state.settings.upload_bytes_max, deadline).await;
    let name = pacs.name().as_str();
    let outcome = match &pulled {
        Ok(pulled) => {
            state.metrics.pacs_pull_took(name, pulled.took);
            PullOutcome::Pulled
        }
        Err(error) => match error.kind() {
            ErrorKind::NotFound => PullOutcome::NotFound,
            ErrorKind::TooLarge => PullOutcome::TooLarge,
            ErrorKind::Deadline => PullOutcome::Late,
            ErrorKind::Unavailable => PullOutcome::Busy,
            _ => PullOutcome::Failed,
        },
    };
    state.metrics.pacs_pull(name, outcome);
    pulled
}
