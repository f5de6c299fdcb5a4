//! [`drive`]: script after script until the time is over, and the shortest one that fails.
//!
//! Script n is drawn from the number n alone, so a number repeats a failure. Start with [`drive`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::script::Script;

/// Seconds each target takes; a nightly run gives it minutes.
pub const SECONDS_VARIABLE: &str = "TOMBOLO_FUZZ_SECONDS";
/// The number of the first script; a nightly run gives another each time.
pub const FIRST_VARIABLE: &str = "TOMBOLO_FUZZ_FIRST";

const SECONDS_DEFAULT: f64 = 1.0;
/// Scripts each target takes, however slow the machine is: the planted bugs are found long before.
const SCRIPTS_MIN: u64 = 2_000;
/// Bytes of a failing input that are shown.
const SHOWN_BYTES_MAX: usize = 4_096;

fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    let Ok(text) = std::env::var(name) else { return default };
    text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number"))
}

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Driven {
    /// How many scripts there were.
    pub scripts: u64,
    /// Of how many the bytes were others than any seed's, and accepted.
    pub accepted: u64,
}

/// Gives `take` the edited seeds, each with a number at least 1 for cutting a stream into pieces, for as long as
/// [`SECONDS_VARIABLE`] says. It answers whether the decoder accepted them.
///
/// Panics: if `take` does, with the shortest script that makes it panic; if a variable is no number.
pub fn drive(seeds: &[Vec<u8>], take: impl Fn(&[u8], usize) -> bool) -> Driven {
    let duration = Duration::from_secs_f64(variable(SECONDS_VARIABLE, SECONDS_DEFAULT));
    let (start, first) = (Instant::now(), variable(FIRST_VARIABLE, 1));
    let taken = |script: &Script| {
        let bytes = script.apply(seeds);
        let taken = catch_unwind(AssertUnwindSafe(|| take(&bytes, script.step)));
        taken.map(|is_accepted| is_accepted && !seeds.contains(&bytes)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text").to_owned()
        })
    };
    let mut driven = Driven { scripts: 0, accepted: 0 };
    while driven.scripts < SCRIPTS_MIN || start.elapsed() < duration {
        let number = driven.scripts.wrapping_add(first);
        let script = Script::draw(number, seeds.len());
        match taken(&script) {
            Ok(is_accepted) => driven.accepted += u64::from(is_accepted),
            Err(text) => {
                let (script, text) = shortest(script, text, |script| taken(script).err());
                let bytes = script.apply(seeds);
                let shown = bytes[..bytes.len().min(SHOWN_BYTES_MAX)].escape_ascii();
                panic!(
                    "{text}\n{script:?}\n{} bytes: {shown}\nagain: {FIRST_VARIABLE}={number}",
                    bytes.len()
                );
            }
        }
        driven.scripts += 1;
    }
    eprintln!("{driven:?}");
    driven
}

impl Driven {
    /// Panics: if hardly any edited bytes were accepted, so that next to nothing was checked behind the door.
    pub fn got_inside(self) {
        assert!(self.accepted * 500 >= self.scripts, "edits hardly ever get through: {self:?}");
    }
}

/// Leaves out edits as long as it goes on failing.
fn shortest(
    mut script: Script,
    mut text: String,
    fails: impl Fn(&Script) -> Option<String>,
) -> (Script, String) {
    let mut at = 0;
    while at < script.edits.len() {
        let mut shorter = script.clone();
        shorter.edits.remove(at);
        match fails(&shorter) {
            Some(why) => (script, text) = (shorter, why),
            None => at += 1,
        }
    }
    (script, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_by_its_shortest_script_and_its_number_repeats_it() {
        let seeds = [b"abcdefgh".to_vec()];
        let is_bad = |bytes: &[u8]| bytes.len() == 8 && bytes[2] != b'c';
        let driven =
            catch_unwind(|| drive(&seeds, |bytes, _| if is_bad(bytes) { panic!("found") } else { true }));
        let panic = driven.unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        let number = text.rsplit_once('=').unwrap().1.parse().unwrap();
        assert!(is_bad(&Script::draw(number, 1).apply(&seeds)), "{text}");
        assert!(text.starts_with("found\nScript { seed: 0, edits: ["), "{text}");
        assert!(!text.lines().nth(1).unwrap().contains("), "), "one edit is enough: {text}");
    }
}
