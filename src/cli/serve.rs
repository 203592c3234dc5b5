//! `medsearch serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::oidc::OidcArgs;
use super::settings::{ArchiveArgs, warn_if_others_read};
use crate::app::{App, AuditPlace, Replica, Settings, on_this_machine, own_program};
use crate::cluster::{ClusterSettings, Discovery};
use crate::domain::Frames;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{PublicUrl, Rate, RateSettings};
use crate::ingest::BurnedInRule;
use crate::pacs::{self, BaseUrl};
use crate::telemetry::{OtlpSettings, Spans};
use crate::tls::TlsFiles;

/// Time in which those who send requests learn that none should come here any more.
const DRAIN_SECONDS: u64 = 5;
/// What an audit may take: twenty million searches.
const AUDIT_BYTES_MAX: u64 = 10 << 30;

/// Answer queries over an archive.
#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Folder with `model.pt` and `model.json`. Default: the model that the archive holds. `thumbnail`: the 32x32 grey embedder, without libtorch.
    #[arg(long, value_name = "DIR", env = "MEDSEARCH_MODEL")]
    model: Option<PathBuf>,
    /// Where the model runs: `auto`, `cpu` or `cuda:N`.
    #[arg(long, default_value = "auto", env = "MEDSEARCH_DEVICE")]
    device: String,
    /// Address and port. Beyond loopback one of `--keys-file`, `--api-key-file` and `--oidc-issuer` is required.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8000",
        env = "MEDSEARCH_LISTEN"
    )]
    listen: SocketAddr,
    /// File with the certificate that the server shows, followed by those between it and its authority (PEM): it then speaks by TLS alone. It and its key
    /// are read again within seconds of a change.
    #[arg(
        long,
        value_name = "FILE",
        env = "MEDSEARCH_TLS_CERT_FILE",
        requires = "tls_key_file",
        help_heading = "TLS"
    )]
    tls_cert_file: Option<PathBuf>,
    /// File with the key of that certificate (PEM, not encrypted).
    #[arg(
        long,
        value_name = "FILE",
        env = "MEDSEARCH_TLS_KEY_FILE",
        requires = "tls_cert_file",
        help_heading = "TLS"
    )]
    tls_key_file: Option<PathBuf>,
    /// File with an API key that may do everything. Requests must bring it (`Authorization: Bearer` or `X-API-Key`), or a key of `--keys-file`. The key itself may be in the
    /// environment instead, as MEDSEARCH_API_KEY.
    #[arg(long, value_name = "FILE", env = "MEDSEARCH_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
    /// File with keys, each with what it may do, as `medsearch key` writes it. It is read again within seconds of a change.
    #[arg(long, value_name = "FILE", env = "MEDSEARCH_KEYS_FILE")]
    keys_file: Option<PathBuf>,
    /// File (TOML) with the PACS that searches by reference may ask, and each Orthanc that is followed: their names, URLs and credentials. Nothing else is ever asked for an image.
    #[arg(long, value_name = "FILE", env = "MEDSEARCH_PACS_FILE")]
    pacs_file: Option<PathBuf>,
    /// The key itself, from the environment only: on a command line every user of the machine could read it.
    #[arg(long, hide = true, env = "MEDSEARCH_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Largest upload, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20, env = "MEDSEARCH_UPLOAD_BYTES_MAX")]
    upload_bytes_max: usize,
    /// Largest picture, in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 64 << 20, env = "MEDSEARCH_PIXELS_MAX")]
    pixels_max: u64,
    /// Time for one request, in seconds.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 30,
        env = "MEDSEARCH_REQUEST_SECONDS_MAX"
    )]
    request_seconds_max: u64,
    /// Requests at a time; more are answered 429.
    #[arg(long, value_name = "N", default_value_t = 256, env = "MEDSEARCH_IN_FLIGHT_MAX")]
    in_flight_max: usize,
    /// Requests that one key may send in a minute, all of them at once too; more are answered 429. Those that put images in or change them count apart.
    /// 0: no bound.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        env = "MEDSEARCH_REQUESTS_PER_MINUTE",
        help_heading = "Rates"
    )]
    requests_per_minute: u32,
    /// The same for requests that put images in, change or delete them. 0: no bound.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        env = "MEDSEARCH_INGEST_REQUESTS_PER_MINUTE",
        help_heading = "Rates"
    )]
    ingest_requests_per_minute: u32,
    /// Wrong keys that may come from one address in a minute (of IPv6: one network of 64 bits). After that further ones, and a right one that is shorter than
    /// 32 characters, are answered 429. 0: no bound.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 60,
        env = "MEDSEARCH_WRONG_KEYS_PER_MINUTE",
        help_heading = "Rates"
    )]
    wrong_keys_per_minute: u32,
    /// Requests of one key in an hour that name a patient or a UID which the archive does not have, without the scope `link`; ten times as many where a DICOM
    /// file names them. After that whoever names somebody is answered 429, there or not. 0: no bound.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 120,
        env = "MEDSEARCH_IDENTITY_MISSES_PER_HOUR",
        help_heading = "Rates"
    )]
    identity_misses_per_hour: u32,
    /// Classes with more rows than this are searched by graph, the others by scanning every row. Default: 2000.
    #[arg(long, value_name = "ROWS", env = "MEDSEARCH_EXACT_ROWS_MAX")]
    exact_rows_max: Option<usize>,
    /// Images in one batch of the model.
    #[arg(long, value_name = "N", default_value_t = 32, env = "MEDSEARCH_BATCH_MAX")]
    batch_max: usize,
    /// Images waiting for the model; more are answered 429.
    #[arg(long, value_name = "N", default_value_t = 256, env = "MEDSEARCH_QUEUE_MAX")]
    queue_max: usize,
    /// Images decoded at a time. Default: the number of processors.
    #[arg(long, value_name = "N", env = "MEDSEARCH_DECODE_THREADS")]
    decode_threads: Option<usize>,
    /// Address space one DICOM worker may use on top of the program itself, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 2 << 30, env = "MEDSEARCH_WORKER_MEMORY_BYTES_MAX")]
    worker_memory_bytes_max: u64,
    /// DICOM images with text in their pixels that may name somebody: `refuse` those that say so, `refuse-suspected` also those of a kind that is often
    /// written on and that say nothing, or `keep` them. Those that are kept have the tag `burned_in`.
    #[arg(long, value_name = "RULE", default_value_t, env = "MEDSEARCH_BURNED_IN")]
    burned_in: BurnedInRule,
    /// Which frames of a DICOM file of several that is pushed become images: `first`, `middle`, `all` (each for itself), or a number: that one, of a file with fewer
    /// the last.
    #[arg(long, value_name = "WHICH", default_value_t, env = "MEDSEARCH_FRAMES")]
    frames: Frames,
    /// File (CSV with `study_uid`, `series_uid` or `sop_uid`, and `class`) that says what pushed images show. It is read again within seconds of a change, and wins
    /// over the rules of `medsearch labels`.
    #[arg(long, value_name = "FILE", env = "MEDSEARCH_LABELS_FILE")]
    labels_file: Option<PathBuf>,
    /// Serve searches only.
    #[arg(long, env = "MEDSEARCH_READ_ONLY")]
    read_only: bool,
    /// Where clients see `/dicom-web`, if that is not below `--public-url`: what RetrieveURLs begin with, in answers to searches and to what is stored. What a client
    /// calls this server in `Host` is not believed.
    #[arg(long, value_name = "URL", env = "MEDSEARCH_DICOM_WEB_URL")]
    dicom_web_url: Option<String>,
    /// Share of searches that is asked again by exact search, for `medsearch_quality_recall_at_10` in /metrics: 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, env = "MEDSEARCH_SAMPLE_SHARE")]
    sample_share: f64,
    /// After SIGTERM, say for so many seconds that this server is not ready, and answer meanwhile. Default: 5 where other machines can reach it, else 0.
    #[arg(long, value_name = "SECONDS", env = "MEDSEARCH_DRAIN_SECONDS")]
    drain_seconds: Option<u64>,
    // Here, since its heading holds for whatever comes after it and names none.
    #[command(flatten)]
    oidc: OidcArgs,
    /// Be a replica among others: where these are, `dns://NAME:PORT` (every address of the name) or `http://HOST:PORT,…`
    /// (`https://` with `--inner-tls-cert-file`); the ports of `--inner-listen`.
    #[arg(long, value_name = "WHERE", env = "MEDSEARCH_PEERS", requires_all = ["inner_listen", "inner_key_file"], help_heading = "Cluster")]
    peers: Option<Discovery>,
    /// Address and port at which the other replicas ask this one. Nobody else needs to reach it.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "MEDSEARCH_INNER_LISTEN",
        requires = "peers",
        help_heading = "Cluster"
    )]
    inner_listen: Option<SocketAddr>,
    /// File with the credential that replicas of one cluster share, at least 16 characters.
    #[arg(
        long,
        value_name = "FILE",
        env = "MEDSEARCH_INNER_KEY_FILE",
        requires = "peers",
        help_heading = "Cluster"
    )]
    inner_key_file: Option<PathBuf>,
    /// File with the certificate by which the other replicas know this one, followed by those between it and its authority (PEM). Replicas then ask each
    /// other by TLS alone, and both sides show one. It is for servers and for clients, and for the host of `https://HOST:PORT` or the name of `dns://NAME:PORT`.
    #[arg(long, value_name = "FILE", env = "MEDSEARCH_INNER_TLS_CERT_FILE", requires_all = ["inner_tls_key_file", "inner_tls_ca_file", "peers"], help_heading = "Cluster")]
    inner_tls_cert_file: Option<PathBuf>,
    /// File with the key of that certificate (PEM, not encrypted).
    #[arg(
        long,
        value_name = "FILE",
        env = "MEDSEARCH_INNER_TLS_KEY_FILE",
        requires = "inner_tls_cert_file",
        help_heading = "Cluster"
    )]
    inner_tls_key_file: Option<PathBuf>,
    /// File with the authority that has certified the other replicas (PEM; several while one takes over from another). Best one that certifies nobody else.
    #[arg(
        long,
        value_name = "FILE",
        env = "MEDSEARCH_INNER_TLS_CA_FILE",
        requires = "inner_tls_cert_file",
        help_heading = "Cluster"
    )]
    inner_tls_ca_file: Option<PathBuf>,
    /// This replica's name among the others, the same after a restart. Default: the machine's name with the inner port.
    #[arg(
        long,
        value_name = "NAME",
        env = "MEDSEARCH_REPLICA",
        requires = "peers",
        help_heading = "Cluster"
    )]
    replica: Option<String>,
    /// Replicas that hold each shard, where memory allows.
    #[arg(long, value_name = "N", default_value_t = 2, env = "MEDSEARCH_REPLICATION_FACTOR", value_parser = clap::value_parser!(u16).range(1..=16), help_heading = "Cluster")]
    replication_factor: u16,
    /// Memory for the vectors and graphs of shards, in bytes; what does not fit is left to other replicas. Default: no bound, every shard is held.
    #[arg(
        long,
        value_name = "BYTES",
        env = "MEDSEARCH_INDEX_BYTES_MAX",
        requires = "peers",
        help_heading = "Cluster"
    )]
    index_bytes_max: Option<u64>,
    /// Folder on this machine for the audit: who did what to which images, a JSON line each, chained by hashes. What changes the archive is not done without its line.
    #[arg(long, value_name = "DIR", env = "MEDSEARCH_AUDIT_DIR", help_heading = "Audit")]
    audit_dir: Option<PathBuf>,
    /// Largest size of that folder, in bytes. When it is reached, the server answers searches and changes nothing, until files are moved elsewhere.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = AUDIT_BYTES_MAX,
        env = "MEDSEARCH_AUDIT_BYTES_MAX",
        help_heading = "Audit"
    )]
    audit_bytes_max: u64,
    /// Send spans of requests and their stages to the OpenTelemetry collector at this address, by OTLP over HTTP
    /// (`http://collector:4318`). Headers that it wants are in OTEL_EXPORTER_OTLP_HEADERS, further attributes of this
    /// server in OTEL_RESOURCE_ATTRIBUTES.
    #[arg(long, value_name = "URL", env = "MEDSEARCH_OTLP_ENDPOINT", help_heading = "Traces")]
    otlp_endpoint: Option<String>,
    /// Share of traces that is recorded, 0 to 1. A request that comes with a `traceparent` is recorded if its caller
    /// says so.
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 1.0,
        env = "MEDSEARCH_TRACE_SHARE",
        help_heading = "Traces"
    )]
    trace_share: f64,
}

