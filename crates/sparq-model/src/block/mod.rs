//! One transformer block as a sequence of stages.

mod attention;
mod backward;
mod build;
mod experts;
mod layout;
mod linear;
mod plan;
mod state;
mod walk;

pub use backward::{Gradients, weight_gradient};
pub(crate) use build::PlanBuilder;
pub use experts::ExpertTokens;
pub use layout::BatchLayout;
pub use linear::Linear;
pub(crate) use linear::{multiply, multiply_stored};
pub use plan::{BlockPlan, LinearId, LinearShape};
pub(crate) use plan::{Feeds, Role};
pub use state::BlockState;

use crate::cache::LayerCache;
use crate::ops::{RopeTables, Workspace};
use crate::{Error, ModelConfig, Precision, Result};
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, CowArray, Ix2};
use sparq_tensor::StoredRows;
use std::sync::Arc;

/// One transformer block with its weights in f32.
///
/// A block is a sequence of *stages*: sets of linears which read the same input. For Llama these are the query, key and
/// value projections; the attention output; gate and up; down. In a mixture of experts each expert has the last two for
/// itself, and they read the tokens that are sent to it. Running a block and compressing it are the same walk:
///
/// ```text
/// let mut state = block.begin(residual, layout)?;
/// for stage in 0..block.stages() {
///     let input = block.stage_input(stage, &mut state)?;  // calibration statistics are taken from this
///     ...                                                 // and weights may be replaced here
///     block.apply(stage, &mut state)?;
/// }
/// let residual = block.end(state);
/// ```
///
/// Thus every linear runs once, and each stage sees what the compressed stages before it produce.
#[derive(Debug, Clone)]
pub struct Block {
    pub(crate) index: usize,
    pub(crate) plan: Arc<BlockPlan>,
    pub(crate) linears: Vec<Linear>,
    /// Of each linear whose weight stays as it is stored; its weight above is then empty. Such blocks run and do not leave
    /// this crate.
    pub(crate) stored: Vec<Option<StoredRows>>,
    /// In the plan's order.
    pub(crate) vectors: Vec<Array1<f32>>,
    /// `[experts, hidden]`.
    pub(crate) router: Option<Array2<f32>>,
    pub(crate) config: Arc<ModelConfig>,
    pub(crate) rope: Option<Arc<RopeTables>>,
    pub(crate) workspace: Arc<Workspace>,
}

impl Block {
    /// Index of the block in its model.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Names and shapes of the block's parts.
    pub fn plan(&self) -> &BlockPlan {
        &self.plan
    }

    /// Number of stages.
    pub fn stages(&self) -> usize {
        self.plan.stages()
    }

    /// Indices into [`linears`](Self::linears) of the linears of one stage; none beyond the last stage.
    pub fn stage_linears(&self, stage: usize) -> &[LinearId] {
        self.plan.stage_linears(stage)
    }

    /// All linears.
    pub fn linears(&self) -> &[Linear] {
        &self.linears
    }

    /// One linear, to replace its weight. The shape must stay; [`apply`](Self::apply) checks.
    ///
    /// # Panics
    /// If there is no such linear, as indexing [`linears`](Self::linears) does.
    pub fn linear_mut(&mut self, id: LinearId) -> &mut Linear {
        &mut self.linears[id]
    }

    /// Weights and biases of norms, with the names of their tensors, as they are used: with the offset that a family adds to
    /// what is stored.
    pub fn norms(&self) -> impl Iterator<Item = (&str, &Array1<f32>)> {
        self.plan.vectors.iter().map(|vector| vector.name.as_str()).zip(&self.vectors)
    }

    /// Whether one of the [`norms`](Self::norms) is the bias of a norm, not its weight.
    pub fn is_norm_bias(&self, index: usize) -> bool {
        self.plan.norms.all().any(|norm| norm.bias == Some(index))
    }

    /// One of the [`norms`](Self::norms), to change its values; its length must stay.
    ///
    /// # Panics
    /// If there is no such vector.
    pub fn norm_mut(&mut self, index: usize) -> &mut Array1<f32> {
        &mut self.vectors[index]
    }

    /// Name of the tensor that sends tokens to experts, if there are experts.
    pub fn router_name(&self) -> Option<&str> {
        self.plan.router.as_ref().map(|(name, _)| name.as_str())
    }

    /// Number of parameters, those of norms, biases and router included.
    pub fn parameters(&self) -> usize {
        self.plan.parameters()
    }

    /// Starts a pass of `residual`, `[tokens, hidden]`, the sequences of `layout` concatenated.
    ///
    /// # Errors
    /// [`Error::Shape`] if `residual` does not fit the layout or the model.
    pub fn begin(&self, residual: Array2<f32>, layout: BatchLayout) -> Result<BlockState> {
        self.begin_with_caches(residual, layout, Vec::new())
    }

    pub(crate) fn begin_with_caches(
        &self,
        residual: Array2<f32>,
        layout: BatchLayout,
        caches: Vec<LayerCache>,
    ) -> Result<BlockState> {
        let expected = [layout.tokens(), self.config.hidden_size];
        if residual.shape() != expected {
            return Err(Error::Shape {
                what: format!("residual stream into block {}", self.index),
                expected: expected.to_vec(),
                found: residual.shape().to_vec(),
            });
        }
        let residual =
            if residual.is_standard_layout() { residual } else { residual.as_standard_layout().into_owned() };
        let precision = Precision::default();
        Ok(BlockState { residual, layout, caches, precision, stage: 0, input: None, routed: None })
    }

