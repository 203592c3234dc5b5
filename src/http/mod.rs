//! The service: HTTP in, domain values through, JSON out.
//!
//! A request passes `observe` (id, limit, log, metrics, problems), then `guard` (origin, key), then `audited` (its line in the audit), then its endpoint. One endpoint, or one
//! resource, is one file; `access` has the keys and what they open, `rate` how often one may ask, `misses` how often for somebody who is not there, `headers` what browsers are told, `wire` the shapes, `body` bounds the time of bodies, `sending` the memory of large answers, `upload` reads forms, `problem`
//! turns errors into answers.

mod access;
mod archive;
mod audited;
mod body;
mod cards;
mod dicom_web;
mod docs;
mod embeddings;
mod explanations;
mod feedback;
mod frontend;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod headers;
mod images;
mod inner;
mod login;
mod misses;
mod observe;
mod ops;
mod patients;
mod pixels;
mod problem;
mod rate;
mod reference;
mod search;
mod sending;
mod upload;
mod wire;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, Resource, web};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::OpenApi;

pub use access::{
    ApiKey, ClientSettings, Credentials, Key, KeyName, Keys, KeysFile, Oidc, OidcSettings, PublicUrl, Role, Roles,
    Scope, Scopes,
};
pub use audited::Auditor;
pub use docs::openapi;
pub use inner::{Inner, inner_server};
pub use problem::Problem;
pub use rate::{Rate, RateSettings};
pub use search::answer_json;

use dicom_web::{
    peer as dicom_peer, rendered as dicom_rendered, retrieve as dicom_retrieve, search as dicom_search,
    store as dicom_store,
};

use crate::error::{Error, ErrorKind, Result};
use crate::ingest::{Ingest, Reception};
use crate::metrics::Metrics;
use crate::pacs::{BaseUrl, PacsList};
use crate::search::Engine;
use crate::tls::{self, Identity};
use rate::Limits;

/// Most bytes of a JSON body: a vector of some 30,000 components.
const JSON_BYTES_MAX: usize = 1 << 20;
/// Uploads of the largest size that may be in memory at once; smaller ones count by their length.
const UPLOADS_IN_MEMORY_MAX: usize = 8;
/// Images that are fetched from PACS, or searched for after that, at the same time; one more is refused. A slow PACS takes no place of uploads.
const PULLS_MAX: usize = 8;
/// Longest wait for it.
const MEMORY_WAIT_MAX: Duration = Duration::from_secs(10);
/// Of the requests at a time, one in so many may be a sender of DICOM, which may take an hour.
const RECEIVING_SHARE: usize = 4;
/// Unit in which upload memory is counted.
const MEMORY_UNIT_BYTES: usize = 1024;
/// After an early answer (413, 401) the rest of the body is read and thrown away for so long, that the client sees the answer
/// and not a reset connection.
const LINGER: Duration = Duration::from_secs(10);
/// Longest time for a connection to agree on TLS.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Longest time for the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest time that running requests are waited for at the end.
const SHUTDOWN_SECONDS_MAX: u64 = 30;

/// What an operator decides about the service.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Most bytes of an uploaded file.
    pub upload_bytes_max: usize,
    /// Most pixels of an image, as the decoder has it: shown to clients.
    pub pixels_max: u64,
    /// Seconds for a request once its body is here.
    pub request_seconds_max: f64,
    /// Requests answered at the same time; more get 429.
    pub in_flight_max: usize,
    /// Connections open at the same time; more wait to be accepted.
    pub connections_max: usize,
    /// The keys of which requests must bring one; none is only for loopback.
    pub credentials: Option<Arc<Credentials>>,
    /// The server listens on the loopback interface only.
    pub loopback: bool,
    /// The port it listens on.
    pub port: u16,
    /// The PACS that searches by reference may ask.
    pub pacs: PacsList,
    /// Where clients see `/dicom-web`; none: answers don't say where an object can be retrieved.
    pub dicom_web_url: Option<BaseUrl>,
    /// How often one may ask.
    pub rates: RateSettings,
    /// Longest time that a reader may take nothing of a large answer.
    pub answer_idle_max: Duration,
    /// The certificate that it shows; none: it speaks without TLS.
    pub tls: Option<Arc<Identity>>,
}

