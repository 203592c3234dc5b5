//! Pages of other origins get nothing, keys are needed where there is one.

use crate::harness::{KEY, problem, spawn_app, spawn_with_key};

#[actix_web::test]
async fn a_foreign_page_can_neither_write_nor_read() {
    let app = spawn_app().await;
    for (name, value) in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("host", "evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        for (method, path) in [
            ("GET", "/v1/archive"),
            ("POST", "/v1/search"),
            ("DELETE", "/v1/images/0"),
            ("GET", "/openapi.json"),
            ("GET", "/assets/app.js"),
            ("GET", "/metrics"),
        ] {
            let response = app.request(method, path).header(name, value).send().await.unwrap();
            assert_eq!(
                problem(response).await.1,
                "forbidden-origin",
                "{method} {path} {name}: {value}"
            );
        }
    }
}

#[actix_web::test]
async fn our_own_page_and_programs_just_work() {
    let app = spawn_app().await;
    assert_eq!(app.get("/v1/archive").await.status(), 200);
    let origin = format!("http://127.0.0.1:{}", app.port);
    let own = app
        .request("GET", "/v1/archive")
        .header("origin", origin)
        .header("sec-fetch-site", "same-origin");
    assert_eq!(own.send().await.unwrap().status(), 200);
    let followed = app.request("GET", "/").header("sec-fetch-site", "cross-site");
    let followed = followed
        .header("sec-fetch-mode", "navigate")
        .header("sec-fetch-dest", "document");
    assert_eq!(followed.send().await.unwrap().status(), 200);
}

#[actix_web::test]
async fn with_a_key_the_api_needs_it_and_pages_and_probes_do_not() {
    let app = spawn_with_key().await;
    for path in ["/", "/assets/app.js", "/docs/", "/openapi.json", "/livez"] {
        assert_eq!(app.get(path).await.status(), 200, "{path}");
    }
    for path in ["/v1/archive", "/v1/nothing", "/metrics", "/%76%31/archive"] {
        let response = app.get(path).await;
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        assert_eq!(problem(response).await.1, "unauthorized", "{path}");
    }
    for (name, value) in [
        ("x-api-key", KEY.to_owned()),
        ("authorization", format!("Bearer {KEY}")),
    ] {
        for path in ["/v1/archive", "/metrics"] {
            let response = app.request("GET", path).header(name, &value).send().await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
        }
    }
    let foreign = app
        .request("POST", "/v1/search")
        .header("x-api-key", KEY)
        .header("origin", "https://evil.example");
    assert_eq!(problem(foreign.send().await.unwrap()).await.1, "forbidden-origin");
}
