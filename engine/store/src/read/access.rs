//! Secrets and API tokens.

use kickwheel_schemas::Millis;

use super::bounded;
use crate::{
    ReadError, Store,
    db::{Arg, Result, Row},
    rows::{SealedSecretRow, SecretRow, TokenRow},
};

/// A statement that reads [`TokenRow`]s. Statements are constants, and only a macro puts constants together.
macro_rules! token_where {
    ($rest:literal) => {
        concat!("SELECT id, project, name, role, created_at, expires_at, revoked_at FROM tokens ", $rest)
    };
}

fn secret_row(row: &Row) -> Result<SecretRow> {
    Ok(SecretRow {
        project: row.text("project")?,
        name: row.text("name")?,
        key_id: row.text("key_id")?,
        refs: row.json("refs")?,
        updated_at: row.millis("updated_at")?,
    })
}

fn sealed_row(row: &Row) -> Result<SealedSecretRow> {
    Ok(SealedSecretRow { secret: secret_row(row)?, sealed: row.blob("sealed")? })
}

fn token_row(row: &Row) -> Result<TokenRow> {
    Ok(TokenRow {
        id: row.text("id")?,
        project: row.opt_text("project")?,
        name: row.text("name")?,
        role: row.text("role")?,
        created_at: row.millis("created_at")?,
        expires_at: row.opt_millis("expires_at")?,
        revoked_at: row.opt_millis("revoked_at")?,
    })
}

impl Store {
    /// Secrets without their values, by project and name; of all projects if none is given.
    pub async fn secrets(&self, project: Option<&str>) -> std::result::Result<Vec<SecretRow>, ReadError> {
        let sql = "SELECT project, name, key_id, refs, updated_at FROM secrets WHERE $1 = '' OR project = $1 \
                   ORDER BY project, name";
        let rows = self.readers().fetch(sql, [Arg::from(project.unwrap_or_default())]).await?;
        Ok(rows.iter().map(secret_row).collect::<Result<_>>()?)
    }

    /// All secrets of a project with their encrypted values, by name.
    pub async fn sealed_secrets(&self, project: &str) -> std::result::Result<Vec<SealedSecretRow>, ReadError> {
        let sql =
            "SELECT project, name, sealed, key_id, refs, updated_at FROM secrets WHERE project = $1 ORDER BY name";
        let rows = self.readers().fetch(sql, [Arg::from(project)]).await?;
        Ok(rows.iter().map(sealed_row).collect::<Result<_>>()?)
    }

    /// A secret with its encrypted value.
    pub async fn sealed_secret(
        &self,
        project: &str,
        name: &str,
    ) -> std::result::Result<Option<SealedSecretRow>, ReadError> {
        let sql =
            "SELECT project, name, sealed, key_id, refs, updated_at FROM secrets WHERE project = $1 AND name = $2";
        let row = self.readers().fetch_one(sql, [project.into(), name.into()]).await?;
        Ok(row.as_ref().map(sealed_row).transpose()?)
    }

    /// Secrets that are encrypted with a key, of all projects.
    pub async fn secrets_by_key(
        &self,
        key_id: &str,
        limit: u32,
    ) -> std::result::Result<Vec<SealedSecretRow>, ReadError> {
        let sql = "SELECT project, name, sealed, key_id, refs, updated_at FROM secrets WHERE key_id = $1 \
                   ORDER BY project, name LIMIT $2";
        let rows = self.readers().fetch(sql, [key_id.into(), bounded(limit).into()]).await?;
        Ok(rows.iter().map(sealed_row).collect::<Result<_>>()?)
    }

    /// The token with this hash (SHA-256 in hex), live or not.
    pub async fn token_by_hash(&self, hash: &str) -> std::result::Result<Option<TokenRow>, ReadError> {
        let row = self.readers().fetch_one(token_where!("WHERE hash = $1"), [Arg::from(hash)]).await?;
        Ok(row.as_ref().map(token_row).transpose()?)
    }

    /// All tokens, in the order in which they were made.
    pub async fn tokens(&self) -> std::result::Result<Vec<TokenRow>, ReadError> {
        let rows = self.readers().fetch(token_where!("ORDER BY created_at, id"), []).await?;
        Ok(rows.iter().map(token_row).collect::<Result<_>>()?)
    }

    /// How many tokens are accepted at `now`.
    pub async fn live_tokens(&self, now: Millis) -> std::result::Result<u64, ReadError> {
        let sql =
            "SELECT count(*) AS n FROM tokens WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1)";
        let row = self.readers().fetch_one(sql, [Arg::from(now)]).await?;
        Ok(row.map_or(Ok(0), |row| row.uint("n"))?)
    }
}
