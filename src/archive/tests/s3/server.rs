//! An S3 server in the test's own process: the protocol of `s3s`, objects in a temporary folder, and failures on command.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::IF_NONE_MATCH;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use object_store::aws::AmazonS3Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpResponse};

use crate::archive::lock;
use crate::archive::store::{Limits, Store};

pub const URL: &str = "s3://bucket/hospital/x-rays";
pub const SECRET_KEY: &str = "the-secret-access-key";

/// Times of a client that has no time to lose.
pub const LIMITS: Limits = Limits {
    connect: Duration::from_secs(5),
    silence: Duration::from_millis(1500),
    whole: Duration::from_secs(20),
    retries_max: 2,
    retry: Duration::from_secs(10),
    pause_min: Duration::from_millis(1),
    pause_max: Duration::from_millis(20),
};
/// More than [`Limits::silence`].
const TOO_LATE: Duration = Duration::from_millis(2000);

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
    /// It was done, and the answer comes when nobody waits for it any more.
    Late,
    /// 507. Nothing is done.
    Full,
}

/// Faults for the next requests of a kind.
struct Planned {
    fault: Fault,
    method: Method,
    part: &'static str,
    times: usize,
}

/// A running server. It ends with the runtime of its test.
pub struct Server {
    pub folder: tempfile::TempDir,
    address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    s3: S3Service,
    folder: PathBuf,
    /// `s3s-fs` looks whether a name is taken and takes it later: one request at a time for each name makes that one step.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    planned: Mutex<Vec<Planned>>,
    down: AtomicBool,
    /// `If-None-Match` is ignored.
    deaf: AtomicBool,
    requests: Mutex<Vec<String>>,
}

impl Server {
    /// With an empty `bucket`.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bucket")).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single("key", SECRET_KEY));
        let inner = Arc::new(Inner {
            s3: builder.build(),
            folder: folder.path().to_owned(),
            turns: Mutex::default(),
            planned: Mutex::default(),
            down: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
            requests: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Arc::clone(&inner);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let inner = Arc::clone(&serving);
                let service = service_fn(move |request| Arc::clone(&inner).answer(request));
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                // It ends with an error where no answer is given, as asked for.
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        Self { folder, address, inner }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client's settings.
    pub fn settings(&self) -> AmazonS3Builder {
        AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_region("eu-central-1")
            .with_access_key_id("key")
            .with_secret_access_key(SECRET_KEY)
    }

    /// Another process's view of a place in it.
    pub fn store_at(&self, url: &str) -> Store {
        Store::s3(url, self.settings(), LIMITS).unwrap()
    }

    /// Another process's view of [`URL`].
    pub fn store(&self) -> Store {
        self.store_at(URL)
    }

    /// Where the objects of [`URL`] lie.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("bucket/hospital/x-rays")
    }

    /// The next `times` requests of this kind go wrong.
    pub fn plan(&self, fault: Fault, method: Method, part: &'static str, times: usize) {
        lock(&self.inner.planned).push(Planned {
            fault,
            method,
            part,
            times,
        });
    }

    /// How many planned faults did not happen. None are left.
    pub fn spared(&self) -> usize {
        std::mem::take(&mut *lock(&self.inner.planned))
            .iter()
            .map(|planned| planned.times)
            .sum()
    }

    /// Whether connections end without an answer.
    pub fn set_down(&self, down: bool) {
        self.inner.down.store(down, Ordering::SeqCst);
    }

    /// Whether `If-None-Match` is ignored.
    pub fn set_deaf(&self, deaf: bool) {
        self.inner.deaf.store(deaf, Ordering::SeqCst);
    }

    /// Requests since the last call: method, path and query.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.inner.requests))
    }
}

impl Inner {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> io::Result<HttpResponse> {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let target = target.trim_start_matches("/bucket").to_owned();
        lock(&self.requests).push(format!("{} {target}", request.method()));
        if self.down.load(Ordering::SeqCst) {
            return Err(no_answer());
        }
        let fault = self.next_fault(request.method(), &target);
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
        let turn = Arc::clone(lock(&self.turns).entry(request.uri().path().to_owned()).or_default());
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
                tokio::time::sleep(TOO_LATE).await;
                Ok(answer)
            }
            _ => Ok(answer),
        }
    }

    fn next_fault(&self, method: &Method, target: &str) -> Option<Fault> {
        let mut planned = lock(&self.planned);
        let at = planned
            .iter()
            .position(|planned| planned.method == *method && target.contains(planned.part))?;
        let fault = planned[at].fault;
        planned[at].times -= 1;
        if planned[at].times == 0 {
            planned.remove(at);
        }
        Some(fault)
    }
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
