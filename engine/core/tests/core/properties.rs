//! Random plans, random inputs: whatever happens, these hold.
//!
//! The world simulated here keeps books of its own and compares: it knows which attempts were asked for, which ended, and
//! what has to be answered. The rules for single events are `is_legal`'s, which is formulated apart from `decide`.

use std::collections::{BTreeMap, BTreeSet};

use kickwheel_core::{
    Command, Event, Input, Plan, RunState, apply, decide,
    decide::{Ending, accepted_effects},
    event::{Failure, FailureKind, RetryCause, TaskEnd, TaskOutput, is_legal},
    outstanding,
    state::{RunStatus, StepState, TaskStatus},
};
use kickwheel_schemas::{ArtifactRef, Digest, Millis, plugin::Effect};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::json;

use crate::plans::{Draft, context, plan, step};

/// How many random runs; more by `KICKWHEEL_PROPERTY_CASES`.
const CASES: u32 = 600;

/// Most inputs after which a run whose commands are all answered must have ended.
const MOST_ANSWERS: usize = 2000;

#[test]
fn random_runs_obey_every_rule() {
    let cases = std::env::var("KICKWHEEL_PROPERTY_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    random_runs(cases);
}

/// Plays `cases` random runs, always the same ones, and panics with the smallest that breaks a rule.
pub fn random_runs(cases: u32) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let result = TestRunner::new_with_rng(config, rng).run(&(plans(), vec(moves(), 0..60)), |(plan, moves)| {
        World::new(&plan).play(&moves);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// Up to eight steps, in phases, with needs among the earlier ones of the same phase.
fn plans() -> impl Strategy<Value = Plan> {
    let shape = (0..10_u8, any::<u8>(), 0..10_u8, 0..8_u8, 0..3_u32);
    vec(shape, 0..=8).prop_map(|mut shapes| {
        const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let phase = |kind: u8| match kind {
            0..=5 => 0,
            6..=7 => 1,
            _ => 2,
        };
        shapes.sort_by_key(|(kind, ..)| phase(*kind));
        let drafts = shapes.iter().enumerate().map(|(index, (kind, needs, condition, matrix, retry))| {
            let earlier = shapes[..index].iter().enumerate().filter(|(_, (other, ..))| phase(*other) == phase(*kind));
            let needs: Vec<&str> =
                earlier.filter(|(bit, _)| needs & (1 << bit) != 0).map(|(bit, _)| NAMES[bit]).collect();
            let draft = step(NAMES[index]).retry(*retry).needs(&needs);
            let draft = match phase(*kind) {
                0 => draft,
                1 => draft.on_failure(),
                _ => draft.finally(),
            };
            matrixed(conditioned(draft, *condition), *matrix)
        });
        plan(drafts)
    })
}

fn conditioned(draft: Draft, condition: u8) -> Draft {
    match condition {
        0 => draft.condition("always()"),
        1 => draft.condition("failed()"),
        2 => draft.condition("inputs.epochs > 50"),
        3 => draft.condition("inputs.epochs == 10"),
        4 => draft.condition("inputs.nope"),
        5 => draft.condition("always() && inputs.epochs == 10"),
        _ => draft,
    }
}

fn matrixed(draft: Draft, matrix: u8) -> Draft {
    match matrix {
        0 => draft.axis("n", json!([])),
        1 => draft.axis("n", json!([1, 2, 3])),
        2 => draft.axis("n", json!([1, 2])).axis("m", json!(["x", "y"])),
        3 => draft.axis("n", json!("${{ inputs.epochs }}")),
        _ => draft,
    }
}

/// What the world does next.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// Answers one of the commands that are owed.
    Answer {
        which: usize,
        how: Answer,
    },
    /// Reports about some attempt that may or may not exist.
    Noise {
        step: usize,
        index: u32,
        attempt: u32,
        how: Answer,
    },
    /// Reports again what was reported last.
    Again,
    /// The alarm, so much before or after its time.
    Wake {
        late_ms: i64,
    },
    Cancel,
    StartAgain,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Started,
    Succeeded,
    Changed,
    Failed,
    Hopeless,
    Lost,
    Cancelled,
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        12 => (any::<usize>(), answers()).prop_map(|(which, how)| Move::Answer { which, how }),
        3 => (0..9_usize, 0..4_u32, 0..5_u32, answers())
            .prop_map(|(step, index, attempt, how)| Move::Noise { step, index, attempt, how }),
        1 => Just(Move::Again),
        4 => (-1000..3000_i64).prop_map(|late_ms| Move::Wake { late_ms }),
        1 => Just(Move::Cancel),
        1 => Just(Move::StartAgain),
    ]
}

fn answers() -> impl Strategy<Value = Answer> {
    prop_oneof![
        3 => Just(Answer::Started),
        6 => Just(Answer::Succeeded),
        1 => Just(Answer::Changed),
        3 => Just(Answer::Failed),
        1 => Just(Answer::Hopeless),
        2 => Just(Answer::Lost),
        1 => Just(Answer::Cancelled),
    ]
}

type Attempt = (usize, u32, u32);

struct World<'p> {
    plan: &'p Plan,
    state: RunState,
    journal: Vec<Event>,
    now: i64,
    last: Option<Input>,
    /// Attempts whose end was accepted.
    ended: BTreeSet<Attempt>,
    /// Accepted failures of the user's, per task.
    user_failures: BTreeMap<(usize, u32), u32>,
}

