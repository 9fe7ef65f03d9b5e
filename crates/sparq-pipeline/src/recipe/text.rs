//! Recipes as text (`s=0.25,q=4,group=64`) and as JSON, both from the table of keys.

use super::keys::{KEYS, Key, name_of, named};
use super::{Allocation, Preset, Recipe};
use crate::{Error, Result, Targets};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sparq_core::ScaleType;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The preset that settings start from if they name none.
fn implied<'a>(mut keys: impl Iterator<Item = &'a str>) -> Preset {
    let names_method = keys.any(|name| Key::find(name).is_some_and(|key| key.names_method));
    if names_method { Preset::Reference } else { Preset::default() }
}

impl Recipe {
    /// A recipe from its settings: the preset's, then each in turn.
    ///
    /// # Errors
    /// [`Error::Recipe`] for unknown keys and values out of range, [`Error::Compress`] for settings that cannot be combined.
    pub fn from_settings<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let settings: Vec<(&str, &str)> = settings.into_iter().collect();
        let bad = |reason: String| {
            let text: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
            Error::Recipe { recipe: text.join(","), reason }
        };
        let preset = match settings.iter().find(|(key, _)| *key == "preset") {
            Some((_, name)) => named(name).map_err(|error| bad(format!("preset={name}: {error}")))?,
            None => implied(settings.iter().map(|(key, _)| *key)),
        };
        let mut recipe = preset.recipe();
        for &(name, value) in settings.iter().filter(|(name, _)| *name != "preset") {
            let key = Key::find(name).ok_or_else(|| {
                let known: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
                bad(format!("unknown key {name:?}; known: preset, {}", known.join(", ")))
            })?;
            key.set(&mut recipe, value).map_err(|reason| bad(format!("{name}={value}: {reason}")))?;
        }
        if recipe.reference_compat && settings.iter().all(|(key, _)| *key != "scale") {
            recipe.scale_type = ScaleType::F32; // what the references round to
        }
        // A preset does not ask for what a pattern cannot have.
        recipe.act_order &=
            settings.iter().any(|(key, _)| *key == "act-order") || !recipe.chooses_pattern_along_sweep();
        recipe.solver()?;
        Ok(recipe)
    }

    /// What differs from a preset, sparsity and grid left out.
    fn differences(&self, preset: Preset) -> Vec<(&'static str, String)> {
        let mut base = preset.recipe();
        base.act_order &= !self.chooses_pattern_along_sweep();
        let keys = KEYS.iter().filter(|key| !key.is_budget).map(|key| (key.name, key.get(self), key.get(&base)));
        keys.filter(|(_, value, of_preset)| value != of_preset).map(|(name, value, _)| (name, value)).collect()
    }
}

impl fmt::Display for Recipe {
    /// Sparsity and bits, then what differs from the defaults, said in the shortest way.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = Preset::default().recipe();
        for (at, key) in KEYS.iter().filter(|key| key.is_budget).enumerate() {
            let value = key.get(self);
            // The grid counts only if there is one.
            let is_said = match key.name {
                "s" => true,
                "q" => self.rate.is_none(),
                "rate" | "embeddings" => !value.is_empty(),
                _ => self.bits.is_some() && value != key.get(&plain),
            };
            if is_said {
                write!(f, "{}{}={value}", if at == 0 { "" } else { "," }, key.name)?;
            }
        }
        let ways = Preset::ALL.map(|preset| {
            let mut settings = self.differences(preset);
            if implied(settings.iter().map(|(key, _)| *key)) != preset {
                settings.insert(0, ("preset", name_of(&preset)));
            }
            settings
        });
        let shortest = ways.into_iter().min_by_key(Vec::len).unwrap_or_default();
        shortest.into_iter().try_for_each(|(key, value)| write!(f, ",{key}={value}"))?;
        match &self.allocation {
            Some(allocation) => write!(f, ",allocation={}", allocation.short_hash()),
            None => Ok(()),
        }
    }
}

impl FromStr for Recipe {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let settings = text.split(',').map(str::trim).filter(|setting| !setting.is_empty()).map(|setting| {
            let (key, value) = setting.split_once('=').ok_or_else(|| Error::Recipe {
                recipe: text.to_owned(),
                reason: format!("{setting:?} is not key=value"),
            })?;
            Ok((key.trim(), value.trim()))
        });
        Self::from_settings(settings.collect::<Result<Vec<_>>>()?)
    }
}

/// A recipe as JSON: every setting by its key, as text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    settings: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allocation: Option<Allocation>,
    targets: Targets,
}

