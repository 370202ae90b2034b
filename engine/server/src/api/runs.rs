//! Runs and their tasks: lists, one in full, watching, logs, cancelling, retrying, and why the cache was not used.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use kickwheel_runtime::{LogQuery, RunQuery};
use kickwheel_schemas::api::{CacheWhy, CancelRun, Page, RunDetail, RunPhase, RunSummary, TaskView, Watched};
use serde::Deserialize;
use serde_json::Value;

use super::{Answer, json, limit, stream, time};
use crate::{
    extract::{Body, Name, Params},
    refusal::Refusal,
    routes::Door,
};

/// The longest that a watcher is kept waiting; then it gets the run as it is and asks again.
pub const MAX_WATCH: Duration = Duration::from_secs(30);
/// Who ended or retried a run, as far as one token tells.
const BY: &str = "holder of the token";

/// Which runs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    workflow: Option<String>,
    state: Option<String>,
    branch: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

impl Filter {
    fn query(self) -> Result<RunQuery, Refusal> {
        Ok(RunQuery {
            workflow: self.workflow,
            states: phases(self.state.as_deref().unwrap_or_default())?,
            branch: self.branch,
            since: time("since", self.since.as_deref())?,
            until: time("until", self.until.as_deref())?,
            limit: limit(self.limit)?,
            cursor: self.cursor,
        })
    }
}

fn phases(list: &str) -> Result<Vec<RunPhase>, Refusal> {
    list.split(',').map(str::trim).filter(|s| !s.is_empty()).map(phase).collect()
}

fn phase(text: &str) -> Result<RunPhase, Refusal> {
    serde_json::from_value(Value::from(text)).map_err(|_| {
        Refusal::invalid(
            "state_invalid",
            format!("{text:?} is no state of a run; there are queued, running, waiting, succeeded, failed, cancelled"),
        )
    })
}

/// `GET runs`.
pub async fn list(State(door): State<Door>, Params(filter): Params<Filter>) -> Answer<Json<Page<RunSummary>>> {
    json(door.engine().runs(filter.query()?).await)
}

/// `GET runs/{id}`.
pub async fn get(State(door): State<Door>, Name(id): Name) -> Answer<Json<RunDetail>> {
    json(door.engine().run(&id).await)
}

/// `GET runs/{id}/tasks`.
pub async fn tasks(State(door): State<Door>, Name(id): Name) -> Answer<Json<Page<TaskView>>> {
    let run = door.engine().run(&id).await?;
    Ok(Json(Page { items: run.steps.into_iter().flat_map(|s| s.tasks).collect(), next: None }))
}

/// What a watcher has seen, and how long it wants to wait for more.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    #[serde(default)]
    seq: u64,
    wait_ms: Option<u64>,
}

/// `GET runs/{id}/watch`: answers when the journal has grown beyond `seq`, or when the wait is over.
pub async fn watch(State(door): State<Door>, Name(id): Name, Params(seen): Params<Seen>) -> Answer<Json<Watched>> {
    let wait = seen.wait_ms.map_or(MAX_WATCH, Duration::from_millis).min(MAX_WATCH);
    let watched = tokio::select! {
        watched = door.engine().watch_run(&id, seen.seq, wait) => watched,
        () = door.ending().cancelled() => return Err(stopping()),
    };
    let (seq, run) = watched?;
    Ok(Json(Watched { seq, run }))
}

fn stopping() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "stopping",
        "the server is stopping; ask again when it is back, the run goes on",
    )
}

/// `GET runs/{id}/journal`.
pub async fn journal(State(door): State<Door>, Name(id): Name) -> Answer<Json<Page<Value>>> {
    Ok(Json(Page { items: door.engine().journal(&id).await?, next: None }))
}

/// `POST runs/{id}/cancel`.
pub async fn cancel(
    State(door): State<Door>,
    Name(id): Name,
    Body(cancel): Body<CancelRun>,
) -> Answer<Json<RunSummary>> {
    json(door.engine().cancel_run(&id, BY, &cancel.reason).await)
}

/// `POST runs/{id}/retry`.
pub async fn retry(State(door): State<Door>, Name(id): Name) -> Answer<(StatusCode, Json<RunSummary>)> {
    Ok((StatusCode::CREATED, Json(door.engine().retry_run(&id, BY).await?)))
}

/// Which log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    step: String,
    #[serde(default)]
    index: u32,
    attempt: Option<u32>,
    #[serde(default)]
    follow: bool,
}

/// `GET runs/{id}/logs`: the bytes as the job wrote them, in chunks; with `follow` until the task has ended.
pub async fn logs(State(door): State<Door>, Name(run): Name, Params(log): Params<Log>) -> Answer<Response> {
    let Log { step, index, attempt, follow } = log;
    let chunks = door.engine().logs(LogQuery { run, step, index, attempt, follow }).await?;
    let content_type = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((content_type, stream(chunks, door.ending())).into_response())
}

/// Which task.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    task: String,
}

/// `GET cache/why`.
pub async fn cache_why(State(door): State<Door>, Params(Task { task }): Params<Task>) -> Answer<Json<CacheWhy>> {
    json(door.engine().cache_why(&task).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_a_comma_list_and_a_wrong_one_is_named() {
        assert_eq!(phases("running, failed"), Ok(vec![RunPhase::Running, RunPhase::Failed]));
        assert_eq!(phases(""), Ok(vec![]));
        let refusal = phases("running,done").expect_err("no such state");
        assert!(refusal.0.detail.contains("\"done\""), "{}", refusal.0.detail);
    }
}
