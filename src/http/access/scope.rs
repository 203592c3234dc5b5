//! What a key may do.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

/// One kind of thing that a key may do. `needs.rs` says of every request which kind it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Searches, and whatever a search shows: cases, pictures, classes, papers, explanations. Also to report a label: whoever sees it may say that it is wrong.
    Search,
    /// Vectors leave the server. They say what a picture looks like, so that a key that searches does not get them.
    Vectors,
    /// Images come in, get another label, and go.
    Ingest,
    /// Whose images these are, where an archive of identity mode `linked` keeps that: answers of `/dicom-web` and `/v1/images/{id}` have the names that
    /// images came with. It opens no route by itself.
    Link,
    /// `/metrics`.
    Metrics,
    /// Everything, also what is listed nowhere.
    Admin,
}

impl Scope {
    /// All there are, in the order in which they are shown.
    pub const ALL: [Self; 6] = [
        Self::Search,
        Self::Vectors,
        Self::Ingest,
        Self::Link,
        Self::Metrics,
        Self::Admin,
    ];

    /// Its name in a keys file, on a command line and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Search => "search",
            Self::Vectors => "vectors",
            Self::Ingest => "ingest",
            Self::Link => "link",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }

    const fn bit(self) -> u8 {
        1 << (self as u8)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = Error;

    /// # Errors
    /// `InvalidRequest` for a name that no scope has.
    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        known.ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join("`, `");
            Error::new(ErrorKind::InvalidRequest, format!("a scope is one of `{names}`"))
        })
    }
}

/// What a key may do: one scope or more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Those of a key that may do everything.
    pub const ADMIN: Self = Self(Scope::Admin.bit());

    /// These, in any order, each as often as it comes.
    ///
    /// # Errors
    /// `InvalidRequest` for none: a key that may do nothing is a mistake.
    pub fn new(scopes: impl IntoIterator<Item = Scope>) -> Result<Self> {
        match scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()) {
            0 => Err(Error::new(ErrorKind::InvalidRequest, "a key needs one scope at least")),
            bits => Ok(Self(bits)),
        }
    }

    /// Whether a request that needs `scope` may be answered: one of these is that, or `admin`, which includes all others.
    pub const fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }

    /// Those of either.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Each, in the order in which they are shown.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & scope.bit() != 0)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, scope) in self.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}

impl FromStr for Scopes {
    type Err = Error;

    /// Names with commas between them.
    ///
    /// # Errors
    /// `InvalidRequest` for a name that no scope has, and for none.
    fn from_str(text: &str) -> Result<Self> {
        let scopes: Result<Vec<Scope>> = text.split(',').map(str::parse).collect();
        Self::new(scopes?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn admin_includes_the_others_and_no_other_does() {
        for own in Scope::ALL {
            for needed in Scope::ALL {
                let scopes = Scopes::new([own]).unwrap();
                assert_eq!(
                    scopes.allow(needed),
                    own == needed || own == Scope::Admin,
                    "{own} {needed}"
                );
            }
        }
        assert_eq!(Scopes::ADMIN, Scopes::new([Scope::Admin]).unwrap());
    }

    #[test]
    fn what_no_scope_is_called_is_refused() {
        for text in ["", "Search", "search ", "write", "search,,ingest", ",", "admin,root"] {
            let refused = text.parse::<Scopes>().unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidRequest, "{text}");
            assert!(refused.message().contains("`vectors`"), "{refused}");
        }
        assert!(Scopes::new([]).is_err());
    }

    proptest! {
        #[test]
        fn scopes_are_read_as_they_are_written(
            scopes in prop::collection::vec(prop::sample::select(Scope::ALL.to_vec()), 1..8),
        ) {
            let written = Scopes::new(scopes.iter().copied()).unwrap();
            prop_assert_eq!(written.to_string().parse::<Scopes>().unwrap(), written);
            prop_assert_eq!(Scopes::new(written.iter()).unwrap(), written);
            prop_assert!(scopes.iter().all(|scope| written.allow(*scope)));
        }

        #[test]
        fn whatever_is_read_is_a_scope_or_refused(text in ".{0,20}") {
            if let Ok(scopes) = text.parse::<Scopes>() {
                prop_assert!(scopes.iter().count() > 0);
            }
        }
    }
}
