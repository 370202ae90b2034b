//! What every pool promises, tried on each member of [`Member::all`] with real processes; [`secrets`] is a chapter of it.
//! What only one kind of pool promises is beside it: [`docker`], [`user`].
//!
//! Nothing is mocked: the runner and the agent are the real ones, and who is said to be killed is killed.

mod docker;
mod place;
mod secrets;
mod user;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use kickwheel_artifacts::TreeFile;
use kickwheel_pool::{Capacity, Observed, PoolError, Request, StartError};
use kickwheel_schemas::{
    Millis,
    runner::{Claim, JobEnd, JobResult, JobSpec, Program, Signed as _, credential},
    sealed::Secrets,
};
use place::*;
use serde_json::json;

#[test]
fn members() {
    println!("members of the pool contract: {:?}", Member::all());
    assert!(Member::all().contains(&Member::Local));
}

#[tokio::test]
async fn a_job_that_succeeds_leaves_values_artifacts_metrics_and_its_log() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let mut spec = script(
            r#"
            echo "hello from $KICKWHEEL_TASK"; echo "and an error" >&2
            echo '{"name":"loss","value":2}' >> "$KICKWHEEL_METRICS"
            echo '{"name":"loss","value":1.5,"step":2}' >> "$KICKWHEEL_METRICS"
            echo '{"answer":41,"ignored":true}' >> "$KICKWHEEL_OUTPUT"
            echo '{"answer":42}' >> "$KICKWHEEL_OUTPUT"
            printf model > out/model.bin
            mkdir -p out/tree/sub; echo 1 > out/tree/one; echo 2 > out/tree/sub/two; chmod +x out/tree/one
            "#,
        );
        spec.output_values = vec!["answer".to_owned()];
        spec.output_paths =
            BTreeMap::from([("model".to_owned(), "out/model.bin".to_owned()), ("tree".into(), "./out/tree/".into())]);
        let key = place.start(&spec).await;
        let result = place.result(&key).await;
        assert_eq!(result.end, JobEnd::Succeeded);
        assert_eq!(result.values, BTreeMap::from([("answer".to_owned(), json!(42))]));
        assert_eq!(result.metrics, BTreeMap::from([("loss".to_owned(), 1.5)]));
        assert!(result.started_at <= result.ended_at);
        let model = &result.artifacts["model"];
        assert_eq!((model.path.as_str(), model.folder, model.size), ("out/model.bin", false, 5));
        assert_eq!(place.artifacts.get_bytes(&model.digest, 100).await.expect("it is stored"), "model");
        let tree = place.artifacts.manifest(&result.artifacts["tree"].digest).await.expect("it is stored");
        let files: Vec<_> = tree.files.iter().map(|file| (file.path.as_str(), file.executable)).collect();
        assert_eq!(files, [("one", true), ("sub/two", false)]);
        let log = String::from_utf8(place.log(&key).await).expect("it is text");
        assert!(log.starts_with(&format!("hello from {}\nand an error\n", spec.task)), "{log}");
        assert!(log.contains("`ignored` is ignored"), "{log}");
        // A finished attempt stays as it is, however often it is started.
        place.pool.start(&key, &spec, &place.small(), &Secrets::new()).await.expect("it is there already");
        assert_eq!(place.result(&key).await, result);
    }
}

#[tokio::test]
async fn a_job_sees_its_source_its_files_and_its_environment() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let file = |path: &str, text: &'static str, executable| {
            Ok::<_, kickwheel_artifacts::ArtifactError>(TreeFile { path: path.into(), bytes: text.into(), executable })
        };
        let tree = [file("src/run.sh", "#!/bin/sh\ncat src/data", true), file("src/data", "data\n", false)];
        let source = place.artifacts.put_tree(futures::stream::iter(tree)).await.expect("it is stored");
        let raw = place.artifacts.put_bytes("a,b\n").await.expect("it is stored");
        let mut spec = script(
            r#"
            ./src/run.sh; cat raw/part.csv; stat -c %a src/run.sh src/data raw/part.csv src
            echo "$LR|$KICKWHEEL_ATTEMPT|$TRACEPARENT|$LANG"
            [ "$HOME" = "$PWD" ] && [ "$KICKWHEEL_SOURCE" = "$PWD" ] && [ -d "$TMPDIR" ]
            [ -z "${CARGO_MANIFEST_DIR-}" ]; touch src/mine
            "#,
        );
        spec.source = Some(source);
        spec.files = BTreeMap::from([("raw/part.csv".to_owned(), raw)]);
        spec.env = BTreeMap::from([("LR".to_owned(), "0.1".to_owned()), ("KICKWHEEL_TASK".into(), "forged".into())]);
        spec.traceparent = Some("00-a-b-01".to_owned());
        let key = place.start(&spec).await;
        let result = place.result(&key).await;
        let log = String::from_utf8(place.log(&key).await).expect("it is text");
        assert_eq!(result.end, JobEnd::Succeeded, "{log}");
        assert_eq!(log, format!("data\na,b\n555\n444\n444\n755\n0.1|{}|00-a-b-01|C.UTF-8\n", spec.attempt));
        assert!(!place.attempt(&key).join("credential").exists(), "the job could forge results with it");
    }
}

