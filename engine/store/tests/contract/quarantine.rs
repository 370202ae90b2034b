//! What somebody has to look at: raw inputs and quarantined events.

use kickwheel_schemas::Millis;
use kickwheel_store::{
    EventKey, Store, Write,
    rows::{EventFilter, EventRange, EventState, InputFilter, InputState},
    write::{self, Resolution},
};
use serde_json::json;

use crate::fixture::{AT, Fixture, PROJECT, accept, accepted, assert_stale, decide, event, new_key};

fn input(id: EventKey, body: &[u8]) -> write::PutQuarantine {
    write::PutQuarantine {
        id,
        project: PROJECT.into(),
        origin: "kafka:kickwheel.events/3@17".into(),
        reason: "the body is not JSON".into(),
        headers: json!({"content-type": "application/json"}),
        body: body.to_vec(),
        received_at: AT,
    }
}

fn resolve(id: EventKey, resolution: Resolution) -> Vec<Write> {
    let note = Some("became 0193".into());
    vec![Write::ResolveQuarantine(write::ResolveQuarantine { id, resolution, note, at: AT.plus(3) })]
}

async fn listed(store: &Store, filter: InputFilter) -> Vec<EventKey> {
    store.quarantined_inputs(&filter).await.unwrap().into_iter().map(|row| row.id).collect()
}

pub async fn an_input_is_kept_once_with_its_bytes(fixture: Fixture) {
    let store = fixture.open().await;
    let (first, second) = (new_key(), new_key());
    let bytes = [0, 0xff, b'{'];
    store.write(vec![Write::PutQuarantine(input(first, &bytes))]).await.unwrap();
    let again = write::PutQuarantine { reason: "another".into(), ..input(first, b"another") };
    let elsewhere = write::PutQuarantine { project: String::new(), ..input(second, b"") };
    store.write(vec![Write::PutQuarantine(again), Write::PutQuarantine(elsewhere)]).await.unwrap();
    let row = store.quarantined_input(first).await.unwrap().unwrap();
    assert_eq!((row.body.as_slice(), &row.headers["content-type"]), (bytes.as_slice(), &json!("application/json")));
    let summary = row.summary;
    assert_eq!((summary.id, summary.size, summary.state), (first, 3, InputState::Held));
    assert_eq!(
        (summary.origin.as_str(), summary.reason.as_str()),
        ("kafka:kickwheel.events/3@17", "the body is not JSON")
    );
    assert_eq!(store.quarantined_input(new_key()).await.unwrap(), None);
    let all = InputFilter::default();
    assert_eq!(store.quarantined_inputs(&all).await.unwrap()[1], summary);
    assert_eq!(listed(&store, all.clone()).await, [second, first]);
    assert_eq!(listed(&store, InputFilter { limit: 1, ..all.clone() }).await, [second]);
    assert_eq!(listed(&store, InputFilter { before: Some(second), ..all.clone() }).await, [first]);
    assert_eq!(listed(&store, InputFilter { project: Some(PROJECT.into()), ..all }).await, [first]);
    let prefix = first.to_string();
    assert_eq!(store.quarantined_by_prefix(&prefix).await.unwrap(), [summary]);
    assert_eq!(store.quarantined_by_prefix(&prefix[..4]).await.unwrap().len(), 2);
    assert_eq!(store.counts().await.unwrap().held, 2);
}

pub async fn an_input_is_resolved_once(fixture: Fixture) {
    let store = fixture.open().await;
    let (replayed, dropped, held) = (new_key(), new_key(), new_key());
    for id in [replayed, dropped, held] {
        store.write(vec![Write::PutQuarantine(input(id, b"x"))]).await.unwrap();
    }
    store.write(resolve(replayed, Resolution::Replayed)).await.unwrap();
    store.write(resolve(dropped, Resolution::Dropped)).await.unwrap();
    assert_stale(store.write(resolve(replayed, Resolution::Dropped)).await, "is replayed already");
    assert_stale(store.write(resolve(dropped, Resolution::Dropped)).await, "is dropped already");
    assert_stale(store.write(resolve(new_key(), Resolution::Dropped)).await, "there is no input");
    for (state, id) in [
        (InputState::Held, held),
        (InputState::Resolved(Resolution::Replayed), replayed),
        (InputState::Resolved(Resolution::Dropped), dropped),
    ] {
        assert_eq!(listed(&store, InputFilter { state: Some(state), ..InputFilter::default() }).await, [id]);
    }
    let row = store.quarantined_input(replayed).await.unwrap().unwrap();
    assert_eq!((row.summary.note.as_deref(), row.summary.resolved_at), (Some("became 0193"), Some(AT.plus(3))));
    assert_eq!(row.body, b"x");
    assert_eq!(store.counts().await.unwrap().held, 1);
}

async fn quarantined(store: &Store, key: EventKey) {
    let reason = "no such commit".into();
    store.write(vec![Write::Quarantine(write::Quarantine { key, reason, at: AT })]).await.unwrap();
}

fn requeue(key: EventKey, at: Millis) -> Vec<Write> {
    vec![Write::Requeue(write::Requeue { key, at })]
}

fn drop_event(key: EventKey) -> Vec<Write> {
    vec![Write::DropEvent(write::DropEvent { key, reason: "a mistake".into(), at: AT.plus(5) })]
}

async fn due(store: &Store, now: Millis) -> Vec<EventKey> {
    store.undecided(now, 0).await.unwrap().into_iter().map(|row| row.key).collect()
}

