//! The committed description is what the code says, and the code serves what it describes.

use std::collections::BTreeSet;
use std::io::Read;
use std::process::{Command, Stdio};

use medsearch::http::{SERVED, Scope, openapi};

use crate::harness::{problem, spawn_app};

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/medsearch.json");

#[test]
fn the_committed_description_is_the_one_of_the_code() {
    let made = openapi().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(COMMITTED, &made).unwrap();
    }
    let committed = std::fs::read_to_string(COMMITTED).unwrap_or_default();
    assert!(
        made == committed,
        "openapi/medsearch.json is not what the code says: run the test with UPDATE_OPENAPI=1"
    );
}

/// `medsearch openapi | head -c 10`: more than a pipe holds.
#[test]
fn who_stops_reading_is_no_fault() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_medsearch"))
        .arg("openapi")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut head = [0; 10];
    program.stdout.take().unwrap().read_exact(&mut head).unwrap();
    let ended = program.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
    assert!(
        openapi().to_pretty_json().unwrap().len() > 1 << 16,
        "a pipe holds all of it"
    );
}

/// (method, path) of the description.
fn described() -> BTreeSet<(String, String)> {
    let description = serde_json::to_value(openapi()).unwrap();
    let mut operations = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            operations.insert((method.clone(), path.clone()));
        }
    }
    operations
}

#[test]
fn every_route_is_described_and_every_description_has_a_route() {
    let served = SERVED
        .iter()
        .flat_map(|(path, methods)| methods.iter().map(|method| (method.to_string(), path.to_string())));
    assert_eq!(described(), served.collect());
}

#[actix_web::test]
async fn what_is_described_is_served() {
    let app = spawn_app().await;
    for (method, path) in described() {
        let path = path.replace("{id}", &"0".repeat(36));
        let response = app.request(&method.to_uppercase(), &path).send().await.unwrap();
        if response.status() == 404 {
            let (_, _, problem) = problem(response).await;
            assert!(!problem.detail.contains("nothing at this path"), "{method} {path}");
        } else {
            assert_ne!(response.status(), 405, "{method} {path}");
        }
    }
}

#[test]
fn every_operation_says_what_it_is_and_how_it_fails() {
    let description = serde_json::to_value(openapi()).unwrap();
    let mut names = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(
                operation["summary"]
                    .as_str()
                    .is_some_and(|summary| summary.ends_with('.')),
                "{method} {path}"
            );
            assert!(names.insert(operation["operationId"].to_string()), "{method} {path}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                assert!(
                    response["headers"]["X-Request-Id"].is_object(),
                    "{method} {path} {status}"
                );
                let types: Vec<&String> = response["content"].as_object().unwrap().keys().collect();
                // Only what became of each of several DICOM objects is no problem and no success.
                assert_eq!(
                    types == ["application/problem+json"],
                    !status.starts_with('2') && types != ["application/dicom+json"],
                    "{method} {path} {status}"
                );
            }
            let security = &operation["security"];
            let scopes = security[0]["bearer"].as_array().unwrap();
            assert_eq!(scopes.len(), 1, "{method} {path}");
            let scope: Result<Scope, _> = scopes[0].as_str().unwrap().parse();
            assert!(
                scope.is_ok() && security[1]["api_key"] == security[0]["bearer"],
                "{method} {path}"
            );
            for status in ["400", "401", "403", "429", "500"] {
                assert!(operation["responses"][status].is_object(), "{method} {path} {status}");
            }
        }
    }
}
