//! What a client asks for, checked.

use serde::{Deserialize, Serialize};

use super::{ClassLabel, Embedding, FrameNumber, ImageId, Key, PatientKeys};
use crate::error::{Error, ErrorKind, Result};

/// Most neighbors that one request may ask for.
pub const K_MAX: usize = 100;

/// Most images that an answer shall be like, and most that it shall not.
pub const EXAMPLES_MAX: usize = 16;

/// How the neighbors' labels become a suggestion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VoteMethod {
    /// One neighbor, one vote.
    #[default]
    Majority,
    /// A vote weighs its similarity.
    Distance,
    /// A vote weighs the inverse of its class's share among those that could have answered.
    Prior,
}

/// Of whom an answer holds one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnePer {
    /// Of a patient and of a picture, closed over both: copies of a picture are shown and counted once.
    #[default]
    Picture,
    /// Of a patient: every copy that another patient has, or nobody known, is shown and counted.
    Patient,
    /// Every image for itself.
    Image,
}

/// What is kept out of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exclude {
    /// Images of the query's patient.
    pub patient: bool,
    /// Images of the query's study.
    pub study: bool,
    /// Images with the query's pixels or file bytes.
    pub pixels: bool,
}

impl Default for Exclude {
    fn default() -> Self {
        Self {
            patient: true,
            study: true,
            pixels: true,
        }
    }
}

/// A part of the image: fractions of its width and height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

impl Region {
    /// A rectangle within the unit square, at least 1 % of each side.
    ///
    /// # Errors
    /// `InvalidRequest` when it is not.
    pub fn new(x: f64, y: f64, width: f64, height: f64) -> Result<Self> {
        let inside = |start: f64, length: f64| start >= 0.0 && length >= 0.01 && start + length <= 1.0 + 1e-9;
        if inside(x, width) && inside(y, height) {
            Ok(Self { x, y, width, height })
        } else {
            Err(Error::new(
                ErrorKind::InvalidRequest,
                "`region` is x,y,width,height within 0..1, each side at least 0.01",
            ))
        }
    }

    /// x, y, width, height as fractions.
    pub fn fractions(self) -> [f64; 4] {
        [self.x, self.y, self.width, self.height]
    }
}

/// What of a file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Excerpt {
    /// Which of its pictures.
    pub frame: FrameNumber,
    /// The part of that; none: all of it.
    pub region: Option<Region>,
}

impl From<FrameNumber> for Excerpt {
    /// All of a frame.
    fn from(frame: FrameNumber) -> Self {
        Self { frame, region: None }
    }
}

/// Options of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// Neighbors wanted, 1..=[`K_MAX`].
    pub k: usize,
    /// How they vote.
    pub vote: VoteMethod,
    /// Only these classes.
    pub classes: Option<Vec<ClassLabel>>,
    /// Only these sources.
    pub sources: Option<Vec<String>>,
    /// Not these sources.
    pub exclude_sources: Vec<String>,
    /// Images of the archive that the answer shall be more like, at most [`EXAMPLES_MAX`].
    pub liked: Vec<ImageId>,
    /// Images that it shall be less like, at most as many.
    pub disliked: Vec<ImageId>,
    /// What is kept out.
    pub exclude: Exclude,
    /// What is shown once.
    pub one_per: OnePer,
    /// Scan every row instead of walking a graph.
    pub exact: bool,
    /// Answer although shards are missing.
    pub allow_partial: bool,
    /// Lowest archive version that may answer.
    pub min_version: Option<u64>,
}

impl Ask {
    /// Whether the query is moved by examples.
    pub fn refines(&self) -> bool {
        !self.liked.is_empty() || !self.disliked.is_empty()
    }
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            k: 10,
            vote: VoteMethod::default(),
            classes: None,
            sources: None,
            exclude_sources: Vec::new(),
            liked: Vec::new(),
            disliked: Vec::new(),
            exclude: Exclude::default(),
            one_per: OnePer::default(),
            exact: false,
            allow_partial: false,
            min_version: None,
        }
    }
}

/// A search as a client wants it. What it does not name is decided by the version that answers: neighbors and votes as that is calibrated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// Neighbors, 1..=[`K_MAX`], if named.
    pub k: Option<usize>,
    /// How they vote, if named.
    pub vote: Option<VoteMethod>,
    /// All else; its `k` and `vote` count where nothing is named and nothing calibrated.
    pub other: Ask,
}

impl Wanted {
    /// What is asked of a version that is calibrated so, if it is.
    pub fn ask(self, calibrated: Option<(usize, VoteMethod)>) -> Ask {
        let (k, vote) = calibrated.unwrap_or((self.other.k, self.other.vote));
        Ask {
            k: self.k.unwrap_or(k),
            vote: self.vote.unwrap_or(vote),
            ..self.other
        }
    }
}

/// Whose image is asked about, as pseudonyms, and where it lies in the space.
#[derive(Debug, Clone)]
pub struct Query {
    /// The query's vector.
    pub embedding: Embedding,
    /// Its patient (several for a query by several images).
    pub patients: Vec<PatientKeys>,
    /// Its study.
    pub studies: Vec<Key>,
    /// Its file bytes and pixels.
    pub same_pixels: Vec<Key>,
}

impl Query {
    /// A place in the space, and nobody's.
    pub fn of(embedding: Embedding) -> Self {
        Self {
            embedding,
            patients: vec![],
            studies: vec![],
            same_pixels: vec![],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_as_calibrated() {
        let asked = |k: Option<usize>, vote: Option<VoteMethod>, calibrated| {
            let other = Ask {
                exact: true,
                ..Ask::default()
            };
            let ask = Wanted { k, vote, other }.ask(calibrated);
            assert!(ask.exact);
            (ask.k, ask.vote)
        };
        let calibrated = Some((15, VoteMethod::Prior));
        assert_eq!(asked(None, None, None), (10, VoteMethod::Majority));
        assert_eq!(asked(None, None, calibrated), (15, VoteMethod::Prior));
        assert_eq!(asked(Some(3), None, calibrated), (3, VoteMethod::Prior));
        assert_eq!(
            asked(None, Some(VoteMethod::Distance), calibrated),
            (15, VoteMethod::Distance)
        );
    }
}
