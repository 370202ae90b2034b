//! `on`: what starts the workflow.

use indexmap::IndexMap;
use kickwheel_core::{
    expr::Template,
    filter::{EventFilter, FilterKind},
};
use kickwheel_schemas::{catalog::EVENT_TYPES, cloudevent::MAX_ATTRIBUTE_BYTES, payload};

use super::{Filter, Input, inputs, reader::Reader};
use crate::{
    diagnostic::{Code, list},
    expression::{Pending, Wanted},
    keys::{DATASET_CHANGED, EVENT, GIT_PUSH, MANUAL as MANUAL_KEYS, ON, Table},
    raw::{Entry, Kind, Node},
    values,
};

/// The kind of filter that a person satisfies.
pub(super) const MANUAL: &str = "manual";

/// Prefix of the event types that only we define.
const OUR_TYPES: &str = "dev.kickwheel.";

/// Kinds of filter.
#[derive(Clone, Copy)]
enum Trigger {
    GitPush,
    DatasetChanged,
    Manual,
    Event,
}

impl Trigger {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "git.push" => Self::GitPush,
            "dataset.changed" => Self::DatasetChanged,
            MANUAL => Self::Manual,
            "event" => Self::Event,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::GitPush => "git.push",
            Self::DatasetChanged => "dataset.changed",
            Self::Manual => MANUAL,
            Self::Event => "event",
        }
    }

    fn table(self) -> &'static Table {
        match self {
            Self::GitPush => &GIT_PUSH,
            Self::DatasetChanged => &DATASET_CHANGED,
            Self::Manual => &MANUAL_KEYS,
            Self::Event => &EVENT,
        }
    }
}

/// The event types that satisfy a filter.
pub(super) fn event_types(kind: &FilterKind) -> Vec<&str> {
    match kind {
        FilterKind::GitPush { .. } => vec![payload::GIT_BRANCH_CREATED, payload::GIT_BRANCH_UPDATED],
        FilterKind::DatasetChanged { .. } => vec![payload::DATASET_VERSION_PUBLISHED],
        FilterKind::Manual => vec![payload::MANUAL],
        FilterKind::Event { types } => types.iter().map(String::as_str).collect(),
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
        Trigger::Event => FilterKind::Event { types: Vec::new() },
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
            FilterKind::Event { types: owned(types) }
        }
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
