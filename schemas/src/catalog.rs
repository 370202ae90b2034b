//! The fields that each event type promises, for checking expressions before anything runs.

use crate::payload;

/// The shape of a value as far as the checker cares.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Anything: not checked further.
    Any,
    /// A text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// true or false.
    Boolean,
    /// A list of one shape.
    List(Box<Shape>),
    /// A closed record: naming another field is a mistake.
    Record(Vec<Field>),
    /// An open map: any key may or may not be there.
    Map(Box<Shape>),
}

/// A field of a [`Shape::Record`].
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its shape when it is there and not null.
    pub shape: Shape,
    /// It may be missing or null: an expression must use `has()` or give a default.
    pub optional: bool,
}

fn field(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, optional: false }
}

fn maybe(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, optional: true }
}

/// Every event type of ours, for suggestions.
pub const EVENT_TYPES: &[&str] = &[
    payload::GIT_BRANCH_CREATED,
    payload::GIT_BRANCH_UPDATED,
    payload::GIT_BRANCH_DELETED,
    payload::GIT_TAG_CREATED,
    payload::GIT_TAG_UPDATED,
    payload::GIT_TAG_DELETED,
    payload::GIT_PULL_REQUEST_OPENED,
    payload::GIT_PULL_REQUEST_UPDATED,
    payload::GIT_PULL_REQUEST_MERGED,
    payload::GIT_PULL_REQUEST_CLOSED,
    payload::JIRA_ISSUE_CREATED,
    payload::JIRA_ISSUE_UPDATED,
    payload::JIRA_ISSUE_TRANSITIONED,
    payload::JIRA_ISSUE_MOVED,
    payload::JIRA_ISSUE_DELETED,
    payload::JIRA_COMMENT_CREATED,
    payload::JIRA_COMMENT_UPDATED,
    payload::JIRA_COMMENT_DELETED,
    payload::DATASET_OBJECT_CREATED,
    payload::DATASET_OBJECT_DELETED,
    payload::DATASET_VERSION_PUBLISHED,
    payload::DATASET_REF_CREATED,
    payload::MODEL_PROMOTED,
    payload::RUN_FINISHED,
    payload::CRON_TICK,
    payload::MANUAL,
];

/// The shape of `event` (the CloudEvent, `data` included) for one event type. A foreign type has open `data`.
pub fn event_shape(ty: &str) -> Shape {
    let text = || Shape::String;
    let data = match ty {
        payload::GIT_BRANCH_CREATED | payload::GIT_BRANCH_UPDATED | payload::GIT_BRANCH_DELETED => {
            let mut fields = git_fields(ty == payload::GIT_BRANCH_CREATED, ty == payload::GIT_BRANCH_DELETED);
            fields.push(field("branch", text()));
            Shape::Record(fields)
        }
        payload::GIT_TAG_CREATED | payload::GIT_TAG_UPDATED | payload::GIT_TAG_DELETED => {
            let mut fields = git_fields(ty == payload::GIT_TAG_CREATED, ty == payload::GIT_TAG_DELETED);
            fields.push(field("tag", text()));
            Shape::Record(fields)
        }
        payload::JIRA_ISSUE_CREATED
        | payload::JIRA_ISSUE_UPDATED
        | payload::JIRA_ISSUE_TRANSITIONED
        | payload::JIRA_ISSUE_MOVED
        | payload::JIRA_ISSUE_DELETED => jira_issue(ty == payload::JIRA_ISSUE_MOVED),
        payload::JIRA_COMMENT_CREATED | payload::JIRA_COMMENT_UPDATED | payload::JIRA_COMMENT_DELETED => {
            Shape::Record(vec![
                field("issue_id", text()),
                maybe("issue_key", text()),
                field("comment_id", text()),
                maybe("body", text()),
                maybe("actor", text()),
            ])
        }
        payload::DATASET_OBJECT_CREATED | payload::DATASET_OBJECT_DELETED => Shape::Record(vec![
            maybe("dataset", text()),
            field("bucket", text()),
            field("key", text()),
            maybe("size", Shape::Integer),
            maybe("etag", text()),
            maybe("sequencer", text()),
            field("delete_marker", Shape::Boolean),
        ]),
        payload::DATASET_VERSION_PUBLISHED | payload::DATASET_REF_CREATED => Shape::Record(vec![
            field("dataset", text()),
            // Our own datasets count their versions; other systems name theirs by a text.
            field("version", Shape::Any),
            maybe("previous", Shape::Any),
            maybe("operation", text()),
            maybe("digest", text()),
            field("data_changed", Shape::Boolean),
            field("added", Shape::List(Box::new(text()))),
            field("removed", Shape::List(Box::new(text()))),
        ]),
        payload::GIT_PULL_REQUEST_OPENED
        | payload::GIT_PULL_REQUEST_UPDATED
        | payload::GIT_PULL_REQUEST_MERGED
        | payload::GIT_PULL_REQUEST_CLOSED => pull_request(ty == payload::GIT_PULL_REQUEST_MERGED),
        payload::MODEL_PROMOTED => Shape::Record(vec![
            field("model", text()),
            field("version", Shape::Integer),
            field("digest", text()),
            field("stage", text()),
            maybe("previous", Shape::Integer),
            field("metrics", Shape::Map(Box::new(Shape::Number))),
            maybe("run", text()),
        ]),
        payload::RUN_FINISHED => Shape::Record(vec![
            field("run", text()),
            field("workflow", text()),
            field("project", text()),
            maybe("repo", text()),
            maybe("branch", text()),
            maybe("commit", text()),
            field("started_at", text()),
            field("cause", Shape::Record(vec![field("source", text()), field("id", text()), field("type", text())])),
            field("state", text()),
            field("ended_at", text()),
            field("duration_ms", Shape::Integer),
        ]),
        payload::CRON_TICK => Shape::Record(vec![
            field("trigger", text()),
            field("scheduled_at", text()),
            field("late_by", Shape::Integer),
            field("missed", Shape::Integer),
        ]),
        payload::MANUAL => Shape::Record(vec![maybe("actor", text()), maybe("workflow", text())]),
        _ => Shape::Any,
    };
    Shape::Record(vec![
        field("id", text()),
        field("source", text()),
        field("type", text()),
        maybe("subject", text()),
        maybe("time", text()),
        field("data", data),
    ])
}

