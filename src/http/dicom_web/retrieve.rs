//! WADO-RS (PS3.18, 10.4): metadata, instances and frames. An instance is a file that is made of the kept picture, without what names a patient.

use std::ops::Range;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header;
use actix_web::web::{Data, Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use utoipa::IntoParams;

use super::accept::{Accept, Parts};
use super::json::DataSet;
use super::parts::{STORED, UNCACHED, related, single};
use super::place::Place;
use super::search::{JSON, json};
use super::{attributes, part10};
use crate::domain::{PixelsRef, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::http::sending::{Held, Room};
use crate::http::wire::ImageFile;
use crate::http::{State, problem};
use crate::telemetry::run_blocking;

/// Most instances of which one request gets the metadata, or files.
const INSTANCES_MAX: usize = 10_000;
/// Most frames that one request names.
const FRAMES_MAX: usize = 1000;
/// Most bytes of the pixels of one instance.
const INSTANCE_BYTES_MAX: u64 = 512 << 20;
/// Pictures whose headers are read at a time.
const READS_AT_ONCE: usize = 8;
const DICOM: &str = "application/dicom";
const OCTETS: &str = "application/octet-stream";

/// The form of an answer.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Form {
    /// As the header `Accept`, which it overrules.
    accept: Option<String>,
}

/// The metadata of a study.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/metadata",
    tag = "dicomweb",
    operation_id = "getStudyMetadata",
    params(("study" = String, Path, description = "Study Instance UID"), Form),
    responses((status = 200, description = "DICOM JSON, a data set an instance", body = Vec<Object>, content_type = "application/dicom+json"), problem::Describing)
)]
pub async fn study_metadata(
    state: Data<State>,
    request: HttpRequest,
    path: Path<String>,
    form: Query<Form>,
) -> Result<HttpResponse> {
    metadata(&state, &request, &[&path], &form).await
}

/// The metadata of a series.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/series/{series}/metadata",
    tag = "dicomweb",
    operation_id = "getSeriesMetadata",
    params(("study" = String, Path, description = "Study Instance UID"), ("series" = String, Path, description = "Series Instance UID"), Form),
    responses((status = 200, description = "DICOM JSON, a data set an instance", body = Vec<Object>, content_type = "application/dicom+json"), problem::Describing)
)]
pub async fn series_metadata(
    state: Data<State>,
    request: HttpRequest,
    path: Path<(String, String)>,
    form: Query<Form>,
) -> Result<HttpResponse> {
    metadata(&state, &request, &[&path.0, &path.1], &form).await
}

/// The metadata of an instance.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/metadata",
    tag = "dicomweb",
    operation_id = "getInstanceMetadata",
    params(("study" = String, Path, description = "Study Instance UID"), ("series" = String, Path, description = "Series Instance UID"), ("instance" = String, Path, description = "SOP Instance UID"), Form),
    responses((status = 200, description = "DICOM JSON of one data set", body = Vec<Object>, content_type = "application/dicom+json"), problem::Describing)
)]
pub async fn instance_metadata(
    state: Data<State>,
    request: HttpRequest,
    path: Path<(String, String, String)>,
    form: Query<Form>,
) -> Result<HttpResponse> {
    metadata(&state, &request, &[&path.0, &path.1, &path.2], &form).await
}

/// The instances of a study, as files.
///
/// 206 where the pixels of some are not kept.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}",
    tag = "dicomweb",
    operation_id = "getStudy",
    params(("study" = String, Path, description = "Study Instance UID"), Form),
    responses((status = 200, description = "A part an instance, DICOM Part 10", body = ImageFile, content_type = "multipart/related"), problem::Retrieving)
)]
pub async fn study(
    state: Data<State>,
    request: HttpRequest,
    path: Path<String>,
    form: Query<Form>,
) -> Result<HttpResponse> {
    instances(state, &request, &[&path], &form).await
}

/// The instances of a series, as files.
///
/// 206 where the pixels of some are not kept.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/series/{series}",
    tag = "dicomweb",
    operation_id = "getSeries",
    params(("study" = String, Path, description = "Study Instance UID"), ("series" = String, Path, description = "Series Instance UID"), Form),
    responses((status = 200, description = "A part an instance, DICOM Part 10", body = ImageFile, content_type = "multipart/related"), problem::Retrieving)
)]
pub async fn series(
    state: Data<State>,
    request: HttpRequest,
    path: Path<(String, String)>,
    form: Query<Form>,
) -> Result<HttpResponse> {
    instances(state, &request, &[&path.0, &path.1], &form).await
}

