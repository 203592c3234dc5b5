//! The S3 server of `tests/storage` in the test's own process, and what opens it.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;

use crate::archive::store::{Limits, Store};

#[path = "../../../../tests/storage/server.rs"]
mod protocol;

pub use protocol::{Fault, SECRET_KEY};

pub const URL: &str = "s3://bucket/hospital/x-rays";

/// Times of a client that has no time to lose.
pub const LIMITS: Limits = Limits {
    connect: Duration::from_secs(5),
    silence: Duration::from_millis(1500),
    whole: Duration::from_secs(20),
    retries_max: 2,
    retry: Duration::from_secs(10),
    pause_min: Duration::from_millis(1),
    pause_max: Duration::from_millis(20),
};
/// More than [`Limits::silence`].
const TOO_LATE: Duration = Duration::from_millis(2000);

/// A running server. It ends with the runtime of its test.
pub struct Server {
    pub folder: tempfile::TempDir,
    protocol: protocol::Server,
}

impl Server {
    /// With an empty `bucket`.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let protocol = protocol::Server::start_in(folder.path(), anywhere).await.unwrap();
        protocol.set_late(TOO_LATE);
        Self { folder, protocol }
    }

    /// A client's settings.
    pub fn settings(&self) -> AmazonS3Builder {
        AmazonS3Builder::new()
            .with_endpoint(self.endpoint())
            .with_allow_http(true)
            .with_region("eu-central-1")
            .with_access_key_id(protocol::ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
    }

    /// Another process's view of a place in it.
    pub fn store_at(&self, url: &str) -> Store {
        Store::s3(url, self.settings(), LIMITS).unwrap()
    }

    /// Another process's view of [`URL`].
    pub fn store(&self) -> Store {
        self.store_at(URL)
    }

    /// Where the objects of [`URL`] lie.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("bucket/hospital/x-rays")
    }
}

impl Deref for Server {
    type Target = protocol::Server;

    fn deref(&self) -> &protocol::Server {
        &self.protocol
    }
}
