//! Ways of running a model that must give the same.
#![allow(clippy::unwrap_used)]

mod common;

use common::{as_slices, difference, llama, model_fixtures, token_sequences};
use ndarray::{Array2, Axis, concatenate, s};
use sparq_model::{BatchLayout, Error, ExpertTokens, Model, Precision, RopeScaling};
use std::sync::Arc;

#[test]
fn a_cache_changes_nothing() {
    for folder in model_fixtures() {
        let model = Model::open(&folder).unwrap();
        let sequences = token_sequences(&folder, "tokens");
        let wanted = model.hidden(&as_slices(&sequences)).unwrap();
        let (a, b) = (&sequences[0], &sequences[1]);
        let mut caches = vec![model.new_cache(); 2];
        let length = a.len();
        // Uneven steps: a long one, none at all, single tokens.
        let first = model.extend(&mut caches, &[&a[..9], &b[..0]]).unwrap();
        let second = model.extend(&mut caches, &[&a[9..10], &b[..1]]).unwrap();
        let third = model.extend(&mut caches, &[&a[10..], &b[1..]]).unwrap();
        let of_a = concatenate![Axis(0), first, second.slice(s![..1, ..]), third.slice(s![..length - 10, ..])];
        let of_b = concatenate![Axis(0), second.slice(s![1.., ..]), third.slice(s![length - 10.., ..])];
        if varies(&model) {
            // What was computed while the sequence was shorter had other frequencies, as it should.
            let (a, b) = (of_a.slice(s![10.., ..]), of_b.slice(s![1.., ..]));
            assert!(difference(a, wanted.slice(s![10..length, ..])) < 1e-5, "{}", folder.display());
            assert!(difference(b, wanted.slice(s![length + 1.., ..])) < 1e-5, "{}", folder.display());
            assert!(difference(of_a.slice(s![..9, ..]), wanted.slice(s![..9, ..])) > 1e-3, "{}", folder.display());
        } else {
            let got = concatenate![Axis(0), of_a, of_b];
            assert!(difference(got.view(), wanted.view()) < 1e-5, "{}", folder.display());
        }

        // Forgetting and repeating gives the same as before.
        caches[1].truncate(5);
        assert_eq!(caches[1].len(), 5);
        let again = model.extend(&mut caches[1..], &[&b[5..]]).unwrap();
        assert!(difference(again.view(), wanted.slice(s![length + 5.., ..])) < 1e-5);
    }
}

/// Whether rotary frequencies depend on the length of the sequence.
fn varies(model: &Model) -> bool {
    let scaling = model.config().rope.as_ref().map(|rope| &rope.scaling);
    matches!(scaling, Some(RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. }))
}

#[test]
fn a_failed_extension_leaves_the_caches_alone() {
    let model = Model::open(llama()).unwrap();
    let mut caches = vec![model.new_cache(); 2];
    model.extend(&mut caches, &[&[1, 2], &[3]]).unwrap();
    assert!(matches!(model.extend(&mut caches, &[&[1], &[u32::MAX]]), Err(Error::TokenOutOfVocabulary { .. })));
    assert!(matches!(model.extend(&mut caches, &[&[1]]), Err(Error::Shape { .. })));
    assert_eq!((caches[0].len(), caches[1].len()), (2, 1));
}

#[test]
fn sequences_do_not_see_each_other() {
    for folder in model_fixtures() {
        let model = Model::open(&folder).unwrap();
        let sequences = token_sequences(&folder, "tokens");
        let batch: [&[u32]; 4] = [&sequences[0], &sequences[1][..7], &[], &sequences[1][3..4]];
        let together = model.hidden(&batch).unwrap();
        let mut row = 0;
        for tokens in batch {
            let alone = model.hidden(&[tokens]).unwrap();
            assert_eq!(alone.nrows(), tokens.len());
            if !tokens.is_empty() {
                let part = together.slice(s![row..row + tokens.len(), ..]);
                assert!(difference(part, alone.view()) < 1e-5, "{}", folder.display());
            }
            row += tokens.len();
        }
    }
    let model = Model::open(llama()).unwrap();
    assert_eq!(model.hidden(&[]).unwrap().dim(), (0, model.config().hidden_size));
}

