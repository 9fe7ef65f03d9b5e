use super::cells::{escape, number, perplexity};
use super::{certainty, figures, layer_map, table, timing};
use crate::{ConfigurationResult, Family, SweepResults, Verdict};
use std::fmt::Write;

/// The results as one HTML page that needs nothing else: no network, no fonts, a few lines of script for sorting only.
///
/// Every text from outside (model names, task names, prompts, generated text) is escaped.
pub fn html(results: &SweepResults) -> String {
    let mut body = String::new();
    let name = escape(&results.model.name);
    let _ = write!(body, "<h1>What survives the compression of {name}</h1>");
    headline(&mut body, results);
    compared(&mut body, results);
    configurations(&mut body, results);
    let _ = write!(
        body,
        "<h2>Retention and divergence over compression</h2><div class=\"figures\">{}{}</div>\
         <p class=\"soft\">TCr = 1 − (1 − s)·q/16 compares configurations at equal theoretical compression; it ignores \
         masks, scales and zero points. Points at one rate are drawn side by side.</p>",
        figures::retention(results),
        figures::divergence(results)
    );
    let _ = write!(
        body,
        "<h2>SrCr over sparsity and bits</h2><div class=\"figures\">{}</div><p class=\"soft\">SrCr = Sr · \
         [1 − (1 − √s)(1 − log₂(16/q)/4)], this project's own equation of the published shape. The marked cell is the \
         largest; dashed cells were not measured, and show what they could reach if everything were kept.</p>",
        figures::srcr_grid(results)
    );
    if !results.base.tasks.is_empty() {
        let _ = write!(
            body,
            "<h2>Task by task</h2><div class=\"figures small\">{}</div><p class=\"soft\">Sr on each task, labelled \
             sparsity · bits, with 95 % intervals; the vertical line is the base.</p>",
            figures::tasks(results)
        );
    }
    excluded(&mut body, results);
    groups(&mut body, results);
    body += &certainty::section(results);
    layers(&mut body, results);
    body += &timing::section(results);
    samples(&mut body, results);
    reproduce(&mut body, results);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\
         <title>sparq: {name}</title><style>{}</style></head><body>{body}<script>{}</script></body></html>\n",
        include_str!("style.css"),
        include_str!("script.js")
    )
}

fn headline(body: &mut String, results: &SweepResults) {
    if let Some(summary) = summary(results) {
        let _ = write!(body, "<p id=\"headline\"><strong>{}</strong></p>", escape(&summary));
    }
    for verdict in &results.verdicts {
        let _ = write!(body, "<p class=\"headline\">{}</p>", escape(&verdict.sentence));
    }
    if let Some(best) = results.best_srcr.and_then(|best| results.configurations.get(best)) {
        let _ = write!(
            body,
            "<p>Largest SrCr: <strong>{}</strong> ({}), {}.</p>",
            escape(&best.recipe),
            best.family,
            number(best.srcr.unwrap_or_default(), 3)
        );
    }
    if results.configurations.is_empty() {
        body.push_str("<p class=\"headline\">No configuration was measured.</p>");
    }
}

/// The verdicts in one sentence: how often which family keeps more.
fn summary(results: &SweepResults) -> Option<String> {
    let family = |index: usize| results.configurations.get(index).map(|configuration| configuration.family);
    let of_two = |verdict: &&Verdict| {
        verdict.difference.is_some() && verdict.runner_up.and_then(family) != family(verdict.winner)
    };
    let compared: Vec<&Verdict> = results.verdicts.iter().filter(of_two).collect();
    if compared.is_empty() {
        return None;
    }
    let claims = |verdict: &&&Verdict| verdict.difference.is_some_and(|interval| interval.excludes_zero());
    let wins = |of: Family| compared.iter().filter(claims).filter(|verdict| family(verdict.winner) == Some(of)).count();
    let families = [Family::Joint, Family::Quantization, Family::Pruning].map(|family| (family, wins(family)));
    let total = compared.len();
    let mut parts: Vec<String> = (families.iter().filter(|(_, wins)| *wins > 0))
        .map(|(family, wins)| format!("{family} keeps more at {wins} of {total}"))
        .collect();
    let ties = total - families.iter().map(|(_, wins)| wins).sum::<usize>();
    if ties > 0 {
        parts.push(format!("at {ties} of {total} the best two cannot be told apart"));
    }
    Some(format!("Compression rates compared by what is kept of the tasks: {}.", parts.join("; ")))
}

fn compared(body: &mut String, results: &SweepResults) {
    let settings = &results.settings;
    let tasks: Vec<String> =
        results.base.tasks.iter().map(|task| format!("{} ({} items)", escape(&task.name), task.items)).collect();
    let tasks = if tasks.is_empty() { "no tasks".to_owned() } else { tasks.join(", ") };
    let _ = write!(
        body,
        "<p class=\"soft\">{} configurations of a {} model with {:.1} M parameters ({:.1} M weights in the compressed \
         layers), calibrated on {} tokens of {}, judged on {} tokens of {} and on {tasks}. Intervals are 95 %, from a \
         paired bootstrap over items.</p>",
        results.configurations.len(),
        escape(&results.model.architecture),
        results.model.parameters as f64 / 1e6,
        results.model.compressed_weights as f64 / 1e6,
        settings.calibration_tokens,
        escape(&settings.calibration),
        settings.text_tokens,
        escape(&settings.text),
    );
}

