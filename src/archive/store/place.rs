//! Where an archive lives: its URL, parsed once.

use std::fmt;
use std::path::PathBuf;

use object_store::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// Longest part of a bucket's names that an archive may take for itself: with the longest name of an object far from the 1,024 bytes of S3.
const PREFIX_BYTES_MAX: usize = 512;
/// Shortest and longest names of buckets: S3 and Azure stop at 63 characters, Google at 222 where there are dots.
const BUCKET_CHARACTERS: std::ops::RangeInclusive<usize> = 3..=222;

/// Where an archive lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A bucket, or what begins with a prefix in it.
    Bucket(Bucket),
}

/// A bucket, or what begins with a prefix in it. Whose credentials open it, and at which endpoint, is a matter of the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub(super) provider: Provider,
    pub(super) name: String,
    pub(super) prefix: Path,
}

/// Who keeps a bucket, or whose protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provider {
    /// Amazon S3, and whatever speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl Provider {
    const ALL: [Self; 3] = [Self::S3, Self::Google, Self::Azure];

    const fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "gs",
            Self::Azure => "az",
        }
    }
}

impl Place {
    /// What a path or a URL names: `file://`, `s3://`, `gs://`, `az://`.
    ///
    /// # Errors
    /// `InvalidRequest` for anything else, and for a bucket's URL with credentials, an endpoint or settings in it. What may be a secret is not repeated.
    pub fn parse(url: &str) -> Result<Self> {
        let schemes = "a folder, or a URL with `file://`, `s3://`, `gs://` or `az://`";
        let (scheme, rest) = match url.split_once(':') {
            _ if url.is_empty() => return refuse(format!("an archive needs a place: {schemes}")),
            Some((scheme, rest)) if is_scheme(scheme, rest) => (scheme, rest),
            _ => return Ok(Self::Folder(url.into())),
        };
        let Some(rest) = rest.strip_prefix("//") else {
            return refuse(format!(
                "`{scheme}:` without `//` is no URL: an archive's place is {schemes}"
            ));
        };
        if scheme == "file" {
            return folder(url, rest).map(Self::Folder);
        }
        match Provider::ALL.into_iter().find(|provider| provider.scheme() == scheme) {
            Some(provider) => bucket(provider, rest).map(Self::Bucket),
            None => refuse(format!(
                "an archive can't live at `{scheme}://`: its place is {schemes}"
            )),
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.provider.scheme(), self.name)?;
        match self.prefix.as_ref() {
            "" => Ok(()),
            prefix => write!(f, "/{prefix}"),
        }
    }
}

/// Whether `scheme:rest` is meant as a URL. Without `//` that is only likely of schemes that are known here: a folder's name may have a colon.
fn is_scheme(scheme: &str, rest: &str) -> bool {
    rest.starts_with("//") || scheme == "file" || Provider::ALL.iter().any(|provider| provider.scheme() == scheme)
}

fn folder(url: &str, rest: &str) -> Result<PathBuf> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    match percent_decoded(path) {
        Some(path) if path.starts_with('/') => Ok(path.into()),
        _ => refuse(format!(
            "`{url}` is not an absolute file URL such as `file:///srv/archive`"
        )),
    }
}

