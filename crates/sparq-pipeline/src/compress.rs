use crate::agreement::on_first;
use crate::partial::{self, CHECKPOINT, TUNED, TUNING, UNTUNED};
use crate::sink::{Nowhere, SOLUTION};
use crate::tuning::{Subject, Tuned, tune};
use crate::{
    Calibration, CompressionReport, Error, Fingerprint, MemorySink, Phase, Plan, Recipe, Result, SolutionSink,
};
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};
use sparq_core::{CodeLayout, Observer, Ranks};
use sparq_export::{
    ExportFormat, ExportReport, ExportSettings, Solution, SolutionWriter, SolvedLayers, SolvedShape, export,
};
use sparq_model::Model;
use sparq_quant::Step;
use sparq_tensor::{DType, PlannedSize, TensorData, TensorPart};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Compresses a model: into a checkpoint ([`to`](Self::to)), in memory ([`in_memory`](Self::in_memory)), or into a [`Sink`](crate::Sink)
/// of your own ([`into_sink`](Self::into_sink)).
///
/// | setting | default | meaning |
/// |---|---|---|
/// | [`recipe`](Self::recipe) | 25 % + 4 bits, balanced | what is done to every layer |
/// | [`calibration`](Self::calibration) | none | text; needed by all recipes but those without data |
/// | [`observer`](Self::observer) | `()` | receives progress, may stop the run |
/// | [`strict`](Self::strict) | no | fallbacks that may make the result worse are errors |
/// | [`memory_budget`](Self::memory_budget) | none | bytes; activations beyond it wait in a file |
/// | [`stop_after`](Self::stop_after) | never | stop once so many blocks are done |
/// | [`ranks`](Self::ranks) | alone | the processes that share the work |
/// | [`export`](Self::export) | `ExportSettings::default()` | number types, size of files, overwriting |
/// | [`restart`](Self::restart) | no | discard an unfinished run |
/// | [`keep_solution`](Self::keep_solution) | yes | leave `sparq/` in the output |
///
/// Same model, recipe and calibration, same bits, for any number of threads, processes and interruptions.
///
/// # Examples
/// ```no_run
/// use sparq_export::Dense;
/// use sparq_model::Model;
/// use sparq_pipeline::{Calibration, Compress, Recipe, Sampling};
/// let model = Model::open("models/SmolLM2-135M")?;
/// let text = std::fs::read_to_string("calibration.txt")?;
/// let calibration = Calibration::from_text(model.tokenizer()?, &text, Sampling::default())?;
/// let recipe = Recipe::builder().sparsity(0.25).bits(4).group(64).build()?;
/// let done = Compress::new(&model).recipe(recipe).calibration(&calibration).to("out/smollm2-joint", &Dense)?;
/// println!("{} bytes stored", done.export.stored_bytes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Compress<'a> {
    pub(crate) model: &'a Model,
    pub(crate) recipe: Recipe,
    pub(crate) calibration: Option<&'a Calibration>,
    pub(crate) observer: &'a dyn Observer,
    pub(crate) strict: bool,
    pub(crate) stop_after: Option<usize>,
    pub(crate) memory_budget: Option<u64>,
    /// Where activations wait that the budget does not hold.
    pub(crate) waiting_in: Option<PathBuf>,
    pub(crate) ranks: Ranks,
    export: ExportSettings,
    restart: bool,
    keep_solution: bool,
}

impl fmt::Debug for Compress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compress").field("recipe", &self.recipe).finish_non_exhaustive()
    }
}

/// What a compression into a checkpoint has made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Done {
    /// How the layers came out.
    pub compression: CompressionReport,
    /// What was written.
    pub export: ExportReport,
}

impl<'a> Compress<'a> {
    /// Of `model`, according to the recommended recipe.
    pub fn new(model: &'a Model) -> Self {
        Self {
            model,
            recipe: Recipe::default(),
            calibration: None,
            observer: &(),
            strict: false,
            stop_after: None,
            memory_budget: None,
            waiting_in: None,
            ranks: Ranks::default(),
            export: ExportSettings::default(),
            restart: false,
            keep_solution: true,
        }
    }

    /// According to this recipe.
    #[must_use]
    pub fn recipe(self, recipe: Recipe) -> Self {
        Self { recipe, ..self }
    }

