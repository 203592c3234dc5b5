//! What an evaluation says: every figure with what it stands for. Written as JSON, and as pages by [`super::report`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::calibration::Bin;

/// The whole report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evaluation {
    /// Who was asked about whom.
    pub protocol: Protocol,
    /// How good the lists of neighbors are, without any vote.
    pub retrieval: Vec<RetrievalFigure>,
    /// How good the vote is.
    pub decisions: Decisions,
    /// The same by methods that see no disease, or nothing: what every figure has to beat.
    pub floors: Vec<Floor>,
    /// The same with less learned: every space as it is and, of several, each with a metric of its own. Empty where nothing is learned.
    pub less_learned: Vec<Floor>,
    /// Whether a confidence of 0.8 is right eight times of ten.
    pub confidence: Available<ConfidenceReport>,
    /// Sets of classes that can't be ruled out, at each level.
    pub prediction_sets: Vec<PredictionSets>,
    /// Accuracy of the most confident share of the answers.
    pub selective: Selective,
    /// Precision against recall of each class's ranking.
    pub precision_recall: Vec<PrecisionRecall>,
    /// What a shortcut could explain.
    pub shortcuts: Available<Shortcuts>,
    /// How much is still found with a part of each query blacked out.
    pub controls: Available<Controls>,
    /// What same patients and duplicates in the archive would have added; the first is with every guard.
    pub leakage: Vec<Leakage>,
    /// Families of images that do not belong here, and whether they are told apart.
    pub outside: Vec<Outside>,
    /// The graphs against the exact scan.
    pub index: Available<IndexReport>,
    /// Whether heat maps point at what makes images alike; absent unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanations: Option<Available<Explanations>>,
    /// The confident mistakes, worst first.
    pub hardest: Vec<HardCase>,
    /// What a reader has to know, in sentences.
    pub notes: Vec<String>,
}

/// A part of the report, or why there is none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Available<T> {
    /// It is there.
    Yes(T),
    /// It is not, for this reason.
    No {
        /// In words.
        not_available: String,
    },
}

impl<T> Available<T> {
    /// Not there, for this reason.
    pub fn no(why: impl Into<String>) -> Self {
        Self::No {
            not_available: why.into(),
        }
    }
}

/// Who was asked about whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Protocol {
    /// What was evaluated: an archive's name, or a folder's.
    pub what: String,
    /// Version of the archive.
    pub archive_version: u64,
    /// Id of the space of its vectors.
    pub space: String,
    /// The model's name, from the space.
    pub model: String,
    /// Images that were asked about.
    pub queries: usize,
    /// Images that could be found.
    pub images: usize,
    /// Groups that were kept together: patients, and copies of a picture.
    pub groups: usize,
    /// Images that are near duplicates of another one and were kept with it, where pictures are kept to tell.
    pub near_duplicates: Available<Copies>,
    /// Images whose patient is known.
    pub images_with_patient: usize,
    /// Images left out because their label is absent or in dispute.
    pub without_label: usize,
    /// Classes, with what there is of each; in this order everywhere in the report.
    pub classes: Vec<ClassCount>,
    /// Images of each source; empty when none is known.
    pub sources: BTreeMap<String, usize>,
    /// How queries and archive were kept apart, in words.
    pub split: String,
    /// Seeds of the splits.
    pub seeds: Vec<u64>,
    /// The metric that was learned for each test from other groups; absent: the model's vectors were compared as they are.
    pub metric: Option<LearnedMetric>,
    /// Neighbors that vote, one per patient.
    pub k: usize,
    /// How votes are weighed.
    pub vote: String,
    /// Resamples behind every interval.
    pub resamples: usize,
    /// The day, RFC 3339.
    pub made_at: String,
}

/// How a metric was learned.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LearnedMetric {
    /// In words.
    pub method: String,
    /// What was chosen within the training sets, most often first.
    pub chosen: Vec<Chosen>,
    /// Every configuration that was tried in every training set, and how it did there.
    #[serde(default)]
    pub tried: Vec<Tried>,
}

/// One configuration, over all training sets that chose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// The space of the vectors.
    pub space: String,
    /// The shrinkage of the scatter within classes, 0 to 1.
    pub shrinkage: f64,
    /// Mean of the balanced accuracies on parts of the training sets that it had not learned from.
    pub balanced_accuracy: f64,
    /// The least of them.
    pub least: f64,
    /// The greatest.
    pub most: f64,
}

/// One choice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chosen {
    /// The space of the vectors that were learned from.
    pub space: String,
    /// The shrinkage of the scatter within classes, 0 to 1.
    pub shrinkage: f64,
    /// In how many training sets it was best.
    pub training_sets: usize,
}

/// Near duplicates among the images.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Copies {
    /// Images that are a near duplicate of another one.
    pub images: usize,
    /// Images without a picture, which were compared with none.
    pub not_compared: usize,
}

/// One class.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClassCount {
    /// Its name.
    pub class: String,
    /// Images that were asked about.
    pub queries: usize,
    /// Images that could be found.
    pub images: usize,
    /// Their groups.
    pub groups: usize,
}

