//! Group commit beside its floor: `cargo run --release -p kickwheel-store --example group_commit [FOLDER]`.
//!
//! In each round, one after the other on the same disk: bare SQLite with one row a commit, bare SQLite with 100 rows a
//! commit, our appends with 64 at once, our appends alone. Absolute numbers say little about another machine, so the
//! medians of the rounds' *ratios* are what counts.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kickwheel_schemas::{CloudEvent, Digest, Millis, RunId, api::RunPhase};
use kickwheel_store::{EventKey, ShardLease, Store, Write, write};
use sqlx::{
    Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

const ROUNDS: usize = 7;
const AT_ONCE: usize = 64;
const BARE_COMMITS: usize = 400;
const BARE_BATCHES: usize = 60;
const ROWS_A_COMMIT: usize = 100;
const APPENDS_EACH: u64 = 100;
const STARTS_EACH: usize = 20;
const ALONE: u64 = 400;
const EVENT_BYTES: usize = 200;

#[derive(Debug)]
struct Round {
    bare_per_s: f64,
    bare_p50: f64,
    rows_per_s: f64,
    ours_per_s: f64,
    alone_p50: f64,
    starts_per_s: f64,
    /// Milliseconds of CPU for an append, and for a row of the 100-row floor.
    ours_cpu: f64,
    rows_cpu: f64,
}

#[tokio::main]
async fn main() {
    let parent = std::env::args().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let folder = tempfile::tempdir_in(parent).unwrap();
    let mut bare = open_bare(&folder.path().join("bare.db")).await;
    let store = Store::open(folder.path().join("kickwheel.db").to_str().unwrap()).await.unwrap();
    let lease = store.acquire("bench", u32::MAX, Duration::from_hours(1), true).await.unwrap()[0];
    let mut rounds = Vec::new();
    for n in 0..=ROUNDS {
        let round = round(&mut bare, &store, lease, n).await;
        println!(
            "round {n}: bare {:.0} commits/s (p50 {:.3} ms), 100 rows {:.0} rows/s, ours x64 {:.0} appends/s, \
             alone p50 {:.3} ms, event to run x64 {:.0} /s{}",
            round.bare_per_s,
            round.bare_p50,
            round.rows_per_s,
            round.ours_per_s,
            round.alone_p50,
            round.starts_per_s,
            if n == 0 { " (warm-up, not counted)" } else { "" }
        );
        if n > 0 {
            rounds.push(round);
        }
    }
    println!("64 at once / bare one-row commits  {:.2}  (goal >= 2)", median(&rounds, |r| r.ours_per_s / r.bare_per_s));
    println!(
        "64 at once / 100-row floor         {:.2}  (goal >= 0.5)",
        median(&rounds, |r| r.ours_per_s / r.rows_per_s)
    );
    println!("CPU of an append / of a floor's row   {:.2}", median(&rounds, |r| r.ours_cpu / r.rows_cpu));
    println!("CPU of an append, in milliseconds     {:.4}", median(&rounds, |r| r.ours_cpu));
    println!(
        "event to run / bare one-row commits {:.2}  (no goal)",
        median(&rounds, |r| r.starts_per_s / r.bare_per_s)
    );
    println!("alone p50 / bare commit p50        {:.2}  (goal <= 2)", median(&rounds, |r| r.alone_p50 / r.bare_p50));
}

async fn open_bare(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut conn = SqliteConnection::connect_with(&options).await.unwrap();
    let table = "CREATE TABLE ev (run text, seq integer, body text, PRIMARY KEY (run, seq)) WITHOUT ROWID";
    sqlx::raw_sql(table).execute(&mut conn).await.unwrap();
    conn
}

async fn bare_commit(conn: &mut SqliteConnection, run: &str, first: usize, rows: usize) {
    let body = "x".repeat(EVENT_BYTES);
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *conn).await.unwrap();
    for seq in first..first + rows {
        let insert = sqlx::query("INSERT INTO ev VALUES ($1, $2, $3)").bind(run).bind(seq as i64).bind(&body);
        insert.execute(&mut *conn).await.unwrap();
    }
    sqlx::query("COMMIT").execute(&mut *conn).await.unwrap();
}

/// Accepts and decides an event and starts its run, in one unit.
async fn start(store: &Store, lease: ShardLease) {
    let uuid = uuid::Uuid::now_v7();
    let (key, run, at) = (EventKey(uuid), RunId(uuid), Millis::now());
    let event =
        CloudEvent::new("bench", uuid.to_string(), "bench", serde_json::Value::Null).with_subject(uuid.to_string());
    let outcome = write::DecisionRow {
        workflow: "bench".into(),
        decision: "started".into(),
        reason: String::new(),
        clause: None,
        run: Some(run),
    };
    let accept = write::Accept { key, project: "bench".into(), event, received_at: at, channel: "bench".into() };
    let enrichment = serde_json::Value::Null;
    let decide = write::Decide { key, enrichment, registry_revision: 1, outcomes: vec![outcome], at };
    let unit = vec![Write::Accept(accept), Write::Decide(decide), create(uuid, lease), one_event(lease, run, 0)];
    store.write(unit).await.unwrap();
}

