//! Spans to a collector, by OTLP over HTTP. A span that ends goes into a bounded queue and never waits; a task sends
//! what lies there. What finds no place, and what the collector does not take, is dropped and counted: a search has
//! nothing to do with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::Registry;

use super::traces::SPANS;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Metrics, SpanOutcome};

/// What this program is called among the services of a trace.
const SERVICE: &str = "medsearch";
/// Where a collector takes spans, below its address.
const TRACES_PATH: &str = "/v1/traces";
/// Most spans that wait to be sent, some kilobytes each.
const QUEUE_MAX: usize = 8192;
/// Most spans in one message.
const BATCH_MAX: usize = 512;
/// Longest time that a span waits for others.
const EVERY: Duration = Duration::from_secs(1);
/// Longest time to connect to the collector.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Longest time for one message, tries again included.
const SEND_MAX: Duration = Duration::from_secs(5);
/// Longest time at the end for what still waits.
const FLUSH_MAX: Duration = Duration::from_secs(3);

/// Where spans go, and of which share of traces.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpSettings {
    url: String,
    share: f64,
}

impl OtlpSettings {
    /// Spans to the collector at `endpoint`, of `share` (0 to 1) of the traces that begin here. A trace that comes
    /// along with a request is recorded if its caller records it.
    ///
    /// # Errors
    /// `InvalidRequest` for what is no `http://` or `https://` URL or holds a credential, which would be read in lists
    /// of processes; for a share out of range.
    pub fn new(endpoint: &str, share: f64) -> Result<Self> {
        let wrong = |why: &str| Error::new(ErrorKind::InvalidRequest, format!("the collector's URL {why}"));
        let mut url: reqwest::Url = endpoint.parse().map_err(|_| wrong("is none"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong("begins with http:// or https:// and names a host"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(wrong(
                "takes no credential and no query: put headers into OTEL_EXPORTER_OTLP_HEADERS",
            ));
        }
        if !(0.0..=1.0).contains(&share) {
            let message = format!("the share of traces is 0 to 1, not `{share}`");
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        let path = url.path().trim_end_matches('/');
        let path = format!("{}{TRACES_PATH}", path.strip_suffix(TRACES_PATH).unwrap_or(path));
        url.set_path(&path);
        Ok(Self {
            url: url.to_string(),
            share,
        })
    }
}

/// The layer that makes spans of `tracing` those of a trace.
pub(super) type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Spans that have ended, until [`Spans::send`] sends them.
pub struct Spans {
    settings: OtlpSettings,
    ended: mpsc::Receiver<SpanData>,
    overflow: Arc<AtomicU64>,
}

/// The layer, and where its spans come out.
pub(super) fn collect(settings: OtlpSettings) -> (SpanLayer, Spans) {
    collect_up_to(QUEUE_MAX, settings)
}

fn collect_up_to(queue_max: usize, settings: OtlpSettings) -> (SpanLayer, Spans) {
    let (sender, ended) = mpsc::channel(queue_max);
    let overflow = Arc::new(AtomicU64::new(0));
    let queue = Queue {
        sender,
        overflow: Arc::clone(&overflow),
    };
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
            settings.share,
        ))))
        .with_span_processor(queue)
        .build();
    let layer: OpenTelemetryLayer<Registry, SdkTracer> = OpenTelemetryLayer::new(provider.tracer(SERVICE))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false);
    // Spans of this target alone, and no lines of the log, whatever they say.
    let only = Targets::new().with_target(SPANS, LevelFilter::DEBUG);
    let spans = Spans {
        settings,
        ended,
        overflow,
    };
    (Box::new(layer.with_filter(only)), spans)
}

/// Takes a span where it ends.
#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<SpanData>,
    overflow: Arc<AtomicU64>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.sender.try_send(span).is_err() {
            self.overflow.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Spans {
    /// Begins to send them, as those of `replica`, in a task of its own.
    ///
    /// # Errors
    /// `InvalidRequest` when what the environment says about the collector (`OTEL_EXPORTER_OTLP_…`) can't be used;
    /// `Internal` when no client can be made.
    pub fn send(self, replica: &str, metrics: Arc<Metrics>) -> Result<Sending> {
        let exporter = exporter(&self.settings, replica)?;
        let (stop, stopped) = oneshot::channel();
        let sender = Sender {
            spans: self,
            exporter,
            metrics,
            dropping: false,
        };
        let task = tokio::spawn(sender.run(stopped));
        Ok(Sending { stop, task })
    }
}

fn exporter(settings: &OtlpSettings, replica: &str) -> Result<SpanExporter> {
    // As for the other clients of this process: the first one counts.
    crate::tls::use_ring();
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_MAX)
        .timeout(SEND_MAX)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| Error::with_source(ErrorKind::Internal, "no client for the collector", error))?;
    let built = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(&settings.url)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(SEND_MAX)
        .build();
    let mut exporter = built.map_err(|error| {
        Error::with_source(
            ErrorKind::InvalidRequest,
            "spans can't be sent to this collector",
            error,
        )
    })?;
    let resource = Resource::builder()
        .with_service_name(SERVICE)
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", replica.to_owned()),
        ])
        .build();
    exporter.set_resource(&resource);
    Ok(exporter)
}

