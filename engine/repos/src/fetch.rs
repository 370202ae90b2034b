//! Bringing an origin's branches, tags and wanted commits into its mirror.
//!
//! Both are repositories on this machine, so their object stores are compared directly. An origin behind a network is
//! first brought into a staging repository, which then takes its place: see [`crate::remote`]. libgit2's own local
//! transport is not used: it cannot fetch a commit that no ref leads to (the one before a force push), fails on a single
//! broken ref, and sends every annotated tag's tree each time.
//!
//! **What keeps a mirror whole:** an object is written only after everything that it refers to, and refs last. So an
//! object that is present is complete, and a crash at any point leaves a mirror that the next fetch continues.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::{self, Write as _},
    path::Path,
};

use git2::{ErrorCode, ObjectType, Odb, OdbLookupFlags, Oid, Repository, RepositoryOpenFlags, Sort};

use crate::{
    access::Access,
    advert::{self, is_mirrored},
    failure::FetchError,
    mirrors::{Head, MirrorId, NamedRef, full_id, is_damage, open_or_create, trust_repositories_of_others},
    remote,
};

/// What a fetch brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The default branch: what the origin's `HEAD` names if that branch exists; else `main`, `master`, or the only
    /// branch there is. (A fresh bare repository's `HEAD` often names a branch that nobody ever pushes.)
    pub head: Option<Head>,
    /// Refs of the mirror that were created, moved or deleted by this fetch.
    pub moved: usize,
}

/// Up to this many new objects are copied one by one; more travel as a pack. Packs are never joined, and every lookup
/// asks each of them, so a usual push must not leave one behind.
const MAX_LOOSE_OBJECTS: usize = 1_000;

/// Deepest nesting of folders that is followed, as in git's own `core.maxTreeDepth`, halved.
pub(crate) const MAX_TREE_DEPTH: usize = 1_024;

/// Where wanted commits that no branch leads to are kept in the mirror.
const PINS: &str = "refs/kickwheel/pins/";

/// What went wrong, and where.
pub(crate) enum Side {
    Origin(git2::Error),
    Mirror(git2::Error),
    /// Known by its type already.
    Known(FetchError),
}

pub(crate) trait OnSide<T> {
    fn at_origin(self) -> Result<T, Side>;
    fn at_mirror(self) -> Result<T, Side>;
}

impl<T> OnSide<T> for Result<T, git2::Error> {
    fn at_origin(self) -> Result<T, Side> {
        self.map_err(Side::Origin)
    }
    fn at_mirror(self) -> Result<T, Side> {
        self.map_err(Side::Mirror)
    }
}

impl Side {
    /// For the mirror of `url`.
    pub(crate) fn into_error(self, url: &str) -> FetchError {
        let url = url.to_owned();
        match self {
            Self::Origin(error) => FetchError::Unreachable { url, reason: error.message().to_owned() },
            Self::Mirror(error) => FetchError::Mirror { url, reason: error.message().to_owned() },
            Self::Known(error) => error,
        }
    }
}

/// How many objects travel at once when they are many.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bulk {
    /// As a new pack of what is lacking.
    Build,
    /// As the packs that the other side has: it has nothing else, see [`crate::remote`].
    Adopt,
}

/// See [`crate::Mirrors::fetch`]. The caller holds the mirror's lock.
pub(crate) fn fetch(id: &MirrorId, access: &Access, wanted: &[String]) -> Result<Fetched, FetchError> {
    let once = || match id.origin().local_path() {
        Some(path) => synchronise(&open_origin(path, &id.url).map_err(Side::Known)?, id, wanted, Bulk::Build),
        None => remote::fetch(id, access, wanted),
    };
    let outcome = match once() {
        Err(Side::Mirror(error)) if is_damage(&error) => {
            tracing::warn!(mirror = ?id.path(), %error, "a mirror is damaged and is built anew");
            fs::remove_dir_all(id.path())
                .map_err(|error| FetchError::Mirror { url: id.url.clone(), reason: error.to_string() })?;
            once()
        }
        other => other,
    };
    match outcome {
        Ok((fetched, None)) => Ok(fetched),
        Ok((_, Some(commit))) => Err(FetchError::Gone { url: id.url.clone(), commit }),
        Err(side) => Err(side.into_error(&id.url)),
    }
}

