//! A made-up evaluation, for tests and for looking at the page.

use crate::quality::calibration::Bin;
use crate::quality::evaluation::*;

const CLASSES: [(&str, usize); 4] = [
    ("COVID", 723),
    ("Lung_Opacity", 1203),
    ("Normal", 2038),
    ("Viral Pneumonia", 269),
];
const SOURCES: [&str; 5] = ["bimcv/padchest", "kaggle/rsna-2018", "sirm", "eurorad", "kermany"];

/// Every text ends with `mark`.
pub fn evaluation(mark: &str) -> Evaluation {
    let t = |text: &str| format!("{text}{mark}");
    Evaluation {
        protocol: protocol(mark),
        retrieval: [
            ("P@1", 0.951),
            ("P@5", 0.938),
            ("P@10", 0.926),
            ("mAP", 0.871),
            ("nDCG@10", 0.934),
            ("R-precision", 0.842),
        ]
        .iter()
        .map(|(name, value)| RetrievalFigure {
            name: t(name),
            definition: t("Share of the first that are of the query’s class, one per group."),
            micro: near(*value, 0.006),
            per_class_mean: near(value - 0.013, 0.009),
        })
        .collect(),
        decisions: decisions(mark),
        floors: floors(mark),
        less_learned: floors(mark).into_iter().take(1).collect(),
        confidence: Available::Yes(ConfidenceReport {
            raw: Reliability {
                ece: 0.061,
                ece_by_chance: 0.019,
                brier: 0.117,
                bins: bins(0.055),
            },
            calibrated: Reliability {
                ece: 0.014,
                ece_by_chance: 0.019,
                brier: 0.098,
                bins: bins(0.0),
            },
            method: t(
                "Multinomial logistic regression on the logarithms of the vote shares, fitted on four fifths of the groups and used on the fifth.",
            ),
        }),
        prediction_sets: [0.9, 0.95].iter().map(|level| sets(*level, mark)).collect(),
        selective: Selective {
            risk_coverage: (1..=100)
                .map(|at| (f64::from(at) / 100.0, 0.004 + 0.056 * (f64::from(at) / 100.0).powi(5)))
                .collect(),
            accuracy_at_80: Some(0.978),
            accuracy_at_90: Some(0.963),
            aurc: Some(0.0131),
            auroc_of_right: Some(0.884),
        },
        precision_recall: CLASSES
            .iter()
            .zip([0.981, 0.952, 0.973, 0.968])
            .map(|((class, count), ap)| PrecisionRecall {
                class: t(class),
                points: (0..=60)
                    .map(|at| f64::from(at) / 60.0)
                    .map(|r| (r, 1.0 - (1.0 - ap) * 4.0 * r.powi(6) - 0.01 * r))
                    .collect(),
                average_precision: Some(ap),
                prior: *count as f64 / 4233.0,
            })
            .collect(),
        shortcuts: Available::Yes(Shortcuts {
            source_accuracy: Some(0.943),
            source_majority: 0.412,
            robustness_index: Some(0.38),
            source_matched: vec![
                SourceMatched {
                    source: t("kaggle/rsna-2018"),
                    classes: vec![t("Lung_Opacity"), t("Normal")],
                    images: 2871,
                    balanced_accuracy: near(0.912, 0.012),
                },
                SourceMatched {
                    source: t("kermany"),
                    classes: vec![t("Normal"), t("Viral Pneumonia")],
                    images: 539,
                    balanced_accuracy: near(0.968, 0.017),
                },
            ],
            leave_source_out: vec![
                LeftOut {
                    source: t("sirm"),
                    images: 91,
                    hopeless: 0,
                    balanced_accuracy: near(0.571, 0.102),
                },
                LeftOut {
                    source: t("eurorad"),
                    images: 54,
                    hopeless: 3,
                    balanced_accuracy: near(0.624, 0.131),
                },
                LeftOut {
                    source: t("kermany"),
                    images: 270,
                    hopeless: 269,
                    balanced_accuracy: None,
                },
            ],
        }),
        controls: Available::Yes(Controls {
            by_guessing: 0.25,
            queries: 4233,
            rows: [
                ("whole picture", "everything", 0.932, Some(1.0)),
                ("center blacked out", "64 % of the area", 0.741, Some(0.72)),
                ("border only", "36 % of the area", 0.612, Some(0.531)),
            ]
            .iter()
            .map(|(name, sees, value, remains)| Control {
                name: t(name),
                sees: t(sees),
                accuracy: near(*value, 0.008),
                balanced_accuracy: near(*value, 0.008),
                below_whole: near(0.932 - value, 0.011),
                remains: *remains,
            })
            .collect(),
        }),
        leakage: vec![
            Leakage {
                guards: t("with every guard"),
                accuracy: near(0.934, 0.007),
                balanced_accuracy: near(0.932, 0.008),
                precision_at_1: near(0.926, 0.007),
            },
            Leakage {
                guards: t("without excluding the query's patient"),
                accuracy: near(0.957, 0.005),
                balanced_accuracy: near(0.951, 0.006),
                precision_at_1: near(0.972, 0.004),
            },
            Leakage {
                guards: t("without excluding either"),
                accuracy: near(0.974, 0.004),
                balanced_accuracy: near(0.969, 0.005),
                precision_at_1: near(0.991, 0.003),
            },
        ],
        outside: [
            ("photographs", 0.998, 0.004),
            ("skin lesions", 0.994, 0.018),
            ("hand radiographs", 0.962, 0.171),
            ("noise", 1.0, 0.0),
        ]
        .iter()
        .map(|(family, auroc, passed)| Outside {
            family: t(family),
            images: 200,
            auroc: Some(*auroc),
            false_positives_at_95: Some(*passed),
        })
        .collect(),
        index: Available::Yes(IndexReport {
            recall_at_10: 0.987,
            same_vote: 0.998,
            queries: 4233,
            graphs: t("HNSW, M 16, ef at construction 200, ef at search 96, one graph per class"),
        }),
        explanations: Some(Available::Yes(Explanations {
            method: t("cells"),
            images: 60,
            steps: 20,
            maps: ["explanation", "random", "uniform, faded", "uniform, by rows"]
                .iter()
                .enumerate()
                .map(|(at, name)| {
                    let figure = |value, low, high| Some(Interval { value, low, high });
                    let below = figure(0.08, 0.06, 0.1).filter(|_| at > 0);
                    MapFigures {
                        name: t(name),
                        sees: t("what it knows"),
                        insertion: figure(0.64 - 0.04 * at as f64, 0.5, 0.7),
                        deletion: figure(0.52 + 0.04 * at as f64, 0.4, 0.6),
                        insertion_below_explanation: below,
                        deletion_above_explanation: below,
                    }
                })
                .collect(),
        })),
        hardest: hardest(mark),
        notes: vec![
            t(
                "Most images of the class COVID come from sources without any other class: see Shortcuts before quoting the accuracy.",
            ),
            t("Patients are known for 3 616 of 21 165 images; the others count as one patient each."),
        ],
    }
}