/// A figure with the interval in which 95 % of the resamples by group lie.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Mean over the seeds, all images as they are.
    pub value: f64,
    /// 2.5 % of the resamples are below.
    pub low: f64,
    /// 2.5 % of the resamples are above.
    pub high: f64,
}

/// One way of scoring a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RetrievalFigure {
    /// For example `P@10`.
    pub name: String,
    /// What it counts, and by whose definition.
    pub definition: String,
    /// Mean over images.
    pub micro: Option<Interval>,
    /// Mean over classes of the mean over their images.
    pub per_class_mean: Option<Interval>,
}

/// How good the vote is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Decisions {
    /// Share of right suggestions; no suggestion is a wrong one.
    pub accuracy: Option<Interval>,
    /// Mean sensitivity of the classes.
    pub balanced_accuracy: Option<Interval>,
    /// Mean F1 of the classes.
    pub macro_f1: Option<Interval>,
    /// Share of the queries without a suggestion.
    pub undecided: f64,
    /// One class against all others.
    pub per_class: Vec<ClassDecisions>,
    /// Rows: truth. Columns: suggestion, the last one none. Mean over the seeds.
    pub confusion: Vec<Vec<f64>>,
}

/// One class against all others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClassDecisions {
    /// Its name.
    pub class: String,
    /// Share of its images that were found to be of it.
    pub sensitivity: Option<Interval>,
    /// Share of the others that were not.
    pub specificity: Option<Interval>,
    /// Share of the suggestions of it that were right.
    pub precision: Option<Interval>,
}

/// What a method that knows less reaches on the same split.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Floor {
    /// For example `32×32 grey thumbnail`.
    pub name: String,
    /// What it sees.
    pub sees: String,
    /// Its figures.
    pub figures: Available<FloorFigures>,
}

/// The figures of a floor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FloorFigures {
    /// Share of right suggestions.
    pub accuracy: Option<Interval>,
    /// Mean sensitivity of the classes.
    pub balanced_accuracy: Option<Interval>,
    /// Mean F1 of the classes.
    pub macro_f1: Option<Interval>,
    /// Precision of the first ten, mean over images, where it makes lists.
    pub precision_at_10: Option<Interval>,
    /// By how much the evaluation's balanced accuracy is above the floor's, on the same resamples.
    pub below_ours: Option<Interval>,
}

/// Probabilities of the vote as it is, and calibrated on groups that were not asked about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConfidenceReport {
    /// The share of the votes, taken as a probability.
    pub raw: Reliability,
    /// After calibration.
    pub calibrated: Reliability,
    /// How it was calibrated, in words.
    pub method: String,
}

/// How far probabilities are right.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reliability {
    /// Expected calibration error over ten bins of equal mass.
    pub ece: f64,
    /// The 95th percentile of that error if the probabilities were exactly right: what chance alone makes of so few images.
    pub ece_by_chance: f64,
    /// Brier score over all classes, 0 to 2.
    pub brier: f64,
    /// The bins, all seeds together.
    pub bins: Vec<Bin>,
}

/// Conformal prediction sets at one level.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PredictionSets {
    /// The share of each class's patients that is promised to find the class in its set, for example 0.9.
    pub level: f64,
    /// Mean over the classes that have thresholds.
    pub mean_class_coverage: Option<f64>,
    /// Each class.
    pub per_class: Vec<ClassCoverage>,
    /// Classes in a set, on average.
    pub mean_size: f64,
    /// Share of the queries with an empty set.
    pub empty: f64,
    /// Share of the queries whose set is as large as the list of classes, or three.
    pub too_large: f64,
    /// Share of each size, from 0 on.
    pub sizes: Vec<f64>,
}

/// One class at one level.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClassCoverage {
    /// Its name.
    pub class: String,
    /// Share of its images with it in their set, each group counting once; absent when there are too few groups to calibrate on.
    pub coverage: Option<f64>,
    /// Groups it was calibrated on, the fewest of any fold.
    pub calibration_groups: usize,
}

/// Answers in order of confidence.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Selective {
    /// (share answered, error rate among them), from the most confident on; at most 100 points.
    pub risk_coverage: Vec<(f64, f64)>,
    /// Accuracy of the most confident 80 %.
    pub accuracy_at_80: Option<f64>,
    /// Accuracy of the most confident 90 %.
    pub accuracy_at_90: Option<f64>,
    /// Area under the risk-coverage curve; the accuracy alone would give a flat one.
    pub aurc: Option<f64>,
    /// Whether confidence tells right from wrong: AUROC.
    pub auroc_of_right: Option<f64>,
}

/// One class's images, looked for by its calibrated probability.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PrecisionRecall {
    /// The class.
    pub class: String,
    /// (recall, precision), at most 100 points.
    pub points: Vec<(f64, f64)>,
    /// Average precision.
    pub average_precision: Option<f64>,
    /// What no knowledge gives: the class's share.
    pub prior: f64,
}

