//! The bus for people: what waits, what is read, and how a stopped partition goes on.

use kickwheel_bus::{Kafka, TopicInfo};
use kickwheel_schemas::api::{BusView, Check, PartitionView, ResetBus};
use kickwheel_store::{
    Write,
    rows::PartitionRow,
    write::{BusMode, RemovePartitions, ResetPartition},
};

use super::{Engine, health::check, read_failed, write_failed};
use crate::{
    ApiError,
    bus::{Bus, Reading},
};

impl Engine {
    /// How the bus is, with every partition that is read.
    pub async fn bus(&self) -> Result<BusView, ApiError> {
        let shared = &self.shared;
        let rows = shared.store.partitions(None).await.map_err(read_failed)?;
        let depth = shared.store.spool_depth().await.map_err(read_failed)?;
        let (kind, mode, trouble) = match &shared.bus {
            Bus::Embedded => ("embedded", BusMode::Direct, Vec::new()),
            Bus::Kafka(bus) => {
                let trouble = bus.trouble.lock().expect("no holder of this lock panics").clone();
                let mode = shared.store.bus_mode().await.map_err(read_failed)?.mode;
                ("kafka", mode, trouble.into_iter().map(|(subject, reason)| format!("{subject}: {reason}")).collect())
            }
        };
        Ok(BusView {
            kind: kind.to_owned(),
            mode: mode.as_str().to_owned(),
            spooled: depth.events,
            trouble,
            items: rows.into_iter().map(partition_view).collect(),
        })
    }

    /// Says where partitions are read on: those of a recreated topic, of a lost range, of another number of partitions.
    pub async fn reset_bus(&self, reset: ResetBus) -> Result<BusView, ApiError> {
        self.refuse_when_draining()?;
        let shared = &self.shared;
        let Some(Reading { topic, kafka }) = crate::bus::reading(shared, &reset.stream).await else {
            return Err(ApiError::NotFound {
                code: "stream_not_found",
                detail: format!("no stream {:?} is read; `kickwheel bus ls` lists them", reset.stream),
            });
        };
        let unavailable =
            |e: &dyn std::fmt::Display| ApiError::Unavailable { code: "kafka_away", detail: e.to_string() };
        let info = kafka.topic_info(&topic).await.map_err(|e| unavailable(&e))?;
        let rows = shared.store.partitions(Some(&reset.stream)).await.map_err(read_failed)?;
        let mut unit = Vec::new();
        let wanted: Vec<i32> = if rows.len() != info.partitions as usize {
            // Another number of partitions: all of them begin anew, since keys have moved between them.
            unit.push(Write::RemovePartitions(RemovePartitions { topic: reset.stream.clone() }));
            (0..info.partitions as i32).collect()
        } else {
            match reset.partition {
                Some(partition) => vec![partition],
                None => rows.iter().filter(|r| r.stopped_reason.is_some()).map(|r| r.partition).collect(),
            }
        };
        for partition in wanted {
            let next_offset = offset(&kafka, &topic, &info, partition, &reset.to).await?;
            unit.push(Write::ResetPartition(ResetPartition {
                topic: reset.stream.clone(),
                partition,
                topic_id: info.id.clone(),
                next_offset,
            }));
        }
        if !unit.is_empty() {
            shared.store.write(unit).await.map_err(write_failed)?;
            shared.streams_changed.notify_one();
        }
        self.bus().await
    }

    /// What `doctor` says about the bus.
    pub(super) async fn check_bus(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        let view = match self.bus().await {
            Ok(view) => view,
            Err(e) => return vec![check("bus", "failed", e.to_string(), None)],
        };
        let own_kafka = match &self.shared.bus {
            Bus::Embedded => {
                checks.push(check("bus", "ok", "embedded: the database itself".to_owned(), None));
                None
            }
            Bus::Kafka(bus) => {
                let message = format!("Kafka, {}; {} events wait in the database", view.mode, view.spooled);
                let state =
                    if view.trouble.is_empty() && view.mode == BusMode::Direct.as_str() { "ok" } else { "warning" };
                let mut helps = Vec::new();
                if view.mode == BusMode::Spool.as_str() {
                    helps.push("bring Kafka back; what comes in meanwhile is kept and sent in order".to_owned());
                }
                helps.extend(view.trouble.iter().cloned());
                let help = (state != "ok").then(|| helps.join("; "));
                checks.push(check("bus", state, message, help));
                Some(bus)
            }
        };
        // Topics of others are read whatever our own bus is.
        let troubles = self.shared.stream_troubles.lock().expect("no holder of this lock panics").clone();
        for (stream, reason) in troubles {
            let help = "it is tried again all the time; mend the broker, the topic or the trigger (`kickwheel triggers \
                        get NAME`), or pause the trigger";
            checks.push(check(&format!("stream {stream}"), "warning", reason, Some(help.to_owned())));
        }
        for stopped in view.items.iter().filter(|p| p.reason.is_some()) {
            let help = format!(
                "`kickwheel bus reset {} --partition {} --to earliest` reads what is there now, `--to latest` only what \
                 comes; events that were accepted before are not started twice",
                stopped.stream, stopped.partition
            );
            let reason = stopped.reason.clone().unwrap_or_default();
            checks.push(check(&format!("partition {}", stopped.id), "failed", reason, Some(help)));
        }
        let Some(bus) = own_kafka else { return checks };
        match bus.kafka.health().await {
            Ok(health) => checks.extend(
                health
                    .warnings
                    .iter()
                    .map(|w| check("kafka", "warning", w.to_string(), Some("see docs/operations.md".to_owned()))),
            ),
            Err(e) => checks.push(check("kafka", "failed", e.to_string(), Some("see the broker's log".to_owned()))),
        }
        checks
    }
}

fn partition_view(row: PartitionRow) -> PartitionView {
    let state = match (&row.stopped_reason, &row.owner) {
        (Some(_), _) => "stopped",
        (None, Some(_)) => "reading",
        (None, None) => "free",
    };
    PartitionView {
        id: format!("{}/{}", row.topic, row.partition),
        state: state.to_owned(),
        stream: row.topic,
        partition: row.partition,
        next_offset: row.next_offset,
        topic_id: row.topic_id,
        reason: row.stopped_reason,
    }
}

/// The offset that a word stands for.
async fn offset(kafka: &Kafka, topic: &str, info: &TopicInfo, partition: i32, to: &str) -> Result<i64, ApiError> {
    let invalid = |detail: String| ApiError::Invalid { code: "bad_offset", detail };
    let number = u32::try_from(partition).ok().filter(|p| *p < info.partitions).ok_or_else(|| {
        invalid(format!(
            "topic {topic} has {} partitions, counted from 0; {partition} is none of them",
            info.partitions
        ))
    })?;
    let marks = kafka
        .watermarks(topic, number)
        .await
        .map_err(|e| ApiError::Unavailable { code: "kafka_away", detail: e.to_string() })?;
    match to {
        "earliest" => Ok(marks.first as i64),
        "latest" => Ok(marks.end as i64),
        number => number
            .parse::<u64>()
            .ok()
            .filter(|at| (marks.first..=marks.end).contains(at))
            .map(|at| at as i64)
            .ok_or_else(|| {
                invalid(format!(
                    "{number:?} is no place in it: write earliest, latest, or an offset from {} to {}",
                    marks.first, marks.end
                ))
            }),
    }
}
