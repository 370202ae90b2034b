//! The exit codes, all of them, and how a failure is told.

use std::fmt;

/// How a command ended. The number is what a script sees, and never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It worked; a watched run succeeded.
    Ok,
    /// The run failed or was cancelled, the file has mistakes, or a check of `doctor` failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// There is no such run, workflow, event or other thing.
    NotFound,
    /// No server answered, or it refused the token.
    Unreachable,
    /// The server refused, is paused, or could not start.
    Refused,
    /// Ctrl-C.
    Interrupted,
}

/// For `--help`.
pub const HELP: &str = "Exit codes:
  0    it worked; for `run` and `runs get --watch`: the run succeeded
  1    the run failed or was cancelled, the file has mistakes, or a check failed
  2    the command line is wrong
  3    there is no such run, workflow, event or other thing
  4    no server answered, or it refused the token
  5    the server refused, is paused, or could not start
  130  interrupted";

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Unreachable => 4,
            Self::Refused => 5,
            Self::Interrupted => 130,
        }
    }
}

/// Why a command could not do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// With which code the program ends.
    pub exit: Exit,
    /// Stable, from the server's `Problem` or our own; explained in `docs/errors.md`.
    pub code: String,
    /// What is wrong and where.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Failure {
    /// A failure with a stable code.
    pub fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Self { exit, code: code.to_owned(), message: message.into(), help: None }
    }

    /// A wrong command line, which clap could not know.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// Says what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code)
    }
}

impl std::error::Error for Failure {}

/// The result of every command.
pub type Outcome = Result<Exit, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_code() {
        for exit in
            [Exit::Ok, Exit::Failed, Exit::Usage, Exit::NotFound, Exit::Unreachable, Exit::Refused, Exit::Interrupted]
        {
            let line = format!("  {:<4} ", exit.code());
            assert!(HELP.contains(&line), "{exit:?}");
        }
    }
}
