//! Heads of audits: durable, one a line, never replaced, and beside everything else.

use super::*;
use crate::audit::{Head, ProcessId};

fn head(process: ProcessId, seq: u64, hash: &str) -> Head {
    Head {
        process,
        replica: "r".to_owned(),
        seq,
        hash: hash.repeat(32).parse().unwrap(),
        time: "2026-11-30T00:00:00Z".parse().unwrap(),
    }
}

#[tokio::test]
async fn one_is_kept_and_never_replaced() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    assert_eq!(archive.audit_heads().await.unwrap(), AuditHeads::default());
    let version = archive.latest().await.unwrap().version;
    let (one, other) = (ProcessId::random(), ProcessId::random());
    let heads = [head(one, 2, "ab"), head(one, 10, "cd"), head(other, 1, "ef")];
    for head in &heads {
        archive.keep_audit_head(head).await.unwrap();
        // Once more is the same.
        archive.keep_audit_head(head).await.unwrap();
    }
    let changed = archive.keep_audit_head(&head(one, 2, "12")).await.unwrap_err();
    assert_eq!(changed.kind(), ErrorKind::Conflict);
    let mut found = place.again().await.audit_heads().await.unwrap();
    found.heads.sort_by_key(|head| (head.process != one, head.seq));
    assert_eq!((&found.heads[..], found.unread.len()), (&heads[..], 0));
    assert_eq!(archive.latest().await.unwrap().version, version, "none makes a version");
    archive.drop_audit_head(one, 2).await.unwrap();
    assert_eq!(archive.audit_heads().await.unwrap().heads.len(), 2);
}

#[tokio::test]
async fn collection_leaves_them_and_a_damaged_one_is_named() {
    let place = Place::new(IdentityMode::Anonymous).await;
    let archive = &place.archive;
    let process = ProcessId::random();
    archive.keep_audit_head(&head(process, 2, "ab")).await.unwrap();
    archive.keep_audit_head(&head(process, 3, "cd")).await.unwrap();
    compact(archive, CompactSettings::default()).await.unwrap();
    let path = place.path().join(format!("audit/{process}/{:020}.json", 3));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"seq\":3", "\"seq\":4")).unwrap();
    let found = archive.audit_heads().await.unwrap();
    assert_eq!(found.heads.len(), 1);
    assert_eq!(found.unread, [format!("audit/{process}/{:020}.json", 3)]);
}
