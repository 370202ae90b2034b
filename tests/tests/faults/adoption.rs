//! Jobs outlive the engine: they are neither killed nor repeated with it, however it goes.

use std::{fs, time::Duration};

use kickwheel_tests::{
    checker,
    harness::{Engine, on_each_database},
    process::{self, Identity},
    wait::until,
};

/// A job that says who it is and waits to be let go.
const LONG: &str = r#"
version: 1
name: wheel
on: {event: {type: dev.example.kick}}
steps:
  long:
    run: |
      echo "$KICKWHEEL_ATTEMPT" >> {ledger}
      echo $$ > {folder}/pid.new
      mv {folder}/pid.new {folder}/pid
      while [ ! -e {folder}/gate ]; do sleep 0.05; done
      echo done > out.txt
    outputs: {out: {path: out.txt}}
  after: {needs: [long], run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
"#;

/// How long the engine may take to end after SIGTERM: its own limit is ten seconds.
const DRAIN: Duration = Duration::from_secs(12);

fn job(engine: &Engine) -> Identity {
    let pid = until("the job has said its pid", || fs::read_to_string(engine.folder().join("pid")).ok());
    process::identity(pid.trim().parse().expect("a pid is a number")).expect("the job lives")
}

fn is_followed(engine: &Engine) {
    until("the job is followed again", || (engine.task("long", 0)["state"] == "running").then_some(()));
}

fn end_well(engine: &mut Engine) {
    engine.open_gate("gate").wait_for("succeeded");
    assert_eq!(engine.ledger_lines().len(), 2, "no task was repeated");
    assert_eq!(engine.task("long", 0)["attempt"], 1);
    let violations = checker::check(&engine.database_url(), &engine.ledger(), &checker::Expected::new());
    assert_eq!(violations, []);
}

#[test]
fn a_running_job_is_adopted_after_each_of_three_kills() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.submit(LONG).wait_for_ledger(1);
        let before = job(&engine);
        for _ in 0..3 {
            engine.kill9().restart();
            assert_eq!(process::identity(before.pid), Some(before), "the same process, not another one");
            is_followed(&engine);
        }
        end_well(&mut engine);
    });
}

#[test]
fn a_job_that_ends_while_the_engine_is_dead_is_neither_lost_nor_repeated() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.submit(LONG).wait_for_ledger(1);
        let before = job(&engine);
        engine.kill9().open_gate("gate");
        until("the job has ended", || process::identity(before.pid).is_none().then_some(()));
        engine.restart();
        end_well(&mut engine);
    });
}

#[test]
fn sigterm_drains_in_time_and_the_job_goes_on() {
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        engine.submit(LONG).wait_for_ledger(1);
        let before = job(&engine);
        let status = engine.terminate(DRAIN);
        assert_eq!(status.code(), Some(0), "{}", engine.log());
        assert_eq!(process::identity(before.pid), Some(before), "the job goes on");
        engine.restart();
        is_followed(&engine);
        assert_eq!(process::identity(before.pid), Some(before), "and is adopted");
        end_well(&mut engine);
    });
}
