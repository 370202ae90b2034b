//! The store as its users see it, on a real folder.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
    },
    path::Path,
};

use futures::{StreamExt as _, TryStreamExt as _};
use kickwheel_artifacts::{Access, ArtifactError, Artifacts, Attempts, Put, TreeFile, store};
use kickwheel_schemas::{
    Digest, Manifest, ManifestEntry, ManifestLink, Millis,
    runner::{Claim, Heartbeat},
};

fn place() -> (tempfile::TempDir, Artifacts) {
    let folder = tempfile::tempdir().expect("temporary folders can be made");
    let store = Artifacts::local(folder.path().join("store")).expect("a store can be made");
    (folder, store)
}

fn blob(store: &Artifacts, digest: &Digest) -> std::path::PathBuf {
    store.root().join(store::location(digest).as_ref())
}

/// Names of all files below a folder.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("it can be listed").flatten() {
            if entry.path().is_dir() { open.push(entry.path()) } else { found.push(entry.path().display().to_string()) }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn bytes_come_back_under_their_digest_and_are_stored_once() {
    let (_folder, store) = place();
    let first = store.put_bytes("hello").await.expect("it is stored");
    let second = store.put_bytes("hello").await.expect("it is stored");
    assert_eq!(first, second);
    assert_eq!((first.digest.clone(), first.size), (Digest::of(b"hello"), 5));
    assert_eq!(files(store.root()).len(), 1);
    assert_eq!(store.get_bytes(&first.digest, 5).await.expect("it is there"), "hello");
    assert!(store.exists(&first.digest).await.expect("it can be asked"));
    let other = Digest::of(b"other");
    assert!(!store.exists(&other).await.expect("it can be asked"));
    assert!(matches!(store.get_bytes(&other, 5).await, Err(ArtifactError::Missing(missing)) if missing == other));
    assert!(matches!(store.get_bytes(&first.digest, 4).await, Err(ArtifactError::TooLarge { size: 5, limit: 4, .. })));
}

#[tokio::test]
async fn a_file_of_many_parts_survives_the_way_in_and_out() {
    let (folder, store) = place();
    let content: Vec<u8> = (0..store::PART_BYTES * 2 + 12345).map(|at| (at * 31 % 251) as u8).collect();
    let file = folder.path().join("large");
    fs::write(&file, &content).expect("it can be written");
    let stored = store.put_file(&file).await.expect("it is stored");
    assert_eq!((stored.digest.clone(), stored.size), (Digest::of(&content), content.len() as u64));
    assert_eq!(store.put_file(&file).await.expect("it is there already"), stored);
    assert_eq!(files(store.root()).len(), 1);
    let pieces: Vec<_> =
        store.read(&stored.digest).await.expect("it is there").try_collect().await.expect("it is whole");
    assert!(pieces.concat() == content);
    let copy = folder.path().join("copy");
    store.fetch(&stored, &copy, Access::Writable).await.expect("it is laid out");
    assert!(fs::read(&copy).expect("it is there") == content);
    // What a job does to its copy never reaches the store.
    fs::write(&copy, "changed").expect("it may be written to");
    assert!(store.get_bytes(&stored.digest, u64::MAX).await.is_ok());
}

#[tokio::test]
async fn damaged_bytes_are_never_handed_out_as_whole() {
    let (folder, store) = place();
    let stored = store.put_bytes("hello").await.expect("it is stored");
    fs::write(blob(&store, &stored.digest), "jello").expect("root may");
    let is_corrupt = |error: &ArtifactError| matches!(error, ArtifactError::Corrupt { digest, found } if *digest == stored.digest && *found == Digest::of(b"jello"));
    assert!(is_corrupt(&store.get_bytes(&stored.digest, 100).await.expect_err("it is damaged")));
    let mut pieces = store.read(&stored.digest).await.expect("it is there");
    assert_eq!(pieces.next().await.expect("a piece").expect("not yet known"), "jello");
    assert!(is_corrupt(&pieces.next().await.expect("the verdict").expect_err("it is damaged")));
    assert!(pieces.next().await.is_none());
    let dest = folder.path().join("out");
    assert!(is_corrupt(&store.fetch(&stored, &dest, Access::ReadOnly).await.expect_err("it is damaged")));
    assert!(!dest.exists());
}

