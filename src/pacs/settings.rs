//! The file that says which PACS there are: nothing outside of it is ever asked for anything.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ipnet::IpNet;
use reqwest::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use reqwest::{Certificate, Identity};
use serde::Deserialize;

use super::base::BaseUrl;
use super::sweep::{SweepBounds, SweepSettings};
use crate::error::{Error, ErrorKind, Result};

/// Largest file of the configuration, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most PACS.
const PACS_MAX: usize = 64;
/// Longest name of one.
const NAME_CHARACTERS_MAX: usize = 64;
/// Time for one request to a PACS where the file says nothing.
const SECONDS: u64 = 20;
/// Longest time that may be set.
const SECONDS_MAX: u64 = 600;
/// Requests to one PACS at a time where the file says nothing.
const AT_ONCE: usize = 4;
/// Most that may be set.
const AT_ONCE_MAX: usize = 64;

/// Time between two looks for what an Orthanc has deleted where the file says nothing.
const SWEEP_SECONDS: u64 = 3600;
/// Longest time between two.
const SWEEP_SECONDS_MAX: u64 = 7 * 24 * 3600;
/// Instances whose images may go in one sweep where the file says nothing.
const DELETIONS: usize = 1000;
/// Most that may be set.
const DELETIONS_MAX: usize = 1_000_000;
/// Of a hundred instances with an image so many may go in one sweep where the file says nothing.
const DELETIONS_PERCENT: usize = 10;

/// What a PACS is called here: in requests, metrics and logs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PacsName(String);

