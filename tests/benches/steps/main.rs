//! P1: durable WASM steps through the HTTP API, beside the bare loop: `./dev bench`.
//!
//! A run is a chain of ten steps, or one step; each step is a call of the plugin `best-of`, and its result is on disk
//! before the next one begins (`serve --no-pure-batching`). 64 clients at once, each on a connection of its own, start a
//! run and watch it to its end, again and again. The *bare loop* ([`bare`]) is a server of this program's own, in a
//! process of its own, that does for each step one decision, one row in a group commit and one fuelled call of the same
//! plugin, and nothing else. In every round and for every shape both are measured in turns (bare, ours, bare), so that
//! what else the machine does meets both. Absolute numbers say little about another machine: the medians of the rounds'
//! ratios count. CPU is that of the server's process, without the database server's and the clients'.
//!
//! ```text
//!   KICKWHEEL_BIN=…/kickwheel [KICKWHEEL_BENCH_FOLDER=…] [KICKWHEEL_TEST_POSTGRES=…] \
//!     cargo bench --workspace --bench steps [-- --once]
//! ```
//!
//! On SQLite always; on Postgres, where the bare loop has as many writers as help, when a server is given. With `--once`
//! ours alone on SQLite is measured once, and one line of JSON printed: that is how `tests/peers` puts it beside others.
//! Where to look next: [`load`] for what a client does, [`servers`] for the processes.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod bare;
mod connection;
mod load;
mod servers;

use std::{path::PathBuf, time::Duration};

use kickwheel_tests::cluster::{self, OwnDatabase};
use tokio::runtime::Runtime;

use self::{
    load::{Load, Seen},
    servers::{Bare, Ours, Subject},
};

/// Rounds that count; one more before them warms up.
const ROUNDS: usize = 5;
/// How long each server is loaded at a stretch. The bare loop has two stretches around each of ours, of half this each.
const STRETCH: Duration = Duration::from_secs(3);
/// Numbers of writers to Postgres that the bare loop is tried with.
const WRITERS: [usize; 4] = [1, 2, 4, 8];
/// What ours must reach of the bare loop's steps a second.
const GOAL: f64 = 0.7;

/// What is measured: length of the chain, clients at once.
const SHAPES: [Load; 4] = [
    Load { steps: 10, at_once: 64 },
    Load { steps: 1, at_once: 64 },
    Load { steps: 10, at_once: 1 },
    Load { steps: 1, at_once: 1 },
];

/// Both servers under one load in one round.
struct Pair {
    ours: Seen,
    bare: Seen,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("bare-loop", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return bare::serve(&rest[0], rest[1].parse().unwrap());
    }
    let Ok(binary) = std::env::var("KICKWHEEL_BIN") else {
        println!("SKIPPED: KICKWHEEL_BIN names no binary; `./dev bench` sets it");
        return;
    };
    let runtime = Runtime::new().unwrap();
    if arguments.iter().any(|argument| argument == "--once") {
        return once(&runtime, &binary);
    }
    on_sqlite(&runtime, &binary);
    match cluster::no_server() {
        Some(reason) => println!("SKIPPED: P1 on Postgres: {reason}"),
        None => on_postgres(&runtime, &binary),
    }
}

/// Ours on SQLite, once, for those who measure something else beside it.
fn once(runtime: &Runtime, binary: &str) {
    let folder = tempfile::tempdir_in(folder()).unwrap();
    let ours = Ours::start(binary, folder.path(), None);
    runtime.block_on(ours.prepare());
    let mut rows = Vec::new();
    for load in SHAPES {
        runtime.block_on(load.run(&ours.subject(), STRETCH / 3));
        let seen = runtime.block_on(load.run(&ours.subject(), STRETCH));
        rows.push(serde_json::json!({
            "steps": load.steps, "at_once": load.at_once, "runs_per_s": seen.runs_per_s(),
            "steps_per_s": seen.steps_per_s(load), "p50_ms": seen.p50_ms, "cpu_ms_per_step": seen.cpu_ms / seen.steps(load),
        }));
    }
    println!("{}", serde_json::Value::Array(rows));
}

