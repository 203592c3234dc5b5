//! Architecture rules as tests: who may use whom, which crate lives where, what never stands in the code.
//!
//! Plain text scanning: comments, string contents and test modules are blanked out first, so that a rule looks at code alone.
//! Each rule is a function from a file to its violations; each is tried on planted text too, because a rule that finds nothing may be blind.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the top down. A file uses layers of lower rows only: never up, never sideways.
/// `ARCHITECTURE.md` says what each is for.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["app"],
    &["http"],
    &["pacs", "quality"],
    &["ingest"],
    &["search"],
    &["embed", "cluster"],
    &["imaging", "index"],
    &["archive"],
    &["domain"],
];

/// Modules that every layer may use; they use nothing but the vocabulary and each other.
const COMMON: &[&str] = &["error", "metrics", "telemetry", "tls", "audit", "bounded"];

/// A crate (a name ending in `_` is a family) and the only places under src/ that may name it.
const HOMES: &[(&str, &[&str])] = &[
    ("actix_web", &["http/", "app.rs", "app/"]),
    ("actix_multipart", &["http/"]),
    ("tch", &["embed/torch.rs"]),
    ("usearch", &["index/hnsw.rs"]),
    ("dicom_core", &["imaging/dicom/"]),
    ("dicom_dictionary_std", &["imaging/dicom/"]),
    ("dicom_object", &["imaging/dicom/"]),
    ("dicom_transfer_syntax_registry", &["imaging/dicom/"]),
    ("object_store", &["archive/"]),
    ("opentelemetry", &["telemetry/"]),
    ("opentelemetry_", &["telemetry/"]),
    ("tracing_opentelemetry", &["telemetry/"]),
    ("rustls", &["tls/"]),
    ("x509_cert", &["tls/"]),
];

/// Who may read the environment: settings, and the pool that hands the loader's variables on to its workers.
const ENVIRONMENT_READERS: &[&str] = &["cli.rs", "cli/", "imaging/dicom/pool.rs"];

/// Where no function may be async: values and pure decisions, which a test can call without a runtime.
const SYNCHRONOUS: &[&str] = &[
    "audit/chain.rs",
    "audit/event.rs",
    "audit/files.rs",
    "audit/verify.rs",
    "audit/writer.rs",
    "domain/",
    "imaging/",
    "index/",
    "ingest/labels_file.rs",
    "pacs/base.rs",
    "pacs/choose.rs",
    "pacs/multipart.rs",
    "pacs/part10.rs",
    "pacs/reference.rs",
    "pacs/settings.rs",
    "http/audited/routes.rs",
    "http/access/key.rs",
    "http/access/keys.rs",
    "http/access/needs.rs",
    "http/access/oidc/claims.rs",
    "http/access/oidc/fault.rs",
    "http/access/oidc/jwk.rs",
    "http/access/oidc/jws.rs",
    "http/access/oidc/roles.rs",
    "http/access/oidc/sealed.rs",
    "http/access/oidc/session.rs",
    "http/access/refusal.rs",
    "http/access/scope.rs",
    "http/rate/",
    "quality/asked.rs",
    "quality/calibrated.rs",
    "quality/calibration.rs",
    "quality/confidence.rs",
    "quality/conformal.rs",
    "quality/distribution.rs",
    "quality/card/",
    "quality/report/",
    "search/calibrate.rs",
    "search/occlusion.rs",
    "search/plan.rs",
    "search/merge.rs",
    "search/shares.rs",
    "search/vote.rs",
    "search/warn.rs",
    "embed/batcher.rs",
];

#[test]
fn layers_are_used_downwards_only() {
    check(each_source(layer_violations));
}

#[test]
fn each_framework_stays_in_its_place() {
    check(each_source(home_violations));
}

#[test]
fn the_environment_is_read_by_the_command_line_only() {
    check(each_source(environment_violations));
}

#[test]
fn pure_parts_are_not_async() {
    check(each_source(async_violations));
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    check(each_source(unwrap_violations));
}

