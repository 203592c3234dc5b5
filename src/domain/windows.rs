//! Which window the grey values of a DICOM image get, by its modality and body part.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};

/// Most rules of a table.
const RULES_MAX: usize = 64;
/// Longest code string (PS3.5 6.2, VR CS), in bytes.
const CODE_BYTES_MAX: usize = 16;
/// Largest center and width, in values of the modality.
const VALUE_MAX: f64 = 1e9;
/// Stands for any modality where a table is written in one line.
const ANY: &str = "*";

/// Rules in their order: the first that fits an image decides, and without one its window is by percentile, as it is of an image that is no DICOM.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WindowTable(Arc<[WindowRule]>);

/// What window images of a kind get.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowRule {
    /// Modality; none: any, and of those that say none.
    pub modality: Option<String>,
    /// Body Part Examined; none: any. Only beside a modality.
    pub body_part: Option<String>,
    /// The window.
    pub window: WindowUse,
}

/// A window as a rule has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WindowUse {
    /// Always this one, in values of the modality (Hounsfield units of CT), by DICOM's LINEAR function (PS3.3, C.11.2.1.2.1).
    Fixed {
        /// Its center.
        center: f64,
        /// Its width, at least 1.
        width: f64,
    },
    /// The first one of the file itself.
    File,
    /// Between percentiles of the stored values.
    Percentile,
}

/// A rule as a file of rules has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    modality: Option<String>,
    body_part: Option<String>,
    center: Option<f64>,
    width: Option<f64>,
    #[serde(rename = "use")]
    window: Option<String>,
}

impl WindowTable {
    /// Reads a JSON list: `{"modality": "CT", "body_part": "CHEST", "center": -600, "width": 1500}`, `{"modality": "CR", "use": "file"}`,
    /// `{"use": "percentile"}`.
    ///
    /// # Errors
    /// `InvalidRequest` for anything else, and for a rule that is never reached.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let written: Vec<Written> = serde_json::from_slice(bytes).map_err(|error| {
            let message = format!("a table of windows is a JSON list of rules: {error}");
            Error::with_source(ErrorKind::InvalidRequest, message, error)
        })?;
        Self::new(written.into_iter().map(WindowRule::new).collect::<Result<_>>()?)
    }

    /// Rules that say nothing at the end, where everything is by percentile, are left out: tables that do the same are mostly the same.
    fn new(mut rules: Vec<WindowRule>) -> Result<Self> {
        if rules.len() > RULES_MAX {
            return Err(refused(format!("a table of windows has at most `{RULES_MAX}` rules")));
        }
        for (at, rule) in rules.iter().enumerate() {
            if let Some(before) = rules[..at].iter().position(|before| before.covers(rule)) {
                return Err(refused(format!(
                    "rule `{}` of the table of windows is never reached: rule `{}` is for all that it is for",
                    at + 1,
                    before + 1
                )));
            }
        }
        while rules.pop_if(|rule| rule.window == WindowUse::Percentile).is_some() {}
        Ok(Self(rules.into()))
    }

    /// Whether every window is by percentile.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules in their order.
    pub fn rules(&self) -> &[WindowRule] {
        &self.0
    }

    /// What an image of this kind gets.
    pub fn window(&self, modality: Option<&str>, body_part: Option<&str>) -> WindowUse {
        let rule = self.0.iter().find(|rule| rule.is_for(modality, body_part));
        rule.map_or(WindowUse::Percentile, |rule| rule.window)
    }
}

impl WindowRule {
    fn new(written: Written) -> Result<Self> {
        let window = match (written.window.as_deref(), written.center, written.width) {
            (None | Some("fixed"), Some(center), Some(width)) => WindowUse::Fixed { center, width },
            (Some("file"), None, None) => WindowUse::File,
            (Some("percentile"), None, None) => WindowUse::Percentile,
            _ => {
                return Err(refused(
                    "a rule of a table of windows has a `center` and a `width`, or `use`: `file` or `percentile`",
                ));
            }
        };
        Self {
            modality: written.modality,
            body_part: written.body_part,
            window,
        }
        .checked()
    }

