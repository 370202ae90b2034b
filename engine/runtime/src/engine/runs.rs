//! Runs: listing, starting by hand, ending, running again, watching, logs.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use kickwheel_core::{
    event::{PinnedSource, RunRef, Work},
    filter::{FilterKind, inputs_for},
    plan::Workflow,
    state::{StepState, TaskState},
};
use kickwheel_schemas::{
    AttemptKey, CloudEvent, Millis, RunId, TaskKey,
    api::{CacheWhy, Page, RunDetail, RunSummary, StartRun},
    payload,
};
use kickwheel_store::{
    EventKey, Write, WriteError,
    rows::{RunFilter, RunRow},
    write::{Decide, DecisionRow, Inbox, PutPlan},
};
use serde_json::{Value, json};

use super::{AdhocError, Engine, LogQuery, RunQuery, RunSelector, read_failed, write_failed};
use crate::{
    ApiError, bus,
    driver::{self, InboxInput, Loaded, Sight},
    explain, ingest,
    launch::{Launch, Prepared},
    lookup::Enrichment,
    perform,
    registry::{Entry, EntryOrigin, compile_file},
    shared::{DEFAULT_PROJECT, entropy},
    view,
};

/// How long a manual start waits for earlier events of its lane.
const LANE_WAIT: Duration = Duration::from_secs(30);
/// Followed logs of plugins are looked at this often.
const LOG_POLL: Duration = Duration::from_millis(200);

impl Engine {
    /// Newest first.
    pub async fn runs(&self, query: RunQuery) -> Result<Page<RunSummary>, ApiError> {
        let before = query.cursor.map(|c| c.parse::<RunId>()).transpose().map_err(|_| ApiError::Invalid {
            code: "bad_cursor",
            detail: "the cursor is not one of ours".to_owned(),
        })?;
        let limit = u32::try_from(query.limit.clamp(1, 1000)).unwrap_or(1000);
        let filter = RunFilter {
            project: Some(DEFAULT_PROJECT.to_owned()),
            workflow: query.workflow,
            states: query.states,
            branch: query.branch,
            since: query.since,
            until: query.until,
            before,
            limit,
        };
        let rows = self.shared.store.runs(&filter).await.map_err(read_failed)?;
        let next = (rows.len() == limit as usize).then(|| rows.last().map(|r| r.run.to_string())).flatten();
        Ok(Page { items: rows.iter().map(view::summary).collect(), next })
    }

    /// One run in full.
    pub async fn run(&self, run: &RunSelector) -> Result<RunDetail, ApiError> {
        let loaded = self.loaded(run).await?;
        view::detail(&self.shared, &loaded).await.map_err(read_failed)
    }

    /// The journal of a run as it is stored, oldest first.
    pub async fn journal(&self, run: &RunSelector) -> Result<Vec<Value>, ApiError> {
        let row = self.run_row(run).await?;
        let rows = self.shared.store.journal(row.run, 0).await.map_err(read_failed)?;
        Ok(rows
            .into_iter()
            .map(|r| json!({"seq": r.seq, "at": r.at.to_rfc3339(), "event": serde_json::from_str::<Value>(&r.event).unwrap_or(Value::String(r.event))}))
            .collect())
    }

    /// Starts a workflow by hand: a `manual` event; returns the run once it is durable.
    pub async fn start_run(&self, workflow: &str, start: StartRun) -> Result<RunSummary, ApiError> {
        self.refuse_when_draining()?;
        let registry = self.shared.registry();
        let entry = registry.named(workflow).cloned().ok_or_else(|| ApiError::NotFound {
            code: "workflow_not_found",
            detail: format!("no workflow {workflow:?}; `kickwheel workflows ls` lists them"),
        })?;
        let compiled = self.compiled(&entry).await?;
        // A person may start any workflow; a `manual` filter only adds what its `with` says.
        let with =
            compiled.on.iter().find(|f| f.kind == FilterKind::Manual).map(|f| f.with.clone()).unwrap_or_default();
        let paused = self.shared.paused().await.map_err(read_failed)?;
        if paused.contains(&entry.name) {
            return Err(ApiError::Conflict {
                code: "paused_workflow",
                detail: format!("workflow {workflow:?} is paused; `kickwheel workflows resume {workflow}` resumes it"),
            });
        }
        let event = manual_event(&compiled.name, &start);
        let inputs = inputs_for(&compiled.plan.inputs, &with, &event, &start.inputs).map_err(bad_inputs)?;
        self.launch_by_hand(entry, compiled, event, inputs, None, registry.revision).await
    }

