//! GGUF's tensor names in Hugging Face's words, by the tables of a family.

use super::conventions::Role;
use super::family::Family;

/// The Hugging Face name of a tensor of a file with so many `blocks`, and its role; `None` if it has none. The name of an
/// expert's matrix has `*` where the expert's number goes.
pub fn to_hugging_face(family: &dyn Family, name: &str, blocks: u64) -> Option<(String, Role)> {
    let conventions = family.conventions();
    if let Some((_, translated, role)) = conventions.top_level.iter().find(|(gguf, ..)| *gguf == name) {
        return Some(((*translated).to_owned(), *role));
    }
    let (block, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let number: u64 = block.parse().ok()?;
    // The comparison also refuses other spellings of a number, such as 01, that would name one block twice.
    if number >= blocks || number.to_string() != block {
        return None;
    }
    let (module, kind) = rest.rsplit_once('.')?;
    if !matches!(kind, "weight" | "bias") {
        return None;
    }
    let (_, translated, role) = conventions.modules.iter().copied().flatten().find(|(gguf, ..)| *gguf == module)?;
    if kind == "bias" && *role == Role::Experts {
        return None;
    }
    Some((format!("{}{number}.{translated}.{kind}", conventions.blocks), *role))
}

/// The inverse of [`to_hugging_face`]: GGUF's name of a tensor, its role, and the number of the expert it belongs to.
pub fn to_gguf(family: &dyn Family, name: &str) -> Option<(String, Role, Option<u64>)> {
    let (conventions, name) = (family.conventions(), &*family.todays_name(name));
    if let Some((translated, _, role)) = conventions.top_level.iter().find(|(_, theirs, _)| *theirs == name) {
        return Some(((*translated).to_owned(), *role, None));
    }
    let (block, rest) = name.strip_prefix(conventions.blocks)?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    let fits = |theirs: &str| match theirs.split_once('*') {
        None => (theirs == module).then_some(None),
        Some((before, after)) => {
            let digits = module.strip_prefix(before)?.strip_suffix(after)?;
            let expert: u64 = digits.parse().ok()?;
            (expert.to_string() == digits).then_some(Some(expert))
        }
    };
    let mut modules = conventions.modules.iter().copied().flatten();
    let (translated, role, expert) = modules.find_map(|(ours, theirs, role)| Some((ours, *role, fits(theirs)?)))?;
    let translated = format!("blk.{block}.{translated}.{kind}");
    // Whatever does not come back as it was has no name there.
    let (back, _) = to_hugging_face(family, &translated, u64::MAX)?;
    let back = expert.map_or_else(|| back.clone(), |expert| back.replace('*', &expert.to_string()));
    (back == name).then_some((translated, role, expert))
}
