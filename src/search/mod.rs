//! Stand-in with the signatures that `http` calls: an empty archive that is ready and answers no search.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::domain::{
    Ask, ClassLabel, Coverage, ImageId, Key, Ranking, Record, Region, Space, SpaceId, Verdict, Window,
};
use crate::error::{Error, ErrorKind, Result};

/// An image as it was handed in, and whose it is.
pub struct Upload {
    pub bytes: Bytes,
    pub patient_id: Option<String>,
    pub issuer: Option<String>,
    pub study_uid: Option<String>,
}

/// A search that was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub query: AskedQuery,
    pub ask: Ask,
    pub ranking: Ranking,
    pub verdict: Verdict,
    pub coverage: Coverage,
    pub version: u64,
    pub images: usize,
    pub space: SpaceId,
    pub timings: Timings,
}

#[derive(Debug, Clone, Default)]
pub struct AskedQuery {
    pub image: Option<ImageFacts>,
    pub region: Option<Region>,
}

#[derive(Debug, Clone)]
pub struct ImageFacts {
    pub width: u32,
    pub height: u32,
    pub format: &'static str,
    pub window: Option<Window>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    pub decode_ms: f64,
    pub preprocess_ms: f64,
    pub queue_ms: f64,
    pub model_ms: f64,
    pub search_ms: f64,
    pub total_ms: f64,
}

pub struct EmbeddedImage {
    pub sha256: [u8; 32],
    pub raw: Vec<f32>,
}

#[derive(Debug, Clone)]
pub struct Overview {
    pub name: String,
    pub version: u64,
    pub images: usize,
    pub labelled: usize,
    pub conflicts: usize,
    pub classes: Vec<(ClassLabel, usize)>,
    pub sources: Vec<String>,
    pub space: Space,
    pub demo: bool,
    pub synthetic: bool,
    pub licence: Option<String>,
    pub scope: serde_json::Value,
    pub retention: String,
    pub identity: String,
    pub created_at: String,
    pub samples: Vec<(ImageId, ClassLabel)>,
}

#[derive(Debug, Clone, Copy)]
pub struct Saturation {
    pub queue_depth: usize,
    pub queue_max: usize,
}

#[derive(Clone)]
pub struct Engine;

fn nothing<T>() -> Result<T> {
    Err(Error::new(
        ErrorKind::Unavailable,
        "this is a stand-in without an engine",
    ))
}

impl Engine {
    pub async fn search_image(&self, _: Upload, _: Ask, _: Option<Region>, _: Instant) -> Result<Answer> {
        nothing()
    }
    pub async fn search_ids(&self, _: Vec<ImageId>, _: Ask, _: Instant) -> Result<Answer> {
        nothing()
    }
    pub async fn search_vector(&self, _: Vec<f32>, _: SpaceId, _: Ask, _: Instant) -> Result<Answer> {
        nothing()
    }
    pub async fn embed_image(&self, _: Bytes, _: Instant) -> Result<EmbeddedImage> {
        nothing()
    }
    pub fn overview(&self) -> Overview {
        Overview {
            name: "stand-in".into(),
            version: 1,
            images: 0,
            labelled: 0,
            conflicts: 0,
            classes: Vec::new(),
            sources: Vec::new(),
            space: Space {
                weights_sha256: "0".repeat(64),
                layers: vec!["grey32".into()],
                pooling: "none".into(),
                views: vec!["whole".into()],
                dimension: 1024,
                pixel_pipeline: "medsearch-pixels/1 squeeze 32x32 bilinear grey".into(),
            },
            demo: false,
            synthetic: false,
            licence: None,
            scope: serde_json::json!({}),
            retention: "view".into(),
            identity: "anonymous".into(),
            created_at: "2026-01-01T00:00:00Z".into(),
            samples: Vec::new(),
        }
    }
    pub fn record(&self, _: ImageId) -> Option<Arc<Record>> {
        None
    }
    pub fn label_conflict(&self, _: ImageId) -> bool {
        false
    }
    pub fn model_card(&self) -> serde_json::Value {
        serde_json::json!({"name": "thumbnail"})
    }
    pub fn pseudonym(&self, key: Key) -> String {
        format!("p_{}", &key.to_string()[..12])
    }
    pub async fn thumbnail(&self, _: ImageId) -> Result<Bytes> {
        nothing()
    }
    pub async fn rendered(&self, _: ImageId, _: Option<(f64, f64)>, _: Option<u32>) -> Result<Bytes> {
        nothing()
    }
    pub fn ready(&self) -> bool {
        true
    }
    pub fn started(&self) -> bool {
        true
    }
    pub fn saturation(&self) -> Saturation {
        Saturation {
            queue_depth: 0,
            queue_max: 256,
        }
    }
}