#[tokio::test]
async fn a_leftover_of_a_killed_writer_disturbs_nobody() {
    let (_folder, store) = place();
    let path = blob(&store, &Digest::of(b"hello"));
    fs::create_dir_all(path.parent().expect("it has one")).expect("it can be made");
    fs::write(path.with_extension("#1"), "hel").expect("it can be written");
    let stored = store.put_bytes("hello").await.expect("it is stored");
    assert_eq!(store.get_bytes(&stored.digest, 5).await.expect("it is there"), "hello");
}

#[tokio::test]
async fn a_folder_comes_back_with_its_paths_and_executables() {
    let (folder, store) = place();
    let tree = folder.path().join("tree");
    fs::create_dir_all(tree.join("a/empty")).expect("it can be made");
    for (path, mode) in [("run.sh", 0o755), ("a/data", 0o600), ("a/skipped", 0o644), ("ä ö", 0o644)] {
        fs::write(tree.join(path), path).expect("it can be written");
        fs::set_permissions(tree.join(path), fs::Permissions::from_mode(mode)).expect("it is ours");
    }
    let listed = ["run.sh", "a/data", "ä ö", "a/empty", "absent"].map(|path| path.as_bytes().to_vec());
    let stored = store.put_listed(&tree, listed.to_vec()).await.expect("it is stored");
    assert!(stored.folder);
    let manifest = store.manifest(&stored.digest).await.expect("it is there");
    assert_eq!(manifest.digest(), stored.digest);
    let listed: Vec<_> = manifest.files.iter().map(|file| (file.path.as_str(), file.executable)).collect();
    assert_eq!(listed, [("a/data", false), ("run.sh", true), ("ä ö", false)]);
    // The same tree from memory is the same artifact.
    let file = |path: &'static str, executable| {
        Ok::<_, ArtifactError>(TreeFile { path: path.into(), bytes: path.into(), executable })
    };
    let from_memory = [file("ä ö", false), file("run.sh", true), file("a/data", false)];
    assert_eq!(store.put_tree(futures::stream::iter(from_memory)).await.expect("it is stored"), stored);
    let out = folder.path().join("out");
    store.fetch(&stored, &out, Access::ReadOnly).await.expect("it is laid out");
    let mode = |path: &str| fs::metadata(out.join(path)).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode("run.sh"), mode("a/data"), mode("a") & 0o700), (0o555, 0o444, 0o700));
    // Nothing is ever replaced.
    assert!(matches!(store.fetch(&stored, &out, Access::ReadOnly).await, Err(ArtifactError::Io { .. })));
}

#[tokio::test]
async fn links_that_stay_inside_and_odd_names_come_back() {
    let (folder, store) = place();
    let tree = folder.path().join("tree");
    fs::create_dir_all(tree.join("sub/deep")).expect("it can be made");
    let odd = OsStr::from_bytes(b"sub/odd\xff\n");
    fs::write(tree.join(odd), "odd").expect("it can be written");
    fs::write(tree.join("file"), "x").expect("it can be written");
    symlink("../../file", tree.join("sub/deep/up")).expect("links can be made");
    symlink("sub", tree.join("folder")).expect("links can be made");
    symlink("nowhere", tree.join("dangling")).expect("links can be made");
    let stored = store.put_folder(&tree).await.expect("it is stored");
    let manifest = store.manifest(&stored.digest).await.expect("it is there");
    assert_eq!((manifest.files.len(), manifest.links.len(), stored.size), (2, 3, 4));
    let out = folder.path().join("out");
    store.fetch(&stored, &out, Access::ReadOnly).await.expect("it is laid out");
    assert_eq!(fs::read_to_string(out.join("sub/deep/up")).expect("it leads to the file"), "x");
    assert_eq!(fs::read(out.join("folder").join(OsStr::from_bytes(b"odd\xff\n"))).expect("it is there"), b"odd");
    assert_eq!(fs::read_link(out.join("dangling")).expect("it is a link"), Path::new("nowhere"));
    // The same tree again is the same artifact; another target is another one.
    assert_eq!(store.put_folder(&out).await.expect("it is stored").digest, Digest::of(&manifest.to_bytes()));
    // What a job writes is an output: its names stand in events and expressions.
    let opened = fs::File::open(&tree).expect("it is there");
    let refused = store.put_opened_folder(opened.into(), &tree, None).await.expect_err("it holds an odd name");
    assert!(refused.to_string().contains("not UTF-8; rename it"), "{refused}");
    fs::remove_file(tree.join(odd)).expect("it is there");
    let opened = fs::File::open(&tree).expect("it is there");
    let stored = store.put_opened_folder(opened.into(), &tree, None).await.expect("its links stay inside");
    assert_eq!(store.manifest(&stored.digest).await.expect("it is there").links.len(), 3);
}

