//! From damage curves to an allocation for each target.

use super::base::Base;
use super::knapsack::BUDGET_SLACK;
use super::target::{Prices, Target};
use super::trials::measure_trials;
use super::whole_model::{WholeModel, Written};
use super::{DamageCurves, Inputs, Search};
use crate::parallel::run_jobs;
use crate::store::{Store, fingerprint};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use sparq_core::Observer;
use sparq_model::Model;
use sparq_pipeline::{Allocation, Calibration, Recipe};
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
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Estimated => "estimated",
            Self::Uniform => "uniform",
        })
    }
}

/// An allocation that was compared with others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contestant {
    /// Where it comes from.
    pub origin: Origin,
    /// The allocation.
    pub allocation: Allocation,
    /// Index of the format, if the target is a file.
    pub format: usize,
    /// KL(base ‖ model) on the probe text, nats a token, of the model that the whole recipe makes with this allocation.
    pub divergence: f64,
}

/// An allocation for a [target](Target), and how it was chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Searched {
    /// The allocation of the least divergence.
    pub allocation: Allocation,
    /// Where it comes from.
    pub origin: Origin,
    /// Index of the format that goes with it, if the target is a file.
    pub format: usize,
    /// What was compared: the estimated allocation, and the best uniform one that meets the target if there is one.
    pub contestants: Vec<Contestant>,
}

impl Searched {
    /// `recipe` with this allocation. If all layers get the same, the recipe itself says it.
    pub fn recipe(&self, recipe: &Recipe) -> Recipe {
        match self.allocation.uniform() {
            Some(budget) => recipe.with_budget(budget),
            None => recipe.clone().with_allocation(self.allocation.clone()),
        }
    }
}

impl Search {
    /// [Measures](Self::run) `model` and chooses an allocation for each of `targets`.
    ///
    /// How much damage is left depends on how much is compressed. So for each target the trials of [`run`](Self::run) are
    /// made around the best uniform allocation that meets it. Then two allocations are compared: the one of least
    /// estimated damage, and the uniform one of least estimated damage. Both are compressed by the whole recipe, on the
    /// text of [`finals_on`](Self::finals_on), and the one of the smaller KL(base ‖ model) on the probe text is chosen. On
    /// the probe text the choice is therefore never worse than the uniform one; on other text it may be.
    ///
    /// If all targets are files, about ten blocks are measured and others taken to lie between them. The damage of embedding
    /// and output matrix in each format is measured and added.
    ///
    /// Cost besides that of the curves: for each target its trials and two compressions.
    ///
    /// With a `directory`, finished choices are found there again, and so is every model that was compressed to be compared.
    ///
    /// # Errors
    /// Those of [`run`](Self::run). Before anything is measured: [`Error::Rate`], [`Error::FileSize`] and
    /// [`Error::SameSize`] for targets that no choice of candidates reaches, and what a format refuses.
    ///
    /// # Examples
    /// ```no_run
    /// use sparq_pipeline::{Calibration, Recipe, Sampling};
    /// use sparq_sweep::{Search, Target};
    /// let model = sparq_model::Model::open("models/SmolLM2-135M")?;
    /// let text = std::fs::read_to_string("c4.txt")?;
    /// let calibration = Calibration::from_text(model.tokenizer()?, &text, Sampling { samples: 8, ..Sampling::default() })?;
    /// let probe = Calibration::from_text(model.tokenizer()?, &text, Sampling { samples: 8, length: 512, seed: 1 })?;
    /// let recipe: Recipe = "s=0.25,q=4,group=64".parse()?;
    /// let all = Calibration::from_text(model.tokenizer()?, &text, Sampling::default())?; // what the result is compressed on
    /// let search = Search::new(recipe.clone()).finals_on(all);
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
        let prices = |target| Ok((target, Target::prices(target, model, &self.recipe, &self.candidates)?));
        let targets = targets.iter().map(prices).collect::<Result<Vec<_>>>()?;
        let store = Store::open_if_given(directory)?;
        let trial = self.trial();
        let inputs = Inputs::new(model, calibration, probe, &store)?;
        // Damage within a model changes slowly with depth.
        let sampled = targets.iter().all(|(target, _)| matches!(target, Target::File { .. }));
        let walk = Self { sampled, ..self.clone() };
        let measured = walk.key(&trial, &inputs)?;
        let search = walk.key(&self.recipe, &inputs)?;
        let finals = self.finals.as_ref().unwrap_or(calibration);
        let key = |prices: &[(usize, Prices)]| -> Result<String> {
            let settings = serde_json::to_string(prices)?;
            Ok(fingerprint(&["allocation", &search, &settings, &finals.fingerprint()]))
        };
        let mut found: Vec<Option<Searched>> = Vec::with_capacity(targets.len());
        for (_, prices) in &targets {
            found.push(store.get(&key(prices)?));
        }
        if found.iter().any(Option::is_none) {
            let mut model = model.clone();
            model.make_resident()?;
            let base = Base::new(&model, probe)?;
            let trials =
                WholeModel { base: &base, recipe: &trial, calibration, store: &store, key: &measured, observer };
            let full = WholeModel { recipe: &self.recipe, calibration: finals, key: &search, ..trials };
            let curves = walk.measure(&base, calibration, &store, &measured, observer)?;
            for ((target, prices), found) in targets.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
                let mut offers = Vec::with_capacity(prices.len());
                for (format, prices) in prices {
                    let others = target.written(*format).map_or(Ok(0.0), |written| trials.of_vocabulary(written))?;
                    offers.push(Offer { format: *format, prices, others });
                }
                // Formats differ in embedding and output matrix alone.
                let Some(Offer { prices: first, .. }) = offers.first() else { continue };
                let mut curves = curves.clone().held(first);
                if let Some((_, anchor)) = best_uniform(&curves, &offers) {
                    measure_trials(&trials, &mut curves, first, anchor, self.jobs)?;
                }
                let searched =
                    compare(&full, &curves, &finalists(&curves, &offers)?, |format| target.written(format), self.jobs)?;
                store.put(&key(prices)?, &searched)?;
                *found = Some(searched);
            }
        }
        Ok(found.into_iter().flatten().collect())
    }
}

