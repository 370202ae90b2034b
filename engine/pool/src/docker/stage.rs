//! The store of inputs that one container sees: the blobs which its attempt needs and no others.
//!
//! A digest grants nothing, so the artifact store itself is never mounted. Blobs are linked rather than copied where that
//! is possible: the mount is read-only, and the container's user is not their owner.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use kickwheel_artifacts::{ArtifactError, Artifacts, store::location};
use kickwheel_schemas::{ArtifactRef, Digest, runner::JobSpec};

use crate::{PoolError, blocking};

/// Makes the store in `folder`. A blob that is missing or damaged is left out: the runner names it, and the attempt ends
/// with what it says.
pub async fn stage(artifacts: &Artifacts, spec: &JobSpec, folder: &Path) -> Result<(), PoolError> {
    let mut digests = Vec::new();
    for artifact in spec.source.iter().chain(spec.files.values()) {
        collect(artifacts, artifact, &mut digests).await?;
    }
    let (root, folder) = (artifacts.root().to_owned(), folder.to_owned());
    blocking(move || {
        fs::create_dir_all(&folder).map_err(PoolError::io(&folder))?;
        digests.iter().try_for_each(|digest| lend(&root, &folder, digest))
    })
    .await
}

async fn collect(artifacts: &Artifacts, artifact: &ArtifactRef, digests: &mut Vec<Digest>) -> Result<(), PoolError> {
    digests.push(artifact.digest.clone());
    if artifact.folder {
        match artifacts.manifest(&artifact.digest).await {
            Ok(manifest) => digests.extend(manifest.files.into_iter().map(|file| file.digest)),
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(
                ArtifactError::Missing(_)
                | ArtifactError::Corrupt { .. }
                | ArtifactError::TooLarge { .. }
                | ArtifactError::Path { .. }
                | ArtifactError::LinksLeave(_)
                | ArtifactError::Changed(_)
                | ArtifactError::Malformed { .. }
                | ArtifactError::Io { .. }
                | ArtifactError::Store(_),
            ) => {}
        }
    }
    Ok(())
}

fn lend(root: &Path, folder: &Path, digest: &Digest) -> Result<(), PoolError> {
    let place = location(digest);
    let place: &str = place.as_ref();
    let (source, target) = (root.join(place), folder.join(place));
    let mode = match fs::metadata(&source) {
        Ok(metadata) => metadata.permissions().mode(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(PoolError::io(source)(error)),
    };
    let parent = target.parent().expect("a blob lies in a folder");
    fs::create_dir_all(parent).map_err(PoolError::io(parent))?;
    // A store that only its owner reads is of no use to the container's user, and a link would share its mode.
    if mode & 0o004 != 0 {
        match fs::hard_link(&source, &target) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            // Another file system, or one without links, or no more of them: a copy does.
            Err(_) => {}
        }
    } else if target.exists() {
        return Ok(());
    }
    fs::copy(&source, &target)
        .and_then(|_| fs::set_permissions(&target, fs::Permissions::from_mode(0o444)))
        .map_err(PoolError::io(target))
}
