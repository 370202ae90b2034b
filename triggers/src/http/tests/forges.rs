//! Forges beside GitHub: one story told by each in its own words, and what is peculiar to one of them.

use serde_json::{Value, json};

use super::{bytes, headers, one, refused, translate, unverified};
use crate::http::{Headers, Provider, SourceConfig};

const A: &str = "edc6a110dded0f00dc70ef2d210fdaef78f73ab5";
const B: &str = "c89d07313c450511948ae4deb81e645ce085f430";
const ZERO: &str = "0000000000000000000000000000000000000000";

fn id(hash: &str) -> String {
    hash.to_owned()
}

/// A push as each forge writes it.
pub(super) fn push(provider: Provider, before: &str, after: &str, full: &str) -> Value {
    let listed = |id: &str| {
        json!({"id": id, "message": "Tune it\n\nMore", "author": {"name": "Ada", "username": "ada"},
            "added": ["b.py"], "removed": ["a.py"], "modified": ["src/x.py"]})
    };
    match provider {
        Provider::Gitlab => json!({
            "object_kind": if full.starts_with("refs/tags/") { "tag_push" } else { "push" },
            "ref": full, "before": before, "after": after, "checkout_sha": after,
            "user_id": 4, "user_name": "Ada L", "user_username": "ada", "user_email": "[REDACTED]",
            "project": {"id": 15, "path_with_namespace": "acme/ml/churn", "default_branch": "main",
                "git_http_url": "https://gitlab.example/acme/ml/churn.git"},
            "commits": [listed(after)], "total_commits_count": 1,
        }),
        Provider::Gitea | Provider::Forgejo | Provider::Gogs => json!({
            "ref": full, "before": before, "after": after, "commits": [listed(after)], "total_commits": 1,
            "repository": {"id": 1, "full_name": "acme/churn", "default_branch": "main",
                "clone_url": "https://git.example/acme/churn.git"},
            "pusher": {"id": 7, "login": "ada"}, "sender": {"id": 7, "login": "ada"},
        }),
        Provider::BitbucketCloud => {
            let (kind, name) = full.strip_prefix("refs/").expect("a ref").split_once('/').expect("a kind");
            let side = |hash: &str| match hash {
                ZERO => Value::Null,
                _ => json!({"type": if kind == "tags" { "tag" } else { "branch" }, "name": name,
                    "target": {"hash": hash, "date": "2026-01-02T03:04:15+00:00"}}),
            };
            json!({
                "push": {"changes": [{"old": side(before), "new": side(after), "forced": false, "truncated": false,
                    "commits": [{"hash": after, "message": "Tune it", "author": {"user": {"nickname": "ada"}}}]}]},
                "repository": {"full_name": "acme/churn", "mainbranch": {"name": "main"},
                    "links": {"html": {"href": "https://bitbucket.org/acme/churn"}}},
                "actor": {"nickname": "ada", "uuid": "{7}", "account_id": "x:7"},
            })
        }
        Provider::BitbucketDc => json!({
            "eventKey": "repo:refs_changed", "date": "2026-01-02T04:04:15+0100", "actor": {"name": "ada", "id": 7},
            "repository": {"slug": "churn", "project": {"key": "ACME"},
                "links": {"clone": [{"href": "ssh://git@b.example/acme/churn.git", "name": "ssh"},
                    {"href": "https://b.example/scm/acme/churn.git", "name": "http"}]}},
            "changes": [{"ref": {"id": full}, "fromHash": before, "toHash": after,
                "type": if before == ZERO { "ADD" } else if after == ZERO { "DELETE" } else { "UPDATE" }}],
        }),
        other => panic!("{other} is no forge of this table"),
    }
}

