//! The model card: the sections of Mitchell et al. (Model Cards for Model Reporting, FAT* 2019), then the source attributes that a predictive decision
//! support has to show under 45 CFR 170.315(b)(11)(iv) (HTI-1, 89 FR 1192), which CHAI's model card follows too.

use super::document::{Document, Section};
use super::kept::{Kept, caveats};
use super::{NOT_KNOWN, Subject, USE};
use crate::domain::Space;
use crate::quality::evaluation::{Available, Evaluation, Interval};

const NONE: &str = "–";
/// Sentences in the places where no evaluation can be shown.
const NOT_MEASURED: &str = "not measured: medsearch evaluate --archive ARCHIVE --keep measures it";

/// The program with its version.
pub fn program() -> &'static str {
    concat!("medsearch ", env!("CARGO_PKG_VERSION"))
}

/// What makes the answers of an archive, and how good they were found to be.
pub fn model_card(subject: &Subject<'_>) -> Document {
    let manifest = subject.manifest;
    Document {
        title: format!("Model card of {}", manifest.archive.name),
        lead: format!(
            "How this archive answers, after Mitchell et al. (2019), made by {} from version {}. {USE}",
            program(),
            manifest.version
        ),
        archive_version: manifest.version,
        sections: vec![
            details(subject),
            intended_use(),
            factors(subject),
            metrics(subject),
            evaluation_data(subject),
            training_data(subject),
            quantitative(subject),
            ethics(),
            validity(subject),
            attributes(subject),
        ],
    }
}

/// Layers, pooling and size of a vector.
pub fn space_in_words(space: &Space) -> String {
    format!(
        "{} components, pooled ({}) from {}",
        space.dimension,
        space.pooling,
        space.layers.join(", ")
    )
}

fn details(subject: &Subject<'_>) -> Section {
    let manifest = subject.manifest;
    let known = |text: &str| {
        if text.is_empty() {
            NOT_KNOWN.to_owned()
        } else {
            text.to_owned()
        }
    };
    let metric = manifest.metric.as_ref().map_or_else(
        || "cosine of the model's vectors as they are".to_owned(),
        |metric| {
            format!(
                "cosine after a learned metric ({}, shrinkage {}, {} of {} components), fitted {} on version {}",
                metric.fitted.method,
                metric.fitted.shrinkage,
                metric.components,
                manifest.space.dimension,
                metric.fitted.fitted_at,
                metric.fitted.fitted_on
            )
        },
    );
    let calibration = match (&manifest.calibration, subject.calibration) {
        (None, _) => "none: answers have no confidence".to_owned(),
        (Some(_), None) => "can't be read: answers have no confidence".to_owned(),
        (Some(entry), Some(calibration)) => format!(
            "for {} neighbors, {}, fitted {} on version {}",
            calibration.k,
            vote(calibration.vote),
            entry.fitted_at,
            entry.fitted_on
        ),
    };
    let mut facts = vec![
        (
            "Kind",
            "similarity search: a network makes a vector of an image, the nearest labelled cases vote".to_owned(),
        ),
        ("Program", program().to_owned()),
        ("Licence of the program", "MIT".to_owned()),
        ("Developer and contact", NOT_KNOWN.to_owned()),
    ];
    if let Some(model) = subject.model {
        facts.extend([
            ("Network", known(&model.architecture)),
            ("Its short name", known(&model.name)),
            ("Weights", known(&model.weights.origin)),
            ("Licence of the weights", known(&model.weights.licence)),
            ("Precision", known(&model.precision)),
            ("Exported with", known(&model.exported_with)),
        ]);
        if let Some(seed) = model.seeded {
            facts.push((
                "Warning",
                format!("the weights are random (seed {seed}): good for tests only"),
            ));
        }
    } else {
        facts.push(("Network", "not stored in the archive".to_owned()));
    }
    facts.extend([
        ("SHA-256 of the weights", manifest.space.weights_sha256.clone()),
        ("Vector", space_in_words(&manifest.space)),
        ("Pixel pipeline", manifest.space.pixel_pipeline.clone()),
        ("Space", manifest.space.id().to_string()),
        ("Compared by", metric),
        ("Calibration", calibration),
        (
            "Archive",
            format!("version {} of {}", manifest.version, manifest.created_at),
        ),
    ]);
    Section::new("model-details", "Model details").facts(facts)
}

