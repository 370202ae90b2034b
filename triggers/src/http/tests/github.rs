//! GitHub's deliveries, in fixtures of our own.

use kickwheel_schemas::Digest;
use serde_json::{Value, json};

use super::{bytes, headers, one, refused, translate, unverified};
use crate::http::{Headers, Provider::Github, SourceConfig};

const A: &str = "edc6a110dded0f00dc70ef2d210fdaef78f73ab5";
const B: &str = "c89d07313c450511948ae4deb81e645ce085f430";
const ZERO: &str = "0000000000000000000000000000000000000000";

fn push(before: &str, after: &str, full: &str) -> Value {
    json!({
        "ref": full, "before": before, "after": after, "created": before == ZERO, "deleted": after == ZERO,
        "forced": false, "base_ref": null,
        "commits": [{
            "id": after, "message": "Tune it\n\nMore words", "author": {"name": "Ada L", "username": "ada"},
            "added": ["b.py"], "removed": ["a.py"], "modified": ["src/x.py", "b.py"],
        }],
        "repository": {
            "full_name": "acme/churn", "clone_url": "https://github.com/acme/churn.git",
            "html_url": "https://github.com/acme/churn", "default_branch": "main", "pushed_at": 1_767_323_055,
        },
        "pusher": {"name": "ada"}, "sender": {"login": "ada", "id": 7},
    })
}

fn delivery(event: &str) -> Headers {
    headers(&[("x-github-event", event), ("X-GitHub-Delivery", "72d3162e"), ("Content-Type", "application/json")])
}

fn event(payload: &Value) -> kickwheel_schemas::CloudEvent {
    one(translate(Github, &unverified(), &delivery("push"), &bytes(payload)))
}

#[track_caller]
fn nothing(event: &str, payload: &Value) {
    assert_eq!(translate(Github, &unverified(), &delivery(event), &bytes(payload)), Ok(vec![]));
}

#[test]
fn a_push_becomes_one_event_with_everything_known() {
    let event = event(&push(A, B, "refs/heads/feature/x"));
    assert_eq!(
        serde_json::to_value(&event).expect("JSON"),
        json!({
            "specversion": "1.0", "id": "72d3162e", "source": "https://github.com/acme/churn.git",
            "type": "dev.kickwheel.git.branch.updated", "subject": "refs/heads/feature/x",
            "time": "2026-01-02T03:04:15.000Z", "datacontenttype": "application/json",
            "data": {
                "repo": "acme/churn", "provider": "github", "branch": "feature/x", "before": A, "after": B,
                "forced": false, "actor": "ada", "actor_id": "7", "commit_count": 1,
                "commits": [{"id": B, "message": "Tune it", "author": "ada"}],
                "default_branch": "main", "merge_queue": false, "changed_paths": ["a.py", "b.py", "src/x.py"],
            },
        })
    );
}

#[test]
fn zeros_tell_creation_from_deletion() {
    for (before, after, full, ty) in [
        (ZERO, A, "refs/heads/x", "branch.created"),
        (A, ZERO, "refs/heads/x", "branch.deleted"),
        (ZERO, A, "refs/tags/v1", "tag.created"),
        (A, B, "refs/tags/v1", "tag.updated"),
        (A, ZERO, "refs/tags/v1", "tag.deleted"),
    ] {
        let event = event(&push(before, after, full));
        assert_eq!(event.ty, format!("dev.kickwheel.git.{ty}"));
        assert_eq!(event.data["before"].is_null(), before == ZERO);
        assert_eq!(event.data["after"].is_null(), after == ZERO);
        assert_eq!(event.data.get("tag").is_some(), full.starts_with("refs/tags/"));
        if full.starts_with("refs/tags/") {
            assert!(event.data["changed_paths"].is_null(), "paths are not evaluated for tags");
        }
    }
    let long = |id: &str| id.repeat(2)[..64].to_owned();
    let sha256 = event(&push(&long(ZERO), &long(A), "refs/heads/x"));
    assert_eq!(sha256.ty, "dev.kickwheel.git.branch.created");
    assert_eq!(event(&push(A, ZERO, "refs/heads/x")).data["changed_paths"], json!([]));
}

#[test]
fn what_did_not_move_and_other_refs_mean_nothing() {
    nothing("push", &push(A, A, "refs/heads/x"));
    nothing("push", &push(ZERO, ZERO, "refs/heads/x"));
    nothing("push", &push(A, B, "refs/notes/commits"));
    nothing("ping", &json!({"zen": "x", "hook_id": 1}));
    nothing("star", &json!({"action": "created"}));
    nothing("pull_request", &json!({"action": "labeled", "number": 1}));
}

