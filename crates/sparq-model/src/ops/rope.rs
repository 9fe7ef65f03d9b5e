use super::wide;
use crate::RopeConfig;
use ndarray::Array2;
use rayon::prelude::*;
use std::sync::{Arc, PoisonError, RwLock};

/// Rows one task handles.
const ROWS: usize = 32;
/// Positions of the first table; it doubles when longer sequences come.
const FIRST_POSITIONS: usize = 256;

/// Cosines and sines of the rotary angles, shared by all blocks of a model and grown as positions are needed.
#[derive(Debug)]
pub(crate) struct RopeTables {
    head_dim: usize,
    inverse_frequencies: Vec<f32>,
    table: RwLock<Arc<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    positions: usize,
    /// `[positions, head_dim / 2]` each.
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl RopeTables {
    pub(crate) fn new(config: &RopeConfig, head_dim: usize) -> Self {
        Self { head_dim, inverse_frequencies: config.inverse_frequencies(head_dim), table: RwLock::default() }
    }

    /// Rotates every head of every row of `x`, `[tokens, heads * head_dim]`, by the angle of the row's position.
    ///
    /// Component `i` of a head is paired with component `i + head_dim / 2`, as Hugging Face checkpoints are laid out.
    pub(crate) fn rotate(&self, x: &mut Array2<f32>, positions: &[usize]) {
        let Some(last) = positions.iter().max() else { return };
        let table = self.table(last + 1);
        let half = self.head_dim / 2;
        let width = x.ncols();
        let Some(data) = x.as_slice_mut() else { return };
        data.par_chunks_mut((ROWS * width).max(1)).zip(positions.par_chunks(ROWS)).for_each(|(rows, positions)| {
            wide(
                #[inline(always)]
                || {
                    for (row, position) in rows.chunks_exact_mut(width).zip(positions) {
                        let cosines = &table.cosines[position * half..(position + 1) * half];
                        let sines = &table.sines[position * half..(position + 1) * half];
                        for head in row.chunks_exact_mut(self.head_dim) {
                            let (first, second) = head.split_at_mut(half);
                            for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                                (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
                            }
                        }
                    }
                },
            );
        });
    }

    fn table(&self, positions: usize) -> Arc<Table> {
        let current = Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner));
        if current.positions >= positions {
            return current;
        }
        let table = Arc::new(Table::new(&self.inverse_frequencies, positions.max(FIRST_POSITIONS).next_power_of_two()));
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&table);
        table
    }
}

impl Table {
    fn new(inverse_frequencies: &[f32], positions: usize) -> Self {
        // The angle is rounded to f32 as the reference does: at position 10,000 that rounding is visible.
        let (cosines, sines) = (0..positions)
            .into_par_iter()
            .flat_map_iter(|position| inverse_frequencies.iter().map(move |frequency| position as f32 * frequency))
            .map(|angle| (f64::from(angle).cos() as f32, f64::from(angle).sin() as f32))
            .unzip();
        Self { positions, cosines, sines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RopeScaling;

    #[test]
    fn rotation_keeps_lengths_and_depends_on_distance_only() {
        let tables = RopeTables::new(&RopeConfig { theta: 10000.0, scaling: RopeScaling::Default }, 8);
        let vector = |seed: usize| Array2::from_shape_fn((1, 16), |(_, j)| ((j * 7 + seed) % 11) as f32 - 5.0);
        let product = |p: usize, q: usize| {
            let (mut a, mut b) = (vector(1), vector(2));
            tables.rotate(&mut a, &[p]);
            tables.rotate(&mut b, &[q]);
            assert!((a.iter().map(|v| v * v).sum::<f32>() - vector(1).iter().map(|v| v * v).sum::<f32>()).abs() < 1e-3);
            (&a * &b).sum()
        };
        assert!((product(3, 1) - product(302, 300)).abs() < 1e-3);
        assert!((product(3, 1) - product(5, 1)).abs() > 1e-2);
    }

    #[test]
    fn position_zero_changes_nothing() {
        let tables = RopeTables::new(&RopeConfig { theta: 10000.0, scaling: RopeScaling::Default }, 4);
        let mut x = Array2::from_shape_fn((1, 4), |(_, j)| j as f32);
        tables.rotate(&mut x, &[0]);
        assert_eq!(x, Array2::from_shape_fn((1, 4), |(_, j)| j as f32));
    }
}
