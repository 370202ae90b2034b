//! Functions that we add to CEL's own.

/// Always true: the step runs whatever became of its needs.
pub const ALWAYS: &str = "always";

/// Whether a need of the step failed; for a step without needs, whether any step of the run did.
pub const FAILED: &str = "failed";

/// A function that expressions may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name. All are called without arguments and give a boolean.
    pub name: &'static str,
    /// One sentence for people.
    pub description: &'static str,
}

/// Every function that is ours. They speak about a step's needs, so only `if:` may call them.
pub const fn functions() -> &'static [Function] {
    &[
        Function { name: ALWAYS, description: "true: the step runs whatever became of its needs" },
        Function { name: FAILED, description: "true if a need of the step failed, or without needs, any step" },
    ]
}
