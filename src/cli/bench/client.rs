//! One client that asks a server and keeps the times.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{QUERIES_PER_TURN, WARM_UP, ms};
use crate::error::{Error, ErrorKind, Result};

/// One client that asks the server, image after image.
pub struct Client<'a> {
    connection: Connection,
    images: &'a [Vec<u8>],
    next: usize,
}

/// What a client saw, query by query, in milliseconds.
#[derive(Default)]
pub struct Asked {
    pub client: Vec<f64>,
    pub server: Vec<f64>,
    /// Everything but the model, by the server's clock and by the client's.
    pub server_rest: Vec<f64>,
    pub client_rest: Vec<f64>,
    pub stages: BTreeMap<&'static str, Vec<f64>>,
}

impl Asked {
    pub fn joined(turns: Vec<Self>) -> Self {
        let mut all = Self::default();
        turns.into_iter().for_each(|turn| all.extend(turn));
        all
    }

    fn extend(&mut self, other: Self) {
        self.client.extend(other.client);
        self.server.extend(other.server);
        self.server_rest.extend(other.server_rest);
        self.client_rest.extend(other.client_rest);
        for (stage, values) in other.stages {
            self.stages.entry(stage).or_default().extend(values);
        }
    }
}

impl<'a> Client<'a> {
    pub fn open(address: SocketAddr, images: &'a [Vec<u8>]) -> Result<Self> {
        Ok(Self {
            connection: Connection::open(address)?,
            images,
            next: 0,
        })
    }

    pub fn turn(&mut self) -> Result<Asked> {
        let mut asked = Asked::default();
        for count in 0..QUERIES_PER_TURN + WARM_UP {
            let request = self
                .connection
                .search_request(&self.images[self.next % self.images.len()]);
            self.next += 1;
            let begun = Instant::now();
            let (server, answer) = self.connection.ask(&request)?;
            let elapsed = ms(begun);
            if count < WARM_UP {
                continue;
            }
            let answer: Value = serde_json::from_slice(&answer)
                .map_err(|error| Error::with_source(ErrorKind::Internal, "an answer is not JSON", error))?;
            let time = |stage| answer["timings_ms"][stage].as_f64().unwrap_or(f64::NAN);
            for stage in STAGES {
                asked.stages.entry(stage).or_default().push(time(stage));
            }
            asked.client.push(elapsed);
            asked.server.push(server);
            asked.server_rest.push(server - time("model"));
            asked.client_rest.push(elapsed - time("model"));
        }
        Ok(asked)
    }
}

const STAGES: [&str; 6] = ["decode", "preprocess", "queue", "model", "search", "total"];

/// An HTTP client that costs next to nothing: one connection, requests written beforehand, answers not read beyond their length.
struct Connection {
    address: SocketAddr,
    stream: TcpStream,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(failed)?;
        Ok(Self { address, stream })
    }

    /// `POST /v1/search` with one image, head and body.
    fn search_request(&self, image: &[u8]) -> Vec<u8> {
        let before = "--medsearch\r\nContent-Disposition: form-data; name=\"image\"; filename=\"q\"\r\n\r\n";
        let after = "\r\n--medsearch--\r\n";
        let head = format!(
            "POST /v1/search HTTP/1.1\r\nHost: {}\r\nContent-Type: multipart/form-data; boundary=medsearch\r\nContent-Length: {}\r\n\r\n",
            self.address,
            before.len() + image.len() + after.len()
        );
        [head.as_bytes(), before.as_bytes(), image, after.as_bytes()].concat()
    }

    /// The server's time in milliseconds and the body of the answer, which has to be a 200 of known length.
    fn ask(&mut self, request: &[u8]) -> Result<(f64, Vec<u8>)> {
        self.stream.write_all(request).map_err(failed)?;
        let mut answer = Vec::with_capacity(1 << 16);
        let mut piece = [0; 1 << 14];
        let (body_at, server, length) = loop {
            match self.stream.read(&mut piece).map_err(failed)? {
                0 => return Err(Error::new(ErrorKind::Unavailable, "the server hung up")),
                read => answer.extend_from_slice(&piece[..read]),
            }
            if let Some(head_end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&answer[..head_end]).to_ascii_lowercase();
                break (head_end + 4, server_time(&head)?, body_length(&head)?);
            }
        };
        let already = answer.len();
        answer.resize(body_at + length, 0);
        if already < answer.len() {
            self.stream.read_exact(&mut answer[already..]).map_err(failed)?;
        }
        Ok((server, answer.split_off(body_at)))
    }
}

fn server_time(head: &str) -> Result<f64> {
    head.lines()
        .find_map(|line| line.strip_prefix("server-timing: total;dur=")?.trim().parse().ok())
        .ok_or_else(|| Error::internal("an answer without the server's time"))
}

fn body_length(head: &str) -> Result<usize> {
    if !head.starts_with("http/1.1 200 ") {
        return Err(Error::new(ErrorKind::Unavailable, "a query was not answered with 200"));
    }
    head.lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .ok_or_else(|| Error::internal("an answer of unknown length"))
}

fn failed(error: std::io::Error) -> Error {
    Error::with_source(ErrorKind::Unavailable, "a query failed", error)
}
