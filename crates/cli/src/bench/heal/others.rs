//! [`Others`]: what a cut costs the regions that are not cut off.
//!
//! How soon they answer before the cut and during it, under the same load, and how much more memory they hold at its
//! end than right before it. What cannot be told breaks a bound on it. Asks nobody: what was found comes in as values.

use serde_json::Value;
use tombolo_testbed::machine::Usage;
use tombolo_testbed::percentiles::{Latencies, Summary};
use tombolo_testbed::report::Report;

use super::Arguments;
use crate::bench::open_loop::Found;

/// Phases of the load; what comes first, and after the cut, is not compared.
pub(super) const BEFORE: usize = 1;
pub(super) const CUT: usize = 2;
const MIB: f64 = 1_048_576.0;

/// What every region had used right before the cut and at its end, where the system says.
#[derive(Debug, Default)]
pub(super) struct Usages {
    pub(super) before: Option<Vec<Usage>>,
    pub(super) cut: Option<Vec<Usage>>,
}

impl Usages {
    /// Resident memory of the region at a place, before the cut and at its end.
    pub(super) fn rss_bytes(&self, at: usize) -> Option<(u64, u64)> {
        let (before, cut) = (self.before.as_ref()?.get(at)?, self.cut.as_ref()?.get(at)?);
        Some((before.rss_bytes, cut.rss_bytes))
    }
}

/// The regions that are not cut off, together.
#[derive(Debug)]
pub(super) struct Others {
    ack_before_ms: Summary,
    ack_cut_ms: Summary,
    /// Of the region that grew most.
    growth_mib: Option<f64>,
}

impl Others {
    /// From what was found in each of them.
    pub(super) fn new(found: &[Found], usages: &Usages) -> Self {
        let acks = |phase| {
            let mut acks = Latencies::new();
            found.iter().for_each(|found| acks.merge(&found.acks_in(phase)));
            acks.summary()
        };
        let growths: Option<Vec<f64>> =
            (0..found.len()).map(|at| usages.rss_bytes(at).map(growth_mib)).collect();
        let growth_mib = growths.and_then(|growths| growths.into_iter().reduce(f64::max));
        Self { ack_before_ms: acks(BEFORE), ack_cut_ms: acks(CUT), growth_mib }
    }

    /// How much higher the 99th percentile is during the cut; none if nothing was answered before it or during it.
    fn p99_change_percent(&self) -> Option<f64> {
        let (before, cut) = (self.ack_before_ms.p99, self.ack_cut_ms.p99);
        (before > 0.0 && cut > 0.0).then(|| (cut / before - 1.0) * 100.0)
    }

    /// Adds them to a report.
    pub(super) fn report(&self, report: &mut Report) {
        report.set("others_ack_before_ms", self.ack_before_ms);
        report.set("others_ack_cut_ms", self.ack_cut_ms);
        report.set("others_ack_p99_change_percent", self.p99_change_percent());
        report.set("others_rss_growth_mib", self.growth_mib);
    }

    /// What is above its bound.
    pub(super) fn judged(&self, arguments: &Arguments) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(bound) = arguments.assert_others_p99_change {
            let (before, cut) = (self.ack_before_ms.p99, self.ack_cut_ms.p99);
            match self.p99_change_percent() {
                Some(change) if change <= bound => {}
                Some(change) => wrong.push(format!(
                    "the others' ack p99 was {before} ms before the cut and {cut} ms during it: {change:+.1} %, above {bound} %"
                )),
                None => wrong.push("the others' ack p99 cannot be compared: nothing was answered".to_owned()),
            }
        }
        if let Some(bound) = arguments.assert_growth_mib {
            match self.growth_mib {
                Some(growth) if growth <= bound => {}
                Some(growth) => wrong.push(format!(
                    "one of the others holds {growth:+.1} MiB of memory more after the cut, above {bound} MiB"
                )),
                None => wrong.push("the others' memory cannot be read here".to_owned()),
            }
        }
        wrong
    }
}

/// How much more it is at the end, in MiB.
pub(super) fn growth_mib((before, cut): (u64, u64)) -> f64 {
    (cut as f64 - before as f64) / MIB
}

/// The line for people.
pub(super) fn summary(report: &Report) -> String {
    let number = |name: &str, digits: usize, unit: &str| {
        let number = report.fields.get(name).and_then(Value::as_f64);
        number.map_or_else(|| "unknown".to_owned(), |number| format!("{number:+.digits$} {unit}"))
    };
    let change = number("others_ack_p99_change_percent", 1, "%");
    let growth = number("others_rss_growth_mib", 1, "MiB");
    format!("the others during the cut: ack p99 {change}, memory {growth}")
}

#[cfg(test)]
mod tests {
    use super::super::tests::arguments;
    use super::*;

    fn others(before: f64, cut: f64, growth_mib: Option<f64>) -> Others {
        let summary = |p99| Summary { p99, ..Summary::default() };
        Others { ack_before_ms: summary(before), ack_cut_ms: summary(cut), growth_mib }
    }

    fn usages(before: [u64; 2], cut: [u64; 2]) -> Usages {
        let of =
            |mib: [u64; 2]| Some(mib.map(|mib| Usage { rss_bytes: mib << 20, ..Usage::default() }).to_vec());
        Usages { before: of(before), cut: of(cut) }
    }

    #[test]
    fn a_99th_percentile_that_goes_up_by_more_than_its_bound_is_wrong() {
        let bound = arguments(&["--assert-others-p99-change", "10"]);
        for (before, cut, findings) in [(10.0, 10.9, 0), (10.0, 4.0, 0), (10.0, 11.1, 1), (0.2, 0.3, 1)] {
            let others = others(before, cut, None);
            assert_eq!(others.judged(&bound).len(), findings, "{before} {cut}");
            assert_eq!(others.judged(&arguments(&[])), Vec::<String>::new());
        }
        assert_eq!(
            others(10.0, 12.5, None).judged(&bound),
            ["the others' ack p99 was 10 ms before the cut and 12.5 ms during it: +25.0 %, above 10 %"]
        );
    }

    #[test]
    fn memory_that_grows_by_more_than_its_bound_is_wrong() {
        let bound = arguments(&["--assert-growth-mib", "64"]);
        for (growth, findings) in [(64.0, 0), (-3.0, 0), (64.1, 1)] {
            assert_eq!(others(1.0, 1.0, Some(growth)).judged(&bound).len(), findings, "{growth}");
        }
    }

    #[test]
    fn what_cannot_be_told_keeps_no_bound() {
        let bounds = arguments(&["--assert-others-p99-change", "10", "--assert-growth-mib", "64"]);
        for nothing in [others(0.0, 9.0, None), others(9.0, 0.0, None), Others::new(&[], &Usages::default())]
        {
            assert_eq!(nothing.judged(&bounds).len(), 2, "{nothing:?}");
            assert_eq!(nothing.judged(&arguments(&[])), Vec::<String>::new());
        }
    }

    #[test]
    fn the_region_that_grows_most_is_the_one_that_counts() {
        let found = || vec![Found::default(), Found::default()];
        let growth = |usages: &Usages| Others::new(&found(), usages).growth_mib;
        assert_eq!(growth(&usages([100, 100], [90, 107])), Some(7.0));
        assert_eq!(growth(&usages([100, 100], [90, 97])), Some(-3.0));
        assert_eq!(growth(&Usages { cut: None, ..usages([1, 1], [1, 1]) }), None);
    }
}
