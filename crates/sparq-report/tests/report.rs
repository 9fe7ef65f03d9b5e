//! The report, from results as they come and as they should not come.

use sparq_metric::{Bootstrap, Interval, TaskScores, retention};
use sparq_pipeline::{LayerReport, Profile};
use sparq_report::{csv, table, write_reports};
use sparq_sweep::{
    BaseResult, ConfigurationResult, Difference, Equal, Family, MachineFacts, ModelFacts, PairedDifference, Sample,
    SettingsFacts, SweepResults, TaskAccuracy, TaskFacts, TaskTest, Verdict,
};
use std::process::Command;

fn html(results: &SweepResults) -> String {
    sparq_report::html(results).expect("the template fits")
}

fn configuration(recipe: &str, family: Family, sparsity: f64, bits: f64, right: usize) -> ConfigurationResult {
    let scores = |right: usize| (0..200).map(|item| f64::from(u8::from(item < right))).collect::<Vec<_>>();
    let task = TaskScores::new("arc <easy>", scores(150), scores(right), vec![0.25; 200]).expect("valid");
    let kept = retention(&[task], &Bootstrap { resamples: 100, ..Bootstrap::default() }).expect("above chance");
    ConfigurationResult {
        recipe: recipe.to_owned(),
        family,
        sparsity,
        pattern: "unstructured".to_owned(),
        settings: std::collections::BTreeMap::new(),
        commit: None,
        allocated: false,
        bits,
        tcr: 1.0 - (1.0 - sparsity) * bits / 16.0,
        measured_sparsity: sparsity,
        bits_per_weight: bits + 0.25,
        coded_bits_per_weight: bits - 0.5,
        model_bits_per_weight: bits + 1.5,
        perplexity: 36.5,
        perplexity_ratio: Some(Interval { low: 1.2, high: 1.4 }),
        kl: 0.35,
        kl_interval: Some(Interval { low: 0.31, high: 0.39 }),
        top1_agreement: 0.8,
        tasks: vec![accuracy(right)],
        srcr: Some(kept.sr * 0.75),
        srcr_tcr: Some(kept.sr * 0.8125),
        srcr_measured: Some(kept.sr * 0.78125),
        retention: Some(kept),
        retention_missing: None,
        compress_seconds: 60.0,
        profile: profile(),
        evaluate_seconds: 120.0,
        layers: layers(),
        reused: false,
        samples: vec![Sample {
            prompt: "<script>alert(1)</script>".to_owned(),
            base: "went on & on".to_owned(),
            compressed: "\"stopped\"".to_owned(),
        }],
    }
}

fn profile() -> Profile {
    let phase = |name: &str, seconds: f64, operations: u64| serde_json::json!({"phase": name, "seconds": seconds, "processor_seconds": 1.5 * seconds, "operations": operations});
    let phases = [phase("forward", 20.0, 3_000_000_000_000), phase("solve", 40.0, 0)];
    let profile = serde_json::json!({"phases": phases, "peak_resident_bytes": 1_250_000_000_u64});
    serde_json::from_value(profile).expect("a profile")
}

/// Two blocks of two projections.
fn layers() -> Vec<LayerReport> {
    let layer = |block: usize, name: &str, error: f64| {
        let layer = serde_json::json!({
            "name": format!("model.layers.{block}.{name}"), "block": block, "shape": [8, 8], "weights": 64, "zeros": 16,
            "bits_per_weight": 4.25, "coded_bits_per_weight": 3.75, "relative_output_error": error, "damping": 0.01 + 0.1 * block as f64, "fallbacks": [], "tokens": 100,
            "seconds": 0.5,
        });
        serde_json::from_value(layer).expect("a layer report")
    };
    vec![
        layer(0, "self_attn.q_proj", 1e-3),
        layer(0, "mlp.down_proj", 2e-2),
        layer(1, "self_attn.q_proj", 5e-3),
        layer(1, "mlp.down_proj", 0.0),
    ]
}

fn accuracy(right: usize) -> TaskAccuracy {
    let accuracy = right as f64 / 200.0;
    let task = |name: &str| TaskAccuracy {
        name: name.to_owned(),
        items: 200,
        accuracy,
        standard_error: 0.03,
        chance: 0.25,
        members: Vec::new(),
    };
    TaskAccuracy { members: vec![task("arc_one <i>"), task("arc_two")], ..task("arc <easy>") }
}

