//! What stands behind the figures: lists of neighbors, notes, protocol.

use super::marks::Marks;
use super::page::{Section, or_absent, table};
use super::text::{count, escape, interval, name, plural};
use crate::quality::evaluation::{Available, Evaluation, Protocol};

/// How good the lists are.
pub fn retrieval(evaluation: &Evaluation) -> Section {
    let rows = evaluation.retrieval.iter().map(|figure| {
        let head = format!(
            "{}<span class=\"fine\">{}</span>",
            escape(&figure.name),
            escape(&figure.definition)
        );
        vec![head, interval(figure.micro), interval(figure.per_class_mean)]
    });
    let heads = ["Figure", "Mean over images", "Mean over classes"];
    let body = if evaluation.retrieval.is_empty() {
        String::new()
    } else {
        table("Lists of neighbors, with 95 % intervals", &heads, rows)
    };
    Section {
        id: "retrieval",
        heading: "Retrieval",
        how: "How good the lists of neighbors are before any vote. A mean over images is ruled by the common classes; a mean over classes counts rare ones as much.",
        body: or_absent(body, "no lists were scored."),
    }
}

/// What a reader has to know.
pub fn notes(evaluation: &Evaluation) -> Section {
    let notes: String = evaluation
        .notes
        .iter()
        .map(|note| format!("<li>{}</li>", escape(note)))
        .collect();
    let body = if notes.is_empty() {
        "<p>None.</p>\n".to_owned()
    } else {
        format!("<ul class=\"notes\">{notes}</ul>\n")
    };
    Section {
        id: "notes",
        heading: "Notes",
        how: "What limits these figures, or sets them apart from those of others.",
        body,
    }
}

/// What was learned, and how often which way of learning was best.
fn metric(protocol: &Protocol) -> String {
    let Some(metric) = &protocol.metric else {
        return "none: the model's vectors are compared as they are".to_owned();
    };
    let chosen = metric.chosen.iter().map(|chosen| {
        format!(
            "{} at shrinkage {} ({})",
            escape(&chosen.space),
            chosen.shrinkage,
            plural(chosen.training_sets, "training set")
        )
    });
    let chosen: Vec<String> = chosen.collect();
    let tried = metric.tried.iter().map(|tried| {
        format!(
            "{} at shrinkage {}: {:.3} ({:.3} to {:.3})",
            escape(&tried.space),
            tried.shrinkage,
            tried.balanced_accuracy,
            tried.least,
            tried.most
        )
    });
    let tried: Vec<String> = tried.collect();
    format!(
        "{}. Chosen: {}. Tried, with the balanced accuracy within the training sets: {}",
        escape(&metric.method),
        chosen.join(", "),
        tried.join("; ")
    )
}

/// Enough to do it again.
pub fn protocol(evaluation: &Evaluation, marks: &Marks) -> Section {
    let protocol = &evaluation.protocol;
    let seeds: Vec<String> = protocol.seeds.iter().map(u64::to_string).collect();
    let facts = [
        ("Evaluated", escape(&protocol.what)),
        ("Made at", escape(&protocol.made_at)),
        ("Archive version", protocol.archive_version.to_string()),
        ("Model", escape(&protocol.model)),
        ("Space", format!("<code>{}</code>", escape(&protocol.space))),
        ("Split", escape(&protocol.split)),
        ("Metric", metric(protocol)),
        (
            "Vote",
            format!(
                "{} neighbors, one per group; {}",
                count(protocol.k),
                escape(&protocol.vote)
            ),
        ),
        ("Queries", count(protocol.queries)),
        ("Images to be found", count(protocol.images)),
        ("Groups", count(protocol.groups)),
        (
            "Near duplicates",
            match &protocol.near_duplicates {
                Available::Yes(copies) => plural(copies.images, "image"),
                Available::No { not_available } => escape(not_available),
            },
        ),
        ("Images with a known patient", count(protocol.images_with_patient)),
        ("Left out without a label", count(protocol.without_label)),
        (
            "Seeds",
            if seeds.is_empty() {
                super::text::NONE.to_owned()
            } else {
                seeds.join(", ")
            },
        ),
        ("Resamples", count(protocol.resamples)),
    ];
    let facts = facts
        .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{value}</dd></div>"))
        .concat();
    let classes = protocol.classes.iter().map(|class| {
        vec![
            marks.label(&class.class),
            count(class.queries),
            count(class.images),
            count(class.groups),
        ]
    });
    let classes = or_table(
        protocol.classes.is_empty(),
        "there are no classes.",
        table(
            "What there is of each class",
            &["Class", "Queries", "Images", "Groups"],
            classes,
        ),
    );
    let sources = protocol
        .sources
        .iter()
        .map(|(source, images)| vec![name(source), count(*images)]);
    let sources = or_table(
        protocol.sources.is_empty(),
        "no source is known.",
        table("Images of each source", &["Source", "Images"], sources),
    );
    Section {
        id: "protocol",
        heading: "Protocol",
        how: "Who was asked about whom: enough to do it again.",
        body: format!("<dl class=\"protocol\">{facts}</dl>\n<h3>Classes</h3>\n{classes}<h3>Sources</h3>\n{sources}"),
    }
}

fn or_table(empty: bool, why: &str, table: String) -> String {
    or_absent(if empty { String::new() } else { table }, why)
}
