//! API tokens and secrets: making, listing, ending. A token is answered once, a secret's value never.

use axum::{Json, extract::State, http::StatusCode};
use kickwheel_schemas::api::{
    CreateToken, CreatedToken, Page, Problem, Rekey, Rekeyed, SecretView, SetSecret, TokenView,
};

use super::{Answer, json};
use crate::{
    extract::{Body, Name},
    routes::Door,
};

/// `POST tokens`.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "access", request_body = CreateToken,
    responses((status = 201, body = CreatedToken), (status = "default", body = Problem)))]
pub async fn create_token(
    State(door): State<Door>,
    Body(create): Body<CreateToken>,
) -> Answer<(StatusCode, Json<CreatedToken>)> {
    Ok((StatusCode::CREATED, Json(door.engine().create_token(create).await?)))
}

/// `GET tokens`.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "access",
    responses((status = 200, body = Page<TokenView>), (status = "default", body = Problem)))]
pub async fn tokens(State(door): State<Door>) -> Answer<Json<Page<TokenView>>> {
    json(door.engine().tokens().await)
}

/// `DELETE tokens/{name}`: by id or name; again changes nothing.
#[utoipa::path(delete, path = "/api/v1/tokens/{name}", tag = "access", params(("name" = String, Path)),
    responses((status = 200, body = TokenView), (status = "default", body = Problem)))]
pub async fn revoke_token(State(door): State<Door>, Name(name): Name) -> Answer<Json<TokenView>> {
    let revoked = door.engine().revoke_token(&name).await;
    door.known_tokens().forget_all();
    json(revoked)
}

/// `GET secrets`.
#[utoipa::path(get, path = "/api/v1/secrets", tag = "access",
    responses((status = 200, body = Page<SecretView>), (status = "default", body = Problem)))]
pub async fn secrets(State(door): State<Door>) -> Answer<Json<Page<SecretView>>> {
    json(door.engine().secrets().await)
}

/// `PUT secrets/{name}`.
#[utoipa::path(put, path = "/api/v1/secrets/{name}", tag = "access", params(("name" = String, Path)),
    request_body = SetSecret, responses((status = 200, body = SecretView), (status = "default", body = Problem)))]
pub async fn set_secret(
    State(door): State<Door>,
    Name(name): Name,
    Body(set): Body<SetSecret>,
) -> Answer<Json<SecretView>> {
    json(door.engine().set_secret(&name, set).await)
}

/// `DELETE secrets/{name}`.
#[utoipa::path(delete, path = "/api/v1/secrets/{name}", tag = "access", params(("name" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
pub async fn remove_secret(State(door): State<Door>, Name(name): Name) -> Answer<StatusCode> {
    door.engine().remove_secret(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST rekey`: answers when all secrets are sealed with the new key.
#[utoipa::path(post, path = "/api/v1/rekey", tag = "access", request_body = Rekey,
    responses((status = 200, body = Rekeyed), (status = "default", body = Problem)))]
pub async fn rekey(State(door): State<Door>, Body(rekey): Body<Rekey>) -> Answer<Json<Rekeyed>> {
    json(door.engine().rekey(rekey).await)
}
