//! `compress` against kills, signals, full disks and limits. Every run must end with the bytes of one that was left
//! alone, or with an error and nothing at the destination.
//!
//! `SPARQ_KILLS` sets the number of kills (default 8). `SPARQ_FAULT_ARGS` replaces the arguments, as in
//! `--model model.gguf --calibration text.txt --samples 8`, to try another model than the demo model.
#![cfg(unix)]

mod common;

use common::{notice, program};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const SIGKILL: i32 = 9;

/// Small enough for a test, with every kind of file in the state: codes, zero points, masks, activations.
const ARGUMENTS: &str = "--samples 16 --seq-len 128 --group-size 64 --asymmetric";

struct Harness {
    program: PathBuf,
    arguments: Vec<String>,
    directory: tempfile::TempDir,
    expected: BTreeMap<PathBuf, Vec<u8>>,
    duration: Duration,
}

impl Harness {
    /// Runs `compress` once, undisturbed; none if it is not built.
    fn new() -> Option<Self> {
        let program = program("compress")?;
        let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/assets/demo-model");
        let arguments = std::env::var("SPARQ_FAULT_ARGS")
            .unwrap_or_else(|_| format!("--model {demo} --calibration {demo}/calibration.txt {ARGUMENTS}"));
        let directory = tempfile::tempdir().expect("a directory");
        let mut harness = Self {
            program,
            arguments: arguments.split_whitespace().map(str::to_owned).collect(),
            directory,
            expected: BTreeMap::new(),
            duration: Duration::ZERO,
        };
        let start = Instant::now();
        let out = harness.directory.path().join("undisturbed");
        assert!(harness.spawn(&out, &[]).wait().expect("it ends").success());
        harness.duration = start.elapsed();
        harness.expected = contents(&out);
        assert!(harness.expected.len() > 5, "{:?}", harness.expected.keys());
        Some(harness)
    }

    fn command(&self, out: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg("--out").arg(out).args(more);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn spawn(&self, out: &Path, more: &[&str]) -> Child {
        self.command(out, more).spawn().expect("it starts")
    }

    /// Runs to the end under a limit of the shell's `ulimit`; gives the status and the last line it printed.
    fn limited(&self, limit: &str, out: &Path) -> (ExitStatus, String) {
        let mut command = Command::new("bash");
        command.arg("-c").arg(format!("ulimit {limit}; exec \"$@\"")).arg("bash").arg(&self.program);
        let output = command.args(&self.arguments).arg("--out").arg(out).output().expect("bash runs");
        let errors = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
        (output.status, errors)
    }

    /// Finishes what was disturbed and compares.
    fn check(&self, out: &Path, what: &str) {
        if !out.exists() {
            let ended = self.command(out, &[]).stderr(Stdio::inherit()).status().expect("it ends");
            assert!(ended.success(), "{what}: the run that continues fails");
        }
        let found = contents(out);
        let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&self.expected), "{what}");
        for (name, bytes) in &self.expected {
            assert!(found[name] == *bytes, "{what}: {} differs", name.display());
        }
        std::fs::remove_dir_all(out).expect("removable");
        let _ = std::fs::remove_dir_all(partial(out)); // of a run killed after its last rename
    }
}

fn partial(out: &Path) -> PathBuf {
    out.with_extension("partial")
}

/// Every file below a directory with its contents.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).expect("listable") {
        let path = entry.expect("an entry").path();
        let name = PathBuf::from(path.file_name().expect("a name"));
        if path.is_dir() {
            files.extend(contents(&path).into_iter().map(|(inner, bytes)| (name.join(inner), bytes)));
        } else {
            files.insert(name, std::fs::read(path).expect("readable"));
        }
    }
    files
}

