//! Mirrors follow their origin.

use std::fs;

use kickwheel_repos::{FetchError, Head, MirrorError, ReadError};

use crate::fixture::Fixture;

async fn names(fixture: &Fixture) -> Vec<String> {
    let id = fixture.mirror().await;
    fixture.mirrors.fetch(&id, &[]).await.expect("the origin is reachable");
    fixture.mirrors.heads(&id).await.expect("fetched").into_iter().map(|reference| reference.name).collect()
}

async fn head(fixture: &Fixture) -> Option<Head> {
    let id = fixture.mirror().await;
    let fetched = fixture.mirrors.fetch(&id, &[]).await.expect("the origin is reachable");
    assert_eq!(fetched.head, fixture.mirrors.head(&id).await.expect("fetched"));
    fetched.head
}

#[tokio::test]
async fn branches_and_tags_are_followed_and_forgotten() {
    let fixture = Fixture::new();
    assert_eq!(names(&fixture).await, [] as [&str; 0]);
    let commit = fixture.push_file("a", "1");
    fixture.git(&["tag", "light"]);
    fixture.git(&["tag", "-a", "-m", "x", "heavy"]);
    fixture.push("refs/tags/*:refs/tags/*");
    fixture.push("main:topic");
    assert_eq!(names(&fixture).await, ["refs/heads/main", "refs/heads/topic", "refs/tags/heavy", "refs/tags/light"]);
    let id = fixture.mirror().await;
    let refs = fixture.mirrors.heads(&id).await.expect("fetched");
    assert!(refs.iter().all(|reference| reference.commit.as_ref() == Some(&commit)));
    assert_eq!(refs[2].target, fixture.git(&["rev-parse", "heavy"]));
    assert_ne!(refs[2].target, commit);
    fixture.push(":topic");
    fixture.push(":refs/tags/light");
    // `topic` makes room for a branch below that name.
    fixture.push("main:topic/deeper");
    assert_eq!(names(&fixture).await, ["refs/heads/main", "refs/heads/topic/deeper", "refs/tags/heavy"]);
    assert_eq!(fixture.mirrors.fetch(&id, &[]).await.expect("reachable").moved, 0);
}

#[tokio::test]
async fn the_mirror_passes_gits_own_check() {
    let fixture = Fixture::new();
    // Enough for a pack at first, then few enough to travel one by one.
    let files: Vec<_> = (0..1_200).map(|n| (format!("d{}/f{n}", n % 7), n.to_string())).collect();
    fixture.import(&files);
    fixture.run(&["tag", "-a", "-m", "x", "v1", "main"], &fixture.origin());
    let id = fixture.mirror().await;
    fixture.mirrors.fetch(&id, &[]).await.expect("reachable");
    fixture.git(&["fetch", "-q", "origin"]);
    fixture.git(&["reset", "-q", "--hard", "origin/main"]);
    let commit = fixture.push_file("d1/one-more", "x");
    fixture.run(&["tag", "-a", "-m", "y", "v2", "v1"], &fixture.origin());
    fixture.mirrors.fetch(&id, &[]).await.expect("reachable");
    fixture.run(&["fsck", "--full", "--strict"], id.path());
    let packs = fs::read_dir(id.path().join("objects/pack")).expect("a folder");
    let packs = packs.filter(|f| f.as_ref().is_ok_and(|f| f.path().extension().is_some_and(|e| e == "pack"))).count();
    assert_eq!(packs, 1);
    assert_eq!(fixture.run(&["rev-parse", "main"], id.path()), commit);
    assert_eq!(
        fixture.run(&["rev-parse", "v2^{commit}^{tree}"], id.path()),
        fixture.git(&["rev-parse", "main~1^{tree}"])
    );
}

#[tokio::test]
async fn the_default_branch_is_the_one_that_exists() {
    let fixture = Fixture::new();
    assert_eq!(head(&fixture).await, None);
    let commit = fixture.push_file("a", "1");
    let expected = |branch: &str| Some(Head { branch: branch.into(), commit: commit.clone() });
    assert_eq!(head(&fixture).await, expected("main"));
    // As on a server whose git still calls the first branch of a new repository by another name.
    fixture.run(&["symbolic-ref", "HEAD", "refs/heads/never-pushed"], &fixture.origin());
    assert_eq!(head(&fixture).await, expected("main"));
    fixture.push("main:trunk");
    fixture.run(&["symbolic-ref", "HEAD", "refs/heads/trunk"], &fixture.origin());
    assert_eq!(head(&fixture).await, expected("trunk"));
}

