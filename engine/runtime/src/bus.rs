//! The bus: the ordered log between whatever produces events and the decider. A closed set.
//!
//! *Embedded* is the store's own events table: an event is accepted at once. With *Kafka*, what comes from outside is
//! produced to the events topic (`ingress`), what we cause ourselves is put into the spool by the transaction that causes
//! it, the spool is emptied into the topic in order (`drain`), and every partition is read from the offset that is stored
//! with what was read (`consume`). So each event is accepted by the same transaction that moves the offset past it.
//!
//! Deliberately absent: consumer groups, Kafka's transactions, and any trust in what Kafka remembers of our reading.

mod consume;
mod drain;
mod ingress;
mod streams;

use std::{
    collections::BTreeMap,
    str::FromStr,
    sync::{Arc, Mutex},
    time::Instant,
};

pub use consume::{Reading, keep_partitions, reading};
pub use drain::drain_spool;
pub use ingress::receive;
use kickwheel_bus::{Kafka, KafkaConfig, Topics};
use kickwheel_schemas::{CloudEvent, Millis};
use kickwheel_store::{
    EventKey, Write, Written,
    write::{BusMode, Spool},
};
use serde_json::Value;
pub use streams::{kept_record, stream_of};
use tokio::sync::Notify;

use crate::{
    ingest,
    shared::{Counters, Shared, entropy},
    twin::KNOWN_TRANSITION,
};

/// Extension attribute of a record on the events topic: which project the event belongs to.
const PROJECT: &str = "kickwheelproject";
/// Extension attribute of a record on the events topic: how the event came.
const CHANNEL: &str = "kickwheelchannel";

/// Extension attribute of an event that a run caused: the workflows that led to it, the first first, parted by commas.
pub const CHAIN: &str = "kickwheelchain";
/// The attribute of an edited event that names the id of what it was made of.
pub const CAUSE: &str = "kickwheelcause";
/// Attributes that nobody but us may set.
pub const RESERVED: [&str; 5] = [PROJECT, CHANNEL, CHAIN, KNOWN_TRANSITION, CAUSE];

/// Which bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BusConfig {
    /// The store's events table.
    #[default]
    Embedded,
    /// Apache Kafka.
    Kafka(Box<KafkaConfig>),
}

/// A text that names no bus.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "read the bus {text:?}: {reason}; write `embedded` or `kafka://HOST:PORT[,HOST:PORT…][/PREFIX][?property=value&…]`"
)]
pub struct BusConfigError {
    text: String,
    reason: String,
}

impl FromStr for BusConfig {
    type Err = BusConfigError;

