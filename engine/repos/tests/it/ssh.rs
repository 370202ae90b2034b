//! Mirrors of origins behind a real `sshd`.

use std::fs;

use kickwheel_egress::{Denied, Egress, Settings};
use kickwheel_repos::{ChangedPaths, Credentials, FetchError, KnownHosts, MirrorId, Mirrors, PushRange};

use crate::{
    fixture::{Fixture, listing, run},
    ssh_server::{SshServer, make_key},
};

const HERE: &str = "127.0.0.1";

struct Remote {
    fixture: Fixture,
    server: SshServer,
    mirrors: Mirrors,
}

impl Remote {
    /// `None` where there is no `sshd`.
    fn new(allow: &[&str]) -> Option<Self> {
        let fixture = Fixture::new();
        let server = SshServer::start(&fixture.dir.path().join("sshd"))?;
        let allow = allow.iter().map(|entry| (*entry).to_owned()).collect();
        let egress = Egress::new(Settings { allow, ..Settings::default() }).expect("good settings");
        // Bytes that mean something to ssh.
        let mirrors = Mirrors::open_with(fixture.dir.path().join("far 100%h"), egress).expect("an empty folder");
        Some(Self { fixture, server, mirrors })
    }

    fn credentials(&self, known_hosts: KnownHosts) -> Credentials {
        Credentials::DeployKey { private_key: self.server.key(), known_hosts }
    }

    fn listed(&self) -> Credentials {
        self.credentials(KnownHosts::Listed(self.server.known_host(HERE)))
    }

    async fn mirror(&self, credentials: Credentials) -> MirrorId {
        self.mirror_of(&self.server.url(HERE, &self.fixture.origin()), credentials).await
    }

    async fn mirror_of(&self, url: &str, credentials: Credentials) -> MirrorId {
        let id = self.mirrors.mirror("ml", "team/churn", url).await.expect("a good URL");
        id.with_credentials(Some(credentials))
    }

    async fn refused(&self, credentials: Credentials) -> FetchError {
        let id = self.mirror(credentials).await;
        let listed = self.mirrors.ls_remote(&id).await.expect_err("refused");
        let fetched = self.mirrors.fetch(&id, &[]).await.expect_err("refused");
        assert_eq!(std::mem::discriminant(&listed), std::mem::discriminant(&fetched), "{listed} and {fetched}");
        fetched
    }
}

#[tokio::test]
async fn a_mirror_follows_pushes_and_notes_are_pushed() {
    let Some(remote) = Remote::new(&[HERE]) else { return };
    let id = remote.mirror(remote.listed()).await;
    let first = remote.fixture.push_file("a", "1");
    let fetched = remote.mirrors.fetch(&id, &[]).await.expect("let in");
    assert_eq!(fetched.head.expect("a branch").commit, first);
    let second = remote.fixture.push_file("b", "1");
    let range =
        PushRange { before: Some(first.clone()), after: second.clone(), branch: "main".into(), default_branch: None };
    let changed = remote.mirrors.changed_paths(&id, &range).await.expect("let in");
    assert_eq!(changed, ChangedPaths::Complete(vec![b"b".to_vec()]));
    let heads = remote.mirrors.ls_remote(&id).await.expect("let in");
    assert_eq!(heads.default_branch.as_deref(), Some("main"));
    assert_eq!(heads.refs.iter().map(|r| r.target.as_str()).collect::<Vec<_>>(), [second.as_str()]);
    remote.mirrors.add_note(&id, &second, run("r1"), "ok").await.expect("let in");
    remote.mirrors.add_note(&id, &second, run("r2"), "ok").await.expect("let in");
    let shown = remote.fixture.run(&["notes", "--ref=kickwheel", "show", &second], &remote.fixture.origin());
    assert_eq!(shown, "run: r1\nok\n\nrun: r2\nok");
    remote.fixture.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let third = remote.fixture.push_file("c", "1");
    let unseen = Mirrors::open_with(
        remote.fixture.dir.path().join("second"),
        Egress::new(Settings { allow: vec![HERE.into()], ..Settings::default() }).expect("good settings"),
    )
    .expect("an empty folder");
    let fresh = unseen.mirror("ml", "x", &id.url).await.expect("a URL").with_credentials(Some(remote.listed()));
    let range = PushRange { before: Some(second.clone()), after: third, branch: "main".into(), default_branch: None };
    let changed = unseen.changed_paths(&fresh, &range).await.expect("let in");
    assert!(matches!(&changed, ChangedPaths::Unknown(reason) if reason.contains(&second)), "{changed:?}");
    remote.fixture.run(&["fsck", "--full", "--strict"], id.path());
    let keys = remote.fixture.dir.path().join("far 100%h/.keys");
    assert_eq!(listing(&keys), [] as [&str; 0], "no key is left");
}

