//! Search by reference: an image comes from a PACS that is configured, whole and in time, and from nowhere else.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use medsearch::pacs::{Lookup, PacsList, SystemLookup, settings};
use serde_json::{Value, json};

use crate::files;
use crate::harness::{Part, TestApp, problem, spawn_with};

const PASSWORD: &str = "hunter2-of-the-pacs";
const STUDY: &str = "1.2.840.99.4711";
const SERIES: &str = "1.2.840.99.4712";
/// That of the files that the tests make.
const INSTANCE: &str = "1.2.3.4";
const UPLOAD_BYTES_MAX: usize = 1 << 20;

/// What a PACS does with a request, by the beginning of its target.
type Says = Arc<dyn Fn(&str, &mut TcpStream) -> io::Result<()> + Send + Sync>;

/// A PACS in this process, which keeps the heads of requests.
struct FakePacs {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl FakePacs {
    fn start(says: impl Fn(&str, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (kept, says): (_, Says) = (Arc::clone(&heads), Arc::new(says));
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (kept, says) = (Arc::clone(&kept), Arc::clone(&says));
                std::thread::spawn(move || serve(connection, &kept, &says));
            }
        });
        Self { port, heads }
    }

    /// One that answers every request with these bytes.
    fn answering(answer: Vec<u8>) -> Self {
        Self::start(move |_, connection| connection.write_all(&answer))
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    fn base(&self) -> String {
        format!("http://127.0.0.1:{}/dicom-web", self.port)
    }
}

fn serve(connection: TcpStream, kept: &Mutex<Vec<String>>, says: &Says) {
    let mut reader = BufReader::new(connection);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if !matches!(reader.read_line(&mut head), Ok(1..)) {
            return;
        }
    }
    kept.lock().unwrap().push(head.clone());
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let _ = says(&target, reader.get_mut());
}

fn response(status: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

const RELATED: &str = "multipart/related; type=\"application/dicom\"; boundary=0123-B";

fn related(file: &[u8]) -> Vec<u8> {
    let head = format!(
        "--0123-B\r\nContent-Type: application/dicom\r\nContent-Length: {}\r\n\r\n",
        file.len()
    );
    [head.as_bytes(), file, b"\r\n--0123-B--"].concat()
}

/// A server that may ask this PACS, as `main`.
async fn spawn(url: &str, more: &str, lookup: Arc<dyn Lookup>) -> TestApp {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("basic"), format!("medsearch:{PASSWORD}\n")).unwrap();
    let text = format!("[[pacs]]\nname = \"main\"\nurl = \"{url}\"\nbasic_file = \"basic\"\n{more}");
    let list = settings::parse(&text, folder.path()).unwrap();
    spawn_with(move |settings| {
        settings.upload_bytes_max = UPLOAD_BYTES_MAX;
        settings.pacs = PacsList::new(list.pacs, &lookup).unwrap();
    })
    .await
}

async fn spawn_for(pacs: &FakePacs) -> TestApp {
    spawn(&pacs.base(), "seconds_max = 2", Arc::new(SystemLookup)).await
}

fn ask(app: &TestApp, body: &Value) -> reqwest::RequestBuilder {
    app.request("POST", "/v1/search/by-reference").json(body)
}

fn the_instance() -> Value {
    json!({"pacs": "main", "study_uid": STUDY, "series_uid": SERIES, "instance_uid": INSTANCE, "k": 3})
}

async fn ok(request: reqwest::RequestBuilder) -> Value {
    let response = request.send().await.unwrap();
    let (status, text) = (response.status(), response.text().await.unwrap());
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}

async fn refused(app: &TestApp, body: &Value) -> (u16, String, String) {
    let (status, slug, problem) = problem(ask(app, body).send().await.unwrap()).await;
    for secret in [STUDY, SERIES, PASSWORD] {
        assert!(!problem.detail.contains(secret), "{}", problem.detail);
    }
    (status, slug, problem.detail)
}

/// Without what differs from one search to the next.
fn comparable(mut answer: Value) -> Value {
    answer["timings_ms"].take();
    answer["query"].as_object_mut().unwrap().remove("reference");
    answer
}

