//! Searching and writing, as a client sees them.

use serde_json::{Value, json};

use crate::archive::{CLASSES, PER_CLASS, image};
use crate::harness::{Part, TestApp, problem, spawn_app};

/// The JSON of an answer that has to be a success.
async fn ok(request: reqwest::RequestBuilder) -> Value {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).unwrap()
}

impl TestApp {
    async fn search(&self, file: &[u8], options: &[(&str, &str)]) -> Value {
        let mut parts: Vec<Part<'_>> = options
            .iter()
            .map(|(name, value)| Part::Text(name, value.as_bytes()))
            .collect();
        parts.push(Part::File("image", file));
        ok(self.form("/v1/search", &parts)).await
    }

    async fn add(&self, file: &[u8], fields: &[(&str, &str)]) -> (u16, Value) {
        let mut parts: Vec<Part<'_>> = fields
            .iter()
            .map(|(name, value)| Part::Text(name, value.as_bytes()))
            .collect();
        parts.push(Part::File("image", file));
        let response = self.form("/v1/images", &parts).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn archive(&self) -> Value {
        ok(self.request("GET", "/v1/archive")).await
    }
}

fn ids(answer: &Value) -> Vec<String> {
    let neighbors = answer["neighbors"].as_array().unwrap();
    neighbors
        .iter()
        .map(|neighbor| neighbor["id"].as_str().unwrap().to_owned())
        .collect()
}

#[actix_web::test]
async fn a_search_says_what_it_found_and_how() {
    let app = spawn_app().await;
    let file = image(2, 3);
    let answer = app.search(&file, &[("k", "5")]).await;
    let neighbors = answer["neighbors"].as_array().unwrap();
    assert_eq!(neighbors.len(), 5);
    assert!(
        neighbors.iter().all(|neighbor| neighbor["class"] == "Viral Pneumonia"),
        "{answer:#}"
    );
    assert_eq!(neighbors[0]["rank"], 1);
    assert_eq!(neighbors[0]["label_source"], "folder");
    assert_eq!(answer["suggestion"]["status"], "suggested");
    assert_eq!(answer["suggestion"]["class"], "Viral Pneumonia");
    assert_eq!(answer["suggestion"]["votes"]["Viral Pneumonia"], 5);
    assert_eq!(answer["suggestion"]["reason"], "5 of 5 labelled Viral Pneumonia");
    assert_eq!(answer["suggestion"]["confidence"], Value::Null);
    assert_eq!(answer["suggestion"]["calibration"]["valid"], false);
    assert_eq!(answer["nearest_per_class"].as_array().unwrap().len(), CLASSES.len());
    assert_eq!(answer["coverage"], json!({"shards": 1, "answered": 1, "missing": []}));
    assert_eq!(answer["path"]["Viral Pneumonia"], "exact");
    assert_eq!(answer["archive"]["images"], u64::from(PER_CLASS) * 3);
    assert_eq!(answer["space"], app.space);
    assert_eq!(answer["intended_use"], "research use only, not for diagnosis");
    // The same pixels are left out unless they are asked for.
    assert!(neighbors[0]["similarity"].as_f64().unwrap() < 0.9999);
    let with_itself = app.search(&file, &[("k", "5"), ("exclude", "none")]).await;
    assert!(with_itself["neighbors"][0]["similarity"].as_f64().unwrap() > 0.9999);
    let similarities: Vec<f64> = neighbors
        .iter()
        .map(|neighbor| neighbor["similarity"].as_f64().unwrap())
        .collect();
    assert!(similarities.is_sorted_by(|a, b| a >= b), "{similarities:?}");
}

#[actix_web::test]
async fn filters_act_inside_the_search() {
    let app = spawn_app().await;
    let answer = app
        .search(&image(0, 1), &[("k", "6"), ("classes", "Viral Pneumonia,Normal")])
        .await;
    let neighbors = answer["neighbors"].as_array().unwrap();
    assert_eq!(neighbors.len(), 6, "k come back where k exist");
    assert!(neighbors.iter().all(|neighbor| neighbor["class"] != "COVID"));
    assert_eq!(answer["query"]["classes"], json!(["Viral Pneumonia", "Normal"]));
}

#[actix_web::test]
async fn by_id_and_by_vector_answer_like_the_image() {
    let app = spawn_app().await;
    let file = image(1, 4);
    let by_image = app.search(&file, &[("k", "7")]).await;
    let with_itself = app.search(&file, &[("k", "1"), ("exclude", "none")]).await;
    let id = with_itself["neighbors"][0]["id"].clone();
    let by_id = ok(app
        .request("POST", "/v1/search/by-id")
        .json(&json!({"ids": [id], "k": 7})))
    .await;
    assert_eq!(ids(&by_image), ids(&by_id));
    let embedded = ok(app.form("/v1/embeddings", &[Part::File("image", &file)])).await;
    let body = json!({"vector": embedded["embeddings"][0]["vector"], "space": app.space, "k": 8});
    let by_vector = ok(app.request("POST", "/v1/search/by-vector").json(&body)).await;
    assert_eq!(ids(&by_vector)[0], id.as_str().unwrap());
    assert_eq!(ids(&by_vector)[1..], ids(&by_image)[..]);
}

#[actix_web::test]
async fn examples_move_an_answer_and_are_left_out_of_it() {
    let app = spawn_app().await;
    let file = image(0, 1);
    let plain = app.search(&file, &[("k", "5")]).await;
    let wanted = ids(&app.search(&image(2, 3), &[("k", "3")]).await).join(",");
    let similarity = |answer: &Value, class: &str| {
        let nearest = answer["nearest_per_class"].as_array().unwrap();
        let of_class = nearest.iter().find(|neighbor| neighbor["class"] == class).unwrap();
        of_class["similarity"].as_f64().unwrap()
    };
    let of_wanted = |answer: &Value| similarity(answer, "Viral Pneumonia");
    let liked = app.search(&file, &[("k", "5"), ("liked", &wanted)]).await;
    let disliked = app.search(&file, &[("k", "5"), ("disliked", &wanted)]).await;
    assert!(of_wanted(&liked) > of_wanted(&plain) && of_wanted(&plain) > of_wanted(&disliked));
    assert_eq!(liked["query"]["liked"].as_array().unwrap().len(), 3);
    assert_eq!(disliked["query"]["disliked"], liked["query"]["liked"]);
    assert!(ids(&liked).iter().all(|id| !wanted.contains(id)));
    assert_eq!(plain["query"]["liked"], json!([]));

    // By id, and what can't be: an example that is not there, more than there may be.
    let id = ids(&plain)[0].clone();
    let body = |liked: Value| json!({"ids": [id], "k": 5, "liked": liked});
    let by_id = |body: Value| app.request("POST", "/v1/search/by-id").json(&body).send();
    let answer = by_id(body(json!(wanted.split(',').collect::<Vec<_>>()))).await.unwrap();
    assert_eq!(answer.status(), 200);
    let nowhere = "0".repeat(36);
    assert_eq!(by_id(body(json!([nowhere]))).await.unwrap().status(), 404);
    assert_eq!(by_id(body(json!(vec![&id; 17]))).await.unwrap().status(), 400);
}

#[actix_web::test]
async fn a_write_is_answered_once_and_found_at_its_version() {
    let app = spawn_app().await;
    let file = image(0, 100);
    let fields = [
        ("class", "COVID"),
        ("label_source", "PCR"),
        ("patient_id", "MRN-4711"),
        ("source", "here"),
    ];
    let (status, receipt) = app.add(&file, &fields).await;
    assert_eq!((status, &receipt["duplicate"]), (201, &json!(false)), "{receipt}");
    let version = receipt["version"].to_string();
    let options = [("exclude", "none"), ("k", "1"), ("min_version", version.as_str())];
    let answer = app.search(&file, &options).await;
    assert_eq!(answer["neighbors"][0]["id"], receipt["id"]);
    assert_eq!(answer["neighbors"][0]["label_source"], "PCR");
    assert_eq!(answer["neighbors"][0]["source"], "here");
    let patient = answer["neighbors"][0]["patient"].as_str().unwrap();
    assert!(patient.starts_with("p_") && !patient.contains("MRN"));

    let (status, again) = app.add(&file, &fields).await;
    assert_eq!(
        (status, &again["duplicate"], &again["id"]),
        (200, &json!(true), &receipt["id"])
    );
    assert_eq!(app.archive().await["images"], u64::from(PER_CLASS) * 3 + 1);

    // The patient's own images stay out, for whoever says whose image is asked about.
    let of_patient = app
        .search(&image(0, 101), &[("patient_id", "MRN-4711"), ("k", "30")])
        .await;
    assert!(!ids(&of_patient).contains(&receipt["id"].as_str().unwrap().to_owned()));
    let of_another = app.search(&image(0, 101), &[("patient_id", "4712"), ("k", "30")]).await;
    assert!(ids(&of_another).contains(&receipt["id"].as_str().unwrap().to_owned()));
    let (status, slug, _) = problem(
        app.form(
            "/v1/search",
            &[Part::Text("min_version", b"999999"), Part::File("image", &file)],
        )
        .timeout(std::time::Duration::from_secs(60))
        .send()
        .await
        .unwrap(),
    )
    .await;
    assert_eq!((status, slug.as_str()), (503, "version-ahead"));
}

#[actix_web::test]
async fn neighbors_of_one_source_alone_are_warned_of() {
    let app = spawn_app().await;
    let mut version = String::new();
    // Three of nine: one of 27 triples by chance.
    let there = (303..309).map(|number| (2, number, "there"));
    for (class, number, source) in (300..303).map(|number| (0, number, "here")).chain(there) {
        let (status, receipt) = app.add(&image(class, number), &[("source", source)]).await;
        assert_eq!(status, 201, "{receipt}");
        version = receipt["version"].to_string();
    }
    let both = [
        ("sources", "here"),
        ("sources", "there"),
        ("min_version", version.as_str()),
    ];
    let file = image(0, 310);
    let near = app.search(&file, &[&both[..], &[("k", "3")]].concat()).await;
    assert_eq!(near["warnings"][0]["type"], "one-source", "{near:#}");
    let message = near["warnings"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("one source, here, of 2") && message.contains("33 %"),
        "{message}"
    );
    let all = app.search(&file, &[&both[..], &[("k", "4")]].concat()).await;
    assert_eq!(all["warnings"], json!([]));
    let without = [("exclude_source", "there"), ("sources", "here"), ("k", "3")];
    assert_eq!(app.search(&file, &without).await["warnings"], json!([]));
}

#[actix_web::test]
async fn one_patient_has_one_vote() {
    let app = spawn_app().await;
    let mut version = String::new();
    for number in 200..206 {
        let (status, receipt) = app
            .add(&image(0, number), &[("class", "Normal"), ("patient_id", "one")])
            .await;
        assert_eq!(status, 201);
        version = receipt["version"].to_string();
    }
    let answer = app
        .search(&image(0, 3), &[("k", "10"), ("min_version", &version)])
        .await;
    let patients: Vec<&Value> = answer["neighbors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| &n["patient"])
        .collect();
    assert_eq!(
        patients.iter().filter(|patient| !patient.is_null()).count(),
        1,
        "{answer:#}"
    );
    assert_eq!(answer["neighbors"].as_array().unwrap().len(), 10);
}

#[actix_web::test]
async fn labels_live_and_conflicts_do_not_vote() {
    let app = spawn_app().await;
    let file = image(1, 2);
    let itself = app.search(&file, &[("k", "1"), ("exclude", "none")]).await;
    let id = itself["neighbors"][0]["id"].as_str().unwrap().to_owned();
    let (status, receipt) = app.add(&file, &[("class", "COVID")]).await;
    assert_eq!(
        (status, &receipt["id"], &receipt["label_conflict"]),
        (200, &json!(id), &json!(true)),
        "{receipt}"
    );
    let version = receipt["version"].to_string();
    let answer = app
        .search(&file, &[("exclude", "none"), ("k", "3"), ("min_version", &version)])
        .await;
    assert_eq!(answer["neighbors"][0]["label_conflict"], true);
    assert!(!answer["suggestion"]["voters"].as_array().unwrap().contains(&json!(id)));

    let path = format!("/v1/images/{id}");
    let change = json!({"class": "Normal", "label_source": "biopsy"});
    let changed = ok(app.request("PATCH", &path).json(&change)).await;
    let version = changed["version"].to_string();
    let answer = app
        .search(&file, &[("exclude", "none"), ("k", "3"), ("min_version", &version)])
        .await;
    assert_eq!(answer["neighbors"][0]["label_conflict"], false);
    assert_eq!(answer["neighbors"][0]["label_source"], "biopsy");
    assert!(answer["suggestion"]["voters"].as_array().unwrap().contains(&json!(id)));
    let shown = ok(app.request("GET", &path)).await;
    assert_eq!(shown["history"].as_array().unwrap().len(), 1, "{shown:#}");
}

#[actix_web::test]
async fn what_is_deleted_is_gone_and_may_come_back() {
    let app = spawn_app().await;
    let file = image(2, 5);
    let itself = app.search(&file, &[("k", "1"), ("exclude", "none")]).await;
    let id = itself["neighbors"][0]["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/images/{id}");
    let deleted = ok(app.request("DELETE", &path)).await;
    let version = deleted["version"].to_string();
    let answer = app
        .search(&file, &[("exclude", "none"), ("k", "30"), ("min_version", &version)])
        .await;
    assert!(!ids(&answer).contains(&id));
    let (status, slug, _) = problem(app.get(&path).await).await;
    assert_eq!((status, slug.as_str()), (404, "not-found"));
    let (status, slug, _) = problem(app.request("DELETE", &path).send().await.unwrap()).await;
    assert_eq!((status, slug.as_str()), (404, "not-found"));
    let (status, receipt) = app.add(&file, &[("class", "Viral Pneumonia")]).await;
    assert_eq!((status, &receipt["id"]), (201, &json!(id)));

    app.add(&image(0, 300), &[("patient_id", " Erase^Me ")]).await;
    let (_, receipt) = app.add(&image(0, 301), &[("patient_id", "Erase^Me")]).await;
    let body = json!({"patient_id": "Erase^Me"});
    let erased = ok(app.request("POST", "/v1/patients/delete").json(&body)).await;
    assert_eq!(erased["deleted"], 2, "{receipt} {erased}");
}

#[actix_web::test]
async fn pictures_are_private_and_as_kept() {
    let app = spawn_app().await;
    let archive = app.archive().await;
    assert_eq!(archive["samples"].as_array().unwrap().len(), 6);
    let sample = &archive["samples"][0];
    for (path, side) in [("thumbnail", 96), ("rendered", 96), ("rendered?size=48", 48)] {
        let path = format!("/v1/images/{}/{path}", sample["id"].as_str().unwrap());
        let response = app.get(&path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], "image/png");
        assert_eq!(response.headers()["cache-control"], "private, no-store");
        let png = response.bytes().await.unwrap();
        let reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        assert_eq!(reader.info().width, side, "{path}");
    }
}

#[actix_web::test]
async fn many_at_once_are_all_answered() {
    let app = spawn_app().await;
    // Different images, so that an answer that goes to another client is noticed.
    let files: Vec<_> = (0..48).map(|number| image(number % 3, 6 + number as u32)).collect();
    let mut expected = Vec::new();
    for file in &files {
        expected.push(ids(&app.search(file, &[("k", "5")]).await));
    }
    assert!(expected.iter().any(|answer| *answer != expected[0]));
    let asks = files.iter().map(|file| app.search(file, &[("k", "5")]));
    for (answer, expected) in futures_util::future::join_all(asks).await.iter().zip(expected) {
        assert_eq!(ids(answer), expected);
    }
}

#[actix_web::test]
async fn the_time_of_an_answer_includes_its_body_and_its_json() {
    let app = spawn_app().await;
    let begun = std::time::Instant::now();
    let response = app
        .form("/v1/search", &[Part::File("image", &image(2, 3))])
        .send()
        .await;
    let response = response.unwrap();
    let waited = begun.elapsed().as_secs_f64() * 1000.0;
    let header = response.headers()["server-timing"].to_str().unwrap().to_owned();
    let server: f64 = header.strip_prefix("total;dur=").unwrap().parse().unwrap();
    let answer: Value = response.json().await.unwrap();
    let engine = answer["timings_ms"]["total"].as_f64().unwrap();
    assert!(engine <= server && server <= waited, "{engine} {server} {waited}");
    // Probes and pages are not asked about their time.
    assert!(!app.get("/livez").await.headers().contains_key("server-timing"));
}

#[actix_web::test]
async fn a_picture_comes_back_only_when_asked_for() {
    let app = spawn_app().await;
    let file = image(1, 6);
    assert!(app.search(&file, &[]).await["query"].get("preview").is_none());
    let answer = app.search(&file, &[("preview", "true")]).await;
    let preview = answer["query"]["preview"].as_str().unwrap();
    assert!(preview.starts_with("data:image/png;base64,iVBOR"), "{}", &preview[..40]);
}

#[actix_web::test]
async fn what_cannot_be_found_is_said() {
    let app = spawn_app().await;
    let file = image(1, 6);
    let form = |fields: &[Part<'_>]| {
        let parts = [&[Part::File("image", &file)], fields].concat();
        app.form("/v1/search", &parts).send()
    };
    let refused = problem(form(&[Part::Text("sources", b"no-such-source")]).await.unwrap()).await;
    assert_eq!((refused.0, refused.1.as_str()), (400, "unknown-source"));
    let started = std::time::Instant::now();
    let refused = problem(form(&[Part::Text("min_version", b"999")]).await.unwrap()).await;
    assert_eq!((refused.0, refused.1.as_str()), (503, "version-ahead"));
    assert!(started.elapsed() < std::time::Duration::from_secs(10));
}