/// A format that can meet the target.
struct Offer<'a> {
    format: usize,
    prices: &'a Prices,
    /// Damage besides that of the layers.
    others: f64,
}

/// A choice of candidates that is compressed in full.
#[derive(Debug, Clone, PartialEq)]
struct Finalist {
    origin: Origin,
    format: usize,
    choice: Vec<usize>,
}

/// Compresses each finalist in full and chooses the one that diverges least from the base on the probe text.
fn compare<'a>(
    whole: &WholeModel<'_>,
    curves: &DamageCurves,
    finalists: &[Finalist],
    written: impl Fn(usize) -> Option<Written<'a>> + Sync,
    jobs: usize,
) -> Result<Searched> {
    // What a whole model that was compressed once would give again is not compressed again.
    let mut different: Vec<&Finalist> = Vec::new();
    for finalist in finalists {
        if different.iter().all(|known| (known.format, &known.choice) != (finalist.format, &finalist.choice)) {
            different.push(finalist);
        }
    }
    let divergences = run_jobs(different.len(), jobs, |job| {
        let Finalist { origin, format, choice } = different[job];
        let name = format!("{origin} allocation");
        whole.divergence(&curves.allocation(choice), written(*format), (job + 1, different.len()), &name)
    })?;
    let contestants: Vec<Contestant> = finalists
        .iter()
        .map(|Finalist { origin, format, choice }| {
            let job = different.iter().position(|known| (known.format, &known.choice) == (*format, choice));
            let divergence = job.map_or(f64::INFINITY, |job| divergences[job]);
            Contestant { origin: *origin, allocation: curves.allocation(choice), format: *format, divergence }
        })
        .collect();
    let best = contestants.iter().min_by(|x, y| x.divergence.total_cmp(&y.divergence));
    let Some(Contestant { origin, allocation, format, .. }) = best.cloned() else {
        return Err(Error::NoConfigurations);
    };
    Ok(Searched { allocation, origin, format, contestants })
}

