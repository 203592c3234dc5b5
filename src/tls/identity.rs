//! Whose certificate a running server shows and whose it believes: what the files hold, looked at again and again.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::TlsFiles;
use super::files::Loaded;
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;
use crate::telemetry::run_blocking;

/// Time between two looks at the files. All of them are read: a time of change may be the same after two changes, and in Kubernetes is that of a link.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A certificate that is over within this is said in the log when it is taken over.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// Which port shows it, in metrics and the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// The one that people and programs ask.
    Public,
    /// The one that replicas ask.
    Inner,
}

impl Port {
    /// As a label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Inner => "inner",
        }
    }
}

/// What a server goes by at the moment. A connection that is open stays as it was made.
#[derive(Debug)]
pub struct Identity {
    port: Port,
    files: TlsFiles,
    current: ArcSwap<Loaded>,
}

impl Identity {
    /// The one that the files hold now.
    ///
    /// # Errors
    /// `Unavailable` for a file that can't be read, `InvalidRequest` for what is no certificate, no key, or the key of another certificate.
    pub fn open(port: Port, files: TlsFiles, metrics: &Metrics) -> Result<Arc<Self>> {
        let loaded = files.read().and_then(|bytes| files.parse(&bytes))?;
        if loaded.expires <= Timestamp::now() {
            tracing::warn!(port = port.as_str(), expired = %loaded.expires, "the certificate is over: nobody will believe it");
        }
        let identity = Self {
            port,
            files,
            current: ArcSwap::from_pointee(loaded),
        };
        identity.say(metrics, false);
        Ok(Arc::new(identity))
    }

    /// Takes over what the files hold, for as long as the server runs. While they can't be used the certificate before stays, also where only one of two
    /// files is new yet; the log and `medsearch_tls_files_broken` say so.
    pub async fn follow(self: Arc<Self>, metrics: Arc<Metrics>) {
        let mut said = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let identity = Arc::clone(&self);
            let looked = run_blocking(move || identity.look()).await;
            self.say(&metrics, looked.is_err());
            said = looked.err().map(|error| {
                let message = error.to_string();
                if said.as_ref() != Some(&message) {
                    tracing::warn!(
                        port = self.port.as_str(),
                        error = message,
                        "the files of TLS can't be taken over: the certificate before stays"
                    );
                }
                message
            });
        }
    }

    fn look(&self) -> Result<()> {
        let bytes = self.files.read()?;
        if bytes.digest() == self.current.load().digest {
            return Ok(());
        }
        let loaded = self.files.parse(&bytes)?;
        let now = Timestamp::now();
        if loaded.expires <= now {
            let message = format!("the new certificate has been over since `{}`", loaded.expires);
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        let soon = loaded.expires.duration_since(now).unsigned_abs() < SOON;
        let expires = loaded.expires;
        self.current.store(Arc::new(loaded));
        tracing::info!(port = self.port.as_str(), %expires, soon, "another certificate is shown from now on");
        Ok(())
    }

    fn say(&self, metrics: &Metrics, broken: bool) {
        metrics.tls(self.port, self.current.load().expires.as_second(), broken);
    }

    pub(super) fn current(&self) -> Arc<Loaded> {
        self.current.load_full()
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().shown))
    }
}

/// To whom a certificate is shown is decided by the address that is asked: what the other side says of authorities does not matter.
impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().shown))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
