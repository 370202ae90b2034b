//! Follows a run until it has ended, showing it meanwhile.

use std::time::{Duration, Instant};

use kickwheel_schemas::{
    Millis,
    api::{RunDetail, Watched},
};

use super::{Wheel, changes::changes, frame::frame, live::Block};
use crate::{
    exit::{Exit, Failure},
    output::{Look, say},
};

/// How long one question waits for news.
const WAIT: Duration = Duration::from_secs(20);
/// The wheel turns and the clock advances this often on a terminal.
const BEAT: Duration = Duration::from_millis(250);
/// How long a server may be away while its run is watched: a restart, not an absence.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts to reach it.
const RETRY: Duration = Duration::from_millis(500);

/// Watches `run` and shows its progress on stdout until it has ended; returns it as it ended. With `look.json` nothing is
/// shown. The server may be restarted meanwhile: the run goes on, and so does this.
pub async fn follow(look: Look, wheel: &Wheel, run: &str) -> Result<RunDetail, Failure> {
    let mut view = View::new(look);
    let mut known: Option<Watched> = None;
    let mut away_since: Option<Instant> = None;
    loop {
        let seq = known.as_ref().map_or(0, |w| w.seq);
        // The first question must answer at once, whatever the run does.
        let wait = if known.is_some() { WAIT } else { Duration::ZERO };
        let answer = view.during(known.as_ref(), wheel.watch(run, seq, wait)).await;
        match answer {
            Ok(watched) => {
                away_since = None;
                view.show(known.as_ref().map(|w| &w.run), &watched.run)?;
                if watched.run.summary.state.is_terminal() {
                    view.close();
                    return Ok(watched.run);
                }
                known = Some(watched);
            }
            Err(failure) if known.is_some() && is_passing(&failure) => {
                let since = *away_since.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    view.close();
                    return Err(failure.help("the run goes on without this command; start it again to watch"));
                }
                view.during(known.as_ref(), tokio::time::sleep(RETRY)).await;
            }
            Err(failure) => {
                view.close();
                return Err(failure);
            }
        }
    }
}

fn is_passing(failure: &Failure) -> bool {
    match failure.exit {
        Exit::Unreachable => failure.code == "unreachable",
        Exit::Refused => matches!(failure.code.as_str(), "stopping" | "draining" | "paused" | "no_lease"),
        Exit::Ok | Exit::Failed | Exit::Usage | Exit::NotFound | Exit::Interrupted => false,
    }
}

struct View {
    look: Look,
    block: Option<Block>,
    beat: usize,
}

impl View {
    fn new(look: Look) -> Self {
        let block = (look.terminal && !look.json).then(Block::new);
        Self { look, block, beat: 0 }
    }

    /// Awaits `work`; on a terminal the drawn frame lives on meanwhile.
    async fn during<T>(&mut self, known: Option<&Watched>, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            match tokio::time::timeout(BEAT, work.as_mut()).await {
                Ok(done) => return done,
                Err(_) => {
                    self.beat += 1;
                    if let (Some(block), Some(known)) = (&mut self.block, known) {
                        block.draw(frame(self.look, &known.run, Millis::now(), self.beat, Block::rows()));
                    }
                }
            }
        }
    }

    fn show(&mut self, before: Option<&RunDetail>, run: &RunDetail) -> Result<(), Failure> {
        match &mut self.block {
            Some(block) => block.draw(frame(self.look, run, Millis::now(), self.beat, Block::rows())),
            None if self.look.json => {}
            None => {
                for line in changes(self.look, before, run, Millis::now()) {
                    say(line)?;
                }
            }
        }
        Ok(())
    }

    /// On a terminal the last frame stays as plain text.
    fn close(&mut self) {
        if let Some(block) = self.block.take() {
            block.finish();
        }
    }
}
