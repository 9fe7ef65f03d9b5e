use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

/// An order in which columns are visited: act-order, also called desc_act.
///
/// # Examples
/// ```
/// use ndarray::array;
/// let order = sparq_core::ColumnOrder::by_activation(array![1.0_f32, 9.0, 4.0].view());
/// assert_eq!(order.columns(), [1, 2, 0]);
/// let there = order.permute_columns(array![[10, 11, 12]].view());
/// assert_eq!(there, array![[11, 12, 10]]);
/// assert_eq!(order.restore_columns(there.view()), array![[10, 11, 12]]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnOrder {
    columns: Vec<usize>,
}

impl ColumnOrder {
    /// Largest diagonal entry of the Hessian first; ties keep their order.
    pub fn by_activation(diagonal: ArrayView1<'_, f32>) -> Self {
        let mut columns: Vec<usize> = (0..diagonal.len()).collect();
        columns.sort_by(|&x, &y| diagonal[y].total_cmp(&diagonal[x]));
        Self { columns }
    }

    /// Position `p` of the order holds original column `columns()[p]`.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Columns of `matrix` in this order.
    pub fn permute_columns<T: Copy + Default + Send + Sync>(&self, matrix: ArrayView2<'_, T>) -> Array2<T> {
        columns_of(matrix, &self.columns)
    }

    /// Undoes [`permute_columns`](Self::permute_columns).
    pub fn restore_columns<T: Copy + Default + Send + Sync>(&self, matrix: ArrayView2<'_, T>) -> Array2<T> {
        let mut position = vec![0; self.columns.len()];
        for (at, &column) in self.columns.iter().enumerate() {
            position[column] = at;
        }
        columns_of(matrix, &position)
    }

    /// Rows and columns of a symmetric `matrix` in this order.
    pub fn permute_both(&self, matrix: ArrayView2<'_, f32>) -> Array2<f32> {
        matrix.select(Axis(0), &self.columns).select(Axis(1), &self.columns)
    }

    /// Undoes [`permute`](Self::permute).
    pub(crate) fn restore(&self, vector: &[f32]) -> Vec<f32> {
        let mut restored = vec![0.0; vector.len()];
        for (&column, &value) in self.columns.iter().zip(vector) {
            restored[column] = value;
        }
        restored
    }

    /// A vector in this order.
    pub fn permute(&self, vector: ArrayView1<'_, f32>) -> Array1<f32> {
        vector.select(Axis(0), &self.columns)
    }
}

/// The result is row-major, unlike that of `select`: callers iterate over rows.
fn columns_of<T: Copy + Default + Send + Sync>(matrix: ArrayView2<'_, T>, columns: &[usize]) -> Array2<T> {
    let mut ordered = Array2::default((matrix.nrows(), columns.len()));
    let rows = ordered.outer_iter_mut().into_par_iter().zip(matrix.outer_iter());
    rows.for_each(|(mut ordered, row)| {
        for (value, &column) in ordered.iter_mut().zip(columns) {
            *value = row[column];
        }
    });
    ordered
}