    /// `embedded`, or `kafka://host:9092,other:9092/prefix?partitions=8&security.protocol=ssl`: the prefix of our topics
    /// (default `kickwheel`), the number of partitions of topics that are made, and properties for librdkafka.
    fn from_str(text: &str) -> Result<Self, BusConfigError> {
        let wrong = |reason: &str| BusConfigError { text: text.to_owned(), reason: reason.to_owned() };
        if text == "embedded" {
            return Ok(Self::Embedded);
        }
        let rest = text.strip_prefix("kafka://").ok_or_else(|| wrong("there is no such bus"))?;
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (brokers, prefix) = place.split_once('/').unwrap_or((place, ""));
        if brokers.is_empty() {
            return Err(wrong("it names no broker"));
        }
        let mut config = KafkaConfig::new(brokers);
        if !prefix.is_empty() {
            let plain = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if !plain {
                return Err(wrong("a prefix of topics has letters, digits, `.`, `_` and `-`"));
            }
            config.topics = Topics::with_prefix(prefix);
        }
        for option in options.split('&').filter(|o| !o.is_empty()) {
            let (name, value) = option.split_once('=').ok_or_else(|| wrong("an option is `name=value`"))?;
            if name == "partitions" {
                config.partitions = value.parse().map_err(|_| wrong("`partitions` is a number"))?;
            } else {
                config.properties.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(Self::Kafka(Box::new(config)))
    }
}

/// The bus of this engine.
pub enum Bus {
    /// The store's events table.
    Embedded,
    /// Apache Kafka.
    Kafka(KafkaBus),
}

/// What is kept for Kafka.
pub struct KafkaBus {
    /// The clients.
    pub kafka: Kafka,
    /// Which way ingress takes, and when that was read.
    mode: Mutex<Option<(BusMode, Instant)>>,
    /// Wakes whoever empties the spool.
    pub drain: Notify,
    /// Orders the rows of the spool.
    clock: Mutex<SpoolClock>,
    /// Why something about the bus does not work now, by subject; for `doctor`.
    pub trouble: Mutex<BTreeMap<String, String>>,
}

impl Bus {
    /// Starts the clients. A broker that is away is no error.
    pub fn open(config: &BusConfig) -> Result<Self, kickwheel_bus::ConnectError> {
        Ok(match config {
            BusConfig::Embedded => Self::Embedded,
            BusConfig::Kafka(config) => Self::Kafka(KafkaBus {
                kafka: Kafka::connect((**config).clone())?,
                mode: Mutex::default(),
                drain: Notify::new(),
                clock: Mutex::default(),
                trouble: Mutex::default(),
            }),
        })
    }

    /// Whether journals are relayed to a topic, so that sealing has to wait for it.
    pub fn relays(&self) -> bool {
        match self {
            Self::Embedded => false,
            Self::Kafka(_) => true,
        }
    }
}

impl KafkaBus {
    /// Notes, or forgets, what does not work now. Says it once per reason.
    pub fn note(&self, subject: &str, reason: Option<String>) {
        let mut trouble = self.trouble.lock().expect("no holder of this lock panics");
        match reason {
            None => _ = trouble.remove(subject),
            Some(reason) => {
                if trouble.get(subject) != Some(&reason) {
                    tracing::warn!("{subject}: {reason}");
                }
                trouble.insert(subject.to_owned(), reason);
            }
        }
    }

    /// Goes on behind what is in the spool already; to be called before anything is put there.
    pub fn spool_after(&self, last: Option<&str>) {
        self.clock.lock().expect("no holder of this lock panics").begin_after(last);
    }

    fn spool_key(&self, at: Millis) -> String {
        self.clock.lock().expect("no holder of this lock panics").key(at)
    }

    fn spool(&self, project: &str, channel: &str, event: CloudEvent, at: Millis, ingress: bool) -> Write {
        let (project, channel) = (project.to_owned(), channel.to_owned());
        Write::Spool(Spool { key: self.spool_key(at), project, channel, event, at, ingress })
    }
}

/// Gives rows of the spool their places: the order of the calls, also when the wall clock is set back.
#[derive(Debug, Default)]
struct SpoolClock {
    millis: i64,
    number: u64,
}

impl SpoolClock {
    fn begin_after(&mut self, last: Option<&str>) {
        // A key that cannot be read is of nobody that counts places like this.
        let millis = last.and_then(|key| key.split('-').next()).and_then(|millis| millis.parse::<i64>().ok());
        self.millis = self.millis.max(millis.map_or(0, |millis| millis + 1));
    }

    fn key(&mut self, at: Millis) -> String {
        self.millis = self.millis.max(at.0);
        self.number += 1;
        format!("{:013}-{:012x}-{}", self.millis, self.number, hex::encode(&entropy()[..4]))
    }
}

/// How an event that came from outside was made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Accepted into the events table.
    Stored {
        /// Its key: that of the first receipt, if this one is a duplicate.
        key: EventKey,
        /// It was seen before.
        duplicate: bool,
    },
    /// Acknowledged by Kafka; it is accepted when it is read from there.
    OnBus,
    /// Kept in the database until Kafka is back.
    Spooled,
}

/// The write with which a transaction that causes an event makes it durable. [`caused`] follows its commit.
pub fn cause(shared: &Shared, project: &str, channel: &str, event: CloudEvent, at: Millis) -> Write {
    match &shared.bus {
        Bus::Embedded => ingest::accept_write(EventKey::new(at, entropy()), project, channel, event, at),
        Bus::Kafka(bus) => bus.spool(project, channel, event, at, false),
    }
}

/// Wakes whoever takes an event on that was caused by a transaction. Gives its key and whether it was seen before, where
/// that is known already.
pub fn caused(shared: &Shared, written: &[Written]) -> Option<(EventKey, bool)> {
    match &shared.bus {
        Bus::Embedded => Some(ingest::accepted(shared, written)),
        Bus::Kafka(bus) => {
            bus.drain.notify_one();
            None
        }
    }
}

/// The event as a record of the events topic says it.
fn addressed(project: &str, channel: &str, mut event: CloudEvent) -> CloudEvent {
    event.extensions.insert(PROJECT.to_owned(), Value::from(project));
    event.extensions.insert(CHANNEL.to_owned(), Value::from(channel));
    event
}

/// The reverse: project, channel, and the event as it was.
fn delivered(mut event: CloudEvent) -> Option<(String, String, CloudEvent)> {
    let mut take = |name: &str| match event.extensions.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        Some(_) | None => None,
    };
    let (project, channel) = (take(PROJECT)?, take(CHANNEL)?);
    Some((project, channel, event))
}

/// Counts an event that was read from a topic.
fn count(shared: &Arc<Shared>, written: &[Written]) {
    for answer in written {
        if let Written::Accepted { duplicate, .. } = answer {
            let counters = &shared.counters;
            Counters::count(if *duplicate { &counters.events_duplicate } else { &counters.events_accepted });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, brokers: &str, prefix: &str, properties: &[(&str, &str)]) {
        let Ok(BusConfig::Kafka(config)) = text.parse::<BusConfig>() else { panic!("{text} names a Kafka") };
        assert_eq!((config.brokers.as_str(), config.topics.events.as_str()), (brokers, prefix));
        let given: Vec<(&str, &str)> = config.properties.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(given, properties);
    }

    #[test]
    fn a_bus_is_named_by_one_text() {
        assert_eq!("embedded".parse(), Ok(BusConfig::Embedded));
        check("kafka://a:1,b:2", "a:1,b:2", "kickwheel.events", &[]);
        check(
            "kafka://a:1/team?partitions=3&security.protocol=ssl",
            "a:1",
            "team.events",
            &[("security.protocol", "ssl")],
        );
        for wrong in ["", "kafka:", "kafka://", "nats://a:1", "kafka://a:1/sl/ash", "kafka://a:1?partitions=many"] {
            assert!(wrong.parse::<BusConfig>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_spool_keeps_the_order_of_the_calls_when_the_clock_is_set_back() {
        let mut clock = SpoolClock::default();
        let mut keys = vec![clock.key(Millis(5_000)), clock.key(Millis(1_000)), clock.key(Millis(1_001))];
        let mut after_a_restart = SpoolClock::default();
        after_a_restart.begin_after(keys.last().map(String::as_str));
        keys.extend([after_a_restart.key(Millis(2_000)), after_a_restart.key(Millis(9_000))]);
        assert!(keys.is_sorted(), "{keys:?}");
    }

    #[test]
    fn a_record_says_where_the_event_belongs_and_the_event_is_as_it_was() {
        let event = CloudEvent::new("s", "i", "t", Value::Null);
        assert_eq!(
            delivered(addressed("p", "hook", event.clone())),
            Some(("p".to_owned(), "hook".to_owned(), event.clone()))
        );
        assert_eq!(delivered(event), None);
    }
}