#[tokio::test]
async fn a_missing_input_is_the_platforms_failure() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let mut absent = place.artifacts.put_bytes("x").await.expect("it is stored");
        absent.digest = kickwheel_schemas::Digest::of(b"never stored");
        let mut spec = script("echo never");
        spec.files = BTreeMap::from([("x".to_owned(), absent.clone())]);
        let result = place.run(&spec).await;
        assert!(
            matches!(&result.end, JobEnd::Setup { message } if message.contains(absent.digest.as_str())),
            "{result:?}"
        );
        assert_eq!(result.started_at, result.ended_at);
    }
}

#[tokio::test]
async fn a_job_that_fails_says_how() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let check = async |spec: JobSpec, expected: JobEnd| assert_eq!(place.run(&spec).await.end, expected);
        check(script("exit 7"), JobEnd::Exited { code: 7 }).await;
        check(script("false; echo -e stops here"), JobEnd::Exited { code: 1 }).await;
        check(script("echo $undefined"), JobEnd::Exited { code: 2 }).await;
        check(script("kill -9 $$"), JobEnd::Signalled { signal: 9 }).await;
        let exec = |argv: &[&str]| JobSpec {
            program: Program::Exec { argv: argv.iter().map(|word| (*word).to_owned()).collect() },
            ..script("")
        };
        check(exec(&["sh", "-c", "exit 3"]), JobEnd::Exited { code: 3 }).await;
        check(exec(&["no-such-program"]), JobEnd::Exited { code: 127 }).await;
        check(exec(&["/"]), JobEnd::Exited { code: 126 }).await;
    }
}

#[tokio::test]
async fn outputs_that_are_missing_or_malformed_are_bad_output() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let check = async |text: &str, value: bool, expected: &str| {
            let mut spec = script(text);
            if value {
                spec.output_values = vec!["v".to_owned()];
            } else {
                spec.output_paths = BTreeMap::from([("p".to_owned(), "out/p".to_owned())]);
            }
            let result = place.run(&spec).await;
            assert!(
                matches!(&result.end, JobEnd::BadOutput { message } if message.contains(expected)),
                "{text}: {:?} does not say {expected:?}",
                result.end
            );
            assert!(result.values.is_empty() && result.artifacts.is_empty());
        };
        check("true", true, "`v` is missing").await;
        check("echo v=1 >> $KICKWHEEL_OUTPUT", true, "no JSON objects").await;
        check(r#"printf '{"v":"%070000d"}' 0 >> $KICKWHEEL_OUTPUT"#, true, "write it to a path output").await;
        check("true", false, "written nothing there").await;
        check("ln -s /etc/passwd out/p", false, "symbolic link").await;
        check("rmdir out; ln -s /etc out; ln -s /etc/passwd p", false, "written nothing there").await;
        check("mkdir out/p; ln -s /etc/passwd out/p/x", false, "symbolic link").await;
        check("mkdir out/p; ln -s ../q out/p/x", false, "\"x\" -> \"../q\"").await;
        check("mkdir out/p; touch out/p/$(printf '\\377')", false, "not UTF-8; rename it").await;
        check("mkfifo out/p", false, "neither a regular file nor a folder").await;
    }
}