impl Serve {
    /// Where spans go, if they shall go anywhere.
    ///
    /// # Errors
    /// `InvalidRequest` for an address or a share that is none.
    pub fn traces(&self) -> Result<Option<OtlpSettings>> {
        // An empty value unsets, as in a chart.
        let endpoint = self.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty());
        endpoint
            .map(|endpoint| OtlpSettings::new(endpoint, self.trace_share))
            .transpose()
    }

    /// Serves until SIGTERM or SIGINT, then finishes what is in flight.
    pub fn run(self, spans: Option<Spans>) -> Result<ExitCode> {
        let api_key = self.api_key()?;
        for path in self.keys_file.iter().chain(&self.labels_file) {
            warn_if_others_read(path);
        }
        if let Some(path) = &self.pacs_file {
            pacs::settings::credential_files(path)
                .iter()
                .for_each(|path| warn_if_others_read(path));
        }
        let cluster = self.cluster()?;
        let tls = tls_files(self.tls_cert_file.as_ref(), self.tls_key_file.as_ref(), None);
        let scheme = if tls.is_some() { "https" } else { "http" };
        if !(0.0..=1.0).contains(&self.sample_share) {
            let message = format!("--sample-share is 0 to 1, not `{}`", self.sample_share);
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        let drain_seconds = self.drain_seconds.unwrap_or(match self.listen.ip().is_loopback() {
            true => 0,
            false => DRAIN_SECONDS,
        });
        let settings = Settings {
            archive: self.archive.archive.clone(),
            secret: self.archive.secret()?,
            cache: self.archive.cache.settings(),
            model: self.model,
            device: self.device,
            listen: self.listen,
            tls,
            api_key,
            keys_file: self.keys_file,
            pacs_file: self.pacs_file,
            oidc: self.oidc.settings()?,
            upload_bytes_max: self.upload_bytes_max,
            pixels_max: self.pixels_max,
            request_seconds_max: self.request_seconds_max,
            in_flight_max: self.in_flight_max,
            rates: RateSettings {
                requests: Rate::per_minute(self.requests_per_minute),
                ingest: Rate::per_minute(self.ingest_requests_per_minute),
                wrong_keys: Rate::per_minute(self.wrong_keys_per_minute),
                identity_misses: Rate::per_hour(self.identity_misses_per_hour),
            },
            exact_rows_max: self.exact_rows_max,
            batch_max: self.batch_max,
            queue_max: self.queue_max,
            threads: self.decode_threads.unwrap_or_else(super::processors),
            worker_memory_bytes_max: self.worker_memory_bytes_max,
            burned_in: self.burned_in,
            frames: self.frames,
            labels_file: self.labels_file,
            read_only: self.read_only,
            dicom_web_url: dicom_web_url(self.dicom_web_url.as_deref(), self.oidc.public_url())?,
            cluster,
            sample_share: self.sample_share,
            drain_seconds,
            audit: self
                .audit_dir
                .filter(|folder| !folder.as_os_str().is_empty())
                .map(|folder| AuditPlace {
                    folder,
                    bytes_max: self.audit_bytes_max,
                }),
            spans,
            program: own_program(),
        };
        App::run(settings, |address, _| announce(scheme, address))?;
        Ok(ExitCode::SUCCESS)
    }

    fn api_key(&self) -> Result<Option<String>> {
        match &self.api_key_file {
            Some(path) => Ok(Some(read_key(path, "API key")?)),
            None => Ok(self.api_key.clone()),
        }
    }

    fn cluster(&self) -> Result<Option<Replica>> {
        let (Some(discovery), Some(inner_listen), Some(key_file)) =
            (&self.peers, self.inner_listen, &self.inner_key_file)
        else {
            return Ok(None);
        };
        let replica = self.replica.clone();
        let replica = replica.unwrap_or_else(|| on_this_machine(inner_listen.port()));
        Ok(Some(Replica {
            inner_listen,
            settings: ClusterSettings {
                discovery: discovery.clone(),
                replica,
                key: read_key(key_file, "cluster's key")?,
                replication_factor: self.replication_factor.into(),
                bytes_max: self.index_bytes_max,
                tls: tls_files(
                    self.inner_tls_cert_file.as_ref(),
                    self.inner_tls_key_file.as_ref(),
                    self.inner_tls_ca_file.as_ref(),
                ),
            },
        }))
    }
}

