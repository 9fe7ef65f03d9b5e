//! One suite for every method: what must hold whatever the layer.

mod common;

use common::{curvature, methods, random};
use ndarray::Array2;
use proptest::prelude::*;
use sparq_core::{
    Bits, ColumnSweep, Composition, Curvature, GridFit, Hessian, LayerCompressor, LayerProblem, Mask, QuantScheme,
    Quantizer, Refit, Rounding, Selection, Solver, Sparsity, Statistics,
};
use sparq_prune::{Magnitude, Obs, SparseGpt, Wanda};
use sparq_quant::{Clip, Gptq, GridFinder, Rtn};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_method_keeps_its_promises(
        rows in 1_usize..24, quarters in 1_usize..50, group in 1_usize..90, bits in 2_u8..=8,
        symmetric: bool, act_order: bool, pattern in 0_usize..4, seed in 0_u64..100,
    ) {
        let width = 4 * quarters;
        let sparsity: Sparsity = ["0.5", "0.25", "2:4", "3:4"][pattern].parse().expect("valid");
        let mut scheme = QuantScheme::new(Bits::new(bits).expect("valid")).group(group).expect("valid");
        scheme = if symmetric { scheme } else { scheme.asymmetric() };
        let weight = random(rows, width, seed);
        let curvature = curvature(&random(width + 8, width, seed + 1)).act_order(act_order);
        let scaled = match curvature.hessian() {
            Hessian::Full { matrix, tokens } => Hessian::Full { matrix: matrix * 4.0, tokens: *tokens },
            other => other.clone(),
        };
        let scaled = curvature.with_hessian(scaled);
        let problem = LayerProblem::new("layer", weight.view(), &curvature).expect("valid");
        for (method, exact) in methods(sparsity, scheme) {
            let name = method.name();
            let chooses_along = act_order && pattern >= 2 && name.contains("sparsegpt");
            let layer = match method.compress(&problem) {
                Err(error) if chooses_along => {
                    prop_assert!(error.to_string().contains("act-order"), "{name}: {error}");
                    continue;
                }
                layer => layer.expect("solved"),
            };
            prop_assert!(layer.weight.iter().all(|value| value.is_finite()), "{name}");
            if let Some(quantized) = layer.quantized() {
                prop_assert!(quantized.codes.iter().all(|code| *code <= scheme.bits.max_code()), "{name}");
                prop_assert!(quantized.grids.iter().all(|grid| grid.scale > 0.0), "{name}");
                prop_assert!(quantized.grids.iter().all(|grid| grid.scale == scheme.scale_type.round(grid.scale)), "{name}");
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
        let (seen, fresh) = (curvature(&calibration.to_owned()), curvature(&fresh.to_owned()));
        let weight = random(64, 256, seed);
        let problem = LayerProblem::new("layer", weight.view(), &seen).expect("valid");
        let sparsegpt = || Solver::new().prune(SparseGpt::new(half));
        let methods: Vec<(&str, Box<dyn LayerCompressor>)> = vec![
            ("magnitude", Box::new(Magnitude::new(half))),
            ("wanda", Box::new(Wanda::new(half))),
            ("sparsegpt", Box::new(SparseGpt::new(half))),
            ("rtn", Box::new(Rtn::new(int4))),
            ("gptq", Box::new(Gptq::new(int4))),
            ("case b", Box::new(sparsegpt().quantize(Gptq::new(int4)))),
            ("one pass", Box::new(sparsegpt().quantize(Gptq::new(int4)).composition(Composition::Joint))),
            ("refit", Box::new(sparsegpt().refit(8))),
            ("refit, case b", Box::new(sparsegpt().refit(8).quantize(Gptq::new(int4)))),
            ("refit, case b, descended", Box::new(sparsegpt().refit(8).quantize(Gptq::new(int4)).descent(3))),
            ("gptq descended", Box::new(Solver::new().quantize(Gptq::new(int4)).descent(3))),
            ("wanda rounded", Box::new(Solver::new().prune(Wanda::new(half)).quantize(Rtn::new(int4)))),
        ];
        for (name, method) in methods {
            let layer = method.compress(&problem).expect("solved");
            *sums.entry(name).or_default() +=
                sparq_core::relative_output_error(weight.view(), layer.weight.view(), fresh.hessian()) / 4.0;
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
    let (weight, curvature) = (random(16, 64, 1), curvature(&random(256, 64, 2)));
    let problem = LayerProblem::new("layer", weight.view(), &curvature).expect("valid");
    let pruned = SparseGpt::new("2:4".parse().expect("valid")).compress(&problem).expect("solved");
    let gptq = Gptq::new(QuantScheme::new(Bits::B8));
    let from = |start: &Array2<f32>| {
        let problem = problem.with_weight(start.view()).expect("same shape");
        gptq.quantize(&problem, &Selection::of_mask(pruned.mask.as_ref())).expect("solved").into_layer().weight
    };
    let (dense, sparse) = (from(&weight), from(&pruned.weight));
    // Grids and corrections agree to rounding; a code may fall on either side of a tie.
    let same = dense.iter().zip(&sparse).filter(|(x, y)| (**x - **y).abs() < 1e-3 * (1.0 + y.abs())).count();
    assert!(same * 100 >= dense.len() * 97, "{same} of {}", dense.len());
}

#[test]
fn every_mask_round_chooses_among_the_weights_refitted_before_it() {
    let (weight, curvature) = (random(12, 48, 3), curvature(&random(200, 48, 4)));
    let problem = LayerProblem::new("layer", weight.view(), &curvature).expect("valid");
    let obs = |fraction: f64| Obs::new(Sparsity::unstructured(fraction).expect("valid"));
    let solved = Solver::new().prune(obs(0.5)).refit(5).mask_rounds(2).compress(&problem).expect("solved");
    // By hand: a quarter, a refit, a half of what was refitted, a refit.
    let mask = |fraction, weight: &Array2<f32>| -> Mask {
        let problem = problem.with_weight(weight.view()).expect("same shape");
        obs(fraction).compress(&problem).expect("solved").mask.expect("a mask")
    };
    let refit = |mask: &Mask| Refit::new(5).run(weight.view(), mask, &curvature).expect("fits");
    let last = mask(0.5, &refit(&mask(0.25, &weight)));
    assert_eq!(solved.weight, refit(&last));
    assert_ne!(last, mask(0.5, &weight), "choosing among dense weights gives another mask");
    assert_eq!(solved.mask, Some(last));
}

#[test]
fn grids_do_not_span_weights_that_are_removed() {
    let (weight, curvature) = (random(8, 32, 5), curvature(&random(100, 32, 6)));
    let scheme = QuantScheme::new(Bits::B4);
    // The largest weight of each row goes.
    let mut kept = Array2::from_elem((8, 32), true);
    for (row, mut kept) in weight.rows().into_iter().zip(kept.rows_mut()) {
        let largest = (0..32).max_by(|&x, &y| row[x].abs().total_cmp(&row[y].abs())).expect("32 columns");
        kept[largest] = false;
    }
    let mask = Mask::new(kept);
    for act_order in [false, true] {
        let curvature = Curvature::new(curvature.hessian().clone()).act_order(act_order);
        for scheme in [scheme, scheme.group(8).expect("valid")] {
            let problem = LayerProblem::new("layer", weight.view(), &curvature).expect("valid");
            let rounded = Gptq::new(scheme).quantize(&problem, &Selection::of_mask(Some(&mask))).expect("solved");
            let rtn = Rtn::new(scheme).quantize(&problem, &Selection::of_mask(Some(&mask))).expect("solved");
            let finder = GridFinder::new(scheme, Clip::MinMax);
            let sweep = ColumnSweep::new(curvature.factor());
            let pruned = sweep.run(weight.clone(), &Selection::of_mask(Some(&mask)), &Rounding::None).expect("fits");
            if act_order || scheme.granularity != sparq_core::Granularity::Group(8) {
                assert_eq!(grids_of(&rounded), finder.fit_all(pruned.weight.view(), Some(&mask)));
            } else {
                // The first group is fitted before anything has been rounded.
                let first: Vec<bool> = mask.view().row(0).iter().take(8).copied().collect();
                let expected = finder.fit(&weight.row(0).to_vec()[..8], &first);
                assert_eq!(grids_of(&rounded)[[0, 0]], expected);
            }
            assert_eq!(grids_of(&rtn), finder.fit_all(weight.view(), Some(&mask)));
            assert_ne!(grids_of(&rtn), finder.fit_all(weight.view(), None));
        }
    }
}

#[test]
fn trouble_is_reported_not_fatal() {
    let weight = random(4, 8, 1);
    let broken = Curvature::new(Hessian::Full { matrix: Array2::from_elem((8, 8), f32::NAN), tokens: 3 });
    let problem = LayerProblem::new("layer", weight.view(), &broken).expect("valid");
    let scheme = QuantScheme::new(Bits::B4);
    let sparsegpt = || SparseGpt::new("2:4".parse().expect("valid"));
    let joint = Solver::new().prune(sparsegpt()).quantize(Gptq::new(scheme)).composition(Composition::Joint);
    let layer = joint.compress(&problem).expect("solved");
    assert!(!layer.report.fallbacks.is_empty() && layer.weight.iter().all(|value| value.is_finite()));
    let ragged = random(2, 6, 1);
    let problem = LayerProblem::uncalibrated("blk", ragged.view()).expect("valid");
    let error = Magnitude::new("2:4".parse().expect("valid")).compress(&problem).expect_err("6 is no multiple of 4");
    assert!(error.to_string().contains("blk") && error.to_string().contains('6'), "{error}");
    assert!(Gptq::new(scheme).compress(&problem).is_err());
}

#[test]
fn what_cannot_be_combined_is_refused() {
    let scheme = QuantScheme::new(Bits::B4);
    let half = || SparseGpt::new(Sparsity::unstructured(0.5).expect("valid"));
    let joint = || Solver::new().prune(half()).composition(Composition::Joint);
    let refused = |solver: Solver, words: &str| {
        let error = solver.check().expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(joint().quantize(Gptq::new(scheme)).refit(3), "refit");
    refused(joint().quantize(Rtn::new(scheme)), "rtn");
    assert!(joint().refit(3).check().is_ok(), "pruning alone is no joint solve");
}

#[test]
fn a_solver_needs_what_its_steps_need_and_says_what_they_are() {
    let scheme = QuantScheme::new(Bits::B4);
    let half = Sparsity::unstructured(0.5).expect("valid");
    let (rtn, gptq) = (|| Solver::new().quantize(Rtn::new(scheme)), || Solver::new().quantize(Gptq::new(scheme)));
    let wanda = || Solver::new().prune(Wanda::new(half));
    for (solver, needs, name) in [
        (Solver::new(), Statistics::Nothing, "nothing"),
        (Solver::new().refit(3).descent(2), Statistics::Nothing, "nothing"),
        (rtn(), Statistics::Nothing, "rtn 4 bit"),
        (rtn().refit(3), Statistics::Nothing, "rtn 4 bit"),
        (rtn().descent(2), Statistics::Hessian, "rtn 4 bit descended"),
        (gptq(), Statistics::Hessian, "gptq 4 bit"),
        (wanda(), Statistics::ChannelNorms, "wanda 0.5"),
        (wanda().descent(2), Statistics::ChannelNorms, "wanda 0.5"),
        (wanda().refit(3), Statistics::Hessian, "wanda 0.5 refitted"),
        (wanda().quantize(Rtn::new(scheme)), Statistics::ChannelNorms, "wanda 0.5 then rtn 4 bit"),
        (
            wanda().refit(3).quantize(Gptq::new(scheme)).descent(1).composition(Composition::SequentialA),
            Statistics::Hessian,
            "wanda 0.5 refitted then all weights gptq 4 bit descended",
        ),
        (
            wanda().quantize(Gptq::new(scheme)).composition(Composition::Joint),
            Statistics::Hessian,
            "wanda 0.5 with gptq 4 bit",
        ),
    ] {
        assert_eq!((solver.needs(), solver.name().as_ref()), (needs, name));
    }
    let weight = random(2, 8, 1);
    let problem = LayerProblem::uncalibrated("layer", weight.view()).expect("valid");
    let same = Solver::new().compress(&problem).expect("nothing to do");
    assert_eq!((same.weight, same.mask, same.codes), (weight, None, None));
}

#[test]
fn what_starts_from_the_dense_weight_and_what_from_the_pruned_one() {
    let (weight, curvature) = (random(6, 32, 7), curvature(&random(100, 32, 8)));
    let problem = LayerProblem::new("layer", weight.view(), &curvature).expect("valid");
    let (half, scheme) = (Sparsity::unstructured(0.5).expect("valid"), QuantScheme::new(Bits::B4));
    let pruner = || SparseGpt::new(half);
    let solve = |solver: Solver| solver.compress(&problem).expect("solved").codes.expect("codes");
    let pruned = pruner().compress(&problem).expect("solved");
    let quantized = |quantizer: &dyn Quantizer, start: &Array2<f32>, mask: Option<&Mask>| {
        let problem = problem.with_weight(start.view()).expect("same shape");
        quantizer.quantize(&problem, &Selection::of_mask(mask)).expect("solved").codes
    };
    let (gptq, rtn, mask) = (Gptq::new(scheme), Rtn::new(scheme), pruned.mask.as_ref());
    let b = |solver: Solver| solve(solver.prune(pruner()));
    assert_eq!(b(Solver::new().quantize(gptq.clone())), quantized(&gptq, &weight, mask), "compensates itself");
    assert_eq!(b(Solver::new().quantize(rtn.clone())), quantized(&rtn, &pruned.weight, mask), "only rounds");
    let refitted = Refit::new(4).run(weight.view(), mask.expect("pruned"), &curvature).expect("fits");
    assert_eq!(b(Solver::new().quantize(gptq.clone()).refit(4)), quantized(&gptq, &refitted, mask), "refitted");
    let a = Solver::new().composition(Composition::SequentialA).quantize(gptq.clone());
    assert_eq!(b(a), quantized(&gptq, &pruned.weight, None), "every weight");
}

fn grids_of(rounded: &sparq_core::Rounded) -> Array2<sparq_core::Grid> {
    rounded.codes.grid().expect("codes on a grid").grids.clone()
}
