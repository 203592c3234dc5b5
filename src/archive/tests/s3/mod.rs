//! An archive in a bucket: the same promises over a protocol that may refuse, be slow, and lose answers.

mod cache;
mod server;

use hyper::Method;

use super::*;
use crate::archive::store::{PART_BYTES, Put, Store, object_name};
use server::SECRET_KEY;
pub use server::{Fault, LIMITS, Server, URL};

const FAULTS_THAT_WRITE: [Fault; 3] = [Fault::BusyAfterwards, Fault::Lost, Fault::Late];

fn soon() -> Tuning {
    Tuning {
        patience: Duration::from_millis(20),
        ..Tuning::default()
    }
}

async fn create(server: &Server) -> Archive {
    let new = new_archive(IdentityMode::Linked);
    Archive::create_in(server.store(), URL, new, secret(), Tuning::default())
        .await
        .unwrap()
}

/// A handle of another process.
async fn again(server: &Server) -> Archive {
    Archive::open_in(server.store(), URL, secret(), Tuning::default())
        .await
        .unwrap()
}

/// A handle of another process that gives up soon.
async fn impatient(server: &Server) -> Archive {
    Archive::open_in(server.store(), URL, secret(), soon()).await.unwrap()
}

/// Every version is there, each the next one's parent; fails where one was replaced.
async fn check_line(archive: &Archive) -> u64 {
    let newest = archive.latest().await.unwrap().version;
    let mut parent = None;
    for version in 1..=newest {
        let manifest = read_manifest(archive.store(), version).await.unwrap().unwrap();
        assert_eq!(manifest.parent, parent, "version {version}");
        parent = Some(manifest.commit);
    }
    newest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_gives_a_name_to_one_writer() {
    const NAMES: usize = 200;
    let server = Server::start().await;
    let tasks = (0..8u8).map(|task| {
        let store = server.store();
        tokio::spawn(async move {
            let mut won = Vec::new();
            for number in 0..NAMES {
                let put = store.put_if_absent(&format!("names/{number}"), vec![task].into()).await;
                if put.unwrap() == Put::Done {
                    won.push(number);
                }
            }
            (task, won)
        })
    });
    let mut winners = BTreeMap::new();
    for done in futures_util::future::join_all(tasks).await {
        let (task, won) = done.unwrap();
        for number in won {
            assert_eq!(winners.insert(number, task), None, "two took `{number}`");
        }
    }
    assert_eq!(winners.len(), NAMES);
    let store = server.store();
    for (number, task) in winners {
        assert_eq!(store.get(&format!("names/{number}")).await.unwrap(), vec![task]);
    }
}

#[tokio::test]
async fn an_archive_lives_in_a_bucket() {
    let server = Server::start().await;
    let none = Archive::open_in(server.store(), URL, secret(), soon()).await;
    assert_eq!(none.unwrap_err().kind(), ErrorKind::NotFound);
    let archive = create(&server).await;
    let twice = Archive::create_in(server.store(), URL, new_archive(IdentityMode::Linked), secret(), soon()).await;
    assert_eq!(twice.unwrap_err().kind(), ErrorKind::Conflict);

    let settings = WriterSettings {
        deltas_merge_at: 8,
        ..WriterSettings::default()
    };
    let writer = Writer::spawn(archive.clone(), settings, unread_metrics(), watch::channel(0).0)
        .await
        .unwrap();
    for number in 0..20 {
        let done = writer.write(insert(&archive, number, Some("COVID"))).await.unwrap();
        assert_eq!(done.outcome, Outcome::Inserted);
    }
    let relabel = Change::Relabel {
        id: id(&archive, 1),
        class: Some(class("Normal")),
        label_source: Some(LabelSource::Pcr),
    };
    writer.write(relabel).await.unwrap();
    for number in 2..10 {
        writer
            .write(Change::Delete {
                id: id(&archive, number),
            })
            .await
            .unwrap();
    }
    let images = (20..24).map(|number| image(&archive, number, None)).collect();
    archive.append(images, None).await.unwrap();

    let other = again(&server).await;
    let found = contents(&other).await;
    assert_eq!(found.len(), 16);
    assert_eq!(label(&found[&id(&other, 1)]), Some("Normal"));
    let picture = found[&id(&other, 20)].thumbnail.clone().unwrap();
    assert_eq!(other.read_pack(&picture).await.unwrap(), "thumbnail 20");
    check_line(&other).await;

    let done = compact_after(&other, Duration::ZERO, Duration::ZERO).await.unwrap();
    assert!(done.manifests_deleted > 20 && done.objects_deleted > 20, "{done:?}");
    let fresh = again(&server).await;
    assert_eq!(contents(&fresh).await, found_after_merge(found, &fresh).await);
    let verified = verify(&fresh).await.unwrap();
    assert_eq!((verified.damaged, verified.images), (vec![], 16));
    let named: BTreeSet<String> = fresh.latest().await.unwrap().names();
    for folder in ["rows", "thumbnails", "pixels"] {
        for listed in fresh.store().list(folder).await.unwrap() {
            assert!(named.contains(&listed.name), "`{}` is left over", listed.name);
        }
    }
    assert_eq!(fresh.store().list(manifest::MANIFESTS).await.unwrap().len(), 1);

    // What is damaged in the bucket is named.
    let name = named.first().unwrap();
    std::fs::write(server.path().join(name), "other bytes").unwrap();
    assert_eq!(verify(&fresh).await.unwrap().damaged.len(), 1);
}

/// Merging moves pictures: where they lie is the new version's, the rest is what it was.
async fn found_after_merge(mut before: BTreeMap<ImageId, Record>, archive: &Archive) -> BTreeMap<ImageId, Record> {
    for (id, record) in contents(archive).await {
        let old = before.get_mut(&id).unwrap();
        (old.thumbnail, old.pixels) = (record.thumbnail, record.pixels);
    }
    before
}

#[tokio::test]
async fn archives_of_one_bucket_are_apart() {
    let server = Server::start().await;
    create(&server).await;
    for url in ["s3://bucket", "s3://bucket/hospital", "s3://bucket/hospital/x-rays-2"] {
        let other = Archive::open_in(server.store_at(url), url, secret(), soon()).await;
        assert_eq!(other.unwrap_err().kind(), ErrorKind::NotFound, "{url}");
    }
    let url = "s3://bucket/hospital/x";
    let new = new_archive(IdentityMode::Anonymous);
    let other = Archive::create_in(server.store_at(url), url, new, secret(), soon())
        .await
        .unwrap();
    other.append(vec![image(&other, 1, None)], None).await.unwrap();
    compact_after(&other, Duration::ZERO, Duration::ZERO).await.unwrap();
    assert_eq!(again(&server).await.latest().await.unwrap().version, 1);

    let url = "s3://no-such-bucket/archive";
    let missing = Archive::open_in(server.store_at(url), url, secret(), soon()).await;
    let error = missing.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("bucket is missing"), "{error}");
}

