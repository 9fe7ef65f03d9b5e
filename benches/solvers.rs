//! Solvers at the shapes of real layers: 576 x 1536 (SmolLM2-135M down projection) and 1024 x 1024.

#![allow(missing_docs, reason = "criterion's macros make public items")]

mod common;

use common::noise;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sparq::joint::OnePass;
use sparq::linalg;
use sparq::prelude::*;
use std::hint::black_box;

const SHAPES: [(usize, usize); 2] = [(576, 1536), (1024, 1024)];
const TOKENS: usize = 2048;

fn solvers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("solvers");
    group.sample_size(10);
    for (out, width) in SHAPES {
        let weight = noise(out, width, 3);
        let Ok(hessian) = calibrate(noise(TOKENS, width, 4).view()) else { continue };
        let Ok(problem) = LayerProblem::new("bench", weight.view(), &hessian) else { continue };
        let Hessian::Full { matrix, .. } = &hessian else { continue };
        let Ok(scheme) = QuantScheme::new(Bits::B4).group(128) else { continue };
        let (Ok(half), Ok(two_of_four)) = (Sparsity::unstructured(0.5), Sparsity::n_of_m(2, 4)) else { continue };
        let shape = format!("{out}x{width}");
        group.bench_function(BenchmarkId::new("factor", &shape), |bencher| {
            bencher.iter(|| linalg::inverse_factor(black_box(matrix.view()), 1.0));
        });
        let methods: [(&str, Box<dyn LayerCompressor>); 6] = [
            ("rtn int4 g128", Box::new(Rtn::new(scheme))),
            ("gptq int4 g128", Box::new(Gptq::new(scheme))),
            ("wanda 50 %", Box::new(Wanda::new(half))),
            ("sparsegpt 50 %", Box::new(SparseGpt::new(half))),
            ("sparsegpt 2:4", Box::new(SparseGpt::new(two_of_four))),
            ("joint 50 % + int4 g128", Box::new(OnePass::new(SparseGpt::new(half), Gptq::new(scheme)))),
        ];
        for (name, method) in &methods {
            group.bench_function(BenchmarkId::new(*name, &shape), |bencher| {
                bencher.iter(|| method.compress(black_box(&problem)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, solvers);
criterion_main!(benches);
