//! Work in units that the processes of a job share.

use crate::Result;
use sparq_core::{Ranks, message};

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