/// The task that sends spans.
pub struct Sending {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Sending {
    /// Sends what has ended so far and then no more, for three seconds at most.
    pub async fn finish(self) {
        let Self { stop, mut task } = self;
        // A task that has ended hears nothing, and has nothing to do.
        let _ = stop.send(());
        if tokio::time::timeout(FLUSH_MAX, &mut task).await.is_err() {
            tracing::warn!("the collector did not take the last spans in time");
            task.abort();
        }
    }
}

struct Sender {
    spans: Spans,
    exporter: SpanExporter,
    metrics: Arc<Metrics>,
    /// It was said that spans are dropped.
    dropping: bool,
}

impl Sender {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            // Whatever ends it, what came lies in the batch: receiving is cancel safe.
            let is_last = tokio::select! {
                ended = fill(&mut self.spans.ended, &mut batch) => ended,
                () = tokio::time::sleep(EVERY) => false,
                _ = &mut stopped => true,
            };
            self.flush(&mut batch).await;
            while is_last && let Ok(span) = self.spans.ended.try_recv() {
                batch.push(span);
                if batch.len() == BATCH_MAX {
                    self.flush(&mut batch).await;
                }
            }
            if is_last {
                return self.flush(&mut batch).await;
            }
        }
    }

    /// Sends a batch, and counts what became of it and of what found no place meanwhile.
    async fn flush(&mut self, batch: &mut Vec<SpanData>) {
        let overflow = self.spans.overflow.swap(0, Ordering::Relaxed);
        if overflow > 0 {
            self.dropped(overflow, "more spans end than can be sent");
        }
        if batch.is_empty() {
            return;
        }
        let count = batch.len() as u64;
        let sent = self
            .exporter
            .export(std::mem::replace(batch, Vec::with_capacity(BATCH_MAX)));
        match tokio::time::timeout(SEND_MAX, sent).await {
            Ok(Ok(())) => {
                self.metrics.spans(SpanOutcome::Exported, count);
                if self.dropping && overflow == 0 {
                    self.dropping = false;
                    tracing::info!("the collector takes spans again");
                }
            }
            Ok(Err(error)) => self.dropped(count, &error.to_string()),
            Err(_) => self.dropped(count, "the collector does not answer"),
        }
    }

    /// Said once until it is over, for it may last.
    fn dropped(&mut self, count: u64, why: &str) {
        self.metrics.spans(SpanOutcome::Dropped, count);
        if !std::mem::replace(&mut self.dropping, true) {
            tracing::warn!(why, "spans are dropped: medsearch_spans_total counts them");
        }
    }
}

