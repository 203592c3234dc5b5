//! The window of a DICOM image by a table of rules: the rule's own, or that of the file (PS3.3, C.11.1 and C.11.2).

use serde::{Deserialize, Serialize};

use super::eight_bit::window_level;
use crate::domain::{Window, WindowTable, WindowUse};

/// Farthest end of a window from 0, in stored values.
const STORED_MAX: f64 = 1e9;

/// What a header says of stored grey values. The default is that of a file without a word: they are the modality's, and no window is proposed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GreyScale {
    /// How they become values of the modality; none: differently in each frame (PS3.3, C.7.6.16.2.9), which is not read.
    pub rescale: Option<Rescale>,
    /// The window that the file proposes; the first of several.
    pub voi: Option<Voi>,
}

impl Default for GreyScale {
    fn default() -> Self {
        Self {
            rescale: Some(Rescale::IDENTITY),
            voi: None,
        }
    }
}

/// RescaleSlope and RescaleIntercept (PS3.3, C.11.1.1.2): a value of the modality is stored value × slope + intercept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rescale {
    /// Not 0.
    pub slope: f64,
    /// Value of the modality where 0 is stored.
    pub intercept: f64,
}

impl Rescale {
    /// Stored values are those of the modality.
    pub const IDENTITY: Self = Self {
        slope: 1.0,
        intercept: 0.0,
    };

    /// The stored value, whole or not, of a value of the modality.
    fn stored(self, value: f64) -> f64 {
        (value - self.intercept) / self.slope
    }
}

/// A window over values of the modality (PS3.3, C.11.2.1.2 and C.11.2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Voi {
    /// WindowCenter.
    pub center: f64,
    /// WindowWidth.
    pub width: f64,
    /// VOILUTFunction.
    pub function: Function,
}

/// VOILUTFunction (PS3.3, C.11.2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Function {
    /// LINEAR, for whole values, and what there was before there were others.
    Linear,
    /// LINEAR_EXACT.
    LinearExact,
    /// SIGMOID.
    Sigmoid,
}

impl Voi {
    /// A window as DICOM allows it: finite, and at least 1 wide if it is LINEAR, else wider than 0.
    pub fn new(center: f64, width: f64, function: Function) -> Option<Self> {
        let is_wide = match function {
            Function::Linear => width >= 1.0,
            Function::LinearExact | Function::Sigmoid => width > 0.0,
        };
        (center.is_finite() && width.is_finite() && is_wide).then_some(Self {
            center,
            width,
            function,
        })
    }

    /// The value up to which all is black, and that from which on all is white; between them it is linear. Of a sigmoid, where a line through its middle would be both.
    pub fn ends(self) -> (f64, f64) {
        let (center, half) = match self.function {
            Function::Linear => (self.center - 0.5, (self.width - 1.0) / 2.0),
            Function::LinearExact | Function::Sigmoid => (self.center, self.width / 2.0),
        };
        (center - half, center + half)
    }

    /// The same in stored values, the smaller one first; none where they are out of all proportion.
    fn stored_ends(self, rescale: Rescale) -> Option<(f64, f64)> {
        let (low, high) = self.ends();
        let (low, high) = (rescale.stored(low), rescale.stored(high));
        let (low, high) = if rescale.slope < 0.0 { (high, low) } else { (low, high) };
        let is_near = |end: f64| end.abs() <= STORED_MAX;
        let is_window = is_near(low) && is_near(high) && (low < high || self.function == Function::Linear);
        is_window.then_some((low, high))
    }
}

/// The window that a table has for grey values of a DICOM file; none: by percentile, since the table says so, or since the file has no window of its own, or
/// not one rescale for all its frames.
pub fn ruled_window(
    table: &WindowTable,
    modality: Option<&str>,
    body_part: Option<&str>,
    scale: GreyScale,
) -> Option<Window> {
    match table.window(modality, body_part) {
        WindowUse::Percentile => None,
        WindowUse::Fixed { center, width } => {
            let (low, high) = Voi::new(center, width, Function::Linear)?.stored_ends(scale.rescale?)?;
            Some(Window::Fixed { low, high })
        }
        WindowUse::File => {
            let voi = scale.voi?;
            let (low, high) = voi.stored_ends(scale.rescale?)?;
            let sigmoid = voi.function == Function::Sigmoid;
            Some(Window::File { low, high, sigmoid })
        }
    }
}

/// The grey level of a stored value in a window, before any inversion.
pub fn level(window: Window, value: i32) -> u8 {
    match window {
        Window::Identity => value.clamp(0, 255) as u8,
        Window::Percentile { low, high } => window_level(value, low, high),
        Window::Fixed { low, high }
        | Window::File {
            low,
            high,
            sigmoid: false,
        } => linear_level(value.into(), low, high),
        Window::File {
            low,
            high,
            sigmoid: true,
        } => sigmoid_level(value.into(), low, high),
    }
}

/// Black up to `low`, white above `high`, linear between them. With the ends of a LINEAR window it is PS3.3, C.11.2.1.2.1, with those of a LINEAR_EXACT one
/// C.11.2.1.3.2, each with an output from 0 to 255, rounded half up.
pub fn linear_level(value: f64, low: f64, high: f64) -> u8 {
    if value <= low {
        0
    } else if value > high {
        255
    } else {
        ((value - low) / (high - low) * 255.0 + 0.5).floor() as u8
    }
}

