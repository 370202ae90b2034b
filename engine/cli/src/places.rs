//! Where things are on this machine: the data folder, the endpoint and token files in it, and making the token. (The
//! folder's key is the engine's business.)
//!
//! A secret is made once and never replaced: it is written under another name and then linked to its own, which fails if
//! somebody else was faster, so that two servers that start together use the same one.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use kickwheel_runtime::secrets::KeySource;
use zeroize::Zeroizing;

use crate::{
    args::Global,
    exit::{Exit, Failure},
};

/// Variable that holds the key of the secrets.
const SECRETS_KEY: &str = "KICKWHEEL_SECRETS_KEY";
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;

/// The data folder that the options name, or the user's own. Not made here.
pub fn data_folder(global: &Global) -> Result<PathBuf, Failure> {
    let given = global.data.clone().or_else(|| user_data(|name| std::env::var_os(name).map(PathBuf::from)));
    let Some(folder) = given else {
        return Err(Failure::usage("there is neither HOME nor XDG_DATA_HOME to find the data folder by")
            .help("name one with --data DIR"));
    };
    std::path::absolute(&folder).map_err(|e| unusable(&folder, &e))
}

fn user_data(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    variable("XDG_DATA_HOME")
        .filter(absolute)
        .or_else(|| variable("HOME").filter(absolute).map(|home| home.join(".local/share")))
        .map(|base| base.join("kickwheel"))
}

/// File with the URL of the server that runs on a data folder.
pub fn endpoint_file(data: &Path) -> PathBuf {
    data.join("endpoint")
}

/// File with the token of a data folder.
pub fn token_file(data: &Path) -> PathBuf {
    data.join("token")
}

/// Where jobs of another user see their files, unless it is said: beside the data folder, which is closed to them.
pub fn job_folder(data: &Path) -> PathBuf {
    let mut name = data.file_name().unwrap_or_else(|| "kickwheel".as_ref()).to_owned();
    name.push("-jobs");
    data.with_file_name(name)
}

/// Where the key of the secrets comes from. The environment gives the key itself, so it is no option: others can read a
/// command line.
pub fn secrets_key(file: Option<&Path>) -> KeySource {
    if let Some(path) = file {
        return KeySource::File(path.to_owned());
    }
    match std::env::var(SECRETS_KEY) {
        Ok(text) if !text.trim().is_empty() => KeySource::Given(Zeroizing::new(text)),
        Ok(_) | Err(_) => KeySource::Folder,
    }
}

/// Makes the folder if absent, for its owner only: it holds the token, sources and models.
pub fn make_private_folder(folder: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| unusable(folder, &e))
}

fn unusable(folder: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Refused, "data_folder", format!("cannot use the data folder {}: {error}", folder.display()))
        .help("choose another with --data DIR, or make this one writable")
}

/// Reads the secret, making it first if absent.
pub fn secret(path: &Path) -> Result<String, Failure> {
    let failed = |e: io::Error| {
        Failure::new(Exit::Refused, "secret", format!("cannot make or read the secret {}: {e}", path.display()))
            .help("the file must be readable by this user alone")
    };
    if !path.exists() {
        let folder = path.parent().expect("a secret lies in a folder");
        // A temporary file is made with mode 0600, and its contents are on the disk before it gets its name.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        let random: [u8; SECRET_BYTES] = rand::random();
        file.write_all(hex::encode(random).as_bytes()).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        match fs::hard_link(file.path(), path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e)),
            Ok(()) | Err(_) => {}
        }
    }
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "others could read this secret; it is now this user's alone");
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    }
    let text = fs::read_to_string(path).map_err(failed)?.trim().to_owned();
    if text.is_empty() {
        return Err(failed(io::Error::other("it is empty; remove it to have a new one made")));
    }
    Ok(text)
}

/// Writes a small file so that a reader sees the old or the new one, never half of it.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_data_folder_follows_xdg_and_ignores_relative_values() {
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/a"));
        assert_eq!(user_data(home), Some(PathBuf::from("/home/a/.local/share/kickwheel")));
        let xdg = |name: &str| Some(PathBuf::from(if name == "HOME" { "/home/a" } else { "/x" }));
        assert_eq!(user_data(xdg), Some(PathBuf::from("/x/kickwheel")));
        assert_eq!(user_data(|_| Some(PathBuf::from("relative"))), None);
    }

    #[test]
    fn a_secret_is_made_once_and_is_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = token_file(folder.path());
        let first = secret(&path).expect("made");
        assert_eq!(first.len(), 2 * SECRET_BYTES);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(secret(&path), Ok(first));
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1, "nothing else is left there");
    }

    #[test]
    fn a_secret_that_others_can_read_is_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = token_file(folder.path());
        fs::write(&path, "abc\n").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("set");
        assert_eq!(secret(&path).as_deref(), Ok("abc"));
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }
}
