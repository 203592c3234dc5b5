//! TLS by rustls: whose certificate this server shows, and whose it believes.
//!
//! [`files`] are read and checked whole, [`identity`] is what a running server goes by, and follows the files without a restart, [`peers`] is how replicas
//! of a cluster believe each other. Only TLS 1.2 and 1.3, with ring, and HTTP/1.1 inside: actix has no bound for the streams of one HTTP/2 connection.

mod files;
mod identity;
mod peers;

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};

pub use files::TlsFiles;
pub use identity::{Identity, Port};
pub use rustls::{ClientConfig, ServerConfig};

use crate::error::{Error, ErrorKind, Result};
use peers::Peers;

/// The versions that are spoken. What is older is refused.
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Says to clients that are built with TLS whose cryptography they use: ring's. The first to say it counts for the whole process.
pub fn use_ring() {
    let _ = default_provider().install_default();
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

fn unfit(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::with_source(ErrorKind::Internal, "TLS can't be set up", error)
}

/// A server that anyone may ask.
///
/// # Errors
/// `Internal` where the library does not know its own versions.
pub fn public_server(identity: &Arc<Identity>) -> Result<ServerConfig> {
    let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS);
    let config = config.map_err(unfit)?.with_no_client_auth();
    Ok(config.with_cert_resolver(Arc::clone(identity) as _))
}

/// A server that only those may ask whom its authority has certified.
///
/// # Errors
/// `Internal` where the library does not know its own versions.
pub fn peer_server(identity: &Arc<Identity>) -> Result<ServerConfig> {
    let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS);
    let peers = Arc::new(Peers::new(Arc::clone(identity), None));
    let config = config.map_err(unfit)?.with_client_cert_verifier(peers);
    let mut config = config.with_cert_resolver(Arc::clone(identity) as _);
    // Who comes again is looked at again: the authority may be another by then.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// What asks such servers. `name`: what their certificates are for; none: the host that is asked.
///
/// # Errors
/// `InvalidRequest` for a name that no certificate can have.
pub fn peer_client(identity: &Arc<Identity>, name: Option<&str>) -> Result<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS);
    let name = name.map(|name| {
        let wrong = |_| Error::new(ErrorKind::InvalidRequest, format!("no certificate is for `{name}`"));
        name.to_owned().try_into().map_err(wrong)
    });
    let peers = Arc::new(Peers::new(Arc::clone(identity), name.transpose()?));
    let config = config
        .map_err(unfit)?
        .dangerous()
        .with_custom_certificate_verifier(peers);
    let mut config = config.with_client_cert_resolver(Arc::clone(identity) as _);
    config.resumption = Resumption::disabled();
    Ok(config)
}
