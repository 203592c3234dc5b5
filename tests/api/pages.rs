//! The page, the browser for the API, probes and metrics.

use crate::harness::spawn_app;

#[actix_web::test]
async fn the_page_is_served_with_all_it_needs_and_nothing_else() {
    let app = spawn_app().await;
    let response = app.get("/").await;
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    assert!(
        response.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .starts_with("default-src 'none'; script-src 'self'")
    );
    assert_eq!(response.headers()["cache-control"], "no-cache");
    let page = response.text().await.unwrap();
    for path in page.split('"').filter(|text| text.starts_with("/assets/")) {
        assert_eq!(app.get(path).await.status(), 200, "{path}");
    }
    assert!(
        !page.contains("http://") && !page.contains("https://"),
        "the page names another host"
    );
    for path in [
        "/assets/nothing.js",
        "/assets/",
        "/assets/..%2fCargo.toml",
        "/assets/%2e%2e/Cargo.toml",
    ] {
        assert_eq!(app.get(path).await.status(), 404, "{path}");
    }
}

#[actix_web::test]
async fn an_unchanged_file_is_not_sent_again() {
    let app = spawn_app().await;
    let tag = app.get("/assets/app.js").await.headers()["etag"]
        .to_str()
        .unwrap()
        .to_owned();
    let again = app
        .request("GET", "/assets/app.js")
        .header("if-none-match", &tag)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (again.status().as_u16(), again.headers()["etag"].to_str().unwrap()),
        (304, tag.as_str())
    );
    let other = app
        .request("GET", "/assets/app.js")
        .header("if-none-match", "\"other\"")
        .send()
        .await
        .unwrap();
    assert_eq!(other.status(), 200);
}

#[actix_web::test]
async fn the_api_can_be_browsed_without_another_host() {
    let app = spawn_app().await;
    let response = app.get("/docs").await;
    assert_eq!(
        (
            response.status().as_u16(),
            response.headers()["location"].to_str().unwrap()
        ),
        (308, "/docs/")
    );
    let page = app.get("/docs/").await.text().await.unwrap();
    let files = page
        .split('"')
        .filter(|text| text.ends_with(".js") || text.ends_with(".css") || text.ends_with(".png"));
    for file in files {
        let response = app.get(&format!("/docs/{}", file.trim_start_matches("./"))).await;
        assert_eq!(response.status(), 200, "{file}");
        assert!(response.headers().contains_key("content-security-policy"));
    }
    let start = app.get("/docs/swagger-initializer.js").await.text().await.unwrap();
    assert!(
        start.contains("/openapi.json") && !start.contains("petstore"),
        "{start}"
    );
    let description: serde_json::Value = app.get("/openapi.json").await.json().await.unwrap();
    assert_eq!(description["info"]["title"], "medsearch");
}

#[actix_web::test]
async fn probes_and_metrics_answer() {
    let app = spawn_app().await;
    for path in ["/livez", "/readyz", "/startupz"] {
        assert_eq!(app.get(path).await.status(), 200, "{path}");
        assert_eq!(app.request("HEAD", path).send().await.unwrap().status(), 200, "{path}");
    }
    app.get("/v1/images/000000000000000000000000000000000000").await;
    app.get("/somewhere/else?patient=MRN-4711").await;
    let metrics = app.get("/metrics").await.text().await.unwrap();
    for line in [
        r#"medsearch_http_requests_total{method="GET",route="/v1/images/{id}",status="404"} 1"#,
        r#"medsearch_http_requests_total{method="GET",route="unmatched",status="404"} 1"#,
        r#"medsearch_http_requests_total{method="HEAD",route="/livez",status="200"} 1"#,
        "medsearch_archive_version ",
        "medsearch_queue_max ",
    ] {
        assert!(metrics.contains(line), "no `{line}` in\n{metrics}");
    }
    assert!(!metrics.contains("MRN-4711") && !metrics.contains("somewhere"));
}