/// Opens the repository itself, telling *not now* from *never*.
pub(crate) fn open_origin(path: &Path, url: &str) -> Result<Repository, FetchError> {
    trust_repositories_of_others();
    let unsupported = |reason: String| FetchError::Unsupported { url: url.to_owned(), reason };
    // Never a repository further up: a folder that lost its `.git` must not silently become its parent's.
    let opened = Repository::open_ext(path, RepositoryOpenFlags::NO_SEARCH, &[] as &[&str]);
    let repo = match opened {
        Ok(repo) => repo,
        // libgit2 has no error code for a format that it does not know, only these two messages.
        Err(error)
            if error.message().contains("unsupported extension")
                || error.message().contains("unknown object format") =>
        {
            return Err(unsupported(format!(
                "it uses a repository format that cannot be read ({}); SHA-1 repositories with the `files` ref storage can",
                error.message()
            )));
        }
        Err(error) => {
            return Err(FetchError::Unreachable { url: url.to_owned(), reason: error.message().to_owned() });
        }
    };
    if repo.is_shallow() {
        return Err(unsupported(
            "it is a shallow clone, so its history is incomplete; run `git fetch --unshallow` there".into(),
        ));
    }
    Ok(repo)
}

/// Brings the mirror up to date; the second part is the first wanted commit that the origin lacks.
pub(crate) fn synchronise(
    origin: &Repository,
    id: &MirrorId,
    wanted: &[String],
    bulk: Bulk,
) -> Result<(Fetched, Option<String>), Side> {
    let mirror = open_or_create(id.path()).at_mirror()?;
    // The refs are read before any object is copied: what is pushed meanwhile belongs to the next fetch.
    let refs = refs_of(origin).at_origin()?;
    let tips: Vec<Oid> = refs.values().copied().collect();
    copy(origin, &mirror, &tips, bulk)?;
    let mut gone = None;
    for commit in wanted {
        if !pin(origin, &mirror, commit, bulk)? && gone.is_none() {
            gone = Some(commit.clone());
        }
    }
    let moved = move_refs(&mirror, &refs).at_mirror()?;
    let named = origin_head(origin).at_origin()?;
    let default = advert::default_branch(named.as_deref(), refs.keys().map(Vec::as_slice));
    if let Some(default) = default {
        let target = format!("refs/heads/{default}");
        let same =
            mirror.find_reference("HEAD").is_ok_and(|head| head.symbolic_target().ok().flatten() == Some(&target));
        if !same {
            mirror.reference_symbolic("HEAD", &target, true, "kickwheel: the origin's default branch").at_mirror()?;
        }
    }
    let head = head(&mirror).at_mirror()?;
    Ok((Fetched { head, moved }, gone))
}

/// Branches and tags with what they point at. A ref whose object is missing is left out: one broken ref must not stop
/// the others.
fn refs_of(origin: &Repository) -> Result<BTreeMap<Vec<u8>, Oid>, git2::Error> {
    let odb = origin.odb()?;
    let mut found = BTreeMap::new();
    for reference in origin.references()? {
        let reference = reference?;
        let name = reference.name_bytes();
        if !is_mirrored(name) {
            continue;
        }
        match reference.resolve().ok().and_then(|direct| direct.target()) {
            Some(target) if odb.exists(target) => {
                found.insert(name.to_vec(), target);
            }
            Some(_) | None => {
                tracing::warn!(repository = ?origin.path(), name = %name.escape_ascii(), "ignoring a broken ref");
            }
        }
    }
    Ok(found)
}

