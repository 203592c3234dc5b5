//! How often one may ask: each caller for itself, and wrong keys by their address.

use medsearch::http::{Credentials, HttpSettings, Rate, RateSettings, Scope};
use reqwest::Response;

use crate::harness::{KEY, TestApp, new_key, problem, spawn_app, spawn_with};

const WRONG: &str = "no-key-of-this-server";

/// A server with a key for everything, and one that may search.
async fn spawn(rates: RateSettings) -> (TestApp, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let guest = new_key(&file, "guest", &[Scope::Search]);
    let with_rates = |settings: &mut HttpSettings| {
        settings.credentials = Credentials::open(Some(KEY), Some(&file)).unwrap();
        settings.loopback = false;
        settings.rates = rates;
    };
    (spawn_with(with_rates).await, guest)
}

async fn ask(app: &TestApp, method: &str, path: &str, key: &str) -> Response {
    app.request(method, path).header("x-api-key", key).send().await.unwrap()
}

fn said(response: &Response, name: &str) -> String {
    response.headers()[name].to_str().unwrap().to_owned()
}

#[actix_web::test]
async fn each_caller_has_so_many_and_is_told_when_to_come_back() {
    let (app, guest) = spawn(RateSettings {
        requests: Rate::per_minute(3),
        ..RateSettings::default()
    })
    .await;
    for (path, left) in [("/v1/archive", 2), ("/v1/images/0", 1), ("/nothing", 0)] {
        let response = ask(&app, "GET", path, &guest).await;
        assert!(response.status() != 429, "{path}");
        assert_eq!(said(&response, "ratelimit-policy"), r#""requests";q=3;w=60"#, "{path}");
        let remaining = format!(r#""requests";r={left};t="#);
        assert!(said(&response, "ratelimit").starts_with(&remaining), "{path}");
    }
    let refused = ask(&app, "GET", "/v1/archive", &guest).await;
    let wait: u64 = said(&refused, "retry-after").parse().unwrap();
    assert!((1..=20).contains(&wait), "a third of a minute and no more: {wait}");
    assert!(said(&refused, "ratelimit").starts_with(r#""requests";r=0;t="#));
    let (status, slug, _) = problem(refused).await;
    assert_eq!((status, slug.as_str()), (429, "rate-limited"));

    // Others are not held up, nor is what needs no key, nor the same caller's ingest, which has no bound here.
    assert_eq!(ask(&app, "GET", "/v1/archive", KEY).await.status(), 200);
    for path in ["/readyz", "/", "/openapi.json"] {
        let response = app.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert!(!response.headers().contains_key("ratelimit"), "{path}");
    }
    assert_eq!(ask(&app, "POST", "/v1/images", &guest).await.status(), 403);
    let metrics = ask(&app, "GET", "/metrics", KEY).await.text().await.unwrap();
    assert!(metrics.contains(r#"medsearch_requests_refused_total{reason="rate_limited"} 1"#));
    assert!(!metrics.contains("guest"), "no series has the name of a key");
}

#[actix_web::test]
async fn ingest_counts_apart() {
    let (app, _) = spawn(RateSettings {
        ingest: Rate::per_minute(1),
        ..RateSettings::default()
    })
    .await;
    let image = format!("/v1/images/{}", "0".repeat(36));
    let first = ask(&app, "DELETE", &image, KEY).await;
    assert_eq!(
        (first.status().as_u16(), said(&first, "ratelimit-policy").as_str()),
        (404, r#""ingest";q=1;w=60"#)
    );
    for (method, path) in [
        ("DELETE", image.as_str()),
        ("POST", "/v1/images"),
        ("POST", "/v1/patients/delete"),
    ] {
        let (status, slug, _) = problem(ask(&app, method, path, KEY).await).await;
        assert_eq!((status, slug.as_str()), (429, "rate-limited"), "{method} {path}");
    }
    for _ in 0..5 {
        assert_eq!(ask(&app, "GET", "/v1/archive", KEY).await.status(), 200);
    }
}

#[actix_web::test]
async fn who_tries_keys_is_held_up_and_does_not_find_one_that_was_thought_up() {
    let (app, _) = spawn(RateSettings {
        wrong_keys: Rate::per_minute(3),
        ..RateSettings::default()
    })
    .await;
    for _ in 0..3 {
        let (status, slug, _) = problem(ask(&app, "GET", "/v1/archive", WRONG).await).await;
        assert_eq!((status, slug.as_str()), (401, "unauthorized"));
    }
    // `KEY` is a short one, as somebody thinks up.
    for key in [WRONG, KEY] {
        let response = ask(&app, "GET", "/v1/archive", key).await;
        let wait: u64 = said(&response, "retry-after").parse().unwrap();
        assert!((1..=20).contains(&wait), "{wait}");
        let (status, slug, _) = problem(response).await;
        assert_eq!(
            (status, slug.as_str()),
            (429, "rate-limited"),
            "a right guess is not told from a wrong one"
        );
    }
    // Whoever brings no key is told how to bring one; probes and pages need none.
    assert_eq!(app.get("/v1/archive").await.status(), 401);
    assert_eq!(ask(&app, "GET", "/readyz", WRONG).await.status(), 200);
    assert_eq!(app.get("/").await.status(), 200);
}

#[actix_web::test]
async fn one_behind_the_same_proxy_locks_nobody_out() {
    let long = "operator-key-".repeat(3);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let text = new_key(&file, "guest", &[Scope::Search]);
    let app = spawn_with(|settings| {
        settings.credentials = Credentials::open(Some(&long), Some(&file)).unwrap();
        settings.loopback = false;
        settings.rates.wrong_keys = Rate::per_minute(3);
    })
    .await;
    // Nobody with a good key was here before.
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(ask(&app, "GET", "/v1/archive", WRONG).await.status().as_u16());
    }
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
    for key in [&text, &long] {
        assert_eq!(ask(&app, "GET", "/v1/archive", key).await.status(), 200);
    }
    // Neither does a token that nobody signed cost the server more than a key that nobody has.
    assert_eq!(ask(&app, "GET", "/v1/archive", "e30.e30.e30").await.status(), 429);
    let metrics = ask(&app, "GET", "/metrics", &long).await.text().await.unwrap();
    assert!(metrics.contains(r#"medsearch_requests_refused_total{reason="wrong_keys"} 3"#));
}

#[actix_web::test]
async fn without_keys_nobody_is_counted() {
    let app = spawn_with(|settings| settings.rates.requests = Rate::per_minute(1)).await;
    for _ in 0..5 {
        let response = app.get("/v1/archive").await;
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("ratelimit"));
    }
    let unlimited = spawn_app().await;
    assert!(
        !unlimited
            .get("/v1/archive")
            .await
            .headers()
            .contains_key("ratelimit-policy")
    );
}
