/// Receives the progress of an evaluation.
///
/// `()` is the observer that ignores everything.
///
/// # Examples
/// ```
/// use sparq_eval::Observer;
/// struct Percent(std::sync::atomic::AtomicUsize);
/// impl Observer for Percent {
///     fn progress(&self, done: usize, total: usize, _what: &str) {
///         self.0.store(100 * done / total.max(1), std::sync::atomic::Ordering::Relaxed);
///     }
/// }
/// ```
pub trait Observer: Sync {
    /// `done` of `total` units (tokens of a text, items of a task) of `what` are finished.
    fn progress(&self, done: usize, total: usize, what: &str);
}

impl Observer for () {
    fn progress(&self, _: usize, _: usize, _: &str) {}
}
