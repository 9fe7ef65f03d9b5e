//! How much of the damage to each part of a model is left when the whole of it is compressed.

use super::knapsack::total;
use super::{DamageCurves, Unit};
use std::collections::BTreeSet;

/// No part counts for less than this share of what parts count for on average: a trial is a measurement, and what came
/// out near nothing is not free.
const FLOOR: f64 = 0.1;

/// Whole models whose divergences tell what is left: the reference candidate everywhere, and then, for each part of a
/// block, the next cheaper candidate for this part of every block.
#[derive(Debug)]
pub(super) struct Trials {
    /// Units that play the same part in their blocks.
    parts: Vec<Vec<usize>>,
    /// A candidate for each unit.
    pub(super) choices: Vec<Vec<usize>>,
}

impl Trials {
    /// None if no candidate is cheaper than the reference.
    pub(super) fn new(curves: &DamageCurves) -> Option<Self> {
        let step = step(curves)?;
        let parts = parts(&curves.units);
        let reference = vec![curves.reference; curves.units.len()];
        let of_part = |part: &Vec<usize>| {
            let mut choice = reference.clone();
            for &unit in part {
                choice[unit] = step;
            }
            choice
        };
        let choices = [reference.clone()].into_iter().chain(parts.iter().map(of_part)).collect();
        Some(Self { parts, choices })
    }

    /// Sets what is left of the units' damages, given the divergence of each trial.
    pub(super) fn apply(&self, curves: &mut DamageCurves, divergences: &[f64]) {
        let [reference, of_parts @ ..] = divergences else { return };
        let items = curves.items();
        let [before, with_steps @ ..] = &self.choices[..] else { return };
        let estimated: Vec<f64> =
            with_steps.iter().map(|choice| total(&items, choice) - total(&items, before)).collect();
        let measured = of_parts.iter().map(|divergence| divergence - reference);
        let shares: Vec<f64> = measured.zip(&estimated).map(|(measured, estimated)| measured / estimated).collect();
        let known = || shares.iter().copied().filter(|share| share.is_finite());
        let mean = known().map(|share| share.max(0.0)).sum::<f64>() / known().count() as f64;
        if !(mean.is_finite() && mean > 0.0) {
            return; // the trials tell nothing
        }
        for (part, share) in self.parts.iter().zip(shares) {
            let remaining = if share.is_finite() { share.max(FLOOR * mean) } else { mean };
            for &unit in part {
                curves.units[unit].remaining = remaining;
            }
        }
    }
}

/// The candidate below the reference that does least more damage for what it saves: the step an allocation would take.
fn step(curves: &DamageCurves) -> Option<usize> {
    let (items, costs) = (curves.items(), curves.costs());
    let damage = |candidate: usize| total(&items, &vec![candidate; items.len()]);
    let (from, cost) = (damage(curves.reference), costs[curves.reference]);
    let slope = |candidate: usize| (damage(candidate) - from) / (cost - costs[candidate]);
    let cheaper = (0..costs.len()).filter(|&candidate| costs[candidate] < cost && damage(candidate) > from);
    cheaper.min_by(|&x, &y| slope(x).total_cmp(&slope(y)))
}

/// Units that play the same part in their blocks have layers of the same names behind the block's number.
fn parts(units: &[Unit]) -> Vec<Vec<usize>> {
    let mut parts: Vec<(BTreeSet<&str>, Vec<usize>)> = Vec::new();
    for (index, unit) in units.iter().enumerate() {
        let number = format!(".{}.", unit.block);
        let within = |name: &'_ str| name.find(&number).map_or(0, |at| at + number.len());
        let names: BTreeSet<&str> = unit.layers.iter().map(|(name, _)| &name[within(name)..]).collect();
        match parts.iter_mut().find(|(known, _)| *known == names) {
            Some((_, part)) => part.push(index),
            None => parts.push((names, vec![index])),
        }
    }
    parts.into_iter().map(|(_, part)| part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparq_core::{Bits, Sparsity};
    use sparq_pipeline::LayerBudget;

    /// Two blocks of two parts, at 4 bits with 0, 25, 50 and 75 % sparsity.
    fn curves() -> DamageCurves {
        let budget = |s| LayerBudget { sparsity: Sparsity::Unstructured(s), bits: Some(Bits::B4) };
        let unit = |block: usize, name: &str, divergence| Unit {
            block,
            layers: vec![(format!("model.layers.{block}.{name}"), 100)],
            errors: vec![0.01, 0.02, 0.04, 0.2],
            divergence,
            remaining: 1.0,
        };
        DamageCurves {
            candidates: [0.0, 0.25, 0.5, 0.75].map(budget).to_vec(),
            reference: 1,
            units: vec![unit(0, "attn.q", 0.1), unit(0, "mlp.up", 0.2), unit(1, "attn.q", 0.3), unit(1, "mlp.up", 0.2)],
        }
    }

    #[test]
    fn one_trial_for_the_reference_and_one_for_each_part() {
        let trials = Trials::new(&curves()).expect("cheaper ones exist");
        assert_eq!(trials.choices, [[1, 1, 1, 1], [2, 1, 2, 1], [1, 2, 1, 2]]);
        let mut cheapest = curves();
        cheapest.reference = 3;
        assert!(Trials::new(&cheapest).is_none());
    }

    #[test]
    fn parts_are_told_apart_by_all_of_the_name_behind_the_block() {
        let mut units = curves().units;
        for (unit, part) in units.iter_mut().zip(["attn", "mlp", "attn", "mlp"]) {
            unit.layers[0].0 = format!("transformer.h.{}.{part}.c_proj", unit.block);
        }
        assert_eq!(parts(&units), [[0, 2], [1, 3]]);
    }

    #[test]
    fn damages_add_up_to_what_was_measured() {
        let mut curves = curves();
        let trials = Trials::new(&curves).expect("possible");
        // A quarter of the estimate is left of the first part's damage, three quarters of the second's.
        trials.apply(&mut curves, &[0.5, 0.6, 0.8]);
        let remaining: Vec<f64> = curves.units.iter().map(|unit| unit.remaining).collect();
        for (found, expected) in remaining.iter().zip([0.25, 0.75, 0.25, 0.75]) {
            assert!((found - expected).abs() < 1e-12, "{remaining:?}");
        }
        let damage = |c: usize| curves.items().iter().step_by(2).map(|item| item.damages[c]).sum::<f64>();
        assert!((damage(2) - damage(1) - 0.1).abs() < 1e-12);
    }

    #[test]
    fn noise_makes_no_part_free_and_trials_that_tell_nothing_change_nothing() {
        let mut noisy = curves();
        let trials = Trials::new(&noisy).expect("possible");
        trials.apply(&mut noisy, &[0.5, 0.4, 0.9]);
        assert!((noisy.units[0].remaining - 0.05).abs() < 1e-12, "a tenth of the mean of 0 and 1");
        let mut nothing = curves();
        trials.apply(&mut nothing, &[0.5, 0.4, 0.3]);
        assert_eq!(nothing, curves());
    }
}
