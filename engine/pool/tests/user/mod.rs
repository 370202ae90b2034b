//! What only jobs of another user promise: they reach what they are meant to see, and nothing else of ours.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use crate::place::*;
use kickwheel_pool::{LocalConfig, LocalPool, Observed, OpenError, OtherUser};
use kickwheel_schemas::{
    runner::{JobEnd, JobSpec},
    sealed::{Secrets, memory_folder},
};

/// The capabilities that an engine needs which is not root.
const CAPABILITIES: &str = "setuid,setgid,chown,dac_override,fowner,kill,sys_ptrace";

/// A user and group without a name, for an engine that is not root.
const NAMELESS: u32 = 54_321;

async fn log_of(place: &Place, spec: &JobSpec) -> String {
    let result = place.run(spec).await;
    let log = String::from_utf8(place.log(&key_of(spec)).await).expect("it is text");
    assert_eq!(result.end, JobEnd::Succeeded, "{log}");
    log
}

#[tokio::test]
async fn a_job_is_the_other_user_and_cannot_become_anybody_else() {
    if !can_be_others() {
        return;
    }
    let place = Place::new(Member::OtherUser).await;
    let text = r#"
        id -un; echo "$USER $LOGNAME"; id -G | tr ' ' '\n' | sort -n | tail -n 1
        grep -E '^(Uid|Gid|CapInh|CapPrm|CapEff|CapAmb|NoNewPrivs):' /proc/self/status | tr '\t' ' '
        [ "$HOME" = "$PWD" ]; touch here "$TMPDIR/there"; stat -c %U here "$TMPDIR/there"
        chown root here 2>/dev/null && echo given away; kill -0 "$PPID" 2>/dev/null && echo the runner can be ended
        setpriv --reuid=0 true 2>/dev/null && echo root again; env | grep -c KICKWHEEL_TEST || true
    "#;
    let log = log_of(&place, &script(text)).await;
    let lines: Vec<&str> = log.lines().collect();
    let ids = |name: &str| {
        let line = lines.iter().find_map(|line| line.strip_prefix(name)).expect("it is said");
        line.split_whitespace().map(|id| id.parse().expect("a number")).collect::<Vec<u32>>()
    };
    assert_eq!(lines[..2], [JOB_USER, "nobody nobody"], "{log}");
    assert_eq!(ids("Uid:"), [65534; 4]);
    let group = ids("Gid:")[0];
    assert!(group > kickwheel_pool::local::FIRST_GROUP && ids("Gid:").iter().all(|other| *other == group), "{log}");
    assert_eq!(lines[2].parse(), Ok(group), "{log}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert!(log.contains(&format!("{set}: 0000000000000000\n")), "{log}");
    }
    assert!(log.contains("NoNewPrivs: 1\n"), "{log}");
    assert!(log.ends_with("nobody\nnobody\n0\n"), "{log}");
}

