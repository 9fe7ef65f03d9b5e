//! Processes that work on one problem together.

use crate::{CompressError, Result};
use ndarray::Array2;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

/// Parts that a [sum over tokens](Ranks::sum) is made of: more processes than these do not all get tokens.
pub const PARTS: usize = 16;

/// How the processes of one job reach each other. They are numbered from 0; the number of a process is its rank.
///
/// All processes make the same calls in the same order. A message waits until it is received, so that one process may be ahead
/// of another.
pub trait Communicator: fmt::Debug + Send + Sync {
    /// Number of this process.
    fn rank(&self) -> usize;

    /// How many processes there are; at least 1.
    fn size(&self) -> usize;

    /// Sends a message to another process.
    ///
    /// # Errors
    /// [`CompressError::Ranks`] if it cannot be reached.
    fn send(&self, to: usize, bytes: &[u8]) -> Result<()>;

    /// Waits for the next message of another process.
    ///
    /// # Errors
    /// [`CompressError::Ranks`] if that has ended.
    fn receive(&self, from: usize) -> Result<Vec<u8>>;

    /// Gives every process the `bytes` of process `root`; what others pass does not count.
    ///
    /// # Errors
    /// [`CompressError::Ranks`] if a process cannot be reached.
    fn broadcast(&self, root: usize, bytes: Vec<u8>) -> Result<Vec<u8>> {
        if self.rank() != root {
            return self.receive(root);
        }
        (0..self.size()).filter(|&to| to != root).try_for_each(|to| self.send(to, &bytes))?;
        Ok(bytes)
    }
}

/// A process alone.
#[derive(Debug)]
struct Alone;

impl Communicator for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn send(&self, to: usize, _: &[u8]) -> Result<()> {
        Err(CompressError::Ranks { rank: 0, what: format!("there is no process {to}") })
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        Err(CompressError::Ranks { rank: 0, what: format!("there is no process {from}") })
    }
}

/// The processes that share the work, as one of them sees them. The default is a process alone.
///
/// Work is split so that the result has the same bits for any number of processes: whoever computes a batch, a row or an
/// item computes it alone, and sums over tokens are made of a fixed number of parts that are added in a fixed order.
///
/// # Examples
/// ```
/// use sparq_core::Ranks;
/// let ranks = Ranks::in_threads(3);
/// let sums: Vec<Vec<u8>> = std::thread::scope(|scope| {
///     let started: Vec<_> = ranks.iter().map(|ranks| scope.spawn(|| ranks.gather(vec![ranks.rank() as u8]))).collect();
///     started.into_iter().map(|thread| thread.join().unwrap().unwrap().concat()).collect()
/// });
/// assert_eq!(sums, [[0, 1, 2]; 3]);
/// ```
#[derive(Debug, Clone)]
pub struct Ranks(Arc<dyn Communicator>);

impl Default for Ranks {
    fn default() -> Self {
        Self::new(Alone)
    }
}

/// What can be summed up in parts.
pub trait Summand {
    /// Adds what comes later in the order.
    fn join(&mut self, later: &Self);

    /// Appends its values to a message.
    fn write(&self, message: &mut Vec<u8>);

    /// Takes the values of another one of the same shape from the front of a message.
    ///
    /// # Errors
    /// [`CompressError::Ranks`] if they are not there.
    fn read(&mut self, message: &mut &[u8]) -> Result<()>;
}

impl Ranks {
    /// Of a job whose processes reach each other like this.
    pub fn new(communicator: impl Communicator + 'static) -> Self {
        Self(Arc::new(communicator))
    }

    /// So many, each to be used by a thread of its own in this process: for tests.
    pub fn in_threads(count: usize) -> Vec<Self> {
        let count = count.max(1);
        let mut ends: Vec<(Vec<_>, Vec<_>)> = (0..count).map(|_| (Vec::new(), Vec::new())).collect();
        for from in 0..count {
            for to in 0..count {
                let (sender, receiver) = channel();
                ends[from].0.push(sender);
                ends[to].1.push(Mutex::new(receiver));
            }
        }
        let ends = ends.into_iter().enumerate();
        ends.map(|(rank, (senders, receivers))| Self::new(Thread { rank, senders, receivers })).collect()
    }

    /// Number of this process.
    pub fn rank(&self) -> usize {
        self.0.rank()
    }

    /// How many processes there are.
    pub fn size(&self) -> usize {
        self.0.size().max(1)
    }

    /// Whether this process is the first, which writes and reports.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Whether there is no other.
    pub fn is_alone(&self) -> bool {
        self.size() == 1
    }

