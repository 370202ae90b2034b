//! A broker, topics with names that nobody else has, and a foreign client: plain rdkafka with settings that are not ours.

use std::time::Duration;

use kickwheel_bus::{Kafka, KafkaConfig, ReadError, Reader, Record, TopicInfo, Topics};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use tokio::time::Instant;

/// Names the broker.
pub const BROKER: &str = "KICKWHEEL_TEST_KAFKA";
/// A healthy broker on a busy machine does anything within this time.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The broker for tests, if there is one. A missing one is said loudly, and fails where all services are demanded.
pub fn broker() -> Option<String> {
    let broker = std::env::var(BROKER).ok();
    if broker.is_none() {
        require(BROKER);
    }
    broker
}

/// Says that a test cannot run without `what`, or fails.
pub fn require(what: &str) {
    let wanted = std::env::var("REQUIRE_ALL").is_ok_and(|v| v == "1");
    assert!(!wanted, "{what} is missing, and REQUIRE_ALL=1 wants every service");
    println!("SKIPPED: {what} is missing");
}

pub struct Fixture {
    pub kafka: Kafka,
    pub broker: String,
    pub topic: String,
}

impl Fixture {
    /// A connection, and a topic with so many partitions.
    pub async fn new(broker: &str, partitions: i32) -> Self {
        let topic = format!("test-{}", uuid::Uuid::now_v7().simple());
        let mut config = KafkaConfig::new(broker);
        config.topics = Topics::with_prefix(&topic);
        let fixture = Self { kafka: Kafka::connect(config).unwrap(), broker: broker.into(), topic };
        fixture.create(partitions, &[]).await;
        fixture
    }

    /// Only where there is a broker for tests.
    pub async fn shared(partitions: i32) -> Option<Self> {
        Some(Self::new(&broker()?, partitions).await)
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.foreign(&[]).create().unwrap()
    }

    /// Settings of a client that is not ours.
    pub fn foreign(&self, properties: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.broker);
        for (name, value) in properties {
            config.set(*name, *value);
        }
        config
    }

    /// Creates the topic, also just after it was deleted.
    pub async fn create(&self, partitions: i32, properties: &[(&str, &str)]) {
        let admin = self.admin();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let topic = properties
                .iter()
                .fold(NewTopic::new(&self.topic, partitions, TopicReplication::Fixed(1)), |t, (k, v)| t.set(k, v));
            let result = admin.create_topics(&[topic], &options()).await.unwrap().remove(0);
            if result.is_ok() {
                break;
            }
            assert!(Instant::now() < deadline, "{result:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        while self.kafka.topic_info(&self.topic).await.is_err() {
            assert!(Instant::now() < deadline, "the topic did not become known");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn delete(&self) {
        self.admin().delete_topics(&[&self.topic], &options()).await.unwrap().remove(0).unwrap();
    }

    pub async fn info(&self) -> TopicInfo {
        self.kafka.topic_info(&self.topic).await.unwrap()
    }

    pub async fn reader(&self, partition: u32, from: u64) -> Reader {
        self.kafka.reader(&self.topic, self.info().await, partition, from).await.unwrap()
    }

    /// Writes through ours, and returns partition and offset.
    pub async fn write(&self, key: &str, payload: impl AsRef<[u8]>) -> (u32, u64) {
        let written = self.kafka.produce(&self.topic, Some(key.as_bytes()), Some(payload.as_ref()), &[]).await.unwrap();
        (written.partition, written.offset.unwrap())
    }

    /// Writes numbers from 0 into the only partition.
    pub async fn write_numbers(&self, count: usize) {
        let all = (0..count).map(|n| async move { self.write("k", n.to_string()).await });
        futures::future::join_all(all).await;
    }

    /// Writes as somebody else does.
    pub async fn write_foreign(
        &self,
        properties: &[(&str, &str)],
        payload: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        let producer: FutureProducer = self.foreign(properties).create().unwrap();
        let all = OwnedHeaders::new();
        let all = headers.iter().fold(all, |all, &(key, value)| all.insert(Header { key, value }));
        let mut record = FutureRecord::<str, [u8]>::to(&self.topic).key("k").partition(0).headers(all);
        record.payload = payload;
        producer.send(record, PATIENCE).await.map_err(|(error, _)| error).unwrap();
    }
}

pub fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

/// Reads until `count` records are there, going on over brokers that are away.
pub async fn read(reader: &mut Reader, count: usize) -> Vec<Record> {
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while records.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} records came", records.len());
        match reader.next(count - records.len(), Duration::from_secs(1)).await {
            Ok(more) => records.extend(more),
            Err(ReadError::Unavailable { .. }) => {}
            Err(error) => panic!("failed to {error}"),
        }
    }
    records
}

/// Reads until it fails with anything but a broker that is away; returns what came before, too.
pub async fn read_until_error(reader: &mut Reader) -> (Vec<Record>, ReadError) {
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    loop {
        assert!(Instant::now() < deadline, "no error came, but {} records", records.len());
        match reader.next(100, Duration::from_millis(500)).await {
            Ok(more) => records.extend(more),
            Err(ReadError::Unavailable { .. }) => {}
            Err(error) => return (records, error),
        }
    }
}

/// That nothing more comes for a moment.
pub async fn assert_no_more(reader: &mut Reader) {
    assert_eq!(reader.next(10, Duration::from_millis(700)).await.unwrap(), Vec::new());
}

pub fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8_lossy(r.payload.as_deref().unwrap_or(b"-")).into_owned()).collect()
}

pub fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}
