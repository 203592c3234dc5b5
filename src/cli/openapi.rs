//! `medsearch openapi`.

use std::process::ExitCode;

use super::say::say;
use crate::error::{Error, Result};
use crate::http;

/// Prints the description of the HTTP API as it is committed under `openapi/`.
pub fn run() -> Result<ExitCode> {
    let text = http::openapi()
        .to_pretty_json()
        .map_err(|error| Error::internal(format!("the API description can't be written: {error}")))?;
    say!("{text}");
    Ok(ExitCode::SUCCESS)
}
