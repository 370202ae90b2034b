//! Settings, and the configuration of each kind of client that follows from them.
//!
//! Promises rest on some properties (acknowledgement by all replicas, no offsets of Kafka's own, committed records
//! only): those are set here and cannot be set by the user. All others are passed on to librdkafka as they are; see its
//! `CONFIGURATION.md`.

use std::{collections::BTreeMap, fmt, time::Duration};

use rdkafka::{config::ClientConfig, config::RDKafkaLogLevel, error::KafkaError};

/// Partitions of a topic that we create: an upper bound for the replicas that can share the reading.
pub const DEFAULT_PARTITIONS: u32 = 8;

/// The largest record that we write: an event of 1 MiB, and room for key, headers and framing.
pub const MAX_RECORD_BYTES: usize = crate::codec::MAX_EVENT_BYTES + 64 * 1024;

/// How long one record may take to be acknowledged.
const DEFAULT_DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a question to the brokers may take.
const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The smallest time-out that makes sense, and that librdkafka accepts for each of its own.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
/// Records of the producer that wait for the broker: beyond it a record is not accepted.
const PRODUCE_QUEUE_KIB: usize = 64 * 1024;
/// What one reader fetches ahead. The broker sends at least one record however large it is, so this bounds the rest.
const READ_AHEAD_KIB: usize = 4 * 1024;
/// What a reader asks the broker for at once.
const FETCH_BYTES: usize = 1024 * 1024;
/// The largest answer that the protocol can carry. A smaller limit would make a record above it impossible to step over.
const MAX_RESPONSE_BYTES: u32 = i32::MAX as u32;

/// Properties on which promises rest, with their aliases: they are ours to set.
const RESERVED: [&str; 29] = [
    "acks",
    "allow.auto.create.topics",
    "auto.commit.enable",
    "auto.offset.reset",
    "bootstrap.servers",
    "check.crcs",
    "client.id",
    "delivery.report.only.error",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "fetch.max.bytes",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.max.bytes",
    "message.timeout.ms",
    "metadata.broker.list",
    "partitioner",
    "receive.message.max.bytes",
    "request.required.acks",
    "request.timeout.ms",
    "transactional.id",
];

/// Names of the topics that are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Events on their way in; only engines write it.
    pub events: String,
    /// Lifecycle events on their way out.
    pub runs: String,
    /// What could not be accepted.
    pub quarantine: String,
}

impl Topics {
    /// `<prefix>.events`, `<prefix>.runs`, `<prefix>.quarantine`.
    pub fn with_prefix(prefix: &str) -> Self {
        Self {
            events: format!("{prefix}.events"),
            runs: format!("{prefix}.runs"),
            quarantine: format!("{prefix}.quarantine"),
        }
    }

    /// All of them.
    pub fn all(&self) -> [&str; 3] {
        [&self.events, &self.runs, &self.quarantine]
    }
}

impl Default for Topics {
    fn default() -> Self {
        Self::with_prefix("kickwheel")
    }
}

/// Which Kafka, and how it is talked to. `Debug` shows the names of properties and hides their values: a password is
/// one of them.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port`, several parted by commas.
    pub brokers: String,
    /// Names of our topics.
    pub topics: Topics,
    /// Partitions of a topic that is created; one that exists keeps its own.
    pub partitions: u32,
    /// Properties for librdkafka, for example `security.protocol`.
    pub properties: BTreeMap<String, String>,
    /// Names this process in the broker's logs and quotas.
    pub client_id: String,
    /// The group under which offsets are shown to Kafka's tools; nothing joins it and nothing is read back from it.
    pub group_id: String,
    /// After this long without an acknowledgement [`crate::Kafka::produce`] gives up.
    pub delivery_timeout: Duration,
    /// After this long without an answer any other question gives up.
    pub request_timeout: Duration,
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("topics", &self.topics)
            .field("partitions", &self.partitions)
            .field("properties", &self.properties.keys())
            .field("client_id", &self.client_id)
            .field("group_id", &self.group_id)
            .field("delivery_timeout", &self.delivery_timeout)
            .field("request_timeout", &self.request_timeout)
            .finish()
    }
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The list of brokers has no usable address.
    #[error("read the list of Kafka brokers {0:?}: write host:port, several parted by commas")]
    Brokers(String),
    /// A number or a time-out that cannot work.
    #[error("accept the Kafka setting {name}: {detail}")]
    Setting {
        /// Name of the field.
        name: &'static str,
        /// What is wrong and what would be right.
        detail: String,
    },
    /// A property on which a promise rests.
    #[error("accept the Kafka property {0:?}: it is set by the engine and cannot be changed; remove it")]
    Reserved(String),
    /// librdkafka does not know a property, or refuses its value.
    #[error("accept the Kafka property {name:?}: {detail}")]
    Property {
        /// Name of the property.
        name: String,
        /// What librdkafka says about it.
        detail: String,
    },
    /// The library could not start a client.
    #[error("start a Kafka client: {0}")]
    Client(String),
}

impl From<KafkaError> for ConnectError {
    fn from(error: KafkaError) -> Self {
        match error {
            KafkaError::ClientConfig(_, detail, name, _) => Self::Property { name, detail },
            other => Self::Client(other.to_string()),
        }
    }
}

