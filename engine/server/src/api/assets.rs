//! Models, datasets, and the bytes behind them.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use kickwheel_runtime::AssetKind;
use kickwheel_schemas::api::{AddDataset, AssetView, Page, Problem};

use super::{Answer, json, stream};
use crate::{
    extract::{Body, Name},
    routes::Door,
};

/// `GET models`.
#[utoipa::path(get, path = "/api/v1/models", tag = "assets",
    responses((status = 200, body = Page<AssetView>), (status = "default", body = Problem)))]
pub async fn models(State(door): State<Door>) -> Answer<Json<Page<AssetView>>> {
    json(door.engine().assets(AssetKind::Model).await)
}

/// `GET models/{name}`.
#[utoipa::path(get, path = "/api/v1/models/{name}", tag = "assets", params(("name" = String, Path)),
    responses((status = 200, body = AssetView), (status = "default", body = Problem)))]
pub async fn model(State(door): State<Door>, Name(name): Name) -> Answer<Json<AssetView>> {
    json(door.engine().asset(AssetKind::Model, &name).await)
}

/// `GET datasets`.
#[utoipa::path(get, path = "/api/v1/datasets", tag = "assets",
    responses((status = 200, body = Page<AssetView>), (status = "default", body = Problem)))]
pub async fn datasets(State(door): State<Door>) -> Answer<Json<Page<AssetView>>> {
    json(door.engine().assets(AssetKind::Dataset).await)
}

/// `GET datasets/{name}`.
#[utoipa::path(get, path = "/api/v1/datasets/{name}", tag = "assets", params(("name" = String, Path)),
    responses((status = 200, body = AssetView), (status = "default", body = Problem)))]
pub async fn dataset(State(door): State<Door>, Name(name): Name) -> Answer<Json<AssetView>> {
    json(door.engine().asset(AssetKind::Dataset, &name).await)
}

/// `POST datasets`.
#[utoipa::path(post, path = "/api/v1/datasets", tag = "assets", request_body = AddDataset,
    responses((status = 201, body = AssetView), (status = "default", body = Problem)))]
pub async fn add_dataset(
    State(door): State<Door>,
    Body(add): Body<AddDataset>,
) -> Answer<(StatusCode, Json<AssetView>)> {
    Ok((StatusCode::CREATED, Json(door.engine().add_dataset(add).await?)))
}

/// `DELETE datasets/{name}`: it is watched no longer; its versions stay.
#[utoipa::path(delete, path = "/api/v1/datasets/{name}", tag = "assets", params(("name" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
pub async fn remove_dataset(State(door): State<Door>, Name(name): Name) -> Answer<StatusCode> {
    door.engine().remove_dataset(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET artifacts/{digest}`: the bytes; for a folder its manifest.
#[utoipa::path(get, path = "/api/v1/artifacts/{digest}", tag = "assets", params(("digest" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = "default", body = Problem)))]
pub async fn artifact(State(door): State<Door>, Name(digest): Name) -> Answer<Response> {
    let chunks = door.engine().artifact(&digest).await?;
    let content_type = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((content_type, stream(chunks, door.ending())).into_response())
}
