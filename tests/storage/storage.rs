//! What archives in a bucket are tried against: an S3 server that fails on command, proof that it gives a name to one writer, and writers that race.
//!
//! - `storage serve --folder DIR` serves, says where on its first line, and obeys the lines that it reads: see [`Order`]. It ends with its input.
//! - `storage prove` has 8 clients put 1,000 names each that only one may have.
//! - `storage write --archive URL --secret-file FILE` has 8 writers race for the versions of an archive, with vectors given, and looks for what they were
//!   answered.
//!
//! The last two print what they found beside what has to hold, write it where `--json FILE` says, and fail where it does not.

mod prove;
mod server;
mod write;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use hyper::Method;
use serde_json::{Value, json};
use server::{Fault, Server};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a folder as a bucket.
    Serve {
        /// Where the bucket's objects lie.
        #[arg(long)]
        folder: PathBuf,
    },
    /// Prove that of several clients one gets a name.
    Prove(prove::Prove),
    /// Race for the versions of an archive.
    Write(write::Write),
}

fn main() -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match Arguments::parse().command {
        Command::Serve { folder } => runtime.block_on(serve(folder)),
        Command::Prove(prove) => runtime.block_on(prove.run()),
        Command::Write(write) => runtime.block_on(write.run()),
    }
}

async fn serve(folder: PathBuf) -> Result<ExitCode> {
    let server = Server::start_in(&folder, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    println!("{}", server.endpoint());
    let (lines, mut orders) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = orders.recv().await {
        match Order::parse(&line) {
            Ok(order) => println!("{}", order.obey(&server).await),
            Err(error) => println!("{}", json!({"error": error.to_string()})),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the server is told, a line each; it answers each with a line of JSON.
enum Order {
    /// `fault KIND METHOD PART next N` or `… every N`: the next N requests whose path contains PART go wrong, or one in N.
    Fault(Fault, Method, String, Frequency, usize),
    /// `heal`: no more faults. Answers with how many of the next ones did not happen, and how many faults did since the last time.
    Heal,
    /// `put-latency N`: milliseconds that every PUT takes.
    PutLatency(Duration),
    /// `late N`: milliseconds that a late answer takes.
    Late(Duration),
    /// `down` and `up`: an outage.
    Down(bool),
    /// `counts`: who asked for what since the last time.
    Counts,
}

enum Frequency {
    Next,
    Every,
}

impl Order {
    fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let milliseconds = |text: &str| text.parse().map(Duration::from_millis);
        Ok(match words[..] {
            ["fault", fault, method, part, frequency, count] => Self::Fault(
                Fault::named(fault).ok_or("no such fault")?,
                method.parse()?,
                part.to_owned(),
                match frequency {
                    "next" => Frequency::Next,
                    "every" => Frequency::Every,
                    _ => return Err("`next` or `every`".into()),
                },
                count.parse()?,
            ),
            ["heal"] => Self::Heal,
            ["put-latency", time] => Self::PutLatency(milliseconds(time)?),
            ["late", time] => Self::Late(milliseconds(time)?),
            ["down"] => Self::Down(true),
            ["up"] => Self::Down(false),
            ["counts"] => Self::Counts,
            _ => return Err("no such order".into()),
        })
    }

    async fn obey(self, server: &Server) -> Value {
        match self {
            Self::Fault(fault, method, part, Frequency::Next, count) => server.plan(fault, method, &part, count),
            Self::Fault(fault, method, part, Frequency::Every, count) => server.plan_every(fault, method, &part, count),
            Self::Heal => return json!({"spared": server.spared(), "happened": server.happened()}),
            Self::PutLatency(latency) => server.set_put_latency(latency),
            Self::Late(late) => server.set_late(late),
            Self::Down(down) => server.set_down(down).await,
            Self::Counts => {
                let counts = server.counts().into_iter().map(|(counted, requests)| {
                    json!({"client": counted.client, "request": counted.request, "status": counted.status, "requests": requests})
                });
                return counts.collect();
            }
        }
        json!("done")
    }
}

/// Prints figures, and writes them where that was asked for.
fn report(figures: &Value, json: Option<&PathBuf>) -> Result<()> {
    println!("{figures:#}");
    if let Some(path) = json {
        std::fs::write(path, format!("{figures:#}\n"))?;
    }
    Ok(())
}
