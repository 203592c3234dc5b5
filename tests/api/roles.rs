//! Roles × endpoints: every cell. The table is written down once more here, apart from the one that the server goes by.

use std::collections::BTreeSet;

use medsearch::http::{ApiKey, KeysFile, SERVED, Scope};

use crate::harness::{TestApp, key_until, new_key, problem, spawn_with_keys};

/// What opens an endpoint: nothing is needed, or a scope.
const OPEN: Option<Scope> = None;
const SEARCH: Option<Scope> = Some(Scope::Search);
const VECTORS: Option<Scope> = Some(Scope::Vectors);
const INGEST: Option<Scope> = Some(Scope::Ingest);
const METRICS: Option<Scope> = Some(Scope::Metrics);
const ADMIN: Option<Scope> = Some(Scope::Admin);

#[rustfmt::skip] // a table
const ENDPOINTS: &[(&str, &str, Option<Scope>)] = &[
    ("POST", "/v1/search", SEARCH),
    ("POST", "/v1/search/by-id", SEARCH),
    ("POST", "/v1/search/by-vector", SEARCH),
    ("POST", "/v1/search/by-reference", SEARCH),
    ("POST", "/v1/explanations", SEARCH),
    ("POST", "/v1/embeddings", VECTORS),
    ("POST", "/v1/images", INGEST),
    ("GET", "/v1/images/{id}", SEARCH),
    ("PATCH", "/v1/images/{id}", INGEST),
    ("DELETE", "/v1/images/{id}", INGEST),
    ("GET", "/v1/images/{id}/thumbnail", SEARCH),
    ("GET", "/v1/images/{id}/rendered", SEARCH),
    ("POST", "/v1/patients/delete", INGEST),
    ("POST", "/v1/feedback", SEARCH),
    ("GET", "/v1/feedback", ADMIN),
    ("DELETE", "/v1/feedback/{id}", ADMIN),
    ("GET", "/v1/archive", SEARCH),
    ("GET", "/v1/archive/datasheet", SEARCH),
    ("GET", "/v1/archive/datasheet.md", SEARCH),
    ("GET", "/v1/classes", SEARCH),
    ("GET", "/v1/model", SEARCH),
    ("GET", "/v1/model/card", SEARCH),
    ("GET", "/v1/model/card.md", SEARCH),
    ("POST", "/dicom-web/studies", INGEST),
    ("POST", "/dicom-web/studies/{study}", INGEST),
    ("GET", "/dicom-web/studies", SEARCH),
    ("GET", "/dicom-web/series", SEARCH),
    ("GET", "/dicom-web/instances", SEARCH),
    ("GET", "/dicom-web/studies/{study}", SEARCH),
    ("GET", "/dicom-web/studies/{study}/metadata", SEARCH),
    ("GET", "/dicom-web/studies/{study}/rendered", SEARCH),
    ("GET", "/dicom-web/studies/{study}/thumbnail", SEARCH),
    ("GET", "/dicom-web/studies/{study}/series", SEARCH),
    ("GET", "/dicom-web/studies/{study}/instances", SEARCH),
    ("GET", "/dicom-web/studies/{study}/series/{series}", SEARCH),
    ("GET", "/dicom-web/studies/{study}/series/{series}/metadata", SEARCH),
    ("GET", "/dicom-web/studies/{study}/series/{series}/rendered", SEARCH),
    ("GET", "/dicom-web/studies/{study}/series/{series}/thumbnail", SEARCH),
    ("GET", "/dicom-web/studies/{study}/series/{series}/instances", SEARCH),
    ("GET", "/dicom-web/studies/{study}/series/{series}/instances/{instance}", SEARCH),
    ("GET", "/dicom-web/studies/{study}/series/{series}/instances/{instance}/metadata", SEARCH),
    ("GET", "/dicom-web/studies/{study}/series/{series}/instances/{instance}/rendered", SEARCH),
    ("GET", "/dicom-web/studies/{study}/series/{series}/instances/{instance}/thumbnail", SEARCH),
    ("GET", "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}", SEARCH),
    ("GET", "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/rendered", SEARCH),
    ("GET", "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/thumbnail", SEARCH),
    ("POST", "/instances", INGEST),
    ("GET", "/system", INGEST),
    // Not of the API: pages, signing in, the description, probes, metrics.
    ("GET", "/", OPEN),
    ("HEAD", "/", OPEN),
    ("GET", "/assets/app.js", OPEN),
    ("GET", "/openapi.json", OPEN),
    ("GET", "/docs", OPEN),
    ("GET", "/docs/", OPEN),
    ("GET", "/session", OPEN),
    ("GET", "/login", OPEN),
    ("GET", "/login/callback", OPEN),
    ("POST", "/logout", OPEN),
    ("GET", "/livez", OPEN),
    ("GET", "/readyz", OPEN),
    ("GET", "/startupz", OPEN),
    ("GET", "/metrics", METRICS),
    ("HEAD", "/metrics", METRICS),
];

/// Methods that are not served, and paths that are not there or are spelled so that only the router would see what they mean.
const NOT_SERVED: &[(&str, &str, u16)] = &[
    ("PUT", "/v1/images/{id}", 405),
    ("DELETE", "/v1/archive", 405),
    ("HEAD", "/v1/archive", 405),
    ("OPTIONS", "/v1/search", 405),
    ("GET", "/v1/nothing", 404),
    ("GET", "/%76%31/archive", 404),
    ("GET", "//v1/archive", 404),
    ("GET", "/v1/archive/", 404),
    ("GET", "/V1/archive", 404),
];

