//! `Q5_K`: 256 elements in 8 sub-blocks `d·scale·q − dmin·minimum`. Bytes: `d`, `dmin`, scales and minima as in `Q4_K`, 32
//! of fifth bits, 128 of nibbles. Only read.

use super::q4_k::sub_grids;

/// Reads a block.
pub(super) fn decode(block: &[u8; 176], out: &mut [f32; 256]) {
    let grids = sub_grids(block);
    for (sub, (out, (scale, minimum))) in out.as_chunks_mut::<32>().0.iter_mut().zip(grids).enumerate() {
        let shift = 4 * (sub % 2);
        let nibbles = &block[48 + 32 * (sub / 2)..];
        for ((out, &byte), &fifth) in out.iter_mut().zip(nibbles).zip(&block[16..48]) {
            let code = ((byte >> shift) & 15) | ((fifth >> sub & 1) << 4);
            *out = scale * f32::from(code) - minimum;
        }
    }
}
