use crate::ConfigurationResult;

/// Receives the progress of a sweep. By default every method does nothing; `()` ignores everything.
pub trait Observer: sparq_pipeline::Observer + sparq_eval::Observer {
    /// A step begins: the base's evaluation, or configuration `index` of `total`, to be compressed or evaluated.
    fn step(&self, index: usize, total: usize, what: &str) {
        let _ = (index, total, what);
    }

    /// A configuration was measured now or in an earlier run.
    fn configuration(&self, result: &ConfigurationResult) {
        let _ = result;
    }
}

impl Observer for () {}
