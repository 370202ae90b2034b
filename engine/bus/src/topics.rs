//! The topics that must be there, and what is wrong with those that are.
//!
//! A topic that exists is never changed: its owner may have had reasons. `doctor` prints the warnings.

use std::{fmt, time::Duration};

use rdkafka::{
    admin::{AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    error::RDKafkaErrorCode,
};
use tokio::time::Instant;

use crate::{Kafka, MAX_RECORD_BYTES, TopicError, client::is_unreachable, kafka::code_of};

/// Copies of each record, where there are brokers enough.
const REPLICATION: u32 = 3;
/// Copies that must be written before a record is acknowledged, where there are brokers enough.
const MIN_IN_SYNC: u32 = 2;
/// Pause between two looks at a topic that was just created.
const CREATION_POLL: Duration = Duration::from_millis(50);

/// Why topics could not be made or looked at.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// No broker answered in time: try again later.
    #[error("look at the topics in Kafka: no broker answered ({0}); it is tried again")]
    Unavailable(String),
    /// The cluster does not let us create it.
    #[error("create topic {topic:?}: {detail}; create it by hand, or allow it")]
    Refused {
        /// Name of the topic.
        topic: String,
        /// What the broker says.
        detail: String,
    },
}

/// The state of the cluster, as far as our topics go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Brokers that answer for the cluster.
    pub brokers: u32,
    /// Those of our topics that exist.
    pub topics: Vec<TopicHealth>,
    /// What somebody should see to.
    pub warnings: Vec<Warning>,
}

/// A topic's properties that bear on whether records can be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicHealth {
    /// Name of the topic.
    pub topic: String,
    /// Its id, as Kafka's tools print it.
    pub id: String,
    /// Number of partitions.
    pub partitions: u32,
    /// Copies of the partition that has the fewest.
    pub replication: u32,
    /// Up-to-date copies of the partition that has the fewest.
    pub in_sync: u32,
    /// `min.insync.replicas`; none where the broker does not tell.
    pub min_in_sync: Option<u32>,
    /// `max.message.bytes`; none where the broker does not tell.
    pub max_record_bytes: Option<u64>,
}

/// Something that makes the log less safe than it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// One of our topics does not exist.
    Missing {
        /// Name of the topic.
        topic: String,
    },
    /// There are too few brokers for three copies.
    FewBrokers {
        /// How many there are.
        brokers: u32,
    },
    /// Fewer copies than there could be.
    FewReplicas {
        /// Name of the topic.
        topic: String,
        /// Its replication.
        replication: u32,
    },
    /// A record is acknowledged with one copy only.
    LowMinInSync {
        /// Name of the topic.
        topic: String,
        /// Its `min.insync.replicas`.
        min_in_sync: u32,
    },
    /// A copy is behind, or its broker is away.
    UnderReplicated {
        /// Name of the topic.
        topic: String,
        /// Up-to-date copies of the worst partition.
        in_sync: u32,
        /// Copies that it should have.
        replication: u32,
    },
    /// Too few copies are up to date: nothing can be written.
    NotWritable {
        /// Name of the topic.
        topic: String,
        /// Up-to-date copies of the worst partition.
        in_sync: u32,
        /// Its `min.insync.replicas`.
        min_in_sync: u32,
    },
    /// Records that we write may be larger than the topic takes.
    SmallRecords {
        /// Name of the topic.
        topic: String,
        /// Its `max.message.bytes`.
        max_record_bytes: u64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { topic } => {
                write!(f, "topic {topic:?} does not exist; it is created when the engine starts")
            }
            Self::FewBrokers { brokers } => {
                write!(f, "there are {brokers} brokers; with fewer than {REPLICATION} the loss of a disk loses events")
            }
            Self::FewReplicas { topic, replication } => {
                write!(f, "topic {topic:?} keeps {replication} copies; raise its replication to {REPLICATION}")
            }
            Self::LowMinInSync { topic, min_in_sync } => write!(
                f,
                "topic {topic:?} acknowledges records with {min_in_sync} copies; set its min.insync.replicas to {MIN_IN_SYNC}"
            ),
            Self::UnderReplicated { topic, in_sync, replication } => {
                write!(f, "topic {topic:?} has {in_sync} of {replication} copies up to date; look at its brokers")
            }
            Self::NotWritable { topic, in_sync, min_in_sync } => write!(
                f,
                "topic {topic:?} takes no records: {in_sync} copies are up to date and {min_in_sync} are needed; look at its brokers"
            ),
            Self::SmallRecords { topic, max_record_bytes } => write!(
                f,
                "topic {topic:?} takes records of {max_record_bytes} bytes at the most; set its max.message.bytes to {MAX_RECORD_BYTES}"
            ),
        }
    }
}

