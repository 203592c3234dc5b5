//! What clients send to searches.

use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{ImageFile, NearIdentical, Vote};
use crate::domain::{Ask, ClassLabel, EXAMPLES_MAX, Exclude, FrameNumber, ImageId, K_MAX, Region, SpaceId, Wanted};
use crate::error::{Error, ErrorKind, Result};
use crate::http::problem::without_value;
use crate::http::upload::{FromParts, Parts, echo};
use crate::search::{QUERY_IDS_MAX, Upload};

/// Most images of one request for embeddings.
const EMBEDDINGS_MAX: usize = 16;

/// Options of every search. In a form a list is a repeated field, or one field with commas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
pub struct Options {
    /// Neighbors wanted. If left out, as many as the archive's calibration holds for, or 10 where there is none.
    #[schema(minimum = 1, maximum = 100)]
    k: Option<u64>,
    /// How they vote. If left out, as the archive's calibration has it, or `majority` where there is none.
    vote: Option<Vote>,
    /// Only these classes.
    #[schema(example = json!([]))]
    classes: Option<Vec<String>>,
    /// Only images of these sources.
    #[schema(example = json!([]))]
    sources: Option<Vec<String>>,
    /// What is kept out: images of the same `patient`, of the same `study`, with the same `pixels` (or, of an image of the archive, copies of its
    /// picture), or `none`; all three if left out.
    #[schema(example = json!(["patient", "study", "pixels"]))]
    exclude: Option<Vec<String>>,
    /// Not the images of these sources.
    #[schema(example = json!([]))]
    exclude_source: Option<Vec<String>>,
    /// Ids of images that the answer shall be more like, at most 16; left out of it as the same `pixels` are.
    #[schema(max_items = 16, example = json!([]))]
    liked: Option<Vec<String>>,
    /// Ids of images that it shall be less like, at most 16; left out of it in the same way.
    #[schema(max_items = 16, example = json!([]))]
    disliked: Option<Vec<String>>,
    /// Copies of a picture (equal pixels, or near-identical): `collapse` shows and counts them once, `keep` each of them (one per patient), `collapse` if
    /// left out.
    near_identical: Option<NearIdentical>,
    /// Compare with every image instead of walking a graph.
    #[schema(default = false)]
    exact: Option<bool>,
    /// Answer although a part of the archive is missing.
    #[schema(default = false)]
    allow_partial: Option<bool>,
    /// Lowest version of the archive that may answer; a version that is not served yet is waited for up to five seconds.
    #[schema(example = 1)]
    min_version: Option<u64>,
}

impl Options {
    fn from_parts(parts: &mut Parts) -> Result<Self> {
        Ok(Self {
            k: number(parts, "k")?,
            vote: parts.text("vote")?.map(|text| parse_vote(&text)).transpose()?,
            classes: list(parts, "classes"),
            sources: list(parts, "sources"),
            exclude: list(parts, "exclude"),
            exclude_source: list(parts, "exclude_source"),
            liked: list(parts, "liked"),
            disliked: list(parts, "disliked"),
            near_identical: parts
                .text("near_identical")?
                .map(|text| parse_near_identical(&text))
                .transpose()?,
            exact: flag(parts, "exact")?,
            allow_partial: flag(parts, "allow_partial")?,
            min_version: number(parts, "min_version")?,
        })
    }

    /// Takes the options out of a JSON object; what is left over was not known.
    pub(super) fn from_json(mut object: Map<String, Value>) -> Result<Self> {
        let options = Self {
            k: take(&mut object, "k")?,
            vote: take::<String>(&mut object, "vote")?
                .map(|text| parse_vote(&text))
                .transpose()?,
            classes: take(&mut object, "classes")?,
            sources: take(&mut object, "sources")?,
            exclude: take_words(&mut object, "exclude")?,
            exclude_source: take(&mut object, "exclude_source")?,
            liked: take(&mut object, "liked")?,
            disliked: take(&mut object, "disliked")?,
            near_identical: take::<String>(&mut object, "near_identical")?
                .map(|text| parse_near_identical(&text))
                .transpose()?,
            exact: take(&mut object, "exact")?,
            allow_partial: take(&mut object, "allow_partial")?,
            min_version: take(&mut object, "min_version")?,
        };
        match object.keys().next() {
            None => Ok(options),
            Some(name) => Err(invalid(format!("unknown field `{}`", echo(name)))),
        }
    }