    fn checked(mut self) -> Result<Self> {
        for code in [&mut self.modality, &mut self.body_part].into_iter().flatten() {
            *code = code.trim().to_ascii_uppercase();
            let allowed = |byte: u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'_');
            if code.is_empty() || code.len() > CODE_BYTES_MAX || !code.bytes().all(allowed) {
                return Err(refused(format!(
                    "`{code}` is no modality or body part: they have 1 to {CODE_BYTES_MAX} letters, digits, `_` and spaces"
                )));
            }
        }
        if self.body_part.is_some() && self.modality.is_none() {
            return Err(refused(
                "a rule of a table of windows names a body part only beside a modality",
            ));
        }
        if let WindowUse::Fixed { center, width } = &mut self.window {
            // One zero, not two.
            *center += 0.0;
            let is_window = center.abs() <= VALUE_MAX && (1.0..=VALUE_MAX).contains(width);
            if !is_window {
                return Err(refused(format!(
                    "a window of center `{center}` and width `{width}`: widths are 1 to {VALUE_MAX}, centers no farther from 0"
                )));
            }
        }
        Ok(self)
    }

    fn is_for(&self, modality: Option<&str>, body_part: Option<&str>) -> bool {
        let fits = |rule: &Option<String>, said: Option<&str>| rule.is_none() || rule.as_deref() == said;
        fits(&self.modality, modality) && fits(&self.body_part, body_part)
    }

    /// Whether it is for all that another one is for.
    fn covers(&self, other: &Self) -> bool {
        let covers = |own: &Option<String>, other: &Option<String>| own.is_none() || own == other;
        covers(&self.modality, &other.modality) && covers(&self.body_part, &other.body_part)
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidRequest, message)
}

/// One line, the same for the same table: `CT/CHEST:-600,1500;CR:file;*:percentile`. The Python scripts write the same.
impl fmt::Display for WindowTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, rule) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { ";" })?;
            f.write_str(rule.modality.as_deref().unwrap_or(ANY))?;
            if let Some(body_part) = &rule.body_part {
                write!(f, "/{body_part}")?;
            }
            match rule.window {
                WindowUse::Fixed { center, width } => write!(f, ":{center},{width}")?,
                WindowUse::File => f.write_str(":file")?,
                WindowUse::Percentile => f.write_str(":percentile")?,
            }
        }
        Ok(())
    }
}

impl FromStr for WindowTable {
    type Err = Error;

