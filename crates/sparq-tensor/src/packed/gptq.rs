//! Which tensors of a GPTQ checkpoint make up a weight, and whether they fit each other.

use super::config::Gptq;
use super::dequantize::{Codes, Groups, Offset, PackedWeight};
use super::{Packing, SCALE_TYPES, insert, modules, take, take_needed};
use crate::checkpoint::Loaded;
use crate::dtype::checked_elements;
use crate::packing::words;
use crate::{DType, Error, Result};

pub(super) fn present(loaded: &mut Loaded, config: &Gptq) -> Result<()> {
    for module in modules(&loaded.tensors, ".qweight") {
        module_weight(loaded, config, &module)?;
    }
    Ok(())
}

/// `qweight`, `qzeros`, `scales`, perhaps `g_idx`.
fn module_weight(loaded: &mut Loaded, config: &Gptq, module: &str) -> Result<()> {
    let tensors = &mut loaded.tensors;
    let name = |suffix| format!("{module}.{suffix}");
    let Some(codes) = take(tensors, &name("qweight")) else { return Ok(()) };
    codes.check_type(&[DType::I32], "the type of packed codes")?;
    let zeros = take_needed(tensors, &name("qzeros"), &codes)?;
    let scales = take_needed(tensors, &name("scales"), &codes)?;
    let order = take(tensors, &name("g_idx"));

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
    let offset = Offset::Gptq { zeros, version: config.version, symmetric: config.symmetric };
    let packing = Packing::Gptq { bits: bits as u8 };
    let weight = PackedWeight { packing, bits, codes, kind: Codes::Columns, scales, offset, groups };
    // Scale times code is exact in single precision: what an engine makes of it is the engine's choice.
    insert(loaded, module, [rows, width], DType::F32, weight)
}
