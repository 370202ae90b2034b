//! `on`: what starts the workflow.

use indexmap::IndexMap;
use kickwheel_core::{
    cron::{self, DEFAULT_ZONE, MissedPolicy, Schedule, ScheduleError},
    expr::Template,
    filter::{EventFilter, FilterKind},
};
use kickwheel_schemas::{
    catalog::EVENT_TYPES,
    cloudevent::MAX_ATTRIBUTE_BYTES,
    payload::{self, OUR_TYPES},
};

use super::{
    Filter, Input, inputs,
    reader::{Fields, Reader},
};
use crate::{
    diagnostic::{Code, list},
    expression::{Pending, Wanted},
    keys::{CRON, DATASET_CHANGED, EVENT, GIT_PUSH, MANUAL as MANUAL_KEYS, MISSED, ON, Table},
    raw::{Entry, Kind, Node},
    values,
};

/// The kind of filter that a person satisfies.
pub(super) const MANUAL: &str = "manual";

/// Kinds of filter.
#[derive(Clone, Copy)]
enum Trigger {
    GitPush,
    DatasetChanged,
    Manual,
    Event,
    Cron,
}

impl Trigger {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "git.push" => Self::GitPush,
            "dataset.changed" => Self::DatasetChanged,
            MANUAL => Self::Manual,
            "event" => Self::Event,
            "cron" => Self::Cron,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::GitPush => "git.push",
            Self::DatasetChanged => "dataset.changed",
            Self::Manual => MANUAL,
            Self::Event => "event",
            Self::Cron => "cron",
        }
    }

    fn table(self) -> &'static Table {
        match self {
            Self::GitPush => &GIT_PUSH,
            Self::DatasetChanged => &DATASET_CHANGED,
            Self::Manual => &MANUAL_KEYS,
            Self::Event => &EVENT,
            Self::Cron => &CRON,
        }
    }
}

/// The event types that satisfy a filter.
pub(super) fn event_types(kind: &FilterKind) -> Vec<&str> {
    match kind {
        FilterKind::GitPush { .. } => vec![payload::GIT_BRANCH_CREATED, payload::GIT_BRANCH_UPDATED],
        FilterKind::DatasetChanged { .. } => vec![payload::DATASET_VERSION_PUBLISHED],
        FilterKind::Manual => vec![payload::MANUAL],
        FilterKind::Event { types, own_runs: _ } => types.iter().map(String::as_str).collect(),
        FilterKind::Cron { .. } => vec![payload::CRON_TICK],
    }
}

pub(super) fn read<'n>(
    entry: &'n Entry,
    inputs: &IndexMap<&'n str, Input>,
    reader: &mut Reader<'_, '_>,
) -> Vec<Filter<'n>> {
    let mut filters = Vec::new();
    match &entry.value.kind {
        Kind::Text(_) | Kind::List(_) => {
            for (name, node) in reader.some_texts(entry) {
                let Some(trigger) = named(name, &node.span, reader) else { continue };
                match trigger {
                    Trigger::Event => {
                        let message = "`event` needs its `type`";
                        reader
                            .report
                            .error(Code::MissingKey, node.span.clone(), message)
                            .help("write `on: {event: {type: …}}`");
                    }
                    Trigger::Cron => {
                        let message = "`cron` needs its `schedule`";
                        reader
                            .report
                            .error(Code::MissingKey, node.span.clone(), message)
                            .help("write for example `on: {cron: {schedule: \"0 3 * * MON\"}}`");
                    }
                    Trigger::GitPush | Trigger::DatasetChanged | Trigger::Manual => {
                        filters.push(unrestricted(trigger, node));
                    }
                }
            }
        }
        Kind::Map(entries) => {
            if entries.is_empty() {
                reader
                    .report
                    .error(
                        Code::BadValue,
                        entry.value.span.clone(),
                        "`on` names no trigger, so nothing starts the workflow",
                    )
                    .help("leave it out to start it by hand only");
            }
            for entry in entries {
                let Some(trigger) = named(&entry.key, &entry.key_span, reader) else { continue };
                read_kind(trigger, entry, inputs, &mut filters, reader);
            }
        }
        _ => reader.wrong_type(entry, "a map of triggers"),
    }
    check_ids(&filters, reader);
    filters
}

fn named(name: &str, span: &std::ops::Range<usize>, reader: &mut Reader<'_, '_>) -> Option<Trigger> {
    let trigger = Trigger::from_name(name);
    if trigger.is_none() {
        let known: Vec<&str> = ON.names().collect();
        let near = crate::diagnostic::nearest(name, known.iter().copied());
        let help = match near {
            Some(near) => format!("did you mean `{near}`? Known triggers: {}", list(&known)),
            None => format!("known triggers: {}", list(&known)),
        };
        reader.report.error(Code::UnknownTrigger, span.clone(), format!("there is no trigger `{name}`")).help(help);
    }
    trigger
}