/// A pull request that is opened from a fork, as each forge writes it.
pub(super) fn pull_request(provider: Provider, fork: bool) -> Value {
    let head = if fork { 2 } else { 1 };
    match provider {
        Provider::Gitlab => json!({
            "object_kind": "merge_request", "user": {"id": 9, "username": "eve"},
            "project": {"path_with_namespace": "acme/churn", "git_http_url": "https://gitlab.example/acme/churn.git"},
            "object_attributes": {"iid": 7, "action": "open", "title": "Better", "author_id": 9,
                "source_branch": "fix", "target_branch": "main", "source_project_id": head, "target_project_id": 1,
                "last_commit": {"id": B}, "updated_at": "2026-01-02 03:04:15 UTC", "draft": true,
                "source": {"path_with_namespace": "eve/churn"}, "target": {"path_with_namespace": "acme/churn"}},
        }),
        Provider::Gitea | Provider::Forgejo => json!({
            "action": "opened", "number": 7, "sender": {"id": 9, "login": "eve"},
            "repository": {"full_name": "acme/churn", "clone_url": "https://git.example/acme/churn.git"},
            "pull_request": {"title": "Better", "user": {"id": 9, "login": "eve"}, "merged": false, "draft": true,
                "updated_at": "2026-01-02T03:04:15Z",
                "head": {"ref": "fix", "sha": B, "repo_id": head, "repo": {"full_name": "eve/churn"}},
                "base": {"ref": "main", "sha": A, "repo_id": 1, "repo": {"full_name": "acme/churn"}}},
        }),
        Provider::Gogs => json!({
            "action": "opened", "number": 7, "sender": {"id": 9, "username": "eve"},
            "repository": {"full_name": "acme/churn", "clone_url": "https://git.example/acme/churn.git"},
            "pull_request": {"title": "Better", "user": {"id": 9, "username": "eve"}, "merged": false, "draft": true,
                "updated_at": "2026-01-02T03:04:15Z", "head_branch": "fix", "base_branch": "main",
                "head_repo": {"id": head, "full_name": "eve/churn"}, "base_repo": {"id": 1, "full_name": "acme/churn"}},
        }),
        Provider::BitbucketCloud => json!({
            "repository": {"full_name": "acme/churn", "links": {"html": {"href": "https://bitbucket.org/acme/churn"}}},
            "actor": {"nickname": "eve", "uuid": "9"},
            "pullrequest": {"id": 7, "title": "Better", "state": "OPEN", "draft": true,
                "created_on": "2026-01-02T03:04:15+00:00", "updated_on": "2026-01-02T03:04:15+00:00",
                "author": {"nickname": "eve", "uuid": "9"},
                "source": {"branch": {"name": "fix"}, "commit": {"hash": "c89d07313c45"},
                    "repository": {"full_name": "eve/churn", "uuid": format!("{{{head}}}")}},
                "destination": {"branch": {"name": "main"}, "commit": {"hash": "edc6a110dded"},
                    "repository": {"full_name": "acme/churn", "uuid": "{1}"}}},
        }),
        Provider::BitbucketDc => {
            let side = |branch: &str, hash: &str, key: &str, id: u64| {
                json!({"id": format!("refs/heads/{branch}"), "latestCommit": hash,
                    "repository": {"id": id, "slug": "churn", "project": {"key": key}}})
            };
            json!({
                "eventKey": "pr:opened", "date": "2026-01-02T04:04:15+0100", "actor": {"name": "eve", "id": 9},
                "pullRequest": {"id": 7, "title": "Better", "author": {"user": {"name": "eve", "id": 9}}, "draft": true,
                    "fromRef": side("fix", B, "eve", head), "toRef": side("main", A, "acme", 1)},
            })
        }
        other => panic!("{other} is no forge of this table"),
    }
}

pub(super) const FORGES: [Provider; 6] = [
    Provider::Gitlab,
    Provider::Gitea,
    Provider::Forgejo,
    Provider::Gogs,
    Provider::BitbucketCloud,
    Provider::BitbucketDc,
];

fn alone(provider: Provider, payload: &Value) -> kickwheel_schemas::CloudEvent {
    one(translate(provider, &unverified(), &Headers::default(), &bytes(payload)))
}