impl<'p> World<'p> {
    fn new(plan: &'p Plan) -> Self {
        Self {
            plan,
            state: RunState::new(plan.steps.len()),
            journal: Vec::new(),
            now: 1000,
            last: None,
            ended: BTreeSet::new(),
            user_failures: BTreeMap::new(),
        }
    }

    fn play(&mut self, moves: &[Move]) {
        self.happens(Input::Start(Box::new(context())));
        for &next in moves {
            self.now += 7;
            match next {
                Move::Answer { which, how } => self.answer(which, how),
                Move::Noise { step, index, attempt, how } => self.happens(report((step, index, attempt), how)),
                Move::Again => {
                    if let Some(last) = self.last.clone() {
                        self.happens(last);
                    }
                }
                Move::Wake { late_ms } => self.wake(late_ms),
                Move::Cancel => self.happens(Input::Cancel { by: "ada".to_owned(), reason: String::new() }),
                Move::StartAgain => self.happens(Input::Start(Box::new(context()))),
            }
        }
        self.answer_everything();
        self.journal_is_whole();
    }

    fn owed_attempts(&self) -> Vec<Attempt> {
        let attempt = |command| match command {
            Command::Execute { step, index, attempt } | Command::Stop { step, index, attempt } => {
                Some((step, index, attempt))
            }
            Command::WakeAt(_) => None,
        };
        outstanding(self.plan, &self.state).into_iter().filter_map(attempt).collect()
    }

    fn alarm(&self) -> Option<i64> {
        outstanding(self.plan, &self.state).into_iter().find_map(|command| match command {
            Command::WakeAt(at) => Some(at.0),
            Command::Execute { .. } | Command::Stop { .. } => None,
        })
    }

    fn answer(&mut self, which: usize, how: Answer) {
        let owed = self.owed_attempts();
        if !owed.is_empty() {
            self.happens(report(owed[which % owed.len()], how));
        }
    }

    fn wake(&mut self, late_ms: i64) {
        let Some(alarm) = self.alarm() else { return self.happens(Input::Wake) };
        self.now = self.now.max(alarm + late_ms);
        self.happens(Input::Wake);
    }

    /// Every run ends once everything that is owed is done.
    fn answer_everything(&mut self) {
        for _ in 0..MOST_ANSWERS {
            if self.state.is_finished() {
                return;
            }
            match self.owed_attempts().first() {
                Some(attempt) => self.happens(report(*attempt, Answer::Succeeded)),
                None => self.wake(0),
            }
        }
        panic!("the run does not end although every command is answered");
    }

    /// One input, decided and checked from every side.
    fn happens(&mut self, input: Input) {
        let before = self.state.clone();
        let owed_before = self.owed_attempts();
        let alarm_before = self.alarm();
        let events = decide(self.plan, &before, Millis(self.now), input.clone());
        for event in &events {
            assert!(is_legal(&self.state, self.plan, event), "illegal after {input:?}: {event:?}");
            apply(&mut self.state, self.plan, event);
            self.keep_books(event);
        }
        self.nothing_but_what_was_asked(&input, &before, &owed_before, alarm_before, &events);
        terminal_is_final(&before, &self.state);
        self.nothing_is_lost();
        self.journal.extend(events);
        self.last = Some(input);
    }

