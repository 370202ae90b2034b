//! How secrets reach a job: one sealed document in the attempt's folder, and a folder in memory for the job.
//!
//! The engine hands values to the pool; the pool seals them for one attempt and writes them beside its specification; the
//! runner, which alone was given the attempt's credential, opens them, lays each as a file into a folder in memory, and
//! removes the document. Neither a specification nor a command line nor an environment ever holds a value.
//!
//! XChaCha20-Poly1305, because its nonce is long enough to be drawn at random; the key is an HMAC-SHA256 of the attempt
//! under its credential with a domain of its own, so that a MAC of a claim or a result is never a key. What is *not* here:
//! how secrets are kept at rest, which is the engine's, and masking, which is the runner's.

use std::{
    collections::BTreeMap,
    fmt,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Separates the sealing key from everything else that is derived from a credential.
const DOMAIN: &str = "kickwheel secrets 1";

/// Most bytes that the values of one attempt have together; they are held in memory several times.
pub const VALUES_LIMIT: usize = 1024 * 1024;

/// Bytes of randomness that sealing needs.
pub const NONCE_BYTES: usize = 24;

/// Values by file name. Shows neither of them when it is printed for debugging.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(BTreeMap<String, Vec<u8>>);

/// Why values cannot be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is too much of them.
    #[error("deliver {0} bytes of secrets to one attempt; the limit is {VALUES_LIMIT}")]
    TooLarge(usize),
    /// The document is no such document, or was sealed for another attempt or with another credential.
    #[error("open the sealed secrets: {0}")]
    Unreadable(&'static str),
}

/// What lies in the attempt's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// 24 bytes in hex.
    pub nonce: String,
    /// JSON of [`Secrets`], encrypted and authenticated together with the attempt's name; in hex.
    pub ciphertext: String,
}

impl Secrets {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value under the name of its file.
    pub fn insert(&mut self, file: impl Into<String>, value: impl Into<Vec<u8>>) {
        self.0.insert(file.into(), value.into());
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names of the files, in order.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Files and their values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(file, value)| (file.as_str(), value.as_slice()))
    }
}

impl<K: Into<String>, V: Into<Vec<u8>>> FromIterator<(K, V)> for Secrets {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(values: I) -> Self {
        Self(values.into_iter().map(|(file, value)| (file.into(), value.into())).collect())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} files)", self.0.len())
    }
}

impl Sealed {
    /// Seals values for one attempt. `nonce` is drawn at random for every call.
    pub fn seal(
        secrets: &Secrets,
        credential: &str,
        attempt: &str,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Self, SealError> {
        let size = secrets.0.values().map(Vec::len).sum();
        if size > VALUES_LIMIT {
            return Err(SealError::TooLarge(size));
        }
        let text = serde_json::to_vec(secrets).expect("secrets have string keys only");
        let ciphertext = cipher(credential, attempt)
            .encrypt(XNonce::from_slice(&nonce), Payload { msg: &text, aad: attempt.as_bytes() })
            .expect("a message of bounded length can be encrypted");
        Ok(Self { nonce: hex::encode(nonce), ciphertext: hex::encode(ciphertext) })
    }

    /// The values, for who holds the credential of the very attempt.
    pub fn open(&self, credential: &str, attempt: &str) -> Result<Secrets, SealError> {
        let mut nonce = [0; NONCE_BYTES];
        hex::decode_to_slice(&self.nonce, &mut nonce).map_err(|_| SealError::Unreadable("its nonce is malformed"))?;
        let ciphertext =
            hex::decode(&self.ciphertext).map_err(|_| SealError::Unreadable("its ciphertext is malformed"))?;
        let text = cipher(credential, attempt)
            .decrypt(XNonce::from_slice(&nonce), Payload { msg: &ciphertext, aad: attempt.as_bytes() })
            .map_err(|_| SealError::Unreadable("it was sealed for another attempt, or was changed"))?;
        serde_json::from_slice(&text).map_err(|_| SealError::Unreadable("it holds no values"))
    }
}

fn cipher(credential: &str, attempt: &str) -> XChaCha20Poly1305 {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(credential.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(format!("{DOMAIN}\n{attempt}").as_bytes());
    XChaCha20Poly1305::new(&mac.finalize().into_bytes())
}

/// The folder below `base` (a file system in memory) that holds the secrets of the attempt in `folder`. Its name follows
/// from the attempt's folder alone, so that whoever finds the runner dead can remove it.
pub fn memory_folder(base: &Path, folder: &Path) -> PathBuf {
    let name = hex::encode(&Sha256::digest(folder.as_os_str().as_bytes())[..16]);
    base.join(format!("kickwheel-secrets-{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Secrets {
        [("token", &b"abc\xff"[..]), ("key", b"")].into_iter().collect()
    }

    #[test]
    fn only_the_attempts_own_credential_opens_what_was_sealed_for_it() {
        let sealed = Sealed::seal(&values(), "credential", "run/step[0]#1", [7; NONCE_BYTES]).expect("it is small");
        assert_eq!(sealed.open("credential", "run/step[0]#1"), Ok(values()));
        assert!(sealed.open("credential", "run/step[0]#2").is_err());
        assert!(sealed.open("other", "run/step[0]#1").is_err());
        let mut changed = sealed.clone();
        changed.ciphertext.replace_range(0..2, if sealed.ciphertext.starts_with("00") { "01" } else { "00" });
        assert!(changed.open("credential", "run/step[0]#1").is_err());
        assert!(Sealed { nonce: "00".to_owned(), ..sealed }.open("credential", "run/step[0]#1").is_err());
    }

    #[test]
    fn neither_the_document_nor_its_debug_form_shows_a_value() {
        let secrets: Secrets = [("token", "correct horse")].into_iter().collect();
        let sealed = Sealed::seal(&secrets, "credential", "a", [1; NONCE_BYTES]).expect("it is small");
        let text = format!("{secrets:?}{}", serde_json::to_string(&sealed).expect("it has string keys"));
        assert!(!text.contains("horse") && !text.contains(&hex::encode("horse")), "{text}");
    }

    #[test]
    fn too_much_is_refused() {
        let secrets: Secrets = [("big", vec![0; VALUES_LIMIT + 1])].into_iter().collect();
        assert_eq!(Sealed::seal(&secrets, "c", "a", [0; NONCE_BYTES]), Err(SealError::TooLarge(VALUES_LIMIT + 1)));
    }
}
