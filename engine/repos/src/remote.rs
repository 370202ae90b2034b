//! Origins behind a network: listing, fetching, and pushing notes.
//!
//! What is fetched goes into a *staging* repository first, inside the mirror's folder and deleted afterwards. It sees the
//! mirror's objects as its own (an alternate), so only what is new travels; and it is then read like an origin on this
//! machine by [`crate::fetch`], which copies object by object what is reachable and whole. So a server can neither put
//! half a history into a mirror nor leave a pack behind with every push.
//!
//! A commit that no branch leads to (the one before a force push) is asked for by its id, which some servers refuse; then
//! it counts as gone.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use git2::{
    AutotagOption, Direction, ErrorCode, FetchOptions, Oid, PushOptions, RemoteCallbacks, Repository,
    RepositoryInitOptions,
};

use crate::{
    access::Access,
    advert::{Advert, Heads, RemoteRef, default_branch, is_mirrored},
    failure::FetchError,
    fetch::{Bulk, Fetched, OnSide as _, Side, copy, named_refs, open_origin, origin_head, synchronise},
    mirrors::{MirrorId, full_id, is_damage, open_or_create},
    transport::{NOT_OURS, Registered, Session},
};

/// Inside a mirror's folder.
const STAGING: &str = "kickwheel-staging";
/// Where a ref that is pushed, or was fetched to be added to, is kept in the mirror.
const EXCHANGED: &str = "refs/kickwheel/exchanged";

/// See [`crate::Mirrors::ls_remote`].
pub(crate) fn ls_remote(id: &MirrorId, access: &Access) -> Result<Heads, FetchError> {
    if let Some(path) = id.origin().local_path() {
        let origin = open_origin(path, &id.url)?;
        return heads_here(&origin).map_err(|error| Side::Origin(error).into_error(&id.url));
    }
    Ok(Session::new(id.origin(), &id.url, access)?.list()?.heads())
}

/// The same answer for a repository on this machine.
fn heads_here(origin: &Repository) -> Result<Heads, git2::Error> {
    let refs: Vec<RemoteRef> = named_refs(origin)?
        .into_iter()
        .map(|reference| {
            let peeled = Oid::from_str(&reference.target)
                .and_then(|target| origin.find_tag(target))
                .and_then(|tag| tag.as_object().peel(git2::ObjectType::Any))
                .ok();
            RemoteRef { name: reference.name, target: reference.target, peeled: peeled.map(|p| p.id().to_string()) }
        })
        .collect();
    let named = origin_head(origin)?;
    Ok(Heads { default_branch: default_branch(named.as_deref(), refs.iter().map(|r| r.name.as_bytes())), refs })
}

/// One try of [`crate::fetch::fetch`] for an origin behind a network.
pub(crate) fn fetch(id: &MirrorId, access: &Access, wanted: &[String]) -> Result<(Fetched, Option<String>), Side> {
    let mirror = open_or_create(id.path()).at_mirror()?;
    let staging = Staging::new(&mirror, id)?;
    let advert = staging.download(id, access, &["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"])?;
    let odb = staging.repo.odb().at_mirror()?;
    for commit in wanted {
        let Some(oid) = full_id(commit) else { continue };
        if !odb.exists(oid) {
            staging.download_commit(id, access, oid)?;
        }
    }
    drop(odb);
    if staging.repo.is_shallow() {
        let reason = "its history is incomplete (a shallow clone); run `git fetch --unshallow` there".into();
        return Err(Side::Known(FetchError::Unsupported { url: id.url.clone(), reason }));
    }
    staging.write_refs(&advert, id)?;
    // Opened anew: the refs were written behind libgit2's back.
    let origin = Repository::open_bare(staging.repo.path()).at_mirror()?;
    synchronise(&origin, id, wanted, Bulk::Adopt).map_err(|side| match side {
        // What cannot be read here was fetched just now on top of the mirror: one of the two is not whole.
        Side::Origin(error) if is_damage(&error) => Side::Mirror(error),
        other => other,
    })
}

/// Brings one ref of the origin, which is neither branch nor tag, into the mirror; what it points at there.
pub(crate) fn fetch_ref(
    id: &MirrorId,
    access: &Access,
    mirror: &Repository,
    name: &str,
) -> Result<Option<Oid>, FetchError> {
    let fetched = || -> Result<Option<Oid>, Side> {
        let staging = Staging::new(mirror, id)?;
        let advert = staging.download(id, access, &[&format!("+{name}:{name}")])?;
        let Some(found) = advert.refs.get(name.as_bytes()) else { return Ok(None) };
        copy(&staging.repo, mirror, &[found.target], Bulk::Adopt)?;
        // A ref of its own: the next fetch then says what is here already.
        mirror.reference(EXCHANGED, found.target, true, "kickwheel: fetched").at_mirror()?;
        Ok(Some(found.target))
    };
    fetched().map_err(|side| side.into_error(&id.url))
}

/// What became of a push.
pub(crate) enum Pushed {
    Done,
    /// Somebody else moved the ref first.
    Overtaken,
    /// The server does not want it, in its own words.
    Refused(String),
}

