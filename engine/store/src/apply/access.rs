//! Secrets and API tokens.

use super::{Applied, Tx, stale};
use crate::{
    db::Arg,
    write::{KEY_IN_FORCE, PutSecret, PutToken, RemoveNamed, RevokeToken, UseKey},
};

/// Moves on to another key.
pub async fn use_key(tx: &mut Tx<'_>, key: &UseKey) -> Applied<()> {
    let row: [Arg; 2] = [Arg::from(KEY_IN_FORCE), (&key.key_id).into()];
    match &key.expected {
        None => {
            let sql = "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING";
            tx.conn.execute(sql, row).await?;
        }
        Some(expected) => {
            let [name, id] = row;
            let sql = "UPDATE meta SET value = $2 WHERE key = $1 AND value = $3";
            tx.conn.execute(sql, [name, id, expected.into()]).await?;
        }
    }
    match in_force(tx).await? {
        Some(found) if found == key.key_id => Ok(()),
        found => Err(stale(format!("the secrets' key in force is {}", found.unwrap_or_else(|| "none".to_owned())))),
    }
}

/// Locked against being changed until the transaction ends: what is sealed with a key must not appear after nobody looks
/// for it any more.
async fn in_force(tx: &mut Tx<'_>) -> Applied<Option<String>> {
    let sql = "SELECT value FROM meta WHERE key = $1 {for_share}";
    let row = tx.conn.fetch_one(sql, [Arg::from(KEY_IN_FORCE)]).await?;
    Ok(row.map(|row| row.text("value")).transpose()?)
}

/// Makes or replaces a secret.
pub async fn put_secret(tx: &mut Tx<'_>, put: &PutSecret) -> Applied<()> {
    if let Some(key_id) = in_force(tx).await?
        && key_id != put.key_id
    {
        return Err(stale(format!("the secrets' key in force is {key_id}, and this is sealed with {}", put.key_id)));
    }
    let mut args: Vec<Arg> = vec![
        (&put.project).into(),
        (&put.name).into(),
        Arg::Blob(put.sealed.clone()),
        (&put.key_id).into(),
        Arg::json(&put.refs),
        put.updated_at.into(),
    ];
    let Some(expected) = &put.expected else {
        tx.conn
            .execute(
                "INSERT INTO secrets (project, name, sealed, key_id, refs, updated_at) VALUES ($1, $2, $3, $4, $5, $6) \
                 ON CONFLICT (project, name) DO UPDATE SET sealed = excluded.sealed, key_id = excluded.key_id, \
                 refs = excluded.refs, updated_at = CASE WHEN excluded.updated_at > secrets.updated_at \
                 THEN excluded.updated_at ELSE secrets.updated_at + 1 END",
                args,
            )
            .await?;
        return Ok(());
    };
    args.extend([Arg::from(&expected.key_id), expected.updated_at.into()]);
    let replaced = tx
        .conn
        .execute(
            "UPDATE secrets SET sealed = $3, key_id = $4, refs = $5, updated_at = $6 \
             WHERE project = $1 AND name = $2 AND key_id = $7 AND updated_at = $8",
            args,
        )
        .await?;
    if replaced == 0 {
        return Err(stale(format!("the secret {:?} was changed or removed meanwhile", put.name)));
    }
    Ok(())
}

/// Removes a secret.
pub async fn remove_secret(tx: &mut Tx<'_>, named: &RemoveNamed) -> Applied<()> {
    let key: [Arg; 2] = [(&named.project).into(), (&named.name).into()];
    tx.conn.execute("DELETE FROM secrets WHERE project = $1 AND name = $2", key).await?;
    Ok(())
}

/// Makes a token.
pub async fn put_token(tx: &mut Tx<'_>, put: &PutToken) -> Applied<()> {
    let made = tx
        .conn
        .execute(
            "INSERT INTO tokens (id, project, name, hash, role, created_at, expires_at, revoked_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, NULL) ON CONFLICT DO NOTHING",
            [
                (&put.id).into(),
                (&put.project).into(),
                (&put.name).into(),
                (&put.hash).into(),
                (&put.role).into(),
                put.created_at.into(),
                put.expires_at.into(),
            ],
        )
        .await?;
    if made > 0 {
        return Ok(());
    }
    let same = tx
        .conn
        .fetch_one("SELECT id FROM tokens WHERE id = $1 AND hash = $2", [(&put.id).into(), (&put.hash).into()])
        .await?;
    if same.is_none() {
        return Err(stale(format!("another token has the id {:?} or the same hash", put.id)));
    }
    Ok(())
}

/// Ends a token before its time.
pub async fn revoke_token(tx: &mut Tx<'_>, revoke: &RevokeToken) -> Applied<()> {
    let found = tx
        .conn
        .execute(
            "UPDATE tokens SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1",
            [(&revoke.id).into(), revoke.at.into()],
        )
        .await?;
    if found == 0 {
        return Err(stale(format!("there is no token {:?}", revoke.id)));
    }
    Ok(())
}