fn results() -> SweepResults {
    SweepResults {
        version: "0.1.0".to_owned(),
        model: ModelFacts {
            name: "a \"model\" <b>".to_owned(),
            architecture: "llama".to_owned(),
            content_hash: "abc".to_owned(),
            parameters: 134_500_000,
            compressed_weights: 106_000_000,
            blocks: 30,
        },
        settings: SettingsFacts {
            calibration: "c4.txt".to_owned(),
            calibration_sequences: 32,
            calibration_tokens: 16384,
            text: "wiki.txt".to_owned(),
            text_tokens: 32704,
            window: 512,
            limit: Some(200),
            tasks: vec![TaskFacts {
                name: "arc_one <i>".to_owned(),
                group: Some("arc <easy>".to_owned()),
                items: 200,
                skipped: 3,
                shots: 5,
                mirrors: "arc_easy".to_owned(),
                source: "somewhere & elsewhere".to_owned(),
                licence: "MIT".to_owned(),
                fingerprint: "0123".to_owned(),
            }],
            seed: 0,
            resamples: 2000,
            fingerprint: "def".to_owned(),
            command: None,
        },
        machine: MachineFacts { platform: "linux x86_64".to_owned(), processor: None, threads: 2 },
        base: BaseResult { perplexity: 27.4, tasks: vec![accuracy(150)], seconds: 50.0 },
        configurations: vec![
            configuration("s=0,q=3", Family::Quantization, 0.0, 3.0, 90),
            configuration("s=0.25,q=4", Family::Joint, 0.25, 4.0, 130),
            configuration("s=0.5,q=16", Family::Pruning, 0.5, 16.0, 120),
        ],
        verdicts: vec![Verdict {
            tcr: 0.8125,
            winner: 1,
            runner_up: Some(0),
            difference: Some(Interval { low: 0.2, high: 0.6 }),
            p_value: Some(0.01),
            adjusted_p_value: Some(0.02),
            tests: vec![TaskTest {
                task: "arc <easy>".to_owned(),
                only_winner: 44,
                only_other: 4,
                p_value: 0.0001,
                adjusted_p_value: 0.0003,
            }],
            sentence: "At TCr 81.25 % joint keeps more.".to_owned(),
        }],
        comparisons: "Two differences are compared.".to_owned(),
        differences: vec![PairedDifference {
            equal: Equal::Tcr(0.8125),
            first: 0,
            second: 1,
            kl: Some(Difference { value: 0.12, interval: Interval { low: 0.1, high: 0.14 } }),
            sr: None,
            sr_p_value: None,
        }],
        best_srcr: Some(1),
    }
}

const FIGURES: [&str; 9] = [
    "figure-retention",
    "figure-divergence",
    "figure-srcr",
    "figure-task-0",
    "figure-layers-1",
    "figure-damping-0",
    "figure-damping-1",
    "figure-seconds-1",
    "figure-timing",
];

#[test]
fn the_page_holds_headline_figures_and_facts_and_escapes_what_is_foreign() {
    let page = html(&results());
    for part in FIGURES.iter().copied().chain([
        "At TCr 81.25 % joint keeps more.",
        "the same 269.0 MB",
        "a &quot;model&quot; &lt;b&gt;",
        "arc &lt;easy&gt;",
        "&lt;script&gt;alert(1)&lt;&#x2f;script&gt;",
        "16384 tokens",
        "Compression rates compared by what is kept of the tasks: joint keeps more at 1 of 1.",
        "Two differences are compared.",
        "<td>s=0.25,q=4</td><td>0.1200 [0.1000, 0.1400]</td><td></td><td></td>",
        "<td>44</td><td>4</td><td>0.0001</td><td>0.0003</td>",
        "arc_one &lt;i&gt;",
        "200 (3 of the data cannot be asked)",
        "somewhere &amp; elsewhere",
        "0.600 ★",
        "<td>forward</td><td>20.00</td><td>1.50</td><td>150</td>",
        "<td>evaluate</td><td>120.00</td>",
        "held 1.25 GB at most",
        "<title id=",
        "<desc id=",
    ]) {
        assert!(page.contains(part), "{part}");
    }
    for part in ["<script>alert", "<easy>", "<b>", "<i>", "http://", "https://", ">NaN", "\"NaN"] {
        assert!(!page.contains(part), "{part}");
    }
}

#[test]
fn control_characters_are_replaced() {
    let mut results = results();
    results.model.name = "a\u{0}b\u{1b}c\u{85}d".to_owned();
    assert!(html(&results).contains("a\u{fffd}b\u{fffd}c\u{fffd}d"));
}

#[test]
fn files_are_what_the_functions_return() {
    let (directory, results) = (tempfile::tempdir().expect("a directory"), results());
    write_reports(&results, directory.path()).expect("writable");
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).expect(name);
    assert_eq!(read("results.csv"), csv(&results));
    assert_eq!(read("report.html"), html(&results));
}

#[test]
fn odd_results_still_make_a_page() {
    let mut none = results();
    none.configurations.clear();
    none.verdicts.clear();
    none.best_srcr = None;
    assert!(html(&none).contains("No configuration was measured"));

    let mut odd = results();
    odd.configurations.truncate(1);
    odd.base.tasks.clear();
    let only = &mut odd.configurations[0];
    (only.perplexity, only.kl) = (f64::INFINITY, f64::NAN);
    (only.retention, only.srcr, only.srcr_tcr) = (None, None, None);
    only.retention_missing = Some("no task is left".to_owned());
    only.profile = Profile::default();
    odd.best_srcr = None;
    let page = html(&odd);
    assert!(
        page.contains("not finite")
            && page.contains("no task is left")
            && !page.contains("figure-timing")
            && !page.contains(">NaN")
            && !page.contains("\"NaN")
    );
    for text in [table(&odd), csv(&odd)] {
        assert_eq!(text.lines().filter(|line| line.contains("s=0,q=3")).count(), 1, "{text}");
    }
}

