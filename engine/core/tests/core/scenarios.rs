//! One story per promise: what happens, what is decided (and nothing else), what is owed after it.

use kickwheel_core::{
    decide::FINALLY_GRACE_MS,
    event::{FailureKind, TaskOutput},
};
use kickwheel_schemas::{ArtifactRef, Digest, plugin::Effect};
use serde_json::json;

use crate::{
    harness::{
        What::{Cancel, Start, Wake},
        cancelled, conflicts, conflicts_with, fails, fails_as, found, gives, line, lost, outputs, started, succeeds,
        tell,
    },
    plans::{plan, step},
};

/// Every story as a test of its own, and all of them as a list for those who plant bugs.
macro_rules! stories {
    ($($name:ident $body:block)*) => {
        $(
            #[test]
            fn $name() $body
        )*
        #[cfg(feature = "planted-bugs")]
        pub const ALL: &[(&str, fn())] = &[$((stringify!($name), $name)),*];
    };
}

/// A result that asks for a model to be promoted.
fn promotion() -> TaskOutput {
    let artifact = ArtifactRef { digest: Digest::of(b"m"), size: 1, path: "model.bin".to_owned(), folder: false };
    let effect = Effect::RegisterModel {
        name: "churn".to_owned(),
        artifact,
        metrics: std::collections::BTreeMap::new(),
        stage: Some("production".to_owned()),
        expected_version: None,
    };
    TaskOutput { effects: vec![effect], ..TaskOutput::default() }
}

