//! Every time series in one place: name, unit, labels, buckets, help.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::domain::{ClassLabel, PathTaken, Status, UNLABELLED};
use crate::error::{Error, ErrorKind, Result};
use crate::tls::Port;

/// Seconds of a whole request: from a probe to a slow upload.
const REQUEST_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Seconds of one stage: from an exact scan of a few rows to a model on a busy processor.
const STAGE_BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
/// Seconds of a durable commit: a few fsyncs, or a store far away.
const COMMIT_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Images of one batch.
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// Shares of neighbors found.
const RECALL_BUCKETS: &[f64] = &[0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0];

/// A part of answering a query whose time is measured on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// File bytes to raster.
    Decode,
    /// Raster to model input.
    Preprocess,
    /// Waiting for the model.
    Queue,
    /// In the model, with the whole batch.
    Model,
    /// Index, merge and vote.
    Search,
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Preprocess => "preprocess",
            Self::Queue => "queue",
            Self::Model => "model",
            Self::Search => "search",
        }
    }
}

/// What became of a call to another replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardOutcome {
    /// Its answer came.
    Answered,
    /// None came, or none that can be used.
    Failed,
    /// Time was up.
    Late,
}

/// Who was quicker: the first that was asked, or the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeOutcome {
    /// The second.
    Won,
    /// The first.
    Lost,
}

/// Why a request was turned away before anything was done for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// It brought no key.
    NoKey,
    /// It brought a key that is not known.
    UnknownKey,
    /// It brought a key that has expired.
    ExpiredKey,
    /// It brought a token that can't be read.
    TokenMalformed,
    /// Its token is signed in a way that is not taken.
    TokenAlgorithm,
    /// Its token is for something else.
    TokenType,
    /// Its token is signed with a key that the issuer does not publish.
    TokenKey,
    /// Its token's signature is wrong.
    TokenSignature,
    /// Its token is of another issuer.
    TokenIssuer,
    /// Its token is for another audience.
    TokenAudience,
    /// Its token has expired.
    TokenExpired,
    /// Its token is not valid yet.
    TokenEarly,
    /// None of its token's roles permits anything.
    NoRole,
    /// It brought a token while the issuer's keys are not known.
    IssuerUnavailable,
    /// It brought a session that is not known.
    UnknownSession,
    /// It brought a session that has expired.
    ExpiredSession,
    /// Somebody came back from the issuer and was not let in.
    Login,
    /// Its key does not permit this.
    InsufficientScope,
    /// It came from a page of another origin, or for another Host.
    ForbiddenOrigin,
    /// Whoever sent it has asked too often.
    RateLimited,
    /// Too many keys that nobody has came from its address.
    WrongKeys,
    /// Whoever sent it has named too many patients or UIDs that the archive does not have.
    IdentityMisses,
    /// Its body is compressed.
    ContentEncoding,
}

impl RefusalReason {
    /// As it is counted.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::UnknownKey => "unknown_key",
            Self::ExpiredKey => "expired_key",
            Self::TokenMalformed => "token_malformed",
            Self::TokenAlgorithm => "token_algorithm",
            Self::TokenType => "token_type",
            Self::TokenKey => "token_key",
            Self::TokenSignature => "token_signature",
            Self::TokenIssuer => "token_issuer",
            Self::TokenAudience => "token_audience",
            Self::TokenExpired => "token_expired",
            Self::TokenEarly => "token_early",
            Self::NoRole => "no_role",
            Self::IssuerUnavailable => "issuer_unavailable",
            Self::UnknownSession => "unknown_session",
            Self::ExpiredSession => "expired_session",
            Self::Login => "login",
            Self::InsufficientScope => "insufficient_scope",
            Self::ForbiddenOrigin => "forbidden_origin",
            Self::RateLimited => "rate_limited",
            Self::WrongKeys => "wrong_keys",
            Self::IdentityMisses => "identity_misses",
            Self::ContentEncoding => "content_encoding",
        }
    }
}

/// What became of a span of a trace that was to be exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanOutcome {
    /// The collector has it.
    Exported,
    /// It found no place in the queue, or the collector did not take it.
    Dropped,
}

/// How a replica stands in its cluster at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardFigures {
    /// Shards that it should hold.
    pub assigned: usize,
    /// Shards that it holds.
    pub held: usize,
    /// Shards that nobody is known to hold.
    pub missing: usize,
    /// Memory of what it holds.
    pub index_bytes: u64,
    /// Memory that it may take for that; none: no bound.
    pub index_bytes_max: Option<u64>,
}

/// What became of an image that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IngestOutcome {
    /// It is new.
    Inserted,
    /// It was known.
    Duplicate,
    /// It was known without a class, and has the one that came along now.
    Relabelled,
    /// It was known under another class.
    Conflict,
    /// It was refused or failed.
    Failed,
}

impl IngestOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inserted => "inserted",
            Self::Duplicate => "duplicate",
            Self::Relabelled => "relabelled",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
        }
    }
}

/// What became of an image that a PACS was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullOutcome {
    /// It is here.
    Pulled,
    /// The PACS does not have it.
    NotFound,
    /// It is too large.
    TooLarge,
    /// It did not come in time.
    Late,
    /// The PACS is busy.
    Busy,
    /// The PACS could not be reached, or did not answer as it should.
    Failed,
}

impl PullOutcome {
    const ALL: [Self; 6] = [
        Self::Pulled,
        Self::NotFound,
        Self::TooLarge,
        Self::Late,
        Self::Busy,
        Self::Failed,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Pulled => "pulled",
            Self::NotFound => "not_found",
            Self::TooLarge => "too_large",
            Self::Late => "late",
            Self::Busy => "busy",
            Self::Failed => "failed",
        }
    }
}

/// What became of a DICOM object that was sent to be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceivedOutcome {
    /// It waits to be embedded.
    Accepted,
    /// It is there, or waits already.
    Known,
    /// It has no pixels.
    NotImage,
    /// The archive is not for its SOP class.
    OutsideSopClass,
    /// The archive is not for its modality.
    OutsideModality,
    /// The archive is not for its body part.
    OutsideBodyPart,
    /// The archive is not for its view.
    OutsideView,
    /// It was not taken. It is no DICOM file, or a broken one.
    RefusedBroken,
    /// It was not taken. Its transfer syntax is not read.
    RefusedSyntax,
    /// It was not taken. It is of another study than the one that was named.
    RefusedOtherStudy,
    /// It was not taken. Its SOP instance is known with other pixels.
    RefusedConflict,
    /// It was not taken. It has too many bytes, pixels or frames.
    RefusedTooLarge,
    /// It was not taken. Names may be written into its pixels.
    RefusedBurnedIn,
    /// It was not taken. The storage is full.
    RefusedFull,
    /// It was not taken. Too much is being done at the moment.
    RefusedBusy,
    /// It was not taken. It was not looked at in time.
    RefusedLate,
    /// It was not taken. Something that is needed is not there at the moment.
    RefusedUnavailable,
}

