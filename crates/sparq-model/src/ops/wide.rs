/// Runs `loops` compiled for AVX2 on machines that have it, and as they are elsewhere.
///
/// Beyond the wider vectors this matters because matrix kernels leave the upper halves of vector registers in use:
/// until these are cleared, the SSE code of the baseline target runs several times slower (measured: 6.4 instead of
/// 1.4 ns per element of a gated activation). AVX code is not affected.
///
/// The closure must be marked `#[inline(always)]`, else it is compiled on its own, for the baseline.
///
/// Results have the same bits either way: nothing is contracted or reordered.
#[inline(always)]
#[allow(clippy::inline_always)] // see above
pub(crate) fn wide<R>(loops: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(loops)
}
