use crate::fingerprint::Fingerprint;
use crate::state::{State, open_activations, write_activations};
use crate::{Error, Progress, Result, Resumed, Sink};
use sparq_core::CompressedLayer;
use sparq_export::{Solution, SolutionWriter, SolvedShape};
use sparq_model::Linear;
use std::path::{Path, PathBuf};

/// Name of the directory that holds the solution.
pub(crate) const SOLUTION: &str = "sparq";

/// Writes compressed layers to a directory, without loss, and makes every block safe as it is done: a run that was
/// killed goes on from its last block when it is started again with the same model, recipe and calibration, and ends
/// with the same bytes.
///
/// In the directory, `sparq/` is the solution (see [`Solution`]); beside it are `progress.json` and the activations that
/// enter the next block.
#[derive(Debug)]
pub struct SolutionSink {
    directory: PathBuf,
    writer: SolutionWriter,
    fingerprint: Fingerprint,
    act_order: bool,
    state: Option<State>,
}

impl SolutionSink {
    /// Opens `directory`, with what an earlier run of the same `fingerprint` may have left in it.
    ///
    /// # Errors
    /// [`Error::OtherRun`] if what is there was made with other settings; [`Error::State`] if it is damaged;
    /// [`Error::Export`] if it cannot be read.
    pub fn open(directory: impl AsRef<Path>, fingerprint: Fingerprint, act_order: bool) -> Result<Self> {
        let directory = directory.as_ref().to_path_buf();
        let state = State::read(&directory)?;
        let solution = directory.join(SOLUTION);
        let writer = match &state {
            Some(state) => {
                if let Some((field, then, now)) = state.fingerprint.difference(&fingerprint) {
                    return Err(Error::OtherRun { path: directory, field, then, now });
                }
                SolutionWriter::resume(solution, state.contents.clone())?
            }
            None => SolutionWriter::create(solution)?,
        };
        Ok(Self { directory, writer, fingerprint, act_order, state })
    }

    /// Declares the solution complete and opens it.
    ///
    /// # Errors
    /// [`Error::Export`] if it cannot be written or read back.
    pub fn finish(self) -> Result<Solution> {
        Ok(self.writer.finish(self.fingerprint.into_fields())?)
    }
}

impl Sink for SolutionSink {
    fn resume(&mut self) -> Result<Option<Resumed>> {
        let Some(state) = self.state.take() else { return Ok(None) };
        let activations = open_activations(&self.directory, &state)?;
        Ok(Some(Resumed { blocks: state.blocks, layers: state.layers, activations, seconds: state.seconds }))
    }

    fn layer(&mut self, linear: &Linear, layer: &CompressedLayer) -> Result<()> {
        let shape = SolvedShape::of(&linear.name, layer, self.act_order).stored(&linear.stored);
        Ok(self.writer.add(shape, layer)?)
    }

    fn commit(&mut self, progress: &Progress<'_>) -> Result<()> {
        self.writer.commit(&format!("block-{:05}.safetensors", progress.blocks.saturating_sub(1)))?;
        let activations = write_activations(&self.directory, progress)?;
        State {
            fingerprint: self.fingerprint.clone(),
            blocks: progress.blocks,
            of: progress.of,
            seconds: progress.seconds,
            layers: progress.layers.to_vec(),
            contents: self.writer.contents().clone(),
            activations,
        }
        .write(&self.directory)
    }
}
