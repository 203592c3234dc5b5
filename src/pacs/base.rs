//! Where the DICOMweb of a PACS begins: the only URLs that are ever asked for are below it. And where that of this server does, for what its answers name.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use super::reference::Reference;
use crate::domain::Uid;
use crate::error::{Error, ErrorKind, Result};

/// Longest URL of a configuration or a request.
const CHARACTERS_MAX: usize = 1024;

/// `https://HOST[:PORT]/PATH` without user, password, query and fragment; `http://` too, for a network that nobody else is in.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl(Url);

impl BaseUrl {
    /// Reads one of the configuration.
    ///
    /// # Errors
    /// `InvalidRequest` for anything else. What may be a credential is not repeated.
    pub fn parse(text: &str) -> Result<Self> {
        let url = parsed(text)?;
        if url.path().contains('%') || url.path().contains("//") {
            return Err(wrong("has a path with `%` or an empty part"));
        }
        let mut url = url;
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self(url))
    }

    /// The host's name; none where an address stands in its place.
    pub fn host_name(&self) -> Option<&str> {
        match self.address() {
            Some(_) => None,
            None => self.0.host_str(),
        }
    }

    /// The address that stands in the place of a name.
    pub fn address(&self) -> Option<IpAddr> {
        let host = self.0.host_str()?;
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        host.parse().ok()
    }

    /// Whether what is sent can't be read on the way.
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// A URL below: each part is a word of the protocol or a [`Uid`], the query is pairs of them.
    pub(super) fn below(&self, parts: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.0.clone();
        let path = parts
            .iter()
            .fold(self.path().to_owned(), |path, part| path + "/" + part);
        url.set_path(&path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// The RetrieveURL of something (PS3.18, 10.4.1): what [`Self::reference`] takes apart. An instance whose series is not known has none.
    pub fn retrieve_url(&self, reference: &Reference) -> Option<String> {
        let mut parts = vec!["studies", reference.study.as_str()];
        match (&reference.series, &reference.instance) {
            (None, None) => {}
            (Some(series), None) => parts.extend(["series", series.as_str()]),
            (Some(series), Some(instance)) => {
                parts.extend(["series", series.as_str(), "instances", instance.as_str()]);
            }
            (None, Some(_)) => return None,
        }
        Some(self.below(&parts, &[]).into())
    }

    /// What a RetrieveURL of this PACS names (PS3.18, 10.4.1): none for one of another host, port, scheme or path.
    ///
    /// # Errors
    /// `InvalidRequest` for what is no such URL at all.
    pub fn reference(&self, text: &str) -> Result<Option<Reference>> {
        let url = parsed(text)?;
        let same = |part: fn(&Url) -> Option<String>| part(&url) == part(&self.0);
        if url.scheme() != self.0.scheme()
            || !same(|url| url.host_str().map(str::to_owned))
            || url.port_or_known_default() != self.0.port_or_known_default()
        {
            return Ok(None);
        }
        let Some(rest) = url
            .path()
            .strip_prefix(self.path())
            .and_then(|rest| rest.strip_prefix('/'))
        else {
            return Ok(None);
        };
        let parts: Vec<&str> = rest.split('/').collect();
        let uid = |text: &str| text.parse::<Uid>().map_err(|error| error.context("`retrieve_url`"));
        let reference = match parts.as_slice() {
            ["studies", study] => Reference {
                study: uid(study)?,
                series: None,
                instance: None,
            },
            ["studies", study, "series", series] => Reference {
                study: uid(study)?,
                series: Some(uid(series)?),
                instance: None,
            },
            ["studies", study, "series", series, "instances", instance] => Reference {
                study: uid(study)?,
                series: Some(uid(series)?),
                instance: Some(uid(instance)?),
            },
            _ => {
                return Err(wrong(
                    "names no study, series or instance: …/studies/UID[/series/UID[/instances/UID]]",
                ));
            }
        };
        Ok(Some(reference))
    }

    /// Without a slash at its end.
    fn path(&self) -> &str {
        self.0.path().trim_end_matches('/')
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BaseUrl({})", self.0)
    }
}

fn wrong(why: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, format!("the URL {why}"))
}

