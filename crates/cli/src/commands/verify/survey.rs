//! [`Survey`]: what all regions found when each compared itself with the next one, and which of them is wrong.
//!
//! Asks nobody. Of an entry that is damaged in one of three regions, both comparisons that the region takes part in
//! speak; an entry that contradicts the digest kept of it needs no second voice.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A region's answer, as far as it is used.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Verification {
    pub(super) region: String,
    pub(super) peers: Vec<String>,
    pub(super) shards: usize,
    pub(super) entries: u64,
    pub(super) rounds: u32,
    pub(super) in_motion: usize,
    pub(super) mended: usize,
    pub(super) damaged_count: usize,
    pub(super) damaged: Vec<Found>,
    pub(super) wrong_digests: Vec<u16>,
    pub(super) unfinished: Vec<Unfinished>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Found {
    pub(super) entry: String,
    pub(super) shard: u16,
    pub(super) kind: String,
    pub(super) tenant: Option<u32>,
    pub(super) key: Option<String>,
    pub(super) peer: String,
    pub(super) here: Option<String>,
    pub(super) there: Option<String>,
    pub(super) contradicts_digest: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Unfinished {
    pub(super) shard: u16,
    pub(super) peer: String,
    pub(super) text: String,
}

/// A damaged entry, with all that was found of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Damaged {
    pub(super) entry: String,
    pub(super) shard: u16,
    pub(super) kind: String,
    pub(super) tenant: Option<u32>,
    pub(super) key: Option<String>,
    /// The regions of which one is wrong; a single one is.
    pub(super) regions: Vec<String>,
    /// What stands in each region; null: nothing.
    pub(super) values: BTreeMap<String, Option<String>>,
}

/// What was compared, and with what outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Survey {
    pub(super) entries: u64,
    pub(super) rounds: u32,
    pub(super) in_motion: usize,
    /// Those that are not named included, each counted by every comparison that found it.
    pub(super) damaged_count: usize,
    pub(super) damaged: Vec<Damaged>,
    /// Shards whose digests are wrong, by region.
    pub(super) wrong_digests: BTreeMap<String, Vec<u16>>,
    pub(super) unfinished: Vec<String>,
}

impl Survey {
    pub(super) fn of(verifications: &[Verification]) -> Self {
        let mut out = Self::default();
        let mut found: BTreeMap<&str, Vec<(&str, &Found)>> = BTreeMap::new();
        for it in verifications {
            out.entries += it.entries;
            out.rounds = out.rounds.max(it.rounds);
            out.in_motion += it.in_motion;
            out.damaged_count += it.damaged_count;
            if !it.wrong_digests.is_empty() {
                out.wrong_digests.insert(it.region.clone(), it.wrong_digests.clone());
            }
            let text = |what: &Unfinished| {
                format!("shard {} of {} with {}: {}", what.shard, it.region, what.peer, what.text)
            };
            out.unfinished.extend(it.unfinished.iter().map(text));
            for damaged in &it.damaged {
                found.entry(&damaged.entry).or_default().push((&it.region, damaged));
            }
        }
        out.damaged = found.into_values().map(|found| judge(&found)).collect();
        out
    }

    /// Whether all that was compared is the same.
    pub(super) fn is_equal(&self) -> bool {
        self.damaged_count == 0 && self.wrong_digests.is_empty() && self.unfinished.is_empty()
    }

    /// Which region has to replace which entries by those of which other one; `trusted` decides where nothing else does.
    pub(super) fn repairs(
        &self,
        regions: &[String],
        trusted: Option<&str>,
    ) -> BTreeMap<(String, String), Vec<String>> {
        let mut repairs: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for damaged in &self.damaged {
            let wrong: Vec<&String> = match trusted {
                Some(trusted) if damaged.regions.len() > 1 => {
                    damaged.regions.iter().filter(|region| *region != trusted).collect()
                }
                _ => damaged.regions.iter().collect(),
            };
            let [wrong] = wrong[..] else { continue };
            let is_right = |region: &&String| *region != wrong;
            let right = trusted.filter(|&trusted| trusted != wrong);
            let right = right.or_else(|| regions.iter().find(is_right).map(String::as_str));
            if let Some(right) = right {
                repairs.entry((wrong.clone(), right.to_owned())).or_default().push(damaged.entry.clone());
            }
        }
        for wrong in self.wrong_digests.keys() {
            if let Some(right) = regions.iter().find(|region| *region != wrong) {
                repairs.entry((wrong.clone(), right.clone())).or_default();
            }
        }
        repairs
    }
}

