//! Checking every expression of a file, now that all of its names are known.

use std::{collections::BTreeSet, rc::Rc};

use kickwheel_core::plan::Phase;

use super::{
    Parts,
    reader::Reader,
    step::{Draft, OutputType, Outputs},
    triggers,
};
use crate::{
    diagnostic::Code,
    expression::{self, Argument, Facts, Member, Owner, Pending, Record, Scope, StepShape, Type},
    graph::Reference,
    raw::{Kind, Node},
};

const NO_MATRIX: &str = "the step has no `matrix`";
const NO_TASKS_YET: &str = "it is evaluated once for the step, before there are tasks";
const ONLY_EVENT: &str = "a filter is judged before there is a run";
const WORKFLOW_ENV: &str = "the workflow's `env` is the same for every step";

/// Checks all expressions; gives what each step reads of others, which becomes its needs.
pub(super) fn check(parts: &Parts<'_>, reader: &mut Reader<'_, '_>) -> Vec<Vec<Reference>> {
    check_filters(parts, reader);
    let types: Vec<&str> = parts.filters.iter().flat_map(|filter| triggers::event_types(&filter.judged.kind)).collect();
    // A broken `on` has been reported; then nothing certain can be said about `event`.
    let event = if types.is_empty() { Type::Any } else { expression::event(types) };
    let inputs =
        Type::record(Owner::Inputs, parts.inputs.iter().map(|(name, input)| (*name, expression::input(input.decl.ty))));
    let steps: Vec<StepShape> = parts.steps.iter().map(shape).collect();
    let common = vec![("event", event), ("inputs", inputs), ("datasets", Type::Datasets)];

    let env_scope = Scope {
        variables: [common.clone(), vec![("run", run(Phase::Main))]].concat(),
        absent: vec![("steps", WORKFLOW_ENV), ("matrix", WORKFLOW_ENV)],
        status_functions: false,
        facts: Facts::default(),
        steps: &steps,
        step: None,
    };
    for pending in &parts.env {
        let checked = expression::check(pending, &env_scope, &mut reader.report);
        reader.datasets.extend(checked.datasets);
    }
    let references = parts
        .steps
        .iter()
        .enumerate()
        .map(|(index, draft)| check_step(index, draft, &common, &steps, reader))
        .collect();
    warn_of_unused_inputs(parts, reader);
    references
}

fn check_filters(parts: &Parts<'_>, reader: &mut Reader<'_, '_>) {
    for filter in &parts.filters {
        let types = triggers::event_types(&filter.judged.kind);
        let event = if types.is_empty() { Type::Any } else { expression::event(types) };
        let absent = ["inputs", "steps", "matrix", "datasets", "run"].map(|name| (name, ONLY_EVENT)).to_vec();
        let scope = Scope {
            variables: vec![("event", event)],
            absent,
            status_functions: false,
            facts: Facts::default(),
            steps: &[],
            step: None,
        };
        for pending in &filter.pending {
            expression::check(pending, &scope, &mut reader.report);
        }
        if filter.kind == triggers::MANUAL {
            // Whoever starts it by hand is asked for what is missing.
            continue;
        }
        for (name, input) in &parts.inputs {
            if input.decl.default.is_none() && !filter.judged.with.contains_key(*name) {
                let message = format!("the input `{name}` has no default, and `{}` gives no value for it", filter.kind);
                reader
                    .report
                    .error(Code::MissingInput, filter.span.clone(), message)
                    .help(format!("add `with: {{{name}: …}}` here, or a `default` to the input"));
            }
        }
    }
}