fn configurations(body: &mut String, results: &SweepResults) {
    let rows = table::rows(results);
    body.push_str("<h2>All configurations</h2><div class=\"scroll\"><table class=\"sortable\" id=\"table\">");
    for (index, row) in rows.iter().enumerate() {
        let tag = if index == 0 { "th" } else { "td" };
        body.push_str(match index {
            0 => "<thead><tr>",
            1 => "<tbody><tr>",
            _ => "<tr>",
        });
        for cell in row {
            let _ = write!(body, "<{tag}>{}</{tag}>", escape(cell));
        }
        body.push_str(if index == 0 { "</tr></thead>" } else { "</tr>" });
    }
    body.push_str("</tbody></table></div>");
    let sixteen = 2.0 * results.model.parameters as f64 / 1e6;
    let _ = write!(
        body,
        "<p class=\"soft\">Requested and real: <em>zeros</em> is the measured fraction of weights that are exactly 0.0 \
         (rounding adds some), <em>bits/w</em> counts codes, scales and zero points. The 16-bit original takes \
         {sixteen:.1} MB. A dense checkpoint of any of these configurations takes <strong>the same {sixteen:.1} \
         MB</strong>: pruning alone makes no file smaller, and zeros and codes save space only in a format that stores \
         them.</p>"
    );
}

fn excluded(body: &mut String, results: &SweepResults) {
    let Some(first) = results.configurations.first() else { return };
    let mut lines: Vec<String> = Vec::new();
    if let Some(kept) = &first.retention {
        lines.extend(kept.excluded.iter().map(ToString::to_string));
    }
    lines.extend(first.retention_missing.clone());
    if !lines.is_empty() {
        body.push_str("<p>Left out of Sr, because the base itself is not clearly above chance:</p><ul>");
        for line in lines {
            let _ = write!(body, "<li>{}</li>", escape(&line));
        }
        body.push_str("</ul>");
    }
}

/// The tasks of each group one by one: the group counts as one task above.
fn groups(body: &mut String, results: &SweepResults) {
    for group in results.base.tasks.iter().filter(|task| !task.members.is_empty()) {
        let _ = write!(
            body,
            "<details><summary>The {} tasks of {} one by one (accuracy, per cent)</summary><div class=\"scroll\"><table \
             class=\"sortable\"><thead><tr><th>task</th><th>items</th><th>chance</th><th>base</th>",
            group.members.len(),
            escape(&group.name)
        );
        for configuration in &results.configurations {
            let _ = write!(body, "<th>{}</th>", escape(&configuration.recipe));
        }
        body.push_str("</tr></thead><tbody>");
        for member in &group.members {
            let share = |value: f64| number(100.0 * value, 1);
            let _ = write!(
                body,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{} ± {}</td>",
                escape(&member.name),
                member.items,
                share(member.chance),
                share(member.accuracy),
                share(member.standard_error)
            );
            for configuration in &results.configurations {
                let same_group = configuration.tasks.iter().find(|task| task.name == group.name);
                let found = same_group.and_then(|task| task.members.iter().find(|other| other.name == member.name));
                let shown = found.map_or_else(String::new, |found| share(found.accuracy));
                let _ = write!(body, "<td>{shown}</td>");
            }
            body.push_str("</tr>");
        }
        body.push_str("</tbody></table></div></details>");
    }
}

fn layers(body: &mut String, results: &SweepResults) {
    let shown = results.best_srcr.unwrap_or(0);
    if results.configurations.iter().all(|configuration| configuration.layers.is_empty()) {
        return;
    }
    body.push_str(
        "<h2>Layer by layer</h2><p class=\"soft\">Relative output error on calibration tokens, damping where layers \
         differ in it, and the seconds that solving took. Errors show where a solver struggles; they do not rank methods.</p>",
    );
    for (index, configuration) in results.configurations.iter().enumerate() {
        let open = if index == shown { " open" } else { "" };
        let fallbacks: Vec<String> =
            configuration.layers.iter().filter(|l| !l.fallbacks.is_empty()).map(fallback_line).collect();
        let _ = write!(
            body,
            "<details{open}><summary>{}</summary><div class=\"wide\">{}{}{}</div>",
            escape(&configuration.recipe),
            layer_map::errors(configuration, &format!("figure-layers-{index}")),
            layer_map::damping(configuration, &format!("figure-damping-{index}")),
            layer_map::seconds(configuration, &format!("figure-seconds-{index}"))
        );
        if fallbacks.is_empty() {
            body.push_str("<p class=\"soft\">No layer needed a fallback.</p>");
        } else {
            let _ = write!(body, "<p>{} layers needed a fallback:</p><ul>{}</ul>", fallbacks.len(), fallbacks.concat());
        }
        body.push_str("</details>");
    }
}