#[tokio::test]
async fn a_job_that_takes_too_long_is_stopped_with_a_grace() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let mut spec = script(
            r#"trap 'echo saved; exit 0' TERM; echo '{"name":"n","value":1}' >> $KICKWHEEL_METRICS
            while :; do sleep 0.01; done"#,
        );
        spec.timeout_ms = Some(300);
        let key = place.start(&spec).await;
        let result = place.result(&key).await;
        assert_eq!(result.end, JobEnd::TimedOut);
        assert!(result.ended_at.since(result.started_at) >= 300);
        assert_eq!(result.metrics, BTreeMap::from([("n".to_owned(), 1.0)]));
        assert!(String::from_utf8_lossy(&place.log(&key).await).contains("saved"));
    }
}

#[tokio::test]
async fn a_cancelled_job_gets_its_grace_and_not_more() {
    for member in Member::all() {
        let place = Place::new(member).await;
        // The shell dies of SIGTERM at once; what it started still has its grace.
        let polite = script(
            "sh -c 'trap \"sleep 0.3; echo saved; exit 0\" TERM; echo ready; while :; do sleep 0.01; done'; echo never",
        );
        let key = place.start(&polite).await;
        wait_for_log(&place, &key, "ready").await;
        place.pool.cancel(&key, Duration::from_secs(20)).await.expect("it can be asked");
        assert_eq!(place.result(&key).await.end, JobEnd::Cancelled);
        let log = String::from_utf8_lossy(&place.log(&key).await).into_owned();
        assert!(log.contains("saved") && !log.contains("never"), "{log}");

        let stubborn = script("trap '' TERM; echo ready; while :; do sleep 0.01; done");
        let key = place.start(&stubborn).await;
        wait_for_log(&place, &key, "ready").await;
        let asked = Instant::now();
        place.pool.cancel(&key, Duration::from_millis(300)).await.expect("it can be asked");
        assert_eq!(place.result(&key).await.end, JobEnd::Cancelled);
        assert!(asked.elapsed() >= Duration::from_millis(300), "it had its grace");
        // Cancelling what has ended, or never was, changes nothing.
        place.pool.cancel(&key, Duration::ZERO).await.expect("it can be asked");
        let never = key_of(&script("true"));
        place.pool.cancel(&never, Duration::ZERO).await.expect("it can be asked");
        assert_eq!(place.pool.observe(&never).await.expect("it can be observed"), Observed::Unknown);
    }
}

#[tokio::test]
async fn a_job_that_is_cancelled_before_it_began_runs_no_user_code() {
    for member in Member::all() {
        let gate = Gate::new(member);
        let place = Place::with(member, |config| gate.stand_before(config)).await;
        let trace = place.trace("ran");
        let key = place.start(&script(&format!("touch {}", trace.display()))).await;
        assert_eq!(place.pool.observe(&key).await.expect("it can be observed"), Observed::Pending);
        place.pool.cancel(&key, Duration::from_secs(5)).await.expect("it can be asked");
        gate.open();
        assert_eq!(place.result(&key).await.end, JobEnd::Cancelled);
        assert!(!trace.exists());
    }
}

#[tokio::test]
async fn logs_are_read_while_the_job_runs_and_afterwards() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let go = place.trace("go");
        // Some of it is no UTF-8: a log is bytes.
        let text = format!(r"printf 'one\n\377\376\n'; while [ ! -e {} ]; do sleep 0.01; done; echo two", go.display());
        let key = place.start(&script(&text)).await;
        let mut follow = place.pool.read_log(&key, 0, true).await.expect("it can be read");
        let mut seen = Vec::new();
        while seen.len() < 7 {
            let piece = tokio::time::timeout(PATIENCE, follow.next()).await.expect("there is more");
            seen.extend_from_slice(&piece.expect("it has not ended").expect("it can be read"));
        }
        assert_eq!(seen, b"one\n\xff\xfe\n");
        place.running(&key).await;
        fs::write(&go, "").expect("it can be written");
        while let Some(piece) = tokio::time::timeout(PATIENCE, follow.next()).await.expect("it ends") {
            seen.extend_from_slice(&piece.expect("it can be read"));
        }
        assert_eq!(seen, b"one\n\xff\xfe\ntwo\n");
        assert_eq!(place.log(&key).await, seen);
        let mut rest = place.pool.read_log(&key, 7, false).await.expect("it can be read");
        assert_eq!(rest.next().await.expect("there is some").expect("it can be read"), "two\n");
        assert!(rest.next().await.is_none());
    }
}