#[test]
fn a_push_is_the_same_story_from_every_forge() {
    for provider in FORGES {
        let event = alone(provider, &push(provider, A, B, "refs/heads/feature/x"));
        assert_eq!(event.ty, "dev.kickwheel.git.branch.updated", "{provider}");
        assert_eq!(event.subject.as_deref(), Some("refs/heads/feature/x"), "{provider}");
        let data = &event.data;
        let expected = json!([provider.name(), "feature/x", A, B, "ada", false]);
        let names = ["provider", "branch", "before", "after", "actor", "merge_queue"];
        assert_eq!(names.iter().map(|name| data[name].clone()).collect::<Value>(), expected, "{provider}");
        let (repo, source, paths) = match provider {
            Provider::Gitlab => ("acme/ml/churn", "https://gitlab.example/acme/ml/churn.git", true),
            Provider::BitbucketCloud => ("acme/churn", "https://bitbucket.org/acme/churn", false),
            Provider::BitbucketDc => ("ACME/churn", "https://b.example/scm/acme/churn.git", false),
            _ => ("acme/churn", "https://git.example/acme/churn.git", true),
        };
        assert_eq!((data["repo"].as_str(), event.source.as_str()), (Some(repo), source), "{provider}");
        if paths {
            assert_eq!(data["changed_paths"], json!(["a.py", "b.py", "src/x.py"]), "{provider}");
            assert_eq!(
                data["commits"],
                json!([{"id": B, "message": "Tune it", "author": data["commits"][0]["author"]}])
            );
            assert_eq!(data["commit_count"], 1, "{provider}");
        } else {
            assert_eq!(data["changed_paths"]["complete"], false, "{provider}");
        }
        let known = provider != Provider::BitbucketCloud;
        assert_eq!(data["forced"], if known { Value::Null } else { json!(false) }, "{provider}");
        let configured = SourceConfig { source: Some("ssh://git@x/churn".into()), ..unverified() };
        let event =
            one(translate(provider, &configured, &Headers::default(), &bytes(&push(provider, A, B, "refs/heads/x"))));
        assert_eq!(event.source, "ssh://git@x/churn", "{provider}");
    }
}

#[test]
fn created_deleted_moved_and_unmoved_refs_are_told_apart_by_every_forge() {
    for provider in FORGES {
        for (before, after, full, ty) in [
            (ZERO, A, "refs/heads/x/y", "branch.created"),
            (A, ZERO, "refs/heads/x/y", "branch.deleted"),
            (ZERO, A, "refs/tags/v1", "tag.created"),
            (A, B, "refs/tags/v1", "tag.updated"),
            (A, ZERO, "refs/tags/v1", "tag.deleted"),
        ] {
            let event = alone(provider, &push(provider, before, after, full));
            assert_eq!(event.ty, format!("dev.kickwheel.git.{ty}"), "{provider}");
            assert_eq!(event.subject.as_deref(), Some(full), "{provider}");
            assert_eq!(event.data["before"], if before == ZERO { Value::Null } else { json!(before) }, "{provider}");
            assert_eq!(event.data["after"], if after == ZERO { Value::Null } else { json!(after) }, "{provider}");
            match ty {
                "branch.deleted" => assert_eq!(event.data["changed_paths"], json!([]), "{provider}"),
                "branch.created" => assert_eq!(event.data["changed_paths"]["complete"], false, "{provider}"),
                _ => assert!(event.data["changed_paths"].is_null() && event.data["tag"] == "v1", "{provider}"),
            }
        }
        let payload = bytes(&push(provider, A, A, "refs/heads/x"));
        assert_eq!(translate(provider, &unverified(), &Headers::default(), &payload), Ok(vec![]), "{provider}");
        let longer = |hash: &str| format!("{hash}{}", &hash[..24]);
        let sha256 = alone(provider, &push(provider, &longer(A), &longer(B), "refs/heads/x"));
        assert_eq!(sha256.data["after"], json!(longer(B)), "{provider}");
    }
}

#[test]
fn a_pull_request_of_a_fork_is_not_trusted_by_any_forge() {
    for provider in FORGES {
        let event = alone(provider, &pull_request(provider, true));
        assert_eq!(event.ty, "dev.kickwheel.git.pull_request.opened", "{provider}");
        assert!(event.subject.as_deref().is_some_and(|subject| subject.contains("/7")), "{provider}");
        let data = &event.data;
        let shown = ["number", "title", "author", "trusted", "draft", "merge_commit"].map(|name| data[name].clone());
        assert_eq!(
            shown,
            [json!(7), json!("Better"), json!("eve"), json!(false), json!(true), Value::Null],
            "{provider}"
        );
        assert_eq!((&data["head"]["branch"], &data["base"]["branch"]), (&json!("fix"), &json!("main")), "{provider}");
        let commit = match provider {
            // The one abbreviates commits, the other names none.
            Provider::BitbucketCloud | Provider::Gogs => Value::Null,
            _ => json!(B),
        };
        assert_eq!(data["head"]["commit"], commit, "{provider}");
        assert_eq!(event.time.as_deref(), Some("2026-01-02T03:04:15.000Z"), "{provider}");
        assert_eq!(alone(provider, &pull_request(provider, false)).data["trusted"], true, "{provider}");
    }
}