/// What is compressed in full: the choice of least estimated damage, and the best of the uniform ones by these estimates.
fn finalists(curves: &DamageCurves, offers: &[Offer<'_>]) -> Result<Vec<Finalist>> {
    let mut estimated = Vec::with_capacity(offers.len());
    for offer in offers {
        let (choice, damage) = curves.choose(offer.prices)?;
        estimated.push((offer, choice, offer.others + damage));
    }
    let best = estimated.into_iter().min_by(|x, y| x.2.total_cmp(&y.2));
    let estimated = best.map(|(offer, choice, _)| (Origin::Estimated, offer, choice));
    let uniform = best_uniform(curves, offers).map(|(offer, candidate)| {
        let choice = curves.as_held(offer.prices, vec![candidate; curves.units.len()]);
        (Origin::Uniform, offer, choice)
    });
    let finalist = |(origin, offer, choice): (Origin, &Offer<'_>, _)| Finalist { origin, format: offer.format, choice };
    Ok(estimated.into_iter().chain(uniform).map(finalist).collect())
}

/// Of the choices of one candidate for every unit that meet the target, the one of least estimated damage.
fn best_uniform<'a>(curves: &DamageCurves, offers: &'a [Offer<'a>]) -> Option<(&'a Offer<'a>, usize)> {
    let choices = offers.iter().flat_map(|offer| {
        let (items, budget) = curves.problem(offer.prices);
        let cost = |candidate: usize| items.iter().map(|item| item.costs[candidate]).sum::<f64>();
        let within = |candidate: &usize| cost(*candidate) <= budget * (1.0 + BUDGET_SLACK);
        let damage = |candidate: usize| offer.others + items.iter().map(|item| item.damages[candidate]).sum::<f64>();
        let fitting: Vec<usize> = (0..curves.candidates.len()).filter(within).collect();
        fitting.into_iter().map(|candidate| (damage(candidate), offer, candidate)).collect::<Vec<_>>()
    });
    choices.min_by(|x, y| x.0.total_cmp(&y.0)).map(|(_, offer, candidate)| (offer, candidate))
}

#[cfg(test)]
mod tests {
    use super::super::{Remaining, Unit};
    use super::*;
    use sparq_core::{Bits, Sparsity};
    use sparq_pipeline::LayerBudget;

    /// Two units, the second of which is more sensitive: at 8 bits; at 4 bits with 0, 25 and 50 % sparsity; at 3 bits with
    /// 50 %.
    fn curves() -> DamageCurves {
        let budget = |s, bits| LayerBudget { sparsity: Sparsity::Unstructured(s), bits: Some(bits), rate: None };
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

    fn finalists_at(curves: &DamageCurves, rate: f64) -> Result<Vec<Finalist>> {
        finalists(curves, &[Offer { format: 0, prices: &Prices::Rate(rate), others: 0.0 }])
    }

    fn compared(curves: &DamageCurves, rate: f64) -> Vec<(Origin, Vec<usize>)> {
        let finalists = finalists_at(curves, rate).expect("within reach");
        finalists.into_iter().map(|finalist| (finalist.origin, finalist.choice)).collect()
    }

    #[test]
    fn the_estimate_is_compared_with_the_best_uniform_choice() {
        let mut curves = curves();
        // The less sensitive unit is compressed more.
        assert_eq!(compared(&curves, 0.8125), [(Origin::Estimated, vec![4, 1]), (Origin::Uniform, vec![2, 2])]);
        curves.units.iter_mut().for_each(|unit| (unit.errors[4], unit.pruning[4]) = (0.005, 0.0));
        assert_eq!(compared(&curves, 0.8125), [(Origin::Estimated, vec![4, 4]), (Origin::Uniform, vec![4, 4])]);
    }

    #[test]
    fn a_rate_that_no_candidate_reaches_is_refused() {
        assert!(finalists_at(&curves(), 0.9).is_ok());
        assert!(finalists_at(&curves(), 0.91).is_err());
    }
}
