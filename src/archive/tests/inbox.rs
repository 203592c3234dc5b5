//! The inbox: what was acknowledged is there, once, whatever fails; nothing of it can be read without the secret, and nothing of a deleted patient waits.

use std::collections::HashSet;

use bytes::Bytes;

use super::*;
use crate::archive::copy::{backup, restore};
use crate::archive::{InboxId, InboxLimits, PutFile, Reason};
use crate::domain::{InstanceKeys, Key};
use crate::error::Error;

fn patient(archive: &Archive, issuer: Option<&str>, id: &str) -> Option<PatientKeys> {
    archive.identity().patient_keys(issuer, id)
}

fn file(text: &str) -> Bytes {
    Bytes::from(format!("{text} with a name: DOE^JANE"))
}

/// A file of a patient, put in.
async fn put(archive: &Archive, text: &str, of: Option<&str>) -> InboxId {
    let inbox = archive.inbox();
    let sop = archive.identity().sop_key(text);
    let id = inbox.id(&file(text), of.and_then(|of| patient(archive, None, of)), sop);
    assert_eq!(inbox.put(id, file(text)).await.unwrap(), PutFile::New);
    id
}

fn waiting(listed: Vec<Waiting>) -> BTreeSet<InboxId> {
    listed.into_iter().map(|waiting| waiting.id).collect()
}

#[tokio::test]
async fn a_file_waits_once_and_is_unreadable_without_the_secret() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let id = put(archive, "one", Some("P1")).await;
    let inbox = archive.inbox();
    assert_eq!(inbox.put(id, file("one")).await.unwrap(), PutFile::Known);
    let other = place.again().await.inbox();
    let listed = other.list().await.unwrap();
    assert_eq!((listed.len(), listed[0].id), (1, id));
    assert_eq!(other.read(id).await.unwrap(), file("one"));
    assert_eq!(id.to_string().parse::<InboxId>().unwrap(), id);

    let path = place.path().join(format!("inbox/{id}"));
    let bytes = std::fs::read(&path).unwrap();
    assert!(!bytes.windows(4).any(|window| window == b"JANE"));
    // Under another name, or changed, it does not open.
    let twin = put(archive, "two", None).await;
    std::fs::copy(&path, place.path().join(format!("inbox/{twin}"))).unwrap();
    assert_eq!(inbox.read(twin).await.unwrap_err().kind(), ErrorKind::Damaged);

    other.remove(id).await.unwrap();
    other.remove(id).await.unwrap();
    assert_eq!(inbox.read(id).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_full_inbox_refuses_and_takes_more_later() {
    let place = Place::new(IdentityMode::Linked).await;
    let inbox = place.archive.inbox_of(InboxLimits {
        entries_max: 2,
        ..InboxLimits::default()
    });
    let put = async |text: &str| {
        let id = inbox.id(&file(text), None, None);
        inbox.put(id, file(text)).await.map(|_| id)
    };
    let first = put("1").await.unwrap();
    put("2").await.unwrap();
    let refused = put("3").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    assert!(refused.retry_after_s().is_some());
    inbox.remove(first).await.unwrap();
    inbox.list().await.unwrap();
    put("3").await.unwrap();

    let small = place.archive.inbox_of(InboxLimits {
        bytes_max: 10,
        ..InboxLimits::default()
    });
    let id = small.id(&file("4"), None, None);
    assert_eq!(
        small.put(id, file("4")).await.unwrap_err().kind(),
        ErrorKind::Overloaded
    );
}

#[tokio::test]
async fn what_fails_is_kept_with_its_reason_and_can_wait_again() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let inbox = archive.inbox_of(InboxLimits {
        failed_max: 2,
        ..InboxLimits::default()
    });
    let reason = Reason::from(&Error::new(ErrorKind::ConstantImage, "every pixel is `7`"));
    let mut ids = Vec::new();
    for text in ["1", "2", "3"] {
        let id = put(archive, text, Some("P1")).await;
        inbox.fail(id, &file(text), &reason).await.unwrap();
        ids.push(id);
    }
    assert!(inbox.list().await.unwrap().is_empty());
    let failed = inbox.failed(10).await.unwrap();
    assert_eq!(inbox.failed_count().await.unwrap(), 2);
    assert!(failed.iter().all(|failed| failed.reason == reason));
    let kept: Vec<InboxId> = failed.iter().map(|failed| failed.id).collect();
    assert!(!kept.contains(&ids[0]), "the oldest goes");

    inbox.retry(ids[2]).await.unwrap();
    assert_eq!(waiting(inbox.list().await.unwrap()), BTreeSet::from([ids[2]]));
    assert_eq!(inbox.read(ids[2]).await.unwrap(), file("3"));
    // It failed again, for the same reason: once is enough.
    inbox.fail(ids[2], &file("3"), &reason).await.unwrap();
    inbox.forget(ids[1]).await.unwrap();
    assert_eq!(inbox.failed_count().await.unwrap(), 1);
}

