//! Which representation a client takes (RFC 9110, 12.5.1; PS3.18, 8.7).

use actix_web::http::header::{self, HeaderMap};

use crate::domain::MediaType;
use crate::domain::media_type::split;
use crate::error::{Error, ErrorKind, Result};

/// Most media ranges that are looked at.
const RANGES_MAX: usize = 32;
/// Transfer syntaxes in which pixels are given: whichever the server likes, and the one that it has.
const SYNTAXES: [&str; 2] = ["*", super::part10::EXPLICIT_LITTLE_ENDIAN];

/// A media range.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    media: String,
    /// Of `multipart/related`: what its parts are.
    parts: Option<String>,
    syntax: Option<String>,
    /// In thousandths; 0: not taken (RFC 9110, 12.4.2).
    quality: u16,
}

/// What a client takes, the best first; empty: anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accept(Vec<Range>);

impl Accept {
    /// From the query parameter `accept`, which wins, or the header.
    ///
    /// # Errors
    /// `InvalidRequest` for a header that is no text.
    pub fn read(headers: &HeaderMap, parameter: Option<&str>) -> Result<Self> {
        let mut ranges = Vec::new();
        if let Some(parameter) = parameter.filter(|text| !text.trim().is_empty()) {
            ranges = Self::parse(parameter);
        } else {
            for value in headers.get_all(header::ACCEPT) {
                let text = value
                    .to_str()
                    .map_err(|_| Error::new(ErrorKind::InvalidRequest, "`Accept` can't be read"))?;
                ranges.extend(Self::parse(text));
            }
        }
        ranges.truncate(RANGES_MAX);
        Ok(Self(ranges))
    }

    fn parse(text: &str) -> Vec<Range> {
        let mut ranges: Vec<Range> = split(text, ',').filter_map(range).collect();
        // Stable: of equals the first.
        ranges.sort_by_key(|range| std::cmp::Reverse(range.quality));
        ranges
    }

    /// The first of `offered`, the server's favourite first, that the client likes best.
    ///
    /// # Errors
    /// `NotAcceptable` where it takes none.
    pub fn choose<'a>(&self, offered: &[&'a str]) -> Result<&'a str> {
        if self.0.is_empty() {
            return offered.first().copied().ok_or_else(|| refused(offered));
        }
        let refused_by_name = |media: &str| self.0.iter().any(|range| range.quality == 0 && range.media == media);
        let best = self.taken().find_map(|range| {
            let fits = |media: &&&str| range.includes(media) && !refused_by_name(media);
            offered.iter().find(fits).copied()
        });
        best.ok_or_else(|| refused(offered))
    }

    fn taken(&self) -> impl Iterator<Item = &Range> {
        self.0.iter().filter(|range| range.quality > 0)
    }

    /// As [`Self::choose`], for parts of a `multipart/related`: a client may name these themselves, or what is around them.
    ///
    /// # Errors
    /// `NotAcceptable` where it takes none.
    pub fn choose_parts<'a>(&self, offered: &[&'a str]) -> Result<&'a str> {
        let of_parts = |range: &Range| match range.media.as_str() {
            "multipart/related" | "multipart/*" => Range {
                media: range.parts.clone().unwrap_or_else(|| "*/*".to_owned()),
                ..range.clone()
            },
            _ => range.clone(),
        };
        Self(self.0.iter().map(of_parts).collect()).choose(offered)
    }

    /// Whether parts of a media type are taken as they are stored here, and whether without `multipart/related` around a single one.
    ///
    /// # Errors
    /// `NotAcceptable` where they are not.
    pub fn parts(&self, media: &str) -> Result<Parts> {
        if self.0.is_empty() {
            return Ok(Parts::Related);
        }
        let found = self.taken().find_map(|range| {
            let syntax = range.syntax.as_deref();
            if !syntax.is_none_or(|syntax| SYNTAXES.contains(&syntax)) {
                return None;
            }
            if range.media == "multipart/related" || range.media == "multipart/*" {
                let parts = range.parts.as_deref();
                let fits = parts.is_none_or(|parts| includes(parts, media));
                return fits.then_some(Parts::Related);
            }
            match range.media.as_str() {
                "*/*" => Some(Parts::Related),
                exact => (exact == media).then_some(Parts::Single),
            }
        });
        found.ok_or_else(|| refused(&[&format!("multipart/related; type=\"{media}\"")]))
    }
}

/// How parts are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// In `multipart/related`.
    Related,
    /// One as the whole body.
    Single,
}

impl Range {
    fn includes(&self, media: &str) -> bool {
        includes(&self.media, media)
    }
}

fn includes(range: &str, media: &str) -> bool {
    range == "*/*" || range == media || range.strip_suffix('*').is_some_and(|kind| media.starts_with(kind))
}