#[test]
fn batches_beyond_one_group_agree_with_single_sequences() {
    let model = Model::open(llama()).unwrap();
    let vocabulary = model.config().vocab_size;
    let sequences: Vec<Vec<u32>> = [1500, 700, 2100, 3, 2045, 1]
        .iter()
        .map(|length| (0..*length).map(|i| (i * i % 31 * 7 % vocabulary) as u32).collect())
        .collect();
    let together = model.hidden(&as_slices(&sequences)).unwrap();
    let alone: Vec<_> = sequences.iter().map(|tokens| model.hidden(&[tokens]).unwrap()).collect();
    let alone = concatenate(Axis(0), &alone.iter().map(|hidden| hidden.view()).collect::<Vec<_>>()).unwrap();
    assert!(difference(together.view(), alone.view()) < 2e-5);
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let folders = model_fixtures().into_iter().chain(common::shared("demo-model"));
    for folder in folders {
        let model = Model::open(&folder).unwrap();
        let vocabulary = model.config().vocab_size;
        let length = if model.config().learned_positions { model.config().max_positions } else { 400 };
        let long: Vec<u32> = (0..length).map(|i| (i * 37 % vocabulary) as u32).collect();
        let run = |threads| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let hidden = model.hidden(&[&long, &long[..length / 5], &long[5..6]]).unwrap();
                let mut caches = vec![model.new_cache(); 3];
                model.extend(&mut caches, &[&long[..length / 8], &long[..3], &long[..length / 4]]).unwrap();
                let step = model.extend(&mut caches, &[&long[..1], &long[1..2], &long[2..3]]).unwrap();
                (model.logits(hidden.view()).unwrap(), step)
            })
        };
        let one = run(1);
        assert_eq!(one, run(2), "{}", folder.display());
        assert_eq!(one, run(3), "{}", folder.display());
    }
}

#[test]
fn bfloat16_products_are_near_and_the_same_for_any_number_of_threads() {
    for folder in model_fixtures() {
        let exact = Model::open(&folder).unwrap();
        let rounded = exact.clone().with_precision(Precision::Bf16);
        let vocabulary = exact.config().vocab_size;
        let length = if exact.config().learned_positions { exact.config().max_positions } else { 60 };
        let tokens: Vec<u32> = (0..length).map(|i| (i * 37 % vocabulary) as u32).collect();
        let run = |model: &Model, threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| model.hidden(&[&tokens, &tokens[..20]]).unwrap())
        };
        let hidden = run(&rounded, 1);
        assert_eq!(hidden, run(&rounded, 3), "{}", folder.display());
        let off = difference(hidden.view(), run(&exact, 2).view());
        assert!(off > 0.0 && off < 0.1, "{}: {off}", folder.display());
    }
}

#[test]
fn walking_the_stages_is_the_forward_pass() {
    for folder in model_fixtures() {
        let model = Model::open(&folder).unwrap();
        let sequences = token_sequences(&folder, "tokens");
        let wanted = model.hidden(&as_slices(&sequences)).unwrap();
        let layout = BatchLayout::new(&[sequences[0].len(), sequences[1].len()]);
        let mut residual = model.embed(&sequences.concat(), &layout).unwrap();
        for index in 0..model.block_count() {
            let mut block = model.load_block(index).unwrap();
            let mut state = block.begin(residual, layout.clone()).unwrap();
            for stage in 0..block.stages() {
                let input = block.stage_input(stage, &mut state).unwrap().to_owned();
                assert_eq!(block.stage_input(stage, &mut state).unwrap(), input, "asked for twice");
                for id in block.stage_linears(stage).to_vec() {
                    let linear = block.linear_mut(id);
                    assert_eq!(linear.in_features(), input.ncols());
                    linear.weight = linear.weight.clone(); // as compression would
                }
                block.apply(stage, &mut state).unwrap();
            }
            residual = block.end(state);
        }
        assert_eq!(model.finish(residual), wanted, "{}", folder.display());
    }
}

