//! The walk of `walk.rs`, backwards: from the gradient of a loss at what leaves a block to the gradients at all it is made of.

use super::experts::{self, Routed};
use super::plan::{Feeds, Norm, Role};
use super::{BatchLayout, Block, LinearId, attention, walk};
use crate::ops::{add, attention_backward, layer_norm_backward, rms_norm_backward};
use crate::{Error, NormKind, Result};
use ndarray::{Array1, Array2, ArrayView2};
use sparq_linalg::gemm;

/// Takes what a backward pass finds at the parts of a model; what is not asked for is dropped.
///
/// A pass over many sequences comes by each part several times, always in the same order: what it finds there are
/// summands of the gradient.
pub trait Gradients {
    /// Linear `id` of `block` read `input`, `[tokens, in]`, and the loss has `gradient`, `[tokens, out]`, at its output. That
    /// at its weight is [`weight_gradient`], that at its bias the sum of `gradient` over tokens.
    fn linear(&mut self, block: &Block, id: LinearId, input: ArrayView2<'_, f32>, gradient: ArrayView2<'_, f32>) {
        let _ = (block, id, input, gradient);
    }

    /// The gradient at weight or bias `index` of the [norms](Block::norms) of `block`.
    fn norm(&mut self, block: &Block, index: usize, gradient: Array1<f32>) {
        let _ = (block, index, gradient);
    }

    /// The gradient at the router of `block`, `[experts, hidden]`.
    fn router(&mut self, block: &Block, gradient: Array2<f32>) {
        let _ = (block, gradient);
    }

    /// The gradients at the weight of the final norm and at its bias, if it has one.
    fn final_norm(&mut self, weight: Array1<f32>, bias: Option<Array1<f32>>) {
        let _ = (weight, bias);
    }

    /// The output matrix read `hidden`, `[tokens, hidden]`, and the loss has `gradient`, `[tokens, vocabulary]`, at its output.
    fn output(&mut self, hidden: ArrayView2<'_, f32>, gradient: ArrayView2<'_, f32>) {
        let _ = (hidden, gradient);
    }

    /// The gradient at what [`Model::embed`](crate::Model::embed) makes of `tokens`, `[tokens, hidden]`.
    fn embedded(&mut self, tokens: &[u32], layout: &BatchLayout, gradient: ArrayView2<'_, f32>) {
        let _ = (tokens, layout, gradient);
    }
}

/// The gradient at the weight of a linear, `[out, in]`, that read `input`, `[tokens, in]`, from the one at its output, `[tokens,
/// out]`: `gradientᵀ · input`. Same bits for any number of threads.
///
/// # Panics
/// In debug builds if the numbers of tokens differ.
pub fn weight_gradient(input: ArrayView2<'_, f32>, gradient: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut of_weight = Array2::zeros((gradient.ncols(), input.ncols()));
    gemm(1.0, gradient.t(), input, 0.0, of_weight.view_mut());
    of_weight
}

/// What a forward pass leaves for the pass back.
#[derive(Debug, Default)]
pub(super) struct Tape {
    stages: Vec<Recorded>,
    routed: Option<Routed>,
}

/// A stage on its way forward.
#[derive(Debug)]
struct Recorded {
    /// What its norm read; of stages that read the residual stream.
    residual: Option<Array2<f32>>,
    input: Array2<f32>,
    /// Of its linears; none where they were added to the residual stream as they were.
    outputs: Vec<Array2<f32>>,
}

