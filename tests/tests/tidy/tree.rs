//! The repository as the other modules see it: its root, its files, and `cargo metadata`.

use std::{path::PathBuf, process::Command, sync::LazyLock};

use serde_json::Value;

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests' folder lies in the repository").to_owned()
}

/// Paths of all files that Git knows or would add, relative to the root, sorted.
pub fn files() -> &'static [String] {
    static FILES: LazyLock<Vec<String>> = LazyLock::new(|| {
        let listed = output(Command::new("git").arg("-C").arg(root()).args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]));
        let mut files: Vec<String> = listed.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
        // A file that was deleted but not yet committed is still listed.
        files.retain(|path| root().join(path).is_file());
        files.sort();
        files.dedup();
        assert!(files.len() > 50, "only {} files found: the listing is broken", files.len());
        files
    });
    &FILES
}

/// The files that end with `suffix`.
pub fn files_ending(suffix: &str) -> Vec<&'static str> {
    files().iter().map(String::as_str).filter(|path| path.ends_with(suffix)).collect()
}

/// The text of a file given relative to the root.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// `cargo metadata` with the resolved graph of every package.
pub fn metadata() -> &'static Value {
    static METADATA: LazyLock<Value> = LazyLock::new(|| {
        let text = output(
            Command::new(env!("CARGO"))
                .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
                .arg(root().join("Cargo.toml")),
        );
        serde_json::from_str(&text).expect("cargo metadata prints JSON")
    });
    &METADATA
}

/// Fails with every complaint at once, so that one run shows all that is to be done.
pub fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n  {}\n", complaints.join("\n  "));
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("paths and metadata are UTF-8")
}
