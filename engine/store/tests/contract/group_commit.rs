//! Many at once: nothing lost, nothing half done.

use futures::future::join_all;
use kickwheel_schemas::{RunId, api::RunPhase};
use kickwheel_store::{Health, Store, Write, WriteError, rows::RunFilter, write};

use crate::fixture::{Fixture, accept, append, create_run, event, events_of, new_key, new_run, started};

const AT_ONCE: usize = 64;
const APPENDS: u64 = 10;

pub async fn concurrent_appends_are_all_kept_in_order(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let writers = (0..AT_ONCE).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let run = started(&store, lease, &format!("e{n}")).await;
            for seq in 1..=APPENDS {
                let event = format!("{n}-{seq}");
                store.write(vec![Write::Append(append(lease, run, seq, &[&event]))]).await.unwrap();
            }
            (run, n)
        })
    });
    for joined in join_all(writers).await {
        let (run, n) = joined.unwrap();
        let mut expected = vec!["first".to_owned()];
        expected.extend((1..=APPENDS).map(|seq| format!("{n}-{seq}")));
        assert_eq!(events_of(&store, run).await, expected);
        let row = store.run(run).await.unwrap().unwrap();
        assert_eq!((row.next_seq, row.state), (APPENDS + 1, RunPhase::Running));
    }
}

pub async fn one_bad_unit_of_a_batch_is_refused_alone(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let mut runs = Vec::new();
    for n in 0..AT_ONCE {
        runs.push(started(&store, lease, &format!("e{n}")).await);
    }
    let bad = runs[7];
    // All are sent before any is awaited, so they meet in few batches.
    let units = runs.iter().map(|&run| {
        let seq = if run == bad { 5 } else { 1 };
        store.write(vec![Write::Append(append(lease, run, seq, &["second"]))])
    });
    let answers = join_all(units).await;
    for (run, answer) in runs.iter().zip(answers) {
        if *run == bad {
            assert!(matches!(answer, Err(WriteError::Stale { .. })), "{answer:?}");
            assert_eq!(events_of(&store, *run).await, ["first"]);
        } else {
            answer.unwrap();
            assert_eq!(events_of(&store, *run).await, ["first", "second"]);
        }
    }
    assert_eq!(store.health(), Health::Ok);
}

pub async fn a_refused_unit_leaves_nothing_behind(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let run = started(&store, lease, "e").await;
    let key = new_key();
    let unit = vec![
        accept(key, event("s", "a", "1")),
        create_run(new_run(), lease.shard, "other", 0),
        Write::Append(append(lease, run, 1, &["second"])),
        Write::SetMeta(write::SetMeta { key: "k".into(), value: "v".into() }),
        Write::Append(append(lease, run, 9, &["wrong"])),
    ];
    assert!(matches!(store.write(unit).await, Err(WriteError::Stale { .. })));
    assert_eq!(store.event(key).await.unwrap(), None);
    assert_eq!(store.event_by_identity("demo", "s", "1").await.unwrap(), None);
    assert_eq!(store.runs(&RunFilter::default()).await.unwrap().len(), 1);
    assert_eq!(events_of(&store, run).await, ["first"]);
    assert_eq!(store.meta("k").await.unwrap(), None);
}

pub async fn appends_sent_without_waiting_keep_their_order(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let run = new_run();
    let mut units = vec![vec![create_run(run, lease.shard, "e", 0)]];
    units.extend((0..20).map(|seq| vec![Write::Append(append(lease, run, seq, &[&seq.to_string()]))]));
    // Joined futures are polled, and so queued, in order.
    for answer in join_all(units.into_iter().map(|unit| store.write(unit))).await {
        answer.unwrap();
    }
    assert_eq!(events_of(&store, run).await, (0..20).map(|seq| seq.to_string()).collect::<Vec<_>>());
}

pub async fn a_closed_store_is_unavailable_and_reopens_with_everything(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let run = started(&store, lease, "e").await;
    store.close().await;
    assert!(matches!(append_one(&store, lease, run).await, Err(WriteError::Unavailable { .. })));
    let again = fixture.open().await;
    assert_eq!(events_of(&again, run).await, ["first"]);
    assert_eq!(again.shards(), 4);
    append_one(&again, lease, run).await.unwrap();
    assert_eq!(events_of(&again, run).await, ["first", "second"]);
}

async fn append_one(store: &Store, lease: kickwheel_store::ShardLease, run: RunId) -> Result<(), WriteError> {
    store.write(vec![Write::Append(append(lease, run, 1, &["second"]))]).await.map(drop)
}
