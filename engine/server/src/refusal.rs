//! How every error leaves: a [`Problem`] as `application/problem+json` (RFC 9457), with the status that tells a client whether to try again.
//!
//! The codes are stable and explained in `docs/errors.md`. Nothing is decided here about *what* is wrong: the engine's
//! [`ApiError`] carries its own code and words.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use kickwheel_runtime::{AdhocError, ApiError};
use kickwheel_schemas::api::{DiagnosticView, Problem};
use kickwheel_triggers::http::Refusal as Meaning;

/// What `Retry-After` says when the engine is paused, in seconds. A full or locked database rarely clears sooner.
pub const RETRY_AFTER_S: u16 = 2;

/// An error on its way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal(pub Problem);

impl Refusal {
    /// A refusal with a status, a stable code and words that say what is wrong, where, and what to do.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self(Problem { code: code.to_owned(), status: status.as_u16(), detail: detail.into(), diagnostics: Vec::new() })
    }

    /// 400 with a code.
    pub fn invalid(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        let (status, code, detail) = match error {
            ApiError::NotFound { code, detail } => (StatusCode::NOT_FOUND, code, detail),
            ApiError::Invalid { code, detail } => (StatusCode::BAD_REQUEST, code, detail),
            ApiError::Forbidden { code, detail } => (StatusCode::FORBIDDEN, code, detail),
            ApiError::Conflict { code, detail } => (StatusCode::CONFLICT, code, detail),
            ApiError::Unavailable { code, detail } => (StatusCode::SERVICE_UNAVAILABLE, code, detail),
        };
        Self::new(status, code, detail)
    }
}

impl From<Meaning> for Refusal {
    fn from(meaning: Meaning) -> Self {
        let status = StatusCode::from_u16(meaning.status).unwrap_or(StatusCode::BAD_REQUEST);
        Self::new(status, meaning.code, meaning.reason)
    }
}

impl From<AdhocError> for Refusal {
    fn from(error: AdhocError) -> Self {
        match error {
            AdhocError::Diagnostics(diagnostics) => {
                let mut refusal = Self::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "workflow_has_mistakes",
                    format!("the workflow has {}; nothing was changed", mistakes(&diagnostics)),
                );
                refusal.0.diagnostics = diagnostics;
                refusal
            }
            AdhocError::Api(error) => error.into(),
        }
    }
}

fn mistakes(found: &[DiagnosticView]) -> String {
    let count = found.iter().filter(|diagnostic| diagnostic.is_error()).count();
    if count == 1 { "1 mistake".to_owned() } else { format!("{count} mistakes") }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"kickwheel\""));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: ApiError, status: u16, retry: bool) {
        let refusal = Refusal::from(error);
        assert_eq!((refusal.0.status, refusal.0.code.as_str()), (status, "c"));
        let response = refusal.into_response();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers().contains_key(header::RETRY_AFTER), retry);
    }

    #[test]
    fn each_kind_of_error_has_its_status_and_only_unavailable_says_when_to_retry() {
        let detail = || "d".to_owned();
        check(ApiError::NotFound { code: "c", detail: detail() }, 404, false);
        check(ApiError::Invalid { code: "c", detail: detail() }, 400, false);
        check(ApiError::Forbidden { code: "c", detail: detail() }, 403, false);
        check(ApiError::Conflict { code: "c", detail: detail() }, 409, false);
        check(ApiError::Unavailable { code: "c", detail: detail() }, 503, true);
    }
}