#[tokio::test]
async fn nothing_of_a_deleted_patient_waits() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let inbox = archive.inbox();
    let (gone, stays) = (put(archive, "1", Some("P1")).await, put(archive, "2", Some("P2")).await);
    let failed = put(archive, "3", Some("P1")).await;
    let reason = Reason::from(&Error::new(ErrorKind::InvalidImage, "no"));
    inbox.fail(failed, &file("3"), &reason).await.unwrap();
    assert!(!inbox.was_erased(gone).await.unwrap());

    let erased = inbox
        .erase_patient(patient(archive, None, "P1").unwrap())
        .await
        .unwrap();
    assert_eq!(erased, 2);
    assert_eq!(waiting(inbox.list().await.unwrap()), BTreeSet::from([stays]));
    assert_eq!(inbox.failed_count().await.unwrap(), 0);
    // Whoever was embedding it learns of it, on any replica, and does not mistake another patient for this one.
    let other = place.again().await.inbox();
    assert!(other.was_erased(gone).await.unwrap());
    assert!(!other.was_erased(stays).await.unwrap());

    let notes = || std::fs::read_dir(place.path().join("inbox/erased")).unwrap().count();
    let sop = archive.identity().sop_key("2").unwrap();
    let erase = async |sop, file| {
        let instance = InstanceKeys { sop, file };
        inbox.erase_instances(&HashSet::from([instance])).await.unwrap()
    };
    assert_eq!(erase(sop, Some(Key([9; 16]))).await, 0, "another file of it");
    assert_eq!(erase(Key([9; 16]), None).await, 0);
    assert_eq!(notes(), 1, "nothing waited, nothing to remember");
    assert_eq!(erase(sop, Some(stays.file)).await, 1);
    assert!(other.was_erased(stays).await.unwrap() && notes() == 2);
    let again = put(archive, "2", Some("P2")).await;
    assert_eq!((again, erase(sop, None).await), (stays, 1));
}

/// An image whose file waits: of a patient and an instance of its own.
async fn waiting_image(archive: &Archive, number: u32) -> (Change, PatientKeys, InstanceKeys) {
    let text = format!("{number}");
    let of = format!("patient {number}");
    let waiting = put(archive, &text, Some(&of)).await;
    let mut image = Box::new(image(archive, number, None));
    image.record.sop = waiting.sop();
    image.record.file_key = waiting.file;
    image.record.sealed = (archive.identity().seal(&serde_json::json!({}), waiting.file)).unwrap();
    let instance = InstanceKeys {
        sop: waiting.sop().unwrap(),
        file: None,
    };
    let of = patient(archive, None, &of).unwrap();
    (Change::InsertInstance { image, waiting }, of, instance)
}

/// How somebody deletes while an image is embedded.
#[derive(Clone, Copy, PartialEq)]
enum Deletes {
    Patient,
    Instance,
}

/// Deletes as a server does: what waits, then images.
async fn delete(archive: &Archive, how: Deletes, patient: PatientKeys, instance: InstanceKeys) {
    let inbox = archive.inbox();
    let change = match how {
        Deletes::Patient => {
            let waited = inbox.erase_patient(patient).await.unwrap() > 0;
            Change::DeletePatient { patient, waited }
        }
        Deletes::Instance => {
            let instances = vec![instance];
            let waited = inbox.erase_instances(&HashSet::from([instance])).await.unwrap() > 0;
            Change::DeleteInstances { instances, waited }
        }
    };
    writer(archive).await.write(change).await.unwrap();
}

#[tokio::test]
async fn what_is_embedded_while_it_is_deleted_comes_into_no_version() {
    for how in [Deletes::Patient, Deletes::Instance] {
        let place = Place::new(IdentityMode::Linked).await;
        let (change, patient, instance) = waiting_image(&place.archive, 1).await;
        // Between the moment at which the embedder's version is made and that at which it is there.
        let other = place.again().await;
        let faults = Arc::new(Faults::default());
        let meanwhile = async move { delete(&other, how, patient, instance).await };
        *lock(&faults.meanwhile) = Some(Box::pin(meanwhile));
        let embedder = place.faulty(&faults).await.unwrap();
        let refused = writer(&embedder).await.write(change).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotFound);
        assert!(contents(&place.again().await).await.is_empty());
    }
}

