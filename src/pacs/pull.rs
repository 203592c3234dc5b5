//! From a reference to a file: asked of one PACS by QIDO-RS and WADO-RS (PS3.18, 10.6 and 10.4).

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::choose::{self, Instance, image_instances, middle, series_with_images};
use super::client::{Answer, Pacs};
use super::multipart::{OVERHEAD_BYTES_MAX, dicom_file};
use super::part10;
use super::reference::Reference;
use crate::domain::Uid;
use crate::error::{Error, ErrorKind, Result};

/// Most bytes of an answer to a query.
const LIST_BYTES_MAX: usize = 16 << 20;
/// Most series of a study that are listed.
const SERIES_MAX: usize = 500;
/// Most instances of a series that are listed.
const INSTANCES_MAX: usize = 5000;
/// Series of a study whose instances are looked at: the first have images, or hardly any has.
const SERIES_TRIED_MAX: usize = 8;

/// Any transfer syntax: the file as it is stored.
const ANY_FILE: &str =
    "multipart/related; type=\"application/dicom\"; transfer-syntax=*, application/dicom; transfer-syntax=*; q=0.5";
const LIST: &str = "application/dicom+json, application/json; q=0.9";

/// A file from a PACS. `Debug` shows its size only.
pub struct Pulled {
    /// The file, as the PACS keeps it.
    pub bytes: Bytes,
    /// Which instance it is, where the reference left that open.
    pub chosen: Option<Chosen>,
    /// Time that all of it took.
    pub took: Duration,
}

/// Which instance stands for a study or a series. It is told by numbers, because a UID may say whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// Series Number, where it has one.
    pub series_number: Option<i64>,
    /// Instance Number, where it has one.
    pub instance_number: Option<i64>,
    /// Its place among the images of its series, from 1.
    pub position: usize,
    /// Images of its series.
    pub images: usize,
}

/// Where a file is.
struct Place {
    series: Uid,
    instance: Uid,
    chosen: Option<Chosen>,
}

impl Pacs {
    /// The instance that `reference` names; of a study or a series the middle image of the first series with images. Nothing is kept.
    ///
    /// # Errors
    /// `NotFound` when the PACS does not have it, or has no image of it; `TooLarge` beyond `bytes_max`; `Deadline`; `PacsFailed` and `Unavailable` when it
    /// can't be asked.
    pub async fn pull(&self, reference: &Reference, bytes_max: usize, deadline: Instant) -> Result<Pulled> {
        let started = Instant::now();
        let place = self.place(reference, deadline).await?;
        let (series, instance) = (place.series.as_str(), place.instance.as_str());
        let parts = [
            "studies",
            reference.study.as_str(),
            "series",
            series,
            "instances",
            instance,
        ];
        let most = bytes_max.saturating_add(OVERHEAD_BYTES_MAX);
        let answer = self.get(&parts, &[], ANY_FILE, most, deadline).await?;
        if answer.body.is_empty() {
            return Err(self.missing());
        }
        let bytes = dicom_file(&answer.content_type, &answer.body)?;
        if bytes.len() > bytes_max {
            let message = format!(
                "the file of the PACS `{}` has more than `{bytes_max}` bytes",
                self.name()
            );
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        if part10::sop_instance_uid(&bytes).is_some_and(|uid| uid != place.instance.as_str().as_bytes()) {
            return Err(self.failed("sends another instance than it was asked for"));
        }
        Ok(Pulled {
            bytes,
            chosen: place.chosen,
            took: started.elapsed(),
        })
    }

    async fn place(&self, reference: &Reference, deadline: Instant) -> Result<Place> {
        match (&reference.series, &reference.instance) {
            (Some(series), Some(instance)) => Ok(Place {
                series: series.clone(),
                instance: instance.clone(),
                chosen: None,
            }),
            (None, Some(instance)) => self.series_of(&reference.study, instance, deadline).await,
            (Some(series), None) => {
                let place = self.middle_of(&reference.study, series, None, deadline).await?;
                place.ok_or_else(|| self.no_image("series"))
            }
            (None, None) => self.middle_of_study(&reference.study, deadline).await,
        }
    }

    /// The series that an instance is of: WADO-RS wants to know it.
    async fn series_of(&self, study: &Uid, instance: &Uid, deadline: Instant) -> Result<Place> {
        let query = [
            (choose::SOP_UID, instance.as_str()),
            ("includefield", choose::SERIES_UID),
            ("limit", "2"),
        ];
        let list = self
            .list(&["studies", study.as_str(), "instances"], &query, deadline)
            .await?;
        let found = image_instances(&list.body)?
            .into_iter()
            .find(|found| found.uid == *instance);
        let series = found.and_then(|found| found.series).ok_or_else(|| self.missing())?;
        Ok(Place {
            series,
            instance: instance.clone(),
            chosen: None,
        })
    }

    async fn middle_of_study(&self, study: &Uid, deadline: Instant) -> Result<Place> {
        let most = SERIES_MAX.to_string();
        let query = [
            ("includefield", choose::MODALITY),
            ("includefield", choose::SERIES_NUMBER),
            ("limit", most.as_str()),
        ];
        let list = self
            .list(&["studies", study.as_str(), "series"], &query, deadline)
            .await?;
        for series in series_with_images(&list.body)?.into_iter().take(SERIES_TRIED_MAX) {
            if let Some(place) = self.middle_of(study, &series.uid, series.number, deadline).await? {
                return Ok(place);
            }
        }
        Err(self.no_image("study"))
    }

    /// The middle image of a series, if it has one.
    async fn middle_of(
        &self,
        study: &Uid,
        series: &Uid,
        series_number: Option<i64>,
        deadline: Instant,
    ) -> Result<Option<Place>> {
        let most = INSTANCES_MAX.to_string();
        let query = [
            ("includefield", choose::SOP_CLASS),
            ("includefield", choose::INSTANCE_NUMBER),
            ("limit", most.as_str()),
        ];
        let parts = ["studies", study.as_str(), "series", series.as_str(), "instances"];
        let mut images = image_instances(&self.list(&parts, &query, deadline).await?.body)?;
        // Which of more would come is the PACS's choice, and may be another one tomorrow.
        if images.len() >= INSTANCES_MAX {
            let message = format!("the series has `{INSTANCES_MAX}` instances or more: name one of them");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let count = images.len();
        let Some(at) = middle(count) else { return Ok(None) };
        let Instance { number, uid, .. } = images.swap_remove(at);
        Ok(Some(Place {
            series: series.clone(),
            instance: uid,
            chosen: Some(Chosen {
                series_number,
                instance_number: number,
                position: at + 1,
                images: count,
            }),
        }))
    }

    /// The answer to a query; an empty list where the PACS says that nothing matches.
    async fn list(&self, parts: &[&str], query: &[(&str, &str)], deadline: Instant) -> Result<Answer> {
        let mut answer = self.get(parts, query, LIST, LIST_BYTES_MAX, deadline).await?;
        if answer.body.is_empty() {
            answer.body = Bytes::from_static(b"[]");
        }
        Ok(answer)
    }

    fn missing(&self) -> Error {
        let message = format!("the PACS `{}` does not have this", self.name());
        Error::new(ErrorKind::NotFound, message)
    }

    fn no_image(&self, what: &str) -> Error {
        let message = format!("the PACS `{}` has no image of this {what}", self.name());
        Error::new(ErrorKind::NotFound, message)
    }
}
