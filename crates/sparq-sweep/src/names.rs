/// The name of a layer within its block: what follows the block's number in the full module name.
///
/// ```
/// assert_eq!(sparq_sweep::name_in_block("model.layers.3.mlp.experts.3.up_proj", 3), "mlp.experts.3.up_proj");
/// assert_eq!(sparq_sweep::name_in_block("lm_head", 0), "lm_head"); // is in no block
/// ```
pub fn name_in_block(layer: &str, block: usize) -> &str {
    let number = format!(".{block}.");
    layer.find(&number).map_or(layer, |at| &layer[at + number.len()..])
}