#[test]
fn nothing_is_left_open() {
    check(each_text(open_ends));
}

#[test]
fn no_path_of_a_machine_is_written_down() {
    check(each_text(machine_paths));
}

#[test]
fn the_scanner_sees_code_and_nothing_else() {
    let code = code_of(
        "use a::b; // crate::comment\n/* outer /* inner */ still */ let s = \"crate::string \\\" more\"; let c = '\"';\n\
         let r = r#\"raw \" .unwrap()\"#; fn f<'a>(x: &'a str) {}\n#[cfg(test)]\nmod tests { fn t() { x.unwrap(); } }\nfn after() {}",
    );
    for gone in ["comment", "inner", "still", "string", "raw", "unwrap"] {
        assert!(!code.contains(gone), "`{gone}` is still there:\n{code}");
    }
    for kept in [
        "use a::b;",
        "let s =",
        "let c =",
        "fn f<'a>(x: &'a str) {}",
        "fn after() {}",
    ] {
        assert!(code.contains(kept), "`{kept}` is lost:\n{code}");
    }
    assert_eq!(code.lines().count(), 6, "line numbers stay");
}

#[test]
fn files_for_tests_are_known_by_their_declaration() {
    let text = "#[cfg(test)]\nmod testing;\n#[cfg(test)]\npub(crate) mod fixtures;\nmod real;\n#[cfg(test)]\nuse a::b;";
    assert_eq!(
        test_modules("imaging/mod.rs", text),
        ["imaging/testing", "imaging/fixtures"]
    );
    assert_eq!(test_modules("lib.rs", text), ["testing", "fixtures"]);
}

#[test]
fn each_rule_finds_what_is_planted() {
    type Rule = fn(&str, &str) -> Vec<String>;
    // One row a line reads as a table.
    #[rustfmt::skip]
    let planted: &[(Rule, &str, &str, bool)] = &[
        (layer_violations, "archive/rows.rs", "use crate::index::Snapshot;", true),
        (layer_violations, "imaging/png.rs", "use crate::index::Snapshot;", true),
        (layer_violations, "search/mod.rs", "fn f() { crate::http::serve() }", true),
        (layer_violations, "archive/rows.rs", "use crate::{domain::Record, search::merge};", true),
        (layer_violations, "archive/rows.rs", "use crate::{\n    domain::{Record, Key},\n    http,\n};", true),
        (layer_violations, "archive/store/mod.rs", "use super::super::http::Parts;", true),
        (layer_violations, "archive/rows.rs", "use super::super::http::Parts;", true),
        (layer_violations, "error.rs", "use crate::archive::Archive;", true),
        (layer_violations, "helpers/mod.rs", "fn f() {}", true),
        (layer_violations, "search/mod.rs", "use crate::index::Snapshot; use crate::error::Result;", false),
        (layer_violations, "archive/store/mod.rs", "use super::rows::RowsObject;", false),
        (layer_violations, "main.rs", "use medsearch::cli;", false),
        (layer_violations, "domain/ask.rs", "//! as crate::http does\nuse crate::error::Error;", false),
        (home_violations, "search/mod.rs", "use actix_web::web;", true),
        (home_violations, "embed/batcher.rs", "let t = tch::Tensor::new();", true),
        (home_violations, "index/exact.rs", "use usearch::Index;", true),
        (home_violations, "http/images.rs", "use dicom_object::from_reader;", true),
        (home_violations, "ingest/bulk.rs", "let dicom_bytes = batch.patch(1);", false),
        (home_violations, "http/images.rs", "use actix_multipart::Multipart;", false),
        (home_violations, "cluster/fan_out.rs", "use opentelemetry::Context;", true),
        (home_violations, "http/observe.rs", "use tracing_opentelemetry::OpenTelemetrySpanExt;", true),
        (home_violations, "telemetry/otlp.rs", "use opentelemetry_sdk::Resource;", false),
        (environment_violations, "archive/mod.rs", "std::env::var(\"HOME\")", true),
        (environment_violations, "archive/mod.rs", "use std::env;\nfn f() { env::var_os(\"A\"); }", true),
        (environment_violations, "cli/settings.rs", "std::env::var(\"HOME\")", false),
        (environment_violations, "http/mod.rs", "env!(\"CARGO_PKG_VERSION\")", false),
        (async_violations, "domain/ask.rs", "pub async fn ask() {}", true),
        (async_violations, "search/merge.rs", "tokio::spawn(f);", true),
        (async_violations, "search/mod.rs", "pub async fn ask() {}", false),
        (unwrap_violations, "app.rs", "let x = y\n    .unwrap();", true),
        (unwrap_violations, "app.rs", "todo!()", true),
        (unwrap_violations, "app.rs", "y.unwrap_or(3); y.expect(\"a reason\");", false),
        (unwrap_violations, "app.rs", "#[cfg(test)]\nmod tests { fn t() { y.unwrap(); } }", false),
        (open_ends, "README.md", concat!("soon: TO", "DO"), true),
        (open_ends, "README.md", "the toddler's method", false),
        (machine_paths, "scripts/x", concat!("cd /ro", "ot/x"), true),
        (machine_paths, "scripts/x", "cd ../work/x; https://example.org/work/x", false),
    ];
    for (rule, path, text, wanted) in planted {
        let found = rule(path, text);
        assert_eq!(!found.is_empty(), *wanted, "{path}: {text}\nfound: {found:?}");
    }
}

