//! One query on one snapshot: who may be returned, how to find them, the ranking.

use super::plan::plan;
use crate::domain::{Ask, Query, Ranking};
use crate::error::Result;
use crate::index::Snapshot;

/// Searches a snapshot.
///
/// # Errors
/// `WrongDimension`; `UnknownClass`; `Unavailable` when memory runs out.
pub fn search(snapshot: &Snapshot, query: &Query, ask: &Ask) -> Result<Ranking> {
    let scope = snapshot.scope(query, ask)?;
    let steps = plan(scope.legs(), ask.k, ask.exact, snapshot.settings());
    snapshot.search(query, ask.k, ask.one_per, &scope, &steps)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{
        Alias, ClassLabel, Copies, Embedding, Exclude, Group, Hit, ImageId, Key, OnePer, PathTaken, PatientKeys,
        Record, similarity,
    };
    use crate::error::ErrorKind;
    use crate::index::segment::tests::{key, record};
    use crate::index::{
        GivenGraph, GraphInput, GraphParameters, IndexSettings, SegmentInput, SnapshotInput, Step, build_graph,
    };

    const DIMENSION: usize = 3;

    /// One row, small numbers everywhere so that ties, shared patients and shared pixels are frequent.
    #[derive(Debug, Clone)]
    struct Row {
        vector: [i8; DIMENSION],
        class: u8,
        patient: u8,
        study: u8,
        pixels: u8,
        source: u8,
        alias: u8,
        /// Number of the image that it says it is a copy of, from 1; it may be gone, or never have been there.
        link: u8,
        dead: bool,
    }

    fn class(number: u8) -> Option<ClassLabel> {
        [None, Some("A"), Some("B"), Some("Viral Pneumonia")][number as usize % 4]
            .map(|name| ClassLabel::parse(name).unwrap())
    }

    fn row() -> impl Strategy<Value = Row> {
        let vector = prop::array::uniform3(-2i8..3).prop_filter("zero", |v| v.iter().any(|&x| x != 0));
        let link = prop_oneof![3 => Just(0u8), 1 => 1u8..60];
        (vector, 0u8..4, 0u8..6, 0u8..6, 0u8..12, 0u8..4, (0u8..12, link), 0u8..5).prop_map(
            |(vector, class, patient, study, pixels, source, (alias, link), dead)| Row {
                vector,
                class,
                patient,
                study,
                pixels,
                source,
                alias,
                link,
                dead: dead == 0,
            },
        )
    }

    fn segments() -> impl Strategy<Value = Vec<Vec<Row>>> {
        prop::collection::vec(prop::collection::vec(row(), 0..40), 0..4)
    }

    fn record_id(number: u8) -> ImageId {
        record(u32::from(number), None, None).id
    }

    const PATIENT: u32 = 1000;
    const STUDY: u32 = 2000;
    const PIXELS: u32 = 3000;
    const FILE: u32 = 4000;

    fn input(segments: &[Vec<Row>], version: u64) -> SnapshotInput {
        let mut number = 0;
        let rows = segments.iter().enumerate().map(|(at, rows)| {
            let records = rows.iter().map(|row| {
                number += 1;
                let mut record = Record::clone(&record(number, None, None));
                record.class = class(row.class);
                record.patient = (row.patient > 0).then(|| key(PATIENT + u32::from(row.patient)));
                record.study = (row.study > 0).then(|| key(STUDY + u32::from(row.study)));
                record.pixel_key = (row.pixels > 0).then(|| key(PIXELS + u32::from(row.pixels)));
                record.source = (row.source > 0).then(|| format!("s{}", row.source));
                record.file_key = key(FILE + number);
                record.near_identical_to = (row.link > 0).then(|| record_id(row.link));
                if row.alias < 4 {
                    record.aliases = vec![Alias {
                        class: class(row.alias),
                        ..Alias::bare(key(FILE + 500 + number))
                    }];
                }
                Arc::new(record)
            });
            let segment = SegmentInput {
                name: format!("rows/{at}"),
                dimension: DIMENSION,
                shard: None,
                searched: true,
                records: records.collect(),
                vectors: rows
                    .iter()
                    .flat_map(|row| row.vector.map(f32::from))
                    .collect::<Vec<_>>()
                    .into(),
            };
            let dead = (0..).zip(rows).filter(|(_, row)| row.dead).map(|(at, _)| at).collect();
            (Arc::new(segment), dead)
        });
        let classes = (1..4).filter_map(class).collect();
        SnapshotInput {
            version,
            dimension: DIMENSION,
            metric: None,
            classes,
            segments: rows.collect(),
            graphs: Vec::new(),
        }
    }

    /// A graph for every class of every segment.
    fn with_graphs(mut input: SnapshotInput, parameters: GraphParameters) -> SnapshotInput {
        for (segment, _) in &input.segments {
            let mut rows: BTreeMap<ClassLabel, Vec<u32>> = BTreeMap::new();
            for (at, record) in (0..).zip(&segment.records) {
                if let Some(class) = &record.class {
                    rows.entry(class.clone()).or_default().push(at);
                }
            }
            for (class, keys) in rows {
                let unit = |&row: &u32| {
                    let start = row as usize * segment.dimension;
                    Embedding::from_raw(
                        &segment.vectors.table()[start..start + segment.dimension],
                        segment.dimension,
                    )
                    .unwrap()
                };
                let units: Vec<Embedding> = keys.iter().map(unit).collect();
                let vectors: Vec<&[f32]> = units.iter().map(Embedding::as_slice).collect();
                let bytes = build_graph(&vectors, &keys, &parameters).unwrap();
                input.graphs.push(GraphInput {
                    name: format!("graphs/{}/{class}", segment.name),
                    segment: segment.name.clone(),
                    class,
                    parameters,
                    given: Some(GivenGraph::Stored(bytes.into())),
                });
            }
        }
        input
    }

    fn settings(exact_rows_max: usize) -> IndexSettings {
        IndexSettings {
            exact_rows_max,
            search_threads: 2,
            ..IndexSettings::default()
        }
    }

    #[derive(Debug, Clone)]
    struct Question {
        vector: [i8; DIMENSION],
        patient: u8,
        study: u8,
        same: Vec<u32>,
        ask: Ask,
    }

    impl Question {
        fn query(&self) -> Query {
            Query {
                embedding: Embedding::from_raw(&self.vector.map(f32::from), DIMENSION).unwrap(),
                patients: (self.patient > 0)
                    .then(|| key(PATIENT + u32::from(self.patient)))
                    .map(|patient| PatientKeys { patient, id: patient })
                    .into_iter()
                    .collect(),
                studies: (self.study > 0)
                    .then(|| key(STUDY + u32::from(self.study)))
                    .into_iter()
                    .collect(),
                same_pixels: self.same.iter().map(|&number| key(number)).collect(),
            }
        }
    }

    fn question() -> impl Strategy<Value = Question> {
        let same = prop::collection::vec(prop_oneof![PIXELS..PIXELS + 12, FILE..FILE + 600], 0..3);
        let classes = prop::option::of(prop::collection::vec((1u8..4).prop_map(|n| class(n).unwrap()), 0..3));
        let source = || (1u8..4).prop_map(|n| format!("s{n}"));
        let sources = (
            prop::option::of(prop::collection::vec(source(), 0..3)),
            prop::collection::vec(source(), 0..2),
        );
        let exclude = any::<(bool, bool, bool)>();
        let one_per = prop_oneof![3 => Just(OnePer::Picture), 1 => Just(OnePer::Patient), 1 => Just(OnePer::Image)];
        let exclude = (exclude, one_per);
        (row(), same, 1usize..12, classes, sources, exclude).prop_map(
            |(row, same, k, classes, sources, (exclude, one_per))| Question {
                vector: row.vector,
                patient: row.patient,
                study: row.study,
                same,
                ask: Ask {
                    k,
                    classes,
                    sources: sources.0,
                    exclude_sources: sources.1,
                    exclude: Exclude {
                        patient: exclude.0,
                        study: exclude.1,
                        pixels: exclude.2,
                    },
                    one_per,
                    ..Ask::default()
                },
            },
        )
    }

    /// The answer by going through everything, one condition after another.
    fn oracle(input: &SnapshotInput, query: &Query, ask: &Ask) -> Ranking {
        let live: Vec<(Arc<Record>, Embedding)> = (input.segments.iter())
            .flat_map(|(segment, dead)| {
                let rows = segment
                    .records
                    .iter()
                    .zip(segment.vectors.table().chunks(DIMENSION))
                    .zip(0u32..);
                rows.filter(|(_, at)| !dead.contains(at))
                    .map(|((record, raw), _)| (record.clone(), Embedding::from_raw(raw, DIMENSION).unwrap()))
            })
            .collect();
        // Whether two are one picture, or stand for each other: by going on until nothing changes.
        let closed = |one: &dyn Fn(&Record, &Record) -> bool| -> Vec<usize> {
            let mut of: Vec<usize> = (0..live.len()).collect();
            loop {
                let before = of.clone();
                for (a, b) in (0..live.len()).flat_map(|a| (0..live.len()).map(move |b| (a, b))) {
                    if one(&live[a].0, &live[b].0) {
                        let least = of[a].min(of[b]);
                        (of[a], of[b]) = (least, least);
                    }
                }
                if of == before {
                    return of;
                }
            }
        };
        let named = |record: &Record| {
            [Some(record.id), record.near_identical_to]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
        };
        let linked = |a: &Record, b: &Record| {
            named(a).iter().any(|name| named(b).contains(name)) || a.pixel_key.is_some() && a.pixel_key == b.pixel_key
        };
        let pictures = closed(&linked);
        let picture_of = |record: &Record| pictures[live.iter().position(|(other, _)| other.id == record.id).unwrap()];
        let groups = closed(&|a, b| match ask.one_per {
            OnePer::Picture => picture_of(a) == picture_of(b) || a.patient.is_some() && a.patient == b.patient,
            OnePer::Patient => a.patient.is_some() && a.patient == b.patient,
            OnePer::Image => false,
        });
        let copies_of = |at: usize| {
            let same = live.iter().zip(&pictures).filter(|(_, of)| **of == pictures[at]);
            same.map(|((record, _), _)| record).collect::<Vec<_>>()
        };
        let classes_of = |at: usize| -> BTreeSet<ClassLabel> {
            let classes = copies_of(at).into_iter().flat_map(|record| {
                record
                    .class
                    .iter()
                    .chain(record.aliases.iter().flat_map(|alias| &alias.class))
            });
            classes.cloned().collect()
        };
        // One film under two names is one patient's: who goes for a patient or a study takes along whom copies join to them.
        let persons = closed(&|a, b| picture_of(a) == picture_of(b) || a.patient.is_some() && a.patient == b.patient);
        let same_patient = |record: &Record| {
            ask.exclude.patient
                && PatientKeys::of(record).is_some_and(|own| query.patients.iter().any(|&asked| own.may_be(asked)))
                || ask.exclude.study && record.study.is_some_and(|study| query.studies.contains(&study))
        };
        let is_copy = |at: usize| copies_of(at).len() > 1;
        let joined: BTreeSet<usize> = (0..live.len())
            .filter(|&at| is_copy(at))
            .map(|at| persons[at])
            .collect();
        let gone: BTreeSet<usize> = (0..live.len())
            .filter(|&at| same_patient(&live[at].0) && joined.contains(&persons[at]))
            .map(|at| persons[at])
            .collect();
        let mut hits = Vec::new();
        let mut ranking = Ranking::default();
        for (at, (record, unit)) in live.iter().enumerate() {
            if ask
                .classes
                .as_ref()
                .is_some_and(|only| record.class.as_ref().is_none_or(|class| !only.contains(class)))
            {
                continue;
            }
            if let Some(class) = &record.class {
                ranking.eligible.entry(class.clone()).or_default();
            }
            let source = record.source.as_ref();
            let same = |key: Key| {
                record.file_key == key
                    || record.pixel_key == Some(key)
                    || record.aliases.iter().any(|alias| alias.file_key == key)
            };
            if ask
                .sources
                .as_ref()
                .is_some_and(|only| source.is_none_or(|source| !only.contains(source)))
                || source.is_some_and(|source| ask.exclude_sources.contains(source))
                || same_patient(record)
                || gone.contains(&persons[at])
                || ask.exclude.pixels && query.same_pixels.iter().any(|&key| same(key))
            {
                continue;
            }
            if let Some(class) = &record.class {
                *ranking.eligible.entry(class.clone()).or_default() += 1;
            }
            let similarity = similarity(query.embedding.as_slice(), unit.as_slice());
            let mut images: Vec<_> = copies_of(at).into_iter().map(|record| record.id).collect();
            images.sort_unstable();
            let label_conflict = classes_of(at).len() > 1;
            let hit = Hit {
                group: Group::Image(live[groups[at]].0.id),
                copies: (images.len() > 1).then(|| Arc::new(Copies { images, label_conflict })),
                ..Hit::alone(similarity, record.clone(), record.votes() && !label_conflict)
            };
            hits.push(hit);
        }
        hits.sort_by(Hit::order);
        let mut classes = BTreeSet::new();
        for hit in &hits {
            if let Some(class) = hit.class()
                && classes.insert(class.clone())
            {
                ranking.nearest_per_class.push(hit.clone());
            }
        }
        let mut groups = BTreeSet::new();
        hits.retain(|hit| groups.insert(hit.group));
        hits.truncate(ask.k);
        ranking.hits = hits;
        ranking
    }

    /// What must be equal to the byte.
    fn seen(ranking: &Ranking) -> impl PartialEq + std::fmt::Debug + use<> {
        let hits = |hits: &[Hit]| {
            hits.iter()
                .map(|hit| (hit.id(), hit.similarity.to_bits(), hit.votes, hit.copies.clone()))
                .collect::<Vec<_>>()
        };
        (
            hits(&ranking.hits),
            hits(&ranking.nearest_per_class),
            ranking.eligible.clone(),
        )
    }

    fn conflicts_by_oracle(input: &SnapshotInput) -> usize {
        let query = Query::of(Embedding::from_raw(&[1.0, 0.0, 0.0], DIMENSION).unwrap());
        // Each image for itself, so that no group hides one.
        let ask = Ask {
            k: usize::MAX,
            one_per: OnePer::Image,
            ..Ask::default()
        };
        let all = oracle(input, &query, &ask);
        all.hits
            .iter()
            .filter(|hit| hit.class().is_some() && !hit.votes)
            .count()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn exact_equals_brute_force(segments in segments(), questions in prop::collection::vec(question(), 1..5)) {
            let input = input(&segments, 1);
            let snapshot = Snapshot::build(&input, None, &settings(100)).unwrap();
            prop_assert_eq!(snapshot.conflicts(), conflicts_by_oracle(&input));
            for question in questions {
                let (query, ask) = (question.query(), Ask { exact: true, ..question.ask });
                let ranking = search(&snapshot, &query, &ask).unwrap();
                prop_assert_eq!(seen(&ranking), seen(&oracle(&input, &query, &ask)));
                prop_assert!(ranking.path.values().all(|path| *path == PathTaken::Exact));
            }
        }

        #[test]
        fn next_version_equals_a_fresh_one(before in segments(), extra in segments(), flips in prop::collection::vec(any::<prop::sample::Index>(), 0..6), kept in 0usize..4, questions in prop::collection::vec(question(), 1..3)) {
            let old_input = input(&before, 1);
            let old = Snapshot::build(&old_input, None, &settings(100)).unwrap();
            let mut after: Vec<_> = before.iter().take(kept).cloned().collect();
            for flip in &flips {
                if let Some(rows) = after.iter_mut().find(|rows| !rows.is_empty()) {
                    let at = flip.index(rows.len());
                    rows[at].dead ^= true;
                }
            }
            // Names are content: what differs from before gets another one.
            let mut new_input = input(&[after.clone(), extra].concat(), 2);
            for (segment, _) in new_input.segments.iter_mut().skip(after.len()) {
                Arc::get_mut(segment).unwrap().name.push_str("/new");
            }
            let next = Snapshot::build(&new_input, Some(&old), &settings(100)).unwrap();
            prop_assert_eq!(next.conflicts(), conflicts_by_oracle(&new_input));
            prop_assert_eq!((next.version(), old.version()), (2, 1));
            let live: usize = new_input.segments.iter().map(|(segment, dead)| segment.records.len() - dead.len()).sum();
            prop_assert_eq!(next.images(), live);
            for question in questions {
                let query = question.query();
                let ranking = search(&next, &query, &question.ask).unwrap();
                prop_assert_eq!(seen(&ranking), seen(&oracle(&new_input, &query, &question.ask)));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn graph_equals_brute_force_on_small_sets(segments in segments(), questions in prop::collection::vec(question(), 1..4)) {
            let input = with_graphs(input(&segments, 1), GraphParameters::default());
            let snapshot = Snapshot::build(&input, None, &settings(0)).unwrap();
            for question in questions {
                let query = question.query();
                let ranking = search(&snapshot, &query, &question.ask).unwrap();
                prop_assert_eq!(seen(&ranking), seen(&oracle(&input, &query, &question.ask)));
                for (class, path) in &ranking.path {
                    let some = ranking.eligible.get(class).is_some_and(|images| *images > 0);
                    prop_assert_eq!(*path == PathTaken::Hnsw, some);
                }
            }
        }
    }

    /// Rows in few clusters on the sphere; `per_patient` rows of a patient lie close together.
    fn clustered(rows: usize, dimension: usize, per_patient: usize) -> SnapshotInput {
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut vectors = Vec::new();
        let mut records = Vec::new();
        let mut center = Vec::new();
        for at in 0..rows {
            if at % per_patient == 0 {
                center = (0..dimension).map(|_| next()).collect::<Vec<f32>>();
            }
            vectors.extend(center.iter().map(|x| x + 0.02 * next()));
            let mut record = Record::clone(&record(at as u32, None, None));
            record.class = class(1 + (at / per_patient % 3) as u8);
            record.patient = (per_patient > 1).then(|| key((PATIENT as usize * 1000 + at / per_patient) as u32));
            record.source = Some(format!("s{}", at % 10));
            records.push(Arc::new(record));
        }
        let segment = SegmentInput {
            name: "rows/a".into(),
            dimension,
            shard: None,
            searched: true,
            records,
            vectors: vectors.into(),
        };
        SnapshotInput {
            version: 1,
            dimension,
            metric: None,
            classes: Vec::new(),
            segments: vec![(Arc::new(segment), Vec::new())],
            graphs: Vec::new(),
        }
    }

    fn of_row(input: &SnapshotInput, row: usize) -> Query {
        let segment = &input.segments[0].0;
        let record = &segment.records[row];
        let raw = &segment.vectors.table()[row * segment.dimension..(row + 1) * segment.dimension];
        Query {
            embedding: Embedding::from_raw(raw, segment.dimension).unwrap(),
            patients: PatientKeys::of(record).into_iter().collect(),
            studies: Vec::new(),
            same_pixels: vec![record.file_key],
        }
    }

    fn recall(snapshot: &Snapshot, query: &Query, ask: &Ask) -> (usize, usize, Ranking) {
        let exact = search(
            snapshot,
            query,
            &Ask {
                exact: true,
                ..ask.clone()
            },
        )
        .unwrap();
        let graph = search(snapshot, query, ask).unwrap();
        assert_eq!(graph.eligible, exact.eligible);
        assert!(graph.path.values().all(|path| *path == PathTaken::Hnsw));
        let found = exact
            .hits
            .iter()
            .filter(|hit| graph.hits.iter().any(|other| other.id() == hit.id()))
            .count();
        (found, exact.hits.len(), graph)
    }

    #[test]
    fn a_graph_finds_what_a_scan_finds() {
        let input = with_graphs(clustered(3000, 32, 1), GraphParameters::default());
        let snapshot = Snapshot::build(&input, None, &settings(0)).unwrap();
        assert_eq!(snapshot.graphs().count(), 3);
        let (mut found, mut wanted) = (0, 0);
        for at in (0..3000).step_by(30) {
            let ask = Ask::default();
            let (hits, of, ranking) = recall(&snapshot, &of_row(&input, at), &ask);
            (found, wanted) = (found + hits, wanted + of);
            assert!(ranking.hits.len() == 10 && ranking.nearest_per_class.len() == 3);
            // Filters in the graph: a tenth of the sources.
            let ask = Ask {
                sources: Some(vec!["s3".into()]),
                ..Ask::default()
            };
            let (hits, of, ranking) = recall(&snapshot, &of_row(&input, at), &ask);
            (found, wanted) = (found + hits, wanted + of);
            assert!(
                ranking
                    .hits
                    .iter()
                    .all(|hit| hit.record.source.as_deref() == Some("s3"))
            );
        }
        assert!(found * 1000 >= wanted * 995, "{found} of {wanted}");
    }

    #[test]
    fn a_graph_with_as_many_candidates_as_rows_is_exact_at_every_selectivity() {
        const ROWS: usize = 20_000;
        // The steps are given by hand: a plan would scan where few rows are selected. Few links and candidates build the graph in time; nothing of the
        // answer hangs on them when the walk holds as many candidates as there are rows.
        let parameters = GraphParameters {
            connectivity: 16,
            expansion_add: 32,
            // A walk that is asked for more rows holds as many candidates as rows are asked for.
            expansion_search: 32,
        };
        let mut input = clustered(ROWS, 8, 1);
        let segment = Arc::get_mut(&mut input.segments[0].0).expect("nobody else has it");
        for (at, record) in segment.records.iter_mut().enumerate() {
            let record = Arc::get_mut(record).expect("nobody else has it");
            record.class = class(1);
            // One row of ten thousand, of a thousand that are not among those, and so on; the rest.
            let of = [10_000, 1_000, 100, 10].into_iter().find(|of| at % of == 3);
            record.source = Some(of.map_or("rest".to_owned(), |of| format!("1/{of}")));
            record.patient = Some(key((PATIENT as usize * 1000 + at / 2) as u32));
        }
        let input = with_graphs(input, parameters);
        let snapshot = Snapshot::build(&input, None, &settings(0)).unwrap();
        let names = ["1/10000", "1/1000", "1/100", "1/10", "rest"].map(str::to_owned);
        for (selected, sources) in [(2, 1), (20, 2), (200, 3), (2_000, 4), (ROWS, 5)] {
            for row in [3, 7_777, 19_998] {
                let query = of_row(&input, row);
                let ask = Ask {
                    sources: Some(names[..sources].to_vec()),
                    ..Ask::default()
                };
                let scope = snapshot.scope(&query, &ask).unwrap();
                let leg = &scope.legs()[0];
                // The query's patient has two rows, which are left out.
                assert!((selected - 2..=selected).contains(&leg.selected) && leg.graph_rows == ROWS);
                let walk = [Step::GraphFiltered { ask: ROWS }];
                let found = snapshot.search(&query, ask.k, ask.one_per, &scope, &walk).unwrap();
                let wanted = snapshot
                    .search(&query, ask.k, ask.one_per, &scope, &[Step::Exact])
                    .unwrap();
                assert_eq!(seen(&found), seen(&wanted), "{selected} rows selected");
                assert!(found.hits.len() == ask.k || leg.selected < 2 * ask.k);
                assert!(leg.selected == 0 || found.path.values().all(|path| *path == PathTaken::Hnsw));
            }
        }
    }

    #[test]
    fn k_patients_come_back_where_k_exist() {
        // Each patient has 60 images close together: the nearest 64 rows are of one or two patients, the query's own not counted.
        let input = with_graphs(clustered(1800, 32, 60), GraphParameters::default());
        let snapshot = Snapshot::build(&input, None, &settings(0)).unwrap();
        for (k, there) in [(10, 10), (29, 29), (100, 29)] {
            let (found, wanted, ranking) = recall(&snapshot, &of_row(&input, 61), &Ask { k, ..Ask::default() });
            assert_eq!((found, wanted, ranking.hits.len()), (there, there, there));
            assert_eq!(ranking.nearest_per_class.len(), 3);
        }
    }

    #[test]
    fn threads_share_a_scan_without_changing_it() {
        let input = clustered(30_000, 8, 3);
        let alone = Snapshot::build(&input, None, &settings(0)).unwrap();
        let shared = Snapshot::build(
            &input,
            None,
            &IndexSettings {
                scan_threads: 2,
                ..settings(0)
            },
        )
        .unwrap();
        for at in [0, 77, 29_999] {
            let query = of_row(&input, at);
            let ask = Ask {
                k: 50,
                ..Ask::default()
            };
            let (one, two) = (
                search(&alone, &query, &ask).unwrap(),
                search(&shared, &query, &ask).unwrap(),
            );
            assert_eq!(seen(&one), seen(&two));
            assert_eq!(one.distance_evaluations, two.distance_evaluations);
            assert_eq!(one.distance_evaluations, 30_000 - 3);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let input = with_graphs(clustered(30, 8, 1), GraphParameters::default());
        let snapshot = Snapshot::build(&input, None, &settings(0)).unwrap();
        let query = of_row(&input, 0);
        let unknown = Ask {
            classes: Some(vec![ClassLabel::parse("Flu").unwrap()]),
            ..Ask::default()
        };
        assert_eq!(
            search(&snapshot, &query, &unknown).unwrap_err().kind(),
            ErrorKind::UnknownClass
        );
        let other = Query {
            embedding: Embedding::from_raw(&[1.0; 9], 9).unwrap(),
            ..query.clone()
        };
        assert_eq!(
            search(&snapshot, &other, &Ask::default()).unwrap_err().kind(),
            ErrorKind::WrongDimension
        );
        assert_eq!(
            snapshot
                .search(
                    &query,
                    10,
                    OnePer::Picture,
                    &snapshot.scope(&query, &Ask::default()).unwrap(),
                    &[]
                )
                .unwrap_err()
                .kind(),
            ErrorKind::Internal
        );

        let broken = |change: &dyn Fn(&mut SnapshotInput)| {
            let mut input = with_graphs(clustered(30, 8, 1), GraphParameters::default());
            change(&mut input);
            Snapshot::build(&input, None, &settings(0)).unwrap_err().kind()
        };
        assert_eq!(broken(&|input| input.segments[0].1 = vec![30]), ErrorKind::Damaged);
        assert_eq!(broken(&|input| input.dimension = 9), ErrorKind::WrongDimension);
        // A graph that can't be used costs nothing but time.
        let wrong: [&dyn Fn(&mut GraphInput); 4] = [
            &|graph| graph.segment = "rows/b".into(),
            &|graph| graph.class = ClassLabel::parse("Flu").unwrap(),
            &|graph| graph.given = Some(GivenGraph::Stored(b"no graph".as_slice().into())),
            &|graph| graph.given = None,
        ];
        let sound = search(&snapshot, &query, &Ask::default()).unwrap();
        for change in wrong {
            let mut input = with_graphs(clustered(30, 8, 1), GraphParameters::default());
            change(&mut input.graphs[0]);
            let without = Snapshot::build(&input, None, &settings(0)).unwrap();
            assert_eq!(without.lost_graphs().len(), 1);
            let found = search(&without, &query, &Ask::default()).unwrap();
            assert_eq!(seen(&found), seen(&sound));
            assert!(found.path.values().any(|path| *path == PathTaken::Exact));
        }
        // What the previous version has loaded needs no bytes.
        let mut again = with_graphs(clustered(30, 8, 1), GraphParameters::default());
        again.graphs.iter_mut().for_each(|graph| graph.given = None);
        assert!(again.graphs.iter().all(|graph| snapshot.has_graph(&graph.name)));
        assert!(Snapshot::build(&again, Some(&snapshot), &settings(0)).is_ok());
    }
}
