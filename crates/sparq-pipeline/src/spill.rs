//! Matrices that wait in a file instead of in memory.

use crate::Result;
use crate::matrix_io::{read_matrix, write_matrix};
use ndarray::Array2;
use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A file without a name, gone with the process, of one region for each batch.
#[derive(Debug)]
pub(crate) struct SpillFile {
    file: File,
    /// Where it lies, for messages.
    directory: PathBuf,
    regions: Vec<Region>,
    end: u64,
}

#[derive(Debug, Clone, Default)]
struct Region {
    start: u64,
    capacity: u64,
    shapes: Vec<(usize, usize)>,
}

impl SpillFile {
    /// An empty file in `directory`.
    pub(crate) fn create(directory: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(directory)
            .map_err(sparq_tensor::Error::io("create a file for waiting activations in", directory))?;
        Ok(Self { file, directory: directory.to_path_buf(), regions: Vec::new(), end: 0 })
    }

    /// Keeps the matrices of batch `index`, in place of what was kept of it before. A batch that is new gets a place of
    /// `most` bytes, so that it need not move when it grows.
    pub(crate) fn write(&mut self, index: usize, most: u64, matrices: &[Array2<f32>]) -> Result<()> {
        let size: u64 = matrices.iter().map(|matrix| 4 * matrix.len() as u64).sum();
        if self.regions.len() <= index {
            self.regions.resize_with(index + 1, Region::default);
        }
        let region = &mut self.regions[index];
        if size > region.capacity {
            (region.start, region.capacity) = (self.end, size.max(most));
            self.end += region.capacity;
        }
        region.shapes = matrices.iter().map(Array2::dim).collect();
        let start = region.start;
        let write = || {
            let mut file = BufWriter::with_capacity(1 << 20, &self.file);
            file.seek(SeekFrom::Start(start))?;
            matrices.iter().try_for_each(|matrix| write_matrix(&mut file, matrix.view()))?;
            file.flush()
        };
        let io = sparq_tensor::Error::io("write waiting activations to a file in", &self.directory);
        write().map_err(|error| io(error).into())
    }

    /// Reads what was kept of batch `index`.
    pub(crate) fn read(&self, index: usize) -> Result<Vec<Array2<f32>>> {
        let Some(region) = self.regions.get(index) else { return Ok(Vec::new()) };
        let read = || {
            let mut file = BufReader::with_capacity(1 << 20, &self.file);
            file.seek(SeekFrom::Start(region.start))?;
            region.shapes.iter().map(|&shape| read_matrix(&mut file, shape)).collect::<std::io::Result<_>>()
        };
        let io = sparq_tensor::Error::io("read waiting activations from a file in", &self.directory);
        read().map_err(|error| io(error).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_whatever_its_size() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut spill = SpillFile::create(directory.path()).expect("a file");
        let matrix = |rows: usize, value: f32| Array2::from_shape_fn((rows, 3), |(i, j)| value + (i * 3 + j) as f32);
        spill.write(0, 12 * 9, &[matrix(2, 0.5), matrix(1, 7.0)]).expect("written");
        spill.write(2, 12, &[matrix(4, 1.0)]).expect("written"); // more than was announced
        spill.write(0, 0, &[matrix(9, -2.0)]).expect("written"); // as much as was
        assert_eq!(spill.end, 12 * (9 + 4));
        spill.write(2, 0, &[matrix(5, 0.25)]).expect("written"); // outgrows its place
        assert_eq!(spill.end, 12 * (9 + 4 + 5));
        spill.write(2, 0, &[matrix(1, f32::MIN_POSITIVE / 2.0)]).expect("written");
        assert_eq!(spill.read(0).expect("read"), [matrix(9, -2.0)]);
        assert_eq!(spill.read(2).expect("read"), [matrix(1, f32::MIN_POSITIVE / 2.0)]);
        assert!(spill.read(1).expect("read").is_empty() && spill.read(5).expect("read").is_empty());
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 0);
    }
}
