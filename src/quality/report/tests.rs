//! The page as a whole.

use super::super::evaluation::*;
use super::{fake, html};

const HEADINGS: [&str; 16] = [
    "At a glance",
    "Floors",
    "What is taken for what",
    "Each class against the others",
    "Calibration",
    "Answering only when sure",
    "Precision and recall",
    "Prediction sets",
    "Shortcuts",
    "Leakage",
    "Images that do not belong here",
    "Retrieval",
    "Index",
    "Hardest cases",
    "Notes",
    "Protocol",
];
const VOID: [&str; 5] = ["meta", "img", "br", "link", "wbr"];

/// Names and attributes of all tags, in order, once each is closed where it should be.
fn tags(page: &str) -> Vec<(String, String)> {
    let (mut open, mut seen) = (Vec::new(), Vec::new());
    let mut rest = page.trim_start_matches("<!doctype html>");
    while let Some(at) = rest.find('<') {
        assert!(
            !rest[..at].contains('>') || open.last().is_some_and(|tag| tag == "style"),
            "a stray > before {}",
            &rest[at..at + 20]
        );
        let end = at + rest[at..].find('>').unwrap();
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert_eq!(attributes.matches('"').count() % 2, 0, "{tag}");
        seen.push((name.to_owned(), attributes.to_owned()));
        if name == "style" {
            rest = &rest[rest.find("</style").unwrap()..];
        }
        if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "{open:?}");
    seen
}

fn attribute<'a>(attributes: &'a str, name: &str) -> Option<&'a str> {
    let attributes = format!(" {name}=\"").pipe(|start| match attributes.strip_prefix(start.trim_start()) {
        Some(rest) => Some(rest),
        None => attributes.find(&start).map(|at| &attributes[at + start.len()..]),
    })?;
    attributes.split('"').next()
}

trait Pipe: Sized {
    fn pipe<T>(self, f: impl FnOnce(Self) -> T) -> T {
        f(self)
    }
}
impl<T> Pipe for T {}

/// Every number of every mark is inside of what it is drawn in.
fn assert_inside(page: &str) {
    let mut frame = None;
    for (name, attributes) in tags(page) {
        if name == "svg" && attribute(&attributes, "class") == Some("plot") {
            let numbers: Vec<f64> = attribute(&attributes, "viewBox")
                .unwrap()
                .split(' ')
                .map(|n| n.parse().unwrap())
                .collect();
            frame = Some((numbers[2], numbers[3]));
        } else if name == "svg" && attribute(&attributes, "role").is_some() {
            frame = None;
        }
        for (at, across) in [
            ("x", true),
            ("x1", true),
            ("x2", true),
            ("cx", true),
            ("y", false),
            ("y1", false),
            ("y2", false),
            ("cy", false),
        ] {
            let Some(number) = attribute(&attributes, at) else {
                continue;
            };
            let (number, most) = match (number.strip_suffix('%'), frame) {
                (Some(percent), _) => (percent.parse::<f64>().unwrap(), 100.0),
                (None, Some((width, height))) => (number.parse().unwrap(), if across { width } else { height }),
                (None, None) => continue,
            };
            assert!((0.0..=most).contains(&number), "{name} {attributes}");
        }
        let path = attribute(&attributes, "d")
            .filter(|_| attribute(&attributes, "class").is_some_and(|class| class.starts_with("curve")));
        if let (Some(path), Some((width, height))) = (path, frame) {
            for point in path.split(['M', 'L']).skip(1) {
                let (x, y) = point.split_once(' ').unwrap();
                assert!(
                    (0.0..=width).contains(&x.parse::<f64>().unwrap())
                        && (0.0..=height).contains(&y.parse::<f64>().unwrap()),
                    "{path}"
                );
            }
        }
    }
}

