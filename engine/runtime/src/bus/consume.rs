//! Reading partitions: each from its stored offset, under a lease, into the events table.
//!
//! What a batch of records becomes and the move of the offset past it are one transaction, so a record is accepted once,
//! whatever is killed when. A lost race discards the batch and seeks to the stored offset. What can never become an event
//! goes to quarantine with the same transaction; a partition whose log is no longer the one that the offset belongs to is
//! stopped, loudly, and everything else goes on.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use kickwheel_bus::{Kafka, ReadError, Reader, Record, TopicInfo, codec};
use kickwheel_schemas::Millis;
use kickwheel_store::{
    EventKey, PartitionLease, Write, WriteError, fault,
    write::{AddPartitions, MoveOffset, PutQuarantine, StopPartition},
};
use serde_json::{Map, Value};
use tokio::task::AbortHandle;
use tracing::{debug, error, info, warn};

use super::{
    Bus, cause, count, delivered,
    streams::{KEPT_KEY, KEPT_TOPIC_ID, KEPT_TRIGGER, foreign, foreign_streams},
};
use crate::{
    ingest::accept_write,
    shared::{Shared, entropy},
};

/// Records of one transaction at most.
const BATCH: usize = 500;
/// A partition without records is asked again after this long.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// After the broker or the database was away.
const PAUSE: Duration = Duration::from_millis(500);
/// After the broker has refused: the client is made anew, which is not to be done all the time.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// Bytes of a record's value that quarantine keeps. It is far above what the topic should take.
const MAX_KEPT_BYTES: usize = 64 << 20;
/// Bytes of a record's key that quarantine keeps; a longer one orders nothing any more.
const MAX_KEPT_KEY_BYTES: usize = 4 << 10;

/// One topic that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    /// Under which name leases and offsets are kept.
    pub name: String,
    /// The topic's own name.
    pub topic: String,
    /// What its records are.
    pub records: Records,
    /// Where a partition that was never read begins.
    pub begin: Begin,
}

/// What a stream's records are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Records {
    /// Ours: each says its project and channel.
    Own,
    /// Others': they belong to this project and came by this trigger.
    Foreign {
        /// The project.
        project: String,
        /// The trigger.
        trigger: String,
        /// The type of the event that a record becomes which is no CloudEvent.
        record_type: Option<String>,
    },
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// At the first record that is there.
    Earliest,
    /// After the last one.
    Latest,
}

/// A stream with the clients that read it.
#[derive(Clone)]
struct Source {
    stream: Stream,
    kafka: Kafka,
}

impl Source {
    /// Whether both read the same in the same way, so that a reader of one may go on for the other.
    fn is_like(&self, other: &Self) -> bool {
        self.stream == other.stream && self.kafka.config() == other.kafka.config()
    }
}

/// A partition that is being read.
struct ActiveReader {
    epoch: i64,
    source: Source,
    task: AbortHandle,
}

impl Drop for ActiveReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes and keeps the leases of partitions, and reads those that are ours, until the engine stops.
pub async fn keep_partitions(shared: Arc<Shared>, owner: String) {
    let mut readers: HashMap<(String, i32), ActiveReader> = HashMap::new();
    let mut clients: HashMap<String, Kafka> = HashMap::new();
    let lease = shared.config.lease;
    if let Bus::Kafka(bus) = &shared.bus
        && let Err(e) = bus.kafka.ensure_topics().await
    {
        bus.note("kafka topics", Some(e.to_string()));
    }
    // The lock on the data folder proves that whoever held leases under this name is dead.
    if let Err(e) = shared.store.release_partitions(&owner).await {
        debug!("old leases of partitions are not given back yet: {e}");
    }
    loop {
        let sources = sources(&shared, &mut clients).await;
        let mut unread = Vec::new();
        match shared.store.renew_partitions(&owner, lease).await {
            Ok(held) => {
                readers.retain(|(name, partition), reader| {
                    held.iter().any(|l| l.topic == *name && l.partition == *partition && l.epoch == reader.epoch)
                        && sources.iter().any(|source| source.is_like(&reader.source))
                        && !reader.task.is_finished()
                });
                // Ours, and nobody reads them: their trigger was paused or changed, or their reader has given up.
                unread.extend(held.into_iter().filter(|l| !readers.contains_key(&(l.topic.clone(), l.partition))));
            }
            Err(e) => debug!("leases of partitions are not renewed: {e}"),
        }
        for source in &sources {
            let name = &source.stream.name;
            if let Err(reason) = know(&shared, source).await {
                note(&shared, &source.stream, Some(reason));
                continue;
            }
            let taken = shared.store.acquire_partitions(name, &owner, u32::MAX, lease, false).await;
            let ours = unread.extract_if(.., |lease| lease.topic == *name);
            for lease in ours.chain(taken.unwrap_or_default()) {
                let (key, epoch) = ((lease.topic.clone(), lease.partition), lease.epoch);
                let task = tokio::spawn(read(Arc::clone(&shared), source.clone(), lease)).abort_handle();
                readers.insert(key, ActiveReader { epoch, source: source.clone(), task });
            }
        }
        tokio::select! {
            () = tokio::time::sleep((lease / 3).min(Duration::from_secs(2))) => {}
            () = shared.streams_changed.notified() => {}
            () = shared.stop.cancelled() => break,
        }
    }
    drop(readers);
    if let Err(e) = shared.store.release_partitions(&owner).await {
        debug!("leases of partitions are not given back: {e}");
    }
}

