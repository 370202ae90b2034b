//! A step into its tasks: the product of its axes, and every expression of each task evaluated.

use std::collections::BTreeMap;

use kickwheel_schemas::ArtifactRef;
use serde_json::Value;

use super::{draft::Draft, schedule::expression_failure, scope::StepScope};
use crate::{
    event::{Failure, FailureKind, JobProgram, RunContext, TaskSpec, Work},
    expr::{Bindings, Template, type_name},
    plan::{Action, DATASET_PREFIX, MAX_TASKS_PER_STEP, Matrix, MatrixValues, Step, StepIndex},
};

/// Everything that the step's tasks are to do.
pub(super) fn tasks(draft: &Draft<'_>, step: StepIndex, scope: StepScope) -> Result<Vec<TaskSpec>, Failure> {
    let declared = &draft.plan.steps[step];
    let mut bindings = scope.bindings;
    let Some(matrix) = &declared.matrix else {
        let work = work(declared, draft.context, &bindings)?;
        return Ok(vec![TaskSpec { matrix: MatrixValues::new(), work }]);
    };
    let axes = axes(matrix, &bindings)?;
    let mut tasks = Vec::new();
    for matrix in product(&axes)? {
        bindings.bind("matrix", &serde_json::json!(matrix));
        let work = work(declared, draft.context, &bindings)?;
        tasks.push(TaskSpec { matrix, work });
    }
    Ok(tasks)
}

/// The values of each axis.
fn axes<'p>(matrix: &'p Matrix, bindings: &Bindings) -> Result<Vec<(&'p String, Vec<Value>)>, Failure> {
    let evaluate = |(name, template): (&'p String, &'p Template)| match template
        .evaluate_in(bindings)
        .map_err(|error| in_field(&format!("matrix.{name}"), &error))?
    {
        Value::Array(values) => Ok((name, values)),
        other => Err(expression(format!("use `matrix.{name}`: it gives {}, but a list is needed", type_name(&other)))),
    };
    matrix.axes.iter().map(evaluate).collect()
}

/// Every combination, the last axis varying fastest.
fn product(axes: &[(&String, Vec<Value>)]) -> Result<Vec<MatrixValues>, Failure> {
    let size = axes.iter().try_fold(1_usize, |size, (_, values)| size.checked_mul(values.len()));
    let Some(size) = size.filter(|size| *size <= MAX_TASKS_PER_STEP) else {
        let lengths: Vec<String> = axes.iter().map(|(name, values)| format!("{name}: {}", values.len())).collect();
        return Err(expression(format!(
            "expand the matrix ({}): it gives more than {MAX_TASKS_PER_STEP} tasks, the most that one step may have",
            lengths.join(", ")
        )));
    };
    let combination = |mut place: usize| {
        let mut values_of_task = MatrixValues::new();
        for (name, values) in axes.iter().rev() {
            values_of_task.insert((*name).clone(), values[place % values.len()].clone());
            place /= values.len();
        }
        values_of_task
    };
    Ok((0..size).map(combination).collect())
}

fn work(step: &Step, context: &RunContext, bindings: &Bindings) -> Result<Work, Failure> {
    match &step.action {
        Action::Script { script, image } => {
            let program = JobProgram::Script { script: script.clone() };
            job(step, context, bindings, program, image.clone())
        }
        Action::Container { image, command } => {
            let argv = (0..).zip(command).map(|(at, argument): (usize, _)| {
                argument.evaluate_text(bindings).map_err(|error| in_field(&format!("command[{at}]"), &error))
            });
            let program = JobProgram::Argv { argv: argv.collect::<Result<_, _>>()? };
            job(step, context, bindings, program, Some(image.clone()))
        }
        Action::Plugin { name, digest, with, references, outputs: _ } => {
            let with = with.iter().map(|(key, template)| {
                let value = template.evaluate_in(bindings).map_err(|error| in_field(&format!("with.{key}"), &error))?;
                Ok((key.clone(), value))
            });
            Ok(Work::Call {
                plugin: name.clone(),
                digest: digest.clone(),
                with: with.collect::<Result<_, Failure>>()?,
                references: references.clone(),
            })
        }
    }
}

fn job(
    step: &Step,
    context: &RunContext,
    bindings: &Bindings,
    program: JobProgram,
    image: Option<String>,
) -> Result<Work, Failure> {
    let mut env = BTreeMap::new();
    for (name, template) in &step.env {
        let text = template.evaluate_text(bindings).map_err(|error| in_field(&format!("env.{name}"), &error))?;
        env.insert(name.clone(), text);
    }
    let mut files = BTreeMap::new();
    for (path, template) in &step.files {
        let field = format!("files.{path}");
        let value = template.evaluate_in(bindings).map_err(|error| in_field(&field, &error))?;
        match value {
            Value::Array(items) => {
                for (index, item) in items.into_iter().enumerate() {
                    let artifact = file(context, &format!("{field}[{index}]"), item)?;
                    files.insert(listed_path(path, index, &artifact), artifact);
                }
            }
            one => _ = files.insert(path.clone(), file(context, &field, one)?),
        }
    }
    Ok(Work::Job { program, image, env, files, resources: step.resources })
}

/// Where an item of a list is laid: in a folder at `path`, by its index and the name that its file had. The index keeps
/// the order of the list, and apart what tasks of one array step have produced under one name.
fn listed_path(path: &str, index: usize, artifact: &ArtifactRef) -> String {
    match artifact.path.rsplit('/').next() {
        Some(name) if !name.is_empty() => format!("{path}/{index:04}-{name}"),
        _ => format!("{path}/{index:04}"),
    }
}

/// What is laid at a path: an artifact, or a pinned dataset.
fn file(context: &RunContext, field: &str, value: Value) -> Result<ArtifactRef, Failure> {
    let wanted = "an artifact (a path output of a step, or a file of a dataset) or a text `dataset:NAME` is needed";
    match value {
        Value::String(text) => match text.strip_prefix(DATASET_PREFIX) {
            Some(name) => dataset(context, field, name),
            None => Err(expression(format!("use `{field}`: it gives the text {text:?}, but {wanted}"))),
        },
        Value::Object(_) => serde_json::from_value(value)
            .map_err(|error| expression(format!("use `{field}`: its value is no artifact ({error}); {wanted}"))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            Err(expression(format!("use `{field}`: it gives {}, but {wanted}", type_name(&value))))
        }
    }
}

fn dataset(context: &RunContext, field: &str, name: &str) -> Result<ArtifactRef, Failure> {
    match context.datasets.get(name) {
        Some(Some(pinned)) => {
            Ok(ArtifactRef { digest: pinned.digest.clone(), size: pinned.size, path: String::new(), folder: true })
        }
        Some(None) => Err(expression(format!(
            "use `{field}`: the dataset {name:?} had no version when the run was decided; publish one first"
        ))),
        None => Err(expression(format!(
            "use `{field}`: the dataset {name:?} was not pinned when the run was decided; write `dataset:{name}` \
             literally, so that it is known beforehand"
        ))),
    }
}

fn in_field(field: &str, error: &crate::expr::ExprError) -> Failure {
    let failure = expression_failure(error);
    Failure { message: format!("{} (in `{field}`)", failure.message), ..failure }
}

fn expression(message: String) -> Failure {
    Failure { kind: FailureKind::Expression, message }
}
