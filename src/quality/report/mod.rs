//! An [`Evaluation`] as a page that stands alone: no script, nothing loaded from elsewhere, to be looked at rather than read. Pure.

mod background;
mod cases;
mod confidence;
mod controls;
mod decisions;
mod distrust;
mod dots;
mod duplicates;
mod explained;
#[cfg(test)]
mod fake;
mod marks;
mod overview;
mod page;
mod plots;
#[cfg(test)]
mod tests;
mod text;

pub use duplicates::html as duplicates_html;

use super::evaluation::Evaluation;
use marks::Marks;

/// The page.
pub fn html(evaluation: &Evaluation) -> String {
    let marks = Marks::of(evaluation);
    let mut sections = vec![
        overview::floors(evaluation),
        decisions::confusion(evaluation, &marks),
        decisions::per_class(evaluation, &marks),
        confidence::calibration(evaluation),
        confidence::selective(evaluation),
        confidence::precision_recall(evaluation, &marks),
        confidence::prediction_sets(evaluation, &marks),
        distrust::shortcuts(evaluation),
        controls::section(evaluation),
        distrust::leakage(evaluation),
        distrust::outside(evaluation),
        background::retrieval(evaluation),
        distrust::index(evaluation),
        cases::hardest(evaluation, &marks),
    ];
    sections.extend(evaluation.explanations.as_ref().map(explained::explanations));
    sections.extend([background::notes(evaluation), background::protocol(evaluation, &marks)]);
    page::html(
        &format!("Evaluation of {}", evaluation.protocol.what),
        &overview::first_screen(evaluation),
        &sections,
    )
}
