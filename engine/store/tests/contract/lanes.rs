//! Events in their lanes, and refs.

use kickwheel_schemas::Millis;
use kickwheel_store::{
    EventKey, Store, Write, Written,
    rows::{EventFilter, EventState, RefHead},
    write,
};
use serde_json::json;

use crate::fixture::{AT, Fixture, PROJECT, accept, accepted, assert_stale, decide, event, new_key, new_run};

async fn due(store: &Store, now: Millis) -> Vec<EventKey> {
    store.undecided(now, 0).await.unwrap().into_iter().map(|row| row.key).collect()
}

pub async fn a_repeated_identity_is_a_duplicate_of_the_first(fixture: Fixture) {
    let store = fixture.open().await;
    let first = accepted(&store, event("s", "a", "1")).await;
    let again = store.write(vec![accept(new_key(), event("s", "a", "1"))]).await.unwrap();
    assert_eq!(again, [Written::Accepted { key: first, duplicate: true }]);
    // Another source, and another project, are other identities.
    accepted(&store, event("t", "a", "1")).await;
    let other = Write::Accept(write::Accept {
        key: new_key(),
        project: "other".into(),
        event: event("s", "a", "1"),
        received_at: AT,
        channel: "hook".into(),
    });
    assert!(matches!(store.write(vec![other]).await.unwrap()[..], [Written::Accepted { duplicate: false, .. }]));
    assert_eq!(store.events(&EventFilter::default()).await.unwrap().len(), 3);
    assert_eq!(store.event_by_identity(PROJECT, "s", "1").await.unwrap(), Some(first));
    let row = store.event(first).await.unwrap().unwrap();
    assert_eq!((row.event, row.position, row.state), (event("s", "a", "1"), 1, EventState::Undecided));
}

pub async fn events_of_a_lane_are_decided_in_order(fixture: Fixture) {
    let store = fixture.open().await;
    let a = accepted(&store, event("s", "main", "1")).await;
    let b = accepted(&store, event("s", "main", "2")).await;
    assert_eq!(due(&store, AT).await, [a]);
    assert_stale(store.write(vec![decide(b)]).await, "number 2 in its lane, and 1 is undecided");
    assert_stale(store.write(vec![decide(new_key())]).await, "not stored");
    let run = new_run();
    let outcome = write::DecisionRow {
        workflow: "train".into(),
        decision: "started".into(),
        reason: "branch matches".into(),
        clause: None,
        run: Some(run),
    };
    let decided = Write::Decide(write::Decide {
        key: a,
        enrichment: json!({"paths": ["src/a.py"]}),
        registry_revision: 7,
        outcomes: vec![outcome.clone()],
        at: AT,
    });
    store.write(vec![decided]).await.unwrap();
    assert_stale(store.write(vec![decide(a)]).await, "not undecided any more");
    assert_eq!(store.decisions(a).await.unwrap(), [outcome]);
    let row = store.event(a).await.unwrap().unwrap();
    assert_eq!((row.state, row.registry_revision), (EventState::Decided, Some(7)));
    assert_eq!(row.enrichment, json!({"paths": ["src/a.py"]}));
    assert_eq!(due(&store, AT).await, [b]);
    store.write(vec![decide(b)]).await.unwrap();
    assert_eq!(due(&store, AT).await, []);
    // The lane goes on after it was empty.
    let c = accepted(&store, event("s", "main", "3")).await;
    assert_eq!(due(&store, AT).await, [c]);
    assert_eq!(store.event(c).await.unwrap().unwrap().position, 3);
}

pub async fn a_parked_lane_does_not_hold_up_others(fixture: Fixture) {
    let store = fixture.open().await;
    let parked = accepted(&store, event("s", "main", "1")).await;
    let behind = accepted(&store, event("s", "main", "2")).await;
    let other = accepted(&store, event("s", "dev", "3")).await;
    let park = Write::Park(write::Park { key: parked, reason: "mirror is away".into(), until: AT.plus(500) });
    store.write(vec![park]).await.unwrap();
    assert_eq!(due(&store, AT).await, [other]);
    assert_eq!(store.next_due(AT).await.unwrap(), Some(AT.plus(500)));
    assert_eq!(store.event(parked).await.unwrap().unwrap().reason.as_deref(), Some("mirror is away"));
    store.write(vec![decide(other)]).await.unwrap();
    assert_eq!(due(&store, AT.plus(499)).await, []);
    assert_eq!(due(&store, AT.plus(500)).await, [parked]);
    assert_stale(
        store.write(vec![Write::Park(write::Park { key: behind, reason: String::new(), until: AT })]).await,
        "number 2",
    );
    store.write(vec![decide(parked)]).await.unwrap();
    assert_eq!(store.event(parked).await.unwrap().unwrap().reason, None);
    assert_eq!(due(&store, AT.plus(500)).await, [behind]);
}

