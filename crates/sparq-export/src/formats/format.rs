use super::{Coded, CompressedTensors, Dense, Gguf, GptqCheckpoint};
use crate::{ExportContext, ExportFormat, ExportTensor, Result, SolvedLayers};
use ndarray::ArrayD;
use sparq_tensor::{PlannedSize, StagedCheckpoint, TensorInfo};
use std::borrow::Cow;
use std::path::Path;

/// A format with its usual settings. [`CompressedTensors`] and [`Gguf`] have more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Dense safetensors in a Hugging Face directory: [`Dense`].
    Dense,
    /// Entropy-coded codes in a Hugging Face directory: [`Coded`].
    Coded,
    /// compressed-tensors in a Hugging Face directory: [`CompressedTensors`].
    CompressedTensors,
    /// GPTQ in a Hugging Face directory: [`GptqCheckpoint`].
    Gptq,
    /// One GGUF file: [`Gguf`].
    Gguf,
}

impl Format {
    fn exporter(self) -> Box<dyn ExportFormat> {
        match self {
            Self::Dense => Box::new(Dense),
            Self::Coded => Box::new(Coded),
            Self::CompressedTensors => Box::new(CompressedTensors::default()),
            Self::Gptq => Box::new(GptqCheckpoint),
            Self::Gguf => Box::new(Gguf::default()),
        }
    }
}

impl ExportFormat for Format {
    fn name(&self) -> Cow<'static, str> {
        self.exporter().name()
    }

    fn check(&self, context: &ExportContext<'_>) -> Result<()> {
        self.exporter().check(context)
    }

    fn planned_size(&self, context: &ExportContext<'_>) -> Result<PlannedSize> {
        self.exporter().planned_size(context)
    }

    fn stage(
        &self,
        context: &ExportContext<'_>,
        solved: &dyn SolvedLayers,
        destination: &Path,
    ) -> Result<StagedCheckpoint> {
        self.exporter().stage(context, solved, destination)
    }

    fn expected(&self, context: &ExportContext<'_>, tensor: &ExportTensor<'_>) -> Result<ArrayD<f32>> {
        self.exporter().expected(context, tensor)
    }

    fn holds_steps(&self) -> bool {
        self.exporter().holds_steps()
    }

    fn is_one_file(&self) -> bool {
        self.exporter().is_one_file()
    }

    fn rows_stand_alone(&self, context: &ExportContext<'_>, info: &TensorInfo) -> bool {
        self.exporter().rows_stand_alone(context, info)
    }

    fn presented_name(&self, context: &ExportContext<'_>, info: &TensorInfo) -> Option<String> {
        self.exporter().presented_name(context, info)
    }

    fn engines(&self, context: &ExportContext<'_>) -> String {
        self.exporter().engines(context)
    }
}
