//! A server of its own for every test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use medsearch::app;
use medsearch::archive::{Archive, Writer, WriterSettings};
use medsearch::domain::Frames;
use medsearch::http::{
    self, ApiKey, Credentials, HttpSettings, Key, KeysFile, Problem, RateSettings, Scope, Scopes, State,
};
use medsearch::ingest::{InboxSettings, Ingest, Labelling, open_inbox};
use medsearch::metrics::Metrics;
use medsearch::pacs::PacsList;
use medsearch::tls::{Identity, Port, TlsFiles, use_ring};
use reqwest::{Client, Method, RequestBuilder, Response};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::archive;

/// Boundary of every form of these tests.
pub const BOUNDARY: &str = "medsearch-test-boundary";
/// Key of servers with a key.
pub const KEY: &str = "a-key-for-tests-only";

/// A key with scopes, put into a file of keys.
pub fn new_key(file: &Path, name: &str, scopes: &[Scope]) -> String {
    key_until(file, name, scopes, None)
}

/// The same, until a time.
pub fn key_until(file: &Path, name: &str, scopes: &[Scope], expires: Option<&str>) -> String {
    let (text, key) = ApiKey::random().unwrap();
    let scopes = Scopes::new(scopes.iter().copied()).unwrap();
    let made = "2020-01-01T00:00:00Z".parse().unwrap();
    let expires = expires.map(|time| time.parse().unwrap());
    let key = Key::new(name.parse().unwrap(), key, scopes, made, expires).unwrap();
    KeysFile::at(file).change(|keys| keys.add(key)).unwrap();
    text
}

/// A running server.
pub struct TestApp {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// The space of its archive.
    pub space: String,
    client: Client,
    /// Dropping it ends the task that follows the archive.
    _written: watch::Sender<u64>,
    folder: TempDir,
}

/// A server as it is on loopback without a key.
pub async fn spawn_app() -> TestApp {
    spawn_with(|_| {}).await
}

/// A server with a key, as beyond loopback.
pub async fn spawn_with_key() -> TestApp {
    spawn_with(|settings| {
        settings.credentials = Credentials::open(Some(KEY), None).unwrap();
        settings.loopback = false;
    })
    .await
}

/// A server with a keys file, and with the key as well, as beyond loopback.
pub async fn spawn_with_keys(file: &Path) -> TestApp {
    spawn_with(|settings| {
        settings.credentials = Credentials::open(Some(KEY), Some(file)).unwrap();
        settings.loopback = false;
    })
    .await
}

/// A server with other settings, over an archive of its own.
pub async fn spawn_with(change: impl FnOnce(&mut HttpSettings)) -> TestApp {
    launch(archive::copy(), None, Frames::First, None, change).await
}

/// A server with other settings, over the archive in a folder.
pub async fn spawn_over(folder: TempDir, change: impl FnOnce(&mut HttpSettings)) -> TestApp {
    launch(folder, None, Frames::First, None, change).await
}

/// A server that makes images of these frames of what is pushed, and labels them by this file, over an archive of its own.
pub async fn spawn_for(frames: Frames, labels_file: Option<PathBuf>) -> TestApp {
    launch(archive::copy(), None, frames, labels_file, |_| {}).await
}

/// A server over an archive of its own, with a certificate of these files.
pub async fn spawn_by(files: Option<TlsFiles>, change: impl FnOnce(&mut HttpSettings)) -> TestApp {
    launch(archive::copy(), files, Frames::First, None, change).await
}

