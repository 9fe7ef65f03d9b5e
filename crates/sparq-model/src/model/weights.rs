use crate::Result;
use ndarray::Array2;
use sparq_tensor::Checkpoint;
use std::sync::{Arc, Mutex, PoisonError};

/// A matrix that is read when first used and can be dropped again.
#[derive(Debug)]
pub(super) struct LazyMatrix {
    name: String,
    matrix: Mutex<Option<Arc<Array2<f32>>>>,
}

impl LazyMatrix {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), matrix: Mutex::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn get(&self, checkpoint: &Checkpoint) -> Result<Arc<Array2<f32>>> {
        let mut slot = self.matrix.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(matrix) = &*slot {
            return Ok(Arc::clone(matrix));
        }
        let matrix = Arc::new(checkpoint.read_matrix(&self.name)?);
        *slot = Some(Arc::clone(&matrix));
        Ok(matrix)
    }

    pub(super) fn release(&self) {
        *self.matrix.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
