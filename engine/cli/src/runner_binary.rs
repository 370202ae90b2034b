//! Where the runner is: inside this binary, named by `KICKWHEEL_RUNNER`, or beside this binary.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use kickwheel_schemas::Digest;

use crate::exit::{Exit, Failure};

/// The runner, when the build took it in.
const EMBEDDED: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
/// Name of the program.
const NAME: &str = "kickwheel-runner";
/// Hex digits of its digest in the extracted file's name: enough that another version never has the same name.
const DIGEST_PREFIX: usize = 16;

/// The runner to use. An embedded one is laid into `data`, once per version.
pub fn find(data: &Path) -> Result<PathBuf, Failure> {
    if let Some(bytes) = EMBEDDED {
        return extract(bytes, &data.join("bin")).map_err(|e| {
            Failure::new(Exit::Refused, "runner", format!("cannot lay the runner into {}/bin: {e}", data.display()))
        });
    }
    if let Some(named) = std::env::var_os("KICKWHEEL_RUNNER").filter(|v| !v.is_empty()) {
        return executable(PathBuf::from(&named)).ok_or_else(|| {
            Failure::new(Exit::Refused, "runner", format!("KICKWHEEL_RUNNER={} is no executable file", named.display()))
        });
    }
    let own = std::env::current_exe()
        .map_err(|e| Failure::new(Exit::Refused, "runner", format!("cannot tell where this program is: {e}")))?;
    // Tests run in `target/debug/deps`, one folder below the binaries.
    let beside = own.ancestors().skip(1).take(2).find_map(|folder| executable(folder.join(NAME)));
    beside.ok_or_else(|| {
        Failure::new(Exit::Refused, "runner", format!("there is no {NAME} beside {}", own.display()))
            .help(format!("build it (`cargo build -p {NAME}`), or name it with KICKWHEEL_RUNNER"))
    })
}

fn executable(path: PathBuf) -> Option<PathBuf> {
    let meta = fs::metadata(&path).ok()?;
    (meta.is_file() && meta.permissions().mode() & 0o111 != 0).then(|| std::path::absolute(path).ok())?
}

/// Jobs of an earlier version may still run from their own file: each version keeps its name.
fn extract(bytes: &[u8], folder: &Path) -> io::Result<PathBuf> {
    let digest = Digest::of(bytes);
    let path = folder.join(format!("{NAME}-{}", &digest.hex()[..DIGEST_PREFIX]));
    if fs::read(&path).is_ok_and(|there| Digest::of(&there) == digest) {
        return Ok(path);
    }
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    io::Write::write_all(&mut file, bytes)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o755))?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extraction_is_executable_repeatable_and_repairs_a_broken_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = extract(b"one", folder.path()).expect("laid");
        assert_eq!(executable(path.clone()), Some(path.clone()));
        assert_eq!(extract(b"one", folder.path()).expect("again"), path);
        fs::write(&path, "half").expect("broken");
        extract(b"one", folder.path()).expect("repaired");
        assert_eq!(fs::read(&path).expect("there"), b"one");
        assert_ne!(extract(b"two", folder.path()).expect("another"), path);
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 2);
    }
}
