//! The inner port: what replicas of one cluster ask each other. Its own listener, its own credential, its own certificates, its own permits; nothing here
//! asks another replica.

use std::net::TcpListener;
use std::sync::OnceLock;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::dev::Server;
use actix_web::http::header::HeaderMap;
use actix_web::http::{ConnectionType, StatusCode};
use actix_web::middleware::from_fn;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};

use super::access::ApiKey;
use super::guard::offered;
use super::observe::observe_inner;
use super::{problem, unusable};
use crate::cluster::Cluster;
use crate::cluster::wire::{SEARCH_PATH, STATUS_PATH, ShardQuery};
use crate::error::{Error, ErrorKind, Result};
use crate::search::Engine;
use crate::tls;

/// Most bytes of a question: a vector of some 30,000 components and some hundred keys.
const QUESTION_BYTES_MAX: usize = 4 << 20;
/// Longest time for the body of a question.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// Connections open at the same time: replicas need a few each, and files are needed for more than these.
const CONNECTIONS_MAX: usize = 1024;
/// A connection that another replica keeps for later questions stays open for so long.
const KEEP_ALIVE: Duration = Duration::from_secs(120);
/// Longest time that running questions are waited for at the end.
const SHUTDOWN_SECONDS_MAX: u64 = 10;

/// What the inner endpoints work with.
pub struct Inner {
    key: ApiKey,
    cluster: Cluster,
    /// Nothing can be searched before it is there.
    engine: OnceLock<Engine>,
}

impl Inner {
    /// The inner side of a replica that has not loaded anything yet.
    ///
    /// # Errors
    /// `InvalidRequest` for a credential that is none.
    pub fn new(cluster: Cluster) -> Result<Self> {
        Ok(Self {
            key: ApiKey::new(&cluster.settings().key)?,
            cluster,
            engine: OnceLock::new(),
        })
    }

    /// From now on it searches.
    pub fn begin(&self, engine: Engine) {
        // Begun once, by the program's start.
        let _ = self.engine.set(engine);
    }

    fn admit(&self, headers: &HeaderMap) -> Result<()> {
        match offered(headers).is_some_and(|offered| self.key.matches(offered)) {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Unauthorized,
                "the cluster's credential is needed",
            )),
        }
    }
}

/// The server of the inner endpoints on a socket that is bound already.
///
/// # Errors
/// `Unavailable` when the socket can't be used.
pub fn inner_server(listener: TcpListener, inner: web::Data<Inner>) -> Result<Server> {
    let tls = inner.cluster.tls().cloned();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(inner.clone())
            .app_data(web::PayloadConfig::new(QUESTION_BYTES_MAX))
            .route(STATUS_PATH, web::get().to(status))
            .route(SEARCH_PATH, web::post().to(search))
            .wrap(from_fn(observe_inner))
    });
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let tls = tls.as_ref().map(tls::peer_server).transpose()?;
    let server = server
        .workers(workers)
        .max_connections((CONNECTIONS_MAX / workers).max(16))
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(super::HEAD_TIME_MAX)
        .tls_handshake_timeout(super::HANDSHAKE_MAX)
        .disable_signals()
        .shutdown_timeout(SHUTDOWN_SECONDS_MAX);
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls),
        None => server.listen(listener),
    };
    server.map(HttpServer::run).map_err(unusable)
}

/// How this replica is.
async fn status(request: HttpRequest, inner: web::Data<Inner>) -> HttpResponse<BoxBody> {
    if let Err(error) = inner.admit(request.headers()) {
        return refused(&error);
    }
    let status = inner.engine.get().and_then(Engine::status);
    json(&status.unwrap_or_else(|| inner.cluster.status(vec![])))
}

/// Some shards searched for another replica. The credential is looked at before the body is read.
async fn search(request: HttpRequest, inner: web::Data<Inner>, body: web::Payload) -> HttpResponse<BoxBody> {
    let answer = async {
        inner.admit(request.headers())?;
        let loading = || Error::new(ErrorKind::VersionAhead, "nothing is loaded yet");
        let engine = inner.engine.get().ok_or_else(loading)?;
        let unread = || Error::new(ErrorKind::InvalidRequest, "a question that can't be read");
        let body = tokio::time::timeout(BODY_TIME_MAX, body.to_bytes_limited(QUESTION_BYTES_MAX)).await;
        let body = body
            .map_err(|_| unread())?
            .map_err(|_| unread())?
            .map_err(|_| unread())?;
        let question: ShardQuery = serde_json::from_slice(&body).map_err(|_| unread())?;
        engine.search_shards(question).await
    };
    match answer.await {
        Ok(answer) => json(&answer),
        Err(error) => refused(&error),
    }
}

fn json(body: &impl serde::Serialize) -> HttpResponse<BoxBody> {
    HttpResponse::Ok().json(body)
}

fn refused(error: &Error) -> HttpResponse<BoxBody> {
    if problem::status(error.kind()).is_server_error() {
        tracing::debug!(error = %error, "another replica was not answered");
    }
    let mut answer = problem::answer(error.kind(), &error.to_string(), "");
    if error.kind() == ErrorKind::Unauthorized {
        answer.head_mut().set_connection_type(ConnectionType::Close);
    }
    // Not held here at the moment: ask another.
    if error.kind() == ErrorKind::VersionAhead {
        *answer.status_mut() = StatusCode::PRECONDITION_FAILED;
    }
    answer
}
