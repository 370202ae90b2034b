//! The bus: how it is, and where stopped partitions go on.

use axum::{Json, extract::State};
use kickwheel_schemas::api::{BusView, Problem, ResetBus};

use super::{Answer, json};
use crate::{extract::Body, routes::Door};

/// `GET bus`.
#[utoipa::path(get, path = "/api/v1/bus", tag = "bus",
    responses((status = 200, body = BusView), (status = "default", body = Problem)))]
pub async fn get(State(door): State<Door>) -> Answer<Json<BusView>> {
    json(door.engine().bus().await)
}

/// `POST bus/reset`.
#[utoipa::path(post, path = "/api/v1/bus/reset", tag = "bus", request_body = ResetBus,
    responses((status = 200, body = BusView), (status = "default", body = Problem)))]
pub async fn reset(State(door): State<Door>, Body(reset): Body<ResetBus>) -> Answer<Json<BusView>> {
    json(door.engine().reset_bus(reset).await)
}
