//! The real engine as a process: `kickwheel serve` in a folder of its own, on SQLite or on Postgres.
//!
//! A test reads as a story: `Engine::start(database).submit(WORKFLOW).kill9().restart().wait_for("succeeded")`. Whatever a
//! story started is ended with it, by pid: the engine, the agent of its pool, the runners and their jobs.
//!
//! Jobs of tests write `$KICKWHEEL_ATTEMPT` as a line of the *ledger* before they do anything, so that the checker can
//! count how often user code ran. In workflow texts `{ledger}` and `{folder}` stand for the test's own paths.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::OnceLock,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    api::{Answer, Api},
    cluster::{self, OwnDatabase},
    kafka::{Topics, no_broker},
    process,
    repo::Repo,
    wait::{SOON, look_for, until, within},
};

/// The type of the events that tests send.
pub const KICK: &str = "dev.example.kick";
/// Their source.
pub const SOURCE: &str = "/tests";

/// Which database an engine uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// A file in the data folder.
    Sqlite,
    /// A database of its own in the server that `KICKWHEEL_TEST_POSTGRES` names.
    Postgres,
}

/// Tells the same story on each database, side by side. Without a Postgres server that half is skipped, loudly, unless
/// `REQUIRE_ALL=1` makes it a failure.
pub fn on_each_database(story: impl Fn(Database) + Sync) {
    std::thread::scope(|scope| {
        let sqlite = scope.spawn(|| story(Database::Sqlite));
        if let Some(reason) = cluster::no_server() {
            skip(&reason);
        } else {
            story(Database::Postgres);
        }
        if let Err(panic) = sqlite.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Tells the same story on Kafka with each database, each time with topics of its own.
pub fn on_kafka(story: impl Fn(Database, Topics) + Sync) {
    match no_broker() {
        Some(reason) => skip(&reason),
        None => on_each_database(|database| story(database, Topics::fresh())),
    }
}

/// Tells the same story on each database with the embedded bus, and then with Kafka.
pub fn on_each_bus(story: impl Fn(Database, Option<&Topics>) + Sync) {
    on_each_database(|database| story(database, None));
    on_kafka(|database, topics| story(database, Some(&topics)));
}

/// Passes a test by without running it: loudly, and only where that is allowed.
pub fn skip(reason: &str) {
    assert!(std::env::var("REQUIRE_ALL").as_deref() != Ok("1"), "REQUIRE_ALL=1 and {reason}");
    eprintln!("SKIPPED: {reason}");
}

/// More of everything: what runs before an issue is closed rather than with every change.
pub fn is_long() -> bool {
    std::env::var("KICKWHEEL_LONG").as_deref() == Ok("1")
}

/// How an engine is started.
#[derive(Debug, Default)]
pub struct Setup {
    /// Further arguments of `serve`.
    pub arguments: Vec<String>,
    /// The data folder, when it is not the usual one in the test's folder.
    pub data: Option<PathBuf>,
    /// The database's URL, when it is neither SQLite nor the test server's.
    pub url: Option<String>,
    /// The topics of its bus, when that is Kafka.
    pub topics: Option<Topics>,
}

impl Setup {
    /// On that bus; none: the embedded one.
    pub fn on_bus(self, topics: Option<&Topics>) -> Self {
        match topics {
            Some(topics) => self.with_kafka(topics),
            None => self,
        }
    }

    /// With Kafka as the bus.
    pub fn with_kafka(mut self, topics: &Topics) -> Self {
        self.arguments.extend(["--bus".to_owned(), topics.url()]);
        self.topics = Some(topics.clone());
        self
    }
}

/// An engine that may be running.
#[derive(Debug)]
pub struct Engine {
    folder: TempDir,
    data: PathBuf,
    database: Database,
    own: Option<OwnDatabase>,
    url: Option<String>,
    listen: String,
    arguments: Vec<String>,
    topics: Option<Topics>,
    child: Option<Child>,
    api: Option<Api>,
    starts: u32,
    last: String,
}

impl Engine {
    /// A running engine in a new folder.
    pub fn start(database: Database) -> Self {
        Self::with(database, Setup::default())
    }

    /// The same, set up otherwise.
    pub fn with(database: Database, setup: Setup) -> Self {
        let mut engine = Self::prepare(database, setup);
        engine.restart();
        engine
    }

    /// Everything but the process. Compiled plugins are copied from an engine that ran before: compiling them takes seconds
    /// in a development build and is tested elsewhere.
    pub fn prepare(database: Database, setup: Setup) -> Self {
        let engine = Self::bare(database, setup);
        let (key, cache) = compiled_plugins();
        fs::create_dir_all(engine.data.join("wasm-cache")).expect("a folder can be made");
        fs::copy(key, engine.data.join("key")).expect("the key can be copied");
        copy_files(cache, &engine.data.join("wasm-cache"));
        engine
    }

    fn bare(database: Database, setup: Setup) -> Self {
        let folder = tempfile::Builder::new().prefix("kickwheel-test-").tempdir().expect("a folder can be made");
        let data = setup.data.unwrap_or_else(|| folder.path().join("data"));
        fs::create_dir_all(&data).expect("a folder can be made");
        let own = (database == Database::Postgres && setup.url.is_none()).then(OwnDatabase::make);
        let url = setup.url.or_else(|| own.as_ref().map(|own| own.url.clone()));
        let (arguments, topics) = (setup.arguments, setup.topics);
        let (child, api, starts, last) = (None, None, 0, String::new());
        let listen = "127.0.0.1:0".to_owned();
        Self { folder, data, database, own, url, listen, arguments, topics, child, api, starts, last }
    }

    /// Starts the process again and waits until it answers.
    pub fn restart(&mut self) -> &mut Self {
        self.restart_with_fault(None)
    }

    /// The same, to be killed at a fault point: `name:count` as in the store's `fault` module.
    pub fn restart_with_fault(&mut self, fault: Option<&str>) -> &mut Self {
        if let Err(ended) = self.try_restart(fault) {
            panic!("the engine ended at its start with {}:\n{}", ended, self.log());
        }
        self
    }

    /// The same; the status with which the process ended when it did not come up.
    pub fn try_restart(&mut self, fault: Option<&str>) -> Result<(), ExitStatus> {
        assert!(self.child.is_none(), "it runs already");
        self.starts += 1;
        let said = self.folder.path().join(format!("stdout.{}", self.starts));
        let file = |path: &Path| File::options().create(true).append(true).open(path).expect("a file can be made");
        let mut command = Command::new(binary());
        command
            .args(["serve", "--listen", &self.listen, "--json", "--cpu", "8", "--data"])
            .arg(&self.data)
            .args(&self.arguments)
            .current_dir("/")
            .env_remove("KICKWHEEL_SERVER")
            .env_remove("KICKWHEEL_TOKEN_FILE")
            .env_remove("KICKWHEEL_FAULT")
            .stdin(Stdio::null())
            .stdout(file(&said))
            .stderr(file(&self.folder.path().join("log")));
        if let Some(url) = &self.url {
            command.args(["--database", url]);
        }
        if let Some(fault) = fault {
            command.env("KICKWHEEL_FAULT", fault);
        }
        let child = self.child.insert(command.spawn().expect("the binary can be started"));
        let up = look_for(SOON, || {
            if let Some(line) = fs::read_to_string(&said).ok().filter(|text| text.ends_with('\n')) {
                return Some(Ok(serde_json::from_str::<Value>(&line).expect("`serve --json` says one object")));
            }
            child.try_wait().expect("it is our child").map(Err)
        });
        match up {
            Some(Ok(said)) => {
                let token = fs::read_to_string(self.data.join("token")).expect("a running engine has a token");
                let url = said["url"].as_str().expect("it says its URL").to_owned();
                self.api = Some(Api { url, token: token.trim().to_owned() });
                Ok(())
            }
            Some(Err(status)) => {
                self.child = None;
                Err(status)
            }
            None => panic!("the engine does not come up:\n{}", self.log()),
        }
    }

    /// Listens elsewhere from the next start on, with further arguments of `serve`.
    pub fn move_to(&mut self, listen: &str, arguments: &[&str]) -> &mut Self {
        listen.clone_into(&mut self.listen);
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Kills the engine, and nothing else, in the middle of whatever it does.
    pub fn kill9(&mut self) -> &mut Self {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
        self
    }

    /// Waits until a fault point has killed it.
    pub fn wait_for_death(&mut self) -> &mut Self {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.wait_for_end(SOON);
        assert_eq!(status.signal(), Some(9), "it must die at the fault point and nowhere else:\n{}", self.log());
        self
    }

    /// Whether the process has ended meanwhile. Takes note of it.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.child.as_mut().is_none_or(|c| c.try_wait().expect("it is our child").is_some());
        if ended {
            self.child = None;
        }
        ended
    }

    /// Waits for the end of the process.
    pub fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        within(limit, "the engine has ended", || child.try_wait().expect("it is our child"))
    }

    /// Asks it to end, and waits.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        process::signal(self.pid(), Signal::TERM);
        self.wait_for_end(limit)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// The API of the running process.
    pub fn api(&self) -> &Api {
        self.api.as_ref().expect("it was started")
    }

    /// The test's own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The engine's folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Which database it uses.
    pub fn database(&self) -> Database {
        self.database
    }

    /// The database's URL, for the checker.
    pub fn database_url(&self) -> String {
        self.url.clone().unwrap_or_else(|| format!("sqlite://{}", self.data.join("kickwheel.db").display()))
    }

    /// The topics of its bus.
    pub fn topics(&self) -> &Topics {
        self.topics.as_ref().expect("its bus is Kafka")
    }

    /// Changes how it is started from now on; the folder and the database stay.
    pub fn set_up(&mut self, setup: Setup) -> &mut Self {
        (self.arguments, self.topics) = (setup.arguments, setup.topics);
        self
    }

    /// Waits until everything that is on the bus has been read, and nothing waits for the bus. Nothing to do on the
    /// embedded one.
    pub fn wait_for_bus(&self) -> &Self {
        let Some(topics) = &self.topics else { return self };
        let stream = topics.name("events");
        until("the bus is read to its end", || {
            let bus = self.api().try_get("bus").ok().filter(|answer| answer.status == 200)?.body;
            let ends = topics.ends("events");
            let items = bus["items"].as_array()?;
            let own: Vec<&Value> = items.iter().filter(|item| item["stream"] == stream.as_str()).collect();
            let at = |item: &Value| {
                Some((usize::try_from(item["partition"].as_i64()?).ok()?, item["next_offset"].as_i64()?))
            };
            let done =
                own.iter().all(|item| at(item).is_some_and(|(p, next)| ends.get(p).is_some_and(|(_, e)| *e == next)));
            (bus["mode"] == "direct" && bus["spooled"] == 0 && own.len() == ends.len() && done).then_some(())
        });
        self
    }

    /// Where jobs write what they are.
    pub fn ledger(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    /// Lines of the ledger.
    pub fn ledger_lines(&self) -> Vec<String> {
        fs::read_to_string(self.ledger()).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Everything that the engine logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A workflow's text with the test's paths in it.
    pub fn fill(&self, yaml: &str) -> String {
        let folder = self.folder.path().to_string_lossy();
        yaml.replace("{ledger}", &self.ledger().to_string_lossy()).replace("{folder}", &folder)
    }

    /// Runs the command line against this engine.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        Command::new(binary())
            .args(arguments)
            .arg("--data")
            .arg(&self.data)
            .env_remove("KICKWHEEL_SERVER")
            .env_remove("KICKWHEEL_TOKEN_FILE")
            .output()
            .expect("the binary can be started")
    }

    /// The JSON that the command line printed.
    pub fn cli_json(&self, arguments: &[&str]) -> Value {
        let output = self.cli(&[arguments, &["--json"]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).unwrap_or_else(|e| {
            panic!("{arguments:?} printed no JSON ({e}): {text}\n{}", String::from_utf8_lossy(&output.stderr))
        })
    }

    /// Puts a workflow into the registry.
    pub fn apply(&mut self, yaml: &str) -> &mut Self {
        let yaml = self.fill(yaml);
        self.api().post("workflows", &json!({"file": "test.yaml", "yaml": yaml}));
        self
    }

    /// Puts a workflow into the registry and starts it.
    pub fn submit(&mut self, yaml: &str) -> &mut Self {
        let id = format!("submit-{}", self.starts);
        self.apply(yaml).kick(&id)
    }

    /// Sends an event until it is accepted; the story goes on about it.
    pub fn kick(&mut self, id: &str) -> &mut Self {
        until(&format!("event {id} is accepted"), || send(self.api(), id).ok().filter(|a| a.status == 202));
        id.clone_into(&mut self.last);
        self
    }

    /// The story goes on about the run of this event.
    pub fn about(&mut self, event: &str) -> &mut Self {
        event.clone_into(&mut self.last);
        self
    }

    /// Binds a repository whose pushes are told by its hook and by nobody else.
    pub fn bind(&mut self, repo: &Repo, name: &str) -> &mut Self {
        self.api().post("repos", &json!({"url": repo.bare, "name": name, "poll_ms": 0}));
        self
    }

    /// All runs, newest first.
    pub fn runs(&self) -> Vec<Value> {
        let mut runs = Vec::new();
        let mut path = "runs?limit=1000".to_owned();
        loop {
            let page = self.api().get(&path);
            runs.extend(page["items"].as_array().cloned().unwrap_or_default());
            let Some(next) = page["next"].as_str() else { return runs };
            path = format!("runs?limit=1000&cursor={next}");
        }
    }

    /// Waits for the run of a commit and names the event that caused it; the story goes on about it.
    pub fn pushed(&mut self, commit: &str) -> &mut Self {
        let event = until(&format!("a push of {commit} has started a run"), || {
            let run = self.runs().into_iter().find(|run| run["commit"] == commit)?;
            run["event_id"].as_str().map(str::to_owned)
        });
        self.about(&event)
    }

    /// The id of the run that the story is about.
    pub fn run_id(&self) -> String {
        until(&format!("event {} has started a run", self.last), || {
            let run = self.runs().into_iter().find(|run| run["event_id"] == self.last.as_str())?;
            run["id"].as_str().map(str::to_owned)
        })
    }

    /// The run that the story is about, in full.
    pub fn run(&self) -> Value {
        self.api().get(&format!("runs/{}", self.run_id()))
    }

    /// One task of it.
    pub fn task(&self, step: &str, index: usize) -> Value {
        let run = self.run();
        let step = run["steps"].as_array().and_then(|s| s.iter().find(|s| s["name"] == step)).cloned();
        step.unwrap_or_default()["tasks"][index].clone()
    }

    /// Waits for the end of the run that the story is about, which must be this one.
    pub fn wait_for(&mut self, state: &str) -> &mut Self {
        let id = self.run_id();
        let run = until(&format!("run {id} has ended"), || {
            let run = self.api().get(&format!("runs/{id}"));
            ["succeeded", "failed", "cancelled"].contains(&run["state"].as_str()?).then_some(run)
        });
        assert_eq!(run["state"], state, "{run:#}\n{}", self.log());
        self
    }

    /// Waits until so many jobs have begun.
    pub fn wait_for_ledger(&mut self, lines: usize) -> &mut Self {
        until(&format!("{lines} jobs have begun"), || (self.ledger_lines().len() >= lines).then_some(()));
        self
    }

    /// Opens a gate: makes a file for which a job waits.
    pub fn open_gate(&mut self, name: &str) -> &mut Self {
        fs::write(self.folder.path().join(name), "").expect("a file can be made");
        self
    }

    /// Waits until `/health` says this.
    pub fn wait_for_health(&mut self, state: &str) -> &mut Self {
        until(&format!("/health says {state}"), || {
            let health = self.api().try_get("health").ok()?;
            (health.body["state"] == state).then_some(())
        });
        self
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let from = log.char_indices().rev().nth(6_000).map_or(0, |(i, _)| i);
            eprintln!("── {:?}: the end of the engine's log ──\n{}", self.database, &log[from..]);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        process::end_all_of(self.folder.path());
        process::end_all_of(&self.data);
        drop(self.own.take());
    }
}

/// Sends one event of type [`KICK`].
pub fn send(api: &Api, id: &str) -> Result<Answer, String> {
    api.try_post("events", &json!({"specversion": "1.0", "id": id, "source": SOURCE, "type": KICK, "data": {}}))
}

/// The binary under test: `KICKWHEEL_BIN`, else the one that cargo built beside this test.
pub fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("KICKWHEEL_BIN") {
        return PathBuf::from(named);
    }
    let own = std::env::current_exe().expect("a test has a path");
    let found = own.ancestors().skip(1).map(|folder| folder.join("kickwheel")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no kickwheel above {}: build the workspace or set KICKWHEEL_BIN", own.display()))
}

/// A key, and the plugins that an engine with this key has compiled. They are kept beside the tests, for this binary: who
/// comes first makes them, and it does no harm if two do.
fn compiled_plugins() -> &'static (PathBuf, PathBuf) {
    static KEPT: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    KEPT.get_or_init(|| {
        let binary = binary();
        let beside = binary.parent().expect("a binary lies in a folder");
        let about = fs::metadata(&binary).expect("the binary is there");
        let made =
            about.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
        let kept = beside.join(format!("kickwheel-tests-plugins-{}-{}", about.len(), made.as_millis()));
        let files = (kept.join("key"), kept.join("cache"));
        if kept.exists() {
            return files;
        }
        let mut engine = Engine::bare(Database::Sqlite, Setup::default());
        engine.restart();
        assert_eq!(engine.terminate(SOON).code(), Some(0), "{}", engine.log());
        let new = tempfile::tempdir_in(beside).expect("a folder can be made");
        fs::copy(engine.data.join("key"), new.path().join("key")).expect("the key can be copied");
        fs::create_dir(new.path().join("cache")).expect("a folder can be made");
        copy_files(&engine.data.join("wasm-cache"), &new.path().join("cache"));
        // Another test process may have been faster: then its folder stays, and ours goes.
        if fs::rename(new.path(), &kept).is_ok() {
            let _ = new.keep();
        }
        files
    })
}

fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("the folder can be read").flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be copied");
    }
}
