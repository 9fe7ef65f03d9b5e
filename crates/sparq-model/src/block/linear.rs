use crate::Precision;
use crate::ops::wide;
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2};
use rayon::prelude::*;
use sparq_linalg::{gemm, linear_bf16};
use sparq_tensor::TensorPart;

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
