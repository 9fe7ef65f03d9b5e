//! Compresses one matrix: the smallest way to use the library.

#![allow(clippy::print_stdout, reason = "this is a program")]

mod common;

use anyhow::{Context, bail};
use clap::Parser;
use common::arguments::{JsonArgs, ThreadArgs};
use common::{demo, solver::SolverArgs};
use ndarray::{Array2, ArrayView2, Ix2};
use sparq::model::BatchLayout;
use sparq::pipeline::Targets;
use sparq::prelude::*;
use sparq::tensor::{TensorData, read_safetensors_file, write_safetensors_file};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Prune and quantize one matrix, and print its relative output error.
///
/// Without --input, takes a layer of the demo model with inputs from its calibration and held-out text.
#[derive(Debug, Parser)]
#[command(name = "layer", version)]
struct Arguments {
    /// safetensors file with `weight` [out, in], `inputs` [tokens, in] and optionally `heldout` [tokens, in]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    #[command(flatten)]
    solver: SolverArgs,
    /// File to write: f32 `weight`, u8 `mask`; when quantized also u8 `codes`, f32 `scales` [out, groups], u8 `zeros`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    threads: ThreadArgs,
    #[command(flatten)]
    json: JsonArgs,
}

struct Layer {
    name: String,
    weight: Array2<f32>,
    inputs: Array2<f32>,
    heldout: Option<Array2<f32>>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(|| {
        arguments.threads.start()?;
        if let Some(key) = arguments.solver.of_models()? {
            bail!("{key} concerns whole models; a single layer has neither layers before it nor text");
        }
        // A single layer has no drift and no text to hold out.
        let mut recipe = arguments.solver.recipe(Targets::default(), None, false)?;
        (recipe.drift, recipe.held_out) = (0.0, 0.0);
        let Some(solver) = recipe.solver()? else {
            bail!("nothing to do: --sparsity 0 --bits 16 neither prunes nor quantizes");
        };
        let layer = match &arguments.input {
            Some(file) => read(file)?,
            None => from_demo()?,
        };
        let start = Instant::now();
        let curvature = calibrate(layer.inputs.view())?.with_damping(recipe.damping()?).act_order(recipe.act_order);
        let calibrated = start.elapsed().as_secs_f64();
        let problem = LayerProblem::new(&layer.name, layer.weight.view(), &curvature)?;
        let compressed = solver.compress(&problem)?;
        let solved = start.elapsed().as_secs_f64() - calibrated;
        if let Some(file) = &arguments.out {
            write(file, &compressed)?;
        }
        let error = |x: &Array2<f32>| output_error(layer.weight.view(), compressed.weight.view(), x.view());
        let zeros = compressed.weight.iter().filter(|value| **value == 0.0).count();
        let (rows, columns) = layer.weight.dim();
        let answer = serde_json::json!({
            "layer": layer.name,
            "method": solver.name(),
            "recipe": recipe.to_string(),
            "shape": [rows, columns],
            "tokens": layer.inputs.nrows(),
            "zeros": zeros,
            "sparsity": zeros as f64 / layer.weight.len().max(1) as f64,
            "bits_per_weight": compressed.codes.as_ref().map(|codes| {
                codes.fixed_bits().unwrap_or_else(|| codes.coded_bits() as f64) / (rows * columns) as f64
            }),
            "relative_output_error": {
                "inputs": error(&layer.inputs),
                "heldout": layer.heldout.as_ref().map(error),
            },
            "damping": compressed.report.damping,
            "fallbacks": compressed.report.fallbacks,
            "seconds": { "calibrate": calibrated, "solve": solved },
        });
        arguments.json.report(&answer, || {
            let errors = &answer["relative_output_error"];
            println!("{} [{rows}, {columns}] by {}, {recipe}", layer.name, solver.name());
            println!("zeros       {:.2} %", 100.0 * zeros as f64 / layer.weight.len().max(1) as f64);
            println!("error       {} on inputs, {} on held-out inputs", errors["inputs"], errors["heldout"]);
            println!("seconds     {calibrated:.3} to calibrate, {solved:.3} to solve");
        })
    })
}

