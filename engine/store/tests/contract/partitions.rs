//! Leases of partitions and the offsets that they guard.

use std::time::{Duration, Instant};

use kickwheel_store::{
    PartitionLease, Store, Write, WriteError,
    rows::{EventFilter, PartitionRow},
    write,
};

use crate::fixture::{DEADLINE, Fixture, LEASE, accept, assert_stale, event, new_key};

const TOPIC: &str = "kickwheel.events";

fn add(topic: &str, partitions: &[(i32, i64)]) -> Vec<Write> {
    let (topic, topic_id) = (topic.into(), "id-1".into());
    vec![Write::AddPartitions(write::AddPartitions { topic, topic_id, partitions: partitions.to_vec() })]
}

fn moved(lease: &PartitionLease, from: i64, to: i64) -> Write {
    let (topic, partition) = (lease.topic.clone(), lease.partition);
    Write::MoveOffset(write::MoveOffset { topic, partition, epoch: lease.epoch, from, to })
}

fn stop(lease: &PartitionLease, reason: &str) -> Vec<Write> {
    let (topic, partition) = (lease.topic.clone(), lease.partition);
    let reason = reason.into();
    vec![Write::StopPartition(write::StopPartition { topic, partition, epoch: lease.epoch, reason })]
}

fn reset(partition: i32, topic_id: &str, next_offset: i64) -> Vec<Write> {
    let (topic, topic_id) = (TOPIC.into(), topic_id.into());
    vec![Write::ResetPartition(write::ResetPartition { topic, partition, topic_id, next_offset })]
}

fn numbers(leases: &[PartitionLease]) -> Vec<(i32, i64)> {
    leases.iter().map(|lease| (lease.partition, lease.epoch)).collect()
}

async fn take(store: &Store, owner: &str, limit: u32) -> Vec<PartitionLease> {
    store.acquire_partitions(TOPIC, owner, limit, LEASE, false).await.unwrap()
}

async fn row(store: &Store, partition: i32) -> PartitionRow {
    let rows = store.partitions(Some(TOPIC)).await.unwrap();
    rows.into_iter().find(|row| row.partition == partition).unwrap()
}

pub async fn known_partitions_stay_as_they_are(fixture: Fixture) {
    let store = fixture.open().await;
    assert_eq!(take(&store, "a", 9).await, []);
    store.write(add(TOPIC, &[(0, 5), (1, 6)])).await.unwrap();
    store.write(add("jobs", &[(0, 1)])).await.unwrap();
    store.write(add(TOPIC, &[(1, 99), (2, 7)])).await.unwrap();
    let rows = store.partitions(Some(TOPIC)).await.unwrap();
    assert_eq!(rows.iter().map(|row| (row.partition, row.next_offset)).collect::<Vec<_>>(), [(0, 5), (1, 6), (2, 7)]);
    let first = PartitionRow {
        topic: TOPIC.into(),
        partition: 0,
        topic_id: "id-1".into(),
        next_offset: 5,
        epoch: 0,
        owner: None,
        lease_until: kickwheel_schemas::Millis(0),
        stopped_reason: None,
    };
    assert_eq!(rows[0], first);
    assert_eq!(store.partitions(None).await.unwrap().len(), 4);
    store.write(vec![Write::RemovePartitions(write::RemovePartitions { topic: TOPIC.into() })]).await.unwrap();
    assert_eq!(store.partitions(None).await.unwrap(), [PartitionRow { topic: "jobs".into(), next_offset: 1, ..first }]);
}

pub async fn free_and_expired_partitions_are_taken_and_held_ones_are_not(fixture: Fixture) {
    let store = fixture.open().await;
    store.write(add(TOPIC, &[(0, 5), (1, 6), (2, 7)])).await.unwrap();
    store.write(add("jobs", &[(0, 1)])).await.unwrap();
    let held = take(&store, "a", 1).await;
    let lease = |partition: i32, epoch, next_offset| PartitionLease {
        topic: TOPIC.into(),
        partition,
        epoch,
        topic_id: "id-1".into(),
        next_offset,
    };
    assert_eq!(held, [lease(0, 1, 5)]);
    let short = store.acquire_partitions(TOPIC, "b", 1, Duration::from_millis(1), false).await.unwrap();
    assert_eq!(short, [lease(1, 1, 6)]);
    // The database's clock decides when b's lease has ended; a's never does here.
    let mut taken = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    while taken.len() < 2 {
        assert!(Instant::now() < deadline, "only {taken:?} became free");
        taken.extend(take(&store, "c", 9).await);
    }
    taken.sort();
    assert_eq!(taken, [lease(1, 2, 6), lease(2, 1, 7)]);
    assert_eq!(take(&store, "c", 9).await, []);
    assert_eq!(store.renew_partitions("b", LEASE).await.unwrap(), []);
    assert_eq!(store.renew_partitions("a", LEASE).await.unwrap(), held);
    // Who has proved that nobody else lives takes all of them, of this topic.
    let all = store.acquire_partitions(TOPIC, "d", 9, LEASE, true).await.unwrap();
    assert_eq!(numbers(&all), [(0, 2), (1, 3), (2, 2)]);
    assert_eq!(store.renew_partitions("a", LEASE).await.unwrap(), []);
    store.release_partitions("d").await.unwrap();
    assert_eq!(numbers(&take(&store, "e", 2).await), [(0, 3), (1, 4)]);
}

