//! What the tests share.
#![allow(dead_code, reason = "not every test needs all of it")]

/// Reproducible numbers without structure.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 33) * u64::from(bound)) >> 31) as u32
    }

    /// Nearly normally distributed with the variance 1: the sum of twelve uniform numbers.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| f64::from(self.below(1 << 20)) / f64::from(1 << 20)).sum::<f64>() - 6.0
    }
}

/// A layer whose columns spread differently, and classes of columns that spread alike. `deviation` is in steps.
pub(crate) fn layer((rows, columns): (usize, usize), class_count: u8, deviation: f64) -> (Vec<i16>, Vec<u8>) {
    let mut noise = Noise(7);
    let classes: Vec<u8> = (0..columns).map(|_| noise.below(class_count.into()) as u8).collect();
    let spread: Vec<f64> = classes
        .iter()
        .map(|&class| deviation * 1.05_f64.powf(f64::from(class) - f64::from(class_count) / 2.0))
        .collect();
    let codes = (0..rows * columns).map(|at| (noise.normal() * spread[at % columns]).round() as i16).collect();
    (codes, classes)
}

/// Makes the checksums of header and blocks right again, as far as the header's lengths can be followed.
pub(crate) fn reseal(bytes: &mut [u8]) {
    let Some(length) = bytes.get(20..24) else { return };
    let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
    if length < 28 || length > bytes.len() {
        return;
    }
    let (header, mut blocks) = bytes.split_at_mut(length);
    let (header, checksum) = header.split_at_mut(length - 4);
    let number = |at: usize, header: &[u8]| u32::from_le_bytes(header[at..at + 4].try_into().unwrap()) as usize;
    let (rows, columns, block_rows) = (number(8, header), number(12, header), number(16, header).max(1));
    let count = if columns == 0 { 0 } else { rows.div_ceil(block_rows) };
    if let Some(first) = header.len().checked_sub(count.saturating_mul(8)).filter(|&first| first >= 24) {
        for at in (first..header.len()).step_by(8) {
            let Some((block, rest)) = blocks.split_at_mut_checked(number(at, header)) else { break };
            header[at + 4..at + 8].copy_from_slice(&crc32fast::hash(block).to_le_bytes());
            blocks = rest;
        }
    }
    checksum.copy_from_slice(&crc32fast::hash(header).to_le_bytes());
}
