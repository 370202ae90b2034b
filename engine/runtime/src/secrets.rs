//! Secrets at rest: sealed with a key that is not in the database, opened for who may see them.
//!
//! XChaCha20-Poly1305 with the project and the name as associated data, so that a row that was copied over another one
//! does not open, and with a nonce drawn at random for each value. Which key sealed a value is told by the key's id (the
//! first eight hex digits of its SHA-256), stored beside it. [`keys`] says where keys are kept.
//!
//! Changing the key re-encrypts row by row, each by compare-and-set, while both keys are at hand: a crash in the middle
//! leaves both on the disk, and the next start goes on. Which key is in force is a row of the database, so that another
//! engine, which may still hold the old one, seals nothing with it any more: it looks whether it was given the new one
//! meanwhile, and says what is missing. Values are wiped from memory after use, and nothing here that can
//! be printed shows one.
//!
//! Deliberately absent: delivery to a job (the pool and the runner), masking in logs (the runner), the API's words
//! ([`crate::engine`]).

pub mod keys;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::RwLock};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use kickwheel_core::filter::GlobList;
use kickwheel_schemas::Millis;
use kickwheel_store::{
    ReadError, Store, Write, WriteError, fault,
    rows::SealedSecretRow,
    write::{KEY_IN_FORCE, PutSecret, UseKey},
};
use zeroize::Zeroizing;

use keys::{Key, Ring};
pub use keys::{KeyError, KeySource};

/// Largest value of one secret, in bytes.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// Longest name of a secret, in bytes: it is also the name of a file in a job.
pub const MAX_NAME_BYTES: usize = 100;
/// Patterns of refs that one secret may have.
pub const MAX_REFS: usize = 50;

/// Bytes of the nonce that stands before the ciphertext.
const NONCE_BYTES: usize = 24;
/// Separates our associated data from anything else that might be sealed with the same key.
const DOMAIN: &str = "kickwheel secret 1";
/// Rows that are read at a time when all are sealed anew.
const PAGE: u32 = 100;
/// Looks at rows that others keep changing, before giving up.
const MAX_IDLE_ROUNDS: u32 = 10;

/// Opens and seals. One per engine.
#[derive(Debug)]
pub struct Secrets {
    keys: keys::Files,
    ring: RwLock<Ring>,
    /// Held for reading while a value is sealed and stored, and for writing while the key is changed: a value that is
    /// sealed with the old key must not be stored after the old key was forgotten.
    change: tokio::sync::RwLock<()>,
}

/// A secret was not opened.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum OpenError {
    /// There is none of that name. Stop.
    #[error("open the secret {name:?}: there is none of that name; `kickwheel secrets set {name}` keeps one")]
    Missing {
        /// As asked.
        name: String,
    },
    /// The run is of another ref. Stop.
    #[error(
        "open the secret {name:?} for {}: only runs of {} may see it",
        reference.as_deref().unwrap_or("a run of no ref"),
        refs.join(", ")
    )]
    Ref {
        /// As asked.
        name: String,
        /// The run's.
        reference: Option<String>,
        /// Those that may.
        refs: Vec<String>,
    },
    /// It was sealed with a key that is not at hand. Stop until somebody brings it.
    #[error("open the secret {name:?}: it needs the key {key_id}, and {}", at_hand(known))]
    Key {
        /// As asked.
        name: String,
        /// What it needs.
        key_id: String,
        /// What is at hand.
        known: Vec<String>,
    },
    /// It does not open although the key is the right one. Stop.
    #[error("open the secret {name:?}: what is stored was changed or belongs to another name; set it again")]
    Damaged {
        /// As asked.
        name: String,
    },
    /// The database could not be asked. Retry later.
    #[error("open the secret {name:?}: {reason}")]
    Unavailable {
        /// As asked.
        name: String,
        /// Why.
        reason: String,
    },
}

fn at_hand(known: &[String]) -> String {
    let known =
        if known.is_empty() { "no key is at hand".to_owned() } else { format!("at hand is {}", known.join(", ")) };
    format!(
        "{known}; if another engine has changed it (`kickwheel secrets rekey`), put the new one where this engine's key \
         comes from"
    )
}

/// A secret was not kept.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The name, a pattern or the value cannot be used. Stop.
    #[error("{0}")]
    Invalid(String),
    /// The key cannot be read or made. Stop.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Another key is in force, and this engine does not have it. Stop until somebody brings it.
    #[error("seal the secret: the key in force is {in_force}, and {}", at_hand(known))]
    NotInForce {
        /// Names the key that seals.
        in_force: String,
        /// What is at hand.
        known: Vec<String>,
    },
    /// The database cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The database refused.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The key was not changed, or not for all secrets: repeating it goes on.