#[test]
fn what_becomes_of_a_pull_request_is_told_by_every_forge() {
    let meant = |provider: Provider, given: &[(&str, &str)], payload: &Value| {
        let events = translate(provider, &unverified(), &headers(given), &bytes(payload)).expect("it is taken");
        events.first().map(|event| event.ty.trim_start_matches("dev.kickwheel.git.pull_request.").to_owned())
    };
    let check = |provider: Provider, given: &[(&str, &str)], changes: &[(&str, Value)], expected: Option<&str>| {
        let mut payload = pull_request(provider, true);
        for (at, value) in changes {
            let (parent, name) = at.rsplit_once('/').expect("a pointer");
            payload.pointer_mut(parent).expect("it is there")[name] = value.clone();
        }
        assert_eq!(meant(provider, given, &payload).as_deref(), expected, "{provider} {changes:?}");
    };
    let action = "/object_attributes/action";
    for (word, expected) in [
        ("reopen", Some("opened")),
        ("close", Some("closed")),
        ("merge", Some("merged")),
        ("approved", None),
        ("update", None),
    ] {
        check(Provider::Gitlab, &[], &[(action, json!(word))], expected);
    }
    let moved = [(action, json!("update")), ("/object_attributes/oldrev", json!(A))];
    check(Provider::Gitlab, &[], &moved, Some("updated"));
    for provider in [Provider::Gitea, Provider::Forgejo, Provider::Gogs] {
        for (word, merged, expected) in [
            ("reopened", false, Some("opened")),
            ("synchronized", false, Some("updated")),
            ("closed", true, Some("merged")),
            ("closed", false, Some("closed")),
            ("label_updated", false, None),
        ] {
            check(provider, &[], &[("/action", json!(word)), ("/pull_request/merged", json!(merged))], expected);
        }
    }
    for (key, expected) in [
        ("pullrequest:created", Some("opened")),
        ("pullrequest:updated", Some("updated")),
        ("pullrequest:fulfilled", Some("merged")),
        ("pullrequest:rejected", Some("closed")),
        ("pullrequest:approved", None),
        ("repo:fork", None),
    ] {
        check(Provider::BitbucketCloud, &[("X-Event-Key", key)], &[], expected);
    }
    for (state, expected) in [("MERGED", Some("merged")), ("DECLINED", Some("closed")), ("SUPERSEDED", Some("closed"))]
    {
        check(Provider::BitbucketCloud, &[], &[("/pullrequest/state", json!(state))], expected);
    }
    for (key, expected) in [
        ("pr:from_ref_updated", Some("updated")),
        ("pr:merged", Some("merged")),
        ("pr:declined", Some("closed")),
        ("pr:deleted", Some("closed")),
        ("pr:comment:added", None),
    ] {
        check(Provider::BitbucketDc, &[], &[("/eventKey", json!(key))], expected);
    }
}

#[test]
fn a_delivery_with_several_refs_is_numbered_in_their_order() {
    let mut payload = push(Provider::BitbucketDc, A, B, "refs/heads/one");
    let more = push(Provider::BitbucketDc, ZERO, B, "refs/tags/two")["changes"][0].clone();
    let notes = push(Provider::BitbucketDc, A, B, "refs/notes/three")["changes"][0].clone();
    payload["changes"].as_array_mut().expect("a list").extend([notes, more]);
    let given = headers(&[("X-Request-Id", "R")]);
    let events = translate(Provider::BitbucketDc, &unverified(), &given, &bytes(&payload)).expect("it is taken");
    let seen: Vec<_> = events.iter().map(|event| (event.id.as_str(), event.subject.as_deref())).collect();
    assert_eq!(seen, [("R#0", Some("refs/heads/one")), ("R#2", Some("refs/tags/two"))]);
    assert_eq!(events[0].time.as_deref(), Some("2026-01-02T03:04:15.000Z"), "an offset without a colon");
    let mut payload = push(Provider::BitbucketCloud, A, B, "refs/heads/one");
    let more = push(Provider::BitbucketCloud, A, ZERO, "refs/heads/two")["push"]["changes"][0].clone();
    payload["push"]["changes"].as_array_mut().expect("a list").push(more);
    let given = headers(&[("X-Request-UUID", "R"), ("X-Event-Key", "repo:push")]);
    let events = translate(Provider::BitbucketCloud, &unverified(), &given, &bytes(&payload)).expect("it is taken");
    assert_eq!(events.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["R#0", "R#1"]);
    payload["push"]["changes"] = json!([]);
    assert_eq!(translate(Provider::BitbucketCloud, &unverified(), &given, &bytes(&payload)), Ok(vec![]));
}

