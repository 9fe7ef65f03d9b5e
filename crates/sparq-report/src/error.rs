/// Why a report was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The page cannot be rendered.
    #[error("the page cannot be rendered: {0}")]
    Template(minijinja::Error),
    /// A file cannot be written.
    #[error(transparent)]
    Tensor(#[from] sparq_tensor::Error),
}

impl From<minijinja::Error> for Error {
    fn from(cause: minijinja::Error) -> Self {
        Self::Template(cause)
    }
}

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