// ---- rules ----

fn layer_violations(path: &str, text: &str) -> Vec<String> {
    let here = module_of(path);
    if path == "lib.rs" {
        return Vec::new();
    }
    let Some(own_rank) = rank(&here[0]) else {
        return vec![format!(
            "{path}: `{}` has no place among the layers: add it to LAYERS and to ARCHITECTURE.md",
            here[0]
        )];
    };
    let code = code_of(text);
    let mut uses = Vec::new();
    for (at, word) in words(&code) {
        let Some(rest) = code[at + word.len()..].strip_prefix("::") else {
            continue;
        };
        if word == "crate" || word == "medsearch" {
            uses.extend(first_segments(rest).into_iter().map(|name| (at, name)));
        } else if word == "super" && !code[..at].ends_with("super::") {
            // As many `super` as the module is deep lead to the root of the crate.
            let mut above = 1;
            let mut rest = rest;
            while let Some(further) = rest.strip_prefix("super::") {
                above += 1;
                rest = further;
            }
            if above >= here.len() {
                uses.extend(first_segments(rest).into_iter().map(|name| (at, name)));
            }
        }
    }
    uses.into_iter()
        .filter(|(_, name)| *name != here[0] && !COMMON.contains(&name.as_str()))
        .filter(|(_, name)| rank(name).is_none_or(|theirs| theirs <= own_rank))
        .filter(|(_, name)| name.chars().next().is_some_and(char::is_lowercase))
        .map(|(at, name)| {
            format!(
                "{path}:{}: `{}` uses `{name}`, which is not below it",
                line(&code, at),
                here[0]
            )
        })
        .collect()
}

fn home_violations(path: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let mut found = Vec::new();
    for (at, word) in words(&code) {
        let is_crate = code[at + word.len()..].starts_with("::") || code[..at].trim_end().ends_with("use");
        for (name, homes) in HOMES {
            let named = if name.ends_with('_') {
                word.starts_with(name)
            } else {
                word == *name
            };
            if named && is_crate && !within(path, homes) && !code[..at].ends_with("::") {
                found.push(format!(
                    "{path}:{}: `{word}` belongs to {}",
                    line(&code, at),
                    homes.join(", ")
                ));
            }
        }
    }
    found
}

fn environment_violations(path: &str, text: &str) -> Vec<String> {
    if within(path, ENVIRONMENT_READERS) {
        return Vec::new();
    }
    let code = code_of(text);
    ["env::var", "env::set_var", "env::remove_var"]
        .iter()
        .flat_map(|call| code.match_indices(call))
        .map(|(at, call)| {
            format!(
                "{path}:{}: `{call}` outside cli/: take a setting instead",
                line(&code, at)
            )
        })
        .collect()
}

