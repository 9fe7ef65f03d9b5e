//! Measures how much of the damage to each part of a model is left when the whole model is compressed.

use super::curves::Damage;
use super::target::Prices;
use super::whole_model::WholeModel;
use super::{DamageCurves, Remaining, Unit};
use crate::Result;
use crate::names::name_in_block;
use crate::parallel::run_jobs;
use sparq_pipeline::LayerBudget;
use std::collections::BTreeSet;

/// Least share of a part, relative to the share of all parts together. Trials are noisy, and a part measured near 0 is
/// not free to compress.
const FLOOR: f64 = 0.1;

/// Relative noise of a model's divergence: how much it changes with the last bits of the computation (docs/results.md).
const NOISE: f64 = 0.03;

/// Compresses whole models to measure how much of each part's damage is left in them.
pub(super) fn measure_trials(
    whole: &WholeModel<'_>,
    curves: &mut DamageCurves,
    prices: &Prices,
    anchor: usize,
    jobs: usize,
) -> Result<()> {
    let Some(trials) = Trials::new(curves, anchor) else { return Ok(()) };
    let all = trials.choices.len();
    let divergences = run_jobs(all, jobs, |index| {
        let allocation = curves.allocation(&curves.as_held(prices, trials.choices[index].clone()));
        whole.divergence(&allocation, None, (index + 1, all), "trial of the whole recipe")
    })?;
    trials.apply(curves, &divergences);
    Ok(())
}

/// Choices of candidates for whole models. The first uses one candidate, the anchor, everywhere. Two more for each part
/// of a block change this part in every block: one to another sparsity, one to other bits.
#[derive(Debug)]
pub(super) struct Trials {
    anchor: usize,
    /// Units that play the same part in their blocks.
    parts: Vec<Vec<usize>>,
    /// The candidate of another sparsity and the one of other bits, where there are such.
    pruned: Option<usize>,
    rounded: Option<usize>,
    /// A candidate for each unit: the anchor everywhere; then for each part the two, those that there are.
    pub(super) choices: Vec<Vec<usize>>,
}

impl Trials {
    /// Trials around the candidate `anchor`. None if no other candidate differs from it by its sparsity or its bits
    /// alone.
    pub(super) fn new(curves: &DamageCurves, anchor: usize) -> Option<Self> {
        let pruned = step(curves, anchor, |from, to| from.bits == to.bits && from.sparsity != to.sparsity);
        let rounded = step(curves, anchor, |from, to| from.sparsity == to.sparsity && from.bits != to.bits);
        if pruned.is_none() && rounded.is_none() {
            return None;
        }
        let parts = parts(&curves.units);
        let everywhere = vec![anchor; curves.units.len()];
        let mut choices = vec![everywhere.clone()];
        for part in &parts {
            for candidate in pruned.into_iter().chain(rounded) {
                let mut choice = everywhere.clone();
                for &unit in part {
                    choice[unit] = candidate;
                }
                choices.push(choice);
            }
        }
        Some(Self { anchor, parts, pruned, rounded, choices })
    }

    /// Sets how much of each unit's damage is left, given the divergence of each trial. Changes nothing if the trials
    /// show no damage.
    pub(super) fn apply(&self, curves: &mut DamageCurves, divergences: &[f64]) {
        let Some((&of_anchor, tried)) = divergences.split_first() else { return };
        let mut more = tried.iter().map(|divergence| divergence - of_anchor);
        let (mut pruned, mut rounded) = (Vec::new(), Vec::new());
        for part in &self.parts {
            let mut step = |candidate| Some((added(curves, part, self.anchor, candidate), more.next()?));
            pruned.extend(self.pruned.and_then(&mut step));
            rounded.extend(self.rounded.and_then(&mut step));
        }
        let Some(remaining) = remaining(&pruned, &rounded, NOISE * of_anchor) else { return };
        for (part, remaining) in self.parts.iter().zip(remaining) {
            for &unit in part {
                curves.units[unit].remaining = remaining;
            }
        }
    }
}

