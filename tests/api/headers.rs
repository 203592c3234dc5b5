//! What every answer tells a browser, whatever it is.

use medsearch::http::SERVED;
use reqwest::Response;

use crate::harness::{Part, TestApp, spawn_app, spawn_with_key};

/// Of what is no page.
const CLOSED: &str = "default-src 'none'; frame-ancestors 'none'";

/// The header, which is there once.
fn one<'a>(response: &'a Response, name: &str, what: &str) -> &'a str {
    let values: Vec<_> = response.headers().get_all(name).iter().collect();
    assert_eq!(values.len(), 1, "{what}: `{name}` {values:?}");
    values[0].to_str().unwrap()
}

/// What holds for pages too.
fn check_any(response: &Response, what: &str) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("x-frame-options", "DENY"),
    ] {
        assert_eq!(one(response, name, what), value, "{what}: `{name}`");
    }
    let permissions = one(response, "permissions-policy", what);
    assert!(
        permissions.split(", ").all(|feature| feature.ends_with("=()")),
        "{what}: {permissions}"
    );
    let policy = one(response, "content-security-policy", what);
    assert!(policy.starts_with("default-src 'none'"), "{what}: {policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{what}: {policy}");
    for exception in ["unsafe", "*", "http:", "https:", "wasm"] {
        assert!(!policy.contains(exception), "{what}: {policy}");
    }
    assert!(
        !response.headers().contains_key("strict-transport-security"),
        "{what}: without TLS it says nothing of TLS"
    );
}

/// What holds for everything but pages: it is nowhere kept, and does nothing.
fn check(response: &Response, what: &str) {
    check_any(response, what);
    assert_eq!(one(response, "content-security-policy", what), CLOSED, "{what}");
    let kept = one(response, "cache-control", what);
    assert!(kept.split(", ").any(|word| word == "no-store"), "{what}: {kept}");
}

async fn check_all(app: &TestApp) {
    for (path, methods) in SERVED {
        let path = path.replace("{id}", "000000000000000000000000000000000000");
        for method in *methods {
            let response = app.request(&method.to_uppercase(), &path).send().await.unwrap();
            check(&response, &format!("{method} {path} {}", response.status()));
        }
    }
}

#[actix_web::test]
async fn every_route_closes_what_it_does_not_need() {
    let app = spawn_app().await;
    check_all(&app).await;
    for path in ["/livez", "/readyz", "/startupz", "/metrics"] {
        check(&app.get(path).await, path);
        check(&app.request("HEAD", path).send().await.unwrap(), path);
    }
    let archive: serde_json::Value = app.get("/v1/archive").await.json().await.unwrap();
    let shown = app
        .get(archive["samples"][0]["thumbnail"].as_str().unwrap_or("/v1/archive"))
        .await;
    check(&shown, "a picture");
    assert_eq!(shown.status(), 200);
}

#[actix_web::test]
async fn pages_may_do_what_they_need_and_no_more() {
    let app = spawn_app().await;
    let files = ["/", "/assets/app.js", "/assets/style.css", "/assets/icon.svg"];
    let browser = [
        "/docs/",
        "/docs/swagger-ui.css",
        "/docs/swagger-ui-bundle.js",
        "/docs/swagger-initializer.js",
    ];
    for path in files.into_iter().chain(browser) {
        let response = app.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        check_any(&response, path);
        let policy = one(&response, "content-security-policy", path);
        for directive in [
            "script-src 'self';",
            "style-src 'self';",
            "base-uri 'none'",
            "form-action 'none'",
        ] {
            assert!(policy.contains(directive), "{path}: {policy}");
        }
        assert_eq!(
            one(&response, "cache-control", path),
            "no-cache",
            "{path} is part of the program"
        );
    }
    let page = app.get("/").await;
    assert!(
        one(&page, "content-security-policy", "/").contains("require-trusted-types-for 'script'; trusted-types 'none'")
    );
    check(&app.get("/docs").await, "/docs");
    check_any(&app.get("/openapi.json").await, "/openapi.json");
}

#[actix_web::test]
async fn refusals_of_every_kind_have_them_too() {
    let app = spawn_app().await;
    let large = vec![b' '; (1 << 20) + 1];
    let requests = [
        (404, app.request("GET", "/nothing")),
        (404, app.request("GET", "/assets/nothing.js")),
        (404, app.request("GET", "/docs/nothing.js")),
        (405, app.request("PUT", "/v1/archive")),
        (405, app.request("BREW", "/")),
        (400, app.body("/v1/search/by-id", "application/json", b"{".to_vec())),
        (413, app.body("/v1/search/by-id", "application/json", large)),
        (415, app.body("/v1/search/by-id", "text/plain", b"{}".to_vec())),
        (415, app.request("GET", "/").header("content-encoding", "gzip")),
        (415, app.form("/v1/search", &[Part::File("image", b"nothing")])),
        (403, app.request("GET", "/v1/archive").header("host", "evil.example")),
    ];
    for (status, request) in requests {
        let response = request.send().await.unwrap();
        let what = format!("{} {}", response.status(), response.url().path());
        assert_eq!(response.status(), status, "{what}");
        check(&response, &what);
    }
    let closed = spawn_with_key().await;
    assert_eq!(closed.get("/v1/archive").await.status(), 401);
    check_all(&closed).await;
}
