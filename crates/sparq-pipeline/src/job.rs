use crate::sink::SOLUTION;
use crate::state::State;
use crate::{
    Calibration, Compression, CompressionReport, Error, Fingerprint, Observer, Phase, Recipe, Result, SolutionSink,
};
use sparq_export::{ExportFormat, ExportReport, ExportSettings, SolvedShape, export};
use sparq_model::Model;
use sparq_tensor::PlannedSize;
use std::fs::File;
use std::path::{Path, PathBuf};

const CHECKPOINT: &str = "checkpoint";
const LOCK: &str = "lock";

/// Compresses a checkpoint into a directory, and survives interruptions.
///
/// Until everything is done, work is kept beside the destination, in `DESTINATION.partial`: the layers solved so far and
/// what is needed to go on. The same job run again continues there, and ends with the same bytes as one that was never
/// interrupted. The destination appears whole, as the last step. Inside it, `sparq/` keeps the solution (codes, scales,
/// zero points, masks), so that other formats can be made of it without solving again.
///
/// | setting | default | meaning |
/// |---|---|---|
/// | [`export`](Self::export) | `ExportSettings::default()` | number types, size of files, overwriting |
/// | [`restart`](Self::restart) | no | discard an unfinished run |
/// | [`keep_solution`](Self::keep_solution) | yes | leave `sparq/` in the output |
/// | [`strict`](Self::strict) | no | fallbacks are errors |
/// | [`stop_after`](Self::stop_after) | never | stop once so many blocks are done |
/// | [`memory_budget`](Self::memory_budget) | none | bytes; activations beyond it wait in a file |
///
/// # Examples
/// ```no_run
/// use sparq_export::Dense;
/// use sparq_model::Model;
/// use sparq_pipeline::{Calibration, Job, Recipe};
/// let model = Model::open("models/SmolLM2-135M")?;
/// let recipe: Recipe = "s=0.25,q=4,group=64".parse()?;
/// let text = std::fs::read_to_string("calibration.txt")?;
/// let calibration = Calibration::from_text(model.tokenizer()?, &text, 32, 512, 0)?;
/// let done = Job::new(&model, &recipe, "out/smollm2-joint").calibration(Some(&calibration)).run(&Dense, &())?;
/// println!("{} bytes stored", done.export.stored_bytes);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Job<'a> {
    compression: Compression<'a>,
    destination: PathBuf,
    settings: ExportSettings,
    restart: bool,
    keep_solution: bool,
    memory_budget: Option<u64>,
}

/// What a job has made.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Done {
    /// How the layers came out.
    pub compression: CompressionReport,
    /// What was written.
    pub export: ExportReport,
}

impl<'a> Job<'a> {
    /// Compresses `model` according to `recipe` into the directory `destination`.
    pub fn new(model: &'a Model, recipe: &'a Recipe, destination: impl Into<PathBuf>) -> Self {
        Self {
            compression: Compression::new(model, recipe),
            destination: destination.into(),
            settings: ExportSettings::default(),
            restart: false,
            keep_solution: true,
            memory_budget: None,
        }
    }

    /// Calibrated on this text; may be missing if the recipe needs no data.
    pub fn calibration(mut self, calibration: Option<&'a Calibration>) -> Self {
        self.compression = self.compression.calibration(calibration);
        self
    }

