//! Secrets and API tokens.

use kickwheel_schemas::Millis;
use kickwheel_store::{Store, Write, rows::TokenRow, write};

use crate::fixture::{AT, Fixture, PROJECT, assert_stale};

fn secret(name: &str, sealed: &[u8], key_id: &str) -> write::PutSecret {
    write::PutSecret {
        project: PROJECT.into(),
        name: name.into(),
        sealed: sealed.to_vec(),
        key_id: key_id.into(),
        refs: vec!["refs/heads/main".into()],
        updated_at: AT,
        expected: None,
    }
}

async fn sealed_of(store: &Store, name: &str) -> Option<Vec<u8>> {
    store.sealed_secret(PROJECT, name).await.unwrap().map(|row| row.sealed)
}

pub async fn secrets_are_listed_without_their_values(fixture: Fixture) {
    let store = fixture.open().await;
    let other = write::PutSecret { project: "other".into(), refs: vec![], ..secret("jira", b"\x00\xff", "k1") };
    store.write(vec![Write::PutSecret(secret("deploy", b"1", "k1")), Write::PutSecret(other)]).await.unwrap();
    let all = store.secrets(None).await.unwrap();
    let seen: Vec<_> = all.iter().map(|row| (row.project.as_str(), row.name.as_str(), row.refs.len())).collect();
    assert_eq!(seen, [(PROJECT, "deploy", 1), ("other", "jira", 0)]);
    assert_eq!(store.secrets(Some(PROJECT)).await.unwrap(), all[..1]);
    let rows = store.sealed_secrets("other").await.unwrap();
    assert_eq!((rows.len(), &rows[0].secret, rows[0].sealed.as_slice()), (1, &all[1], b"\x00\xff".as_slice()));
    assert_eq!(sealed_of(&store, "jira").await, None);
    let named = write::RemoveNamed { project: PROJECT.into(), name: "deploy".into() };
    store.write(vec![Write::RemoveSecret(named)]).await.unwrap();
    assert_eq!(store.secrets(None).await.unwrap(), all[1..]);
}

