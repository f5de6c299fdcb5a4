//! One run of the binary, from start to end, with a bound.

use std::ffi::OsStr;
use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tombolo_testbed::cluster::binary;

/// How a run ended and what it said.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said beside.
    pub stderr: String,
}

/// Runs the binary to its end.
///
/// Panics: if it still runs after `seconds`; it is killed then.
pub fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>, seconds: u64) -> Ended {
    let binary = binary().unwrap_or_else(|error| panic!("{error}"));
    let file = || tempfile::tempfile().expect("a temporary file");
    let (mut out, mut err) = (file(), file());
    let copy = |file: &std::fs::File| Stdio::from(file.try_clone().expect("a second handle"));
    let mut command = Command::new(binary);
    command.args(arguments).stdin(Stdio::null()).stdout(copy(&out)).stderr(copy(&err));
    let mut child = command.spawn().expect("the binary runs");
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let text = |file: &mut std::fs::File| {
        let mut text = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut text)).expect("what it printed");
        String::from_utf8_lossy(&text).into_owned()
    };
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Ended { code: status.code(), stdout: text(&mut out), stderr: text(&mut err) };
        }
        if Instant::now() >= deadline {
            // It may have ended just now.
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} still ran after {seconds} s:\n{}\n{}", text(&mut out), text(&mut err));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
