//! The relay: what runs journal becomes lifecycle events on the runs topic, in commit order.
//!
//! Each shard has a cursor in the database. The owner of the shard reads the journal behind it, sends what `lifecycle`
//! makes of it (one run's events strictly after one another, keyed by the run), and moves the cursor past what was
//! acknowledged. There is no second outbox: the journal is the outbox, and sealing waits for the cursor. A crash in between
//! sends some again, with the same ids.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use kickwheel_bus::codec;
use kickwheel_core::Event;
use kickwheel_schemas::{CloudEvent, RunId};
use kickwheel_store::{ReadError, Write, WriteError, fault, rows::RelayRow, write::MoveRelay};
use tracing::{debug, error};

use crate::{
    bus::{Bus, KafkaBus},
    lifecycle::{Subject, lifecycle},
    shared::Shared,
};

/// Journal rows of one round.
const ROUND: u32 = 500;
/// News are gathered for so long before they are sent.
const GATHER: Duration = Duration::from_millis(20);
/// The journal is looked at this often without news.
const SLOW_POLL: Duration = Duration::from_secs(1);
/// After Kafka or the database was away.
const PAUSE: Duration = Duration::from_millis(500);

/// Relays until the engine stops. Ends at once on the embedded bus, which has no topics.
pub async fn relay(shared: Arc<Shared>) {
    let Bus::Kafka(bus) = &shared.bus else { return };
    let mut news = shared.news.subscribe();
    loop {
        let mut wait = SLOW_POLL;
        let shards: Vec<(u32, i64)> =
            shared.leases.read().expect("no holder of this lock panics").iter().map(|(s, e)| (*s, *e)).collect();
        for (shard, epoch) in shards {
            match relay_shard(&shared, bus, shard, epoch).await {
                Ok(true) => wait = Duration::ZERO,
                Ok(false) => {}
                Err(reason) => {
                    bus.note("relay of runs", Some(reason));
                    wait = PAUSE;
                    break;
                }
            }
        }
        if wait == SLOW_POLL {
            bus.note("relay of runs", None);
        }
        tokio::select! {
            _ = news.changed(), if wait == SLOW_POLL => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep(wait) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

/// True when there may be more.
async fn relay_shard(shared: &Arc<Shared>, bus: &KafkaBus, shard: u32, epoch: i64) -> Result<bool, String> {
    let cursor = shared.store.relay_cursor(shard).await.map_err(|e| e.to_string())?;
    let rows = shared.store.journal_after(shard, cursor, ROUND).await.map_err(|e| e.to_string())?;
    let Some(last) = rows.last() else { return Ok(false) };
    let (to, full) = (last.shard_seq, rows.len() == ROUND as usize);
    send(bus, tell(shared, rows).await.map_err(|e| e.to_string())?).await?;
    fault::point("relay.sent");
    let moved = Write::MoveRelay(MoveRelay { shard, epoch, from: cursor, to });
    match shared.store.write(vec![moved]).await {
        Ok(_) => Ok(full),
        // Somebody else relays this shard now.
        Err(e @ (WriteError::Stale { .. } | WriteError::Fenced { .. })) => {
            debug!(shard, "the relay's cursor is not ours: {e}");
            Ok(false)
        }
        Err(e) => Err(e.to_string()),
    }
}

/// What the rows tell, run by run.
async fn tell(shared: &Arc<Shared>, rows: Vec<RelayRow>) -> Result<BTreeMap<RunId, Vec<CloudEvent>>, ReadError> {
    let mut known = HashMap::new();
    let mut told: BTreeMap<RunId, Vec<CloudEvent>> = BTreeMap::new();
    for row in rows {
        let event: Event = match serde_json::from_str(&row.event) {
            Ok(event) => event,
            Err(e) => {
                // The run itself is set aside for the same reason; the others must not wait for it.
                error!(run = %row.run, seq = row.seq, "an event of the journal cannot be told: {e}");
                continue;
            }
        };
        let (run, workflow) = match known.entry(row.run) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let Some(run) = shared.store.run(row.run).await? else { continue };
                let workflow = shared.workflow(&run.plan_digest).await?;
                place.insert((run, workflow))
            }
        };
        let url = shared.config.base_url_lasts.then(|| format!("{}/runs/{}", shared.config.base_url, row.run));
        let (project, plan, url) = (&run.project, &workflow.plan, url.as_deref());
        let subject = Subject { run: row.run, project, workflow: &run.workflow, plan, url };
        told.entry(row.run).or_default().extend(lifecycle(&subject, row.seq, &event));
    }
    Ok(told)
}

async fn send(bus: &KafkaBus, told: BTreeMap<RunId, Vec<CloudEvent>>) -> Result<(), String> {
    let mut running: FuturesUnordered<_> = told.into_values().map(|events| send_run(bus, events)).collect();
    let mut result = Ok(());
    while let Some(sent) = running.next().await {
        result = result.and(sent);
    }
    result
}

async fn send_run(bus: &KafkaBus, events: Vec<CloudEvent>) -> Result<(), String> {
    let topic = &bus.kafka.config().topics.runs;
    for event in events {
        let record = codec::encode(&event);
        let headers: Vec<(&str, &[u8])> = record.headers.to_vec();
        // One that is refused is waited for too: they are small, so it is the topic's settings that are wrong, and whoever
        // reads the topic must find no gap in it.
        bus.kafka
            .produce(topic, Some(&record.key), Some(&record.payload), &headers)
            .await
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}
