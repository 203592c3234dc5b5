//! Pictures to look at (PS3.18, 10.4.1.1.3 and 10.4.1.1.5): studies, series, instances and frames rendered, and a thumbnail of each.

use std::sync::Arc;

use actix_web::http::{StatusCode, header};
use actix_web::web::{Data, Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use utoipa::IntoParams;

use super::accept::Accept;
use super::parts::{UNCACHED, related};
use super::place::Place;
use super::retrieve::{kept, numbered};
use crate::domain::Record;
use crate::error::{Error, ErrorKind, Result};
use crate::http::sending::Held;
use crate::http::wire::ImageFile;
use crate::http::{State, problem};
use crate::imaging::jpeg;
use crate::telemetry::run_blocking;

/// Quality of a JPEG where none is asked for.
const QUALITY: u8 = 90;
/// Longest side of a picture to show, in pixels.
const VIEWPORT_MAX: u32 = 4096;
/// Most pictures of one answer.
const PICTURES_MAX: usize = 1000;
const PNG: &str = "image/png";
const JPEG: &str = "image/jpeg";

/// How a picture is shown.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Rendering {
    /// As the header `Accept`, which it overrules.
    accept: Option<String>,
    /// Grey levels to spread over black to white: `center,width,linear`, in stored values; if left out, as the image was embedded.
    #[param(example = "2048,4096,linear")]
    window: Option<String>,
    /// Columns and rows that the picture has to fit into; it is never enlarged.
    #[param(example = "512,512")]
    viewport: Option<String>,
    /// Of a JPEG, 1 to 100.
    #[param(value_type = Option<u8>, minimum = 1, maximum = 100)]
    quality: Option<String>,
}

impl Rendering {
    /// Center and width.
    fn window(&self) -> Result<Option<(f64, f64)>> {
        let Some(text) = &self.window else { return Ok(None) };
        let mut parts = text.split(',').map(str::trim);
        let mut number = || parts.next()?.parse::<f64>().ok().filter(|number| number.is_finite());
        let numbers = (number(), number());
        let is_linear = match (parts.next(), parts.next()) {
            (function, None) => function.is_none_or(|name| name.eq_ignore_ascii_case("linear")),
            _ => false,
        };
        match numbers {
            (Some(center), Some(width)) if width >= 1.0 && is_linear => Ok(Some((center, width))),
            _ => Err(invalid("`window` is center,width,linear with a width of at least 1")),
        }
    }

    /// Columns and rows.
    fn viewport(&self) -> Result<Option<(u32, u32)>> {
        let Some(text) = &self.viewport else { return Ok(None) };
        let sides: Option<Vec<u32>> = text.split(',').map(|side| side.trim().parse().ok()).collect();
        match sides.as_deref() {
            Some(&[columns @ 1..=VIEWPORT_MAX, rows @ 1..=VIEWPORT_MAX]) => Ok(Some((columns, rows))),
            _ => Err(invalid(&format!(
                "`viewport` is columns,rows, each from 1 to {VIEWPORT_MAX}"
            ))),
        }
    }

    fn quality(&self) -> Result<u8> {
        let Some(text) = &self.quality else { return Ok(QUALITY) };
        let quality = text.parse().ok().filter(|quality| (1..=100).contains(quality));
        quality.ok_or_else(|| invalid("`quality` is from 1 to 100"))
    }

    fn accept(&self, request: &HttpRequest) -> Result<Accept> {
        Accept::read(request.headers(), self.accept.as_deref())
    }

    /// What a picture by itself is given as.
    fn single(&self, request: &HttpRequest) -> Result<&'static str> {
        self.accept(request)?.choose(&[PNG, JPEG])
    }

    /// What each of several is given as.
    fn parts(&self, request: &HttpRequest) -> Result<&'static str> {
        self.accept(request)?.choose_parts(&[PNG, JPEG])
    }

    fn view(&self, media: &'static str) -> Result<View> {
        Ok(View {
            media,
            window: self.window()?,
            viewport: self.viewport()?,
            quality: self.quality()?,
        })
    }
}

/// How a picture is made.
#[derive(Debug, Clone)]
struct View {
    media: &'static str,
    /// Center and width.
    window: Option<(f64, f64)>,
    /// Columns and rows.
    viewport: Option<(u32, u32)>,
    quality: u8,
}

fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, message)
}

/// The longest side of a picture that fits into a viewport with its proportions kept.
fn fitting((width, height): (u32, u32), (columns, rows): (u32, u32)) -> u32 {
    let (width, height, columns, rows) = (u64::from(width), u64::from(height), u64::from(columns), u64::from(rows));
    let long = width.max(height);
    // Of both sides the one that is the tighter.
    let by_columns = long * columns / width.max(1);
    let by_rows = long * rows / height.max(1);
    by_columns.min(by_rows).clamp(1, u64::from(VIEWPORT_MAX)) as u32
}

/// An instance, rendered: its first frame.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/rendered",
    tag = "dicomweb",
    operation_id = "getRenderedInstance",
    params(("study" = String, Path, description = "Study Instance UID"), ("series" = String, Path, description = "Series Instance UID"), ("instance" = String, Path, description = "SOP Instance UID"), Rendering),
    responses((status = 200, description = "PNG of 8 bit, or JPEG", body = ImageFile, content_type = "image/png"), problem::Retrieving)
)]
pub async fn instance(
    state: Data<State>,
    request: HttpRequest,
    path: Path<(String, String, String)>,
    how: Query<Rendering>,
) -> Result<HttpResponse> {
    let how = how.into_inner();
    show_frames(state, &request, &[&path.0, &path.1, &path.2], "1", how).await
}

/// Frames, rendered.
///
/// One is a picture, several are parts of a `multipart/related`.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/rendered",
    tag = "dicomweb",
    operation_id = "getRenderedFrames",
    params(("study" = String, Path, description = "Study Instance UID"), ("series" = String, Path, description = "Series Instance UID"), ("instance" = String, Path, description = "SOP Instance UID"),
        ("frames" = String, Path, description = "Numbers from 1, with commas between them"), Rendering),
    responses((status = 200, description = "PNG of 8 bit, or JPEG; of several frames a part each", content((ImageFile = "image/png"), (ImageFile = "image/jpeg"), (ImageFile = "multipart/related"))), problem::Retrieving)
)]
pub async fn frames(
    state: Data<State>,
    request: HttpRequest,
    path: Path<(String, String, String, String)>,
    how: Query<Rendering>,
) -> Result<HttpResponse> {
    let how = how.into_inner();
    show_frames(state, &request, &[&path.0, &path.1, &path.2], &path.3, how).await
}

/// The instances of a study, rendered: the first frame of each.
///
/// 206 where the pixels of some are not kept.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/rendered",
    tag = "dicomweb",
    operation_id = "getRenderedStudy",
    params(("study" = String, Path, description = "Study Instance UID"), Rendering),
    responses((status = 200, description = "A part an instance: PNG of 8 bit, or JPEG", body = ImageFile, content_type = "multipart/related"), problem::Retrieving)
)]
pub async fn study(
    state: Data<State>,
    request: HttpRequest,
    path: Path<String>,
    how: Query<Rendering>,
) -> Result<HttpResponse> {
    show_all(state, &request, &[&path], how.into_inner()).await
}

/// The instances of a series, rendered: the first frame of each.
///
/// 206 where the pixels of some are not kept.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/series/{series}/rendered",
    tag = "dicomweb",
    operation_id = "getRenderedSeries",
    params(("study" = String, Path, description = "Study Instance UID"), ("series" = String, Path, description = "Series Instance UID"), Rendering),
    responses((status = 200, description = "A part an instance: PNG of 8 bit, or JPEG", body = ImageFile, content_type = "multipart/related"), problem::Retrieving)
)]
pub async fn series(
    state: Data<State>,
    request: HttpRequest,
    path: Path<(String, String)>,
    how: Query<Rendering>,
) -> Result<HttpResponse> {
    show_all(state, &request, &[&path.0, &path.1], how.into_inner()).await
}

/// A small picture of a study.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/thumbnail",
    tag = "dicomweb",
    operation_id = "getStudyThumbnail",
    params(("study" = String, Path, description = "Study Instance UID"), Rendering),
    responses((status = 200, description = "PNG or JPEG, longest side at most 256", body = ImageFile, content_type = "image/png"), problem::Retrieving)
)]
pub async fn study_thumbnail(
    state: Data<State>,
    request: HttpRequest,
    path: Path<String>,
    how: Query<Rendering>,
) -> Result<HttpResponse> {
    thumbnail(&state, &request, &[&path], &how).await
}

