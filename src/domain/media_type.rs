//! Media types with their parameters (RFC 9110, 8.3.1), as `Content-Type`, `Accept` and the heads of parts have them.

/// Longest boundary: above the 70 characters of RFC 2046, since Orthanc sends 73.
const BOUNDARY_CHARACTERS_MAX: usize = 200;

/// A media type as it was written. What is in quotes is never taken for a separator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MediaType<'a> {
    name: &'a str,
    parameters: &'a str,
}

impl<'a> MediaType<'a> {
    /// Takes a text apart; whatever it is, it has a name, which may be empty.
    pub fn parse(text: &'a str) -> Self {
        let (name, parameters) = text.split_once(';').unwrap_or((text, ""));
        Self {
            name: name.trim(),
            parameters,
        }
    }

    /// What stands before the parameters: `multipart/related`.
    pub fn name(self) -> &'a str {
        self.name
    }

    /// Whether it is called so, in letters of any case.
    pub fn is(self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Names and values of its parameters, in their order. A value that stands in quotes comes without them; what is escaped there stays so.
    pub fn parameters(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        split(self.parameters, ';').filter_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            Some((name.trim(), unquoted(value.trim())))
        })
    }

    /// The value of a parameter; of two of a name the first.
    pub fn parameter(self, name: &str) -> Option<&'a str> {
        let named = |(found, _): &(&str, &str)| found.eq_ignore_ascii_case(name);
        self.parameters().find(named).map(|(_, value)| value)
    }

    /// What stands between the parts of a `multipart/…` (RFC 2046, 5.1.1): printable, without quotes and backslashes, of at most 200 characters.
    pub fn boundary(self) -> Option<&'a str> {
        let allowed = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
        let boundary = self.parameter("boundary")?;
        let fits = (1..=BOUNDARY_CHARACTERS_MAX).contains(&boundary.len()) && boundary.bytes().all(allowed);
        fits.then_some(boundary)
    }
}

fn unquoted(value: &str) -> &str {
    let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    inner.unwrap_or(value)
}

/// Parts between separators that are not in quotes. In quotes a backslash takes its meaning from what follows (RFC 9110, 5.6.4).
pub fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        if std::mem::take(&mut escaped) {
            return false;
        }
        escaped = quoted && c == '\\';
        quoted ^= c == '"';
        c == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn boundaries_are_found_however_they_are_written() {
        let long = "0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1-0f3cf5c0-70e0-41ef-baef-c6f9f65ec3e1";
        let orthanc = format!(r#"multipart/related; type="application/dicom"; boundary={long}"#);
        let too_long = format!("multipart/related; boundary={}", "a".repeat(201));
        for (text, boundary) in [
            (
                r#"multipart/related; type="application/dicom"; boundary="X""#,
                Some("X"),
            ),
            (orthanc.as_str(), Some(long)),
            ("multipart/related; type=application/dicom; boundary=X", Some("X")),
            ("Multipart/Related;BOUNDARY=X ; Type=\"Application/DICOM\"", Some("X")),
            (r#"multipart/related; boundary="a;b"; charset=utf-8"#, Some("a;b")),
            (
                r#"multipart/related; boundary="a; boundary=c;b""#,
                Some("a; boundary=c;b"),
            ),
            (r#"multipart/related; type="a\";boundary=b"; boundary=X"#, Some("X")),
            (r#"multipart/related; start="<a;boundary=b>";boundary=X"#, Some("X")),
            ("multipart/related; boundary=X; boundary=Y", Some("X")),
            (r#"multipart/related; boundary="a b=c""#, Some("a b=c")),
            ("multipart/related", None),
            (r#"multipart/related; boundary="""#, None),
            (r#"multipart/related; boundary="a\"b""#, None),
            ("multipart/related; boundary=é", None),
            (too_long.as_str(), None),
            ("", None),
        ] {
            assert_eq!(MediaType::parse(text).boundary(), boundary, "{text}");
        }
    }

    #[test]
    fn names_and_parameters_are_of_any_case() {
        let media = MediaType::parse(" Image/PNG ; Q = 0.5; odd; transfer-syntax=\"*\"");
        assert!(media.is("image/png") && media.name() == "Image/PNG");
        assert_eq!(media.parameter("q"), Some("0.5"));
        assert_eq!(media.parameter("Transfer-Syntax"), Some("*"));
        assert_eq!(media.parameter("odd"), None);
        assert_eq!(split(r#"a;b="x,y", "c\",d",e"#, ',').count(), 3);
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart(text in ".{0,120}") {
            let media = MediaType::parse(&text);
            prop_assert!(media.boundary().is_none_or(|boundary| text.contains(boundary)));
        }

        #[test]
        fn what_is_quoted_is_read_as_it_is(boundary in "[a-zA-Z0-9'()+_,./:=?; -]{1,80}", before in "[a-z;= ]{0,20}") {
            let text = format!("multipart/related; x=\"{before}\"; boundary=\"{boundary}\"; y=z");
            prop_assert_eq!(MediaType::parse(&text).boundary(), Some(boundary.as_str()));
        }
    }
}
