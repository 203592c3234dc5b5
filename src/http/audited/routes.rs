//! What each route leaves in the audit.

use crate::audit::{Action, EventId};

/// What is written about a request of one route.
#[derive(Debug, PartialEq, Eq)]
pub struct Audited {
    method: &'static str,
    pattern: &'static str,
    /// The operation, as the description of the API calls it.
    pub what: &'static str,
    /// What DICOM calls it.
    pub dicom: EventId,
    /// What is done.
    pub action: Action,
    /// It is on record before it is done: without a line it is refused.
    pub first: bool,
}

const fn row(
    (method, pattern): (&'static str, &'static str),
    what: &'static str,
    dicom: EventId,
    action: Action,
    first: bool,
) -> Audited {
    Audited {
        method,
        pattern,
        what,
        dicom,
        action,
        first,
    }
}

/// On record before it is done: what changes the archive, and what is for an admin.
const FIRST: bool = true;
/// On record when it was answered; where that can't be, a later line says how many are missing.
const AFTER: bool = false;

/// The routes that leave a line.
#[rustfmt::skip] // a table
const AUDITED: &[Audited] = &[
    row(("POST", "/v1/search"), "searchByImage", EventId::Query, Action::Execute, AFTER),
    row(("POST", "/v1/search/by-id"), "searchById", EventId::Query, Action::Execute, AFTER),
    row(("POST", "/v1/search/by-vector"), "searchByVector", EventId::Query, Action::Execute, AFTER),
    row(("POST", "/v1/search/by-reference"), "searchByReference", EventId::Query, Action::Execute, AFTER),
    row(("POST", "/v1/explanations"), "explain", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("POST", "/v1/embeddings"), "embed", EventId::Export, Action::Read, AFTER),
    row(("POST", "/v1/images"), "addImage", EventId::Import, Action::Create, FIRST),
    row(("POST", "/dicom-web/studies"), "storeInstances", EventId::Import, Action::Create, FIRST),
    row(("POST", "/dicom-web/studies/{study}"), "storeInstancesOfStudy", EventId::Import, Action::Create, FIRST),
    row(("GET", "/dicom-web/studies"), "searchStudies", EventId::Query, Action::Execute, AFTER),
    row(("GET", "/dicom-web/series"), "searchSeries", EventId::Query, Action::Execute, AFTER),
    row(("GET", "/dicom-web/instances"), "searchInstances", EventId::Query, Action::Execute, AFTER),
    row(("GET", "/dicom-web/studies/{study}/series"), "searchSeriesOfStudy", EventId::Query, Action::Execute, AFTER),
    row(("GET", "/dicom-web/studies/{study}/instances"), "searchInstancesOfStudy", EventId::Query, Action::Execute, AFTER),
    row(("GET", "/dicom-web/studies/{study}/series/{series}/instances"), "searchInstancesOfSeries", EventId::Query, Action::Execute, AFTER),
    row(("GET", "/dicom-web/studies/{study}"), "getStudy", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("GET", "/dicom-web/studies/{study}/metadata"), "getStudyMetadata", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("GET", "/dicom-web/studies/{study}/rendered"), "getRenderedStudy", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("GET", "/dicom-web/studies/{study}/thumbnail"), "getStudyThumbnail", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("GET", "/dicom-web/studies/{study}/series/{series}"), "getSeries", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("GET", "/dicom-web/studies/{study}/series/{series}/metadata"), "getSeriesMetadata", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("GET", "/dicom-web/studies/{study}/series/{series}/rendered"), "getRenderedSeries", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("GET", "/dicom-web/studies/{study}/series/{series}/thumbnail"), "getSeriesThumbnail", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("GET", "/dicom-web/studies/{study}/series/{series}/instances/{instance}"), "getInstance", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("GET", "/dicom-web/studies/{study}/series/{series}/instances/{instance}/metadata"), "getInstanceMetadata", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("GET", "/dicom-web/studies/{study}/series/{series}/instances/{instance}/rendered"), "getRenderedInstance", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("GET", "/dicom-web/studies/{study}/series/{series}/instances/{instance}/thumbnail"), "getInstanceThumbnail", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("GET", "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}"), "getFrames", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("GET", "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/rendered"), "getRenderedFrames", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("GET", "/dicom-web/studies/{study}/series/{series}/instances/{instance}/frames/{frames}/thumbnail"), "getFrameThumbnail", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("POST", "/instances"), "storePeerInstance", EventId::Import, Action::Create, FIRST),
    row(("GET", "/v1/images/{id}"), "getImage", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("PATCH", "/v1/images/{id}"), "relabelImage", EventId::InstancesAccessed, Action::Update, FIRST),
    row(("DELETE", "/v1/images/{id}"), "deleteImage", EventId::InstancesAccessed, Action::Delete, FIRST),
    row(("GET", "/v1/images/{id}/thumbnail"), "getThumbnail", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("GET", "/v1/images/{id}/rendered"), "getRendered", EventId::InstancesAccessed, Action::Read, AFTER),
    row(("POST", "/v1/patients/delete"), "deletePatient", EventId::PatientRecord, Action::Delete, FIRST),
    row(("POST", "/v1/feedback"), "reportLabel", EventId::ApplicationActivity, Action::Create, FIRST),
    row(("GET", "/v1/feedback"), "listFeedback", EventId::ApplicationActivity, Action::Read, FIRST),
    row(("DELETE", "/v1/feedback/{id}"), "resolveFeedback", EventId::ApplicationActivity, Action::Delete, FIRST),
];