#[tokio::test]
async fn a_log_over_its_limit_is_cut_and_the_job_goes_on() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let mut spec = script("head -c 20000000 /dev/zero | tr '\\0' x; echo '{\"v\":1}' >> $KICKWHEEL_OUTPUT");
        spec.output_values = vec!["v".to_owned()];
        spec.log_limit_bytes = 1000;
        let key = place.start(&spec).await;
        assert_eq!(place.result(&key).await.end, JobEnd::Succeeded);
        let log = String::from_utf8(place.log(&key).await).expect("it is text");
        assert!(log.starts_with(&"x".repeat(1000)) && log.len() < 1500, "{} bytes", log.len());
        assert!(log.contains("limit of 1000 bytes") && log.contains("19999000 bytes of log were dropped"));
    }
}

#[tokio::test]
async fn a_job_over_its_memory_limit_ends_as_out_of_memory() {
    for member in Member::all() {
        let place = Place::new(member).await;
        // `tail` keeps a line without an end in memory.
        let mut spec = script("head -c 2000000000 /dev/zero | tail; echo never");
        spec.memory_bytes = Some(64 << 20);
        let result = place.run(&spec).await;
        let mechanisms: &[&str] = match member {
            Member::Local | Member::OtherUser if std::env::var_os("KICKWHEEL_TEST_CGROUP").is_none() => &["rss-watch"],
            Member::Local | Member::OtherUser => &["cgroup"],
            // Whether the kernel ends the runner together with the job is its choice.
            Member::Docker => &["cgroup", "docker"],
        };
        let noticed = |mechanism: &String| mechanisms.contains(&mechanism.as_str());
        assert!(matches!(&result.end, JobEnd::OutOfMemory { mechanism } if noticed(mechanism)), "{result:?}");
        assert!(result.peak_rss_bytes > 32 << 20, "{result:?}");
        // One that keeps to it is left alone.
        let mut spec = script("head -c 20000000 /dev/zero | tail -c 1 > /dev/null");
        spec.memory_bytes = Some(256 << 20);
        assert_eq!(place.run(&spec).await.end, JobEnd::Succeeded);
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_fits_when_there_is_room() {
    for member in Member::all() {
        let place = Place::with(member, |config| {
            config.capacity = Capacity { cpu_milli: 1500, memory_bytes: 1 << 30, gpu: 0 };
        })
        .await;
        let go = place.trace("go");
        let first = script(&format!("while [ ! -e {} ]; do sleep 0.01; done", go.display()));
        let first_key = place.start(&first).await;
        let second = script("true");
        let second_key = key_of(&second);
        let refused = place.pool.start(&second_key, &second, &place.small(), &Secrets::new()).await;
        assert!(matches!(refused, Err(StartError::Full(_))), "{refused:?}");
        assert_eq!(place.pool.observe(&second_key).await.expect("it can be observed"), Observed::Unknown);
        // Another engine counts the same, from the folders; and starting the first again needs no room.
        let successor = place.reopened().await;
        let occupied = successor.occupied().await.expect("it can be observed");
        assert_eq!(occupied, Capacity { cpu_milli: 1000, memory_bytes: 0, gpu: 0 });
        place.pool.start(&first_key, &first, &place.small(), &Secrets::new()).await.expect("it is there already");
        fs::write(&go, "").expect("it can be written");
        place.result(&first_key).await;
        place.pool.start(&second_key, &second, &place.small(), &Secrets::new()).await.expect("there is room");
        place.result(&second_key).await;

        let never = async |request: Request| {
            let spec = script("true");
            let refused = place.pool.start(&key_of(&spec), &spec, &request, &Secrets::new()).await;
            assert!(matches!(refused, Err(StartError::Unplaceable(_))), "{request:?}: {refused:?}");
        };
        never(Request { cpu_milli: 1501, ..Request::default() }).await;
        never(Request { memory_bytes: Some(2 << 30), ..Request::default() }).await;
        never(Request { gpu: 1, ..Request::default() }).await;
        match member {
            Member::Local | Member::OtherUser => {
                never(Request { image: Some("python:3.12".to_owned()), ..Request::default() }).await;
            }
            Member::Docker => never(Request::default()).await,
        }
    }
}

#[tokio::test]
async fn changes_tell_of_the_begin_and_of_the_end() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let mut changes = place.pool.changes();
        let go = place.trace("go");
        let key = place.start(&script(&format!("while [ ! -e {} ]; do sleep 0.01; done", go.display()))).await;
        let next = async |changes: &mut kickwheel_pool::Changes| {
            assert_eq!(tokio::time::timeout(PATIENCE, changes.next()).await.expect("it is told"), key);
        };
        next(&mut changes).await;
        assert!(matches!(place.pool.observe(&key).await, Ok(Observed::Running { .. })));
        fs::write(&go, "").expect("it can be written");
        next(&mut changes).await;
        assert!(matches!(place.pool.observe(&key).await, Ok(Observed::Ended(_))));
        let more = tokio::time::timeout(Duration::from_millis(50), changes.next()).await;
        assert!(more.is_err(), "nothing else changed");
    }
}

