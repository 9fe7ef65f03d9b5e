use crate::{LayerReport, Plan};

/// Is told how a compression goes. Every method does nothing unless overridden; `()` watches nothing.
pub trait Observer {
    /// Before any work: what will be done and how much memory it takes.
    fn planned(&self, plan: &Plan) {
        let _ = plan;
    }

    /// Once, if an earlier run is continued: the layers it had compressed, in `done` of `total` blocks.
    fn resumed(&self, layers: &[LayerReport], done: usize, total: usize) {
        let _ = (layers, done, total);
    }

    /// Whether to stop: asked before each layer and after each block. What was committed stays.
    fn stop(&self) -> bool {
        false
    }

    /// After each compressed layer.
    fn layer(&self, report: &LayerReport) {
        let _ = report;
    }

    /// After each block, `done` of `total`.
    fn block(&self, done: usize, total: usize) {
        let _ = (done, total);
    }
}

impl Observer for () {}
