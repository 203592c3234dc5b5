//! DICOMweb reads: what a client finds and gets, in archives that keep the originals and in those that don't, with and without the scope for them.

use std::io::{Read, Write};
use std::net::TcpStream;

use medsearch::archive::{Archive, IdentityMode, NewArchive, NewModel, Retention};
use medsearch::embed::load_backend;
use medsearch::http::{Credentials, HttpSettings, Rate, Scope};
use medsearch::pacs::BaseUrl;
use reqwest::Response;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::archive::secret;
use crate::cluster::eventually;
use crate::files::{EXPLICIT, dicom, element, even};
use crate::harness::{KEY, Part, TestApp, new_key, problem, spawn_over};

const JSON: &str = "application/dicom+json";
const COLUMNS: u16 = 24;
const ROWS: u16 = 16;

/// A file of study, series and instance, of signed values of 16 bits.
fn file(study: &str, series: &str, instance: &str, patient: &str, more: &[(u16, u16, &[u8; 2], &str)]) -> Vec<u8> {
    let mut elements = vec![
        (0x0008, 0x0016, *b"UI", even("1.2.840.10008.5.1.4.1.1.2")),
        (0x0008, 0x0018, *b"UI", even(instance)),
        (0x0008, 0x0060, *b"CS", even("CT")),
        (0x0010, 0x0010, *b"PN", even("Mueller^Hans")),
        (0x0010, 0x0020, *b"LO", even(patient)),
        (0x0010, 0x0021, *b"LO", even("HOSPITAL")),
        (0x0010, 0x0040, *b"CS", even("M")),
        (0x0010, 0x1010, *b"AS", even("093Y")),
        (0x0018, 0x0015, *b"CS", even("CHEST")),
        (0x0020, 0x000d, *b"UI", even(study)),
        (0x0020, 0x000e, *b"UI", even(series)),
        (0x0028, 0x0002, *b"US", 1_u16.to_le_bytes().to_vec()),
        (0x0028, 0x0004, *b"CS", even("MONOCHROME2")),
        (0x0028, 0x0010, *b"US", ROWS.to_le_bytes().to_vec()),
        (0x0028, 0x0011, *b"US", COLUMNS.to_le_bytes().to_vec()),
        (0x0028, 0x0100, *b"US", 16_u16.to_le_bytes().to_vec()),
        (0x0028, 0x0101, *b"US", 16_u16.to_le_bytes().to_vec()),
        (0x0028, 0x0102, *b"US", 15_u16.to_le_bytes().to_vec()),
        (0x0028, 0x0103, *b"US", 1_u16.to_le_bytes().to_vec()),
    ];
    for (group, number, vr, text) in more {
        elements.retain(|(g, n, ..)| (g, n) != (group, number));
        elements.push((*group, *number, **vr, even(text)));
    }
    elements.sort_by_key(|(group, number, ..)| (*group, *number));
    let mut set: Vec<u8> = elements
        .iter()
        .flat_map(|(group, number, vr, value)| element(*group, *number, vr, value))
        .collect();
    let pixels = samples(instance);
    set.extend([0xe0, 0x7f, 0x10, 0, b'O', b'W', 0, 0]);
    set.extend((pixels.len() as u32).to_le_bytes());
    set.extend(pixels);
    dicom(EXPLICIT, &set)
}

/// Stored values of an instance: no two are alike, some are below zero.
fn samples(instance: &str) -> Vec<u8> {
    let seed = instance
        .bytes()
        .fold(0, |seed, byte| (seed * 31 + i32::from(byte)) % 997);
    let value = |at: i32| ((at * (seed + 3)) % 1500 - 700) as i16;
    (0..i32::from(COLUMNS) * i32::from(ROWS))
        .flat_map(|at| value(at).to_le_bytes())
        .collect()
}

async fn empty(identity: IdentityMode, retention: Retention) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let backend = load_backend(None, "cpu").unwrap();
    let card = backend.card();
    let new = NewArchive {
        name: "dicom".into(),
        demo: false,
        synthetic: false,
        licence: None,
        identity,
        retention,
        scope: Default::default(),
        shown: Default::default(),
        space: card.space(),
        precisions: vec!["f32".into()],
        shards: 1,
        model: Some(NewModel {
            card: serde_json::to_value(card).unwrap(),
            torchscript: None,
        }),
    };
    let url = folder.path().join("archive").display().to_string();
    Archive::create(&url, new, secret()).await.unwrap();
    folder
}

/// A server over two studies of one patient, the first of two series, and one of another patient.
struct Hospital {
    app: TestApp,
    search: String,
    link: String,
    _keys: TempDir,
}

