//! Kills, unknown outcomes, full disks, racing and sleeping writers.

use super::*;

/// What the fault tests do, one step after the other, and what has to be there afterwards.
struct Script {
    archive: Archive,
    writer: Option<Writer>,
    /// Image -> class, of what was acknowledged; `None`: deleted.
    acknowledged: BTreeMap<ImageId, Option<&'static str>>,
    /// Images whose last change was not acknowledged: either is right.
    open: BTreeSet<ImageId>,
    kinds: Vec<ErrorKind>,
}

impl Script {
    fn new(archive: Archive) -> Self {
        Self {
            archive,
            writer: None,
            acknowledged: BTreeMap::new(),
            open: BTreeSet::new(),
            kinds: vec![],
        }
    }

    async fn submit(&mut self, image: u32, change: Change, then: Option<&'static str>) {
        let id = id(&self.archive, image);
        let done = match &self.writer {
            Some(writer) => writer.write(change).await,
            None => {
                // Merges come along: they are writes too.
                let settings = WriterSettings {
                    deltas_merge_at: 3,
                    ..WriterSettings::default()
                };
                match Writer::spawn(self.archive.clone(), settings, unread_metrics(), watch::channel(0).0).await {
                    Ok(writer) => {
                        let done = writer.write(change).await;
                        self.writer = Some(writer);
                        done
                    }
                    Err(error) => Err(error),
                }
            }
        };
        match done {
            Ok(_) => {
                self.acknowledged.insert(id, then);
                self.open.remove(&id);
            }
            Err(error) => {
                // A change of an image whose insertion failed finds none.
                if error.kind() != ErrorKind::NotFound {
                    self.open.insert(id);
                }
                self.kinds.push(error.kind());
            }
        }
    }

    async fn run(&mut self) {
        for number in 1..=4 {
            self.submit(
                number,
                insert(&self.archive.clone(), number, Some("COVID")),
                Some("COVID"),
            )
            .await;
        }
        let relabel = Change::Relabel {
            id: id(&self.archive, 2),
            class: Some(class("Normal")),
            label_source: None,
        };
        self.submit(2, relabel, Some("Normal")).await;
        let delete = Change::Delete {
            id: id(&self.archive, 3),
        };
        self.submit(3, delete, None).await;
        self.submit(5, insert(&self.archive.clone(), 5, Some("COVID")), Some("COVID"))
            .await;
    }

    async fn check(&self, archive: &Archive) {
        let found = contents(archive).await;
        for (id, expected) in &self.acknowledged {
            if !self.open.contains(id) {
                assert_eq!(found.get(id).and_then(label), *expected, "{id}");
            }
        }
        for record in found.values() {
            assert!(self.acknowledged.contains_key(&record.id) || self.open.contains(&record.id));
            archive.read_pack(record.thumbnail.as_ref().unwrap()).await.unwrap();
        }
        let verified = verify(archive).await.unwrap();
        assert!(verified.damaged.is_empty(), "{:?}", verified.damaged);
    }
}

/// Runs the script with a fault at every operation, then again without.
async fn at_every_operation(fault: fn(usize) -> Faults, reached: fn(&Faults) -> usize) -> Vec<ErrorKind> {
    let mut kinds = Vec::new();
    for number in 0.. {
        let place = Place::new(IdentityMode::Anonymous).await;
        let faults = Arc::new(fault(number));
        if let Ok(archive) = place.faulty(&faults).await {
            let mut script = Script::new(archive);
            script.run().await;
            script.check(&place.again().await).await;
            kinds.append(&mut script.kinds);
        }
        let mut again = Script::new(place.again().await);
        again.run().await;
        assert_eq!(again.kinds, [], "fault {number}");
        again.check(&place.again().await).await;
        if reached(&faults) <= number {
            println!("{number} operations");
            return kinds;
        }
    }
    unreachable!("the script ends")
}

#[tokio::test]
async fn killed_between_any_two_operations() {
    let stop = |number| Faults {
        stop_at: Some(number),
        ..Faults::default()
    };
    let kinds = at_every_operation(stop, Faults::operations).await;
    assert!(
        kinds
            .iter()
            .all(|kind| matches!(kind, ErrorKind::Unavailable | ErrorKind::NotFound)),
        "{kinds:?}"
    );
}

