//! The bare loop: what a server of durable steps cannot do without, and nothing else.
//!
//! ```text
//!   POST /run?steps=N ──▶ row ──commit──▶ call ──▶ decide ──▶ row ──commit──▶ call … ──commit──▶ answer
//! ```
//!
//! Whatever waits when a writer is free goes into its next commit. Rows are appended to one table without an index; a
//! call is a fresh pooled instance that counts fuel and checks epochs, without the limits, logs and checks of the engine's
//! own host. Deliberately absent: workflows, expressions, recovery, answers to anything else. It is a floor, not an engine.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::{Query, State},
    routing::post,
};
use kickwheel_wasm::builtin;
use serde::Deserialize;
use serde_json::json;
use sqlx::{
    Connection as _, PgConnection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::sync::{mpsc, oneshot};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
    component::{Component, ComponentExportIndex, InstancePre, Linker},
};

use super::servers;

/// Most inputs that one commit takes.
const BATCH: usize = 4096;
/// As many as a plugin call of the engine may use.
const FUEL: u64 = 10_000_000_000;

/// What comes in for a writer.
enum Input {
    Start { steps: u32, answer: oneshot::Sender<u32> },
    Called { run: i64, result: String },
}

struct Run {
    steps: u32,
    done: u32,
    answer: oneshot::Sender<u32>,
}

enum Database {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// What one commit writes, and what may happen after it.
#[derive(Default)]
struct Unit {
    runs: Vec<i64>,
    seqs: Vec<i64>,
    events: Vec<String>,
    calls: Vec<i64>,
    answers: Vec<(oneshot::Sender<u32>, u32)>,
}

#[derive(Deserialize)]
struct Wanted {
    steps: u32,
}

/// The writers' mailboxes, taken in turns.
struct Door {
    writers: Vec<mpsc::UnboundedSender<Input>>,
    next: AtomicUsize,
}

/// Serves until it is killed; the first line printed is the address.
#[tokio::main]
pub async fn serve(database: &str, writers: usize) {
    let guest = Arc::new(Guest::load());
    let mut mailboxes = Vec::new();
    for number in 0..writers {
        let connection = Database::open(database).await;
        let (sender, inbox) = mpsc::unbounded_channel();
        // Apart from each other's, also across restarts.
        let first = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
        let ids = (first * writers as i64 + number as i64..).step_by(writers);
        tokio::spawn(write(connection, inbox, sender.clone(), Arc::clone(&guest), ids));
        mailboxes.push(sender);
    }
    let door = Arc::new(Door { writers: mailboxes, next: AtomicUsize::new(0) });
    let app = Router::new().route("/run", post(run)).with_state(door);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    axum::serve(listener, app).await.unwrap();
}

async fn run(State(door): State<Arc<Door>>, Query(wanted): Query<Wanted>) -> String {
    let (answer, answered) = oneshot::channel();
    let writer = door.next.fetch_add(1, Ordering::Relaxed) % door.writers.len();
    door.writers[writer]
        .send(Input::Start { steps: wanted.steps, answer })
        .expect("writers live as long as the server");
    answered.await.expect("every run is answered").to_string()
}

/// One writer: decides whatever waits, commits it, and only then acts.
async fn write(
    mut database: Database,
    mut inbox: mpsc::UnboundedReceiver<Input>,
    mailbox: mpsc::UnboundedSender<Input>,
    guest: Arc<Guest>,
    mut ids: impl Iterator<Item = i64>,
) {
    let mut runs = HashMap::new();
    let mut waiting = Vec::new();
    while inbox.recv_many(&mut waiting, BATCH).await > 0 {
        let mut unit = Unit::default();
        for input in waiting.drain(..) {
            unit.decide(&mut runs, input, &mut ids);
        }
        database.append(&unit).await;
        for run in unit.calls {
            let (guest, mailbox) = (Arc::clone(&guest), mailbox.clone());
            tokio::spawn(async move {
                let result = guest.call();
                mailbox.send(Input::Called { run, result }).expect("writers live as long as the server");
            });
        }
        for (answer, steps) in unit.answers {
            // A client that went away needs no answer.
            let _ = answer.send(steps);
        }
    }
}

impl Unit {
    fn decide(&mut self, runs: &mut HashMap<i64, Run>, input: Input, ids: &mut impl Iterator<Item = i64>) {
        match input {
            Input::Start { steps, answer } => {
                let id = ids.next().expect("there are more ids than runs");
                runs.insert(id, Run { steps, done: 0, answer });
                self.row(id, 0, json!({"type": "started", "steps": steps}).to_string());
                self.calls.push(id);
            }
            Input::Called { run: id, result } => {
                let run = runs.get_mut(&id).expect("a call belongs to a run");
                run.done += 1;
                let ended = run.done == run.steps;
                let seq = i64::from(run.done);
                self.row(
                    id,
                    seq,
                    json!({"type": "step", "step": run.done, "ended": ended, "result": result}).to_string(),
                );
                if ended {
                    let run = runs.remove(&id).expect("it was there");
                    self.answers.push((run.answer, run.done));
                } else {
                    self.calls.push(id);
                }
            }
        }
    }

