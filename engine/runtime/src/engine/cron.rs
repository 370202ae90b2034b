//! Schedules: which ticks are due, and making them events.
//!
//! A schedule is either a workflow's own (`on.cron`) or a trigger of kind `cron`. Each has a *cursor*, the last due time
//! that was dealt with, and the unit that makes ticks durable moves it, by compare-and-set: so no crash and no second
//! engine fires a tick twice or loses one. Only the engine that owns shard 0 fires. A schedule that is new, or that was
//! changed, begins now and not in the past; what a paused one missed is dealt with when it is resumed, as its policy
//! says. When ticks are due at all is core's (`kickwheel_core::cron`).
//!
//! Deliberately absent: the clock and the waiting, which are those of `triggers::cron`.

use std::collections::{BTreeMap, BTreeSet};

use kickwheel_core::cron::{MissedPolicy, Schedule, Tick, cron_triggers, tick_event};
use kickwheel_schemas::{
    Millis,
    api::{MissedTicks, TriggerConfig},
};
use kickwheel_store::{
    Write, WriteError, fault,
    write::{PutTriggerState, RemoveNamed},
};
use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use super::{Engine, read_failed, write_failed};
use crate::{
    ApiError, bus,
    registry::{self, Entry},
    shared::DEFAULT_PROJECT,
};

/// How the cursors of workflows' own schedules are named; no trigger's name has a slash.
const OWN: &str = "cron/";

/// How events come that a schedule caused.
const CHANNEL: &str = "cron";

/// A cursor that lies further ahead of the clock than this was written by a clock that was wrong: it begins anew. Ticks
/// that were fired are not fired again for that, since their events' identities are remembered.
const AHEAD_MS: u64 = 24 * 3600 * 1000;

/// Times that a schedule is looked at in a row, each time for many ticks, before the others have their turn.
const MAX_ROUNDS: u32 = 8;

/// A schedule in force.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    /// Its name: part of its ticks' identity.
    name: String,
    /// The name of its cursor.
    key: String,
    /// The workflow whose own it is.
    workflow: Option<String>,
    expression: String,
    timezone: String,
    missed: MissedPolicy,
    deadline_ms: Option<u64>,
    paused: bool,
}

/// Where a schedule stands, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    schedule: String,
    timezone: String,
    /// The last due time that was dealt with, or when it began.
    at: Millis,
}

/// A cursor that was read, and the version that the next write expects.
#[derive(Clone, Debug, Default)]
struct Kept {
    version: u64,
    cursor: Option<Cursor>,
}

/// What is remembered between two turns, so that a turn reads little: cursors and parsed schedules. Lost with the lease.
#[derive(Debug, Default)]
pub struct CronMemory {
    kept: Option<BTreeMap<String, Kept>>,
    /// Of this revision of the registry.
    own: Option<(i64, Vec<Plan>)>,
    /// Files of that revision that have mistakes.
    broken: Vec<Broken>,
    parsed: BTreeMap<(String, String), Option<Schedule>>,
    /// Names of which it was said that they are left out.
    told: BTreeSet<String>,
}

impl CronMemory {
    fn schedule(&mut self, plan: &Plan) -> Option<Schedule> {
        let key = (plan.expression.clone(), plan.timezone.clone());
        let parsed = self.parsed.entry(key).or_insert_with(|| {
            let parsed = Schedule::parse(&plan.expression, &plan.timezone);
            parsed.inspect_err(|e| warn!(schedule = plan.name, "it never ticks: cannot {e}")).ok()
        });
        parsed.clone()
    }

    fn tell(&mut self, name: &str, reason: &str) {
        if self.told.insert(name.to_owned()) {
            warn!(schedule = name, "it is left out: {reason}");
        }
    }
}

/// A workflow file with mistakes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Broken {
    /// Its workflow's name can still be read.
    Named(String),
    /// Which workflow it was cannot be told.
    Unknown,
}

impl Broken {
    fn of(entry: &Entry) -> Self {
        // Where no name can be read, the file stands in for it.
        if entry.name == entry.origin.file() { Self::Unknown } else { Self::Named(entry.name.clone()) }
    }