#[test]
fn a_list_that_was_cut_says_so_in_the_forges_words() {
    let check = |provider: Provider, changes: &[(&str, Value)], reason: &str, count: Value| {
        let mut payload = push(provider, A, B, "refs/heads/x");
        for (name, value) in changes {
            match value {
                Value::Null => drop(payload.as_object_mut().expect("an object").remove(*name)),
                value => payload[*name] = value.clone(),
            }
        }
        let data = alone(provider, &payload).data;
        assert_eq!(data["changed_paths"]["reason"], reason, "{provider}");
        assert_eq!(data["changed_paths"]["complete"], false, "{provider}");
        assert_eq!(data["commit_count"], count, "{provider}");
    };
    let total = "total_commits_count";
    check(Provider::Gitlab, &[(total, json!(21))], "total_commits_count 21 > 1 listed", json!(21));
    check(
        Provider::Gitlab,
        &[(total, json!(0)), ("commits", json!([]))],
        "commits[] empty although trees differ",
        json!(0),
    );
    let bare = json!([{"id": B, "message": "m", "author": {"name": "x"}}]);
    check(Provider::Gitlab, &[("commits", bare)], "commits[] has no list added", json!(1));
    for provider in [Provider::Gitea, Provider::Forgejo, Provider::Gogs] {
        check(provider, &[("total_commits", json!(57))], "total_commits 57 > 1 listed", json!(57));
        let five: Value = (0..5).map(|n| json!({"id": format!("{n:040x}"), "author": {"name": "x"}})).collect();
        check(
            provider,
            &[("total_commits", Value::Null), ("commits", five)],
            "no total_commits: commits[] may end at 5 of them",
            Value::Null,
        );
    }
    let mut nulls = push(Provider::Gitea, A, B, "refs/heads/x");
    nulls["commits"][0]["removed"] = Value::Null;
    assert_eq!(alone(Provider::Gitea, &nulls).data["changed_paths"], json!(["b.py", "src/x.py"]), "Go writes null");
    let mut forced = push(Provider::BitbucketCloud, A, B, "refs/heads/x");
    forced["push"]["changes"][0]["forced"] = json!(true);
    let data = alone(Provider::BitbucketCloud, &forced).data;
    assert_eq!((&data["forced"], &data["commit_count"]), (&json!(true), &Value::Null), "the list is no count");
    assert_eq!(data["changed_paths"]["reason"], "Cloud payload never has file lists");
}

#[test]
fn gitlabs_delivery_is_known_by_the_id_that_stays() {
    let payload = bytes(&push(Provider::Gitlab, A, B, "refs/heads/x"));
    let named = |pairs: &[(&str, &str)]| one(translate(Provider::Gitlab, &unverified(), &headers(pairs), &payload)).id;
    assert_eq!(named(&[("Idempotency-Key", "k"), ("X-Gitlab-Webhook-UUID", "u")]), "k");
    assert_eq!(named(&[("webhook-id", "w"), ("X-Gitlab-Webhook-UUID", "u")]), "w");
    assert!(named(&[("X-Gitlab-Webhook-UUID", "u")]).starts_with("sha256:"), "another one each time");
}

#[test]
fn gitlabs_system_hooks_are_judged_by_their_body() {
    let mut payload = push(Provider::Gitlab, A, B, "refs/heads/x");
    payload.as_object_mut().expect("an object").remove("object_kind");
    let system = headers(&[("X-Gitlab-Event", "System Hook")]);
    let meant = |payload: &Value| {
        let events = translate(Provider::Gitlab, &unverified(), &system, &bytes(payload)).expect("it is taken");
        events.first().map(|event| event.ty.clone())
    };
    assert_eq!(meant(&payload), None, "nothing says what it is");
    payload["event_name"] = json!("push");
    assert_eq!(meant(&payload).as_deref(), Some("dev.kickwheel.git.branch.updated"));
    // It tells of the same push once more, without the commits.
    payload["event_name"] = json!("repository_update");
    assert_eq!(meant(&payload), None);
    assert_eq!(meant(&json!({"event_name": "project_create", "name": "x"})), None);
    let plain = headers(&[("X-Gitlab-Event", "Push Hook")]);
    payload.as_object_mut().expect("an object").remove("event_name");
    assert_eq!(one(translate(Provider::Gitlab, &unverified(), &plain, &bytes(&payload))).data["branch"], "x");
}

