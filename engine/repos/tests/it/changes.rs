//! Changed paths come from trees, whatever was announced.

use std::time::{Duration, Instant};

use kickwheel_repos::{ChangedPaths, FetchError, Fetched, PushRange};
use kickwheel_schemas::payload::{AnnouncedPaths, GitRefChange};

use crate::fixture::Fixture;

fn paths(expected: &[&str]) -> Result<Vec<String>, String> {
    Ok(expected.iter().map(|path| (*path).to_owned()).collect())
}

#[tokio::test]
async fn the_mirror_counts_when_the_announced_list_lies() {
    let fixture = Fixture::new();
    let before = fixture.push_file("src/train.py", "1");
    let after = fixture.push_file("src/model.py", "2");
    let announced = GitRefChange {
        before: Some(before.clone()),
        after: Some(after.clone()),
        changed_paths: Some(AnnouncedPaths::Complete(vec!["docs/readme.md".into()])),
        ..GitRefChange::default()
    };
    let range = PushRange {
        before: announced.before.clone(),
        after: announced.after.clone().expect("set above"),
        branch: "main".into(),
        default_branch: None,
    };
    let id = fixture.mirror().await;
    let seen = fixture.mirrors.changed_paths(&id, &range).await.expect("the origin is reachable");
    assert_eq!(seen, ChangedPaths::Complete(vec![b"src/model.py".to_vec()]));
}

#[tokio::test]
async fn a_rename_counts_under_both_names() {
    let fixture = Fixture::new();
    let before = fixture.push_file("old.py", "the same content in both places\n");
    fixture.git(&["mv", "old.py", "new.py"]);
    let after = fixture.commit("move");
    fixture.push("main");
    assert_eq!(fixture.changed(Some(&before), &after, "main").await, paths(&["new.py", "old.py"]));
}

#[tokio::test]
async fn additions_changes_deletions_modes_and_types_all_count() {
    let fixture = Fixture::new();
    for name in ["changed", "deleted", "mode", "type", "same"] {
        fixture.write(name.as_bytes(), "1");
    }
    let before = fixture.commit("one");
    fixture.write(b"added", "1");
    fixture.write(b"changed", "2");
    fixture.git(&["rm", "-q", "deleted"]);
    fixture.git(&["update-index", "--chmod=+x", "mode"]);
    std::fs::remove_file(fixture.work().join("type")).expect("it exists");
    std::os::unix::fs::symlink("same", fixture.work().join("type")).expect("a link");
    fixture.git(&["add", "added", "changed", "type"]);
    fixture.git(&["commit", "-q", "-m", "two"]);
    let after = fixture.git(&["rev-parse", "HEAD"]);
    fixture.push("main");
    let expected = paths(&["added", "changed", "deleted", "mode", "type"]);
    assert_eq!(fixture.changed(Some(&before), &after, "main").await, expected);
}