    /// Splits the lists of a form at commas, but not names of the archive's classes and sources that hold one.
    pub fn split_lists(&mut self, classes: &[(ClassLabel, usize)], sources: &[String]) {
        let classes: HashSet<&str> = classes.iter().map(|(class, _)| class.as_str()).collect();
        let sources: HashSet<&str> = sources.iter().map(String::as_str).collect();
        let nothing = HashSet::new();
        let lists = [
            (&mut self.classes, &classes),
            (&mut self.sources, &sources),
            (&mut self.exclude_source, &sources),
            (&mut self.exclude, &nothing),
            (&mut self.liked, &nothing),
            (&mut self.disliked, &nothing),
        ];
        for (list, known) in lists {
            let Some(values) = list else { continue };
            let parts = |value: String| match known.contains(value.as_str()) {
                true => vec![value],
                false => split(&value),
            };
            *values = std::mem::take(values).into_iter().flat_map(parts).collect();
        }
    }

    /// The options, checked.
    ///
    /// # Errors
    /// `InvalidRequest` naming the option.
    pub fn wanted(self) -> Result<Wanted> {
        let default = Ask::default();
        let classes = self
            .classes
            .filter(|names| !names.is_empty())
            .map(|names| names.iter().map(|name| ClassLabel::parse(name)).collect::<Result<_>>());
        let other = Ask {
            classes: classes.transpose().map_err(|error| error.context("`classes`"))?,
            sources: self.sources.filter(|sources| !sources.is_empty()),
            exclude_sources: self.exclude_source.unwrap_or_default(),
            liked: examples("liked", self.liked)?,
            disliked: examples("disliked", self.disliked)?,
            exclude: self
                .exclude
                .map_or(Ok(default.exclude), |names| parse_exclude(&names))?,
            one_per: self.near_identical.map_or(default.one_per, Into::into),
            exact: self.exact.unwrap_or(default.exact),
            allow_partial: self.allow_partial.unwrap_or(default.allow_partial),
            min_version: self.min_version,
            ..default
        };
        Ok(Wanted {
            k: self.k.map(check_k).transpose()?,
            vote: self.vote.map(Into::into),
            other,
        })
    }
}

/// A search by an uploaded image.
pub struct SearchForm {
    /// The image and whose it is.
    pub upload: Upload,
    /// The part of it that is asked about.
    pub region: Option<Region>,
    /// How to search.
    pub options: Options,
}

impl FromParts for SearchForm {
    const FIELDS: &'static [&'static str] = &[
        "k",
        "vote",
        "classes",
        "sources",
        "patient_id",
        "issuer",
        "study_uid",
        "exclude",
        "exclude_source",
        "liked",
        "disliked",
        "near_identical",
        "exact",
        "allow_partial",
        "min_version",
        "frame",
        "region",
        "preview",
    ];

    fn from_parts(mut parts: Parts) -> Result<Self> {
        Ok(Self {
            options: Options::from_parts(&mut parts)?,
            region: parts.text("region")?.map(|text| parse_region(&text)).transpose()?,
            upload: Upload {
                bytes: parts.image()?,
                frame: frame(&mut parts)?,
                patient_id: parts.text("patient_id")?,
                issuer: parts.text("issuer")?,
                study_uid: parts.text("study_uid")?,
                preview: flag(&mut parts, "preview")?.unwrap_or(false),
            },
        })
    }
}

// How the API describes `SearchForm`. Serde only lends its attribute `flatten`.
/// A search by an uploaded image.
#[derive(Deserialize, ToSchema)]
#[schema(as = SearchForm)]
#[expect(dead_code, reason = "a description, never a value")]
pub struct SearchFormFields {
    /// PNG, JPEG or DICOM, told apart by content.
    #[schema(value_type = ImageFile)]
    image: (),
    /// Which frame of a DICOM file, counted from 1.
    #[schema(default = 1, minimum = 1, maximum = 10000)]
    frame: Option<u32>,
    /// A part of the image as `x,y,width,height`, fractions of its width and height.
    #[schema(example = "0.25,0.25,0.5,0.5")]
    region: Option<String>,
    /// Give the picture back in `query.preview`, for a client that can't show the file itself.
    #[schema(default = false)]
    preview: Option<bool>,
    /// Whose image this is; read from the file for DICOM. Hashed on arrival, never logged.
    patient_id: Option<String>,
    /// Who issued the patient id.
    issuer: Option<String>,
    /// The Study Instance UID. Hashed on arrival, never logged.
    study_uid: Option<String>,
    #[serde(flatten)]
    options: Options,
}

