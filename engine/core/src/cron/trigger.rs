//! What `on.cron` becomes: triggers with a name, and the events of their ticks.
//!
//! A trigger is named after its workflow, so that it can be found, paused and told apart in the list of events. The tick's
//! identity is the trigger and the time it was due: firing it twice gives one event.

use kickwheel_schemas::{CloudEvent, payload};

use super::{MissedPolicy, Tick};
use crate::{
    filter::{EventFilter, FilterKind},
    plan::Workflow,
};

/// One cron trigger of a workflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronTrigger<'w> {
    /// Its name: `<workflow>`, or `<workflow>:<id or index>`.
    pub name: &'w str,
    /// The cron expression, which the checker has read.
    pub schedule: &'w str,
    /// The IANA name of its zone.
    pub timezone: &'w str,
    /// What becomes of ticks that were not fired in time.
    pub missed: MissedPolicy,
    /// How late a tick may start.
    pub deadline_ms: Option<u64>,
}

/// The cron triggers of a workflow, in the order of its filters.
pub fn cron_triggers(workflow: &Workflow) -> Vec<CronTrigger<'_>> {
    workflow
        .on
        .iter()
        .filter_map(|filter| match &filter.kind {
            FilterKind::Cron { trigger, schedule, timezone, missed, deadline_ms } => {
                Some(CronTrigger { name: trigger, schedule, timezone, missed: *missed, deadline_ms: *deadline_ms })
            }
            FilterKind::GitPush { .. }
            | FilterKind::DatasetChanged { .. }
            | FilterKind::Manual
            | FilterKind::Event { .. } => None,
        })
        .collect()
}

/// Gives each cron filter the name of its trigger: the workflow's where it is the only one and has no id, else the
/// workflow's and the filter's id or its index among the cron filters, counted from 0.
pub fn name_cron_triggers(workflow: &str, filters: &mut [EventFilter]) {
    let alone = filters.iter().filter(|filter| matches!(filter.kind, FilterKind::Cron { .. })).count() == 1;
    let mut index = 0_usize;
    for filter in filters {
        let FilterKind::Cron { trigger, .. } = &mut filter.kind else { continue };
        *trigger = match &filter.id {
            Some(id) => format!("{workflow}:{id}"),
            None if alone => workflow.to_owned(),
            None => format!("{workflow}:{index}"),
        };
        index += 1;
    }
}

/// The `source` of a trigger's events.
pub fn tick_source(trigger: &str) -> String {
    format!("/cron/{trigger}")
}

/// The event of a tick. Its id depends on nothing but the trigger and the time it was due.
pub fn tick_event(trigger: &str, tick: &Tick) -> CloudEvent {
    let scheduled_at = tick.scheduled_at.to_rfc3339();
    let id = format!("{trigger}@{scheduled_at}");
    let data = payload::CronTick {
        trigger: trigger.to_owned(),
        scheduled_at: scheduled_at.clone(),
        late_by: tick.late_by_ms,
        missed: tick.missed,
    };
    let data = serde_json::to_value(data).expect("the payload has string keys only");
    let mut event = CloudEvent::new(tick_source(trigger), id, payload::CRON_TICK, data).with_subject(trigger);
    event.time = Some(scheduled_at);
    event
}
