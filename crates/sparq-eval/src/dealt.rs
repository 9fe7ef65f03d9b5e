//! Work in units that the processes of a job share.

use crate::{Error, Result};
use sparq_core::{CompressError, Ranks, message};

/// Does each of `count` units of work on the process whose it is, and returns what all of them give, in order, on every
/// process.
pub(crate) fn dealt(
    ranks: &Ranks,
    count: usize,
    mut work: impl FnMut(usize) -> Result<Vec<u8>>,
) -> Result<Vec<Vec<u8>>> {
    let mut mine = Vec::new();
    for unit in ranks.share(count) {
        let result = work(unit)?;
        message::put_count(&mut mine, result.len() as u64);
        mine.extend(result);
    }
    let mut all = Vec::with_capacity(count);
    for of_rank in ranks.gather(mine)? {
        let mut rest = of_rank.as_slice();
        while !rest.is_empty() {
            let length = message::take_count(&mut rest)? as usize;
            all.push(message::take_bytes(&mut rest, length)?.to_vec());
        }
    }
    Ok(all)
}

/// Appends a number.
pub(crate) fn put(message: &mut Vec<u8>, value: f64) {
    message::put_count(message, value.to_bits());
}

/// Takes a number.
pub(crate) fn take(message: &mut &[u8]) -> Result<f64> {
    Ok(f64::from_bits(message::take_count(message)?))
}

/// A result of another process that is not what it should be.
pub(crate) fn garbled() -> Error {
    let what = "a message is not what it should be: all processes must run one program".into();
    CompressError::Ranks { rank: 0, what }.into()
}
