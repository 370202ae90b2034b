//! Triggers as they are configured: making, changing, listing and pausing them.
//!
//! Here a configuration is judged by what only the engine knows: whether the repository is bound, the secrets exist, the
//! schedule can be read. What a request to a webhook trigger means is `triggers::http`'s; cron and Kafka triggers have
//! loops of their own that read the same rows.

use kickwheel_core::cron::Schedule;
use kickwheel_schemas::{
    Millis,
    api::{AddTrigger, TriggerConfig},
};
use kickwheel_store::{
    Write,
    rows::TriggerRow,
    write::{PutTrigger, RemoveNamed, RemovePartitions, SetTriggerPaused},
};
use serde_json::Value;

use super::{Engine, read_failed, write_failed};
use crate::{ApiError, bus::stream_of, shared::DEFAULT_PROJECT};

/// Longest name of a trigger, in bytes: it is a part of a URL.
const MAX_NAME_BYTES: usize = 100;

/// A configured trigger.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// The project.
    pub project: String,
    /// Its name.
    pub name: String,
    /// Its kind, as it is stored.
    pub kind: String,
    /// What it is; the reason when a newer version stored something that this one cannot read.
    pub config: Result<TriggerConfig, String>,
    /// The same as it is stored.
    pub stored: Value,
    /// Whether it is paused.
    pub paused: bool,
    /// When it was made.
    pub created_at: Millis,
}

/// A bound repository, as far as a webhook has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundRepo {
    /// The name that filters use.
    pub name: String,
    /// URL or path: the source of its events.
    pub url: String,
    /// The default branch, when known.
    pub default_branch: Option<String>,
}

impl From<TriggerRow> for Trigger {
    fn from(row: TriggerRow) -> Self {
        let config = serde_json::from_value(row.config.clone()).map_err(|e| e.to_string());
        Self {
            project: row.project,
            name: row.name,
            kind: row.kind,
            config,
            stored: row.config,
            paused: row.paused,
            created_at: row.created_at,
        }
    }
}

impl Engine {
    /// Makes a trigger, or changes the one of that name.
    pub async fn add_trigger(&self, add: AddTrigger) -> Result<Trigger, ApiError> {
        self.refuse_when_draining()?;
        check_name(&add.name)?;
        let invalid = |detail: String| ApiError::Invalid { code: "trigger_invalid", detail };
        add.config.check().map_err(|e| invalid(e.to_string()))?;
        for secret in add.config.secrets() {
            self.secret_for_engine(secret).await?;
        }
        if let Some(repo) = add.config.repo() {
            self.bound_repo(repo).await?;
        }
        if let TriggerConfig::Cron(cron) = &add.config {
            let schedule = Schedule::parse(&cron.schedule, &cron.timezone);
            let schedule = schedule.map_err(|e| invalid(format!("cannot {e}")))?;
            if schedule.next_after(Millis::now()).is_none() {
                return Err(invalid(format!("the schedule {:?} is never due", cron.schedule)));
            }
            if self.shared.registry().named(&add.name).is_some() {
                return Err(ApiError::Conflict {
                    code: "trigger_name",
                    detail: format!(
                        "there is a workflow {:?}, and the ticks of its own `on.cron` have that name; take another",
                        add.name
                    ),
                });
            }
        }
        let put = PutTrigger {
            project: DEFAULT_PROJECT.to_owned(),
            name: add.name.clone(),
            kind: add.config.kind().as_str().to_owned(),
            config: serde_json::to_value(&add.config).expect("configurations have string keys only"),
            at: Millis::now(),
        };
        let before = self.shared.store.trigger(DEFAULT_PROJECT, &add.name).await.map_err(read_failed)?;
        let mut unit = vec![Write::PutTrigger(put)];
        let topic = topic_of(&add.config);
        if let Some(left) = before.and_then(|row| left_stream(&row, topic)) {
            unit.push(Write::RemovePartitions(left));
        }
        self.shared.store.write(unit).await.map_err(write_failed)?;
        self.shared.streams_changed.notify_one();
        self.trigger(&add.name).await
    }

    /// All triggers, by name.
    pub async fn triggers(&self) -> Result<Vec<Trigger>, ApiError> {
        let rows = self.shared.store.triggers(Some(DEFAULT_PROJECT)).await.map_err(read_failed)?;
        Ok(rows.into_iter().map(Trigger::from).collect())
    }

    /// One of them.
    pub async fn trigger(&self, name: &str) -> Result<Trigger, ApiError> {
        let row = self.shared.store.trigger(DEFAULT_PROJECT, name).await.map_err(read_failed)?;
        row.map(Trigger::from).ok_or_else(|| missing(name))
    }

    /// Removes it, with where it stands.
    pub async fn remove_trigger(&self, name: &str) -> Result<(), ApiError> {
        let row = self.shared.store.trigger(DEFAULT_PROJECT, name).await.map_err(read_failed)?;
        let row = row.ok_or_else(|| missing(name))?;
        let named = RemoveNamed { project: DEFAULT_PROJECT.to_owned(), name: name.to_owned() };
        let mut unit = vec![Write::RemoveTrigger(named)];
        unit.extend(left_stream(&row, None).map(Write::RemovePartitions));
        self.shared.store.write(unit).await.map_err(write_failed)?;
        self.shared.streams_changed.notify_one();
        Ok(())
    }

    /// Paused, nothing comes in through it.
    pub async fn pause_trigger(&self, name: &str, paused: bool) -> Result<Trigger, ApiError> {
        self.trigger(name).await?;
        let set = SetTriggerPaused { project: DEFAULT_PROJECT.to_owned(), name: name.to_owned(), paused };
        self.shared.store.write(vec![Write::SetTriggerPaused(set)]).await.map_err(write_failed)?;
        self.shared.streams_changed.notify_one();
        self.trigger(name).await
    }

    /// The repository of that name.
    pub async fn bound_repo(&self, name: &str) -> Result<BoundRepo, ApiError> {
        let row = self.shared.store.repo(DEFAULT_PROJECT, name).await.map_err(read_failed)?;
        let row = row.ok_or_else(|| ApiError::NotFound {
            code: "repo_not_found",
            detail: format!("no repository {name:?}; `kickwheel repos ls` lists them"),
        })?;
        Ok(BoundRepo { name: row.name, url: row.url, default_branch: row.default_branch })
    }
}

fn topic_of(config: &TriggerConfig) -> Option<&str> {
    let TriggerConfig::Kafka(kafka) = config else { return None };
    Some(&kafka.topic)
}

/// The offsets of a stored trigger's topic, unless it goes on reading `topic`: whoever reads it again later begins as that
/// trigger says, and not where an older one of the same name has stopped.
fn left_stream(row: &TriggerRow, topic: Option<&str>) -> Option<RemovePartitions> {
    let config: TriggerConfig = serde_json::from_value(row.config.clone()).ok()?;
    let left = topic_of(&config).filter(|left| Some(*left) != topic)?;
    Some(RemovePartitions { topic: stream_of(&row.project, &row.name, left) })
}

fn missing(name: &str) -> ApiError {
    ApiError::NotFound {
        code: "trigger_not_found",
        detail: format!("no trigger {name:?}; `kickwheel triggers ls` lists them"),
    }
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.starts_with('.') && name.chars().all(fits) {
        return Ok(());
    }
    Err(ApiError::Invalid {
        code: "bad_name",
        detail: format!(
            "{name:?} is no name of a trigger; use letters, digits, `-`, `_` and `.`: it is a part of a URL"
        ),
    })
}
