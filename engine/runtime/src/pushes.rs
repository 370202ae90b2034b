//! Whether a push was reported before, by another channel.
//!
//! One push may be told by a webhook, by the repository's own hook and by polling. Each ref has a chain of recorded
//! *transitions*, each with the channels that have reported it. A push is a duplicate of a transition that its channel
//! has not reported yet; the same channel reporting the same move again is a new move (A→B→A→B is legitimate). Time plays
//! no part in it.
//!
//! A channel that has told what came later may tell an earlier move after it, since senders keep no order. But the same
//! words may also tell that the ref has taken that way once more: where it could have, because it stands where the move
//! begins by what is recorded, the mirror says whether it still stands there.
//!
//! Pure: [`questions`] and [`wants_tip`] say what must be known, the caller asks the mirror, [`judge`] decides. What it
//! does not do: looking at identities of events (redeliveries), which the store does when an event is accepted.

use std::collections::BTreeMap;

use kickwheel_store::EventKey;

/// Newest transitions of a ref that are looked at. What is older than so many moves is not reported any more by anybody.
pub const WINDOW: u32 = 64;

/// The channel that sees states instead of moves: whatever lies between two looks is one move to it.
pub const POLL: &str = "poll";

/// A recorded move of a ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Counts from 1 for the ref.
    pub number: u64,
    /// Commit before; none when the ref was created.
    pub before: Option<String>,
    /// Commit after; none when the ref was deleted.
    pub after: Option<String>,
    /// Who has reported it.
    pub channels: Vec<String>,
    /// The event that was decided for it.
    pub event: EventKey,
    /// False for one that came late: the ref was further on already.
    pub moved_head: bool,
}

/// A move that is reported now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Push<'a> {
    /// Commit before; none when the ref was created.
    pub before: Option<&'a str>,
    /// Commit after; none when the ref was deleted.
    pub after: Option<&'a str>,
    /// Who reports it.
    pub channel: &'a str,
    /// The newest transition that the reporter knew: only later ones can be the same move. For polling.
    pub since: u64,
    /// Where the ref stands by the mirror.
    pub tip: Tip<'a>,
}

/// Where a ref stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tip<'a> {
    /// Nobody asked, or there was no answer.
    Unknown,
    /// There is no such ref.
    Gone,
    /// At this commit.
    At(&'a str),
}

impl Tip<'_> {
    /// Whether it is known to stand elsewhere.
    fn has_left(self, head: Option<&str>) -> bool {
        match self {
            Self::Unknown => false,
            Self::Gone => head.is_some(),
            Self::At(commit) => head != Some(commit),
        }
    }
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A move that nobody has reported.
    New,
    /// A move that nobody has reported, of a ref that is further on already.
    Late,
    /// Told before.
    Duplicate {
        /// The transitions that this channel has now reported.
        reported: Vec<u64>,
        /// The event that was decided for it.
        of: EventKey,
    },
}

/// Answers of the mirror: for (older, newer), whether the first is an ancestor of the second or the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ancestry(BTreeMap<(String, String), bool>);

impl Ancestry {
    /// Keeps an answer. What is not known counts as no.
    pub fn learn(&mut self, older: String, newer: String, is_ancestor: bool) {
        self.0.insert((older, newer), is_ancestor);
    }

    fn holds(&self, older: &str, newer: &str) -> bool {
        older == newer || self.0.get(&(older.to_owned(), newer.to_owned())).copied().unwrap_or(false)
    }
}

/// Pairs (older, newer) of commits whose order [`judge`] wants to know. Empty in the usual cases: most pushes are told by
/// one channel, or exactly alike by several.
pub fn questions(chain: &[Transition], push: &Push<'_>) -> Vec<(String, String)> {
    let mut asked: Vec<(String, String)> = Vec::new();
    let Some(after) = push.after else { return asked };
    if exact(chain, push).is_some() {
        return asked;
    }
    let mut ask = |older: &str, newer: &str| {
        let pair = (older.to_owned(), newer.to_owned());
        if older != newer && !asked.contains(&pair) {
            asked.push(pair);
        }
    };
    for transition in around(chain, push) {
        if let Some(end) = &transition.after {
            ask(after, end);
            if let (Some(start), Some(before)) = (&transition.before, push.before) {
                ask(start, before);
            }
        }
    }
    if let Some(head) = head(chain) {
        ask(after, head);
    }
    if let Some(before) = push.before
        && !asked.is_empty()
    {
        asked.push((before.to_owned(), after.to_owned()));
    }
    asked
}