#[tokio::test]
async fn who_is_killed_while_embedding_leaves_no_deleted_image() {
    for how in [Deletes::Patient, Deletes::Instance] {
        let mut refused = None;
        for stop_at in 0..1000 {
            let place = Place::new(IdentityMode::Linked).await;
            let (change, patient, instance) = waiting_image(&place.archive, 1).await;
            let stop_at = place_operations(&place).await + stop_at;
            let faults = Arc::new(Faults {
                stop_at: Some(stop_at),
                ..Faults::default()
            });
            // The deletion comes while the version is being written, and that of an embedder that is killed before after that.
            let other = place.again().await;
            let meanwhile = async move { delete(&other, how, patient, instance).await };
            *lock(&faults.meanwhile) = Some(Box::pin(meanwhile));
            let embedder = place.faulty(&faults).await.unwrap();
            let (settings, versions) = (WriterSettings::default(), watch::channel(0).0);
            let spawned = Writer::spawn(embedder, settings, unread_metrics(), versions).await;
            let written = match spawned {
                Ok(writer) => writer.write(change).await,
                Err(error) => Err(error),
            };
            let error = written.expect_err("it was deleted while its version was written");
            if lock(&faults.meanwhile).is_some() {
                delete(&place.again().await, how, patient, instance).await;
            }
            // Whoever comes next finds nothing that waits, and no image.
            assert!(place.again().await.inbox().list().await.unwrap().is_empty());
            assert!(contents(&place.again().await).await.is_empty(), "stopped at {stop_at}");
            if faults.operations() <= stop_at {
                refused = Some(error.kind());
                break;
            }
        }
        assert_eq!(refused, Some(ErrorKind::NotFound));
    }
}

#[tokio::test]
async fn another_file_of_an_image_keeps_it() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    let sop = |number: u8| archive.identity().sop_key(&format!("1.2.{number}")).unwrap();
    let file = |number: u8| archive.identity().file_key(&[number; 32]);
    let add = async |number: u8, class_of: Option<&str>| {
        let mut image = image(archive, 1, class_of);
        image.record.sop = Some(sop(number));
        image.record.file_key = file(number);
        image.record.file = Some(format!("{number}.dcm"));
        image.vector[0] += f32::from(number);
        let original = serde_json::json!({"sop_uid": format!("1.2.{number}")});
        image.record.sealed = archive.identity().seal(&original, file(number)).unwrap();
        writer.write(Change::Insert(Box::new(image))).await.unwrap().outcome
    };
    let delete = async |sop, file| {
        let instances = vec![InstanceKeys { sop, file }];
        writer
            .write(Change::DeleteInstances {
                instances,
                waited: false,
            })
            .await
            .unwrap()
            .outcome
    };
    add(1, Some("COVID")).await;
    assert_eq!(
        (add(2, None).await, add(3, Some("Normal")).await),
        (Outcome::Duplicate, Outcome::Conflict)
    );
    let one = id(archive, 1);
    let kept = async || contents(&place.again().await).await.remove(&one);
    // Only this file of it, which it does not have; and one of another instance.
    assert_eq!(delete(sop(2), Some(file(9))).await, Outcome::Deleted { images: 0 });
    assert_eq!(kept().await.unwrap().aliases.len(), 2);
    // The image's own file goes: the first of the others takes its place.
    assert_eq!(delete(sop(1), None).await, Outcome::Deleted { images: 0 });
    let record = kept().await.unwrap();
    assert_eq!(
        (record.sop, record.file_key, record.aliases.len()),
        (Some(sop(2)), file(2), 1)
    );
    assert_eq!(label(&record), Some("COVID"));
    let original = archive
        .identity()
        .open(record.sealed.as_deref().unwrap(), file(2))
        .unwrap();
    assert_eq!(original["sop_uid"], "1.2.2");
    let state = State::load(&place.again().await).await.unwrap();
    assert_eq!(
        (state.by_sop_key(sop(1)).count(), state.by_file_key(file(1)).count()),
        (0, 0)
    );
    // That one goes too: what is left says another class, and nobody disputes it any more.
    assert_eq!(delete(sop(2), Some(file(2))).await, Outcome::Deleted { images: 0 });
    let record = kept().await.unwrap();
    assert_eq!((label(&record), record.label_conflict()), (Some("Normal"), false));
    assert_eq!(delete(sop(3), None).await, Outcome::Deleted { images: 1 });
    assert!(kept().await.is_none());
    assert!(verify(&place.again().await).await.unwrap().damaged.is_empty());
    // In one commit with what adds it.
    let both = tokio::join!(add(1, None), add(2, None), delete(sop(1), None), delete(sop(2), None));
    assert_eq!(both.0, Outcome::Inserted);
    assert!(kept().await.is_none());
}