#[actix_web::test]
async fn a_search_by_reference_is_a_search_by_the_file() {
    let file = files::picture_dicom("4711", STUDY, 300);
    let whole = response("200 OK", RELATED, &related(&file));
    let plain = response(
        "200 OK",
        "application/dicom; transfer-syntax=1.2.840.10008.1.2.1",
        &file,
    );
    let pacs = FakePacs::start(move |target, connection| {
        connection.write_all(if target.starts_with("/plain/") { &plain } else { &whole })
    });
    let app = spawn_for(&pacs).await;
    // The patient's other image, which must be kept out of both answers by what the file says.
    let parts = [
        Part::Text("class", b"COVID"),
        Part::File("image", &files::picture_dicom("4711", "1.2.9", 301)),
    ];
    let added = ok(app.form("/v1/images", &parts)).await;
    let version = added["version"].clone();
    let text = version.to_string();
    let form = |exclude: &'static [u8]| {
        let parts = [
            Part::Text("k", b"30"),
            Part::Text("min_version", text.as_bytes()),
            Part::Text("exclude", exclude),
            Part::File("image", &file),
        ];
        app.form("/v1/search", &parts)
    };
    let has = |answer: &Value| {
        let neighbors = answer["neighbors"].as_array().unwrap();
        neighbors.iter().any(|neighbor| neighbor["id"] == added["id"])
    };
    for (exclude, kept_out) in [("patient,study,pixels", true), ("none", false)] {
        let mut body = the_instance();
        (body["k"], body["min_version"], body["exclude"]) = (json!(30), version.clone(), json!(exclude));
        let (by_file, by_reference) = (ok(form(exclude.as_bytes())).await, ok(ask(&app, &body)).await);
        assert_eq!(has(&by_file), !kept_out);
        let reference = &by_reference["query"]["reference"];
        assert_eq!(
            (&reference["pacs"], &reference["chosen"]),
            (&json!("main"), &Value::Null)
        );
        assert!(reference["pull_ms"].as_f64().unwrap() > 0.0);
        assert_eq!(comparable(by_reference), comparable(by_file));
    }
    let head = pacs.heads().pop().unwrap();
    let path = format!("GET /dicom-web/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE} HTTP/1.1\r\n");
    assert!(head.starts_with(&path), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(
        head.contains("accept: multipart/related; type=\"application/dicom\"; transfer-syntax=*"),
        "{head}"
    );
    assert!(head.contains("authorization: basic "), "{head}");

    // The same by a RetrieveURL, with a region and the picture; and from a PACS that sends the file alone.
    let url = format!("{}/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}", pacs.base());
    let mut body = json!({"retrieve_url": url, "region": "0,0,0.5,0.5", "preview": true});
    let answer = ok(ask(&app, &body)).await;
    assert_eq!(answer["query"]["region"], json!([0.0, 0.0, 0.5, 0.5]));
    assert!(answer["query"]["preview"].is_string());
    body["pacs"] = json!("main");
    body["study_uid"] = json!(STUDY);
    ok(ask(&app, &body)).await;
    let app = spawn(
        &format!("http://127.0.0.1:{}/plain/", pacs.port),
        "",
        Arc::new(SystemLookup),
    )
    .await;
    ok(ask(&app, &the_instance())).await;

    let metrics = app.get("/metrics").await.text().await.unwrap();
    assert!(
        metrics.contains("medsearch_pacs_pulls_total{outcome=\"pulled\",pacs=\"main\"} 1"),
        "{metrics}"
    );
    assert!(!metrics.contains(STUDY) && !metrics.contains(SERIES));
}