/// There is nothing.
pub fn empty() -> Evaluation {
    let mut none = evaluation("");
    none.protocol.classes.clear();
    none.protocol.sources.clear();
    none.protocol.seeds.clear();
    none.protocol.what.clear();
    none.protocol.made_at.clear();
    none.retrieval.clear();
    none.decisions = Decisions {
        accuracy: None,
        balanced_accuracy: None,
        macro_f1: None,
        undecided: f64::NAN,
        per_class: Vec::new(),
        confusion: Vec::new(),
    };
    none.floors.clear();
    let bare = Reliability {
        ece: f64::NAN,
        ece_by_chance: f64::NAN,
        brier: f64::NAN,
        bins: Vec::new(),
    };
    none.confidence = Available::Yes(ConfidenceReport {
        raw: bare.clone(),
        calibrated: bare,
        method: String::new(),
    });
    none.prediction_sets.clear();
    none.selective = Selective {
        risk_coverage: Vec::new(),
        accuracy_at_80: None,
        accuracy_at_90: None,
        aurc: None,
        auroc_of_right: None,
    };
    none.precision_recall.clear();
    none.shortcuts = Available::no("no source is known.");
    none.controls = Available::no("no model was given.");
    none.leakage.clear();
    none.outside.clear();
    none.index = Available::no("the archive has no graphs.");
    none.hardest.clear();
    none.explanations = None;
    none.notes.clear();
    none
}

fn near(value: f64, half: f64) -> Option<Interval> {
    Some(Interval {
        value,
        low: value - half,
        high: (value + 0.9 * half).min(1.0),
    })
}

