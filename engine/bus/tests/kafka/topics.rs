//! Topics: created once, judged, and told apart from others of the same name.

use std::time::Duration;

use kickwheel_bus::{Kafka, KafkaConfig, ReadError, TopicError, TopicsError, Warning};
use rdkafka::admin::NewPartitions;

use crate::fixture::{Fixture, options, read, read_until_error, texts};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_topics_are_created_and_the_others_left_alone() {
    let Some(fixture) = Fixture::shared(1).await else { return };
    let topics = fixture.kafka.config().topics.clone();
    let before = fixture.kafka.health().await.unwrap();
    assert_eq!(before.topics, Vec::new());
    assert_eq!(before.warnings.iter().filter(|w| matches!(w, Warning::Missing { .. })).count(), 3);
    assert_eq!(fixture.kafka.ensure_topics().await.unwrap(), topics.all());
    assert_eq!(fixture.kafka.ensure_topics().await.unwrap(), Vec::<String>::new());
    let health = fixture.kafka.health().await.unwrap();
    assert_eq!(health.topics.iter().map(|t| t.topic.as_str()).collect::<Vec<_>>(), topics.all());
    let replication = if health.brokers >= 3 { (3, 3, Some(2)) } else { (1, 1, Some(1)) };
    for topic in &health.topics {
        assert_eq!((topic.replication, topic.in_sync, topic.min_in_sync), replication);
        assert_eq!((topic.partitions, topic.max_record_bytes), (8, Some(kickwheel_bus::MAX_RECORD_BYTES as u64)));
    }
    let expected: &[Warning] =
        if health.brokers >= 3 { &[] } else { &[Warning::FewBrokers { brokers: health.brokers }] };
    assert_eq!(health.warnings, expected);
    let largest = vec![b'x'; 1024 * 1024];
    fixture.kafka.produce(&topics.events, None, Some(&largest), &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_made_again_has_another_id_and_is_not_read() {
    let Some(fixture) = Fixture::shared(1).await else { return };
    let old = fixture.info().await;
    assert_eq!((old.partitions, old.id.len()), (1, 22));
    assert_eq!(fixture.info().await, old);
    for n in 0..3 {
        fixture.write("k", format!("old {n}")).await;
    }
    let mut from_start = fixture.reader(0, 0).await;
    let mut further = fixture.reader(0, 0).await;
    assert_eq!(texts(&read(&mut further, 3).await), ["old 0", "old 1", "old 2"]);
    fixture.delete().await;
    fixture.create(1, &[]).await;
    let new = fixture.info().await;
    assert_ne!(new.id, old.id);
    for n in 0..5 {
        fixture.write("k", format!("new {n}")).await;
    }
    for reader in [&mut from_start, &mut further] {
        let (records, error) = read_until_error(reader).await;
        // The first may have fetched old records before they were gone, but not after.
        assert!(records.is_empty(), "{:?}", texts(&records));
        let ReadError::Recreated { expected, found, .. } = error else { panic!("{error:?}") };
        assert_eq!((&expected, &found), (&old.id, &new.id));
        // Asked again, it does not come to like it.
        let again = reader.next(10, Duration::from_millis(100)).await;
        assert!(matches!(again, Err(ReadError::Recreated { .. })), "{again:?}");
    }
    let mut accepted = fixture.reader(0, 0).await;
    assert_eq!(texts(&read(&mut accepted, 5).await), ["new 0", "new 1", "new 2", "new 3", "new 4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_gone_is_an_error() {
    let Some(fixture) = Fixture::shared(1).await else { return };
    fixture.write("k", "x").await;
    let mut reader = fixture.reader(0, 1).await;
    assert_eq!(reader.next(1, Duration::from_millis(100)).await.unwrap(), Vec::new());
    fixture.delete().await;
    let (records, error) = read_until_error(&mut reader).await;
    assert!(records.is_empty() && matches!(error, ReadError::NotFound { .. }), "{error:?}");
    assert!(matches!(fixture.kafka.topic_info(&fixture.topic).await, Err(TopicError::NotFound { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_partitions_stop_the_reader() {
    let Some(fixture) = Fixture::shared(2).await else { return };
    let mut reader = fixture.reader(0, 0).await;
    fixture.admin().create_partitions(&[NewPartitions::new(&fixture.topic, 3)], &options()).await.unwrap();
    while fixture.info().await.partitions != 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fixture.write_foreign(&[], Some(b"x"), &[]).await;
    let (records, error) = read_until_error(&mut reader).await;
    assert!(records.is_empty());
    assert!(matches!(error, ReadError::Repartitioned { expected: 2, found: 3, .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_does_not_exist_is_not_waited_for() {
    let Some(fixture) = Fixture::shared(1).await else { return };
    let refused = fixture.kafka.reader(&fixture.topic, fixture.info().await, 1, 0).await;
    assert!(matches!(refused, Err(ReadError::Refused { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_every_question_ends_in_time() {
    // A port that nothing listens on: it was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut config = KafkaConfig::new(format!("127.0.0.1:{port}"));
    config.request_timeout = Duration::from_millis(500);
    config.delivery_timeout = Duration::from_millis(500);
    let kafka = Kafka::connect(config).unwrap();
    let asked = std::time::Instant::now();
    assert!(matches!(kafka.topic_info("t").await, Err(TopicError::Unavailable { .. })));
    assert!(matches!(kafka.watermarks("t", 0).await, Err(TopicError::Unavailable { .. })));
    assert!(matches!(kafka.ensure_topics().await, Err(TopicsError::Unavailable(_))));
    assert!(matches!(kafka.health().await, Err(TopicsError::Unavailable(_))));
    let info = kickwheel_bus::TopicInfo { id: "i".into(), partitions: 1 };
    let mut reader = kafka.reader("t", info, 0, 0).await.unwrap();
    let read = reader.next(1, Duration::from_secs(3)).await;
    assert!(matches!(read, Err(ReadError::Unavailable { .. })), "{read:?}");
    let written = kafka.produce("t", None, Some(b"x"), &[]).await;
    assert!(matches!(written, Err(kickwheel_bus::ProduceError::NotSent { .. })), "{written:?}");
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
}
