//! Looks at a made-up origin, with a clock and a record of transitions that the test holds.

use kickwheel_schemas::payload;

use super::*;

const MAIN: &str = "refs/heads/main";
const GRACE: Duration = Duration::from_secs(10);
const GRACE_MS: u64 = 10_000;

/// The world of a story: the origin, what is recorded, what is kept, and the time.
struct World {
    origin: BTreeMap<String, String>,
    position: PollPosition,
    patience: Patience,
    now: Millis,
    ids: BTreeSet<String>,
}

impl World {
    /// A repository that was looked at when it had this.
    fn bound(refs: &[(&str, char)]) -> Self {
        let position = PollPosition { version: 0, state: None, recorded: BTreeMap::new() };
        let (patience, now) = (Patience::default(), Millis(1_767_225_600_000));
        let mut world = Self { origin: BTreeMap::new(), position, patience, now, ids: BTreeSet::new() };
        for (name, commit) in refs {
            world.push(name, Some(*commit));
        }
        assert_eq!(world.look(), Vec::<String>::new(), "binding tells of nothing");
        world
    }

    fn push(&mut self, name: &str, commit: Option<char>) -> &mut Self {
        match commit {
            Some(commit) => _ = self.origin.insert(name.to_owned(), id(commit)),
            None => _ = self.origin.remove(name),
        }
        self
    }

    /// A hook's event for where the ref is now was decided.
    fn recorded(&mut self, name: &str) -> &mut Self {
        let transition = self.position.recorded.get(name).map_or(0, |r| r.transition) + 1;
        let commit = self.origin.get(name).cloned();
        self.position.recorded.insert(name.to_owned(), SeenRef { commit, transition });
        self
    }

    fn later(&mut self, ms: u64) -> &mut Self {
        self.now = self.now.plus(ms);
        self
    }

    /// The engine is killed and started again: what is in memory is gone.
    fn restart(&mut self) -> &mut Self {
        self.patience = Patience::default();
        self
    }

    /// One look, whose events are made durable. Moves as `ref before→after @known`.
    fn look(&mut self) -> Vec<String> {
        let found = compare(&self.position, &self.origin, &mut self.patience, self.now, GRACE);
        let events = translate(&bound(), &self.position, &found, self.now);
        assert_eq!(events.len(), found.moves.len());
        for (event, _) in &events {
            assert!(self.ids.insert(event.id.clone()), "the id {} comes twice", event.id);
        }
        if let Some(next) = found.next {
            self.position.state = Some(next);
            self.position.version += 1;
        }
        let short = |id: &Option<String>| id.as_ref().map_or("·".to_owned(), |id| id[..1].to_owned());
        found
            .moves
            .iter()
            .map(|m| format!("{} {}→{} @{}", m.name, short(&m.before), short(&m.after), m.known))
            .collect()
    }

    /// A look, and another one after the grace.
    fn looks(&mut self) -> Vec<String> {
        let mut told = self.look();
        told.extend(self.later(GRACE_MS).look());
        told
    }
}

fn id(digit: char) -> String {
    digit.to_string().repeat(40)
}

fn bound() -> BoundRepo {
    BoundRepo { name: "wheel".into(), url: "https://git.example.org/wheel.git".into(), default_branch: None }
}

#[test]
fn a_push_that_nobody_tells_of_is_told_once_after_the_grace() {
    let mut world = World::bound(&[(MAIN, 'a')]);
    assert_eq!(world.push(MAIN, Some('b')).look(), Vec::<String>::new());
    assert_eq!(world.later(GRACE_MS - 1).look(), Vec::<String>::new());
    assert_eq!(world.later(1).look(), ["refs/heads/main a→b @0"]);
    // Undecided or decided, it is not told again.
    assert_eq!(world.looks(), Vec::<String>::new());
    assert_eq!(world.recorded(MAIN).looks(), Vec::<String>::new());
    assert_eq!(world.restart().looks(), Vec::<String>::new());
}

#[test]
fn a_push_that_is_told_within_the_grace_is_not_told_by_the_poll() {
    let mut world = World::bound(&[(MAIN, 'a')]);
    assert_eq!(world.push(MAIN, Some('b')).look(), Vec::<String>::new());
    assert_eq!(world.later(1_000).recorded(MAIN).looks(), Vec::<String>::new());
}

