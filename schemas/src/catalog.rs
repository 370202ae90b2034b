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
    payload::DATASET_VERSION_PUBLISHED,
    payload::MODEL_PROMOTED,
    payload::RUN_STARTED,
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
        payload::DATASET_VERSION_PUBLISHED => Shape::Record(vec![
            field("dataset", text()),
            field("version", Shape::Integer),
            maybe("previous", Shape::Integer),
            field("digest", text()),
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
        payload::RUN_STARTED => Shape::Record(run_fields()),
        payload::RUN_FINISHED => {
            let mut fields = run_fields();
            fields.extend([field("state", text()), field("ended_at", text()), field("duration_ms", Shape::Integer)]);
            Shape::Record(fields)
        }
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
    let side = || Shape::Record(vec![maybe("repo", text()), field("branch", text()), field("commit", text())]);
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

/// What `run.started` and `run.finished` have in common.
fn run_fields() -> Vec<Field> {
    let text = || Shape::String;
    vec![
        field("run", text()),
        field("workflow", text()),
        field("project", text()),
        maybe("repo", text()),
        maybe("branch", text()),
        maybe("commit", text()),
        field("started_at", text()),
        field("cause", Shape::Record(vec![field("source", text()), field("id", text()), field("type", text())])),
    ]
}
