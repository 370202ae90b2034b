//! Object stores and what keeps versions of datasets, in fixtures of our own.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{bytes, headers, one, refused, translate, unverified};
use crate::http::{Headers, Provider, SourceConfig, answer};

pub(super) fn record(name: &str, key: &str, size: Option<u64>) -> Value {
    let mut object = json!({"key": key, "sequencer": "0055"});
    if let Some(size) = size {
        object["size"] = json!(size);
        object["eTag"] = json!("d41d");
    }
    json!({"eventVersion": "2.3", "eventSource": "aws:s3", "eventTime": "2026-01-02T03:04:15.678Z", "eventName": name,
        "s3": {"bucket": {"name": "raw"}, "object": object}})
}

fn translated(provider: Provider, payload: &Value) -> Vec<kickwheel_schemas::CloudEvent> {
    translate(provider, &unverified(), &Headers::default(), &bytes(payload))
        .unwrap_or_else(|no| panic!("{provider}: failed to {no}"))
}

#[test]
fn a_record_of_s3_is_an_object_with_its_decoded_key() {
    let event =
        translated(Provider::S3, &json!({"Records": [record("ObjectCreated:Put", "a+b%2Fc%2B%281%29.jpg", Some(0))]}));
    let event = one(Ok(event));
    assert_eq!((event.source.as_str(), event.subject.as_deref()), ("s3://raw", Some("raw")));
    assert_eq!(event.time.as_deref(), Some("2026-01-02T03:04:15.678Z"));
    assert_eq!(event.ty, "dev.kickwheel.dataset.object.created");
    assert_eq!(
        event.data,
        json!({"dataset": null, "bucket": "raw", "key": "a b/c+(1).jpg", "size": 0, "etag": "d41d", "sequencer": "0055",
            "delete_marker": false})
    );
    let config = SourceConfig { dataset: Some("churn/raw".into()), ..unverified() };
    let body = bytes(&json!({"Records": [record("ObjectRemoved:DeleteMarkerCreated", "a", None)]}));
    let event = one(translate(Provider::S3, &config, &Headers::default(), &body));
    assert_eq!(event.subject.as_deref(), Some("churn/raw"));
    let names = ["dataset", "size", "etag", "delete_marker"];
    let told: Value = names.iter().map(|name| event.data[name].clone()).collect();
    assert_eq!(
        (event.ty.as_str(), told),
        ("dev.kickwheel.dataset.object.deleted", json!(["churn/raw", null, null, true]))
    );
}

#[test]
fn only_what_makes_or_removes_an_objects_bytes_is_told() {
    for (name, expected) in [
        ("ObjectCreated:Post", Some("created")),
        ("ObjectCreated:Copy", Some("created")),
        ("ObjectCreated:CompleteMultipartUpload", Some("created")),
        ("s3:ObjectCreated:Put", Some("created")),
        ("s3:ObjectCreated:PutTagging", None),
        ("s3:ObjectCreated:PutRetention", None),
        ("s3:ObjectCreated:PutLegalHold", None),
        ("ObjectRemoved:Delete", Some("deleted")),
        ("s3:ObjectRemoved:NoOP", None),
        ("LifecycleExpiration:Delete", Some("deleted")),
        ("LifecycleExpiration:DeleteMarkerCreated", Some("deleted")),
        ("ObjectTagging:Put", None),
        ("ObjectAcl:Put", None),
        ("ObjectRestore:Completed", None),
        ("s3:ObjectAccessed:Get", None),
        ("s3:Replication:OperationFailedReplication", None),
        ("odd", None),
    ] {
        let events = translated(Provider::Minio, &json!({"Records": [record(name, "a", Some(1))]}));
        let told = events.first().map(|event| event.ty.trim_start_matches("dev.kickwheel.dataset.object."));
        assert_eq!(told, expected, "{name}");
    }
}

#[test]
fn the_numbers_of_records_do_not_depend_on_what_means_nothing() {
    let records = json!({"Records": [
        record("ObjectCreated:Put", "a", Some(1)), record("ObjectTagging:Put", "a", None), record("ObjectRemoved:Delete", "a", None),
    ]});
    let events = translated(Provider::S3, &records);
    let digest = kickwheel_schemas::Digest::of(&bytes(&records)).to_string();
    let ids: Vec<_> = events.iter().map(|event| event.id.clone()).collect();
    assert_eq!(ids, [format!("{digest}#0"), format!("{digest}#2")]);
}

