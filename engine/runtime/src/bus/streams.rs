//! Which topics of others are read: the `kafka` triggers, as streams, and what their records become.

use std::sync::Arc;

use kickwheel_bus::{KafkaConfig, Record, codec};
use kickwheel_schemas::{
    CloudEvent,
    api::{KafkaStart, KafkaTrigger, TriggerConfig},
};
use kickwheel_store::rows::TriggerRow;
use serde_json::Value;
use tracing::warn;

use super::consume::{Begin, Records, Stream};
use crate::shared::Shared;

/// The streams of all triggers that are not paused, each with the Kafka that it is read from; none: that of the bus.
pub async fn foreign_streams(shared: &Arc<Shared>) -> Vec<(Stream, Option<KafkaConfig>)> {
    let rows = match shared.store.triggers(None).await {
        Ok(rows) => rows,
        Err(e) => {
            warn!("triggers cannot be read: {e}");
            return Vec::new();
        }
    };
    let mut streams = Vec::new();
    for row in rows.iter().filter(|row| !row.paused) {
        let Ok(TriggerConfig::Kafka(config)) = serde_json::from_value(row.config.clone()) else { continue };
        match kafka_config(shared, row, &config).await {
            Ok(kafka) => streams.push((stream(row, &config), kafka)),
            Err(reason) => warn!(trigger = row.name, "it is not read: {reason}"),
        }
    }
    streams
}

fn stream(row: &TriggerRow, config: &KafkaTrigger) -> Stream {
    let begin = match config.from {
        KafkaStart::Earliest => Begin::Earliest,
        KafkaStart::Latest => Begin::Latest,
    };
    let records = Records::Foreign {
        project: row.project.clone(),
        trigger: row.name.clone(),
        record_type: config.record_type.clone(),
    };
    Stream { name: stream_of(&row.project, &row.name, &config.topic), topic: config.topic.clone(), records, begin }
}

/// Under which name leases and offsets of a trigger's topic are kept.
pub fn stream_of(project: &str, trigger: &str, topic: &str) -> String {
    format!("trigger/{project}/{trigger}/{topic}")
}

async fn kafka_config(
    shared: &Arc<Shared>,
    row: &TriggerRow,
    config: &KafkaTrigger,
) -> Result<Option<KafkaConfig>, String> {
    let Some(brokers) = &config.brokers else { return Ok(None) };
    let mut kafka = KafkaConfig::new(brokers.clone());
    kafka.properties.clone_from(&config.properties);
    for (property, secret) in &config.secret_properties {
        let value = shared.secrets.open_for_engine(&shared.store, &row.project, secret).await;
        let value = value.map_err(|e| format!("failed to {e}"))?;
        let text = std::str::from_utf8(&value).map_err(|_| format!("the secret {secret:?} is no text"))?;
        kafka.properties.insert(property.clone(), text.trim_end_matches('\n').to_owned());
    }
    Ok(Some(kafka))
}

/// A record of another's topic as an event, without what only we may say. One that is no CloudEvent becomes an event of
/// the trigger's own type, if it names one: its identity is its place in the topic.
pub fn foreign(stream: &Stream, record_type: Option<&str>, record: &Record) -> Result<CloudEvent, String> {
    let mut event = match (codec::decode(record), record_type) {
        (Ok(event), _) => event,
        (Err(e), None) => return Err(format!("failed to {e}")),
        (Err(_), Some(ty)) => plain(stream, ty, record)?,
    };
    if event.ty.starts_with("dev.kickwheel.") {
        return Err(format!(
            "its type {:?} is ours: only a provider's preset makes such an event of something foreign",
            event.ty
        ));
    }
    event.extensions.retain(|name, _| !name.starts_with("kickwheel"));
    Ok(event)
}

fn plain(stream: &Stream, ty: &str, record: &Record) -> Result<CloudEvent, String> {
    let payload = record.payload.as_deref().ok_or("it is a tombstone: it has no value")?;
    if payload.len() > codec::MAX_EVENT_BYTES {
        return Err(format!("it has {} bytes, and {} is the limit", payload.len(), codec::MAX_EVENT_BYTES));
    }
    let data: Value = serde_json::from_slice(payload).map_err(|e| format!("it is no JSON: {e}"))?;
    let id = format!("{}/{}@{}", stream.topic, record.partition, record.offset);
    let event = CloudEvent::new(format!("kafka:{}", stream.topic), id, ty, data);
    // Records of one key are in order, so the key is what orders here too.
    Ok(match record.key.as_deref().map(String::from_utf8_lossy) {
        Some(key) if !key.is_empty() => event.with_subject(key.chars().filter(|c| !c.is_control()).collect::<String>()),
        Some(_) | None => event,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(record_type: Option<&str>, payload: Option<&str>, expected: Result<&str, &str>) {
        let records = Records::Foreign { project: "p".into(), trigger: "t".into(), record_type: None };
        let stream = Stream { name: "n".into(), topic: "orders".into(), records, begin: Begin::Latest };
        let record = Record {
            partition: 2,
            offset: 7,
            timestamp_ms: None,
            key: Some(b"k".to_vec()),
            payload: payload.map(|p| p.as_bytes().to_vec()),
            headers: vec![("content-type".to_owned(), Some(b"application/json".to_vec()))],
        };
        match (foreign(&stream, record_type, &record), expected) {
            (Ok(event), Ok(id)) => assert_eq!(event.id, id),
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
            (got, _) => panic!("{got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn a_record_is_named_by_its_place_unless_it_names_itself() {
        check(Some("shop.order"), Some(r#"{"total": 3}"#), Ok("orders/2@7"));
        check(None, Some(r#"{"total": 3}"#), Err("failed to"));
        check(Some("shop.order"), None, Err("tombstone"));
        check(Some("shop.order"), Some("not JSON"), Err("no JSON"));
    }

    #[test]
    fn nobody_else_makes_events_of_our_types() {
        check(Some("dev.kickwheel.cron.tick"), Some("{}"), Err("is ours"));
    }
}
