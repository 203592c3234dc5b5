//! Ranking -> what its reader should know before believing it. Pure.

use std::collections::BTreeMap;

use crate::domain::{Ask, Hit};

/// What as many neighbors drawn by lot would do more often than this is no news.
const CHANCE_MAX: f64 = 0.05;

/// Something that may have decided besides the disease.
#[derive(Debug, Clone, PartialEq)]
pub enum Warning {
    /// All neighbors come from one source though there are others: the query may resemble them by how and where the image was made (Zech et al.,
    /// PLOS Medicine 2018; DeGrave et al., Nature Machine Intelligence 2021).
    OneSource {
        /// The source.
        source: String,
        /// Neighbors, all of it.
        neighbors: usize,
        /// Its share of the images with a known source, of all sources that were searched.
        share: f64,
        /// Sources that were searched.
        sources: usize,
    },
}

impl Warning {
    /// A stable name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::OneSource { .. } => "one-source",
        }
    }

    /// For a reader.
    pub fn message(&self) -> String {
        match self {
            Self::OneSource {
                source,
                neighbors,
                share,
                sources,
            } => format!(
                "All {neighbors} neighbors come from one source, {source}, of {sources} searched (it has {:.0} % of their images). They may be similar by how \
                 the images were made, not by what they show: search again without this source.",
                share * 100.0
            ),
        }
    }
}

/// Warnings about the neighbors of a query under `ask`; `sources` has the images of each source of the archive. None where classes were chosen: how
/// many of these a source has is not known here.
pub fn warnings(hits: &[Hit], ask: &Ask, sources: &BTreeMap<String, usize>) -> Vec<Warning> {
    let wanted = |source: &String| {
        ask.sources.as_ref().is_none_or(|only| only.contains(source)) && !ask.exclude_sources.contains(source)
    };
    let found: BTreeMap<&String, usize> = (sources.iter())
        .filter(|(source, _)| wanted(source))
        .map(|(source, &images)| (source, images))
        .collect();
    let [first, ..] = hits else { return Vec::new() };
    let Some(source) = &first.record.source else {
        return Vec::new();
    };
    let one = hits.iter().all(|hit| hit.record.source.as_ref() == Some(source));
    let all: usize = found.values().sum();
    let share = found.get(source).copied().unwrap_or(0) as f64 / all.max(1) as f64;
    let by_chance = share.powi(i32::try_from(hits.len()).unwrap_or(i32::MAX));
    if !one || found.len() < 2 || ask.classes.is_some() || by_chance > CHANCE_MAX {
        return Vec::new();
    }
    vec![Warning::OneSource {
        source: source.clone(),
        neighbors: hits.len(),
        share,
        sources: found.len(),
    }]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::Record;
    use crate::index::segment::tests::record;

    fn hits(sources: &[Option<&str>]) -> Vec<Hit> {
        let hit = |(at, source): (usize, &Option<&str>)| {
            let record = Arc::new(Record {
                source: source.map(str::to_owned),
                ..Record::clone(&record(at as u32, Some("A"), None))
            });
            Hit::alone(1.0 - at as f32 * 0.01, record, true)
        };
        sources.iter().enumerate().map(hit).collect()
    }

    #[test]
    fn one_source_of_several_is_said() {
        let several: BTreeMap<String, usize> = [("here".to_owned(), 10), ("there".to_owned(), 30)].into();
        let only: BTreeMap<String, usize> = [("here".to_owned(), 30)].into();
        let (here, there) = (Some("here"), Some("there"));
        let asked = Ask::default();
        let without = Ask {
            exclude_sources: vec!["there".into()],
            ..Ask::default()
        };
        let within = Ask {
            sources: Some(vec!["here".into()]),
            ..Ask::default()
        };
        let of_class = Ask {
            classes: Some(vec![crate::domain::ClassLabel::parse("A").unwrap()]),
            ..Ask::default()
        };
        type Row<'a> = (&'a [Option<&'a str>], &'a Ask, &'a BTreeMap<String, usize>, bool);
        let cases: [Row<'_>; 11] = [
            (&[here; 3], &asked, &several, true),
            (&[here, here, there], &asked, &several, false),
            (&[here, here, None], &asked, &several, false),
            (&[None; 3], &asked, &several, false),
            // A quarter of the images: one of 16 pairs, one of 64 triples by chance; three quarters: every other triple.
            (&[here; 2], &asked, &several, false),
            (&[there; 3], &asked, &several, false),
            (&[there; 11], &asked, &several, true),
            (&[here; 3], &of_class, &several, false),
            (&[here; 3], &asked, &only, false),
            (&[here; 3], &without, &several, false),
            (&[here; 3], &within, &several, false),
        ];
        for (at, (sources, ask, archive, warned)) in cases.into_iter().enumerate() {
            assert_eq!(!warnings(&hits(sources), ask, archive).is_empty(), warned, "case {at}");
        }
        let [warning] = &warnings(&hits(&[here; 3]), &asked, &several)[..] else {
            panic!("one warning")
        };
        assert_eq!(warning.kind(), "one-source");
        let message = warning.message();
        assert!(
            message.starts_with("All 3 neighbors come from one source, here, of 2 searched (it has 25 % of"),
            "{message}"
        );
    }
}
