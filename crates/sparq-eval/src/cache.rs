//! Results that are kept on disk.

use crate::error::cause_of;
use crate::fingerprint::fingerprint;
use crate::{Error, Result, TaskResult, TextBaseline, TextEvaluation};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use sparq_tensor::{digest, write_file_with};
use std::path::{Path, PathBuf};

/// A folder of results of models, each under the hash of everything that decides it: the model's content, the settings
/// and data of the task or text, and the version of this crate.
///
/// A change of any of these changes the name, so a stale result is never found. A file is checked before it is used. If
/// its content does not match its name and its checksum, it counts as absent: the result is computed again and replaces
/// it.
///
/// # Examples
/// ```no_run
/// use sparq_eval::{Evaluation, ResultCache, Task};
/// let base = sparq_model::Model::open("models/SmolLM2-135M")?;
/// let hash = base.checkpoint().content_hash().map_err(sparq_model::Error::from)?;
/// let evaluation = Evaluation::new().with_task(Task::load("data/zero-shot/piqa.jsonl", None)?);
/// let cache = ResultCache::open("evaluation-cache".as_ref())?;
/// let baseline = evaluation.baseline_cached(&base, &hash, &cache, &())?; // the second time at once
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ResultCache {
    directory: PathBuf,
}

/// First line of a file: what it holds.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    /// The key it was written under.
    key: String,
    /// [`digest`] of all bytes after the header.
    checksum: String,
    /// Rows and columns of a matrix.
    shape: Option<(usize, usize)>,
}