#[tokio::test]
async fn paths_are_bytes_and_are_never_split() {
    let fixture = Fixture::new();
    let before = fixture.push_file("a", "1");
    for name in
        [b"data/\xff\xfe.csv".as_slice(), b"tab\there", b"new\nline", b"quote\"s and space", "\u{fc}".as_bytes()]
    {
        fixture.write(name, "x");
    }
    let after = fixture.commit("odd names");
    fixture.push("main");
    let expected = paths(&[r"data/\xff\xfe.csv", r"new\nline", r#"quote\"s and space"#, r"tab\there", r"\xc3\xbc"]);
    assert_eq!(fixture.changed(Some(&before), &after, "main").await, expected);
}

#[tokio::test]
async fn a_first_push_changes_everything() {
    let fixture = Fixture::new();
    fixture.write(b"a", "1");
    fixture.write(b"b/c", "1");
    let after = fixture.commit("first");
    fixture.push("main");
    assert_eq!(fixture.changed(None, &after, "main").await, paths(&["a", "b/c"]));
}

#[tokio::test]
async fn a_new_branch_counts_from_where_it_left_the_default_branch() {
    let fixture = Fixture::new();
    fixture.push_file("base", "1");
    fixture.git(&["checkout", "-q", "-b", "topic"]);
    fixture.write(b"on-topic", "1");
    let topic = fixture.commit("topic");
    fixture.push("topic");
    fixture.git(&["checkout", "-q", "main"]);
    fixture.push_file("later-on-main", "1");
    assert_eq!(fixture.changed(None, &topic, "topic").await, paths(&["on-topic"]));
}

#[tokio::test]
async fn a_new_branch_without_common_history_counts_whole() {
    let fixture = Fixture::new();
    fixture.push_file("base", "1");
    fixture.git(&["checkout", "-q", "--orphan", "other"]);
    fixture.git(&["rm", "-q", "-rf", "."]);
    fixture.write(b"alone", "1");
    let other = fixture.commit("other");
    fixture.push("other");
    assert_eq!(fixture.changed(None, &other, "other").await, paths(&["alone"]));
}

#[tokio::test]
async fn a_new_branch_at_an_old_commit_changes_nothing() {
    let fixture = Fixture::new();
    let old = fixture.push_file("a", "1");
    fixture.push_file("b", "1");
    fixture.push(&format!("{old}:refs/heads/again"));
    assert_eq!(fixture.changed(None, &old, "again").await, paths(&[]));
}

#[tokio::test]
async fn a_force_push_is_compared_with_what_was_there_before() {
    let fixture = Fixture::new();
    fixture.push_file("kept", "1");
    let before = fixture.push_file("dropped", "1");
    fixture.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let after = fixture.push_file("instead", "1");
    // The first fetch happens after the force push, so `before` is fetched by its id alone.
    assert_eq!(fixture.changed(Some(&before), &after, "main").await, paths(&["dropped", "instead"]));
}

#[tokio::test]
async fn a_force_push_whose_before_is_gone_is_unknown() {
    let fixture = Fixture::new();
    fixture.push_file("kept", "1");
    let before = fixture.push_file("dropped", "1");
    fixture.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let after = fixture.push_file("instead", "1");
    fixture.collect_garbage();
    let reason = fixture.changed(Some(&before), &after, "main").await.expect_err("nobody has it any more");
    assert!(reason.contains(&before) && !reason.contains(&after), "{reason}");
}

#[tokio::test]
async fn the_mirror_remembers_what_the_origin_forgot() {
    let fixture = Fixture::new();
    fixture.push_file("kept", "1");
    let before = fixture.push_file("dropped", "1");
    let id = fixture.mirror().await;
    fixture.mirrors.fetch(&id, &[]).await.expect("the origin is reachable");
    fixture.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let after = fixture.push_file("instead", "1");
    fixture.collect_garbage();
    assert_eq!(fixture.changed(Some(&before), &after, "main").await, paths(&["dropped", "instead"]));
}

#[tokio::test]
async fn a_merge_counts_what_it_brought_to_the_branch() {
    let fixture = Fixture::new();
    fixture.push_file("base", "1");
    fixture.git(&["checkout", "-q", "-b", "topic"]);
    fixture.write(b"topic/a", "1");
    fixture.commit("topic");
    fixture.git(&["checkout", "-q", "main"]);
    let before = fixture.push_file("mine", "1");
    fixture.git(&["merge", "-q", "--no-ff", "-m", "merge", "topic"]);
    let after = fixture.git(&["rev-parse", "HEAD"]);
    fixture.push("main");
    assert_eq!(fixture.changed(Some(&before), &after, "main").await, paths(&["topic/a"]));
}

#[tokio::test]
async fn an_id_of_a_sha256_repository_is_unknown() {
    let fixture = Fixture::new();
    fixture.push_file("a", "1");
    let reason = fixture.changed(None, &"ab".repeat(32), "main").await.expect_err("64 digits");
    assert!(reason.contains("SHA-1"), "{reason}");
}

#[tokio::test]
async fn an_unreachable_origin_is_retried_not_unknown() {
    let fixture = Fixture::new();
    let after = fixture.push_file("a", "1");
    let id = fixture.mirror().await;
    std::fs::rename(fixture.origin(), fixture.dir.path().join("away")).expect("a rename");
    let range = PushRange { before: None, after, branch: "main".into(), default_branch: None };
    let error = fixture.mirrors.changed_paths(&id, &range).await.expect_err("it is away");
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
    std::fs::rename(fixture.dir.path().join("away"), fixture.origin()).expect("a rename");
    let seen = fixture.mirrors.changed_paths(&id, &range).await.expect("it is back");
    assert_eq!(seen, ChangedPaths::Complete(vec![b"a".to_vec()]));
}

#[tokio::test]
async fn too_many_paths_are_unknown() {
    let fixture = Fixture::new();
    let blob = fixture.plumbing(&["hash-object", "-w", "--stdin"], b"x");
    let listing: Vec<String> = (0..50_001).map(|n| format!("100644 blob {blob}\tf{n}\n")).collect();
    let tree = fixture.plumbing(&["mktree"], listing.concat().as_bytes());
    let commit = fixture.plumbing(&["commit-tree", &tree, "-m", "many"], b"");
    fixture.plumbing(&["update-ref", "refs/heads/main", &commit], b"");
    let reason = fixture.changed(None, &commit, "main").await.expect_err("above the limit");
    assert!(reason.contains("50000"), "{reason}");
}

#[tokio::test]
async fn a_thousand_files_are_quick() {
    let fixture = Fixture::new();
    let files: Vec<_> = (0..1_000).map(|n| (format!("d{}/f{n}", n % 20), n.to_string())).collect();
    let first = fixture.import(&files);
    let id = fixture.mirror().await;
    let start = Instant::now();
    let Fetched { head, .. } = fixture.mirrors.fetch(&id, &[]).await.expect("the origin is reachable");
    assert_eq!(head.expect("main exists").commit, first);
    assert_eq!(fixture.changed(None, &first, "main").await.expect("complete").len(), 1_000);
    let dest = fixture.dir.path().join("out");
    let selection = kickwheel_repos::Selection::all();
    let exported = fixture.mirrors.export(&id, &first, &selection, &dest).await.expect("a plain tree");
    assert_eq!(exported.files, 1_000);
    // Far above what it takes even in a debug build on a loaded machine, far below what one process per file would.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_commit_lies_on_a_branch_that_holds_it_and_on_a_tag_that_names_it() {
    let fixture = Fixture::new();
    let first = fixture.push_file("a", "1");
    let second = fixture.push_file("a", "2");
    fixture.git(&["tag", "-a", "-m", "a tag", "v1", &first]);
    fixture.git(&["tag", "light", &second]);
    let tag = fixture.git(&["rev-parse", "v1"]);
    fixture.git(&["checkout", "-q", "-b", "side"]);
    let third = fixture.push_file("a", "3");
    for refspec in ["side", "refs/tags/v1", "refs/tags/light"] {
        fixture.push(refspec);
    }
    let id = fixture.mirror().await;
    fixture.mirrors.fetch(&id, std::slice::from_ref(&third)).await.expect("the origin is reachable");
    let check = async |commit: &str, reference: &str, expected: bool| {
        let found = fixture.mirrors.lies_on(&id, commit, reference).await.expect("the mirror is readable");
        assert_eq!(found, expected, "{commit} on {reference}");
    };
    check(&first, "refs/heads/main", true).await;
    check(&second, "refs/heads/main", true).await;
    check(&third, "refs/heads/main", false).await;
    check(&third, "refs/heads/side", true).await;
    check(&first, "refs/heads/nowhere", false).await;
    check("0000000000000000000000000000000000000001", "refs/heads/main", false).await;
    check("main", "refs/heads/main", false).await;
    // A tag is one commit: itself, by the tag's own id too, and none before it.
    check(&tag, "refs/tags/v1", true).await;
    check(&first, "refs/tags/v1", true).await;
    check(&first, "refs/tags/light", false).await;
    assert_eq!(fixture.mirrors.commit_of(&id, &tag).await.expect("readable"), Some(first));
}
