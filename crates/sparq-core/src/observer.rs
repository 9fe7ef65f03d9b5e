use std::fmt::Display;

/// Receives the progress of long work: a compression, an evaluation, a sweep. Every method does nothing unless overridden;
/// `()` ignores everything.
///
/// # Examples
/// ```
/// use sparq_core::Observer;
/// use std::fmt::Display;
/// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
/// struct Percent(AtomicUsize);
/// impl Observer for Percent {
///     fn progress(&self, done: usize, total: usize, _: &dyn Display) {
///         self.0.store(100 * done / total.max(1), Relaxed);
///     }
/// }
/// let percent = Percent(AtomicUsize::new(0));
/// percent.progress(1, 4, &"layers");
/// assert_eq!(percent.0.load(Relaxed), 25);
/// ```
pub trait Observer: Sync {
    /// A step of the work begins, `index` of `total` (from 1): for example one configuration of a sweep.
    fn step(&self, index: usize, total: usize, what: &dyn Display) {
        let _ = (index, total, what);
    }

    /// `done` of `total` units of the current step are finished (layers, tokens of a text, items of a task). `what` says
    /// which unit came last or what the units are.
    fn progress(&self, done: usize, total: usize, what: &dyn Display) {
        let _ = (done, total, what);
    }

    /// Something a person may want to read: a plan, a fallback, a result.
    fn note(&self, what: &dyn Display) {
        let _ = what;
    }

    /// Whether to stop: asked before each layer and after each block. What was committed stays.
    fn stop(&self) -> bool {
        false
    }
}

impl Observer for () {}
