//! How much of the damage to each part of a model is left when the whole of it is compressed.

use super::{DamageCurves, Unit};
use std::collections::BTreeSet;

/// No share is further than this from the mean over all parts, either way: a trial is a measurement, and what came out
/// near nothing is not free.
const FURTHEST: f64 = 10.0;

/// Whole models whose divergences tell what is left: the reference candidate everywhere, and then, for each part of a
/// block, others for this part of every block, one of each bit width.
#[derive(Debug)]
pub(super) struct Trials {
    /// Units that play the same part in their blocks.
    parts: Vec<Vec<usize>>,
    /// The candidate of the reference's width, and those of the others.
    step: usize,
    others: Vec<usize>,
    /// A candidate for each unit: the reference everywhere; then for each part the step, and the others.
    pub(super) choices: Vec<Vec<usize>>,
}

impl Trials {
    /// None if no candidate of the reference's bit width is cheaper.
    pub(super) fn new(curves: &DamageCurves) -> Option<Self> {
        let bits = |candidate: usize| curves.candidates[candidate].bits;
        let (of_width, damages) = (bits(curves.reference), damages(curves, 0..curves.units.len()));
        let step = step(curves, &damages)?;
        let widths: BTreeSet<_> = (0..damages.len()).map(bits).filter(|width| *width != of_width).collect();
        // What does about as much damage is measured where allocations will be.
        let from = damages[curves.reference];
        let far = |candidate: &usize| (damages[*candidate] - from).abs();
        let nearest = |width| {
            let of_width = (0..damages.len()).filter(|&candidate| bits(candidate) == width && damages[candidate] > 0.0);
            of_width.min_by(|x, y| far(x).total_cmp(&far(y)))
        };
        let others: Vec<usize> = widths.into_iter().filter_map(nearest).collect();
        let parts = parts(&curves.units);
        let reference = vec![curves.reference; curves.units.len()];
        let mut choices = vec![reference.clone()];
        for part in &parts {
            for &candidate in [step].iter().chain(&others) {
                let mut choice = reference.clone();
                for &unit in part {
                    choice[unit] = candidate;
                }
                choices.push(choice);
            }
        }
        Some(Self { parts, step, others, choices })
    }

    /// Sets what is left of the units' damages, given the divergence of each trial, so that the estimates give what was
    /// measured: for candidates of the reference's width by the slope from it to the step, for those of another width by
    /// the one that was tried.
    pub(super) fn apply(&self, curves: &mut DamageCurves, divergences: &[f64]) {
        let Some((before, tried)) = divergences.split_first() else { return };
        let of_parts: Vec<Vec<f64>> = self.parts.iter().map(|part| damages(curves, part.iter().copied())).collect();
        let tried: Vec<&[f64]> = tried.chunks(1 + self.others.len()).collect();
        if tried.len() != self.parts.len() {
            return;
        }
        let slope = |(damages, tried): (&Vec<f64>, &&[f64])| {
            (tried[0] - before) / (damages[self.step] - damages[curves.reference])
        };
        let slopes: Vec<f64> = of_parts.iter().zip(&tried).map(slope).collect();
        let known: Vec<f64> = slopes.iter().filter(|slope| slope.is_finite()).map(|slope| slope.max(0.0)).collect();
        let mean = known.iter().sum::<f64>() / known.len() as f64;
        if !(mean.is_finite() && mean > 0.0) {
            return; // the trials tell nothing
        }
        let plausible =
            |share: f64| if share.is_finite() { share.clamp(mean / FURTHEST, mean * FURTHEST) } else { mean };
        for (part, ((damages, tried), slope)) in self.parts.iter().zip(of_parts.iter().zip(&tried).zip(slopes)) {
            let slope = plausible(slope);
            let others = self.others.iter().zip(&tried[1..]);
            let share_of = others.map(|(&candidate, divergence)| {
                let left = divergence - before + slope * damages[curves.reference];
                (curves.candidates[candidate].bits, plausible(left / damages[candidate]))
            });
            let shares: Vec<_> = share_of.collect();
            let of_width = |bits| shares.iter().find(|(width, _)| *width == bits).map_or(slope, |(_, share)| *share);
            let remaining: Vec<f64> = curves.candidates.iter().map(|candidate| of_width(candidate.bits)).collect();
            for &unit in part {
                curves.units[unit].remaining.clone_from(&remaining);
            }
        }
    }
}