/// A sequence of numbers in `0..1`, the same in every run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Waits until `progress.json` changes (or the process ends): a block boundary.
fn wait_for_commit(child: &mut Child, partial: &Path) {
    let state = || std::fs::metadata(partial.join("progress.json")).and_then(|data| data.modified()).ok();
    let before = state();
    while state() == before && child.try_wait().expect("it can be asked").is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn killed_anywhere_it_continues_to_the_same_bytes() {
    let Some(harness) = Harness::new() else { return };
    let kills: usize = std::env::var("SPARQ_KILLS").map_or(8, |kills| kills.parse().expect("SPARQ_KILLS is a number"));
    let mut chance = Chance(2026);
    let out = harness.directory.path().join("out");
    let (mut killed, mut runs, mut boundaries) = (0, 0, 0);
    while killed < kills {
        let mut child = harness.spawn(&out, &[]);
        runs += 1;
        if chance.next() < 0.5 {
            wait_for_commit(&mut child, &partial(&out));
            boundaries += 1;
            // Sometimes at once, sometimes a moment later, when the next write is under way.
            std::thread::sleep(Duration::from_micros((3000.0 * chance.next()) as u64));
        } else {
            std::thread::sleep(harness.duration.mul_f64(1.1 * chance.next()));
        }
        let _ = child.kill();
        let status = child.wait().expect("it ends");
        killed += usize::from(status.signal() == Some(SIGKILL));
        if status.success() || chance.next() < 0.4 {
            harness.check(&out, &format!("kill {killed}"));
        }
    }
    harness.check(&out, "the last kill");
    notice(&format!("{killed} kills in {runs} runs, {boundaries} aimed at block boundaries, all continued"));
}

#[test]
fn signals_stop_it_cleanly() {
    let Some(harness) = Harness::new() else { return };
    let out = harness.directory.path().join("out");
    for signal in ["INT", "TERM"] {
        let mut child = harness.command(&out, &[]).stderr(Stdio::piped()).spawn().expect("it starts");
        wait_for_commit(&mut child, &partial(&out));
        assert!(
            Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().expect("kill runs").success()
        );
        let output = child.wait_with_output().expect("it ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(130) {
            assert!(errors.contains("blocks are safe in") && errors.contains("out.partial"), "{errors}");
            assert!(!out.exists());
        } else {
            assert!(output.status.success(), "the signal came after the last block: {errors}");
        }
        harness.check(&out, signal);
    }
    let stopped = harness.spawn(&out, &["--stop-after", "1"]).wait().expect("it ends");
    assert!(stopped.success() && !out.exists(), "a planned pause is no failure");
    harness.check(&out, "--stop-after");
}

#[test]
fn threads_change_no_byte() {
    let Some(harness) = Harness::new() else { return };
    for threads in ["1", "2", "4"] {
        let out = harness.directory.path().join("out");
        assert!(harness.spawn(&out, &["--threads", threads]).wait().expect("it ends").success());
        harness.check(&out, threads);
    }
}

#[test]
fn files_that_may_not_grow_are_an_error_that_can_be_mended() {
    let Some(harness) = Harness::new() else { return };
    let out = harness.directory.path().join("out");
    let largest = harness.expected.values().map(Vec::len).max().expect("files");
    for share in [0.01, 0.2, 0.6, 0.95] {
        let kib = (share * largest as f64 / 1024.0) as usize;
        let (status, error) = harness.limited(&format!("-f {kib}"), &out);
        assert_eq!(status.code(), Some(1), "{kib} KiB: {error}");
        assert!(error.starts_with("error: ") && error.contains("cannot"), "{error}");
        assert!(!out.exists(), "{kib} KiB");
        let left: Vec<_> = contents(&partial(&out)).into_keys().filter(|name| is_half_written(name)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    harness.check(&out, "file size limit");
}

fn is_half_written(name: &Path) -> bool {
    name.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
}

#[test]
fn a_memory_limit_leaves_nothing_half_done() {
    let Some(harness) = Harness::new() else { return };
    let out = harness.directory.path().join("out");
    for mib in [40, 80, 120, 160, 240] {
        let (status, error) = harness.limited(&format!("-v {}", mib * 1024), &out);
        assert!(status.success() || !out.exists(), "{mib} MiB: {error}");
        if status.success() {
            break;
        }
    }
    harness.check(&out, "memory limit");
}

#[test]
fn a_full_disk_is_an_error_that_can_be_mended() {
    let Some(harness) = Harness::new() else { return };
    let disk = harness.directory.path().join("disk");
    std::fs::create_dir(&disk).expect("created");
    let mount = |options: &str| {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&disk).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !mount("size=64k") {
        notice("skipped: mounting a small disk is not permitted; the file size limit stands in");
        return;
    }
    let out = disk.join("out");
    let whole: usize = harness.expected.values().map(Vec::len).sum();
    for share in [0.02, 0.3, 0.6, 1.0] {
        assert!(mount(&format!("remount,size={}k", (share * whole as f64 / 1024.0) as usize)), "remounted");
        let output = harness.command(&out, &[]).stderr(Stdio::piped()).output().expect("it ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        let line = errors.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        // Seen before work begins; what fills up while it goes on is as a file size limit, above.
        assert!(line.starts_with("error: ") && line.contains("are free where") && line.contains("disk"), "{line}");
        assert!(!out.exists() && !disk.join("out.partial").exists());
    }
    assert!(mount("remount,size=100m"), "remounted");
    harness.check(&out, "full disk");
    assert!(Command::new("umount").arg(&disk).status().expect("umount runs").success());
}

#[test]
fn places_that_cannot_be_written_are_named() {
    let Some(harness) = Harness::new() else { return };
    let file = harness.directory.path().join("file");
    std::fs::write(&file, "").expect("writable");
    let output = harness.command(&file.join("out"), &[]).stderr(Stdio::piped()).output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("out.partial") && errors.contains("cannot create"), "{errors}");
    // Without --model, the demo model is unpacked to the temporary directory first.
    let output = Command::new(&harness.program).env("TMPDIR", "/nonexistent").output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("demo model") && errors.contains("/nonexistent"), "{errors}");
}