/// What is to be read: our own topic, and those of triggers.
async fn sources(shared: &Arc<Shared>, clients: &mut HashMap<String, Kafka>) -> Vec<Source> {
    let mut found = Vec::new();
    if let Bus::Kafka(bus) = &shared.bus {
        let topic = bus.kafka.config().topics.events.clone();
        let stream = Stream { name: topic.clone(), topic, records: Records::Own, begin: Begin::Earliest };
        found.push(Source { stream, kafka: bus.kafka.clone() });
    }
    let foreign = foreign_streams(shared).await;
    clients.retain(|name, _| foreign.iter().any(|(stream, _)| stream.name == *name));
    for (stream, config) in foreign {
        let kafka = match (config, &shared.bus) {
            (None, Bus::Kafka(bus)) => bus.kafka.clone(),
            (None, Bus::Embedded) => {
                let reason = "it names no brokers, and the bus is no Kafka; add it again with --brokers";
                shared.note_stream(&stream.name, Some(reason.to_owned()));
                continue;
            }
            (Some(config), _) => match clients.get(&stream.name).filter(|known| *known.config() == config) {
                Some(known) => known.clone(),
                None => match Kafka::connect(config) {
                    Ok(kafka) => {
                        clients.insert(stream.name.clone(), kafka.clone());
                        kafka
                    }
                    Err(e) => {
                        shared.note_stream(&stream.name, Some(format!("failed to {e}")));
                        continue;
                    }
                },
            },
        };
        found.push(Source { stream, kafka });
    }
    found
}

/// What is read under a name.
pub struct Reading {
    /// The topic's own name.
    pub topic: String,
    /// The clients.
    pub kafka: Kafka,
}

/// The topic and the clients of a stream.
pub async fn reading(shared: &Arc<Shared>, name: &str) -> Option<Reading> {
    let mut clients = HashMap::new();
    let found = sources(shared, &mut clients).await.into_iter().find(|s| s.stream.name == name)?;
    Some(Reading { topic: found.stream.topic, kafka: found.kafka })
}

/// Gets to know the partitions of a topic that was never read.
async fn know(shared: &Arc<Shared>, source: &Source) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let stream = &source.stream;
    if !shared.store.partitions(Some(&stream.name)).await.map_err(|e| text(&e))?.is_empty() {
        return Ok(());
    }
    if let (Records::Own, Bus::Kafka(bus)) = (&stream.records, &shared.bus) {
        bus.kafka.ensure_topics().await.map_err(|e| text(&e))?;
        bus.note("kafka topics", None);
    }
    let info = source.kafka.topic_info(&stream.topic).await.map_err(|e| text(&e))?;
    let mut partitions = Vec::new();
    for partition in 0..info.partitions {
        let marks = source.kafka.watermarks(&stream.topic, partition).await.map_err(|e| text(&e))?;
        let at = match stream.begin {
            Begin::Earliest => marks.first,
            Begin::Latest => marks.end,
        };
        partitions.push((partition as i32, at as i64));
    }
    let add = AddPartitions { topic: stream.name.clone(), topic_id: info.id, partitions };
    shared.store.write(vec![Write::AddPartitions(add)]).await.map_err(|e| text(&e))?;
    info!(topic = stream.topic, partitions = info.partitions, "reading begins");
    Ok(())
}

fn note(shared: &Arc<Shared>, stream: &Stream, reason: Option<String>) {
    match (&stream.records, &shared.bus) {
        (Records::Own, Bus::Kafka(bus)) => bus.note(&format!("topic {}", stream.topic), reason),
        // The embedded bus has no topic of its own.
        (Records::Own, Bus::Embedded) => {}
        (Records::Foreign { .. }, _) => shared.note_stream(&stream.name, reason),
    }
}

