//! Which requests leave a line in the audit, and what it says. What changes the archive, or needs an admin, is on record before it is done, or it is not done.
//!
//! `routes` has the decision for each route (pure), `touched` how an endpoint names the images that it is about. This middleware stands inside of the guard, so
//! that it knows who asks; the guard hands it what is turned away.

mod routes;
mod touched;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpRequest, web};
use tokio::sync::watch;

use self::routes::Audited;
use super::access::{KeyName, Refusal};
use super::observe::{RequestId, key_of};
use super::{State, problem};
use crate::audit::{Action, Answered, Audit, Event, EventId, Stage, Who};
use crate::error::Result;
use crate::metrics::RefusalReason;
use touched::{Query, Touched};
pub(super) use touched::{asked_about, count, images, patient, query, version};

/// Refused requests that have a line each in [`WINDOW`]. Whoever sends more, and needs no key for it, shall not fill the disk: they are counted together.
const REFUSALS_MAX: usize = 60;
/// Time in which they are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// The audit as the service writes it.
#[derive(Debug)]
pub struct Auditor {
    audit: Audit,
    refusals: Mutex<Refusals>,
}

impl Auditor {
    /// Writes into this audit.
    pub fn new(audit: Audit) -> Self {
        Self {
            audit,
            refusals: Mutex::default(),
        }
    }

    /// The audit.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Tells of what is due, and tries again what failed: to be called now and then.
    pub fn tick(&self) {
        let unlisted = self.refusals().take_unlisted(Instant::now());
        if unlisted > 0 {
            self.audit.note(more_refused(unlisted));
        }
        self.audit.look();
    }

    /// Tells of what is left.
    pub fn end(&self) {
        let unlisted = std::mem::take(&mut self.refusals().unlisted);
        if unlisted > 0 {
            self.audit.note(more_refused(unlisted));
        }
    }

    /// Notes each change of the keys file, until nobody changes it any more.
    pub async fn follow_keys(&self, mut changes: watch::Receiver<usize>) {
        while changes.changed().await.is_ok() {
            let keys = *changes.borrow_and_update();
            self.audit.note(Event {
                action: Action::Update,
                dicom: EventId::SecurityAlert,
                count: u64::try_from(keys).ok(),
                ..Event::of_server("keysFile")
            });
        }
    }

    fn refusals(&self) -> std::sync::MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the latest refused requests came, and how many have no line of their own.
#[derive(Debug, Default)]
struct Refusals {
    latest: VecDeque<Instant>,
    unlisted: u64,
}

impl Refusals {
    /// Whether this one has a line of its own.
    fn list(&mut self, now: Instant) -> bool {
        self.forget(now);
        if self.latest.len() >= REFUSALS_MAX {
            self.unlisted += 1;
            return false;
        }
        self.latest.push_back(now);
        true
    }

    /// Those that had none, once there is room for a line again.
    fn take_unlisted(&mut self, now: Instant) -> u64 {
        self.forget(now);
        match self.latest.len() < REFUSALS_MAX {
            true => std::mem::take(&mut self.unlisted),
            false => 0,
        }
    }

