//! Numbers and words as they stand on the page.

use crate::quality::evaluation::{Available, Interval};

/// What stands where there is no figure.
pub const NONE: &str = "–";

/// Text from data, safe between tags and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// Escaped, and free to break after what joins words in names of classes.
pub fn name(text: &str) -> String {
    escape(text).replace('_', "_<wbr>").replace('/', "/<wbr>")
}

/// Three decimals; a dash for what is no number.
pub fn share(value: f64) -> String {
    if !value.is_finite() {
        NONE.to_owned()
    } else if value.abs() >= 1e6 {
        format!("{value:.2e}")
    } else {
        let text = format!("{value:.3}");
        if text == "-0.000" { "0.000".to_owned() } else { text }
    }
}

/// [`share`], or a dash.
pub fn maybe(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), share)
}

/// With a sign, for differences.
pub fn signed(value: f64) -> String {
    let text = share(value.abs());
    match text.as_str() {
        NONE | "0.000" => text,
        _ if value < 0.0 => format!("−{text}"),
        _ => format!("+{text}"),
    }
}

/// `0.931 (0.902–0.954)`.
pub fn interval(figure: Option<Interval>) -> String {
    match figure {
        Some(figure) if figure.value.is_finite() => format!("{} ({})", share(figure.value), range(figure)),
        _ => NONE.to_owned(),
    }
}

/// `0.902–0.954`.
pub fn range(figure: Interval) -> String {
    format!("{}–{}", share(figure.low), share(figure.high))
}

/// A whole number with narrow spaces between thousands.
pub fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + 8);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A count that may be a mean over seeds.
pub fn mean_count(number: f64) -> String {
    if !number.is_finite() {
        NONE.to_owned()
    } else if (number - number.round()).abs() < 0.05 && (0.0..1e15).contains(&number) {
        count(number.round() as usize)
    } else if number.abs() >= 1e6 {
        share(number)
    } else {
        // As it is rounded, so that 9.96 does not come out as 9 and a tenth of ten.
        let tenths = (number.abs() * 10.0).round() as usize;
        let sign = if number < 0.0 { "−" } else { "" };
        format!("{sign}{}.{}", count(tenths / 10), tenths % 10)
    }
}

/// One decimal of a percent, for parts of a whole.
pub fn percent(value: f64) -> String {
    if value.is_finite() && value.abs() < 1e4 {
        format!("{:.1}\u{202f}%", value * 100.0)
    } else {
        NONE.to_owned()
    }
}

/// `1 image`, `2 images`.
pub fn plural(number: usize, one: &str) -> String {
    format!("{} {one}{}", count(number), if number == 1 { "" } else { "s" })
}

/// What `body` makes of the part, or why there is none.
pub fn available<T>(part: &Available<T>, body: impl FnOnce(&T) -> String) -> String {
    match part {
        Available::Yes(part) => body(part),
        Available::No { not_available } => not_there(not_available),
    }
}

/// One line in place of a part.
pub fn not_there(why: &str) -> String {
    format!(
        "<p class=\"absent\"><strong>Not available:</strong> {}</p>",
        escape(why)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(share(0.93149), "0.931");
        assert_eq!(share(-0.00001), "0.000");
        assert_eq!(share(f64::NAN), NONE);
        assert_eq!(maybe(None), NONE);
        assert_eq!(signed(-0.0702), "−0.070");
        assert_eq!(signed(0.0702), "+0.070");
        assert_eq!(count(21165), "21\u{202f}165");
        assert_eq!(count(165), "165");
        assert_eq!(mean_count(12.5), "12.5");
        assert_eq!(mean_count(-1.0), "−1.0");
        assert_eq!(mean_count(1931.4), "1\u{202f}931.4");
        assert_eq!(mean_count(9.94), "9.9");
        assert_eq!(mean_count(f64::INFINITY), NONE);
        assert_eq!(percent(0.0126), "1.3\u{202f}%");
        let figure = Interval {
            value: 0.93,
            low: 0.9,
            high: 0.951,
        };
        assert_eq!(interval(Some(figure)), "0.930 (0.900–0.951)");
        assert_eq!(
            interval(Some(Interval {
                value: f64::NAN,
                ..figure
            })),
            NONE
        );
    }

    #[test]
    fn nothing_gets_out_of_an_attribute() {
        assert_eq!(
            escape("<a b=\"c\" d='e'>&"),
            "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;"
        );
        assert_eq!(name("Lung_Opacity<"), "Lung_<wbr>Opacity&lt;");
    }
}