pub async fn a_requeued_event_is_last_in_its_lane(fixture: Fixture) {
    let store = fixture.open().await;
    let bad = accepted(&store, event("s", "main", "1")).await;
    let next = accepted(&store, event("s", "main", "2")).await;
    assert_stale(store.write(requeue(bad, AT)).await, "is undecided, not quarantined");
    assert_stale(store.write(requeue(new_key(), AT)).await, "is not stored");
    quarantined(&store, bad).await;
    store.write(requeue(bad, AT)).await.unwrap();
    assert_stale(store.write(requeue(bad, AT)).await, "is undecided, not quarantined");
    let row = store.event(bad).await.unwrap().unwrap();
    assert_eq!((row.state, row.position, row.reason, row.decided_at), (EventState::Undecided, 3, None, None));
    assert_eq!(due(&store, AT).await, [next]);
    assert_stale(store.write(vec![decide(bad)]).await, "number 3 in its lane, and 2 is undecided");
    store.write(vec![decide(next)]).await.unwrap();
    assert_eq!(due(&store, AT).await, [bad]);
    let after = accepted(&store, event("s", "main", "3")).await;
    store.write(vec![decide(bad)]).await.unwrap();
    assert_eq!(due(&store, AT).await, [after]);
    store.write(vec![decide(after)]).await.unwrap();
    assert_stale(store.write(requeue(bad, AT)).await, "is decided, not quarantined");
    // In a lane that has nothing to wait for it is due at once.
    let alone = accepted(&store, event("s", "dev", "4")).await;
    quarantined(&store, alone).await;
    assert_eq!(due(&store, AT.plus(99)).await, []);
    store.write(requeue(alone, AT.plus(50))).await.unwrap();
    assert_eq!(due(&store, AT.plus(49)).await, []);
    assert_eq!(due(&store, AT.plus(50)).await, [alone]);
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.undecided, counts.quarantined), (1, 0));
}

pub async fn an_event_accepted_in_the_same_unit_can_be_requeued(fixture: Fixture) {
    let store = fixture.open().await;
    let key = new_key();
    let quarantine = write::Quarantine { key, reason: "x".into(), at: AT };
    let mut unit = vec![accept(key, event("s", "main", "1")), Write::Quarantine(quarantine)];
    unit.extend(requeue(key, AT));
    store.write(unit).await.unwrap();
    assert_eq!(due(&store, AT).await, [key]);
}

pub async fn a_dropped_event_is_gone_for_good(fixture: Fixture) {
    let store = fixture.open().await;
    let bad = accepted(&store, event("s", "main", "1")).await;
    assert_stale(store.write(drop_event(bad)).await, "is undecided, not quarantined");
    quarantined(&store, bad).await;
    store.write(drop_event(bad)).await.unwrap();
    assert_stale(store.write(drop_event(bad)).await, "is dropped, not quarantined");
    assert_stale(store.write(requeue(bad, AT)).await, "is dropped, not quarantined");
    let row = store.event(bad).await.unwrap().unwrap();
    assert_eq!((row.state, row.decided_at), (EventState::Dropped, Some(AT.plus(5))));
    assert_eq!(row.reason.as_deref(), Some("a mistake"));
    let filter = |state| EventFilter { state: Some(state), ..EventFilter::default() };
    assert_eq!(store.events(&filter(EventState::Dropped)).await.unwrap(), [row]);
    assert_eq!(store.events(&filter(EventState::Quarantined)).await.unwrap(), []);
    assert_eq!(store.counts().await.unwrap().quarantined, 0);
    // Its identity stays known.
    let again = store.write(vec![accept(new_key(), event("s", "main", "1"))]).await.unwrap();
    assert_eq!(again, [kickwheel_store::Written::Accepted { key: bad, duplicate: true }]);
}

pub async fn a_range_of_events_is_read_oldest_first(fixture: Fixture) {
    let store = fixture.open().await;
    let mut keys = Vec::new();
    for (n, ty) in ["dev.a", "dev.b", "dev.a", "dev.c"].into_iter().enumerate() {
        let key = new_key();
        let mut event = event("s", "main", &n.to_string());
        event.ty = ty.into();
        let received_at = AT.plus(n as u64);
        let (project, channel) = (PROJECT.into(), "hook".into());
        store.write(vec![Write::Accept(write::Accept { key, project, event, received_at, channel })]).await.unwrap();
        keys.push(key);
    }
    let range = EventRange { project: PROJECT.into(), ..EventRange::default() };
    let read = async |range: EventRange| {
        let rows = store.events_in(&range).await.unwrap();
        rows.into_iter().map(|row| row.key).collect::<Vec<_>>()
    };
    let types = |types: &[&str]| types.iter().map(|ty| (*ty).to_owned()).collect::<Vec<_>>();
    assert_eq!(read(range.clone()).await, keys);
    assert_eq!(read(EventRange { limit: 2, ..range.clone() }).await, keys[..2]);
    assert_eq!(read(EventRange { after: Some(keys[1]), limit: 1, ..range.clone() }).await, keys[2..3]);
    let (since, until) = (Some(AT.plus(1)), Some(AT.plus(3)));
    assert_eq!(read(EventRange { since, until, ..range.clone() }).await, keys[1..3]);
    let some = EventRange { types: types(&["dev.a", "dev.c"]), since, ..range.clone() };
    assert_eq!(read(some).await, keys[2..]);
    assert_eq!(read(EventRange { types: types(&["dev.x"]), ..range }).await, []);
    assert_eq!(read(EventRange { project: "other".into(), ..EventRange::default() }).await, []);
}