/// The shares of each part's damage that are left, given its estimated and measured steps to another sparsity and to
/// other bits. None if the measured steps show no damage.
fn remaining(pruned: &[(Damage, f64)], rounded: &[(Damage, f64)], noise: f64) -> Option<Vec<Remaining>> {
    if pruned.is_empty() || rounded.is_empty() {
        // With one kind of step, both shares are taken to be equal.
        let steps = pruned.iter().chain(rounded).map(|(step, more)| (step.pruning + step.rounding, *more));
        let both = shares(&steps.collect::<Vec<_>>(), noise)?;
        return Some(both.into_iter().map(|share| Remaining { pruning: share, rounding: share }).collect());
    }
    let steps: Vec<(f64, f64)> = rounded.iter().map(|(step, more)| (step.rounding, *more)).collect();
    let rounding = shares(&steps, noise)?;
    // More sparsity leaves fewer weights to round.
    let without_rounding = |((step, more), share): (&(Damage, f64), &f64)| (step.pruning, more - share * step.rounding);
    let steps: Vec<(f64, f64)> = pruned.iter().zip(&rounding).map(without_rounding).collect();
    let pruning = shares(&steps, noise)?;
    Some(pruning.into_iter().zip(rounding).map(|(pruning, rounding)| Remaining { pruning, rounding }).collect())
}

/// The damage that the step from the anchor to a candidate adds to these units, if all of it is left.
fn added(curves: &DamageCurves, part: &[usize], anchor: usize, candidate: usize) -> Damage {
    let mut sum = Damage::default();
    for unit in part.iter().map(|&unit| &curves.units[unit]) {
        let (from, to) = (curves.damage(unit, anchor), curves.damage(unit, candidate));
        sum.pruning += to.pruning - from.pruning;
        sum.rounding += to.rounding - from.rounding;
    }
    sum
}

/// The share of each part's estimated step that was measured, given pairs of estimated and measured steps and the noise
/// of a measurement. Each share is shrunk towards the share of all parts together, the more the closer its step is to
/// the noise. None if the measured steps show no damage.
fn shares(steps: &[(f64, f64)], noise: f64) -> Option<Vec<f64>> {
    let (estimated, measured) = steps.iter().fold((0.0, 0.0), |(x, y), step| (x + step.0, y + step.1));
    let mean = measured / estimated;
    if !(mean.is_finite() && mean > 0.0) {
        return None;
    }
    let share = |&(estimated, measured): &(f64, f64)| {
        let signal = (mean * estimated).powi(2);
        let weight = signal / (signal + noise.powi(2));
        let share = mean + weight * (measured / estimated - mean);
        if share.is_finite() { share.max(FLOOR * mean) } else { mean }
    };
    Some(steps.iter().map(share).collect())
}

/// Among the candidates that `kind` accepts, the one whose damage differs from the anchor's by about the anchor's
/// damage. This is large enough to exceed the noise and small enough to be typical.
fn step(curves: &DamageCurves, anchor: usize, kind: impl Fn(LayerBudget, LayerBudget) -> bool) -> Option<usize> {
    let damage = |candidate: usize| {
        let of_units = curves.units.iter().map(|unit| curves.damage(unit, candidate));
        of_units.map(|damage| damage.pruning + damage.rounding).sum::<f64>()
    };
    let from = damage(anchor);
    let far = |candidate: usize| ((damage(candidate) - from).abs() - from).abs();
    let (of, own) = (|candidate: usize| curves.candidates[candidate], curves.candidates[anchor]);
    let others = (0..curves.candidates.len()).filter(|&candidate| kind(own, of(candidate)));
    others.filter(|&candidate| damage(candidate) != from).min_by(|&x, &y| far(x).total_cmp(&far(y)))
}

