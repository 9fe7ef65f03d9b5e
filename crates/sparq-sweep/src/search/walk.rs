//! The walk through the blocks that measures every candidate.

use super::base::Base;
use super::between::{every_unit, is_sampled};
use super::sensitivity::Probe;
use super::solved_layers::SolvedLayers;
use super::{DamageCurves, Remaining, Search, Unit, bits};
use crate::store::{Store, fingerprint};
use crate::sweep::compression_error;
use crate::{Error, Result};
use sparq_core::Observer;
use sparq_model::{BlockPlan, Linear, LinearId};
use sparq_pipeline::{Calibration, LayerBudget, LayerReport, Survey};
use std::collections::BTreeMap;

impl Search {
    /// The curves, with all damage remaining. Blocks that are stored are not solved again.
    pub(super) fn measure(
        &self,
        base: &Base<'_>,
        calibration: &Calibration,
        store: &Store,
        key: &str,
        observer: &dyn Observer,
    ) -> Result<DamageCurves> {
        let Some(reference) = median(&self.candidates) else { return Err(Error::NoConfigurations) };
        if let Some(curves) = store.get(key) {
            return Ok(curves);
        }
        observer.step(1, 1, &"every candidate, block by block");
        // Each layer is solved once without refit and descent: candidates rank the same, in less than half the time.
        let (plain, budgets) = (self.recipe.sketch(), self.budgets());
        let mut survey = Survey::new(base.model, &plain, &budgets, calibration).map_err(compression_error(&plain))?;
        let mut probe = Probe::new(base)?;
        let mut units: Vec<Unit> = Vec::new();
        for index in 0..base.model.block_count() {
            let key = fingerprint(&[key, "block", &index.to_string()]);
            if self.sampled && !is_sampled(index, base.model.block_count()) {
                survey.skip().map_err(compression_error(&plain))?;
            } else if let Some(stored) = store.get::<Vec<Unit>>(&key) {
                survey.skip().map_err(compression_error(&plain))?;
                units.extend(stored);
            } else {
                let mut layers = SolvedLayers::default();
                let mut errors: BTreeMap<String, Vec<f64>> = BTreeMap::new();
                let take = |budget: usize, linear: &Linear, layer, report: LayerReport| {
                    // A budget that leaves layers as they are makes no error.
                    let errors = errors.entry(report.name).or_insert_with(|| vec![0.0; budgets.len()]);
                    errors[budget] = report.relative_output_error;
                    if budget == reference {
                        layers.insert(linear, layer);
                    }
                };
                survey.solve(observer, take).map_err(compression_error(&plain))?;
                let measured = self.units(&probe, index, &layers, &budgets, &errors)?;
                store.put(&key, &measured)?;
                units.extend(measured);
            }
            probe.advance()?;
            observer.progress(index + 1, base.model.block_count(), &"blocks");
        }
        let curves = DamageCurves { candidates: self.candidates.clone(), reference, units };
        let curves = if self.sampled { every_unit(base.model, curves)? } else { curves };
        store.put(key, &curves)?;
        Ok(curves)
    }

    /// The budgets that layers are solved under: the candidates, then their sparsities without any rounding.
    fn budgets(&self) -> Vec<LayerBudget> {
        let mut budgets = self.candidates.clone();
        for candidate in &self.candidates {
            let pruned = LayerBudget { bits: None, rate: None, ..*candidate };
            if !pruned.sparsity.is_dense() && !budgets.contains(&pruned) {
                budgets.push(pruned);
            }
        }
        budgets
    }

    /// The units of a block, given its layers under the reference candidate and each layer's error under each budget.
    fn units(
        &self,
        probe: &Probe<'_>,
        block: usize,
        reference: &SolvedLayers,
        budgets: &[LayerBudget],
        errors: &BTreeMap<String, Vec<f64>>,
    ) -> Result<Vec<Unit>> {
        let plan = probe.model().block_plan(block)?;
        let mut units = Vec::new();
        let groups = together(plan);
        let groups = if self.apart { groups.into_iter().flatten().map(|id| vec![id]).collect() } else { groups };
        for ids in groups {
            let name = |id: &LinearId| &plan.linears()[*id].name;
            let ids: Vec<LinearId> = ids.into_iter().filter(|id| errors.contains_key(name(id))).collect();
            if ids.is_empty() {
                continue;
            }
            let mut sums = vec![0.0; budgets.len()];
            for id in &ids {
                let curve = errors.get(name(id)).into_iter().flatten();
                sums.iter_mut().zip(curve).for_each(|(sum, error)| *sum += error);
            }
            let of = |budget: LayerBudget| budgets.iter().position(|known| *known == budget).map_or(0.0, |at| sums[at]);
            let layers = ids.iter().map(|id| (name(id).clone(), plan.linears()[*id].weights()));
            units.push(Unit {
                block,
                layers: layers.collect(),
                errors: self.candidates.iter().map(|&candidate| of(candidate)).collect(),
                pruning: self
                    .candidates
                    .iter()
                    .map(|&LayerBudget { sparsity, .. }| of(LayerBudget { sparsity, bits: None, rate: None }))
                    .collect(),
                divergence: probe.divergence(&ids, reference)?,
                remaining: Remaining::ALL,
            });
        }
        Ok(units)
    }
}

/// The linears of a block that get the same sparsity and bits: those of a stage, and, of a mixture of experts, those that
/// play the same part in every expert. Engines run each of these as one.
fn together(plan: &BlockPlan) -> Vec<Vec<LinearId>> {
    let mut units: Vec<(Option<Vec<&str>>, Vec<LinearId>)> = Vec::new();
    for stage in 0..plan.stages() {
        let ids = plan.stage_linears(stage);
        let part = |id: &LinearId| plan.linears()[*id].name.rsplit('.').next().unwrap_or_default();
        let parts = plan.is_routed(stage).then(|| ids.iter().map(part).collect::<Vec<_>>());
        match units.iter_mut().find(|(known, _)| parts.is_some() && *known == parts) {
            Some((_, unit)) => unit.extend(ids),
            None => units.push((parts, ids.to_vec())),
        }
    }
    units.into_iter().map(|(_, ids)| ids).collect()
}

/// The candidate of middle cost, of two that cost the same the one with more bits: its damage is large enough to be
/// measured and small enough to be typical, and it can be pruned more and less.
fn median(candidates: &[LayerBudget]) -> Option<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    let bits = |index: usize| bits(&candidates[index]);
    order.sort_by(|&x, &y| candidates[x].cost().total_cmp(&candidates[y].cost()).then(bits(y).cmp(&bits(x))));
    order.get(order.len() / 2).copied()
}