/// A search by images of the archive.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(try_from = "Map<String, Value>")]
pub struct ById {
    /// Images of the archive; several are averaged.
    #[schema(min_items = 1, max_items = 16)]
    ids: Vec<String>,
    /// How to search.
    #[serde(flatten)]
    pub options: Options,
}

impl ById {
    /// The ids, checked.
    ///
    /// # Errors
    /// `InvalidRequest` for none, too many or one that can't be an id.
    pub fn ids(&self) -> Result<Vec<ImageId>> {
        if self.ids.is_empty() || self.ids.len() > QUERY_IDS_MAX {
            return Err(invalid(format!(
                "`ids` holds 1 to {QUERY_IDS_MAX} ids, got `{}`",
                self.ids.len()
            )));
        }
        parse_ids("ids", &self.ids)
    }
}

impl TryFrom<Map<String, Value>> for ById {
    type Error = Error;

    fn try_from(mut object: Map<String, Value>) -> Result<Self> {
        Ok(Self {
            ids: required(&mut object, "ids")?,
            options: Options::from_json(object)?,
        })
    }
}

/// A search by a vector.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(try_from = "Map<String, Value>")]
pub struct ByVector {
    /// Raw output of the model or normalised, as many components as the space has.
    pub vector: Vec<f32>,
    /// The space the vector is of: vectors of another space are refused, not compared.
    #[schema(example = "0123456789abcdef0123456789abcdef")]
    space: String,
    /// How to search.
    #[serde(flatten)]
    pub options: Options,
}

impl ByVector {
    /// The space, checked.
    ///
    /// # Errors
    /// `InvalidRequest` for something that can't be the id of a space.
    pub fn space(&self) -> Result<SpaceId> {
        self.space.parse().map_err(|error: Error| error.context("`space`"))
    }
}

impl TryFrom<Map<String, Value>> for ByVector {
    type Error = Error;

    fn try_from(mut object: Map<String, Value>) -> Result<Self> {
        Ok(Self {
            vector: required(&mut object, "vector")?,
            space: required(&mut object, "space")?,
            options: Options::from_json(object)?,
        })
    }
}

/// Images to embed.
pub struct EmbedForm {
    /// The files.
    pub images: Vec<Bytes>,
    /// Which picture of each.
    pub frame: FrameNumber,
}

impl FromParts for EmbedForm {
    const FIELDS: &'static [&'static str] = &["frame"];
    const IMAGES_MAX: usize = EMBEDDINGS_MAX;

    fn from_parts(mut parts: Parts) -> Result<Self> {
        Ok(Self {
            frame: frame(&mut parts)?,
            images: parts.images(),
        })
    }
}

// How the API describes `EmbedForm`.
/// Images to embed.
#[derive(ToSchema)]
#[schema(as = EmbedForm)]
#[expect(dead_code, reason = "a description, never a value")]
pub struct EmbedFormFields {
    /// 1 to 16 files, each in a field of this name.
    #[schema(value_type = Vec<ImageFile>, min_items = 1, max_items = 16)]
    image: (),
    /// Which frame of each of them, counted from 1; a file without that many, as any PNG and JPEG for more than 1, refuses the request.
    #[schema(default = 1, minimum = 1, maximum = 10000)]
    frame: Option<u32>,
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidRequest, message)
}

fn check_k(k: u64) -> Result<usize> {
    usize::try_from(k)
        .ok()
        .filter(|k| (1..=K_MAX).contains(k))
        .ok_or_else(|| invalid(format!("`k` is a whole number from 1 to {K_MAX}, got `{k}`")))
}

fn examples(name: &str, ids: Option<Vec<String>>) -> Result<Vec<ImageId>> {
    let ids = ids.unwrap_or_default();
    if ids.len() > EXAMPLES_MAX {
        return Err(invalid(format!(
            "`{name}` holds at most {EXAMPLES_MAX} ids, got `{}`",
            ids.len()
        )));
    }
    parse_ids(name, &ids)
}

fn parse_ids(name: &str, ids: &[String]) -> Result<Vec<ImageId>> {
    let ids: Result<_> = ids.iter().map(|id| id.parse()).collect();
    ids.map_err(|error| error.context(format!("`{name}`")))
}

