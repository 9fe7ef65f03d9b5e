//! Work done side by side.

use crate::Result;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Does `work` for `0..count`, up to `jobs` at a time, each taking the next one; ends at the first error.
///
/// On threads of their own: tasks of a pool that waits for parts of itself would run one job on top of another.
pub(crate) fn in_turn<T: Send>(count: usize, jobs: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let take_turns = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return done;
            }
            let outcome = work(index);
            if outcome.is_err() {
                next.store(count, Ordering::Relaxed);
            }
            done.push((index, outcome));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..jobs.min(count)).map(|_| scope.spawn(take_turns)).collect();
        let mut done = take_turns();
        for other in others {
            match other.join() {
                Ok(of_other) => done.extend(of_other),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn turns_come_back_in_order_and_end_at_an_error() {
        for jobs in [0, 1, 3, 20] {
            assert_eq!(in_turn(7, jobs, |index| Ok(index * index)).expect("no error"), [0, 1, 4, 9, 16, 25, 36]);
            assert!(in_turn(0, jobs, Ok::<usize, Error>).expect("nothing to do").is_empty());
            let begun = AtomicUsize::new(0);
            let broken = in_turn(1000, jobs, |index| {
                begun.fetch_add(1, Ordering::Relaxed);
                if index == 2 { Err(Error::NoConfigurations) } else { Ok(index) }
            });
            assert!(matches!(broken, Err(Error::NoConfigurations)));
            assert!(jobs > 1 || begun.load(Ordering::Relaxed) == 3);
        }
    }
}
