//! Finding tasks by name or path.

use super::limits::read;
use super::{Task, TaskDefinition, built_in, record};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

impl Task {
    /// Finds and reads a task. `what` is one of
    /// * a `.toml` file: a definition, whose data files are relative to it;
    /// * another file: records. Data files of built-in tasks (such as `…/zero-shot/piqa.jsonl`) get the built-in
    ///   definition, others are lines of JSON and get the one their fields suggest, as in
    ///   [`from_jsonl`](Self::from_jsonl);
    /// * the name or alias of a built-in definition (`mmlu-pro` and `mmlu_pro` are the same), whose files are looked for
    ///   below `data`, with or without their folder.
    ///
    /// # Errors
    /// [`Error::UnknownTask`], [`Error::NoData`], [`Error::Read`]; those of [`from_texts`](Self::from_texts);
    /// [`Error::Definition`] if `what` is a group: see [`load_all`](Self::load_all).
    ///
    /// # Examples
    /// ```no_run
    /// use sparq_eval::Task;
    /// use std::path::Path;
    /// let piqa = Task::load("piqa", Some(Path::new("data")))?.limit(200, 0);
    /// let own = Task::load("tasks/quiz.toml", None)?;
    /// # Ok::<(), sparq_eval::Error>(())
    /// ```
    pub fn load(what: &str, data: Option<&Path>) -> Result<Self> {
        let mut tasks = Self::load_all(what, data)?;
        if tasks.len() == 1 {
            return Ok(tasks.remove(0));
        }
        let reason = format!("it is a group of {} tasks; load them all", tasks.len());
        Err(Error::Definition { file: what.to_owned(), reason })
    }

    /// As [`load`](Self::load), but the name of a group (such as `bbh`) or a `.toml` file with variants gives all its
    /// tasks, and `all` every built-in one.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    ///
    /// # Examples
    /// ```no_run
    /// use sparq_eval::Task;
    /// use std::path::Path;
    /// let bbh = Task::load_all("bbh", Some(Path::new("data")))?;
    /// assert_eq!(bbh.len(), 27);
    /// # Ok::<(), sparq_eval::Error>(())
    /// ```
    pub fn load_all(what: &str, data: Option<&Path>) -> Result<Vec<Self>> {
        let path = Path::new(what);
        // What looks like a file and is not there is no name either.
        let is_plain = path.extension().is_none() && path.components().count() == 1;
        if is_plain && !path.is_file() {
            return built_in::find(what)?.into_iter().map(|definition| Self::load_built_in(definition, data)).collect();
        }
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml")) {
            let folder = path.parent().unwrap_or(Path::new(""));
            let definitions = TaskDefinition::all_from_toml(what, &read(path)?)?;
            let load = |definition: TaskDefinition| {
                let beside = |files: &[String]| files.iter().map(|file| folder.join(file)).collect::<Vec<_>>();
                let (data, shots) = (beside(&definition.data), beside(&definition.shots.data));
                Self::read(definition, &data, &shots)
            };
            return definitions.into_iter().map(load).collect();
        }
        if let Some(definition) = built_in::of_data_file(path) {
            let folder = path.parent().unwrap_or(Path::new(""));
            let shots: Vec<PathBuf> = definition.shots.data.iter().filter_map(|file| beside(folder, file)).collect();
            return Ok(vec![Self::read(definition, &[path.to_owned()], &shots)?]);
        }
        let text = read(path)?;
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
        let definition = record::detect(&name, what, &text)?;
        Ok(vec![Self::from_texts(definition, &[(what, &text)])?])
    }

    fn load_built_in(definition: TaskDefinition, data: Option<&Path>) -> Result<Self> {
        let name = definition.name.clone();
        let no_data = |reason| Error::NoData { task: name.clone(), reason };
        let data = data.ok_or_else(|| no_data("a data directory is needed for built-in tasks".to_owned()))?;
        // With or without the folder that the definition names.
        let find = |file: &String| {
            let candidates = [Some(data.join(file)), beside(data, file)];
            candidates.into_iter().flatten().find(|path| path.is_file())
        };
        let paths = definition
            .data
            .iter()
            .map(|file| find(file).ok_or_else(|| no_data(format!("{} does not exist", data.join(file).display()))));
        let paths = paths.collect::<Result<Vec<_>>>()?;
        let shots: Vec<PathBuf> = definition.shots.data.iter().filter_map(find).collect();
        Self::read(definition, &paths, &shots)
    }

    fn read(definition: TaskDefinition, paths: &[PathBuf], shots: &[PathBuf]) -> Result<Self> {
        let texts = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let files: Vec<(&str, &str)> =
            names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_str())).collect();
        match shots.iter().find(|path| path.is_file()).filter(|_| definition.shots.count > 0) {
            Some(path) => {
                let (name, text) = (path.display().to_string(), read(path)?);
                Self::with_shots_from(definition, &files, Some((&name, &text)))
            }
            None => Self::with_shots_from(definition, &files, None),
        }
    }
}

/// The file of that name, without the folder it names, in `folder`.
fn beside(folder: &Path, file: &str) -> Option<PathBuf> {
    Path::new(file).file_name().map(|name| folder.join(name))
}