#[tokio::test]
async fn what_a_job_leaves_running_ends_with_it() {
    for member in Member::of_this_machine() {
        let place = Place::new(member).await;
        let trace = place.trace("pid");
        // A daemon in a session of its own, adopted by nobody in the job, with an empty environment.
        let text = format!(
            "setsid env -i sh -c 'echo $$ > {}; exec sleep 60' & while [ ! -s {0} ]; do sleep 0.01; done",
            trace.display()
        );
        let started = Instant::now();
        let result = place.run(&script(&text)).await;
        assert_eq!(result.end, JobEnd::Succeeded);
        assert!(started.elapsed() < Duration::from_secs(20), "the daemon was not waited for");
        assert!(!is_alive(pid_in(&trace).await));
    }
}

#[tokio::test]
async fn a_job_is_adopted_after_the_engine_was_killed() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let go = place.trace("go");
        let spec = script(&format!("echo begun; while [ ! -e {} ]; do sleep 0.01; done; echo done", go.display()));
        let key = key_of(&spec);
        let order = place.trace("order.json");
        fs::write(&order, serde_json::to_vec(&spec).expect("it has string keys")).expect("it can be written");
        let mut engine = Command::new(std::env::current_exe().expect("a test knows its binary"))
            .args(["--exact", "engine_that_is_killed", "--nocapture"])
            .env("KICKWHEEL_TEST_ENGINE", place.folder.path())
            .env("KICKWHEEL_TEST_MEMBER", format!("{member:?}"))
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        until("the engine has seen the job run", || place.trace("seen").exists()).await;
        let (runner, program) = place.running(&key).await;
        let began = stat(runner).expect("it runs").start_ticks;
        engine.kill().expect("it runs");
        engine.wait().expect("it was killed");

        let successor = place.reopened().await;
        assert_eq!(running(&successor, &key).await, (runner, program));
        assert_eq!(stat(runner).expect("it runs on").start_ticks, began);
        successor.start(&key, &spec, &place.small(), &Secrets::new()).await.expect("it is adopted");
        fs::write(&go, "").expect("it can be written");
        let Ok(Observed::Ended(result)) = successor.wait(&key).await else { panic!("it has a result") };
        assert_eq!(result.end, JobEnd::Succeeded);
        assert_eq!(place.log(&key).await, b"begun\ndone\n");
    }
}

/// No test of its own: the engine of the test above, in a process that can be killed.
#[tokio::test]
async fn engine_that_is_killed() {
    let Some(data) = std::env::var_os("KICKWHEEL_TEST_ENGINE").map(PathBuf::from) else { return };
    let member = Member::parse(&std::env::var("KICKWHEEL_TEST_MEMBER").expect("it is given with the other"));
    let pool = Settings::of(member, &data).open(member, &data).await;
    let order = fs::read(data.join("shared/order.json")).expect("the order is there");
    let spec: JobSpec = serde_json::from_slice(&order).expect("it is a specification");
    let key = key_of(&spec);
    pool.start(&key, &spec, &small(member), &Secrets::new()).await.expect("it starts");
    running(&pool, &key).await;
    fs::write(data.join("shared/seen"), "").expect("it can be written");
    tokio::time::sleep(PATIENCE).await;
}

