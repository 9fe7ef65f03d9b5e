//! Output formats as command-line flags.

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use sparq::export::{
    Coded, CompressedTensors, Dense, ExportFormat, ExportReport, ExportSettings, FloatType, Gguf, GgufTypes,
    GptqCheckpoint,
};
use sparq::tensor::{DType, read_imatrix};
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Hugging Face safetensors at full width
    Dense,
    /// Entropy-coded codes, in the bits they are worth: sparq itself
    Coded,
    /// compressed-tensors pack-quantized: transformers, vLLM
    CompressedTensors,
    /// The same with all widths: readers before version 0.18 know 2, 4 and 8 bits only
    CompressedTensorsAnyWidth,
    /// GPTQ, version 1 for symmetric grids, 2 for others: GPTQModel, vLLM
    Gptq,
    /// GGUF: llama.cpp
    Gguf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dtype {
    /// As in the source (f16 for block-quantized GGUF)
    Source,
    F32,
    F16,
    Bf16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(non_camel_case_types, reason = "llama.cpp's names")]
enum GgufType {
    /// Codes as solved: grids of 4, 5 or 8 bits with groups of 32, 64, ..., and those of ggml=true of 3 and 6 bits
    Exact,
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q5_1")]
    Q5_1,
    #[value(name = "q5_0")]
    Q5_0,
    #[value(name = "q4_0")]
    Q4_0,
    #[value(name = "iq4_nl")]
    Iq4_nl,
    #[value(name = "q3_k")]
    Q3_K,
    #[value(name = "q4_k")]
    Q4_K,
    #[value(name = "q4_k_m")]
    Q4_K_M,
    #[value(name = "q5_k")]
    Q5_K,
    #[value(name = "q6_k")]
    Q6_K,
}

impl GgufType {
    /// The type itself; none of mixtures.
    fn plain(self) -> Option<DType> {
        Some(match self {
            Self::Exact | Self::Q4_K_M => return None,
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
            Self::Q8_0 => DType::Q8_0,
            Self::Q5_1 => DType::Q5_1,
            Self::Q5_0 => DType::Q5_0,
            Self::Q4_0 => DType::Q4_0,
            Self::Iq4_nl => DType::IQ4_NL,
            Self::Q3_K => DType::Q3_K,
            Self::Q4_K => DType::Q4_K,
            Self::Q5_K => DType::Q5_K,
            Self::Q6_K => DType::Q6_K,
        })
    }
}

/// What a result is written as, and where.
#[derive(Debug, Clone, Args)]
pub(crate) struct FormatArgs {
    /// Directory to create, or file for GGUF [default: compressed; exported]
    #[arg(long, value_name = "OUT")]
    out: Option<PathBuf>,
    /// Replace OUT if it exists
    #[arg(long)]
    overwrite: bool,
    /// Format of the output
    #[arg(long, value_enum, default_value = "dense")]
    format: Format,
    /// Number type of what is not stored as codes
    #[arg(long, value_enum, default_value = "source")]
    dtype: Dtype,
    /// GGUF: types of the matrices; all but `exact` choose codes anew
    #[arg(long, value_enum, default_value = "exact")]
    gguf_type: GgufType,
    /// GGUF: type of embedding and output matrix beside exact codes [default: q8_0; what is best for --target-size; as the
    /// source has them if --dtype is given]
    #[arg(long, value_enum, value_name = "GGUF_TYPE")]
    embedding_type: Option<GgufType>,
    /// Most bytes of weights in one file, such as 2GB; with it a GGUF model is a directory of parts, which llama.cpp opens by the
    /// first [default: 5GB; a GGUF model is one file]
    #[arg(long, value_name = "SIZE", value_parser = super::parse_bytes, allow_negative_numbers = true)]
    max_shard_size: Option<u64>,
    /// GGUF: importance matrix that weighs the errors of iq4_nl and the types with a k
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
}

