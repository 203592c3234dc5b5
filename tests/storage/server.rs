//! An S3 server: the protocol of `s3s`, objects in a folder, one winner for each name, failures on command, and a count of who asked for what.
#![allow(
    dead_code,
    reason = "tests in the library and the program of this folder use a part each"
)]

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, IF_NONE_MATCH};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::auth::{SecretKey, SimpleAuth};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpResponse};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What opens it, with any of the access keys.
pub const SECRET_KEY: &str = "the-secret-access-key";
/// An access key that is registered; `key-0` to `key-31` are too, so that clients can be counted apart.
pub const ACCESS_KEY: &str = "key";
const ACCESS_KEYS: usize = 32;
/// The bucket that there is.
pub const BUCKET: &str = "bucket";
/// Requests that are remembered word by word.
const REQUESTS_MAX: usize = 100_000;
/// Folders of an archive, by which requests are counted.
const KINDS: [&str; 10] = [
    "manifest",
    "rows",
    "graphs",
    "metrics",
    "calibrations",
    "evaluations",
    "thumbnails",
    "pixels",
    "models",
    "feedback",
];

/// What happens instead of an answer as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 409: somebody else is at the name. Nothing is done.
    Conflict,
    /// 503. Nothing is done.
    Busy,
    /// 503, and it was done.
    BusyAfterwards,
    /// It was done, and the connection ends without an answer.
    Lost,
    /// It was done, and the answer comes late: see [`Server::set_late`].
    Late,
    /// 507. Nothing is done.
    Full,
}

impl Fault {
    /// All of them, by the names that [`Fault::named`] knows.
    pub const ALL: [(&'static str, Self); 6] = [
        ("conflict", Self::Conflict),
        ("busy", Self::Busy),
        ("busy-afterwards", Self::BusyAfterwards),
        ("lost", Self::Lost),
        ("late", Self::Late),
        ("full", Self::Full),
    ];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, fault)| *fault)
    }
}

/// Faults for requests of a kind.
struct Planned {
    fault: Fault,
    method: Method,
    part: String,
    /// How many of the next ones are left; none: one in `every`.
    times: Option<usize>,
    every: usize,
    seen: usize,
}

/// Who asked for what, and how it was answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counted {
    /// The client's access key.
    pub client: String,
    /// Method, or `LIST`, and the folder of the archive.
    pub request: String,
    /// HTTP status; 0: there was no answer.
    pub status: u16,
}

/// A running server. It ends with its runtime.
pub struct Server {
    address: SocketAddr,
    inner: Arc<Inner>,
    down: watch::Sender<bool>,
    listening: watch::Receiver<bool>,
}

struct Inner {
    s3: S3Service,
    folder: PathBuf,
    /// `s3s-fs` looks whether a name is taken and takes it later: one request at a time for each name makes that one step.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    planned: Mutex<Vec<Planned>>,
    put_latency_ms: AtomicU64,
    late_ms: AtomicU64,
    down: AtomicBool,
    /// `If-None-Match` is ignored.
    deaf: AtomicBool,
    /// Faults that happened.
    happened: AtomicU64,
    requests: Mutex<Vec<String>>,
    counts: Mutex<BTreeMap<Counted, u64>>,
}

impl Server {
    /// Serves a folder, with an empty `bucket` where there is none. Port 0 takes any free one.
    ///
    /// # Errors
    /// When the folder can't be written or the address is taken.
    pub async fn start_in(folder: &Path, address: SocketAddr) -> io::Result<Self> {
        std::fs::create_dir_all(folder.join(BUCKET))?;
        let files = s3s_fs::FileSystem::new(folder).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut builder = S3ServiceBuilder::new(files);
        let mut keys = SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY);
        for number in 0..ACCESS_KEYS {
            keys.register(format!("{ACCESS_KEY}-{number}"), SecretKey::from(SECRET_KEY));
        }
        builder.set_auth(keys);
        let inner = Arc::new(Inner {
            s3: builder.build(),
            folder: folder.to_owned(),
            turns: Mutex::default(),
            planned: Mutex::default(),
            put_latency_ms: AtomicU64::new(0),
            late_ms: AtomicU64::new(0),
            down: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
            happened: AtomicU64::new(0),
            requests: Mutex::default(),
            counts: Mutex::default(),
        });
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (down, wanted) = watch::channel(false);
        let (up, listening) = watch::channel(true);
        tokio::spawn(listen(Arc::clone(&inner), listener, wanted, up));
        Ok(Self {
            address,
            inner,
            down,
            listening,
        })
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next `times` requests of this kind go wrong: those whose path and query contain `part`.
    pub fn plan(&self, fault: Fault, method: Method, part: &str, times: usize) {
        self.inner.add(fault, method, part, Some(times), 1);
    }

