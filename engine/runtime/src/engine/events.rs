//! Events: accepting, listing, explaining.

use kickwheel_schemas::{
    CloudEvent, RunId,
    api::{EventView, Explanation, Page},
};
use kickwheel_store::rows::{EventFilter, EventRow};

use super::{Engine, read_failed, write_failed};
use crate::{
    ApiError,
    bus::{self, Receipt},
    explain, ingest,
    reserved::refuse_reserved,
    shared::DEFAULT_PROJECT,
    view,
};

impl Engine {
    /// Makes an event of which its sender says everything durable, and says how: what nobody outside may claim is refused.
    pub async fn accept_foreign(&self, channel: &str, event: CloudEvent) -> Result<Receipt, ApiError> {
        self.refuse_reserved(&event).await?;
        self.accept(DEFAULT_PROJECT, channel, event).await
    }

    /// Refuses what nobody outside may claim.
    pub async fn refuse_reserved(&self, event: &CloudEvent) -> Result<(), ApiError> {
        let configured = self.shared.configured.sources(&self.shared.store).await.map_err(read_failed)?;
        refuse_reserved(event, |source| configured.contains(source))
            .map_err(|reserved| ApiError::Forbidden { code: reserved.code(), detail: reserved.to_string() })
    }

    /// Makes an event that a preset of ours translated durable, and says how. Attributes that only we may set are taken
    /// off.
    pub async fn accept(&self, project: &str, channel: &str, mut event: CloudEvent) -> Result<Receipt, ApiError> {
        self.refuse_when_draining()?;
        event.check().map_err(|e| ApiError::Invalid { code: "bad_event", detail: e.to_string() })?;
        let size = serde_json::to_vec(&event).map_or(usize::MAX, |b| b.len());
        if size > ingest::MAX_EVENT_BYTES {
            return Err(ApiError::Invalid {
                code: "event_too_large",
                detail: format!("the event has {size} bytes; at most {} are taken", ingest::MAX_EVENT_BYTES),
            });
        }
        for name in bus::RESERVED {
            event.extensions.remove(name);
        }
        bus::receive(&self.shared, project, channel, event).await.map_err(write_failed)
    }

    /// Newest first.
    pub async fn events(&self, limit: usize, cursor: Option<String>) -> Result<Page<EventView>, ApiError> {
        let before = cursor.map(|c| c.parse()).transpose().map_err(|_| ApiError::Invalid {
            code: "bad_cursor",
            detail: "the cursor is not one of ours".to_owned(),
        })?;
        let limit = u32::try_from(limit.clamp(1, 1000)).unwrap_or(1000);
        let filter = EventFilter { before, limit, ..EventFilter::default() };
        let rows = self.shared.store.events(&filter).await.map_err(read_failed)?;
        let next = (rows.len() == limit as usize).then(|| rows.last().map(|r| r.key.to_string())).flatten();
        let mut items = Vec::with_capacity(rows.len());
        for row in &rows {
            items.push(self.event_view(row).await?);
        }
        Ok(Page { items, next })
    }

    /// By key or unique prefix.
    pub async fn event(&self, key: &str) -> Result<EventView, ApiError> {
        let row = self.event_row(key).await?;
        self.event_view(&row).await
    }

    /// Recomputes what an event meant, for one workflow or for all. `event` is an event key, or a run id (its cause), or
    /// `latest`.
    pub async fn explain(&self, event: &str, workflow: Option<&str>) -> Result<Explanation, ApiError> {
        let row = self.event_row(event).await?;
        let explanation = explain::event(&self.shared, &row, workflow).await.map_err(read_failed)?;
        if let Some(name) = workflow
            && explanation.decisions.is_empty()
        {
            return Err(ApiError::NotFound {
                code: "workflow_not_found",
                detail: format!(
                    "no workflow {name:?} was in the registry when the event was decided; see `kickwheel workflows ls`"
                ),
            });
        }
        Ok(explanation)
    }

    async fn event_view(&self, row: &EventRow) -> Result<EventView, ApiError> {
        let runs = self.shared.store.runs_of_event(row.key).await.map_err(read_failed)?;
        Ok(view::event(row, runs.iter().map(RunId::to_string).collect()))
    }

    async fn event_row(&self, text: &str) -> Result<EventRow, ApiError> {
        let missing = || ApiError::NotFound {
            code: "event_not_found",
            detail: format!("no event {text:?}; `kickwheel events ls` lists the latest ones"),
        };
        if text == "latest" {
            let filter = EventFilter { limit: 1, ..EventFilter::default() };
            let rows = self.shared.store.events(&filter).await.map_err(read_failed)?;
            return rows.into_iter().next().ok_or_else(missing);
        }
        let rows = self.shared.store.events_by_prefix(text).await.map_err(read_failed)?;
        match <[EventRow; 1]>::try_from(rows) {
            Ok([row]) => Ok(row),
            Err(rows) if rows.is_empty() => {
                let run = self.run_row(text).await.map_err(|_| missing())?;
                self.shared.store.event(run.event_key).await.map_err(read_failed)?.ok_or_else(missing)
            }
            Err(_) => Err(ApiError::Invalid {
                code: "ambiguous",
                detail: format!("{text:?} begins several event ids; give more of it"),
            }),
        }
    }
}
