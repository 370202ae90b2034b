//! The post-receive hook of a local repository: a small shell script that tells the `kickwheel` binary about each push.
//!
//! The script is rendered from [`Binding`]s, which it carries as comments, so that several data folders may be bound to
//! one repository. A hook that was there before is kept beside it, is called first with the same input, and is put back
//! when the last binding goes. Two promises: a push never fails because of us, and no path, whatever its bytes, is ever
//! read by the shell as code.
//!
//! What the binary does with the push is in the CLI; this module only writes the file. `core.hooksPath` is respected. If
//! it leads out of the repository the folder may serve many repositories, so the script then asks which one it runs in.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use git2::{ErrorCode, Repository, RepositoryOpenFlags};

use crate::mirrors::trust_repositories_of_others;

/// Whom the hook tells about a push. `repo` and `data` together identify it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The `kickwheel` binary, an absolute path.
    pub binary: PathBuf,
    /// The repository's name for filters.
    pub repo: String,
    /// The data folder, an absolute path.
    pub data: PathBuf,
}

/// What a repository's post-receive hook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookState {
    /// Where the hook is or would be.
    pub file: PathBuf,
    /// Bindings of our hook; empty if it is not installed.
    pub bindings: Vec<Binding>,
    /// Somebody else's hook: the one that ours calls first, or the only one.
    pub foreign: Option<PathBuf>,
}

impl HookState {
    /// Whether pushes to this repository are told to the data folder `data` under the name `repo`.
    pub fn tells(&self, repo: &str, data: &Path) -> bool {
        self.bindings.iter().any(|binding| binding.is(repo, data))
    }
}

/// Why a hook was not read, installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// Stop: not a local repository.
    #[error("open the repository {path:?}: {reason}")]
    Repository {
        /// As given.
        path: PathBuf,
        /// What libgit2 said.
        reason: String,
    },
    /// Stop: a person must choose.
    #[error(
        "install the hook {hook:?}: it was replaced by another one, while {kept:?} keeps a third; join them into one of the two and delete the other"
    )]
    Conflict {
        /// The hook's file.
        hook: PathBuf,
        /// What an earlier installation kept.
        kept: PathBuf,
    },
    /// Stop: the paths would mean something else elsewhere.
    #[error("install a hook for {0:?}: give an absolute path without NUL bytes")]
    Path(PathBuf),
    /// Retry after repairing what the system says.
    #[error("write the hook {path:?}: {reason}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

const HOOK: &str = "post-receive";
const KEPT: &str = "post-receive.before-kickwheel";
/// The second line of every hook of ours; the number is the script's version.
const MARKER: &str = "# kickwheel-post-receive 1";
const BINDING: &str = "# kickwheel-binding ";
/// A hook longer than this is somebody else's; no need to read it all to know.
const MAX_OWN_BYTES: u64 = 1024 * 1024;

impl Binding {
    fn is(&self, repo: &str, data: &Path) -> bool {
        self.repo == repo && self.data == data
    }

    /// As a comment that no byte of a path can break out of.
    fn comment(&self) -> String {
        let fields = [self.binary.as_os_str().as_bytes(), self.repo.as_bytes(), self.data.as_os_str().as_bytes()];
        format!("{BINDING}{}", fields.map(hex::encode).join(" "))
    }

    fn from_comment(line: &str) -> Option<Self> {
        let mut fields = line.strip_prefix(BINDING)?.split(' ').map(hex::decode);
        let (Some(Ok(binary)), Some(Ok(repo)), Some(Ok(data)), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return None;
        };
        let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
        Some(Self { binary: path(binary), repo: String::from_utf8(repo).ok()?, data: path(data) })
    }
}

/// Makes the hook of the repository at `repository` tell `binding` about each push. Doing it again changes nothing, except
/// that a moved binary is noted.
pub fn install_hook(repository: &Path, binding: &Binding) -> Result<HookState, HookError> {
    for path in [&binding.binary, &binding.data] {
        if !path.is_absolute() || path.as_os_str().as_bytes().contains(&0) {
            return Err(HookError::Path(path.clone()));
        }
    }
    if binding.repo.contains('\0') {
        return Err(HookError::Path(PathBuf::from(&binding.repo)));
    }
    let place = Place::of(repository)?;
    fs::create_dir_all(&place.dir).map_err(|error| failed(&place.dir, &error))?;
    let mut bindings = match place.read()? {
        Found::Nothing => Vec::new(),
        Found::Ours(bindings) => bindings,
        Found::Foreign => {
            place.keep_foreign()?;
            Vec::new()
        }
    };
    match bindings.iter_mut().find(|known| known.is(&binding.repo, &binding.data)) {
        Some(known) => *known = binding.clone(),
        None => bindings.push(binding.clone()),
    }
    place.write(&bindings)?;
    hook_state(repository)
}

