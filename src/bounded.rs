//! Bodies of answers that this program gets as a client: all of one, and never more than a bound.

use bytes::{Bytes, BytesMut};
use reqwest::Response;

/// Room that is made at first for an answer whose length is not known.
const FIRST_BYTES: usize = 16 << 10;

/// Why there is no body.
#[derive(Debug)]
pub enum Unread {
    /// It has more bytes than the bound.
    TooLarge,
    /// It broke off. The URL is taken out, for it may say whose answer it was.
    Broken(reqwest::Error),
}

/// The body of an answer, if it has at most so many bytes.
///
/// # Errors
/// [`Unread`]; what says that it is too long is not read at all.
pub async fn body(mut answer: Response, bytes_max: usize) -> Result<Bytes, Unread> {
    let length = answer.content_length();
    if length.is_some_and(|length| length > bytes_max as u64) {
        return Err(Unread::TooLarge);
    }
    let room = length.and_then(|length| usize::try_from(length).ok());
    let mut body = BytesMut::with_capacity(room.unwrap_or(FIRST_BYTES).min(bytes_max));
    let broken = |error: reqwest::Error| Unread::Broken(error.without_url());
    while let Some(chunk) = answer.chunk().await.map_err(broken)? {
        if body.len() + chunk.len() > bytes_max {
            return Err(Unread::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What comes of an answer that is sent just so.
    async fn read(answer: &'static str, bytes_max: usize) -> Result<Bytes, Unread> {
        crate::tls::use_ring();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4096]).await.unwrap();
            socket.write_all(answer.as_bytes()).await.unwrap();
        };
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let ask = async { body(client.get(url).send().await.unwrap(), bytes_max).await };
        tokio::join!(serve, ask).1
    }

    #[tokio::test]
    async fn a_body_comes_whole_or_not_at_all() {
        let known = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let unknown = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello";
        for answer in [known, unknown] {
            assert_eq!(read(answer, 5).await.unwrap(), "hello");
            assert!(matches!(read(answer, 4).await, Err(Unread::TooLarge)));
        }
        // One that lies about its length, beyond the bound or short of it.
        let endless = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nhello";
        assert!(matches!(read(endless, 1 << 20).await, Err(Unread::TooLarge)));
        let cut = "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello";
        let Err(Unread::Broken(error)) = read(cut, 100).await else {
            panic!("it is cut off");
        };
        assert!(error.url().is_none());
    }
}
