//! Which events start a workflow, and what is said about those that do not.

use indexmap::IndexMap;
use kickwheel_core::{
    cron::{MissedPolicy, Tick, name_cron_triggers, tick_event},
    expr::Expr,
    filter::{self, ChangedPaths, EventFilter, Facts, FilterKind, GlobList, Verdict, WorkflowVerdict},
};
use kickwheel_schemas::{CloudEvent, Millis, payload};
use serde_json::{Value, json};

fn judge(filter: &EventFilter, event: &CloudEvent, changed: &ChangedPaths) -> Verdict {
    filter::judge(filter, event, &Facts::unbound(changed))
}

fn judge_all(filters: &[EventFilter], event: &CloudEvent, changed: &ChangedPaths) -> WorkflowVerdict {
    filter::judge_all(filters, event, &Facts::unbound(changed))
}

fn push(branch: &str) -> CloudEvent {
    let data = json!({"repo": "churn", "branch": branch, "commit_count": 2, "forced": null});
    CloudEvent::new("file:///repo.git", "1", payload::GIT_BRANCH_UPDATED, data).with_subject("refs/heads/x")
}

fn dataset(data_changed: bool) -> CloudEvent {
    let data = json!({"dataset": "churn/raw", "version": 2, "data_changed": data_changed});
    CloudEvent::new("/datasets", "1", payload::DATASET_VERSION_PUBLISHED, data)
}

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn filter(kind: FilterKind, condition: Option<&str>) -> EventFilter {
    EventFilter { id: None, kind, condition: condition.map(Expr::new), with: IndexMap::new() }
}

fn git(repos: &[&str], branches: &[&str], paths: &[&str]) -> FilterKind {
    FilterKind::GitPush { repos: texts(repos), branches: texts(branches), paths: texts(paths) }
}

fn complete(paths: &[&[u8]]) -> ChangedPaths {
    ChangedPaths::Complete { paths: paths.iter().map(|path| path.to_vec()).collect() }
}

fn matches() -> Verdict {
    Verdict::Matches { unknown: vec![] }
}

fn filtered(clause: &str, wanted: &str, seen: &str) -> Verdict {
    Verdict::Filtered { clause: clause.to_owned(), wanted: wanted.to_owned(), seen: seen.to_owned() }
}

#[test]
fn a_push_is_judged_clause_by_clause_and_the_first_that_fails_is_named() {
    let kind = git(&["churn"], &["main", "release/*"], &["src/**", "!**/*.md"]);
    let check = |event: &CloudEvent, paths: &ChangedPaths, condition: Option<&str>, expected: Verdict| {
        assert_eq!(judge(&filter(kind.clone(), condition), event, paths), expected);
    };
    let src = complete(&[b"docs/a.md", b"src/a.py"]);
    check(&push("main"), &src, None, matches());
    check(&push("release/1"), &src, None, matches());
    check(&push("release/1/x"), &src, None, filtered("branches", "main, release/*", "release/1/x"));
    check(
        &push("main"),
        &complete(&[b"docs/a.md", b"src/README.md"]),
        None,
        filtered("paths", "src/**, !**/*.md", "docs/a.md, src/README.md"),
    );
    check(
        &push("main"),
        &src,
        Some("event.data.branch == 'dev' && event.data.commit_count > 1 && event.data.x == 1"),
        filtered(
            "where",
            "event.data.branch == 'dev' && event.data.commit_count > 1 && event.data.x == 1",
            "event.data.branch = \"main\", event.data.commit_count = 2, event.data.x = (none)",
        ),
    );
    let mut other = push("main");
    other.data["repo"] = json!("else");
    check(&other, &src, None, filtered("repo", "churn", "else"));
    check(
        &dataset(true),
        &ChangedPaths::NotApplicable,
        None,
        filtered(
            "type",
            "dev.kickwheel.git.branch.created or dev.kickwheel.git.branch.updated",
            "dev.kickwheel.dataset.version.published",
        ),
    );
    let mut deleted = push("main");
    deleted.ty = payload::GIT_BRANCH_DELETED.to_owned();
    assert!(
        matches!(judge(&filter(kind.clone(), None), &deleted, &src), Verdict::Filtered { clause, .. } if clause == "type")
    );
}

#[test]
fn empty_lists_mean_any() {
    let any = filter(git(&[], &[], &[]), None);
    assert_eq!(judge(&any, &push("anything"), &complete(&[])), matches());
    assert_eq!(judge(&any, &push("anything"), &ChangedPaths::Unknown { reason: "gone".to_owned() }), matches());
}