/// The branch that the origin's `HEAD` names, whether or not it exists.
pub(crate) fn origin_head(origin: &Repository) -> Result<Option<String>, git2::Error> {
    match origin.find_reference("HEAD") {
        Ok(head) => Ok(head
            .symbolic_target_bytes()
            .and_then(|target| target.strip_prefix(b"refs/heads/"))
            .and_then(|name| std::str::from_utf8(name).ok().map(str::to_owned))),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes sure that `commit` is in the mirror; false if the origin does not have it either.
fn pin(origin: &Repository, mirror: &Repository, commit: &str, bulk: Bulk) -> Result<bool, Side> {
    let Some(oid) = full_id(commit) else {
        return Ok(false);
    };
    if mirror.odb().at_mirror()?.exists(oid) {
        return Ok(true);
    }
    if !origin.odb().at_origin()?.exists(oid) {
        return Ok(false);
    }
    copy(origin, mirror, &[oid], bulk)?;
    mirror.reference(&format!("{PINS}{oid}"), oid, true, "kickwheel: wanted").at_mirror()?;
    Ok(true)
}

/// Makes the mirror's branches and tags equal to `refs`; how many moved.
fn move_refs(mirror: &Repository, refs: &BTreeMap<Vec<u8>, Oid>) -> Result<usize, git2::Error> {
    let mut present = BTreeMap::new();
    let mut moved = 0;
    for reference in mirror.references()? {
        let mut reference = reference?;
        if !is_mirrored(reference.name_bytes()) {
            continue;
        }
        // Deletions come first: `a` must make room before `a/b` can exist.
        if refs.contains_key(reference.name_bytes()) {
            present.insert(reference.name_bytes().to_vec(), reference.target());
        } else {
            reference.delete()?;
            moved += 1;
        }
    }
    for (name, target) in refs {
        if present.get(name) == Some(&Some(*target)) {
            continue;
        }
        // libgit2's binding takes names as text. The objects of such a branch are here, which is what pushes need.
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        mirror.reference(name, *target, true, "kickwheel: fetch")?;
        moved += 1;
    }
    Ok(moved)
}

/// What is to be copied for a set of tips.
#[derive(Default)]
struct Wanted {
    /// Where the walk over history starts.
    commits: Vec<Oid>,
    /// Annotated tags, the inner before the outer, and the rare trees and blobs that tags name.
    others: Vec<(Oid, ObjectType)>,
}

/// Copies `tips` and everything they need that the mirror lacks.
pub(crate) fn copy(origin: &Repository, mirror: &Repository, tips: &[Oid], bulk: Bulk) -> Result<(), Side> {
    let kept = mirror.odb().at_mirror()?;
    let mut wanted = Wanted::default();
    for tip in tips {
        if !has(&kept, *tip) {
            resolve(origin, &kept, *tip, &mut wanted).at_origin()?;
        }
    }
    if wanted.commits.is_empty() && wanted.others.is_empty() {
        return Ok(());
    }
    let known = tips_of(mirror).at_mirror()?;
    match few_objects(origin, &kept, &wanted, &known).at_origin()? {
        Some(objects) => copy_loose(origin, &kept, &objects),
        None => match bulk {
            Bulk::Build => copy_pack(origin, &kept, &wanted, &known),
            Bulk::Adopt => adopt_packs(origin, mirror).at_mirror(),
        },
    }
}

/// Presence without rereading the list of packs for every miss: nobody else writes the mirror while it is locked.
fn has(odb: &Odb<'_>, id: Oid) -> bool {
    odb.exists_ext(id, OdbLookupFlags::NO_REFRESH)
}

/// Follows tags to what they name.
fn resolve(origin: &Repository, kept: &Odb<'_>, id: Oid, wanted: &mut Wanted) -> Result<(), git2::Error> {
    let mut tags = Vec::new();
    let mut id = id;
    loop {
        let object = origin.find_object(id, None)?;
        match object.as_tag() {
            Some(tag) => {
                tags.push((id, ObjectType::Tag));
                id = tag.target_id();
            }
            None => break,
        }
    }
    match origin.find_object(id, None)?.kind() {
        Some(ObjectType::Commit) if has(kept, id) => {}
        Some(ObjectType::Commit) => wanted.commits.push(id),
        kind => wanted.others.push((id, kind.unwrap_or(ObjectType::Blob))),
    }
    wanted.others.extend(tags.into_iter().rev());
    Ok(())
}

/// The commits that the mirror's refs lead to.
pub(crate) fn tips_of(mirror: &Repository) -> Result<Vec<Oid>, git2::Error> {
    let mut tips = Vec::new();
    for reference in mirror.references()? {
        if let Ok(commit) = reference?.peel_to_commit() {
            tips.push(commit.id());
        }
    }
    Ok(tips)
}

/// A walk over what leads from `known` to the wanted commits, parents first.
fn walk<'o>(origin: &'o Repository, wanted: &Wanted, known: &[Oid]) -> Result<git2::Revwalk<'o>, git2::Error> {
    let odb = origin.odb()?;
    let mut walk = origin.revwalk()?;
    walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE)?;
    for commit in &wanted.commits {
        walk.push(*commit)?;
    }
    for tip in known {
        // A tip that the origin lost in a force push hides nothing: at worst, more is copied.
        if odb.exists_ext(*tip, OdbLookupFlags::NO_REFRESH) {
            walk.hide(*tip)?;
        }
    }
    Ok(walk)
}