impl Block {
    /// The gradient at the residual stream that enters the block, `[tokens, hidden]`, from the `gradient` of a loss at the one
    /// that leaves it; what it is at the block's parts goes to `gradients`.
    ///
    /// `residual` is what entered, as for [`forward`](Self::forward): the way forward is computed again, and all that it leaves
    /// is kept until the way back is done. Same bits for any number of threads.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward); [`Error::Shape`] if `gradient` has another shape than `residual`.
    ///
    /// # Examples
    /// ```no_run
    /// use ndarray::Array2;
    /// use sparq_model::{BatchLayout, Block, Gradients, LinearId, Model};
    ///
    /// /// Mean squares of gradients at the outputs of linears.
    /// struct Sensitivity(Vec<f32>);
    /// impl Gradients for Sensitivity {
    ///     fn linear(&mut self, _: &Block, _: LinearId, _: ndarray::ArrayView2<f32>, gradient: ndarray::ArrayView2<f32>) {
    ///         self.0.push(gradient.iter().map(|value| value * value).sum::<f32>() / gradient.len() as f32);
    ///     }
    /// }
    ///
    /// let model = Model::open("models/SmolLM2-135M")?;
    /// let layout = BatchLayout::new(&[3]);
    /// let entering = model.embed(&[1, 2, 3], &layout)?;
    /// let of_loss = Array2::ones(entering.dim()); // of the sum of all that leaves the block
    /// let mut found = Sensitivity(Vec::new());
    /// model.block(0)?.backward(entering, layout, of_loss, &mut found)?;
    /// # Ok::<(), sparq_model::Error>(())
    /// ```
    pub fn backward(
        &self,
        residual: Array2<f32>,
        layout: BatchLayout,
        gradient: Array2<f32>,
        gradients: &mut dyn Gradients,
    ) -> Result<Array2<f32>> {
        if gradient.dim() != residual.dim() {
            return Err(Error::Shape {
                what: format!("gradient at what leaves block {}", self.index),
                expected: residual.shape().to_vec(),
                found: gradient.shape().to_vec(),
            });
        }
        let gradient =
            if gradient.is_standard_layout() { gradient } else { gradient.as_standard_layout().into_owned() };
        let mut state = self.begin(residual, layout)?;
        let mut tape = Tape::default();
        for stage in 0..self.stages() {
            let reads_residual = matches!(self.plan.stages[stage].role, Role::Attention | Role::FeedForward(_))
                && state.routed.is_none();
            let residual = reads_residual.then(|| state.residual.clone());
            self.stage_input(stage, &mut state)?;
            if tape.routed.is_none() {
                tape.routed.clone_from(&state.routed);
            }
            let (input, outputs) = self.run_stage(stage, &mut state, true)?;
            tape.stages.push(Recorded { residual, input, outputs });
        }
        Ok(Backward { block: self, layout: state.layout, gradients, residual: gradient, input: None, routed: None }
            .run(tape))
    }
}

/// A backward pass through one block.
struct Backward<'a> {
    block: &'a Block,
    layout: BatchLayout,
    gradients: &'a mut dyn Gradients,
    /// The gradient at the residual stream.
    residual: Array2<f32>,
    /// That at the input of the stage that was last, for the stage before it.
    input: Option<Array2<f32>>,
    /// While experts take their turns: the gradient at what they read, and at their weights, `[tokens, experts]`.
    routed: Option<(Array2<f32>, Array2<f32>)>,
}

