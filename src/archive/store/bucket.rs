//! Object storage behind a URL: credentials and endpoint from the environment, bounds on what a request may take, writes in parts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig, WriteMultipart,
};

use super::place::{Bucket, Provider};
use crate::error::{Error, ErrorKind, Result};

/// Larger objects go up in parts of this size, so that each request is small enough for [`Limits::silence`], and one that fails costs one part.
pub(in crate::archive) const PART_BYTES: usize = 8 << 20;
/// Parts on their way at a time.
const PARTS_MAX: usize = 4;

/// What a request may take. Reads, deletions and writes of objects, which change nothing when they are made twice, are tried again by
/// `object_store`; put-if-absent only where the server was not reached or said that it failed.
#[derive(Debug, Clone, Copy)]
pub(in crate::archive) struct Limits {
    /// Until a connection stands.
    pub connect: Duration,
    /// Without a byte of the answer, so with all of the request before it.
    pub silence: Duration,
    /// All of one request and its answer: an object of 1 GiB at 1.8 MB/s.
    pub whole: Duration,
    /// Times that it is tried again.
    pub retries_max: usize,
    /// After this time it is not.
    pub retry: Duration,
    /// First pause before it is tried again; it doubles, with chance, up to [`Limits::pause_max`].
    pub pause_min: Duration,
    /// Longest pause.
    pub pause_max: Duration,
}

/// A storage that refuses is given up within seconds, one that does not answer after a minute or two.
pub(super) const LIMITS: Limits = Limits {
    connect: Duration::from_secs(5),
    silence: Duration::from_secs(30),
    whole: Duration::from_secs(600),
    retries_max: 5,
    retry: Duration::from_secs(60),
    pause_min: Duration::from_millis(100),
    pause_max: Duration::from_secs(2),
};

impl Limits {
    fn retries(self) -> RetryConfig {
        RetryConfig {
            backoff: BackoffConfig {
                init_backoff: self.pause_min,
                max_backoff: self.pause_max,
                base: 2.0,
            },
            max_retries: self.retries_max,
            retry_timeout: self.retry,
        }
    }

    /// One by one, so that what the environment says of the client (a proxy, plain HTTP) stays.
    fn client(self) -> [(ClientConfigKey, String); 3] {
        let milliseconds = |time: Duration| format!("{}ms", time.as_millis());
        [
            (ClientConfigKey::ConnectTimeout, milliseconds(self.connect)),
            (ClientConfigKey::ReadTimeout, milliseconds(self.silence)),
            (ClientConfigKey::Timeout, milliseconds(self.whole)),
        ]
    }
}

/// Opens a bucket with what the environment says. Asks nobody yet.
///
/// # Errors
/// `InvalidRequest` when the environment's settings can't be used.
pub(super) fn open(bucket: &Bucket) -> Result<Arc<dyn ObjectStore>> {
    match bucket.provider {
        Provider::S3 => s3(AmazonS3Builder::from_env(), bucket, LIMITS),
        Provider::Google => {
            let builder = GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(&bucket.name)
                .with_retry(LIMITS.retries());
            let limited = LIMITS.client().into_iter().fold(builder, |builder, (key, value)| {
                builder.with_config(GoogleConfigKey::Client(key), value)
            });
            built(bucket, || limited.build())
        }
        Provider::Azure => {
            let builder = MicrosoftAzureBuilder::from_env()
                .with_container_name(&bucket.name)
                .with_retry(LIMITS.retries());
            let limited = LIMITS.client().into_iter().fold(builder, |builder, (key, value)| {
                builder.with_config(AzureConfigKey::Client(key), value)
            });
            built(bucket, || limited.build())
        }
    }
}

/// Opens a bucket of S3 with other settings than the environment's.
pub(super) fn s3(builder: AmazonS3Builder, bucket: &Bucket, limits: Limits) -> Result<Arc<dyn ObjectStore>> {
    let builder = builder
        .with_bucket_name(&bucket.name)
        // Put-if-absent is what a commit stands on, whatever the environment says.
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // One deletion a request: not every server knows the other form, and collection deletes in order anyway.
        .with_disable_bulk_delete(true)
        .with_retry(limits.retries());
    let limited = limits.client().into_iter().fold(builder, |builder, (key, value)| {
        builder.with_config(AmazonS3ConfigKey::Client(key), value)
    });
    built(bucket, || limited.build())
}

fn built<S: ObjectStore>(
    bucket: &Bucket,
    build: impl FnOnce() -> object_store::Result<S>,
) -> Result<Arc<dyn ObjectStore>> {
    // The first one counts for the whole process, and it is this one in any case.
    crate::tls::use_ring();
    let objects = build().map_err(|error| {
        let message = format!("the environment's settings for `{bucket}` can't be used");
        Error::with_source(ErrorKind::InvalidRequest, message, error)
    })?;
    Ok(Arc::new(PrefixStore::new(objects, bucket.prefix.clone())))
}

/// Writes an object whole or not at all, in place of one that is there.
pub(super) async fn put(objects: &dyn ObjectStore, path: &Path, mut bytes: Bytes) -> object_store::Result<()> {
    if bytes.len() <= PART_BYTES {
        return objects.put(path, PutPayload::from_bytes(bytes)).await.map(|_| ());
    }
    let size = bytes.len() as u64;
    let upload = objects.put_multipart(path).await?;
    let mut parts = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
    while !bytes.is_empty() {
        if let Err(error) = parts.wait_for_capacity(PARTS_MAX).await {
            // What can't be taken back is left to the bucket's lifecycle rule; the first failure is what counts.
            let _ = parts.abort().await;
            return Err(error);
        }
        parts.put(bytes.split_to(PART_BYTES.min(bytes.len())));
    }
    match parts.finish().await {
        Ok(_) => Ok(()),
        // Joining the parts whose answer was lost can't be done again: what counts is whether the object is there.
        Err(error) => match objects.head(path).await {
            Ok(there) if there.size == size => Ok(()),
            _ => Err(error),
        },
    }
}
