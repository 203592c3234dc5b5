//! Reads everything and names what is damaged.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::store::Loaded;
use super::{Archive, calibration, evaluation, graphs, metric, pack, read_model, rows};
use crate::domain::{ClassLabel, PackRef};
use crate::error::{Error, ErrorKind, Result};

/// What was read and found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The version that was read.
    pub version: u64,
    /// Its objects.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Its images.
    pub images: u64,
    /// What is damaged or missing, one sentence each.
    pub damaged: Vec<String>,
}

/// Reads every object of the newest version from storage and compares it with its digest and with what the manifest says of it.
///
/// # Errors
/// `Unavailable`, `Damaged` when the manifest itself can't be read. Damaged objects are part of the answer.
pub async fn verify(archive: &Archive) -> Result<Verified> {
    let manifest = archive.latest().await?;
    let store = archive.store();
    let mut verified = Verified {
        version: manifest.version,
        objects: 0,
        bytes: 0,
        images: manifest.images(),
        damaged: vec![],
    };
    let mut pictures: HashMap<String, Vec<PackRef>> = HashMap::new();
    if let Some(model) = manifest.model.as_ref().filter(|model| model.object().is_some()) {
        // The manifest does not say how large it is.
        let read = read_model(store, model).await;
        let bytes = read.as_ref().map_or(0, |bytes| bytes.len() as u64);
        verified.note(bytes, read.map(drop));
    }
    for entry in &manifest.rows {
        // Not what is held or cached: what is on the storage counts.
        let read = async {
            let bytes = store.get_object(&entry.object).await?;
            let size = bytes.len() as u64;
            let object = rows::decode(&entry.object, Loaded { bytes, local: None }, usize::MAX)?;
            let mut classes: BTreeMap<ClassLabel, u64> = BTreeMap::new();
            for record in &object.records {
                if let Some(class) = &record.class {
                    *classes.entry(class.clone()).or_default() += 1;
                }
                let slices = record
                    .thumbnail
                    .iter()
                    .chain(record.pixels.as_ref().map(|pixels| &pixels.pack));
                for slice in slices {
                    pictures.entry(slice.object.clone()).or_default().push(slice.clone());
                }
            }
            let as_listed = u64::from(object.rows()) == entry.rows
                && classes == entry.classes
                && object.header.space == manifest.space.id()
                && object.header.dimension == manifest.space.dimension;
            fits(as_listed, &entry.object, size, entry.bytes)
        };
        let read = read.await;
        verified.note(entry.bytes, read);
    }
    if let Some(entry) = &manifest.metric {
        let read = metric::fetch(store, &manifest, entry).await;
        verified.note(entry.bytes, read.map(drop));
    }
    if let Some(entry) = &manifest.calibration {
        let read = calibration::fetch(store, &manifest, entry).await;
        verified.note(entry.bytes, read.map(drop));
    }
    if let Some(entry) = &manifest.evaluation {
        let read = evaluation::fetch(store, entry).await;
        verified.note(entry.bytes, read.map(drop));
    }
    for entry in &manifest.graphs {
        let read = store.get_object(&entry.object).await;
        let read = read.and_then(|bytes| graphs::payload(entry, bytes));
        verified.note(entry.bytes, read.map(drop));
    }
    for entry in &manifest.packs {
        let slices = pictures.remove(&entry.object).unwrap_or_default();
        let read = store.get_object(&entry.object).await.and_then(|bytes: Bytes| {
            slices
                .iter()
                .try_for_each(|slice| pack::slice(&bytes, slice).map(|_| ()))?;
            fits(true, &entry.object, bytes.len() as u64, entry.bytes)
        });
        verified.note(entry.bytes, read);
    }
    let inbox = archive.inbox();
    for waiting in inbox.list().await? {
        match inbox.read(waiting.id).await {
            // Embedded since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            read => verified.note(waiting.bytes, read.map(drop)),
        }
    }
    for object in pictures.keys() {
        verified
            .damaged
            .push(format!("`{object}` holds pictures and is not in the manifest"));
    }
    verified.damaged.sort();
    Ok(verified)
}

impl Verified {
    fn note(&mut self, bytes: u64, read: Result<()>) {
        self.objects += 1;
        self.bytes += bytes;
        if let Err(error) = read {
            self.damaged.push(error.to_string());
        }
    }
}

fn fits(as_listed: bool, object: &str, bytes: u64, listed: u64) -> Result<()> {
    if as_listed && bytes == listed {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Damaged,
        format!("`{object}` is not what the manifest says"),
    ))
}