fn git_fields(created: bool, deleted: bool) -> Vec<Field> {
    let text = || Shape::String;
    vec![
        field("repo", text()),
        field("provider", text()),
        Field { name: "before", shape: text(), optional: created },
        Field { name: "after", shape: text(), optional: deleted },
        maybe("forced", Shape::Boolean),
        maybe("actor", text()),
        maybe("actor_id", text()),
        field(
            "commits",
            Shape::List(Box::new(Shape::Record(vec![
                field("id", text()),
                field("message", text()),
                maybe("author", text()),
            ]))),
        ),
        maybe("commit_count", Shape::Integer),
        maybe("base_ref", text()),
        maybe("default_branch", text()),
        field("merge_queue", Shape::Boolean),
        // A list of paths, or a record that says why there is none: an expression has to look.
        maybe("changed_paths", Shape::Any),
        maybe("push_options", Shape::List(Box::new(text()))),
    ]
}

fn pull_request(merged: bool) -> Shape {
    let text = || Shape::String;
    let side = || Shape::Record(vec![maybe("repo", text()), field("branch", text()), maybe("commit", text())]);
    Shape::Record(vec![
        field("repo", text()),
        field("provider", text()),
        field("number", Shape::Integer),
        field("title", text()),
        maybe("author", text()),
        maybe("author_id", text()),
        maybe("actor", text()),
        maybe("actor_id", text()),
        field("head", side()),
        field("base", side()),
        field("trusted", Shape::Boolean),
        maybe("before", text()),
        Field { name: "merge_commit", shape: text(), optional: !merged },
        field("draft", Shape::Boolean),
    ])
}

