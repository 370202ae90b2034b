//! API tokens and secrets, as the API speaks of them. A token is shown once, when it is made; a secret's value never.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the bearer of a token may do. Each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look at everything but secrets' values.
    Viewer,
    /// Also start, cancel, retry and replay.
    Operator,
    /// Also approve.
    Approver,
    /// Everything.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Approver, Self::Admin];

    /// As it is stored and typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// Makes a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// What people call it.
    pub name: String,
    /// What its bearer may do.
    pub role: Role,
    /// Only there; none: in all projects.
    #[serde(default)]
    pub project: Option<String>,
    /// From now, in milliseconds; none: until it is revoked.
    #[serde(default)]
    pub expires_in_ms: Option<u64>,
}

/// A token without what opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Names it for good.
    pub id: String,
    /// `active`, `expired` or `revoked`.
    pub state: String,
    /// What people call it; while one takes the other's place two may have the same.
    pub name: String,
    /// What its bearer may do.
    pub role: String,
    /// Only there; none: in all projects.
    pub project: Option<String>,
    /// When it was made.
    pub created_at: String,
    /// From when on it is no longer accepted.
    pub expires_at: Option<String>,
    /// When somebody ended it.
    pub revoked_at: Option<String>,
}

/// Answer to [`CreateToken`]: the only time that the token itself is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// What is known of it from now on.
    #[serde(flatten)]
    pub view: TokenView,
    /// What opens. Only its hash is stored.
    pub token: String,
}

impl fmt::Debug for CreatedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedToken").field("view", &self.view).finish_non_exhaustive()
    }
}

/// Keeps a secret, or replaces it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSecret {
    /// The value, its bytes in base64.
    pub value_base64: String,
    /// Patterns of full refs (`refs/heads/main`, `refs/tags/v*`) whose runs may see it; empty: every run of the project.
    #[serde(default)]
    pub refs: Vec<String>,
}

impl fmt::Debug for SetSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetSecret").field("refs", &self.refs).finish_non_exhaustive()
    }
}

/// A secret without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SecretView {
    /// Its name.
    pub id: String,
    /// `active`; `unreadable` when the key that it is encrypted with is not at hand.
    pub state: String,
    /// The project.
    pub project: String,
    /// Names the key that it is encrypted with.
    pub key_id: String,
    /// Patterns of refs whose runs may see it; empty: every run.
    pub refs: Vec<String>,
    /// When it was changed last.
    pub updated_at: String,
}

/// Encrypts all secrets with another key.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rekey {
    /// The new key, 64 hex digits; none: one is made.
    #[serde(default)]
    pub new_key: Option<String>,
}

impl fmt::Debug for Rekey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rekey").field("new_key", &self.new_key.as_ref().map(|_| "…")).finish()
    }
}

/// Answer to [`Rekey`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rekeyed {
    /// Names the key that all secrets are encrypted with from now on.
    pub key_id: String,
    /// How many were encrypted anew.
    pub secrets: u64,
    /// What is left to do, where the key does not come from the data folder.
    pub note: Option<String>,
}
