//! Which class the tags of a DICOM file say: rules that an archive declares, held against each file as it is embedded. What they look at is kept nowhere.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::commit::{Propose, Proposed, base, commit};
use super::scope::{admits, checked, uids};
use super::{Archive, Manifest, ScopeFacts, State, UNSTATED};
use crate::domain::{ClassLabel, Label, LabelSource, LabelledBy, Unknown};
use crate::error::{Error, ErrorKind, Result};

/// Most rules of an archive.
const RULES_MAX: usize = 100;
/// Most patterns of one condition.
const PATTERNS_MAX: usize = 50;
/// Longest pattern, in characters: that of a value of one line (PS3.5, 6.2, VR LO), twice.
const PATTERN_CHARACTERS_MAX: usize = 128;
/// All rules together, as JSON: every manifest has them.
const BYTES_MAX: usize = 32 << 10;
/// Stands for any text, also none.
const ANY: char = '*';

/// One rule: which files it is for, and what these show. A file has to meet each condition that has values, by one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelRule {
    /// The class.
    pub class: ClassLabel,
    /// How it was proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_source: Option<LabelSource>,
    /// DICOM modalities. Here and in the next three whole values, without regard to letter case; [`UNSTATED`] for files that don't say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modality: Vec<String>,
    /// Body parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub body_part: Vec<String>,
    /// View positions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub view: Vec<String>,
    /// SOP classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sop_class: Vec<String>,
    /// Patterns of Study Description, and so on: whole values, without regard to letter case, with `*` for anything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub study_description: Vec<String>,
    /// Of Series Description.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series_description: Vec<String>,
    /// Of Protocol Name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protocol_name: Vec<String>,
    /// Of Image Comments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_comments: Vec<String>,
    /// Conditions of a later program.
    #[serde(flatten)]
    pub other: Unknown,
}

/// What of a file is held against rules; none: it does not say.
#[derive(Clone, Copy, Default)]
pub struct LabelFacts<'a> {
    /// Codes.
    pub codes: ScopeFacts<'a>,
    /// Study Description.
    pub study_description: Option<&'a str>,
    /// Series Description.
    pub series_description: Option<&'a str>,
    /// Protocol Name.
    pub protocol_name: Option<&'a str>,
    /// Image Comments.
    pub image_comments: Option<&'a str>,
}

/// The rules of an archive, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LabelRules(Vec<LabelRule>);

/// A rule as people write it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    class: ClassLabel,
    label_source: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    modality: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    body_part: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    view: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sop_class: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    study_description: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    series_description: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    protocol_name: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    image_comments: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Spanned<Written>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    rule: &'a [LabelRule],
}

impl LabelRules {
    /// Reads a file of rules: TOML, a table `[[rule]]` each.
    ///
    /// # Errors
    /// `InvalidRequest`, with the line.
    pub fn parse(text: &str) -> Result<Self> {
        let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let odd = |at: usize, message: &str| {
            let message = format!("line {}: {message}", line(at));
            Error::new(ErrorKind::InvalidRequest, message)
        };
        let file: File = toml::from_str(text).map_err(|error: toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start);
            odd(at, error.message())
        })?;
        if file.rule.len() > RULES_MAX {
            return Err(odd(
                file.rule[RULES_MAX].span().start,
                &format!("more than `{RULES_MAX}` rules"),
            ));
        }
        let mut rules = Vec::with_capacity(file.rule.len());
        for written in file.rule {
            let at = written.span().start;
            let rule = LabelRule::new(written.into_inner());
            rules.push(rule.map_err(|error| odd(at, error.message()))?);
        }
        let bytes = serde_json::to_vec(&rules).map_or(usize::MAX, |json| json.len());
        if bytes > BYTES_MAX {
            let message = format!("the rules take `{bytes}` bytes, more than `{BYTES_MAX}`");
            return Err(Error::new(ErrorKind::InvalidRequest, message));
        }
        Ok(Self(rules))
    }

    /// As [`LabelRules::parse`] reads them.
    ///
    /// # Errors
    /// `Internal`, where a later program's can't be written so.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(&Shown { rule: &self.0 })
            .map_err(|error| Error::with_source(ErrorKind::Internal, "rules can't be written as TOML", error))
    }

    /// The classes that they name, each once.
    pub fn classes(&self) -> BTreeSet<&ClassLabel> {
        self.0.iter().map(|rule| &rule.class).collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether one looks at free text.
    pub fn look_at_texts(&self) -> bool {
        let texts = |rule: &LabelRule| {
            rule.patterns(LabelFacts::default())
                .iter()
                .any(|(list, _)| !list.is_empty())
        };
        self.0.iter().any(texts)
    }

    /// What the first rule that a file meets says of it. Where that rule has a condition that is not known here, nothing is said.
    pub fn label(&self, facts: LabelFacts<'_>) -> Option<Label> {
        let rule = self.0.iter().find(|rule| rule.meets(facts))?;
        rule.other.is_empty().then(|| Label {
            class: Some(rule.class.clone()),
            label_source: rule.label_source.clone(),
            labelled_by: Some(LabelledBy::Tags),
        })
    }
}