#[test]
fn to_and_fro_is_told_each_time_also_while_nothing_is_decided() {
    for is_decided in [true, false] {
        let mut world = World::bound(&[(MAIN, 'a')]);
        let mut told = Vec::new();
        for commit in ['b', 'a', 'b'] {
            told.extend(world.push(MAIN, Some(commit)).looks());
            if is_decided {
                world.recorded(MAIN);
            }
        }
        let known: [u64; 3] = if is_decided { [0, 1, 2] } else { [0, 0, 0] };
        let expected = ["a→b", "b→a", "a→b"].iter().zip(known).map(|(m, n)| format!("{MAIN} {m} @{n}"));
        assert_eq!(told, expected.collect::<Vec<_>>());
    }
}

#[test]
fn to_and_fro_that_hooks_tell_of_is_never_told_by_the_poll() {
    let mut world = World::bound(&[(MAIN, 'a')]);
    for commit in ['b', 'a', 'b'] {
        assert_eq!(world.push(MAIN, Some(commit)).look(), Vec::<String>::new());
        assert_eq!(world.recorded(MAIN).looks(), Vec::<String>::new());
    }
}

#[test]
fn steady_pushes_do_not_put_the_poll_off_for_ever() {
    let mut world = World::bound(&[(MAIN, 'a')]);
    for commit in ['b', 'c', 'd'] {
        assert_eq!(world.push(MAIN, Some(commit)).look(), Vec::<String>::new());
        world.later(GRACE_MS / 3);
    }
    assert_eq!(world.later(GRACE_MS).push(MAIN, Some('e')).look(), ["refs/heads/main a→e @0"]);
}

#[test]
fn new_and_deleted_refs_are_told() {
    let mut world = World::bound(&[(MAIN, 'a'), ("refs/heads/old", 'c'), ("refs/tags/v1", 'd')]);
    world.push("refs/heads/new", Some('b')).push("refs/heads/old", None).push("refs/tags/v2", Some('d'));
    assert_eq!(world.looks(), ["refs/heads/new ·→b @0", "refs/heads/old c→· @0", "refs/tags/v2 ·→d @0"]);
    assert_eq!(world.looks(), Vec::<String>::new());
    world.recorded("refs/heads/old").push("refs/heads/old", Some('c'));
    assert_eq!(world.looks(), ["refs/heads/old ·→c @1"]);
}

#[test]
fn what_was_recorded_before_the_first_look_counts() {
    let mut world = World::bound(&[]);
    world.position.state = None;
    world.push(MAIN, Some('a')).recorded(MAIN).push(MAIN, Some('b')).push("refs/heads/old", Some('c'));
    assert_eq!(world.looks(), ["refs/heads/main a→b @1"]);
}

#[test]
fn a_name_that_stands_for_bytes_is_not_missing() {
    let mut world = World::bound(&[]);
    world.push("refs/heads/caf%E9", Some('a')).recorded("refs/heads/caf%E9").push("refs/heads/caf%E9", None);
    world.push("refs/heads/a%2Fb", Some('a')).recorded("refs/heads/a%2Fb").push("refs/heads/a%2Fb", None);
    assert_eq!(world.looks(), ["refs/heads/a%2Fb a→· @1"]);
}

#[test]
fn many_moves_are_told_in_parts() {
    let mut world = World::bound(&[]);
    for n in 0..=MAX_MOVES {
        world.push(&format!("refs/heads/b{n:04}"), Some('a'));
    }
    assert_eq!(world.looks().len(), MAX_MOVES);
    assert_eq!(world.look().len(), 1);
}

#[test]
fn events_are_those_of_the_hook() {
    let position = PollPosition { version: 3, state: None, recorded: BTreeMap::new() };
    let moved = Move { name: MAIN.into(), before: Some(id('a')), after: Some(id('b')), known: 7 };
    let next = Some(PollState { started: Millis(5), refs: BTreeMap::new() });
    let events = translate(&bound(), &position, &Look { moves: vec![moved], next, again: None }, Millis(0));
    let [(event, 7)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(event.ty, payload::GIT_BRANCH_UPDATED);
    assert_eq!((event.source.as_str(), event.subject.as_deref()), (bound().url.as_str(), Some(MAIN)));
    assert_eq!(event.id, "poll-5-3-0#0");
    assert_eq!((&event.data["before"], &event.data["after"]), (&id('a').into(), &id('b').into()));
}

#[test]
fn an_origin_that_is_away_is_asked_less_and_less_often() {
    let minute = Duration::from_secs(60);
    assert_eq!(backoff(minute, 1, false), minute);
    assert_eq!(backoff(minute, 3, false), minute * 4);
    assert_eq!(backoff(minute, 40, false), BACKOFF_MAX);
    assert_eq!(backoff(BACKOFF_MAX * 2, 1, false), BACKOFF_MAX * 2);
    assert_eq!(backoff(minute, 1, true), FINAL_EVERY);
}
