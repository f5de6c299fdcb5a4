//! One daemon as a child process: started, signalled, waited for, and its log kept.
//!
//! Signals only what it started and has not yet waited for, so a reused process id is never hit.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How much of a log an error carries.
const LOG_TAIL_BYTES: u64 = 4_096;

/// How often a process is asked whether it ended.
const EXIT_POLL: Duration = Duration::from_millis(5);

/// A daemon's process and its log; killed when dropped.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    exit: Option<ExitStatus>,
}

impl Daemon {
    /// Starts `command` with its output appended to `log`.
    pub(super) fn start(mut command: Command, log: &Path) -> io::Result<Self> {
        let out = OpenOptions::new().create(true).append(true).open(log)?;
        let err = out.try_clone()?;
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn()?;
        Ok(Self { child, exit: None })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub(super) fn exit(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait()?;
        }
        Ok(self.exit)
    }

    /// Sends a signal, unless it has ended.
    pub(super) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.exit()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.expect("a child has a positive id"), signal)?)
    }

    /// Waits for its end; none if it still runs at the deadline.
    pub(super) fn wait(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(exit) = self.exit()? {
                return Ok(Some(exit));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(EXIT_POLL);
        }
    }

    /// Kills it (signal 9) and waits for its end.
    pub(super) fn kill(&mut self) -> io::Result<ExitStatus> {
        if let Some(exit) = self.exit()? {
            return Ok(exit);
        }
        self.child.kill()?;
        let exit = self.child.wait()?;
        self.exit = Some(exit);
        Ok(exit)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = self.kill();
    }
}

/// The end of a log, whole lines where there are any.
pub(super) fn log_tail(path: &PathBuf) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(path)?;
        let from = file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let start = if from == 0 { 0 } else { text.find('\n').map_or(0, |at| at + 1) };
        Ok(text[start..].trim_end().to_owned())
    };
    read().unwrap_or_else(|error| format!("(no log: {error})"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn shell(script: &str, log: &Path) -> Daemon {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Daemon::start(command, log).unwrap()
    }

    #[test]
    fn a_killed_process_ends_by_signal_nine_and_its_output_is_in_the_log() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut daemon = shell("echo out; echo err >&2; echo done; exec sleep 60", log.path());
        let deadline = Instant::now() + Duration::from_secs(5);
        while !log_tail(&log.path().to_owned()).contains("done") {
            assert!(Instant::now() < deadline);
            std::thread::sleep(EXIT_POLL);
        }
        assert_eq!(daemon.wait(Duration::from_millis(20)).unwrap(), None);
        assert_eq!(daemon.kill().unwrap().signal(), Some(9));
        assert_eq!(daemon.kill().unwrap().signal(), Some(9));
        assert_eq!(log_tail(&log.path().to_owned()), "out\nerr\ndone");
    }

    #[test]
    fn a_terminated_process_may_end_as_it_likes() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut daemon = shell("trap 'exit 0' TERM; echo ready; while :; do sleep 0.02; done", log.path());
        while !log_tail(&log.path().to_owned()).contains("ready") {
            std::thread::sleep(EXIT_POLL);
        }
        daemon.signal(Signal::TERM).unwrap();
        let exit = daemon.wait(Duration::from_secs(5)).unwrap().unwrap();
        assert_eq!(exit.code(), Some(0));
        daemon.signal(Signal::TERM).unwrap();
    }

    #[test]
    fn a_dropped_daemon_is_gone() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let daemon = shell("exec sleep 60", log.path());
        let place = format!("/proc/{}", daemon.pid());
        assert!(Path::new(&place).exists());
        drop(daemon);
        assert!(!Path::new(&place).exists());
    }

    #[test]
    fn the_tail_of_a_long_log_begins_with_a_whole_line() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let lines: String = (0..1_000).map(|n| format!("line number {n}\n")).collect();
        std::fs::write(log.path(), lines).unwrap();
        let tail = log_tail(&log.path().to_owned());
        assert!(tail.starts_with("line number ") && tail.ends_with("line number 999"));
        assert!(tail.len() as u64 <= LOG_TAIL_BYTES);
        assert!(log_tail(&"no/such/log".into()).starts_with("(no log"));
    }
}