    /// Those of `count` things in a row that are this process's own.
    pub fn share(&self, count: usize) -> Range<usize> {
        self.share_of(self.rank(), count)
    }

    fn share_of(&self, rank: usize, count: usize) -> Range<usize> {
        rank * count / self.size()..(rank + 1) * count / self.size()
    }

    /// Whose the thing at `index` of `count` is.
    pub fn owner(&self, index: usize, count: usize) -> usize {
        (0..self.size()).find(|&rank| self.share_of(rank, count).contains(&index)).unwrap_or(0)
    }

    /// Those of `count` things, in order, that belong to `part` of a sum.
    pub fn part(part: usize, count: usize) -> Range<usize> {
        part * count / PARTS..(part + 1) * count / PARTS
    }

    /// Those of `count` things that belong to parts of this process: what it must hold to fill them.
    pub fn share_of_parts(&self, count: usize) -> Range<usize> {
        let parts = self.share(PARTS);
        parts.start * count / PARTS..parts.end * count / PARTS
    }

    /// Which process holds the thing at `index` of `count` that belong to parts.
    pub fn holder(&self, index: usize, count: usize) -> usize {
        let part = (0..PARTS).find(|&part| Self::part(part, count).contains(&index)).unwrap_or(0);
        self.owner(part, PARTS)
    }

    /// Sends a message to another process.
    ///
    /// # Errors
    /// [`CompressError::Ranks`].
    pub fn send(&self, to: usize, bytes: &[u8]) -> Result<()> {
        self.0.send(to, bytes)
    }

    /// Waits for the next message of another process.
    ///
    /// # Errors
    /// [`CompressError::Ranks`].
    pub fn receive(&self, from: usize) -> Result<Vec<u8>> {
        self.0.receive(from)
    }

    /// What process `root` passes.
    ///
    /// # Errors
    /// [`CompressError::Ranks`].
    pub fn broadcast(&self, root: usize, bytes: Vec<u8>) -> Result<Vec<u8>> {
        if self.is_alone() { Ok(bytes) } else { self.0.broadcast(root, bytes) }
    }

    /// What every process passes, in the order of ranks, for all of them.
    ///
    /// # Errors
    /// [`CompressError::Ranks`].
    pub fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let mine = std::cell::Cell::new(Some(bytes));
        let of = |rank| if rank == self.rank() { mine.take().unwrap_or_default() } else { Vec::new() };
        (0..self.size()).map(|rank| self.broadcast(rank, of(rank))).collect()
    }

    /// What the first process passes: so that all decide alike.
    ///
    /// # Errors
    /// [`CompressError::Ranks`].
    pub fn agree(&self, yes: bool) -> Result<bool> {
        Ok(self.broadcast(0, vec![u8::from(yes)])? == [1])
    }

    /// Whether some process passes `true`.
    ///
    /// # Errors
    /// [`CompressError::Ranks`].
    pub fn any(&self, yes: bool) -> Result<bool> {
        Ok(self.gather(vec![u8::from(yes)])?.concat().contains(&1))
    }

    /// Waits until every process is here.
    ///
    /// # Errors
    /// [`CompressError::Ranks`].
    pub fn barrier(&self) -> Result<()> {
        self.gather(Vec::new()).map(|_| ())
    }

    /// The sum over [`PARTS`] parts, the same on every process. `fill` adds what belongs to a part to an empty sum and says
    /// whether there was anything; it is asked for the parts that are this process's [share](Self::share), in order. Parts
    /// are added as a binary tree of fixed shape, so that the bits of the sum do not depend on who holds which.
    ///
    /// Takes the memory of up to five sums.
    ///
    /// # Errors
    /// [`CompressError::Ranks`], and those of `new` and `fill`.
    pub fn sum<T: Summand, E: From<CompressError>>(
        &self,
        new: impl Fn() -> std::result::Result<T, E>,
        mut fill: impl FnMut(usize, &mut T) -> std::result::Result<bool, E>,
    ) -> std::result::Result<T, E> {
        let (root, sum) = (self.owner(0, PARTS), self.subtree(PARTS.ilog2(), 0, &new, &mut fill)?);
        let mut total = sum.map_or_else(&new, Ok)?;
        if !self.is_alone() {
            let mut message = Vec::new();
            if root == self.rank() {
                total.write(&mut message);
            }
            let message = self.broadcast(root, message)?;
            if root != self.rank() {
                total.read(&mut message.as_slice())?;
            }
        }
        Ok(total)
    }

    /// The sum of 2 to the power of `level` parts from `start` on, if there is anything in them. It is made on the process that
    /// owns the first of them; others have nothing.
    fn subtree<T: Summand, E: From<CompressError>>(
        &self,
        level: u32,
        start: usize,
        new: &impl Fn() -> std::result::Result<T, E>,
        fill: &mut impl FnMut(usize, &mut T) -> std::result::Result<bool, E>,
    ) -> std::result::Result<Option<T>, E> {
        let owner = self.owner(start, PARTS);
        if level == 0 {
            if owner != self.rank() {
                return Ok(None);
            }
            let mut sum = new()?;
            return Ok(fill(start, &mut sum)?.then_some(sum));
        }
        let middle = start + (1 << (level - 1));
        let mut sum = self.subtree(level - 1, start, new, fill)?;
        let mut later = self.subtree(level - 1, middle, new, fill)?;
        let (here, there) = (self.rank(), self.owner(middle, PARTS));
        if owner != there && there == here {
            let mut message = Vec::new();
            if let Some(later) = later.take() {
                later.write(&mut message);
            }
            self.send(owner, &message)?;
        } else if owner != there && owner == here {
            let message = self.receive(there)?;
            if !message.is_empty() {
                later.insert(new()?).read(&mut message.as_slice())?;
            }
        }
        join(&mut sum, later);
        Ok(sum)
    }
}

