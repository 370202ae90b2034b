//! Source trees: exported, digested, selected.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use kickwheel_repos::{ExportError, Exported, MirrorId, Selection};

use crate::fixture::{Fixture, listing};

async fn fetched(fixture: &Fixture) -> MirrorId {
    let id = fixture.mirror().await;
    fixture.mirrors.fetch(&id, &[]).await.expect("the origin is reachable");
    id
}

fn selection(globs: &[&str]) -> Selection {
    Selection::new(globs).expect("valid globs")
}

/// Exports into a fresh folder.
async fn export(fixture: &Fixture, commit: &str, globs: &[&str]) -> Result<(Exported, PathBuf), ExportError> {
    let id = fetched(fixture).await;
    let dest = fixture.dir.path().join(format!("out-{}", globs.join("_").replace(['/', '*', '!'], "x")));
    let exported = fixture.mirrors.export(&id, commit, &selection(globs), &dest).await?;
    Ok((exported, dest))
}

/// Commits a tree that `git add` would not make, from lines of `git mktree`.
fn commit_tree(fixture: &Fixture, entries: &str) -> String {
    let tree = fixture.plumbing(&["mktree", "--missing"], entries.as_bytes());
    let commit = fixture.plumbing(&["commit-tree", &tree, "-m", "made by hand"], b"");
    fixture.plumbing(&["update-ref", "refs/heads/main", &commit], b"");
    commit
}

#[tokio::test]
async fn a_tree_is_written_with_modes_links_and_odd_names() {
    let fixture = Fixture::new();
    fixture.write(b"src/train.py", "print(1)\n");
    fixture.write(b"bin/tool.sh", "#!/bin/sh\n");
    fixture.write(b"odd\xff\n", "x");
    fixture.write(b".kickwheel/train.yaml", "version: 1\n");
    fixture.write(b"sub/.kickwheel/kept", "x");
    fs::set_permissions(fixture.work().join("bin/tool.sh"), fs::Permissions::from_mode(0o755)).expect("our file");
    std::os::unix::fs::symlink("../src/train.py", fixture.work().join("bin/link")).expect("a link");
    let commit = fixture.commit("all kinds");
    fixture.push("main");
    let (exported, dest) = export(&fixture, &commit, &[]).await.expect("a plain tree");
    assert_eq!(exported, Exported { files: 4, bytes: 21, links: 1, submodules: vec![] });
    assert_eq!(listing(&dest), ["bin/link", "bin/tool.sh", r"odd\xff\n", "src/train.py", "sub/.kickwheel/kept"]);
    assert_eq!(fs::read_to_string(dest.join("bin/link")).expect("it leads to a file"), "print(1)\n");
    let executable = |name: &str| fs::metadata(dest.join(name)).expect("a file").permissions().mode() & 0o111;
    assert_eq!((executable("bin/tool.sh"), executable("src/train.py")), (0o111, 0));
}

#[tokio::test]
async fn globs_narrow_the_tree_and_its_digest_alike() {
    let fixture = Fixture::new();
    for name in ["src/a.py", "src/a.md", "docs/a.md", "data/x.csv"] {
        fixture.write(name.as_bytes(), "1");
    }
    let first = fixture.commit("one");
    fixture.write(b"docs/a.md", "2");
    fixture.write(b".kickwheel/w.yaml", "2");
    let second = fixture.commit("only docs and workflows");
    fixture.push("main");
    let globs = ["src/**", "!**/*.md", "data/*"];
    let (_, dest) = export(&fixture, &second, &globs).await.expect("a plain tree");
    assert_eq!(listing(&dest), ["data/x.csv", "src/a.py"]);
    let id = fetched(&fixture).await;
    let narrow = selection(&globs);
    let digest =
        async |commit: &str, globs: &Selection| fixture.mirrors.tree_digest(&id, commit, globs).await.expect("fetched");
    assert_eq!(digest(&first, &narrow).await, digest(&second, &narrow).await);
    assert_ne!(digest(&first, &Selection::all()).await, digest(&second, &Selection::all()).await);
    assert_eq!(digest(&first, &selection(&["!docs/**"])).await, digest(&second, &selection(&["!docs/**"])).await);
}

