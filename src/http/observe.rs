//! Around every request: its id and trace, the in-flight limit, one log line, metrics, and the problem document if it
//! failed.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpRequest, web};
use futures_util::FutureExt;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::access::{KeyHolder, KeyName};
use super::body::{BODY_TIME_MAX, STUDY_TIME_MAX, Unread};
use super::rate::{Left, Spent};
use super::{State, headers, problem};
use crate::cluster::wire::SEARCH_PATH;
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::SPANS;
use crate::telemetry::trace_parent::{Caller, TRACEPARENT, TRACESTATE, TraceParent};
use crate::telemetry::traces::Trace;

/// The id of a request, kept with it.
#[derive(Clone)]
pub struct RequestId(pub String);

/// The header that names a request, in requests and answers.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Time from the request's head to its answer, body and JSON included (W3C Server Timing): what a client's own clock
/// shows beyond it is the network. A second one names the trace and this server's span, as agents in browsers read it;
/// the header `traceresponse` is a draft that still changes.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Longest id that is taken over from a request.
const REQUEST_ID_BYTES_MAX: usize = 64;
/// Below it whole studies come in one body.
const STUDIES: &str = "/dicom-web/studies";
/// Answered however busy the server is, and logged only when asked for.
const OPERATIONS: [&str; 4] = ["/livez", "/readyz", "/startupz", "/metrics"];
/// Label of requests that no route takes.
const UNMATCHED: &str = "unmatched";

/// The middleware, the outermost.
pub async fn observe(
    state: web::Data<State>,
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let started = Instant::now();
    let (id, method) = (request_id(request.headers()), known_method(request.method()));
    let quiet = OPERATIONS.contains(&request.path());
    // What asks every few seconds how the server is would hide what is searched.
    let span = if quiet {
        Span::none()
    } else {
        server_span(&request, Some(&id))
    };
    let trace = Trace::take_up(caller(request.headers()), &span);
    let line = Line {
        id,
        trace_id: trace.id(),
        here: *trace.here(),
        method,
        quiet,
        // A browser would hold what it is told of `localhost` against every other server of its machine.
        host_by_tls: request.app_config().secure() && !state.settings.loopback,
    };
    let api = ["/v1/", "/dicom-web/"]
        .iter()
        .any(|below| request.path().starts_with(below));
    request.extensions_mut().insert(RequestId(line.id.clone()));
    let time_max = body_time_max(request.path());
    let unread = Unread::of(&mut request, time_max);

    // Before the body is read; the permit is held until the answer is there.
    let answered = match if line.quiet { Ok(None) } else { state.admit().map(Some) } {
        Err(error) => Ok(request.error_response(error)),
        Ok(_permit) => {
            let in_log = tracing::info_span!("request", request_id = %line.id, trace_id = %line.trace_id);
            let answer = trace
                .scope(AssertUnwindSafe(next.call(request)).catch_unwind())
                .instrument(span.clone())
                .instrument(in_log)
                .await;
            answer
                .unwrap_or_else(|_| Err(Error::internal("a handler panicked").into()))
                .map(ServiceResponse::map_into_boxed_body)
        }
    };
    match answered {
        Ok(response) => {
            let route = response
                .request()
                .match_pattern()
                .unwrap_or_else(|| UNMATCHED.to_owned());
            let key = key_of(response.request());
            let left = response.request().extensions().get::<(Spent, Left)>().copied();
            let (mut response, problem) = problem::finish(response, &line.id, &line.trace_id);
            let took = started.elapsed();
            if let Some((spent, left)) = left {
                headers::add_rate(response.headers_mut(), spent, left);
            }
            add_headers(response.headers_mut(), &line, api.then_some(took));
            line.write(&state, &route, key.as_ref(), response.status(), problem, took);
            say_end(&span, key.as_ref(), response.status(), problem);
            Ok(match unread {
                Some(unread) if !response.status().is_success() => response.map_body(|_, body| unread.left_by(body)),
                _ => response,
            })
        }
        // The request is lost with the handler, and with it the way to an ordinary response.
        Err(error) => {
            tracing::error!(request_id = line.id, trace_id = line.trace_id, error = %error, "request failed");
            let mut response = problem::answer(ErrorKind::Internal, "", &line.id);
            let took = started.elapsed();
            let slug = Some(ErrorKind::Internal.slug());
            add_headers(response.headers_mut(), &line, api.then_some(took));
            line.write(&state, UNMATCHED, None, response.status(), slug, took);
            say_end(&span, None, response.status(), slug);
            Err(InternalError::from_response(error.to_string(), response).into())
        }
    }
}