#[test]
fn every_part_has_its_heading_whether_there_is_something_or_not() {
    for page in [html(&fake::evaluation("")), html(&fake::empty())] {
        for heading in HEADINGS {
            assert!(page.contains(&format!(">{heading}</h2>")), "{heading}");
        }
        let tags = tags(&page);
        let levels: Vec<u8> = tags
            .iter()
            .filter_map(|(name, _)| ["h1", "h2", "h3"].iter().position(|h| h == name))
            .map(|at| at as u8)
            .collect();
        assert_eq!(levels[0], 0);
        assert!(
            levels.windows(2).all(|pair| pair[1] <= pair[0] + 1 && pair[1] > 0),
            "{levels:?}"
        );
        assert!(page.contains("Research use only."));
        assert_inside(&page);
    }
}

#[test]
fn what_is_not_available_says_why() {
    let page = html(&fake::empty());
    assert!(page.contains("no source is known."));
    assert!(page.contains("the archive has no graphs."));
    assert!(!page.contains("NaN"));
}

#[test]
fn nothing_in_the_data_becomes_part_of_the_page() {
    let mark = "<script>alert(\"1\")</script>'&";
    let page = html(&fake::evaluation(mark));
    assert!(!page.contains("<script"));
    assert!(!page.contains("alert(\""));
    assert!(page.matches("&lt;script&gt;").count() > 100);
    tags(&page);
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let mut evaluation = fake::evaluation("");
    evaluation.hardest[0].query.thumbnail = Some("https://example.org/x.png".to_owned());
    let page = html(&evaluation);
    assert!(!page.contains("://"));
    assert!(!page.contains("url(") && !page.contains("@import"));
    let tags = tags(&page);
    let sources: Vec<_> = tags
        .iter()
        .filter_map(|(_, attributes)| attribute(attributes, "src"))
        .collect();
    assert!(!sources.is_empty() && sources.iter().all(|source| source.starts_with("data:image/")));
    assert!(
        tags.iter()
            .filter_map(|(_, attributes)| attribute(attributes, "href"))
            .all(|href| href.starts_with('#'))
    );
    assert!(tags.iter().all(|(name, _)| name != "script" && name != "link"));
    assert!(page.contains("pixels not kept"));
}

#[test]
fn plots_have_titles_and_tables_have_captions() {
    let page = html(&fake::evaluation(""));
    let tags = tags(&page);
    for pair in tags.windows(2) {
        let ((name, attributes), (next, _)) = (&pair[0], &pair[1]);
        if name == "svg" && attribute(attributes, "role") == Some("img") {
            assert_eq!(next, "title");
        } else if name == "svg" {
            assert!(
                attributes.contains("aria-hidden") || attributes.contains("overflow=\"visible\""),
                "{attributes}"
            );
        }
        if name == "table" {
            assert_eq!(next, "caption");
        }
        assert!(name != "th" || attributes.contains("scope="));
    }
}

#[test]
fn plots_hold_what_is_beyond_all_bounds() {
    for wild in [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN,
        -1.0,
        2.0,
        0.0,
        1.0,
    ] {
        let mut evaluation = fake::evaluation("");
        let interval = Some(Interval {
            value: wild,
            low: wild,
            high: wild,
        });
        evaluation.decisions.balanced_accuracy = interval;
        evaluation.decisions.confusion[0][0] = wild;
        evaluation.decisions.per_class[0].precision = interval;
        evaluation.precision_recall[0].points = vec![(wild, wild), (0.5, wild), (wild, 0.5), (0.5, 0.5)];
        evaluation.precision_recall[0].prior = wild;
        evaluation.selective.risk_coverage = vec![(wild, wild), (0.5, wild), (wild, 0.5)];
        evaluation.selective.accuracy_at_80 = Some(wild);
        evaluation.prediction_sets[0].sizes = vec![wild; 3];
        evaluation.prediction_sets[0].level = wild;
        evaluation.prediction_sets[0].per_class[0].coverage = Some(wild);
        evaluation.outside[0].auroc = Some(wild);
        if let Available::Yes(confidence) = &mut evaluation.confidence {
            confidence.raw.bins[0].confidence = wild;
            confidence.raw.bins[1].accuracy = wild;
            confidence.raw.bins[2].images = 0;
        }
        let page = html(&evaluation);
        assert_inside(&page);
        assert!(!page.contains("NaN") && !page.contains("inf%"));
    }
}
