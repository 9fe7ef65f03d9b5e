use super::wide;
use crate::RopeConfig;
use crate::block::BatchLayout;
use ndarray::Array2;
use rayon::prelude::*;
use std::sync::{Arc, PoisonError, RwLock};

/// Rows one task handles.
const ROWS: usize = 32;
/// Positions of the first table; it doubles when longer sequences come.
const FIRST_POSITIONS: usize = 256;

/// Sets of frequencies kept: LongRoPE has two.
const KEPT: usize = 2;

/// Cosines and sines of the rotary angles, shared by the blocks of a model and grown as positions are needed.
#[derive(Debug)]
pub(crate) struct RopeTables {
    config: RopeConfig,
    head_dim: usize,
    tables: RwLock<Vec<Arc<Table>>>,
}

#[derive(Debug)]
struct Table {
    /// Whose frequencies these are, see [`RopeConfig::regime`].
    regime: usize,
    positions: usize,
    /// `[positions, dimensions / 2]` each.
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl RopeTables {
    pub(crate) fn new(config: RopeConfig, head_dim: usize) -> Self {
        Self { config, head_dim, tables: RwLock::default() }
    }

    /// Rotates every head of every row of `x`, `[tokens, heads * head_dim]`, by the angle of the row's position.
    ///
    /// Component `i` of a head is paired with component `i + dimensions / 2`, as Hugging Face checkpoints are laid out;
    /// components beyond the rotated ones stay.
    pub(crate) fn rotate(&self, x: &mut Array2<f32>, layout: &BatchLayout) {
        self.turn(x, layout, 1.0);
    }

    /// Turns the gradient at what [`rotate`](Self::rotate) gives into that at what it was given: the transposed rotation.
    pub(crate) fn rotate_backward(&self, gradient: &mut Array2<f32>, layout: &BatchLayout) {
        self.turn(gradient, layout, -1.0);
    }

    /// Rotates by the angle of the row's position, or, if `sign` is -1, by as much in the other direction.
    fn turn(&self, x: &mut Array2<f32>, layout: &BatchLayout, sign: f32) {
        let width = x.ncols();
        let Some(data) = x.as_slice_mut() else { return };
        if !self.config.varies() {
            return self.turn_rows(data, width, layout.positions(), 0, sign);
        }
        for sequence in 0..layout.sequences() {
            let rows = layout.rows(sequence);
            let positions = &layout.positions()[rows.clone()];
            let regime = self.config.regime(positions.last().map_or(0, |last| last + 1));
            self.turn_rows(&mut data[rows.start * width..rows.end * width], width, positions, regime, sign);
        }
    }

    fn turn_rows(&self, data: &mut [f32], width: usize, positions: &[usize], regime: usize, sign: f32) {
        let Some(last) = positions.iter().max() else { return };
        let table = self.table(last + 1, regime);
        let dimensions = self.config.dimensions;
        let half = dimensions / 2;
        data.par_chunks_mut((ROWS * width).max(1)).zip(positions.par_chunks(ROWS)).for_each(|(rows, positions)| {
            wide(
                #[inline(always)]
                || {
                    for (row, position) in rows.chunks_exact_mut(width).zip(positions) {
                        let cosines = &table.cosines[position * half..(position + 1) * half];
                        let sines = &table.sines[position * half..(position + 1) * half];
                        for head in row.chunks_exact_mut(self.head_dim) {
                            let (first, second) = head[..dimensions].split_at_mut(half);
                            for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                                let sine = sign * sine;
                                (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
                            }
                        }
                    }
                },
            );
        });
    }

    fn table(&self, positions: usize, regime: usize) -> Arc<Table> {
        let fits = |table: &&Arc<Table>| table.regime == regime && table.positions >= positions;
        if let Some(table) = self.tables.read().unwrap_or_else(PoisonError::into_inner).iter().find(fits) {
            return Arc::clone(table);
        }
        let table = Arc::new(Table::new(&self.config, regime, positions.max(FIRST_POSITIONS).next_power_of_two()));
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.retain(|other| other.regime != regime);
        if tables.len() == KEPT {
            tables.remove(0);
        }
        tables.push(Arc::clone(&table));
        table
    }
}

impl Table {
    fn new(config: &RopeConfig, regime: usize, positions: usize) -> Self {
        let (frequencies, factor) = (config.inverse_frequencies(regime), config.attention_factor());
        // The angle is rounded to f32 as the reference does: at position 10,000 that rounding is visible.
        let (cosines, sines) = (0..positions)
            .into_par_iter()
            .flat_map_iter(|position| frequencies.iter().map(move |frequency| position as f32 * frequency))
            .map(|angle| (f64::from(angle).cos() as f32 * factor, f64::from(angle).sin() as f32 * factor))
            .unzip();
        Self { regime, positions, cosines, sines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RopeScaling;

    #[test]
    fn rotation_keeps_lengths_and_depends_on_distance_only() {
        let tables = RopeTables::new(RopeConfig { theta: 10000.0, dimensions: 8, scaling: RopeScaling::Default }, 8);
        let vector = |seed: usize| Array2::from_shape_fn((1, 16), |(_, j)| ((j * 7 + seed) % 11) as f32 - 5.0);
        let product = |p: usize, q: usize| {
            let (mut a, mut b) = (vector(1), vector(2));
            tables.rotate(&mut a, &BatchLayout::continuing([(p, 1)].into_iter()));
            tables.rotate(&mut b, &BatchLayout::continuing([(q, 1)].into_iter()));
            assert!((a.iter().map(|v| v * v).sum::<f32>() - vector(1).iter().map(|v| v * v).sum::<f32>()).abs() < 1e-3);
            (&a * &b).sum()
        };
        assert!((product(3, 1) - product(302, 300)).abs() < 1e-3);
        assert!((product(3, 1) - product(5, 1)).abs() > 1e-2);
    }

    #[test]
    fn backward_is_the_transposed_rotation() {
        let scaling = RopeScaling::Dynamic { factor: 2.0, original_positions: 4 };
        let tables = RopeTables::new(RopeConfig { theta: 100.0, dimensions: 4, scaling }, 6);
        let layout = BatchLayout::new(&[3, 9]);
        let x = Array2::from_shape_fn((12, 6), |(i, j)| ((i * 5 + j * 7) % 11) as f32 - 5.0);
        let y = Array2::from_shape_fn((12, 6), |(i, j)| ((i * 3 + j * 2) % 7) as f32 - 3.0);
        let (mut rotated, mut back) = (x.clone(), y.clone());
        tables.rotate(&mut rotated, &layout);
        tables.rotate_backward(&mut back, &layout);
        assert!(((&rotated * &y).sum() - (&x * &back).sum()).abs() < 1e-4);
    }

    #[test]
    fn position_zero_changes_nothing() {
        let tables = RopeTables::new(RopeConfig { theta: 10000.0, dimensions: 4, scaling: RopeScaling::Default }, 4);
        let mut x = Array2::from_shape_fn((1, 4), |(_, j)| j as f32);
        tables.rotate(&mut x, &BatchLayout::new(&[1]));
        assert_eq!(x, Array2::from_shape_fn((1, 4), |(_, j)| j as f32));
    }

    #[test]
    fn components_beyond_the_rotated_ones_stay_and_every_length_has_its_table() {
        let scaling = RopeScaling::Dynamic { factor: 2.0, original_positions: 4 };
        let tables = RopeTables::new(RopeConfig { theta: 100.0, dimensions: 4, scaling }, 6);
        let rotated = |lengths: &[usize]| {
            let tokens = lengths.iter().sum();
            let mut x = Array2::from_shape_fn((tokens, 6), |(_, j)| 1.0 + j as f32);
            tables.rotate(&mut x, &BatchLayout::new(lengths));
            x
        };
        let together = rotated(&[3, 20, 9]);
        assert!(together.column(5).iter().all(|value| *value == 6.0));
        for (length, start) in [(3, 0), (20, 3), (9, 23)] {
            assert_eq!(rotated(&[length]), together.slice(ndarray::s![start..start + length, ..]));
        }
        let (row, other) = (together.row(3 + 2).to_owned(), together.row(2).to_owned());
        assert_ne!(row, other, "position 2 of a long and of a short sequence");
    }
}