fn async_violations(path: &str, text: &str) -> Vec<String> {
    if !within(path, SYNCHRONOUS) {
        return Vec::new();
    }
    let code = code_of(text);
    words(&code)
        .filter(|(_, word)| matches!(*word, "async" | "await" | "tokio" | "futures_util"))
        .map(|(at, word)| format!("{path}:{}: `{word}` in a synchronous part", line(&code, at)))
        .collect()
}

fn unwrap_violations(path: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    [".unwrap()", ".unwrap_err()", "todo!", "unimplemented!", "dbg!"]
        .iter()
        .flat_map(|call| code.match_indices(call))
        .map(|(at, call)| {
            format!(
                "{path}:{}: `{call}`: pass the error on, or `expect` with the reason it can't fail",
                line(&code, at)
            )
        })
        .collect()
}

fn open_ends(path: &str, text: &str) -> Vec<String> {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    words(text)
        .filter(|(_, word)| marks.contains(word))
        .map(|(at, word)| format!("{path}:{}: `{word}`: do it, or file an issue", line(text, at)))
        .collect()
}

fn machine_paths(path: &str, text: &str) -> Vec<String> {
    let roots = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/fa", "rm/")];
    roots
        .iter()
        .flat_map(|root| text.match_indices(root))
        // `../work/` and `https://host/work/` are no absolute paths.
        .filter(|(at, _)| !text[..*at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '}')))
        .map(|(at, root)| format!("{path}:{}: `{root}` is a folder of one machine", line(text, at)))
        .collect()
}

// ---- the scanner ----

/// The text with comments, the contents of strings and everything under `#[cfg(test)]` blanked; line breaks stay.
fn code_of(text: &str) -> String {
    without_tests(&without_prose(text))
}

fn without_prose(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut i = 0;
    while i < chars.len() {
        let start = i;
        let word_before = i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_');
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                while i < chars.len() {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            'r' if (!word_before || at(i - 1) == 'b') && raw_hashes(&chars[i + 1..]).is_some() => {
                let hashes = raw_hashes(&chars[i + 1..]).unwrap_or(0);
                i += 2 + hashes;
                while i < chars.len() && !(at(i) == '"' && (1..=hashes).all(|n| at(i + n) == '#')) {
                    i += 1;
                }
                i += 1 + hashes;
            }
            '"' => {
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
            }
            // A character; a lifetime has no closing quote this near.
            '\'' if at(i + 1) == '\\' => {
                i += 3;
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            '\'' if at(i + 2) == '\'' => i += 3,
            c => {
                out.push(c);
                i += 1;
                continue;
            }
        }
        out.extend(
            chars[start..i.min(chars.len())]
                .iter()
                .map(|c| if *c == '\n' { '\n' } else { ' ' }),
        );
    }
    out
}

/// Number of `#` when a raw string begins here (after its `r`).
fn raw_hashes(rest: &[char]) -> Option<usize> {
    let hashes = rest.iter().take_while(|c| **c == '#').count();
    (rest.get(hashes) == Some(&'"')).then_some(hashes)
}

fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = ["#[cfg(test)]", "#[cfg(all(test", "#[test]"]
        .iter()
        .filter_map(|mark| out.find(mark))
        .min()
    {
        let mut depth = 0usize;
        let mut end = out.len();
        for (offset, c) in out[start..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && matches!(c, '}' | ';') {
                end = start + offset + c.len_utf8();
                break;
            }
        }
        let blank: String = out[start..end].chars().filter(|c| *c == '\n').collect();
        out.replace_range(start..end, &blank);
    }
    out
}

/// Every identifier with its byte position.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    text.split(move |c| !inside(c))
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
}

