//! Kafka away, Kafka and the database away, the topic made anew, and Postgres restarted while events come in.

use std::time::Duration;

use kickwheel_tests::{
    api::Answer,
    cluster::Cluster,
    harness::{Database, Engine, Setup, on_kafka, send, skip},
    kafka::{OwnBroker, Topics, no_broker},
    wait::{look_for, until},
};
use serde_json::{Value, json};

use crate::wheel::Scenario;

/// Events that come in while something is away.
const MEANWHILE: usize = 12;

/// The events topic holds the events of one lane in the order of their ids, which count.
fn in_order(topics: &Topics) {
    let mut sent: Vec<u32> = Vec::new();
    for record in topics.records("events") {
        let event = record.json();
        let id = event["id"].as_str().unwrap_or_default().to_owned();
        if event["source"] != "/tests" {
            continue;
        }
        let number = id.rsplit('-').next().and_then(|n| n.parse().ok()).expect("ids of tests end with a number");
        // One of unknown outcome may be there twice; its first place counts.
        if !sent.contains(&number) {
            sent.push(number);
        }
    }
    assert!(sent.is_sorted(), "{sent:?}");
}

#[test]
fn what_comes_while_kafka_is_away_is_kept_and_sent_in_order() {
    if let Some(reason) = no_broker() {
        return skip(&reason);
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    let broker = OwnBroker::start(folder.path());
    kickwheel_tests::harness::on_each_database(|database| {
        // Each database has the broker for itself, one after the other.
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let topics = Topics::on(&broker.address);
        let mut scenario = Scenario::begin_chained(Engine::with(database, Setup::default().with_kafka(&topics)));
        scenario.send_heard();
        broker.stop();
        for _ in 0..MEANWHILE {
            scenario.send_heard();
        }
        scenario.push();
        let bus = scenario.engine.api().get("bus");
        assert_eq!(bus["mode"], "spool", "{bus:#}");
        assert!(bus["spooled"].as_u64().is_some_and(|n| n >= MEANWHILE as u64), "{bus:#}");
        let doctor = scenario.engine.api().get("doctor").to_string();
        assert!(doctor.contains("bring Kafka back"), "{doctor}");
        // What is kept outlives the engine.
        scenario.engine.kill9().restart();
        scenario.send_heard();
        broker.again();
        until("the spool is empty and ingress is direct again", || {
            let bus = scenario.engine.api().get("bus");
            (bus["mode"] == "direct" && bus["spooled"] == 0).then_some(())
        });
        scenario.send_heard();
        scenario.check();
        in_order(&topics);
    });
}

static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn of_three_brokers_one_may_fail_and_with_two_gone_ingress_spools() {
    if let Some(reason) = no_broker() {
        return skip(&reason);
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    let broker = OwnBroker::start(folder.path());
    let cluster = [broker.address.clone(), broker.join(2), broker.join(3)].join(",");
    let topics = Topics::on(&cluster);
    until("all three know each other", || (topics.brokers() == 3).then_some(()));
    let mut scenario = Scenario::begin(Engine::with(Database::Sqlite, Setup::default().with_kafka(&topics)));
    scenario.send_heard();
    let doctor = |scenario: &Scenario| scenario.engine.api().get("doctor").to_string();
    until("three copies are in order", || {
        let said = doctor(&scenario);
        (!said.contains("copies") && !said.contains("with fewer than")).then_some(())
    });
    broker.leave(2);
    for _ in 0..MEANWHILE {
        scenario.send_heard();
    }
    until("it is said that a copy is missing", || doctor(&scenario).contains("2 of 3").then_some(()));
    assert_eq!(scenario.engine.api().get("bus")["mode"], "direct", "two copies are enough");
    // The one that is left must not acknowledge alone.
    broker.leave(3);
    for _ in 0..MEANWHILE {
        scenario.send_heard();
    }
    assert_eq!(scenario.engine.api().get("bus")["mode"], "spool");
    scenario.engine.kill9().restart();
    broker.join(3);
    until("the spool is empty and ingress is direct again", || {
        let bus = scenario.engine.api().get("bus");
        (bus["mode"] == "direct" && bus["spooled"] == 0).then_some(())
    });
    scenario.send_heard();
    scenario.check();
    in_order(&topics);
}

#[test]
fn with_kafka_and_the_database_away_nothing_is_accepted_and_it_says_when_to_ask_again() {
    if let Some(reason) = no_broker() {
        return skip(&reason);
    }
    let folder = tempfile::Builder::new().prefix("kickwheel-cluster-").tempdir().expect("a folder can be made");
    open_to_all(folder.path());
    let place = folder.path().join("postgres");
    std::fs::create_dir(&place).expect("a folder can be made");
    let Some(mut cluster) = Cluster::make(&place) else {
        return skip("there are no programs of a Postgres server");
    };
    let broker = OwnBroker::start(folder.path());
    let topics = Topics::on(&broker.address);
    let setup = Setup { url: Some(cluster.url()), ..Setup::default() }.with_kafka(&topics);
    let mut scenario = Scenario::begin(Engine::with(Database::Postgres, setup));
    scenario.send_heard();
    let hook = json!({"kind": "cloudevents", "unsigned": true});
    scenario.engine.api().post("triggers", &json!({"name": "door", "config": hook}));
    assert_eq!(deliver(&scenario.engine, "hooked-1").status, 202);
    broker.stop();
    cluster.stop();
    let answer = deliver(&scenario.engine, "refused-hook");
    assert_eq!((answer.status, answer.retry_after.is_some()), (503, true), "{answer:?}");
    for n in 0..3 {
        let answer = send(scenario.engine.api(), &format!("refused-{n}")).expect("it answers");
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.retry_after.is_some(), "{answer:?}");
    }
    // What leads to the bus needs no database: the trigger is known from before.
    broker.again();
    until("the webhook is taken", || (deliver(&scenario.engine, "hooked-2").status == 202).then_some(()));
    cluster.start();
    scenario.engine.wait_for_health("ok");
    until("events are taken again", || {
        send(scenario.engine.api(), "taken-1").ok().filter(|answer| answer.status == 202)
    });
    scenario.owe("taken-1");
    scenario.check();
    let events = scenario.engine.api().get("events?limit=1000").to_string();
    assert!(!events.contains("refused-"), "what was refused is not there: {events}");
    assert!(events.contains("hooked-1") && events.contains("hooked-2"), "what was taken is: {events}");
}

/// An event that starts nothing, by a webhook.
fn deliver(engine: &Engine, id: &str) -> Answer {
    let event = json!({"specversion": "1.0", "id": id, "source": "/sender", "type": "com.example.thing"});
    let headers = [("content-type", "application/cloudevents+json")];
    engine.api().send_raw("/hooks/door", &headers, event.to_string()).expect("it answers")
}

#[test]
fn postgres_restarted_under_load_loses_and_doubles_nothing() {
    if let Some(reason) = no_broker() {
        return skip(&reason);
    }
    let folder = tempfile::Builder::new().prefix("kickwheel-cluster-").tempdir().expect("a folder can be made");
    open_to_all(folder.path());
    let place = folder.path().join("postgres");
    std::fs::create_dir(&place).expect("a folder can be made");
    let Some(mut cluster) = Cluster::make(&place) else {
        return skip("there are no programs of a Postgres server");
    };
    let topics = Topics::fresh();
    let setup = Setup { url: Some(cluster.url()), ..Setup::default() }.with_kafka(&topics);
    let mut scenario = Scenario::begin_chained(Engine::with(Database::Postgres, setup));
    for _ in 0..2 {
        for _ in 0..4 {
            scenario.send();
        }
        scenario.push();
        cluster.stop();
        // The bus takes what comes: it needs no database for that.
        scenario.send_heard();
        scenario.send_heard();
        cluster.start();
        let runs = scenario.engine.runs().len();
        look_for(Duration::from_secs(20), || (scenario.engine.runs().len() > runs).then_some(()));
    }
    scenario.engine.wait_for_health("ok");
    scenario.check();
}

/// The server's user must be able to enter.
fn open_to_all(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("the folder is ours");
}

#[test]
fn a_topic_that_was_made_anew_stops_its_partitions_until_somebody_says_how_to_go_on() {
    on_kafka(|database, topics| {
        let mut scenario = Scenario::begin_chained(Engine::with(database, Setup::default().with_kafka(&topics)));
        scenario.send_heard();
        scenario.settle();
        topics.recreate("events");
        let stream = topics.name("events");
        let stopped = |engine: &Engine| -> Option<Vec<Value>> {
            let bus = engine.api().get("bus");
            let items = bus["items"].as_array()?.clone();
            Some(items.into_iter().filter(|item| item["state"] == "stopped").collect())
        };
        until("both partitions are stopped", || stopped(&scenario.engine).filter(|items| items.len() == 2));
        // A restart does not go on by itself.
        scenario.engine.kill9().restart();
        assert_eq!(stopped(&scenario.engine).map(|items| items.len()), Some(2));
        let doctor = scenario.engine.api().get("doctor").to_string();
        let advice = format!("kickwheel bus reset {stream} --partition 0 --to earliest");
        assert!(doctor.contains(&advice), "{doctor}");
        let runs = scenario.engine.runs().len();
        // What comes meanwhile waits in the new topic, also what came before and is sent once more.
        scenario.send_heard();
        scenario.send_again();
        assert_eq!(scenario.engine.runs().len(), runs, "nothing is read while it is stopped");
        let reset = scenario.engine.cli(&["bus", "reset", &stream, "--to", "earliest"]);
        assert!(reset.status.success(), "{}", String::from_utf8_lossy(&reset.stderr));
        assert_eq!(stopped(&scenario.engine), Some(Vec::new()));
        scenario.check();
    });
}