/// What a shortcut could explain; where something is learned, by what each seed has learned.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shortcuts {
    /// Share of queries whose source is that of most of their neighbors.
    pub source_accuracy: Option<f64>,
    /// The same for one who always says the largest source.
    pub source_majority: f64,
    /// Among the neighbors: same class and other source / other class and same source; above 1 disease counts more than source (de Jong et al.,
    /// arXiv 2501.18055). Absent when the archive can't tell: no class in two sources, or no source with two classes.
    pub robustness_index: Option<f64>,
    /// Tasks within one source, where the source can tell nothing.
    pub source_matched: Vec<SourceMatched>,
    /// Each source asked about with the others alone as archive.
    pub leave_source_out: Vec<LeftOut>,
}

/// Classes told apart within one source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceMatched {
    /// The source.
    pub source: String,
    /// Its classes.
    pub classes: Vec<String>,
    /// Queries.
    pub images: usize,
    /// Mean sensitivity of its classes, only images of the source as neighbors.
    pub balanced_accuracy: Option<Interval>,
}

/// One source, asked about among all others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeftOut {
    /// The source.
    pub source: String,
    /// Its images of classes that the others have too.
    pub images: usize,
    /// Images of classes that no other source has: nobody could be right about them.
    pub hopeless: usize,
    /// Mean sensitivity of the classes.
    pub balanced_accuracy: Option<Interval>,
}

/// Queries with a part of the picture blacked out, beside the same with the whole picture.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Controls {
    /// Balanced accuracy without knowledge.
    pub by_guessing: f64,
    /// Images that were asked about so: those whose file was there.
    pub queries: usize,
    /// The whole picture first.
    pub rows: Vec<Control>,
}

/// One way of blacking out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Control {
    /// For example `border only`.
    pub name: String,
    /// What is left to see.
    pub sees: String,
    /// Share of right suggestions.
    pub accuracy: Option<Interval>,
    /// Mean sensitivity of the classes.
    pub balanced_accuracy: Option<Interval>,
    /// By how much the balanced accuracy of the whole pictures is above this, on the same resamples.
    pub below_whole: Option<Interval>,
    /// The share of the balanced accuracy above guessing that remains: 1 all, 0 none. Absent where the whole pictures reach no more than guessing.
    pub remains: Option<f64>,
}

/// Each image asked about in the whole archive, with every guard (the first of them) or without one; where something is learned, means over the seeds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Leakage {
    /// Which guards, in words.
    pub guards: String,
    /// Share of right suggestions.
    pub accuracy: Option<Interval>,
    /// Mean sensitivity of the classes.
    pub balanced_accuracy: Option<Interval>,
    /// Precision of the first.
    pub precision_at_1: Option<Interval>,
}

/// One family of images that do not belong here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outside {
    /// Its name.
    pub family: String,
    /// Images.
    pub images: usize,
    /// How often an image of the archive looks more at home than one of the family.
    pub auroc: Option<f64>,
    /// Share of the family that passes when 95 % of the archive's images do.
    pub false_positives_at_95: Option<f64>,
}

/// The graphs against the exact scan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IndexReport {
    /// Share of the exact ten that the graphs find too.
    pub recall_at_10: f64,
    /// Share of the queries for which the vote is the same.
    pub same_vote: f64,
    /// Queries that were tried.
    pub queries: usize,
    /// Parameters, in words.
    pub graphs: String,
}

/// Heat maps, measured by insertion and deletion beside maps that know nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explanations {
    /// How the maps came about: `cells` or `occlusion`.
    pub method: String,
    /// Images that were explained, each with its nearest of another group.
    pub images: usize,
    /// Equal steps in which each was revealed and covered.
    pub steps: usize,
    /// The explanation first.
    pub maps: Vec<MapFigures>,
}

/// How much of the similarity comes, and goes, with the places that a map names first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MapFigures {
    /// `explanation`, `random`, or one of the ways to follow a uniform map: `uniform, faded`, `uniform, by rows`, `uniform, dotted`.
    pub name: String,
    /// What it knows.
    pub sees: String,
    /// Mean cosine to the neighbor while the blurred image is revealed: larger is better.
    pub insertion: Option<Interval>,
    /// Mean cosine while the image is covered with its mean colour: smaller is better.
    pub deletion: Option<Interval>,
    /// By how much the explanation's insertion is larger, image by image; absent for itself.
    pub insertion_below_explanation: Option<Interval>,
    /// By how much the explanation's deletion is smaller, image by image; absent for itself.
    pub deletion_above_explanation: Option<Interval>,
}

/// A confident mistake.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HardCase {
    /// The query.
    pub query: Picture,
    /// What was suggested.
    pub suggested: Option<String>,
    /// The calibrated probability of that.
    pub confidence: f64,
    /// The nearest, at most five.
    pub neighbors: Vec<Picture>,
}

/// An image as the report shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Picture {
    /// Its id in the archive.
    pub id: String,
    /// Path within its data set, in an archive that shows names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Its class.
    pub class: String,
    /// Its source.
    pub source: Option<String>,
    /// Similarity to the query; 1 for the query itself.
    pub similarity: f32,
    /// A `data:` URL of its thumbnail; absent where pixels are not kept. Not part of the JSON.
    #[serde(skip)]
    pub thumbnail: Option<String>,
}
