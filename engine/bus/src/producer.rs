//! Writing records, each acknowledged by all in-sync replicas.
//!
//! One idempotent producer per process: its retries neither double nor reorder records. What it cannot promise is the
//! fate of a record whose acknowledgement never came; that is [`ProduceError::Unknown`], and only the reader's dedupe
//! heals it. Spooling what was not sent is the caller's.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientContext,
    config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, Message as _, OwnedHeaders},
    producer::{BaseRecord, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::sync::oneshot;

use crate::{ConnectError, KafkaConfig, MAX_RECORD_BYTES, client::Logging, detached::Detached, kafka::code_of, native};

/// librdkafka reports every record at its time-out, but looks only about once a second. Past this margin the report is
/// given up.
const REPORT_MARGIN: Duration = Duration::from_secs(5);
/// What Kafka's format adds to a record and to a header at the most.
const RECORD_OVERHEAD_BYTES: usize = 128;
const HEADER_OVERHEAD_BYTES: usize = 16;
/// Longest name of a topic, as Kafka has it.
const MAX_TOPIC_NAME_BYTES: usize = 249;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Number of the partition.
    pub partition: u32,
    /// Offset in it. None in one rare case: the broker recognised a retry of a record that it has, and no longer knows
    /// where.
    pub offset: Option<u64>,
}

/// Why a record has no acknowledgement.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// It is certainly not in the log: it may be sent again, or be kept elsewhere, at once.
    #[error("write to topic {topic:?}: nothing was sent ({detail}); try again later")]
    NotSent {
        /// Name of the topic.
        topic: String,
        /// What the client saw.
        detail: String,
    },
    /// It may be in the log or not: who sends it again must be ready for a double.
    #[error("write to topic {topic:?}: the acknowledgement is missing ({detail}); the record may be there or not")]
    Unknown {
        /// Name of the topic.
        topic: String,
        /// What the client saw.
        detail: String,
    },
    /// It is not in the log, and this record never will be.
    #[error("write to topic {topic:?}: {detail}")]
    Refused {
        /// Name of the topic.
        topic: String,
        /// What is wrong with the record.
        detail: String,
    },
}

/// How librdkafka ended a record.
type Report = Result<(i32, i64), Failure>;

#[derive(Debug)]
struct Failure {
    code: RDKafkaErrorCode,
    not_persisted: bool,
}

/// Hands each delivery report to whoever waits for it.
struct Reports;

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Logging.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Logging.error(error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = Box<oneshot::Sender<Report>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiter: Self::DeliveryOpaque) {
        let report = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, message)) => {
                Err(Failure { code: code_of(error), not_persisted: native::is_not_persisted(message) })
            }
        };
        // Nobody waits any more: then nobody wants to know.
        drop(waiter.send(report));
    }
}

type Client = ThreadedProducer<Reports>;

/// The producer, and what is needed to make it again.
pub(crate) struct Producer {
    config: ClientConfig,
    patience: Duration,
    client: Mutex<Detached<Client>>,
}

impl Producer {
    pub fn start(config: &KafkaConfig) -> Result<Self, ConnectError> {
        let patience = config.delivery_timeout + REPORT_MARGIN;
        let config = config.producer();
        let client = Client::from_config_and_context(&config, Reports)?;
        Ok(Self { config, patience, client: Mutex::new(Detached::new(client)) })
    }

    pub async fn produce(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) -> Result<Position, ProduceError> {
        let topic_name = || topic.to_owned();
        check_size(topic, key, payload, headers)?;
        let report = match self.enqueue(topic, key, payload, headers) {
            Ok(waiter) => tokio::time::timeout(self.patience, waiter).await,
            Err(code) => Ok(Ok(Err(Failure { code, not_persisted: true }))),
        };
        match report {
            Ok(Ok(Ok((partition, offset)))) => {
                Ok(Position { partition: partition.max(0) as u32, offset: u64::try_from(offset).ok() })
            }
            Ok(Ok(Err(failure))) => {
                self.replace_after_fatal_error();
                Err(judge(topic, &failure))
            }
            Ok(Err(_)) => Err(ProduceError::Unknown { topic: topic_name(), detail: "the producer was closed".into() }),
            Err(_) => Err(ProduceError::Unknown { topic: topic_name(), detail: "there was no report in time".into() }),
        }
    }

