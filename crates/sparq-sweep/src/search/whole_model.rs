//! Models that are compressed by the whole recipe and judged on the probe text.

use super::base::Base;
use crate::Result;
use crate::store::{Store, fingerprint};
use crate::sweep::{compressed, judging_error};
use sparq_core::Observer;
use sparq_export::{ExportFormat, ExportSettings};
use sparq_pipeline::{Allocation, Calibration, Recipe, vocabulary_in};

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
    /// KL(base ‖ model) on the probe text with this allocation, nats a token, and with embedding and output matrix as they are
    /// `written`, if that is said. A stored result is not measured again. `step`, an index and a total, goes to the observer.
    pub(super) fn divergence(
        &self,
        allocation: &Allocation,
        written: Option<Written<'_>>,
        step: (usize, usize),
        what: &str,
    ) -> Result<f64> {
        let allocated = serde_json::to_string(allocation)?;
        let written_as = written.map_or_else(String::new, |written| format!("{written:?}"));
        let key = fingerprint(&[self.key, "whole model", &self.calibration.fingerprint(), &allocated, &written_as]);
        if let Some(known) = self.store.get(&key) {
            return Ok(known);
        }
        self.observer.step(step.0, step.1, &what);
        let mut recipe = self.recipe.clone().with_allocation(allocation.clone());
        recipe.tune = 0; // takes far more time than a trial is worth
        let mut model = compressed(self.base.model, &recipe, self.calibration, self.observer)?.0;
        if let Some(Written { format, settings }) = written {
            model = model.with_vocabulary(vocabulary_in(self.base.model, &recipe, format, settings)?)?;
        }
        let divergence = self.base.divergence(&model).map_err(judging_error(&recipe))?;
        self.store.put(&key, &divergence)?;
        Ok(divergence)
    }

    /// The same with nothing changed but embedding and output matrix.
    pub(super) fn of_vocabulary(&self, written: Written<'_>) -> Result<f64> {
        let key = fingerprint(&[self.key, "vocabulary", &format!("{written:?}")]);
        if let Some(known) = self.store.get(&key) {
            return Ok(known);
        }
        let matrices = vocabulary_in(self.base.model, self.recipe, written.format, written.settings)?;
        let divergence = self.base.divergence(&self.base.model.with_vocabulary(matrices)?)?;
        self.store.put(&key, &divergence)?;
        Ok(divergence)
    }
}

/// How a model is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written<'a> {
    pub(super) format: &'a dyn ExportFormat,
    pub(super) settings: &'a ExportSettings,
}
