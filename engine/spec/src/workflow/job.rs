//! What only jobs have: environment, files, outputs, and what they ask of a machine.
//!
//! A plugin runs in the engine and has none of it.

use indexmap::IndexMap;
use kickwheel_core::{
    expr::Template,
    plan::{ContainerLimits, OutputDecl, Resources},
};
use serde_json::Value;

use super::{
    Env,
    reader::{Fields, Reader},
    step::{DATASET_PREFIX, Draft, OutputType, Outputs, StepKind},
};
use crate::{
    diagnostic::Code,
    expression::{Pending, Wanted},
    keys::{CONTAINER, NETWORKS, OUTPUT, RESOURCES},
    raw::{Entry, Kind, Node},
    values,
};

/// Most GPUs of one job.
const MAX_GPUS: u32 = 1_024;
/// Longest name of a file that holds a secret, in bytes.
const MAX_SECRET_FILE_BYTES: usize = 128;
/// Most cores of one job.
const MAX_CORES: f64 = 10_000.0;

/// Reads all of it into the draft.
pub(super) fn read<'n>(
    kind: StepKind,
    fields: &Fields<'n>,
    env: &Env,
    draft: &mut Draft<'n>,
    reader: &mut Reader<'_, '_>,
) {
    if kind == StepKind::Plugin {
        for key in ["env", "files", "outputs", "source", "resources", "secrets", "container"] {
            if let Some(entry) = fields.get(key) {
                let message = format!("`{key}` has no meaning with `uses`");
                reader
                    .report
                    .error(Code::MisplacedKey, entry.key_span.clone(), message)
                    .help("a plugin takes its values from `with` and declares its outputs itself");
            }
        }
        return;
    }
    draft.step.env.clone_from(env);
    if let Some(entry) = fields.get("env") {
        draft.step.env.extend(reader.env(entry, &mut draft.pending));
    }
    if let Some(entry) = fields.get("files") {
        draft.step.files = read_files(entry, &mut draft.pending, reader);
    }
    if let Some(entry) = fields.get("source") {
        draft.step.source = reader.globs(entry, false);
    }
    if let Some(entry) = fields.get("resources") {
        draft.step.resources = read_resources(entry, reader);
    }
    if let Some(entry) = fields.get("secrets") {
        draft.step.secrets = read_secrets(entry, reader);
    }
    if let Some(entry) = fields.get("container") {
        draft.step.container = read_container(entry, reader);
        if fields.get("image").is_none() {
            reader
                .report
                .error(
                    Code::MisplacedKey,
                    entry.key_span.clone(),
                    "`container` has no meaning without `image`".to_owned(),
                )
                .help(
                    "a step without an image is a process of the machine, which has that machine's network and files",
                );
        }
    }
    let outputs = fields.get("outputs").map(|entry| read_outputs(entry, reader)).unwrap_or_default();
    if kind != StepKind::Broken {
        let known = outputs.iter().map(|(name, output)| {
            let ty = match output {
                OutputDecl::Path { .. } => OutputType::Artifact,
                OutputDecl::Value => OutputType::Value,
            };
            (name.clone(), ty)
        });
        draft.outputs = Outputs::Known(known.collect());
    }
    draft.step.outputs = outputs;
}

fn read_files<'n>(
    entry: &'n Entry,
    pending: &mut Vec<Pending<'n>>,
    reader: &mut Reader<'_, '_>,
) -> IndexMap<String, Template> {
    let mut files = IndexMap::new();
    for file in reader.named(entry, "a map of paths to artifacts") {
        reader.path(&file.key_span, &file.key);
        let template = reader.template(&file.value, Wanted::Artifact, pending);
        reader.literal(&file.value, &template, Wanted::Artifact, &file.key);
        check_file(&file.value, reader);
        files.insert(file.key.clone(), template);
    }
    files
}