/// Where clients see `/dicom-web`: as it is said, or below where browsers find this server.
fn dicom_web_url(own: Option<&str>, public: Option<&PublicUrl>) -> Result<Option<BaseUrl>> {
    // An empty value unsets, as in a chart.
    let below = || public.map(|public| format!("{}/dicom-web", public.origin()));
    let url = own.filter(|url| !url.is_empty()).map(str::to_owned).or_else(below);
    let base = url.as_deref().map(BaseUrl::parse).transpose();
    base.map_err(|error| error.context("--dicom-web-url"))
}

/// The command line takes the files together or not at all.
fn tls_files(chain: Option<&PathBuf>, key: Option<&PathBuf>, ca: Option<&PathBuf>) -> Option<TlsFiles> {
    let (chain, key) = (chain?.clone(), key?.clone());
    warn_if_others_read(&key);
    let ca = ca.cloned();
    Some(TlsFiles { chain, key, ca })
}

fn read_key(path: &Path, what: &str) -> Result<String> {
    warn_if_others_read(path);
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = format!("the {what} file `{}` can't be read", path.display());
        Error::with_source(ErrorKind::InvalidRequest, message, error)
    })?;
    Ok(text.trim().to_owned())
}

fn announce(scheme: &str, address: SocketAddr) {
    eprintln!("medsearch: serving at {scheme}://{address} (research use only, not for diagnosis)");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dicom_web_is_where_it_is_said_or_below_the_public_url() {
        let url = |own: Option<&str>, public: Option<&str>| {
            let public: Option<PublicUrl> = public.map(|url| url.parse().unwrap());
            dicom_web_url(own, public.as_ref())
        };
        let base = |text: &str| Some(BaseUrl::parse(text).unwrap());
        let (own, public) = ("http://pacs.example:8042/search/dicom-web/", "https://search.example");
        for (own, public, expected) in [
            (None, None, None),
            (Some(""), None, None),
            (None, Some(public), base("https://search.example/dicom-web")),
            (Some(""), Some(public), base("https://search.example/dicom-web")),
            (Some(own), None, base(own)),
            (Some(own), Some(public), base(own)),
        ] {
            assert_eq!(url(own, public).unwrap(), expected, "{own:?} {public:?}");
        }
        for bad in [
            "search.example",
            "https://u:p@x.example/",
            "https://x.example/?a",
            "ftp://x.example",
        ] {
            let error = url(Some(bad), Some(public)).unwrap_err();
            assert!(error.message().starts_with("--dicom-web-url: "), "{error}");
        }
    }
}