/// A small picture of a series.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/series/{series}/thumbnail",
    tag = "dicomweb",
    operation_id = "getSeriesThumbnail",
    params(("study" = String, Path, description = "Study Instance UID"), ("series" = String, Path, description = "Series Instance UID"), Rendering),
    responses((status = 200, description = "PNG or JPEG, longest side at most 256", body = ImageFile, content_type = "image/png"), problem::Retrieving)
)]
pub async fn series_thumbnail(
    state: Data<State>,
    request: HttpRequest,
    path: Path<(String, String)>,
    how: Query<Rendering>,
) -> Result<HttpResponse> {
    thumbnail(&state, &request, &[&path.0, &path.1], &how).await
}

/// A small picture of an instance.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/thumbnail",
    tag = "dicomweb",
    operation_id = "getInstanceThumbnail",
    params(("study" = String, Path, description = "Study Instance UID"), ("series" = String, Path, description = "Series Instance UID"), ("instance" = String, Path, description = "SOP Instance UID"), Rendering),
    responses((status = 200, description = "PNG or JPEG, longest side at most 256", body = ImageFile, content_type = "image/png"), problem::Retrieving)
)]
pub async fn instance_thumbnail(
    state: Data<State>,
    request: HttpRequest,
    path: Path<(String, String, String)>,
    how: Query<Rendering>,
) -> Result<HttpResponse> {
    thumbnail(&state, &request, &[&path.0, &path.1, &path.2], &how).await
}

/// A small picture of a frame.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/thumbnail",
    tag = "dicomweb",
    operation_id = "getFrameThumbnail",
    params(("study" = String, Path, description = "Study Instance UID"), ("series" = String, Path, description = "Series Instance UID"), ("instance" = String, Path, description = "SOP Instance UID"),
        ("frames" = String, Path, description = "One number, from 1"), Rendering),
    responses((status = 200, description = "PNG or JPEG, longest side at most 256", body = ImageFile, content_type = "image/png"), problem::Retrieving)
)]
pub async fn frame_thumbnail(
    state: Data<State>,
    request: HttpRequest,
    path: Path<(String, String, String, String)>,
    how: Query<Rendering>,
) -> Result<HttpResponse> {
    let (media, quality) = (how.single(&request)?, how.quality()?);
    let place = Place::find(&state, &request, &[&path.0, &path.1, &path.2]).await?;
    let wanted = numbered(&place.frames(&place.instances().swap_remove(0)), &path.3)?;
    let [record] = wanted.as_slice() else {
        return Err(invalid("one thumbnail is of one frame"));
    };
    small(&state, record, media, quality).await
}

/// The first frame of each instance that is kept.
async fn show_all(state: Data<State>, request: &HttpRequest, uids: &[&str], how: Rendering) -> Result<HttpResponse> {
    let view = how.view(how.parts(request)?)?;
    let place = Place::find(&state, request, uids).await?;
    let (first, rest, status) = kept(&place, PICTURES_MAX)?;
    let instances = std::iter::once(first).chain(rest);
    let records = instances
        .map(|instance| Arc::clone(place.frames(&instance)[0]))
        .collect();
    pictures(state, records, view, status).await
}

async fn show_frames(
    state: Data<State>,
    request: &HttpRequest,
    uids: &[&str],
    frames: &str,
    how: Rendering,
) -> Result<HttpResponse> {
    // How many there will be is known from what is asked for.
    let is_single = !frames.contains(',');
    let media = match is_single {
        true => how.single(request)?,
        false => how.parts(request)?,
    };
    let view = how.view(media)?;
    let place = Place::find(&state, request, uids).await?;
    let records = numbered(&place.frames(&place.instances().swap_remove(0)), frames)?;
    match records.as_slice() {
        [record] if is_single => {
            let body = picture(&state, record, &view).await?;
            whole(&state, body, view.media)
        }
        _ => pictures(state, records, view, StatusCode::OK).await,
    }
}

