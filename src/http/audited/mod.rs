//! Which requests leave a line in the audit, and what it says. What changes the archive, or needs an admin, is on record before it is done, or it is not done.
//!
//! `routes` has the decision for each route (pure), `touched` how an endpoint names the images that it is about. This middleware stands inside of the guard, so
//! that it knows who asks; the guard hands it what is turned away.

mod routes;
mod touched;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpRequest, web};
use tokio::sync::watch;

use self::routes::Audited;
use super::access::KeyName;
use super::observe::{RequestId, key_of};
use super::{State, problem};
use crate::audit::{Action, Answered, Audit, Event, EventId, Stage, Who};
use crate::error::{ErrorKind, Result};
use crate::metrics::RefusalReason;
use crate::search::Level;
use touched::{Query, Touched};
pub(super) use touched::{asked_about, count, images, patient, query, version};

/// Refused requests of callers that are not known that have a line each in [`WINDOW`]. Whoever sends more, and needs no key for it, shall not fill the disk:
/// they are counted together.
const REFUSALS_MAX: usize = 60;
/// The same for each caller that is known. They have lines of their own, so that nobody who is not known crowds them out.
const NAMED_REFUSALS_MAX: usize = 20;
/// Callers whose refused requests are told apart. Those of more have lines together.
const NAMES_MAX: usize = 1024;
/// Time in which they are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// The audit as the service writes it.
#[derive(Debug)]
pub struct Auditor {
    audit: Audit,
    refusals: Mutex<Budgets>,
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
        self.note_unlisted(Some(Instant::now()));
        self.audit.look();
    }

    /// Tells of what is left.
    pub fn end(&self) {
        self.note_unlisted(None);
    }

    fn note_unlisted(&self, now: Option<Instant>) {
        let unlisted = self.refusals().take_unlisted(now);
        for (who, requests) in unlisted {
            self.audit.note(more_refused(who, requests));
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

    fn refusals(&self) -> std::sync::MutexGuard<'_, Budgets> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many lines are left for the refused requests of each caller, and of all that are not known together.
#[derive(Debug, Default)]
struct Budgets {
    unknown: Refusals,
    named: HashMap<Arc<str>, Refusals>,
    /// Of callers beyond [`NAMES_MAX`].
    further: Refusals,
}

impl Budgets {
    /// Whether this one has a line of its own.
    fn list(&mut self, who: &Who, now: Instant) -> bool {
        let Who::Named(name) = who else {
            return self.unknown.list(REFUSALS_MAX, now);
        };
        if self.named.len() >= NAMES_MAX && !self.named.contains_key(name) {
            return self.further.list(NAMED_REFUSALS_MAX, now);
        }
        let own = self.named.entry(Arc::clone(name)).or_default();
        own.list(NAMED_REFUSALS_MAX, now)
    }

    /// Those that had none, of callers for whom there is room again; without a time of all.
    fn take_unlisted(&mut self, now: Option<Instant>) -> Vec<(Who, u64)> {
        let mut unlisted = vec![
            (Who::Unknown, self.unknown.take_unlisted(REFUSALS_MAX, now)),
            (Who::Unknown, self.further.take_unlisted(NAMED_REFUSALS_MAX, now)),
        ];
        for (name, refusals) in &mut self.named {
            let requests = refusals.take_unlisted(NAMED_REFUSALS_MAX, now);
            unlisted.push((Who::Named(Arc::clone(name)), requests));
        }
        self.named.retain(|_, refusals| !refusals.is_over());
        unlisted.retain(|(_, requests)| *requests > 0);
        unlisted
    }
}

/// When the latest refused requests came, and how many have no line of their own.
#[derive(Debug, Default)]
struct Refusals {
    latest: VecDeque<Instant>,
    unlisted: u64,
}

impl Refusals {
    fn list(&mut self, lines_max: usize, now: Instant) -> bool {
        self.forget(now);
        if self.latest.len() >= lines_max {
            self.unlisted += 1;
            return false;
        }
        self.latest.push_back(now);
        true
    }

    fn take_unlisted(&mut self, lines_max: usize, now: Option<Instant>) -> u64 {
        if let Some(now) = now {
            self.forget(now);
            if self.latest.len() >= lines_max {
                return 0;
            }
        }
        std::mem::take(&mut self.unlisted)
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

    /// There is nothing left to count or to tell.
    fn is_over(&self) -> bool {
        self.latest.is_empty() && self.unlisted == 0
    }
}

fn more_refused(who: Who, requests: u64) -> Event {
    Event {
        count: Some(requests),
        ..Event::new("refused", EventId::SecurityAlert, Action::Execute, who)
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

/// A request that the guard turned away: why, and as what it was answered.
pub fn refused(state: &State, request: &ServiceRequest, reason: RefusalReason, kind: ErrorKind) {
    let Some(auditor) = &state.auditor else {
        return;
    };
    let named = key_of(request.request()).map(|name| Who::Named(name.as_str().into()));
    let who = named.unwrap_or(Who::Unknown);
    if !auditor.refusals().list(&who, Instant::now()) {
        return;
    }
    let pattern = request.match_pattern();
    let operation = pattern.and_then(|pattern| routes::name_of(request.method().as_str(), &pattern));
    let dicom = match reason {
        RefusalReason::InsufficientScope
        | RefusalReason::ForbiddenOrigin
        | RefusalReason::RateLimited
        | RefusalReason::ContentEncoding => EventId::SecurityAlert,
        _ => EventId::UserAuthentication,
    };
    auditor.audit.note(Event {
        refused: Some((reason.as_str(), operation)),
        answered: Some(Answered {
            status: Some(problem::status(kind).as_u16()),
            problem: Some(kind.slug()),
        }),
        request: id_of(request.request()),
        ..Event::new("refused", dicom, Action::Execute, who)
    });
}

/// Somebody signed in or out on the page, or came back from the issuer and was not let in (`who` none).
pub fn signed(state: &State, request: &HttpRequest, what: &'static str, who: Option<&KeyName>) {
    let Some(auditor) = &state.auditor else {
        return;
    };
    let named = who.map_or(Who::Unknown, |name| Who::Named(name.as_str().into()));
    if who.is_none() && !auditor.refusals().list(&named, Instant::now()) {
        return;
    }
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
    Event {
        request: id_of(request),
        ..Event::new(row.what, row.dicom, row.action, who(state, request))
    }
}

/// Who sent a request that was let in.
pub(super) fn who(state: &State, request: &HttpRequest) -> Who {
    match key_of(request) {
        Some(name) => Who::Named(name.as_str().into()),
        None if state.settings.credentials.is_none() => Who::Loopback,
        None => Who::Unknown,
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

/// A query by what patients and images were called before they came here: the names of each level, in their order. Whoever has the archive's secret can tell
/// whether it was one that they think of.
pub(super) fn query_by_names(names: &[(&'static str, &str)]) {
    query(Query::Names, &parts_of(names));
}

/// An image that is fetched from a PACS, by the UIDs that name it there.
pub(super) fn reference(pacs: &str, uids: &[(Level, &str)]) {
    let names: Vec<_> = uids.iter().map(|(level, uid)| (level_name(*level), *uid)).collect();
    touched::reference(pacs, &parts_of(&names));
}

/// What a level is called in digests.
pub(super) const fn level_name(level: Level) -> &'static str {
    match level {
        Level::Study => "study",
        Level::Series => "series",
        Level::Instance => "instance",
    }
}

fn parts_of<'a>(names: &[(&'static str, &'a str)]) -> Vec<&'a [u8]> {
    names
        .iter()
        .flat_map(|(what, name)| [what.as_bytes(), name.trim().as_bytes()])
        .collect()
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
        let (mut budgets, start) = (Budgets::default(), Instant::now());
        let listed = (0..REFUSALS_MAX + 7)
            .filter(|_| budgets.list(&Who::Unknown, start))
            .count();
        assert_eq!(listed, REFUSALS_MAX);
        assert!(budgets.take_unlisted(Some(start + Duration::from_secs(59))).is_empty());
        assert_eq!(budgets.take_unlisted(Some(start + WINDOW)), [(Who::Unknown, 7)]);
        assert!(budgets.take_unlisted(Some(start + WINDOW)).is_empty());
        assert!(budgets.list(&Who::Unknown, start + WINDOW));
    }

    #[test]
    fn nobody_crowds_out_the_lines_of_another_caller() {
        let (mut budgets, start) = (Budgets::default(), Instant::now());
        let named = |name: &str| Who::Named(name.into());
        for _ in 0..10 * REFUSALS_MAX {
            budgets.list(&Who::Unknown, start);
            budgets.list(&named("greedy"), start);
        }
        assert!(budgets.list(&named("guest"), start));
        let mut unlisted = budgets.take_unlisted(None);
        unlisted.sort_by_key(|(_, requests)| *requests);
        let of = |lines: usize| (10 * REFUSALS_MAX - lines) as u64;
        let expected = [
            (Who::Unknown, of(REFUSALS_MAX)),
            (named("greedy"), of(NAMED_REFUSALS_MAX)),
        ];
        assert_eq!(unlisted, expected);
        // What is over takes no memory, and callers without end take so much.
        budgets.take_unlisted(Some(start + WINDOW));
        assert!(budgets.named.is_empty());
        for name in 0..2 * NAMES_MAX {
            budgets.list(&named(&name.to_string()), start + WINDOW);
        }
        assert_eq!(budgets.named.len(), NAMES_MAX);
    }
}
