//! What a family of models tells the reader and the writer of GGUF files.

pub use crate::container::gguf::conventions::{Conventions, Role, Row};
pub use crate::container::gguf::family::{Families, Family, Layout};
pub use crate::container::gguf::fields::ConfigFields;
pub use crate::container::gguf::key_values::Entries;
pub use crate::container::gguf::model::{GgufModel, Keys, Sizes};
pub use crate::container::gguf::names::{to_gguf, to_hugging_face};
