//! One suite for every method: what must hold whatever the layer.

mod common;

use common::{hessian, methods, random};
use ndarray::Array2;
use proptest::prelude::*;
use sparq_core::{Bits, Hessian, LayerCompressor, LayerProblem, QuantScheme, Sparsity};
use sparq_joint::{OnePass, SequentialA, SequentialB};
use sparq_obs::{CoordinateDescent, Damping, Refit};
use sparq_prune::{Magnitude, Obs, Refitted, SparseGpt, Wanda};
use sparq_quant::{Descended, Gptq, Rtn};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_method_keeps_its_promises(
        rows in 1_usize..24, quarters in 1_usize..50, group in 1_usize..90, bits in 2_u8..=8,
        symmetric: bool, pattern in 0_usize..4, seed in 0_u64..100,
    ) {
        let width = 4 * quarters;
        let sparsity: Sparsity = ["0.5", "0.25", "2:4", "3:4"][pattern].parse().expect("valid");
        let mut scheme = QuantScheme::new(Bits::new(bits).expect("valid")).group(group).expect("valid");
        scheme = if symmetric { scheme } else { scheme.asymmetric() };
        let (weight, hessian) = (random(rows, width, seed), hessian(&random(width + 8, width, seed + 1)));
        let scaled = match &hessian {
            Hessian::Full { matrix, tokens } => Hessian::Full { matrix: matrix * 4.0, tokens: *tokens },
            other => other.clone(),
        };
        let problem = LayerProblem::new("layer", weight.view(), &hessian).expect("valid");
        for (method, exact) in methods(sparsity, scheme) {
            let layer = method.compress(&problem).expect("solved");
            let name = method.name();
            prop_assert!(layer.weight.iter().all(|value| value.is_finite()), "{name}");
            if let Some(quantized) = &layer.quantized {
                prop_assert!(quantized.codes.iter().all(|code| *code <= scheme.bits.max_code()), "{name}");
                prop_assert!(quantized.scales.iter().all(|scale| *scale > 0.0), "{name}");
                prop_assert!(quantized.scales.iter().all(|scale| *scale == scheme.scale_type.round(*scale)), "{name}");
                prop_assert_eq!(quantized.dequantize(), layer.weight.clone(), "{}", name);
            }
            if let (true, Some(mask)) = (exact, &layer.mask) {
                let removed = mask.dim().0 * mask.dim().1 - mask.kept();
                prop_assert_eq!(removed, (sparsity.fraction() * (rows * width) as f64).round() as usize, "{}", name);
                for (kept, value) in mask.view().iter().zip(&layer.weight) {
                    prop_assert!(*kept || value.to_bits() == 0, "{name}: a removed weight is {value}");
                }
            }
            // A positive factor on the Hessian changes nothing; a power of two not even a bit.
            let again = method.compress(&LayerProblem::new("layer", weight.view(), &scaled).expect("valid")).expect("solved");
            prop_assert_eq!(&again.weight, &layer.weight, "{}", name);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a thread pool");
            let threads = pool.install(|| method.compress(&problem)).expect("solved");
            prop_assert_eq!(&threads, &layer, "{}", name);
        }
    }
}

