//! What the demo found: a table for people, one object for programs, and whether it passed.

use serde::{Serialize, Serializer};
use tombolo_testbed::machine::Machine;
use tombolo_testbed::oracle::Difference;
use tombolo_testbed::percentiles::Summary;

use super::lag::Lag;
use super::wan::Path;
use crate::output::Columns;

/// Differences that are shown per region; all are counted.
pub(super) const DIFFERENCES_MAX: usize = 10;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) schema: &'static str,
    /// Whether all is as the oracle says, and everything was answered.
    pub(super) pass: bool,
    pub(super) commit: String,
    pub(super) machine: Machine,
    pub(super) paths: Vec<Path>,
    pub(super) flights: u64,
    pub(super) signals: u64,
    /// Counters and registers compared in each region.
    pub(super) keys: usize,
    pub(super) cut: Cut,
    /// Whether all regions show equal version vectors with equal digests; what differs, if not.
    pub(super) digests_equal: bool,
    pub(super) digests: Option<String>,
    pub(super) regions: Vec<RegionOutcome>,
    /// What else went wrong.
    pub(super) failures: Vec<String>,
}

/// The cut and its end.
#[derive(Debug, Serialize)]
pub(super) struct Cut {
    pub(super) region: String,
    pub(super) seconds: f64,
    /// From the end of the cut until all that was written before it ended was everywhere; none if it never was.
    pub(super) heal_seconds: Option<f64>,
}

/// One region.
#[derive(Debug, Serialize)]
pub(super) struct RegionOutcome {
    pub(super) region: String,
    /// Whose flights it wrote.
    pub(super) airports: Vec<String>,
    pub(super) flights: u64,
    pub(super) signals: u64,
    pub(super) failed: u64,
    /// From handing over a set to its answer.
    pub(super) ack_ms: Summary,
    /// From sending an add here to reading it in another region, while no link is cut.
    pub(super) visible_ms: Summary,
    pub(super) lag_seconds: Lag,
    /// Flights as this region counts them, whoever wrote them.
    pub(super) flights_counted: i64,
    /// Keys whose value is not what it must be.
    pub(super) differences_count: usize,
    #[serde(serialize_with = "as_text")]
    pub(super) differences: Vec<Difference>,
}

fn as_text<S: Serializer>(differences: &[Difference], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(differences.iter().take(DIFFERENCES_MAX).map(ToString::to_string))
}

impl Outcome {
    /// Sets [`Outcome::pass`] from all the rest.
    #[must_use]
    pub(super) fn judged(mut self) -> Self {
        let is_right = |region: &RegionOutcome| region.failed == 0 && region.differences_count == 0;
        self.pass = self.digests_equal && self.failures.is_empty() && self.regions.iter().all(is_right);
        self
    }

    /// For people; ends with `PASS` or `FAIL`.
    pub(super) fn human(&self) -> String {
        let mut columns = Columns::new(&[
            "region",
            "writes for",
            "flights>",
            "signals>",
            "ack p50>",
            "p99>",
            "visible p50>",
            "p99>",
            "lag cut>",
            "after>",
            "counts>",
            "equal>",
        ]);
        let ms = |ms: f64| format!("{ms:.1} ms");
        for region in &self.regions {
            let (ack, visible, lag) = (&region.ack_ms, &region.visible_ms, &region.lag_seconds);
            columns.row([
                region.region.clone(),
                region.airports.join("+"),
                region.flights.to_string(),
                region.signals.to_string(),
                ms(ack.p50),
                ms(ack.p99),
                ms(visible.p50),
                ms(visible.p99),
                format!("{:.1} s", lag.during),
                lag.after.map_or_else(|| "-".to_owned(), |after| format!("{after:.2} s")),
                region.flights_counted.to_string(),
                format!("{}/{}", self.keys - region.differences_count.min(self.keys), self.keys),
            ]);
        }
        let equal = self.regions.iter().filter(|region| region.differences_count == 0).count();
        let Cut { region, seconds, heal_seconds } = &self.cut;
        let mut text = columns.render();
        text += &format!(
            "\n{equal} of {} regions equal the oracle in all {} counters and registers; {} flights, {} signals\n",
            self.regions.len(),
            self.keys,
            self.flights,
            self.signals,
        );
        let healed =
            heal_seconds.map_or_else(|| "did not heal".to_owned(), |after| format!("healed in {after:.2} s"));
        text += &format!("{region} was cut off for {seconds:.1} s and {healed}\n");
        for region in &self.regions {
            for difference in region.differences.iter().take(DIFFERENCES_MAX) {
                text += &format!("  {}: {difference}\n", region.region);
            }
        }
        if let Some(digests) = &self.digests {
            text += &format!("  digests: {digests}\n");
        }
        self.failures.iter().for_each(|failure| text += &format!("  {failure}\n"));
        text + if self.pass { "PASS\n" } else { "FAIL\n" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(differences: Vec<Difference>) -> Outcome {
        let region = |region: &str, differences: Vec<Difference>| RegionOutcome {
            region: region.into(),
            airports: vec!["EWR".into()],
            flights: 2,
            signals: 9,
            failed: 0,
            ack_ms: Summary { p50: 0.5, p95: 1.0, p99: 2.0, max: 3.0 },
            visible_ms: Summary { p50: 61.2, p95: 62.0, p99: 70.0, max: 71.0 },
            lag_seconds: Lag { before: 0.0, during: 3.04, after: Some(0.061), latest: 0.0 },
            flights_counted: 4,
            differences_count: differences.len(),
            differences,
        };
        Outcome {
            schema: "tombolo.demo/v1",
            pass: false,
            commit: "c".into(),
            machine: Machine { cores: 2, cpu: None, memory_bytes: None, kernel: "k".into() },
            paths: super::super::wan::paths(2),
            flights: 4,
            signals: 18,
            keys: 5,
            cut: Cut { region: "us-east".into(), seconds: 3.0, heal_seconds: Some(0.413) },
            digests_equal: true,
            digests: None,
            regions: vec![region("eu-west", Vec::new()), region("us-east", differences)],
            failures: Vec::new(),
        }
        .judged()
    }

    #[test]
    fn equal_regions_pass() {
        let text = outcome(Vec::new()).human();
        assert!(text.ends_with("\nPASS\n"), "{text}");
        assert!(text.contains("2 of 2 regions equal the oracle in all 5 counters and registers"), "{text}");
        assert!(text.contains("us-east was cut off for 3.0 s and healed in 0.41 s"), "{text}");
    }

    #[test]
    fn one_wrong_counter_fails_and_is_named() {
        let wrong = Difference { key: "k".into(), expected: Some("2".into()), found: Some("3".into()) };
        let outcome = outcome(vec![wrong]);
        let text = outcome.human();
        assert!(text.ends_with("  us-east: k: expected 2, found 3\nFAIL\n"), "{text}");
        let json = serde_json::to_value(&outcome).unwrap();
        assert_eq!((&json["pass"], &json["schema"]), (&false.into(), &"tombolo.demo/v1".into()));
        assert_eq!(json["regions"][1]["differences"][0], "k: expected 2, found 3");
    }

    #[test]
    fn unequal_digests_and_lost_answers_fail() {
        let mut digests = outcome(Vec::new());
        digests.digests_equal = false;
        assert!(!digests.judged().pass);
        let mut lost = outcome(Vec::new());
        lost.regions[0].failed = 1;
        assert!(!lost.judged().pass);
        let mut failed = outcome(Vec::new());
        failed.failures.push("no barrier".into());
        assert!(!failed.judged().pass);
    }
}
