use crate::{CompressError, Mask, Quantized, Result, SharedHessian, SolveReport};
use ndarray::{Array1, Array2, ArrayView2};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// What a method needs to know about a layer's inputs. Ordered: each kind includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Statistics {
    /// Nothing: weights alone.
    Nothing,
    /// The sum of squares of every input channel (the diagonal of the Hessian).
    ChannelNorms,
    /// The whole matrix `XᵀX`.
    Hessian,
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "no statistics",
            Self::ChannelNorms => "input channel norms",
            Self::Hessian => "a Hessian",
        })
    }
}

/// What calibration has summed up about the inputs of one layer.
///
/// The scale of the sums is of no consequence: a positive factor on `XᵀX` changes no mask and no code, since damping is
/// relative to the mean diagonal.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Hessian {
    /// Nothing was collected.
    None,
    /// `Σ x²` for each input channel, `[in]`.
    Diagonal {
        /// The sums.
        sums: Array1<f32>,
        /// Tokens they were taken over.
        tokens: u64,
    },
    /// `Σ x xᵀ`, `[in, in]`, symmetric, both triangles filled.
    Full {
        /// The matrix.
        matrix: Array2<f32>,
        /// Tokens it was taken over.
        tokens: u64,
    },
}

impl Hessian {
    /// Which kind of statistics this is.
    pub fn statistics(&self) -> Statistics {
        match self {
            Self::None => Statistics::Nothing,
            Self::Diagonal { .. } => Statistics::ChannelNorms,
            Self::Full { .. } => Statistics::Hessian,
        }
    }

    /// Tokens the statistics were taken over.
    pub fn tokens(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Diagonal { tokens, .. } | Self::Full { tokens, .. } => *tokens,
        }
    }

    /// `Σ x²` for each input channel, if known.
    pub fn diagonal(&self) -> Option<Array1<f32>> {
        match self {
            Self::None => None,
            Self::Diagonal { sums, .. } => Some(sums.clone()),
            Self::Full { matrix, .. } => Some(matrix.diag().to_owned()),
        }
    }

    /// Of the whole matrix, known or not.
    fn shape(&self) -> Option<(usize, usize)> {
        match self {
            Self::None => None,
            Self::Diagonal { sums, .. } => Some((sums.len(), sums.len())),
            Self::Full { matrix, .. } => Some(matrix.dim()),
        }
    }
}

/// One linear layer to compress.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::{Hessian, LayerProblem};
/// let weight = array![[1.0_f32, -2.0]];
/// let problem = LayerProblem::new("demo", weight.view(), &Hessian::None)?;
/// assert_eq!(problem.weight().dim(), (1, 2));
/// assert!(LayerProblem::new("demo", array![[f32::NAN]].view(), &Hessian::None).is_err());
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct LayerProblem<'a> {
    name: &'a str,
    weight: ArrayView2<'a, f32>,
    hessian: &'a Hessian,
    shared: Option<&'a SharedHessian>,
}

impl<'a> LayerProblem<'a> {
    /// Checks that shapes agree and that every weight is finite.
    ///
    /// `weight` is `[out, in]`; `hessian` is over the same `in`.
    ///
    /// # Errors
    /// [`CompressError::Shape`], [`CompressError::NotFinite`]. Statistics that are not finite are no error: the solver
    /// falls back and says so.
    pub fn new(name: &'a str, weight: ArrayView2<'a, f32>, hessian: &'a Hessian) -> Result<Self> {
        let width = weight.ncols();
        if let Some(shape) = hessian.shape() {
            CompressError::check_shape(name, "Hessian", shape, (width, width))?;
        }
        if let Some(((row, column), &value)) = weight.indexed_iter().find(|(_, value)| !value.is_finite()) {
            return Err(CompressError::NotFinite { layer: name.to_owned(), row, column, value });
        }
        Ok(Self { name, weight, hessian, shared: None })
    }

    /// The same, with statistics that other layers have too: what one solver derives from them serves the next.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn sharing(name: &'a str, weight: ArrayView2<'a, f32>, shared: &'a SharedHessian) -> Result<Self> {
        Ok(Self { shared: Some(shared), ..Self::new(name, weight, shared.hessian())? })
    }

    /// Name of the layer, for messages.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The dense weight, `[out, in]`.
    pub fn weight(&self) -> ArrayView2<'a, f32> {
        self.weight
    }

    /// What is known of the inputs.
    pub fn hessian(&self) -> &'a Hessian {
        self.hessian
    }

    /// The same layer with another weight: what the second step of a sequential method sees.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`CompressError::Shape`] if the shape differs.
    pub fn with_weight<'b>(&self, weight: ArrayView2<'b, f32>) -> Result<LayerProblem<'b>>
    where
        'a: 'b,
    {
        CompressError::check_shape(self.name, "weight", weight.dim(), self.weight.dim())?;
        Ok(LayerProblem { shared: self.shared, ..LayerProblem::new(self.name, weight, self.hessian)? })
    }

    /// What `make` derives from the statistics; if they are [shared](Self::sharing), made once for the same `key`, which
    /// stands for the settings that go into it.
    pub fn derive<T: Any + Send + Sync>(&self, key: u64, make: impl FnOnce(&Hessian) -> T) -> Arc<T> {
        match self.shared {
            Some(shared) => shared.derive(key, make),
            None => Arc::new(make(self.hessian)),
        }
    }

    /// # Errors
    /// [`CompressError::MissingStatistics`] if the problem carries less than `method` needs.
    pub fn require(&self, needed: Statistics, method: &str) -> Result<()> {
        let given = self.hessian.statistics();
        if given >= needed {
            return Ok(());
        }
        Err(CompressError::MissingStatistics { layer: self.name.to_owned(), method: method.to_owned(), needed, given })
    }
}

/// A layer after compression.
#[derive(Debug, Clone, PartialEq)]
pub struct CompressedLayer {
    /// The weight a forward pass uses, `[out, in]`. If [`quantized`](Self::quantized) is there, it is exactly its
    /// dequantization.
    pub weight: Array2<f32>,
    /// What the pruner kept; none if nothing was pruned.
    pub mask: Option<Mask>,
    /// Codes, scales and zero points; none if nothing was quantized.
    pub quantized: Option<Quantized>,
    /// How it went.
    pub report: SolveReport,
}

/// Compresses one linear layer `Y = X Wᵀ`.
///
/// Implementations are pure: the same problem gives the same bits, for any number of threads.
pub trait LayerCompressor: fmt::Debug + Send + Sync {
    /// Short name with the settings that matter, such as `sparsegpt 2:4`.
    fn name(&self) -> Cow<'static, str>;

    /// What has to be collected before [`compress`](Self::compress) can run.
    fn needs(&self) -> Statistics;

    /// Solves the layer.
    ///
    /// # Errors
    /// [`CompressError`], naming the layer. Numerical trouble is not an error while a fallback exists; it is in the
    /// report.
    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer>;
}

impl<T: LayerCompressor + ?Sized> LayerCompressor for Box<T> {
    fn name(&self) -> Cow<'static, str> {
        (**self).name()
    }

    fn needs(&self) -> Statistics {
        (**self).needs()
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        (**self).compress(problem)
    }
}