/// Adds what comes later; nothing adds nothing.
fn join<T: Summand>(sum: &mut Option<T>, later: Option<T>) {
    match (&mut *sum, later) {
        (Some(sum), Some(later)) => sum.join(&later),
        (None, later) => *sum = later,
        (Some(_), None) => {}
    }
}

impl Summand for Array2<f32> {
    fn join(&mut self, later: &Self) {
        sparq_linalg::add(self.view_mut(), later.view());
    }

    fn write(&self, message: &mut Vec<u8>) {
        message::put(message, self);
    }

    fn read(&mut self, message: &mut &[u8]) -> Result<()> {
        message::take(message, self)
    }
}

/// One of several threads.
#[derive(Debug)]
struct Thread {
    rank: usize,
    senders: Vec<Sender<Vec<u8>>>,
    receivers: Vec<Mutex<Receiver<Vec<u8>>>>,
}

impl Thread {
    fn lost(&self, other: usize) -> CompressError {
        CompressError::Ranks { rank: self.rank, what: format!("process {other} has ended") }
    }
}

impl Communicator for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.senders.len()
    }

    fn send(&self, to: usize, bytes: &[u8]) -> Result<()> {
        let sender = self.senders.get(to).ok_or_else(|| self.lost(to))?;
        sender.send(bytes.to_vec()).map_err(|_| self.lost(to))
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        let receiver = self.receivers.get(from).ok_or_else(|| self.lost(from))?;
        let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.recv().map_err(|_| self.lost(from))
    }
}

/// Numbers in messages: as they are in memory, the lowest byte first.
pub mod message {
    use super::{CompressError, Result};
    use ndarray::{Array2, ArrayView2};

