//! Secrets against a real SQLite database, and keys against a real folder.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _};

use kickwheel_store::write::SecretStamp;
use tempfile::TempDir;

use super::{keys::Files, *};

struct House {
    folder: TempDir,
    store: Store,
}

impl House {
    async fn build() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = folder.path().join("kickwheel.db").display().to_string();
        let store = Store::open(&url).await.expect("a new database");
        Self { folder, store }
    }

    fn secrets(&self, source: KeySource) -> Secrets {
        Secrets::load(self.folder.path(), source).expect("the keys are readable")
    }

    fn files(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.folder.path()).expect("readable");
        let names = entries.map(|e| e.expect("readable").file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("secrets.key")).collect()
    }

    async fn put(&self, secrets: &Secrets, name: &str, value: &str, refs: &[&str]) {
        let refs = refs.iter().map(|r| (*r).to_owned()).collect();
        secrets.put(&self.store, "p", name, value.as_bytes(), refs).await.expect("it is kept");
    }

    async fn check(&self, secrets: &Secrets, name: &str, value: &str) {
        let opened = secrets.open(&self.store, "p", name, None).await;
        assert_eq!(opened.as_ref().map(|v| v.as_slice()), Ok(value.as_bytes()), "{name}");
    }
}

#[tokio::test]
async fn what_was_kept_is_opened_again_and_the_key_is_private() {
    let house = House::build().await;
    let secrets = house.secrets(KeySource::Folder);
    assert!(house.files().is_empty(), "a key is made when it is needed");
    house.put(&secrets, "token", "correct horse", &[]).await;
    house.check(&secrets, "token", "correct horse").await;
    let key = house.folder.path().join("secrets.key");
    assert_eq!(fs::metadata(&key).expect("made").permissions().mode() & 0o777, 0o600);
    // The next process reads the same key.
    house.check(&house.secrets(KeySource::Folder), "token", "correct horse").await;

    let row = house.store.sealed_secret("p", "token").await.expect("readable").expect("there");
    assert!(!row.sealed.windows(7).any(|w| w == b"correct"), "the value is not stored as such");
    assert!(!format!("{secrets:?}").contains(fs::read_to_string(&key).expect("text").trim()));
    assert_eq!(
        secrets.open(&house.store, "p", "other", None).await.map(|v| v.to_vec()),
        Err(OpenError::Missing { name: "other".to_owned() })
    );
    house.store.close().await;
}

#[tokio::test]
async fn a_row_that_was_moved_to_another_name_does_not_open() {
    let house = House::build().await;
    let secrets = house.secrets(KeySource::Folder);
    house.put(&secrets, "a", "one", &[]).await;
    let row = house.store.sealed_secret("p", "a").await.expect("readable").expect("there");
    let moved = PutSecret {
        project: "p".to_owned(),
        name: "b".to_owned(),
        sealed: row.sealed,
        key_id: row.secret.key_id,
        refs: Vec::new(),
        updated_at: row.secret.updated_at,
        expected: None,
    };
    house.store.write(vec![Write::PutSecret(moved)]).await.expect("written");
    let opened = secrets.open(&house.store, "p", "b", None).await;
    assert_eq!(opened.map(|v| v.to_vec()), Err(OpenError::Damaged { name: "b".to_owned() }));
    house.store.close().await;
}

#[tokio::test]
async fn only_runs_of_a_listed_ref_see_a_protected_secret() {
    let house = House::build().await;
    let secrets = house.secrets(KeySource::Folder);
    house.put(&secrets, "deploy", "x", &["refs/heads/main", "refs/heads/release/*"]).await;
    let sees = |reference: Option<&'static str>| {
        let (secrets, store) = (&secrets, &house.store);
        async move { secrets.open(store, "p", "deploy", reference).await }
    };
    for listed in ["refs/heads/main", "refs/heads/release/1"] {
        assert!(sees(Some(listed)).await.is_ok(), "{listed}");
    }
    for other in
        [Some("refs/heads/mainly"), Some("main"), Some("refs/heads/release/1/2"), Some("refs/pull/1/head"), None]
    {
        assert!(matches!(sees(other).await, Err(OpenError::Ref { .. })), "{other:?}");
    }
    assert!(secrets.open_for_engine(&house.store, "p", "deploy").await.is_ok());
    house.store.close().await;
}