#[test]
fn a_list_of_paths_is_complete_or_says_why_not() {
    let check = |change: &dyn Fn(&mut Value), reason: &str| {
        let mut payload = push(A, B, "refs/heads/main");
        change(&mut payload);
        let paths = event(&payload).data["changed_paths"].clone();
        assert_eq!(
            paths,
            json!({"complete": false, "reason": reason, "action": "git diff --name-status -z before after"})
        );
    };
    check(&|p| p["commits"] = json!([]), "commits[] empty although trees differ");
    check(&|p| p["commits"] = Value::Null, "commits[] empty although trees differ");
    check(&|p| p["forced"] = json!(true), "forced: commits[] does not say what was taken away");
    check(&|p| p["commits"][0]["id"] = json!(A), "commits[] does not end with after");
    check(&|p| drop(p["commits"][0].as_object_mut().map(|c| c.remove("removed"))), "commits[] has no list removed");
    check(
        &|p| p["commits"][0]["added"] = (0..3000).map(|n| json!(format!("f{n}"))).collect(),
        "the files of a commit may end at 3000 of them",
    );
    check(
        &|p| p["commits"] = (0..2048).map(|_| push(A, B, "refs/heads/x")["commits"][0].clone()).collect(),
        "commits[] may end at 2048 of them",
    );
    check(
        &|p| p["commits"][0]["added"] = (0..200).map(|n| json!(format!("{n}{}", "x".repeat(1000)))).collect(),
        "203 paths are more than an event holds",
    );
    check(&|p| p["before"] = json!(ZERO), "before is null: a new branch is compared with its merge-base");
}

#[test]
fn the_newest_commits_are_kept_in_their_order() {
    let mut payload = push(A, B, "refs/heads/main");
    let commit = |n: usize| json!({"id": format!("{n:040x}"), "message": format!("m{n}"), "author": {"name": "x"}});
    payload["commits"] = (0..57).map(commit).collect();
    let data = event(&payload).data;
    assert_eq!(data["commit_count"], 57);
    let commits = data["commits"].as_array().expect("a list");
    assert_eq!((commits.len(), &commits[0]["message"], &commits[19]["message"]), (20, &json!("m37"), &json!("m56")));
}

#[test]
fn a_merge_queues_branch_and_its_nobody_are_told() {
    let mut payload = push(A, ZERO, "refs/heads/gh-readonly-queue/main/pr-1-edc6");
    payload["pusher"] = json!({"name": "none"});
    payload.as_object_mut().expect("an object").remove("sender");
    let data = event(&payload).data;
    assert_eq!((&data["merge_queue"], &data["actor"]), (&json!(true), &Value::Null));
}

#[test]
fn what_is_configured_wins_over_the_payload() {
    let config = SourceConfig { source: Some("ssh://git@github.com/acme/churn".into()), ..unverified() };
    let body = bytes(&push(A, B, "refs/heads/main"));
    assert_eq!(one(translate(Github, &config, &delivery("push"), &body)).source, "ssh://git@github.com/acme/churn");
}

#[test]
fn the_body_alone_suffices_and_names_the_event_by_its_digest() {
    let none = Headers::default();
    let judge = |payload: &Value| translate(Github, &unverified(), &none, &bytes(payload));
    let payload = push(A, B, "refs/heads/main");
    let event = one(judge(&payload));
    assert_eq!(event.id, Digest::of(&bytes(&payload)).to_string());
    assert_eq!(event, one(judge(&payload)), "a redelivery has the same id");
    assert_eq!(one(judge(&pull_request("opened", false, 1))).ty, "dev.kickwheel.git.pull_request.opened");
    assert_eq!(judge(&json!({"zen": "x", "hook_id": 1, "hook": {}})), Ok(vec![]));
    assert_eq!(judge(&json!({})), Ok(vec![]));
    assert_eq!(refused(judge(&json!([]))), (400, "shape_invalid", true));
}

#[test]
fn a_form_carries_the_same_payload() {
    let payload = push(A, B, "refs/heads/100% & +x").to_string();
    let payload = payload.replace("100% & +x", "a&b+c");
    let form: String = url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload).finish();
    let typed =
        headers(&[("X-GitHub-Event", "push"), ("content-type", "application/x-www-form-urlencoded; charset=utf-8")]);
    for headers in [typed.clone(), Headers::default()] {
        let event = one(translate(Github, &unverified(), &headers, form.as_bytes()));
        assert_eq!(event.subject.as_deref(), Some("refs/heads/a&b+c"));
    }
    for wrong in ["", "other=1", "payload={}&payload={}", "payload=%7B"] {
        let (status, _, kept) = refused(translate(Github, &unverified(), &typed, wrong.as_bytes()));
        assert!(status == 400 && kept, "{wrong}");
    }
}

