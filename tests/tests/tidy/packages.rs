//! What may come in from outside: licences, crates that we do without, and one version of what is heavy.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree;

/// Licences that suit a product under Apache-2.0.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that would need another toolchain or a system library to build. TLS, where we need it, is rustls with ring.
const BANNED: &[&str] = &["openssl-sys", "native-tls", "aws-lc-sys", "cmake"];

/// Crates so heavy, or so bad in two versions, that a second one must not slip in.
const SINGLE: &[&str] = &[
    "tokio",
    "sqlx",
    "sqlx-core",
    "libsqlite3-sys",
    "wasmtime",
    "git2",
    "libgit2-sys",
    "hyper",
    "axum",
    "reqwest",
    "rustls",
    "object_store",
    "serde",
    "clap",
    "cel",
];

fn packages() -> Vec<(String, String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("").to_owned();
    tree::metadata()["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| (text(&package["name"]), text(&package["version"]), text(&package["license"])))
        .collect()
}

/// Whether an SPDX expression (or the older form with `/` for "or") can be met with [`LICENCES`]. OR binds weaker than
/// AND; parentheses group.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let allowed = any_of(&words, &mut at);
    allowed && at == words.len()
}

fn any_of(words: &[&str], at: &mut usize) -> bool {
    let mut allowed = all_of(words, at);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        allowed |= all_of(words, at);
    }
    allowed
}

fn all_of(words: &[&str], at: &mut usize) -> bool {
    let mut allowed = one(words, at);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        allowed &= one(words, at);
    }
    allowed
}

fn one(words: &[&str], at: &mut usize) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let allowed = any_of(words, at);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return allowed && closed;
    }
    let mut name = (*word).to_owned();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{name} WITH {}", words.get(*at + 1).unwrap_or(&""));
        *at += 2;
    }
    LICENCES.contains(&name.as_str())
}

#[test]
fn licence_expressions_are_read_as_spdx_means_them() {
    for (expression, expected) in [
        ("MIT OR Apache-2.0", true),
        ("MIT/Apache-2.0", true),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
        ("(MIT OR Apache-2.0) AND GPL-3.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("GPL-2.0 WITH Classpath-exception-2.0", false),
        ("MIT AND", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression), expected, "{expression:?}");
    }
}

#[test]
fn every_package_has_a_licence_that_suits() {
    tree::none(
        packages()
            .iter()
            .filter(|(_, _, licence)| !is_allowed(licence))
            .map(|(name, version, licence)| format!("{name} {version}: {licence:?}"))
            .collect(),
    );
}

#[test]
fn banned_packages_are_absent() {
    tree::none(
        packages()
            .iter()
            .filter(|(name, _, _)| BANNED.contains(&name.as_str()))
            .map(|(name, version, _)| format!("{name} {version}: find who asks with `cargo tree -i {name}`"))
            .collect(),
    );
}

#[test]
fn heavy_packages_are_there_once() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, version, _) in packages() {
        versions.entry(name).or_default().insert(version);
    }
    tree::none(
        SINGLE
            .iter()
            .filter_map(|name| {
                versions.get(*name).filter(|found| found.len() > 1).map(|found| format!("{name}: {found:?}"))
            })
            .collect(),
    );
}

#[test]
fn versions_live_only_in_the_root_manifest() {
    let mut complaints = Vec::new();
    for path in tree::files_ending("Cargo.toml") {
        // The plugins are a workspace of their own: they are built for another target.
        if path == "Cargo.toml" || path.starts_with("plugins/") {
            continue;
        }
        let mut in_dependencies = false;
        for (number, line) in tree::read(path).lines().enumerate() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies && line.contains('=') && !line.contains("workspace = true") {
                complaints.push(format!("{path}:{}: {line}: put it into the root manifest", number + 1));
            }
        }
    }
    tree::none(complaints);
}
