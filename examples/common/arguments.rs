//! Flags that several programs share, each declared once.

use super::demo::Demo;
use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use sparq::model::Precision;
use sparq::{Calibration, Model, Sampling};
use std::path::PathBuf;

/// The model that a program works on.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelArgs {
    /// Hugging Face directory, .safetensors file or .gguf file [default: the demo model]
    #[arg(long, value_name = "PATH")]
    pub(crate) model: Option<PathBuf>,
}

impl ModelArgs {
    /// Where the model is. The demo model is returned too, because it must outlive its use.
    pub(crate) fn path(&self) -> Result<(PathBuf, Option<Demo>)> {
        if let Some(path) = &self.model {
            return Ok((super::hub::resolve(path)?, None));
        }
        let demo = Demo::unpack()?;
        Ok((demo.directory(), Some(demo)))
    }

    /// Opens the model, or the demo model, and says what is odd about its tokenizer.
    pub(crate) fn open(&self) -> Result<(Model, Option<Demo>)> {
        let (path, demo) = self.path()?;
        let model = Model::open(path)?;
        if let Some(warning) = beyond(&model) {
            eprintln!("warning: {warning}");
        }
        Ok((model, demo))
    }

    /// The name of the model in results.
    pub(crate) fn name(&self) -> String {
        self.model.as_deref().map_or_else(|| "demo model".to_owned(), super::name_of)
    }
}

/// Says what of a checkpoint is not as usual; programs that export have it in their report.
pub(crate) fn print_remarks(model: &Model) {
    model.checkpoint().remarks().iter().for_each(|remark| eprintln!("note: {remark}"));
}

/// A warning if the tokenizer has tokens that the model has no embedding for.
pub(crate) fn beyond(model: &Model) -> Option<String> {
    let (embeddings, tokens) =
        (model.config().vocab_size, model.tokenizer().ok()?.added_beyond(model.config().vocab_size));
    let (id, first) = tokens.first()?;
    let count = tokens.len();
    Some(format!(
        "{count} added tokens of the tokenizer, {first:?} ({id}) first, lie beyond the {embeddings} embeddings: text with them \
         is refused, and GGUF leaves them out"
    ))
}

/// How many threads a program uses.
#[derive(Debug, Clone, Args)]
pub(crate) struct ThreadArgs {
    /// Threads, at most one a core; 0 uses every core (under mpirun: this process's share of them). Results do not depend on
    /// it
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    threads: usize,
}

impl ThreadArgs {
    /// Starts the threads, for everything that follows.
    pub(crate) fn start(&self) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if self.threads > cores {
            eprintln!("--threads {}: {cores} are used, one a core; more would only wait for each other", self.threads);
        }
        let threads = match self.threads {
            0 => cores.min(share_of_cores()),
            threads => threads.min(cores),
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build_global().context("cannot start the threads")
    }
}

/// Cores of this machine for each process of the job that runs on it, as Open MPI tells them; mpirun may have bound a process
/// to fewer.
fn share_of_cores() -> usize {
    let processes = std::env::var("OMPI_COMM_WORLD_LOCAL_SIZE").ok().and_then(|count| count.parse::<usize>().ok());
    let cores = |text: String| text.lines().filter(|line| line.starts_with("processor")).count();
    match (processes, std::fs::read_to_string("/proc/cpuinfo").map(cores)) {
        (Some(processes @ 2..), Ok(cores @ 1..)) => (cores / processes).max(1),
        _ => usize::MAX,
    }
}

/// Where random choices start from.
#[derive(Debug, Clone, Args)]
pub(crate) struct SeedArgs {
    /// Seed of everything drawn at random: sequences of a text, subsets of tasks, resamples, sampled tokens
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(crate) seed: u64,
}

/// How a model runs.
#[derive(Debug, Clone, Args)]
pub(crate) struct ForwardArgs {
    /// What linear layers are multiplied in: f32; bf16 (faster where the processor multiplies bfloat16, and rougher); int8 (inputs
    /// rounded to 8 bits: faster for one token at a time of a GGUF file, and rougher)
    #[arg(long, value_name = "PRECISION", default_value = "f32", value_parser = precision)]
    pub(crate) forward: Precision,
}

fn precision(text: &str) -> Result<Precision, String> {
    serde_json::from_value(text.into()).map_err(|error| error.to_string())
}

/// Where a result goes.
#[derive(Debug, Clone, Args)]
pub(crate) struct JsonArgs {
    /// Write the result to FILE as JSON; without FILE, print it instead of the summary
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
}

impl JsonArgs {
    /// Whether JSON is printed and nothing else.
    pub(crate) fn is_printed(&self) -> bool {
        self.json.as_deref().is_some_and(|file| file.as_os_str() == "-")
    }

    /// Prints `result` as JSON or a summary of it, and writes it to a file if one is named.
    pub(crate) fn report(&self, result: &impl Serialize, summarise: impl FnOnce()) -> Result<()> {
        if self.is_printed() {
            println!("{}", serde_json::to_string_pretty(result)?);
            return Ok(());
        }
        summarise();
        self.json.as_deref().map_or(Ok(()), |file| super::write_json(file, result))
    }
}

/// The text that a model is calibrated on.
#[derive(Debug, Clone, Args)]
pub(crate) struct CalibrationArgs {
    /// Text to calibrate on [default for the demo model: its own]
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Calibration sequences
    #[arg(long, default_value_t = 64, value_parser = super::positive, allow_negative_numbers = true)]
    samples: usize,
    /// Tokens in a calibration sequence [default: 512, or the model's positions if they are fewer; 128 for the demo model]
    #[arg(long, value_parser = super::positive, allow_negative_numbers = true)]
    seq_len: Option<usize>,
}

/// A text, and how sequences are drawn from it.
pub(crate) struct Source {
    pub(crate) file: PathBuf,
    pub(crate) seed: u64,
    pub(crate) length: usize,
}

impl Source {
    /// `samples` sequences of this text.
    pub(crate) fn draw(&self, model: &Model, samples: usize) -> Result<Calibration> {
        let text = super::read_text(&self.file)?;
        Calibration::from_text(model.tokenizer()?, &text, Sampling { samples, length: self.length, seed: self.seed })
            .with_context(|| format!("calibration text {}", self.file.display()))
    }
}

impl CalibrationArgs {
    /// The text, if there is one, and the sequences drawn from it.
    pub(crate) fn draw(
        &self,
        model: &Model,
        demo: Option<&Demo>,
        seed: &SeedArgs,
    ) -> Result<Option<(Source, Calibration)>> {
        let Some(file) = self.calibration.clone().or(demo.map(|demo| demo.file("calibration.txt"))) else {
            return Ok(None);
        };
        let source = Source {
            file,
            seed: seed.seed,
            length: self.seq_len.unwrap_or_else(|| super::default_length(model, demo)),
        };
        let calibration = source.draw(model, self.samples)?;
        Ok(Some((source, calibration)))
    }
}