fn vote(method: crate::domain::VoteMethod) -> &'static str {
    match method {
        crate::domain::VoteMethod::Majority => "majority vote",
        crate::domain::VoteMethod::Distance => "vote by similarity",
        crate::domain::VoteMethod::Prior => "vote corrected for the size of classes",
    }
}

fn intended_use() -> Section {
    Section::new("intended-use", "Intended use")
        .facts([
            ("Use", "to see which known cases an image looks like, in research and teaching"),
            ("Users", "people who can read such images and judge the neighbors themselves"),
            ("Output", "the most similar cases with their labels; a vote of these labels, with confidence where it is calibrated"),
        ])
        .text("Out of scope:")
        .list(vec![
            "Diagnosis, triage, screening, and any decision about a patient.".into(),
            "Images of another kind than the archive holds: other body parts, modalities, devices, ages.".into(),
            "Settings in which nobody looks at the neighbors.".into(),
            "Rates: a confidence holds where classes are as frequent as in the archive, which is no hospital's.".into(),
        ])
}

fn names(counts: &[(String, usize)]) -> String {
    if counts.is_empty() {
        return NOT_KNOWN.to_owned();
    }
    let names: Vec<&str> = counts.iter().map(|(name, _)| name.as_str()).collect();
    names.join(", ")
}

fn factors(subject: &Subject<'_>) -> Section {
    let facts = subject.facts;
    let classes: Vec<&str> = facts.classes.keys().map(|class| class.as_str()).collect();
    let scope = &subject.manifest.archive.scope;
    let scope: Vec<&str> = (scope.modality.iter().chain(&scope.body_part).chain(&scope.view))
        .map(String::as_str)
        .collect();
    let told = |known: bool| {
        if known {
            "in the datasheet, as counts; no figure is broken down by it"
        } else {
            NOT_KNOWN
        }
    };
    Section::new("factors", "Factors").facts([
        ("Classes", classes.join(", ")),
        ("Sources", names(&facts.sources)),
        ("Views", names(&facts.views)),
        (
            "Meant for",
            if scope.is_empty() {
                "not restricted".to_owned()
            } else {
                scope.join(", ")
            },
        ),
        ("Age", told(!facts.ages.is_empty()).to_owned()),
        ("Sex", told(!facts.sexes.is_empty()).to_owned()),
        ("Ethnicity", NOT_KNOWN.to_owned()),
        ("Devices and settings", NOT_KNOWN.to_owned()),
    ])
}

fn metrics(subject: &Subject<'_>) -> Section {
    let mut items = vec![
        "Accuracy: share of right suggestions; no suggestion is a wrong one.".to_owned(),
        "Balanced accuracy: mean sensitivity of the classes, so that a large class does not hide a small one."
            .to_owned(),
        "Intervals: 95 % bootstraps by group (a patient, copies of a picture).".to_owned(),
        "Floors: what methods reach that see no disease, on the same split.".to_owned(),
    ];
    if let Kept::Yes(kept) = subject.kept {
        items.extend(
            (kept.1.retrieval.iter())
                .map(|figure| format!("{}: {}.", figure.name, figure.definition.trim_end_matches('.'))),
        );
    }
    Section::new("metrics", "Metrics").list(items)
}

