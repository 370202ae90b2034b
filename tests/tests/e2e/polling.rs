//! Polling finds what no hook tells, once, and never tells again what a hook has told.

use std::collections::BTreeMap;

use kickwheel_tests::{harness::on_each_bus, kafka::Topics, repo::git, wait::until};
use serde_json::{Value, json};

use crate::told::Story;

#[test]
fn without_its_hook_pushes_are_found_once_and_old_branches_never() {
    on_each_bus(|database, topics| {
        let story = Story::begin(database, topics, "1s");
        story.silence_hook();
        let first = story.repo.head();
        let commit = story.push("one");
        git(&story.repo.work, &["push", "-q", "origin", "main:three", ":one"]);
        let moves = story.rests();
        let found = |name: &str| -> Vec<(Value, Value)> {
            moves.iter().filter(|(n, ..)| n == name).map(|(_, b, a, _)| (b.clone(), a.clone())).collect()
        };
        assert_eq!(found("refs/heads/main"), [(json!(first), json!(commit))]);
        assert_eq!(found("refs/heads/three"), [(Value::Null, json!(commit))]);
        assert_eq!(found("refs/heads/one"), [(json!(first), Value::Null)]);
        assert_eq!(moves.len(), 3, "{moves:#?}");
        // `main` and `three`, and nothing for what was there before.
        assert_eq!(story.runs(), BTreeMap::from([(commit, 2)]));
    });
}

#[test]
fn hook_and_poll_at_once_are_one_run_of_each_push() {
    on_each_bus(|database, topics| {
        // Without any grace the poll is as quick as it can be.
        let story = Story::begin(database, topics, "0s");
        let pushed: Vec<String> = (0..5).map(|n| story.push(&format!("both {n}"))).collect();
        story.rests();
        assert_eq!(story.runs(), pushed.into_iter().map(|commit| (commit, 1)).collect());
    });
}

#[test]
fn to_and_fro_is_three_pushes_with_and_without_the_hook() {
    on_each_bus(|database, topics| {
        for has_hook in [true, false] {
            // Each of the two engines has a bus of its own.
            let topics = topics.map(|_| Topics::fresh());
            let story = Story::begin(database, topics.as_ref(), "0s");
            if !has_hook {
                story.silence_hook();
            }
            let first = story.repo.head();
            let second = story.repo.commit(&[("data.txt", "there")]);
            for (count, commit) in [&second, &first, &second].into_iter().enumerate() {
                story.push_commit(commit);
                // A poll sees states, so each must stand for a while.
                story.wait_for_moves(count + 1);
            }
            story.rests();
            assert_eq!(story.runs(), BTreeMap::from([(first, 1), (second, 2)]), "with a hook: {has_hook}");
        }
    });
}

#[test]
fn what_is_pushed_while_the_engine_is_down_is_found_once_through_kills() {
    on_each_bus(|database, topics| {
        let mut story = Story::begin(database, topics, "1s");
        story.silence_hook();
        let mut pushed = Vec::new();
        for fault in ["poll.tell.before:1", "poll.tell.after:1"] {
            story.engine.kill9();
            pushed.push(story.push(fault));
            if story.engine.try_restart(Some(fault)).is_ok() {
                story.engine.wait_for_death();
            }
            story.engine.restart();
            until("it is found", || story.runs().contains_key(pushed.last()?).then_some(()));
        }
        story.rests();
        assert_eq!(story.runs(), pushed.into_iter().map(|commit| (commit, 1)).collect());
    });
}