async fn launch(
    folder: TempDir,
    files: Option<TlsFiles>,
    frames: Frames,
    labels_file: Option<PathBuf>,
    change: impl FnOnce(&mut HttpSettings),
) -> TestApp {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut settings = HttpSettings {
        upload_bytes_max: 64 << 20,
        pixels_max: 64 << 20,
        request_seconds_max: 30.0,
        in_flight_max: 64,
        rates: RateSettings::default(),
        connections_max: 64,
        credentials: None,
        loopback: true,
        port,
        pacs: PacsList::default(),
        dicom_web_url: None,
        answer_idle_max: Duration::from_secs(30),
        tls: None,
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    if let Some(files) = files {
        let identity = Identity::open(Port::Public, files, &metrics).unwrap();
        actix_web::rt::spawn(Arc::clone(&identity).follow(Arc::clone(&metrics)));
        settings.tls = Some(identity);
    }
    change(&mut settings);
    let parts = app::Settings {
        program: PathBuf::from(env!("CARGO_BIN_EXE_medsearch")),
        upload_bytes_max: settings.upload_bytes_max,
        ..app::Settings::local(folder.path().join("archive").display().to_string(), archive::secret())
    };
    let archive = Archive::open(&parts.archive, archive::secret()).await.unwrap();
    let (engine, served) = app::open_engine(&archive, &parts, &metrics).await.unwrap();
    let space = engine.overview().space.id().to_string();
    let inbox = archive.inbox();
    let labelling = Labelling::open(labels_file, archive.identity().clone()).unwrap();
    let (written, commits) = watch::channel(0);
    let writer = Writer::spawn(
        archive,
        WriterSettings::default(),
        Arc::clone(&metrics),
        written.clone(),
    )
    .await
    .unwrap();
    actix_web::rt::spawn(served.follow(commits));
    let ingest = Ingest::new(engine.clone(), writer);
    if let Some(credentials) = &settings.credentials {
        actix_web::rt::spawn(Arc::clone(credentials).follow(Arc::clone(&metrics)));
    }
    actix_web::rt::spawn(Arc::clone(&labelling).follow(Arc::clone(&metrics)));
    let inbox_settings = InboxSettings {
        limits: app::decoder_settings(&parts).limits,
        frames,
        labelling,
    };
    let reception = open_inbox(
        &engine,
        ingest.clone(),
        inbox,
        inbox_settings,
        Arc::clone(&metrics),
        None,
    );
    let state = State::new(engine, Some(ingest), settings, metrics).with_reception(reception);
    actix_web::rt::spawn(http::server(listener, state).unwrap());
    // The client is built with TLS for the sake of archives in buckets, and wants to know whose.
    use_ring();
    let client = Client::builder()
        .timeout(Duration::from_secs(60))
        .redirect(reqwest::redirect::Policy::none());
    TestApp {
        port,
        space,
        client: client.build().unwrap(),
        _written: written,
        folder,
    }
}

impl TestApp {
    /// The folder of its archive.
    pub fn archive_folder(&self) -> PathBuf {
        self.folder.path().join("archive")
    }

    /// A file with the archive's secret.
    pub fn secret_file(&self) -> PathBuf {
        let path = self.folder.path().join("secret");
        std::fs::write(&path, hex::encode([7; 32])).unwrap();
        path
    }

    /// A request to be completed and sent.
    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.client
            .request(method, format!("http://127.0.0.1:{}{path}", self.port))
    }

    /// GET, sent.
    pub async fn get(&self, path: &str) -> Response {
        self.request("GET", path).send().await.unwrap()
    }

    /// A form.
    pub fn form(&self, path: &str, parts: &[Part<'_>]) -> RequestBuilder {
        self.body(
            path,
            &format!("multipart/form-data; boundary={BOUNDARY}"),
            form_body(parts),
        )
    }

    /// Any body.
    pub fn body(&self, path: &str, content_type: &str, body: Vec<u8>) -> RequestBuilder {
        self.request("POST", path)
            .header("content-type", content_type)
            .body(body)
    }

    /// Bytes on a connection of their own, and everything that comes back until it is closed.
    pub async fn raw(&self, request: Vec<u8>) -> String {
        let port = self.port;
        let talk = move || {
            let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
            connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            // What is not read to its end may be refused in between.
            let _ = connection.write_all(&request);
            let mut answer = Vec::new();
            let _ = connection.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        };
        actix_web::rt::task::spawn_blocking(talk).await.unwrap()
    }
}

/// A part of a form.
#[derive(Clone, Copy)]
pub enum Part<'a> {
    /// A file in the field.
    File(&'a str, &'a [u8]),
    /// A text field.
    Text(&'a str, &'a [u8]),
}

/// The body of a form.
pub fn form_body(parts: &[Part<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        let (name, content, rest) = match part {
            Part::File(name, content) => (
                name,
                content,
                "; filename=\"x\"\r\ncontent-type: application/octet-stream",
            ),
            Part::Text(name, content) => (name, content, ""),
        };
        let head = format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"{rest}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

/// The problem of an answer, after checking what every problem has.
pub async fn problem(response: Response) -> (u16, String, Problem) {
    let status = response.status().as_u16();
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let id = header("x-request-id").expect("every answer has an id");
    assert_eq!(
        header("content-type").as_deref(),
        Some("application/problem+json"),
        "{status}"
    );
    if matches!(status, 429 | 503) {
        assert!(header("retry-after").is_some(), "{status} says when to come back");
    }
    let problem: Problem = response.json().await.unwrap();
    assert_eq!((problem.status, &problem.request_id), (status, &id));
    let slug = problem
        .kind
        .strip_prefix("/problems/")
        .expect("a type of ours")
        .to_owned();
    (status, slug, problem)
}