    /// Calibrated on this text; may be missing if the recipe needs no data.
    #[must_use]
    pub fn calibration(self, calibration: impl Into<Option<&'a Calibration>>) -> Self {
        Self { calibration: calibration.into(), ..self }
    }

    /// Tells `observer` of progress, and stops when it says so.
    #[must_use]
    pub fn observer(self, observer: &'a dyn Observer) -> Self {
        Self { observer, ..self }
    }

    /// Treats a fallback that may make the result worse
    /// ([`Fallback::is_degradation`](sparq_core::Fallback::is_degradation)) as an error.
    #[must_use]
    pub fn strict(self, on: bool) -> Self {
        Self { strict: on, ..self }
    }

    /// Stops once this many blocks are done in this run.
    #[must_use]
    pub fn stop_after(self, blocks: impl Into<Option<usize>>) -> Self {
        Self { stop_after: blocks.into(), ..self }
    }

    /// Keeps the predicted peak of memory within `bytes`: calibration batches that do not fit wait in a file without a name,
    /// beside other unfinished work or in the directory of [`waiting_in`](Self::waiting_in). Costs time, changes no bit of
    /// the result.
    #[must_use]
    pub fn memory_budget(self, bytes: impl Into<Option<u64>>) -> Self {
        Self { memory_budget: bytes.into(), ..self }
    }

    /// The directory for activations that a memory budget does not hold.
    #[must_use]
    pub fn waiting_in(self, directory: impl Into<PathBuf>) -> Self {
        Self { waiting_in: Some(directory.into()), ..self }
    }

    /// Shares the work with other processes, which all make the same call on the same files. Each holds its share of the
    /// calibration text's activations and solves its share of rows; the first one writes. What the observer of the first
    /// says about stopping counts for all.
    #[must_use]
    pub fn ranks(self, ranks: Ranks) -> Self {
        Self { ranks, ..self }
    }

    /// Written like this.
    #[must_use]
    pub fn export(self, settings: ExportSettings) -> Self {
        Self { export: settings, ..self }
    }

    /// Discards an unfinished run, whatever its settings.
    #[must_use]
    pub fn restart(self, on: bool) -> Self {
        Self { restart: on, ..self }
    }

    /// Leaves the solution in the output.
    #[must_use]
    pub fn keep_solution(self, on: bool) -> Self {
        Self { keep_solution: on, ..self }
    }

    /// What will be done, and the memory it takes.
    ///
    /// # Errors
    /// Those of [`Plan::new`] and [`Plan::within`].
    pub fn plan(&self) -> Result<Plan> {
        let plan = Plan::shared(self.model, &self.recipe, self.calibration, self.ranks.size())?;
        match self.memory_budget {
            Some(bytes) => plan.within(bytes),
            None => Ok(plan),
        }
    }

    /// Where the work on `destination` is kept until everything is done.
    pub fn partial(destination: &Path) -> PathBuf {
        named(destination, ".partial")
    }

    /// What [`to`](Self::to) refuses before any work, unfinished runs apart.
    ///
    /// # Errors
    /// [`Error::Export`](crate::Error::Export) if the format cannot hold what the recipe makes,
    /// [`Error::Tensor`](crate::Error::Tensor) if the destination exists or, to be overwritten, is no checkpoint, and if there is
    /// less space than the work and its result take; what
    /// [`plan`](Self::plan) refuses.
    pub fn check(&self, destination: impl AsRef<Path>, format: &dyn ExportFormat) -> Result<()> {
        let destination = destination.as_ref();
        sparq_tensor::check_replaceable(destination, self.export.overwrite)?;
        sparq_tensor::check_apart(destination, self.model.checkpoint().path())?;
        // What a single file was made of lies beside it, and must not be lost to another run's.
        let (beside, is_resumed) = (beside(destination), Self::partial(destination).join(CHECKPOINT).is_file());
        let is_kept_beside = format.is_one_file() && self.keep_solution;
        if is_kept_beside && !self.export.overwrite && !is_resumed && beside.exists() {
            return Err(sparq_tensor::Error::DestinationExists { path: beside }.into());
        }
        let plan = self.plan()?;
        let (source, announced) = (self.model.checkpoint(), announced(self.model, &self.recipe)?);
        let output = match sparq_export::planned_size(source, &announced, format, &self.export) {
            Ok(size) => size.file_bytes,
            // Not every format knows its size before; coded ones take no more than what waits in the solution.
            Err(_) => sparq_export::check(source, &announced, format, &self.export).map(|()| 0)?,
        };
        Ok(sparq_tensor::check_space(destination, plan.partial_bytes.saturating_add(output))?)
    }

