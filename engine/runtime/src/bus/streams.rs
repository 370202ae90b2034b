//! Which topics of others are read: the `kafka` triggers, as streams.

use std::sync::Arc;

use kickwheel_store::rows::TriggerRow;
use serde_json::Value;
use tracing::warn;

use super::consume::{Begin, Records, Stream};
use crate::shared::Shared;

/// The kind of a trigger that reads a topic.
const KIND: &str = "kafka";

/// The streams of all triggers that are not paused, each with its brokers; none: those of the bus.
pub async fn foreign_streams(shared: &Arc<Shared>) -> Vec<(Stream, Option<String>)> {
    match shared.store.triggers(None).await {
        Ok(rows) => rows.iter().filter(|row| row.kind == KIND && !row.paused).filter_map(stream).collect(),
        Err(e) => {
            warn!("triggers cannot be read: {e}");
            Vec::new()
        }
    }
}

fn stream(row: &TriggerRow) -> Option<(Stream, Option<String>)> {
    let text = |name: &str| row.config.get(name).and_then(Value::as_str).map(str::to_owned);
    let topic = text("topic")?;
    let begin = match text("from").as_deref() {
        Some("earliest") => Begin::Earliest,
        Some(_) | None => Begin::Latest,
    };
    let records = Records::Foreign { project: row.project.clone(), trigger: row.name.clone() };
    let name = format!("trigger/{}/{}/{topic}", row.project, row.name);
    Some((Stream { name, topic, records, begin }, text("brokers")))
}
