use sparq_tensor::TensorPart;

/// Index of a linear in [`Block::linears`](crate::Block::linears) and [`BlockPlan::linears`].
pub type LinearId = usize;

/// Name and shape of one linear layer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinearShape {
    /// Full module name, such as `model.layers.3.mlp.down_proj`. Layers that a checkpoint stores as one tensor have its
    /// module's name and one of their own, such as `model.layers.3.self_attn.qkv_proj.q`.
    pub name: String,
    /// Rows of the weight.
    pub out_features: usize,
    /// Columns of the weight.
    pub in_features: usize,
    /// Whether there is a bias of `out_features` elements.
    pub bias: bool,
    /// Where the weight is in the checkpoint.
    pub stored: TensorPart,
}

impl LinearShape {
    /// Name of the tensor that holds the weight.
    pub fn weight_name(&self) -> &str {
        &self.stored.tensor
    }

    /// Name of the tensor that holds the bias, if there is one.
    pub fn bias_name(&self) -> String {
        let tensor = &self.stored.tensor;
        format!("{}.bias", tensor.strip_suffix(".weight").unwrap_or(tensor))
    }

    /// Number of elements of the weight.
    pub fn weights(&self) -> usize {
        self.out_features * self.in_features
    }
}

/// What a block consists of, known from the config alone: its linears, the stages they form, its other tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockPlan {
    pub(crate) linears: Vec<LinearShape>,
    pub(crate) stages: Vec<Stage>,
    pub(crate) vectors: Vec<Vector>,
    pub(crate) norms: Norms,
    /// Full name and shape, `[experts, hidden]`, of what sends tokens to experts.
    pub(crate) router: Option<(String, [usize; 2])>,
}

/// A tensor of one dimension that belongs to a norm.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vector {
    /// Full tensor name.
    pub(crate) name: String,
    pub(crate) length: usize,
    /// Added to the elements when they are read.
    pub(crate) offset: f32,
}

/// Linears that read the same input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) role: Role,
    pub(crate) linears: Vec<LinearId>,
    /// Whether the output is added to the residual stream as it is, so that the product can write there directly.
    pub(crate) adds_to_residual: bool,
}

impl Stage {
    /// Experts take turns, each with the memory of the one before; none sees more than every token.
    fn is_of_later_expert(&self) -> bool {
        use Role::{FeedForward, FeedForwardOutput};
        matches!(self.role, FeedForward(Feeds::Expert(at)) | FeedForwardOutput(Feeds::Expert(at)) if at > 0)
    }
}

/// What a stage is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Queries, keys and values, in this order.
    Attention,
    /// Reads what attention has gathered.
    AttentionOutput,
    /// Gate and up, or up alone.
    FeedForward(Feeds),
    /// Down.
    FeedForwardOutput(Feeds),
}

/// Whom a feed-forward stage serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feeds {
    AllTokens,
    /// The tokens sent to this expert.
    Expert(usize),
}

/// Which norms a block has, and where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Norms {
    pub(crate) before_attention: Option<Norm>,
    /// Of each head, or of all heads together, by the length of its weight.
    pub(crate) queries: Option<Norm>,
    pub(crate) keys: Option<Norm>,
    pub(crate) after_attention: Option<Norm>,
    pub(crate) before_feed_forward: Option<Norm>,
    pub(crate) after_feed_forward: Option<Norm>,
}

impl Norms {
    pub(crate) fn all(self) -> impl Iterator<Item = Norm> {
        let Self { before_attention, queries, keys, after_attention, before_feed_forward, after_feed_forward } = self;
        [before_attention, queries, keys, after_attention, before_feed_forward, after_feed_forward]
            .into_iter()
            .flatten()
    }
}