impl PacsName {
    /// Letters, digits, `-`, `_`, `.`.
    ///
    /// # Errors
    /// `InvalidRequest` for anything else, nothing, or more than 64 characters.
    pub fn parse(text: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        // It is the name of a folder too.
        if !(1..=NAME_CHARACTERS_MAX).contains(&text.len()) || !text.chars().all(fits) || text.starts_with('.') {
            return refuse(format!(
                "the name of a PACS is 1 to {NAME_CHARACTERS_MAX} letters, digits, `-`, `_`, `.`"
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PacsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One PACS: where it is, and what it wants to be shown. `Debug` shows no credential.
pub struct PacsSettings {
    /// What it is called.
    pub name: PacsName,
    /// Where its DICOMweb begins.
    pub base: BaseUrl,
    /// The only addresses that its name may stand for; none: any at which a PACS can be.
    pub addresses: Option<Vec<IpNet>>,
    /// Sent with each request, the credential among them.
    pub headers: HeaderMap,
    /// Shown where TLS asks for it.
    pub identity: Option<Identity>,
    /// Whose certificates are trusted; none: those that the machine trusts.
    pub authorities: Option<Vec<Certificate>>,
    /// Time for one request.
    pub time_max: Duration,
    /// Requests at a time.
    pub at_once: usize,
}

impl fmt::Debug for PacsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacsSettings({} at {:?})", self.name, self.base)
    }
}

/// What the file says.
#[derive(Debug, Default)]
pub struct PacsFile {
    /// Those whose DICOMweb may be asked for images.
    pub pacs: Vec<PacsSettings>,
    /// Each Orthanc whose changes are followed.
    pub followed: Vec<Followed>,
}

/// An Orthanc that is followed.
#[derive(Debug)]
pub struct Followed {
    /// Where it is; the base is that of its REST.
    pub orthanc: PacsSettings,
    /// How its deletions are followed; none: they are not.
    pub sweep: Option<SweepSettings>,
    /// The others that are followed, where the deletions of any are: then it is written down which instances each has, since what another has stays.
    pub noted_with: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    pacs: Vec<Entry>,
    #[serde(default)]
    orthanc: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    url: String,
    addresses: Option<Vec<String>>,
    basic_file: Option<PathBuf>,
    header_file: Option<PathBuf>,
    client_certificate_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    seconds_max: Option<u64>,
    at_once: Option<usize>,
    follow: Option<bool>,
    follow_deletions: Option<bool>,
    deletions_every_seconds: Option<u64>,
    deletions_max: Option<usize>,
    deletions_percent_max: Option<usize>,
}

/// Reads the file. Files that it names lie beside it unless they have a path of their own.
///
/// # Errors
/// `InvalidRequest` for a file that can't be read or is not as it should be, naming the entry; no credential is repeated.
pub fn read(path: &Path) -> Result<PacsFile> {
    let context = |error: Error| error.context(format!("the PACS file `{}`", path.display()));
    let text = text_of(path).map_err(context)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    parse(&text, folder).map_err(context)
}

/// The files with credentials that it names; none of a file that can't be read, which [`read`] tells of.
pub fn credential_files(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let file: Option<File> = text_of(path).ok().and_then(|text| toml::from_str(&text).ok());
    let entries = file.into_iter().flat_map(|file| [file.pacs, file.orthanc]).flatten();
    let named = entries.flat_map(|entry| [entry.basic_file, entry.header_file, entry.client_certificate_file]);
    named.flatten().map(|path| folder.join(path)).collect()
}

/// Reads the text of such a file.
///
/// # Errors
/// As [`read`].
pub fn parse(text: &str, folder: &Path) -> Result<PacsFile> {
    // Without the line that it shows: somebody may have put a password there.
    let file: File = toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        invalid(format!(
            "line {}: {}",
            before.matches('\n').count() + 1,
            error.message()
        ))
    })?;
    if file
        .pacs
        .iter()
        .any(|entry| entry.follow.is_some() || entry.says_of_deletions())
    {
        return refuse("`follow` belongs to an `[[orthanc]]`, whose URL is that of its REST");
    }
    if (file.orthanc.iter()).any(|entry| entry.follow != Some(true) && entry.says_of_deletions()) {
        return refuse("what is said of deletions needs `follow = true`");
    }
    let followed: Vec<Entry> = file
        .orthanc
        .into_iter()
        .filter(|entry| entry.follow == Some(true))
        .collect();
    let sweeps: Result<Vec<Option<SweepSettings>>> = followed.iter().map(Entry::sweep).collect();
    let sweeps = sweeps?;
    let noted = sweeps.iter().any(Option::is_some);
    let names: Vec<String> = followed.iter().map(|entry| entry.name.clone()).collect();
    let others = |own: &str| names.iter().filter(|name| *name != own).cloned().collect();
    let followed = checked(followed, folder)?.into_iter().zip(sweeps);
    Ok(PacsFile {
        pacs: checked(file.pacs, folder)?,
        followed: followed
            .map(|(orthanc, sweep)| {
                let noted_with = noted.then(|| others(orthanc.name.as_str()));
                Followed {
                    orthanc,
                    sweep,
                    noted_with,
                }
            })
            .collect(),
    })
}

fn checked(entries: Vec<Entry>, folder: &Path) -> Result<Vec<PacsSettings>> {
    if entries.len() > PACS_MAX {
        return refuse(format!("more than `{PACS_MAX}` PACS"));
    }
    let mut seen = BTreeSet::new();
    let mut list = Vec::with_capacity(entries.len());
    for entry in entries {
        let name = PacsName::parse(&entry.name)?;
        if !seen.insert(name.clone()) {
            return refuse(format!("`{name}` stands there twice"));
        }
        let settings = entry.settings(name.clone(), folder);
        list.push(settings.map_err(|error| error.context(format!("PACS `{name}`")))?);
    }
    Ok(list)
}

impl Entry {
    fn says_of_deletions(&self) -> bool {
        let numbers = [self.deletions_max, self.deletions_percent_max];
        self.follow_deletions.is_some() || self.deletions_every_seconds.is_some() || numbers.iter().any(Option::is_some)
    }

