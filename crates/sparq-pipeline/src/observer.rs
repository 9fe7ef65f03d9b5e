use crate::{LayerReport, Plan};

/// Is told how a compression goes. Every method does nothing unless overridden; `()` watches nothing.
pub trait Observer {
    /// Before any work: what will be done and how much memory it takes.
    fn planned(&self, plan: &Plan) {
        let _ = plan;
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
