use crate::{Plan, Profile, Recipe, TuningReport};
use serde::{Deserialize, Serialize};
use sparq_core::{Codes, CompressedLayer, Fallback};
use std::fmt;

/// How one linear layer came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Full module name.
    pub name: String,
    /// Index of its block; of embedding and output matrix the number of blocks.
    pub block: usize,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// Number of weights.
    pub weights: usize,
    /// Weights that are exactly zero at the end.
    pub zeros: usize,
    /// Stored bits for each weight: codes, scales and zero points; 16 if not quantized.
    pub bits_per_weight: f64,
    /// The same in a coded file, where a code takes as many bits as it is rare (docs/coding.md).
    pub coded_bits_per_weight: f64,
    /// The least bits a weight at which its error is possible ([`shannon_bound`](sparq_core::OutputError::shannon_bound)); none without a
    /// Hessian, for layers that are not quantized, and after tuning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_bits_per_weight: Option<f64>,
    /// `‖X(W - W')ᵀ‖² / ‖XWᵀ‖²` on the calibration tokens; of the weights alone if there were none or their sums
    /// overflowed. `W` is what the layer was asked to be: where drift is undone, not quite the dense weight. As solved: tuning
    /// comes later.
    pub relative_output_error: f64,
    /// Damping used, as a fraction of the mean diagonal of the Hessian.
    pub damping: Option<f64>,
    /// What could not be done as asked.
    pub fallbacks: Vec<Fallback>,
    /// Calibration tokens seen.
    pub tokens: u64,
    /// Wall time of the solve.
    pub seconds: f64,
}

impl LayerReport {
    /// On a layer with this relative output error that was solved without calibration tokens.
    pub(crate) fn new(name: &str, block: usize, layer: &CompressedLayer, relative_output_error: f64) -> Self {
        let (rows, width) = layer.weight.dim();
        let weights = rows * width;
        let a_weight = |bits: f64| bits / (weights as f64).max(1.0);
        let coded = layer.codes.as_ref().map_or(16.0, |codes| a_weight(codes.coded_bits() as f64));
        let fixed = layer.codes.as_ref().and_then(Codes::fixed_bits).map(a_weight);
        Self {
            name: name.to_owned(),
            block,
            shape: [rows, width],
            weights,
            zeros: layer.weight.iter().filter(|value| **value == 0.0).count(),
            bits_per_weight: fixed.unwrap_or(coded),
            coded_bits_per_weight: coded,
            bound_bits_per_weight: None,
            relative_output_error,
            damping: layer.report.damping,
            fallbacks: layer.report.fallbacks.clone(),
            tokens: 0,
            seconds: 0.0,
        }
    }

    /// After its codes have become others.
    pub(crate) fn recount(&mut self, codes: &Codes) {
        self.zeros = self.weights - codes.nonzero().kept();
        self.coded_bits_per_weight = codes.coded_bits() as f64 / (self.weights as f64).max(1.0);
        if codes.fixed_bits().is_none() {
            self.bits_per_weight = self.coded_bits_per_weight;
        }
        self.bound_bits_per_weight = None;
    }
}

impl fmt::Display for LayerReport {
    /// One line: `model.layers.3.mlp.down_proj  25.0 % zero  4.25 bit (3.78 coded)  error 1.8e-2  2.1 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zeros = 100.0 * self.zeros as f64 / self.weights.max(1) as f64;
        write!(
            f,
            "{}  {zeros:.1} % zero  {:.2} bit ({:.2} coded)  error {:.1e}  {:.1} s",
            self.name, self.bits_per_weight, self.coded_bits_per_weight, self.relative_output_error, self.seconds
        )?;
        self.fallbacks.iter().try_for_each(|fallback| write!(f, "  ({fallback})"))
    }
}

/// How a whole checkpoint came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompressionReport {
    /// What was asked for.
    pub recipe: Recipe,
    /// Version of this crate.
    pub version: String,
    /// What was planned, memory included.
    pub plan: Plan,
    /// Theoretical compression rate of what was asked for, `1 - (1 - s) · q / 16`.
    pub requested_tcr: f64,
    /// Fraction of the compressed layers' weights that are exactly zero.
    pub measured_sparsity: f64,
    /// Mean stored bits for each weight of the compressed layers.
    pub bits_per_weight: f64,
    /// The same in a coded file. One minus a sixteenth of it is the measured compression rate (MCr).
    pub coded_bits_per_weight: f64,
    /// Number of layers with at least one fallback.
    pub layers_with_fallbacks: usize,
    /// Wall time, that of interrupted parts of the run included.
    pub seconds: f64,
    /// Where it went; only of the part that ended here.
    #[serde(default)]
    pub profile: Profile,
    /// How the tuning of the whole model went, if it was tuned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<TuningReport>,
    /// Every layer, in order.
    pub layers: Vec<LayerReport>,
}

impl CompressionReport {
    /// After tuning, when layers have been counted again.
    pub(crate) fn tuned(&mut self, tuning: TuningReport) {
        (self.measured_sparsity, self.bits_per_weight, self.coded_bits_per_weight) =
            means(&self.layers, self.plan.blocks);
        self.seconds += tuning.seconds;
        self.tuning = Some(tuning);
    }

    /// Coded bits of the whole model for each of its parameters; what is not compressed counts 16 bits.
    pub fn model_bits_per_weight(&self) -> f64 {
        let (mut bits, mut weights) = (0.0, 0);
        for layer in &self.layers {
            bits += layer.coded_bits_per_weight * layer.weights as f64;
            weights += layer.weights;
        }
        let rest = self.plan.parameters.saturating_sub(weights);
        (bits + 16.0 * rest as f64) / ((weights + rest) as f64).max(1.0)
    }

    pub(crate) fn new(recipe: &Recipe, plan: Plan, layers: Vec<LayerReport>, seconds: f64, profile: Profile) -> Self {
        let (sparsity, stored, coded) = means(&layers, plan.blocks);
        Self {
            recipe: recipe.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            plan,
            requested_tcr: recipe.tcr(),
            measured_sparsity: sparsity,
            bits_per_weight: stored,
            coded_bits_per_weight: coded,
            layers_with_fallbacks: layers.iter().filter(|layer| !layer.fallbacks.is_empty()).count(),
            seconds,
            profile,
            tuning: None,
            layers,
        }
    }
}

/// Sparsity, stored and coded bits a weight, of all layers together.
fn means(layers: &[LayerReport], blocks: usize) -> (f64, f64, f64) {
    // Embedding and output matrix are no layers of the blocks, which rates are over.
    let inside = || layers.iter().filter(|layer| layer.block < blocks);
    let weights: usize = inside().map(|layer| layer.weights).sum();
    let mean = |value: &dyn Fn(&LayerReport) -> f64| {
        // The sum of nothing is minus zero.
        let sum: f64 = inside().map(|layer| layer.weights as f64 * value(layer)).sum();
        (sum + 0.0) / weights.max(1) as f64
    };
    (
        mean(&|layer| layer.zeros as f64 / layer.weights.max(1) as f64),
        mean(&|layer| layer.bits_per_weight),
        mean(&|layer| layer.coded_bits_per_weight),
    )
}
