//! Which topics of others are read: the `kafka` triggers, as streams, and what their records become.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kickwheel_bus::{KafkaConfig, Record, codec};
use kickwheel_schemas::{
    CloudEvent,
    api::{KafkaStart, KafkaTrigger, TriggerConfig},
};
use kickwheel_store::rows::TriggerRow;
use serde_json::Value;
use tracing::warn;

use super::consume::{Begin, Records, Stream};
use crate::{
    ApiError,
    engine::read_failed,
    reserved::{refuse_reserved, refuse_reserved_type},
    shared::{DEFAULT_PROJECT, Shared},
};

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
    let mut names = Vec::new();
    for row in rows.iter().filter(|row| !row.paused) {
        let Ok(TriggerConfig::Kafka(config)) = serde_json::from_value(row.config.clone()) else { continue };
        names.push(stream_of(&row.project, &row.name, &config.topic));
        match kafka_config(shared, row, &config).await {
            Ok(kafka) => streams.push((stream(row, &config), kafka)),
            Err(reason) => shared.note_stream(&stream(row, &config).name, Some(reason)),
        }
    }
    // What was wrong with those that are not read any more concerns nobody.
    shared.stream_troubles.lock().expect("no holder of this lock panics").retain(|name, _| names.contains(name));
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
    // It was judged when it was made, perhaps by an older version that let more pass.
    TriggerConfig::Kafka(config.clone()).check().map_err(|e| e.to_string())?;
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
/// `topic_id` names the topic's present life, `is_configured` the sources that belong to what is configured here.
pub fn foreign(
    stream: &Stream,
    record_type: Option<&str>,
    record: &Record,
    topic_id: &str,
    is_configured: impl Fn(&str) -> bool,
) -> Result<CloudEvent, String> {
    let mut event = match (codec::decode(record), record_type) {
        (Ok(event), _) => {
            refuse_reserved(&event, is_configured).map_err(|reserved| reserved.to_string())?;
            event
        }
        (Err(e), None) => return Err(format!("failed to {e}")),
        (Err(_), Some(ty)) => {
            refuse_reserved_type(ty).map_err(|reserved| reserved.to_string())?;
            plain(stream, ty, record, topic_id)?
        }
    };
    event.extensions.retain(|name, _| !name.starts_with("kickwheel"));
    Ok(event)
}

/// Two triggers may read topics of one name, on brokers of their own, and a topic may be deleted and made anew: neither
/// must give two records one identity, so it holds the trigger and the topic's id.
fn plain(stream: &Stream, ty: &str, record: &Record, topic_id: &str) -> Result<CloudEvent, String> {
    let payload = record.payload.as_deref().ok_or("it is a tombstone: it has no value")?;
    if payload.len() > codec::MAX_EVENT_BYTES {
        return Err(format!("it has {} bytes, and {} is the limit", payload.len(), codec::MAX_EVENT_BYTES));
    }
    let data: Value = serde_json::from_slice(payload).map_err(|e| format!("it is no JSON: {e}"))?;
    let Records::Foreign { project: _, trigger, record_type: _ } = &stream.records else {
        return Err("only a trigger's topic has records that are no CloudEvents".to_owned());
    };
    let id = format!("{trigger}/{topic_id}/{}@{}", record.partition, record.offset);
    let event = CloudEvent::new(format!("kafka:{}", stream.topic), id, ty, data);
    // Records of one key are in order, so the key is what orders here too.
    Ok(match record.key.as_deref().map(String::from_utf8_lossy) {
        Some(key) if !key.is_empty() => event.with_subject(key.chars().filter(|c| !c.is_control()).collect::<String>()),
        Some(_) | None => event,
    })
}

/// Headers of ours that a record is kept with, so that it can be read once more: whose topic it was, which of that name,
/// and its key.
pub(super) const KEPT_TRIGGER: &str = "kickwheel-trigger";
pub(super) const KEPT_TOPIC_ID: &str = "kickwheel-topic-id";
pub(super) const KEPT_KEY: &str = "kickwheel-key";

