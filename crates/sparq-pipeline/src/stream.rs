//! Batches of calibration tokens on their way through the blocks.

use crate::spill::SpillFile;
use crate::{Activations, Calibration, Error, Result};
use ndarray::{Array2, ArrayView2, CowArray, Ix2};
use sparq_core::{Ranks, message};
use sparq_model::{BatchLayout, Block, BlockState, Model, Precision};
use std::ops::Range;
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

/// The batches of this process, one at work at a time, in their order.
#[derive(Debug)]
pub(crate) struct Stream {
    ranks: Ranks,
    /// Of all batches, those that this process holds: [`batches`](Self::batches) from `first` on.
    count: usize,
    first: usize,
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
    pub(crate) fn new(precision: Precision, residence: Option<Residence>, ranks: Ranks) -> Self {
        let (count, first, resident_bytes) = (0, 0, 0);
        Self { ranks, count, first, batches: Vec::new(), precision, residence, spill: None, resident_bytes }
    }

    /// Takes calibration sequences, in batches of at most so many tokens (a longer sequence is a batch of its own). Each
    /// process holds the batches of its parts of a sum.
    pub(crate) fn embed(&mut self, model: &Model, calibration: &Calibration, batch_tokens: usize) -> Result<()> {
        let sequences = calibration.sequences();
        let lengths: Vec<usize> = sequences.iter().map(Vec::len).collect();
        let batches = BatchLayout::cut(&lengths, batch_tokens);
        let own = self.ranks.share_of_parts(batches.len());
        (self.count, self.first) = (batches.len(), own.start);
        for batch in &batches[own] {
            let layout = BatchLayout::new(&lengths[batch.clone()]);
            let embedded = model.embed(&sequences[batch.clone()].concat(), &layout)?;
            self.push(layout, embedded)?;
        }
        Ok(())
    }

    /// The processes that share the batches.
    pub(crate) fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// The batches that this process holds.
    pub(crate) fn own(&self) -> Range<usize> {
        self.first..self.first + self.batches.len()
    }

    /// Where a batch is, if this process holds it.
    fn at(&self, index: usize) -> Result<usize> {
        index.checked_sub(self.first).filter(|&at| at < self.batches.len()).ok_or_else(lost)
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
        Self::new(self.precision, self.residence.clone(), self.ranks.clone())
    }

    /// A second stream of the same batches, where this one has not moved yet.
    pub(crate) fn copy(&self) -> Result<Self> {
        let mut copy = self.empty();
        (copy.count, copy.first) = (self.count, self.first);
        for (at, batch) in self.batches.iter().enumerate() {
            copy.push(batch.layout.clone(), self.waiting(at)?.into_owned())?;
        }
        Ok(copy)
    }

    /// Tokens of this process's batches.
    pub(crate) fn tokens(&self) -> usize {
        self.batches.iter().map(|batch| batch.layout.tokens()).sum()
    }

    /// Replaces what enters the next block, `hidden` wide, batch by batch, by what an earlier run left, which the first
    /// process has.
    pub(crate) fn replace(&mut self, residuals: Option<&dyn Activations>, hidden: usize) -> Result<()> {
        if residuals.is_some_and(|residuals| residuals.batches() != self.count) {
            return Err(foreign());
        }
        for index in 0..self.count {
            let holder = self.ranks.holder(index, self.count);
            let residual = match residuals {
                Some(residuals) => Some(residuals.batch(index)?),
                None => None,
            };
            match residual {
                Some(residual) if holder != self.ranks.rank() => {
                    self.ranks.send(holder, &to_message(residual.view()))?;
                }
                Some(residual) => self.put(index, residual.into_owned(), hidden)?,
                None if holder == self.ranks.rank() => {
                    let residual = message::take_matrix(&mut self.ranks.receive(0)?.as_slice())?;
                    self.put(index, residual, hidden)?;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Replaces what enters the next block of one batch.
    fn put(&mut self, index: usize, residual: Array2<f32>, hidden: usize) -> Result<()> {
        let at = self.at(index)?;
        if residual.dim() != (self.batches[at].layout.tokens(), hidden) {
            return Err(foreign());
        }
        self.batches[at].place = Place::Before(residual);
        self.put_away(at)
    }

    /// Gives the first process the batches that it asks for, until it has done its `work` with them.
    pub(crate) fn served<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        if self.ranks.is_first() {
            let done = work()?;
            (1..self.ranks.size()).try_for_each(|rank| self.ranks.send(rank, &[]))?;
            return Ok(Some(done));
        }
        loop {
            let asked = self.ranks.receive(0)?;
            if asked.is_empty() {
                return Ok(None);
            }
            let index = message::take_count(&mut asked.as_slice())? as usize;
            self.ranks.send(0, &to_message(self.waiting(self.at(index)?)?.view()))?;
        }
    }

    /// Does `work` on every batch of this process, each inside `block`.
    pub(crate) fn each(
        &mut self,
        block: &Block,
        mut work: impl FnMut(usize, &mut BlockState) -> Result<()>,
    ) -> Result<()> {
        self.own().try_for_each(|index| self.with(index, block, |state| work(index, state)))
    }

    /// Does `work` on one batch inside `block`.
    pub(crate) fn with<T>(
        &mut self,
        index: usize,
        block: &Block,
        work: impl FnOnce(&mut BlockState) -> Result<T>,
    ) -> Result<T> {
        let at = self.at(index)?;
        self.fetch(at)?;
        let batch = &mut self.batches[at];
        if let Place::Before(residual) = &mut batch.place {
            let state = block.begin(std::mem::take(residual), batch.layout.clone())?.with_precision(self.precision);
            batch.place = Place::Inside(state);
        }
        let Place::Inside(state) = &mut batch.place else { return Err(lost()) };
        let result = work(state)?;
        self.put_away(at)?;
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

    /// What enters the next block of the batch at `at` of this process.
    fn waiting(&self, at: usize) -> Result<CowArray<'_, f32, Ix2>> {
        let batch = self.batches.get(at).ok_or_else(lost)?;
        match (&batch.place, &self.spill) {
            (Place::Before(_), Some(spill)) if batch.waits_in_file => {
                spill.read(at)?.into_iter().next().map(CowArray::from).ok_or_else(lost)
            }
            (Place::Before(residual), _) => Ok(residual.view().into()),
            (Place::Inside(_), _) => Err(lost()),
        }
    }
}

fn foreign() -> Error {
    Error::Activations { what: "the saved activations are not those of this text".into() }
}

fn lost() -> Error {
    Error::Activations { what: "a waiting batch of activations is not where it was left".into() }
}

impl Activations for Stream {
    fn batches(&self) -> usize {
        self.count
    }

    /// Of another process only while that [serves](Stream::served).
    fn batch(&self, index: usize) -> Result<CowArray<'_, f32, Ix2>> {
        let holder = self.ranks.holder(index, self.count);
        if holder == self.ranks.rank() {
            return self.waiting(self.at(index)?);
        }
        let mut asked = Vec::new();
        message::put_count(&mut asked, index as u64);
        self.ranks.send(holder, &asked)?;
        Ok(message::take_matrix(&mut self.ranks.receive(holder)?.as_slice())?.into())
    }
}

fn to_message(matrix: ArrayView2<'_, f32>) -> Vec<u8> {
    let mut message = Vec::new();
    message::put_matrix(&mut message, matrix);
    message
}