/// Estimated damage of each candidate to these units together.
fn damages(curves: &DamageCurves, units: impl IntoIterator<Item = usize>) -> Vec<f64> {
    let items = curves.items();
    let mut sums = vec![0.0; curves.candidates.len()];
    for unit in units {
        sums.iter_mut().zip(&items[unit].damages).for_each(|(sum, damage)| *sum += damage);
    }
    sums
}

/// The candidate below the reference, of the same width, that does least more damage for what it saves: the step an
/// allocation would take.
fn step(curves: &DamageCurves, damages: &[f64]) -> Option<usize> {
    let (costs, reference) = (curves.costs(), curves.reference);
    let slope = |candidate: usize| (damages[candidate] - damages[reference]) / (costs[reference] - costs[candidate]);
    let cheaper = (0..costs.len())
        .filter(|&candidate| curves.candidates[candidate].bits == curves.candidates[reference].bits)
        .filter(|&candidate| costs[candidate] < costs[reference] && damages[candidate] > damages[reference]);
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

    /// Two blocks of two parts, at 4 bits with 0, 25, 50 and 75 % sparsity, and at 3 bits.
    fn curves() -> DamageCurves {
        let budget = |s, bits| LayerBudget { sparsity: Sparsity::Unstructured(s), bits: Some(bits) };
        let of_four = [0.0, 0.25, 0.5, 0.75].map(|s| budget(s, Bits::B4));
        let of_three = [0.0, 0.5].map(|s| budget(s, Bits::B3));
        let unit = |block: usize, name: &str, divergence| Unit {
            block,
            layers: vec![(format!("model.layers.{block}.{name}"), 100)],
            errors: vec![0.01, 0.02, 0.04, 0.2, 0.03, 0.06],
            divergence,
            remaining: vec![1.0; 6],
        };
        DamageCurves {
            candidates: [&of_four[..], &of_three].concat(),
            reference: 1,
            units: vec![unit(0, "attn.q", 0.1), unit(0, "mlp.up", 0.2), unit(1, "attn.q", 0.3), unit(1, "mlp.up", 0.2)],
        }
    }

    #[test]
    fn one_trial_for_the_reference_and_one_of_each_width_for_each_part() {
        let trials = Trials::new(&curves()).expect("cheaper ones exist");
        assert_eq!(trials.choices, [[1, 1, 1, 1], [2, 1, 2, 1], [4, 1, 4, 1], [1, 2, 1, 2], [1, 4, 1, 4]]);
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
    fn estimates_give_what_was_measured() {
        let mut curves = curves();
        let trials = Trials::new(&curves).expect("possible");
        // A quarter of the estimate is left of what pruning does to the first part, half of what it does to the second.
        let measured = [0.5, 0.6, 0.55, 0.7, 0.9];
        trials.apply(&mut curves, &measured);
        assert!(
            (curves.units[0].remaining[2] - 0.25).abs() < 1e-12 && (curves.units[3].remaining[0] - 0.5).abs() < 1e-12
        );
        let items = curves.items();
        let damage = |choice: &[usize]| items.iter().zip(choice).map(|(item, &c)| item.damages[c]).sum::<f64>();
        for (choice, measured) in trials.choices.iter().zip(measured) {
            let more = damage(choice) - damage(&trials.choices[0]);
            assert!((more - (measured - 0.5)).abs() < 1e-12, "{choice:?}: {more}");
        }
    }

    #[test]
    fn noise_makes_no_part_free_and_trials_that_tell_nothing_change_nothing() {
        let mut noisy = curves();
        let trials = Trials::new(&noisy).expect("possible");
        trials.apply(&mut noisy, &[0.5, 0.4, 0.1, 0.9, 0.9]);
        assert!((noisy.units[0].remaining[1] - 0.05).abs() < 1e-12, "a tenth of the mean of 0 and 1");
        assert!((noisy.units[0].remaining[4] - 0.05).abs() < 1e-12, "and so at another width");
        let mut nothing = curves();
        trials.apply(&mut nothing, &[0.5, 0.4, 0.5, 0.3, 0.5]);
        assert_eq!(nothing, curves());
    }
}
