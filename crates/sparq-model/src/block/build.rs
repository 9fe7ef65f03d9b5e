use super::plan::{BlockPlan, Feeds, LinearId, LinearShape, Norm, Norms, Role, Stage, Vector};
use crate::{ModelConfig, NormKind};
use sparq_tensor::TensorPart;

/// Puts a block's plan together, part by part: how an architecture says what its blocks consist of.
#[derive(Debug)]
pub(crate) struct PlanBuilder<'a> {
    config: &'a ModelConfig,
    /// Of all names, without the dot.
    prefix: String,
    linears: Vec<LinearShape>,
    stages: Vec<Stage>,
    vectors: Vec<Vector>,
    router: Option<(String, [usize; 2])>,
    /// Filled in by the architecture.
    pub(crate) norms: Norms,
}

impl<'a> PlanBuilder<'a> {
    pub(crate) fn new(config: &'a ModelConfig, prefix: String) -> Self {
        let (linears, stages, vectors) = (Vec::new(), Vec::new(), Vec::new());
        Self { config, prefix, linears, stages, vectors, router: None, norms: Norms::default() }
    }

    pub(crate) fn config(&self) -> &'a ModelConfig {
        self.config
    }

    /// A norm over `length` elements.
    pub(crate) fn norm(&mut self, module: &str, length: usize) -> Norm {
        let weight = self.vector(format!("{module}.weight"), length, self.config.norm_offset);
        let has_bias = self.config.norm == NormKind::Layer;
        let bias = has_bias.then(|| self.vector(format!("{module}.bias"), length, 0.0));
        Norm { weight, bias }
    }

    fn vector(&mut self, name: String, length: usize, offset: f32) -> usize {
        self.vectors.push(Vector { name: format!("{}.{name}", self.prefix), length, offset });
        self.vectors.len() - 1
    }

    /// A linear with a tensor of its own, `[out, in]`.
    pub(crate) fn linear(&mut self, module: &str, out_features: usize, in_features: usize, bias: bool) -> LinearId {
        let name = format!("{}.{module}", self.prefix);
        let stored = TensorPart::whole(format!("{name}.weight"), [out_features, in_features]);
        self.push(LinearShape { name, out_features, in_features, bias, stored })
    }

    /// Linears, each given by name and output features, that are one matrix in the checkpoint, one below the other.
    pub(crate) fn fused(
        &mut self,
        module: &str,
        parts: &[(&str, usize)],
        in_features: usize,
        bias: bool,
    ) -> Vec<LinearId> {
        let rows = parts.iter().map(|(_, rows)| rows).sum();
        let name = format!("{}.{module}", self.prefix);
        self.parts(&TensorPart::whole(format!("{name}.weight"), [rows, in_features]), &name, parts, in_features, bias)
    }

    /// As [`fused`](Self::fused), but stored as `[in, out]`, the linears side by side. A single part without a name is
    /// the module itself.
    pub(crate) fn transposed(&mut self, module: &str, parts: &[(&str, usize)], in_features: usize) -> Vec<LinearId> {
        let rows = parts.iter().map(|(_, rows)| rows).sum();
        let name = format!("{}.{module}", self.prefix);
        let tensor = TensorPart::whole(format!("{name}.weight"), [in_features, rows]);
        self.parts(&TensorPart { transposed: true, ..tensor }, &name, parts, in_features, true)
    }

    /// Linears of one of `experts` that share a tensor of three dimensions, `[experts, out, in]`, called `tensor`.
    pub(crate) fn stacked(
        &mut self,
        tensor: &str,
        (expert, experts): (usize, usize),
        parts: &[(&str, usize)],
        in_features: usize,
    ) -> Vec<LinearId> {
        let rows: usize = parts.iter().map(|(_, rows)| rows).sum();
        let (directory, module) = tensor.rsplit_once('.').unwrap_or(("", tensor));
        let name = format!("{}.{directory}.{expert}.{module}", self.prefix);
        let stored = TensorPart {
            tensor: format!("{}.{tensor}", self.prefix),
            shape: vec![experts, rows, in_features],
            first_row: expert * rows,
            transposed: false,
        };
        self.parts(&stored, &name, parts, in_features, false)
    }

    fn parts(
        &mut self,
        stored: &TensorPart,
        module: &str,
        parts: &[(&str, usize)],
        in_features: usize,
        bias: bool,
    ) -> Vec<LinearId> {
        let mut first_row = stored.first_row;
        let mut ids = Vec::new();
        for (part, out_features) in parts {
            let name = if part.is_empty() { module.to_owned() } else { format!("{module}.{part}") };
            let stored = TensorPart { first_row, ..stored.clone() };
            ids.push(self.push(LinearShape { name, out_features: *out_features, in_features, bias, stored }));
            first_row += out_features;
        }
        ids
    }

    fn push(&mut self, linear: LinearShape) -> LinearId {
        self.linears.push(linear);
        self.linears.len() - 1
    }

    /// The matrix that sends tokens to experts.
    pub(crate) fn router(&mut self, tensor: &str, experts: usize) {
        self.router = Some((format!("{}.{tensor}", self.prefix), [experts, self.config.hidden_size]));
    }

    /// The next stage.
    pub(crate) fn stage(&mut self, role: Role, linears: Vec<LinearId>) {
        self.stages.push(Stage { role, linears, adds_to_residual: false });
    }

    pub(crate) fn build(mut self) -> BlockPlan {
        for stage in &mut self.stages {
            stage.adds_to_residual = match stage.role {
                Role::AttentionOutput => self.norms.after_attention.is_none(),
                Role::FeedForwardOutput(Feeds::AllTokens) => self.norms.after_feed_forward.is_none(),
                _ => false,
            };
        }
        BlockPlan {
            linears: self.linears,
            stages: self.stages,
            vectors: self.vectors,
            norms: self.norms,
            router: self.router,
        }
    }
}
