//! A bare Git repository with a working copy, driven by the real `git`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The remote and the working copy of one person.
#[derive(Debug)]
pub struct Repo {
    /// What the engine is told.
    pub bare: PathBuf,
    /// Where files are edited.
    pub work: PathBuf,
}

impl Repo {
    /// An empty remote below `folder` with `main` as its default branch, and a clone of it.
    pub fn make(folder: &Path, name: &str) -> Self {
        let (bare, work) = (folder.join(format!("{name}.git")), folder.join(name));
        fs::create_dir_all(folder).expect("the folder can be made");
        git(folder, &["init", "-q", "--bare", "-b", "main", &bare.to_string_lossy()]);
        git(folder, &["init", "-q", "-b", "main", &work.to_string_lossy()]);
        git(&work, &["remote", "add", "origin", &bare.to_string_lossy()]);
        Self { bare, work }
    }

    /// Writes files and commits them. The commit's id.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            let path = self.work.join(path);
            fs::create_dir_all(path.parent().expect("files lie in the working copy")).expect("a folder can be made");
            fs::write(path, text).expect("a file can be written");
        }
        git(&self.work, &["add", "--all"]);
        git(&self.work, &["commit", "-q", "--allow-empty", "-m", "a change"]);
        self.head()
    }

    /// Commits and pushes `main`. The commit's id.
    pub fn push(&self, files: &[(&str, &str)]) -> String {
        let commit = self.commit(files);
        git(&self.work, &["push", "-q", "origin", "main"]);
        commit
    }

    /// The commit of the working copy.
    pub fn head(&self) -> String {
        git(&self.work, &["rev-parse", "HEAD"])
    }

    /// The note that the engine left on a commit, if there is one. Every notes ref counts.
    pub fn note(&self, commit: &str) -> Option<String> {
        let refs = git(&self.bare, &["for-each-ref", "--format=%(refname)", "refs/notes"]);
        refs.lines().find_map(|name| try_git(&self.bare, &["notes", "--ref", name, "show", commit]).ok())
    }
}

/// Runs `git`, which must work; what it printed.
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    try_git(folder, arguments).unwrap_or_else(|e| panic!("git {}: {e}", arguments.join(" ")))
}

fn try_git(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .map_err(|e| e.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