    /// How deletions are followed, if they are.
    fn sweep(&self) -> Result<Option<SweepSettings>> {
        let context = |error: Error| error.context(format!("PACS `{}`", self.name));
        let every = within(
            "deletions_every_seconds",
            self.deletions_every_seconds,
            SWEEP_SECONDS,
            SWEEP_SECONDS_MAX,
        );
        let images_max = within("deletions_max", self.deletions_max, DELETIONS, DELETIONS_MAX);
        let percent_max = within(
            "deletions_percent_max",
            self.deletions_percent_max,
            DELETIONS_PERCENT,
            100,
        );
        let bounds = SweepBounds {
            images_max: images_max.map_err(context)?,
            percent_max: percent_max.map_err(context)?,
        };
        let every = Duration::from_secs(every.map_err(context)?);
        Ok((self.follow_deletions == Some(true)).then_some(SweepSettings { every, bounds }))
    }

    fn settings(self, name: PacsName, folder: &Path) -> Result<PacsSettings> {
        let base = BaseUrl::parse(&self.url)?;
        let file = |path: PathBuf| text_of(&folder.join(path));
        let headers = match (self.basic_file, self.header_file) {
            (Some(_), Some(_)) => return refuse("`basic_file` and `header_file` exclude each other"),
            (Some(path), None) => basic(&file(path)?)?,
            (None, Some(path)) => header(&file(path)?)?,
            (None, None) => HeaderMap::new(),
        };
        let unfit = |what: &'static str| move |error| Error::with_source(ErrorKind::InvalidRequest, what, error);
        let identity = self
            .client_certificate_file
            .map(|path| {
                let pem = file(path)?;
                let identity = Identity::from_pem(pem.as_bytes());
                identity.map_err(unfit(
                    "`client_certificate_file` holds no certificate with its key, in PEM",
                ))
            })
            .transpose()?;
        let authorities = self
            .ca_file
            .map(|path| {
                let pem = file(path)?;
                let certificates = Certificate::from_pem_bundle(pem.as_bytes());
                match certificates.map_err(unfit("`ca_file` holds no certificates in PEM"))? {
                    none if none.is_empty() => refuse("`ca_file` holds no certificate"),
                    certificates => Ok(certificates),
                }
            })
            .transpose()?;
        if (identity.is_some() || authorities.is_some()) && !base.is_encrypted() {
            return refuse("certificates need `https://`");
        }
        let addresses = self
            .addresses
            .map(|list| list.iter().map(|text| network(text)).collect());
        let addresses: Option<Vec<IpNet>> = addresses.transpose()?;
        if let (Some(list), Some(address)) = (&addresses, base.address())
            && !list.iter().any(|network| network.contains(&address))
        {
            return refuse("`addresses` does not hold the address in `url`");
        }
        Ok(PacsSettings {
            name,
            base,
            addresses,
            headers,
            identity,
            authorities,
            time_max: Duration::from_secs(within("seconds_max", self.seconds_max, SECONDS, SECONDS_MAX)?),
            at_once: within("at_once", self.at_once, AT_ONCE, AT_ONCE_MAX)?,
        })
    }
}

fn within<T: PartialOrd + From<u8> + fmt::Display>(name: &str, value: Option<T>, default: T, max: T) -> Result<T> {
    match value {
        None => Ok(default),
        Some(value) if value >= T::from(1) && value <= max => Ok(value),
        Some(value) => refuse(format!("`{name}` is 1 to {max}, not `{value}`")),
    }
}

/// An address, or a network as `10.1.0.0/16`.
fn network(text: &str) -> Result<IpNet> {
    let parsed = text
        .parse()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
    parsed.map_err(|_| invalid("`addresses` lists addresses, or networks as `10.1.0.0/16`"))
}

/// `USER:PASSWORD` (RFC 7617).
fn basic(text: &str) -> Result<HeaderMap> {
    let pair = text.trim_end_matches(['\r', '\n']);
    if !pair.contains(':') || pair.contains(char::is_control) {
        return refuse("`basic_file` holds `USER:PASSWORD` on one line");
    }
    one_header(AUTHORIZATION, &format!("Basic {}", BASE64.encode(pair)))
}

/// `NAME: VALUE`, for a bearer token or a key.
fn header(text: &str) -> Result<HeaderMap> {
    let line = text.trim_end_matches(['\r', '\n']);
    let wrong = || invalid("`header_file` holds `NAME: VALUE` on one line");
    let (name, value) = line.split_once(':').ok_or_else(wrong)?;
    let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
    if [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION].contains(&name) {
        return refuse(format!("`header_file` can't set `{name}`"));
    }
    one_header(name, value.trim())
}

fn one_header(name: HeaderName, value: &str) -> Result<HeaderMap> {
    let value = HeaderValue::from_str(value).map_err(|_| invalid("the credential can't be sent in a header"));
    let mut value = value?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(name, value)]))
}

