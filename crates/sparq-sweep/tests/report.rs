//! The report, from results as they come and as they should not come.

use sparq_metric::{Bootstrap, Interval, TaskScores, retention};
use sparq_sweep::{
    BaseResult, ConfigurationResult, Family, MachineFacts, ModelFacts, Sample, SettingsFacts, SweepResults,
    TaskAccuracy, TaskFacts, TaskTest, Verdict, csv, html, markdown, table,
};
use std::process::Command;

fn configuration(recipe: &str, family: Family, sparsity: f64, bits: u8, right: usize) -> ConfigurationResult {
    let scores = |right: usize| (0..200).map(|item| f64::from(u8::from(item < right))).collect::<Vec<_>>();
    let task = TaskScores::new("arc <easy>", scores(150), scores(right), vec![0.25; 200]).expect("valid");
    let kept = retention(&[task], &Bootstrap { resamples: 100, ..Bootstrap::default() }).expect("above chance");
    ConfigurationResult {
        recipe: recipe.to_owned(),
        family,
        sparsity,
        pattern: "unstructured".to_owned(),
        bits,
        tcr: 1.0 - (1.0 - sparsity) * f64::from(bits) / 16.0,
        measured_sparsity: sparsity,
        bits_per_weight: f64::from(bits) + 0.25,
        perplexity: 36.5,
        perplexity_ratio: Some(Interval { low: 1.2, high: 1.4 }),
        kl: 0.35,
        top1_agreement: 0.8,
        tasks: vec![accuracy(right)],
        srcr: Some(kept.sr * 0.75),
        srcr_tcr: Some(kept.sr * 0.8125),
        retention: Some(kept),
        retention_missing: None,
        compress_seconds: 60.0,
        evaluate_seconds: 120.0,
        layers: Vec::new(),
        reused: false,
        samples: vec![Sample {
            prompt: "<script>alert(1)</script>".to_owned(),
            base: "went on & on".to_owned(),
            compressed: "\"stopped\"".to_owned(),
        }],
    }
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
        schema: 1,
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
            configuration("s=0,q=3", Family::Quantization, 0.0, 3, 90),
            configuration("s=0.25,q=4", Family::Joint, 0.25, 4, 130),
            configuration("s=0.5,q=16", Family::Pruning, 0.5, 16, 120),
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
        best_srcr: Some(1),
    }
}

const FIGURES: [&str; 4] = ["figure-retention", "figure-divergence", "figure-srcr", "figure-task-0"];

#[test]
fn the_page_holds_headline_figures_and_facts_and_escapes_what_is_foreign() {
    let page = html(&results());
    for part in FIGURES.iter().copied().chain([
        "At TCr 81.25 % joint keeps more.",
        "the same 269.0 MB",
        "a &quot;model&quot; &lt;b&gt;",
        "arc &lt;easy&gt;",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "16384 tokens",
        "<title id=",
        "<desc id=",
    ]) {
        assert!(page.contains(part), "{part}");
    }
    for part in ["<script>alert", "<easy>", "<b>", "http://", "https://", ">NaN", "\"NaN"] {
        assert!(!page.contains(part), "{part}");
    }
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
    odd.best_srcr = None;
    let page = html(&odd);
    assert!(
        page.contains("not finite")
            && page.contains("no task is left")
            && !page.contains(">NaN")
            && !page.contains("\"NaN")
    );
    for text in [table(&odd), csv(&odd), markdown(&odd)] {
        assert_eq!(text.lines().filter(|line| line.contains("s=0,q=3")).count(), 1, "{text}");
    }
}

#[test]
fn tables_line_up() {
    let results = results();
    let lines: Vec<usize> = markdown(&results).lines().map(|line| line.matches('|').count()).collect();
    assert!(lines.windows(2).all(|pair| pair[0] == pair[1]), "{lines:?}");
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
    let page = directory.path().join("report.html");
    // The page's own policy forbids nothing that this line does: an error marks the document.
    let watched = html(&results()).replace(
        "<script>",
        "<script>window.onerror=()=>document.documentElement.setAttribute('data-error','1');</script><script>",
    );
    std::fs::write(&page, watched).expect("written");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
        .args(["--disable-sync", "--disable-component-update", "--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", directory.path().join("profile").display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("the browser starts");
    let shown = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(!complaints.contains("CONSOLE"), "{complaints}");
    assert!(!shown.contains("data-error=\"1\""), "the page's script failed");
    assert!(shown.contains("At TCr 81.25 % joint keeps more."), "no headline in {} bytes", shown.len());
    for id in FIGURES {
        assert!(shown.contains(&format!("<svg id=\"{id}\"")), "{id}");
    }
    assert!(shown.contains("<th><button>"), "the script has run");
}