/// Groups units by the part that they play in their blocks: layers with the same names within the block.
fn parts(units: &[Unit]) -> Vec<Vec<usize>> {
    let mut parts: Vec<(BTreeSet<&str>, Vec<usize>)> = Vec::new();
    for (index, unit) in units.iter().enumerate() {
        let names: BTreeSet<&str> = unit.layers.iter().map(|(name, _)| name_in_block(name, unit.block)).collect();
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
    use crate::search::knapsack::total;
    use crate::search::target::Prices;
    use sparq_core::{Bits, Sparsity};

    /// Two blocks of two parts, at 4 bits with 0, 25 and 50 % sparsity, and at 3 bits with 25 %. Half of what rounding to 4
    /// bits does goes away with half of the weights.
    fn curves() -> DamageCurves {
        let budget = |s, bits| LayerBudget { sparsity: Sparsity::Unstructured(s), bits: Some(bits), rate: None };
        let unit = |block: usize, name: &str, divergence| Unit {
            block,
            layers: vec![(format!("model.layers.{block}.{name}"), 100)],
            errors: vec![0.012, 0.02, 0.046, 0.04],
            pruning: vec![0.0, 0.01, 0.04, 0.01],
            divergence,
            remaining: Remaining::ALL,
        };
        DamageCurves {
            candidates: vec![
                budget(0.0, Bits::B4),
                budget(0.25, Bits::B4),
                budget(0.5, Bits::B4),
                budget(0.25, Bits::B3),
            ],
            reference: 1,
            units: vec![unit(0, "attn.q", 0.1), unit(0, "mlp.up", 0.2), unit(1, "attn.q", 0.3), unit(1, "mlp.up", 0.2)],
        }
    }

    #[test]
    fn one_trial_for_the_anchor_and_for_each_part_one_of_other_sparsity_and_one_of_other_bits() {
        let trials = Trials::new(&curves(), 1).expect("there are others");
        assert_eq!(trials.choices, [[1, 1, 1, 1], [2, 1, 2, 1], [3, 1, 3, 1], [1, 2, 1, 2], [1, 3, 1, 3]]);
        let around_half = Trials::new(&curves(), 2).expect("there are others");
        assert_eq!(around_half.choices, [[2, 2, 2, 2], [0, 2, 0, 2], [2, 0, 2, 0]], "no other bits at 50 %");
        let mut alone = curves();
        alone.candidates[3].sparsity = Sparsity::Unstructured(0.75);
        assert!(Trials::new(&alone, 3).is_none());
    }

    #[test]
    fn parts_are_told_apart_by_all_of_the_name_behind_the_block() {
        let mut units = curves().units;
        for (unit, part) in units.iter_mut().zip(["attn", "mlp", "attn", "mlp"]) {
            unit.layers[0].0 = format!("transformer.h.{}.{part}.c_proj", unit.block);
        }
        assert_eq!(parts(&units), [[0, 2], [1, 3]]);
    }

    /// Divergences of the trials of a model of which this is left, part by part.
    fn divergences(trials: &Trials, curves: &DamageCurves, left: [Remaining; 2]) -> Vec<f64> {
        let mut truth = curves.clone();
        for (unit, part) in truth.units.iter_mut().zip([0, 1, 0, 1]) {
            unit.remaining = left[part];
        }
        trials.choices.iter().map(|choice| total(&truth.problem(&Prices::Rate(0.0)).0, choice)).collect()
    }

    #[test]
    fn what_is_left_is_found_for_pruning_and_for_rounding() {
        let mut curves = curves();
        let trials = Trials::new(&curves, 1).expect("possible");
        let left = [Remaining { pruning: 0.25, rounding: 0.75 }, Remaining { pruning: 0.5, rounding: 1.5 }];
        let divergences = divergences(&trials, &curves, left);
        trials.apply(&mut curves, &divergences);
        // Not quite, for part of the difference between parts might be noise.
        for (unit, left) in curves.units.iter().zip([left[0], left[1]]) {
            assert!((unit.remaining.pruning - left.pruning).abs() < 0.02, "{:?}", unit.remaining);
            assert!((unit.remaining.rounding - left.rounding).abs() < 0.02, "{:?}", unit.remaining);
        }
    }

    #[test]
    fn with_one_kind_of_step_the_same_is_left_of_both() {
        let mut curves = curves();
        let trials = Trials::new(&curves, 2).expect("possible");
        let left = [0.5, 0.8].map(|share| Remaining { pruning: share, rounding: share });
        let divergences = divergences(&trials, &curves, left);
        trials.apply(&mut curves, &divergences);
        let found: Vec<f64> = curves.units.iter().map(|unit| unit.remaining.pruning).collect();
        assert!((found[0] - 0.5).abs() < 0.02 && (found[1] - 0.8).abs() < 0.02, "{found:?}");
        assert!(curves.units.iter().all(|unit| unit.remaining.pruning == unit.remaining.rounding));
    }

    #[test]
    fn steps_below_the_noise_count_as_the_mean_and_none_is_free() {
        let found = shares(&[(1.0, 0.5), (1.0, 0.7), (0.001, 0.04)], 0.02).expect("shares");
        assert!((found[0] - 0.5).abs() < 0.01 && (found[1] - 0.7).abs() < 0.01, "{found:?}");
        assert!((found[2] - 0.62).abs() < 0.05, "{found:?}");
        let found = shares(&[(1.0, 1.5), (1.0, -0.1)], 0.0).expect("shares");
        assert!((found[1] - 0.07).abs() < 1e-12, "a tenth of what is left of both: {found:?}");
        assert_eq!(shares(&[(1.0, -0.5), (1.0, 0.2)], 0.01), None);
    }

    #[test]
    fn trials_that_tell_nothing_change_nothing() {
        let mut found = curves();
        let trials = Trials::new(&found, 1).expect("possible");
        trials.apply(&mut found, &[0.5, 0.4, 0.4, 0.4, 0.4]);
        assert_eq!(found, curves());
    }
}