stories! {

a_step_runs_when_its_needs_have_ended {
    tell(
        &plan([step("a"), step("b"), step("c").needs(&["a", "b"])]),
        &[
            line(0, Start, ["run started", "a expanded to 1", "b expanded to 1"], ["execute a[0]#1", "execute b[0]#1"]),
            line(1, started("a[0]#1"), ["a[0]#1 started"], ["execute a[0]#1", "execute b[0]#1"]),
            line(2, succeeds("a[0]#1"), ["a[0]#1 succeeded", "a finished well"], ["execute b[0]#1"]),
            line(3, succeeds("b[0]#1"), ["b[0]#1 succeeded", "b finished well", "c expanded to 1"], ["execute c[0]#1"]),
            line(4, succeeds("c[0]#1"), ["c[0]#1 succeeded", "c finished well", "run succeeded"], []),
        ],
    );
}

the_first_meaning_of_an_image_counts_for_the_whole_run {
    tell(
        &plan([step("a"), step("b").needs(&["a"])]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(1, found("python:3", "sha256:1"), ["python:3 is sha256:1"], ["execute a[0]#1"]),
            line(2, found("python:3", "sha256:2"), [], ["execute a[0]#1"]),
            line(3, lost("a[0]#1"), ["a[0]#1 retried for platform at 3"], ["execute a[0]#2"]),
            line(4, found("python:3", "sha256:2"), [], ["execute a[0]#2"]),
            line(5, succeeds("a[0]#2"), ["a[0]#2 succeeded", "a finished well", "b expanded to 1"], ["execute b[0]#1"]),
            line(6, found("python:3", "sha256:3"), [], ["execute b[0]#1"]),
            line(7, found("ruby:3", "sha256:4"), ["ruby:3 is sha256:4"], ["execute b[0]#1"]),
            line(8, succeeds("b[0]#1"), ["b[0]#1 succeeded", "b finished well", "run succeeded"], []),
            line(9, found("perl:5", "sha256:5"), [], []),
        ],
    );
}

a_plan_without_steps_succeeds_at_once {
    tell(&plan([]), &[line(0, Start, ["run started", "run succeeded"], [])]);
}

a_failed_need_skips_everything_behind_it {
    tell(
        &plan([step("a"), step("b").needs(&["a"]), step("c").needs(&["b"]), step("d")]),
        &[
            line(0, Start, ["run started", "a expanded to 1", "d expanded to 1"], ["execute a[0]#1", "execute d[0]#1"]),
            line(
                1,
                fails("a[0]#1"),
                [
                    "a[0]#1 failed: it said so",
                    "a finished badly",
                    "b skipped: `a`, which it needs, failed",
                    "c skipped: `b`, which it needs, was skipped",
                ],
                ["execute d[0]#1"],
            ),
            line(2, succeeds("d[0]#1"), ["d[0]#1 succeeded", "d finished well", "run failed"], []),
        ],
    );
}

a_false_condition_skips_the_step_and_what_needs_it {
    tell(
        &plan([step("a").condition("inputs.epochs > 50"), step("b").needs(&["a"]), step("c").condition("inputs.epochs == 10")]),
        &[
            line(
                0,
                Start,
                [
                    "run started",
                    "a skipped: its condition is false: inputs.epochs > 50",
                    "b skipped: `a`, which it needs, was skipped",
                    "c expanded to 1",
                ],
                ["execute c[0]#1"],
            ),
            line(1, succeeds("c[0]#1"), ["c[0]#1 succeeded", "c finished well", "run succeeded"], []),
        ],
    );
}

a_condition_without_a_value_fails_the_step {
    tell(
        &plan([step("a").condition("event.data.nope == 1"), step("b").needs(&["a"])]),
        &[line(
            0,
            Start,
            [
                "run started",
                "a failed: evaluate `event.data.nope == 1`: there is no `nope`; test with `has(…)` first, or give a \
                 default: `has(x.nope) ? x.nope : …`",
                "b skipped: `a`, which it needs, failed",
                "run failed",
            ],
            [],
        )],
    );
}

a_condition_reads_outputs_of_earlier_steps {
    tell(
        &plan([step("gate").output("better"), step("promote").needs(&["gate"]).condition("steps.gate.outputs.better")]),
        &[
            line(0, Start, ["run started", "gate expanded to 1"], ["execute gate[0]#1"]),
            line(
                1,
                gives("gate[0]#1", outputs(json!({"better": false}))),
                [
                    "gate[0]#1 succeeded",
                    "gate finished well",
                    "promote skipped: its condition is false: steps.gate.outputs.better",
                    "run succeeded",
                ],
                [],
            ),
        ],
    );
}

always_runs_whatever_became_of_the_needs {
    tell(
        &plan([step("a"), step("b").needs(&["a"]).condition("always()"), step("c").needs(&["a"]).condition("failed()")]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(
                1,
                fails("a[0]#1"),
                ["a[0]#1 failed: it said so", "a finished badly", "b expanded to 1", "c expanded to 1"],
                ["execute b[0]#1", "execute c[0]#1"],
            ),
            line(2, succeeds("b[0]#1"), ["b[0]#1 succeeded", "b finished well"], ["execute c[0]#1"]),
            line(3, succeeds("c[0]#1"), ["c[0]#1 succeeded", "c finished well", "run failed"], []),
        ],
    );
}

failed_is_false_when_every_need_went_well {
    tell(
        &plan([step("a"), step("b").needs(&["a"]).condition("failed()"), step("c").condition("failed()")]),
        &[
            line(
                0,
                Start,
                ["run started", "a expanded to 1", "c skipped: its condition is false: failed()"],
                ["execute a[0]#1"],
            ),
            line(
                1,
                succeeds("a[0]#1"),
                [
                    "a[0]#1 succeeded",
                    "a finished well",
                    "b skipped: its condition is false: failed()",
                    "run succeeded",
                ],
                [],
            ),
        ],
    );
}

has_lets_a_condition_ask_for_a_skipped_steps_output {
    tell(
        &plan([
            step("a").condition("false").output("x"),
            step("b").needs(&["a"]).condition("always() && has(steps.a.outputs.x)"),
            step("c").needs(&["a"]).condition("always() && steps.a.outputs.x == 1"),
        ]),
        &[line(
            0,
            Start,
            [
                "run started",
                "a skipped: its condition is false: false",
                "b skipped: its condition is false: always() && has(steps.a.outputs.x)",
                "c failed: evaluate `always() && steps.a.outputs.x == 1`: there is no `x`; test with `has(…)` first, or \
                 give a default: `has(x.x) ? x.x : …`",
                "run failed",
            ],
            [],
        )],
    );
}

a_matrix_step_ends_with_its_last_task {
    tell(
        &plan([step("a").axis("n", json!([1, 2])), step("b").needs(&["a"])]),
        &[
            line(0, Start, ["run started", "a expanded to 2"], ["execute a[0]#1", "execute a[1]#1"]),
            line(1, succeeds("a[1]#1"), ["a[1]#1 succeeded"], ["execute a[0]#1"]),
            line(2, succeeds("a[0]#1"), ["a[0]#1 succeeded", "a finished well", "b expanded to 1"], ["execute b[0]#1"]),
            line(3, succeeds("b[0]#1"), ["b[0]#1 succeeded", "b finished well", "run succeeded"], []),
        ],
    );
}

a_failed_task_does_not_stop_its_siblings {
    tell(
        &plan([step("a").axis("n", json!([1, 2, 3])), step("b").needs(&["a"])]),
        &[
            line(
                0,
                Start,
                ["run started", "a expanded to 3"],
                ["execute a[0]#1", "execute a[1]#1", "execute a[2]#1"],
            ),
            line(1, fails("a[0]#1"), ["a[0]#1 failed: it said so"], ["execute a[1]#1", "execute a[2]#1"]),
            line(2, succeeds("a[1]#1"), ["a[1]#1 succeeded"], ["execute a[2]#1"]),
            line(
                3,
                succeeds("a[2]#1"),
                ["a[2]#1 succeeded", "a finished badly", "b skipped: `a`, which it needs, failed", "run failed"],
                [],
            ),
        ],
    );
}

an_empty_matrix_succeeds_at_once {
    tell(
        &plan([step("a").axis("n", json!("${{ inputs.none }}")), step("b").needs(&["a"])]),
        &[
            line(
                0,
                Start,
                ["run started", "a expanded to 0", "a finished well", "b expanded to 1"],
                ["execute b[0]#1"],
            ),
            line(1, succeeds("b[0]#1"), ["b[0]#1 succeeded", "b finished well", "run succeeded"], []),
        ],
    );
}

a_failure_spends_the_users_retries_with_growing_waits {
    tell(
        &plan([step("a").retry(2)]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(10, fails("a[0]#1"), ["a[0]#1 retried for user at 1010"], ["wake at 1010"]),
            line(1009, Wake, [], ["wake at 1010"]),
            line(1010, Wake, ["a[0]#2 due"], ["execute a[0]#2"]),
            line(1011, Wake, [], ["execute a[0]#2"]),
            line(1020, fails("a[0]#2"), ["a[0]#2 retried for user at 3020"], ["wake at 3020"]),
            line(5000, Wake, ["a[0]#3 due"], ["execute a[0]#3"]),
            line(5001, fails("a[0]#3"), ["a[0]#3 failed: it said so", "a finished badly", "run failed"], []),
        ],
    );
}

a_retried_task_may_still_succeed {
    tell(
        &plan([step("a").retry(1)]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(0, fails_as("a[0]#1", FailureKind::OutOfMemory), ["a[0]#1 retried for user at 1000"], ["wake at 1000"]),
            line(1000, Wake, ["a[0]#2 due"], ["execute a[0]#2"]),
            line(1001, started("a[0]#2"), ["a[0]#2 started"], ["execute a[0]#2"]),
            line(1002, succeeds("a[0]#2"), ["a[0]#2 succeeded", "a finished well", "run succeeded"], []),
        ],
    );
}

a_failure_that_repeating_cannot_mend_is_not_repeated {
    tell(
        &plan([step("a").retry(5)]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(
                1,
                fails_as("a[0]#1", FailureKind::Unplaceable),
                ["a[0]#1 failed: it said so", "a finished badly", "run failed"],
                [],
            ),
        ],
    );
}

the_earliest_of_several_waits_is_the_alarm {
    tell(
        &plan([step("a").axis("n", json!([1, 2])).retry(2)]),
        &[
            line(0, Start, ["run started", "a expanded to 2"], ["execute a[0]#1", "execute a[1]#1"]),
            line(500, fails("a[0]#1"), ["a[0]#1 retried for user at 1500"], ["execute a[1]#1", "wake at 1500"]),
            line(200, fails("a[1]#1"), ["a[1]#1 retried for user at 1200"], ["wake at 1200"]),
            line(1200, Wake, ["a[1]#2 due"], ["execute a[1]#2", "wake at 1500"]),
            line(1500, Wake, ["a[0]#2 due"], ["execute a[0]#2", "execute a[1]#2"]),
            line(1600, succeeds("a[0]#2"), ["a[0]#2 succeeded"], ["execute a[1]#2"]),
            line(1601, succeeds("a[1]#2"), ["a[1]#2 succeeded", "a finished well", "run succeeded"], []),
        ],
    );
}

a_loss_costs_the_user_nothing {
    tell(
        &plan([step("a").retry(1)]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(1, lost("a[0]#1"), ["a[0]#1 retried for platform at 1"], ["execute a[0]#2"]),
            line(2, lost("a[0]#2"), ["a[0]#2 retried for platform at 1002"], ["wake at 1002"]),
            line(1002, Wake, ["a[0]#3 due"], ["execute a[0]#3"]),
            line(1003, lost("a[0]#3"), ["a[0]#3 retried for platform at 3003"], ["wake at 3003"]),
            line(3003, Wake, ["a[0]#4 due"], ["execute a[0]#4"]),
            line(3004, fails("a[0]#4"), ["a[0]#4 retried for user at 4004"], ["wake at 4004"]),
            line(4004, Wake, ["a[0]#5 due"], ["execute a[0]#5"]),
            line(4005, succeeds("a[0]#5"), ["a[0]#5 succeeded", "a finished well", "run succeeded"], []),
        ],
    );
}

an_attempt_stopped_by_nobody_counts_as_lost {
    tell(
        &plan([step("a")]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(1, cancelled("a[0]#1"), ["a[0]#1 retried for platform at 1"], ["execute a[0]#2"]),
            line(2, succeeds("a[0]#2"), ["a[0]#2 succeeded", "a finished well", "run succeeded"], []),
        ],
    );
}

the_platforms_patience_ends {
    // The eleventh loss is the last. The second attempt comes at once, each later one waits a second longer.
    let mut story = vec![
        line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
        line(0, lost("a[0]#1"), ["a[0]#1 retried for platform at 0"], ["execute a[0]#2"]),
    ];
    let waits = [
        ("a[0]#2", "a[0]#2 retried for platform at 1000", "wake at 1000", 1000, "a[0]#3 due", "execute a[0]#3"),
        ("a[0]#3", "a[0]#3 retried for platform at 3000", "wake at 3000", 3000, "a[0]#4 due", "execute a[0]#4"),
        ("a[0]#4", "a[0]#4 retried for platform at 6000", "wake at 6000", 6000, "a[0]#5 due", "execute a[0]#5"),
        ("a[0]#5", "a[0]#5 retried for platform at 10000", "wake at 10000", 10_000, "a[0]#6 due", "execute a[0]#6"),
        ("a[0]#6", "a[0]#6 retried for platform at 15000", "wake at 15000", 15_000, "a[0]#7 due", "execute a[0]#7"),
        ("a[0]#7", "a[0]#7 retried for platform at 21000", "wake at 21000", 21_000, "a[0]#8 due", "execute a[0]#8"),
        ("a[0]#8", "a[0]#8 retried for platform at 28000", "wake at 28000", 28_000, "a[0]#9 due", "execute a[0]#9"),
        ("a[0]#9", "a[0]#9 retried for platform at 36000", "wake at 36000", 36_000, "a[0]#10 due", "execute a[0]#10"),
        ("a[0]#10", "a[0]#10 retried for platform at 45000", "wake at 45000", 45_000, "a[0]#11 due", "execute a[0]#11"),
    ];
    let mut at = 0;
    for (attempt, retried, alarm, until, due, execute) in waits {
        story.push(line(at, lost(attempt), [retried], [alarm]));
        story.push(line(until, Wake, [due], [execute]));
        at = until;
    }
    story.push(line(
        at,
        lost("a[0]#11"),
        [
            "a[0]#11 failed: the platform lost it 11 times, the last time: its node is gone",
            "a finished badly",
            "run failed",
        ],
        [],
    ));
    tell(&plan([step("a").retry(9)]), &story);
}

a_call_that_met_a_changed_world_is_repeated_three_times {
    tell(
        &plan([step("a").plugin(json!({}))]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(1, conflicts("a[0]#1"), ["a[0]#1 retried for conflict at 1"], ["execute a[0]#2"]),
            line(2, conflicts("a[0]#2"), ["a[0]#2 retried for conflict at 2"], ["execute a[0]#3"]),
            line(3, conflicts("a[0]#3"), ["a[0]#3 retried for conflict at 3"], ["execute a[0]#4"]),
            line(
                4,
                conflicts("a[0]#4"),
                [
                    "a[0]#4 failed: what it saw kept changing, 4 times, the last time: stage moved",
                    "a finished badly",
                    "run failed",
                ],
                [],
            ),
        ],
    );
}

effects_of_an_accepted_result_are_recorded_with_it {
    tell(
        &plan([step("a").plugin(json!({}))]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(1, conflicts_with("a[0]#1", promotion()), ["a[0]#1 retried for conflict at 1"], ["execute a[0]#2"]),
            line(
                2,
                gives("a[0]#2", promotion()),
                ["a[0]#2 succeeded with 1 effects", "a finished well", "run succeeded"],
                [],
            ),
        ],
    );
}

a_superseded_attempt_changes_nothing {
    tell(
        &plan([step("a").retry(1)]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(1, lost("a[0]#1"), ["a[0]#1 retried for platform at 1"], ["execute a[0]#2"]),
            line(2, started("a[0]#1"), [], ["execute a[0]#2"]),
            line(3, gives("a[0]#1", promotion()), [], ["execute a[0]#2"]),
            line(4, fails("a[0]#2"), ["a[0]#2 retried for user at 1004"], ["wake at 1004"]),
            // The attempt that waits has not been executed, so nothing can be said about it.
            line(5, succeeds("a[0]#3"), [], ["wake at 1004"]),
            line(6, started("a[0]#3"), [], ["wake at 1004"]),
            line(1004, Wake, ["a[0]#3 due"], ["execute a[0]#3"]),
            line(1005, succeeds("a[0]#3"), ["a[0]#3 succeeded", "a finished well", "run succeeded"], []),
        ],
    );
}

repeated_and_misdirected_inputs_change_nothing {
    tell(
        &plan([step("a"), step("b").needs(&["a"])]),
        &[
            line(0, succeeds("a[0]#1"), [], []),
            line(0, Wake, [], []),
            line(0, Cancel, [], []),
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(1, Start, [], ["execute a[0]#1"]),
            line(1, started("a[0]#1"), ["a[0]#1 started"], ["execute a[0]#1"]),
            line(2, started("a[0]#1"), [], ["execute a[0]#1"]),
            line(2, succeeds("a[1]#1"), [], ["execute a[0]#1"]),
            line(2, succeeds("nobody[0]#1"), [], ["execute a[0]#1"]),
            line(2, succeeds("b[0]#1"), [], ["execute a[0]#1"]),
            line(2, succeeds("a[0]#2"), [], ["execute a[0]#1"]),
            line(3, succeeds("a[0]#1"), ["a[0]#1 succeeded", "a finished well", "b expanded to 1"], ["execute b[0]#1"]),
            line(4, succeeds("a[0]#1"), [], ["execute b[0]#1"]),
            line(4, fails("a[0]#1"), [], ["execute b[0]#1"]),
            line(5, succeeds("b[0]#1"), ["b[0]#1 succeeded", "b finished well", "run succeeded"], []),
            line(6, succeeds("b[0]#1"), [], []),
            line(6, Wake, [], []),
            line(6, Start, [], []),
        ],
    );
}

a_cancel_waits_for_what_may_be_running {
    tell(
        &plan([step("ready"), step("running"), step("later").needs(&["ready"])]),
        &[
            line(
                0,
                Start,
                ["run started", "ready expanded to 1", "running expanded to 1"],
                ["execute ready[0]#1", "execute running[0]#1"],
            ),
            line(
                1,
                started("running[0]#1"),
                ["running[0]#1 started"],
                ["execute ready[0]#1", "execute running[0]#1"],
            ),
            line(
                2,
                Cancel,
                ["cancel requested", "later skipped: the run was cancelled"],
                ["stop ready[0]#1", "stop running[0]#1"],
            ),
            line(3, Cancel, [], ["stop ready[0]#1", "stop running[0]#1"]),
            line(
                4,
                cancelled("ready[0]#1"),
                ["ready[0]#1 cancelled", "ready finished badly"],
                ["stop running[0]#1"],
            ),
            line(
                5,
                cancelled("running[0]#1"),
                ["running[0]#1 cancelled", "running finished badly", "run cancelled"],
                [],
            ),
            line(6, Cancel, [], []),
        ],
    );
}

a_cancel_ends_a_task_in_backoff_at_once {
    tell(
        &plan([step("a").retry(1)]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(0, fails("a[0]#1"), ["a[0]#1 retried for user at 1000"], ["wake at 1000"]),
            line(1, Cancel, ["cancel requested", "a[0]#2 cancelled", "a finished badly", "run cancelled"], []),
            line(1000, Wake, [], []),
        ],
    );
}

after_a_cancel_nothing_is_repeated {
    tell(
        &plan([step("a").axis("n", json!([1, 2, 3])).retry(3)]),
        &[
            line(0, Start, ["run started", "a expanded to 3"], ["execute a[0]#1", "execute a[1]#1", "execute a[2]#1"]),
            line(1, Cancel, ["cancel requested"], ["stop a[0]#1", "stop a[1]#1", "stop a[2]#1"]),
            line(2, fails("a[0]#1"), ["a[0]#1 failed: it said so"], ["stop a[1]#1", "stop a[2]#1"]),
            line(3, lost("a[1]#1"), ["a[1]#1 cancelled"], ["stop a[2]#1"]),
            line(4, conflicts("a[2]#1"), ["a[2]#1 cancelled", "a finished badly", "run cancelled"], []),
        ],
    );
}

a_success_after_a_cancel_is_recorded_and_publishes_nothing {
    tell(
        &plan([step("a"), step("b").needs(&["a"])]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(1, Cancel, ["cancel requested", "b skipped: the run was cancelled"], ["stop a[0]#1"]),
            line(2, started("a[0]#1"), ["a[0]#1 started"], ["stop a[0]#1"]),
            line(3, gives("a[0]#1", promotion()), ["a[0]#1 succeeded", "a finished well", "run cancelled"], []),
        ],
    );
}

a_cancel_after_success_is_ignored {
    tell(
        &plan([step("a")]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(1, succeeds("a[0]#1"), ["a[0]#1 succeeded", "a finished well", "run succeeded"], []),
            line(2, Cancel, [], []),
        ],
    );
}

on_failure_comes_before_finally {
    tell(
        &plan([
            step("a"),
            step("tell").on_failure().condition("run.failed_steps == ['a']"),
            step("also").on_failure().needs(&["tell"]),
            step("clean").finally().condition("run.state == 'failed'"),
        ]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(
                1,
                fails("a[0]#1"),
                ["a[0]#1 failed: it said so", "a finished badly", "phase on_failure", "tell expanded to 1"],
                ["execute tell[0]#1"],
            ),
            line(
                2,
                succeeds("tell[0]#1"),
                ["tell[0]#1 succeeded", "tell finished well", "also expanded to 1"],
                ["execute also[0]#1"],
            ),
            line(
                3,
                succeeds("also[0]#1"),
                ["also[0]#1 succeeded", "also finished well", "phase finally", "clean expanded to 1"],
                ["execute clean[0]#1"],
            ),
            line(4, succeeds("clean[0]#1"), ["clean[0]#1 succeeded", "clean finished well", "run failed"], []),
        ],
    );
}

on_failure_is_passed_over_when_nothing_failed {
    tell(
        &plan([step("a").output("x"), step("tell").on_failure(), step("clean").finally().condition("steps.a.outputs.x == 1")]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(
                1,
                gives("a[0]#1", outputs(json!({"x": 1}))),
                ["a[0]#1 succeeded", "a finished well", "phase finally", "clean expanded to 1"],
                ["execute clean[0]#1"],
            ),
            line(2, succeeds("clean[0]#1"), ["clean[0]#1 succeeded", "clean finished well", "run succeeded"], []),
        ],
    );
}

a_phase_that_is_skipped_whole_is_over_at_once {
    tell(
        &plan([
            step("a").condition("inputs.nope"),
            step("tell").on_failure().condition("false"),
            step("clean").finally().condition("false"),
        ]),
        &[line(
            0,
            Start,
            [
                "run started",
                "a failed: evaluate `inputs.nope`: there is no `nope`; test with `has(…)` first, or give a default: \
                 `has(x.nope) ? x.nope : …`",
                "phase on_failure",
                "tell skipped: its condition is false: false",
                "phase finally",
                "clean skipped: its condition is false: false",
                "run failed",
            ],
            [],
        )],
    );
}

a_failure_in_finally_fails_the_run {
    tell(
        &plan([step("a"), step("clean").finally()]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(
                1,
                succeeds("a[0]#1"),
                ["a[0]#1 succeeded", "a finished well", "phase finally", "clean expanded to 1"],
                ["execute clean[0]#1"],
            ),
            line(2, fails("clean[0]#1"), ["clean[0]#1 failed: it said so", "clean finished badly", "run failed"], []),
        ],
    );
}

a_cancel_passes_on_failure_over_and_runs_finally {
    const GRACE: i64 = FINALLY_GRACE_MS as i64;
    assert_eq!(GRACE, 300_000, "the alarms below are written out");
    tell(
        &plan([step("a"), step("tell").on_failure(), step("clean").finally().condition("run.state == 'cancelled'").retry(1)]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(1, Cancel, ["cancel requested"], ["stop a[0]#1"]),
            line(
                1000,
                fails("a[0]#1"),
                ["a[0]#1 failed: it said so", "a finished badly", "phase finally", "clean expanded to 1"],
                ["execute clean[0]#1", "wake at 301000"],
            ),
            line(1001, Cancel, [], ["execute clean[0]#1", "wake at 301000"]),
            line(2000, fails("clean[0]#1"), ["clean[0]#1 retried for user at 3000"], ["wake at 3000"]),
            line(3000, Wake, ["clean[0]#2 due"], ["execute clean[0]#2", "wake at 301000"]),
            line(
                3001,
                gives("clean[0]#2", promotion()),
                ["clean[0]#2 succeeded", "clean finished well", "run cancelled"],
                [],
            ),
        ],
    );
}

a_step_that_a_cancel_stopped_has_not_failed {
    tell(
        &plan([
            step("a").axis("n", json!([1, 2])),
            step("b"),
            step("tell").on_failure(),
            step("undo").finally().condition("failed()"),
            step("see").finally().condition("run.state == 'cancelled' && run.failed_steps == []"),
        ]),
        &[
            line(
                0,
                Start,
                ["run started", "a expanded to 2", "b expanded to 1"],
                ["execute a[0]#1", "execute a[1]#1", "execute b[0]#1"],
            ),
            line(1, succeeds("a[0]#1"), ["a[0]#1 succeeded"], ["execute a[1]#1", "execute b[0]#1"]),
            line(2, Cancel, ["cancel requested"], ["stop a[1]#1", "stop b[0]#1"]),
            line(3, cancelled("a[1]#1"), ["a[1]#1 cancelled", "a finished badly"], ["stop b[0]#1"]),
            line(
                4,
                cancelled("b[0]#1"),
                [
                    "b[0]#1 cancelled",
                    "b finished badly",
                    "phase finally",
                    "undo skipped: its condition is false: failed()",
                    "see expanded to 1",
                ],
                ["execute see[0]#1", "wake at 300004"],
            ),
            line(5, succeeds("see[0]#1"), ["see[0]#1 succeeded", "see finished well", "run cancelled"], []),
        ],
    );
}

a_step_of_which_a_task_failed_before_the_cancel_has_failed {
    tell(
        &plan([step("a").axis("n", json!([1, 2])), step("undo").finally().condition("failed() && run.failed_steps == ['a']")]),
        &[
            line(0, Start, ["run started", "a expanded to 2"], ["execute a[0]#1", "execute a[1]#1"]),
            line(1, fails("a[0]#1"), ["a[0]#1 failed: it said so"], ["execute a[1]#1"]),
            line(2, Cancel, ["cancel requested"], ["stop a[1]#1"]),
            line(
                3,
                cancelled("a[1]#1"),
                ["a[1]#1 cancelled", "a finished badly", "phase finally", "undo expanded to 1"],
                ["execute undo[0]#1", "wake at 300003"],
            ),
            line(4, succeeds("undo[0]#1"), ["undo[0]#1 succeeded", "undo finished well", "run cancelled"], []),
        ],
    );
}

the_grace_of_finally_ends {
    tell(
        &plan([
            step("a"),
            step("slow").finally(),
            step("flaky").finally().retry(9),
            step("last").finally().needs(&["slow"]).condition("always()"),
        ]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(1, Cancel, ["cancel requested"], ["stop a[0]#1"]),
            line(
                2,
                cancelled("a[0]#1"),
                [
                    "a[0]#1 cancelled",
                    "a finished badly",
                    "phase finally",
                    "slow expanded to 1",
                    "flaky expanded to 1",
                ],
                ["execute slow[0]#1", "execute flaky[0]#1", "wake at 300002"],
            ),
            line(
                299_500,
                fails("flaky[0]#1"),
                ["flaky[0]#1 retried for user at 300500"],
                ["execute slow[0]#1", "wake at 300002"],
            ),
            line(300_001, Wake, [], ["execute slow[0]#1", "wake at 300002"]),
            line(
                300_002,
                Wake,
                [
                    "grace ended",
                    "flaky[0]#2 cancelled",
                    "flaky finished badly",
                    "last skipped: the run was cancelled",
                ],
                ["stop slow[0]#1"],
            ),
            line(300_003, Wake, [], ["stop slow[0]#1"]),
            line(300_004, lost("slow[0]#1"), ["slow[0]#1 cancelled", "slow finished badly", "run cancelled"], []),
        ],
    );
}

a_cancel_during_on_failure_stops_it {
    tell(
        &plan([step("a"), step("tell").on_failure(), step("then").on_failure().needs(&["tell"])]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(
                1,
                fails("a[0]#1"),
                ["a[0]#1 failed: it said so", "a finished badly", "phase on_failure", "tell expanded to 1"],
                ["execute tell[0]#1"],
            ),
            line(2, Cancel, ["cancel requested", "then skipped: the run was cancelled"], ["stop tell[0]#1"]),
            line(3, cancelled("tell[0]#1"), ["tell[0]#1 cancelled", "tell finished badly", "run cancelled"], []),
        ],
    );
}

a_cancel_during_finally_gives_it_its_grace {
    tell(
        &plan([step("a"), step("clean").finally()]),
        &[
            line(0, Start, ["run started", "a expanded to 1"], ["execute a[0]#1"]),
            line(
                1,
                succeeds("a[0]#1"),
                ["a[0]#1 succeeded", "a finished well", "phase finally", "clean expanded to 1"],
                ["execute clean[0]#1"],
            ),
            line(50, Cancel, ["cancel requested"], ["execute clean[0]#1", "wake at 300050"]),
            line(60, lost("clean[0]#1"), ["clean[0]#1 retried for platform at 60"], ["execute clean[0]#2", "wake at 300050"]),
            line(70, succeeds("clean[0]#2"), ["clean[0]#2 succeeded", "clean finished well", "run cancelled"], []),
        ],
    );
}

}
