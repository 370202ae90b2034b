//! The hook, run for real by `git push`.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use kickwheel_repos::{Binding, HookError, hook_state, install_hook, remove_hook};

use crate::fixture::Fixture;

fn script(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().expect("in a folder")).expect("a folder");
    fs::write(path, content).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our own file");
}

/// A stand-in for the binary that appends its arguments and input to `told` in the folder given as `--data`.
fn binary(fixture: &Fixture, name: &[u8]) -> PathBuf {
    let path = fixture.dir.path().join(OsStr::from_bytes(name));
    let content = "#!/bin/sh\nout=${4#--data=}/told\n\
        printf 'args: %s|%s|%s|%s (%s)\\n' \"$1\" \"$2\" \"$3\" \"$4\" \"$#\" >>\"$out\"\ncat >>\"$out\"\n\
        printf 'option: %s\\n' \"$GIT_PUSH_OPTION_0\" >>\"$out\"\n";
    script(&path, content);
    path
}

fn binding(fixture: &Fixture, repo: &str, data: &[u8]) -> Binding {
    let data = fixture.dir.path().join(OsStr::from_bytes(data));
    fs::create_dir_all(&data).expect("a folder");
    Binding { binary: binary(fixture, b"kickwheel"), repo: repo.into(), data }
}

