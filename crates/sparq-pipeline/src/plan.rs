use crate::compressors::Compressors;
use crate::recipe::Recipe;
use crate::sharing::{Sharing, token_share};
use crate::stage_drift::StageDrift;
use crate::targets::Matcher;
use crate::tuning::TuningPlan;
use crate::{Allocation, Calibration, Error, Result, unmatched};
use serde::{Deserialize, Serialize};
use sparq_core::{CompressError, QuantScheme, Sparsity, Statistics};
use sparq_model::{LinearShape, Model};
use std::fmt;

/// Tokens that go through a block at a time: enough for full-speed products, few enough that what exists for a moment
/// only stays small beside what is kept.
pub(crate) const BATCH_TOKENS: usize = 2048;

/// Tokens in a batch for this recipe: a part of the text that is held out is at least one.
pub(crate) fn batch_tokens(recipe: &Recipe, calibration: &Calibration) -> usize {
    let held_out = (calibration.tokens() as f64 * recipe.held_out) as usize;
    if held_out > 0 { BATCH_TOKENS.min(held_out) } else { BATCH_TOKENS }
}

/// What a compression will do, and the memory it will take, known before the first weight is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Transformer blocks.
    pub blocks: usize,
    /// Linear layers that will be compressed.
    pub layers: usize,
    /// Their weights.
    pub weights: usize,
    /// Parameters of the whole model.
    pub parameters: usize,
    /// Calibration sequences and tokens; 0 if none are needed.
    pub sequences: usize,
    /// Calibration tokens.
    pub tokens: usize,
    /// Bytes of one block as `f32`.
    pub block_bytes: u64,
    /// Bytes of the largest Hessian with what its factorization takes.
    pub hessian_bytes: u64,
    /// Bytes of the activations between stages.
    pub activation_bytes: u64,
    /// Of those, what no budget can move to a file: the batch at work.
    #[serde(default)]
    pub working_activation_bytes: u64,
    /// Bytes of waiting activations that each stream may keep in memory; none if all stay there.
    #[serde(default)]
    pub resident_bytes: Option<u64>,
    /// Streams of activations: two if drift is corrected, the compressed model's and the dense one's.
    #[serde(default)]
    pub streams: u64,
    /// What tuning will take, if the recipe tunes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tuning: Option<TuningPlan>,
    /// What a process does, if several share the work; bytes are then those of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing: Option<Sharing>,
    /// Predicted peak of all of these, the embedding matrix, a layer's working copies and what waits to be committed.
    pub peak_bytes: u64,
    /// Predicted peak of what an interruptible run keeps on disk: the activations that enter a block (two copies while
    /// one replaces the other), waiting activations, and the solution. The output comes on top.
    pub partial_bytes: u64,
}

impl Plan {
    /// Plans `recipe` for `model`, and refuses what cannot work.
    ///
    /// # Errors
    /// [`Error::NoTargets`], [`Error::UnmatchedPattern`], [`Error::Recipe`] for an allocation of another model,
    /// [`Error::Calibration`] if data is needed and none is given, [`Error::Model`] if its sequences are longer than the model's
    /// positions, [`Error::Compress`] if a pattern does not divide a layer's width.
    pub fn new(model: &Model, recipe: &Recipe, calibration: Option<&Calibration>) -> Result<Self> {
        Self::shared(model, recipe, calibration, 1)
    }