#[tokio::test]
async fn a_job_outlives_the_agent_and_the_next_start_brings_a_new_one() {
    for member in Member::of_this_machine() {
        let place = Place::new(member).await;
        let go = place.trace("go");
        let spec = script(&format!("while [ ! -e {} ]; do sleep 0.01; done; echo done", go.display()));
        let key = place.start(&spec).await;
        let before = place.running(&key).await;
        let agent = place.agent().expect("there is one");
        kill(agent);
        until("the agent is gone", || !is_alive(agent)).await;
        assert_eq!(place.running(&key).await, before);
        // The broken connection is noticed, a new agent comes, and it does not disturb the old one's runner.
        assert_eq!(place.run(&script("true")).await.end, JobEnd::Succeeded);
        assert!(place.agent().is_some_and(|new| new != agent));
        assert_eq!(place.running(&key).await, before);
        fs::write(&go, "").expect("it can be written");
        assert_eq!(place.result(&key).await.end, JobEnd::Succeeded);
    }
}

#[tokio::test]
async fn an_attempt_that_nobody_took_up_is_started_by_itself() {
    for member in Member::of_this_machine() {
        let gate = Gate::new(member);
        let place = Place::with(member, |config| gate.stand_before(config)).await;
        let key = place.start(&script("true")).await;
        // The runner waits at the gate, not having claimed; both it and the agent that would notice vanish.
        let waiting = gate.waiting().await;
        let agent = place.agent().expect("there is one");
        kill(agent);
        kill(waiting);
        until("both are gone", || !is_alive(agent) && !is_alive(waiting)).await;
        gate.open();
        assert_eq!(place.result(&key).await.end, JobEnd::Succeeded);
    }
}

#[tokio::test]
async fn user_code_runs_once_however_many_runners_race() {
    for member in Member::of_this_machine() {
        let gate = Gate::new(member);
        let place = Place::with(member, |config| gate.stand_before(config)).await;
        let trace = place.trace("ran");
        let spec = script(&format!("echo $$ >> {}", trace.display()));
        let key = place.start(&spec).await;
        let again = place.reopened().await;
        let request = place.small();
        let none = Secrets::new();
        tokio::try_join!(again.start(&key, &spec, &request, &none), place.pool.start(&key, &spec, &request, &none))
            .expect("it starts");
        let mut rivals: Vec<_> = (0..8)
            .map(|_| {
                Command::new(gate.runner())
                    .arg("run")
                    .arg("--attempt-dir")
                    .arg(place.attempt(&key))
                    .arg("--artifacts")
                    .arg(place.artifacts.root())
                    .spawn()
                    .expect("it starts")
            })
            .collect();
        gate.open();
        assert_eq!(place.result(&key).await.end, JobEnd::Succeeded);
        for rival in &mut rivals {
            assert!(rival.wait().expect("it ends").success(), "a loser leaves quietly");
        }
        assert_eq!(fs::read_to_string(&trace).expect("it ran").lines().count(), 1);
    }
}

#[tokio::test]
async fn a_killed_runner_is_a_lost_attempt_with_nothing_left() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let trace = place.trace("pid");
        let text = format!("setsid sh -c 'echo $$ > {}; exec sleep 60' & sleep 60", trace.display());
        let key = place.start(&script(&text)).await;
        let (runner, program) = place.running(&key).await;
        let daemon = pid_in(&trace).await;
        // Inside a container they have other numbers, and the kernel ends them all with its first process.
        let left = if member == Member::Docker { Vec::new() } else { vec![program, daemon] };
        let mut changes = place.pool.changes();
        kill(runner);
        // It may first be told that the job runs.
        let reason = loop {
            let told = tokio::time::timeout(PATIENCE, changes.next()).await;
            assert_eq!(told.expect("it is told"), key);
            match place.pool.observe(&key).await.expect("it can be observed") {
                Observed::Running { .. } => {}
                Observed::Lost { reason } => break reason,
                other => panic!("it is lost, not {other:?}"),
            }
        };
        assert!(["signal: 9", "without a result"].iter().any(|words| reason.contains(words)), "{reason}");
        assert!(!left.into_iter().any(is_alive), "nothing is left");
        // Lost is final: starting it again does not run it again.
        place.pool.start(&key, &script_of(&place, &key), &place.small(), &Secrets::new()).await.expect("it is over");
        assert!(matches!(place.pool.observe(&key).await, Ok(Observed::Lost { .. })));
    }
}