/// All objects that the mirror lacks, each after what it refers to; `None` when they are more than a few.
fn few_objects(
    origin: &Repository,
    kept: &Odb<'_>,
    wanted: &Wanted,
    known: &[Oid],
) -> Result<Option<Vec<Oid>>, git2::Error> {
    let mut found = Lacking { origin, kept, order: Vec::new(), seen: HashSet::new() };
    for commit in walk(origin, wanted, known)? {
        let commit = commit?;
        if !has(kept, commit) {
            found.tree(origin.find_commit(commit)?.tree_id(), 0)?;
            found.add(commit);
        }
        if found.too_many() {
            return Ok(None);
        }
    }
    for (id, kind) in &wanted.others {
        match kind {
            ObjectType::Tree => found.tree(*id, 0)?,
            ObjectType::Blob | ObjectType::Tag | ObjectType::Commit | ObjectType::Any => found.add(*id),
        }
    }
    Ok(if found.too_many() { None } else { Some(found.order) })
}

/// Collects the objects that the mirror lacks.
struct Lacking<'a> {
    origin: &'a Repository,
    kept: &'a Odb<'a>,
    order: Vec<Oid>,
    seen: HashSet<Oid>,
}

impl Lacking<'_> {
    fn too_many(&self) -> bool {
        self.order.len() > MAX_LOOSE_OBJECTS
    }

    fn add(&mut self, id: Oid) {
        if self.seen.insert(id) && !has(self.kept, id) {
            self.order.push(id);
        }
    }

    fn tree(&mut self, id: Oid, depth: usize) -> Result<(), git2::Error> {
        // A tree that is there is complete, see the header.
        if self.seen.contains(&id) || has(self.kept, id) || self.too_many() {
            return Ok(());
        }
        if depth > MAX_TREE_DEPTH {
            return Err(git2::Error::from_str("its folders are nested too deeply"));
        }
        for entry in &self.origin.find_tree(id)? {
            match entry.kind() {
                Some(ObjectType::Tree) => self.tree(entry.id(), depth + 1)?,
                Some(ObjectType::Blob) => self.add(entry.id()),
                // A submodule's commit lives in another repository.
                Some(ObjectType::Commit | ObjectType::Tag | ObjectType::Any) | None => {}
            }
        }
        self.add(id);
        Ok(())
    }
}

