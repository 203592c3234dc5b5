//! The composition root: settings and parts become a running server. `main` and the tests both start here.

mod audit;
mod models;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::web::Data;
use tokio::sync::watch;

use crate::archive::{
    Archive, CacheSettings, CompactSettings, GraphBuilder, Manifest, Secret, Writer, WriterSettings, maintain,
};
use crate::cluster::{Cluster, ClusterSettings};
use crate::domain::Frames;
use crate::embed::{Backend, ModelCard, Network, load_backend, load_network};
use crate::error::{Error, ErrorKind, Result};
use crate::http::{self, Credentials, HttpSettings, Oidc, OidcSettings, RateSettings};
use crate::imaging::{DecoderSettings, Limits};
use crate::index::IndexSettings;
use crate::ingest::build::graph_builder;
use crate::ingest::{BurnedInRule, InboxSettings, Ingest, Labelling, open_inbox};
use crate::metrics::Metrics;
use crate::pacs::{self, BaseUrl, Follower, Following, Lookup, PacsFile, PacsList, SystemLookup};
use crate::search::{Engine, Holding, Parts, Sampler, Served, first_assigned, keep_placed};
use crate::telemetry::otlp::Sending;
use crate::telemetry::{Spans, run_blocking};
use crate::tls::{Identity, Port, TlsFiles};
use audit::Auditing;
use models::Models;

/// Time between two compactions.
const COMPACT_EVERY: Duration = Duration::from_secs(3600);
/// Exit code of a server that was told again to stop: what was in flight was not finished.
const STOPPED_AT_ONCE: i32 = 130;
/// Longest time that a reader may take nothing of a large answer.
const ANSWER_IDLE_MAX: Duration = Duration::from_secs(30);
/// Time from the start to the first one: what is due does not wait for an hour of uptime.
const COMPACT_FIRST: Duration = Duration::from_secs(60);

/// Everything that decides how a server runs.
pub struct Settings {
    /// The archive's URL.
    pub archive: String,
    /// The archive's secret.
    pub secret: Secret,
    /// Where what is read from a bucket is kept.
    pub cache: Option<CacheSettings>,
    /// Folder of the model; absent: the one the archive holds.
    pub model: Option<PathBuf>,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: String,
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The certificate that the server shows; none: it speaks without TLS.
    pub tls: Option<TlsFiles>,
    /// The API key, which may do everything. Beyond loopback it or a keys file is required.
    pub api_key: Option<String>,
    /// File with keys that may do some things each.
    pub keys_file: Option<PathBuf>,
    /// File with the PACS that searches by reference may ask.
    pub pacs_file: Option<PathBuf>,
    /// Issuer of tokens that are taken, and how people sign in.
    pub oidc: Option<OidcSettings>,
    /// Largest upload.
    pub upload_bytes_max: usize,
    /// Largest picture.
    pub pixels_max: u64,
    /// Time for one request.
    pub request_seconds_max: u64,
    /// Requests at a time.
    pub in_flight_max: usize,
    /// Requests in a minute.
    pub rates: RateSettings,
    /// Largest class that is scanned exactly; absent: the measured default.
    pub exact_rows_max: Option<usize>,
    /// Images in one batch of the model.
    pub batch_max: usize,
    /// Images waiting for the model.
    pub queue_max: usize,
    /// Decoders and searches at a time.
    pub threads: usize,
    /// Address space of a DICOM worker on top of the program itself.
    pub worker_memory_bytes_max: u64,
    /// What becomes of images that names may be written into.
    pub burned_in: BurnedInRule,
    /// Which frames of a file that comes through the inbox become images.
    pub frames: Frames,
    /// File that says which classes instances, series and studies show that come through the inbox.
    pub labels_file: Option<PathBuf>,
    /// Searches only.
    pub read_only: bool,
    /// Where clients see `/dicom-web`, for RetrieveURLs; none: answers have none.
    pub dicom_web_url: Option<BaseUrl>,
    /// The cluster that it is a replica of; none: it holds everything and is alone.
    pub cluster: Option<Replica>,
    /// The share of searches that is asked again by exact search, for the metrics, 0 to 1.
    pub sample_share: f64,
    /// After SIGTERM it says that it is not ready for so long before it stops, and answers meanwhile.
    pub drain_seconds: u64,
    /// Where the audit is kept; none: there is none.
    pub audit: Option<AuditPlace>,
    /// Spans of traces that are collected in this process, for a collector; none: they go nowhere.
    pub spans: Option<Spans>,
    /// The program whose `decode-worker` decodes DICOM: this one.
    pub program: PathBuf,
}