impl LabelRule {
    fn new(written: Written) -> Result<Self> {
        let rule = Self {
            class: written.class,
            label_source: written.label_source.map(|source| source.parse()).transpose()?,
            modality: checked(written.modality)?,
            body_part: checked(written.body_part)?,
            view: checked(written.view)?,
            sop_class: uids(checked(written.sop_class)?)?,
            study_description: patterns(written.study_description)?,
            series_description: patterns(written.series_description)?,
            protocol_name: patterns(written.protocol_name)?,
            image_comments: patterns(written.image_comments)?,
            other: Unknown::new(),
        };
        let nothing = LabelFacts::default();
        let [codes, texts] = [rule.codes(nothing), rule.patterns(nothing)];
        if codes.iter().chain(&texts).all(|(list, _)| list.is_empty()) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                "a rule needs a condition: `modality`, `body_part`, `view`, `sop_class`, `study_description`, `series_description`, `protocol_name` or `image_comments`",
            ));
        }
        Ok(rule)
    }

    fn codes<'a>(&'a self, facts: LabelFacts<'a>) -> [(&'a [String], Option<&'a str>); 4] {
        [
            (&self.modality, facts.codes.modality),
            (&self.body_part, facts.codes.body_part),
            (&self.view, facts.codes.view),
            (&self.sop_class, facts.codes.sop_class),
        ]
    }

    fn patterns<'a>(&'a self, facts: LabelFacts<'a>) -> [(&'a [String], Option<&'a str>); 4] {
        [
            (&self.study_description, facts.study_description),
            (&self.series_description, facts.series_description),
            (&self.protocol_name, facts.protocol_name),
            (&self.image_comments, facts.image_comments),
        ]
    }

    fn meets(&self, facts: LabelFacts<'_>) -> bool {
        let mut codes = self.codes(facts).into_iter();
        let mut texts = self.patterns(facts).into_iter();
        codes.all(|(list, value)| admits(list, value)) && texts.all(|(list, value)| fits_one(list, value))
    }
}

/// Patterns as they are compared, each once.
fn patterns(values: Vec<String>) -> Result<Vec<String>> {
    let odd = |message: String| Error::new(ErrorKind::InvalidRequest, message);
    if values.len() > PATTERNS_MAX {
        return Err(odd(format!("a condition has at most `{PATTERNS_MAX}` patterns")));
    }
    let mut kept: Vec<String> = Vec::new();
    for value in values {
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        if value.is_empty() || value.chars().count() > PATTERN_CHARACTERS_MAX || value.chars().any(char::is_control) {
            return Err(odd(format!(
                "a pattern is 1 to {PATTERN_CHARACTERS_MAX} characters, with `{ANY}` for anything"
            )));
        }
        if !kept.contains(&value) {
            kept.push(value);
        }
    }
    Ok(kept)
}

/// Whether a text fits one of some patterns, or there are none; a text that is not said is [`UNSTATED`].
fn fits_one(patterns: &[String], text: Option<&str>) -> bool {
    if patterns.is_empty() {
        return true;
    }
    let words: Vec<&str> = text.unwrap_or_default().split_whitespace().collect();
    let text = words.join(" ").to_lowercase();
    patterns.iter().any(|pattern| match text.is_empty() {
        // What is not there fits no pattern by chance.
        true => pattern.eq_ignore_ascii_case(UNSTATED),
        false => fits(&pattern.to_lowercase(), &text),
    })
}

