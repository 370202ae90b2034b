//! Mirrors of origins behind `git http-backend`, over http and https.

use std::{fs, time::Duration};

use kickwheel_egress::{Class, Denied, Egress, Settings};
use kickwheel_repos::{
    ChangedPaths, Credentials, FetchError, MirrorId, Mirrors, NoteError, PushRange, RemoteRef, Retry,
};

use crate::{
    fixture::{Fixture, run},
    http_server::{Authority, Server, Setup, status},
};

const HERE: &str = "127.0.0.1";

/// A fixture whose origin is reached over a network.
struct Remote {
    fixture: Fixture,
    authority: Authority,
    mirrors: Mirrors,
}

impl Remote {
    fn new() -> Self {
        Self::with(|settings| settings)
    }

    fn with(change: impl FnOnce(Settings) -> Settings) -> Self {
        let (fixture, authority) = (Fixture::new(), Authority::new());
        let settings = Settings { allow: vec![HERE.into()], authorities: vec![authority.pem()], ..Settings::default() };
        let egress = Egress::new(change(settings)).expect("good settings");
        let mirrors = Mirrors::open_with(fixture.dir.path().join("far"), egress).expect("an empty folder");
        Self { fixture, authority, mirrors }
    }

    fn serve(&self, setup: Setup) -> Server {
        Server::start(self.fixture.dir.path(), setup)
    }

    async fn mirror(&self, url: &str) -> MirrorId {
        self.mirrors.mirror("ml", "churn", url).await.expect("a good URL")
    }

    async fn fetch(&self, url: &str, credentials: Option<Credentials>) -> Result<(), FetchError> {
        let id = self.mirror(url).await.with_credentials(credentials);
        self.mirrors.fetch(&id, &[]).await.map(drop)
    }

    async fn changed(&self, id: &MirrorId, before: &str, after: &str) -> Result<Vec<String>, String> {
        let range = PushRange {
            before: Some(before.into()),
            after: after.into(),
            branch: "main".into(),
            default_branch: Some("main".into()),
        };
        match self.mirrors.changed_paths(id, &range).await.expect("the origin is reachable") {
            ChangedPaths::Complete(paths) => Ok(paths.iter().map(|path| path.escape_ascii().to_string()).collect()),
            ChangedPaths::Unknown(reason) => Err(reason),
        }
    }
}

fn basic(password: &str) -> Credentials {
    Credentials::Basic { user: "ada".into(), password: password.into() }
}

/// `ada:secret`, in base 64.
const BASIC: &str = "Basic YWRhOnNlY3JldA==";

fn packs(id: &MirrorId) -> usize {
    let files = fs::read_dir(id.path().join("objects/pack")).expect("a folder");
    files.filter(|f| f.as_ref().is_ok_and(|f| f.path().extension().is_some_and(|e| e == "pack"))).count()
}

#[tokio::test]
async fn a_mirror_follows_pushes_and_force_pushes() {
    for tls in [false, true] {
        let remote = Remote::new();
        let setup = Setup::default().authorization(BASIC);
        let server = remote.serve(if tls { setup.tls(&remote.authority) } else { setup });
        let id = remote.mirror(&server.url(HERE, "origin.git")).await.with_credentials(Some(basic("secret")));
        let fetched = remote.mirrors.fetch(&id, &[]).await.expect("empty, but there");
        assert_eq!((fetched.head, fetched.moved), (None, 0));
        let first = remote.fixture.push_file("a", "1");
        let fetched = remote.mirrors.fetch(&id, &[]).await.expect("reachable");
        assert_eq!(fetched.head.expect("a branch").commit, first);
        let second = remote.fixture.push_file("b", "1");
        assert_eq!(remote.changed(&id, &first, &second).await, Ok(vec!["b".into()]));
        remote.fixture.git(&["tag", "-a", "-m", "x", "v1"]);
        remote.fixture.push("v1");
        remote.fixture.git(&["reset", "-q", "--hard", "HEAD~1"]);
        let third = remote.fixture.push_file("c", "1");
        assert_eq!(remote.changed(&id, &second, &third).await, Ok(vec!["b".into(), "c".into()]));
        let names: Vec<_> = remote.mirrors.heads(&id).await.expect("fetched").into_iter().map(|r| r.name).collect();
        assert_eq!(names, ["refs/heads/main", "refs/tags/v1"]);
        remote.fixture.push(":refs/tags/v1");
        assert_eq!(remote.mirrors.fetch(&id, &[]).await.expect("reachable").moved, 1);
        assert_eq!(remote.mirrors.fetch(&id, &[]).await.expect("reachable").moved, 0);
        remote.fixture.run(&["fsck", "--full", "--strict"], id.path());
        assert_eq!(packs(&id), 0, "small pushes leave no packs");
        assert!(!id.path().join("kickwheel-staging").exists());
    }
}

