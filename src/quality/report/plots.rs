//! Curves and points in a frame, as inline SVG.

use super::dots::short;
use super::text;
use crate::quality::calibration::Bin;

/// A frame with axes from 0. The box is about as wide as a phone's page, so that words are readable where it isn't enlarged.
struct Frame {
    width: f64,
    height: f64,
    /// The ends of both axes.
    most: (f64, f64),
    across: &'static str,
    up: &'static str,
}

const LEFT: f64 = 44.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 38.0;

impl Frame {
    fn x(&self, value: f64) -> f64 {
        LEFT + (self.width - LEFT - RIGHT) * fraction(value, self.most.0)
    }

    fn y(&self, value: f64) -> f64 {
        self.height - BOTTOM - (self.height - TOP - BOTTOM) * fraction(value, self.most.1)
    }

    fn html(&self, title: &str, inside: &str) -> String {
        let (width, height) = (self.width, self.height);
        let (left, right, top, bottom) = (LEFT, width - RIGHT, TOP, height - BOTTOM);
        let ticks = (0..=4).map(|at| at as f64 / 4.0).map(|at| {
            let (x, y) = (self.x(at * self.most.0), self.y(at * self.most.1));
            format!(
                "<path class=\"grid\" d=\"M{left:.1} {y:.1}H{right:.1}M{x:.1} {top:.1}V{bottom:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                left - 6.0,
                y + 4.0,
                short(at * self.most.1),
                bottom + 15.0,
                short(at * self.most.0),
            )
        });
        let (middle, beside) = ((left + right) / 2.0, (top + bottom) / 2.0);
        format!(
            "<svg role=\"img\" class=\"plot\" viewBox=\"0 0 {width:.0} {height:.0}\"><title>{}</title>{}{inside}\
             <text class=\"axis-name\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"axis-name\" transform=\"translate(11 {beside:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text></svg>\n",
            text::escape(title),
            ticks.collect::<String>(),
            height - 6.0,
            self.across,
            self.up,
        )
    }

    fn curve(&self, class: &str, points: &[(f64, f64)]) -> String {
        let mut path = String::new();
        for (x, y) in finite(points) {
            let go = if path.is_empty() { 'M' } else { 'L' };
            path.push_str(&format!("{go}{:.1} {:.1}", self.x(x), self.y(y)));
        }
        if path.is_empty() {
            path
        } else {
            format!("<path class=\"{class}\" d=\"{path}\"/>")
        }
    }
}

/// Where the text of a plot says that there is nothing.
fn nothing(frame: &Frame) -> String {
    let (x, y) = (frame.x(frame.most.0 / 2.0), frame.y(frame.most.1 / 2.0));
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">no points</text>")
}

fn fraction(value: f64, most: f64) -> f64 {
    let share = value / most;
    if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
}

fn finite(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite())
}

/// How often answers of a confidence are right: a dot for each bin, as large as it has images, its distance from the diagonal, and the sizes of the
/// bins as bars on the ground.
pub fn reliability(title: &str, bins: &[Bin]) -> String {
    let frame = Frame {
        width: 340.0,
        height: 320.0,
        most: (1.0, 1.0),
        across: "Confidence",
        up: "Share that is right",
    };
    let points: Vec<_> = bins.iter().map(|bin| (bin.confidence, bin.accuracy)).collect();
    let largest = bins.iter().map(|bin| bin.images).max().unwrap_or(0).max(1) as f64;
    let mut inside = frame.curve("line", &[(0.0, 0.0), (1.0, 1.0)]);
    let ground = frame.y(0.0);
    for bin in bins
        .iter()
        .filter(|bin| bin.confidence.is_finite() && bin.accuracy.is_finite())
    {
        let size = bin.images as f64 / largest;
        let (x, y, ideal) = (frame.x(bin.confidence), frame.y(bin.accuracy), frame.y(bin.confidence));
        inside.push_str(&format!(
            "<rect class=\"size\" x=\"{:.1}\" y=\"{:.1}\" width=\"4\" height=\"{:.1}\"/><path class=\"gap\" d=\"M{x:.1} {y:.1}V{ideal:.1}\"/>",
            x - 2.0,
            ground - 24.0 * size,
            24.0 * size,
        ));
    }
    inside.push_str(&frame.curve("curve", &points));
    for (bin, (x, y)) in bins
        .iter()
        .zip(&points)
        .filter(|(_, (x, y))| x.is_finite() && y.is_finite())
    {
        let radius = 2.5 + 3.0 * (bin.images as f64 / largest).sqrt();
        inside.push_str(&format!(
            "<circle class=\"dot s0\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius:.1}\"/>",
            frame.x(*x),
            frame.y(*y)
        ));
    }
    if finite(&points).next().is_none() {
        inside.push_str(&nothing(&frame));
    }
    frame.html(title, &inside)
}

/// The error rate among the share that is answered; the dashed line is that of all.
pub fn risk_coverage(title: &str, points: &[(f64, f64)], marked: &[(f64, Option<f64>)]) -> String {
    let worst = finite(points).map(|(_, risk)| risk).fold(0.0, f64::max);
    let most = [0.02, 0.04, 0.1, 0.2, 0.4, 0.6]
        .into_iter()
        .find(|most| *most >= worst)
        .unwrap_or(1.0);
    let frame = Frame {
        width: 460.0,
        height: 300.0,
        most: (1.0, most),
        across: "Share answered, most confident first",
        up: "Error rate",
    };
    let mut inside = String::new();
    if let Some((_, all)) = finite(points).last() {
        inside.push_str(&frame.curve("line", &[(0.0, all), (1.0, all)]));
    } else {
        inside.push_str(&nothing(&frame));
    }
    inside.push_str(&frame.curve("curve", points));
    for (answered, accuracy) in marked {
        if let Some(accuracy) = accuracy.filter(|accuracy| accuracy.is_finite()) {
            let (x, y) = (frame.x(*answered), frame.y(1.0 - accuracy));
            inside.push_str(&format!(
                "<circle class=\"dot s0\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"/>"
            ));
        }
    }
    frame.html(title, &inside)
}

/// Precision against recall of one class; the dashed line is its share.
pub fn precision_recall(title: &str, colour: &str, points: &[(f64, f64)], prior: f64) -> String {
    let frame = Frame {
        width: 280.0,
        height: 240.0,
        most: (1.0, 1.0),
        across: "Recall",
        up: "Precision",
    };
    let mut inside = frame.curve("line", &[(0.0, prior), (1.0, prior)]);
    if finite(points).next().is_none() {
        inside.push_str(&nothing(&frame));
    }
    inside.push_str(&frame.curve(&format!("curve {colour}"), points));
    frame.html(title, &inside)
}

/// A bar of a share, as wide as there is room.
pub fn bar(title: &str, share: f64) -> String {
    let width = 100.0 * fraction(share, 1.0);
    format!(
        "<svg role=\"img\" class=\"bar\" width=\"100%\" height=\"14\"><title>{}</title><rect class=\"ground\" width=\"100%\" height=\"14\" rx=\"3\"/>\
         <rect class=\"fill\" width=\"{width:.2}%\" height=\"14\" rx=\"3\"/></svg>",
        text::escape(title),
    )
}
