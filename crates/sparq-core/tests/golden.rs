//! Parity with the reference implementations of GPTQ, SparseGPT and Wanda, from vectors made by running them.
//!
//! `scripts/fixtures/reference_solvers.py` describes how they were made.

use ndarray::Array2;
use serde_json::Value;
use sparq_core::{
    Bits, Composition, Curvature, HessianAccumulator, LayerCompressor, LayerProblem, Mask, QuantScheme, ScaleType,
    Solver, Sparsity, Statistics,
};
use sparq_prune::{Magnitude, Scope, SparseGpt, Wanda};
use sparq_quant::{Clip, Gptq, Rtn};

fn golden(text: &str) -> Value {
    serde_json::from_str(text).expect("golden vectors are JSON")
}

/// The generator the vectors were made with.
fn lcg(seed: u64, rows: usize, columns: usize) -> Array2<f32> {
    let mut state = seed;
    Array2::from_shape_simple_fn((rows, columns), || {
        state = (state * 1_103_515_245 + 12_345) % (1 << 31);
        (((state >> 16) & 255) as f32 - 128.0) / 64.0
    })
}

fn inputs() -> Array2<f32> {
    let mut x = ndarray::concatenate![ndarray::Axis(0), lcg(100, 48, 32), lcg(101, 48, 32)];
    for (column, mut values) in x.columns_mut().into_iter().enumerate() {
        values *= if column == 5 { 0.0 } else { (1 + (7 * column) % 5) as f32 / 4.0 };
    }
    x
}

fn curvature(statistics: Statistics) -> Curvature {
    let mut accumulator = HessianAccumulator::new(32, statistics).expect("small");
    accumulator.add(inputs().view()).expect("fits");
    accumulator.finish().into()
}

fn compress(method: &dyn LayerCompressor) -> Array2<f32> {
    compress_in(method, false)
}

fn compress_in(method: &dyn LayerCompressor, act_order: bool) -> Array2<f32> {
    let weight = lcg(1, 6, 32);
    let curvature = curvature(method.needs()).act_order(act_order);
    let problem = LayerProblem::new("golden", weight.view(), &curvature).expect("valid");
    method.compress(&problem).expect("solved").weight
}

/// `Σ (X (W - W')ᵀ)²`, the error the reference reports.
fn output_error(weight: &Array2<f32>) -> f64 {
    let difference = (lcg(1, 6, 32) - weight).mapv(f64::from);
    inputs().mapv(f64::from).dot(&difference.t()).mapv(|value| value * value).sum()
}

fn expected_weight(case: &Value) -> Array2<f32> {
    let values = case["W"].as_array().expect("weights").iter().map(|v| v.as_f64().expect("number") as f32).collect();
    Array2::from_shape_vec((6, 32), values).expect("6 x 32")
}

/// A symmetric 4-bit grid is `2 max|w| / 15`, so the largest weight of every group lies 7.5 steps from zero: a tie that
/// the last bit of earlier corrections decides, and that moves what follows in its row. This many weights may differ
/// where such ties occur in the middle of a row; elsewhere none may.
const TIES: usize = 12;

/// Equal in all but `flips` weights, and in output error.
fn assert_matches(name: &str, case: &Value, weight: &Array2<f32>, flips: usize) {
    let expected = expected_weight(case);
    let differing = weight.iter().zip(&expected).filter(|(x, y)| (**x - **y).abs() > 2e-4 * (1.0 + y.abs())).count();
    let (error, wanted) = (output_error(weight), case["obj"].as_f64().expect("objective"));
    assert!(differing <= flips, "{name}: {differing} weights differ; error {error} against {wanted}");
    assert!((error / wanted - 1.0).abs() < if flips == 0 { 1e-4 } else { 0.02 }, "{name}: {error} against {wanted}");
}

fn scheme(bits: Bits) -> QuantScheme {
    QuantScheme::new(bits).scale_type(ScaleType::F32)
}

fn reference_gptq(scheme: QuantScheme) -> Gptq {
    Gptq::new(scheme).reference_compat(true)
}

#[test]
fn gptq() {
    let golden = golden(include_str!("golden/gptq_ref.json"));
    let four = scheme(Bits::B4);
    let grouped = |bits, size| scheme(bits).group(size).expect("valid");
    let cases: Vec<(&str, Gptq)> = vec![
        ("sym4_chan", reference_gptq(four)),
        ("asym4_chan", reference_gptq(four.asymmetric())),
        ("asym4_chan_mse", reference_gptq(four.asymmetric()).clip(Clip::Mse)),
        ("sym4_g8_blk8", reference_gptq(grouped(Bits::B4, 8)).block_columns(8)),
        ("sym4_g8_blk32_stale", reference_gptq(grouped(Bits::B4, 8)).block_columns(32)),
        ("asym3_g16_act_static", reference_gptq(grouped(Bits::B3, 16).asymmetric())),
        ("asym4_chan_act", reference_gptq(four.asymmetric())),
    ];
    for (name, method) in cases {
        let flips = if name.contains("sym4_g8") { TIES } else { 0 };
        assert_matches(name, &golden[name], &compress_in(&method, name.contains("_act")), flips);
    }
    assert_matches("rtn_asym4_chan", &golden["rtn_asym4_chan"], &compress(&Rtn::new(four.asymmetric())), 0);
}