#[tokio::test]
async fn a_wanted_commit_is_fetched_or_gone() {
    let fixture = Fixture::new();
    fixture.push_file("kept", "1");
    let dropped = fixture.push_file("dropped", "1");
    fixture.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let present = fixture.push_file("instead", "1");
    let id = fixture.mirror().await;
    let error = fixture.mirrors.fetch(&id, &["11".repeat(20)]).await.expect_err("nobody has it");
    assert!(matches!(&error, FetchError::Gone { commit, .. } if *commit == "11".repeat(20)), "{error}");
    // The rest was fetched all the same.
    fixture.run(&["cat-file", "-e", &present], id.path());
    let lacking = fixture.command(id.path()).args(["cat-file", "-e", &dropped]).status();
    assert!(!lacking.expect("git is installed").success(), "not wanted so far");
    fixture.mirrors.fetch(&id, &[dropped.clone(), present]).await.expect("the origin still has both");
    let tree = fixture.mirrors.tree(&id, &dropped).await.expect("just fetched");
    assert_eq!(tree, fixture.git(&["rev-parse", &format!("{dropped}^{{tree}}")]));
    fixture.run(&["fsck", "--full", "--strict"], id.path());
}

#[tokio::test]
async fn an_abbreviated_id_names_nothing() {
    let fixture = Fixture::new();
    let commit = fixture.push_file("a", "1");
    let id = fixture.mirror().await;
    fixture.mirrors.fetch(&id, &[]).await.expect("reachable");
    let error = fixture.mirrors.tree(&id, &commit[..12]).await.expect_err("only full ids count");
    assert!(matches!(error, ReadError::Fetch(FetchError::Gone { .. })), "{error}");
}

#[tokio::test]
async fn a_commit_is_read_though_nobody_fetched_it_or_the_mirror_was_deleted() {
    let fixture = Fixture::new();
    let commit = fixture.push_file("a", "1");
    let tree = fixture.git(&["rev-parse", "HEAD^{tree}"]);
    let id = fixture.mirror().await;
    assert_eq!(fixture.mirrors.tree(&id, &commit).await.expect("fetched on demand"), tree);
    fs::remove_dir_all(id.path()).expect("a cache");
    assert_eq!(fixture.mirrors.tree(&id, &commit).await.expect("fetched anew"), tree);
    fixture.mirrors.remove(&id).await.expect("our own folder");
    assert_eq!(fixture.mirrors.head(&id).await.expect("fetched anew").expect("main").commit, commit);
}

#[tokio::test]
async fn a_broken_ref_does_not_stop_the_others() {
    let fixture = Fixture::new();
    fixture.push_file("a", "1");
    fs::write(fixture.origin().join("refs/heads/broken"), format!("{}\n", "22".repeat(20))).expect("a file");
    assert_eq!(names(&fixture).await, ["refs/heads/main"]);
}

#[tokio::test]
async fn a_branch_with_a_name_that_is_not_utf8_can_be_read() {
    use std::os::unix::ffi::OsStrExt as _;
    let fixture = Fixture::new();
    fixture.push_file("a", "1");
    fixture.write(b"b", "1");
    let commit = fixture.commit("elsewhere");
    let refspec = std::ffi::OsStr::from_bytes(b"HEAD:refs/heads/caf\xe9");
    let status = fixture.command(&fixture.work()).args(["push", "-q", "origin"]).arg(refspec).status();
    assert!(status.expect("git is installed").success());
    assert_eq!(names(&fixture).await, ["refs/heads/main"]);
    assert_eq!(fixture.changed(None, &commit, "caf%E9").await, Ok(vec!["b".to_owned()]));
}

#[tokio::test]
async fn a_damaged_mirror_is_built_anew() {
    let fixture = Fixture::new();
    let commit = fixture.push_file("a", "1");
    let id = fixture.mirror().await;
    fixture.mirrors.fetch(&id, &[]).await.expect("reachable");
    let object = id.path().join("objects").join(&commit[..2]).join(&commit[2..]);
    let mut permissions = fs::metadata(&object).expect("few objects are loose").permissions();
    #[allow(clippy::permissions_set_readonly_false)]
    permissions.set_readonly(false);
    fs::set_permissions(&object, permissions).expect("our own file");
    fs::write(&object, b"").expect("as after a power failure");
    fixture.mirrors.tree(&id, &commit).await.expect("built anew");
    fixture.run(&["fsck", "--full", "--strict"], id.path());
}

#[tokio::test]
async fn lock_files_of_a_crash_are_removed() {
    let fixture = Fixture::new();
    fixture.push_file("a", "1");
    let id = fixture.mirror().await;
    fs::create_dir_all(id.path().join("refs/heads")).expect("a folder");
    for name in ["refs/heads/main.lock", "HEAD.lock", "packed-refs.lock"] {
        fs::write(id.path().join(name), b"").expect("a file");
    }
    let restarted = kickwheel_repos::Mirrors::open(fixture.dir.path().join("mirrors")).expect("the same folder");
    let id = restarted.mirror("ml", "churn", &id.url).await.expect("the same mirror");
    assert!(restarted.fetch(&id, &[]).await.expect("no lock is left").head.is_some());
}

