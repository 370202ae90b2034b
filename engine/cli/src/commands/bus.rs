//! `bus`: what carries events, what waits, and where a stopped partition goes on.

use kickwheel_schemas::api::{BusView, ResetBus};

use super::Session;
use crate::{
    args::Bus,
    exit::Outcome,
    output::{listing, say},
};

/// `bus …`.
pub async fn bus(session: &Session, bus: Bus) -> Outcome {
    let client = session.client()?;
    let answer = match bus {
        Bus::Ls => client.get::<BusView>(&["bus"], &[]).await?,
        Bus::Reset { stream, partition, to } => {
            client.post::<BusView>(&["bus", "reset"], &ResetBus { stream, partition, to }).await?
        }
    };
    let view = &answer.value;
    if !session.look.json {
        say(format!("{}, {}; {} events wait in the database", view.kind, view.mode, view.spooled))?;
        for trouble in &view.trouble {
            eprintln!("{trouble}");
        }
    }
    let rows = view.items.iter().map(|p| {
        vec![
            p.stream.clone(),
            p.partition.to_string(),
            p.state.clone(),
            p.next_offset.to_string(),
            p.reason.clone().unwrap_or_default(),
        ]
    });
    let headings = ["STREAM", "PARTITION", "STATE", "NEXT OFFSET", "REASON"];
    listing(session.look, &answer.raw, &headings, rows.collect(), "no partitions: the bus is the database itself")
}
