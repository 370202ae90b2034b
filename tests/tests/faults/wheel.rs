//! The workflow that turns in every scenario, and the book in which a scenario notes what it was promised.

use std::collections::BTreeSet;

use kickwheel_tests::{
    checker::{self, Expected, Known},
    harness::{Engine, KICK, send},
    repo::Repo,
    wait::until,
};

/// Two tasks side by side, a plugin, a job after it: each kind of work, and results that depend on each other. A push and
/// an event start it. The last job takes a moment, so that kills also meet it running.
pub const WHEEL: &str = r#"
version: 1
name: wheel
on:
  event: {type: dev.example.kick}
  git.push: {repo: wheel}
steps:
  turn:
    matrix: {n: [1, 2]}
    env: {N: "${{ matrix.n }}"}
    run: |
      echo "$KICKWHEEL_ATTEMPT" >> {ledger}
      echo "{\"name\": \"loss\", \"value\": 0.$N}" >> "$KICKWHEEL_METRICS"
      echo "$N" > out.txt
    outputs: {model: {path: out.txt}}
  choose:
    uses: best-of
    with: {candidates: "${{ steps.turn.tasks }}", metric: loss}
  told:
    needs: [choose]
    run: |
      echo "$KICKWHEEL_ATTEMPT" >> {ledger}
      sleep 0.1
"#;