/// What every endpoint works with.
#[derive(Clone)]
pub struct State {
    /// Searches and reads.
    pub engine: Engine,
    /// Writes; none when the server is read-only.
    pub ingest: Option<Ingest>,
    /// Takes files over that are embedded later; none when the server is read-only.
    pub reception: Option<Reception>,
    /// What the operator decided.
    pub settings: HttpSettings,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    auditor: Option<Arc<Auditor>>,
    cards: Arc<cards::Cards>,
    reports: Arc<feedback::Pace>,
    limits: Arc<Limits>,
    draining: Arc<AtomicBool>,
    in_flight: Arc<Semaphore>,
    upload_memory: Arc<Semaphore>,
    pulls: Arc<Semaphore>,
    answer_memory: Arc<Semaphore>,
    answer_units: usize,
    receive_memory: Arc<Semaphore>,
    receiving: Arc<Semaphore>,
}

/// A place among the bodies of DICOM that are coming in, and memory for one object.
pub struct Receiving {
    _place: OwnedSemaphorePermit,
    _memory: OwnedSemaphorePermit,
}

impl State {
    /// Joins the parts.
    pub fn new(engine: Engine, ingest: Option<Ingest>, settings: HttpSettings, metrics: Arc<Metrics>) -> Self {
        let body_bytes_max = settings.upload_bytes_max.saturating_add(upload::FORM_BYTES_MAX);
        for pacs in settings.pacs.iter() {
            metrics.pacs(pacs.name().as_str());
        }
        let units = (body_bytes_max / MEMORY_UNIT_BYTES + 1).saturating_mul(UPLOADS_IN_MEMORY_MAX);
        let units = units.min(Semaphore::MAX_PERMITS);
        Self {
            auditor: None,
            cards: Arc::default(),
            reports: Arc::default(),
            limits: Arc::new(Limits::new(settings.rates)),
            draining: Arc::default(),
            in_flight: Arc::new(Semaphore::new(settings.in_flight_max)),
            upload_memory: Arc::new(Semaphore::new(units)),
            pulls: Arc::new(Semaphore::new(PULLS_MAX)),
            // What nobody reads takes no memory of what comes in.
            answer_memory: Arc::new(Semaphore::new(units)),
            answer_units: units,
            receive_memory: Arc::new(Semaphore::new(units)),
            receiving: Arc::new(Semaphore::new((settings.in_flight_max / RECEIVING_SHARE).max(1))),
            engine,
            ingest,
            reception: None,
            settings,
            metrics,
        }
    }

    /// The same, taking files over.
    pub fn with_reception(self, reception: Reception) -> Self {
        Self {
            reception: Some(reception),
            ..self
        }
    }

    /// The same, with every request in this audit.
    pub fn audited(self, auditor: Option<Arc<Auditor>>) -> Self {
        Self { auditor, ..self }
    }

