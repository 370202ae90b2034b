//! Waiting for a condition, with a deadline: the only place of the tests that lets time pass.

use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(15);

/// How long the tests wait for anything that should happen soon. Generous, because machines of CI are busy; a test that
/// passes never waits it out.
pub const SOON: Duration = Duration::from_secs(60);

/// Looks until there is something, and panics with `what` at the deadline.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    within(SOON, what, &mut look)
}

/// The same with a deadline of its own.
pub fn within<T>(limit: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    look_for(limit, look).unwrap_or_else(|| panic!("within {limit:?} it was not the case that {what}"))
}

/// The same for a condition that may rightly not come about: none at the deadline.
pub fn look_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}
