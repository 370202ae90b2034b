//! Results written back as Git notes, below `refs/notes/kickwheel` of the origin.
//!
//! Several runs and events may concern one commit, so a note has one section per [`Subject`], each opened by a line
//! `run: <id>` or `event: <id>`. A section is replaced in place, all others are kept byte for byte, and so is text that a
//! person put above the first one.
//!
//! Two writers, in one process or in several, never lose each other's section. On this machine the ref's own lock file,
//! the one that `git` itself takes, is held from reading the old note to moving the ref. Elsewhere the new note is pushed
//! on top of the old one, which the server refuses when somebody was faster, and then it is made anew on top of that one.
//! Nothing else of the origin is touched.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use git2::{ErrorCode, FileMode, ObjectType, Oid, Repository, Signature, Tree};

use crate::{
    access::Access,
    failure::FetchError,
    fetch::{fetch, open_origin},
    mirrors::{MirrorId, full_id, open_or_create},
    remote::{self, Pushed},
};

/// Where notes are kept. `git notes --ref=kickwheel show <commit>` and `git log --notes=kickwheel` read them.
pub const NOTES_REF: &str = "refs/notes/kickwheel";
/// Longest text of one section, in bytes.
pub const MAX_SECTION_BYTES: usize = 64 * 1024;
/// Longest note; the oldest sections make room, and a line says so.
pub const MAX_NOTE_BYTES: usize = 1024 * 1024;

/// How long a writer waits for others.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// For how long a note is pushed again when another writer was faster.
const PUSH_PATIENCE: Duration = Duration::from_secs(30);
const LOCK_POLL: Duration = Duration::from_millis(20);
/// A lock file this old is a leftover of a crash: no writer holds this ref's lock for longer than milliseconds.
const LOCK_ABANDONED: Duration = Duration::from_mins(1);
/// From this many entries on, a notes tree gets subfolders by the first two digits, so that a write stays small.
const FANOUT_FROM: usize = 256;
/// What a section's first line begins with: one per member of [`Subject`].
const SECTION_HEADERS: [&[u8]; 2] = [b"run: ", b"event: "];
const OMITTED: &[u8] = b"(sections of older runs are left out)";

/// What a section of a note is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A run, by its id.
    Run(String),
    /// An event, by its key: what it meant, where no run came of it.
    Event(String),
}

impl Subject {
    fn id(&self) -> &str {
        match self {
            Self::Run(id) | Self::Event(id) => id,
        }
    }

    /// The first line of its section.
    fn header(&self) -> String {
        let id = self.id().trim_end();
        match self {
            Self::Run(_) => format!("run: {id}"),
            Self::Event(_) => format!("event: {id}"),
        }
    }
}

/// Why a note was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// What [`FetchError::retry`] says.
    #[error(transparent)]
    Origin(#[from] FetchError),
    /// Stop.
    #[error("write a note on commit {commit}: {url:?} does not have it; it may have been force-pushed away")]
    NoCommit {
        /// As it was asked for.
        commit: String,
        /// As configured.
        url: String,
    },
    /// Stop: give a shorter text.
    #[error("write a note of {0} bytes: a section may have {MAX_SECTION_BYTES}")]
    TooLong(usize),
    /// Stop: keys are one line.
    #[error("write a note for the key {0:?}: a key is one non-empty line")]
    BadKey(String),
    /// Retry later.
    #[error("write the note on commit {commit} in {url:?}: {reason}")]
    Write {
        /// As it was asked for.
        commit: String,
        /// As configured.
        url: String,
        /// What libgit2 said, or that others held the lock for too long.
        reason: String,
    },
}

pub(crate) fn add_note(
    id: &MirrorId,
    access: &Access,
    commit: &str,
    about: &Subject,
    text: &str,
) -> Result<(), NoteError> {
    let key = about.id();
    if text.len() > MAX_SECTION_BYTES {
        return Err(NoteError::TooLong(text.len()));
    }
    if key.trim().is_empty() || key.contains(['\n', '\r']) {
        return Err(NoteError::BadKey(key.into()));
    }
    match id.origin().local_path() {
        Some(path) => add_here(&open_origin(path, &id.url)?, id, commit, about, text),
        None => add_there(id, access, commit, about, text),
    }
}

fn unwritten(id: &MirrorId, commit: &str, reason: &str) -> NoteError {
    NoteError::Write { commit: commit.to_owned(), url: id.url.clone(), reason: reason.to_owned() }
}

