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
    payload::DATASET_VERSION_PUBLISHED,
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
        maybe("commit_count", Shape::Integer),
        maybe("default_branch", text()),
        maybe("changed_paths", Shape::List(Box::new(text()))),
        maybe("push_options", Shape::List(Box::new(text()))),
    ]
}