    fn keep_books(&mut self, event: &Event) {
        match event {
            Event::TaskFinished { step, index, attempt, .. } => {
                assert!(self.ended.insert((*step, *index, *attempt)), "{event:?} ends an attempt twice");
            }
            Event::TaskRetried { step, index, attempt, cause, .. } => {
                assert!(self.ended.insert((*step, *index, *attempt)), "{event:?} ends an attempt twice");
                if *cause == RetryCause::User {
                    let failures = self.user_failures.entry((*step, *index)).or_default();
                    *failures += 1;
                    assert!(*failures <= self.plan.steps[*step].retry.max, "more retries than the user allows");
                }
            }
            Event::RunStarted { .. }
            | Event::PhaseEntered { .. }
            | Event::StepExpanded { .. }
            | Event::StepSkipped { .. }
            | Event::StepFailed { .. }
            | Event::TaskStarted { .. }
            | Event::TaskDue { .. }
            | Event::StepFinished { .. }
            | Event::CancelRequested { .. }
            | Event::GraceEnded { .. }
            | Event::ImagePinned { .. }
            | Event::RunFinished { .. } => {}
        }
    }

    /// Inputs that nobody waited for decide nothing; those that were waited for decide something.
    fn nothing_but_what_was_asked(
        &self,
        input: &Input,
        before: &RunState,
        owed: &[Attempt],
        alarm: Option<i64>,
        events: &[Event],
    ) {
        let wanted = match input {
            Input::Start(_) => before.status == RunStatus::New,
            Input::Started { step, index, attempt } => {
                owed.contains(&(*step, *index, *attempt))
                    && matches!(before.steps[*step].tasks()[*index as usize].status, TaskStatus::Ready { .. })
            }
            Input::Ended { step, index, attempt, .. } => owed.contains(&(*step, *index, *attempt)),
            Input::ImageFound { image, .. } => {
                matches!(before.status, RunStatus::Active { .. }) && !before.images.contains_key(image)
            }
            Input::Wake => alarm.is_some_and(|alarm| alarm <= self.now),
            Input::Cancel { .. } => matches!(before.status, RunStatus::Active { .. }) && before.cancel.is_none(),
        };
        assert_eq!(wanted, !events.is_empty(), "{input:?} decided {events:?}");
        if let Input::Ended { step, index, ending, .. } = input
            && wanted
        {
            self.the_right_budget_pays(before, *step, *index, ending, &events[0]);
        }
        let published = accepted_effects(events);
        let accepted =
            matches!(input, Input::Ended { ending: Ending::Succeeded { changed, .. }, .. } if changed.is_empty());
        let expected = usize::from(wanted && accepted && before.cancel.is_none());
        assert_eq!(published.len(), expected, "{input:?} publishes");
    }

    fn the_right_budget_pays(&self, before: &RunState, step: usize, index: u32, ending: &Ending, event: &Event) {
        let task = &before.steps[step].tasks()[index as usize];
        let stopping = before.is_stopping(self.plan.steps[step].phase);
        let retries = self.plan.steps[step].retry.max;
        let retried = match event {
            Event::TaskRetried { cause, .. } => Some(*cause),
            _ => None,
        };
        let expected = match ending {
            _ if stopping => None,
            Ending::Succeeded { changed, .. } if changed.is_empty() => None,
            Ending::Succeeded { .. } => (task.conflicts < 3).then_some(RetryCause::Conflict),
            Ending::Failed(failure) => {
                (failure.kind.spends_retry() && task.user_failures < retries).then_some(RetryCause::User)
            }
            Ending::Lost { .. } | Ending::Cancelled => (task.platform_failures < 10).then_some(RetryCause::Platform),
        };
        assert_eq!(retried, expected, "{ending:?} was followed by {event:?}");
        if let Event::TaskFinished { end, .. } = event {
            let honest = match ending {
                Ending::Succeeded { changed, .. } if changed.is_empty() => matches!(end, TaskEnd::Succeeded(_)),
                Ending::Succeeded { .. } | Ending::Lost { .. } | Ending::Cancelled if stopping => {
                    matches!(end, TaskEnd::Cancelled)
                }
                Ending::Succeeded { .. } | Ending::Lost { .. } | Ending::Cancelled | Ending::Failed(_) => {
                    matches!(end, TaskEnd::Failed(_))
                }
            };
            assert!(honest, "{ending:?} was recorded as {end:?}");
        }
    }