#[test]
fn minio_leaves_the_size_of_an_empty_object_away() {
    let mut empty = record("s3:ObjectCreated:Put", "a", None);
    let payload = |record: &Value| json!({"EventName": "s3:ObjectCreated:Put", "Key": "raw/a", "Records": [record]});
    assert_eq!(translated(Provider::Minio, &payload(&empty))[0].data["size"], Value::Null);
    empty["eventSource"] = json!("minio:s3");
    assert_eq!(translated(Provider::Minio, &payload(&empty))[0].data["size"], 0);
}

#[test]
fn envelopes_are_opened_in_any_nesting_and_name_their_messages() {
    let own = json!({"Records": [record("ObjectCreated:Put", "a", Some(1))]}).to_string();
    let sns = json!({"Type": "Notification", "MessageId": "sns-1", "TopicArn": "arn", "Message": own});
    let sqs = |body: &str| json!({"messageId": "sqs-1", "body": body, "eventSource": "aws:sqs"});
    for (payload, id) in [
        (sns.clone(), "sns-1"),
        (json!({"Records": [sqs(&own)]}), "sqs-1"),
        (json!({"Records": [sqs(&sns.to_string())]}), "sns-1"),
        (json!([sqs(&own)]), "sqs-1"),
        (json!({"Messages": [{"MessageId": "api-1", "Body": own}]}), "api-1"),
        (json!({"Records": [{"EventSource": "aws:sns", "Sns": {"MessageId": "l-1", "Message": own}}]}), "l-1"),
    ] {
        let event = one(Ok(translated(Provider::S3, &payload)));
        assert_eq!((event.id.as_str(), &event.data["key"]), (id, &json!("a")), "{payload}");
    }
    let two = json!({"Records": [sqs(&own), {"messageId": "sqs-2", "body": own}]});
    assert_eq!(translated(Provider::S3, &two).iter().map(|e| e.id.clone()).collect::<Vec<_>>(), ["sqs-1", "sqs-2"]);
}

#[test]
fn what_is_around_nothing_of_ours_means_nothing() {
    for payload in [
        json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "raw"}),
        json!({"Type": "SubscriptionConfirmation", "MessageId": "m", "Message": "You have chosen", "SubscribeURL": "x"}),
        json!({"Type": "Notification", "Message": "hello"}),
        json!({"Type": "Notification", "Message": "{\"Event\": \"s3:TestEvent\"}"}),
        json!({"Records": []}),
        json!({"Records": [{"messageId": "m", "body": "{}"}]}),
        json!({"detail-type": "Object Tags Added", "source": "aws.s3", "detail": {}}),
        json!({"detail-type": "Object Created", "source": "my.own", "detail": {}}),
        json!({}),
        json!([]),
    ] {
        assert_eq!(translated(Provider::S3, &payload), [], "{payload}");
    }
    let check = |change: &dyn Fn(&mut Value)| {
        let mut record = record("ObjectCreated:Put", "a", Some(1));
        change(&mut record);
        refused(translate(Provider::S3, &unverified(), &Headers::default(), &bytes(&json!({"Records": [record]}))))
    };
    let kept = (400, "shape_invalid", true);
    assert_eq!(check(&|r| r["eventVersion"] = json!("3.0")), kept, "another structure");
    assert_eq!(check(&|r| r["s3"]["object"]["key"] = json!("%FF")), kept, "no text");
    assert_eq!(check(&|r| r["s3"]["object"]["size"] = json!(-1)), kept);
    assert_eq!(check(&|r| drop(r["s3"]["bucket"].take())), kept);
    assert_eq!(refused(translate(Provider::S3, &unverified(), &Headers::default(), b"5")), kept);
    assert_eq!(refused(translate(Provider::S3, &unverified(), &Headers::default(), b"[5]")), kept);
}

