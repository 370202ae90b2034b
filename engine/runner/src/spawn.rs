//! Starting the user's program: its environment, its session, and the ties that end it with its runner.

use std::{
    fs::File,
    io::{self, PipeReader},
    os::fd::AsFd as _,
    path::Path,
    process::Stdio,
};

use kickwheel_schemas::runner::{JobSpec, Program};
use rustix::{
    io::Errno,
    process::{Signal, getpid, getppid, set_parent_process_death_signal, setsid},
};
use tokio::process::{Child, Command};

use crate::{attempt::Attempt, options::Memory, setup::Layout, user::Identity};

/// Taken when neither the specification, nor the pool, nor an image says where programs are.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What starting a program never fails with.
const NOT_ASSUMED: Errno = Errno::KEYREJECTED;

/// Whether the program was not started because it could not become its user.
pub fn is_not_assumed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(NOT_ASSUMED.raw_os_error())
}

/// Starts the program; what it writes comes out of the pipe. `secrets` is where they were laid out. `group` is an open
/// `cgroup.procs`, joined before user code.
pub fn spawn(
    attempt: &Attempt,
    layout: &Layout,
    secrets: Option<&Path>,
    group: Option<File>,
) -> io::Result<(Child, PipeReader)> {
    let spec = &attempt.spec;
    let mut command = match &spec.program {
        Program::Script { .. } => {
            let mut command = Command::new("/bin/sh");
            command.arg("-eu").arg(&layout.script);
            command
        }
        Program::Exec { argv } => {
            let (program, arguments) =
                argv.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "argv is empty"))?;
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
    };
    match &attempt.memory {
        Memory::Watch | Memory::Delegated(_) => _ = command.env_clear().env("PATH", DEFAULT_PATH),
        // What surrounds us is the image's: its PATH, where its libraries lie.
        Memory::Container => {}
    }
    set_environment(&mut command, spec, layout);
    if let Some(user) = &attempt.user {
        command.env("USER", &user.name).env("LOGNAME", &user.name);
    }
    match secrets {
        Some(folder) => command.env("KICKWHEEL_SECRETS", folder),
        None => command.env_remove("KICKWHEEL_SECRETS"),
    };
    let (output, input) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(input.try_clone()?).stderr(input).current_dir(&layout.work);
    tie(&mut command, group, attempt.user.as_ref().map(Identity::of));
    Ok((command.spawn()?, output))
}

/// A small fixed environment, then the task's own, then ours, which nobody overrides.
fn set_environment(command: &mut Command, spec: &JobSpec, layout: &Layout) {
    command
        .env("LANG", "C.UTF-8")
        .env("HOME", &layout.work)
        .env("TMPDIR", &layout.temporary)
        // Without it Python keeps its output back in blocks when it does not write to a terminal, and logs are not live.
        .env("PYTHONUNBUFFERED", "1")
        .envs(&spec.env)
        .env("KICKWHEEL_TASK", &spec.task)
        .env("KICKWHEEL_ATTEMPT", &spec.attempt)
        .env("KICKWHEEL_OUTPUT", &layout.output)
        .env("KICKWHEEL_METRICS", &layout.metrics)
        .env("KICKWHEEL_SOURCE", &layout.work);
    if let Some(traceparent) = &spec.traceparent {
        command.env("TRACEPARENT", traceparent);
    }
}

/// Makes the program a session of its own that cannot outlive its runner, and another user where that is asked.
#[expect(unsafe_code, reason = "what happens between fork and exec has no safe interface")]
fn tie(command: &mut Command, group: Option<File>, user: Option<Identity>) {
    let runner = getpid();
    let between_fork_and_exec = move || {
        setsid()?;
        // While we still may.
        if let Some(group) = &group {
            rustix::io::write(group.as_fd(), b"0")?;
        }
        // Not the error itself: a program that may not be executed has the same one, and is the user's failure.
        if let Some(user) = &user {
            user.assume().map_err(|_| NOT_ASSUMED)?;
        }
        // After it: whoever becomes another user loses what is set here.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The runner may have died before the line above took effect; then nobody would ever send that signal.
        if getppid() != Some(runner) {
            return Err(Errno::SRCH.into());
        }
        Ok(())
    };
    // SAFETY: the closure only makes system calls, through rustix, which makes them directly; it neither allocates nor
    // takes a lock, and converting an error number to `io::Error` does not either.
    unsafe { command.pre_exec(between_fork_and_exec) };
}
