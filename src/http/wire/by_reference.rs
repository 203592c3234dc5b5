//! What clients send to a search by an image of a PACS.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::ask::{Options, invalid, parse_region, take};
use crate::domain::{FrameNumber, Region, Uid};
use crate::error::{Error, Result};
use crate::pacs::Reference;

/// A search by an image of a PACS.
#[derive(Deserialize, ToSchema)]
#[serde(try_from = "Map<String, Value>")]
pub struct ByReference {
    /// Name of the PACS, as this server's operator configured it.
    #[schema(example = "main")]
    pacs: Option<String>,
    /// Study Instance UID. Sent to the PACS, never logged.
    #[schema(example = "1.2.3")]
    study_uid: Option<String>,
    /// Series Instance UID; without an instance, its middle image is searched for.
    series_uid: Option<String>,
    /// SOP Instance UID; without it, the middle image of the series, or of the study's first series with images.
    instance_uid: Option<String>,
    /// In place of the four: the RetrieveURL of a study, a series or an instance at a configured PACS (`URL/studies/UID[/series/UID[/instances/UID]]`). It is
    /// taken apart and never fetched as it stands; where both are given they must say the same.
    retrieve_url: Option<String>,
    /// Which frame of the file, counted from 1. Default: the first.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 10_000, default = 1)]
    frame: Option<FrameNumber>,
    /// A part of the image as `x,y,width,height`, fractions of its width and height.
    #[schema(example = "0.25,0.25,0.5,0.5")]
    region: Option<String>,
    /// Give the picture back in `query.preview`.
    #[schema(default = false)]
    preview: Option<bool>,
    /// How to search.
    #[serde(flatten)]
    pub options: Options,
}

/// Where the image of a search by reference is.
#[derive(Debug, PartialEq, Eq)]
pub enum Referenced {
    /// At the PACS of this name.
    Named(String, Reference),
    /// Where this RetrieveURL says, if that is a configured PACS.
    Url {
        /// The URL.
        url: String,
        /// The name that was given too.
        pacs: Option<String>,
        /// The UIDs that were given too: study, series, instance.
        uids: [Option<Uid>; 3],
    },
}

impl ByReference {
    /// Where the image is, checked.
    ///
    /// # Errors
    /// `InvalidRequest` for what is no UID, and where something is missing.
    pub fn referenced(&self) -> Result<Referenced> {
        let uid = |name: &str, text: &Option<String>| {
            let parsed = text.as_deref().map(str::parse::<Uid>).transpose();
            parsed.map_err(|error| error.context(format!("`{name}`")))
        };
        let study = uid("study_uid", &self.study_uid)?;
        let series = uid("series_uid", &self.series_uid)?;
        let instance = uid("instance_uid", &self.instance_uid)?;
        if let Some(url) = &self.retrieve_url {
            return Ok(Referenced::Url {
                url: url.clone(),
                pacs: self.pacs.clone(),
                uids: [study, series, instance],
            });
        }
        let missing = |name: &str| invalid(format!("missing field `{name}`"));
        let reference = Reference {
            study: study.ok_or_else(|| missing("study_uid"))?,
            series,
            instance,
        };
        Ok(Referenced::Named(
            self.pacs.clone().ok_or_else(|| missing("pacs"))?,
            reference,
        ))
    }

    /// The part of the image that is asked about.
    ///
    /// # Errors
    /// `InvalidRequest` for what is no region.
    pub fn region(&self) -> Result<Option<Region>> {
        self.region.as_deref().map(parse_region).transpose()
    }

    /// Which frame of the file is asked about.
    pub fn frame(&self) -> FrameNumber {
        self.frame.unwrap_or_default()
    }

    /// Whether the answer shall hold the picture.
    pub fn preview(&self) -> bool {
        self.preview.unwrap_or(false)
    }
}

impl TryFrom<Map<String, Value>> for ByReference {
    type Error = Error;

    fn try_from(mut object: Map<String, Value>) -> Result<Self> {
        Ok(Self {
            pacs: take(&mut object, "pacs")?,
            study_uid: take(&mut object, "study_uid")?,
            series_uid: take(&mut object, "series_uid")?,
            instance_uid: take(&mut object, "instance_uid")?,
            retrieve_url: take(&mut object, "retrieve_url")?,
            frame: take(&mut object, "frame")?,
            region: take(&mut object, "region")?,
            preview: take(&mut object, "preview")?,
            options: Options::from_json(object)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_reference_needs_a_pacs_and_a_study_or_a_url() {
        let referenced = |body: Value| {
            let Value::Object(object) = body else {
                panic!("an object")
            };
            ByReference::try_from(object).and_then(|asked| asked.region().and_then(|_| asked.referenced()))
        };
        let uid = |text: &str| Some(text.parse::<Uid>().unwrap());
        let whole = json!({"pacs": "main", "study_uid": "1.2", "series_uid": "3", "instance_uid": "4", "k": 3});
        let reference = Reference {
            study: uid("1.2").unwrap(),
            series: uid("3"),
            instance: uid("4"),
        };
        assert_eq!(referenced(whole).unwrap(), Referenced::Named("main".into(), reference));
        let url = referenced(json!({"retrieve_url": "https://x/studies/1", "series_uid": "3"})).unwrap();
        assert!(matches!(
            url,
            Referenced::Url {
                pacs: None,
                uids: [None, Some(_), None],
                ..
            }
        ));
        for (body, says) in [
            (json!({}), "missing field `study_uid`"),
            (json!({"pacs": "main"}), "missing field `study_uid`"),
            (json!({"study_uid": "1.2"}), "missing field `pacs`"),
            (
                json!({"pacs": "main", "study_uid": "../4711"}),
                "`study_uid`: a UID is digits",
            ),
            (
                json!({"pacs": "main", "study_uid": "1", "series_uid": "4711/"}),
                "`series_uid`: a UID",
            ),
            (
                json!({"pacs": "main", "study_uid": 4711}),
                "`study_uid`: expected a string",
            ),
            (
                json!({"pacs": "main", "study_uid": "1", "url": "http://x/"}),
                "unknown field `url`",
            ),
            (
                json!({"pacs": "main", "study_uid": "1", "region": "4711"}),
                "`region` is",
            ),
        ] {
            let error = referenced(body).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
            assert!(error.message().contains(says), "{error}");
            assert!(says == "`region` is" || !error.message().contains("4711"), "{error}");
        }
    }
}
