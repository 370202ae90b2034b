//! Kafka for tests: topics that nobody else has, a foreign client with settings that are not the engine's, and brokers of
//! a test's own that it may stop.
//!
//! Where to look next: `tests/services/kafka.sh`, which starts brokers.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    message::{Header, Headers as _, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use serde_json::Value;

use crate::{
    api::block_on,
    wait::{SOON, until},
};

/// Names the broker.
pub const BROKER: &str = "KICKWHEEL_TEST_KAFKA";
/// The largest record that the foreign client sends, in bytes.
const LARGEST: &str = "33554432";

/// Why no broker can be used, if so.
pub fn no_broker() -> Option<String> {
    std::env::var(BROKER).is_err().then(|| format!("{BROKER} names no Kafka; tests/services/kafka.sh up starts one"))
}

/// A record as it lies in a topic.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its partition.
    pub partition: i32,
    /// Its key, as text.
    pub key: String,
    /// Its value.
    pub payload: Vec<u8>,
    /// Its headers, as text.
    pub headers: BTreeMap<String, String>,
}

impl Record {
    /// The value as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).expect("the record is JSON")
    }
}

/// The topics of one engine, below a prefix of their own.
#[derive(Clone, Debug)]
pub struct Topics {
    /// `host:port`.
    pub broker: String,
    /// What the topics' names begin with.
    pub prefix: String,
}

impl Topics {
    /// Topics that nobody has, on the broker for tests.
    pub fn fresh() -> Self {
        Self::on(&std::env::var(BROKER).expect("stories about Kafka are told only where there is one"))
    }

    /// The same on any broker.
    pub fn on(broker: &str) -> Self {
        Self { broker: broker.to_owned(), prefix: format!("t{}", hex::encode(rand::random::<[u8; 6]>())) }
    }

    /// What `--bus` is told. Few partitions, since each costs the broker time.
    pub fn url(&self) -> String {
        format!("kafka://{}/{}?partitions=2", self.broker, self.prefix)
    }