    fn enqueue(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) -> Result<oneshot::Receiver<Report>, RDKafkaErrorCode> {
        let (waiter, report) = oneshot::channel();
        let mut record = BaseRecord::with_opaque_to(topic, Box::new(waiter));
        record.key = key;
        record.payload = payload;
        if !headers.is_empty() {
            let all = OwnedHeaders::new_with_capacity(headers.len());
            let all = headers.iter().fold(all, |all, &(key, value)| all.insert(Header { key, value: Some(value) }));
            record.headers = Some(all);
        }
        // Enqueuing copies the record and never blocks, so the lock is held for a moment only.
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        client.send(record).map_err(|(error, _)| code_of(&error))?;
        Ok(report)
    }

    /// A producer that can no longer keep its promise refuses all that follows: a new one begins with a new identity.
    fn replace_after_fatal_error(&self) {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((code, detail)) = client.client().fatal_error() else { return };
        match Client::from_config_and_context(&self.config, Reports) {
            Ok(new) => {
                tracing::warn!(%code, detail, "replaced the Kafka producer after a fatal error");
                *client = Detached::new(new);
            }
            Err(error) => tracing::error!(%error, "could not replace the Kafka producer; it is tried again"),
        }
    }
}

/// Whether Kafka could ever have a topic of this name: up to 249 letters, digits, `.`, `_` and `-`. Asking the broker
/// instead gives one answer or another, by which of its threads was faster.
fn is_topic_name(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    (1..=MAX_TOPIC_NAME_BYTES).contains(&name.len()) && plain && name != "." && name != ".."
}

/// Refuses what cannot be written, before it is copied.
fn check_size(
    topic: &str,
    key: Option<&[u8]>,
    payload: Option<&[u8]>,
    headers: &[(&str, &[u8])],
) -> Result<(), ProduceError> {
    let refused = |detail: String| Err(ProduceError::Refused { topic: topic.to_owned(), detail });
    if !is_topic_name(topic) {
        return refused("that is not the name of a topic".into());
    }
    let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len() + HEADER_OVERHEAD_BYTES).sum();
    let size = key.map_or(0, <[u8]>::len) + payload.map_or(0, <[u8]>::len) + headers + RECORD_OVERHEAD_BYTES;
    if size > MAX_RECORD_BYTES {
        return refused(format!(
            "the record has {size} bytes and the limit is {MAX_RECORD_BYTES}; put large data elsewhere and refer to it"
        ));
    }
    Ok(())
}

/// What the failure of a record means. A missing topic or permission is no fault of the record: somebody will make it
/// right, and then it can be sent.
fn judge(topic: &str, failure: &Failure) -> ProduceError {
    let topic = topic.to_owned();
    let detail = failure.code.to_string();
    match failure.code {
        RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize => ProduceError::Refused {
            topic,
            detail: format!(
                "the broker does not take a record of this size; raise the topic's max.message.bytes to {MAX_RECORD_BYTES}"
            ),
        },
        RDKafkaErrorCode::InvalidRecord | RDKafkaErrorCode::InvalidTopic | RDKafkaErrorCode::InvalidTimestamp => {
            ProduceError::Refused { topic, detail }
        }
        _ if failure.not_persisted => ProduceError::NotSent { topic, detail },
        _ => ProduceError::Unknown { topic, detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: RDKafkaErrorCode, not_persisted: bool, expected: &str) {
        let error = judge("t", &Failure { code, not_persisted });
        assert!(format!("{error:?}").starts_with(expected), "{error:?} should be {expected}");
    }

    #[test]
    fn a_failure_says_whether_the_record_may_be_there() {
        check(RDKafkaErrorCode::MessageTimedOut, true, "NotSent");
        check(RDKafkaErrorCode::MessageTimedOut, false, "Unknown");
        check(RDKafkaErrorCode::QueueFull, true, "NotSent");
        check(RDKafkaErrorCode::UnknownTopicOrPartition, true, "NotSent");
        check(RDKafkaErrorCode::TopicAuthorizationFailed, true, "NotSent");
        check(RDKafkaErrorCode::NotEnoughReplicasAfterAppend, false, "Unknown");
        check(RDKafkaErrorCode::MessageSizeTooLarge, true, "Refused");
        check(RDKafkaErrorCode::InvalidRecord, true, "Refused");
    }
}
