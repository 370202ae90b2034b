//! Laying out what a job sees before it starts.
//!
//! The working folder holds the pinned source tree and the declared `files`, as files without write permission in folders
//! that may be written to: relative paths in a script work as they do in the repository, outputs can be written anywhere,
//! and a program that tries to change its source is told so (except root, whom permission bits do not hold). They are
//! copies: nothing that a job does to them reaches the store. Folders of declared outputs are made, so that a script need
//! not begin with `mkdir`.
//!
//! A symbolic link of the source tree never decides where an input lands: nothing is laid through a link.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use kickwheel_artifacts::{Access, ArtifactError, Artifacts, folder::make_folders, path::check};
use kickwheel_schemas::runner::{JobSpec, JobUser, Program, file};

use crate::user;

/// Where things lie in the folder that the job sees: the attempt's own, or another user's.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The folder itself.
    pub folder: PathBuf,
    /// Working folder of the job.
    pub work: PathBuf,
    /// `$TMPDIR`.
    pub temporary: PathBuf,
    /// `$KICKWHEEL_OUTPUT`.
    pub output: PathBuf,
    /// `$KICKWHEEL_METRICS`.
    pub metrics: PathBuf,
    /// The text of a [`Program::Script`].
    pub script: PathBuf,
}

impl Layout {
    /// In `folder`.
    pub fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            work: folder.join(file::WORK),
            temporary: folder.join("tmp"),
            output: folder.join("output.jsonl"),
            metrics: folder.join("metrics.jsonl"),
            script: folder.join("script"),
        }
    }
}

/// The path of a declared output as it is used: without a leading `./` and trailing slashes, which people write.
pub fn output_path(declared: &str) -> Result<&str, ArtifactError> {
    let path = declared.strip_prefix("./").unwrap_or(declared).trim_end_matches('/');
    check(path)?;
    Ok(path)
}

/// Makes everything, and hands it over to `user`. A failure is the platform's, with the reason for people.
pub async fn lay_out(
    layout: &Layout,
    spec: &JobSpec,
    artifacts: &Artifacts,
    user: Option<&JobUser>,
) -> Result<(), String> {
    let make = |folder: &Path| {
        fs::create_dir_all(folder).map_err(|error| format!("make the folder {}: {error}", folder.display()))
    };
    if user.is_some() {
        user::make_folder(&layout.folder)?;
    }
    make(&layout.work)?;
    make(&layout.temporary)?;
    // The files for values and metrics come into being when the job appends to them.
    if let Program::Script { script } = &spec.program {
        let path = &layout.script;
        fs::write(path, script).map_err(|error| format!("write {}: {error}", path.display()))?;
    }
    if let Some(source) = &spec.source {
        artifacts
            .fetch(source, &layout.work, Access::ReadOnly)
            .await
            .map_err(|error| format!("lay out the source tree: {error}"))?;
    }
    let work = File::open(&layout.work).map_err(|error| format!("open {}: {error}", layout.work.display()))?;
    for (path, artifact) in &spec.files {
        let lay = async {
            check(path)?;
            let folder =
                if artifact.folder { Some(path.as_str()) } else { path.rsplit_once('/').map(|(above, _)| above) };
            if let Some(folder) = folder {
                make_folders(&work, folder.as_bytes())?;
            }
            artifacts.fetch(artifact, &layout.work.join(path), Access::ReadOnly).await
        };
        lay.await.map_err(|error| format!("lay out the input {path:?}: {error}"))?;
    }
    for declared in spec.output_paths.values() {
        // A path that cannot be used is reported when the output is looked for.
        if let Ok(path) = output_path(declared)
            && let Some(folder) = layout.work.join(path).parent()
        {
            make(folder)?;
        }
    }
    match user {
        Some(user) => user::hand_over(&layout.folder, user),
        None => Ok(()),
    }
}