fn create(uuid: uuid::Uuid, lease: ShardLease) -> Write {
    let create = write::CreateRun {
        run: RunId(uuid),
        shard: lease.shard,
        project: "bench".into(),
        workflow: "bench".into(),
        plan_digest: Digest::of(b"plan"),
        source_digest: Digest::of(b"source"),
        event_source: "bench".into(),
        event_id: uuid.to_string(),
        event_key: EventKey(uuid),
        generation: 0,
        branch: None,
        commit: None,
        cause: String::new(),
        decision: String::new(),
        created_at: Millis::now(),
    };
    Write::CreateRun(create)
}

async fn new_run(store: &Store, lease: ShardLease) -> RunId {
    let uuid = uuid::Uuid::now_v7();
    store.write(vec![create(uuid, lease)]).await.unwrap();
    RunId(uuid)
}

async fn append(store: &Store, lease: ShardLease, run: RunId, seq: u64) {
    store.write(vec![one_event(lease, run, seq)]).await.unwrap();
}

fn one_event(lease: ShardLease, run: RunId, seq: u64) -> Write {
    let progress = write::RunProgress { state: RunPhase::Running, open: 1, wake_at: None, ended_at: None };
    let append = write::Append {
        shard: lease.shard,
        epoch: lease.epoch,
        run,
        first_seq: seq,
        events: vec!["x".repeat(EVENT_BYTES)],
        at: Millis::now(),
        progress,
        inbox_done: vec![],
    };
    Write::Append(append)
}

async fn round(bare: &mut SqliteConnection, store: &Store, lease: ShardLease, n: usize) -> Round {
    let mut latencies = Vec::new();
    let begun = Instant::now();
    for k in 0..BARE_COMMITS {
        let one = Instant::now();
        bare_commit(bare, &format!("one {n}"), k, 1).await;
        latencies.push(one.elapsed().as_secs_f64() * 1e3);
    }
    let bare_per_s = BARE_COMMITS as f64 / begun.elapsed().as_secs_f64();
    let bare_p50 = middle(&mut latencies);

    let cpu = cpu_ms();
    let begun = Instant::now();
    for k in 0..BARE_BATCHES {
        bare_commit(bare, &format!("hundred {n}"), k * ROWS_A_COMMIT, ROWS_A_COMMIT).await;
    }
    let rows_per_s = (BARE_BATCHES * ROWS_A_COMMIT) as f64 / begun.elapsed().as_secs_f64();
    let rows_cpu = (cpu_ms() - cpu) / (BARE_BATCHES * ROWS_A_COMMIT) as f64;

    let mut runs = Vec::new();
    for _ in 0..AT_ONCE {
        runs.push(new_run(store, lease).await);
    }
    let cpu = cpu_ms();
    let begun = Instant::now();
    let writers = runs.into_iter().map(|run| {
        let store = store.clone();
        tokio::spawn(async move {
            for seq in 0..APPENDS_EACH {
                append(&store, lease, run, seq).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let ours_per_s = (AT_ONCE as u64 * APPENDS_EACH) as f64 / begun.elapsed().as_secs_f64();
    let ours_cpu = (cpu_ms() - cpu) / (AT_ONCE as u64 * APPENDS_EACH) as f64;

    let begun = Instant::now();
    let starters = (0..AT_ONCE).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..STARTS_EACH {
                start(&store, lease).await;
            }
        })
    });
    for starter in starters.collect::<Vec<_>>() {
        starter.await.unwrap();
    }
    let starts_per_s = (AT_ONCE * STARTS_EACH) as f64 / begun.elapsed().as_secs_f64();

    let run = new_run(store, lease).await;
    let mut latencies = Vec::new();
    for seq in 0..ALONE {
        let one = Instant::now();
        append(store, lease, run, seq).await;
        latencies.push(one.elapsed().as_secs_f64() * 1e3);
    }
    Round {
        bare_per_s,
        bare_p50,
        rows_per_s,
        ours_per_s,
        alone_p50: middle(&mut latencies),
        starts_per_s,
        ours_cpu,
        rows_cpu,
    }
}

/// CPU time of this process so far (`/proc/self/stat`, fields 14 and 15), in milliseconds.
fn cpu_ms() -> f64 {
    const TICK_MS: f64 = 10.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) * TICK_MS
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn median(rounds: &[Round], ratio: impl Fn(&Round) -> f64) -> f64 {
    middle(&mut rounds.iter().map(ratio).collect::<Vec<_>>())
}
