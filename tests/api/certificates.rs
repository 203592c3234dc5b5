//! Certificates for tests, made when they are needed.

use std::path::Path;

use medsearch::tls::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

/// An authority of its own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate for this machine, for servers and clients, and its key.
    pub fn certify(&self) -> (String, String) {
        self.certify_until(2040)
    }

    /// One that is over at the beginning of that year.
    pub fn certify_until(&self, year: i32) -> (String, String) {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A new certificate and its key in the folder, with the authority where it is wanted.
    pub fn write(&self, folder: &Path, with_authority: bool) -> TlsFiles {
        let files = TlsFiles {
            chain: folder.join("tls.crt"),
            key: folder.join("tls.key"),
            ca: with_authority.then(|| folder.join("ca.crt")),
        };
        let (chain, key) = self.certify();
        std::fs::write(&files.chain, chain).unwrap();
        std::fs::write(&files.key, key).unwrap();
        if let Some(ca) = &files.ca {
            std::fs::write(ca, &self.pem).unwrap();
        }
        files
    }
}
