//! Checking expressions before anything runs.
//!
//! An expression is read against a [`Scope`]: the shapes of `event`, `inputs`, `matrix`, `steps`, `datasets` and `run` at
//! its place. The checker walks CEL's syntax tree ([`infer`]), says what is certainly wrong, and finds out which steps
//! and datasets are read. What it cannot know it lets pass: a value of unknown shape may be used in any way.

mod facts;
mod functions;
mod infer;
mod places;
mod types;

use std::ops::Range;

use kickwheel_core::expr::{Expr, ExprError};
use kickwheel_core::plan::{InputType, Phase};

pub(crate) use self::{
    facts::Facts,
    infer::section,
    types::{Member, Owner, Record, Type, artifact, event, input, task},
};
use crate::{
    diagnostic::{Code, Report},
    raw::Node,
};

/// Most expressions of one file: each is parsed on a stack of its own.
pub(crate) const MAX_EXPRESSIONS: usize = 2_000;

/// An expression that was read and is to be checked once every name of the file is known.
pub(crate) struct Pending<'n> {
    pub expr: Expr,
    /// The text that holds it.
    pub node: &'n Node,
    /// Its bytes in that text.
    pub range: Range<usize>,
    pub wanted: Wanted,
}

impl Pending<'_> {
    /// Where a part of the expression stands in the file.
    fn span(&self, source: &str, part: Range<usize>) -> Range<usize> {
        let at = self.range.start;
        self.node.span_within(source, at + part.start..at + part.end)
    }
}

/// What the place of an expression can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Anything,
    /// `if`, `where`.
    Boolean,
    /// An axis of a matrix.
    List,
    /// `env`, `command` and texts around expressions.
    Scalar,
    /// `files`: an artifact, or a list of them, which becomes a folder.
    Artifact,
    /// An argument of a plugin, of this declared type.
    Argument(Argument),
    /// A value for an input.
    Input(InputType),
}

/// Types that plugins declare for their inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Argument {
    Any,
    Text,
    Number,
    Boolean,
    List,
    Map,
    Reference,
}

impl Argument {
    /// From a manifest. A type that this version does not know is not checked.
    pub fn from_manifest(ty: &str) -> Self {
        match ty {
            "string" => Self::Text,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            "list" => Self::List,
            "map" => Self::Map,
            "reference" => Self::Reference,
            _ => Self::Any,
        }
    }
}

/// What an expression may read at its place.
pub(crate) struct Scope<'m> {
    pub variables: Vec<(&'static str, Type)>,
    /// Variables that exist elsewhere, and why not here.
    pub absent: Vec<(&'static str, &'static str)>,
    /// Whether `always()` and `failed()` may be called.
    pub status_functions: bool,
    /// What is known to be there, from the step's `if`.
    pub facts: Facts,
    /// All steps of the workflow.
    pub steps: &'m [StepShape],
    /// The step that the expression belongs to.
    pub step: Option<usize>,
}

/// A step as other steps see it.
pub(crate) struct StepShape {
    pub name: String,
    pub phase: Phase,

    pub ty: Type,
}

/// What an expression turned out to be.
pub(crate) struct Checked {
    pub ty: Type,
    /// Steps that it reads, and where.
    pub steps: Vec<(usize, Range<usize>)>,
    /// Datasets that it reads.
    pub datasets: Vec<String>,
    /// What holds wherever it is true.
    pub facts_if_true: Facts,
}

impl Checked {
    fn unknown() -> Self {
        Self { ty: Type::Any, steps: Vec::new(), datasets: Vec::new(), facts_if_true: Facts::default() }
    }
}

