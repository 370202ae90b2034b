//! What an HTTP request means: a provider's delivery as CloudEvents, or a refusal.
//!
//! ```text
//!   translate(provider, config, headers, body) -> Vec<CloudEvent>     nothing meant: an empty list
//!                                              -> Refusal             status, code, reason, whether to keep the body
//! ```
//!
//! Pure: time, secrets and what is configured come in; the route says which provider it is, the request never does.
//! Signatures are verified over the bytes as they came, before anything is parsed. Whatever a sender sends, the answer is
//! an event, nothing, or a refusal below 500: no input makes this panic.
//!
//! Deliberately absent: the door itself with its limits of rate and time, durability, and looking anything up. There is one
//! module per sender, such as [`github`], [`jira`] and [`s3`]; what several have in common is in `forge` (refs and pull
//! requests), `objects` (buckets), `versions` (datasets of other systems), [`signature`] and [`shared_secret`].

pub mod azure;
pub mod bitbucket;
mod body;
pub mod cloudevents;
mod forge;
pub mod gcs;
pub mod generic;
pub mod gitea;
pub mod github;
pub mod gitlab;
mod headers;
pub mod huggingface;
pub mod jira;
pub mod lakefs;
pub mod mlflow;
mod objects;
mod provider;
mod refusal;
pub mod s3;
pub mod shared_secret;
pub mod signature;
pub mod standard_webhooks;
mod versions;

#[cfg(test)]
mod tests;

use kickwheel_schemas::{CloudEvent, Millis};
use serde_json::Value;

pub use headers::Headers;
pub use provider::{Provider, ProviderError};
pub use refusal::Refusal;
pub use signature::{Secret, Verification};

/// Largest body that is looked at: what GitHub sends at most. A trigger's own limit is usually lower.
pub const MAX_BODY_BYTES: usize = 25 * 1024 * 1024;
/// Largest event that comes of a body, as JSON; the engine takes no larger one.
pub const MAX_EVENT_BYTES: usize = 512 * 1024;

/// What is configured about the source of a request. Where nothing is, the payload's own names are used.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// `source` of the events: for a repository its configured URL, which is what repositories are found by.
    pub source: Option<String>,
    /// The name under which the repository was added: stands in for `data.repo` where a payload names none.
    pub repo: Option<String>,
    /// The default branch: stands in where a payload names none.
    pub default_branch: Option<String>,
    /// The dataset that the events are about; none: the payload's own names are used.
    pub dataset: Option<String>,
    /// The account that acts in our name at the sender's: what it did is not told.
    pub own_account: Option<String>,
    /// How requests prove where they come from.
    pub verification: Verification,
    /// The time, for signatures that expire.
    pub now: Millis,
}

impl SourceConfig {
    /// Nothing is configured, and nothing is verified.
    pub fn unverified(now: Millis) -> Self {
        Self {
            source: None,
            repo: None,
            default_branch: None,
            dataset: None,
            own_account: None,
            verification: Verification::Unsigned,
            now,
        }
    }
}

/// The events of a request.
pub fn translate(
    provider: Provider,
    config: &SourceConfig,
    headers: &Headers,
    body: &[u8],
) -> Result<Vec<CloudEvent>, Refusal> {
    if body.len() > MAX_BODY_BYTES {
        let reason = format!("the body has {} bytes, at most {MAX_BODY_BYTES} are read", body.len());
        return Err(Refusal::new(413, "body_too_large", reason));
    }
    let events = match provider {
        Provider::Github => github::translate(config, headers, body)?,
        Provider::CloudEvents => cloudevents::translate(config, headers, body)?,
        Provider::StandardWebhooks => standard_webhooks::translate(config, headers, body)?,
        Provider::Gitlab => gitlab::translate(config, headers, body)?,
        Provider::Gitea => gitea::translate(&gitea::GITEA, config, headers, body)?,
        Provider::Forgejo => gitea::translate(&gitea::FORGEJO, config, headers, body)?,
        Provider::Gogs => gitea::translate(&gitea::GOGS, config, headers, body)?,
        Provider::BitbucketCloud => bitbucket::cloud::translate(config, headers, body)?,
        Provider::BitbucketDc => bitbucket::data_center::translate(config, headers, body)?,
        Provider::Jira => jira::translate(config, headers, body)?,
        Provider::S3 | Provider::Minio => s3::translate(config, headers, body)?,
        Provider::Gcs => gcs::translate(config, headers, body)?,
        Provider::Azure => azure::translate(config, headers, body)?,
        Provider::LakeFs => lakefs::translate(config, headers, body)?,
        Provider::HuggingFace => huggingface::translate(config, headers, body)?,
        Provider::Mlflow => mlflow::translate(config, headers, body)?,
        Provider::Generic => generic::translate(config, headers, body)?,
    };
    events.iter().try_for_each(body::check_event)?;
    Ok(events)
}

/// The body of the answer, with the status 200, to a request that asks something instead of telling; None: it gets the
/// answer that all get. Only Azure's Event Grid asks by POST.
pub fn answer(
    provider: Provider,
    config: &SourceConfig,
    headers: &Headers,
    body: &[u8],
) -> Result<Option<Value>, Refusal> {
    match provider {
        Provider::Azure => azure::answer(config, headers, body),
        Provider::Github
        | Provider::Gitlab
        | Provider::Gitea
        | Provider::Forgejo
        | Provider::Gogs
        | Provider::BitbucketCloud
        | Provider::BitbucketDc
        | Provider::Jira
        | Provider::S3
        | Provider::Minio
        | Provider::Gcs
        | Provider::LakeFs
        | Provider::HuggingFace
        | Provider::Mlflow
        | Provider::CloudEvents
        | Provider::StandardWebhooks
        | Provider::Generic => Ok(None),
    }
}