pub async fn a_secret_that_was_set_meanwhile_is_not_rekeyed(fixture: Fixture) {
    let store = fixture.open().await;
    for name in ["a", "b", "c"] {
        store.write(vec![Write::PutSecret(secret(name, b"old", "k1"))]).await.unwrap();
    }
    let read = store.secrets_by_key("k1", 2).await.unwrap();
    assert_eq!(read.iter().map(|row| row.secret.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    // Somebody sets one of them, within the same millisecond and with the same key.
    store.write(vec![Write::PutSecret(secret("b", b"newer", "k1"))]).await.unwrap();
    let rekeyed = |row: &kickwheel_store::rows::SealedSecretRow| {
        vec![Write::PutSecret(write::PutSecret {
            sealed: b"rekeyed".to_vec(),
            key_id: "k2".into(),
            updated_at: row.secret.updated_at,
            expected: Some(row.secret.stamp()),
            ..secret(&row.secret.name, b"", "")
        })]
    };
    store.write(rekeyed(&read[0])).await.unwrap();
    assert_stale(store.write(rekeyed(&read[1])).await, "changed or removed meanwhile");
    assert_stale(store.write(rekeyed(&read[0])).await, "changed or removed meanwhile");
    assert_eq!(sealed_of(&store, "a").await.as_deref(), Some(b"rekeyed".as_slice()));
    assert_eq!(sealed_of(&store, "b").await.as_deref(), Some(b"newer".as_slice()));
    let left = store.secrets_by_key("k1", 0).await.unwrap();
    assert_eq!(left.iter().map(|row| row.secret.name.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    store.write(rekeyed(&left[0])).await.unwrap();
    assert_eq!(store.secrets_by_key("k2", 0).await.unwrap().len(), 2);
    // What was removed does not come back.
    let named = write::RemoveNamed { project: PROJECT.into(), name: "c".into() };
    store.write(vec![Write::RemoveSecret(named)]).await.unwrap();
    assert_stale(store.write(rekeyed(&left[1])).await, "changed or removed meanwhile");
    assert_eq!(sealed_of(&store, "c").await, None);
}

pub async fn nothing_is_sealed_with_a_key_that_is_not_in_force(fixture: Fixture) {
    let store = fixture.open().await;
    let used = |expected: Option<&str>, key_id: &str| {
        vec![Write::UseKey(write::UseKey { expected: expected.map(str::to_owned), key_id: key_id.to_owned() })]
    };
    store.write(used(None, "k1")).await.unwrap();
    store.write(used(None, "k1")).await.unwrap();
    assert_stale(store.write(used(None, "k2")).await, "in force is k1");
    assert_stale(store.write(used(Some("k0"), "k2")).await, "in force is k1");
    store.write(vec![Write::PutSecret(secret("a", b"1", "k1"))]).await.unwrap();
    store.write(used(Some("k1"), "k2")).await.unwrap();
    store.write(used(Some("k1"), "k2")).await.unwrap();
    assert_stale(store.write(vec![Write::PutSecret(secret("b", b"2", "k1"))]).await, "in force is k2");
    assert_eq!(sealed_of(&store, "b").await, None);
    store.write(vec![Write::PutSecret(secret("b", b"2", "k2"))]).await.unwrap();
    assert_eq!(store.meta(write::KEY_IN_FORCE).await.unwrap().as_deref(), Some("k2"));
}

fn token(id: &str, hash: &str, expires_at: Option<Millis>) -> write::PutToken {
    write::PutToken {
        id: id.into(),
        project: None,
        name: "ci".into(),
        hash: hash.into(),
        role: "operator".into(),
        created_at: AT,
        expires_at,
    }
}

pub async fn tokens_are_found_by_hash_until_they_end(fixture: Fixture) {
    let store = fixture.open().await;
    assert_eq!(store.live_tokens(AT).await.unwrap(), 0);
    let scoped = write::PutToken { project: Some(PROJECT.into()), ..token("t1", "h1", None) };
    let unit = vec![Write::PutToken(scoped.clone()), Write::PutToken(token("t2", "h2", Some(AT.plus(10))))];
    store.write(unit).await.unwrap();
    let first = TokenRow {
        id: "t1".into(),
        project: Some(PROJECT.into()),
        name: "ci".into(),
        role: "operator".into(),
        created_at: AT,
        expires_at: None,
        revoked_at: None,
    };
    assert_eq!(store.token_by_hash("h1").await.unwrap(), Some(first.clone()));
    assert_eq!(store.token_by_hash("h3").await.unwrap(), None);
    assert_eq!(store.live_tokens(AT.plus(9)).await.unwrap(), 2);
    assert_eq!(store.live_tokens(AT.plus(10)).await.unwrap(), 1);
    let revoke = |id: &str, at| vec![Write::RevokeToken(write::RevokeToken { id: id.into(), at })];
    store.write(revoke("t1", AT.plus(5))).await.unwrap();
    store.write(revoke("t1", AT.plus(6))).await.unwrap();
    assert_stale(store.write(revoke("t9", AT)).await, "no token \"t9\"");
    let rows = store.tokens().await.unwrap();
    assert_eq!(rows[0], TokenRow { revoked_at: Some(AT.plus(5)), ..first });
    for now in [AT, AT.plus(9), AT.plus(10)] {
        let live = rows.iter().filter(|row| row.is_live(now)).count() as u64;
        assert_eq!(live, store.live_tokens(now).await.unwrap());
    }
}

pub async fn a_token_is_made_once(fixture: Fixture) {
    let store = fixture.open().await;
    let put = |id: &str, hash: &str| vec![Write::PutToken(token(id, hash, None))];
    store.write(put("t1", "h1")).await.unwrap();
    store.write(put("t1", "h1")).await.unwrap();
    assert_stale(store.write(put("t1", "h2")).await, "another token");
    assert_stale(store.write(put("t2", "h1")).await, "another token");
    assert_eq!(store.tokens().await.unwrap().len(), 1);
}
