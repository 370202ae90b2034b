//! From a trigger's configuration to a translation: which provider, whose events, which secrets.
//!
//! The same for a request and for the replay of one that was kept: only whether proof is wanted differs.

use kickwheel_runtime::{ApiError, Trigger};
use kickwheel_schemas::{
    CloudEvent, Millis,
    api::{TriggerConfig, WebhookLimits},
};
use kickwheel_triggers::http::{Headers, Provider, Refusal as Meaning, Secret, SourceConfig, Verification, translate};

use crate::{refusal::Refusal, routes::Door};

/// Whether a request has to prove its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// As the trigger says.
    Wanted,
    /// It did so when it came, and was kept since.
    Given,
}

/// Everything but the request.
pub struct Translation {
    provider: Provider,
    source: SourceConfig,
}

impl Translation {
    /// What a request means.
    pub fn translate(&self, headers: &Headers, body: &[u8]) -> Result<Vec<CloudEvent>, Meaning> {
        translate(self.provider, &self.source, headers, body)
    }
}

/// For `/events`, whose senders prove themselves by a token.
pub fn of_events() -> Translation {
    Translation { provider: Provider::CloudEvents, source: SourceConfig::unverified(Millis::now()) }
}

/// For a webhook trigger; opens its secrets.
pub async fn of_trigger(door: &Door, trigger: &Trigger, proof: Proof) -> Result<Translation, Refusal> {
    let mut source = SourceConfig::unverified(Millis::now());
    let (provider, limits) = match &trigger.config {
        Ok(TriggerConfig::Github(github)) => {
            let repo = door.engine().bound_repo(&github.repo).await?;
            source.source = Some(repo.url);
            source.repo = Some(repo.name);
            source.default_branch = repo.default_branch;
            (Provider::Github, &github.limits)
        }
        Ok(TriggerConfig::Cloudevents(limits)) => (Provider::CloudEvents, limits),
        Ok(TriggerConfig::StandardWebhooks(limits)) => {
            source.source = Some(format!("/hooks/{}", trigger.name));
            (Provider::StandardWebhooks, limits)
        }
        Ok(TriggerConfig::Kafka(_) | TriggerConfig::Cron(_)) | Err(_) => {
            return Err(Refusal::from(ApiError::Conflict {
                code: "trigger_invalid",
                detail: format!("the trigger {:?} takes no requests", trigger.name),
            }));
        }
    };
    if proof == Proof::Wanted {
        source.verification = verification(door, limits).await?;
    }
    Ok(Translation { provider, source })
}

async fn verification(door: &Door, limits: &WebhookLimits) -> Result<Verification, Refusal> {
    let (mut secrets, mut refused) = (Vec::new(), None);
    for name in &limits.secrets {
        match door.engine().secret_for_engine(name).await {
            Ok(value) => secrets.push(Secret::new(value.to_vec())),
            // One that is gone verifies nothing; the other one still does.
            Err(e) => refused = Some(e),
        }
    }
    if let (true, Some(e)) = (secrets.is_empty(), refused) {
        return Err(e.into());
    }
    let mut secrets = secrets.into_iter();
    match secrets.next() {
        Some(current) => Ok(Verification::Secret { current, previous: secrets.next(), legacy_sha1: false }),
        None if limits.unsigned => Ok(Verification::Unsigned),
        // Nobody said that this is wanted.
        None => Err(Refusal::from(ApiError::Conflict {
            code: "trigger_invalid",
            detail: "the trigger has no secret and is not unsigned".to_owned(),
        })),
    }
}