fn unrestricted(trigger: Trigger, node: &Node) -> Filter<'_> {
    let kind = match trigger {
        Trigger::GitPush => FilterKind::GitPush { repos: Vec::new(), branches: Vec::new(), paths: Vec::new() },
        Trigger::DatasetChanged => FilterKind::DatasetChanged { datasets: Vec::new() },
        Trigger::Manual => FilterKind::Manual,
        Trigger::Event => FilterKind::Event { types: Vec::new(), own_runs: false },
        Trigger::Cron => FilterKind::Cron {
            trigger: String::new(),
            schedule: String::new(),
            timezone: DEFAULT_ZONE.to_owned(),
            missed: MissedPolicy::default(),
            deadline_ms: None,
        },
    };
    let filter = EventFilter { id: None, kind, condition: None, with: IndexMap::new() };
    Filter { judged: filter, kind: trigger.name(), span: node.span.clone(), pending: Vec::new() }
}

fn read_kind<'n>(
    trigger: Trigger,
    entry: &'n Entry,
    inputs: &IndexMap<&'n str, Input>,
    filters: &mut Vec<Filter<'n>>,
    reader: &mut Reader<'_, '_>,
) {
    match (&entry.value.kind, trigger) {
        (Kind::List(items), _) => {
            if items.is_empty() {
                reader.wrong_type(entry, "one filter or a list of filters");
            }
            for item in items {
                filters.extend(read_filter(trigger, item, &item.span, inputs, reader));
            }
        }
        (Kind::Null, Trigger::GitPush | Trigger::DatasetChanged | Trigger::Manual)
        | (Kind::Bool(true), Trigger::Manual) => filters.push(unrestricted(trigger, &entry.value)),
        _ => filters.extend(read_filter(trigger, &entry.value, &entry.key_span, inputs, reader)),
    }
}

fn read_filter<'n>(
    trigger: Trigger,
    node: &'n Node,
    owner: &std::ops::Range<usize>,
    inputs: &IndexMap<&'n str, Input>,
    reader: &mut Reader<'_, '_>,
) -> Option<Filter<'n>> {
    let fields = reader.fields(node, trigger.table(), owner)?;
    let mut filter = unrestricted(trigger, node);
    filter.span = owner.clone();
    let texts = |key: &str, reader: &mut Reader<'_, '_>| -> Vec<(&'n str, &'n Node)> {
        fields.get(key).map(|entry| reader.some_texts(entry)).unwrap_or_default()
    };
    let owned = |texts: Vec<(&str, &Node)>| texts.into_iter().map(|(text, _)| text.to_owned()).collect();
    filter.judged.kind = match trigger {
        Trigger::GitPush => FilterKind::GitPush {
            repos: owned(texts("repo", reader)),
            branches: fields.get("branches").map(|entry| reader.globs(entry, true)).unwrap_or_default(),
            paths: fields.get("paths").map(|entry| reader.globs(entry, true)).unwrap_or_default(),
        },
        Trigger::DatasetChanged => {
            let datasets = texts("dataset", reader);
            for (name, node) in &datasets {
                reader.dataset(&node.span, name, false);
            }
            FilterKind::DatasetChanged { datasets: owned(datasets) }
        }
        Trigger::Manual => FilterKind::Manual,
        Trigger::Event => {
            let types = texts("type", reader);
            for (ty, node) in &types {
                check_event_type(ty, node, reader);
            }
            let own_runs = fields.get("self").and_then(|entry| reader.boolean(entry)).unwrap_or(false);
            FilterKind::Event { types: owned(types), own_runs }
        }
        Trigger::Cron => read_cron(&fields, reader),
    };
    if let Some(entry) = fields.get("id")
        && let Some(id) = reader.plain_text(entry)
    {
        if !values::is_name(id) {
            reader.bad_name(&entry.value.span, id, "a filter");
        }
        filter.judged.id = Some(id.to_owned());
    }
    if let Some(entry) = fields.get("where") {
        filter.judged.condition = reader.condition(entry, &mut filter.pending);
    }
    if let Some(entry) = fields.get("with") {
        filter.judged.with = read_with(entry, inputs, &mut filter.pending, reader);
    }
    Some(filter)
}