impl Serialize for Recipe {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let settings = KEYS.iter().map(|key| (key.name.to_owned(), key.get(self)));
        let settings = settings.filter(|(_, value)| !value.is_empty()).collect();
        Stored { settings, allocation: self.allocation.clone(), targets: self.targets.clone() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Recipe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        let settings = stored.settings.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let recipe = Self::from_settings([("preset", "reference")].into_iter().chain(settings));
        let recipe = recipe.map_err(serde::de::Error::custom)?;
        Ok(Self { allocation: stored.allocation, targets: stored.targets, ..recipe })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for text in [
            "s=0,q=16",
            "s=0,q=4",
            "s=2:4,q=4,group=64",
            "s=0.5,q=16,pruner=wanda",
            "s=0.25,q=3,group=channel,asymmetric=true,scale=f32,preset=fast,pruner=magnitude,pipeline=sequential-a,damping=0.1",
            "s=0.25,q=4,preset=best",
            "s=0,rate=2.5",
            "s=0,rate=2.5,embeddings=5",
            "s=2:4,rate=3,preset=best",
            "s=2:4,q=4,preset=best",
            "s=0.25,q=8,group=tensor,pipeline=joint,act-order=true",
            "s=0.5,q=4,refit=8,damping=0.1",
            "s=0.25,q=4,act-order=false",
            "s=0.25,q=4,expert-tokens=all",
            "s=0.5,q=4,held-out=0",
            "s=0.5,q=4,preset=best,held-out=0.5",
            "s=0.5,q=4,preset=fast",
            "s=0.5,q=4,preset=best,damping=0.1,shrinkage=0.5",
            "s=0.5,q=4,preset=reference",
            "s=2:4,q=4,preset=reference",
            "s=0.5,q=4,pipeline=joint,drift=0.25",
        ] {
            let recipe: Recipe = text.parse().expect(text);
            assert_eq!(recipe.to_string(), text);
            let json = serde_json::to_string(&recipe).expect("serializable");
            assert_eq!(serde_json::from_str::<Recipe>(&json).expect("round trip"), recipe);
        }
        for (text, shortest) in [
            ("s=0.5,q=4,preset=balanced", "s=0.5,q=4"),
            ("s=0.5,q=4,pruner=sparsegpt", "s=0.5,q=4,preset=reference"),
            ("s=0.5,q=4,pruner=wanda,quantizer=rtn,clip=mse", "s=0.5,q=4,preset=fast"),
        ] {
            assert_eq!(text.parse::<Recipe>().expect(text).to_string(), shortest);
        }
    }

    #[test]
    fn every_key_changes_the_recipe_and_comes_back() {
        let other = |key: &Key, value: &str| match (key.name, value) {
            ("s", _) => "0.5",
            ("q" | "rate" | "embeddings", _) => "3",
            ("group", _) => "32",
            ("tune", _) => "7",
            ("scale" | "forward", _) => "bf16",
            ("pruner", _) => "magnitude",
            ("quantizer", _) => "rtn",
            ("pipeline", _) => "sequential-a",
            ("clip", _) => "minmax",
            ("expert-tokens", _) => "all",
            (_, "true") => "false",
            (_, "false") => "true",
            (_, "0.25") => "0.125",
            _ => "0",
        };
        let base = Preset::Best.recipe();
        for key in KEYS {
            let mut changed = base.clone();
            let mut value = other(key, &key.get(&base)).to_owned();
            if value == key.get(&base) {
                value = "0.5".to_owned();
            }
            key.set(&mut changed, &value).expect(key.name);
            assert_eq!(key.get(&changed), value, "{}", key.name);
            let differing: Vec<&str> =
                KEYS.iter().filter(|key| key.get(&changed) != key.get(&base)).map(|key| key.name).collect();
            assert_eq!(differing, [key.name], "a key sets its own setting");
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for (text, word) in [
            ("s=1", "sparsity"),
            ("q=9", "bits"),
            ("q=four", "number of bits"),
            ("quantizer=awq", "awq"),
            ("s=0.25,q=4,quantizer=rtn,pipeline=joint", "rtn"),
            ("s=2:4,q=4,pruner=sparsegpt,act-order=true", "act-order"),
            ("damping=-1", "damping"),
            ("shrinkage=-1", "shrinkage"),
            ("refit=-1", "whole number"),
            ("drift=1.5", "drift"),
            ("s=0.5,q=4,preset=fast,drift=0.5", "Hessian"),
            ("s=0.5,q=4,preset=fast,held-out=0.25", "Hessian"),
            ("s=0.5,q=4,held-out=0.6", "held-out"),
            ("preset=magic", "magic"),
            ("rate=3,q=4", "width"),
            ("rate=3,preset=fast", "gptq"),
            ("rate=20", "12 bits"),
            ("s=0.5,q=4,refit=5,pipeline=joint", "refit"),
            ("group=0,q=4", "group"),
            ("group=-1,q=4", "channel (which others write as -1)"),
            ("expert-tokens=some", "some"),
            ("forward=f64", "f64"),
            ("speed=9", "unknown key"),
            ("q", "key=value"),
        ] {
            let error = text.parse::<Recipe>().expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