/// Takes a binding out of the hook again; with the last one the hook that was there before comes back. False if there
/// was no such binding.
pub fn remove_hook(repository: &Path, repo: &str, data: &Path) -> Result<bool, HookError> {
    let place = Place::of(repository)?;
    let Found::Ours(mut bindings) = place.read()? else {
        return Ok(false);
    };
    let before = bindings.len();
    bindings.retain(|known| !known.is(repo, data));
    if bindings.len() == before {
        return Ok(false);
    }
    if !bindings.is_empty() {
        place.write(&bindings)?;
        return Ok(true);
    }
    let (hook, kept) = (place.hook(), place.kept());
    let undone = if kept.symlink_metadata().is_ok() { fs::rename(&kept, &hook) } else { fs::remove_file(&hook) };
    undone.map_err(|error| failed(&hook, &error))?;
    Ok(true)
}

/// What the hook is now. Nothing is changed.
pub fn hook_state(repository: &Path) -> Result<HookState, HookError> {
    let place = Place::of(repository)?;
    let (bindings, foreign) = match place.read()? {
        Found::Nothing => (Vec::new(), None),
        Found::Ours(bindings) => (bindings, place.kept().symlink_metadata().is_ok().then(|| place.kept())),
        Found::Foreign => (Vec::new(), Some(place.hook())),
    };
    Ok(HookState { file: place.hook(), bindings, foreign })
}

/// The folder of a repository's hooks.
struct Place {
    dir: PathBuf,
    /// Set when the folder is outside the repository: the repository's own folder, as `pwd -P` prints it.
    only_in: Option<PathBuf>,
}

enum Found {
    Nothing,
    Ours(Vec<Binding>),
    Foreign,
}

impl Place {
    fn of(repository: &Path) -> Result<Self, HookError> {
        trust_repositories_of_others();
        let broken = |error: git2::Error| HookError::Repository {
            path: repository.to_owned(),
            reason: error.message().to_owned(),
        };
        let repo = Repository::open_ext(repository, RepositoryOpenFlags::NO_SEARCH, &[] as &[&str]).map_err(broken)?;
        let git_dir = fs::canonicalize(repo.commondir()).map_err(|error| failed(repo.commondir(), &error))?;
        let configured = match repo.config().and_then(|config| config.get_path("core.hooksPath")) {
            Ok(path) => Some(path),
            Err(error) if error.code() == ErrorCode::NotFound => None,
            Err(error) => return Err(broken(error)),
        };
        // git runs this hook in the repository's folder, and reads a relative path from there.
        let dir = git_dir.join(configured.unwrap_or_else(|| "hooks".into()));
        // Not yet existing, or reached through links: what is not evidently inside counts as outside.
        let inside = fs::canonicalize(&dir).unwrap_or_else(|_| dir.clone()).starts_with(&git_dir);
        Ok(Self { dir, only_in: (!inside).then_some(git_dir) })
    }

    fn hook(&self) -> PathBuf {
        self.dir.join(HOOK)
    }

    fn kept(&self) -> PathBuf {
        self.dir.join(KEPT)
    }

