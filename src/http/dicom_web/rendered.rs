//! Pictures to look at (PS3.18, 10.4.1.1.3 and 10.4.1.1.5): an instance or one of its frames rendered, and a thumbnail of anything.

use actix_web::http::header;
use actix_web::web::{Data, Path, Query};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use serde::Deserialize;
use utoipa::IntoParams;

use super::accept::Accept;
use super::parts::UNCACHED;
use super::place::Place;
use super::retrieve::numbered;
use crate::domain::Record;
use crate::error::{Error, ErrorKind, Result};
use crate::http::wire::ImageFile;
use crate::http::{State, problem};
use crate::imaging::jpeg;
use crate::telemetry::run_blocking;

/// Quality of a JPEG where none is asked for.
const QUALITY: u8 = 90;
/// Longest side of a picture to show, in pixels.
const VIEWPORT_MAX: u32 = 4096;
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
    #[param(value_type = Option<u8>)]
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

    /// The longest side that a picture of this size has in the viewport.
    fn size(&self, width: u32, height: u32) -> Result<Option<u32>> {
        let Some(text) = &self.viewport else { return Ok(None) };
        let sides: Option<Vec<u32>> = text.split(',').map(|side| side.trim().parse().ok()).collect();
        match sides.as_deref() {
            Some(&[columns @ 1..=VIEWPORT_MAX, rows @ 1..=VIEWPORT_MAX]) => {
                Ok(Some(fitting((width, height), (columns, rows))))
            }
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
    show(&state, &request, &[&path.0, &path.1, &path.2], "1", &how).await
}

/// A frame, rendered.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/rendered",
    tag = "dicomweb",
    operation_id = "getRenderedFrame",
    params(("study" = String, Path, description = "Study Instance UID"), ("series" = String, Path, description = "Series Instance UID"), ("instance" = String, Path, description = "SOP Instance UID"),
        ("frames" = String, Path, description = "One number, from 1"), Rendering),
    responses((status = 200, description = "PNG of 8 bit, or JPEG", body = ImageFile, content_type = "image/png"), problem::Retrieving)
)]
pub async fn frame(
    state: Data<State>,
    request: HttpRequest,
    path: Path<(String, String, String, String)>,
    how: Query<Rendering>,
) -> Result<HttpResponse> {
    show(&state, &request, &[&path.0, &path.1, &path.2], &path.3, &how).await
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

async fn show(
    state: &State,
    request: &HttpRequest,
    uids: &[&str],
    frame: &str,
    how: &Rendering,
) -> Result<HttpResponse> {
    let media = Accept::read(request.headers(), how.accept.as_deref())?.choose(&[PNG, JPEG])?;
    let (window, quality) = (how.window()?, how.quality()?);
    let place = Place::find(state, request, uids).await?;
    let instance = place.instances().swap_remove(0);
    let frames = numbered(&place.frames(&instance), frame)?;
    let [record] = frames.as_slice() else {
        return Err(invalid("one picture is one frame"));
    };
    let (width, height) = match &record.pixels {
        Some(pixels) => (pixels.width, pixels.height),
        None => (1, 1),
    };
    let size = how.size(width, height)?;
    let png = state.in_time(state.engine.rendered(record.id, window, size)).await?;
    picture(png, media, quality).await
}

async fn thumbnail(state: &State, request: &HttpRequest, uids: &[&str], how: &Rendering) -> Result<HttpResponse> {
    let media = Accept::read(request.headers(), how.accept.as_deref())?.choose(&[PNG, JPEG])?;
    let quality = how.quality()?;
    let place = Place::find(state, request, uids).await?;
    let record: &Record = place.middle();
    let png = state.in_time(state.engine.thumbnail(record.id)).await?;
    picture(png, media, quality).await
}

async fn picture(png: Bytes, media: &'static str, quality: u8) -> Result<HttpResponse> {
    let body = match media {
        JPEG => run_blocking(move || jpeg::encode::of_png(&png, quality)).await?.into(),
        _ => png,
    };
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, media))
        .insert_header(UNCACHED)
        .body(body))
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
        let size = |viewport, width, height| how(None, Some(viewport)).size(width, height).ok().flatten();
        assert_eq!(size("100,50", 200, 200), Some(50));
        assert_eq!(size("100,50", 400, 100), Some(100));
        assert_eq!(size("1,1", 4000, 1), Some(1));
        assert_eq!(size("4096,4096", 10, 10), Some(4096));
        for viewport in ["", "1", "0,1", "1,4097", "1,1,0,0,1,1", "-1,1"] {
            assert!(how(None, Some(viewport)).size(1, 1).is_err(), "{viewport}");
        }
    }
}
