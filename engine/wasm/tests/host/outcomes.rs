//! Every way a call can end, and that it ends no other way.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use kickwheel_schemas::plugin::PluginReturn;
use kickwheel_wasm::{CallFailure, CallReport, Host, HostConfig, Limits, LoadError, LogLevel};
use serde_json::json;

use crate::guests::{Guest, call_with, host, load, manifest, run};

const LOOP: &str = "(loop $again (br $again)) (unreachable)";

fn failure(report: CallReport) -> CallFailure {
    report.result.expect_err("the call must fail")
}

fn message(report: CallReport) -> String {
    failure(report).to_string()
}

#[tokio::test]
async fn a_return_arrives_with_outputs_metrics_and_effects() {
    let text = r#"{"outputs":{"answer":42},"metrics":{"loss":0.5}}"#;
    let report = run(&Guest::returning(text), &Limits::default()).await;
    let expected = PluginReturn {
        outputs: [("answer".to_owned(), json!(42))].into(),
        metrics: [("loss".to_owned(), 0.5)].into(),
        effects: vec![],
    };
    assert_eq!(report.result, Ok(expected));
    assert_eq!(report.logs, []);
    assert!(report.fuel_used > 0 && report.fuel_used < 10_000, "{}", report.fuel_used);
}

#[tokio::test]
async fn the_guest_gets_the_call_as_json() {
    // It returns its argument as an error, which carries any text.
    let echo = Guest::new("", "(call $err (local.get $ptr) (local.get $len))");
    let host = host();
    let plugin = load(&host, &echo);
    let call = call_with(json!({ "n": 21 }));
    let report = host.call(&plugin, &call, &Limits::default()).await;
    let Err(CallFailure::Plugin { message }) = report.result else { panic!("{report:?}") };
    assert_eq!(message, r#"{"with":{"n":21},"task":"0190/step[0]"}"#);
}

#[tokio::test]
async fn an_error_of_the_plugin_is_its_own_words() {
    let guest = Guest::new("the table is empty", "(call $err (i32.const {at}) (i32.const {len}))");
    let report = run(&guest, &Limits::default()).await;
    assert_eq!(failure(report), CallFailure::Plugin { message: "the table is empty".to_owned() });
}

#[tokio::test]
async fn an_error_of_the_plugin_is_cut_at_the_output_limit() {
    let guest = Guest::new("ääääää", "(call $err (i32.const {at}) (i32.const {len}))");
    let report = run(&guest, &Limits { output_bytes: 5, ..Limits::default() }).await;
    assert_eq!(failure(report), CallFailure::Plugin { message: "ää".to_owned() });
}

#[tokio::test]
async fn a_crash_is_a_trap_and_keeps_the_log() {
    let body = "(call $log (i32.const {at}) (i32.const 4) (i32.const {at}) (i32.const {len})) (unreachable)";
    let report = run(&Guest::new("warn: about to crash", body), &Limits::default()).await;
    assert_eq!(report.logs.len(), 1);
    assert_eq!((report.logs[0].level, report.logs[0].message.as_str()), (LogLevel::Warn, "warn: about to crash"));
    let CallFailure::Trap { message } = failure(report) else { panic!("not a trap") };
    assert!(message.contains("unreachable"), "{message}");
}

#[tokio::test]
async fn an_endless_loop_is_timed_out_and_does_not_hold_the_thread() {
    let host = host();
    let plugin = load(&host, &Guest::new("", LOOP));
    let limits = Limits { fuel: u64::MAX, time: Duration::from_secs(3), ..Limits::default() };
    let call = call_with(json!({}));
    // One thread runs both: the beats come only if the guest lets go of it.
    let beats = async {
        let mut beats = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            beats += 1;
            if beats == 5 {
                break Instant::now();
            }
        }
    };
    let begin = Instant::now();
    let endless = async { (host.call(&plugin, &call, &limits).await, Instant::now()) };
    let ((report, ended), beaten) = tokio::join!(endless, beats);
    assert_eq!(failure(report), CallFailure::TimedOut { limit: limits.time });
    assert!(ended - begin >= limits.time);
    assert!(beaten < ended, "five beats of 10 ms must fit into a call of 3 s");
}

#[tokio::test]
async fn a_dropped_call_frees_its_place() {
    let host = Host::new(HostConfig { max_concurrent: 1, ..HostConfig::default() }).expect("the engine can be set up");
    let endless = load(&host, &Guest::new("", LOOP));
    let quick = load(&host, &Guest::returning("{}"));
    let limits = Limits { fuel: u64::MAX, ..Limits::default() };
    let call = call_with(json!({}));
    tokio::select! {
        report = host.call(&endless, &call, &limits) => panic!("{report:?}"),
        () = tokio::time::sleep(Duration::from_millis(30)) => {}
    }
    let report = host.call(&quick, &call, &limits).await;
    assert_eq!(report.result, Ok(PluginReturn::default()));
}