#[tokio::test]
async fn what_cannot_be_kept_is_said() {
    let house = House::build().await;
    let secrets = house.secrets(KeySource::Folder);
    let big = "x".repeat(MAX_VALUE_BYTES + 1);
    for (name, value, reference) in
        [("a/b", "x", None), ("", "x", None), (".a", "x", None), ("a", "", None), ("a", big.as_str(), None)]
    {
        let refs = reference.map(str::to_owned).into_iter().collect();
        let put = secrets.put(&house.store, "p", name, value.as_bytes(), refs).await;
        assert!(matches!(put, Err(PutError::Invalid(_))), "{name:?}");
    }
    for pattern in ["main", "!refs/heads/main", "refs/heads/[a"] {
        let put = secrets.put(&house.store, "p", "a", b"x", vec![pattern.to_owned()]).await;
        assert!(matches!(put, Err(PutError::Invalid(_))), "{pattern:?}");
    }
    assert!(house.files().is_empty());
    house.store.close().await;
}

#[tokio::test]
async fn after_a_change_of_the_key_only_the_new_one_is_needed() {
    let house = House::build().await;
    let secrets = house.secrets(KeySource::Folder);
    for n in 0..5 {
        house.put(&secrets, &format!("s{n}"), &format!("v{n}"), &[]).await;
    }
    let before = secrets.key_ids();
    let changed = secrets.rekey(&house.store, None).await.expect("changed");
    assert_eq!((changed.secrets, changed.note), (5, None));
    assert_ne!(before, [changed.key_id.as_str()]);
    assert_eq!(secrets.key_ids(), [changed.key_id.as_str()]);
    assert_eq!(house.files(), BTreeSet::from(["secrets.key".to_owned()]));
    let again = house.secrets(KeySource::Folder);
    for n in 0..5 {
        house.check(&again, &format!("s{n}"), &format!("v{n}")).await;
    }
    // A given one, twice: the second time there is nothing to do.
    let given = "ab".repeat(32);
    assert_eq!(secrets.rekey(&house.store, Some(&given)).await.expect("changed").secrets, 5);
    assert_eq!(secrets.rekey(&house.store, Some(&given)).await.expect("no change").secrets, 0);
    assert!(secrets.rekey(&house.store, Some("short")).await.is_err());
    house.store.close().await;
}

#[tokio::test]
async fn a_change_that_was_interrupted_anywhere_is_finished_at_the_next_start() {
    let house = House::build().await;
    let secrets = house.secrets(KeySource::Folder);
    for n in 0..4 {
        house.put(&secrets, &format!("s{n}"), &format!("v{n}"), &[]).await;
    }
    let files = Files::new(house.folder.path(), KeySource::Folder);
    let old = secrets.ring().current.expect("made");
    // Interrupted before the new key took its place: the old one is in force, twice.
    put_old(&house, &old);
    assert_eq!(house.secrets(KeySource::Folder).finish(&house.store).await.expect("nothing to do"), 0);
    // Interrupted after it, with half of the secrets sealed anew.
    let new = Key::random();
    files.replace(Some(&old), &new).expect("stored");
    let half = house.secrets(KeySource::Folder);
    half.take_force(&house.store, &half.ring()).await.expect("written down");
    for name in ["s0", "s2"] {
        let row = house.store.sealed_secret("p", name).await.expect("readable").expect("there");
        assert!(half.convert_one(&house.store, &new, &row).await.expect("sealed anew"));
        assert!(!half.convert_one(&house.store, &new, &row).await.expect("decided"), "the row is another by now");
    }
    for n in 0..4 {
        house.check(&half, &format!("s{n}"), &format!("v{n}")).await;
    }
    let next = house.secrets(KeySource::Folder);
    assert_eq!(next.finish(&house.store).await.expect("finished"), 2);
    assert_eq!((next.key_ids().len(), house.files().len()), (1, 1));
    for n in 0..4 {
        house.check(&next, &format!("s{n}"), &format!("v{n}")).await;
    }
    house.store.close().await;
}

fn put_old(house: &House, old: &Key) {
    fs::write(house.folder.path().join("secrets.key.old"), hex::encode(old.bytes())).expect("written");
}

#[tokio::test]
async fn a_key_from_the_environment_is_followed_by_one_that_the_operator_installs() {
    let house = House::build().await;
    let given = |text: &str| KeySource::Given(Zeroizing::new(text.to_owned()));
    let (first, second) = ("11".repeat(32), "22".repeat(32));
    let secrets = house.secrets(given(&first));
    house.put(&secrets, "a", "x", &[]).await;
    let changed = secrets.rekey(&house.store, Some(&second)).await.expect("changed");
    assert!(changed.note.expect("there is something to do").contains("KICKWHEEL_SECRETS_KEY"));
    house.check(&secrets, "a", "x").await;
    assert_eq!(house.files(), BTreeSet::from(["secrets.key.next".to_owned()]));
    // Started once more before it was installed, and then after it.
    house.check(&house.secrets(given(&first)), "a", "x").await;
    let installed = house.secrets(given(&second));
    house.check(&installed, "a", "x").await;
    assert!(house.files().is_empty() && installed.note().is_none());

    let stranger = house.secrets(given(&"33".repeat(32)));
    let refused = stranger.open(&house.store, "p", "a", None).await.expect_err("another key").to_string();
    assert!(refused.contains(&changed.key_id) && refused.contains(&stranger.key_ids()[0]), "{refused}");
    house.store.close().await;
}

