use mpi::Threading;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, Destination, Root, Source};
use sparq_core::{Communicator, Ranks, Result};
use std::fmt;

/// Bytes of a message at most: counts of MPI are 32 bits wide.
const PIECE: usize = 1 << 30;

/// This process's part in the job, from [`start`] until it is dropped.
pub struct Job {
    /// None if the program had started MPI before.
    _universe: Option<Universe>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

/// Joins the job that this process was started in. A process that was started without `mpirun` is a job of its own.
pub fn start() -> Job {
    // One thread at a time speaks to others: the one that makes the calls.
    Job { _universe: mpi::initialize_with_threading(Threading::Serialized).map(|(universe, _)| universe) }
}

impl Job {
    /// All processes of the job. To be used while the job lives.
    pub fn ranks(&self) -> Ranks {
        let world = SimpleCommunicator::world();
        Ranks::new(World { rank: world.rank().unsigned_abs() as usize, size: world.size().unsigned_abs() as usize })
    }

    /// Ends all processes of the job with this exit code.
    pub fn abort(&self, code: i32) -> ! {
        SimpleCommunicator::world().abort(code)
    }
}

/// All processes.
#[derive(Debug)]
struct World {
    rank: usize,
    size: usize,
}

impl Communicator for World {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn send(&self, to: usize, bytes: &[u8]) -> Result<()> {
        let world = SimpleCommunicator::world();
        let process = world.process_at_rank(to as i32);
        process.send(&(bytes.len() as u64));
        bytes.chunks(PIECE).for_each(|piece| process.send(piece));
        Ok(())
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>> {
        let world = SimpleCommunicator::world();
        let process = world.process_at_rank(from as i32);
        let (length, _) = process.receive::<u64>();
        let mut bytes = vec![0_u8; length as usize];
        bytes.chunks_mut(PIECE).for_each(|piece| {
            process.receive_into(piece);
        });
        Ok(bytes)
    }

    fn broadcast(&self, root: usize, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let world = SimpleCommunicator::world();
        let process = world.process_at_rank(root as i32);
        let mut length = bytes.len() as u64;
        process.broadcast_into(&mut length);
        let mut bytes = bytes;
        bytes.resize(length as usize, 0);
        bytes.chunks_mut(PIECE).for_each(|piece| process.broadcast_into(piece));
        Ok(bytes)
    }
}