/// Where an audit is kept.
#[derive(Debug, Clone)]
pub struct AuditPlace {
    /// The folder of its files, on this machine; made if it is not there.
    pub folder: PathBuf,
    /// Most bytes of all files in it.
    pub bytes_max: u64,
}

/// How a server is a replica among others.
pub struct Replica {
    /// Where it listens to the others; port 0 takes any free one.
    pub inner_listen: SocketAddr,
    /// How it takes part.
    pub settings: ClusterSettings,
}

impl Settings {
    /// The defaults of `medsearch serve` for an archive, on any free port of loopback.
    pub fn local(archive: impl Into<String>, secret: Secret) -> Self {
        Self {
            archive: archive.into(),
            secret,
            cache: None,
            model: None,
            device: "auto".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            api_key: None,
            keys_file: None,
            pacs_file: None,
            oidc: None,
            upload_bytes_max: 64 << 20,
            pixels_max: 64 << 20,
            request_seconds_max: 30,
            in_flight_max: 256,
            rates: RateSettings::default(),
            exact_rows_max: None,
            batch_max: 32,
            queue_max: 256,
            threads: std::thread::available_parallelism().map_or(2, usize::from),
            worker_memory_bytes_max: 2 << 30,
            burned_in: BurnedInRule::default(),
            frames: Frames::default(),
            labels_file: None,
            read_only: false,
            dicom_web_url: None,
            cluster: None,
            sample_share: 0.01,
            drain_seconds: 0,
            audit: None,
            spans: None,
            program: own_program(),
        }
    }
}

/// A server that listens and is ready.
pub struct App {
    address: SocketAddr,
    server: actix_web::dev::Server,
    state: http::State,
    drain: Duration,
    cluster: Option<(Cluster, ServerHandle)>,
    auditing: Option<Auditing>,
    spans: Option<Sending>,
    following: Following,
    /// Dropping it ends the task that follows the archive.
    _written: watch::Sender<u64>,
}

