//! Metric objects: what a learned metric takes off each vector, and the directions that it compares.
//!
//! `MSMETRIC`, u32 LE length of the header, JSON header filled up with spaces to a multiple of 64 from the start, then f32 LE: the mean (D), the
//! projection (components x D, row by row).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::store::{Store, object_name};
use super::{Archive, Manifest, frame, lock};
use crate::domain::{ClassLabel, Metric, SpaceId, Unknown};
use crate::error::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"MSMETRIC";
const FORMAT: u32 = 1;

/// A learned metric, as the manifest names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricEntry {
    /// `metrics/<blake3>`.
    pub object: String,
    /// Its size.
    pub bytes: u64,
    /// Components of the vectors that are compared.
    pub components: usize,
    /// How it came about.
    #[serde(flatten)]
    pub fitted: Fitted,
    /// What a later program added.
    #[serde(flatten)]
    pub other: Unknown,
}

impl MetricEntry {
    /// Its short name, 32 hex digits.
    pub fn id(&self) -> &str {
        super::short(&self.object)
    }
}

/// How a metric came about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fitted {
    /// For example `within-class whitening`.
    pub method: String,
    /// The share of the identity in the scatter, 0..=1.
    pub shrinkage: f64,
    /// When it was fitted.
    pub fitted_at: Timestamp,
    /// The version whose images it was fitted on.
    pub fitted_on: u64,
    /// Images of each class that it was fitted on.
    pub images: BTreeMap<ClassLabel, u64>,
    /// Groups (patients, copies of a picture) that they are of.
    pub groups: u64,
    /// What it brought on images that it was not fitted on.
    pub held_out: HeldOut,
}

/// Mean sensitivity of the classes on groups that were left out of the fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// With the vectors as they are.
    pub without: f64,
    /// With the metric.
    pub with: f64,
    /// Parts of whole groups, each left out once.
    pub parts: u64,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    space: SpaceId,
    dimension: usize,
    components: usize,
    /// Makes every object new: a name that was collected never comes back.
    commit: String,
}

/// The object's bytes.
///
/// # Errors
/// `Internal` when its header can't be written.
fn encode(metric: &Metric, space: SpaceId, commit: &str) -> Result<Vec<u8>> {
    let header = Header {
        format: FORMAT,
        space,
        dimension: metric.dimension(),
        components: metric.components(),
        commit: commit.to_owned(),
    };
    let values = || metric.mean().iter().chain(metric.projection());
    let mut bytes = frame::begin(MAGIC, &header, values().count() * 4)?;
    bytes.extend(values().flat_map(|value| value.to_le_bytes()));
    Ok(bytes)
}

/// Reads the metric that `manifest` names from its storage.
///
/// # Errors
/// `Unavailable`, `Damaged`, also when it is not the one that the manifest means.
pub(super) async fn fetch(store: &Store, manifest: &Manifest, entry: &MetricEntry) -> Result<Metric> {
    let bytes = store.get_object(&entry.object).await?;
    let metric = decode(&entry.object, &manifest.space.id(), &bytes)?;
    let as_listed = metric.components() == entry.components
        && metric.dimension() == manifest.space.dimension
        && bytes.len() as u64 == entry.bytes;
    if as_listed {
        return Ok(metric);
    }
    let message = format!("`{}` is not what the manifest says", entry.object);
    Err(Error::new(ErrorKind::Damaged, message))
}

/// Reads a metric object of `space`. Never panics, never allocates more than the bytes can hold.
///
/// # Errors
/// `Damaged`; `Unavailable` for the format of a later program.
fn decode(name: &str, space: &SpaceId, bytes: &[u8]) -> Result<Metric> {
    let damaged = |what: &str| Error::new(ErrorKind::Damaged, format!("`{name}` is damaged: {what}"));
    let (header, start): (Header, usize) = frame::read(name, MAGIC, FORMAT, bytes)?;
    if header.space != *space {
        return Err(damaged("it is of another space"));
    }
    let values = bytes.get(start..).ok_or_else(|| damaged("it is cut off"))?;
    let expected = (header.components.checked_add(1))
        .and_then(|rows| rows.checked_mul(header.dimension))
        .and_then(|count| count.checked_mul(4));
    if expected != Some(values.len()) {
        return Err(damaged("its values don't fit its dimensions"));
    }
    let (values, _) = values.as_chunks::<4>();
    let mut mean: Vec<f32> = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let projection = mean.split_off(header.dimension);
    Metric::new(mean, projection).ok_or_else(|| damaged("it is no metric"))
}

