//! The form of a STOW-RS answer: DICOM JSON (PS3.18, Annex F) or the XML of PS3.19, as `Accept` says.

use actix_web::http::header::{self, HeaderMap};

use super::stored::{Attribute, Value};
use crate::error::{Error, ErrorKind, Result};

/// Compared by clients letter by letter: no parameter.
pub const DICOM_JSON: &str = "application/dicom+json";
const DICOM_XML: &str = "application/dicom+xml";
/// Most media ranges that are looked at.
const RANGES_MAX: usize = 32;

/// How a data set is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// DICOM JSON Model.
    Json,
    /// Native DICOM Model.
    Xml,
}

impl Form {
    /// What the client likes best; JSON where it does not say, or likes both as much.
    ///
    /// # Errors
    /// `NotAcceptable` where it takes neither.
    pub fn read(headers: &HeaderMap) -> Result<Self> {
        let values = headers.get_all(header::ACCEPT);
        let text: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        Self::choose(&text.join(","))
    }

    fn choose(accept: &str) -> Result<Self> {
        if accept.trim().is_empty() {
            return Ok(Self::Json);
        }
        let (mut json, mut xml) = (0.0_f32, 0.0_f32);
        for range in accept.split(',').take(RANGES_MAX) {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts
                .filter_map(|part| part.split_once('='))
                .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
                .map_or(1.0, |(_, value)| value.trim().parse::<f32>().unwrap_or(0.0));
            match media.as_str() {
                "*" | "*/*" | "application/*" => {
                    json = json.max(quality);
                    xml = xml.max(quality);
                }
                DICOM_JSON | "application/json" => json = json.max(quality),
                DICOM_XML => xml = xml.max(quality),
                _ => {}
            }
        }
        if xml > json {
            Ok(Self::Xml)
        } else if json > 0.0 {
            Ok(Self::Json)
        } else {
            let message = format!("the answer is given as `{DICOM_JSON}` or `{DICOM_XML}` only");
            Err(Error::new(ErrorKind::NotAcceptable, message))
        }
    }

    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => DICOM_JSON,
            Self::Xml => DICOM_XML,
        }
    }

    /// A data set in this form.
    pub fn write(self, set: &[Attribute]) -> String {
        match self {
            Self::Json => json(set).to_string(),
            Self::Xml => {
                let mut text = String::from(r#"<?xml version="1.0" encoding="UTF-8"?><NativeDicomModel>"#);
                xml(set, &mut text);
                text.push_str("</NativeDicomModel>");
                text
            }
        }
    }
}

fn json(set: &[Attribute]) -> serde_json::Value {
    let mut map = serde_json::Map::new();
    for attribute in set {
        let values: Vec<serde_json::Value> = attribute
            .values
            .iter()
            .map(|value| match value {
                Value::Text(text) => text.as_str().into(),
                Value::Number(number) => (*number).into(),
                Value::Item(item) => json(item),
            })
            .collect();
        let mut element = serde_json::Map::new();
        element.insert("vr".to_owned(), attribute.vr.into());
        // An empty element has no `Value` (F.2.5).
        if !values.is_empty() {
            element.insert("Value".to_owned(), values.into());
        }
        map.insert(format!("{:08X}", attribute.tag), element.into());
    }
    map.into()
}

fn xml(set: &[Attribute], text: &mut String) {
    for attribute in set {
        let (tag, vr, keyword) = (attribute.tag, attribute.vr, attribute.keyword);
        text.push_str(&format!(
            r#"<DicomAttribute tag="{tag:08X}" vr="{vr}" keyword="{keyword}">"#
        ));
        for (number, value) in (1..).zip(&attribute.values) {
            match value {
                Value::Text(value) => text.push_str(&format!(r#"<Value number="{number}">{}</Value>"#, escaped(value))),
                Value::Number(value) => text.push_str(&format!(r#"<Value number="{number}">{value}</Value>"#)),
                Value::Item(item) => {
                    text.push_str(&format!(r#"<Item number="{number}">"#));
                    xml(item, text);
                    text.push_str("</Item>");
                }
            }
        }
        text.push_str("</DicomAttribute>");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_chooses_and_else_it_is_json() {
        for (accept, form) in [
            ("", Some(Form::Json)),
            ("*/*", Some(Form::Json)),
            ("application/dicom+json", Some(Form::Json)),
            ("application/json", Some(Form::Json)),
            ("application/dicom+xml", Some(Form::Xml)),
            ("application/dicom+xml;q=0.5, application/dicom+json", Some(Form::Json)),
            ("application/dicom+json;q=0.5, application/dicom+xml", Some(Form::Xml)),
            ("text/html, */*;q=0.1", Some(Form::Json)),
            ("text/html", None),
            ("application/dicom+json;q=0", None),
        ] {
            assert_eq!(Form::choose(accept).ok(), form, "{accept}");
        }
    }
}
