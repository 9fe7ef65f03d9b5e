use serde::{Deserialize, Serialize};

/// Where the weight of one linear layer is in a checkpoint: usually a tensor of its own, sometimes a part of one that
/// holds several (query, key and value projections in one matrix; all experts in one tensor of three dimensions).
///
/// # Examples
/// ```
/// use sparq_tensor::TensorPart;
/// let whole = TensorPart::whole("o_proj.weight", [8, 8]);
/// assert!(whole.is_whole([8, 8]));
/// let keys = TensorPart { first_row: 8, ..TensorPart::whole("qkv_proj.weight", [16, 8]) };
/// assert!(!keys.is_whole([4, 8]) && keys.holds([4, 8]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorPart {
    /// Full name of the tensor.
    pub tensor: String,
    /// Shape of the whole tensor.
    pub shape: Vec<usize>,
    /// First of the part's output features among those of the tensor. In a tensor of more than two dimensions they are
    /// counted through all matrices, one after the other.
    pub first_row: usize,
    /// Whether the tensor is stored as `[in, out]`, as GPT-2 does.
    pub transposed: bool,
}

impl TensorPart {
    /// A tensor of its own, `[out, in]`.
    pub fn whole(tensor: impl Into<String>, shape: [usize; 2]) -> Self {
        Self { tensor: tensor.into(), shape: shape.to_vec(), first_row: 0, transposed: false }
    }

    /// Output and input features of the whole tensor, matrices of a tensor of more dimensions one below the other; none
    /// for a shape that is no matrix.
    pub fn features(&self) -> Option<[usize; 2]> {
        match (self.transposed, self.shape.as_slice()) {
            (true, &[width, rows]) => Some([rows, width]),
            (false, [outer @ .., width]) if !outer.is_empty() => {
                let rows = outer.iter().try_fold(1_usize, |rows, size| rows.checked_mul(*size))?;
                Some([rows, *width])
            }
            _ => None,
        }
    }

    /// Whether a linear of this shape, `[out, in]`, is the whole tensor, stored as it is.
    pub fn is_whole(&self, shape: [usize; 2]) -> bool {
        !self.transposed && self.shape == shape
    }

    /// Whether a linear of this shape, `[out, in]`, lies inside the tensor.
    pub fn holds(&self, [rows, width]: [usize; 2]) -> bool {
        self.features()
            .is_some_and(|[all, wide]| wide == width && self.first_row.checked_add(rows).is_some_and(|end| end <= all))
    }
}
