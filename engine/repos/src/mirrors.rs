//! The folder of bare mirrors, and the asynchronous face of this crate.
//!
//! A mirror is a bare repository of our own below one folder, named by project, repository and URL. It holds every
//! branch and tag of its origin, and objects that are reachable no more (nothing here collects garbage), so that the
//! commit before a force push can usually still be compared. It is a cache: it may be deleted at any time.
//!
//! **Locking.** Each mirror has one lock in this process: fetching writes, all else reads. The data folder belongs to one
//! process (its own lock file proves it), so a lock file that libgit2 left in a mirror is a leftover of a crash and is
//! removed when the mirror is opened first.
//!
//! The work itself is in the sibling modules, as blocking functions over a [`git2::Repository`].

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Once},
};

use git2::{ErrorClass, ErrorCode, Oid, Repository, RepositoryInitOptions};
use kickwheel_egress::Egress;
use kickwheel_schemas::Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

use crate::{
    access::{Access, Credentials},
    advert::Heads,
    changes::{self, ChangedPaths, PushRange},
    failure::FetchError,
    fetch::{self, Fetched},
    notes::{self, NoteError, Subject},
    origin::{Origin, OriginError},
    remote,
    select::Selection,
    source::{self, ExportError, Exported},
    workflows::{self, WorkflowFiles},
};

/// All mirrors of a data folder. Cheap to clone; clones share their locks.
#[derive(Clone, Debug)]
pub struct Mirrors {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    egress: Egress,
    locks: Mutex<HashMap<PathBuf, Arc<RwLock<()>>>>,
}

/// Names one mirror. Made by [`Mirrors::mirror`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorId {
    /// The project that the repository is bound to.
    pub project: String,
    /// The repository's name in its project.
    pub name: String,
    /// As configured.
    pub url: String,
    origin: Origin,
    path: PathBuf,
    credentials: Option<Credentials>,
}

impl MirrorId {
    /// Where the repository is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The mirror's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same mirror, whose origin is asked with these credentials from now on. An origin on this machine needs none.
    pub fn with_credentials(self, credentials: Option<Credentials>) -> Self {
        Self { credentials, ..self }
    }

    /// Where the host keys are kept that an ssh origin showed. Not in the mirror: that may be deleted at any time, and
    /// the next key would then be taken for the first.
    fn accepted_hosts(&self) -> PathBuf {
        self.path.with_extension("known_hosts")
    }
}

/// The default branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Without `refs/heads/`.
    pub branch: String,
    /// Full hex id.
    pub commit: String,
}

/// A branch or tag of a mirror.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedRef {
    /// In full, for example `refs/heads/main`.
    pub name: String,
    /// Full hex id of what it points at: for an annotated tag the tag object.
    pub target: String,
    /// Full hex id of the commit behind it; `None` for a tag of something else.
    pub commit: Option<String>,
}

/// Why the folder of mirrors, or one mirror, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Stop: bind another URL.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// Retry later: our own disk.
    #[error("create the mirror {path:?}: {reason}; check that the data folder is writable and has space")]
    Create {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

/// Why something cannot be read from a mirror.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The mirror lacked the commit and the origin was asked: the variants of [`FetchError`] say what to do.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Retry later: a damaged mirror has been discarded and is built anew by the next fetch.
    #[error("read the mirror of {url:?}: {reason}; the next fetch repairs it")]
    Mirror {
        /// As configured.
        url: String,
        /// What libgit2 said.
        reason: String,
    },
}

