//! Jira's shapes, in fixtures of our own.

use serde_json::{Value, json};

use super::{bytes, headers, one, refused, translate, unverified};
use crate::http::{Headers, Provider::Jira, SourceConfig};

pub(super) fn issue(items: &Value) -> Value {
    json!({
        "timestamp": 1_767_323_055_123_i64, "webhookEvent": "jira:issue_updated", "issue_event_type_name": "issue_generic",
        "user": {"accountId": "5b1", "displayName": "Ada"},
        "issue": {"id": "10040", "key": "ML-7", "self": "https://acme.atlassian.net/rest/api/2/issue/10040",
            "fields": {"project": {"key": "ML", "name": "Models"}, "issuetype": {"name": "Task"},
                "status": {"id": "3", "name": "Ready"}, "labels": ["a"]}},
        "changelog": {"id": "777", "items": items},
    })
}

fn transition() -> Value {
    json!([
        {"field": "resolution", "fieldtype": "jira", "fieldId": "resolution", "from": null, "fromString": null,
            "to": "10", "toString": "Done"},
        {"field": "status", "fieldtype": "jira", "fieldId": "status", "from": "1", "fromString": "Open", "to": "3",
            "toString": "Ready"},
    ])
}

fn event(payload: &Value) -> kickwheel_schemas::CloudEvent {
    one(translate(Jira, &unverified(), &Headers::default(), &bytes(payload)))
}

#[track_caller]
fn nothing(payload: &Value) {
    assert_eq!(translate(Jira, &unverified(), &Headers::default(), &bytes(payload)), Ok(vec![]));
}

#[test]
fn a_transition_is_one_event_with_everything_that_changed() {
    let given = headers(&[("X-Atlassian-Webhook-Identifier", "W"), ("X-Atlassian-Webhook-Retry", "2")]);
    let event = one(translate(Jira, &unverified(), &given, &bytes(&issue(&transition()))));
    assert_eq!(
        serde_json::to_value(&event).expect("JSON"),
        json!({
            "specversion": "1.0", "id": "W", "source": "https://acme.atlassian.net", "subject": "10040",
            "type": "dev.kickwheel.jira.issue.transitioned", "time": "2026-01-02T03:04:15.123Z",
            "datacontenttype": "application/json",
            "data": {
                "site": "https://acme.atlassian.net", "issue_id": "10040", "issue_key": "ML-7", "project": "ML",
                "issue_type": "Task", "status_from": "Open", "status_to": "Ready", "status_from_id": "1",
                "status_to_id": "3", "resolution_to": "Done", "changelog_id": "777",
                "fields": ["resolution", "status"], "labels_added": [], "labels_removed": [], "actor": "5b1",
            },
        })
    );
}

#[test]
fn moved_goes_before_transitioned_before_updated() {
    let key = json!({"field": "Key", "fieldtype": "jira", "fromString": "OPS-1", "toString": "ML-7"});
    let project = json!({"field": "project", "fieldtype": "jira", "fieldId": "project", "from": "1",
        "fromString": "Operations", "to": "2", "toString": "Models"});
    let status = transition()[1].clone();
    let moved = event(&issue(&json!([key, project, status])));
    assert_eq!(moved.ty, "dev.kickwheel.jira.issue.moved");
    let names = ["key_from", "key_to", "project_from", "project_to", "project", "status_to"];
    let told: Value = names.iter().map(|name| moved.data[name].clone()).collect();
    assert_eq!(told, json!(["OPS-1", "ML-7", "Operations", "Models", "ML", "Ready"]));
    assert_eq!(moved.subject.as_deref(), Some("10040"), "the id survives");
    let updated = event(&issue(&json!([{"field": "Rank", "fieldtype": "jira", "toString": "ranked higher"}])));
    assert_eq!(updated.ty, "dev.kickwheel.jira.issue.updated");
    assert!(updated.data.get("key_from").is_none() && updated.data["status_to"].is_null());
    assert_eq!(event(&issue(&Value::Null)).ty, "dev.kickwheel.jira.issue.updated", "without a changelog");
}

#[test]
fn a_field_is_known_by_its_id_where_there_is_one() {
    let status = |item: Value| event(&issue(&json!([item]))).ty.ends_with(".transitioned");
    assert!(status(json!({"field": "Status", "fieldtype": "jira", "fromString": "a", "toString": "b"})), "Data Center");
    assert!(
        status(json!({"field": "Zustand", "fieldtype": "jira", "fieldId": "status", "toString": "b"})),
        "translated"
    );
    assert!(!status(json!({"field": "status", "fieldtype": "custom", "fieldId": "customfield_1", "toString": "b"})));
    assert!(!status(json!({"field": "Status", "fieldtype": "custom", "toString": "b"})));
    let same = json!([
        {"field": "Size", "fieldtype": "custom", "fieldId": "customfield_1"},
        {"field": "Size", "fieldtype": "custom", "fieldId": "customfield_2"},
        {"field": "Size", "fieldtype": "custom", "fieldId": "customfield_2"},
        {"field": "Link", "fieldtype": "jira"},
    ]);
    assert_eq!(event(&issue(&same)).data["fields"], json!(["customfield_1", "customfield_2", "Link"]));
}

