//! Runs and what stands beside their journals.

use kickwheel_schemas::{RunId, api::RunPhase};
use kickwheel_store::{
    ShardLease, Store, Write,
    rows::{RunFilter, RunRow, SnapshotRow},
    write,
};
use serde_json::json;

use crate::fixture::{
    AT, ENDED, Fixture, PROJECT, RUNNING, append, assert_stale, create_run, events_of, new_run, started,
};

fn ids(rows: &[RunRow]) -> Vec<RunId> {
    rows.iter().map(|row| row.run).collect()
}

async fn end(store: &Store, lease: ShardLease, run: RunId) {
    let last = write::Append { progress: ENDED, ..append(lease, run, 1, &["last"]) };
    store.write(vec![Write::Append(last)]).await.unwrap();
}

pub async fn a_run_is_created_once_per_event_and_generation(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let first = started(&store, lease, "e").await;
    let second = new_run();
    let unit = vec![create_run(second, lease.shard, "e", 0), Write::Append(append(lease, second, 0, &["x"]))];
    assert_stale(store.write(unit).await, &first.to_string());
    assert_eq!(store.run(second).await.unwrap(), None);
    assert_eq!(store.run_of(PROJECT, "train", "file:///repo", "e", 0).await.unwrap(), Some(first));
    assert_eq!(store.last_generation(PROJECT, "train", "file:///repo", "e").await.unwrap(), Some(0));
    let third = new_run();
    store.write(vec![create_run(third, lease.shard, "e", 1)]).await.unwrap();
    assert_eq!(store.last_generation(PROJECT, "train", "file:///repo", "e").await.unwrap(), Some(1));
    let row = store.run(third).await.unwrap().unwrap();
    assert_eq!((row.state, row.open, row.next_seq), (RunPhase::Queued, 1, 0));
    assert_eq!(store.runs_of_event(row.event_key).await.unwrap(), [first, third]);
    assert_eq!(store.last_generation(PROJECT, "train", "file:///repo", "other").await.unwrap(), None);
}

pub async fn a_wrong_sequence_number_is_stale(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let run = started(&store, lease, "e").await;
    let unit = |seq| vec![Write::Append(append(lease, run, seq, &["x"]))];
    assert_stale(store.write(unit(0)).await, "goes on with event 1, not 0");
    assert_stale(store.write(unit(2)).await, "goes on with event 1, not 2");
    let unknown = vec![Write::Append(append(lease, new_run(), 0, &["x"]))];
    assert_stale(store.write(unknown).await, "does not exist");
    assert_eq!(events_of(&store, run).await, ["first"]);
    // An append of nothing moves only what stands beside the journal.
    let waiting = write::RunProgress { state: RunPhase::Waiting, open: 0, wake_at: Some(AT), ended_at: None };
    store.write(vec![Write::Append(write::Append { progress: waiting, ..append(lease, run, 1, &[]) })]).await.unwrap();
    let row = store.run(run).await.unwrap().unwrap();
    assert_eq!((row.next_seq, row.state, row.wake_at), (1, RunPhase::Waiting, Some(AT)));
}

pub async fn an_input_is_kept_until_an_append_deals_with_it(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let run = started(&store, lease, "e").await;
    let input = |id: &str, body: i64| {
        Write::Inbox(write::Inbox { shard: lease.shard, run, input_id: id.into(), body: json!(body), at: AT })
    };
    store.write(vec![input("a", 1)]).await.unwrap();
    store.write(vec![input("a", 2), input("b", 3)]).await.unwrap();
    let rows = store.inbox_of(lease.shard, run).await.unwrap();
    let seen: Vec<_> = rows.iter().map(|row| (row.input_id.as_str(), row.body.clone())).collect();
    assert_eq!(seen, [("a", json!(1)), ("b", json!(3))]);
    assert_eq!(store.inbox(lease.shard, 0).await.unwrap(), rows);
    assert_eq!(store.counts().await.unwrap().inbox, 2);
    // A refused append leaves the inbox alone.
    let done = |seq| Write::Append(write::Append { inbox_done: vec!["a".into()], ..append(lease, run, seq, &["x"]) });
    assert_stale(store.write(vec![done(4)]).await, "goes on with");
    assert_eq!(store.inbox_of(lease.shard, run).await.unwrap().len(), 2);
    store.write(vec![done(1)]).await.unwrap();
    let left = store.inbox_of(lease.shard, run).await.unwrap();
    assert_eq!(left.iter().map(|row| row.input_id.as_str()).collect::<Vec<_>>(), ["b"]);
}