#[tokio::test]
async fn many_objects_arrive_as_one_pack() {
    let remote = Remote::new();
    let files: Vec<_> = (0..1_200).map(|n| (format!("d{}/f{n}", n % 7), n.to_string())).collect();
    remote.fixture.import(&files);
    let server = remote.serve(Setup::default().tls(&remote.authority));
    let id = remote.mirror(&server.url("localhost", "origin.git")).await;
    remote.mirrors.fetch(&id, &[]).await.expect("reachable");
    remote.fixture.git(&["fetch", "-q", "origin"]);
    remote.fixture.git(&["reset", "-q", "--hard", "origin/main"]);
    let commit = remote.fixture.push_file("one-more", "x");
    remote.mirrors.fetch(&id, &[]).await.expect("reachable");
    remote.fixture.run(&["fsck", "--full", "--strict"], id.path());
    assert_eq!(remote.fixture.run(&["rev-parse", "main"], id.path()), commit);
    assert_eq!(packs(&id), 1);
}

#[tokio::test]
async fn the_commit_before_a_force_push_is_fetched_if_the_server_hands_it_out() {
    let remote = Remote::new();
    remote.fixture.push_file("kept", "1");
    let before = remote.fixture.push_file("dropped", "1");
    remote.fixture.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let after = remote.fixture.push_file("instead", "1");
    let server = remote.serve(Setup::default());
    let id = remote.mirror(&server.url(HERE, "origin.git")).await;
    let unknown = remote.changed(&id, &before, &after).await.expect_err("the server hands out what branches lead to");
    assert!(unknown.contains(&before) && unknown.contains("no more"), "{unknown}");
    for setting in ["uploadpack.allowReachableSHA1InWant", "uploadpack.allowAnySHA1InWant"] {
        remote.fixture.run(&["config", setting, "true"], &remote.fixture.origin());
        let seen = remote.changed(&id, &before, &after).await;
        if setting.contains("Any") {
            assert_eq!(seen, Ok(vec!["dropped".into(), "instead".into()]));
        } else {
            seen.expect_err("no branch leads there");
        }
    }
    remote.fixture.run(&["fsck", "--full", "--strict"], id.path());
    let error = remote.mirrors.fetch(&id, &["11".repeat(20)]).await.expect_err("nobody has it");
    assert!(matches!(&error, FetchError::Gone { .. }), "{error}");
}

#[tokio::test]
async fn credentials_are_right_or_the_error_says_so() {
    let remote = Remote::new();
    remote.fixture.push_file("a", "1");
    for tls in [false, true] {
        let with_tls = |setup: Setup| if tls { setup.tls(&remote.authority) } else { setup };
        let server = remote.serve(with_tls(Setup::default().authorization(BASIC)));
        let url = server.url(HERE, "origin.git");
        for (credentials, part) in [(None, "configure credentials"), (Some(basic("wrong")), "renew the secret")] {
            let error = remote.fetch(&url, credentials).await.expect_err("refused");
            assert!(matches!(&error, FetchError::Credentials { .. }), "{error}");
            assert!(error.to_string().contains(part) && !error.to_string().contains("wrong"), "{error}");
            assert_eq!(error.retry(), Retry::Stop);
        }
        remote.fetch(&url, Some(basic("secret"))).await.expect("let in");
        let server = remote.serve(with_tls(Setup::default().authorization("Bearer t0ken")));
        let url = server.url(HERE, "origin.git");
        remote.fetch(&url, Some(Credentials::Bearer { token: "t0ken".into() })).await.expect("let in");
    }
    // A host that nobody vouches for gets no password in the clear; nothing is even looked up.
    let error = remote.fetch("http://git.invalid/x.git", Some(basic("secret"))).await.expect_err("in the clear");
    assert!(error.to_string().contains("unencrypted; use https, or add git.invalid to egress.allow"), "{error}");
    assert_eq!(format!("{:?}", basic("secret")), "a user and password");
}

#[tokio::test]
async fn an_unknown_authority_is_not_trusted() {
    let remote = Remote::new();
    let server = remote.serve(Setup::default().tls(&Authority::new()));
    let error = remote.fetch(&server.url(HERE, "origin.git"), None).await.expect_err("another authority");
    assert!(matches!(&error, FetchError::Untrusted { .. }), "{error}");
    assert!(error.to_string().contains("egress.authorities"), "{error}");
    assert_eq!(server.asked(), []);
}