#[tokio::test]
async fn a_runner_told_to_end_by_somebody_else_stops_its_job_and_the_attempt_is_lost() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let key =
            place.start(&script("trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.01; done")).await;
        wait_for_log(&place, &key, "ready").await;
        let (runner, _) = place.running(&key).await;
        let runner = rustix::process::Pid::from_raw(runner as i32).expect("a process id");
        rustix::process::kill_process(runner, rustix::process::Signal::TERM).expect("it runs");
        let Ok(Observed::Lost { reason }) = place.pool.wait(&key).await else { panic!("it is lost") };
        assert!(reason.contains("told to end"), "{reason}");
        assert!(String::from_utf8_lossy(&place.log(&key).await).contains("saved"));
    }
}

#[tokio::test]
async fn a_runner_that_cannot_even_claim_is_a_lost_attempt_for_good() {
    for member in Member::all() {
        let gate = Gate::broken(member);
        let place = Place::with(member, |config| gate.stand_before(config)).await;
        let trace = place.trace("ran");
        let spec = script(&format!("touch {}", trace.display()));
        let key = place.start(&spec).await;
        let Ok(Observed::Lost { reason }) = place.pool.wait(&key).await else { panic!("it is lost") };
        let code = match member {
            Member::Local | Member::OtherUser => "exit status: 3",
            Member::Docker => "code 3",
        };
        assert!(reason.contains(code) && reason.contains("this runner is broken"), "{reason}");
        if member == Member::Docker {
            assert!(!trace.exists());
            continue;
        }
        // A runner that comes late finds the attempt taken.
        fs::write(place.attempt(&key).join("credential"), credential(KEY, &key.to_string()))
            .expect("it can be written");
        let late = Command::new(runner(member))
            .arg("run")
            .arg("--attempt-dir")
            .arg(place.attempt(&key))
            .arg("--artifacts")
            .arg(place.artifacts.root())
            .status()
            .expect("it starts");
        assert!(late.success());
        assert!(!trace.exists());
    }
}

#[tokio::test]
async fn a_forged_result_is_refused() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let go = place.trace("go");
        let key = place.start(&script(&format!("while [ ! -e {} ]; do sleep 0.01; done", go.display()))).await;
        place.running(&key).await;
        let now = Millis::now();
        let forged = JobResult {
            attempt: key.to_string(),
            nonce: String::new(),
            end: JobEnd::Succeeded,
            values: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            metrics: BTreeMap::new(),
            started_at: now,
            ended_at: now,
            cpu_ms: 0,
            peak_rss_bytes: 0,
            mac: String::new(),
        }
        .signed("a guess");
        let forged = serde_json::to_vec(&forged).expect("it has string keys");
        fs::write(place.attempt(&key).join("result.json"), forged).expect("it can be written");
        assert!(matches!(place.pool.observe(&key).await, Ok(Observed::Running { .. })), "it counts for nothing");
        fs::write(&go, "").expect("it can be written");
        let Ok(Observed::Lost { reason }) = place.pool.wait(&key).await else { panic!("it has no result") };
        assert!(reason.contains("not ours") || reason.contains("not signed"), "{reason}");
    }
}

#[tokio::test]
async fn a_claim_of_an_earlier_boot_or_of_a_reused_process_id_is_a_lost_attempt() {
    for member in Member::of_this_machine() {
        let place = Place::new(member).await;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("there is one").trim().to_owned();
        let itself = stat(std::process::id()).expect("it runs").start_ticks;
        for (boot, start_ticks) in [("another".to_owned(), itself), (boot, itself + 1)] {
            let key = place.start(&script("true")).await;
            place.result(&key).await;
            fs::remove_file(place.attempt(&key).join("result.json")).expect("there is one");
            let claim = Claim {
                attempt: key.to_string(),
                nonce: "n".to_owned(),
                pid: std::process::id(),
                start_ticks,
                boot,
                at: Millis::now(),
                mac: String::new(),
            }
            .signed(&credential(KEY, &key.to_string()));
            let claim = serde_json::to_vec(&claim).expect("it has string keys");
            fs::write(place.attempt(&key).join("claim.json"), claim).expect("it can be written");
            assert!(matches!(place.pool.observe(&key).await, Ok(Observed::Lost { .. })));
        }
    }
}