#[test]
fn the_twins_of_a_push_are_recorded_under_types_of_their_own() {
    let twin = |event: &str, ref_type: &str| {
        let payload = json!({"ref": "v1/x", "ref_type": ref_type, "master_branch": "main",
            "repository": {"full_name": "acme/churn", "clone_url": "https://x/y.git"}});
        translate(Github, &unverified(), &delivery(event), &bytes(&payload))
    };
    let created = one(twin("create", "tag"));
    assert_eq!((created.ty.as_str(), created.subject.as_deref()), ("com.github.create", Some("refs/tags/v1/x")));
    let deleted = one(twin("delete", "branch"));
    assert_eq!((deleted.ty.as_str(), deleted.subject.as_deref()), ("com.github.delete", Some("refs/heads/v1/x")));
    assert_eq!(refused(twin("create", "repository")), (400, "shape_invalid", true));
}

fn pull_request(action: &str, merged: bool, head_repo: u64) -> Value {
    json!({
        "action": action, "number": 7, "before": A,
        "pull_request": {
            "title": "Better", "user": {"login": "eve", "id": 9}, "merged": merged, "merge_commit_sha": B,
            "draft": false, "updated_at": "2026-01-02T03:04:15Z",
            "head": {"ref": "fix", "sha": B, "repo": {"id": head_repo, "full_name": "eve/churn"}},
            "base": {"ref": "main", "sha": A, "repo": {"id": 1, "full_name": "acme/churn"}},
        },
        "repository": {"id": 1, "full_name": "acme/churn", "clone_url": "https://github.com/acme/churn.git"},
        "sender": {"login": "ada", "id": 7},
    })
}

#[test]
fn a_pull_request_tells_its_sides_and_whether_it_is_trusted() {
    let event = |payload: &Value| one(translate(Github, &unverified(), &delivery("pull_request"), &bytes(payload)));
    for (action, merged, ty) in [
        ("opened", false, "opened"),
        ("reopened", false, "opened"),
        ("synchronize", false, "updated"),
        ("closed", true, "merged"),
        ("closed", false, "closed"),
    ] {
        let event = event(&pull_request(action, merged, 1));
        assert_eq!(event.ty, format!("dev.kickwheel.git.pull_request.{ty}"));
        assert_eq!(event.data["merge_commit"].is_null(), !merged, "a trial merge is no commit of the branch");
    }
    let outsider = event(&pull_request("opened", false, 2));
    assert_eq!(outsider.subject.as_deref(), Some("refs/pull/7/head"));
    assert_eq!(
        outsider.data,
        json!({
            "repo": "acme/churn", "provider": "github", "number": 7, "title": "Better", "author": "eve", "author_id": "9",
            "actor": "ada", "actor_id": "7", "head": {"repo": "eve/churn", "branch": "fix", "commit": B},
            "base": {"repo": "acme/churn", "branch": "main", "commit": A}, "trusted": false, "before": A,
            "merge_commit": null, "draft": false,
        })
    );
    assert_eq!(event(&pull_request("opened", false, 1)).data["trusted"], true);
    let mut gone = pull_request("opened", false, 1);
    gone["pull_request"]["head"]["repo"] = Value::Null;
    let data = event(&gone).data;
    assert_eq!((&data["trusted"], &data["head"]["repo"]), (&json!(false), &Value::Null));
}

#[test]
fn a_field_of_the_wrong_kind_is_refused_by_name_and_kept() {
    let check = |path: &str, value: Value| {
        let mut payload = push(A, B, "refs/heads/main");
        *payload.pointer_mut(path).expect("it is there") = value;
        let refusal = translate(Github, &unverified(), &delivery("push"), &bytes(&payload)).expect_err(path);
        assert_eq!((refusal.status, refusal.code, refusal.quarantine), (400, "shape_invalid", true), "{path}");
        let name = path.trim_start_matches('/').replace("/0/", "/").replace('/', ".");
        assert!(refusal.reason.contains(&name), "{}", refusal.reason);
    };
    for (path, value) in [
        ("/ref", json!(null)),
        ("/ref", json!(5)),
        ("/ref", json!("main")),
        ("/ref", json!("refs/heads/")),
        ("/ref", json!("refs/heads/a b")),
        ("/ref", json!("refs/heads/a\u{0}b")),
        ("/ref", json!("refs/heads/../x")),
        ("/before", json!("abc")),
        ("/after", json!(A.to_uppercase())),
        ("/after", json!({})),
        ("/commits", json!("x")),
        ("/commits/0/id", json!(["x"])),
        ("/commits/0/added", json!("x")),
        ("/commits/0/added", json!([5])),
        ("/forced", json!("yes")),
        ("/base_ref", json!(5)),
        ("/repository/full_name", json!(5)),
        ("/repository/full_name", json!(null)),
    ] {
        check(path, value);
    }
    let answer = refused(translate(Github, &unverified(), &delivery("push"), b"{\"ref\": "));
    assert_eq!(answer, (400, "json_invalid", true));
    assert_eq!(refused(translate(Github, &unverified(), &delivery("push"), b"")), (400, "json_invalid", true));
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(
        refused(translate(Github, &unverified(), &delivery("push"), deep.as_bytes())),
        (400, "json_invalid", true)
    );
}
