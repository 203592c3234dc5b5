//! The trace of a request on its way through this process: taken up where it arrives, or begun, and handed to the
//! replicas that are asked.
//!
//! It does not need spans to be exported: without that a span is an id that a header names. Where spans are exported
//! their ids are the headers'.

use std::sync::Arc;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::trace_parent::{Caller, TRACEPARENT, TRACESTATE, TraceParent};

/// Target of the spans that are exported, and of nothing else: lines of the log don't show them. Their fields are what
/// operators read: never what a request is about.
pub const SPANS: &str = "medsearch::spans";

tokio::task_local! {
    static CURRENT: Trace;
}

/// The trace of a request, and the span in which this process answers it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trace {
    here: TraceParent,
    state: Option<Arc<str>>,
}

impl Trace {
    /// Goes on with the caller's trace, or begins one. `span` becomes the caller's child where spans are exported.
    pub fn take_up(caller: Option<Caller>, span: &Span) -> Self {
        if let Some(caller) = &caller {
            // It fails where spans are not exported, or not this one.
            let _ = span.set_parent(Context::new().with_remote_span_context(remote(caller)));
        }
        let here = exported(span).unwrap_or_else(|| match &caller {
            Some(caller) => child(caller.parent),
            // Nobody records it here.
            None => made(|| TraceParent::new(random(), random(), false)),
        });
        let state = caller.and_then(|caller| caller.state).map(Arc::from);
        Self { here, state }
    }

    /// The trace's id, 32 hex digits.
    pub fn id(&self) -> String {
        hex::encode(self.here.trace_id())
    }

    /// The trace with this process's span, as a header names it.
    pub fn here(&self) -> &TraceParent {
        &self.here
    }

    /// Runs what answers the request.
    pub async fn scope<F: Future>(self, answer: F) -> F::Output {
        CURRENT.scope(self, answer).await
    }
}

/// Headers of a call that is made for the current request, in `span`: each call is a child of its own. None outside of
/// a request.
pub fn onward(span: &Span) -> Vec<(&'static str, String)> {
    let headers = |trace: &Trace| {
        let parent = exported(span).unwrap_or_else(|| child(trace.here));
        let state = trace.state.as_ref().map(|state| (TRACESTATE, state.to_string()));
        [(TRACEPARENT, parent.to_string())].into_iter().chain(state).collect()
    };
    CURRENT.try_with(headers).unwrap_or_default()
}

/// What a span is called outside, if it is exported or could be.
fn exported(span: &Span) -> Option<TraceParent> {
    let context = span.context();
    let span = context.span();
    let named = span.span_context();
    TraceParent::new(
        named.trace_id().to_bytes(),
        named.span_id().to_bytes(),
        named.is_sampled(),
    )
}

fn remote(caller: &Caller) -> SpanContext {
    let flags = TraceFlags::default().with_sampled(caller.parent.is_sampled());
    let state = caller.state.as_deref().and_then(|state| state.parse().ok());
    SpanContext::new(
        TraceId::from_bytes(caller.parent.trace_id()),
        SpanId::from_bytes(caller.parent.span_id()),
        flags,
        true,
        state.unwrap_or(TraceState::NONE),
    )
}

fn child(parent: TraceParent) -> TraceParent {
    made(|| parent.with_span(random()))
}

/// Drawn until no id is zero, which happens once in the age of the universe.
fn made(draw: impl Fn() -> Option<TraceParent>) -> TraceParent {
    std::iter::repeat_with(draw)
        .flatten()
        .next()
        .expect("an endless sequence has a first")
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes, as it did for the archive's secret");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn caller() -> Caller {
        Caller::read([PARENT.as_bytes()], ["a=1".as_bytes()]).unwrap()
    }

    fn parent_of(headers: &[(&str, String)]) -> TraceParent {
        assert_eq!(headers[0].0, TRACEPARENT);
        TraceParent::parse(headers[0].1.as_bytes()).unwrap()
    }

    #[tokio::test]
    async fn without_export_the_trace_goes_on_and_every_call_is_a_child_of_its_own() {
        let trace = Trace::take_up(Some(caller()), &Span::none());
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let here = *trace.here();
        let calls = trace
            .scope(async { [onward(&Span::none()), onward(&Span::none())] })
            .await;
        let mut spans = vec![caller().parent.span_id(), here.span_id()];
        for headers in &calls {
            let parent = parent_of(headers);
            assert_eq!((parent.trace_id(), parent.is_sampled()), (here.trace_id(), true));
            assert_eq!(headers[1], (TRACESTATE, "a=1".to_owned()));
            spans.push(parent.span_id());
        }
        spans.sort_unstable();
        spans.dedup();
        assert_eq!(spans.len(), 4);
    }

    #[tokio::test]
    async fn a_request_without_a_trace_begins_one_that_nobody_records() {
        let [one, other] = [(); 2].map(|()| Trace::take_up(None, &Span::none()));
        assert_ne!(one.id(), other.id());
        let headers = one.clone().scope(async { onward(&Span::none()) }).await;
        assert_eq!(headers.len(), 1);
        assert_eq!(parent_of(&headers).trace_id(), one.here().trace_id());
        assert!(!parent_of(&headers).is_sampled());
        assert_eq!(onward(&Span::none()), [], "outside of a request nothing is sent");
    }
}
