//! Everything that users and attackers send by mistake or on purpose: each answered with a fitting problem, and the next good request works.

use reqwest::RequestBuilder;
use serde_json::json;

use crate::files;
use crate::harness::{BOUNDARY, Part, TestApp, form_body, problem, spawn_app};

/// One wrong input.
struct Row {
    name: &'static str,
    request: Box<dyn Fn(&TestApp) -> RequestBuilder>,
    /// The type of the problem; more than one where a decoder may see either first.
    slugs: &'static [&'static str],
}

fn row(
    name: &'static str,
    slugs: &'static [&'static str],
    request: impl Fn(&TestApp) -> RequestBuilder + 'static,
) -> Row {
    Row {
        name,
        request: Box::new(request),
        slugs,
    }
}

/// A file that only the decoder finds wrong.
fn file(name: &'static str, slugs: &'static [&'static str], content: Vec<u8>) -> Row {
    row(name, slugs, move |app| app.form("/v1/search", &[Part::File("image", &content)]))
}

/// A good image with a wrong option.
fn option(name: &'static str, slugs: &'static [&'static str], field: &'static str, value: &'static [u8]) -> Row {
    row(name, slugs, move |app| {
        app.form(
            "/v1/search",
            &[Part::Text(field, value), Part::File("image", &files::png(64, 64))],
        )
    })
}

/// A search in JSON.
fn search(name: &'static str, slugs: &'static [&'static str], path: &'static str, body: serde_json::Value) -> Row {
    row(name, slugs, move |app| app.request("POST", path).json(&body))
}

const INVALID: &[&str] = &["invalid-request"];
const BROKEN: &[&str] = &["invalid-image"];
const UNSUPPORTED: &[&str] = &["unsupported-media"];

fn broken_files() -> Vec<Row> {
    let mut truncated_png = files::png(64, 64);
    truncated_png.truncate(truncated_png.len() / 2);
    let mut no_pixels = files::image_attributes(64, 64, "1");
    no_pixels.truncate(no_pixels.len() - 10);
    let many_frames = [files::image_attributes(512, 512, "100000"), vec![0; 1000]].concat();
    vec![
        file("text", UNSUPPORTED, b"Dear colleague, please find attached".to_vec()),
        file("truncated JPEG", BROKEN, files::truncated_jpeg()),
        file("JPEG marker alone", BROKEN, vec![0xff, 0xd8, 0xff]),
        file(
            "JPEG of 65,500 x 65,500",
            &["too-many-pixels", "invalid-image"],
            files::jpeg_head(65_500, 65_500),
        ),
        file("JPEG of no rows", BROKEN, files::jpeg_head(64, 0)),
        file("truncated PNG", BROKEN, truncated_png),
        file("PNG signature alone", BROKEN, b"\x89PNG\r\n\x1a\n".to_vec()),
        file("PNG with noise as pixels", BROKEN, files::damaged_png()),
        file("1 x 1", &["constant-image"], files::png(1, 1)),
        file("one grey", &["constant-image"], files::flat_png(64, 64)),
        file("20,000 x 20,000 PNG bomb", &["too-many-pixels"], files::png_bomb()),
        file(
            "GIF",
            UNSUPPORTED,
            b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff;".to_vec(),
        ),
        file(
            "SVG",
            UNSUPPORTED,
            b"<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>".to_vec(),
        ),
        file("PDF", UNSUPPORTED, b"%PDF-1.7\n1 0 obj\n".to_vec()),
        file("TIFF", UNSUPPORTED, b"II*\x00\x08\x00\x00\x00".to_vec()),
        file("ZIP", UNSUPPORTED, b"PK\x03\x04\x14\x00".to_vec()),
        file(
            "DICOM that ends after its prefix",
            BROKEN,
            [vec![0; 128], b"DICM".to_vec()].concat(),
        ),
        file(
            "DICOM without pixels",
            &["invalid-image", "unsupported-media"],
            files::dicom(files::EXPLICIT, &no_pixels),
        ),
        file(
            "DICOM with 5,000 nested sequences",
            BROKEN,
            files::dicom(files::EXPLICIT, &files::nested_sequences()),
        ),
        file(
            "DICOM of 100,000 frames",
            &["too-many-pixels", "invalid-image"],
            files::dicom(files::EXPLICIT, &many_frames),
        ),
        file(
            "DICOM with 4 GiB of pixels promised",
            BROKEN,
            files::dicom(files::EXPLICIT, &files::huge_pixel_data()),
        ),
        file(
            "DICOM deflate bomb",
            &["invalid-image", "too-large", "too-many-pixels"],
            files::dicom(files::DEFLATED, &files::deflate_bomb()),
        ),
        file(
            "DICOM video",
            UNSUPPORTED,
            files::dicom("1.2.840.10008.1.2.4.102", &files::image_attributes(64, 64, "1")),
        ),
    ]
}

fn broken_forms() -> Vec<Row> {
    let image = || files::png(64, 64);
    let form_data = || format!("multipart/form-data; boundary={BOUNDARY}");
    vec![
        row("empty file", BROKEN, |app| {
            app.form("/v1/search", &[Part::File("image", b"")])
        }),
        row("no file", &["missing-image"], |app| {
            app.form("/v1/search", &[Part::Text("k", b"5")])
        }),
        row("empty form", &["missing-image"], |app| app.form("/v1/search", &[])),
        row("two images", &["several-images"], move |app| {
            app.form(
                "/v1/search",
                &[Part::File("image", &image()), Part::File("image", &image())],
            )
        }),
        row("wrong field name", INVALID, move |app| {
            app.form("/v1/search", &[Part::File("file", &image())])
        }),
        row("no boundary", INVALID, move |app| {
            app.body(
                "/v1/search",
                "multipart/form-data",
                form_body(&[Part::File("image", &image())]),
            )
        }),
        row("another boundary", INVALID, move |app| {
            app.body(
                "/v1/search",
                "multipart/form-data; boundary=other",
                form_body(&[Part::File("image", &image())]),
            )
        }),
        row("form that ends early", INVALID, move |app| {
            let mut body = form_body(&[Part::File("image", &image())]);
            body.truncate(body.len() - 20);
            app.body("/v1/search", &form_data(), body)
        }),
        row("image as the whole body", UNSUPPORTED, move |app| {
            app.body("/v1/search", "image/png", image())
        }),
        row("no body", UNSUPPORTED, |app| app.request("POST", "/v1/search")),
        row("200 MB", &["too-large"], |app| {
            app.form("/v1/search", &[Part::File("image", &vec![0; 200 << 20])])
        }),
        row("patient id of a megabyte", &["too-large"], |app| {
            app.form("/v1/search", &[Part::Text("patient_id", &vec![b'7'; 1 << 20])])
        }),
        row("a thousand fields", INVALID, |app| {
            app.form(
                "/v1/search",
                &std::iter::repeat_with(|| Part::Text("classes", b"A"))
                    .take(1000)
                    .collect::<Vec<_>>(),
            )
        }),
        row("seventeen images to embed", &["several-images"], move |app| {
            let image = image();
            let parts: Vec<Part<'_>> = std::iter::repeat_with(|| Part::File("image", &image))
                .take(17)
                .collect();
            app.form("/v1/embeddings", &parts)
        }),
        row("label without a class", INVALID, move |app| {
            app.form(
                "/v1/images",
                &[Part::Text("label_source", b"PCR"), Part::File("image", &image())],
            )
        }),
        row("class that climbs out of its folder", INVALID, move |app| {
            app.form(
                "/v1/images",
                &[Part::Text("class", b"../x"), Part::File("image", &image())],
            )
        }),
    ]
}

fn wrong_options() -> Vec<Row> {
    vec![
        option("k = 0", INVALID, "k", b"0"),
        option("k = 10^9", INVALID, "k", b"1000000000"),
        option("k = ten", INVALID, "k", b"ten"),
        option("k = -1", INVALID, "k", b"-1"),
        option("vote by guessing", INVALID, "vote", b"guess"),
        option("exclude everything", INVALID, "exclude", b"everything"),
        option("exact = maybe", INVALID, "exact", b"maybe"),
        option("region outside", INVALID, "region", b"0.5,0.5,0.9,0.9"),
        option("region of letters", INVALID, "region", b"a,b,c,d"),
        option("version of letters", INVALID, "min_version", b"latest"),
        option("text that is no UTF-8", INVALID, "issuer", b"\xff\xfe\xfd"),
        option("unknown class", &["unknown-class"], "classes", b"Dragon Pox"),
    ]
}

fn wrong_json() -> Vec<Row> {
    let id = "0".repeat(36);
    let space = "0".repeat(32);
    let raw =
        |body: &'static str| move |app: &TestApp| app.body("/v1/search/by-vector", "application/json", body.into());
    vec![
        row(
            "NaN in a vector",
            INVALID,
            raw(r#"{"vector": [NaN, 1.0], "space": "00000000000000000000000000000000"}"#),
        ),
        row(
            "null in a vector",
            INVALID,
            raw(r#"{"vector": [null], "space": "00000000000000000000000000000000"}"#),
        ),
        row(
            "number beyond every float",
            INVALID,
            raw(r#"{"vector": [1e999], "space": "00000000000000000000000000000000"}"#),
        ),
        row("JSON that ends early", INVALID, raw(r#"{"vector": [1.0"#)),
        row("vector without a space", INVALID, raw(r#"{"vector": [1.0]}"#)),
        search(
            "space that can't be one",
            INVALID,
            "/v1/search/by-vector",
            json!({"vector": [1.0], "space": "lite0"}),
        ),
        search(
            "another space",
            &["space-mismatch"],
            "/v1/search/by-vector",
            json!({"vector": [1.0], "space": space}),
        ),
        row("vector of another dimension", &["wrong-dimension"], |app| {
            app.request("POST", "/v1/search/by-vector")
                .json(&json!({"vector": [1.0, 2.0], "space": app.space}))
        }),
        search("no ids", INVALID, "/v1/search/by-id", json!({"ids": []})),
        search(
            "id that can't be one",
            INVALID,
            "/v1/search/by-id",
            json!({"ids": ["../../etc/passwd"]}),
        ),
        search(
            "id that is not there",
            &["not-found"],
            "/v1/search/by-id",
            json!({"ids": [id]}),
        ),
        search(
            "unknown option",
            INVALID,
            "/v1/search/by-id",
            json!({"ids": [id], "colour": "red"}),
        ),
        row("JSON that says it is text", UNSUPPORTED, |app| {
            app.body("/v1/search/by-id", "text/plain", b"{}".to_vec())
        }),
        row("picture in a nonsense window", INVALID, |app| {
            app.request("GET", &format!("/v1/images/{}/rendered?window=wide", "0".repeat(36)))
        }),
    ]
}

#[actix_web::test]
async fn wrong_inputs_are_answered_with_fitting_problems() {
    let rows = [broken_files(), broken_forms(), wrong_options(), wrong_json()]
        .into_iter()
        .flatten();
    let rows: Vec<Row> = rows.collect();
    assert!(rows.len() >= 44);
    let app = spawn_app().await;
    let mut wrong = Vec::new();
    for row in &rows {
        let response = (row.request)(&app).send().await;
        let Ok(response) = response else {
            wrong.push(format!("{}: no answer, {response:?}", row.name));
            continue;
        };
        let (status, slug, problem) = problem(response).await;
        if !row.slugs.contains(&slug.as_str()) || !(400..500).contains(&status) {
            wrong.push(format!(
                "{}: {status} {slug} ({}), expected {:?}",
                row.name, problem.detail, row.slugs
            ));
        }
        app.works().await;
    }
    assert!(
        wrong.is_empty(),
        "{} of {} rows:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
    assert!(peak_memory_mib() < 2048, "{} MiB", peak_memory_mib());
}

/// Most memory that this process ever had; the server is part of it.
fn peak_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

impl TestApp {
    /// The next good request works.
    async fn works(&self) {
        assert_eq!(self.get("/v1/archive").await.status(), 200);
        let response = self.form("/v1/search", &[Part::File("image", &files::png(64, 64))]).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
}
