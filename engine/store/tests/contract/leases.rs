//! Leases and the epochs that fence.

use std::time::{Duration, Instant};

use kickwheel_store::{Options, ShardLease, Write, WriteError};

use crate::fixture::{Fixture, LEASE, append, events_of, started};

pub async fn an_old_epoch_is_fenced_and_writes_nothing(fixture: Fixture) {
    let (store, old) = fixture.owned().await;
    let run = started(&store, old, "e").await;
    let new = store.acquire("other", u32::MAX, LEASE, true).await.unwrap()[0];
    assert_eq!((new.shard, new.epoch), (old.shard, old.epoch + 1));
    let fenced = store.write(vec![Write::Append(append(old, run, 1, &["late"]))]).await;
    assert_eq!(fenced, Err(WriteError::Fenced { shard: old.shard }));
    assert_eq!(events_of(&store, run).await, ["first"]);
    store.write(vec![Write::Append(append(new, run, 1, &["second"]))]).await.unwrap();
    assert_eq!(events_of(&store, run).await, ["first", "second"]);
}

pub async fn free_and_expired_shards_are_taken_and_held_ones_are_not(fixture: Fixture) {
    let store = fixture.open_with(Options { shards: 3, ..Options::default() }).await;
    assert_eq!(store.shards(), 3);
    let short = Duration::from_millis(1);
    let first = store.acquire("a", 1, LEASE, false).await.unwrap();
    assert_eq!(first, [ShardLease { shard: 0, epoch: 1 }]);
    let second = store.acquire("b", 1, short, false).await.unwrap();
    assert_eq!(second, [ShardLease { shard: 1, epoch: 1 }]);
    // The database's clock decides when b's lease has ended; a's never does here.
    let mut taken = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while taken.len() < 2 {
        assert!(Instant::now() < deadline, "only {taken:?} became free");
        taken.extend(store.acquire("c", u32::MAX, LEASE, false).await.unwrap());
    }
    taken.sort();
    assert_eq!(taken, [ShardLease { shard: 1, epoch: 2 }, ShardLease { shard: 2, epoch: 1 }]);
    assert_eq!(store.acquire("c", u32::MAX, LEASE, false).await.unwrap(), []);
}

pub async fn exclusive_takes_all_and_renewal_tells_what_is_left(fixture: Fixture) {
    let store = fixture.open().await;
    let mine = store.acquire("a", u32::MAX, LEASE, false).await.unwrap();
    assert_eq!(mine.len(), 4);
    assert_eq!(store.renew("a", LEASE).await.unwrap(), mine);
    let theirs = store.acquire("b", 3, LEASE, true).await.unwrap();
    assert_eq!(theirs.iter().map(|l| l.epoch).collect::<Vec<_>>(), [2, 2, 2]);
    assert_eq!(store.renew("a", LEASE).await.unwrap(), [mine[3]]);
    store.release("a").await.unwrap();
    assert_eq!(store.renew("a", LEASE).await.unwrap(), []);
    let freed = store.acquire("c", u32::MAX, LEASE, false).await.unwrap();
    assert_eq!(freed, [ShardLease { shard: 3, epoch: 2 }]);
}
