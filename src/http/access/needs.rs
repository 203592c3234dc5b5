//! Which scope a request needs.

use super::Scope;

/// What each scope opens: method and pattern of the route. What is not here needs `admin`, so that a route that somebody forgets is closed.
///
/// Deleting is part of `ingest`: whoever puts images in must be able to take back what should not be there, and to follow a patient's wish, without
/// waiting for an admin. Such a key does not find images: without `search` it knows the ids of those that it added, and the patients that it is told of.
const NEEDS: &[(&str, &str, Scope)] = &[
    ("POST", "/v1/search", Scope::Search),
    ("POST", "/v1/search/by-id", Scope::Search),
    ("POST", "/v1/search/by-vector", Scope::Search),
    ("POST", "/v1/search/by-reference", Scope::Search),
    ("POST", "/v1/explanations", Scope::Search),
    ("GET", "/v1/images/{id}", Scope::Search),
    ("GET", "/v1/images/{id}/thumbnail", Scope::Search),
    ("GET", "/v1/images/{id}/rendered", Scope::Search),
    ("POST", "/v1/feedback", Scope::Search),
    ("GET", "/v1/archive", Scope::Search),
    ("GET", "/v1/archive/datasheet", Scope::Search),
    ("GET", "/v1/archive/datasheet.md", Scope::Search),
    ("GET", "/v1/classes", Scope::Search),
    ("GET", "/v1/model", Scope::Search),
    ("GET", "/v1/model/card", Scope::Search),
    ("GET", "/v1/model/card.md", Scope::Search),
    // The names that images came with are shown to those that have `link` as well.
    ("GET", "/dicom-web/studies", Scope::Search),
    ("GET", "/dicom-web/series", Scope::Search),
    ("GET", "/dicom-web/instances", Scope::Search),
    ("GET", "/dicom-web/studies/{study}", Scope::Search),
    ("GET", "/dicom-web/studies/{study}/metadata", Scope::Search),
    ("GET", "/dicom-web/studies/{study}/rendered", Scope::Search),
    ("GET", "/dicom-web/studies/{study}/thumbnail", Scope::Search),
    ("GET", "/dicom-web/studies/{study}/series", Scope::Search),
    ("GET", "/dicom-web/studies/{study}/instances", Scope::Search),
    ("GET", "/dicom-web/studies/{study}/series/{series}", Scope::Search),
    (
        "GET",
        "/dicom-web/studies/{study}/series/{series}/metadata",
        Scope::Search,
    ),
    (
        "GET",
        "/dicom-web/studies/{study}/series/{series}/rendered",
        Scope::Search,
    ),
    (
        "GET",
        "/dicom-web/studies/{study}/series/{series}/thumbnail",
        Scope::Search,
    ),
    (
        "GET",
        "/dicom-web/studies/{study}/series/{series}/instances",
        Scope::Search,
    ),
    (
        "GET",
        "/dicom-web/studies/{study}/series/{series}/instances/{instance}",
        Scope::Search,
    ),
    (
        "GET",
        "/dicom-web/studies/{study}/series/{series}/instances/{instance}/metadata",
        Scope::Search,
    ),
    (
        "GET",
        "/dicom-web/studies/{study}/series/{series}/instances/{instance}/rendered",
        Scope::Search,
    ),
    (
        "GET",
        "/dicom-web/studies/{study}/series/{series}/instances/{instance}/thumbnail",
        Scope::Search,
    ),
    (
        "GET",
        "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}",
        Scope::Search,
    ),
    (
        "GET",
        "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/rendered",
        Scope::Search,
    ),
    (
        "GET",
        "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/thumbnail",
        Scope::Search,
    ),
    ("POST", "/v1/embeddings", Scope::Vectors),
    ("POST", "/v1/images", Scope::Ingest),
    ("PATCH", "/v1/images/{id}", Scope::Ingest),
    ("DELETE", "/v1/images/{id}", Scope::Ingest),
    ("POST", "/v1/patients/delete", Scope::Ingest),
    ("POST", "/dicom-web/studies", Scope::Ingest),
    ("POST", "/dicom-web/studies/{study}", Scope::Ingest),
    ("POST", "/instances", Scope::Ingest),
    // A sender asks who is there before it sends.
    ("GET", "/system", Scope::Ingest),
    ("GET", "/metrics", Scope::Metrics),
    ("HEAD", "/metrics", Scope::Metrics),
    // What people wrote about a label may name somebody.
    ("GET", "/v1/feedback", Scope::Admin),
    ("DELETE", "/v1/feedback/{id}", Scope::Admin),
];

/// The scope that a request needs, by its method and the pattern of its route; none: no route takes its path.
pub fn needed(method: &str, pattern: Option<&str>) -> Scope {
    pattern
        .and_then(|pattern| listed(method, pattern))
        .unwrap_or(Scope::Admin)
}

/// The methods with which a route is served, where there is one; none is listed of what is routed and not in the list.
pub fn methods(pattern: &str) -> Vec<&'static str> {
    let rows = NEEDS.iter().filter(|(_, listed, _)| *listed == pattern);
    rows.map(|(method, ..)| *method).collect()
}

fn listed(method: &str, pattern: &str) -> Option<Scope> {
    let row = NEEDS.iter().find(|(m, p, _)| *m == method && *p == pattern);
    row.map(|(_, _, scope)| *scope)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::SERVED;

    #[test]
    fn every_route_is_listed_once_and_nothing_else() {
        let served = SERVED.iter().flat_map(|(path, methods)| {
            let methods = methods.iter().map(|method| method.to_uppercase());
            methods.map(move |method| (method, (*path).to_owned()))
        });
        let mut served: BTreeSet<(String, String)> = served.collect();
        served.extend(["GET", "HEAD"].map(|method| (method.to_owned(), "/metrics".to_owned())));
        let listed = NEEDS
            .iter()
            .map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()));
        assert_eq!(
            listed.clone().collect::<BTreeSet<_>>(),
            served,
            "say in `NEEDS` what a new route needs"
        );
        assert_eq!(listed.count(), served.len());
    }

    #[test]
    fn what_is_listed_nowhere_needs_admin() {
        for (method, pattern) in [
            ("GET", None),
            ("GET", Some("/v1/models")),
            ("GET", Some("/v1/search")),
            ("PUT", Some("/v1/images/{id}")),
            ("get", Some("/v1/archive")),
            ("POST", Some("/metrics")),
        ] {
            assert_eq!(needed(method, pattern), Scope::Admin, "{method} {pattern:?}");
        }
        assert_eq!(needed("POST", Some("/v1/search")), Scope::Search);
        assert_eq!(needed("POST", Some("/v1/embeddings")), Scope::Vectors);
    }
}