    fn forget(&mut self, now: Instant) {
        while self
            .latest
            .front()
            .is_some_and(|first| now.duration_since(*first) >= WINDOW)
        {
            self.latest.pop_front();
        }
    }
}

fn more_refused(requests: u64) -> Event {
    Event {
        count: Some(requests),
        ..Event::new("refused", EventId::SecurityAlert, Action::Execute, Who::Unknown)
    }
}

/// The middleware. A request whose line can't be written is refused where the line has to come first.
pub async fn audited(
    state: web::Data<State>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let row = request
        .match_pattern()
        .and_then(|pattern| routes::of(request.method().as_str(), &pattern));
    let (Some(auditor), Some(row)) = (&state.auditor, row) else {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    };
    let audit = auditor.audit.clone();
    let event = event_of(row, &state, request.request());
    let stage = if row.first {
        let begun = Event {
            stage: Stage::Begun,
            ..event.clone()
        };
        match audit.append(begun).await {
            Ok(seq) => Stage::Ended(seq),
            Err(error) => return Ok(request.error_response(error)),
        }
    } else {
        Stage::Whole
    };
    let touched = Touched::new(audit.clone());
    let mut open = Open {
        audit,
        touched: touched.clone(),
        event: Some(Event { stage, ..event }),
    };
    let answered = touched.scope(next.call(request)).await;
    let (status, kind) = match &answered {
        Ok(response) => (response.status(), problem::kind_of(response.response())),
        Err(error) => (error.as_response_error().status_code(), None),
    };
    let Some(event) = open.close(Answered {
        status: Some(status.as_u16()),
        problem: kind.map(|kind| kind.slug()),
    }) else {
        return answered.map(ServiceResponse::map_into_boxed_body);
    };
    let event = Event {
        version: event.version.or_else(|| Some(state.engine.version())),
        ..event
    };
    if !row.first {
        auditor.audit.note(event);
    } else if let Err(error) = auditor.audit.append(event).await {
        // It is done, or not, and the line says neither: whoever asked has to look.
        let (request, _) = answered?.into_parts();
        return Ok(ServiceResponse::from_err(error, request));
    }
    answered.map(ServiceResponse::map_into_boxed_body)
}

/// A request that the guard turned away.
pub fn refused(state: &State, request: &ServiceRequest, refusal: &Refusal) {
    let Some(auditor) = &state.auditor else {
        return;
    };
    if !auditor.refusals().list(Instant::now()) {
        return;
    }
    let pattern = request.match_pattern();
    let operation = pattern.and_then(|pattern| routes::name_of(request.method().as_str(), &pattern));
    let kind = refusal.error().kind();
    let dicom = match refusal.reason() {
        RefusalReason::InsufficientScope | RefusalReason::ForbiddenOrigin => EventId::SecurityAlert,
        _ => EventId::UserAuthentication,
    };
    let named = key_of(request.request()).map(|name| Who::Named(name.as_str().into()));
    auditor.audit.note(Event {
        refused: Some((refusal.reason().as_str(), operation)),
        answered: Some(Answered {
            status: Some(problem::status(kind).as_u16()),
            problem: Some(kind.slug()),
        }),
        request: id_of(request.request()),
        ..Event::new("refused", dicom, Action::Execute, named.unwrap_or(Who::Unknown))
    });
}

/// Somebody signed in or out on the page, or came back from the issuer and was not let in (`who` none).
pub fn signed(state: &State, request: &HttpRequest, what: &'static str, who: Option<&KeyName>) {
    let Some(auditor) = &state.auditor else {
        return;
    };
    if who.is_none() && !auditor.refusals().list(Instant::now()) {
        return;
    }
    let named = who.map_or(Who::Unknown, |name| Who::Named(name.as_str().into()));
    auditor.audit.note(Event {
        refused: who.is_none().then(|| (RefusalReason::Login.as_str(), Some(what))),
        request: id_of(request),
        ..Event::new(
            if who.is_none() { "refused" } else { what },
            EventId::UserAuthentication,
            Action::Execute,
            named,
        )
    });
}

fn event_of(row: &Audited, state: &State, request: &HttpRequest) -> Event {
    let who = match key_of(request) {
        Some(name) => Who::Named(name.as_str().into()),
        None if state.settings.credentials.is_none() => Who::Loopback,
        None => Who::Unknown,
    };
    Event {
        request: id_of(request),
        ..Event::new(row.what, row.dicom, row.action, who)
    }
}

fn id_of(request: &HttpRequest) -> Option<String> {
    request.extensions().get::<RequestId>().map(|id| id.0.clone())
}

/// An event that has begun. One that nobody closes, since the caller went away, is noted as not answered.
struct Open {
    audit: Audit,
    touched: Touched,
    event: Option<Event>,
}

impl Open {
    fn close(&mut self, answered: Answered) -> Option<Event> {
        let mut event = self.event.take()?;
        self.touched.put_into(&mut event);
        event.answered = Some(answered);
        Some(event)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let unanswered = Answered {
            status: None,
            problem: None,
        };
        if let Some(event) = self.close(unanswered) {
            self.audit.note(event);
        }
    }
}

/// A query by an uploaded picture: the same file is the same query.
pub(super) fn query_by_image(bytes: &[u8]) {
    query(Query::Image, &[bytes]);
}

/// A query by a vector.
pub(super) fn query_by_vector(vector: &[f32]) {
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    query(Query::Vector, &[&bytes]);
}

/// Pictures that are embedded: one alone is the same query as in a search.
pub(super) fn query_by_images(files: &[bytes::Bytes]) {
    let parts: Vec<&[u8]> = files.iter().map(AsRef::as_ref).collect();
    query(Query::Image, &parts);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_refused_requests_have_a_line_and_the_others_are_counted() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        let listed = (0..REFUSALS_MAX + 7).filter(|_| refusals.list(start)).count();
        assert_eq!(listed, REFUSALS_MAX);
        assert_eq!(refusals.take_unlisted(start + Duration::from_secs(59)), 0);
        assert_eq!(refusals.take_unlisted(start + WINDOW), 7);
        assert_eq!(refusals.take_unlisted(start + WINDOW), 0);
        assert!(refusals.list(start + WINDOW));
    }
}
