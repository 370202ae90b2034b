//! A disk without any room: the engine pauses, says so, and carries on when there is room again. Nothing is lost.
//!
//! The disks are small file systems in memory, which takes the right to mount. On SQLite it is the disk of the data
//! folder, so that jobs, logs and artifacts meet it too; on Postgres that of a whole cluster, whose server panics when it
//! cannot write its log and is started again.

use std::fs;

use kickwheel_tests::{
    cluster::{Cluster, SmallDisk},
    harness::{Database, Engine, Setup, send, skip},
    wait::within,
};

use crate::{
    lost_database::{carries_on, is_paused},
    wheel::Scenario,
};

/// Of the SQLite data folder.
const SMALL: u64 = 8 << 20;
/// Of the Postgres cluster.
const MEDIUM: u64 = 256 << 20;

/// A job that goes on while the disk is full, and writes nothing meanwhile.
const GATED: &str = r#"
version: 1
name: wheel
on: {event: {type: dev.example.kick}}
steps:
  long:
    run: |
      echo "$KICKWHEEL_ATTEMPT" >> {ledger}
      while [ ! -e {folder}/gate ]; do sleep 0.05; done
  after: {needs: [long], run: 'echo "$KICKWHEEL_ATTEMPT" >> {ledger}'}
"#;

fn disk(bytes: u64) -> Option<(tempfile::TempDir, SmallDisk)> {
    let folder = tempfile::Builder::new().prefix("kickwheel-disk-").tempdir().expect("a folder can be made");
    // The server of a cluster is another user's.
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    let disk = SmallDisk::mount(&folder.path().join("disk"), bytes)?;
    Some((folder, disk))
}

#[test]
fn a_full_disk_pauses_sqlite_until_there_is_room() {
    let Some((_folder, disk)) = disk(SMALL) else { return skip("there is no right to mount a small disk") };
    let setup = Setup { data: Some(disk.path.clone()), ..Setup::default() };
    let mut engine = Engine::with(Database::Sqlite, setup);
    engine.submit(GATED).wait_for_ledger(1);
    let ballast = disk.fill();
    is_paused(&mut engine);
    fs::remove_file(ballast).expect("the ballast is there");
    carries_on(&mut engine);
}

#[test]
fn a_disk_that_fills_up_while_everything_turns_loses_nothing() {
    let Some((_folder, disk)) = disk(SMALL) else { return skip("there is no right to mount a small disk") };
    let setup = Setup { data: Some(disk.path.clone()), ..Setup::default() };
    let mut scenario = Scenario::begin(Engine::with(Database::Sqlite, setup));
    scenario.send();
    scenario.send();
    let ballast = disk.fill();
    scenario.send();
    scenario.engine.wait_for_health("paused");
    // A full disk must not keep the engine from coming back once there is room, also after a kill.
    scenario.engine.kill9();
    fs::remove_file(ballast).expect("the ballast is there");
    scenario.engine.restart();
    // A job that itself had to write to the full disk fails as it would anywhere; all others have succeeded.
    scenario.check_ended();
}

#[test]
fn a_full_disk_pauses_postgres_until_there_is_room() {
    let Some((_folder, disk)) = disk(MEDIUM) else { return skip("there is no right to mount a small disk") };
    let Some(mut cluster) = Cluster::make(&disk.path) else {
        return skip("there are no programs of a Postgres server");
    };
    let setup = Setup { url: Some(cluster.url()), ..Setup::default() };
    let mut engine = Engine::with(Database::Postgres, setup);
    engine.submit(GATED).wait_for_ledger(1);
    let ballast = disk.fill();
    // Small writes fit into the last segment of the server's log; large ones soon need another.
    within(std::time::Duration::from_secs(120), "the server or the engine refuses writes", || {
        for n in 0..20 {
            let _ = send(engine.api(), &format!("fill-{n}-{}", rand::random::<u32>()));
        }
        let paused = engine.api().try_get("health").is_ok_and(|a| a.body["state"] == "paused");
        (cluster.has_ended() || paused).then_some(())
    });
    is_paused(&mut engine);
    fs::remove_file(ballast).expect("the ballast is there");
    cluster.stop();
    cluster.start();
    engine.wait_for_health("ok");
    engine.open_gate("gate").wait_for("succeeded");
    let owed = engine.runs().len();
    kickwheel_tests::wait::until("every run has ended", || {
        let runs = engine.runs();
        (runs.len() >= owed && runs.iter().all(|r| r["state"] == "succeeded")).then_some(())
    });
    let violations = kickwheel_tests::checker::check(&engine.database_url(), &engine.ledger(), &Default::default());
    assert!(violations.is_empty(), "{}\n{}", crate::wheel::list(&violations), cluster.log());
}

#[test]
fn a_stopped_postgres_server_pauses_the_engine_until_it_is_back() {
    let Some((_folder, disk)) = disk(MEDIUM) else { return skip("there is no right to mount a small disk") };
    let Some(mut cluster) = Cluster::make(&disk.path) else {
        return skip("there are no programs of a Postgres server");
    };
    let setup = Setup { url: Some(cluster.url()), ..Setup::default() };
    let mut engine = Engine::with(Database::Postgres, setup);
    engine.submit(GATED).wait_for_ledger(1);
    cluster.stop();
    is_paused(&mut engine);
    cluster.start();
    carries_on(&mut engine);
}
