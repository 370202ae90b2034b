//! Compiled plugins on disk, so that a start does not compile them again.
//!
//! Loading compiled code runs it unchecked, so a file is code of ours or it is nothing: it carries an HMAC-SHA256 under
//! the server's key over its own name and content, which is verified in memory, before the bytes are used, and on the very
//! bytes that are used. The name holds the component's digest and everything of the engine that the code depends on. A
//! file that does not verify is logged, ignored and written anew. Nothing here is worth a backup.

use std::{
    fs,
    hash::{Hash, Hasher},
    io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use hmac::{Hmac, Mac};
use kickwheel_schemas::Digest;
use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, component::Component};

use crate::HostError;

/// Where compiled plugins are kept, and the key that says they are ours.
#[derive(Clone)]
pub struct CacheConfig {
    /// Made if it does not exist, readable by this user only.
    pub dir: PathBuf,
    /// Secret of this server. Who knows it and can write to the folder can run code in this process.
    pub key: [u8; 32],
}

impl std::fmt::Debug for CacheConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheConfig").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// First bytes of every file; also keeps these MACs apart from others under the same key.
const MAGIC: &[u8; 16] = b"kickwheel-cwasm1";
const MAC_BYTES: usize = 32;
/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 512 << 20;

#[derive(Debug)]
pub(crate) struct Cache {
    config: CacheConfig,
    /// Digest of the engine's version, target, configuration and CPU features.
    engine: String,
}

impl Cache {
    pub(crate) fn open(config: CacheConfig, engine: &Engine) -> Result<Self, HostError> {
        if let Err(source) = fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.dir) {
            return Err(HostError::Cache { dir: config.dir, source });
        }
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { config, engine: hex::encode(&hasher.0.finalize()[..8]) })
    }

    /// The compiled form of a component, if it lies here and is ours.
    pub(crate) fn get(&self, engine: &Engine, digest: &Digest) -> Option<Component> {
        let path = self.path(digest);
        let file = match read_limited(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled plugin cannot be read; compiling it again");
                return None;
            }
        };
        let Some(code) = self.verified(digest, &file) else {
            tracing::warn!(path = %path.display(), "compiled plugin is damaged or not ours; compiling it again");
            return None;
        };
        match deserialize(engine, code) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "compiled plugin does not load; compiling it again");
                None
            }
        }
    }

    /// Keeps the compiled form. Failing to is logged and costs only time at the next start.
    pub(crate) fn put(&self, digest: &Digest, component: &Component) {
        let path = self.path(digest);
        let kept = component.serialize().map_err(io::Error::other).and_then(|code| {
            let mac = self.mac(digest, &code).finalize().into_bytes();
            write_whole(&path, &[MAGIC, &mac, &code])
        });
        if let Err(error) = kept {
            tracing::warn!(path = %path.display(), %error, "compiled plugin is not kept; it will be compiled at each start");
        }
    }

    fn name(&self, digest: &Digest) -> String {
        format!("{}-{}.cwasm", digest.hex(), self.engine)
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.config.dir.join(self.name(digest))
    }

    fn mac(&self, digest: &Digest, code: &[u8]) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.config.key).expect("HMAC takes keys of any length");
        mac.chain_update(MAGIC).chain_update(self.name(digest)).chain_update(code)
    }

    fn verified<'a>(&self, digest: &Digest, file: &'a [u8]) -> Option<&'a [u8]> {
        let (mac, code) = file.strip_prefix(MAGIC)?.split_at_checked(MAC_BYTES)?;
        self.mac(digest, code).verify_slice(mac).ok()?;
        Some(code)
    }
}

#[allow(unsafe_code)]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` was made by `Component::serialize` under an engine of the same version and configuration, unchanged:
    // the caller has verified a MAC over it and over its name, which holds both, and only `put` makes such MACs.
    unsafe { Component::deserialize(engine, code) }
}

fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let size = fs::metadata(path)?.len();
    if size > MAX_FILE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("{size} bytes are more than {MAX_FILE_BYTES}"),
        ));
    }
    fs::read(path)
}

/// Writes beside the path and renames, so that a reader sees all of a file or none. Not synced: a file torn by a crash
/// does not verify.
fn write_whole(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let beside = path.with_extension(format!("{}-{count}.tmp", process::id()));
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        for part in parts {
            file.write_all(part)?;
        }
        drop(file);
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        // What is left of it is of no use, and whether it can be removed changes nothing for the caller.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Takes what `Hash` feeds it, for a digest that stays the same from one build of this program to the next.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        u64::from_le_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes"))
    }
}
