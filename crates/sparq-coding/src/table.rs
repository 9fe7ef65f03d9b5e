use crate::histogram::Histogram;

/// Bits of a slot's number: frequencies are multiples of 2^-12. Coarse frequencies cost normally distributed codes less
/// than 0.001 bits a code up to 4 bits, and 0.012 at 7.5.
pub(crate) const SLOT_BITS: u32 = 12;
/// The sum of a table's frequencies.
pub(crate) const SLOTS: usize = 1 << SLOT_BITS;
/// Codes with a frequency of their own, at most, the escape included.
pub(crate) const MAX_SYMBOLS: usize = 1024;
/// Bits of a code that follows an escape.
pub(crate) const RAW_BITS: f64 = 16.0;

/// The quantized distribution of one class: frequencies of neighbouring codes, and one of all others, the escape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// The code that `frequencies[0]` belongs to.
    pub low: i32,
    /// Frequencies in units of 1/4096; with `escape` they sum to 4096.
    pub frequencies: Vec<u16>,
    /// Frequency of an escape, which its code follows in 16 bits. 0 where there are 1024 frequencies.
    pub escape: u16,
}

impl Table {
    /// The cheapest table of those considered for a class; `None` if nothing was counted.
    ///
    /// Candidates differ in which codes at both ends escape: all of them, or those that occur at most 0, 1, 2, 4, ...
    /// times. Codes that spread wider than a table is long escape beside the heaviest stretch of it.
    pub(crate) fn fit(histogram: &Histogram) -> Option<Self> {
        let Histogram { low, ref counts } = *histogram;
        let total = histogram.total();
        if total == 0 {
            return None;
        }
        let mut best: Option<(f64, Self)> = None;
        let mut consider = |start: usize, end: usize| {
            let inside: u64 = counts[start..end].iter().sum();
            let mut frequencies = [&counts[start..end], &[total - inside]].concat();
            quantize(&mut frequencies);
            let escape = frequencies.pop().unwrap_or(0) as u16;
            let frequencies = frequencies.into_iter().map(|frequency| frequency as u16).collect();
            let table = Self { low: low + start as i32, frequencies, escape };
            let cost = table.cost(histogram);
            if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                best = Some((cost, table));
            }
        };
        consider(0, 0);
        let mut most = 0_u64;
        while let Some(start) = counts.iter().position(|&count| count > most) {
            let end = counts.iter().rposition(|&count| count > most)? + 1;
            let all_inside = most == 0;
            if end - start < MAX_SYMBOLS || (all_inside && end - start == MAX_SYMBOLS) {
                consider(start, end);
            } else if all_inside {
                let start = heaviest(counts, MAX_SYMBOLS - 1);
                consider(start, start + MAX_SYMBOLS - 1);
            }
            most = (2 * most).max(1);
        }
        best.map(|(_, table)| table)
    }

    /// Bits of all codes of the histogram that the table was made for, and of the table itself.
    pub(crate) fn cost(&self, histogram: &Histogram) -> f64 {
        let inside = &histogram.counts[(self.low - histogram.low) as usize..][..self.frequencies.len()];
        let escaping = histogram.total() - inside.iter().sum::<u64>();
        let counted = inside.iter().zip(&self.frequencies);
        let bits: f64 = counted.map(|(&count, &frequency)| count as f64 * length(frequency)).sum();
        bits + escaping as f64 * (length(self.escape) + RAW_BITS) + 8.0 * self.stored().len() as f64
    }

    /// The table as the header stores it.
    pub(crate) fn stored(&self) -> Vec<u8> {
        let low = ((self.low << 1) ^ (self.low >> 31)) as u32;
        let mut bytes = Vec::with_capacity(6 + 2 * self.frequencies.len());
        let numbers = [low, self.frequencies.len() as u32, self.escape.into()];
        for mut number in numbers.into_iter().chain(self.frequencies.iter().map(|&frequency| frequency.into())) {
            while number >= 0x80 {
                bytes.push(number as u8 | 0x80);
                number >>= 7;
            }
            bytes.push(number as u8);
        }
        bytes
    }
}

/// Bits of what has this frequency.
fn length(frequency: u16) -> f64 {
    f64::from(SLOT_BITS) - f64::from(frequency.max(1)).log2()
}

/// Where the stretch of `length` counts with the largest sum starts; the first one of equals.
fn heaviest(counts: &[u64], length: usize) -> usize {
    let mut sum: u64 = counts[..length].iter().sum();
    let (mut largest, mut at) = (sum, 0);
    for start in 1..=counts.len() - length {
        sum = sum - counts[start - 1] + counts[start + length - 1];
        if sum > largest {
            (largest, at) = (sum, start);
        }
    }
    at
}

