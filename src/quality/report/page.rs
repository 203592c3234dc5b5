//! The frame of the page: head, strip, contents and sections.

use super::text::{escape, not_there};

/// A part of the page.
pub struct Section {
    /// For links to it.
    pub id: &'static str,
    /// Its heading.
    pub heading: &'static str,
    /// How to read it, in plain words.
    pub how: &'static str,
    /// As HTML.
    pub body: String,
}

const CSS: &str = include_str!("report.css");

/// The whole page.
pub fn html(title: &str, first_screen: &str, sections: &[Section]) -> String {
    let links: String = sections
        .iter()
        .map(|part| format!("<li><a href=\"#{}\">{}</a></li>", part.id, part.heading))
        .collect();
    let parts: String = sections.iter().map(section).collect();
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n\
         <p class=\"strip\"><strong>Research use only.</strong> Not for diagnosis.</p>\n<main>\n{first_screen}\
         <nav aria-label=\"Contents\"><ul>{links}</ul></nav>\n{parts}</main>\n</body>\n</html>\n"
    )
}

fn section(part: &Section) -> String {
    let Section { id, heading, how, body } = part;
    format!(
        "<section id=\"{id}\" aria-labelledby=\"{id}-h\"><header><h2 id=\"{id}-h\">{heading}</h2><p class=\"how\">{how}</p></header>\n\
         <div class=\"body\">{body}</div></section>\n"
    )
}

/// One line where the data has nothing to show.
pub fn or_absent(body: String, why: &str) -> String {
    if body.is_empty() { not_there(why) } else { body }
}

/// A table of plain cells, all of them HTML; the first of each row is its head.
pub fn table(caption: &str, heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let heads: String = heads
        .iter()
        .map(|head| format!("<th scope=\"col\">{}</th>", escape(head)))
        .collect();
    let rows: String = rows.into_iter().map(|cells| row(&cells)).collect();
    let caption = escape(caption);
    format!(
        "<div class=\"scroll\" role=\"region\" aria-label=\"{caption}\" tabindex=\"0\"><table><caption>{caption}</caption>\
         <thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>\n"
    )
}

fn row(cells: &[String]) -> String {
    let cells = cells.iter().enumerate().map(|(at, cell)| match at {
        0 => format!("<th scope=\"row\">{cell}</th>"),
        _ => format!("<td>{cell}</td>"),
    });
    format!("<tr>{}</tr>", cells.collect::<String>())
}

/// Figures side by side: name, figure and what it means, all of them HTML.
pub fn facts(facts: &[(&str, String, String)]) -> String {
    let facts = facts.iter().map(|(name, figure, means)| {
        format!("<div><dt>{name}</dt><dd><strong>{figure}</strong><span class=\"fine\">{means}</span></dd></div>")
    });
    format!("<dl class=\"facts\">{}</dl>\n", facts.collect::<String>())
}