/// An instance, as a file.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}",
    tag = "dicomweb",
    operation_id = "getInstance",
    params(("study" = String, Path, description = "Study Instance UID"), ("series" = String, Path, description = "Series Instance UID"), ("instance" = String, Path, description = "SOP Instance UID"), Form),
    responses((status = 200, description = "One part, DICOM Part 10", body = ImageFile, content_type = "multipart/related"), problem::Retrieving)
)]
pub async fn instance(
    state: Data<State>,
    request: HttpRequest,
    path: Path<(String, String, String)>,
    form: Query<Form>,
) -> Result<HttpResponse> {
    instances(state, &request, &[&path.0, &path.1, &path.2], &form).await
}

/// Frames of an instance: stored values, little endian.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}",
    tag = "dicomweb",
    operation_id = "getFrames",
    params(("study" = String, Path, description = "Study Instance UID"), ("series" = String, Path, description = "Series Instance UID"), ("instance" = String, Path, description = "SOP Instance UID"),
        ("frames" = String, Path, description = "Numbers from 1, with commas between them"), Form),
    responses((status = 200, description = "A part a frame, as the metadata says", body = ImageFile, content_type = "multipart/related"), problem::Retrieving)
)]
pub async fn frames(
    state: Data<State>,
    request: HttpRequest,
    path: Path<(String, String, String, String)>,
    form: Query<Form>,
) -> Result<HttpResponse> {
    let form = Accept::read(request.headers(), form.accept.as_deref())?.parts(OCTETS)?;
    let place = Place::find(&state, &request, &[&path.0, &path.1, &path.2]).await?;
    let instance = place.instances().swap_remove(0);
    let wanted = numbered(&place.frames(&instance), &path.3)?;
    let room = state.room(frame_bytes_max(&wanted[0]))?;
    let first = frame(&state, &wanted[0], room).await?;
    if form == Parts::Single && wanted.len() == 1 {
        return Ok(single(&state, OCTETS, first));
    }
    let sender = state.clone();
    let rest = stream::iter(wanted.into_iter().skip(1)).then(move |record| {
        let state = state.clone();
        async move {
            let room = state.room_in_time(frame_bytes_max(&record)).await?;
            frame(&state, &record, room).await
        }
    });
    let parts = stream::once(std::future::ready(Ok(first))).chain(rest);
    Ok(related(&sender, StatusCode::OK, OCTETS, STORED, parts))
}

/// The frames of a list of numbers.
///
/// # Errors
/// `InvalidRequest` for what is no such list, `NotFound` for a frame that is not there.
pub fn numbered(frames: &[&Arc<Record>], list: &str) -> Result<Vec<Arc<Record>>> {
    let invalid = || {
        let message = format!("frames are at most {FRAMES_MAX} numbers from 1 with commas between them");
        Error::new(ErrorKind::InvalidRequest, message)
    };
    let numbers: Option<Vec<usize>> = list
        .split(',')
        .take(FRAMES_MAX + 1)
        .map(|number| number.trim().parse().ok().filter(|number| *number > 0))
        .collect();
    let numbers = numbers
        .filter(|numbers| numbers.len() <= FRAMES_MAX)
        .ok_or_else(invalid)?;
    let not_there = || {
        let message = format!("there is no such frame: the number of frames is `{}`", frames.len());
        Error::new(ErrorKind::NotFound, message)
    };
    let record = |number: usize| frames.get(number - 1).map(|record| Arc::clone(record));
    numbers
        .into_iter()
        .map(|number| record(number).ok_or_else(not_there))
        .collect()
}

async fn frame(state: &State, record: &Record, room: Room) -> Result<Held> {
    let (_, frame) = state.in_time(state.engine.native_frame(record)).await?;
    let room = room.shrink(frame.len());
    Ok(Held::new(frame.into(), room))
}

/// Most bytes that a frame may have: 16 bit grey, or three colours of 8 bit.
fn frame_bytes_max(record: &Record) -> usize {
    let pixels = |pixels: &PixelsRef| pixels.width as usize * pixels.height as usize * 3;
    record.pixels.as_ref().map_or(0, pixels)
}

