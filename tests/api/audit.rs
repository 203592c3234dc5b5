//! What each request leaves in the audit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use medsearch::app::{App, AuditPlace, Settings};
use medsearch::archive::{Archive, Identity, IdentityMode};
use medsearch::audit::{BYTES_MAX_LEAST, audit_files};
use medsearch::http::{Rate, RateSettings, SERVED};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::archive::{self, image, secret};
use crate::cluster::eventually;
use crate::files::Instance;
use crate::harness::{BOUNDARY, KEY, Part, form_body, problem};

/// A server with an audit and a key.
struct Audited {
    folder: TempDir,
    url: String,
    client: Client,
    handle: ServerHandle,
    stopped: actix_web::rt::task::JoinHandle<medsearch::error::Result<()>>,
}

impl Audited {
    async fn start() -> Self {
        Self::over(archive::copy(), 1 << 30).await
    }

    async fn over(folder: TempDir, bytes_max: u64) -> Self {
        Self::with(folder, |settings| {
            if let Some(audit) = &mut settings.audit {
                audit.bytes_max = bytes_max;
            }
        })
        .await
    }

    async fn with(folder: TempDir, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            program: env!("CARGO_BIN_EXE_medsearch").into(),
            api_key: Some(KEY.to_owned()),
            keys_file: Some(keys_file(folder.path())),
            audit: Some(AuditPlace {
                folder: folder.path().join("audit"),
                bytes_max: 1 << 30,
            }),
            ..Settings::local(folder.path().join("archive").display().to_string(), secret())
        };
        change(&mut settings);
        let app = App::build(settings).await.unwrap();
        let url = format!("http://{}", app.address());
        let handle = app.handle();
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            folder,
            url,
            client: Client::builder().no_proxy().build().unwrap(),
            handle,
            stopped: actix_web::rt::spawn(app.run_until_stopped()),
        }
    }

    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.open_request(method, path).header("x-api-key", KEY)
    }

    fn open_request(&self, method: &str, path: &str) -> RequestBuilder {
        self.client
            .request(method.parse().unwrap(), format!("{}{path}", self.url))
    }

    fn form(&self, path: &str, parts: &[Part<'_>]) -> RequestBuilder {
        let form = format!("multipart/form-data; boundary={BOUNDARY}");
        self.request("POST", path)
            .header("content-type", form)
            .body(form_body(parts))
    }

    /// Stops it; its folder stays.
    async fn stop(self) -> TempDir {
        self.handle.stop(true).await;
        self.stopped.await.unwrap().unwrap();
        self.folder
    }
}

