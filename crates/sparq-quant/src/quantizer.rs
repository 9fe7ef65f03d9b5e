use sparq_core::{CompressedLayer, LayerCompressor, LayerProblem, Mask, QuantScheme, Result};

/// A method that rounds weights to a grid, alone or as the second half of a joint method.
pub trait Quantizer: LayerCompressor {
    /// The grid.
    fn scheme(&self) -> QuantScheme;

    /// Quantizes what `mask` keeps; what it removes becomes exactly zero and does not stretch any range. Without a mask
    /// this is [`LayerCompressor::compress`].
    ///
    /// # Errors
    /// As [`LayerCompressor::compress`], and [`CompressError::Shape`](sparq_core::CompressError::Shape) if the mask
    /// does not fit.
    fn compress_within(&self, problem: &LayerProblem<'_>, mask: Option<&Mask>) -> Result<CompressedLayer>;
}

impl<T: Quantizer + ?Sized> Quantizer for Box<T> {
    fn scheme(&self) -> QuantScheme {
        (**self).scheme()
    }

    fn compress_within(&self, problem: &LayerProblem<'_>, mask: Option<&Mask>) -> Result<CompressedLayer> {
        (**self).compress_within(problem, mask)
    }
}