impl KafkaConfig {
    /// The defaults, for these brokers.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            topics: Topics::default(),
            partitions: DEFAULT_PARTITIONS,
            properties: BTreeMap::new(),
            client_id: "kickwheel".into(),
            group_id: "kickwheel".into(),
            delivery_timeout: DEFAULT_DELIVERY_TIMEOUT,
            request_timeout: DEFAULT_REQUEST_TIMEOUT,
        }
    }

    /// Everything that can be judged without a broker. The native checks of all kinds of clients are made too, so that a
    /// property that only a reader understands does not fail for the first time when the first partition is taken.
    pub(crate) fn check(&self) -> Result<(), ConnectError> {
        let has_port = |address: &str| {
            address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if !self.brokers.split(',').map(str::trim).all(has_port) {
            return Err(ConnectError::Brokers(self.brokers.clone()));
        }
        if self.partitions == 0 {
            return Err(ConnectError::Setting { name: "partitions", detail: "at least 1 is needed".into() });
        }
        for (name, timeout) in [("delivery_timeout", self.delivery_timeout), ("request_timeout", self.request_timeout)]
        {
            if timeout < MIN_TIMEOUT || timeout > Duration::from_mins(5) {
                let detail = format!("{timeout:?} is not between {MIN_TIMEOUT:?} and 5 minutes");
                return Err(ConnectError::Setting { name, detail });
            }
        }
        if let Some(name) = self.properties.keys().find(|name| RESERVED.contains(&name.as_str())) {
            return Err(ConnectError::Reserved(name.clone()));
        }
        for client in [self.admin(), self.producer(), self.consumer()] {
            client.create_native_config()?;
        }
        Ok(())
    }

    /// A property that is only a matter of speed: the user's own value is kept, under whichever of its `names`.
    fn prefer(&self, config: &mut ClientConfig, names: &[&str], value: impl Into<String>) {
        if !names.iter().any(|&name| self.properties.contains_key(name)) {
            config.set(names[0], value);
        }
    }

    /// What every client has.
    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        let patience_ms = self.request_timeout.max(self.delivery_timeout).as_millis().to_string();
        self.prefer(&mut config, &["reconnect.backoff.max.ms"], "1000");
        self.prefer(&mut config, &["log.connection.close"], "false");
        self.prefer(&mut config, &["socket.keepalive.enable"], "true");
        self.prefer(&mut config, &["socket.timeout.ms"], patience_ms);
        config.set_log_level(RDKafkaLogLevel::Info);
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            // A topic that was deleted must be missed, not made again with the broker's defaults.
            .set("allow.auto.create.topics", "false");
        config
    }

    /// Questions and administration.
    pub(crate) fn admin(&self) -> ClientConfig {
        self.base()
    }

    /// One idempotent producer per process.
    pub(crate) fn producer(&self) -> ClientConfig {
        let mut config = self.base();
        // Senders wait for the acknowledgement: one millisecond gathers those that come together.
        self.prefer(&mut config, &["linger.ms", "queue.buffering.max.ms"], "1");
        self.prefer(&mut config, &["queue.buffering.max.kbytes"], PRODUCE_QUEUE_KIB.to_string());
        let delivery_ms = self.delivery_timeout.as_millis().to_string();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("message.max.bytes", MAX_RECORD_BYTES.to_string())
            .set("message.timeout.ms", &delivery_ms)
            .set("request.timeout.ms", &delivery_ms);
        config
    }

    /// One reader of one partition.
    pub(crate) fn consumer(&self) -> ClientConfig {
        let mut config = self.base();
        self.prefer(&mut config, &["queued.max.messages.kbytes"], READ_AHEAD_KIB.to_string());
        // The default of a second would be felt whenever the small queue has been full.
        self.prefer(&mut config, &["fetch.queue.backoff.ms"], "10");
        self.prefer(&mut config, &["fetch.message.max.bytes", "max.partition.fetch.bytes"], FETCH_BYTES.to_string());
        config
            // Without a group's name librdkafka has no assignment. It is never joined: nothing subscribes.
            .set("group.id", &self.group_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            .set("enable.partition.eof", "false")
            .set("fetch.max.bytes", FETCH_BYTES.to_string())
            .set("receive.message.max.bytes", MAX_RESPONSE_BYTES.to_string());
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut KafkaConfig), expected: &str) {
        let mut config = KafkaConfig::new("127.0.0.1:9092");
        change(&mut config);
        let got = config.check().map_or_else(|error| error.to_string(), |()| "accepted".into());
        assert!(got.contains(expected), "{got:?} should contain {expected:?}");
    }

    fn property(name: &str, value: &str) -> impl FnOnce(&mut KafkaConfig) {
        move |config| {
            config.properties.insert(name.into(), value.into());
        }
    }

    #[test]
    fn what_cannot_work_is_said_with_its_name() {
        check(|_| (), "accepted");
        check(|c| c.brokers = "a:1, b:2".into(), "accepted");
        check(|c| c.brokers = "[::1]:9092".into(), "accepted");
        check(|c| c.brokers = String::new(), "host:port");
        check(|c| c.brokers = "kafka".into(), "host:port");
        check(|c| c.brokers = "kafka:9092,".into(), "host:port");
        check(|c| c.partitions = 0, "partitions");
        check(|c| c.delivery_timeout = Duration::ZERO, "delivery_timeout");
        check(property("no.such.property", "1"), "\"no.such.property\"");
        check(property("reconnect.backoff.ms", "often"), "\"reconnect.backoff.ms\"");
        check(property("enable.idempotence", "false"), "is set by the engine");
        check(property("acks", "1"), "is set by the engine");
        check(property("fetch.wait.max.ms", "100"), "accepted");
        check(property("max.partition.fetch.bytes", "2000000"), "accepted");
        check(property("security.protocol", "telnet"), "\"security.protocol\"");
        check(property("sasl.username", "kim"), "accepted");
    }

    #[test]
    fn a_password_is_not_printed() {
        let mut config = KafkaConfig::new("127.0.0.1:9092");
        config.properties.insert("sasl.password".into(), "hunter2".into());
        let printed = format!("{config:?}");
        assert!(printed.contains("sasl.password") && !printed.contains("hunter2"), "{printed}");
    }
}