/// Moves a ref of the origin to `target`, a commit of the mirror, if that is a step forward.
pub(crate) fn push(
    id: &MirrorId,
    access: &Access,
    mirror: &Repository,
    target: Oid,
    name: &str,
) -> Result<Pushed, FetchError> {
    let ours = |error: git2::Error| Side::Mirror(error).into_error(&id.url);
    mirror.reference(EXCHANGED, target, true, "kickwheel: to be pushed").map_err(ours)?;
    let registered = Registered::new(Session::new(id.origin(), &id.url, access)?);
    let mut remote = mirror.remote_anonymous(&registered.url()).map_err(ours)?;
    let answer = Arc::new(Mutex::new(None));
    let mut callbacks = RemoteCallbacks::new();
    let heard = Arc::clone(&answer);
    callbacks.push_update_reference(move |_, status| {
        *heard.lock().expect("no holder of this lock panics") = status.map(str::to_owned);
        Ok(())
    });
    let mut options = PushOptions::new();
    options.remote_callbacks(callbacks);
    let pushed = remote.push(&[format!("{EXCHANGED}:{name}")], Some(&mut options));
    if let Some(failure) = registered.session.take_failure() {
        return Err(failure);
    }
    let refused = answer.lock().expect("no holder of this lock panics").take();
    match (pushed, refused) {
        (Ok(()), None) => Ok(Pushed::Done),
        (Ok(()), Some(reason)) if says_overtaken(&reason) => Ok(Pushed::Overtaken),
        (Ok(()), Some(reason)) => Ok(Pushed::Refused(reason)),
        (Err(error), _) if error.code() == ErrorCode::NotFastForward => Ok(Pushed::Overtaken),
        (Err(error), _) => Err(FetchError::Unreachable { url: id.url.clone(), reason: error.message().to_owned() }),
    }
}

/// Git's words for a ref that is not where the pusher saw it, or that is being moved by somebody else at the moment.
fn says_overtaken(reason: &str) -> bool {
    ["failed to update ref", "failed to lock", "fetch first", "non-fast-forward", "cannot lock ref"]
        .iter()
        .any(|words| reason.contains(words))
}

/// An empty repository that sees the mirror's objects. Deleted when it is dropped.
struct Staging {
    repo: Repository,
    path: PathBuf,
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What is left is deleted before the next one is made.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Staging {
    fn new(mirror: &Repository, id: &MirrorId) -> Result<Self, Side> {
        let ours =
            |error: io::Error| Side::Known(FetchError::Mirror { url: id.url.clone(), reason: error.to_string() });
        let path = mirror.path().join(STAGING);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(ours(error)),
            Ok(()) | Err(_) => {}
        }
        let mut options = RepositoryInitOptions::new();
        options.bare(true).mkpath(true).external_template(false);
        Repository::init_opts(&path, &options).at_mirror()?;
        // From where the staging repository's objects are; so no byte of the data folder's path matters.
        fs::create_dir_all(path.join("objects/info")).map_err(ours)?;
        fs::write(path.join("objects/info/alternates"), "../../objects\n").map_err(ours)?;
        let mut known = String::new();
        for (index, tip) in crate::fetch::tips_of(mirror).at_mirror()?.iter().enumerate() {
            writeln!(known, "{tip} refs/kickwheel/known/{index}").expect("a string takes everything");
        }
        fs::write(path.join("packed-refs"), known).map_err(ours)?;
        let repo = Repository::open_bare(&path).at_mirror()?;
        Ok(Self { repo, path })
    }

    /// Fetches what `specs` match; what the server listed.
    fn download(&self, id: &MirrorId, access: &Access, specs: &[&str]) -> Result<Advert, Side> {
        let session = Session::new(id.origin(), &id.url, access).map_err(Side::Known)?;
        let registered = Registered::new(session);
        match self.run(&registered, specs) {
            Ok(()) => Ok(registered.session.take_advert()),
            Err(error) => Err(match registered.session.take_failure() {
                Some(failure) => Side::Known(failure),
                None if error.message().contains(NOT_OURS) => {
                    Side::Known(FetchError::Changed { url: id.url.clone(), reason: error.message().to_owned() })
                }
                None if is_damage(&error) => Side::Mirror(error),
                None => Side::Origin(error),
            }),
        }
    }

    /// Fetches one commit that nothing on the server leads to, if the server hands it out.
    fn download_commit(&self, id: &MirrorId, access: &Access, commit: Oid) -> Result<(), Side> {
        match self.download(id, access, &[&commit.to_string()]) {
            Ok(_) | Err(Side::Known(FetchError::Changed { .. })) => Ok(()),
            // libgit2's own words when the server did not offer it; there is no code.
            Err(Side::Origin(error)) if error.message().contains("cannot fetch a specific object") => Ok(()),
            Err(other) => Err(other),
        }
    }

    fn run(&self, registered: &Registered, specs: &[&str]) -> Result<(), git2::Error> {
        let mut remote = self.repo.remote_anonymous(&registered.url())?;
        let mut options = FetchOptions::new();
        options.download_tags(AutotagOption::None).update_fetchhead(false);
        let mut connection = remote.connect_auth(Direction::Fetch, None, None)?;
        connection.remote().download(specs, Some(&mut options))
    }

    /// Gives the staging repository the branches, tags and head that the server listed.
    fn write_refs(&self, advert: &Advert, id: &MirrorId) -> Result<(), Side> {
        let ours =
            |error: io::Error| Side::Known(FetchError::Mirror { url: id.url.clone(), reason: error.to_string() });
        let mut refs = Vec::new();
        for (name, advertised) in advert.refs.iter().filter(|(name, _)| is_mirrored(name)) {
            refs.extend_from_slice(format!("{} ", advertised.target).as_bytes());
            refs.extend_from_slice(name);
            refs.push(b'\n');
        }
        fs::write(self.path.join("packed-refs"), refs).map_err(ours)?;
        if let Some(head) = &advert.head {
            write_head(&self.path, head).map_err(ours)?;
        }
        Ok(())
    }
}

fn write_head(folder: &Path, branch: &str) -> io::Result<()> {
    fs::write(folder.join("HEAD"), format!("ref: refs/heads/{branch}\n"))
}