fn evaluation_data(subject: &Subject<'_>) -> Section {
    let section = Section::new("evaluation-data", "Evaluation data");
    let (entry, evaluation) = match subject.kept {
        Kept::No => return section.text(format!("{}.", sentence(NOT_MEASURED))),
        Kept::Unreadable => return section.text("The kept evaluation can't be read: measure it again."),
        Kept::Yes(kept) => (&kept.0, &kept.1),
    };
    let protocol = &evaluation.protocol;
    let duplicates = match &protocol.near_duplicates {
        Available::Yes(copies) => format!("{} images, kept with what they are copies of", copies.images),
        Available::No { not_available } => format!("{NOT_KNOWN}: {not_available}"),
    };
    section
        .facts([
            (
                "Measured",
                format!("{} on version {}", entry.made.made_at, entry.made.made_on),
            ),
            ("Kept as", entry.id().to_owned()),
            ("Split", protocol.split.clone()),
            (
                "Asked about",
                format!(
                    "{} images among {}, in {} groups",
                    protocol.queries, protocol.images, protocol.groups
                ),
            ),
            (
                "Images whose patient is known",
                protocol.images_with_patient.to_string(),
            ),
            ("Near duplicates", duplicates),
            (
                "Left out, without a label that counts",
                protocol.without_label.to_string(),
            ),
            (
                "Voters",
                format!("{} neighbors, one per patient, by {}", protocol.k, protocol.vote),
            ),
            (
                "Seeds, resamples",
                format!("{}, {}", protocol.seeds.len(), protocol.resamples),
            ),
            (
                "Compared by",
                (protocol.metric.as_ref()).map_or("the model's vectors as they are".to_owned(), |metric| {
                    metric.method.clone()
                }),
            ),
        ])
        .table(
            "Images of the evaluation",
            &["Class", "Asked about", "To be found", "Groups"],
            (protocol.classes.iter())
                .map(|class| {
                    vec![
                        class.class.clone(),
                        class.queries.to_string(),
                        class.images.to_string(),
                        class.groups.to_string(),
                    ]
                })
                .collect(),
        )
}

fn training_data(subject: &Subject<'_>) -> Section {
    let manifest = subject.manifest;
    let weights = subject.model.map_or(NOT_KNOWN, |model| model.weights.origin.as_str());
    let counted = |images: &std::collections::BTreeMap<crate::domain::ClassLabel, u64>| {
        let classes: Vec<String> = images
            .iter()
            .map(|(class, images)| format!("{class} {images}"))
            .collect();
        classes.join(", ")
    };
    let metric = manifest
        .metric
        .as_ref()
        .map_or("nothing: it is not learned".to_owned(), |metric| {
            format!(
                "{} of {} groups of this archive ({})",
                metric.fitted.images.values().sum::<u64>(),
                metric.fitted.groups,
                counted(&metric.fitted.images)
            )
        });
    let calibration = (manifest.calibration.as_ref()).map_or("nothing: there is none".to_owned(), |entry| {
        format!("groups of this archive: {}", counted(&entry.groups))
    });
    Section::new("training-data", "Training data").facts([
        (
            "The network's weights",
            format!("{weights}; which images they were learned from is {NOT_KNOWN} here"),
        ),
        ("The metric, from images", metric),
        ("The calibration, from", calibration),
        (
            "The cases that vote",
            "all images of the archive whose label counts: see the datasheet".to_owned(),
        ),
    ])
}

fn quantitative(subject: &Subject<'_>) -> Section {
    let section = Section::new("quantitative-analyses", "Quantitative analyses");
    let Kept::Yes(kept) = subject.kept else {
        return section.text(format!("{}.", sentence(NOT_MEASURED)));
    };
    let (entry, evaluation) = (&kept.0, &kept.1);
    let caveats = caveats(&entry.made, subject.manifest, &subject.facts.voting);
    let section = if caveats.is_empty() {
        section
    } else {
        section.text("Read these figures with care:").list(caveats)
    };
    let section = main_figures(section, evaluation);
    let section = section.table(
        "Each class against all others, with 95 % intervals",
        &["Class", "Sensitivity", "Specificity", "Precision"],
        (evaluation.decisions.per_class.iter())
            .map(|class| {
                let mut row = vec![class.class.clone()];
                row.extend([class.sensitivity, class.specificity, class.precision].map(interval));
                row
            })
            .collect(),
    );
    let section = confidence(section, evaluation);
    shortcuts(section, evaluation).facts([("By age, sex and their intersections", "not measured")])
}

fn main_figures(section: Section, evaluation: &Evaluation) -> Section {
    let decisions = &evaluation.decisions;
    let mut rows = vec![
        vec!["Balanced accuracy".to_owned(), interval(decisions.balanced_accuracy)],
        vec!["Accuracy".to_owned(), interval(decisions.accuracy)],
        vec!["Macro F1".to_owned(), interval(decisions.macro_f1)],
        vec!["Without a suggestion".to_owned(), share(decisions.undecided)],
    ];
    rows.extend((evaluation.retrieval.iter()).map(|figure| vec![figure.name.clone(), interval(figure.micro)]));
    let floors = (evaluation.floors.iter().chain(&evaluation.less_learned))
        .map(|floor| match &floor.figures {
            Available::Yes(figures) => vec![
                floor.name.clone(),
                interval(figures.balanced_accuracy),
                interval(figures.below_ours),
            ],
            Available::No { not_available } => vec![
                floor.name.clone(),
                format!("not available: {not_available}"),
                NONE.to_owned(),
            ],
        })
        .collect();
    section
        .table("Figures with 95 % intervals", &["Figure", "Value"], rows)
        .table(
            "Methods that see no disease, or learned less, on the same split",
            &["Method", "Balanced accuracy", "Below the search by"],
            floors,
        )
}

