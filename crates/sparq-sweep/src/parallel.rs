//! Jobs that run side by side.

use crate::Result;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Does `work` for each index below `count`, up to `jobs` at a time, and returns the results in order. After the first
/// error no further index is begun.
///
/// Each job has a thread of its own. A thread of the shared pool would start another job while it waits for parts of its
/// first one.
pub(crate) fn run_jobs<T: Send>(count: usize, jobs: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let run = || {
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
        let others: Vec<_> = (1..jobs.min(count)).map(|_| scope.spawn(run)).collect();
        let mut done = run();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
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
    fn results_come_back_in_order_and_an_error_ends_the_run() {
        for jobs in [0, 1, 3, 20] {
            assert_eq!(run_jobs(7, jobs, |index| Ok(index * index)).expect("no error"), [0, 1, 4, 9, 16, 25, 36]);
            assert!(run_jobs(0, jobs, Ok::<usize, Error>).expect("nothing to do").is_empty());
            let begun = AtomicUsize::new(0);
            let broken = run_jobs(1000, jobs, |index| {
                begun.fetch_add(1, Ordering::Relaxed);
                if index == 2 { Err(Error::NoConfigurations) } else { Ok(index) }
            });
            assert!(matches!(broken, Err(Error::NoConfigurations)));
            assert!(jobs > 1 || begun.load(Ordering::Relaxed) == 3);
        }
    }
}