fn check_step(
    index: usize,
    draft: &Draft<'_>,
    common: &[(&'static str, Type)],
    steps: &[StepShape],
    reader: &mut Reader<'_, '_>,
) -> Vec<Reference> {
    let mut references = Vec::new();
    let mut variables = common.to_vec();
    variables.extend([("run", run(draft.step.phase)), ("steps", Type::Steps)]);
    let mut scope = Scope {
        variables,
        absent: vec![("matrix", NO_MATRIX)],
        status_functions: false,
        facts: Facts::default(),
        steps,
        step: Some(index),
    };
    let mut check = |pending: &Pending<'_>, scope: &Scope<'_>, reader: &mut Reader<'_, '_>| {
        let checked = expression::check(pending, scope, &mut reader.report);
        reader.datasets.extend(checked.datasets);
        references.extend(checked.steps.into_iter().map(|(step, span)| Reference { step, span }));
        (checked.ty, checked.facts_if_true)
    };

    // The condition is evaluated once per step, before its axes are.
    if !draft.axes.is_empty() {
        scope.absent = vec![("matrix", NO_TASKS_YET)];
    }
    scope.status_functions = true;
    for pending in &draft.condition {
        let (_, facts) = check(pending, &scope, reader);
        scope.facts = facts;
    }
    scope.status_functions = false;

    let mut axes = Vec::new();
    for axis in &draft.axes {
        let mut ty = Type::Any;
        for pending in &axis.pending {
            ty = check(pending, &scope, reader).0;
        }
        let item = match (&axis.value.kind, ty) {
            (Kind::List(items), _) => items.iter().fold(Type::Nothing, |ty, item| ty.join(&literal(item))),
            (_, Type::List(item)) => item.as_ref().clone(),
            _ => Type::Any,
        };
        axes.push((axis.name, item));
    }
    if draft.step.matrix.is_some() {
        scope.absent.clear();
        scope.variables.push(("matrix", Type::record(Owner::Matrix, axes)));
    }
    for pending in &draft.pending {
        check(pending, &scope, reader);
    }
    references
}

/// The type of a value in a matrix.
fn literal(node: &Node) -> Type {
    match &node.kind {
        Kind::Null => Type::Any,
        Kind::Bool(_) => Type::Boolean,
        Kind::Int(_) => Type::Integer,
        Kind::Float(_) => Type::Double,
        Kind::Text(text) if text.value.contains("${{") => Type::Any,
        Kind::Text(_) => Type::Text,
        Kind::List(items) => Type::list(items.iter().fold(Type::Nothing, |ty, item| ty.join(&literal(item)))),
        Kind::Map(entries) => {
            Type::record(Owner::Value, entries.iter().map(|entry| (entry.key.clone(), literal(&entry.value))))
        }
    }
}

/// A step as expressions of others see it.
fn shape(draft: &Draft<'_>) -> StepShape {
    let is_array = draft.step.matrix.is_some();
    let outputs = |aligned: bool| match &draft.outputs {
        Outputs::Unknown => Type::Any,
        Outputs::Known(outputs) => {
            let members = outputs.iter().map(|(name, ty)| {
                let ty = output(*ty);
                Member { name: name.clone(), ty: if aligned { Type::list(ty) } else { ty }, optional: false }
            });
            Type::Record(Rc::new(Record { owner: Owner::Outputs, members: members.collect() }))
        }
    };
    // An array step aligns each metric and output with its tasks.
    let metric = if is_array { Type::list(Type::Number) } else { Type::Number };
    let fields = [
        ("outputs", outputs(is_array)),
        ("metrics", Type::Map(Rc::new(metric))),
        ("state", Type::Text),
        ("tasks", Type::list(expression::task(outputs(false)))),
    ];
    let owner = if is_array { Owner::ArrayStep } else { Owner::Step };
    StepShape { name: draft.step.name.clone(), phase: draft.step.phase, ty: Type::record(owner, fields) }
}

fn output(ty: OutputType) -> Type {
    match ty {
        OutputType::Artifact => expression::artifact(),
        OutputType::Declared(Argument::Text) => Type::Text,
        OutputType::Declared(Argument::Number) => Type::Number,
        OutputType::Declared(Argument::Boolean) => Type::Boolean,
        OutputType::Declared(Argument::List) => Type::list(Type::Any),
        OutputType::Declared(Argument::Map) => Type::Map(Rc::new(Type::Any)),
        OutputType::Value | OutputType::Declared(Argument::Any | Argument::Reference) => Type::Any,
    }
}

/// The shape of `run`. Steps that run after the main ones can also read how those ended.
fn run(phase: Phase) -> Type {
    let mut fields = ["id", "project", "workflow", "url"].map(|name| (name, Type::Text)).to_vec();
    match phase {
        Phase::Main => {}
        Phase::OnFailure | Phase::Finally => {
            fields.extend([("state", Type::Text), ("failed_steps", Type::list(Type::Text))]);
        }
    }
    Type::record(Owner::Value, fields)
}

fn warn_of_unused_inputs(parts: &Parts<'_>, reader: &mut Reader<'_, '_>) {
    let of_steps = parts.steps.iter().flat_map(|draft| {
        let axes = draft.axes.iter().flat_map(|axis| &axis.pending);
        draft.condition.iter().chain(&draft.pending).chain(axes)
    });
    let reads: Vec<_> = parts.env.iter().chain(of_steps).map(|pending| pending.expr.members("inputs")).collect();
    // An expression that is forbidden at its place or cannot be parsed reads nothing yet, but will once it is put right.
    let mentioned = if reader.report.has_errors() { mentioned_inputs(reader.report.source()) } else { BTreeSet::new() };
    for (name, input) in parts.inputs.iter().filter(|(name, input)| !input.broken && !mentioned.contains(**name)) {
        let read = reads.iter().any(|members| members.whole || members.names.iter().any(|read| read == name));
        if !read {
            reader
                .report
                .warning(Code::UnusedInput, input.span.clone(), format!("nothing reads the input `{name}`"))
                .help(format!("read it as `${{{{ inputs.{name} }}}}`, for example in `env`, or remove it"));
        }
    }
}

/// Names that stand behind `inputs.` anywhere in the text.
fn mentioned_inputs(source: &str) -> BTreeSet<&str> {
    let name = |at: usize| {
        let rest = &source[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    };
    source.match_indices(READS_INPUT).map(|(at, found)| name(at + found.len())).collect()
}

/// How an expression reads an input.
const READS_INPUT: &str = "inputs.";