/// Each as a part, made when it is its turn. What keeps the first from being made is answered, what keeps another breaks the answer off.
async fn pictures(
    state: Data<State>,
    records: Vec<Arc<Record>>,
    view: View,
    status: StatusCode,
) -> Result<HttpResponse> {
    let media = view.media;
    let mut records = records.into_iter();
    let first = match records.next() {
        Some(record) => {
            let body = picture(&state, &record, &view).await?;
            let room = state.room(body.len())?;
            Held::new(body, room)
        }
        None => return Err(Error::internal("there is nothing to show")),
    };
    let sender = state.clone();
    let rest = stream::iter(records).then(move |record| {
        let (state, view) = (state.clone(), view.clone());
        async move {
            let body = picture(&state, &record, &view).await?;
            let room = state.room_in_time(body.len()).await?;
            Ok(Held::new(body, room))
        }
    });
    let parts = stream::once(std::future::ready(Ok(first))).chain(rest);
    Ok(related(&sender, status, media, "", parts))
}

async fn picture(state: &State, record: &Record, view: &View) -> Result<Bytes> {
    let (width, height) = match &record.pixels {
        Some(pixels) => (pixels.width, pixels.height),
        None => (1, 1),
    };
    let size = view.viewport.map(|viewport| fitting((width, height), viewport));
    let png = state
        .in_time(state.engine.rendered(record.id, view.window, size))
        .await?;
    coded(png, view.media, view.quality).await
}

async fn thumbnail(state: &State, request: &HttpRequest, uids: &[&str], how: &Rendering) -> Result<HttpResponse> {
    let (media, quality) = (how.single(request)?, how.quality()?);
    let place = Place::find(state, request, uids).await?;
    small(state, place.middle(), media, quality).await
}

async fn small(state: &State, record: &Record, media: &'static str, quality: u8) -> Result<HttpResponse> {
    let png = state.in_time(state.engine.thumbnail(record.id)).await?;
    whole(state, coded(png, media, quality).await?, media)
}

/// A picture as its media type has it.
async fn coded(png: Bytes, media: &'static str, quality: u8) -> Result<Bytes> {
    match media {
        JPEG => Ok(run_blocking(move || jpeg::encode::of_png(&png, quality)).await?.into()),
        _ => Ok(png),
    }
}

fn whole(state: &State, body: Bytes, media: &'static str) -> Result<HttpResponse> {
    let mut answer = HttpResponse::Ok();
    answer
        .insert_header((header::CONTENT_TYPE, media))
        .insert_header(UNCACHED);
    state.whole(answer, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how(window: Option<&str>, viewport: Option<&str>) -> Rendering {
        Rendering {
            accept: None,
            window: window.map(str::to_owned),
            viewport: viewport.map(str::to_owned),
            quality: None,
        }
    }

    #[test]
    fn windows_are_linear() {
        let window = |text| how(Some(text), None).window().ok().flatten();
        assert_eq!(window("40,400,linear"), Some((40.0, 400.0)));
        assert_eq!(window("-600.5, 1500, LINEAR"), Some((-600.5, 1500.0)));
        assert_eq!(window("40,400"), Some((40.0, 400.0)));
        for text in [
            "",
            "40",
            "40,0,linear",
            "40,400,sigmoid",
            "40,400,linear,1",
            "nan,1",
            "a,b,linear",
        ] {
            assert_eq!(window(text), None, "{text}");
            assert!(how(Some(text), None).window().is_err(), "{text}");
        }
        assert_eq!(how(None, None).window().unwrap(), None);
    }

    #[test]
    fn a_picture_fits_into_its_viewport() {
        let size = |viewport, width, height| {
            let viewport = how(None, Some(viewport)).viewport().ok().flatten();
            viewport.map(|viewport| fitting((width, height), viewport))
        };
        assert_eq!(size("100,50", 200, 200), Some(50));
        assert_eq!(size("100,50", 400, 100), Some(100));
        assert_eq!(size("1,1", 4000, 1), Some(1));
        assert_eq!(size("4096,4096", 10, 10), Some(4096));
        for viewport in ["", "1", "0,1", "1,4097", "1,1,0,0,1,1", "-1,1"] {
            assert!(how(None, Some(viewport)).viewport().is_err(), "{viewport}");
        }
    }
}
