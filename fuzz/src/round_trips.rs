use ndarray::Array2;
use sparq_core::{Bits, CompressedLayer, Granularity, Grid, Mask, QuantScheme, Quantized, ScaleType, SolveReport};
use sparq_export::{SolutionWriter, SolvedLayers, SolvedShape};
use sparq_tensor::codec::compressed_tensors::{WordLayout, pack_weight, pack_zero_points, unpack_weight, unpack_zero_points};
use sparq_tensor::codec::gptq::{GptqVersion, pack_qweight, pack_qzeros, unpack_qweight, unpack_qzeros};

/// Codes through every packer and back. The first bytes choose shape, bits and grid, the rest are the codes.
pub fn packing(data: &[u8]) {
    let [rows, width, bits, group, flags, rest @ ..] = data else { return };
    let (rows, width, bits) = (usize::from(rows % 9), usize::from(width % 80), 2 + bits % 7);
    let mask = ((1_u16 << bits) - 1) as u8;
    let mut bytes = rest.iter().copied().cycle().take(if rest.is_empty() { 0 } else { usize::MAX });
    let codes = Array2::from_shape_fn((rows, width), |_| bytes.next().unwrap_or(0) & mask);

    let wide = u32::from(bits);
    let packed = pack_weight(codes.view(), wide);
    assert_eq!(unpack_weight(packed.view(), wide, width, WordLayout::Dense).as_ref(), Some(&codes));
    if rows > 0 {
        let packed = pack_zero_points(codes.view(), wide);
        assert_eq!(unpack_zero_points(packed.view(), wide, rows, WordLayout::Dense).as_ref(), Some(&codes));
    }
    if matches!(bits, 2 | 3 | 4 | 8) && rows > 0 {
        let packed = pack_qweight(codes.view(), wide);
        assert_eq!(unpack_qweight(packed.view(), wide, width).as_ref(), Some(&codes));
        for version in [GptqVersion::V1, GptqVersion::V2] {
            if let Some(packed) = pack_qzeros(codes.view(), wide, version) {
                assert_eq!(unpack_qzeros(packed.view(), wide, rows, version).as_ref(), Some(&codes));
            }
        }
    }
    if rows > 0 && width > 0 && flags & 8 != 0 {
        stored(codes, bits, usize::from(group % 16) + 1, *flags);
    }
}

/// A layer through a solution on disk and back.
fn stored(codes: Array2<u8>, bits: u8, group: usize, flags: u8) {
    let (rows, width) = codes.dim();
    let mut scheme = QuantScheme::new(Bits::new(bits).expect("2 to 8")).granularity(Granularity::Group(group));
    scheme.scale_type = [ScaleType::F16, ScaleType::Bf16, ScaleType::F32][usize::from(flags % 3)];
    scheme.symmetric = flags & 4 != 0;
    let groups = scheme.granularity.groups(width);
    let middle = scheme.bits.midpoint();
    let zero = |row: usize, group: usize| if scheme.symmetric { middle } else { codes[[row, group.min(width - 1)]] };
    let grids = Array2::from_shape_fn((rows, groups), |(row, group)| Grid {
        scale: scheme.scale_type.round(0.1 + (row * 7 + group) as f32),
        zero: zero(row, group),
    });
    let quantized = Quantized { scheme, codes, grids };
    let mask = (flags & 16 != 0).then(|| Mask::new(quantized.codes.mapv(|code| code & 1 == 0)));
    let layer =
        CompressedLayer { weight: quantized.dequantize(), mask, quantized: Some(quantized), report: SolveReport::default() };
    let directory = crate::scratch::path("stored/solution.json");
    let mut writer = SolutionWriter::create(directory.parent().expect("a directory")).expect("created");
    writer.add(SolvedShape::of("layer", &layer, false), &layer);
    writer.commit("block.safetensors").expect("written");
    let solution = writer.finish(Default::default()).expect("read back");
    assert_eq!(solution.layer("layer").expect("read back"), layer);
}