/// What a path goes on with: one name, or the first name of each branch of `{…}`.
fn first_segments(rest: &str) -> Vec<String> {
    let name = |text: &str| {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let mut depth = 1;
    let mut branch = String::new();
    let mut found = Vec::new();
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => found.push(name(std::mem::take(&mut branch).trim())),
            _ if depth == 1 => branch.push(c),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found.push(name(branch.trim()));
    found.retain(|name| !name.is_empty());
    found
}

/// `search/merge.rs` is the module `search::merge`, `search/mod.rs` is `search`.
fn module_of(path: &str) -> Vec<String> {
    let stem = path.trim_end_matches(".rs");
    stem.strip_suffix("/mod")
        .unwrap_or(stem)
        .split('/')
        .map(str::to_owned)
        .collect()
}

/// Higher is lower in the building; `COMMON` modules stand just above the vocabulary.
fn rank(module: &str) -> Option<usize> {
    if COMMON.contains(&module) {
        return Some(LAYERS.len() - 2);
    }
    LAYERS.iter().position(|row| row.contains(&module))
}

fn within(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| {
        if place.ends_with('/') {
            path.starts_with(place)
        } else {
            path == *place
        }
    })
}

fn line(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

// ---- the files ----

/// Runs a rule over the library's own code; files that are compiled for tests alone are left out.
fn each_source(rule: fn(&str, &str) -> Vec<String>) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources: Vec<(String, String)> = files_below(&root)
        .iter()
        .map(|file| (name_of(&root, file), file))
        .filter(|(name, _)| name.ends_with(".rs"))
        .map(|(name, file)| (name, read(file)))
        .collect();
    assert!(sources.len() > 5, "found only {} files below src/", sources.len());
    let for_tests: Vec<String> = sources
        .iter()
        .flat_map(|(name, text)| test_modules(name, text))
        .collect();
    sources.retain(|(name, _)| {
        let module = module_of(name);
        !(1..=module.len()).any(|depth| for_tests.contains(&module[..depth].join("/")))
    });
    sources.iter().flat_map(|(name, text)| rule(name, text)).collect()
}

/// The modules that a file declares as `#[cfg(test)] mod name;`, as paths without ending.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let code = without_prose(text);
    code.match_indices("#[cfg(test)]")
        .filter_map(|(at, mark)| {
            let item = code[at + mark.len()..].split([';', '{']).next()?;
            let name = item.trim().rsplit_once("mod ")?.1.trim();
            let parent = if matches!(path, "lib.rs" | "main.rs") {
                String::new()
            } else {
                module_of(path).join("/") + "/"
            };
            Some(format!("{parent}{name}"))
        })
        .collect()
}

/// Runs a rule over every text that people write here.
fn each_text(rule: fn(&str, &str) -> Vec<String>) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    files_below(root)
        .iter()
        .filter_map(|file| Some((name_of(root, file), fs::read_to_string(file).ok()?)))
        .flat_map(|(name, text)| rule(&name, &text))
        .collect()
}

/// All files but those that a build, a run or a user puts there.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    const MADE_AT_THE_TOP: &[&str] = &["target", "models", "archive", "data", "embeddings", "vendor"];
    const MADE_ANYWHERE: &[&str] = &["target", "node_modules", "__pycache__", "corpus", "artifacts"];
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next)
            .expect("a folder of the checkout can be listed")
            .flatten()
        {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let hidden = name.starts_with('.')
                && !matches!(
                    name.as_str(),
                    ".ci" | ".github" | ".cargo" | ".gitignore" | ".dockerignore"
                );
            if hidden
                || MADE_ANYWHERE.contains(&name.as_str())
                || (next == top && MADE_AT_THE_TOP.contains(&name.as_str()))
            {
                continue;
            }
            if path.is_dir() {
                folders.push(path)
            } else {
                found.push(path)
            }
        }
    }
    found.sort();
    found
}

fn name_of(root: &Path, file: &Path) -> String {
    file.strip_prefix(root)
        .expect("it was found below the root")
        .to_string_lossy()
        .replace('\\', "/")
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn check(violations: Vec<String>) {
    assert!(
        violations.is_empty(),
        "{} violations:\n{}",
        violations.len(),
        violations.join("\n")
    );
}
