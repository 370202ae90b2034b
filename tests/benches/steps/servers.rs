//! The two servers as processes: how they are started, loaded with workflows, looked at and ended.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use super::{
    SHAPES,
    connection::Connection,
    load::{Load, workflow_name},
};

/// Linux tells CPU times in hundredths of a second to programs, on every machine that we build for.
const MS_PER_TICK: f64 = 10.0;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `kickwheel serve`.
    Ours,
    /// This program's own loop.
    Bare,
}

/// A server that can be loaded.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Which of the two.
    pub kind: Kind,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it wants to see; empty for the bare loop, which is sent it all the same.
    pub token: String,
    pid: u32,
}

impl Subject {
    /// CPU time of its process so far, in milliseconds.
    pub fn cpu_ms(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        // The command's name may hold blanks and parentheses: what follows the last one is regular. There, fields 14 and
        // 15 of proc(5), time in user code and in the kernel, are the eleventh and twelfth, counted from zero.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11..=12].iter().map(|ticks| ticks.parse::<f64>().unwrap() * MS_PER_TICK).sum()
    }
}

/// A process that ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // The child is ours; it may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `kickwheel serve --no-pure-batching`.
pub struct Ours {
    _process: Process,
    subject: Subject,
}

impl Ours {
    /// In a data folder of its own below `folder`; on SQLite unless a database is given.
    pub fn start(binary: &str, folder: &Path, database: Option<&str>) -> Self {
        let mut command = Command::new(binary);
        command.args(["--json", "--data"]).arg(folder.join("data")).args([
            "--log",
            "warn",
            "serve",
            "--no-pure-batching",
        ]);
        command.args(["--listen", "127.0.0.1:0"]);
        if let Some(database) = database {
            command.args(["--database", database]);
        }
        let (process, line) = started(&mut command);
        let told: Value = serde_json::from_str(&line).unwrap();
        let token = fs::read_to_string(told["token_file"].as_str().unwrap()).unwrap().trim().to_owned();
        let address = told["url"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
        let subject = Subject { kind: Kind::Ours, address, token, pid: process.0.id() };
        Self { _process: process, subject }
    }

    /// What to load.
    pub fn subject(&self) -> Subject {
        self.subject.clone()
    }

    /// Registers the workflows, and sees to it that a run of each really calls the plugin for each step.
    pub async fn prepare(&self) {
        let mut connection = Connection::open(self.subject.address, &self.subject.token).await;
        for Load { steps, .. } in SHAPES {
            let name = workflow_name(steps);
            let body = json!({"file": format!("{name}.yaml"), "yaml": workflow(steps)}).to_string();
            connection.ask("POST", "/api/v1/workflows", &body).await;
            // The first run may wait for the plugin to be compiled.
            Load { steps, at_once: 1 }.run(&self.subject, std::time::Duration::ZERO).await;
            let answer = connection.ask("GET", &format!("/api/v1/runs?workflow={name}&limit=1"), "").await;
            let page: Value = serde_json::from_slice(answer).unwrap();
            let id = page["items"][0]["id"].as_str().unwrap().to_owned();
            let answer = connection.ask("GET", &format!("/api/v1/runs/{id}/tasks"), "").await;
            let tasks: Value = serde_json::from_slice(answer).unwrap();
            let tasks = tasks["items"].as_array().unwrap();
            assert_eq!(tasks.len(), steps as usize);
            for task in tasks {
                assert!(task["cached_from"].is_null() && task["outputs"]["value"] == 0.5, "{task}");
            }
        }
    }
}

/// The arguments of every call, as JSON; the bare loop gives the same ones.
pub fn arguments() -> Value {
    json!({
        "candidates": [{"index": 0, "state": "succeeded", "metrics": {"loss": 0.5}, "outputs": {}, "matrix": {}}],
        "metric": "loss"
    })
}

fn workflow(steps: u32) -> String {
    let mut yaml = format!("version: 1\nname: {}\non: {{manual: {{}}}}\nsteps:\n", workflow_name(steps));
    for step in 0..steps {
        yaml.push_str(&format!("  s{step}:\n    uses: best-of\n    with: {}\n", arguments()));
        if step > 0 {
            yaml.push_str(&format!("    needs: [s{}]\n", step - 1));
        }
    }
    yaml
}

/// The bare loop: this program again, in a process of its own.
pub struct Bare {
    _process: Process,
    subject: Subject,
}

impl Bare {
    /// On a database, with so many writers to it.
    pub fn start(database: &str, writers: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["bare-loop", database, &writers.to_string()]);
        let (process, line) = started(&mut command);
        let subject = Subject {
            kind: Kind::Bare,
            address: line.trim().parse().unwrap(),
            token: String::new(),
            pid: process.0.id(),
        };
        Self { _process: process, subject }
    }

    /// What to load.
    pub fn subject(&self) -> Subject {
        self.subject.clone()
    }
}

/// Starts a server and waits for the line in which it says where it listens.
fn started(command: &mut Command) -> (Process, String) {
    let mut process = Process(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "{command:?} ended without saying where it listens");
    (process, line)
}