fn refused(offered: &[&str]) -> Error {
    let message = format!("this is given as `{}` only", offered.join("`, `"));
    Error::new(ErrorKind::NotAcceptable, message)
}

/// A media range; none for one that can't be read.
fn range(text: &str) -> Option<Range> {
    let found = MediaType::parse(text);
    let mut media = found.name().to_ascii_lowercase();
    if media == "*" {
        media = "*/*".to_owned();
    }
    if !media.contains('/') {
        return None;
    }
    let parameter = |name| found.parameter(name).map(str::to_ascii_lowercase);
    let quality = |q: String| q.parse::<f32>().map_or(0, |q| (q.clamp(0.0, 1.0) * 1000.0) as u16);
    Some(Range {
        media,
        parts: parameter("type"),
        syntax: parameter("transfer-syntax"),
        quality: parameter("q").map_or(1000, quality),
    })
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn accept(text: &str) -> Accept {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(text).unwrap());
        Accept::read(&headers, None).unwrap()
    }

    #[test]
    fn the_client_chooses_and_else_the_server() {
        let offered = ["image/png", "image/jpeg"];
        for (text, chosen) in [
            ("*/*", Some("image/png")),
            ("image/*", Some("image/png")),
            ("image/jpeg, image/png", Some("image/jpeg")),
            ("image/jpeg;q=0.5, image/PNG", Some("image/png")),
            ("text/html, */*;q=0.1", Some("image/png")),
            ("image/gif", None),
            ("image/png;q=0", None),
            ("*/*, image/png;q=0", Some("image/jpeg")),
            ("*/*;q=0", None),
        ] {
            assert_eq!(accept(text).choose(&offered).ok(), chosen, "{text}");
        }
        assert_eq!(Accept(vec![]).choose(&offered).unwrap(), "image/png");
        let chosen = Accept::read(&HeaderMap::new(), Some("image/jpeg")).unwrap();
        assert_eq!(chosen.choose(&offered).unwrap(), "image/jpeg");
        assert_eq!(
            accept("image/gif").choose(&offered).unwrap_err().kind(),
            ErrorKind::NotAcceptable
        );
    }

    #[test]
    fn parts_are_chosen_by_themselves_or_by_what_is_around_them() {
        let offered = ["image/png", "image/jpeg"];
        for (text, chosen) in [
            ("*/*", Some("image/png")),
            ("image/jpeg", Some("image/jpeg")),
            ("multipart/related", Some("image/png")),
            (r#"multipart/related; type="image/jpeg""#, Some("image/jpeg")),
            (
                r#"multipart/related; type="image/gif", multipart/related; type="image/*";q=0.1"#,
                Some("image/png"),
            ),
            (r#"multipart/related; type="application/dicom""#, None),
            ("text/html", None),
        ] {
            assert_eq!(accept(text).choose_parts(&offered).ok(), chosen, "{text}");
        }
        assert_eq!(Accept(vec![]).choose_parts(&offered).unwrap(), "image/png");
    }

    #[test]
    fn json_is_what_clients_mean_by_it() {
        let offered = ["application/dicom+json", "application/json"];
        for (text, chosen) in [
            ("application/dicom+json, application/json", "application/dicom+json"),
            ("application/json", "application/json"),
            (
                "multipart/related; type=\"application/dicom+xml\", application/dicom+json",
                "application/dicom+json",
            ),
        ] {
            assert_eq!(accept(text).choose(&offered).unwrap(), chosen, "{text}");
        }
    }

    #[test]
    fn parts_are_taken_by_what_they_are_and_how_they_are_stored() {
        let octets = "application/octet-stream";
        for (text, parts) in [
            (r#"multipart/related; type="*/*""#, Some(Parts::Related)),
            (
                r#"multipart/related; type="application/octet-stream"; transfer-syntax=*"#,
                Some(Parts::Related),
            ),
            (
                "multipart/related; type=application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1",
                Some(Parts::Related),
            ),
            (
                r#"multipart/related; type="image/jp2"; transfer-syntax=1.2.840.10008.1.2.4.90"#,
                None,
            ),
            (
                r#"multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.4.90"#,
                None,
            ),
            (
                r#"multipart/related; type="image/jp2", multipart/related; type="application/octet-stream""#,
                Some(Parts::Related),
            ),
            ("application/octet-stream", Some(Parts::Single)),
            ("*/*", Some(Parts::Related)),
            ("text/html", None),
        ] {
            assert_eq!(accept(text).parts(octets).ok(), parts, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[ -~]{0,80}") {
            let _ = accept(&text).choose(&["image/png"]);
            let _ = accept(&text).parts("application/dicom");
        }
    }
}