/// Indices into the block's vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Norm {
    pub(crate) weight: usize,
    pub(crate) bias: Option<usize>,
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

    /// Whether a stage belongs to an expert, which reads only the tokens sent to it; false beyond the last stage.
    pub fn is_routed(&self, stage: usize) -> bool {
        let expert =
            |role| matches!(role, Role::FeedForward(Feeds::Expert(_)) | Role::FeedForwardOutput(Feeds::Expert(_)));
        self.stages.get(stage).is_some_and(|stage| expert(stage.role))
    }

    /// Whether what a stage gives goes to the residual stream, with or without a norm on the way: the last of attention, or
    /// of a feed-forward (an expert's too); false beyond the last stage.
    pub fn ends_branch(&self, stage: usize) -> bool {
        let ends = |role| matches!(role, Role::AttentionOutput | Role::FeedForwardOutput(_));
        self.stages.get(stage).is_some_and(|stage| ends(stage.role))
    }

    /// Number of parameters, those of norms, biases and router included.
    pub fn parameters(&self) -> usize {
        let linears =
            self.linears.iter().map(|linear| linear.weights() + usize::from(linear.bias) * linear.out_features);
        let router = self.router.as_ref().map_or(0, |(_, [experts, hidden])| experts * hidden);
        linears.sum::<usize>() + self.vectors.iter().map(|vector| vector.length).sum::<usize>() + router
    }

    /// Bytes of the block in memory, as f32.
    pub fn bytes(&self) -> u64 {
        self.parameters() as u64 * size_of::<f32>() as u64
    }

    /// Largest number of f32 values per token that a block pass holds at one time: the residual stream, the arrays in
    /// use, and those of other stages whose memory is kept for reuse.
    pub fn activations_per_token(&self, hidden_size: usize) -> usize {
        let stages: Vec<&Stage> = self.stages.iter().filter(|stage| !stage.is_of_later_expert()).collect();
        let (input, outputs) = (|stage| self.input_width(stage), |stage| self.outputs_width(stage));
        // While a stage runs there are its input and outputs; while the next input is made, that input and the outputs.
        let running = stages.iter().map(|stage| input(stage) + outputs(stage));
        let between = stages.windows(2).map(|pair| outputs(pair[0]) + input(pair[1]));
        let kept: usize = stages.iter().map(|stage| outputs(stage)).sum();
        let largest = stages.iter().map(|stage| outputs(stage)).max().unwrap_or(0);
        hidden_size + self.routed_per_token() + running.chain(between).max().unwrap_or(0) + kept - largest
    }

    /// Number of f32 values per token that a [backward pass](crate::Block::backward) holds at one time at most: what the way
    /// forward leaves, and the gradients at the stage at work.
    pub fn backward_per_token(&self, hidden_size: usize) -> usize {
        let widths = |stage: &Stage| self.input_width(stage) + self.outputs_width(stage);
        let residuals = self.stages.iter().filter(|stage| !stage.adds_to_residual).count() * hidden_size;
        let kept: usize = self.stages.iter().map(widths).sum();
        let largest = self.stages.iter().map(widths).max().unwrap_or(0);
        kept + residuals + 2 * largest + 2 * hidden_size + 2 * self.routed_per_token()
    }

    /// Number of f32 values per token that a batch holds between two stages at most: the residual stream, what experts
    /// read, and the input of the stage to come. That is what every batch of a calibration takes, where
    /// [`activations_per_token`](Self::activations_per_token) is what the one at work takes.
    pub fn kept_per_token(&self, hidden_size: usize) -> usize {
        let inputs = self.stages.iter().map(|stage| self.input_width(stage));
        hidden_size + self.routed_per_token() + inputs.max().unwrap_or(0)
    }

    fn input_width(&self, stage: &Stage) -> usize {
        stage.linears.first().map_or(0, |id| self.linears[*id].in_features)
    }

    /// Of outputs that are not added to the residual stream as they are.
    fn outputs_width(&self, stage: &Stage) -> usize {
        let outputs = stage.linears.iter().map(|id| self.linears[*id].out_features);
        if stage.adds_to_residual { 0 } else { outputs.sum() }
    }

    /// Number of f32 values per token that stay while the experts of a block take their turns: what they read, and the
    /// router's scores.
    fn routed_per_token(&self) -> usize {
        self.router.as_ref().map_or(0, |(_, [experts, hidden])| experts + hidden)
    }
}
