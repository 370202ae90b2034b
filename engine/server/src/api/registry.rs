//! What is set up: projects, bound repositories, workflows, and starting one by hand.

use axum::{Json, extract::State, http::StatusCode};
use kickwheel_schemas::api::{AddRepo, ApplyWorkflow, Page, ProjectView, RepoView, RunSummary, StartRun, WorkflowView};

use super::{Answer, json};
use crate::{
    extract::{Body, Name},
    refusal::Refusal,
    routes::Door,
};

/// `GET projects`.
pub async fn projects(State(door): State<Door>) -> Json<Page<ProjectView>> {
    let id = door.engine().default_project().to_owned();
    Json(Page { items: vec![ProjectView { id, state: "active".to_owned() }], next: None })
}

/// `GET repos`.
pub async fn repos(State(door): State<Door>) -> Answer<Json<Page<RepoView>>> {
    json(door.engine().repos().await)
}

/// `POST repos`.
pub async fn add_repo(State(door): State<Door>, Body(add): Body<AddRepo>) -> Answer<(StatusCode, Json<RepoView>)> {
    let binary = door.binary().to_owned();
    Ok((StatusCode::CREATED, Json(door.engine().add_repo(add, Some(binary)).await?)))
}

/// `DELETE repos/{name}`.
pub async fn remove_repo(State(door): State<Door>, Name(name): Name) -> Answer<StatusCode> {
    door.engine().remove_repo(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET workflows`.
pub async fn workflows(State(door): State<Door>) -> Answer<Json<Page<WorkflowView>>> {
    json(door.engine().workflows().await)
}

/// `GET workflows/{name}`.
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
pub async fn apply(State(door): State<Door>, Body(apply): Body<ApplyWorkflow>) -> Answer<Json<WorkflowView>> {
    Ok(Json(door.engine().apply_workflow(apply).await?))
}

/// `POST workflows/{name}/pause`.
pub async fn pause(State(door): State<Door>, Name(name): Name) -> Answer<Json<WorkflowView>> {
    json(door.engine().set_paused(&name, true).await)
}

/// `POST workflows/{name}/resume`.
pub async fn resume(State(door): State<Door>, Name(name): Name) -> Answer<Json<WorkflowView>> {
    json(door.engine().set_paused(&name, false).await)
}

/// `POST workflows/{name}/runs`: 201 once the run is durable.
pub async fn start(
    State(door): State<Door>,
    Name(name): Name,
    Body(start): Body<StartRun>,
) -> Answer<(StatusCode, Json<RunSummary>)> {
    Ok((StatusCode::CREATED, Json(door.engine().start_run(&name, start).await?)))
}