fn protocol(mark: &str) -> Protocol {
    let t = |text: &str| format!("{text}{mark}");
    Protocol {
        what: t("COVID-19 Radiography Database"),
        archive_version: 7,
        space: t("f3a9c1d2e4b5"),
        model: t("DenseNet-121, chest radiographs"),
        queries: 4233,
        images: 16_932,
        groups: 19_804,
        near_duplicates: Available::Yes(Copies {
            images: 37,
            not_compared: 2,
        }),
        images_with_patient: 3616,
        without_label: 12,
        classes: CLASSES
            .iter()
            .map(|(class, count)| ClassCount {
                class: t(class),
                queries: *count,
                images: count * 4,
                groups: count * 5 - 40,
            })
            .collect(),
        sources: SOURCES
            .iter()
            .enumerate()
            .map(|(at, source)| (t(source), 8851 / (at * at + 1)))
            .collect(),
        split: t(
            "A fifth of the groups asks, the others are the archive; patients and images of the same pixels stay together, and each class has its share in \
                  both. Five such splits, so that every image asks once.",
        ),
        seeds: vec![1, 2, 3, 4, 5],
        metric: Some(LearnedMetric {
            method: t("within-class whitening"),
            chosen: vec![Chosen {
                space: t("densenet121"),
                shrinkage: 0.8,
                training_sets: 25,
            }],
            tried: vec![Tried {
                space: t("densenet121"),
                shrinkage: 0.8,
                balanced_accuracy: 0.87,
                least: 0.84,
                most: 0.9,
            }],
        }),
        k: 10,
        vote: t("weighed by similarity"),
        resamples: 1000,
        made_at: t("2026-11-23T10:15:00Z"),
    }
}

fn decisions(mark: &str) -> Decisions {
    let confusion = vec![
        vec![672.0, 22.4, 18.0, 2.6, 8.0],
        vec![14.2, 1098.0, 68.8, 4.0, 18.0],
        vec![6.0, 71.6, 1931.4, 11.0, 18.0],
        vec![1.0, 3.0, 9.0, 252.0, 4.0],
    ];
    let figures = [
        (0.929, 0.994, 0.969),
        (0.913, 0.968, 0.919),
        (0.948, 0.956, 0.953),
        (0.937, 0.996, 0.935),
    ];
    Decisions {
        accuracy: near(0.934, 0.007),
        balanced_accuracy: near(0.932, 0.009),
        macro_f1: near(0.938, 0.008),
        undecided: 0.0113,
        per_class: CLASSES
            .iter()
            .zip(figures)
            .map(|((class, _), (sensitivity, specificity, precision))| ClassDecisions {
                class: format!("{class}{mark}"),
                sensitivity: near(sensitivity, 0.019),
                specificity: near(specificity, 0.005),
                precision: near(precision, 0.015),
            })
            .collect(),
        confusion,
    }
}

fn floors(mark: &str) -> Vec<Floor> {
    let t = |text: &str| format!("{text}{mark}");
    let figures = |accuracy, balanced, lists: Option<f64>| {
        Available::Yes(FloorFigures {
            accuracy: near(accuracy, 0.008),
            balanced_accuracy: near(balanced, 0.011),
            macro_f1: near(balanced - 0.02, 0.01),
            precision_at_10: lists.and_then(|lists| near(lists, 0.006)),
            below_ours: near(0.932 - balanced, 0.014),
        })
    };
    let floor = |name: &str, sees: &str, figures| Floor {
        name: t(name),
        sees: t(sees),
        figures,
    };
    vec![
        floor(
            "Majority class",
            "nothing: always the most common class",
            figures(0.481, 0.25, None),
        ),
        floor(
            "Random retrieval",
            "nothing: neighbors are drawn",
            figures(0.398, 0.251, Some(0.351)),
        ),
        floor(
            "32×32 grey thumbnail",
            "a picture too small for disease",
            figures(0.804, 0.781, Some(0.772)),
        ),
        floor("Source oracle", "the source alone", figures(0.781, 0.742, None)),
        floor(
            "Untrained network",
            "the same layers with random weights",
            Available::no(t("no such model was given.")),
        ),
    ]
}

fn bins(shift: f64) -> Vec<Bin> {
    (0..10)
        .map(|at| {
            let confidence: f64 = 0.41 + 0.59 * (f64::from(at) / 9.0).powf(0.4);
            let wobble = 0.012 * f64::from(at * 7 % 5 - 2);
            Bin {
                images: 2110 + (at as usize * 37) % 50,
                confidence,
                accuracy: (confidence - shift * (1.3 - confidence) * 4.0 + wobble).min(1.0),
            }
        })
        .collect()
}

