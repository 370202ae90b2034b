//! From needs to an order: every step after all that it needs, and no step needing itself in the end.
//!
//! Needs are those that a step lists and those that its expressions imply. They stay within a phase: the phases
//! themselves follow each other.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
};

use kickwheel_core::plan::Phase;

use crate::{
    diagnostic::{Code, Report},
    expression::section,
    workflow::Draft,
};

/// A step that an expression of another one reads.
pub(crate) struct Reference {
    pub step: usize,
    pub span: Range<usize>,
}

/// The order in which a plan lists its steps.
pub(crate) struct Order {
    /// Indices of drafts.
    pub sequence: Vec<usize>,
    /// For each draft its place in `sequence`.
    places: Vec<usize>,
    needs: Vec<BTreeSet<usize>>,
}

impl Order {
    /// Places of the steps that a draft needs, in ascending order.
    pub fn needs_of(&self, draft: usize) -> Vec<usize> {
        let mut needs: Vec<usize> = self.needs[draft].iter().map(|&need| self.places[need]).collect();
        needs.sort_unstable();
        needs
    }
}

/// Orders the steps; nothing if that cannot be done, which has been reported then.
pub(crate) fn order(steps: &[Draft<'_>], references: &[Vec<Reference>], report: &mut Report<'_>) -> Option<Order> {
    let edges = edges(steps, references, report);
    let needs: Vec<BTreeSet<usize>> = edges.iter().map(|edges| edges.keys().copied().collect()).collect();
    let sequence = sequence(steps, &needs);
    if sequence.len() < steps.len() {
        report_cycles(steps, &edges, &sequence, report);
        return None;
    }
    let mut places = vec![0; steps.len()];
    for (place, &step) in sequence.iter().enumerate() {
        places[step] = place;
    }
    Some(Order { sequence, places, needs })
}

/// For each step those that it needs, and where it says so.
fn edges(
    steps: &[Draft<'_>],
    references: &[Vec<Reference>],
    report: &mut Report<'_>,
) -> Vec<BTreeMap<usize, Range<usize>>> {
    let by_name: BTreeMap<&str, usize> =
        steps.iter().enumerate().map(|(index, draft)| (draft.step.name.as_str(), index)).collect();
    let mut all = Vec::new();
    for (me, draft) in steps.iter().enumerate() {
        let mut edges = BTreeMap::new();
        for (name, span) in &draft.needs {
            let Some(&need) = by_name.get(name) else {
                let same_phase = steps.iter().filter(|step| step.step.phase == draft.step.phase);
                let others = same_phase.map(|step| step.step.name.as_str()).filter(|other| *other != draft.step.name);
                let help = report.suggest(name, "steps", others);
                report.error(Code::UnknownStep, span.clone(), format!("there is no step `{name}`")).help(help);
                continue;
            };
            if need == me {
                report.error(Code::SelfNeed, span.clone(), format!("the step `{name}` needs itself"));
            } else if steps[need].step.phase != draft.step.phase {
                let other = section(steps[need].step.phase);
                report
                    .error(Code::CrossPhase, span.clone(), format!("the step `{name}` belongs to {other}"))
                    .help(cross_phase_help(draft.step.phase, steps[need].step.phase));
            } else {
                edges.insert(need, span.clone());
            }
        }
        for reference in &references[me] {
            // What ran in an earlier phase can be read, and has ended anyway.
            if steps[reference.step].step.phase == draft.step.phase {
                edges.entry(reference.step).or_insert_with(|| reference.span.clone());
            }
        }
        all.push(edges);
    }
    all
}

fn cross_phase_help(mine: Phase, other: Phase) -> String {
    if other < mine {
        format!("leave it out: {} run after {} have ended", section(mine), section(other))
    } else {
        format!("{} run after {}, so nothing there can be waited for", section(other), section(mine))
    }
}

/// Phase by phase, and within a phase the first step of the file whose needs are all listed. Steps of a cycle are left out.
fn sequence(steps: &[Draft<'_>], needs: &[BTreeSet<usize>]) -> Vec<usize> {
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    let mut open: Vec<usize> = needs.iter().map(BTreeSet::len).collect();
    for (step, needs) in needs.iter().enumerate() {
        for &need in needs {
            dependents[need].push(step);
        }
    }
    let rank = |step: usize| (steps[step].step.phase, step);
    let mut ready: BTreeSet<(Phase, usize)> = (0..steps.len()).filter(|&step| open[step] == 0).map(rank).collect();
    let mut sequence = Vec::new();
    while let Some((_, step)) = ready.pop_first() {
        sequence.push(step);
        for &dependent in &dependents[step] {
            open[dependent] -= 1;
            if open[dependent] == 0 {
                ready.insert(rank(dependent));
            }
        }
    }
    sequence
}

/// Names one shortest cycle through the first step of each tangle.
fn report_cycles(
    steps: &[Draft<'_>],
    edges: &[BTreeMap<usize, Range<usize>>],
    sequence: &[usize],
    report: &mut Report<'_>,
) {
    let mut named: BTreeSet<usize> = sequence.iter().copied().collect();
    for start in 0..steps.len() {
        if named.contains(&start) {
            continue;
        }
        // A step may only wait for a cycle without being part of one: then there is no way back to it.
        let Some(cycle) = shortest_cycle(start, edges) else { continue };
        named.extend(cycle.iter().copied());
        let names: Vec<&str> = cycle.iter().chain([&start]).map(|&step| steps[step].step.name.as_str()).collect();
        let next = cycle.get(1).copied().unwrap_or(start);
        let span = edges[start].get(&next).cloned().unwrap_or_else(|| steps[start].span.clone());
        report
            .error(Code::Cycle, span, format!("steps need each other in a circle: {}", names.join(" -> ")))
            .help("take one of these needs away; what an expression reads of a step is a need, too");
    }
}

/// The steps from `start` along needs back to it, by breadth-first search.
fn shortest_cycle(start: usize, edges: &[BTreeMap<usize, Range<usize>>]) -> Option<Vec<usize>> {
    let mut came_from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(step) = queue.pop_front() {
        for &need in edges[step].keys() {
            if need == start {
                let mut cycle = vec![step];
                let mut at = step;
                while at != start {
                    at = came_from[&at];
                    cycle.push(at);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if need != start && !came_from.contains_key(&need) {
                came_from.insert(need, step);
                queue.push_back(need);
            }
        }
    }
    None
}
