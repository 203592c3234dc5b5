//! STOW-RS and Orthanc's own way, with the bytes that PACS really send: what is answered as stored is in the archive soon, once, and nothing else is.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use medsearch::app::{App, Settings};
use medsearch::archive::{Archive, Scope};
use medsearch::pacs::BaseUrl;
use reqwest::Response;
use serde_json::{Value, json};

use crate::archive::{self, secret};
use crate::cluster::eventually;
use crate::files::{self, Instance};
use crate::harness::{Part, TestApp, problem, spawn_app, spawn_with};

/// As Orthanc 1.10.1 with its plugin 1.7 writes it: 73 characters, not in quotes.
const ORTHANC: &str = "0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1-0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1";
/// Images of the archive before anything is stored.
pub const BEFORE: u64 = 24;

/// Orthanc's body: a length for every part, and nothing after the last boundary.
fn orthanc_body(files: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for file in files {
        let head = format!(
            "--{ORTHANC}\r\nContent-Type: application/dicom\r\nContent-Length: {}\r\n\r\n",
            file.len()
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(file);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{ORTHANC}--").as_bytes());
    body
}

fn orthanc_type() -> String {
    format!(r#"multipart/related; type="application/dicom"; boundary={ORTHANC}"#)
}

async fn store_at(app: &TestApp, path: &str, files: &[Vec<u8>]) -> Response {
    let request = app.body(path, &orthanc_type(), orthanc_body(files));
    request.send().await.unwrap()
}

pub async fn store(app: &TestApp, files: &[Vec<u8>]) -> (u16, Value) {
    answer(store_at(app, "/dicom-web/studies", files).await).await
}

/// The status and the data set of an answer, whose media type is the one that clients compare.
async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let media_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    let text = response.text().await.unwrap();
    assert_eq!(media_type, "application/dicom+json", "{status}: {text}");
    (status, serde_json::from_str(&text).unwrap())
}

/// Instances and codes of a sequence of an answer.
fn listed(set: &Value, sequence: &str, code: &str) -> Vec<(String, Option<u64>)> {
    let items = set[sequence]["Value"].as_array().cloned().unwrap_or_default();
    let item = |item: &Value| {
        let uid = item["00081155"]["Value"][0].as_str().unwrap().to_owned();
        (uid, item[code]["Value"][0].as_u64())
    };
    items.iter().map(item).collect()
}

pub fn stored(set: &Value) -> Vec<(String, Option<u64>)> {
    listed(set, "00081199", "00081196")
}

pub fn failed(set: &Value) -> Vec<(String, Option<u64>)> {
    listed(set, "00081198", "00081197")
}

pub fn row(uid: &str, code: Option<u64>) -> (String, Option<u64>) {
    (uid.to_owned(), code)
}

pub async fn images(app: &TestApp) -> u64 {
    let archive: Value = app.get("/v1/archive").await.json().await.unwrap();
    archive["images"].as_u64().unwrap()
}

pub async fn until_images(app: &TestApp, count: u64) {
    eventually("what was stored is in the archive", async || images(app).await == count).await;
}

pub fn instance(sop_uid: &str) -> Instance<'_> {
    Instance {
        sop_uid,
        ..Instance::default()
    }
}

/// What is counted under these labels.
pub async fn counted(app: &TestApp, series: &str) -> u64 {
    let text = app.get("/metrics").await.text().await.unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
}

/// Another scope of the archive, as `medsearch scope` sets it, once the server knows it.
async fn narrow(app: &TestApp, modality: &str) {
    let archive = Archive::open(app.archive_folder().to_str().unwrap(), secret())
        .await
        .unwrap();
    let scope = Scope::new(vec![], vec![modality.to_owned()], vec![], vec![]).unwrap();
    archive.set_scope(scope).await.unwrap();
    eventually("the scope is served", async || {
        let archive: Value = app.get("/v1/archive").await.json().await.unwrap();
        archive["scope"]["modality"] == json!([modality])
    })
    .await;
}

#[actix_web::test]
async fn what_orthanc_sends_is_stored_and_soon_found_unlabelled() {
    let app = spawn_app().await;
    let files: Vec<Vec<u8>> = (1..=3)
        .map(|seed| instance(&format!("1.2.3.{seed}")).file(seed))
        .collect();
    let (status, set) = store(&app, &files).await;
    assert_eq!(status, 200);
    assert_eq!(
        stored(&set),
        [row("1.2.3.1", None), row("1.2.3.2", None), row("1.2.3.3", None)]
    );
    assert_eq!(
        set["00081190"],
        json!({"vr": "UR"}),
        "nobody said where it can be retrieved"
    );
    assert!(set["00081198"].is_null());
    until_images(&app, BEFORE + 3).await;

    let found = app.form("/v1/search", &[Part::File("image", &files[1])]);
    let found: Value = found.send().await.unwrap().json().await.unwrap();
    assert!(found["neighbors"].is_array(), "{found}");
    let classes: Value = app.get("/v1/classes").await.json().await.unwrap();
    let labelled: u64 = classes["classes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|class| class["images"].as_u64().unwrap())
        .sum();
    assert_eq!(labelled, BEFORE, "what comes without a label never votes");
    let inbox = app.archive_folder().join("inbox");
    let waits = || {
        let entries = std::fs::read_dir(&inbox).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().path().is_file()).count()
    };
    eventually("the inbox is empty", async || waits() == 0).await;
    assert_eq!(counted(&app, r#"medsearch_inbox_total{outcome="embedded"}"#).await, 3);
}

#[actix_web::test]
async fn the_same_again_is_a_success_with_a_warning() {
    let app = spawn_app().await;
    let file = instance("1.2.3.4").file(1);
    for round in 0..3 {
        let (status, set) = store(&app, std::slice::from_ref(&file)).await;
        let known = round > 0;
        assert_eq!(status, if known { 202 } else { 200 });
        assert_eq!(stored(&set), [row("1.2.3.4", known.then_some(0xb006))]);
        until_images(&app, BEFORE + 1).await;
    }
    // Twice in one body.
    let (status, set) = store(&app, &[instance("1.2.3.9").file(9), instance("1.2.3.9").file(9)]).await;
    assert_eq!((status, stored(&set).len()), (202, 2));
    until_images(&app, BEFORE + 2).await;
}

#[actix_web::test]
async fn one_bad_among_good_costs_only_itself() {
    let app = spawn_app().await;
    let report = Instance {
        sop_class: "1.2.840.10008.5.1.4.1.1.88.11",
        modality: "SR",
        sop_uid: "1.2.3.6",
        ..Instance::default()
    };
    let whole = instance("1.2.3.7").file(3);
    let video = files::dicom("1.2.840.10008.1.2.4.102", &instance("1.2.3.8").file(4)[300..]);
    let files = [
        instance("1.2.3.5").file(1),
        report.report(),
        whole[..whole.len() - 400].to_vec(),
        b"no DICOM at all".to_vec(),
        video,
        instance("1.2.3.9").file(5),
    ];
    let (status, set) = store(&app, &files).await;
    assert_eq!(status, 202, "{set}");
    assert_eq!(
        stored(&set),
        [row("1.2.3.5", None), row("1.2.3.6", Some(0xb006)), row("1.2.3.9", None)]
    );
    assert_eq!(set["0008119A"]["Value"][0]["00081197"]["Value"], json!([0xc000]));
    assert!(
        failed(&set)
            .iter()
            .all(|(_, code)| matches!(code, Some(0xc000 | 0xc122)))
    );
    assert_eq!(failed(&set).len() + 1, 3, "{set}");
    until_images(&app, BEFORE + 2).await;

    let (status, set) = store(&app, &[b"no DICOM at all".to_vec()]).await;
    assert_eq!((status, stored(&set).len()), (409, 0));
}

#[actix_web::test]
async fn other_pixels_of_a_known_instance_are_a_conflict() {
    let app = spawn_app().await;
    store(&app, &[instance("1.2.3.4").file(1)]).await;
    until_images(&app, BEFORE + 1).await;
    let (status, set) = store(&app, &[instance("1.2.3.4").file(2)]).await;
    assert_eq!((status, failed(&set)), (409, vec![row("1.2.3.4", Some(0x0111))]));
    // By the other way in, too.
    let other = instance("1.2.3.4").file(2);
    let answer = app
        .form("/v1/images", &[Part::File("image", &other)])
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 409);
    assert_eq!(images(&app).await, BEFORE + 1);
    // The same pixels with another header, as a PACS that corrected a view sends them.
    let corrected = Instance {
        view: "AP",
        ..instance("1.2.3.4")
    };
    let (status, _) = store(&app, &[corrected.file(1)]).await;
    assert_eq!(status, 200);
    // Both unknown, and sent together: the first stays, the other is set aside with the reason.
    store(&app, &[instance("1.2.3.8").file(5), instance("1.2.3.8").file(6)]).await;
    until_images(&app, BEFORE + 2).await;
    let failed = app.archive_folder().join("inbox/failed");
    eventually("the other is set aside", async || {
        std::fs::read_dir(&failed).is_ok_and(|entries| entries.count() == 1)
    })
    .await;
    assert_eq!(images(&app).await, BEFORE + 2);
    let secret = app.secret_file();
    let shown = std::process::Command::new(env!("CARGO_BIN_EXE_medsearch"))
        .args([Path::new("inbox"), Path::new("--archive"), &app.archive_folder()])
        .args([Path::new("--secret-file"), &secret])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("conflict: its SOP instance is in the archive with other pixels"),
        "{shown}"
    );
    assert!(!shown.contains("1.2.3.8"));
}

#[actix_web::test]
async fn only_the_study_of_the_path_is_stored() {
    let app =
        spawn_with(|settings| settings.dicom_web_url = Some(BaseUrl::parse("https://x.example/dicom-web").unwrap()))
            .await;
    let other = Instance {
        study_uid: "1.2.99",
        ..instance("1.2.3.5")
    };
    let files = [instance("1.2.3.4").file(1), other.file(2)];
    let (status, set) = answer(store_at(&app, "/dicom-web/studies/1.2.3", &files).await).await;
    assert_eq!(status, 202);
    assert_eq!(stored(&set), [row("1.2.3.4", None)]);
    assert_eq!(failed(&set), [row("1.2.3.5", Some(0xa900))]);
    assert_eq!(
        set["00081199"]["Value"][0]["00081190"]["Value"],
        json!(["https://x.example/dicom-web/studies/1.2.3/series/1.2.3.5/instances/1.2.3.4"])
    );
    assert_eq!(
        set["00081190"]["Value"],
        json!(["https://x.example/dicom-web/studies/1.2.3"])
    );
}

#[actix_web::test]
async fn a_study_of_another_kind_leaves_the_archive_as_it_is() {
    let app = spawn_app().await;
    narrow(&app, "CR").await;
    let search = async || {
        let image = archive::image(0, 3);
        let found = app
            .form("/v1/search", &[Part::File("image", &image)])
            .send()
            .await
            .unwrap();
        let found: Value = found.json().await.unwrap();
        (found["neighbors"].clone(), found["suggestion"]["votes"].clone())
    };
    let before = search().await;
    let slices: Vec<Vec<u8>> = (0..50)
        .map(|slice| {
            let uid = format!("1.2.4.{slice}");
            let slice_of = Instance {
                modality: "CT",
                sop_class: "1.2.840.10008.5.1.4.1.1.2",
                ..instance(&uid)
            };
            slice_of.file(slice)
        })
        .collect();
    let (status, set) = store(&app, &slices).await;
    assert_eq!((status, stored(&set).len()), (202, 50));
    assert!(stored(&set).iter().all(|(_, code)| *code == Some(0xb006)));
    assert_eq!(
        counted(&app, r#"medsearch_received_total{outcome="outside_modality"}"#).await,
        50
    );
    let refused = app
        .form("/v1/images", &[Part::File("image", &slices[0])])
        .send()
        .await
        .unwrap();
    let (status, slug, problem) = problem(refused).await;
    assert_eq!((status, slug.as_str()), (422, "out-of-scope"));
    assert!(problem.detail.contains("modality"), "{}", problem.detail);
    assert!(!app.archive_folder().join("inbox").exists() || images(&app).await == BEFORE);

    let (status, _) = store(&app, &[instance("1.2.3.4").file(1)]).await;
    assert_eq!(status, 200);
    until_images(&app, BEFORE + 1).await;
    let after = search().await;
    assert_eq!(after.1, before.1);
}

#[actix_web::test]
async fn a_deleted_patient_does_not_come_back_from_the_inbox() {
    let app = spawn_app().await;
    store(&app, &[instance("1.2.3.4").file(1)]).await;
    until_images(&app, BEFORE + 1).await;
    let deleted = app
        .request("POST", "/v1/patients/delete")
        .json(&json!({"patient_id": "P-1"}));
    assert_eq!(deleted.send().await.unwrap().status(), 200);
    until_images(&app, BEFORE).await;
    // Sent again afterwards it is meant.
    actix_web::rt::time::sleep(Duration::from_millis(50)).await;
    store(&app, &[instance("1.2.3.4").file(1)]).await;
    until_images(&app, BEFORE + 1).await;
}

#[actix_web::test]
async fn every_way_of_writing_the_type_is_taken_and_other_types_are_not() {
    let app = spawn_app().await;
    let part = |file: &[u8]| {
        let head = b"\r\n--X\r\nContent-Type: application/dicom\r\n\r\n".as_slice();
        [head, file, b"\r\n--X--"].concat()
    };
    for (number, (content_type, status)) in [
        (r#"multipart/related; type="application/dicom"; boundary="X""#, 200),
        ("multipart/related; type=application/dicom; boundary=X", 200),
        ("Multipart/Related; Boundary=X", 200),
        ("multipart/form-data; boundary=X", 415),
        ("application/dicom", 415),
        (r#"multipart/related; type="application/dicom+json"; boundary=X"#, 415),
        (r#"multipart/related; type="application/dicom""#, 400),
    ]
    .into_iter()
    .enumerate()
    {
        let uid = format!("1.2.5.{number}");
        let body = part(&instance(&uid).file(number as u32));
        let sent = app.body("/dicom-web/studies", content_type, body).send().await.unwrap();
        assert_eq!(sent.status(), status, "{content_type}");
    }
    let accept = async |accept: &str, uid: &str| {
        let body = part(&instance(uid).file(50));
        let request = app.body("/dicom-web/studies", "multipart/related; boundary=X", body);
        request.header("accept", accept).send().await.unwrap()
    };
    let xml = accept("application/dicom+xml", "1.2.5.50").await;
    assert_eq!(xml.headers()["content-type"], "application/dicom+xml");
    assert!(xml.text().await.unwrap().contains(r#"tag="00081199" vr="SQ""#));
    let (status, slug, _) = problem(accept("text/html", "1.2.5.51").await).await;
    assert_eq!((status, slug.as_str()), (406, "not-acceptable"));
}

#[actix_web::test]
async fn chunked_bodies_are_read_and_broken_ones_are_refused() {
    let app = spawn_app().await;
    let body = orthanc_body(&[instance("1.2.3.4").file(1), instance("1.2.3.5").file(2)]);
    let head = |length: &str| {
        format!(
            "POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAccept: application/dicom+json\r\nContent-Type: {}\r\nConnection: close\r\n{length}\r\n\r\n",
            app.port,
            orthanc_type()
        )
        .into_bytes()
    };
    let mut chunked = head("Transfer-Encoding: chunked");
    for chunk in body.chunks(65_536) {
        chunked.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunked.extend_from_slice(chunk);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let answer = app.raw(chunked).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    let cut = &body[..body.len() - 200];
    let short = [head(&format!("Content-Length: {}", cut.len())), cut.to_vec()].concat();
    let answer = app.raw(short).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    for empty in [format!("--{ORTHANC}--"), String::new(), "junk".to_owned()] {
        let request = app.body("/dicom-web/studies", &orthanc_type(), empty.clone().into_bytes());
        assert_eq!(request.send().await.unwrap().status(), 400, "{empty}");
    }
    until_images(&app, BEFORE + 2).await;
}

#[actix_web::test]
async fn a_part_that_is_too_large_costs_only_itself() {
    let app = spawn_with(|settings| settings.upload_bytes_max = 20_000).await;
    let large = vec![7; 20_001];
    let (status, set) = store(&app, &[large.clone(), instance("1.2.3.4").file(1)]).await;
    assert_eq!((status, stored(&set)), (202, vec![row("1.2.3.4", None)]));
    assert_eq!(set["0008119A"]["Value"][0]["00081197"]["Value"], json!([0xa700]));
    let (status, slug, _) = problem(peer(&app, large).await).await;
    assert_eq!((status, slug.as_str()), (413, "too-large"));
}

/// As `POST /peers/NAME/store` of Orthanc sends it, with its odd media type.
async fn peer(app: &TestApp, file: Vec<u8>) -> Response {
    let request = app.body("/instances", "application/x-www-form-urlencoded", file);
    request.send().await.unwrap()
}

#[actix_web::test]
async fn an_orthanc_takes_it_for_a_peer() {
    let app = spawn_app().await;
    let system: Value = app.get("/system").await.json().await.unwrap();
    assert!(system["ApiVersion"].is_u64() && system["Name"].is_string() && system["Version"].is_string());
    let file = instance("1.2.3.4").file(1);
    for status in ["Success", "AlreadyStored"] {
        let stored = peer(&app, file.clone()).await;
        assert_eq!(stored.status(), 200);
        assert_eq!(stored.json::<Value>().await.unwrap(), json!({"Status": status}));
        until_images(&app, BEFORE + 1).await;
    }
    let report = peer(&app, instance("1.2.3.5").report()).await;
    assert_eq!(report.json::<Value>().await.unwrap(), json!({"Status": "FilteredOut"}));
    let (status, slug, _) = problem(peer(&app, b"no DICOM".to_vec()).await).await;
    assert_eq!((status, slug.as_str()), (422, "invalid-image"));
    let (status, slug, _) = problem(peer(&app, instance("1.2.3.4").file(2)).await).await;
    assert_eq!((status, slug.as_str()), (409, "conflict"));
}

#[actix_web::test]
async fn what_waits_when_a_server_ends_is_embedded_by_the_next() {
    let app = spawn_app().await;
    let archive = Archive::open(app.archive_folder().to_str().unwrap(), secret())
        .await
        .unwrap();
    let inbox = archive.inbox();
    // As another replica left it.
    let file = instance("1.2.3.4").file(1);
    let id = inbox.id(&file, None, archive.identity().sop_key("1.2.3.4"));
    inbox.put(id, file.into()).await.unwrap();
    let blank = files::dicom(files::EXPLICIT, b"");
    let broken = inbox.id(&blank, None, None);
    inbox.put(broken, blank.into()).await.unwrap();
    let settings = Settings {
        program: env!("CARGO_BIN_EXE_medsearch").into(),
        ..Settings::local(app.archive_folder().display().to_string(), secret())
    };
    let next = App::build(settings).await.unwrap();
    let handle = next.handle();
    actix_web::rt::spawn(next.run_until_stopped());
    until_images(&app, BEFORE + 1).await;
    eventually("what can't be embedded is set aside", async || {
        inbox.list().await.unwrap().is_empty() && inbox.failed_count().await.unwrap() == 1
    })
    .await;
    handle.stop(false).await;
}

#[actix_web::test]
async fn a_server_that_only_reads_takes_nothing() {
    let folder = archive::copy();
    let settings = Settings {
        read_only: true,
        program: env!("CARGO_BIN_EXE_medsearch").into(),
        ..Settings::local(folder.path().join("archive").display().to_string(), secret())
    };
    let app = App::build(settings).await.unwrap();
    let (address, handle) = (app.address(), app.handle());
    actix_web::rt::spawn(app.run_until_stopped());
    for path in ["/dicom-web/studies", "/instances"] {
        let request = reqwest::Client::new().post(format!("http://{address}{path}"));
        let request = request.header("content-type", orthanc_type()).body(orthanc_body(&[]));
        let (status, slug, _) = problem(request.send().await.unwrap()).await;
        assert_eq!((status, slug.as_str()), (405, "method-not-allowed"), "{path}");
    }
    handle.stop(false).await;
}

/// A sender of a study that stops in the middle of it.
fn half(app: &TestApp) -> TcpStream {
    let mut connection = TcpStream::connect(("127.0.0.1", app.port)).unwrap();
    let head = format!(
        "POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        app.port,
        orthanc_type()
    );
    let begun = format!(
        "--{ORTHANC}\r\nContent-Type: application/dicom\r\n\r\n{}",
        "x".repeat(1000)
    );
    let chunk = format!("{:x}\r\n{begun}\r\n", begun.len());
    connection.write_all(format!("{head}{chunk}").as_bytes()).unwrap();
    connection
}

/// Stores a file whose length nobody knows before, so that memory for the largest is needed.
async fn store_chunked(app: &TestApp, sop_uid: &str) -> u16 {
    let body = orthanc_body(&[instance(sop_uid).file(7)]);
    let head = format!(
        "POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: {}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        app.port,
        orthanc_type()
    );
    let chunk = format!("{:x}\r\n", body.len());
    let request = [head.as_bytes(), chunk.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    let answer = app.raw(request).await;
    answer
        .split(' ')
        .nth(1)
        .unwrap_or_else(|| panic!("{answer}"))
        .parse()
        .unwrap()
}

/// How long a sender may be silent: what is given back later than this was given back for another reason.
const SOON: Duration = Duration::from_secs(6);

#[actix_web::test]
async fn a_sender_who_goes_away_leaves_its_place() {
    // One place for senders.
    let app = spawn_with(|settings| settings.in_flight_max = 4).await;
    let silent = half(&app);
    actix_web::rt::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) {
        assert!(began.elapsed() < SOON, "{statuses:?}");
        statuses.push(store_chunked(&app, &format!("1.2.7.{}", statuses.len())).await);
    }
    drop(silent);
    let began = Instant::now();
    while store_chunked(&app, "1.2.8").await == 429 {
        assert!(began.elapsed() < SOON, "the place was not given back");
        actix_web::rt::time::sleep(Duration::from_millis(100)).await;
    }
}

#[actix_web::test]
async fn senders_who_go_away_leave_their_memory() {
    let app = spawn_app().await;
    let silent: Vec<TcpStream> = (0..8).map(|_| half(&app)).collect();
    actix_web::rt::time::sleep(Duration::from_millis(500)).await;
    let waiting = store_chunked(&app, "1.2.9");
    futures_util::pin_mut!(waiting);
    let at_once = actix_web::rt::time::timeout(Duration::from_secs(2), &mut waiting).await;
    assert!(at_once.is_err(), "there is memory for eight");
    drop(silent);
    let stored = actix_web::rt::time::timeout(SOON, waiting).await;
    assert_eq!(stored.expect("their memory was not given back"), 200);
}