impl Kafka {
    /// Creates those of our topics that are missing and returns their names. With three brokers or more a record has
    /// three copies, of which two must be written; else one.
    pub async fn ensure_topics(&self) -> Result<Vec<String>, TopicsError> {
        let mut missing = Vec::new();
        for topic in self.config().topics.all() {
            match self.topic_info(topic).await {
                Ok(_) => {}
                Err(TopicError::NotFound { .. }) => missing.push(topic.to_owned()),
                Err(error) => return Err(topics_error(error)),
            }
        }
        if missing.is_empty() {
            return Ok(missing);
        }
        let (replication, min_in_sync) = copies(self.brokers().await?);
        let min_in_sync = min_in_sync.to_string();
        let max_bytes = MAX_RECORD_BYTES.to_string();
        let wanted: Vec<NewTopic<'_>> = missing
            .iter()
            .map(|topic| {
                let partitions = i32::try_from(self.config().partitions).unwrap_or(i32::MAX);
                NewTopic::new(topic, partitions, TopicReplication::Fixed(replication as i32))
                    .set("min.insync.replicas", &min_in_sync)
                    .set("max.message.bytes", &max_bytes)
                    .set("cleanup.policy", "delete")
            })
            .collect();
        let timeout = self.config().request_timeout;
        let options = AdminOptions::new().request_timeout(Some(timeout)).operation_timeout(Some(timeout));
        let created = self.0.admin.create_topics(&wanted, &options).await.map_err(|error| {
            let code = code_of(&error);
            if is_unreachable(code) {
                TopicsError::Unavailable(error.to_string())
            } else {
                TopicsError::Refused { topic: missing.join(", "), detail: error.to_string() }
            }
        })?;
        for result in created {
            match result {
                // Another replica was quicker.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) if is_unreachable(code) => return Err(TopicsError::Unavailable(code.to_string())),
                Err((topic, code)) => return Err(TopicsError::Refused { topic, detail: code.to_string() }),
            }
        }
        for topic in &missing {
            self.wait_until_known(topic).await?;
        }
        Ok(missing)
    }

    /// How safe our topics are.
    pub async fn health(&self) -> Result<Health, TopicsError> {
        let brokers = self.brokers().await?;
        let mut topics = Vec::new();
        let mut missing = Vec::new();
        for topic in self.config().topics.all() {
            let described = match self.describe(topic).await {
                Ok(described) => described,
                Err(TopicError::NotFound { .. }) => {
                    missing.push(topic.to_owned());
                    continue;
                }
                Err(error) => return Err(topics_error(error)),
            };
            let (min_in_sync, max_record_bytes) = self.limits(topic).await?;
            topics.push(TopicHealth {
                topic: topic.to_owned(),
                id: described.id,
                partitions: described.partitions.len() as u32,
                replication: described.partitions.iter().map(|p| p.replicas).min().unwrap_or(0),
                in_sync: described.partitions.iter().map(|p| p.in_sync).min().unwrap_or(0),
                min_in_sync,
                max_record_bytes,
            });
        }
        let warnings = warnings(brokers, &topics, missing);
        Ok(Health { brokers, topics, warnings })
    }

    async fn brokers(&self) -> Result<u32, TopicsError> {
        let timeout = self.config().request_timeout;
        // A topic must be named, or all of the cluster's would be sent; ours need not exist for the brokers to be told.
        let topic = self.config().topics.events.clone();
        let answer = self
            .ask(move |kafka| {
                let metadata = kafka.0.admin.inner().fetch_metadata(Some(&topic), timeout)?;
                Ok(metadata.brokers().len() as u32)
            })
            .await
            .map_err(|code| TopicsError::Unavailable(code.to_string()))?;
        answer.map_err(|error: rdkafka::error::KafkaError| TopicsError::Unavailable(error.to_string()))
    }

    /// `min.insync.replicas` and `max.message.bytes` of a topic.
    async fn limits(&self, topic: &str) -> Result<(Option<u32>, Option<u64>), TopicsError> {
        let options = AdminOptions::new().request_timeout(Some(self.config().request_timeout));
        let answers = self
            .0
            .admin
            .describe_configs(&[ResourceSpecifier::Topic(topic)], &options)
            .await
            .map_err(|error| TopicsError::Unavailable(error.to_string()))?;
        let Some(Ok(resource)) = answers.into_iter().next() else {
            // Reading a topic's configuration is a permission of its own, which we can do without.
            return Ok((None, None));
        };
        let value = |name: &str| resource.get(name).and_then(|entry| entry.value.clone());
        let min_in_sync = value("min.insync.replicas").and_then(|text| text.parse().ok());
        let max_bytes = value("max.message.bytes").and_then(|text| text.parse().ok());
        Ok((min_in_sync, max_bytes))
    }

