//! Reads what an engine left behind and says what was lost, doubled or left half done.
//!
//! It shares no code with the engine: its SQL and its reading of the journal are its own, so that a mistake of the engine
//! cannot hide in it. What it is told comes from outside: which events were accepted, which workflows each of them must
//! have started, and the ledger, into which each job writes its attempt before it does anything else.
//!
//! It is meant for an engine at rest: everything sent, everything ended, the process gone or idle.

mod database;
mod journal;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, fs,
    path::Path,
};

pub use database::count;
use database::{Opened, Row};
use serde_json::Value;

pub use journal::{pack, unpack};

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise is broken.
    pub kind: Kind,
    /// What exactly was found.
    pub detail: String,
}

/// The promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An accepted event is not there.
    EventLost,
    /// An event is there more than once.
    EventDoubled,
    /// An event is not decided although everything is at rest.
    Undecided,
    /// What was decided about an event is not what there is.
    DecisionMissing,
    /// A matching workflow has no run.
    RunLost,
    /// A matching workflow has more than one run.
    RunDoubled,
    /// A run that nothing should have started.
    RunUnexpected,
    /// A run has not ended.
    RunOpen,
    /// A journal has gaps, doubles, no end, or something after its end.
    Journal,
    /// A task's success is recorded more than once, or by two attempts.
    SuccessDoubled,
    /// A task of a successful run has no success.
    SuccessLost,
    /// User code of one attempt began twice.
    RanTwice,
    /// A job's success is recorded and its user code never ran.
    NeverRan,
    /// User code ran for a run that the database does not know.
    RanForNothing,
    /// Inputs were left lying.
    Inbox,
    /// Events were left in the spool.
    Spool,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.detail)
    }
}

/// How the test knows an event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Known {
    /// By the id that it was sent with.
    Id(String),
    /// A push, by the commit that it ended at.
    Commit(String),
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "event {id}"),
            Self::Commit(commit) => write!(f, "the push of {commit}"),
        }
    }
}

/// Each event that was accepted, with the workflows that it must have started.
pub type Expected = BTreeMap<Known, BTreeSet<String>>;

/// Checks everything. Events of the database that nobody told about must be consistent in themselves.
pub fn check(url: &str, ledger: &Path, expected: &Expected) -> Vec<Violation> {
    let opened = Opened::read(url);
    let mut found = Found::default();
    let runs = check_runs(&opened, &mut found);
    check_events(&opened, expected, &mut found);
    check_ledger(ledger, &runs, &mut found);
    for row in &opened.inbox {
        found.add(Kind::Inbox, format!("{row:?}"));
    }
    for row in &opened.spool {
        found.add(Kind::Spool, format!("{row:?}"));
    }
    found.0
}

#[derive(Default)]
struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, kind: Kind, detail: impl Into<String>) {
        self.0.push(Violation { kind, detail: detail.into() });
    }
}

/// What a journal says about a run.
#[derive(Default)]
struct Told {
    /// `run/step[index]#attempt` of each job that succeeded by running, not from the cache.
    job_successes: BTreeSet<String>,
}

fn check_runs(opened: &Opened, found: &mut Found) -> HashMap<String, Told> {
    let plans: HashMap<&str, Value> = opened
        .plans
        .iter()
        .map(|row| (row.text("plan_digest"), serde_json::from_str(row.text("compiled")).expect("plans are JSON")))
        .collect();
    let mut journals: HashMap<&str, Vec<(i64, Value)>> = HashMap::new();
    for row in &opened.journal {
        let event = serde_json::from_str(row.text("event")).expect("events are JSON");
        journals.entry(row.text("run")).or_default().push((row.number("seq"), event));
    }
    let mut sealed: HashMap<&str, Vec<(i64, Value)>> = HashMap::new();
    for row in &opened.sealed {
        let events = unpack(&hex::decode(row.text("body")).expect("the database gives hex"));
        if i64::try_from(events.len()).ok() != Some(row.number("events")) {
            found.add(
                Kind::Journal,
                format!("the sealed journal of run {} holds {} events", row.text("run"), events.len()),
            );
        }
        sealed.insert(row.text("run"), (0..).zip(events).collect());
    }
    let mut told = HashMap::new();
    for row in &opened.runs {
        let run = row.text("run");
        let state = row.text("state");
        if !["succeeded", "failed", "cancelled"].contains(&state) || row.get("ended_at").is_none() {
            found.add(Kind::RunOpen, format!("run {run} of {} is {state}", row.text("workflow")));
        } else if row.number("open_commands") != 0 || row.get("wake_at").is_some() {
            found.add(Kind::RunOpen, format!("run {run} has ended and still waits for something"));
        }
        let events = match (journals.remove(run), sealed.remove(run)) {
            (Some(events), None) | (None, Some(events)) => events,
            (Some(_), Some(_)) => {
                found.add(Kind::Journal, format!("run {run} has both a sealed and an open journal"));
                continue;
            }
            (None, None) => {
                found.add(Kind::Journal, format!("run {run} has no journal"));
                continue;
            }
        };
        check_sequence(run, row.number("next_seq"), &events, found);
        let steps = plans.get(row.text("plan_digest")).map(step_names).unwrap_or_default();
        told.insert(run.to_owned(), check_journal(run, state, &steps, &events, found));
    }
    for run in journals.keys().chain(sealed.keys()) {
        found.add(Kind::RunLost, format!("there is a journal of run {run} and no such run"));
    }
    told
}

