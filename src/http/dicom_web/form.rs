//! The form of a STOW-RS answer: DICOM JSON (PS3.18, Annex F) or the XML of PS3.19, as `Accept` says.

use actix_web::http::header::HeaderMap;

use super::accept::Accept;
use super::json::{DataSet, Value};
use super::search::JSON;
use super::tags;
use crate::error::{Error, ErrorKind, Result};

const DICOM_XML: &str = "application/dicom+xml";

/// How a data set is written: the DICOM JSON Model, or the Native DICOM Model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    media_type: &'static str,
}

impl Form {
    /// What the client likes best; JSON where it does not say.
    ///
    /// # Errors
    /// `NotAcceptable` where it takes neither; `InvalidRequest` for an `Accept` that is no text.
    pub fn read(headers: &HeaderMap) -> Result<Self> {
        let media_type = Accept::read(headers, None)?.choose(&[JSON[0], JSON[1], DICOM_XML])?;
        Ok(Self { media_type })
    }

    /// Its media type. Compared by clients letter by letter: without a parameter.
    pub const fn media_type(self) -> &'static str {
        self.media_type
    }

    /// A data set in this form.
    ///
    /// # Errors
    /// `Internal` for what can't be JSON.
    pub fn write(self, set: &DataSet) -> Result<String> {
        if self.media_type != DICOM_XML {
            let failed = |error| Error::with_source(ErrorKind::Internal, "a data set can't be written", error);
            return serde_json::to_string(set).map_err(failed);
        }
        let mut text = String::from(r#"<?xml version="1.0" encoding="UTF-8"?><NativeDicomModel>"#);
        xml(set, &mut text);
        text.push_str("</NativeDicomModel>");
        Ok(text)
    }
}

fn xml(set: &DataSet, text: &mut String) {
    for (tag, element) in set.iter() {
        let vr = element.vr.as_str();
        text.push_str(&format!(r#"<DicomAttribute tag="{tag}" vr="{vr}""#));
        if let Some(keyword) = tags::keyword(tag) {
            text.push_str(&format!(r#" keyword="{keyword}""#));
        }
        text.push('>');
        for (number, value) in (1..).zip(&element.values) {
            let value = match value {
                Value::Text(value) => escaped(value),
                Value::Whole(value) => value.to_string(),
                Value::Decimal(value) => value.to_string(),
                Value::Item(item) => {
                    text.push_str(&format!(r#"<Item number="{number}">"#));
                    xml(item, text);
                    text.push_str("</Item>");
                    continue;
                }
            };
            text.push_str(&format!(r#"<Value number="{number}">{value}</Value>"#));
        }
        text.push_str("</DicomAttribute>");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{self, HeaderValue};

    use super::super::json::Vr;
    use super::*;

    fn form(accept: &str) -> Result<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
        Form::read(&headers)
    }

    #[test]
    fn the_client_chooses_and_else_it_is_json() {
        for (accept, media_type) in [
            ("*/*", Some("application/dicom+json")),
            ("application/dicom+json", Some("application/dicom+json")),
            ("application/json", Some("application/json")),
            ("application/dicom+xml", Some("application/dicom+xml")),
            (
                "application/dicom+xml;q=0.5, application/dicom+json",
                Some("application/dicom+json"),
            ),
            (
                "application/dicom+json;q=0.5, application/dicom+xml",
                Some("application/dicom+xml"),
            ),
            ("text/html, */*;q=0.1", Some("application/dicom+json")),
            ("text/html", None),
            ("application/dicom+json;q=0", None),
        ] {
            assert_eq!(form(accept).ok().map(Form::media_type), media_type, "{accept}");
        }
        let none = Form::read(&HeaderMap::new()).unwrap();
        assert_eq!(none.media_type(), "application/dicom+json");
    }

    #[test]
    fn both_forms_say_the_same() {
        let mut item = DataSet::default();
        item.number(tags::WARNING_REASON, Vr::Us, 0xb006);
        let mut set = DataSet::default();
        set.text(tags::RETRIEVE_URL, Vr::Ur, "https://x.example/a&b").put(
            tags::REFERENCED_SOP_SEQUENCE,
            Vr::Sq,
            vec![Value::Item(item)],
        );
        assert_eq!(
            form("*/*").unwrap().write(&set).unwrap(),
            r#"{"00081190":{"vr":"UR","Value":["https://x.example/a&b"]},"00081199":{"vr":"SQ","Value":[{"00081196":{"vr":"US","Value":[45062]}}]}}"#
        );
        assert_eq!(
            form("application/dicom+xml").unwrap().write(&set).unwrap(),
            concat!(
                r#"<?xml version="1.0" encoding="UTF-8"?><NativeDicomModel>"#,
                r#"<DicomAttribute tag="00081190" vr="UR" keyword="RetrieveURL"><Value number="1">https://x.example/a&amp;b</Value></DicomAttribute>"#,
                r#"<DicomAttribute tag="00081199" vr="SQ" keyword="ReferencedSOPSequence"><Item number="1">"#,
                r#"<DicomAttribute tag="00081196" vr="US" keyword="WarningReason"><Value number="1">45062</Value></DicomAttribute>"#,
                "</Item></DicomAttribute></NativeDicomModel>"
            )
        );
    }
}
