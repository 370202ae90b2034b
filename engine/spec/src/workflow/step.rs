//! One step: what it does, when, and with what.

use std::ops::Range;

use indexmap::IndexMap;
use kickwheel_core::{
    expr::{Expr, Template},
    plan::{Action, Condition, ContainerLimits, MAX_TASKS_PER_STEP, Matrix, Phase, Resources, Retry, Step},
};
use kickwheel_schemas::Digest;
use serde_json::Value;

use super::{
    Env, MAX_STEPS, job,
    reader::{Fields, Reader},
};
use crate::{
    diagnostic::Code,
    expression::{Argument, Pending, Wanted},
    keys::{BACKOFF, RETRY, STEP},
    raw::{Entry, Kind, Node},
    values,
};

/// Most further attempts that `retry` may ask for.
const MAX_RETRIES: u32 = 1_000;
/// Largest growth of the waits between attempts.
const MAX_BACKOFF_FACTOR: f64 = 100.0;

/// A step that was read, its expressions not checked yet.
pub(crate) struct Draft<'n> {
    /// All but `needs`, which are known once the order is.
    pub step: Step,
    /// Where its name stands.
    pub span: Range<usize>,
    /// `needs:`.
    pub needs: Vec<(&'n str, Range<usize>)>,
    pub axes: Vec<Axis<'n>>,
    /// `if:`.
    pub condition: Vec<Pending<'n>>,
    /// All other expressions.
    pub pending: Vec<Pending<'n>>,
    pub outputs: Outputs,
}

/// An axis of a matrix.
pub(crate) struct Axis<'n> {
    pub name: &'n str,
    pub value: &'n Node,
    pub pending: Vec<Pending<'n>>,
}

/// What other steps may read of a step.
pub(crate) enum Outputs {
    Known(Vec<(String, OutputType)>),
    /// The step is broken where it would say so.
    Unknown,
}

/// What an output is.
#[derive(Clone, Copy)]
pub(crate) enum OutputType {
    Artifact,
    /// Anything that the job writes.
    Value,
    /// As a plugin declares it.
    Declared(Argument),
}

pub(super) fn read_section<'n>(
    entry: &'n Entry,
    phase: Phase,
    env: &Env,
    steps: &mut Vec<Draft<'n>>,
    reader: &mut Reader<'_, '_>,
) {
    let entries = reader.named(entry, "a map of names to steps");
    if entries.is_empty() && matches!(entry.value.kind, Kind::Map(_)) {
        let message = format!("`{}` holds no step", entry.key);
        reader.report.error(Code::BadValue, entry.value.span.clone(), message);
    }
    for entry in entries {
        if steps.len() == MAX_STEPS {
            let message = format!("a workflow has {MAX_STEPS} steps at most; a matrix makes many tasks of one step");
            reader.report.error(Code::YamlLimit, entry.key_span.clone(), message);
            return;
        }
        if !values::is_name(&entry.key) {
            reader.bad_name(&entry.key_span, &entry.key, "a step");
        }
        if steps.iter().any(|step| step.step.name == entry.key) {
            let message = format!("another section has a step `{}` already", entry.key);
            reader.report.error(Code::DuplicateKey, entry.key_span.clone(), message);
            continue;
        }
        steps.push(read(entry, phase, env, reader));
    }
}

/// What a step is, by the keys that it has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum StepKind {
    Script,
    Container,
    Plugin,
    Broken,
}

fn read<'n>(entry: &'n Entry, phase: Phase, env: &Env, reader: &mut Reader<'_, '_>) -> Draft<'n> {
    let mut draft = Draft {
        step: Step {
            name: entry.key.clone(),
            phase,
            needs: Vec::new(),
            condition: None,
            matrix: None,
            action: Action::Script { script: String::new(), image: None },
            env: IndexMap::new(),
            files: IndexMap::new(),
            outputs: IndexMap::new(),
            retry: Retry::default(),
            timeout_ms: None,
            cache: false,
            source: Vec::new(),
            resources: Resources::default(),
            secrets: IndexMap::new(),
            container: ContainerLimits::default(),
        },
        span: entry.key_span.clone(),
        needs: Vec::new(),
        axes: Vec::new(),
        condition: Vec::new(),
        pending: Vec::new(),
        outputs: Outputs::Unknown,
    };
    let Some(fields) = reader.fields(&entry.value, &STEP, &entry.key_span) else { return draft };
    let kind = kind_of(entry, &fields, reader);
    read_action(kind, &fields, &mut draft, reader);
    read_when(&fields, &mut draft, reader);
    job::read(kind, &fields, env, &mut draft, reader);
    if let Some(entry) = fields.get("cache") {
        draft.step.cache = reader.boolean(entry).unwrap_or_default();
    }
    draft
}

