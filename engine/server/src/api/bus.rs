//! The bus: how it is, and where stopped partitions go on.

use axum::{Json, extract::State};
use kickwheel_schemas::api::{BusView, ResetBus};

use super::{Answer, json};
use crate::{extract::Body, routes::Door};

/// `GET bus`.
pub async fn get(State(door): State<Door>) -> Answer<Json<BusView>> {
    json(door.engine().bus().await)
}

/// `POST bus/reset`.
pub async fn reset(State(door): State<Door>, Body(reset): Body<ResetBus>) -> Answer<Json<BusView>> {
    json(door.engine().reset_bus(reset).await)
}