const FILES: [[&str; 4]; 5] = [
    ["1.2.1", "1.2.1.1", "1.2.1.1.1", "4711"],
    ["1.2.1", "1.2.1.1", "1.2.1.1.2", "4711"],
    ["1.2.1", "1.2.1.2", "1.2.1.2.1", "4711"],
    ["1.2.2", "1.2.2.1", "1.2.2.1.1", "4711"],
    ["1.2.3", "1.2.3.1", "1.2.3.1.1", "0815"],
];

impl Hospital {
    async fn open(identity: IdentityMode, retention: Retention) -> Self {
        Self::with(identity, retention, |_| {}).await
    }

    async fn with(identity: IdentityMode, retention: Retention, change: impl FnOnce(&mut HttpSettings)) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let file = keys.path().join("keys.json");
        let search = new_key(&file, "viewer", &[Scope::Search]);
        let link = new_key(&file, "doctor", &[Scope::Search, Scope::Link]);
        let app = spawn_over(empty(identity, retention).await, |settings| {
            settings.credentials = Credentials::open(Some(KEY), Some(&file)).unwrap();
            settings.loopback = false;
            change(settings);
        });
        let hospital = Self {
            app: app.await,
            search,
            link,
            _keys: keys,
        };
        for [study, series, instance, patient] in FILES {
            hospital.keep(&self::file(study, series, instance, patient, &[])).await;
        }
        hospital
    }

    async fn add(&self, body: &[u8]) -> Response {
        let form = self.app.form("/v1/images", &[Part::File("image", body)]);
        form.header("x-api-key", KEY).send().await.unwrap()
    }

    /// Adds a file that is new, and waits until its version is served.
    async fn keep(&self, body: &[u8]) -> Value {
        kept(&self.app, self.add(body).await).await
    }

    async fn get(&self, key: &str, path: &str) -> Response {
        let request = self.app.request("GET", &format!("/dicom-web{path}"));
        request.header("x-api-key", key).send().await.unwrap()
    }

    async fn json(&self, key: &str, path: &str) -> Vec<Value> {
        let response = self.get(key, path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], JSON);
        assert_eq!(response.headers()["cache-control"], "private, no-store");
        response.json().await.unwrap()
    }
}

/// What an image that is new was answered, once its version is served.
async fn kept(app: &TestApp, added: Response) -> Value {
    assert_eq!(added.status(), 201);
    let added: Value = added.json().await.unwrap();
    let search = json!({"ids": [added["id"]], "min_version": added["version"]});
    let search = app
        .request("POST", "/v1/search/by-id")
        .header("x-api-key", KEY)
        .json(&search);
    assert_eq!(search.send().await.unwrap().status(), 200);
    added
}

fn value<'a>(set: &'a Value, tag: &str) -> &'a Value {
    &set[tag]["Value"][0]
}

fn text<'a>(set: &'a Value, tag: &str) -> &'a str {
    value(set, tag).as_str().unwrap_or_default()
}

#[actix_web::test]
async fn a_viewer_goes_from_studies_to_pixels_by_pseudonyms() {
    for identity in [IdentityMode::Anonymous, IdentityMode::Linked] {
        let hospital = Hospital::open(identity, Retention::View).await;
        let key = &hospital.search;
        let studies = hospital.json(key, "/studies").await;
        assert_eq!(studies.len(), 3);
        let mut instances = 0;
        for study in &studies {
            let study_uid = text(study, "0020000D");
            assert!(study_uid.starts_with("2.25.") && text(study, "00100020").starts_with("p_"));
            assert_eq!(value(study, "00081190"), &Value::Null);
            let series = hospital.json(key, &format!("/studies/{study_uid}/series")).await;
            assert_eq!(json!(series.len()), *value(study, "00201206"));
            let mut of_study = 0;
            for one in &series {
                let series_uid = text(one, "0020000E");
                assert_eq!((text(one, "0020000D"), text(one, "00080060")), (study_uid, "CT"));
                let path = format!("/studies/{study_uid}/series/{series_uid}");
                let found = hospital.json(key, &format!("{path}/instances")).await;
                assert_eq!(json!(found.len()), *value(one, "00201209"));
                of_study += found.len();
                for instance in &found {
                    check_instance(
                        &hospital,
                        key,
                        &format!("{path}/instances/{}", text(instance, "00080018")),
                    )
                    .await;
                }
                let thumbnail = hospital.get(key, &format!("{path}/thumbnail")).await;
                assert_eq!(
                    (thumbnail.status().as_u16(), &thumbnail.headers()["content-type"]),
                    (200, &"image/png".parse().unwrap())
                );
            }
            assert_eq!(json!(of_study), *value(study, "00201208"));
            assert_eq!(
                hospital
                    .json(key, &format!("/studies/{study_uid}/metadata"))
                    .await
                    .len(),
                of_study
            );
            assert_eq!(
                hospital
                    .json(key, &format!("/studies/{study_uid}/instances"))
                    .await
                    .len(),
                of_study
            );
            let whole = hospital
                .get(key, &format!("/studies/{study_uid}"))
                .await
                .bytes()
                .await
                .unwrap();
            assert_eq!(parts(&whole).len(), of_study);
            instances += of_study;
        }
        assert_eq!(instances, FILES.len());
        // Nothing anywhere says what they were called.
        let all: String = [
            hospital.get(key, "/instances").await.text().await.unwrap(),
            hospital.get(key, "/series").await.text().await.unwrap(),
        ]
        .concat();
        for original in ["4711", "0815", "HOSPITAL", "1.2.1", "1.2.3", "Mueller"] {
            assert!(!all.contains(&format!("\"{original}")), "{original}");
        }
    }
}

