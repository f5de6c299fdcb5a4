//! A clock that goes wrong for one process: a library, built here, that stands before the system's and adds to what its
//! wall clock says.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Adds `WRONG_CLOCK_SECONDS` to the wall clock, and to nothing else.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    static long seconds;
    if (!real) {
        const char *text = getenv("WRONG_CLOCK_SECONDS");
        seconds = text ? atol(text) : 0;
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    }
    int done = real(id, at);
    if (!done && id == CLOCK_REALTIME) at->tv_sec += seconds;
    return done;
}
"#;

/// Environment with which a process takes it to be this much later than it is.
///
/// Panics: if the machine's C compiler does not build the library.
#[must_use]
pub fn ahead_by(dir: &Path, seconds: i64) -> [(String, String); 2] {
    let (source, library): (PathBuf, PathBuf) = (dir.join("wrong_clock.c"), dir.join("wrong_clock.so"));
    std::fs::write(&source, SOURCE).expect("the directory takes a file");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl")
        .output();
    let built = built.expect("there is a C compiler: the linker is one");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    [
        ("LD_PRELOAD".to_owned(), library.display().to_string()),
        ("WRONG_CLOCK_SECONDS".to_owned(), seconds.to_string()),
    ]
}
