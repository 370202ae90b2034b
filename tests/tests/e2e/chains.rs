//! Runs that start runs: by their end, by a dataset that they publish, by a model that they promote; and where that ends.

use kickwheel_tests::{
    checker::{self, Expected},
    harness::{Database, Engine, Setup, on_each_database, skip},
    kafka::{Topics, no_broker},
    wait::until,
};

/// Each story on both buses, with each database.
fn on_each_bus(story: impl Fn(&mut Engine) + Sync) {
    let told = |database: Database, setup: Setup| {
        let mut engine = Engine::with(database, setup);
        story(&mut engine);
        engine.wait_for_bus();
        assert_eq!(checker::check(&engine.database_url(), &engine.ledger(), &Expected::new()), []);
    };
    on_each_database(|database| {
        std::thread::scope(|scope| {
            let embedded = scope.spawn(|| told(database, Setup::default()));
            match no_broker() {
                Some(reason) => skip(&reason),
                None => told(database, Setup::default().with_kafka(&Topics::fresh())),
            }
            if let Err(panic) = embedded.join() {
                std::panic::resume_unwind(panic);
            }
        });
    });
}

/// How many runs each workflow has, once nothing is under way any more.
fn at_rest(engine: &Engine, expected: &[(&str, usize)]) {
    let count = |runs: &[serde_json::Value], name: &str| runs.iter().filter(|run| run["workflow"] == name).count();
    let total: usize = expected.iter().map(|(_, n)| n).sum();
    let runs = until(&format!("{expected:?} have run"), || {
        let runs = engine.runs();
        (runs.len() >= total && runs.iter().all(|run| !run["ended_at"].is_null())).then_some(runs)
    });
    for (name, n) in expected {
        assert_eq!(count(&runs, name), *n, "runs of {name} of {runs:#?}");
    }
    // What the last ones caused is decided, and started nothing.
    engine.wait_for_bus();
    until("every event is decided", || {
        let events = engine.api().get("events?limit=1000");
        events["items"].as_array()?.iter().all(|e| e["state"] == "decided").then_some(())
    });
    assert_eq!(engine.runs().len(), total, "{:#?}", engine.runs());
}

#[test]
fn a_finished_run_a_dataset_and_a_promoted_model_start_what_waits_for_them() {
    const FIRST: &str = r#"
version: 1
name: first
on: {event: {type: dev.example.kick}}
steps:
  make:
    run: |
      echo "$KICKWHEEL_ATTEMPT" >> {ledger}
      echo one > out.txt
    outputs: {data: {path: out.txt, dataset: wheel/data}}
  promote:
    uses: model-promote
    with: {model: "${{ steps.make.outputs.data }}", name: wheel, stage: production}
"#;
    let waits = |name: &str, on: &str| {
        format!(
            "version: 1\nname: {name}\non: {on}\nsteps:\n  turn: {{run: 'echo \"$KICKWHEEL_ATTEMPT\" >> {{ledger}}'}}\n"
        )
    };
    on_each_bus(|engine| {
        let event = |ty: &str, and: &str| format!("{{event: {{type: dev.kickwheel.{ty}{and}}}}}");
        let finished = event("run.finished", ", where: 'event.data.workflow == \"first\"'");
        engine
            .apply(&waits("after", &finished))
            .apply(&waits("never", &event("run.finished", ", where: 'event.data.workflow == \"other\"'")))
            .apply(&waits("on-data", "{dataset.changed: {dataset: wheel/data}}"))
            .apply(&waits("on-model", &event("model.promoted", ", where: 'event.data.model == \"wheel\"'")))
            .submit(FIRST)
            .wait_for("succeeded");
        at_rest(engine, &[("first", 1), ("after", 1), ("on-data", 1), ("on-model", 1), ("never", 0)]);
        let runs = engine.runs();
        let run = runs.iter().find(|run| run["workflow"] == "first").expect("it has run");
        let after = runs.iter().find(|run| run["workflow"] == "after").expect("it has run");
        let id = run["id"].as_str().expect("a run has an id");
        assert_eq!(after["event_id"], format!("{id}:finished"));
    });
}

#[test]
fn a_run_does_not_start_its_own_workflow_unless_that_is_said() {
    let workflow = |name: &str, own: &str| {
        format!(
            "version: 1\nname: {name}\non:\n  event: [{{type: dev.example.kick}}, {{type: \
             dev.kickwheel.run.finished{own}}}]\nsteps:\n  turn: {{run: 'echo \"$KICKWHEEL_ATTEMPT\" >> {{ledger}}'}}\n"
        )
    };
    on_each_bus(|engine| {
        // Another's end starts it, its own does not, nor does an end that it led to.
        engine.apply(&workflow("other", "")).submit(&workflow("once", "")).wait_for("succeeded");
        at_rest(engine, &[("once", 2), ("other", 2)]);
    });
}

#[test]
fn a_chain_of_runs_ends_at_sixteen() {
    const WHEEL: &str = r#"
version: 1
name: wheel
on:
  event: [{type: dev.example.kick}, {type: dev.kickwheel.run.finished, self: true}]
steps:
  turn: {run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
"#;
    on_each_bus(|engine| {
        engine.submit(WHEEL);
        at_rest(engine, &[("wheel", 16)]);
        let explained = engine.api().get("explain");
        let said = explained.to_string();
        assert!(said.contains("16 is the limit"), "{explained:#}");
    });
}