#[tokio::test]
async fn progress_and_memory_are_seen_while_the_job_runs() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let text = r#"echo '{"name":"progress","value":0.25}' >> $KICKWHEEL_METRICS; sleep 60"#;
        let key = place.start(&script(text)).await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match place.pool.observe(&key).await.expect("it can be observed") {
                Observed::Running { heartbeat, .. } if heartbeat.progress == Some(0.25) && heartbeat.rss_bytes > 0 => {
                    break;
                }
                _ => assert!(Instant::now() < deadline, "no progress was seen"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        place.pool.cancel(&key, Duration::ZERO).await.expect("it can be asked");
        place.result(&key).await;
    }
}

#[tokio::test]
async fn only_what_has_ended_is_removed() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let key = place.start(&script("sleep 60")).await;
        assert!(matches!(place.pool.remove(&key).await, Err(PoolError::Live(_))));
        place.pool.cancel(&key, Duration::ZERO).await.expect("it can be asked");
        place.result(&key).await;
        place.pool.remove(&key).await.expect("it has ended");
        assert_eq!(place.pool.observe(&key).await.expect("it can be observed"), Observed::Unknown);
        assert!(!place.attempt(&key).exists());
        place.pool.remove(&key).await.expect("it is gone already");
    }
}

#[tokio::test]
async fn a_pool_in_a_deep_folder_works() {
    for member in Member::of_this_machine() {
        let folder = tempfile::tempdir().expect("temporary folders can be made");
        let data = folder.path().join("a".repeat(120));
        let pool = Settings::of(member, &data).open(member, &data).await;
        let spec = script("true");
        pool.start(&key_of(&spec), &spec, &small(member), &Secrets::new()).await.expect("it starts");
        assert!(matches!(pool.wait(&key_of(&spec)).await, Ok(Observed::Ended(_))));
        kill(agent_of(&data).expect("there is one"));
    }
}

#[tokio::test]
async fn an_agent_whose_folder_is_gone_ends() {
    for member in Member::of_this_machine() {
        let place = Place::new(member).await;
        place.run(&script("true")).await;
        let agent = place.agent().expect("there is one");
        fs::remove_dir_all(place.folder.path().join("pool")).expect("it can be removed");
        until("the agent has ended", || !is_alive(agent)).await;
    }
}

/// Stands before the real runner and lets nobody through until it is opened.
struct Gate {
    member: Member,
    folder: tempfile::TempDir,
}

impl Gate {
    fn new(member: Member) -> Self {
        let gate = Self { member, folder: tempfile::tempdir().expect("temporary folders can be made") };
        let folder = gate.folder.path().display();
        gate.write(&format!("echo $$ > {folder}/waiting; while [ ! -e {folder}/go ]; do sleep 0.01; done"));
        gate
    }

    /// Nobody ever gets through.
    fn broken(member: Member) -> Self {
        let gate = Self { member, folder: tempfile::tempdir().expect("temporary folders can be made") };
        gate.write("echo this runner is broken >&2; exit 3");
        gate
    }

    fn write(&self, before: &str) {
        let text =
            format!("#!/bin/sh\n[ $1 != run ] || {{ {before}; }}\nexec {} \"$@\"\n", runner(self.member).display());
        fs::write(self.runner(), text).expect("it can be written");
        fs::set_permissions(self.runner(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o777)).expect("it is ours");
    }

    /// Containers have to see it, and the real one behind it.
    fn stand_before(&self, settings: &mut Settings) {
        settings.runner = self.runner();
        settings.shared.push(self.folder.path().to_owned());
        settings.shared.push(runner(self.member).parent().expect("it lies in a folder").to_owned());
    }

    fn runner(&self) -> PathBuf {
        self.folder.path().join("runner")
    }

    fn open(&self) {
        fs::write(self.folder.path().join("go"), "").expect("it can be written");
    }

    async fn waiting(&self) -> u32 {
        pid_in(&self.folder.path().join("waiting")).await
    }
}

async fn wait_for_log(place: &Place, key: &kickwheel_schemas::AttemptKey, text: &str) {
    let path = place.attempt(key).join("log");
    let read = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    until("the log says so", || read(&path).is_ok_and(|log| log.contains(text))).await;
}

fn script_of(place: &Place, key: &kickwheel_schemas::AttemptKey) -> JobSpec {
    let bytes = fs::read(place.attempt(key).join("spec.json")).expect("it is there");
    serde_json::from_slice(&bytes).expect("it is a specification")
}
