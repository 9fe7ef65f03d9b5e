//! Recipes as text: `s=0.25,q=4,group=64`.

use super::{DEFAULT_GROUP, Preset, Recipe};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use sparq_core::{Bits, Granularity, QuantScheme, ScaleType, Sparsity};
use std::fmt;
use std::str::FromStr;

/// Every key that text may hold.
const KEYS: [&str; 24] = [
    "preset",
    "s",
    "q",
    "pattern",
    "pruner",
    "group",
    "asymmetric",
    "scale",
    "quantizer",
    "clip",
    "act-order",
    "pipeline",
    "refit",
    "mask-rounds",
    "descent",
    "scale-fit",
    "drift",
    "residual-drift",
    "damping",
    "shrinkage",
    "held-out",
    "forward",
    "expert-tokens",
    "reference-compat",
];
/// Keys that name a published method, and with it the preset that adds nothing.
const METHODS: [&str; 4] = ["pruner", "quantizer", "pipeline", "reference-compat"];

/// Name of a plain enum value as serde writes it.
fn name_of(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn value_of<T: for<'a> Deserialize<'a>>(text: &str) -> std::result::Result<T, String> {
    serde_json::from_value(serde_json::Value::from(text)).map_err(|error| error.to_string())
}

/// The preset that a text with these keys starts from if it names none.
fn implied<'a>(mut keys: impl Iterator<Item = &'a str>) -> Preset {
    if keys.any(|key| METHODS.contains(&key)) { Preset::Reference } else { Preset::default() }
}

