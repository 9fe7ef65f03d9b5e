use crate::gather::Wants;
use crate::plan::BATCH_TOKENS;
use crate::stream::Stream;
use crate::targets::Matcher;
use crate::{Calibration, Error, LayerBudget, LayerReport, Plan, Profile, Recipe, Result};
use sparq_core::{CompressedLayer, LayerCompressor, Observer, Ranks, Solver, Statistics};
use sparq_model::{Block, Linear, LinearId, Model};

/// What a recipe would make of every layer of a model under several budgets, each layer by itself in the dense model.
///
/// One walk through the blocks serves all budgets: tokens pass through the dense model once, and all solutions of a layer
/// share its Hessian and what is factored of it. Nothing that was compressed before a layer reaches it, so there is no
/// drift to correct, and damping is the recipe's own. Takes the memory of a [compression](crate::Compress) without drift.
///
/// # Examples
/// ```no_run
/// use sparq_core::{Bits, Sparsity};
/// use sparq_model::Model;
/// use sparq_pipeline::{Calibration, LayerBudget, Recipe, Sampling, Survey};
/// let model = Model::open("models/SmolLM2-135M")?;
/// let text = std::fs::read_to_string("calibration.txt")?;
/// let calibration = Calibration::from_text(model.tokenizer()?, &text, Sampling { samples: 8, ..Sampling::default() })?;
/// let recipe: Recipe = "s=0.25,q=4,group=64,preset=reference".parse()?;
/// let budgets = [3, 4].map(|bits| LayerBudget { sparsity: Sparsity::DENSE, bits: Bits::new(bits).ok(), rate: None });
/// let mut survey = Survey::new(&model, &recipe, &budgets, &calibration)?;
/// while survey.block() < model.block_count() {
///     survey.solve(&(), |budget, _, _, report| {
///         println!("{} at {:?}: {:.4}", report.name, budgets[budget].bits, report.relative_output_error);
///     })?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Survey<'a> {
    model: &'a Model,
    recipe: Recipe,
    /// For each budget; none if it leaves layers as they are.
    solvers: Vec<Option<Solver>>,
    targets: Matcher,
    needs: Statistics,
    stream: Stream,
    block: usize,
}

impl<'a> Survey<'a> {
    /// Of `model`, at its first block.
    ///
    /// # Errors
    /// Those of [`Plan::new`] for each of the budgets, and of embedding the text.
    pub fn new(model: &'a Model, recipe: &Recipe, budgets: &[LayerBudget], calibration: &Calibration) -> Result<Self> {
        let recipe = Recipe { drift: 0.0, held_out: 0.0, allocation: None, ..recipe.clone() };
        let mut solvers = Vec::with_capacity(budgets.len());
        for &budget in budgets {
            let recipe = recipe.with_budget(budget);
            Plan::new(model, &recipe, Some(calibration))?;
            solvers.push(recipe.solver()?);
        }
        let needs = solvers.iter().flatten().map(LayerCompressor::needs).max().unwrap_or(Statistics::Nothing);
        let mut stream = Stream::new(recipe.forward, None, Ranks::default());
        if needs > Statistics::Nothing {
            stream.embed(model, calibration, BATCH_TOKENS)?;
        }
        Ok(Self { model, targets: recipe.targets.build()?, recipe, solvers, needs, stream, block: 0 })
    }

    /// Index of the block that comes next; the number of blocks after the last.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Solves every targeted layer of the next block under each budget, and gives the solutions to `take` with the index
    /// of the budget and the layer as it is. A budget that leaves layers as they are gives none.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the observer says so; what reading, running and solving report.
    pub fn solve(
        &mut self,
        observer: &dyn Observer,
        mut take: impl FnMut(usize, &Linear, CompressedLayer, LayerReport),
    ) -> Result<()> {
        let index = self.block;
        let block = self.model.block(index)?;
        let (mut profile, alone) = (Profile::default(), Ranks::default());
        for stage in 0..block.stages() {
            let targeted = |id: &&LinearId| self.targets.contains(&block.linears()[**id].name);
            let ids: Vec<LinearId> = block.stage_linears(stage).iter().filter(targeted).copied().collect();
            if !ids.is_empty() {
                let (recipe, at) = (&self.recipe, (&*block, stage));
                let wants = Wants { recipe, needs: self.needs, beside_dense: false };
                let sums = wants.sum(at, &mut self.stream, None, &mut profile, |_| true)?;
                let statistics = sums.finish(recipe, &mut profile)?;
                for id in ids {
                    let linear = &block.linears()[id];
                    for (budget, solver) in self.solvers.iter().enumerate() {
                        let Some(solver) = solver else { continue };
                        if observer.stop() {
                            return Err(Error::Stopped { done: index, of: self.model.block_count() });
                        }
                        let (layer, report) = statistics.solve(index, linear, solver, (&alone, 0))?;
                        take(budget, linear, layer, report);
                    }
                }
            }
            if self.is_last() && stage + 1 == block.stages() {
                continue; // nobody reads what leaves the model
            }
            self.stream.each(&block, |_, state| Ok(block.apply(stage, state)?))?;
        }
        self.leave(&block);
        Ok(())
    }

    /// Passes the next block without solving anything.
    ///
    /// # Errors
    /// What reading and running the block report.
    pub fn skip(&mut self) -> Result<()> {
        let block = self.model.block(self.block)?;
        if !self.is_last() {
            self.stream.each(&block, |_, state| Ok(block.run(state)?))?;
        }
        self.leave(&block);
        Ok(())
    }

    fn is_last(&self) -> bool {
        self.block + 1 == self.model.block_count()
    }

    fn leave(&mut self, block: &Block) {
        self.stream.leave(block);
        self.block += 1;
    }
}
