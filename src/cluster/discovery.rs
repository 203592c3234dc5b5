//! Where the replicas of a cluster are: a fixed list, or what DNS says of a headless Service.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// Longest time for one look into DNS.
const LOOKUP_MAX: Duration = Duration::from_secs(2);
/// Most replicas of a cluster: each asks every other one how it is.
const REPLICAS_MAX: usize = 256;

/// How replicas find each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// These addresses, `http://HOST:PORT`, or all of them `https://HOST:PORT`.
    Fixed(BTreeSet<String>),
    /// Every address that a name has, as of a headless Service in Kubernetes.
    Dns {
        /// The name.
        host: String,
        /// The port of the inner endpoints.
        port: u16,
    },
}

impl Discovery {
    /// The addresses at this moment, `http://HOST:PORT` or `https://HOST:PORT`, this replica's own among them.
    ///
    /// # Errors
    /// `Unavailable` when DNS does not answer; whoever asks goes on with the last good list.
    pub async fn addresses(&self, by_tls: bool) -> Result<BTreeSet<String>> {
        let scheme = scheme(by_tls);
        match self {
            Self::Fixed(addresses) => Ok(addresses.clone()),
            Self::Dns { host, port } => {
                let unknown = |why| Error::with_source(ErrorKind::Unavailable, format!("DNS knows no `{host}`"), why);
                let found = tokio::time::timeout(LOOKUP_MAX, tokio::net::lookup_host((host.as_str(), *port)));
                let late = |_| Error::new(ErrorKind::Unavailable, format!("DNS does not answer for `{host}`"));
                let found = found.await.map_err(late)?.map_err(unknown)?;
                Ok(found
                    .take(REPLICAS_MAX)
                    .map(|address| format!("{scheme}{address}"))
                    .collect())
            }
        }
    }

    /// What certificates of the others are for, where it is not the host that is asked: DNS gives addresses, and one certificate can be for all of them.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Fixed(_) => None,
            Self::Dns { host, .. } => Some(host),
        }
    }

    /// Whether the addresses are to be asked as this replica asks.
    ///
    /// # Errors
    /// `InvalidRequest`: half a cluster by TLS would be none.
    pub fn check_scheme(&self, by_tls: bool) -> Result<()> {
        let fits = match self {
            Self::Fixed(addresses) => addresses.iter().all(|address| address.starts_with(scheme(by_tls))),
            Self::Dns { .. } => true,
        };
        if fits {
            return Ok(());
        }
        let message = match by_tls {
            true => "with --inner-tls-cert-file the others are asked by TLS: https://HOST:PORT,…",
            false => {
                "replicas at https://HOST:PORT need --inner-tls-cert-file, --inner-tls-key-file and --inner-tls-ca-file"
            }
        };
        Err(Error::new(ErrorKind::InvalidRequest, message))
    }
}

const fn scheme(by_tls: bool) -> &'static str {
    if by_tls { "https://" } else { "http://" }
}

impl FromStr for Discovery {
    type Err = Error;

    /// `dns://HOST:PORT`, or addresses `http://HOST:PORT` or `https://HOST:PORT` with commas between them.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let message =
                format!("`{text}` is neither dns://HOST:PORT nor a list http://HOST:PORT,… or https://HOST:PORT,…");
            Error::new(ErrorKind::InvalidRequest, message)
        };
        let authority = |text: &str| {
            let (host, port) = text.rsplit_once(':')?;
            let port: u16 = port.parse().ok().filter(|&port| port > 0)?;
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
            (!host.is_empty() && host.chars().all(plain)).then(|| (host.to_owned(), port))
        };
        if let Some(name) = text.strip_prefix("dns://") {
            let (host, port) = authority(name).ok_or_else(wrong)?;
            return Ok(Self::Dns { host, port });
        }
        let one = |address: &str| {
            let address = address.trim();
            let by_tls = address.starts_with(scheme(true));
            let (host, port) = authority(address.strip_prefix(scheme(by_tls))?.trim_end_matches('/'))?;
            Some(format!("{}{host}:{port}", scheme(by_tls)))
        };
        let addresses: Option<BTreeSet<String>> = text.split(',').map(one).collect();
        let addresses = addresses.filter(|addresses| addresses.len() <= REPLICAS_MAX);
        addresses.map(Self::Fixed).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_lists_and_nothing_else() {
        let dns = |host: &str| Discovery::Dns {
            host: host.to_owned(),
            port: 8001,
        };
        let wanted = dns("medsearch-peers.default.svc");
        assert_eq!(
            "dns://medsearch-peers.default.svc:8001".parse::<Discovery>().unwrap(),
            wanted
        );
        let list: Discovery = "http://a:1, http://[::1]:2/".parse().unwrap();
        let wanted = ["http://[::1]:2", "http://a:1"].map(str::to_owned);
        assert_eq!(list, Discovery::Fixed(wanted.into()));
        for wrong in [
            "",
            "dns://x",
            "dns://:1",
            "a:1",
            "ftp://a:1",
            "https://a",
            "http://a",
            "http://a:0",
            "http://u@a:1",
            "http://a:1/x",
        ] {
            let error = wrong.parse::<Discovery>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{wrong}");
        }
    }

    #[test]
    fn all_are_asked_by_tls_or_none() {
        let check = |text: &str, by_tls| text.parse::<Discovery>().unwrap().check_scheme(by_tls).is_ok();
        for (text, plain, by_tls) in [
            ("http://a:1,http://b:1", true, false),
            ("https://a:1,https://b:1", false, true),
            ("https://a:1,http://b:1", false, false),
            ("dns://a:1", true, true),
        ] {
            assert_eq!((check(text, false), check(text, true)), (plain, by_tls), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_has_its_addresses_and_an_unknown_one_is_no_empty_list() {
        let found = "dns://localhost:8001"
            .parse::<Discovery>()
            .unwrap()
            .addresses(false)
            .await
            .unwrap();
        assert!(
            found.contains("http://127.0.0.1:8001") || found.contains("http://[::1]:8001"),
            "{found:?}"
        );
        let nobody = "dns://nobody.invalid:8001"
            .parse::<Discovery>()
            .unwrap()
            .addresses(false)
            .await;
        assert_eq!(nobody.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
