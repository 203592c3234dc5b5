//! The confident mistakes, as pictures.

use super::marks::Marks;
use super::page::{Section, or_absent};
use super::text::{escape, name, share};
use crate::quality::evaluation::{Evaluation, HardCase, Picture};

/// Each query beside its neighbors.
pub fn hardest(evaluation: &Evaluation, marks: &Marks) -> Section {
    let cases: String = evaluation.hardest.iter().map(|hard| case(hard, marks)).collect();
    Section {
        id: "hardest",
        heading: "Hardest cases",
        how: "The mistakes with the greatest confidence, one of each patient, worst first: the query, then its nearest neighbors with their classes and similarities. Look for wrong \
              labels, devices and markings that are alike, and findings that are hard for people too.",
        body: or_absent(cases, "there are no mistakes to show."),
    }
}

fn case(case: &HardCase, marks: &Marks) -> String {
    let said = match &case.suggested {
        Some(class) => format!(
            "suggested: {} at a confidence of {}",
            marks.label(class),
            share(case.confidence)
        ),
        None => "no suggestion".to_owned(),
    };
    let query = picture(&case.query, "Query", "", marks);
    let neighbors = case.neighbors.iter().enumerate().map(|(at, neighbor)| {
        let rank = format!("{}", at + 1);
        let similarity = share(f64::from(neighbor.similarity));
        format!("<li>{}</li>", picture(neighbor, &rank, &similarity, marks))
    });
    format!(
        "<article class=\"case\"><h3>{}<span class=\"but\">{said}</span></h3><div class=\"seen\">{query}<ol>{}</ol></div></article>\n",
        marks.label(&case.query.class),
        neighbors.collect::<String>(),
    )
}

/// A picture with its class and what else is known of it.
pub fn picture(picture: &Picture, rank: &str, similarity: &str, marks: &Marks) -> String {
    // Nothing but pixels may come in by an address.
    let well = match picture
        .thumbnail
        .as_deref()
        .filter(|url| url.starts_with("data:image/"))
    {
        Some(url) => format!(
            "<img src=\"{}\" alt=\"{} {}, {}\">",
            escape(url),
            rank,
            escape(&picture.id),
            escape(&picture.class)
        ),
        None => "<p>pixels not kept</p>".to_owned(),
    };
    let source = picture
        .source
        .as_deref()
        .map(|source| format!(" · {}", name(source)))
        .unwrap_or_default();
    format!(
        "<figure><div class=\"well\">{well}</div><figcaption><span class=\"what\"><span>{rank}</span><span class=\"figure\">{similarity}</span></span>{}\
         <span class=\"fine\">{}{source}</span></figcaption></figure>",
        marks.label(&picture.class),
        name(picture.file.as_ref().unwrap_or(&picture.id)),
    )
}