#[test]
fn maps_show_every_layer() {
    let mut results = results();
    let layers = &mut results.configurations[1].layers;
    let of = |name: &str, error: f64| {
        let mut layer = layers[0].clone();
        (layer.name, layer.relative_output_error) = (name.to_owned(), error);
        layer
    };
    let names = ["h.0.attn.c_proj", "h.0.mlp.c_proj", "h.0.mlp.experts.0.up_proj", "h.0.mlp.experts.1.up_proj"];
    let new: Vec<LayerReport> =
        names.into_iter().zip([1e-1, 2e-2, 3e-3, 4e-4]).map(|(name, error)| of(name, error)).collect();
    *layers = new;
    let page = html(&results);
    let map = &page[page.find("id=\"figure-layers-1\"").expect("a map")..];
    let map = &map[..map.find("</svg>").expect("its end")];
    // Projections of one name get longer labels; a row of experts shows the largest error.
    for part in [
        ">attn.c_proj<",
        ">mlp.c_proj<",
        ">up_proj<",
        "error 1.0e-1",
        "error 2.0e-2",
        "experts.*.up_proj: relative output error 3.0e-3",
    ] {
        assert!(map.contains(part), "{part}: {map}");
    }
}

#[test]
fn a_family_does_not_win_against_itself() {
    let mut results = results();
    assert!(html(&results).contains("keeps more at 1 of 1"));
    results.configurations[0].family = Family::Joint;
    assert!(!html(&results).contains("keeps more at"));
}

#[test]
fn tables_line_up() {
    let results = results();
    let text = csv(&results);
    let columns = |line: &str| {
        let mut quoted = false;
        line.chars()
            .filter(|c| {
                quoted ^= *c == '"';
                *c == ',' && !quoted
            })
            .count()
    };
    let counts: Vec<usize> = text.lines().map(columns).collect();
    assert!(counts.windows(2).all(|pair| pair[0] == pair[1]), "{counts:?}");
    assert!(text.contains("\"s=0,q=3\""));
    let base = text.lines().nth(1).expect("a row of the base");
    assert!(base.starts_with("base,,,,,0,,16,16,16,27.4,0,,,1,,,,,,,,50,0.75,,,"), "{base}");
    assert!(table(&results).contains('[') && table(&results).starts_with("configuration"));
}

#[test]
fn a_browser_shows_it_without_an_error() {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
    else {
        {
            // Straight to standard error: the test harness would swallow what `eprintln!` prints.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "skipped: no Chromium on this machine");
        }
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let show = |name: &str, page: &str, window: &str| {
        let file = directory.path().join(name).with_extension("html");
        std::fs::write(&file, page).expect("written");
        let output = Command::new(browser)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
            .args(["--disable-sync", "--disable-component-update", "--virtual-time-budget=2000", "--dump-dom"])
            .args(["--enable-logging=stderr", &format!("--window-size={window}")])
            .arg(format!("--user-data-dir={}", directory.path().join(name).display()))
            .arg(format!("file://{}", file.display()))
            .output()
            .expect("the browser starts");
        let complaint =
            String::from_utf8_lossy(&output.stderr).lines().find(|l| l.contains("CONSOLE")).map(str::to_owned);
        (String::from_utf8_lossy(&output.stdout).into_owned(), complaint)
    };
    let page = html(&results());
    // Measured where a figure or the text would be cut off.
    let measure = "<script>document.documentElement.setAttribute('data-width',\
                   document.documentElement.scrollWidth>window.innerWidth?'too wide':'fits');\
                   document.documentElement.setAttribute('data-empty',[...document.querySelectorAll('svg')]\
                   .filter((svg)=>svg.getBoundingClientRect().width<40&&!svg.closest('details:not([open])'))\
                   .map((svg)=>svg.id).join());</script></body>";
    for (name, window) in [("wide", "1280,900"), ("narrow", "480,900")] {
        let (shown, complaint) = show(name, &page.replace("</body>", measure), window);
        assert_eq!(complaint, None, "the page complains at {name}");
        assert!(shown.contains("At TCr 81.25 % joint keeps more."), "no headline in {} bytes", shown.len());
        assert!(shown.contains("<p id=\"headline\">") && shown.contains("<p id=\"comparisons\">"));
        for id in FIGURES {
            assert!(shown.contains(&format!("<svg id=\"{id}\"")), "{id}");
            for part in ["title", "desc"] {
                assert!(shown.contains(&format!("<{part} id=\"{id}-{part}\">")), "{id} has no {part}");
            }
        }
        assert!(shown.contains("<th><button>"), "the script has run");
        assert!(
            shown.contains("data-width=\"fits\"") && shown.contains("data-empty=\"\""),
            "{name}: something does not fit"
        );
    }
    // The test would notice a complaint.
    let (_, complaint) = show("broken", &page.replace("<script>", "<script>nothing.at.all();"), "1280,900");
    assert!(complaint.is_some_and(|line| line.contains("nothing is not defined")), "errors are seen");
}