#[tokio::test]
async fn a_job_reads_nothing_of_the_data_folder_nor_of_another_attempt_of_its_user() {
    if !can_be_others() {
        return;
    }
    let place = Place::new(Member::OtherUser).await;
    // The victim is as careless as it can be.
    let victim = JobSpec {
        secrets: BTreeMap::from([("token".to_owned(), "api-token".to_owned())]),
        ..script("umask 0; chmod 777 . \"$TMPDIR\"; echo precious > mine; echo '{}' > $KICKWHEEL_OUTPUT; sleep 60")
    };
    let key = key_of(&victim);
    let secrets: Secrets = [("token", "correct-horse")].into_iter().collect();
    place.pool.start(&key, &victim, &place.small(), &secrets).await.expect("it starts");
    let (runner, program) = place.running(&key).await;
    let ended = script("umask 0; chmod 777 .; echo precious > mine; exit 3");
    assert_eq!(place.run(&ended).await.end, JobEnd::Exited { code: 3 });
    let data = place.folder.path();
    fs::write(data.join("token"), "precious").expect("it can be written");
    fs::set_permissions(data.join("token"), fs::Permissions::from_mode(0o600)).expect("it is ours");
    let blob = place.artifacts.put_bytes("precious").await.expect("it is stored");

    let seen = |spec: &JobSpec| data.join("jobs/attempts").join(key_of(spec).file_name());
    until("the victim has written its file", || seen(&victim).join("work/mine").exists()).await;
    let memory = memory_folder(Path::new("/dev/shm"), &place.attempt(&key).canonicalize().expect("it is there"));
    let mut thief = script("");
    let own = place.attempt(&key_of(&thief));
    let own_memory: PathBuf = own.join("spec.json");
    let closed = [
        seen(&victim).join("work/mine"),
        seen(&victim).join("output.jsonl"),
        seen(&victim).join("script"),
        seen(&ended).join("work/mine"),
        memory.join("token"),
        PathBuf::from(format!("/proc/{program}/environ")),
        PathBuf::from(format!("/proc/{program}/cwd/mine")),
        PathBuf::from(format!("/proc/{program}/root/etc/hostname")),
        PathBuf::from(format!("/proc/{runner}/environ")),
        place.attempt(&key).join("spec.json"),
        place.attempt(&key).join("claim.json"),
        place.attempt(&key).join("log"),
        own_memory,
        own.join("claim.json"),
        own.join("log"),
        data.join("token"),
        place.artifacts.root().join(kickwheel_artifacts::store::location(&blob.digest).as_ref()),
    ];
    let listed = [
        seen(&victim),
        seen(&victim).join("work"),
        data.join("jobs/attempts"),
        data.join("pool/local"),
        memory,
        own.clone(),
        place.artifacts.root().to_owned(),
        data.to_owned(),
    ];
    for path in &closed {
        // It is there: the job's failure to read it proves something. Its own documents come with it.
        assert!(path.exists() || path.starts_with(&own), "{} is not there", path.display());
    }
    let lines = |paths: &[PathBuf]| paths.iter().map(|path| format!("{}\n", path.display())).collect::<String>();
    fs::write(place.trace("closed"), lines(&closed)).expect("it can be written");
    fs::write(place.trace("listed"), lines(&listed)).expect("it can be written");
    let text = format!(
        r#"
        while read -r path; do cat "$path" >/dev/null 2>&1 && echo "read $path"
            echo x 2>/dev/null >> "$path" && echo "wrote $path"; done < {closed}
        while read -r path; do ls "$path" >/dev/null 2>&1 && echo "listed $path"
            touch "$path/planted" 2>/dev/null && echo "planted in $path"; done < {listed}
        echo tried $(wc -l < {closed}) and $(wc -l < {listed})
        "#,
        closed = place.trace("closed").display(),
        listed = place.trace("listed").display()
    );
    thief.program = kickwheel_schemas::runner::Program::Script { script: text };
    assert_eq!(log_of(&place, &thief).await, format!("tried {} and {}\n", closed.len(), listed.len()));
    assert!(matches!(place.pool.observe(&key).await, Ok(Observed::Running { .. })), "the victim runs on");
    place.pool.cancel(&key, std::time::Duration::ZERO).await.expect("it can be asked");
    place.result(&key).await;
    // What a job leaves is removed with its attempt, also where the job saw it.
    place.pool.remove(&key).await.expect("it has ended");
    assert!(!seen(&victim).exists() && seen(&ended).exists());
}