#[test]
fn labels_are_compared_as_sets() {
    let labels = |from: Value, to: Value| {
        let item = json!([{"field": "labels", "fieldtype": "jira", "fromString": from, "toString": to}]);
        let data = event(&issue(&item)).data;
        (data["labels_added"].clone(), data["labels_removed"].clone())
    };
    assert_eq!(labels(json!("a b"), json!("b c a d")), (json!(["c", "d"]), json!([])));
    assert_eq!(labels(json!("a b"), Value::Null), (json!([]), json!(["a", "b"])));
    assert_eq!(labels(json!(""), json!("a")), (json!(["a"]), json!([])));
}

#[test]
fn an_issue_is_made_and_deleted_whatever_its_changelog_says() {
    for (name, ty) in
        [("jira:issue_created", "created"), ("issue_created", "created"), ("jira:issue_deleted", "deleted")]
    {
        let mut payload = issue(&transition());
        payload["webhookEvent"] = json!(name);
        assert_eq!(event(&payload).ty, format!("dev.kickwheel.jira.issue.{ty}"), "{name}");
    }
}

pub(super) fn comment(name: &str) -> Value {
    json!({
        "timestamp": 1_767_323_055_123_i64, "webhookEvent": name,
        "comment": {"self": "https://jira.example/jira/rest/api/2/issue/10013/comment/10082", "id": "10082",
            "body": "Done?", "author": {"name": "ada"}, "updateAuthor": {"name": "bob"},
            "created": "2026-01-02T03:04:15.000+0000", "updated": "2026-01-02T03:05:15.000+0000"},
    })
}

#[test]
fn a_comment_without_its_issue_still_names_it() {
    for (name, verb, actor, id) in [
        ("comment_created", "created", json!("ada"), "comment:10082:created"),
        ("jira:comment_updated", "updated", json!("bob"), "comment:10082:updated:2026-01-02T03:05:15.000Z"),
        ("comment_deleted", "deleted", Value::Null, "comment:10082:deleted"),
    ] {
        let event = event(&comment(name));
        assert_eq!(event.ty, format!("dev.kickwheel.jira.comment.{verb}"));
        assert_eq!((event.source.as_str(), event.subject.as_deref()), ("https://jira.example/jira", Some("10013")));
        assert_eq!(event.id, id);
        let expected =
            json!({"issue_id": "10013", "issue_key": null, "comment_id": "10082", "body": "Done?", "actor": actor});
        assert_eq!(event.data, expected);
    }
    let mut wrong = comment("comment_created");
    wrong["comment"]["self"] = json!("https://jira.example/x");
    assert_eq!(
        refused(translate(Jira, &unverified(), &Headers::default(), &bytes(&wrong))),
        (400, "shape_invalid", true)
    );
}

#[test]
fn the_twins_of_a_comment_are_one_event() {
    let twin = |name: &str, webhook: &str, items: Value| {
        let mut payload = issue(&items);
        payload["issue_event_type_name"] = json!(name);
        payload["comment"] = comment(webhook)["comment"].clone();
        payload["comment"]["self"] = json!("https://acme.atlassian.net/rest/api/2/issue/10040/comment/10082");
        let mut alone = comment(webhook);
        alone["comment"] = payload["comment"].clone();
        (event(&payload), event(&alone))
    };
    for (name, webhook) in [("issue_commented", "comment_created"), ("issue_comment_edited", "comment_updated")] {
        for items in [json!([]), json!([{"field": "Comment", "fieldtype": "jira", "from": "10082"}])] {
            let (change, itself) = twin(name, webhook, items);
            assert_eq!((change.ty, change.id, change.source), (itself.ty, itself.id, itself.source), "{name}");
            assert_eq!((&change.data["issue_key"], &itself.data["issue_key"]), (&json!("ML-7"), &Value::Null));
        }
    }
    // What changed besides is the issue's own event; the comment is told by its own.
    let (change, _) = twin("issue_generic", "comment_created", transition());
    assert_eq!(change.ty, "dev.kickwheel.jira.issue.transitioned");
    let mut deleted = issue(&json!([{"field": "Comment", "fieldtype": "jira", "from": "10082", "to": null}]));
    deleted["issue_event_type_name"] = json!("issue_comment_deleted");
    let deleted = event(&deleted);
    assert_eq!(
        (deleted.ty.as_str(), deleted.id.as_str()),
        ("dev.kickwheel.jira.comment.deleted", "comment:10082:deleted")
    );
}