    /// Whether the schedule of this cursor may be in the file.
    fn may_hold(&self, key: &str) -> bool {
        let Some(trigger) = key.strip_prefix(OWN) else { return false };
        match self {
            Self::Named(workflow) => {
                trigger.strip_prefix(workflow.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
            }
            Self::Unknown => true,
        }
    }
}

/// What is to be done about a schedule now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing before this time; none: nothing at all.
    Wait(Option<Millis>),
    /// These ticks, perhaps none, and then it stands here.
    Move { ticks: Vec<Tick>, cursor: Cursor },
}

/// Decides about one schedule.
fn step(plan: &Plan, schedule: &Schedule, cursor: Option<&Cursor>, now: Millis) -> Step {
    let at = |at: Millis| Cursor { schedule: plan.expression.clone(), timezone: plan.timezone.clone(), at };
    let same = |c: &&Cursor| c.schedule == plan.expression && c.timezone == plan.timezone;
    let Some(known) = cursor.filter(same).filter(|c| c.at.since(now) <= AHEAD_MS) else {
        return Step::Move { ticks: Vec::new(), cursor: at(now) };
    };
    if plan.paused {
        return Step::Wait(None);
    }
    let due = schedule.missed(known.at, now, plan.missed, plan.deadline_ms);
    if due.cursor == known.at && due.fire.is_empty() {
        // After a clock that went back, the next due time after the cursor is still ahead.
        return Step::Wait(schedule.next_after(known.at.max(now)));
    }
    Step::Move { ticks: due.fire, cursor: at(due.cursor) }
}

impl Engine {
    /// Whether this engine does what only one may do: cron, polling.
    pub fn leads(&self) -> bool {
        self.shared.epoch(0).is_some()
    }

    /// Returns when other workflows are in force.
    pub async fn schedules_changed(&self) {
        self.shared.schedules_changed.notified().await;
    }

    /// Fires what is due at `now`, and says when to come back at the latest; none: when something changes.
    pub async fn turn_schedules(&self, memory: &mut CronMemory, now: Millis) -> Result<Option<Millis>, ApiError> {
        self.refuse_when_draining()?;
        if !self.leads() {
            *memory = CronMemory::default();
            return Ok(None);
        }
        let plans = self.plans(memory).await?;
        self.load_cursors(memory).await?;
        self.forget_cursors(memory, &plans).await?;
        let mut next: Option<Millis> = None;
        for plan in &plans {
            let Some(schedule) = memory.schedule(plan) else { continue };
            let at = self.turn_one(memory, plan, &schedule, now).await?;
            next = next.into_iter().chain(at).min();
        }
        Ok(next)
    }

    async fn turn_one(
        &self,
        memory: &mut CronMemory,
        plan: &Plan,
        schedule: &Schedule,
        now: Millis,
    ) -> Result<Option<Millis>, ApiError> {
        let kept = memory.kept.get_or_insert_default();
        for _ in 0..MAX_ROUNDS {
            let known = match kept.get(&plan.key) {
                Some(known) => known.clone(),
                None => self.read_cursor(&plan.key).await?,
            };
            let (ticks, cursor) = match step(plan, schedule, known.cursor.as_ref(), now) {
                Step::Wait(until) => {
                    kept.insert(plan.key.clone(), known);
                    return Ok(until);
                }
                Step::Move { ticks, cursor } => (ticks, cursor),
            };
            // Whatever comes of the write, what is in memory is true only if it has worked.
            kept.remove(&plan.key);
            if self.fire(plan, &ticks, known.version, &cursor, now).await? {
                kept.insert(plan.key.clone(), Kept { version: known.version + 1, cursor: Some(cursor) });
            } else {
                // Somebody was faster, perhaps by removing the trigger: what is in force is read anew first.
                return Ok(Some(now));
            }
        }
        Ok(Some(now))
    }

