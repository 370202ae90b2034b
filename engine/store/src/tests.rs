//! What needs the writer's own connection or the crate's own folders: a full disk, and migrations in pairs.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, path::Path, time::Duration};

use crate::{Health, Store, Write, WriteError, migrate::MIGRATIONS, write::SetMeta};

fn set(key: &str, bytes: usize) -> Vec<Write> {
    vec![Write::SetMeta(SetMeta { key: key.to_owned(), value: "x".repeat(bytes) })]
}

async fn until_ok(store: &Store) {
    let mut health = store.watch_health();
    let resumed = health.wait_for(|health| *health == Health::Ok);
    tokio::time::timeout(Duration::from_secs(20), resumed).await.expect("resumes in time").unwrap();
}

#[tokio::test]
async fn a_full_disk_pauses_and_the_store_resumes_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("kickwheel.db").to_str().unwrap()).await.unwrap();
    store.write(set("before", 10)).await.unwrap();
    // SQLite answers with the same error as when the file system has no room; the limit is at once reached.
    store.raw("PRAGMA max_page_count = 1").await;
    let refused = store.write(set("during", 1 << 20)).await;
    assert!(matches!(&refused, Err(WriteError::Unavailable { reason }) if reason.contains("full")), "{refused:?}");
    assert!(matches!(store.health(), Health::Paused { reason, .. } if reason.contains("full")));
    assert_eq!(store.meta("during").await.unwrap(), None);
    assert_eq!(store.meta("before").await.unwrap().map(|v| v.len()), Some(10));
    store.raw("PRAGMA max_page_count = 1000000").await;
    until_ok(&store).await;
    store.write(set("during", 1 << 20)).await.unwrap();
    assert_eq!(store.meta("during").await.unwrap().map(|v| v.len()), Some(1 << 20));
}

#[tokio::test]
async fn a_unit_that_finds_no_room_does_not_keep_out_smaller_ones() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().join("kickwheel.db").to_str().unwrap()).await.unwrap();
    store.write(set("room", 400_000)).await.unwrap();
    store.write(set("room", 1)).await.unwrap();
    store.raw("PRAGMA max_page_count = 1").await;
    let units = [set("large", 8 << 20), set("small", 10)];
    let [large, small] = units.map(|unit| store.write(unit));
    let (large, small) = tokio::join!(large, small);
    assert!(matches!(large, Err(WriteError::Unavailable { .. })), "{large:?}");
    small.unwrap();
    assert_eq!(store.meta("large").await.unwrap(), None);
    assert!(store.meta("small").await.unwrap().is_some());
}

#[test]
fn migrations_come_in_pairs_with_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let names = |member: &str| {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(root.join(member)).unwrap() {
            let entry = entry.unwrap();
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let reason = text.lines().next().unwrap().to_owned();
            files.insert(entry.file_name().into_string().unwrap(), reason);
        }
        files
    };
    let (sqlite, postgres) = (names("sqlite"), names("postgres"));
    assert_eq!(sqlite, postgres, "the same numbers, names and reasons");
    assert!(sqlite.values().all(|reason| reason.starts_with("-- ") && reason.len() > 20), "{sqlite:?}");
    let compiled: Vec<_> = MIGRATIONS.iter().map(|m| format!("{:04}_{}.sql", m.number, m.name)).collect();
    assert_eq!(sqlite.keys().cloned().collect::<Vec<_>>(), compiled, "each file is compiled in, in order");
    assert!(MIGRATIONS.iter().enumerate().all(|(n, m)| m.number == n as i64 + 1));
}
