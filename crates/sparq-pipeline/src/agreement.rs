use serde::Serialize;
use serde::de::DeserializeOwned;
use sparq_core::{CompressError, Ranks};

/// What `find` gives on the first process, for all of them, so that all go on alike; others do not run it.
///
/// # Errors
/// Those of `find`; [`CompressError::Ranks`] if the value does not reach a process.
///
/// # Examples
/// ```
/// use sparq_core::{CompressError, Ranks};
/// let lines = sparq_pipeline::on_first(&Ranks::default(), || Ok::<_, CompressError>(vec!["a".to_owned()]))?;
/// assert_eq!(lines, ["a"]);
/// # Ok::<(), CompressError>(())
/// ```
pub fn on_first<T, E>(ranks: &Ranks, find: impl FnOnce() -> Result<T, E>) -> Result<T, E>
where
    T: Serialize + DeserializeOwned,
    E: From<CompressError>,
{
    let unreadable = |error: serde_json::Error| CompressError::Ranks { rank: ranks.rank(), what: error.to_string() };
    let mut message = Vec::new();
    if ranks.is_first() {
        let found = find()?;
        if ranks.is_alone() {
            return Ok(found);
        }
        message = serde_json::to_vec(&found).map_err(unreadable)?;
    }
    Ok(serde_json::from_slice(&ranks.broadcast(0, message)?).map_err(unreadable)?)
}
