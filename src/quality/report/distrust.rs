//! What the figures could owe to something other than disease: sources, leaks, images from elsewhere, the graphs.

use super::dots::{Dots, Row, point};
use super::page::{Section, facts, or_absent};
use super::text::{NONE, available, count, escape, interval, maybe, name, percent, plural, share};
use crate::quality::evaluation::{Evaluation, Interval, Shortcuts};

/// Sources.
pub fn shortcuts(evaluation: &Evaluation) -> Section {
    Section {
        id: "shortcuts",
        heading: "Shortcuts",
        how: "A device or hospital leaves traces in an image. Where sources hold different diseases, a method can look right by telling the source. Within one \
              source it can’t; asked about a source that the archive does not hold, it may not rely on it.",
        body: available(&evaluation.shortcuts, sources),
    }
}

fn sources(shortcuts: &Shortcuts) -> String {
    let numbers = [
        (
            "Source told",
            maybe(shortcuts.source_accuracy),
            format!(
                "of queries whose neighbors betray their source; always saying the largest: {}",
                share(shortcuts.source_majority)
            ),
        ),
        (
            "Robustness index",
            maybe(shortcuts.robustness_index),
            robustness(shortcuts.robustness_index).to_owned(),
        ),
    ];
    let matched = shortcuts.source_matched.iter().map(|task| Row {
        head: format!(
            "{}<span class=\"fine\">{}</span>",
            name(&task.source),
            escape(&task.classes.join(" / "))
        ),
        name: task.source.clone(),
        dots: vec![task.balanced_accuracy],
        cells: vec![
            interval(task.balanced_accuracy),
            blind(task.classes.len()),
            count(task.images),
        ],
        ours: false,
    });
    let left_out = shortcuts.leave_source_out.iter().map(|source| Row {
        head: name(&source.source),
        name: source.source.clone(),
        dots: vec![source.balanced_accuracy],
        cells: vec![
            interval(source.balanced_accuracy),
            count(source.images),
            count(source.hopeless),
        ],
        ours: false,
    });
    let columns = vec!["Balanced accuracy", "By guessing", "Images"];
    let matched = plot(
        "Classes told apart within one source, with 95 % intervals",
        columns,
        matched.collect(),
        "no source holds two classes.",
    );
    let columns = vec!["Balanced accuracy", "Images", "Of classes only it has"];
    let left_out = plot(
        "Each source asked about with the others alone as archive, with 95 % intervals",
        columns,
        left_out.collect(),
        "there is one source, or none.",
    );
    format!(
        "{}<h3>Within one source</h3>\n{matched}<h3>Each source left out</h3>\n{left_out}",
        facts(&numbers)
    )
}

fn robustness(index: Option<f64>) -> &'static str {
    match index {
        Some(index) if index > 1.0 => "above 1: disease counts more than source",
        Some(index) if index <= 1.0 => "1 or below: source counts as much as disease, or more",
        _ => "needs classes in several sources, and sources with several classes",
    }
}

/// Balanced accuracy without knowledge.
fn blind(classes: usize) -> String {
    if classes == 0 {
        NONE.to_owned()
    } else {
        share(1.0 / classes as f64)
    }
}

fn plot(caption: &str, columns: Vec<&str>, rows: Vec<Row>, without: &str) -> String {
    if rows.is_empty() {
        return super::text::not_there(without);
    }
    let plot = Dots {
        caption: caption.to_owned(),
        of: "Source",
        drawn: "",
        scale: (0.0, 1.0),
        lines: Vec::new(),
        columns,
        rows,
    };
    plot.html()
}

/// Guards taken away.
pub fn leakage(evaluation: &Evaluation) -> Section {
    let rows: Vec<Row> = (evaluation.leakage.iter().enumerate())
        .map(|(at, leak)| {
            leak_row(
                &leak.guards,
                [leak.balanced_accuracy, leak.accuracy, leak.precision_at_1],
                at == 0,
            )
        })
        .collect();
    let guarded = evaluation.leakage.first().and_then(|leak| leak.balanced_accuracy);
    let scale = super::dots::scale_for(rows.iter().flat_map(|row| &row.dots));
    let plot = Dots {
        caption: format!(
            "Balanced accuracy with 95 % intervals. Dashed: with every guard. The scale begins at {}.",
            super::dots::short(scale.0)
        ),
        of: "Evaluation",
        drawn: "",
        scale,
        lines: guarded.map(|guarded| guarded.value).into_iter().collect(),
        columns: vec!["Balanced accuracy", "Accuracy", "Precision of the first"],
        rows,
    };
    let body = if evaluation.leakage.is_empty() {
        String::new()
    } else {
        plot.html()
    };
    Section {
        id: "leakage",
        heading: "Leakage",
        how: "Images of the same patient, or the same image twice, are easy to find and prove nothing, so they are kept apart. This is how much better it would \
              look were they not, each image asked about in the whole archive.",
        body: or_absent(body, "no guard was taken away."),
    }
}

fn leak_row(name: &str, figures: [Option<Interval>; 3], ours: bool) -> Row {
    let head = if ours {
        format!("<strong>{}</strong>", escape(name))
    } else {
        escape(name)
    };
    Row {
        head,
        name: name.to_owned(),
        dots: vec![figures[0]],
        cells: figures.map(interval).to_vec(),
        ours,
    }
}

/// Images that do not belong here.
pub fn outside(evaluation: &Evaluation) -> Section {
    let rows: Vec<Row> = evaluation
        .outside
        .iter()
        .map(|family| Row {
            head: format!(
                "{}<span class=\"fine\">{}</span>",
                name(&family.family),
                plural(family.images, "image")
            ),
            name: format!("{}: AUROC, false positives at 95 %", family.family),
            dots: vec![point(family.auroc), point(family.false_positives_at_95)],
            cells: vec![maybe(family.auroc), maybe(family.false_positives_at_95)],
            ours: false,
        })
        .collect();
    let plot = Dots {
        caption: "Families of images that do not belong here. Dashed: an AUROC of 0.5, chance".to_owned(),
        of: "Family",
        drawn: "",
        scale: (0.0, 1.0),
        lines: vec![0.5],
        columns: vec!["AUROC", "Let through at 95 %"],
        rows,
    };
    let body = if evaluation.outside.is_empty() {
        String::new()
    } else {
        plot.html()
    };
    Section {
        id: "outside",
        heading: "Images that do not belong here",
        how: "Photographs, other body parts, other devices. AUROC: how often an image of the archive looks more at home than one of the family; 1 is best. Let \
              through: the share of the family that passes when 95&nbsp;% of the archive’s own images do; 0 is best.",
        body: or_absent(body, "no such images were given."),
    }
}

/// The graphs against the exact scan.
pub fn index(evaluation: &Evaluation) -> Section {
    let body = available(&evaluation.index, |index| {
        let numbers = [
            (
                "Recall of the first ten",
                share(index.recall_at_10),
                "of the exact ten that the graphs find too".to_owned(),
            ),
            (
                "Same vote",
                percent(index.same_vote),
                format!("of {}", plural(index.queries, "query").replace("querys", "queries")),
            ),
        ];
        facts(&numbers) + &format!("<p><strong>Graphs.</strong> {}</p>\n", escape(&index.graphs))
    });
    Section {
        id: "index",
        heading: "Index",
        how: "A search by graphs is fast and may miss a neighbor that a scan of everything finds. All other figures are of the exact scan; this is how far the \
              graphs agree with it.",
        body,
    }
}
