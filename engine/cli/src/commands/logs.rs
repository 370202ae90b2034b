//! `logs`: of one task as they are, of several with the task's name before each line.
//!
//! When followed, tasks that begin later join in, and a server that is restarted is waited for: what was printed already is
//! skipped, as a log only grows.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use kickwheel_schemas::api::{RunDetail, StepView, TaskView, Watched};
use tokio::task::JoinSet;

use super::Session;
use crate::{
    args::Logs,
    client::Client,
    exit::{Exit, Failure, Outcome},
    output::{self, Look, Paint},
    progress::{has_ended, label},
    signals::Signals,
};

/// How long a server may be away while a log is followed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts to reach it.
const RETRY: Duration = Duration::from_millis(500);
/// How long one question for new tasks waits.
const WAIT_MS: u64 = 20_000;
/// A longer line is printed in pieces: it is not held back until its end comes.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// `logs …`.
pub async fn logs(session: &Session, args: Logs) -> Outcome {
    let client = session.client()?;
    let wanted = Wanted::of(&args)?;
    let mut signals = Signals::catch()?;
    tokio::select! {
        done = print(session.look, &client, &wanted, &args) => done,
        () = signals.next() => Ok(Exit::Interrupted),
    }
}

async fn print(look: Look, client: &Client, wanted: &Wanted, args: &Logs) -> Outcome {
    let run = client.get::<RunDetail>(&["runs", &wanted.run], &[]).await?.value;
    let chosen = wanted.tasks(&run)?;
    let single = match chosen.as_slice() {
        [(step, _)] => wanted.index.is_some() || (wanted.step.is_some() && !step.array),
        _ => false,
    };
    if let ([(step, task)], true) = (chosen.as_slice(), single) {
        let mut source = Source::of(&run, step, task, args);
        source.prefix = None;
        source.copy(client, look).await?;
        return Ok(Exit::Ok);
    }
    if args.follow {
        follow(look, client, wanted, args, run).await
    } else {
        all(look, client, &run, &chosen, args).await
    }
}

async fn all(look: Look, client: &Client, run: &RunDetail, chosen: &[(&StepView, &TaskView)], args: &Logs) -> Outcome {
    for (step, task) in chosen.iter().filter(|(_, t)| has_log(t)) {
        Source::of(run, step, task, args).copy(client, look).await?;
    }
    Ok(Exit::Ok)
}

/// Copies the logs of all chosen tasks at once, and of those that begin meanwhile.
async fn follow(look: Look, client: &Client, wanted: &Wanted, args: &Logs, run: RunDetail) -> Outcome {
    let mut begun = HashSet::new();
    let mut copies: JoinSet<Result<(), Failure>> = JoinSet::new();
    let mut watched = Watched { seq: 0, run };
    let mut away_since: Option<Instant> = None;
    loop {
        for (step, task) in wanted.tasks(&watched.run)? {
            if has_log(task) && begun.insert((step.name.clone(), task.index, task.attempt)) {
                let source = Source::of(&watched.run, step, task, args);
                let client = client.clone();
                copies.spawn(async move { source.copy(&client, look).await });
            }
        }
        let chosen_ended = watched.run.summary.state.is_terminal();
        if chosen_ended {
            break;
        }
        let query = [("seq", watched.seq.to_string()), ("wait_ms", WAIT_MS.to_string())];
        match client.get::<Watched>(&["runs", &watched.run.summary.id, "watch"], &query).await {
            Ok(next) => {
                away_since = None;
                watched = next.value;
            }
            Err(failure) => {
                wait_for_server(&mut away_since, failure).await?;
            }
        }
    }
    while let Some(copied) = copies.join_next().await {
        match copied {
            Ok(result) => result?,
            Err(e) => return Err(Failure::new(Exit::Refused, "logs", format!("a log could not be copied: {e}"))),
        }
    }
    Ok(Exit::Ok)
}

async fn wait_for_server(away_since: &mut Option<Instant>, failure: Failure) -> Result<(), Failure> {
    let passing = failure.exit == Exit::Unreachable && failure.code == "unreachable" || failure.code == "stopping";
    let since = *away_since.get_or_insert_with(Instant::now);
    if !passing || since.elapsed() > PATIENCE {
        return Err(failure);
    }
    tokio::time::sleep(RETRY).await;
    Ok(())
}

/// A task that was taken from the cache, or has not begun, has no log of its own.
fn has_log(task: &TaskView) -> bool {
    task.attempt > 0 && task.cached_from.is_none()
}

