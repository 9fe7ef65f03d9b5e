//! Which tensors of a GPTQ checkpoint make up a weight, and whether they fit each other.

use std::path::Path;

use serde_json::Value;

use super::config::Gptq;
use super::{GptqVersion, unpack_qzeros};
use crate::codec::packed::{Groups, Layout, PackedWeight, Part, SCALE_TYPES};
use crate::codec::stream::{read_stream, words};
use crate::entry::Loaded;
use crate::mmap::MappedFile;
use crate::size::checked_elements;
use crate::{DType, Error, Packing, Result};

/// Replaces the parts of quantized weights in `loaded` by the weights. `path` is the file that `config` is from.
pub(crate) fn present(loaded: &mut Loaded, path: &Path, config: &Value) -> Result<()> {
    let config = Gptq::parse(path, config)?;
    for module in loaded.modules(".qweight") {
        module_weight(loaded, &config, &module)?;
    }
    Ok(())
}

/// `qweight`, `qzeros`, `scales`, perhaps `g_idx`.
fn module_weight(loaded: &mut Loaded, config: &Gptq, module: &str) -> Result<()> {
    let name = |suffix| format!("{module}.{suffix}");
    let Some(codes) = loaded.take(&name("qweight")) else { return Ok(()) };
    codes.check_type(&[DType::I32], "the type of packed codes")?;
    let zeros = loaded.take_needed(&name("qzeros"), &codes)?;
    let scales = loaded.take_needed(&name("scales"), &codes)?;
    let order = loaded.take(&name("g_idx"));

    let &[packed, rows] = codes.info.shape.as_slice() else {
        return Err(codes.bad_shape("packed codes are a matrix"));
    };
    let width = match &order {
        Some(order) => {
            order.check_type(&[DType::I32], "the type of group indices")?;
            let &[width] = order.info.shape.as_slice() else {
                return Err(order.bad_shape("group indices are a list"));
            };
            width
        }
        None if config.has_exceptions => {
            let what = format!("exceptions (dynamic) without group indices: {}", codes.info.name);
            return Err(Error::Unsupported { file: config.path.clone(), what, value: "no g_idx".into() });
        }
        None => packed.saturating_mul(32) / config.bits as usize,
    };
    if rows == 0 || width == 0 {
        return Err(codes.bad_shape("it has no elements"));
    }
    let bits = if config.has_exceptions {
        let fits = |bits: &u32| words(width, *bits) == packed;
        [2, 3, 4, 8].into_iter().find(fits).unwrap_or(config.bits)
    } else {
        config.bits
    };
    if words(width, bits) != packed {
        return Err(codes.bad_shape("its words are not as many as bits and input channels need"));
    }
    checked_elements(&[rows, width]).map_err(|fault| codes.fault(fault))?;

    scales.check_type(&SCALE_TYPES, "the type of scales")?;
    let &[groups, scale_rows] = scales.info.shape.as_slice() else {
        return Err(scales.bad_shape("scales are a matrix"));
    };
    if scale_rows != rows || groups == 0 || groups > width {
        return Err(scales.bad_shape("it needs one row for each group and one column for each output channel"));
    }
    zeros.check_type(&[DType::I32], "the type of zero points")?;
    if zeros.info.shape != [groups, words(rows, bits)] {
        return Err(zeros.bad_shape("it needs one row for each group, packed over the output channels"));
    }
    let groups = if let Some(order) = order {
        Groups::Named { order, minus_one_is_none: false, otherwise: width }
    } else {
        let size = config.group_size.unwrap_or(width).min(width);
        if width.div_ceil(size) != groups {
            return Err(scales.bad_shape("it has not the groups that group_size implies"));
        }
        Groups::Consecutive(size)
    };
    let packing = Packing::Gptq { bits: bits as u8 };
    // Scale times code is exact in single precision: what an engine makes of it is the engine's choice.
    let dtype = DType::F32;
    let layout: Box<dyn Layout> = Box::new(Columns { version: config.version, symmetric: config.symmetric });
    let (scales_transposed, zeros) = (true, Some(zeros));
    let weight = PackedWeight { packing, bits, dtype, codes, layout, scales, scales_transposed, zeros, groups };
    loaded.insert(module, [rows, width], weight)
}

/// Words along the input channels, one column for each output channel.
#[derive(Debug)]
struct Columns {
    version: GptqVersion,
    symmetric: bool,
}

impl Layout for Columns {
    fn read_codes(&self, bits: u32, bytes: &[u8], [rows, width]: [usize; 2], first: usize, out: &mut [u8]) {
        let count = out.len() / width;
        let words = bytes.len() / 4 / rows;
        let mut stream = vec![0u8; count * words * 4];
        for word in 0..words {
            let line = &bytes[4 * (word * rows + first)..][..4 * count];
            for (row, &word_bytes) in line.as_chunks::<4>().0.iter().enumerate() {
                stream[4 * (row * words + word)..][..4].copy_from_slice(&word_bytes);
            }
        }
        for (out, stream) in out.chunks_exact_mut(width).zip(stream.chunks_exact(4 * words)) {
            read_stream(stream, bits, out);
        }
    }

    fn zeros(&self, bits: u32, part: &Part, files: &[MappedFile], rows: usize) -> Result<Option<Vec<u8>>> {
        let Some(zeros) = unpack_qzeros(part.words(files)?.view(), bits, rows, self.version) else { return Ok(None) };
        let midpoint = 1u8 << (bits - 1);
        // Files with version-2 zero points that call themselves version 1 exist: those of a symmetric grid tell.
        let is_symmetric_v1 = self.symmetric && self.version == GptqVersion::V1;
        if is_symmetric_v1 && zeros.iter().all(|&zero| zero == midpoint + 1) {
            return Ok(Some(vec![midpoint; zeros.len()]));
        }
        Ok(Some(zeros.into_raw_vec_and_offset().0))
    }
}
