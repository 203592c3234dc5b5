//! A certificate, its key and an authority, as files hold them (PEM).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use super::provider;
use crate::error::{Error, ErrorKind, Result};

/// Most bytes of a file: a bundle of all public authorities is a quarter of it.
const BYTES_MAX: u64 = 1 << 20;

/// Where the parts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those between it and its authority.
    pub chain: PathBuf,
    /// Its key: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub key: PathBuf,
    /// Authorities of those on the other side; none: their certificates are not asked for.
    pub ca: Option<PathBuf>,
}

/// The files' bytes.
pub(super) struct Bytes {
    chain: Vec<u8>,
    key: Vec<u8>,
    ca: Option<Vec<u8>>,
}

/// What the files hold, whole and fitting together.
#[derive(Debug)]
pub(super) struct Loaded {
    /// Of all bytes: whether the files have changed.
    pub digest: blake3::Hash,
    /// What is shown.
    pub shown: Arc<CertifiedKey>,
    /// Who is believed.
    pub trust: Option<Trust>,
    /// When the first certificate of the chain is over.
    pub expires: Timestamp,
}

/// Those that an authority has certified.
#[derive(Debug)]
pub(super) struct Trust {
    /// Those that ask.
    pub clients: Arc<dyn ClientCertVerifier>,
    /// Those that are asked.
    pub servers: Arc<WebPkiServerVerifier>,
}

impl TlsFiles {
    /// Reads them.
    ///
    /// # Errors
    /// `Unavailable` for one that can't be read, `InvalidRequest` for one that is too large.
    pub(super) fn read(&self) -> Result<Bytes> {
        Ok(Bytes {
            chain: read(&self.chain)?,
            key: read(&self.key)?,
            ca: self.ca.as_deref().map(read).transpose()?,
        })
    }

    /// What the bytes are.
    ///
    /// # Errors
    /// `InvalidRequest` for what is no certificate, no key, or the key of another certificate.
    pub(super) fn parse(&self, bytes: &Bytes) -> Result<Loaded> {
        let chain = certificates(&bytes.chain, &self.chain)?;
        let expiries: Result<Vec<Timestamp>> = chain.iter().map(expires).collect();
        let expires = expiries?.into_iter().min().unwrap_or_default();
        let key = PrivateKeyDer::from_pem_slice(&bytes.key).map_err(|_| {
            // Whatever else is in there is not shown.
            refuse(format!(
                "`{}` holds no private key that can be read",
                self.key.display()
            ))
        })?;
        let shown = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| {
            let (key, chain) = (self.key.display(), self.chain.display());
            let message =
                format!("`{key}` is not the key of the certificate in `{chain}`, or of a kind that is not used");
            Error::with_source(ErrorKind::InvalidRequest, message, error)
        })?;
        let trust = match (&self.ca, &bytes.ca) {
            (Some(path), Some(bytes)) => Some(trust(certificates(bytes, path)?, path)?),
            _ => None,
        };
        Ok(Loaded {
            digest: bytes.digest(),
            shown: Arc::new(shown),
            trust,
            expires,
        })
    }
}

impl Bytes {
    /// Differs where the bytes do.
    pub fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for part in [Some(&self.chain), Some(&self.key), self.ca.as_ref()]
            .into_iter()
            .flatten()
        {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        hasher.finalize()
    }
}

fn refuse(message: String) -> Error {
    Error::new(ErrorKind::InvalidRequest, message)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        let message = format!("`{}` can't be read", path.display());
        Error::with_source(ErrorKind::Unavailable, message, error)
    })?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(refuse(format!(
            "`{}` has more than `{BYTES_MAX}` bytes",
            path.display()
        )));
    }
    Ok(bytes)
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| {
        refuse(format!(
            "`{}` holds no certificate, or one that can't be read",
            path.display()
        ))
    })
}

/// When it is over.
fn expires(certificate: &CertificateDer<'_>) -> Result<Timestamp> {
    let odd = || refuse("a certificate that can't be read".to_owned());
    let read = Certificate::from_der(certificate).map_err(|_| odd())?;
    let since_1970: Duration = read.tbs_certificate().validity().not_after.to_unix_duration();
    i64::try_from(since_1970.as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .ok_or_else(odd)
}

fn trust(authorities: Vec<CertificateDer<'static>>, path: &Path) -> Result<Trust> {
    let unfit = |error: String| refuse(format!("`{}`: {error}", path.display()));
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| unfit(error.to_string()))?;
    }
    let roots = Arc::new(roots);
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider()).build();
    let servers = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
    Ok(Trust {
        clients: clients.map_err(|error| unfit(error.to_string()))?,
        servers: servers.map_err(|error| unfit(error.to_string()))?,
    })
}