/// What was asked for.
struct Wanted {
    run: String,
    step: Option<String>,
    index: Option<u32>,
}

impl Wanted {
    /// From `RUN`, `RUN STEP`, `RUN STEP[INDEX]`, `RUN/STEP[INDEX]`, or options.
    fn of(args: &Logs) -> Result<Self, Failure> {
        let (run, in_run) = match args.run.split_once('/') {
            Some((run, task)) => (run, Some(task)),
            None => (args.run.as_str(), None),
        };
        let given = [in_run, args.task.as_deref(), args.step.as_deref()];
        let mut given = given.into_iter().flatten();
        let task = given.next();
        if given.next().is_some() {
            return Err(Failure::usage("the step is named twice"));
        }
        let (step, in_task) = match task {
            None => (None, None),
            Some(task) => split(task)?,
        };
        if in_task.is_some() && args.index.is_some() {
            return Err(Failure::usage("the index is given twice"));
        }
        let index = in_task.or(args.index);
        if index.is_some() && step.is_none() {
            return Err(Failure::usage("--index needs a step").help("write it as STEP[INDEX]"));
        }
        if args.attempt.is_some() && step.is_none() {
            return Err(
                Failure::usage("--attempt needs a step").help("write it as kickwheel logs RUN STEP --attempt N")
            );
        }
        Ok(Self { run: run.to_owned(), step: step.map(str::to_owned), index })
    }

    fn tasks<'r>(&self, run: &'r RunDetail) -> Result<Vec<(&'r StepView, &'r TaskView)>, Failure> {
        let Some(name) = &self.step else {
            return Ok(run.steps.iter().flat_map(|s| s.tasks.iter().map(move |t| (s, t))).collect());
        };
        let missing = |what: String, there: String| {
            Failure::new(Exit::NotFound, "task_not_found", format!("run {} has no {what}", run.summary.id)).help(there)
        };
        let Some(step) = run.steps.iter().find(|s| s.name == *name) else {
            let names: Vec<&str> = run.steps.iter().map(|s| s.name.as_str()).collect();
            return Err(missing(format!("step {name:?}"), format!("its steps are {}", names.join(", "))));
        };
        let tasks: Vec<_> = step.tasks.iter().filter(|t| self.index.is_none_or(|i| i == t.index)).collect();
        if let (Some(index), true, false) = (self.index, tasks.is_empty(), step.tasks.is_empty()) {
            let last = step.tasks.len() - 1;
            return Err(missing(format!("task {name}[{index}]"), format!("its tasks are {name}[0] to {name}[{last}]")));
        }
        Ok(tasks.into_iter().map(|t| (step, t)).collect())
    }
}

fn split(task: &str) -> Result<(Option<&str>, Option<u32>), Failure> {
    let wrong = || Failure::usage(format!("{task:?} names no task")).help("write it as STEP or STEP[INDEX]");
    match task.split_once('[') {
        None => Ok((Some(task), None)),
        Some((step, rest)) => {
            let index = rest.strip_suffix(']').and_then(|i| i.parse().ok()).ok_or_else(wrong)?;
            Ok((Some(step), Some(index)))
        }
    }
}

/// One task's log.
struct Source {
    run: String,
    step: String,
    index: u32,
    attempt: u32,
    follow: bool,
    prefix: Option<String>,
}

impl Source {
    fn of(run: &RunDetail, step: &StepView, task: &TaskView, args: &Logs) -> Self {
        Self {
            run: run.summary.id.clone(),
            step: step.name.clone(),
            index: task.index,
            // Pinned, so that after an interruption the same log is continued. 0: it has not begun, the server decides.
            attempt: args.attempt.unwrap_or(task.attempt),
            follow: args.follow && !has_ended(task),
            prefix: Some(label(step, task)),
        }
    }

