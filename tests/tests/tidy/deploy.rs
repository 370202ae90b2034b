//! The systemd units: `systemd-analyze verify` accepts them, and what they start is a command of ours. So with
//! the additions beside them.

use std::{path::Path, process::Command};

use crate::tree;

/// Where the units expect our programs; the runner's name begins with the engine's.
const INSTALLED: &str = "/usr/local/bin/kickwheel";

fn units() -> Vec<&'static str> {
    let units: Vec<_> = tree::files_ending(".service").into_iter().filter(|path| path.starts_with("deploy/")).collect();
    assert!(!units.is_empty(), "deploy/ holds no unit");
    units
}

/// True when the check must be left out, loudly; where everything is required it fails instead.
fn skip(missing: &str) -> bool {
    assert!(std::env::var("REQUIRE_ALL").as_deref() != Ok("1"), "{missing}, and REQUIRE_ALL=1");
    eprintln!("SKIPPED: {missing}");
    true
}

#[test]
fn systemd_accepts_the_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() && skip("systemd-analyze is not installed") {
        return;
    }
    // It also looks whether the program is there. It is not installed here, so a program that is stands in for it.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut paths = Vec::new();
    for unit in units() {
        let text = tree::read(unit);
        assert!(text.contains(INSTALLED), "{unit} starts {INSTALLED}");
        let path = folder.path().join(Path::new(unit).file_name().expect("a file"));
        let copy = text.replace(&format!("{INSTALLED}-runner"), "/bin/true").replace(INSTALLED, "/bin/true");
        std::fs::write(&path, copy).expect("write the copy");
        paths.push(path);
    }
    // With what an administrator may put beside them, too.
    for addition in tree::files_ending(".conf").into_iter().filter(|path| path.starts_with("deploy/")) {
        let name = Path::new(addition).strip_prefix("deploy").expect("it lies there");
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("make the folder");
        std::fs::write(&path, tree::read(addition).replace(INSTALLED, "/bin/true")).expect("write the copy");
    }
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&paths)
        .output()
        .expect("systemd-analyze runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn units_start_commands_that_exist() {
    let binary = std::env::var("KICKWHEEL_BIN").unwrap_or_default();
    let runner = std::env::var("KICKWHEEL_RUNNER_EMBED").unwrap_or_default();
    if [&binary, &runner].iter().any(|path| !Path::new(path).is_file())
        && skip("KICKWHEEL_BIN or KICKWHEEL_RUNNER_EMBED names no program; ./dev test sets them")
    {
        return;
    }
    let additions = tree::files_ending(".conf").into_iter().filter(|path| path.starts_with("deploy/"));
    for unit in units().into_iter().chain(additions) {
        let text = tree::read(unit);
        let mut starts = text.lines().filter_map(|line| line.strip_prefix("ExecStart="));
        // An addition empties the list first, or starts nothing else.
        let Some(start) = starts.find(|start| !start.is_empty()) else {
            assert!(unit.ends_with(".conf"), "{unit} has an ExecStart");
            continue;
        };
        let mut words = start.split_whitespace();
        let program = words.next().expect("ExecStart names a program");
        let program = if program == INSTALLED { &binary } else { &runner };
        // Options are read from left to right: when the last one is the first that is refused, the others exist.
        let output = Command::new(program).args(words).arg("--no-such-option").output().expect("the program runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("--no-such-option"), "{unit}: {start}\n{said}");
    }
}