/// Checks one expression and reports what is wrong with it.
pub(crate) fn check(pending: &Pending<'_>, scope: &Scope<'_>, report: &mut Report<'_>) -> Checked {
    let source = report.source();
    let program = match pending.expr.check() {
        Ok(program) => program,
        Err(ExprError::Parse { message, offset, .. }) => {
            let length = pending.range.len();
            let part = offset.map_or(0..length, |at| at.min(length)..at.min(length));
            report.error(
                Code::ExpressionSyntax,
                pending.span(source, part),
                format!("the expression does not parse: {message}"),
            );
            return Checked::unknown();
        }
        // Only parsing happens here, but the type is shared with evaluation.
        Err(error @ (ExprError::Evaluate { .. } | ExprError::Null { .. } | ExprError::Type { .. })) => {
            report.error(Code::ExpressionSyntax, pending.span(source, 0..pending.range.len()), error.to_string());
            return Checked::unknown();
        }
    };
    let mut inference = infer::Inference::new(pending.expr.source(), program.source_info(), scope);
    let ty = inference.run(program.expression());
    let facts_if_true = facts::facts_if(scope, program.expression(), true);
    for problem in inference.problems {
        let span = pending.span(source, problem.part);
        let help = problem.help.map(|help| help.text(report));
        let diagnostic = report.error(problem.code, span, problem.message);
        if let Some(help) = help {
            diagnostic.help(help);
        }
    }
    let steps = inference.steps.into_iter().map(|(step, part)| (step, pending.span(source, part))).collect();
    if let Some((wanted, help)) = mismatch(&ty, pending.wanted) {
        let span = pending.span(source, 0..pending.range.len());
        let message = format!("{wanted} is needed here, but the expression gives {}", ty.describe());
        let diagnostic = report.error(Code::ExpressionType, span, message);
        if let Some(help) = help {
            diagnostic.help(help);
        }
    }
    Checked { ty, steps, datasets: inference.datasets, facts_if_true }
}

/// What was needed instead of `ty`, when that is certain.
fn mismatch(ty: &Type, wanted: Wanted) -> Option<(&'static str, Option<&'static str>)> {
    let class = ty.class()?;
    use types::Class;
    let scalar = matches!(class, Class::Text | Class::Number | Class::Boolean);
    match wanted {
        Wanted::Anything | Wanted::Argument(Argument::Any) => None,
        Wanted::Boolean => (class != Class::Boolean).then_some(("a boolean", Some("compare it with something"))),
        Wanted::List => (class != Class::List).then_some(("a list", Some("an axis takes each value in turn"))),
        Wanted::Scalar => (!scalar).then_some(("a text, number or boolean", None)),
        Wanted::Artifact => match class {
            Class::Map | Class::List => None,
            Class::Text | Class::Number | Class::Boolean => Some((
                "an artifact",
                Some(
                    "read an output as `${{ steps.NAME.outputs.NAME }}`, or write `dataset:NAME` without an expression",
                ),
            )),
        },
        Wanted::Argument(Argument::Text) => (class != Class::Text).then_some(("a text", None)),
        Wanted::Argument(Argument::Number) => (class != Class::Number).then_some(("a number", None)),
        Wanted::Argument(Argument::Boolean) | Wanted::Input(InputType::Boolean) => {
            (class != Class::Boolean).then_some(("a boolean", None))
        }
        Wanted::Argument(Argument::List) | Wanted::Input(InputType::List) => {
            (class != Class::List).then_some(("a list", None))
        }
        Wanted::Argument(Argument::Map) => (class != Class::Map).then_some(("a map", None)),
        Wanted::Argument(Argument::Reference) => {
            (!matches!(class, Class::Text | Class::Map)).then_some(("a text such as `model:NAME@STAGE`", None))
        }
        Wanted::Input(InputType::String) => {
            (class != Class::Text).then_some(("a text", Some("convert it with `string(…)`")))
        }
        Wanted::Input(InputType::Integer) => (class != Class::Number || *ty == Type::Double)
            .then_some(("a whole number", Some("convert it with `int(…)`"))),
        Wanted::Input(InputType::Number) => {
            (class != Class::Number).then_some(("a number", Some("convert it with `double(…)`")))
        }
    }
}

#[cfg(test)]
mod tests;
