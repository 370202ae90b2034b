//! SIGKILL of the real process in every window between the receipt of an event and its result's arrival, several times
//! each, and at random moments under load.
//!
//! The windows of ingest, commit, acting and publishing are met exactly, by fault points; a running job is met by waiting
//! for its line in the ledger. All kills of a window happen to one engine, one after the other, with work left over from
//! the kill before: recovery must also survive its own death.

use std::time::{Duration, Instant};

use kickwheel_tests::{
    harness::{Database, Engine, Setup, is_long, on_each_database, on_kafka},
    kafka::Topics,
    wait::{look_for, until},
};

use crate::wheel::Scenario;

/// Kills at random moments.
const RANDOM_KILLS: u32 = 8;
/// Between two of them, in milliseconds: from the middle of the start to after the end of most runs.
const RANDOM_WAIT_MS: std::ops::Range<u64> = 5..900;
/// How many times more in the long suite.
const LONG: u32 = 6;
/// Events sent for one kill at most: enough for the highest count, and bounded, so that the work left over stays so too.
const EVENTS_PER_KILL: u32 = 16;
/// How long work may flow before a fault point must have been met.
const MEETING: Duration = Duration::from_secs(60);

/// Kills at each of `faults` in turn. Events and pushes come until the point was met.
fn check(faults: &'static [&'static str]) {
    on_each_database(|database| kill_all(&mut Scenario::begin(Engine::start(database)), faults));
}

/// The same with Kafka as the bus, and chained runs. Afterwards the runs topic tells every run to its end, in order.
fn check_kafka(faults: &'static [&'static str]) {
    on_kafka(|database, topics| {
        let engine = Engine::with(database, Setup::default().with_kafka(&topics));
        let mut scenario = Scenario::begin_chained(engine);
        kill_all(&mut scenario, faults);
        is_told(&scenario, &topics);
    });
}

/// Kills at each of `faults` in turn, comes to rest and has the checker look.
pub fn kill_all(scenario: &mut Scenario, faults: &[&str]) {
    scenario.engine.kill9();
    let rounds = if is_long() { LONG } else { 1 };
    for round in 0..rounds {
        for fault in faults {
            let (name, count) = fault.split_once(':').expect("a fault is name:count");
            let count: u32 = count.parse().expect("a count is a number");
            kill_at(scenario, &format!("{name}:{}", count + round));
        }
    }
    scenario.engine.restart();
    scenario.check();
}

/// Every run is told, each from its start to its end. That nothing is told differently or out of order, the reading of the
/// topic asserts itself.
fn is_told(scenario: &Scenario, topics: &Topics) {
    let runs = scenario.engine.runs();
    until("every run is told to its end", || {
        let told = topics.told();
        let whole = |types: &Vec<String>| {
            types.first().is_some_and(|t| t.contains("pipelinerun.queued"))
                && types.last().is_some_and(|t| t.contains("pipelinerun.finished"))
        };
        assert!(told.len() <= runs.len(), "runs are told that are not there");
        (told.len() == runs.len() && told.values().all(whole)).then_some(())
    });
}

fn kill_at(scenario: &mut Scenario, fault: &str) {
    if let Err(status) = scenario.engine.try_restart(Some(fault)) {
        // Work left over from before may meet the point while the engine is still coming up.
        use std::os::unix::process::ExitStatusExt as _;
        assert_eq!(status.signal(), Some(9), "{fault}\n{}", scenario.engine.log());
        return;
    }
    let begun = Instant::now();
    scenario.push();
    let mut events = EVENTS_PER_KILL;
    while !scenario.engine.has_ended() {
        assert!(begun.elapsed() < MEETING, "{fault} was never met\n{}", scenario.engine.log());
        if events > 0 {
            events -= 1;
            scenario.send();
        }
        let _ = look_for(Duration::from_millis(150), || scenario.engine.has_ended().then_some(()));
    }
}

#[test]
fn killed_while_an_event_comes_in() {
    check(&["ingest.accept.before:1", "ingest.accept.after:1", "ingest.accept.before:3", "ingest.accept.after:4"]);
}

#[test]
fn killed_between_accept_and_decide() {
    check(&["ingest.decide.before:1", "ingest.decide.before:2", "ingest.decide.before:4"]);
}

#[test]
fn killed_around_a_commit() {
    check(&[
        "store.commit.before:3",
        "store.commit.after:3",
        "store.commit.before:6",
        "store.commit.after:7",
        "store.commit.before:12",
        "store.commit.after:15",
    ]);
}

#[test]
fn killed_between_commit_and_act() {
    check(&[
        "ingest.start.before:1",
        "driver.act.before:1",
        "driver.act.before:4",
        "driver.act.after:3",
        "job.start.before:1",
        "job.start.after:1",
        "job.start.after:3",
    ]);
}

#[test]
fn killed_while_a_result_is_published() {
    check(&[
        "job.conclude.before:1",
        "job.conclude.after:1",
        "job.conclude.after:3",
        "report.tell.before:1",
        "report.tell.after:1",
        "report.tell.after:2",
    ]);
}

#[test]
fn killed_at_random_moments_under_load() {
    on_each_database(|database| {
        let seed = rand::random::<u64>();
        eprintln!("{database:?}: seed {seed}");
        let kills = RANDOM_KILLS * if is_long() { LONG } else { 1 };
        storm(database, seed, kills);
    });
}

fn storm(database: Database, seed: u64, kills: u32) {
    use rand::{Rng as _, SeedableRng as _};
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let mut scenario = Scenario::begin(Engine::start(database));
    for _ in 0..kills {
        let until = Instant::now() + Duration::from_millis(random.random_range(RANDOM_WAIT_MS));
        let mut bounded = 6;
        while Instant::now() < until && bounded > 0 {
            bounded -= 1;
            if random.random_ratio(1, 4) { scenario.push() } else { scenario.send() }
        }
        let _ = look_for(until.saturating_duration_since(Instant::now()), || None::<()>);
        scenario.engine.kill9().restart();
    }
    scenario.check();
}

#[test]
fn killed_on_the_way_to_kafka_and_back() {
    check_kafka(&[
        "bus.produce.before:1",
        "bus.produce.after:1",
        "bus.offset.before:1",
        "bus.offset.after:1",
        "bus.produce.before:3",
        "bus.produce.after:4",
        "bus.offset.before:2",
        "bus.offset.after:3",
        "bus.drain.sent:1",
        "bus.drain.sent:2",
    ]);
}

#[test]
fn killed_between_kafka_and_the_job() {
    check_kafka(&[
        "ingest.decide.before:1",
        "ingest.decide.before:3",
        "store.commit.before:3",
        "store.commit.after:3",
        "store.commit.before:9",
        "store.commit.after:12",
        "ingest.start.before:1",
        "driver.act.before:2",
        "driver.act.after:3",
        "job.start.before:1",
    ]);
}

#[test]
fn killed_between_the_job_and_the_runs_topic() {
    check_kafka(&[
        "job.start.after:2",
        "job.conclude.before:1",
        "job.conclude.after:2",
        "report.tell.before:1",
        "report.tell.after:1",
        "relay.sent:1",
        "relay.sent:2",
        "relay.sent:4",
        "bus.drain.sent:1",
        "bus.offset.after:2",
    ]);
}
