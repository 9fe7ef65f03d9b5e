use super::{exp, wide};
use rayon::prelude::*;

/// Elements one task handles: large enough to be worth scheduling, small enough to stay in the first-level cache.
const CHUNK: usize = 1 << 13;

/// Nonlinearity of the feed-forward gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `x / (1 + e⁻ˣ)`, also called swish.
    Silu,
    /// `x Φ(x)` with the normal distribution function.
    Gelu,
    /// GELU with the usual approximation by `tanh`.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    pub(crate) const SUPPORTED: &'static str = "silu, gelu, gelu_pytorch_tanh and relu";

    /// By the name config.json uses.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "silu" | "swish" => Some(Self::Silu),
            "gelu" => Some(Self::Gelu),
            "gelu_pytorch_tanh" | "gelu_new" => Some(Self::GeluTanh),
            "relu" => Some(Self::Relu),
            _ => None,
        }
    }

    /// `x = activation(x)`, element by element.
    pub(crate) fn apply(self, x: &mut [f32]) {
        let each = |x: &mut [f32], f: &(dyn Fn(f32) -> f32 + Sync)| {
            x.par_chunks_mut(CHUNK).for_each(|x| {
                for value in x {
                    *value = f(*value);
                }
            });
        };
        match self {
            Self::Silu => each(x, &silu),
            Self::Gelu => each(x, &gelu),
            Self::GeluTanh => each(x, &gelu_tanh),
            Self::Relu => each(x, &relu),
        }
    }

    /// `gate = activation(gate) · up`, element by element; slices of equal length.
    pub(crate) fn gate(self, gate: &mut [f32], up: &[f32]) {
        match self {
            Self::Silu => apply(gate, up, silu),
            Self::Gelu => apply(gate, up, gelu),
            Self::GeluTanh => apply(gate, up, gelu_tanh),
            Self::Relu => apply(gate, up, relu),
        }
    }

    /// Turns the gradient at what [`apply`](Self::apply) makes of `x` into the gradient at `x`, in place.
    pub(crate) fn apply_backward(self, x: &[f32], gradient: &mut [f32]) {
        match self {
            Self::Silu => apply_backward(x, gradient, silu_and_slope),
            Self::Gelu => apply_backward(x, gradient, gelu_and_slope),
            Self::GeluTanh => apply_backward(x, gradient, gelu_tanh_and_slope),
            Self::Relu => apply_backward(x, gradient, relu_and_slope),
        }
    }

    /// Replaces `gate` and `up` by the gradients at them, where `gradient` is that at what [`gate`](Self::gate) makes of
    /// them; slices of equal length.
    pub(crate) fn gate_backward(self, gate: &mut [f32], up: &mut [f32], gradient: &[f32]) {
        match self {
            Self::Silu => gate_backward(gate, up, gradient, silu_and_slope),
            Self::Gelu => gate_backward(gate, up, gradient, gelu_and_slope),
            Self::GeluTanh => gate_backward(gate, up, gradient, gelu_tanh_and_slope),
            Self::Relu => gate_backward(gate, up, gradient, relu_and_slope),
        }
    }
}

fn apply_backward(x: &[f32], gradient: &mut [f32], f: impl Fn(f32) -> (f32, f32) + Sync) {
    gradient.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(gradient, x)| {
        wide(
            #[inline(always)]
            || {
                for (gradient, x) in gradient.iter_mut().zip(x) {
                    *gradient *= f(*x).1;
                }
            },
        );
    });
}

fn gate_backward(gate: &mut [f32], up: &mut [f32], gradient: &[f32], f: impl Fn(f32) -> (f32, f32) + Sync) {
    let up = up.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK));
    gate.par_chunks_mut(CHUNK).zip(up).for_each(|(gate, (up, gradient))| {
        wide(
            #[inline(always)]
            || {
                for ((gate, up), gradient) in gate.iter_mut().zip(up).zip(gradient) {
                    let (value, slope) = f(*gate);
                    (*gate, *up) = (gradient * *up * slope, gradient * value);
                }
            },
        );
    });
}

#[inline(always)]
#[allow(clippy::inline_always)] // so that the loop around it vectorises
fn silu_and_slope(x: f32) -> (f32, f32) {
    let share = 1.0 / (1.0 + exp(-x));
    (x * share, share * (1.0 + x * (1.0 - share)))
}

