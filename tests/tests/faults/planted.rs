//! The checker itself: silent about a healthy database, and it finds each mistake that is planted in a copy of it.

use std::{fs, path::PathBuf};

use kickwheel_tests::{
    api::block_on,
    checker::{self, Expected, Kind, pack, unpack},
    cluster::OwnDatabase,
    harness::{Database, Engine, on_each_database},
    wait::{SOON, until},
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};

use crate::wheel::{Scenario, list};

/// A copy that may be damaged.
struct Copy {
    url: String,
    ledger: PathBuf,
    _folder: tempfile::TempDir,
    _own: Option<OwnDatabase>,
}

impl Copy {
    fn of(scenario: &Scenario) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let ledger = folder.path().join("ledger");
        fs::copy(scenario.engine.ledger(), &ledger).expect("the ledger can be copied");
        let (url, own) = match scenario.engine.database() {
            Database::Sqlite => {
                let file = folder.path().join("copy.db");
                execute(&scenario.engine.database_url(), &format!("VACUUM INTO '{}'", file.display()));
                (format!("sqlite://{}", file.display()), None)
            }
            Database::Postgres => {
                let own = OwnDatabase::copy(&scenario.engine.database_url());
                (own.url.clone(), Some(own))
            }
        };
        Self { url, ledger, _folder: folder, _own: own }
    }

    fn kinds(&self, expected: &Expected) -> Vec<Kind> {
        checker::check(&self.url, &self.ledger, expected).into_iter().map(|v| v.kind).collect()
    }
}

fn execute(url: &str, sql: &str) -> u64 {
    let sql = AssertSqlSafe(sql.to_owned());
    block_on(async {
        if url.starts_with("sqlite:") {
            let mut connection = sqlx::SqliteConnection::connect(url).await?;
            Ok::<_, sqlx::Error>(connection.execute(sql).await?.rows_affected())
        } else {
            let mut connection = sqlx::PgConnection::connect(url).await?;
            Ok(connection.execute(sql).await?.rows_affected())
        }
    })
    .unwrap_or_else(|e| panic!("{url}: {e}"))
}

/// Events of journals that are not sealed yet.
fn unsealed(url: &str) -> i64 {
    const SQL: &str = "SELECT count(*) FROM journal";
    block_on(async {
        if url.starts_with("sqlite:") {
            let mut connection = sqlx::SqliteConnection::connect(url).await?;
            sqlx::query(SQL).fetch_one(&mut connection).await?.try_get(0)
        } else {
            let mut connection = sqlx::PgConnection::connect(url).await?;
            sqlx::query(SQL).fetch_one(&mut connection).await?.try_get(0)
        }
    })
    .unwrap_or_else(|e: sqlx::Error| panic!("{url}: {e}"))
}

/// The first sealed journal: its run and its body.
fn first_sealed(url: &str) -> (String, Vec<u8>) {
    const SQL: &str = "SELECT run, body FROM sealed ORDER BY run LIMIT 1";
    block_on(async {
        if url.starts_with("sqlite:") {
            let mut connection = sqlx::SqliteConnection::connect(url).await?;
            let row = sqlx::query(SQL).fetch_one(&mut connection).await?;
            Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?))
        } else {
            let mut connection = sqlx::PgConnection::connect(url).await?;
            let row = sqlx::query(SQL).fetch_one(&mut connection).await?;
            Ok((row.try_get(0)?, row.try_get(1)?))
        }
    })
    .unwrap_or_else(|e| panic!("{url}: {e}"))
}

/// Records the first success of a run's journal a second time, as another attempt's.
fn double_a_success(url: &str) {
    let (run, body) = first_sealed(url);
    let mut events = unpack(&body);
    let at = events.iter().position(|e| e["end"]["end"] == "succeeded").expect("a run has a success");
    let mut second = events[at].clone();
    second["attempt"] = serde_json::json!(2);
    events.insert(at + 1, second);
    let body = hex::encode(pack(&events));
    let literal = if url.starts_with("sqlite:") { format!("x'{body}'") } else { format!("decode('{body}', 'hex')") };
    let count = events.len();
    execute(url, &format!("UPDATE sealed SET body = {literal}, events = {count} WHERE run = '{run}'"));
    execute(url, &format!("UPDATE runs SET next_seq = {count} WHERE run = '{run}'"));
}

#[test]
fn each_planted_loss_and_double_is_found() {
    on_each_database(|database| {
        let mut scenario = Scenario::begin(Engine::start(database));
        scenario.send();
        scenario.send();
        scenario.check();
        let url = scenario.engine.database_url();
        until("every journal is sealed", || (unsealed(&url) == 0).then_some(()));
        assert_eq!(scenario.engine.terminate(SOON).code(), Some(0));
        let healthy = scenario.violations();
        assert!(healthy.is_empty(), "{}", list(&healthy));

        let check = |what: &str, plant: &dyn Fn(&Copy), kind: Kind| {
            let copy = Copy::of(&scenario);
            assert_eq!(copy.kinds(&scenario.expected), [], "a copy is as healthy as the original");
            plant(&copy);
            let found = copy.kinds(&scenario.expected);
            assert!(found.contains(&kind), "{what}: {kind:?} is not among {found:?}");
        };
        let changed = |copy: &Copy, sql: &str| assert!(execute(&copy.url, sql) > 0, "{sql} changed nothing");
        let one_run = "run = (SELECT min(run) FROM runs WHERE workflow = 'rim')";
        check("a run is gone", &|c| changed(c, &format!("DELETE FROM runs WHERE {one_run}")), Kind::RunLost);
        check(
            "an event started a workflow twice",
            &|c| {
                let last = "SELECT max(event_id) FROM runs WHERE workflow = 'rim'";
                changed(c, &format!("UPDATE runs SET event_id = ({last}) WHERE workflow = 'rim'"));
            },
            Kind::RunDoubled,
        );
        check(
            "a run was never decided",
            &|c| changed(c, "DELETE FROM decisions WHERE workflow = 'rim'"),
            Kind::DecisionMissing,
        );
        check("an event is gone", &|c| changed(c, "DELETE FROM events WHERE source = '/tests'"), Kind::EventLost);
        check(
            "an event is undecided",
            &|c| changed(c, "UPDATE events SET state = 'undecided' WHERE source = '/tests'"),
            Kind::Undecided,
        );
        check(
            "a run goes on for ever",
            &|c| changed(c, &format!("UPDATE runs SET state = 'running', ended_at = NULL WHERE {one_run}")),
            Kind::RunOpen,
        );
        check("a journal is gone", &|c| changed(c, &format!("DELETE FROM sealed WHERE {one_run}")), Kind::Journal);
        check("a success is recorded twice", &|c| double_a_success(&c.url), Kind::SuccessDoubled);
        check(
            "an input was left",
            &|c| {
                changed(
                    c,
                    "INSERT INTO inbox (shard, run, input_id, at, body) SELECT shard, run, 'x', 0, '{}' FROM runs",
                );
            },
            Kind::Inbox,
        );
        check(
            "user code ran twice",
            &|c| {
                let text = fs::read_to_string(&c.ledger).expect("there is a ledger");
                let line = text.lines().next().expect("jobs have run");
                fs::write(&c.ledger, format!("{text}{line}\n")).expect("it can be written");
            },
            Kind::RanTwice,
        );
        check(
            "a job's success was made up",
            &|c| {
                let text = fs::read_to_string(&c.ledger).expect("there is a ledger");
                let (_, rest) = text.split_once('\n').expect("jobs have run");
                fs::write(&c.ledger, rest).expect("it can be written");
            },
            Kind::NeverRan,
        );
    });
}