/// The event in a record that was kept, as its trigger would read it by now. One that no trigger is known of any more has
/// to be a CloudEvent.
pub async fn kept_record(
    shared: &Shared,
    origin: &str,
    headers: &BTreeMap<String, String>,
    value: Vec<u8>,
    configured: &BTreeSet<String>,
) -> Result<CloudEvent, ApiError> {
    let (topic, partition, offset) = place(origin).ok_or_else(|| ApiError::Conflict {
        code: "quarantine_origin",
        detail: format!("nothing here knows how to read what came from {origin}"),
    })?;
    let ours = |name: &str| headers.get(name).cloned();
    let foreign_headers = headers.iter().filter(|(name, _)| !name.starts_with("kickwheel-"));
    let record = Record {
        partition,
        offset,
        timestamp_ms: None,
        key: ours(KEPT_KEY).map(String::into_bytes),
        payload: Some(value),
        headers: foreign_headers.map(|(name, value)| (name.clone(), Some(value.clone().into_bytes()))).collect(),
    };
    let (mut project, mut trigger, mut record_type) = (DEFAULT_PROJECT.to_owned(), String::new(), None);
    if let Some(name) = ours(KEPT_TRIGGER)
        && let Some(row) = shared.store.trigger(DEFAULT_PROJECT, &name).await.map_err(read_failed)?
        && let Ok(TriggerConfig::Kafka(config)) = serde_json::from_value(row.config)
    {
        (project, trigger, record_type) = (row.project, row.name, config.record_type);
    }
    let records = Records::Foreign { project, trigger, record_type: record_type.clone() };
    let stream = Stream { name: origin.to_owned(), topic, records, begin: Begin::Earliest };
    let topic_id = ours(KEPT_TOPIC_ID).unwrap_or_default();
    foreign(&stream, record_type.as_deref(), &record, &topic_id, |source| configured.contains(source)).map_err(
        |reason| ApiError::Invalid { code: "event_invalid", detail: format!("it is still no event: {reason}") },
    )
}

/// Topic, partition and offset of `kafka:TOPIC/PARTITION@OFFSET`.
fn place(origin: &str) -> Option<(String, u32, u64)> {
    let (topic, at) = origin.strip_prefix("kafka:")?.rsplit_once('/')?;
    let (partition, offset) = at.split_once('@')?;
    Some((topic.to_owned(), partition.parse().ok()?, offset.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(record_type: Option<&str>, payload: Option<&str>, expected: Result<&str, &str>) {
        let media = if payload.is_some_and(|p| p.contains("specversion")) {
            "application/cloudevents+json"
        } else {
            "application/json"
        };
        let records = Records::Foreign { project: "p".into(), trigger: "t".into(), record_type: None };
        let stream = Stream { name: "n".into(), topic: "orders".into(), records, begin: Begin::Latest };
        let record = Record {
            partition: 2,
            offset: 7,
            timestamp_ms: None,
            key: Some(b"k".to_vec()),
            payload: payload.map(|p| p.as_bytes().to_vec()),
            headers: vec![("content-type".to_owned(), Some(media.as_bytes().to_vec()))],
        };
        let configured = |source: &str| source == "/srv/churn.git";
        match (foreign(&stream, record_type, &record, "abc", configured), expected) {
            (Ok(event), Ok(id)) => assert_eq!(event.id, id),
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
            (got, _) => panic!("{got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn a_record_is_named_by_its_place_unless_it_names_itself() {
        check(Some("shop.order"), Some(r#"{"total": 3}"#), Ok("t/abc/2@7"));
        check(None, Some(r#"{"total": 3}"#), Err("failed to"));
        check(Some("shop.order"), None, Err("tombstone"));
        check(Some("shop.order"), Some("not JSON"), Err("no JSON"));
    }

    #[test]
    fn nobody_else_makes_events_of_our_types() {
        check(Some("dev.kickwheel.cron.tick"), Some("{}"), Err("made here only"));
        let claims = |source: &str, ty: &str| {
            serde_json::json!({"specversion": "1.0", "id": "1", "source": source, "type": ty, "data": {}}).to_string()
        };
        check(None, Some(&claims("/shop", "dev.kickwheel.cron.tick")), Err("made here only"));
        for ours in ["/cron/nightly", "kafka:orders", "/srv/churn.git"] {
            check(None, Some(&claims(ours, "shop.order")), Err("give it a source of your own"));
        }
        check(None, Some(&claims("/shop", "shop.order")), Ok("1"));
    }

    #[test]
    fn the_origin_of_what_is_kept_says_its_place() {
        assert_eq!(place("kafka:a/b/3@12"), Some(("a/b".to_owned(), 3, 12)));
        assert_eq!((place("kafka:orders"), place("spool:hook"), place("kafka:a/x@1")), (None, None, None));
    }

    #[test]
    fn one_place_in_two_topics_of_one_name_is_two_events() {
        let record = Record {
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            key: None,
            payload: Some(b"{}".to_vec()),
            headers: Vec::new(),
        };
        let id = |trigger: &str, topic_id: &str| {
            let records = Records::Foreign { project: "p".into(), trigger: trigger.into(), record_type: None };
            let stream = Stream { name: "n".into(), topic: "orders".into(), records, begin: Begin::Latest };
            foreign(&stream, Some("shop.order"), &record, topic_id, |_| false).expect("an event").id
        };
        assert_ne!(id("a", "one"), id("a", "two"));
        assert_ne!(id("a", "one"), id("b", "one"));
        assert_eq!(id("a", "one"), id("a", "one"));
    }
}
