//! The processes of an MPI job, as [`sparq_core::Ranks`] sees them.
//!
//! Everything is behind the feature `mpi`, which links the MPI library of the system (Open MPI, MPICH). Without it the crate is
//! empty.
//!
//! # Example
//! ```no_run
//! # #[cfg(feature = "mpi")] {
//! let job = sparq_mpi::start();
//! let ranks = job.ranks(); // for `Compress::ranks`, `Evaluation::with_ranks`, `Sweep::ranks`
//! println!("{} of {}", ranks.rank(), ranks.size());
//! # }
//! ```
//!
//! # Should I use this crate?
//! To run the examples on several machines, build them with `--features mpi` (docs/scaling.md). In a program of your own,
//! start the job here and hand its ranks to `sparq`.
//!
//! # Errors
//! MPI ends all processes of a job when one of them dies or cannot be reached; what was committed to disk stays good.
#![deny(unsafe_code)]

#[cfg(feature = "mpi")]
mod job;

#[cfg(feature = "mpi")]
pub use job::{Job, start};