fn gelu_and_slope(x: f32) -> (f32, f32) {
    let density = exp(-0.5 * x * x) * (0.5 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2);
    let share = if x == 0.0 { 0.5 } else { gelu(x) / x };
    (gelu(x), share + x * density)
}

fn gelu_tanh_and_slope(x: f32) -> (f32, f32) {
    let share = 1.0 / (1.0 + exp(-2.0 * SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)));
    let inner_slope = SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044715 * x * x);
    (x * share, share + x * 2.0 * share * (1.0 - share) * inner_slope)
}

fn relu_and_slope(x: f32) -> (f32, f32) {
    (relu(x), if x > 0.0 { 1.0 } else { 0.0 })
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;

fn apply(gate: &mut [f32], up: &[f32], f: impl Fn(f32) -> f32 + Sync) {
    gate.par_chunks_mut(CHUNK).zip(up.par_chunks(CHUNK)).for_each(|(gate, up)| {
        wide(
            #[inline(always)]
            || {
                for (gate, up) in gate.iter_mut().zip(up) {
                    *gate = f(*gate) * up;
                }
            },
        );
    });
}

#[inline(always)]
#[allow(clippy::inline_always)] // so that the loop around it vectorises
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

fn relu(x: f32) -> f32 {
    if x > 0.0 { x } else { 0.0 }
}

fn gelu_tanh(x: f32) -> f32 {
    let inner = SQRT_2_OVER_PI * (x + 0.044715 * x * x * x);
    // (1 + tanh z) / 2 = 1 / (1 + exp(-2z))
    x / (1.0 + exp(-2.0 * inner))
}

/// By Abramowitz and Stegun 7.1.26, whose error is below 1.5e-7.
fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let polynomial = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_8) * t - 0.284_496_74) * t + 0.254_829_6) * t;
    let tail = 0.5 * polynomial * exp(-z * z); // Φ(-|x|)
    if x < 0.0 { x * tail } else { x * (1.0 - tail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of PyTorch's float64 functions at -3, -1, -0.25, 0, 0.5, 2.
    const POINTS: [f32; 6] = [-3.0, -1.0, -0.25, 0.0, 0.5, 2.0];

    fn check(activation: Activation, expected: impl Fn(f64) -> f64, tolerance: f64) {
        let mut gate = POINTS.to_vec();
        activation.gate(&mut gate, &[2.0; 6]);
        for (got, x) in gate.iter().zip(POINTS) {
            let expected = 2.0 * expected(f64::from(x));
            assert!((f64::from(*got) - expected).abs() < tolerance, "{activation:?} {x}: {got} {expected}");
        }
        let mut alone = POINTS.to_vec();
        activation.apply(&mut alone);
        assert!(alone.iter().zip(&gate).all(|(alone, gate)| 2.0 * alone == *gate));
    }

    #[test]
    fn slopes_agree_with_differences() {
        let step = 1e-3;
        for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
            for x in [-4.0, -1.3, -0.2, 0.4, 1.7, 5.0] {
                let of = |x: f32| {
                    let mut value = [x];
                    activation.apply(&mut value);
                    value[0]
                };
                let (mut slope, mut gate, mut up) = ([1.0], [x], [3.0]);
                activation.apply_backward(&[x], &mut slope);
                activation.gate_backward(&mut gate, &mut up, &[2.0]);
                let expected = (of(x + step) - of(x - step)) / (2.0 * step);
                assert!((slope[0] - expected).abs() < 5e-4, "{activation:?} {x}: {} {expected}", slope[0]);
                assert!((gate[0] - 6.0 * slope[0]).abs() < 1e-5 && (up[0] - 2.0 * of(x)).abs() < 1e-5);
            }
        }
    }

    /// Integrates the normal density, slowly.
    fn normal_distribution(x: f64) -> f64 {
        let steps = 20_000;
        let (low, width) = (-10.0, (x + 10.0) / f64::from(steps));
        let density = |t: f64| (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt();
        (0..steps).map(|i| density(low + (f64::from(i) + 0.5) * width) * width).sum()
    }

    #[test]
    fn agree_with_their_definitions() {
        check(Activation::Silu, |x| x / (1.0 + (-x).exp()), 1e-6);
        check(Activation::Relu, |x| x.max(0.0), 0.0_f64.next_up());
        check(Activation::Gelu, |x| x * normal_distribution(x), 2e-6);
        let tanh = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
        check(Activation::GeluTanh, tanh, 1e-6);
    }
}
