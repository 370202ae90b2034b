//! One push that several channels report is one run, in whatever order they report it; the same commits again are another
//! push.
//!
//! Everything is real: the repository's own hook, webhooks with signatures, the poller that lists the repository, and the
//! engine that is killed between two of them. A channel is held back by putting the hook away and by sending a webhook
//! later; the poller looks every second all the while, so it is first wherever the others wait for it.

use std::collections::BTreeMap;

use kickwheel_tests::{
    checker::{self, Expected},
    forge::Forge,
    harness::{Database, on_each_bus},
    kafka::Topics,
    wait::until,
};

use crate::told::Story;

/// Who reports.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Channel {
    Hook,
    Poll,
    /// The repository has two webhooks.
    Webhook(usize),
}

use Channel::{Hook, Poll, Webhook};

struct Twins {
    story: Story,
    forges: Vec<Forge>,
    /// Runs that there have to be, by commit.
    expected: BTreeMap<String, usize>,
}

impl Twins {
    fn begin(database: Database, topics: Option<&Topics>) -> Self {
        let story = Story::begin(database, topics, "0s");
        let forges = ["left", "right"].map(|name| Forge::set_up(&story.engine, name, "wheel")).to_vec();
        story.silence_hook();
        Self { story, forges, expected: BTreeMap::new() }
    }

    /// A push of which nobody tells: before and after.
    fn push(&mut self, text: &str) -> (String, String) {
        let before = self.story.repo.head();
        let after = self.story.push(text);
        self.expected.insert(after.clone(), 1);
        (before, after)
    }

    fn tell(&mut self, channel: Channel, before: &str, after: &str) {
        match channel {
            Hook => self.story.tell_by_hook(before, after),
            Webhook(which) => {
                let forge = self.forges[which].clone();
                self.story.tell_by(&forge, before, after);
            }
            Poll => self.story.wait_for_run(after),
        }
    }

    fn rests(&self) {
        self.story.rests();
        assert_eq!(self.story.runs(), self.expected, "{}", self.story.engine.log());
    }

    fn ends(self) {
        self.rests();
        let engine = &self.story.engine;
        until("all have ended", || engine.runs().iter().all(|run| run["state"] == "succeeded").then_some(()));
        let violations = checker::check(&engine.database_url(), &engine.ledger(), &Expected::new());
        assert_eq!(violations, []);
    }
}

#[test]
fn each_channel_in_every_order_makes_one_run_of_a_push() {
    on_each_bus(|database, topics| {
        let mut twins = Twins::begin(database, topics);
        let orders = [
            [Hook, Webhook(0), Poll, Webhook(1)],
            [Hook, Poll, Webhook(1), Webhook(0)],
            [Webhook(0), Hook, Poll, Webhook(1)],
            [Webhook(0), Webhook(1), Poll, Hook],
            [Poll, Hook, Webhook(0), Webhook(1)],
            [Poll, Webhook(0), Webhook(1), Hook],
        ];
        for (round, order) in orders.into_iter().enumerate() {
            let (before, after) = twins.push(&format!("{round}\n"));
            for channel in order {
                twins.tell(channel, &before, &after);
                // Every second round is told at once, the others one after the other.
                if round % 2 == 0 {
                    twins.story.wait_for_run(&after);
                }
            }
        }
        twins.ends();
    });
}

#[test]
fn back_and_forth_is_as_many_runs_as_pushes_by_each_pair_of_channels() {
    let pairs = [
        [Hook, Webhook(0)],
        [Webhook(0), Hook],
        [Webhook(0), Webhook(1)],
        [Hook, Poll],
        [Poll, Hook],
        [Webhook(0), Poll],
        [Poll, Webhook(1)],
    ];
    on_each_bus(|database, topics| {
        let mut twins = Twins::begin(database, topics);
        for (round, pair) in pairs.into_iter().enumerate() {
            let (a, b) = twins.push(&format!("{round}\n"));
            twins.tell(pair[0], &a, &b);
            twins.tell(pair[1], &a, &b);
            twins.rests();
            // Back to A, and to B again: two more pushes of commits that were told before.
            for (before, after) in [(&b, &a), (&a, &b)] {
                twins.story.push_commit(after);
                *twins.expected.entry(after.clone()).or_default() += 1;
                for channel in pair {
                    let runs = twins.expected[after];
                    twins.tell(channel, before, after);
                    // A poll sees states, so each must stand until it was told.
                    until("it is told", || (twins.story.runs().get(after) == Some(&runs)).then_some(()));
                }
                twins.rests();
            }
        }
        twins.ends();
    });
}

#[test]
fn a_poll_that_saw_two_pushes_at_once_is_told_nothing_new_by_their_parts() {
    on_each_bus(|database, topics| {
        let mut twins = Twins::begin(database, topics);
        // Both are there before the poller looks: the engine is down meanwhile.
        twins.story.engine.kill9();
        let (first, second) = twins.push("b\n");
        let (_, third) = twins.push("c\n");
        twins.expected.remove(&second);
        twins.story.engine.restart();
        twins.tell(Poll, &first, &third);
        for channel in [Hook, Webhook(0)] {
            twins.tell(channel, &first, &second);
            twins.tell(channel, &second, &third);
        }
        twins.ends();
    });
}

#[test]
fn a_push_told_half_before_a_kill_and_half_after_it_is_one_run() {
    let pairs = [
        [Hook, Webhook(0)],
        [Webhook(0), Hook],
        [Hook, Poll],
        [Poll, Hook],
        [Webhook(0), Poll],
        [Poll, Webhook(0)],
        [Webhook(0), Webhook(1)],
    ];
    on_each_bus(|database, topics| {
        let mut twins = Twins::begin(database, topics);
        for (round, pair) in pairs.into_iter().enumerate() {
            // Right after it was told, and right before it is decided.
            for fault in [None, Some("ingest.decide.before:1")] {
                twins.story.engine.kill9();
                let (before, after) = twins.push(&format!("{round} {fault:?}\n"));
                let delivery = twins.story.delivery();
                let is_up = twins.story.engine.try_restart(fault).is_ok();
                let mut answered = true;
                if is_up {
                    match (pair[0], fault) {
                        (Hook, _) => twins.story.tell_by_hook(&before, &after),
                        (Poll, None) => twins.story.wait_for_run(&after),
                        // With the fault, whoever tells first is the death of it, be it only the poller.
                        (Poll, Some(_)) => {}
                        (Webhook(which), _) => {
                            answered = twins.story.deliver(&twins.forges[which], &delivery, &before, &after);
                        }
                    }
                    match fault {
                        None => _ = twins.story.engine.kill9(),
                        Some(_) => _ = twins.story.engine.wait_for_death(),
                    }
                }
                twins.story.engine.restart();
                twins.tell(pair[1], &before, &after);
                // A sender that got no answer sends the same again; a hook that could not be called was not called.
                match pair[0] {
                    Webhook(which) if !answered || !is_up => until("it is taken", || {
                        twins.story.deliver(&twins.forges[which], &delivery, &before, &after).then_some(())
                    }),
                    Hook if !is_up => twins.story.tell_by_hook(&before, &after),
                    Hook | Poll | Webhook(_) => {}
                }
                twins.story.wait_for_run(&after);
            }
        }
        twins.ends();
    });
}
