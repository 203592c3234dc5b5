//! Classes are told by name, shape and colour, as in the search page (frontend/classes.js): colour is never alone.

use super::text;
use crate::quality::evaluation::Evaluation;

/// In a box of 16.
const SHAPES: [&str; 8] = [
    "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2z",
    "M2.5 2.5h11v11h-11z",
    "M8 1.5 15 14H1z",
    "M8 .5 15.5 8 8 15.5 .5 8z",
    "M5.8 1.5h4.4v4.3h4.3v4.4h-4.3v4.3H5.8v-4.3H1.5V5.8h4.3z",
    "M8 14.5 1 2h14z",
    "M4.4 1.8h7.2L15.2 8l-3.6 6.2H4.4L.8 8z",
    "M2 6.2h12v3.6H2z",
];

/// The order of classes that shapes and colours follow.
pub struct Marks<'a> {
    order: Vec<&'a str>,
}

impl<'a> Marks<'a> {
    /// In the order of the protocol.
    pub fn of(evaluation: &'a Evaluation) -> Self {
        Self::in_order(evaluation.protocol.classes.iter().map(|class| class.class.as_str()))
    }

    /// In this order.
    pub fn in_order(classes: impl Iterator<Item = &'a str>) -> Self {
        Self {
            order: classes.collect(),
        }
    }

    /// The style class of a class's colour; after eight classes the pairing of shape and colour shifts.
    pub fn colour(&self, class: &str) -> String {
        match self.place(class) {
            Some(at) => format!("c{}", (at + at / SHAPES.len()) % SHAPES.len()),
            None => "c-none".to_owned(),
        }
    }

    /// Shape and name.
    pub fn label(&self, class: &str) -> String {
        let shape = match self.place(class) {
            Some(at) => format!("<path d=\"{}\"/>", SHAPES[at % SHAPES.len()]),
            None => "<circle cx=\"8\" cy=\"8\" r=\"5.5\"/>".to_owned(),
        };
        format!(
            "<span class=\"label\"><svg class=\"mark {}\" viewBox=\"0 0 16 16\" width=\"12\" height=\"12\" aria-hidden=\"true\">{shape}</svg><span>{}</span></span>",
            self.colour(class),
            text::name(class),
        )
    }

    fn place(&self, class: &str) -> Option<usize> {
        self.order.iter().position(|known| *known == class)
    }
}
