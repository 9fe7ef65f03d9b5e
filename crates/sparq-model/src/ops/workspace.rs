use ndarray::Array2;
use std::sync::{Mutex, PoisonError};

/// Arrays kept: a block pass has no more than this alive at one time.
const MOST_KEPT: usize = 8;

/// Memory of arrays that are done with, for the next ones: shared by the blocks of a model.
///
/// Without it every pass through a block asks the system for tens of megabytes and faults them in page by page, which
/// costs a tenth of the time. What is kept is at most what a pass needed anyway.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    free: Mutex<Vec<Vec<f32>>>,
}

impl Workspace {
    /// An array in standard layout whose content is arbitrary: to be overwritten.
    pub(crate) fn take(&self, rows: usize, columns: usize) -> Array2<f32> {
        let length = rows * columns;
        let mut data = self.reuse(length).unwrap_or_default();
        data.resize(length, 0.0);
        Array2::from_shape_vec((rows, columns), data).unwrap_or_else(|_| Array2::zeros((rows, columns)))
    }

    /// Gives an array's memory back.
    pub(crate) fn put(&self, array: Array2<f32>) {
        let (data, _) = array.into_raw_vec_and_offset();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if data.capacity() > 0 && free.len() < MOST_KEPT {
            free.push(data);
        }
    }

    /// Frees what is kept.
    pub(crate) fn clear(&self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The smallest kept vector with room for `length` elements. If none has, the largest is dropped instead, so that
    /// what is kept does not grow with the number of sizes asked for.
    fn reuse(&self, length: usize) -> Option<Vec<f32>> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = (0..free.len()).filter(|i| free[*i].capacity() >= length).min_by_key(|i| free[*i].capacity());
        if fitting.is_none()
            && let Some(largest) = (0..free.len()).max_by_key(|i| free[*i].capacity())
        {
            free.swap_remove(largest);
        }
        fitting.map(|index| free.swap_remove(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back() {
        let workspace = Workspace::default();
        let array = workspace.take(3, 4);
        let address = array.as_ptr();
        workspace.put(array);
        workspace.put(Array2::ones((100, 100)));
        let again = workspace.take(2, 5);
        assert_eq!((again.dim(), again.as_ptr()), ((2, 5), address));
        for _ in 0..20 {
            workspace.put(Array2::zeros((1, 1)));
        }
        assert!(workspace.free.lock().unwrap().len() <= MOST_KEPT);
        assert_eq!(workspace.take(0, 7).dim(), (0, 7));
        workspace.clear();
        assert!(workspace.free.lock().unwrap().is_empty());
    }
}
