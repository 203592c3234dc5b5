//! Before anything is concluded from the server: of clients that put a name at the same time with `If-None-Match: *` one gets it, whatever is asked.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde_json::json;

use super::server::{ACCESS_KEY, BUCKET, SECRET_KEY, Server};
use super::{Result, report};

#[derive(Args)]
pub struct Prove {
    /// Clients at a time.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Names that each of them puts.
    #[arg(long, default_value_t = 1000)]
    names: usize,
    /// Where the figures go.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Prove {
    pub async fn run(self) -> Result<ExitCode> {
        // The first one counts for the whole process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir()?;
        let server = Server::start_in(folder.path(), SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let endpoint = server.endpoint();
        let began = Instant::now();
        let turn = Arc::new(tokio::sync::Barrier::new(self.clients));
        let clients: Vec<_> = (0..self.clients)
            .map(|client| tokio::spawn(claim(endpoint.clone(), client, self.names, Arc::clone(&turn))))
            .collect();
        let mut winners: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (client, claimed) in clients.into_iter().enumerate() {
            for name in claimed.await?? {
                winners.entry(name).or_default().push(client);
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let store = open(&endpoint)?;
        let mut kept = 0;
        for (name, winners) in &winners {
            let found = store.get(&object(*name)).await?.bytes().await?;
            kept += usize::from(winners.len() == 1 && found == content(winners[0]));
        }
        let several = winners.values().filter(|winners| winners.len() > 1).count();
        let puts = self.clients * self.names;
        let figures = json!({
            "clients": self.clients,
            "conditional_puts": puts,
            "puts_per_s": (puts as f64 / seconds).round(),
            "names": self.names,
            "names_with_one_winner_whose_bytes_are_there": kept,
            "names_with_several_winners": several,
            "must_be": {"names_with_one_winner_whose_bytes_are_there": self.names, "names_with_several_winners": 0},
        });
        report(&figures, self.json.as_ref())?;
        Ok(ExitCode::from(u8::from(kept != self.names || several > 0)))
    }
}

/// The names that a client was told it has. All clients put each name at the same moment, whatever became of the one before.
async fn claim(endpoint: String, client: usize, names: usize, turn: Arc<tokio::sync::Barrier>) -> Result<Vec<usize>> {
    let store = open(&endpoint)?;
    let (mut won, mut failed) = (Vec::new(), None);
    for name in 0..names {
        turn.wait().await;
        let put = store
            .put_opts(&object(name), PutPayload::from(content(client)), PutMode::Create.into())
            .await;
        match put {
            Ok(_) => won.push(name),
            Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(won),
    }
}

fn open(endpoint: &str) -> Result<AmazonS3> {
    Ok(AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_allow_http(true)
        .with_region("eu-central-1")
        .with_bucket_name(BUCKET)
        .with_access_key_id(ACCESS_KEY)
        .with_secret_access_key(SECRET_KEY)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .build()?)
}

fn object(name: usize) -> Path {
    Path::from(format!("names/{name}"))
}

fn content(client: usize) -> Vec<u8> {
    format!("client {client}").into_bytes()
}
