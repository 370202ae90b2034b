//! A broker that stops and comes back, one of this test's own.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use kickwheel_bus::{ProduceError, ReadError};
use tokio::time::Instant;

use crate::fixture::{Fixture, PATIENCE, read, read_until_error, require, texts};

/// A broker that ends with the test.
struct Broker {
    folder: tempfile::TempDir,
}

impl Broker {
    fn script(&self, verb: &str) -> String {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/services/kafka.sh");
        let output = Command::new(path)
            .arg(verb)
            .env("KICKWHEEL_SERVICES", self.folder.path())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "kafka.sh {verb}: {}", output.status);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn pid(&self) -> i32 {
        let status = self.script("status");
        let pid = status.split_once("pid ").and_then(|(_, rest)| rest.split_once(',')).map(|(pid, _)| pid.to_owned());
        pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("no process id in {status:?}"))
    }

    /// SIGSTOP or SIGCONT: a broker that hangs is not one that is gone.
    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.script("down");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_reading_and_writing_go_on() {
    // The same rule as for the shared broker: where none is wanted, none is started.
    if crate::fixture::broker().is_none() {
        return;
    }
    if Command::new("java").arg("-version").output().is_err() {
        return require("java");
    }
    let broker = Broker { folder: tempfile::tempdir().unwrap() };
    let address = broker.script("up");
    assert_eq!(broker.script("up"), address, "a second `up` finds the first");
    let fixture = Fixture::new(&address, 1).await;
    let id = fixture.info().await;
    let mut reader = fixture.reader(0, 0).await;
    fixture.write("k", "before").await;
    assert_eq!(texts(&read(&mut reader, 1).await), ["before"]);

    tokio::task::block_in_place(|| broker.script("stop"));
    let written = fixture.kafka.produce(&fixture.topic, Some(b"k"), Some(b"away"), &[]).await;
    assert!(matches!(written, Err(ProduceError::NotSent { .. })), "{written:?}");
    let away = reader.next(10, Duration::from_secs(2)).await;
    assert!(matches!(away, Err(ReadError::Unavailable { .. })), "{away:?}");

    tokio::task::block_in_place(|| broker.script("start"));
    assert_eq!(fixture.info().await, id, "the data was kept");
    write_until_acknowledged(&fixture, b"after").await;
    assert_eq!(texts(&read(&mut reader, 1).await), ["after"], "what was not sent is not there");

    // A broker that takes a record and does not answer: whether it is in the log cannot be known.
    tokio::task::block_in_place(|| broker.signal("-STOP"));
    let written = fixture.kafka.produce(&fixture.topic, Some(b"k"), Some(b"hung"), &[]).await;
    tokio::task::block_in_place(|| broker.signal("-CONT"));
    assert!(matches!(written, Err(ProduceError::Unknown { .. })), "{written:?}");
    write_until_acknowledged(&fixture, b"last").await;
    let mut seen = Vec::new();
    while seen.last().map(String::as_str) != Some("last") {
        seen.extend(texts(&read(&mut reader, 1).await));
    }
    assert!(seen == ["hung", "last"] || seen == ["last"], "{seen:?}");

    // All is lost, and made again: the offsets of the old log mean nothing in the new one.
    tokio::task::block_in_place(|| broker.script("wipe"));
    fixture.create(1, &[]).await;
    write_until_acknowledged(&fixture, b"anew").await;
    let (records, error) = read_until_error(&mut reader).await;
    assert!(records.is_empty(), "{records:?}");
    assert!(matches!(error, ReadError::Recreated { .. }), "{error:?}");
    let mut accepted = fixture.reader(0, 0).await;
    assert_eq!(texts(&read(&mut accepted, 1).await), ["anew"]);
}

/// Tries again as a spool does: while nothing was sent.
async fn write_until_acknowledged(fixture: &Fixture, payload: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fixture.kafka.produce(&fixture.topic, Some(b"k"), Some(payload), &[]).await {
            Ok(_) => return,
            Err(ProduceError::NotSent { .. }) if Instant::now() < deadline => {}
            Err(error) => panic!("failed to {error}"),
        }
    }
}
