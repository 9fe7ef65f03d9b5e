//! Batches of calibration tokens on their way through the blocks.

use crate::spill::SpillFile;
use crate::{Activations, Calibration, Error, Result};
use ndarray::{Array2, CowArray, Ix2};
use sparq_model::{BatchLayout, Block, BlockState, Model, Precision};
use std::path::PathBuf;

/// How much of a stream waits in memory; the rest waits in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Residence {
    /// Bytes that waiting batches may take.
    pub(crate) bytes: u64,
    /// Bytes that a token of a waiting batch takes at most.
    pub(crate) per_token: u64,
    /// Where the file goes.
    pub(crate) directory: PathBuf,
}

/// All batches, one at work at a time, in their order.
#[derive(Debug)]
pub(crate) struct Stream {
    batches: Vec<Batch>,
    precision: Precision,
    residence: Option<Residence>,
    spill: Option<SpillFile>,
    /// Bytes set aside for batches that wait in memory.
    resident_bytes: u64,
}

#[derive(Debug)]
struct Batch {
    layout: BatchLayout,
    waits_in_file: bool,
    place: Place,
}

/// Where a batch is. Its matrices are elsewhere while it waits in the file, the residual stream first.
#[derive(Debug)]
enum Place {
    /// Before a block: the residual stream, `[tokens, hidden]`.
    Before(Array2<f32>),
    /// Inside one.
    Inside(BlockState),
}

impl Stream {
    pub(crate) fn new(precision: Precision, residence: Option<Residence>) -> Self {
        Self { batches: Vec::new(), precision, residence, spill: None, resident_bytes: 0 }
    }

    /// Adds calibration sequences, in batches of at most so many tokens (a longer sequence is a batch of its own).
    pub(crate) fn embed(&mut self, model: &Model, calibration: &Calibration, batch_tokens: usize) -> Result<()> {
        let mut pending: Vec<&[u32]> = Vec::new();
        let mut flush = |pending: &mut Vec<&[u32]>| -> Result<()> {
            if !pending.is_empty() {
                let lengths: Vec<usize> = pending.iter().map(|sequence| sequence.len()).collect();
                let layout = BatchLayout::new(&lengths);
                let embedded = model.embed(&pending.concat(), &layout)?;
                self.push(layout, embedded)?;
                pending.clear();
            }
            Ok(())
        };
        for sequence in calibration.sequences() {
            if pending.iter().map(|sequence| sequence.len()).sum::<usize>() + sequence.len() > batch_tokens {
                flush(&mut pending)?;
            }
            pending.push(sequence);
        }
        flush(&mut pending)
    }

    /// Adds a batch by what enters the first block.
    fn push(&mut self, layout: BatchLayout, residual: Array2<f32>) -> Result<()> {
        let needs = self.residence.as_ref().map_or(0, |residence| layout.tokens() as u64 * residence.per_token);
        let fits = self.residence.as_ref().is_none_or(|residence| self.resident_bytes + needs <= residence.bytes);
        if fits {
            self.resident_bytes += needs;
        }
        self.batches.push(Batch { layout, waits_in_file: !fits, place: Place::Before(residual) });
        self.put_away(self.batches.len() - 1)
    }

    /// A stream of no batches, with the same settings.
    pub(crate) fn empty(&self) -> Self {
        Self::new(self.precision, self.residence.clone())
    }

    /// A second stream of the same batches, where this one has not moved yet.
    pub(crate) fn copy(&self) -> Result<Self> {
        let mut copy = self.empty();
        for (index, batch) in self.batches.iter().enumerate() {
            copy.push(batch.layout.clone(), self.batch(index)?.into_owned())?;
        }
        Ok(copy)
    }

    /// Tokens of all batches.
    pub(crate) fn tokens(&self) -> usize {
        self.batches.iter().map(|batch| batch.layout.tokens()).sum()
    }

    /// Replaces what enters the next block, `hidden` wide, batch by batch, by what an earlier run left.
    pub(crate) fn replace(&mut self, residuals: &dyn Activations, hidden: usize) -> Result<()> {
        let foreign = || Error::Activations { what: "the saved activations are not those of this text".into() };
        if residuals.batches() != self.batches.len() {
            return Err(foreign());
        }
        for index in 0..self.batches.len() {
            let residual = residuals.batch(index)?.into_owned();
            if residual.dim() != (self.batches[index].layout.tokens(), hidden) {
                return Err(foreign());
            }
            self.batches[index].place = Place::Before(residual);
            self.put_away(index)?;
        }
        Ok(())
    }