impl App {
    /// Loads the archive and the model and begins to listen.
    ///
    /// # Errors
    /// `Unauthorized` for an address beyond loopback without a key or a keys file; otherwise whatever keeps the parts from starting.
    pub async fn build(mut settings: Settings) -> Result<Self> {
        check_access(&settings)?;
        let oidc = settings.oidc.take();
        let oidc = oidc.map(|oidc| Oidc::new(oidc, &settings.secret)).transpose()?;
        let credentials = Credentials::open_with(settings.api_key.as_deref(), settings.keys_file.as_deref(), oidc)?;
        let listed = settings.pacs_file.as_deref().map(pacs::settings::read).transpose()?;
        let PacsFile { pacs, followed } = listed.unwrap_or_default();
        let lookup: Arc<dyn Lookup> = Arc::new(SystemLookup);
        let pacs = PacsList::new(pacs, &lookup)?;
        let metrics = Arc::new(Metrics::new()?);
        let tls = settings.tls.clone();
        let tls = tls
            .map(|files| Identity::open(Port::Public, files, &metrics))
            .transpose()?;
        let spans = match settings.spans.take() {
            Some(spans) => Some(spans.send(&instance(&settings), Arc::clone(&metrics))?),
            None => None,
        };
        let archive = Archive::open_cached(&settings.archive, settings.secret.clone(), settings.cache.as_ref()).await?;
        let joined = match &settings.cluster {
            Some(replica) => Some(join(replica, &archive, &metrics).await?),
            None => None,
        };
        let cluster = joined.as_ref().map(|joined| joined.cluster.clone());
        let (engine, served) = open_replica(&archive, &settings, &metrics, cluster.as_ref()).await?;
        if let Some(joined) = &joined {
            joined.inner.begin(engine.clone());
            tokio::spawn(keep_placed(engine.clone(), joined.cluster.clone()));
        }
        let inbox = archive.inbox();
        let labelling = Labelling::open(settings.labels_file.clone(), archive.identity().clone())?;
        let classes = &served.current().state.manifest.classes;
        for class in labelling.classes().iter().filter(|class| !classes.contains(class)) {
            tracing::warn!(
                class = class.as_str(),
                "the labels file names a class that no image has"
            );
        }
        let followed_for = archive.clone();
        let kept = archive.clone();
        let listener = bind(settings.listen)?;
        let address = listener
            .local_addr()
            .map_err(|error| Error::with_source(ErrorKind::Internal, "no local address", error))?;
        // Before anything that waits is embedded: that leaves lines too.
        let auditing = match settings.audit.take() {
            Some(place) => Some(Auditing::begin(place, instance(&settings), kept, &metrics).await?),
            None => None,
        };
        if let (Some(auditing), Some(credentials)) = (&auditing, &credentials) {
            auditing.follow_keys(credentials.changes());
        }
        let (written, commits) = watch::channel(0);
        let ingest = if settings.read_only {
            None
        } else {
            let graphs = graph_builder(IndexSettings::default().with_exact_rows_max(settings.exact_rows_max));
            tokio::spawn(keep_compact(archive.clone(), graphs, Arc::clone(&served)));
            let writer = Writer::spawn(
                archive,
                WriterSettings::default(),
                Arc::clone(&metrics),
                written.clone(),
            )
            .await?;
            Some(Ingest::new(engine.clone(), writer).with_burned_in(settings.burned_in))
        };
        let reception = ingest.clone().map(|ingest| {
            let inbox_settings = InboxSettings {
                limits: decoder_settings(&settings).limits,
                frames: settings.frames,
                labelling: Arc::clone(&labelling),
            };
            tokio::spawn(labelling.follow(Arc::clone(&metrics)));
            let audit = auditing.as_ref().map(|auditing| auditing.auditor().audit().clone());
            open_inbox(&engine, ingest, inbox, inbox_settings, Arc::clone(&metrics), audit)
        });
        tokio::spawn(served.follow(commits));

        if let Some(credentials) = &credentials {
            tokio::spawn(Arc::clone(credentials).follow(Arc::clone(&metrics)));
        }
        if let Some(identity) = &tls {
            tokio::spawn(Arc::clone(identity).follow(Arc::clone(&metrics)));
        } else if !settings.listen.ip().is_loopback() {
            tracing::warn!(
                "other machines can reach this server and it speaks without TLS: a proxy before it has to, for requests bring keys"
            );
        }
        let drain = Duration::from_secs(settings.drain_seconds);
        let settings = HttpSettings {
            upload_bytes_max: settings.upload_bytes_max,
            pixels_max: settings.pixels_max,
            request_seconds_max: settings.request_seconds_max as f64,
            in_flight_max: settings.in_flight_max,
            rates: settings.rates,
            connections_max: connections_max(),
            credentials,
            loopback: address.ip().is_loopback(),
            port: address.port(),
            pacs,
            dicom_web_url: settings.dicom_web_url,
            answer_idle_max: ANSWER_IDLE_MAX,
            tls,
        };
        let auditor = auditing.as_ref().map(Auditing::auditor);
        let mut followers = Vec::new();
        if let Some(reception) = &reception {
            for orthanc in followed {
                let (reception, metrics) = (reception.clone(), Arc::clone(&metrics));
                let bytes_max = settings.upload_bytes_max;
                let follower = Follower::new(orthanc, &lookup, &followed_for, reception, bytes_max, metrics)?;
                followers.push(follower.audited(auditor.as_ref().map(|auditor| auditor.audit().clone())));
            }
        }
        warn_of_books(&followed_for, &followers).await;
        let following = Following::start(followers);
        let state = http::State::new(engine, ingest, settings, metrics).audited(auditor);
        let state = match reception {
            Some(reception) => state.with_reception(reception),
            None => state,
        };
        let server = http::server(listener, state.clone())?;
        Ok(Self {
            address,
            server,
            state,
            drain,
            cluster: joined.map(|joined| (joined.cluster, joined.server)),
            auditing,
            spans,
            following,
            _written: written,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it from outside: `stop(true)` finishes what is in flight.
    pub fn handle(&self) -> ServerHandle {
        self.server.handle()
    }

    /// Serves until it is stopped by SIGTERM, SIGINT or its handle. SIGTERM drains first; a second signal ends that.
    pub async fn run_until_stopped(self) -> Result<()> {
        let Self {
            server,
            state,
            drain,
            cluster,
            auditing,
            spans,
            following,
            _written,
            ..
        } = self;
        let handle = server.handle();
        let others = cluster.as_ref().map(|(cluster, _)| cluster.clone());
        let stopper = actix_web::rt::spawn(async move {
            let signal = signalled().await;
            state.drain();
            if let Some(cluster) = &others {
                cluster.drain();
            }
            if signal == Signal::Terminate && !drain.is_zero() {
                tracing::info!(seconds = drain.as_secs(), "draining");
                tokio::select! {
                    () = tokio::time::sleep(drain) => {}
                    _ = signalled() => {}
                }
            }
            tokio::select! {
                () = handle.stop(true) => {}
                // Whoever asks again does not wait for what is in flight.
                _ = signalled() => std::process::exit(STOPPED_AT_ONCE),
            }
        });
        let ended = server
            .await
            .map_err(|error| Error::with_source(ErrorKind::Internal, "the server ended with an error", error));
        stopper.abort();
        following.stop().await;
        if let Some((_, inner)) = cluster {
            inner.stop(true).await;
        }
        if let Some(auditing) = auditing {
            auditing.end().await;
        }
        // Spans of the last requests too.
        if let Some(spans) = spans {
            spans.finish().await;
        }
        ended
    }

    /// Builds and runs on a runtime of its own; `started` gets the address, and a switch that stops the server, once it listens.
    ///
    /// # Errors
    /// As [`App::build`] and [`App::run_until_stopped`].
    pub fn run(settings: Settings, started: impl FnOnce(SocketAddr, Stop)) -> Result<()> {
        actix_web::rt::System::new().block_on(async {
            let app = Self::build(settings).await?;
            started(app.address(), Stop(app.handle()));
            app.run_until_stopped().await
        })
    }
}

/// What tells this server's spans from those of others: its name in a cluster, else the machine and the port.
fn instance(settings: &Settings) -> String {
    match &settings.cluster {
        Some(replica) => replica.settings.replica.clone(),
        None => on_this_machine(settings.listen.port()),
    }
}

/// A server's name by the machine that it runs on, and its port.
pub fn on_this_machine(port: u16) -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}:{port}", machine.trim())
}

/// How a server is asked to stop.
#[derive(PartialEq, Eq)]
enum Signal {
    /// SIGTERM: an orchestrator, which sends requests for a moment more.
    Terminate,
    /// SIGINT: a person, who waits.
    Interrupt,
}

async fn signalled() -> Signal {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals end the program by themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => Signal::Terminate,
        _ = interrupt.recv() => Signal::Interrupt,
    }
}