/// What is laid at a path must be known when the run is decided: an expression as a whole, or a dataset by its name.
fn check_file(node: &Node, reader: &mut Reader<'_, '_>) {
    let text = match &node.kind {
        Kind::Text(text) => text.value.as_str(),
        Kind::List(items) => {
            for item in items {
                if item.text().is_some() {
                    check_file(item, reader);
                } else {
                    let message =
                        format!("an item must be an expression or `dataset:NAME`, but is {}", item.describe());
                    reader.report.error(Code::WrongType, item.span.clone(), message);
                }
            }
            return;
        }
        Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Map(_) => return,
    };
    match Template::parse(text) {
        Ok(Template::Literal(Value::String(literal))) => match literal.strip_prefix(DATASET_PREFIX) {
            Some(name) => reader.dataset(&node.span, name, true),
            None => {
                reader
                    .report
                    .error(Code::BadValue, node.span.clone(), format!("`{literal}` names no artifact"))
                    .help("write `dataset:NAME`, or read an output as `${{ steps.NAME.outputs.NAME }}`");
            }
        },
        Ok(Template::Text(_)) => {
            let message = "text around expressions names no artifact: what a run reads is pinned when it is decided";
            reader
                .report
                .error(Code::ExpressionType, node.span.clone(), message)
                .help("write `dataset:NAME` without an expression, or make the whole value one `${{ }}`");
        }
        // A text gives none of the other literals, and what cannot be read has been reported.
        Ok(Template::Literal(_) | Template::Expr(_) | Template::List(_) | Template::Map(_)) | Err(_) => {}
    }
}

fn read_outputs(entry: &Entry, reader: &mut Reader<'_, '_>) -> IndexMap<String, OutputDecl> {
    let mut outputs = IndexMap::new();
    for output in reader.named(entry, "a map of names to outputs") {
        if !values::is_name(&output.key) {
            reader.bad_name(&output.key_span, &output.key, "an output");
        }
        // A broken output still exists: who reads it has made no mistake.
        outputs.insert(output.key.clone(), read_output(output, reader).unwrap_or(OutputDecl::Value));
    }
    outputs
}

fn read_output(entry: &Entry, reader: &mut Reader<'_, '_>) -> Option<OutputDecl> {
    if entry.value.text() == Some("value") {
        return Some(OutputDecl::Value);
    }
    if entry.value.text().is_some() {
        let path = reader.plain_text(entry)?;
        reader.path(&entry.value.span, path);
        return Some(OutputDecl::Path { path: path.to_owned(), dataset: None });
    }
    let fields = reader.fields(&entry.value, &OUTPUT, &entry.key_span)?;
    match (fields.get("path"), fields.get("dataset"), fields.get("value")) {
        (Some(path_entry), dataset, None) => {
            let path = reader.plain_text(path_entry)?;
            reader.path(&path_entry.value.span, path);
            let dataset = dataset.and_then(|entry| {
                let name = reader.plain_text(entry)?;
                reader.dataset(&entry.value.span, name, false);
                Some(name.to_owned())
            });
            Some(OutputDecl::Path { path: path.to_owned(), dataset })
        }
        (None, None, Some(value)) => {
            if reader.boolean(value) == Some(false) {
                let message = format!("the output `{}` is neither a path nor a value", entry.key);
                reader.report.error(Code::BadValue, value.value.span.clone(), message).help("write `value: true`");
            }
            Some(OutputDecl::Value)
        }
        _ if ["path", "dataset", "value"].iter().any(|key| fields.is_misspelt(key)) => None,
        (path, dataset, value) => {
            let problem = match (path.is_some(), value.is_some()) {
                (true, true) => "is both a path and a value",
                (_, true) => "is a value, which no dataset can hold",
                _ if dataset.is_some() => "has a `dataset`, but no `path` to publish there",
                _ => "is neither a path nor a value",
            };
            reader
                .report
                .error(Code::MissingKey, entry.key_span.clone(), format!("the output `{}` {problem}", entry.key))
                .help("write `{path: out/file}` or `{value: true}`");
            None
        }
    }
}

