//! How far a stage has drifted from the dense model, in the form that takes least.

use crate::Result;
use ndarray::{Array2, s};
use sparq_core::{Curvature, InputDrift, OutputDrift, Summand};
use sparq_model::{Block, BlockPlan, BlockState, Linear};
use std::ops::Range;

/// Sums for one stage of a block, and the share of the drift that its layers correct.
#[derive(Debug, Clone)]
pub(crate) struct StageDrift {
    sums: Sums,
    share: f32,
}

#[derive(Debug, Clone)]
enum Sums {
    /// For all layers of the stage.
    Inputs(InputDrift),
    /// For the only one.
    Outputs {
        drift: OutputDrift,
        /// Whether the residual stream's own drift is part of it.
        residual: bool,
    },
}

impl StageDrift {
    /// Nothing yet, for layers that correct `share` of the drift.
    pub(crate) fn new(plan: &BlockPlan, stage: usize, share: f32) -> Self {
        let (rows, width) = shape(plan, stage);
        let sums = if by_outputs(plan, stage) {
            Sums::Outputs { drift: OutputDrift::new(rows, width), residual: plan.adds_to_residual(stage) }
        } else {
            Sums::Inputs(InputDrift::new(width))
        };
        Self { sums, share }
    }

    /// Values that the sums of a stage take.
    pub(crate) fn values(plan: &BlockPlan, stage: usize) -> u64 {
        let (rows, width) = shape(plan, stage);
        width as u64 * if by_outputs(plan, stage) { rows } else { width } as u64
    }

    /// Multiply-adds for these tokens, doubled.
    pub(crate) fn operations(plan: &BlockPlan, stage: usize, tokens: usize) -> u64 {
        let products = if by_outputs(plan, stage) { 2 } else { 1 };
        2 * products * tokens as u64 * Self::values(plan, stage)
    }

    /// Adds a batch, whose inputs both states hold.
    pub(crate) fn add(
        &mut self,
        block: &Block,
        stage: usize,
        dense: &BlockState,
        compressed: &BlockState,
    ) -> Result<()> {
        let (Some(dense_inputs), Some(inputs)) = (dense.input(), compressed.input()) else { return Ok(()) };
        match &mut self.sums {
            Sums::Inputs(drift) => drift.add(dense_inputs, inputs)?,
            Sums::Outputs { drift, residual } => {
                let Some(linear) = only(block, stage) else { return Ok(()) };
                let residual = residual.then(|| [dense.residual(), compressed.residual()]);
                drift.add(linear.weight.view(), [dense_inputs, inputs], residual)?;
            }
        }
        Ok(())
    }

    /// The weight that these rows of a layer of the stage are to aim at.
    pub(crate) fn target(&self, linear: &Linear, rows: Range<usize>, curvature: &Curvature) -> Result<Array2<f32>> {
        let weight = linear.weight.slice(s![rows.clone(), ..]);
        Ok(match &self.sums {
            Sums::Inputs(drift) => drift.target(weight, curvature, self.share)?,
            Sums::Outputs { drift, .. } => drift.target_of_rows(weight, rows.start, curvature, self.share)?,
        })
    }
}

impl Sums {
    fn matrix(&self) -> &Array2<f32> {
        match self {
            Self::Inputs(drift) => drift.sum(),
            Self::Outputs { drift, .. } => drift.sum(),
        }
    }

    fn matrix_mut(&mut self) -> &mut Array2<f32> {
        match self {
            Self::Inputs(drift) => drift.sum_mut(),
            Self::Outputs { drift, .. } => drift.sum_mut(),
        }
    }
}

impl Summand for StageDrift {
    fn join(&mut self, later: &Self) {
        self.sums.matrix_mut().join(later.sums.matrix());
    }

    fn write(&self, message: &mut Vec<u8>) {
        self.sums.matrix().write(message);
    }

    fn read(&mut self, message: &mut &[u8]) -> sparq_core::Result<()> {
        self.sums.matrix_mut().read(message)
    }
}

/// Whether the stage is one layer that has fewer outputs than inputs (two products with the outputs then take less than
/// one of inputs with inputs) or adds to the residual stream, whose drift has the shape of the outputs.
fn by_outputs(plan: &BlockPlan, stage: usize) -> bool {
    let (rows, width) = shape(plan, stage);
    plan.stage_linears(stage).len() == 1 && (plan.adds_to_residual(stage) || 2 * rows <= width)
}

/// Outputs and inputs of the first layer of a stage; all have the same inputs.
fn shape(plan: &BlockPlan, stage: usize) -> (usize, usize) {
    let first = plan.stage_linears(stage).first().map(|id| &plan.linears()[*id]);
    first.map_or((0, 0), |linear| (linear.out_features, linear.in_features))
}

/// The only layer of a stage.
fn only(block: &Block, stage: usize) -> Option<&Linear> {
    match block.stage_linears(stage) {
        [only] => Some(&block.linears()[*only]),
        _ => None,
    }
}
