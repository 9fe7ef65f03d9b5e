use crate::Result;
use crate::page::Page;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value};
use sparq_sweep::SweepResults;

/// The results as one HTML page that needs nothing else: no network, no fonts, a few lines of script to sort tables.
///
/// Every text from outside (model names, task names, prompts, generated text) is escaped. Figures carry a title and a
/// description for screen readers, and follow the reader's light or dark scheme.
///
/// # Errors
/// [`Error::Template`](crate::Error::Template) if the page cannot be rendered.
pub fn html(results: &SweepResults) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // The name turns on escaping for HTML.
    environment.add_template("page.html", include_str!("page.html"))?;
    let page = environment.get_template("page.html")?.render(minijinja::context! {
        style => include_str!("style.css"),
        script => include_str!("script.js"),
        page => Value::from(Serde(Page::new(results))),
    })?;
    // HTML allows no control characters but white space; the template itself has none.
    Ok(page.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}"))
}
