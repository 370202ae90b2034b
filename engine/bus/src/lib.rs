//! Kafka, as the ordered log that carries events.
//!
//! ```text
//!   Kafka::connect(KafkaConfig)    lazily: a broker that is away is no error here, a bad property is
//!   Kafka::ensure_topics, health   what must be there, and what `doctor` warns of
//!   Kafka::topic_info              a topic's id and its number of partitions
//!   Kafka::produce                 one record, acknowledged by all replicas; a failure says whether it may be in the log
//!   Kafka::reader -> Reader        one partition, read from an offset that somebody else keeps
//!   codec::decode, encode          records to CloudEvents and back; pure
//! ```
//!
//! There are no consumer groups: who reads a partition, and from where, is decided by leases and offsets in the database.
//! So a reader starts where it is told, reports a lost range instead of jumping over it, and gives no record before the
//! topic was seen to be the one that its caller means.
//!
//! Deliberately absent: leases, stored offsets, the spool, dedupe and quarantine (the runtime and the store), and the
//! mapping of records that are no CloudEvents (triggers).
//!
//! Where to look next: [`Kafka`], [`Reader`], [`codec`], and [`KafkaConfig`] for every setting.

mod client;
mod config;
mod detached;
mod kafka;
mod native;
mod producer;
mod reader;
mod record;
mod topics;

pub mod codec;

pub use config::{ConnectError, DEFAULT_PARTITIONS, KafkaConfig, MAX_RECORD_BYTES, Topics};
pub use kafka::{Kafka, TopicError, TopicInfo, Watermarks};
pub use producer::{Position, ProduceError};
pub use reader::{MAX_BATCH_BYTES, ReadError, Reader};
pub use record::Record;
pub use topics::{Health, TopicHealth, TopicsError, Warning};
