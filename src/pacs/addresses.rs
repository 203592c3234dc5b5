//! Which addresses a PACS may have: what its name resolves to is looked at before a connection is made, and the connection goes to what was looked at.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Longest time for one resolution.
const RESOLVE_MAX: Duration = Duration::from_secs(5);
/// Addresses of one name that are looked at.
const ADDRESSES_MAX: usize = 32;
/// Where clouds tell a machine its secrets, besides 169.254.0.0/16: Amazon's by IPv6, Alibaba's, Azure's.
const METADATA: [IpAddr; 3] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(std::net::Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(std::net::Ipv4Addr::new(168, 63, 129, 16)),
];

/// From a name to addresses.
pub trait Lookup: Send + Sync {
    /// All addresses of `name`.
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// As the machine does it.
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).take(ADDRESSES_MAX + 1).collect())
        })
    }
}

/// Addresses that the name of a PACS may stand for. A hospital's are private ones: these are not refused, the configuration has named the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Only these; none: all but those that no PACS has.
    only: Option<Vec<IpNet>>,
    /// The host is `localhost`, so that loopback is meant.
    local: bool,
}

impl AddressPolicy {
    /// For a host of this name, at these addresses if any are given.
    pub fn new(host: &str, only: Option<Vec<IpNet>>) -> Self {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        Self {
            only,
            local: host == "localhost" || host.ends_with(".localhost"),
        }
    }

    /// Whether a connection may go to `address`.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = inner(address);
        match &self.only {
            Some(only) => only.iter().any(|network| network.contains(&address)),
            None if address.is_loopback() => self.local,
            None => !is_nobodys(address),
        }
    }
}

/// What an IPv6 address means that only wraps one of IPv4 (RFC 4291, 2.5.5; RFC 6052).
fn inner(address: IpAddr) -> IpAddr {
    let IpAddr::V6(wrapped) = address.to_canonical() else {
        return address.to_canonical();
    };
    match wrapped.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let [a, b] = high.to_be_bytes();
            let [c, d] = low.to_be_bytes();
            IpAddr::from([a, b, c, d])
        }
        _ => IpAddr::V6(wrapped),
    }
}

/// Addresses at which no PACS is: link-local ones, with the metadata of clouds among them, and what is no single machine.
fn is_nobodys(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    special || address.is_unspecified() || address.is_multicast() || METADATA.contains(&address)
}

/// Resolves the name of one PACS and no other, and gives only what the policy allows: if one address is not allowed, none is.
pub(super) struct PolicedResolver {
    pub host: String,
    pub policy: AddressPolicy,
    pub lookup: Arc<dyn Lookup>,
}

/// A name stands for an address that the policy does not allow.
#[derive(Debug)]
pub(super) struct AddressRefused(IpAddr);

impl fmt::Display for AddressRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name stands for `{}`, which is not allowed", self.0)
    }
}

impl std::error::Error for AddressRefused {}

impl PolicedResolver {
    async fn resolved(host: String, policy: AddressPolicy, lookup: Arc<dyn Lookup>) -> io::Result<Vec<SocketAddr>> {
        let found = tokio::time::timeout(RESOLVE_MAX, lookup.lookup(host)).await;
        let found =
            found.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the name server did not answer in time"))??;
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        if found.len() > ADDRESSES_MAX {
            return Err(io::Error::other("the name has too many addresses"));
        }
        if let Some(refused) = found.iter().find(|address| !policy.allows(**address)) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                AddressRefused(*refused),
            ));
        }
        // Port 0: that of the URL.
        Ok(found.into_iter().map(|address| SocketAddr::new(address, 0)).collect())
    }
}

impl Resolve for PolicedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let known = name.as_str().eq_ignore_ascii_case(&self.host);
        let (policy, lookup) = (self.policy.clone(), Arc::clone(&self.lookup));
        let host = self.host.clone();
        Box::pin(async move {
            if !known {
                return Err(
                    io::Error::new(io::ErrorKind::PermissionDenied, "another name than that of the PACS").into(),
                );
            }
            let addresses = Self::resolved(host, policy, lookup).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(policy: &AddressPolicy, address: &str) -> bool {
        policy.allows(address.parse().unwrap())
    }

    #[test]
    fn hospitals_addresses_are_allowed_and_metadata_is_not() {
        let policy = AddressPolicy::new("pacs.example", None);
        for good in [
            "10.0.0.1",
            "172.16.3.4",
            "192.168.1.1",
            "100.64.1.1",
            "203.0.113.9",
            "fd00::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(allowed(&policy, good), "{good}");
        }
        for bad in [
            "169.254.169.254",
            "169.254.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "ff02::1",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "168.63.129.16",
            "::ffff:169.254.169.254",
            "::ffff:127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::7f00:1",
        ] {
            assert!(!allowed(&policy, bad), "{bad}");
        }
        for name in ["localhost", "LOCALHOST.", "a.localhost"] {
            let local = AddressPolicy::new(name, None);
            assert!(allowed(&local, "127.0.0.1") && allowed(&local, "::1") && !allowed(&local, "169.254.169.254"));
        }
        let only = Some(vec!["10.1.0.0/16".parse().unwrap(), "169.254.7.7/32".parse().unwrap()]);
        let named = AddressPolicy::new("pacs.example", only);
        assert!(allowed(&named, "10.1.2.3") && allowed(&named, "169.254.7.7") && allowed(&named, "::ffff:10.1.2.3"));
        assert!(!allowed(&named, "10.2.0.1") && !allowed(&named, "169.254.169.254") && !allowed(&named, "127.0.0.1"));
    }

    struct Fixed(Vec<&'static str>);

    impl Lookup for Fixed {
        fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            let found = self.0.iter().map(|address| address.parse().unwrap()).collect();
            Box::pin(async move { Ok(found) })
        }
    }

    async fn resolve(asked: &str, found: &[&'static str]) -> Result<Vec<SocketAddr>, String> {
        let resolver = PolicedResolver {
            host: "pacs.example".into(),
            policy: AddressPolicy::new("pacs.example", None),
            lookup: Arc::new(Fixed(found.to_vec())),
        };
        let resolved = resolver.resolve(asked.parse().unwrap()).await;
        resolved.map(Iterator::collect).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn one_address_that_is_not_allowed_spoils_all() {
        let good = resolve("pacs.example", &["10.0.0.1", "10.0.0.2"]).await.unwrap();
        assert_eq!(good, ["10.0.0.1:0".parse().unwrap(), "10.0.0.2:0".parse().unwrap()]);
        let bad = resolve("pacs.example", &["10.0.0.1", "169.254.169.254"])
            .await
            .unwrap_err();
        assert!(bad.contains("169.254.169.254"), "{bad}");
        assert!(resolve("pacs.example", &[]).await.is_err());
        assert!(resolve("pacs.example", &["10.0.0.1"; 33]).await.is_err());
        assert!(resolve("evil.example", &["10.0.0.1"]).await.is_err());
    }
}
