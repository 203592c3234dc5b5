//! Heads of audits: how far the chain of each server's audit had come, and its hash there. Beside the versions, small files
//! `audit/<process>/<number of the line>.json` whose names nobody takes twice. Whoever can write to the folder of an audit can't change these with it.

use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::Archive;
use super::store::Put;
use crate::audit::{Head, ProcessId};
use crate::error::{Error, ErrorKind, Result};

/// The folder of heads.
pub(super) const AUDIT: &str = "audit";
/// Format of a head.
const FORMAT: u32 = 1;
/// Heads read at a time.
const READS_MAX: usize = 16;

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    #[serde(flatten)]
    head: Head,
}

/// The heads that an archive has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditHeads {
    /// Those that could be read, by process and line.
    pub heads: Vec<Head>,
    /// Names of those that could not: damaged, or of another program.
    pub unread: Vec<String>,
}

impl Archive {
    /// Keeps a head of an audit. `Ok` means that it is durable.
    ///
    /// # Errors
    /// `Conflict` when there is another one of this line; `StorageFull`, `Unavailable`.
    pub async fn keep_audit_head(&self, head: &Head) -> Result<()> {
        let file = File {
            format: FORMAT,
            head: head.clone(),
        };
        let bytes = serde_json::to_vec(&file)
            .map_err(|error| Error::with_source(ErrorKind::Internal, "a head can't be written as JSON", error))?;
        let name = name_of(head.process, head.seq);
        match self.store().put_if_absent(&name, bytes.clone().into()).await? {
            Put::Done => Ok(()),
            // In a bucket that may be one's own, tried again after its answer was lost.
            Put::Exists if self.store().get(&name).await? == bytes => Ok(()),
            Put::Exists => Err(Error::new(
                ErrorKind::Conflict,
                format!("`{name}` is there with another hash"),
            )),
        }
    }

    /// Deletes a head that a later one of the same process has made needless: by its hash that one stands for all lines before it.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn drop_audit_head(&self, process: ProcessId, seq: u64) -> Result<()> {
        self.store().delete(&name_of(process, seq)).await
    }

    /// All heads of audits.
    ///
    /// # Errors
    /// `Unavailable` when they can't be listed.
    pub async fn audit_heads(&self) -> Result<AuditHeads> {
        let listed = self.store().list(AUDIT).await?;
        let names = listed.into_iter().map(|object| object.name);
        let names = names.filter(|name| name.ends_with(".json"));
        let read = stream::iter(names).map(|name| async {
            let head = self.read_head(&name).await;
            (name, head)
        });
        let mut found = AuditHeads::default();
        let mut read = read.buffered(READS_MAX);
        while let Some((name, head)) = read.next().await {
            match head {
                Ok(Some(head)) => found.heads.push(head),
                // A later one took its place meanwhile.
                Err(_) if self.store().is_missing(&name).await => {}
                Ok(None) | Err(_) => found.unread.push(name),
            }
        }
        Ok(found)
    }

    async fn read_head(&self, name: &str) -> Result<Option<Head>> {
        let bytes = self.store().get(name).await?;
        let file: Option<File> = serde_json::from_slice(&bytes).ok();
        let ours = file.filter(|file| file.format == FORMAT && name_of(file.head.process, file.head.seq) == name);
        Ok(ours.map(|file| file.head))
    }
}

fn name_of(process: ProcessId, seq: u64) -> String {
    format!("{AUDIT}/{process}/{seq:020}.json")
}
