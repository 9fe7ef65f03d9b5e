/// Decay of the means of gradients and of their squares.
const DECAY: [f32; 2] = [0.9, 0.999];
const LEAST: f32 = 1e-12;

/// Numbers that follow their gradient by Adam's rule (Kingma and Ba, arXiv 1412.6980, algorithm 1).
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Adam {
    pub(super) values: Vec<f32>,
    /// Summed up until the next step.
    pub(super) gradient: Vec<f32>,
    /// Of gradients and of their squares.
    pub(super) means: [Vec<f32>; 2],
}

impl Adam {
    pub(super) fn new(values: Vec<f32>) -> Self {
        let zeros = || vec![0.0; values.len()];
        Self { gradient: zeros(), means: [zeros(), zeros()], values }
    }

    /// Step `number`, counted from 1, of length `rate`; then the gradient is zero again.
    pub(super) fn step(&mut self, number: usize, rate: f32) {
        let unbiased = DECAY.map(|decay| 1.0 / (1.0 - f64::from(decay).powi(number as i32)) as f32);
        let [means, squares] = &mut self.means;
        let moments = means.iter_mut().zip(squares);
        for ((value, gradient), (mean, square)) in self.values.iter_mut().zip(&mut self.gradient).zip(moments) {
            *mean += (1.0 - DECAY[0]) * (*gradient - *mean);
            *square += (1.0 - DECAY[1]) * (*gradient * *gradient - *square);
            *value -= rate * *mean * unbiased[0] / ((*square * unbiased[1]).sqrt() + LEAST);
            *gradient = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_published_rule() {
        let mut adam = Adam::new(vec![1.0]);
        let (mut value, mut mean, mut square) = (1.0_f64, 0.0_f64, 0.0_f64);
        for number in 1..=50 {
            let gradient = 2.0 * value - 1.0 + (number as f64).sin();
            adam.gradient[0] = gradient as f32;
            adam.step(number, 0.01);
            mean = 0.9 * mean + 0.1 * gradient;
            square = 0.999 * square + 0.001 * gradient * gradient;
            let (mean, square) =
                (mean / (1.0 - 0.9_f64.powi(number as i32)), square / (1.0 - 0.999_f64.powi(number as i32)));
            value -= 0.01 * mean / (square.sqrt() + 1e-12);
            assert!((f64::from(adam.values[0]) - value).abs() < 1e-5, "{number}");
        }
        assert_eq!(adam.gradient, [0.0]);
    }
}
