//! `hook post-receive`: what Git calls after a push. Records it in the spool, then nudges the server.
//!
//! The spool file is the record: it is on the disk before Git tells the pusher that the push is done, whether or not a
//! server runs. A push is never refused or held up because of us, so this always ends with 0; what could not be recorded
//! is said loudly, and what was pushed must be pushed again or started by hand.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::Path,
    time::Duration,
};

use kickwheel_schemas::{Millis, api::PostReceive};
use serde_json::json;

use super::Session;
use crate::{
    args::{Global, Hook},
    client::Client,
    exit::{Exit, Outcome},
    places,
};

/// How long the server may take to hear of it.
const NUDGE_LIMIT: Duration = Duration::from_secs(1);
/// Bytes of Git's lines that are read: some hundred thousand refs.
const MAX_STDIN_BYTES: u64 = 64 * 1024 * 1024;
/// Push options that are kept; Git itself has no limit.
const MAX_PUSH_OPTIONS: usize = 100;
/// Who pushed, by the forge's own variable first.
const ACTORS: [&str; 5] = ["GL_USERNAME", "GL_ID", "REMOTE_USER", "USER", "LOGNAME"];

/// `hook …`.
pub async fn hook(session: &Session, hook: Hook) -> Outcome {
    match hook {
        Hook::PostReceive { repo } => {
            post_receive(&session.global, repo).await;
            Ok(Exit::Ok)
        }
    }
}

async fn post_receive(global: &Global, repo: String) {
    let mut bytes = Vec::new();
    let read = io::stdin().lock().take(MAX_STDIN_BYTES).read_to_end(&mut bytes);
    let push = push(repo, &bytes, |name| std::env::var_os(name), Millis::now());
    let refs = push.lines_hex.len();
    if refs == 0 && read.is_ok() {
        return;
    }
    let recorded = read.map_err(|e| format!("cannot read Git's lines: {e}")).and_then(|_| {
        let data = places::data_folder(global).map_err(|f| f.message)?;
        record(&data.join("spool").join("git"), &push).map_err(|e| format!("cannot write to {}: {e}", data.display()))
    });
    if let Err(why) = recorded {
        eprintln!("kickwheel: ERROR: this push was NOT recorded and starts no workflow: {why}");
        eprintln!("kickwheel: the push itself is fine; mend this and push again, or start the workflow by hand");
        return;
    }
    let down = if nudged(global).await { "" } else { "; the engine is down and will pick it up" };
    eprintln!("kickwheel: {refs} ref{} recorded{down}", if refs == 1 { "" } else { "s" });
}

/// What Git told us, on stdin and in the environment.
fn push(repo: String, lines: &[u8], variable: impl Fn(&str) -> Option<OsString>, now: Millis) -> PostReceive {
    let text = |name: &str| variable(name).and_then(|v| v.into_string().ok()).filter(|v| !v.is_empty());
    let count: usize = text("GIT_PUSH_OPTION_COUNT").and_then(|n| n.parse().ok()).unwrap_or(0);
    PostReceive {
        delivery: uuid::Uuid::now_v7().to_string(),
        repo,
        lines_hex: lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(hex::encode).collect(),
        push_options: (0..count.min(MAX_PUSH_OPTIONS))
            .filter_map(|n| variable(&format!("GIT_PUSH_OPTION_{n}")))
            .map(|v| v.to_string_lossy().into_owned())
            .collect(),
        actor: ACTORS.iter().find_map(|name| text(name)),
        traceparent: text("TRACEPARENT"),
        time: now.to_rfc3339(),
    }
}

/// Writes the push so that after a crash it is there whole or not at all. Names sort by time: the order of pushes.
fn record(spool: &Path, push: &PostReceive) -> io::Result<()> {
    fs::create_dir_all(spool)?;
    let time = push.time.replace(':', "");
    let name = format!("{time}-{}.json", push.delivery);
    let temporary = spool.join(format!(".{name}.tmp"));
    let written = (|| {
        let mut file = File::create_new(&temporary)?;
        file.write_all(&serde_json::to_vec(push)?)?;
        file.sync_all()?;
        fs::rename(&temporary, spool.join(&name))?;
        File::open(spool)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Whether a server heard of it. It reads the spool anyway; this saves waiting for its next look.
async fn nudged(global: &Global) -> bool {
    // The hook runs in the pusher's environment, which may name another server: the data folder decides.
    let own = Global { data: global.data.clone(), ..Global::default() };
    let nudge = async { Client::find(&own).ok()?.post_nothing(&["hooks", "git"], &json!({})).await.ok() };
    matches!(tokio::time::timeout(NUDGE_LIMIT, nudge).await, Ok(Some(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> PostReceive {
        let variable = |name: &str| match name {
            "GIT_PUSH_OPTION_COUNT" => Some(OsString::from("2")),
            "GIT_PUSH_OPTION_0" => Some(OsString::from("ci.skip")),
            "GIT_PUSH_OPTION_1" => Some(OsString::from("why=now")),
            "USER" => Some(OsString::from("ann")),
            "TRACEPARENT" => Some(OsString::from("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
            _ => None,
        };
        push("churn".to_owned(), b"a b refs/heads/main\nc d refs/heads/\xff\n", variable, Millis(0))
    }

    #[test]
    fn lines_are_kept_byte_for_byte_and_the_environment_is_read() {
        let push = sample();
        let lines: Vec<Vec<u8>> = push.lines_hex.iter().map(|l| hex::decode(l).expect("hex")).collect();
        assert_eq!(lines, [b"a b refs/heads/main".to_vec(), b"c d refs/heads/\xff".to_vec()]);
        assert_eq!(push.push_options, ["ci.skip", "why=now"]);
        assert_eq!(push.actor.as_deref(), Some("ann"));
        assert_eq!(push.traceparent.as_deref(), Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    }

    #[test]
    fn a_record_is_one_whole_file_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = folder.path().join("spool/git");
        let push = sample();
        record(&spool, &push).expect("written");
        let files: Vec<_> = fs::read_dir(&spool).expect("there").map(|f| f.expect("readable").path()).collect();
        let [file] = files.as_slice() else { panic!("{files:?}") };
        let name = file.file_name().and_then(|n| n.to_str()).expect("UTF-8");
        assert!(name.starts_with("1970-01-01T000000") && name.ends_with(".json"), "{name}");
        let back: PostReceive = serde_json::from_slice(&fs::read(file).expect("readable")).expect("it is JSON");
        assert_eq!(back, push);
    }

    #[test]
    fn a_spool_that_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = folder.path().join("spool");
        fs::write(&spool, "a file is in the way").expect("written");
        assert!(record(&spool.join("git"), &sample()).is_err());
    }
}