    /// Compresses into a checkpoint at `destination` in `format`, and survives interruptions.
    ///
    /// Until everything is done, work is kept beside the destination, in `DESTINATION.partial`: the layers solved so far and
    /// what is needed to go on. The same call made again continues there, and ends with the same bytes as one that was never
    /// interrupted. The destination appears whole, as the last step. Inside it (beside it, if it is a single file), `sparq/`
    /// keeps the solution (codes, scales, zero points, masks), so that other formats can be made of it without solving again.
    ///
    /// # Errors
    /// Before any work: those of [`check`](Self::check); [`Error::Export`](crate::Error::Export) for NaN and infinity
    /// anywhere in the model; [`Error::OtherRun`](crate::Error::OtherRun) if an unfinished run has
    /// other settings, [`Error::Busy`](crate::Error::Busy) if it is still running. Later:
    /// [`Error::Stopped`](crate::Error::Stopped), [`Error::Strict`](crate::Error::Strict), and what reading and writing
    /// report; the unfinished run then stays as it is, and nothing is at the destination.
    pub fn to(&self, destination: impl AsRef<Path>, format: &dyn ExportFormat) -> Result<Done> {
        let destination = destination.as_ref();
        let partial = Self::partial(destination);
        if self.ranks.is_first() {
            return self.write(destination, &partial, format);
        }
        self.ranks.barrier()?; // the directory for unfinished work is there
        self.within(&partial).into_sink(&mut Nowhere)?;
        on_first(&self.ranks, || Err(Error::Activations { what: "only another process can say what was made".into() }))
    }

    /// What [`to`](Self::to) does on the process that writes.
    fn write(&self, destination: &Path, partial: &Path, format: &dyn ExportFormat) -> Result<Done> {
        let (source, beside) = (self.model.checkpoint(), beside(destination));
        if destination.exists() {
            partial::remove_remains(partial)?;
        }
        self.check(destination, format)?;
        sparq_export::check_values(source)?;
        let fingerprint = Fingerprint::new(self.model, &self.recipe, self.calibration)?;

        let lock = partial::open(partial, &beside, self.restart)?;
        let mut sink = SolutionSink::open(partial, fingerprint, self.recipe.act_order)?;
        self.ranks.barrier()?;
        let mut compression = self.within(partial).into_sink(&mut sink)?;
        let solved = sink.finish()?;
        let solution = match self.recipe.tune {
            0 => solved,
            _ => self.tuned(&solved, partial, &mut compression)?,
        };
        self.model.release_embeddings(); // an export has its own copy of what it writes
        let checkpoint = partial.join(CHECKPOINT);
        let settings = ExportSettings { overwrite: false, ..self.export };
        let mut export = (compression.profile)
            .time(Phase::Export, 0, || export(source, &solution, format, &checkpoint, &settings))?;
        compression.profile.look_at_memory();
        drop(solution);
        self.keep(partial, &beside)?;
        sparq_tensor::move_checkpoint(&checkpoint, destination, self.export.overwrite)?;
        export.path = destination.to_path_buf();
        drop(lock);
        partial::remove(partial)?;
        on_first(&self.ranks, || Ok(Done { compression, export }))
    }

    /// The same, with a place in `partial` for activations that wait in a file.
    fn within(&self, partial: &Path) -> Self {
        let waiting_in = self.waiting_in.clone().or_else(|| Some(partial.to_path_buf()));
        Self { waiting_in, ..self.clone() }
    }

    /// Compresses in memory, ready to be evaluated; needs room for all blocks as `f32`.
    ///
    /// # Errors
    /// Those of [`into_sink`](Self::into_sink).
    pub fn in_memory(&self) -> Result<(Model, CompressionReport)> {
        let mut sink = if self.recipe.tune > 0 { MemorySink::with_codes() } else { MemorySink::new() };
        let mut report = self.into_sink(&mut sink)?;
        let codes = sink.take_codes();
        let model = sink.into_model(self.model)?;
        let Some(codes) = codes else { return Ok((model, report)) };
        let subject = Subject::new(model, codes)?;
        let tuned = self.tune(subject, None, &mut report)?;
        Ok((tuned.into_model()?, report))
    }

