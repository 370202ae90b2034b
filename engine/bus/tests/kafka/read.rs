//! Reading: from where it was told, nothing lost silently, nothing that sticks.

use std::time::Duration;

use kickwheel_bus::{MAX_BATCH_BYTES, ReadError, Watermarks, codec};
use kickwheel_schemas::CloudEvent;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use serde_json::json;
use tokio::time::Instant;

use crate::fixture::{Fixture, PATIENCE, assert_no_more, numbers, options, read, read_until_error, texts};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_begins_at_the_stored_offset_and_follows_a_seek() {
    let Some(fixture) = Fixture::shared(1).await else { return };
    fixture.write_numbers(200).await;
    // What was written at once by many has some order; offsets name it.
    let mut reader = fixture.reader(0, 0).await;
    let all = texts(&read(&mut reader, 200).await);
    let mut reader = fixture.reader(0, 150).await;
    assert_eq!(reader.position(), 150);
    let records = read(&mut reader, 50).await;
    assert_eq!(records.iter().map(|r| r.offset).collect::<Vec<_>>(), (150..200).collect::<Vec<_>>());
    assert_eq!(texts(&records), all[150..]);
    assert_no_more(&mut reader).await;
    assert_eq!((reader.position(), reader.watermarks().await.unwrap()), (200, Watermarks { first: 0, end: 200 }));
    // Back and forth, each time with records fetched ahead that must not be given out.
    for offset in [10_u64, 5, 180, 0, 199, 90, 3] {
        reader.seek(offset).await.unwrap();
        let records = read(&mut reader, 1).await;
        assert_eq!((records[0].offset, texts(&records)), (offset, vec![all[offset as usize].clone()]));
    }
    let rest = read(&mut reader, 196).await;
    assert_eq!(texts(&rest), all[4..]);
    // A record that comes while the reader waits is given out without delay.
    let (waited, _) = tokio::join!(reader.next(10, PATIENCE), fixture.write("k", "late"));
    assert_eq!(texts(&waited.unwrap()), ["late"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_wait_loses_nothing() {
    let Some(fixture) = Fixture::shared(1).await else { return };
    let writing = fixture.write_numbers(300);
    let reading = async {
        let mut reader = fixture.reader(0, 0).await;
        let deadline = Instant::now() + PATIENCE;
        let mut offsets = Vec::new();
        while offsets.len() < 300 {
            assert!(Instant::now() < deadline, "only {} came", offsets.len());
            // Shorter than a round trip now and then, so that it is cancelled at every await there is.
            let patience = Duration::from_micros(200 + 700 * (offsets.len() as u64 % 20));
            match tokio::time::timeout(patience, reader.next(7, PATIENCE)).await {
                Ok(records) => offsets.extend(records.unwrap().iter().map(|r| r.offset)),
                Err(_) => tokio::time::sleep(Duration::from_micros(500)).await,
            }
        }
        offsets
    };
    let ((), offsets) = tokio::join!(writing, reading);
    assert_eq!(offsets, (0..300).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_range_is_an_error_until_somebody_decides() {
    let Some(fixture) = Fixture::shared(1).await else { return };
    for n in 0..20 {
        fixture.write("k", n.to_string()).await;
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&fixture.topic, 0, Offset::Offset(12)).unwrap();
    fixture.admin().delete_records(&list, &options()).await.unwrap();
    let mut reader = fixture.reader(0, 5).await;
    for _ in 0..2 {
        let (records, error) = read_until_error(&mut reader).await;
        assert!(records.is_empty());
        assert!(matches!(error, ReadError::LostRange { wanted: 5, first: 12, end: 20, .. }), "{error:?}");
    }
    reader.seek(12).await.unwrap();
    assert_eq!(texts(&read(&mut reader, 8).await), numbers(12..20));
    // Beyond the end is as lost as before the beginning.
    reader.seek(25).await.unwrap();
    let (_, error) = read_until_error(&mut reader).await;
    assert!(matches!(error, ReadError::LostRange { wanted: 25, first: 12, end: 20, .. }), "{error:?}");
    reader.seek(20).await.unwrap();
    fixture.write("k", "20").await;
    assert_eq!(texts(&read(&mut reader, 1).await), ["20"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_far_too_large_is_given_out_and_passed() {
    let Some(fixture) = Fixture::shared(1).await else { return };
    fixture.delete().await;
    fixture.create(1, &[("max.message.bytes", "40000000")]).await;
    fixture.write("k", "before").await;
    let huge = vec![b'x'; 20_000_000];
    let raised = [("message.max.bytes", "40000000")];
    fixture.write_foreign(&raised, Some(&huge), &[("ce_id", Some(b"i"))]).await;
    fixture.write_foreign(&raised, Some(&huge), &[]).await;
    fixture.write("k", "after").await;
    let mut reader = fixture.reader(0, 0).await;
    let mut records = Vec::new();
    while records.len() < 4 {
        let more = reader.next(100, PATIENCE).await.unwrap();
        let before_the_last: usize = more.iter().rev().skip(1).map(|r| r.size()).sum();
        assert!(before_the_last < MAX_BATCH_BYTES, "a batch ends with the record that fills it");
        records.extend(more);
    }
    assert_eq!(records.iter().map(|r| r.offset).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(records[1].payload.as_ref().map(Vec::len), Some(huge.len()));
    assert_eq!(codec::decode(&records[1]), Err(codec::Undecodable::TooLarge { bytes: huge.len() + 1 + 6 }));
    assert_eq!(records[3].payload.as_deref(), Some(&b"after"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_transaction_is_not_read() {
    let Some(fixture) = Fixture::shared(1).await else { return };
    let producer: BaseProducer = fixture.foreign(&[("transactional.id", &fixture.topic)]).create().unwrap();
    let topic = fixture.topic.clone();
    let writing = tokio::task::spawn_blocking(move || {
        producer.init_transactions(PATIENCE).unwrap();
        for (round, commit) in [true, false, true].into_iter().enumerate() {
            producer.begin_transaction().unwrap();
            for n in 0..3 {
                let payload = format!("{round}-{n}");
                producer.send(BaseRecord::to(&topic).key("k").payload(&payload)).map_err(|(e, _)| e).unwrap();
            }
            if commit {
                producer.commit_transaction(PATIENCE).unwrap();
            } else {
                // Aborted after it reached the log: that is what a reader of everything would see.
                producer.flush(PATIENCE).unwrap();
                producer.abort_transaction(PATIENCE).unwrap();
            }
        }
    });
    writing.await.unwrap();
    let mut reader = fixture.reader(0, 0).await;
    assert_eq!(texts(&read(&mut reader, 6).await), ["0-0", "0-1", "0-2", "2-0", "2-1", "2-2"]);
    assert_no_more(&mut reader).await;
    // Nine records and three markers.
    assert_eq!(reader.watermarks().await.unwrap().end, 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_foreign_writers_are_read_in_both_modes() {
    let Some(fixture) = Fixture::shared(1).await else { return };
    let event = CloudEvent::new("/s", "i", "t", json!({"a": 1})).with_subject("x");
    let binary: [(&str, Option<&[u8]>); 6] = [
        ("ce_specversion", Some(b"1.0")),
        ("CE_ID", Some(b"i")),
        ("ce_source", Some(b"/s")),
        ("ce_type", Some(b"t")),
        ("ce_subject", Some(b"x")),
        ("Content-Type", Some(b"application/json")),
    ];
    fixture.write_foreign(&[], Some(br#"{"a":1}"#), &binary).await;
    let whole = br#"{"specversion":"1.0","id":"i","source":"/s","type":"t","subject":"x",
        "datacontenttype":"application/json","data":{"a":1}}"#;
    fixture.write_foreign(&[], Some(whole), &[("content-type", Some(b"application/cloudevents+json"))]).await;
    let ours = codec::encode(&event);
    fixture.kafka.produce(&fixture.topic, Some(&ours.key), Some(&ours.payload), &ours.headers).await.unwrap();
    fixture.write_foreign(&[], None, &binary).await;
    fixture.write_foreign(&[], Some(b"\xff\x00"), &[]).await;
    fixture.write_foreign(&[], Some(b"x"), &[("ce_id", None), ("ce_id", Some(b"\xff"))]).await;
    let mut reader = fixture.reader(0, 0).await;
    let decoded: Vec<_> = read(&mut reader, 6).await.iter().map(codec::decode).collect();
    assert_eq!(decoded[..3], [Ok(event.clone()), Ok(event.clone()), Ok(event)]);
    assert_eq!(decoded[3], Err(codec::Undecodable::Tombstone));
    assert_eq!(decoded[4], Err(codec::Undecodable::NotCloudEvent));
    assert!(matches!(decoded[5], Err(codec::Undecodable::Header { .. })), "{:?}", decoded[5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_compression_is_read() {
    let Some(fixture) = Fixture::shared(1).await else { return };
    let kinds = ["none", "gzip", "snappy", "lz4", "zstd"];
    let padding = " ".repeat(5000);
    for kind in kinds {
        let payload = format!("{kind}{padding}");
        fixture.write_foreign(&[("compression.type", kind)], Some(payload.as_bytes()), &[]).await;
    }
    let mut reader = fixture.reader(0, 0).await;
    assert_eq!(texts(&read(&mut reader, 5).await), kinds.map(|kind| format!("{kind}{padding}")));
}

/// The protocol does not demand that a header's name is text, and the safe interface panics when it is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_whose_name_is_no_text_is_read() {
    let Some(fixture) = Fixture::shared(1).await else { return };
    let producer: BaseProducer = fixture.foreign(&[]).create().unwrap();
    let topic = std::ffi::CString::new(fixture.topic.as_str()).unwrap();
    // SAFETY: the arguments come in the order that their tags announce, and are copied before the call returns.
    #[allow(unsafe_code)]
    let sent = unsafe {
        use rdkafka_sys::rd_kafka_vtype_t as tag;
        rdkafka_sys::rd_kafka_producev(
            producer.client().native_ptr(),
            tag::RD_KAFKA_VTYPE_TOPIC,
            topic.as_ptr(),
            tag::RD_KAFKA_VTYPE_MSGFLAGS,
            rdkafka_sys::RD_KAFKA_MSG_F_COPY,
            tag::RD_KAFKA_VTYPE_VALUE,
            c"x".as_ptr(),
            1_usize,
            tag::RD_KAFKA_VTYPE_HEADER,
            c"\xff\xfe".as_ptr(),
            c"v".as_ptr(),
            1_usize,
            tag::RD_KAFKA_VTYPE_END,
        )
    };
    assert_eq!(sent, rdkafka_sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
    tokio::task::block_in_place(|| producer.flush(PATIENCE)).unwrap();
    let mut reader = fixture.reader(0, 0).await;
    let record = read(&mut reader, 1).await.remove(0);
    assert_eq!(record.headers, [("\u{fffd}\u{fffd}".to_owned(), Some(b"v".to_vec()))]);
    assert_eq!(codec::decode(&record), Err(codec::Undecodable::NotCloudEvent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_shown_to_tools_and_not_read_back() {
    let Some(fixture) = Fixture::shared(1).await else { return };
    fixture.write_numbers(10).await;
    let mut reader = fixture.reader(0, 0).await;
    read(&mut reader, 10).await;
    reader.commit_for_tools(7);
    let group = fixture.kafka.config().group_id.clone();
    let tool: BaseConsumer = fixture.foreign(&[("group.id", &group)]).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(&fixture.topic, 0);
    let shown = tokio::task::spawn_blocking(move || {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let found = tool.committed_offsets(list.clone(), PATIENCE).unwrap().elements()[0].offset();
            if found != Offset::Invalid || std::time::Instant::now() > deadline {
                return found;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert_eq!(shown.await.unwrap(), Offset::Offset(7));
    let mut again = fixture.reader(0, 2).await;
    assert_eq!(read(&mut again, 1).await[0].offset, 2);
}
