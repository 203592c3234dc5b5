//! What an issuer publishes: its addresses (OpenID Connect Discovery 1.0) and its keys, asked for again and again and kept while it can't be reached.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use reqwest::{Certificate, Client, RequestBuilder, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::jwk::IssuerKeys;
use super::settings::trusted_url;
use crate::bounded::{self, Unread};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::Metrics;

/// Time between two looks at what the issuer publishes.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// The same while it can't be reached.
const TRY_EVERY: Duration = Duration::from_secs(15);
/// Longest wait for another request's look for a key.
const KEY_WAIT_MAX: Duration = Duration::from_secs(1);
/// Time between two looks because of a token with a key that is not known: anybody can name one.
const LOOK_FOR_KEY_EVERY: Duration = Duration::from_secs(10);
/// How long what it published is good while it can't be reached. A key that it took back because somebody stole it is taken so long, at most.
const KEEP_MAX: Duration = Duration::from_secs(24 * 3600);
/// Longest time for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Most bytes of one answer.
const ANSWER_BYTES_MAX: usize = 512 << 10;

/// An issuer, and what it published last.
#[derive(Debug)]
pub struct Provider {
    issuer: String,
    client: Client,
    published: ArcSwapOption<Published>,
    looked_for_key: Mutex<Option<Instant>>,
}

/// What an issuer published.
#[derive(Debug)]
pub struct Published {
    /// Its addresses and habits.
    pub metadata: Metadata,
    /// Its keys.
    pub keys: IssuerKeys,
    at: Instant,
}

/// Its addresses and habits, as far as they matter here.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    issuer: String,
    jwks_uri: String,
    /// Where people sign in.
    pub authorization_endpoint: String,
    /// Where codes are exchanged for tokens.
    pub token_endpoint: String,
    /// Where they sign out, if there is such a place.
    pub end_session_endpoint: Option<String>,
    /// How clients may prove who they are there; none: by HTTP Basic.
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Whether it says who it is when it sends people back (RFC 9207).
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

impl Provider {
    /// An issuer that was not asked yet.
    ///
    /// # Errors
    /// `InvalidRequest` for an address or certificates that are none.
    pub fn new(issuer: &str, ca: Option<&[u8]>) -> Result<Self> {
        trusted_url(issuer)?;
        // As for the other clients of this process: the first one counts.
        crate::tls::use_ring();
        let mut client = Client::builder()
            .timeout(ANSWER_MAX)
            .connect_timeout(ANSWER_MAX)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(ca) = ca {
            let refuse = || {
                Error::new(
                    ErrorKind::InvalidRequest,
                    "the issuer's CA file has no certificates in PEM",
                )
            };
            let certificates = Certificate::from_pem_bundle(ca).map_err(|_| refuse())?;
            if certificates.is_empty() {
                return Err(refuse());
            }
            client = client.tls_certs_only(certificates);
        }
        let client = client.build();
        Ok(Self {
            issuer: issuer.to_owned(),
            client: client
                .map_err(|error| Error::with_source(ErrorKind::Internal, "no client for the issuer", error))?,
            published: ArcSwapOption::empty(),
            looked_for_key: Mutex::default(),
        })
    }

    /// As its tokens spell it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What it published, unless that is too long ago.
    pub fn published(&self) -> Option<Arc<Published>> {
        self.published
            .load_full()
            .filter(|published| is_good(published.at.elapsed()))
    }

    /// Looks again for the sake of a key, unless that was done a moment ago. Who comes meanwhile waits for the same look.
    pub async fn look_for_key(&self) {
        let first = self.published().is_none();
        // Not long: where the issuer is slow, whoever brings a key that nobody knows would hold the places of others.
        let Ok(mut looked) = tokio::time::timeout(KEY_WAIT_MAX, self.looked_for_key.lock()).await else {
            return;
        };
        if first && self.published().is_some() {
            return;
        }
        if looked.is_some_and(|looked| looked.elapsed() < LOOK_FOR_KEY_EVERY) {
            return;
        }
        // The task that follows the issuer says what is wrong with it.
        let came = self.look().await.is_ok();
        // The first keys of all are no new ones.
        if !(first && came) {
            *looked = Some(Instant::now());
        }
    }

    /// Looks again and again. While nothing comes, what came last stays for a day; the log and `medsearch_oidc_issuer_broken` say so.
    pub async fn follow(&self, metrics: &Metrics) {
        let mut said = false;
        loop {
            let looked = self.look().await;
            metrics.oidc_issuer_broken(looked.is_err());
            match &looked {
                Err(error) if !said => {
                    tracing::warn!(
                        error = error.to_string(),
                        "the issuer of tokens can't be read: the keys that it published before stay for a day"
                    );
                }
                Ok(()) if said => tracing::info!("the issuer of tokens can be read again"),
                _ => {}
            }
            said = looked.is_err();
            tokio::time::sleep(if said { TRY_EVERY } else { LOOK_EVERY }).await;
        }
    }

