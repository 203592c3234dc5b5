//! TLS on the public port: whose certificate is shown, and what happens when its files change.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use medsearch::http::Credentials;
use medsearch::metrics::Metrics;
use medsearch::tls::{Identity, Port, TlsFiles};
use reqwest::tls::TlsInfo;
use reqwest::{Certificate, Client, Response};
use tempfile::TempDir;

use crate::archive;
use crate::certificates::Authority;
use crate::cluster::eventually;
use crate::harness::{KEY, TestApp, problem, spawn_by};

/// A server that shows a certificate of an authority.
struct Shown {
    authority: Authority,
    files: TlsFiles,
    app: TestApp,
    _folder: TempDir,
}

impl Shown {
    async fn start(beyond_loopback: bool) -> Self {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
        let files = authority.write(folder.path(), false);
        let app = spawn_by(Some(files.clone()), |settings| {
            if beyond_loopback {
                settings.credentials = Credentials::open(Some(KEY), None).unwrap();
                settings.loopback = false;
            }
        })
        .await;
        Self {
            authority,
            files,
            app,
            _folder: folder,
        }
    }

    /// A client that believes the authority, with connections of its own.
    fn client(&self) -> Client {
        let authority = Certificate::from_pem(self.authority.pem.as_bytes()).unwrap();
        let client = Client::builder().tls_certs_only([authority]).tls_info(true);
        client.timeout(Duration::from_secs(20)).build().unwrap()
    }

    async fn get(&self, client: &Client, path: &str) -> Response {
        let url = format!("https://localhost:{}{path}", self.app.port);
        client.get(url).header("x-api-key", KEY).send().await.unwrap()
    }

    async fn metric(&self, line: &str) -> bool {
        let text = self.get(&self.client(), "/metrics").await.text().await.unwrap();
        text.lines().any(|found| found == line)
    }
}

/// The certificate that was shown when the answer's connection was made.
fn shown(response: &Response) -> Vec<u8> {
    let info = response.extensions().get::<TlsInfo>().unwrap();
    info.peer_certificate().unwrap().to_vec()
}

