//! Suggestions against the truth.

use super::dots::{Dots, Row, scale_for};
use super::marks::Marks;
use super::page::{Section, or_absent};
use super::text::{NONE, escape, interval, mean_count, percent};
use crate::quality::evaluation::Evaluation;

/// The confusion matrix.
pub fn confusion(evaluation: &Evaluation, marks: &Marks) -> Section {
    let classes = &evaluation.protocol.classes;
    let rows: String = classes
        .iter()
        .zip(&evaluation.decisions.confusion)
        .enumerate()
        .map(|(truth, (class, counts))| {
            let all: f64 = counts.iter().sum();
            let cells = counts
                .iter()
                .enumerate()
                .map(|(said, count)| cell(*count, all, truth == said));
            format!(
                "<tr><th scope=\"row\">{}</th>{}</tr>",
                marks.label(&class.class),
                cells.collect::<String>()
            )
        })
        .collect();
    let heads: String = classes
        .iter()
        .map(|class| format!("<th scope=\"col\">{}</th>", marks.label(&class.class)))
        .collect();
    let body = if rows.is_empty() {
        rows
    } else {
        let caption = "Rows: truth. Columns: suggestion. Images, mean over the seeds, and percent of the row";
        format!(
            "<div class=\"scroll\" role=\"region\" aria-label=\"Confusion matrix\" tabindex=\"0\"><table class=\"confusion\"><caption>{caption}</caption>\
             <thead><tr><th scope=\"col\">Truth</th>{heads}<th scope=\"col\">No suggestion</th></tr></thead><tbody>{rows}</tbody></table></div>\n"
        )
    };
    Section {
        id: "confusion",
        heading: "What is taken for what",
        how: "Each row is one class as it truly is; its cells say what was suggested for it. Right answers stand in the framed cells; the stronger the colour, the more. \
              Everything else in a row is a miss.",
        body: or_absent(body, "there are no classes."),
    }
}

fn cell(count: f64, all: f64, right: bool) -> String {
    let share = if all > 0.0 { count / all } else { f64::NAN };
    // By the root, so that the few mistakes can be seen too.
    let shade = if share.is_finite() {
        share.clamp(0.0, 1.0).sqrt()
    } else {
        0.0
    };
    let kind = if right { "right" } else { "wrong" };
    let percent = if share.is_nan() {
        NONE.to_owned()
    } else {
        percent(share)
    };
    format!(
        "<td class=\"{kind}\" style=\"--shade:{shade:.3}\"><strong>{}</strong><span>{percent}</span></td>",
        mean_count(count)
    )
}

/// Sensitivity, specificity and precision.
pub fn per_class(evaluation: &Evaluation, marks: &Marks) -> Section {
    let classes = &evaluation.decisions.per_class;
    let rows: Vec<Row> = classes
        .iter()
        .map(|class| {
            let dots = vec![class.sensitivity, class.specificity, class.precision];
            Row {
                head: marks.label(&class.class),
                name: format!("{}: sensitivity, specificity, precision", class.class),
                cells: dots.iter().map(|dot| interval(*dot)).collect(),
                dots,
                ours: false,
            }
        })
        .collect();
    let scale = scale_for(rows.iter().flat_map(|row| &row.dots));
    let body = if rows.is_empty() {
        String::new()
    } else {
        let plot = Dots {
            caption: format!(
                "One class against all others, with 95 % intervals. The scale begins at {}.",
                super::dots::short(scale.0)
            ),
            of: "Class",
            drawn: "",
            scale,
            lines: Vec::new(),
            columns: vec!["Sensitivity", "Specificity", "Precision"],
            rows,
        };
        plot.html() + &format!("<p class=\"fine\">Queries: {}.</p>\n", queries(evaluation))
    };
    Section {
        id: "classes",
        heading: "Each class against the others",
        how: "Sensitivity: of the images of a class, the share that was found. Specificity: of the other images, the share that was not taken for it. \
              Precision: of the suggestions of the class, the share that was right; it depends on how common the class is here.",
        body: or_absent(body, "there are no classes."),
    }
}

fn queries(evaluation: &Evaluation) -> String {
    let classes = evaluation.protocol.classes.iter();
    let classes: Vec<_> = classes
        .map(|class| format!("{} {}", escape(&class.class), super::text::count(class.queries)))
        .collect();
    classes.join(", ")
}
