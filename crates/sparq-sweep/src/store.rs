use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Finished measurements as files, named by the fingerprint of everything that decides them: a stale one is never
/// found, a damaged one counts as absent.
#[derive(Debug)]
pub(crate) struct Store {
    directory: PathBuf,
}

impl Store {
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        let directory = directory.join("measurements");
        let io = |source| Error::Io { action: "create", path: directory.clone(), source };
        std::fs::create_dir_all(&directory).map_err(io)?;
        Ok(Self { directory })
    }

    fn path(&self, fingerprint: &str) -> PathBuf {
        self.directory.join(format!("{fingerprint}.json"))
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, fingerprint: &str) -> Option<T> {
        let bytes = std::fs::read(self.path(fingerprint)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    pub(crate) fn put(&self, fingerprint: &str, value: &impl Serialize) -> Result<()> {
        write_whole(&self.path(fingerprint), &serde_json::to_vec(value)?)
    }
}

/// Temporary files that become results are for others to read, as far as the user's mask allows.
fn readable() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".partial-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

/// Writes a file so that readers see the old one or the new one.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |source| Error::Io { action: "write", path: path.to_owned(), source };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = readable().tempfile_in(parent).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(path).map_err(|error| io(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_count_as_absent() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path()).expect("opened");
        assert_eq!(store.get::<Vec<u8>>("a"), None);
        store.put("a", &vec![1_u8, 2]).expect("written");
        assert_eq!(store.get::<Vec<u8>>("a"), Some(vec![1, 2]));
        std::fs::write(store.path("a"), b"[1, 2").expect("written");
        assert_eq!(store.get::<Vec<u8>>("a"), None);
    }
}
