//! `medsearch serve`: which issuer vouches for people and programs, and how people sign in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::settings::warn_if_others_read;
use crate::archive::Secret;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{ClientSettings, OidcSettings, PublicUrl, Role, Roles};

/// Longest session: a day.
const SESSION_MINUTES_MAX: i64 = 24 * 60;

/// An issuer of tokens.
#[derive(Args)]
#[command(next_help_heading = "OpenID Connect")]
pub struct OidcArgs {
    /// Take tokens of this issuer (`Authorization: Bearer`), spelled as its tokens spell it.
    #[arg(long, value_name = "URL", env = "MEDSEARCH_OIDC_ISSUER", requires_all = ["oidc_audience", "oidc_role"])]
    oidc_issuer: Option<String>,
    /// What tokens for this server have as `aud`.
    #[arg(long, value_name = "NAME", env = "MEDSEARCH_OIDC_AUDIENCE", requires = "oidc_issuer")]
    oidc_audience: Option<String>,
    /// File with the certificates (PEM) of the authorities that vouch for the issuer's own, in place of the system's.
    #[arg(long, value_name = "FILE", env = "MEDSEARCH_OIDC_CA_FILE", requires = "oidc_issuer")]
    oidc_ca_file: Option<PathBuf>,
    /// Where in a token the roles stand: a claim with words or a list, with dots for one in another (`realm_access.roles`).
    #[arg(
        long,
        value_name = "CLAIM",
        default_value = "scope",
        env = "MEDSEARCH_OIDC_SCOPE_CLAIM"
    )]
    oidc_scope_claim: String,
    /// What a value of that claim permits: `VALUE=SCOPE`, or `VALUE=SCOPE+SCOPE`. Repeat it for more; in the environment with commas between them.
    #[arg(
        long,
        value_name = "ROLE",
        value_delimiter = ',',
        env = "MEDSEARCH_OIDC_ROLE",
        requires = "oidc_issuer"
    )]
    oidc_role: Vec<Role>,
    /// Let people sign in on the page: what the issuer calls this server. Where it sends them back to is `/login/callback` at the public URL.
    #[arg(long, value_name = "ID", env = "MEDSEARCH_OIDC_CLIENT_ID", requires_all = ["oidc_issuer", "public_url"])]
    oidc_client_id: Option<String>,
    /// File with the secret that the issuer shares with this server. Without one PKCE alone proves that who comes back is who went.
    #[arg(
        long,
        value_name = "FILE",
        env = "MEDSEARCH_OIDC_CLIENT_SECRET_FILE",
        requires = "oidc_client_id"
    )]
    oidc_client_secret_file: Option<PathBuf>,
    /// What is asked of the issuer for people who sign in.
    #[arg(
        long,
        value_name = "SCOPES",
        default_value = "openid profile",
        env = "MEDSEARCH_OIDC_CLIENT_SCOPE"
    )]
    oidc_client_scope: String,
    /// Minutes after which people sign in again.
    #[arg(long, value_name = "MINUTES", default_value_t = 480, value_parser = clap::value_parser!(u64).range(1..=SESSION_MINUTES_MAX as u64), env = "MEDSEARCH_SESSION_MINUTES")]
    session_minutes: u64,
    /// File with the secret that the page's cookies are sealed with (64 hex digits), the same on every replica. Default: derived from the archive's secret.
    #[arg(long, value_name = "FILE", env = "MEDSEARCH_SESSION_KEY_FILE")]
    session_key_file: Option<PathBuf>,
    /// Where browsers and other clients find this server: `https://search.hospital.example`, without a path.
    #[arg(long, value_name = "URL", env = "MEDSEARCH_PUBLIC_URL")]
    public_url: Option<PublicUrl>,
}

impl OidcArgs {
    /// The issuer, if there is one.
    ///
    /// # Errors
    /// `InvalidRequest` for a file that can't be read or holds something else, and for roles that permit nothing.
    pub fn settings(&self) -> Result<Option<OidcSettings>> {
        // An empty value unsets, as in a chart.
        let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        let (Some(issuer), Some(audience)) = (given(&self.oidc_issuer), given(&self.oidc_audience)) else {
            return Ok(None);
        };
        let ca = self
            .oidc_ca_file
            .as_deref()
            .map(|path| read(path, "issuer's CA"))
            .transpose()?;
        Ok(Some(OidcSettings {
            issuer,
            audience,
            ca: ca.map(String::into_bytes),
            roles: Roles::new(self.oidc_scope_claim.clone(), self.oidc_role.clone())?,
            client: match (given(&self.oidc_client_id), &self.public_url) {
                (Some(id), Some(public_url)) => Some(self.client(id, public_url.clone())?),
                _ => None,
            },
        }))
    }

    /// Where browsers find this server.
    pub fn public_url(&self) -> Option<&PublicUrl> {
        self.public_url.as_ref()
    }

    fn client(&self, id: String, public_url: PublicUrl) -> Result<ClientSettings> {
        let secret = match &self.oidc_client_secret_file {
            Some(path) => {
                warn_if_others_read(path);
                Some(read(path, "client's secret")?.trim().to_owned())
            }
            None => None,
        };
        let session_secret = match &self.session_key_file {
            Some(path) => {
                warn_if_others_read(path);
                Some(session_secret(path)?)
            }
            None => None,
        };
        Ok(ClientSettings {
            id,
            secret,
            scope: self.oidc_client_scope.clone(),
            public_url,
            session: Duration::from_secs(self.session_minutes * 60),
            session_secret,
        })
    }
}

fn session_secret(path: &Path) -> Result<Secret> {
    let text = read(path, "session key")?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| {
        let message = format!("the session key file `{}` has no 64 hex digits", path.display());
        Error::new(ErrorKind::InvalidRequest, message)
    })?;
    Ok(Secret::from_bytes(bytes))
}

fn read(path: &Path, what: &str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        let message = format!("the {what} file `{}` can't be read", path.display());
        Error::with_source(ErrorKind::InvalidRequest, message, error)
    })
}
