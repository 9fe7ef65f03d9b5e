//! What the page says, section by section. The template `page.html` turns it into HTML.

use crate::cells::{number, perplexity, with_interval};
use crate::figure::Figure;
use crate::layer_map::layer_maps;
use crate::scatter::{Rate, divergence, retention};
use crate::srcr_grid::srcr_grid;
use crate::table;
use crate::task_plots::task_plots;
use crate::timing::{Timing, timing};
use serde::Serialize;
use sparq_sweep::{ConfigurationResult, Difference, Family, SweepResults, TaskAccuracy, Verdict};

/// Everything on the page, as text and figures. Nothing is escaped yet.
#[derive(Debug, Serialize)]
pub(crate) struct Page<'a> {
    model: &'a str,
    headline: Option<String>,
    verdicts: Vec<&'a str>,
    best: Option<Best<'a>>,
    overview: Overview<'a>,
    /// The table of all configurations, its header first.
    table: Vec<Vec<String>>,
    /// Retention and divergence over each rate.
    scatters: Vec<Figure>,
    srcr: Figure,
    tasks: Vec<Figure>,
    /// Why tasks are left out of Sr.
    excluded: Vec<String>,
    groups: Vec<Group<'a>>,
    comparisons: &'a str,
    pairs: Vec<[String; 6]>,
    tests: Vec<[String; 7]>,
    layers: Vec<Layers<'a>>,
    timing: Option<Timing>,
    samples: Option<Samples<'a>>,
    facts: Vec<(&'static str, String)>,
    sources: Vec<[String; 7]>,
}

/// The configuration of the largest SrCr.
#[derive(Debug, Serialize)]
struct Best<'a> {
    recipe: &'a str,
    family: String,
    srcr: String,
}

#[derive(Debug, Serialize)]
struct Overview<'a> {
    configurations: usize,
    architecture: &'a str,
    /// In millions.
    parameters: String,
    /// In millions, those of the compressed layers.
    weights: String,
    /// Size of the model in 16 bits, in MB.
    sixteen_bits: String,
    calibration_tokens: usize,
    calibration: &'a str,
    text_tokens: usize,
    text: &'a str,
    tasks: String,
}

/// The tasks of a group one by one.
#[derive(Debug, Serialize)]
struct Group<'a> {
    name: &'a str,
    recipes: Vec<&'a str>,
    rows: Vec<Vec<String>>,
}

/// The maps of one configuration, and the layers that needed a fallback.
#[derive(Debug, Serialize)]
struct Layers<'a> {
    recipe: &'a str,
    is_open: bool,
    maps: Vec<Figure>,
    fallbacks: Vec<String>,
}

/// Continuations of the base, of one configuration, and of the others.
#[derive(Debug, Serialize)]
struct Samples<'a> {
    recipe: &'a str,
    items: Vec<SampleItem<'a>>,
}

#[derive(Debug, Serialize)]
struct SampleItem<'a> {
    prompt: &'a str,
    base: &'a str,
    compressed: &'a str,
    /// Recipe and continuation.
    others: Vec<(&'a str, &'a str)>,
}

impl<'a> Page<'a> {
    pub(crate) fn new(results: &'a SweepResults) -> Self {
        let best = results.best_srcr.and_then(|best| results.configurations.get(best));
        Self {
            model: &results.model.name,
            headline: headline(results),
            verdicts: results.verdicts.iter().map(|verdict| verdict.sentence.as_str()).collect(),
            best: best.map(|best| Best {
                recipe: &best.recipe,
                family: best.family.to_string(),
                srcr: number(best.srcr.unwrap_or_default(), 3),
            }),
            overview: overview(results),
            table: table::rows(results),
            scatters: [Rate::Theoretical, Rate::Measured]
                .into_iter()
                .flat_map(|rate| [retention(results, rate), divergence(results, rate)])
                .collect(),
            srcr: srcr_grid(results),
            tasks: task_plots(results),
            excluded: excluded(results),
            groups: groups(results),
            comparisons: &results.comparisons,
            pairs: pairs(results),
            tests: tests(results),
            layers: layers(results),
            timing: timing(results),
            samples: samples(results),
            facts: facts(results),
            sources: sources(results),
        }
    }
}