fn keys_file(folder: &Path) -> PathBuf {
    let path = folder.join("keys.json");
    if !path.exists() {
        std::fs::write(&path, r#"{"format": 1, "keys": []}"#).unwrap();
    }
    path
}

fn lines(folder: &Path) -> Vec<Value> {
    let files = audit_files(&folder.join("audit")).unwrap();
    let texts = files.iter().map(|file| std::fs::read_to_string(&file.path).unwrap());
    texts
        .flat_map(|text| {
            text.lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Every image id that an answer has anywhere.
fn ids_in(answer: &Value) -> BTreeSet<String> {
    match answer {
        Value::String(text) => (text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .then(|| text.clone())
            .into_iter()
            .collect(),
        Value::Array(all) => all.iter().flat_map(ids_in).collect(),
        Value::Object(all) => all.values().flat_map(ids_in).collect(),
        _ => BTreeSet::new(),
    }
}

async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let bytes = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// What a line says, without what differs between two runs.
fn said(line: &Value) -> String {
    let field = |name: &str| match &line[name] {
        Value::Null => String::new(),
        Value::String(text) => format!(" {name}={text}"),
        other => format!(" {name}={other}"),
    };
    let mut said = line["what"].as_str().unwrap().to_owned();
    for name in [
        "dicom",
        "action",
        "who",
        "begun",
        "refused",
        "operation",
        "count",
        "status",
        "problem",
    ] {
        said.push_str(&field(name));
    }
    for name in ["of", "query", "patient"] {
        if !line[name].is_null() {
            said.push_str(&format!(" {name}"));
        }
    }
    said
}

#[actix_web::test]
async fn each_route_leaves_the_line_that_it_should() {
    let server = Audited::start().await;
    let picture = image(1, 77);
    let of_patient = |picture| {
        [
            Part::Text("patient_id", b"Linked^Patient"),
            Part::Text("study_uid", b"1.2.840.4711"),
            Part::Text("class", b"Normal"),
            Part::File("image", picture),
        ]
    };
    let mut asked: Vec<(&str, &str, &str, Value)> = Vec::new();
    let mut expected: Vec<Vec<String>> = Vec::new();
    let mut ask = async |method: &'static str, path: &'static str, request: RequestBuilder, lines: &[&str]| {
        let id = format!("r-{}", asked.len());
        let response = request.header("x-request-id", &id).send().await.unwrap();
        let (_, answer) = answer(response).await;
        asked.push((method, path, "", answer.clone()));
        expected.push(lines.iter().map(|line| (*line).to_owned()).collect());
        answer
    };
    let added = ask(
        "POST",
        "/v1/images",
        server.form("/v1/images", &of_patient(&picture)),
        &[
            "addImage dicom=110107 action=C who=api-key begun=true",
            "addImage dicom=110107 action=C who=api-key status=201 of query",
        ],
    )
    .await;
    let id = added["id"].as_str().unwrap().to_owned();
    let version = &added["version"];
    let one = |what: &str| format!("{what} who=api-key status=200");
    let found = json!({"ids": [id], "min_version": version});
    ask(
        "POST",
        "/v1/search/by-id",
        server.request("POST", "/v1/search/by-id").json(&found),
        &[&one("searchById dicom=110112 action=E")],
    )
    .await;
    let by_image = |path| server.form(path, &[Part::File("image", &picture)]);
    ask(
        "POST",
        "/v1/search",
        by_image("/v1/search"),
        &[&format!("{} query", one("searchByImage dicom=110112 action=E"))],
    )
    .await;
    let vectors = ask(
        "POST",
        "/v1/embeddings",
        by_image("/v1/embeddings"),
        &[&format!("{} query", one("embed dicom=110106 action=R"))],
    )
    .await;
    let vector = json!({"vector": vectors["embeddings"][0]["vector"], "space": vectors["space"]});
    ask(
        "POST",
        "/v1/search/by-vector",
        server.request("POST", "/v1/search/by-vector").json(&vector),
        &[&format!("{} query", one("searchByVector dicom=110112 action=E"))],
    )
    .await;
    let nowhere = json!({"pacs": "nowhere", "study_uid": "1.2.840.4711"});
    ask(
        "POST",
        "/v1/search/by-reference",
        server.request("POST", "/v1/search/by-reference").json(&nowhere),
        &["searchByReference dicom=110112 action=E who=api-key status=404 problem=unknown-pacs"],
    )
    .await;
    let parts = [Part::Text("neighbor", id.as_bytes()), Part::File("image", &picture)];
    ask(
        "POST",
        "/v1/explanations",
        server.form("/v1/explanations", &parts),
        &[&format!("{} query", one("explain dicom=110103 action=R"))],
    )
    .await;
    let path = format!("/v1/images/{id}");
    ask(
        "GET",
        "/v1/images/{id}",
        server.request("GET", &path),
        &[&one("getImage dicom=110103 action=R")],
    )
    .await;
    ask(
        "GET",
        "/v1/images/{id}/thumbnail",
        server.request("GET", &format!("{path}/thumbnail")),
        &[&one("getThumbnail dicom=110103 action=R")],
    )
    .await;
    ask(
        "GET",
        "/v1/images/{id}/rendered",
        server.request("GET", &format!("{path}/rendered")),
        &[&one("getRendered dicom=110103 action=R")],
    )
    .await;
    let label = json!({"class": "COVID", "label_source": "reader"});
    ask(
        "PATCH",
        "/v1/images/{id}",
        server.request("PATCH", &path).json(&label),
        &[
            "relabelImage dicom=110103 action=U who=api-key begun=true",
            "relabelImage dicom=110103 action=U who=api-key status=200 of",
        ],
    )
    .await;
    let report = json!({"image": id, "suggested": "Viral Pneumonia", "reason": "Linked^Patient says so"});
    let reported = ask(
        "POST",
        "/v1/feedback",
        server.request("POST", "/v1/feedback").json(&report),
        &[
            "reportLabel dicom=110100 action=C who=api-key begun=true",
            "reportLabel dicom=110100 action=C who=api-key status=201 of",
        ],
    )
    .await;
    ask(
        "GET",
        "/v1/feedback",
        server.request("GET", "/v1/feedback"),
        &[
            "listFeedback dicom=110100 action=R who=api-key begun=true",
            "listFeedback dicom=110100 action=R who=api-key status=200 of",
        ],
    )
    .await;
    let resolved = format!("/v1/feedback/{}", reported["id"].as_str().unwrap());
    ask(
        "DELETE",
        "/v1/feedback/{id}",
        server.request("DELETE", &resolved),
        &[
            "resolveFeedback dicom=110100 action=D who=api-key begun=true",
            "resolveFeedback dicom=110100 action=D who=api-key status=200 of",
        ],
    )
    .await;
    let whom = json!({"patient_id": "Linked^Patient"});
    ask(
        "POST",
        "/v1/patients/delete",
        server.request("POST", "/v1/patients/delete").json(&whom),
        &[
            "deletePatient dicom=110110 action=D who=api-key begun=true",
            "deletePatient dicom=110110 action=D who=api-key count=1 status=200 of patient",
        ],
    )
    .await;
    ask(
        "DELETE",
        "/v1/images/{id}",
        server.request("DELETE", &path),
        &[
            "deleteImage dicom=110103 action=D who=api-key begun=true",
            "deleteImage dicom=110103 action=D who=api-key status=404 problem=not-found of",
        ],
    )
    .await;
    let text = |path: &str| {
        server
            .request("POST", path)
            .header("content-type", "text/plain")
            .body("x")
    };
    for (path, sent, what) in [
        ("/dicom-web/studies", "/dicom-web/studies", "storeInstances"),
        (
            "/dicom-web/studies/{study}",
            "/dicom-web/studies/1.2.840.4711",
            "storeInstancesOfStudy",
        ),
    ] {
        let begun = format!("{what} dicom=110107 action=C who=api-key begun=true");
        let ended = format!("{what} dicom=110107 action=C who=api-key status=415 problem=unsupported-media of");
        ask("POST", path, text(sent), &[&begun, &ended]).await;
    }
    ask(
        "POST",
        "/instances",
        text("/instances"),
        &[
            "storePeerInstance dicom=110107 action=C who=api-key begun=true",
            "storePeerInstance dicom=110107 action=C who=api-key count=1 status=422 problem=invalid-image of",
        ],
    )
    .await;
    for silent in [
        "/v1/archive",
        "/v1/archive/datasheet",
        "/v1/archive/datasheet.md",
        "/v1/classes",
        "/v1/model",
        "/v1/model/card",
        "/v1/model/card.md",
        "/system",
    ] {
        ask("GET", silent, server.request("GET", silent), &[]).await;
    }
    let tried: BTreeSet<(String, &str)> = asked
        .iter()
        .map(|(method, path, ..)| (method.to_lowercase(), *path))
        .collect();
    let served = SERVED
        .iter()
        .flat_map(|(path, methods)| methods.iter().map(|method| ((*method).to_owned(), *path)))
        // Tried below.
        .filter(|(method, path)| method != "get" || !path.starts_with("/dicom-web/"));
    assert_eq!(tried, served.collect(), "say here what a new route leaves");

    let folder = server.stop().await;
    let lines = lines(folder.path());
    let mut by_request: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for line in &lines {
        by_request
            .entry(line["request"].as_str().unwrap_or("server"))
            .or_default()
            .push(line);
    }
    let of_server: Vec<String> = by_request["server"].iter().map(|line| said(line)).collect();
    assert_eq!(
        of_server,
        [
            "start dicom=110100 action=E who=server",
            "stop dicom=110100 action=E who=server"
        ]
    );
    for (at, ((method, path, _, answer), expected)) in asked.iter().zip(&expected).enumerate() {
        let left = by_request.get(format!("r-{at}").as_str()).cloned().unwrap_or_default();
        assert_eq!(
            left.iter().map(|line| said(line)).collect::<Vec<_>>(),
            *expected,
            "{method} {path}"
        );
        let Some(last) = left.last().filter(|line| line["status"].as_u64() < Some(300)) else {
            continue;
        };
        if let Some(begun) = left.first().filter(|_| left.len() == 2) {
            assert_eq!(last["of"], begun["seq"], "{method} {path}");
        }
        assert!(last["version"].as_u64().is_some(), "{method} {path}");
        // Which images: exactly those that the answer names. Pictures, maps and numbers name none.
        let named: BTreeSet<String> = ["images", "asked"]
            .into_iter()
            .flat_map(|name| ids_in(&last[name]))
            .collect();
        match path.rsplit('/').next().unwrap() {
            "thumbnail" | "rendered" | "explanations" | "delete" => {
                assert_eq!(named, BTreeSet::from([id.clone()]), "{method} {path}")
            }
            "by-id" => {
                let mut all = ids_in(answer);
                all.insert(id.clone());
                assert_eq!(named, all);
                assert_eq!(ids_in(&last["asked"]), BTreeSet::from([id.clone()]));
            }
            "feedback" | "{id}" if *method != "PATCH" && path.contains("feedback") => {
                assert_eq!(named, BTreeSet::from([id.clone()]), "{method} {path}");
            }
            _ => assert_eq!(named, ids_in(answer), "{method} {path}"),
        }
    }
    // The same picture is the same query, whatever is asked about it.
    let queries: BTreeSet<&str> = lines
        .iter()
        .filter(|line| ["searchByImage", "embed", "explain", "addImage"].contains(&line["what"].as_str().unwrap()))
        .filter_map(|line| line["query"].as_str())
        .collect();
    assert_eq!(queries.len(), 1);
    let whole = verify(&folder, &[]);
    assert!(
        whole.0 == Some(0) && whole.1.contains("1 heads in the archive, 0 faults")
            || whole.1.contains("2 heads in the archive, 0 faults"),
        "{whole:?}"
    );
    let text: String = lines.iter().map(Value::to_string).collect();
    for secret in ["Linked^Patient", "1.2.840.4711", "filename", KEY, "COVID", "Normal"] {
        assert!(!text.contains(secret), "the audit has `{secret}`");
    }
}

fn verify(folder: &TempDir, arguments: &[&str]) -> (Option<i32>, String) {
    let secret = folder.path().join("secret");
    std::fs::write(&secret, hex::encode([7; 32])).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_medsearch"))
        .arg("verify-audit")
        .arg("--archive")
        .arg(folder.path().join("archive"))
        .arg("--secret-file")
        .arg(secret)
        .arg("--audit-dir")
        .arg(folder.path().join("audit"))
        .args(arguments)
        .output()
        .unwrap();
    (run.status.code(), String::from_utf8(run.stdout).unwrap())
}

#[actix_web::test]
async fn each_read_of_dicomweb_leaves_one_line_without_its_uids() {
    let server = Audited::start().await;
    let reads = SERVED
        .iter()
        .filter(|(path, methods)| path.starts_with("/dicom-web/") && methods.contains(&"get"));
    let mut statuses = Vec::new();
    for (at, (path, _)) in reads.enumerate() {
        let path = path
            .replace("{study}", "1.2.840.4711")
            .replace("{series}", "1.2.840.4711.1")
            .replace("{instance}", "1.2.840.4711.1.1")
            .replace("{frames}", "1");
        let request = server.request("GET", &path).header("x-request-id", format!("r-{at}"));
        statuses.push(request.send().await.unwrap().status().as_u16());
    }
    assert!(statuses.len() > 10);
    let folder = server.stop().await;
    let lines = lines(folder.path());
    for (at, status) in statuses.iter().enumerate() {
        let id = format!("r-{at}");
        let left: Vec<&Value> = lines.iter().filter(|line| line["request"] == id.as_str()).collect();
        assert_eq!(left.len(), 1, "{at}");
        assert_eq!(left[0]["status"], *status, "{at}");
        assert_eq!(left[0]["who"], "api-key", "{at}");
        assert!(
            ["110112", "110103"].contains(&left[0]["dicom"].as_str().unwrap()),
            "{at}"
        );
    }
    let text: String = lines.iter().map(Value::to_string).collect();
    assert!(!text.contains("1.2.840.4711"));
}

#[actix_web::test]
async fn what_is_refused_is_told_with_the_reason_and_without_the_key() {
    let server = Audited::start().await;
    let guess = "0123456789abcdef-guess";
    let nobody = server.open_request("POST", "/v1/search").send().await.unwrap();
    assert_eq!(problem(nobody).await.0, 401);
    let guessed = server.open_request("GET", "/v1/feedback").header("x-api-key", guess);
    assert_eq!(problem(guessed.send().await.unwrap()).await.0, 401);
    let foreign = server
        .request("DELETE", "/v1/nothing")
        .header("origin", "https://evil.example");
    assert_eq!(problem(foreign.send().await.unwrap()).await.0, 403);
    for _ in 0..100 {
        server.open_request("GET", "/v1/archive").send().await.unwrap();
    }
    let packed = server.request("POST", "/v1/search").header("content-encoding", "gzip");
    assert_eq!(problem(packed.body("x").send().await.unwrap()).await.0, 415);
    std::fs::write(server.folder.path().join("keys.json"), r#"{"format": 1, "keys": [] }"#).unwrap();
    let folder = server.stop().await;
    let lines = lines(folder.path());
    let mut refused: Vec<String> = lines
        .iter()
        .filter(|line| line["what"] == "refused")
        .map(said)
        .collect();
    assert_eq!(
        refused[..3],
        [
            "refused dicom=110114 action=E refused=no_key operation=searchByImage status=401 problem=unauthorized",
            "refused dicom=110114 action=E refused=unknown_key operation=listFeedback status=401 problem=unauthorized",
            "refused dicom=110113 action=E refused=forbidden_origin status=403 problem=forbidden-origin",
        ]
    );
    // Whoever is known has lines of their own, however many come from others.
    let packed = "refused dicom=110113 action=E who=api-key refused=content_encoding operation=searchByImage status=415 problem=unsupported-media";
    assert_eq!(refused.remove(60), packed);
    // A flood has sixty lines a minute, and one that counts the others.
    assert_eq!(
        (refused.len(), refused[60].as_str()),
        (61, "refused dicom=110113 action=E count=43")
    );
    assert!(lines.iter().all(|line| !line.to_string().contains(guess)));
}

#[actix_web::test]
async fn who_asks_too_often_is_told() {
    let rates = RateSettings {
        requests: Rate::per_minute(1),
        wrong_keys: Rate::per_minute(1),
        ..RateSettings::default()
    };
    let server = Audited::with(archive::copy(), |settings| settings.rates = rates).await;
    for _ in 0..23 {
        server.request("GET", "/v1/classes").send().await.unwrap();
    }
    for _ in 0..2 {
        let guess = server
            .open_request("GET", "/v1/classes")
            .header("x-api-key", "0123456789abcdef");
        guess.send().await.unwrap();
    }
    let folder = server.stop().await;
    let lines = lines(folder.path());
    let refused: Vec<String> = lines
        .iter()
        .filter(|line| line["what"] == "refused")
        .map(said)
        .collect();
    let limited = "refused dicom=110113 action=E who=api-key refused=rate_limited operation=getClasses status=429 problem=rate-limited";
    assert!(refused[..20].iter().all(|line| line == limited), "{refused:?}");
    assert_eq!(
        refused[20..],
        [
            "refused dicom=110114 action=E refused=unknown_key operation=getClasses status=401 problem=unauthorized",
            "refused dicom=110114 action=E refused=wrong_keys operation=getClasses status=429 problem=rate-limited",
            "refused dicom=110113 action=E who=api-key count=2",
        ]
    );
}

#[actix_web::test]
async fn a_changed_keys_file_is_told() {
    let server = Audited::start().await;
    let made = Command::new(env!("CARGO_BIN_EXE_medsearch"))
        .args(["key", "new", "--name", "guest", "--scope", "search", "--file"])
        .arg(server.folder.path().join("keys.json"))
        .output()
        .unwrap();
    let key = String::from_utf8(made.stdout).unwrap();
    let key = key.trim();
    let archive = |key: &str| {
        server
            .open_request("GET", "/v1/archive")
            .header("x-api-key", key)
            .send()
    };
    let taken = async || {
        // Not so often that refused requests have no line each any more.
        actix_web::rt::time::sleep(Duration::from_millis(300)).await;
        archive(key).await.unwrap().status() == 200
    };
    eventually("the key is taken", taken).await;
    let search = server.open_request("GET", "/v1/feedback").header("x-api-key", key);
    assert_eq!(search.send().await.unwrap().status(), 403);
    let folder = server.stop().await;
    let lines = lines(folder.path());
    let changed = lines.iter().find(|line| line["what"] == "keysFile").unwrap();
    assert_eq!((&changed["count"], &changed["who"]), (&json!(1), &json!("server")));
    let refused = lines.iter().find(|line| line["who"] == "guest").unwrap();
    assert_eq!(
        said(refused),
        "refused dicom=110113 action=E who=guest refused=insufficient_scope operation=listFeedback status=403 problem=insufficient-scope"
    );
}

#[actix_web::test]
async fn a_full_audit_changes_nothing_and_still_answers_searches() {
    let folder = archive::copy();
    let audit = folder.path().join("audit");
    std::fs::create_dir(&audit).unwrap();
    let other = audit.join(format!("20200101T000000Z-{}-000001.jsonl", "ab".repeat(16)));
    std::fs::write(&other, vec![b'x'; BYTES_MAX_LEAST as usize]).unwrap();
    let server = Audited::over(folder, BYTES_MAX_LEAST).await;
    let picture = image(2, 78);
    let add = || {
        server
            .form(
                "/v1/images",
                &[Part::Text("class", b"Normal"), Part::File("image", &picture)],
            )
            .send()
    };
    let refused = add().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "30");
    let (status, slug, _) = problem(refused).await;
    assert_eq!((status, slug.as_str()), (507, "storage-full"));
    assert_eq!(
        problem(server.request("GET", "/v1/feedback").send().await.unwrap())
            .await
            .0,
        507
    );
    let search = || server.form("/v1/search", &[Part::File("image", &picture)]).send();
    let found = answer(search().await.unwrap()).await;
    assert_eq!(found.0, 200);
    // The line of a search is written behind its answer.
    eventually("three lines are lost", async || {
        let metrics = server.request("GET", "/metrics").send().await.unwrap();
        let metrics = metrics.text().await.unwrap();
        metrics.contains("medsearch_audit_broken 1") && metrics.contains("medsearch_audit_lost_total 3")
    })
    .await;
    std::fs::remove_file(other).unwrap();
    assert_eq!(add().await.unwrap().status(), 201, "it was not added before");
    let folder = server.stop().await;
    let said: Vec<String> = lines(folder.path())
        .iter()
        .map(|line| format!("{} {}", line["what"].as_str().unwrap(), line["lost"]))
        .collect();
    assert_eq!(
        said,
        ["start null", "gap 3", "addImage null", "addImage null", "stop null"]
    );
    let (code, text) = verify(&folder, &[]);
    assert!(code == Some(0) && text.contains("3 events have no line"), "{text}");
}

#[actix_web::test]
async fn what_is_done_to_the_files_is_found_by_the_command() {
    let folder = Audited::start().await.stop().await;
    let server = Audited::over(folder, 1 << 30).await;
    for _ in 0..3 {
        server
            .request("GET", &format!("/v1/images/{}", "0".repeat(36)))
            .send()
            .await
            .unwrap();
    }
    let folder = server.stop().await;
    let files = audit_files(&folder.path().join("audit")).unwrap();
    assert_eq!(files.len(), 2);
    let longest = files.iter().max_by_key(|file| file.bytes).unwrap();
    let text = std::fs::read_to_string(&longest.path).unwrap();
    let all: Vec<&str> = text.lines().collect();
    assert_eq!(all.len(), 5);
    let check = |changed: String, fault: &str| {
        std::fs::write(&longest.path, changed).unwrap();
        let (code, told) = verify(&folder, &[]);
        assert_eq!(code, Some(3), "{told}");
        assert!(
            told.contains(&format!("{}{fault}", longest.name)),
            "`{fault}` in {told}"
        );
    };
    let joined = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    check(text.replacen("\"status\":404", "\"status\":200", 1), ":2: was changed");
    check(
        joined(&[all[0], all[2], all[3], all[4]]),
        ":2: 1 lines are missing before it",
    );
    check(
        joined(&[all[0], all[2], all[1], all[3], all[4]]),
        ":2: 1 lines are missing before it",
    );
    check(
        joined(&[all[0], all[1], all[1], all[2], all[3], all[4]]),
        ":3: is line 2 of the process",
    );
    check(joined(&all[..3]), ": ends at line 3 of the process, which had 5 lines");
    std::fs::write(&longest.path, &text).unwrap();
    assert_eq!(verify(&folder, &[]).0, Some(0));
    std::fs::remove_file(&longest.path).unwrap();
    let (code, told) = verify(&folder, &["--json"]);
    let report: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (code, &report["findings"][0]["kind"]),
        (Some(3), &json!("missing-process"))
    );
    assert_eq!(verify(&folder, &["--since", "2999-01-01T00:00:00Z"]).0, Some(0));
    assert_eq!(verify(&folder, &["--replica", "another"]).0, Some(0));
}

/// Lines of one operation.
fn of<'a>(lines: &'a [Value], what: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["what"] == what).collect()
}

#[actix_web::test]
async fn searches_by_names_can_be_told_from_each_other_and_by_whoever_has_the_secret() {
    let folder = archive::copy();
    let pacs = folder.path().join("pacs.toml");
    let entry = "[[pacs]]\nname = \"main\"\nurl = \"http://127.0.0.1:9/dicom-web\"\n";
    std::fs::write(&pacs, entry).unwrap();
    let server = Audited::with(folder, |settings| settings.pacs_file = Some(pacs)).await;
    let names = [
        "PatientID=Linked%5EPatient",
        "00100020=Linked%5EPatient&limit=3",
        "PatientID=Other%5EPatient",
        "StudyInstanceUID=1.2.840.4711",
        "Modality=CR",
    ];
    for query in names {
        let found = server.request("GET", &format!("/dicom-web/studies?{query}"));
        assert_eq!(found.send().await.unwrap().status(), 200, "{query}");
    }
    for study in ["1.2.840.4711", "1.2.840.4711", "1.2.840.4712"] {
        let reference = json!({"pacs": "main", "study_uid": study});
        let search = server.request("POST", "/v1/search/by-reference").json(&reference);
        assert_ne!(search.send().await.unwrap().status(), 200);
    }
    let folder = server.stop().await;
    let lines = lines(folder.path());
    let found = of(&lines, "searchStudies");
    let identity = Identity::new(secret(), IdentityMode::Anonymous);
    let pseudonym = |id| identity.pseudonym(identity.patient_keys(None, id).unwrap().patient);
    assert_eq!(found[0]["patient"], pseudonym("Linked^Patient"));
    assert_eq!(found[2]["patient"], pseudonym("Other^Patient"));
    assert!(found[0]["query"].is_string() && found[0]["query"] == found[1]["query"]);
    for (one, other) in [(0, 2), (0, 3), (2, 3)] {
        assert_ne!(found[one]["query"], found[other]["query"]);
    }
    // As README says: everybody who has the secret can make the digest anew.
    let mut digest = blake3::Hasher::new_keyed(&identity.audit_key());
    for part in ["names", "study", "1.2.840.4711"] {
        digest
            .update(&(part.len() as u64).to_le_bytes())
            .update(part.as_bytes());
    }
    let digest = &digest.finalize().to_hex()[..32];
    assert_eq!(found[3]["query"], digest);
    assert!(found[..4].iter().all(|line| line["count"] == 0), "nothing was found");
    assert!(found[4]["query"].is_null() && found[4]["count"].is_null());
    let fetched = of(&lines, "searchByReference");
    assert!(
        fetched
            .iter()
            .all(|line| line["pacs"] == "main" && line["problem"] == "pacs-failed"),
        "{fetched:?}"
    );
    assert_eq!(fetched[0]["reference"], digest);
    assert!(fetched[0]["reference"] == fetched[1]["reference"] && fetched[0]["reference"] != fetched[2]["reference"]);
    let text: String = lines.iter().map(Value::to_string).collect();
    for secret in ["Linked", "Other", "1.2.840.4711", "1.2.840.4712"] {
        assert!(!text.contains(secret), "the audit has `{secret}`");
    }
}

#[actix_web::test]
async fn what_becomes_of_a_stored_file_has_a_line_of_its_own() {
    let folder = archive::copy();
    let archive = Archive::open(folder.path().join("archive").to_str().unwrap(), secret())
        .await
        .unwrap();
    let inbox = archive.inbox();
    // As a server left it that was killed: who sent it is not known any more.
    let left = Instance {
        sop_uid: "1.2.840.4711.1",
        ..Instance::default()
    };
    let left = left.file(1);
    let waiting = inbox.id(&left, None, archive.identity().sop_key("1.2.840.4711.1"));
    inbox.put(waiting, left.into()).await.unwrap();
    let server = Audited::with(folder, |_| {}).await;
    let sent = Instance {
        sop_uid: "1.2.840.4711.2",
        ..Instance::default()
    };
    let blank = Instance {
        sop_uid: "1.2.840.4711.3",
        ..Instance::default()
    };
    let mut blank = blank.file(3);
    let pixels = blank.len() - 96 * 96;
    blank[pixels..].fill(0);
    for file in [sent.file(2), blank] {
        let stored = server.request("POST", "/instances").body(file).send().await.unwrap();
        assert_eq!(stored.status(), 200);
    }
    eventually("nothing waits", async || {
        inbox.list().await.unwrap().is_empty() && inbox.failed_count().await.unwrap() == 1
    })
    .await;
    let folder = server.stop().await;
    let lines = lines(folder.path());
    let mut embedded: Vec<String> = of(&lines, "embedInstance")
        .iter()
        .map(|line| {
            let images = line["images"].as_array().map_or(0, Vec::len);
            format!("{} outcome={} images={images}", said(line), line["outcome"])
        })
        .collect();
    embedded.sort();
    assert_eq!(
        embedded,
        [
            "embedInstance dicom=110107 action=C who=api-key outcome=\"embedded\" images=1",
            "embedInstance dicom=110107 action=C who=api-key refused=constant-image outcome=\"failed\" images=0",
            "embedInstance dicom=110107 action=C who=server outcome=\"embedded\" images=1",
        ]
    );
    assert_eq!(of(&lines, "storePeerInstance").len(), 4);
    let text: String = lines.iter().map(Value::to_string).collect();
    assert!(!text.contains("1.2.840.4711"));
    assert_eq!(verify(&folder, &[]).0, Some(0));
}