fn bucket(provider: Provider, rest: &str) -> Result<Bucket> {
    let scheme = provider.scheme();
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if name.contains('@') {
        return refuse(format!(
            "a user or a password stands in the archive's `{scheme}://` URL: credentials come from the environment"
        ));
    }
    if rest.contains(['?', '#']) {
        return refuse(format!(
            "the archive's `{scheme}://` URL has a `?` or a `#`: settings come from the environment"
        ));
    }
    if name.contains(':') {
        return refuse(format!(
            "`{name}` is no bucket: the URL is `{scheme}://BUCKET/PREFIX`, and the endpoint comes from the environment"
        ));
    }
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    let outer = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !BUCKET_CHARACTERS.contains(&name.len())
        || !name.chars().all(inner)
        || !name.starts_with(outer)
        || !name.ends_with(outer)
    {
        return refuse(format!(
            "`{name}` is no bucket: a name has {} to {} lowercase letters, digits, `-`, `_`, `.`",
            BUCKET_CHARACTERS.start(),
            BUCKET_CHARACTERS.end()
        ));
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    // Decoded by some programs and taken as it is by others: two places for one URL.
    let odd = |c: char| c.is_control() || matches!(c, '%' | '\\');
    let parsed = match Path::parse(prefix) {
        // It drops a slash at the beginning, after which the same name would stand for two places.
        Ok(parsed) if parsed.as_ref() == prefix && !prefix.contains(odd) => parsed,
        _ => {
            return refuse(format!(
                "`{prefix}` can't be the beginning of names in a bucket: it has an empty part, `.`, `..`, `%` or an odd character"
            ));
        }
    };
    if prefix.len() > PREFIX_BYTES_MAX {
        return refuse(format!(
            "the archive's URL has more than {PREFIX_BYTES_MAX} bytes behind the bucket"
        ));
    }
    Ok(Bucket {
        provider,
        name: name.to_owned(),
        prefix: parsed,
    })
}

fn refuse<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidRequest, message))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.extend(hex::decode(digits).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_folders() {
        let check = |url: &str, expected: Option<&str>| {
            let expected = expected.map(|path| Place::Folder(path.into()));
            assert_eq!(Place::parse(url).ok(), expected, "{url}");
        };
        check("archive", Some("archive"));
        check("/srv/an archive", Some("/srv/an archive"));
        check("/srv/12:30", Some("/srv/12:30"));
        check("file:///srv/an%20archive", Some("/srv/an archive"));
        check("file://localhost/srv/a", Some("/srv/a"));
        check("file://host/srv/a", None);
        check("file://relative", None);
        check("file:///srv/%zz", None);
        check("file:/srv", None);
        check("", None);
    }

    #[test]
    fn urls_name_buckets() {
        let check = |url: &str, expected: Option<(Provider, &str, &str)>| {
            let expected = expected.map(|(provider, name, prefix)| {
                Place::Bucket(Bucket {
                    provider,
                    name: name.into(),
                    prefix: prefix.into(),
                })
            });
            assert_eq!(Place::parse(url).ok(), expected, "{url}");
            if let Some(Place::Bucket(bucket)) = expected {
                assert_eq!(bucket.to_string(), url.strip_suffix('/').unwrap_or(url));
            }
        };
        check("s3://bucket", Some((Provider::S3, "bucket", "")));
        check("s3://bucket/", Some((Provider::S3, "bucket", "")));
        check(
            "s3://my.bucket-1/x-rays/2026/",
            Some((Provider::S3, "my.bucket-1", "x-rays/2026")),
        );
        check(
            "gs://a_bucket/an archive",
            Some((Provider::Google, "a_bucket", "an archive")),
        );
        check("az://container/a", Some((Provider::Azure, "container", "a")));
        for wrong in [
            "s3://",
            "s3:///archive",
            "s3:/bucket/archive",
            "s3:bucket",
            "s3://Bucket/a",
            "s3://-bucket",
            "s3://bu",
            "s3://bucket//a",
            "s3://bucket/a//b",
            "s3://bucket/a//",
            "s3://bucket/../other",
            "s3://bucket/a%2Fb",
            "s3://bucket/a\n",
            "s3://localhost:9000/bucket",
            "s3://bücket/a",
            "s3a://bucket/a",
            "https://bucket.example.org/a",
        ] {
            check(wrong, None);
        }
        check(&format!("s3://bucket/{}", "a".repeat(PREFIX_BYTES_MAX + 1)), None);
    }

    #[test]
    fn what_may_be_a_secret_is_refused_and_not_repeated() {
        for url in [
            "s3://AKIA:hidden@bucket/archive",
            "s3://hidden@bucket",
            "az://container/archive?sv=2026&sig=hidden",
            "s3://bucket?secret_access_key=hidden",
            "gs://bucket/archive#hidden",
        ] {
            let error = Place::parse(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{url}");
            assert!(error.message().contains("the environment"), "{error}");
            assert!(!format!("{error:?}").contains("hidden"), "{error:?}");
        }
    }
}