    /// The name of one of them.
    pub fn name(&self, topic: &str) -> String {
        format!("{}.{topic}", self.prefix)
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.broker).set("message.max.bytes", LARGEST);
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("the settings are valid")
    }

    fn consumer(&self) -> BaseConsumer {
        let mut config = self.client();
        config.set("group.id", "tests").set("enable.auto.commit", "false").set("enable.partition.eof", "false");
        config.create().expect("the settings are valid")
    }

    /// Makes a topic, also just after it was deleted.
    pub fn create(&self, topic: &str, partitions: i32, properties: &[(&str, &str)]) {
        let (admin, name) = (self.admin(), self.name(topic));
        until(&format!("topic {name} is made"), || {
            let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
            let topic = properties.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
            block_on(admin.create_topics(&[topic], &options())).ok()?.remove(0).ok()
        });
    }

    /// Deletes a topic and makes it again, under a new id.
    pub fn recreate(&self, topic: &str) {
        let partitions = self.ends(topic).len();
        let name = self.name(topic);
        block_on(self.admin().delete_topics(&[&name], &options())).expect("the broker answers").remove(0).expect(&name);
        self.create(topic, i32::try_from(partitions).expect("partitions are few"), &[]);
    }

    /// How many brokers the cluster has now.
    pub fn brokers(&self) -> usize {
        let known = self.consumer().fetch_metadata(None, Duration::from_secs(5));
        known.map_or(0, |known| known.brokers().len())
    }

    /// First and end offset of each partition.
    pub fn ends(&self, topic: &str) -> Vec<(i64, i64)> {
        let (consumer, name) = (self.consumer(), self.name(topic));
        until(&format!("the broker tells about {name}"), || {
            let known = consumer.fetch_metadata(Some(&name), Duration::from_secs(5)).ok()?;
            let partitions = known.topics().first().filter(|t| !t.partitions().is_empty())?.partitions().len();
            (0..i32::try_from(partitions).ok()?)
                .map(|partition| consumer.fetch_watermarks(&name, partition, Duration::from_secs(5)).ok())
                .collect()
        })
    }

    /// Everything that is in a topic now.
    pub fn records(&self, topic: &str) -> Vec<Record> {
        let (consumer, name, ends) = (self.consumer(), self.name(topic), self.ends(topic));
        let mut places = TopicPartitionList::new();
        for (partition, (first, _)) in (0..).zip(&ends) {
            places.add_partition_offset(&name, partition, Offset::Offset(*first)).expect("an offset is one");
        }
        consumer.assign(&places).expect("partitions can be assigned");
        let mut missing: BTreeMap<i32, i64> =
            (0..).zip(&ends).filter(|(_, (first, end))| end > first).map(|(p, (_, end))| (p, *end)).collect();
        let mut found = Vec::new();
        let begun = std::time::Instant::now();
        while !missing.is_empty() {
            assert!(begun.elapsed() < SOON, "{name} is not read to its end: {missing:?}");
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) else { continue };
            let headers = message.headers().into_iter().flat_map(|all| all.iter());
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            found.push(Record {
                partition: message.partition(),
                key: message.key().map(text).unwrap_or_default(),
                payload: message.payload().unwrap_or_default().to_vec(),
                headers: headers.map(|h| (h.key.to_owned(), h.value.map(text).unwrap_or_default())).collect(),
            });
            if missing.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
                missing.remove(&message.partition());
            }
        }
        found
    }

    /// Writes one record into partition 0 as somebody else does.
    pub fn write(&self, topic: &str, key: &str, payload: Option<&[u8]>, headers: &[(&str, &str)]) {
        let producer: FutureProducer = self.client().create().expect("the settings are valid");
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value.as_bytes()) }));
        let name = self.name(topic);
        let mut record = FutureRecord::<str, [u8]>::to(&name).key(key).partition(0).headers(headers);
        record.payload = payload;
        block_on(producer.send(record, SOON)).map_err(|(e, _)| e).expect("the broker takes the record");
    }

    /// What the runs topic tells of each run, by the run's id: the types in the order of their first telling. Telling a thing
    /// twice is allowed, telling it differently or out of order is not.
    pub fn told(&self) -> BTreeMap<String, Vec<String>> {
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut seen: BTreeMap<String, Value> = BTreeMap::new();
        let mut places: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut partitions: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        for record in self.records("runs") {
            let event = record.json();
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            let (id, run) = (text("id"), text("subject"));
            partitions.entry(run.clone()).or_default().insert(record.partition);
            if let Some(before) = seen.insert(id.clone(), event.clone()) {
                assert_eq!(before, event, "{id} was told differently");
                continue;
            }
            let numbers: Vec<&str> = id.split(':').collect();
            let [of, seq, index] = numbers[..] else { panic!("the id {id:?} does not name a place in a journal") };
            assert_eq!(of, run, "{event:#}");
            let place = (seq.parse().expect("a number"), index.parse().expect("a number"));
            if let Some(before) = places.insert(run.clone(), place) {
                assert!(before < place, "run {run}: {place:?} was told after {before:?}");
            }
            told.entry(run).or_default().push(text("type"));
        }
        for (run, partitions) in partitions {
            assert_eq!(partitions.len(), 1, "run {run} is told in several partitions");
        }
        told
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(SOON)).operation_timeout(Some(SOON))
}

/// A broker of a test's own.
#[derive(Debug)]
pub struct OwnBroker {
    /// `host:port`; it stays the same when the broker is started again.
    pub address: String,
    folder: PathBuf,
}

impl OwnBroker {
    /// Starts one; its record is kept below `folder`.
    pub fn start(folder: &Path) -> Self {
        let folder = folder.join("kafka");
        let address = service("kafka.sh", &folder, &["up"]);
        Self { address, folder }
    }

    /// Ends the broker; its data stay.
    pub fn stop(&self) {
        service("kafka.sh", &self.folder, &["stop"]);
    }

    /// Starts it again.
    pub fn again(&self) {
        service("kafka.sh", &self.folder, &["start"]);
    }

    /// Adds a further broker to its cluster, or brings it back; gives the address.
    pub fn join(&self, number: u32) -> String {
        service("kafka.sh", &self.folder, &["join", &number.to_string()])
    }

    /// Kills a further broker; its data stay.
    pub fn leave(&self, number: u32) {
        service("kafka.sh", &self.folder, &["leave", &number.to_string()]);
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        service("kafka.sh", &self.folder, &["down"]);
    }
}

/// Runs one of the scripts that start services, with its record below `folder`. What it printed.
pub fn service(script: &str, folder: &Path, arguments: &[&str]) -> String {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("services");
    let output = Command::new(scripts.join(script))
        .args(arguments)
        .env("KICKWHEEL_SERVICES", folder)
        .output()
        .expect("the script can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
