//! The kernels of `faer`.

use super::transition::leave_wide_registers;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{
    LltError, LltParams, LltRegularization, cholesky_in_place, cholesky_in_place_scratch,
};
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::traits::RealField;
use faer::{Accum, Auto, Par, Spec};
use faer_ext::IntoFaer;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, NdFloat, ShapeBuilder};

/// What a factorization needs of a type.
pub(crate) trait Arithmetic: NdFloat + RealField {}

impl Arithmetic for f32 {}
impl Arithmetic for f64 {}

/// How many ways the factorization splits its work. A constant, not the number of threads: the split, and so every
/// rounding, is the same wherever it runs.
const SPLIT: usize = 4;

/// `c = alpha · a · b`, added to what `c` holds if `add`; else `c` is not read.
pub(crate) fn product(
    alpha: f32,
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
    add: bool,
    c: ArrayViewMut2<'_, f32>,
) {
    let accumulate = if add { Accum::Add } else { Accum::Replace };
    matmul(c.into_faer(), accumulate, a.into_faer(), b.into_faer(), alpha, Par::Seq);
    leave_wide_registers();
}

/// Adds `alpha · a · b` to the lower triangle of the square tile `c`; what stands above is neither read nor written.
pub(crate) fn product_lower(alpha: f32, a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, c: ArrayViewMut2<'_, f32>) {
    triangular::matmul(
        c.into_faer(),
        BlockStructure::TriangularLower,
        Accum::Add,
        a.into_faer(),
        BlockStructure::Rectangular,
        b.into_faer(),
        BlockStructure::Rectangular,
        alpha,
        Par::Seq,
    );
    leave_wide_registers();
}

/// `L⁻¹` for the Cholesky factor `L` of the symmetric matrix whose lower triangle is given, with zeros above it.
/// Both are stored column after column. What stands above the diagonal of the result has no meaning.
///
/// # Errors
/// The index of the first pivot that is not positive and finite.
pub(crate) fn inverse_of_factor<T: Arithmetic>(mut lower: Array2<T>) -> Result<Array2<T>, usize> {
    let order = lower.nrows();
    let par = Par::rayon(SPLIT);
    let params: Spec<LltParams, T> = Spec::new(<LltParams as Auto<T>>::auto());
    let mut memory = MemBuffer::new(cholesky_in_place_scratch::<T>(order, par, params));
    let mut factor = lower.view_mut().into_faer();
    cholesky_in_place(factor.as_mut(), LltRegularization::default(), par, MemStack::new(&mut memory), params)
        .map_err(|LltError::NonPositivePivot { index }| index)?;
    let mut inverse = Array2::zeros((order, order).f());
    invert_lower_triangular(inverse.view_mut().into_faer(), factor.as_ref(), par);
    // The factorization ran on any thread of the pool.
    rayon::broadcast(|_| leave_wide_registers());
    leave_wide_registers();
    Ok(inverse)
}