/// The verdicts in one sentence: how often each family keeps more.
fn headline(results: &SweepResults) -> Option<String> {
    let family = |index: usize| results.configurations.get(index).map(|configuration| configuration.family);
    let between_families = |verdict: &&Verdict| {
        verdict.difference.is_some() && verdict.runner_up.and_then(family) != family(verdict.winner)
    };
    let compared: Vec<&Verdict> = results.verdicts.iter().filter(between_families).collect();
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

fn overview(results: &SweepResults) -> Overview<'_> {
    let (model, settings) = (&results.model, &results.settings);
    let millions = |count: usize| number(count as f64 / 1e6, 1);
    let tasks: Vec<String> =
        results.base.tasks.iter().map(|task| format!("{} ({} items)", task.name, task.items)).collect();
    Overview {
        configurations: results.configurations.len(),
        architecture: &model.architecture,
        parameters: millions(model.parameters),
        weights: millions(model.compressed_weights),
        sixteen_bits: millions(2 * model.parameters),
        calibration_tokens: settings.calibration_tokens,
        calibration: &settings.calibration,
        text_tokens: settings.text_tokens,
        text: &settings.text,
        tasks: if tasks.is_empty() { "no tasks".to_owned() } else { tasks.join(", ") },
    }
}

fn excluded(results: &SweepResults) -> Vec<String> {
    let Some(first) = results.configurations.first() else { return Vec::new() };
    let tasks = first.retention.iter().flat_map(|kept| &kept.excluded).map(ToString::to_string);
    tasks.chain(first.retention_missing.clone()).collect()
}

/// The tasks of each group, because the group counts as one task everywhere else.
fn groups(results: &SweepResults) -> Vec<Group<'_>> {
    let share = |value: f64| number(100.0 * value, 1);
    let row = |group: &TaskAccuracy, member: &TaskAccuracy| {
        let accuracy = format!("{} ± {}", share(member.accuracy), share(member.standard_error));
        let mut row = vec![member.name.clone(), member.items.to_string(), share(member.chance), accuracy];
        row.extend(results.configurations.iter().map(|configuration| {
            let same_group = configuration.tasks.iter().find(|task| task.name == group.name);
            let found = same_group.and_then(|task| task.members.iter().find(|other| other.name == member.name));
            found.map_or_else(String::new, |found| share(found.accuracy))
        }));
        row
    };
    let groups = results.base.tasks.iter().filter(|task| !task.members.is_empty());
    groups
        .map(|group| Group {
            name: &group.name,
            recipes: results.configurations.iter().map(|configuration| configuration.recipe.as_str()).collect(),
            rows: group.members.iter().map(|member| row(group, member)).collect(),
        })
        .collect()
}

fn recipe(results: &SweepResults, index: usize) -> String {
    results.configurations.get(index).map_or_else(String::new, |configuration| configuration.recipe.clone())
}

/// Every two configurations that have a rate or stored bits in common.
fn pairs(results: &SweepResults) -> Vec<[String; 6]> {
    let shown = |difference: Option<Difference>, digits: usize| {
        difference.map(|it| with_interval(it.value, it.interval, digits)).unwrap_or_default()
    };
    let row = |pair: &sparq_sweep::PairedDifference| {
        let p_value = pair.sr_p_value.map_or_else(String::new, |p| number(p, 4));
        let [first, second] = [pair.first, pair.second].map(|index| recipe(results, index));
        [pair.equal.to_string(), first, second, shown(pair.kl, 4), shown(pair.sr, 3), p_value]
    };
    results.differences.iter().map(row).collect()
}

