//! Matrices as plain `f32`, little-endian, row after row.

use ndarray::{Array2, ArrayView2};
use std::io::{Read, Result, Write};

/// Writes the values of `matrix`.
pub(crate) fn write_matrix(file: &mut dyn Write, matrix: ArrayView2<'_, f32>) -> Result<()> {
    let mut bytes = Vec::new();
    for row in matrix.outer_iter() {
        bytes.resize(4 * row.len(), 0);
        for (four, value) in bytes.chunks_exact_mut(4).zip(row) {
            four.copy_from_slice(&value.to_le_bytes());
        }
        file.write_all(&bytes)?;
    }
    Ok(())
}

/// Reads a matrix of this shape, which the caller has checked against the size of the file.
pub(crate) fn read_matrix(file: &mut dyn Read, (rows, width): (usize, usize)) -> Result<Array2<f32>> {
    let mut matrix = Array2::zeros((rows, width));
    let mut bytes = vec![0; 4 * width];
    for mut row in matrix.outer_iter_mut() {
        file.read_exact(&mut bytes)?;
        for (value, four) in row.iter_mut().zip(bytes.chunks_exact(4)) {
            *value = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        }
    }
    Ok(matrix)
}
