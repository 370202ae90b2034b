//! What a guest sees of the world: nothing that changes.

use std::{collections::BTreeSet, time::Duration};

use kickwheel_wasm::{CallFailure, Limits, LogLevel};
use serde_json::json;

use crate::guests::{Guest, call_with, host, load, run};

/// A body that leaves eight bytes at 2048 and returns them as an error, so that the test can read them.
fn bytes_of(value: &str) -> String {
    format!(
        "{value}
         (local.set $a (i32.const 0))
         (loop $again
           (i32.store8 (i32.add (i32.const 3072) (local.get $a)) (i32.add (i32.const 65)
             (i32.and (i32.const 15) (i32.shr_u
               (i32.load8_u (i32.add (i32.const 2048) (i32.shr_u (local.get $a) (i32.const 1))))
               (i32.shl (i32.and (local.get $a) (i32.const 1)) (i32.const 2))))))
           (br_if $again (i32.lt_u (local.tee $a (i32.add (local.get $a) (i32.const 1))) (i32.const 16))))
         (call $err (i32.const 3072) (i32.const 16))"
    )
}

/// The eight bytes that a guest found, over several calls on several hosts.
async fn seen(interface: &'static str, function: &str, value: &str) -> BTreeSet<u64> {
    let guest = Guest::new("", &bytes_of(value)).import(interface, function);
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        let host = host();
        let plugin = load(&host, &guest);
        for _ in 0..2 {
            let report = host.call(&plugin, &call_with(json!({})), &Limits::default()).await;
            let Err(CallFailure::Plugin { message }) = report.result else { panic!("{report:?}") };
            let nibbles = message.bytes().map(|byte| u64::from(byte - b'A')).enumerate();
            seen.insert(nibbles.map(|(place, nibble)| nibble << (4 * place)).sum());
        }
    }
    seen
}

#[tokio::test]
async fn clocks_stand_still() {
    let monotonic = seen(
        "clocks/monotonic-clock",
        r#"(import "wasi:clocks/monotonic-clock@0.2.3" "now" (func $now (result i64)))"#,
        "(i64.store (i32.const 2048) (call $now))",
    )
    .await;
    assert_eq!(monotonic, BTreeSet::from([1_000_000_000]));
    let wall = seen(
        "clocks/wall-clock",
        r#"(import "wasi:clocks/wall-clock@0.2.3" "now" (func $now (param i32)))"#,
        "(call $now (i32.const 2048))",
    )
    .await;
    assert_eq!(wall, BTreeSet::from([946_684_800]));
}

#[tokio::test]
async fn randomness_is_constant() {
    let secure = seen(
        "random/random",
        r#"(import "wasi:random/random@0.2.3" "get-random-u64" (func $random (result i64)))"#,
        "(i64.store (i32.const 2048) (call $random))",
    )
    .await;
    let insecure = seen(
        "random/insecure",
        r#"(import "wasi:random/insecure@0.2.3" "get-insecure-random-u64" (func $random (result i64)))"#,
        "(i64.store (i32.const 2048) (call $random))",
    )
    .await;
    let seed = seen(
        "random/insecure-seed",
        r#"(import "wasi:random/insecure-seed@0.2.3" "insecure-seed" (func $seed (param i32)))"#,
        "(call $seed (i32.const 2048))",
    )
    .await;
    for (name, values) in [("secure", secure), ("insecure", insecure), ("seed", seed)] {
        assert_eq!(values.len(), 1, "{name}: {values:?}");
    }
}

#[tokio::test]
async fn two_random_numbers_of_one_call_differ() {
    let difference = seen(
        "random/random",
        r#"(import "wasi:random/random@0.2.3" "get-random-u64" (func $random (result i64)))"#,
        "(i64.store (i32.const 2048) (i64.sub (call $random) (call $random)))",
    )
    .await;
    assert!(difference.len() == 1 && !difference.contains(&0), "{difference:?}");
}

#[tokio::test]
async fn there_are_no_variables_arguments_or_folders() {
    for (interface, import) in [
        ("cli/environment", r#"(import "wasi:cli/environment@0.2.3" "get-environment" (func $list (param i32)))"#),
        ("cli/environment", r#"(import "wasi:cli/environment@0.2.3" "get-arguments" (func $list (param i32)))"#),
        (
            "filesystem/preopens",
            r#"(import "wasi:filesystem/preopens@0.2.3" "get-directories" (func $list (param i32)))"#,
        ),
    ] {
        // A list arrives as a pointer and a length; only the length is kept.
        let length =
            seen(interface, import, "(call $list (i32.const 2044)) (i32.store (i32.const 2052) (i32.const 0))").await;
        assert_eq!(length, BTreeSet::from([0]), "{import}");
    }
}

#[tokio::test]
async fn standard_output_becomes_log_lines() {
    let guest = Guest::new(
        "first\nsecond",
        "(call $write (call $stdout) (i32.const {at}) (i32.const {len}) (i32.const 2048))
         (i32.store (i32.const 2048) (i32.const 0x7d7b)) (call $ok (i32.const 2048) (i32.const 2))",
    )
    .import("cli/stdout", r#"(import "wasi:cli/stdout@0.2.3" "get-stdout" (func $stdout (result i32)))"#)
    .import(
        "io/streams",
        r#"(import "wasi:io/streams@0.2.3" "[method]output-stream.blocking-write-and-flush"
             (func $write (param i32 i32 i32 i32)))"#,
    );
    let report = run(&guest, &Limits::default()).await;
    assert!(report.result.is_ok(), "{report:?}");
    let lines: Vec<_> = report.logs.iter().map(|line| (line.level, line.message.as_str())).collect();
    assert_eq!(lines, [(LogLevel::Info, "first"), (LogLevel::Info, "second")]);
}

#[tokio::test]
async fn a_guest_that_sleeps_is_timed_out() {
    let an_hour = "(call $block (call $after (i64.const 3600000000000))) (unreachable)";
    let guest = Guest::new("", an_hour)
        .import(
            "clocks/monotonic-clock",
            r#"(import "wasi:clocks/monotonic-clock@0.2.3" "subscribe-duration" (func $after (param i64) (result i32)))"#,
        )
        .import("io/poll", r#"(import "wasi:io/poll@0.2.3" "[method]pollable.block" (func $block (param i32)))"#);
    let limits = Limits { time: Duration::from_millis(50), ..Limits::default() };
    assert_eq!(run(&guest, &limits).await.result, Err(CallFailure::TimedOut { limit: limits.time }));
}

#[tokio::test]
async fn leaving_by_exit_is_a_crash_even_with_success() {
    let guest = Guest::new("", "(call $exit (i32.const 0)) (unreachable)")
        .import("cli/exit", r#"(import "wasi:cli/exit@0.2.3" "exit" (func $exit (param i32)))"#);
    let report = run(&guest, &Limits::default()).await;
    let message = "it exited with code 0 instead of returning".to_owned();
    assert_eq!(report.result, Err(CallFailure::Trap { message }));
}
