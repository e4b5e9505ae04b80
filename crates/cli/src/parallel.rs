//! Independent episodes on all cores.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, anyhow};

use crate::interrupt;

/// Number of threads when the user does not choose.
pub fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Calls `work` for the indices `0..count` on `jobs` threads and returns the answers in order.
///
/// Each thread makes a worker of its own with `make` (an environment, a session). Threads take the next
/// index as they become free, so that long episodes do not hold up short ones.
///
/// # Errors
/// The first error of any thread, after the others finished their present index; [`interrupt::Interrupted`]
/// on Ctrl-C.
pub fn map<W, T: Send>(
    jobs: NonZeroUsize,
    count: usize,
    make: impl Fn() -> Result<W> + Sync,
    work: impl Fn(&mut W, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let answers: Mutex<Vec<Option<T>>> = Mutex::new((0..count).map(|_| None).collect());
    let run = || -> Result<()> {
        let mut worker = make()?;
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(());
            }
            interrupt::check()?;
            let answer = work(&mut worker, index)?;
            answers.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[index] = Some(answer);
        }
    };
    let stop_others = || next.store(count, Ordering::Relaxed);
    thread::scope(|scope| {
        let threads: Vec<_> =
            (0..jobs.get().min(count.max(1))).map(|_| scope.spawn(|| run().inspect_err(|_| stop_others()))).collect();
        let ends: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        ends.into_iter().try_for_each(|end| end.unwrap_or_else(|_| Err(anyhow!("a worker thread panicked; see above"))))
    })?;
    let answers = answers.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    answers.into_iter().collect::<Option<_>>().ok_or_else(|| anyhow!("some episodes were not played"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).unwrap()
    }

    #[test]
    fn answers_come_in_order_for_any_number_of_threads() {
        let squares: Vec<usize> = (0..100).map(|i| i * i).collect();
        for n in [1, 2, 7, 200] {
            assert_eq!(map(jobs(n), 100, || Ok(()), |(), i| Ok(i * i)).unwrap(), squares);
        }
        assert!(map(jobs(2), 0, || Ok(()), |(), i| Ok(i)).unwrap().is_empty());
    }

    #[test]
    fn the_first_error_stops_all_threads() {
        let calls = AtomicUsize::new(0);
        let work = |(): &mut (), i| {
            calls.fetch_add(1, Ordering::Relaxed);
            thread::sleep(std::time::Duration::from_millis(1));
            if i == 3 { Err(anyhow!("three")) } else { Ok(()) }
        };
        let error = map(jobs(2), 10_000, || Ok(()), work).unwrap_err();
        assert_eq!(error.to_string(), "three");
        assert!(calls.into_inner() < 10_000);
    }
}