#[test]
fn stages_out_of_order_and_wrong_shapes_are_errors() {
    let model = Model::open(llama()).unwrap();
    let mut block = model.load_block(0).unwrap();
    let residual = model.embed(&[1, 2, 3], &BatchLayout::new(&[3])).unwrap();
    assert!(matches!(block.begin(residual.clone(), BatchLayout::new(&[2])), Err(Error::Shape { .. })));
    let mut state = block.begin(residual, BatchLayout::new(&[3])).unwrap();
    assert!(matches!(block.stage_input(1, &mut state), Err(Error::StageOrder { expected: 0, got: 1, .. })));
    block.apply(0, &mut state).unwrap();
    assert!(matches!(block.apply(0, &mut state), Err(Error::StageOrder { expected: 1, got: 0, .. })));
    let output = block.stage_linears(1)[0];
    block.linear_mut(output).weight = Array2::zeros((1, 1));
    assert!(matches!(block.apply(1, &mut state), Err(Error::Shape { .. })));
    assert!(matches!(model.load_block(99), Err(Error::BlockOutOfRange { index: 99, .. })));
}

#[test]
fn other_blocks_make_another_model() {
    let mut model = Model::open(llama()).unwrap();
    let tokens: &[u32] = &[1, 2, 3];
    let before = model.hidden(&[tokens]).unwrap();
    model.make_resident().unwrap();
    assert!(model.is_resident());
    assert_eq!(model.hidden(&[tokens]).unwrap(), before);

    let mut blocks: Vec<_> = (0..model.block_count()).map(|index| model.block(index).unwrap()).collect();
    Arc::make_mut(&mut blocks[1]).linear_mut(0).weight.fill(0.0);
    let changed = model.with_blocks(blocks.clone()).unwrap();
    assert_ne!(changed.hidden(&[tokens]).unwrap(), before);
    assert_eq!(model.hidden(&[tokens]).unwrap(), before);

    blocks.swap(0, 1);
    assert!(matches!(model.with_blocks(blocks.clone()), Err(Error::Blocks { .. })));
    blocks.swap(0, 1);
    Arc::make_mut(&mut blocks[0]).linear_mut(0).weight = Array2::zeros((1, 1));
    assert!(matches!(model.with_blocks(blocks.clone()), Err(Error::Shape { .. })));
    blocks.pop();
    assert!(matches!(model.with_blocks(blocks), Err(Error::Blocks { .. })));
}

#[test]
fn counts_and_estimates_are_those_of_the_tensors() {
    for folder in model_fixtures() {
        let model = Model::open(&folder).unwrap();
        let elements: usize = model.checkpoint().tensors().map(sparq_tensor::TensorInfo::elements).sum();
        assert_eq!(model.parameters(), elements, "{}", folder.display());
        let block = model.load_block(0).unwrap();
        let estimate = model.memory_estimate();
        assert!(estimate.block >= 4 * block.parameters() as u64);
        for index in 0..model.block_count() {
            for linear in model.block_plan(index).unwrap().linears() {
                let stored = model.checkpoint().get(&linear.stored.tensor).unwrap();
                assert_eq!(stored.shape, linear.stored.shape);
                assert!(linear.stored.holds([linear.out_features, linear.in_features]));
            }
        }
        let names: std::collections::BTreeSet<&str> = model.linear_names().collect();
        assert_eq!(names.len(), model.linear_names().count(), "every name once");
    }
}

#[test]
fn embeddings_come_back_after_release() {
    let model = Model::open(llama()).unwrap();
    let layout = BatchLayout::new(&[2]);
    let before = model.embed(&[1, 2], &layout).unwrap();
    model.release_embeddings();
    assert_eq!(model.embed(&[1, 2], &layout).unwrap(), before);
}

/// `mixtral` and `qwen3_moe` in both layouts.
fn mixtures() -> Vec<Model> {
    let models = model_fixtures().into_iter().map(|folder| Model::open(folder).unwrap());
    let models: Vec<_> = models.filter(|model| model.config().experts.is_some()).collect();
    assert_eq!(models.len(), 4);
    models
}

