//! Every layer under several budgets, on the demo model of this repository.

use sparq_core::{Bits, Sparsity};
use sparq_model::Model;
use sparq_pipeline::{Calibration, Compress, LayerBudget, LayerReport, Recipe, Sampling, Survey, Targets};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/assets/demo-model")
}

fn calibration(model: &Model) -> Calibration {
    let text = std::fs::read_to_string(demo().join("calibration.txt")).expect("the demo calibration text");
    let sampling = Sampling { samples: 8, length: 128, seed: 7 };
    Calibration::from_text(model.tokenizer().expect("a tokenizer"), &text, sampling).expect("text")
}

fn budgets() -> [LayerBudget; 3] {
    let budget = |s, bits| LayerBudget { sparsity: Sparsity::Unstructured(s), bits, rate: None };
    [budget(0.25, Some(Bits::B4)), budget(0.0, None), budget(0.5, Some(Bits::B3))]
}

fn recipe() -> Recipe {
    "s=0.5,q=4,group=64,preset=reference".parse().expect("valid")
}

/// Errors by layer and budget, from the block `first` on.
fn surveyed(model: &Model, first: usize) -> BTreeMap<(String, usize), f64> {
    let mut survey = Survey::new(model, &recipe(), &budgets(), &calibration(model)).expect("possible");
    let mut errors = BTreeMap::new();
    while survey.block() < model.block_count() {
        if survey.block() < first {
            survey.skip().expect("runs");
            continue;
        }
        let take = |budget, linear: &sparq_model::Linear, layer: sparq_core::CompressedLayer, report: LayerReport| {
            assert_eq!(layer.weight.dim(), linear.weight.dim());
            assert!(report.name.starts_with(&format!("model.layers.{}.", report.block)), "{}", report.name);
            errors.insert((report.name, budget), report.relative_output_error);
        };
        survey.solve(&(), take).expect("solved");
    }
    errors
}

#[test]
fn each_layer_comes_out_as_if_it_alone_were_compressed() {
    let model = Model::open(demo()).expect("the demo model opens");
    let errors = surveyed(&model, 0);
    let layers: Vec<&str> = model.linear_names().collect();
    assert_eq!(errors.len(), 2 * layers.len(), "a budget that leaves layers as they are gives none");
    for layer in [layers[0], layers[3], layers[layers.len() - 1]] {
        for (index, budget) in budgets().into_iter().enumerate().filter(|(_, budget)| budget.bits.is_some()) {
            let targets = Targets { include: vec![layer.to_owned()], ..Targets::default() };
            let alone = recipe().with_budget(budget).with_targets(targets);
            let calibration = calibration(&model);
            let compressed = Compress::new(&model).recipe(alone).calibration(&calibration).in_memory();
            let (_, report) = compressed.expect("compressed");
            let expected = report.layers[0].relative_output_error;
            assert_eq!(errors[&(layer.to_owned(), index)], expected, "{layer} {budget:?}");
        }
    }
}

#[test]
fn blocks_that_are_skipped_change_nothing() {
    let model = Model::open(demo()).expect("the demo model opens");
    let last = model.block_count() - 1;
    let mut all = surveyed(&model, 0);
    all.retain(|(name, _), _| name.starts_with(&format!("model.layers.{last}.")));
    assert!(!all.is_empty());
    assert_eq!(surveyed(&model, last), all);
}