/// Around a question of another replica: its trace, which is that of the request there, and one log line.
pub async fn observe_inner(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let started = Instant::now();
    let (method, quiet) = (known_method(request.method()), request.path() != SEARCH_PATH);
    let span = if quiet {
        Span::none()
    } else {
        server_span(&request, None)
    };
    let trace = Trace::take_up(caller(request.headers()), &span);
    let trace_id = trace.id();
    let in_log = tracing::info_span!("request", trace_id);
    let answered = trace
        .scope(next.call(request))
        .instrument(span.clone())
        .instrument(in_log)
        .await;
    let response = answered?.map_into_boxed_body();
    let route = response.request().match_pattern();
    let route = route.as_deref().unwrap_or(UNMATCHED);
    let (status, ms) = (response.status().as_u16(), started.elapsed().as_millis() as u64);
    if quiet {
        tracing::debug!(trace_id, method, route, status, ms, "answered another replica");
    } else {
        tracing::info!(trace_id, method, route, status, ms, "answered another replica");
    }
    say_end(&span, None, response.status(), None);
    Ok(response)
}

/// What a request says about its trace.
fn caller(headers: &HeaderMap) -> Option<Caller> {
    let values = |name: &'static str| headers.get_all(name).map(HeaderValue::as_bytes);
    Caller::read(values(TRACEPARENT), values(TRACESTATE))
}

/// The span of a request, in the words of OpenTelemetry's conventions for HTTP. It has the route and not the path,
/// which may name an image.
fn server_span(request: &ServiceRequest, request_id: Option<&str>) -> Span {
    let method = match known_method(request.method()) {
        "other" => "_OTHER",
        known => known,
    };
    let name = |route: Option<String>| route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
    tracing::debug_span!(
        target: SPANS,
        "request",
        otel.name = name(request.match_pattern()),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = request.match_pattern(),
        http.response.status_code = Empty,
        url.scheme = if request.app_config().secure() { "https" } else { "http" },
        "error.type" = Empty,
        medsearch.request_id = request_id,
        medsearch.key = Empty,
    )
}

/// What the key that the request brought is called, if it was one.
pub fn key_of(request: &HttpRequest) -> Option<KeyName> {
    request
        .extensions()
        .get::<KeyHolder>()
        .map(|holder| holder.name.clone())
}

/// Says in the span who asked, and how the request ended. What a client did wrong is no error of the server's.
fn say_end(span: &Span, key: Option<&KeyName>, status: StatusCode, problem: Option<&str>) {
    if let Some(key) = key {
        span.record("medsearch.key", key.as_str());
    }
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.record("error.type", problem.unwrap_or(status.as_str()));
        span.record("otel.status_code", "error");
    }
}

/// What the log says about a request: never its path, query, body or the ids in them, and of a key its name.
struct Line {
    id: String,
    trace_id: String,
    here: TraceParent,
    method: &'static str,
    quiet: bool,
    host_by_tls: bool,
}