    /// A run that has begun and not ended owes something; a task is owed at most once; no ended attempt is owed.
    fn nothing_is_lost(&self) {
        let commands = outstanding(self.plan, &self.state);
        match self.state.status {
            RunStatus::New | RunStatus::Finished { .. } => assert_eq!(commands, [], "an idle run owes nothing"),
            RunStatus::Active { .. } => assert!(!commands.is_empty(), "the run is stuck: {:?}", self.state),
        }
        let mut owed = BTreeSet::new();
        for (step, index, attempt) in self.owed_attempts() {
            assert!(owed.insert((step, index)), "{step}[{index}] is owed twice");
            assert!(!self.ended.contains(&(step, index, attempt)), "{step}[{index}]#{attempt} has ended");
        }
        for (step, step_state) in self.state.steps.iter().enumerate() {
            let tasks = step_state.tasks();
            let open = tasks.iter().filter(|task| !task.status.is_terminal()).count();
            if let StepState::Active { open: counted, .. } = step_state {
                assert_eq!(*counted as usize, open, "open tasks of step {step}");
                assert!(open > 0, "step {step} has no open task and is not closed");
            } else {
                assert_eq!(open, 0, "step {step} ended before its tasks");
            }
            for (index, task) in (0..).zip(tasks) {
                let executing = matches!(task.status, TaskStatus::Ready { .. } | TaskStatus::Running { .. });
                assert_eq!(executing, owed.contains(&(step, index)), "{step}[{index}] is {:?}", task.status);
            }
        }
    }

    fn journal_is_whole(&self) {
        let stored = serde_json::to_string(&self.journal).expect("events serialise");
        let read: Vec<Event> = serde_json::from_str(&stored).expect("and come back");
        assert_eq!(read, self.journal);
        let mut folded = RunState::new(self.plan.steps.len());
        for (seq, event) in (0..).zip(&read) {
            assert_eq!(folded.seq, seq);
            apply(&mut folded, self.plan, event);
        }
        assert_eq!(folded, self.state, "the fold of the journal is the live state");
        let ends = self.journal.iter().filter(|event| matches!(event, Event::RunFinished { .. })).count();
        assert_eq!(ends, 1);
        assert!(matches!(self.journal.last(), Some(Event::RunFinished { .. })), "nothing comes after the end");
    }
}

fn terminal_is_final(before: &RunState, after: &RunState) {
    if before.is_finished() {
        assert_eq!(before, after, "a finished run changed");
    }
    for (before, after) in before.steps.iter().zip(&after.steps) {
        if before.is_terminal() {
            assert_eq!(before, after, "a step that had ended changed");
        }
        for (before, after) in before.tasks().iter().zip(after.tasks()) {
            if before.status.is_terminal() {
                assert_eq!(before, after, "a task that had ended changed");
            }
            assert!(before.attempt <= after.attempt && after.attempt <= before.attempt + 1);
        }
    }
}

/// Reports about an attempt. Every success asks for one effect, so that publishing can be counted.
fn report((step, index, attempt): Attempt, how: Answer) -> Input {
    let output = || TaskOutput {
        effects: vec![Effect::RegisterModel {
            name: "m".to_owned(),
            artifact: ArtifactRef { digest: Digest::of(b"m"), size: 1, path: String::new(), folder: false },
            metrics: BTreeMap::new(),
            stage: None,
            expected_version: None,
        }],
        ..TaskOutput::default()
    };
    let failure = |kind| Ending::Failed(Failure { kind, message: "it said so".to_owned() });
    let ending = match how {
        Answer::Started => return Input::Started { step, index, attempt },
        Answer::Succeeded => Ending::Succeeded { output: output(), changed: Vec::new() },
        Answer::Changed => Ending::Succeeded { output: output(), changed: vec!["stage moved".to_owned()] },
        Answer::Failed => failure(FailureKind::Exit),
        Answer::Hopeless => failure(FailureKind::Unplaceable),
        Answer::Lost => Ending::Lost { message: "its node is gone".to_owned() },
        Answer::Cancelled => Ending::Cancelled,
    };
    Input::Ended { step, index, attempt, ending }
}