    /// Makes ticks durable and moves the cursor, all or nothing. False when somebody else has moved it.
    async fn fire(
        &self,
        plan: &Plan,
        ticks: &[Tick],
        expected_version: u64,
        cursor: &Cursor,
        now: Millis,
    ) -> Result<bool, ApiError> {
        let mut unit: Vec<Write> = ticks
            .iter()
            .map(|tick| bus::cause(&self.shared, DEFAULT_PROJECT, CHANNEL, tick_event(&plan.name, tick), now))
            .collect();
        unit.push(Write::PutTriggerState(PutTriggerState {
            project: DEFAULT_PROJECT.to_owned(),
            trigger: plan.key.clone(),
            expected_version,
            state: serde_json::to_value(cursor).expect("cursors have string keys only"),
        }));
        fault::point("cron.fire.before");
        match self.shared.store.write(unit).await {
            Ok(written) => {
                fault::point("cron.fire.after");
                match ticks.last() {
                    Some(last) => {
                        bus::caused(&self.shared, &written);
                        debug!(schedule = plan.name, ticks = ticks.len(), missed = last.missed, "ticks");
                    }
                    None => debug!(schedule = plan.name, at = %cursor.at.to_rfc3339(), "stands"),
                }
                Ok(true)
            }
            Err(WriteError::Stale { .. }) => Ok(false),
            Err(e) => Err(write_failed(e)),
        }
    }

    async fn read_cursor(&self, key: &str) -> Result<Kept, ApiError> {
        let row = self.shared.store.trigger_state(DEFAULT_PROJECT, key).await.map_err(read_failed)?;
        Ok(row.map_or_else(Kept::default, |row| Kept {
            version: row.version,
            cursor: serde_json::from_value(row.state).ok(),
        }))
    }

    /// All cursors at once, when this engine begins to lead.
    async fn load_cursors(&self, memory: &mut CronMemory) -> Result<(), ApiError> {
        if memory.kept.is_some() {
            return Ok(());
        }
        let rows = self.shared.store.trigger_states(DEFAULT_PROJECT).await.map_err(read_failed)?;
        let kept = rows.into_iter().filter_map(|row| {
            let cursor: Cursor = serde_json::from_value(row.state).ok()?;
            Some((row.trigger, Kept { version: row.version, cursor: Some(cursor) }))
        });
        memory.kept = Some(kept.collect());
        Ok(())
    }

    /// A workflow that is gone takes its cursor along: if it ever comes back, it begins anew. One whose file is broken is
    /// not gone: its cursor waits for the repair, and then says which ticks were missed. That of a trigger is removed with
    /// the trigger.
    async fn forget_cursors(&self, memory: &mut CronMemory, plans: &[Plan]) -> Result<(), ApiError> {
        let kept = memory.kept.get_or_insert_default();
        let waits = |key: &str| memory.broken.iter().any(|broken| broken.may_hold(key));
        let in_force = |key: &str| plans.iter().any(|plan| plan.key == key);
        let gone: Vec<String> = kept.keys().filter(|key| !in_force(key) && !waits(key)).cloned().collect();
        for key in gone {
            if key.starts_with(OWN) {
                info!(cursor = key, "no workflow has this schedule any more");
                let remove = RemoveNamed { project: DEFAULT_PROJECT.to_owned(), name: key.clone() };
                self.shared.store.write(vec![Write::RemoveTrigger(remove)]).await.map_err(write_failed)?;
            }
            kept.remove(&key);
        }
        Ok(())
    }

