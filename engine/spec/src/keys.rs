//! Every key of the language, in tables.
//!
//! The checker takes unknown keys and their suggestions from here, and [`crate::schema`] makes the JSON Schema for
//! editors from the same tables, so the two cannot disagree about what exists.

/// The keys of one kind of map.
#[derive(Debug)]
pub(crate) struct Table {
    /// What the map is, with an article, for messages.
    pub what: &'static str,
    pub keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    pub name: &'static str,
    pub shape: Shape,
    pub required: bool,
    /// One sentence for editors.
    pub about: &'static str,
}

/// What a key takes, as far as an editor can help with it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// Anything.
    Any,
    /// A text.
    Text,
    /// One text or a list of texts.
    Texts,
    /// A list of anything.
    List,
    /// true or false.
    Boolean,
    /// A whole number, at least 0.
    Count,
    /// A number.
    Number,
    /// A number or a text with a unit.
    Quantity,
    /// `10s`, `1m30s`.
    Duration,
    /// Only this number.
    Exactly(i64),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A map of this kind.
    Map(&'static Table),
    /// A map of this kind, or nothing.
    MapOrNothing(&'static Table),
    /// One map of this kind or a list of them.
    Maps(&'static Table),
    /// Any names, each with one of these.
    Named(&'static Shape),
    /// One of several shapes.
    Either(&'static [Shape]),
}

const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, required: false, about }
}

const fn required(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, shape, required: true, about }
}

impl Table {
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }
}

pub(crate) const WORKFLOW: Table = Table {
    what: "a workflow",
    keys: &[
        required("version", Shape::Exactly(1), "Version of the language."),
        required("name", Shape::Text, "Unique in its project."),
        key(
            "on",
            Shape::Either(&[Shape::Map(&ON), Shape::Texts]),
            "What starts the workflow; without it, only a person.",
        ),
        key("inputs", Shape::Named(&Shape::Map(&INPUT)), "Values that a start may give."),
        key("env", Shape::Named(&Shape::Any), "Environment of every job."),
        required("steps", Shape::Named(&Shape::Map(&STEP)), "What the workflow does."),
        key("on_failure", Shape::Named(&Shape::Map(&STEP)), "Steps that run after a step failed."),
        key("finally", Shape::Named(&Shape::Map(&STEP)), "Steps that run at the very end, whatever happened."),
    ],
};

pub(crate) const ON: Table = Table {
    what: "`on`",
    keys: &[
        key("git.push", Shape::Maps(&GIT_PUSH), "A branch was created or updated."),
        key("dataset.changed", Shape::Maps(&DATASET_CHANGED), "A version with changed data was published."),
        key("manual", Shape::Either(&[Shape::MapOrNothing(&MANUAL), Shape::Boolean]), "Somebody started it by hand."),
        key("event", Shape::Maps(&EVENT), "Any event of these types."),
        key("cron", Shape::Maps(&CRON), "A schedule was due."),
    ],
};

const WHERE: Key = key("where", Shape::Text, "A condition over `event` that narrows further.");
const WITH: Key = key("with", Shape::Named(&Shape::Any), "Values of inputs, from the event.");
const ID: Key = key("id", Shape::Text, "A name for people.");

pub(crate) const GIT_PUSH: Table = Table {
    what: "a `git.push` filter",
    keys: &[
        key("repo", Shape::Texts, "Names of repositories; any without it."),
        key("branches", Shape::Texts, "Globs; `!` excludes, the last match wins."),
        key("paths", Shape::Texts, "Globs over changed paths; `!` excludes, the last match wins per path."),
        WHERE,
        WITH,
        ID,
    ],
};

pub(crate) const DATASET_CHANGED: Table = Table {
    what: "a `dataset.changed` filter",
    keys: &[key("dataset", Shape::Texts, "Names of datasets; any without it."), WHERE, WITH, ID],
};

pub(crate) const MANUAL: Table = Table { what: "a `manual` filter", keys: &[ID] };

pub(crate) const EVENT: Table = Table {
    what: "an `event` filter",
    keys: &[
        required("type", Shape::Texts, "CloudEvents types."),
        key("self", Shape::Boolean, "true: also events that a run of this workflow caused."),
        WHERE,
        WITH,
        ID,
    ],
};

pub(crate) const CRON: Table = Table {
    what: "a `cron` filter",
    keys: &[
        required("schedule", Shape::Text, "Five fields, or six with seconds in front, or `@daily` and its like."),
        key("timezone", Shape::Text, "An IANA name such as `Europe/Berlin`; UTC without it."),
        key("missed", Shape::OneOf(MISSED), "What becomes of due times that were missed; `latest` without it."),
        key("deadline", Shape::Duration, "How late it may start."),
        WHERE,
        WITH,
        ID,
    ],
};

