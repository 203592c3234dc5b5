//! A model that is loaded, with what makes its input. A version is searched with vectors of its own space, so that each has its model.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::prepare::Preparer;
use crate::archive::Manifest;
use crate::embed::Embedder;
use crate::error::Result;

/// What turns an image into a vector.
pub struct Model {
    /// Bytes to model input.
    pub preparer: Preparer,
    /// Model input to vector.
    pub embedder: Embedder,
}

/// Gets the model of a version ready. Asked when the first version of a space is loaded.
pub type LoadModel = Arc<dyn Fn(Arc<Manifest>) -> BoxFuture<'static, Result<Arc<Model>>> + Send + Sync>;
