//! What a handler takes from a request: path names, query parameters and JSON bodies, each refused as a `Problem`.
//!
//! They wrap axum's own extractors because those answer in plain text. Unknown query parameters are refused rather than
//! ignored: a misspelt filter that silently matches everything is how the wrong runs get cancelled.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::de::DeserializeOwned;

use crate::refusal::Refusal;

/// One percent-decoded segment of the path.
#[derive(Clone, Debug)]
pub struct Name(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(rejection) => Err(Refusal::invalid("path_invalid", rejection.body_text())),
        }
    }
}

/// Query parameters.
#[derive(Clone, Debug)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => Err(Refusal::invalid("query_invalid", rejection.body_text())),
        }
    }
}

/// A JSON body. An empty body reads as `{}`, so that an operation whose fields are all optional needs none.
#[derive(Clone, Debug)]
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let json = is_json(request.headers());
        let bytes = Bytes::from_request(request, state).await.map_err(unreadable)?;
        if bytes.is_empty() {
            return parse(b"{}").map(Self);
        }
        if !json {
            return Err(Refusal::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "content_type",
                "the body must be JSON: send it with `Content-Type: application/json`",
            ));
        }
        parse(&bytes).map(Self)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|e| {
        Refusal::invalid("body_invalid", format!("the body cannot be read as JSON of the right shape: {e}"))
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn unreadable(rejection: BytesRejection) -> Refusal {
    let status = rejection.status();
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return Refusal::new(status, "body_too_large", "the body is larger than this route takes");
    }
    Refusal::invalid("body_unreadable", rejection.body_text())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn check(content_type: &'static str, json: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        assert_eq!(is_json(&headers), json, "{content_type}");
    }

    #[test]
    fn json_and_structured_json_types_are_taken_and_form_types_are_not() {
        check("application/json", true);
        check("Application/JSON; charset=utf-8", true);
        check("application/cloudevents+json", true);
        check("text/plain", false);
        check("application/x-www-form-urlencoded", false);
        check("text/x+json", false);
    }
}
