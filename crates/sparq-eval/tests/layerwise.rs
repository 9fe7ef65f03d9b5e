//! Errors of layers and blocks on the demo model of this repository.

use sparq_eval::layerwise_errors;
use sparq_model::Model;
use std::path::Path;
use std::sync::Arc;

/// The demo model with every weight moved by a share of itself that changes from weight to weight.
fn moved(model: &Model, share: f32) -> Model {
    let blocks = (0..model.block_count()).map(|index| {
        let mut block = (*model.block(index).expect("readable")).clone();
        for id in 0..block.linears().len() {
            let weight = &mut block.linear_mut(id).weight;
            weight.iter_mut().enumerate().for_each(|(at, value)| *value *= 1.0 + share * ((at % 7) as f32 - 3.0));
        }
        Arc::new(block)
    });
    model.with_blocks(blocks.collect()).expect("fits")
}

#[test]
fn errors_are_zero_for_the_base_and_grow_with_damage() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/demo-model");
    let model = Model::open(demo).expect("the demo model");
    let sequences = vec![(3..40).collect::<Vec<u32>>(), vec![7; 9]];
    let all = |share| {
        let errors = layerwise_errors(&model, &moved(&model, share), &sequences).expect("runs");
        [
            errors.output,
            errors.output_by_token,
            errors.block,
            errors.block_by_token,
            errors.normed_by_token,
            errors.drift_by_token,
            errors.last_by_token,
        ]
    };
    assert_eq!(all(0.0), [0.0; 7]);
    for (small, large) in all(0.01).into_iter().zip(all(0.02)) {
        assert!(0.0 < small && 3.0 * small < large && large < 5.0 * small, "{small} {large}: errors are quadratic");
    }
    assert!(layerwise_errors(&model, &model, &[]).is_err());
}
