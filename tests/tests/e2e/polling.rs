//! Polling finds what no hook tells, once, and never tells again what a hook has told.

use std::{collections::BTreeMap, fs, path::PathBuf};

use kickwheel_tests::{
    harness::{Database, Engine, Setup, on_each_database},
    repo::{Repo, git},
    wait::until,
};
use serde_json::{Value, json};

const WHEEL: &str = r#"
version: 1
name: wheel
on: {git.push: {repo: wheel}}
steps:
  turn: {run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
"#;

struct Story {
    engine: Engine,
    repo: Repo,
    hooks: PathBuf,
}

impl Story {
    /// A repository with a workflow on `main` and two more branches, bound, polled every second, and with our hook.
    fn begin(database: Database, grace: &str) -> Self {
        let setup = Setup { arguments: vec!["--poll-grace".into(), grace.into()], ..Setup::default() };
        let engine = Engine::with(database, setup);
        let repo = Repo::make(&engine.folder().join("git"), "wheel");
        repo.push(&[(".kickwheel/wheel.yaml", &engine.fill(WHEEL))]);
        git(&repo.work, &["push", "-q", "origin", "main:one", "main:two"]);
        let bound = engine.api().post("repos", &json!({"url": repo.bare, "name": "wheel", "poll_ms": 1000}));
        assert_eq!((&bound["hook"], &bound["poll_ms"]), (&json!(true), &json!(1000)));
        let hooks = repo.bare.join("hooks");
        Self { engine, repo, hooks }
    }

    /// Somebody removes the hook by hand.
    fn remove_hook(&self) -> &Self {
        fs::rename(&self.hooks, self.repo.bare.join("away")).expect("there are hooks");
        self
    }

    /// Tells of a push as the hook would have.
    fn tell_by_hook(&self, before: &str, after: &str) {
        let line = format!("{before} {after} refs/heads/main\n");
        let hook = self.repo.bare.join("away/post-receive");
        let file = self.engine.folder().join("stdin");
        fs::write(&file, line).expect("a file can be written");
        let status = std::process::Command::new("sh")
            .arg(hook)
            .current_dir(&self.repo.bare)
            .stdin(fs::File::open(file).expect("it was written"))
            .status();
        assert!(status.expect("the hook can be started").success());
    }

    /// Events of refs: (ref, before, after) to the states of their records.
    fn moves(&self) -> Vec<(String, Value, Value, Value)> {
        let events = self.engine.api().get("events?limit=1000");
        let items = events["items"].as_array().expect("a list");
        let told = items.iter().rev().map(|item| {
            let (event, data) = (&item["event"], &item["event"]["data"]);
            let subject = event["subject"].as_str().unwrap_or_default().to_owned();
            (subject, data["before"].clone(), data["after"].clone(), item["state"].clone())
        });
        told.collect()
    }

    /// Waits until everything is decided, and until the poller has looked again and found nothing more.
    fn rests(&self) -> Vec<(String, Value, Value, Value)> {
        // A branch that is pushed now is told after everything that lies before it.
        let name = format!("refs/heads/rest-{}", self.moves().len());
        git(&self.repo.work, &["push", "-q", "origin", &format!("main:{name}")]);
        until("the poller has looked at everything", || {
            let moves = self.moves();
            let seen = moves.iter().any(|(subject, ..)| *subject == name);
            let decided = moves.iter().all(|(.., state)| state == "decided");
            (seen && decided)
                .then(|| moves.into_iter().filter(|(subject, ..)| !subject.starts_with("refs/heads/rest-")).collect())
        })
    }

    /// Runs by commit, those of the branches with which the story waits left out.
    fn runs(&self) -> BTreeMap<String, usize> {
        let mut runs = BTreeMap::new();
        for run in self.engine.runs() {
            if run["branch"].as_str().is_some_and(|b| b.starts_with("rest-")) {
                continue;
            }
            *runs.entry(run["commit"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        runs
    }

    fn push(&self, text: &str) -> String {
        self.repo.push(&[("data.txt", text)])
    }

    /// Moves `main` to a commit, by force if need be.
    fn push_commit(&self, commit: &str) {
        git(&self.repo.work, &["reset", "-q", "--hard", commit]);
        git(&self.repo.work, &["push", "-q", "--force", "origin", "main"]);
    }

    fn wait_for_moves(&self, count: usize) {
        until(&format!("{count} moves are decided"), || {
            (self.moves().iter().filter(|(.., state)| state == "decided").count() >= count).then_some(())
        });
    }
}

#[test]
fn without_its_hook_pushes_are_found_once_and_old_branches_never() {
    on_each_database(|database| {
        let story = Story::begin(database, "1s");
        story.remove_hook();
        let first = story.repo.head();
        let commit = story.push("one");
        git(&story.repo.work, &["push", "-q", "origin", "main:three", ":one"]);
        let moves = story.rests();
        let found = |name: &str| -> Vec<(Value, Value)> {
            moves.iter().filter(|(n, ..)| n == name).map(|(_, b, a, _)| (b.clone(), a.clone())).collect()
        };
        assert_eq!(found("refs/heads/main"), [(json!(first), json!(commit))]);
        assert_eq!(found("refs/heads/three"), [(Value::Null, json!(commit))]);
        assert_eq!(found("refs/heads/one"), [(json!(first), Value::Null)]);
        assert_eq!(moves.len(), 3, "{moves:#?}");
        // `main` and `three`, and nothing for what was there before.
        assert_eq!(story.runs(), BTreeMap::from([(commit, 2)]));
    });
}

#[test]
fn hook_and_poll_together_are_one_run_each_way_round() {
    on_each_database(|database| {
        // Without any grace the poll is as quick as it can be.
        let story = Story::begin(database, "0s");
        let pushed: Vec<String> = (0..5).map(|n| story.push(&format!("both {n}"))).collect();
        story.rests();
        assert_eq!(story.runs(), pushed.iter().map(|commit| (commit.clone(), 1)).collect());
        story.remove_hook();
        let before = story.repo.head();
        let polled = story.push("poll first");
        until("the poll has told", || (story.runs().get(&polled) == Some(&1)).then_some(()));
        story.tell_by_hook(&before, &polled);
        until("the hook has told", || {
            let told =
                story.moves().into_iter().filter(|(_, _, after, state)| after == &json!(polled) && state == "decided");
            (told.count() == 2).then_some(())
        });
        story.rests();
        assert_eq!(story.runs().get(&polled), Some(&1));
    });
}

#[test]
fn to_and_fro_is_three_pushes_with_and_without_the_hook() {
    on_each_database(|database| {
        for has_hook in [true, false] {
            let story = Story::begin(database, "0s");
            if !has_hook {
                story.remove_hook();
            }
            let first = story.repo.head();
            let second = story.repo.commit(&[("data.txt", "there")]);
            for (count, commit) in [&second, &first, &second].into_iter().enumerate() {
                story.push_commit(commit);
                // A poll sees states, so each must stand for a while.
                story.wait_for_moves(count + 1);
            }
            story.rests();
            assert_eq!(story.runs(), BTreeMap::from([(first, 1), (second, 2)]), "with a hook: {has_hook}");
        }
    });
}

#[test]
fn what_is_pushed_while_the_engine_is_down_is_found_once_through_kills() {
    on_each_database(|database| {
        let mut story = Story::begin(database, "1s");
        story.remove_hook();
        let mut pushed = Vec::new();
        for fault in ["poll.tell.before:1", "poll.tell.after:1"] {
            story.engine.kill9();
            pushed.push(story.push(fault));
            if story.engine.try_restart(Some(fault)).is_ok() {
                story.engine.wait_for_death();
            }
            story.engine.restart();
            until("it is found", || story.runs().contains_key(pushed.last()?).then_some(()));
        }
        story.rests();
        assert_eq!(story.runs(), pushed.into_iter().map(|commit| (commit, 1)).collect());
    });
}
