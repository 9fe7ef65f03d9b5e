//! Matrices cut into the parts that tasks own.

use ndarray::{ArrayViewMut2, Axis};

/// Which entries of a matrix are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All.
    Whole,
    /// Those on and below the diagonal; the others are neither read nor written.
    Lower,
}

/// Cuts `c` into tiles of so many `rows` and `columns`, each with its first row and column. Of [`Part::Lower`], tiles that
/// lie above the diagonal are left out, and those that it crosses are whole.
pub(crate) fn cut<T>(
    c: ArrayViewMut2<'_, T>,
    (rows, columns): (usize, usize),
    part: Part,
) -> Vec<(usize, usize, ArrayViewMut2<'_, T>)> {
    let (height, width) = c.dim();
    let (mut tiles, mut below) = (Vec::new(), c);
    for row in (0..height).step_by(rows) {
        let end = height.min(row + rows);
        let (mut right, rest) = below.split_at(Axis(0), end - row);
        below = rest;
        let wanted = if part == Part::Lower { width.min(end) } else { width };
        for column in (0..wanted).step_by(columns) {
            let (tile, rest) = right.split_at(Axis(1), columns.min(width - column));
            right = rest;
            tiles.push((row, column, tile));
        }
    }
    tiles
}
