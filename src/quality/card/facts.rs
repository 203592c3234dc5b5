//! What an archive holds, counted: no ids, no names of files, and no few people of an age or a sex.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{ClassLabel, Key, Record};
use crate::search::Version;

/// Fewer people than this are not told apart by age or sex.
const PEOPLE_MIN: usize = 5;
/// What is withheld is so many people together: fewer could be told apart by what the whole leaves.
const WITHHELD_PEOPLE_MIN: usize = 2 * PEOPLE_MIN;
/// Most rows of a table; what is rarer stands in one more.
const ROWS_MAX: usize = 50;
/// Longest value that is shown; a longer one is prose, not a code.
const VALUE_CHARACTERS_MAX: usize = 64;
/// What has no value.
const NOT_GIVEN: &str = "not known";
/// Values that are not among the most frequent.
const OTHERS: &str = "others";
/// A number of few people, or one from which such a number would follow.
const WITHHELD: &str = "withheld";

/// Values with how often each was seen, the most frequent first.
pub type Counts = Vec<(String, usize)>;

/// What an archive holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Images.
    pub images: usize,
    /// Images of each class that vote.
    pub voting: BTreeMap<ClassLabel, u64>,
    /// Images of each class.
    pub classes: BTreeMap<ClassLabel, usize>,
    /// Images without a class.
    pub unlabelled: usize,
    /// Images whose pixels stand under two classes.
    pub conflicts: usize,
    /// Images of each class and source: class, source, images.
    pub by_source: Vec<(String, String, usize)>,
    /// Images of combinations that are rarer than those.
    pub by_source_left_out: usize,
    /// Sources.
    pub sources: Counts,
    /// How labels were proven.
    pub label_sources: Counts,
    /// Projections.
    pub views: Counts,
    /// Modalities.
    pub modalities: Counts,
    /// Body parts.
    pub body_parts: Counts,
    /// Parts of the data set that the images were in.
    pub splits: Counts,
    /// Age bands with the people in each, as text: few are withheld.
    pub ages: Vec<(String, String)>,
    /// Sexes with the people of each, likewise.
    pub sexes: Vec<(String, String)>,
    /// Different patients that are known.
    pub patients: usize,
    /// Images whose patient is known.
    pub with_patient: usize,
    /// Images with the pixels of another one, of another patient or an unknown one.
    pub equal_pixels: usize,
    /// Further files of images that are there.
    pub further_files: usize,
    /// Images whose label was changed.
    pub relabelled: usize,
    /// Images with a small picture.
    pub with_thumbnail: usize,
    /// Images with a picture to read.
    pub with_pixels: usize,
    /// Days on which the first and the last image came, RFC 3339.
    pub came: Option<(String, String)>,
}

/// A person, or an image of nobody known: it stands for one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Person {
    Known(Key),
    Image(usize),
}

#[derive(Default)]
struct Tally(BTreeMap<String, usize>);

impl Tally {
    fn add(&mut self, value: Option<&str>) {
        *self.0.entry(shown(value)).or_default() += 1;
    }

    /// Sorted, and cut off behind the most frequent. Nothing when no image has a value.
    fn counts(self) -> Counts {
        if self.0.keys().all(|value| value == NOT_GIVEN) {
            return vec![];
        }
        cut(self.0.into_iter().collect())
    }
}

fn cut(mut counts: Counts) -> Counts {
    counts.sort_by(|a, b| {
        (a.0 == NOT_GIVEN)
            .cmp(&(b.0 == NOT_GIVEN))
            .then(b.1.cmp(&a.1))
            .then(a.0.cmp(&b.0))
    });
    if counts.len() > ROWS_MAX {
        let rest: usize = counts.split_off(ROWS_MAX).iter().map(|(_, count)| count).sum();
        counts.push((OTHERS.to_owned(), rest));
    }
    counts
}

fn shown(value: Option<&str>) -> String {
    let value = value.map(str::trim).filter(|value| !value.is_empty());
    let Some(value) = value else {
        return NOT_GIVEN.to_owned();
    };
    if value.chars().count() > VALUE_CHARACTERS_MAX {
        return OTHERS.to_owned();
    }
    value.to_owned()
}

impl Facts {
    /// Counts what a version holds.
    pub fn of(version: &Version) -> Self {
        let state = &version.state;
        let records = state.live().map(|spot| state.at(spot).as_ref());
        let mut facts = Self::count(records, |record| version.snapshot.votes(record));
        facts.conflicts = version.overview.conflicts;
        facts
    }

