//! Secrets and API tokens. Neither is ever stored as such: secrets are sealed, tokens are hashed.

use kickwheel_schemas::Millis;

/// See [`super::Write::PutSecret`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutSecret {
    /// The project.
    pub project: String,
    /// Its name.
    pub name: String,
    /// The encrypted value.
    pub sealed: Vec<u8>,
    /// Names the key that it is encrypted with.
    pub key_id: String,
    /// Patterns of the refs whose runs may see it; empty: any.
    pub refs: Vec<String>,
    /// When. A secret that is replaced without [`PutSecret::expected`] always gets a later time than it had, so that
    /// [`SecretStamp`]s never repeat; the stored one may therefore differ, and must not be sealed in.
    pub updated_at: Millis,
    /// What is to be replaced; anything else there, or nothing, is `Stale`. None: whatever is there.
    pub expected: Option<SecretStamp>,
}

/// See [`super::Write::UseKey`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UseKey {
    /// The id of the key that was in force; none: no key ever was.
    pub expected: Option<String>,
    /// The id of the key that seals from now on.
    pub key_id: String,
}

/// The row of `meta` that names the key in force.
pub const KEY_IN_FORCE: &str = "secrets_key";

/// What tells one state of a secret from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretStamp {
    /// Names the key.
    pub key_id: String,
    /// As it was read.
    pub updated_at: Millis,
}

/// See [`super::Write::PutToken`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutToken {
    /// What people call it by.
    pub id: String,
    /// The project; none: all of them.
    pub project: Option<String>,
    /// What it is for.
    pub name: String,
    /// SHA-256 of the token, in hex.
    pub hash: String,
    /// `viewer`, `operator`, `approver` or `admin`.
    pub role: String,
    /// When it was made.
    pub created_at: Millis,
    /// From when on it is no longer accepted.
    pub expires_at: Option<Millis>,
}

/// See [`super::Write::RevokeToken`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevokeToken {
    /// Which.
    pub id: String,
    /// When.
    pub at: Millis,
}