impl ResultCache {
    /// Uses the folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`Error::Cache`].
    pub fn open(directory: &Path) -> Result<Self> {
        let failed = |cause| Error::Cache { path: directory.to_owned(), cause };
        std::fs::create_dir_all(directory).map_err(failed)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// A model's result on the task of that fingerprint, if it is kept and undamaged.
    pub fn task(&self, content_hash: &str, task_fingerprint: &str) -> Option<TaskResult> {
        let (_, bytes) = self.get(&key("task", content_hash, task_fingerprint), "json")?;
        let result: TaskResult = serde_json::from_slice(&bytes).ok()?;
        (result.fingerprint == task_fingerprint).then_some(result)
    }

    /// Keeps a model's result on a task.
    ///
    /// # Errors
    /// [`Error::Cache`].
    pub fn keep_task(&self, content_hash: &str, result: &TaskResult) -> Result<()> {
        let key = key("task", content_hash, &result.fingerprint);
        // Plain data: serialising it to memory does not fail. If it did, the file would not parse and count as absent.
        self.put(&key, "json", None, &serde_json::to_vec(result).unwrap_or_default())
    }

    /// A model's hidden states over a text, `[tokens scored, hidden]`, if they are kept and undamaged.
    pub fn hidden(&self, content_hash: &str, text: &TextEvaluation) -> Option<Array2<f32>> {
        let (header, bytes) = self.get(&key("hidden", content_hash, text.fingerprint()), "f32")?;
        let (rows, columns) = header.shape?;
        if rows != text.tokens_scored() || Some(bytes.len()) != rows.checked_mul(columns)?.checked_mul(size_of::<f32>())
        {
            return None;
        }
        let (values, _) = bytes.as_chunks::<4>();
        let values = values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Array2::from_shape_vec((rows, columns), values).ok()
    }

    /// Keeps a model's hidden states over a text.
    ///
    /// # Errors
    /// [`Error::Cache`].
    pub fn keep_hidden<M>(&self, content_hash: &str, text: &TextEvaluation, baseline: &TextBaseline<M>) -> Result<()> {
        let hidden = baseline.hidden();
        let bytes: Vec<u8> = hidden.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.put(&key("hidden", content_hash, text.fingerprint()), "f32", Some(hidden.dim()), &bytes)
    }

    fn path(&self, key: &str, extension: &str) -> PathBuf {
        self.directory.join(format!("{key}.{extension}"))
    }

    fn get(&self, key: &str, extension: &str) -> Option<(Header, Vec<u8>)> {
        let mut bytes = std::fs::read(self.path(key, extension)).ok()?;
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let payload = bytes.split_off(end + 1);
        let header: Header = serde_json::from_slice(&bytes).ok()?;
        (header.key == key && header.checksum == digest([&payload])).then_some((header, payload))
    }

    fn put(&self, key: &str, extension: &str, shape: Option<(usize, usize)>, payload: &[u8]) -> Result<()> {
        let path = self.path(key, extension);
        let header = Header { key: key.to_owned(), checksum: digest([payload]), shape };
        let header = serde_json::to_vec(&header).unwrap_or_default();
        let written = write_file_with(&path, |file| {
            [header.as_slice(), b"\n", payload].into_iter().try_for_each(|part| file.write_all(part))
        });
        written.map(drop).map_err(|error| Error::Cache { path, cause: cause_of(error) })
    }
}

fn key(kind: &str, content_hash: &str, inner: &str) -> String {
    fingerprint("cache", &(kind, content_hash, inner, env!("CARGO_PKG_VERSION")), &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fake;
    use crate::{Evaluation, Task, TextSettings};
    use sparq_model::Precision;

    type Damage = fn(&[u8]) -> Vec<u8>;

    fn evaluation() -> Evaluation {
        let tokens = (0..90_u32).map(|i| i * i % 128).collect();
        let text = TextEvaluation::new(tokens, TextSettings { length: 30, ..TextSettings::default() }).unwrap();
        let task = Task::from_jsonl("t", r#"{"question": "q", "choices": ["one", "two"], "answer": 0}"#).unwrap();
        Evaluation::new().with_text(text).with_task(task)
    }

    #[test]
    fn kept_results_come_back_without_work() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ResultCache::open(&folder.path().join("deep/cache")).unwrap();
        let (evaluation, model) = (evaluation(), Fake::new(1));
        let first = evaluation.baseline_cached(&model, "hash", &cache, &()).unwrap();
        let fresh = Fake::new(1);
        let second = evaluation.baseline_cached(&fresh, "hash", &cache, &()).unwrap();
        assert_eq!(fresh.done()[0], 0, "no token ran through the model");
        assert_eq!(first.tasks, second.tasks);
        let scores = |baseline: &crate::Baseline<Fake>| baseline.text.as_ref().unwrap().scores().clone();
        assert_eq!(scores(&first), scores(&second));
        let report = evaluation.evaluate_cached(&fresh, "hash", &cache, None, &()).unwrap();
        assert_eq!(report.tasks, first.tasks);
        // Another model or other settings find nothing.
        let other = Fake::new(2);
        let different = evaluation.baseline_cached(&other, "other hash", &cache, &()).unwrap();
        assert_ne!(different.tasks[0].items[0].log_likelihoods, first.tasks[0].items[0].log_likelihoods);
        let rougher = Fake { precision: Precision::Bf16, ..Fake::new(1) };
        evaluation.baseline_cached(&rougher, "hash", &cache, &()).unwrap();
        assert_ne!(rougher.done()[0], 0, "kept in another precision");
    }

    #[test]
    fn damaged_files_are_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ResultCache::open(folder.path()).unwrap();
        let (evaluation, model) = (evaluation(), Fake::new(1));
        let first = evaluation.baseline_cached(&model, "hash", &cache, &()).unwrap();
        let files: Vec<PathBuf> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 2);
        let good: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        let damages: [Damage; 5] = [
            |bytes| bytes[..bytes.len() - 1].to_vec(),
            |bytes| [&bytes[..bytes.len() - 2], &[bytes[bytes.len() - 2] ^ 1, bytes[bytes.len() - 1]]].concat(),
            |bytes| bytes[1..].to_vec(),
            |_| Vec::new(),
            |_| b"{}\n".to_vec(),
        ];
        for damage in damages {
            for (file, bytes) in files.iter().zip(&good) {
                std::fs::write(file, damage(bytes)).unwrap();
            }
            let again = evaluation.baseline_cached(&Fake::new(1), "hash", &cache, &()).unwrap();
            assert_eq!(again.tasks, first.tasks);
            for (file, bytes) in files.iter().zip(&good) {
                assert!(std::fs::read(file).unwrap() == *bytes, "replaced by what it was");
            }
        }
        // A file that was renamed is not accepted under its new name.
        std::fs::write(&files[0], &good[1]).unwrap();
        assert_eq!(evaluation.baseline_cached(&Fake::new(1), "hash", &cache, &()).unwrap().tasks, first.tasks);
    }
}
