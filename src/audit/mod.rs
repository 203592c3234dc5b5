//! Who did what to which images: one JSON line an event, each chained to the one before by its hash.
//!
//! `event` what a line says, `chain` how lines hang together (pure), `files` the folder they lie in, `writer` puts them there, `sink` is the queue and the
//! thread in front of it, `verify` reads everything back and names what is not as it was written (pure but for reading). The archive keeps heads of chains
//! (`archive/audit.rs`), so that a chain which was cut or written anew is found too.

mod chain;
mod event;
mod files;
mod sink;
mod verify;
mod writer;

pub use chain::{Hash, Head, ProcessId};
pub use event::{Action, Answered, Digest, Event, EventId, IMAGES_MAX, Stage, Who};
pub use files::{AuditFile, audit_files};
pub use sink::{Audit, AuditSettings, BYTES_MAX_LEAST};
pub use verify::{Finding, Report, Verifier};
