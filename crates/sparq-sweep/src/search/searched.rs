//! From curves to an allocation for each rate, polished if that is wanted.

use super::base::Base;
use super::judge::Judge;
use super::knapsack::{BUDGET_SLACK, Item, choose, total};
use super::levels::Level;
use super::polish::{Rules, evolve};
use super::target::{Prices, Target};
use super::trials::measure_trials;
use super::whole::Whole;
use super::{DamageCurves, Inputs, Search, bits, places};
use crate::store::{Store, fingerprint};
use crate::turns::in_turn;
use crate::{Error, Observer, Result};
use serde::{Deserialize, Serialize};
use sparq_model::Model;
use sparq_pipeline::{Allocation, Calibration, Recipe};
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

/// Where an allocation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// Least estimated damage, see [`DamageCurves::allocate`].
    Estimated,
    /// The same candidate for every layer.
    Uniform,
    /// What the evolution made of the best of these.
    Polished,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Estimated => "estimated",
            Self::Uniform => "uniform",
            Self::Polished => "polished",
        })
    }
}

/// An allocation that was compared with others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contestant {
    /// Where it comes from.
    pub origin: Origin,
    /// What it is.
    pub allocation: Allocation,
    /// KL(base ‖ model) on the probe text, nats a token, put together from layers as the curves were measured with; only
    /// if there was a polish.
    pub assembled: Option<f64>,
    /// The same of a model compressed by the whole recipe: what decides.
    pub compressed: f64,
}

/// An allocation for a [target](Target), and how it was chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Searched {
    /// What was chosen.
    pub allocation: Allocation,
    /// Where it comes from.
    pub origin: Origin,
    /// What it was chosen among: the estimated allocation, the best uniform one that meets the target (if one does) and the
    /// polished one (if that was asked for).
    pub contestants: Vec<Contestant>,
}

impl Searched {
    /// `recipe` with what was chosen: for all layers at once if all get the same.
    pub fn recipe(&self, recipe: &Recipe) -> Recipe {
        match self.allocation.uniform() {
            Some(budget) => recipe.with_budget(budget),
            None => Recipe { allocation: Some(self.allocation.clone()), ..recipe.clone() },
        }
    }
}