impl Line {
    fn write(
        &self,
        state: &State,
        route: &str,
        key: Option<&KeyName>,
        status: StatusCode,
        problem: Option<&str>,
        took: Duration,
    ) {
        state.metrics.request(route, self.method, status.as_u16(), took);
        let (request_id, trace_id, method) = (&self.id, &self.trace_id, self.method);
        let (key, status, ms) = (key.map(KeyName::as_str), status.as_u16(), took.as_millis() as u64);
        if self.quiet {
            tracing::debug!(
                request_id, trace_id, method, route, key, status, ms, problem, "answered"
            );
        } else {
            tracing::info!(
                request_id, trace_id, method, route, key, status, ms, problem, "answered"
            );
        }
    }
}

/// What every answer carries: its id, and what it may do in a browser. One of the API also says how long it took and in which trace.
fn add_headers(headers: &mut HeaderMap, line: &Line, api_took: Option<Duration>) {
    let id = HeaderValue::from_str(&line.id).expect("an id is checked or made of hex digits");
    headers.insert(REQUEST_ID, id);
    if let Some(took) = api_took {
        headers.insert(SERVER_TIMING, server_timing(took));
        headers.append(SERVER_TIMING, server_span_of(&line.here));
    }
    headers::add(headers, line.host_by_tls);
}

/// How long a body may take as a whole.
fn body_time_max(path: &str) -> Duration {
    if path.starts_with(STUDIES) {
        STUDY_TIME_MAX
    } else {
        BODY_TIME_MAX
    }
}

/// Milliseconds, as browsers show them.
fn server_timing(took: Duration) -> HeaderValue {
    let text = format!("total;dur={:.3}", took.as_secs_f64() * 1000.0);
    HeaderValue::from_str(&text).expect("digits and punctuation are a header")
}

/// The trace and this server's span.
fn server_span_of(here: &TraceParent) -> HeaderValue {
    HeaderValue::from_str(&format!("{TRACEPARENT};desc=\"{here}\"")).expect("digits and punctuation are a header")
}

/// The client's id if it is short and harmless in a log, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let harmless = |id: &&str| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    let given = headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(harmless);
    given.map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned)
}

/// A method as a label: anyone can invent methods, a time series for each would fill the memory.
fn known_method(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    known.into_iter().find(|name| method == name).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use actix_web::test::TestRequest;
    use tracing::field::{Field, Visit};
    use tracing::span;
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt};
    use tracing_subscriber::util::SubscriberInitExt;

    use super::*;

    /// What is said in spans after they began, as `field=value`.
    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<String>>>);

    impl Visit for Said {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            self.0.lock().unwrap().push(format!("{field}={value:?}"));
        }
    }

    impl<S: tracing::Subscriber> Layer<S> for Said {
        fn on_record(&self, _: &span::Id, values: &span::Record<'_>, _: Context<'_, S>) {
            values.record(&mut self.clone());
        }
    }

    #[test]
    fn a_span_says_by_which_key_and_how_it_ended() {
        let said = Said::default();
        let _here = tracing_subscriber::registry().with(said.clone()).set_default();
        let request = TestRequest::get().uri("/v1/archive").to_srv_request();
        let key: KeyName = "guest".parse().unwrap();
        say_end(
            &server_span(&request, None),
            Some(&key),
            StatusCode::SERVICE_UNAVAILABLE,
            Some("unavailable"),
        );
        let said = said.0.lock().unwrap().join(" ");
        for field in [
            r#"medsearch.key="guest""#,
            "http.response.status_code=503",
            r#"error.type="unavailable""#,
            r#"otel.status_code="error""#,
        ] {
            assert!(said.contains(field), "no `{field}` in `{said}`");
        }
    }

    #[test]
    fn only_harmless_ids_are_taken_over() {
        for (given, taken) in [
            ("abc-1_2.3", true),
            ("", false),
            ("a b", false),
            ("a\tb", false),
            (&"x".repeat(65), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(given).unwrap());
            assert_eq!(request_id(&headers) == given, taken, "{given}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }

    #[test]
    fn invented_methods_share_a_label() {
        assert_eq!(known_method(&Method::from_bytes(b"BREW").unwrap()), "other");
        assert_eq!(known_method(&Method::PATCH), "PATCH");
    }
}
