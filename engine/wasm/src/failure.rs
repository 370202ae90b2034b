//! How loading and calling a plugin can go wrong, and which of it a trap of wasmtime means.
//!
//! Each [`CallFailure`] is data of a failed step, not an error of the engine: its message reaches the person who wrote the
//! workflow, so it names the limit or value that was met and what to do about it.

use std::{path::PathBuf, time::Duration};

use wasmtime::{PoolConcurrencyLimitError, Trap};

/// Why there is no [`crate::Host`].
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// wasmtime refuses the configuration, or the machine gives it too little address space.
    #[error(
        "set up the WASM engine for {max_concurrent} calls at once: {message}; a lower `max_concurrent` needs less address space"
    )]
    Engine {
        /// As configured.
        max_concurrent: usize,
        /// What wasmtime says.
        message: String,
    },
    /// The folder of compiled plugins cannot be made.
    #[error("create the cache folder {} of compiled plugins: {source}", dir.display())]
    Cache {
        /// As configured.
        dir: PathBuf,
        /// What the file system says.
        source: std::io::Error,
    },
}

/// Why a component is not a plugin.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bytes do not compile.
    #[error(
        "compile the plugin {name} ({size} bytes): {message}; it must be a WASM component, not a core module (`wasm-tools component new` makes one)"
    )]
    Compile {
        /// The manifest's name.
        name: String,
        /// Length of the component in bytes.
        size: usize,
        /// What the compiler says.
        message: String,
    },
    /// It compiles, but it is not of the world `kickwheel:plugin/plugin`, or imports what the sandbox does not have.
    #[error(
        "link the plugin {name}: {message}; it must export `run` of kickwheel:plugin@0.1.0 and import nothing but its `host` and WASI 0.2"
    )]
    World {
        /// The manifest's name.
        name: String,
        /// What does not fit.
        message: String,
    },
}

/// How a call failed. The messages are lower-case fragments that fit after the plugin's name and a colon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallFailure {
    /// The step's `with` does not fit the plugin's manifest. The plugin was not called.
    #[error("{message}")]
    BadInput {
        /// Which input, what was given, what is wanted.
        message: String,
    },
    /// The guest hit `unreachable`, divided by zero, left its memory, or exited.
    #[error("it crashed: {message}; this is a fault of the plugin, its log may say more")]
    Trap {
        /// What wasmtime says.
        message: String,
    },
    /// It used up its instructions.
    #[error(
        "it used up its {fuel} units of fuel (about one per instruction); raise the fuel limit or give it less to do"
    )]
    OutOfFuel {
        /// The limit.
        fuel: u64,
    },
    /// It ran for too long by the clock.
    #[error("it had not finished after {limit:?}; raise the time limit or give it less to do")]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// It asked for more memory than it may have.
    #[error(
        "it asked for {wanted} bytes of memory, but may have {limit}; raise the memory limit or give it less to do"
    )]
    OutOfMemory {
        /// What all its memories together would have become.
        wanted: u64,
        /// The limit.
        limit: u64,
    },
    /// It returned something that is no `PluginReturn`, that is too large, or that its manifest does not declare.
    #[error("{message}")]
    BadOutput {
        /// What is wrong with it.
        message: String,
    },
    /// It returned an error of its own.
    #[error("{message}")]
    Plugin {
        /// The plugin's words.
        message: String,
    },
    /// The host could not even start it. Nothing is known about the plugin; the same call may succeed later.
    #[error("the WASM host could not start it: {message}")]
    Unavailable {
        /// What was missing.
        message: String,
    },
}

/// What the sandbox throws to end a guest that breaks a limit; wasmtime carries it out to [`classify`].
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum Breach {
    /// The deadline has passed.
    #[error("the time limit has passed")]
    Time,
    /// All memories together would become this large.
    #[error("{wanted} bytes of memory are more than allowed")]
    Memory {
        /// Bytes.
        wanted: u64,
    },
}

/// Which failure an error of wasmtime means.
pub(crate) fn classify(error: &wasmtime::Error, limits: &crate::Limits) -> CallFailure {
    if let Some(breach) = error.downcast_ref::<Breach>() {
        return match *breach {
            Breach::Time => CallFailure::TimedOut { limit: limits.time },
            Breach::Memory { wanted } => CallFailure::OutOfMemory { wanted, limit: limits.memory_bytes },
        };
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return CallFailure::Unavailable { message: format!("{error:#}") };
    }
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        return CallFailure::Trap { message: format!("it exited with code {} instead of returning", exit.0) };
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => CallFailure::OutOfFuel { fuel: limits.fuel },
        Some(trap) => CallFailure::Trap { message: trap.to_string() },
        None => CallFailure::Trap { message: format!("{:#}", error.root_cause()) },
    }
}