/// Reads one partition for as long as it is ours.
async fn read(shared: Arc<Shared>, source: Source, lease: PartitionLease) {
    let stream = &source.stream;
    let partitions = loop {
        match shared.store.partitions(Some(&stream.name)).await {
            Ok(rows) => break rows.len() as u32,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let expected = TopicInfo { id: lease.topic_id.clone(), partitions };
    let (number, from) = (lease.partition.max(0) as u32, lease.next_offset.max(0) as u64);
    let mut place = Place { shared: &shared, stream, lease, next: from };
    loop {
        match source.kafka.reader(&stream.topic, expected.clone(), number, place.next).await {
            Ok(reader) => match place.follow(reader).await {
                Followed::Over => return,
                Followed::Refused(reason) => {
                    // Credentials and rights are mended by people, and then nothing is lost: so it is tried again.
                    note(&shared, stream, Some(reason));
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            },
            Err(e) => {
                note(&shared, stream, Some(e.to_string()));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// A partition while it is read.
struct Place<'a> {
    shared: &'a Arc<Shared>,
    stream: &'a Stream,
    lease: PartitionLease,
    /// The stored offset, as far as we know.
    next: u64,
}

/// What became of a batch.
enum Taken {
    /// Written, and the offset is behind it.
    Done,
    /// Discarded: read again from there.
    SeekTo(u64),
    /// Somebody else reads the partition now, or nobody.
    NotOurs,
}

/// Why a reader is followed no longer.
enum Followed {
    /// The partition is stopped, or somebody else's.
    Over,
    /// The broker does not let us, for this reason.
    Refused(String),
}

impl Place<'_> {
    /// Takes what a reader gives, for as long as it gives something.
    async fn follow(&mut self, mut reader: Reader) -> Followed {
        loop {
            match reader.next(BATCH, MAX_WAIT).await {
                Ok(records) if records.is_empty() => note(self.shared, self.stream, None),
                Ok(records) => match self.take(&records).await {
                    Taken::Done => {
                        note(self.shared, self.stream, None);
                        reader.commit_for_tools(self.next);
                    }
                    Taken::SeekTo(offset) => {
                        if let Err(e) = reader.seek(offset).await {
                            note(self.shared, self.stream, Some(e.to_string()));
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                    Taken::NotOurs => return Followed::Over,
                },
                Err(e @ ReadError::Unavailable { .. }) => {
                    note(self.shared, self.stream, Some(e.to_string()));
                    tokio::time::sleep(PAUSE).await;
                }
                Err(e @ ReadError::Refused { .. }) => return Followed::Refused(e.to_string()),
                Err(
                    e @ (ReadError::LostRange { .. }
                    | ReadError::Recreated { .. }
                    | ReadError::Repartitioned { .. }
                    | ReadError::NotFound { .. }),
                ) => {
                    if self.stop(&e.to_string()).await {
                        return Followed::Over;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn take(&mut self, records: &[Record]) -> Taken {
        let Some(last) = records.last() else { return Taken::Done };
        let to = last.offset + 1;
        fault::point("bus.offset.before");
        let configured = match self.shared.configured.sources(&self.shared.store).await {
            Ok(configured) => configured,
            Err(e) => return self.look_again(&WriteError::Unavailable { reason: e.to_string() }).await,
        };
        match self.shared.store.write(self.unit(records, to, &configured)).await {
            Ok(written) => {
                fault::point("bus.offset.after");
                self.next = to;
                count(self.shared, &written);
                self.shared.decider.notify_one();
                if let Bus::Kafka(bus) = &self.shared.bus {
                    bus.drain.notify_one();
                }
                Taken::Done
            }
            // One record may be what the database refuses: find it, and let the others pass.
            Err(WriteError::Invalid { message: _ } | WriteError::Conflict { what: _ }) if records.len() > 1 => {
                self.one_by_one(records).await
            }
            Err(e @ (WriteError::Invalid { .. } | WriteError::Conflict { .. })) => {
                self.set_aside(last, &e.to_string()).await
            }
            Err(
                e @ (WriteError::Stale { .. }
                | WriteError::Fenced { .. }
                | WriteError::Unavailable { .. }
                | WriteError::Unknown { .. }),
            ) => self.look_again(&e).await,
        }
    }

    /// What the records become, and the move of the offset past them.
    fn unit(&self, records: &[Record], to: u64, configured: &BTreeSet<String>) -> Vec<Write> {
        let mut unit: Vec<Write> = records.iter().map(|record| self.accept(record, configured)).collect();
        unit.push(self.move_to(to));
        unit
    }

    fn move_to(&self, to: u64) -> Write {
        Write::MoveOffset(MoveOffset {
            topic: self.lease.topic.clone(),
            partition: self.lease.partition,
            epoch: self.lease.epoch,
            from: self.next as i64,
            to: to as i64,
        })
    }

    fn accept(&self, record: &Record, configured: &BTreeSet<String>) -> Write {
        let at = Millis::now();
        match &self.stream.records {
            Records::Own => match codec::decode(record).map(delivered) {
                Ok(Some((project, channel, event))) => {
                    accept_write(EventKey::new(at, entropy()), &project, &channel, event, at)
                }
                Ok(None) => self.quarantine(
                    record,
                    "it does not say its project and channel: only engines write this topic; others are read by a \
                     trigger (`kickwheel triggers add NAME --kind kafka`)",
                ),
                Err(e) => self.quarantine(record, &format!("failed to {e}")),
            },
            Records::Foreign { project, trigger, record_type } => {
                let is_configured = |source: &str| configured.contains(source);
                match foreign(self.stream, record_type.as_deref(), record, &self.lease.topic_id, is_configured) {
                    Ok(event) => cause(self.shared, project, &format!("kafka:{trigger}"), event, at),
                    Err(reason) => self.quarantine(record, &reason),
                }
            }
        }
    }

    fn quarantine(&self, record: &Record, reason: &str) -> Write {
        let (topic, partition, offset) = (&self.stream.topic, record.partition, record.offset);
        warn!(topic, partition, offset, "quarantined: {reason}");
        let mut headers = Map::new();
        for (name, value) in &record.headers {
            let value = value.as_ref().map(|v| Value::from(String::from_utf8_lossy(v).into_owned()));
            headers.insert(name.clone(), value.unwrap_or(Value::Null));
        }
        if let Records::Foreign { project: _, trigger, record_type: _ } = &self.stream.records {
            // After those of the record, so that nobody can say them for us.
            headers.insert(KEPT_TRIGGER.to_owned(), Value::from(trigger.clone()));
            headers.insert(KEPT_TOPIC_ID.to_owned(), Value::from(self.lease.topic_id.clone()));
            if let Some(key) = record.key.as_deref().filter(|key| key.len() <= MAX_KEPT_KEY_BYTES) {
                headers.insert(KEPT_KEY.to_owned(), Value::from(String::from_utf8_lossy(key).into_owned()));
            }
        }
        let mut body = record.payload.clone().unwrap_or_default();
        body.truncate(MAX_KEPT_BYTES);
        let at = Millis::now();
        let project = match &self.stream.records {
            Records::Own => String::new(),
            Records::Foreign { project, trigger: _, record_type: _ } => project.clone(),
        };
        Write::PutQuarantine(PutQuarantine {
            id: EventKey::new(at, entropy()),
            project,
            origin: format!("kafka:{topic}/{partition}@{offset}"),
            reason: reason.to_owned(),
            headers: Value::Object(headers),
            body,
            received_at: at,
        })
    }

    async fn one_by_one(&mut self, records: &[Record]) -> Taken {
        for record in records {
            match Box::pin(self.take(std::slice::from_ref(record))).await {
                Taken::Done => {}
                other => return other,
            }
        }
        Taken::Done
    }

    /// The database refuses what this one record says.
    async fn set_aside(&mut self, record: &Record, reason: &str) -> Taken {
        let to = record.offset + 1;
        match self.shared.store.write(vec![self.quarantine(record, reason), self.move_to(to)]).await {
            Ok(_) => {
                self.next = to;
                Taken::Done
            }
            Err(e) => self.look_again(&e).await,
        }
    }

    /// Something went wrong with the write: where does the partition stand, and whose is it?
    async fn look_again(&mut self, e: &WriteError) -> Taken {
        debug!(topic = self.stream.topic, partition = self.lease.partition, "a batch is discarded: {e}");
        loop {
            match self.shared.store.partitions(Some(&self.lease.topic)).await {
                Ok(rows) => {
                    let row = rows.into_iter().find(|r| r.partition == self.lease.partition);
                    return match row {
                        Some(row) if row.epoch == self.lease.epoch && row.stopped_reason.is_none() => {
                            self.next = row.next_offset.max(0) as u64;
                            if matches!(e, WriteError::Unavailable { .. } | WriteError::Unknown { .. }) {
                                tokio::time::sleep(PAUSE).await;
                            }
                            Taken::SeekTo(self.next)
                        }
                        Some(_) | None => Taken::NotOurs,
                    };
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Stops the partition for people to look at. False when that could not be written yet.
    async fn stop(&self, reason: &str) -> bool {
        let (topic, partition) = (self.lease.topic.clone(), self.lease.partition);
        error!(
            topic,
            partition,
            "stopped: failed to {reason}; `kickwheel bus reset {topic} --partition {partition} --to earliest` goes on"
        );
        let stop = StopPartition { topic, partition, epoch: self.lease.epoch, reason: format!("failed to {reason}") };
        match self.shared.store.write(vec![Write::StopPartition(stop)]).await {
            Ok(_) | Err(WriteError::Stale { .. }) => true,
            Err(_) => false,
        }
    }
}
