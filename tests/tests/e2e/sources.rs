//! What a job finds of a repository that holds more than plain files.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, os::unix::fs::symlink, process::Command};

use kickwheel_tests::{
    harness::{Database, Engine, binary, on_each_database},
    repo::{Repo, git},
};

fn log(engine: &Engine, step: &str) -> String {
    let answer = engine.api().try_get(&format!("runs/{}/logs?step={step}", engine.run_id())).expect("it answers");
    answer.body.as_str().unwrap_or_default().to_owned()
}

#[test]
fn links_and_names_that_are_no_text_reach_the_job() {
    const WORKFLOW: &str = r#"
version: 1
name: wheel
on: {git.push: {repo: wheel}}
steps:
  look:
    source: ["data/**", "latest*"]
    run: |
      cat latest.txt latest/one.txt data/odd*
      readlink latest.txt latest
      mkdir -p out/sub
      echo kept > out/sub/file
      ln -s sub/file out/link
    outputs: {tree: {path: out}}
  read:
    files: {in: "${{ steps.look.outputs.tree }}"}
    run: |
      cat in/link
      readlink in/link
"#;
    on_each_database(|database| {
        let mut engine = Engine::start(database);
        let repo = Repo::make(&engine.folder().join("git"), "wheel");
        engine.bind(&repo, "wheel");
        fs::create_dir_all(repo.work.join("data")).expect("a folder can be made");
        fs::write(repo.work.join(OsStr::from_bytes(b"data/odd\xff")), "odd\n").expect("a file can be written");
        symlink("data/one.txt", repo.work.join("latest.txt")).expect("a link can be made");
        symlink("data", repo.work.join("latest")).expect("a link can be made");
        let commit = repo.push(&[(".kickwheel/wheel.yaml", WORKFLOW), ("data/one.txt", "one\n")]);
        engine.pushed(&commit).wait_for("succeeded");
        assert_eq!(log(&engine, "look"), "one\none\nodd\ndata/one.txt\ndata\n");
        assert_eq!(log(&engine, "read"), "kept\nsub/file\n");
    });
}

#[test]
fn a_link_that_leads_out_is_refused_by_its_path_in_the_repository() {
    let workflow = "version: 1\nname: wheel\non: {git.push: {repo: wheel}}\nsteps: {look: {run: ls}}\n";
    let mut engine = Engine::start(Database::Sqlite);
    let repo = Repo::make(&engine.folder().join("git"), "wheel");
    engine.bind(&repo, "wheel");
    fs::create_dir_all(repo.work.join("venv/bin")).expect("a folder can be made");
    symlink("/usr/bin/python3", repo.work.join("venv/bin/python")).expect("a link can be made");
    let commit = repo.push(&[(".kickwheel/wheel.yaml", workflow)]);
    engine.pushed(&commit).wait_for("failed");
    let run = engine.run().to_string();
    assert!(run.contains("venv/bin/python") && run.contains("/usr/bin/python3"), "{run}");
    assert!(run.contains("exclude them with `source:` globs"), "{run}");
    assert!(!run.contains(&*engine.data().to_string_lossy()), "no path of ours: {run}");
}

#[test]
fn submodules_are_named_in_the_log_of_the_job_that_lacks_them() {
    let workflow = r#"
version: 1
name: wheel
on: {git.push: {repo: wheel}}
steps:
  whole: {run: ls}
  narrow: {source: ["src/**"], run: ls}
"#;
    let mut engine = Engine::start(Database::Sqlite);
    let repo = Repo::make(&engine.folder().join("git"), "wheel");
    engine.bind(&repo, "wheel");
    fs::create_dir_all(repo.work.join("src")).expect("a folder can be made");
    fs::write(repo.work.join("src/a.py"), "1").expect("a file can be written");
    repo.commit(&[(".kickwheel/wheel.yaml", workflow)]);
    git(&repo.work, &["update-index", "--add", "--cacheinfo", &format!("160000,{},libs/shared", repo.head())]);
    git(&repo.work, &["commit", "-q", "-m", "a submodule"]);
    git(&repo.work, &["push", "-q", "origin", "main"]);
    engine.pushed(&repo.head()).wait_for("succeeded");
    let whole = log(&engine, "whole");
    assert!(whole.starts_with("kickwheel: the source tree has no files of submodules (`libs/shared`)"), "{whole}");
    assert_eq!(log(&engine, "narrow"), "src\n");
}

#[test]
fn a_run_of_the_working_tree_sees_what_a_push_would_bring() {
    let workflow = r#"
version: 1
name: tree
on: {manual: {}}
steps:
  look:
    run: |
      find . -not -type d | LC_ALL=C sort > "$TMPDIR/list"
      mv "$TMPDIR/list" out.txt
    outputs: {list: {path: out.txt}}
  check:
    files: {list.txt: "${{ steps.look.outputs.list }}"}
    source: ["expected.txt"]
    run: diff expected.txt list.txt
"#;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let repo = Repo::make(folder.path(), "tree");
    let expected = "./.gitignore\n./expected.txt\n./latest\n./new.py\n./target/tracked.txt\n";
    repo.commit(&[
        (".kickwheel/tree.yaml", workflow),
        (".gitignore", "venv/\n*.bin\n"),
        ("expected.txt", expected),
        ("target/tracked.txt", "1"),
    ]);
    for ignored in ["venv/bin", "kw"] {
        fs::create_dir_all(repo.work.join(ignored)).expect("a folder can be made");
    }
    symlink("/usr/bin/python3", repo.work.join("venv/bin/python")).expect("a link can be made");
    symlink("target", repo.work.join("latest")).expect("a link can be made");
    fs::write(repo.work.join("new.py"), "1").expect("a file can be written");
    fs::write(repo.work.join("model.bin"), "1").expect("a file can be written");
    // Twice, with the data folder in the tree: the second run meets what the first has left there.
    for _ in 0..2 {
        let output = Command::new(binary())
            .args(["run", ".kickwheel/tree.yaml", "--data", "kw"])
            .current_dir(&repo.work)
            .output()
            .expect("the binary can be started");
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