fn text_of(path: &Path) -> Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    read.map_err(|error| {
        let message = format!("`{}` can't be read", path.display());
        Error::with_source(ErrorKind::InvalidRequest, message, error)
    })?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return refuse(format!("`{}` is too long", path.display()));
    }
    Ok(text)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidRequest, message)
}

fn refuse<T>(message: impl Into<String>) -> Result<T> {
    Err(invalid(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, files: &[(&str, &str)]) -> Result<PacsFile> {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        parse(text, folder.path())
    }

    #[test]
    fn an_entry_is_a_name_a_place_and_what_it_wants_to_see() {
        let text = r#"
            [[pacs]]
            name = "main"
            url = "https://pacs.example/dicom-web/"
            basic_file = "basic"
            addresses = ["10.1.0.0/16", "10.2.0.1"]
            [[pacs]]
            name = "other"
            url = "http://10.0.0.1:8042/dicom-web"
            header_file = "header"
            seconds_max = 5
            at_once = 1
        "#;
        let list = parsed(text, &[("basic", "user:pass:word\n"), ("header", "X-Api-Key: abc\r\n")]).unwrap();
        let [main, other] = list.pacs.as_slice() else {
            panic!("{list:?}")
        };
        assert_eq!(
            (main.name.as_str(), main.time_max, main.at_once),
            ("main", Duration::from_secs(20), 4)
        );
        let sent = main.headers.get("authorization").unwrap();
        assert_eq!(sent, &format!("Basic {}", BASE64.encode("user:pass:word")));
        assert!(sent.is_sensitive() && !format!("{main:?} {:?}", main.headers).contains(&BASE64.encode("user")));
        assert_eq!(main.addresses.as_ref().unwrap().len(), 2);
        assert_eq!(other.headers.get("x-api-key").unwrap(), "abc");
        assert_eq!((other.time_max, other.at_once), (Duration::from_secs(5), 1));
        assert!(parsed("", &[]).unwrap().pacs.is_empty());
        let text = "[[orthanc]]\nname = \"a\"\nurl = \"http://10.0.0.1:8042\"\nfollow = true\n[[orthanc]]\nname = \"b\"\nurl = \"http://10.0.0.2:8042\"";
        let file = parsed(text, &[]).unwrap();
        assert_eq!((file.pacs.len(), file.followed.len()), (0, 1));
        assert_eq!(file.followed[0].orthanc.name.as_str(), "a");
        assert!(file.followed[0].sweep.is_none() && file.followed[0].noted_with.is_none());
        let text = format!("{text}\nfollow = true\nfollow_deletions = true\ndeletions_percent_max = 30");
        let file = parsed(&text, &[]).unwrap();
        let bounds = SweepBounds {
            images_max: 1000,
            percent_max: 30,
        };
        let every = Duration::from_secs(3600);
        assert_eq!(file.followed[1].sweep, Some(SweepSettings { every, bounds }));
        // Where one deletes, it is known of all what they have.
        assert!(file.followed[0].sweep.is_none() && file.followed[0].noted_with.is_some());
    }

    #[test]
    fn files_with_credentials_are_found_also_of_an_orthanc_that_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pacs.toml");
        let text = r#"
            [[pacs]]
            name = "main"
            url = "https://pacs.example"
            basic_file = "basic"
            ca_file = "everybody-may-read.pem"
            [[pacs]]
            name = "other"
            url = "https://other.example"
            header_file = "/run/secrets/header"
            client_certificate_file = "own.pem"
            [[orthanc]]
            name = "front"
            url = "http://10.0.0.1:8042"
            basic_file = "front"
        "#;
        std::fs::write(&path, text).unwrap();
        let mut expected = ["basic", "own.pem", "front"]
            .map(|name| folder.path().join(name))
            .to_vec();
        expected.insert(1, "/run/secrets/header".into());
        assert_eq!(credential_files(&path), expected);
        std::fs::write(&path, "[[pacs").unwrap();
        assert!(credential_files(&path).is_empty() && credential_files(Path::new("nowhere")).is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_without_the_credential() {
        let entry = |rest: &str| format!("[[pacs]]\nname = \"main\"\nurl = \"https://pacs.example/\"\n{rest}");
        let rows = [
            ("[[pacs]]\nname = \"main\"".to_owned(), "missing field `url`"),
            (
                "[[pacs]]\nname = \"a b\"\nurl = \"https://x/\"".to_owned(),
                "the name of a PACS",
            ),
            (
                "[[pacs]]\nname = \"\"\nurl = \"https://x/\"".to_owned(),
                "the name of a PACS",
            ),
            (
                "[[pacs]]\nname = \"main\"\nurl = \"https://u:secret@x/\"".to_owned(),
                "holds a user or a password",
            ),
            (entry("password = \"secret\""), "unknown field `password`"),
            (entry("[[pacs]]\nname = \"main\"\nurl = \"https://x/\""), "twice"),
            (entry("basic_file = \"gone\""), "can't be read"),
            (
                entry("basic_file = \"secret\"\nheader_file = \"secret\""),
                "exclude each other",
            ),
            (entry("basic_file = \"secret\""), "USER:PASSWORD"),
            (entry("header_file = \"secret\""), "NAME: VALUE"),
            (entry("header_file = \"host\""), "can't set `host`"),
            (entry("header_file = \"lines\""), "can't be sent"),
            (entry("ca_file = \"secret\""), "`ca_file`"),
            (
                entry("client_certificate_file = \"secret\""),
                "`client_certificate_file`",
            ),
            (entry("follow = true"), "`follow` belongs to"),
            (entry("follow_deletions = true"), "`follow` belongs to"),
            (
                "[[orthanc]]\nname = \"m\"\nurl = \"http://10.0.0.1/\"\nfollow_deletions = true".to_owned(),
                "needs `follow = true`",
            ),
            (
                "[[orthanc]]\nname = \"m\"\nurl = \"http://10.0.0.1/\"\nfollow = true\ndeletions_percent_max = 101"
                    .to_owned(),
                "`deletions_percent_max` is 1 to 100",
            ),
            (entry("seconds_max = 0"), "`seconds_max` is 1 to 600"),
            (entry("seconds_max = -1"), "line 4: invalid value"),
            (entry("at_once = 65"), "`at_once` is 1 to 64"),
            (entry("addresses = [\"pacs.example\"]"), "`addresses`"),
            (
                "[[pacs]]\nname = \"m\"\nurl = \"http://10.0.0.1/\"\naddresses = [\"10.0.0.2\"]".to_owned(),
                "does not hold",
            ),
            ("secret = ".to_owned(), ""),
        ];
        let files = [
            ("secret", "hunter2secret"),
            ("host", "Host: evil"),
            ("lines", "X-Key: a\nb"),
        ];
        for (text, says) in rows {
            let error = parsed(&text, &files).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{text}");
            assert!(error.message().contains(says), "{text}: {error}");
            assert!(!error.message().contains("hunter2"), "{error}");
        }
    }
}