    /// Every schedule in force: those of the registry's workflows, and the triggers.
    async fn plans(&self, memory: &mut CronMemory) -> Result<Vec<Plan>, ApiError> {
        let registry = self.shared.registry();
        if memory.own.as_ref().is_none_or(|(revision, _)| *revision != registry.revision) {
            let mut own = Vec::new();
            for (entry, workflow) in registry::workflows(&self.shared, &registry.entries).await.map_err(read_failed)? {
                own.extend(cron_triggers(&workflow).into_iter().map(|trigger| Plan {
                    name: trigger.name.to_owned(),
                    key: format!("{OWN}{}", trigger.name),
                    workflow: Some(entry.name.clone()),
                    expression: trigger.schedule.to_owned(),
                    timezone: trigger.timezone.to_owned(),
                    missed: trigger.missed,
                    deadline_ms: trigger.deadline_ms,
                    paused: false,
                }));
            }
            let broken = registry.entries.iter().filter(|entry| entry.plan.is_none());
            memory.broken = broken.map(Broken::of).collect();
            memory.own = Some((registry.revision, own));
        }
        let paused = self.shared.paused().await.map_err(read_failed)?;
        let mut plans = memory.own.as_ref().map(|(_, own)| own.clone()).unwrap_or_default();
        for plan in &mut plans {
            plan.paused = plan.workflow.as_ref().is_some_and(|name| paused.contains(name));
        }
        for row in self.shared.store.triggers(Some(DEFAULT_PROJECT)).await.map_err(read_failed)? {
            let Ok(TriggerConfig::Cron(config)) = serde_json::from_value(row.config) else { continue };
            // Its ticks would be taken for those of the workflow.
            if plans.iter().any(|plan| plan.name == row.name) {
                memory.tell(&row.name, "a workflow's own schedule has this name; give the trigger another");
                continue;
            }
            memory.told.remove(&row.name);
            plans.push(Plan {
                key: row.name.clone(),
                name: row.name,
                workflow: None,
                expression: config.schedule,
                timezone: config.timezone,
                missed: match config.missed {
                    MissedTicks::Latest => MissedPolicy::Latest,
                    MissedTicks::All => MissedPolicy::All,
                    MissedTicks::None => MissedPolicy::None,
                },
                deadline_ms: config.deadline_ms,
                paused: row.paused,
            });
        }
        Ok(plans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_keeps_the_cursors_that_may_be_its_own() {
        let check = |broken: Broken, key: &str, kept: bool| assert_eq!(broken.may_hold(key), kept, "{broken:?} {key}");
        let named = || Broken::Named("wheel".to_owned());
        check(named(), "cron/wheel", true);
        check(named(), "cron/wheel:night", true);
        check(named(), "cron/wheels", false);
        check(named(), "wheel", false);
        check(Broken::Unknown, "cron/anything", true);
        check(Broken::Unknown, "anything", false);
    }

    const SECOND: i64 = 1_000;
    const MINUTE: i64 = 60 * SECOND;
    /// A whole minute.
    const BEGIN: Millis = Millis(1_767_225_600_000);

    fn plan(missed: MissedPolicy) -> Plan {
        Plan {
            name: "wheel".to_owned(),
            key: "cron/wheel".to_owned(),
            workflow: Some("wheel".to_owned()),
            expression: "* * * * *".to_owned(),
            timezone: "UTC".to_owned(),
            missed,
            deadline_ms: None,
            paused: false,
        }
    }

    fn after(ms: i64) -> Millis {
        Millis(BEGIN.0 + ms)
    }

    /// Turns at each time with the clock that the test holds; what is stored lives in `cursor`, everything else is lost
    /// between two turns, as by a crash. The minutes after [`BEGIN`] at which ticks were due, and how many were missed.
    fn turns(plan: &Plan, cursor: &mut Option<Cursor>, times: &[i64]) -> Vec<(i64, u64)> {
        let schedule = Schedule::parse(&plan.expression, &plan.timezone).expect("a schedule");
        let mut fired = Vec::new();
        for time in times {
            while let Step::Move { ticks, cursor: next } = step(plan, &schedule, cursor.as_ref(), after(*time)) {
                fired.extend(ticks.iter().map(|t| ((t.scheduled_at.0 - BEGIN.0) / MINUTE, t.missed)));
                *cursor = Some(next);
            }
        }
        fired
    }

    #[test]
    fn a_new_schedule_begins_now_and_each_tick_is_fired_once() {
        let (plan, mut cursor) = (plan(MissedPolicy::Latest), None);
        assert_eq!(turns(&plan, &mut cursor, &[10, 20 * SECOND]), []);
        assert_eq!(turns(&plan, &mut cursor, &[MINUTE, MINUTE, MINUTE + 1, 2 * MINUTE]), [(1, 0), (2, 0)]);
    }

    #[test]
    fn missed_ticks_follow_the_policy() {
        for (policy, expected) in [
            (MissedPolicy::Latest, vec![(5, 4)]),
            (MissedPolicy::All, vec![(1, 0), (2, 0), (3, 0), (4, 0), (5, 0)]),
            (MissedPolicy::None, vec![]),
        ] {
            let (plan, mut cursor) = (plan(policy), None);
            assert_eq!(turns(&plan, &mut cursor, &[0]), []);
            assert_eq!(turns(&plan, &mut cursor, &[5 * MINUTE + 40 * SECOND]), expected, "{policy:?}");
            assert_eq!(turns(&plan, &mut cursor, &[6 * MINUTE]), [(6, 0)], "{policy:?}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_fires_nothing_twice() {
        let (plan, mut cursor) = (plan(MissedPolicy::All), None);
        assert_eq!(turns(&plan, &mut cursor, &[0, MINUTE, 2 * MINUTE, 3 * MINUTE]), [(1, 0), (2, 0), (3, 0)]);
        assert_eq!(turns(&plan, &mut cursor, &[MINUTE, 2 * MINUTE, 3 * MINUTE, 4 * MINUTE]), [(4, 0)]);
    }

    #[test]
    fn a_cursor_of_a_clock_that_was_wrong_by_years_begins_anew() {
        let (plan, mut cursor) = (plan(MissedPolicy::Latest), None);
        let year = 365 * 24 * 60 * MINUTE;
        assert_eq!(turns(&plan, &mut cursor, &[year]), []);
        assert_eq!(turns(&plan, &mut cursor, &[10, MINUTE]), [(1, 0)]);
    }

    #[test]
    fn another_schedule_or_zone_begins_now() {
        let (mut plan, mut cursor) = (plan(MissedPolicy::All), None);
        assert_eq!(turns(&plan, &mut cursor, &[0]), []);
        plan.expression = "*/2 * * * *".to_owned();
        assert_eq!(turns(&plan, &mut cursor, &[5 * MINUTE + SECOND]), [], "nothing from before the change");
        assert_eq!(turns(&plan, &mut cursor, &[6 * MINUTE]), [(6, 0)]);
        plan.timezone = "Europe/Berlin".to_owned();
        assert_eq!(turns(&plan, &mut cursor, &[9 * MINUTE]), []);
        assert_eq!(turns(&plan, &mut cursor, &[10 * MINUTE]), [(10, 0)]);
    }

    #[test]
    fn a_paused_schedule_fires_nothing_and_its_policy_decides_when_it_is_resumed() {
        for (policy, expected) in
            [(MissedPolicy::Latest, vec![(4, 3)]), (MissedPolicy::All, vec![(1, 0), (2, 0), (3, 0), (4, 0)])]
        {
            let (mut plan, mut cursor) = (plan(policy), None);
            assert_eq!(turns(&plan, &mut cursor, &[0]), []);
            plan.paused = true;
            assert_eq!(turns(&plan, &mut cursor, &[MINUTE, 2 * MINUTE, 4 * MINUTE]), []);
            plan.paused = false;
            assert_eq!(turns(&plan, &mut cursor, &[4 * MINUTE + 1]), expected, "{policy:?}");
        }
    }

    #[test]
    fn it_is_said_when_to_come_back() {
        let plan = plan(MissedPolicy::Latest);
        let schedule = Schedule::parse(&plan.expression, &plan.timezone).expect("a schedule");
        let cursor = |at| Cursor { schedule: plan.expression.clone(), timezone: plan.timezone.clone(), at };
        assert_eq!(step(&plan, &schedule, Some(&cursor(BEGIN)), after(10)), Step::Wait(Some(after(MINUTE))));
        let ahead = cursor(after(3 * MINUTE));
        assert_eq!(step(&plan, &schedule, Some(&ahead), after(10)), Step::Wait(Some(after(4 * MINUTE))));
        let paused = Plan { paused: true, ..plan.clone() };
        assert_eq!(step(&paused, &schedule, Some(&cursor(BEGIN)), after(10 * MINUTE)), Step::Wait(None));
    }
}
