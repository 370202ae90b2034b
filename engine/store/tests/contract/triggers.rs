//! Triggers and where they stand.

use kickwheel_store::{
    Store, Write,
    rows::{TriggerRow, TriggerStateRow},
    write,
};
use serde_json::{Value, json};

use crate::fixture::{AT, Fixture, PROJECT, assert_stale};

fn put(name: &str, kind: &str, config: Value) -> Write {
    let (name, kind) = (name.into(), kind.into());
    Write::PutTrigger(write::PutTrigger { project: PROJECT.into(), name, kind, config, at: AT })
}

fn named(name: &str) -> write::RemoveNamed {
    write::RemoveNamed { project: PROJECT.into(), name: name.into() }
}

fn pause(name: &str, paused: bool) -> Vec<Write> {
    vec![Write::SetTriggerPaused(write::SetTriggerPaused { project: PROJECT.into(), name: name.into(), paused })]
}

fn state(trigger: &str, expected_version: u64, state: i64) -> Vec<Write> {
    vec![Write::PutTriggerState(write::PutTriggerState {
        project: PROJECT.into(),
        trigger: trigger.into(),
        expected_version,
        state: json!({"at": state}),
    })]
}

async fn stands(store: &Store, trigger: &str) -> Option<(u64, Value)> {
    let row = store.trigger_state(PROJECT, trigger).await.unwrap();
    row.map(|row| (row.version, row.state["at"].clone()))
}

pub async fn a_changed_trigger_stays_paused_and_as_old_as_it_is(fixture: Fixture) {
    let store = fixture.open().await;
    store.write(vec![put("nightly", "cron", json!({"schedule": "@daily"}))]).await.unwrap();
    store.write(vec![put("github", "git", json!({}))]).await.unwrap();
    store.write(pause("nightly", true)).await.unwrap();
    let mut changed = put("nightly", "cron", json!({"schedule": "@hourly"}));
    if let Write::PutTrigger(put) = &mut changed {
        put.at = AT.plus(9);
    }
    store.write(vec![changed]).await.unwrap();
    let nightly = TriggerRow {
        project: PROJECT.into(),
        name: "nightly".into(),
        kind: "cron".into(),
        config: json!({"schedule": "@hourly"}),
        paused: true,
        created_at: AT,
    };
    assert_eq!(store.trigger(PROJECT, "nightly").await.unwrap(), Some(nightly.clone()));
    let all = store.triggers(Some(PROJECT)).await.unwrap();
    assert_eq!(
        all.iter().map(|row| (row.name.as_str(), row.paused)).collect::<Vec<_>>(),
        [("github", false), ("nightly", true)]
    );
    assert_eq!(store.triggers(None).await.unwrap(), all);
    assert_eq!(store.triggers(Some("other")).await.unwrap(), []);
    store.write(pause("nightly", false)).await.unwrap();
    assert!(!store.trigger(PROJECT, "nightly").await.unwrap().unwrap().paused);
    assert_stale(store.write(pause("missing", true)).await, "no trigger \"missing\"");
}

pub async fn a_state_moves_on_only_from_the_expected_version(fixture: Fixture) {
    let store = fixture.open().await;
    assert_eq!(stands(&store, "nightly").await, None);
    assert_stale(store.write(state("nightly", 1, 0)).await, "has version 0, not 1");
    store.write(state("nightly", 0, 10)).await.unwrap();
    assert_stale(store.write(state("nightly", 0, 11)).await, "has version 1, not 0");
    store.write(state("nightly", 1, 20)).await.unwrap();
    assert_stale(store.write(state("nightly", 1, 21)).await, "has version 2, not 1");
    assert_eq!(stands(&store, "nightly").await, Some((2, json!(20))));
    // A tick is spooled with the cursor or not at all.
    let tick = Write::Spool(write::Spool {
        key: "1".into(),
        project: PROJECT.into(),
        channel: "cron".into(),
        event: crate::fixture::event("/cron/nightly", "nightly", "1"),
        at: AT,
        ingress: false,
    });
    let mut unit = vec![tick];
    unit.extend(state("nightly", 1, 30));
    assert_stale(store.write(unit).await, "has version 2");
    assert_eq!(store.spooled(0).await.unwrap(), []);
}

pub async fn a_state_goes_with_its_trigger(fixture: Fixture) {
    let store = fixture.open().await;
    store.write(vec![put("a", "cron", json!({})), put("b", "cron", json!({}))]).await.unwrap();
    for name in ["a", "b", "workflow:train/0"] {
        store.write(state(name, 0, 1)).await.unwrap();
    }
    // The same kind keeps it, another kind begins anew.
    store.write(vec![put("a", "cron", json!({"changed": true}))]).await.unwrap();
    assert_eq!(stands(&store, "a").await, Some((1, json!(1))));
    store.write(vec![put("a", "kafka", json!({}))]).await.unwrap();
    assert_eq!(stands(&store, "a").await, None);
    let rest = store.trigger_states(PROJECT).await.unwrap();
    let row = |trigger: &str| TriggerStateRow { trigger: trigger.into(), version: 1, state: json!({"at": 1}) };
    assert_eq!(rest, [row("b"), row("workflow:train/0")]);
    store.write(vec![Write::RemoveTrigger(named("b")), Write::RemoveTrigger(named("workflow:train/0"))]).await.unwrap();
    assert_eq!(store.trigger_states(PROJECT).await.unwrap(), []);
    assert_eq!(store.trigger(PROJECT, "b").await.unwrap(), None);
    assert!(store.trigger(PROJECT, "a").await.unwrap().is_some());
}
