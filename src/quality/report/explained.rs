//! Whether heat maps point at what makes images alike.

use super::page::{Section, table};
use super::text::{available, escape, interval, plural};
use crate::quality::evaluation::{Available, Explanations};

/// Insertion and deletion of the explanation, beside maps that know nothing.
pub fn explanations(explanations: &Available<Explanations>) -> Section {
    Section {
        id: "explanations",
        heading: "Heat maps",
        how: "Whether the heat maps that the page shows point at what makes images alike. Insertion: a blurred image is revealed, the places first that the map names \
              first; the higher the mean similarity to the neighbor, the better. Deletion: the image is covered in that order; the lower the better. A map that knows \
              something is ahead of a random one in both: the intervals of its lead are above 0. A uniform map has no order, so it is followed in three ways; two of them change \
              what kind of image it is, so read them in both: faded in as a whole nearly all can be recognised (high in both), in dots from everywhere little (low in both).",
        body: available(explanations, body),
    }
}

fn body(figures: &Explanations) -> String {
    let rows = figures.maps.iter().map(|map| {
        vec![
            format!("{}<span class=\"fine\">{}</span>", escape(&map.name), escape(&map.sees)),
            interval(map.insertion),
            interval(map.insertion_below_explanation),
            interval(map.deletion),
            interval(map.deletion_above_explanation),
        ]
    });
    let heads = [
        "Map",
        "Insertion",
        "Explanation ahead by",
        "Deletion",
        "Explanation ahead by",
    ];
    let made = format!(
        "<p class=\"fine\">{}, each with its nearest of another group; method: {}; {}.</p>\n",
        plural(figures.images, "image"),
        escape(&figures.method),
        plural(figures.steps, "step"),
    );
    table("Insertion and deletion, with 95 % intervals", &heads, rows) + &made
}