/// A second one for the same events, of one job.
pub const RIM: &str = r#"
version: 1
name: rim
on: {event: {type: dev.example.kick}}
steps:
  roll: {run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
"#;

/// In its place: the same as a job in a container, which cannot reach the ledger and says in its log what it is.
pub const CONTAINED_RIM: &str = r#"
version: 1
name: rim
on: {event: {type: dev.example.kick}}
steps:
  roll:
    image: kickwheel-test/busybox:1
    run: echo "began $KICKWHEEL_ATTEMPT"
  rest:
    needs: [roll]
    image: kickwheel-test/busybox:1
    run: |
      echo "began $KICKWHEEL_ATTEMPT"
      sleep 0.2
"#;

/// What the end of [`RIM`] starts: an event that a run causes goes by the spool to the bus.
pub const HUB: &str = r#"
version: 1
name: hub
on: {event: {type: dev.kickwheel.run.finished, where: 'event.data.workflow == "rim"'}}
steps:
  spin: {run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
"#;

/// An engine with a bound repository that holds [`WHEEL`], with [`RIM`] applied, and what it owes us.
pub struct Scenario {
    pub engine: Engine,
    pub repo: Repo,
    pub expected: Expected,
    sent: u32,
    chained: bool,
}

impl Scenario {
    /// Ready, with one push already done.
    pub fn begin(mut engine: Engine) -> Self {
        let repo = Repo::make(&engine.folder().join("git"), "wheel");
        engine.bind(&repo, "wheel").apply(RIM);
        let wheel = engine.fill(WHEEL);
        let first = repo.push(&[(".kickwheel/wheel.yaml", &wheel)]);
        engine.pushed(&first).wait_for("succeeded");
        let mut scenario = Self { engine, repo, expected: Expected::new(), sent: 0, chained: false };
        scenario.expect_push(first);
        scenario
    }

    /// The same, with [`HUB`] behind [`RIM`].
    pub fn begin_chained(engine: Engine) -> Self {
        let mut scenario = Self::begin(engine);
        scenario.engine.apply(HUB);
        scenario.chained = true;
        scenario
    }

    /// The same, with [`CONTAINED_RIM`] for [`RIM`].
    pub fn begin_contained(engine: Engine) -> Self {
        let mut scenario = Self::begin(engine);
        scenario.engine.apply(CONTAINED_RIM);
        scenario
    }

    fn expect_push(&mut self, commit: String) {
        self.expected.insert(Known::Commit(commit), BTreeSet::from(["wheel".to_owned()]));
    }

    /// Pushes a change. Git takes it whether or not the engine lives, so it is owed from now on.
    pub fn push(&mut self) {
        self.sent += 1;
        let text = format!("{}\n", self.sent);
        let commit = self.repo.push(&[("data.txt", &text)]);
        self.expect_push(commit);
    }

    /// Sends an event once, as a sender does who may hear nothing. Every event is owed: it is sent again in
    /// [`Self::settle`], under the same id, until it is accepted.
    pub fn send(&mut self) {
        self.sent += 1;
        let id = format!("{KICK}-{}", self.sent);
        // The engine may die while it answers: that is what we are here for.
        let _ = send(self.engine.api(), &id);
        self.owe(&id);
    }

    /// Sends an event that must be answered well at once.
    pub fn send_heard(&mut self) {
        self.sent += 1;
        let id = format!("{KICK}-{}", self.sent);
        let answer = send(self.engine.api(), &id);
        assert!(answer.as_ref().is_ok_and(|a| a.status == 202), "{answer:?}\n{}", self.engine.log());
        self.owe(&id);
    }

    /// Sends every event once more.
    pub fn send_again(&self) {
        for known in self.expected.keys() {
            if let Known::Id(id) = known {
                let answer = send(self.engine.api(), id);
                assert!(answer.as_ref().is_ok_and(|a| a.status == 202), "{answer:?}");
            }
        }
    }

    /// An event that somebody else has sent.
    pub fn owe(&mut self, id: &str) {
        self.expected.insert(Known::Id(id.to_owned()), BTreeSet::from(["wheel".to_owned(), "rim".to_owned()]));
    }

    /// Runs that are owed: those of events from outside, and those that the end of a [`RIM`] starts.
    fn runs_owed(&self) -> usize {
        let rims = self.expected.values().filter(|started| started.contains("rim")).count();
        self.expected.values().map(BTreeSet::len).sum::<usize>() + if self.chained { rims } else { 0 }
    }

    /// Sends again what may not have been heard, and waits until everything has come to rest.
    pub fn settle(&mut self) {
        for known in self.expected.keys() {
            if let Known::Id(id) = known {
                until(&format!("event {id} is accepted"), || {
                    send(self.engine.api(), id).ok().filter(|a| a.status == 202)
                });
            }
        }
        let owed = self.runs_owed();
        until(&format!("{owed} runs have ended"), || {
            let runs = self.engine.runs();
            let ended = runs.iter().filter(|run| !run["ended_at"].is_null()).count();
            (runs.len() >= owed && ended == runs.len()).then_some(())
        });
        self.engine.wait_for_bus();
    }

    /// Comes to rest with every run succeeded, and has the checker look.
    pub fn check(&mut self) {
        self.settle();
        assert!(self.engine.runs().iter().all(|run| run["state"] == "succeeded"), "{:#?}", self.engine.runs());
        self.check_ended();
    }

    /// Comes to rest, and has the checker look. A run may have failed, if it was by its own program.
    pub fn check_ended(&mut self) {
        self.settle();
        for run in self.engine.runs().iter().filter(|run| run["state"] != "succeeded") {
            let run = self.engine.api().get(&format!("runs/{}", run["id"].as_str().expect("a run has an id")));
            let tasks =
                run["steps"].as_array().into_iter().flatten().flat_map(|s| s["tasks"].as_array().into_iter().flatten());
            let mut reasons =
                tasks.filter(|t| t["state"] == "failed").map(|t| t["reason"].as_str().unwrap_or_default());
            assert!(reasons.all(|reason| reason.contains("the program ended with code")), "{run:#}");
        }
        let violations = self.violations();
        assert!(violations.is_empty(), "{}\n{}", list(&violations), self.engine.log());
    }

    /// What the checker finds now.
    pub fn violations(&self) -> Vec<checker::Violation> {
        let mut expected = self.expected.clone();
        if self.chained {
            for run in self.engine.runs().iter().filter(|run| run["workflow"] == "rim") {
                let id = run["id"].as_str().expect("a run has an id");
                expected.insert(Known::Id(format!("{id}:finished")), BTreeSet::from(["hub".to_owned()]));
            }
        }
        check_with_containers(&self.engine, &expected)
    }
}

/// Has the checker look, with what containers have said in their logs beside what other jobs have written.
pub fn check_with_containers(engine: &Engine, expected: &Expected) -> Vec<checker::Violation> {
    let mut lines = engine.ledger_lines();
    // One log for each attempt: a program that began twice says so twice in it.
    let attempts = std::fs::read_dir(engine.data().join("pool/docker/attempts"));
    for attempt in attempts.into_iter().flatten().flatten() {
        let log = std::fs::read(attempt.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        lines.extend(log.lines().filter_map(|line| line.strip_prefix("began ")).map(str::to_owned));
    }
    let ledger = engine.folder().join("ledger.all");
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&ledger, text).expect("a file can be written");
    checker::check(&engine.database_url(), &ledger, expected)
}

/// Violations, a line each.
pub fn list(violations: &[checker::Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
