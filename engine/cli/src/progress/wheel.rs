//! Where a run turns, so that one view follows both a server's runs and those of this process.

use std::time::Duration;

use futures::StreamExt as _;
use kickwheel_runtime::{ApiError, Engine, LogQuery};
use kickwheel_schemas::api::Watched;

use crate::{
    client::Client,
    exit::{Exit, Failure},
};

/// Most bytes of a log that are read to show its end.
const MAX_TAIL_BYTES: usize = 4 * 1024 * 1024;

/// A server, or the engine of this very process.
pub enum Wheel {
    /// Behind the API.
    Server(Client),
    /// Embedded, with the command that shows more of a run than the end does.
    Embedded(Engine),
}

impl Wheel {
    /// Waits for news of a run beyond `seq`, at most `wait`.
    pub async fn watch(&self, run: &str, seq: u64, wait: Duration) -> Result<Watched, Failure> {
        match self {
            Self::Server(client) => {
                let query = [("seq", seq.to_string()), ("wait_ms", wait.as_millis().to_string())];
                Ok(client.get(&["runs", run, "watch"], &query).await?.value)
            }
            Self::Embedded(engine) => {
                let (seq, run) = engine.watch_run(run, seq, wait).await.map_err(failure)?;
                Ok(Watched { seq, run })
            }
        }
    }

    /// The last lines of a task's log.
    pub async fn log_tail(&self, run: &str, step: &str, index: u32, lines: usize) -> Result<Vec<String>, Failure> {
        let mut tail = Vec::new();
        let mut keep = |chunk: &[u8]| {
            tail.extend_from_slice(chunk);
            let excess = tail.len().saturating_sub(MAX_TAIL_BYTES);
            tail.drain(..excess);
        };
        match self {
            Self::Server(client) => {
                let query = [("step", step.to_owned()), ("index", index.to_string())];
                let mut response = client.stream(&["runs", run, "logs"], &query).await?;
                while let Ok(Some(chunk)) = response.chunk().await {
                    keep(&chunk);
                }
            }
            Self::Embedded(engine) => {
                let query =
                    LogQuery { run: run.to_owned(), step: step.to_owned(), index, attempt: None, follow: false };
                let mut chunks = engine.logs(query).await.map_err(failure)?;
                while let Some(Ok(chunk)) = chunks.next().await {
                    keep(&chunk);
                }
            }
        }
        let text = String::from_utf8_lossy(&tail);
        let all: Vec<&str> = text.lines().collect();
        Ok(all[all.len().saturating_sub(lines)..].iter().map(|&line| line.to_owned()).collect())
    }
}

/// An error of the embedded engine in the words of the command line.
pub fn failure(error: ApiError) -> Failure {
    let (exit, code, detail) = match error {
        ApiError::NotFound { code, detail } => (Exit::NotFound, code, detail),
        ApiError::Invalid { code, detail } => (Exit::Usage, code, detail),
        ApiError::Forbidden { code, detail }
        | ApiError::Conflict { code, detail }
        | ApiError::Unavailable { code, detail } => (Exit::Refused, code, detail),
    };
    Failure::new(exit, code, detail)
}