    /// From now on `/readyz` says no; everything is still answered.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// When a request that has arrived by now has to be answered.
    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs_f64(self.settings.request_seconds_max)
    }

    /// What the storage answers while a client waits.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let late = || Error::new(ErrorKind::Deadline, "the storage did not answer in time");
        let answer = tokio::time::timeout_at(self.deadline().into(), work).await;
        answer.unwrap_or_else(|_| Err(late()))
    }

    /// A place among the requests in flight.
    fn admit(&self) -> Result<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.in_flight).try_acquire_owned();
        permit.map_err(|_| Error::new(ErrorKind::Overloaded, "too many requests at the same time"))
    }

    /// Memory for an upload.
    fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes / MEMORY_UNIT_BYTES + 1).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.upload_memory).try_acquire_many_owned(units);
        permit.map_err(|_| Error::new(ErrorKind::Overloaded, "too many uploads at the same time"))
    }

    /// A place among the images that are fetched from PACS.
    fn reserve_pull(&self) -> Result<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.pulls).try_acquire_owned();
        permit.map_err(|_| {
            Error::new(
                ErrorKind::Overloaded,
                "too many images are fetched from PACS at the same time",
            )
        })
    }

    /// A place for a body of DICOM and memory for one object of it. A sender would not come back, so it waits a while for others to be done. What comes in
    /// may come for an hour: it has memory of its own, and a share of the requests at most, so that searches go on meanwhile.
    async fn receive(&self, bytes: usize) -> Result<Receiving> {
        let busy = || Error::new(ErrorKind::Overloaded, "too many senders at the same time");
        let place = Arc::clone(&self.receiving).try_acquire_owned().map_err(|_| busy())?;
        let units = u32::try_from(bytes / MEMORY_UNIT_BYTES + 1).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.receive_memory).acquire_many_owned(units);
        let memory = tokio::time::timeout(MEMORY_WAIT_MAX, memory)
            .await
            .map_err(|_| busy())?
            .map_err(|error| Error::with_source(ErrorKind::Internal, "nobody closes it", error))?;
        Ok(Receiving {
            _place: place,
            _memory: memory,
        })
    }

    fn requests_in_flight(&self) -> usize {
        self.settings
            .in_flight_max
            .saturating_sub(self.in_flight.available_permits())
    }

    fn policy(&self) -> guard::Policy {
        guard::Policy {
            credentials: self.settings.credentials.clone(),
            loopback: self.settings.loopback,
            port: self.settings.port,
            scheme: if self.settings.tls.is_some() {
                "https://"
            } else {
                "http://"
            },
        }
    }

    /// What takes files over.
    fn reception(&self) -> Result<&Reception> {
        self.reception
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::MethodNotAllowed, "this server is read-only"))
    }

    /// The writing side.
    fn writer(&self) -> Result<&Ingest> {
        self.ingest
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::MethodNotAllowed, "this server is read-only"))
    }
}

/// The API, each route once: `SERVED` lists it, `routes` serves it, `Api` describes it.
macro_rules! api {
    ($($path:literal: $($method:ident $module:ident::$handler:ident),+;)+) => {
        /// Paths of the API with their methods.
        #[doc(hidden)]
        pub const SERVED: &[(&str, &[&str])] = &[$(($path, &[$(stringify!($method)),+])),+];

        fn routes(config: &mut web::ServiceConfig) {
            $(config.service(web::resource($path)$(.route(web::$method().to($module::$handler)))+);)+
        }

        #[derive(OpenApi)]
        #[openapi(paths($($($module::$handler),+),+), components(schemas(problem::Problem)))]
        struct Api;
    };
}
api! {
    "/v1/search": post search::by_image;
    "/v1/search/by-id": post search::by_id;
    "/v1/search/by-vector": post search::by_vector;
    "/v1/search/by-reference": post reference::by_reference;
    "/v1/explanations": post explanations::explain;
    "/v1/embeddings": post embeddings::embed;
    "/v1/images": post images::add;
    "/v1/images/{id}": get images::show, patch images::relabel, delete images::delete;
    "/v1/images/{id}/thumbnail": get pixels::thumbnail;
    "/v1/images/{id}/rendered": get pixels::rendered;
    "/v1/patients/delete": post patients::delete;
    "/v1/feedback": post feedback::add, get feedback::list;
    "/v1/feedback/{id}": delete feedback::resolve;
    "/v1/archive": get archive::show;
    "/v1/archive/datasheet": get cards::datasheet;
    "/v1/archive/datasheet.md": get cards::datasheet_markdown;
    "/v1/classes": get archive::classes;
    "/v1/model": get archive::model;
    "/v1/model/card": get cards::model_card;
    "/v1/model/card.md": get cards::model_card_markdown;
    "/dicom-web/studies": post dicom_store::studies, get dicom_search::studies;
    "/dicom-web/series": get dicom_search::series;
    "/dicom-web/instances": get dicom_search::instances;
    "/dicom-web/studies/{study}": post dicom_store::study, get dicom_retrieve::study;
    "/dicom-web/studies/{study}/metadata": get dicom_retrieve::study_metadata;
    "/dicom-web/studies/{study}/rendered": get dicom_rendered::study;
    "/dicom-web/studies/{study}/thumbnail": get dicom_rendered::study_thumbnail;
    "/dicom-web/studies/{study}/series": get dicom_search::series_of_study;
    "/dicom-web/studies/{study}/instances": get dicom_search::instances_of_study;
    "/dicom-web/studies/{study}/series/{series}": get dicom_retrieve::series;
    "/dicom-web/studies/{study}/series/{series}/metadata": get dicom_retrieve::series_metadata;
    "/dicom-web/studies/{study}/series/{series}/rendered": get dicom_rendered::series;
    "/dicom-web/studies/{study}/series/{series}/thumbnail": get dicom_rendered::series_thumbnail;
    "/dicom-web/studies/{study}/series/{series}/instances": get dicom_search::instances_of_series;
    "/dicom-web/studies/{study}/series/{series}/instances/{instance}": get dicom_retrieve::instance;
    "/dicom-web/studies/{study}/series/{series}/instances/{instance}/metadata": get dicom_retrieve::instance_metadata;
    "/dicom-web/studies/{study}/series/{series}/instances/{instance}/rendered": get dicom_rendered::instance;
    "/dicom-web/studies/{study}/series/{series}/instances/{instance}/thumbnail": get dicom_rendered::instance_thumbnail;
    "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}": get dicom_retrieve::frames;
    "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/rendered": get dicom_rendered::frames;
    "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/thumbnail": get dicom_rendered::frame_thumbnail;
    "/instances": post dicom_peer::store;
    "/system": get dicom_peer::system;
}