#[actix_web::test]
async fn of_a_study_the_middle_image_is_taken_and_said() {
    let file = files::picture_dicom("4711", STUDY, 300);
    let series = |uid: &str, number: u32, modality: &str| json!({"0020000E": {"vr": "UI", "Value": [uid]}, "00200011": {"vr": "IS", "Value": [number]}, "00080060": {"vr": "CS", "Value": [modality]}});
    let instance = |uid: &str, number: u32| {
        json!({
            "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]}, "00080018": {"vr": "UI", "Value": [uid]},
            "00200013": {"vr": "IS", "Value": [number]}, "0020000E": {"vr": "UI", "Value": [SERIES]},
        })
    };
    let all_series = json!([
        series("1.8", 9, "CT"),
        series("1.1", 1, "SR"),
        series("1.3", 2, "MR"),
        series(SERIES, 3, "CT")
    ]);
    let instances = json!([instance("1.2.3.9", 9), instance(INSTANCE, 4), instance("1.2.3.1", 1)]);
    let mut one = instances.clone();
    one.as_array_mut().unwrap().swap(0, 1);
    let (all_series, instances, one) = (all_series.to_string(), instances.to_string(), one.to_string());
    let pacs = FakePacs::start(move |target, connection| {
        let list = |body: &str| response("200 OK", "application/dicom+json", body.as_bytes());
        let path = target.split('?').next().unwrap();
        let answer = match path.strip_prefix(&format!("/dicom-web/studies/{STUDY}")) {
            Some("/series") => list(&all_series),
            // A series that turns out to have none.
            Some("/series/1.3/instances") => b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n".to_vec(),
            Some(path) if path == format!("/series/{SERIES}/instances") => list(&instances),
            Some(path) if path == format!("/series/{SERIES}/instances/{INSTANCE}") => {
                response("200 OK", RELATED, &related(&file))
            }
            Some("/instances") if target.contains(&format!("00080018={INSTANCE}")) => list(&one),
            Some("/instances") => list("[]"),
            _ => response("404 Not Found", "text/plain", b""),
        };
        connection.write_all(&answer)
    });
    let app = spawn_for(&pacs).await;
    let of_study = ok(ask(&app, &json!({"pacs": "main", "study_uid": STUDY}))).await;
    let chosen = json!({"series_number": 3, "instance_number": 4, "position": 2, "images": 3});
    assert_eq!(of_study["query"]["reference"]["chosen"], chosen);
    let of_series = ok(ask(
        &app,
        &json!({"pacs": "main", "study_uid": STUDY, "series_uid": SERIES}),
    ))
    .await;
    let chosen = json!({"series_number": null, "instance_number": 4, "position": 2, "images": 3});
    assert_eq!(of_series["query"]["reference"]["chosen"], chosen);
    let named = ok(ask(
        &app,
        &json!({"pacs": "main", "study_uid": STUDY, "instance_uid": INSTANCE}),
    ))
    .await;
    assert_eq!(named["query"]["reference"]["chosen"], Value::Null);
    assert_eq!(comparable(named), comparable(of_study));

    for body in [
        json!({"pacs": "main", "study_uid": "1.2.3"}),
        json!({"pacs": "main", "study_uid": STUDY, "series_uid": "1.3"}),
        json!({"pacs": "main", "study_uid": STUDY, "series_uid": "1.2.3"}),
        json!({"pacs": "main", "study_uid": STUDY, "instance_uid": "1.2.3.5"}),
        json!({"pacs": "main", "study_uid": STUDY, "series_uid": SERIES, "instance_uid": "1.2.3.5"}),
    ] {
        let (status, slug, _) = refused(&app, &body).await;
        assert_eq!((status, slug.as_str()), (404, "not-found"), "{body}");
    }
}