#[test]
fn keys_of_eventbridge_are_as_they_are() {
    let event = |ty: &str, deletion: Value| {
        let payload = json!({"id": "e-1", "detail-type": ty, "source": "aws.s3", "time": "2026-01-02T03:04:15Z",
            "detail": {"bucket": {"name": "raw"}, "deletion-type": deletion,
                "object": {"key": "a+b (2).jpg", "size": 5, "etag": "b1", "sequencer": "61"}}});
        one(Ok(translated(Provider::S3, &payload)))
    };
    let created = event("Object Created", Value::Null);
    assert_eq!(
        (created.id.as_str(), &created.data["key"], &created.data["size"]),
        ("e-1", &json!("a+b (2).jpg"), &json!(5))
    );
    let deleted = event("Object Deleted", json!("Delete Marker Created"));
    assert_eq!((&deleted.data["delete_marker"], &deleted.data["size"]), (&json!(true), &Value::Null));
    assert_eq!(event("Object Deleted", json!("Permanently Deleted")).data["delete_marker"], false);
}

pub(super) fn pubsub(ty: &str, more: &Value) -> Value {
    let resource = json!({"kind": "storage#object", "bucket": "raw", "name": "a b/ü", "size": "12", "generation": "99",
        "etag": "CO", "updated": "2026-01-02T03:04:15.000Z"});
    let mut message = json!({"message": {"messageId": "1", "publishTime": "2026-01-02T03:04:16Z",
        "data": STANDARD.encode(bytes(&resource)),
        "attributes": {"eventType": ty, "bucketId": "raw", "objectId": "a b/ü", "objectGeneration": "99",
            "payloadFormat": "JSON_API_V1"}}, "subscription": "s"});
    for (name, value) in more.as_object().into_iter().flatten() {
        message["message"]["attributes"][name] = value.clone();
    }
    message
}

#[test]
fn a_notification_of_cloud_storage_is_known_by_generation_and_type() {
    let event = one(Ok(translated(Provider::Gcs, &pubsub("OBJECT_FINALIZE", &json!({"overwroteGeneration": "98"})))));
    assert_eq!(event.id, "raw/a b/ü#99:OBJECT_FINALIZE");
    assert_eq!((event.source.as_str(), event.subject.as_deref()), ("gs://raw", Some("raw")));
    let names = ["bucket", "key", "size", "etag", "sequencer", "delete_marker"];
    let told: Value = names.iter().map(|name| event.data[name].clone()).collect();
    assert_eq!(told, json!(["raw", "a b/ü", 12, "CO", "99", false]));
    for (ty, more, expected) in [
        ("OBJECT_DELETE", json!({}), Some(false)),
        ("OBJECT_ARCHIVE", json!({}), Some(true)),
        ("OBJECT_DELETE", json!({"overwrittenByGeneration": "100"}), None),
        ("OBJECT_ARCHIVE", json!({"overwrittenByGeneration": "100"}), None),
        ("OBJECT_METADATA_UPDATE", json!({}), None),
    ] {
        let events = translated(Provider::Gcs, &pubsub(ty, &more));
        let told = events.first().map(|event| event.data["delete_marker"] == true && event.data["size"].is_null());
        assert_eq!(told, expected, "{ty} {more}");
    }
    let pulled = json!({"receivedMessages": [pubsub("OBJECT_FINALIZE", &json!({})), {"message": {"attributes": {}}}]});
    assert_eq!(one(Ok(translated(Provider::Gcs, &pulled))).id, event.id, "the same whichever way it comes");
    let numbers = json!({"kind": "storage#object", "bucket": "raw", "name": "x", "size": 3, "generation": 7});
    let eventarc = headers(&[("ce-type", "google.cloud.storage.object.v1.finalized"), ("ce-id", "1")]);
    let event = one(translate(Provider::Gcs, &unverified(), &eventarc, &bytes(&numbers)));
    assert_eq!((event.id.as_str(), &event.data["size"]), ("raw/x#7:OBJECT_FINALIZE", &json!(3)));
    let gone = headers(&[("ce-type", "google.cloud.storage.object.v1.deleted")]);
    let event = one(translate(Provider::Gcs, &unverified(), &gone, &bytes(&numbers)));
    assert_eq!(event.ty, "dev.kickwheel.dataset.object.deleted");
    let structured = json!({"specversion": "1.0", "type": "google.cloud.storage.object.v1.archived", "data": numbers});
    assert_eq!(one(Ok(translated(Provider::Gcs, &structured))).data["delete_marker"], true);
    assert_eq!(translated(Provider::Gcs, &json!({"message": {"messageId": "1"}})), []);
}