#[derive(Debug, thiserror::Error)]
pub enum RekeyError {
    /// A key cannot be read, made or stored.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A value cannot be opened with the key that it names.
    #[error("change the key: {0}")]
    Open(#[from] OpenError),
    /// Another engine has changed it, and this one does not have what it was changed to.
    #[error("change the key: the one in force is {in_force}, and {}", at_hand(known))]
    NotInForce {
        /// Names the key that seals.
        in_force: String,
        /// What is at hand.
        known: Vec<String>,
    },
    /// The database cannot be read.
    #[error("change the key: {0}")]
    Read(#[from] ReadError),
    /// The database refused.
    #[error("change the key: {0}")]
    Write(#[from] WriteError),
    /// Others keep replacing the same secrets.
    #[error("change the key: {0} secrets are being replaced by somebody else all the time; try again")]
    Busy(usize),
}

/// What a change of the key came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Names the key in force.
    pub key_id: String,
    /// Secrets that were sealed anew.
    pub secrets: u64,
    /// What the operator has still to do.
    pub note: Option<String>,
}

impl Secrets {
    /// Reads the keys that are there; makes none.
    pub fn load(folder: &Path, source: KeySource) -> Result<Self, KeyError> {
        let keys = keys::Files::new(folder, source);
        let ring = keys.load()?;
        Ok(Self { keys, ring: RwLock::new(ring), change: tokio::sync::RwLock::new(()) })
    }

    fn ring(&self) -> Ring {
        self.ring.read().expect("no holder of this lock panics").clone()
    }

    /// Ids of the keys at hand, the one in force first.
    pub fn key_ids(&self) -> Vec<String> {
        self.ring().all().map(|key| key.id().to_owned()).collect()
    }

    /// What the operator should know about the keys.
    pub fn note(&self) -> Option<String> {
        self.keys.note()
    }

    /// The value for a run on the full ref `reference`, or of none. A secret without patterns is for every run.
    pub async fn open(
        &self,
        store: &Store,
        project: &str,
        name: &str,
        reference: Option<&str>,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let row = read(store, project, name).await?;
        let refs = &row.secret.refs;
        // Patterns that cannot be compiled were refused when they were stored; if they are there, they let nobody in.
        let listed = |r: &str| GlobList::new(refs).is_ok_and(|globs| globs.includes(r.as_bytes()));
        if !refs.is_empty() && !reference.is_some_and(listed) {
            return Err(OpenError::Ref {
                name: name.to_owned(),
                reference: reference.map(str::to_owned),
                refs: refs.clone(),
            });
        }
        self.unseal(&row)
    }

    /// The value for the engine's own use: to verify a signature, to fetch a repository. Patterns of refs are about runs.
    pub async fn open_for_engine(
        &self,
        store: &Store,
        project: &str,
        name: &str,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        self.unseal(&read(store, project, name).await?)
    }

    /// Keeps a value, or replaces it. Makes the key if there is none yet.
    pub async fn put(
        &self,
        store: &Store,
        project: &str,
        name: &str,
        value: &[u8],
        refs: Vec<String>,
    ) -> Result<(), PutError> {
        check(name, value, &refs).map_err(PutError::Invalid)?;
        let _unchanged = self.change.read().await;
        let key = self.in_force(store).await?;
        let put = PutSecret {
            project: project.to_owned(),
            name: name.to_owned(),
            sealed: seal(&key, project, name, value),
            key_id: key.id().to_owned(),
            refs,
            updated_at: Millis::now(),
            expected: None,
        };
        let used = UseKey { expected: None, key_id: key.id().to_owned() };
        store.write(vec![Write::UseKey(used), Write::PutSecret(put)]).await?;
        Ok(())
    }

    /// The key that seals, by the database; where it names none yet, ours, which is made if there is none.
    async fn in_force(&self, store: &Store) -> Result<Key, PutError> {
        let named = match store.meta(KEY_IN_FORCE).await? {
            Some(id) => Some(id),
            // Sealed before it was written down, perhaps by another engine.
            None => store.secrets(None).await?.into_iter().map(|row| row.key_id).find(|id| !self.has(id)),
        };
        let Some(id) = named else { return Ok(self.current()?) };
        if !self.is_current(&id) {
            self.look_again()?;
        }
        if let Some(key) = self.ring().current.filter(|key| key.id() == id) {
            return Ok(key);
        }
        // A change that was interrupted before it was written down is ours to go on with. A key that was lost, with
        // everything that it sealed, is given up once all of that was removed.
        if self.has(&id) || store.secrets_by_key(&id, 1).await?.is_empty() {
            let key = self.current()?;
            let used = UseKey { expected: Some(id), key_id: key.id().to_owned() };
            store.write(vec![Write::UseKey(used)]).await?;
            return Ok(key);
        }
        Err(PutError::NotInForce { in_force: id, known: self.key_ids() })
    }

    fn has(&self, id: &str) -> bool {
        self.ring().all().any(|key| key.id() == id)
    }

    fn is_current(&self, id: &str) -> bool {
        self.ring().current.is_some_and(|key| key.id() == id)
    }

    /// Somebody may have brought another key meanwhile.
    fn look_again(&self) -> Result<(), KeyError> {
        let found = self.keys.load()?;
        *self.ring.write().expect("no holder of this lock panics") = found;
        Ok(())
    }

    /// Writes down that the key in force is ours. What an interrupted change left counts as ours.
    async fn take_force(&self, store: &Store, ring: &Ring) -> Result<(), RekeyError> {
        let Some(current) = &ring.current else { return Ok(()) };
        let named = store.meta(KEY_IN_FORCE).await?;
        if named.as_deref() == Some(current.id()) {
            return Ok(());
        }
        if let Some(in_force) = named.as_ref().filter(|id| !ring.others.iter().any(|key| key.id() == id.as_str())) {
            return Err(RekeyError::NotInForce { in_force: in_force.clone(), known: self.key_ids() });
        }
        let used = UseKey { expected: named, key_id: current.id().to_owned() };
        Ok(store.write(vec![Write::UseKey(used)]).await.map(drop)?)
    }

    fn current(&self) -> Result<Key, KeyError> {
        let mut ring = self.ring.write().expect("no holder of this lock panics");
        if let Some(key) = &ring.current {
            return Ok(key.clone());
        }
        let key = self.keys.make()?;
        ring.current = Some(key.clone());
        Ok(key)
    }

    /// Takes `new_key` (64 hex digits; none: a new one) into use and seals all secrets with it.
    pub async fn rekey(&self, store: &Store, new_key: Option<&str>) -> Result<Changed, RekeyError> {
        let new = new_key.map_or_else(|| Ok(Key::random()), Key::parse)?;
        let _alone = self.change.write().await;
        // Another engine may have changed it, and somebody may have brought the new one here.
        self.look_again()?;
        if let Some(in_force) = store.meta(KEY_IN_FORCE).await?.filter(|id| !self.has(id)) {
            return Err(RekeyError::NotInForce { in_force, known: self.key_ids() });
        }
        // What an earlier change left undone comes first: at most two keys are ever in use.
        let mut secrets = self.convert(store).await?;
        let before = self.ring().current;
        if before.as_ref().is_none_or(|old| old.id() != new.id()) {
            let ring = self.keys.replace(before.as_ref(), &new)?;
            *self.ring.write().expect("no holder of this lock panics") = ring;
            fault::point("secrets.rekey.begun");
            secrets += self.convert(store).await?;
        }
        Ok(Changed { key_id: new.id().to_owned(), secrets, note: self.keys.note() })
    }

    /// Goes on with a change of the key that a crash interrupted. Quick when there is none.
    pub async fn finish(&self, store: &Store) -> Result<u64, RekeyError> {
        if self.ring().others.is_empty() {
            return Ok(0);
        }
        let _alone = self.change.write().await;
        self.convert(store).await
    }

    /// Seals with the key in force what is sealed with another one, and forgets the other one.
    async fn convert(&self, store: &Store) -> Result<u64, RekeyError> {
        let ring = self.ring();
        let Some(current) = &ring.current else { return Ok(0) };
        // From here on nobody seals with an old key: what is looked for below is all that there will be.
        self.take_force(store, &ring).await?;
        let mut converted = 0;
        for old in ring.others.iter().filter(|key| key.id() != current.id()) {
            let mut idle = 0;
            loop {
                let rows = store.secrets_by_key(old.id(), PAGE).await?;
                if rows.is_empty() {
                    break;
                }
                let before = converted;
                for row in &rows {
                    converted += u64::from(self.convert_one(store, current, row).await?);
                    fault::point("secrets.rekey.one");
                }
                idle = if converted == before { idle + 1 } else { 0 };
                if idle > MAX_IDLE_ROUNDS {
                    return Err(RekeyError::Busy(rows.len()));
                }
            }
        }
        let left = self.keys.forget_old()?;
        *self.ring.write().expect("no holder of this lock panics") = left;
        Ok(converted)
    }

    /// False when somebody else was faster.
    async fn convert_one(&self, store: &Store, current: &Key, row: &SealedSecretRow) -> Result<bool, RekeyError> {
        let secret = &row.secret;
        let value = self.unseal(row)?;
        let put = PutSecret {
            project: secret.project.clone(),
            name: secret.name.clone(),
            sealed: seal(current, &secret.project, &secret.name, &value),
            key_id: current.id().to_owned(),
            refs: secret.refs.clone(),
            // The value is the same: only what it is sealed with has changed.
            updated_at: secret.updated_at,
            expected: Some(secret.stamp()),
        };
        match store.write(vec![Write::PutSecret(put)]).await {
            Ok(_) => Ok(true),
            Err(WriteError::Stale { .. }) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn unseal(&self, row: &SealedSecretRow) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let secret = &row.secret;
        if !self.has(&secret.key_id) {
            // If it cannot be read now, the keys that are at hand are named below.
            _ = self.look_again();
        }
        let ring = self.ring();
        let Some(key) = ring.all().find(|key| key.id() == secret.key_id) else {
            return Err(OpenError::Key {
                name: secret.name.clone(),
                key_id: secret.key_id.clone(),
                known: self.key_ids(),
            });
        };
        let damaged = || OpenError::Damaged { name: secret.name.clone() };
        let (nonce, ciphertext) = row.sealed.split_at_checked(NONCE_BYTES).ok_or_else(damaged)?;
        let aad = associated(&secret.project, &secret.name);
        key.cipher()
            .decrypt(XNonce::from_slice(nonce), Payload { msg: ciphertext, aad: aad.as_bytes() })
            .map(Zeroizing::new)
            .map_err(|_| damaged())
    }
}

/// Between two tries to finish a change of the key.
const FINISH_PAUSE: std::time::Duration = std::time::Duration::from_secs(10);

/// Finishes a change of the key that a crash interrupted; ends when it is done, or with the engine.
pub(crate) async fn finish_change(shared: std::sync::Arc<crate::shared::Shared>) {
    loop {
        match shared.secrets.finish(&shared.store).await {
            Ok(0) => return,
            Ok(secrets) => {
                tracing::info!(secrets, "finished a change of the secrets' key");
                return;
            }
            Err(e) => tracing::warn!("secrets are not all sealed with the new key yet: {e}"),
        }
        tokio::select! {
            () = tokio::time::sleep(FINISH_PAUSE) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

async fn read(store: &Store, project: &str, name: &str) -> Result<SealedSecretRow, OpenError> {
    match store.sealed_secret(project, name).await {
        Ok(Some(row)) => Ok(row),
        Ok(None) => Err(OpenError::Missing { name: name.to_owned() }),
        Err(e) => Err(OpenError::Unavailable { name: name.to_owned(), reason: e.to_string() }),
    }
}

/// Neither a project nor a name holds a line end, so no two pairs give the same text.
fn associated(project: &str, name: &str) -> String {
    format!("{DOMAIN}\n{project}\n{name}")
}

fn seal(key: &Key, project: &str, name: &str, value: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE_BYTES] = rand::random();
    let aad = associated(project, name);
    let ciphertext = key
        .cipher()
        .encrypt(XNonce::from_slice(&nonce), Payload { msg: value, aad: aad.as_bytes() })
        .expect("a value of bounded length can be encrypted");
    [nonce.as_slice(), &ciphertext].concat()
}

impl Key {
    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.bytes().into())
    }
}

/// What a secret may be called, and what its patterns and its value may be.
fn check(name: &str, value: &[u8], refs: &[String]) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.starts_with('.') || !name.chars().all(fits) {
        return Err(format!(
            "{name:?} is no name of a secret; use letters, digits, `-`, `_` and `.`, at most {MAX_NAME_BYTES} of them"
        ));
    }
    // Whoever reads a secret from a file takes its last line break off.
    if value.iter().all(|byte| matches!(byte, b'\n' | b'\r')) {
        return Err(format!("the value of {name} is empty"));
    }
    if value.len() > MAX_VALUE_BYTES {
        return Err(format!("the value of {name} has {} bytes; at most {MAX_VALUE_BYTES} are kept", value.len()));
    }
    if refs.len() > MAX_REFS {
        return Err(format!("{} patterns of refs are too many; at most {MAX_REFS}", refs.len()));
    }
    if let Some(pattern) = refs.iter().find(|r| !r.starts_with("refs/")) {
        return Err(format!("{pattern:?} is no pattern of a full ref; write it like refs/heads/main or refs/tags/v*"));
    }
    GlobList::new(refs).map(drop)
}

/// A value as it travels in JSON.
pub fn decode_value(base64: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    BASE64.decode(base64).map(Zeroizing::new).map_err(|e| format!("the value is no base64: {e}"))
}
