//! Keys: what each opens, how they are made and taken back while a server runs, and what is said of them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use medsearch::app::{App, Settings};
use medsearch::error::ErrorKind;
use medsearch::http::{ApiKey, Scope};
use reqwest::Response;
use serde_json::{Value, json};

use crate::archive::{self, image, secret};
use crate::cluster::eventually;
use crate::harness::{KEY, Part, TestApp, key_until, problem, spawn_with_keys};

/// `medsearch key` with these arguments.
fn run(file: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_medsearch"));
    command.arg("key").args(arguments).arg("--file").arg(file);
    command.output().unwrap()
}

/// A key, as `medsearch key new` prints it.
fn printed_key(file: &Path, name: &str, scope: &str) -> String {
    let made = run(file, &["new", "--name", name, "--scope", scope]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim_end().to_owned()
}

fn revoke(file: &Path, name: &str) {
    assert!(run(file, &["revoke", name]).status.success());
}

async fn ask(app: &TestApp, method: &str, path: &str, key: &str) -> Response {
    app.request(method, path).header("x-api-key", key).send().await.unwrap()
}

async fn status(app: &TestApp, key: &str) -> u16 {
    ask(app, "GET", "/v1/archive", key).await.status().as_u16()
}

async fn metrics(app: &TestApp) -> String {
    ask(app, "GET", "/metrics", KEY).await.text().await.unwrap()
}

#[actix_web::test]
async fn keys_come_and_go_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let guest = printed_key(&file, "guest", "search");
    let app = spawn_with_keys(&file).await;
    assert_eq!((status(&app, &guest).await, status(&app, KEY).await), (200, 200));
    let late = printed_key(&file, "late", "search");
    eventually("a new key is taken", async || status(&app, &late).await == 200).await;
    revoke(&file, "guest");
    eventually("a revoked key is refused", async || status(&app, &guest).await == 401).await;

    // A file that can't be read takes nobody's key away.
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, &good[..good.len() / 2]).unwrap();
    let broken = async |line: &str| metrics(&app).await.contains(line);
    eventually("it is said", async || broken("medsearch_keys_file_broken 1").await).await;
    assert_eq!((status(&app, &late).await, status(&app, &guest).await), (200, 401));
    std::fs::write(&file, &good).unwrap();
    eventually("it is mended", async || broken("medsearch_keys_file_broken 0").await).await;
    assert_eq!(status(&app, &late).await, 200);
}

#[actix_web::test]
async fn what_is_refused_is_told_apart_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let over = key_until(&file, "over", &[Scope::Admin], Some("2021-01-01T00:00:00Z"));
    let guest = printed_key(&file, "guest", "search");
    let app = spawn_with_keys(&file).await;
    let invalid = r#"Bearer error="invalid_token""#;
    for (key, challenge, says) in [
        (None, "Bearer", "send `Authorization"),
        (Some("0123456789abcdef"), invalid, "not known"),
        (Some(over.as_str()), invalid, "has expired"),
    ] {
        let mut request = app.request("GET", "/v1/archive");
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], challenge);
        let (status, slug, problem) = problem(response).await;
        assert_eq!((status, slug.as_str()), (401, "unauthorized"), "{says}");
        assert!(problem.detail.contains(says), "{}", problem.detail);
    }
    assert_eq!(
        problem(ask(&app, "GET", "/v1/feedback", &guest).await).await.1,
        "insufficient-scope"
    );
    let foreign = app
        .request("POST", "/v1/search")
        .header("origin", "https://evil.example");
    assert_eq!(problem(foreign.send().await.unwrap()).await.1, "forbidden-origin");
    let counted = metrics(&app).await;
    for reason in [
        "no_key",
        "unknown_key",
        "expired_key",
        "insufficient_scope",
        "forbidden_origin",
    ] {
        let line = format!(r#"medsearch_requests_refused_total{{reason="{reason}"}} 1"#);
        assert!(counted.contains(&line), "no `{line}`");
    }
    // No series grows with the names of keys.
    assert!(!counted.contains("guest"));
}

#[test]
fn a_key_is_shown_once_and_kept_as_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let made = run(
        &file,
        &[
            "new",
            "--name",
            "pacs",
            "--scope",
            "search",
            "--scope",
            "ingest",
            "--expires",
            "2999-01-01",
        ],
    );
    assert!(made.status.success());
    let (shown, told) = (
        String::from_utf8(made.stdout).unwrap(),
        String::from_utf8(made.stderr).unwrap(),
    );
    let key = shown.strip_suffix('\n').unwrap();
    assert!(
        key.starts_with("medsearch_") && !told.contains(key),
        "the key alone, and it alone"
    );
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(
        !kept.contains(key) && kept.contains(&ApiKey::new(key).unwrap().digest()),
        "{kept}"
    );

    let listed = String::from_utf8(run(&file, &["list"]).stdout).unwrap();
    assert!(listed.starts_with("pacs  search,ingest  since 20"), "{listed}");
    assert!(
        listed.trim_end().ends_with("until 2999-01-01T00:00:00Z") && listed.lines().count() == 1,
        "{listed}"
    );

    for (arguments, code, says) in [
        (
            &["new", "--name", "pacs", "--scope", "search"][..],
            1,
            "there is a key `pacs` already",
        ),
        (
            &["new", "--name", "x", "--scope", "search", "--expires", "2020-01-01"],
            1,
            "would expire",
        ),
        (&["new", "--name", "x", "--scope", "write"], 2, "a scope is one of"),
        (&["new", "--name", "x"], 2, "--scope"),
        (&["new", "--name", "a b", "--scope", "search"], 2, "the name of a key"),
        (
            &["new", "--name", "x", "--scope", "search", "--expires", "soon"],
            2,
            "a key ends on a day",
        ),
        (&["revoke", "nobody"], 1, "there is no key `nobody`"),
    ] {
        let refused = run(&file, arguments);
        let told = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(
            told.contains(says) && refused.stdout.is_empty(),
            "{arguments:?}: {told}"
        );
    }
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        kept,
        "nothing of it changed the file"
    );
    let absent = file.with_file_name("absent.json");
    let told = String::from_utf8(run(&absent, &["revoke", "pacs"]).stderr).unwrap();
    assert!(told.contains("is not there") && !absent.exists(), "{told}");
    revoke(&file, "pacs");
    assert_eq!(run(&file, &["list"]).stdout, b"");
}