    /// Written like this.
    pub fn export(mut self, settings: ExportSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Discards an unfinished run, whatever its settings.
    pub fn restart(mut self, on: bool) -> Self {
        self.restart = on;
        self
    }

    /// Leaves the solution in the output.
    pub fn keep_solution(mut self, on: bool) -> Self {
        self.keep_solution = on;
        self
    }

    /// As [`Compression::strict`].
    pub fn strict(mut self, on: bool) -> Self {
        self.compression = self.compression.strict(on);
        self
    }

    /// As [`Compression::stop_after`].
    pub fn stop_after(mut self, blocks: Option<usize>) -> Self {
        self.compression = self.compression.stop_after(blocks);
        self
    }

    /// As [`Compression::memory_budget`], with the file beside other unfinished work.
    pub fn memory_budget(mut self, bytes: Option<u64>) -> Self {
        self.memory_budget = bytes;
        self
    }

    /// Where work is kept until everything is done.
    pub fn partial(&self) -> PathBuf {
        self.named(".partial")
    }

    /// Where the solution of a single file goes.
    fn beside(&self) -> PathBuf {
        self.named(".sparq")
    }

    /// The destination with this after its name.
    fn named(&self, ending: &str) -> PathBuf {
        let mut name = self.destination.file_name().unwrap_or_default().to_os_string();
        name.push(ending);
        self.destination.with_file_name(name)
    }

    /// What [`run`](Self::run) refuses before any work, unfinished runs apart.
    ///
    /// # Errors
    /// [`Error::Export`] if the format cannot hold what the recipe makes, [`Error::Tensor`] if the destination exists or, to be
    /// overwritten, is no checkpoint; what [`Compression::plan`] refuses.
    pub fn check(&self, format: &dyn ExportFormat) -> Result<()> {
        let Compression { model, recipe, .. } = self.compression;
        sparq_tensor::check_replaceable(&self.destination, self.settings.overwrite)?;
        sparq_tensor::check_apart(&self.destination, model.checkpoint().path())?;
        // What a single file was made of lies beside it, and must not be lost to another run's.
        let (beside, is_resumed) = (self.beside(), self.partial().join(CHECKPOINT).is_file());
        let is_kept_beside = format.is_one_file() && self.keep_solution;
        if is_kept_beside && !self.settings.overwrite && !is_resumed && beside.exists() {
            return Err(sparq_tensor::Error::DestinationExists { path: beside }.into());
        }
        self.within_budget(&self.partial()).plan()?;
        Ok(sparq_export::check(model.checkpoint(), &announced(model, recipe)?, format, &self.settings)?)
    }

    fn within_budget<'b>(&'b self, partial: &'b Path) -> Compression<'b> {
        self.memory_budget.map_or(self.compression, |bytes| self.compression.memory_budget(bytes, partial))
    }

    /// Solves what is not solved yet, and writes the output in `format`.
    ///
    /// # Errors
    /// Before any work: those of [`check`](Self::check); [`Error::OtherRun`] if an unfinished run has other settings,
    /// [`Error::Busy`] if it is still running. Later: [`Error::Stopped`], [`Error::Strict`], and what reading and writing
    /// report; the unfinished run then stays as it is, and nothing is at the destination.
    pub fn run(&self, format: &dyn ExportFormat, observer: &dyn Observer) -> Result<Done> {
        let Compression { model, recipe, calibration, .. } = self.compression;
        let source = model.checkpoint();
        let partial = self.partial();
        if self.destination.exists() {
            remove_remains(&partial)?;
        }
        self.check(format)?;
        let fingerprint = Fingerprint::new(model, recipe, calibration)?;

        let lock = self.open_partial(&partial)?;
        let mut sink = SolutionSink::open(&partial, fingerprint, recipe.act_order)?;
        let mut compression = self.within_budget(&partial).run(&mut sink, observer)?;
        let solution = sink.finish()?;
        model.release_embeddings(); // an export has its own copy of what it writes
        let checkpoint = partial.join(CHECKPOINT);
        let settings = ExportSettings { overwrite: false, ..self.settings };
        let mut export = (compression.profile)
            .time(Phase::Export, 0, || export(source, &solution, format, &checkpoint, &settings))?;
        compression.profile.look_at_memory();
        drop(solution);
        self.keep(&partial)?;
        sparq_tensor::move_checkpoint(&checkpoint, &self.destination, self.settings.overwrite)?;
        export.path.clone_from(&self.destination);
        drop(lock);
        remove(&partial)?;
        Ok(Done { compression, export })
    }

    /// Moves the solution to where the output will have it: inside a directory, beside a single file.
    fn keep(&self, partial: &Path) -> Result<()> {
        let (from, checkpoint) = (partial.join(SOLUTION), partial.join(CHECKPOINT));
        let is_directory = checkpoint.is_dir();
        let to = if is_directory { checkpoint.join(SOLUTION) } else { self.beside() };
        if !is_directory && self.settings.overwrite {
            // What the file that goes was made of, it or nothing: never the next one's.
            remove(&to)?;
        }
        if !self.keep_solution {
            return Ok(());
        }
        std::fs::rename(&from, &to).map_err(|error| sparq_tensor::Error::io("move the solution to", &to)(error).into())
    }

    /// Creates the directory for unfinished work, or takes over what is there; nobody else may while the file lives.
    fn open_partial(&self, partial: &Path) -> Result<File> {
        std::fs::create_dir_all(partial).map_err(sparq_tensor::Error::io("create", partial))?;
        let path = partial.join(LOCK);
        let lock = File::create(&path).map_err(sparq_tensor::Error::io("create", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(Error::Busy { path: partial.to_path_buf() }),
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(sparq_tensor::Error::io("lock", &path)(error).into());
            }
        }
        let (solution, checkpoint) = (partial.join(SOLUTION), partial.join(CHECKPOINT));
        if self.restart {
            remove(&solution)?;
            remove(&checkpoint)?;
            State::remove(partial)?;
        }
        // Stopped between the last two renames: take the solution back, and export again.
        let moved = if checkpoint.is_file() { self.beside() } else { checkpoint.join(SOLUTION) };
        if !solution.exists() && moved.is_dir() {
            let back = std::fs::rename(&moved, &solution);
            back.map_err(sparq_tensor::Error::io("move back", &solution))?;
        }
        remove(&checkpoint)?; // left by a run that was killed while it exported
        remove_hidden(partial)?;
        Ok(lock)
    }
}

/// What `recipe` will make of `model` in `format`, on disk: known before anything is solved.
///
/// # Errors
/// [`Error::Export`] if the format cannot hold it, [`Error::Recipe`] for targets that are no globs.
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

/// What the recipe will make of every layer, for formats to refuse before any work.
fn announced(model: &Model, recipe: &Recipe) -> Result<Vec<SolvedShape>> {
    let targets = recipe.targets.build()?;
    let mut layers = Vec::new();
    for index in 0..model.block_count() {
        let plan = model.block_plan(index)?;
        let chosen = plan.linears().iter().filter(|linear| targets.contains(&linear.name));
        layers.extend(chosen.filter_map(|linear| {
            let budget = recipe.budget(&linear.name);
            let (scheme, pruned) = (recipe.scheme_of(budget), !budget.sparsity.is_dense());
            let shape = SolvedShape {
                name: linear.name.clone(),
                shape: [linear.out_features, linear.in_features],
                scheme,
                pruned,
                act_order: recipe.act_order,
                part: None,
            };
            (scheme.is_some() || pruned).then(|| shape.stored(&linear.stored))
        }));
    }
    Ok(layers)
}

/// Removes a file or a directory, if it is there.
fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(sparq_tensor::Error::io("remove", path)(error).into())
        }
        _ => Ok(()),
    }
}

/// Removes temporary directories that a killed export left.
fn remove_hidden(partial: &Path) -> Result<()> {
    let list = |error| sparq_tensor::Error::io("list", partial)(error);
    for entry in std::fs::read_dir(partial).map_err(list)? {
        let path = entry.map_err(list)?.path();
        if path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".")) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes the directory of a run that was killed after its output was in place, before it could clean up.
fn remove_remains(partial: &Path) -> Result<()> {
    let holds = |name: &str| partial.join(name).exists();
    let finished = State::read(partial).ok().flatten().is_some_and(|state| state.is_finished());
    if finished && !holds(SOLUTION) && !holds(CHECKPOINT) { remove(partial) } else { Ok(()) }
}
