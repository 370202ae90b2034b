//! Who may import whom: the arrows of ARCHITECTURE.md, and what must never be reachable from the pure crates.
//!
//! Only normal and build dependencies count; a test may use what it likes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::tree;

/// Each crate of ours and the crates of ours that it may import. Anything else is a mistake, a missing row included.
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "kickwheel",
        &[
            "kickwheel-schemas",
            "kickwheel-core",
            "kickwheel-spec",
            // For the list of plugins that ship, which `validate` needs without an engine; nothing is executed.
            "kickwheel-wasm",
            "kickwheel-runtime",
            "kickwheel-server",
            "kickwheel-triggers",
        ],
    ),
    ("kickwheel-server", &["kickwheel-schemas", "kickwheel-runtime", "kickwheel-triggers"]),
    ("kickwheel-triggers", &["kickwheel-schemas", "kickwheel-runtime"]),
    (
        "kickwheel-runtime",
        &[
            "kickwheel-schemas",
            "kickwheel-core",
            "kickwheel-spec",
            "kickwheel-store",
            "kickwheel-bus",
            "kickwheel-repos",
            "kickwheel-wasm",
            "kickwheel-artifacts",
            "kickwheel-pool",
            "kickwheel-egress",
        ],
    ),
    ("kickwheel-store", &["kickwheel-schemas", "kickwheel-core"]),
    ("kickwheel-bus", &["kickwheel-schemas"]),
    // One policy and one client for everything that we ask of other machines, so whoever asks imports it.
    ("kickwheel-egress", &[]),
    ("kickwheel-repos", &["kickwheel-schemas", "kickwheel-egress"]),
    ("kickwheel-wasm", &["kickwheel-schemas"]),
    ("kickwheel-artifacts", &["kickwheel-schemas"]),
    // The one arrow between adapters: an attempt's folder is a place in the artifact store, and both sides of the
    // runner's protocol read and write it through the same code.
    ("kickwheel-pool", &["kickwheel-schemas", "kickwheel-artifacts"]),
    ("kickwheel-runner", &["kickwheel-schemas", "kickwheel-artifacts"]),
    ("kickwheel-spec", &["kickwheel-schemas", "kickwheel-core"]),
    ("kickwheel-core", &["kickwheel-schemas"]),
    ("kickwheel-schemas", &[]),
];

/// The crate of cross-crate tests: it may import everything, and nothing may import it.
const TESTS: &str = "kickwheel-tests";

/// What the pure crates must not reach, however indirectly.
const IMPURE: &[&str] =
    &["tokio", "sqlx", "wasmtime", "git2", "reqwest", "object_store", "rand", "hyper", "rustix", "tempfile"];

/// Words of the pure crates' own code that ask for the time, for randomness or for the outside world.
const IMPURE_WORDS: &[&str] = &[
    "SystemTime",
    "Instant::now",
    "Utc::now",
    "Local::now",
    "Millis::now",
    "new_v4",
    "now_v7",
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
];

struct Graph {
    /// Package id to its name.
    names: BTreeMap<String, String>,
    /// Package id to the ids of its normal and build dependencies.
    edges: BTreeMap<String, BTreeSet<String>>,
    /// Ids of packages that hold procedural macros: they run in the compiler, and are in no program of ours.
    macros: BTreeSet<String>,
}

fn graph() -> Graph {
    let metadata = tree::metadata();
    let text = |value: &Value| value.as_str().expect("ids and names are texts").to_owned();
    let array = |value: &Value| value.as_array().expect("a list").clone();
    let names = array(&metadata["packages"]).iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
    let is_macro = |package: &Value| {
        array(&package["targets"]).iter().any(|target| array(&target["kind"]).iter().any(|kind| kind == "proc-macro"))
    };
    let macros = array(&metadata["packages"]).iter().filter(|p| is_macro(p)).map(|p| text(&p["id"])).collect();
    let edges = array(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| {
            let wanted = array(&node["deps"])
                .iter()
                .filter(|dep| array(&dep["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev"))
                .map(|dep| text(&dep["pkg"]))
                .collect();
            (text(&node["id"]), wanted)
        })
        .collect();
    Graph { names, edges, macros }
}

#[test]
fn crates_import_only_what_lies_below_them() {
    let graph = graph();
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ALLOWED.iter().map(|(name, below)| (*name, below.iter().copied().collect())).collect();
    let mut complaints = Vec::new();
    let mut seen = BTreeSet::new();
    for member in tree::metadata()["workspace_members"].as_array().expect("members") {
        let id = member.as_str().expect("an id");
        let name = graph.names[id].as_str();
        if name == TESTS {
            continue;
        }
        seen.insert(name);
        let Some(below) = allowed.get(name) else {
            complaints
                .push(format!("{name} is not in the table of layers: give it a row, here and in ARCHITECTURE.md"));
            continue;
        };
        for dependency in &graph.edges[id] {
            let dependency = graph.names[dependency].as_str();
            let ours = allowed.contains_key(dependency) || dependency == TESTS;
            if ours && !below.contains(dependency) {
                complaints.push(format!("{name} imports {dependency}: no arrow leads there"));
            }
        }
    }
    for (name, _) in ALLOWED {
        if !seen.contains(name) {
            complaints.push(format!("{name} is in the table of layers, but is no crate of the workspace"));
        }
    }
    tree::none(complaints);
}

#[test]
fn pure_crates_reach_nothing_impure() {
    let graph = graph();
    let mut complaints = Vec::new();
    for pure in ["kickwheel-core", "kickwheel-spec", "kickwheel-schemas"] {
        let start = graph.names.iter().find(|(_, name)| *name == pure).map(|(id, _)| id.clone());
        let mut queue = vec![start.unwrap_or_else(|| panic!("{pure} is a crate of the workspace"))];
        let mut seen = BTreeSet::new();
        while let Some(id) = queue.pop() {
            if !seen.insert(id.clone()) || graph.macros.contains(&id) {
                continue;
            }
            if IMPURE.contains(&graph.names[&id].as_str()) {
                complaints.push(format!("{pure} reaches {}: see `cargo tree -e normal -p {pure}`", graph.names[&id]));
            }
            queue.extend(graph.edges[&id].iter().cloned());
        }
    }
    tree::none(complaints);
}

#[test]
fn pure_crates_ask_for_no_time_and_no_world() {
    let mut complaints = Vec::new();
    for path in tree::files_ending(".rs") {
        if !(path.starts_with("engine/core/src/") || path.starts_with("engine/spec/src/"))
            || super::sources::is_test(path)
        {
            continue;
        }
        for (number, line) in super::sources::code_lines(path) {
            for word in IMPURE_WORDS.iter().filter(|word| line.contains(*word)) {
                complaints.push(format!("{path}:{number}: {word}: let it come in with the input"));
            }
        }
    }
    tree::none(complaints);
}