#[tokio::test]
async fn this_machine_is_denied_unless_it_is_listed() {
    let remote = Remote::with(|settings| Settings { allow: vec![], ..settings });
    let server = remote.serve(Setup::default());
    for host in [HERE, "localhost"] {
        let error = remote.fetch(&server.url(host, "origin.git"), None).await.expect_err("not listed");
        let loopback =
            matches!(&error, FetchError::Denied { denied: Denied::Address { class: Class::Loopback, .. }, .. });
        assert!(loopback && error.to_string().contains("egress.allow"), "{error}");
        assert_eq!(error.retry(), Retry::Stop);
    }
    assert_eq!(server.asked(), []);
}

/// Sends everything below `/moved.git` to `to`.
fn moved(to: String) -> Setup {
    Setup::default().rule(move |request| {
        let rest = request.path.strip_prefix("/moved.git")?;
        Some(status("301 Moved Permanently", &format!("location: {to}{rest}?{}\r\n", request.query)))
    })
}

#[tokio::test]
async fn a_redirect_on_the_same_host_is_followed() {
    let remote = Remote::new();
    remote.fixture.push_file("a", "1");
    let server = remote.serve(moved("/origin.git".into()).authorization(BASIC));
    remote.fetch(&server.url(HERE, "moved.git"), Some(basic("secret"))).await.expect("followed");
    let asked: Vec<_> = server.asked().into_iter().map(|(what, _)| what).collect();
    assert_eq!(asked, ["GET /moved.git/info/refs", "GET /origin.git/info/refs", "POST /origin.git/git-upload-pack"]);
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let remote = Remote::new();
    remote.fixture.push_file("a", "1");
    let open = remote.serve(Setup::default());
    let first = remote.serve(moved(open.url(HERE, "origin.git")));
    remote.fetch(&first.url(HERE, "moved.git"), Some(basic("secret"))).await.expect("open to everybody");
    assert!(first.asked().iter().all(|(_, credentials)| credentials.as_deref() == Some(BASIC)));
    assert_eq!(open.asked().len(), 2);
    let closed = remote.serve(Setup::default().authorization(BASIC));
    let first = remote.serve(moved(closed.url(HERE, "origin.git")));
    let error = remote.fetch(&first.url(HERE, "moved.git"), Some(basic("secret"))).await.expect_err("not let in");
    assert!(matches!(&error, FetchError::Redirected { .. }), "{error}");
    for (_, credentials) in open.asked().into_iter().chain(closed.asked()) {
        assert_eq!(credentials, None);
    }
    let secure = remote.serve(moved(open.url(HERE, "origin.git")).tls(&remote.authority));
    let error = remote.fetch(&secure.url(HERE, "moved.git"), None).await.expect_err("it leaves TLS");
    assert!(matches!(&error, FetchError::Denied { denied: Denied::Downgrade { .. }, .. }), "{error}");
}

#[tokio::test]
async fn a_redirect_into_a_denied_address_is_refused() {
    let remote = Remote::with(|settings| Settings { allow: vec!["localhost".into()], ..settings });
    let inner = remote.serve(Setup::default());
    let outer = remote.serve(moved(inner.url(HERE, "origin.git")));
    let error = remote.fetch(&outer.url("localhost", "moved.git"), None).await.expect_err("not listed");
    assert!(matches!(&error, FetchError::Denied { denied: Denied::Address { .. }, .. }), "{error}");
    assert_eq!((outer.asked().len(), inner.asked().len()), (1, 0));
}

