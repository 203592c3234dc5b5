//! QIDO-RS (PS3.18, 10.6): which studies, series and instances are there.

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{self, Data, Path};
use actix_web::{HttpRequest, HttpResponse};
use utoipa::IntoParams;

use super::accept::Accept;
use super::matching;
use super::parts::UNCACHED;
use super::query::Query;
use super::shown::Shown;
use crate::error::{Error, ErrorKind, Result};
use crate::http::access::sees_links;
use crate::http::rate::NamedBy;
use crate::http::{State, audited, problem};
use crate::search::Level;
use crate::telemetry::run_blocking;

/// In which forms data sets are given, the first where the client does not say.
pub const JSON: [&str; 2] = ["application/dicom+json", "application/json"];
/// Who warns (RFC 7234, 5.5), and that it is about something of no other code.
const WARNING: &str = "299 medsearch";

type Parameters = web::Query<Vec<(String, String)>>;

// How the API describes the parameters.
/// Keys are keywords, or tags as eight hex digits. Codes may hold `*` and `?`, and several have commas between them. What is not supported is ignored,
/// and said in a `Warning` header.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a description, never a value")]
pub struct SearchParameters {
    /// The patient's id, matched as a whole, or its pseudonym.
    #[param(rename = "PatientID")]
    patient_id: Option<String>,
    /// Who issued the id.
    #[param(rename = "IssuerOfPatientID")]
    issuer: Option<String>,
    /// One UID or several with commas between them: those that the images came with, or those of earlier answers.
    #[param(rename = "StudyInstanceUID")]
    study: Option<String>,
    /// Likewise.
    #[param(rename = "SeriesInstanceUID")]
    series: Option<String>,
    /// Likewise.
    #[param(rename = "SOPInstanceUID")]
    instance: Option<String>,
    /// For example `CR,DX`.
    #[param(rename = "Modality")]
    modality: Option<String>,
    /// A modality that the study has somewhere.
    #[param(rename = "ModalitiesInStudy")]
    modalities_in_study: Option<String>,
    /// For example `CHEST`.
    #[param(rename = "BodyPartExamined")]
    body_part: Option<String>,
    /// M, F or O.
    #[param(rename = "PatientSex")]
    sex: Option<String>,
    /// For example `PA`.
    #[param(rename = "ViewPosition")]
    view: Option<String>,
    /// Most results, at most 1000.
    limit: Option<u32>,
    /// Results to leave out first.
    offset: Option<u32>,
    /// Taken and not needed: an answer has all that is known.
    includefield: Option<String>,
    /// Not supported: what is asked for is taken literally.
    fuzzymatching: Option<bool>,
}

/// Find studies.
#[utoipa::path(
    get,
    path = "/dicom-web/studies",
    tag = "dicomweb",
    operation_id = "searchStudies",
    params(SearchParameters),
    responses((status = 200, description = "DICOM JSON, a data set a study", body = Vec<Object>, content_type = "application/dicom+json"), problem::Listing)
)]
pub async fn studies(state: Data<State>, request: HttpRequest, parameters: Parameters) -> Result<HttpResponse> {
    answer(&state, &request, &parameters, Level::Study, Above::default()).await
}

/// Find series.
#[utoipa::path(
    get,
    path = "/dicom-web/series",
    tag = "dicomweb",
    operation_id = "searchSeries",
    params(SearchParameters),
    responses((status = 200, description = "DICOM JSON, a data set a series", body = Vec<Object>, content_type = "application/dicom+json"), problem::Listing)
)]
pub async fn series(state: Data<State>, request: HttpRequest, parameters: Parameters) -> Result<HttpResponse> {
    answer(&state, &request, &parameters, Level::Series, Above::default()).await
}

/// Find instances.
#[utoipa::path(
    get,
    path = "/dicom-web/instances",
    tag = "dicomweb",
    operation_id = "searchInstances",
    params(SearchParameters),
    responses((status = 200, description = "DICOM JSON, a data set an instance", body = Vec<Object>, content_type = "application/dicom+json"), problem::Listing)
)]
pub async fn instances(state: Data<State>, request: HttpRequest, parameters: Parameters) -> Result<HttpResponse> {
    answer(&state, &request, &parameters, Level::Instance, Above::default()).await
}

/// Find series of a study.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/series",
    tag = "dicomweb",
    operation_id = "searchSeriesOfStudy",
    params(("study" = String, Path, description = "Study Instance UID"), SearchParameters),
    responses((status = 200, description = "DICOM JSON, a data set a series", body = Vec<Object>, content_type = "application/dicom+json"), problem::Listing)
)]
pub async fn series_of_study(
    state: Data<State>,
    request: HttpRequest,
    study: Path<String>,
    parameters: Parameters,
) -> Result<HttpResponse> {
    let above = Above {
        study: Some(study.into_inner()),
        series: None,
    };
    answer(&state, &request, &parameters, Level::Series, above).await
}

