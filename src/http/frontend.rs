//! `GET /`, `/assets/{name}`: the page, embedded in the program.

use std::sync::LazyLock;

use actix_web::http::header::{self, EntityTag, Header, IfNoneMatch};
use actix_web::web::Path;
use actix_web::{HttpRequest, HttpResponse};

use crate::error::{Error, ErrorKind, Result};

/// Everything the page may do: its own scripts and styles, pictures of this server or made in the browser, requests to this server. No text becomes
/// HTML or script (Trusted Types).
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
     connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// A file of `frontend/`.
struct File {
    name: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        &[$(File { name: $name, bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/frontend/", $name)) }),+]
    };
}
/// All files of `frontend/`: a test compares.
const FILES: &[File] = files![
    "about.js",
    "account.js",
    "api.js",
    "app.js",
    "classes.js",
    "compare.css",
    "compare.js",
    "copies.js",
    "dom.js",
    "examples.js",
    "explain.js",
    "frames.js",
    "heat.js",
    "icon.svg",
    "images.js",
    "index.html",
    "options.js",
    "paper.css",
    "paper.js",
    "past.js",
    "problems.js",
    "progress.js",
    "query.js",
    "region.css",
    "region.js",
    "report.js",
    "results.css",
    "results.js",
    "style.css",
    "theme.js",
    "tile.js",
    "upload.js",
    "verdict.js",
    "view.js",
    "words.js"
];

/// Names and contents don't change while the program runs; the tag tells a browser whether the next program has others.
static TAGS: LazyLock<Vec<EntityTag>> = LazyLock::new(|| {
    FILES
        .iter()
        .map(|file| EntityTag::new_strong(blake3::hash(file.bytes).to_hex()[..32].to_owned()))
        .collect()
});

/// The page.
pub async fn index(request: HttpRequest) -> Result<HttpResponse> {
    serve(&request, "index.html")
}

/// A file that the page uses.
pub async fn asset(request: HttpRequest, name: Path<String>) -> Result<HttpResponse> {
    serve(&request, &name)
}

fn serve(request: &HttpRequest, name: &str) -> Result<HttpResponse> {
    let found = FILES.iter().zip(TAGS.iter()).find(|(file, _)| file.name == name);
    let (file, tag) = found.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such file"))?;
    let known = match IfNoneMatch::parse(request) {
        Ok(IfNoneMatch::Any) => true,
        Ok(IfNoneMatch::Items(tags)) => tags.iter().any(|other| other.weak_eq(tag)),
        Err(_) => false,
    };
    let mut response = if known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .insert_header(header::ETag(tag.clone()))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY));
    if known {
        return Ok(response.finish());
    }
    Ok(response
        .insert_header((header::CONTENT_TYPE, content_type(file.name)))
        .body(file.bytes))
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_list_is_the_folder() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/frontend")).unwrap();
        let folder: BTreeSet<String> = folder
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let list: BTreeSet<String> = FILES.iter().map(|file| file.name.to_owned()).collect();
        assert_eq!(list, folder, "add the files to `FILES`");
    }

    #[test]
    fn every_file_has_a_type() {
        for file in FILES {
            assert_ne!(content_type(file.name), "application/octet-stream", "{}", file.name);
        }
    }
}
