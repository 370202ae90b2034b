//! Bitbucket, of which there are two that share a name: Cloud and Data Center. Each has a module with its own shapes.
//!
//! Neither lists changed files. One delivery may hold many refs: each becomes an event, numbered after the delivery's id.

pub mod cloud;
pub mod data_center;

use super::{Headers, Refusal, SourceConfig, signature};

/// Verifies `X-Hub-Signature: sha256=…`, which both send once they have a secret.
fn verify(config: &SourceConfig, headers: &Headers, bytes: &[u8]) -> Result<(), Refusal> {
    let Some(secrets) = config.verification.secrets() else { return Ok(()) };
    signature::verify_websub("X-Hub-Signature", config.verification.takes_sha1(), &secrets, headers, bytes)
}
