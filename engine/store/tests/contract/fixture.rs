//! A fresh database for one case, and the smallest writes that cases are made of.

use std::{
    sync::Arc,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use kickwheel_schemas::{ArtifactRef, CloudEvent, Digest, Millis, RunId, api::RunPhase};
use kickwheel_store::{EventKey, Options, ShardLease, Store, Write, WriteError, Written, write};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// A member of the enum, with what is needed to make databases of it.
#[derive(Clone)]
pub enum Kind {
    Sqlite,
    Postgres { server: String },
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
            Self::Postgres { .. } => "postgres",
        })
    }
}

/// Postgres, if there is a server for tests.
pub fn postgres() -> Option<Kind> {
    let server = std::env::var("KICKWHEEL_TEST_POSTGRES").ok();
    if server.is_none() {
        let wanted = std::env::var("REQUIRE_ALL").is_ok_and(|v| v == "1");
        assert!(!wanted, "KICKWHEEL_TEST_POSTGRES is not set, and REQUIRE_ALL=1 wants every member");
        println!("SKIPPED: the Postgres member, because KICKWHEEL_TEST_POSTGRES is not set");
    }
    server.map(|server| Kind::Postgres { server })
}

#[derive(Clone)]
pub struct Fixture {
    kind: Kind,
    pub url: String,
    database: String,
    _folder: Arc<tempfile::TempDir>,
}

/// Time of all writes, where a case does not care.
pub const AT: Millis = Millis(1_800_000_000_000);
pub const LEASE: Duration = Duration::from_mins(1);
/// How long a case waits for what must come.
pub const DEADLINE: Duration = Duration::from_secs(20);
pub const PROJECT: &str = "demo";

/// Distinct bytes for ids, also between processes; their order is that of the calls.
fn random() -> [u8; 10] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut bytes = [0; 10];
    // The first two bytes lie around the version's bits; what follows counts.
    bytes[2..6].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    bytes[6..].copy_from_slice(&std::process::id().to_be_bytes());
    bytes
}

pub fn new_key() -> EventKey {
    EventKey::new(AT, random())
}

pub fn new_run() -> RunId {
    RunId::new(AT, random())
}

impl Fixture {
    pub async fn new(kind: &Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = format!("kickwheel_test_{}", new_key().0.simple());
        let url = match kind {
            Kind::Sqlite => format!("sqlite://{}", folder.path().join("kickwheel.db").display()),
            Kind::Postgres { server } => {
                let mut admin = PgConnection::connect(server).await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {database}"))).execute(&mut admin).await.unwrap();
                in_database(server, &database)
            }
        };
        Self { kind: kind.clone(), url, database, _folder: Arc::new(folder) }
    }

    pub async fn open(&self) -> Store {
        Store::open(&self.url).await.unwrap()
    }

    pub async fn open_with(&self, options: Options) -> Store {
        Store::open_with(&self.url, options).await.unwrap()
    }

    /// A store whose shards are all ours.
    pub async fn owned(&self) -> (Store, ShardLease) {
        let store = self.open().await;
        let leases = store.acquire("test", u32::MAX, LEASE, true).await.unwrap();
        (store, leases[0])
    }

    pub async fn remove(&self) {
        if let Kind::Postgres { server } = &self.kind {
            let mut admin = PgConnection::connect(server).await.unwrap();
            let drop = format!("DROP DATABASE {} WITH (FORCE)", self.database);
            sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut admin).await.unwrap();
        }
    }
}

/// The server's URL with another database name.
fn in_database(server: &str, database: &str) -> String {
    let (base, query) = server.split_once('?').map_or((server, ""), |(base, query)| (base, query));
    let (scheme, rest) = base.split_once("://").unwrap();
    let host = rest.split_once('/').map_or(rest, |(host, _)| host);
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    format!("{scheme}://{host}/{database}{query}")
}

pub fn event(source: &str, subject: &str, id: &str) -> CloudEvent {
    CloudEvent::new(source, id, "dev.kickwheel.test", json!({"n": 1})).with_subject(subject)
}

pub fn accept(key: EventKey, event: CloudEvent) -> Write {
    Write::Accept(write::Accept { key, project: PROJECT.into(), event, received_at: AT, channel: "hook".into() })
}

/// Accepts an event that must be new.
pub async fn accepted(store: &Store, event: CloudEvent) -> EventKey {
    let key = new_key();
    let written = store.write(vec![accept(key, event)]).await.unwrap();
    assert_eq!(written, [Written::Accepted { key, duplicate: false }]);
    key
}

pub fn decide(key: EventKey) -> Write {
    Write::Decide(write::Decide {
        key,
        enrichment: json!({"paths": ["a"]}),
        registry_revision: 3,
        outcomes: vec![],
        at: AT,
    })
}

pub fn create_run(run: RunId, shard: u32, event_id: &str, generation: u32) -> Write {
    Write::CreateRun(write::CreateRun {
        run,
        shard,
        project: PROJECT.into(),
        workflow: "train".into(),
        plan_digest: Digest::of(b"plan"),
        source_digest: Digest::of(b"source"),
        event_source: "file:///repo".into(),
        event_id: event_id.into(),
        event_key: EventKey::new(AT, [9; 10]),
        generation,
        branch: Some("main".into()),
        commit: None,
        cause: "push to main".into(),
        decision: "branch matches".into(),
        created_at: AT,
    })
}

pub const RUNNING: write::RunProgress =
    write::RunProgress { state: RunPhase::Running, open: 1, wake_at: None, ended_at: None };
pub const ENDED: write::RunProgress =
    write::RunProgress { state: RunPhase::Succeeded, open: 0, wake_at: None, ended_at: Some(AT) };

pub fn append(lease: ShardLease, run: RunId, first_seq: u64, events: &[&str]) -> write::Append {
    write::Append {
        shard: lease.shard,
        epoch: lease.epoch,
        run,
        first_seq,
        events: events.iter().map(|event| (*event).to_owned()).collect(),
        at: AT,
        progress: RUNNING,
        inbox_done: vec![],
    }
}

/// Creates a run with one event.
pub async fn started(store: &Store, lease: ShardLease, event_id: &str) -> RunId {
    let run = new_run();
    let first = Write::Append(append(lease, run, 0, &["first"]));
    store.write(vec![create_run(run, lease.shard, event_id, 0), first]).await.unwrap();
    run
}

/// Serialised events of a run, in order.
pub async fn events_of(store: &Store, run: RunId) -> Vec<String> {
    let rows = store.journal(run, 0).await.unwrap();
    assert!(rows.iter().enumerate().all(|(n, row)| row.seq == n as u64), "gaps in {rows:?}");
    rows.into_iter().map(|row| row.event).collect()
}

pub fn artifact(bytes: &[u8]) -> ArtifactRef {
    ArtifactRef { digest: Digest::of(bytes), size: bytes.len() as u64, path: String::new(), folder: false }
}

#[track_caller]
pub fn assert_stale<T: std::fmt::Debug>(result: Result<T, WriteError>, part: &str) {
    match result {
        Err(WriteError::Stale { what }) => assert!(what.contains(part), "{what:?} does not speak of {part:?}"),
        other => panic!("expected Stale, got {other:?}"),
    }
}
