//! What is known about an attempt.

use kickwheel_schemas::{
    Millis,
    runner::{Heartbeat, JobResult},
};

/// An attempt as its pool sees it. Only ever moves downwards in this list.
#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    /// Never started here, or removed.
    Unknown,
    /// Its user code has not begun: no runner has claimed it yet, or the runner is laying out source and inputs.
    Pending,
    /// User code runs.
    Running {
        /// The latest one.
        heartbeat: Heartbeat,
        /// Process id of the runner.
        pid: u32,
        /// When the runner claimed the attempt.
        claimed_at: Millis,
    },
    /// There is an authentic result.
    Ended(Box<JobResult>),
    /// The runner is gone without a result, and so is everything that it had started.
    Lost {
        /// How, for people.
        reason: String,
    },
}

impl Observed {
    /// Whether nothing can happen to the attempt any more.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Unknown | Self::Pending | Self::Running { .. } => false,
            Self::Ended(_) | Self::Lost { .. } => true,
        }
    }
}
