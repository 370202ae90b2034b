//! The workflow as a whole: reading it, checking it, putting the plan together.
//!
//! Reading ([`reader`], [`triggers`], [`inputs`], [`step`]) takes the tree apart and only collects expressions; checking
//! them ([`check`]) comes when all names are known. A part that is wrong is reported and replaced by something harmless,
//! so that the rest is still looked at; the plan is handed out only when nothing was wrong.

mod check;
mod inputs;
mod job;
mod reader;
mod step;
mod triggers;

use std::{collections::BTreeSet, ops::Range};

use indexmap::IndexMap;
use kickwheel_core::{
    cron::name_cron_triggers,
    expr::Template,
    filter::{EventFilter, FilterKind},
    plan::{InputDecl, PLAN_FORMAT, Phase, Plan, Workflow},
};

use crate::{
    PluginCatalog,
    diagnostic::{Code, Diagnostic, Report},
    expression::Pending,
    graph,
    keys::WORKFLOW,
    raw::{self, Kind, Node},
    values,
};
use reader::Reader;
pub(crate) use step::Draft;

/// Most steps of one workflow, those of all sections together.
pub(crate) const MAX_STEPS: usize = 500;

/// What a file was found to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// The workflow; none if anything in `diagnostics` is an error.
    pub workflow: Option<Workflow>,
    /// Everything that is wrong or has no effect, by position.
    pub diagnostics: Vec<Diagnostic>,
    /// The name that the file gives, also when it is broken otherwise: what a report is filed under.
    pub name: Option<String>,
}

/// Compiles the text of a workflow file.
pub fn compile(source: &str, plugins: &PluginCatalog) -> Compiled {
    let mut report = Report::new(source);
    let Some(root) = raw::parse(&mut report) else {
        return Compiled { workflow: None, diagnostics: report.finish(), name: None };
    };
    let mut reader = Reader { report, plugins, datasets: BTreeSet::new(), expressions: 0 };
    let parts = read(&root, &mut reader);
    let Some(parts) = parts else {
        return Compiled { workflow: None, diagnostics: reader.report.finish(), name: None };
    };
    let name = parts.name.map(str::to_owned);
    let references = check::check(&parts, &mut reader);
    let order = graph::order(&parts.steps, &references, &mut reader.report);
    let workflow = match (&name, order) {
        (Some(name), Some(order)) if !reader.report.has_errors() => {
            Some(assemble(name.clone(), parts, &order, reader.datasets))
        }
        _ => None,
    };
    Compiled { workflow, diagnostics: reader.report.finish(), name }
}

/// A file taken apart, its expressions not checked yet.
pub(crate) struct Parts<'n> {
    pub name: Option<&'n str>,
    pub filters: Vec<Filter<'n>>,
    pub inputs: IndexMap<&'n str, Input>,
    /// Expressions of the workflow's `env`.
    pub env: Vec<Pending<'n>>,
    pub steps: Vec<Draft<'n>>,
}

/// A filter, and its expressions.
pub(crate) struct Filter<'n> {
    /// As the plan's readers judge it.
    pub judged: EventFilter,
    /// As in `on`, for messages.
    pub kind: &'static str,
    pub span: Range<usize>,
    pub pending: Vec<Pending<'n>>,
}

/// A declared input.
pub(crate) struct Input {
    pub decl: InputDecl,
    pub span: Range<usize>,
    /// Something is wrong with its name or declaration, which has been reported.
    pub broken: bool,
}

fn read<'n>(root: &'n Node, reader: &mut Reader<'_, '_>) -> Option<Parts<'n>> {
    let owner = 0..0;
    let fields = reader.fields(root, &WORKFLOW, &owner)?;
    if let Some(entry) = fields.get("version")
        && !matches!(entry.value.kind, Kind::Int(1))
    {
        let found = match &entry.value.kind {
            Kind::Int(version) => format!("version {version}"),
            _ => entry.value.describe().to_owned(),
        };
        reader
            .report
            .error(Code::BadVersion, entry.value.span.clone(), format!("`version` must be 1, but is {found}"))
            .help("write `version: 1`");
    }
    let name = fields.get("name").and_then(|entry| reader.plain_text(entry)).filter(|name| {
        let fits = values::is_name(name);
        if !fits && let Some(entry) = fields.get("name") {
            reader.bad_name(&entry.value.span, name, "a workflow");
        }
        fits
    });
    let inputs = fields.get("inputs").map(|entry| inputs::read(entry, reader)).unwrap_or_default();
    let filters = match fields.get("on") {
        Some(entry) => triggers::read(entry, &inputs, reader),
        None => vec![manual_only()],
    };
    let mut env_pending = Vec::new();
    let env = fields.get("env").map(|entry| reader.env(entry, &mut env_pending)).unwrap_or_default();
    let mut steps = Vec::new();
    for (key, phase) in [("steps", Phase::Main), ("on_failure", Phase::OnFailure), ("finally", Phase::Finally)] {
        if let Some(entry) = fields.get(key) {
            step::read_section(entry, phase, &env, &mut steps, reader);
        }
    }
    Some(Parts { name, filters, inputs, env: env_pending, steps })
}

/// Without `on`, only a person starts the workflow.
fn manual_only<'n>() -> Filter<'n> {
    let filter = EventFilter { id: None, kind: FilterKind::Manual, condition: None, with: IndexMap::new() };
    Filter { judged: filter, kind: triggers::MANUAL, span: 0..0, pending: Vec::new() }
}

fn assemble(name: String, parts: Parts<'_>, order: &graph::Order, datasets: BTreeSet<String>) -> Workflow {
    let mut drafts: Vec<Option<Draft<'_>>> = parts.steps.into_iter().map(Some).collect();
    let steps = order
        .sequence
        .iter()
        .map(|&index| {
            let draft = drafts[index].take().expect("an order names each step once");
            let mut step = draft.step;
            step.needs = order.needs_of(index);
            step
        })
        .collect();
    let inputs = parts.inputs.into_iter().map(|(name, input)| (name.to_owned(), input.decl)).collect();
    let plan =
        Plan { format: PLAN_FORMAT, workflow: name.clone(), inputs, datasets: datasets.into_iter().collect(), steps };
    let mut on: Vec<EventFilter> = parts.filters.into_iter().map(|filter| filter.judged).collect();
    name_cron_triggers(&name, &mut on);
    Workflow { name, on, plan }
}

/// The environment that the workflow gives to each of its jobs.
pub(crate) type Env = IndexMap<String, Template>;