#[tokio::test]
async fn many_objects_arrive() {
    let Some(remote) = Remote::new(&[HERE]) else { return };
    let files: Vec<_> = (0..1_200).map(|n| (format!("f{n}"), format!("{n}").repeat(2_000))).collect();
    let commit = remote.fixture.import(&files);
    let id = remote.mirror(remote.listed()).await;
    let fetched = remote.mirrors.fetch(&id, &[]).await.expect("let in");
    assert_eq!(fetched.head.expect("a branch").commit, commit);
    remote.fixture.run(&["fsck", "--full", "--strict"], id.path());
}

#[tokio::test]
async fn a_wrong_key_is_refused() {
    let Some(remote) = Remote::new(&[HERE]) else { return };
    let other = remote.fixture.dir.path().join("other");
    make_key(&other);
    let known_hosts = KnownHosts::Listed(remote.server.known_host(HERE));
    for private_key in [fs::read_to_string(other).expect("made"), "no key".into()] {
        let credentials = Credentials::DeployKey { private_key, known_hosts: known_hosts.clone() };
        let error = remote.refused(credentials).await;
        assert!(matches!(&error, FetchError::Credentials { .. }), "{error}");
        assert!(error.to_string().contains("renew the secret"), "{error}");
    }
    let id = remote.mirror(remote.listed()).await.with_credentials(None);
    let error = remote.mirrors.fetch(&id, &[]).await.expect_err("no key at all");
    assert!(error.to_string().contains("needs a deploy key"), "{error}");
}

#[tokio::test]
async fn an_unknown_host_is_refused() {
    let Some(remote) = Remote::new(&[HERE]) else { return };
    let listed = remote.server.known_host(HERE);
    remote.server.change_host_key();
    for lines in [String::new(), listed] {
        let error = remote.refused(remote.credentials(KnownHosts::Listed(lines))).await;
        assert!(matches!(&error, FetchError::Untrusted { .. }), "{error}");
        assert!(error.to_string().contains("host key"), "{error}");
    }
}

#[tokio::test]
async fn the_first_host_key_is_kept_when_told_so() {
    let Some(remote) = Remote::new(&[HERE]) else { return };
    let id = remote.mirror(remote.credentials(KnownHosts::AcceptNew)).await;
    remote.mirrors.ls_remote(&id).await.expect("the first key is accepted");
    remote.mirrors.fetch(&id, &[]).await.expect("it is the same");
    remote.server.change_host_key();
    // Not even a mirror that is built anew forgets it.
    fs::remove_dir_all(id.path()).expect("ours");
    let error = remote.refused(remote.credentials(KnownHosts::AcceptNew)).await;
    assert!(matches!(&error, FetchError::Untrusted { .. }), "{error}");
    remote.mirrors.remove(&id).await.expect("ours");
    let id = remote.mirror(remote.credentials(KnownHosts::AcceptNew)).await;
    remote.mirrors.fetch(&id, &[]).await.expect("bound anew");
}

#[tokio::test]
async fn the_policy_holds_for_ssh_too() {
    let Some(remote) = Remote::new(&[]) else { return };
    for host in [HERE, "localhost"] {
        let id = remote.mirror_of(&remote.server.url(host, &remote.fixture.origin()), remote.listed()).await;
        let error = remote.mirrors.fetch(&id, &[]).await.expect_err("not listed");
        assert!(matches!(&error, FetchError::Denied { denied: Denied::Address { .. }, .. }), "{error}");
    }
}

#[tokio::test]
async fn a_name_is_looked_up_by_us_and_its_key_by_name() {
    let Some(remote) = Remote::new(&["localhost"]) else { return };
    remote.fixture.push_file("a", "1");
    let credentials = remote.credentials(KnownHosts::Listed(remote.server.known_host("localhost")));
    let id = remote.mirror_of(&remote.server.url("localhost", &remote.fixture.origin()), credentials).await;
    remote.mirrors.fetch(&id, &[]).await.expect("let in");
}

#[tokio::test]
async fn a_missing_repository_is_not_found() {
    let Some(remote) = Remote::new(&[HERE]) else { return };
    let absent = remote.fixture.dir.path().join("it's absent.git");
    let id = remote.mirror_of(&remote.server.url(HERE, &absent), remote.listed()).await;
    let error = remote.mirrors.fetch(&id, &[]).await.expect_err("absent");
    assert!(matches!(&error, FetchError::NotFound { .. }), "{error}");
}
