//! Prints what a checkpoint is, and what sparq would refuse it for.

#![allow(clippy::print_stdout, reason = "this is a program")]

mod common;

use anyhow::Result;
use clap::Parser;
use common::arguments::{JsonArgs, ModelArgs};
use serde::Serialize;
use sparq::export::Format;
use sparq::model::{BlockPlan, open_checkpoint};
use sparq::tensor::{Checkpoint, Packing, TensorInfo};
use sparq::{Compress, Model, Recipe};
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;

/// Print what a checkpoint is: format, family, layers, bits, zeros, bytes, and what sparq would refuse it for.
#[derive(Debug, Parser)]
#[command(name = "inspect", version)]
struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    json: JsonArgs,
}

/// Tensors of one kind and one type.
#[derive(Debug, Default, Serialize)]
struct Group {
    tensors: usize,
    elements: usize,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Inspection {
    format: String,
    family: Option<String>,
    blocks: Option<usize>,
    linear_layers: Option<usize>,
    positions: Option<usize>,
    vocabulary: Option<usize>,
    tokens: Option<usize>,
    /// Of the linear layers, as stored.
    bits_per_weight: Option<f64>,
    /// Fraction of the weights of linear layers that are zero.
    zeros: Option<f64>,
    /// By kind, then by type.
    bytes: BTreeMap<&'static str, BTreeMap<String, Group>>,
    refused: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    common::run(|| {
        let (path, _demo) = arguments.model.path()?;
        let checkpoint = Arc::new(open_checkpoint(path)?);
        let inspection = inspect(&checkpoint, Model::from_checkpoint(Arc::clone(&checkpoint)))?;
        arguments.json.report(&inspection, || print(&inspection))
    })
}

fn inspect(checkpoint: &Checkpoint, model: std::result::Result<Model, sparq::model::Error>) -> Result<Inspection> {
    let mut refused = Vec::new();
    let model = model.map_err(|error| refused.push(format!("every use: {error}"))).ok();
    let mut linears = BTreeSet::new();
    for index in 0..model.as_ref().map_or(0, Model::block_count) {
        let plan = model.as_ref().map(|model| model.block_plan(index)).transpose()?;
        linears.extend(plan.into_iter().flat_map(BlockPlan::linears).map(|linear| linear.stored.tensor.clone()));
    }
    let mut bytes: BTreeMap<&'static str, BTreeMap<String, Group>> = BTreeMap::new();
    let (mut stored, mut weights, mut zeros) = (0, 0, 0);
    for tensor in checkpoint.tensors() {
        let is_linear = linears.contains(&tensor.name);
        let kind = if is_linear { "linear layers" } else { kind(&tensor.name) };
        let group = bytes.entry(kind).or_default().entry(type_of(tensor)).or_default();
        group.tensors += 1;
        group.elements += tensor.elements();
        group.bytes += tensor.bytes;
        if is_linear {
            match checkpoint.read(&tensor.name) {
                Ok(values) => zeros += values.iter().filter(|&&value| value == 0.0).count(),
                Err(error) => refused.push(format!("every use: {error}")),
            }
            weights += tensor.elements();
            stored += tensor.bytes;
        }
    }
    let mut tokens = None;
    if let Some(model) = &model {
        match model.tokenizer() {
            Ok(tokenizer) => {
                tokens = Some(tokenizer.vocab_size());
                refused.extend(common::arguments::beyond(model));
            }
            Err(error) => refused.push(format!("text: {error}")),
        }
        refused.extend(refused_formats(model)?);
    }
    let config = model.as_ref().map(Model::config);
    let share = |part: f64| (weights > 0).then(|| part / weights as f64);
    Ok(Inspection {
        format: format!("{:?}", checkpoint.format()),
        family: config.map(|config| config.model_type.clone()),
        blocks: config.map(|config| config.layers),
        linear_layers: model.as_ref().map(|model| model.linear_names().count()),
        positions: config.map(|config| config.max_positions),
        vocabulary: config.map(|config| config.vocab_size),
        tokens,
        bits_per_weight: share(8.0 * stored as f64),
        zeros: share(zeros as f64),
        bytes,
        refused,
    })
}

/// What every format says to 4-bit weights in groups of 32.
fn refused_formats(model: &Model) -> Result<Vec<String>> {
    let recipe: Recipe = "s=0,q=4,group=32,quantizer=rtn".parse()?;
    let nowhere = tempfile::tempdir()?;
    let formats = [
        ("dense", Format::Dense),
        ("compressed-tensors", Format::CompressedTensors),
        ("GPTQ", Format::Gptq),
        ("GGUF", Format::Gguf),
    ];
    let refusal = |(name, format): (&str, Format)| {
        let checked = Compress::new(model).recipe(recipe.clone()).check(nowhere.path().join("out"), &format);
        checked.err().map(|error| format!("{name}: {error}"))
    };
    Ok(formats.into_iter().filter_map(refusal).collect())
}

fn type_of(tensor: &TensorInfo) -> String {
    match tensor.packing {
        Some(Packing::CompressedTensors { bits }) => format!("{bits}-bit compressed-tensors"),
        Some(Packing::Coded { bits: Some(bits) }) => format!("{bits}-bit codes, entropy-coded"),
        Some(Packing::Coded { bits: None }) => "codes without a width, entropy-coded".to_owned(),
        Some(Packing::Gptq { bits }) => format!("{bits}-bit GPTQ"),
        _ => tensor.dtype.to_string(),
    }
}

/// What a tensor that is no linear layer is for, by its name.
fn kind(name: &str) -> &'static str {
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    match name {
        _ if has(&["embed", "wte", "wpe"]) => "embeddings",
        _ if has(&["lm_head"]) => "output layer",
        _ if has(&["norm", ".ln_"]) => "norms",
        _ if has(&[".bias"]) => "biases",
        _ => "other tensors",
    }
}

fn print(inspection: &Inspection) {
    const LINES: usize = 100;
    let number = |value: Option<usize>| value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
    println!("format      {}", inspection.format);
    println!("family      {}", inspection.family.as_deref().unwrap_or("unknown"));
    println!("layers      {} linear in {} blocks", number(inspection.linear_layers), number(inspection.blocks));
    println!("positions   {}", number(inspection.positions));
    println!("vocabulary  {}, tokenizer {}", number(inspection.vocabulary), number(inspection.tokens));
    if let (Some(bits), Some(zeros)) = (inspection.bits_per_weight, inspection.zeros) {
        println!("weights     {bits:.3} bits in the file, {:.2} % zeros, in linear layers", 100.0 * zeros);
    }
    let groups =
        inspection.bytes.iter().flat_map(|(kind, types)| types.iter().map(move |(of, group)| (kind, of, group)));
    for (kind, of, group) in groups.take(LINES / 2) {
        println!("bytes       {} in {} tensors: {kind}, {of}", common::bytes(group.bytes), group.tensors);
    }
    for reason in inspection.refused.iter().take(LINES / 2) {
        println!("refused     {reason}");
    }
    if inspection.refused.is_empty() {
        println!("refused     for nothing: it can be evaluated, compressed and written in every format");
    }
}
