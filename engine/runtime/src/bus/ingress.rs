//! Making an event from outside durable before its sender is answered.
//!
//! Kafka acknowledges it, or, while Kafka is away, the spool in the database keeps it. Which of the two is one mode row
//! for all replicas: as long as something from outside is in the spool, everything from outside goes there, so that
//! nothing overtakes. A replica believes what it read of the mode for at most [`MODE_AGE`]; therefore the first answer
//! after a change to the spool waits that long.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kickwheel_bus::{ProduceError, codec};
use kickwheel_schemas::{CloudEvent, Millis};
use kickwheel_store::{
    Write, WriteError, fault,
    write::{BusMode, SetBusMode},
};

use super::{Bus, KafkaBus, Receipt, addressed};
use crate::{ingest, shared::Shared};

/// How long a replica goes by the mode that it read.
const MODE_AGE: Duration = Duration::from_secs(1);
/// The mode may turn between a look and a write, but not for ever.
const TURNS: u32 = 5;

/// Makes an event from outside durable.
pub async fn receive(
    shared: &Arc<Shared>,
    project: &str,
    channel: &str,
    event: CloudEvent,
) -> Result<Receipt, WriteError> {
    match &shared.bus {
        Bus::Embedded => {
            let (key, duplicate) = ingest::accept(shared, project, channel, event).await?;
            Ok(Receipt::Stored { key, duplicate })
        }
        Bus::Kafka(bus) => {
            for _ in 0..TURNS {
                if let Some(receipt) = try_once(shared, bus, project, channel, &event).await? {
                    return Ok(receipt);
                }
            }
            Err(WriteError::Unavailable { reason: "the way to Kafka keeps opening and closing".to_owned() })
        }
    }
}

/// None when the mode has turned meanwhile.
async fn try_once(
    shared: &Arc<Shared>,
    bus: &KafkaBus,
    project: &str,
    channel: &str,
    event: &CloudEvent,
) -> Result<Option<Receipt>, WriteError> {
    let at = Millis::now();
    match mode(shared, bus).await {
        BusMode::Direct => {
            fault::point("bus.produce.before");
            let sent = send(bus, &addressed(project, channel, event.clone())).await;
            fault::point("bus.produce.after");
            let reason = match sent {
                Ok(()) => return Ok(Some(Receipt::OnBus)),
                Err(e @ ProduceError::Refused { .. }) => return Err(WriteError::Invalid { message: e.to_string() }),
                // One of unknown outcome is spooled too: its identity drops the double.
                Err(e @ (ProduceError::NotSent { .. } | ProduceError::Unknown { .. })) => e.to_string(),
            };
            bus.note("kafka", Some(reason));
            let turn = Write::SetBusMode(SetBusMode { mode: BusMode::Spool, at });
            shared.store.write(vec![turn, bus.spool(project, channel, event.clone(), at, true)]).await?;
            remember(bus, BusMode::Spool);
            // Another replica may still go the direct way until what it read of the mode is too old.
            tokio::time::sleep(MODE_AGE).await;
            bus.drain.notify_one();
            Ok(Some(Receipt::Spooled))
        }
        BusMode::Spool => match shared.store.write(vec![bus.spool(project, channel, event.clone(), at, true)]).await {
            Ok(_) => {
                bus.drain.notify_one();
                Ok(Some(Receipt::Spooled))
            }
            Err(WriteError::Stale { .. }) => {
                remember(bus, BusMode::Direct);
                Ok(None)
            }
            Err(e) => Err(e),
        },
    }
}

/// Sends one event to the events topic.
pub async fn send(bus: &KafkaBus, event: &CloudEvent) -> Result<(), ProduceError> {
    let record = codec::encode(event);
    let headers: Vec<(&str, &[u8])> = record.headers.to_vec();
    let topic = &bus.kafka.config().topics.events;
    bus.kafka.produce(topic, Some(&record.key), Some(&record.payload), &headers).await?;
    Ok(())
}

/// The mode, at most [`MODE_AGE`] old. While the database does not answer, nobody can turn it, so what was read last holds.
async fn mode(shared: &Arc<Shared>, bus: &KafkaBus) -> BusMode {
    let known = *bus.mode.lock().expect("no holder of this lock panics");
    if let Some((mode, read)) = known
        && read.elapsed() < MODE_AGE
    {
        return mode;
    }
    match shared.store.bus_mode().await {
        Ok(row) => {
            remember(bus, row.mode);
            row.mode
        }
        Err(_) => known.map_or(BusMode::Direct, |(mode, _)| mode),
    }
}

/// Keeps what is known of the mode.
pub fn remember(bus: &KafkaBus, mode: BusMode) {
    *bus.mode.lock().expect("no holder of this lock panics") = Some((mode, Instant::now()));
}
