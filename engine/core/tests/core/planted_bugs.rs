//! Bugs planted in the core, one at a time: the stories and the random runs must each notice every one.

use std::panic::{self, AssertUnwindSafe};

use kickwheel_core::planted::{PLANTED_BUGS, with_planted};

use crate::{properties::random_runs, scenarios};

/// What each planted bug does, in order.
const BUGS: [&str; PLANTED_BUGS as usize] = [
    "results of superseded attempts are accepted",
    "results accepted after a cancel keep their effects",
    "one retry more than the user allows",
    "a step runs although a need was skipped",
    "a step ends one task early",
    "a loss is paid for by the user",
    "on_failure runs after a cancel",
    "recovery forgets tasks that run",
    "nobody is woken after a backoff",
    "a repeated attempt keeps its number",
];

/// How many random runs a bug may survive.
const CASES: u32 = 400;

fn stories_that_fail() -> Vec<&'static str> {
    scenarios::ALL.iter().filter(|(_, story)| fails(story)).map(|(name, _)| *name).collect()
}

fn fails(body: impl Fn()) -> bool {
    panic::catch_unwind(AssertUnwindSafe(body)).is_err()
}

#[test]
fn without_a_bug_everything_passes() {
    assert_eq!(stories_that_fail(), Vec::<&str>::new());
    random_runs(CASES);
}

#[test]
fn each_planted_bug_fails_a_story() {
    for (number, bug) in (1..).zip(BUGS) {
        let failing = with_planted(number, stories_that_fail);
        println!("bug {number} ({bug}) fails {failing:?}");
        assert!(!failing.is_empty(), "no story notices bug {number}: {bug}");
    }
}

#[test]
fn each_planted_bug_breaks_a_random_run() {
    for (number, bug) in (1..).zip(BUGS) {
        let noticed = with_planted(number, || fails(|| random_runs(CASES)));
        assert!(noticed, "no random run notices bug {number}: {bug}");
    }
}