/// Find instances of a study.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/instances",
    tag = "dicomweb",
    operation_id = "searchInstancesOfStudy",
    params(("study" = String, Path, description = "Study Instance UID"), SearchParameters),
    responses((status = 200, description = "DICOM JSON, a data set an instance", body = Vec<Object>, content_type = "application/dicom+json"), problem::Listing)
)]
pub async fn instances_of_study(
    state: Data<State>,
    request: HttpRequest,
    study: Path<String>,
    parameters: Parameters,
) -> Result<HttpResponse> {
    let above = Above {
        study: Some(study.into_inner()),
        series: None,
    };
    answer(&state, &request, &parameters, Level::Instance, above).await
}

/// Find instances of a series.
#[utoipa::path(
    get,
    path = "/dicom-web/studies/{study}/series/{series}/instances",
    tag = "dicomweb",
    operation_id = "searchInstancesOfSeries",
    params(("study" = String, Path, description = "Study Instance UID"), ("series" = String, Path, description = "Series Instance UID"), SearchParameters),
    responses((status = 200, description = "DICOM JSON, a data set an instance", body = Vec<Object>, content_type = "application/dicom+json"), problem::Listing)
)]
pub async fn instances_of_series(
    state: Data<State>,
    request: HttpRequest,
    path: Path<(String, String)>,
    parameters: Parameters,
) -> Result<HttpResponse> {
    let (study, series) = path.into_inner();
    let above = Above {
        study: Some(study),
        series: Some(series),
    };
    answer(&state, &request, &parameters, Level::Instance, above).await
}

/// What the path says is above.
#[derive(Default)]
struct Above {
    study: Option<String>,
    series: Option<String>,
}

async fn answer(
    state: &State,
    request: &HttpRequest,
    parameters: &[(String, String)],
    level: Level,
    above: Above,
) -> Result<HttpResponse> {
    let (wanted, parameters): (Vec<_>, Vec<_>) = parameters
        .iter()
        .cloned()
        .partition(|(name, _)| name.eq_ignore_ascii_case("accept"));
    let wanted = wanted.first().map(|(_, media)| media.as_str());
    let form = Accept::read(request.headers(), wanted)?.choose(&JSON)?;
    let mut query = Query::read(&parameters)?;
    // A path is as good as a key.
    query.studies = above.study.map(|uid| vec![uid]).or(query.studies);
    query.series = above.series.map(|uid| vec![uid]).or(query.series);
    let mut warnings = std::mem::take(&mut query.warnings);
    let (version, identity) = state.engine.identified();
    let mut shown = Shown::new(identity, sees_links(request));
    shown.ask_for(&query);
    let naming = match shown.names_anybody(&query) {
        true => {
            let names = query.names();
            audited::query_by_names(&names);
            if let Some(keys) = shown.patient_keys() {
                audited::patient(identity.pseudonym(keys.patient));
            }
            Some(state.naming(request, NamedBy::Request, names.len())?)
        }
        false => None,
    };
    let deadline = state.deadline();
    let base = state.settings.dicom_web_url.clone();
    let (body, images, more, missing) = run_blocking(move || {
        let missing = matching::missing(&version.state, version.hierarchy(), &query, &mut shown);
        let found = matching::search(
            &version.state,
            version.hierarchy(),
            level,
            &query,
            shown,
            base.as_ref(),
            deadline,
        )?;
        Ok((json(&found.results)?, found.images, found.more, missing))
    })
    .await?;
    if let Some(naming) = naming {
        // Those that are there, but not together, tell something too.
        let nothing = images.is_empty() && !more;
        naming.missed(missing.max(nothing.into()));
        if nothing {
            audited::count(0);
        }
    }
    audited::images(images);
    if more {
        let message =
            "The number of results exceeded the maximum supported by the server. Additional results can be requested.";
        warnings.push(message.to_owned());
    }
    let mut answer = HttpResponse::Ok();
    answer
        .insert_header((header::CONTENT_TYPE, form))
        .insert_header(UNCACHED);
    for warning in warnings {
        if let Ok(warning) = HeaderValue::from_str(&format!("{WARNING} \"{warning}\"")) {
            answer.append_header((header::WARNING, warning));
        }
    }
    state.whole(answer, body)
}

/// Data sets as they are sent.
///
/// # Errors
/// `Internal` for what can't be JSON.
pub fn json(sets: &[super::json::DataSet]) -> Result<Vec<u8>> {
    let failed = |error| Error::with_source(ErrorKind::Internal, "data sets can't be written", error);
    serde_json::to_vec(sets).map_err(failed)
}
