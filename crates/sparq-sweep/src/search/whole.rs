//! Models compressed by the whole recipe, judged on the probe text.

use super::base::Base;
use crate::store::{Store, fingerprint};
use crate::sweep::{blame_judging, compressed};
use crate::{Observer, Result};
use sparq_pipeline::{Allocation, Calibration, Recipe};

/// Compresses one model on one text with one allocation after another.
#[derive(Clone, Copy)]
pub(super) struct Whole<'a> {
    pub(super) base: &'a Base<'a>,
    pub(super) recipe: &'a Recipe,
    pub(super) calibration: &'a Calibration,
    pub(super) store: &'a Store,
    /// What everything but the calibration text and the allocation is called in the store.
    pub(super) key: &'a str,
    pub(super) observer: &'a dyn Observer,
}

impl Whole<'_> {
    /// KL(base ‖ model) on the probe text with this allocation, nats a token. What is stored is not compressed again;
    /// what is compressed is `step`, an index and a number of all, to the observer.
    pub(super) fn divergence(&self, allocation: &Allocation, step: (usize, usize), what: &str) -> Result<f64> {
        let allocated = serde_json::to_string(allocation)?;
        let key = fingerprint(&[self.key, "whole model", &self.calibration.fingerprint(), &allocated]);
        if let Some(known) = self.store.get(&key) {
            return Ok(known);
        }
        self.observer.step(step.0, step.1, what);
        let recipe = Recipe { allocation: Some(allocation.clone()), ..self.recipe.clone() };
        let model = compressed(self.base.model, &recipe, self.calibration, self.observer)?.0;
        let divergence = self.base.divergence(&model).map_err(blame_judging(&recipe))?;
        self.store.put(&key, &divergence)?;
        Ok(divergence)
    }
}