impl Recipe {
    /// What differs from a preset, sparsity and grid left out.
    fn differences(&self, preset: Preset) -> Vec<(&'static str, String)> {
        let base = preset.recipe();
        let mut settings = Vec::new();
        let mut put = |differs: bool, key, value: String| {
            if differs {
                settings.push((key, value));
            }
        };
        put(self.pruner != base.pruner, "pruner", name_of(&self.pruner));
        put(self.quantizer != base.quantizer, "quantizer", name_of(&self.quantizer));
        put(self.clip != base.clip, "clip", name_of(&self.clip).replace('_', ""));
        put(self.act_order != base.act_order, "act-order", self.act_order.to_string());
        if let Some(pipeline) = self.pipeline {
            put(self.pipeline != base.pipeline, "pipeline", name_of(&pipeline));
        }
        put(self.refit != base.refit, "refit", self.refit.to_string());
        put(self.mask_rounds != base.mask_rounds, "mask-rounds", self.mask_rounds.to_string());
        put(self.descent != base.descent, "descent", self.descent.to_string());
        put(self.scale_fit != base.scale_fit, "scale-fit", self.scale_fit.to_string());
        put(self.drift != base.drift, "drift", self.drift.to_string());
        put(self.residual_drift != base.residual_drift, "residual-drift", self.residual_drift.to_string());
        put(self.damping != base.damping, "damping", self.damping.to_string());
        put(self.shrinkage != base.shrinkage, "shrinkage", self.shrinkage.to_string());
        put(self.held_out != base.held_out, "held-out", self.held_out.to_string());
        put(self.forward != base.forward, "forward", name_of(&self.forward));
        put(self.expert_tokens != base.expert_tokens, "expert-tokens", name_of(&self.expert_tokens));
        put(self.reference_compat != base.reference_compat, "reference-compat", self.reference_compat.to_string());
        settings
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s={},q={}", self.sparsity, self.bits())?;
        if let Some(scheme) = self.scheme {
            match scheme.granularity {
                Granularity::Group(DEFAULT_GROUP) => {}
                Granularity::Group(size) => write!(f, ",group={size}")?,
                other => write!(f, ",group={}", name_of(&other))?,
            }
            if !scheme.symmetric {
                f.write_str(",asymmetric=true")?;
            }
            if scheme.scale_type != ScaleType::default() {
                write!(f, ",scale={}", name_of(&scheme.scale_type))?;
            }
        }
        // The shortest way to say it.
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
        let bad = |reason: String| Error::Recipe { recipe: text.to_owned(), reason };
        let settings = text.split(',').map(str::trim).filter(|setting| !setting.is_empty());
        let settings = settings.map(|setting| {
            let (key, value) = setting.split_once('=').ok_or_else(|| bad(format!("{setting:?} is not key=value")))?;
            Ok((key.trim(), value.trim()))
        });
        let settings = settings.collect::<Result<Vec<_>>>()?;
        let preset = match settings.iter().find(|(key, _)| *key == "preset") {
            Some((_, name)) => value_of(name).map_err(|error| bad(format!("preset={name:?}: {error}")))?,
            None => implied(settings.iter().map(|(key, _)| *key)),
        };
        let mut recipe = preset.recipe();
        let orders = settings.iter().any(|(key, _)| *key == "act-order");
        let (mut bits, mut scheme, mut pattern) = (None, Self::default_scheme(Bits::B4), None);
        for (key, value) in settings {
            let named = |error: String| bad(format!("{key}={value:?}: {error}"));
            let parsed = |what: &str| bad(format!("{key}={value:?} is not {what}"));
            let flag = || value.parse::<bool>().map_err(|_| parsed("true or false"));
            let count = || value.parse::<usize>().map_err(|_| parsed("a whole number"));
            let number = || value.parse::<f64>().map_err(|_| parsed("a number"));
            match key {
                "preset" => {}
                "s" | "sparsity" => recipe.sparsity = value.parse()?,
                "pattern" if value == "unstructured" => pattern = None,
                "pattern" => pattern = Some(value.parse::<Sparsity>()?),
                "pruner" => recipe.pruner = value_of(value).map_err(named)?,
                "q" if value == "16" => bits = None,
                "q" => bits = Some(Bits::new(value.parse().map_err(|_| parsed("a number of bits"))?)?),
                "group" | "group-size" => {
                    scheme.granularity = match value {
                        "channel" => Granularity::Channel,
                        "tensor" => Granularity::Tensor,
                        size => scheme.group(size.parse().map_err(|_| parsed("a number of channels"))?)?.granularity,
                    }
                }
                "asymmetric" => scheme.symmetric = !flag()?,
                "scale" => scheme.scale_type = value_of(value).map_err(named)?,
                "quantizer" => recipe.quantizer = value_of(value).map_err(named)?,
                "clip" => recipe.clip = value_of(&value.replace("minmax", "min_max")).map_err(named)?,
                "act-order" => recipe.act_order = flag()?,
                "pipeline" => recipe.pipeline = Some(value_of(value).map_err(named)?),
                "refit" => recipe.refit = count()?,
                "mask-rounds" => recipe.mask_rounds = count()?,
                "descent" => recipe.descent = count()?,
                "scale-fit" => recipe.scale_fit = flag()?,
                "drift" => recipe.drift = number()?,
                "residual-drift" => recipe.residual_drift = flag()?,
                "damping" => recipe.damping = number()?,
                "shrinkage" => recipe.shrinkage = number()?,
                "held-out" => recipe.held_out = number()?,
                "forward" => recipe.forward = value_of(value).map_err(named)?,
                "expert-tokens" => recipe.expert_tokens = value_of(value).map_err(named)?,
                "reference-compat" => recipe.reference_compat = flag()?,
                "allocation" => return Err(bad("an allocation is too long for text: give its file".into())),
                _ => return Err(bad(format!("unknown key {key:?}; known: {}", KEYS.join(", ")))),
            }
        }
        if let Some(pattern) = pattern {
            let (asked, given) = (recipe.sparsity.fraction(), pattern.fraction());
            if asked != 0.0 && (asked - given).abs() > 1e-9 {
                return Err(bad(format!("s={asked} contradicts pattern={pattern}, which removes {given}")));
            }
            recipe.sparsity = pattern;
        }
        if !orders && matches!(recipe.sparsity, Sparsity::NOfM { .. }) {
            // A preset does not ask for what a pattern cannot have.
            recipe.act_order = false;
        }
        recipe.scheme = bits.map(|bits| QuantScheme { bits, ..scheme });
        recipe.compressor()?;
        Ok(recipe)
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
            "s=0.25,q=8,group=tensor,act-order=true,pipeline=joint",
            "s=0.5,q=4,refit=8,damping=0.1",
            "s=0.25,q=4,expert-tokens=all",
            "s=0.5,q=4,held-out=0",
            "s=0.5,q=4,preset=best,held-out=0.5",
            "s=0.5,q=4,preset=fast",
            "s=0.5,q=4,preset=best,damping=0.1,shrinkage=0.5",
            "s=0.5,q=4,preset=reference",
            "s=0.5,q=4,pipeline=joint,drift=0.25,residual-drift=false",
        ] {
            let recipe: Recipe = text.parse().expect(text);
            assert_eq!(recipe.to_string(), text);
            let json = serde_json::to_string(&recipe).expect("serializable");
            assert_eq!(serde_json::from_str::<Recipe>(&json).expect("round trip"), recipe);
        }
        for (text, shortest) in [
            ("s=0.5,q=4,preset=balanced", "s=0.5,q=4"),
            ("s=2:4,q=4,preset=best", "s=2:4,q=4,mask-rounds=4,descent=10"), // no act-order with a pattern
            ("s=0.5,q=4,pruner=sparsegpt", "s=0.5,q=4,preset=reference"),
            ("s=0.5,q=4,pruner=wanda,quantizer=rtn,clip=mse", "s=0.5,q=4,preset=fast"),
        ] {
            assert_eq!(text.parse::<Recipe>().expect(text).to_string(), shortest);
        }
        assert_eq!("s=0.5,pattern=2:4,q=4".parse::<Recipe>().expect("valid").to_string(), "s=2:4,q=4");
    }

    #[test]
    fn stored_recipes_keep_their_meaning() {
        // Written before descent and drift existed.
        let mut json = serde_json::to_value(Recipe { refit: 5, ..Preset::Reference.recipe() }).expect("serializable");
        for new in ["descent", "scale_fit", "drift", "residual_drift", "forward"] {
            assert!(json.as_object_mut().expect("an object").remove(new).is_some(), "{new}");
        }
        let recipe: Recipe = serde_json::from_value(json).expect("old recipes are read");
        assert_eq!((recipe.refit, recipe.descent, recipe.drift), (5, 0, 0.0));
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for (text, word) in [
            ("s=1", "sparsity"),
            ("q=9", "bits"),
            ("q=four", "number of bits"),
            ("quantizer=awq", "awq"),
            ("s=0.25,pattern=2:4", "contradicts"),
            ("s=0.25,q=4,quantizer=rtn,pipeline=joint", "rtn"),
            ("s=2:4,q=4,act-order=true", "act-order"),
            ("damping=-1", "damping"),
            ("shrinkage=-1", "shrinkage"),
            ("refit=-1", "whole number"),
            ("drift=1.5", "drift"),
            ("s=0.5,q=4,preset=fast,drift=0.5", "Hessian"),
            ("s=0.5,q=4,preset=fast,held-out=0.25", "Hessian"),
            ("s=0.5,q=4,held-out=0.6", "held-out"),
            ("preset=magic", "magic"),
            ("s=0.5,q=4,refit=5,pipeline=joint", "refit"),
            ("group=0,q=4", "group"),
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