async fn metadata(state: &State, request: &HttpRequest, uids: &[&str], form: &Form) -> Result<HttpResponse> {
    let form = Accept::read(request.headers(), form.accept.as_deref())?.choose(&JSON)?;
    let place = Place::find(state, request, uids).await?;
    let instances = few(place.instances(), INSTANCES_MAX)?;
    let sets = instances.iter().map(|instance| described(state, &place, instance));
    // Collected first: a lazy iterator of borrowing futures inside a stream is more than the compiler can prove `Send`.
    let sets: Vec<_> = sets.collect();
    let sets = state.in_time(stream::iter(sets).buffered(READS_AT_ONCE).try_collect::<Vec<DataSet>>());
    let sets = sets.await?;
    let body = run_blocking(move || json(&sets)).await?;
    let mut answer = HttpResponse::Ok();
    answer
        .insert_header((header::CONTENT_TYPE, form))
        .insert_header(UNCACHED);
    state.whole(answer, body)
}

async fn described(state: &State, place: &Place, instance: &Range<usize>) -> Result<DataSet> {
    let frames = place.frames(instance);
    let pixels = match frames[0].pixels {
        Some(_) => Some(state.engine.pixel_layout(frames[0]).await?),
        None => None,
    };
    let numbers = place.numbers(instance);
    let pixels = pixels.map(|layout| (layout, numbers.as_slice()));
    Ok(attributes::metadata(&place.names(instance)?, frames[0], pixels))
}

async fn instances(state: Data<State>, request: &HttpRequest, uids: &[&str], form: &Form) -> Result<HttpResponse> {
    let form = Accept::read(request.headers(), form.accept.as_deref())?.parts(DICOM)?;
    let place = Arc::new(Place::find(&state, request, uids).await?);
    let (first, rest, status) = kept(&place, INSTANCES_MAX)?;
    let first = file(&state, &place, &first, true).await?;
    if form == Parts::Single && rest.is_empty() {
        return Ok(single(&state, DICOM, first));
    }
    let sender = state.clone();
    let rest = stream::iter(rest).then(move |instance| {
        let (state, place) = (state.clone(), Arc::clone(&place));
        async move { file(&state, &place, &instance, false).await }
    });
    let parts = stream::once(std::future::ready(Ok(first))).chain(rest);
    Ok(related(&sender, status, DICOM, STORED, parts))
}

/// An instance as a file, at the beginning of an answer or further on.
async fn file(state: &State, place: &Place, instance: &Range<usize>, first: bool) -> Result<Held> {
    let records = place.frames(instance);
    let layout = state.in_time(state.engine.pixel_layout(records[0])).await?;
    let bytes = layout.frame_bytes().saturating_mul(records.len() as u64);
    if bytes > INSTANCE_BYTES_MAX {
        let message = "the instance has too many frames to be one file: ask for frames";
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    // The frames, and the file that is made of them.
    let both = 2 * bytes as usize;
    let room = match first {
        true => state.room(both)?,
        false => state.room_in_time(both).await?,
    };
    let mut frames = Vec::with_capacity(records.len());
    for record in &records {
        frames.push(state.in_time(state.engine.native_frame(record)).await?.1);
    }
    let set = attributes::metadata(
        &place.names(instance)?,
        records[0],
        Some((layout, &place.numbers(instance))),
    );
    run_blocking(move || {
        let file = part10::file(&set, &layout, &frames);
        drop(frames);
        let room = room.shrink(file.len());
        Ok(Held::new(file.into(), room))
    })
    .await
}

/// The first of a place's instances whose pixels are kept, the others, and the status of an answer that has them all: 206 where some are not kept.
///
/// # Errors
/// `TooLarge` for more than `instances_max` instances; `PixelsNotKept` where none is.
pub fn kept(place: &Place, instances_max: usize) -> Result<(Range<usize>, Vec<Range<usize>>, StatusCode)> {
    let all = few(place.instances(), instances_max)?;
    let is_kept = |instance: &Range<usize>| place.frames(instance)[0].pixels.is_some();
    let (mut kept, not_kept): (Vec<_>, Vec<_>) = all.into_iter().partition(is_kept);
    if kept.is_empty() {
        let message = "this archive did not keep the pixels of this";
        return Err(Error::new(ErrorKind::PixelsNotKept, message));
    }
    let status = match not_kept.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::PARTIAL_CONTENT,
    };
    Ok((kept.remove(0), kept, status))
}

fn few(instances: Vec<Range<usize>>, instances_max: usize) -> Result<Vec<Range<usize>>> {
    if instances.len() > instances_max {
        let message =
            format!("there are more than {instances_max} instances: ask for a series of the study, or for single ones");
        return Err(Error::new(ErrorKind::TooLarge, message));
    }
    Ok(instances)
}
