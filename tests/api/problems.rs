//! Every failure is a problem document with the request's id.

use crate::harness::{Part, problem, spawn_app, spawn_with};

#[actix_web::test]
async fn failures_of_the_framework_are_problems_too() {
    let app = spawn_app().await;
    let id = "0".repeat(36);
    let rows = [
        ("GET", "/nothing".to_owned(), 404, "not-found"),
        ("GET", "/v1/search/".to_owned(), 404, "not-found"),
        ("GET", "/v1/search".to_owned(), 405, "method-not-allowed"),
        ("PUT", format!("/v1/images/{id}"), 405, "method-not-allowed"),
        ("BREW", "/v1/archive".to_owned(), 405, "method-not-allowed"),
        ("POST", "/livez".to_owned(), 405, "method-not-allowed"),
        ("GET", format!("/v1/images/{id}"), 404, "not-found"),
        ("GET", "/v1/images/xyz".to_owned(), 400, "invalid-request"),
        ("GET", "/v1/images/%ff".to_owned(), 400, "invalid-request"),
        (
            "GET",
            format!("/v1/images/{id}/rendered?colour=red"),
            400,
            "invalid-request",
        ),
        ("POST", "/v1/search/by-id".to_owned(), 415, "unsupported-media"),
        ("POST", "/v1/search".to_owned(), 415, "unsupported-media"),
    ];
    for (method, path, status, slug) in rows {
        let response = app.request(method, &path).send().await.unwrap();
        let allow = response
            .headers()
            .get("allow")
            .map(|value| value.to_str().unwrap().to_owned());
        let (found_status, found_slug, problem) = problem(response).await;
        assert_eq!(
            (found_status, found_slug.as_str()),
            (status, slug),
            "{method} {path} {problem:?}"
        );
        assert_eq!(allow.is_some(), status == 405, "{method} {path}");
        assert!(
            !problem.detail.is_empty() && !problem.detail.ends_with('.'),
            "{problem:?}"
        );
    }
}

#[actix_web::test]
async fn wrong_json_is_explained_without_its_values() {
    let app = spawn_app().await;
    for (body, says) in [
        ("{", "EOF"),
        ("[]", "expected an object"),
        (r#"{"patient_id": 12345678}"#, "expected a string"),
        (r#"{"patient_id": "1", "colour": "red"}"#, "unknown field `colour`"),
        (r#"{"issuer": "x"}"#, "missing field `patient_id`"),
    ] {
        let request = app.body("/v1/patients/delete", "application/json", body.into());
        let (status, slug, problem) = problem(request.send().await.unwrap()).await;
        assert_eq!((status, slug.as_str()), (400, "invalid-request"));
        assert!(
            problem.detail.contains(says) && !problem.detail.contains("12345678"),
            "{}",
            problem.detail
        );
    }
    let large = app.body("/v1/search/by-vector", "application/json", vec![b' '; 2 << 20]);
    assert_eq!(problem(large.send().await.unwrap()).await.1, "too-large");
}

#[actix_web::test]
async fn a_request_keeps_the_name_its_client_gave_it() {
    let app = spawn_app().await;
    let named = app
        .request("GET", "/nothing")
        .header("x-request-id", "trace-1")
        .send()
        .await
        .unwrap();
    assert_eq!(problem(named).await.2.request_id, "trace-1");
    let odd = app
        .request("GET", "/v1/archive")
        .header("x-request-id", "a b;c")
        .send()
        .await
        .unwrap();
    assert_eq!(odd.headers()["x-request-id"].len(), 32);
}

#[actix_web::test]
async fn a_busy_server_refuses_before_it_reads() {
    let app = spawn_with(|settings| settings.in_flight_max = 0).await;
    let response = app
        .form("/v1/search", &[Part::File("image", &[0; 100])])
        .send()
        .await
        .unwrap();
    assert_eq!(problem(response).await.1, "overloaded");
    assert_eq!(app.get("/livez").await.status(), 200);
}

#[actix_web::test]
async fn uploads_together_stay_within_their_memory() {
    // Nine uploads of the largest size: eight wait for their bodies, the ninth is refused at once.
    let app = spawn_with(|settings| settings.upload_bytes_max = 1 << 20).await;
    let head = format!(
        "POST /v1/search HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: multipart/form-data; boundary=medsearch-test-boundary\r\n\
         content-length: {}\r\n\r\n",
        2 << 20
    );
    let waiting: Vec<std::net::TcpStream> = (0..8)
        .map(|_| {
            let mut connection = std::net::TcpStream::connect(("127.0.0.1", app.port)).unwrap();
            std::io::Write::write_all(&mut connection, head.as_bytes()).unwrap();
            connection
        })
        .collect();
    actix_web::rt::time::sleep(std::time::Duration::from_millis(300)).await;
    let refused = app
        .form("/v1/search", &[Part::File("image", &vec![0; 1 << 20])])
        .send()
        .await
        .unwrap();
    assert_eq!(problem(refused).await.1, "overloaded");
    drop(waiting);
    actix_web::rt::time::sleep(std::time::Duration::from_millis(300)).await;
    let taken = app
        .form("/v1/search", &[Part::File("image", &vec![0; 1 << 20])])
        .send()
        .await
        .unwrap();
    assert_ne!(taken.status(), 429);
}
