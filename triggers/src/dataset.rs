//! When a watched folder or file is a new version of its dataset.
//!
//! Pure: listings and times come in, a decision comes out. Whoever writes the files gives no sign of being done, so a
//! listing counts once it was seen unchanged for long enough. Modification time, size and inode are compared, never
//! contents, and by polling: file system notifications miss what other machines write to a shared disk.
//!
//! This decides *when to look*, not what is new: the caller hashes a stable listing, and publishes a version if its
//! manifest differs. A folder that is missing or unreadable is for the caller to report; it must not be passed
//! off as an empty listing.

use kickwheel_schemas::{Digest, Millis};
use serde::{Deserialize, Serialize};

/// One file, as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seen {
    /// Relative to the watched folder, `/`-separated; the file's name for a watched file.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since the Unix epoch.
    pub mtime_ns: i64,
    /// The file system's number of the file: another file of the same size and time has another one.
    pub inode: u64,
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watched {
    /// All files below a folder, without those that [`is_ignored`] names.
    Folder,
    /// Exactly one file, whatever it is called.
    File,
}

/// What is remembered between listings. It holds digests, not listings, so it stays small for any number of files. Stored
/// and loaded as JSON; a state that is lost only makes the next stable listing count as new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchState {
    watched: Watched,
    settle_ms: u64,
    candidate: Option<Candidate>,
    published: Option<Digest>,
}

/// A listing that may become a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Candidate {
    listing: Digest,
    since: Millis,
}

/// What a listing means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchDecision {
    /// Nothing is new, or it still changes.
    Wait,
    /// It has settled and is not what was published last. Said again at each listing until
    /// [`WatchState::mark_published`] is called, so that a failure in between loses nothing.
    Stable {
        /// The files, sorted by path, without the ignored ones.
        listing: Vec<Seen>,
    },
}

impl WatchState {
    /// A watch that has seen nothing. A listing must be unchanged for `settle_ms` milliseconds.
    pub fn new(watched: Watched, settle_ms: u64) -> Self {
        Self { watched, settle_ms, candidate: None, published: None }
    }

    /// Notes that `listing`, as [`observe`] gave it, has been dealt with: published, or found to hold the same bytes.
    pub fn mark_published(&mut self, listing: &[Seen]) {
        self.published = Some(fingerprint(listing));
        self.candidate = None;
    }
}

/// Takes in what is there `now`.
pub fn observe(state: &mut WatchState, listing: Vec<Seen>, now: Millis) -> WatchDecision {
    let mut listing = listing;
    match state.watched {
        Watched::Folder => listing.retain(|file| !is_ignored(&file.path)),
        Watched::File => {}
    }
    listing.sort_unstable();
    let seen = fingerprint(&listing);
    // Before there is a first file there is no first version; later, an empty folder is news like any other.
    let nothing_yet = state.published.is_none() && listing.is_empty();
    if nothing_yet || state.published.as_ref() == Some(&seen) {
        state.candidate = None;
        return WatchDecision::Wait;
    }
    let since = match &state.candidate {
        // A clock that was set back must not make us wait for the old time to come again.
        Some(candidate) if candidate.listing == seen && candidate.since <= now => candidate.since,
        Some(_) | None => now,
    };
    state.candidate = Some(Candidate { listing: seen, since });
    if now.since(since) >= state.settle_ms { WatchDecision::Stable { listing } } else { WatchDecision::Wait }
}

/// What programs append to the names of files that they have not finished writing.
const UNFINISHED: [&str; 2] = [".tmp", ".part"];

/// Whether a path below a watched folder is none of the dataset's: a name in it is hidden (starts with `.`) or unfinished
/// (ends with `.tmp` or `.part`).
pub fn is_ignored(path: &str) -> bool {
    path.split('/').any(|name| name.starts_with('.') || UNFINISHED.iter().any(|end| name.ends_with(end)))
}

