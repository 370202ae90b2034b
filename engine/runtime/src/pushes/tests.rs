//! Each pair of channels in each order, and histories that go back and forth.

use kickwheel_schemas::Millis;

use super::*;

/// A ref, as the decider keeps it: reports go in, runs come out. Commits are letters, and a later letter descends from
/// an earlier one.
#[derive(Default)]
struct Ref {
    chain: Vec<Transition>,
    /// The moves that were decided.
    runs: Vec<String>,
    /// Where the mirror finds it, once a test has said so.
    tip: Option<String>,
}

fn key(n: u64) -> EventKey {
    EventKey::new(Millis(n as i64 + 1), [7; 10])
}

fn commit(text: &str) -> Option<&str> {
    (text != "0").then_some(text)
}

impl Ref {
    /// `report` is `channel:before>after`, `0` standing for absent.
    fn report(&mut self, report: &str) -> Verdict {
        let since = self.chain.last().map_or(0, |t| t.number);
        self.report_since(report, if report.starts_with(POLL) { since } else { 0 })
    }

    fn report_since(&mut self, report: &str, since: u64) -> Verdict {
        let (channel, moved) = report.rsplit_once(':').expect("a channel");
        let (before, after) = moved.split_once('>').expect("two commits");
        let tip = self.tip.clone();
        let tip = match tip.as_deref() {
            None => Tip::Unknown,
            Some(at) => commit(at).map_or(Tip::Gone, Tip::At),
        };
        let push = Push { before: commit(before), after: commit(after), channel, since, tip };
        let mut ancestry = Ancestry::default();
        for (older, newer) in questions(&self.chain, &push) {
            let holds = older <= newer;
            ancestry.learn(older, newer, holds);
        }
        let verdict = judge(&self.chain, &push, &ancestry);
        match &verdict {
            Verdict::New | Verdict::Late => {
                let number = self.chain.last().map_or(0, |t| t.number) + 1;
                self.runs.push(moved.to_owned());
                self.chain.push(Transition {
                    number,
                    before: push.before.map(str::to_owned),
                    after: push.after.map(str::to_owned),
                    channels: vec![channel.to_owned()],
                    event: key(number),
                    moved_head: verdict == Verdict::New,
                });
            }
            Verdict::Duplicate { reported, of: _ } => {
                for transition in &mut self.chain {
                    if reported.contains(&transition.number) {
                        transition.channels.push(channel.to_owned());
                    }
                }
            }
        }
        verdict
    }
}

fn check(reports: &[&str], runs: &[&str]) {
    let mut at = Ref::default();
    for report in reports {
        at.report(report);
    }
    assert_eq!(at.runs, runs, "{reports:?}");
}

#[test]
fn one_push_told_by_two_channels_is_one_in_each_order() {
    for (first, second) in [("webhook", "hook"), ("hook", "webhook")] {
        check(&["hook:0>a", &format!("{first}:a>b"), &format!("{second}:a>b")], &["0>a", "a>b"]);
    }
}

#[test]
fn a_poll_before_or_after_the_others_makes_no_second_run() {
    for other in ["webhook", "hook"] {
        let mut after = Ref::default();
        after.report(&format!("{other}:0>a"));
        after.report(&format!("{other}:a>b"));
        // The poll looked before that push was recorded, and arrives after it.
        assert!(matches!(after.report_since("poll:a>b", 1), Verdict::Duplicate { .. }));
        assert_eq!(after.runs, ["0>a", "a>b"]);
        check(&[&format!("{other}:0>a"), "poll:a>b", &format!("{other}:a>b")], &["0>a", "a>b"]);
    }
}

#[test]
fn all_three_in_every_order_are_one() {
    for order in [
        ["webhook", "hook", "poll"],
        ["webhook", "poll", "hook"],
        ["hook", "webhook", "poll"],
        ["hook", "poll", "webhook"],
        ["poll", "webhook", "hook"],
        ["poll", "hook", "webhook"],
    ] {
        let mut at = Ref::default();
        at.report("hook:0>a");
        for channel in order {
            at.report_since(&format!("{channel}:a>b"), u64::from(channel == POLL));
        }
        assert_eq!(at.runs, ["0>a", "a>b"], "{order:?}");
    }
}

#[test]
fn back_and_forth_is_run_as_often_as_it_happened() {
    let moves = ["0>a", "a>b", "b>a", "a>b"];
    check(&moves.map(|m| format!("hook:{m}")).each_ref().map(String::as_str), &moves);
    // Told twice, move by move, and one channel wholly after the other.
    let mut interleaved = Ref::default();
    let mut apart = Ref::default();
    for moved in moves {
        interleaved.report(&format!("webhook:{moved}"));
        interleaved.report(&format!("hook:{moved}"));
    }
    for channel in ["webhook", "hook"] {
        for moved in moves {
            apart.report(&format!("{channel}:{moved}"));
        }
    }
    assert_eq!(interleaved.runs, moves);
    assert_eq!(apart.runs, moves);
}

#[test]
fn what_a_poll_saw_as_one_move_covers_the_single_moves_told_later() {
    check(&["hook:0>a", "poll:a>c", "webhook:a>b", "webhook:b>c"], &["0>a", "a>c"]);
    check(&["hook:0>a", "poll:a>c", "webhook:b>c", "webhook:a>b"], &["0>a", "a>c"]);
    // And the single moves told before cover the poll's one.
    let mut at = Ref::default();
    for report in ["webhook:0>a", "webhook:a>b", "webhook:b>c"] {
        at.report(report);
    }
    assert_eq!(at.report_since("poll:a>c", 1), Verdict::Duplicate { reported: vec![2, 3], of: key(3) });
}

