//! What the runner is told about one attempt. Nothing is decided or looked up here.

use std::collections::BTreeMap;

use kickwheel_core::{
    event::{JobProgram, Work},
    plan::OutputDecl,
};
use kickwheel_schemas::runner::{JobSpec, Network, PROTOCOL, Program};

use super::{Attempt, job::GRACE, source::SourceTree};

/// Bytes of log that are kept per attempt.
const LOG_LIMIT_BYTES: u64 = 64 << 20;

/// The specification of `attempt`, on `source`.
pub(super) fn job_spec(attempt: &Attempt, source: Option<&SourceTree>) -> JobSpec {
    let step = attempt.declared();
    let (program, env, files, memory_bytes) = match &attempt.spec.work {
        Work::Job { program, env, files, resources, .. } => {
            (program.clone(), env.clone(), files.clone(), resources.memory_bytes)
        }
        Work::Call { .. } => (JobProgram::Argv { argv: Vec::new() }, BTreeMap::new(), BTreeMap::new(), None),
    };
    let (mut output_paths, mut output_values) = (BTreeMap::new(), Vec::new());
    for (name, declaration) in &step.outputs {
        match declaration {
            OutputDecl::Path { path, .. } => _ = output_paths.insert(name.clone(), path.clone()),
            OutputDecl::Value => output_values.push(name.clone()),
        }
    }
    JobSpec {
        protocol: PROTOCOL,
        attempt: attempt.key().to_string(),
        task: attempt.task().to_string(),
        program: match program {
            JobProgram::Script { script } => Program::Script { script },
            JobProgram::Argv { argv } => Program::Exec { argv },
        },
        env,
        source: source.map(|tree| tree.artifact.clone()),
        files,
        output_paths,
        output_values,
        timeout_ms: step.timeout_ms,
        grace_ms: u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX),
        memory_bytes,
        log_limit_bytes: LOG_LIMIT_BYTES,
        traceparent: attempt.traceparent.clone(),
        network: if step.container.network { Network::Outbound } else { Network::None },
        read_only_root: step.container.read_only,
        secrets: step.secrets.iter().map(|(file, name)| (file.clone(), name.clone())).collect(),
        notes: source.and_then(SourceTree::lack).into_iter().collect(),
    }
}
