//! `bench heal`: one region is cut off under load and let back; how soon all regions are level again.
//!
//! All regions write at a fixed rate from before the cut until after the heal. The clock starts when frames pass again
//! and is read three times: when no region finds another unreachable any more, when the lag of every pair is low, and
//! when all that was accepted before the heal is durable and visible everywhere (a barrier per region, asked for before
//! the links are back): `heal/cut.rs`. What the regions say stands in `heal/looks.rs`, what the cut costs those that are
//! not cut off in `heal/others.rs`. With `--ops` it is another measurement: a given number of ops on the same keys on
//! both sides of a cut, in `heal/divergent.rs`.

mod cut;
mod divergent;
mod looks;
mod others;

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tombolo_codec::limits::AWAIT_MS_MAX;
use tombolo_testbed::cluster::ClusterOptions;
use tombolo_testbed::percentiles::{Latencies, Summary};
use tombolo_testbed::report::{BENCH_SCHEMA, Report};

use self::cut::{Healed, cut_and_heal};
use self::divergent::Mode;
use self::looks::LAG_LOW;
use self::others::{BEFORE, CUT, Others, growth_mib};
use super::Measured;
use super::bed::Bed;
use super::meter::Meter;
use super::open_loop::{Found, OpenLoop, Sampling};
use super::settings::{LoadSettings, RegionSettings};
use crate::error::{CliError, Exit};
use crate::regions::Regions;

/// For how long it is measured before the cut, in seconds, if nobody says: a tenth of the cut, within these.
const BEFORE_SECONDS: (f64, f64) = (2.0, 30.0);
/// How long a heal may take, in seconds, if nobody says: as long as the cut, within these. A barrier waits no longer.
const TIMEOUT_SECONDS: (f64, f64) = (60.0, AWAIT_MS_MAX as f64 / 1_000.0);
/// Longest load of one run.
const LOAD_MAX: Duration = Duration::from_secs(3 * 86_400);

const EXAMPLES: &str = "\
Examples:
  tombolo bench heal                                          a cut of 10 s under 25,000 signals/s
  tombolo bench heal --runs 5 --assert-heal-seconds 2         exit with 8 if a run takes longer
  tombolo bench heal --cut-seconds 60 --link-ms 40 -o json    a longer cut, with far links
  tombolo bench heal --cut-seconds 600 --assert-others-p99-change 10 --assert-growth-mib 64
                                                              what a long cut costs the others
  tombolo bench heal --ops 20000 --cells 1000000              the same keys written on both sides of a cut
  tombolo bench heal --ops 20000 --mode difference            the same, where logs were not kept";

/// Arguments of `tombolo bench heal`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Signals per second, over all regions together
    #[arg(long, value_name = "R", default_value_t = 25_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rate: u64,
    /// How long one region is cut off from the others, in seconds
    #[arg(long, value_name = "S", default_value_t = 10.0, value_parser = seconds)]
    cut_seconds: f64,
    /// How long the load is measured before the cut, in seconds [default: a tenth of the cut, from 2 to 30]
    #[arg(long, value_name = "S", value_parser = seconds)]
    before_seconds: Option<f64>,
    /// How long the heal may take before the run is given up, in seconds; at most 600 [default: as long as the cut, from
    /// 60 to 600]
    #[arg(long, value_name = "S", value_parser = timeout_seconds)]
    timeout_seconds: Option<f64>,
    /// Exit with 8 if a run's `heal_seconds` are above this
    #[arg(long, value_name = "X", value_parser = bound)]
    assert_heal_seconds: Option<f64>,
    /// Exit with 8 if during the cut the 99th percentile of the other regions' answers is higher by more than this
    /// percentage than before it
    #[arg(long, value_name = "PERCENT", value_parser = bound)]
    assert_others_p99_change: Option<f64>,
    /// Exit with 8 if at the end of the cut one of the other regions holds more memory than before it, by more than
    /// this many MiB
    #[arg(long, value_name = "MIB", value_parser = bound)]
    assert_growth_mib: Option<f64>,
    /// Measure this many divergent ops instead, half on each side of the cut, on the same keys
    #[arg(long, value_name = "N", conflicts_with_all = ["rate", "cut_seconds", "before_seconds", "timeout_seconds",
        "assert_heal_seconds", "assert_others_p99_change", "assert_growth_mib", "cluster", "keys", "kind", "dist"],
        value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
    ops: Option<u32>,
    /// With --ops: how many cells there are, half of them counters
    #[arg(long, value_name = "M", default_value_t = 1_000_000, requires = "ops",
        value_parser = clap::value_parser!(u32).range(2..=50_000_000))]
    cells: u32,
    /// With --ops: how the two sides come together; for a difference each side also writes what pushes the ops out of memory
    #[arg(long, value_enum, default_value = "resume", requires = "ops")]
    mode: Mode,
    /// With --ops: how many cuts and heals
    #[arg(long, value_name = "N", default_value_t = 5, requires = "ops",
        value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// With --ops: exit with 8 if the median of `heal_ms` is above this
    #[arg(long, value_name = "X", requires = "ops", value_parser = bound)]
    assert_heal_ms: Option<f64>,
    /// With --ops: exit with 8 if more than this many bytes are shipped for each that changed: of an op its key, and a delta
    /// of 8 bytes or the value with its stamp
    #[arg(long, value_name = "X", requires = "ops", value_parser = bound)]
    assert_shipped_ratio: Option<f64>,
    #[command(flatten)]
    pub(crate) load: LoadSettings,
    #[command(flatten)]
    pub(crate) regions: RegionSettings,
}

