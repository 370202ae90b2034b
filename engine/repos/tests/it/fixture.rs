//! A temporary folder with repositories made by `git`, and mirrors of them.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::Write as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use kickwheel_repos::{ChangedPaths, MirrorId, Mirrors, PushRange, Subject};
use tempfile::TempDir;

/// A bare origin, a working clone that pushes to it, and mirrors.
pub struct Fixture {
    pub dir: TempDir,
    pub mirrors: Mirrors,
}

impl Fixture {
    /// An empty bare origin whose `HEAD` names `main`, and a clone on `main` without commits.
    pub fn new() -> Self {
        let dir = TempDir::new().expect("a temporary folder");
        let mirrors = Mirrors::open(dir.path().join("mirrors")).expect("an empty folder");
        let fixture = Self { dir, mirrors };
        fixture.run(&["init", "-q", "--bare", "-b", "main", "origin.git"], fixture.dir.path());
        fixture.run(&["init", "-q", "-b", "main", "work"], fixture.dir.path());
        fixture.git(&["remote", "add", "origin", "../origin.git"]);
        fixture
    }

    pub fn origin(&self) -> PathBuf {
        self.dir.path().join("origin.git")
    }

    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub async fn mirror(&self) -> MirrorId {
        let url = self.origin().to_str().expect("temporary paths are UTF-8").to_owned();
        self.mirrors.mirror("ml", "churn", &url).await.expect("a local path")
    }

    /// Runs `git` in the working clone; its standard output, trimmed.
    pub fn git(&self, args: &[&str]) -> String {
        self.run(args, &self.work())
    }

    pub fn run(&self, args: &[&str], dir: &Path) -> String {
        let output = self.command(dir).args(args).output().expect("git is installed");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// `git` without the configuration of this machine.
    pub fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(dir)
            .env("HOME", self.dir.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_NAME", "Ada")
            .env("GIT_AUTHOR_EMAIL", "ada@example.org")
            .env("GIT_COMMITTER_NAME", "Ada")
            .env("GIT_COMMITTER_EMAIL", "ada@example.org")
            .env_remove("GIT_DIR");
        command
    }

    /// Writes a file of the working clone.
    pub fn write(&self, path: &[u8], content: &str) {
        let path = self.work().join(OsStr::from_bytes(path));
        fs::create_dir_all(path.parent().expect("below the clone")).expect("a folder");
        fs::write(path, content).expect("a file");
    }

    /// Commits everything in the working clone; the commit's id.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub fn push(&self, refspec: &str) {
        self.git(&["push", "-q", "--force", "origin", refspec]);
    }

    /// Commits one file and pushes `main`.
    pub fn push_file(&self, path: &str, content: &str) -> String {
        self.write(path.as_bytes(), content);
        let commit = self.commit(path);
        self.push("main");
        commit
    }

    /// Makes the origin forget everything that no ref leads to.
    pub fn collect_garbage(&self) {
        self.run(&["reflog", "expire", "--expire=now", "--all"], &self.origin());
        self.run(&["gc", "-q", "--prune=now"], &self.origin());
    }

    /// Commits `files` (path and content) straight to the origin's `main`, in one process whatever their number.
    pub fn import(&self, files: &[(String, String)]) -> String {
        let mut stream = "commit refs/heads/main\ncommitter Ada <ada@example.org> 1 +0000\ndata 0\n".to_owned();
        for (path, content) in files {
            stream += &format!("M 100644 inline {path}\ndata {}\n{content}\n", content.len());
        }
        self.plumbing(&["fast-import", "--quiet"], stream.as_bytes());
        self.run(&["rev-parse", "main"], &self.origin())
    }

    /// The changed paths of a push, as text that shows every byte.
    pub async fn changed(&self, before: Option<&str>, after: &str, branch: &str) -> Result<Vec<String>, String> {
        let range = PushRange {
            before: before.map(str::to_owned),
            after: after.to_owned(),
            branch: branch.to_owned(),
            default_branch: Some("main".into()),
        };
        let id = self.mirror().await;
        match self.mirrors.changed_paths(&id, &range).await.expect("the origin is reachable") {
            ChangedPaths::Complete(paths) => Ok(paths.iter().map(|path| path.escape_ascii().to_string()).collect()),
            ChangedPaths::Unknown(reason) => Err(reason),
        }
    }

    /// Feeds `stdin` to `git` in the origin; its standard output, trimmed. For objects that no working tree can hold.
    pub fn plumbing(&self, args: &[&str], stdin: &[u8]) -> String {
        let mut child = self
            .command(&self.origin())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("git is installed");
        child.stdin.take().expect("a pipe").write_all(stdin).expect("git reads");
        let output: Output = child.wait_with_output().expect("git ends");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// The names below `dir`, depth first, sorted, as text that shows every byte.
pub fn listing(dir: &Path) -> Vec<String> {
    fn visit(dir: &Path, prefix: &OsString, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).expect("a folder") {
            let entry = entry.expect("an entry");
            let mut path = prefix.clone();
            path.push(entry.file_name());
            if entry.file_type().expect("a type").is_dir() {
                path.push("/");
                visit(&entry.path(), &path, found);
            } else {
                found.push(path.as_bytes().escape_ascii().to_string());
            }
        }
    }
    let mut found = Vec::new();
    visit(dir, &OsString::new(), &mut found);
    found.sort();
    found
}

/// What a note's section is about.
pub fn run(id: &str) -> Subject {
    Subject::Run(id.to_owned())
}