/// `‖X(W - W')ᵀ‖² / ‖XWᵀ‖²` from the outputs themselves.
fn output_error(dense: ArrayView2<'_, f32>, compressed: ArrayView2<'_, f32>, x: ArrayView2<'_, f32>) -> f64 {
    let energy = |w: ArrayView2<'_, f32>| -> f64 {
        sparq::linalg::linear(x, w).iter().map(|value| f64::from(*value) * f64::from(*value)).sum()
    };
    let whole = energy(dense);
    if whole > 0.0 { energy((&dense - &compressed).view()) / whole } else { 0.0 }
}

fn read(file: &Path) -> anyhow::Result<Layer> {
    let mut arrays = read_safetensors_file(file)?;
    let mut matrix = |name: &str| -> anyhow::Result<Option<Array2<f32>>> {
        let Some(array) = arrays.remove(name) else { return Ok(None) };
        let shape = array.values.shape().to_vec();
        let matrix = array.values.into_dimensionality::<Ix2>();
        Ok(Some(matrix.with_context(|| format!("{}: {name} has shape {shape:?}, not two dimensions", file.display()))?))
    };
    let (weight, inputs, heldout) = (matrix("weight")?, matrix("inputs")?, matrix("heldout")?);
    let missing = |name| format!("{}: there is no tensor {name:?}", file.display());
    let layer = Layer {
        name: file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
        weight: weight.with_context(|| missing("weight"))?,
        inputs: inputs.with_context(|| missing("inputs"))?,
        heldout,
    };
    for (name, x) in [("inputs", Some(&layer.inputs)), ("heldout", layer.heldout.as_ref())] {
        if let Some(x) = x.filter(|x| x.ncols() != layer.weight.ncols()) {
            bail!("{}: {name} has {} channels, weight has {}", file.display(), x.ncols(), layer.weight.ncols());
        }
    }
    if layer.inputs.nrows() == 0 {
        bail!("{}: inputs has no tokens", file.display());
    }
    Ok(layer)
}

fn write(file: &Path, layer: &CompressedLayer) -> anyhow::Result<()> {
    let mask = match &layer.mask {
        Some(mask) => mask.view().mapv(u8::from),
        None => layer.weight.mapv(|_| 1_u8),
    };
    let grids = layer.quantized().map(|quantized| (quantized.scales(), quantized.zeros()));
    let (scales, zeros) = grids.unwrap_or_default();
    let mut tensors = vec![
        ("weight", TensorData::F32(layer.weight.view().into_dyn())),
        ("mask", TensorData::U8(mask.view().into_dyn())),
    ];
    if let Some(quantized) = layer.quantized() {
        tensors.push(("codes", TensorData::U8(quantized.codes.view().into_dyn())));
        tensors.push(("scales", TensorData::F32(scales.view().into_dyn())));
        tensors.push(("zeros", TensorData::U8(zeros.view().into_dyn())));
    }
    write_safetensors_file(file, &tensors).with_context(|| format!("cannot write {}", file.display()))
}

/// The down projection of the demo model's second block, with its inputs.
fn from_demo() -> anyhow::Result<Layer> {
    const BLOCK: usize = 1;
    let demo = demo::Demo::unpack()?;
    let model = Model::open(demo.directory())?;
    let capture = |file: &str| -> anyhow::Result<(String, Array2<f32>, Array2<f32>)> {
        let text = common::read_text(demo.file(file))?;
        let calibration =
            Calibration::from_text(model.tokenizer()?, &text, Sampling { samples: 32, length: 128, seed: 0 })?;
        let lengths: Vec<usize> = calibration.sequences().iter().map(Vec::len).collect();
        let layout = BatchLayout::new(&lengths);
        let mut stream = model.embed(&calibration.sequences().concat(), &layout)?;
        for index in 0..BLOCK {
            stream = model.block(index)?.forward(stream, layout.clone())?;
        }
        let block = model.block(BLOCK)?;
        let mut state = block.begin(stream, layout)?;
        let last = block.stages() - 1;
        for stage in 0..last {
            block.apply(stage, &mut state)?;
        }
        let linear = &block.linears()[block.stage_linears(last)[0]];
        Ok((linear.name.clone(), linear.weight.clone(), block.stage_input(last, &mut state)?.to_owned()))
    };
    let (name, weight, inputs) = capture("calibration.txt")?;
    let (_, _, heldout) = capture("heldout.txt")?;
    Ok(Layer { name, weight, inputs, heldout: Some(heldout) })
}
