use crate::ops::{Workspace, wide};
use crate::{Precision, Result};
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;
use sparq_linalg::{gemm, gemm_sequential, linear_bf16};
use sparq_tensor::{StoredRows, TensorPart};

/// A linear layer `y = W x + b` and its name.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// Full module name, such as `model.layers.3.mlp.down_proj`; see [`LinearShape::name`](crate::LinearShape::name).
    pub name: String,
    /// `[out, in]`.
    pub weight: Array2<f32>,
    /// `[out]`.
    pub bias: Option<Array1<f32>>,
    /// Where the weight is in the checkpoint.
    pub stored: TensorPart,
}

impl Linear {
    /// Number of output features.
    pub fn out_features(&self) -> usize {
        self.weight.nrows()
    }

    /// Number of input features.
    pub fn in_features(&self) -> usize {
        self.weight.ncols()
    }

    /// The layer's output, `[tokens, out]`, for `input`, `[tokens, in]`; same bits for any number of threads.
    ///
    /// # Panics
    /// In debug builds if the widths differ.
    ///
    /// # Examples
    /// ```
    /// use ndarray::array;
    /// use sparq_tensor::TensorPart;
    /// let linear = sparq_model::Linear {
    ///     name: "q_proj".to_owned(),
    ///     weight: array![[1.0, 2.0]],
    ///     bias: Some(array![10.0]),
    ///     stored: TensorPart::whole("q_proj.weight", [1, 2]),
    /// };
    /// assert_eq!(linear.forward(array![[3.0, 4.0]].view()), array![[21.0]]);
    /// ```
    pub fn forward(&self, input: ArrayView2<'_, f32>) -> Array2<f32> {
        let mut output = Array2::zeros((input.nrows(), self.out_features()));
        self.write(input, Precision::F32, 0.0, output.view_mut());
        output
    }

    /// `output = W x + b + beta * output`
    pub(crate) fn write(
        &self,
        input: ArrayView2<'_, f32>,
        precision: Precision,
        beta: f32,
        mut output: ArrayViewMut2<'_, f32>,
    ) {
        multiply(input, self.weight.view(), precision, beta, output.view_mut());
        self.add_bias(output);
    }

    /// `output = output + b`
    pub(super) fn add_bias(&self, mut output: ArrayViewMut2<'_, f32>) {
        let Some(bias) = self.bias.as_ref().and_then(|bias| bias.as_slice()) else { return };
        if let Some(data) = output.as_slice_mut() {
            data.par_chunks_mut((bias.len() * 32).max(1)).for_each(|rows| {
                wide(
                    #[inline(always)]
                    || {
                        for row in rows.chunks_exact_mut(bias.len()) {
                            for (value, bias) in row.iter_mut().zip(bias) {
                                *value += bias;
                            }
                        }
                    },
                );
            });
        }
    }
}

/// Fewer tokens than this are bound by reading the weights.
const FEW_TOKENS: usize = 16;

/// `output = input · weightᵀ + beta * output`
pub(crate) fn multiply(
    input: ArrayView2<'_, f32>,
    weight: ArrayView2<'_, f32>,
    precision: Precision,
    beta: f32,
    output: ArrayViewMut2<'_, f32>,
) {
    match precision {
        Precision::Bf16 if input.nrows() >= FEW_TOKENS => linear_bf16(input, weight, beta, output),
        _ => gemm(1.0, input, weight.t(), beta, output),
    }
}

/// Fewer tokens than this are multiplied with a tile of rows while it is in the cache.
const DECODED_AT_ONCE: usize = 128;
/// Weights in such a tile: 128 KiB.
const TILE: usize = 1 << 15;
/// Weights that are decoded before more tokens are multiplied with them: 32 MiB.
const SLAB: usize = 1 << 23;

/// As [`multiply`], for a weight that stays as it is stored: a part of it is decoded at a time.
///
/// # Errors
/// [`Error::Checkpoint`](crate::Error::Checkpoint) if the file has lost bytes since it was opened.
pub(crate) fn multiply_stored(
    input: ArrayView2<'_, f32>,
    weight: &StoredRows,
    precision: Precision,
    beta: f32,
    output: ArrayViewMut2<'_, f32>,
    workspace: &Workspace,
) -> Result<()> {
    let [_, width] = weight.shape();
    if input.nrows() < DECODED_AT_ONCE {
        let product = |rows: &mut Vec<f32>, (first, mut output): (usize, ArrayViewMut2<'_, f32>)| {
            rows.resize(output.ncols() * width, 0.0);
            weight.decode(first, rows)?;
            let Ok(rows) = ArrayView2::from_shape((output.ncols(), width), rows) else { return Ok(()) };
            if precision == Precision::Bf16 && input.nrows() >= FEW_TOKENS {
                linear_bf16(input, rows, beta, output.view_mut());
            } else {
                gemm_sequential(1.0, input, rows.t(), beta, output.view_mut());
            }
            Ok(())
        };
        return columns(output, (TILE / width.max(1)).max(1)).into_par_iter().try_for_each_init(Vec::new, product);
    }
    for (first, output) in columns(output, (SLAB / width.max(1)).max(1)) {
        let mut rows = workspace.take(output.ncols(), width);
        let chunk = (TILE / width.max(1)).max(1);
        if let Some(rows) = rows.as_slice_mut() {
            let decode = |(at, rows)| weight.decode(first + at * chunk, rows);
            rows.par_chunks_mut((chunk * width).max(1)).enumerate().try_for_each(decode)?;
        }
        multiply(input, rows.view(), precision, beta, output);
        workspace.put(rows);
    }
    Ok(())
}

/// Runs of at most `count` columns, with the first of each.
fn columns(output: ArrayViewMut2<'_, f32>, count: usize) -> Vec<(usize, ArrayViewMut2<'_, f32>)> {
    let (mut runs, mut rest, mut first) = (Vec::new(), output, 0);
    while rest.ncols() > 0 {
        let width = count.min(rest.ncols());
        let (run, after) = rest.split_at(Axis(1), width);
        runs.push((first, run));
        (rest, first) = (after, first + width);
    }
    runs
}
