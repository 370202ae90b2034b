//! The spool and the way that ingress takes.

use std::time::Instant;

use kickwheel_store::{
    Store, Write, WriteError,
    rows::{BusModeRow, SpoolDepth},
    write::{self, BusMode},
};
use sqlx::{Connection as _, PgConnection};

use crate::fixture::{self, AT, DEADLINE, Fixture, PROJECT, assert_stale, event};

fn spool(key: &str, ingress: bool) -> write::Spool {
    write::Spool {
        key: key.into(),
        project: PROJECT.into(),
        channel: "webhook".into(),
        event: event("s", "main", key),
        at: AT,
        ingress,
    }
}

fn ingress(key: &str) -> Write {
    Write::Spool(spool(key, true))
}

fn own(key: &str) -> Write {
    Write::Spool(spool(key, false))
}

fn mode(mode: BusMode) -> Write {
    Write::SetBusMode(write::SetBusMode { mode, at: AT.plus(7) })
}

fn unspool(keys: &[&str]) -> Write {
    Write::Unspool(write::Unspool { keys: keys.iter().map(|key| (*key).to_owned()).collect() })
}

async fn keys(store: &Store) -> Vec<String> {
    store.spooled(0).await.unwrap().into_iter().map(|row| row.key).collect()
}

pub async fn ingress_is_spooled_only_in_that_mode(fixture: Fixture) {
    let store = fixture.open().await;
    let before = store.bus_mode().await.unwrap();
    assert_eq!((before.mode, before.since.0), (BusMode::Direct, 0));
    assert_stale(store.write(vec![ingress("1")]).await, "the mode is direct");
    // What we cause ourselves goes through the spool in any mode.
    store.write(vec![own("2")]).await.unwrap();
    // The unit that turns may bring the first of them; the turn counts from its place in the unit on.
    assert_stale(store.write(vec![ingress("3"), mode(BusMode::Spool)]).await, "the mode is direct");
    assert_eq!(store.bus_mode().await.unwrap(), before);
    store.write(vec![mode(BusMode::Spool), ingress("3")]).await.unwrap();
    assert_eq!(store.bus_mode().await.unwrap(), BusModeRow { mode: BusMode::Spool, since: AT.plus(7) });
    store.write(vec![ingress("1"), own("4")]).await.unwrap();
    assert_eq!(keys(&store).await, ["1", "2", "3", "4"]);
    let bad = write::Spool { event: event("", "main", "5"), ..spool("5", false) };
    assert!(matches!(store.write(vec![Write::Spool(bad)]).await, Err(WriteError::Invalid { .. })));
}

pub async fn the_spool_keeps_its_order_and_each_key_once(fixture: Fixture) {
    let store = fixture.open().await;
    assert_eq!(store.spool_depth().await.unwrap(), SpoolDepth::default());
    let late = write::Spool { at: AT.plus(5), ..spool("b", false) };
    store.write(vec![mode(BusMode::Spool), Write::Spool(late.clone()), ingress("a"), ingress("c")]).await.unwrap();
    let again = write::Spool { event: event("s", "main", "another"), ..spool("a", true) };
    store.write(vec![Write::Spool(again)]).await.unwrap();
    let rows = store.spooled(2).await.unwrap();
    assert_eq!(rows, [spool("a", true), late]);
    assert_eq!(store.spool_depth().await.unwrap(), SpoolDepth { events: 3, ingress: 2, oldest_at: Some(AT) });
    store.write(vec![unspool(&["a", "unknown"])]).await.unwrap();
    let depth = SpoolDepth { events: 2, ingress: 1, oldest_at: Some(AT.plus(5)) };
    assert_eq!(store.spool_depth().await.unwrap(), depth);
    assert_eq!(keys(&store).await, ["b", "c"]);
}

