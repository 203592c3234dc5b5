//! Whether the confidence can be relied on, and what it is good for.

use super::dots::{Dots, Row, point, scale_for};
use super::marks::Marks;
use super::page::{Section, facts, or_absent, table};
use super::plots;
use super::text::{available, count, escape, maybe, percent, share};
use crate::quality::evaluation::{ClassCoverage, Evaluation, PredictionSets, Reliability};

/// The reliability diagrams.
pub fn calibration(evaluation: &Evaluation) -> Section {
    let body = available(&evaluation.confidence, |report| {
        format!(
            "<div class=\"pair\">{}{}</div>\n<p><strong>Calibration.</strong> {}</p>\n",
            reliability("Share of the votes, as it is", &report.raw),
            reliability("Calibrated", &report.calibrated),
            escape(&report.method),
        )
    });
    Section {
        id: "calibration",
        heading: "Calibration",
        how: "Of the answers with a confidence of 0.8, eight of ten should be right: dots on the dashed diagonal. Dots below it are answers more confident \
              than they may be. The bars on the ground say how many images a dot stands for.",
        body,
    }
}

fn reliability(name: &str, figures: &Reliability) -> String {
    let verdict = if figures.ece <= figures.ece_by_chance {
        "no more than chance alone makes"
    } else if figures.ece > figures.ece_by_chance {
        "more than chance alone makes"
    } else {
        "not to be judged"
    };
    let rows = figures
        .bins
        .iter()
        .map(|bin| vec![share(bin.confidence), share(bin.accuracy), count(bin.images)]);
    let numbers = [
        (
            "ECE",
            share(figures.ece),
            format!("by chance up to {}: {verdict}", share(figures.ece_by_chance)),
        ),
        (
            "Brier score",
            share(figures.brier),
            "over all classes, 0 is best, 2 is worst".to_owned(),
        ),
    ];
    format!(
        "<div><h3>{name}</h3>{}{}<details><summary>Bins</summary>{}</details></div>",
        plots::reliability(&format!("Reliability diagram. {name}"), &figures.bins),
        facts(&numbers),
        table(
            &format!("{name}: bins"),
            &["Mean confidence", "Share right", "Images"],
            rows
        ),
    )
}

/// The risk-coverage curve.
pub fn selective(evaluation: &Evaluation) -> Section {
    let selective = &evaluation.selective;
    let marked = [(0.8, selective.accuracy_at_80), (0.9, selective.accuracy_at_90)];
    let plot = plots::risk_coverage(
        "Error rate against the share of queries that is answered",
        &selective.risk_coverage,
        &marked,
    );
    let numbers = [
        (
            "Accuracy at 80&nbsp;%",
            maybe(selective.accuracy_at_80),
            "of the most confident 80&nbsp;% (dot)".to_owned(),
        ),
        (
            "Accuracy at 90&nbsp;%",
            maybe(selective.accuracy_at_90),
            "of the most confident 90&nbsp;% (dot)".to_owned(),
        ),
        (
            "AURC",
            maybe(selective.aurc),
            "area under the curve, 0 is best".to_owned(),
        ),
        (
            "Right from wrong",
            maybe(selective.auroc_of_right),
            "AUROC of confidence; 0.5 is a coin".to_owned(),
        ),
    ];
    Section {
        id: "selective",
        heading: "Answering only when sure",
        how: "From left to right more and more queries are answered, the most confident first. A curve that stays low and rises late knows what it does not \
              know; dashed is the error rate when all are answered.",
        body: format!(
            "<div class=\"pair wide-plot\"><div>{plot}</div><div>{}</div></div>\n",
            facts(&numbers)
        ),
    }
}