fn kind_of(entry: &Entry, fields: &Fields<'_>, reader: &mut Reader<'_, '_>) -> StepKind {
    let written = |key: &str| fields.get(key).is_some();
    // What a misspelt key was meant to be has been said; that the step lacks it would be the same mistake once more.
    let meant = |key: &str| written(key) || fields.is_misspelt(key);
    let problem = match (kind_by(written), kind_by(meant)) {
        (Ok(kind), _) => return kind,
        (Err(_), Ok(_)) => return StepKind::Broken,
        (Err(problem), Err(_)) => problem,
    };
    reader
        .report
        .error(Code::StepKind, entry.key_span.clone(), format!("the step `{}` {problem}", entry.key))
        .help("a step has exactly one of: `run` (a script, in a container if `image` is given), `image` with `command`, or `uses` (a plugin)");
    StepKind::Broken
}

/// What a step with these keys is, or what is wrong with it.
fn kind_by(has: impl Fn(&str) -> bool) -> Result<StepKind, &'static str> {
    match (has("run"), has("image"), has("command"), has("uses")) {
        (true, _, false, false) => Ok(StepKind::Script),
        (false, true, true, false) => Ok(StepKind::Container),
        (false, false, false, true) => Ok(StepKind::Plugin),
        (false, false, false, false) => Err("says nothing to do"),
        (false, true, false, false) => Err("has an `image`, but neither `command` nor `run`"),
        (false, false, true, false) => Err("has a `command`, but no `image` to run it in"),
        (true, _, true, false) => Err("has both `run` and `command`"),
        (_, _, _, true) => Err("has `uses` beside another thing to do"),
    }
}

fn read_action<'n>(kind: StepKind, fields: &Fields<'n>, draft: &mut Draft<'n>, reader: &mut Reader<'_, '_>) {
    let image = fields.get("image").and_then(|entry| read_image(entry, reader));
    if let Some(entry) = fields.get("run")
        && let Some(script) = reader.text(entry)
    {
        let help = "put the expression into `env` and read the variable in the script";
        reader.holds_expression(&entry.value, script, "run", help);
        if script.trim().is_empty() {
            reader.report.error(Code::BadValue, entry.value.span.clone(), "the script is empty");
        }
        if kind == StepKind::Script {
            draft.step.action = Action::Script { script: script.to_owned(), image: image.clone() };
        }
    }
    if let Some(entry) = fields.get("command") {
        let command = read_command(entry, &mut draft.pending, reader);
        if let (StepKind::Container, Some(image)) = (kind, image) {
            draft.step.action = Action::Container { image, command };
        }
    }
    match (fields.get("uses"), fields.get("with")) {
        (Some(uses), with) => read_plugin(uses, with, draft, reader),
        (None, Some(_)) if fields.is_misspelt("uses") => {}
        (None, Some(with)) => {
            reader
                .report
                .error(Code::MisplacedKey, with.key_span.clone(), "`with` has no meaning without `uses`")
                .help("a script reads its values from `env`");
        }
        (None, None) => {}
    }
}

fn read_image(entry: &Entry, reader: &mut Reader<'_, '_>) -> Option<String> {
    let image = reader.plain_text(entry)?;
    if image.contains(char::is_whitespace) {
        reader.report.error(Code::BadValue, entry.value.span.clone(), format!("`{image}` cannot be an image"));
        return None;
    }
    Some(image.to_owned())
}

fn read_command<'n>(entry: &'n Entry, pending: &mut Vec<Pending<'n>>, reader: &mut Reader<'_, '_>) -> Vec<Template> {
    let Kind::List(items) = &entry.value.kind else {
        reader
            .report
            .error(
                Code::WrongType,
                entry.value.span.clone(),
                format!("`command` must be a list of texts, but is {}", entry.value.describe()),
            )
            .help("write `[program, argument, …]`; a shell script goes into `run`");
        return Vec::new();
    };
    if items.is_empty() {
        reader.report.error(Code::BadValue, entry.value.span.clone(), "`command` names no program");
    }
    let mut command = Vec::new();
    for item in items {
        let template = reader.template(item, Wanted::Scalar, pending);
        reader.literal(item, &template, Wanted::Scalar, "an argument");
        command.push(match (template, &item.kind) {
            // An argument is a text, also when YAML reads it as a number: as it is written.
            (Template::Literal(_), Kind::Bool(_) | Kind::Int(_) | Kind::Float(_)) => {
                let written = reader.report.source().get(item.span.clone()).unwrap_or_default();
                Template::Literal(Value::String(written.to_owned()))
            }
            (template, _) => template,
        });
    }
    command
}