fn step_names(compiled: &Value) -> Vec<String> {
    let steps = compiled["plan"]["steps"].as_array().or_else(|| compiled["steps"].as_array());
    steps.into_iter().flatten().filter_map(|step| step["name"].as_str().map(str::to_owned)).collect()
}

fn check_sequence(run: &str, next: i64, events: &[(i64, Value)], found: &mut Found) {
    let mut seqs: Vec<i64> = events.iter().map(|(seq, _)| *seq).collect();
    seqs.sort_unstable();
    if !seqs.iter().copied().eq(0..next) {
        found.add(Kind::Journal, format!("run {run} should have events 0 to {next}, and has {seqs:?}"));
    }
}

fn check_journal(run: &str, state: &str, steps: &[String], events: &[(i64, Value)], found: &mut Found) -> Told {
    let kind = |event: &Value| event["type"].as_str().unwrap_or_default().to_owned();
    if events.first().map(|(_, e)| kind(e)).as_deref() != Some("run_started") {
        found.add(Kind::Journal, format!("run {run} does not begin with its start"));
    }
    let ends: Vec<usize> =
        events.iter().enumerate().filter(|(_, (_, e))| kind(e) == "run_finished").map(|(i, _)| i).collect();
    if ends != [events.len().saturating_sub(1)] {
        found.add(Kind::Journal, format!("run {run} ends at {ends:?} of {} events", events.len()));
    }
    let outcome = events.last().and_then(|(_, e)| e["outcome"].as_str()).unwrap_or_default();
    if outcome != state {
        found.add(Kind::Journal, format!("the journal of run {run} ends as {outcome:?}, its row says {state:?}"));
    }
    let mut told = Told::default();
    let mut jobs: BTreeMap<(u64, u64), bool> = BTreeMap::new();
    let mut successes: BTreeMap<(u64, u64), Vec<u64>> = BTreeMap::new();
    let mut images = BTreeSet::new();
    for (_, event) in events {
        let number = |name: &str| event[name].as_u64().unwrap_or(u64::MAX);
        match kind(event).as_str() {
            "step_expanded" => {
                for (index, task) in (0..).zip(event["tasks"].as_array().into_iter().flatten()) {
                    if jobs.insert((number("step"), index), task["work"]["kind"] == "job").is_some() {
                        found.add(Kind::Journal, format!("step {} of run {run} was expanded twice", number("step")));
                    }
                }
            }
            "image_pinned" if !images.insert(event["image"].as_str().unwrap_or_default()) => {
                found.add(Kind::Journal, format!("run {run} pins the image {} twice", event["image"]));
            }
            "task_finished" if event["end"]["end"] == "succeeded" => {
                let (task, attempt) = ((number("step"), number("index")), number("attempt"));
                successes.entry(task).or_default().push(attempt);
                if jobs.get(&task) == Some(&true) && event["end"]["cached_from"].is_null() {
                    let step = usize::try_from(task.0).ok().and_then(|i| steps.get(i));
                    let step = step.unwrap_or_else(|| panic!("run {run}: step {} is not in its plan", task.0));
                    told.job_successes.insert(format!("{run}/{step}[{}]#{attempt}", task.1));
                }
            }
            _ => {}
        }
    }
    for (task, attempts) in &successes {
        if attempts.len() > 1 {
            found.add(Kind::SuccessDoubled, format!("task {task:?} of run {run} succeeded in attempts {attempts:?}"));
        }
    }
    if state == "succeeded" {
        for task in jobs.keys().filter(|task| !successes.contains_key(task)) {
            found.add(Kind::SuccessLost, format!("run {run} succeeded, and its task {task:?} did not"));
        }
    }
    told
}

