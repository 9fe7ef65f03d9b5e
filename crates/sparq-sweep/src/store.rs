use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// Finished measurements as files, named by the fingerprint of everything that decides them: a stale one is never
/// found, a damaged one counts as absent.
#[derive(Debug)]
pub(crate) struct Store {
    /// None keeps nothing.
    directory: Option<PathBuf>,
}

impl Store {
    /// In this directory.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let directory = directory.join("measurements");
        let io = |cause| Error::Io { action: "create", path: directory.clone(), cause };
        std::fs::create_dir_all(&directory).map_err(io)?;
        Ok(Self { directory: Some(directory) })
    }

    /// In this directory, or one that keeps nothing.
    pub(crate) fn open_if_given(directory: Option<&Path>) -> Result<Self> {
        directory.map_or(Ok(Self { directory: None }), Self::open)
    }

    /// Whether anything is kept.
    pub(crate) fn keeps(&self) -> bool {
        self.directory.is_some()
    }

    fn path(&self, fingerprint: &str) -> Option<PathBuf> {
        self.directory.as_ref().map(|directory| directory.join(format!("{fingerprint}.json")))
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, fingerprint: &str) -> Option<T> {
        let bytes = std::fs::read(self.path(fingerprint)?).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(crate) fn put(&self, fingerprint: &str, value: &impl Serialize) -> Result<()> {
        let Some(path) = self.path(fingerprint) else { return Ok(()) };
        Ok(sparq_tensor::write_file(path, &serde_json::to_vec(value)?)?)
    }
}

/// The fingerprint of parts that decide a measurement.
pub(crate) fn fingerprint(parts: &[&str]) -> String {
    sparq_tensor::digest(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_directory_nothing_is_kept() {
        let store = Store::open_if_given(None).expect("opened");
        store.put("a", &1).expect("nothing to fail");
        assert!(!store.keeps() && store.get::<u8>("a").is_none());
    }

    #[test]
    fn damaged_files_count_as_absent() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path()).expect("opened");
        assert_eq!(store.get::<Vec<u8>>("a"), None);
        store.put("a", &vec![1_u8, 2]).expect("written");
        assert_eq!(store.get::<Vec<u8>>("a"), Some(vec![1, 2]));
        std::fs::write(store.path("a").expect("kept"), b"[1, 2").expect("written");
        assert_eq!(store.get::<Vec<u8>>("a"), None);
    }
}