#[actix_web::test]
async fn a_new_certificate_is_shown_and_open_connections_stay() {
    let server = Shown::start(false).await;
    let kept = server.client();
    let first = server.get(&kept, "/v1/archive").await;
    assert_eq!(
        (first.status().as_u16(), first.version()),
        (200, reqwest::Version::HTTP_11)
    );
    let before = shown(&first);
    first.bytes().await.unwrap();

    // One file after the other, as a program does that writes them: the half of it changes nothing.
    let (chain, key) = server.authority.certify();
    std::fs::write(&server.files.chain, chain).unwrap();
    eventually("the half is said", async || {
        server.metric(r#"medsearch_tls_files_broken{port="public"} 1"#).await
    })
    .await;
    assert_eq!(shown(&server.get(&server.client(), "/livez").await), before);
    std::fs::write(&server.files.key, key).unwrap();
    eventually("the new one is shown", async || {
        shown(&server.get(&server.client(), "/livez").await) != before
    })
    .await;
    let again = server.get(&kept, "/v1/archive").await;
    assert_eq!(shown(&again), before, "the connection that was open is the same");
    let expires = 2_208_988_800_u64; // 2040-01-01
    eventually("nothing is broken", async || {
        server.metric(r#"medsearch_tls_files_broken{port="public"} 0"#).await
            && server
                .metric(&format!(
                    r#"medsearch_tls_certificate_expires_timestamp_seconds{{port="public"}} {expires}"#
                ))
                .await
    })
    .await;
}

#[actix_web::test]
async fn what_is_no_certificate_leaves_the_one_before() {
    let server = Shown::start(false).await;
    let before = shown(&server.get(&server.client(), "/livez").await);
    let good = std::fs::read(&server.files.chain).unwrap();
    std::fs::write(&server.files.chain, "no certificate").unwrap();
    eventually("it is said", async || {
        server.metric(r#"medsearch_tls_files_broken{port="public"} 1"#).await
    })
    .await;
    assert_eq!(shown(&server.get(&server.client(), "/livez").await), before);
    std::fs::write(&server.files.chain, good).unwrap();
    eventually("it is mended", async || {
        server.metric(r#"medsearch_tls_files_broken{port="public"} 0"#).await
    })
    .await;

    let (chain, key) = server.authority.certify_until(2021);
    std::fs::write(&server.files.key, key).unwrap();
    std::fs::write(&server.files.chain, chain).unwrap();
    eventually("one that is over is not shown", async || {
        server.metric(r#"medsearch_tls_files_broken{port="public"} 1"#).await
    })
    .await;
    assert_eq!(shown(&server.get(&server.client(), "/livez").await), before);
}

#[actix_web::test]
async fn a_server_does_not_start_with_files_that_hold_nothing() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let files = authority.write(folder.path(), true);
    let metrics = Metrics::new().unwrap();
    assert!(Identity::open(Port::Public, files.clone(), &metrics).is_ok());
    let (_, other_key) = authority.certify();
    for (path, content) in [
        (&files.key, "".to_owned()),
        (&files.key, other_key),
        (&files.chain, "".to_owned()),
        (
            files.ca.as_ref().unwrap(),
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
        ),
    ] {
        let good = std::fs::read(path).unwrap();
        std::fs::write(path, &content).unwrap();
        let error = Identity::open(Port::Public, files.clone(), &metrics).unwrap_err();
        let named = path.file_name().unwrap().to_str().unwrap();
        assert!(error.to_string().contains(named), "{error} does not name {named}");
        assert!(content.is_empty() || !error.to_string().contains(&content), "{error}");
        std::fs::write(path, good).unwrap();
    }
}

/// The start of a handshake up to one version, otherwise as a client of today makes it.
fn hello(version: [u8; 2]) -> Vec<u8> {
    let extensions = [
        [0, 10, 0, 4, 0, 2, 0, 23].as_slice(), // a curve: P-256
        &[0, 11, 0, 2, 1, 0],                  // its points uncompressed
        &[0, 13, 0, 4, 0, 2, 4, 3],            // signed by ECDSA and SHA-256
    ]
    .concat();
    let mut body = version.to_vec();
    body.extend([7; 32]); // random
    body.extend([0]); // no session
    body.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x09]); // a suite of TLS 1.2, and one of those before
    body.extend([1, 0]); // no compression
    body.extend([0, extensions.len() as u8]);
    body.extend(extensions);
    let mut message = vec![1, 0, 0, body.len() as u8];
    message.extend(&body);
    let mut record = vec![22, 3, 1, 0, message.len() as u8];
    record.extend(message);
    record
}

#[actix_web::test]
async fn old_versions_and_plain_http_are_refused() {
    let server = Shown::start(false).await;
    let port = server.app.port;
    let said = |bytes: Vec<u8>| async move {
        let talk = move || {
            let mut connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
            connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            connection.write_all(&bytes).unwrap();
            let mut answer = vec![0; 7];
            let read = connection.read(&mut answer).unwrap_or(0);
            answer.truncate(read);
            answer
        };
        actix_web::rt::task::spawn_blocking(talk).await.unwrap()
    };
    for version in [[3, 1], [3, 2]] {
        let answer = said(hello(version)).await;
        // A record of kind alert: fatal, protocol_version (RFC 8446, 6.2).
        assert_eq!((answer[0], &answer[5..]), (21, [2, 70].as_slice()), "{version:?}");
    }
    // What the same client is told that goes up to TLS 1.2: a handshake.
    assert_eq!(said(hello([3, 3])).await[0], 22);
    let plain = said(b"GET /v1/archive HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec()).await;
    assert!(!plain.starts_with(b"HTTP"), "{plain:?}");
}

#[actix_web::test]
async fn a_page_of_ours_is_one_that_came_by_tls() {
    let server = Shown::start(false).await;
    let port = server.app.port;
    for (origin, status) in [
        (format!("https://localhost:{port}"), 404),
        (format!("http://localhost:{port}"), 403),
    ] {
        let url = format!("https://localhost:{port}/v1/search/by-id");
        let ids = serde_json::json!({"ids": ["000000000000000000000000000000000000"]});
        let asked = server.client().post(url).header("origin", &origin).json(&ids);
        let response = asked.send().await.unwrap();
        assert!(
            !response.headers().contains_key("strict-transport-security"),
            "not for every server of this machine"
        );
        assert_eq!(problem(response).await.0, status, "{origin}");
    }
}

#[actix_web::test]
async fn browsers_are_told_to_ask_by_tls() {
    let server = Shown::start(true).await;
    for path in ["/", "/v1/archive", "/livez", "/nothing", "/docs/"] {
        let response = server.get(&server.client(), path).await;
        let said = response.headers()["strict-transport-security"].to_str().unwrap();
        assert_eq!(said, "max-age=31536000", "{path}");
    }
    // A client that does not believe the authority asks nothing.
    let stranger = Client::builder().tls_certs_only([]).build().unwrap();
    let asked = stranger
        .get(format!("https://localhost:{}/livez", server.app.port))
        .send();
    assert!(asked.await.unwrap_err().is_connect());
}

/// The program, which ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[actix_web::test]
async fn the_program_takes_both_files_or_none_and_says_where_it_serves() {
    let (authority, folder, archive) = (Authority::new(), tempfile::tempdir().unwrap(), archive::copy());
    let files = authority.write(folder.path(), false);
    let secret = folder.path().join("secret");
    std::fs::write(&secret, hex::encode([7; 32])).unwrap();
    let serve = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_medsearch"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--archive"]);
        command
            .arg(archive.path().join("archive"))
            .arg("--secret-file")
            .arg(&secret);
        command.arg("--tls-cert-file").arg(&files.chain);
        command
    };
    let half = serve().output().unwrap();
    assert_eq!(half.status.code(), Some(2));
    assert!(String::from_utf8(half.stderr).unwrap().contains("--tls-key-file"));

    std::fs::set_permissions(&files.key, Permissions::from_mode(0o644)).unwrap();
    let (pacs, credential) = (folder.path().join("pacs.toml"), folder.path().join("pacs-user"));
    let entry = "[[pacs]]\nname = \"main\"\nurl = \"https://pacs.example\"\nbasic_file = \"pacs-user\"\n";
    std::fs::write(&pacs, entry).unwrap();
    std::fs::write(&credential, "user:password").unwrap();
    std::fs::set_permissions(&credential, Permissions::from_mode(0o644)).unwrap();
    let mut command = serve();
    command.arg("--tls-key-file").arg(&files.key).stderr(Stdio::piped());
    command.arg("--pacs-file").arg(&pacs);
    let mut program = Program(command.spawn().unwrap());
    // Kept to the end: the program goes on writing.
    let mut said = BufReader::new(program.0.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let mut warned = [false; 2];
    let mut address = None;
    for line in said.by_ref() {
        for (warned, file) in warned.iter_mut().zip(["tls.key", "pacs-user"]) {
            *warned |= line.contains(file) && line.contains("can be read by other users");
        }
        if let Some(rest) = line.strip_prefix("medsearch: serving at ") {
            address = rest.split_whitespace().next().map(str::to_owned);
            break;
        }
    }
    let address = address.expect("it serves");
    assert_eq!(
        warned, [true; 2],
        "others can read the key and what a PACS wants to see"
    );
    let believing = Certificate::from_pem(authority.pem.as_bytes()).unwrap();
    let client = Client::builder().tls_certs_only([believing]).build().unwrap();
    let answer = client.get(format!("{address}/readyz")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), address.starts_with("https://")), (200, true));
}