impl Mirrors {
    /// Uses `dir` for mirrors, creating it when it is absent. Other machines are asked under the default policy.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, MirrorError> {
        Self::open_with(dir, Egress::default())
    }

    /// The same under another policy.
    pub fn open_with(dir: impl Into<PathBuf>, egress: Egress) -> Result<Self, MirrorError> {
        trust_repositories_of_others();
        let dir = dir.into();
        let failed = |error: io::Error| MirrorError::Create { path: dir.clone(), reason: error.to_string() };
        fs::create_dir_all(&dir).map_err(failed)?;
        // Deploy keys that a crash left.
        match fs::remove_dir_all(dir.join(KEYS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        Ok(Self { inner: Arc::new(Inner { dir, egress, locks: Mutex::default() }) })
    }

    /// The mirror of `url`, bound as `name` in `project`. Its folder is made when it is absent; nothing is fetched.
    pub async fn mirror(&self, project: &str, name: &str, url: &str) -> Result<MirrorId, MirrorError> {
        let origin = Origin::parse(url)?;
        // The URL is part of the name, so that binding another repository under the same name starts afresh.
        let url_hash = hex::encode(&Sha256::digest(url)[..URL_HASH_BYTES]);
        let folder = format!("{}-{url_hash}.git", file_name(name));
        let path = self.inner.dir.join(file_name(project)).join(folder);
        let id =
            MirrorId { project: project.into(), name: name.into(), url: url.into(), origin, path, credentials: None };
        let known = self.inner.locks.lock().expect("no holder of this lock panics").contains_key(&id.path);
        if !known || !id.path.exists() {
            let exclusive = self.lock(&id).write_owned().await;
            let path = id.path.clone();
            blocking(exclusive, move || prepare(&path)).await?;
        }
        Ok(id)
    }

    /// Deletes a mirror, and what is known of its server. The origin is not touched.
    pub async fn remove(&self, id: &MirrorId) -> io::Result<()> {
        self.discard(id).await?;
        match fs::remove_file(id.accepted_hosts()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn discard(&self, id: &MirrorId) -> io::Result<()> {
        let exclusive = self.lock(id).write_owned().await;
        let path = id.path.clone();
        blocking(exclusive, move || match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        })
        .await
    }

    /// The origin's branches and tags as they are now, without fetching anything: for polling. The mirror is not
    /// touched.
    pub async fn ls_remote(&self, id: &MirrorId) -> Result<Heads, FetchError> {
        let (id, access) = (id.clone(), self.access(id));
        blocking((), move || remote::ls_remote(&id, &access)).await
    }

    /// Brings all branches and tags of the origin into the mirror, forgets those that are gone there, and makes sure
    /// that the `wanted` commits (full hex ids) are present even if no branch or tag leads to them any more.
    pub async fn fetch(&self, id: &MirrorId, wanted: &[String]) -> Result<Fetched, FetchError> {
        let exclusive = self.lock(id).write_owned().await;
        let (id, access, wanted) = (id.clone(), self.access(id), wanted.to_vec());
        blocking(exclusive, move || fetch::fetch(&id, &access, &wanted)).await
    }

    /// The default branch and its commit; `None` while there is no branch. See [`Fetched`] for how it is chosen.
    pub async fn head(&self, id: &MirrorId) -> Result<Option<Head>, ReadError> {
        self.read(id, Vec::new(), |repo| Ok(fetch::head(repo)?)).await
    }

    /// Every branch and tag, sorted by name. Names that are not UTF-8 are left out; their commits are in the mirror.
    pub async fn heads(&self, id: &MirrorId) -> Result<Vec<NamedRef>, ReadError> {
        self.read(id, Vec::new(), |repo| Ok(fetch::named_refs(repo)?)).await
    }

    /// Whether the commit (a full hex id, or that of an annotated tag) lies on this full ref, as of the last fetch: it is
    /// where a branch points or an ancestor of that, or is exactly what a tag names. Nothing is fetched.
    pub async fn lies_on(&self, id: &MirrorId, commit: &str, reference: &str) -> Result<bool, ReadError> {
        let (commit, reference) = (commit.to_owned(), reference.to_owned());
        self.read(id, Vec::new(), move |repo| Ok(changes::lies_on(repo, &commit, &reference)?)).await
    }

    /// The commit that an id names: itself, or what an annotated tag of that id leads to. Full hex; none when it is
    /// something else, since a tag may name a file.
    pub async fn commit_of(&self, id: &MirrorId, named: &str) -> Result<Option<String>, ReadError> {
        let object = named.to_owned();
        let work = move |repo: &Repository| {
            let oid = full_id(&object).ok_or_else(|| ReadFailure::NoCommit(object.clone()))?;
            match repo.find_object(oid, None) {
                Ok(found) => Ok(found.peel_to_commit().ok().map(|commit| commit.id().to_string())),
                Err(error) if error.code() == ErrorCode::NotFound => Err(ReadFailure::NoCommit(object.clone())),
                Err(error) => Err(ReadFailure::Git(error)),
            }
        };
        self.read(id, vec![named.to_owned()], work).await
    }

    /// For each pair (older, newer) of full hex commits: whether the first is an ancestor of the second, or the same. What
    /// the mirror does not have is nobody's ancestor. Nothing is fetched.
    pub async fn ancestry(&self, id: &MirrorId, pairs: Vec<(String, String)>) -> Result<Vec<bool>, ReadError> {
        self.read(id, Vec::new(), move |repo| Ok(changes::ancestry(repo, &pairs)?)).await
    }

    /// The paths that a push changed, from the trees of the mirror. Fetches what is missing. An `Err` means: retry
    /// later; what can never be known is [`ChangedPaths::Unknown`].
    pub async fn changed_paths(&self, id: &MirrorId, range: &PushRange) -> Result<ChangedPaths, FetchError> {
        let asked = range.clone();
        match self.look(id, move |repo| Ok(changes::compare(repo, &asked)?)).await {
            Ok(changes::Comparison::Known(paths)) => return Ok(paths),
            // A damaged mirror has just been discarded, so it is fetched anew like an incomplete one.
            Ok(changes::Comparison::Missing(_)) | Err(_) => {}
        }
        let wanted: Vec<String> = range.before.iter().chain([&range.after]).cloned().collect();
        match self.fetch(id, &wanted).await {
            // Gone is no failure here either: the comparison below says which of the two is missing.
            Ok(_) | Err(FetchError::Gone { .. }) => {}
            Err(FetchError::Unsupported { reason, .. }) => return Ok(ChangedPaths::Unknown(reason)),
            Err(error) => return Err(error),
        }
        let asked = range.clone();
        match self.look(id, move |repo| Ok(changes::compare(repo, &asked)?)).await {
            Ok(changes::Comparison::Known(paths)) => Ok(paths),
            Ok(changes::Comparison::Missing(commits)) => Ok(ChangedPaths::Unknown(format!(
                "{} is in the repository no more (a force push may have removed it)",
                commits.join(" and ")
            ))),
            Err(failure) => Err(FetchError::Mirror { url: id.url.clone(), reason: failure.to_string() }),
        }
    }

    /// The workflow files of a commit, within the limits of [`workflows`].
    pub async fn workflow_files(&self, id: &MirrorId, commit: &str) -> Result<WorkflowFiles, ReadError> {
        self.read_commit(id, commit, |repo, commit| Ok(workflows::workflow_files(repo, commit)?)).await
    }

    /// The id of a commit's tree, full hex.
    pub async fn tree(&self, id: &MirrorId, commit: &str) -> Result<String, ReadError> {
        self.read_commit(id, commit, |_, commit| Ok(commit.tree_id().to_string())).await
    }

    /// A digest over mode, path and content id of what `selection` takes of a commit's source tree: the same exactly
    /// when [`Mirrors::export`] would write the same. Nothing is written.
    pub async fn tree_digest(&self, id: &MirrorId, commit: &str, selection: &Selection) -> Result<Digest, ReadError> {
        let selection = selection.clone();
        self.read_commit(id, commit, move |repo, commit| Ok(source::tree_digest(repo, &commit.tree()?, &selection)?))
            .await
    }

    /// Writes what `selection` takes of a commit's source tree into `dest`, which must be absent or empty. The
    /// `.kickwheel/` folder is never part of it.
    pub async fn export(
        &self,
        id: &MirrorId,
        commit: &str,
        selection: &Selection,
        dest: &Path,
    ) -> Result<Exported, ExportError> {
        let (selection, dest) = (selection.clone(), dest.to_owned());
        self.read_commit(id, commit, move |repo, commit| {
            // The outer result is the mirror's, the inner one the export's own.
            match source::export(repo, &commit.tree()?, &selection, &dest) {
                Err(ExportError::Git(error)) => Err(ReadFailure::Git(error)),
                other => Ok(other),
            }
        })
        .await?
    }

    /// Puts the section about `about` into the note on `commit` in the **origin**, below `refs/notes/kickwheel`. Other
    /// sections are kept, the same one is replaced in place. Safe against other writers.
    pub async fn add_note(&self, id: &MirrorId, commit: &str, about: Subject, text: &str) -> Result<(), NoteError> {
        let guard = self.lock_for_notes(id).await;
        let (id, access, commit) = (id.clone(), self.access(id), commit.to_owned());
        let text = text.to_owned();
        blocking(guard, move || notes::add_note(&id, &access, &commit, &about, &text)).await
    }

    /// The whole note on `commit` in the origin, lossily as text; `None` when there is none.
    pub async fn read_note(&self, id: &MirrorId, commit: &str) -> Result<Option<String>, NoteError> {
        let guard = self.lock_for_notes(id).await;
        let (id, access, commit) = (id.clone(), self.access(id), commit.to_owned());
        blocking(guard, move || notes::read_note(&id, &access, &commit)).await
    }

    /// Notes of an origin on this machine are read and written there; all others pass through the mirror.
    async fn lock_for_notes(&self, id: &MirrorId) -> Option<OwnedRwLockWriteGuard<()>> {
        match id.origin.local_path() {
            Some(_) => None,
            None => Some(self.lock(id).write_owned().await),
        }
    }

    fn access(&self, id: &MirrorId) -> Access {
        Access {
            credentials: id.credentials.clone(),
            egress: self.inner.egress.clone(),
            accepted_hosts: id.accepted_hosts(),
            keys: self.inner.dir.join(KEYS),
        }
    }

    fn lock(&self, id: &MirrorId) -> Arc<RwLock<()>> {
        let mut locks = self.inner.locks.lock().expect("no holder of this lock panics");
        Arc::clone(locks.entry(id.path.clone()).or_default())
    }

    async fn read_commit<T, W>(&self, id: &MirrorId, commit: &str, work: W) -> Result<T, ReadError>
    where
        T: Send + 'static,
        W: Fn(&Repository, &git2::Commit<'_>) -> Result<T, ReadFailure> + Send + Sync + 'static,
    {
        let named = commit.to_owned();
        self.read(id, vec![commit.to_owned()], move |repo| work(repo, &find_commit(repo, &named)?)).await
    }

    /// Runs `work` over the mirror. If that fails because the mirror lacks something, `wanted` is fetched, and it is run
    /// once more: this is what makes a mirror a mere cache.
    async fn read<T, W>(&self, id: &MirrorId, wanted: Vec<String>, work: W) -> Result<T, ReadError>
    where
        T: Send + 'static,
        W: Fn(&Repository) -> Result<T, ReadFailure> + Send + Sync + 'static,
    {
        let work = Arc::new(work);
        let again = Arc::clone(&work);
        let failed = |failure: ReadFailure| ReadError::Mirror { url: id.url.clone(), reason: failure.to_string() };
        match self.look(id, move |repo| work(repo)).await {
            Ok(value) => return Ok(value),
            Err(failure) if failure.is_mended_by_fetching() => {}
            Err(failure) => return Err(failed(failure)),
        }
        self.fetch(id, &wanted).await?;
        self.look(id, move |repo| again(repo)).await.map_err(failed)
    }

    /// Runs `work` over the mirror under its read lock. A mirror that turns out to be damaged is deleted, so that the
    /// next fetch builds it anew.
    async fn look<T, W>(&self, id: &MirrorId, work: W) -> Result<T, ReadFailure>
    where
        T: Send + 'static,
        W: FnOnce(&Repository) -> Result<T, ReadFailure> + Send + 'static,
    {
        let shared = self.lock(id).read_owned().await;
        let path = id.path.clone();
        let result = blocking(shared, move || work(&Repository::open_bare(&path)?)).await;
        if let Err(ReadFailure::Git(error)) = &result
            && is_damage(error)
        {
            tracing::warn!(mirror = ?id.path, %error, "a mirror is damaged or missing and is discarded");
            // Best effort: if it cannot be deleted, the next fetch meets the damage and says so.
            let _ = self.discard(id).await;
        }
        result
    }
}

/// Why a blocking read ended, before it is known which mirror it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadFailure {
    #[error("commit {0} is not there")]
    NoCommit(String),
    #[error("{}", .0.message())]
    Git(#[from] git2::Error),
}

impl ReadFailure {
    fn is_mended_by_fetching(&self) -> bool {
        match self {
            Self::NoCommit(_) => true,
            Self::Git(error) => is_damage(error),
        }
    }
}

/// The folder for files with deploy keys. No project's folder can have this name.
const KEYS: &str = ".keys";

/// How many bytes of the URL's hash a mirror's folder name carries: enough to tell the few URLs apart that one
/// repository name is ever bound to.
const URL_HASH_BYTES: usize = 8;

/// The commit named by a full hex id.
pub(crate) fn find_commit<'r>(repo: &'r Repository, commit: &str) -> Result<git2::Commit<'r>, ReadFailure> {
    let missing = || ReadFailure::NoCommit(commit.to_owned());
    let oid = full_id(commit).ok_or_else(missing)?;
    match repo.find_object(oid, None).and_then(|object| object.peel_to_commit()) {
        Ok(commit) => Ok(commit),
        Err(error) if error.code() == ErrorCode::NotFound || error.code() == ErrorCode::InvalidSpec => Err(missing()),
        Err(error) => Err(ReadFailure::Git(error)),
    }
}

/// Parses a *full* hex id; libgit2 itself would take a prefix and pad it with zeros.
pub(crate) fn full_id(text: &str) -> Option<Oid> {
    if text.len() != SHA1_HEX_LEN { None } else { Oid::from_str(text).ok() }
}

/// Hex digits of an id in a SHA-1 repository, the only kind that this build of libgit2 reads.
pub(crate) const SHA1_HEX_LEN: usize = 40;

/// Opens the mirror at `path`, making it when it is absent.
pub(crate) fn open_or_create(path: &Path) -> Result<Repository, git2::Error> {
    match Repository::open_bare(path) {
        Ok(repo) => Ok(repo),
        Err(error) if error.code() == ErrorCode::NotFound => {
            let mut options = RepositoryInitOptions::new();
            // No template: what the machine's templates hold (hooks, attributes) has no place in a cache of ours.
            options.bare(true).mkpath(true).external_template(false);
            Repository::init_opts(path, &options)
        }
        Err(error) => Err(error),
    }
}

/// Whether an error says that a mirror, its objects or refs are broken or missing, as opposed to a lack of memory, disk
/// or permission, which building it anew would not mend.
pub(crate) fn is_damage(error: &git2::Error) -> bool {
    matches!(
        error.class(),
        ErrorClass::Odb | ErrorClass::Object | ErrorClass::Zlib | ErrorClass::Tree | ErrorClass::Reference
    ) || (error.code() == ErrorCode::NotFound && matches!(error.class(), ErrorClass::Repository | ErrorClass::Os))
}

fn prepare(path: &Path) -> Result<(), MirrorError> {
    let failed = |reason: String| MirrorError::Create { path: path.to_owned(), reason };
    if path.exists() {
        remove_leftover_locks(path).map_err(|error| failed(error.to_string()))?;
    }
    open_or_create(path).map_err(|error| failed(error.message().to_owned()))?;
    Ok(())
}

/// Removes `*.lock` files. The caller is the only user of this mirror: see the header.
fn remove_leftover_locks(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        // Objects are never locked, and there may be many.
        if kind.is_dir() && entry.file_name() != "objects" {
            remove_leftover_locks(&entry.path())?;
        } else if kind.is_file() && entry.path().extension().is_some_and(|extension| extension == "lock") {
            tracing::warn!(file = ?entry.path(), "removing a lock file that a crash left in a mirror");
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A name as one file name, reversibly: bytes that mean something to a file system or a shell become `%XX`.
fn file_name(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' || (byte == b'.' && index > 0);
        if plain {
            safe.push(char::from(byte));
        } else {
            safe.push_str(&format!("%{byte:02X}"));
        }
    }
    safe
}

/// Lets libgit2 open repositories that belong to another user, once per process.
///
/// The check protects a person who steps into a stranger's folder and whose *git* would then run what the repository's
/// configuration says (hooks, filters, pagers, ssh commands). libgit2 runs none of these for what we do, and an origin is
/// bound by an administrator on purpose; a server that runs as its own user could otherwise serve nobody's repository.
#[allow(unsafe_code)]
pub(crate) fn trust_repositories_of_others() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the option is a plain global in libgit2 that must not be written while another thread opens a
        // repository. `Once` makes this the only write, and every path of this crate that opens one passes here first.
        let result = unsafe { git2::opts::set_verify_owner_validation(false) };
        result.expect("the option exists in the libgit2 that is compiled in");
    });
}

/// Runs `work` on a blocking thread. The `guard` goes with it: when the caller is cancelled the work is not, and must not
/// lose its lock.
async fn blocking<T: Send + 'static, G: Send + 'static>(guard: G, work: impl FnOnce() -> T + Send + 'static) -> T {
    let guarded = move || {
        let value = work();
        drop(guard);
        value
    };
    match tokio::task::spawn_blocking(guarded).await {
        Ok(value) => value,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => panic!("the runtime stopped while a repository was in use: {error}"),
    }
}
