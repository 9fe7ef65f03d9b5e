//! Solvers at the shapes of real layers: whole methods at 576 x 1536 (SmolLM2-135M down projection) and 1024 x 1024; the
//! parts they are made of, square, at the widths of SmolLM2-135M (576), Qwen2.5-0.5B (896) and Llama-3.2-1B (2048).

#![allow(missing_docs, reason = "criterion's macros make public items")]

mod common;

use common::noise;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array2;
use sparq::engine::{ColumnSweep, CoordinateDescent, Refit, Rounding, Selection};
use sparq::linalg;
use sparq::prelude::*;
use sparq::quant::GridFinder;
use sparq::{Mask, Quantized};
use std::hint::black_box;

const SHAPES: [(usize, usize); 2] = [(576, 1536), (1024, 1024)];
const WIDTHS: [usize; 3] = [576, 896, 2048];
const TOKENS: usize = 2048;
const GROUP: usize = 128;

fn solvers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("solvers");
    group.sample_size(10);
    for (out, width) in SHAPES {
        let weight = noise(out, width, 3);
        let Ok(curvature) = calibrate(noise(TOKENS, width, 4).view()) else { continue };
        let Ok(problem) = LayerProblem::new("bench", weight.view(), &curvature) else { continue };
        let Some((matrix, _)) = curvature.damped() else { continue };
        let Ok(scheme) = QuantScheme::new(Bits::B4).group(128) else { continue };
        let (Ok(half), Ok(two_of_four)) = (Sparsity::unstructured(0.5), Sparsity::n_of_m(2, 4)) else { continue };
        let shape = format!("{out}x{width}");
        group.bench_function(BenchmarkId::new("factor", &shape), |bencher| {
            bencher.iter(|| linalg::inverse_factor(black_box(matrix), 1.0));
        });
        let joint =
            Solver::new().prune(SparseGpt::new(half)).quantize(Gptq::new(scheme)).composition(Composition::Joint);
        let methods: [(&str, Box<dyn LayerCompressor>); 6] = [
            ("rtn int4 g128", Box::new(Rtn::new(scheme))),
            ("gptq int4 g128", Box::new(Gptq::new(scheme))),
            ("wanda 50 %", Box::new(Wanda::new(half))),
            ("sparsegpt 50 %", Box::new(SparseGpt::new(half))),
            ("sparsegpt 2:4", Box::new(SparseGpt::new(two_of_four))),
            ("joint 50 % + int4 g128", Box::new(joint)),
        ];
        for (name, method) in &methods {
            group.bench_function(BenchmarkId::new(*name, &shape), |bencher| {
                bencher.iter(|| method.compress(black_box(&problem)));
            });
        }
    }
    group.finish();
}

/// The column loop alone: the factor is there already.
fn sweeps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sweeps");
    group.sample_size(10);
    for width in WIDTHS {
        let (weight, curvature) = layer(width);
        let factor = curvature.factor();
        let (mask, finder) = (half_of(&weight), int4());
        let round = Rounding::Dynamic { fit: &finder, group_size: GROUP, stale: false };
        // An error reaches the columns behind its own: half of all pairs.
        group.throughput(Throughput::Elements(products(width) / 2));
        for (name, selection, rounding) in [
            ("round int4 g128", Selection::All, round),
            ("remove 50 %", Selection::of_mask(Some(&mask)), Rounding::None),
            ("remove 50 %, round int4 g128", Selection::of_mask(Some(&mask)), round),
        ] {
            group.bench_function(BenchmarkId::new(name, width), |bencher| {
                let sweep =
                    |weight| ColumnSweep::new(black_box(factor)).run(weight, &selection, &rounding).expect("fits");
                bencher.iter_batched(|| weight.clone(), sweep, BatchSize::LargeInput);
            });
        }
    }
    group.finish();
}

fn refits(criterion: &mut Criterion) {
    const STEPS: usize = 5;
    let mut group = criterion.benchmark_group("refits");
    group.sample_size(10);
    for width in WIDTHS {
        let (weight, curvature) = layer(width);
        let mask = half_of(&weight);
        // One more for the first residual.
        group.throughput(Throughput::Elements((STEPS as u64 + 1) * products(width)));
        group.bench_function(BenchmarkId::new(format!("50 %, {STEPS} steps"), width), |bencher| {
            let refit = Refit::new(STEPS);
            bencher.iter(|| refit.run(black_box(weight.view()), &mask, &curvature).expect("fits"));
        });
    }
    group.finish();
}

fn descents(criterion: &mut Criterion) {
    const ROUNDS: usize = 3;
    let mut group = criterion.benchmark_group("descents");
    group.sample_size(10);
    for width in WIDTHS {
        let (weight, curvature) = layer(width);
        let (finder, max_code) = (int4(), Bits::B4.max_code());
        let grids = finder.fit_all(weight.view(), None);
        let nearest =
            |((row, column), &value): ((usize, usize), &f32)| grids[[row, column / GROUP]].encode(value, max_code);
        let codes: Vec<u8> = weight.indexed_iter().map(nearest).collect();
        let codes = Array2::from_shape_vec(weight.dim(), codes).expect("one for each weight");
        let rounded = Quantized { scheme: finder.scheme(), codes, grids };
        // Two in each round, for scales and for codes; one for the first gradient.
        group.throughput(Throughput::Elements((2 * ROUNDS as u64 + 1) * products(width)));
        group.bench_function(BenchmarkId::new(format!("int4 g128, {ROUNDS} rounds"), width), |bencher| {
            let descend = |rounded: &mut Quantized| {
                let descent = CoordinateDescent::new(ROUNDS);
                descent.run(black_box(weight.view()), None, rounded, &curvature).expect("fits");
            };
            bencher.iter_batched_ref(|| rounded.clone(), descend, BatchSize::LargeInput);
        });
    }
    group.finish();
}

/// A square layer and the curvature of its inputs, factored.
fn layer(width: usize) -> (Array2<f32>, Curvature) {
    let curvature = calibrate(noise(TOKENS, width, 4).view()).expect("small enough");
    curvature.factor();
    (noise(width, width, 3), curvature)
}

/// Floating-point operations of the product of a square layer's weight with its Hessian.
fn products(width: usize) -> u64 {
    2 * (width as u64).pow(3)
}

/// Keeps the larger half of what is spread evenly over -1..1.
fn half_of(weight: &Array2<f32>) -> Mask {
    Mask::new(weight.mapv(|value| value.abs() > 0.5))
}

fn int4() -> GridFinder {
    GridFinder::new(QuantScheme::new(Bits::B4).group(GROUP).expect("not 0"), Clip::MinMax)
}

criterion_group!(benches, solvers, sweeps, refits, descents);
criterion_main!(benches);