fn parse_vote(text: &str) -> Result<Vote> {
    match text {
        "majority" => Ok(Vote::Majority),
        "distance" => Ok(Vote::Distance),
        "prior" => Ok(Vote::Prior),
        _ => Err(invalid(format!(
            "`vote` is one of majority, distance, prior, got `{}`",
            echo(text)
        ))),
    }
}

fn parse_near_identical(text: &str) -> Result<NearIdentical> {
    match text {
        "collapse" => Ok(NearIdentical::Collapse),
        "keep" => Ok(NearIdentical::Keep),
        _ => Err(invalid(format!(
            "`near_identical` is one of collapse, keep, got `{}`",
            echo(text)
        ))),
    }
}

fn parse_exclude(names: &[String]) -> Result<Exclude> {
    let mut exclude = Exclude {
        patient: false,
        study: false,
        pixels: false,
    };
    if let [only] = names
        && only == "none"
    {
        return Ok(exclude);
    }
    for name in names {
        match name.as_str() {
            "patient" => exclude.patient = true,
            "study" => exclude.study = true,
            "pixels" => exclude.pixels = true,
            _ => {
                return Err(invalid(format!(
                    "`exclude` lists patient, study, pixels, or is none, got `{}`",
                    echo(name)
                )));
            }
        }
    }
    Ok(exclude)
}

/// Which picture of each file; the first if nothing is said.
pub(super) fn frame(parts: &mut Parts) -> Result<FrameNumber> {
    let text = parts.text("frame")?;
    let frame = text.map(|text| text.parse()).transpose();
    Ok(frame
        .map_err(|error: Error| error.context("`frame`"))?
        .unwrap_or_default())
}

pub(super) fn parse_region(text: &str) -> Result<Region> {
    match numbers(text).as_deref() {
        Some([x, y, width, height]) => Region::new(*x, *y, *width, *height),
        _ => Err(invalid(format!("`region` is x,y,width,height, got `{}`", echo(text)))),
    }
}

/// Finite numbers with commas between.
pub(super) fn numbers(text: &str) -> Option<Vec<f64>> {
    text.split(',')
        .map(|part| part.trim().parse().ok().filter(|number: &f64| number.is_finite()))
        .collect()
}

fn number(parts: &mut Parts, name: &'static str) -> Result<Option<u64>> {
    let Some(text) = parts.text(name)? else { return Ok(None) };
    text.parse()
        .map(Some)
        .map_err(|_| invalid(format!("`{name}` is a whole number, got `{}`", echo(&text))))
}

fn flag(parts: &mut Parts, name: &'static str) -> Result<Option<bool>> {
    let Some(text) = parts.text(name)? else { return Ok(None) };
    text.parse()
        .map(Some)
        .map_err(|_| invalid(format!("`{name}` is true or false, got `{}`", echo(&text))))
}

fn list(parts: &mut Parts, name: &'static str) -> Option<Vec<String>> {
    Some(parts.texts(name)).filter(|values| !values.is_empty())
}

/// Takes a member out of an object; `null` counts as absent.
pub(super) fn take<T: DeserializeOwned>(object: &mut Map<String, Value>, name: &str) -> Result<Option<T>> {
    let value = object.remove(name).unwrap_or(Value::Null);
    serde_json::from_value(value).map_err(|error| invalid(format!("`{name}`: {}", without_value(&error.to_string()))))
}

/// A list of words, or the words with commas between as in a form.
fn take_words(object: &mut Map<String, Value>, name: &str) -> Result<Option<Vec<String>>> {
    match object.remove(name) {
        Some(Value::String(text)) => Ok(Some(split(&text))),
        other => {
            object.extend(other.map(|value| (name.to_owned(), value)));
            take(object, name)
        }
    }
}

fn split(text: &str) -> Vec<String> {
    text.split(',')
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect()
}

