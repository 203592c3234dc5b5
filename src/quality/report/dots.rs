//! Figures as dots with whiskers, one row each, beside their names and numbers: a table that is a plot.
//!
//! Places along a row are percentages, so a row is as wide as there is room and its marks and words keep their size.

use super::text;
use crate::quality::evaluation::Interval;

/// The table.
pub struct Dots<'a> {
    /// What it shows, and what its marks mean.
    pub caption: String,
    /// Head of the column of names.
    pub of: &'a str,
    /// What is drawn.
    pub drawn: &'a str,
    /// The ends of the scale.
    pub scale: (f64, f64),
    /// Dashed lines through all rows.
    pub lines: Vec<f64>,
    /// Heads of the columns of numbers; with several dots in a row the first columns are those of the dots.
    pub columns: Vec<&'a str>,
    /// From above.
    pub rows: Vec<Row>,
}

/// A row.
#[derive(Default)]
pub struct Row {
    /// Its name, as HTML.
    pub head: String,
    /// Its name, as text.
    pub name: String,
    /// What is drawn of it, each with its own shape.
    pub dots: Vec<Option<Interval>>,
    /// Its numbers, as HTML.
    pub cells: Vec<String>,
    /// Whether it is what the others are compared with.
    pub ours: bool,
}

/// A figure without an interval.
pub fn point(value: Option<f64>) -> Option<Interval> {
    value.map(|value| Interval {
        value,
        low: value,
        high: value,
    })
}

/// A scale up to 1 that begins at a round number below all figures.
pub fn scale_for<'a>(figures: impl IntoIterator<Item = &'a Option<Interval>>) -> (f64, f64) {
    let ends = figures
        .into_iter()
        .flatten()
        .flat_map(|figure| [figure.low, figure.value]);
    let least = ends.filter(|end| end.is_finite()).fold(1.0, f64::min);
    let begin = [0.9, 0.8, 0.6, 0.5].into_iter().find(|begin| *begin <= least - 0.01);
    (begin.unwrap_or(0.0), 1.0)
}

const SHAPES: [&str; 4] = [
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
    "M-4.5-4.5h9v9h-9z",
    "M0-5.5 5.5 4.5h-11z",
    "M0-6 6 0 0 6-6 0z",
];
const TICKS: usize = 5;

