//! Bodies that are too large, too slow or cut off.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{BOUNDARY, Part, form_body, problem, spawn_app, spawn_with};

fn head(headers: &str) -> String {
    format!(
        "POST /v1/search HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: multipart/form-data; boundary={BOUNDARY}\r\n{headers}\r\n\r\n"
    )
}

#[actix_web::test]
async fn a_body_that_says_it_is_too_large_is_refused_before_it_is_sent() {
    let app = spawn_app().await;
    let port = app.port;
    let answer = actix_web::rt::task::spawn_blocking(move || {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        connection
            .write_all(head("content-length: 209715200").as_bytes())
            .unwrap();
        let mut answer = [0; 4096];
        let length = connection.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    });
    let answer = answer.await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 413") && answer.contains("connection: close"),
        "{answer}"
    );
    assert!(answer.contains("/problems/too-large"), "{answer}");
}

/// A client that sends everything before it reads still sees the answer.
#[actix_web::test]
async fn the_answer_to_a_large_body_reaches_a_client_that_sends_first() {
    let app = spawn_app().await;
    let request = app.form("/v1/search", &[Part::File("image", &vec![7; 200 << 20])]);
    assert_eq!(problem(request.send().await.unwrap()).await.1, "too-large");
}

#[actix_web::test]
async fn a_body_without_a_length_is_refused_when_it_gets_too_large() {
    let app = spawn_with(|settings| settings.upload_bytes_max = 1 << 20).await;
    let body = form_body(&[Part::File("image", &vec![7; 4 << 20])]);
    let mut request = head("transfer-encoding: chunked\r\nconnection: close").into_bytes();
    for chunk in body.chunks(50_000) {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    let answer = app.raw(request).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[actix_web::test]
async fn the_largest_file_that_is_allowed_is_read() {
    let app = spawn_with(|settings| settings.upload_bytes_max = 1 << 20).await;
    for (bytes, too_large) in [(1 << 20, false), ((1 << 20) + 1, true)] {
        let response = app
            .form("/v1/search", &[Part::File("image", &vec![7; bytes])])
            .send()
            .await
            .unwrap();
        assert_eq!(response.status() == 413, too_large, "{bytes}");
    }
}

#[actix_web::test]
async fn a_body_that_stops_coming_is_given_up() {
    let app = spawn_app().await;
    let started = Instant::now();
    let mut request = head("content-length: 1000\r\nconnection: close").into_bytes();
    request.extend_from_slice(
        format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"image\"\r\n\r\nabc").as_bytes(),
    );
    let answer = app.raw(request).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("too slowly"),
        "{answer}"
    );
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
}

#[actix_web::test]
async fn a_connection_serves_the_next_request_after_a_refused_small_one() {
    let app = spawn_app().await;
    let mut request = head("content-length: 3")
        .replace("/v1/search", "/v1/nothing")
        .into_bytes();
    request.extend_from_slice(b"abc");
    request.extend_from_slice(b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
    let answer = app.raw(request).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

/// What a small compressed body unpacks to is known only when it is in memory.
#[actix_web::test]
async fn a_compressed_body_is_refused_unread() {
    let app = spawn_app().await;
    for encoding in ["gzip", "deflate", "br", "identity"] {
        let request = app.body("/v1/search/by-vector", "application/json", b"{}".to_vec());
        let refused = problem(request.header("content-encoding", encoding).send().await.unwrap()).await;
        assert_eq!(
            (refused.0, refused.1.as_str()),
            (415, "unsupported-media"),
            "{encoding}"
        );
    }
}

/// A sender who never ends a body of unknown length keeps its connection no longer than one with a length.
#[actix_web::test]
async fn an_endless_body_is_not_read_for_ever_after_an_early_answer() {
    let app = spawn_app().await;
    let port = app.port;
    let started = Instant::now();
    let dripping = actix_web::rt::task::spawn_blocking(move || {
        let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let head = "POST /v1/nothing HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n";
        connection.write_all(head.as_bytes()).unwrap();
        while started.elapsed() < Duration::from_secs(30) && connection.write_all(b"1\r\nx\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    dripping.await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// Not only forms: JSON has to come in time as well.
#[actix_web::test]
async fn json_that_stops_coming_is_given_up() {
    let app = spawn_app().await;
    let started = Instant::now();
    let head = "POST /v1/search/by-id HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{";
    let answer = app.raw(head.as_bytes().to_vec()).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("too slowly"),
        "{answer}"
    );
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
}