    /// One-shot: a workflow file that is in no registry, on an uncommitted working tree.
    pub async fn start_adhoc(
        &self,
        file: &str,
        yaml: &str,
        worktree: Option<PathBuf>,
        start: StartRun,
    ) -> Result<RunSummary, AdhocError> {
        self.refuse_when_draining()?;
        let origin = EntryOrigin::Applied { file: file.to_owned() };
        let (entry, put) = compile_file(&self.shared, origin, yaml, &BTreeMap::new());
        let Some(Write::PutPlan(PutPlan { .. })) = &put else { return Err(AdhocError::Diagnostics(entry.diagnostics)) };
        self.shared.store.write(put.into_iter().collect()).await.map_err(write_failed)?;
        let compiled = self.compiled(&entry).await?;
        let source = match worktree {
            None => None,
            Some(folder) => {
                let tree = perform::worktree_artifact(&self.shared, &folder, &compiled.plan).await.map_err(|e| {
                    ApiError::Invalid {
                        code: "worktree",
                        detail: format!("the working tree {} cannot be taken: {e}", folder.display()),
                    }
                })?;
                let tree = tree.digest.to_string();
                Some(PinnedSource { repo: String::new(), commit: String::new(), tree })
            }
        };
        let event = manual_event(&compiled.name, &start);
        let inputs = inputs_for(&compiled.plan.inputs, &indexmap(), &event, &start.inputs).map_err(bad_inputs)?;
        let revision = self.shared.registry().revision;
        Ok(self.launch_by_hand(entry, compiled, event, inputs, source, revision).await?)
    }

    /// Accepts, decides and starts in one transaction; if earlier events of the lane are open, after them.
    async fn launch_by_hand(
        &self,
        entry: Entry,
        workflow: Arc<Workflow>,
        event: CloudEvent,
        inputs: BTreeMap<String, Value>,
        source: Option<PinnedSource>,
        registry_revision: i64,
    ) -> Result<RunSummary, ApiError> {
        let at = Millis::now();
        let event_key = EventKey::new(at, entropy());
        let reason = "started by hand".to_owned();
        let prepared = Prepared {
            event_key,
            event: event.clone(),
            entry,
            workflow,
            source,
            branch: None,
            reference: RunRef::Unrecorded,
            inputs,
            reason: reason.clone(),
            generation: 0,
        };
        if self.shared.bus.relays() {
            // With a bus outside, what we cause ourselves reaches the decider by it like everything else.
            let workflow = prepared.workflow.name.clone();
            return self.launch_in_turn(&workflow, event).await;
        }
        let mut launch = Launch::new(&self.shared, prepared).await.map_err(write_failed)?;
        let run = launch.loaded.row.run;
        let workflow = launch.loaded.row.workflow.clone();
        let outcome = DecisionRow {
            workflow: workflow.clone(),
            decision: "started".to_owned(),
            reason,
            clause: None,
            run: Some(run),
        };
        let mut unit = vec![
            ingest::accept_write(event_key, DEFAULT_PROJECT, "manual", event.clone(), at),
            Write::Decide(Decide {
                key: event_key,
                enrichment: serde_json::to_value(Enrichment::none()).expect("enrichments have string keys only"),
                registry_revision,
                outcomes: vec![outcome],
                at,
            }),
        ];
        unit.append(&mut launch.writes);
        match self.shared.store.write(unit).await {
            Ok(written) => {
                ingest::noted(&self.shared, &written);
                let summary = view::summary_now(&launch.loaded);
                ingest::started(&self.shared, launch).await;
                self.shared.announce();
                Ok(summary)
            }
            Err(WriteError::Stale { .. }) => self.launch_in_turn(&workflow, event).await,
            Err(e @ WriteError::Unknown { .. }) => {
                // It may have been done. If it was, this run is the one; if not, nothing was.
                match self.shared.store.run(run).await {
                    Ok(Some(_)) => self.summary_of(run).await,
                    Ok(None) | Err(_) => Err(write_failed(e)),
                }
            }
            Err(e) => Err(write_failed(e)),
        }
    }