#[test]
fn fresh_grids_differ_from_stale_ones_only_inside_blocks() {
    let golden = golden(include_str!("golden/gptq_ref.json"));
    // With blocks as long as groups no grid can be stale, so there the clean implementation meets the reference,
    // whatever its own block size is, once the inactive channel is cleared as the reference does.
    let (weight, curvature) = (lcg(1, 6, 32), curvature(Statistics::Hessian));
    let problem = LayerProblem::new("golden", weight.view(), &curvature).expect("valid");
    let (weight, cleared) = sparq_core::reference::clear_dead_channels(&problem);
    let cleared = cleared.expect("channel 5 is never active");
    let problem = LayerProblem::new("golden", weight.view(), &cleared).expect("valid");
    let method = Gptq::new(scheme(Bits::B4).group(8).expect("valid"));
    for block in [1, 8, 20, 128] {
        let layer = method.clone().block_columns(block).compress(&problem).expect("solved");
        assert_matches("sym4_g8_blk8", &golden["sym4_g8_blk8"], &layer.weight, TIES);
    }
}

#[test]
fn sparsegpt_and_joint() {
    let golden = golden(include_str!("golden/sparsegpt_ref.json"));
    let half = Sparsity::unstructured(0.5).expect("valid");
    let pruner = |sparsity| SparseGpt::new(sparsity).reference_compat(true);
    let two_of_four = Sparsity::n_of_m(2, 4).expect("valid");
    let joint = |pruner: SparseGpt| {
        let gptq = reference_gptq(scheme(Bits::B4).asymmetric());
        Solver::new().prune(pruner).quantize(gptq).composition(Composition::Joint)
    };
    let cases: Vec<(&str, Box<dyn LayerCompressor>, usize)> = vec![
        ("unstr50_blk128", Box::new(pruner(half)), 97),
        ("unstr50_blk8", Box::new(pruner(half).block_columns(8)), 100),
        ("nm2_4", Box::new(pruner(two_of_four)), 96),
        ("nm_prune1_of_4", Box::new(pruner(Sparsity::n_of_m(3, 4).expect("valid"))), 48),
        ("unstr50_q4", Box::new(joint(pruner(half))), 97),
        ("nm2_4_q4", Box::new(joint(pruner(two_of_four))), 96),
    ];
    for (name, method, zeros) in cases {
        let weight = compress(method.as_ref());
        assert_matches(name, &golden[name], &weight, 0);
        assert!(weight.iter().filter(|value| **value == 0.0).count() >= zeros, "{name}");
    }
    let exact = compress(&SparseGpt::new(half));
    assert_eq!(exact.iter().filter(|value| **value == 0.0).count(), 96, "counts are exact outside compat");
}

#[test]
fn wanda_and_magnitude() {
    let golden = golden(include_str!("golden/wanda_ref.json"));
    for (name, sparsity) in [("wanda_unstr50_pruned", "0.5"), ("wanda_2_4_pruned", "2:4")] {
        let weight = compress(&Wanda::new(sparsity.parse().expect("valid")));
        let mask = Mask::from_nonzero(weight.view());
        let dense = lcg(1, 6, 32);
        for (row, pruned) in golden[name].as_array().expect("rows").iter().enumerate() {
            let wanted: Vec<u64> = pruned.as_array().expect("indices").iter().filter_map(Value::as_u64).collect();
            // A dense weight that is zero already may be on either side of the count.
            let ours: Vec<u64> = (0..32).filter(|&c| !mask.view()[[row, c as usize]]).collect();
            let differing = ours.iter().filter(|c| !wanted.contains(c) && dense[[row, **c as usize]] != 0.0).count();
            assert_eq!(differing, 0, "{name} row {row}: {ours:?} against {wanted:?}");
            let missing = wanted.iter().filter(|c| !ours.contains(c) && dense[[row, **c as usize]] != 0.0).count();
            assert_eq!(missing, 0, "{name} row {row}: {ours:?} against {wanted:?}");
        }
    }
    let weight = compress(&Magnitude::new(Sparsity::unstructured(0.5).expect("valid")).scope(Scope::Layer));
    let threshold = golden["mag_threshold"].as_f64().expect("number") as f32;
    assert_eq!(weight.iter().filter(|value| **value == 0.0).count(), 96);
    assert!(weight.iter().all(|value| *value == 0.0 || value.abs() >= threshold));
}
