//! What of a folder on disk is source.

use std::{fs, os::unix::fs::symlink, path::Path};

use kickwheel_repos::{
    Selection,
    worktree::{MAX_UNTRACKED_BYTES, WorkTree, WorkTreeError, list},
};

use crate::fixture::Fixture;

fn shown(tree: &WorkTree) -> Vec<String> {
    tree.paths.iter().map(|path| path.escape_ascii().to_string()).collect()
}

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("a folder");
    fs::write(path, text).expect("a file");
}

/// As an engine leaves it.
fn data_folder(folder: &Path) {
    for name in ["artifacts/blobs/x", "mirrors/default/x", "lock", "token"] {
        write(folder, name, "x");
    }
}

#[test]
fn in_a_git_work_tree_git_decides() {
    let fixture = Fixture::new();
    let work = fixture.work();
    fixture.write(b".gitignore", "*.bin\nvenv/\n");
    fixture.write(b"sub/.gitignore", "local\n");
    for tracked in ["src/train.py", "target/tracked.txt", "gone", ".kickwheel/w.yaml", "sub/.kickwheel/kept"] {
        fixture.write(tracked.as_bytes(), "1");
    }
    symlink("src/train.py", work.join("link")).expect("a link");
    fixture.commit("tracked");
    fs::remove_file(work.join("gone")).expect("it is there");
    fixture.write(b"src/train.py", "changed");
    // Tracked although the rules ignore it.
    fixture.write(b"kept.bin", "1");
    fixture.git(&["add", "-f", "kept.bin"]);
    for untracked in ["new/deep.py", "model.bin", "venv/lib.py", "sub/local", "odd\n", ".kickwheel/new.yaml"] {
        fixture.write(untracked.as_bytes(), "1");
    }
    fixture.write(b"odd\xff", "1");
    data_folder(&work.join("kw"));
    fixture.write(b"own/secret", "1");
    let socket = std::os::unix::net::UnixListener::bind(work.join("kw/agent.sock")).expect("a socket");
    fixture.run(&["init", "-q", "nested"], &work);
    fixture.write(b"nested/file", "1");
    let own = work.canonicalize().expect("it is there").join("own");
    let tree = list(&work, &[own], &[]).expect("it can be listed");
    assert_eq!(
        shown(&tree),
        [
            ".gitignore",
            "gone",
            "kept.bin",
            "link",
            "new/deep.py",
            r"odd\n",
            r"odd\xff",
            "src/train.py",
            "sub/.gitignore",
            "sub/.kickwheel/kept",
            "target/tracked.txt",
        ]
    );
    assert_eq!(tree.submodules, [b"nested".to_vec()]);
    drop(socket);
    let wanted = ["src/**", "link"].map(|glob| Selection::new(&[glob]).expect("a glob"));
    assert_eq!(shown(&list(&work, &[], &wanted).expect("it can be listed")), ["link", "src/train.py"]);
}

#[test]
fn a_submodule_is_named_and_its_files_are_not_taken() {
    let fixture = Fixture::new();
    fixture.write(b"a", "1");
    fixture.git(&["add", "a"]);
    fixture.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{},lib", "33".repeat(20))]);
    fixture.write(b"lib/file", "1");
    let tree = list(&fixture.work(), &[], &[]).expect("it can be listed");
    assert_eq!(tree.submodules, [b"lib".to_vec()]);
    assert!(shown(&tree).iter().all(|path| path == "a"), "{tree:?}");
}

#[test]
fn elsewhere_everything_is_source_but_what_is_named() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path();
    for path in ["train.py", "target/result.txt", "wandb/run-1/log", "sub/.kickwheel/kept", ".hidden"] {
        write(folder, path, "1");
    }
    for path in [
        ".kickwheel/w.yaml",
        ".venv/a",
        "sub/node_modules/a",
        "__pycache__/a",
        "env/pyvenv.cfg",
        "env/bin/a",
        "rust/target/CACHEDIR.TAG",
        "rust/target/debug/a",
        "nested/.git/config",
    ] {
        write(folder, path, "1");
    }
    data_folder(&folder.join("kw"));
    symlink("run-1", folder.join("wandb/latest-run")).expect("a link");
    symlink("/usr/bin/env", folder.join("env/bin/python")).expect("a link");
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).expect("a socket");
    let tree = list(folder, &[], &[]).expect("it can be listed");
    assert_eq!(
        shown(&tree),
        [".hidden", "sub/.kickwheel/kept", "target/result.txt", "train.py", "wandb/latest-run", "wandb/run-1/log"]
    );
}

#[test]
fn what_is_too_large_is_refused_by_name_unless_git_ignores_it() {
    let fixture = Fixture::new();
    let work = fixture.work();
    // Sparse: it takes no room here.
    let large = fs::File::create(work.join("data.bin")).expect("a file");
    large.set_len(MAX_UNTRACKED_BYTES + 1).expect("it has a length");
    let error = list(&work, &[], &[]).expect_err("it is too large");
    assert!(matches!(error, WorkTreeError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains("2048 MiB") && error.to_string().contains("data.bin"), "{error}");
    fixture.write(b".gitignore", "*.bin\n");
    assert_eq!(shown(&list(&work, &[], &[]).expect("it is ignored")), [".gitignore"]);
    fs::remove_file(work.join(".gitignore")).expect("it is there");
    fs::remove_dir_all(work.join(".git")).expect("it is there");
    assert!(matches!(list(&work, &[], &[]), Err(WorkTreeError::TooLarge { .. })));
    fs::write(work.join(".git"), "gitdir: /nowhere").expect("a file");
    assert!(matches!(list(&work, &[], &[]), Err(WorkTreeError::Git(_))), "no silent change of the rules");
}
