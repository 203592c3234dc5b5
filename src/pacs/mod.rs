//! The PACS that this server may ask: from a reference to a file.
//!
//! - [`settings`] the file that lists them: names, places, credentials. What is not in it is never asked for anything.
//! - `base`, `reference` URLs and identifiers that can't lead elsewhere; `addresses` what a name may stand for.
//! - [`client`] one of them as it is spoken to; [`pull`] from a reference to a file, [`choose`] which instance stands for a study.
//! - [`follow`] takes over whatever an Orthanc receives; `changes` what it says of that; [`sweep`] takes away what it has deleted.
//! - `multipart`, `part10` the little that is read of what comes back; pictures are read by [`crate::imaging`].
//!
//! A client names a PACS, it never gives an address: even a RetrieveURL is only taken apart, and what is asked for is put together from the configuration.

pub mod addresses;
pub mod base;
pub mod changes;
pub mod choose;
pub mod client;
pub mod follow;
pub mod multipart;
pub mod part10;
pub mod pull;
pub mod reference;
pub mod settings;
pub mod sweep;

use std::fmt;
use std::sync::Arc;

pub use addresses::{Lookup, SystemLookup};
pub use base::BaseUrl;
pub use client::Pacs;
pub use follow::{Follower, Following};
pub use pull::{Chosen, Pulled};
pub use reference::Reference;
pub use settings::{Followed, PacsFile, PacsName, PacsSettings};

use crate::error::{Error, ErrorKind, Result};

/// Every PACS that may be asked; none by default.
#[derive(Clone, Default)]
pub struct PacsList(Arc<[Pacs]>);

impl PacsList {
    /// These, with names resolved by `lookup`.
    ///
    /// # Errors
    /// `InvalidRequest` for certificates that can't be used.
    pub fn new(list: Vec<PacsSettings>, lookup: &Arc<dyn Lookup>) -> Result<Self> {
        let list: Result<Vec<Pacs>> = list.into_iter().map(|settings| Pacs::new(settings, lookup)).collect();
        Ok(Self(list?.into()))
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Pacs> {
        self.0.iter()
    }

    /// The one of this name.
    ///
    /// # Errors
    /// `UnknownPacs`.
    pub fn named(&self, name: &str) -> Result<&Pacs> {
        let found = self.0.iter().find(|pacs| pacs.name().as_str() == name);
        // The name is not repeated: whoever mistook the field may have put an id there.
        found.ok_or_else(|| Error::new(ErrorKind::UnknownPacs, "no PACS of this name is configured"))
    }

    /// The one whose RetrieveURL this is, and what it names.
    ///
    /// # Errors
    /// `InvalidRequest` for what is no RetrieveURL, `UnknownPacs` for one of any other server.
    pub fn of_retrieve_url(&self, url: &str) -> Result<(&Pacs, Reference)> {
        let mut odd = base::check(url).err();
        // The base of one may be the beginning of another's: what is odd there may be right here.
        for pacs in self.0.iter() {
            match pacs.base().reference(url) {
                Ok(Some(reference)) => return Ok((pacs, reference)),
                Ok(None) => {}
                Err(error) => odd = Some(error),
            }
        }
        let elsewhere = || Error::new(ErrorKind::UnknownPacs, "the URL is not one of a configured PACS");
        Err(odd.unwrap_or_else(elsewhere))
    }
}

impl fmt::Debug for PacsList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|pacs| pacs.name().as_str()))
            .finish()
    }
}