#[tokio::test]
async fn one_name_with_another_url_is_another_mirror() {
    let fixture = Fixture::new();
    let first = fixture.mirror().await;
    let url = format!("file://{}", fixture.work().display());
    let second = fixture.mirrors.mirror("ml", "churn", &url).await.expect("a local path");
    assert_ne!(first.path(), second.path());
    fixture.write(b"a", "1");
    let commit = fixture.commit("in a normal repository");
    let fetched = fixture.mirrors.fetch(&second, &[]).await.expect("reachable");
    assert_eq!(fetched.head.map(|head| head.commit), Some(commit));
}

#[tokio::test]
async fn names_cannot_leave_the_folder_of_mirrors() {
    let fixture = Fixture::new();
    let url = fixture.origin().display().to_string();
    for (project, name) in [("..", "../../x"), (".", "a/b"), ("a b'\"", "$(x)")] {
        let id = fixture.mirrors.mirror(project, name, &url).await.expect("a local path");
        let path = id.path().strip_prefix(fixture.dir.path().join("mirrors")).expect("below").to_owned();
        assert_eq!(path.components().count(), 2, "{path:?}");
        assert!(id.path().join("HEAD").is_file());
    }
}

#[tokio::test]
async fn other_urls_are_refused_at_once() {
    let fixture = Fixture::new();
    let error = fixture.mirrors.mirror("ml", "x", "git://example.org/x.git").await.expect_err("not supported");
    assert!(matches!(error, MirrorError::Origin(_)));
    assert!(error.to_string().contains("file://"), "{error}");
}

#[tokio::test]
async fn a_shallow_or_sha256_repository_is_unsupported() {
    let fixture = Fixture::new();
    fixture.push_file("a", "1");
    fixture.push_file("b", "1");
    let url = format!("file://{}", fixture.origin().display());
    fixture.run(&["clone", "-q", "--bare", "--depth=1", &url, "shallow.git"], fixture.dir.path());
    fixture.run(&["init", "-q", "--bare", "--object-format=sha256", "sha256.git"], fixture.dir.path());
    for (name, part) in [("shallow.git", "--unshallow"), ("sha256.git", "SHA-1")] {
        let url = fixture.dir.path().join(name).display().to_string();
        let id = fixture.mirrors.mirror("ml", name, &url).await.expect("a local path");
        let error = fixture.mirrors.fetch(&id, &[]).await.expect_err("cannot be mirrored");
        assert!(matches!(error, FetchError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_folder_without_a_repository_is_unreachable_even_inside_another() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.work().join("inner")).expect("a folder");
    let url = fixture.work().join("inner").display().to_string();
    let id = fixture.mirrors.mirror("ml", "inner", &url).await.expect("a local path");
    let error = fixture.mirrors.fetch(&id, &[]).await.expect_err("no repository");
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn workflow_files_are_found_and_others_refused() {
    let fixture = Fixture::new();
    for (name, content) in [("b.yml", "2"), ("a.yaml", "1"), ("notes.md", "x"), ("deeper/c.yaml", "x")] {
        fixture.write(format!(".kickwheel/{name}").as_bytes(), content);
    }
    fixture.write(b"elsewhere/.kickwheel/d.yaml", "x");
    fixture.write(b".kickwheel/huge.yaml", &"#".repeat(512 * 1024 + 1));
    fixture.write(b".kickwheel/odd\xff.yaml", "x");
    std::os::unix::fs::symlink("a.yaml", fixture.work().join(".kickwheel/link.yaml")).expect("a link");
    let commit = fixture.commit("workflows");
    fixture.push("main");
    let id = fixture.mirror().await;
    fixture.mirrors.fetch(&id, &[]).await.expect("reachable");
    let found = fixture.mirrors.workflow_files(&id, &commit).await.expect("fetched");
    let taken: Vec<_> = found.files.iter().map(|file| (file.path.as_str(), file.bytes.as_slice())).collect();
    assert_eq!(taken, [(".kickwheel/a.yaml", b"1".as_slice()), (".kickwheel/b.yml", b"2")]);
    assert_eq!(found.files[0].blob, fixture.git(&["rev-parse", "HEAD:.kickwheel/a.yaml"]));
    let refused: Vec<_> = found.refused.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(refused, [".kickwheel/huge.yaml", ".kickwheel/link.yaml", ".kickwheel/odd\u{fffd}.yaml"]);
}

#[tokio::test]
async fn more_workflow_files_than_the_limit_are_named() {
    let fixture = Fixture::new();
    let empty = fixture.push_file("a", "1");
    for n in 0..202 {
        fixture.write(format!(".kickwheel/w{n:03}.yaml").as_bytes(), "x");
    }
    let commit = fixture.commit("many");
    fixture.push("main");
    let id = fixture.mirror().await;
    fixture.mirrors.fetch(&id, &[]).await.expect("reachable");
    let found = fixture.mirrors.workflow_files(&id, &commit).await.expect("fetched");
    assert_eq!(found.files.len(), 200);
    let refused: Vec<_> = found.refused.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(refused, [".kickwheel/w200.yaml", ".kickwheel/w201.yaml"]);
    let none = fixture.mirrors.workflow_files(&id, &empty).await.expect("fetched");
    assert!(none.files.is_empty() && none.refused.is_empty());
}