#[actix_web::test]
async fn what_is_not_configured_is_never_asked() {
    let pacs = FakePacs::answering(response("200 OK", RELATED, b""));
    let elsewhere = FakePacs::answering(response("200 OK", RELATED, b""));
    let app = spawn_for(&pacs).await;
    let other = format!("{}/studies/{STUDY}", elsewhere.base());
    let here = |path: &str| format!("{}{path}", pacs.base());
    let with_password = format!("http://a:b@127.0.0.1:{}/dicom-web/studies/{STUDY}", pacs.port);
    let rows = [
        (json!({"pacs": "other", "study_uid": STUDY}), 404, "unknown-pacs"),
        (json!({"pacs": pacs.base(), "study_uid": STUDY}), 404, "unknown-pacs"),
        (json!({"retrieve_url": other}), 404, "unknown-pacs"),
        (json!({"pacs": "main", "retrieve_url": other}), 404, "unknown-pacs"),
        (
            json!({"retrieve_url": "http://169.254.169.254/latest/meta-data/"}),
            404,
            "unknown-pacs",
        ),
        (
            json!({"retrieve_url": here("/../admin/studies/1")}),
            404,
            "unknown-pacs",
        ),
        (json!({"retrieve_url": here("/instances")}), 400, "invalid-request"),
        (json!({"retrieve_url": here("/studies/1?x=1")}), 400, "invalid-request"),
        (json!({"retrieve_url": with_password}), 400, "invalid-request"),
        (json!({"retrieve_url": "file:///etc/passwd"}), 400, "invalid-request"),
        (
            json!({"retrieve_url": here("/studies/1"), "study_uid": "2"}),
            400,
            "invalid-request",
        ),
        (
            json!({"retrieve_url": here("/studies/1"), "pacs": "other"}),
            400,
            "invalid-request",
        ),
        (
            json!({"pacs": "main", "study_uid": "1/../../admin"}),
            400,
            "invalid-request",
        ),
        (
            json!({"pacs": "main", "study_uid": "1", "instance_uid": "%2e%2e"}),
            400,
            "invalid-request",
        ),
        (
            json!({"pacs": "main", "study_uid": STUDY, "k": 0}),
            400,
            "invalid-request",
        ),
        (
            json!({"pacs": "main", "study_uid": STUDY, "host": "x"}),
            400,
            "invalid-request",
        ),
        (json!({}), 400, "invalid-request"),
    ];
    for (body, status, slug) in rows {
        let (found_status, found_slug, detail) = refused(&app, &body).await;
        assert_eq!((found_status, found_slug.as_str()), (status, slug), "{body} {detail}");
    }
    assert!(pacs.heads().is_empty() && elsewhere.heads().is_empty());
    let without = crate::harness::spawn_app().await;
    assert_eq!(refused(&without, &the_instance()).await.1, "unknown-pacs");
}

#[actix_web::test]
async fn a_redirect_is_not_followed_and_takes_no_credential_along() {
    let elsewhere = FakePacs::answering(response(
        "200 OK",
        RELATED,
        &related(&files::picture_dicom("1", "1", 300)),
    ));
    for status in [
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let location = format!(
            "HTTP/1.1 {status}\r\nLocation: {}/studies/1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            elsewhere.base()
        );
        let pacs = FakePacs::answering(location.into_bytes());
        let app = spawn_for(&pacs).await;
        let (code, slug, detail) = refused(&app, &the_instance()).await;
        assert_eq!((code, slug.as_str()), (502, "pacs-failed"));
        assert!(detail.contains("redirects"), "{detail}");
        assert_eq!(pacs.heads().len(), 1);
    }
    assert!(elsewhere.heads().is_empty());
}

/// A name that stands for this machine first, and for another one from the second time on.
struct Rebinding {
    answers: Vec<&'static str>,
    asked: AtomicUsize,
}

impl Lookup for Rebinding {
    fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let at = self.asked.fetch_add(1, Ordering::SeqCst).min(self.answers.len() - 1);
        let address = self.answers[at].parse().unwrap();
        Box::pin(async move { Ok(vec![address]) })
    }
}

#[actix_web::test]
async fn a_name_that_changes_its_address_leads_nowhere() {
    let file = response("200 OK", RELATED, &related(&files::picture_dicom("1", "1", 300)));
    let pacs = FakePacs::answering(file);
    let url = format!("http://pacs.example:{}/dicom-web", pacs.port);
    for (allowed, second) in [
        ("127.0.0.1", "169.254.169.254"),
        ("127.0.0.0/30", "127.0.0.4"),
        ("127.0.0.1", "10.0.0.1"),
    ] {
        let lookup = Arc::new(Rebinding {
            answers: vec!["127.0.0.1", second],
            asked: AtomicUsize::new(0),
        });
        let app = spawn(
            &url,
            &format!("addresses = [\"{allowed}\"]"),
            Arc::clone(&lookup) as Arc<dyn Lookup>,
        )
        .await;
        // The name is looked up once for a connection, and the connection goes to what was looked at.
        ok(ask(&app, &the_instance())).await;
        assert_eq!(lookup.asked.load(Ordering::SeqCst), 1);
        let before = pacs.heads().len();
        let (status, slug, detail) = refused(&app, &the_instance()).await;
        assert_eq!((status, slug.as_str()), (502, "pacs-failed"), "{detail}");
        assert!(detail.contains("which is not allowed"), "{detail}");
        assert_eq!(pacs.heads().len(), before);
    }
    // A name that is not said to be this machine's may not stand for it.
    for address in ["127.0.0.1", "169.254.169.254", "0.0.0.0"] {
        let lookup = Arc::new(Rebinding {
            answers: vec![address],
            asked: AtomicUsize::new(0),
        });
        let app = spawn(&url, "", lookup).await;
        assert!(refused(&app, &the_instance()).await.2.contains("which is not allowed"));
    }
}