fn seconds(text: &str) -> Result<f64, String> {
    seconds_to(86_400.0, text)
}

fn timeout_seconds(text: &str) -> Result<f64, String> {
    seconds_to(TIMEOUT_SECONDS.1, text)
}

fn seconds_to(max: f64, text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    if (0.01..=max).contains(&seconds) { Ok(seconds) } else { Err(format!("between 0.01 and {max}")) }
}

/// A bound: a number that something else can be above.
fn bound(text: &str) -> Result<f64, String> {
    let bound: f64 = text.parse().map_err(|_| "a number".to_owned())?;
    if bound.is_finite() { Ok(bound) } else { Err("a finite number".to_owned()) }
}

/// One region in the report.
#[derive(Debug, Serialize)]
struct Side<'a> {
    region: &'a str,
    is_cut_off: bool,
    caught_up_seconds: f64,
    ack_before_ms: Summary,
    ack_cut_ms: Summary,
    rss_before_bytes: Option<u64>,
    rss_cut_bytes: Option<u64>,
    rss_growth_mib: Option<f64>,
}

impl Arguments {
    /// What to start. A heal needs links that can be cut, also where they delay nothing.
    pub(crate) fn options(&self, mut options: ClusterOptions) -> ClusterOptions {
        options.links.get_or_insert_default();
        match self.ops {
            Some(_) => divergent::options(options, self.mode),
            None => options,
        }
    }

    /// For how long it is measured before the cut.
    fn before(&self) -> Duration {
        let (least, most) = BEFORE_SECONDS;
        let default = (self.cut_seconds / 10.0).clamp(least, most);
        Duration::from_secs_f64(self.before_seconds.unwrap_or(default))
    }

    /// How long the heal may take.
    fn timeout(&self) -> Duration {
        let (least, most) = TIMEOUT_SECONDS;
        Duration::from_secs_f64(self.timeout_seconds.unwrap_or_else(|| self.cut_seconds.clamp(least, most)))
    }
}