    /// What a solution becomes when it is tuned: another one beside it, in `partial`.
    fn tuned(&self, solved: &Solution, partial: &Path, report: &mut CompressionReport) -> Result<Solution> {
        let subject = Subject::of_solution(self.model, solved)?;
        let tuned = self.tune(subject, Some(&partial.join(TUNING)), report)?;
        let directory = partial.join(TUNED);
        partial::remove(&directory)?;
        let mut writer = SolutionWriter::create(&directory)?;
        let mut file = "";
        for entry in solved.entries() {
            if !file.is_empty() && file != entry.file {
                writer.commit(file)?;
            }
            file = &entry.file;
            let layer = tuned.layer(&entry.layer.name, solved.layer(&entry.layer.name)?);
            writer.add(entry.layer.clone(), &layer)?;
        }
        writer.commit(file)?;
        let tensors: Vec<_> = tuned.tensors.iter().map(|(name, tensor)| (name.as_str(), stored(tensor))).collect();
        writer.tensors(&tensors)?;
        Ok(writer.finish(solved.settings().clone())?)
    }

    fn tune(&self, subject: Subject, safe: Option<&Path>, report: &mut CompressionReport) -> Result<Tuned> {
        let Some(calibration) = self.calibration else {
            return Err(Error::Calibration { what: format!("{} needs calibration text", self.recipe) });
        };
        let operations = report.plan.tuning.map_or(0, |plan| plan.operations);
        let steps = self.recipe.tune;
        let tuned = (report.profile)
            .time(Phase::Tune, operations, || tune(self.model, subject, calibration, steps, safe, self.observer))?;
        for layer in &mut report.layers {
            if let Some(codes) = tuned.codes(&layer.name) {
                layer.recount(codes);
            }
        }
        report.profile.look_at_memory();
        report.tuned(tuned.report);
        Ok(tuned)
    }

    /// Moves the solution to where the output will have it: inside a directory, beside a single file.
    fn keep(&self, partial: &Path, beside: &Path) -> Result<()> {
        let tuned = self.recipe.tune > 0 && self.keep_solution;
        let (from, checkpoint) = (partial.join(if tuned { TUNED } else { SOLUTION }), partial.join(CHECKPOINT));
        let is_directory = checkpoint.is_dir();
        let to = if is_directory { checkpoint.join(SOLUTION) } else { beside.to_path_buf() };
        if !is_directory && self.export.overwrite {
            // What the file that goes was made of, it or nothing: never the next one's.
            partial::remove(&to)?;
        }
        if !self.keep_solution {
            return Ok(());
        }
        let rename = |from: &Path, to: &Path| {
            std::fs::rename(from, to).map_err(sparq_tensor::Error::io("move the solution to", to))
        };
        if tuned {
            rename(&partial.join(SOLUTION), &partial.join(UNTUNED))?;
        }
        Ok(rename(&from, &to)?)
    }
}

/// A norm or a bias, to be written in its type.
fn stored((dtype, values): &(DType, Array1<f32>)) -> TensorData<'_> {
    let values = values.view().into_dyn();
    match dtype {
        DType::F16 => TensorData::AsF16(values),
        DType::BF16 => TensorData::AsBF16(values),
        _ => TensorData::F32(values),
    }
}

/// Where the solution of a single file goes.
fn beside(destination: &Path) -> PathBuf {
    named(destination, ".sparq")
}

/// A path with this after its name.
fn named(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(ending);
    path.with_file_name(name)
}

