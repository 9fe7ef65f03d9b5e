//! Blocks that are not measured, from those that are.

use super::{DamageCurves, Unit};
use crate::{Result, name_in_block};
use sparq_model::Model;
use std::collections::BTreeMap;

/// Blocks in which something is measured, about.
const SAMPLED_BLOCKS: usize = 10;

/// Whether a block is measured: of the first two, the last, and of every so many between.
pub(super) fn is_sampled(block: usize, blocks: usize) -> bool {
    let step = blocks.div_ceil(SAMPLED_BLOCKS).max(1);
    block < 2 || block + 1 == blocks || block.is_multiple_of(step)
}

/// The value at a block, between those of the nearest ones that are known; those are in order.
fn between(known: &[(usize, f64)], block: usize) -> f64 {
    let after = known.partition_point(|(at, _)| *at < block);
    match (after.checked_sub(1).map(|before| known[before]), known.get(after)) {
        (_, Some(&(at, value))) if at == block => value,
        (Some((before, low)), Some(&(after, high))) => {
            low + (high - low) * (block - before) as f64 / (after - before) as f64
        }
        (Some((_, value)), None) | (None, Some(&(_, value))) => value,
        (None, None) => 0.0,
    }
}

/// As [`between`], on a logarithmic scale. What was measured near 0 is noise, and taken for a thousandth of the largest value.
fn between_logarithms(known: &[(usize, f64)], block: usize) -> f64 {
    let largest = known.iter().map(|known| known.1).fold(f64::MIN_POSITIVE, f64::max);
    let known: Vec<_> = known.iter().map(|&(at, value)| (at, value.max(1e-3 * largest).ln())).collect();
    between(&known, block).exp()
}

/// Units of every block: what was not measured lies between what plays the same part in the nearest blocks that were.
pub(super) fn every_unit(model: &Model, mut curves: DamageCurves) -> Result<DamageCurves> {
    let measured = std::mem::take(&mut curves.units);
    let part = |unit: &Unit| -> Vec<String> {
        unit.layers.iter().map(|(name, _)| name_in_block(name, unit.block).to_owned()).collect()
    };
    let mut parts: Vec<(Vec<String>, Vec<&Unit>)> = Vec::new();
    for unit in &measured {
        let part = part(unit);
        match parts.iter_mut().find(|(known, _)| *known == part) {
            Some((_, units)) => units.push(unit),
            None => parts.push((part, vec![unit])),
        }
    }
    for block in 0..model.block_count() {
        let plan = model.block_plan(block)?;
        let names = plan.linears().iter().map(|linear| (name_in_block(&linear.name, block), linear));
        let linears: BTreeMap<&str, _> = names.collect();
        for (part, units) in &parts {
            if let Some(known) = units.iter().find(|unit| unit.block == block) {
                curves.units.push((*known).clone());
                continue;
            }
            let layers = part.iter().filter_map(|name| linears.get(name.as_str()));
            let layers: Vec<_> = layers.map(|linear| (linear.name.clone(), linear.weights())).collect();
            if layers.len() < part.len() {
                continue;
            }
            let of = |value: &dyn Fn(&Unit) -> f64| {
                let known: Vec<_> = units.iter().map(|unit| (unit.block, value(unit))).collect();
                between_logarithms(&known, block)
            };
            let each = |values: &dyn Fn(&Unit) -> &[f64]| {
                (0..curves.candidates.len())
                    .map(|at| of(&|unit| values(unit).get(at).copied().unwrap_or(0.0)))
                    .collect()
            };
            curves.units.push(Unit {
                block,
                layers,
                errors: each(&|unit| &unit.errors),
                pruning: each(&|unit| &unit.pruning),
                divergence: of(&|unit| unit.divergence),
                remaining: units[0].remaining,
            });
        }
    }
    Ok(curves)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_between_lie_between() {
        let sampled = |blocks| (0..blocks).filter(|&block| is_sampled(block, blocks)).collect::<Vec<_>>();
        assert_eq!(sampled(5), [0, 1, 2, 3, 4]);
        assert_eq!(sampled(30), [0, 1, 3, 6, 9, 12, 15, 18, 21, 24, 27, 29]);
        let known = [(0, 1.0), (4, 3.0)];
        assert_eq!([0, 1, 4, 9].map(|block| between(&known, block)), [1.0, 1.5, 3.0, 3.0]);
        assert_eq!(between(&known[1..], 0), 3.0);
        assert_eq!(between_logarithms(&[(0, 1.0), (2, 16.0)], 1), 4.0);
    }
}