#[tokio::test]
async fn a_backup_has_what_waits_and_a_restore_gives_it_back() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let folder = |name: &str| place.dir.path().join(name).to_str().unwrap().to_owned();
    let (kept, embedded, deleted) = (
        put(archive, "1", None).await,
        put(archive, "2", None).await,
        put(archive, "3", Some("P3")).await,
    );
    let nothing = |_| {};
    backup(&place.url(), &folder("copy"), false, &nothing).await.unwrap();
    let restored = async |name: &str| {
        restore(&folder("copy"), &folder(name), false, &nothing).await.unwrap();
        let archive = Archive::open(&folder(name), secret()).await.unwrap();
        assert!(verify(&archive).await.unwrap().damaged.is_empty());
        let inbox = archive.inbox();
        assert_eq!(inbox.read(kept).await.unwrap(), file("1"));
        waiting(inbox.list().await.unwrap())
    };
    assert_eq!(restored("first").await, BTreeSet::from([kept, embedded, deleted]));
    archive.inbox().remove(embedded).await.unwrap();
    let patient = patient(archive, None, "P3").unwrap();
    archive.inbox().erase_patient(patient).await.unwrap();
    backup(&place.url(), &folder("copy"), false, &nothing).await.unwrap();
    assert_eq!(restored("second").await, BTreeSet::from([kept]));
}

#[tokio::test]
async fn a_failing_storage_never_says_that_it_is_durable() {
    let place = Place::new(IdentityMode::Linked).await;
    for stop_at in 0..4 {
        let text = format!("file {stop_at}");
        let faults = Arc::new(Faults {
            stop_at: Some(place_operations(&place).await + stop_at),
            ..Faults::default()
        });
        let Ok(archive) = place.faulty(&faults).await else {
            continue;
        };
        let inbox = archive.inbox();
        let id = inbox.id(&file(&text), None, None);
        if inbox.put(id, file(&text)).await.is_ok() {
            assert_eq!(place.again().await.inbox().read(id).await.unwrap(), file(&text));
        }
    }
}

/// Operations that opening the archive takes.
async fn place_operations(place: &Place) -> usize {
    let faults = Arc::new(Faults::default());
    place.faulty(&faults).await.unwrap();
    faults.operations()
}

#[tokio::test]
async fn damage_is_found_and_old_notes_go() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let id = put(archive, "1", Some("P1")).await;
    let path = place.path().join(format!("inbox/{id}"));
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(verify(archive).await.unwrap().damaged.len(), 1);

    let patient = patient(archive, None, "P1").unwrap();
    archive.inbox().erase_patient(patient).await.unwrap();
    let notes = || std::fs::read_dir(place.path().join("inbox/erased")).unwrap().count();
    maintain(archive, CompactSettings::default()).await.unwrap();
    assert_eq!(notes(), 1);
    let later = place.at(SignedDuration::from_hours(25)).await;
    maintain(&later, CompactSettings::default()).await.unwrap();
    assert_eq!(notes(), 0);
}

#[tokio::test]
async fn a_scope_is_changed_and_stays() {
    let place = Place::new(IdentityMode::Linked).await;
    let scope = Scope::new(vec![], vec!["CR".into()], vec![], vec![]).unwrap();
    let set = place.archive.set_scope(scope.clone()).await.unwrap();
    assert_eq!((set.version, &set.archive.scope), (2, &scope));
    let other = place.again().await;
    assert_eq!(other.latest().await.unwrap().archive.scope, scope);
    assert_eq!(
        other.set_scope(scope).await.unwrap().version,
        2,
        "nothing changed, nothing written"
    );
}

#[tokio::test]
async fn one_instance_has_one_picture() {
    let place = Place::new(IdentityMode::Linked).await;
    let archive = &place.archive;
    let writer = writer(archive).await;
    let instance = async |number: u32, uid: &str| {
        let mut image = Box::new(image(archive, number, None));
        image.record.sop = archive.identity().sop_key(uid);
        let text = format!("{uid} {number}");
        let waiting = archive.inbox().id(&file(&text), None, image.record.sop);
        archive.inbox().put(waiting, file(&text)).await.unwrap();
        Change::InsertInstance { image, waiting }
    };
    let written = async |number: u32| writer.write(instance(number, "1.2.3").await).await;
    assert_eq!(written(1).await.unwrap().outcome, Outcome::Inserted);
    assert_eq!(written(1).await.unwrap().outcome, Outcome::Duplicate);
    assert_eq!(written(2).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(contents(archive).await.len(), 1);
    // Two at once, of one commit.
    let (three, four) = (instance(3, "4.5.6").await, instance(4, "4.5.6").await);
    let (one, two) = tokio::join!(writer.write(three), writer.write(four));
    assert_eq!(
        [one, two].iter().filter(|written| written.is_ok()).count(),
        1,
        "the first wins"
    );
}
