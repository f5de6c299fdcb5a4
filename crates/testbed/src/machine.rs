//! What a report must say about where it was made: the machine, the commit, and what processes used.
//!
//! Reads `/proc`; elsewhere the facts are absent rather than wrong. Changes nothing. Start with [`Machine::read`] and
//! [`Usage::of`].

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The machine a report was made on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Cores this process may use.
    pub cores: usize,
    /// Model name of the first core, if the system says.
    pub cpu: Option<String>,
    /// Bytes of memory, if the system says.
    pub memory_bytes: Option<u64>,
    /// Name and release of the kernel.
    pub kernel: String,
}

impl Machine {
    /// Reads it from the running system.
    #[must_use]
    pub fn read() -> Self {
        let system = rustix::system::uname();
        let cpu = fs::read_to_string("/proc/cpuinfo").ok();
        let memory = fs::read_to_string("/proc/meminfo").ok();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: cpu.as_deref().and_then(|text| field(text, "model name")).map(str::to_owned),
            memory_bytes: memory.as_deref().and_then(|text| kib_field(text, "MemTotal")),
            kernel: format!("{} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy()),
        }
    }
}

/// The commit this was built from: `TOMBOLO_COMMIT` of the build, else what git says of the sources, with `-dirty` for
/// uncommitted changes, else `unknown`.
#[must_use]
pub fn commit() -> String {
    if let Some(commit) = option_env!("TOMBOLO_COMMIT") {
        return commit.to_owned();
    }
    // Never the current directory: it may be another project's.
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"];
    let output = Command::new("git").arg("-C").arg(sources).args(describe).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// User and system time of all its threads, ended ones included. Grain: a clock tick, usually 10 ms.
    pub cpu_seconds: f64,
    /// Greatest resident memory so far.
    pub peak_rss_bytes: u64,
    /// Resident memory at this moment.
    pub rss_bytes: u64,
    /// Bytes it caused to be written to storage, if this process may know.
    pub write_bytes: Option<u64>,
}

impl Usage {
    /// Reads it for a running process.
    ///
    /// Errors: what reading `/proc/<pid>` gives, `NotFound` once it ended; `InvalidData` if the text is not understood.
    pub fn of(pid: u32) -> std::io::Result<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let (stat, status) = (read("stat")?, read("status")?);
        let ticks = cpu_ticks(&stat).ok_or_else(|| {
            std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("/proc/{pid}/stat is not understood"),
            )
        })?;
        Ok(Self {
            cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
            peak_rss_bytes: kib_field(&status, "VmHWM").unwrap_or(0),
            rss_bytes: kib_field(&status, "VmRSS").unwrap_or(0),
            write_bytes: read("io").ok().and_then(|text| field(&text, "write_bytes")?.parse().ok()),
        })
    }

    /// What was used since `earlier`; memory is not a difference but as it is here.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu_seconds: (self.cpu_seconds - earlier.cpu_seconds).max(0.0),
            write_bytes: self.write_bytes.zip(earlier.write_bytes).map(|(a, b)| a.saturating_sub(b)),
            ..*self
        }
    }
}

/// Clock ticks in user and system mode, from the text of `/proc/<pid>/stat`.
fn cpu_ticks(stat: &str) -> Option<u64> {
    // The second field is the name in brackets and may hold anything, brackets and spaces too.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The value of `name: value` in the files of `/proc`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim()))
}

/// A field in kibibytes, as bytes.
fn kib_field(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 3 0 250 50 9 9 20 0 1 0 99 1000 10";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (short) S 1"), None);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "VmHWMx:\t1 kB\nVmHWM:\t   2048 kB\nmodel name\t: Some CPU\n";
        assert_eq!(kib_field(text, "VmHWM"), Some(2_048 * 1_024));
        assert_eq!(field(text, "model name"), Some("Some CPU"));
        assert_eq!(field(text, "none"), None);
    }

    #[test]
    fn work_of_this_process_shows_in_its_usage() {
        let pid = std::process::id();
        let before = Usage::of(pid).unwrap();
        let start = Instant::now();
        let mut sum = 0_u64;
        while start.elapsed() < Duration::from_millis(200) {
            sum = std::hint::black_box(sum.wrapping_mul(3).wrapping_add(1));
        }
        let used = Usage::of(pid).unwrap().since(&before);
        assert!(used.cpu_seconds > 0.02, "{used:?}");
        assert!(used.peak_rss_bytes >= used.rss_bytes && used.rss_bytes > 100_000, "{used:?}");
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert_eq!(Usage::of(u32::MAX).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }

    #[test]
    fn the_machine_has_cores_and_a_kernel() {
        let machine = Machine::read();
        assert!(machine.cores >= 1 && machine.kernel.contains(' '), "{machine:?}");
        assert!(!commit().is_empty());
    }
}
