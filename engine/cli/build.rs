//! Takes the runner into the binary when `KICKWHEEL_RUNNER_EMBED` names it, so that a release is one file.
//!
//! Without it the build still works: the binary then looks for the runner beside itself (see `src/runner_binary.rs`).

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=KICKWHEEL_RUNNER_EMBED");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    let source = match env::var_os("KICKWHEEL_RUNNER_EMBED").filter(|v| !v.is_empty()) {
        Some(runner) => {
            let runner = PathBuf::from(runner);
            println!("cargo::rerun-if-changed={}", runner.display());
            let bytes = fs::read(&runner)
                .unwrap_or_else(|e| panic!("KICKWHEEL_RUNNER_EMBED={}: cannot read it: {e}", runner.display()));
            fs::write(out.join("runner"), bytes).expect("OUT_DIR is writable");
            "Some(include_bytes!(concat!(env!(\"OUT_DIR\"), \"/runner\")))"
        }
        None => "None",
    };
    fs::write(out.join("embedded.rs"), source).expect("OUT_DIR is writable");
}
