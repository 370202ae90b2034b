//! Writing: order per key, sizes, and partitions on which other writers agree.

use kickwheel_bus::{MAX_RECORD_BYTES, ProduceError};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::fixture::{Fixture, PATIENCE, read};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_key_keeps_its_order() {
    let Some(fixture) = Fixture::shared(4).await else { return };
    let mut expected = Vec::new();
    for round in 0..25 {
        for key in ["a", "b", "c", "d", "e"] {
            let (partition, offset) = fixture.write(key, format!("{key}{round}")).await;
            expected.push((partition, offset, key.as_bytes().to_vec(), format!("{key}{round}").into_bytes()));
        }
    }
    let mut got = Vec::new();
    for partition in 0..4 {
        let count = expected.iter().filter(|e| e.0 == partition).count();
        let mut reader = fixture.reader(partition, 0).await;
        for record in read(&mut reader, count).await {
            got.push((record.partition, record.offset, record.key.unwrap(), record.payload.unwrap()));
        }
    }
    expected.sort();
    got.sort();
    assert_eq!(got, expected);
    for key in [b"a", b"b", b"c", b"d", b"e"] {
        let payloads: Vec<String> =
            got.iter().filter(|g| g.2 == key).map(|g| String::from_utf8(g.3.clone()).unwrap().split_off(1)).collect();
        assert_eq!(payloads, crate::fixture::numbers(0..25), "key {key:?} is in one partition and in order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_those_of_a_java_producer() {
    let Some(fixture) = Fixture::shared(8).await else { return };
    // The hashes that Kafka's own tests state for its murmur2.
    for (key, hash) in [("21", -973_932_308_i32), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)]
    {
        let (partition, _) = fixture.write(key, "").await;
        assert_eq!(partition, (hash & 0x7fff_ffff) as u32 % 8, "{key}");
    }
    let foreign: FutureProducer = fixture.foreign(&[("partitioner", "murmur2")]).create().unwrap();
    for n in 0..20 {
        let key = format!("https://git.example/r|refs/heads/{n}");
        let (ours, _) = fixture.write(&key, "").await;
        let record = FutureRecord::to(&fixture.topic).key(&key).payload("");
        let theirs = foreign.send(record, PATIENCE).await.map_err(|(error, _)| error).unwrap();
        assert_eq!(ours as i32, theirs.partition, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_written_whole_or_refused() {
    let Some(fixture) = Fixture::shared(1).await else { return };
    let large = vec![b'x'; 900 * 1024];
    fixture.write("k", &large).await;
    let too_large = vec![b'x'; MAX_RECORD_BYTES];
    for (topic, payload) in [(fixture.topic.as_str(), &too_large), ("", &large), ("no such topic name!", &large)] {
        let refused = fixture.kafka.produce(topic, None, Some(payload), &[]).await;
        assert!(matches!(refused, Err(ProduceError::Refused { .. })), "{topic:?}: {refused:?}");
    }
    // The broker's own limit is smaller than ours on a topic that we did not make.
    let over_the_brokers = vec![b'x'; 1024 * 1024 + 1000];
    let refused = fixture.kafka.produce(&fixture.topic, None, Some(&over_the_brokers), &[]).await;
    assert!(matches!(refused, Err(ProduceError::Refused { .. })), "{refused:?}");
    let headers: [(&str, &[u8]); 2] = [("content-type", b"x/y"), ("empty", b"")];
    fixture.kafka.produce(&fixture.topic, None, None, &headers).await.unwrap();
    let mut reader = fixture.reader(0, 0).await;
    let records = read(&mut reader, 2).await;
    assert_eq!((records[0].payload.as_deref(), records[0].key.as_deref()), (Some(&large[..]), Some(&b"k"[..])));
    assert_eq!((&records[1].payload, &records[1].key), (&None, &None));
    let expected = [("content-type".to_owned(), Some(b"x/y".to_vec())), ("empty".to_owned(), Some(Vec::new()))];
    assert_eq!(records[1].headers, expected);
    assert!(records[0].timestamp_ms.is_some());
    crate::fixture::assert_no_more(&mut reader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_not_there_takes_nothing_and_is_not_made() {
    let Some(fixture) = Fixture::shared(1).await else { return };
    let absent = format!("{}-absent", fixture.topic);
    let refused = fixture.kafka.produce(&absent, None, Some(b"x"), &[]).await;
    assert!(matches!(refused, Err(ProduceError::NotSent { .. })), "{refused:?}");
    let looked = fixture.kafka.topic_info(&absent).await;
    assert!(matches!(looked, Err(kickwheel_bus::TopicError::NotFound { .. })), "{looked:?}");
}
