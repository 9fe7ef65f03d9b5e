//! Layers that break solvers elsewhere: every method must give finite weights on its grid, and say what it had to do.

mod common;

use common::{curvature, methods, random};
use ndarray::{Array2, s};
use sparq_core::{Bits, CompressedLayer, Curvature, Fallback, Hessian, LayerProblem, QuantScheme, ScaleType, Sparsity};

const ROWS: usize = 12;
const WIDTH: usize = 32;

fn half() -> Sparsity {
    Sparsity::unstructured(0.5).expect("valid")
}

fn int4() -> QuantScheme {
    QuantScheme::new(Bits::B4).group(8).expect("valid")
}

/// Solves with every method, checks what always holds, and returns names and layers.
fn solve(weight: &Array2<f32>, curvature: &Curvature, scheme: QuantScheme) -> Vec<(String, CompressedLayer)> {
    let problem = LayerProblem::new("layer", weight.view(), curvature).expect("finite");
    let solved = methods(half(), scheme).into_iter().map(|(method, _)| {
        let name = method.name().into_owned();
        let layer = method.compress(&problem).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(layer.weight.iter().all(|value| value.is_finite()), "{name}");
        if let Some(quantized) = layer.quantized() {
            assert_eq!(quantized.dequantize(), layer.weight, "{name}");
            assert!(quantized.grids.iter().all(|grid| grid.scale > 0.0 && grid.scale.is_finite()), "{name}");
        }
        (name, layer)
    });
    solved.collect()
}

/// Whether the report of each method that looks at the Hessian satisfies `holds`.
fn all_report(solved: &[(String, CompressedLayer)], holds: impl Fn(&Fallback) -> bool) {
    for (name, layer) in solved.iter().filter(|(_, layer)| layer.report.damping.is_some()) {
        assert!(layer.report.fallbacks.iter().any(&holds), "{name}: {:?}", layer.report.fallbacks);
    }
}

#[test]
fn channels_that_are_never_active() {
    let mut x = random(200, WIDTH, 1);
    x.slice_mut(s![.., 3..7]).fill(0.0);
    let solved = solve(&random(ROWS, WIDTH, 2), &curvature(&x), int4());
    all_report(&solved, |fallback| *fallback == Fallback::DeadChannels { count: 4 });
    assert!(!Fallback::DeadChannels { count: 4 }.is_degradation());
}

#[test]
fn channels_that_are_copies_of_each_other() {
    let mut x = random(200, WIDTH, 3);
    for copy in 1..8 {
        let first = x.column(0).to_owned();
        x.column_mut(copy).assign(&first);
    }
    let solved = solve(&random(ROWS, WIDTH, 4), &curvature(&x), int4());
    // Damping makes the matrix regular: nothing had to be given up.
    assert!(solved.iter().all(|(_, layer)| layer.report.fallbacks.iter().all(|fallback| !fallback.is_degradation())));
}

#[test]
fn hessians_that_say_nothing() {
    for matrix in [Array2::zeros((WIDTH, WIDTH)), Array2::from_elem((WIDTH, WIDTH), f32::NAN)] {
        let solved = solve(&random(ROWS, WIDTH, 5), &Hessian::Full { matrix, tokens: 64 }.into(), int4());
        all_report(&solved, |fallback| *fallback == Fallback::NoCurvature);
    }
}

#[test]
fn hessians_that_are_not_positive_definite() {
    // A symmetric matrix no XᵀX can be: its eigenvalues are of both signs, beyond what damping up to 1 mends.
    let matrix = Array2::from_shape_fn((WIDTH, WIDTH), |(i, j)| if i == j { 1.0 } else { 9.0 });
    let solved = solve(&random(ROWS, WIDTH, 6), &Hessian::Full { matrix, tokens: 64 }.into(), int4());
    all_report(&solved, |fallback| *fallback == Fallback::DiagonalHessian);
}

#[test]
fn fewer_tokens_than_channels() {
    let solved = solve(&random(ROWS, WIDTH, 7), &curvature(&random(5, WIDTH, 8)), int4());
    all_report(&solved, |fallback| *fallback == Fallback::FewTokens { tokens: 5, channels: WIDTH });
}

#[test]
fn rows_that_are_constant_or_zero() {
    let mut weight = random(ROWS, WIDTH, 9);
    weight.row_mut(0).fill(0.0);
    weight.row_mut(1).fill(0.7);
    weight.row_mut(2).fill(-0.7);
    for (name, layer) in solve(&weight, &curvature(&random(200, WIDTH, 10)), int4()) {
        assert!(layer.weight.row(0).iter().all(|&value| value == 0.0), "{name}: a zero row stays zero");
    }
}

#[test]
fn groups_that_are_removed_altogether() {
    let mut weight = random(ROWS, WIDTH, 11);
    weight.slice_mut(s![.., ..16]).mapv_inplace(|value| value * 1e-6);
    let solved = solve(&weight, &curvature(&random(200, WIDTH, 12)), int4());
    let empty = |fallback: &Fallback| matches!(fallback, Fallback::EmptyGroups { count } if *count > 0);
    let counted = solved.iter().filter(|(_, layer)| layer.report.fallbacks.iter().any(empty)).count();
    assert!(counted >= 3, "methods that prune and keep their mask count the groups they emptied");
}

#[test]
fn scales_beyond_half_precision_are_clamped_and_counted() {
    for factor in [1e7_f32, 1e-7] {
        let weight = random(ROWS, WIDTH, 13) * factor;
        let h = curvature(&random(200, WIDTH, 14));
        let clamped = |(_, layer): &(String, CompressedLayer)| {
            layer.report.fallbacks.iter().any(|fallback| matches!(fallback, Fallback::ClampedScales { .. }))
        };
        let quantized = |solved: Vec<(String, CompressedLayer)>| {
            solved.into_iter().filter(|(_, layer)| layer.codes.is_some()).collect::<Vec<_>>()
        };
        for solved in quantized(solve(&weight, &h, int4())) {
            assert!(clamped(&solved), "{}: {:?}", solved.0, solved.1.report);
        }
        // Subnormal halves still hold the scales of weights a thousand times larger.
        if factor < 1.0 {
            for solved in quantized(solve(&(&weight * 1e3), &h, int4())) {
                assert!(!clamped(&solved), "{}: {:?}", solved.0, solved.1.report);
            }
        }
        for solved in quantized(solve(&weight, &h, int4().scale_type(ScaleType::F32))) {
            assert!(!clamped(&solved), "{}: singles hold it", solved.0);
        }
    }
}
