//! Effects on named models and datasets, and the cache.

use std::collections::BTreeMap;

use kickwheel_schemas::TaskKey;
use kickwheel_store::{Write, WriteError, Written, rows::AssetKind, write};
use serde_json::json;

use crate::fixture::{AT, Fixture, PROJECT, append, artifact, events_of, new_run, started};

fn model(bytes: &[u8], task: &str, stage: Option<&str>, expected_version: Option<u64>) -> write::RegisterModel {
    write::RegisterModel {
        project: PROJECT.into(),
        name: "churn".into(),
        artifact: artifact(bytes),
        metrics: BTreeMap::from([("loss".to_owned(), 0.25)]),
        task: Some(task.into()),
        stage: stage.map(str::to_owned),
        expected_version,
        at: AT,
    }
}

fn version(version: u64, unchanged: bool) -> Vec<Written> {
    vec![Written::Version { version, unchanged }]
}

pub async fn a_moved_stage_is_a_conflict_that_names_everything(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let run = started(&store, lease, "e").await;
    let register = |m| Write::RegisterModel(m);
    let first = store.write(vec![register(model(b"1", "r/a[0]", Some("production"), None))]).await;
    assert_eq!(first, Ok(version(1, false)));
    let second = store.write(vec![register(model(b"2", "r/b[0]", Some("production"), Some(1)))]).await;
    assert_eq!(second, Ok(version(2, false)));
    // The plugin saw version 1 and no dataset; a third effect would be fine.
    let dataset = write::PublishDataset {
        project: PROJECT.into(),
        name: "raw".into(),
        artifact: artifact(b"d"),
        task: None,
        expected_previous: Some(Some(4)),
        at: AT,
    };
    let unit = vec![
        Write::Append(append(lease, run, 1, &["accepted"])),
        register(model(b"3", "r/c[0]", Some("production"), Some(1))),
        register(model(b"4", "r/d[0]", Some("staging"), None)),
        Write::PublishDataset(dataset),
    ];
    let what = vec![
        "model:churn@production is now version 2, the plugin saw version 1".to_owned(),
        "dataset:raw is now none, expected was version 4".to_owned(),
    ];
    assert_eq!(store.write(unit).await, Err(WriteError::Conflict { what }));
    assert_eq!(events_of(&store, run).await, ["first"]);
    let asset = store.asset(PROJECT, AssetKind::Model, "churn").await.unwrap().unwrap();
    assert_eq!(asset.versions.iter().map(|v| v.version).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(asset.stages, BTreeMap::from([("production".to_owned(), 2)]));
    let production = store.stage(PROJECT, "churn", "production").await.unwrap().unwrap();
    assert_eq!((production.version, production.artifact, production.metrics["loss"]), (2, artifact(b"2"), 0.25));
    assert_eq!(store.stage(PROJECT, "churn", "staging").await.unwrap(), None);
    assert_eq!(store.asset(PROJECT, AssetKind::Dataset, "raw").await.unwrap(), None);
}

pub async fn a_task_registers_a_model_once(fixture: Fixture) {
    let store = fixture.open().await;
    let unit = || vec![Write::RegisterModel(model(b"1", "r/a[0]", Some("production"), None))];
    assert_eq!(store.write(unit()).await, Ok(version(1, false)));
    // The stage has moved by its own doing, which is no conflict.
    assert_eq!(store.write(unit()).await, Ok(version(1, true)));
    let unstaged = vec![Write::RegisterModel(model(b"2", "r/b[0]", None, Some(77)))];
    assert_eq!(store.write(unstaged).await, Ok(version(2, false)));
    let listed = store.assets(PROJECT, AssetKind::Model).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].versions.iter().map(|v| v.version).collect::<Vec<_>>(), [2]);
    assert_eq!(listed[0].stages, BTreeMap::from([("production".to_owned(), 1)]));
    let one = store.asset_version(PROJECT, AssetKind::Model, "churn", Some(1)).await.unwrap().unwrap();
    assert_eq!(one.task.as_deref(), Some("r/a[0]"));
    let newest = store.asset_version(PROJECT, AssetKind::Model, "churn", None).await.unwrap().unwrap();
    assert_eq!(newest.version, 2);
    assert_eq!(store.asset_version(PROJECT, AssetKind::Model, "churn", Some(3)).await.unwrap(), None);
}