fn add_here(origin: &Repository, id: &MirrorId, commit: &str, about: &Subject, text: &str) -> Result<(), NoteError> {
    let on = annotated(origin, id, commit)?;
    let failed = |reason: &str| unwritten(id, commit, reason);
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match write_locked(origin, on, about, text) {
            Ok(()) => return Ok(()),
            Err(error) if error.code() == ErrorCode::Locked => {}
            Err(error) => return Err(failed(error.message())),
        }
        if Instant::now() > deadline {
            return Err(failed("another writer holds the lock of refs/notes/kickwheel"));
        }
        break_abandoned_lock(&origin.commondir().join(format!("{NOTES_REF}.lock")));
        thread::sleep(LOCK_POLL);
    }
}

/// The mirror's lock is held. It is the mirror that the note is made in, where nothing but the notes' own ref moves.
fn add_there(id: &MirrorId, access: &Access, commit: &str, about: &Subject, text: &str) -> Result<(), NoteError> {
    let failed = |error: git2::Error| unwritten(id, commit, error.message());
    let on = annotated_there(id, access, commit)?;
    let deadline = Instant::now() + PUSH_PATIENCE;
    loop {
        let mirror = open_or_create(id.path()).map_err(failed)?;
        let old = remote::fetch_ref(id, access, &mirror, NOTES_REF)?;
        let Some(new) = compose(&mirror, old, on, about, text).map_err(failed)? else { return Ok(()) };
        match remote::push(id, access, &mirror, new, NOTES_REF)? {
            Pushed::Done => return Ok(()),
            Pushed::Overtaken if Instant::now() < deadline => {}
            Pushed::Overtaken => return Err(unwritten(id, commit, "other writers were always faster")),
            Pushed::Refused(reason) => {
                let advice = "let these credentials write refs/notes/kickwheel there";
                return Err(unwritten(id, commit, &format!("the server refuses it ({reason}); {advice}")));
            }
        }
    }
}