    /// One in `every` requests of this kind goes wrong.
    pub fn plan_every(&self, fault: Fault, method: Method, part: &str, every: usize) {
        self.inner.add(fault, method, part, None, every.max(1));
    }

    /// How many of the faults that were planned by number did not happen. No fault is left.
    pub fn spared(&self) -> usize {
        let planned = std::mem::take(&mut *lock(&self.inner.planned));
        planned.iter().filter_map(|planned| planned.times).sum()
    }

    /// How many faults happened since the last call.
    pub fn happened(&self) -> u64 {
        self.inner.happened.swap(0, Ordering::SeqCst)
    }

    /// How long every PUT takes before anything is done.
    pub fn set_put_latency(&self, latency: Duration) {
        self.inner
            .put_latency_ms
            .store(latency.as_millis() as u64, Ordering::SeqCst);
    }

    /// How late an answer is that is late.
    pub fn set_late(&self, late: Duration) {
        self.inner.late_ms.store(late.as_millis() as u64, Ordering::SeqCst);
    }

    /// Whether it is gone: connections end without an answer, and new ones are refused.
    pub async fn set_down(&self, down: bool) {
        self.inner.down.store(down, Ordering::SeqCst);
        self.down.send_replace(down);
        let mut listening = self.listening.clone();
        // It ends only with the runtime.
        let _ = listening.wait_for(|&listening| listening != down).await;
    }

    /// Whether `If-None-Match` is ignored.
    pub fn set_deaf(&self, deaf: bool) {
        self.inner.deaf.store(deaf, Ordering::SeqCst);
    }

    /// Requests since the last call: method, path and query.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.inner.requests))
    }

    /// How often whom asked what since the last call.
    pub fn counts(&self) -> BTreeMap<Counted, u64> {
        std::mem::take(&mut *lock(&self.inner.counts))
    }
}

/// Takes connections, but while it is down.
async fn listen(
    inner: Arc<Inner>,
    mut listener: TcpListener,
    mut down: watch::Receiver<bool>,
    listening: watch::Sender<bool>,
) {
    let address = listener.local_addr().expect("it listens somewhere");
    loop {
        let mut connections = JoinSet::new();
        let gone = take_connections(&inner, &listener, &mut connections, &mut down).await;
        if gone {
            return;
        }
        drop(listener);
        connections.shutdown().await;
        listening.send_replace(false);
        if down.wait_for(|&down| !down).await.is_err() {
            return;
        }
        listener = TcpListener::bind(address).await.expect("the port is still free");
        listening.send_replace(true);
    }
}

/// Until it is to be down; whether nobody is there any more who could say so.
async fn take_connections(
    inner: &Arc<Inner>,
    listener: &TcpListener,
    connections: &mut JoinSet<()>,
    down: &mut watch::Receiver<bool>,
) -> bool {
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((socket, _)) = accepted {
                    connections.spawn(connection(Arc::clone(inner), socket));
                }
            }
            Some(_) = connections.join_next() => {}
            gone = async { down.wait_for(|&down| down).await.is_err() } => return gone,
        }
    }
}

async fn connection(inner: Arc<Inner>, socket: TcpStream) {
    // Small answers are not to wait for more.
    let _ = socket.set_nodelay(true);
    let service = service_fn(move |request| Arc::clone(&inner).answer(request));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    // It ends with an error where no answer is given, as asked for.
    drop(connection.await);
}