/// Endpoints that one server is asked for: each is asked with two wrong keys, and after 60 no more are looked at.
const ENDPOINTS_PER_SERVER: usize = 25;
/// What stands for the parts of a path.
const NAMES: [(&str, &str); 5] = [
    ("{id}", "000000000000000000000000000000000000"),
    ("{study}", "1.2.3"),
    ("{series}", "1.2.3.4"),
    ("{instance}", "1.2.3.4.5"),
    ("{frames}", "1"),
];

/// Who asks.
#[derive(Clone)]
enum Role {
    /// Without a key, or with one that is unknown, expired or revoked.
    Nobody(&'static str, Option<String>),
    /// With a key of one scope.
    Has(Scope, String),
}

impl Role {
    fn name(&self) -> &str {
        match self {
            Self::Nobody(name, _) => name,
            Self::Has(scope, _) => scope.as_str(),
        }
    }

    fn key(&self) -> Option<&str> {
        match self {
            Self::Nobody(_, key) => key.as_deref(),
            Self::Has(_, key) => Some(key),
        }
    }
}

/// A server and everyone who could ask it.
async fn stage(folder: &std::path::Path) -> (TestApp, Vec<Role>) {
    let file = folder.join("keys.json");
    let over = Some("2021-01-01T00:00:00Z");
    let mut roles = vec![
        Role::Nobody("none", None),
        Role::Nobody("unknown", Some(ApiKey::random().unwrap().0)),
        Role::Nobody("expired", Some(key_until(&file, "expired", &Scope::ALL, over))),
        Role::Nobody("revoked", Some(new_key(&file, "revoked", &Scope::ALL))),
    ];
    roles.extend(Scope::ALL.map(|scope| Role::Has(scope, new_key(&file, &format!("has-{scope}"), &[scope]))));
    let revoked = "revoked".parse().unwrap();
    KeysFile::at(&file).change(|keys| keys.revoke(&revoked)).unwrap();
    (spawn_with_keys(&file).await, roles)
}

#[actix_web::test]
async fn every_role_at_every_endpoint() {
    for endpoints in ENDPOINTS.chunks(ENDPOINTS_PER_SERVER) {
        let folder = tempfile::tempdir().unwrap();
        let (app, roles) = stage(folder.path()).await;
        for endpoint in endpoints {
            for role in &roles {
                check(&app, endpoint, role).await;
            }
        }
    }
}

#[actix_web::test]
async fn what_is_not_served_is_not_there_for_whoever_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let (app, roles) = stage(folder.path()).await;
    for (method, path, expected) in NOT_SERVED {
        for role in &roles {
            let path = path.replace("{id}", NAMES[0].1);
            let mut request = app.request(method, &path);
            if let Some(key) = role.key() {
                request = request.bearer_auth(key);
            }
            let answer = request.send().await.unwrap();
            let cell = format!("{method} {path} for {}", role.name());
            let status = answer.status().as_u16();
            match role {
                Role::Nobody(..) => assert_eq!(status, 401, "{cell}"),
                // Whatever the router makes of it: what is spelled in an odd way may be found.
                Role::Has(Scope::Admin, _) => assert!(!matches!(status, 401 | 403 | 500..), "{cell}"),
                Role::Has(..) => {
                    assert_eq!(status, *expected, "{cell}");
                    let allow = answer
                        .headers()
                        .get("allow")
                        .map(|allow| allow.to_str().unwrap().to_owned());
                    assert_eq!(allow.is_some(), *expected == 405, "{cell}: {allow:?}");
                }
            }
        }
    }
}

async fn check(app: &TestApp, (method, path, needed): &(&str, &str, Option<Scope>), role: &Role) {
    let path = NAMES
        .iter()
        .fold((*path).to_owned(), |path, (name, value)| path.replace(name, value));
    let cell = format!("{method} {path} for {}", role.name());
    let mut request = app.request(method, &path);
    if let Some(key) = role.key() {
        request = request.bearer_auth(key);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let expected = match (needed, role) {
        (Some(_), Role::Nobody(..)) => Some((401, "unauthorized")),
        (Some(needed), Role::Has(scope, _)) if scope != needed && *scope != Scope::Admin => {
            Some((403, "insufficient-scope"))
        }
        _ => None,
    };
    if let (Some((403, _)), Some(needed)) = (expected, needed) {
        let challenge = format!(r#"Bearer error="insufficient_scope", scope="{needed}""#);
        assert_eq!(response.headers()["www-authenticate"], challenge.as_str(), "{cell}");
    }
    match expected {
        None => assert!(!matches!(status, 401 | 403 | 500..), "{cell}: {status}"),
        Some((refused, _)) if *method == "HEAD" => assert_eq!(status, refused, "{cell}"),
        Some(refused) => {
            let (status, slug, problem) = problem(response).await;
            assert_eq!((status, slug.as_str()), refused, "{cell}");
            let named = |needed: Scope| problem.detail.contains(&format!("`{needed}`"));
            assert!(status != 403 || needed.is_some_and(named), "{cell}: {}", problem.detail);
        }
    }
}

#[test]
fn the_table_has_every_endpoint() {
    let served: BTreeSet<(String, &str)> = SERVED
        .iter()
        .flat_map(|(path, methods)| methods.iter().map(|method| (method.to_uppercase(), *path)))
        .collect();
    let listed: BTreeSet<(String, &str)> = ENDPOINTS
        .iter()
        .map(|(method, path, _)| ((*method).to_owned(), *path))
        .collect();
    let missing: Vec<_> = served.difference(&listed).collect();
    assert!(missing.is_empty(), "say in the table whom these are for: {missing:?}");
    assert_eq!(listed.len(), ENDPOINTS.len(), "a row stands there twice");
}
