use sparq_sweep::{ConfigurationResult, SweepResults};

/// The name of a column, and its value for a configuration.
type Column = (&'static str, fn(&ConfigurationResult) -> String);

/// The columns before those of the tasks.
const COLUMNS: [Column; 23] = [
    ("recipe", |it| it.recipe.clone()),
    ("family", |it| it.family.to_string()),
    ("pattern", |it| it.pattern.clone()),
    ("sparsity", |it| number(it.sparsity)),
    ("bits", |it| it.bits.to_string()),
    ("tcr", |it| number(it.tcr)),
    ("measured_sparsity", |it| number(it.measured_sparsity)),
    ("bits_per_weight", |it| number(it.bits_per_weight)),
    ("coded_bits_per_weight", |it| number(it.coded_bits_per_weight)),
    ("model_bits_per_weight", |it| number(it.model_bits_per_weight)),
    ("perplexity", |it| number(it.perplexity)),
    ("kl", |it| number(it.kl)),
    ("kl_low", |it| optional(it.kl_interval.map(|interval| interval.low))),
    ("kl_high", |it| optional(it.kl_interval.map(|interval| interval.high))),
    ("top1_agreement", |it| number(it.top1_agreement)),
    ("sr", |it| optional(it.retention.as_ref().map(|kept| kept.sr))),
    ("sr_low", |it| optional(it.retention.as_ref().map(|kept| kept.interval.low))),
    ("sr_high", |it| optional(it.retention.as_ref().map(|kept| kept.interval.high))),
    ("srcr", |it| optional(it.srcr)),
    ("srcr_tcr", |it| optional(it.srcr_tcr)),
    ("srcr_measured", |it| optional(it.srcr_measured)),
    ("compress_seconds", |it| number(it.compress_seconds)),
    ("evaluate_seconds", |it| number(it.evaluate_seconds)),
];

/// The results as comma-separated values: a row for the base, then one for each configuration. Rates and accuracies are
/// fractions, not percentages. Missing values are empty.
pub fn csv(results: &SweepResults) -> String {
    let tasks = &results.base.tasks;
    let of_task = |name: &str| ["accuracy", "sr", "sr_low", "sr_high"].map(|column| format!("{name}_{column}"));
    let header = COLUMNS.iter().map(|(name, _)| (*name).to_owned());
    let mut rows: Vec<Vec<String>> = vec![header.chain(tasks.iter().flat_map(|task| of_task(&task.name))).collect()];
    let of_base = COLUMNS.iter().map(|(name, _)| base_value(results, name));
    let empty = String::new;
    let of_tasks = tasks.iter().flat_map(|task| [number(task.accuracy), empty(), empty(), empty()]);
    rows.push(of_base.chain(of_tasks).collect());
    for configuration in &results.configurations {
        let mut row: Vec<String> = COLUMNS.iter().map(|(_, value)| value(configuration)).collect();
        for base in tasks {
            let accuracy = configuration.tasks.iter().find(|task| task.name == base.name).map(|task| task.accuracy);
            let kept = configuration.retention.as_ref();
            let task = kept.and_then(|kept| kept.tasks.iter().find(|task| task.name == base.name));
            let [low, high] = [task.map(|task| task.interval.low), task.map(|task| task.interval.high)];
            row.extend([accuracy, task.map(|task| task.sr), low, high].map(optional));
        }
        rows.push(row);
    }
    rows.iter().map(|row| row.iter().map(|cell| field(cell)).collect::<Vec<_>>().join(",") + "\n").collect()
}

/// The base's value of a column.
fn base_value(results: &SweepResults, column: &str) -> String {
    match column {
        "recipe" => "base".to_owned(),
        "tcr" | "kl" => number(0.0),
        "bits_per_weight" | "coded_bits_per_weight" | "model_bits_per_weight" => number(16.0),
        "top1_agreement" => number(1.0),
        "perplexity" => number(results.base.perplexity),
        "evaluate_seconds" => number(results.base.seconds),
        _ => String::new(),
    }
}

fn number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { String::new() }
}

fn optional(value: Option<f64>) -> String {
    value.map(number).unwrap_or_default()
}

/// A field, quoted if it holds a comma, a quote or a line end.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