    /// Counts records; `votes` says which labels count.
    pub fn count<'a>(records: impl Iterator<Item = &'a Record>, votes: impl Fn(&Record) -> bool) -> Self {
        let mut facts = Self::default();
        let [
            mut sources,
            mut label_sources,
            mut views,
            mut modalities,
            mut body_parts,
            mut splits,
        ] = [const { Tally(BTreeMap::new()) }; 6];
        let mut by_source: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut ages: BTreeMap<String, BTreeSet<Person>> = BTreeMap::new();
        let mut sexes: BTreeMap<String, BTreeSet<Person>> = BTreeMap::new();
        let mut patients = BTreeSet::new();
        let mut pixels: BTreeMap<Key, usize> = BTreeMap::new();
        for (number, record) in records.enumerate() {
            facts.images += 1;
            if let Some(class) = &record.class {
                *facts.classes.entry(class.clone()).or_default() += 1;
                if votes(record) {
                    *facts.voting.entry(class.clone()).or_default() += 1;
                }
                label_sources.add(record.label_source.as_ref().map(|source| source.as_str()));
                let source = shown(record.source.as_deref());
                *by_source.entry((class.to_string(), source)).or_default() += 1;
            } else {
                facts.unlabelled += 1;
            }
            sources.add(record.source.as_deref());
            views.add(record.view.as_deref());
            let tag = |name: &str| record.tags.get(name).map(String::as_str);
            modalities.add(tag("modality"));
            body_parts.add(tag("body_part"));
            splits.add(tag("split"));
            let person = || record.patient.map_or(Person::Image(number), Person::Known);
            ages.entry(age_band(record.age.as_deref()))
                .or_default()
                .insert(person());
            sexes.entry(shown(record.sex.as_deref())).or_default().insert(person());
            if let Some(patient) = record.patient {
                facts.with_patient += 1;
                patients.insert(patient);
            }
            if let Some(key) = record.pixel_key {
                *pixels.entry(key).or_default() += 1;
            }
            facts.further_files += record.aliases.len();
            facts.relabelled += usize::from(!record.history.is_empty());
            facts.with_thumbnail += usize::from(record.thumbnail.is_some());
            facts.with_pixels += usize::from(record.pixels.is_some());
            let day = record.ingested_at.get(..10).unwrap_or_default().to_owned();
            facts.came = Some(match facts.came.take() {
                None => (day.clone(), day),
                Some((first, last)) => (first.min(day.clone()), last.max(day)),
            });
        }
        facts.patients = patients.len();
        facts.equal_pixels = pixels.values().filter(|&&images| images > 1).sum();
        facts.sources = sources.counts();
        facts.label_sources = label_sources.counts();
        facts.views = views.counts();
        facts.modalities = modalities.counts();
        facts.body_parts = body_parts.counts();
        facts.splits = splits.counts();
        if !facts.sources.is_empty() {
            let mut rows: Vec<_> = by_source
                .into_iter()
                .map(|((class, source), images)| (class, source, images))
                .collect();
            rows.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.cmp(b)));
            facts.by_source_left_out = rows.iter().skip(ROWS_MAX).map(|row| row.2).sum();
            rows.truncate(ROWS_MAX);
            rows.sort_by(|a, b| a.0.cmp(&b.0).then(b.2.cmp(&a.2)).then_with(|| a.1.cmp(&b.1)));
            facts.by_source = rows;
        }
        facts.ages = people(ages);
        facts.sexes = people(sexes);
        facts
    }
}

/// Ten years, `90+`, or that it is not known. A text that is no age in years is not told.
fn age_band(age: Option<&str>) -> String {
    let age = age.map(str::trim).unwrap_or_default();
    let years = age.strip_suffix('+').unwrap_or(age);
    match years.parse::<f64>() {
        Ok(years) if (90.0..200.0).contains(&years) => "90+".to_owned(),
        Ok(years) if (0.0..90.0).contains(&years) => {
            let from = (years / 10.0) as u32 * 10;
            format!("{from}–{}", from + 9)
        }
        _ => NOT_GIVEN.to_owned(),
    }
}

/// How many people each value has. Fewer than [`PEOPLE_MIN`] are withheld, and with them the next smallest until two values and
/// [`WITHHELD_PEOPLE_MIN`] people are, so that none follows from the whole (Cox, JASA 1980, on complementary suppression). Nothing where the one value there
/// is has so few.
fn people(values: BTreeMap<String, BTreeSet<Person>>) -> Vec<(String, String)> {
    if values.keys().all(|value| value == NOT_GIVEN) {
        return vec![];
    }
    // Rare values have no row of their own: few of them are few people each.
    let counts = cut(values
        .into_iter()
        .map(|(value, people)| (value, people.len()))
        .collect());
    let mut ascending = counts;
    ascending.sort_by(|a, b| a.1.cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
    let (mut withheld, mut people) = (0, 0);
    for (_, count) in &ascending {
        let enough = withheld == 0 || withheld > 1 && people >= WITHHELD_PEOPLE_MIN;
        if *count >= PEOPLE_MIN && enough {
            break;
        }
        (withheld, people) = (withheld + 1, people + count);
    }
    if withheld == 1 {
        return vec![];
    }
    let told = |(at, (value, count)): (usize, (String, usize))| {
        let told = if at < withheld {
            WITHHELD.to_owned()
        } else {
            count.to_string()
        };
        (value, told)
    };
    let mut rows: Vec<(String, String)> = ascending.into_iter().enumerate().map(told).collect();
    rows.sort_by_key(|(value, _)| (value == NOT_GIVEN, band_start(value), value.clone()));
    rows
}

fn band_start(value: &str) -> u32 {
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(u32::MAX)
}
