use crate::{Codes, CompressError, Curvature, Hessian, Mask, Quantized, Result, SolveReport, Statistics};
use ndarray::{Array2, ArrayView2};
use std::borrow::Cow;
use std::fmt;

/// One linear layer to compress.
///
/// # Examples
/// ```
/// use ndarray::array;
/// use sparq_core::LayerProblem;
/// let weight = array![[1.0_f32, -2.0]];
/// let problem = LayerProblem::uncalibrated("demo", weight.view())?;
/// assert_eq!(problem.weight().dim(), (1, 2));
/// assert!(LayerProblem::uncalibrated("demo", array![[f32::NAN]].view()).is_err());
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct LayerProblem<'a> {
    name: &'a str,
    weight: ArrayView2<'a, f32>,
    curvature: &'a Curvature,
}

/// What is known of the inputs of a layer without calibration.
static UNCALIBRATED: Curvature = Curvature::unknown();

impl<'a> LayerProblem<'a> {
    /// Checks that shapes agree and that every weight is finite.
    ///
    /// `weight` is `[out, in]`; `curvature` is over the same `in`. Layers that read the same input share one.
    ///
    /// # Errors
    /// [`CompressError::Shape`], [`CompressError::NotFinite`]. Statistics that are not finite are no error: the solver
    /// falls back and says so.
    pub fn new(name: &'a str, weight: ArrayView2<'a, f32>, curvature: &'a Curvature) -> Result<Self> {
        let width = weight.ncols();
        if let Some(shape) = curvature.hessian().shape() {
            CompressError::check_shape(name, "Hessian", shape, (width, width))?;
        }
        if let Some(((row, column), &value)) = weight.indexed_iter().find(|(_, value)| !value.is_finite()) {
            return Err(CompressError::NotFinite { layer: name.to_owned(), row, column, value });
        }
        Ok(Self { name, weight, curvature })
    }

    /// A layer whose inputs are not known, for methods that need no data.
    ///
    /// # Errors
    /// [`CompressError::NotFinite`].
    pub fn uncalibrated(name: &'a str, weight: ArrayView2<'a, f32>) -> Result<Self> {
        Self::new(name, weight, &UNCALIBRATED)
    }

    /// Name of the layer, for messages.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The dense weight, `[out, in]`.
    pub fn weight(&self) -> ArrayView2<'a, f32> {
        self.weight
    }

    /// What is known of the inputs, and the damping that goes with it.
    pub fn curvature(&self) -> &'a Curvature {
        self.curvature
    }

    /// The sums over the inputs.
    pub fn hessian(&self) -> &'a Hessian {
        self.curvature.hessian()
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
        LayerProblem::new(self.name, weight, self.curvature)
    }

    /// # Errors
    /// [`CompressError::MissingStatistics`] if the problem carries less than `method` needs.
    pub fn require(&self, needed: Statistics, method: &str) -> Result<()> {
        let given = self.hessian().statistics();
        if given >= needed {
            return Ok(());
        }
        Err(CompressError::MissingStatistics { layer: self.name.to_owned(), method: method.to_owned(), needed, given })
    }
}

/// A layer after compression.
#[derive(Debug, Clone, PartialEq)]
pub struct CompressedLayer {
    /// The weight a forward pass uses, `[out, in]`. If there are [`codes`](Self::codes), it is exactly their values.
    pub weight: Array2<f32>,
    /// What the pruner kept; none if nothing was pruned.
    pub mask: Option<Mask>,
    /// The integer form; none if nothing was quantized.
    pub codes: Option<Codes>,
    /// How it went.
    pub report: SolveReport,
}

impl CompressedLayer {
    /// Codes of fixed width, scales and zero points; none if nothing was quantized to such.
    pub fn quantized(&self) -> Option<&Quantized> {
        self.codes.as_ref().and_then(Codes::grid)
    }
}

/// Compresses one linear layer `Y = X Wᵀ`.
///
/// Implementations are pure: the same problem gives the same bits, for any number of threads.
pub trait LayerCompressor: fmt::Debug + Send + Sync {
    /// Short name with the settings that matter, such as `sparsegpt 2:4`.
    fn name(&self) -> Cow<'static, str>;

    /// What has to be collected before [`compress`](Self::compress) can run.
    fn needs(&self) -> Statistics;

    /// Whether the rows of a layer are solved each by itself, given the statistics. Then rows `i·256..j·256` of a layer, or
    /// those from there to its end if there are at least 256, are solved to the same bits without the others, and processes
    /// can share them.
    fn is_by_row(&self) -> bool {
        false
    }

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

    fn is_by_row(&self) -> bool {
        (**self).is_by_row()
    }

    fn compress(&self, problem: &LayerProblem<'_>) -> Result<CompressedLayer> {
        (**self).compress(problem)
    }
}