impl Search {
    /// [Measures](Self::run) `model` and chooses an allocation for each of `targets`.
    ///
    /// For each target, trials as those of [`run`](Self::run) are made around the best uniform allocation that meets it, for
    /// what is left of damages depends on how much is compressed (they are compressed as the recipe says, but for damping
    /// chosen on held-out text). Then the allocation of least estimated damage and the uniform one of least estimated damage
    /// are compressed as the recipe says, on the text of [`finals_on`](Self::finals_on), and what diverges less from the base
    /// on the probe text is chosen. So the choice is never worse than that uniform one on the probe text; on other text it
    /// may be.
    ///
    /// With [generations](Self::polish) one more is among them. Polishing puts models together from the layers that the
    /// curves were measured with, and judges them by KL(base ‖ model) on the probe text. It starts from these two, every
    /// uniform allocation that meets the target and the best mixes of one bit width. In each generation 16 offspring of the
    /// best model so far raise one to three units by a step and lower others until the target is met again (of two steps
    /// drawn, the one the curves favour); they are judged on a quarter of the probe's sequences, the best four on half, the
    /// best one on all, and it takes its parent's place if it is better.
    ///
    /// Cost beside that of the curves: for each target its trials and a compression for each allocation that is compared; with
    /// a polish, about four forward passes of the probe in each generation, and all candidates' layers stay in memory, a
    /// byte for each weight and candidate, with the blocks of the base and of two more models as `f32` and what enters each
    /// block on the probe text.
    ///
    /// With a `directory`, finished choices are found there again, and so is every model that was compressed to be compared.
    /// A polish that was interrupted starts anew, and solves the candidates again.
    ///
    /// # Errors
    /// Those of [`run`](Self::run); before anything is measured [`Error::Rate`], [`Error::FileSize`] and
    /// [`Error::SameSize`] for targets that no choice of candidates reaches, and what a format refuses.
    ///
    /// # Examples
    /// ```no_run
    /// use sparq_pipeline::{Calibration, Recipe};
    /// use sparq_sweep::{Search, Target};
    /// let model = sparq_model::Model::open("models/SmolLM2-135M")?;
    /// let text = std::fs::read_to_string("c4.txt")?;
    /// let calibration = Calibration::from_text(model.tokenizer()?, &text, 8, 512, 0)?;
    /// let probe = Calibration::from_text(model.tokenizer()?, &text, 8, 512, 1)?;
    /// let recipe: Recipe = "s=0.25,q=4,group=64".parse()?;
    /// let all = Calibration::from_text(model.tokenizer()?, &text, 64, 512, 0)?; // what the result is compressed on
    /// let search = Search::new(recipe.clone()).polish(24).finals_on(all);
    /// let targets = [Target::Tcr(0.8125), Target::Tcr(0.875)];
    /// for searched in search.allocate(&model, &calibration, &probe, &targets, None, &())? {
    ///     println!("{}: TCr {:.4}", searched.origin, searched.allocation.tcr);
    ///     let recipe = searched.recipe(&recipe);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn allocate(
        &self,
        model: &Model,
        calibration: &Calibration,
        probe: &Calibration,
        targets: &[Target<'_>],
        directory: Option<&Path>,
        observer: &dyn Observer,
    ) -> Result<Vec<Searched>> {
        if self.candidates.is_empty() {
            return Err(Error::NoConfigurations);
        }
        let prices = |target: &Target<'_>| target.prices(model, &self.recipe, &self.candidates);
        let targets = targets.iter().map(prices).collect::<Result<Vec<_>>>()?;
        let store = Store::open_if_given(directory)?;
        let trial = self.trial();
        let inputs = Inputs::new(model, calibration, probe, &store)?;
        let measured = self.key(&trial, &inputs)?;
        let search = self.key(&self.recipe, &inputs)?;
        let finals = self.finals.as_ref().unwrap_or(calibration);
        let key = |target: &Prices| -> Result<String> {
            let settings = match target {
                Prices::Rate(rate) => serde_json::to_string(&(self.generations, self.seed, rate.to_bits()))?,
                Prices::File(prices) => serde_json::to_string(&(self.generations, self.seed, prices))?,
            };
            Ok(fingerprint(&["allocation 3", &search, &settings, &finals.fingerprint()]))
        };
        let mut found: Vec<Option<Searched>> = Vec::with_capacity(targets.len());
        for target in &targets {
            found.push(store.get(&key(target)?));
        }
        if found.iter().any(Option::is_none) {
            let mut model = model.clone();
            model.make_resident()?;
            let base = Base::new(&model, probe)?;
            let polish = self.generations > 0;
            let trials = Whole { base: &base, recipe: &trial, calibration, store: &store, key: &measured, observer };
            let finale = Whole { recipe: &self.recipe, calibration: finals, key: &search, ..trials };
            let (curves, levels) = self.measure(&base, calibration, &store, &measured, polish, observer)?;
            for (target, found) in targets.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
                let mut curves = curves.clone();
                if let Some(&[anchor, ..]) = best_uniform(&curves, target).as_deref() {
                    measure_trials(&trials, &mut curves, anchor, self.jobs)?;
                }
                let finalists = if polish {
                    self.polished(&base, &curves, &levels, target, observer)?
                } else {
                    finalists(&curves, target)?
                };
                let searched = decide(&finale, &curves, &finalists, self.jobs)?;
                store.put(&key(target)?, &searched)?;
                *found = Some(searched);
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// What is compared without a polish, and what an evolution makes of it.
    fn polished(
        &self,
        base: &Base<'_>,
        curves: &DamageCurves,
        levels: &[Level],
        target: &Prices,
        observer: &dyn Observer,
    ) -> Result<Vec<Finalist>> {
        let (items, budget) = curves.problem(target);
        let rules = Rules::new(items, budget);
        let mut finalists = finalists(curves, target)?;
        let mut starts: Vec<Vec<usize>> = finalists.iter().map(|finalist| finalist.choice.clone()).collect();
        for start in uniform(curves, target).into_iter().chain(mixes(curves, target)) {
            if !starts.contains(&start) {
                starts.push(start);
            }
        }
        let places = places(base.model, &curves.units)?;
        let mut judge = Judge::new(base, levels, &places, &starts[0])?;
        let progress = |generation| sparq_eval::Observer::progress(observer, generation, self.generations, "polish");
        let evolved = evolve(&rules, &starts, self.generations, self.seed, &mut judge, progress)?;
        for (finalist, divergence) in finalists.iter_mut().zip(&evolved.starts) {
            finalist.assembled = Some(*divergence);
        }
        let (choice, assembled) = (evolved.choice, Some(evolved.divergence));
        finalists.push(Finalist { origin: Origin::Polished, choice, assembled });
        Ok(finalists)
    }
}

/// Compresses the finalists in full; what diverges least from the base on the probe text is chosen.
fn decide(whole: &Whole<'_>, curves: &DamageCurves, finalists: &[Finalist], jobs: usize) -> Result<Searched> {
    let allocations: Vec<Allocation> = finalists.iter().map(|finalist| curves.allocation(&finalist.choice)).collect();
    let first_like = |index: usize| allocations.iter().position(|known| *known == allocations[index]);
    let different: Vec<usize> = (0..allocations.len()).filter(|&index| first_like(index) == Some(index)).collect();
    let divergences = in_turn(different.len(), jobs, |turn| {
        let index = different[turn];
        let name = format!("{} allocation", finalists[index].origin);
        whole.divergence(&allocations[index], (turn + 1, different.len()), &name)
    })?;
    let contestant = |(index, Finalist { origin, assembled, .. }): (usize, &Finalist)| {
        let turn = different.iter().position(|&of| first_like(index) == Some(of));
        let compressed = turn.map_or(f64::INFINITY, |turn| divergences[turn]);
        Contestant { origin: *origin, allocation: allocations[index].clone(), assembled: *assembled, compressed }
    };
    let contestants: Vec<Contestant> = finalists.iter().enumerate().map(contestant).collect();
    let best = contestants.iter().min_by(|x, y| x.compressed.total_cmp(&y.compressed));
    let Some(Contestant { origin, allocation, .. }) = best.cloned() else { return Err(Error::NoConfigurations) };
    Ok(Searched { allocation, origin, contestants })
}

/// What is compressed in full, to be compared.
struct Finalist {
    origin: Origin,
    choice: Vec<usize>,
    assembled: Option<f64>,
}

/// The choice of least estimated damage, and the best of the uniform ones by these estimates.
fn finalists(curves: &DamageCurves, target: &Prices) -> Result<Vec<Finalist>> {
    let finalist = |origin, choice| Finalist { origin, choice, assembled: None };
    let mut finalists = vec![finalist(Origin::Estimated, curves.choose(target)?)];
    finalists.extend(best_uniform(curves, target).map(|choice| finalist(Origin::Uniform, choice)));
    Ok(finalists)
}

/// Of the uniform choices that meet the target, the one of least estimated damage.
fn best_uniform(curves: &DamageCurves, target: &Prices) -> Option<Vec<usize>> {
    let (items, _) = curves.problem(target);
    uniform(curves, target).into_iter().min_by(|x, y| total(&items, x).total_cmp(&total(&items, y)))
}

/// The same candidate for every unit, for each that meets the target.
fn uniform(curves: &DamageCurves, target: &Prices) -> Vec<Vec<usize>> {
    let (items, budget) = curves.problem(target);
    let cost = |candidate: usize| items.iter().map(|item| item.costs[candidate]).sum::<f64>();
    let within = (0..curves.candidates.len()).filter(|&candidate| cost(candidate) <= budget * (1.0 + BUDGET_SLACK));
    within.map(|candidate| vec![candidate; curves.units.len()]).collect()
}

/// For each bit width among the candidates, the choice among those of this width alone that does least estimated damage.
fn mixes(curves: &DamageCurves, target: &Prices) -> Vec<Vec<usize>> {
    let (items, budget) = curves.problem(target);
    let widths: BTreeSet<u8> = curves.candidates.iter().map(bits).collect();
    let mix = |width: u8| {
        let of_width: Vec<usize> =
            (0..curves.candidates.len()).filter(|&candidate| bits(&curves.candidates[candidate]) == width).collect();
        let only = |values: &[f64]| of_width.iter().map(|&candidate| values[candidate]).collect::<Vec<_>>();
        let items: Vec<Item> =
            items.iter().map(|item| Item { costs: only(&item.costs), damages: only(&item.damages) }).collect();
        let chosen = choose(&items, budget)?;
        Some(chosen.into_iter().map(|candidate| of_width[candidate]).collect())
    };
    widths.into_iter().filter_map(mix).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Remaining, Unit};
    use super::*;
    use sparq_core::{Bits, Sparsity};
    use sparq_pipeline::LayerBudget;

    /// Two units, the second of which minds everything more: at 8 bits; at 4 bits with 0, 25 and 50 % sparsity; at 3 bits with
    /// 50 %.
    fn curves() -> DamageCurves {
        let budget = |s, bits| LayerBudget { sparsity: Sparsity::Unstructured(s), bits: Some(bits) };
        let of_four = [0.0, 0.25, 0.5].map(|s| budget(s, Bits::B4));
        let unit = |block: usize, divergence| Unit {
            block,
            layers: vec![(format!("layers.{block}.q"), 100)],
            errors: vec![0.001, 0.01, 0.02, 0.03, 0.021],
            pruning: vec![0.0, 0.0, 0.01, 0.02, 0.02],
            divergence,
            remaining: Remaining::ALL,
        };
        DamageCurves {
            candidates: [&[budget(0.0, Bits::B8)], &of_four[..], &[budget(0.5, Bits::B3)]].concat(),
            reference: 2,
            units: vec![unit(0, 0.1), unit(1, 0.3)],
        }
    }

    fn compared(curves: &DamageCurves, rate: f64) -> Vec<(Origin, Vec<usize>)> {
        let finalists = finalists(curves, &Prices::Rate(rate)).expect("within reach");
        finalists.into_iter().map(|finalist| (finalist.origin, finalist.choice)).collect()
    }

    #[test]
    fn the_estimate_is_compared_with_the_best_uniform_choice() {
        let mut curves = curves();
        // What minds less gives way to what minds more.
        assert_eq!(compared(&curves, 0.8125), [(Origin::Estimated, vec![4, 1]), (Origin::Uniform, vec![2, 2])]);
        curves.units.iter_mut().for_each(|unit| (unit.errors[4], unit.pruning[4]) = (0.005, 0.0));
        assert_eq!(compared(&curves, 0.8125), [(Origin::Estimated, vec![4, 4]), (Origin::Uniform, vec![4, 4])]);
    }

    #[test]
    fn a_rate_that_no_candidate_reaches_is_refused() {
        assert!(finalists(&curves(), &Prices::Rate(0.9)).is_ok());
        assert!(finalists(&curves(), &Prices::Rate(0.91)).is_err());
    }
}