/// Whether `text` is what stands between the stars of `pattern`, in this order, with anything in their place. Each part is looked for once, where it comes
/// first: the time is that of a few searches, whatever the pattern.
fn fits(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once(ANY) else {
        return pattern == text;
    };
    let (middle, last) = rest.rsplit_once(ANY).unwrap_or(("", rest));
    let Some(inner) = text.strip_prefix(first).and_then(|text| text.strip_suffix(last)) else {
        return false;
    };
    let mut left = inner;
    middle.split(ANY).all(|part| match left.find(part) {
        Some(at) => {
            left = &left[at + part.len()..];
            true
        }
        None => false,
    })
}

impl Archive {
    /// Gives the archive other rules, for what is embedded from the next version on; what is in it stays as it is. `Ok` means that it is durable.
    ///
    /// # Errors
    /// `StorageFull`, `Unavailable`, `Damaged`.
    pub async fn set_label_rules(&self, rules: LabelRules) -> Result<Arc<Manifest>> {
        let base = base(self).await?;
        let state = commit(self, &base, &mut Ruled(rules)).await?;
        Ok(Arc::clone(&state.manifest))
    }
}

struct Ruled(LabelRules);

impl Propose for Ruled {
    async fn propose(&mut self, _: &Archive, base: &Arc<State>, _: &str) -> Result<Option<Proposed>> {
        if base.manifest.archive.label_rules == self.0 {
            return Ok(None);
        }
        let mut manifest = base.manifest.as_ref().clone();
        manifest.archive.label_rules = self.0.clone();
        Ok(Some(Proposed { manifest, rows: vec![] }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: &str = r#"
# The first that fits counts.
[[rule]]
class = "Normal"
label_source = "report"
modality = ["CR", "dx"]
study_description = ["*no finding*", "Thorax o.B."]

[[rule]]
class = "Viral Pneumonia"
body_part = ["CHEST", "UNSTATED"]
series_description = ["*viral*pneumonia*"]

[[rule]]
class = "Other"
modality = ["CR"]
protocol_name = ["UNSTATED"]
"#;

    fn class(rules: &LabelRules, facts: LabelFacts<'_>) -> Option<String> {
        rules.label(facts)?.class.map(|class| class.to_string())
    }

    fn of(modality: &'static str) -> LabelFacts<'static> {
        LabelFacts {
            codes: ScopeFacts {
                modality: Some(modality),
                ..ScopeFacts::default()
            },
            ..LabelFacts::default()
        }
    }

    #[test]
    fn the_first_rule_that_a_file_meets_counts() {
        let rules = LabelRules::parse(RULES).unwrap();
        assert!(rules.len() == 3 && rules.look_at_texts());
        let check = |facts, expected: Option<&str>| assert_eq!(class(&rules, facts).as_deref(), expected);
        let normal = LabelFacts {
            study_description: Some("Chest PA:  NO\tFINDING today"),
            ..of("DX")
        };
        check(normal, Some("Normal"));
        let label = rules.label(normal).unwrap();
        assert_eq!(label.label_source, Some(LabelSource::Report));
        assert_eq!(label.labelled_by, Some(LabelledBy::Tags));
        let umlaut = LabelFacts {
            study_description: Some("thorax O.B."),
            ..of("CR")
        };
        check(umlaut, Some("Normal"));
        let viral = LabelFacts {
            study_description: Some("No finding"),
            series_description: Some("Viral, maybe PNEUMONIA"),
            ..of("CT")
        };
        check(viral, Some("Viral Pneumonia"));
        // Nothing said of the body part is UNSTATED; another one is not.
        let hand = ScopeFacts {
            body_part: Some("HAND"),
            ..viral.codes
        };
        check(LabelFacts { codes: hand, ..viral }, None);
        check(of("CR"), Some("Other"));
        let named = LabelFacts {
            protocol_name: Some("thorax"),
            ..of("CR")
        };
        check(named, None);
        check(LabelFacts::default(), None);
        assert_eq!(LabelRules::default().label(viral), None);
    }

    #[test]
    fn a_condition_that_is_not_known_here_labels_nobody() {
        let mut rules = LabelRules::parse(RULES).unwrap();
        assert_eq!(class(&rules, of("CR")).as_deref(), Some("Other"));
        let unknown = Unknown::from_iter([("laterality".to_owned(), "L".into())]);
        rules.0[2].other = unknown;
        assert_eq!(class(&rules, of("CR")), None);
        let json = serde_json::to_value(&rules).unwrap();
        assert_eq!(json[2]["laterality"], "L");
        assert_eq!(serde_json::from_value::<LabelRules>(json).unwrap(), rules);
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        let rules = LabelRules::parse(RULES).unwrap();
        assert_eq!(LabelRules::parse(&rules.to_toml().unwrap()).unwrap(), rules);
        assert_eq!(LabelRules::parse("").unwrap(), LabelRules::default());
        assert_eq!(
            LabelRules::parse(&LabelRules::default().to_toml().unwrap()).unwrap(),
            LabelRules::default()
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let rule = |body: &str| format!("[[rule]]\nclass = \"A\"\nmodality = [\"CR\"]\n\n[[rule]]\n{body}\n");
        let many = "x".repeat(129);
        for (text, says) in [
            ("[[rule]]\nclass = \"A".to_owned(), "line 2: "),
            (
                rule("class = \"A\"\nmodalty = [\"CR\"]"),
                "line 7: unknown field `modalty`",
            ),
            (rule("modality = [\"CR\"]"), "line 5: missing field `class`"),
            (rule("class = \"_x\"\nmodality = [\"CR\"]"), "line 6: class name begins"),
            (rule("class = \"B\""), "line 5: a rule needs a condition"),
            (rule("class = \"B\"\nview = []"), "line 5: a rule needs a condition"),
            (rule("class = \"B\"\nmodality = \"CR\""), "line 7: invalid type"),
            (
                rule("class = \"B\"\nmodality = [\"C*\"]"),
                "line 5: `C*` is no modality",
            ),
            (
                rule("class = \"B\"\nlabel_source = \"x\"\nview = [\"PA\"]"),
                "line 5: `label_source` is one of",
            ),
            (
                rule(&format!("class = \"B\"\nprotocol_name = [\"{many}\"]")),
                "line 5: a pattern is",
            ),
            (rule("class = \"B\"\nprotocol_name = [\" \"]"), "line 5: a pattern is"),
            ("[[rules]]\n".to_owned(), "line 1: unknown field `rules`"),
        ] {
            let error = LabelRules::parse(&text).unwrap_err();
            assert!(error.message().contains(says), "{text}: {error}");
        }
        let rule = "[[rule]]\nclass = \"A\"\nmodality = [\"CR\"]\n";
        assert!(LabelRules::parse(&rule.repeat(RULES_MAX)).is_ok());
        let error = LabelRules::parse(&rule.repeat(RULES_MAX + 1)).unwrap_err();
        assert!(
            error.message().starts_with("line 301: more than `100` rules"),
            "{error}"
        );
        let long: String = (0..40).map(|number| format!("\"{number:0100}\",")).collect();
        let large = format!("[[rule]]\nclass = \"A\"\nprotocol_name = [{long}]\n").repeat(9);
        assert!(LabelRules::parse(&large).unwrap_err().message().contains("bytes"));
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, fit) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("*", "x", true),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*ab*b*", "abb", true),
            ("*ab*b*", "ab", false),
            ("a**b", "ab", true),
            ("*é*", "caféx", true),
        ] {
            assert_eq!(fits(pattern, text), fit, "{pattern} {text}");
        }
    }

    proptest! {
        /// By the definition, letter by letter.
        #[test]
        fn patterns_fit_as_they_are_defined(pattern in "[ab*]{0,8}", text in "[ab]{0,8}") {
            fn defined(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern.split_first(), text.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => {
                        defined(rest, text) || !text.is_empty() && defined(pattern, &text[1..])
                    }
                    (Some((a, pattern)), Some((b, text))) => a == b && defined(pattern, text),
                    _ => false,
                }
            }
            prop_assert_eq!(fits(&pattern, &text), defined(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
