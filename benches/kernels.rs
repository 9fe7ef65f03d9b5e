//! Matrix kernels at the shapes of real layers, `out x in`: SmolLM2-135M (576), Qwen2.5-0.5B (896), Llama-3.2-1B (2048)
//! and Llama-3.1-8B (4096, 14336).

#![allow(missing_docs, reason = "criterion's macros make public items")]

mod common;

use common::noise;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array2;
use sparq::linalg;
use std::hint::black_box;

const TOKENS: usize = 2048;

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("products");
    group.sample_size(10);
    for (out, width) in [(576, 1536), (896, 896), (2048, 2048), (4096, 4096), (4096, 14336)] {
        let (x, w) = (noise(TOKENS, width, 1), noise(out, width, 2));
        let shape = format!("{TOKENS} tokens, {out}x{width}");
        let mut y = Array2::zeros((TOKENS, out));
        group.throughput(Throughput::Elements((2 * TOKENS * out * width) as u64));
        group.bench_function(BenchmarkId::new("linear f32", &shape), |bencher| {
            bencher.iter(|| linalg::gemm(1.0, black_box(x.view()), black_box(w.t()), 0.0, black_box(y.view_mut())));
        });
        group.bench_function(BenchmarkId::new("linear bf16", &shape), |bencher| {
            bencher
                .iter(|| linalg::linear_bf16(black_box(x.view()), black_box(w.view()), 0.0, black_box(y.view_mut())));
        });
        let one = noise(1, width, 3);
        group.throughput(Throughput::Bytes((4 * out * width) as u64));
        group.bench_function(BenchmarkId::new("linear f32, one token", format!("{out}x{width}")), |bencher| {
            bencher.iter(|| linalg::linear(black_box(one.view()), black_box(w.view())));
        });
    }
    group.finish();
}

fn hessians(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hessians");
    group.sample_size(10);
    for width in [576, 896, 2048, 4096, 14336] {
        let x = noise(TOKENS, width, 4);
        let mut h = Array2::zeros((width, width));
        group.throughput(Throughput::Elements((TOKENS * width * width) as u64));
        group.bench_function(BenchmarkId::new("syrk", format!("{TOKENS} tokens, {width}")), |bencher| {
            bencher.iter(|| linalg::syrk_lower(1.0, black_box(x.view()), black_box(h.view_mut())));
        });
        if width > 4096 {
            continue; // the factor of 14336 takes minutes
        }
        group.throughput(Throughput::Elements((2 * width * width * width / 3) as u64));
        group.bench_function(BenchmarkId::new("factor", width), |bencher| {
            bencher.iter(|| linalg::inverse_factor(black_box(h.view()), 1e6));
        });
    }
    group.finish();
}

criterion_group!(benches, products, hessians);
criterion_main!(benches);
