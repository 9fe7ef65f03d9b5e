//! Layers and methods that several tests share.

use ndarray::Array2;
use rand::{RngExt, SeedableRng};
use sparq_core::{Hessian, LayerCompressor, QuantScheme, Sparsity, Statistics};
use sparq_joint::{OnePass, SequentialA, SequentialB};
use sparq_obs::{CoordinateDescent, HessianAccumulator, Refit};
use sparq_prune::{Magnitude, Obs, Refitted, SparseGpt, Wanda};
use sparq_quant::{Clip, Descended, Gptq, Rtn};

/// A matrix with a few strong directions, as activations have them.
pub(crate) fn random(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let shared = Array2::from_shape_fn((rows, 6), |_| rng.random_range(-1.0_f32..1.0));
    let mix = Array2::from_shape_fn((6, columns), |_| rng.random_range(-1.0_f32..1.0));
    shared.dot(&mix) + Array2::from_shape_fn((rows, columns), |_| rng.random_range(-0.6_f32..0.6))
}

/// `XᵀX` of inputs `x`, `[tokens, in]`.
pub(crate) fn hessian(x: &Array2<f32>) -> Hessian {
    let mut accumulator = HessianAccumulator::new(x.ncols(), Statistics::Hessian).expect("small");
    accumulator.add(x.view()).expect("fits");
    accumulator.finish()
}

/// Every method, and whether its mask has exactly the requested count.
pub(crate) fn methods(sparsity: Sparsity, scheme: QuantScheme) -> Vec<(Box<dyn LayerCompressor>, bool)> {
    let sparsegpt = || SparseGpt::new(sparsity);
    vec![
        (Box::new(Magnitude::new(sparsity)), true),
        (Box::new(Wanda::new(sparsity)), true),
        (Box::new(sparsegpt()), true),
        (Box::new(Rtn::new(scheme).clip(Clip::Mse)), false),
        (Box::new(Gptq::new(scheme)), false),
        (Box::new(Gptq::new(scheme).act_order(true)), false),
        (Box::new(SequentialA::new(sparsegpt(), Gptq::new(scheme))), false),
        (Box::new(SequentialB::new(sparsegpt(), Gptq::new(scheme))), true),
        (Box::new(SequentialB::new(Wanda::new(sparsity), Gptq::new(scheme).act_order(true))), true),
        (Box::new(SequentialB::new(Magnitude::new(sparsity), Rtn::new(scheme))), true),
        (Box::new(Refitted::new(Wanda::new(sparsity), Refit::new(5))), true),
        (Box::new(SequentialB::new(Refitted::new(sparsegpt(), Refit::new(5)), Gptq::new(scheme))), true),
        (Box::new(Obs::new(sparsity)), true),
        (Box::new(Refitted::new(Obs::new(sparsity), Refit::new(3)).rounds(3)), true),
        (Box::new(Descended::new(Rtn::new(scheme), CoordinateDescent::new(2))), false),
        (Box::new(Descended::new(Gptq::new(scheme).act_order(true), CoordinateDescent::new(2))), false),
        (
            Box::new(Descended::new(
                SequentialB::new(Refitted::new(Obs::new(sparsity), Refit::new(3)), Gptq::new(scheme).clip(Clip::Mse)),
                CoordinateDescent::new(2),
            )),
            true,
        ),
        (Box::new(OnePass::new(sparsegpt(), Gptq::new(scheme))), true),
        (Box::new(OnePass::new(Wanda::new(sparsity), Gptq::new(scheme))), true),
    ]
}