fn copy_loose(origin: &Repository, kept: &Odb<'_>, objects: &[Oid]) -> Result<(), Side> {
    let source = origin.odb().at_origin()?;
    for id in objects {
        let object = source.read(*id).at_origin()?;
        kept.write(object.kind(), object.data()).at_mirror()?;
    }
    Ok(())
}

fn copy_pack(origin: &Repository, kept: &Odb<'_>, wanted: &Wanted, known: &[Oid]) -> Result<(), Side> {
    let mut builder = origin.packbuilder().at_origin()?;
    // 0: as many as there are processors.
    builder.set_threads(0);
    builder.insert_walk(&mut walk(origin, wanted, known).at_origin()?).at_origin()?;
    for (id, kind) in &wanted.others {
        match kind {
            ObjectType::Tree => builder.insert_tree(*id).at_origin()?,
            ObjectType::Blob | ObjectType::Tag | ObjectType::Commit | ObjectType::Any => {
                builder.insert_object(*id, None).at_origin()?;
            }
        }
    }
    let mut writer = kept.packwriter().at_mirror()?;
    let mut write_error = None;
    let packed = builder.foreach(|chunk| match writer.write_all(chunk) {
        Ok(()) => true,
        Err(error) => {
            write_error = Some(error);
            false
        }
    });
    if let Some(error) = write_error {
        return Err(Side::Mirror(git2::Error::from_str(&error.to_string())));
    }
    packed.at_origin()?;
    writer.commit().at_mirror()?;
    Ok(())
}

/// Gives the mirror the other side's packs as they are. Links where the file system can: the other side keeps reading its
/// own. An index makes a pack visible, so it comes last.
fn adopt_packs(origin: &Repository, mirror: &Repository) -> Result<(), git2::Error> {
    let failed = |error: io::Error| git2::Error::from_str(&error.to_string());
    let (from, to) = (origin.path().join("objects/pack"), mirror.path().join("objects/pack"));
    fs::create_dir_all(&to).map_err(failed)?;
    for entry in fs::read_dir(&from).map_err(failed)? {
        let index = entry.map_err(failed)?.path();
        if index.extension().is_none_or(|extension| extension != "idx") {
            continue;
        }
        for file in [index.with_extension("pack"), index] {
            let Some(name) = file.file_name() else { continue };
            adopt(&file, &to.join(name)).map_err(failed)?;
        }
    }
    mirror.odb()?.refresh()
}

fn adopt(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        return Ok(());
    }
    if fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    // Under another name first: half a pack must not be taken for a whole one after a crash.
    let unfinished = to.with_extension("unfinished");
    fs::copy(from, &unfinished)?;
    fs::rename(&unfinished, to)
}

/// The mirror's default branch, if it exists.
pub(crate) fn head(mirror: &Repository) -> Result<Option<Head>, git2::Error> {
    let reference = match mirror.find_reference("HEAD").and_then(|head| head.resolve()) {
        Ok(reference) => reference,
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let branch = reference.shorthand()?.to_owned();
    Ok(Some(Head { branch, commit: reference.peel_to_commit()?.id().to_string() }))
}

/// Every branch and tag of the mirror, by name.
pub(crate) fn named_refs(mirror: &Repository) -> Result<Vec<NamedRef>, git2::Error> {
    let mut found = Vec::new();
    for reference in mirror.references()? {
        let reference = reference?;
        let (Ok(name), Some(target)) = (reference.name(), reference.target()) else {
            continue;
        };
        if is_mirrored(name.as_bytes()) {
            let commit = reference.peel_to_commit().ok().map(|commit| commit.id().to_string());
            found.push(NamedRef { name: name.to_owned(), target: target.to_string(), commit });
        }
    }
    found.sort();
    Ok(found)
}
