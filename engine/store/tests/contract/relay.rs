//! The relay of journals to the bus, and what waits for it.

use kickwheel_schemas::RunId;
use kickwheel_store::{ShardLease, Store, Write, WriteError, Written, write};

use crate::fixture::{ENDED, Fixture, LEASE, append, assert_stale, events_of, started};

fn relay(lease: ShardLease, from: i64, to: i64) -> Vec<Write> {
    vec![Write::MoveRelay(write::MoveRelay { shard: lease.shard, epoch: lease.epoch, from, to })]
}

fn seal(lease: ShardLease, run: RunId, relayed: bool) -> Vec<Write> {
    vec![Write::Seal(write::Seal { shard: lease.shard, run, relayed })]
}

async fn end(store: &Store, lease: ShardLease, run: RunId) {
    let last = write::Append { progress: ENDED, ..append(lease, run, 1, &["last"]) };
    store.write(vec![Write::Append(last)]).await.unwrap();
}

pub async fn the_journal_of_a_shard_is_read_in_commit_order(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let a = started(&store, lease, "a").await;
    let b = started(&store, lease, "b").await;
    let both = vec![Write::Append(append(lease, b, 1, &["b1", "b2"])), Write::Append(append(lease, a, 1, &["a1"]))];
    store.write(both).await.unwrap();
    let rows = store.journal_after(lease.shard, 0, 0).await.unwrap();
    let seen: Vec<_> = rows.iter().map(|row| (row.run, row.seq, row.event.as_str())).collect();
    assert_eq!(seen, [(a, 0, "first"), (b, 0, "first"), (b, 1, "b1"), (b, 2, "b2"), (a, 1, "a1")]);
    assert!(rows.is_sorted_by(|x, y| x.shard_seq < y.shard_seq));
    let after = rows[1].shard_seq;
    assert_eq!(store.journal_after(lease.shard, after, 2).await.unwrap(), rows[2..4]);
    assert_eq!(store.journal_after(lease.shard, rows[4].shard_seq, 0).await.unwrap(), []);
    assert_eq!(store.journal_after(lease.shard + 1, 0, 0).await.unwrap(), []);
    // What a new owner appends comes behind all that the one before did.
    let new = store.acquire("other", u32::MAX, LEASE, true).await.unwrap()[0];
    store.write(vec![Write::Append(append(new, a, 2, &["a2"]))]).await.unwrap();
    let more = store.journal_after(lease.shard, rows[4].shard_seq, 0).await.unwrap();
    assert_eq!(more.iter().map(|row| row.event.as_str()).collect::<Vec<_>>(), ["a2"]);
}

pub async fn a_relay_cursor_moves_on_under_the_epoch(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let cursor = async || store.relay_cursor(lease.shard).await.unwrap();
    assert_eq!(cursor().await, 0);
    assert_stale(store.write(relay(lease, 3, 5)).await, "does not stand at 3");
    store.write(relay(lease, 0, 5)).await.unwrap();
    assert_stale(store.write(relay(lease, 0, 6)).await, "does not stand at 0");
    store.write(relay(lease, 5, 5)).await.unwrap();
    assert!(matches!(store.write(relay(lease, 5, 4)).await, Err(WriteError::Invalid { .. })));
    let new = store.acquire("other", u32::MAX, LEASE, true).await.unwrap()[0];
    assert_eq!(store.write(relay(lease, 5, 9)).await, Err(WriteError::Fenced { shard: lease.shard }));
    assert_eq!(cursor().await, 5);
    store.write(relay(new, 5, 9)).await.unwrap();
    assert_eq!((cursor().await, store.relay_cursor(lease.shard + 1).await.unwrap()), (9, 0));
    let nowhere = ShardLease { shard: 999, epoch: 1 };
    assert_eq!(store.write(relay(nowhere, 0, 1)).await, Err(WriteError::Fenced { shard: 999 }));
}

pub async fn sealing_waits_for_the_relay(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let run = started(&store, lease, "e").await;
    let other = started(&store, lease, "other").await;
    end(&store, lease, run).await;
    end(&store, lease, other).await;
    let ready = async || {
        let rows = store.unsealed_relayed(0).await.unwrap();
        rows.into_iter().map(|row| row.run).collect::<Vec<_>>()
    };
    let places: Vec<_> = store.journal_after(lease.shard, 0, 0).await.unwrap();
    let newest = places.iter().filter(|row| row.run == run).map(|row| row.shard_seq).max().unwrap();
    assert_eq!(store.write(seal(lease, run, true)).await, Ok(vec![Written::NotYet]));
    store.write(relay(lease, 0, newest - 1)).await.unwrap();
    assert_eq!(store.write(seal(lease, run, true)).await, Ok(vec![Written::NotYet]));
    assert_eq!(ready().await, []);
    assert!(!store.run(run).await.unwrap().unwrap().sealed);
    assert_eq!(store.journal_after(lease.shard, 0, 0).await.unwrap(), places);
    store.write(relay(lease, newest - 1, newest)).await.unwrap();
    assert_eq!(ready().await, [run]);
    assert_eq!(store.write(seal(lease, run, true)).await, Ok(vec![Written::Done]));
    assert_eq!(store.write(seal(lease, run, true)).await, Ok(vec![Written::Done]));
    assert_eq!(ready().await, []);
    assert_eq!(events_of(&store, run).await, ["first", "last"]);
    // Only the run that was relayed has left the journal; without a relay nothing waits for it.
    let rest: Vec<_> = store.journal_after(lease.shard, 0, 0).await.unwrap();
    assert_eq!(rest.iter().map(|row| row.run).collect::<Vec<_>>(), [other, other]);
    assert_eq!(store.unsealed_finished(0).await.unwrap().len(), 1);
    assert_eq!(store.write(seal(lease, other, false)).await, Ok(vec![Written::Done]));
    assert_eq!(events_of(&store, other).await, ["first", "last"]);
}