/// File names and the secrets that they hold.
fn read_secrets(entry: &Entry, reader: &mut Reader<'_, '_>) -> IndexMap<String, String> {
    let mut secrets = IndexMap::new();
    for named in reader.named(entry, "secrets") {
        let file = &named.key;
        if file.is_empty() || file.starts_with('.') || file.contains('/') || file.len() > MAX_SECRET_FILE_BYTES {
            reader
                .report
                .error(Code::BadValue, named.key_span.clone(), format!("`{file}` cannot be the file of a secret"))
                .help("write a plain file name, such as `token`; it appears below `$KICKWHEEL_SECRETS`");
        }
        if let Some(name) = reader.plain_text(named) {
            secrets.insert(file.clone(), name.to_owned());
        }
    }
    secrets
}

fn read_container(entry: &Entry, reader: &mut Reader<'_, '_>) -> ContainerLimits {
    let mut limits = ContainerLimits::default();
    let Some(fields) = reader.fields(&entry.value, &CONTAINER, &entry.key_span) else { return limits };
    if let Some(entry) = fields.get("network")
        && let Some(word) = reader.plain_text(entry)
    {
        limits.network = word == "outbound";
        if !NETWORKS.contains(&word) {
            let message = format!("`network` is one of {}, but is `{word}`", NETWORKS.join(" and "));
            reader.report.error(Code::BadValue, entry.value.span.clone(), message);
        }
    }
    if let Some(entry) = fields.get("read_only") {
        limits.read_only = reader.boolean(entry).unwrap_or_default();
    }
    limits
}

fn read_resources(entry: &Entry, reader: &mut Reader<'_, '_>) -> Resources {
    let mut resources = Resources::default();
    let Some(fields) = reader.fields(&entry.value, &RESOURCES, &entry.key_span) else { return resources };
    if let Some(entry) = fields.get("cpu") {
        let cores = match &entry.value.kind {
            Kind::Int(cores) => Ok(*cores as f64),
            Kind::Float(cores) => Ok(*cores),
            Kind::Text(_) => cpu_text(entry.value.text().unwrap_or_default()),
            _ => Err(format!("`cpu` must be a number or a text such as `500m`, but is {}", entry.value.describe())),
        };
        let cores = cores.and_then(|cores| {
            let fits = cores > 0.0 && cores <= MAX_CORES && (cores * 1000.0).round() >= 1.0;
            if fits {
                Ok(cores)
            } else {
                Err(format!("`cpu` must be more than 0 and at most {MAX_CORES}, but is {cores}"))
            }
        });
        if let Some(cores) = reader.valued(entry, cores) {
            resources.cpu_milli = (cores * 1000.0).round() as u64;
        }
    }
    if let Some(entry) = fields.get("memory") {
        let bytes = match &entry.value.kind {
            Kind::Int(bytes) => {
                u64::try_from(*bytes).map_err(|_| format!("`memory` cannot be negative, but is {bytes}"))
            }
            Kind::Text(_) => values::size_bytes(entry.value.text().unwrap_or_default()),
            _ => Err(format!(
                "`memory` must be a size such as `2Gi` or a number of bytes, but is {}",
                entry.value.describe()
            )),
        };
        let bytes =
            bytes.and_then(|bytes| if bytes > 0 { Ok(bytes) } else { Err("`memory` must be more than 0".into()) });
        resources.memory_bytes = reader.valued(entry, bytes);
    }
    if let Some(entry) = fields.get("gpu") {
        resources.gpu = reader.count(entry, MAX_GPUS).unwrap_or_default();
    }
    resources
}

fn cpu_text(text: &str) -> Result<f64, String> {
    let wrong = || format!("`{text}` is no number of cores; write for example `2`, `0.5` or `500m`");
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let (number, share) = match text.strip_suffix('m') {
        Some(number) => (number, 1000.0),
        None => (text, 1.0),
    };
    if !digits(number) {
        return Err(wrong());
    }
    number.parse::<f64>().map(|number| number / share).map_err(|_| wrong())
}