    /// The input of the stage whose turn it is, `[tokens, in]`, in standard layout; computed once, however often it is
    /// asked for.
    ///
    /// # Errors
    /// [`Error::StageOrder`] for another stage.
    pub fn stage_input<'a>(&self, stage: usize, state: &'a mut BlockState) -> Result<ArrayView2<'a, f32>> {
        self.check_order(stage, state)?;
        let input = match state.input.take() {
            Some(input) => input,
            None => walk::input(self, stage, state),
        };
        Ok(state.input.insert(input).view())
    }

    /// What calibration takes its statistics of the stage from: its [input](Self::stage_input), or, for an expert that is
    /// to see [all tokens](ExpertTokens::All), what it would read if every token were sent to it, `[tokens, in]`.
    ///
    /// # Errors
    /// [`Error::StageOrder`] for another stage than the one whose turn it is.
    pub fn calibration_input<'a>(
        &self,
        stage: usize,
        state: &'a mut BlockState,
        tokens: ExpertTokens,
    ) -> Result<CowArray<'a, f32, Ix2>> {
        self.check_order(stage, state)?;
        if tokens == ExpertTokens::All
            && let Some(input) = experts::input_of_all(self, stage, state)
        {
            return Ok(input.into());
        }
        self.stage_input(stage, state).map(CowArray::from)
    }

    /// Runs the linears of the stage whose turn it is and moves the state on to the next.
    ///
    /// # Errors
    /// [`Error::StageOrder`] for another stage, [`Error::Shape`] if a weight or bias was replaced by one of another
    /// shape.
    pub fn apply(&self, stage: usize, state: &mut BlockState) -> Result<()> {
        let (input, _) = self.run_stage(stage, state, false)?;
        self.workspace.put(input);
        Ok(())
    }

    /// As [`apply`](Self::apply); returns the input of the stage, and copies of its linears' outputs if they are to be kept
    /// and are not added to the residual stream as they are.
    fn run_stage(
        &self,
        stage: usize,
        state: &mut BlockState,
        keep_outputs: bool,
    ) -> Result<(Array2<f32>, Vec<Array2<f32>>)> {
        self.check_order(stage, state)?;
        for id in self.stage_linears(stage) {
            self.check_linear(*id)?;
        }
        let input = match state.input.take() {
            Some(input) => input,
            None => walk::input(self, stage, state),
        };
        let linears = self.stage_linears(stage).iter();
        let mut kept = Vec::new();
        if self.plan.stages[stage].adds_to_residual {
            for id in linears {
                self.multiply(*id, input.view(), state.precision, 1.0, state.residual.view_mut())?;
            }
        } else {
            let outputs = linears.map(|id| {
                let mut output = self.workspace.take(input.nrows(), self.plan.linears[*id].out_features);
                self.multiply(*id, input.view(), state.precision, 0.0, output.view_mut())?;
                Ok(output)
            });
            let outputs: Vec<_> = outputs.collect::<Result<_>>()?;
            if keep_outputs {
                kept.clone_from(&outputs);
            }
            walk::advance(self, stage, outputs, state);
        }
        state.stage += 1;
        Ok((input, kept))
    }

    /// `output = W x + b + beta * output` with one of the linears.
    fn multiply(
        &self,
        id: LinearId,
        input: ArrayView2<'_, f32>,
        precision: Precision,
        beta: f32,
        mut output: ArrayViewMut2<'_, f32>,
    ) -> Result<()> {
        let linear = &self.linears[id];
        match self.stored.get(id).and_then(Option::as_ref) {
            Some(rows) => multiply_stored(input, rows, precision, beta, output.view_mut(), &self.workspace)?,
            None => multiply(input, linear.weight.view(), precision, beta, output.view_mut()),
        }
        linear.add_bias(output);
        Ok(())
    }

    /// The residual stream after the block, `[tokens, hidden]`.
    pub fn end(&self, state: BlockState) -> Array2<f32> {
        state.residual
    }

    /// The whole walk, without a look at the inputs: the residual stream after the block.
    ///
    /// # Errors
    /// Those of [`begin`](Self::begin) and [`apply`](Self::apply).
    pub fn forward(&self, residual: Array2<f32>, layout: BatchLayout) -> Result<Array2<f32>> {
        self.finish(self.begin(residual, layout)?)
    }

    /// What is left of a pass that was begun: the residual stream after the block.
    ///
    /// # Errors
    /// Those of [`apply`](Self::apply).
    pub fn finish(&self, mut state: BlockState) -> Result<Array2<f32>> {
        self.run(&mut state)?;
        Ok(self.end(state))
    }

    /// The stages that are left of a pass that was begun; [`end`](Self::end) then gives what leaves the block.
    ///
    /// # Errors
    /// Those of [`apply`](Self::apply).
    pub fn run(&self, state: &mut BlockState) -> Result<()> {
        (state.stage..self.stages()).try_for_each(|stage| self.apply(stage, state))
    }

    fn check_order(&self, stage: usize, state: &BlockState) -> Result<()> {
        if stage == state.stage && stage < self.stages() {
            return Ok(());
        }
        Err(Error::StageOrder { block: self.index, expected: state.stage, got: stage })
    }

    pub(crate) fn check_linear(&self, id: LinearId) -> Result<()> {
        let (linear, plan) = (&self.linears[id], &self.plan.linears[id]);
        let expected = [plan.out_features, plan.in_features];
        let is_stored = self.stored.get(id).is_some_and(Option::is_some);
        if !is_stored && linear.weight.shape() != expected {
            return Err(Error::Shape {
                what: format!("weight of {}", linear.name),
                expected: expected.to_vec(),
                found: linear.weight.shape().to_vec(),
            });
        }
        if let Some(bias) = &linear.bias
            && (bias.len() != plan.out_features || bias.as_slice().is_none())
        {
            return Err(Error::Shape {
                what: format!("bias of {}", linear.name),
                expected: vec![plan.out_features],
                found: bias.shape().to_vec(),
            });
        }
        Ok(())
    }
}