fn fingerprint(listing: &[Seen]) -> Digest {
    Digest::of(&serde_json::to_vec(listing).expect("a listing has string keys only"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE_MS: u64 = 1_000;

    fn file(path: &str, size: u64) -> Seen {
        Seen { path: path.into(), size, mtime_ns: 5, inode: 7 }
    }

    /// When, what is there, and the paths of the stable listing that is expected, if any.
    type Step<'a> = (i64, &'a [Seen], Option<&'a [&'a str]>);

    /// Feeds listings at times, and marks what is stable as published.
    fn check(state: &mut WatchState, steps: &[Step<'_>]) {
        for (at, listing, expected) in steps {
            let seen = match observe(state, listing.to_vec(), Millis(*at)) {
                WatchDecision::Wait => None,
                WatchDecision::Stable { listing } => Some(listing),
            };
            let paths = seen.as_ref().map(|files| files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>());
            assert_eq!(paths.as_deref(), *expected, "at {at}");
            if let Some(listing) = seen {
                state.mark_published(&listing);
            }
        }
    }

    fn folder() -> WatchState {
        WatchState::new(Watched::Folder, SETTLE_MS)
    }

    #[test]
    fn a_listing_counts_once_it_has_settled_and_only_once() {
        let (one, two) = ([file("a", 1)], [file("b", 1), file("a", 1)]);
        check(
            &mut folder(),
            &[
                (0, &[], None),
                (100, &one, None),
                (1_099, &one, None),
                (1_100, &one, Some(&["a"])),
                (5_000, &one, None),
                (6_000, &two, None),
                (7_000, &two, Some(&["a", "b"])),
                (9_000, &two, None),
            ],
        );
    }

    #[test]
    fn every_change_starts_the_wait_again() {
        let base = file("a", 1);
        let changes = [
            Seen { size: 2, ..base.clone() },
            Seen { mtime_ns: 6, ..base.clone() },
            Seen { inode: 8, ..base.clone() },
            Seen { path: "b".into(), ..base.clone() },
        ];
        for change in changes {
            check(
                &mut folder(),
                &[
                    (0, std::slice::from_ref(&base), None),
                    (900, std::slice::from_ref(&change), None),
                    (1_899, std::slice::from_ref(&change), None),
                    (1_900, std::slice::from_ref(&change), Some(&[change.path.as_str()])),
                ],
            );
        }
    }

    #[test]
    fn the_order_of_a_listing_means_nothing() {
        let (one, two) = ([file("a", 1), file("b", 1)], [file("b", 1), file("a", 1)]);
        check(&mut folder(), &[(0, &one, None), (1_000, &two, Some(&["a", "b"])), (3_000, &one, None)]);
    }

    #[test]
    fn what_comes_back_to_the_published_listing_is_not_new() {
        let (one, two) = ([file("a", 1)], [file("a", 2)]);
        check(
            &mut folder(),
            &[
                (0, &one, None),
                (1_000, &one, Some(&["a"])),
                (1_500, &two, None),
                (2_000, &one, None),
                (9_000, &one, None),
            ],
        );
    }

    #[test]
    fn unfinished_and_hidden_files_are_ignored() {
        let hidden = [".x", "d/.y", ".git/config", "a.tmp", "b.csv.part", "upload.part/c"].map(|path| file(path, 1));
        let mut all = hidden.to_vec();
        all.push(file("partly.csv", 1));
        check(
            &mut folder(),
            &[(0, &hidden, None), (9_000, &hidden, None), (10_000, &all, None), (11_000, &all, Some(&["partly.csv"]))],
        );
    }

    #[test]
    fn a_watched_file_may_have_any_name() {
        let mut state = WatchState::new(Watched::File, SETTLE_MS);
        let one = [file(".hidden.tmp", 1)];
        check(&mut state, &[(0, &one, None), (1_000, &one, Some(&[".hidden.tmp"]))]);
    }

    #[test]
    fn an_emptied_folder_is_news_but_a_new_one_is_not() {
        let one = [file("a", 1)];
        check(&mut folder(), &[(0, &[], None), (9_000, &[], None), (10_000, &one, None), (11_000, &one, Some(&["a"]))]);
        let mut state = folder();
        state.mark_published(&one);
        check(&mut state, &[(0, &[], None), (1_000, &[], Some(&[])), (9_000, &[], None)]);
    }

    #[test]
    fn a_clock_that_is_set_back_only_starts_the_wait_again() {
        let one = [file("a", 1)];
        check(&mut folder(), &[(50_000, &one, None), (10_000, &one, None), (11_000, &one, Some(&["a"]))]);
    }

    #[test]
    fn it_is_said_again_until_it_is_dealt_with_even_across_a_restart() {
        let mut state = folder();
        assert_eq!(observe(&mut state, vec![file("a", 1)], Millis(0)), WatchDecision::Wait);
        let stored = serde_json::to_string(&state).expect("plain data");
        let mut state: WatchState = serde_json::from_str(&stored).expect("what was just written");
        for at in [1_000, 1_001] {
            let decision = observe(&mut state, vec![file("a", 1)], Millis(at));
            assert_eq!(decision, WatchDecision::Stable { listing: vec![file("a", 1)] });
        }
    }

    #[test]
    fn without_a_settling_time_the_first_look_counts() {
        let mut state = WatchState::new(Watched::Folder, 0);
        check(&mut state, &[(0, &[file("a", 1)], Some(&["a"]))]);
    }
}
