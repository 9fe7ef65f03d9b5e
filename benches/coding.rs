//! Entropy coding of the codes of one layer, 1024 x 4096, in 16 classes, on one thread; and the sizes in docs/coding.md.

#![allow(missing_docs, reason = "criterion's macros make public items")]
#![allow(clippy::print_stdout, reason = "criterion measures times, not sizes")]

mod common;

use common::noise;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rayon::ThreadPoolBuilder;
use sparq_coding::{Decoder, coded_size, encode, entropy_bits};
use std::hint::black_box;

/// Entropies of normally distributed codes and their standard deviations.
const RATES: [(&str, f32); 5] =
    [("1 bit", 0.42), ("2 bits", 0.96), ("3 bits", 1.94), ("4 bits", 3.87), ("8 bits", 62.0)];

/// Classes of the columns, and codes whose standard deviation in class `c` is `deviation * 1.05^(c - classes / 2)`.
fn layer((rows, columns): (usize, usize), classes: usize, deviation: f32) -> (Vec<u8>, Vec<i16>) {
    let class_of: Vec<u8> = (0..columns).map(|column| (column * 7 % classes) as u8).collect();
    let spread = |class: u8| deviation * 1.05_f32.powf(f32::from(class) - classes as f32 / 2.0);
    let codes = (0..rows).flat_map(|row| {
        // The sum of twelve values in -1..1 has the standard deviation 2.
        let noise = noise(columns, 12, row as u32);
        let normal = noise.rows().into_iter().map(|twelve| twelve.sum() / 2.0);
        normal.zip(&class_of).map(|(normal, &class)| (normal * spread(class)).round() as i16).collect::<Vec<_>>()
    });
    let codes = codes.collect();
    (class_of, codes)
}

fn speed(criterion: &mut Criterion) {
    let pool = ThreadPoolBuilder::new().num_threads(1).build().expect("a thread");
    let shape = (1024, 4096);
    let mut group = criterion.benchmark_group("coding");
    group.sample_size(10).throughput(Throughput::Elements((shape.0 * shape.1) as u64));
    for (rate, deviation) in RATES {
        let (classes, codes) = layer(shape, 16, deviation);
        let bytes = encode(&codes, shape, &classes).expect("encoded");
        let mut decoded = vec![0; codes.len()];
        group.bench_function(BenchmarkId::new("decode", rate), |bencher| {
            pool.install(|| {
                bencher.iter(|| {
                    let decoder = Decoder::new(black_box(&bytes), shape).expect("a header");
                    decoder.decode_rows(0..shape.0, &mut decoded).expect("decoded");
                });
            });
        });
        group.bench_function(BenchmarkId::new("encode", rate), |bencher| {
            pool.install(|| bencher.iter(|| encode(black_box(&codes), shape, &classes)));
        });
        group.bench_function(BenchmarkId::new("coded size", rate), |bencher| {
            pool.install(|| bencher.iter(|| coded_size(black_box(&codes), shape, &classes)));
        });
    }
    group.finish();
}

fn size(_: &mut Criterion) {
    for (shape, classes) in [((2048, 2048), 16), ((576, 1536), 16), ((192, 576), 16), ((192, 576), 4)] {
        for (rate, deviation) in RATES {
            let (class_of, codes) = layer(shape, classes, deviation);
            let weights = codes.len() as f64;
            let entropy = entropy_bits(&codes, &class_of).expect("counted") / weights;
            let stored = 8.0 * encode(&codes, shape, &class_of).expect("encoded").len() as f64 / weights;
            println!("{shape:?}, {classes} classes, {rate}: entropy {entropy:.3}, {:.4} more stored", stored - entropy);
        }
    }
}

criterion_group!(benches, size, speed);
criterion_main!(benches);