pub(super) fn blob(ty: &str, api: &str) -> Value {
    json!({"id": "e-1", "eventType": ty, "eventTime": "2026-01-02T03:04:15.1234567Z", "topic": "/subscriptions/x",
        "subject": "/blobServices/default/containers/raw/blobs/a b/c+d.csv", "dataVersion": "",
        "data": {"api": api, "eTag": "0x8", "contentLength": 7, "sequencer": "00",
            "url": "https://acme.blob.core.windows.net/raw/a%20b/c+d.csv"}})
}

#[test]
fn azure_tells_of_complete_blobs_in_both_schemas() {
    let event = one(Ok(translated(Provider::Azure, &json!([blob("Microsoft.Storage.BlobCreated", "PutBlob")]))));
    assert_eq!((event.source.as_str(), event.id.as_str()), ("https://acme.blob.core.windows.net/raw", "e-1"));
    let names = ["bucket", "key", "size", "etag", "sequencer"];
    let told: Value = names.iter().map(|name| event.data[name].clone()).collect();
    assert_eq!(told, json!(["raw", "a b/c+d.csv", 7, "0x8", "00"]));
    assert!(event.time.is_some());
    for (ty, api, expected) in [
        ("Microsoft.Storage.BlobCreated", "PutBlockList", Some("created")),
        ("Microsoft.Storage.BlobCreated", "CopyBlob", Some("created")),
        ("Microsoft.Storage.BlobCreated", "FlushWithClose", Some("created")),
        ("Microsoft.Storage.BlobCreated", "CreateFile", None),
        ("Microsoft.Storage.BlobDeleted", "DeleteBlob", Some("deleted")),
        ("Microsoft.Storage.BlobTierChanged", "SetBlobTier", None),
    ] {
        let grid = blob(ty, api);
        let mut cloud = grid.clone();
        for (from, to) in [("eventType", "type"), ("eventTime", "time"), ("topic", "source")] {
            cloud[to] = cloud[from].take();
        }
        cloud["specversion"] = json!("1.0");
        for payload in [json!([grid]), grid, json!([cloud]), cloud] {
            let events = translated(Provider::Azure, &payload);
            let told = events.first().map(|event| event.ty.trim_start_matches("dev.kickwheel.dataset.object."));
            assert_eq!(told, expected, "{payload}");
        }
    }
    let mut wrong = blob("Microsoft.Storage.BlobCreated", "PutBlob");
    wrong["subject"] = json!("/blobServices/x");
    let answer = refused(translate(Provider::Azure, &unverified(), &Headers::default(), &bytes(&wrong)));
    assert_eq!(answer, (400, "shape_invalid", true));
}

#[test]
fn azure_is_answered_when_it_asks_and_nobody_else_is() {
    let question = json!([{"id": "1", "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "subject": "",
        "data": {"validationCode": "512d38b6", "validationUrl": "https://x"}}]);
    let ask = |provider, payload: &Value| answer(provider, &unverified(), &Headers::default(), &bytes(payload));
    assert_eq!(ask(Provider::Azure, &question), Ok(Some(json!({"validationResponse": "512d38b6"}))));
    assert_eq!(translated(Provider::Azure, &question), []);
    assert_eq!(ask(Provider::Azure, &json!([blob("Microsoft.Storage.BlobCreated", "PutBlob")])), Ok(None));
    assert_eq!(ask(Provider::Github, &question), Ok(None));
    let config = super::with_secret("s");
    let unproved = answer(Provider::Azure, &config, &Headers::default(), &bytes(&question));
    assert_eq!(unproved.map_err(|no| no.status), Err(401), "a stranger cannot have it answered");
    let shown = Headers::default().with_query(Some("secret=s"));
    assert!(answer(Provider::Azure, &config, &shown, &bytes(&question)).is_ok_and(|answer| answer.is_some()));
}

pub(super) fn lakefs(ty: &str) -> Value {
    json!({"event_type": ty, "event_time": "2026-01-02T03:04:15Z", "repository_id": "churn", "branch_id": "main",
        "tag_id": "v1", "commit_id": "22".repeat(32), "source_ref": "feature", "committer": "ada"})
}

