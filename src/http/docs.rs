//! `GET /openapi.json`, `/docs`: the description of the API and a page to browse and try it, both without any other host.

use std::sync::{Arc, LazyLock};

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Path;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{HeaderBuilder, InfoBuilder, LicenseBuilder, Object, OpenApi, Ref, RefOr, Response, Type};
use utoipa_swagger_ui::Config;

use super::Api;
use super::access::{Scope, needed};
use crate::error::{Error, ErrorKind, Result};

/// The page's styles have pictures in them. It sets styles on its elements by script, which needs no exception.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// Headers that many responses have, by the names they are sent under.
const REQUEST_ID: &str = "X-Request-Id";
const RETRY_AFTER: &str = "Retry-After";
const SERVER_TIMING: &str = "Server-Timing";

static DESCRIPTION: LazyLock<String> = LazyLock::new(|| {
    openapi()
        .to_json()
        .expect("a description made of strings and numbers is JSON")
});

/// The description of the API, made of what the endpoints say about themselves.
pub fn openapi() -> OpenApi {
    let mut api = Api::openapi();
    api.info = InfoBuilder::new()
        .title("medsearch")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Medical image similarity search: the most similar known cases of an image, and what they suggest. \
             Research use only, not for diagnosis.",
        ))
        .license(Some(LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build()))
        .build();
    api.tags = Some(vec![
        TagBuilder::new()
            .name("search")
            .description(Some("Find similar cases"))
            .build(),
        TagBuilder::new()
            .name("archive")
            .description(Some("What is searched, and how it changes"))
            .build(),
    ]);
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A key of the server, or a token of its OpenID Connect issuer. Each operation names the scope that it needs; `admin` includes all others.",
        ))
        .build();
    let header = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
    let components = api.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    components.add_security_scheme("api_key", SecurityScheme::ApiKey(header));
    api.security = Some(security(None));
    let header = |of: Type, description: &str| {
        HeaderBuilder::new()
            .schema(Some(Object::with_type(of)))
            .description(Some(description))
            .build()
    };
    let components = api.components.get_or_insert_default();
    components.headers.insert(
        REQUEST_ID.into(),
        header(Type::String, "The request in the server's log").into(),
    );
    components
        .headers
        .insert(RETRY_AFTER.into(), header(Type::Integer, "Seconds to wait").into());
    components.headers.insert(
        SERVER_TIMING.into(),
        header(
            Type::String,
            "Milliseconds from the request's head to its answer, `total;dur=11.4`; a second one names the trace, \
             `traceparent;desc=\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"`",
        )
        .into(),
    );
    for (path, item) in &mut api.paths.paths {
        let timed = ["/v1/", "/dicom-web/"].iter().any(|below| path.starts_with(below));
        for (method, operation) in operations_of(item) {
            operation.security = Some(security(Some(needed(method, Some(path.as_str())))));
            for (status, response) in responses_of(operation) {
                add_headers(status, timed, response);
            }
        }
    }
    api
}

/// Either way to bring a key, with the scope that it needs.
fn security(scope: Option<Scope>) -> Vec<SecurityRequirement> {
    let scopes = || scope.map(Scope::as_str);
    vec![
        SecurityRequirement::new("bearer", scopes()),
        SecurityRequirement::new("api_key", scopes()),
        // A server on loopback without a key asks for none.
        SecurityRequirement::default(),
    ]
}

/// Each with its method as a request has it.
fn operations_of(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let operations = [
        ("GET", &mut item.get),
        ("POST", &mut item.post),
        ("PATCH", &mut item.patch),
        ("DELETE", &mut item.delete),
    ];
    operations
        .into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn responses_of(operation: &mut Operation) -> impl Iterator<Item = (&String, &mut Response)> {
    operation
        .responses
        .responses
        .iter_mut()
        .filter_map(|(status, response)| match response {
            RefOr::T(response) => Some((status, response)),
            RefOr::Ref(_) => None,
        })
}

/// The headers that do not depend on the endpoint.
fn add_headers(status: &str, timed: bool, response: &mut Response) {
    let mut add = |name: &str| {
        response.headers.insert(
            name.into(),
            RefOr::Ref(Ref::new(format!("#/components/headers/{name}"))),
        );
    };
    add(REQUEST_ID);
    if timed {
        add(SERVER_TIMING);
    }
    if matches!(status, "429" | "503") {
        add(RETRY_AFTER);
    }
}

/// The description as JSON.
pub async fn description() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(DESCRIPTION.as_str())
}

/// The page's files are named relative to it.
pub async fn redirect() -> HttpResponse {
    HttpResponse::PermanentRedirect()
        .insert_header((header::LOCATION, "/docs/"))
        .finish()
}

/// A file of the page.
pub async fn browser(name: Path<String>) -> Result<HttpResponse> {
    static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
        // The validator would be another host.
        Arc::new(
            Config::from("/openapi.json")
                .use_base_layout()
                .validator_url("none")
                .try_it_out_enabled(true),
        )
    });
    let file = utoipa_swagger_ui::serve(&name, Arc::clone(&CONFIG))
        .map_err(|error| Error::internal(format!("the page for the API: {error}")))?
        .ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such file"))?;
    let content_type = if file.content_type.starts_with("text/") {
        format!("{}; charset=utf-8", file.content_type)
    } else {
        file.content_type
    };
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(file.bytes.into_owned()))
}
