//! The connection: made once per process, shared by all.
//!
//! It holds one producer and one client for questions. What a record means and who may read a partition is not known
//! here. Topics are created and judged in `topics`, records written in `producer` and read in `reader`.

use std::{fmt, sync::Arc};

use rdkafka::{
    admin::AdminClient,
    config::FromClientConfigAndContext as _,
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{
    ConnectError, KafkaConfig, Position, ProduceError, ReadError, Reader,
    client::{Logging, is_unreachable},
    detached::Detached,
    native,
    producer::Producer,
};

/// A cluster. Cheap to clone.
#[derive(Clone)]
pub struct Kafka(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub config: KafkaConfig,
    pub admin: Detached<AdminClient<Logging>>,
    producer: Producer,
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kafka").field(&self.0.config).finish()
    }
}

/// What makes a topic this topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// The topic's UUID in URL-safe base64, as Kafka's tools print it. A topic that is made again has another one.
    pub id: String,
    /// Number of partitions.
    pub partitions: u32,
}

/// The range of a partition that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// Offset of the first record that is still there.
    pub first: u64,
    /// One more than the last offset.
    pub end: u64,
}

/// Why a topic could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// No broker answered in time: ask again later.
    #[error("ask Kafka about topic {topic:?}: no broker answered ({detail}); it is asked again")]
    Unavailable {
        /// Name of the topic.
        topic: String,
        /// What the client saw.
        detail: String,
    },
    /// There is no such topic, or not that partition of it.
    #[error("find topic {topic:?} in Kafka: it does not exist; create it, or correct its name")]
    NotFound {
        /// Name of the topic.
        topic: String,
    },
    /// The broker will not tell.
    #[error("ask Kafka about topic {topic:?}: {detail}")]
    Refused {
        /// Name of the topic.
        topic: String,
        /// What the broker says.
        detail: String,
    },
}

impl TopicError {
    pub(crate) fn new(topic: &str, code: RDKafkaErrorCode) -> Self {
        let topic = topic.to_owned();
        match code {
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition => Self::NotFound { topic },
            code if is_unreachable(code) => Self::Unavailable { topic, detail: code.to_string() },
            code => Self::Refused { topic, detail: code.to_string() },
        }
    }
}

impl Kafka {
    /// Checks the settings and starts the clients. A broker that is away is not an error: they connect when it comes.
    pub fn connect(config: KafkaConfig) -> Result<Self, ConnectError> {
        config.check()?;
        let admin = AdminClient::from_config_and_context(&config.admin(), Logging)?;
        let producer = Producer::start(&config)?;
        Ok(Self(Arc::new(Inner { config, admin: Detached::new(admin), producer })))
    }

    /// The settings.
    pub fn config(&self) -> &KafkaConfig {
        &self.0.config
    }

    /// The topic's identity and size, as some broker knows them now.
    pub async fn topic_info(&self, topic: &str) -> Result<TopicInfo, TopicError> {
        let described = self.describe(topic).await?;
        Ok(TopicInfo { id: described.id, partitions: described.partitions.len() as u32 })
    }

    pub(crate) async fn describe(&self, topic: &str) -> Result<native::Described, TopicError> {
        let timeout = self.0.config.request_timeout;
        let name = topic.to_owned();
        self.ask(move |kafka| native::describe_topic(kafka.0.admin.inner(), &name, timeout))
            .await
            .and_then(|answer| answer)
            .map_err(|code| TopicError::new(topic, code))
    }

    /// The first offset and the end of a partition; with a reader's position they give its lag.
    pub async fn watermarks(&self, topic: &str, partition: u32) -> Result<Watermarks, TopicError> {
        let timeout = self.0.config.request_timeout;
        let name = topic.to_owned();
        let number = i32::try_from(partition).map_err(|_| TopicError::NotFound { topic: topic.to_owned() })?;
        let answer = self
            .ask(move |kafka| kafka.0.admin.inner().fetch_watermarks(&name, number, timeout))
            .await
            .map_err(|code| TopicError::new(topic, code))?;
        match answer {
            // Neither is negative in an answer without an error.
            Ok((first, end)) => Ok(Watermarks { first: first.max(0) as u64, end: end.max(0) as u64 }),
            Err(error) => Err(TopicError::new(topic, code_of(&error))),
        }
    }

    /// Writes one record and waits until all in-sync replicas have it, for the delivery time-out at the longest.
    ///
    /// The key chooses the partition by the hash that Java's producer uses, so that other writers agree; without a key
    /// it is a random one. When the returned future is dropped, the record may still be written.
    pub async fn produce(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) -> Result<Position, ProduceError> {
        self.0.producer.produce(topic, key, payload, headers).await
    }

    /// A reader of one partition that begins at the offset `from`, for a topic that is `expected`.
    ///
    /// It does not need the broker yet. Each reader is a client of its own, with a connection to each broker that it
    /// needs and a few MiB at most, so that one partition's trouble is never another's.
    pub async fn reader(
        &self,
        topic: &str,
        expected: TopicInfo,
        partition: u32,
        from: u64,
    ) -> Result<Reader, ReadError> {
        Reader::open(self.clone(), topic.to_owned(), expected, partition, from).await
    }

    /// Runs a blocking question on a thread that may block.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, RDKafkaErrorCode> {
        let kafka = self.clone();
        // The only way not to be answered is the end of the runtime, which ends the asker too.
        tokio::task::spawn_blocking(move || question(&kafka)).await.map_err(|_| RDKafkaErrorCode::BrokerDestroy)
    }
}

/// The code inside of an error; `Fail` where the library gives none.
pub(crate) fn code_of(error: &KafkaError) -> RDKafkaErrorCode {
    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)
}
