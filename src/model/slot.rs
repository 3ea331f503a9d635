//! What a daemon does next with one job, given what is wanted of it and what it is doing: one step at a time, so that
//! a job never has two owners, whatever is asked for while it is under way.

use std::time::Duration;

/// How long to wait before a job that has ended by itself `deaths` times in a row is started again.
pub fn restart_wait(deaths: u32) -> Duration {
    match deaths {
        0 => Duration::ZERO,
        n => Duration::from_secs(1).saturating_mul(1 << (n - 1).min(6)).min(Duration::from_secs(60)),
    }
}

/// What is wanted of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// It runs. `same`: with the very definition that it is being started or running with.
    Run {
        /// No other definition has come since.
        same: bool,
    },
    /// It is there, but does not run.
    Pause,
    /// It is not there.
    Gone,
}

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Nothing: it has not begun, or has ended.
    Nothing,
    /// It is being started; that can be given up at any moment.
    Starting,
    /// It runs.
    Running,
    /// It makes durable what it has read, and ends then.
    Ending,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is as wanted, or something that is under way must end first.
    Wait,
    /// Start it.
    Start,
    /// Give up starting it; ask again at once.
    GiveUp,
    /// Have it drained and ended; ask again when it has.
    End,
    /// Show it as paused.
    Rest,
    /// Forget it.
    Forget,
}

/// The next step.
///
/// | doing    | run, same | run, other | pause   | gone    |
/// |----------|-----------|------------|---------|---------|
/// | nothing  | start     | start      | rest    | forget  |
/// | starting | wait      | give up    | give up | give up |
/// | running  | wait      | end        | end     | end     |
/// | ending   | wait      | wait       | wait    | wait    |
pub fn next(doing: Doing, wanted: Wanted) -> Step {
    match (doing, wanted) {
        (Doing::Ending, _) | (Doing::Starting | Doing::Running, Wanted::Run { same: true }) => Step::Wait,
        (Doing::Starting, _) => Step::GiveUp,
        (Doing::Running, _) => Step::End,
        (Doing::Nothing, Wanted::Run { .. }) => Step::Start,
        (Doing::Nothing, Wanted::Pause) => Step::Rest,
        (Doing::Nothing, Wanted::Gone) => Step::Forget,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted() -> impl Strategy<Value = Wanted> {
        prop_oneof![any::<bool>().prop_map(|same| Wanted::Run { same }), Just(Wanted::Pause), Just(Wanted::Gone)]
    }

    fn doing() -> impl Strategy<Value = Doing> {
        prop_oneof![Just(Doing::Nothing), Just(Doing::Starting), Just(Doing::Running), Just(Doing::Ending)]
    }

    #[test]
    fn the_wait_grows_and_ends() {
        assert_eq!(restart_wait(0), Duration::ZERO);
        assert_eq!(restart_wait(1), Duration::from_secs(1));
        assert!((0..100).all(|n| restart_wait(n) <= restart_wait(n + 1)));
        assert_eq!(restart_wait(u32::MAX), Duration::from_secs(60));
    }

    proptest! {
        /// Nobody starts a job that is still doing something: there is never a second owner.
        #[test]
        fn only_what_does_nothing_is_started(doing in doing(), wanted in wanted()) {
            prop_assert_eq!(next(doing, wanted) == Step::Start, doing == Doing::Nothing && matches!(wanted, Wanted::Run { .. }));
        }

        /// From wherever it is, what is wanted is reached, and then nothing more happens.
        #[test]
        fn what_is_wanted_is_reached(begin in doing(), wanted in wanted()) {
            let (mut doing, mut wanted) = (begin, wanted);
            for _ in 0..8 {
                doing = match next(doing, wanted) {
                    Step::Wait if doing == Doing::Ending => Doing::Nothing, // it has ended
                    Step::Wait => doing,
                    Step::Start => {
                        wanted = Wanted::Run { same: true };
                        Doing::Running
                    }
                    Step::GiveUp => Doing::Nothing,
                    Step::End => Doing::Ending,
                    Step::Rest | Step::Forget => Doing::Nothing,
                };
            }
            match wanted {
                Wanted::Run { .. } => prop_assert!(matches!(doing, Doing::Running | Doing::Starting)),
                Wanted::Pause | Wanted::Gone => prop_assert_eq!(doing, Doing::Nothing),
            }
        }
    }
}