#[actix_web::test]
async fn beyond_loopback_a_server_starts_with_keys_only() {
    let folder = archive::copy();
    let file = folder.path().join("keys.json");
    let url = folder.path().join("archive").display().to_string();
    let settings = |keys_file: Option<&Path>| Settings {
        program: env!("CARGO_BIN_EXE_medsearch").into(),
        listen: "0.0.0.0:0".parse().unwrap(),
        keys_file: keys_file.map(Path::to_owned),
        ..Settings::local(url.clone(), secret())
    };
    let refused = App::build(settings(None)).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unauthorized);
    let missing = App::build(settings(Some(&file))).await.err().unwrap();
    assert!(missing.to_string().contains("is not there"), "{missing}");
    printed_key(&file, "guest", "search");
    assert!(App::build(settings(Some(&file))).await.is_ok());
}

/// What an archive of mode `linked` keeps of whose images these are is in no answer to a key without `link`.
#[actix_web::test]
async fn without_link_no_answer_shows_whose_images_these_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let made = run(
        &file,
        &[
            "new",
            "--name",
            "all-but-link",
            "--scope",
            "search",
            "--scope",
            "ingest",
        ],
    );
    let all = String::from_utf8(made.stdout).unwrap().trim_end().to_owned();
    let app = spawn_with_keys(&file).await;
    let picture = image(1, 77);
    let parts = [
        Part::Text("patient_id", b"Linked^Patient"),
        Part::Text("study_uid", b"1.2.840.4711"),
        Part::Text("class", b"Normal"),
        Part::File("image", &picture),
    ];
    let added = app
        .form("/v1/images", &parts)
        .header("x-api-key", &all)
        .send()
        .await
        .unwrap();
    let written: Value = added.json().await.unwrap();
    let id = written["id"].as_str().unwrap();
    let version = written["version"].clone();
    let search = json!({"ids": [id], "exclude": [], "min_version": version});
    let found = app
        .request("POST", "/v1/search/by-id")
        .header("x-api-key", &all)
        .json(&search);
    let found = found.send().await.unwrap();
    assert_eq!(found.status(), 200);
    let mut shown = vec![written.to_string(), found.text().await.unwrap()];
    for path in ["/v1/archive", "/v1/archive/datasheet", &format!("/v1/images/{id}")] {
        let response = ask(&app, "GET", path, &all).await;
        assert_eq!(response.status(), 200, "{path}");
        shown.push(response.text().await.unwrap());
    }
    for text in shown {
        assert!(
            !text.contains("Linked^Patient") && !text.contains("1.2.840.4711"),
            "{text}"
        );
    }
}

/// `medsearch serve` as a program, with its log.
struct Program {
    child: Child,
    port: u16,
    log: mpsc::Receiver<String>,
}

impl Program {
    fn start(folder: &Path, keys: &Path) -> Self {
        let secret = folder.join("secret");
        std::fs::write(&secret, hex::encode([7; 32])).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_medsearch"))
            .args(["serve", "--listen", "127.0.0.1:0", "--archive"])
            .arg(folder.join("archive"))
            .arg("--secret-file")
            .arg(secret)
            .arg("--keys-file")
            .arg(keys)
            .env_remove("MEDSEARCH_API_KEY")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (says, log) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| says.send(line)));
        let mut program = Self { child, port: 0, log };
        let started = program.line("serving at http://127.0.0.1:");
        let (_, port) = started.split_once("127.0.0.1:").unwrap();
        program.port = port.split(' ').next().unwrap().parse().unwrap();
        program
    }

    /// The next line of the log that holds this.
    fn line(&self, text: &str) -> String {
        loop {
            let line = self.log.recv_timeout(Duration::from_secs(60));
            let line = line.unwrap_or_else(|_| panic!("no line with `{text}`"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The status of `GET /v1/archive`.
    fn ask(&self, key: &str) -> u16 {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!("host: 127.0.0.1:{}\r\nx-api-key: {key}\r\nconnection: close", self.port);
        write!(connection, "GET /v1/archive HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_log_says_by_which_key_and_never_the_key() {
    let folder = archive::copy();
    let file = folder.path().join("keys.json");
    let guest = printed_key(&file, "guest", "search");
    let meter = printed_key(&file, "meter", "metrics");
    let program = Program::start(folder.path(), &file);
    for (key, status, name) in [
        (guest.as_str(), 200, Some("guest")),
        (&meter, 403, Some("meter")),
        ("0123456789abcdef", 401, None),
    ] {
        assert_eq!(program.ask(key), status);
        let line = program.line(r#""message":"answered""#);
        assert!(!line.contains(key), "{line}");
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (line["status"].as_u64(), line["key"].as_str()),
            (Some(u64::from(status)), name),
            "{line}"
        );
    }
    std::fs::write(&file, "no longer a list").unwrap();
    assert!(program.line("can't be taken over").contains("WARN"));
    std::fs::write(&file, r#"{"format": 1, "keys": []}"#).unwrap();
    assert!(program.line("the keys file has changed").contains(r#""keys":0"#));
    assert_eq!(program.ask(&guest), 401);
}
