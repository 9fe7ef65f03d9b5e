//! A directory in memory whose files are written over from one execution to the next.

use std::path::{Path, PathBuf};
use tempfile::TempDir;

thread_local! {
    static DIRECTORY: TempDir = {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        TempDir::new_in(parent).expect("a directory")
    };
}

/// Path of `name` in the directory.
pub(crate) fn path(name: &str) -> PathBuf {
    let path = DIRECTORY.with(|directory| directory.path().join(name));
    std::fs::create_dir_all(path.parent().expect("it has one")).expect("created");
    path
}

/// Writes `bytes` to `name`.
pub(crate) fn put(name: &str, bytes: &[u8]) -> PathBuf {
    let path = path(name);
    std::fs::write(&path, bytes).expect("written");
    path
}
