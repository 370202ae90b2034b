//! Secrets and API tokens.

use kickwheel_schemas::Millis;

use crate::write::SecretStamp;

/// A secret without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRow {
    /// The project.
    pub project: String,
    /// Its name.
    pub name: String,
    /// Names the key that it is encrypted with.
    pub key_id: String,
    /// Patterns of the refs whose runs may see it; empty: any.
    pub refs: Vec<String>,
    /// When it was changed last.
    pub updated_at: Millis,
}

impl SecretRow {
    /// What a write has to expect in order to replace exactly this.
    pub fn stamp(&self) -> SecretStamp {
        SecretStamp { key_id: self.key_id.clone(), updated_at: self.updated_at }
    }
}

/// A secret with its encrypted value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSecretRow {
    /// What is known of it.
    pub secret: SecretRow,
    /// The encrypted value.
    pub sealed: Vec<u8>,
}

/// An API token. Its hash stays in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// What people call it by.
    pub id: String,
    /// The project; none: all of them.
    pub project: Option<String>,
    /// What it is for.
    pub name: String,
    /// What its bearer may do.
    pub role: String,
    /// When it was made.
    pub created_at: Millis,
    /// From when on it is no longer accepted.
    pub expires_at: Option<Millis>,
    /// When somebody ended it.
    pub revoked_at: Option<Millis>,
}

impl TokenRow {
    /// Whether it is accepted at `now`.
    pub fn is_live(&self, now: Millis) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| end > now)
    }
}