fn judge(found: &[(&str, &Found)]) -> Damaged {
    let (_, first) = found[0];
    let mut values = BTreeMap::new();
    for (region, it) in found {
        values.insert((*region).to_owned(), it.here.clone());
        values.insert(it.peer.clone(), it.there.clone());
    }
    let pairs: Vec<BTreeSet<&str>> =
        found.iter().map(|(region, it)| BTreeSet::from([*region, it.peer.as_str()])).collect();
    let contradicting: BTreeSet<&str> =
        found.iter().filter(|(_, it)| it.contradicts_digest).map(|(region, _)| *region).collect();
    let all: BTreeSet<&str> = pairs.iter().flatten().copied().collect();
    let in_all: BTreeSet<&str> =
        all.iter().copied().filter(|region| pairs.iter().all(|pair| pair.contains(region))).collect();
    let suspects = if !contradicting.is_empty() {
        contradicting
    } else if !in_all.is_empty() {
        in_all
    } else {
        all
    };
    Damaged {
        entry: first.entry.clone(),
        shard: first.shard,
        kind: first.kind.clone(),
        tenant: first.tenant,
        key: first.key.clone(),
        regions: suspects.into_iter().map(str::to_owned).collect(),
        values,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(region: &str, peer: &str, entry: &str, contradicts_digest: bool) -> Verification {
        let found = Found {
            entry: entry.to_owned(),
            peer: peer.to_owned(),
            here: Some(region.to_owned()),
            there: Some(peer.to_owned()),
            contradicts_digest,
            ..Found::default()
        };
        let (region, damaged) = (region.to_owned(), vec![found]);
        Verification { region, damaged_count: 1, damaged, ..Verification::default() }
    }

    fn names(regions: &[&str]) -> Vec<String> {
        regions.iter().map(|region| (*region).to_owned()).collect()
    }

    #[test]
    fn of_three_regions_the_one_that_differs_from_both_others_is_wrong() {
        let survey = Survey::of(&[found("a", "b", "x", false), found("c", "a", "x", false)]);
        assert_eq!(survey.damaged[0].regions, ["a"]);
        let repairs = survey.repairs(&names(&["a", "b", "c"]), None);
        assert_eq!(repairs, BTreeMap::from([(("a".to_owned(), "b".to_owned()), names(&["x"]))]));
    }

    #[test]
    fn of_two_regions_both_are_named_and_nothing_is_mended_before_one_is_trusted() {
        let survey = Survey::of(&[found("a", "b", "x", false), found("b", "a", "x", false)]);
        assert_eq!(survey.damaged[0].regions, ["a", "b"]);
        let regions = names(&["a", "b"]);
        assert!(survey.repairs(&regions, None).is_empty());
        let repairs = survey.repairs(&regions, Some("a"));
        assert_eq!(repairs, BTreeMap::from([(("b".to_owned(), "a".to_owned()), names(&["x"]))]));
    }

    #[test]
    fn an_entry_that_contradicts_its_digest_is_wrong_whoever_else_differs() {
        let survey = Survey::of(&[found("a", "b", "x", true), found("b", "a", "x", false)]);
        assert_eq!(survey.damaged[0].regions, ["a"]);
        assert!(!survey.is_equal());
    }

    #[test]
    fn digests_that_are_wrong_are_mended_without_an_entry() {
        let wrong =
            Verification { region: "b".to_owned(), wrong_digests: vec![3], ..Verification::default() };
        let survey = Survey::of(&[wrong, Verification::default()]);
        assert!(!survey.is_equal());
        let repairs = survey.repairs(&names(&["a", "b"]), None);
        assert_eq!(repairs, BTreeMap::from([(("b".to_owned(), "a".to_owned()), vec![])]));
    }

    #[test]
    fn nothing_found_is_equal_and_nothing_compared_to_its_end_is_not() {
        assert!(Survey::of(&[Verification::default()]).is_equal());
        let unfinished = vec![Unfinished::default()];
        assert!(!Survey::of(&[Verification { unfinished, ..Verification::default() }]).is_equal());
    }
}