impl ReceivedOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Known => "known",
            Self::NotImage => "not_image",
            Self::OutsideSopClass => "outside_sop_class",
            Self::OutsideModality => "outside_modality",
            Self::OutsideBodyPart => "outside_body_part",
            Self::OutsideView => "outside_view",
            Self::RefusedBroken => "refused_broken",
            Self::RefusedSyntax => "refused_syntax",
            Self::RefusedOtherStudy => "refused_other_study",
            Self::RefusedConflict => "refused_conflict",
            Self::RefusedTooLarge => "refused_too_large",
            Self::RefusedBurnedIn => "refused_burned_in",
            Self::RefusedFull => "refused_full",
            Self::RefusedBusy => "refused_busy",
            Self::RefusedLate => "refused_late",
            Self::RefusedUnavailable => "refused_unavailable",
        }
    }
}

/// What became of a file that waited in the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboxOutcome {
    /// Its image is in the archive now.
    Embedded,
    /// Its image was there.
    Known,
    /// It can't be embedded.
    Failed,
    /// It does not belong into the archive any more.
    Outside,
    /// Its patient was deleted meanwhile.
    Erased,
    /// It could not be embedded yet.
    Again,
}

impl InboxOutcome {
    /// As it is counted.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Known => "known",
            Self::Failed => "failed",
            Self::Outside => "outside",
            Self::Erased => "erased",
            Self::Again => "again",
        }
    }
}

/// What became of a look for what a followed Orthanc has deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepOutcome {
    /// What it has no more is gone here too.
    Done,
    /// Its list does not fit its count: nothing was deleted.
    Incomplete,
    /// Too many would have gone at once: nothing was deleted.
    Refused,
    /// It, or the archive, could not be asked.
    Failed,
}

