//! The handlers, by what they are about. Each asks the engine one question and answers with its wire type.
//!
//! Names may hold `/` (`churn/raw`): they travel percent-encoded, as one segment of the path.

pub mod assets;
pub mod bus;
pub mod events;
pub mod front;
pub mod quarantine;
pub mod registry;
pub mod runs;
mod settings;
pub mod state;
pub mod tokens;
pub mod triggers;

use axum::body::{Body, Bytes};
use futures::{Stream, StreamExt as _};
use kickwheel_runtime::ApiError;
use kickwheel_schemas::Millis;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::refusal::Refusal;

/// Rows of a listing when nothing is said.
pub const DEFAULT_LIMIT: usize = 50;
/// Most rows of one answer; what is left follows with `cursor`.
pub const MAX_LIMIT: usize = 1000;

/// The answer of a handler.
pub type Answer<T> = Result<T, Refusal>;

/// Parameters of every listing.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    limit: Option<usize>,
    cursor: Option<String>,
}

fn limit(given: Option<usize>) -> Result<usize, Refusal> {
    match given {
        None => Ok(DEFAULT_LIMIT),
        Some(n) if (1..=MAX_LIMIT).contains(&n) => Ok(n),
        Some(n) => Err(Refusal::invalid("limit_invalid", format!("limit={n} is not within 1..={MAX_LIMIT}"))),
    }
}

fn time(name: &str, given: Option<&str>) -> Result<Option<Millis>, Refusal> {
    let Some(text) = given else {
        return Ok(None);
    };
    match chrono::DateTime::parse_from_rfc3339(text) {
        Ok(at) => Ok(Some(Millis(at.timestamp_millis()))),
        Err(e) => Err(Refusal::invalid(
            "time_invalid",
            format!("{name}={text:?} is no time as RFC 3339 writes it, such as 2026-01-31T12:00:00Z: {e}"),
        )),
    }
}

/// A body that is cut, not ended, when the server stops: a client must be able to tell half a log from a whole one.
fn stream(
    stream: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
    ending: &CancellationToken,
) -> Body {
    let ending = ending.clone().cancelled_owned();
    let cut = futures::stream::once(async move {
        ending.await;
        Err(std::io::Error::other("the server is stopping"))
    });
    // The chunks end with `None`, the cut with an error; whichever comes first ends the body.
    let chunks = stream.map(Some).chain(futures::stream::iter([None]));
    let body = futures::stream::select(chunks, cut.map(Some)).scan(false, |over, item| {
        let item = if *over { None } else { item };
        *over = matches!(item, None | Some(Err(_)));
        std::future::ready(item)
    });
    Body::from_stream(body)
}

/// An answer from the engine that needs no more than its wire type.
fn json<T>(result: Result<T, ApiError>) -> Answer<axum::Json<T>> {
    Ok(axum::Json(result?))
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[test]
    fn a_limit_outside_its_bounds_is_refused() {
        assert_eq!(limit(None), Ok(DEFAULT_LIMIT));
        assert_eq!(limit(Some(MAX_LIMIT)), Ok(MAX_LIMIT));
        assert!(limit(Some(0)).is_err() && limit(Some(MAX_LIMIT + 1)).is_err());
    }

    #[test]
    fn times_are_read_with_any_offset() {
        assert_eq!(time("since", Some("1970-01-01T01:00:01+01:00")), Ok(Some(Millis(1000))));
        assert!(time("since", Some("2h")).is_err());
    }

    #[tokio::test]
    async fn a_finished_stream_ends_the_body() {
        let chunks = futures::stream::iter([Ok(Bytes::from("a")), Ok(Bytes::from("b"))]);
        let body = to_bytes(stream(chunks, &CancellationToken::new()), 10).await.expect("it ends");
        assert_eq!(body, "ab");
    }

    #[tokio::test]
    async fn a_stopping_server_cuts_an_open_stream_with_an_error() {
        let ending = CancellationToken::new();
        let body = stream(futures::stream::pending(), &ending);
        ending.cancel();
        assert!(to_bytes(body, 10).await.is_err());
    }
}
