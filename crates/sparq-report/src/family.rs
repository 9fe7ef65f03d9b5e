//! How figures tell the families apart: by colour and by the shape of a marker, so that colour is not needed.

use crate::figure::{Mark, Px, text};
use sparq_sweep::Family;

/// All families, in the order of legends.
pub(crate) const FAMILIES: [Family; 3] = [Family::Quantization, Family::Joint, Family::Pruning];

/// The class of `style.css` that gives a family its colour.
pub(crate) fn class(family: Family) -> &'static str {
    match family {
        Family::Quantization => "quantization",
        Family::Joint => "joint",
        Family::Pruning => "pruning",
    }
}

/// A marker centred on a position: a circle, a square or a triangle.
pub(crate) fn marker(x: f64, y: f64, family: Family, hover: String) -> Mark {
    let class = class(family);
    match family {
        Family::Quantization => Mark::Circle { x: Px(x), y: Px(y), class, hover },
        Family::Joint => Mark::Square { x: Px(x - 5.0), y: Px(y - 5.0), class, hover },
        Family::Pruning => Mark::Triangle { x: Px(x), y: Px(y - 7.0), class, hover },
    }
}

/// The legend of the families that are present.
pub(crate) fn legend(present: &[Family]) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut at = 84.0;
    for family in FAMILIES.into_iter().filter(|family| present.contains(family)) {
        let name = family.to_string();
        marks.push(marker(at, 16.0, family, name.clone()));
        marks.push(text(at + 11.0, 20.0, "tick", &*name));
        at += 40.0 + 7.0 * name.len() as f64;
    }
    marks
}
