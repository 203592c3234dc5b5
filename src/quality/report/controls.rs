//! Queries with a part of the picture blacked out: how much of the accuracy remains.

use super::dots::{Dots, Row};
use super::page::Section;
use super::text::{available, escape, interval, maybe, share};
use crate::quality::evaluation::{Controls, Evaluation};

/// The section.
pub fn section(evaluation: &Evaluation) -> Section {
    Section {
        id: "controls",
        heading: "Blacked-out queries",
        how: "The middle of each query is blacked out, where a finding would be; the archive stays as it is. What is still told right above guessing is told \
              by something else: a border, a marker, a device. Remains: the share of the accuracy above guessing that is still there; 0 is best.",
        body: available(&evaluation.controls, plot),
    }
}

fn plot(controls: &Controls) -> String {
    let row = |(at, control): (usize, &crate::quality::evaluation::Control)| Row {
        head: format!(
            "{}<span class=\"fine\">{}</span>",
            escape(&control.name),
            escape(&control.sees)
        ),
        name: control.name.clone(),
        dots: vec![control.balanced_accuracy],
        cells: vec![
            interval(control.balanced_accuracy),
            interval(control.below_whole),
            maybe(control.remains),
        ],
        ours: at == 0,
    };
    let plot = Dots {
        caption: format!(
            "Balanced accuracy with 95 % intervals, {} queries. Dashed: guessing, {}",
            controls.queries,
            share(controls.by_guessing)
        ),
        of: "Query",
        drawn: "",
        scale: (0.0, 1.0),
        lines: vec![controls.by_guessing],
        columns: vec!["Balanced accuracy", "Below the whole picture", "Remains"],
        rows: controls.rows.iter().enumerate().map(row).collect(),
    };
    plot.html()
}
