//! Triggers: making, listing, pausing, and what has to be done at the sender's.

use axum::{Json, extract::State, http::StatusCode};
use kickwheel_runtime::Trigger;
use kickwheel_schemas::api::{AddTrigger, Page, Problem, TriggerConfig, TriggerView};

use super::{Answer, settings};
use crate::{
    extract::{Body, Name},
    routes::Door,
};

/// `GET triggers`.
#[utoipa::path(get, path = "/api/v1/triggers", tag = "triggers",
    responses((status = 200, body = Page<TriggerView>), (status = "default", body = Problem)))]
pub async fn list(State(door): State<Door>) -> Answer<Json<Page<TriggerView>>> {
    let triggers = door.engine().triggers().await?;
    Ok(Json(Page { items: triggers.into_iter().map(|trigger| view(&door, trigger)).collect(), next: None }))
}

/// `POST triggers`: makes one, or changes the one of that name.
#[utoipa::path(post, path = "/api/v1/triggers", tag = "triggers", request_body = AddTrigger,
    responses((status = 201, body = TriggerView), (status = "default", body = Problem)))]
pub async fn add(State(door): State<Door>, Body(add): Body<AddTrigger>) -> Answer<(StatusCode, Json<TriggerView>)> {
    let trigger = door.engine().add_trigger(add).await?;
    Ok((StatusCode::CREATED, Json(view(&door, trigger))))
}

/// `GET triggers/{name}`.
#[utoipa::path(get, path = "/api/v1/triggers/{name}", tag = "triggers", params(("name" = String, Path)),
    responses((status = 200, body = TriggerView), (status = "default", body = Problem)))]
pub async fn get(State(door): State<Door>, Name(name): Name) -> Answer<Json<TriggerView>> {
    Ok(Json(view(&door, door.engine().trigger(&name).await?)))
}

/// `DELETE triggers/{name}`.
#[utoipa::path(delete, path = "/api/v1/triggers/{name}", tag = "triggers", params(("name" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
pub async fn remove(State(door): State<Door>, Name(name): Name) -> Answer<StatusCode> {
    door.engine().remove_trigger(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST triggers/{name}/pause`.
#[utoipa::path(post, path = "/api/v1/triggers/{name}/pause", tag = "triggers", params(("name" = String, Path)),
    responses((status = 200, body = TriggerView), (status = "default", body = Problem)))]
pub async fn pause(State(door): State<Door>, Name(name): Name) -> Answer<Json<TriggerView>> {
    Ok(Json(view(&door, door.engine().pause_trigger(&name, true).await?)))
}

/// `POST triggers/{name}/resume`.
#[utoipa::path(post, path = "/api/v1/triggers/{name}/resume", tag = "triggers", params(("name" = String, Path)),
    responses((status = 200, body = TriggerView), (status = "default", body = Problem)))]
pub async fn resume(State(door): State<Door>, Name(name): Name) -> Answer<Json<TriggerView>> {
    Ok(Json(view(&door, door.engine().pause_trigger(&name, false).await?)))
}

fn view(door: &Door, trigger: Trigger) -> TriggerView {
    let limits = trigger.config.as_ref().ok().and_then(TriggerConfig::limits);
    let base = door.engine().config().base_url.trim_end_matches('/');
    let url = limits.map(|_| format!("{base}/hooks/{}", trigger.name));
    let state = match (&trigger.config, trigger.paused) {
        (Err(_), _) => "broken",
        (Ok(_), true) => "paused",
        (Ok(_), false) => "active",
    };
    TriggerView {
        state: state.to_owned(),
        project: trigger.project,
        requests: door.hooks().counts.of(&trigger.name),
        steps: match &trigger.config {
            Ok(config) => steps(config, url.as_deref().unwrap_or_default()),
            Err(e) => vec![format!("this version cannot read its configuration: {e}")],
        },
        id: trigger.name,
        kind: trigger.kind,
        url,
        config: trigger.stored,
        created_at: trigger.created_at.to_rfc3339(),
    }
}

/// What to do at the sender's, in its own words.
fn steps(config: &TriggerConfig, url: &str) -> Vec<String> {
    let mut steps = settings::steps(config, url);
    if config.limits().is_some_and(|limits| limits.unsigned) {
        steps.insert(
            0,
            "WARNING: requests to this trigger are NOT VERIFIED: whoever knows the URL can send events".to_owned(),
        );
    }
    steps
}

#[cfg(test)]
mod tests {
    use kickwheel_schemas::api::{ForgeTrigger, WebhookLimits};

    use super::*;

    #[test]
    fn the_steps_name_the_url_and_the_secret_and_warn_where_there_is_none() {
        let limits = WebhookLimits { secrets: vec!["hook".to_owned()], ..WebhookLimits::default() };
        let github = |limits| TriggerConfig::Github(ForgeTrigger { repo: "churn".to_owned(), limits });
        let text = steps(&github(limits), "https://kick.example/hooks/churn").join("\n");
        assert!(
            text.contains("Payload URL: https://kick.example/hooks/churn") && text.contains("secret hook"),
            "{text}"
        );
        assert!(!text.contains("WARNING"), "{text}");
        let limits = WebhookLimits { unsigned: true, ..WebhookLimits::default() };
        assert!(steps(&github(limits), "u")[0].contains("NOT VERIFIED"));
    }
}
