/// Index of a linear in [`Block::linears`](crate::Block::linears) and [`BlockPlan::linears`].
pub type LinearId = usize;

/// Name and shape of one linear layer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinearShape {
    /// Full module name, such as `model.layers.3.mlp.down_proj`.
    pub name: String,
    /// Rows of the weight.
    pub out_features: usize,
    /// Columns of the weight.
    pub in_features: usize,
    /// Whether there is a bias of `out_features` elements.
    pub bias: bool,
}

impl LinearShape {
    /// Name of the weight tensor.
    pub fn weight_name(&self) -> String {
        format!("{}.weight", self.name)
    }

    /// Number of elements of the weight.
    pub fn weights(&self) -> usize {
        self.out_features * self.in_features
    }
}

/// What a block consists of, known from the config alone: its linears, the stages they form, its other tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockPlan {
    pub(crate) linears: Vec<LinearShape>,
    pub(crate) stages: Vec<Stage>,
    /// Vectors (norm weights) as (full tensor name, length).
    pub(crate) vectors: Vec<(String, usize)>,
}

/// Linears that read the same input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) linears: Vec<LinearId>,
    /// Whether the output is added to the residual stream as it is, so that the product can write there directly.
    pub(crate) adds_to_residual: bool,
}

impl BlockPlan {
    /// All linears, in the order of [`Block::linears`](crate::Block::linears).
    pub fn linears(&self) -> &[LinearShape] {
        &self.linears
    }

    /// Number of stages.
    pub fn stages(&self) -> usize {
        self.stages.len()
    }

    /// The linears of one stage; none beyond the last stage.
    pub fn stage_linears(&self, stage: usize) -> &[LinearId] {
        self.stages.get(stage).map_or(&[], |stage| &stage.linears)
    }

    /// Whether the outputs of a stage go into the residual stream as they are; false beyond the last stage.
    pub fn adds_to_residual(&self, stage: usize) -> bool {
        self.stages.get(stage).is_some_and(|stage| stage.adds_to_residual)
    }

    /// Number of parameters, those of norms and biases included.
    pub fn parameters(&self) -> usize {
        let linears =
            self.linears.iter().map(|linear| linear.weights() + usize::from(linear.bias) * linear.out_features);
        linears.sum::<usize>() + self.vectors.iter().map(|(_, length)| length).sum::<usize>()
    }

    /// Bytes of the block in memory, as f32.
    pub fn bytes(&self) -> u64 {
        self.parameters() as u64 * size_of::<f32>() as u64
    }

    /// Largest number of f32 values per token that a block pass holds at one time: the residual stream, the arrays in
    /// use, and those of other stages whose memory is kept for reuse.
    pub fn activations_per_token(&self, hidden_size: usize) -> usize {
        let outputs = |stage: &Stage| -> usize {
            if stage.adds_to_residual { 0 } else { stage.linears.iter().map(|id| self.linears[*id].out_features).sum() }
        };
        let input = |stage: &Stage| stage.linears.first().map_or(0, |id| self.linears[*id].in_features);
        // While a stage runs there are its input and outputs; while the next input is made, that input and the outputs.
        let running = self.stages.iter().map(|stage| input(stage) + outputs(stage));
        let between = self.stages.windows(2).map(|pair| outputs(&pair[0]) + input(&pair[1]));
        let kept: usize = self.stages.iter().map(outputs).sum();
        let largest = self.stages.iter().map(outputs).max().unwrap_or(0);
        hidden_size + running.chain(between).max().unwrap_or(0) + kept - largest
    }
}