#[tokio::test]
async fn too_many_instructions_are_out_of_fuel() {
    let limits = Limits { fuel: 100_000, ..Limits::default() };
    let report = run(&Guest::new("", LOOP), &limits).await;
    assert_eq!(report.fuel_used, 100_000);
    assert_eq!(failure(report), CallFailure::OutOfFuel { fuel: 100_000 });
}

#[tokio::test]
async fn the_same_call_uses_the_same_fuel() {
    let host = host();
    let plugin = load(&host, &Guest::returning("{}"));
    let mut used = BTreeSet::new();
    for _ in 0..5 {
        used.insert(host.call(&plugin, &call_with(json!({ "n": 1 })), &Limits::default()).await.fuel_used);
    }
    assert_eq!(used.len(), 1, "{used:?}");
}

#[tokio::test]
async fn growing_past_the_memory_limit_is_out_of_memory() {
    let body = "(drop (memory.grow (i32.const 100))) (call $ok (i32.const {at}) (i32.const {len}))";
    let (within, beyond) = (104 << 16, (104 << 16) - 1);
    let fits = run(&Guest::new("{}", body), &Limits { memory_bytes: within, ..Limits::default() }).await;
    assert_eq!(fits.result, Ok(PluginReturn::default()));
    let report = run(&Guest::new("{}", body), &Limits { memory_bytes: beyond, ..Limits::default() }).await;
    assert_eq!(failure(report), CallFailure::OutOfMemory { wanted: within, limit: beyond });
}

#[tokio::test]
async fn the_memory_limit_holds_from_the_first_page() {
    let report = run(&Guest::returning("{}"), &Limits { memory_bytes: 65_536, ..Limits::default() }).await;
    assert_eq!(failure(report), CallFailure::OutOfMemory { wanted: 4 << 16, limit: 65_536 });
}

#[tokio::test]
async fn a_higher_limit_than_the_hosts_is_the_hosts() {
    let host =
        Host::new(HostConfig { max_memory_bytes: 1 << 20, ..HostConfig::default() }).expect("the engine can be set up");
    let plugin = load(&host, &Guest::new("", "(drop (memory.grow (i32.const 100))) (unreachable)"));
    let report =
        host.call(&plugin, &call_with(json!({})), &Limits { memory_bytes: 1 << 30, ..Limits::default() }).await;
    assert_eq!(failure(report), CallFailure::OutOfMemory { wanted: 104 << 16, limit: 1 << 20 });
}