/// Turns counts into frequencies that sum to 4096. What was counted at all, at most 1024 of them, gets at least 1.
///
/// Frequencies are proportional to the counts but for those that get 1. Rounding leaves the sum off by a few. One after
/// the other, the frequency that costs least is lowered or the one that gains most is raised: the derivative of
/// `count * log2(frequency)`, taken in the middle of the step.
fn quantize(counts: &mut [u64]) {
    let mut scale = f64::INFINITY;
    let mut next = SLOTS as f64 / counts.iter().sum::<u64>() as f64;
    while next < scale {
        scale = next;
        let rare = |&&count: &&u64| count > 0 && (count as f64 * scale) < 1.0;
        let rare_total: u64 = counts.iter().filter(rare).sum();
        let total = counts.iter().sum::<u64>() - rare_total;
        next = (SLOTS - counts.iter().filter(rare).count()) as f64 / total as f64;
    }
    let frequency = |count: u64| if count == 0 { 0 } else { ((count as f64 * scale).round() as u64).max(1) };
    let mut frequencies: Vec<u64> = counts.iter().map(|&count| frequency(count)).collect();
    let mut sum = frequencies.iter().sum::<u64>() as usize;
    while sum != SLOTS {
        let down = sum > SLOTS;
        let mut chosen = (f64::INFINITY, 0);
        for (at, (&count, &frequency)) in counts.iter().zip(&frequencies).enumerate() {
            if count > 0 && (!down || frequency > 1) {
                let slope = count as f64 / (frequency as f64 + if down { -0.5 } else { 0.5 });
                let loss = if down { slope } else { -slope };
                if loss < chosen.0 {
                    chosen = (loss, at);
                }
            }
        }
        frequencies[chosen.1] = if down { frequencies[chosen.1] - 1 } else { frequencies[chosen.1] + 1 };
        sum = if down { sum - 1 } else { sum + 1 };
    }
    counts.copy_from_slice(&frequencies);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantized(counts: &[u64]) -> Vec<u64> {
        let mut frequencies = counts.to_vec();
        quantize(&mut frequencies);
        frequencies
    }

    #[test]
    fn frequencies_sum_to_the_slots_and_none_that_occurs_is_lost() {
        assert_eq!(quantized(&[7]), [4096]);
        assert_eq!(quantized(&[1, 0, 1]), [2048, 0, 2048]);
        assert_eq!(quantized(&[1, 1_000_000_000_000]), [1, 4095]);
        assert_eq!(quantized(&[1, 1, 1]), [1366, 1365, 1365], "raised where it gains most, the first of equals");
        let many = quantized(&[&[1_000_000], [1; 1023].as_slice()].concat());
        assert_eq!((many[0], many[1..].iter().sum()), (4096 - 1023, 1023));
        assert_eq!(quantized(&[&[3000, 1000], [1; 96].as_slice()].concat())[..2], [3000, 1000], "3:1 of what is left");
    }

    #[test]
    fn rounding_errors_are_put_where_they_cost_least() {
        // Every other way to move one slot from one frequency to another costs more.
        let counts = [900_u64, 400, 90, 11, 5, 3, 1];
        let chosen = quantized(&counts);
        let bits = |frequencies: &[u64]| -> f64 {
            counts.iter().zip(frequencies).map(|(&count, &frequency)| -(count as f64) * (frequency as f64).log2()).sum()
        };
        for from in 0..counts.len() {
            for to in 0..counts.len() {
                let mut other = chosen.clone();
                if from != to && other[from] > 1 {
                    other[from] -= 1;
                    other[to] += 1;
                    assert!(bits(&other) >= bits(&chosen), "{other:?} against {chosen:?}");
                }
            }
        }
    }

    #[test]
    fn codes_that_cost_more_than_they_save_escape() {
        let mut counts = vec![0; 2001];
        counts[..3].copy_from_slice(&[400, 1000, 400]);
        counts[2000] = 1;
        let histogram = Histogram { low: -1, counts };
        let table = Table::fit(&histogram).unwrap();
        assert_eq!((table.low, table.frequencies.len()), (-1, 3));
        assert!(table.escape > 0);
        let bits = |frequency: u16| 12.0 - f64::from(frequency).log2();
        let kept =
            [400.0, 1000.0, 400.0].into_iter().zip(&table.frequencies).map(|(count, &f)| count * bits(f)).sum::<f64>();
        let stored = 8.0 * table.stored().len() as f64;
        assert!((table.cost(&histogram) - (kept + bits(table.escape) + 16.0 + stored)).abs() < 1e-9);
    }

    #[test]
    fn a_table_holds_1024_codes_and_no_more_beside_an_escape() {
        let full = Table::fit(&Histogram { low: -128, counts: vec![9; 1024] }).unwrap();
        assert_eq!(full, Table { low: -128, frequencies: vec![4; 1024], escape: 0 });
        let mut counts = vec![9; 1025];
        counts[0] = 10;
        let wider = Table::fit(&Histogram { low: -128, counts }).unwrap();
        assert_eq!((wider.low, wider.frequencies.len()), (-128, 1023), "the heaviest stretch, and the first of equals");
        assert!(wider.escape > 0);
    }

    #[test]
    fn nothing_counted_gives_no_table() {
        assert_eq!(Table::fit(&Histogram { low: 0, counts: vec![0; 3] }), None);
        assert_eq!(Table::fit(&Histogram { low: 0, counts: Vec::new() }), None);
    }
}
