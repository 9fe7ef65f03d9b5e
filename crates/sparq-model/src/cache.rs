use crate::ModelConfig;
use ndarray::ArrayView2;

/// Keys (after rotary embedding) and values of the tokens one sequence has seen, in every block.
///
/// Made by [`Model::new_cache`](crate::Model::new_cache), filled by [`Model::extend`](crate::Model::extend). Cloning
/// copies everything: it is how several continuations of one prompt are scored without running the prompt again.
/// A token takes `8 · kv_heads · head_dim · layers` bytes.
#[derive(Debug, Clone)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
    /// What was seen, where rotary frequencies depend on the length: keys may have to be made again.
    pub(crate) tokens: Vec<u32>,
    /// The frequencies of the keys, see [`ModelConfig::rope_regime`].
    pub(crate) regime: (usize, usize),
}

/// Keys and values of one sequence in one block.
#[derive(Debug, Clone, Default)]
pub(crate) struct LayerCache {
    width: usize,
    /// `[len, width]` each, row-major.
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl KvCache {
    pub(crate) fn new(config: &ModelConfig) -> Self {
        let layer = LayerCache { width: config.kv_width(), ..LayerCache::default() };
        Self { layers: vec![layer; config.layers], tokens: Vec::new(), regime: (0, 0) }
    }

    /// Number of tokens seen.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, LayerCache::len)
    }

    /// Whether no token has been seen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all but the first `len` tokens; nothing happens if there are no more than that.
    pub fn truncate(&mut self, len: usize) {
        for layer in &mut self.layers {
            layer.truncate(len);
        }
        self.tokens.truncate(len);
    }
}

impl LayerCache {
    /// Number of tokens seen.
    pub(crate) fn len(&self) -> usize {
        self.keys.len().checked_div(self.width).unwrap_or(0)
    }

    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Appends rows `[tokens, width]`.
    pub(crate) fn append(&mut self, keys: ArrayView2<'_, f32>, values: ArrayView2<'_, f32>) {
        for (to, from) in [(&mut self.keys, keys), (&mut self.values, values)] {
            // Longer runs are prompts, after which little follows; single tokens come in great number.
            if from.nrows() > 1 {
                to.reserve_exact(from.len());
            }
            match from.as_slice() {
                Some(from) => to.extend_from_slice(from),
                None => to.extend(from.iter()),
            }
        }
    }

    /// Keys and values, `[len, width]` each.
    pub(crate) fn views(&self) -> (ArrayView2<'_, f32>, ArrayView2<'_, f32>) {
        let shape = (self.len(), self.width);
        let view = |data| ArrayView2::from_shape(shape, data).unwrap_or_else(|_| ndarray::aview2(&[[]; 0]));
        (view(&self.keys), view(&self.values))
    }

    fn truncate(&mut self, len: usize) {
        self.keys.truncate(len.saturating_mul(self.width));
        self.values.truncate(len.saturating_mul(self.width));
    }
}