    /// The event was seen before, or its lane has earlier ones: leave it to the decider and wait for the run.
    async fn launch_in_turn(&self, workflow: &str, event: CloudEvent) -> Result<RunSummary, ApiError> {
        let (source, id) = (event.source.clone(), event.id.clone());
        let written = self
            .shared
            .store
            .write(vec![bus::cause(&self.shared, DEFAULT_PROJECT, "manual", event, Millis::now())])
            .await
            .map_err(write_failed)?;
        bus::caused(&self.shared, &written);
        let found = tokio::time::timeout(LANE_WAIT, async {
            let mut news = self.shared.news.subscribe();
            loop {
                let run =
                    self.shared.store.run_of(DEFAULT_PROJECT, workflow, &source, &id, 0).await.map_err(read_failed)?;
                if let Some(run) = run {
                    return self.summary_of(run).await;
                }
                tokio::select! {
                    _ = news.changed() => {}
                    () = tokio::time::sleep(LOG_POLL) => {}
                }
            }
        });
        found.await.unwrap_or_else(|_| {
            Err(ApiError::Unavailable {
                code: "lane_waits",
                detail: format!("the start is recorded as event {id}, but earlier ones of its lane are not decided yet; see `kickwheel events ls`"),
            })
        })
    }

    /// Asks for the end of a run; durable when it returns.
    pub async fn cancel_run(&self, run: &RunSelector, by: &str, reason: &str) -> Result<RunSummary, ApiError> {
        let row = self.run_row(run).await?;
        if row.state.is_terminal() {
            return Err(ApiError::Conflict {
                code: "run_finished",
                detail: format!("run {} has {} already", row.run, row.state.as_str()),
            });
        }
        let input = InboxInput::Cancel { by: by.to_owned(), reason: reason.to_owned() };
        let inbox = Inbox {
            shard: row.shard,
            run: row.run,
            input_id: "cancel".to_owned(),
            body: serde_json::to_value(input).expect("inputs have string keys only"),
            at: Millis::now(),
        };
        self.shared.store.write(vec![Write::Inbox(inbox)]).await.map_err(write_failed)?;
        for row in self.shared.store.inbox_of(row.shard, row.run).await.map_err(read_failed)? {
            driver::deliver(&self.shared, row);
        }
        self.summary_of(row.run).await
    }

    /// A new run for the same event and source with the next generation; unchanged tasks come from the cache.
    pub async fn retry_run(&self, run: &RunSelector, by: &str) -> Result<RunSummary, ApiError> {
        self.refuse_when_draining()?;
        let loaded = self.loaded(run).await?;
        let row = &loaded.row;
        if !loaded.state.is_finished() {
            return Err(ApiError::Conflict {
                code: "run_not_finished",
                detail: format!("run {} has not ended; cancel it first, or wait", row.run),
            });
        }
        let Some(context) = loaded.state.context.clone() else {
            return Err(ApiError::Conflict { code: "run_empty", detail: format!("run {} has no events", row.run) });
        };
        let last = self
            .shared
            .store
            .last_generation(DEFAULT_PROJECT, &row.workflow, &row.event_source, &row.event_id)
            .await
            .map_err(read_failed)?;
        let event: CloudEvent = serde_json::from_value(context.event).map_err(|e| ApiError::Conflict {
            code: "stored_data",
            detail: format!("the event of run {} cannot be read: {e}", row.run),
        })?;
        let origin = EntryOrigin::Applied { file: row.workflow.clone() };
        let entry = Entry {
            name: row.workflow.clone(),
            origin,
            source: row.source_digest.clone(),
            plan: Some(row.plan_digest.clone()),
            diagnostics: Vec::new(),
        };
        let prepared = Prepared {
            event_key: row.event_key,
            event,
            entry,
            workflow: Arc::clone(&loaded.workflow),
            source: None,
            branch: row.branch.clone(),
            reference: context.reference,
            inputs: context.inputs,
            reason: format!("{by} ran {} again", row.run),
            generation: last.unwrap_or(row.generation) + 1,
        };
        let launch = Launch::with_context(&self.shared, prepared, context.source, context.datasets).await;
        let mut launch = launch.map_err(write_failed)?;
        let run = launch.loaded.row.run;
        self.shared.store.write(std::mem::take(&mut launch.writes)).await.map_err(write_failed)?;
        ingest::started(&self.shared, launch).await;
        self.shared.announce();
        self.summary_of(run).await
    }