/// What may become of missed due times.
pub(crate) const MISSED: &[&str] = &["latest", "all", "none"];

pub(crate) const INPUT_TYPES: &[&str] = &["string", "integer", "number", "boolean", "list"];

pub(crate) const INPUT: Table = Table {
    what: "an input",
    keys: &[
        required("type", Shape::OneOf(INPUT_TYPES), "What values it takes."),
        key("default", Shape::Any, "Taken when nobody gives a value; without one the input is required."),
        key("minimum", Shape::Number, "Smallest number."),
        key("maximum", Shape::Number, "Largest number."),
        key("choices", Shape::List, "The only values allowed."),
        key("description", Shape::Text, "For people."),
    ],
};

pub(crate) const STEP: Table = Table {
    what: "a step",
    keys: &[
        key("run", Shape::Text, "A script for `/bin/sh -eu`; holds no expression, use `env`."),
        key("image", Shape::Text, "A container image: with `run` or `command`."),
        key("command", Shape::List, "Program and arguments, in the container of `image`."),
        key("uses", Shape::Text, "A plugin."),
        key("with", Shape::Named(&Shape::Any), "Arguments of the plugin."),
        key("needs", Shape::Texts, "Steps that must have succeeded before; those that expressions read are implied."),
        key("if", Shape::Either(&[Shape::Text, Shape::Boolean]), "A condition; the step is skipped when it is false."),
        key("matrix", Shape::Named(&Shape::Any), "Axes of an array step, each with its list of values."),
        key("retry", Shape::Either(&[Shape::Count, Shape::Map(&RETRY)]), "How failures are repeated."),
        key("timeout", Shape::Duration, "Longest time of one attempt."),
        key("env", Shape::Named(&Shape::Any), "Environment of the job."),
        key(
            "files",
            Shape::Named(&Shape::Texts),
            "Paths in the work folder, and what is laid there: a list makes a folder.",
        ),
        key("outputs", Shape::Named(&Shape::Either(&[Shape::Text, Shape::Map(&OUTPUT)])), "What later steps may read."),
        key("source", Shape::Texts, "Globs that narrow the source tree."),
        key("cache", Shape::Boolean, "Whether an unchanged task is taken from the cache."),
        key("resources", Shape::Map(&RESOURCES), "What the job asks of a pool."),
        key(
            "secrets",
            Shape::Named(&Shape::Text),
            "Names of files below `$KICKWHEEL_SECRETS`, each with the name of the secret that it holds.",
        ),
        key("container", Shape::Map(&CONTAINER), "What the container of `image` may do."),
    ],
};

pub(crate) const OUTPUT: Table = Table {
    what: "an output",
    keys: &[
        key("path", Shape::Text, "A file or folder of the work folder."),
        key("dataset", Shape::Text, "The dataset that gets a new version of it."),
        key("value", Shape::Boolean, "true: a value written to `$KICKWHEEL_OUTPUT`."),
    ],
};

pub(crate) const RETRY: Table = Table {
    what: "`retry`",
    keys: &[
        required("max", Shape::Count, "Further attempts after the first."),
        key("backoff", Shape::Map(&BACKOFF), "The waits between attempts."),
    ],
};

pub(crate) const BACKOFF: Table = Table {
    what: "`backoff`",
    keys: &[
        key("initial", Shape::Duration, "Before the second attempt."),
        key("factor", Shape::Number, "Each later wait is this many times the one before."),
        key("max", Shape::Duration, "Longest wait."),
    ],
};

/// Whether a container reaches other machines.
pub(crate) const NETWORKS: &[&str] = &["none", "outbound"];

pub(crate) const CONTAINER: Table = Table {
    what: "`container`",
    keys: &[
        key(
            "network",
            Shape::OneOf(NETWORKS),
            "`none` (the default) or `outbound`: whether it reaches other machines.",
        ),
        key("read_only", Shape::Boolean, "true: nothing but its work folder can be written."),
    ],
};

pub(crate) const RESOURCES: Table = Table {
    what: "`resources`",
    keys: &[
        key("cpu", Shape::Quantity, "Cores, or thousandths of one as `500m`."),
        key("memory", Shape::Quantity, "Bytes, or a size such as `2Gi`; also the job's limit."),
        key("gpu", Shape::Count, "Whole GPUs."),
    ],
};
