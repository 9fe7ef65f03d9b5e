use crate::{ColumnOrder, CompressError, Result};
use ndarray::{Array2, ArrayView1, ArrayView2, s};
use std::ops::Range;

/// Columns that a solution computes at a time.
const PANEL_COLUMNS: usize = 512;

/// `U` with `(H + λI)⁻¹ = UᵀU`: the whole of it, or only its diagonal where no more could be had
/// ([`Curvature`](crate::Curvature)).
#[derive(Debug, Clone, PartialEq)]
pub struct InverseFactor {
    upper: Option<Array2<f32>>,
    diagonal: Vec<f32>,
    /// The order of rows and columns, if it is not that of the layer's input channels.
    order: Option<ColumnOrder>,
}

impl InverseFactor {
    pub(crate) fn new(upper: Array2<f32>, order: Option<ColumnOrder>) -> Self {
        let upper = if upper.is_standard_layout() { upper } else { upper.as_standard_layout().into_owned() };
        Self { diagonal: upper.diag().to_vec(), upper: Some(upper), order }
    }

    /// The factor of the identity: every weight counts the same and nothing is compensated.
    pub(crate) fn identity(width: usize, order: Option<ColumnOrder>) -> Self {
        Self { upper: None, diagonal: vec![1.0; width], order }
    }

    /// The factor of a diagonal matrix, `shift` added to each entry.
    pub(crate) fn from_diagonal(diagonal: ArrayView1<'_, f32>, shift: f64, order: Option<ColumnOrder>) -> Self {
        let entry = |&value: &f32| (1.0 / (f64::from(value.max(0.0)) + shift).sqrt()) as f32;
        let diagonal = order.as_ref().map_or_else(|| diagonal.to_owned(), |order| order.permute(diagonal));
        Self { upper: None, diagonal: diagonal.iter().map(entry).collect(), order }
    }

    /// Number of input channels.
    pub fn width(&self) -> usize {
        self.diagonal.len()
    }

    /// The order in which a sweep visits the input channels, if it is not their own.
    pub(crate) fn order(&self) -> Option<&ColumnOrder> {
        self.order.as_ref()
    }

    /// `U[j, j]`, `[in]`, all positive, in the order of the sweep.
    pub(crate) fn diagonal(&self) -> &[f32] {
        &self.diagonal
    }

    /// `U[j, j]`, `[in]`, all positive, in the order of the input channels: how far an error in one channel's weight reaches
    /// once the channels after it in the sweep have made up for it, as `error / U[j, j]`.
    pub fn conditional_deviations(&self) -> Vec<f32> {
        self.order.as_ref().map_or_else(|| self.diagonal.clone(), |order| order.restore(&self.diagonal))
    }

    /// The diagonal of `(H + λI)⁻¹`, `[in]`, all positive, in the order of the input channels.
    pub fn inverse_diagonal(&self) -> Vec<f32> {
        let diagonal: Vec<f32> = match &self.upper {
            Some(upper) => {
                let mut sums = vec![0.0_f64; self.width()];
                for row in upper.outer_iter() {
                    sums.iter_mut().zip(row).for_each(|(sum, &u)| *sum += f64::from(u) * f64::from(u));
                }
                sums.into_iter().map(|sum| sum as f32).collect()
            }
            None => self.diagonal.iter().map(|value| value * value).collect(),
        };
        match &self.order {
            Some(order) => order.restore(&diagonal),
            None => diagonal,
        }
    }

    /// `b (H + λI)⁻¹` for `b` of shape `[rows, in]`: two matrix products. Input channels are in their own order.
    ///
    /// # Errors
    /// [`CompressError::Shape`] if the widths differ.
    ///
    /// # Examples
    /// ```
    /// use ndarray::array;
    /// use sparq_core::{Curvature, Damping, Hessian};
    /// let hessian = Hessian::Full { matrix: array![[2.0, 0.0], [0.0, 4.0]], tokens: 8 };
    /// let curvature = Curvature::new(hessian).with_damping(Damping::new(0.0)?);
    /// assert_eq!(curvature.factor().solve(array![[4.0, 4.0]].view())?.mapv(f32::round), array![[2.0, 1.0]]);
    /// # Ok::<(), sparq_core::CompressError>(())
    /// ```
    pub fn solve(&self, b: ArrayView2<'_, f32>) -> Result<Array2<f32>> {
        CompressError::check_shape("solve", "right side", b.dim(), (b.nrows(), self.width()))?;
        let ordered = self.order.as_ref().map(|order| order.permute_columns(b));
        let solved = self.solve_in_order(ordered.as_ref().map_or(b, |ordered| ordered.view()));
        Ok(match &self.order {
            Some(order) => order.restore_columns(solved.view()),
            None => solved,
        })
    }

    fn solve_in_order(&self, b: ArrayView2<'_, f32>) -> Array2<f32> {
        let Some(upper) = &self.upper else {
            return &b * &ndarray::aview1(&self.diagonal).mapv(|value| value * value);
        };
        // `U` is zero below its diagonal: what lies there is left out, a panel at a time.
        let (mut half, mut solved) = (Array2::zeros(b.dim()), Array2::zeros(b.dim()));
        let width = self.width();
        let panels = || (0..width).step_by(PANEL_COLUMNS).map(|first| first..width.min(first + PANEL_COLUMNS));
        for panel in panels() {
            let (from, to) = (s![.., panel.start..], s![.., panel.clone()]);
            let upper = upper.slice(s![panel.clone(), panel.start..]);
            sparq_linalg::gemm(1.0, b.slice(from), upper.t(), 0.0, half.slice_mut(to));
        }
        for panel in panels() {
            let (from, to) = (s![.., ..panel.end], s![.., panel.clone()]);
            let upper = upper.slice(s![..panel.end, panel.clone()]);
            sparq_linalg::gemm(1.0, half.slice(from), upper, 0.0, solved.slice_mut(to));
        }
        solved
    }

    /// Rows `columns` of `U` inside these columns; none if nothing is compensated.
    pub(crate) fn rows_of_block(&self, columns: Range<usize>) -> Vec<&[f32]> {
        let Some(upper) = self.upper.as_ref().and_then(|upper| upper.as_slice()) else { return Vec::new() };
        let width = self.width();
        columns.clone().map(|row| &upper[row * width + columns.start..row * width + columns.end]).collect()
    }

    /// These rows and columns of `U`; none if nothing is compensated.
    pub(crate) fn piece(&self, rows: Range<usize>, columns: Range<usize>) -> Option<ArrayView2<'_, f32>> {
        self.upper.as_ref().map(|upper| upper.slice(s![rows, columns]))
    }
}
