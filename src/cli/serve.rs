//! `medsearch serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::settings::{ArchiveArgs, warn_if_others_read};
use crate::app::{App, Settings, own_program};
use crate::error::{Error, ErrorKind, Result};

/// Answer queries over an archive.
#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Folder with `model.pt` and `model.json`. Default: the model that the archive holds. `thumbnail`: the 32x32 grey embedder, without libtorch.
    #[arg(long, value_name = "DIR", env = "MEDSEARCH_MODEL")]
    model: Option<PathBuf>,
    /// Where the model runs: `auto`, `cpu` or `cuda:N`.
    #[arg(long, default_value = "auto", env = "MEDSEARCH_DEVICE")]
    device: String,
    /// Address and port. Beyond loopback an API key is required.
    #[arg(long, default_value = "127.0.0.1:8000", env = "MEDSEARCH_LISTEN")]
    listen: SocketAddr,
    /// File with the API key that every request must bring (`Authorization: Bearer` or `X-API-Key`).
    #[arg(long, value_name = "FILE", env = "MEDSEARCH_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
    /// The key itself, from the environment only: on a command line every user of the machine could read it.
    #[arg(long, hide = true, env = "MEDSEARCH_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Largest upload, in bytes.
    #[arg(long, default_value_t = 64 << 20, env = "MEDSEARCH_UPLOAD_BYTES_MAX")]
    upload_bytes_max: usize,
    /// Largest picture, in pixels.
    #[arg(long, default_value_t = 64 << 20, env = "MEDSEARCH_PIXELS_MAX")]
    pixels_max: u64,
    /// Time for one request, in seconds.
    #[arg(long, default_value_t = 30, env = "MEDSEARCH_REQUEST_SECONDS_MAX")]
    request_seconds_max: u64,
    /// Requests at a time; more are answered 429.
    #[arg(long, default_value_t = 256, env = "MEDSEARCH_IN_FLIGHT_MAX")]
    in_flight_max: usize,
    /// Classes with more rows than this are searched by graph, the others by scanning every row.
    #[arg(long, env = "MEDSEARCH_EXACT_ROWS_MAX")]
    exact_rows_max: Option<usize>,
    /// Images in one batch of the model.
    #[arg(long, default_value_t = 32, env = "MEDSEARCH_BATCH_MAX")]
    batch_max: usize,
    /// Images waiting for the model; more are answered 429.
    #[arg(long, default_value_t = 256, env = "MEDSEARCH_QUEUE_MAX")]
    queue_max: usize,
    /// Images decoded at a time. Default: the number of processors.
    #[arg(long, env = "MEDSEARCH_DECODE_THREADS")]
    decode_threads: Option<usize>,
    /// Address space one DICOM worker may use on top of the program itself, in bytes.
    #[arg(long, default_value_t = 2 << 30, env = "MEDSEARCH_WORKER_MEMORY_BYTES_MAX")]
    worker_memory_bytes_max: u64,
    /// Serve searches only.
    #[arg(long, env = "MEDSEARCH_READ_ONLY")]
    read_only: bool,
}

impl Serve {
    /// Serves until SIGTERM or SIGINT, then finishes what is in flight.
    pub fn run(self) -> Result<ExitCode> {
        let api_key = self.api_key()?;
        let settings = Settings {
            archive: self.archive.archive.clone(),
            secret: self.archive.secret()?,
            cache: self.archive.cache.settings(),
            model: self.model,
            device: self.device,
            listen: self.listen,
            api_key,
            upload_bytes_max: self.upload_bytes_max,
            pixels_max: self.pixels_max,
            request_seconds_max: self.request_seconds_max,
            in_flight_max: self.in_flight_max,
            exact_rows_max: self.exact_rows_max,
            batch_max: self.batch_max,
            queue_max: self.queue_max,
            threads: self.decode_threads.unwrap_or_else(super::processors),
            worker_memory_bytes_max: self.worker_memory_bytes_max,
            read_only: self.read_only,
            program: own_program(),
        };
        App::run(settings, |address, _| announce(address))?;
        Ok(ExitCode::SUCCESS)
    }

    fn api_key(&self) -> Result<Option<String>> {
        let Some(path) = &self.api_key_file else {
            return Ok(self.api_key.clone());
        };
        warn_if_others_read(path);
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::with_source(
                ErrorKind::InvalidRequest,
                format!("the API key file `{}` can't be read", path.display()),
                error,
            )
        })?;
        Ok(Some(text.trim().to_owned()))
    }
}

fn announce(address: SocketAddr) {
    eprintln!("medsearch: serving at http://{address} (research use only, not for diagnosis)");
}
