use crate::{Error, Result, SolvedLayers, SolvedShape, float_type};
use ndarray::{Array2, Zip};
use sparq_core::{
    Bits, CodeLayout, Codes, CompressedLayer, Granularity, Grid, QuantScheme, Quantized, SolveReport, Stepped,
};
use sparq_tensor::Checkpoint;
use sparq_tensor::codec::coded::{CodedForm, DecodedWeight};

/// The layers of a [`Coded`](crate::Coded) checkpoint, with the codes they have: what other formats are made of without a
/// solution. The checkpoint itself is the source of everything else.
#[derive(Debug)]
pub struct CodedLayers<'a> {
    checkpoint: &'a Checkpoint,
    shapes: Vec<SolvedShape>,
}

impl<'a> CodedLayers<'a> {
    /// Of a checkpoint; none if no weight of it is coded.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] for a grid that does not exist.
    pub fn new(checkpoint: &'a Checkpoint) -> Result<Option<Self>> {
        let mut shapes = Vec::new();
        for info in checkpoint.tensors() {
            let (Some(form), &[rows, width]) = (checkpoint.coded_form(&info.name), info.shape.as_slice()) else {
                continue;
            };
            let name = info.name.strip_suffix(".weight").unwrap_or(&info.name).to_owned();
            let codes = Some(layout(&name, form)?);
            shapes.push(SolvedShape { name, shape: [rows, width], codes, pruned: false, act_order: false, part: None });
        }
        Ok((!shapes.is_empty()).then_some(Self { checkpoint, shapes }))
    }
}

fn layout(layer: &str, form: CodedForm) -> Result<CodeLayout> {
    let CodedForm::Groups { bits, group_size, scale_type, asymmetric } = form else { return Ok(CodeLayout::Steps) };
    let refuse = |what, found: String, expected: &str| Error::Inconsistent {
        layer: layer.to_owned(),
        what,
        found,
        expected: expected.to_owned(),
    };
    let found = scale_type.to_string();
    let scale_type = float_type::scale_type(scale_type)
        .ok_or_else(|| refuse("the type of its scales", found, "F16, BF16 or F32"))?;
    let bits = Bits::new(bits).map_err(|_| refuse("its width", bits.to_string(), "2 to 8 bits"))?;
    let granularity = group_size.map_or(Granularity::Channel, Granularity::Group);
    Ok(CodeLayout::Grid(QuantScheme { bits, granularity, symmetric: !asymmetric, scale_type }))
}

/// Codes of fixed width again, which were counted from their zero points; none if they do not fit their grid.
fn of_grid(
    scheme: QuantScheme,
    codes: &Array2<i16>,
    scales: &Array2<f32>,
    zeros: Option<Array2<i16>>,
) -> Option<Quantized> {
    let (largest, middle) = (i16::from(scheme.bits.max_code()), i16::from(scheme.bits.midpoint()));
    let zeros = zeros.unwrap_or_else(|| scales.mapv(|_| middle));
    let fits = |code: i16| u8::try_from(code).ok().filter(|&code| i16::from(code) <= largest);
    let size = scheme.granularity.size(codes.ncols());
    let unsigned =
        codes.indexed_iter().map(|((row, column), &code)| fits(code.checked_add(*zeros.get([row, column / size])?)?));
    let unsigned = Array2::from_shape_vec(codes.dim(), unsigned.collect::<Option<Vec<u8>>>()?).ok()?;
    let zeros =
        Array2::from_shape_vec(zeros.dim(), zeros.iter().map(|&zero| fits(zero)).collect::<Option<_>>()?).ok()?;
    if zeros.dim() != scales.dim() {
        return None;
    }
    let grids = Zip::from(scales).and(&zeros).map_collect(|&scale, &zero| Grid { scale, zero });
    Some(Quantized { scheme, codes: unsigned, grids })
}

impl SolvedLayers for CodedLayers<'_> {
    fn layers(&self) -> &[SolvedShape] {
        &self.shapes
    }

    fn layer(&self, name: &str) -> Result<CompressedLayer> {
        let unknown = || Error::UnknownLayer { layer: name.to_owned() };
        let shape = self.shapes.iter().find(|shape| shape.name == name).ok_or_else(unknown)?;
        let decoded = self.checkpoint.read_coded(&shape.weight_name())?.ok_or_else(unknown)?;
        let codes = match (decoded, shape.scheme()) {
            (DecodedWeight::Steps { codes, rows, steps }, _) => Codes::Steps(Stepped { codes, rows, columns: steps }),
            (DecodedWeight::Groups { codes, scales, zeros }, scheme) => {
                let found = scheme.and_then(|scheme| of_grid(scheme, &codes, &scales, zeros));
                Codes::Grid(found.ok_or_else(|| Error::Inconsistent {
                    layer: name.to_owned(),
                    what: "a code or a zero point",
                    found: "one off its grid".into(),
                    expected: format!("codes of {scheme:?}"),
                })?)
            }
        };
        let (weight, report) = (codes.dequantize(), SolveReport::default());
        let layer = CompressedLayer { weight, mask: None, codes: Some(codes), report };
        shape.check(&layer)?;
        Ok(layer)
    }
}
