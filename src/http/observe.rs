//! Around every request: its id, the in-flight limit, one log line, metrics, and the problem document if it failed.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::web;
use futures_util::FutureExt;
use tracing::Instrument;

use super::body::Unread;
use super::{State, problem};
use crate::error::{Error, ErrorKind, Result};

/// The header that names a request, in requests and answers.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Time from the request's head to its answer, body and JSON included (W3C Server Timing): what a client's own clock shows beyond it is the network.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Longest id that is taken over from a request.
const REQUEST_ID_BYTES_MAX: usize = 64;
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
    let line = Line {
        id: request_id(request.headers()),
        method: known_method(request.method()),
        quiet: OPERATIONS.contains(&request.path()),
    };
    let api = request.path().starts_with("/v1/");
    let unread = Unread::of(&mut request);

    // Before the body is read; the permit is held until the answer is there.
    let answered = match if line.quiet { Ok(None) } else { state.admit().map(Some) } {
        Err(error) => Ok(request.error_response(error)),
        Ok(_permit) => {
            let span = tracing::info_span!("request", request_id = %line.id);
            let answer = AssertUnwindSafe(next.call(request))
                .catch_unwind()
                .instrument(span)
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
            let (mut response, problem) = problem::finish(response, &line.id);
            let took = started.elapsed();
            add_headers(response.headers_mut(), &line.id, api.then_some(took));
            line.write(&state, &route, response.status(), problem, took);
            Ok(match unread {
                Some(unread) if !response.status().is_success() => response.map_body(|_, body| unread.left_by(body)),
                _ => response,
            })
        }
        // The request is lost with the handler, and with it the way to an ordinary response.
        Err(error) => {
            tracing::error!(request_id = line.id, error = %error, "request failed");
            let mut response = problem::answer(ErrorKind::Internal, "", &line.id);
            let took = started.elapsed();
            add_headers(response.headers_mut(), &line.id, api.then_some(took));
            line.write(
                &state,
                UNMATCHED,
                response.status(),
                Some(ErrorKind::Internal.slug()),
                took,
            );
            Err(InternalError::from_response(error.to_string(), response).into())
        }
    }
}

/// What the log says about a request: never its path, query, body or the ids in them.
struct Line {
    id: String,
    method: &'static str,
    quiet: bool,
}

impl Line {
    fn write(&self, state: &State, route: &str, status: StatusCode, problem: Option<&str>, took: Duration) {
        state.metrics.request(route, self.method, status.as_u16(), took);
        let (request_id, method, status, ms) = (&self.id, self.method, status.as_u16(), took.as_millis() as u64);
        if self.quiet {
            tracing::debug!(request_id, method, route, status, ms, problem, "answered");
        } else {
            tracing::info!(request_id, method, route, status, ms, problem, "answered");
        }
    }
}

/// What every answer carries: its id, and that no other site may use it. One of the API also says how long it took, and is not to be kept.
fn add_headers(headers: &mut HeaderMap, id: &str, api_took: Option<Duration>) {
    let id = HeaderValue::from_str(id).expect("an id is checked or made of hex digits");
    headers.insert(REQUEST_ID, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        header::CROSS_ORIGIN_RESOURCE_POLICY,
        HeaderValue::from_static("same-origin"),
    );
    // Pages bring a policy of their own; anything else, a problem too, is no page and belongs in nobody's frame.
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
        headers.insert(header::CONTENT_SECURITY_POLICY, nothing);
    }
    if let Some(took) = api_took {
        headers.insert(SERVER_TIMING, server_timing(took));
        if !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }
}

/// Milliseconds, as browsers show them.
fn server_timing(took: Duration) -> HeaderValue {
    let text = format!("total;dur={:.3}", took.as_secs_f64() * 1000.0);
    HeaderValue::from_str(&text).expect("digits and punctuation are a header")
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
    use super::*;

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
