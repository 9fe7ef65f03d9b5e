use super::conventions::Role;
use super::family::of_model_type;
use super::names::{to_gguf, to_hugging_face};
use crate::Checkpoint;

/// What a tensor of a checkpoint becomes in a GGUF file.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TensorInGguf {
    /// Its name there, such as `blk.3.ffn_down.weight`; the matrices of all experts of a block have one.
    pub name: String,
    /// The name under which a [`Checkpoint`] presents it when the file is read; another than the source's for
    /// checkpoints that have names of an older fashion.
    pub presented: String,
    /// Whether the file has as `[out, in]` what the source has as `[in, out]`. Rows, and blocks in them, are those of
    /// the file.
    pub transposed: bool,
    /// Added to its elements on their way: 1 for the weights of Gemma's norms, else 0; 0 also for those of a GGUF file,
    /// which has added it already.
    pub offset: f32,
}

impl TensorInGguf {
    /// What the tensor of this name becomes; none if the model does not [read](Checkpoint::unused) it, or GGUF has no name
    /// for it, which [`GgufWriter::check`](crate::GgufWriter::check) refuses.
    pub fn of(source: &Checkpoint, name: &str) -> Option<Self> {
        if source.unused().contains(name) {
            return None;
        }
        let own = source.gguf();
        let family = match own {
            Some((file, _)) => file.family,
            None => of_model_type(source.families(), source.config().ok()?["model_type"].as_str()?)?,
        };
        let (gguf_name, role, expert) = to_gguf(family, name)?;
        let (presented, _) = to_hugging_face(family, &gguf_name, u64::MAX)?;
        Some(Self {
            name: gguf_name,
            presented: expert.map_or_else(|| presented.clone(), |expert| presented.replace('*', &expert.to_string())),
            transposed: role == Role::Conv1d && name.ends_with(".weight"),
            offset: if role == Role::Norm && own.is_none() { family.conventions().norm_offset } else { 0.0 },
        })
    }
}
