use crate::{Calibration, Recipe, Result, Targets};
use serde::{Deserialize, Serialize};
use sparq_model::Model;
use std::collections::{BTreeMap, BTreeSet};

/// What a solve depends on, field by field: two runs with equal fingerprints give the same bits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(BTreeMap<String, String>);

impl Fingerprint {
    /// Of this model, recipe and calibration. Reads the whole checkpoint once: a second or two per gigabyte.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) if the checkpoint cannot be read.
    pub fn new(model: &Model, recipe: &Recipe, calibration: Option<&Calibration>) -> Result<Self> {
        let targets = &recipe.targets;
        let named = Recipe { allocation: None, targets: Targets::default(), ..recipe.clone() };
        let mut fields = BTreeMap::from([
            ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("model".to_owned(), model.checkpoint().content_hash()?),
            ("recipe".to_owned(), recipe.to_string()),
            // What a recipe's text leaves to the defaults, which a later version may set otherwise.
            ("settings".to_owned(), serde_json::to_string(&named).unwrap_or_default()),
            ("targets".to_owned(), format!("{:?} without {:?}", targets.include, targets.ignore)),
        ]);
        if let Some(allocation) = &recipe.allocation {
            fields.insert("allocation".to_owned(), serde_json::to_string(allocation).unwrap_or_default());
        }
        if let Some(calibration) = calibration {
            fields.insert("calibration".to_owned(), calibration.fingerprint());
            fields.extend(calibration.settings().into_iter().map(|(name, value)| (name.to_owned(), value)));
        }
        Ok(Self(fields))
    }

    /// The first field in which `other` differs, with the value here and there. What explains most comes first.
    pub(crate) fn difference(&self, other: &Self) -> Option<(String, String, String)> {
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        // Hashes and lists of all settings say least: they are named only if nothing else differs.
        let (plain, rest): (Vec<&String>, Vec<&String>) =
            names.into_iter().partition(|name| !matches!(name.as_str(), "calibration" | "model" | "settings"));
        let of = |fields: &Self, name: &str| fields.0.get(name).cloned().unwrap_or_else(|| "none".to_owned());
        plain
            .into_iter()
            .chain(rest)
            .map(|name| (name.clone(), of(self, name), of(other, name)))
            .find(|(_, then, now)| then != now)
    }

    pub(crate) fn into_fields(self) -> BTreeMap<String, String> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_readably_where_it_can_be() {
        let of = |fields: &[(&str, &str)]| {
            Fingerprint(fields.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
        };
        let then = of(&[("calibration", "0a"), ("recipe", "1"), ("settings", "{}")]);
        let named = |now: &[(&str, &str)]| then.difference(&of(now)).map(|(field, ..)| field);
        assert_eq!(named(&[("calibration", "0a"), ("recipe", "1"), ("settings", "{}")]), None);
        assert_eq!(named(&[("calibration", "0b"), ("recipe", "2"), ("settings", "{a}")]).as_deref(), Some("recipe"));
        // Equal text, other defaults.
        assert_eq!(named(&[("calibration", "0a"), ("recipe", "1"), ("settings", "{a}")]).as_deref(), Some("settings"));
    }
}
