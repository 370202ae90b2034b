//! The keys that seal secrets: where they come from, and the files that carry a change of the key over a crash.
//!
//! The key in force is `secrets.key` in the data folder (made on first use), a file that somebody names, or a text from
//! the environment. While it is being changed, a second file beside it holds the other one:
//!
//! - `secrets.key.old`: the one before. It is written *before* the new one takes its place, and removed when nothing is
//!   sealed with it any more. Somebody may also put one there by hand, to have what it sealed sealed anew.
//! - `secrets.key.next`: the new one, where the configured one is not ours to write. It is in force from then on; once it
//!   is what is configured, the file goes.
//!
//! What this does not do: seal, open, or look at the database; see [`super`].

use std::{
    fmt, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Hex digits of a key's id.
const ID_DIGITS: usize = 8;

/// Where the key comes from.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum KeySource {
    /// `secrets.key` in the data folder, made on first use.
    #[default]
    Folder,
    /// A file of somebody's, which must be there.
    File(PathBuf),
    /// 64 hex digits, from the environment.
    Given(Zeroizing<String>),
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder => f.write_str("Folder"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Given(_) => f.write_str("Given(…)"),
        }
    }
}

/// A key cannot be used, made or stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is no key.
    #[error(
        "use {what} as the key of the secrets: it must be 64 hex digits (`openssl rand -hex 32` makes such a text)"
    )]
    Malformed {
        /// Where it comes from.
        what: String,
    },
    /// Its file cannot be read or written.
    #[error("use the key of the secrets in {path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
}

/// A key. Shows only its id when it is printed for debugging.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    id: String,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl Key {
    fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        let mut id = hex::encode(Sha256::digest(bytes.as_slice()));
        id.truncate(ID_DIGITS);
        Self { id, bytes }
    }

    /// A new one.
    pub fn random() -> Self {
        Self::new(Zeroizing::new(rand::random()))
    }

    /// From 64 hex digits.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Self::of(text, || "the given text".to_owned())
    }

    fn of(text: &str, what: impl Fn() -> String) -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        hex::decode_to_slice(text.trim(), bytes.as_mut_slice()).map_err(|_| KeyError::Malformed { what: what() })?;
        Ok(Self::new(bytes))
    }

    /// First hex digits of its SHA-256.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// For the cipher.
    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.bytes.as_slice()))
    }
}

/// The keys at hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// What seals; none: nothing was ever sealed here.
    pub current: Option<Key>,
    /// What still opens.
    pub others: Vec<Key>,
}

impl Ring {
    /// The one in force first.
    pub fn all(&self) -> impl Iterator<Item = &Key> {
        self.current.iter().chain(&self.others)
    }
}

/// Where keys are kept.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    source: KeySource,
}

impl Files {
    /// Looks at nothing yet.
    pub fn new(folder: &Path, source: KeySource) -> Self {
        Self { folder: folder.to_owned(), source }
    }

    fn kept(&self) -> PathBuf {
        self.folder.join("secrets.key")
    }

    fn old(&self) -> PathBuf {
        self.folder.join("secrets.key.old")
    }

    fn next(&self) -> PathBuf {
        self.folder.join("secrets.key.next")
    }

    fn configured(&self) -> Result<Option<Key>, KeyError> {
        match &self.source {
            KeySource::Folder => read(&self.kept()),
            KeySource::File(path) => match read(path)? {
                Some(key) => Ok(Some(key)),
                None => Err(KeyError::File { path: path.clone(), message: "there is no such file".to_owned() }),
            },
            KeySource::Given(text) => Key::of(text, || "the environment's KICKWHEEL_SECRETS_KEY".to_owned()).map(Some),
        }
    }

    /// All keys that are there.
    pub fn load(&self) -> Result<Ring, KeyError> {
        let configured = self.configured()?;
        let mut next = read(&self.next())?;
        if next.is_some() && next == configured {
            remove(&self.next())?;
            next = None;
        }
        let (current, replaced) = match next {
            Some(next) => (Some(next), configured),
            None => (configured, None),
        };
        let mut old = read(&self.old())?;
        if old.is_some() && old == current {
            // A change that had only begun: what was to be kept is what is in force.
            remove(&self.old())?;
            old = None;
        }
        let others = replaced.into_iter().chain(old).collect();
        Ok(Ring { current, others })
    }

    /// Makes the first key.
    pub fn make(&self) -> Result<Key, KeyError> {
        let path = self.kept();
        let failed = |e: io::Error| file_error(&path, &e);
        let key = Key::random();
        let file = written(&self.folder, &key).map_err(failed)?;
        match file.persist_noclobber(&path) {
            Ok(_) => synced(&self.folder).map(|()| key).map_err(failed),
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => {
                read(&path)?.ok_or_else(|| failed(io::Error::other("it came and went")))
            }
            Err(e) => Err(failed(e.error)),
        }
    }

    /// Puts `new` into force while `before` stays at hand.
    pub fn replace(&self, before: Option<&Key>, new: &Key) -> Result<Ring, KeyError> {
        // In this order: at every moment both are on the disk, whatever is sealed with either.
        if let Some(before) = before {
            put(&self.folder, &self.old(), before)?;
        }
        kickwheel_store::fault::point("secrets.rekey.kept");
        let place = match self.source {
            KeySource::Folder => self.kept(),
            KeySource::File(_) | KeySource::Given(_) => self.next(),
        };
        put(&self.folder, &place, new)?;
        self.load()
    }

    /// Nothing is sealed with the old one any more.
    pub fn forget_old(&self) -> Result<Ring, KeyError> {
        remove(&self.old())?;
        self.load()
    }

    /// What the operator has to do.
    pub fn note(&self) -> Option<String> {
        let next = self.next();
        let whose = match &self.source {
            KeySource::Folder => return None,
            KeySource::File(path) => format!("the file {}", path.display()),
            KeySource::Given(_) => "KICKWHEEL_SECRETS_KEY".to_owned(),
        };
        next.exists().then(|| {
            format!(
                "the key in force is in {}: put it into {whose} before the next start, then that file goes by itself",
                next.display()
            )
        })
    }
}

fn file_error(path: &Path, e: &io::Error) -> KeyError {
    KeyError::File { path: path.to_owned(), message: e.to_string() }
}

fn read(path: &Path) -> Result<Option<Key>, KeyError> {
    match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => Key::of(&text, || path.display().to_string()).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(file_error(path, &e)),
    }
}

/// A file of another name, readable by its owner only, whose contents are on the disk.
fn written(folder: &Path, key: &Key) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(key.text().as_bytes())?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn put(folder: &Path, path: &Path, key: &Key) -> Result<(), KeyError> {
    let written = || {
        written(folder, key)?.persist(path)?;
        synced(folder)
    };
    written().map_err(|e: io::Error| file_error(path, &e))
}

fn synced(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn remove(path: &Path) -> Result<(), KeyError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(file_error(path, &e)),
        Ok(()) | Err(_) => Ok(()),
    }
}