fn on_sqlite(runtime: &Runtime, binary: &str) {
    println!("P1 on SQLite (WAL, synchronous=FULL)");
    let folder = tempfile::tempdir_in(folder()).unwrap();
    let ours = Ours::start(binary, folder.path(), None);
    let bare = Bare::start(&format!("sqlite:{}", folder.path().join("bare.db").display()), 1);
    compare(runtime, &ours, &bare);
}

fn on_postgres(runtime: &Runtime, binary: &str) {
    println!("P1 on Postgres (its own synchronous_commit; its processes' CPU is not counted)");
    let folder = tempfile::tempdir_in(folder()).unwrap();
    let (database, bare_database) = (OwnDatabase::make(), OwnDatabase::make());
    let ours = Ours::start(binary, folder.path(), Some(&database.url));
    // Which number of writers helps depends on the server's disk: each is tried, and the best one is the floor.
    let mut best = (0.0, WRITERS[0]);
    for writers in WRITERS {
        let bare = Bare::start(&bare_database.url, writers);
        runtime.block_on(SHAPES[0].run(&bare.subject(), STRETCH / 6));
        let speed = runtime.block_on(SHAPES[0].run(&bare.subject(), STRETCH / 2)).steps_per_s(SHAPES[0]);
        println!("bare loop with {writers} writers: {speed:.0} steps/s");
        if speed > best.0 {
            best = (speed, writers);
        }
    }
    let bare = Bare::start(&bare_database.url, best.1);
    compare(runtime, &ours, &bare);
}

/// All rounds of all shapes, and what came out.
fn compare(runtime: &Runtime, ours: &Ours, bare: &Bare) {
    runtime.block_on(ours.prepare());
    let mut seen: Vec<Vec<Pair>> = SHAPES.iter().map(|_| Vec::new()).collect();
    for round in 0..=ROUNDS {
        for (load, pairs) in SHAPES.iter().zip(&mut seen) {
            let pair = runtime.block_on(in_turns(*load, &ours.subject(), &bare.subject()));
            println!(
                "round {round}: {load}: ours {}; bare loop {}{}",
                pair.ours.describe(*load),
                pair.bare.describe(*load),
                if round == 0 { " (warm-up)" } else { "" }
            );
            if round > 0 {
                pairs.push(pair);
            }
        }
    }
    for (load, pairs) in SHAPES.iter().zip(&seen) {
        let of = |what: &dyn Fn(&Pair) -> f64| median(pairs.iter().map(what).collect());
        println!(
            "{load}: ours {:.0} steps/s, {:.0} runs/s, p50 {:.2} ms, {:.3} ms CPU a step; bare loop {:.0} steps/s, \
             {:.0} runs/s, p50 {:.2} ms, {:.3} ms CPU a step",
            of(&|p| p.ours.steps_per_s(*load)),
            of(&|p| p.ours.runs_per_s()),
            of(&|p| p.ours.p50_ms),
            of(&|p| p.ours.cpu_ms / p.ours.steps(*load)),
            of(&|p| p.bare.steps_per_s(*load)),
            of(&|p| p.bare.runs_per_s()),
            of(&|p| p.bare.p50_ms),
            of(&|p| p.bare.cpu_ms / p.bare.steps(*load)),
        );
        let speed = of(&|p| p.ours.runs_per_s() / p.bare.runs_per_s());
        let cpu = of(&|p| (p.ours.cpu_ms / p.ours.steps(*load)) / (p.bare.cpu_ms / p.bare.steps(*load)));
        let goal = if load.at_once > 1 { format!("goal >= {GOAL}") } else { "no goal".to_owned() };
        println!(
            "P1: {load}: steps/s, ours / bare loop = {speed:.2} ({goal}); CPU of a step, ours / bare loop = {cpu:.2}"
        );
    }
}

/// Bare, ours, bare: a machine that grows slower or faster meanwhile favours neither.
async fn in_turns(load: Load, ours: &Subject, bare: &Subject) -> Pair {
    let before = load.run(bare, STRETCH / 2).await;
    let ours = load.run(ours, STRETCH).await;
    let after = load.run(bare, STRETCH / 2).await;
    Pair { ours, bare: before.and(&after) }
}

/// Where the databases are, which decides what disk is measured.
fn folder() -> PathBuf {
    std::env::var_os("KICKWHEEL_BENCH_FOLDER").map_or_else(|| PathBuf::from("."), PathBuf::from)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
