//! What a browser finds: where the API is, and, behind a run's link, how to see that run.

use std::fmt::Write as _;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use kickwheel_schemas::api::RunDetail;

use super::Answer;
use crate::{access::who, extract::Name, routes::Door};

const PLAIN: [(header::HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];

/// `GET /`.
pub async fn welcome() -> impl IntoResponse {
    let text = concat!(
        "Kickwheel ",
        env!("CARGO_PKG_VERSION"),
        "\n\nThe API is below /api/v1 and wants `Authorization: Bearer <token>`: one of `kickwheel tokens create`, or that in\n",
        "the file `token` of the data folder. /api/v1/openapi.json describes it; /health answers without a token. On a terminal: kickwheel runs ls, kickwheel --help.\n"
    );
    (PLAIN, text)
}

/// `GET /runs/{id}`: where a run's link leads. Without the token it only says which command shows the run.
pub async fn run(State(door): State<Door>, Name(id): Name, headers: HeaderMap) -> Answer<Response> {
    if let Err(mut refusal) = who(&door, &headers).await {
        if id.len() <= 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
            refusal.0.detail = format!("to see this run, use `kickwheel runs get {id} --watch` on this machine");
        }
        return Ok(refusal.into_response());
    }
    let run = door.engine().run(&id).await?;
    Ok((StatusCode::OK, PLAIN, page(&run)).into_response())
}

fn page(run: &RunDetail) -> String {
    let summary = &run.summary;
    let mut text = format!(
        "run {}\nworkflow {}\nstate {}\ncause {}\ncreated {}\n",
        summary.id,
        summary.workflow,
        summary.state.as_str(),
        summary.cause,
        summary.created_at
    );
    if let Some(ended) = &summary.ended_at {
        let _ = writeln!(text, "ended {ended}");
    }
    text.push('\n');
    for step in &run.steps {
        let done = step.tasks.iter().filter(|t| t.ended_at.is_some()).count();
        let _ = write!(text, "{:<24} {:<10} {done}/{}", step.name, step.state, step.tasks.len());
        if let Some(reason) = &step.reason {
            let _ = write!(text, "  {reason}");
        }
        text.push('\n');
    }
    let _ = writeln!(text, "\nlogs: kickwheel logs {}", summary.id);
    text
}