fn confidence(section: Section, evaluation: &Evaluation) -> Section {
    let section = match &evaluation.confidence {
        Available::No { not_available } => section.facts([("Calibration", format!("not available: {not_available}"))]),
        Available::Yes(report) => section.table(
            "Confidence: expected calibration error (by chance alone up to), Brier score",
            &["Confidence", "Error", "By chance", "Brier"],
            [
                ("Shares of the vote", &report.raw),
                ("Calibrated on other groups", &report.calibrated),
            ]
            .map(|(name, figures)| {
                vec![
                    name.to_owned(),
                    share(figures.ece),
                    share(figures.ece_by_chance),
                    share(figures.brier),
                ]
            })
            .into(),
        ),
    };
    let rows = (evaluation.prediction_sets.iter())
        .flat_map(|sets| {
            (sets.per_class.iter()).map(|class| {
                vec![
                    format!("{:.0} %", 100.0 * sets.level),
                    class.class.clone(),
                    class.coverage.map_or("too few groups".to_owned(), share),
                    class.calibration_groups.to_string(),
                ]
            })
        })
        .collect();
    section.table(
        "Prediction sets: share of each class's images with their class in the set",
        &["Level", "Class", "Coverage", "Groups to calibrate on"],
        rows,
    )
}

fn shortcuts(section: Section, evaluation: &Evaluation) -> Section {
    let section = match &evaluation.shortcuts {
        Available::No { not_available } => section.facts([("Shortcuts", format!("not available: {not_available}"))]),
        Available::Yes(shortcuts) => section
            .facts([
                (
                    "Source told from the neighbors",
                    shortcuts.source_accuracy.map_or(NONE.to_owned(), share),
                ),
                (
                    "The same by always saying the largest source",
                    share(shortcuts.source_majority),
                ),
            ])
            .table(
                "Balanced accuracy within one source, where the source can tell nothing",
                &["Source", "Images", "Balanced accuracy"],
                (shortcuts.source_matched.iter())
                    .map(|each| {
                        vec![
                            each.source.clone(),
                            each.images.to_string(),
                            interval(each.balanced_accuracy),
                        ]
                    })
                    .collect(),
            )
            .table(
                "Each source asked about among the others",
                &["Source", "Images", "Balanced accuracy"],
                (shortcuts.leave_source_out.iter())
                    .map(|each| {
                        vec![
                            each.source.clone(),
                            each.images.to_string(),
                            interval(each.balanced_accuracy),
                        ]
                    })
                    .collect(),
            ),
    };
    let outside = (evaluation.outside.iter())
        .map(|each| {
            vec![
                each.family.clone(),
                each.images.to_string(),
                each.auroc.map_or(NONE.to_owned(), share),
            ]
        })
        .collect();
    section.table(
        "Images that do not belong here, told apart from the archive's (AUROC)",
        &["Family", "Images", "AUROC"],
        outside,
    )
}

fn ethics() -> Section {
    Section::new("ethical-considerations", "Ethical considerations").list(vec![
        "A vote of similar cases can look like a second opinion. It is none: similar pixels are not the same disease.".into(),
        "Labels come from data sets: their mistakes, and the reasons for which people were imaged, are in every vote.".into(),
        "Whoever is rare in the archive is served worse, and the figures by age and sex that would show it are not measured.".into(),
        "Images are of patients. Ids are kept as pseudonyms; text burned into pixels is not removed.".into(),
        "A network can tell hospital, device and people apart where no person can: a shortcut looks like knowledge.".into(),
    ])
}