    /// Waits until the run's journal has grown beyond `seen_seq` or the time is over; returns the run and its sequence.
    pub async fn watch_run(
        &self,
        run: &RunSelector,
        seen_seq: u64,
        wait: Duration,
    ) -> Result<(u64, RunDetail), ApiError> {
        // Of a run in memory the whole id is enough; everything else is looked up.
        let known = run.parse().ok().filter(|run| self.shared.is_cared_for(*run));
        let run = match known {
            Some(run) => run,
            None => self.run_row(run).await?.run,
        };
        let deadline = tokio::time::Instant::now() + wait;
        // The end of a run is beyond any number that somebody can have seen.
        let seen_seq = seen_seq.min(u64::MAX - 1);
        let mut news = self.shared.news.subscribe();
        let mut watch = driver::watch(&self.shared, run);
        loop {
            let late = tokio::time::Instant::now() >= deadline;
            let sight = match &watch {
                Some(watch) => watch.look(seen_seq, late).await,
                None => Sight::Unknown,
            };
            let loaded = match sight {
                Sight::Further(loaded) => Some(loaded),
                Sight::Same => None,
                Sight::Unknown => {
                    let loaded = self.load_run(run).await?;
                    (loaded.state.seq > seen_seq || loaded.state.is_finished() || late).then_some(loaded)
                }
            };
            if let Some(loaded) = loaded {
                let detail = view::detail(&self.shared, &loaded).await.map_err(read_failed)?;
                return Ok((loaded.state.seq, detail));
            }
            if !watch.as_ref().is_some_and(|watch| watch.is_current(&self.shared)) {
                watch = driver::watch(&self.shared, run);
                if watch.is_some() {
                    continue;
                }
            }
            let moved = async {
                match &mut watch {
                    Some(watch) => watch.beyond(seen_seq).await,
                    None => news.changed().await.expect("the engine holds the other end"),
                }
            };
            tokio::select! {
                () = moved => {}
                () = tokio::time::sleep_until(deadline) => {}
                () = self.shared.stop.cancelled() => return Err(ApiError::Unavailable {
                    code: "draining",
                    detail: "the engine is shutting down; try again when it is back".to_owned(),
                }),
            }
        }
    }

    /// A task's log.
    pub async fn logs(&self, query: LogQuery) -> Result<BoxStream<'static, Result<Bytes, std::io::Error>>, ApiError> {
        let loaded = self.loaded(&query.run).await?;
        let (step, task) = task_of(&loaded, &query.step, query.index)?;
        let task_key = TaskKey { run: loaded.row.run, step: query.step, index: query.index };
        let key = AttemptKey { task: task_key, attempt: query.attempt.unwrap_or(task.attempt) };
        match task.spec.work {
            Work::Job { .. } => {
                let stream =
                    self.shared.pools.of(&task.spec.work).pool.read_log(&key, 0, query.follow).await.map_err(|e| {
                        ApiError::Unavailable {
                            code: "log_unavailable",
                            detail: format!("the log of {key} cannot be read: {e}"),
                        }
                    })?;
                Ok(stream.map(|piece| piece.map_err(std::io::Error::other)).boxed())
            }
            Work::Call { .. } => Ok(self.plugin_log(key, step, query.follow)),
        }
    }

    /// A plugin's log is one piece, shown when its call has been accepted.
    fn plugin_log(
        &self,
        key: AttemptKey,
        step: usize,
        follow: bool,
    ) -> BoxStream<'static, Result<Bytes, std::io::Error>> {
        let shared = Arc::clone(&self.shared);
        let read = async move {
            loop {
                let loaded = driver::peek(&shared, key.task.run).await.ok().flatten();
                let task = loaded.as_ref().and_then(|l| l.state.steps[step].tasks().get(key.task.index as usize));
                let ended = task.is_none_or(|t| t.status.is_terminal() || t.attempt > key.attempt);
                if ended || shared.stop.is_cancelled() {
                    return match tokio::fs::read(perform::log_file(&shared, &key)).await {
                        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Bytes::new()),
                        other => other.map(Bytes::from),
                    };
                }
                if !follow {
                    return Ok(Bytes::new());
                }
                tokio::time::sleep(LOG_POLL).await;
            }
        };
        futures::stream::once(read).boxed()
    }

    /// `task` is `run/step[index]`; the run may be a unique prefix, the index may be left out.
    pub async fn cache_why(&self, task: &str) -> Result<CacheWhy, ApiError> {
        let bad = || ApiError::Invalid {
            code: "bad_task",
            detail: format!("{task:?} names no task; write RUN/STEP or RUN/STEP[INDEX]"),
        };
        let (run, rest) = task.split_once('/').ok_or_else(bad)?;
        let (step, index) = match rest.split_once('[') {
            None => (rest, 0),
            Some((step, index)) => (step, index.strip_suffix(']').and_then(|i| i.parse().ok()).ok_or_else(bad)?),
        };
        let row = self.run_row(run).await?;
        let key = TaskKey { run: row.run, step: step.to_owned(), index };
        if let Some(why) = explain::cache(&self.shared, &key).await.map_err(read_failed)? {
            return Ok(why);
        }
        let loaded = self.load_run(row.run).await?;
        let (_, task) = task_of(&loaded, step, index)?;
        Err(ApiError::NotFound { code: "no_cache_record", detail: format!("{key} {}", why_no_record(task)) })
    }

    pub(super) async fn run_row(&self, text: &str) -> Result<RunRow, ApiError> {
        let rows = self.shared.store.runs_by_prefix(text).await.map_err(read_failed)?;
        match <[RunRow; 1]>::try_from(rows) {
            Ok([row]) => Ok(row),
            Err(rows) if rows.is_empty() => Err(ApiError::NotFound {
                code: "run_not_found",
                detail: format!("no run {text:?}; `kickwheel runs ls` lists the latest ones"),
            }),
            Err(_) => Err(ApiError::Invalid {
                code: "ambiguous",
                detail: format!("{text:?} begins several run ids; give more of it"),
            }),
        }
    }

    async fn loaded(&self, text: &str) -> Result<Loaded, ApiError> {
        let row = self.run_row(text).await?;
        self.load_run(row.run).await
    }

    async fn load_run(&self, run: RunId) -> Result<Loaded, ApiError> {
        driver::peek(&self.shared, run)
            .await
            .map_err(read_failed)?
            .ok_or_else(|| ApiError::NotFound { code: "run_not_found", detail: format!("run {run} is gone") })
    }

    async fn summary_of(&self, run: RunId) -> Result<RunSummary, ApiError> {
        let row = self.shared.store.run(run).await.map_err(read_failed)?;
        row.map(|r| view::summary(&r))
            .ok_or_else(|| ApiError::NotFound { code: "run_not_found", detail: format!("run {run} is gone") })
    }

    async fn compiled(&self, entry: &Entry) -> Result<Arc<Workflow>, ApiError> {
        let Some(plan) = &entry.plan else {
            let first = entry.first_mistake().map(|d| format!("{}:{}:{}: {}", d.file, d.line, d.column, d.message));
            return Err(ApiError::Conflict {
                code: "workflow_broken",
                detail: format!("workflow {:?} has mistakes: {}", entry.name, first.unwrap_or_default()),
            });
        };
        self.shared.workflow(plan).await.map_err(read_failed)
    }
}

