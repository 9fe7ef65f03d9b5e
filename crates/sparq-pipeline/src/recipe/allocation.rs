use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use sparq_core::{Bits, Sparsity};
use std::collections::BTreeMap;

/// Sparsity and bits of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerBudget {
    /// How much is removed, in which pattern.
    pub sparsity: Sparsity,
    /// Bits per weight; none leaves it unquantized, unless there is a rate.
    pub bits: Option<Bits>,
    /// Bits a weight once the codes are coded, of codes without a fixed width; none if they have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
}

impl LayerBudget {
    /// Theoretical compression rate, `1 - (1 - s) · q / 16`; that of codes at a rate is `1 - rate / 16`, for zeros are among
    /// them.
    pub fn tcr(&self) -> f64 {
        if let Some(rate) = self.rate {
            return 1.0 - rate / 16.0;
        }
        // The types hold no sparsity and no bits that the metric refuses.
        sparq_metric::tcr(self.sparsity.fraction(), self.bits_or_16()).unwrap_or(0.0)
    }

    /// Share of the 16-bit weights that is kept: one minus the theoretical compression rate.
    pub fn cost(&self) -> f64 {
        1.0 - self.tcr()
    }

    /// Bits of a weight that stays; 16 if not quantized.
    pub(super) fn bits_or_16(&self) -> f64 {
        self.rate.unwrap_or(self.bits.map_or(16.0, |bits| f64::from(bits.get())))
    }
}

/// Sparsity and bits layer by layer, where they are not the same everywhere.
///
/// A file of it is JSON: `{"layers": {"model.layers.0.mlp.down_proj": {"sparsity": "0.125", "bits": 4}, ...}, ...}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allocation {
    /// By full module name. Layers that are not named get the recipe's own.
    pub layers: BTreeMap<String, LayerBudget>,
    /// Theoretical compression rate over the named layers, by their numbers of weights.
    pub tcr: f64,
    /// Mean sparsity over the named layers, by their numbers of weights.
    pub sparsity: f64,
    /// Mean bits of the weights that stay.
    pub bits: f64,
}

impl Allocation {
    /// From layers with their numbers of weights.
    ///
    /// ```
    /// use sparq_core::{Bits, Sparsity};
    /// use sparq_pipeline::{Allocation, LayerBudget};
    /// let budget = |s, bits| LayerBudget { sparsity: Sparsity::Unstructured(s), bits: Some(bits), rate: None };
    /// let both = [("a".to_owned(), 100, budget(0.5, Bits::B4)), ("b".to_owned(), 100, budget(0.0, Bits::B4))];
    /// let allocation = Allocation::new(both);
    /// assert_eq!((allocation.tcr, allocation.sparsity, allocation.bits), (0.8125, 0.25, 4.0));
    /// ```
    pub fn new(layers: impl IntoIterator<Item = (String, usize, LayerBudget)>) -> Self {
        let (mut named, mut all, mut cost, mut removed) = (BTreeMap::new(), 0.0, 0.0, 0.0);
        for (name, weights, budget) in layers {
            let weights = weights as f64;
            all += weights;
            cost += weights * budget.cost();
            removed += weights * budget.sparsity.fraction();
            named.insert(name, budget);
        }
        let share = |sum: f64, of: f64| if of > 0.0 { sum / of } else { 0.0 };
        Self {
            layers: named,
            tcr: 1.0 - share(cost, all),
            sparsity: share(removed, all),
            bits: 16.0 * share(cost, all - removed),
        }
    }

    /// What every named layer gets, if that is the same.
    ///
    /// ```
    /// use sparq_core::{Bits, Sparsity};
    /// use sparq_pipeline::{Allocation, LayerBudget};
    /// let budget = |s| LayerBudget { sparsity: Sparsity::Unstructured(s), bits: Some(Bits::B4), rate: None };
    /// let of_two = |first, second| Allocation::new([("a".to_owned(), 100, first), ("b".to_owned(), 100, second)]);
    /// assert_eq!(of_two(budget(0.25), budget(0.25)).uniform(), Some(budget(0.25)));
    /// assert_eq!(of_two(budget(0.25), budget(0.5)).uniform(), None);
    /// ```
    pub fn uniform(&self) -> Option<LayerBudget> {
        let mut budgets = self.layers.values();
        let first = *budgets.next()?;
        budgets.all(|&budget| budget == first).then_some(first)
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// [`Error::Recipe`] if it is none.
    pub fn parse(json: &str) -> Result<Self> {
        let bad = |reason: String| Error::Recipe { recipe: "an allocation".to_owned(), reason };
        let allocation: Self = serde_json::from_str(json).map_err(|error| bad(error.to_string()))?;
        let in_range = |value: f64| (0.0..=16.0).contains(&value);
        if allocation.layers.is_empty()
            || ![allocation.tcr, allocation.sparsity, allocation.bits].map(in_range).iter().all(|&good| good)
        {
            return Err(bad("it names no layer, or its rate, sparsity or bits are no such numbers".into()));
        }
        Ok(allocation)
    }

    /// The first eight digits of the SHA-256 of the layers: a name for it.
    pub fn short_hash(&self) -> String {
        let text = serde_json::to_string(&self.layers).unwrap_or_default();
        sparq_tensor::digest([text]).chars().take(8).collect()
    }
}
