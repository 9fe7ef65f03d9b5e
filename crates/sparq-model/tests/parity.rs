//! Agreement with transformers on the fixtures, and with a plain f64 forward pass.
#![allow(clippy::unwrap_used)]

mod common;

use common::reference::{is_plain, reference};
use common::{difference, expected, logits, model_fixtures, token_sequences};
use ndarray::Array2;
use serde_json::Value;
use sparq_model::{GenerateOptions, Model, Sampler};
use std::ops::ControlFlow;

#[test]
fn logits_agree_with_transformers() {
    for folder in model_fixtures() {
        let (shape, values) = expected(&folder, "logits");
        let wanted = Array2::from_shape_vec((shape[0], shape[1]), values).unwrap().mapv(|v| v as f32);
        let sequences = token_sequences(&folder, "tokens");
        let model = Model::open(&folder).unwrap();
        let got = logits(&model, &sequences);
        let error = difference(got.view(), wanted.view());
        eprintln!("{}: {error:e}", folder.display());
        assert!(error < 1e-4, "{}: {error}", folder.display());

        for variant in ["config.v4.json", "config.v5.json"] {
            let Ok(bytes) = std::fs::read(folder.join(variant)) else { continue };
            let config: Value = serde_json::from_slice(&bytes).unwrap();
            let copy = common::with_config(&folder, |current| *current = config);
            assert_eq!(
                logits(&Model::open(copy.path()).unwrap(), &sequences),
                got,
                "{variant} of {}",
                folder.display()
            );
        }
    }
}

#[test]
fn greedy_continuations_agree_with_transformers() {
    let mut seen = 0;
    for folder in model_fixtures() {
        if !common::has_expected(&folder, "generated") {
            continue;
        }
        seen += 1;
        let text = &token_sequences(&folder, "generated")[0];
        let options = GenerateOptions { max_tokens: text.len() - 8, stop: Vec::new(), sampler: Sampler::Greedy };
        let mut model = Model::open(&folder).unwrap();
        model.make_resident().unwrap();
        let mut observed = Vec::new();
        let generated = model.generate(&text[..8], &options, |token| {
            observed.push(token);
            ControlFlow::Continue(())
        });
        assert_eq!(generated.unwrap(), text[8..], "{}", folder.display());
        assert_eq!(observed, text[8..]);
    }
    assert!(seen > 0);
}

#[test]
fn agrees_with_a_plain_f64_forward_pass() {
    let mut seen = 0;
    for folder in model_fixtures() {
        let model = Model::open(&folder).unwrap();
        if !is_plain(model.config()) {
            continue; // transformers has been asked in f64 as well, when the fixtures were made
        }
        seen += 1;
        let sequences = token_sequences(&folder, "tokens");
        let got = model.hidden(&[&sequences[0][..13], &sequences[1]]).unwrap();
        let first = reference(model.checkpoint(), model.config(), &sequences[0][..13]);
        let second = reference(model.checkpoint(), model.config(), &sequences[1]);
        let wanted: Vec<f64> = first.into_iter().chain(second).flatten().collect();
        for (got, wanted) in got.iter().zip(wanted) {
            assert!((f64::from(*got) - wanted).abs() < 2e-5, "{}: {got} {wanted}", folder.display());
        }
    }
    assert!(seen >= 12);
}
