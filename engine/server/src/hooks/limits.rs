//! How much a sender may send, and what became of what it sent: in memory, since the server's start.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

use super::{MAX_AT_ONCE, reading::Arrivals, translation::Known};

/// A bucket holds this part of a minute's requests: so many may come at once.
const BURST_PART: f64 = 0.1;
/// And at least so many, if a minute has them: one push of a few branches is as many requests.
const MIN_BURST: u32 = 6;
/// Buckets that are kept. Triggers are made by hand, so theirs are never as many; of addresses the full ones, which say
/// nothing, are forgotten first.
const MAX_BUCKETS: usize = 10_000;

/// The state of the senders' door.
#[derive(Debug)]
pub struct Hooks {
    /// Bodies that are arriving.
    pub arrivals: Arrivals,
    /// Requests that are there in full and are dealt with at a time.
    pub permits: Semaphore,
    /// What each trigger may still take.
    pub rates: Rates,
    /// How often each address may still prove nothing.
    pub strangers: Rates,
    /// What was known of triggers last.
    pub known: Known,
    /// What became of requests.
    pub counts: Counts,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            arrivals: Arrivals::default(),
            permits: Semaphore::new(MAX_AT_ONCE),
            rates: Rates::default(),
            strangers: Rates::default(),
            known: Known::default(),
            counts: Counts::default(),
        }
    }
}

/// A token bucket per name.
#[derive(Debug, Default)]
pub struct Rates(Mutex<HashMap<String, Bucket>>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    /// Takes one request, or says how long to wait for the next one.
    pub fn take(&self, trigger: &str, per_minute: u32) -> Result<(), Duration> {
        self.take_at(trigger, per_minute, Instant::now())
    }

    fn take_at(&self, name: &str, per_minute: u32, now: Instant) -> Result<(), Duration> {
        let (most, per_second) = (burst(per_minute), f64::from(per_minute) / 60.0);
        let mut buckets = self.0.lock().expect("no holder of this lock panics");
        let filled = |bucket: &Bucket| {
            let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.left + passed * per_second).min(most)
        };
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(name) {
            buckets.retain(|_, bucket| filled(bucket) < most);
            if buckets.len() >= MAX_BUCKETS {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(name.to_owned()).or_insert(Bucket { left: most, at: now });
        (bucket.left, bucket.at) = (filled(bucket), now);
        bucket.take(per_second)
    }
}

impl Bucket {
    fn take(&mut self, per_second: f64) -> Result<(), Duration> {
        if self.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.left) / per_second));
        }
        self.left -= 1.0;
        Ok(())
    }
}

fn burst(per_minute: u32) -> f64 {
    (f64::from(per_minute) * BURST_PART).max(f64::from(per_minute.clamp(1, MIN_BURST)))
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its events are durable.
    Accepted,
    /// It means nothing to us.
    Nothing,
    /// Not taken, and why: a stable code.
    Refused(&'static str),
}

impl Outcome {
    /// As it is counted.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Nothing => "nothing",
            Self::Refused(code) => code,
        }
    }
}

/// Requests by trigger and outcome.
#[derive(Debug, Default)]
pub struct Counts(Mutex<BTreeMap<String, BTreeMap<&'static str, u64>>>);

impl Counts {
    /// One more.
    pub fn count(&self, trigger: &str, outcome: Outcome) {
        let mut counts = self.0.lock().expect("no holder of this lock panics");
        *counts.entry(trigger.to_owned()).or_default().entry(outcome.as_str()).or_default() += 1;
    }

    /// Those of one trigger.
    pub fn of(&self, trigger: &str) -> BTreeMap<String, u64> {
        let counts = self.0.lock().expect("no holder of this lock panics");
        counts.get(trigger).map_or_else(BTreeMap::new, |one| one.iter().map(|(k, n)| ((*k).to_owned(), *n)).collect())
    }

    /// All of them; requests to triggers that do not exist under the empty name.
    pub fn all(&self) -> BTreeMap<String, BTreeMap<&'static str, u64>> {
        self.0.lock().expect("no holder of this lock panics").clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_allows_a_burst_then_one_at_a_time_and_says_when() {
        let rates = Rates::default();
        let start = Instant::now();
        // 60 a minute: six at once, then one each second.
        for n in 0..6 {
            assert_eq!(rates.take_at("a", 60, start), Ok(()), "{n}");
        }
        let wait = rates.take_at("a", 60, start).expect_err("it is empty");
        assert!((0.9..=1.0).contains(&wait.as_secs_f64()), "{wait:?}");
        assert_eq!(rates.take_at("b", 60, start), Ok(()), "each trigger has its own");
        let later = start + Duration::from_millis(1001);
        assert_eq!(rates.take_at("a", 60, later), Ok(()));
        assert!(rates.take_at("a", 60, later).is_err());
        // However long nobody asked, no more than a burst has gathered.
        let much_later = later + Duration::from_secs(3600);
        assert_eq!((0..100).take_while(|_| rates.take_at("a", 60, much_later).is_ok()).count(), 6);
    }

    #[test]
    fn the_slowest_rate_still_takes_one() {
        let rates = Rates::default();
        let start = Instant::now();
        assert_eq!(rates.take_at("a", 1, start), Ok(()));
        let wait = rates.take_at("a", 1, start).expect_err("it is empty");
        assert!((59.0..=60.0).contains(&wait.as_secs_f64()), "{wait:?}");
    }

    #[test]
    fn outcomes_are_counted_by_trigger() {
        let counts = Counts::default();
        counts.count("a", Outcome::Accepted);
        counts.count("a", Outcome::Refused("signature_wrong"));
        counts.count("a", Outcome::Refused("signature_wrong"));
        counts.count("b", Outcome::Nothing);
        assert_eq!(counts.of("a"), BTreeMap::from([("accepted".to_owned(), 1), ("signature_wrong".to_owned(), 2)]));
        assert_eq!(counts.of("c"), BTreeMap::new());
        assert_eq!(counts.all().len(), 2);
    }
}
