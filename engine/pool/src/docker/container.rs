//! What a container is made of: everything that its specification says, and on purpose nothing secret.
//!
//! The runner is the container's first process. Nobody inside can kill or stop it, its end is the container's, and it
//! reaps what is left; a separate init would take all of that away. The job has the image's environment, the attempt's
//! folder, its inputs and nothing else of this machine, except what the administrator mounts for everybody.

use std::{collections::HashMap, path::Path};

use bollard::models::{
    ContainerCreateBody, DeviceRequest, HostConfig, HostConfigLogConfig, Mount, MountType, RestartPolicy,
    RestartPolicyNameEnum,
};
use kickwheel_schemas::{
    AttemptKey,
    runner::{JobSpec, Network},
};

use super::DockerConfig;
use crate::{Capacity, Request};

/// The label that names the attempt.
pub const ATTEMPT_LABEL: &str = "dev.kickwheel.attempt";

/// The label that names the data folder.
pub const DATA_LABEL: &str = "dev.kickwheel.data";

/// The output store's folder in the attempt's.
pub const OUTPUTS: &str = "store";

/// Bytes of files in memory that secrets may take.
const SECRETS_BYTES: u64 = 8 << 20;

/// Where secrets are laid out.
const SECRETS: &str = "/kickwheel/secrets";

/// Where the runner and the store of inputs are.
const RUNNER: &str = "/kickwheel/runner";
const INPUTS: &str = "/kickwheel/inputs";

/// Everything that belongs to one container.
pub struct Parts<'a> {
    /// The pool's settings.
    pub config: &'a DockerConfig,
    /// Which data folder it belongs to.
    pub data: &'a str,
    /// The attempt.
    pub key: &'a AttemptKey,
    /// What is to be done.
    pub spec: &'a JobSpec,
    /// Its limits.
    pub request: &'a Request,
    /// The image's id.
    pub image: &'a str,
    /// `uid:gid`.
    pub user: &'a str,
    /// The attempt's folder on this machine.
    pub attempt: &'a Path,
    /// The store that holds its inputs only.
    pub inputs: &'a Path,
}

/// The specification. Paths that are not UTF-8 cannot be told to the engine: the error says which.
pub fn specify(parts: &Parts<'_>) -> Result<ContainerCreateBody, String> {
    let name = parts.key.file_name();
    let attempt = format!("/kickwheel/attempts/{name}");
    let outputs = format!("{attempt}/{OUTPUTS}");
    let command = [
        "run",
        "--attempt-dir",
        &attempt,
        "--artifacts",
        INPUTS,
        "--outputs",
        &outputs,
        "--secrets",
        SECRETS,
        "--container",
    ];
    let mut mounts = vec![
        bind(&parts.config.runner, RUNNER, false)?,
        bind(parts.inputs, INPUTS, false)?,
        bind(parts.attempt, &attempt, true)?,
    ];
    for mount in &parts.config.mounts {
        mounts.push(bind(&mount.source, &mount.target, mount.writable)?);
    }
    let labels =
        [(ATTEMPT_LABEL, name.as_str()), (DATA_LABEL, parts.data), ("dev.kickwheel.task", parts.spec.task.as_str())];
    let memory = parts.spec.memory_bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    // More than the machine has is refused by the engine; a pool may be declared larger than the machine.
    let cpu_milli = parts.request.cpu_milli.min(Capacity::of_this_machine().cpu_milli);
    let host = HostConfig {
        mounts: Some(mounts),
        tmpfs: (!parts.spec.secrets.is_empty()).then(|| {
            let options = format!("rw,noexec,nosuid,nodev,size={SECRETS_BYTES},mode=1777");
            HashMap::from([(SECRETS.to_owned(), options)])
        }),
        memory,
        // With swap, a job over its limit would crawl instead of ending.
        memory_swap: memory,
        nano_cpus: (cpu_milli > 0).then(|| i64::try_from(cpu_milli.saturating_mul(1_000_000)).unwrap_or(i64::MAX)),
        pids_limit: Some(parts.config.pids_limit),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        network_mode: Some(match parts.spec.network {
            Network::None => "none".to_owned(),
            Network::Outbound => parts.config.network.clone(),
        }),
        readonly_rootfs: Some(parts.spec.read_only_root),
        device_requests: (parts.request.gpu > 0).then(|| {
            vec![DeviceRequest {
                count: Some(i64::from(parts.request.gpu)),
                capabilities: Some(vec![vec!["gpu".to_owned()]]),
                ..DeviceRequest::default()
            }]
        }),
        auto_remove: Some(false),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        // The job's log is a file of the attempt; this one holds at most a complaint of the runner.
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some([("max-size", "1m"), ("max-file", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
        }),
        ..HostConfig::default()
    };
    Ok(ContainerCreateBody {
        image: Some(parts.image.to_owned()),
        entrypoint: Some(vec![RUNNER.to_owned()]),
        cmd: Some(command.map(str::to_owned).to_vec()),
        user: Some(parts.user.to_owned()),
        working_dir: Some("/".to_owned()),
        // Whatever the image would have: this is the signal that a runner knows.
        stop_signal: Some("SIGTERM".to_owned()),
        labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    })
}

fn bind(source: &Path, target: &str, writable: bool) -> Result<Mount, String> {
    let source = source.to_str().ok_or_else(|| format!("mount {}: the path is not UTF-8", source.display()))?;
    Ok(Mount {
        target: Some(target.to_owned()),
        source: Some(source.to_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(!writable),
        ..Mount::default()
    })
}