/// A task by its step's name and its index, with the step's place.
fn task_of<'l>(loaded: &'l Loaded, step: &str, index: u32) -> Result<(usize, &'l TaskState), ApiError> {
    let plan = &loaded.workflow.plan;
    let Some((place, _)) = plan.step(step) else {
        let names: Vec<&str> = plan.steps.iter().map(|s| s.name.as_str()).collect();
        return Err(ApiError::NotFound {
            code: "step_not_found",
            detail: format!("run {} has no step {step:?}; its steps are {}", loaded.row.run, names.join(", ")),
        });
    };
    let tasks = loaded.state.steps[place].tasks();
    let task = tasks.get(index as usize).ok_or_else(|| ApiError::NotFound {
        code: "task_not_found",
        detail: match (&loaded.state.steps[place], tasks.len()) {
            (StepState::Waiting, _) if !loaded.state.is_finished() => {
                format!("step {step} has not begun, so it has no tasks yet; wait for the steps that it needs")
            }
            (StepState::Skipped { reason }, _) => format!("step {step} has no tasks: it was skipped, because {reason}"),
            (_, 0) => format!("step {step} came to have no tasks"),
            (_, 1) => format!("step {step} has no task {index}; it has one, which is 0"),
            (_, many) => format!("step {step} has no task {index}; it has {many}, from 0 to {}", many - 1),
        },
    })?;
    Ok((place, task))
}

/// Why nothing is known about the cache for a task that there is.
fn why_no_record(task: &TaskState) -> &'static str {
    match (&task.spec.work, task.status.is_terminal()) {
        (Work::Call { .. }, _) => "is a plugin call, and those are never cached: they are made anew each time",
        (Work::Job { .. }, false) => "has not ended, and only its end tells what the cache gave; ask again then",
        (Work::Job { .. }, true) => "ended without a word about the cache: it was lost, or stopped before it began",
    }
}

fn indexmap<V>() -> indexmap::IndexMap<String, V> {
    indexmap::IndexMap::new()
}

fn manual_event(workflow: &str, start: &StartRun) -> CloudEvent {
    let id = start.event_id.clone().unwrap_or_else(|| hex::encode(entropy()));
    let data = json!({"workflow": workflow, "inputs": start.inputs});
    let mut event =
        CloudEvent::new(format!("/manual/{DEFAULT_PROJECT}"), id, payload::MANUAL, data).with_subject(workflow);
    event.time = Some(Millis::now().to_rfc3339());
    event
}

fn bad_inputs(errors: Vec<kickwheel_core::filter::InputError>) -> ApiError {
    let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
    ApiError::Invalid { code: "bad_inputs", detail: all.join("; ") }
}