impl Inner {
    fn add(&self, fault: Fault, method: Method, part: &str, times: Option<usize>, every: usize) {
        lock(&self.planned).push(Planned {
            fault,
            method,
            part: part.to_owned(),
            times,
            every,
            seen: 0,
        });
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> io::Result<HttpResponse> {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let target = target.trim_start_matches('/').trim_start_matches(BUCKET).to_owned();
        {
            let mut requests = lock(&self.requests);
            if requests.len() < REQUESTS_MAX {
                requests.push(format!("{} {target}", request.method()));
            }
        }
        let mut counted = Counted {
            client: client(&request),
            request: kind(request.method(), &target),
            status: 0,
        };
        let answer = self.answered(request, &target).await;
        counted.status = answer.as_ref().map_or(0, |answer| answer.status().as_u16());
        *lock(&self.counts).entry(counted).or_default() += 1;
        answer
    }

    async fn answered(&self, request: Request<Incoming>, target: &str) -> io::Result<HttpResponse> {
        if self.down.load(Ordering::SeqCst) {
            return Err(no_answer());
        }
        if *request.method() == Method::PUT {
            pause(&self.put_latency_ms).await;
        }
        let fault = self.next_fault(request.method(), target);
        match fault {
            Some(Fault::Conflict) => return refused(request, StatusCode::CONFLICT, "ConditionalRequestConflict").await,
            Some(Fault::Busy) => return refused(request, StatusCode::SERVICE_UNAVAILABLE, "SlowDown").await,
            Some(Fault::Full) => return refused(request, StatusCode::INSUFFICIENT_STORAGE, "XMinioStorageFull").await,
            _ => {}
        }
        if self.deaf.load(Ordering::SeqCst) && request.headers().contains_key(IF_NONE_MATCH) {
            // The header itself is signed, so what it asks about goes instead. It may not be there.
            let _ = std::fs::remove_file(self.folder.join(request.uri().path().trim_start_matches('/')));
        }
        let turn = self.turn(request.uri().path());
        let answer = {
            let _turn = turn.lock().await;
            let request = request.map(Body::from);
            self.s3
                .call(request)
                .await
                .map_err(|error| io::Error::other(format!("{error:?}")))?
        };
        match fault {
            Some(Fault::BusyAfterwards) => Ok(refusal(StatusCode::SERVICE_UNAVAILABLE, "InternalError")),
            Some(Fault::Lost) => Err(no_answer()),
            Some(Fault::Late) => {
                pause(&self.late_ms).await;
                Ok(answer)
            }
            _ => Ok(answer),
        }
    }

    fn turn(&self, path: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = lock(&self.turns);
        // Those that nobody holds are of no use.
        if turns.len() > 1000 {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        Arc::clone(turns.entry(path.to_owned()).or_default())
    }

    fn next_fault(&self, method: &Method, target: &str) -> Option<Fault> {
        let mut planned = lock(&self.planned);
        let at = planned
            .iter()
            .position(|planned| planned.method == *method && target.contains(&planned.part))?;
        let next = &mut planned[at];
        next.seen += 1;
        if !next.seen.is_multiple_of(next.every) {
            return None;
        }
        let fault = next.fault;
        if let Some(times) = &mut next.times {
            *times -= 1;
            if *times == 0 {
                planned.remove(at);
            }
        }
        self.happened.fetch_add(1, Ordering::SeqCst);
        Some(fault)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn pause(milliseconds: &AtomicU64) {
    let milliseconds = milliseconds.load(Ordering::SeqCst);
    if milliseconds > 0 {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
}

/// Whose access key a request is signed with.
fn client(request: &Request<Incoming>) -> String {
    let signed = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let key = signed.and_then(|signed| signed.split_once("Credential=")?.1.split('/').next());
    key.unwrap_or_default().to_owned()
}

/// What is asked for: the method, `LIST` for a listing, and the folder.
fn kind(method: &Method, target: &str) -> String {
    let lists = target.contains("list-type=");
    let method = if lists { "LIST" } else { method.as_str() };
    let mut words = target.split(['/', '?', '&', '=', '%']);
    let folder = words.find(|word| KINDS.iter().any(|kind| word.ends_with(kind)));
    let folder = folder.and_then(|word| KINDS.into_iter().find(|kind| word.ends_with(kind)));
    format!("{method} {}", folder.unwrap_or("other"))
}

fn no_answer() -> io::Error {
    io::Error::other("no answer, as asked for")
}

/// A refusal after the request was read: a client that is still sending would see a broken connection instead.
async fn refused(request: Request<Incoming>, status: StatusCode, code: &str) -> io::Result<HttpResponse> {
    let mut body = Body::from(request.into_body());
    body.store_all_limited(usize::MAX).await.map_err(io::Error::other)?;
    Ok(refusal(status, code))
}

fn refusal(status: StatusCode, code: &str) -> HttpResponse {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as asked for</Message></Error>");
    let mut answer = HttpResponse::new(Body::from(body));
    *answer.status_mut() = status;
    answer
}
