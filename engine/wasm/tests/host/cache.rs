//! The cache of compiled plugins: it saves compiling, and runs nothing that is not ours.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use kickwheel_wasm::{CacheConfig, Host, HostConfig, Limits, Origin};
use serde_json::json;
use tempfile::TempDir;

use crate::guests::{Guest, call_with, load};

const KEY: [u8; 32] = [7; 32];

fn host(dir: &TempDir, key: [u8; 32]) -> Host {
    let cache = Some(CacheConfig { dir: dir.path().join("cache"), key });
    Host::new(HostConfig { cache, max_concurrent: 4, ..HostConfig::default() }).expect("the engine can be set up")
}

fn answering(answer: u32) -> Guest {
    Guest::returning(&format!(r#"{{"outputs":{{"answer":{answer}}}}}"#))
}

fn files(dir: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.path().join("cache")).expect("the folder exists");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("the folder is readable").path()).collect();
    paths.sort();
    paths
}

/// Loads the guest in a new host, checks where it came from, and that it still works.
async fn check(dir: &TempDir, key: [u8; 32], expected: Origin) {
    let host = host(dir, key);
    let plugin = load(&host, &answering(42));
    assert_eq!(plugin.origin(), expected);
    let report = host.call(&plugin, &call_with(json!({})), &Limits::default()).await;
    assert_eq!(report.result.expect("the guest answers").outputs["answer"], json!(42));
}

#[tokio::test]
async fn a_second_start_does_not_compile() {
    let dir = TempDir::new().expect("a folder can be made");
    check(&dir, KEY, Origin::Compiled).await;
    check(&dir, KEY, Origin::Cache).await;
    let files = files(&dir);
    assert_eq!(files.len(), 1, "{files:?}");
    let mode = |path: &PathBuf| fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
    assert_eq!(mode(&files[0]), 0o600);
    assert_eq!(mode(&dir.path().join("cache")), 0o700);
}

#[tokio::test]
async fn a_file_changed_in_any_part_is_compiled_again_and_replaced() {
    let dir = TempDir::new().expect("a folder can be made");
    check(&dir, KEY, Origin::Compiled).await;
    let path = files(&dir).remove(0);
    let good = fs::read(&path).expect("the file is readable");
    let flip = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    // The magic, the code's MAC, the code's start and end; then a torn file, an empty one, and one with something added.
    let damaged = [
        flip(0),
        flip(20),
        flip(48),
        flip(good.len() - 1),
        good[..good.len() / 2].to_vec(),
        Vec::new(),
        [good.as_slice(), b"x"].concat(),
    ];
    for bytes in damaged {
        fs::write(&path, bytes).expect("the file can be written");
        check(&dir, KEY, Origin::Compiled).await;
        assert_eq!(fs::read(&path).expect("the file is readable").len(), good.len());
        check(&dir, KEY, Origin::Cache).await;
    }
}

#[tokio::test]
async fn a_file_made_under_another_key_is_not_ours() {
    let dir = TempDir::new().expect("a folder can be made");
    check(&dir, [8; 32], Origin::Compiled).await;
    check(&dir, KEY, Origin::Compiled).await;
    check(&dir, KEY, Origin::Cache).await;
}

#[tokio::test]
async fn a_good_file_under_another_plugins_name_is_refused() {
    let dir = TempDir::new().expect("a folder can be made");
    let evil = load(&host(&dir, KEY), &answering(666));
    let evil_file = files(&dir).remove(0);
    check(&dir, KEY, Origin::Compiled).await;
    let ours = files(&dir).into_iter().find(|path| *path != evil_file).expect("there are two files");
    assert!(evil_file.to_string_lossy().contains(evil.digest().hex()));
    fs::copy(&evil_file, &ours).expect("the file can be copied");
    check(&dir, KEY, Origin::Compiled).await;
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_costs_only_time() {
    let dir = TempDir::new().expect("a folder can be made");
    let host = host(&dir, KEY);
    fs::remove_dir(dir.path().join("cache")).expect("the folder is empty");
    let plugin = load(&host, &answering(42));
    assert_eq!(plugin.origin(), Origin::Compiled);
    let report = host.call(&plugin, &call_with(json!({})), &Limits::default()).await;
    assert!(report.result.is_ok(), "{report:?}");
}

#[test]
fn a_cache_folder_that_cannot_be_made_is_said() {
    let dir = TempDir::new().expect("a folder can be made");
    fs::write(dir.path().join("cache"), "a file").expect("the file can be written");
    let cache = Some(CacheConfig { dir: dir.path().join("cache"), key: KEY });
    let error = Host::new(HostConfig { cache, ..HostConfig::default() }).expect_err("a file is no folder");
    assert!(error.to_string().contains("create the cache folder"), "{error}");
}

#[test]
fn the_key_is_not_printed() {
    let config = CacheConfig { dir: PathBuf::from("cache"), key: [171; 32] };
    assert_eq!(format!("{config:?}"), r#"CacheConfig { dir: "cache", .. }"#);
}
