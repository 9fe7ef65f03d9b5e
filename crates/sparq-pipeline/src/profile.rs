use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Instant;

/// What a run can be busy with, in the order reports have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Reading blocks from the checkpoint.
    Read,
    /// Passing calibration tokens through blocks, the dense model's too where drift is undone.
    Forward,
    /// Summing up Hessians and drift.
    Statistics,
    /// Solving layers, their reports included.
    Solve,
    /// Making blocks safe on disk.
    Commit,
    /// Following gradients once all layers are solved.
    Tune,
    /// Writing the output and reading it back.
    Export,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Forward => "forward",
            Self::Statistics => "statistics",
            Self::Solve => "solve",
            Self::Commit => "commit",
            Self::Tune => "tune",
            Self::Export => "export",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where the time of a run went; of the part that ended here, if it was interrupted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Profile {
    /// Every phase that took time.
    pub phases: Vec<PhaseProfile>,
    /// Memory the process held when the run began, in bytes: what comes on top of what a [`Plan`](crate::Plan) predicts.
    #[serde(default)]
    pub resident_bytes_before: Option<u64>,
    /// The most memory the process has held at once, mapped files included, in bytes; none where the system does not say.
    pub peak_resident_bytes: Option<u64>,
}

/// One phase, added up over the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PhaseProfile {
    /// Which.
    pub phase: Phase,
    /// Wall time.
    pub seconds: f64,
    /// Time of all processors together; none where the system does not say.
    pub processor_seconds: Option<f64>,
    /// Floating-point operations of its large products, two for a multiply-add; 0 where they are not counted.
    pub operations: u64,
}

impl PhaseProfile {
    fn of(phase: Phase) -> Self {
        Self { phase, seconds: 0.0, processor_seconds: None, operations: 0 }
    }

    /// How many cores worked, on average; none where the system does not say.
    pub fn cores(&self) -> Option<f64> {
        self.processor_seconds.map(|used| used / self.seconds.max(f64::MIN_POSITIVE))
    }

    /// Billions of counted operations per second of wall time; none if none are counted.
    pub fn giga_operations_per_second(&self) -> Option<f64> {
        (self.operations > 0 && self.seconds > 0.0).then(|| self.operations as f64 / self.seconds / 1e9)
    }
}

impl Profile {
    /// Wall time of a phase.
    pub fn seconds(&self, phase: Phase) -> f64 {
        self.phases.iter().find(|known| known.phase == phase).map_or(0.0, |known| known.seconds)
    }

    /// Runs `work` as part of `phase`, inside a span of that name.
    pub(crate) fn time<T>(&mut self, phase: Phase, operations: u64, work: impl FnOnce() -> T) -> T {
        let span = tracing::debug_span!("sparq", phase = phase.name()).entered();
        let (start, before) = (Instant::now(), processor_seconds());
        let result = work();
        let seconds = start.elapsed().as_secs_f64();
        let used = before.zip(processor_seconds()).map(|(before, after)| after - before);
        drop(span);
        let entry = self.entry(phase);
        entry.seconds += seconds;
        entry.processor_seconds = used.map(|used| entry.processor_seconds.unwrap_or(0.0) + used);
        entry.operations += operations;
        result
    }

    /// An empty profile that knows what the process holds now.
    pub(crate) fn begin() -> Self {
        Self { resident_bytes_before: resident_bytes(), ..Self::default() }
    }

    /// Notes the peak of memory so far.
    pub(crate) fn look_at_memory(&mut self) {
        self.peak_resident_bytes = peak_resident_bytes();
    }

    fn entry(&mut self, phase: Phase) -> &mut PhaseProfile {
        let at = self.phases.binary_search_by_key(&phase, |known| known.phase).unwrap_or_else(|at| {
            self.phases.insert(at, PhaseProfile::of(phase));
            at
        });
        &mut self.phases[at]
    }
}

impl fmt::Display for Profile {
    /// A table: seconds, cores at work, GFLOP/s, and the peak of memory.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: f64 = self.phases.iter().map(|phase| phase.seconds).sum();
        writeln!(f, "phase        seconds   share   cores   GFLOP/s")?;
        for phase in &self.phases {
            let share = 100.0 * phase.seconds / total.max(f64::MIN_POSITIVE);
            let shown =
                |value: Option<f64>, digits: usize| value.map_or_else(String::new, |value| format!("{value:.digits$}"));
            let (cores, rate) = (shown(phase.cores(), 2), shown(phase.giga_operations_per_second(), 0));
            writeln!(f, "{:<10} {:>9.2} {share:>6.1} % {cores:>7} {rate:>9}", phase.phase, phase.seconds)?;
        }
        match self.peak_resident_bytes {
            Some(bytes) => write!(f, "peak memory {:.2} GB, mapped files included", bytes as f64 / 1e9),
            None => write!(f, "peak memory unknown on this system"),
        }
    }
}

/// Processor time of this process, user and system, in seconds.
fn processor_seconds() -> Option<f64> {
    // What the kernel reports to programs is in hundredths of a second on every Linux.
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may hold anything; times are fields 14 and 15, the first after it being field 3.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / 100.0)
}

/// The most memory this process has held at once.
fn peak_resident_bytes() -> Option<u64> {
    status("VmHWM:")
}

/// Memory this process holds now, in bytes, mapped files included; none where the system does not say.
///
/// ```
/// assert!(sparq_pipeline::resident_bytes().is_none_or(|bytes| bytes > 0));
/// ```
pub fn resident_bytes() -> Option<u64> {
    status("VmRSS:")
}

/// What Linux says of this process's memory, in bytes.
fn status(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_add_up_and_keep_their_order() {
        let mut profile = Profile::default();
        assert_eq!(profile.time(Phase::Solve, 0, || 7), 7);
        profile.time(Phase::Forward, 2_000_000, || std::thread::sleep(std::time::Duration::from_millis(2)));
        profile.time(Phase::Solve, 5, || ());
        let phases: Vec<_> = profile.phases.iter().map(|phase| (phase.phase, phase.operations)).collect();
        assert_eq!(phases, [(Phase::Forward, 2_000_000), (Phase::Solve, 5)]);
        assert!(profile.seconds(Phase::Forward) >= 0.002);
        assert!(profile.phases[0].giga_operations_per_second().is_some_and(|rate| rate <= 1.0));
        profile.look_at_memory();
        let table = profile.to_string();
        assert!(table.contains("forward") && table.contains("peak memory"), "{table}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_time_and_memory() {
        let now = resident_bytes().expect("known");
        assert!(now > 100_000 && peak_resident_bytes().is_some_and(|peak| peak >= now));
        let before = processor_seconds().expect("known");
        let mut sum = 0_u64;
        while processor_seconds().expect("known") < before + 0.02 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }
}