    fn read(&self) -> Result<Found, HookError> {
        let hook = self.hook();
        match hook.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(failed(&hook, &error)),
            // We write regular files, so a link is somebody else's, wherever it leads.
            Ok(meta) if !meta.is_file() || meta.len() > MAX_OWN_BYTES => return Ok(Found::Foreign),
            Ok(_) => {}
        }
        let content = fs::read(&hook).map_err(|error| failed(&hook, &error))?;
        let text = String::from_utf8_lossy(&content);
        if text.lines().nth(1) != Some(MARKER) {
            return Ok(Found::Foreign);
        }
        Ok(Found::Ours(text.lines().filter_map(Binding::from_comment).collect()))
    }

    /// Gives somebody else's hook its second name, leaving the first until ours replaces it: at no moment, not even
    /// after a crash, is there no hook.
    fn keep_foreign(&self) -> Result<(), HookError> {
        let (hook, kept) = (self.hook(), self.kept());
        if let Ok(meta) = kept.symlink_metadata() {
            let same = hook.symlink_metadata().is_ok_and(|h| h.dev() == meta.dev() && h.ino() == meta.ino());
            return if same { Ok(()) } else { Err(HookError::Conflict { hook, kept }) };
        }
        match fs::hard_link(&hook, &kept) {
            // A file system without hard links: a moment without a hook is the best that can be had.
            Err(_) => fs::rename(&hook, &kept).map_err(|error| failed(&kept, &error)),
            Ok(()) => Ok(()),
        }
    }

    /// Replaces the hook in one step.
    fn write(&self, bindings: &[Binding]) -> Result<(), HookError> {
        let script = render(bindings, self.only_in.as_deref());
        let hook = self.hook();
        if fs::read(&hook).is_ok_and(|present| present == script) {
            return Ok(());
        }
        let new = self.dir.join(format!("{HOOK}.kickwheel-{}", std::process::id()));
        let written = write_executable(&new, &script).and_then(|()| fs::rename(&new, &hook));
        written.map_err(|error| {
            // Nothing is lost if this fails too: the file is not a hook's name.
            let _ = fs::remove_file(&new);
            failed(&hook, &error)
        })
    }
}

fn failed(path: &Path, error: &io::Error) -> HookError {
    HookError::Io { path: path.to_owned(), reason: error.to_string() }
}

fn write_executable(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(path)?;
    file.write_all(content)?;
    // The umask must not decide whether git, which may run as another user, can call it.
    file.set_permissions(Permissions::from_mode(0o755))?;
    file.sync_all()
}

/// The script. Everything variable is in single quotes or in hex.
fn render(bindings: &[Binding], only_in: Option<&Path>) -> Vec<u8> {
    let mut script = format!("#!/bin/sh\n{MARKER}\n").into_bytes();
    for binding in bindings {
        script.extend_from_slice(binding.comment().as_bytes());
        script.push(b'\n');
    }
    script.extend_from_slice(HEAD.as_bytes());
    if let Some(dir) = only_in {
        script.extend_from_slice(b"[ \"$(pwd -P)\" = ");
        script.extend_from_slice(&quoted(dir.as_os_str().as_bytes()));
        script.extend_from_slice(b" ] || exit \"$status\"\n");
    }
    for binding in bindings {
        let data = binding.data.as_os_str().as_bytes();
        script.extend_from_slice(b"tell ");
        let words = [binding.binary.as_os_str().as_bytes(), binding.repo.as_bytes(), data];
        script.extend_from_slice(&words.map(quoted).join(b" ".as_slice()));
        script.push(b'\n');
    }
    script.extend_from_slice(b"exit \"$status\"\n");
    script
}

/// The script's fixed part. `printf` writes into a pipe whose reader may not care, hence the silenced complaint.
const HEAD: &str = r#"#
# Written by kickwheel, which rewrites it: do not edit. A hook that was here before is kept in
# post-receive.before-kickwheel and called first. Whatever goes wrong with kickwheel, the push succeeds.
lines=$(cat)
status=0
kept="${0%/*}/post-receive.before-kickwheel"
if [ -x "$kept" ]; then
    printf '%s\n' "$lines" 2>/dev/null | "$kept" "$@" || status=$?
fi
[ -n "$lines" ] || exit "$status"
tell() {
    if [ ! -x "$1" ]; then
        printf 'kickwheel: %s is missing; this push was accepted, but starts nothing\n' "$1" >&2
        return 0
    fi
    printf '%s\n' "$lines" 2>/dev/null | "$1" hook post-receive "--repo=$2" "--data=$3" ||
        printf 'kickwheel: the hook failed; this push was accepted, but may start nothing\n' >&2
    return 0
}
"#;

/// One word for a POSIX shell: within single quotes only the quote itself is special.
fn quoted(bytes: &[u8]) -> Vec<u8> {
    let mut word = vec![b'\''];
    for byte in bytes {
        match byte {
            b'\'' => word.extend_from_slice(br"'\''"),
            other => word.push(*other),
        }
    }
    word.push(b'\'');
    word
}