impl SweepOutcome {
    const ALL: [Self; 4] = [Self::Done, Self::Incomplete, Self::Refused, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Incomplete => "incomplete",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What became of an instance of a followed Orthanc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FollowOutcome {
    /// It waits to be embedded.
    Accepted,
    /// It was known.
    Known,
    /// It has no pixels.
    NotImage,
    /// The archive is not for it.
    Outside,
    /// Orthanc did not have it any more.
    Gone,
    /// It can't be taken: broken, too large, of a transfer syntax that is not read, or known with other pixels.
    Refused,
    /// Orthanc could not give it, however often it was asked, and was passed over.
    Failed,
}

impl FollowOutcome {
    const ALL: [Self; 7] = [
        Self::Accepted,
        Self::Known,
        Self::NotImage,
        Self::Outside,
        Self::Gone,
        Self::Refused,
        Self::Failed,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Known => "known",
            Self::NotImage => "not_image",
            Self::Outside => "outside",
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// What the archive holds, for the gauges.
#[derive(Debug, Clone, Copy)]
pub struct ArchiveFigures<'a> {
    /// Number of the manifest that is served.
    pub version: u64,
    /// All images.
    pub images: usize,
    /// Images of each class.
    pub classes: &'a [(ClassLabel, usize)],
    /// Images whose labels contradict each other.
    pub conflicts: usize,
    /// Graphs that can't be used.
    pub lost_graphs: usize,
}

/// The series of one server, in a registry of their own.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    http_requests: IntCounterVec,
    http_duration: HistogramVec,
    http_in_flight: IntGauge,
    refused: IntCounterVec,
    keys_file_broken: IntGauge,
    labels_file_broken: IntGauge,
    oidc_issuer_broken: IntGauge,
    audit_lines: IntCounter,
    audit_lost: IntCounter,
    audit_broken: IntGauge,
    audit_bytes: IntGauge,
    audit_bytes_max: IntGauge,
    audit_heads: IntCounterVec,
    tls_expires: IntGaugeVec,
    tls_files_broken: IntGaugeVec,
    stage_duration: HistogramVec,
    queue_depth: IntGauge,
    queue_max: IntGauge,
    queue_dropped: IntCounter,
    batch_size: Histogram,
    archive_version: IntGauge,
    archive_images: IntGaugeVec,
    archive_conflicts: IntGauge,
    archive_lost_graphs: IntGauge,
    search_path: IntCounterVec,
    suggestions: IntCounterVec,
    calibrations: IntCounterVec,
    explanations: IntCounterVec,
    near_identical: IntCounterVec,
    reports: IntCounter,
    ingest: IntCounterVec,
    received: IntCounterVec,
    inbox: IntCounterVec,
    inbox_files: IntGauge,
    inbox_age: Gauge,
    inbox_failed: IntGauge,
    commit_duration: Histogram,
    manifest_age: Gauge,
    shard_search: HistogramVec,
    shard_requests: IntCounterVec,
    hedges: IntCounterVec,
    retries: IntCounter,
    ejections: IntCounter,
    coverage_missing: IntCounter,
    shards: IntGaugeVec,
    peers: IntGaugeVec,
    index_bytes: IntGauge,
    index_bytes_max: IntGauge,
    recall: Histogram,
    vote_agreement: IntCounterVec,
    drift: Gauge,
    storage_requests: IntCounterVec,
    storage_damage: IntCounterVec,
    cache_bytes: IntGauge,
    spans: IntCounterVec,
    pacs_pulls: IntCounterVec,
    pacs_pull_duration: HistogramVec,
    follow_instances: IntCounterVec,
    follow_errors: IntCounterVec,
    follow_lag: IntGaugeVec,
    follow_active: IntGaugeVec,
    sweeps: IntCounterVec,
    swept_images: IntCounterVec,
    sweep_refused: IntGaugeVec,
    /// Held while counters that are kept elsewhere are brought up to date: two scrapes at a time would count twice.
    storage_scrape: Mutex<()>,
}

impl Metrics {
    /// All series, registered.
    ///
    /// # Errors
    /// `Internal` when two series have one name.
    pub fn new() -> Result<Self> {
        let registry = Registry::new();
        let metrics = Self {
            http_requests: counters(
                "medsearch_http_requests_total",
                "HTTP requests answered, by route pattern (never the path)",
                &["route", "method", "status"],
            )?,
            http_duration: histograms(
                "medsearch_http_request_duration_seconds",
                "Time from the head of a request to its answer, the body of the request included",
                &["route", "method"],
                REQUEST_BUCKETS,
            )?,
            http_in_flight: gauge("medsearch_http_in_flight_requests", "HTTP requests being answered")?,
            refused: counters(
                "medsearch_requests_refused_total",
                "HTTP requests turned away: no_key, unknown_key, expired_key, token_malformed, token_algorithm, token_type, token_key, token_signature, token_issuer, token_audience, token_expired, token_early, no_role, issuer_unavailable, unknown_session, expired_session, login, insufficient_scope, forbidden_origin, rate_limited, wrong_keys, identity_misses, content_encoding",
                &["reason"],
            )?,
            oidc_issuer_broken: gauge(
                "medsearch_oidc_issuer_broken",
                "1 while the issuer of tokens can't be read, so that the keys that it published before stay for a day",
            )?,
            keys_file_broken: gauge(
                "medsearch_keys_file_broken",
                "1 while the keys file can't be read, so that the keys that it held before stay",
            )?,
            labels_file_broken: gauge(
                "medsearch_labels_file_broken",
                "1 while the labels file can't be read as it is, so that what it said before stays",
            )?,
            audit_lines: counter("medsearch_audit_lines_total", "Events that have a line in the audit")?,
            audit_lost: counter(
                "medsearch_audit_lost_total",
                "Events that have none because the audit could not be written; a later line says how many",
            )?,
            audit_broken: gauge(
                "medsearch_audit_broken",
                "1 while the audit can't be written, so that nothing is changed here",
            )?,
            audit_bytes: gauge("medsearch_audit_bytes", "Bytes of the audit's files in its folder")?,
            audit_bytes_max: gauge("medsearch_audit_bytes_max", "Bytes that they may have; 0: there is no audit")?,
            audit_heads: counters(
                "medsearch_audit_heads_total",
                "Heads of the audit's chain put into the archive: committed, failed",
                &["outcome"],
            )?,
            tls_expires: gauges(
                "medsearch_tls_certificate_expires_timestamp_seconds",
                "When the certificate that is shown is over, in seconds since 1970: of the public port, or the inner one",
                &["port"],
            )?,
            tls_files_broken: gauges(
                "medsearch_tls_files_broken",
                "1 while the files of a port's certificate can't be taken over, so that the certificate before stays",
                &["port"],
            )?,
            stage_duration: histograms(
                "medsearch_stage_duration_seconds",
                "Time of one stage of a query: decode, preprocess, queue, model, search",
                &["stage"],
                STAGE_BUCKETS,
            )?,
            queue_depth: gauge("medsearch_queue_depth", "Images waiting for the model")?,
            queue_max: gauge(
                "medsearch_queue_max",
                "Images that may wait for the model before requests are refused",
            )?,
            queue_dropped: IntCounter::new(
                "medsearch_queue_dropped_total",
                "Images dropped before the model because nobody waited for them any more",
            )
            .map_err(fault)?,
            batch_size: histogram(
                "medsearch_batch_size",
                "Images that the model was given together",
                BATCH_BUCKETS,
            )?,
            archive_version: gauge("medsearch_archive_version", "Number of the manifest that is served")?,
            archive_images: IntGaugeVec::new(
                Opts::new(
                    "medsearch_archive_images",
                    "Images that are served, by class (`_unlabelled`: without one)",
                ),
                &["class"],
            )
            .map_err(fault)?,
            archive_conflicts: gauge(
                "medsearch_archive_label_conflicts",
                "Images whose picture has several classes, so that they don't vote",
            )?,
            archive_lost_graphs: gauge(
                "medsearch_archive_lost_graphs",
                "Graphs that can't be read or loaded, so that their classes are scanned",
            )?,
            search_path: counters(
                "medsearch_search_path_total",
                "Searches of one class, by how: hnsw or exact",
                &["class", "path"],
            )?,
            suggestions: counters(
                "medsearch_suggestions_total",
                "Outcomes of votes: suggested, inconclusive, out_of_distribution",
                &["status"],
            )?,
            calibrations: counters(
                "medsearch_calibrations_total",
                "Votes, by whether a calibration says what they are worth: valid, not_valid",
                &["outcome"],
            )?,
            pacs_pulls: counters(
                "medsearch_pacs_pulls_total",
                "Images asked of a PACS for a search by reference, by its configured name: pulled, not_found, too_large, late, busy, failed",
                &["pacs", "outcome"],
            )?,
            pacs_pull_duration: histograms(
                "medsearch_pacs_pull_duration_seconds",
                "Time until the image of a search by reference was here",
                &["pacs"],
                REQUEST_BUCKETS,
            )?,
            follow_instances: counters(
                "medsearch_orthanc_instances_total",
                "Instances of a followed Orthanc: accepted, known, not_image, outside, gone, refused, failed",
                &["orthanc", "outcome"],
            )?,
            follow_errors: counters(
                "medsearch_orthanc_errors_total",
                "Times that a followed Orthanc, or the archive's inbox or bookmark, could not be asked",
                &["orthanc"],
            )?,
            follow_lag: gauges(
                "medsearch_orthanc_lag",
                "Changes of a followed Orthanc that were not looked at yet, as the server that follows it saw last",
                &["orthanc"],
            )?,
            follow_active: gauges(
                "medsearch_orthanc_followed",
                "1 where this server is the one that follows an Orthanc",
                &["orthanc"],
            )?,
            sweeps: counters(
                "medsearch_orthanc_sweeps_total",
                "Looks for what a followed Orthanc has deleted: done, incomplete, refused, failed",
                &["orthanc", "outcome"],
            )?,
            swept_images: counters(
                "medsearch_orthanc_deleted_images_total",
                "Images that went because a followed Orthanc has them no more",
                &["orthanc"],
            )?,
            sweep_refused: gauges(
                "medsearch_orthanc_deletions_refused",
                "Images whose instances a followed Orthanc has no more, and that stay until somebody confirms; 0: none",
                &["orthanc"],
            )?,
            explanations: counters(
                "medsearch_explanations_total",
                "Explanations made, by how: cells, occlusion",
                &["method"],
            )?,
            near_identical: counters(
                "medsearch_near_identical_total",
                "Images handed in, by whether they are a copy of a picture that is there: found, not_found",
                &["outcome"],
            )?,
            reports: IntCounter::new("medsearch_reports_total", "Reports about labels that were stored")
                .map_err(fault)?,
            ingest: counters(
                "medsearch_ingest_total",
                "Images handed in: inserted, duplicate, relabelled, conflict, failed",
                &["outcome"],
            )?,
            received: counters(
                "medsearch_received_total",
                "DICOM objects sent to be taken over: accepted, known, not_image, outside_sop_class, outside_modality, outside_body_part, outside_view, refused_broken, refused_syntax, refused_other_study, refused_conflict, refused_too_large, refused_burned_in, refused_full, refused_busy, refused_late, refused_unavailable",
                &["outcome"],
            )?,
            inbox: counters(
                "medsearch_inbox_total",
                "Files that waited in the inbox: embedded, known, failed, outside, erased, again (not yet)",
                &["outcome"],
            )?,
            inbox_files: gauge("medsearch_inbox_files", "Files that wait in the inbox to be embedded")?,
            inbox_age: Gauge::new(
                "medsearch_inbox_oldest_age_seconds",
                "How long the oldest file of the inbox has waited",
            )
            .map_err(fault)?,
            inbox_failed: gauge("medsearch_inbox_failed_files", "Files kept that could not be embedded")?,
            commit_duration: histogram(
                "medsearch_commit_duration_seconds",
                "Time until a change is durable",
                COMMIT_BUCKETS,
            )?,
            manifest_age: Gauge::new(
                "medsearch_archive_manifest_age_seconds",
                "Time since the archive last said which version is the newest",
            )
            .map_err(fault)?,
            shard_search: histograms(
                "medsearch_shard_search_duration_seconds",
                "Time of a search of the shards held here (local), or of a call to another replica (remote)",
                &["where"],
                STAGE_BUCKETS,
            )?,
            shard_requests: counters(
                "medsearch_shard_requests_total",
                "Calls to other replicas: answered, failed, late",
                &["outcome"],
            )?,
            hedges: counters(
                "medsearch_hedges_total",
                "Second replicas asked because the first took long, by whether they were quicker: won, lost",
                &["outcome"],
            )?,
            retries: counter(
                "medsearch_retries_total",
                "Calls repeated at another replica after one that failed",
            )?,
            ejections: counter(
                "medsearch_ejections_total",
                "Times that a replica was left alone because it failed repeatedly",
            )?,
            coverage_missing: counter(
                "medsearch_coverage_missing_total",
                "Searches for which a shard was missing",
            )?,
            shards: IntGaugeVec::new(
                Opts::new(
                    "medsearch_shards",
                    "Shards: assigned to this replica, held by it, missing (nobody is known to hold them)",
                ),
                &["state"],
            )
            .map_err(fault)?,
            peers: IntGaugeVec::new(
                Opts::new("medsearch_peers", "Other replicas: known, alive, ejected after failures, slow (ejected, or late to say how they are: asked last)"),
                &["state"],
            )
            .map_err(fault)?,
            index_bytes: gauge(
                "medsearch_index_bytes",
                "Memory of the vectors and graphs of the shards held, estimated",
            )?,
            index_bytes_max: gauge("medsearch_index_bytes_max", "Memory that they may take; -1: no bound")?,
            recall: histogram(
                "medsearch_quality_recall_at_10",
                "Of a sample of searches, in the shards held here, the share of the ten exact neighbors that are found",
                RECALL_BUCKETS,
            )?,
            vote_agreement: counters(
                "medsearch_quality_vote_agreement_total",
                "Of a sample of searches whether exact search suggests the same class: same, different",
                &["outcome"],
            )?,
            drift: Gauge::new(
                "medsearch_quality_drift",
                "How far the images asked about lately lie from the archive's on the mean: 1 less the cosine of the mean directions",
            )
            .map_err(fault)?,
            storage_requests: counters(
                "medsearch_storage_requests_total",
                "Requests to the archive's storage: get, head, put, delete, list; by outcome: ok, missing, taken, failed",
                &["operation", "outcome"],
            )?,
            storage_damage: counters(
                "medsearch_storage_damage_total",
                "Objects whose bytes were not what they should be, by where: storage, cache (deleted and fetched again)",
                &["place"],
            )?,
            cache_bytes: gauge("medsearch_cache_bytes", "Bytes of the cache for an archive in a bucket")?,
            spans: counters(
                "medsearch_spans_total",
                "Spans of traces that were to be exported: exported, dropped",
                &["outcome"],
            )?,
            storage_scrape: Mutex::default(),
            registry,
        };
        metrics.register()?;
        metrics.begin_at_zero();
        Ok(metrics)
    }

    /// Counters whose labels are a closed list are there from the start: of one that appears with its first event `rate` does not see that event.
    fn begin_at_zero(&self) {
        let closed: [(&IntCounterVec, &[&str]); 13] = [
            (
                &self.refused,
                &[
                    "no_key",
                    "unknown_key",
                    "expired_key",
                    "token_malformed",
                    "token_algorithm",
                    "token_type",
                    "token_key",
                    "token_signature",
                    "token_issuer",
                    "token_audience",
                    "token_expired",
                    "token_early",
                    "no_role",
                    "issuer_unavailable",
                    "unknown_session",
                    "expired_session",
                    "login",
                    "insufficient_scope",
                    "forbidden_origin",
                    "rate_limited",
                    "wrong_keys",
                    "identity_misses",
                    "content_encoding",
                ],
            ),
            (&self.audit_heads, &["committed", "failed"]),
            (&self.suggestions, &["suggested", "inconclusive", "out_of_distribution"]),
            (&self.calibrations, &["valid", "not_valid"]),
            (&self.explanations, &["cells", "occlusion"]),
            (&self.near_identical, &["found", "not_found"]),
            (
                &self.ingest,
                &["inserted", "duplicate", "relabelled", "conflict", "failed"],
            ),
            (
                &self.received,
                &[
                    "accepted",
                    "known",
                    "not_image",
                    "outside_sop_class",
                    "outside_modality",
                    "outside_body_part",
                    "outside_view",
                    "refused",
                ],
            ),
            (
                &self.inbox,
                &["embedded", "known", "failed", "outside", "erased", "again"],
            ),
            (&self.shard_requests, &["answered", "failed", "late"]),
            (&self.hedges, &["won", "lost"]),
            (&self.vote_agreement, &["same", "different"]),
            (&self.spans, &["exported", "dropped"]),
        ];
        for (counter, values) in closed {
            for value in values {
                counter.with_label_values(&[*value]).inc_by(0);
            }
        }
    }

    fn register(&self) -> Result<()> {
        let build = GaugeVec::new(
            Opts::new("medsearch_build_info", "1, labelled with the version"),
            &["version"],
        )
        .map_err(fault)?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        let collectors: Vec<Box<dyn prometheus::core::Collector>> = vec![
            Box::new(self.http_requests.clone()),
            Box::new(self.http_duration.clone()),
            Box::new(self.http_in_flight.clone()),
            Box::new(self.refused.clone()),
            Box::new(self.keys_file_broken.clone()),
            Box::new(self.labels_file_broken.clone()),
            Box::new(self.oidc_issuer_broken.clone()),
            Box::new(self.audit_lines.clone()),
            Box::new(self.audit_lost.clone()),
            Box::new(self.audit_broken.clone()),
            Box::new(self.audit_bytes.clone()),
            Box::new(self.audit_bytes_max.clone()),
            Box::new(self.audit_heads.clone()),
            Box::new(self.tls_expires.clone()),
            Box::new(self.tls_files_broken.clone()),
            Box::new(self.stage_duration.clone()),
            Box::new(self.queue_depth.clone()),
            Box::new(self.queue_max.clone()),
            Box::new(self.queue_dropped.clone()),
            Box::new(self.batch_size.clone()),
            Box::new(self.archive_version.clone()),
            Box::new(self.archive_images.clone()),
            Box::new(self.archive_conflicts.clone()),
            Box::new(self.archive_lost_graphs.clone()),
            Box::new(self.search_path.clone()),
            Box::new(self.suggestions.clone()),
            Box::new(self.calibrations.clone()),
            Box::new(self.explanations.clone()),
            Box::new(self.near_identical.clone()),
            Box::new(self.reports.clone()),
            Box::new(self.ingest.clone()),
            Box::new(self.received.clone()),
            Box::new(self.inbox.clone()),
            Box::new(self.inbox_files.clone()),
            Box::new(self.inbox_age.clone()),
            Box::new(self.inbox_failed.clone()),
            Box::new(self.commit_duration.clone()),
            Box::new(self.manifest_age.clone()),
            Box::new(self.shard_search.clone()),
            Box::new(self.shard_requests.clone()),
            Box::new(self.hedges.clone()),
            Box::new(self.retries.clone()),
            Box::new(self.ejections.clone()),
            Box::new(self.coverage_missing.clone()),
            Box::new(self.shards.clone()),
            Box::new(self.peers.clone()),
            Box::new(self.index_bytes.clone()),
            Box::new(self.index_bytes_max.clone()),
            Box::new(self.recall.clone()),
            Box::new(self.vote_agreement.clone()),
            Box::new(self.drift.clone()),
            Box::new(self.storage_requests.clone()),
            Box::new(self.storage_damage.clone()),
            Box::new(self.cache_bytes.clone()),
            Box::new(self.spans.clone()),
            Box::new(self.pacs_pulls.clone()),
            Box::new(self.follow_instances.clone()),
            Box::new(self.follow_errors.clone()),
            Box::new(self.follow_lag.clone()),
            Box::new(self.follow_active.clone()),
            Box::new(self.sweeps.clone()),
            Box::new(self.swept_images.clone()),
            Box::new(self.sweep_refused.clone()),
            Box::new(self.pacs_pull_duration.clone()),
            Box::new(build),
            Box::new(prometheus::process_collector::ProcessCollector::for_self()),
        ];
        collectors
            .into_iter()
            .try_for_each(|collector| self.registry.register(collector).map_err(fault))
    }

    /// Counts one answered request. `route` is a pattern such as `/v1/images/{id}`, never a path.
    pub fn request(&self, route: &str, method: &str, status: u16, took: Duration) {
        self.http_requests
            .with_label_values(&[route, method, &status.to_string()])
            .inc();
        self.http_duration
            .with_label_values(&[route, method])
            .observe(took.as_secs_f64());
    }

    /// One request turned away.
    pub fn refused(&self, reason: RefusalReason) {
        self.refused.with_label_values(&[reason.as_str()]).inc();
    }

    /// Whether the issuer of tokens can't be read at the moment.
    pub fn oidc_issuer_broken(&self, broken: bool) {
        self.oidc_issuer_broken.set(i64::from(broken));
    }

    /// Whether the keys file can't be read at the moment.
    pub fn keys_file_broken(&self, broken: bool) {
        self.keys_file_broken.set(i64::from(broken));
    }

    /// Whether the labels file can't be read as it is.
    pub fn labels_file_broken(&self, broken: bool) {
        self.labels_file_broken.set(i64::from(broken));
    }

    /// One DICOM object that was sent.
    pub fn received(&self, outcome: ReceivedOutcome) {
        self.received.with_label_values(&[outcome.as_str()]).inc();
    }

    /// One file that waited in the inbox.
    pub fn inbox(&self, outcome: InboxOutcome) {
        self.inbox.with_label_values(&[outcome.as_str()]).inc();
    }

    /// What waits in the inbox, and how long the oldest has.
    pub fn inbox_waits(&self, files: usize, oldest: Duration) {
        self.inbox_files.set(i64::try_from(files).unwrap_or(i64::MAX));
        self.inbox_age.set(oldest.as_secs_f64());
    }

    /// Files that could not be embedded and are kept.
    pub fn inbox_failed(&self, files: usize) {
        self.inbox_failed.set(i64::try_from(files).unwrap_or(i64::MAX));
    }

    /// Events that now have a line in the audit.
    pub fn audit_lines(&self, events: u64) {
        self.audit_lines.inc_by(events);
    }

    /// Events that have no line in the audit.
    pub fn audit_lost(&self, events: u64) {
        self.audit_lost.inc_by(events);
    }

    /// Whether the audit can't be written at the moment.
    pub fn audit_broken(&self, broken: bool) {
        self.audit_broken.set(i64::from(broken));
    }

    /// Bytes of the audit's files, and what they may have.
    pub fn audit_room(&self, bytes: u64, bytes_max: u64) {
        self.audit_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.audit_bytes_max.set(i64::try_from(bytes_max).unwrap_or(i64::MAX));
    }

    /// A head of the audit's chain was put into the archive, or could not be.
    pub fn audit_head(&self, committed: bool) {
        let outcome = if committed { "committed" } else { "failed" };
        self.audit_heads.with_label_values(&[outcome]).inc();
    }

    /// When a port's certificate is over, in seconds since 1970, and whether its files can't be taken over at the moment.
    pub fn tls(&self, port: Port, expires_s: i64, broken: bool) {
        let label = [port.as_str()];
        self.tls_expires.with_label_values(&label).set(expires_s);
        self.tls_files_broken.with_label_values(&label).set(i64::from(broken));
    }

    /// Time of one stage.
    pub fn stage(&self, stage: Stage, took: Duration) {
        self.stage_duration
            .with_label_values(&[stage.as_str()])
            .observe(took.as_secs_f64());
    }

    /// Images that were dropped before the model.
    pub fn dropped(&self, images: usize) {
        self.queue_dropped.inc_by(images as u64);
    }

    /// One run of the model.
    pub fn batch(&self, images: usize) {
        self.batch_size.observe(images as f64);
    }

    /// How one class was searched.
    pub fn search_path(&self, class: &ClassLabel, path: PathTaken) {
        let path = match path {
            PathTaken::Hnsw => "hnsw",
            PathTaken::Exact => "exact",
        };
        self.search_path.with_label_values(&[class.as_str(), path]).inc();
    }

    /// The outcome of one vote.
    pub fn suggestion(&self, status: Status) {
        let status = match status {
            Status::Suggested => "suggested",
            Status::Inconclusive => "inconclusive",
            Status::OutOfDistribution => "out_of_distribution",
        };
        self.suggestions.with_label_values(&[status]).inc();
    }

    /// Whether a calibration says what a vote is worth.
    pub fn calibration(&self, valid: bool) {
        let outcome = if valid { "valid" } else { "not_valid" };
        self.calibrations.with_label_values(&[outcome]).inc();
    }

    /// One explanation, by its method as the API names it.
    pub fn explanation(&self, method: &str) {
        self.explanations.with_label_values(&[method]).inc();
    }

    /// What became of an image that was asked of the PACS of this name.
    pub fn pacs_pull(&self, pacs: &str, outcome: PullOutcome) {
        self.pacs_pulls.with_label_values(&[pacs, outcome.as_str()]).inc();
    }

    /// Time until an image of the PACS of this name was here.
    pub fn pacs_pull_took(&self, pacs: &str, took: Duration) {
        self.pacs_pull_duration
            .with_label_values(&[pacs])
            .observe(took.as_secs_f64());
    }

    /// Makes the counters of the PACS of this name begin at zero.
    pub fn pacs(&self, pacs: &str) {
        for outcome in PullOutcome::ALL {
            self.pacs_pulls.with_label_values(&[pacs, outcome.as_str()]).inc_by(0);
        }
    }

    /// Makes the series of a followed Orthanc begin at zero.
    pub fn follows(&self, orthanc: &str) {
        for outcome in FollowOutcome::ALL {
            self.follow_instances
                .with_label_values(&[orthanc, outcome.as_str()])
                .inc_by(0);
        }
        self.follow_errors.with_label_values(&[orthanc]).inc_by(0);
        self.is_followed(orthanc, false);
    }

    /// What became of an instance of a followed Orthanc.
    pub fn followed(&self, orthanc: &str, outcome: FollowOutcome) {
        self.follow_instances
            .with_label_values(&[orthanc, outcome.as_str()])
            .inc();
    }

    /// A followed Orthanc, or what it is followed with, could not be asked.
    pub fn follow_failed(&self, orthanc: &str) {
        self.follow_errors.with_label_values(&[orthanc]).inc();
    }

    /// Makes the series of sweeps of a followed Orthanc begin at zero.
    pub fn sweeps(&self, orthanc: &str) {
        for outcome in SweepOutcome::ALL {
            self.sweeps.with_label_values(&[orthanc, outcome.as_str()]).inc_by(0);
        }
        self.swept_images.with_label_values(&[orthanc]).inc_by(0);
    }

    /// What became of a sweep.
    pub fn swept(&self, orthanc: &str, outcome: SweepOutcome) {
        self.sweeps.with_label_values(&[orthanc, outcome.as_str()]).inc();
    }

    /// Images that went in a sweep.
    pub fn swept_images(&self, orthanc: &str, images: usize) {
        self.swept_images.with_label_values(&[orthanc]).inc_by(images as u64);
    }

    /// Instances whose images stay until somebody confirms.
    pub fn sweep_refused(&self, orthanc: &str, images: usize) {
        let images = i64::try_from(images).unwrap_or(i64::MAX);
        self.sweep_refused.with_label_values(&[orthanc]).set(images);
    }

    /// Changes that were not looked at yet.
    pub fn follow_lag(&self, orthanc: &str, changes: u64) {
        let changes = i64::try_from(changes).unwrap_or(i64::MAX);
        self.follow_lag.with_label_values(&[orthanc]).set(changes);
    }

    /// Whether this server is the one that follows it. The lag and what was refused are told by that one only.
    pub fn is_followed(&self, orthanc: &str, here: bool) {
        self.follow_active.with_label_values(&[orthanc]).set(i64::from(here));
        if !here {
            // An error only says that there was none.
            let _ = self.follow_lag.remove_label_values(&[orthanc]);
            let _ = self.sweep_refused.remove_label_values(&[orthanc]);
        }
    }

    /// Whether an image that was handed in is a copy of another one's picture.
    pub fn near_identical(&self, found: bool) {
        let outcome = if found { "found" } else { "not_found" };
        self.near_identical.with_label_values(&[outcome]).inc();
    }

    /// One report about a label.
    pub fn report(&self) {
        self.reports.inc();
    }

    /// One image handed in.
    pub fn ingest(&self, outcome: IngestOutcome) {
        self.ingest.with_label_values(&[outcome.as_str()]).inc();
    }

    /// One durable commit.
    pub fn commit(&self, took: Duration) {
        self.commit_duration.observe(took.as_secs_f64());
    }

    /// Time since the archive last said which version is the newest.
    pub fn manifest_age(&self, age: Duration) {
        self.manifest_age.set(age.as_secs_f64());
    }

    /// A search of the shards that are held here.
    pub fn local_search(&self, took: Duration) {
        self.shard_search
            .with_label_values(&["local"])
            .observe(took.as_secs_f64());
    }

    /// An answered call to another replica.
    pub fn remote_search(&self, took: Duration) {
        self.shard_search
            .with_label_values(&["remote"])
            .observe(took.as_secs_f64());
    }

    /// What became of a call to another replica.
    pub fn shard_request(&self, outcome: ShardOutcome) {
        let outcome = match outcome {
            ShardOutcome::Answered => "answered",
            ShardOutcome::Failed => "failed",
            ShardOutcome::Late => "late",
        };
        self.shard_requests.with_label_values(&[outcome]).inc();
    }

    /// A second replica was asked.
    pub fn hedge(&self, outcome: HedgeOutcome) {
        let outcome = match outcome {
            HedgeOutcome::Won => "won",
            HedgeOutcome::Lost => "lost",
        };
        self.hedges.with_label_values(&[outcome]).inc();
    }

    /// A call was repeated at another replica.
    pub fn retry(&self) {
        self.retries.inc();
    }

    /// A replica is left alone for a while.
    pub fn ejection(&self) {
        self.ejections.inc();
    }

    /// A search lacked a shard.
    pub fn coverage_missing(&self) {
        self.coverage_missing.inc();
    }

    /// The other replicas at the moment.
    pub fn peers(&self, known: usize, alive: usize, ejected: usize, slow: usize) {
        for (state, count) in [("known", known), ("alive", alive), ("ejected", ejected), ("slow", slow)] {
            self.peers.with_label_values(&[state]).set(whole(count));
        }
    }

    /// A search that was asked again by exact search: the share of its neighbors that it had, and whether the same class is suggested.
    pub fn sampled(&self, recall: f64, same_class: bool) {
        self.recall.observe(recall);
        let outcome = if same_class { "same" } else { "different" };
        self.vote_agreement.with_label_values(&[outcome]).inc();
    }

    /// How far what is asked about lies from the archive, 0 to 2.
    pub fn drift(&self, drift: f64) {
        self.drift.set(drift);
    }

    /// How the replica stands in its cluster at the moment.
    pub fn shards(&self, figures: ShardFigures) {
        let ShardFigures {
            assigned,
            held,
            missing,
            ..
        } = figures;
        for (state, count) in [("assigned", assigned), ("held", held), ("missing", missing)] {
            self.shards.with_label_values(&[state]).set(whole(count));
        }
        self.index_bytes
            .set(i64::try_from(figures.index_bytes).unwrap_or(i64::MAX));
        let most = figures
            .index_bytes_max
            .map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        self.index_bytes_max.set(most);
    }

    /// How busy the server is at the moment.
    pub fn load(&self, in_flight: usize, queue_depth: usize, queue_max: usize) {
        self.http_in_flight.set(whole(in_flight));
        self.queue_depth.set(whole(queue_depth));
        self.queue_max.set(whole(queue_max));
    }

    /// What the archive holds at the moment.
    pub fn archive(&self, figures: &ArchiveFigures<'_>) {
        self.archive_version
            .set(i64::try_from(figures.version).unwrap_or(i64::MAX));
        self.archive_conflicts.set(whole(figures.conflicts));
        self.archive_lost_graphs.set(whole(figures.lost_graphs));
        // A class that is gone must not stay with its last count.
        self.archive_images.reset();
        let labelled: usize = figures.classes.iter().map(|(_, images)| images).sum();
        for (class, images) in figures.classes {
            self.archive_images
                .with_label_values(&[class.as_str()])
                .set(whole(*images));
        }
        self.archive_images
            .with_label_values(&[UNLABELLED])
            .set(whole(figures.images.saturating_sub(labelled)));
    }

    /// What was asked of the archive's storage so far, by operation and outcome, what was damaged, by place, and the cache.
    pub fn storage(
        &self,
        requests: &[(&'static str, &'static str, u64)],
        damage: &[(&'static str, u64)],
        cache_bytes: u64,
    ) {
        let _one_at_a_time = self.storage_scrape.lock().unwrap_or_else(PoisonError::into_inner);
        let advance = |counter: &IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        for &(operation, outcome, count) in requests {
            advance(&self.storage_requests.with_label_values(&[operation, outcome]), count);
        }
        for &(place, count) in damage {
            advance(&self.storage_damage.with_label_values(&[place]), count);
        }
        self.cache_bytes.set(i64::try_from(cache_bytes).unwrap_or(i64::MAX));
    }

    /// What became of spans that were to be exported.
    pub fn spans(&self, outcome: SpanOutcome, count: u64) {
        let outcome = match outcome {
            SpanOutcome::Exported => "exported",
            SpanOutcome::Dropped => "dropped",
        };
        self.spans.with_label_values(&[outcome]).inc_by(count);
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// `Internal` when it can't be written.
    pub fn text(&self) -> Result<String> {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .map_err(fault)
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn gauge(name: &str, help: &str) -> Result<IntGauge> {
    IntGauge::new(name, help).map_err(fault)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
    IntGaugeVec::new(Opts::new(name, help), labels).map_err(fault)
}

fn counter(name: &str, help: &str) -> Result<IntCounter> {
    IntCounter::new(name, help).map_err(fault)
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels).map_err(fault)
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> Result<Histogram> {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())).map_err(fault)
}

fn histograms(name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> Result<HistogramVec> {
    HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels).map_err(fault)
}

fn fault(error: prometheus::Error) -> Error {
    Error::with_source(ErrorKind::Internal, "metrics", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_a_unit_or_is_a_plain_count_and_shows_its_value() {
        let metrics = Metrics::new().unwrap();
        let covid = ClassLabel::parse("Viral Pneumonia").unwrap();
        metrics.request("/v1/search", "POST", 200, Duration::from_millis(30));
        metrics.refused(RefusalReason::ExpiredKey);
        metrics.keys_file_broken(true);
        metrics.labels_file_broken(true);
        metrics.audit_lines(2);
        metrics.audit_lost(3);
        metrics.audit_broken(true);
        metrics.audit_room(10, 20);
        metrics.audit_head(false);
        metrics.tls(Port::Inner, 1_800_000_000, true);
        metrics.stage(Stage::Model, Duration::from_millis(8));
        metrics.batch(4);
        metrics.search_path(&covid, PathTaken::Hnsw);
        metrics.suggestion(Status::OutOfDistribution);
        metrics.calibration(false);
        metrics.explanation("cells");
        metrics.near_identical(true);
        metrics.report();
        metrics.ingest(IngestOutcome::Duplicate);
        metrics.commit(Duration::from_millis(12));
        metrics.load(2, 3, 256);
        metrics.manifest_age(Duration::from_millis(1500));
        metrics.local_search(Duration::from_millis(2));
        metrics.remote_search(Duration::from_millis(4));
        metrics.shard_request(ShardOutcome::Late);
        metrics.hedge(HedgeOutcome::Won);
        metrics.retry();
        metrics.ejection();
        metrics.coverage_missing();
        metrics.peers(2, 1, 0, 1);
        metrics.sampled(0.9, false);
        metrics.drift(0.25);
        metrics.shards(ShardFigures {
            assigned: 6,
            held: 5,
            missing: 1,
            index_bytes: 1000,
            index_bytes_max: None,
        });
        for cached in [7, 5] {
            metrics.storage(&[("get", "ok", 4)], &[("cache", 1)], cached);
        }
        metrics.spans(SpanOutcome::Dropped, 3);
        metrics.archive(&ArchiveFigures {
            version: 7,
            images: 10,
            classes: &[(covid, 8)],
            conflicts: 1,
            lost_graphs: 2,
        });
        let text = metrics.text().unwrap();
        for line in [
            r#"medsearch_http_requests_total{method="POST",route="/v1/search",status="200"} 1"#,
            r#"medsearch_http_request_duration_seconds_bucket{method="POST",route="/v1/search",le="0.05"} 1"#,
            r#"medsearch_requests_refused_total{reason="expired_key"} 1"#,
            "medsearch_keys_file_broken 1",
            "medsearch_labels_file_broken 1",
            "medsearch_audit_lines_total 2",
            "medsearch_audit_lost_total 3",
            "medsearch_audit_broken 1",
            "medsearch_audit_bytes 10",
            "medsearch_audit_bytes_max 20",
            r#"medsearch_audit_heads_total{outcome="failed"} 1"#,
            r#"medsearch_tls_certificate_expires_timestamp_seconds{port="inner"} 1800000000"#,
            r#"medsearch_tls_files_broken{port="inner"} 1"#,
            r#"medsearch_stage_duration_seconds_bucket{stage="model",le="0.01"} 1"#,
            r#"medsearch_batch_size_bucket{le="4"} 1"#,
            r#"medsearch_search_path_total{class="Viral Pneumonia",path="hnsw"} 1"#,
            r#"medsearch_suggestions_total{status="out_of_distribution"} 1"#,
            r#"medsearch_calibrations_total{outcome="not_valid"} 1"#,
            r#"medsearch_explanations_total{method="cells"} 1"#,
            r#"medsearch_near_identical_total{outcome="found"} 1"#,
            "medsearch_reports_total 1",
            r#"medsearch_ingest_total{outcome="duplicate"} 1"#,
            "medsearch_commit_duration_seconds_count 1",
            r#"medsearch_storage_requests_total{operation="get",outcome="ok"} 4"#,
            r#"medsearch_storage_damage_total{place="cache"} 1"#,
            "medsearch_cache_bytes 5",
            "medsearch_http_in_flight_requests 2",
            "medsearch_queue_depth 3",
            "medsearch_queue_max 256",
            "medsearch_queue_dropped_total 0",
            "medsearch_archive_version 7",
            r#"medsearch_archive_images{class="Viral Pneumonia"} 8"#,
            r#"medsearch_archive_images{class="_unlabelled"} 2"#,
            "medsearch_archive_label_conflicts 1",
            "medsearch_archive_lost_graphs 2",
            "medsearch_archive_manifest_age_seconds 1.5",
            r#"medsearch_shard_search_duration_seconds_count{where="local"} 1"#,
            r#"medsearch_shard_search_duration_seconds_count{where="remote"} 1"#,
            r#"medsearch_shard_requests_total{outcome="late"} 1"#,
            r#"medsearch_hedges_total{outcome="won"} 1"#,
            "medsearch_retries_total 1",
            "medsearch_ejections_total 1",
            "medsearch_coverage_missing_total 1",
            r#"medsearch_peers{state="alive"} 1"#,
            r#"medsearch_peers{state="slow"} 1"#,
            r#"medsearch_shards{state="held"} 5"#,
            r#"medsearch_quality_recall_at_10_bucket{le="0.9"} 1"#,
            r#"medsearch_quality_vote_agreement_total{outcome="different"} 1"#,
            "medsearch_quality_drift 0.25",
            "medsearch_index_bytes 1000",
            "medsearch_index_bytes_max -1",
            r#"medsearch_spans_total{outcome="dropped"} 3"#,
            "medsearch_build_info{version=",
            "process_resident_memory_bytes",
        ] {
            assert!(text.contains(line), "no `{line}` in\n{text}");
        }
    }

    #[test]
    fn counters_begin_at_zero() {
        let text = Metrics::new().unwrap().text().unwrap();
        for line in [
            r#"medsearch_requests_refused_total{reason="insufficient_scope"} 0"#,
            "medsearch_keys_file_broken 0",
            "medsearch_labels_file_broken 0",
            "medsearch_audit_lost_total 0",
            r#"medsearch_audit_heads_total{outcome="committed"} 0"#,
            r#"medsearch_suggestions_total{status="out_of_distribution"} 0"#,
            r#"medsearch_calibrations_total{outcome="not_valid"} 0"#,
            r#"medsearch_explanations_total{method="cells"} 0"#,
            r#"medsearch_near_identical_total{outcome="found"} 0"#,
            r#"medsearch_ingest_total{outcome="failed"} 0"#,
            r#"medsearch_shard_requests_total{outcome="late"} 0"#,
            r#"medsearch_hedges_total{outcome="won"} 0"#,
            r#"medsearch_quality_vote_agreement_total{outcome="different"} 0"#,
            r#"medsearch_spans_total{outcome="dropped"} 0"#,
        ] {
            assert!(text.contains(line), "no `{line}` in\n{text}");
        }
    }

    #[test]
    fn a_class_that_is_gone_is_not_shown() {
        let metrics = Metrics::new().unwrap();
        let normal = ClassLabel::parse("Normal").unwrap();
        metrics.archive(&ArchiveFigures {
            version: 1,
            images: 1,
            classes: &[(normal, 1)],
            conflicts: 0,
            lost_graphs: 0,
        });
        metrics.archive(&ArchiveFigures {
            version: 2,
            images: 0,
            classes: &[],
            conflicts: 0,
            lost_graphs: 0,
        });
        assert!(!metrics.text().unwrap().contains("Normal"));
    }
}