#[test]
fn on_fresh_tokens_the_methods_rank_as_expected() {
    // Mean over seeds of the relative output error on tokens the solvers have not seen.
    let mut sums = std::collections::BTreeMap::<&str, f64>::new();
    let half = Sparsity::unstructured(0.5).expect("valid");
    let int4 = QuantScheme::new(Bits::B4).group(32).expect("valid");
    for seed in 0..4 {
        let x = random(3072, 256, 50 + seed);
        let (calibration, fresh) = x.view().split_at(ndarray::Axis(0), 2048);
        let (seen, fresh) = (hessian(&calibration.to_owned()), hessian(&fresh.to_owned()));
        let weight = random(64, 256, seed);
        let problem = LayerProblem::new("layer", weight.view(), &seen).expect("valid");
        let methods: Vec<(&str, Box<dyn LayerCompressor>)> = vec![
            ("magnitude", Box::new(Magnitude::new(half))),
            ("wanda", Box::new(Wanda::new(half))),
            ("sparsegpt", Box::new(SparseGpt::new(half))),
            ("rtn", Box::new(Rtn::new(int4))),
            ("gptq", Box::new(Gptq::new(int4))),
            ("case a", Box::new(SequentialA::new(SparseGpt::new(half), Gptq::new(int4)))),
            ("case b", Box::new(SequentialB::new(SparseGpt::new(half), Gptq::new(int4)))),
            ("one pass", Box::new(OnePass::new(SparseGpt::new(half), Gptq::new(int4)))),
            ("refit", Box::new(Refitted::new(SparseGpt::new(half), Refit::new(8)))),
            (
                "refit, case b",
                Box::new(SequentialB::new(Refitted::new(SparseGpt::new(half), Refit::new(8)), Gptq::new(int4))),
            ),
            (
                "refit, case b, descended",
                Box::new(Descended::new(
                    SequentialB::new(Refitted::new(SparseGpt::new(half), Refit::new(8)), Gptq::new(int4)),
                    CoordinateDescent::new(3),
                )),
            ),
            ("gptq descended", Box::new(Descended::new(Gptq::new(int4), CoordinateDescent::new(3)))),
            ("obs refitted", Box::new(Refitted::new(Obs::new(half), Refit::new(8)))),
            ("obs refitted in rounds", Box::new(Refitted::new(Obs::new(half), Refit::new(8)).rounds(4))),
            ("wanda rounded", Box::new(SequentialB::new(Wanda::new(half), Rtn::new(int4)))),
        ];
        for (name, method) in methods {
            let layer = method.compress(&problem).expect("solved");
            *sums.entry(name).or_default() +=
                sparq_obs::relative_output_error(weight.view(), layer.weight.view(), &fresh) / 4.0;
        }
    }
    for (better, worse) in [
        ("sparsegpt", "wanda"),
        ("wanda", "magnitude"),
        ("gptq", "rtn"),
        ("one pass", "case b"),
        ("refit", "sparsegpt"),
        ("refit, case b", "one pass"),
        ("case b", "wanda rounded"),
        ("refit, case b, descended", "refit, case b"),
        ("gptq descended", "gptq"),
    ] {
        assert!(sums[better] < sums[worse], "{better} should beat {worse}: {sums:#?}");
    }
}

#[test]
fn with_a_fixed_mask_starting_from_dense_or_from_sparsegpt_is_the_same() {
    let (weight, hessian) = (random(16, 64, 1), hessian(&random(256, 64, 2)));
    let problem = LayerProblem::new("layer", weight.view(), &hessian).expect("valid");
    let damping = Damping::new(0.01).expect("valid");
    let pruned = SparseGpt::new("2:4".parse().expect("valid")).damping(damping).compress(&problem).expect("solved");
    let gptq = Gptq::new(QuantScheme::new(Bits::B8)).damping(damping);
    let from = |start: &Array2<f32>| {
        use sparq_quant::Quantizer;
        let problem = problem.with_weight(start.view()).expect("same shape");
        gptq.compress_within(&problem, pruned.mask.as_ref()).expect("solved").weight
    };
    let (dense, sparse) = (from(&weight), from(&pruned.weight));
    // Grids and corrections agree to rounding; a code may fall on either side of a tie.
    let same = dense.iter().zip(&sparse).filter(|(x, y)| (**x - **y).abs() < 1e-3 * (1.0 + y.abs())).count();
    assert!(same * 100 >= dense.len() * 97, "{same} of {}", dense.len());
}

#[test]
fn trouble_is_reported_not_fatal() {
    let weight = random(4, 8, 1);
    let broken = Hessian::Full { matrix: Array2::from_elem((8, 8), f32::NAN), tokens: 3 };
    let problem = LayerProblem::new("layer", weight.view(), &broken).expect("valid");
    let scheme = QuantScheme::new(Bits::B4);
    let layer = OnePass::new(SparseGpt::new("2:4".parse().expect("valid")), Gptq::new(scheme))
        .compress(&problem)
        .expect("solved");
    assert!(!layer.report.fallbacks.is_empty() && layer.weight.iter().all(|value| value.is_finite()));
    let ragged = random(2, 6, 1);
    let problem = LayerProblem::new("blk", ragged.view(), &Hessian::None).expect("valid");
    let error = Magnitude::new("2:4".parse().expect("valid")).compress(&problem).expect_err("6 is no multiple of 4");
    assert!(error.to_string().contains("blk") && error.to_string().contains('6'), "{error}");
    assert!(Gptq::new(scheme).compress(&problem).is_err());
}