pub(crate) fn read_note(id: &MirrorId, access: &Access, commit: &str) -> Result<Option<String>, NoteError> {
    let unreadable =
        |error: git2::Error| FetchError::Unreachable { url: id.url.clone(), reason: error.message().to_owned() };
    let (repo, on, notes) = match id.origin().local_path() {
        Some(path) => {
            let origin = open_origin(path, &id.url)?;
            let on = annotated(&origin, id, commit)?;
            let notes = notes_commit(&origin).map_err(unreadable)?;
            (origin, on, notes)
        }
        None => {
            let on = annotated_there(id, access, commit)?;
            let mirror = open_or_create(id.path()).map_err(unreadable)?;
            let notes = remote::fetch_ref(id, access, &mirror, NOTES_REF)?;
            (mirror, on, notes)
        }
    };
    let read = || -> Result<Option<Vec<u8>>, git2::Error> {
        match notes {
            Some(notes) => note_of(&repo, &repo.find_commit(notes)?.tree()?, &on.to_string()),
            None => Ok(None),
        }
    };
    Ok(read().map_err(unreadable)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The commit, from the mirror, which is fetched if it lacks it.
fn annotated_there(id: &MirrorId, access: &Access, commit: &str) -> Result<Oid, NoteError> {
    let here = || open_or_create(id.path()).ok().and_then(|mirror| annotated(&mirror, id, commit).ok());
    if let Some(on) = here() {
        return Ok(on);
    }
    match fetch(id, access, &[commit.to_owned()]) {
        Ok(_) | Err(FetchError::Gone { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    here().ok_or_else(|| NoteError::NoCommit { commit: commit.to_owned(), url: id.url.clone() })
}

fn annotated(origin: &Repository, id: &MirrorId, commit: &str) -> Result<Oid, NoteError> {
    full_id(commit)
        .filter(|oid| origin.find_commit(*oid).is_ok())
        .ok_or_else(|| NoteError::NoCommit { commit: commit.to_owned(), url: id.url.clone() })
}

/// One attempt: lock, read, merge, write, move the ref. Everything is undone if it ends early.
fn write_locked(origin: &Repository, on: Oid, about: &Subject, text: &str) -> Result<(), git2::Error> {
    let mut transaction = origin.transaction()?;
    transaction.lock_ref(NOTES_REF)?;
    let Some(new) = compose(origin, notes_commit(origin)?, on, about, text)? else { return Ok(()) };
    transaction.set_target(NOTES_REF, new, Some(&author()?), &message(about))?;
    transaction.commit()
}

/// A commit of notes on top of `old`, in which the note on `on` has the section; `None` if it has it already. No ref
/// moves.
fn compose(
    repo: &Repository,
    old: Option<Oid>,
    on: Oid,
    about: &Subject,
    text: &str,
) -> Result<Option<Oid>, git2::Error> {
    let parent = old.map(|old| repo.find_commit(old)).transpose()?;
    let old_tree = parent.as_ref().map(|parent| parent.tree()).transpose()?;
    let existing = match &old_tree {
        Some(tree) => note_of(repo, tree, &on.to_string())?.unwrap_or_default(),
        None => Vec::new(),
    };
    let merged = merge(&existing, about, text);
    if merged == existing {
        return Ok(None);
    }
    let blob = repo.blob(&merged)?;
    let tree = put(repo, old_tree.as_ref(), &on.to_string(), blob)?;
    let (who, parents) = (author()?, parent.iter().collect::<Vec<_>>());
    repo.commit(None, &who, &who, &format!("{}\n", message(about)), &repo.find_tree(tree)?, &parents).map(Some)
}

fn author() -> Result<Signature<'static>, git2::Error> {
    Signature::now("Kickwheel", "kickwheel@localhost")
}

fn message(about: &Subject) -> String {
    match about {
        Subject::Run(id) => format!("Notes of run {id}"),
        Subject::Event(id) => format!("Notes of event {id}"),
    }
}

fn notes_commit(origin: &Repository) -> Result<Option<Oid>, git2::Error> {
    match origin.find_reference(NOTES_REF) {
        Ok(reference) => Ok(Some(reference.peel_to_commit()?.id())),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The note under `rest` (hex digits not yet spent on subfolders), at whatever depth `git` or we have put it.
fn note_of(origin: &Repository, tree: &Tree<'_>, rest: &str) -> Result<Option<Vec<u8>>, git2::Error> {
    if let Some(entry) = tree.get_name(rest).filter(|entry| entry.kind() == Some(ObjectType::Blob)) {
        return origin.find_blob(entry.id()).map(|blob| Some(blob.content().to_vec()));
    }
    match subfolder(tree, rest) {
        Some((id, deeper)) => note_of(origin, &origin.find_tree(id)?, deeper),
        None => Ok(None),
    }
}

fn subfolder<'t>(tree: &Tree<'_>, rest: &'t str) -> Option<(Oid, &'t str)> {
    let (first, deeper) = rest.split_at_checked(2)?;
    let entry = tree.get_name(first)?;
    (entry.kind() == Some(ObjectType::Tree) && !deeper.is_empty()).then(|| (entry.id(), deeper))
}

/// A copy of `tree` with the note `rest` set to `blob`, everything else unchanged.
fn put(origin: &Repository, tree: Option<&Tree<'_>>, rest: &str, blob: Oid) -> Result<Oid, git2::Error> {
    let mut builder = origin.treebuilder(tree)?;
    let here = tree.is_some_and(|tree| tree.get_name(rest).is_some());
    let below = tree.and_then(|tree| subfolder(tree, rest));
    let crowded = builder.len() >= FANOUT_FROM && rest.len() > 2;
    if here || (below.is_none() && !crowded) {
        builder.insert(rest, blob, FileMode::Blob.into())?;
        return builder.write();
    }
    let below = match below {
        Some((id, _)) => Some(origin.find_tree(id)?),
        None => None,
    };
    let (first, deeper) = rest.split_at(2);
    let changed = put(origin, below.as_ref(), deeper, blob)?;
    builder.insert(first, changed, FileMode::Tree.into())?;
    builder.write()
}

fn break_abandoned_lock(lock: &Path) {
    let age = fs::metadata(lock)
        .and_then(|meta| meta.modified())
        .map(|modified| SystemTime::now().duration_since(modified).unwrap_or_default());
    if age.is_ok_and(|age| age > LOCK_ABANDONED) {
        tracing::warn!(?lock, "removing a lock file that a crashed writer of notes left");
        // If another writer was faster, the next attempt sees it.
        let _ = fs::remove_file(lock);
    }
}

/// `existing` with the section about `about` set to `text`.
fn merge(existing: &[u8], about: &Subject, text: &str) -> Vec<u8> {
    let (mut preamble, mut sections) = parse(existing);
    let section = (about.header().into_bytes(), render(about, text));
    let written = match sections.iter().position(|(name, _)| *name == section.0) {
        Some(index) => {
            sections[index] = section;
            index
        }
        None => {
            sections.push(section);
            sections.len() - 1
        }
    };
    // Oldest first, never the one that was just written.
    let mut excess = join(&preamble, &sections).len().saturating_sub(MAX_NOTE_BYTES);
    let mut index = 0;
    sections.retain(|(_, section)| {
        let drop = excess > 0 && index != written;
        index += 1;
        if drop {
            excess = excess.saturating_sub(section.len());
        }
        !drop
    });
    if index > sections.len() && !preamble.ends_with(OMITTED) {
        if !preamble.is_empty() {
            preamble.extend_from_slice(b"\n\n");
        }
        preamble.extend_from_slice(OMITTED);
    }
    join(&preamble, &sections)
}

type Section = (Vec<u8>, Vec<u8>);

/// What stands before the first section, and the sections as (first line, whole text), all without trailing blank lines.
fn parse(note: &[u8]) -> (Vec<u8>, Vec<Section>) {
    let mut preamble = Vec::new();
    let mut sections: Vec<Section> = Vec::new();
    for line in note.split_inclusive(|byte| *byte == b'\n') {
        if is_header(line) {
            sections.push((line.trim_ascii_end().to_vec(), line.to_vec()));
        } else if let Some((_, section)) = sections.last_mut() {
            section.extend_from_slice(line);
        } else {
            preamble.extend_from_slice(line);
        }
    }
    let trimmed = |bytes: &[u8]| bytes.trim_ascii_end().to_vec();
    let sections = sections.into_iter().map(|(key, section)| (key, trimmed(&section))).collect();
    (trimmed(&preamble), sections)
}

fn is_header(line: &[u8]) -> bool {
    SECTION_HEADERS.iter().any(|header| line.starts_with(header))
}

fn render(about: &Subject, text: &str) -> Vec<u8> {
    let mut section = about.header().into_bytes();
    for line in text.trim_end().lines() {
        section.push(b'\n');
        // A line that looks like a header would be read back as one.
        if is_header(line.as_bytes()) {
            section.push(b' ');
        }
        section.extend_from_slice(line.as_bytes());
    }
    section
}

fn join(preamble: &[u8], sections: &[Section]) -> Vec<u8> {
    let parts: Vec<&[u8]> =
        std::iter::once(preamble).filter(|p| !p.is_empty()).chain(sections.iter().map(|(_, s)| s.as_slice())).collect();
    let mut note = parts.join(b"\n\n".as_slice());
    note.push(b'\n');
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(existing: &str, key: &str, text: &str, expected: &str) {
        let merged = merge(existing.as_bytes(), &run(key), text);
        assert_eq!(String::from_utf8_lossy(&merged), expected);
    }

    fn run(id: &str) -> Subject {
        Subject::Run(id.to_owned())
    }

    #[test]
    fn an_event_is_no_run_even_with_the_same_id() {
        let event = Subject::Event("a".to_owned());
        let note = merge(b"run: a\none\n", &event, "broken");
        assert_eq!(String::from_utf8_lossy(&note), "run: a\none\n\nevent: a\nbroken\n");
        let note = merge(&note, &event, "still\nevent: b");
        assert_eq!(String::from_utf8_lossy(&note), "run: a\none\n\nevent: a\nstill\n event: b\n");
        check(&String::from_utf8_lossy(&note), "a", "two", "run: a\ntwo\n\nevent: a\nstill\n event: b\n");
    }

    #[test]
    fn each_run_has_one_section() {
        check("", "a", "one\ntwo\n", "run: a\none\ntwo\n");
        check("run: a\none\n", "b", "x", "run: a\none\n\nrun: b\nx\n");
        check("run: a\none\n\nrun: b\nx\n", "a", "new", "run: a\nnew\n\nrun: b\nx\n");
    }

    #[test]
    fn a_persons_text_is_kept() {
        check("mind this\n\n", "a", "one", "mind this\n\nrun: a\none\n");
        check("mind this\n\nrun: a\none\n", "a", "two", "mind this\n\nrun: a\ntwo\n");
    }

    #[test]
    fn a_line_that_looks_like_a_header_opens_no_section() {
        let once = merge(b"", &run("a"), "run: b\nx");
        check(&String::from_utf8_lossy(&once), "b", "y", "run: a\n run: b\nx\n\nrun: b\ny\n");
    }

    #[test]
    fn the_oldest_sections_make_room() {
        let text = "x".repeat(MAX_SECTION_BYTES);
        let mut note = b"kept\n".to_vec();
        for number in 0..40 {
            note = merge(&note, &run(&format!("r{number}")), &text);
            assert!(note.len() <= MAX_NOTE_BYTES + OMITTED.len() + 2);
        }
        let (preamble, sections) = parse(&note);
        assert_eq!(preamble, [b"kept\n\n", OMITTED].concat());
        assert_eq!(sections.last().expect("some fit").0, b"run: r39");
        assert!(sections.len() >= 15);
    }
}