/// A replica that others can see, and that has loaded nothing yet.
struct Joined {
    cluster: Cluster,
    inner: Data<http::Inner>,
    server: ServerHandle,
}

/// An Orthanc that was renamed, or is followed no more: what it had is not looked at.
async fn warn_of_books(archive: &Archive, followers: &[Follower]) {
    let noted: Vec<&str> = followers.iter().filter_map(Follower::noted_as).collect();
    if noted.is_empty() {
        return;
    }
    match archive.origin_books().await {
        Ok(books) => {
            for book in books.iter().filter(|book| !noted.contains(&book.as_str())) {
                tracing::warn!(
                    orthanc = book,
                    "what this Orthanc had is written down, but nobody follows it: it keeps nothing here any more"
                );
            }
        }
        Err(error) => tracing::warn!(error = %error, "what Orthancs had can't be listed at the moment"),
    }
}

async fn join(replica: &Replica, archive: &Archive, metrics: &Arc<Metrics>) -> Result<Joined> {
    let id = archive.latest().await?.archive.id.clone();
    let cluster = Cluster::new(replica.settings.clone(), id, Arc::clone(metrics))?;
    let inner = Data::new(http::Inner::new(cluster.clone())?);
    let server = http::inner_server(bind(replica.inner_listen)?, inner.clone())?;
    let handle = server.handle();
    actix_web::rt::spawn(server);
    tokio::spawn(cluster.clone().follow());
    Ok(Joined {
        cluster,
        inner,
        server: handle,
    })
}

fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| {
        let message = format!("can't listen on `{address}`: is another program using the port?");
        Error::with_source(ErrorKind::Unavailable, message, error)
    })
}