impl Backward<'_> {
    fn run(mut self, tape: Tape) -> Array2<f32> {
        let norms = self.block.plan.norms;
        for (stage, mut recorded) in tape.stages.into_iter().enumerate().rev() {
            match self.block.plan.stages[stage].role {
                Role::AttentionOutput => self.output(stage, norms.after_attention, recorded),
                Role::FeedForwardOutput(Feeds::AllTokens) => self.output(stage, norms.after_feed_forward, recorded),
                Role::FeedForwardOutput(Feeds::Expert(expert)) => {
                    self.expert_output(stage, expert, recorded, tape.routed.as_ref());
                }
                Role::FeedForward(feeds) => {
                    let residual = recorded.residual.take();
                    let at_input = self.feed_forward(stage, recorded);
                    match (feeds, tape.routed.as_ref()) {
                        (Feeds::Expert(expert), Some(routed)) => {
                            self.expert_input(expert, at_input, residual, routed);
                        }
                        _ => self.join(norms.before_feed_forward, residual, at_input),
                    }
                }
                Role::Attention => {
                    let residual = recorded.residual.take();
                    let at_input = self.attention(stage, recorded);
                    self.join(norms.before_attention, residual, at_input);
                }
            }
        }
        self.residual
    }

    /// The gradient at what the linears of a stage read, from those at their outputs.
    fn linears(&mut self, stage: usize, input: &Array2<f32>, outputs: &[Array2<f32>]) -> Array2<f32> {
        let mut at_input = Array2::zeros(input.dim());
        for (index, (id, output)) in self.block.stage_linears(stage).iter().zip(outputs).enumerate() {
            self.gradients.linear(self.block, *id, input.view(), output.view());
            let beta = if index == 0 { 0.0 } else { 1.0 };
            gemm(1.0, output.view(), self.block.linears[*id].weight.view(), beta, at_input.view_mut());
        }
        at_input
    }

    /// Turns the gradient at what a norm gives into that at what it reads, `x`.
    fn norm(&mut self, norm: Option<Norm>, x: &Array2<f32>, gradient: &mut Array2<f32>) {
        let (block, Some(norm)) = (self.block, norm) else { return };
        let (weight, epsilon) = (&block.vectors[norm.weight], block.config.norm_epsilon);
        if let (NormKind::Layer, Some(bias)) = (block.config.norm, norm.bias) {
            let [of_weight, of_bias] = layer_norm_backward(x, weight, epsilon, gradient);
            self.gradients.norm(block, norm.weight, of_weight);
            self.gradients.norm(block, bias, of_bias);
        } else {
            let of_weight = rms_norm_backward(x, weight, epsilon, gradient);
            self.gradients.norm(block, norm.weight, of_weight);
        }
    }

    /// A stage whose output goes to the residual stream.
    fn output(&mut self, stage: usize, norm: Option<Norm>, recorded: Recorded) {
        let mut at_output = self.residual.clone();
        if let Some(output) = recorded.outputs.first() {
            self.norm(norm, output, &mut at_output);
        }
        self.input = Some(self.linears(stage, &recorded.input, &[at_output]));
    }

    /// What was computed of the residual stream joins its gradient.
    fn join(&mut self, norm: Option<Norm>, residual: Option<Array2<f32>>, mut at_input: Array2<f32>) {
        if let Some(residual) = residual {
            self.norm(norm, &residual, &mut at_input);
        }
        add(&mut self.residual, &at_input);
    }

    fn feed_forward(&mut self, stage: usize, recorded: Recorded) -> Array2<f32> {
        let Recorded { input, mut outputs, .. } = recorded;
        let Some(mut at_activated) = self.input.take() else { return Array2::zeros(input.dim()) };
        let activation = self.block.config.activation;
        match &mut outputs[..] {
            [gate, up] => {
                if let (Some(gate), Some(up), Some(gradient)) =
                    (gate.as_slice_mut(), up.as_slice_mut(), at_activated.as_slice())
                {
                    activation.gate_backward(gate, up, gradient);
                }
            }
            [up] => {
                if let (Some(up), Some(gradient)) = (up.as_slice(), at_activated.as_slice_mut()) {
                    activation.apply_backward(up, gradient);
                }
                std::mem::swap(up, &mut at_activated);
            }
            _ => {}
        }
        self.linears(stage, &input, &outputs)
    }

    fn attention(&mut self, stage: usize, recorded: Recorded) -> Array2<f32> {
        let (block, norms) = (self.block, self.block.plan.norms);
        let Recorded { input, outputs, .. } = recorded;
        let (Some(at_attended), Ok([queries, keys, values])) =
            (self.input.take(), <[Array2<f32>; 3]>::try_from(outputs))
        else {
            return Array2::zeros(input.dim());
        };
        let turned = |x: &Array2<f32>, norm| {
            let mut turned = x.clone();
            walk::turn(block, norm, &mut turned, &self.layout);
            turned
        };
        let (turned_queries, turned_keys) = (turned(&queries, norms.queries), turned(&keys, norms.keys));
        let span = attention::span(block);
        let [mut of_queries, mut of_keys, of_values] =
            attention_backward([&turned_queries, &turned_keys, &values], &self.layout, span, &at_attended);
        for (x, norm, gradient) in [(&queries, norms.queries, &mut of_queries), (&keys, norms.keys, &mut of_keys)] {
            if let Some(rope) = &block.rope {
                rope.rotate_backward(gradient, &self.layout);
            }
            self.norm(norm, x, gradient);
        }
        self.linears(stage, &input, &[of_queries, of_keys, of_values])
    }

    /// The last stage of an expert, whose results are weighted and added to the rows they belong to.
    fn expert_output(&mut self, stage: usize, expert: usize, recorded: Recorded, routed: Option<&Routed>) {
        let (Some(routed), Some(output)) = (routed, recorded.outputs.first()) else { return };
        let (_, of_weights) = self.routed.get_or_insert_with(|| {
            (Array2::zeros(routed.input.dim()), Array2::zeros((routed.input.nrows(), routed.sent.len())))
        });
        let mut at_output = Array2::zeros(output.dim());
        for (((row, weight), result), mut to) in routed.sent[expert].iter().zip(output.rows()).zip(at_output.rows_mut())
        {
            let gradient = self.residual.row(*row);
            of_weights[[*row, expert]] = gradient.dot(&result);
            to.assign(&gradient);
            to *= *weight;
        }
        self.input = Some(self.linears(stage, &recorded.input, &[at_output]));
    }

    /// What an expert read joins that of the others; after the last, which is the first of the block, so does the router.
    fn expert_input(&mut self, expert: usize, at_input: Array2<f32>, residual: Option<Array2<f32>>, routed: &Routed) {
        let Some((of_input, _)) = &mut self.routed else { return };
        for ((row, _), gradient) in routed.sent[expert].iter().zip(at_input.rows()) {
            let mut to = of_input.row_mut(*row);
            to += &gradient;
        }
        let (Some(residual), Some(router)) = (residual, &self.block.router) else { return };
        let Some((mut of_input, of_weights)) = self.routed.take() else { return };
        let of_scores = experts::scores_backward(self.block, routed, of_weights);
        let mut of_router = Array2::zeros(router.dim());
        gemm(1.0, of_scores.t(), routed.input.view(), 0.0, of_router.view_mut());
        self.gradients.router(self.block, of_router);
        gemm(1.0, of_scores.view(), router.view(), 1.0, of_input.view_mut());
        self.join(self.block.plan.norms.before_feed_forward, Some(residual), of_input);
    }
}
