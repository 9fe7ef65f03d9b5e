//! Models that are compressed by the whole recipe and judged on the probe text.

use super::base::Base;
use crate::Result;
use crate::store::{Store, fingerprint};
use crate::sweep::{compressed, judging_error};
use sparq_core::Observer;
use sparq_pipeline::{Allocation, Calibration, Recipe};

/// Compresses one model on one text, with one allocation after another.
#[derive(Clone, Copy)]
pub(super) struct WholeModel<'a> {
    pub(super) base: &'a Base<'a>,
    pub(super) recipe: &'a Recipe,
    pub(super) calibration: &'a Calibration,
    pub(super) store: &'a Store,
    /// Fingerprint of everything but the calibration text and the allocation.
    pub(super) key: &'a str,
    pub(super) observer: &'a dyn Observer,
}

impl WholeModel<'_> {
    /// KL(base ‖ model) on the probe text with this allocation, nats a token. A stored result is not measured again.
    /// `step`, an index and a total, goes to the observer.
    pub(super) fn divergence(&self, allocation: &Allocation, step: (usize, usize), what: &str) -> Result<f64> {
        let allocated = serde_json::to_string(allocation)?;
        let key = fingerprint(&[self.key, "whole model", &self.calibration.fingerprint(), &allocated]);
        if let Some(known) = self.store.get(&key) {
            return Ok(known);
        }
        self.observer.step(step.0, step.1, &what);
        let mut recipe = self.recipe.clone().with_allocation(allocation.clone());
        recipe.tune = 0; // takes far more time than a trial is worth
        let model = compressed(self.base.model, &recipe, self.calibration, self.observer)?.0;
        let divergence = self.base.divergence(&model).map_err(judging_error(&recipe))?;
        self.store.put(&key, &divergence)?;
        Ok(divergence)
    }
}
