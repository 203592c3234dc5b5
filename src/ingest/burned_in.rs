//! What becomes of images that somebody's name may be written into.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::imaging::BurnedIn;

/// Which of them are not taken in. Those that are have a tag `burned_in` that says why they might be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BurnedInRule {
    /// Those that say so themselves.
    #[default]
    Refuse,
    /// Also those of a kind that is often written on, unless they say that they are not.
    RefuseSuspected,
    /// None: somebody has looked at them.
    Keep,
}

impl BurnedInRule {
    /// Its name on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::RefuseSuspected => "refuse-suspected",
            Self::Keep => "keep",
        }
    }

    /// Whether an image may come in.
    ///
    /// # Errors
    /// `BurnedInAnnotation` where it may not.
    pub fn admit(self, found: Option<BurnedIn>) -> Result<()> {
        let why = match (self, found) {
            (Self::Refuse | Self::RefuseSuspected, Some(BurnedIn::Declared)) => {
                "the file says that text is burned into its pixels, which may name a patient"
            }
            (Self::RefuseSuspected, Some(BurnedIn::Suspected)) => {
                "the image is of a kind that text is often burned into, and does not say that there is none"
            }
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::BurnedInAnnotation, why))
    }
}

impl fmt::Display for BurnedInRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BurnedInRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = [Self::Refuse, Self::RefuseSuspected, Self::Keep];
        let found = known.into_iter().find(|rule| rule.as_str() == text);
        let message = "it is `refuse`, `refuse-suspected` or `keep`";
        found.ok_or_else(|| Error::new(ErrorKind::InvalidRequest, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_refuses_what_it_says() {
        let admits = |rule: &str, found| rule.parse::<BurnedInRule>().unwrap().admit(found).is_ok();
        for (rule, expected) in [
            ("refuse", [true, true, false]),
            ("refuse-suspected", [true, false, false]),
            ("keep", [true, true, true]),
        ] {
            let found = [None, Some(BurnedIn::Suspected), Some(BurnedIn::Declared)];
            assert_eq!(found.map(|found| admits(rule, found)), expected, "{rule}");
            assert_eq!(rule.parse::<BurnedInRule>().unwrap().to_string(), rule);
        }
        assert!("warn".parse::<BurnedInRule>().is_err());
    }
}