pub async fn direct_waits_until_the_ingress_is_drained(fixture: Fixture) {
    let store = fixture.open().await;
    store.write(vec![mode(BusMode::Spool), ingress("1"), own("2"), ingress("3")]).await.unwrap();
    assert_stale(store.write(vec![mode(BusMode::Direct)]).await, "still holds ingress");
    assert_stale(store.write(vec![unspool(&["1"]), mode(BusMode::Direct)]).await, "still holds ingress");
    assert_eq!(keys(&store).await, ["1", "2", "3"]);
    // What we cause ourselves does not hold it up.
    store.write(vec![unspool(&["1", "3"]), mode(BusMode::Direct)]).await.unwrap();
    assert_eq!(store.bus_mode().await.unwrap().mode, BusMode::Direct);
    assert_eq!(keys(&store).await, ["2"]);
    assert_stale(store.write(vec![ingress("4")]).await, "the mode is direct");
    // Setting what is set changes nothing, not even since when.
    let later = write::SetBusMode { mode: BusMode::Direct, at: AT.plus(99) };
    store.write(vec![Write::SetBusMode(later)]).await.unwrap();
    assert_eq!(store.bus_mode().await.unwrap().since, AT.plus(7));
}

/// Waits until some session of this database waits for a lock.
async fn somebody_waits(admin: &mut PgConnection) {
    let waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let deadline = Instant::now() + DEADLINE;
    while sqlx::query(waiting).fetch_all(&mut *admin).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "nobody ever waited for the lock");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn turning_back_waits_for_ingress_that_is_being_spooled() {
    let Some(kind) = fixture::postgres() else { return };
    let fixture = Fixture::new(&kind).await;
    let (first, second) = (fixture.open().await, fixture.open().await);
    first.write(vec![mode(BusMode::Spool), own("0")]).await.unwrap();
    let mut admin = PgConnection::connect(&fixture.url).await.unwrap();
    let mut lock = PgConnection::connect(&fixture.url).await.unwrap();
    // The first replica's transaction is caught behind its spooled event: a row of the unit is locked by somebody.
    sqlx::raw_sql("BEGIN; UPDATE spool SET at = at WHERE position = '0'").execute(&mut lock).await.unwrap();
    let spooling = tokio::spawn(async move { first.write(vec![ingress("1"), unspool(&["0"])]).await });
    somebody_waits(&mut admin).await;
    let turning = tokio::spawn(async move { second.write(vec![mode(BusMode::Direct)]).await });
    let two = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let deadline = Instant::now() + DEADLINE;
    while sqlx::query(two).fetch_all(&mut admin).await.unwrap().len() < 2 {
        assert!(!turning.is_finished(), "it turned back beside an event that was being spooled");
        assert!(Instant::now() < deadline, "the second never waited");
        tokio::task::yield_now().await;
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut lock).await.unwrap();
    spooling.await.unwrap().unwrap();
    assert_stale(turning.await.unwrap(), "still holds ingress");
    fixture.remove().await;
}

#[tokio::test]
async fn spooling_waits_for_a_mode_that_is_being_turned() {
    let Some(kind) = fixture::postgres() else { return };
    let fixture = Fixture::new(&kind).await;
    let store = fixture.open().await;
    store.write(vec![mode(BusMode::Spool)]).await.unwrap();
    let mut admin = PgConnection::connect(&fixture.url).await.unwrap();
    let mut turning = PgConnection::connect(&fixture.url).await.unwrap();
    sqlx::raw_sql("BEGIN; UPDATE bus_mode SET mode = 'direct'").execute(&mut turning).await.unwrap();
    let spooling = tokio::spawn({
        let store = store.clone();
        async move { store.write(vec![ingress("1")]).await }
    });
    somebody_waits(&mut admin).await;
    sqlx::raw_sql("COMMIT").execute(&mut turning).await.unwrap();
    assert_stale(spooling.await.unwrap(), "the mode is direct");
    assert_eq!(keys(&store).await, [] as [String; 0]);
    fixture.remove().await;
}
