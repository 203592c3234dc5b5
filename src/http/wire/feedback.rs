//! Shapes of reports about labels.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::archive::{FeedbackId, REASON_CHARACTERS_MAX, Report, Reports};
use crate::domain::{ClassLabel, ImageId};
use crate::error::{Error, ErrorKind, Result};

/// Reports in an answer unless said otherwise.
const LIMIT: usize = 100;
/// Most reports in an answer.
const LIMIT_MAX: usize = 1000;

/// A report that a label is wrong.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewFeedback {
    /// The image, 36 hex digits.
    #[schema(pattern = "^[0-9a-f]{36}$")]
    pub image: String,
    /// The class that would be right, one of the archive's; null: not sure.
    pub suggested: Option<String>,
    /// Why, in 1 to 500 characters. It shall name no patient: whoever has an admin's key can read it.
    #[schema(min_length = 1, max_length = 500)]
    pub reason: String,
}

const _: () = assert!(REASON_CHARACTERS_MAX == 500, "as the description says");

impl NewFeedback {
    /// The image and the suggested class.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub fn parts(&self) -> Result<(ImageId, Option<ClassLabel>)> {
        let class = self.suggested.as_deref().map(ClassLabel::parse).transpose();
        Ok((
            self.image.parse().map_err(|error: Error| error.context("`image`"))?,
            class.map_err(|error| error.context("`suggested`"))?,
        ))
    }
}

/// A report that was stored, or deleted.
#[derive(Debug, Serialize, ToSchema)]
pub struct FeedbackReceipt {
    /// The report.
    pub id: String,
    /// The image.
    pub image: String,
}

impl From<&Report> for FeedbackReceipt {
    fn from(report: &Report) -> Self {
        Self {
            id: report.id.to_string(),
            image: report.id.image.to_string(),
        }
    }
}

/// Which of the reports.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FeedbackPage {
    /// Those behind this report: `next` of the answer before.
    pub after: Option<String>,
    /// How many, 1 to 1000, default 100.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
}

impl FeedbackPage {
    /// Where to begin, and how many.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub fn parts(&self) -> Result<(Option<FeedbackId>, usize)> {
        let limit = self.limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            let message = format!("`limit` is 1 to {LIMIT_MAX}");
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        Ok((self.after.as_deref().map(str::parse).transpose()?, limit))
    }
}

/// Open reports.
#[derive(Serialize, ToSchema)]
pub struct FeedbackList {
    /// Those of one image together.
    pub reports: Vec<FeedbackReport>,
    /// Reports that can't be read.
    pub unreadable: Vec<String>,
    /// What to give as `after` for those behind; null: these were the last.
    #[schema(required)]
    pub next: Option<String>,
}

/// A report.
#[derive(Serialize, ToSchema)]
pub struct FeedbackReport {
    /// Its name.
    pub id: String,
    /// The image.
    pub image: String,
    /// The class that the image had when it was written.
    #[schema(required)]
    pub class: Option<String>,
    /// The class that would be right; null: not sure.
    #[schema(required)]
    pub suggested: Option<String>,
    /// Why, as it was written.
    pub reason: String,
    /// RFC 3339 time at which it came.
    pub reported_at: String,
}

impl FeedbackList {
    /// Reports about images that are `there`.
    pub fn new(reports: &Reports, there: impl Fn(ImageId) -> bool) -> Self {
        let name = |class: &Option<ClassLabel>| class.as_ref().map(ToString::to_string);
        let open = reports.open.iter().filter(|report| there(report.id.image));
        Self {
            reports: open
                .map(|report| FeedbackReport {
                    id: report.id.to_string(),
                    image: report.id.image.to_string(),
                    class: name(&report.class),
                    suggested: name(&report.suggested),
                    reason: report.reason.clone(),
                    reported_at: report.reported_at.to_string(),
                })
                .collect(),
            unreadable: reports.unreadable.iter().map(ToString::to_string).collect(),
            next: reports.last.filter(|_| reports.more).map(|id| id.to_string()),
        }
    }
}