/// PS3.3, C.11.2.1.3.1, with an output from 0 to 255.
fn sigmoid_level(value: f64, low: f64, high: f64) -> u8 {
    let (center, width) = ((low + high) / 2.0, high - low);
    (255.0 / (1.0 + (-4.0 * (value - center) / width).exp()) + 0.5).floor() as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(json: &str) -> WindowTable {
        WindowTable::from_json(json.as_bytes()).unwrap()
    }

    fn scale(slope: f64, intercept: f64, voi: Option<Voi>) -> GreyScale {
        GreyScale {
            rescale: Some(Rescale { slope, intercept }),
            voi,
        }
    }

    #[test]
    fn a_fixed_window_is_over_values_of_the_modality() {
        let lung = table(r#"[{"modality": "CT", "center": -600, "width": 1500}]"#);
        let ruled = |scale| ruled_window(&lung, Some("CT"), None, scale);
        let fixed = |low, high| Some(Window::Fixed { low, high });
        assert_eq!(ruled(GreyScale::default()), fixed(-1350.0, 149.0));
        assert_eq!(ruled(scale(1.0, -1024.0, None)), fixed(-326.0, 1173.0));
        assert_eq!(ruled(scale(2.0, -1024.0, None)), fixed(-163.0, 586.5));
        // Turned over where levels are: black belongs to the larger stored value.
        assert_eq!(ruled(scale(-1.0, 0.0, None)), fixed(-149.0, 1350.0));
        assert_eq!(ruled(scale(1e-320, 0.0, None)), None);
        let by_frame = GreyScale {
            rescale: None,
            ..GreyScale::default()
        };
        assert_eq!(ruled(by_frame), None);
        assert_eq!(ruled_window(&lung, Some("MR"), None, GreyScale::default()), None);
    }

    #[test]
    fn a_file_has_its_own_window_or_none() {
        let own = table(r#"[{"modality": "CR", "use": "file"}]"#);
        let ruled = |scale| ruled_window(&own, Some("CR"), Some("CHEST"), scale);
        let voi = |function| Voi::new(40.0, 400.0, function);
        let file = |low, high, sigmoid| Some(Window::File { low, high, sigmoid });
        assert_eq!(
            ruled(scale(1.0, 0.0, voi(Function::Linear))),
            file(-160.0, 239.0, false)
        );
        assert_eq!(
            ruled(scale(1.0, 0.0, voi(Function::LinearExact))),
            file(-160.0, 240.0, false)
        );
        assert_eq!(
            ruled(scale(2.0, 40.0, voi(Function::Sigmoid))),
            file(-100.0, 100.0, true)
        );
        assert_eq!(ruled(GreyScale::default()), None);
        assert_eq!(Voi::new(1.0, 0.5, Function::Linear), None);
        assert_eq!(Voi::new(f64::NAN, 5.0, Function::Linear), None);
        assert_eq!(Voi::new(1.0, 0.0, Function::Sigmoid), None);
    }

    #[test]
    fn levels_are_those_of_the_standard() {
        let narrowest = Voi::new(3.0, 1.0, Function::Linear).unwrap().ends();
        let of = |value| linear_level(value, narrowest.0, narrowest.1);
        assert_eq!([2.0, 2.5, 3.0].map(of), [0, 0, 255]);
        let sigmoid = Window::File {
            low: -100.0,
            high: 100.0,
            sigmoid: true,
        };
        // 255 / (1 + e^2) = 30.4.
        assert_eq!(
            [-30_000, -100, 0, 100, 30_000].map(|value| level(sigmoid, value)),
            [0, 30, 128, 225, 255]
        );
        assert_eq!([-5, 7, 300].map(|value| level(Window::Identity, value)), [0, 7, 255]);
    }

    proptest! {
        /// The formula of C.11.2.1.2.1 as it stands there, over values of the modality.
        #[test]
        fn ends_say_what_center_and_width_say(
            stored in -40_000_i32..70_000, center in -3000_i32..3000, width in 1_i32..5000, slope in 1_i32..4, intercept in -1100_i32..1100,
        ) {
            let rule = table(&format!(r#"[{{"center": {center}, "width": {width}}}]"#));
            let scale = scale(slope.into(), intercept.into(), None);
            let window = ruled_window(&rule, None, None, scale).unwrap();
            let (x, c, w) = (f64::from(stored * slope + intercept), f64::from(center), f64::from(width));
            let expected = if x <= c - 0.5 - (w - 1.0) / 2.0 {
                0.0
            } else if x > c - 0.5 + (w - 1.0) / 2.0 {
                255.0
            } else {
                ((x - (c - 0.5)) / (w - 1.0) + 0.5) * 255.0
            };
            let found = f64::from(level(window, stored));
            prop_assert!((found - expected).abs() <= 0.5 + 1e-9, "{found} for {expected}");
        }

        /// Turned over by a negative slope and back by the inversion that it brings.
        #[test]
        fn a_negative_slope_only_turns_stored_values(value in -3000_i32..3000, center in -3000_i32..3000, width in 1_i32..5000) {
            let rule = table(&format!(r#"[{{"center": {center}, "width": {width}}}]"#));
            let plain = ruled_window(&rule, None, None, GreyScale::default()).unwrap();
            let turned = ruled_window(&rule, None, None, scale(-1.0, 0.0, None)).unwrap();
            let difference = i32::from(level(plain, value)) - i32::from(255 - level(turned, -value));
            // At the two ends, and where a level lies between two.
            prop_assert!(difference.abs() <= 1 || width == 1);
        }
    }
}