/// What `recipe` will make of `model` in `format`, on disk: known before anything is solved.
///
/// # Errors
/// [`Error::Export`](crate::Error::Export) if the format cannot hold it, [`Error::Recipe`](crate::Error::Recipe) for targets that are no
/// globs.
///
/// # Examples
/// ```no_run
/// use sparq_export::{ExportSettings, Gguf};
/// use sparq_pipeline::{Recipe, planned_size};
/// let model = sparq_model::Model::open("models/SmolLM2-135M")?;
/// let recipe: Recipe = "s=0,q=4,group=64".parse()?;
/// let size = planned_size(&model, &recipe, &Gguf::default(), &ExportSettings::default())?;
/// println!("{} bytes, metadata and tokenizer among them", size.file_bytes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn planned_size(
    model: &Model,
    recipe: &Recipe,
    format: &dyn ExportFormat,
    settings: &ExportSettings,
) -> Result<PlannedSize> {
    Ok(sparq_export::planned_size(model.checkpoint(), &announced(model, recipe)?, format, settings)?)
}

/// The layers that `recipe` compresses and `format` cannot hold, whatever the others are, each with the reason.
///
/// # Errors
/// What the model's config and headers, and the recipe's patterns, give.
pub fn unfit_layers(
    model: &Model,
    recipe: &Recipe,
    format: &dyn ExportFormat,
) -> Result<BTreeMap<String, sparq_export::Error>> {
    let layers = announced(model, recipe)?;
    Ok(layers.into_iter().filter_map(|shape| Some((shape.name.clone(), format.check_layer(&shape).err()?))).collect())
}

/// Embedding and output matrix (none if it is the embedding) as a reader of `format` has them.
///
/// # Errors
/// What the format refuses, and what reading them gives.
pub fn vocabulary_in(
    model: &Model,
    recipe: &Recipe,
    format: &dyn ExportFormat,
    settings: &ExportSettings,
) -> Result<Vec<Array2<f32>>> {
    let layers = announced(model, recipe)?;
    let written = |(tensor, _)| Ok(sparq_export::carried_over(model.checkpoint(), &layers, format, settings, tensor)?);
    model.vocabulary_tensors().map(written).collect()
}

/// The rate at which a [`Coded`](sparq_export::Coded) checkpoint of `model` has weight files of `bytes`: a mean over the layers
/// that `recipe` compresses at a rate, and embedding and output matrix if it says so.
///
/// # Errors
/// [`Error::Size`](crate::Error::Size) if no rate gives this size, and those of [`planned_size`].
pub fn rate_for_size(model: &Model, recipe: &Recipe, bytes: u64, settings: &ExportSettings) -> Result<f64> {
    let layers = announced(model, recipe)?;
    let besides = sparq_export::bytes_besides_codes(model.checkpoint(), &layers, settings)?;
    let weights: usize = layers.iter().map(|layer| layer.shape[0] * layer.shape[1]).sum();
    let of_rate = |rate: f64| besides + (rate * weights as f64 / 8.0) as u64;
    let rate = (bytes.saturating_sub(besides)) as f64 * 8.0 / (weights as f64).max(1.0);
    if Step::RATES.contains(&rate) {
        return Ok(rate);
    }
    let (least, most) = (of_rate(*Step::RATES.start()), of_rate(*Step::RATES.end()));
    Err(Error::Size { wanted: bytes, least, most })
}

/// What the recipe will make of every layer, for formats to refuse before any work.
fn announced(model: &Model, recipe: &Recipe) -> Result<Vec<SolvedShape>> {
    let targets = recipe.targets.build()?;
    let mut layers = Vec::new();
    for index in 0..model.block_count() {
        let plan = model.block_plan(index)?;
        let chosen = plan.linears().iter().filter(|linear| targets.contains(&linear.name));
        layers.extend(chosen.filter_map(|linear| {
            let budget = recipe.budget(&linear.name);
            let (codes, pruned) = (recipe.code_layout(budget), !budget.sparsity.is_dense());
            let shape = SolvedShape {
                name: linear.name.clone(),
                shape: [linear.out_features, linear.in_features],
                codes,
                pruned,
                act_order: recipe.act_order,
                part: None,
            };
            (codes.is_some() || pruned).then(|| shape.stored(&linear.stored))
        }));
    }
    if recipe.embeddings.is_some() {
        layers.extend(model.vocabulary_tensors().map(|(tensor, shape)| {
            let name = tensor.strip_suffix(".weight").unwrap_or(tensor).to_owned();
            let codes = Some(CodeLayout::Steps);
            let announced = SolvedShape { name, shape, codes, pruned: false, act_order: recipe.act_order, part: None };
            announced.stored(&TensorPart::whole(tensor, shape))
        }));
    }
    Ok(layers)
}