#[tokio::test]
async fn nothing_is_laid_out_through_a_link() {
    let (folder, store) = place();
    let (dest, outside) = (folder.path().join("dest"), folder.path().join("outside"));
    fs::create_dir_all(&dest).expect("it can be made");
    fs::create_dir_all(&outside).expect("it can be made");
    symlink(&outside, dest.join("d")).expect("links can be made");
    let blob = store.put_bytes("x").await.expect("it is stored");
    let file =
        |path: &str| ManifestEntry { path: path.into(), digest: blob.digest.clone(), size: 1, executable: false };
    let link = |path: &str, target: &str| ManifestLink { path: path.into(), target: target.into() };
    let tree = store.put_manifest(&Manifest::new(vec![file("d/e/file")])).await.expect("it is stored");
    let refused = store.fetch(&tree, &dest, Access::ReadOnly).await.expect_err("a link is in the way");
    assert!(refused.to_string().contains("nothing is laid through a link"), "{refused}");
    let tree = store.put_manifest(&Manifest::with_links(vec![], vec![link("d", "e")])).await.expect("it is stored");
    assert!(store.fetch(&tree, &dest, Access::ReadOnly).await.is_err(), "nothing is replaced");
    assert!(fs::read_dir(&outside).expect("it is there").next().is_none());

    let up = "a\0ff/b";
    for (files, links) in [
        (vec!["a"], vec![("a", "b")]),
        (vec!["a/b"], vec![("a", "c")]),
        (vec![up], vec![("a\0ff", "c")]),
        (vec![], vec![("a", "b"), ("a/b", "c")]),
        (vec![], vec![("b", "c"), ("a", "c")]),
        (vec![], vec![("a", "../b")]),
        (vec![], vec![("a", "/etc")]),
        (vec![], vec![("a", "")]),
        (vec!["\x002e\x002e/a"], vec![]),
        (vec!["a\x002fb"], vec![]),
    ] {
        let bad = Manifest {
            files: files.into_iter().map(file).collect(),
            links: links.into_iter().map(|(path, target)| link(path, target)).collect(),
        };
        assert!(store.put_manifest(&bad).await.is_err(), "{bad:?}");
        // Nor is one believed that got into the store otherwise.
        let Manifest { files, links } = &bad;
        if files.len() + links.len() == 1 {
            let stored = store.put_bytes(bad.to_bytes()).await.expect("bytes are bytes");
            assert!(store.manifest(&stored.digest).await.is_err(), "{bad:?}");
        }
    }
}

