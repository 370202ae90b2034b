//! Reading one partition, from where the caller says.
//!
//! Offsets are kept by the caller, in the transaction that accepts what was read; Kafka is only shown them. So the
//! reader has three duties: never to jump over records that are gone, never to give records of another topic of the same
//! name, and to go on by itself when a broker comes back.
//!
//! The second is why the topic is described *after* each fetch: an id is never given twice, so if the topic is still the
//! expected one then, the records before it were its own. Until a broker says so, they wait in `pending`.

use std::time::Duration;

use futures::FutureExt as _;
use rdkafka::{
    Offset, TopicPartitionList,
    config::FromClientConfigAndContext as _,
    consumer::{CommitMode, Consumer as _, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Message as _},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    Kafka, Record, TopicError, TopicInfo, Watermarks,
    client::{Logging, is_unreachable},
    detached::Detached,
    kafka::code_of,
    native,
};

/// A batch ends with the record that reaches this size. One record may be larger.
pub const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// A partition without records is looked at this often, so that a topic that was replaced is noticed there too.
const IDLE_CHECK: Duration = Duration::from_secs(5);
/// Errors in a row that tell nothing, before they are reported as trouble with the broker.
const MAX_TRANSIENT_ERRORS: u32 = 20;

/// Why there are no records.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No broker answers; reading goes on by itself with the next call.
    #[error("read partition {partition} of {topic:?}: no broker answered ({detail}); it is tried again")]
    Unavailable {
        /// Name of the topic.
        topic: String,
        /// Number of the partition.
        partition: u32,
        /// What the client saw.
        detail: String,
    },
    /// Records that were to be read are no longer there, or not yet. Only [`Reader::seek`] gets past it.
    #[error(
        "read partition {partition} of {topic:?} at offset {wanted}: the log now holds offsets {first} to {end} \
         (the last one excluded); decide where to go on"
    )]
    LostRange {
        /// Name of the topic.
        topic: String,
        /// Number of the partition.
        partition: u32,
        /// The offset that was to be read next.
        wanted: u64,
        /// The first offset that is there.
        first: u64,
        /// One more than the last offset.
        end: u64,
    },
    /// The topic was deleted and made again: offsets of the old one mean nothing in the new one.
    #[error(
        "read topic {topic:?}: it was made again (its id was {expected:?} and is {found:?}); decide where to go on"
    )]
    Recreated {
        /// Name of the topic.
        topic: String,
        /// The id that was stored.
        expected: String,
        /// The id that it has now.
        found: String,
    },
    /// The topic has another number of partitions, so keys have moved and their order is no longer kept.
    #[error("read topic {topic:?}: it had {expected} partitions and has {found}; decide where to go on")]
    Repartitioned {
        /// Name of the topic.
        topic: String,
        /// The number that was stored.
        expected: u32,
        /// The number that it has now.
        found: u32,
    },
    /// There is no such topic.
    #[error("read topic {topic:?}: it does not exist; create it, or correct its name")]
    NotFound {
        /// Name of the topic.
        topic: String,
    },
    /// The broker does not let us, or the client cannot.
    #[error("read partition {partition} of {topic:?}: {detail}")]
    Refused {
        /// Name of the topic.
        topic: String,
        /// Number of the partition.
        partition: u32,
        /// What is wrong.
        detail: String,
    },
}

/// What an error of the client means for this reader.
enum Trouble {
    /// Nothing yet: the client goes on by itself.
    Transient(RDKafkaErrorCode),
    /// No broker can be reached.
    Unreachable,
    /// The offset is not in the log.
    Lost,
    /// The topic or partition is not known to the broker.
    Missing,
    /// The client is beyond repair: a new one is needed.
    Broken,
    /// It will not get better by itself.
    Refused(RDKafkaErrorCode),
}

/// Reads one partition. Dropping it ends its client in the background.
pub struct Reader {
    kafka: Kafka,
    topic: String,
    expected: TopicInfo,
    partition: u32,
    consumer: Detached<StreamConsumer<Logging>>,
    /// The offset after the last record that was given out.
    position: u64,
    /// Fetched, and not yet known to be of the expected topic.
    pending: Vec<Record>,
    /// Met behind `pending`: it is dealt with when those are given out.
    trouble: Option<Trouble>,
    /// A broker was away: the end of a wait alone does not say that it is back.
    unreachable: bool,
    checked: Instant,
}

impl Reader {
    pub(crate) async fn open(
        kafka: Kafka,
        topic: String,
        expected: TopicInfo,
        partition: u32,
        from: u64,
    ) -> Result<Self, ReadError> {
        if partition >= expected.partitions {
            // The client would wait for it to be made, without a word.
            return Err(refused(&topic, partition, format!("the topic has {} partitions", expected.partitions)));
        }
        let consumer = start(&kafka, &topic, partition, from).await?;
        Ok(Self {
            kafka,
            topic,
            expected,
            partition,
            consumer,
            position: from,
            pending: Vec::new(),
            trouble: None,
            unreachable: false,
            checked: Instant::now(),
        })
    }

