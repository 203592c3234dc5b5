//! `POST`, `GET /v1/feedback`, `DELETE /v1/feedback/{id}`: reports that a label is wrong. Whoever may search may write one; what was written is shown to
//! an admin, and by a server that may write only, so not by one that is open to searches alone.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::{Data, Json, Path, Query};

use super::wire::{FeedbackList, FeedbackPage, FeedbackReceipt, NewFeedback};
use super::{State, audited, problem};
use crate::archive::{FeedbackId, NewReport};
use crate::error::{Error, ErrorKind, Result};

/// Reports taken in [`WINDOW`]: a person writes fewer, and a program would use up the room in hours, not in seconds.
const PER_WINDOW_MAX: usize = 60;
/// Time in which they are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// When the latest reports came.
#[derive(Default)]
pub struct Pace(Mutex<VecDeque<Instant>>);

impl Pace {
    fn admit(&self, now: Instant) -> Result<()> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while latest.front().is_some_and(|first| now.duration_since(*first) >= WINDOW) {
            latest.pop_front();
        }
        if latest.len() >= PER_WINDOW_MAX {
            let until_one_is_old = latest
                .front()
                .map_or(WINDOW, |first| WINDOW - now.duration_since(*first));
            let error = Error::new(ErrorKind::Overloaded, "too many reports in a minute");
            return Err(error.retry_after(until_one_is_old));
        }
        latest.push_back(now);
        Ok(())
    }
}

/// Report that an image's label is wrong.
///
/// The report goes to whoever runs the archive: no search shows it, and a key needs the scope `admin` to read it. It is stored, encrypted, when this answers. It goes when it is resolved,
/// or with the image. At most 10,000 are open, 20 of one image (507), and 60 taken in a minute (429).
#[utoipa::path(
    post,
    path = "/v1/feedback",
    tag = "archive",
    operation_id = "reportLabel",
    request_body = NewFeedback,
    responses((status = 201, description = "It is stored, durably", body = FeedbackReceipt), problem::Reporting)
)]
pub async fn add(state: Data<State>, feedback: Json<NewFeedback>) -> Result<HttpResponse> {
    state.writer()?;
    let feedback = feedback.into_inner();
    let (image, suggested) = feedback.parts()?;
    audited::images([image]);
    let record = state.engine.record(image);
    let record =
        record.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no image `{image}` in this archive")))?;
    let classes = state.engine.overview().classes;
    if let Some(class) = &suggested
        && !classes.iter().any(|(known, _)| known == class)
    {
        return Err(Error::new(
            ErrorKind::UnknownClass,
            "`suggested` is one of the archive's classes, or null",
        ));
    }
    let report = NewReport::new(image, record.class.clone(), suggested, &feedback.reason)?;
    state.reports.admit(Instant::now())?;
    let report = state.in_time(state.engine.parts().archive.report(&report)).await?;
    state.metrics.report();
    Ok(HttpResponse::Created().json(FeedbackReceipt::from(&report)))
}

/// The open reports, those of one image together.
#[utoipa::path(
    get,
    path = "/v1/feedback",
    tag = "archive",
    operation_id = "listFeedback",
    params(FeedbackPage),
    responses((status = 200, description = "What was reported", body = FeedbackList), problem::ListingReports)
)]
pub async fn list(state: Data<State>, page: Query<FeedbackPage>) -> Result<HttpResponse> {
    state.writer()?;
    let (after, limit) = page.parts()?;
    let reports = state
        .in_time(state.engine.parts().archive.reports(after, limit))
        .await?;
    audited::images(reports.open.iter().map(|report| report.id.image));
    // Those of an image that is gone wait to be erased.
    let there = |image| state.engine.record(image).is_some();
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "private, no-store"))
        .json(FeedbackList::new(&reports, there)))
}

/// Close a report: it is deleted.
#[utoipa::path(
    delete,
    path = "/v1/feedback/{id}",
    tag = "archive",
    operation_id = "resolveFeedback",
    params(("id" = String, Path, description = "The report", pattern = "^[0-9a-f]{36}-[0-9a-f]{32}$")),
    responses((status = 200, description = "It is gone", body = FeedbackReceipt), problem::Deleting)
)]
pub async fn resolve(state: Data<State>, id: Path<String>) -> Result<Json<FeedbackReceipt>> {
    state.writer()?;
    let id: FeedbackId = id.parse()?;
    audited::images([id.image]);
    state.engine.parts().archive.resolve(id).await?;
    Ok(Json(FeedbackReceipt {
        id: id.to_string(),
        image: id.image.to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_takes_so_many_and_the_next_as_many_again() {
        let (pace, start) = (Pace::default(), Instant::now());
        for _ in 0..PER_WINDOW_MAX {
            pace.admit(start).unwrap();
        }
        let late = start + Duration::from_secs(59);
        let refused = pace.admit(late).unwrap_err();
        assert_eq!(
            (refused.kind(), refused.retry_after_s()),
            (ErrorKind::Overloaded, Some(1))
        );
        assert_eq!(pace.admit(start).unwrap_err().retry_after_s(), Some(60));
        assert!(pace.admit(start + WINDOW).is_ok());
    }
}