/// Runs the load, the cut and the heal once.
pub(crate) async fn measure(arguments: &Arguments, regions: &Regions) -> Result<Measured, CliError> {
    let relay = regions.relay().ok_or_else(|| {
        CliError::new(Exit::Usage, "links can only be cut between regions that this command starts")
            .next("leave --cluster out")
    })?;
    if let Some(ops) = arguments.ops {
        return divergent::measure(arguments, ops, relay, regions).await;
    }
    let load = &arguments.load;
    let bed = Bed::make(regions, load).await?;
    let meter = Meter::start(regions).await;
    let writers = OpenLoop::start(&bed, load, arguments.rate, LOAD_MAX, Sampling::Nothing);
    let healed = cut_and_heal(arguments, &bed, relay, &writers).await;
    writers.stop();
    let healed = healed?;
    let (accepted, found) = writers.join(&bed.names).await?;
    let mut settled = bed.converge(&accepted, meter.started()).await?;
    let signals: u64 = accepted.iter().map(|accepted| accepted.signals).sum();
    let durability = regions.statuses().await?.remove(0).durability;
    let mut report = Report::new(BENCH_SCHEMA, "heal", durability);
    meter.stop(regions, signals, settled.converged, &mut report).await;
    bed.verify(&accepted, &mut settled).await?;
    settled.wrong.extend(accepted.iter().filter_map(|accepted| accepted.refusal.clone()));
    settled.wrong.extend(found.iter().filter_map(|found| found.failure.clone()));
    settled.wrong.extend(judged(arguments, &healed));
    let others = Others::new(&found[..found.len() - 1], &healed.usages);
    settled.wrong.extend(others.judged(arguments));
    report.errors = accepted.iter().map(|accepted| accepted.refused).sum();
    report.timeouts = accepted.iter().map(|accepted| accepted.unknown).sum();
    let mut acks = Latencies::new();
    found.iter().for_each(|found| acks.merge(&found.acks()));
    report.set("kind", load.kind.name());
    report.set("dist", load.dist.name());
    report.set("keys", load.keys);
    report.set("rate", arguments.rate);
    report.set("link_ms", arguments.regions.delay_ms.unwrap_or(0));
    report.set("before_seconds", arguments.before().as_secs_f64());
    report.set("cut_seconds", healed.cut_seconds);
    report.set("signals", signals);
    report.set("backlog_signals", healed.backlog);
    report.set("signals_per_second", healed.backlog as f64 / healed.cut_seconds);
    report.set("heal_seconds", healed.whole().as_secs_f64());
    report.set("reconnected_seconds", healed.reconnected.as_secs_f64());
    report.set("lag_low_seconds", healed.lag_is_low.as_secs_f64());
    report.set("caught_up_seconds", healed.caught_up().as_secs_f64());
    report.set("lag_seconds", healed.lag_seconds);
    report.set("regions", sides(&bed.names, &healed, &found));
    report.set("ack_ms", acks.summary());
    others.report(&mut report);
    bed.close().await;
    Ok(Measured { report, wrong: settled.wrong })
}

/// The region that is cut off.
fn cut_off(names: &[String]) -> &String {
    names.last().expect("a cluster has regions")
}

fn sides<'a>(names: &'a [String], healed: &Healed, found: &[Found]) -> Vec<Side<'a>> {
    let side = |(at, (name, caught_up)): (usize, (&'a String, &Duration))| {
        let rss = healed.usages.rss_bytes(at);
        Side {
            region: name,
            is_cut_off: name == cut_off(names),
            caught_up_seconds: caught_up.as_secs_f64(),
            ack_before_ms: found[at].acks_in(BEFORE).summary(),
            ack_cut_ms: found[at].acks_in(CUT).summary(),
            rss_before_bytes: rss.map(|(before, _)| before),
            rss_cut_bytes: rss.map(|(_, cut)| cut),
            rss_growth_mib: rss.map(growth_mib),
        }
    };
    names.iter().zip(&healed.caught_up).enumerate().map(side).collect()
}

/// What is not as it must be.
fn judged(arguments: &Arguments, healed: &Healed) -> Vec<String> {
    let mut wrong = Vec::new();
    // Without this a relay that cuts nothing would be measured as a heal of no time.
    if healed.lag_seconds.cut < arguments.cut_seconds / 2.0 {
        let (cut, lag) = (arguments.cut_seconds, healed.lag_seconds.cut);
        wrong.push(format!("after a cut of {cut} s the greatest lag was {lag:.2} s: the cut did not hold"));
    }
    let seconds = healed.whole().as_secs_f64();
    if let Some(bound) = arguments.assert_heal_seconds.filter(|bound| seconds > *bound) {
        wrong.push(format!("the heal took {seconds:.3} s, above {bound} s"));
    }
    if healed.lag_seconds.after >= LAG_LOW {
        wrong.push(format!("a while after the heal the lag is {:.2} s again", healed.lag_seconds.after));
    }
    wrong
}