    /// Appends numbers.
    pub fn put<'a>(message: &mut Vec<u8>, values: impl IntoIterator<Item = &'a f32>) {
        message.extend(values.into_iter().flat_map(|value| value.to_le_bytes()));
    }

    /// Appends a count, or anything else that is whole.
    pub fn put_count(message: &mut Vec<u8>, count: u64) {
        message.extend_from_slice(&count.to_le_bytes());
    }

    /// Takes numbers from the front of a message.
    ///
    /// # Errors
    /// [`CompressError::Ranks`] if the message is too short.
    pub fn take<'a>(message: &mut &[u8], values: impl IntoIterator<Item = &'a mut f32>) -> Result<()> {
        for value in values {
            let (first, rest) = message.split_first_chunk().ok_or_else(short)?;
            *value = f32::from_le_bytes(*first);
            *message = rest;
        }
        Ok(())
    }

    /// Takes a count.
    ///
    /// # Errors
    /// [`CompressError::Ranks`] if the message is too short.
    pub fn take_count(message: &mut &[u8]) -> Result<u64> {
        let (first, rest) = message.split_first_chunk().ok_or_else(short)?;
        *message = rest;
        Ok(u64::from_le_bytes(*first))
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    /// [`CompressError::Ranks`] if the message is too short.
    pub fn take_bytes<'a>(message: &mut &'a [u8], count: usize) -> Result<&'a [u8]> {
        let (first, rest) = message.split_at_checked(count).ok_or_else(short)?;
        *message = rest;
        Ok(first)
    }

    /// Appends a number of 64 bits.
    pub fn put_number(message: &mut Vec<u8>, value: f64) {
        put_count(message, value.to_bits());
    }

    /// Takes such a number.
    ///
    /// # Errors
    /// [`CompressError::Ranks`] if the message is too short.
    pub fn take_number(message: &mut &[u8]) -> Result<f64> {
        take_count(message).map(f64::from_bits)
    }

    /// Appends a matrix: its shape and its values.
    pub fn put_matrix(message: &mut Vec<u8>, matrix: ArrayView2<'_, f32>) {
        put_count(message, matrix.nrows() as u64);
        put_count(message, matrix.ncols() as u64);
        put(message, matrix);
    }

    /// Takes a matrix.
    ///
    /// # Errors
    /// [`CompressError::Ranks`] if the message is too short.
    pub fn take_matrix(message: &mut &[u8]) -> Result<Array2<f32>> {
        let (rows, width) = (take_count(message)? as usize, take_count(message)? as usize);
        if rows.checked_mul(width).is_none_or(|count| count > message.len() / size_of::<f32>()) {
            return Err(short());
        }
        let mut matrix = Array2::zeros((rows, width));
        take(message, &mut matrix)?;
        Ok(matrix)
    }

    /// The error of a message that is not what it should be.
    pub fn garbled() -> CompressError {
        let what = "a message is not what it should be: all processes must run one program".into();
        CompressError::Ranks { rank: 0, what }
    }

    fn short() -> CompressError {
        CompressError::Ranks { rank: 0, what: "a message is shorter than what it should hold".into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sum whose bits depend on the order of additions.
    #[derive(Debug, Clone, PartialEq)]
    struct Sum(Vec<f32>);

    impl Summand for Sum {
        fn join(&mut self, later: &Self) {
            self.0.iter_mut().zip(&later.0).for_each(|(sum, later)| *sum += later);
        }

        fn write(&self, message: &mut Vec<u8>) {
            message::put(message, &self.0);
        }

        fn read(&mut self, message: &mut &[u8]) -> Result<()> {
            message::take(message, &mut self.0)
        }
    }

    fn value(batch: usize) -> f32 {
        1.0 / (batch * 7919 % 101 + 1) as f32
    }

    fn sum(ranks: &Ranks, batches: usize) -> Vec<f32> {
        let fill = |part, sum: &mut Sum| {
            let batches = Ranks::part(part, batches);
            batches.clone().for_each(|batch| sum.0.iter_mut().for_each(|sum| *sum += value(batch)));
            Ok(!batches.is_empty())
        };
        ranks.sum(|| Ok::<_, CompressError>(Sum(vec![0.0; 3])), fill).expect("summed").0
    }

    #[test]
    fn sums_have_the_same_bits_for_any_number_of_ranks() {
        for batches in [0, 1, 2, 5, 8, 15, 16, 17, 100] {
            let alone = sum(&Ranks::default(), batches);
            for size in 1..=19 {
                let ranks = Ranks::in_threads(size);
                let sums: Vec<Vec<f32>> = std::thread::scope(|scope| {
                    let threads: Vec<_> = ranks.iter().map(|ranks| scope.spawn(|| sum(ranks, batches))).collect();
                    threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
                });
                assert!(sums.iter().all(|sum| *sum == alone), "{batches} batches, {size} ranks");
            }
        }
        // One after the other is another sum: the order matters.
        let row: f32 = (0..100).map(value).sum();
        assert_ne!(sum(&Ranks::default(), 100)[0], row);
    }

    #[test]
    fn everything_has_one_owner() {
        for (size, count) in [(1, 7), (3, 7), (4, 3), (5, 0)] {
            let ranks = Ranks::in_threads(size);
            let owned: Vec<usize> = ranks.iter().flat_map(|ranks| ranks.share(count)).collect();
            assert_eq!(owned, (0..count).collect::<Vec<_>>());
            for index in 0..count {
                assert!(ranks[ranks[0].owner(index, count)].share(count).contains(&index));
                assert!(ranks[ranks[0].holder(index, count)].share_of_parts(count).contains(&index));
            }
        }
    }

    #[test]
    fn who_is_gone_is_named() {
        let mut ranks = Ranks::in_threads(2);
        drop(ranks.pop());
        let Err(CompressError::Ranks { rank: 0, what }) = ranks[0].receive(1) else { panic!("nobody is there") };
        assert!(what.contains("process 1"), "{what}");
        assert!(ranks[0].barrier().is_err() && Ranks::default().receive(1).is_err());
    }
}