/// Names and writes the object of a metric.
///
/// # Errors
/// `StorageFull`, `Unavailable`, `Internal`.
pub(super) async fn put(
    archive: &Archive,
    manifest: &Manifest,
    metric: &Arc<Metric>,
    fitted: &Fitted,
    commit: &str,
) -> Result<MetricEntry> {
    let bytes = encode(metric, manifest.space.id(), commit)?;
    let (object, bytes) = object_name("metrics", bytes.into()).await?;
    let size = bytes.len() as u64;
    archive.store().put_object(&object, bytes).await?;
    archive.hold_metric(&object, metric);
    Ok(MetricEntry {
        object,
        bytes: size,
        components: metric.components(),
        fitted: fitted.clone(),
        other: Unknown::new(),
    })
}

impl Archive {
    /// Reads a metric, or shares one that is in memory.
    ///
    /// # Errors
    /// `Unavailable`, `Damaged`.
    pub async fn read_metric(&self, entry: &MetricEntry) -> Result<Arc<Metric>> {
        if let Some((name, held)) = &*lock(&self.0.metric)
            && *name == entry.object
            && let Some(held) = held.upgrade()
        {
            return Ok(held);
        }
        let manifest = Arc::clone(&lock(&self.0.known).manifest);
        let metric = Arc::new(fetch(self.store(), &manifest, entry).await?);
        self.hold_metric(&entry.object, &metric);
        Ok(metric)
    }

    fn hold_metric(&self, name: &str, metric: &Arc<Metric>) {
        *lock(&self.0.metric) = Some((name.to_owned(), Arc::downgrade(metric)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::archive::manifest::tests::space;

    fn metric() -> Metric {
        // No zero: it equals its negative, which is another byte.
        Metric::new(vec![0.1, 0.2, 0.3], vec![1.0, 0.25, -2.0, -0.25, 1.0, 0.5]).unwrap()
    }

    #[test]
    fn comes_back_to_the_bit_and_cut_off_is_refused() {
        let id = space(3).id();
        let bytes = encode(&metric(), id, "a commit").unwrap();
        assert_eq!(decode("m", &id, &bytes).unwrap(), metric());
        for end in 0..bytes.len() {
            let error = decode("m", &id, &bytes[..end]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{end}");
        }
        let longer = [bytes.as_slice(), &[0; 4]].concat();
        assert_eq!(decode("m", &id, &longer).unwrap_err().kind(), ErrorKind::Damaged);
        let error = decode("m", &space(4).id(), &bytes).unwrap_err();
        assert!(error.message().contains("another space"), "{error}");
    }

    #[test]
    fn a_later_format_is_refused_in_words() {
        let bytes = frame::begin(MAGIC, &serde_json::json!({"format": 2}), 0).unwrap();
        let error = decode("m", &space(3).id(), &bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("format 2"), "{error}");
    }

    #[test]
    fn two_of_the_same_numbers_have_two_names() {
        let of = |commit| encode(&metric(), space(3).id(), commit).unwrap();
        assert_ne!(of("one"), of("two"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe_to_read(tail in prop::collection::vec(any::<u8>(), 0..200), rows in any::<usize>(), dimension in any::<usize>()) {
            let id = space(3).id();
            let header = Header { format: FORMAT, space: id, dimension, components: rows, commit: String::new() };
            let mut bytes = frame::begin(MAGIC, &header, tail.len()).unwrap();
            bytes.extend(&tail);
            let _ = decode("m", &id, &bytes);
            let _ = decode("m", &id, &tail);
        }

        #[test]
        fn a_changed_byte_gives_another_metric_or_none(at in any::<prop::sample::Index>(), bit in 0u32..8) {
            let id = space(3).id();
            let mut bytes = encode(&metric(), id, "c").unwrap();
            let values = bytes.len() - 4 * 9;
            let at = values + at.index(4 * 9);
            bytes[at] ^= 1 << bit;
            prop_assert!(decode("m", &id, &bytes).map_or(true, |other| other != metric()));
        }
    }
}