#[test]
fn going_back_and_again_over_a_part_is_new() {
    check(&["hook:0>a", "poll:a>c", "webhook:b>c", "webhook:c>b", "webhook:b>c"], &["0>a", "a>c", "c>b", "b>c"]);
}

#[test]
fn a_move_that_only_the_poll_saw_after_others_were_lost_is_new() {
    // The webhook of b>a got lost, and a poll finds the ref back at a.
    check(&["webhook:0>a", "webhook:a>b", "poll:b>a", "webhook:a>b"], &["0>a", "a>b", "b>a", "a>b"]);
}

#[test]
fn out_of_order_is_late_when_nobody_told_it_and_a_duplicate_otherwise() {
    let mut at = Ref::default();
    at.report("webhook:0>a");
    at.report("webhook:b>c");
    assert_eq!(at.report("webhook:a>b"), Verdict::Late);
    // A late one does not move the head back.
    assert_eq!(at.report("webhook:c>d"), Verdict::New);
    check(&["hook:0>a", "hook:a>b", "hook:b>c", "webhook:b>c", "webhook:a>b"], &["0>a", "a>b", "b>c"]);
}

#[test]
fn a_forced_move_back_is_new_and_not_late() {
    let mut at = Ref::default();
    at.report("webhook:0>a");
    at.report("webhook:a>c");
    assert_eq!(at.report("webhook:c>b"), Verdict::New);
}

#[test]
fn deleting_and_creating_again_is_told_apart() {
    check(&["hook:0>a", "webhook:0>a", "hook:a>0", "webhook:a>0", "hook:0>a", "webhook:0>a"], &["0>a", "a>0", "0>a"]);
}

#[test]
fn back_and_forth_over_each_pair_of_channels_is_as_many_runs_as_moves_in_every_interleaving() {
    let moves = ["0>a", "a>b", "b>a", "a>b"];
    let pairs = [["hook", "webhook:x"], ["webhook:x", "hook"], ["webhook:x", "webhook:y"], ["hook", "webhook:y"]];
    for [first, second] in pairs {
        // Every interleaving of four reports of each, each channel in its own order: bits say whose turn it is.
        for turns in (0..256_u32).filter(|turns| turns.count_ones() == 4) {
            let mut at = Ref::default();
            let mut told = [0, 0];
            for turn in 0..8 {
                let who = (turns >> turn & 1) as usize;
                let moved = moves[told[who]];
                told[who] += 1;
                at.report(&format!("{}:{moved}", [first, second][who]));
            }
            assert_eq!(at.runs, moves, "{first} {second} {turns:08b}");
        }
    }
}

#[test]
fn two_webhooks_of_one_repository_are_two_channels_and_one_run() {
    check(&["webhook:x:0>a", "webhook:y:0>a", "webhook:y:a>b", "webhook:x:a>b"], &["0>a", "a>b"]);
}

/// The hook told of the way there and back; the webhook's first delivery was lost, and its second came.
fn there_and_back() -> Ref {
    let mut at = Ref::default();
    for report in ["hook:0>a", "hook:a>b", "hook:b>a", "webhook:b>a"] {
        at.report(report);
    }
    assert_eq!(at.runs, ["0>a", "a>b", "b>a"]);
    at
}

#[test]
fn what_a_channel_tells_after_what_came_later_is_new_where_the_ref_has_moved_again() {
    let mut again = there_and_back();
    again.tip = Some("b".to_owned());
    assert_eq!(again.report("webhook:a>b"), Verdict::New);
    // And the hook that comes after it tells the same move.
    assert!(matches!(again.report("hook:a>b"), Verdict::Duplicate { of, .. } if of == key(4)));
    assert_eq!(again.runs, ["0>a", "a>b", "b>a", "a>b"]);
}

#[test]
fn what_a_channel_tells_after_what_came_later_is_a_duplicate_where_the_ref_has_not_moved() {
    let mut late = there_and_back();
    late.tip = Some("a".to_owned());
    assert!(matches!(late.report("webhook:a>b"), Verdict::Duplicate { of, .. } if of == key(2)));
    // Without a mirror nothing says that it moved.
    assert!(matches!(there_and_back().report("webhook:a>b"), Verdict::Duplicate { .. }));
}

#[test]
fn a_branch_that_is_made_again_after_its_end_was_told_is_new_where_it_is_there() {
    let mut at = Ref::default();
    for report in ["hook:0>a", "hook:a>0", "webhook:a>0"] {
        at.report(report);
    }
    at.tip = Some("a".to_owned());
    assert_eq!(at.report("webhook:0>a"), Verdict::New);
    at.tip = Some("0".to_owned());
    assert!(matches!(at.report("hook:0>a"), Verdict::Duplicate { of, .. } if of == key(3)));
}

#[test]
fn the_same_channel_again_under_a_new_id_is_new_and_late_when_the_ref_went_on() {
    let mut at = Ref::default();
    at.report("webhook:0>a");
    at.report("webhook:a>b");
    assert_eq!(at.report("webhook:a>b"), Verdict::New);
    at.report("webhook:b>c");
    assert_eq!(at.report("webhook:a>b"), Verdict::Late);
}
