use sparq_sweep::SweepResults;

/// The results as comma-separated values, one row for each configuration and one for the base; fractions are fractions,
/// missing values are empty.
pub fn csv(results: &SweepResults) -> String {
    let mut header = vec![
        "recipe",
        "family",
        "pattern",
        "sparsity",
        "bits",
        "tcr",
        "measured_sparsity",
        "bits_per_weight",
        "perplexity",
        "kl",
        "kl_low",
        "kl_high",
        "top1_agreement",
        "sr",
        "sr_low",
        "sr_high",
        "srcr",
        "srcr_tcr",
        "compress_seconds",
        "evaluate_seconds",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect::<Vec<_>>();
    for task in &results.base.tasks {
        for column in ["accuracy", "sr", "sr_low", "sr_high"] {
            header.push(format!("{}_{column}", task.name));
        }
    }
    let number = |value: f64| if value.is_finite() { value.to_string() } else { String::new() };
    let optional = |value: Option<f64>| value.map(number).unwrap_or_default();
    let mut base = vec!["base".to_owned()];
    base.extend((1..5).map(|_| String::new()));
    base.extend([number(0.0), String::new(), number(16.0), number(results.base.perplexity), number(0.0)]);
    base.extend([String::new(), String::new(), number(1.0)]);
    base.extend((0..6).map(|_| String::new()));
    base.push(number(results.base.seconds));
    for task in &results.base.tasks {
        base.extend([number(task.accuracy), String::new(), String::new(), String::new()]);
    }
    let mut rows = vec![header, base];
    for configuration in &results.configurations {
        let kept = configuration.retention.as_ref();
        let mut row = vec![
            configuration.recipe.clone(),
            configuration.family.to_string(),
            configuration.pattern.clone(),
            number(configuration.sparsity),
            configuration.bits.to_string(),
            number(configuration.tcr),
            number(configuration.measured_sparsity),
            number(configuration.bits_per_weight),
            number(configuration.perplexity),
            number(configuration.kl),
            optional(configuration.kl_interval.map(|interval| interval.low)),
            optional(configuration.kl_interval.map(|interval| interval.high)),
            number(configuration.top1_agreement),
            optional(kept.map(|kept| kept.sr)),
            optional(kept.map(|kept| kept.interval.low)),
            optional(kept.map(|kept| kept.interval.high)),
            optional(configuration.srcr),
            optional(configuration.srcr_tcr),
            number(configuration.compress_seconds),
            number(configuration.evaluate_seconds),
        ];
        for base in &results.base.tasks {
            let accuracy = configuration.tasks.iter().find(|task| task.name == base.name).map(|task| task.accuracy);
            let task = kept.and_then(|kept| kept.tasks.iter().find(|task| task.name == base.name));
            row.extend([
                optional(accuracy),
                optional(task.map(|task| task.sr)),
                optional(task.map(|task| task.interval.low)),
                optional(task.map(|task| task.interval.high)),
            ]);
        }
        rows.push(row);
    }
    rows.iter().map(|row| row.iter().map(|cell| field(cell)).collect::<Vec<_>>().join(",") + "\n").collect()
}

/// A field, quoted where a comma, quote or line end asks for it.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
