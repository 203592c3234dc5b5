//! Which issuer is trusted, and how this server is known to it.

use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;

use super::Roles;
use crate::archive::Secret;
use crate::error::{Error, ErrorKind, Result};

/// Which issuer is trusted, with what, and for whom its tokens must be.
#[derive(Debug)]
pub struct OidcSettings {
    /// The issuer, as its tokens spell it.
    pub issuer: String,
    /// What its tokens for this server have as `aud`.
    pub audience: String,
    /// Certificates (PEM) of the authorities that vouch for the issuer's; none: those of the system.
    pub ca: Option<Vec<u8>>,
    /// What the issuer's words permit here.
    pub roles: Roles,
    /// How people sign in on the page; none: they don't, and only programs bring tokens.
    pub client: Option<ClientSettings>,
}

/// How people sign in on the page.
#[derive(Debug)]
pub struct ClientSettings {
    /// What the issuer calls this server.
    pub id: String,
    /// How this server proves that to it; none: by PKCE alone.
    pub secret: Option<String>,
    /// What is asked for: `openid` and others, with spaces between them.
    pub scope: String,
    /// Where browsers find this server.
    pub public_url: PublicUrl,
    /// How long it lasts.
    pub session: Duration,
    /// The secret that cookies are sealed with; none: the archive's.
    pub session_secret: Option<Secret>,
}

/// Where browsers find a server: `https://search.hospital.example`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    origin: String,
    secure: bool,
}

impl PublicUrl {
    /// Scheme, host and port, as a browser's `Origin` has them.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Whether it is https, and not for trying things out on one machine.
    pub fn is_secure(&self) -> bool {
        self.secure
    }
}

impl FromStr for PublicUrl {
    type Err = Error;

    /// # Errors
    /// `InvalidRequest` for anything but an origin that is https, or http on this machine.
    fn from_str(text: &str) -> Result<Self> {
        let url = trusted_url(text)?;
        if url.path() != "/" {
            let message = "the public URL has no path: the page is at the top of its host";
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        Ok(Self {
            origin: url.origin().ascii_serialization(),
            secure: url.scheme() == "https",
        })
    }
}

/// A URL whose answers can be trusted: https, or http to this machine; without credentials, query and fragment.
///
/// # Errors
/// `InvalidRequest` for anything else.
pub fn trusted_url(text: &str) -> Result<Url> {
    let refuse = || {
        let message =
            "a URL here begins with https:// (http:// only for localhost), and has no user, query or fragment";
        Error::new(ErrorKind::InvalidRequest, message)
    };
    let url = Url::parse(text).map_err(|_| refuse())?;
    let here = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let trusted = url.scheme() == "https" || (url.scheme() == "http" && here);
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    if trusted && plain && url.has_host() {
        Ok(url)
    } else {
        Err(refuse())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_urls_are_origins_that_can_be_trusted() {
        for (text, origin, secure) in [
            ("https://Search.example", "https://search.example", true),
            ("https://search.example:443/", "https://search.example", true),
            ("https://search.example:8443", "https://search.example:8443", true),
            ("http://localhost:8000", "http://localhost:8000", false),
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000", false),
        ] {
            let url: PublicUrl = text.parse().unwrap();
            assert_eq!((url.origin(), url.is_secure()), (origin, secure), "{text}");
        }
        for text in [
            "",
            "search.example",
            "http://search.example",
            "http://localhost.evil.example",
            "https://search.example/a",
            "https://u@search.example",
            "https://search.example/?a",
            "https://search.example/#a",
            "ftp://localhost",
            "file:///x",
        ] {
            assert!(text.parse::<PublicUrl>().is_err(), "{text}");
        }
    }
}
