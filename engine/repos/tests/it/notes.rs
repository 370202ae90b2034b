//! Notes in the origin, read back with the real `git`.

use std::fs;

use kickwheel_repos::NoteError;

use crate::fixture::{Fixture, run};

fn shown(fixture: &Fixture, commit: &str) -> String {
    fixture.run(&["notes", "--ref=kickwheel", "show", commit], &fixture.origin())
}

#[tokio::test]
async fn git_shows_what_was_written() {
    let fixture = Fixture::new();
    let commit = fixture.push_file("a", "1");
    let id = fixture.mirror().await;
    assert_eq!(fixture.mirrors.read_note(&id, &commit).await.expect("reachable"), None);
    fixture.mirrors.add_note(&id, &commit, run("r1"), "running").await.expect("reachable");
    fixture.mirrors.add_note(&id, &commit, run("r2"), "succeeded\nauc 0.91").await.expect("reachable");
    fixture.mirrors.add_note(&id, &commit, run("r1"), "failed").await.expect("reachable");
    let expected = "run: r1\nfailed\n\nrun: r2\nsucceeded\nauc 0.91";
    assert_eq!(shown(&fixture, &commit), expected);
    assert_eq!(fixture.mirrors.read_note(&id, &commit).await.expect("reachable"), Some(format!("{expected}\n")));
    let count = || fixture.run(&["rev-list", "--count", "refs/notes/kickwheel"], &fixture.origin());
    assert_eq!(count(), "3");
    fixture.mirrors.add_note(&id, &commit, run("r1"), "failed").await.expect("reachable");
    assert_eq!(count(), "3", "the same text again writes nothing");
    fixture.run(&["fsck", "--full", "--strict"], &fixture.origin());
}

#[tokio::test]
async fn a_note_written_by_git_is_kept_and_fanned_out_trees_are_read() {
    let fixture = Fixture::new();
    let commit = fixture.push_file("a", "1");
    fixture.run(&["notes", "--ref=kickwheel", "add", "-m", "by a person", &commit], &fixture.origin());
    // The layout that git uses for very many notes: subfolders by the leading digits.
    let blob = fixture.plumbing(&["rev-parse", &format!("refs/notes/kickwheel:{commit}")], b"");
    let inner = fixture.plumbing(&["mktree"], format!("100644 blob {blob}\t{}\n", &commit[2..]).as_bytes());
    let outer = fixture.plumbing(&["mktree"], format!("040000 tree {inner}\t{}\n", &commit[..2]).as_bytes());
    let notes = fixture.plumbing(&["commit-tree", &outer, "-m", "fanned out"], b"");
    fixture.plumbing(&["update-ref", "refs/notes/kickwheel", &notes], b"");
    let id = fixture.mirror().await;
    fixture.mirrors.add_note(&id, &commit, run("r1"), "ok").await.expect("reachable");
    assert_eq!(shown(&fixture, &commit), "by a person\n\nrun: r1\nok");
}

#[tokio::test]
async fn many_notes_fan_out_and_git_still_finds_each() {
    const NOTES: usize = 270;
    let fixture = Fixture::new();
    // One process makes all the commits, each the child of the one before.
    let stream: Vec<String> = (0..NOTES)
        .map(|n| format!("commit refs/heads/main\ncommitter Ada <ada@example.org> {n} +0000\ndata 0\n\n"))
        .collect();
    fixture.plumbing(&["fast-import", "--quiet"], stream.concat().as_bytes());
    let listed = fixture.run(&["rev-list", "main"], &fixture.origin());
    let commits: Vec<&str> = listed.lines().collect();
    assert_eq!(commits.len(), NOTES);
    let id = fixture.mirror().await;
    for commit in &commits {
        fixture.mirrors.add_note(&id, commit, run("r"), commit).await.expect("reachable");
    }
    let listed = fixture.run(&["notes", "--ref=kickwheel", "list"], &fixture.origin());
    assert_eq!(listed.lines().count(), commits.len());
    for commit in [commits[0], commits[255], commits[256], commits[NOTES - 1]] {
        assert_eq!(shown(&fixture, commit), format!("run: r\n{commit}"));
    }
    let entries = fixture.run(&["ls-tree", "refs/notes/kickwheel"], &fixture.origin());
    assert!(entries.lines().any(|line| line.starts_with("040000")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_at_the_same_time_lose_nothing() {
    let fixture = Fixture::new();
    let commits = [fixture.push_file("a", "1"), fixture.push_file("b", "1")];
    let id = fixture.mirror().await;
    // A note of the real git, on a commit of its own, must survive. Not at the same time: `git notes` moves the ref without
    // comparing, so it would lose notes of ours that were written while it ran.
    let mine = fixture.plumbing(&["commit-tree", &fixture.git(&["rev-parse", "HEAD^{tree}"]), "-m", "mine"], b"");
    fixture.run(&["notes", "--ref=kickwheel", "add", "-m", "git was here", &mine], &fixture.origin());
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (mirrors, id, commits) = (fixture.mirrors.clone(), id.clone(), commits.clone());
            tokio::spawn(async move {
                for round in 0..5 {
                    for commit in &commits {
                        let text = format!("round {round}");
                        mirrors.add_note(&id, commit, run(&format!("w{writer}")), &text).await.expect("reachable");
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no writer panics");
    }
    for commit in &commits {
        let note = shown(&fixture, commit);
        let mut sections: Vec<&str> = note.split("\n\n").collect();
        sections.sort_unstable();
        let expected: Vec<String> = (0..8).map(|writer| format!("run: w{writer}\nround 4")).collect();
        assert_eq!(sections, expected);
    }
    assert_eq!(shown(&fixture, &mine), "git was here");
    assert!(!fixture.origin().join("refs/notes/kickwheel.lock").exists());
}

#[tokio::test]
async fn a_lock_that_a_crash_left_is_broken_once_it_is_old() {
    let fixture = Fixture::new();
    let commit = fixture.push_file("a", "1");
    let lock = fixture.origin().join("refs/notes/kickwheel.lock");
    fs::create_dir_all(lock.parent().expect("below refs")).expect("a folder");
    let file = fs::File::create(&lock).expect("a file");
    let old = std::time::SystemTime::now() - std::time::Duration::from_mins(2);
    file.set_modified(old).expect("our own file");
    let id = fixture.mirror().await;
    fixture.mirrors.add_note(&id, &commit, run("r1"), "ok").await.expect("the lock is old");
    assert_eq!(shown(&fixture, &commit), "run: r1\nok");
}

#[tokio::test]
async fn what_cannot_be_written_is_refused() {
    let fixture = Fixture::new();
    let commit = fixture.push_file("a", "1");
    let id = fixture.mirror().await;
    let write = async |commit: &str, key: &str, text: &str| {
        fixture.mirrors.add_note(&id, commit, run(key), text).await.expect_err("refused")
    };
    assert!(matches!(write(&"11".repeat(20), "r", "x").await, NoteError::NoCommit { .. }));
    assert!(matches!(write(&commit, "a\nb", "x").await, NoteError::BadKey(_)));
    assert!(matches!(write(&commit, "r", &"x".repeat(64 * 1024 + 1)).await, NoteError::TooLong(_)));
    assert!(!fixture.origin().join("refs/notes/kickwheel").exists());
    std::fs::remove_dir_all(fixture.origin()).expect("our own folder");
    assert!(matches!(write(&commit, "r", "x").await, NoteError::Origin(_)));
}
