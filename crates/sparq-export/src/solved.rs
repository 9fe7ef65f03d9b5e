use crate::{Error, Result};
use ndarray::{Array2, ArrayD};
use serde::{Deserialize, Serialize};
use sparq_core::{CodeLayout, Codes, CompressedLayer, QuantScheme, Quantized, Stepped};
use sparq_tensor::TensorPart;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// What is known of a compressed layer before it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SolvedShape {
    /// Full module name, such as `model.layers.3.mlp.down_proj`.
    pub name: String,
    /// `[out, in]`.
    pub shape: [usize; 2],
    /// The form of its codes; none if the layer was only pruned.
    pub codes: Option<CodeLayout>,
    /// Whether weights were removed.
    pub pruned: bool,
    /// Whether channels were visited in the order of their activity. Groups are static: they stay runs of neighbouring
    /// channels, and files do not differ.
    pub act_order: bool,
    /// Where the checkpoint has the weight, if not as the tensor `{name}.weight`, `[out, in]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<TensorPart>,
}

impl SolvedShape {
    /// The announcement of `layer`.
    pub fn of(name: impl Into<String>, layer: &CompressedLayer, act_order: bool) -> Self {
        let (rows, width) = layer.weight.dim();
        Self {
            name: name.into(),
            shape: [rows, width],
            codes: layer.codes.as_ref().map(Codes::layout),
            pruned: layer.mask.is_some(),
            act_order,
            part: None,
        }
    }

    /// The grid of its codes, if they have a fixed width.
    pub fn scheme(&self) -> Option<QuantScheme> {
        match self.codes {
            Some(CodeLayout::Grid(scheme)) => Some(scheme),
            _ => None,
        }
    }

    /// Says where the checkpoint has the weight.
    pub fn stored(mut self, part: &TensorPart) -> Self {
        let is_plain = part.is_whole(self.shape) && part.tensor.strip_suffix(".weight") == Some(&self.name);
        self.part = (!is_plain).then(|| part.clone());
        self
    }

    /// Name of the tensor that holds the layer's weight in a checkpoint.
    pub fn weight_name(&self) -> String {
        self.part.as_ref().map_or_else(|| format!("{}.weight", self.name), |part| part.tensor.clone())
    }

    /// Shape of that tensor.
    pub fn stored_shape(&self) -> Vec<usize> {
        self.part.as_ref().map_or_else(|| self.shape.to_vec(), |part| part.shape.clone())
    }

    /// A weight, `[out, in]`, as the tensor has it, of which this layer must be all.
    pub(crate) fn as_stored(&self, weight: Array2<f32>) -> ArrayD<f32> {
        let Some(part) = &self.part else { return weight.into_dyn() };
        if part.transposed {
            return weight.reversed_axes().as_standard_layout().into_owned().into_dyn();
        }
        let weight = weight.into_dyn();
        match weight.to_shape(part.shape.as_slice()) {
            Ok(stored) => stored.into_owned(),
            Err(_) => weight, // `check` has compared the numbers of elements
        }
    }

    fn refuse(&self, what: &'static str, found: String, expected: String) -> Result<()> {
        Err(Error::Inconsistent { layer: self.name.clone(), what, found, expected })
    }

    fn check_shape(&self, what: &'static str, found: (usize, usize), expected: (usize, usize)) -> Result<()> {
        if found == expected { Ok(()) } else { self.refuse(what, format!("{found:?}"), format!("{expected:?}")) }
    }

    /// Refuses a layer that is not what was announced, or whose parts do not fit each other.
    ///
    /// # Errors
    /// [`Error::Inconsistent`].
    pub fn check(&self, layer: &CompressedLayer) -> Result<()> {
        let [rows, width] = self.shape;
        self.check_shape("the shape of its weight", layer.weight.dim(), (rows, width))?;
        if let Some(mask) = &layer.mask {
            self.check_shape("the shape of its mask", mask.dim(), (rows, width))?;
        }
        let layout = layer.codes.as_ref().map(Codes::layout);
        if layout != self.codes {
            return self.refuse("the form of its codes", format!("{layout:?}"), format!("{:?}", self.codes));
        }
        layer.codes.as_ref().map_or(Ok(()), |codes| self.check_codes(codes))
    }

    /// Refuses codes and what goes with them that do not fit the announced shape, their form or each other.
    ///
    /// # Errors
    /// [`Error::Inconsistent`].
    pub fn check_codes(&self, codes: &Codes) -> Result<()> {
        match codes {
            Codes::Grid(quantized) => self.check_grid(quantized),
            Codes::Steps(stepped) => self.check_steps(stepped),
        }
    }