pub async fn equal_bytes_are_no_new_version_of_a_dataset(fixture: Fixture) {
    let store = fixture.open().await;
    let publish = |bytes: &[u8], task: Option<&str>, expected_previous| {
        vec![Write::PublishDataset(write::PublishDataset {
            project: PROJECT.into(),
            name: "churn/raw".into(),
            artifact: artifact(bytes),
            task: task.map(str::to_owned),
            expected_previous,
            at: AT,
        })]
    };
    assert_eq!(store.write(publish(b"1", None, Some(None))).await, Ok(version(1, false)));
    assert_eq!(store.write(publish(b"1", None, None)).await, Ok(version(1, true)));
    assert_eq!(store.write(publish(b"2", Some("r/a[0]"), Some(Some(1)))).await, Ok(version(2, false)));
    assert_eq!(store.write(publish(b"1", None, None)).await, Ok(version(3, false)));
    assert_eq!(store.write(publish(b"9", Some("r/a[0]"), None)).await, Ok(version(2, true)));
    let stale = store.write(publish(b"4", None, Some(Some(2)))).await;
    assert_eq!(
        stale,
        Err(WriteError::Conflict { what: vec!["dataset:churn/raw is now version 3, expected was version 2".into()] })
    );
}

pub async fn the_first_cached_result_stays(fixture: Fixture) {
    let store = fixture.open().await;
    let task = |index| TaskKey { run: new_run(), step: "prepare".into(), index };
    let (a, b) = (task(0), task(1));
    let put = |task: &TaskKey, output| {
        Write::CachePut(write::CachePut {
            project: PROJECT.into(),
            scope: "trusted".into(),
            key: "k".into(),
            task: task.clone(),
            output: json!(output),
            at: AT,
        })
    };
    store.write(vec![put(&a, 1), put(&b, 2)]).await.unwrap();
    let row = store.cache_get(PROJECT, "trusted", "k").await.unwrap().unwrap();
    assert_eq!((row.task, row.output), (a.to_string(), json!(1)));
    for (project, scope, key) in [("x", "trusted", "k"), (PROJECT, "x", "k"), (PROJECT, "trusted", "x")] {
        assert_eq!(store.cache_get(project, scope, key).await.unwrap(), None);
    }
    let record = |task: &TaskKey, result| {
        Write::CacheRecord(write::CacheRecord {
            project: PROJECT.into(),
            workflow: "train".into(),
            task: task.clone(),
            key: Some("k".into()),
            parts: json!({"script": "s"}),
            result,
            at: AT,
        })
    };
    store.write(vec![record(&a, write::CacheResult::Miss), record(&b, write::CacheResult::Miss)]).await.unwrap();
    store.write(vec![record(&b, write::CacheResult::Hit)]).await.unwrap();
    assert_eq!(store.cache_record(&b.to_string()).await.unwrap().unwrap().result, write::CacheResult::Hit);
    let earlier = async |before| {
        let rows = store.earlier_cache_records(PROJECT, "train", "prepare", before, 0).await.unwrap();
        rows.into_iter().map(|row| row.task).collect::<Vec<_>>()
    };
    assert_eq!(earlier(new_run()).await, [b.to_string(), a.to_string()]);
    assert_eq!(earlier(b.run).await, [a.to_string()]);
    assert_eq!(earlier(a.run).await, [] as [String; 0]);
}

pub async fn a_cached_result_is_replaced_only_if_it_is_the_expected_one(fixture: Fixture) {
    let (store, lease) = fixture.owned().await;
    let task = |index| TaskKey { run: new_run(), step: "prepare".into(), index };
    let put = |task: &TaskKey, output| write::CachePut {
        project: PROJECT.into(),
        scope: "trusted".into(),
        key: "k".into(),
        task: task.clone(),
        output: json!(output),
        at: AT,
    };
    let replace =
        |put, expected: &TaskKey| Write::CacheReplace(write::CacheReplace { put, expected_task: expected.to_string() });
    let found = async || {
        let row = store.cache_get(PROJECT, "trusted", "k").await.unwrap().unwrap();
        (row.task, row.output)
    };
    let (gone, first, second) = (task(0), task(1), task(2));
    store.write(vec![Write::CachePut(put(&gone, 0))]).await.unwrap();
    let elsewhere = write::CachePut { scope: "other".into(), ..put(&gone, 9) };
    store.write(vec![Write::CachePut(elsewhere)]).await.unwrap();
    // Two tasks found that its bytes were gone; who comes second changes nothing, and its unit is not refused.
    store.write(vec![replace(put(&first, 1), &gone)]).await.unwrap();
    let run = started(&store, lease, "e").await;
    let accepted = Write::Append(append(lease, run, 1, &["accepted"]));
    store.write(vec![accepted, replace(put(&second, 2), &gone)]).await.unwrap();
    assert_eq!(found().await, (first.to_string(), json!(1)));
    assert_eq!(events_of(&store, run).await, ["first", "accepted"]);
    let other = store.cache_get(PROJECT, "other", "k").await.unwrap().unwrap();
    assert_eq!((other.task, other.output), (gone.to_string(), json!(9)));
    // Nothing there is nothing in the way.
    let fresh = write::CachePut { key: "new".into(), ..put(&second, 3) };
    store.write(vec![replace(fresh, &gone)]).await.unwrap();
    let row = store.cache_get(PROJECT, "trusted", "new").await.unwrap().unwrap();
    assert_eq!((row.task, row.output), (second.to_string(), json!(3)));
}
