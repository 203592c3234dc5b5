//! A document in parts, for readers of JSON, and as Markdown. Everything from the archive is text, never markup.

use serde::Serialize;
use utoipa::ToSchema;

/// A model card or a datasheet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Document {
    /// Its title.
    pub title: String,
    /// What it is of, in a sentence.
    pub lead: String,
    /// The archive's version that it was made of.
    pub archive_version: u64,
    /// Its sections, in the order of the literature.
    pub sections: Vec<Section>,
}

/// A section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Section {
    /// A stable name, for example `intended-use`.
    #[schema(example = "intended-use")]
    pub id: String,
    /// Its heading.
    pub title: String,
    /// What stands in it.
    pub blocks: Vec<Block>,
}

/// A part of a section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Block {
    /// A paragraph.
    Text {
        /// Its words.
        text: String,
    },
    /// Terms with what is known of each.
    Facts {
        /// In order.
        facts: Vec<Fact>,
    },
    /// A list of sentences.
    List {
        /// In order.
        items: Vec<String>,
    },
    /// A table.
    Table(Table),
}

/// A term and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fact {
    /// For example `Licence`.
    pub term: String,
    /// For example `CC BY 4.0`, or `not known`.
    pub value: String,
}

/// A table; each row has a cell for each column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Table {
    /// What it shows.
    pub caption: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Rows of text.
    pub rows: Vec<Vec<String>>,
}

impl Section {
    pub(super) fn new(id: &str, title: &str) -> Self {
        Self {
            id: id.to_owned(),
            title: title.to_owned(),
            blocks: vec![],
        }
    }

    pub(super) fn text(mut self, text: impl Into<String>) -> Self {
        self.blocks.push(Block::Text { text: text.into() });
        self
    }

    pub(super) fn facts<T: Into<String>>(mut self, facts: impl IntoIterator<Item = (&'static str, T)>) -> Self {
        let fact = |(term, value): (&str, T)| Fact {
            term: term.to_owned(),
            value: value.into(),
        };
        self.blocks.push(Block::Facts {
            facts: facts.into_iter().map(fact).collect(),
        });
        self
    }

    /// Nothing for an empty list.
    pub(super) fn list(mut self, items: Vec<String>) -> Self {
        if !items.is_empty() {
            self.blocks.push(Block::List { items });
        }
        self
    }

    /// Nothing for a table without rows.
    pub(super) fn table(mut self, caption: &str, columns: &[&str], rows: Vec<Vec<String>>) -> Self {
        if !rows.is_empty() {
            self.blocks.push(Block::Table(Table {
                caption: caption.to_owned(),
                columns: columns.iter().map(|&column| column.to_owned()).collect(),
                rows,
            }));
        }
        self
    }
}

impl Document {
    /// As Markdown (CommonMark, with tables as GitHub has them).
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n{}\n", escape(&self.title), escape(&self.lead));
        for section in &self.sections {
            text += &format!("\n## {}\n", escape(&section.title));
            for block in &section.blocks {
                text.push('\n');
                match block {
                    Block::Text { text: words } => text += &format!("{}\n", escape(words)),
                    Block::Facts { facts } => facts
                        .iter()
                        .for_each(|fact| text += &format!("- **{}:** {}\n", escape(&fact.term), escape(&fact.value))),
                    Block::List { items } => items.iter().for_each(|item| text += &format!("- {}\n", escape(item))),
                    Block::Table(table) => {
                        let row = |cells: &[String]| {
                            let cells: Vec<String> = cells.iter().map(|cell| escape(cell)).collect();
                            format!("| {} |\n", cells.join(" | "))
                        };
                        text += &format!("{}\n\n{}", escape(&table.caption), row(&table.columns));
                        text += &format!("|{}\n", " --- |".repeat(table.columns.len()));
                        table.rows.iter().for_each(|cells| text += &row(cells));
                    }
                }
            }
        }
        text
    }
}

/// Text that no reader of Markdown takes for markup, on one line. Every ASCII sign that may begin some is escaped (CommonMark 0.31, section 2.4);
/// of those that stand alone in prose only where they could.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        match character {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|' | '!' | '&' | '~' | '$' | '@' => {
                safe.push('\\');
                safe.push(character);
            }
            // What begins a list, a heading or an address.
            '-' | '+' | '=' if safe.is_empty() && !text[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                safe.push('\\');
                safe.push(character);
            }
            // No address becomes a link.
            ':' if text[at..].starts_with("://") => safe.push_str("\\:"),
            '.' if safe.len() >= 3 && safe.as_bytes()[safe.len() - 3..].eq_ignore_ascii_case(b"www") => {
                safe.push_str("\\.")
            }
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => safe.push(' '),
            other => safe.push(other),
        }
    }
    // A number and a dot at the beginning would be a list.
    let digits = safe.bytes().take_while(u8::is_ascii_digit).count();
    let is_marker = matches!(safe.as_bytes().get(digits), Some(b'.' | b')'))
        && matches!(safe.as_bytes().get(digits + 1), None | Some(b' '));
    if digits > 0 && is_marker {
        safe.insert(digits, '\\');
    }
    safe
}