fn validity(subject: &Subject<'_>) -> Section {
    let mut items = match subject.kept {
        Kept::No => vec![format!("{}.", sentence(NOT_MEASURED))],
        Kept::Unreadable => vec!["The kept evaluation can't be read: measure it again.".to_owned()],
        Kept::Yes(kept) => {
            let mut items = caveats(&kept.0.made, subject.manifest, &subject.facts.voting);
            items.extend(kept.1.notes.iter().cloned());
            items
        }
    };
    items.push("All figures are of this archive's own images, or of queries that somebody chose: none is of another hospital's patients.".to_owned());
    Section::new("caveats", "Caveats and recommendations").list(items)
}

/// The attributes by the letters of (b)(11)(iv)(B).
fn attributes(subject: &Subject<'_>) -> Section {
    let manifest = subject.manifest;
    let measured = matches!(subject.kept, Kept::Yes(_));
    let here = |there: &str| {
        if measured {
            there.to_owned()
        } else {
            "not measured".to_owned()
        }
    };
    let balanced = match subject.kept {
        Kept::Yes(kept) => interval(kept.1.decisions.balanced_accuracy),
        _ => NONE.to_owned(),
    };
    let not_known = || NOT_KNOWN.to_owned();
    let rows: Vec<(&str, &str, String)> = vec![
        ("1 Details and output", "Developer, contact", not_known()),
        ("", "Funding", not_known()),
        (
            "",
            "Value and type of output",
            "similar cases and a suggested class: classification by analogy".into(),
        ),
        (
            "2 Purpose",
            "Intended use",
            "research and teaching; see Intended use".into(),
        ),
        ("", "Intended patients", not_known()),
        ("", "Intended users", "people who can read such images".into()),
        (
            "",
            "Role in decisions",
            "none: it informs no decision about a patient".into(),
        ),
        (
            "3 Out of scope",
            "Tasks, situations, populations",
            "see Intended use".into(),
        ),
        (
            "",
            "Known risks and limitations",
            "see Ethical considerations, Caveats".into(),
        ),
        ("4 Development and input", "Criteria for training data", not_known()),
        (
            "",
            "Ethnicity, language, sexual orientation, gender identity, sex, age, social circumstances as input",
            "none: pixels alone are compared".into(),
        ),
        (
            "",
            "Demographics of the data",
            "age and sex as far as known: see the datasheet".into(),
        ),
        ("", "Relevance of training data to the setting", not_known()),
        (
            "5 Fairness in development",
            "Approach to fairness",
            "floors beside every figure, shortcuts measured; nothing by age or sex".into(),
        ),
        (
            "",
            "How bias was reduced",
            "one vote per patient; equal pictures and patients kept apart in every measurement".into(),
        ),
        (
            "6 External validation",
            "Source, party, demographics, process",
            not_known(),
        ),
        (
            "7 Quantitative measures",
            "Validity, data of the same source",
            here(&format!("balanced accuracy {balanced}")),
        ),
        ("", "Fairness, data of the same source", "not measured".into()),
        ("", "Validity and fairness, external data", "not measured".into()),
        ("", "Use of outputs, outcomes", "not measured".into()),
        (
            "8 Maintenance",
            "How validity is watched",
            "medsearch evaluate --keep, by hand; a figure older than a fifth of the archive says so".into(),
        ),
        ("", "Local validity", here("the figures above are of this archive")),
        ("", "How fairness is watched", "not watched".into()),
        ("", "Local fairness", "not measured".into()),
        (
            "9 Update",
            "How and how often",
            "a new version with each change, now number ".to_owned() + &manifest.version.to_string(),
        ),
        (
            "",
            "How risks are corrected",
            "wrong labels are reported, listed and mended: see the datasheet".into(),
        ),
    ];
    Section::new("source-attributes", "Source attributes (HTI-1, CHAI)")
        .text("What 45 CFR 170.315(b)(11)(iv)(B) asks to be known, in short. This is no certified decision support.")
        .table(
            "Source attributes",
            &["Group", "Attribute", "What is known here"],
            rows.into_iter()
                .map(|(group, attribute, known)| vec![group.to_owned(), attribute.to_owned(), known])
                .collect(),
        )
}

fn interval(figure: Option<Interval>) -> String {
    figure.map_or(NONE.to_owned(), |Interval { value, low, high }| {
        format!("{} ({}–{})", share(value), share(low), share(high))
    })
}

fn share(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.3}")
    } else {
        NONE.to_owned()
    }
}

/// With a capital letter.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map_or(String::new(), |first| first.to_uppercase().chain(characters).collect())
}