fn fallback_line(layer: &sparq_pipeline::LayerReport) -> String {
    let steps: Vec<String> = layer.fallbacks.iter().map(ToString::to_string).collect();
    format!("<li>{}: {}</li>", escape(&layer.name), escape(&steps.join("; ")))
}

fn samples(body: &mut String, results: &SweepResults) {
    let shown: Option<&ConfigurationResult> =
        results.best_srcr.and_then(|best| results.configurations.get(best)).or(results.configurations.first());
    let Some(shown) = shown.filter(|shown| !shown.samples.is_empty()) else { return };
    let _ = write!(
        body,
        "<h2>Side by side</h2><p class=\"soft\">Greedy continuations of held-out text by the base and by {}; the others are \
         folded below each.</p>",
        escape(&shown.recipe)
    );
    for (index, sample) in shown.samples.iter().enumerate() {
        let _ = write!(
            body,
            "<section class=\"sample\"><p><span class=\"soft\">{}.</span> {}</p><div class=\"pair\"><div><span \
             class=\"soft\">base</span><p>{}</p></div><div><span class=\"soft\">{}</span><p>{}</p></div></div>",
            index + 1,
            escape(&sample.prompt),
            escape(&sample.base),
            escape(&shown.recipe),
            escape(&sample.compressed)
        );
        let others = results.configurations.iter().filter(|other| other.recipe != shown.recipe);
        let others: Vec<(&str, &str)> = others
            .filter_map(|other| Some((other.recipe.as_str(), other.samples.get(index)?.compressed.as_str())))
            .collect();
        if !others.is_empty() {
            body.push_str("<details><summary>the other configurations</summary><dl>");
            for (recipe, text) in others {
                let _ = write!(body, "<dt>{}</dt><dd>{}</dd>", escape(recipe), escape(text));
            }
            body.push_str("</dl></details>");
        }
        body.push_str("</section>");
    }
}

fn reproduce(body: &mut String, results: &SweepResults) {
    let (settings, machine) = (&results.settings, &results.machine);
    let facts: Vec<(&str, String)> = vec![
        ("command", settings.command.clone().unwrap_or_else(|| "library call".to_owned())),
        ("sparq", results.version.clone()),
        ("model files, SHA-256", results.model.content_hash.clone()),
        ("settings and data, SHA-256", settings.fingerprint.clone()),
        ("seed, bootstrap resamples", format!("{}, {}", settings.seed, settings.resamples)),
        (
            "calibration",
            format!(
                "{}, {} sequences, {} tokens",
                settings.calibration, settings.calibration_sequences, settings.calibration_tokens
            ),
        ),
        (
            "held-out text",
            format!("{}, {} tokens scored in windows of {}", settings.text, settings.text_tokens, settings.window),
        ),
        ("items of a task", settings.limit.map_or_else(|| "all".to_owned(), |limit| format!("at most {limit}"))),
        (
            "machine",
            format!(
                "{}, {}, {} threads",
                machine.platform,
                machine.processor.as_deref().unwrap_or("unknown processor"),
                machine.threads
            ),
        ),
        (
            "base",
            format!(
                "perplexity {}, evaluated in {} s",
                perplexity(results.base.perplexity),
                number(results.base.seconds, 0)
            ),
        ),
    ];
    body.push_str("<h2>To reproduce</h2><div class=\"scroll\"><table>");
    for (name, value) in facts {
        let _ = write!(
            body,
            "<tr><td>{name}</td><td style=\"text-align:left;white-space:normal\"><code>{}</code></td></tr>",
            escape(&value)
        );
    }
    body.push_str("</table></div>");
    tasks_used(body, results);
}

/// Where every task comes from, with its fingerprint.
fn tasks_used(body: &mut String, results: &SweepResults) {
    if results.settings.tasks.is_empty() {
        return;
    }
    body.push_str(
        "<details><summary>The tasks: source, licence, fingerprint</summary><div class=\"scroll\"><table class=\"facts\"><thead><tr>\
         <th>task</th><th>items</th><th>worked examples</th><th>follows</th><th>source</th><th>licence</th><th>SHA-256</th>\
         </tr></thead><tbody>",
    );
    for task in &results.settings.tasks {
        let items = match task.skipped {
            0 => task.items.to_string(),
            skipped => format!("{} ({skipped} of the data cannot be asked)", task.items),
        };
        let _ = write!(
            body,
            "<tr><td>{}</td><td>{items}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td><code>{}</code></td></tr>",
            escape(&task.name),
            task.shots,
            escape(&task.mirrors),
            escape(&task.source),
            escape(&task.licence),
            escape(&task.fingerprint)
        );
    }
    body.push_str("</tbody></table></div></details>");
}
