//! A real checkpoint, if one was fetched: `SPARQ_SMOLLM2` names the file.
#![allow(clippy::unwrap_used)]

use sparq_eval::{Evaluation, Task, TextEvaluation, TextSettings};
use sparq_model::Model;
use std::path::Path;
use std::time::Instant;

#[test]
fn smollm2_is_above_chance_on_what_it_can_do() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let Some(path) = std::env::var_os("SPARQ_SMOLLM2").filter(|_| data.is_dir()) else {
        {
            // Straight to standard error: the test harness would swallow what `eprintln!` prints.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "skipped: SPARQ_SMOLLM2 is not set, or ../shared is absent");
        }
        return;
    };
    let mut model = Model::open(path).unwrap();
    model.make_resident().unwrap();
    let text = std::fs::read_to_string(data.join("wikitext-2/wiki.test.raw")).unwrap();
    let settings = TextSettings { length: 512, token_limit: Some(8192), ..TextSettings::default() };
    let text = Evaluation::new().with_text(TextEvaluation::from_text(&model, &text, settings).unwrap());
    let start = Instant::now();
    let baseline = text.baseline(&model, &()).unwrap();
    eprintln!("baseline text: {:?}", start.elapsed());
    let start = Instant::now();
    let report = text.evaluate(&model, Some(&baseline), &()).unwrap().text.unwrap();
    eprintln!("comparison: {:?}, perplexity {:.3} over {} tokens", start.elapsed(), report.perplexity, report.tokens);
    assert_eq!(report.base.unwrap().mean_kl, 0.0);
    assert!((10.0..40.0).contains(&report.perplexity));
    for (name, above) in [
        ("arc_easy", 0.4),
        ("piqa", 0.58),
        ("lambada_openai", 0.2),
        ("blimp", 0.7),
        ("winogrande", 0.4),
        ("openbook_qa", 0.2),
        ("copa", 0.5),
    ] {
        let task = Task::load(name, Some(&data)).unwrap().limit(100, 0);
        let start = Instant::now();
        let result = Evaluation::new().with_task(task).evaluate(&model, None, &()).unwrap().tasks.remove(0);
        let (sum, per_byte) = (result.accuracy_by_sum(), result.accuracy_normalised());
        eprintln!("{name}: by sum {sum:.3}, per byte {per_byte:?}, {:?}", start.elapsed());
        assert!(result.accuracy > above, "{name}: {}", result.accuracy);
    }
}