    /// Reads what `Display` writes, and nothing else.
    fn from_str(line: &str) -> Result<Self> {
        let unknown = || refused("its table of windows is not understood: use a newer medsearch");
        let rule = |text: &str| -> Result<WindowRule> {
            let (kind, window) = text.split_once(':').ok_or_else(unknown)?;
            let (modality, body_part) = match kind.split_once('/') {
                Some((modality, body_part)) => (modality, Some(body_part.to_owned())),
                None => (kind, None),
            };
            let number = |text: &str| text.parse::<f64>().map_err(|_| unknown());
            let window = match (window, window.split_once(',')) {
                ("file", _) => WindowUse::File,
                ("percentile", _) => WindowUse::Percentile,
                (_, Some((center, width))) => WindowUse::Fixed {
                    center: number(center)?,
                    width: number(width)?,
                },
                _ => return Err(unknown()),
            };
            WindowRule {
                modality: (modality != ANY).then(|| modality.to_owned()),
                body_part,
                window,
            }
            .checked()
        };
        let table = Self::new(line.split(';').map(rule).collect::<Result<_>>()?)?;
        if table.to_string() == line {
            Ok(table)
        } else {
            Err(unknown())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(json: &str) -> WindowTable {
        WindowTable::from_json(json.as_bytes()).unwrap()
    }

    const LUNG: WindowUse = WindowUse::Fixed {
        center: -600.0,
        width: 1500.0,
    };

    #[test]
    fn the_first_rule_that_fits_decides() {
        let table = table(
            r#"[{"modality": "ct", "body_part": "CHEST", "center": -600, "width": 1500}, {"modality": "CT", "use": "percentile"},
                {"use": "file"}]"#,
        );
        for (modality, body_part, expected) in [
            (Some("CT"), Some("CHEST"), LUNG),
            (Some("CT"), Some("HEAD"), WindowUse::Percentile),
            (Some("CT"), None, WindowUse::Percentile),
            (Some("CR"), Some("CHEST"), WindowUse::File),
            (None, None, WindowUse::File),
        ] {
            assert_eq!(
                table.window(modality, body_part),
                expected,
                "{modality:?} {body_part:?}"
            );
        }
        assert_eq!(WindowTable::default().window(Some("CT"), None), WindowUse::Percentile);
    }

    #[test]
    fn what_makes_no_difference_is_left_out() {
        assert!(
            table("[]").is_empty()
                && table(r#"[{"modality": "CT", "use": "percentile"}, {"use": "percentile"}]"#).is_empty()
        );
        let lung = r#"{"modality": "CT", "body_part": "CHEST", "center": -600.0, "width": 1.5e3}"#;
        let line = table(&format!(r#"[{lung}, {{"use": "percentile"}}]"#)).to_string();
        assert_eq!(line, "CT/CHEST:-600,1500");
        assert_eq!(table(&format!("[{lung}]")).to_string(), line);
        assert_eq!(
            table(r#"[{"use": "fixed", "center": -0.0, "width": 2.5}]"#).to_string(),
            "*:0,2.5"
        );
    }

    #[test]
    fn odd_rules_are_refused() {
        for (json, expected) in [
            ("{}", "a JSON list"),
            (r#"[{"modality": "CT"}]"#, "has a `center`"),
            (r#"[{"modality": "CT", "center": 1}]"#, "has a `center`"),
            (r#"[{"use": "file", "center": 1, "width": 2}]"#, "has a `center`"),
            (r#"[{"use": "sigmoid"}]"#, "has a `center`"),
            (r#"[{"modalty": "CT", "use": "file"}]"#, "unknown field"),
            (r#"[{"modality": "", "use": "file"}]"#, "is no modality"),
            (r#"[{"modality": "C;T", "use": "file"}]"#, "is no modality"),
            (
                r#"[{"modality": "0123456789ABCDEFG", "use": "file"}]"#,
                "is no modality",
            ),
            (r#"[{"body_part": "CHEST", "use": "file"}]"#, "beside a modality"),
            (r#"[{"center": 1, "width": 0.5}]"#, "widths are 1"),
            (r#"[{"center": 1e10, "width": 2}]"#, "widths are 1"),
            (
                r#"[{"use": "file"}, {"modality": "CT", "use": "percentile"}]"#,
                "rule `2` of",
            ),
            (
                r#"[{"modality": "CT", "use": "file"}, {"modality": "CT", "body_part": "HEAD", "center": 1, "width": 2}]"#,
                "rule `1` is for all",
            ),
        ] {
            let error = WindowTable::from_json(json.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            assert!(error.message().contains(expected), "{json}: {error}");
        }
        let many: Vec<_> = (0..65)
            .map(|at| format!(r#"{{"modality": "M{at}", "use": "file"}}"#))
            .collect();
        let error = WindowTable::from_json(format!("[{}]", many.join(",")).as_bytes()).unwrap_err();
        assert!(error.message().contains("at most `64`"), "{error}");
        for line in [
            "",
            "CT",
            "CT:1",
            "CT:1,x",
            "ct:file",
            "CT:1.0,2",
            "CT:NaN,2",
            "CT:file;*:percentile",
            "CT:gamma",
        ] {
            assert!(line.parse::<WindowTable>().is_err(), "{line}");
        }
    }

    fn rule() -> impl Strategy<Value = WindowRule> {
        let window = prop_oneof![
            (-2e5..2e5_f64, 1.0..2e5_f64).prop_map(|(center, width)| WindowUse::Fixed { center, width }),
            Just(WindowUse::File),
            Just(WindowUse::Percentile),
        ];
        let kind = prop::option::of(("[A-Z]{1,3}", prop::option::of("[A-Z0-9_]{1,8}")));
        (kind, window).prop_map(|(kind, window)| {
            let (modality, body_part) = kind.map_or((None, None), |(modality, body_part)| (Some(modality), body_part));
            WindowRule {
                modality,
                body_part,
                window,
            }
        })
    }

    proptest! {
        #[test]
        fn a_line_comes_back_as_the_table(rules in prop::collection::vec(rule(), 0..6)) {
            if let Ok(table) = WindowTable::new(rules)
                && !table.is_empty()
            {
                prop_assert_eq!(table.to_string().parse::<WindowTable>().unwrap(), table);
            }
        }
    }
}
