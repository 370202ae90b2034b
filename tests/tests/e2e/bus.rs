//! Events through Kafka: in by the events topic and by topics of others, out by the runs topic, and what can never become
//! an event.

use std::fs;

use kickwheel_tests::{
    checker::{self, Expected, Known},
    harness::{Engine, KICK, SOURCE, Setup, on_each_database, on_kafka},
    repo::Repo,
    wait::until,
};
use serde_json::{Value, json};

const WHEEL: &str = r#"
version: 1
name: wheel
on:
  manual: {}
  event: {type: dev.example.kick}
  git.push: {repo: wheel}
steps:
  turn:
    run: |
      echo "$KICKWHEEL_ATTEMPT" >> {ledger}
      echo one > out.txt
    outputs: {data: {path: out.txt, dataset: wheel/data}}
"#;

/// What the runs topic tells of a run of [`WHEEL`].
const TOLD: [&str; 5] = [
    "dev.cdevents.pipelinerun.queued.0.3.0",
    "dev.cdevents.pipelinerun.started.0.3.0",
    "dev.cdevents.taskrun.finished.0.3.0",
    "dev.cdevents.artifact.published.0.3.0",
    "dev.cdevents.pipelinerun.finished.0.3.0",
];

fn all_ended(engine: &Engine, count: usize) -> Vec<Value> {
    let runs = until(&format!("{count} runs have ended"), || {
        let runs = engine.runs();
        (runs.len() >= count && runs.iter().all(|run| !run["ended_at"].is_null())).then_some(runs)
    });
    assert!(runs.iter().all(|run| run["state"] == "succeeded"), "{runs:#?}");
    engine.wait_for_bus();
    assert_eq!(engine.runs().len(), count, "{:#?}", engine.runs());
    runs
}

fn nothing_is_wrong(engine: &Engine, expected: &Expected) {
    assert_eq!(checker::check(&engine.database_url(), &engine.ledger(), expected), []);
}

#[test]
fn what_comes_through_the_topic_runs_once_and_each_run_is_told_in_order() {
    on_kafka(|database, topics| {
        let mut engine = Engine::with(database, Setup::default().with_kafka(&topics));
        let repo = Repo::make(&engine.folder().join("git"), "wheel");
        engine.bind(&repo, "wheel");
        let workflow = engine.fill(WHEEL);
        let commit = repo.push(&[(".kickwheel/wheel.yaml", &workflow)]);
        engine.pushed(&commit).wait_for("succeeded");
        let started = engine.api().post("workflows/wheel/runs", &json!({"inputs": {}}));
        engine.kick("kick-1").kick("kick-1");
        let runs = all_ended(&engine, 3);
        assert!(runs.iter().any(|run| run["id"] == started["id"]), "{started:#}");
        assert_eq!(engine.ledger_lines().len(), 3);
        let wheel = || ["wheel".to_owned()].into();
        nothing_is_wrong(&engine, &[(Known::Id("kick-1".into()), wheel()), (Known::Commit(commit), wheel())].into());

        // Each of the three came by the topic, the one that was sent twice twice.
        let ids: Vec<String> = topics.records("events").iter().map(|r| r.json()["id"].to_string()).collect();
        assert_eq!(ids.iter().filter(|id| id.contains("kick-1")).count(), 2, "{ids:?}");
        assert!(ids.len() >= 4, "{ids:?}");
        let told = until("every run is told to its end", || {
            Some(topics.told()).filter(|told| told.len() == 3 && told.values().all(|types| types.len() == TOLD.len()))
        });
        for run in &runs {
            assert_eq!(told[run["id"].as_str().expect("a run has an id")], TOLD);
        }
        // A restart tells nothing anew.
        let before = topics.records("runs").len();
        engine.kill9().restart().kick("kick-2").wait_for("succeeded");
        until("the fourth run is told", || (topics.told().len() == 4).then_some(()));
        until("it is told to its end", || (topics.records("runs").len() == before + TOLD.len()).then_some(()));
    });
}