#[tokio::test]
async fn a_text_that_is_no_return_is_bad_output() {
    for (text, expected) in [
        ("fine", r#"it returned "fine", which is not {outputs, metrics, effects} as JSON: expected ident"#),
        ("[1]", r#"it returned "[1]", which is not {outputs, metrics, effects} as JSON"#),
        (r#"{"answer":42}"#, "unknown field `answer`"),
        (r#"{"metrics":{"loss":"low"}}"#, "invalid type: string \"low\", expected f64"),
        (r#"{"effects":[{"effect":"format_disk"}]}"#, "unknown variant `format_disk`"),
        ("{\"outputs\":{}", "EOF while parsing"),
    ] {
        let failure = failure(run(&Guest::returning(text), &Limits::default()).await);
        let CallFailure::BadOutput { message } = failure else { panic!("{text}: {failure:?}") };
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[tokio::test]
async fn a_return_past_the_output_limit_is_bad_output() {
    let text = r#"{"outputs":{"text":"0123456789"}}"#;
    let at_limit = run(&Guest::returning(text), &Limits { output_bytes: text.len(), ..Limits::default() }).await;
    assert!(at_limit.result.is_ok(), "{at_limit:?}");
    let report = run(&Guest::returning(text), &Limits { output_bytes: text.len() - 1, ..Limits::default() }).await;
    assert_eq!(
        message(report),
        "it returned 33 bytes, but may return 32; keep large results in artifacts and return their digests"
    );
}

#[tokio::test]
async fn an_undeclared_output_is_bad_output() {
    let report = run(&Guest::returning(r#"{"outputs":{"answer":1,"extra":2}}"#), &Limits::default()).await;
    assert_eq!(
        failure(report),
        CallFailure::BadOutput {
            message: r#"it returned the output "extra", but its plugin.json declares only answer, clock, text"#
                .to_owned()
        }
    );
}

#[tokio::test]
async fn an_output_of_the_wrong_type_is_bad_output() {
    let report = run(&Guest::returning(r#"{"outputs":{"answer":"six"}}"#), &Limits::default()).await;
    assert_eq!(message(report), r#"it returned the text "six" as the output "answer", which is declared as number"#);
}

#[tokio::test]
async fn a_text_that_is_not_utf_8_is_a_crash() {
    let body = "(i32.store8 (i32.const {at}) (i32.const 255)) (call $ok (i32.const {at}) (i32.const {len}))";
    let failure = failure(run(&Guest::new("{}", body), &Limits::default()).await);
    assert!(matches!(&failure, CallFailure::Trap { message } if message.contains("utf-8")), "{failure:?}");
}

#[tokio::test]
async fn arguments_that_do_not_fit_the_manifest_never_reach_the_guest() {
    let host = host();
    let mut manifest = manifest();
    manifest.inputs.get_mut("n").expect("the manifest has `n`").required = true;
    let crash = Guest::new("", "(unreachable)").component();
    let plugin = host.load(&crash, manifest).expect("the guest is a plugin");
    for (with, expected) in [
        (json!({}), "`with.n` is missing; it is a number: any number"),
        (json!({ "n": "21" }), "`with.n` is the text \"21\", but must be a number: any number"),
        (json!({ "n": 21, "m": 1 }), "`with.m` is unknown; it takes n"),
    ] {
        let report = host.call(&plugin, &call_with(with), &Limits::default()).await;
        assert_eq!(failure(report), CallFailure::BadInput { message: expected.to_owned() });
    }
}

#[tokio::test]
async fn lines_past_the_log_limit_are_dropped_and_counted() {
    // The text is `info`, a line of ten bytes, and a return.
    let body = "(local.set $a (i32.const 100))
      (loop $again
        (call $log (i32.const {at}) (i32.const 4) (i32.add (i32.const {at}) (i32.const 4)) (i32.const 10))
        (br_if $again (local.tee $a (i32.sub (local.get $a) (i32.const 1)))))
      (call $ok (i32.add (i32.const {at}) (i32.const 14)) (i32.const 2))";
    let limits = Limits { log_bytes: 3 * 26, ..Limits::default() };
    let report = run(&Guest::new("info0123456789{}", body), &limits).await;
    assert_eq!(report.result, Ok(PluginReturn::default()));
    let lines: Vec<&str> = report.logs.iter().map(|line| line.message.as_str()).collect();
    let dropped = "97 more lines were dropped: a call may log 78 bytes";
    assert_eq!(lines, ["0123456789", "0123456789", "0123456789", dropped]);
}

#[tokio::test]
async fn a_module_that_is_no_component_is_refused_with_what_to_do() {
    let module = wat::parse_str("(module)").expect("an empty module is one");
    let error = host().load(&module, manifest()).expect_err("a core module is no component");
    assert!(matches!(error, LoadError::Compile { size: 8, .. }), "{error:?}");
    assert!(error.to_string().contains("`wasm-tools component new` makes one"), "{error}");
}

#[tokio::test]
async fn a_component_of_another_world_is_refused_with_what_to_do() {
    let component = wat::parse_str("(component)").expect("an empty component is one");
    let error = host().load(&component, manifest()).expect_err("an empty component exports nothing");
    assert!(matches!(error, LoadError::World { .. }), "{error:?}");
    assert!(error.to_string().contains("must export `run` of kickwheel:plugin@0.1.0"), "{error}");
}

#[tokio::test]
async fn a_plugin_of_another_host_is_unavailable() {
    let plugin = load(&host(), &Guest::returning("{}"));
    let report = host().call(&plugin, &call_with(json!({})), &Limits::default()).await;
    assert!(matches!(failure(report), CallFailure::Unavailable { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_calls_at_once_share_eight_places() {
    let host = host();
    let busy = "(local.set $a (i32.const 200000))
      (loop $again (br_if $again (local.tee $a (i32.sub (local.get $a) (i32.const 1)))))
      (call $err (local.get $ptr) (local.get $len))";
    let plugin = load(&host, &Guest::new("", busy));
    let calls = (0..64).map(|n| {
        let (host, plugin) = (host.clone(), plugin.clone());
        tokio::spawn(async move { host.call(&plugin, &call_with(json!({ "n": n })), &Limits::default()).await })
    });
    let mut seen = BTreeSet::new();
    for call in calls.collect::<Vec<_>>() {
        let report = call.await.expect("no call panics");
        let Err(CallFailure::Plugin { message }) = report.result else { panic!("{report:?}") };
        seen.insert(message);
    }
    let expected = (0..64).map(|n| format!(r#"{{"with":{{"n":{n}}},"task":"0190/step[0]"}}"#)).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn an_instance_is_never_used_twice() {
    // A counter in the guest's memory and one in a global: both start anew with every call.
    let body = "(i32.store (i32.const 2048) (i32.add (i32.load (i32.const 2048)) (i32.const 1)))
      (if (i32.ne (i32.load (i32.const 2048)) (i32.const 1)) (then (unreachable)))
      (if (i32.ne (global.get $free) (i32.const 131112)) (then (unreachable)))
      (call $ok (i32.const {at}) (i32.const {len}))";
    let host = host();
    let plugin = load(&host, &Guest::new("{}", body));
    for _ in 0..20 {
        let report = host.call(&plugin, &call_with(json!({})), &Limits::default()).await;
        assert_eq!(report.result, Ok(PluginReturn::default()), "{report:?}");
    }
}