/// Decides what a report is. `chain` is oldest first.
pub fn judge(chain: &[Transition], push: &Push<'_>, ancestry: &Ancestry) -> Verdict {
    if let Some(found) = exact(chain, push) {
        return found;
    }
    let Some(after) = push.after else { return Verdict::New };
    let forward = push.before.is_none_or(|before| ancestry.holds(before, after));
    if !forward {
        return Verdict::New;
    }
    if let Some(transition) = around(chain, push).find(|t| lies_inside(t, push, after, ancestry)) {
        // A part is not the whole: other parts may follow, in any order.
        return Verdict::Duplicate { reported: Vec::new(), of: transition.event };
    }
    match head(chain) {
        Some(head) if head != after && ancestry.holds(after, head) => Verdict::Late,
        Some(_) | None => Verdict::New,
    }
}

/// Transitions that this channel may still report.
fn open_to<'a>(chain: &'a [Transition], push: &Push<'a>) -> impl Iterator<Item = &'a Transition> {
    let (since, channel) = (push.since, push.channel);
    chain.iter().filter(move |t| t.number > since && !t.channels.iter().any(|c| c == channel))
}

/// Transitions of which this may be a part: those after the last one that the channel has told as a whole. Before it,
/// the same commits are another story: the ref has been back there since.
fn around<'a>(chain: &'a [Transition], push: &Push<'a>) -> impl Iterator<Item = &'a Transition> {
    let after = last_told(chain, push);
    open_to(chain, push).filter(move |t| t.number > after)
}

/// Whether the report could be of an earlier move or of a new one, and the mirror's tip tells which.
pub fn wants_tip(chain: &[Transition], push: &Push<'_>) -> bool {
    let told = last_told(chain, push);
    head(chain) == push.before && open_to(chain, push).any(|t| t.number < told && t.before.as_deref() == push.before)
}

/// The newest transition that the channel has told as a whole; 0: none.
fn last_told(chain: &[Transition], push: &Push<'_>) -> u64 {
    let told = chain.iter().filter(|t| t.channels.iter().any(|c| c == push.channel)).map(|t| t.number);
    told.max().unwrap_or(0)
}

/// The same move, or moves that follow on one another and together are the same.
fn exact(chain: &[Transition], push: &Push<'_>) -> Option<Verdict> {
    // The ref has left the place where this move begins, and nobody has told it: that is what is told now, by a channel
    // that has told what came after the earlier move.
    let has_left = wants_tip(chain, push) && push.tip.has_left(head(chain));
    let told = if has_left { last_told(chain, push) } else { 0 };
    let open: Vec<&Transition> = open_to(chain, push).filter(|t| t.number > told).collect();
    let mut found = None;
    for (start, first) in open.iter().enumerate() {
        if first.before.as_deref() != push.before {
            continue;
        }
        let mut end = start;
        loop {
            if open[end].after.as_deref() == push.after {
                let reported: Vec<u64> = open[start..=end].iter().map(|t| t.number).collect();
                found = Some(Verdict::Duplicate { reported, of: open[end].event });
                // A poll sees the state of now: of several ways to it, the one that goes furthest was taken.
                if push.channel != POLL {
                    return found;
                }
            }
            match open.get(end + 1) {
                Some(next) if next.number == open[end].number + 1 && next.before == open[end].after => end += 1,
                Some(_) | None => break,
            }
        }
    }
    found
}

fn lies_inside(transition: &Transition, push: &Push<'_>, after: &str, ancestry: &Ancestry) -> bool {
    let Some(end) = &transition.after else { return false };
    let begins = match (&transition.before, push.before) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(start), Some(before)) => ancestry.holds(start, before),
    };
    begins && ancestry.holds(after, end)
}

/// Where the ref stands by what is recorded.
fn head(chain: &[Transition]) -> Option<&str> {
    chain.iter().rev().find(|t| t.moved_head).and_then(|t| t.after.as_deref())
}

#[cfg(test)]
mod tests;