#[test]
fn records_of_a_foreign_topic_start_runs_once() {
    const YAML: &str = r#"
version: 1
name: orders
on:
  event: {type: [com.example.order, com.example.plain]}
steps:
  take: {run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
"#;
    on_kafka(|database, topics| {
        topics.create("orders", 1, &[]);
        let mut engine = Engine::with(database, Setup::default().with_kafka(&topics));
        engine.apply(YAML);
        let config = json!({
            "kind": "kafka",
            "topic": topics.name("orders"),
            "from": "earliest",
            "record_type": "com.example.plain",
        });
        engine.api().post("triggers", &json!({"name": "orders", "config": config}));
        let structured =
            json!({"specversion": "1.0", "id": "s", "source": "/shop", "type": "com.example.order", "data": {}});
        let cloud = [("content-type", "application/cloudevents+json")];
        let binary = [
            ("ce_specversion", "1.0"),
            ("ce_id", "b"),
            ("ce_source", "/shop"),
            ("ce_type", "com.example.order"),
            ("content-type", "application/json"),
        ];
        let write = |payload: Option<&str>, headers: &[(&str, &str)]| {
            topics.write("orders", "lane", payload.map(str::as_bytes), headers);
        };
        write(Some(&structured.to_string()), &cloud);
        write(Some(r#"{"total": 3}"#), &binary);
        write(Some(r#"{"total": 4}"#), &[]);
        write(Some(&structured.to_string()), &cloud);
        // These three become nothing: no JSON, no value, and a type that only we may send.
        write(Some("no JSON"), &[]);
        write(None, &[]);
        let mut ours = structured.clone();
        (ours["id"], ours["type"]) = (json!("ours"), json!("dev.kickwheel.run.finished"));
        write(Some(&ours.to_string()), &cloud);
        write(Some(r#"{"total": 5}"#), &[]);
        // And one that would take the identity of a tick.
        let mut tick = structured.clone();
        (tick["id"], tick["source"]) = (json!("nightly@2026-01-31T12:00:00Z"), json!("/cron/nightly"));
        write(Some(&tick.to_string()), &cloud);
        let runs = all_ended(&engine, 4);
        let mut ids: Vec<&str> = runs.iter().filter_map(|run| run["event_id"].as_str()).collect();
        ids.sort_unstable();
        let bus = engine.api().get("bus");
        let streams = bus["items"].as_array().expect("a list");
        let stream = format!("trigger/default/orders/{}", topics.name("orders"));
        let topic = streams.iter().find(|item| item["stream"] == stream.as_str()).expect("it is read");
        let topic_id = topic["topic_id"].as_str().expect("a topic has an id");
        let place = |offset: u32| format!("orders/{topic_id}/0@{offset}");
        let mut expected = vec!["b".to_owned(), "s".to_owned(), place(2), place(7)];
        expected.sort_unstable();
        assert_eq!(ids, expected);
        nothing_is_wrong(&engine, &Expected::new());
        assert_eq!(quarantined(&engine), 4);

        engine.kill9().restart();
        write(Some(r#"{"total": 6}"#), &[]);
        all_ended(&engine, 5);
        assert_eq!(quarantined(&engine), 4, "nothing is read again");
    });
}

#[test]
fn a_foreign_record_is_mended_as_its_trigger_reads_records() {
    const YAML: &str = r#"
version: 1
name: orders
on: {event: {type: com.example.plain}}
steps:
  take: {run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
"#;
    on_kafka(|database, topics| {
        // The bus is the database's own: what is read from elsewhere is read all the same.
        topics.create("orders", 1, &[]);
        let mut engine = Engine::with(database, Setup::default());
        engine.apply(YAML);
        let brokers = topics.url().trim_start_matches("kafka://").split('/').next().map(str::to_owned);
        let config = json!({
            "kind": "kafka", "topic": topics.name("orders"), "from": "earliest", "record_type": "com.example.plain",
            "brokers": brokers.expect("it names a broker"),
        });
        engine.api().post("triggers", &json!({"name": "orders", "config": config}));
        topics.write("orders", "lane", Some(b"no JSON"), &[]);
        let held = until("it is held", || engine.api().get("quarantine")["items"].get(0).cloned());
        let id = held["id"].as_str().expect("an id");
        let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, r#"{"total": 3}"#);
        engine.api().post(&format!("quarantine/{id}/edit"), &json!({"body_base64": body}));
        let run = all_ended(&engine, 1).remove(0);
        assert!(run["event_id"].as_str().is_some_and(|id| id.ends_with("/0@0+edit1")), "{run:#}");
        let events = engine.api().get("events?limit=10");
        assert_eq!(events["items"][0]["event"]["subject"], "lane", "{events:#}");

        // A topic that is another one by now stops its partition, and `doctor` says so on this bus too.
        topics.recreate("orders");
        until("doctor says that the partition has stopped", || {
            let checks = engine.api().get("doctor")["checks"].as_array().cloned()?;
            let id = format!("partition trigger/default/orders/{}/0", topics.name("orders"));
            checks.iter().any(|check| check["id"] == id.as_str() && check["state"] == "failed").then_some(())
        });
    });
}

#[test]
fn a_kafka_trigger_that_is_paused_changed_or_removed_obeys_at_once() {
    const YAML: &str = r#"
version: 1
name: orders
on:
  event: {type: com.example.order}
steps:
  take: {run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
"#;
    on_kafka(|database, topics| {
        topics.create("old", 1, &[]);
        topics.create("new", 1, &[]);
        let mut engine = Engine::with(database, Setup::default().with_kafka(&topics));
        engine.apply(YAML);
        let add = |engine: &Engine, topic: &str| {
            let config = json!({"kind": "kafka", "topic": topics.name(topic), "from": "earliest"});
            engine.api().post("triggers", &json!({"name": "orders", "config": config}));
        };
        let write = |topic: &str, id: &str| {
            let order =
                json!({"specversion": "1.0", "id": id, "source": "/shop", "type": "com.example.order", "data": {}});
            let cloud = [("content-type", "application/cloudevents+json")];
            topics.write(topic, "lane", Some(order.to_string().as_bytes()), &cloud);
        };
        let states = |engine: &Engine, topic: &str| {
            let stream = format!("trigger/default/orders/{}", topics.name(topic));
            let items = engine.api().get("bus")["items"].as_array().cloned().unwrap_or_default();
            items.into_iter().filter(|item| item["stream"] == stream.as_str()).collect::<Vec<_>>()
        };
        add(&engine, "old");
        write("old", "first");
        all_ended(&engine, 1);
        let offset = |engine: &Engine| states(engine, "old")[0]["next_offset"].clone();
        until("the first is behind us", || (offset(&engine) == 1).then_some(()));

        engine.api().post("triggers/orders/pause", &json!({}));
        engine.api().post("triggers/orders/resume", &json!({}));
        write("old", "second");
        all_ended(&engine, 2);

        add(&engine, "new");
        write("old", "nobody reads it");
        write("new", "third");
        all_ended(&engine, 3);
        assert_eq!(states(&engine, "old"), Vec::<Value>::new(), "nothing is kept of a topic that was left");

        engine.api().delete("triggers/orders");
        assert_eq!(states(&engine, "new"), Vec::<Value>::new(), "nor of a trigger that was removed");
        // Made again it begins as it says: it reads all of it once more, and what was accepted is not started twice.
        write("new", "fourth");
        add(&engine, "new");
        all_ended(&engine, 4);
        nothing_is_wrong(&engine, &Expected::new());
    });
}

#[test]
fn what_waits_for_kafka_is_taken_in_when_the_bus_is_embedded_again() {
    const YAML: &str = r#"
version: 1
name: wheel
on:
  event: {type: dev.example.kick}
steps:
  turn: {run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
"#;
    on_each_database(|database| {
        // Nobody listens at port 1.
        let nowhere = Setup { arguments: vec!["--bus".into(), "kafka://127.0.0.1:1/t".into()], ..Setup::default() };
        let mut engine = Engine::with(database, nowhere);
        engine.apply(YAML).kick("one").kick("two").kick("one");
        assert_eq!(engine.api().get("bus")["spooled"], 3);
        assert_eq!(engine.runs(), Vec::<Value>::new());
        engine.kill9().set_up(Setup::default()).restart();
        all_ended(&engine, 2);
        let bus = engine.api().get("bus");
        assert_eq!((&bus["kind"], &bus["spooled"]), (&json!("embedded"), &json!(0)));
        let wheel = || ["wheel".to_owned()].into();
        nothing_is_wrong(&engine, &[(Known::Id("one".into()), wheel()), (Known::Id("two".into()), wheel())].into());
    });
}

/// How much is in quarantine.
fn quarantined(engine: &Engine) -> usize {
    checker::count(&engine.database_url(), "quarantine")
}

#[test]
fn what_can_never_be_an_event_is_set_aside_and_the_partition_goes_on() {
    const LARGE_BYTES: usize = 20 << 20;
    on_kafka(|database, topics| {
        // Somebody made the topic, and lets it take everything.
        topics.create("events", 1, &[("max.message.bytes", "33554432")]);
        let mut engine = Engine::with(database, Setup::default().with_kafka(&topics));
        engine.apply(WHEEL).kick("before").wait_for("succeeded");
        let cloud = [("content-type", "application/cloudevents+json")];
        topics.write("events", "k", Some(b"\xff\xfe garbage"), &[]);
        topics.write("events", "k", None, &[]);
        topics.write("events", "k", Some(&vec![b'x'; LARGE_BYTES]), &cloud);
        let homeless = json!({"specversion": "1.0", "id": "homeless", "source": SOURCE, "type": KICK}).to_string();
        topics.write("events", "k", Some(homeless.as_bytes()), &cloud);
        engine.kick("after").wait_for("succeeded");
        all_ended(&engine, 2);
        assert_eq!(quarantined(&engine), 4);
        nothing_is_wrong(&engine, &Expected::new());
        // What is kept of it survives a restart, and it is not read again.
        engine.kill9().restart().kick("later").wait_for("succeeded");
        all_ended(&engine, 3);
        assert_eq!(quarantined(&engine), 4);
        assert!(fs::metadata(engine.ledger()).is_ok());
    });
}