/// Whether it is a URL that a PACS may have.
///
/// # Errors
/// `InvalidRequest` when it is none.
pub fn check(text: &str) -> Result<()> {
    parsed(text).map(drop)
}

fn parsed(text: &str) -> Result<Url> {
    if text.len() > CHARACTERS_MAX {
        return Err(wrong("is too long"));
    }
    // The parser drops or turns round what it finds odd: such a URL is not what it looks like.
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(wrong("has a blank or a backslash"));
    }
    if text.split_once("://").is_none_or(|(_, rest)| rest.starts_with('/')) {
        return Err(wrong("begins with https:// or http:// and names a host"));
    }
    let url = Url::parse(text).map_err(|_| wrong("is none"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("begins with https:// or http:// and names a host"));
    }
    if !url.username().is_empty() || url.password().is_some() || text.contains('@') {
        return Err(wrong("holds a user or a password: credentials have files of their own"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("has a `?` or a `#`"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: &str = "https://pacs.example:8443/dicom-web";

    #[test]
    fn a_base_is_scheme_host_and_path_alone() {
        for good in [
            BASE,
            "https://pacs.example:8443/dicom-web/",
            "http://10.1.2.3/",
            "http://[fd00::1]:8042/dicom-web",
        ] {
            assert!(BaseUrl::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "pacs.example",
            "ftp://pacs.example/",
            "file:///etc/passwd",
            "https://",
            "https:///x",
            "https:x",
            "https:/x",
            "https://user@pacs.example/",
            "https://user:hunter2@pacs.example/",
            "https://@pacs.example/",
            "https://pacs.example/?a=b",
            "https://pacs.example/#x",
            "https://pacs.example/a%2fb",
            "https://pacs.example//b",
            "https://pacs .example/",
            "https:\\\\pacs.example/",
            "https://pacs.example/a\\b",
            " https://pacs.example/",
            "gopher://pacs.example/",
            "https://pacs.example:99999/",
        ] {
            let error = BaseUrl::parse(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{bad}");
            assert!(!error.message().contains("hunter2"), "{error}");
        }
        let base = BaseUrl::parse("http://10.1.2.3:80/x/").unwrap();
        assert_eq!(
            (base.host_name(), base.address()),
            (None, Some("10.1.2.3".parse().unwrap()))
        );
        // Other spellings of an address are addresses too.
        assert_eq!(
            BaseUrl::parse("http://0x7f.1/").unwrap().address(),
            Some("127.0.0.1".parse().unwrap())
        );
        assert_eq!(BaseUrl::parse(BASE).unwrap().host_name(), Some("pacs.example"));
    }

    #[test]
    fn urls_are_put_together_below_it() {
        for base in ["https://pacs.example/dicom-web", "https://pacs.example/dicom-web/"] {
            let base = BaseUrl::parse(base).unwrap();
            assert_eq!(
                base.below(&["studies", "1.2"], &[]).as_str(),
                "https://pacs.example/dicom-web/studies/1.2"
            );
            assert_eq!(
                base.below(&["studies"], &[("limit", "2")]).as_str(),
                "https://pacs.example/dicom-web/studies?limit=2"
            );
        }
        let root = BaseUrl::parse("https://pacs.example").unwrap();
        assert_eq!(
            root.below(&["studies", "1"], &[]).as_str(),
            "https://pacs.example/studies/1"
        );
    }

    #[test]
    fn a_retrieve_url_is_one_of_this_pacs_or_none() {
        let base = BaseUrl::parse(BASE).unwrap();
        let found = |text: &str| base.reference(text);
        let reference = found("https://PACS.example:8443/dicom-web/studies/1.2/series/3/instances/4.5")
            .unwrap()
            .unwrap();
        let parts = (reference.study.as_str(), reference.series, reference.instance);
        assert_eq!(parts, ("1.2", Some("3".parse().unwrap()), Some("4.5".parse().unwrap())));
        assert!(found(&format!("{BASE}/studies/1")).unwrap().is_some());
        assert!(found(&format!("{BASE}/studies/1/series/2")).unwrap().is_some());
        for other in [
            "http://pacs.example:8443/dicom-web/studies/1",
            "https://pacs.example/dicom-web/studies/1",
            "https://pacs.example.evil:8443/dicom-web/studies/1",
            "https://evil.example:8443/dicom-web/studies/1",
            "https://pacs.example:8443/other/studies/1",
            "https://pacs.example:8443/dicom-webs/studies/1",
            "https://pacs.example:8443/dicom-web/../studies/1",
            "https://pacs.example:8443/dicom-web/%2e%2e/studies/1",
            "https://169.254.169.254/studies/1",
        ] {
            assert!(found(other).unwrap().is_none(), "{other}");
        }
        for wrong in [
            "studies/1",
            "/dicom-web/studies/1",
            "https://u:p@pacs.example:8443/dicom-web/studies/1",
            "https://pacs.example:8443@evil/dicom-web/studies/1",
            "https://pacs.example:8443/dicom-web/studies/1?x",
            "https://pacs.example:8443/dicom-web/studies/1#x",
            "https://pacs.example:8443/dicom-web/studies",
            "https://pacs.example:8443/dicom-web/studies/1/metadata",
            "https://pacs.example:8443/dicom-web/studies/1/",
            "https://pacs.example:8443/dicom-web/studies/a",
            "https://pacs.example:8443/dicom-web/studies/1/series/2/instances/3/frames/1",
            "https://pacs.example:8443/dicom-web//studies/1",
            "https://pacs.example:8443/dicom-web/studies/%31",
            "javascript:1",
            "",
        ] {
            assert_eq!(found(wrong).unwrap_err().kind(), ErrorKind::InvalidRequest, "{wrong}");
        }
    }

    #[test]
    fn what_is_put_together_is_taken_apart_again() {
        let uid = |text: &str| text.parse::<Uid>().unwrap();
        let base = BaseUrl::parse(BASE).unwrap();
        let instance = Reference {
            study: uid("1.2"),
            series: Some(uid("3")),
            instance: Some(uid("4.5")),
        };
        let series = Reference {
            instance: None,
            ..instance.clone()
        };
        let study = Reference {
            series: None,
            ..series.clone()
        };
        for (reference, path) in [
            (&instance, "/studies/1.2/series/3/instances/4.5"),
            (&series, "/studies/1.2/series/3"),
            (&study, "/studies/1.2"),
        ] {
            let url = base.retrieve_url(reference).unwrap();
            assert_eq!(url, format!("{BASE}{path}"));
            assert_eq!(base.reference(&url).unwrap().as_ref(), Some(reference));
        }
        let nowhere = Reference {
            series: None,
            ..instance
        };
        assert_eq!(base.retrieve_url(&nowhere), None);
    }

    proptest! {
        #[test]
        fn what_is_taken_changes_no_path(text in "[0-9./?#%a@: \\\\-]{0,70}") {
            if let Ok(uid) = text.parse::<Uid>() {
                let url = Url::parse(&format!("https://pacs.example/base/studies/{}", uid.as_str())).unwrap();
                prop_assert_eq!(url.path(), format!("/base/studies/{text}"));
                prop_assert_eq!(url.host_str(), Some("pacs.example"));
                prop_assert!(url.query().is_none() && url.fragment().is_none());
            }
        }

        /// Whatever is sent, what is then asked for lies below the base.
        #[test]
        fn nothing_leads_elsewhere(text in "(https://pacs\\.example:8443/dicom-web)?[a-z0-9:/?#@%.\\\\]{0,40}") {
            let base = BaseUrl::parse(BASE).unwrap();
            if let Ok(Some(reference)) = base.reference(&text) {
                let url = base.below(&["studies", reference.study.as_str()], &[]);
                prop_assert!(url.as_str().starts_with("https://pacs.example:8443/dicom-web/studies/"));
            }
        }
    }
}
