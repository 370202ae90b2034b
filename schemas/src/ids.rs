//! Identifiers that cross process boundaries: runs, tasks, attempts, and points in time.
//!
//! They are newtypes so that a run is never passed where a task is meant. None of them is generated here except
//! [`RunId`], whose constructor takes the time and the randomness from its caller.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Milliseconds since the Unix epoch, UTC. The only representation of time in the journal and on our wires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub i64);

impl Millis {
    /// The wall clock now. For adapters and drivers only; pure code receives time with its input.
    pub fn now() -> Self {
        Self(chrono::Utc::now().timestamp_millis())
    }

    /// This instant plus `ms` milliseconds, saturating.
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX)))
    }

    /// Milliseconds from `earlier` to this instant, zero if it lies in the future.
    pub fn since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// RFC 3339 with milliseconds, in UTC; the form used in JSON for people and in CloudEvents' `time`.
    pub fn to_rfc3339(self) -> String {
        chrono::DateTime::from_timestamp_millis(self.0)
            .unwrap_or_default()
            .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
    }
}

/// A run's identity: a UUIDv7, so that ids sort by creation time and hot tables grow at one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub Uuid);

impl RunId {
    /// A new id for a run created at `at`, from 10 random bytes.
    pub fn new(at: Millis, random: [u8; 10]) -> Self {
        let ms = u64::try_from(at.0).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for RunId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Uuid::from_str(text).map(Self).map_err(|_| IdError(text.to_owned()))
    }
}

/// `run/step[index]`: the idempotency key of one unit of work, the same for every attempt.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskKey {
    /// The run it belongs to.
    pub run: RunId,
    /// The step's name, unique in its workflow.
    pub step: String,
    /// Position in an array step; 0 for a step that is a single task.
    pub index: u32,
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}[{}]", self.run, self.step, self.index)
    }
}

/// `run/step[index]#attempt`: one try at a task. The attempt number (from 1) only fences; it is no identity of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptKey {
    /// The task that is tried.
    pub task: TaskKey,
    /// Counts from 1.
    pub attempt: u32,
}

impl AttemptKey {
    /// A form that is safe as one file or object name: `run.step.index.attempt`. Step names hold no dots.
    pub fn file_name(&self) -> String {
        format!("{}.{}.{}.{}", self.task.run, self.task.step, self.task.index, self.attempt)
    }

    /// The inverse of [`AttemptKey::file_name`].
    pub fn from_file_name(name: &str) -> Result<Self, IdError> {
        let bad = || IdError(name.to_owned());
        let mut parts = name.split('.');
        let (Some(run), Some(step), Some(index), Some(attempt), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        Ok(Self {
            task: TaskKey { run: run.parse()?, step: step.to_owned(), index: index.parse().map_err(|_| bad())? },
            attempt: attempt.parse().map_err(|_| bad())?,
        })
    }
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.task, self.attempt)
    }
}

/// A text that is not an identifier of the expected form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("read {0:?} as an identifier")]
pub struct IdError(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempt_file_name_round_trips() {
        let key = AttemptKey {
            task: TaskKey {
                run: RunId::new(Millis(1_700_000_000_000), [7; 10]),
                step: "train-big_1".into(),
                index: 12,
            },
            attempt: 3,
        };
        assert_eq!(AttemptKey::from_file_name(&key.file_name()), Ok(key));
        assert!(AttemptKey::from_file_name("a.b.c").is_err());
    }

    #[test]
    fn run_ids_sort_by_creation_time() {
        assert!(RunId::new(Millis(1), [255; 10]) < RunId::new(Millis(2), [0; 10]));
    }
}
