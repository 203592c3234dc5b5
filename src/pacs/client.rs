//! One PACS as it is spoken to: a bounded number of bounded requests, to the configured host and nowhere else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::{Client, Response, StatusCode};
use tokio::sync::Semaphore;

use super::addresses::{AddressPolicy, AddressRefused, Lookup, PolicedResolver};
use super::base::BaseUrl;
use super::settings::{PacsName, PacsSettings};
use crate::bounded::{self, Unread};
use crate::error::{Error, ErrorKind, Result};

/// Longest time for a connection, TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Connections that are kept for the next request, and for how long: a later one looks the name up again.
const IDLE_MAX: usize = 2;
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its media type with parameters.
    pub content_type: String,
    /// All of it; none for 204.
    pub body: Bytes,
}

/// A PACS that can be asked.
pub struct Pacs {
    name: PacsName,
    base: BaseUrl,
    client: Client,
    time_max: Duration,
    turns: Arc<Semaphore>,
}

impl Pacs {
    /// One that is reached as its settings say.
    ///
    /// # Errors
    /// `InvalidRequest` for certificates that can't be used.
    pub(super) fn new(settings: PacsSettings, lookup: &Arc<dyn Lookup>) -> Result<Self> {
        // As for the other clients of this process: the first one counts.
        crate::tls::use_ring();
        let mut client = Client::builder()
            .default_headers(settings.headers)
            .connect_timeout(CONNECT_MAX)
            .timeout(settings.time_max)
            .pool_max_idle_per_host(IDLE_MAX)
            .pool_idle_timeout(IDLE_TIME_MAX)
            // A redirect is how a PACS, or whoever speaks for it, would send this server elsewhere, with the credential.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .http1_only()
            .https_only(settings.base.is_encrypted())
            .tcp_nodelay(true);
        if let Some(host) = settings.base.host_name() {
            client = client.dns_resolver(Arc::new(PolicedResolver {
                host: host.to_owned(),
                policy: AddressPolicy::new(host, settings.addresses),
                lookup: Arc::clone(lookup),
            }));
        }
        if let Some(identity) = settings.identity {
            client = client.identity(identity);
        }
        if let Some(authorities) = settings.authorities {
            client = client.tls_certs_only(authorities);
        }
        let client = client.build().map_err(|error| {
            let message = format!(
                "PACS `{}`: no connection can be made with these certificates",
                settings.name
            );
            Error::with_source(ErrorKind::InvalidRequest, message, error)
        })?;
        Ok(Self {
            name: settings.name,
            base: settings.base,
            client,
            time_max: settings.time_max,
            turns: Arc::new(Semaphore::new(settings.at_once)),
        })
    }

    /// What it is called.
    pub fn name(&self) -> &PacsName {
        &self.name
    }

    /// Where its DICOMweb begins.
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// When a request that begins now has to be answered, if all of it has to be by `deadline`.
    pub(super) fn until(&self, deadline: Instant) -> Instant {
        deadline.min(Instant::now() + self.time_max)
    }

    /// One answer of at most `bytes_max` bytes. `parts` and `query` are words of the protocol and UIDs.
    ///
    /// # Errors
    /// `NotFound`; `TooLarge`; `Deadline`; `Unavailable` when it is busy; `PacsFailed` for everything else, a redirect among it. None of them
    /// has a UID in it.
    pub(super) async fn get(
        &self,
        parts: &[&str],
        query: &[(&str, &str)],
        accept: &str,
        bytes_max: usize,
        deadline: Instant,
    ) -> Result<Answer> {
        let until = self.until(deadline);
        let work = async {
            let turn = Arc::clone(&self.turns).acquire_owned().await;
            let _turn = turn.map_err(|_| self.failed("is not asked any more"))?;
            let request = self.client.get(self.base.below(parts, query)).header(ACCEPT, accept);
            let answer = request.send().await.map_err(|error| self.unanswered(error))?;
            self.check(&answer)?;
            self.read(answer, bytes_max).await
        };
        let answer = tokio::time::timeout_at(until.into(), work).await;
        answer.unwrap_or_else(|_| Err(self.late()))
    }

    fn check(&self, answer: &Response) -> Result<()> {
        let status = answer.status();
        match status {
            StatusCode::OK | StatusCode::NO_CONTENT => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                let message = format!("the PACS `{}` does not have this", self.name);
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let message = format!("the PACS `{}` is busy (`{}`)", self.name, status.as_u16());
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(self.failed(&format!(
                    "does not take this server's credential (`{}`)",
                    status.as_u16()
                )));
            }
            status if status.is_redirection() => {
                return Err(self.failed(&format!("redirects (`{}`), which is not followed", status.as_u16())));
            }
            status => return Err(self.failed(&format!("answers `{}`", status.as_u16()))),
        }
        let encoding = answer.headers().get(CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(self.failed("answers with a compressed body, which was not asked for"));
        }
        Ok(())
    }

    async fn read(&self, answer: Response, bytes_max: usize) -> Result<Answer> {
        let too_large = || {
            let message = format!(
                "the answer of the PACS `{}` has more than `{bytes_max}` bytes",
                self.name
            );
            Error::new(ErrorKind::TooLarge, message)
        };
        let content_type = answer.headers().get(CONTENT_TYPE);
        let content_type = content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let body = bounded::body(answer, bytes_max).await.map_err(|unread| match unread {
            Unread::TooLarge => too_large(),
            Unread::Broken(error) => self.unanswered(error),
        })?;
        Ok(Answer { content_type, body })
    }

    /// Why no answer came, without the URL: its path has UIDs.
    fn unanswered(&self, error: reqwest::Error) -> Error {
        let error = error.without_url();
        if error.is_timeout() {
            return self.late();
        }
        let what = match (refused_address(&error), error.is_connect()) {
            (true, _) => "has a name that stands for an address which is not allowed",
            (false, true) => "can't be reached",
            (false, false) => "breaks off",
        };
        Error::with_source(ErrorKind::PacsFailed, format!("the PACS `{}` {what}", self.name), error)
    }

    fn late(&self) -> Error {
        let message = format!("the PACS `{}` did not answer in time", self.name);
        Error::new(ErrorKind::Deadline, message)
    }

    pub(super) fn failed(&self, what: &str) -> Error {
        Error::new(ErrorKind::PacsFailed, format!("the PACS `{}` {what}", self.name))
    }
}

fn refused_address(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        if let Some(error) = source.downcast_ref::<std::io::Error>()
            && error.get_ref().is_some_and(|inner| inner.is::<AddressRefused>())
        {
            return true;
        }
        cause = source.source();
    }
    false
}
