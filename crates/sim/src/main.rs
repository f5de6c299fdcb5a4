//! `sim run` and `sim replay`: sweeps over seeds, and one seed again; built with `--cfg tombolo_mutants` also
//! `sim mutants`. Start at `main`.
#![allow(clippy::print_stdout, reason = "it is a command")]

#[cfg(tombolo_mutants)]
mod mutants;

use std::cell::Cell;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::{Parser, Subcommand};
use tombolo_sim::{Rare, RareCounts, Settings, Summary, run};

/// A seed is millions of small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "sim", about = "Whole clusters on one seed, in virtual time")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run many seeds; the first that fails is printed with the command that shows it again.
    Run {
        /// How many.
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        /// The first.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How long faults last in each, in simulated seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// How many at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Go on after a failure.
        #[arg(long)]
        keep_going: bool,
        /// Fail if a rare event was never met.
        #[arg(long)]
        all_rare: bool,
        /// Print the summary as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run one seed again.
    Replay {
        /// Which.
        #[arg(long)]
        seed: u64,
        /// As in the run that it comes from.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Print every event.
        #[arg(long)]
        trace: bool,
        /// With this bug planted.
        #[cfg(tombolo_mutants)]
        #[arg(long)]
        mutant: Option<String>,
    },
    /// Plant each bug in turn and look how many seeds it takes to notice it.
    #[cfg(tombolo_mutants)]
    Mutants(mutants::Arguments),
}

thread_local! {
    static SEED: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

fn replay_command(seed: u64, seconds: u64) -> String {
    let seconds = if seconds == 60 { String::new() } else { format!(" --seconds {seconds}") };
    format!("cargo run --profile mutants -p tombolo-sim -- replay --seed {seed}{seconds}")
}

/// Runs a seed; a panic, which is a broken assertion of the product, names the seed as well.
fn run_named(seed: u64, settings: Settings) -> Result<Summary, String> {
    SEED.set((seed, settings.seconds));
    let outcome = std::panic::catch_unwind(|| run(seed, settings));
    outcome.unwrap_or_else(|_| Err("an assertion failed".to_owned()))
}

fn name_seeds_in_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        let (seed, seconds) = SEED.get();
        eprintln!("seed {seed} ended in an assertion; again: {}", replay_command(seed, seconds));
    }));
}

/// Seeds between two words of how far a sweep is.
const PROGRESS_EVERY: u64 = 500;

/// What a sweep came to.
#[derive(Default)]
struct Sweep {
    seeds_count: u64,
    simulated_ms: u64,
    ops_count: u64,
    batches_count: u64,
    events_count: u64,
    healed_ms_max: u64,
    rare: RareCounts,
    failures: Vec<(u64, String)>,
}

impl Sweep {
    fn take(&mut self, seed: u64, outcome: Result<Summary, String>) {
        self.seeds_count += 1;
        match outcome {
            Ok(summary) => {
                self.simulated_ms += summary.simulated_ms;
                self.ops_count += summary.ops_count;
                self.batches_count += summary.batches_count;
                self.events_count += summary.events_count;
                self.healed_ms_max = self.healed_ms_max.max(summary.healed_ms);
                self.rare.join(&summary.rare);
            }
            Err(why) => {
                // At once: what is searched for long may be stopped before its end.
                eprintln!("seed {seed} failed {why}");
                self.failures.push((seed, why));
            }
        }
        if self.seeds_count.is_multiple_of(PROGRESS_EVERY) {
            eprintln!("{} seeds, {} failed", self.seeds_count, self.failures.len());
        }
    }

    fn print(&self, seconds: u64, took_seconds: f64) {
        let (hours, ops) = (self.simulated_ms as f64 / 3_600_000.0, self.ops_count);
        println!("{} seeds, {hours:.1} h simulated in {took_seconds:.1} s", self.seeds_count);
        println!("{ops} ops, {} batches, {} events", self.batches_count, self.events_count);
        println!("longest healing {:.1} s", self.healed_ms_max as f64 / 1_000.0);
        for rare in Rare::ALL {
            println!("{:>12} {}", self.rare.of(rare), rare.name());
        }
        for (seed, why) in &self.failures {
            println!("seed {seed} failed {why}\n  {}", replay_command(*seed, seconds));
        }
    }

    fn json(&self, took_seconds: f64) -> serde_json::Value {
        let rare: serde_json::Map<_, _> =
            Rare::ALL.into_iter().map(|rare| (rare.name(), self.rare.of(rare).into())).collect();
        let failures: Vec<_> =
            self.failures.iter().map(|(seed, why)| serde_json::json!({ "seed": seed, "why": why })).collect();
        serde_json::json!({
            "seeds_count": self.seeds_count,
            "simulated_ms": self.simulated_ms,
            "ops_count": self.ops_count,
            "batches_count": self.batches_count,
            "events_count": self.events_count,
            "healed_ms_max": self.healed_ms_max,
            "took_seconds": took_seconds,
            "rare": rare,
            "failures": failures,
        })
    }
}

fn sweep(first: u64, count: u64, settings: Settings, jobs: usize, keep_going: bool) -> Sweep {
    let next = AtomicU64::new(first);
    let sweep = Mutex::new(Sweep::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let has_failed = !sweep.lock().unwrap_or_else(PoisonError::into_inner).failures.is_empty();
            if seed >= first + count || (has_failed && !keep_going) {
                return;
            }
            let outcome = run_named(seed, settings);
            sweep.lock().unwrap_or_else(PoisonError::into_inner).take(seed, outcome);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(work);
        }
    });
    let mut sweep = sweep.into_inner().unwrap_or_else(PoisonError::into_inner);
    sweep.failures.sort();
    sweep
}

fn main() -> ExitCode {
    name_seeds_in_panics();
    match Arguments::parse().command {
        Command::Run { seeds, from, seconds, jobs, keep_going, all_rare, json } => {
            let started = Instant::now();
            let settings = Settings { seconds, ..Settings::default() };
            let sweep = sweep(from, seeds, settings, jobs, keep_going);
            let took_seconds = started.elapsed().as_secs_f64();
            if json {
                println!("{:#}", sweep.json(took_seconds));
            } else {
                sweep.print(seconds, took_seconds);
            }
            let missing = if all_rare { sweep.rare.missing() } else { Vec::new() };
            for rare in &missing {
                eprintln!("never met: {}", rare.name());
            }
            if sweep.failures.is_empty() && missing.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        #[cfg(tombolo_mutants)]
        Command::Mutants(arguments) => mutants::run_all(&arguments),
        Command::Replay {
            seed,
            seconds,
            trace,
            #[cfg(tombolo_mutants)]
            mutant,
        } => {
            let settings = Settings { seconds, is_traced: trace, ..Settings::default() };
            #[cfg(tombolo_mutants)]
            let settings = mutants::replayed(settings, mutant.as_deref());
            match run_named(seed, settings) {
                Ok(summary) => {
                    println!("seed {seed} holds: {summary:#?}");
                    ExitCode::SUCCESS
                }
                Err(why) => {
                    println!("seed {seed} failed {why}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}
