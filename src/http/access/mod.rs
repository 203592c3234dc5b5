//! Who asks, and what they may ask for: keys, what each may do, and what each request needs.
//!
//! `scope` has the words, `key` one key, `keys` a list of them as a file holds it, `keys_file` that file, `credentials` what a running server goes by,
//! `needs` which scope a request needs, `holder` what more it is shown, and `refusal` how one is turned away. `guard.rs` asks them in turn.

mod credentials;
mod holder;
mod key;
mod keys;
mod keys_file;
mod needs;
mod oidc;
mod refusal;
mod scope;

pub use credentials::{Credentials, KeyHolder};
pub use holder::sees_links;
pub use key::ApiKey;
pub use keys::{Key, KeyName, Keys};
pub use keys_file::KeysFile;
pub use needs::{methods, needed};
pub use oidc::{
    CALLBACK, ClientSettings, Login, LoginFault, Oidc, OidcSettings, PublicUrl, Returned, Role, Roles, Session,
    TokenFault, session_cookie,
};
pub use refusal::Refusal;
pub use scope::{Scope, Scopes};