/// The routes that leave none: they say of the archive as a whole what it is, and of no image.
const SILENT: &[(&str, &str, &str)] = &[
    ("GET", "/v1/archive", "getArchive"),
    ("GET", "/v1/archive/datasheet", "getDatasheet"),
    ("GET", "/v1/archive/datasheet.md", "getDatasheetMarkdown"),
    ("GET", "/v1/classes", "getClasses"),
    ("GET", "/v1/model", "getModel"),
    ("GET", "/v1/model/card", "getModelCard"),
    ("GET", "/v1/model/card.md", "getModelCardMarkdown"),
    ("GET", "/system", "getPeerSystem"),
];

/// What a request leaves, if its route leaves anything.
pub fn of(method: &str, pattern: &str) -> Option<&'static Audited> {
    AUDITED
        .iter()
        .find(|row| row.method == method && row.pattern == pattern)
}

/// The operation that a request asks for, as the description of the API calls it.
pub fn name_of(method: &str, pattern: &str) -> Option<&'static str> {
    let silent = || SILENT.iter().find(|(m, p, _)| *m == method && *p == pattern);
    of(method, pattern)
        .map(|row| row.what)
        .or_else(|| silent().map(|(_, _, what)| *what))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::http::access::{Scope, needed};
    use crate::http::{SERVED, openapi};

    /// By method and path, as the description of the API has them.
    fn operations() -> BTreeMap<(String, String), String> {
        let description: serde_json::Value = serde_json::to_value(openapi()).unwrap();
        let mut operations = BTreeMap::new();
        for (path, methods) in description["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap().to_owned();
                operations.insert((method.to_uppercase(), path.clone()), id);
            }
        }
        operations
    }

    #[test]
    fn every_route_is_decided_once_and_called_as_the_description_calls_it() {
        let audited = AUDITED
            .iter()
            .map(|row| ((row.method.to_owned(), row.pattern.to_owned()), row.what));
        let silent = SILENT
            .iter()
            .map(|(method, path, what)| (((*method).to_owned(), (*path).to_owned()), *what));
        let decided: Vec<_> = audited.chain(silent).collect();
        let served: usize = SERVED.iter().map(|(_, methods)| methods.len()).sum();
        assert_eq!(
            decided.len(),
            served,
            "say in `AUDITED` or `SILENT` what a new route leaves in the audit"
        );
        let operations = operations();
        for (route, what) in &decided {
            assert_eq!(operations.get(route).map(String::as_str), Some(*what), "{route:?}");
        }
        assert_eq!(decided.into_iter().collect::<BTreeMap<_, _>>().len(), served);
    }

    #[test]
    fn what_ingests_or_is_for_an_admin_is_on_record_first() {
        for row in AUDITED {
            let needed = needed(row.method, Some(row.pattern));
            let first = matches!(needed, Scope::Ingest | Scope::Admin) || row.pattern == "/v1/feedback";
            assert_eq!(row.first, first, "{} {}", row.method, row.pattern);
        }
        for (method, pattern, _) in SILENT {
            assert_eq!(*method, "GET", "{pattern}");
            assert_ne!(needed(method, Some(pattern)), Scope::Admin, "{method} {pattern}");
        }
    }
}