    /// Copies the log to stdout, to its end.
    async fn copy(&self, client: &Client, look: Look) -> Result<(), Failure> {
        let mut query = vec![("step", self.step.clone()), ("index", self.index.to_string())];
        if self.attempt > 0 {
            query.push(("attempt", self.attempt.to_string()));
        }
        if self.follow {
            query.push(("follow", "true".to_owned()));
        }
        let mut lines = Lines::new(self.prefix.as_deref().map(|p| look.paint(Paint::Busy, p)));
        let mut printed: u64 = 0;
        let mut away_since: Option<Instant> = None;
        loop {
            match self.attempt_copy(client, &query, &mut lines, &mut printed, &mut away_since).await {
                Ok(()) => return lines.finish(),
                Err(failure) if self.follow => wait_for_server(&mut away_since, failure).await?,
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn attempt_copy(
        &self,
        client: &Client,
        query: &[(&str, String)],
        lines: &mut Lines,
        printed: &mut u64,
        away_since: &mut Option<Instant>,
    ) -> Result<(), Failure> {
        let mut response = client.stream(&["runs", &self.run, "logs"], query).await?;
        let mut skip = *printed;
        loop {
            let chunk = response
                .chunk()
                .await
                .map_err(|e| Failure::new(Exit::Unreachable, "unreachable", format!("the log broke off: {e}")))?;
            let Some(chunk) = chunk else { return Ok(()) };
            *away_since = None;
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= known as u64;
            *printed += (chunk.len() - known) as u64;
            lines.write(&chunk[known..])?;
        }
    }
}

/// Prints whole lines with a prefix, or bytes as they come without one.
struct Lines {
    prefix: Option<String>,
    open: Vec<u8>,
}

impl Lines {
    fn new(prefix: Option<String>) -> Self {
        Self { prefix, open: Vec::new() }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.prefix.is_none() {
            return output::bytes(bytes);
        }
        let ready = self.complete(bytes);
        output::bytes(&ready)
    }

    /// The lines that are complete with these bytes, each with the prefix.
    fn complete(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.open.extend_from_slice(bytes);
        let mut ready = Vec::new();
        while let Some(end) = self.open.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.open.drain(..=end).collect();
            self.put(&mut ready, &line);
        }
        if self.open.len() > MAX_LINE_BYTES {
            let mut line = std::mem::take(&mut self.open);
            line.push(b'\n');
            self.put(&mut ready, &line);
        }
        ready
    }

    fn put(&self, ready: &mut Vec<u8>, line: &[u8]) {
        if let Some(prefix) = &self.prefix {
            ready.extend_from_slice(prefix.as_bytes());
            ready.extend_from_slice(b" | ");
        }
        ready.extend_from_slice(line);
    }

    fn finish(&mut self) -> Result<(), Failure> {
        if self.open.is_empty() { Ok(()) } else { self.write(b"\n") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::samples::{RunSample, run};

    fn args(run: &str, task: Option<&str>) -> Logs {
        Logs {
            run: run.to_owned(),
            task: task.map(str::to_owned),
            step: None,
            index: None,
            follow: false,
            attempt: None,
        }
    }

    fn check(args: &Logs, expected: &[&str]) {
        let run = run(RunSample::Failed);
        let tasks = Wanted::of(args)
            .and_then(|w| w.tasks(&run).map(|all| all.iter().map(|(s, t)| label(s, t)).collect::<Vec<_>>()));
        assert_eq!(tasks.unwrap_or_else(|f| vec![f.message]), expected);
    }

    #[test]
    fn a_run_a_step_or_a_task_can_be_named() {
        check(&args("r", None), &["prepare", "train[0]", "train[1]", "train[2]", "cleanup"]);
        check(&args("r", Some("train")), &["train[0]", "train[1]", "train[2]"]);
        check(&args("r", Some("train[1]")), &["train[1]"]);
        check(&args("r/train[1]", None), &["train[1]"]);
        check(&Logs { step: Some("train".to_owned()), index: Some(2), ..args("r", None) }, &["train[2]"]);
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let run = run(RunSample::Failed);
        let missing = |task| {
            let wanted = Wanted::of(&args("r", Some(task))).expect("well formed");
            wanted.tasks(&run).expect_err("not there")
        };
        assert_eq!(missing("trian").help.as_deref(), Some("its steps are prepare, train, gate, cleanup"));
        assert_eq!(missing("train[7]").help.as_deref(), Some("its tasks are train[0] to train[2]"));
        assert!(Wanted::of(&args("r", Some("train[x]"))).is_err());
        assert!(Wanted::of(&args("r/train", Some("train"))).is_err());
    }

    #[test]
    fn lines_are_kept_whole_and_prefixed() {
        let mut lines = Lines::new(Some("a[0]".to_owned()));
        assert_eq!(lines.complete(b"one\ntw"), b"a[0] | one\n");
        assert_eq!(lines.complete(b"o\n"), b"a[0] | two\n");
        let long = vec![b'x'; MAX_LINE_BYTES + 1];
        assert_eq!(lines.complete(&long).len(), "a[0] | ".len() + long.len() + 1);
    }
}
