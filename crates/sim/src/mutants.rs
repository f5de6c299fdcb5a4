//! `sim mutants`: plants each bug in turn, and runs seeds until a checker notices it.
//!
//! In weather that suits the mutant, over several ranges of seeds, each until the first that fails; the honest rules
//! then have to hold over all of these seeds. Green if every mutant is noticed in every range. Start at [`run_all`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tombolo_mutants::{Mutant, plant};
use tombolo_sim::{Settings, run};

/// Seeds between two ranges.
const RANGE_SEEDS: u64 = 1_000_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only these.
    mutants: Vec<String>,
    /// Ranges of seeds per mutant.
    #[arg(long, default_value_t = 5)]
    ranges: u64,
    /// The first seed of the first range.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Most seeds of one range.
    #[arg(long, default_value_t = 2_000)]
    seeds_max: u64,
    /// Longest time for one range, in seconds.
    #[arg(long, default_value_t = 60)]
    range_seconds_max: u64,
    /// How long faults last in each seed, in simulated seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// How many mutants at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// How many honest runs per range at most; each range is run from its beginning.
    #[arg(long, default_value_t = 2_000)]
    honest_max: u64,
}

/// What one range came to.
struct Caught {
    /// Seeds until a checker noticed; none if none did.
    seeds: Option<u64>,
    why: String,
    honest_count: u64,
    /// A seed that failed although nothing was planted.
    dishonest: Option<(u64, String)>,
}

/// Runs one seed; a panic, which is a broken assertion of the product, counts as noticed.
fn outcome(seed: u64, settings: Settings, planted: Option<Mutant>) -> Result<(), String> {
    plant(planted);
    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, settings).map(drop)));
    plant(None);
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
        Err(format!("at once: assertion: {text}"))
    })
}

fn settings(arguments: &Arguments, mutant: Mutant) -> Settings {
    Settings { seconds: arguments.seconds, suits: Some(mutant), ..Settings::default() }
}

fn hunt(arguments: &Arguments, mutant: Mutant, range: u64) -> Caught {
    let settings = settings(arguments, mutant);
    let first = arguments.from + range * RANGE_SEEDS;
    let until = Instant::now() + Duration::from_secs(arguments.range_seconds_max);
    let mut caught = Caught { seeds: None, why: String::new(), honest_count: 0, dishonest: None };
    let mut tried = 0;
    while tried < arguments.seeds_max && Instant::now() < until {
        tried += 1;
        if let Err(why) = outcome(first + tried - 1, settings, Some(mutant)) {
            (caught.seeds, caught.why) = (Some(tried), why);
            break;
        }
    }
    caught.honest_count = tried.min(arguments.honest_max);
    caught.dishonest = (first..first + caught.honest_count)
        .find_map(|seed| outcome(seed, settings, None).err().map(|why| (seed, why)));
    caught
}

/// The invariant that a failure's text begins with, or what else it was.
fn checker(why: &str) -> &str {
    let text = why.split_once(": ").map_or(why, |(_, text)| text);
    text.split(": ").next().unwrap_or(text)
}

fn median(counts: &mut [u64]) -> u64 {
    counts.sort_unstable();
    counts.get(counts.len() / 2).copied().unwrap_or_default()
}

/// Prints one line of the table. Gives the median of the seeds if every range noticed it and the honest rules held.
fn judge(mutant: Mutant, ranges: &[Caught]) -> Option<u64> {
    let mut counts: Vec<u64> = ranges.iter().filter_map(|range| range.seeds).collect();
    let mut checkers: Vec<&str> =
        ranges.iter().filter(|range| range.seeds.is_some()).map(|range| checker(&range.why)).collect();
    checkers.sort_unstable();
    checkers.dedup();
    let is_caught = counts.len() == ranges.len();
    let honest: u64 = ranges.iter().map(|range| range.honest_count).sum();
    let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
    let seeds = match (is_caught, least, most) {
        (true, Some(least), Some(most)) => format!("{} ({least}..{most})", median(&mut counts)),
        _ => format!("SURVIVED {} of {} ranges", ranges.len() - counts.len(), ranges.len()),
    };
    let mut by = checkers.join(", ");
    if by.chars().count() > 80 {
        by = by.chars().take(80).chain("...".chars()).collect();
    }
    println!("{:28} {seeds:>18}  {honest:>5} honest  {by}", mutant.name());
    for (seed, why) in ranges.iter().filter_map(|range| range.dishonest.as_ref()) {
        println!("  without any bug, seed {seed} fails in the weather of {}: {why}", mutant.name());
    }
    let is_honest = ranges.iter().all(|range| range.dishonest.is_none());
    (is_caught && is_honest).then(|| median(&mut counts))
}

/// `sim mutants`.
pub(crate) fn run_all(arguments: &Arguments) -> ExitCode {
    let is_wanted = |mutant: &Mutant| {
        arguments.mutants.is_empty() || arguments.mutants.iter().any(|name| name == mutant.name())
    };
    let wanted: Vec<Mutant> = Mutant::ALL.iter().copied().filter(is_wanted).collect();
    if wanted.len() < arguments.mutants.len() || wanted.is_empty() {
        eprintln!(
            "no such mutant; there are {:?}",
            Mutant::ALL.iter().map(|it| it.name()).collect::<Vec<_>>()
        );
        return ExitCode::from(2);
    }
    // Assertions are expected to break: their texts are in the table.
    std::panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let next = AtomicUsize::new(0);
    let medians = Mutex::new(Vec::new());
    let work = || {
        while let Some(&mutant) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let ranges: Vec<Caught> =
                (0..arguments.ranges.max(1)).map(|range| hunt(arguments, mutant, range)).collect();
            let mut medians = medians.lock().unwrap_or_else(PoisonError::into_inner);
            medians.extend(judge(mutant, &ranges));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(work);
        }
    });
    let mut medians = medians.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (count, all) = (medians.len(), wanted.len());
    println!("median {} seeds, {:.0} s", median(&mut medians), started.elapsed().as_secs_f64());
    println!("{count}/{all} caught");
    if count == all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plants a bug for a replay, in the weather that suits it.
pub(crate) fn replayed(settings: Settings, name: Option<&str>) -> Settings {
    let mutant = Mutant::ALL.iter().copied().find(|mutant| Some(mutant.name()) == name);
    plant(mutant);
    Settings { suits: mutant, ..settings }
}