    async fn look(&self) -> Result<()> {
        let address = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let metadata = read(self.client.get(address)).await?;
        let metadata = Metadata::parse(&metadata, &self.issuer)?;
        let keys = IssuerKeys::parse(&read(self.client.get(&metadata.jwks_uri)).await?)?;
        self.published.store(Some(Arc::new(Published {
            metadata,
            keys,
            at: Instant::now(),
        })));
        Ok(())
    }

    /// Exchanges what is in `form` at the token endpoint.
    ///
    /// # Errors
    /// `Unavailable` when nothing fitting comes.
    pub async fn exchange(&self, endpoint: &str, form: String, basic: Option<(String, String)>) -> Result<Bytes> {
        let mut request = self.client.post(endpoint);
        if let Some((user, password)) = basic {
            request = request.basic_auth(user, Some(password));
        }
        let request = request
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json");
        read(request.body(form)).await
    }
}

const fn is_good(age: Duration) -> bool {
    age.as_secs() < KEEP_MAX.as_secs()
}

impl Metadata {
    /// Reads what an issuer says of itself. It must be the one that was asked (OpenID Connect Discovery 4.3), at addresses that can be trusted.
    fn parse(json: &[u8], issuer: &str) -> Result<Self> {
        let refuse = |why: &str| Error::new(ErrorKind::Unavailable, format!("the issuer's description {why}"));
        let metadata: Self = serde_json::from_slice(json).map_err(|_| refuse("can't be read"))?;
        if metadata.issuer != issuer {
            return Err(refuse("names another issuer than the one that is set"));
        }
        let addresses = [
            &metadata.jwks_uri,
            &metadata.authorization_endpoint,
            &metadata.token_endpoint,
        ];
        for address in addresses.into_iter().chain(metadata.end_session_endpoint.as_ref()) {
            // They may have a query (RFC 6749, 3.1).
            let (address, _) = address.split_once('?').unwrap_or((address, ""));
            trusted_url(address).map_err(|_| refuse("has an address that is not https"))?;
        }
        Ok(metadata)
    }
}

/// An address with parameters added.
///
/// # Errors
/// `Internal` for what is no address.
pub fn with_query(address: &str, parameters: &[(&str, &str)]) -> Result<String> {
    let mut url = Url::parse(address).map_err(|_| Error::internal("an address of the issuer can't be read"))?;
    url.query_pairs_mut().extend_pairs(parameters);
    Ok(url.into())
}

/// The answer to a request, all of it.
async fn read(request: RequestBuilder) -> Result<Bytes> {
    // Without the address: that of an exchange is nobody's business.
    let failed = |error: reqwest::Error| {
        Error::with_source(
            ErrorKind::Unavailable,
            "the issuer can't be reached",
            error.without_url(),
        )
    };
    let answer = request.send().await.map_err(failed)?;
    if !answer.status().is_success() {
        let message = format!("the issuer answered {}", answer.status().as_u16());
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    bounded::body(answer, ANSWER_BYTES_MAX)
        .await
        .map_err(|unread| match unread {
            Unread::TooLarge => Error::new(ErrorKind::Unavailable, "the issuer's answer is too long"),
            Unread::Broken(error) => failed(error),
        })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ISSUER: &str = "https://issuer.example/realms/a";

    #[test]
    fn a_description_is_of_the_issuer_that_was_asked() {
        let parse = |change: Value| {
            let mut description = json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys"), "authorization_endpoint": format!("{ISSUER}/auth?tenant=a"),
                "token_endpoint": format!("{ISSUER}/token"), "more": []});
            description
                .as_object_mut()
                .unwrap()
                .extend(change.as_object().unwrap().clone());
            Metadata::parse(description.to_string().as_bytes(), ISSUER)
        };
        assert!(!parse(json!({})).unwrap().authorization_response_iss_parameter_supported);
        for bad in [
            json!({"issuer": format!("{ISSUER}/")}),
            json!({"issuer": "https://evil.example"}),
            json!({"jwks_uri": "http://issuer.example/keys"}),
            json!({"token_endpoint": "https://u:p@issuer.example/token"}),
            json!({"authorization_endpoint": "javascript:alert(1)"}),
            json!({"end_session_endpoint": "http://evil.example"}),
            json!({"jwks_uri": null}),
        ] {
            assert_eq!(parse(bad.clone()).unwrap_err().kind(), ErrorKind::Unavailable, "{bad}");
        }
    }

    #[test]
    fn keys_are_good_for_a_day() {
        assert!(is_good(Duration::ZERO) && is_good(KEEP_MAX - Duration::from_millis(1)) && !is_good(KEEP_MAX));
    }

    #[test]
    fn issuers_that_anybody_could_be_are_refused() {
        for issuer in ["http://issuer.example", "issuer.example", "https://issuer.example?x=1"] {
            assert_eq!(
                Provider::new(issuer, None).unwrap_err().kind(),
                ErrorKind::InvalidRequest,
                "{issuer}"
            );
        }
        assert!(Provider::new(ISSUER, Some(b"no certificate")).is_err());
    }

    #[test]
    fn parameters_are_added_as_they_are() {
        let address = with_query("https://issuer.example/auth?a=1", &[("state", "a b&c")]).unwrap();
        assert_eq!(address, "https://issuer.example/auth?a=1&state=a+b%26c");
    }
}
