//! What a picture looks like at a glance, and the range of an archive's pictures: a check that needs no model, and whose answer anybody can see.

use serde::{Deserialize, Serialize};

/// A picture at a glance: of its 32×32 version, so that its size does not matter. How it is measured: `imaging::appearance`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Appearance {
    /// Mean difference of a pixel's strongest and weakest of red, green and blue, 0 (grey) to 1.
    pub colour: f64,
    /// Mean grey level, 0 (black) to 1.
    pub brightness: f64,
    /// Standard deviation of the grey levels, 0 to 0.5.
    pub contrast: f64,
    /// Mean difference of neighboring grey levels in standard deviations of all: about 0.2 for an X-ray, 1.1 for noise.
    pub detail: f64,
    /// Natural logarithm of width by height: 0 for a square.
    pub elongation: f64,
}

impl Appearance {
    fn measures(&self) -> [f64; MEASURES.len()] {
        [
            self.colour,
            self.brightness,
            self.contrast,
            self.detail,
            self.elongation,
        ]
    }
}

/// A measure in words: what it is to have more of it, to have less of it, and by how much a picture may always differ.
struct Measure {
    more: &'static str,
    less: &'static str,
    leeway_min: f64,
}

const fn measure(more: &'static str, less: &'static str, leeway_min: f64) -> Measure {
    Measure { more, less, leeway_min }
}

/// In the order of [`Appearance::measures`]. An archive of squares still takes pictures up to twice as wide as high: films are.
const MEASURES: [Measure; 5] = [
    measure("far more colourful than", "far less colourful than", 0.03),
    measure("far brighter than", "far darker than", 0.1),
    measure("far richer in contrast than", "far poorer in contrast than", 0.05),
    measure("far more finely structured than", "far smoother than", 0.1),
    measure(
        "far wider for its height than",
        "far higher for its width than",
        std::f64::consts::LN_2,
    ),
];
/// A picture may lie outside of the archive's range by this share of it: those that come later vary too.
const LEEWAY: f64 = 0.5;

/// The range of an archive's pictures, measure by measure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Appearances {
    /// The least of each.
    pub low: Appearance,
    /// The most of each.
    pub high: Appearance,
}

impl Appearances {
    /// The range of `pictures`; `None` of no picture.
    pub fn of(pictures: impl IntoIterator<Item = Appearance>) -> Option<Self> {
        let both = |a: Appearance, b: Appearance, pick: fn(f64, f64) -> f64| Appearance {
            colour: pick(a.colour, b.colour),
            brightness: pick(a.brightness, b.brightness),
            contrast: pick(a.contrast, b.contrast),
            detail: pick(a.detail, b.detail),
            elongation: pick(a.elongation, b.elongation),
        };
        let one = |picture| Self {
            low: picture,
            high: picture,
        };
        pictures.into_iter().map(one).reduce(|range, picture| Self {
            low: both(range.low, picture.low, f64::min),
            high: both(range.high, picture.high, f64::max),
        })
    }

    /// In which way a picture is unlike all of these, for example `far more colourful than`; `None` where it is not.
    pub fn unlike(&self, picture: &Appearance) -> Option<&'static str> {
        let ranges = self.low.measures().into_iter().zip(self.high.measures());
        let mut all = MEASURES.iter().zip(picture.measures()).zip(ranges);
        all.find_map(|((measure, value), (low, high))| {
            let leeway = measure.leeway_min.max(LEEWAY * (high - low));
            match value {
                value if value > high + leeway => Some(measure.more),
                value if value < low - leeway => Some(measure.less),
                _ => None,
            }
        })
    }

    /// What contradicts itself, in words: it may come from a file.
    ///
    /// # Errors
    /// The words.
    pub fn check(&self) -> Result<(), &'static str> {
        let mut pairs = self.low.measures().into_iter().zip(self.high.measures());
        let fits = pairs.all(|(low, high)| low <= high && low.abs() < 100.0 && high.abs() < 100.0);
        if fits { Ok(()) } else { Err("impossible appearances") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILM: Appearance = Appearance {
        colour: 0.0,
        brightness: 0.5,
        contrast: 0.2,
        detail: 0.2,
        elongation: 0.0,
    };

    #[test]
    fn what_is_far_outside_of_the_range_is_named() {
        let darker = Appearance {
            brightness: 0.3,
            elongation: -0.2,
            ..FILM
        };
        let range = Appearances::of([FILM, darker, FILM]).unwrap();
        assert_eq!((range.low, range.high), (darker, FILM));
        let of = |change: fn(&mut Appearance)| {
            let mut picture = FILM;
            change(&mut picture);
            range.unlike(&picture)
        };
        assert_eq!(of(|_| ()), None);
        assert_eq!(of(|p| p.colour = 0.02), None);
        assert_eq!(of(|p| p.colour = 0.05), Some("far more colourful than"));
        assert_eq!((of(|p| p.brightness = 0.59), of(|p| p.brightness = 0.21)), (None, None));
        assert_eq!(of(|p| p.brightness = 0.65), Some("far brighter than"));
        assert_eq!(of(|p| p.brightness = 0.15), Some("far darker than"));
        assert_eq!(of(|p| p.contrast = 0.1), Some("far poorer in contrast than"));
        assert_eq!(of(|p| p.detail = 1.1), Some("far more finely structured than"));
        assert_eq!(
            (of(|p| p.elongation = 0.6), of(|p| p.elongation = 0.8)),
            (None, Some("far wider for its height than"))
        );
    }

    #[test]
    fn a_range_that_is_none_is_found() {
        let range = Appearances::of([FILM]).unwrap();
        assert_eq!(range.check(), Ok(()));
        assert_eq!(Appearances::of([]), None);
        for broken in [f64::NAN, f64::INFINITY, 0.6] {
            let low = Appearance {
                brightness: broken,
                ..FILM
            };
            assert!(Appearances { low, ..range }.check().is_err(), "{broken}");
        }
    }
}
