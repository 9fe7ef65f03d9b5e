/// What a layer is called within its block: what follows the block's number in its name.
pub(crate) fn within_block(layer: &str, block: usize) -> &str {
    let number = format!(".{block}.");
    layer.find(&number).map_or(layer, |at| &layer[at + number.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_on_behind_the_number() {
        assert_eq!(within_block("model.layers.3.mlp.experts.3.up_proj", 3), "mlp.experts.3.up_proj");
        assert_eq!(within_block("transformer.h.10.attn.c_proj", 10), "attn.c_proj");
        assert_eq!(within_block("lm_head", 0), "lm_head");
    }
}