fn jira_issue(moved: bool) -> Shape {
    let text = || Shape::String;
    let mut fields = vec![
        field("site", text()),
        field("issue_id", text()),
        maybe("issue_key", text()),
        maybe("project", text()),
        maybe("issue_type", text()),
        maybe("status_from", text()),
        maybe("status_to", text()),
        maybe("status_from_id", text()),
        maybe("status_to_id", text()),
        maybe("resolution_to", text()),
        maybe("changelog_id", text()),
        field("fields", Shape::List(Box::new(text()))),
        field("labels_added", Shape::List(Box::new(text()))),
        field("labels_removed", Shape::List(Box::new(text()))),
        maybe("actor", text()),
    ];
    if moved {
        fields.extend(["key_from", "key_to", "project_from", "project_to"].map(|name| maybe(name, text())));
    }
    Shape::Record(fields)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{Digest, payload::*};

    fn members(value: &impl serde::Serialize) -> Vec<(String, Value)> {
        let Value::Object(members) = serde_json::to_value(value).expect("JSON") else { panic!("an object") };
        members.into_iter().collect()
    }

    fn fits(shape: &Shape, value: &Value) -> bool {
        match shape {
            Shape::Any => true,
            Shape::String => value.is_string(),
            Shape::Integer => value.is_i64() || value.is_u64(),
            Shape::Number => value.is_number(),
            Shape::Boolean => value.is_boolean(),
            Shape::List(item) => value.as_array().is_some_and(|items| items.iter().all(|value| fits(item, value))),
            Shape::Map(item) => value.as_object().is_some_and(|items| items.values().all(|value| fits(item, value))),
            Shape::Record(fields) => value.as_object().is_some_and(|members| {
                let known = members.keys().all(|name| fields.iter().any(|field| field.name == name));
                known
                    && fields.iter().all(|field| match members.get(field.name) {
                        None | Some(Value::Null) => field.optional,
                        Some(value) => fits(&field.shape, value),
                    })
            }),
        }
    }

    fn data(ty: &str) -> Shape {
        let Shape::Record(fields) = event_shape(ty) else { panic!("an event is a record") };
        fields.into_iter().find(|field| field.name == "data").expect("every event has data").shape
    }

    /// The payload fits; with each optional member taken away it still does, and every other member is needed.
    #[track_caller]
    fn check(ty: &str, payload: &impl serde::Serialize) {
        let shape = data(ty);
        let full = serde_json::to_value(payload).expect("JSON");
        assert!(fits(&shape, &full), "{ty}: {full}");
        let Shape::Record(fields) = &shape else { panic!("{ty} is a record") };
        for (name, _) in members(payload) {
            let mut without = full.clone();
            without[&name] = Value::Null;
            let field = fields.iter().find(|field| field.name == name).expect("known");
            assert_eq!(fits(&shape, &without), field.optional, "{ty}: {name}");
        }
        let mut more = full.clone();
        more["other"] = json!(1);
        assert!(!fits(&shape, &more), "{ty}: an unknown member");
    }

    #[test]
    fn payloads_and_their_descriptions_are_in_step() {
        let text = || Some("x".to_owned());
        let change = GitRefChange {
            branch: text(),
            before: text(),
            after: text(),
            forced: Some(true),
            actor: text(),
            actor_id: text(),
            commits: vec![Commit { id: "x".into(), message: "x".into(), author: None }],
            commit_count: Some(1),
            base_ref: text(),
            default_branch: text(),
            changed_paths: Some(AnnouncedPaths::incomplete("x")),
            push_options: vec!["x".into()],
            ..GitRefChange::default()
        };
        check(GIT_BRANCH_UPDATED, &change);
        check(GIT_BRANCH_CREATED, &GitRefChange { before: None, ..change.clone() });
        check(GIT_BRANCH_DELETED, &GitRefChange { after: None, ..change.clone() });
        check(GIT_TAG_UPDATED, &GitRefChange { branch: None, tag: text(), ..change });
        let side = || PullRequestSide { repo: text(), branch: "x".into(), commit: text() };
        let request = GitPullRequest {
            repo: "x".into(),
            provider: "x".into(),
            number: 1,
            title: "x".into(),
            author: text(),
            author_id: text(),
            actor: text(),
            actor_id: text(),
            head: side(),
            base: side(),
            trusted: true,
            before: text(),
            merge_commit: text(),
            draft: false,
        };
        check(GIT_PULL_REQUEST_OPENED, &request);
        check(GIT_PULL_REQUEST_MERGED, &request);
        let cause = Cause { source: "x".into(), id: "x".into(), ty: "x".into() };
        let finished = RunFinished {
            run: "x".into(),
            workflow: "x".into(),
            state: "x".into(),
            project: "x".into(),
            repo: text(),
            branch: text(),
            commit: text(),
            started_at: "x".into(),
            ended_at: "x".into(),
            duration_ms: 1,
            cause,
        };
        check(RUN_FINISHED, &finished);
        let promoted = ModelPromoted {
            model: "x".into(),
            version: 2,
            digest: Digest::of(b"x"),
            stage: "x".into(),
            previous: Some(1),
            metrics: [("loss".to_owned(), 0.5)].into(),
            run: text(),
        };
        check(MODEL_PROMOTED, &promoted);
        let version = DatasetVersion {
            dataset: "x".into(),
            version: 2,
            previous: Some(1),
            digest: Digest::of(b"x"),
            data_changed: true,
            added: vec!["x".into()],
            removed: vec![],
        };
        check(DATASET_VERSION_PUBLISHED, &version);
        let foreign = ForeignVersion {
            dataset: "x".into(),
            version: "x".into(),
            previous: text(),
            operation: text(),
            data_changed: true,
            added: vec!["x".into()],
            removed: vec![],
        };
        check(DATASET_VERSION_PUBLISHED, &foreign);
        check(DATASET_REF_CREATED, &foreign);
        let object = DatasetObject {
            dataset: text(),
            bucket: "x".into(),
            key: "x".into(),
            size: Some(1),
            etag: text(),
            sequencer: text(),
            delete_marker: false,
        };
        check(DATASET_OBJECT_CREATED, &object);
        check(DATASET_OBJECT_DELETED, &object);
        let issue = JiraIssue {
            site: "x".into(),
            issue_id: "x".into(),
            issue_key: text(),
            project: text(),
            issue_type: text(),
            status_from: text(),
            status_to: text(),
            status_from_id: text(),
            status_to_id: text(),
            resolution_to: text(),
            changelog_id: text(),
            fields: vec!["x".into()],
            labels_added: vec!["x".into()],
            labels_removed: vec![],
            actor: text(),
            moved: None,
        };
        check(JIRA_ISSUE_TRANSITIONED, &issue);
        let moved = JiraMove { key_from: text(), key_to: text(), project_from: text(), project_to: text() };
        check(JIRA_ISSUE_MOVED, &JiraIssue { moved: Some(moved), ..issue });
        let comment = JiraComment {
            issue_id: "x".into(),
            issue_key: text(),
            comment_id: "x".into(),
            body: text(),
            actor: text(),
        };
        check(JIRA_COMMENT_CREATED, &comment);
        let tick = CronTick { trigger: "x".into(), scheduled_at: "x".into(), late_by: 1, missed: 1 };
        check(CRON_TICK, &tick);
    }
}