pub async fn replicas_that_take_at_once_share_nothing(fixture: Fixture) {
    let first = fixture.open().await;
    let second = fixture.open().await;
    let all: Vec<_> = (0..12).map(|partition| (partition, 0)).collect();
    first.write(add(TOPIC, &all)).await.unwrap();
    let deadline = Instant::now() + DEADLINE;
    let mut taken = Vec::new();
    while taken.len() < 12 {
        assert!(Instant::now() < deadline, "only {taken:?} were taken");
        let (a, b) = tokio::join!(take(&first, "a", 3), take(&second, "b", 3));
        taken.extend(numbers(&a));
        taken.extend(numbers(&b));
    }
    taken.sort_unstable();
    assert_eq!(taken, (0..12).map(|partition| (partition, 1)).collect::<Vec<_>>());
}

pub async fn an_offset_moves_with_what_was_read_or_neither_does(fixture: Fixture) {
    let store = fixture.open().await;
    store.write(add(TOPIC, &[(0, 5)])).await.unwrap();
    let lease = take(&store, "a", 1).await.remove(0);
    let batch = |id: &str, write: Write| vec![accept(new_key(), event("s", "main", id)), write];
    let stored = async || store.events(&EventFilter::default()).await.unwrap().len();
    store.write(batch("1", moved(&lease, 5, 8))).await.unwrap();
    assert_eq!((stored().await, row(&store, 0).await.next_offset), (1, 8));
    // Another offset, another epoch, another partition, or backwards.
    assert_stale(store.write(batch("2", moved(&lease, 5, 9))).await, "stands at offset 8, not 5");
    let older = PartitionLease { epoch: 0, ..lease.clone() };
    assert_stale(store.write(batch("2", moved(&older, 8, 9))).await, "its epoch is 1, not 0");
    let unknown = PartitionLease { partition: 1, ..lease.clone() };
    assert_stale(store.write(batch("2", moved(&unknown, 8, 9))).await, "/1 is not known");
    assert!(matches!(store.write(batch("2", moved(&lease, 8, 7))).await, Err(WriteError::Invalid { .. })));
    assert_eq!((stored().await, row(&store, 0).await.next_offset), (1, 8));
    // The next owner reads on from there, and the one before is out.
    let next = store.acquire_partitions(TOPIC, "b", 1, LEASE, true).await.unwrap().remove(0);
    assert_eq!((next.epoch, next.next_offset), (2, 8));
    assert_stale(store.write(batch("2", moved(&lease, 8, 9))).await, "taken over");
    store.write(batch("2", moved(&next, 8, 9))).await.unwrap();
    assert_eq!((stored().await, row(&store, 0).await.next_offset), (2, 9));
}

pub async fn a_stopped_partition_is_nobodys_until_it_is_reset(fixture: Fixture) {
    let store = fixture.open().await;
    store.write(add(TOPIC, &[(0, 5), (1, 6)])).await.unwrap();
    let leases = take(&store, "a", 2).await;
    let lease = &leases[0];
    let older = PartitionLease { epoch: 0, ..lease.clone() };
    assert_stale(store.write(stop(&older, "x")).await, "its epoch is 1, not 0");
    store.write(stop(lease, "the topic was recreated")).await.unwrap();
    store.write(stop(lease, "the topic was recreated")).await.unwrap();
    assert_stale(store.write(vec![moved(lease, 5, 6)]).await, "is stopped: the topic was recreated");
    assert_eq!(store.renew_partitions("a", LEASE).await.unwrap(), leases[1..]);
    assert_eq!(numbers(&store.acquire_partitions(TOPIC, "b", 9, LEASE, true).await.unwrap()), [(1, 2)]);
    // It does not use up what somebody wants to take either.
    store.release_partitions("b").await.unwrap();
    assert_eq!(numbers(&take(&store, "b", 1).await), [(1, 3)]);
    let stopped = row(&store, 0).await;
    assert_eq!((stopped.owner, stopped.next_offset), (None, 5));
    assert_eq!(stopped.stopped_reason.as_deref(), Some("the topic was recreated"));

    store.write(reset(0, "id-2", 0)).await.unwrap();
    assert_stale(store.write(stop(lease, "late")).await, "its epoch is 2, not 1");
    assert_stale(store.write(vec![moved(lease, 0, 1)]).await, "its epoch is 2, not 1");
    let again = take(&store, "c", 9).await.remove(0);
    assert_eq!((again.epoch, again.topic_id.as_str(), again.next_offset), (3, "id-2", 0));
    assert_eq!(row(&store, 0).await.stopped_reason, None);
    // Resetting takes it from whoever has it, and adds one that is not known.
    store.write(reset(0, "id-2", 40)).await.unwrap();
    assert_stale(store.write(vec![moved(&again, 0, 1)]).await, "its epoch is 4, not 3");
    store.write(reset(7, "id-2", 3)).await.unwrap();
    assert_eq!(numbers(&take(&store, "d", 9).await), [(0, 5), (7, 2)]);
}