fn read_plugin<'n>(uses: &'n Entry, with: Option<&'n Entry>, draft: &mut Draft<'n>, reader: &mut Reader<'_, '_>) {
    let Some(name) = reader.plain_text(uses) else { return };
    let plugins = reader.plugins;
    let Some(plugin) = plugins.0.get(name) else {
        let help = reader.report.suggest(name, "plugins", plugins.0.keys().map(String::as_str));
        let message = format!("there is no plugin `{name}`");
        reader.report.error(Code::UnknownPlugin, uses.value.span.clone(), message).help(help);
        // Its arguments may still hold mistakes of their own.
        for value in with.map(|entry| reader.named(entry, "a map of arguments")).unwrap_or_default() {
            reader.template(&value.value, Wanted::Anything, &mut draft.pending);
        }
        return;
    };
    let mut arguments = IndexMap::new();
    let mut references = Vec::new();
    let mut misspelt = Vec::new();
    for value in with.map(|entry| reader.named(entry, "a map of arguments")).unwrap_or_default() {
        let Some(field) = plugin.manifest.inputs.get(&value.key) else {
            let names = || plugin.manifest.inputs.keys().map(String::as_str);
            misspelt.extend(reader.report.meant(&value.key, names()));
            let help = reader.report.suggest(&value.key, "arguments", names());
            let message = format!("the plugin `{name}` has no argument `{}`", value.key);
            reader.report.error(Code::UnknownArgument, value.key_span.clone(), message).help(help);
            continue;
        };
        let ty = Argument::from_manifest(&field.ty);
        let template = reader.template(&value.value, Wanted::Argument(ty), &mut draft.pending);
        reader.literal(&value.value, &template, Wanted::Argument(ty), &value.key);
        if ty == Argument::Reference {
            check_reference(&value.value, &template, reader);
            references.push(value.key.clone());
        }
        arguments.insert(value.key.clone(), template);
    }
    for (key, field) in plugin.manifest.inputs.iter().filter(|(_, field)| field.required && field.derive.is_none()) {
        if misspelt.contains(&key.as_str()) {
            continue;
        }
        if !with
            .is_some_and(|with| matches!(&with.value.kind, Kind::Map(entries) if entries.iter().any(|e| e.key == *key)))
        {
            let span = with.map_or(&uses.value.span, |with| &with.key_span).clone();
            let message = format!("the plugin `{name}` needs the argument `{key}`");
            let diagnostic = reader.report.error(Code::MissingArgument, span, message);
            if !field.description.is_empty() {
                diagnostic.help(field.description.clone());
            }
        }
    }
    let outputs = &plugin.manifest.outputs;
    let known =
        outputs.iter().map(|(name, field)| (name.clone(), OutputType::Declared(Argument::from_manifest(&field.ty))));
    draft.outputs = Outputs::Known(known.collect());
    draft.step.action = Action::Plugin {
        name: name.to_owned(),
        digest: Digest::clone(&plugin.digest),
        with: arguments,
        references,
        outputs: outputs.keys().cloned().collect(),
    };
}

/// A reference that is written out must have a form that can be resolved.
fn check_reference(node: &Node, template: &Template, reader: &mut Reader<'_, '_>) {
    let Template::Literal(Value::String(text)) = template else { return };
    if let Some(name) = text.strip_prefix(DATASET_PREFIX) {
        reader.dataset(&node.span, name, true);
    } else if !text.strip_prefix("model:").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('@')) {
        reader
            .report
            .error(Code::BadValue, node.span.clone(), format!("`{text}` is no reference"))
            .help("write `model:NAME@STAGE` or `dataset:NAME`");
    }
}

/// What a text begins with that names a dataset.
pub(super) const DATASET_PREFIX: &str = "dataset:";