fn told(binding: &Binding) -> Option<String> {
    fs::read(binding.data.join("told")).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Pushes a new commit; the commit, and what git printed.
fn push(fixture: &Fixture, content: &str) -> (String, String) {
    fixture.write(b"file", content);
    let commit = fixture.commit(content);
    let mut command = fixture.command(&fixture.work());
    command.args(["push", "origin", "main"]);
    let output = command.output().expect("git is installed");
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{printed}");
    assert_eq!(fixture.run(&["rev-parse", "main"], &fixture.origin()), commit);
    (commit, printed)
}

#[test]
fn a_push_is_told_with_its_lines_and_options() {
    let fixture = Fixture::new();
    let binding = binding(&fixture, "churn", b"data");
    let state = install_hook(&fixture.origin(), &binding).expect("a local repository");
    assert_eq!(state.bindings, std::slice::from_ref(&binding));
    assert!(state.tells("churn", &binding.data) && !state.tells("other", &binding.data));
    fixture.run(&["config", "receive.advertisePushOptions", "true"], &fixture.origin());
    fixture.write(b"a", "1");
    let commit = fixture.commit("one");
    fixture.git(&["push", "-q", "-o", "fast", "origin", "main", "main:topic"]);
    let zero = "0".repeat(40);
    let expected = format!(
        "args: hook|post-receive|--repo=churn|--data={} (4)\n\
         {zero} {commit} refs/heads/main\n{zero} {commit} refs/heads/topic\noption: fast\n",
        binding.data.display()
    );
    assert_eq!(told(&binding), Some(expected));
}

#[test]
fn no_path_is_read_as_code() {
    let fixture = Fixture::new();
    let odd = b"a 'b' \"c\" $(touch pwned) `touch pwned` \\ \n; touch pwned #\xff";
    fs::create_dir(fixture.dir.path().join(OsStr::from_bytes(odd))).expect("a folder");
    let mut path = odd.to_vec();
    path.extend_from_slice(b"/kick 'wheel");
    let binding = Binding {
        binary: binary(&fixture, &path),
        repo: "it's $(touch pwned)\n--data=/x".into(),
        data: fixture.dir.path().join(OsStr::from_bytes(odd)),
    };
    let state = install_hook(&fixture.origin(), &binding).expect("a local repository");
    assert_eq!(state.bindings, std::slice::from_ref(&binding));
    push(&fixture, "1");
    let told = told(&binding).expect("the binary was called");
    assert!(told.starts_with("args: hook|post-receive|--repo=it's $(touch pwned)\n--data=/x|--data=/"), "{told}");
    assert!(told.contains("(4)\n"), "{told}");
    assert!(!fixture.origin().join("pwned").exists());
}

#[test]
fn a_missing_or_failing_binary_lets_the_push_pass_and_says_so() {
    let fixture = Fixture::new();
    let binding = binding(&fixture, "churn", b"data");
    install_hook(&fixture.origin(), &binding).expect("a local repository");
    script(&binding.binary, "#!/bin/sh\nexit 7\n");
    let (_, printed) = push(&fixture, "1");
    assert!(printed.contains("kickwheel: the hook failed"), "{printed}");
    fs::remove_file(&binding.binary).expect("it exists");
    let (_, printed) = push(&fixture, "2");
    assert!(printed.contains("kickwheel is missing"), "{printed}");
    assert_eq!(told(&binding), None);
}

#[test]
fn a_foreign_hook_is_called_first_and_comes_back() {
    let fixture = Fixture::new();
    let hook = fixture.origin().join("hooks/post-receive");
    let foreign = "#!/bin/sh\ncat >>foreign\n[ ! -e data-told ] || exit 9\n";
    script(&hook, foreign);
    assert_eq!(hook_state(&fixture.origin()).expect("local").foreign, Some(fs::canonicalize(&hook).expect("a file")));
    let binding = binding(&fixture, "churn", b"data");
    for _ in 0..3 {
        let state = install_hook(&fixture.origin(), &binding).expect("a local repository");
        assert_eq!(state.bindings.len(), 1);
        assert!(state.foreign.is_some_and(|path| path.ends_with("post-receive.before-kickwheel")));
    }
    let (first, _) = push(&fixture, "1");
    let line = format!("{} {first} refs/heads/main\n", "0".repeat(40));
    assert_eq!(fs::read_to_string(fixture.origin().join("foreign")).expect("called"), line);
    assert!(told(&binding).expect("called").contains(&line));
    assert!(remove_hook(&fixture.origin(), "churn", &binding.data).expect("ours"));
    assert_eq!(fs::read_to_string(&hook).expect("restored"), foreign);
    assert!(!hook.with_file_name("post-receive.before-kickwheel").exists());
    assert!(!remove_hook(&fixture.origin(), "churn", &binding.data).expect("nothing to do"));
    let before = told(&binding);
    push(&fixture, "2");
    assert_eq!(told(&binding), before);
}

#[test]
fn a_failing_foreign_hook_does_not_keep_us_from_being_told() {
    let fixture = Fixture::new();
    // Reads nothing, so that our end of the pipe breaks, and fails.
    script(&fixture.origin().join("hooks/post-receive"), "#!/bin/sh\nexit 3\n");
    let binding = binding(&fixture, "churn", b"data");
    install_hook(&fixture.origin(), &binding).expect("a local repository");
    let (commit, printed) = push(&fixture, "1");
    assert!(told(&binding).expect("called").contains(&commit));
    assert!(!printed.contains("Broken pipe"), "{printed}");
}

#[test]
fn an_interrupted_installation_is_completed() {
    let fixture = Fixture::new();
    let hook = fixture.origin().join("hooks/post-receive");
    script(&hook, "#!/bin/sh\ncat >>foreign\n");
    fs::hard_link(&hook, hook.with_file_name("post-receive.before-kickwheel")).expect("as a crash leaves it");
    let binding = binding(&fixture, "churn", b"data");
    install_hook(&fixture.origin(), &binding).expect("the same file under two names is no conflict");
    push(&fixture, "1");
    assert!(told(&binding).is_some() && fixture.origin().join("foreign").exists());
}

#[test]
fn a_third_hook_is_a_conflict_and_nothing_is_lost() {
    let fixture = Fixture::new();
    let hook = fixture.origin().join("hooks/post-receive");
    script(&hook, "#!/bin/sh\n# first\n");
    let binding = binding(&fixture, "churn", b"data");
    install_hook(&fixture.origin(), &binding).expect("a local repository");
    fs::remove_file(&hook).expect("another tool replaces it");
    script(&hook, "#!/bin/sh\n# second\n");
    let error = install_hook(&fixture.origin(), &binding).expect_err("two foreign hooks");
    assert!(matches!(error, HookError::Conflict { .. }), "{error}");
    assert!(fs::read_to_string(&hook).expect("kept").contains("second"));
    let kept = hook.with_file_name("post-receive.before-kickwheel");
    assert!(fs::read_to_string(kept).expect("kept").contains("first"));
}

#[test]
fn several_data_folders_are_told() {
    let fixture = Fixture::new();
    let (one, two) = (binding(&fixture, "churn", b"one"), binding(&fixture, "sales", b"two"));
    install_hook(&fixture.origin(), &one).expect("a local repository");
    install_hook(&fixture.origin(), &two).expect("a local repository");
    let moved = Binding { binary: binary(&fixture, b"moved/kickwheel"), ..one.clone() };
    let state = install_hook(&fixture.origin(), &moved).expect("a local repository");
    assert_eq!(state.bindings, [moved, two.clone()]);
    push(&fixture, "1");
    assert!(told(&one).is_some() && told(&two).is_some());
    assert!(remove_hook(&fixture.origin(), "churn", &one.data).expect("ours"));
    assert_eq!(hook_state(&fixture.origin()).expect("local").bindings, [two]);
    assert!(fixture.origin().join("hooks/post-receive").exists());
}

#[test]
fn a_normal_repository_and_one_without_a_hooks_folder_work() {
    let fixture = Fixture::new();
    let binding = binding(&fixture, "churn", b"data");
    fs::remove_dir_all(fixture.work().join(".git/hooks")).expect("git made it");
    install_hook(&fixture.work(), &binding).expect("a local repository");
    fixture.write(b"a", "1");
    fixture.commit("one");
    fixture.run(&["clone", "-q", "work", "clone"], fixture.dir.path());
    let clone = fixture.dir.path().join("clone");
    fixture.run(&["push", "-q", "origin", "main:topic"], &clone);
    assert!(told(&binding).expect("called").contains("refs/heads/topic"));
}

#[test]
fn a_shared_hooks_folder_tells_only_of_its_repository() {
    let fixture = Fixture::new();
    let shared = fixture.dir.path().join("shared 'hooks'");
    fixture.run(&["init", "-q", "--bare", "-b", "main", "other.git"], fixture.dir.path());
    let other = fixture.dir.path().join("other.git");
    for repository in [&fixture.origin(), &other] {
        fixture.run(&["config", "core.hooksPath", shared.to_str().expect("UTF-8")], repository);
    }
    let binding = binding(&fixture, "churn", b"data");
    let state = install_hook(&fixture.origin(), &binding).expect("a local repository");
    assert_eq!(state.file, shared.join("post-receive"));
    fixture.write(b"a", "1");
    fixture.commit("one");
    fixture.git(&["push", "-q", other.to_str().expect("UTF-8"), "main"]);
    assert_eq!(told(&binding), None);
    push(&fixture, "2");
    assert!(told(&binding).is_some());
}

#[test]
fn a_hooks_folder_inside_the_repository_survives_a_move() {
    let fixture = Fixture::new();
    fixture.run(&["config", "core.hooksPath", "my-hooks"], &fixture.origin());
    let binding = binding(&fixture, "churn", b"data");
    let state = install_hook(&fixture.origin(), &binding).expect("a local repository");
    assert!(state.file.ends_with("origin.git/my-hooks/post-receive"));
    let moved = fixture.dir.path().join("moved.git");
    fs::rename(fixture.origin(), &moved).expect("a rename");
    fixture.write(b"a", "1");
    fixture.commit("one");
    fixture.git(&["push", "-q", moved.to_str().expect("UTF-8"), "main"]);
    assert!(told(&binding).is_some());
}

#[test]
fn what_cannot_carry_a_hook_is_refused() {
    let fixture = Fixture::new();
    let good = binding(&fixture, "churn", b"data");
    let refused = |path: &Path, binding: &Binding| install_hook(path, binding).expect_err("refused");
    assert!(matches!(refused(fixture.dir.path(), &good), HookError::Repository { .. }));
    for bad in [
        Binding { binary: "kickwheel".into(), ..good.clone() },
        Binding { data: "data".into(), ..good.clone() },
        Binding { data: OsString::from("/a\0b").into(), ..good.clone() },
    ] {
        assert!(matches!(refused(&fixture.origin(), &bad), HookError::Path(_)));
    }
    assert!(!fixture.origin().join("hooks/post-receive").exists());
}