/// The trigger's name is given when the workflow's is known to be usable.
fn read_cron(fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> FilterKind {
    let mut texts = [String::new(), DEFAULT_ZONE.to_owned()];
    for (key, text) in ["schedule", "timezone"].into_iter().zip(&mut texts) {
        let Some(entry) = fields.get(key) else { continue };
        let Some(written) = reader.plain_text(entry) else { continue };
        written.clone_into(text);
        let read = match key {
            "schedule" => Schedule::parse(written, DEFAULT_ZONE).map(|_| ()),
            _ => cron::zone(written).map(|_| ()),
        };
        if let Err(error) = read {
            report_schedule(&error, &entry.value, reader);
        }
    }
    let missed = fields.get("missed").and_then(|entry| {
        let text = reader.plain_text(entry)?;
        let policy = match text {
            "latest" => MissedPolicy::Latest,
            "all" => MissedPolicy::All,
            "none" => MissedPolicy::None,
            _ => {
                let help = reader.report.suggest(text, "values", MISSED.iter().copied());
                let message = format!("`missed` cannot be `{text}`");
                reader.report.error(Code::BadValue, entry.value.span.clone(), message).help(help);
                return None;
            }
        };
        Some(policy)
    });
    let deadline_ms = fields.get("deadline").and_then(|entry| reader.duration(entry));
    let [schedule, timezone] = texts;
    FilterKind::Cron { trigger: String::new(), schedule, timezone, missed: missed.unwrap_or_default(), deadline_ms }
}

/// What is wrong with a schedule, at the very field.
fn report_schedule(error: &ScheduleError, node: &Node, reader: &mut Reader<'_, '_>) {
    let (span, message, help) = match error {
        ScheduleError::TooLong { bytes } => (
            node.span.clone(),
            format!("the schedule has {bytes} bytes, at most {} are read", cron::MAX_EXPRESSION_BYTES),
            "split it into several filters".to_owned(),
        ),
        ScheduleError::FieldCount { expression, found } => (
            node.span.clone(),
            format!("the schedule `{expression}` has {found} fields, but needs five, or six with seconds in front"),
            "minute, hour, day of month, month, day of week: for example `0 3 * * MON`".to_owned(),
        ),
        ScheduleError::Nickname { name } => (
            node.span.clone(),
            format!("there is no schedule `{name}`"),
            "`@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily`, `@midnight`, `@hourly`".to_owned(),
        ),
        ScheduleError::Field { field, text, reason, at } => (
            node.span_within(reader.report.source(), at.clone()),
            format!("`{text}` cannot be the {field} of a schedule"),
            reason.clone(),
        ),
        ScheduleError::Impossible { expression } => (
            node.span.clone(),
            format!("the schedule `{expression}` is never due: no such day exists in its months"),
            "correct the day of the month, or the month".to_owned(),
        ),
        ScheduleError::Zone { zone, nearest } => (
            node.span.clone(),
            format!("there is no time zone `{zone}`"),
            nearest.as_ref().map_or_else(
                || "write an IANA name such as `Europe/Berlin`".to_owned(),
                |near| format!("did you mean `{near}`?"),
            ),
        ),
    };
    reader.report.error(Code::BadValue, span, message).help(help);
}

fn check_event_type(ty: &str, node: &Node, reader: &mut Reader<'_, '_>) {
    if ty.is_empty() || ty.len() > MAX_ATTRIBUTE_BYTES || ty.contains(char::is_whitespace) {
        let message = format!("`{ty}` cannot be an event type");
        reader.report.error(Code::BadValue, node.span.clone(), message).help("for example `com.example.order.created`");
    } else if ty.starts_with(OUR_TYPES) && !EVENT_TYPES.contains(&ty) {
        let help = reader.report.suggest(ty, "event types", EVENT_TYPES.iter().copied());
        let message = format!("there is no event type `{ty}`");
        reader.report.error(Code::UnknownEventType, node.span.clone(), message).help(help);
    }
}

fn read_with<'n>(
    entry: &'n Entry,
    inputs: &IndexMap<&'n str, Input>,
    pending: &mut Vec<Pending<'n>>,
    reader: &mut Reader<'_, '_>,
) -> IndexMap<String, Template> {
    let mut with = IndexMap::new();
    for value in reader.named(entry, "a map of inputs to values") {
        let Some(input) = inputs.get(value.key.as_str()) else {
            let help = reader.report.suggest(&value.key, "inputs", inputs.keys().copied());
            let message = format!("the input `{}` is not declared", value.key);
            reader.report.error(Code::UnknownInput, value.key_span.clone(), message).help(help);
            continue;
        };
        let template = reader.template(&value.value, Wanted::Input(input.decl.ty), pending);
        match &template {
            Template::Literal(literal) if !literal.is_null() => {
                inputs::check_value(&input.decl, &value.value, &format!("`{}`", value.key), reader);
            }
            Template::Text(_) if input.decl.ty != kickwheel_core::plan::InputType::String => {
                let message = format!("`{}` is not a text, but text around expressions gives one", value.key);
                reader
                    .report
                    .error(Code::ExpressionType, value.value.span.clone(), message)
                    .help("make the whole value one `${{ }}`");
            }
            Template::Literal(_) | Template::Expr(_) | Template::Text(_) | Template::List(_) | Template::Map(_) => {}
        }
        with.insert(value.key.clone(), template);
    }
    with
}

/// Names of filters are for people, so two filters must not share one.
fn check_ids(filters: &[Filter<'_>], reader: &mut Reader<'_, '_>) {
    for (at, filter) in filters.iter().enumerate() {
        if let Some(id) = &filter.judged.id
            && filters[..at].iter().any(|earlier| earlier.judged.id.as_ref() == Some(id))
        {
            let message = format!("another filter has the id `{id}` already");
            reader.report.error(Code::BadName, filter.span.clone(), message).help("give each filter its own");
        }
    }
}
