//! A decision in the making: the events so far, and the state as it is after them.
//!
//! Copying a run of ten thousand tasks for every decision would cost more than deciding. A draft copies a step when an
//! event changes it, and reads all others from the state it began with.

use std::collections::BTreeMap;

use kickwheel_schemas::Millis;

use crate::{
    event::{Event, RunContext, fold_head, fold_step},
    plan::{Phase, Plan, StepIndex},
    state::{Cancel, RunState, RunStatus, StepState},
};

/// Events being decided at one moment.
pub(super) struct Draft<'a> {
    pub plan: &'a Plan,
    pub context: &'a RunContext,
    pub at: Millis,
    base: &'a RunState,
    status: RunStatus,
    cancel: Option<Cancel>,
    changed: BTreeMap<StepIndex, StepState>,
    events: Vec<Event>,
}

impl<'a> Draft<'a> {
    pub fn new(plan: &'a Plan, base: &'a RunState, context: &'a RunContext, at: Millis) -> Self {
        Self {
            plan,
            context,
            at,
            base,
            status: base.status,
            cancel: base.cancel.clone(),
            changed: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    /// A draft for a run that has begun; none for one that has not.
    pub fn of_running(plan: &'a Plan, base: &'a RunState, at: Millis) -> Option<Self> {
        Some(Self::new(plan, base, base.context.as_deref()?, at))
    }

    /// Adds an event and takes it into account.
    pub fn record(&mut self, event: Event) {
        match event.step() {
            Some(step) => {
                let state = self.changed.entry(step).or_insert_with(|| base_step(self.base, step).clone());
                fold_step(state, &event);
            }
            None => fold_head(&mut self.status, &mut self.cancel, &event),
        }
        self.events.push(event);
    }

    /// A step as it is after the events so far.
    pub fn step(&self, step: StepIndex) -> &StepState {
        self.changed.get(&step).unwrap_or_else(|| base_step(self.base, step))
    }

    /// The phase that is being executed; none once the run has finished.
    pub fn phase(&self) -> Option<Phase> {
        match self.status {
            RunStatus::Active { phase } => Some(phase),
            RunStatus::New | RunStatus::Finished { .. } => None,
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_some()
    }

    /// Whether tasks of this phase are to be stopped rather than executed.
    pub fn is_stopping(&self, phase: Phase) -> bool {
        self.cancel.as_ref().is_some_and(|cancel| cancel.stops(phase))
    }

    /// The places of a phase's steps.
    pub fn steps_of(&self, phase: Phase) -> impl Iterator<Item = StepIndex> + use<'a> {
        (0..).zip(&self.plan.steps).filter(move |(_, step)| step.phase == phase).map(|(index, _)| index)
    }

    /// The steps of these phases that have failed so far. One that was stopped by a cancel has not.
    pub fn failed_steps(&self, phases: &[Phase]) -> impl Iterator<Item = StepIndex> {
        (0..self.plan.steps.len())
            .filter(move |&step| phases.contains(&self.plan.steps[step].phase))
            .filter(|&step| self.step(step).has_failed())
    }

    pub fn into_events(self) -> Vec<Event> {
        self.events
    }
}

/// A state without events need not have been made for this plan: its steps wait.
fn base_step(base: &RunState, step: StepIndex) -> &StepState {
    static WAITING: StepState = StepState::Waiting;
    base.steps.get(step).unwrap_or(&WAITING)
}