#[tokio::test]
async fn links_that_lead_out_special_files_and_paths_that_lead_out_are_refused() {
    let (folder, store) = place();
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).expect("it can be made");
    fs::write(tree.join("file"), "x").expect("it can be written");
    symlink("../file", tree.join("link")).expect("links can be made");
    let refused = store.put_folder(&tree).await.expect_err("it holds a link that leads out");
    assert!(refused.to_string().contains("\"link\" -> \"../file\""), "{refused}");
    assert!(!refused.to_string().contains(&*tree.to_string_lossy()), "{refused}");
    let opened = fs::File::open(&tree).expect("it is there");
    assert!(store.put_opened_folder(opened.into(), &tree, None).await.is_err());
    let socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).expect("a socket can be made");
    assert!(store.put_listed(&tree, vec![b"file".to_vec(), b"socket".to_vec()]).await.is_ok());
    fs::remove_file(tree.join("link")).expect("it is there");
    assert!(store.put_folder(&tree).await.is_err(), "it holds a socket");
    drop(socket);
    fs::remove_file(tree.join("socket")).expect("it is there");
    symlink("file", tree.join("link")).expect("links can be made");
    assert!(store.put_file(&tree.join("link")).await.is_err());
    assert!(store.put_file(&tree).await.is_err());

    let manifest = |paths: &[&str]| Manifest {
        files: paths
            .iter()
            .map(|path| ManifestEntry {
                path: (*path).to_owned(),
                digest: Digest::of(b"x"),
                size: 1,
                executable: false,
            })
            .collect(),
        links: Vec::new(),
    };
    for bad in [&["../x"][..], &["/x"], &["b", "a"], &["a", "a"]] {
        assert!(store.put_manifest(&manifest(bad)).await.is_err(), "{bad:?}");
        // Nor is one believed that got into the store otherwise.
        let stored = store.put_bytes(manifest(bad).to_bytes()).await.expect("bytes are bytes");
        assert!(store.manifest(&stored.digest).await.is_err(), "{bad:?}");
    }
    let stored = store.put_bytes("no manifest").await.expect("bytes are bytes");
    assert!(matches!(store.manifest(&stored.digest).await, Err(ArtifactError::Malformed { .. })));
}

#[tokio::test]
async fn of_many_claims_exactly_one_is_stored() {
    let folder = tempfile::tempdir().expect("temporary folders can be made");
    let attempts = Attempts::local(folder.path()).expect("it can be opened");
    let claim = |pid: u32| Claim {
        attempt: "a".to_owned(),
        nonce: pid.to_string(),
        pid,
        start_ticks: 0,
        boot: String::new(),
        at: Millis(0),
        mac: String::new(),
    };
    let puts = (0..16).map(|pid| {
        let attempts = attempts.clone();
        async move { (pid, attempts.claim("a.b.0.1", &claim(pid)).await.expect("it can be tried")) }
    });
    let outcomes: Vec<_> = futures::stream::iter(puts).buffer_unordered(16).collect().await;
    let winners: Vec<_> = outcomes.iter().filter(|(_, put)| *put == Put::Stored).map(|(pid, _)| *pid).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(attempts.get::<Claim>("a.b.0.1").await.expect("it can be read"), Some(claim(winners[0])));
}

#[tokio::test]
async fn a_heartbeat_is_replaced_and_an_absent_document_is_none() {
    let folder = tempfile::tempdir().expect("temporary folders can be made");
    let attempts = Attempts::local(folder.path()).expect("it can be opened");
    let name = "a.b.0.1";
    assert_eq!(attempts.get::<Heartbeat>(name).await.expect("it can be read"), None);
    for at in [1, 2] {
        let beat = Heartbeat { at: Millis(at), child_pid: 1, child_start_ticks: 2, rss_bytes: 3, progress: None };
        assert_eq!(attempts.put(name, &beat).await.expect("it is stored"), Put::Stored);
        assert_eq!(attempts.get::<Heartbeat>(name).await.expect("it can be read"), Some(beat));
    }
    fs::write(attempts.folder().join(name).join("heartbeat.json"), "{").expect("it can be written");
    assert!(matches!(attempts.get::<Heartbeat>(name).await, Err(ArtifactError::Malformed { .. })));
    for bad in ["", "..", "a/b", "/a"] {
        assert!(attempts.get::<Heartbeat>(bad).await.is_err(), "{bad:?}");
    }
}
