//! Runs and their tasks: lists, one in full, watching, logs, cancelling, retrying, and why the cache was not used.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use kickwheel_runtime::{Bearer, LogQuery, RunQuery};
use kickwheel_schemas::api::{CacheWhy, CancelRun, Page, Problem, RunDetail, RunPhase, RunSummary, TaskView, Watched};
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

/// Which runs.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
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
#[utoipa::path(get, path = "/api/v1/runs", tag = "runs", params(Filter),
    responses((status = 200, body = Page<RunSummary>), (status = "default", body = Problem)))]
pub async fn list(State(door): State<Door>, Params(filter): Params<Filter>) -> Answer<Json<Page<RunSummary>>> {
    json(door.engine().runs(filter.query()?).await)
}

/// `GET runs/{id}`.
#[utoipa::path(get, path = "/api/v1/runs/{id}", tag = "runs", params(("id" = String, Path)),
    responses((status = 200, body = RunDetail), (status = "default", body = Problem)))]
pub async fn get(State(door): State<Door>, Name(id): Name) -> Answer<Json<RunDetail>> {
    json(door.engine().run(&id).await)
}

/// `GET runs/{id}/tasks`.
#[utoipa::path(get, path = "/api/v1/runs/{id}/tasks", tag = "runs", params(("id" = String, Path)),
    responses((status = 200, body = Page<TaskView>), (status = "default", body = Problem)))]
pub async fn tasks(State(door): State<Door>, Name(id): Name) -> Answer<Json<Page<TaskView>>> {
    let run = door.engine().run(&id).await?;
    Ok(Json(Page { items: run.steps.into_iter().flat_map(|s| s.tasks).collect(), next: None }))
}

/// What a watcher has seen, and how long it wants to wait for more.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Seen {
    #[serde(default)]
    seq: u64,
    wait_ms: Option<u64>,
}

/// `GET runs/{id}/watch`: answers when the journal has grown beyond `seq`, or when the wait is over.
#[utoipa::path(get, path = "/api/v1/runs/{id}/watch", tag = "runs", params(("id" = String, Path), Seen),
    responses((status = 200, body = Watched), (status = "default", body = Problem)))]
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
#[utoipa::path(get, path = "/api/v1/runs/{id}/journal", tag = "runs", params(("id" = String, Path)),
    responses((status = 200, body = Page<Value>), (status = "default", body = Problem)))]
pub async fn journal(State(door): State<Door>, Name(id): Name) -> Answer<Json<Page<Value>>> {
    Ok(Json(Page { items: door.engine().journal(&id).await?, next: None }))
}

/// `POST runs/{id}/cancel`.
#[utoipa::path(post, path = "/api/v1/runs/{id}/cancel", tag = "runs", params(("id" = String, Path)), request_body = CancelRun,
    responses((status = 200, body = RunSummary), (status = "default", body = Problem)))]
pub async fn cancel(
    State(door): State<Door>,
    Extension(by): Extension<Bearer>,
    Name(id): Name,
    Body(cancel): Body<CancelRun>,
) -> Answer<Json<RunSummary>> {
    json(door.engine().cancel_run(&id, &by.name, &cancel.reason).await)
}

/// `POST runs/{id}/retry`.
#[utoipa::path(post, path = "/api/v1/runs/{id}/retry", tag = "runs", params(("id" = String, Path)),
    responses((status = 201, body = RunSummary), (status = "default", body = Problem)))]
pub async fn retry(
    State(door): State<Door>,
    Extension(by): Extension<Bearer>,
    Name(id): Name,
) -> Answer<(StatusCode, Json<RunSummary>)> {
    Ok((StatusCode::CREATED, Json(door.engine().retry_run(&id, &by.name).await?)))
}

/// Which log.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Log {
    step: String,
    #[serde(default)]
    index: u32,
    attempt: Option<u32>,
    #[serde(default)]
    follow: bool,
}

/// `GET runs/{id}/logs`: the bytes as the job wrote them, in chunks; with `follow` until the task has ended.
#[utoipa::path(get, path = "/api/v1/runs/{id}/logs", tag = "runs", params(("id" = String, Path), Log),
    responses((status = 200, body = String, content_type = "text/plain"), (status = "default", body = Problem)))]
pub async fn logs(State(door): State<Door>, Name(run): Name, Params(log): Params<Log>) -> Answer<Response> {
    let Log { step, index, attempt, follow } = log;
    let chunks = door.engine().logs(LogQuery { run, step, index, attempt, follow }).await?;
    let content_type = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((content_type, stream(chunks, door.ending())).into_response())
}

/// Which task.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Task {
    task: String,
}

/// `GET cache/why`.
#[utoipa::path(get, path = "/api/v1/cache/why", tag = "runs", params(Task),
    responses((status = 200, body = CacheWhy), (status = "default", body = Problem)))]
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
