//! P3: a chain of ten pure plugin steps, alone, through the HTTP API, beside its floors.
//!
//! In each round, one after the other on the same machine and disk: bare one-row commits of SQLite (WAL, FULL), bare plugin
//! calls, bare HTTP requests to the same server, and the chain. The goal is a median ratio of at most 1 between the
//! chain's p50 and two commits + ten calls + one request. `KICKWHEEL_BIN` names the binary (an optimised one).

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use kickwheel_schemas::plugin::PluginCall;
use kickwheel_wasm::{Host, HostConfig, Limits, Plugin, builtin};
use serde_json::{Value, json};
use sqlx::{
    Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

const ROUNDS: usize = 7;
const SAMPLES: usize = 60;
const STEPS: usize = 10;

/// A server that ends with this value.
struct Server {
    child: Child,
    url: String,
    token: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // The child is ours; it may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::main]
async fn main() {
    let Ok(binary) = std::env::var("KICKWHEEL_BIN") else {
        println!("SKIPPED: KICKWHEEL_BIN names no binary; `./dev bench` sets it");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let server = serve(&binary, folder.path());
    let client = kickwheel_tests::api::http().clone();
    apply(&client, &server).await;
    let mut bare = open_bare(&folder.path().join("bare.db")).await;
    let host = Host::new(HostConfig::default()).unwrap();
    let shipped = builtin().iter().find(|p| p.name == "best-of").unwrap();
    let plugin = host.load(shipped.component, shipped.manifest()).unwrap();
    let mut ratios = Vec::new();
    for round in 0..=ROUNDS {
        let commit = commits(&mut bare).await;
        let call = calls(&host, &plugin).await;
        let request = requests(&client, &server).await;
        let chain = chains(&client, &server).await;
        let floor = 2.0 * commit + STEPS as f64 * call + request;
        let ratio = chain / floor;
        println!(
            "round {round}: commit {commit:.3} ms, call {call:.3} ms, request {request:.3} ms, chain of {STEPS} p50 \
             {chain:.3} ms, ratio {ratio:.2}{}",
            if round == 0 { " (warm-up)" } else { "" }
        );
        if round > 0 {
            ratios.push(ratio);
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!("P3: chain / (2 commits + {STEPS} calls + 1 request) = {:.2} (goal <= 1)", ratios[ratios.len() / 2]);
}

fn serve(binary: &str, data: &Path) -> Server {
    let mut child = Command::new(binary)
        .args(["--json", "--data"])
        .arg(data.join("data"))
        .args(["--log", "warn", "serve", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    let token = std::fs::read_to_string(told["token_file"].as_str().unwrap()).unwrap();
    Server { child, url: told["url"].as_str().unwrap().to_owned(), token: token.trim().to_owned() }
}

async fn apply(client: &reqwest::Client, server: &Server) {
    let candidates = json!([{"index": 0, "state": "succeeded", "metrics": {"loss": 0.5}, "outputs": {}, "matrix": {}}]);
    let mut yaml = String::from("version: 1\nname: chain\non: {manual: {}}\nsteps:\n");
    for step in 0..STEPS {
        yaml.push_str(&format!(
            "  s{step}:\n    uses: best-of\n    with: {{candidates: {candidates}, metric: loss}}\n"
        ));
        if step > 0 {
            yaml.push_str(&format!("    needs: [s{}]\n", step - 1));
        }
    }
    let body = json!({"file": "chain.yaml", "yaml": yaml});
    let request = client.post(format!("{}/api/v1/workflows", server.url)).bearer_auth(&server.token).json(&body);
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

async fn open_bare(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut bare = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("create table t(id integer primary key, body text)").execute(&mut bare).await.unwrap();
    bare
}

async fn commits(bare: &mut SqliteConnection) -> f64 {
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let began = Instant::now();
        sqlx::query("insert into t(body) values ($1)").bind("x".repeat(200)).execute(&mut *bare).await.unwrap();
        samples.push(began.elapsed().as_secs_f64() * 1e3);
    }
    median(samples)
}

async fn calls(host: &Host, plugin: &Plugin) -> f64 {
    let with = serde_json::from_value(json!({
        "candidates": [{"index": 0, "state": "succeeded", "metrics": {"loss": 0.5}, "outputs": {}, "matrix": {}}],
        "metric": "loss"
    }));
    let call = PluginCall { with: with.unwrap(), task: "r/s[0]".to_owned() };
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let began = Instant::now();
        host.call(plugin, &call, &Limits::default()).await.result.unwrap();
        samples.push(began.elapsed().as_secs_f64() * 1e3);
    }
    median(samples)
}

async fn requests(client: &reqwest::Client, server: &Server) -> f64 {
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let began = Instant::now();
        client.get(format!("{}/health", server.url)).send().await.unwrap().bytes().await.unwrap();
        samples.push(began.elapsed().as_secs_f64() * 1e3);
    }
    median(samples)
}

async fn chains(client: &reqwest::Client, server: &Server) -> f64 {
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let began = Instant::now();
        let request = client.post(format!("{}/api/v1/workflows/chain/runs", server.url)).bearer_auth(&server.token);
        let run: Value = request.json(&json!({"inputs": {}})).send().await.unwrap().json().await.unwrap();
        // With pure batching the run has ended when its start is answered; without, it is watched to its end.
        let mut state = run["state"].clone();
        while state != "succeeded" {
            assert!(state != "failed", "{run}");
            let id = run["id"].as_str().unwrap();
            let watch = format!("{}/api/v1/runs/{id}/watch?seq=100000&wait_ms=5", server.url);
            let seen: Value = client.get(watch).bearer_auth(&server.token).send().await.unwrap().json().await.unwrap();
            state = seen["run"]["state"].clone();
        }
        samples.push(began.elapsed().as_secs_f64() * 1e3);
    }
    median(samples)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