#[tokio::test]
async fn other_answers_are_told_apart() {
    let brief = Duration::from_millis(300);
    let remote = Remote::with(|settings| Settings { idle_timeout: brief, ..settings });
    let server = remote.serve(Setup::default());
    let error = remote.fetch(&server.url(HERE, "absent.git"), None).await.expect_err("absent");
    assert!(matches!(&error, FetchError::NotFound { .. }), "{error}");

    let broken = remote.serve(Setup::default().rule(|_| Some(status("503 Service Unavailable", ""))));
    let error = remote.fetch(&broken.url(HERE, "origin.git"), None).await.expect_err("an error");
    assert!(matches!(&error, FetchError::Unreachable { reason, .. } if reason.contains("503")), "{error}");
    assert_eq!(error.retry(), Retry::Later);

    let page = remote.serve(Setup::default().rule(|_| Some(status("200 OK", "content-type: text/html\r\n"))));
    let error = remote.fetch(&page.url(HERE, "origin.git"), None).await.expect_err("a page");
    assert!(matches!(&error, FetchError::Unsupported { reason, .. } if reason.contains("text/html")), "{error}");

    let silent = std::net::TcpListener::bind((HERE, 0)).expect("a free port");
    let url = format!("http://{HERE}:{}/x.git", silent.local_addr().expect("bound").port());
    let error = remote.fetch(&url, None).await.expect_err("silence");
    assert!(matches!(&error, FetchError::TimedOut { limit, .. } if *limit == brief), "{error}");
    assert_eq!(error.retry(), Retry::Later);
    drop(silent);
    let error = remote.fetch(&url, None).await.expect_err("nobody there");
    assert!(matches!(&error, FetchError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn repositories_that_cannot_be_read_are_named() {
    let remote = Remote::new();
    let dir = remote.fixture.dir.path();
    remote.fixture.run(&["init", "-q", "--bare", "-b", "main", "--object-format=sha256", "wide.git"], dir);
    remote.fixture.push_file("a", "1");
    remote.fixture.push_file("a", "2");
    let origin = format!("file://{}", remote.fixture.origin().display());
    remote.fixture.run(&["clone", "-q", "--bare", "--depth=1", &origin, "shallow.git"], dir);
    remote.fixture.run(&["init", "-q", "--object-format=sha256", "wide"], dir);
    let wide = dir.join("wide");
    remote.fixture.run(&["commit", "-q", "--allow-empty", "-m", "x"], &wide);
    remote.fixture.run(&["push", "-q", "../wide.git", "HEAD:main"], &wide);
    let server = remote.serve(Setup::default());
    for (path, part) in [("wide.git", "object format sha256"), ("shallow.git", "git fetch --unshallow")] {
        let error = remote.fetch(&server.url(HERE, path), None).await.expect_err(path);
        assert!(matches!(&error, FetchError::Unsupported { reason, .. } if reason.contains(part)), "{error}");
    }
}

#[tokio::test]
async fn branches_and_tags_are_listed_without_a_fetch() {
    let remote = Remote::new();
    let commit = remote.fixture.push_file("a", "1");
    remote.fixture.git(&["tag", "light"]);
    remote.fixture.git(&["tag", "-a", "-m", "x", "heavy"]);
    remote.fixture.push("refs/tags/*:refs/tags/*");
    let tag = remote.fixture.git(&["rev-parse", "heavy"]);
    let expected = [
        RemoteRef { name: "refs/heads/main".into(), target: commit.clone(), peeled: None },
        RemoteRef { name: "refs/tags/heavy".into(), target: tag, peeled: Some(commit.clone()) },
        RemoteRef { name: "refs/tags/light".into(), target: commit.clone(), peeled: None },
    ];
    let here = remote.fixture.mirror().await;
    let plain = remote.serve(Setup::default());
    let secure = remote.serve(Setup::default().tls(&remote.authority).authorization(BASIC));
    let ids = [
        here,
        remote.mirror(&plain.url(HERE, "origin.git")).await,
        remote.mirror(&secure.url(HERE, "origin.git")).await.with_credentials(Some(basic("secret"))),
    ];
    for id in ids {
        let heads = remote.mirrors.ls_remote(&id).await.expect("reachable");
        assert_eq!(heads.default_branch.as_deref(), Some("main"), "{}", id.url);
        assert_eq!(heads.refs, expected, "{}", id.url);
        assert_eq!(remote.mirrors.clone().heads(&id).await.expect("a mirror").len(), 0, "nothing was fetched");
    }
    assert_eq!(plain.asked(), [("GET /origin.git/info/refs".into(), None)]);
}

#[tokio::test]
async fn two_repositories_at_once_keep_their_credentials_apart() {
    let remote = Remote::new();
    remote.fixture.push_file("a", "1");
    let server = remote.serve(Setup::default().authorization(BASIC));
    let url = server.url(HERE, "origin.git");
    let good = remote.mirrors.mirror("ml", "good", &url).await.expect("a URL").with_credentials(Some(basic("secret")));
    let bad = remote.mirrors.mirror("ml", "bad", &url).await.expect("a URL").with_credentials(Some(basic("wrong")));
    for _ in 0..5 {
        let (right, wrong) = tokio::join!(remote.mirrors.fetch(&good, &[]), remote.mirrors.fetch(&bad, &[]));
        right.expect("let in");
        assert!(matches!(wrong, Err(FetchError::Credentials { .. })));
    }
}

fn shown(remote: &Remote, commit: &str) -> String {
    remote.fixture.run(&["notes", "--ref=kickwheel", "show", commit], &remote.fixture.origin())
}

#[tokio::test]
async fn notes_are_pushed() {
    let remote = Remote::new();
    let commit = remote.fixture.push_file("a", "1");
    let server = remote.serve(Setup::default().tls(&remote.authority).authorization(BASIC));
    let id = remote.mirror(&server.url(HERE, "origin.git")).await.with_credentials(Some(basic("secret")));
    assert_eq!(remote.mirrors.read_note(&id, &commit).await.expect("reachable"), None);
    remote.mirrors.add_note(&id, &commit, run("r1"), "running").await.expect("let in");
    remote.mirrors.add_note(&id, &commit, run("r2"), "succeeded").await.expect("let in");
    remote.mirrors.add_note(&id, &commit, run("r1"), "failed").await.expect("let in");
    let expected = "run: r1\nfailed\n\nrun: r2\nsucceeded";
    assert_eq!(shown(&remote, &commit), expected);
    assert_eq!(remote.mirrors.read_note(&id, &commit).await.expect("reachable"), Some(format!("{expected}\n")));
    let pushes = || server.asked().iter().filter(|(what, _)| what.ends_with("git-receive-pack")).count();
    let before = pushes();
    remote.mirrors.add_note(&id, &commit, run("r1"), "failed").await.expect("nothing to do");
    assert_eq!(pushes(), before, "the same text again pushes nothing");
    let error = remote.mirrors.add_note(&id, &"11".repeat(20), run("r"), "x").await.expect_err("nobody has it");
    assert!(matches!(error, NoteError::NoCommit { .. }), "{error}");
    remote.fixture.run(&["fsck", "--full", "--strict"], &remote.fixture.origin());
    remote.fixture.run(&["fsck", "--full", "--strict"], id.path());
}

#[tokio::test]
async fn writers_of_notes_at_the_same_time_lose_nothing() {
    const WRITERS: usize = 4;
    let remote = Remote::new();
    let commit = remote.fixture.push_file("a", "1");
    let server = remote.serve(Setup::default());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (mirrors, commit, url) = (remote.mirrors.clone(), commit.clone(), server.url(HERE, "origin.git"));
        writers.spawn(async move {
            // A mirror for each, so that no lock of ours keeps them apart.
            let id = mirrors.mirror("ml", &format!("m{writer}"), &url).await.expect("a URL");
            for round in 0..3 {
                mirrors.add_note(&id, &commit, run(&format!("w{writer}r{round}")), "x").await.expect("at last");
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.expect("no panic");
    }
    let sections = shown(&remote, &commit).lines().filter(|line| line.starts_with("run: ")).count();
    assert_eq!(sections, WRITERS * 3);
}

#[tokio::test]
async fn a_server_that_wants_no_notes_says_so() {
    let remote = Remote::new();
    let commit = remote.fixture.push_file("a", "1");
    let hook = remote.fixture.origin().join("hooks/pre-receive");
    fs::create_dir_all(hook.parent().expect("in a folder")).expect("a folder");
    fs::write(&hook, "#!/bin/sh\nexit 1\n").expect("a file");
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    let server = remote.serve(Setup::default());
    let id = remote.mirror(&server.url(HERE, "origin.git")).await;
    let error = remote.mirrors.add_note(&id, &commit, run("r"), "x").await.expect_err("declined");
    assert!(error.to_string().contains("pre-receive hook declined"), "{error}");
    assert!(!remote.fixture.origin().join("refs/notes/kickwheel").exists());
}

#[tokio::test]
async fn a_damaged_mirror_is_built_anew() {
    let remote = Remote::new();
    let first = remote.fixture.push_file("a", "1");
    let server = remote.serve(Setup::default());
    let id = remote.mirror(&server.url(HERE, "origin.git")).await;
    remote.mirrors.fetch(&id, &[]).await.expect("reachable");
    let object = id.path().join("objects").join(&first[..2]).join(&first[2..]);
    fs::remove_file(object).expect("a small push arrives loose");
    let second = remote.fixture.push_file("b", "1");
    remote.mirrors.fetch(&id, &[]).await.expect("reachable");
    assert_eq!(remote.changed(&id, &first, &second).await, Ok(vec!["b".into()]));
    remote.fixture.run(&["fsck", "--full", "--strict"], id.path());
}