    fn row(&mut self, run: i64, seq: i64, event: String) {
        self.runs.push(run);
        self.seqs.push(seq);
        self.events.push(event);
    }
}

impl Database {
    async fn open(url: &str) -> Self {
        if url.starts_with("postgres") {
            let mut connection = PgConnection::connect(url).await.unwrap();
            let table = "CREATE TABLE IF NOT EXISTS journal (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
                         run bigint NOT NULL, seq bigint NOT NULL, event text NOT NULL)";
            sqlx::raw_sql(table).execute(&mut connection).await.unwrap();
            return Self::Postgres(connection);
        }
        let options: SqliteConnectOptions = url.parse().unwrap();
        let options =
            options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let table = "CREATE TABLE IF NOT EXISTS journal (id integer PRIMARY KEY, run integer NOT NULL, \
                     seq integer NOT NULL, event text NOT NULL)";
        sqlx::raw_sql(table).execute(&mut connection).await.unwrap();
        Self::Sqlite(connection)
    }

    /// All rows in one transaction, durable when it returns.
    async fn append(&mut self, unit: &Unit) {
        match self {
            Self::Sqlite(connection) => {
                let rows: Vec<_> = unit.runs.iter().zip(&unit.seqs).zip(&unit.events).collect();
                let rows = serde_json::to_string(&rows).unwrap();
                // One statement is one transaction.
                let insert = "INSERT INTO journal (run, seq, event) \
                              SELECT value->>0->>0, value->>0->>1, value->>1 FROM json_each($1)";
                sqlx::query(insert).bind(rows).execute(connection).await.unwrap();
            }
            Self::Postgres(connection) => {
                let insert = "INSERT INTO journal (run, seq, event) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[])";
                let query = sqlx::query(insert).bind(&unit.runs).bind(&unit.seqs).bind(&unit.events);
                query.execute(connection).await.unwrap();
            }
        }
    }
}

/// The plugin, ready to be called.
struct Guest {
    engine: Engine,
    pre: InstancePre<()>,
    run: ComponentExportIndex,
    arguments: String,
}

impl Guest {
    fn load() -> Self {
        let shipped = builtin().iter().find(|plugin| plugin.name == "best-of").unwrap();
        let mut config = Config::new();
        config.consume_fuel(true).epoch_interruption(true);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(PoolingAllocationConfig::default()));
        let engine = Engine::new(&config).unwrap();
        let mut linker = Linker::<()>::new(&engine);
        let mut host = linker.instance("kickwheel:plugin/host@0.1.0").unwrap();
        host.func_wrap("log", |_, (_, _): (String, String)| Ok(())).unwrap();
        let component = Component::from_binary(&engine, shipped.component).unwrap();
        let run = component.get_export_index(None, "run").unwrap();
        let pre = linker.instantiate_pre(&component).unwrap();
        let arguments = json!({"with": servers::arguments(), "task": "run/s0[0]"}).to_string();
        Self { engine, pre, run, arguments }
    }

    fn call(&self) -> String {
        let mut store = Store::new(&self.engine, ());
        store.set_fuel(FUEL).unwrap();
        store.set_epoch_deadline(1_000);
        let instance = self.pre.instantiate(&mut store).unwrap();
        let run = instance.get_typed_func::<(&str,), (Result<String, String>,)>(&mut store, self.run).unwrap();
        let (result,) = run.call(&mut store, (&self.arguments,)).unwrap();
        result.unwrap()
    }
}