    /// A topic is known to each broker a moment after the controller created it.
    async fn wait_until_known(&self, topic: &str) -> Result<(), TopicsError> {
        let deadline = Instant::now() + self.config().request_timeout;
        loop {
            match self.topic_info(topic).await {
                Ok(_) => return Ok(()),
                Err(TopicError::NotFound { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(CREATION_POLL).await;
                }
                Err(error) => return Err(topics_error(error)),
            }
        }
    }
}

/// Replication and `min.insync.replicas` of a topic that we create.
fn copies(brokers: u32) -> (u32, u32) {
    if brokers >= REPLICATION { (REPLICATION, MIN_IN_SYNC) } else { (1, 1) }
}

fn topics_error(error: TopicError) -> TopicsError {
    match error {
        TopicError::Unavailable { detail, .. } => TopicsError::Unavailable(detail),
        TopicError::NotFound { topic } => {
            TopicsError::Refused { topic, detail: "it was created, but no broker knows it".into() }
        }
        TopicError::Refused { topic, detail } => TopicsError::Refused { topic, detail },
    }
}

fn warnings(brokers: u32, topics: &[TopicHealth], missing: Vec<String>) -> Vec<Warning> {
    let mut warnings: Vec<Warning> = missing.into_iter().map(|topic| Warning::Missing { topic }).collect();
    if brokers < REPLICATION {
        warnings.push(Warning::FewBrokers { brokers });
    }
    let (replication, min_in_sync) = copies(brokers);
    for health in topics {
        let topic = || health.topic.clone();
        let needed = health.min_in_sync.unwrap_or(1);
        if health.replication < replication {
            warnings.push(Warning::FewReplicas { topic: topic(), replication: health.replication });
        }
        if needed < min_in_sync && health.min_in_sync.is_some() {
            warnings.push(Warning::LowMinInSync { topic: topic(), min_in_sync: needed });
        }
        if health.in_sync < needed {
            warnings.push(Warning::NotWritable { topic: topic(), in_sync: health.in_sync, min_in_sync: needed });
        } else if health.in_sync < health.replication {
            let (in_sync, replication) = (health.in_sync, health.replication);
            warnings.push(Warning::UnderReplicated { topic: topic(), in_sync, replication });
        }
        if let Some(max_record_bytes) = health.max_record_bytes.filter(|&bytes| bytes < MAX_RECORD_BYTES as u64) {
            warnings.push(Warning::SmallRecords { topic: topic(), max_record_bytes });
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(replication: u32, in_sync: u32, min_in_sync: Option<u32>) -> TopicHealth {
        TopicHealth {
            topic: "t".into(),
            id: "i".into(),
            partitions: 8,
            replication,
            in_sync,
            min_in_sync,
            max_record_bytes: Some(MAX_RECORD_BYTES as u64),
        }
    }

    fn check(brokers: u32, health: TopicHealth, expected: &[Warning]) {
        assert_eq!(warnings(brokers, &[health], Vec::new()), expected);
    }

    #[test]
    fn warnings_follow_from_what_the_cluster_could_do() {
        let t = || "t".to_owned();
        check(3, topic(3, 3, Some(2)), &[]);
        check(3, topic(3, 3, None), &[]);
        check(1, topic(1, 1, Some(1)), &[Warning::FewBrokers { brokers: 1 }]);
        check(
            3,
            topic(1, 1, Some(1)),
            &[
                Warning::FewReplicas { topic: t(), replication: 1 },
                Warning::LowMinInSync { topic: t(), min_in_sync: 1 },
            ],
        );
        check(3, topic(3, 2, Some(2)), &[Warning::UnderReplicated { topic: t(), in_sync: 2, replication: 3 }]);
        check(3, topic(3, 1, Some(2)), &[Warning::NotWritable { topic: t(), in_sync: 1, min_in_sync: 2 }]);
        let small = TopicHealth { max_record_bytes: Some(1000), ..topic(3, 3, Some(2)) };
        check(3, small, &[Warning::SmallRecords { topic: t(), max_record_bytes: 1000 }]);
    }

    #[test]
    fn three_brokers_keep_three_copies() {
        assert_eq!([1, 2, 3, 5].map(copies), [(1, 1), (1, 1), (3, 2), (3, 2)]);
    }
}
