use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::domain::{ClassLabel, ImageId, Key, Record, Slot};

fn key(kind: u8, number: u32) -> Key {
    let mut bytes = [kind; 16];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    Key(bytes)
}

fn record(number: u32) -> Record {
    Record {
        class: Some(ClassLabel::parse("COVID").unwrap()),
        patient: Some(key(1, number)),
        ..Record::bare(
            ImageId::new(Slot(0), key(0, number)),
            key(2, number),
            "2026-01-02T03:04:05Z",
        )
    }
}

fn aged(ages: &[&str]) -> Vec<(String, String)> {
    let records: Vec<Record> = (0..)
        .zip(ages)
        .map(|(number, age)| Record {
            age: Some((*age).to_owned()),
            ..record(number)
        })
        .collect();
    Facts::count(records.iter(), |_| true).ages
}

fn told(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn few_people_of_an_age_are_not_told_nor_follow_from_the_whole() {
    let many = |age: &'static str, count: usize| vec![age; count];
    let ages = [many("34", 7), many("4", 6), many("90+", 3), many("about forty", 9)].concat();
    assert_eq!(
        aged(&ages),
        told(&[
            ("0–9", "withheld"),
            ("30–39", "withheld"),
            ("90+", "withheld"),
            ("not known", "9")
        ])
    );
    let ages = [many("34", 12), many("4", 1), many("95", 1)].concat();
    let none = told(&[("0–9", "withheld"), ("30–39", "withheld"), ("90+", "withheld")]);
    assert_eq!(aged(&ages), none, "14 people less 12 would be one and one");
    let ages = [many("34", 20), many("4", 6), many("95", 4)].concat();
    assert_eq!(
        aged(&ages),
        told(&[("0–9", "withheld"), ("30–39", "20"), ("90+", "withheld")])
    );
    assert_eq!(aged(&many("34", 3)), []);
    assert_eq!(aged(&["?", "Jane"]), []);
}

#[test]
fn a_person_counts_once_and_an_image_of_nobody_known_as_one() {
    let mut records: Vec<Record> = (0..20).map(|number| record(number % 6)).collect();
    records.iter_mut().for_each(|record| record.sex = Some("F".into()));
    let facts = Facts::count(records.iter(), |_| true);
    assert_eq!(facts.sexes, told(&[("F", "6")]));
    assert_eq!((facts.patients, facts.with_patient, facts.images), (6, 20, 20));
    records.iter_mut().for_each(|record| record.patient = None);
    let facts = Facts::count(records.iter(), |_| true);
    assert_eq!(facts.sexes, told(&[("F", "20")]));
}

proptest! {
    #[test]
    fn no_cell_of_people_is_below_five_and_no_single_one_hidden(ages in prop::collection::vec(0u32..120, 0..60)) {
        let ages: Vec<String> = ages.iter().map(ToString::to_string).collect();
        let rows = aged(&ages.iter().map(String::as_str).collect::<Vec<_>>());
        let told: Vec<usize> = rows.iter().filter_map(|(_, count)| count.parse().ok()).collect();
        prop_assert!(told.iter().all(|&count| count >= 5), "{rows:?}");
        let (hidden, people) = (rows.len() - told.len(), ages.len() - told.iter().sum::<usize>());
        prop_assert!(hidden == 0 || hidden > 1 && (people >= 10 || told.is_empty()), "{rows:?}");
    }

    #[test]
    fn text_of_the_archive_is_never_markup(text in "[ -~\n|<>&*_`#\\[\\]()!:/.0-9-]{0,60}") {
        let table = Table { caption: text.clone(), columns: vec!["a".into(), text.clone()], rows: vec![vec![text.clone(), text.clone()]] };
        let blocks = vec![
            Block::Text { text: text.clone() },
            Block::Facts { facts: vec![Fact { term: text.clone(), value: text.clone() }] },
            Block::List { items: vec![text.clone()] },
            Block::Table(table),
        ];
        let section = Section { id: "s".into(), title: text.clone(), blocks };
        let document = Document { title: text.clone(), lead: text, archive_version: 1, sections: vec![section] };
        let markdown = document.markdown();
        let bare: String = {
            let mut bare = String::new();
            let mut characters = markdown.chars();
            while let Some(character) = characters.next() {
                if character == '\\' { characters.next(); } else { bare.push(character); }
            }
            bare
        };
        for odd in ['<', '>', '`', '[', ']', '&'] {
            prop_assert!(!bare.contains(odd), "{odd} in {markdown}");
        }
        // What the document itself has: two headings, and of each row of the table its bars.
        prop_assert_eq!(bare.matches('#').count(), 3, "{}", markdown);
        prop_assert_eq!(bare.lines().filter(|line| line.starts_with('|')).count(), 3, "{}", markdown);
        for row in bare.lines().filter(|line| line.starts_with('|')) {
            prop_assert_eq!(row.matches('|').count(), 3, "{}", markdown);
        }
    }
}

#[test]
fn an_evaluation_says_what_has_changed_since() {
    let class = |name: &str| ClassLabel::parse(name).unwrap();
    let counts = |pairs: &[(&str, u64)]| -> BTreeMap<ClassLabel, u64> {
        pairs.iter().map(|(name, images)| (class(name), *images)).collect()
    };
    let manifest: Manifest = serde_json::from_value(serde_json::json!({
        "format": 1, "version": 1, "parent": null, "commit": "c", "created_at": "2026-01-01T00:00:00Z", "writer": "w",
        "archive": {"id": "i", "name": "a", "created_at": "2026-01-01T00:00:00Z", "licence": null, "identity": "anonymous", "secret_id": "s",
            "retention": "view"},
        "space": {"weights_sha256": "0", "layers": ["l"], "pooling": "p", "views": ["whole"], "dimension": 2, "pixel_pipeline": "x"},
        "model": null, "precisions": ["f32"], "classes": [], "metric": null, "calibration": null, "shards": [], "rows": [], "graphs": [],
        "packs": [], "tombstones": [], "superseded": []
    }))
    .unwrap();
    let made = crate::archive::Made {
        made_at: jiff::Timestamp::UNIX_EPOCH,
        made_on: 1,
        images: counts(&[("A", 100), ("B", 10)]),
        split: String::new(),
        space: manifest.space.id(),
        metric: None,
        learned: false,
        other: Default::default(),
    };
    let of = |made: &crate::archive::Made, now: &[(&str, u64)]| caveats(made, &manifest, &counts(now)).join(" ");
    assert_eq!(of(&made, &[("A", 120), ("B", 12)]), "");
    assert_eq!(
        of(&made, &[("A", 110), ("B", 7)]),
        "B had 10 images when it was measured and has 7."
    );
    let words = of(&made, &[("A", 130), ("C", 10)]);
    for part in ["had 110 images", "no longer there: B", "new since: C", "A had 100"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let learned = crate::archive::Made {
        learned: true,
        metric: Some("metrics/x".into()),
        ..made.clone()
    };
    let words = of(&learned, &[("A", 100), ("B", 10)]);
    assert!(
        words.contains("as they are") && words.contains("has changed since"),
        "{words}"
    );
    let mut other = made;
    other.space = "0".repeat(32).parse().unwrap();
    assert!(of(&other, &[("A", 100), ("B", 10)]).contains("another space"));

    let facts = Facts::count([record(1)].iter(), |_| true);
    let subject = Subject {
        manifest: &manifest,
        facts: &facts,
        model: None,
        calibration: None,
        kept: &Kept::No,
    };
    for document in [model_card(&subject), datasheet(&subject)] {
        let markdown = document.markdown();
        assert!(
            markdown.contains("Research use only") && markdown.contains("not known"),
            "{markdown}"
        );
        assert!(!markdown.contains(&key(1, 1).to_string()), "a pseudonym");
    }
    assert!(model_card(&subject).markdown().contains("Not measured"));
}
