//! What is wrong with a cluster, by what its regions say: a rule over their answers.
//!
//! It asks nobody. Start at [`examine`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::client::{Peer, Status};

/// How bad it is; later ones are worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    Info,
    Warning,
    Error,
}

impl Severity {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// A word that is not known is taken for the worst.
    fn of(name: &str) -> Self {
        match name {
            "info" => Self::Info,
            "warning" => Self::Warning,
            _ => Self::Error,
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Symptom {
    pub(crate) code: String,
    pub(crate) severity: Severity,
    pub(crate) region: String,
    pub(crate) evidence: String,
    /// One command.
    pub(crate) next: String,
}

/// What a region answered, or why it did not.
pub(crate) struct Seen {
    pub(crate) region: String,
    pub(crate) status: Result<Status, String>,
}

/// Codes that are found here; others come from the regions themselves.
#[cfg(test)]
pub(crate) const CODES: &[&str] = &[
    "region_unreachable",
    "peer_unreachable",
    "peer_stalled",
    "peer_slow",
    "peer_catching_up",
    "apply_paused",
    "not_whole",
    "quarantine",
    "clock_behind",
    "revisions_differ",
    "versions_differ",
    "state_differs",
];

/// All that is wrong, the worst first.
pub(crate) fn examine(seen: &[Seen]) -> Vec<Symptom> {
    let mut findings = Vec::new();
    for Seen { region, status } in seen {
        match status {
            Ok(status) => of_region(region, status, &mut findings),
            Err(text) => findings.push(symptom(
                "region_unreachable",
                Severity::Error,
                region,
                text.clone(),
                format!("tombolo serve --cluster DIR --region {region}"),
            )),
        }
    }
    let answers: Vec<(&str, &Status)> =
        seen.iter().filter_map(|seen| Some((seen.region.as_str(), seen.status.as_ref().ok()?))).collect();
    differences(&answers, &mut findings);
    findings.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| a.region.cmp(&b.region)));
    findings
}

fn symptom(code: &str, severity: Severity, region: &str, evidence: String, next: String) -> Symptom {
    Symptom { code: code.to_owned(), severity, region: region.to_owned(), evidence, next }
}

fn of_region(region: &str, status: &Status, findings: &mut Vec<Symptom>) {
    for finding in &status.findings {
        let (severity, next) = (Severity::of(&finding.severity), finding.next.clone());
        findings.push(symptom(&finding.code, severity, region, finding.text.clone(), next));
    }
    for peer in &status.peers {
        findings.extend(of_link(region, peer));
        if peer.paused {
            let next = format!(
                "curl -X POST http://HTTP-OF-{region}/v1/admin/resume-apply -H 'authorization: Bearer ADMIN' \
                 -H 'content-type: application/json' -d '{{\"peer\":\"{}\"}}'",
                peer.region
            );
            let evidence =
                format!("what {} writes is not applied here: somebody asked for that", peer.region);
            findings.push(symptom("apply_paused", Severity::Warning, region, evidence, next));
        }
    }
    if !status.whole {
        let waits = match status.waiting_for.as_slice() {
            [] => "it catches up with what the others hold".to_owned(),
            names => format!("it waits for {}", names.join(", ")),
        };
        let next = format!("tombolo status --region {region}");
        findings.push(symptom("not_whole", Severity::Warning, region, waits, next));
    }
    if !status.quarantine.is_empty() {
        let evidence = format!("damaged files were set aside: {}", status.quarantine.join(", "));
        let next = "tombolo wal inspect DATA_DIRECTORY".to_owned();
        findings.push(symptom("quarantine", Severity::Error, region, evidence, next));
    }
    let clock = &status.clock;
    if clock.max_drift_ms > 0 && clock.offset_ms < -(clock.max_drift_ms as f64) {
        let evidence = format!(
            "its clock is {:.0} ms behind its peers', the bound is {} ms",
            -clock.offset_ms, clock.max_drift_ms
        );
        findings.push(symptom(
            "clock_behind",
            Severity::Warning,
            region,
            evidence,
            "chronyc makestep".to_owned(),
        ));
    }
}

fn of_link(region: &str, peer: &Peer) -> Option<Symptom> {
    let (code, severity) = match peer.state.as_str() {
        "unreachable" => ("peer_unreachable", Severity::Error),
        "stalled" => ("peer_stalled", Severity::Error),
        "slow" => ("peer_slow", Severity::Warning),
        "catching_up" => ("peer_catching_up", Severity::Info),
        _ => return None,
    };
    let mut evidence = format!(
        "{} lacks {} ops of it, the oldest {:.1} s old",
        peer.region, peer.behind_ops, peer.lag_seconds
    );
    if let Some(limit) = &peer.limit {
        evidence += &format!("; the {limit} limits: {}", peer.evidence);
    }
    let next = match peer.limit.as_deref() {
        Some("network") | None => "tombolo lag --watch".to_owned(),
        Some("receiver") => format!("tombolo status --region {}", peer.region),
        Some(_) => format!("tombolo status --region {region}"),
    };
    Some(symptom(code, severity, region, evidence, next))
}

/// A shard and how far it holds each log.
type Prefix<'a> = (u16, Vec<(&'a str, u64)>);
/// Regions by the digest they show.
type Holders<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// What should be the same everywhere.
fn differences(answers: &[(&str, &Status)], findings: &mut Vec<Symptom>) {
    let differ = |value: &dyn Fn(&Status) -> String| {
        let values: BTreeSet<String> = answers.iter().map(|(_, status)| value(status)).collect();
        let all = answers.iter().map(|(region, status)| format!("{region} {}", value(status)));
        (values.len() > 1).then(|| all.collect::<Vec<_>>().join(", "))
    };
    if let Some(all) = differ(&|status| status.revision.to_string()) {
        let next = "tombolo await --revision N".to_owned();
        findings.push(symptom("revisions_differ", Severity::Warning, "cluster", all, next));
    }
    if let Some(all) = differ(&|status| status.version.clone()) {
        let next = "tombolo status".to_owned();
        findings.push(symptom("versions_differ", Severity::Info, "cluster", all, next));
    }
    // Who shows which digest, per shard and vector.
    let mut digests: BTreeMap<Prefix<'_>, Holders<'_>> = BTreeMap::new();
    for (region, status) in answers {
        for shard in &status.shards {
            let vector = shard.version_vector.iter().map(|(log, &seq)| (log.as_str(), seq)).collect();
            let held = digests.entry((shard.shard, vector)).or_default();
            held.entry(shard.digest.as_str()).or_default().push(region);
        }
    }
    for ((shard, _), held) in digests.iter().filter(|(_, held)| held.len() > 1) {
        let sides: Vec<String> = held.values().map(|regions| regions.join(" and ")).collect();
        let evidence =
            format!("shard {shard}: equal vectors, different digests: {}", sides.join(" against "));
        findings.push(symptom(
            "state_differs",
            Severity::Error,
            "cluster",
            evidence,
            "tombolo verify".to_owned(),
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn seen(region: &str, change: Value) -> Seen {
        let mut status = json!({
            "region": region, "version": "1", "revision": 3, "whole": true, "clock": {"offset_ms": 0.0, "max_drift_ms": 500},
            "shards": [{"shard": 0, "version_vector": {"eu/1": 7}, "digest": "aa"}],
            "peers": [{"region": "other", "state": "ok"}],
        });
        for (name, value) in change.as_object().unwrap() {
            status[name] = value.clone();
        }
        Seen { region: region.to_owned(), status: Ok(serde_json::from_value(status).unwrap()) }
    }

    fn codes(seen: &[Seen]) -> Vec<String> {
        examine(seen).into_iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn a_cluster_that_is_well_has_no_findings() {
        assert_eq!(codes(&[seen("eu", json!({})), seen("us", json!({}))]), Vec::<String>::new());
    }

    #[test]
    fn each_rule_finds_what_it_is_for_and_all_of_them_are_listed() {
        let link = |state: &str| json!({"peers": [{"region": "us", "state": state, "limit": "receiver", "evidence": "it is paused"}]});
        let cases = [
            ("peer_unreachable", link("unreachable")),
            ("peer_stalled", link("stalled")),
            ("peer_slow", link("slow")),
            ("peer_catching_up", link("catching_up")),
            ("apply_paused", json!({"peers": [{"region": "us", "state": "ok", "paused": true}]})),
            ("not_whole", json!({"whole": false, "waiting_for": ["us"]})),
            ("quarantine", json!({"quarantine": ["a.seg"]})),
            ("clock_behind", json!({"clock": {"offset_ms": -501.0, "max_drift_ms": 500}})),
            ("revisions_differ", json!({"revision": 4})),
            ("versions_differ", json!({"version": "2"})),
            (
                "state_differs",
                json!({"shards": [{"shard": 0, "version_vector": {"eu/1": 7}, "digest": "bb"}]}),
            ),
        ];
        let mut found: BTreeSet<String> = BTreeSet::new();
        for (code, change) in cases {
            let all = codes(&[seen("eu", change), seen("us", json!({}))]);
            assert_eq!(all, [code]);
            found.extend(all);
        }
        let gone = Seen { region: "ap".to_owned(), status: Err("refused".to_owned()) };
        found.extend(codes(&[gone]));
        let listed: BTreeSet<String> = CODES.iter().map(|&code| code.to_owned()).collect();
        assert_eq!(found, listed);
    }

    #[test]
    fn the_worst_comes_first_and_a_regions_own_findings_are_among_them() {
        let own = json!({"whole": false, "findings": [{"code": "data_loss", "severity": "error", "text": "shard 3", "next": "tombolo wal inspect"}]});
        let all = examine(&[seen("eu", own)]);
        assert_eq!((all[0].code.as_str(), all[0].severity), ("data_loss", Severity::Error));
        assert_eq!((all[1].code.as_str(), all.len()), ("not_whole", 2));
        assert!(all.iter().all(|finding| !finding.next.is_empty() && !finding.evidence.is_empty()));
    }
}
