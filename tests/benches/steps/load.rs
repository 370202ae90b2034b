//! Closed loops: so many clients, each of which starts a run, waits for its end, and begins again.

use std::{
    fmt,
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{
    connection::Connection,
    servers::{Kind, Subject},
};

/// A journal never grows as long: whoever watches from here on is answered at the run's end.
const BEYOND_ANY_JOURNAL: u64 = 1_000_000;

/// Which runs, and how many clients.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Length of the chain.
    pub steps: u32,
    /// Clients.
    pub at_once: usize,
}

/// What a server did under a load.
#[derive(Clone, Debug)]
pub struct Seen {
    runs: f64,
    seconds: f64,
    /// Median time of a run, from the client's first byte to the end that it learned.
    pub p50_ms: f64,
    /// CPU of the server's process.
    pub cpu_ms: f64,
}

/// The part of our answers that a client looks at.
#[derive(Deserialize)]
struct Run<'a> {
    id: &'a str,
    state: &'a str,
}

#[derive(Deserialize)]
struct Watched<'a> {
    #[serde(borrow)]
    run: Run<'a>,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = if self.steps == 1 { "1 step".to_owned() } else { format!("chain of {}", self.steps) };
        if self.at_once == 1 { write!(f, "{steps}, alone") } else { write!(f, "{steps}, {} at once", self.at_once) }
    }
}

impl Load {
    /// Loads a server for about so long; each client starts at least one run, and runs that
    /// begun by then are waited for and counted.
    pub async fn run(self, subject: &Subject, stretch: Duration) -> Seen {
        let mut connections = Vec::new();
        for _ in 0..self.at_once {
            connections.push(Connection::open(subject.address, &subject.token).await);
        }
        let cpu = subject.cpu_ms();
        let began = Instant::now();
        let clients = connections.into_iter().map(|mut connection| {
            let kind = subject.kind;
            tokio::spawn(async move {
                let mut times = Vec::new();
                loop {
                    let one = Instant::now();
                    match kind {
                        Kind::Ours => ours(&mut connection, self.steps).await,
                        Kind::Bare => bare(&mut connection, self.steps).await,
                    }
                    times.push(one.elapsed().as_secs_f64() * 1e3);
                    if began.elapsed() >= stretch {
                        return times;
                    }
                }
            })
        });
        let mut times = Vec::new();
        for client in clients.collect::<Vec<_>>() {
            times.extend(client.await.unwrap());
        }
        let seconds = began.elapsed().as_secs_f64();
        let cpu_ms = subject.cpu_ms() - cpu;
        Seen { runs: times.len() as f64, seconds, p50_ms: super::median(times), cpu_ms }
    }
}

/// The path of ours to a workflow of so many steps.
pub fn workflow_name(steps: u32) -> String {
    format!("chain-{steps}")
}

async fn ours(connection: &mut Connection, steps: u32) {
    let path = format!("/api/v1/workflows/{}/runs", workflow_name(steps));
    let answer = connection.ask("POST", &path, "{}").await;
    let run: Run<'_> = serde_json::from_slice(answer).unwrap();
    let mut state = run.state.to_owned();
    let watch = format!("/api/v1/runs/{}/watch?seq={BEYOND_ANY_JOURNAL}", run.id);
    while state != "succeeded" {
        assert!(matches!(state.as_str(), "queued" | "running"), "a run is {state}");
        let answer = connection.ask("GET", &watch, "").await;
        let watched: Watched<'_> = serde_json::from_slice(answer).unwrap();
        watched.run.state.clone_into(&mut state);
    }
}

async fn bare(connection: &mut Connection, steps: u32) {
    let answer = connection.ask("POST", &format!("/run?steps={steps}"), "").await;
    assert_eq!(answer, steps.to_string().as_bytes());
}

impl Seen {
    /// Runs that ended in a second.
    pub fn runs_per_s(&self) -> f64 {
        self.runs / self.seconds
    }

    /// Steps in all.
    pub fn steps(&self, load: Load) -> f64 {
        self.runs * f64::from(load.steps)
    }

    /// Steps that ended in a second.
    pub fn steps_per_s(&self, load: Load) -> f64 {
        self.steps(load) / self.seconds
    }

    /// Two stretches as one.
    pub fn and(&self, other: &Self) -> Self {
        Self {
            runs: self.runs + other.runs,
            seconds: self.seconds + other.seconds,
            p50_ms: f64::midpoint(self.p50_ms, other.p50_ms),
            cpu_ms: self.cpu_ms + other.cpu_ms,
        }
    }

    /// For the line of a round.
    pub fn describe(&self, load: Load) -> String {
        format!(
            "{:.0} steps/s, {:.0} runs/s, p50 {:.2} ms, {:.3} ms CPU a step",
            self.steps_per_s(load),
            self.runs_per_s(),
            self.p50_ms,
            self.cpu_ms / self.steps(load)
        )
    }
}