#[test]
fn what_is_unknown_starts_the_run_and_says_why() {
    let with_paths = filter(git(&[], &[], &["src/**"]), Some("event.data.nope == 1"));
    let verdict = judge(&with_paths, &push("main"), &ChangedPaths::Unknown { reason: "the mirror is away".to_owned() });
    let Verdict::Matches { unknown } = verdict else { panic!("it starts: {verdict:?}") };
    assert_eq!(unknown[0], "paths: the mirror is away");
    assert!(
        unknown[1].starts_with("where: failed to evaluate `event.data.nope == 1`: there is no `nope`"),
        "{unknown:?}"
    );
    assert_eq!(unknown.len(), 2);
}

#[test]
fn paths_are_bytes_and_shown_with_a_limit() {
    let by_paths = filter(git(&[], &[], &["data/*.csv"]), None);
    assert_eq!(judge(&by_paths, &push("main"), &complete(&[b"data/\xff\xfe.csv"])), matches());
    let many: Vec<Vec<u8>> = (0..25).map(|n| format!("docs/{n}").into_bytes()).chain([b"\xff".to_vec()]).collect();
    let verdict = judge(&by_paths, &push("main"), &ChangedPaths::Complete { paths: many });
    let Verdict::Filtered { clause, seen, .. } = verdict else { panic!("none of them matches") };
    assert_eq!(clause, "paths");
    assert!(seen.starts_with("docs/0, docs/1, ") && seen.ends_with("docs/19, and 6 more"), "{seen}");
    let none = judge(&by_paths, &push("main"), &complete(&[]));
    assert_eq!(none, filtered("paths", "data/*.csv", "(no changed path)"));
    assert_eq!(judge(&by_paths, &push("main"), &complete(&[b"\xff.x"])), filtered("paths", "data/*.csv", "\u{fffd}.x"));
}

#[test]
fn the_last_glob_that_matches_wins() {
    let check = |patterns: &[&str], name: &str, expected: bool| {
        let globs = GlobList::new(&texts(patterns)).expect("the globs are well-formed");
        assert_eq!(globs.includes(name.as_bytes()), expected, "{patterns:?} {name}");
    };
    check(&["src/**", "!**/*.md", "src/keep.md"], "src/a.md", false);
    check(&["src/**", "!**/*.md", "src/keep.md"], "src/keep.md", true);
    check(&["!**/*.md", "src/**"], "src/a.md", true);
    check(&["!docs/**"], "src/a.py", true);
    check(&["!docs/**"], "docs/a", false);
    check(&["*.py"], "a.py", true);
    check(&["*.py"], "src/a.py", false);
    check(&["**/*.py"], "a.py", true);
    check(&["**"], "a/b/c", true);
    check(&["src/{a,b}.py"], "src/b.py", true);
    assert!(GlobList::new(&texts(&["a["])).err().expect("it is malformed").contains("\"a[\""));
}

#[test]
fn datasets_manual_starts_and_plain_events_are_judged() {
    let by_dataset = |names: &[&str]| filter(FilterKind::DatasetChanged { datasets: texts(names) }, None);
    let paths = ChangedPaths::NotApplicable;
    assert_eq!(judge(&by_dataset(&["churn/raw"]), &dataset(true), &paths), matches());
    assert_eq!(judge(&by_dataset(&[]), &dataset(true), &paths), matches());
    assert_eq!(judge(&by_dataset(&["a", "b"]), &dataset(true), &paths), filtered("dataset", "a or b", "churn/raw"));
    assert_eq!(
        judge(&by_dataset(&[]), &dataset(false), &paths),
        filtered("dataset", "a version with changed data", "only metadata changed")
    );
    let manual = CloudEvent::new("/manual/default", "1", payload::MANUAL, Value::Null);
    assert_eq!(judge(&filter(FilterKind::Manual, None), &manual, &paths), matches());
    let plain = filter(
        FilterKind::Event { types: texts(&["com.example.a", "com.example.b"]), own_runs: false },
        Some("event.source == '/x'"),
    );
    let event = |source: &str, ty: &str| CloudEvent::new(source, "1", ty, Value::Null);
    assert_eq!(judge(&plain, &event("/x", "com.example.b"), &paths), matches());
    assert_eq!(
        judge(&plain, &event("/y", "com.example.b"), &paths),
        filtered("where", "event.source == '/x'", "event.source = \"/y\"")
    );
    assert_eq!(
        judge(&plain, &event("/x", "com.example.c"), &paths),
        filtered("type", "com.example.a or com.example.b", "com.example.c")
    );
}

