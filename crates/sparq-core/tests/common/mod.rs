//! Layers and methods that several tests share.

use ndarray::Array2;
use rand::{RngExt, SeedableRng};
use sparq_core::{Composition, Curvature, LayerCompressor, QuantScheme, Solver, Sparsity};
use sparq_prune::{Magnitude, Obs, SparseGpt, Wanda};
use sparq_quant::{Clip, Gptq, Rtn};

/// A matrix with a few strong directions, as activations have them.
pub(crate) fn random(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let shared = Array2::from_shape_fn((rows, 6), |_| rng.random_range(-1.0_f32..1.0));
    let mix = Array2::from_shape_fn((6, columns), |_| rng.random_range(-1.0_f32..1.0));
    shared.dot(&mix) + Array2::from_shape_fn((rows, columns), |_| rng.random_range(-0.6_f32..0.6))
}

/// Of inputs `x`, `[tokens, in]`.
pub(crate) fn curvature(x: &Array2<f32>) -> Curvature {
    Curvature::of_inputs(x.view()).expect("small")
}

/// Every method, and whether its mask has exactly the requested count.
pub(crate) fn methods(sparsity: Sparsity, scheme: QuantScheme) -> Vec<(Box<dyn LayerCompressor>, bool)> {
    let sparsegpt = || SparseGpt::new(sparsity);
    let obs = || Solver::new().prune(Obs::new(sparsity));
    let case_a = || Solver::new().composition(Composition::SequentialA);
    let case_b = || Solver::new().composition(Composition::SequentialB);
    let joint = || Solver::new().composition(Composition::Joint).quantize(Gptq::new(scheme));
    vec![
        (Box::new(Magnitude::new(sparsity)), true),
        (Box::new(Wanda::new(sparsity)), true),
        (Box::new(sparsegpt()), true),
        (Box::new(Obs::new(sparsity)), true),
        (Box::new(Rtn::new(scheme).clip(Clip::Mse)), false),
        (Box::new(Gptq::new(scheme)), false),
        (Box::new(case_a().prune(sparsegpt()).quantize(Gptq::new(scheme))), false),
        (Box::new(case_b().prune(sparsegpt()).quantize(Gptq::new(scheme))), true),
        (Box::new(case_b().prune(Wanda::new(sparsity)).quantize(Gptq::new(scheme))), true),
        (Box::new(case_b().prune(Magnitude::new(sparsity)).quantize(Rtn::new(scheme))), true),
        (Box::new(Solver::new().prune(Wanda::new(sparsity)).refit(5)), true),
        (Box::new(case_b().prune(sparsegpt()).refit(5).quantize(Gptq::new(scheme))), true),
        (Box::new(obs().refit(3).mask_rounds(3)), true),
        (Box::new(Solver::new().quantize(Rtn::new(scheme)).descent(2)), false),
        (Box::new(Solver::new().quantize(Gptq::new(scheme)).descent(2)), false),
        (Box::new(obs().refit(3).quantize(Gptq::new(scheme).clip(Clip::Mse)).descent(2)), true),
        (Box::new(joint().prune(sparsegpt())), true),
        (Box::new(joint().prune(Wanda::new(sparsity))), true),
    ]
}
