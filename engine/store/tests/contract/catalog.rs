//! What is configured or due.

use kickwheel_schemas::Digest;
use kickwheel_store::{Write, write};
use serde_json::json;

use crate::fixture::{AT, Fixture, PROJECT, assert_stale, new_run};

pub async fn revisions_of_a_registry_have_no_gaps(fixture: Fixture) {
    let store = fixture.open().await;
    let put = |revision: i64| {
        let body = json!({"revision": revision});
        vec![Write::PutRegistry(write::PutRegistry { project: PROJECT.into(), revision, body, at: AT })]
    };
    assert_eq!(store.registry(PROJECT, None).await.unwrap(), None);
    assert_stale(store.write(put(2)).await, "not the next revision");
    store.write(put(1)).await.unwrap();
    assert_stale(store.write(put(1)).await, "not the next revision");
    store.write(put(2)).await.unwrap();
    assert_eq!(store.registry(PROJECT, None).await.unwrap().unwrap().revision, 2);
    assert_eq!(store.registry(PROJECT, Some(1)).await.unwrap().unwrap().body, json!({"revision": 1}));
    assert_eq!(store.registry(PROJECT, Some(3)).await.unwrap(), None);
    assert_eq!(store.registry("other", None).await.unwrap(), None);
}

pub async fn named_things_are_put_replaced_and_removed(fixture: Fixture) {
    let store = fixture.open().await;
    let mut repo = write::PutRepo {
        project: PROJECT.into(),
        name: "churn".into(),
        url: "/srv/churn.git".into(),
        default_branch: None,
        hook: true,
        reason: Some("away".into()),
        secret: None,
        poll_ms: None,
        access: json!({}),
    };
    store.write(vec![Write::PutRepo(repo.clone())]).await.unwrap();
    assert_eq!(store.repo(PROJECT, "churn").await.unwrap(), Some(repo.clone()));
    repo.reason = None;
    repo.default_branch = Some("main".into());
    repo.secret = Some("deploy".into());
    repo.poll_ms = Some(60_000);
    repo.access = json!({"username": "ada"});
    store.write(vec![Write::PutRepo(repo.clone())]).await.unwrap();
    assert_eq!(store.repos(None).await.unwrap(), std::slice::from_ref(&repo));
    let note = |url: &str, branch: Option<&str>, reason: Option<&str>| {
        vec![Write::NoteRepo(write::NoteRepo {
            project: PROJECT.into(),
            name: "churn".into(),
            url: url.into(),
            default_branch: branch.map(str::to_owned),
            reason: reason.map(str::to_owned),
        })]
    };
    store.write(note(&repo.url, None, Some("away"))).await.unwrap();
    repo.reason = Some("away".into());
    assert_eq!(store.repo(PROJECT, "churn").await.unwrap(), Some(repo.clone()));
    store.write(note("/srv/another.git", Some("trunk"), None)).await.unwrap();
    assert_eq!(store.repo(PROJECT, "churn").await.unwrap(), Some(repo.clone()), "another URL is another repository");
    store.write(note(&repo.url, Some("trunk"), None)).await.unwrap();
    (repo.reason, repo.default_branch) = (None, Some("trunk".into()));
    assert_eq!(store.repos(None).await.unwrap(), [repo]);
    assert_eq!(store.repos(Some("other")).await.unwrap(), []);
    let mut watch = write::PutWatch {
        project: PROJECT.into(),
        name: "raw".into(),
        path: "/data".into(),
        settle_ms: 2000,
        state: json!({}),
    };
    store.write(vec![Write::PutWatch(watch.clone())]).await.unwrap();
    watch.state = json!({"digest": "d"});
    store.write(vec![Write::PutWatch(watch.clone())]).await.unwrap();
    assert_eq!(store.watches(Some(PROJECT)).await.unwrap(), [watch]);
    let named = |name: &str| write::RemoveNamed { project: PROJECT.into(), name: name.into() };
    store.write(vec![Write::RemoveRepo(named("churn")), Write::RemoveWatch(named("raw"))]).await.unwrap();
    assert_eq!(store.repos(None).await.unwrap(), []);
    assert_eq!(store.watches(None).await.unwrap(), []);

    let paused = |paused| {
        vec![Write::SetPaused(write::SetPaused { project: PROJECT.into(), workflow: "train".into(), paused, at: AT })]
    };
    store.write(paused(true)).await.unwrap();
    store.write(paused(true)).await.unwrap();
    assert_eq!(store.paused(PROJECT).await.unwrap(), ["train".to_owned()].into());
    store.write(paused(false)).await.unwrap();
    assert_eq!(store.paused(PROJECT).await.unwrap(), [].into());

    let plan = |digest: &[u8], at| write::PutPlan {
        project: PROJECT.into(),
        plan_digest: Digest::of(digest),
        source_digest: Digest::of(b"s"),
        name: "train".into(),
        yaml: "version: 1".into(),
        compiled: json!({"steps": []}),
        at,
    };
    let (old, new) = (plan(b"1", AT), plan(b"2", AT.plus(1)));
    store.write(vec![Write::PutPlan(old.clone()), Write::PutPlan(new)]).await.unwrap();
    store.write(vec![Write::PutPlan(plan(b"1", AT.plus(9)))]).await.unwrap();
    let read = store.plan(PROJECT, &old.plan_digest).await.unwrap().unwrap();
    assert_eq!((read.at, read.compiled), (AT, json!({"steps": []})));
    let versions = store.plan_versions(PROJECT, "train").await.unwrap();
    assert_eq!(versions.iter().map(|v| v.at).collect::<Vec<_>>(), [AT.plus(1), AT]);
    assert_eq!(store.plan("other", &old.plan_digest).await.unwrap(), None);

    let set = |value: &str| vec![Write::SetMeta(write::SetMeta { key: "k".into(), value: value.into() })];
    store.write(set("1")).await.unwrap();
    store.write(set("2")).await.unwrap();
    assert_eq!(store.meta("k").await.unwrap().as_deref(), Some("2"));
}

pub async fn a_report_that_was_replaced_is_not_done(fixture: Fixture) {
    let store = fixture.open().await;
    let run = new_run();
    let report =
        |due_at, body| Write::Report(write::Report { project: PROJECT.into(), run, due_at, body: json!(body) });
    store.write(vec![report(AT, 1)]).await.unwrap();
    assert_eq!(store.reports_due(AT.plus(0), 0).await.unwrap().len(), 1);
    let retry = write::ReportRetry { run, due_at: AT.plus(10), reason: "remote is away".into() };
    store.write(vec![Write::ReportRetry(retry)]).await.unwrap();
    assert_eq!(store.reports_due(AT.plus(9), 0).await.unwrap(), []);
    assert_eq!(store.next_report().await.unwrap(), Some(AT.plus(10)));
    let due = store.reports_due(AT.plus(10), 0).await.unwrap();
    assert_eq!((due[0].attempts, due[0].reason.as_deref()), (1, Some("remote is away")));
    store.write(vec![report(AT.plus(20), 2)]).await.unwrap();
    let done = |due_at| vec![Write::ReportDone(write::ReportDone { run, due_at })];
    store.write(done(due[0].due_at)).await.unwrap();
    let due = store.reports_due(AT.plus(20), 0).await.unwrap();
    assert_eq!((due[0].attempts, &due[0].body), (0, &json!(2)));
    store.write(done(due[0].due_at)).await.unwrap();
    assert_eq!(store.next_report().await.unwrap(), None);
}
