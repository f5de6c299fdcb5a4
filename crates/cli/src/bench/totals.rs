//! Whether every accepted signal counts, once, in every region: the sums of all keys, read back.

use std::sync::Arc;

use tombolo_sdk::{Client, SdkError, Value};

use super::keys::Keys;
use crate::error::{CliError, Exit};
use crate::regions::sdk_error;

/// Keys per read.
const READ_KEYS: usize = 4_096;
/// Findings that are kept in words.
const FINDINGS_MAX: usize = 10;

/// All values of all keys in every region.
pub(crate) struct Snapshot {
    names: Vec<String>,
    values: Vec<Vec<Value>>,
}

impl Snapshot {
    /// Reads every key in every region.
    pub(crate) async fn read(
        names: &[String],
        clients: &[Client],
        keys: &Arc<Keys>,
    ) -> Result<Self, CliError> {
        let read = |client: &Client| tokio::spawn(read_all(client.clone(), keys.clone()));
        let reads: Vec<_> = clients.iter().map(read).collect();
        let mut values = Vec::new();
        for (name, read) in names.iter().zip(reads) {
            let read = read.await.map_err(|error| CliError::new(Exit::Other, error.to_string()))?;
            values.push(read.map_err(|error| sdk_error(name, &error))?);
        }
        Ok(Self { names: names.to_owned(), values })
    }

    /// The sum of all counters, per region.
    pub(crate) fn sums(&self) -> Vec<i128> {
        let sum = |values: &Vec<Value>| values.iter().map(count).sum();
        self.values.iter().map(sum).collect()
    }

    /// What is not as `accepted` adds of 1, and up to `unknown` more, make it; empty if all is right.
    pub(crate) fn check_sums(&self, before: &[i128], accepted: u64, unknown: u64) -> Vec<String> {
        let sums = self.sums();
        let wrong = self.names.iter().zip(sums.iter().zip(before)).filter_map(|(name, (sum, before))| {
            let (found, least) = (sum - before, i128::from(accepted));
            let is_right = (least..=least + i128::from(unknown)).contains(&found);
            (!is_right).then(|| format!("{name}: counters grew by {found}, accepted were {accepted}"))
        });
        wrong.chain(self.unequal()).collect()
    }

    /// Which keys differ between regions; stamps count too.
    pub(crate) fn unequal(&self) -> Vec<String> {
        let Some((first, others)) = self.values.split_first() else { return Vec::new() };
        let mut findings = Vec::new();
        for (name, values) in self.names[1..].iter().zip(others) {
            let differing = first.iter().zip(values).enumerate().filter(|(_, (a, b))| a != b);
            let places: Vec<usize> = differing.map(|(at, _)| at).collect();
            if let Some(at) = places.first() {
                findings.push(format!(
                    "{} keys differ between {} and {name}; key {at}: {:?} and {:?}",
                    places.len(),
                    self.names[0],
                    first[*at],
                    values[*at]
                ));
            }
        }
        findings
    }

    /// Which keys are absent though `is_written` says so, or the other way round.
    pub(crate) fn check_presence(&self, is_written: impl Fn(u32) -> bool) -> Vec<String> {
        let mut findings = self.unequal();
        for (name, values) in self.names.iter().zip(&self.values) {
            let wrong = values
                .iter()
                .enumerate()
                .filter(|(at, value)| is_written(*at as u32) == (**value == Value::Absent));
            let wrong: Vec<usize> = wrong.map(|(at, _)| at).collect();
            if let Some(at) = wrong.first() {
                findings.push(format!(
                    "{name}: {} keys are wrongly there or absent, the first is {at}",
                    wrong.len()
                ));
            }
        }
        findings.truncate(FINDINGS_MAX);
        findings
    }
}

async fn read_all(client: Client, keys: Arc<Keys>) -> Result<Vec<Value>, SdkError> {
    let mut values = Vec::with_capacity(keys.count() as usize);
    let all: Vec<&str> = keys.all().collect();
    for chunk in all.chunks(READ_KEYS) {
        values.extend(client.read(chunk, None).await?);
    }
    Ok(values)
}

const fn count(value: &Value) -> i128 {
    match value {
        Value::Counter(count) => *count,
        Value::Absent | Value::Register { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(a: &[i128], b: &[i128]) -> Snapshot {
        let values = |counts: &[i128]| {
            counts.iter().map(|n| if *n == 0 { Value::Absent } else { Value::Counter(*n) }).collect()
        };
        Snapshot { names: vec!["a".into(), "b".into()], values: vec![values(a), values(b)] }
    }

    #[test]
    fn sums_that_match_are_right_and_one_lost_or_doubled_is_not() {
        assert!(snapshot(&[2, 0, 3], &[2, 0, 3]).check_sums(&[0, 0], 5, 0).is_empty());
        assert!(snapshot(&[12, 0, 3], &[12, 0, 3]).check_sums(&[10, 10], 5, 0).is_empty());
        assert_eq!(snapshot(&[2, 0, 3], &[2, 0, 2]).check_sums(&[0, 0], 5, 0).len(), 2);
        assert_eq!(snapshot(&[2, 0, 4], &[2, 0, 4]).check_sums(&[0, 0], 5, 0).len(), 2);
        assert!(snapshot(&[2, 0, 4], &[2, 0, 4]).check_sums(&[0, 0], 5, 1).is_empty());
    }

    #[test]
    fn equal_sums_over_unequal_keys_are_wrong() {
        let findings = snapshot(&[2, 3], &[3, 2]).check_sums(&[0, 0], 5, 0);
        assert_eq!(findings, ["2 keys differ between a and b; key 0: Counter(2) and Counter(3)"]);
    }

    #[test]
    fn a_key_that_was_written_is_there_and_no_other() {
        let written = |at: u32| at != 1;
        assert!(snapshot(&[1, 0, 1], &[1, 0, 1]).check_presence(written).is_empty());
        assert_eq!(snapshot(&[1, 1, 1], &[1, 1, 1]).check_presence(written).len(), 2);
        assert_eq!(snapshot(&[1, 0, 0], &[1, 0, 1]).check_presence(written).len(), 2);
    }
}