#[tokio::test]
async fn listings_come_in_pages() {
    let server = Server::start().await;
    create(&server).await;
    let folder = server.path().join("graphs");
    std::fs::create_dir(&folder).unwrap();
    for number in 0..2100 {
        std::fs::write(folder.join(format!("{number:064x}")), "").unwrap();
    }
    server.requests();
    let listed = server.store().list("graphs").await.unwrap();
    assert_eq!(listed.len(), 2100);
    assert!(listed.is_sorted_by(|a, b| a.name < b.name) && listed[0].name.starts_with("graphs/0"));
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn large_objects_go_up_in_parts() {
    let server = Server::start().await;
    let store = server.store();
    let bytes: Vec<u8> = (0..PART_BYTES + 100_000).map(|i| (i / 1000) as u8).collect();
    let (name, bytes) = object_name("rows", bytes.into()).await.unwrap();
    // Each part may be lost on its way like anything else.
    server.plan(Fault::Busy, Method::PUT, "partNumber=2", 1);
    server.plan(Fault::Lost, Method::PUT, "partNumber=1", 1);
    // And so may the word that they are to be one object.
    server.plan(Fault::Lost, Method::POST, "uploadId=", 1);
    store.put_object(&name, bytes.clone()).await.unwrap();
    assert_eq!(server.spared(), 0);
    assert_eq!(store.get_object(&name).await.unwrap(), bytes);
    let end = bytes.len() as u64;
    assert_eq!(
        store.get_range(&name, end - 5..end + 5).await.unwrap(),
        bytes[bytes.len() - 5..]
    );

    // Whether the last parts are on their way when one fails, or there are more to come, none is left behind.
    for parts in [2, 6] {
        let (other, bytes) = object_name("rows", vec![parts; usize::from(parts) * PART_BYTES].into())
            .await
            .unwrap();
        server.requests();
        server.plan(Fault::Busy, Method::PUT, "partNumber=", 100);
        let error = store.put_object(&other, bytes.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        server.spared();
        assert!(store.is_missing(&other).await);
        let aborted = |request: &String| request.starts_with("DELETE") && request.contains("uploadId=");
        assert!(server.requests().iter().any(aborted), "{parts} parts");
        store.put_object(&other, bytes).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_writers_lose_nothing() {
    const IMAGES: u32 = 10;
    let server = Server::start().await;
    let archive = create(&server).await;
    let mut tasks = Vec::new();
    for task in 0..8 {
        let archive = again(&server).await;
        tasks.push(tokio::spawn(async move {
            let writer = writer(&archive).await;
            let mut acknowledged = Vec::new();
            for number in 0..IMAGES {
                let done = writer.write(insert(&archive, task * 100 + number, None)).await.unwrap();
                assert_eq!(done.outcome, Outcome::Inserted);
                acknowledged.push((done.version, done.id.unwrap()));
            }
            acknowledged
        }));
    }
    let mut acknowledged = BTreeMap::new();
    for done in futures_util::future::join_all(tasks).await {
        for (version, id) in done.unwrap() {
            assert_eq!(
                acknowledged.insert(version, id),
                None,
                "version {version} is two writers'"
            );
        }
    }
    assert_eq!(acknowledged.len(), 80);
    let found = contents(&again(&server).await).await;
    let ids: BTreeSet<_> = acknowledged.into_values().collect();
    assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), ids);
    // Merges are versions too.
    assert!(check_line(&archive).await > 80);
    assert!(verify(&archive).await.unwrap().damaged.is_empty());
}

#[tokio::test]
async fn what_goes_wrong_once_is_not_noticed() {
    let server = Server::start().await;
    let archive = create(&server).await;
    let writer = writer(&archive).await;
    let mut number = 0;
    for part in ["/manifest/", "/rows/", "/thumbnails/"] {
        for fault in FAULTS_THAT_WRITE.into_iter().chain([Fault::Busy, Fault::Conflict]) {
            // S3 knows no conflict where nothing is asked.
            if fault == Fault::Conflict && part != "/manifest/" {
                continue;
            }
            number += 1;
            server.plan(fault, Method::PUT, part, 1);
            let done = writer.write(insert(&archive, number, None)).await;
            let done = done.unwrap_or_else(|error| panic!("{fault:?} at {part}: {error}"));
            assert_eq!(done.outcome, Outcome::Inserted, "{fault:?} at {part}");
            assert_eq!(server.spared(), 0, "{fault:?} at {part}");
            assert_eq!(done.version, u64::from(number) + 1, "written once: {fault:?} at {part}");
        }
    }
    for (method, part) in [
        (Method::GET, "/manifest/"),
        (Method::GET, "prefix="),
        (Method::GET, "/rows/"),
    ] {
        for fault in [Fault::Busy, Fault::Lost, Fault::Late] {
            server.plan(fault, method.clone(), part, 1);
            let found = contents(&again(&server).await).await;
            assert_eq!(
                (found.len(), server.spared()),
                (number as usize, 0),
                "{fault:?} at {part}"
            );
        }
    }
    check_line(&archive).await;
}

#[tokio::test]
async fn an_archive_is_made_once_although_the_answer_is_lost() {
    for fault in FAULTS_THAT_WRITE {
        let server = Server::start().await;
        server.plan(fault, Method::PUT, "/manifest/", 1);
        let archive = create(&server).await;
        assert_eq!((server.spared(), check_line(&archive).await), (0, 1), "{fault:?}");
    }
}

#[tokio::test]
async fn a_report_is_kept_once_although_the_answer_is_lost() {
    let server = Server::start().await;
    let archive = create(&server).await;
    archive
        .append(vec![image(&archive, 1, Some("COVID"))], None)
        .await
        .unwrap();
    let report = NewReport::new(id(&archive, 1), Some(class("COVID")), None, "it is not").unwrap();
    for fault in FAULTS_THAT_WRITE {
        server.plan(fault, Method::PUT, "/feedback/", 1);
        let kept = archive.report(&report).await.unwrap();
        assert_eq!(server.spared(), 0, "{fault:?}");
        assert_eq!(
            archive.reports(None, 10).await.unwrap().open,
            std::slice::from_ref(&kept)
        );
        archive.resolve(kept.id).await.unwrap();
    }
    assert!(archive.reports(None, 10).await.unwrap().open.is_empty());
}

#[tokio::test]
async fn a_conflict_that_stays_is_no_object() {
    let server = Server::start().await;
    create(&server).await;
    let store = server.store();
    server.plan(Fault::Conflict, Method::PUT, "/manifest/", 100);
    let error = store
        .put_if_absent("manifest/2", Bytes::from_static(b"x"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let archive = impatient(&server).await;
    let error = archive.append(vec![image(&archive, 1, None)], None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let tried = 100 - server.spared();
    assert!((8..=30).contains(&tried), "{tried} times");
    assert_eq!(again(&server).await.latest().await.unwrap().version, 1);
    archive.append(vec![image(&archive, 1, None)], None).await.unwrap();
    assert_eq!(
        store.put_if_absent(&Manifest::name(2), Bytes::new()).await.unwrap(),
        Put::Exists
    );
}

#[tokio::test]
async fn what_goes_wrong_again_and_again_is_told() {
    let server = Server::start().await;
    create(&server).await;
    let archive = impatient(&server).await;
    let writer = writer(&archive).await;
    let mut kept = 0;
    for part in ["/manifest/", "/rows/"] {
        for (fault, kind) in [
            (Fault::Busy, ErrorKind::Unavailable),
            (Fault::BusyAfterwards, ErrorKind::Unavailable),
            (Fault::Full, ErrorKind::StorageFull),
        ] {
            server.plan(fault, Method::PUT, part, 20);
            let number = kept + 1;
            let done = writer.write(insert(&archive, number, None)).await;
            server.spared();
            if (fault, part) == (Fault::BusyAfterwards, "/manifest/") {
                // It was written, the last try met it, and it bears the commit's own name.
                assert_eq!(done.unwrap().outcome, Outcome::Inserted);
            } else {
                assert_eq!(done.unwrap_err().kind(), kind, "{fault:?} at {part}");
                let done = writer.write(insert(&archive, number, None)).await.unwrap();
                assert_eq!(done.outcome, Outcome::Inserted, "{fault:?} at {part}");
            }
            kept += 1;
        }
    }
    assert_eq!(contents(&again(&server).await).await.len(), kept as usize);
    check_line(&archive).await;
}

#[tokio::test]
async fn what_is_open_outlives_an_outage() {
    let server = Server::start().await;
    create(&server).await;
    let archive = impatient(&server).await;
    let writer = writer(&archive).await;
    for number in 1..=3 {
        writer.write(insert(&archive, number, Some("COVID"))).await.unwrap();
    }
    let state = State::load(&archive).await.unwrap();

    server.set_down(true).await;
    let started = Instant::now();
    assert_eq!(archive.latest().await.unwrap_err().kind(), ErrorKind::Unavailable);
    for _ in 0..2 {
        let error = writer.write(insert(&archive, 4, None)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "a storage that refuses is given up soon"
    );
    assert!(Archive::open_in(server.store(), URL, secret(), soon()).await.is_err());
    assert_eq!(state.live().count(), 3);
    for entry in &state.manifest.rows {
        let held = archive.read_rows(entry).await.unwrap();
        assert_eq!(u64::from(held.rows()), entry.rows);
    }

    server.set_down(false).await;
    let done = writer.write(insert(&archive, 4, None)).await.unwrap();
    assert_eq!((done.version, done.outcome), (5, Outcome::Inserted));
    let newer = archive.after(state.manifest.version).await.unwrap().unwrap();
    assert_eq!(state.advance(&archive, newer).await.unwrap().live().count(), 4);
    assert_eq!(contents(&again(&server).await).await.len(), 4);
    check_line(&archive).await;
}

#[tokio::test]
async fn a_storage_that_stays_silent_is_given_up() {
    let server = Server::start().await;
    create(&server).await;
    let archive = impatient(&server).await;
    server.plan(Fault::Late, Method::GET, "/manifest/", 1 + LIMITS.retries_max);
    let error = archive.latest().await.unwrap_err();
    assert_eq!((error.kind(), server.spared()), (ErrorKind::Unavailable, 0), "{error}");
    assert_eq!(archive.latest().await.unwrap().version, 1);
}

#[tokio::test]
async fn a_storage_that_replaces_what_it_should_not_holds_no_archive() {
    let server = Server::start().await;
    server.set_deaf(true);
    let new = new_archive(IdentityMode::Linked);
    let made = Archive::create_in(server.store(), URL, new, secret(), soon()).await;
    let error = made.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains("If-None-Match"), "{error}");
    assert!(!server.path().join(Manifest::name(1)).exists());

    // Or it was moved to one.
    server.set_deaf(false);
    let archive = create(&server).await;
    server.set_deaf(true);
    let writer = Writer::spawn(
        archive.clone(),
        WriterSettings::default(),
        unread_metrics(),
        watch::channel(0).0,
    )
    .await;
    assert_eq!(writer.err().map(|error| error.kind()), Some(ErrorKind::Conflict));
}

#[tokio::test]
async fn looking_for_a_newer_version_is_one_small_request() {
    let server = Server::start().await;
    let archive = create(&server).await;
    server.requests();
    assert!(archive.after(1).await.unwrap().is_none());
    let asked = format!("GET /hospital/x-rays/{}", Manifest::name(2));
    assert_eq!(server.requests(), [asked]);
}

/// An hour of writes is thousands of versions, of which a bucket lists a thousand at a time.
#[tokio::test]
async fn however_many_versions_there_are_the_newest_is_found_with_few_requests() {
    const VERSIONS: u64 = 2500;
    const STEPS_MAX: usize = 2 * VERSIONS.ilog2() as usize;
    let server = Server::start().await;
    let follower = create(&server).await;
    let time = Arc::new(Mutex::new(Timestamp::now()));
    let clock = Arc::clone(&time);
    let tuning = Tuning {
        clock: Arc::new(move || *lock(&clock)),
        ..Tuning::default()
    };
    let sleeper = Archive::open_in(server.store(), URL, secret(), tuning).await.unwrap();
    let mut manifest = Manifest::clone(&*follower.latest().await.unwrap());
    for version in 2..=VERSIONS {
        manifest.parent = Some(std::mem::replace(&mut manifest.commit, format!("commit {version}")));
        manifest.version = version;
        std::fs::write(server.path().join(Manifest::name(version)), manifest.encode().unwrap()).unwrap();
    }
    let asked = || {
        let requests = server.requests();
        let lists = requests.iter().filter(|request| request.contains("list-type"));
        (lists.count(), requests.len())
    };

    asked();
    assert_eq!(follower.latest().await.unwrap().version, VERSIONS);
    let (lists, requests) = asked();
    assert!(
        lists == 0 && requests <= 3 + STEPS_MAX,
        "{requests} requests, {lists} lists"
    );

    // The oldest are collected; one of them is left, or was written again by somebody who slept: it stands alone.
    for version in (1..100).filter(|&version| version != 50) {
        std::fs::remove_file(server.path().join(Manifest::name(version))).unwrap();
    }
    *lock(&time) += SignedDuration::from_hours(2);
    assert_eq!(sleeper.latest().await.unwrap().version, VERSIONS);
    let (lists, requests) = asked();
    assert!(
        lists == 1 && requests <= 3 + STEPS_MAX,
        "{requests} requests, {lists} lists"
    );
    assert_eq!(again(&server).await.latest().await.unwrap().version, VERSIONS);
    let (lists, requests) = asked();
    assert!(
        lists == 1 && requests <= 4 + STEPS_MAX,
        "{requests} requests, {lists} lists"
    );

    // Nor is what is known for long taken for the newest when the archive is gone.
    std::fs::remove_dir_all(server.path().join("manifest")).unwrap();
    *lock(&time) += SignedDuration::from_hours(2);
    assert_eq!(sleeper.latest().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_thousand_names_of_others_and_of_backups_hide_no_version() {
    let server = Server::start().await;
    let archive = create(&server).await;
    let manifest = archive.latest().await.unwrap();
    let folder = server.path().join("manifest");
    // What a file share leaves beside each file sorts before all versions.
    let beside = |number| folder.join(format!("._{number:020}.json"));
    (0..1100).for_each(|number| std::fs::write(beside(number), "").unwrap());
    assert_eq!(again(&server).await.latest().await.unwrap(), manifest);
    let twice = Archive::create_in(server.store(), URL, new_archive(IdentityMode::Linked), secret(), soon()).await;
    assert_eq!(twice.unwrap_err().kind(), ErrorKind::Conflict);

    (0..1100).for_each(|number| std::fs::remove_file(beside(number)).unwrap());

    // A backup has the versions that it was made of, where it may not delete the one before.
    let mut manifest = Manifest::clone(&*manifest);
    manifest.parent = Some(manifest.commit.clone());
    for run in 1..=1100 {
        manifest.version = 1 + 7 * run;
        let name = Manifest::name(manifest.version);
        std::fs::write(server.path().join(name), manifest.encode().unwrap()).unwrap();
    }
    let found = newest::newest_listed(&server.store()).await.unwrap().unwrap();
    assert_eq!(found.version, 7701);
}

#[tokio::test]
async fn no_secret_is_shown() {
    let server = Server::start().await;
    let archive = create(&server).await;
    let shown = format!("{archive:?} {:?}", archive.store());
    assert!(shown.contains(URL) && !shown.contains(SECRET_KEY), "{shown}");

    let wrong = server
        .settings()
        .with_secret_access_key("another-secret")
        .with_token("a-session-token");
    let store = Store::s3(URL, wrong, LIMITS).unwrap();
    let error = Archive::open_in(store, URL, secret(), soon()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("credentials"), "{error}");
    let mut shown = format!("{error:?}");
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        shown += &format!(" {cause} {cause:?}");
        next = cause.source();
    }
    assert!(shown.contains("403"), "{shown}");
    for hidden in ["another-secret", "a-session-token"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
}

#[tokio::test]
async fn credentials_come_from_the_environment() {
    let server = Server::start().await;
    let child = |secret_key: &str| {
        tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "archive::tests::s3::what_the_environment_opens"])
            .env("AWS_ENDPOINT_URL", server.endpoint())
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_ACCESS_KEY_ID", "key")
            .env("AWS_SECRET_ACCESS_KEY", secret_key)
            // Not for the environment to say.
            .env("AWS_BUCKET", "another")
            .env("AWS_CONDITIONAL_PUT", "disabled")
            .output()
    };
    let done = child(SECRET_KEY).await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    let archive = again(&server).await;
    assert_eq!(contents(&archive).await.len(), 1);
    assert_eq!(check_line(&archive).await, 2);
    let done = child("another-secret").await.unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(
        said.contains("refuses access") && !said.contains("another-secret"),
        "{said}"
    );
}

#[tokio::test]
#[ignore = "a part of credentials_come_from_the_environment, in a process of its own"]
async fn what_the_environment_opens() {
    let archive = Archive::create(URL, new_archive(IdentityMode::Linked), secret())
        .await
        .unwrap();
    archive.append(vec![image(&archive, 1, None)], None).await.unwrap();
    Archive::open(URL, secret()).await.unwrap();
}