impl FormatArgs {
    /// The bit widths that a search mixes by default, all of which the format holds.
    pub(crate) fn widths(&self) -> &'static [u8] {
        match self.format {
            Format::Dense | Format::Coded | Format::Gptq => &[3, 4, 8],
            Format::CompressedTensors | Format::CompressedTensorsAnyWidth => &[4, 8],
            Format::Gguf => &[3, 4, 5, 6, 8],
        }
    }

    /// Whether layers go into a GGUF file as they are solved.
    pub(crate) fn keeps_gguf_codes(&self) -> bool {
        self.format == Format::Gguf && self.gguf_type == GgufType::Exact
    }

    /// The formats that a search for a size chooses among.
    pub(crate) fn formats(&self) -> Result<Vec<Box<dyn ExportFormat>>> {
        let asked = self.format()?;
        if !self.keeps_gguf_codes() || self.embedding_type.is_some() || self.dtype != Dtype::Source {
            return Ok(vec![asked]);
        }
        let gguf = Gguf::default().in_parts(self.max_shard_size.is_some());
        let with = |dtype| -> Box<dyn ExportFormat> { Box::new(gguf.clone().vocabulary(dtype)) };
        Ok([DType::Q8_0, DType::Q6_K, DType::Q5_1, DType::Q5_0].map(with).into())
    }

    /// The format. Flags that do not concern it are refused.
    pub(crate) fn format(&self) -> Result<Box<dyn ExportFormat>> {
        let concerns_gguf =
            self.gguf_type != GgufType::Exact || self.imatrix.is_some() || self.embedding_type.is_some();
        if concerns_gguf && self.format != Format::Gguf {
            bail!("--gguf-type, --embedding-type and --imatrix concern --format gguf alone");
        }
        if self.embedding_type.is_some() && (self.gguf_type != GgufType::Exact || self.dtype != Dtype::Source) {
            bail!("--embedding-type goes with --gguf-type exact and without --dtype, which say it too");
        }
        let is_searched = |kind| {
            use GgufType::{Iq4_nl, Q3_K, Q4_K, Q4_K_M, Q5_K, Q6_K};
            matches!(kind, Iq4_nl | Q3_K | Q4_K | Q4_K_M | Q5_K | Q6_K)
        };
        if self.imatrix.is_some() && !is_searched(self.gguf_type) {
            bail!("--imatrix weighs the errors of --gguf-type iq4_nl, q3_k, q4_k, q4_k_m, q5_k and q6_k alone");
        }
        if self.gguf_type != GgufType::Exact && self.dtype != Dtype::Source {
            bail!("--dtype concerns what is not stored as codes, and --gguf-type says the type of every matrix");
        }
        Ok(match self.format {
            Format::Dense => Box::new(Dense),
            Format::Coded => Box::new(Coded),
            Format::CompressedTensors => Box::new(CompressedTensors { any_width: false }),
            Format::CompressedTensorsAnyWidth => Box::new(CompressedTensors { any_width: true }),
            Format::Gptq => Box::new(GptqCheckpoint),
            Format::Gguf => {
                let mut gguf = Gguf::new(match self.gguf_type {
                    GgufType::Q4_K_M => GgufTypes::Q4KM,
                    other => other.plain().map_or(GgufTypes::Exact, GgufTypes::All),
                });
                if let Some(kind) = self.embedding_type {
                    let dtype = kind.plain().context("--embedding-type takes one type, no mixture")?;
                    gguf = gguf.vocabulary(dtype);
                }
                if let Some(file) = &self.imatrix {
                    gguf = gguf.importance(read_imatrix(file).context("importance matrix")?);
                }
                Box::new(gguf.in_parts(self.max_shard_size.is_some()))
            }
        })
    }

    /// Whether codes are entropy-coded, so that they may have a rate instead of a width.
    pub(crate) fn is_coded(&self) -> bool {
        self.format == Format::Coded
    }

    /// Settings of the export.
    pub(crate) fn settings(&self) -> ExportSettings {
        let float_type = match self.dtype {
            Dtype::Source => FloatType::Source,
            Dtype::F32 => FloatType::F32,
            Dtype::F16 => FloatType::F16,
            Dtype::Bf16 => FloatType::Bf16,
        };
        let settings = ExportSettings { float_type, overwrite: self.overwrite, ..ExportSettings::default() };
        let max_shard_bytes = self.max_shard_size.unwrap_or(settings.max_shard_bytes);
        ExportSettings { max_shard_bytes, ..settings }
    }

    /// The destination, or `default`. Refuses names that readers would not open: a GGUF file is found by its ending.
    pub(crate) fn destination(&self, default: &str) -> Result<PathBuf> {
        let out = self.out.clone().unwrap_or_else(|| default.into());
        let is_gguf_name = out.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"));
        match (self.format == Format::Gguf && self.max_shard_size.is_none(), is_gguf_name) {
            (true, false) => bail!("--out {}: a GGUF file needs a name that ends in .gguf", out.display()),
            (false, true) => {
                bail!(
                    "--out {}: the output is a directory; .gguf goes with --format gguf without --max-shard-size",
                    out.display()
                )
            }
            _ => Ok(out),
        }
    }
}

/// Prints what was made, for people.
pub(crate) fn print_report(report: &ExportReport) {
    println!("format      {}", report.format);
    println!(
        "written     {} of weights in {}; {} in 16 bits",
        super::bytes(report.stored_bytes),
        report.path.display(),
        super::bytes(report.sixteen_bit_bytes)
    );
    if report.layer_weights > 0 {
        println!("layers      {} with {:.3} bits per weight as stored", report.layers.len(), report.bits_per_weight());
    }
    println!(
        "checked     read back: largest difference {:.1e}, {} of {} zeros lost",
        report.largest_difference, report.zeros_lost, report.zeros
    );
    for remark in &report.remarks {
        println!("note        {remark}");
    }
    if !report.unused.is_empty() {
        println!("not read    {}: the model does not use them", report.unused.join(", "));
    }
    println!("engines     {}", report.engines);
}
