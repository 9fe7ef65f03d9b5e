use crate::ops::{Workspace, wide};
use crate::{Precision, Result};
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;
use sparq_linalg::{gemm, linear_bf16};
use sparq_tensor::{OpenRows, RowInputs, StoredRows, TensorPart, rounded_to_8_bits};

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
        multiply(input, self.weight.view(), Precision::F32, 0.0, output.view_mut());
        self.add_bias(output.view_mut());
        output
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
        Precision::Int8 => gemm(1.0, rounded_to_8_bits(input).view(), weight.t(), beta, output),
        _ => gemm(1.0, input, weight.t(), beta, output),
    }
}

/// Fewer tokens than this are multiplied with integers, row by row, where weights are stored as such: faster than decoding
/// them.
const FEW_FOR_INTEGERS: usize = 4;
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
    mut output: ArrayViewMut2<'_, f32>,
    workspace: &Workspace,
) -> Result<()> {
    let ([_, width], opened) = (weight.shape(), weight.open()?);
    if opened.has_blocks() && input.nrows() < FEW_FOR_INTEGERS {
        multiply_integers(input, &opened, precision, beta, output);
        return Ok(());
    }
    if precision == Precision::Int8 {
        return multiply_stored(rounded_to_8_bits(input).view(), weight, Precision::F32, beta, output, workspace);
    }
    let tile = (TILE / width.max(1)).max(1);
    if input.nrows() < DECODED_AT_ONCE {
        let product = |rows: &mut Vec<f32>, (at, output): (usize, ArrayViewMut2<'_, f32>)| {
            rows.resize(output.ncols() * width, 0.0);
            opened.decode(at * tile, rows);
            if let Ok(rows) = ArrayView2::from_shape((output.ncols(), width), rows) {
                multiply(input, rows, precision, beta, output);
            }
        };
        let tiles: Vec<_> = output.axis_chunks_iter_mut(Axis(1), tile).enumerate().collect();
        tiles.into_par_iter().for_each_init(Vec::new, product);
        return Ok(());
    }
    let slab = (SLAB / width.max(1)).max(1);
    for (at, output) in output.axis_chunks_iter_mut(Axis(1), slab).enumerate() {
        let mut rows = workspace.take(output.ncols(), width);
        if let Some(rows) = rows.as_slice_mut() {
            let tiles = rows.par_chunks_mut((tile * width).max(1)).enumerate();
            tiles.for_each(|(tile_at, rows)| opened.decode(at * slab + tile_at * tile, rows));
        }
        multiply(input, rows.view(), precision, beta, output);
        workspace.put(rows);
    }
    Ok(())
}

/// Weights that one task multiplies with few tokens.
const TASK: usize = 1 << 16;

/// As [`multiply_stored`], for weights that are stored as integers.
fn multiply_integers(
    input: ArrayView2<'_, f32>,
    weight: &OpenRows<'_>,
    precision: Precision,
    beta: f32,
    mut output: ArrayViewMut2<'_, f32>,
) {
    let input = input.as_standard_layout();
    let inputs = input.rows().into_iter().filter_map(|row| row.to_slice()).map(|row| match precision {
        Precision::Int8 => RowInputs::rounded(row),
        _ => RowInputs::exact(row),
    });
    let inputs: Vec<_> = inputs.collect();
    let at_once = (TASK / input.ncols().max(1)).max(1);
    let tasks: Vec<_> = output.axis_chunks_iter_mut(Axis(1), at_once).enumerate().collect();
    tasks.into_par_iter().for_each(|(task, mut output)| {
        let mut products = vec![0.0; output.ncols()];
        for (input, output) in inputs.iter().zip(output.rows_mut()) {
            weight.products(task * at_once, input, &mut products);
            for (output, product) in output.into_iter().zip(&products) {
                *output = if beta == 0.0 { *product } else { product + beta * *output };
            }
        }
    });
}