#[tokio::test]
async fn a_job_cannot_have_us_read_for_it_what_it_cannot_read_itself() {
    if !can_be_others() {
        return;
    }
    let place = Place::new(Member::OtherUser).await;
    let precious = place.folder.path().join("precious");
    fs::write(&precious, r#"{"v": "precious", "name": "precious", "value": 1}"#).expect("it can be written");
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let check = async |text: &str, output: (&str, &str)| {
        let mut spec = script(&text.replace("PRECIOUS", precious.to_str().expect("UTF-8")));
        match output {
            ("v", _) => spec.output_values = vec!["v".to_owned()],
            (name, path) => _ = spec.output_paths.insert(name.to_owned(), path.to_owned()),
        }
        let result = place.run(&spec).await;
        assert!(matches!(result.end, JobEnd::BadOutput { .. }), "{text}: {:?}", result.end);
        assert!(!format!("{result:?}").contains("precious\"") && result.metrics.is_empty(), "{text}: {result:?}");
    };
    check("ln -s PRECIOUS $KICKWHEEL_OUTPUT", ("v", "")).await;
    check("ln -s PRECIOUS $KICKWHEEL_METRICS", ("p", "absent")).await;
    check("ln -s PRECIOUS out/p", ("p", "out/p")).await;
    check("mkdir out/p; ln -s PRECIOUS out/p/x", ("p", "out/p")).await;
    check("rmdir out; ln -s $(dirname PRECIOUS) out", ("p", "out/precious")).await;
    check("cd ..; mv work other; ln -s $(dirname PRECIOUS) work", ("p", "precious")).await;
    check("mkfifo $KICKWHEEL_METRICS $KICKWHEEL_OUTPUT", ("v", "")).await;
}

#[tokio::test]
async fn a_process_that_hides_from_its_runner_is_found_by_its_group() {
    if !can_be_others() {
        return;
    }
    let place = Place::new(Member::OtherUser).await;
    let trace = place.trace("pid");
    // A daemon without environment: once the runner is dead, nothing but the group tells whose it is.
    let text = format!("setsid env -i sh -c 'echo $$ > {}; exec sleep 60' & sleep 60", trace.display());
    let key = place.start(&script(&text)).await;
    let (runner, _) = place.running(&key).await;
    let daemon = pid_in(&trace).await;
    kill(runner);
    assert!(matches!(place.pool.wait(&key).await, Ok(Observed::Lost { .. })));
    assert!(!is_alive(daemon), "it is ended before the loss is told");
}

#[tokio::test]
async fn a_user_that_jobs_cannot_be_is_refused_with_what_is_missing() {
    if !can_be_others() {
        return;
    }
    let folder = tempfile::tempdir().expect("temporary folders can be made");
    let data = folder.path().join("data");
    let open = async |name: &str, jobs: PathBuf| {
        let user = OtherUser { name: name.to_owned(), folder: jobs };
        let config = Settings::of(Member::Local, &data).local(&data);
        LocalPool::open(LocalConfig { job_user: Some(user), ..config }).await
    };
    let refused = async |name: &str, jobs: PathBuf, expected: &str| match open(name, jobs).await {
        Err(OpenError::JobUser { problem, .. }) => assert!(problem.contains(expected), "{problem}"),
        other => panic!("{name}: {other:?}"),
    };
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("it is ours");
    refused(JOB_USER, folder.path().join("jobs"), "give it a folder that it can reach").await;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    refused("no-such-user", folder.path().join("jobs"), "useradd").await;
    refused("root", folder.path().join("jobs"), "engine's keys").await;
    let loose = folder.path().join("loose");
    fs::create_dir(&loose).expect("it can be made");
    fs::set_permissions(&loose, fs::Permissions::from_mode(0o777)).expect("it is ours");
    refused(JOB_USER, loose, "others could put").await;
    open(JOB_USER, folder.path().join("jobs")).await.expect("it is all there");
}

#[test]
fn an_engine_that_is_not_root_says_which_capabilities_it_lacks() {
    if !can_be_others() {
        return;
    }
    let place = tempfile::tempdir().expect("temporary folders can be made");
    let copy = place.path().join("runner");
    fs::copy(runner(Member::Local), &copy).expect("it can be copied");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let user = r#"{"name":"nobody","uid":65534,"groups":[65534],"group":1879048192,"folder":"/"}"#;
    let try_with = |options: &[&str]| {
        let output = Command::new("setpriv")
            .args(["--reuid=54321", "--regid=54321", "--clear-groups"])
            .args(options)
            .arg(&copy)
            .args(["check-user", "--job-user", user])
            .output()
            .expect("setpriv is installed");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (done, said) = try_with(&[]);
    assert!(!done && said.contains("CAP_SETUID, CAP_SETGID, CAP_CHOWN") && said.contains("start it as root"), "{said}");
    let with = |names: &str| {
        let listed = format!("+{}", names.replace(',', ",+"));
        try_with(&[&format!("--inh-caps={listed}"), &format!("--ambient-caps={listed}")])
    };
    let (done, said) = with("setuid,setgid,chown,dac_override,fowner,kill");
    assert!(!done && said.contains("lacks CAP_SYS_PTRACE;"), "{said}");
    assert_eq!(with(CAPABILITIES), (true, String::new()));
}

#[tokio::test]
async fn an_engine_with_the_capabilities_alone_runs_jobs_of_another_user() {
    if !can_be_others() {
        return;
    }
    let folder = tempfile::tempdir().expect("temporary folders can be made");
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).expect("it can be made");
    for (path, mode) in [(folder.path(), 0o711), (&shared, 0o777)] {
        chown(path, Some(NAMELESS), Some(NAMELESS)).expect("we are root");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("we are root");
    }
    let listed = format!("+{}", CAPABILITIES.replace(',', ",+"));
    let id = NAMELESS.to_string();
    let output = Command::new("setpriv")
        .args([format!("--reuid={id}"), format!("--regid={id}"), "--clear-groups".to_owned()])
        .args([format!("--inh-caps={listed}"), format!("--ambient-caps={listed}"), "--no-new-privs".to_owned()])
        .arg(std::env::current_exe().expect("a test knows its binary"))
        .args(["--exact", "user::engine_that_is_not_root", "--nocapture"])
        .env("KICKWHEEL_TEST_ENGINE", folder.path())
        // Already built, by whoever is root.
        .env("KICKWHEEL_RUNNER", runner(Member::OtherUser))
        .output()
        .expect("setpriv is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("ran without root"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// No test of its own: the engine of the test above.
#[tokio::test]
async fn engine_that_is_not_root() {
    let Some(data) = std::env::var_os("KICKWHEEL_TEST_ENGINE").map(PathBuf::from) else { return };
    if rustix::process::geteuid().is_root() {
        return;
    }
    let pool = Settings::of(Member::OtherUser, &data).open(Member::OtherUser, &data).await;
    let mut spec = script(
        "id -un; mkdir -m 700 closed; echo x > closed/file; echo '{\"v\":1}' >> $KICKWHEEL_OUTPUT; exec sleep 60",
    );
    spec.timeout_ms = Some(300);
    let key = key_of(&spec);
    pool.start(&key, &spec, &small(Member::OtherUser), &Secrets::new()).await.expect("it starts");
    let ended = pool.wait(&key).await;
    let log =
        fs::read_to_string(data.join("pool/local/attempts").join(key.file_name()).join("log")).expect("it is ours");
    assert!(matches!(&ended, Ok(Observed::Ended(result)) if result.end == JobEnd::TimedOut), "{ended:?} {log}");
    assert!(log.starts_with("nobody\n"), "{log}");
    let lost = script("setsid env -i sleep 60 & sleep 60");
    let second = key_of(&lost);
    pool.start(&second, &lost, &small(Member::OtherUser), &Secrets::new()).await.expect("it starts");
    let (runner, program) = running(&pool, &second).await;
    kill(runner);
    assert!(matches!(pool.wait(&second).await, Ok(Observed::Lost { .. })));
    assert!(!is_alive(program));
    pool.remove(&key).await.expect("it has ended");
    assert_eq!(fs::read_dir(data.join("jobs/attempts")).expect("it is ours").count(), 1);
    kill(agent_of(&data).expect("there is one"));
    println!("ran without root");
}