impl Dots<'_> {
    /// As HTML.
    pub fn html(&self) -> String {
        let drawn = self.rows.iter().map(|row| row.dots.len()).max().unwrap_or(0);
        let heads: String = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, head)| column_head(at, head, drawn))
            .collect();
        let rows: String = self.rows.iter().map(|row| self.row(row)).collect();
        format!(
            "<table class=\"dots\"><caption>{}</caption><thead><tr><th scope=\"col\">{}</th><th scope=\"col\" class=\"drawn\">{}</th>{heads}</tr></thead>\
             <tbody>{rows}</tbody><tfoot><tr><td></td><td class=\"axis\">{}</td><td colspan=\"{}\"></td></tr></tfoot></table>\n",
            text::escape(&self.caption),
            text::escape(self.of),
            text::escape(self.drawn),
            self.axis(),
            self.columns.len().max(1),
        )
    }

    fn row(&self, row: &Row) -> String {
        let cells = row.cells.iter().enumerate().map(|(at, cell)| {
            let label = self.columns.get(at).copied().unwrap_or_default();
            let main = if at == 0 && row.dots.len() == 1 {
                " class=\"main\""
            } else {
                ""
            };
            format!("<td{main} data-label=\"{}\">{}</td>", text::escape(label), cell)
        });
        format!(
            "<tr{}><th scope=\"row\">{}</th><td class=\"track\">{}</td>{}</tr>",
            if row.ours { " class=\"ours\"" } else { "" },
            row.head,
            self.track(row),
            cells.collect::<String>(),
        )
    }

    fn track(&self, row: &Row) -> String {
        let grid = ticks(self.scale).into_iter().map(|tick| self.upright("grid", tick));
        let lines = self
            .lines
            .iter()
            .filter(|line| line.is_finite())
            .map(|line| self.upright("line", *line));
        let dots = row
            .dots
            .iter()
            .enumerate()
            .map(|(at, dot)| self.dot(at, row.dots.len(), *dot));
        let said: Vec<String> = row.dots.iter().map(|dot| text::interval(*dot)).collect();
        format!(
            "<svg role=\"img\" width=\"100%\" height=\"100%\"><title>{}: {}</title>{}{}{}</svg>",
            text::escape(&row.name),
            said.join(", "),
            grid.collect::<String>(),
            lines.collect::<String>(),
            dots.collect::<String>(),
        )
    }

    fn dot(&self, at: usize, of: usize, dot: Option<Interval>) -> String {
        let Some(dot) = dot.filter(|dot| dot.value.is_finite()) else {
            return String::new();
        };
        let y = 100.0 * (at + 1) as f64 / (of + 1) as f64;
        let whisker = if dot.low.is_finite() && dot.high.is_finite() {
            let (low, high) = (self.place(dot.low), self.place(dot.high));
            format!("<line class=\"whisker s{at}\" x1=\"{low:.2}%\" x2=\"{high:.2}%\" y1=\"{y:.2}%\" y2=\"{y:.2}%\"/>")
        } else {
            String::new()
        };
        let place = self.place(dot.value);
        let shape = SHAPES[at % SHAPES.len()];
        format!(
            "{whisker}<svg x=\"{place:.2}%\" y=\"{y:.2}%\" overflow=\"visible\"><path class=\"dot s{at}\" d=\"{shape}\"/></svg>"
        )
    }

    fn upright(&self, class: &str, at: f64) -> String {
        let x = self.place(at);
        format!("<line class=\"{class}\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"0%\" y2=\"100%\"/>")
    }

    fn axis(&self) -> String {
        let ticks = ticks(self.scale);
        let last = ticks.len().saturating_sub(1);
        let words = ticks.iter().enumerate().map(|(at, tick)| {
            let anchor = if at == 0 {
                "start"
            } else if at == last {
                "end"
            } else {
                "middle"
            };
            format!(
                "<text x=\"{:.2}%\" y=\"13\" text-anchor=\"{anchor}\">{}</text>",
                self.place(*tick),
                short(*tick)
            )
        });
        format!(
            "<svg width=\"100%\" height=\"18\" aria-hidden=\"true\">{}</svg>",
            words.collect::<String>()
        )
    }

    /// Percent of the width; what is beyond the scale stands at its end.
    fn place(&self, value: f64) -> f64 {
        let (low, high) = self.scale;
        let share = (value - low) / (high - low);
        if share.is_finite() {
            100.0 * share.clamp(0.0, 1.0)
        } else {
            0.0
        }
    }
}

fn column_head(at: usize, head: &str, drawn: usize) -> String {
    let shape = if drawn > 1 && at < drawn {
        format!(
            "<svg class=\"mark\" viewBox=\"-8 -8 16 16\" width=\"13\" height=\"13\" aria-hidden=\"true\"><path class=\"dot s{at}\" d=\"{}\"/></svg> ",
            SHAPES[at % SHAPES.len()]
        )
    } else {
        String::new()
    };
    format!("<th scope=\"col\">{shape}{}</th>", text::escape(head))
}

fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    (0..=TICKS)
        .map(|at| low + (high - low) * at as f64 / TICKS as f64)
        .collect()
}

/// As few decimals as a tick needs.
pub fn short(tick: f64) -> String {
    let text = format!("{tick:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_begin_below_what_is_drawn() {
        assert_eq!(scale_for(&[point(Some(0.97))]), (0.9, 1.0));
        assert_eq!(scale_for(&[point(Some(0.97)), point(Some(0.82)), None]), (0.8, 1.0));
        assert_eq!(scale_for(&[point(Some(0.1)), point(Some(f64::NAN))]), (0.0, 1.0));
        assert_eq!(short(0.5), "0.5");
        assert_eq!(short(1.0), "1");
    }
}
