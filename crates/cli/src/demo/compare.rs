//! Every counter and register in every region against the oracle.

use tombolo_sdk::{Client, Value};
use tombolo_testbed::oracle::{Difference, Oracle};

use crate::error::CliError;
use crate::regions::sdk_error;

/// Keys per read.
const READ_KEYS: usize = 1_024;

/// What one region holds.
pub(super) struct Compared {
    pub(super) differences: Vec<Difference>,
    /// Departures as this region counts them.
    pub(super) flights_counted: i64,
}

/// Reads all that the oracle expects something of, and compares.
pub(super) async fn compare(name: &str, client: &Client, oracle: &Oracle) -> Result<Compared, CliError> {
    let expectations: Vec<_> = oracle.expectations().collect();
    let (mut differences, mut flights_counted) = (Vec::new(), 0_i128);
    for chunk in expectations.chunks(READ_KEYS) {
        let keys: Vec<&str> = chunk.iter().map(|(key, _)| *key).collect();
        let values = client.read(&keys, None).await.map_err(|error| sdk_error(name, &error))?;
        for ((key, expected), value) in chunk.iter().zip(values) {
            if let (Value::Counter(count), true) = (&value, is_departures(key)) {
                flights_counted += count;
            }
            let found = text(value);
            if found != *expected {
                differences.push(Difference { key: (*key).to_owned(), expected: expected.clone(), found });
            }
        }
    }
    let bounded = flights_counted.clamp(i64::MIN.into(), i64::MAX.into());
    Ok(Compared { differences, flights_counted: bounded as i64 })
}

/// Whether it counts each flight once: the airlines' counters count them again.
fn is_departures(key: &str) -> bool {
    key.strip_prefix("departures:").is_some_and(|rest| !rest.starts_with("carrier:"))
}

/// As the oracle writes it.
fn text(value: Value) -> Option<String> {
    match value {
        Value::Absent => None,
        Value::Counter(count) => Some(count.to_string()),
        Value::Register { value, .. } => Some(String::from_utf8_lossy(&value).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flights_are_counted_by_their_destination_alone() {
        assert!(is_departures("departures:BQN"));
        assert!(!is_departures("departures:carrier:B6") && !is_departures("delay_minutes:BQN"));
    }
}