/// The line for people.
pub(crate) fn summary(report: &Report) -> String {
    if report.fields.contains_key("heal_ms") {
        return divergent::summary(report);
    }
    let number = |name: &str| report.fields.get(name).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
    let lag = |name: &str| report.fields.get("lag_seconds").and_then(|lag| lag[name].as_f64()).unwrap_or(0.0);
    format!(
        "cut off for {:.1} s under {:.0} signals/s, {:.0} asked: healed in {:.2} s\n  reconnected after {:.2} s, lag below {LAG_LOW} s \
         after {:.2} s, {:.0} signals caught up after {:.2} s\n  lag {:.2} s before, {:.2} s at the end of the cut, {:.2} s after\n  {}",
        number("cut_seconds"),
        number("signals_per_second"),
        number("rate"),
        number("heal_seconds"),
        number("reconnected_seconds"),
        number("lag_low_seconds"),
        number("backlog_signals"),
        number("caught_up_seconds"),
        lag("before"),
        lag("cut"),
        lag("after"),
        others::summary(report),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::cut::Lag;
    use super::others::Usages;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    pub(super) fn arguments(options: &[&str]) -> Arguments {
        Line::parse_from(["heal"].iter().chain(options)).arguments
    }

    fn healed(cut: f64, after: f64) -> Healed {
        let s = Duration::from_secs_f64;
        let lag_seconds = Lag { before: 0.02, cut, after };
        Healed {
            cut_seconds: cut,
            reconnected: s(0.3),
            lag_is_low: s(0.9),
            caught_up: vec![s(0.5), s(1.1)],
            backlog: 9,
            lag_seconds,
            usages: Usages::default(),
        }
    }

    #[test]
    fn the_times_before_a_cut_and_for_its_heal_follow_its_length_within_bounds_unless_they_are_given() {
        let before = |options: &[&str]| arguments(options).before().as_secs_f64();
        assert_eq!(before(&["--cut-seconds", "3"]), 2.0);
        assert_eq!(before(&["--cut-seconds", "60"]), 6.0);
        assert_eq!(before(&["--cut-seconds", "600"]), 30.0);
        assert_eq!(before(&["--cut-seconds", "600", "--before-seconds", "5"]), 5.0);
        let timeout = |options: &[&str]| arguments(options).timeout().as_secs_f64();
        assert_eq!(timeout(&["--cut-seconds", "3"]), 60.0);
        assert_eq!(timeout(&["--cut-seconds", "300"]), 300.0);
        assert_eq!(timeout(&["--cut-seconds", "3600"]), 600.0);
        assert_eq!(timeout(&["--cut-seconds", "300", "--timeout-seconds", "9"]), 9.0);
    }

    #[test]
    fn a_bound_that_nothing_can_be_above_is_refused() {
        for option in ["--assert-heal-ms", "--assert-shipped-ratio"] {
            let with = |bound: &str| Line::try_parse_from(["heal", "--ops", "100", option, bound]).is_ok();
            assert_eq!([with("2.5"), with("NaN"), with("inf")], [true, false, false], "{option}");
        }
    }

    #[test]
    fn a_heal_is_over_when_the_last_of_what_is_measured_is() {
        assert_eq!(healed(10.0, 0.0).whole(), Duration::from_secs_f64(1.1));
        assert_eq!(judged(&arguments(&[]), &healed(10.0, 0.0)), Vec::<String>::new());
        assert_eq!(
            judged(&arguments(&["--assert-heal-seconds", "1.2"]), &healed(10.0, 0.0)),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_heal_above_its_bound_a_cut_that_cuts_nothing_and_lag_that_comes_back_are_wrong() {
        assert_eq!(
            judged(&arguments(&["--assert-heal-seconds", "1"]), &healed(10.0, 0.0)),
            ["the heal took 1.100 s, above 1 s"]
        );
        assert_eq!(judged(&arguments(&[]), &healed(0.1, 0.0)).len(), 1);
        assert_eq!(judged(&arguments(&[]), &healed(10.0, 2.5)).len(), 1);
    }
}
