//! Reading and writing in folders that a job can write to.
//!
//! Whatever lies there may be a link to somebody else's file, a pipe that never answers, or grow while it is read. So no
//! link is followed on any component below the folder (`O_NOFOLLOW` step by step, which every kernel knows), only regular
//! files are read, never waiting, and only up to a limit.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, mkdirat, openat, renameat_with, unlinkat},
    io::Errno,
    path::Arg,
};

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::RDONLY);
const READ: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::RDONLY).union(OFlags::NONBLOCK);

/// Opens a regular file. Only the last component is the job's.
pub fn open_file(path: &Path) -> io::Result<File> {
    regular(openat(CWD, path, READ, Mode::empty())?.into())
}

/// Opens a regular file at `components` below `folder`, which is not the job's to replace; the components are.
pub fn open_below(folder: &Path, components: &[&str]) -> io::Result<File> {
    open_at(openat(CWD, folder, FOLDER, Mode::empty())?, components)
}

/// The same below a folder that is open.
pub fn open_at<P: Arg + Copy>(folder: impl AsFd, components: &[P]) -> io::Result<File> {
    let (last, folders) = components.split_last().ok_or(io::ErrorKind::InvalidInput)?;
    let folder = folder_at(folder, folders)?;
    regular(openat(&folder, *last, READ, Mode::empty())?.into())
}

/// Opens the folder at `components` below one that is open; that one again if there are none.
pub fn folder_at<P: Arg + Copy>(folder: impl AsFd, components: &[P]) -> io::Result<OwnedFd> {
    let mut open = openat(folder, ".", FOLDER, Mode::empty())?;
    for name in components {
        open = openat(&open, *name, FOLDER, Mode::empty())?;
    }
    Ok(open)
}

/// Makes the folder at `components` below one that is open, with those above it, as far as they are absent. A link on the
/// way is an error, wherever it leads: what is laid out next would land there.
pub fn make_folders<P: Arg + Copy>(folder: impl AsFd, components: &[P]) -> io::Result<()> {
    let mut open = openat(folder, ".", FOLDER, Mode::empty())?;
    for name in components {
        match mkdirat(&open, *name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        open = openat(&open, *name, FOLDER, Mode::empty())?;
    }
    Ok(())
}

/// Refuses a file that is not `owner`'s: a job may have linked to one that only we can read.
pub fn owned(file: File, owner: Option<u32>) -> io::Result<File> {
    match (owner, file.metadata()?.uid()) {
        (Some(owner), found) if owner != found => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("it belongs to user {found}, not to the job's"),
        )),
        (Some(_) | None, _) => Ok(file),
    }
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// The whole file, none if there is none. Longer files are an error, and so are another's where `owner` is said.
pub fn read(path: &Path, limit: u64, owner: Option<u32>) -> io::Result<Option<Vec<u8>>> {
    let file = match open_file(path) {
        Ok(file) => owned(file, owner)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    // One more than allowed shows that there is too much, however the file grows.
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it has more than {limit} bytes")));
    }
    Ok(Some(bytes))
}

/// Puts a file that everybody can read into `folder` under `name`, replacing what is there unless that is a folder.
/// Appears as a whole.
pub fn put(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let open = openat(CWD, folder, FOLDER, Mode::empty())?;
    let draft = format!(".{name}.{:016x}", rand::random::<u64>());
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    let written = openat(&open, &draft, flags, Mode::from_raw_mode(0o644)).map_err(io::Error::from).and_then(|file| {
        let mut file = File::from(file);
        file.write_all(bytes)?;
        Ok(renameat_with(&open, &draft, &open, name, RenameFlags::empty())?)
    });
    if written.is_err() {
        // It was not made, or is no use.
        let _ = unlinkat(&open, &draft, AtFlags::empty());
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_link_leads_out_and_nothing_is_waited_for() {
        let place = tempfile::tempdir().expect("temporary folders can be made");
        let (own, other) = (place.path().join("own"), place.path().join("other"));
        std::fs::create_dir_all(own.join("a/b")).expect("it can be made");
        std::fs::create_dir_all(other.join("b")).expect("it can be made");
        std::fs::write(own.join("a/b/file"), "own").expect("it can be written");
        std::fs::write(other.join("b/file"), "other").expect("it can be written");
        assert!(open_below(&own, &["a", "b", "file"]).is_ok());
        symlink(&other, own.join("link")).expect("links can be made");
        symlink(other.join("b/file"), own.join("file")).expect("links can be made");
        symlink("a/b/file", own.join("inside")).expect("links can be made");
        rustix::fs::mknodat(CWD, own.join("pipe"), rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o644), 0)
            .expect("pipes can be made");
        for path in [&["link", "b", "file"][..], &["file"], &["inside"], &["pipe"], &["a"], &["..", "other", "b"]] {
            assert!(open_below(&own, path).is_err(), "{path:?}");
        }
        assert!(read(&own.join("file"), 100, None).is_err());
        assert!(read(&own.join("absent"), 100, None).expect("it is absent").is_none());
        assert!(read(&own.join("a/b/file"), 2, None).is_err(), "it is too long");
        let itself = rustix::process::geteuid().as_raw();
        let whole = |owner| read(&own.join("a/b/file"), 100, Some(owner));
        assert_eq!(whole(itself).expect("it is ours"), Some(b"own".to_vec()));
        assert!(whole(itself + 1).is_err(), "it is another's");
        make_folders(File::open(&own).expect("it is there"), &["a", "c", "d"]).expect("nothing is in the way");
        assert!(own.join("a/c/d").is_dir());
        for path in [&["link", "new"][..], &["file", "new"], &["inside", "new"], &["link"], &["a", "b", "file"]] {
            assert!(make_folders(File::open(&own).expect("it is there"), path).is_err(), "{path:?}");
        }
        assert!(!other.join("new").exists());
        // A link under the name is replaced, not followed.
        put(&own, "file", b"new").expect("it can be written");
        assert_eq!(std::fs::read(other.join("b/file")).expect("it is there"), b"other");
        assert_eq!(read(&own.join("file"), 3, None).expect("it is a file"), Some(b"new".to_vec()));
        put(&own, "a", b"x").expect_err("a folder is there");
        assert_eq!(std::fs::read_dir(&own).expect("it is there").count(), 5, "no draft is left");
    }
}
