//! What is asked for at a PACS.

use crate::domain::Uid;

/// What is asked for at a PACS: a study, a series of it, or an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Study Instance UID.
    pub study: Uid,
    /// Series Instance UID.
    pub series: Option<Uid>,
    /// SOP Instance UID.
    pub instance: Option<Uid>,
}
