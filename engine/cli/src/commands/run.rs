//! `run FILE`: one run of a file that is in no registry, on the working tree as it is, with an engine of its own.
//!
//! The engine lives in `<data>/oneshot`, which is kept: results are found in its cache the next time. One such engine
//! can run at a time; a second `run` waits a moment and then says which process is in the way.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kickwheel_core::plan::Workflow;
use kickwheel_runtime::{AdhocError, Config, EgressSettings, Engine, POLL_GRACE, StartError, bus::BusConfig};
use kickwheel_schemas::api::{RunDetail, RunPhase, StartRun};
use kickwheel_spec::Severity;

use super::{Session, serve::not_started, validate};
use crate::{
    args::Run,
    check,
    exit::{Exit, Failure, Outcome},
    inputs,
    output::say,
    places,
    progress::{Wheel, ending, follow},
    runner_binary,
    signals::Signals,
};

/// How long to wait for another `kickwheel run` to end.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Between two looks at the lock.
const LOCK_LOOK: Duration = Duration::from_millis(200);
/// How long a cancelled run may take to end: the tasks' grace, and a little.
const CANCEL_WAIT: Duration = Duration::from_secs(30);
/// How long the engine may take to put everything away.
const DRAIN: Duration = Duration::from_secs(5);
/// A process that lives as long as its one run needs no short lease.
const LEASE: Duration = Duration::from_secs(15);

/// Runs the file to its end. Exit code 0 if it succeeded, 1 if not.
pub async fn run(session: &Session, args: Run) -> Outcome {
    let yaml = check::read(&args.file)?;
    let compiled = check::check(&yaml);
    let Some(workflow) = compiled.workflow else {
        if !session.look.json {
            say(validate::render(session.look, &args.file, &yaml, &compiled.diagnostics))?;
        }
        let count = compiled.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
        return Err(Failure::new(
            Exit::Failed,
            "workflow_has_mistakes",
            format!(
                "{} has {count} mistake{}; nothing was run",
                args.file.display(),
                if count == 1 { "" } else { "s" }
            ),
        ));
    };
    let start = StartRun { inputs: inputs::read(&args.inputs, |name| declared(&workflow, name))?, event_id: None };
    let file = std::path::absolute(&args.file)
        .map_err(|e| Failure::new(Exit::Usage, "file", format!("cannot tell where {} is: {e}", args.file.display())))?;
    let tree = working_tree(&file);
    let name = file.strip_prefix(&tree).unwrap_or(&file).display().to_string();

    let mut signals = Signals::catch()?;
    let data = places::data_folder(&session.global)?.join("oneshot");
    let engine = start_engine(&data, args.cpu).await?;
    let outcome = turn(session, &engine, &mut signals, &data, |engine| async move {
        engine.start_adhoc(&name, &yaml, Some(tree), start).await
    })
    .await;
    engine.shutdown(DRAIN).await;
    outcome
}

async fn turn<F, W>(session: &Session, engine: &Engine, signals: &mut Signals, data: &Path, start: F) -> Outcome
where
    F: FnOnce(Engine) -> W,
    W: Future<Output = Result<kickwheel_schemas::api::RunSummary, AdhocError>>,
{
    let summary = start(engine.clone()).await.map_err(refused)?;
    let wheel = Wheel::Embedded(engine.clone());
    let watched = tokio::select! {
        run = follow(session.look, &wheel, &summary.id) => Some(run?),
        () = signals.next() => None,
    };
    let Some(run) = watched else {
        // The jobs would go on without us, and nobody would look after them: end them first.
        return interrupted(engine, signals, &summary.id).await;
    };
    show(session, &wheel, &run, data).await?;
    Ok(if run.summary.state == RunPhase::Succeeded { Exit::Ok } else { Exit::Failed })
}

async fn show(session: &Session, wheel: &Wheel, run: &RunDetail, data: &Path) -> Result<(), Failure> {
    if session.look.json {
        return say(serde_json::to_string(run).expect("a run is JSON"));
    }
    let failed = ending::failed(wheel, run).await;
    let data = data.display();
    say(ending::ending(session.look, run, &failed, |label| {
        // Nothing serves this data folder now; the logs are kept in it.
        format!("kickwheel serve --data {data}, then kickwheel logs {} '{label}' --data {data}", run.summary.id)
    }))
}

