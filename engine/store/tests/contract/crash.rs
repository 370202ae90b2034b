//! SIGKILL: what was acknowledged is there.
//!
//! The child is this test binary, started again for [`child`] alone. It appends without end and prints a line after each
//! acknowledgement; the parent kills it in the middle, and reads the store.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use futures::future::join_all;
use kickwheel_schemas::RunId;
use kickwheel_store::{Store, Write};

use crate::fixture::{Fixture, LEASE, append, events_of, started};

const CHILD: &str = "KICKWHEEL_STORE_CRASH_CHILD";
/// Acknowledgements after which the child is killed; it is killed several times on the same database.
const KILL_AFTER: [usize; 3] = [10, 200, 700];

pub async fn nothing_acknowledged_is_lost_when_the_process_is_killed(fixture: Fixture) {
    for (round, kill_after) in KILL_AFTER.into_iter().enumerate() {
        let url = format!("{round} {}", fixture.url);
        let acknowledged = tokio::task::spawn_blocking(move || run_and_kill(&url, kill_after)).await.unwrap();
        let store = fixture.open().await;
        for (run, count) in acknowledged {
            let run: RunId = run.parse().unwrap();
            let events = events_of(&store, run).await;
            assert!(events.len() > count, "run {run}: {} of {} events are left", events.len(), count + 1);
            let whole = events.iter().skip(1).enumerate().all(|(n, event)| *event == format!("event {}", n + 1));
            assert!(whole, "run {run} holds {events:?}");
            // The row and the journal were written together.
            assert_eq!(store.run(run).await.unwrap().unwrap().next_seq, events.len() as u64);
        }
        store.close().await;
    }
}

/// Gives, for each run, the highest sequence number that was acknowledged.
fn run_and_kill(url: &str, kill_after: usize) -> BTreeMap<String, usize> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child", "--nocapture"])
        .env(CHILD, url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = BTreeMap::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut take = |line: String| {
        let mut words = line.split(' ');
        if let (Some("acknowledged"), Some(run), Some(seq)) = (words.next(), words.next(), words.next()) {
            acknowledged.insert(run.to_owned(), seq.parse().unwrap());
            return 1;
        }
        0
    };
    let mut count = 0;
    while count < kill_after {
        count += take(lines.next().expect("the child writes until it is killed").unwrap());
    }
    child.kill().unwrap();
    // What it had printed before it died counts too; a last line may be cut off.
    while let Some(Ok(line)) = lines.next() {
        if line.ends_with('.') {
            take(line);
        }
    }
    child.wait().unwrap();
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(argument) = std::env::var(CHILD) else { return };
    let (round, url) = argument.split_once(' ').unwrap();
    let store = Store::open(url).await.unwrap();
    let lease = store.acquire("child", 1, LEASE, true).await.unwrap()[0];
    let writers = (0..16).map(|n| {
        let (store, id) = (store.clone(), format!("{round} {n}"));
        tokio::spawn(async move {
            let run = started(&store, lease, &id).await;
            for seq in 1.. {
                let event = format!("event {seq}");
                store.write(vec![Write::Append(append(lease, run, seq, &[&event]))]).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "acknowledged {run} {seq} .").unwrap();
                out.flush().unwrap();
            }
        })
    });
    join_all(writers).await;
}