/// Fills a batch; true when no more will come.
async fn fill(ended: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) -> bool {
    while batch.len() < BATCH_MAX {
        let space = BATCH_MAX - batch.len();
        if ended.recv_many(batch, space).await == 0 {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::SpanKind;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tracing::{debug_span, info_span};
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::trace_parent::{Caller, TraceParent};
    use super::super::traces::{Trace, onward};
    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const NOT_SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn settings(share: f64) -> OtlpSettings {
        OtlpSettings::new("http://127.0.0.1:9", share).unwrap()
    }

    fn caller(parent: &str) -> Option<Caller> {
        Caller::read([parent.as_bytes()], [])
    }

    fn all(spans: &mut Spans) -> Vec<SpanData> {
        std::iter::from_fn(|| spans.ended.try_recv().ok()).collect()
    }

    #[test]
    fn a_collector_is_named_by_its_address_or_by_where_it_takes_spans() {
        for (given, used) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            (
                "https://collector.example.org/",
                "https://collector.example.org/v1/traces",
            ),
            ("http://[::1]:4318/otlp/", "http://[::1]:4318/otlp/v1/traces"),
            ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
        ] {
            assert_eq!(OtlpSettings::new(given, 0.5).unwrap().url, used);
        }
        for (given, share) in [
            ("", 1.0),
            ("collector:4318", 1.0),
            ("grpc://collector:4317", 1.0),
            ("http://name:word@collector:4318", 1.0),
            ("http://collector:4318?token=word", 1.0),
            ("http://collector:4318", 1.1),
            ("http://collector:4318", -0.1),
            ("http://collector:4318", f64::NAN),
        ] {
            let refused = OtlpSettings::new(given, share).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidRequest, "{given}");
            assert!(!refused.to_string().contains("word"), "{refused}");
        }
    }

    #[test]
    fn spans_are_one_tree_under_the_callers_and_lines_of_the_log_are_no_part_of_it() {
        let (layer, mut spans) = collect(settings(0.0));
        let said = tracing::subscriber::with_default(Registry::default().with(layer), || {
            let line = info_span!("request", request_id = "r");
            let server = debug_span!(
                target: SPANS,
                "request",
                otel.name = "POST /v1/search",
                otel.kind = "server",
                http.response.status_code = tracing::field::Empty
            );
            let trace = Trace::take_up(caller(SAMPLED), &server);
            line.in_scope(|| {
                server.in_scope(|| {
                    debug_span!(target: SPANS, "embed", medsearch.batch = 3)
                        .in_scope(|| tracing::info!(patient = "nobody's business", "a line"));
                    debug_span!(target: SPANS, parent: &server, "merge").in_scope(|| {});
                });
            });
            server.record("http.response.status_code", 200);
            trace
        });
        let ended = all(&mut spans);
        let names: Vec<&str> = ended.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["embed", "merge", "POST /v1/search"]);
        let (server, stages) = ended.split_last().unwrap();
        let caller = TraceParent::parse(SAMPLED.as_bytes()).unwrap();
        assert_eq!(server.parent_span_id.to_bytes(), caller.span_id());
        assert_eq!(
            (server.span_kind.clone(), server.parent_span_is_remote),
            (SpanKind::Server, true)
        );
        assert_eq!(server.span_context.span_id().to_bytes(), said.here().span_id());
        assert_eq!(server.attributes, [KeyValue::new("http.response.status_code", 200i64)]);
        for span in &ended {
            assert_eq!(span.span_context.trace_id().to_bytes(), caller.trace_id());
            assert!(span.events.is_empty());
        }
        for stage in stages {
            assert_eq!(stage.parent_span_id, server.span_context.span_id());
        }
        assert_eq!(stages[0].attributes, [KeyValue::new("medsearch.batch", 3i64)]);
    }

    #[tokio::test]
    async fn what_is_sent_to_others_is_the_span_that_is_exported_and_the_callers_choice_holds() {
        let (layer, mut spans) = collect(settings(1.0));
        let _here = tracing::subscriber::set_default(Registry::default().with(layer));
        for (parent, recorded) in [(Some(SAMPLED), true), (Some(NOT_SAMPLED), false), (None, true)] {
            let server = debug_span!(target: SPANS, "request");
            let trace = Trace::take_up(parent.and_then(caller), &server);
            let call = debug_span!(target: SPANS, parent: &server, "call");
            let id = trace.id();
            let headers = trace.scope(async { onward(&call) }).await;
            drop((call, server));
            let sent = TraceParent::parse(headers[0].1.as_bytes()).unwrap();
            assert_eq!((hex::encode(sent.trace_id()), sent.is_sampled()), (id, recorded));
            let ended = all(&mut spans);
            assert_eq!(ended.len(), if recorded { 2 } else { 0 });
            if let Some(call) = ended.first() {
                assert_eq!(call.span_context.span_id().to_bytes(), sent.span_id());
            }
        }
    }

    fn end(count: usize) {
        (0..count).for_each(|_| drop(debug_span!(target: SPANS, "request")));
    }

    fn counted(metrics: &Metrics, outcome: &str) -> u64 {
        let series = format!("medsearch_spans_total{{outcome=\"{outcome}\"}} ");
        let text = metrics.text().unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value.map_or(0, |value| value.parse().unwrap())
    }

    #[tokio::test]
    async fn a_full_queue_and_an_absent_collector_cost_spans_and_nothing_else() {
        let (layer, spans) = collect_up_to(5, settings(1.0));
        let _here = tracing::subscriber::set_default(Registry::default().with(layer));
        end(8);
        let metrics = Arc::new(Metrics::new().unwrap());
        // Nobody listens at that port.
        spans.send("replica", Arc::clone(&metrics)).unwrap().finish().await;
        assert_eq!((counted(&metrics, "dropped"), counted(&metrics, "exported")), (8, 0));
    }

    #[tokio::test]
    async fn what_waits_is_sent_at_the_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let collector = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1 << 16];
            let read = stream.read(&mut request).await.unwrap();
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let (layer, spans) = collect(OtlpSettings::new(&endpoint, 1.0).unwrap());
        let _here = tracing::subscriber::set_default(Registry::default().with(layer));
        let metrics = Arc::new(Metrics::new().unwrap());
        let sending = spans.send("replica", Arc::clone(&metrics)).unwrap();
        end(3);
        sending.finish().await;
        assert_eq!((counted(&metrics, "dropped"), counted(&metrics, "exported")), (0, 3));
        assert!(collector.await.unwrap().starts_with("POST /v1/traces HTTP/1.1\r\n"));
    }
}
