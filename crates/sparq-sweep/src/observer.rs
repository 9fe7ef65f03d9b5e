use crate::ConfigurationResult;

/// Is told how a sweep goes. Every method does nothing unless overridden; `()` watches nothing.
pub trait Observer: sparq_pipeline::Observer + sparq_eval::Observer {
    /// A step begins: the base's evaluation, or configuration `index` of `total`, to be compressed or evaluated.
    fn step(&self, index: usize, total: usize, what: &str) {
        let _ = (index, total, what);
    }

    /// A configuration is measured (or was, in an earlier run).
    fn configuration(&self, result: &ConfigurationResult) {
        let _ = result;
    }
}

impl Observer for () {}