#[actix_web::test]
async fn answers_without_an_end_are_cut() {
    let forever = |head: &'static str, chunk: &'static [u8], pause: Duration| {
        FakePacs::start(move |_, connection| {
            connection.write_all(head.as_bytes())?;
            loop {
                connection.write_all(chunk)?;
                std::thread::sleep(pause);
            }
        })
    };
    const ENDLESS: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/dicom\r\nConnection: close\r\n\r\n";
    let rows = [
        (forever(ENDLESS, &[0; 65536], Duration::ZERO), 413, "too-large"),
        (
            FakePacs::answering(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom\r\nContent-Length: 99999999999\r\n\r\n".to_vec(),
            ),
            413,
            "too-large",
        ),
        // A byte now and then, and a head that never ends.
        (forever(ENDLESS, b"x", Duration::from_millis(100)), 504, "deadline"),
        (
            forever("HTTP/1.1 200 OK\r\n", b"X: y\r\n", Duration::from_millis(100)),
            504,
            "deadline",
        ),
        (
            FakePacs::start(|_, _| {
                std::thread::sleep(Duration::from_secs(10));
                Ok(())
            }),
            504,
            "deadline",
        ),
    ];
    for (pacs, status, slug) in rows {
        let app = spawn_for(&pacs).await;
        let started = Instant::now();
        let (found_status, found_slug, detail) = refused(&app, &the_instance()).await;
        assert_eq!((found_status, found_slug.as_str()), (status, slug), "{detail}");
        assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    }
}

#[actix_web::test]
async fn an_answer_that_is_no_such_file_is_a_fault_of_the_pacs() {
    let file = files::picture_dicom("1", "1", 300);
    let broken = |body: Vec<u8>| response("200 OK", RELATED, &body);
    let mut other = file.clone();
    let uid = other.windows(7).position(|bytes| bytes == b"1.2.3.4").unwrap();
    other[uid + 6] = b'5';
    let rows = [
        (response("200 OK", "text/html", b"<html>log in</html>"), 502, "pacs-failed"),
        (response("200 OK", "application/dicom+json", b"[]"), 502, "pacs-failed"),
        (broken(related(&file)[..500].to_vec()), 502, "pacs-failed"),
        (broken(b"no boundary".to_vec()), 502, "pacs-failed"),
        (broken(related(&other)), 502, "pacs-failed"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom\r\nContent-Length: 1000\r\n\r\nshort".to_vec(), 502, "pacs-failed"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx".to_vec(), 502, "pacs-failed"),
        (b"SSH-2.0-OpenSSH\r\n".to_vec(), 502, "pacs-failed"),
        (Vec::new(), 502, "pacs-failed"),
        (response("401 Unauthorized", "text/plain", b""), 502, "pacs-failed"),
        (response("500 Internal Server Error", "text/plain", b""), 502, "pacs-failed"),
        (response("503 Service Unavailable", "text/plain", b""), 503, "unavailable"),
        (response("204 No Content", "text/plain", b""), 404, "not-found"),
        (response("404 Not Found", "text/plain", b""), 404, "not-found"),
        // A file of the PACS that is no picture is told as one that was uploaded would be.
        (broken(related(&files::dicom(files::EXPLICIT, &[]))), 422, "invalid-image"),
    ];
    for (at, (answer, status, slug)) in rows.into_iter().enumerate() {
        let app = spawn_for(&FakePacs::answering(answer)).await;
        let (found_status, found_slug, detail) = refused(&app, &the_instance()).await;
        assert_eq!(
            (found_status, found_slug.as_str()),
            (status, slug),
            "row {at}: {detail}"
        );
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let app = spawn(&format!("http://{nobody}/"), "", Arc::new(SystemLookup)).await;
    let (status, slug, detail) = refused(&app, &the_instance()).await;
    assert_eq!((status, slug.as_str()), (502, "pacs-failed"));
    assert!(detail.contains("can't be reached"), "{detail}");
}
