//! Logs: `tracing` events to stderr, as text on a terminal and as JSON elsewhere. Traces: `tracing` spans of one
//! target, to a collector if there is one.

pub mod otlp;
pub mod trace_parent;
pub mod traces;

use std::io::IsTerminal;

use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use otlp::{OtlpSettings, Spans};
pub use traces::SPANS;

use crate::error::{Error, ErrorKind, Result};

/// Starts logging for the whole process, with a level or directives as in `RUST_LOG` (`info`, `medsearch=debug,warn`).
///
/// # Errors
/// `InvalidRequest` for directives that can't be read; `Internal` when logging was started before.
pub fn start(directives: &str) -> Result<()> {
    start_on(directives, std::io::stderr, None)
}

/// As [`start`], and collects spans for whoever sends them with [`Spans::send`].
///
/// # Errors
/// Those of [`start`].
pub fn start_traced(directives: &str, settings: OtlpSettings) -> Result<Spans> {
    let (layer, spans) = otlp::collect(settings);
    start_on(directives, std::io::stderr, Some(layer))?;
    Ok(spans)
}

/// As [`start`], but what is logged is written and thrown away: for measurements, which pay for it and need not show it.
///
/// # Errors
/// Those of [`start`].
pub fn start_unseen(directives: &str) -> Result<()> {
    start_on(directives, std::io::sink, None)
}

fn start_on<W>(directives: &str, writer: W, spans: Option<otlp::SpanLayer>) -> Result<()>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let targets: Targets = directives.parse().map_err(|error| {
        Error::with_source(
            ErrorKind::InvalidRequest,
            format!("can't read the log level `{directives}`"),
            error,
        )
    })?;
    // A line says where it belongs by its request's id and trace: the spans of a trace would be repeated in each.
    let targets = targets.with_target(SPANS, LevelFilter::OFF);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let started = if std::io::stderr().is_terminal() {
        let lines = lines.with_target(false).with_filter(targets);
        tracing_subscriber::registry().with(spans).with(lines).try_init()
    } else {
        let lines = lines.json().flatten_event(true).with_filter(targets);
        tracing_subscriber::registry().with(spans).with(lines).try_init()
    };
    started.map_err(|error| Error::with_source(ErrorKind::Internal, "logging is started already", error))
}

/// Runs work of more than about half a millisecond off the async threads, in the caller's span.
///
/// # Errors
/// Those of `work`; `Internal` when it panicked.
///
/// # Cancel safety
/// Work that has begun runs to its end even if nobody waits for it any more.
pub async fn run_blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .map_err(|error| Error::with_source(ErrorKind::Internal, "background work panicked", error))?
}

/// Runs work of a few milliseconds at most where it is asked for: what else waits on this thread waits for it.
///
/// # Errors
/// Those of `work`; `Internal` when it panicked, as on a thread of its own.
pub fn run_here<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::internal("work panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn blocking_work_gives_its_result_and_a_panic_is_internal() {
        assert_eq!(run_blocking(|| Ok(7)).await.unwrap(), 7);
        let error = run_blocking::<(), _>(|| panic!("on purpose")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert_eq!(run_here(|| Ok(7)).unwrap(), 7);
        let error = run_here::<()>(|| panic!("on purpose")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }

    #[test]
    fn nonsense_directives_are_refused() {
        assert_eq!(start("medsearch=loudly").unwrap_err().kind(), ErrorKind::InvalidRequest);
    }
}