    fn check_steps(&self, stepped: &Stepped) -> Result<()> {
        let [rows, width] = self.shape;
        let found = [(stepped.codes.dim()), (stepped.rows.len(), stepped.columns.len())];
        if found != [(rows, width); 2] {
            return self.refuse(
                "the shapes of its codes and steps",
                format!("{found:?}"),
                format!("{:?}", (rows, width)),
            );
        }
        let mut factors = stepped.rows.iter().chain(&stepped.columns);
        match factors.find(|&&factor| Stepped::storable(factor) != factor) {
            Some(factor) => self.refuse("a step or a factor", factor.to_string(), "a positive bfloat16".into()),
            None => Ok(()),
        }
    }

    fn check_grid(&self, quantized: &Quantized) -> Result<()> {
        let [rows, width] = self.shape;
        let groups = quantized.scheme.granularity.groups(width);
        self.check_shape("the shape of its codes", quantized.codes.dim(), (rows, width))?;
        self.check_shape("the shape of its grids", quantized.grids.dim(), (rows, groups))?;
        let bits = quantized.scheme.bits;
        let largest = bits.max_code();
        if let Some(code) =
            quantized.codes.iter().chain(quantized.grids.iter().map(|grid| &grid.zero)).find(|&&code| code > largest)
        {
            return self.refuse("a code", code.to_string(), format!("at most {largest}"));
        }
        if let Some(grid) = quantized.grids.iter().find(|grid| !(grid.scale > 0.0 && grid.scale.is_finite())) {
            return self.refuse("a scale", grid.scale.to_string(), "positive and finite".into());
        }
        let fixed = quantized.scheme.symmetric.then_some(bits.midpoint());
        if let Some(grid) = quantized.grids.iter().find(|grid| fixed.is_some_and(|fixed| fixed != grid.zero)) {
            return self.refuse(
                "a zero point of its symmetric grid",
                grid.zero.to_string(),
                bits.midpoint().to_string(),
            );
        }
        Ok(())
    }
}

/// Compressed layers by full module name, read one at a time.
pub trait SolvedLayers: fmt::Debug + Sync {
    /// Every compressed layer, in model order.
    fn layers(&self) -> &[SolvedShape];

    /// Reads one layer.
    ///
    /// # Errors
    /// [`Error::UnknownLayer`], and what reading it gives.
    fn layer(&self, name: &str) -> Result<CompressedLayer>;

    /// A safetensors file of tensors that belong to no compressed layer and take the place of the source's.
    fn tensors(&self) -> Option<PathBuf> {
        None
    }
}

/// Compressed layers in memory.
///
/// See the [crate example](crate).
#[derive(Debug, Clone, Default)]
pub struct SolvedInMemory {
    shapes: Vec<SolvedShape>,
    layers: BTreeMap<String, CompressedLayer>,
}

impl SolvedInMemory {
    /// From layers by full module name, in model order.
    ///
    /// # Errors
    /// [`Error::DuplicateLayer`]; [`Error::Inconsistent`] if a layer's parts do not fit each other.
    pub fn new(layers: impl IntoIterator<Item = (String, CompressedLayer)>) -> Result<Self> {
        let mut solved = Self::default();
        for (name, layer) in layers {
            solved.push(name, layer)?;
        }
        Ok(solved)
    }

    /// Adds a layer behind the others.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn push(&mut self, name: impl Into<String>, layer: CompressedLayer) -> Result<()> {
        self.push_shape(SolvedShape::of(name, &layer, false), layer)
    }

    /// As [`push`](Self::push), for a layer whose weight is `part` of a tensor.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn push_part(&mut self, name: impl Into<String>, layer: CompressedLayer, part: TensorPart) -> Result<()> {
        self.push_shape(SolvedShape::of(name, &layer, false).stored(&part), layer)
    }

    fn push_shape(&mut self, shape: SolvedShape, layer: CompressedLayer) -> Result<()> {
        shape.check(&layer)?;
        if self.layers.contains_key(&shape.name) {
            return Err(Error::DuplicateLayer { layer: shape.name });
        }
        self.layers.insert(shape.name.clone(), layer);
        self.shapes.push(shape);
        Ok(())
    }
}

impl SolvedLayers for SolvedInMemory {
    fn layers(&self) -> &[SolvedShape] {
        &self.shapes
    }

    fn layer(&self, name: &str) -> Result<CompressedLayer> {
        self.layers.get(name).cloned().ok_or_else(|| Error::UnknownLayer { layer: name.to_owned() })
    }
}
