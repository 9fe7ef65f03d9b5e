//! Matrices of codes as `sparq-coding` stores them.

use crate::{Error, Result};
use ndarray::{Array2, ArrayView2};

/// The codes of a layer, coded.
pub(crate) fn encode(layer: &str, codes: ArrayView2<'_, i16>) -> Result<Vec<u8>> {
    let (shape, codes) = (codes.dim(), codes.as_standard_layout());
    let codes = codes.as_slice().unwrap_or_default();
    sparq_coding::encode_matrix(codes, shape).map_err(|source| Error::Coding { layer: layer.to_owned(), source })
}

/// The codes of a layer of this shape.
pub(crate) fn decode(layer: &str, bytes: &[u8], shape: (usize, usize)) -> Result<Array2<i16>> {
    let codes = sparq_coding::Decoder::new(bytes, shape).and_then(|decoder| decoder.decode_all());
    let failed = |source| Error::Coding { layer: layer.to_owned(), source };
    let codes = codes.map_err(failed)?;
    Array2::from_shape_vec(shape, codes).map_err(|_| Error::Inconsistent {
        layer: layer.to_owned(),
        what: "the number of its codes",
        found: "another".into(),
        expected: format!("{shape:?}"),
    })
}