#[test]
fn only_what_lakefs_has_done_is_told() {
    for (ty, expected) in [
        ("post-commit", Some(("dataset.version.published", "commit", "lakefs://churn/main", true))),
        ("post-merge", Some(("dataset.version.published", "merge", "lakefs://churn/main", true))),
        ("post-create-branch", Some(("dataset.ref.created", "create-branch", "lakefs://churn/main", false))),
        ("post-create-tag", Some(("dataset.ref.created", "create-tag", "lakefs://churn/v1", false))),
        ("post-delete-branch", None),
        ("pre-merge", None),
        ("pre-commit", None),
        ("prepare-commit", None),
    ] {
        let events = translated(Provider::LakeFs, &lakefs(ty));
        let told = events.first().map(|event| {
            let operation = event.data["operation"].as_str().expect("a word");
            let changed = event.data["data_changed"] == true;
            (event.ty.trim_start_matches("dev.kickwheel."), operation, event.source.as_str(), changed)
        });
        assert_eq!(told, expected, "{ty}");
    }
    let event = one(Ok(translated(Provider::LakeFs, &lakefs("post-commit"))));
    assert_eq!((event.subject.as_deref(), &event.data["version"]), (Some("churn"), &json!("22".repeat(32))));
    assert!(event.data["previous"].is_null() && event.id.starts_with("sha256:"));
}

pub(super) fn hub(scope: &str, refs: &Value) -> Value {
    json!({"event": {"scope": scope, "action": "update"}, "webhook": {"id": "w"}, "updatedRefs": refs,
        "repo": {"type": "dataset", "name": "acme/churn", "headSha": "h1",
            "url": {"web": "https://huggingface.co/datasets/acme/churn"}}})
}

#[test]
fn the_main_branch_of_the_hub_is_the_version() {
    let told = |scope: &str, refs: Value| -> Vec<Value> {
        let given = headers(&[("Webhook-Id", "evt")]);
        let events =
            translate(Provider::HuggingFace, &unverified(), &given, &bytes(&hub(scope, &refs))).expect("taken");
        events
            .iter()
            .map(|e| {
                json!([e.id, e.ty.trim_start_matches("dev.kickwheel.dataset."), e.data["version"], e.data["previous"]])
            })
            .collect()
    };
    let main = json!({"ref": "refs/heads/main", "oldSha": "a", "newSha": "b"});
    assert_eq!(told("repo.content", json!([main])), [json!(["evt", "version.published", "b", "a"])]);
    assert_eq!(told("repo.content.lfs", json!([main])).len(), 1, "a narrower scope is an update of what is above it");
    assert_eq!(told("repo.content", Value::Null), [json!(["evt", "version.published", "h1", null])]);
    assert_eq!(told("repo", Value::Null), Vec::<Value>::new());
    assert_eq!(told("discussion.comment", json!([main])), Vec::<Value>::new());
    let pr = json!({"ref": "refs/pr/5", "oldSha": null, "newSha": "c"});
    let moved = json!({"ref": "refs/pr/6", "oldSha": "c", "newSha": "d"});
    let gone = json!({"ref": "refs/heads/x", "oldSha": "c", "newSha": null});
    assert_eq!(
        told("repo.content", json!([pr, moved, gone, main])),
        [json!(["evt#0", "ref.created", "c", null]), json!(["evt#3", "version.published", "b", "a"])]
    );
}

#[test]
fn mlflows_events_keep_their_own_names() {
    let payload = json!({"entity": "model_version", "action": "created", "timestamp": "2026-01-02T03:04:15.123+00:00",
        "data": {"name": "churn", "version": "3"}});
    let given = headers(&[("X-MLflow-Delivery-Id", "d")]);
    let event = one(translate(Provider::Mlflow, &unverified(), &given, &bytes(&payload)));
    assert_eq!((event.ty.as_str(), event.id.as_str()), ("org.mlflow.model_version.created", "d"));
    assert_eq!((event.subject.as_deref(), &event.data), (Some("churn"), &payload["data"]));
    let odd = json!({"entity": "a b", "action": "created", "data": {}});
    let answer = refused(translate(Provider::Mlflow, &unverified(), &given, &bytes(&odd)));
    assert_eq!(answer, (400, "shape_invalid", true));
}

#[test]
fn a_generic_webhook_is_one_event_with_its_payload() {
    let payload = json!({"any": [1, {"thing": null}]});
    let event = one(Ok(translated(Provider::Generic, &payload)));
    assert_eq!(
        (event.ty.as_str(), event.source.as_str(), &event.data),
        ("webhook.received", "/hooks/generic", &payload)
    );
    let text = headers(&[("content-type", "text/plain")]);
    let answer = refused(translate(Provider::Generic, &unverified(), &text, b"x"));
    assert_eq!(answer, (415, "media_type", false));
}