fn read_when<'n>(fields: &Fields<'n>, draft: &mut Draft<'n>, reader: &mut Reader<'_, '_>) {
    if let Some(entry) = fields.get("needs") {
        draft.needs = reader.texts(entry).into_iter().map(|(name, node)| (name, node.span.clone())).collect();
    }
    if let Some(entry) = fields.get("if") {
        let expr: Option<Expr> = reader.condition(entry, &mut draft.condition);
        draft.step.condition = expr.map(|expr| Condition { handles_failure: expr.handles_failure(), expr });
    }
    if let Some(entry) = fields.get("matrix") {
        draft.step.matrix = read_matrix(entry, &mut draft.axes, reader);
    }
    if let Some(entry) = fields.get("retry") {
        draft.step.retry = read_retry(entry, reader);
    }
    if let Some(entry) = fields.get("timeout") {
        draft.step.timeout_ms = reader.duration(entry);
    }
}

fn read_matrix<'n>(entry: &'n Entry, axes: &mut Vec<Axis<'n>>, reader: &mut Reader<'_, '_>) -> Option<Matrix> {
    let Kind::Map(entries) = &entry.value.kind else {
        reader.wrong_type(entry, "a map of axes, each with a list of values");
        return None;
    };
    if entries.is_empty() {
        reader.report.error(Code::BadValue, entry.value.span.clone(), "the matrix has no axis");
    }
    let mut matrix = Matrix { axes: IndexMap::new() };
    let mut product: usize = 1;
    for axis in entries {
        if !values::is_identifier(&axis.key) {
            reader
                .report
                .error(Code::BadName, axis.key_span.clone(), format!("`{}` cannot be the name of an axis", axis.key))
                .help("letters, digits and `_`, so that `matrix.NAME` can read it");
        }
        let mut pending = Vec::new();
        let template = reader.template(&axis.value, Wanted::List, &mut pending);
        match (&axis.value.kind, &template) {
            (Kind::List(items), _) if items.is_empty() => {
                let message = format!("the axis `{}` has no value, so the step would have no task", axis.key);
                reader.report.error(Code::BadValue, axis.value.span.clone(), message);
            }
            (Kind::List(items), _) => product = product.saturating_mul(items.len()),
            (Kind::Text(_), Template::Expr(_)) => {}
            _ => reader.wrong_type(axis, "a list of values, or one `${{ }}` that gives a list"),
        }
        matrix.axes.insert(axis.key.clone(), template);
        axes.push(Axis { name: &axis.key, value: &axis.value, pending });
    }
    if product > MAX_TASKS_PER_STEP {
        let message = format!("the matrix makes {product} tasks, more than {MAX_TASKS_PER_STEP}");
        reader.report.error(Code::MatrixTooLarge, entry.key_span.clone(), message).help("give its axes fewer values");
    }
    Some(matrix)
}

fn read_retry(entry: &Entry, reader: &mut Reader<'_, '_>) -> Retry {
    let mut retry = Retry::default();
    if matches!(entry.value.kind, Kind::Int(_)) {
        retry.max = reader.count(entry, MAX_RETRIES).unwrap_or_default();
        return retry;
    }
    let Some(fields) = reader.fields(&entry.value, &RETRY, &entry.key_span) else { return retry };
    if let Some(entry) = fields.get("max") {
        retry.max = reader.count(entry, MAX_RETRIES).unwrap_or_default();
    }
    let Some(entry) = fields.get("backoff") else { return retry };
    let Some(fields) = reader.fields(&entry.value, &BACKOFF, &entry.key_span) else { return retry };
    if let Some(ms) = fields.get("initial").and_then(|entry| reader.duration(entry)) {
        retry.initial_ms = ms;
        // A first wait beyond the usual longest one is meant.
        retry.max_ms = retry.max_ms.max(ms);
    }
    if let Some(entry) = fields.get("factor")
        && let Some(factor) = reader.number(entry)
    {
        if (1.0..=MAX_BACKOFF_FACTOR).contains(&factor) {
            retry.factor = factor;
        } else {
            let message = format!("`factor` must be from 1 to {MAX_BACKOFF_FACTOR}, but is {factor}");
            reader.report.error(Code::BadValue, entry.value.span.clone(), message);
        }
    }
    if let Some(entry) = fields.get("max")
        && let Some(ms) = reader.duration(entry)
    {
        if ms < retry.initial_ms {
            let message = "`max` is shorter than the first wait, `initial`";
            reader.report.error(Code::BadValue, entry.value.span.clone(), message);
        }
        retry.max_ms = ms;
    }
    retry
}