    /// Does `work` on every batch, each inside `block`.
    pub(crate) fn each(
        &mut self,
        block: &Block,
        mut work: impl FnMut(usize, &mut BlockState) -> Result<()>,
    ) -> Result<()> {
        (0..self.batches.len()).try_for_each(|index| self.with(index, block, |state| work(index, state)))
    }

    /// Does `work` on one batch inside `block`.
    pub(crate) fn with<T>(
        &mut self,
        index: usize,
        block: &Block,
        work: impl FnOnce(&mut BlockState) -> Result<T>,
    ) -> Result<T> {
        self.fetch(index)?;
        let batch = &mut self.batches[index];
        if let Place::Before(residual) = &mut batch.place {
            let state = block.begin(std::mem::take(residual), batch.layout.clone())?.with_precision(self.precision);
            batch.place = Place::Inside(state);
        }
        let Place::Inside(state) = &mut batch.place else { return Err(lost()) };
        let result = work(state)?;
        self.put_away(index)?;
        Ok(result)
    }

    /// What a stage of `block` would leave of one batch, which stays where it is: the residual stream if the stage adds to
    /// it, else the input of the next one.
    pub(crate) fn after(&mut self, index: usize, block: &Block, stage: usize) -> Result<Array2<f32>> {
        self.with(index, block, |state| {
            let mut state = state.clone();
            block.apply(stage, &mut state)?;
            if block.plan().adds_to_residual(stage) || stage + 1 >= block.stages() {
                return Ok(block.end(state));
            }
            Ok(block.stage_input(stage + 1, &mut state)?.to_owned())
        })
    }

    /// Every batch has left `block`. What waits in the file stays there as it is.
    pub(crate) fn leave(&mut self, block: &Block) {
        for batch in &mut self.batches {
            let place = std::mem::replace(&mut batch.place, Place::Before(Array2::default((0, 0))));
            batch.place = match place {
                Place::Inside(state) => Place::Before(block.end(state)),
                before @ Place::Before(_) => before,
            };
        }
    }

    /// Writes the matrices of a batch to the file, if that is where it waits.
    fn put_away(&mut self, index: usize) -> Result<()> {
        let (Some(residence), Some(batch)) = (&self.residence, self.batches.get_mut(index)) else { return Ok(()) };
        if !batch.waits_in_file {
            return Ok(());
        }
        let matrices = match &mut batch.place {
            Place::Before(residual) => vec![std::mem::take(residual)],
            Place::Inside(state) => state.park(),
        };
        let spill = match &mut self.spill {
            Some(spill) => spill,
            none => none.insert(SpillFile::create(&residence.directory)?),
        };
        spill.write(index, batch.layout.tokens() as u64 * residence.per_token, &matrices)
    }

    /// Undoes [`put_away`](Self::put_away).
    fn fetch(&mut self, index: usize) -> Result<()> {
        let Some(batch) = self.batches.get_mut(index).filter(|batch| batch.waits_in_file) else { return Ok(()) };
        let matrices = self.spill.as_ref().map_or_else(|| Ok(Vec::new()), |spill| spill.read(index))?;
        match &mut batch.place {
            Place::Before(residual) => *residual = matrices.into_iter().next().ok_or_else(lost)?,
            Place::Inside(state) => state.unpark(matrices)?,
        }
        Ok(())
    }
}

fn lost() -> Error {
    Error::Activations { what: "a waiting batch of activations is not where it was left".into() }
}

impl Activations for Stream {
    fn batches(&self) -> usize {
        self.batches.len()
    }

    fn batch(&self, index: usize) -> Result<CowArray<'_, f32, Ix2>> {
        let batch = self.batches.get(index).ok_or_else(lost)?;
        match (&batch.place, &self.spill) {
            (Place::Before(_), Some(spill)) if batch.waits_in_file => {
                spill.read(index)?.into_iter().next().map(CowArray::from).ok_or_else(lost)
            }
            (Place::Before(residual), _) => Ok(residual.view().into()),
            (Place::Inside(_), _) => Err(lost()),
        }
    }
}