#[test]
fn the_familys_own_header_goes_before_the_ones_it_imitates() {
    let repository = json!({"full_name": "acme/churn", "clone_url": "https://git.example/acme/churn.git"});
    let payload =
        json!({"ref": "v1", "ref_type": "tag", "sha": A, "repository": repository, "sender": {"login": "ada"}});
    let given = |own: &str| {
        let all = [(own, "create"), ("X-Gogs-Event", "create"), ("X-GitHub-Event", "push"), ("X-GitHub-Delivery", "g")];
        headers(&all)
    };
    for (provider, own, ty) in [
        (Provider::Gitea, "X-Gitea-Event", "com.gitea.create"),
        (Provider::Forgejo, "X-Forgejo-Event", "org.forgejo.create"),
        (Provider::Gogs, "X-Gogs-Event", "io.gogs.create"),
    ] {
        let event = one(translate(provider, &unverified(), &given(own), &bytes(&payload)));
        assert_eq!((event.ty.as_str(), event.subject.as_deref()), (ty, Some("refs/tags/v1")));
        assert_eq!(event.id, "g", "the only delivery that is named");
    }
    let gone = json!({"ref": "x", "ref_type": "branch", "pusher_type": "user", "repository": repository});
    assert_eq!(alone(Provider::Gitea, &gone).ty, "com.gitea.delete");
    let form: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", &push(Provider::Gitea, A, B, "refs/heads/x").to_string())
        .finish();
    let typed = headers(&[("content-type", "application/x-www-form-urlencoded")]);
    assert_eq!(one(translate(Provider::Gitea, &unverified(), &typed, form.as_bytes())).data["branch"], "x");
}

#[test]
fn what_is_of_another_kind_is_refused_by_name_and_kept() {
    let check = |provider: Provider, at: &str, value: Value, name: &str| {
        let mut payload = push(provider, A, B, "refs/heads/x");
        *payload.pointer_mut(at).expect("it is there") = value;
        let refusal = translate(provider, &unverified(), &Headers::default(), &bytes(&payload)).expect_err(at);
        assert_eq!((refusal.status, refusal.code, refusal.quarantine), (400, "shape_invalid", true), "{provider} {at}");
        assert!(refusal.reason.contains(name), "{provider} {at}: {}", refusal.reason);
    };
    check(Provider::Gitlab, "/after", json!(id(B).to_uppercase()), "after");
    check(Provider::Gitlab, "/total_commits_count", json!("1"), "total_commits_count");
    check(Provider::Gitlab, "/project/path_with_namespace", json!(1), "path_with_namespace");
    check(Provider::Gitea, "/ref", json!("main"), "ref");
    check(Provider::Gitea, "/repository/clone_url", Value::Null, "clone_url");
    check(Provider::BitbucketCloud, "/push/changes", json!("x"), "push.changes");
    check(Provider::BitbucketCloud, "/push/changes/0/new/target/hash", json!("c89d"), "target.hash");
    check(Provider::BitbucketDc, "/changes/0/type", json!("COPY"), "changes.type");
    check(Provider::BitbucketDc, "/changes/0/toHash", Value::Null, "toHash");
    check(Provider::BitbucketDc, "/repository/slug", Value::Null, "slug");
    for provider in FORGES {
        let answer = refused(translate(provider, &unverified(), &Headers::default(), b"[]"));
        assert_eq!(answer, (400, "shape_invalid", true), "{provider}");
    }
}

#[test]
fn times_are_read_as_senders_write_them() {
    for (value, expected) in [
        (json!("2019-03-17T19:09:40+0530"), Some("2019-03-17T13:39:40.000Z")),
        (json!("2019-03-17T19:09:40.5+05:30"), Some("2019-03-17T13:39:40.500Z")),
        (json!("2019-03-17 13:39:40 UTC"), Some("2019-03-17T13:39:40.000Z")),
        (json!(1_550_286_940_507_i64), Some("2019-02-16T03:15:40.507Z")),
        (json!(1_550_286_940), Some("2019-02-16T03:15:40.000Z")),
        (json!(i64::MAX), None),
        (json!(i64::MIN), None),
        (json!(u64::MAX), None),
        (json!(1e300), None),
        (json!("yesterday"), None),
        (json!([1]), None),
    ] {
        assert_eq!(crate::http::forge::moment(&value).as_deref(), expected, "{value}");
    }
}