    /// The same for each of several processes that share the work.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn shared(model: &Model, recipe: &Recipe, calibration: Option<&Calibration>, processes: usize) -> Result<Self> {
        let compressors = Compressors::new(recipe.clone())?;
        let needs = compressors.needs();
        let targets = recipe.targets.build()?;
        let estimate = model.memory_estimate();
        let (mut layers, mut weights, mut widest, mut largest) = (0, 0, 0_u64, 0_u64);
        let (mut matched, mut waiting) = (false, 0_u64);
        if let Some(allocation) = &recipe.allocation {
            check_allocation(model, allocation)?;
        }
        let (mut solution_bits, mut with_codes) = (0.0, 0);
        for index in 0..model.block_count() {
            // Weights without codes wait as they are until their block can be committed.
            let mut of_block = 0;
            for linear in chosen(model, index, &targets)? {
                matched = true;
                if compressors.of(&linear.name).is_none() {
                    continue; // left as it is
                }
                let budget = recipe.budget(&linear.name);
                check_width(&linear.name, linear.in_features, budget.sparsity)?;
                layers += 1;
                weights += linear.weights();
                let of_grid =
                    |scheme: QuantScheme| scheme.stored_bits_per_weight(linear.out_features, linear.in_features);
                let bits = budget.rate.or(recipe.scheme_of(budget).map(of_grid)).unwrap_or(32.0);
                let mask_bits = if budget.sparsity.is_dense() { 0.0 } else { 1.0 };
                solution_bits += linear.weights() as f64 * (bits + mask_bits);
                if budget.bits.is_none() && budget.rate.is_none() {
                    of_block += 4 * linear.weights() as u64;
                } else {
                    with_codes += linear.weights() as u64;
                }
                widest = widest.max(linear.in_features as u64);
                largest = largest.max(linear.weights() as u64);
            }
            waiting = waiting.max(of_block);
        }
        if recipe.embeddings.is_some() {
            layers += model.vocabulary_tensors().count();
        }
        if !matched {
            let example = model.linear_names().next().unwrap_or_default().to_owned();
            return Err(Error::NoTargets { example });
        }
        unmatched::check(model, &recipe.targets)?;
        if recipe.tune > 0 && with_codes == 0 {
            let (first, second) = ("tune".to_owned(), "weights without codes".to_owned());
            let reason = "what is tuned are codes and their scales; give q or rate, or tune=0".to_owned();
            return Err(CompressError::Conflict { first, second, reason }.into());
        }
        let used = if needs == Statistics::Nothing && recipe.tune == 0 {
            None
        } else {
            Some(calibration.ok_or_else(|| Error::Calibration { what: format!("{recipe} needs calibration text") })?)
        };
        model.config().check_length(used.map_or(0, Calibration::longest))?;
        let tuning = match used.filter(|_| recipe.tune > 0) {
            Some(used) => Some(TuningPlan::new(model, recipe.tune, with_codes, used)?),
            None => None,
        };
        let (tuning_bytes, tuning_disk) = tuning.map_or((0, 0), |plan| (plan.bytes, plan.disk_bytes));
        let (sequences, tokens) = used.map_or((0, 0), |used| (used.sequences().len(), used.tokens()));
        let corrects_drift = compressors.correct_drift();
        let hessian_bytes = match needs {
            // The sum and its factor in f32, two matrices of f64 while factoring, the sum in another order of channels; how
            // far inputs or outputs have drifted.
            Statistics::Hessian => {
                let drift = if corrects_drift { 4 * drift_values(model)? } else { 0 };
                let reordered = if recipe.act_order { widest * widest * 4 } else { 0 };
                widest * widest * (4 + 4 + 8 + 8) + drift + reordered
            }
            _ => widest * 4,
        };
        // The dense model walks beside the compressed one.
        let streams = if corrects_drift { 2 } else { 1 };
        let batch = used.map_or(0, |used| batch_tokens(recipe, used).min(tokens).max(used.longest())) as u64;
        // Stage by stage all batches are looked at, then all move on: what one leaves for the next stage is kept of each.
        let kept = estimate.kept_per_token;
        let own = (tokens as f64 * token_share(processes)).ceil() as u64;
        // What the held-out ones should become at a stage, and one of them on its way.
        let choosing = if recipe.held_out > 0.0 { ((own as f64 * recipe.held_out) as u64 + batch) * kept } else { 0 };
        let activation_bytes =
            streams * own * kept + batch * estimate.activations_per_token.saturating_sub(kept) + choosing;
        let working_activation_bytes =
            batch * (estimate.activations_per_token.max(kept) + (streams - 1) * kept) + choosing;
        // Dense and compressed weight, error block, difference, mask and codes; descent and drift take as much again.
        let working = largest * (4 + 4 + 4 + 2) * if corrects_drift || recipe.descent > 0 { 2 } else { 1 } + waiting;
        // Embedding and output matrix as they become, and while they are solved once more with their codes.
        let vocabulary = if recipe.embeddings.is_some() { estimate.embeddings * 5 / 2 } else { 0 };
        let solving =
            streams * estimate.block + hessian_bytes + activation_bytes + working + estimate.embeddings + vocabulary;
        let sharing = match processes {
            0 | 1 => None,
            _ => Some(Sharing::new(model, recipe, &compressors, &targets, (tokens, processes))?),
        };
        Ok(Self {
            sharing,
            blocks: model.block_count(),
            layers,
            weights,
            parameters: model.parameters(),
            sequences,
            tokens,
            block_bytes: estimate.block,
            hessian_bytes,
            activation_bytes,
            working_activation_bytes,
            resident_bytes: None,
            streams,
            partial_bytes: 2 * tokens as u64 * estimate.residual_per_token
                + (solution_bits / 8.0) as u64 * if recipe.tune > 0 { 2 } else { 1 }
                + tuning_disk,
            tuning,
            peak_bytes: solving.max(tuning_bytes),
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mega = |bytes: u64| bytes as f64 / 1e6;
        write!(
            f,
            "{} layers in {} blocks, {:.1} M weights, {} calibration tokens; predicted peak memory {:.1} MB besides what the \
             process holds already, on disk {:.1} MB besides the output",
            self.layers,
            self.blocks,
            self.weights as f64 / 1e6,
            self.tokens,
            mega(self.peak_bytes),
            mega(self.partial_bytes),
        )?;
        if let Some(tuning) = &self.tuning {
            write!(f, "; {tuning}")?;
        }
        if let Some(sharing) = &self.sharing {
            write!(f, "; {sharing}")?;
        }
        match self.resident_bytes {
            Some(resident) => {
                let kept = mega(self.streams * resident);
                write!(f, "; of waiting activations {kept:.1} MB stay in memory, the rest waits in a file")
            }
            None => Ok(()),
        }
    }
}

impl Plan {
    /// The same within a budget: what of the activations does not fit waits in a file.
    ///
    /// # Errors
    /// [`Error::MemoryBudget`] if what must be in memory does not fit.
    pub fn within(self, budget: u64) -> Result<Self> {
        if self.peak_bytes <= budget {
            return Ok(self);
        }
        if let Some(tuning) = self.tuning.filter(|tuning| tuning.bytes > budget) {
            return Err(Error::MemoryBudget { budget, least: tuning.bytes });
        }
        let others = self.peak_bytes - self.activation_bytes;
        let least = others + self.working_activation_bytes.min(self.activation_bytes);
        if budget < least {
            return Err(Error::MemoryBudget { budget, least });
        }
        let waiting = budget - least;
        Ok(Self {
            activation_bytes: self.working_activation_bytes + waiting,
            resident_bytes: Some(waiting / self.streams.max(1)),
            partial_bytes: self.partial_bytes + self.activation_bytes.saturating_sub(waiting),
            peak_bytes: budget,
            ..self
        })
    }
}

/// Values of the largest sum for the drift of a stage.
fn drift_values(model: &Model) -> Result<u64> {
    let mut largest = 0;
    for index in 0..model.block_count() {
        let plan = model.block_plan(index)?;
        largest = (0..plan.stages()).map(|stage| StageDrift::values(plan, stage)).fold(largest, u64::max);
    }
    Ok(largest)
}

/// The linears of a block that are compressed.
fn chosen<'a>(model: &'a Model, block: usize, targets: &Matcher) -> Result<Vec<&'a LinearShape>> {
    Ok(model.block_plan(block)?.linears().iter().filter(|linear| targets.contains(&linear.name)).collect())
}