fn sets(level: f64, mark: &str) -> PredictionSets {
    let coverage = [level + 0.012, level - 0.006, level + 0.004, level + 0.021];
    PredictionSets {
        level,
        mean_class_coverage: Some(level + 0.008),
        per_class: CLASSES
            .iter()
            .zip(coverage)
            .map(|((class, count), coverage)| ClassCoverage {
                class: format!("{class}{mark}"),
                coverage: (level < 0.93 || *class != "Viral Pneumonia").then_some(coverage),
                calibration_groups: if *class == "Viral Pneumonia" { 17 } else { count * 4 },
            })
            .collect(),
        mean_size: 1.04 + (level - 0.9) * 3.0,
        empty: 0.041 - (level - 0.9) * 0.6,
        too_large: 0.009,
        sizes: vec![
            0.041 - (level - 0.9) * 0.6,
            0.884 - (level - 0.9),
            0.066 + (level - 0.9) * 1.6,
            0.009,
            0.0,
        ],
    }
}

fn hardest(mark: &str) -> Vec<HardCase> {
    let picture = |at: usize, class: &str, similarity: f32| Picture {
        id: format!("{class}-{:04}.png{mark}", 311 + at * 97),
        file: (at % 2 == 1).then(|| format!("{class}/{at}.png{mark}")),
        class: format!("{class}{mark}"),
        source: (at % 3 != 1).then(|| format!("{}{mark}", SOURCES[at % SOURCES.len()])),
        similarity,
        thumbnail: (at % 7 != 5).then(|| thumbnail(at)),
    };
    let cases = [
        ("COVID", Some("Normal"), 1.0),
        ("Lung_Opacity", Some("Normal"), 0.987),
        ("Viral Pneumonia", None, 0.52),
    ];
    let case = |(at, (truth, said, confidence)): (usize, &(&str, Option<&str>, f64))| HardCase {
        query: picture(at * 3, truth, 1.0),
        suggested: said.map(|said| format!("{said}{mark}")),
        confidence: *confidence,
        neighbors: (0..5)
            .map(|rank| {
                picture(
                    at * 6 + rank + 1,
                    if rank == 3 { truth } else { said.unwrap_or("Normal") },
                    0.962 - 0.011 * rank as f32,
                )
            })
            .collect(),
    };
    cases.iter().enumerate().map(case).collect()
}

/// Something like a chest, 32 pixels wide.
fn thumbnail(at: usize) -> String {
    format!("data:image/png;base64,{}", CHESTS[at % CHESTS.len()])
}

