//! Secrets on every pool: the job finds them as files in memory, and nothing else ever shows them.

use std::{collections::BTreeMap, fs, path::Path};

use crate::place::*;
use kickwheel_pool::{Observed, StartError};
use kickwheel_schemas::{
    runner::{JobEnd, JobSpec},
    sealed::{Secrets, memory_folder},
};

const VALUE: &str = "correct-horse-battery";

fn secrets() -> Secrets {
    [("token", VALUE), ("key.pem", "-----BEGIN KEY-----\nfirst-line-of-it\nlast-line-of-it\n")].into_iter().collect()
}

fn with_secrets(text: &str) -> JobSpec {
    let names = [("token", "api-token"), ("key.pem", "signing-key")];
    JobSpec { secrets: BTreeMap::from(names.map(|(file, name)| (file.to_owned(), name.to_owned()))), ..script(text) }
}

/// Whether any file below a folder holds the text. What goes away meanwhile, as a container's files do, holds nothing.
fn holds(folder: &Path, text: &str) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| {
        let Ok(kind) = entry.file_type() else { return false };
        if kind.is_dir() {
            holds(&entry.path(), text)
        } else {
            kind.is_file()
                && fs::read(entry.path())
                    .is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
        }
    })
}

#[tokio::test]
async fn a_job_finds_its_secrets_as_files_in_memory_and_the_log_hides_them() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let spec = with_secrets(
            r#"
            cd "$KICKWHEEL_SECRETS"; stat -c '%a %n' token key.pem .; wc -c < key.pem
            cat token key.pem; echo; printf 'correct-ho'; sleep 0.05; printf 'rse-battery!\n'
            base64 < token; tail -n 1 key.pem
            case $PWD in /dev/shm/*) place=/dev/shm;; *) place=/kickwheel/secrets;; esac
            grep -q "^[^ ]* $place tmpfs " /proc/mounts && echo in memory
            ls "$OLDPWD/.." | grep -c sealed || echo no document
            "#,
        );
        let key = key_of(&spec);
        place.pool.start(&key, &spec, &place.small(), &secrets()).await.expect("it starts");
        let result = place.result(&key).await;
        let log = String::from_utf8(place.log(&key).await).expect("it is text");
        assert_eq!(result.end, JobEnd::Succeeded, "{log}");
        for shown in [VALUE, "first-line-of-it", "last-line-of-it", "BEGIN KEY", "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5"] {
            assert!(!log.contains(shown), "{shown} is shown: {log}");
        }
        let (file, folder) = match member {
            Member::Local | Member::Docker => (400, 700),
            // They stay the runner's, and the attempt's group may read them.
            Member::OtherUser => (440, 750),
        };
        let modes = [format!("{file} token"), format!("{file} key.pem"), format!("{folder} .")];
        for expected in modes.iter().map(String::as_str).chain(["53\n", "***!\n", "in memory\n", "no document\n"]) {
            assert!(log.contains(expected), "{expected:?} is missing: {log}");
        }
        assert!(!holds(place.folder.path(), VALUE), "it is written to the disk");
        let folder = memory_folder(Path::new("/dev/shm"), &place.attempt(&key).canonicalize().expect("it is there"));
        assert!(!folder.exists(), "it is left in memory");
    }
}

#[tokio::test]
async fn a_killed_runner_leaves_no_secrets_in_memory() {
    for member in Member::all() {
        let place = Place::new(member).await;
        let spec = with_secrets("echo \"$KICKWHEEL_SECRETS\"; sleep 60");
        let key = key_of(&spec);
        place.pool.start(&key, &spec, &place.small(), &secrets()).await.expect("it starts");
        let (runner, _) = place.running(&key).await;
        let folder = memory_folder(Path::new("/dev/shm"), &place.attempt(&key).canonicalize().expect("it is there"));
        // In a container they lie in the container's own memory.
        assert_eq!(folder.join("token").exists(), member != Member::Docker);
        kill(runner);
        let ended = place.pool.wait(&key).await;
        assert!(matches!(ended, Ok(Observed::Lost { .. })), "{ended:?}");
        until("nothing is left in memory", || !folder.exists()).await;
    }
}

#[tokio::test]
async fn secrets_without_values_and_values_without_secrets_are_refused() {
    for member in Member::all() {
        let place = Place::new(member).await;
        for (spec, given) in [
            (with_secrets("true"), Secrets::new()),
            (script("true"), secrets()),
            (with_secrets("true"), [("token", VALUE)].into_iter().collect()),
            (
                JobSpec { secrets: BTreeMap::from([("../x".to_owned(), "a".to_owned())]), ..script("true") },
                [("../x", VALUE)].into_iter().collect(),
            ),
        ] {
            let refused = place.pool.start(&key_of(&spec), &spec, &place.small(), &given).await;
            assert!(matches!(refused, Err(StartError::Unplaceable(_))), "{refused:?}");
            assert_eq!(place.pool.observe(&key_of(&spec)).await.expect("it can be asked"), Observed::Unknown);
        }
    }
}