/// What the parts of an answer are said to be, and its body.
async fn related(answer: Response, status: u16) -> (String, Vec<u8>) {
    assert_eq!(answer.status(), status);
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(answer.headers()["cache-control"], "private, no-store");
    let parts = kind.strip_prefix("multipart/related; type=\"").unwrap().to_owned();
    let parts = parts.split('"').next().unwrap().to_owned();
    (parts, answer.bytes().await.unwrap().to_vec())
}

#[actix_web::test]
async fn a_study_and_a_series_are_shown_picture_by_picture() {
    let hospital = Hospital::open(IdentityMode::Linked, Retention::View).await;
    let key = &hospital.search;
    for (path, pictures) in [("/studies/1.2.1", 3), ("/studies/1.2.1/series/1.2.1.1", 2)] {
        let (kind, body) = related(hospital.get(key, &format!("{path}/rendered?viewport=12,12")).await, 200).await;
        let shown = parts(&body);
        assert_eq!((kind.as_str(), shown.len()), ("image/png", pictures));
        for picture in &shown {
            assert!(picture.starts_with(b"\x89PNG") && picture[16..24] == [0, 0, 0, 12, 0, 0, 0, 8]);
        }
        assert!(
            shown
                .iter()
                .all(|picture| shown.iter().filter(|other| *other == picture).count() == 1)
        );
        let jpeg = hospital.app.request("GET", &format!("/dicom-web{path}/rendered"));
        let jpeg = jpeg
            .header("accept", r#"multipart/related; type="image/jpeg""#)
            .header("x-api-key", key);
        let (kind, body) = related(jpeg.send().await.unwrap(), 200).await;
        assert_eq!(kind, "image/jpeg");
        assert!(parts(&body).iter().all(|picture| picture.starts_with(b"\xff\xd8")));
    }
}

#[actix_web::test]
async fn a_match_says_where_it_can_be_retrieved_and_that_can_be_followed() {
    const BASE: &str = "https://search.example/wards/dicom-web";
    let app = spawn_over(empty(IdentityMode::Linked, Retention::View).await, |settings| {
        settings.dicom_web_url = Some(BaseUrl::parse(BASE).unwrap());
    });
    let app = app.await;
    let body = file("1.2.1", "1.2.1.1", "1.2.1.1.1", "4711", &[]);
    let form = app.form("/v1/images", &[Part::File("image", &body)]);
    kept(&app, form.send().await.unwrap()).await;
    for (level, path) in [
        ("studies", "/studies/1.2.1"),
        ("series", "/studies/1.2.1/series/1.2.1.1"),
        ("instances", "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"),
    ] {
        let request = app.request("GET", &format!("/dicom-web/{level}"));
        let found: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(
            found[0]["00081190"],
            json!({"vr": "UR", "Value": [format!("{BASE}{path}")]})
        );
        assert_eq!(app.get(&format!("/dicom-web{path}/rendered")).await.status(), 200);
    }
}

async fn check_instance(hospital: &Hospital, key: &str, path: &str) {
    let metadata = hospital.json(key, &format!("{path}/metadata")).await.swap_remove(0);
    for (tag, expected) in [
        ("00280010", json!(ROWS)),
        ("00280011", json!(COLUMNS)),
        ("00280100", json!(16)),
        ("00280103", json!(1)),
        ("00280004", json!("MONOCHROME2")),
        ("00101010", json!("090Y")),
        ("00100040", json!("M")),
        ("00180015", json!("CHEST")),
        ("00120062", json!("YES")),
    ] {
        assert_eq!(*value(&metadata, tag), expected, "{tag}");
    }
    let frame = hospital.get(key, &format!("{path}/frames/1")).await;
    let kind = frame.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(
        kind.starts_with("multipart/related; type=\"application/octet-stream\"; boundary="),
        "{kind}"
    );
    let body = frame.bytes().await.unwrap();
    let frames = parts(&body);
    assert_eq!(frames.len(), 1);
    let known = FILES.iter().find(|file| samples(file[2]) == frames[0]);
    assert!(known.is_some(), "the stored values, to the bit");
    let body = hospital.get(key, path).await.bytes().await.unwrap();
    let files = parts(&body);
    assert!(files.len() == 1 && files[0][128..].starts_with(b"DICM") && files[0].ends_with(frames[0]));
    for (query, media) in [
        ("", "image/png"),
        ("?window=0,200,linear&viewport=12,12", "image/png"),
        ("?accept=image/jpeg&quality=80", "image/jpeg"),
    ] {
        let rendered = hospital.get(key, &format!("{path}/rendered{query}")).await;
        assert_eq!(
            (rendered.status().as_u16(), &rendered.headers()["content-type"]),
            (200, &media.parse().unwrap())
        );
        let picture = rendered.bytes().await.unwrap();
        if query.contains("viewport") {
            assert_eq!(
                (&picture[16..20], &picture[20..24]),
                (&[0, 0, 0, 12][..], &[0, 0, 0, 8][..])
            );
        }
    }
    assert_eq!(
        hospital.get(key, &format!("{path}/frames/1/rendered")).await.status(),
        200
    );
    let small = hospital.get(key, &format!("{path}/frames/1/thumbnail")).await;
    assert_eq!(
        (small.status().as_u16(), &small.headers()["content-type"]),
        (200, &"image/png".parse().unwrap())
    );
    // The same frame twice is two parts.
    let twice = hospital
        .get(key, &format!("{path}/frames/1,1/rendered?accept=image/jpeg"))
        .await;
    let (kind, body) = related(twice, 200).await;
    assert_eq!((kind.as_str(), parts(&body).len()), ("image/jpeg", 2));
    for (suffix, status) in [
        ("/frames/2/thumbnail", 404),
        ("/frames/1,1/thumbnail", 400),
        ("/frames/1,2/rendered", 404),
        ("/frames/2", 404),
        ("/frames/0", 400),
        ("/frames/1,x", 400),
        ("/rendered?window=1,0,linear", 400),
    ] {
        assert_eq!(
            hospital.get(key, &format!("{path}{suffix}")).await.status(),
            status,
            "{suffix}"
        );
    }
}

/// The contents of a `multipart/related` body.
fn parts(body: &[u8]) -> Vec<&[u8]> {
    let find = |from: usize, what: &[u8]| {
        body[from..]
            .windows(what.len())
            .position(|part| part == what)
            .map(|at| from + at)
    };
    let end = find(0, b"\r\n").unwrap();
    let (boundary, delimiter) = (&body[..end], [b"\r\n", &body[..end]].concat());
    let mut parts = Vec::new();
    let mut at = boundary.len();
    while let Some(start) = find(at, b"\r\n\r\n") {
        let end = find(start, &delimiter).expect("a part ends with the boundary");
        parts.push(&body[start + 4..end]);
        at = end + delimiter.len();
    }
    assert!(body.ends_with(b"--\r\n"));
    parts
}

#[actix_web::test]
async fn the_originals_are_found_by_everyone_and_shown_to_those_who_may_see_them() {
    for identity in [IdentityMode::Anonymous, IdentityMode::Linked] {
        let hospital = Hospital::open(identity, Retention::View).await;
        let shows = identity == IdentityMode::Linked;
        for (key, sees) in [
            (&hospital.search, false),
            (&hospital.link, shows),
            (&KEY.to_owned(), shows),
        ] {
            let found = hospital
                .json(key, "/studies?PatientID=4711&IssuerOfPatientID=HOSPITAL")
                .await;
            assert_eq!(found.len(), 2);
            // Whoever asked by the id knows it, and nothing about the study.
            assert!(
                found
                    .iter()
                    .all(|study| text(study, "00100020") == "4711" && text(study, "00100021") == "HOSPITAL")
            );
            assert_eq!(found.iter().any(|study| text(study, "0020000D") == "1.2.1"), sees);
            assert_eq!(hospital.json(key, "/studies?00100020=4711").await.len(), 2);
            assert!(
                hospital
                    .json(key, "/studies?PatientID=4711&IssuerOfPatientID=OTHER")
                    .await
                    .is_empty()
            );
            assert!(hospital.json(key, "/studies?PatientID=47*").await.is_empty());

            let found = hospital.json(key, "/studies?StudyInstanceUID=1.2.3").await;
            assert_eq!((found.len(), text(&found[0], "0020000D")), (1, "1.2.3"));
            assert_eq!(text(&found[0], "00100020") == "0815", sees);
            let found = hospital.json(key, "/studies/1.2.1/series/1.2.1.1/instances").await;
            assert_eq!(found.len(), 2);
            assert!(
                found
                    .iter()
                    .all(|one| text(one, "0020000D") == "1.2.1" && text(one, "0020000E") == "1.2.1.1")
            );
            assert_eq!(found.iter().any(|one| text(one, "00080018") == "1.2.1.1.1"), sees);
            let path = "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1";
            let metadata = hospital.json(key, &format!("{path}/metadata")).await;
            assert_eq!((metadata.len(), text(&metadata[0], "00080018")), (1, "1.2.1.1.1"));
            // Also where only the names that the request had are repeated: whoever gets the file could hand it on.
            assert_eq!(text(&metadata[0], "00120062"), "NO");
            let body = hospital
                .get(key, &format!("{path}/frames/1"))
                .await
                .bytes()
                .await
                .unwrap();
            assert_eq!(parts(&body), [samples("1.2.1.1.1")]);
            let pseudonym = hospital.json(&hospital.search, "/studies?StudyInstanceUID=1.2.3").await;
            let patient = text(&pseudonym[0], "00100020");
            assert_eq!(
                hospital.json(key, &format!("/series?PatientID={patient}")).await.len(),
                1
            );
        }
        // By the image's own name too.
        let again = hospital.add(&file("1.2.3", "1.2.3.1", "1.2.3.1.1", "0815", &[])).await;
        let id = again.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
        for (key, sees) in [(&hospital.search, false), (&hospital.link, shows)] {
            let request = hospital.app.request("GET", &format!("/v1/images/{id}"));
            let shown: Value = request
                .header("x-api-key", key)
                .send()
                .await
                .unwrap()
                .json()
                .await
                .unwrap();
            let expected = json!({"patient_id": "0815", "issuer": "HOSPITAL", "study_uid": "1.2.3", "series_uid": "1.2.3.1",
                "sop_uid": "1.2.3.1.1"});
            assert_eq!(shown["link"], if sees { expected } else { Value::Null });
        }
    }
}

#[actix_web::test]
async fn searches_say_what_they_did_not_do() {
    let hospital = Hospital::open(IdentityMode::Anonymous, Retention::View).await;
    let key = &hospital.search;
    let warnings = async |path: &str| -> Vec<String> {
        let response = hospital.get(key, path).await;
        assert_eq!(response.status(), 200, "{path}");
        let all = response.headers().get_all("warning").iter();
        all.map(|warning| warning.to_str().unwrap().to_owned()).collect()
    };
    assert!(
        warnings("/studies?includefield=all&PatientName=*&limit=10")
            .await
            .is_empty()
    );
    let said = warnings("/studies?StudyDate=20200101-&fuzzymatching=true").await;
    assert_eq!(said.len(), 2);
    assert!(said.iter().all(|text| text.starts_with("299 medsearch \"")) && said[1].contains("StudyDate"));
    assert!(warnings("/instances?limit=2").await[0].contains("exceeded"));

    // Pages follow each other without a gap.
    let mut found = Vec::new();
    for offset in 0..4 {
        let page = hospital
            .json(key, &format!("/instances?limit=2&offset={}", offset * 2))
            .await;
        assert_eq!(page.len(), [2, 2, 1, 0][offset]);
        found.extend(page.iter().map(|one| text(one, "00080018").to_owned()));
    }
    let all = hospital.json(key, "/instances").await;
    assert!(
        all.iter()
            .map(|one| text(one, "00080018"))
            .eq(found.iter().map(String::as_str))
    );
    for (query, count) in [
        ("Modality=CT", 5),
        ("00080060=MR,C?", 5),
        ("Modality=DX", 0),
        ("BodyPartExamined=CHEST&PatientSex=M", 5),
        ("PatientSex=F", 0),
        ("ModalitiesInStudy=CT", 5),
        ("SeriesInstanceUID=1.2.1.1", 2),
        ("SOPInstanceUID=1.2.1.1.1,1.2.3.1.1", 2),
        ("StudyInstanceUID=1.2.2&PatientID=0815", 0),
        ("limit=0", 0),
    ] {
        assert_eq!(
            hospital.json(key, &format!("/instances?{query}")).await.len(),
            count,
            "{query}"
        );
    }
    for (path, status) in [
        ("/studies?limit=x", 400),
        ("/studies/1.9/metadata", 404),
        ("/studies/1.2.1/series/1.2.2.1/metadata", 404),
        ("/studies/1.2.1/series/1.2.1.1/instances/1.2.1.2.1", 404),
        ("/studies/1.9/rendered", 404),
        ("/studies/1.2.1/series/1.2.2.1/rendered", 404),
        ("/studies/1.2.1/rendered?viewport=0,0", 400),
        ("/studies/1.2.1/rendered?accept=application/dicom", 406),
        ("/studies/1.2.1/metadata?accept=application/dicom", 406),
        ("/studies/1.2.1?accept=image/png", 406),
        // There is no such resource here.
        ("/studies/1.2.1/bulkdata", 404),
    ] {
        let (got, _, problem) = problem(hospital.get(key, path).await).await;
        assert_eq!(got, status, "{path}");
        assert!(
            !problem.detail.contains("1.2") && !problem.detail.contains("1.9"),
            "{}",
            problem.detail
        );
    }
    let refused = hospital
        .app
        .request("GET", "/dicom-web/studies")
        .header("accept", "text/html");
    let (status, slug, _) = problem(refused.header("x-api-key", key).send().await.unwrap()).await;
    assert_eq!((status, slug.as_str()), (406, "not-acceptable"));
}

#[actix_web::test]
async fn what_is_not_kept_is_said() {
    let hospital = Hospital::open(IdentityMode::Anonymous, Retention::Thumbnail).await;
    let key = &hospital.search;
    let path = "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1";
    for suffix in ["", "/frames/1", "/rendered", "/frames/1/rendered"] {
        let (status, slug, _) = problem(hospital.get(key, &format!("{path}{suffix}")).await).await;
        assert_eq!((status, slug.as_str()), (409, "pixels-not-kept"), "{suffix}");
    }
    for path in ["/studies/1.2.1/rendered", "/studies/1.2.1/series/1.2.1.1/rendered"] {
        let (status, slug, _) = problem(hospital.get(key, path).await).await;
        assert_eq!((status, slug.as_str()), (409, "pixels-not-kept"), "{path}");
    }
    for suffix in ["/thumbnail", "/frames/1/thumbnail"] {
        assert_eq!(
            hospital.get(key, &format!("{path}{suffix}")).await.status(),
            200,
            "{suffix}"
        );
    }
    let metadata = hospital.json(key, &format!("{path}/metadata")).await;
    assert_eq!(metadata[0].get("00280010"), None);
    let found = hospital.json(key, "/instances?SOPInstanceUID=1.2.1.1.1").await;
    assert_eq!(text(&found[0], "00080056"), "UNAVAILABLE");
}

#[actix_web::test]
async fn names_in_the_pixels_are_refused_where_the_file_says_so() {
    let hospital = Hospital::open(IdentityMode::Anonymous, Retention::View).await;
    let with = |instance: &str, more: &[(u16, u16, &[u8; 2], &str)]| file("1.3", "1.3.1", instance, "4711", more);
    let declared = with("1.3.1.1", &[(0x0028, 0x0301, b"CS", "YES")]);
    let (status, slug, _) = problem(hospital.add(&declared).await).await;
    assert_eq!((status, slug.as_str()), (422, "burned-in-annotation"));
    // Nor is it taken by those who wait for no model.
    let pushed = hospital
        .app
        .body("/instances", "application/dicom", declared)
        .header("x-api-key", KEY);
    let (status, slug, _) = problem(pushed.send().await.unwrap()).await;
    assert_eq!((status, slug.as_str()), (422, "invalid-image"));
    // A kind that is often written on is taken, and said to be one.
    let capture = with("1.3.1.2", &[(0x0008, 0x0016, b"UI", "1.2.840.10008.5.1.4.1.1.7")]);
    let added = hospital.keep(&capture).await;
    let path = format!("/v1/images/{}", added["id"].as_str().unwrap());
    let request = hospital.app.request("GET", &path).header("x-api-key", KEY);
    let shown: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(shown["record"]["tags"]["burned_in"], "suspected");
    let said_no = with(
        "1.3.1.3",
        &[
            (0x0028, 0x0301, b"CS", "NO"),
            (0x0008, 0x0016, b"UI", "1.2.840.10008.5.1.4.1.1.7"),
        ],
    );
    let added = hospital.keep(&said_no).await;
    let request = hospital
        .app
        .request("GET", &format!("/v1/images/{}", added["id"].as_str().unwrap()));
    let shown: Value = request
        .header("x-api-key", KEY)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(shown["record"]["tags"].get("burned_in"), None);
}

#[actix_web::test]
async fn without_keys_the_machine_itself_sees_the_originals() {
    let app = spawn_over(empty(IdentityMode::Linked, Retention::View).await, |_| {}).await;
    let body = file("1.2.1", "1.2.1.1", "1.2.1.1.1", "4711", &[]);
    let form = app.form("/v1/images", &[Part::File("image", &body)]);
    kept(&app, form.send().await.unwrap()).await;
    let found: Value = app.get("/dicom-web/studies").await.json().await.unwrap();
    assert_eq!(
        (text(&found[0], "0020000D"), text(&found[0], "00100020")),
        ("1.2.1", "4711")
    );
}

#[actix_web::test]
async fn whoever_tries_names_that_are_not_there_has_to_wait() {
    let few = |settings: &mut HttpSettings| settings.rates.identity_misses = Rate::per_hour(7);
    let hospital = Hospital::with(IdentityMode::Linked, Retention::Original, few).await;
    let count = async |key: &str, query: &str| hospital.json(key, query).await.len();
    let search = async |patient: &str, body: &[u8]| {
        let parts = [Part::Text("patient_id", patient.as_bytes()), Part::File("image", body)];
        let parts = &parts[usize::from(patient.is_empty())..];
        let form = hospital
            .app
            .form("/v1/search", parts)
            .header("x-api-key", &hospital.search);
        form.send().await.unwrap()
    };
    let (viewer, picture) = (&hospital.search, crate::files::png(64, 64));
    let metadata = "/studies/1.2.1/metadata";
    // What is there is found as often as anybody likes, and pseudonyms name nobody.
    for _ in 0..10 {
        assert_eq!(count(viewer, "/studies?PatientID=4711").await, 2);
        assert_eq!(count(viewer, "/instances?SOPInstanceUID=1.2.1.1.1,1.2.1.1.2").await, 2);
        assert_eq!(hospital.get(viewer, metadata).await.status(), 200);
        assert_eq!(search("4711", &picture).await.status(), 200);
        assert_eq!(count(viewer, "/studies?PatientID=p_000000000000&Modality=MR").await, 0);
    }
    // Four that miss, each in another way, and a list with three that do beside one that is there.
    assert_eq!(count(viewer, "/studies?PatientID=1").await, 0);
    assert_eq!(
        count(viewer, "/series?PatientID=4711&StudyInstanceUID=1.2.3").await,
        0,
        "both are there"
    );
    assert_eq!(hospital.get(viewer, "/studies/9.9/metadata").await.status(), 404);
    assert_eq!(search("nobody", &picture).await.status(), 200);
    assert_eq!(count(viewer, "/studies?StudyInstanceUID=9.1,1.2.1,9.2,9.3").await, 1);
    // From now on nobody is told from anybody.
    for path in [
        "/studies?PatientID=4711",
        "/studies?PatientID=1",
        "/instances?SOPInstanceUID=1.2.1.1.1",
        "/studies/1.2.1/series",
        metadata,
        "/studies/9.9/metadata",
    ] {
        let refused = hospital.get(viewer, path).await;
        let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((300..=3600 / 7 + 1).contains(&wait), "{path}: {wait}");
        assert_eq!(problem(refused).await.1, "rate-limited", "{path}");
    }
    for patient in ["4711", "nobody"] {
        assert_eq!(problem(search(patient, &picture).await).await.1, "rate-limited");
    }
    // What names nobody goes on, and so do files of new patients, for a while.
    assert_eq!(count(viewer, "/studies").await, 3);
    let study = text(&hospital.json(viewer, "/studies").await[0], "0020000D").to_owned();
    assert_eq!(
        hospital
            .get(viewer, &format!("/studies/{study}/metadata"))
            .await
            .status(),
        200
    );
    assert_eq!(search("", &picture).await.status(), 200);
    let mut searched = 0;
    for patient in 0..80 {
        let new = file("1.3.1", "1.3.1.1", "1.3.1.1.1", &format!("new {patient}"), &[]);
        searched += usize::from(search("", &new).await.status() == 200);
    }
    assert_eq!(searched, 70);
    // Whoever may see the originals has nothing to find out.
    for key in [hospital.link.as_str(), KEY] {
        for _ in 0..10 {
            assert_eq!(count(key, "/studies?PatientID=1").await, 0);
        }
        assert_eq!(count(key, "/studies?PatientID=4711").await, 2);
    }
    let metrics = hospital.app.request("GET", "/metrics").header("x-api-key", KEY);
    let metrics = metrics.send().await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains(r#"medsearch_requests_refused_total{reason="identity_misses"} 18"#),
        "{metrics}"
    );
}

#[actix_web::test]
async fn a_search_for_studies_ends_when_its_time_is_over() {
    let app = crate::harness::spawn_with(|settings| settings.request_seconds_max = 0.0).await;
    for path in ["/studies", "/series", "/instances?Modality=CR"] {
        let late = app.get(&format!("/dicom-web{path}")).await;
        let (status, slug, _) = problem(late).await;
        assert_eq!((status, slug.as_str()), (504, "deadline"), "{path}");
    }
}

/// Sockets of a server with somebody at the other end.
fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let own = format!(":{port:04X}");
    let established = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&own)) && fields.nth(1) == Some("01")
    };
    table.lines().filter(established).count()
}

