//! What is set up: projects, bound repositories, workflows, and starting one by hand.

use axum::{Json, extract::State, http::StatusCode};
use kickwheel_schemas::api::{
    AddRepo, ApplyWorkflow, Page, Problem, ProjectView, RepoView, RunSummary, StartRun, WorkflowView,
};

use super::{Answer, json};
use crate::{
    extract::{Body, Name},
    refusal::Refusal,
    routes::Door,
};

/// `GET projects`.
#[utoipa::path(get, path = "/api/v1/projects", tag = "registry",
    responses((status = 200, body = Page<ProjectView>), (status = "default", body = Problem)))]
pub async fn projects(State(door): State<Door>) -> Json<Page<ProjectView>> {
    let id = door.engine().default_project().to_owned();
    Json(Page { items: vec![ProjectView { id, state: "active".to_owned() }], next: None })
}

/// `GET repos`.
#[utoipa::path(get, path = "/api/v1/repos", tag = "registry",
    responses((status = 200, body = Page<RepoView>), (status = "default", body = Problem)))]
pub async fn repos(State(door): State<Door>) -> Answer<Json<Page<RepoView>>> {
    json(door.engine().repos().await)
}

/// `POST repos`.
#[utoipa::path(post, path = "/api/v1/repos", tag = "registry", request_body = AddRepo,
    responses((status = 201, body = RepoView), (status = "default", body = Problem)))]
pub async fn add_repo(State(door): State<Door>, Body(add): Body<AddRepo>) -> Answer<(StatusCode, Json<RepoView>)> {
    let binary = door.binary().to_owned();
    Ok((StatusCode::CREATED, Json(door.engine().add_repo(add, Some(binary)).await?)))
}

/// `DELETE repos/{name}`.
#[utoipa::path(delete, path = "/api/v1/repos/{name}", tag = "registry", params(("name" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
pub async fn remove_repo(State(door): State<Door>, Name(name): Name) -> Answer<StatusCode> {
    door.engine().remove_repo(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET workflows`.
#[utoipa::path(get, path = "/api/v1/workflows", tag = "registry",
    responses((status = 200, body = Page<WorkflowView>), (status = "default", body = Problem)))]
pub async fn workflows(State(door): State<Door>) -> Answer<Json<Page<WorkflowView>>> {
    json(door.engine().workflows().await)
}

/// `GET workflows/{name}`.
#[utoipa::path(get, path = "/api/v1/workflows/{name}", tag = "registry", params(("name" = String, Path)),
    responses((status = 200, body = WorkflowView), (status = "default", body = Problem)))]
pub async fn workflow(State(door): State<Door>, Name(name): Name) -> Answer<Json<WorkflowView>> {
    let page = door.engine().workflows().await?;
    page.items.into_iter().find(|w| w.id == name).map(Json).ok_or_else(|| {
        Refusal::new(
            StatusCode::NOT_FOUND,
            "workflow_not_found",
            format!("there is no workflow {name:?}; `kickwheel workflows ls` lists them"),
        )
    })
}

/// `POST workflows`: a file with mistakes is refused with all of them, as 422.
#[utoipa::path(post, path = "/api/v1/workflows", tag = "registry", request_body = ApplyWorkflow,
    responses((status = 200, body = WorkflowView), (status = "default", body = Problem)))]
pub async fn apply(State(door): State<Door>, Body(apply): Body<ApplyWorkflow>) -> Answer<Json<WorkflowView>> {
    Ok(Json(door.engine().apply_workflow(apply).await?))
}

/// `POST workflows/{name}/pause`.
#[utoipa::path(post, path = "/api/v1/workflows/{name}/pause", tag = "registry", params(("name" = String, Path)),
    responses((status = 200, body = WorkflowView), (status = "default", body = Problem)))]
pub async fn pause(State(door): State<Door>, Name(name): Name) -> Answer<Json<WorkflowView>> {
    json(door.engine().set_paused(&name, true).await)
}

/// `POST workflows/{name}/resume`.
#[utoipa::path(post, path = "/api/v1/workflows/{name}/resume", tag = "registry", params(("name" = String, Path)),
    responses((status = 200, body = WorkflowView), (status = "default", body = Problem)))]
pub async fn resume(State(door): State<Door>, Name(name): Name) -> Answer<Json<WorkflowView>> {
    json(door.engine().set_paused(&name, false).await)
}

/// `POST workflows/{name}/runs`: 201 once the run is durable.
#[utoipa::path(post, path = "/api/v1/workflows/{name}/runs", tag = "registry", params(("name" = String, Path)), request_body = StartRun,
    responses((status = 201, body = RunSummary), (status = "default", body = Problem)))]
pub async fn start(
    State(door): State<Door>,
    Name(name): Name,
    Body(start): Body<StartRun>,
) -> Answer<(StatusCode, Json<RunSummary>)> {
    Ok((StatusCode::CREATED, Json(door.engine().start_run(&name, start).await?)))
}