#[tokio::test]
async fn an_unknown_outcome_at_any_operation() {
    let lie = |number| Faults {
        lie_at: Some(number),
        ..Faults::default()
    };
    let kinds = at_every_operation(lie, Faults::operations).await;
    assert!(
        kinds
            .iter()
            .all(|kind| matches!(kind, ErrorKind::Unavailable | ErrorKind::NotFound)),
        "{kinds:?}"
    );
}

#[tokio::test]
async fn a_full_disk_at_any_write() {
    let full = |number| Faults {
        full_at: Some((number, number + 2)),
        ..Faults::default()
    };
    let kinds = at_every_operation(full, Faults::puts).await;
    assert!(kinds.contains(&ErrorKind::StorageFull));
    assert!(
        kinds
            .iter()
            .all(|kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::NotFound)),
        "{kinds:?}"
    );
}

#[tokio::test]
async fn a_writer_goes_on_when_there_is_space_again() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let faults = Arc::new(Faults {
        full_at: Some((0, 3)),
        ..Faults::default()
    });
    let archive = place.faulty(&faults).await.unwrap();
    let writer = writer(&archive).await;
    let refused = writer.write(insert(&archive, 1, None)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StorageFull);
    while faults.puts() <= 3 {
        let _ = writer.write(insert(&archive, 1, None)).await;
    }
    assert!(writer.write(insert(&archive, 1, None)).await.is_ok());
    assert_eq!(contents(&place.again().await).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_writers_lose_nothing_and_double_nothing() {
    const WRITERS: u32 = 8;
    const EACH: u32 = 6;
    let place = Place::new(IdentityMode::Anonymous).await;
    let mut tasks = Vec::new();
    for number in 0..WRITERS {
        let archive = place.again().await;
        tasks.push(tokio::spawn(async move {
            let writer = writer(&archive).await;
            for image in 0..EACH {
                let own = insert(&archive, 100 * (number + 1) + image, Some("COVID"));
                // Everybody has the same one, too.
                let shared = insert(&archive, image, Some("COVID"));
                let (own, shared) = tokio::join!(writer.write(own), writer.write(shared));
                assert_eq!(own.unwrap().outcome, Outcome::Inserted);
                assert!(matches!(
                    shared.unwrap().outcome,
                    Outcome::Inserted | Outcome::Duplicate
                ));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let found = contents(&place.again().await).await;
    assert_eq!(found.len() as u32, WRITERS * EACH + EACH);
    assert!(verify(&place.again().await).await.unwrap().damaged.is_empty());
    // Every version names the one before.
    let store = place.archive.store();
    let newest = place.archive.latest().await.unwrap();
    for version in 2..=newest.version {
        let this = read_manifest(store, version).await.unwrap().unwrap();
        let before = read_manifest(store, version - 1).await.unwrap().unwrap();
        assert_eq!(this.parent, Some(before.commit));
    }
}

#[tokio::test]
async fn whoever_slept_does_not_take_a_number_again() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let sleepy_clock = Arc::new(std::sync::Mutex::new(Timestamp::now()));
    let clock = Arc::clone(&sleepy_clock);
    let tuning = Tuning {
        clock: Arc::new(move || *lock(&clock)),
        ..Tuning::default()
    };
    let sleeper = Archive::open_in(
        store::Store::open(&place.url()).unwrap(),
        &place.url(),
        secret(),
        tuning,
    )
    .await
    .unwrap();
    let sleeping = writer(&sleeper).await;

    let awake = writer(&place.archive).await;
    for number in 1..=4 {
        awake.write(insert(&place.archive, number, None)).await.unwrap();
    }
    compact_after(&place.archive, Duration::ZERO, Duration::ZERO)
        .await
        .unwrap();
    let newest = place.archive.latest().await.unwrap().version;
    assert!(
        read_manifest(place.archive.store(), 2).await.unwrap().is_none(),
        "version 2 is collected"
    );

    *lock(&sleepy_clock) += SignedDuration::from_hours(2);
    let done = sleeping.write(insert(&sleeper, 5, None)).await.unwrap();
    assert_eq!(done.version, newest + 1);
    assert_eq!(contents(&place.again().await).await.len(), 5);
}

#[tokio::test]
async fn whoever_slept_while_putting_a_manifest_does_not_say_that_it_counts() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let time = Arc::new(std::sync::Mutex::new(Timestamp::now()));
    let faults = Arc::new(Faults::default());
    let clock = Arc::clone(&time);
    let sleeper = place.faulty_at(&faults, Arc::new(move || *lock(&clock))).await.unwrap();
    let sleeping = writer(&sleeper).await;
    let awake = place.again().await;
    *lock(&faults.meanwhile) = Some(Box::pin(async move {
        // Others write, the number that the sleeper is about to take among them, and it is collected.
        let others = writer(&awake).await;
        for number in 1..=4 {
            others.write(insert(&awake, number, None)).await.unwrap();
        }
        compact_after(&awake, Duration::ZERO, Duration::ZERO).await.unwrap();
        assert!(read_manifest(awake.store(), 2).await.unwrap().is_none());
        *lock(&time) += SignedDuration::from_hours(2);
    }));
    let error = sleeping.write(insert(&sleeper, 5, None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("asleep"), "{error}");
    assert!(
        read_manifest(place.archive.store(), 2).await.unwrap().is_some(),
        "it did take the number"
    );
    let found = contents(&place.again().await).await;
    assert!(found.len() == 4 && !found.contains_key(&id(&sleeper, 5)));
}

/// What a writer is at when it falls asleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asleep {
    Writing,
    Appending,
    Merging,
    KeepingAnEvaluation,
}

impl Asleep {
    async fn run(self, archive: &Archive) -> Result<()> {
        match self {
            Self::Writing => writer(archive).await.write(insert(archive, 5, None)).await.map(drop),
            Self::Appending => archive.append(vec![image(archive, 5, None)], None).await.map(drop),
            Self::Merging => compact(archive, CompactSettings::default()).await.map(drop),
            Self::KeepingAnEvaluation => {
                let report = super::evaluation::evaluation(1, 0.5);
                archive.keep_evaluation(report).await.map(drop)
            }
        }
    }
}

#[tokio::test]
async fn whoever_slept_past_collection_names_nothing_that_is_gone() {
    for asleep in [
        Asleep::Writing,
        Asleep::Appending,
        Asleep::Merging,
        Asleep::KeepingAnEvaluation,
    ] {
        for others_write in [false, true] {
            let case = format!("{asleep:?}, others write: {others_write}");
            let place = Place::new(IdentityMode::Anonymous).await;
            // Nothing that the hourly upkeep would merge.
            let images = (1..=2).map(|number| image(&place.archive, number, None)).collect();
            place.archive.append(images, None).await.unwrap();
            let awake = writer(&place.archive).await;
            awake.write(insert(&place.archive, 3, None)).await.unwrap();
            let time = Arc::new(std::sync::Mutex::new(Timestamp::now()));
            let (faults, clock) = (Arc::new(Faults::default()), Arc::clone(&time));
            let sleeper = place.faulty_at(&faults, Arc::new(move || *lock(&clock))).await.unwrap();
            let collector = place.at(SignedDuration::from_hours(21)).await;
            let archive = place.archive.clone();
            // Its objects are there, the manifest that names them is not.
            *lock(&faults.meanwhile) = Some(Box::pin(async move {
                if others_write {
                    awake.write(insert(&archive, 4, None)).await.unwrap();
                }
                *lock(&time) += SignedDuration::from_hours(21);
                let done = maintain(&collector, CompactSettings::default()).await.unwrap();
                assert!(done.objects_deleted > 0, "what was not named yet is collected");
            }));
            let done = asleep.run(&sleeper).await;
            assert!(lock(&faults.meanwhile).is_none(), "it did happen: {case}");
            if let Err(error) = &done {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{case}: {error}");
            }
            let verified = verify(&place.again().await).await.unwrap();
            assert_eq!(verified.damaged, Vec::<String>::new(), "{case}");
            let found = contents(&place.again().await).await;
            let is_there = |number| found.contains_key(&id(&sleeper, number));
            assert!((1..=3).all(is_there) && is_there(4) == others_write, "{case}");
            if matches!(asleep, Asleep::Writing | Asleep::Appending) {
                assert_eq!(is_there(5), done.is_ok(), "{case}");
            }
            // It is of use again.
            asleep
                .run(&sleeper)
                .await
                .unwrap_or_else(|error| panic!("{case}: {error}"));
            let verified = verify(&place.again().await).await.unwrap();
            assert_eq!(verified.damaged, Vec::<String>::new(), "{case}");
        }
    }
}

#[tokio::test]
async fn what_was_written_for_a_version_that_another_took_is_named_by_the_next() {
    // What the other writes, how long that takes, and how often this one puts something: two packs and rows, and a manifest twice.
    for (other, hours, puts) in [(1, 0, 5), (1, 13, 8), (5, 0, 4)] {
        let place = Place::new(IdentityMode::Anonymous).await;
        let time = Arc::new(std::sync::Mutex::new(Timestamp::now()));
        let (faults, clock) = (Arc::new(Faults::default()), Arc::clone(&time));
        let slow = place.faulty_at(&faults, Arc::new(move || *lock(&clock))).await.unwrap();
        let writing = writer(&slow).await;
        let archive = place.archive.clone();
        *lock(&faults.meanwhile) = Some(Box::pin(async move {
            let others = writer(&archive).await;
            others.write(insert(&archive, other, Some("COVID"))).await.unwrap();
            *lock(&time) += SignedDuration::from_hours(hours);
        }));
        let done = writing.write(insert(&slow, 5, Some("COVID"))).await.unwrap();
        let outcome = if other == 5 {
            Outcome::Duplicate
        } else {
            Outcome::Inserted
        };
        assert_eq!((done.outcome, faults.puts()), (outcome, puts), "{other} {hours}");
        let found = contents(&place.again().await).await;
        assert_eq!(
            found.into_keys().collect::<BTreeSet<_>>(),
            BTreeSet::from([id(&slow, other), id(&slow, 5)])
        );
        assert!(verify(&place.again().await).await.unwrap().damaged.is_empty());
    }
}

#[tokio::test]
async fn a_panic_costs_one_batch_and_waiting_ends() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let faults = Arc::new(Faults {
        panic_at: Some(1),
        ..Faults::default()
    });
    let archive = place.faulty(&faults).await.unwrap();
    let writer = writer(&archive).await;
    let error = writer.write(insert(&archive, 1, None)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(writer.is_alive());
    writer.write(insert(&archive, 1, None)).await.unwrap();
    assert_eq!(contents(&place.again().await).await.len(), 1);

    let never = Arc::new(Faults::default());
    *lock(&never.meanwhile) = Some(Box::pin(std::future::pending()));
    let stuck = place.faulty(&never).await.unwrap();
    let writer = super::writer(&stuck).await;
    let soon = Instant::now() + Duration::from_millis(50);
    let error = writer.submit(insert(&stuck, 2, None), soon).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadline);
}

#[tokio::test]
async fn damage_is_named() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let images = (0..3).map(|number| image(archive, number, Some("COVID"))).collect();
    archive.append(images, None).await.unwrap();
    let manifest = archive.latest().await.unwrap();
    assert_eq!(manifest.objects().count(), 3);
    for (name, _) in manifest.objects() {
        let path = place.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        for broken in [damaged, whole[..last].to_vec(), vec![]] {
            std::fs::write(&path, broken).unwrap();
            let found = verify(archive).await.unwrap().damaged;
            assert!(found.len() == 1 && found[0].contains(name), "{found:?}");
        }
        std::fs::remove_file(&path).unwrap();
        let found = verify(archive).await.unwrap().damaged;
        assert!(
            found.len() == 1 && found[0].contains(name) && found[0].contains("missing"),
            "{found:?}"
        );
        std::fs::write(&path, whole).unwrap();
    }
    assert!(verify(archive).await.unwrap().damaged.is_empty());
    let path = place.path().join(Manifest::name(manifest.version));
    std::fs::write(path, "{").unwrap();
    assert_eq!(
        Archive::open(&place.url(), secret()).await.unwrap_err().kind(),
        ErrorKind::Damaged
    );
}