#[test]
fn a_document_of_atlassians_is_read_as_text() {
    let mut payload = comment("comment_created");
    payload["comment"]["body"] = json!({"type": "doc", "version": 1, "content": [
        {"type": "paragraph", "content": [{"type": "text", "text": "Is it "}, {"type": "text", "text": "done?"}]},
        {"type": "paragraph", "content": [{"type": "text", "text": "Yes."}]},
    ]});
    assert_eq!(event(&payload).data["body"], "Is it done?\nYes.");
}

#[test]
fn automation_sends_a_bare_issue_with_numbers() {
    let bare = json!({"id": 10040, "key": "ML-7", "self": "https://acme.atlassian.net/rest/api/2/issue/10040",
        "fields": {"project": {"key": "ML"}, "issuetype": {"name": "Task"}}});
    for payload in [bare.clone(), json!({"issue": bare})] {
        let event = event(&payload);
        assert_eq!((event.ty.as_str(), event.subject.as_deref()), ("dev.kickwheel.jira.issue.updated", Some("10040")));
        assert_eq!((event.source.as_str(), &event.data["issue_key"]), ("https://acme.atlassian.net", &json!("ML-7")));
        assert!(event.id.starts_with("sha256:"), "no delivery is named");
    }
}

#[test]
fn a_post_function_tells_of_a_status_that_the_issue_has_not_yet() {
    let mut payload = issue(&Value::Null);
    payload
        .as_object_mut()
        .expect("an object")
        .retain(|name, _| ["timestamp", "user", "issue"].contains(&name.as_str()));
    payload["transition"] = json!({"transitionName": "Train", "from_status": "Ready", "to_status": "Training"});
    let event = event(&payload);
    assert_eq!(event.ty, "dev.kickwheel.jira.issue.transitioned");
    let names = ["status_from", "status_from_id", "status_to", "status_to_id", "fields"];
    let told: Value = names.iter().map(|name| event.data[name].clone()).collect();
    assert_eq!(told, json!(["Ready", "3", "Training", null, ["status"]]));
}

#[test]
fn what_is_not_about_issues_means_nothing_and_what_is_nameless_is_kept() {
    assert_eq!(translate(Jira, &unverified(), &Headers::default(), b""), Ok(vec![]), "the body was left out");
    nothing(&json!({"webhookEvent": "jira:version_released", "version": {}}));
    nothing(&json!({"webhookEvent": "sprint_started", "sprint": {}}));
    // One of the names comes with its issue and what changed of it, the other with neither.
    nothing(&json!({"webhookEvent": "worklog_created", "worklog": {"issueId": "10040"}}));
    for name in ["worklog_updated", "jira:worklog_updated"] {
        let mut payload = issue(&json!([{"field": "timespent", "fieldtype": "jira", "to": "60", "toString": "60"}]));
        payload["webhookEvent"] = json!(name);
        assert_eq!(event(&payload).data["fields"], json!(["timespent"]), "{name}");
    }
    for body in ["{}", r#"{"accountId": "x"}"#, r#"{"id": 1, "key": "ML-7"}"#, "[]", "5"] {
        let answer = refused(translate(Jira, &unverified(), &Headers::default(), body.as_bytes()));
        assert_eq!(answer, (400, "shape_invalid", true), "{body}");
    }
    let answer =
        refused(translate(Jira, &unverified(), &Headers::default(), br#"{"webhookEvent": "comment_created",}"#));
    assert_eq!(answer, (400, "json_invalid", true));
}

#[test]
fn our_own_doings_are_not_told_to_us() {
    let config = |account: &str| SourceConfig { own_account: Some(account.to_owned()), ..unverified() };
    let tell = |config: &SourceConfig, payload: &Value| {
        translate(Jira, config, &Headers::default(), &bytes(payload)).expect("it is taken").len()
    };
    assert_eq!(tell(&config("5b1"), &issue(&transition())), 0);
    assert_eq!(tell(&config("5b2"), &issue(&transition())), 1);
    assert_eq!(tell(&config("ada"), &comment("comment_created")), 0);
    assert_eq!(tell(&config("ada"), &comment("comment_deleted")), 1, "nobody knows who it was");
    assert_eq!(
        one(translate(
            Jira,
            &SourceConfig { source: Some("https://x".into()), ..unverified() },
            &Headers::default(),
            &bytes(&issue(&transition()))
        ))
        .data["site"],
        "https://x"
    );
}