#[rustfmt::skip]
const CHESTS: [&str; 3] = [
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAACM0lEQVR42oWTkZfrQBTGBxYKhYVCIDAQCAQCgcDAwMDAQCAQGAgMBAIDhUIgECgsLBQCgUChUAgUFgqFQqGw8KCwUNw/491J2rfpeT1nQ7mTX+5379zvIoSmluOHlEdxkuZV01R5msQRp6HvWFMEz2SGvYByAd+VXrbtUisgBKeBh2cTNCQgTESJVPnifbN5X+RKJpFgZEjx8tonMAKZLlbb7arQ2SACKV5f0OSWIIql0mXddXWplYyjW4oJmtquqUCARqrLZrdrSp2CgjBVuPYUgULIOGeMCZmX7cdHW+ZSQAhnIWigmVHglISERaps9/u2VBGDkHKjMUOWE1AGr54fclm0h0NbSB5CSBijgWMhUwK8uY7r03hhgEVMfQiHYxvZUIIRw44XCt0cDo0WoedgPJzbCHvEpLJt7AY8b47HJueBi23bSBMPIwxi1McWAD7L6uOxzpgPgIV9AHyMTBPEs3uAKgMo2gM2pIY2BsC9AelqBLhjwOoB8g9wngM0rU+nJuOB9x9wr6E5f651REDjsYZbkSxrPy9dkTDTJ74BozYDrjeX6/4tEwQ07m2OL0rMt1/fp3qeUN+BkPUXNbpqEhfd9fu8hmkFrgs/9lc9HpYsd18AlErAOO/DGo87rbrL9bSuVESD4D7ukWHibLk9/9k3ZRYzAoeDYR4sV22Op25VZIn4sdzItEpX7f6weVvkMv4x7aPtjaureb8Xd9v/ujhPVy8drd7T5ZXj5f1l/f8CRgkrvOYdRBMAAAAASUVORK5CYII=",
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAACkElEQVR42oVTkYLrQBQdWCgUFgqBQGAgEAgMDAwMDAwEAoVAIBAIBAKFQqBQCBQKhUKgsFAoFBYKgYWFheLCg8KDhfcZ79xJt/vshTKTk3PPvfccxtjU47HUNp1nRb3u+3VdZPPUahlzb8rwTGZBJLRJ8L1susOha0ogEqNFFMwmbCRQBgR5US23x+N2WRU5KIwaKZ6eHYElhrrdnU67lmok1lE8P7GJU2AsEADsz+c9APgOAKmYsKkfCmWMhoqsavvX176tsoTORonQnzJUkForKaVOi7a/XPq2SDWOSmuJGmwGiVqJOIqlyRb9MPSLzEgcBa5jPmMex5uMQh7GKm32w7BvUhXjCGIluMdIAooFAQ+FrQhQWRHyIBjvfeYTMgp8PwhjU+6GYVeaOKRzRMw+I40y9D0v4LEutsOwLXTMA8/zQ0kqWQCNKEWASOWby2WTq4gAEAeVAUMTpMVDiUhldwBKzEg92hgBxMij+BsQO0DwAGgA6LsAABpyjS5JFJW4AzgKCMwy3769oQsREYD/AGQYuHmaYvf+cagTqgHOfwARD6UxJqn66+epxahpMGiTANQm/ogkNp42L5+3y6bCrPnIiTbdMgWtytpsebp9ve8XucGwQ+HW6UaNzZNpknx1vv25vqxKqEDTxo0ay9J4E1KZtFy/3r6ux66e0wWuaVnUDQyllLbzqjv/+v3x0jWZ1Ypuad0z52lr4Ou86U7XzwHGz1OLxzjDkOXg6SRJs3LRHd8/zvt1U2ZpAl87y5FptU0oV9VifRjejpu2KRGMxGpn2onLDf7Py3qxIlevl/dsKWf7MTiWAFXjgrNq6jLPkM4xOPfouWjWY/TqH4LpI7wum4/wUjYf4f1P/P8Cd2QoeO4JwOkAAAAASUVORK5CYII=",
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAACoElEQVR42lWTkZ/jQBTHBxYKhYVAIBAIBAKBwMDAwEBgIBAIDAQCgUChECgUCoFAoLBQWFgIBAKBhYWFhYXCwcHCwsHC/Rn3e9PNfe4qbWa+/b338n4/xtjWDWIuU50XZXO6XE5NWeQ6lTwO3C3DZ+P4USJUmuWm2nWPj92uMnmWKpFEvrNhq4AF6n0/jv2+tsAqcXdPAlIpnZm6HaZpaGuTaaUkSdzfsQ0JCCGkTPOqPc/zua3yVEockcSGbb0w4YInCZfa7M/Lct4bLekZh6G3ZVSB8ziKYq7yHQG7XN2eOdVgTkC/wiAII6EbAhotInqm/wUOoxaSKPA8P0xUNSzLUKkk9D0vgDKaYNQCarmuH8TS9MvSGxkHvut+XzCPQN91XPxFFN08d4WAIA58kvaYH3GOV2YBnp/m+ZRzCzi3GwaORx4An4DjNFkAko4HIPYZDREC8DCGBY4AQguENMYKuH4YxQIASogYU/wHRB7uMbYsTrbJOAy87xIECLQCGutRpnt+HkpF7wVzR1zcAHwFcVoUWpfD6+tDk1ENTGVvLJBEkcirqsibh/freDApDYqiFvBjgc3HsmhqY/ZPPz6e+yaXtBzYSGBMVJIS/UGhrA7Tx9fbpS01rZPO8aLQq4R7VGaMqU/z5+/r2DVYOPwA1+FVYyfwGxxHpu6Wz6/r1JNlyIWSluUGANI01VlR7vr549f7OMB0GkcAsG4YRiits5upp+vPl6e+JV9rrQQZBpbjcHRemKppu/HtfXnoWsoOnM3JcmRaSaEoawCPL6/jcNw3lSmyVFrTku1RwwL742VZLl27qxEuWwG2t8GBRFFW9e5wnqYzCZRWwAbHRu8mgSaGETPgfhXYruG9dbGGt6RwyjW8a/yzf+Of/Y3/H7VRJRyFgfOvAAAAAElFTkSuQmCC",
];