/// Every route of the public port.
pub fn configure(config: &mut web::ServiceConfig) {
    config.app_data(web::JsonConfig::default().limit(JSON_BYTES_MAX));
    routes(config);
    config
        .service(page("/", frontend::index))
        .service(page("/assets/{name}", frontend::asset))
        .service(page("/openapi.json", docs::description))
        .service(page("/docs", docs::redirect))
        .service(page("/docs/{name:.*}", docs::browser))
        .service(page("/session", login::session))
        .service(page("/login", login::begin))
        .service(page(access::CALLBACK, login::finish))
        .service(web::resource("/logout").route(web::post().to(login::end)));
    configure_operations(config);
}

/// Probes and metrics, on the public port and alone on the operations port.
pub fn configure_operations(config: &mut web::ServiceConfig) {
    config
        .service(page("/livez", ops::livez))
        .service(page("/readyz", ops::readyz))
        .service(page("/startupz", ops::startupz))
        .service(page("/metrics", ops::metrics));
}

/// Something to look at: GET and HEAD.
fn page<F, Args>(path: &str, handler: F) -> Resource
where
    F: actix_web::Handler<Args> + Clone,
    Args: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    web::resource(path)
        .route(web::get().to(handler.clone()))
        .route(web::head().to(handler))
}

/// The public server on a socket that is bound already; runs until it is stopped.
///
/// # Errors
/// `Unavailable` when the socket can't be used.
pub fn server(listener: TcpListener, state: State) -> Result<Server> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let connections_max = (state.settings.connections_max / workers).max(1);
    let tls = state.settings.tls.as_ref().map(tls::public_server).transpose()?;
    let state = web::Data::new(state);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .configure(configure)
            .wrap(from_fn(audited::audited))
            .wrap(from_fn(guard::guard))
            .wrap(from_fn(observe::observe))
    });
    let server = server
        .workers(workers)
        .max_connections(connections_max)
        .client_disconnect_timeout(LINGER)
        .client_request_timeout(HEAD_TIME_MAX)
        .tls_handshake_timeout(HANDSHAKE_MAX)
        // Whoever runs it drains it first.
        .disable_signals()
        .shutdown_timeout(SHUTDOWN_SECONDS_MAX);
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls),
        None => server.listen(listener),
    };
    server.map(HttpServer::run).map_err(unusable)
}

fn unusable(error: std::io::Error) -> Error {
    Error::with_source(ErrorKind::Unavailable, "can't listen on the socket", error)
}
