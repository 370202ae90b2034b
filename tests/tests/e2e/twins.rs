//! One push that several channels report is one run, in whatever order they report it; the same commits again are another
//! push.
//!
//! The repository, its hook and the mirror are real. What a webhook and a poll report is put on the bus as their channels
//! would: with the channel's name and ids of its own.

use std::{fs, path::PathBuf};

use kickwheel_tests::{
    checker::{self, Expected},
    harness::{Database, Engine, Setup, on_kafka},
    kafka::Topics,
    repo::{Repo, git},
    wait::until,
};
use serde_json::json;

const WHEEL: &str = r#"
version: 1
name: wheel
on: {git.push: {repo: wheel}}
steps:
  turn: {run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
"#;

/// Who reports.
const CHANNELS: [&str; 3] = ["hook", "webhook:forge", "poll"];

struct Story {
    engine: Engine,
    repo: Repo,
    topics: Topics,
    told: u32,
}

impl Story {
    fn begin(database: Database, topics: Topics) -> Self {
        let mut engine = Engine::with(database, Setup::default().with_kafka(&topics));
        let repo = Repo::make(&engine.folder().join("git"), "wheel");
        engine.bind(&repo, "wheel");
        let workflow = engine.fill(WHEEL);
        let first = repo.push(&[(".kickwheel/wheel.yaml", &workflow)]);
        engine.pushed(&first).wait_for("succeeded");
        // From here on the tests say who reports what.
        fs::remove_dir_all(repo.bare.join("hooks")).expect("there are hooks");
        let mut story = Self { engine, repo, topics, told: 0 };
        for channel in ["webhook:forge", "poll"] {
            story.tell(channel, None, &first);
        }
        story.rests_with(1);
        story
    }

    /// Moves `main` on; before and after.
    fn push(&self, text: &str) -> (String, String) {
        let before = self.repo.head();
        (before, self.repo.push(&[("data.txt", text)]))
    }

    /// Reports a move of `main`: the hook by its spool, the others by the bus.
    fn tell(&mut self, channel: &str, before: Option<&str>, after: &str) {
        self.told += 1;
        if channel == "hook" {
            return self.spool(before.unwrap_or(&"0".repeat(40)), after);
        }
        let ty = if before.is_some() { "updated" } else { "created" };
        self.topics.tell(
            channel,
            json!({
                "specversion": "1.0",
                "id": format!("{channel}-{}", self.told),
                "source": self.repo.bare,
                "subject": "refs/heads/main",
                "type": format!("dev.kickwheel.git.branch.{ty}"),
                "data": {"repo": "wheel", "provider": "git", "branch": "main", "before": before, "after": after},
            }),
        );
    }

    /// Writes what the post-receive hook writes.
    fn spool(&self, before: &str, after: &str) {
        let spool: PathBuf = self.engine.data().join("spool/git");
        let delivery = format!("delivery-{}", self.told);
        let line = hex::encode(format!("{before} {after} refs/heads/main"));
        let push = json!({
            "delivery": delivery,
            "repo": "wheel",
            "time": "2026-01-31T12:00:00Z",
            "lines_hex": [line],
            "push_options": [],
        });
        let name = format!("{:013}-{delivery}.json", self.told);
        fs::write(spool.join(format!(".{name}")), push.to_string()).expect("a file can be written");
        fs::rename(spool.join(format!(".{name}")), spool.join(name)).expect("a file can be renamed");
    }

    /// Everything that was reported is decided, and there are so many runs.
    fn rests_with(&self, runs: usize) {
        until("the spool is read", || {
            let left = fs::read_dir(self.engine.data().join("spool/git")).ok()?.flatten();
            left.filter(|entry| entry.path().is_file()).count().eq(&0).then_some(())
        });
        self.engine.wait_for_bus();
        until("every event is decided", || {
            let events = self.engine.api().get("events?limit=1000");
            events["items"].as_array()?.iter().all(|e| e["state"] == "decided").then_some(())
        });
        let found = self.engine.runs();
        assert_eq!(found.len(), runs, "{found:#?}\n{}", self.engine.log());
        until("all have ended", || self.engine.runs().iter().all(|run| run["state"] == "succeeded").then_some(()));
    }

    fn ends(self) {
        let violations = checker::check(&self.engine.database_url(), &self.engine.ledger(), &Expected::new());
        assert_eq!(violations, []);
    }
}

#[test]
fn three_channels_in_every_order_make_one_run_of_a_push() {
    on_kafka(|database, topics| {
        let mut story = Story::begin(database, topics);
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for (round, order) in (1..).zip(orders) {
            let (before, after) = story.push(&format!("{round}\n"));
            for (told, channel) in order.into_iter().enumerate() {
                story.tell(CHANNELS[channel], Some(&before), &after);
                // Every second round is told at once, the others one after the other.
                if round % 2 == 0 || told == 2 {
                    story.rests_with(1 + round);
                }
            }
        }
        story.ends();
    });
}

#[test]
fn back_and_forth_is_as_many_runs_as_pushes() {
    on_kafka(|database, topics| {
        let mut story = Story::begin(database, topics);
        let (a, b) = story.push("b\n");
        let work = story.repo.work.clone();
        let to = |commit: &str| git(&work, &["push", "-q", "--force", "origin", &format!("{commit}:refs/heads/main")]);
        // A to B, back to A, and to B again: three pushes. Each is told by the hook and the webhook.
        for (round, (before, after)) in (1..).zip([(&a, &b), (&b, &a), (&a, &b)]) {
            to(after);
            story.tell("hook", Some(before), after);
            story.rests_with(1 + round);
            story.tell("webhook:forge", Some(before), after);
            story.rests_with(1 + round);
        }
        story.ends();
    });
}

#[test]
fn a_poll_that_saw_two_pushes_at_once_adds_nothing() {
    on_kafka(|database, topics| {
        let mut story = Story::begin(database, topics);
        let (first, second) = story.push("b\n");
        let (_, third) = story.push("c\n");
        story.tell("hook", Some(&first), &second);
        story.tell("hook", Some(&second), &third);
        story.rests_with(3);
        story.tell("poll", Some(&first), &third);
        story.rests_with(3);
        // Told the other way round, the whole is one run, and its parts add nothing.
        let (third, fourth) = story.push("d\n");
        let (_, fifth) = story.push("e\n");
        story.tell("poll", Some(&third), &fifth);
        story.rests_with(4);
        story.tell("hook", Some(&third), &fourth);
        story.tell("hook", Some(&fourth), &fifth);
        story.rests_with(4);
        story.ends();
    });
}

#[test]
fn a_push_told_half_before_a_kill_and_half_after_it_is_one_run() {
    on_kafka(|database, topics| {
        let mut story = Story::begin(database, topics);
        let pairs = [[0, 1], [1, 0], [0, 2], [2, 0], [1, 2], [2, 1]];
        let faults = ["ingest.decide.before:1", "bus.offset.before:1", "bus.offset.after:1"];
        for (round, pair) in (1..).zip(pairs) {
            story.engine.kill9().restart_with_fault(Some(faults[round % faults.len()]));
            let (before, after) = story.push(&format!("{round}\n"));
            story.tell(CHANNELS[pair[0]], Some(&before), &after);
            story.engine.wait_for_death();
            story.tell(CHANNELS[pair[1]], Some(&before), &after);
            story.engine.restart();
            story.rests_with(1 + round);
        }
        story.ends();
    });
}