#[tokio::test]
async fn workflows_are_no_part_of_the_digest_but_modes_and_names_are() {
    let fixture = Fixture::new();
    fixture.write(b"a", "1");
    let first = fixture.commit("one");
    fixture.write(b".kickwheel/w.yaml", "1");
    let workflow = fixture.commit("two");
    fixture.git(&["update-index", "--chmod=+x", "a"]);
    fixture.git(&["commit", "-q", "-m", "mode"]);
    let mode = fixture.git(&["rev-parse", "HEAD"]);
    fixture.git(&["checkout", "-q", "-f", "HEAD~1"]);
    fixture.git(&["mv", "a", "b"]);
    let name = fixture.commit("name");
    for (index, commit) in [&first, &workflow, &mode, &name].into_iter().enumerate() {
        fixture.push(&format!("{commit}:refs/heads/b{index}"));
    }
    let id = fetched(&fixture).await;
    let mut digests = Vec::new();
    for commit in [&first, &workflow, &mode, &name] {
        digests.push(fixture.mirrors.tree_digest(&id, commit, &Selection::all()).await.expect("fetched"));
    }
    assert_eq!(digests[0], digests[1]);
    digests.remove(0);
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), 3);
}

#[tokio::test]
async fn links_that_lead_out_are_refused_unless_excluded() {
    let fixture = Fixture::new();
    fixture.write(b"a", "1");
    std::os::unix::fs::symlink("/etc/passwd", fixture.work().join("absolute")).expect("a link");
    fs::create_dir(fixture.work().join("d")).expect("a folder");
    std::os::unix::fs::symlink("../../x", fixture.work().join("d/climbs")).expect("a link");
    let commit = fixture.commit("links");
    fixture.push("main");
    let error = export(&fixture, &commit, &[]).await.expect_err("two links lead out");
    let ExportError::LinksLeave(links) = &error else { panic!("{error}") };
    assert_eq!(links, &[r#""absolute" -> "/etc/passwd""#, r#""d/climbs" -> "../../x""#]);
    let (_, dest) = export(&fixture, &commit, &["!absolute", "!d/climbs"]).await.expect("both are excluded");
    assert_eq!(listing(&dest), ["a"]);
}

#[tokio::test]
async fn a_commit_cannot_write_outside_through_its_own_link() {
    let fixture = Fixture::new();
    let blob = fixture.plumbing(&["hash-object", "-w", "--stdin"], b"x");
    let here = fixture.plumbing(&["hash-object", "-w", "--stdin"], b"real");
    let inner = fixture.plumbing(&["mktree"], format!("100644 blob {blob}\tpwned\n").as_bytes());
    let commit = commit_tree(&fixture, &format!("120000 blob {here}\td\n040000 tree {inner}\td\n"));
    let error = export(&fixture, &commit, &[]).await.expect_err("`d` is a link and a folder");
    assert!(matches!(error, ExportError::Hostile(_)), "{error}");
    let commit = commit_tree(&fixture, &format!("040000 tree {inner}\t.GIT\n"));
    let error = export(&fixture, &commit, &["**"]).await.expect_err("a forbidden name");
    assert!(matches!(error, ExportError::Hostile(_)), "{error}");
    assert!(listing(fixture.dir.path()).iter().all(|path| !path.contains("pwned")));
}

#[tokio::test]
async fn submodules_are_reported_and_not_written() {
    let fixture = Fixture::new();
    let blob = fixture.plumbing(&["hash-object", "-w", "--stdin"], b"x");
    let entries = format!("100644 blob {blob}\ta\n160000 commit {}\tlib\n", "33".repeat(20));
    let commit = commit_tree(&fixture, &entries);
    let (exported, dest) = export(&fixture, &commit, &[]).await.expect("a submodule is no error");
    assert_eq!(exported.submodules, [b"lib".to_vec()]);
    assert_eq!(listing(&dest), ["a"]);
}

#[tokio::test]
async fn an_occupied_folder_is_left_alone() {
    let fixture = Fixture::new();
    let commit = fixture.push_file("a", "1");
    let id = fetched(&fixture).await;
    let dest = fixture.dir.path().join("out");
    fs::create_dir(&dest).expect("a folder");
    fs::write(dest.join("mine"), "x").expect("a file");
    let error = fixture.mirrors.export(&id, &commit, &Selection::all(), &dest).await.expect_err("occupied");
    assert!(matches!(error, ExportError::Io { .. }), "{error}");
    assert_eq!(listing(&dest), ["mine"]);
}

#[tokio::test]
async fn an_export_survives_a_damaged_mirror_and_leaves_nothing_half_written() {
    let fixture = Fixture::new();
    fixture.write(b"a", "1");
    fixture.write(b"b", "2");
    let commit = fixture.commit("two files");
    fixture.push("main");
    let id = fetched(&fixture).await;
    let blob = fixture.git(&["rev-parse", "HEAD:b"]);
    fs::remove_file(id.path().join("objects").join(&blob[..2]).join(&blob[2..])).expect("a loose object");
    let (exported, dest) = export(&fixture, &commit, &[]).await.expect("the mirror is built anew");
    assert_eq!(exported.files, 2);
    assert_eq!(listing(&dest), ["a", "b"]);
}