fn required<T: DeserializeOwned>(object: &mut Map<String, Value>, name: &str) -> Result<T> {
    take(object, name)?.ok_or_else(|| invalid(format!("missing field `{name}`")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::VoteMethod;

    fn by_id(body: Value) -> Result<Wanted> {
        let Value::Object(object) = body else {
            panic!("an object")
        };
        let request = ById::try_from(object)?;
        request.ids()?;
        request.options.wanted()
    }

    const ID: &str = "0123456789abcdef0123456789abcdef0123";
    const OTHER: &str = "fedcba9876543210fedcba98765432100000";

    #[test]
    fn options_come_with_defaults_and_null_is_absent() {
        assert_eq!(by_id(json!({"ids": [ID]})).unwrap(), Wanted::default());
        let nothing = json!({"ids": [ID], "k": null, "classes": null, "sources": []});
        assert_eq!(by_id(nothing).unwrap(), Wanted::default());
        let exclude = |value: Value| by_id(json!({"ids": [ID], "exclude": value})).unwrap().other.exclude;
        assert_eq!(
            exclude(json!("patient, study")),
            Exclude {
                patient: true,
                study: true,
                pixels: false
            }
        );
        assert_eq!(exclude(json!("none")), exclude(json!([])));
        let ask = by_id(json!({
            "ids": [ID], "k": 3, "vote": "prior", "classes": ["A, B"], "sources": ["s"], "exclude": ["none"],
            "exclude_source": ["t"], "liked": [ID], "disliked": [OTHER], "near_identical": "keep", "exact": true, "allow_partial": true, "min_version": 7
        }));
        let other = Ask {
            classes: Some(vec![ClassLabel::parse("A, B").unwrap()]),
            sources: Some(vec!["s".into()]),
            exclude_sources: vec!["t".into()],
            liked: vec![ID.parse().unwrap()],
            disliked: vec![OTHER.parse().unwrap()],
            exclude: Exclude {
                patient: false,
                study: false,
                pixels: false,
            },
            one_per: crate::domain::OnePer::Patient,
            exact: true,
            allow_partial: true,
            min_version: Some(7),
            ..Ask::default()
        };
        let expected = Wanted {
            k: Some(3),
            vote: Some(VoteMethod::Prior),
            other,
        };
        assert_eq!(ask.unwrap(), expected);
    }

    #[test]
    fn a_wrong_option_is_named_and_its_value_not_leaked() {
        let rows = [
            (json!({}), "missing field `ids`"),
            (json!({"ids": []}), "`ids` holds 1 to 16 ids, got `0`"),
            (json!({"ids": ["xyz"]}), "`ids`: an image id is 36 hex digits"),
            (json!({"ids": "xyz"}), "`ids`: expected a sequence"),
            (
                json!({"ids": [ID], "k": 0}),
                "`k` is a whole number from 1 to 100, got `0`",
            ),
            (json!({"ids": [ID], "k": 1_000_000_000u64}), "got `1000000000`"),
            (
                json!({"ids": [ID], "liked": ["xyz"]}),
                "`liked`: an image id is 36 hex digits",
            ),
            (
                json!({"ids": [ID], "disliked": vec![ID; 17]}),
                "`disliked` holds at most 16 ids, got `17`",
            ),
            (json!({"ids": [ID], "k": -1}), "`k`: expected u64"),
            (json!({"ids": [ID], "k": 2.5}), "`k`: expected u64"),
            (
                json!({"ids": [ID], "vote": "guess"}),
                "`vote` is one of majority, distance, prior, got `guess`",
            ),
            (json!({"ids": [ID], "classes": ["a/b"]}), "`classes`: class name"),
            (json!({"ids": [ID], "exclude": ["none", "study"]}), "`exclude` lists"),
            (json!({"ids": [ID], "exact": "yes"}), "`exact`: expected a boolean"),
            (json!({"ids": [ID], "patient_id": "4711"}), "unknown field `patient_id`"),
        ];
        for (body, says) in rows {
            let error = by_id(body).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
            assert!(error.message().contains(says), "{error}");
        }
    }

    #[test]
    fn lists_of_a_form_split_at_commas_but_not_inside_known_names() {
        let mut options = Options {
            classes: Some(vec!["COVID, Viral".into(), "Effusion, left".into()]),
            exclude: Some(vec!["patient,study".into()]),
            ..Options::default()
        };
        options.split_lists(&[(ClassLabel::parse("Effusion, left").unwrap(), 1)], &[]);
        assert_eq!(options.classes.unwrap(), ["COVID", "Viral", "Effusion, left"]);
        assert_eq!(options.exclude.unwrap(), ["patient", "study"]);
    }

    #[test]
    fn regions_are_four_fractions() {
        assert!(parse_region("0,0,1,1").is_ok());
        for text in ["", "0,0,1", "0,0,2,1", "0,0,0,1", "a,b,c,d", "0,0,nan,1"] {
            assert_eq!(
                parse_region(text).unwrap_err().kind(),
                ErrorKind::InvalidRequest,
                "{text}"
            );
        }
    }
}
