//! Small files that are written whole or not at all, and hashes of large ones.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::destination::{parent_of, sync_directory};
use crate::{Error, Result, files};

/// Bytes hashed at a time.
const CHUNK: usize = 1 << 20;

/// Writes `bytes` to `path`, replacing what is there by renaming: readers see the old file or the new one, never half
/// of it, and after a return the new one survives a crash of the machine.
///
/// # Errors
/// [`Error::Io`]; then the old file, if any, is untouched and nothing else is left.
///
/// # Examples
/// ```
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("report.json");
/// sparq_tensor::write_file(&path, b"{}")?;
/// assert_eq!(sparq_tensor::read_file(&path, 100)?, b"{}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_file(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    replace_file(path, |file| file.write_all(bytes).map_err(Error::io("write", path)))
}

/// As [`write_file`], with what `write` puts into the file; it is buffered. Returns the SHA-256 of the contents, in
/// hexadecimal.
///
/// # Errors
/// [`Error::Io`], also with what `write` returns.
pub fn write_file_with(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<String> {
    let path = path.as_ref();
    let mut hash = Sha256::new();
    replace_file(path, |file| {
        let mut hashing = Hashing { file, hash: &mut hash };
        write(&mut hashing).map_err(Error::io("write", path))
    })?;
    Ok(format!("{:x}", hash.finalize()))
}

/// Hashes what goes through.
struct Hashing<'a> {
    file: &'a mut dyn Write,
    hash: &'a mut Sha256,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Puts what `write` writes in the place of `path`, durably and in one step.
pub(crate) fn replace_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let parent = parent_of(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(PARTIAL_PREFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask, as for any file
    let mut file = builder.tempfile_in(parent).map_err(Error::io("create a temporary file in", parent))?;
    let mut buffer = std::io::BufWriter::with_capacity(CHUNK, file.as_file_mut());
    write(&mut buffer)?;
    buffer.flush().map_err(Error::io("write", path))?;
    drop(buffer);
    file.as_file().sync_all().map_err(Error::io("flush", path))?;
    file.persist(path).map_err(|error| Error::io("rename the finished file to", path)(error.error))?;
    sync_directory(parent)
}

/// How the names of files begin that are not finished; a killed process leaves them behind.
const PARTIAL_PREFIX: &str = ".partial-";

/// Removes what killed processes left in `directory` of files they were writing with [`write_file`],
/// [`write_file_with`] or [`write_safetensors_file`](crate::write_safetensors_file). Nobody may be writing there.
///
/// # Errors
/// [`Error::Io`].
pub fn remove_unfinished_files(directory: impl AsRef<Path>) -> Result<()> {
    let directory = directory.as_ref();
    for entry in std::fs::read_dir(directory).map_err(Error::io("list", directory))? {
        let path = entry.map_err(Error::io("list", directory))?.path();
        let unfinished =
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PARTIAL_PREFIX.as_bytes()));
        if unfinished && path.is_file() {
            std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// [`Error::Io`], [`Error::Malformed`] for a larger file.
pub fn read_file(path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>> {
    files::read_limited(path.as_ref(), limit)
}

/// SHA-256 of a file of any size, in hexadecimal.
///
/// # Errors
/// [`Error::Io`].
pub fn file_sha256(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut buffer).map_err(Error::io("read", path))? {
            0 => return Ok(format!("{:x}", hash.finalize())),
            length => hash.update(&buffer[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_whole_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write_file(&path, b"one").unwrap();
        let failed = write_file_with(&path, |file| {
            file.write_all(b"two")?;
            Err(std::io::Error::other("no more"))
        });
        assert!(failed.unwrap_err().to_string().contains("file"));
        assert_eq!(read_file(&path, 3).unwrap(), b"one");
        assert!(read_file(&path, 2).is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        // FIPS 180-2, appendix B.1, for "abc".
        let hash = write_file_with(&path, |file| file.write_all(b"a").and_then(|()| file.write_all(b"bc"))).unwrap();
        assert_eq!(hash, file_sha256(&path).unwrap());
        assert_eq!(file_sha256(&path).unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(write_file(directory.path().join("no/such/directory"), b"").is_err());
        std::fs::write(directory.path().join(".partial-abc"), b"half").unwrap();
        remove_unfinished_files(directory.path()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
