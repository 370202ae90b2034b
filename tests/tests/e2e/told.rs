//! One repository whose pushes are told by its real hook, by signed webhooks and by the real poller, each when a test wants
//! it: what `twins` and `polling` tell their stories with.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use kickwheel_tests::{
    forge::{Forge, Push},
    harness::{Database, Engine, Setup},
    kafka::Topics,
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

/// A move of a ref as its event tells it: ref, before, after, state of the record.
pub type Told = (String, Value, Value, Value);

/// The repository and the engine.
pub struct Story {
    pub engine: Engine,
    pub repo: Repo,
    /// Where the hook lies while nobody calls it.
    away: PathBuf,
    told: u32,
}

impl Story {
    /// A repository with a workflow on `main` and two more branches, bound, polled every second, and with our hook.
    pub fn begin(database: Database, topics: Option<&Topics>, grace: &str) -> Self {
        let setup = Setup { arguments: vec!["--poll-grace".into(), grace.into()], ..Setup::default() };
        let engine = Engine::with(database, setup.on_bus(topics));
        let repo = Repo::make(&engine.folder().join("git"), "wheel");
        repo.push(&[(".kickwheel/wheel.yaml", &engine.fill(WHEEL))]);
        git(&repo.work, &["push", "-q", "origin", "main:one", "main:two"]);
        let bound = engine.api().post("repos", &json!({"url": repo.bare, "name": "wheel", "poll_ms": 1000}));
        assert_eq!((&bound["hook"], &bound["poll_ms"]), (&json!(true), &json!(1000)));
        let away = repo.bare.join("away");
        Self { engine, repo, away, told: 0 }
    }

    /// From here on the hook tells nothing by itself.
    pub fn silence_hook(&self) -> &Self {
        fs::rename(self.repo.bare.join("hooks"), &self.away).expect("there are hooks");
        self
    }

    /// And from here on it does again.
    pub fn restore_hook(&self) -> &Self {
        fs::rename(&self.away, self.repo.bare.join("hooks")).expect("the hooks are away");
        self
    }

    /// Tells of a push of `main` as the hook would have.
    pub fn tell_by_hook(&self, before: &str, after: &str) {
        let file = self.engine.folder().join("stdin");
        fs::write(&file, format!("{before} {after} refs/heads/main\n")).expect("a file can be written");
        let status = Command::new("sh")
            .arg(self.away.join("post-receive"))
            .current_dir(&self.repo.bare)
            .stdin(Stdio::from(fs::File::open(file).expect("it was written")))
            .status();
        assert!(status.expect("the hook can be started").success());
    }

    /// Tells of a push of `main` by a webhook, as a delivery that was never made before. Tries until it is taken.
    pub fn tell_by(&mut self, forge: &Forge, before: &str, after: &str) {
        let delivery = self.delivery();
        until("the webhook is taken", || self.deliver(forge, &delivery, before, after).then_some(()));
    }

    /// The identity of a delivery that was never made before.
    pub fn delivery(&mut self) -> String {
        self.told += 1;
        format!("delivery-{}", self.told)
    }

    /// Tells of a push of `main` by a webhook; whether it was taken.
    pub fn deliver(&self, forge: &Forge, delivery: &str, before: &str, after: &str) -> bool {
        let push = Push { reference: "refs/heads/main", before: Some(before), after: Some(after) };
        forge.tell(&self.engine, delivery, push, &json!([])).is_ok_and(|answer| answer.status == 202)
    }

    /// Events of refs, oldest first.
    pub fn moves(&self) -> Vec<Told> {
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
    pub fn rests(&self) -> Vec<Told> {
        let is_live = !self.away.exists();
        // A branch that only the poller can tell of: it is told after everything that lies before it.
        let name = format!("refs/heads/rest-{}", self.moves().len());
        if is_live {
            self.silence_hook();
        }
        git(&self.repo.work, &["push", "-q", "origin", &format!("HEAD:{name}")]);
        if is_live {
            self.restore_hook();
        }
        let moves = until("the poller has looked at everything", || {
            let moves = self.moves();
            let seen = moves.iter().any(|(subject, ..)| *subject == name);
            let decided = moves.iter().all(|(.., state)| state == "decided");
            (seen && decided && self.spool_is_empty()).then_some(moves)
        });
        self.engine.wait_for_bus();
        moves.into_iter().filter(|(subject, ..)| !subject.starts_with("refs/heads/rest-")).collect()
    }

    fn spool_is_empty(&self) -> bool {
        let left = fs::read_dir(self.engine.data().join("spool/git")).expect("there is a spool").flatten();
        left.filter(|entry| entry.path().is_file()).count() == 0
    }

    /// Runs by commit, those of the branches with which the story waits left out.
    pub fn runs(&self) -> BTreeMap<String, usize> {
        let mut runs = BTreeMap::new();
        for run in self.engine.runs() {
            let cause = run["cause"].as_str().unwrap_or_default();
            if !cause.contains(" rest-") {
                *runs.entry(run["commit"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
        runs
    }

    /// A new commit on `main`.
    pub fn push(&self, text: &str) -> String {
        self.repo.push(&[("data.txt", text)])
    }

    /// Moves `main` to a commit, by force if need be.
    pub fn push_commit(&self, commit: &str) {
        git(&self.repo.work, &["reset", "-q", "--hard", commit]);
        git(&self.repo.work, &["push", "-q", "--force", "origin", "main"]);
    }

    /// So many events of refs are decided.
    pub fn wait_for_moves(&self, count: usize) {
        until(&format!("{count} moves are decided"), || {
            (self.moves().iter().filter(|(.., state)| state == "decided").count() >= count).then_some(())
        });
    }

    /// The commit has a run.
    pub fn wait_for_run(&self, commit: &str) {
        until(&format!("{commit} is told of"), || self.runs().contains_key(commit).then_some(()));
    }
}