    /// Name of the topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Number of the partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The offset after the last record that [`Reader::next`] gave out, or the one that was sought.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next records, in order: at least one, unless none comes within `max_wait`; never more than `max_records`, and
    /// about [`MAX_BATCH_BYTES`]. Offsets may have gaps (transactions, compaction).
    ///
    /// It may be cancelled: what was fetched is given out by the next call. After an error other than `Unavailable` it
    /// gives the same error again until [`Reader::seek`], or until the topic is right again.
    pub async fn next(&mut self, max_records: usize, max_wait: Duration) -> Result<Vec<Record>, ReadError> {
        let deadline = Instant::now() + max_wait;
        if self.pending.is_empty() {
            self.wait_for_first(deadline).await?;
        }
        if self.pending.is_empty() {
            if self.unreachable || self.checked.elapsed() >= IDLE_CHECK {
                self.check_topic().await?;
            }
            return Ok(Vec::new());
        }
        self.gather(max_records);
        self.check_topic().await?;
        let rest = self.pending.split_off(self.pending.len().min(max_records.max(1)));
        let given = std::mem::replace(&mut self.pending, rest);
        if let Some(last) = given.last() {
            self.position = last.offset + 1;
        }
        Ok(given)
    }

    /// Goes on at another offset, forwards or back; what was fetched is discarded.
    pub async fn seek(&mut self, offset: u64) -> Result<(), ReadError> {
        self.pending.clear();
        self.trouble = None;
        self.position = offset;
        let list = assignment(&self.topic, self.partition, offset)?;
        // Assigning again, and not seeking: it works in every state, also after the error of a lost range, and records
        // that the client fetched before are not given out any more.
        let assigned = self.consumer.assign(&list);
        assigned.map_err(|error| refused(&self.topic, self.partition, error.to_string()))
    }

    /// From the first offset to the end, for the lag.
    pub async fn watermarks(&self) -> Result<Watermarks, TopicError> {
        self.kafka.watermarks(&self.topic, self.partition).await
    }