/// McNemar's test of the two configurations that each verdict compares, on every task.
fn tests(results: &SweepResults) -> Vec<[String; 7]> {
    let of_verdict = |verdict: &'_ Verdict| {
        let winner = recipe(results, verdict.winner);
        let other = verdict.runner_up.map_or_else(String::new, |index| recipe(results, index));
        let row = |test: &sparq_sweep::TaskTest| {
            let counts = [test.only_winner, test.only_other].map(|count| count.to_string());
            let [only_winner, only_other] = counts;
            let [p, adjusted] = [test.p_value, test.adjusted_p_value].map(|p| number(p, 4));
            [winner.clone(), other.clone(), test.task.clone(), only_winner, only_other, p, adjusted]
        };
        verdict.tests.iter().map(row).collect::<Vec<_>>()
    };
    results.verdicts.iter().flat_map(of_verdict).collect()
}

fn layers(results: &SweepResults) -> Vec<Layers<'_>> {
    if results.configurations.iter().all(|configuration| configuration.layers.is_empty()) {
        return Vec::new();
    }
    let section = |(index, configuration)| {
        let configuration: &ConfigurationResult = configuration;
        let fallbacks = configuration.layers.iter().filter(|layer| !layer.fallbacks.is_empty()).map(|layer| {
            let steps: Vec<String> = layer.fallbacks.iter().map(ToString::to_string).collect();
            format!("{}: {}", layer.name, steps.join("; "))
        });
        Layers {
            recipe: &configuration.recipe,
            is_open: index == results.best_srcr.unwrap_or(0),
            maps: layer_maps(configuration, index),
            fallbacks: fallbacks.collect(),
        }
    };
    results.configurations.iter().enumerate().map(section).collect()
}

/// The continuations of the configuration of the largest SrCr, or of the first one.
fn samples(results: &SweepResults) -> Option<Samples<'_>> {
    let best = results.best_srcr.and_then(|best| results.configurations.get(best));
    let shown = best.or(results.configurations.first()).filter(|shown| !shown.samples.is_empty())?;
    let others = || results.configurations.iter().filter(|other| other.recipe != shown.recipe);
    let items = shown.samples.iter().enumerate().map(|(index, sample)| SampleItem {
        prompt: &sample.prompt,
        base: &sample.base,
        compressed: &sample.compressed,
        others: others()
            .filter_map(|other| Some((other.recipe.as_str(), other.samples.get(index)?.compressed.as_str())))
            .collect(),
    });
    Some(Samples { recipe: &shown.recipe, items: items.collect() })
}

fn facts(results: &SweepResults) -> Vec<(&'static str, String)> {
    let (settings, machine, base) = (&results.settings, &results.machine, &results.base);
    let calibration = format!(
        "{}, {} sequences, {} tokens",
        settings.calibration, settings.calibration_sequences, settings.calibration_tokens
    );
    let text = format!("{}, {} tokens scored in windows of {}", settings.text, settings.text_tokens, settings.window);
    let processor = machine.processor.as_deref().unwrap_or("unknown processor");
    let evaluated = number(base.seconds, 0);
    vec![
        ("command", settings.command.clone().unwrap_or_else(|| "library call".to_owned())),
        ("sparq", results.version.clone()),
        ("model files, SHA-256", results.model.content_hash.clone()),
        ("settings and data, SHA-256", settings.fingerprint.clone()),
        ("seed, bootstrap resamples", format!("{}, {}", settings.seed, settings.resamples)),
        ("calibration", calibration),
        ("held-out text", text),
        ("items of a task", settings.limit.map_or_else(|| "all".to_owned(), |limit| format!("at most {limit}"))),
        ("machine", format!("{}, {processor}, {} threads", machine.platform, machine.threads)),
        ("base", format!("perplexity {}, evaluated in {evaluated} s", perplexity(base.perplexity))),
    ]
}

/// Where every task comes from, with its fingerprint.
fn sources(results: &SweepResults) -> Vec<[String; 7]> {
    let row = |task: &sparq_sweep::TaskFacts| {
        let items = match task.skipped {
            0 => task.items.to_string(),
            skipped => format!("{} ({skipped} of the data cannot be asked)", task.items),
        };
        let [name, mirrors, source] = [&task.name, &task.mirrors, &task.source].map(Clone::clone);
        [name, items, task.shots.to_string(), mirrors, source, task.licence.clone(), task.fingerprint.clone()]
    };
    results.settings.tasks.iter().map(row).collect()
}
