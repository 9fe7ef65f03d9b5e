//! Runs a model over many short texts: scores continuations and generates text.

mod batch;
mod continuation;
pub(crate) mod generate;
mod head;

pub(crate) use batch::score_by;
pub use batch::score_continuations;
pub use continuation::{Continuation, ContinuationScore};
pub use generate::continue_greedily;

/// Length of the longest prefix that all sequences share.
fn common_prefix<'a>(mut sequences: impl Iterator<Item = &'a [u32]>) -> usize {
    let Some(first) = sequences.next() else { return 0 };
    sequences
        .fold(first.len(), |length, sequence| first[..length].iter().zip(sequence).take_while(|(a, b)| a == b).count())
}

#[cfg(test)]
mod tests;
