//! From a trigger's configuration to a translation: which provider, whose events, which secrets.
//!
//! The same for a request and for the replay of one that was kept: only whether proof is wanted differs.

use std::{collections::HashMap, sync::Mutex};

use kickwheel_runtime::{ApiError, Trigger};
use kickwheel_schemas::{
    CloudEvent, Millis,
    api::{TriggerConfig, TriggerKind, WebhookLimits},
};
use kickwheel_triggers::http::{
    Headers, Provider, Refusal as Meaning, Secret, SourceConfig, Verification, answer, translate,
};
use serde_json::Value;

use crate::{refusal::Refusal, routes::Door};

/// Whether a request has to prove its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// As the trigger says.
    Wanted,
    /// It did so when it came, and was kept since.
    Given,
}

/// For whom a sender speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpeaksFor {
    /// For what the trigger is configured for: a preset of ours says what its events are called.
    Origin,
    /// For itself: it says what its events are called, and may not call them as ours are.
    Itself,
}

/// Everything but the request.
#[derive(Clone, Debug)]
pub struct Translation {
    provider: Provider,
    source: SourceConfig,
}

impl Translation {
    /// Who says what the events are called.
    pub fn speaks_for(&self) -> SpeaksFor {
        match self.provider {
            // What a mapping makes of a request is the sender's own word too: only presets speak for an origin.
            Provider::CloudEvents | Provider::Generic => SpeaksFor::Itself,
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
            | Provider::Azure
            | Provider::LakeFs
            | Provider::HuggingFace
            | Provider::Mlflow
            | Provider::StandardWebhooks => SpeaksFor::Origin,
        }
    }

    /// What a request means.
    pub fn translate(&self, headers: &Headers, body: &[u8]) -> Result<Vec<CloudEvent>, Meaning> {
        translate(self.provider, &self.source, headers, body)
    }

    /// The body of the answer to a request that asks something, instead of telling.
    pub fn answer(&self, headers: &Headers, body: &[u8]) -> Result<Option<Value>, Meaning> {
        answer(self.provider, &self.source, headers, body)
    }
}

/// Triggers as they were when they last took a request, for while the database is away. There are as many as were made by
/// hand.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<String, (Trigger, Translation)>>);

impl Known {
    /// This is how it is now.
    pub fn keep(&self, trigger: &Trigger, translation: &Translation) {
        let mut known = self.0.lock().expect("no holder of this lock panics");
        known.insert(trigger.name.clone(), (trigger.clone(), translation.clone()));
    }

    /// It is there no more.
    pub fn forget(&self, name: &str) {
        self.0.lock().expect("no holder of this lock panics").remove(name);
    }

    /// The trigger of that name.
    pub fn trigger(&self, name: &str) -> Option<Trigger> {
        self.0.lock().expect("no holder of this lock panics").get(name).map(|(trigger, _)| trigger.clone())
    }

    /// What its requests mean, as of now.
    pub fn translation(&self, name: &str) -> Option<Translation> {
        let mut translation = self.0.lock().expect("no holder of this lock panics").get(name)?.1.clone();
        translation.source.now = Millis::now();
        Some(translation)
    }
}

/// For `/events`, whose senders prove themselves by a token.
pub fn of_events() -> Translation {
    Translation { provider: Provider::CloudEvents, source: SourceConfig::unverified(Millis::now()) }
}

/// For a webhook trigger; opens its secrets.
pub async fn of_trigger(door: &Door, trigger: &Trigger, proof: Proof) -> Result<Translation, Refusal> {
    let mut source = SourceConfig::unverified(Millis::now());
    let takes_none = || {
        Refusal::from(ApiError::Conflict {
            code: "trigger_invalid",
            detail: format!("the trigger {:?} takes no requests", trigger.name),
        })
    };
    let config = trigger.config.as_ref().map_err(|_| takes_none())?;
    let (provider, limits) = provider(config).zip(config.limits()).ok_or_else(takes_none)?;
    if let Some(repo) = config.repo() {
        let repo = door.engine().bound_repo(repo).await?;
        source.source = Some(repo.url);
        source.repo = Some(repo.name);
        source.default_branch = repo.default_branch;
    }
    source.dataset = config.dataset().map(str::to_owned);
    if let TriggerConfig::Jira(jira) = config {
        source.source.clone_from(&jira.site);
        source.own_account.clone_from(&jira.account);
    }
    if matches!(config, TriggerConfig::StandardWebhooks(_) | TriggerConfig::Mlflow(_)) {
        // What they say of themselves names no place.
        source.source = Some(format!("/hooks/{}", trigger.name));
    }
    if proof == Proof::Wanted {
        source.verification = verification(door, limits).await?;
    }
    Ok(Translation { provider, source })
}

/// Whose deliveries a trigger takes.
fn provider(config: &TriggerConfig) -> Option<Provider> {
    Some(match config.kind() {
        TriggerKind::Github => Provider::Github,
        TriggerKind::Gitlab => Provider::Gitlab,
        TriggerKind::Gitea => Provider::Gitea,
        TriggerKind::Forgejo => Provider::Forgejo,
        TriggerKind::Gogs => Provider::Gogs,
        TriggerKind::BitbucketCloud => Provider::BitbucketCloud,
        TriggerKind::BitbucketDc => Provider::BitbucketDc,
        TriggerKind::Jira => Provider::Jira,
        TriggerKind::S3 => Provider::S3,
        TriggerKind::Minio => Provider::Minio,
        TriggerKind::Gcs => Provider::Gcs,
        TriggerKind::Azure => Provider::Azure,
        TriggerKind::Lakefs => Provider::LakeFs,
        TriggerKind::Huggingface => Provider::HuggingFace,
        TriggerKind::Mlflow => Provider::Mlflow,
        TriggerKind::Cloudevents => Provider::CloudEvents,
        TriggerKind::StandardWebhooks => Provider::StandardWebhooks,
        TriggerKind::Kafka | TriggerKind::Cron => return None,
    })
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
        // Old servers sign by HMAC-SHA1 only, which nobody has broken; where there is a better one, that counts.
        Some(current) => Ok(Verification::Secret { current, previous: secrets.next(), legacy_sha1: true }),
        None if limits.unsigned => Ok(Verification::Unsigned),
        // Nobody said that this is wanted.
        None => Err(Refusal::from(ApiError::Conflict {
            code: "trigger_invalid",
            detail: "the trigger has no secret and is not unsigned".to_owned(),
        })),
    }
}
