//! A table of pushes, and the real ones where they are at hand.

use std::{fs, path::PathBuf};

use super::*;

const A: &str = "edc6a110dded0f00dc70ef2d210fdaef78f73ab5";
const B: &str = "c89d07313c450511948ae4deb81e645ce085f430";
const ZERO: &str = "0000000000000000000000000000000000000000";

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn push(lines: &[&[u8]]) -> PostReceive {
    PostReceive {
        delivery: "d1".into(),
        repo: "churn".into(),
        lines_hex: lines.iter().map(|line| hex_of(line)).collect(),
        push_options: vec!["ci.skip".into()],
        actor: Some("ada".into()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        time: "2025-01-02T03:04:05.000Z".into(),
    }
}

fn repo() -> BoundRepo {
    BoundRepo { name: "churn".into(), url: "/srv/git/churn.git".into(), default_branch: Some("main".into()) }
}

fn translate(lines: &[&[u8]]) -> Result<Vec<CloudEvent>, TranslateError> {
    translate_post_receive(&push(lines), &repo())
}

/// Each event as `id type subject before after`, the common prefix of the types left out.
fn outlines(events: &[CloudEvent]) -> Vec<String> {
    let id = |event: &CloudEvent, field: &str| event.data[field].as_str().map_or("-", |id| &id[..4]).to_owned();
    events
        .iter()
        .map(|event| {
            event.check().expect("the attributes that every event needs");
            let ty = event.ty.strip_prefix("dev.kickwheel.git.").expect("a Git event");
            let subject = event.subject.as_deref().expect("a ref");
            format!("{} {ty} {subject} {} {}", event.id, id(event, "before"), id(event, "after"))
        })
        .collect()
}

fn check(lines: &[&str], expected: &[&str]) {
    let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
    assert_eq!(outlines(&translate(&lines).expect("well-formed lines")), expected);
}

#[test]
fn each_ref_of_a_push_is_one_event() {
    check(
        &[
            &format!("{ZERO} {A} refs/heads/main"),
            &format!("{A} {B} refs/heads/feature/x\n"),
            &format!("{B} {ZERO} refs/heads/old"),
            &format!("{ZERO} {A} refs/tags/v1"),
            &format!("{A} {B} refs/tags/v1"),
            &format!("{B} {ZERO} refs/tags/v1"),
        ],
        &[
            "d1#0 branch.created refs/heads/main - edc6",
            "d1#1 branch.updated refs/heads/feature/x edc6 c89d",
            "d1#2 branch.deleted refs/heads/old c89d -",
            "d1#3 tag.created refs/tags/v1 - edc6",
            "d1#4 tag.updated refs/tags/v1 edc6 c89d",
            "d1#5 tag.deleted refs/tags/v1 c89d -",
        ],
    );
}

#[test]
fn other_refs_and_refs_that_did_not_move_give_nothing_but_keep_the_count() {
    check(
        &[
            &format!("{ZERO} {A} refs/notes/commits"),
            &format!("{ZERO} {A} refs/pull/7/head"),
            &format!("{ZERO} {ZERO} refs/heads/never"),
            &format!("{A} {A} refs/heads/same"),
            &format!("{A} {B} refs/heads/main"),
        ],
        &["d1#4 branch.updated refs/heads/main edc6 c89d"],
    );
    check(&[], &[]);
}

#[test]
fn a_sha256_repository_has_64_digits_and_64_zeros() {
    let (zero, id) = ("0".repeat(64), "ab".repeat(32));
    check(&[&format!("{zero} {id} refs/heads/main")], &["d1#0 branch.created refs/heads/main - abab"]);
    check(&[&format!("{id} {zero} refs/heads/main")], &["d1#0 branch.deleted refs/heads/main abab -"]);
}

#[test]
fn the_event_says_who_when_and_whence() {
    let line = format!("{A} {B} refs/heads/main");
    let events = translate(&[line.as_bytes()]).expect("well-formed");
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(event.source, "/srv/git/churn.git");
    assert_eq!(event.time.as_deref(), Some("2025-01-02T03:04:05.000Z"));
    assert!(event.traceparent.is_some() && event.extensions.is_empty());
    let data: GitRefChange = serde_json::from_value(event.data.clone()).expect("our payload");
    let expected = GitRefChange {
        repo: "churn".into(),
        provider: "git".into(),
        branch: Some("main".into()),
        before: Some(A.into()),
        after: Some(B.into()),
        actor: Some("ada".into()),
        default_branch: Some("main".into()),
        push_options: vec!["ci.skip".into()],
        ..GitRefChange::default()
    };
    assert_eq!(data, expected);
}

#[test]
fn a_delivery_that_is_read_twice_gives_the_same_events() {
    let line = format!("{A} {B} refs/heads/main");
    assert_eq!(translate(&[line.as_bytes()]), translate(&[line.as_bytes()]));
}

#[test]
fn a_ref_that_is_not_utf8_is_percent_encoded_where_it_must() {
    let mut line = format!("{A} {B} refs/heads/\u{fc}-100%-caf").into_bytes();
    line.push(0xe9);
    let events = translate(&[&line]).expect("refs are bytes");
    assert_eq!(outlines(&events), ["d1#0 branch.updated refs/heads/\u{fc}-100%-caf%E9 edc6 c89d"]);
    assert_eq!(events[0].data["branch"], "\u{fc}-100%-caf%E9");
}

#[test]
fn a_malformed_line_refuses_the_delivery_and_is_named() {
    let good = format!("{A} {B} refs/heads/main");
    let bad = [
        String::new(),
        format!("{A} {B}"),
        format!("{A} {B} "),
        format!("{A} {B} main"),
        format!("{A} {B} refs/heads/"),
        format!("{A} {B} refs/stash"),
        format!("{A}  {B} refs/heads/main"),
        format!("{A} {B} refs/heads/a b"),
        format!("{A} {B} refs/heads/a\nb"),
        format!("{} {B} refs/heads/main", &A[..39]),
        format!("{} {B} refs/heads/main", A.to_uppercase()),
        format!("{} {B} refs/heads/main", "g".repeat(40)),
        format!("{A} {} refs/heads/main", "0".repeat(64)),
    ];
    for line in bad {
        let error = translate(&[good.as_bytes(), line.as_bytes()]).expect_err(&line);
        let expected = line.as_bytes().escape_ascii().to_string();
        assert!(matches!(&error, TranslateError::Malformed { line: 1, text, .. } if *text == expected), "{error}");
    }
}

#[test]
fn what_is_not_hex_is_named() {
    for text in ["0g", "abc", "\u{fc}\u{fc}"] {
        let mut delivery = push(&[]);
        delivery.lines_hex.push(text.into());
        let error = translate_post_receive(&delivery, &repo()).expect_err(text);
        assert!(matches!(error, TranslateError::NotHex { line: 0, .. }), "{error}");
    }
}

#[test]
fn too_many_refs_are_refused() {
    let line = format!("{ZERO} {A} refs/heads/main");
    let mut delivery = push(&[]);
    delivery.lines_hex = vec![hex_of(line.as_bytes()); MAX_LINES + 1];
    let error = translate_post_receive(&delivery, &repo()).expect_err("above the limit");
    assert!(matches!(error, TranslateError::TooMany { .. }), "{error}");
}

/// Inputs that the real git gave to hooks, kept outside this repository.
#[test]
fn what_git_really_sends_is_understood() {
    let Some(root) = std::env::var_os("KICKWHEEL_PAYLOADS").map(PathBuf::from) else {
        eprintln!("SKIPPED: set KICKWHEEL_PAYLOADS to the folder of recorded payloads to read what git really sends");
        return;
    };
    let expected = |name: &str| -> &[&str] {
        match name {
            "00" => &["branch.created refs/heads/main"],
            "01" | "02" | "06" | "08" => &["branch.updated refs/heads/main"],
            "04" => &["tag.created refs/tags/v1.0", "tag.created refs/tags/light"],
            "05" => &["branch.created refs/heads/feature/x"],
            "07" => &["branch.deleted refs/heads/feature/x", "tag.deleted refs/tags/v1.0"],
            "09" => &[],
            other => panic!("the recorded push {other} is not in this table"),
        }
    };
    let mut seen = 0;
    for file in fs::read_dir(root.join("git/sha1")).expect("recorded pushes") {
        let path = file.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("plain names").to_owned();
        let Some(number) = name.strip_suffix("_post_receive.stdin") else { continue };
        let stdin = fs::read(&path).expect("a recorded push");
        let lines: Vec<&[u8]> = stdin.split_inclusive(|byte| *byte == b'\n').collect();
        let events = translate(&lines).expect("git's own lines");
        let outlines: Vec<String> = outlines(&events)
            .iter()
            .map(|outline| outline.split(' ').skip(1).take(2).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(outlines, expected(number), "{name}");
        seen += 1;
    }
    assert!(seen >= 9, "{seen} recorded pushes");
}