#[actix_web::test]
async fn answers_that_nobody_reads_take_a_bounded_memory_and_not_for_ever() {
    const SIDE: u16 = 2400;
    let small = |settings: &mut HttpSettings| {
        settings.upload_bytes_max = 12 << 20;
        settings.answer_idle_max = std::time::Duration::from_secs(8);
    };
    let hospital = Hospital::with(IdentityMode::Linked, Retention::Original, small).await;
    let size = |tag| (0x0028_u16, tag, SIDE.to_le_bytes().to_vec());
    let large = large_file("1.5.1", &[size(0x0010), size(0x0011)], usize::from(SIDE));
    hospital.keep(&large).await;
    let path = "/dicom-web/studies/1.5.1/series/1.5.1.1/instances/1.5.1.1.1";
    // What is read comes whole, in one way and the other.
    let bytes = usize::from(SIDE) * usize::from(SIDE) * 2;
    let request = |path: &str| hospital.app.request("GET", path).header("x-api-key", KEY);
    let whole = request(path)
        .header("accept", "application/dicom")
        .send()
        .await
        .unwrap();
    let length: usize = whole.headers()["content-length"].to_str().unwrap().parse().unwrap();
    assert!(length > bytes);
    assert_eq!(whole.bytes().await.unwrap().len(), length);
    let frames = request(&format!("{path}/frames/1,1")).send().await.unwrap();
    let frames = frames.bytes().await.unwrap();
    assert!(frames.ends_with(b"--\r\n") && frames.len() > 2 * bytes);

    // 8 uploads' worth of memory is there, and an answer of 11 MB that nobody reads holds it but for what the system takes.
    let ask = || {
        let mut connection = TcpStream::connect(("127.0.0.1", hospital.app.port)).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n\r\n");
        connection.write_all(head.as_bytes()).unwrap();
        connection
    };
    let silent: Vec<TcpStream> = (0..14).map(|_| ask()).collect();
    let mut refused = None;
    for _ in 0..40 {
        actix_web::rt::time::sleep(std::time::Duration::from_millis(150)).await;
        let answer = request(path).send().await.unwrap();
        if answer.status() == 429 {
            refused = Some(answer);
            break;
        }
        drop(answer);
    }
    let (_, slug, said) = problem(refused.expect("there is no memory for all of them")).await;
    assert_eq!(slug, "overloaded");
    assert!(said.detail.contains("large answers"), "{}", said.detail);
    // Others are answered, uploads too, and those who read are served again when nobody took the others.
    assert_eq!(request("/dicom-web/studies").send().await.unwrap().status(), 200);
    let again = hospital.add(&file("1.6.1", "1.6.1.1", "1.6.1.1.1", "4712", &[])).await;
    assert_eq!(again.status(), 201);
    eventually("the memory is free again", async || {
        let answer = request(path).send().await.unwrap();
        answer.status() == 200 && answer.bytes().await.is_ok_and(|body| body.len() > bytes)
    })
    .await;
    let open = connections(hospital.app.port);
    // By now nobody's answer is kept any more, and whoever reads at last is not told that this is all.
    actix_web::rt::time::sleep(std::time::Duration::from_secs(9)).await;
    let mut given_up = 0;
    for mut connection in silent {
        let mut rest = Vec::new();
        connection
            .set_read_timeout(Some(std::time::Duration::from_secs(20)))
            .unwrap();
        let _ = connection.read_to_end(&mut rest);
        assert!(!rest.ends_with(b"--\r\n") && rest.len() < bytes, "{}", rest.len());
        given_up += usize::from(rest.starts_with(b"HTTP/1.1 200"));
    }
    // They were there to the end.
    assert!(given_up > 0 && open >= given_up, "{given_up} of {open}");
}

/// A file with a picture of noise, which no compression makes small.
fn large_file(study: &str, sizes: &[(u16, u16, Vec<u8>)], side: usize) -> Vec<u8> {
    let (series, instance) = (format!("{study}.1"), format!("{study}.1.1"));
    let file = file(study, &series, &instance, "big", &[]);
    let before = file.len() - samples(&instance).len() - 4;
    let mut file = file[..before].to_vec();
    for (group, number, value) in sizes {
        let head = element(*group, *number, b"US", &[0, 0]);
        let at = file.windows(8).position(|window| window[..6] == head[..6]).unwrap();
        file[at + 8..at + 10].copy_from_slice(value);
    }
    let mut state = 88_172_645_463_325_252_u64;
    let noise = (0..side * side).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state % 4000) as u16).to_le_bytes()
    });
    file.extend(((side * side * 2) as u32).to_le_bytes());
    file.extend(noise);
    file
}