#[test]
fn one_filter_suffices_and_a_certain_one_is_preferred() {
    let manual = filter(FilterKind::Manual, None);
    let unsure = filter(git(&[], &[], &[]), Some("event.data.nope"));
    let sure = filter(git(&[], &["main"], &[]), None);
    let paths = complete(&[b"a"]);
    let all = [manual.clone(), unsure.clone(), sure];
    assert_eq!(judge_all(&all, &push("main"), &paths), WorkflowVerdict::Starts { filter: 2, unknown: vec![] });
    let WorkflowVerdict::Starts { filter: 1, unknown } = judge_all(&all, &push("dev"), &paths) else {
        panic!("the unsure one starts it")
    };
    assert_eq!(unknown.len(), 1);
    let WorkflowVerdict::Filtered(verdicts) = judge_all(&[manual], &push("main"), &paths) else {
        panic!("nothing matches")
    };
    assert_eq!(verdicts, [filtered("type", "dev.kickwheel.manual.started", "dev.kickwheel.git.branch.updated")]);
}

#[test]
fn the_bound_name_of_a_repository_counts_and_the_providers_only_without_one() {
    let by_name = filter(git(&["churn"], &[], &[]), None);
    let mut event = push("main");
    event.data["repo"] = json!("acme/churn-model");
    let paths = complete(&[]);
    let bound = |repo| filter::judge(&by_name, &event, &Facts { changed: &paths, repo });
    assert_eq!(bound(Some("churn")), matches());
    assert_eq!(bound(Some("other")), filtered("repo", "churn", "other"));
    assert_eq!(bound(None), filtered("repo", "churn", "acme/churn-model"));
}

#[test]
fn a_merge_queues_branch_must_be_named() {
    let queued = "gh-readonly-queue/main/pr-7-edc6";
    let check = |branches: &[&str], expected: bool| {
        let verdict = judge(&filter(git(&[], branches, &[]), None), &push(queued), &complete(&[]));
        assert_eq!(verdict == matches(), expected, "{branches:?}: {verdict:?}");
    };
    check(&[], false);
    check(&["**"], false);
    check(&["!dev"], false);
    check(&["**/pr-*"], false);
    check(&["gh-readonly-queue/**"], true);
    check(&["**", "gh-readonly-queue/main/*"], true);
    check(&["gh-readonly-queue/**", "!gh-readonly-queue/main/**"], false);
    check(&["gh-readonly-queue/**", "!**/pr-7-*", "**"], false);
    assert_eq!(
        judge(&filter(git(&[], &[], &[]), None), &push(queued), &complete(&[])),
        filtered("branches", "any but a merge queue's own", queued)
    );
}

#[test]
fn a_tick_starts_the_filter_of_its_trigger_only() {
    let cron = |id: Option<&str>| EventFilter {
        id: id.map(str::to_owned),
        ..filter(
            FilterKind::Cron {
                trigger: String::new(),
                schedule: "@daily".into(),
                timezone: "UTC".into(),
                missed: MissedPolicy::Latest,
                deadline_ms: None,
            },
            None,
        )
    };
    let names = |filters: &[EventFilter]| -> Vec<String> {
        let name = |filter: &EventFilter| match &filter.kind {
            FilterKind::Cron { trigger, .. } => Some(trigger.clone()),
            _ => None,
        };
        filters.iter().filter_map(name).collect()
    };
    let mut alone = [filter(FilterKind::Manual, None), cron(None)];
    name_cron_triggers("w", &mut alone);
    assert_eq!(names(&alone), ["w"]);
    let mut several = [cron(None), cron(Some("night")), cron(None)];
    name_cron_triggers("w", &mut several);
    assert_eq!(names(&several), ["w:0", "w:night", "w:2"]);
    let tick = tick_event("w:night", &Tick { scheduled_at: Millis(0), late_by_ms: 3, missed: 1 });
    assert_eq!(tick.id, "w:night@1970-01-01T00:00:00.000Z");
    assert_eq!((tick.source.as_str(), tick.subject.as_deref()), ("/cron/w:night", Some("w:night")));
    assert_eq!(
        tick.data,
        json!({"trigger": "w:night", "scheduled_at": "1970-01-01T00:00:00.000Z", "late_by": 3, "missed": 1})
    );
    let paths = ChangedPaths::NotApplicable;
    assert_eq!(judge(&several[1], &tick, &paths), matches());
    assert_eq!(judge(&several[0], &tick, &paths), filtered("trigger", "w:0", "w:night"));
    assert!(
        matches!(judge(&alone[1], &push("main"), &paths), Verdict::Filtered { clause, .. } if clause == "type"),
        "a push is no tick"
    );
}
