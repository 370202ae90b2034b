//! Ten bugs that can be switched on, one at a time, to prove that the tests notice them.
//!
//! Without the feature `planted-bugs`, `planted` is a constant `false` and nothing of this is in the binary. Each call of
//! it marks the place of one bug; what each does is told where the tests plant them.

#[cfg(feature = "planted-bugs")]
thread_local! {
    // Per thread, so that tests which plant and tests which do not can run side by side.
    static PLANTED: std::cell::Cell<Option<u8>> = const { std::cell::Cell::new(None) };
}

/// How many bugs can be planted, numbered from 1.
pub const PLANTED_BUGS: u8 = 10;

/// Runs `body` on this thread with bug `number` planted.
#[cfg(feature = "planted-bugs")]
pub fn with_planted<T>(number: u8, body: impl FnOnce() -> T) -> T {
    // Uprooted also when `body` panics, which is what a test that notices the bug does.
    struct Uproot;
    impl Drop for Uproot {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
    PLANTED.set(Some(number));
    let _uproot = Uproot;
    body()
}

/// Whether this bug is planted.
#[cfg(feature = "planted-bugs")]
pub(crate) fn planted(number: u8) -> bool {
    PLANTED.get() == Some(number)
}

/// Whether this bug is planted: never in a real build.
#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn planted(_number: u8) -> bool {
    false
}
