//! The key of an accepted event.

use std::{fmt, str::FromStr};

use kickwheel_schemas::{Millis, ids::IdError};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Our own name of an event, a UUIDv7 chosen by whoever accepts it: short to type (any unique prefix), and ordered by
/// time of receipt. The identity that senders know stays `source` + `id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventKey(pub Uuid);

impl EventKey {
    /// A new key for an event received at `at`, from 10 random bytes.
    pub fn new(at: Millis, random: [u8; 10]) -> Self {
        let ms = u64::try_from(at.0).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid())
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for EventKey {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Uuid::from_str(text).map(Self).map_err(|_| IdError(text.to_owned()))
    }
}
