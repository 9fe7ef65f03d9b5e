use crate::{ExportSettings, Result, SolvedLayers, SolvedShape};
use ndarray::{ArrayD, ArrayViewD};
use sparq_core::CompressedLayer;
use sparq_tensor::{Checkpoint, PlannedSize, StagedCheckpoint, TensorInfo};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// What is to be exported, and how.
#[derive(Debug, Clone)]
pub struct ExportContext<'a> {
    /// Where everything that was not compressed comes from.
    pub source: &'a Checkpoint,
    /// The compressed layers, in model order; each is known to replace a tensor of the source of the same shape.
    pub layers: &'a [SolvedShape],
    /// What was asked for.
    pub settings: &'a ExportSettings,
    by_weight: BTreeMap<String, usize>,
}

impl<'a> ExportContext<'a> {
    pub(crate) fn new(source: &'a Checkpoint, layers: &'a [SolvedShape], settings: &'a ExportSettings) -> Self {
        let by_weight = layers.iter().enumerate().map(|(index, layer)| (layer.weight_name(), index)).collect();
        Self { source, layers, settings, by_weight }
    }

    /// The tensors of the source that go into the output. What the model does not read goes along as it is, unless it is of a
    /// type that only GGUF has.
    pub fn tensors(&self) -> impl Iterator<Item = &'a TensorInfo> {
        let source = self.source;
        source.tensors().filter(|info| !(self.is_unused(info) && info.dtype.is_block_quantized()))
    }

    /// Whether the model does not read a tensor, and no compressed layer replaces it.
    pub fn is_unused(&self, info: &TensorInfo) -> bool {
        self.source.unused().contains(&info.name) && self.layer_of(&info.name).is_none()
    }

    /// The compressed layer that replaces the source's tensor of this name.
    pub fn layer_of(&self, tensor: &str) -> Option<&'a SolvedShape> {
        self.by_weight.get(tensor).map(|&index| &self.layers[index])
    }
}

/// A tensor of the source as it goes into the export.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExportTensor<'a> {
    /// Replaced by a compressed layer.
    Solved(&'a SolvedShape, &'a CompressedLayer),
    /// Carried over.
    Copied(&'a TensorInfo, ArrayViewD<'a, f32>),
}

/// A format on disk.
///
/// Implementations are stateless but for their settings: the same layers give the same bytes.
pub trait ExportFormat: fmt::Debug + Send + Sync {
    /// Its name, with the settings that matter, such as `compressed-tensors pack-quantized`.
    fn name(&self) -> Cow<'static, str>;

    /// Refuses what the format cannot hold, before any work.
    ///
    /// # Errors
    /// [`Error::Unfit`](crate::Error::Unfit), with the reason and the nearest format that fits.
    fn check(&self, context: &ExportContext<'_>) -> Result<()>;

    /// Refuses a layer that the format cannot hold, whatever the others are. [`check`](Self::check) does so for every layer.
    ///
    /// # Errors
    /// [`Error::Unfit`](crate::Error::Unfit).
    fn check_layer(&self, shape: &SolvedShape) -> Result<()> {
        let _ = shape;
        Ok(())
    }

    /// What the weight files will take.
    ///
    /// # Errors
    /// Those of [`check`](Self::check), as far as it needs to know.
    fn planned_size(&self, context: &ExportContext<'_>) -> Result<PlannedSize>;

    /// Writes everything, but does not put it at `destination` yet.
    ///
    /// # Errors
    /// What reading a layer or the source, or writing, reports.
    fn stage(
        &self,
        context: &ExportContext<'_>,
        solved: &dyn SolvedLayers,
        destination: &Path,
    ) -> Result<StagedCheckpoint>;

    /// What a reader of the format makes of a tensor, computed from the values in memory: the self-check holds what was
    /// written against it, bit by bit.
    ///
    /// # Errors
    /// As [`stage`](Self::stage).
    fn expected(&self, context: &ExportContext<'_>, tensor: &ExportTensor<'_>) -> Result<ArrayD<f32>>;

    /// Whether it can hold codes that have no fixed width ([`CodeLayout::Steps`](sparq_core::CodeLayout::Steps)), or their
    /// values.
    fn holds_steps(&self) -> bool {
        false
    }

    /// Whether the output is a single file, not a directory.
    fn is_one_file(&self) -> bool {
        false
    }

    /// Whether what [`expected`](Self::expected) makes of a row of a matrix that is carried over depends on that row alone, so
    /// that a large one is looked at a few rows at a time.
    fn rows_stand_alone(&self, context: &ExportContext<'_>, info: &TensorInfo) -> bool {
        let _ = (context, info);
        true
    }

    /// The name under which a reader presents a tensor of the source; none if the format does without it.
    fn presented_name(&self, context: &ExportContext<'_>, info: &TensorInfo) -> Option<String> {
        let _ = context;
        Some(info.name.clone())
    }

    /// What an engine can make of the result, in one or two sentences.
    fn engines(&self, context: &ExportContext<'_>) -> String;
}
