use crate::Hessian;
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

/// Statistics that several layers share (q/k/v; gate/up), or several steps of one method, with what was derived from them:
/// a factor of the Hessian is made once and serves pruner, quantizer and all layers with the same inputs.
///
/// One result is kept, the last: as much memory as that takes. What is derived is a pure function of the statistics, so
/// sharing changes no bit of any result.
///
/// # Examples
/// ```
/// use ndarray::{array, Array2};
/// use sparq_core::{Hessian, LayerProblem, SharedHessian};
/// let shared = SharedHessian::new(Hessian::Full { matrix: Array2::eye(2), tokens: 8 });
/// let weight = array![[1.0_f32, -2.0]];
/// let trace = |hessian: &Hessian| hessian.diagonal().map(|diagonal| diagonal.sum());
/// let q = LayerProblem::sharing("q", weight.view(), &shared)?.derive(0, trace);
/// let k = LayerProblem::sharing("k", weight.view(), &shared)?.derive::<Option<f32>>(0, |_| None); // it is there
/// assert_eq!((*q, *k), (Some(2.0), Some(2.0)));
/// # Ok::<(), sparq_core::CompressError>(())
/// ```
#[derive(Debug)]
pub struct SharedHessian {
    hessian: Hessian,
    last: Mutex<Option<(u64, Arc<dyn Any + Send + Sync>)>>,
}

impl SharedHessian {
    /// Statistics from which nothing is derived yet.
    pub fn new(hessian: Hessian) -> Self {
        Self { hessian, last: Mutex::new(None) }
    }

    /// The statistics.
    pub fn hessian(&self) -> &Hessian {
        &self.hessian
    }

    /// The statistics, without what was derived from them.
    pub fn into_hessian(self) -> Hessian {
        self.hessian
    }

    /// What `make` derives, or what it derived before if that was the last thing of this type and `key`. The key stands
    /// for the settings that go into it.
    pub fn derive<T: Any + Send + Sync>(&self, key: u64, make: impl FnOnce(&Hessian) -> T) -> Arc<T> {
        // The lock is not held while `make` runs: it may compute in parallel and so come across other callers.
        let kept = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, value)) = kept.filter(|(known, _)| *known == key)
            && let Ok(value) = value.downcast::<T>()
        {
            return value;
        }
        let made = Arc::new(make(&self.hessian));
        let value: Arc<dyn Any + Send + Sync> = made.clone();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((key, value));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_result_is_kept_for_its_key_and_type() {
        let shared = SharedHessian::new(Hessian::None);
        let first = shared.derive(1, |_| 10_u32);
        assert!(Arc::ptr_eq(&first, &shared.derive(1, |_| 11_u32)));
        assert_eq!(*shared.derive(2, |_| 12_u32), 12); // other settings
        assert_eq!(*shared.derive(2, |_| "a"), "a"); // another kind
        assert_eq!(*shared.derive(1, |_| 13_u32), 13); // no longer the last
    }
}