/// A curve for each class.
pub fn precision_recall(evaluation: &Evaluation, marks: &Marks) -> Section {
    let plots = evaluation.precision_recall.iter().map(|class| {
        let title = format!(
            "Precision against recall of {}, average precision {}",
            class.class,
            maybe(class.average_precision)
        );
        format!(
            "<div><h3>{}</h3>{}<p class=\"fine\">Average precision <strong>{}</strong>; without knowledge {}</p></div>",
            marks.label(&class.class),
            plots::precision_recall(&title, &marks.colour(&class.class), &class.points, class.prior),
            maybe(class.average_precision),
            share(class.prior),
        )
    });
    let plots: String = plots.collect();
    let body = if plots.is_empty() {
        plots
    } else {
        format!("<div class=\"few\">{plots}</div>\n")
    };
    Section {
        id: "precision-recall",
        heading: "Precision and recall",
        how: "All queries in the order of the share of votes for a class: how many of the class are found (recall), and how many of those found are of it \
              (precision). Dashed: the share of the class, which needs no knowledge.",
        body: or_absent(body, "there are no classes."),
    }
}

/// Coverage and sizes at each level.
pub fn prediction_sets(evaluation: &Evaluation, marks: &Marks) -> Section {
    let levels: String = evaluation
        .prediction_sets
        .iter()
        .map(|sets| level(sets, marks))
        .collect();
    Section {
        id: "sets",
        heading: "Prediction sets",
        how: "Instead of one suggestion, all classes that cannot be ruled out. The promise: of each class’s patients, at least this share finds the true class in \
              its set. Dots should be on the dashed line or right of it; the smaller the sets, the more they say.",
        body: or_absent(levels, "no sets were made."),
    }
}

fn level(sets: &PredictionSets, marks: &Marks) -> String {
    let dots: Vec<_> = sets.per_class.iter().map(|class| point(class.coverage)).collect();
    let promise = point(Some(sets.level));
    let scale = scale_for(dots.iter().chain(std::iter::once(&promise)));
    let plot = Dots {
        caption: format!(
            "Coverage of each class. Dashed: the promise, {}. The scale begins at {}.",
            share(sets.level),
            super::dots::short(scale.0)
        ),
        of: "Class",
        drawn: "",
        scale,
        lines: vec![sets.level],
        columns: vec!["Coverage", "Kept?", "Groups to calibrate on"],
        rows: sets
            .per_class
            .iter()
            .zip(dots)
            .map(|(class, dot)| coverage(class, sets.level, dot, marks))
            .collect(),
    };
    let plot = if sets.per_class.is_empty() {
        String::new()
    } else {
        plot.html()
    };
    let sizes = sets.sizes.iter().enumerate().map(|(size, part)| {
        let name = if size == 1 {
            "1 class".to_owned()
        } else {
            format!("{size} classes")
        };
        let bar = plots::bar(&format!("{name}: {}", percent(*part)), *part);
        format!(
            "<tr><th scope=\"row\">{name}</th><td class=\"drawn\">{bar}</td><td>{}</td></tr>",
            percent(*part)
        )
    });
    let numbers = [
        (
            "Coverage",
            maybe(sets.mean_class_coverage),
            "mean over classes with thresholds".to_owned(),
        ),
        ("Size", share(sets.mean_size), "classes in a set, on average".to_owned()),
        ("Empty", percent(sets.empty), "nothing is like it".to_owned()),
        (
            "Too large",
            percent(sets.too_large),
            "all classes, or three: nothing said".to_owned(),
        ),
    ];
    format!(
        "<h3>{} promised</h3>\n{}<div class=\"pair uneven\"><div>{plot}</div><div><table class=\"sizes\"><caption>Sizes of the sets</caption>\
         <thead><tr><th scope=\"col\">Size</th><th scope=\"col\"><span class=\"sr\">Drawn</span></th><th scope=\"col\">Queries</th></tr></thead>\
         <tbody>{}</tbody></table></div></div>\n",
        share(sets.level),
        facts(&numbers),
        sizes.collect::<String>(),
    )
}

fn coverage(
    class: &ClassCoverage,
    level: f64,
    dot: Option<crate::quality::evaluation::Interval>,
    marks: &Marks,
) -> Row {
    let kept = match class.coverage {
        None => "too few groups",
        Some(coverage) if coverage >= level => "yes",
        Some(coverage) if coverage < level => "below",
        Some(_) => super::text::NONE,
    };
    Row {
        head: marks.label(&class.class),
        name: class.class.clone(),
        dots: vec![dot],
        cells: vec![maybe(class.coverage), kept.to_owned(), count(class.calibration_groups)],
        ours: false,
    }
}