#[tokio::test]
async fn a_secret_that_is_replaced_meanwhile_is_not_overwritten() {
    let house = House::build().await;
    let secrets = house.secrets(KeySource::Folder);
    house.put(&secrets, "a", "old", &[]).await;
    let row = house.store.sealed_secret("p", "a").await.expect("readable").expect("there");
    house.put(&secrets, "a", "new", &[]).await;
    assert!(!secrets.convert_one(&house.store, &Key::random(), &row).await.expect("decided"));
    house.check(&secrets, "a", "new").await;
    let now = house.store.sealed_secret("p", "a").await.expect("readable").expect("there");
    assert_ne!(now.secret.stamp(), SecretStamp { ..row.secret.stamp() });
    house.store.close().await;
}

#[test]
fn keys_that_are_none_are_refused_with_where_they_come_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = KeySource::File(folder.path().join("nothing"));
    let error = Secrets::load(folder.path(), missing).expect_err("no file").to_string();
    assert!(error.contains("nothing"), "{error}");
    let text = KeySource::Given(Zeroizing::new("swordfish".to_owned()));
    let error = Secrets::load(folder.path(), text.clone()).expect_err("no key").to_string();
    assert!(error.contains("64 hex digits") && !error.contains("swordfish"), "{error}");
    assert!(!format!("{text:?}").contains("swordfish"));
}

#[tokio::test]
async fn an_engine_that_missed_a_change_of_the_key_seals_nothing_until_it_gets_the_new_one() {
    let house = House::build().await;
    let elsewhere = tempfile::tempdir().expect("a folder");
    // Both are given one file, as replicas are; each keeps what it makes itself in a folder of its own.
    let shared = elsewhere.path().join("shared.key");
    fs::write(&shared, "11".repeat(32)).expect("written");
    let file = || KeySource::File(shared.clone());
    let (here, there) = (house.secrets(file()), Secrets::load(elsewhere.path(), file()).expect("loaded"));
    house.put(&here, "a", "one", &[]).await;
    house.check(&there, "a", "one").await;

    let changed = here.rekey(&house.store, Some(&"22".repeat(32))).await.expect("changed");
    let refused = there.put(&house.store, "p", "b", b"x", Vec::new()).await.expect_err("it would be lost").to_string();
    assert!(refused.contains(&changed.key_id) && refused.contains(&there.key_ids()[0]), "{refused}");
    let refused = there.open(&house.store, "p", "a", None).await.expect_err("sealed anew").to_string();
    assert!(refused.contains("secrets rekey"), "{refused}");
    assert!(matches!(there.rekey(&house.store, None).await, Err(RekeyError::NotInForce { .. })));
    assert!(house.store.secrets(None).await.expect("readable").iter().all(|row| row.key_id == changed.key_id));

    // The operator puts the new key where both look, and nobody is started anew.
    fs::write(&shared, "22".repeat(32)).expect("written");
    house.check(&there, "a", "one").await;
    house.put(&there, "b", "two", &[]).await;
    house.check(&here, "b", "two").await;
    house.store.close().await;
}

#[tokio::test]
async fn whoever_lost_the_key_begins_anew_once_what_it_sealed_is_removed() {
    let house = House::build().await;
    let given = |text: &str| KeySource::Given(Zeroizing::new(text.to_owned()));
    house.put(&house.secrets(given(&"11".repeat(32))), "a", "x", &[]).await;
    let later = house.secrets(given(&"22".repeat(32)));
    let put = later.put(&house.store, "p", "b", b"y", Vec::new()).await;
    assert!(matches!(put, Err(PutError::NotInForce { .. })), "{put:?}");
    let named = kickwheel_store::write::RemoveNamed { project: "p".to_owned(), name: "a".to_owned() };
    house.store.write(vec![Write::RemoveSecret(named)]).await.expect("removed");
    house.put(&later, "b", "y", &[]).await;
    house.check(&later, "b", "y").await;
    house.store.close().await;
}