pub async fn a_quarantined_event_lets_its_lane_go_on(fixture: Fixture) {
    let store = fixture.open().await;
    let bad = accepted(&store, event("s", "main", "1")).await;
    let next = accepted(&store, event("s", "main", "2")).await;
    let quarantine = write::Quarantine { key: bad, reason: "no such commit".into(), at: AT };
    store.write(vec![Write::Quarantine(quarantine)]).await.unwrap();
    assert_eq!(due(&store, AT).await, [next]);
    let filter = EventFilter { state: Some(EventState::Quarantined), ..EventFilter::default() };
    let rows = store.events(&filter).await.unwrap();
    assert_eq!(
        rows.iter().map(|row| (row.key, row.reason.as_deref())).collect::<Vec<_>>(),
        [(bad, Some("no such commit"))]
    );
    let counts = store.counts().await.unwrap();
    assert_eq!((counts.undecided, counts.quarantined), (1, 1));
}

pub async fn accept_and_decide_fit_in_one_unit(fixture: Fixture) {
    let store = fixture.open().await;
    let key = new_key();
    store.write(vec![accept(key, event("s", "main", "1")), decide(key)]).await.unwrap();
    let row = store.event(key).await.unwrap().unwrap();
    assert_eq!((row.state, row.position, row.registry_revision), (EventState::Decided, 1, Some(3)));
    assert_eq!(row.enrichment, json!({"paths": ["a"]}));
    assert_eq!(due(&store, AT).await, []);
    let second = new_key();
    store.write(vec![accept(second, event("s", "main", "2")), decide(second)]).await.unwrap();
    assert_eq!(store.event(second).await.unwrap().unwrap().position, 2);
    // Where an earlier one is undecided, the two are refused as one.
    let earlier = accepted(&store, event("s", "dev", "3")).await;
    let later = new_key();
    assert_stale(store.write(vec![accept(later, event("s", "dev", "4")), decide(later)]).await, "is undecided");
    assert_eq!(due(&store, AT).await, [earlier]);
    // A duplicate that is decided in the same unit is refused as a whole.
    let again = new_key();
    assert_stale(store.write(vec![accept(again, event("s", "main", "1")), decide(again)]).await, "not stored");
}

pub async fn refs_keep_their_transitions_and_channels(fixture: Fixture) {
    let store = fixture.open().await;
    let key = new_key();
    let moved = |before: Option<&str>, after: Option<&str>, moves_head: bool| {
        Write::MoveRef(write::MoveRef {
            project: PROJECT.into(),
            repo: "churn".into(),
            ref_name: "refs/heads/main".into(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
            channel: "hook".into(),
            event: key,
            moves_head,
            at: AT,
        })
    };
    let head = async || store.ref_head(PROJECT, "churn", "refs/heads/main").await.unwrap();
    assert_eq!(head().await, None);
    let written = store.write(vec![moved(None, Some("a"), true), moved(Some("a"), Some("b"), true)]).await.unwrap();
    assert_eq!(written[1], Written::Version { version: 2, unchanged: false });
    store.write(vec![moved(Some("x"), Some("a"), false)]).await.unwrap();
    assert_eq!(head().await, Some(RefHead { commit: Some("b".into()), transition: 3 }));
    let report = |transition| {
        Write::ReportRef(write::ReportRef {
            project: PROJECT.into(),
            repo: "churn".into(),
            ref_name: "refs/heads/main".into(),
            transition,
            channel: "poll".into(),
        })
    };
    store.write(vec![report(2), report(2)]).await.unwrap();
    assert_stale(store.write(vec![report(4)]).await, "no transition 4");
    let rows = store.transitions(PROJECT, "churn", "refs/heads/main", 2).await.unwrap();
    let seen: Vec<_> = rows.iter().map(|row| (row.transition, row.moved_head, row.channels.clone())).collect();
    assert_eq!(seen, [(3, false, vec!["hook".to_owned()]), (2, true, vec!["hook".into(), "poll".into()])]);
    store.write(vec![moved(Some("b"), None, true)]).await.unwrap();
    assert_eq!(head().await, Some(RefHead { commit: None, transition: 4 }));
}

pub async fn forgotten_identities_may_come_again(fixture: Fixture) {
    let store = fixture.open().await;
    accepted(&store, event("s", "a", "1")).await;
    let forget = |before| Write::ForgetSeen(write::ForgetSeen { before });
    store.write(vec![forget(AT)]).await.unwrap();
    let again = store.write(vec![accept(new_key(), event("s", "a", "1"))]).await.unwrap();
    assert!(matches!(again[..], [Written::Accepted { duplicate: true, .. }]));
    store.write(vec![forget(AT.plus(1))]).await.unwrap();
    accepted(&store, event("s", "a", "1")).await;
}

pub async fn long_attributes_fit(fixture: Fixture) {
    let store = fixture.open().await;
    let long = "x".repeat(kickwheel_schemas::cloudevent::MAX_ATTRIBUTE_BYTES);
    let key = accepted(&store, event(&long, &long, &long)).await;
    assert_eq!(due(&store, AT).await, [key]);
    assert_eq!(store.event(key).await.unwrap().unwrap().event, event(&long, &long, &long));
    let run = crate::fixture::create_run(new_run(), 0, &long, 0);
    store.write(vec![decide(key), run]).await.unwrap();
}