/// Refuses an allocation of another model, and one whose totals are not those of its layers.
fn check_allocation(model: &Model, allocation: &Allocation) -> Result<()> {
    let refuse = |reason: String| Error::Recipe { recipe: "an allocation".to_owned(), reason };
    let mut named = Vec::with_capacity(allocation.layers.len());
    for index in 0..model.block_count() {
        let linears = model.block_plan(index)?.linears();
        let budget = |linear: &LinearShape| allocation.layers.get(&linear.name).copied();
        let of_block =
            linears.iter().filter_map(|linear| Some((linear.name.clone(), linear.weights(), budget(linear)?)));
        named.extend(of_block);
    }
    let known = Allocation::new(named);
    if let Some(name) = allocation.layers.keys().find(|name| !known.layers.contains_key(*name)) {
        let example = model.linear_names().next().unwrap_or_default();
        return Err(refuse(format!(
            "the model has no layer {name:?}; its layers are named like {example:?}: the allocation is another model's"
        )));
    }
    for (what, said, is) in [
        ("tcr", allocation.tcr, known.tcr),
        ("sparsity", allocation.sparsity, known.sparsity),
        ("bits", allocation.bits, known.bits),
    ] {
        if (said - is).abs() > 1e-6 * is.abs().max(1.0) {
            return Err(refuse(format!("it says {what} {said}, but its layers give {is}: write what they give")));
        }
    }
    Ok(())
}

fn check_width(layer: &str, width: usize, sparsity: Sparsity) -> Result<()> {
    match sparsity {
        Sparsity::NOfM { of, .. } if !width.is_multiple_of(of) => {
            Err(CompressError::Indivisible { layer: layer.to_owned(), width, of }.into())
        }
        _ => Ok(()),
    }
}