/// Merges and collects what is due, and builds again the graphs that could not be loaded, soon after the start and every hour, for as long as the server
/// runs. What fails is tried again an hour later.
async fn keep_compact(archive: Archive, graphs: GraphBuilder, served: Arc<Served>) {
    let mut wait = COMPACT_FIRST;
    loop {
        tokio::time::sleep(wait).await;
        wait = COMPACT_EVERY;
        let settings = CompactSettings {
            graphs: Some(Arc::clone(&graphs)),
            lost_graphs: served.current().snapshot.lost_graphs().clone(),
            ..CompactSettings::default()
        };
        match maintain(&archive, settings).await {
            Ok(collected) => tracing::info!(
                version = collected.version,
                manifests_deleted = collected.manifests_deleted,
                objects_deleted = collected.objects_deleted,
                "archive compacted"
            ),
            Err(error) => tracing::warn!(error = %error, "the archive could not be compacted"),
        }
    }
}

/// Stops a server from another thread.
pub struct Stop(ServerHandle);

impl Stop {
    /// Stops it; what is in flight is finished first.
    pub fn stop(self) {
        // The request is sent when the future is made; nobody has to wait for the end here.
        drop(self.0.stop(true));
    }
}

/// An engine over an archive, for the server and for commands that search.
///
/// # Errors
/// Whatever keeps the archive, the index or the model from loading.
pub async fn open_engine(
    archive: &Archive,
    settings: &Settings,
    metrics: &Arc<Metrics>,
) -> Result<(Engine, Arc<Served>)> {
    open_replica(archive, settings, metrics, None).await
}

async fn open_replica(
    archive: &Archive,
    settings: &Settings,
    metrics: &Arc<Metrics>,
    cluster: Option<&Cluster>,
) -> Result<(Engine, Arc<Served>)> {
    let index = IndexSettings::default().with_exact_rows_max(settings.exact_rows_max);
    let holding = match cluster {
        Some(cluster) => first_assigned(cluster, &*archive.latest().await?).await,
        None => Holding::All,
    };
    let models = Models::new(archive, settings, metrics);
    models.check(&*archive.latest().await?)?;
    let served = Served::open(archive.clone(), index, holding, Some(models.loader())).await?;
    let parts = Parts {
        archive: archive.clone(),
        served: Arc::clone(&served),
        queue_max: settings.queue_max,
        search_threads: settings.threads,
        cluster: cluster.cloned(),
        sampler: Arc::new(Sampler::new(settings.sample_share, Arc::clone(metrics))),
    };
    Ok((Engine::new(parts), served))
}

/// How files are decoded under these settings.
pub fn decoder_settings(settings: &Settings) -> DecoderSettings {
    DecoderSettings {
        limits: Limits {
            file_bytes_max: settings.upload_bytes_max,
            pixels_max: settings.pixels_max,
        },
        workers: settings.threads,
        worker_memory_bytes_max: settings.worker_memory_bytes_max,
        worker_seconds_max: 20,
        program: settings.program.clone(),
    }
}

/// Where this program lies. By the name that the kernel gives it when the path is gone, for example after an upgrade in place.
pub fn own_program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"))
}

/// Open files that connections leave to the archive, the workers and the libraries.
const FILES_KEPT: u64 = 512;

/// Connections that the system has files for, after it was asked for as many as it gives.
fn connections_max() -> usize {
    // What is not granted is not there: the limit that holds is what counts.
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    usize::try_from(files.saturating_sub(FILES_KEPT))
        .unwrap_or(usize::MAX)
        .clamp(64, 25_000)
}

/// Beyond loopback nothing is served without a credential.
fn check_access(settings: &Settings) -> Result<()> {
    let known = settings.api_key.is_some() || settings.keys_file.is_some() || settings.oidc.is_some();
    if known || settings.listen.ip().is_loopback() {
        return Ok(());
    }
    let message = format!(
        "`{}` can be reached from other machines: give keys (--keys-file), an API key (--api-key-file) or an issuer of tokens (--oidc-issuer), or listen on 127.0.0.1",
        settings.listen
    );
    Err(Error::new(ErrorKind::Unauthorized, message))
}

/// The model that the archive holds, loaded onto `device`.
///
/// # Errors
/// `InvalidRequest` when it holds none; whatever keeps it from loading.
pub async fn stored_model(archive: &Archive, manifest: &Manifest, device: &str) -> Result<Box<dyn Backend>> {
    let Some(model) = manifest.model.clone() else {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            "the archive holds no model: give the one that made its vectors with --model",
        ));
    };
    if model.is_thumbnail() {
        return load_backend(None, device);
    }
    let card = ModelCard::from_json(model.card.to_string().as_bytes())?;
    let (network, device) = (
        Network::new(card, archive.read_model(&model).await?)?,
        device.to_owned(),
    );
    run_blocking(move || load_network(network, &device)).await
}