pub async fn recovery_finds_what_is_open_and_nothing_else(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let open = started(&store, lease, "open").await;
    let timed = started(&store, lease, "timed").await;
    let resting = started(&store, lease, "resting").await;
    let called = started(&store, lease, "called").await;
    let ended = started(&store, lease, "ended").await;
    let ended_called = started(&store, lease, "ended and called").await;
    let rest = |run, wake_at| {
        let progress = write::RunProgress { state: RunPhase::Waiting, open: 0, wake_at, ended_at: None };
        Write::Append(write::Append { progress, ..append(lease, run, 1, &["x"]) })
    };
    let both = Write::Append(write::Append {
        progress: write::RunProgress { wake_at: Some(AT.plus(5)), ..RUNNING },
        ..append(lease, open, 1, &["x"])
    });
    store.write(vec![rest(timed, Some(AT.plus(10))), rest(resting, None), rest(called, None), both]).await.unwrap();
    end(&store, lease, ended).await;
    end(&store, lease, ended_called).await;
    for run in [called, ended_called] {
        let input = write::Inbox { shard: lease.shard, run, input_id: "i".into(), body: json!(1), at: AT };
        store.write(vec![Write::Inbox(input)]).await.unwrap();
    }
    assert_eq!(ids(&store.open_runs(lease.shard).await.unwrap()), [open, timed, called, ended_called]);
    assert_eq!(ids(&store.open_runs(lease.shard + 1).await.unwrap()), []);
    assert_eq!(ids(&store.due_wakes(lease.shard, AT.plus(4), 0).await.unwrap()), []);
    assert_eq!(ids(&store.due_wakes(lease.shard, AT.plus(9), 0).await.unwrap()), [open]);
    assert_eq!(ids(&store.due_wakes(lease.shard, AT.plus(10), 0).await.unwrap()), [open, timed]);
    let counts = store.counts().await.unwrap();
    assert_eq!(counts.live_runs, [("running".to_owned(), 1), ("waiting".to_owned(), 3)].into());
}

pub async fn a_sealed_journal_reads_the_same(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let run = started(&store, lease, "e").await;
    let other = started(&store, lease, "other").await;
    let seal = || vec![Write::Seal(write::Seal { shard: lease.shard, run, relayed: false })];
    assert!(matches!(store.write(seal()).await, Err(kickwheel_store::WriteError::Invalid { .. })));
    let snapshot = write::Snapshot { shard: lease.shard, run, seq: 1, body: vec![1, 2] };
    store.write(vec![Write::Snapshot(snapshot)]).await.unwrap();
    end(&store, lease, run).await;
    assert_eq!(ids(&store.unsealed_finished(0).await.unwrap()), [run]);
    let before = store.journal(run, 0).await.unwrap();
    store.write(seal()).await.unwrap();
    store.write(seal()).await.unwrap();
    assert_eq!(store.journal(run, 0).await.unwrap(), before);
    assert_eq!(store.journal(run, 1).await.unwrap(), before[1..]);
    assert_eq!(store.snapshot(run).await.unwrap(), None);
    assert_eq!(ids(&store.unsealed_finished(0).await.unwrap()), []);
    assert!(store.run(run).await.unwrap().unwrap().sealed);
    assert_stale(store.write(vec![Write::Append(append(lease, run, 2, &["late"]))]).await, "sealed");
    assert_eq!(events_of(&store, other).await, ["first"]);
    assert_eq!(store.journal(new_run(), 0).await.unwrap(), []);
}

pub async fn snapshots_are_replaced_by_later_ones(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let run = started(&store, lease, "e").await;
    assert_eq!(store.snapshot(run).await.unwrap(), None);
    for (seq, body) in [(5, 1), (9, 2), (7, 3)] {
        let snapshot = write::Snapshot { shard: lease.shard, run, seq, body: vec![body] };
        store.write(vec![Write::Snapshot(snapshot)]).await.unwrap();
    }
    assert_eq!(store.snapshot(run).await.unwrap(), Some(SnapshotRow { seq: 9, body: vec![2] }));
}

pub async fn listings_filter_and_page(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let mut runs = Vec::new();
    for n in 0..5 {
        runs.push(started(&store, lease, &format!("e{n}")).await);
    }
    end(&store, lease, runs[1]).await;
    let list = async |filter: RunFilter| ids(&store.runs(&filter).await.unwrap());
    let newest_first: Vec<_> = runs.iter().rev().copied().collect();
    assert_eq!(list(RunFilter::default()).await, newest_first);
    let page = RunFilter { limit: 2, ..RunFilter::default() };
    assert_eq!(list(page.clone()).await, newest_first[..2]);
    assert_eq!(list(RunFilter { before: Some(newest_first[1]), ..page }).await, newest_first[2..4]);
    let states = |states: &[RunPhase]| RunFilter { states: states.to_vec(), ..RunFilter::default() };
    assert_eq!(list(states(&[RunPhase::Succeeded])).await, [runs[1]]);
    assert_eq!(list(states(&[RunPhase::Running, RunPhase::Queued])).await.len(), 4);
    assert_eq!(list(states(&[RunPhase::Running, RunPhase::Succeeded])).await.len(), 5);
    let all_of = RunFilter {
        project: Some(PROJECT.into()),
        workflow: Some("train".into()),
        branch: Some("main".into()),
        since: Some(AT),
        until: Some(AT.plus(1)),
        ..RunFilter::default()
    };
    assert_eq!(list(all_of.clone()).await, newest_first);
    for none in [
        RunFilter { project: Some("x".into()), ..all_of.clone() },
        RunFilter { workflow: Some("x".into()), ..all_of.clone() },
        RunFilter { branch: Some("x".into()), ..all_of.clone() },
        RunFilter { since: Some(AT.plus(1)), ..all_of.clone() },
        RunFilter { until: Some(AT), ..all_of },
    ] {
        assert_eq!(list(none).await, []);
    }
    let full = runs[0].to_string();
    assert_eq!(ids(&store.runs_by_prefix(&full).await.unwrap()), [runs[0]]);
    assert_eq!(store.runs_by_prefix(&full[..8]).await.unwrap().len(), 2);
    assert_eq!(store.runs_by_prefix("zz").await.unwrap(), []);
}
