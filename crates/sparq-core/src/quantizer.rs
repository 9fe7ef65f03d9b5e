use crate::{Codes, CompressedLayer, LayerCompressor, LayerProblem, Mask, Result, Selection, SolveReport};

/// A method that rounds weights to a grid, alone or as the second half of a [`Solver`](crate::Solver).
pub trait Quantizer: LayerCompressor {
    /// Quantizes what `selection` keeps. What it removes becomes exactly zero and does not stretch any range.
    ///
    /// # Errors
    /// As [`LayerCompressor::compress`]; [`CompressError::Shape`](crate::CompressError::Shape) if a mask does not fit;
    /// [`CompressError::Conflict`](crate::CompressError::Conflict) for a rule that the method cannot follow.
    fn quantize(&self, problem: &LayerProblem<'_>, selection: &Selection<'_>) -> Result<Rounded>;
}

/// What a quantizer leaves: codes, not yet a dense weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Rounded {
    /// Codes with their grids or steps.
    pub codes: Codes,
    /// What was kept; none if nothing was removed.
    pub mask: Option<Mask>,
    /// How it went.
    pub report: SolveReport,
}

impl Rounded {
    /// The layer, with its dense weight.
    pub fn into_layer(self) -> CompressedLayer {
        let Self { codes, mask, report } = self;
        CompressedLayer { weight: codes.dequantize(), mask, codes: Some(codes), report }
    }
}