async fn interrupted(engine: &Engine, signals: &mut Signals, run: &str) -> Outcome {
    eprintln!("ending the run; press Ctrl-C again to leave at once");
    let ended = async {
        engine.cancel_run(run, "kickwheel run", "interrupted").await.map_err(crate::progress::failure)?;
        let deadline = Instant::now() + CANCEL_WAIT;
        let mut seq = 0;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            let (now, detail) = engine.watch_run(run, seq, left).await.map_err(crate::progress::failure)?;
            if detail.summary.state.is_terminal() {
                break;
            }
            seq = now;
        }
        Ok::<(), Failure>(())
    };
    tokio::select! {
        ended = ended => ended?,
        () = signals.next() => {}
    }
    Ok(Exit::Interrupted)
}

async fn start_engine(data: &Path, cpu: Option<u64>) -> Result<Engine, Failure> {
    places::make_private_folder(data)?;
    let runner = runner_binary::find(data)?;
    let config = Config {
        data: data.to_owned(),
        database: None,
        runner,
        local_cpu_milli: cpu,
        docker: None,
        bus: BusConfig::Embedded,
        base_url: format!("file://{}", data.display()),
        base_url_lasts: false,
        lease: LEASE,
        pure_batching: true,
        secrets_key: places::secrets_key(None),
        host_processes: true,
        job_user: None,
        egress: EgressSettings::default(),
        poll_grace: POLL_GRACE,
    };
    let deadline = Instant::now() + LOCK_WAIT;
    let mut told = false;
    loop {
        match Engine::start(config.clone()).await {
            Ok(engine) => return Ok(engine),
            Err(StartError::Locked { pid, .. }) if Instant::now() < deadline => {
                if !told {
                    eprintln!("waiting for another kickwheel run (pid {pid}) to end");
                    told = true;
                }
                tokio::time::sleep(LOCK_LOOK).await;
            }
            Err(StartError::Locked { folder, pid }) => {
                return Err(Failure::new(
                    Exit::Refused,
                    "data_folder_locked",
                    format!("another kickwheel run (pid {pid}) is working in {folder}"),
                )
                .help("wait for it to end, or use a data folder of your own with --data DIR"));
            }
            Err(error @ StartError::Part { .. }) => return Err(not_started(error)),
        }
    }
}

fn refused(error: AdhocError) -> Failure {
    match error {
        AdhocError::Api(error) => crate::progress::failure(error),
        AdhocError::Diagnostics(all) => {
            let lines: Vec<String> =
                all.iter().map(|d| format!("{}:{}:{}: {}", d.file, d.line, d.column, d.message)).collect();
            Failure::new(Exit::Failed, "workflow_has_mistakes", lines.join("\n"))
        }
    }
}

/// The type of an input as `inputs::read` knows it.
fn declared(workflow: &Workflow, name: &str) -> Option<String> {
    let declared = workflow.plan.inputs.get(name)?;
    serde_json::to_value(declared.ty).ok()?.as_str().map(str::to_owned)
}

/// The repository that the file lies in; outside of any, its folder, or what is above `.kickwheel`.
fn working_tree(file: &Path) -> PathBuf {
    let folder = file.parent().unwrap_or(Path::new("/"));
    if let Some(repository) = folder.ancestors().find(|f| f.join(".git").exists()) {
        return repository.to_owned();
    }
    match folder.parent() {
        Some(above) if folder.file_name().is_some_and(|n| n == ".kickwheel") => above.to_owned(),
        _ => folder.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_working_tree_is_the_repository_or_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        fs::create_dir_all(root.join("a/.kickwheel")).expect("made");
        assert_eq!(working_tree(&root.join("a/.kickwheel/w.yaml")), root.join("a"));
        assert_eq!(working_tree(&root.join("a/w.yaml")), root.join("a"));
        // A worktree has a file of that name instead of a folder.
        fs::write(root.join(".git"), "gitdir: elsewhere").expect("written");
        assert_eq!(working_tree(&root.join("a/.kickwheel/w.yaml")), root);
    }
}