    /// Shows Kafka's own tools how far this partition was read. `offset` is the next one to be read. It is sent in the
    /// background and never read back, so a failure only goes to the log.
    pub fn commit_for_tools(&self, offset: u64) {
        let list = match assignment(&self.topic, self.partition, offset) {
            Ok(list) => list,
            Err(error) => return tracing::debug!(%error, "could not show an offset to Kafka's tools"),
        };
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(%error, topic = self.topic, partition = self.partition, offset, "could not show an offset");
        }
    }

    /// Waits for one record, and deals with the errors that come instead.
    async fn wait_for_first(&mut self, deadline: Instant) -> Result<(), ReadError> {
        let mut transient = 0;
        loop {
            let trouble = match self.trouble.take() {
                Some(trouble) => trouble,
                None => match timeout_at(deadline, self.consumer.recv()).await {
                    Err(_) => return Ok(()),
                    Ok(Ok(message)) => {
                        let record = owned(&message);
                        drop(message);
                        if self.take(record) {
                            return Ok(());
                        }
                        continue;
                    }
                    Ok(Err(error)) => trouble_of(&error),
                },
            };
            match trouble {
                Trouble::Transient(code) => {
                    tracing::debug!(%code, topic = self.topic, partition = self.partition, "Kafka reader goes on");
                    transient += 1;
                    if transient > MAX_TRANSIENT_ERRORS {
                        return Err(self.unavailable(code.to_string()));
                    }
                }
                Trouble::Unreachable => self.unreachable = true,
                Trouble::Lost => self.judge_lost_range().await?,
                // It may be a topic that was made a moment ago, or one that is gone: a description tells.
                Trouble::Missing => {
                    self.keep(Trouble::Missing);
                    self.check_topic().await?;
                    self.seek(self.position).await?;
                    transient += 1;
                    if transient > MAX_TRANSIENT_ERRORS {
                        return Err(self.unavailable("the leader of the partition does not know it".into()));
                    }
                }
                Trouble::Broken => {
                    self.keep(Trouble::Broken);
                    self.consumer = start(&self.kafka, &self.topic, self.partition, self.position).await?;
                    self.trouble = None;
                }
                Trouble::Refused(code) => {
                    self.keep(Trouble::Refused(code));
                    return Err(refused(&self.topic, self.partition, code.to_string()));
                }
            }
        }
    }

    /// Remembers a trouble over the next await: it is met again if this call is cancelled or fails there.
    fn keep(&mut self, trouble: Trouble) {
        self.trouble = Some(trouble);
    }

    /// Adds what the client has fetched already, without waiting.
    fn gather(&mut self, max_records: usize) {
        let mut bytes: usize = self.pending.iter().map(Record::size).sum();
        while self.pending.len() < max_records && bytes < MAX_BATCH_BYTES && self.trouble.is_none() {
            let Some(received) = self.consumer.recv().now_or_never() else { return };
            match received {
                Ok(message) => {
                    let record = owned(&message);
                    drop(message);
                    bytes += record.size();
                    self.take(record);
                }
                Err(error) => self.trouble = Some(trouble_of(&error)),
            }
        }
    }

    /// Keeps a record, unless it lies before what is wanted: a broker sends whole batches, and a leader that changed may
    /// repeat some.
    fn take(&mut self, record: Record) -> bool {
        self.unreachable = false;
        let wanted = self.pending.last().map_or(self.position, |last| last.offset + 1);
        if record.offset < wanted {
            return false;
        }
        self.pending.push(record);
        true
    }

    /// Whether the topic is still the one that is meant.
    async fn check_topic(&mut self) -> Result<(), ReadError> {
        let found = match self.kafka.topic_info(&self.topic).await {
            Ok(found) => found,
            Err(error) => {
                let error = self.read_error(error);
                if matches!(error, ReadError::NotFound { .. }) {
                    self.forget_fetched();
                }
                return Err(error);
            }
        };
        self.unreachable = false;
        self.checked = Instant::now();
        if found.id != self.expected.id {
            self.forget_fetched();
            return Err(ReadError::Recreated {
                topic: self.topic.clone(),
                expected: self.expected.id.clone(),
                found: found.id,
            });
        }
        if found.partitions != self.expected.partitions {
            self.forget_fetched();
            return Err(ReadError::Repartitioned {
                topic: self.topic.clone(),
                expected: self.expected.partitions,
                found: found.partitions,
            });
        }
        Ok(())
    }

    /// Discards what was fetched, and has the topic looked at again before anything else is.
    fn forget_fetched(&mut self) {
        self.pending.clear();
        self.trouble = Some(Trouble::Missing);
    }

    /// The client says that the wanted offset is not there. Answers in the name of a topic that is gone count as that.
    async fn judge_lost_range(&mut self) -> Result<(), ReadError> {
        self.keep(Trouble::Lost);
        self.check_topic().await?;
        let Watermarks { first, end } = self.watermarks().await.map_err(|error| self.read_error(error))?;
        let (wanted, partition) = (self.position, self.partition);
        if (first..=end).contains(&wanted) {
            // A new leader may not have had it yet.
            return self.seek(wanted).await;
        }
        Err(ReadError::LostRange { topic: self.topic.clone(), partition, wanted, first, end })
    }

    fn unavailable(&mut self, detail: String) -> ReadError {
        self.unreachable = true;
        ReadError::Unavailable { topic: self.topic.clone(), partition: self.partition, detail }
    }

    fn read_error(&mut self, error: TopicError) -> ReadError {
        match error {
            TopicError::Unavailable { detail, .. } => self.unavailable(detail),
            TopicError::NotFound { topic } => ReadError::NotFound { topic },
            TopicError::Refused { topic, detail } => refused(&topic, self.partition, detail),
        }
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// Makes a client and points it at the partition. Starting its threads takes a moment, so it is done aside.
async fn start(
    kafka: &Kafka,
    topic: &str,
    partition: u32,
    from: u64,
) -> Result<Detached<StreamConsumer<Logging>>, ReadError> {
    let list = assignment(topic, partition, from)?;
    kafka
        .ask(move |kafka| {
            let consumer = Detached::new(StreamConsumer::from_config_and_context(&kafka.0.config.consumer(), Logging)?);
            consumer.assign(&list)?;
            Ok(consumer)
        })
        .await
        .map_err(|code| refused(topic, partition, code.to_string()))?
        .map_err(|error: KafkaError| refused(topic, partition, error.to_string()))
}

fn assignment(topic: &str, partition: u32, offset: u64) -> Result<TopicPartitionList, ReadError> {
    let wrong = |detail: String| refused(topic, partition, detail);
    let number = i32::try_from(partition).map_err(|_| wrong("there are never so many partitions".into()))?;
    let position = i64::try_from(offset).map_err(|_| wrong(format!("offset {offset} cannot exist")))?;
    if topic.is_empty() || topic.contains('\0') {
        return Err(wrong("that is not the name of a topic".into()));
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, number, Offset::Offset(position)).map_err(|error| wrong(error.to_string()))?;
    Ok(list)
}

fn refused(topic: &str, partition: u32, detail: String) -> ReadError {
    ReadError::Refused { topic: topic.to_owned(), partition, detail }
}

fn owned(message: &BorrowedMessage<'_>) -> Record {
    Record {
        // Neither number of a delivered record is negative.
        partition: message.partition().max(0) as u32,
        offset: message.offset().max(0) as u64,
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().map(<[u8]>::to_vec),
        headers: native::headers(message),
    }
}

fn trouble_of(error: &KafkaError) -> Trouble {
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        return Trouble::Broken;
    }
    match code_of(error) {
        RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::LogTruncation => {
            Trouble::Lost
        }
        RDKafkaErrorCode::UnknownTopicOrPartition
        | RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownPartition => Trouble::Missing,
        RDKafkaErrorCode::Fatal => Trouble::Broken,
        code @ (RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed
        | RDKafkaErrorCode::SaslAuthenticationFailed
        | RDKafkaErrorCode::Authentication
        | RDKafkaErrorCode::UnsupportedCompressionType
        | RDKafkaErrorCode::InvalidTopic) => Trouble::Refused(code),
        code if is_unreachable(code) => Trouble::Unreachable,
        code => Trouble::Transient(code),
    }
}