fn check_events(opened: &Opened, expected: &Expected, found: &mut Found) {
    let mut runs: BTreeMap<(&str, &str), BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for row in opened.runs.iter().filter(|row| row.number("generation") == 0) {
        let event = (row.text("event_source"), row.text("event_id"));
        runs.entry(event).or_default().entry(row.text("workflow")).or_default().push(row.text("run"));
    }
    let mut decisions: HashMap<&str, Vec<&Row>> = HashMap::new();
    for row in &opened.decisions {
        decisions.entry(row.text("event_key")).or_default().push(row);
    }
    for row in &opened.undecided {
        found.add(Kind::Undecided, format!("{row:?}"));
    }
    let mut known: BTreeMap<Known, Vec<&Row>> = BTreeMap::new();
    let mut identities = BTreeSet::new();
    for row in &opened.events {
        let body: Value = serde_json::from_str(row.text("body")).expect("events are JSON");
        let (source, id) = (row.text("source"), body["id"].as_str().unwrap_or_default().to_owned());
        if row.text("state") != "decided" {
            found.add(Kind::Undecided, format!("event {id} is {}: {:?}", row.text("state"), row.get("reason")));
        }
        check_decisions(row, &id, decisions.get(row.text("event_key")), &runs, found);
        if !identities.insert((source, id.clone())) {
            found.add(Kind::EventDoubled, format!("event {id} of {source} is there twice"));
        }
        known.entry(Known::Id(id)).or_default().push(row);
        if let Some(commit) = body["data"]["after"].as_str() {
            known.entry(Known::Commit(commit.to_owned())).or_default().push(row);
        }
    }
    for (event, workflows) in expected {
        let rows = known.get(event).map(Vec::as_slice).unwrap_or_default();
        if rows.is_empty() {
            found.add(Kind::EventLost, format!("{event} was accepted and is not there"));
            continue;
        }
        // A push may be told by several channels, each once; what is known by its id is one event.
        let mut channels = BTreeSet::new();
        let is_told_again = rows.iter().any(|row| !channels.insert(row.text("channel")));
        if is_told_again || (rows.len() > 1 && matches!(event, Known::Id(_))) {
            found.add(Kind::EventDoubled, format!("{event} is there {} times", rows.len()));
            continue;
        }
        let bodies: Vec<Value> =
            rows.iter().map(|row| serde_json::from_str(row.text("body")).expect("events are JSON")).collect();
        let mut started: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (row, body) in rows.iter().zip(&bodies) {
            let by = runs.get(&(row.text("source"), body["id"].as_str().unwrap_or_default()));
            for (workflow, ids) in by.into_iter().flatten() {
                started.entry(workflow).or_default().extend(ids);
            }
        }
        for workflow in workflows {
            match started.get(workflow.as_str()).map_or(0, Vec::len) {
                0 => found.add(Kind::RunLost, format!("{event} did not start {workflow}")),
                1 => {}
                n => found.add(Kind::RunDoubled, format!("{event} started {workflow} {n} times")),
            }
        }
        for workflow in started.keys().filter(|name| !workflows.contains(**name)) {
            found.add(Kind::RunUnexpected, format!("{event} started {workflow}"));
        }
    }
}

/// What was decided names runs that there are, and each run of the event was decided.
fn check_decisions(
    event: &Row,
    id: &str,
    decisions: Option<&Vec<&Row>>,
    runs: &BTreeMap<(&str, &str), BTreeMap<&str, Vec<&str>>>,
    found: &mut Found,
) {
    let started: BTreeSet<&str> = decisions
        .into_iter()
        .flatten()
        .filter(|row| row.text("decision") == "started")
        .filter_map(|row| row.get("run"))
        .collect();
    let there: BTreeSet<&str> =
        runs.get(&(event.text("source"), id)).into_iter().flat_map(|by| by.values().flatten()).copied().collect();
    for run in started.difference(&there) {
        found.add(Kind::RunLost, format!("event {id} was decided to start run {run}, which is not there"));
    }
    for run in there.difference(&started) {
        found.add(Kind::DecisionMissing, format!("run {run} of event {id} was never decided"));
    }
}

fn check_ledger(ledger: &Path, runs: &HashMap<String, Told>, found: &mut Found) {
    let text = fs::read_to_string(ledger).unwrap_or_default();
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    for line in text.lines() {
        *times.entry(line).or_default() += 1;
    }
    for (attempt, times) in &times {
        if *times > 1 {
            found.add(Kind::RanTwice, format!("user code of {attempt} began {times} times"));
        }
        let run = attempt.split('/').next().unwrap_or_default();
        if !runs.contains_key(run) {
            found.add(Kind::RanForNothing, format!("{attempt} ran, and there is no such run"));
        }
    }
    for attempt in runs.values().flat_map(|told| &told.job_successes) {
        if !times.contains_key(attempt.as_str()) {
            found.add(Kind::NeverRan, format!("{attempt} succeeded and its user code never ran"));
        }
    }
}