#[test]
fn each_token_goes_to_as_many_experts_as_the_config_says() {
    for model in mixtures() {
        let experts = model.config().experts.unwrap();
        let tokens: Vec<u32> = (0..40).map(|i| i * i % 61).collect();
        let layout = BatchLayout::new(&[40]);
        let block = model.load_block(1).unwrap();
        let residual = model.embed(&tokens, &layout).unwrap();
        let mut state = block.begin(residual, layout).unwrap();
        let mut rows = 0;
        for stage in 0..block.stages() {
            let linear = &block.linears()[block.stage_linears(stage)[0]];
            let is_expert = linear.name.contains("experts");
            let all = block.calibration_input(stage, &mut state, ExpertTokens::All).unwrap().to_owned();
            assert_eq!(all.dim(), (40, linear.in_features()), "every token, if that is asked for");
            let input = block.stage_input(stage, &mut state).unwrap().to_owned();
            let routed = block.calibration_input(stage, &mut state, ExpertTokens::Routed).unwrap();
            assert_eq!(routed, input);
            let count = input.nrows();
            if is_expert {
                rows += count;
                for row in input.rows() {
                    assert!(all.rows().into_iter().any(|other| difference_of(row, other) < 1e-5));
                }
            }
            block.apply(stage, &mut state).unwrap();
        }
        assert_eq!(rows, 2 * 40 * experts.per_token, "two stages for each expert");
    }
}

fn difference_of(a: ndarray::ArrayView1<'_, f32>, b: ndarray::ArrayView1<'_, f32>) -> f32 {
    a.iter().zip(b).fold(0.0, |worst, (a, b)| worst.max((a - b).abs()))
}

#[test]
fn sequences_beyond_learned_positions_are_refused() {
    let folder = model_fixtures().into_iter().find(|folder| folder.ends_with("gpt2")).unwrap();
    let model = Model::open(folder).unwrap();
    let tokens = vec![1; 65];
    assert!(model.hidden(&[&tokens[..64]]).is_ok());
    let error = model.hidden(&[&tokens]).unwrap_err();
    assert!(matches!(error, Error::PositionOutOfRange { position: 64, positions: 64 }), "{error}");
    assert!(matches!(model.embed(&tokens, &BatchLayout::new(&[3])), Err(Error::Shape { .. })));
}

#[test]
fn weights_that_stay_as_they_are_stored_change_nothing() {
    for folder in model_fixtures() {
        let mut resident = Model::open(&folder).unwrap();
        let mut stored = resident.clone();
        resident.make_resident().unwrap();
        stored.run_as_stored().unwrap();
        let sequences = token_sequences(&folder, "tokens");
        // Few tokens are multiplied with a tile of rows at a time, many with larger parts of a matrix.
        let many = vec![sequences[0].as_slice(); 1 + 300 / sequences[0].len()];
        for batch in [&as_slices(&sequences)[..], &many] {
            let logits = |model: &Model| model.logits(model.hidden(batch).unwrap().view()).unwrap();
            assert!(difference(logits(&stored).view(), logits(&resident).view()) < 1e-6, "{}", folder.display());
        }
        let next = |model: &Model| {
            let mut cache = vec![model.new_cache()];
            model.extend(&mut cache, &[&sequences[0][..5]]).unwrap();
            model.extend(&mut cache, &[&sequences[0][5..6]]).unwrap()
        };
        assert!(difference(next(&stored).view(), next(&resident).view()) < 1e-6, "{}", folder.display());
        // Blocks that leave the model are whole, and blocks in memory come first.
        assert_eq!(stored.block(0).unwrap().linears(), resident.block(0).unwrap().linears());
        let mut changed = (*stored.block(0).unwrap()).clone();
        let output = changed.stage_linears(1)[0];
        changed.linear_mut(output).weight.fill(0.0);
        let mut blocks: Vec<_> = (0..stored.block_count()).map(|index| stored.block(index).unwrap()).collect();
        blocks[0] = Arc::new(changed);
        let other = stored.with_blocks(blocks).unwrap();
        let batch = as_slices(&sequences);
        assert!(difference(other.hidden(&batch).unwrap().view(), stored.hidden(&batch).unwrap().view()) > 1e-4);
    }
}
