//! Emptying the spool into the events topic, in order.
//!
//! One engine does it: the one that owns shard 0. Within a lane each event waits for the acknowledgement of the one
//! before; lanes proceed side by side. A crash between acknowledgement and removal sends an event twice, and its identity
//! drops the double. When nothing from outside is left, ingress goes the direct way again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use kickwheel_bus::{ProduceError, codec};
use kickwheel_schemas::Millis;
use kickwheel_store::{
    EventKey, Write, WriteError, fault,
    rows::SpoolRow,
    write::{BusMode, PutQuarantine, SetBusMode, Unspool},
};
use serde_json::json;
use tracing::{debug, error, info};

use super::{
    Bus, KafkaBus, addressed, count,
    ingress::{remember, send},
};
use crate::{
    ingest::accept_write,
    shared::{Shared, entropy},
};

/// Events taken out of the spool in one round.
const ROUND: u32 = 500;
/// The spool is looked at this often when nobody says that something is in it.
const SLOW_POLL: Duration = Duration::from_secs(1);
/// After Kafka has refused.
const PAUSE: Duration = Duration::from_millis(500);

/// Empties the spool until the engine stops. On the embedded bus it only takes in what is left there of a time with Kafka.
pub async fn drain_spool(shared: Arc<Shared>) {
    let bus = match &shared.bus {
        Bus::Kafka(bus) => bus,
        Bus::Embedded => return take_in(&shared).await,
    };
    loop {
        let wait = match round(&shared, bus).await {
            Round::More => continue,
            Round::Empty => SLOW_POLL,
            Round::Stuck => PAUSE,
        };
        tokio::select! {
            () = bus.drain.notified(), if wait == SLOW_POLL => {}
            () = tokio::time::sleep(wait) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

/// Accepts what an engine with Kafka has left in the spool, in its order: this one has no topic to send it to.
async fn take_in(shared: &Arc<Shared>) {
    loop {
        match take_in_round(shared).await {
            Ok(0) => return,
            Ok(taken) => info!(taken, "events that waited for Kafka are taken in"),
            Err(e) => {
                debug!("what is left in the spool waits: {e}");
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = shared.stop.cancelled() => return,
                }
            }
        }
    }
}

/// Gives the number of events that were taken in; with none left, an engine with Kafka would go the direct way again.
async fn take_in_round(shared: &Arc<Shared>) -> Result<usize, WriteError> {
    let rows = shared.store.spooled(ROUND).await.map_err(|e| WriteError::Unavailable { reason: e.to_string() })?;
    let keys: Vec<String> = rows.iter().map(|row| row.key.clone()).collect();
    let taken = keys.len();
    let accept = |row: SpoolRow| {
        accept_write(EventKey::new(Millis::now(), entropy()), &row.project, &row.channel, row.event, row.at)
    };
    let mut unit: Vec<Write> = rows.into_iter().map(accept).collect();
    unit.push(if taken == 0 {
        Write::SetBusMode(SetBusMode { mode: BusMode::Direct, at: Millis::now() })
    } else {
        Write::Unspool(Unspool { keys })
    });
    let written = shared.store.write(unit).await?;
    count(shared, &written);
    shared.decider.notify_one();
    Ok(taken)
}

enum Round {
    /// There may be more.
    More,
    /// Nothing to do.
    Empty,
    /// Kafka or the database is away.
    Stuck,
}

async fn round(shared: &Arc<Shared>, bus: &KafkaBus) -> Round {
    if shared.epoch(0).is_none() {
        return Round::Empty;
    }
    let rows = match shared.store.spooled(ROUND).await {
        Ok(rows) => rows,
        Err(e) => {
            debug!("the spool cannot be read: {e}");
            return Round::Stuck;
        }
    };
    if rows.is_empty() {
        return go_direct(shared, bus).await;
    }
    let count = rows.len();
    let sent = send_in_lanes(bus, rows).await;
    fault::point("bus.drain.sent");
    let (done, stuck) = (sent.keys.len(), sent.stuck);
    if let Some(reason) = &sent.reason {
        bus.note("kafka", Some(reason.clone()));
    } else {
        bus.note("kafka", None);
    }
    let mut unit: Vec<Write> = sent.refused.into_iter().map(Write::PutQuarantine).collect();
    unit.push(Write::Unspool(Unspool { keys: sent.keys }));
    match shared.store.write(unit).await {
        Ok(_) if stuck => Round::Stuck,
        Ok(_) => {
            debug!(done, count, "spooled events are on the bus");
            Round::More
        }
        Err(e) => {
            debug!("what was sent stays in the spool for now: {e}");
            Round::Stuck
        }
    }
}

/// Nothing is left: ingress may go the direct way, if the database finds the same.
async fn go_direct(shared: &Arc<Shared>, bus: &KafkaBus) -> Round {
    match shared.store.bus_mode().await {
        Ok(row) if row.mode == BusMode::Direct => Round::Empty,
        Ok(_) => {
            let turn = Write::SetBusMode(SetBusMode { mode: BusMode::Direct, at: Millis::now() });
            match shared.store.write(vec![turn]).await {
                Ok(_) => {
                    remember(bus, BusMode::Direct);
                    bus.note("kafka", None);
                    info!("the spool is empty, events go to Kafka again");
                    Round::Empty
                }
                Err(WriteError::Stale { .. }) => Round::More,
                Err(_) => Round::Stuck,
            }
        }
        Err(_) => Round::Stuck,
    }
}

/// What became of a round.
#[derive(Default)]
struct Sent {
    /// Acknowledged, or refused for good: they leave the spool.
    keys: Vec<String>,
    /// Kafka will never take these.
    refused: Vec<PutQuarantine>,
    /// Something is left.
    stuck: bool,
    /// Why.
    reason: Option<String>,
}

async fn send_in_lanes(bus: &KafkaBus, rows: Vec<SpoolRow>) -> Sent {
    let mut lanes: BTreeMap<Vec<u8>, Vec<SpoolRow>> = BTreeMap::new();
    for row in rows {
        lanes.entry(codec::record_key(&row.event)).or_default().push(row);
    }
    let mut running: FuturesUnordered<_> = lanes.into_values().map(|lane| send_lane(bus, lane)).collect();
    let mut all = Sent::default();
    while let Some(lane) = running.next().await {
        all.keys.extend(lane.keys);
        all.refused.extend(lane.refused);
        all.stuck |= lane.stuck;
        all.reason = all.reason.or(lane.reason);
    }
    all
}

async fn send_lane(bus: &KafkaBus, lane: Vec<SpoolRow>) -> Sent {
    let mut sent = Sent::default();
    for row in lane {
        match send(bus, &addressed(&row.project, &row.channel, row.event.clone())).await {
            Ok(()) => sent.keys.push(row.key),
            Err(e @ ProduceError::Refused { .. }) => {
                error!(event = row.event.id, "quarantined: {e}");
                sent.refused.push(quarantined(&row, &e.to_string()));
                sent.keys.push(row.key);
            }
            Err(e @ (ProduceError::NotSent { .. } | ProduceError::Unknown { .. })) => {
                sent.stuck = true;
                sent.reason = Some(e.to_string());
                break;
            }
        }
    }
    sent
}

fn quarantined(row: &SpoolRow, reason: &str) -> PutQuarantine {
    PutQuarantine {
        id: EventKey::new(row.at, entropy()),
        project: row.project.clone(),
        origin: format!("spool:{}", row.channel),
        reason: reason.to_owned(),
        headers: json!({"content-type": "application/cloudevents+json"}),
        body: serde_json::to_vec(&row.event).expect("events have string keys only"),
        received_at: row.at,
    }
}
